/*
 * Attention as a host shows it: rows of scores, then of probabilities. One row of all heads at a time is copied to
 * dense memory in the order of its sequence, edited by the functions that candid's own attention uses, and written
 * back.
 */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/attention_edit.h"
#include "core/status.h"
#include "host/pass.h"
#include "host/view.h"

static bool edits_scores(const struct attention_row *r) {
    for (int i = 0; r->edits && i < r->edits->n_edits; i++) {
        const enum attention_edit_kind kind = r->edits->edits[i].kind;
        if (kind == EDIT_SCORES_ABS || kind == EDIT_SCORES_MEAN_ABS) {
            return true;
        }
    }
    return false;
}

/* Edits that change probabilities, not only look at them. */
static bool edits_probs(const struct attention_row *r) {
    for (int i = 0; r->edits && i < r->edits->n_edits; i++) {
        const enum attention_edit_kind kind = r->edits->edits[i].kind;
        if (kind == EDIT_PROBS_MOVE || kind == EDIT_PROBS_REPLACE) {
            return true;
        }
    }
    return false;
}

/* ---- one row of one head ------------------------------------------------------------------------- */

/* Where keys [begin, end) of the row's head are in the view. */
struct key_range {
    int64_t offset, stride; /* of the first; stride of keys without columns */
    const int *columns;     /* of the range's keys, or NULL */
    int begin, n;
};

static struct key_range range_of(const candid_pass *p, const candid_view *v, int i, int head, int begin, int end) {
    const struct pass_row *at = &p->all.at[i];
    const struct pass_segment *s = &p->segments[at->segment];
    const int64_t first = s->batch * v->strides[0] + head * v->strides[1] + at->row * v->strides[2];
    return (struct key_range){.offset = s->key_columns ? first : first + (s->key_offset + begin) * v->strides[3],
                              .stride = v->strides[3],
                              .columns = s->key_columns ? s->key_columns + begin : NULL,
                              .begin = begin,
                              .n = end - begin};
}

static void get_range(const candid_view *v, const struct key_range *r, float *row) {
    if (!r->columns) {
        view_get(v, r->offset, r->stride, r->n, row + r->begin);
        return;
    }
    for (int k = 0; k < r->n; k++) {
        view_get(v, r->offset + r->columns[k] * r->stride, 1, 1, row + r->begin + k);
    }
}

static void put_range(const candid_view *v, const struct key_range *r, const float *row) {
    if (!r->columns) {
        view_put(v, r->offset, r->stride, r->n, row + r->begin);
        return;
    }
    for (int k = 0; k < r->n; k++) {
        view_put(v, r->offset + r->columns[k] * r->stride, 1, 1, row + r->begin + k);
    }
}

/* row: [attention_row_end]; `hidden` where a key is not seen. Returns whether all values are numbers. */
static bool get_row(const candid_pass *p, const candid_view *v, int i, int head, float hidden, float *row) {
    const struct attention_row *r = &p->views[i];
    const struct key_range seen = range_of(p, v, i, head, 0, r->n_keys);
    get_range(v, &seen, row);
    for (int k = r->n_keys; k < attention_row_end(r); k++) {
        row[k] = hidden;
    }
    if (r->also_end > 0) {
        const struct key_range also = range_of(p, v, i, head, r->also_begin, r->also_end);
        get_range(v, &also, row);
    }
    return !any_nan(row, (size_t)attention_row_end(r));
}

/* Writes back what is seen. */
static void put_row(const candid_pass *p, const candid_view *v, int i, int head, const float *row) {
    const struct attention_row *r = &p->views[i];
    const struct key_range seen = range_of(p, v, i, head, 0, r->n_keys);
    put_range(v, &seen, row);
    if (r->also_end > 0) {
        const struct key_range also = range_of(p, v, i, head, r->also_begin, r->also_end);
        put_range(v, &also, row);
    }
}

/* A row's probabilities of shown scores, in place. */
static void to_probs(const candid_pass *p, float *row, int n) {
    for (int k = 0; k < n && p->plugin->score_scale != 1.0f; k++) {
        row[k] *= p->plugin->score_scale;
    }
    attention_softmax(row, n);
}

/* ---- rows ---------------------------------------------------------------------------------------- */

/* Work memory of one thread. */
struct row_memory {
    float *heads, *work; /* (n_head, keys) */
    float *mean;         /* [keys] */
};

static bool edit_scores_row(candid_pass *p, const candid_view *v, int i, const struct row_memory *m) {
    const struct attention_row *r = &p->views[i];
    const struct row_edits *edits = r->edits;
    const int n_head = p->plugin->facts.n_head, n = attention_row_end(r);
    const size_t width = (size_t)n;
    bool good = true;
    for (int h = 0; h < n_head; h++) {
        float *s = m->heads + (size_t)h * width;
        good = get_row(p, v, i, h, -INFINITY, s) && good;
        float *before = probed_before(&p->attention.probed, r, i, h);
        if (before) {
            memcpy(before, s, width * sizeof *s);
            to_probs(p, before, n);
        }
    }
    if (!good) {
        return false;
    }
    if (attention_edits_need_mean(edits)) {
        memset(m->mean, 0, width * sizeof *m->mean);
        for (int h = 0; h < n_head; h++) {
            memcpy(m->work, m->heads + (size_t)h * width, width * sizeof *m->work);
            attention_edit_scores(edits, 0, attention_mean_edit(edits), h, n_head, m->work, NULL, n);
            for (int k = 0; k < n; k++) {
                m->mean[k] += m->work[k] == -INFINITY ? 0.0f : fabsf(m->work[k]);
            }
        }
        for (int k = 0; k < n; k++) {
            m->mean[k] /= (float)n_head;
        }
    }
    for (int h = 0; h < n_head; h++) {
        float *s = m->heads + (size_t)h * width;
        attention_edit_scores(edits, 0, edits->n_edits, h, n_head, s, m->mean, n);
        put_row(p, v, i, h, s);
    }
    return true;
}

static bool edit_probs_row(candid_pass *p, const candid_view *v, int layer, int i, const struct row_memory *m) {
    const struct attention_row *r = &p->views[i];
    const int n_head = p->plugin->facts.n_head, n = attention_row_end(r);
    const size_t bytes = (size_t)n * sizeof(float);
    const bool scored = edits_scores(r), changes = edits_probs(r);
    for (int h = 0; h < n_head; h++) {
        float *s = m->heads;
        if (!get_row(p, v, i, h, 0.0f, s)) {
            return false;
        }
        float *before = scored ? NULL : probed_before(&p->attention.probed, r, i, h);
        if (before) {
            memcpy(before, s, bytes);
        }
        if (r->edits) {
            attention_edit_probs(r, layer, h, n_head, s, m->work);
        }
        float *after = probed_after(&p->attention.probed, r, i, h);
        if (after) {
            memcpy(after, s, bytes);
        }
        if (changes) {
            put_row(p, v, i, h, s);
        }
    }
    if (r->n_probes > 0) {
        probed_reduce(&p->attention.probed, r, i);
    }
    return true;
}

/* Every row that has something to do at the site. */
static candid_status edit_rows(candid_pass *p, const candid_view *v, int layer, bool scores, int most_keys,
                               const char *what, candid_error *error) {
    struct pass_attention *t = &p->attention;
    const int n_threads = p->all.n > 1 ? p->plugin->n_threads : 1;
    const size_t row = (size_t)p->plugin->facts.n_head * (size_t)most_keys, keys = (size_t)most_keys;
    TRY(pass_room(&t->heads, &t->heads_capacity, (size_t)n_threads * row, error));
    TRY(pass_room(&t->work, &t->work_capacity, (size_t)n_threads * keys, error));
    TRY(pass_room(&t->mean, &t->mean_capacity, (size_t)n_threads * keys, error));
    bool good = true;
#pragma omp parallel for num_threads(n_threads) schedule(dynamic, 4) if (n_threads > 1)
    for (int i = 0; i < p->all.n; i++) {
        const struct attention_row *r = &p->views[i];
        const size_t thread = (size_t)omp_get_thread_num();
        const struct row_memory m = {t->heads + thread * row, t->work + thread * keys, t->mean + thread * keys};
        bool fine = true;
        if (scores) {
            fine = !edits_scores(r) || edit_scores_row(p, v, i, &m);
        } else if (r->n_probes > 0 || (r->edits && r->edits->n_edits > 0)) {
            fine = edit_probs_row(p, v, layer, i, &m);
        }
        if (!fine) {
#pragma omp atomic write
            good = false;
        }
    }
    return good ? CANDID_OK : fail(error, CANDID_ERROR_ARGUMENT, "%s: a value is no number", what);
}

/* ---- a layer ------------------------------------------------------------------------------------- */

static candid_status check_view(const candid_pass *p, const candid_view *v, const char *what, candid_error *error) {
    if (v->shape[1] != p->plugin->facts.n_head) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: expected (batch, %d heads, rows, keys), found %lld heads", what,
                    p->plugin->facts.n_head, (long long)v->shape[1]);
    }
    for (size_t i = 0; i < p->n_segments; i++) {
        const struct pass_segment *s = &p->segments[i];
        int64_t last = (int64_t)s->key_offset + s->n_keys - 1;
        for (int k = 0; s->key_columns && k < s->n_keys; k++) {
            last = k == 0 || s->key_columns[k] > last ? s->key_columns[k] : last;
        }
        if (s->batch >= v->shape[0] || s->first_row + s->n_rows > v->shape[2] || last >= v->shape[3]) {
            return fail(
                error, CANDID_ERROR_ARGUMENT,
                "%s: segment %zu: expected batch element %d, rows up to %d and keys up to column %lld; the view "
                "has %lld, %lld and %lld",
                what, i, s->batch, s->first_row + s->n_rows - 1, (long long)last, (long long)v->shape[0],
                (long long)v->shape[2], (long long)v->shape[3]);
        }
    }
    return CANDID_OK;
}

/* plan_run.shown_columns: sums over rows of unedited probabilities. */
static candid_status shown_columns(void *shown, const struct kv_attention *a, const uint8_t *heads, float *sums,
                                   candid_error *error) {
    candid_pass *p = shown;
    struct pass_attention *t = &p->attention;
    const int first = (int)(a->rows - p->views);
    TRY(pass_room(&t->heads, &t->heads_capacity, (size_t)a->max_keys, error));
    memset(sums, 0, (size_t)a->n_head * (size_t)a->max_keys * sizeof *sums);
    for (int h = 0; h < a->n_head; h++) {
        for (int i = 0; i < a->n_rows && (!heads || heads[h]); i++) {
            const int n = attention_row_end(&a->rows[i]);
            if (!get_row(p, t->shown, first + i, h, t->shows_scores ? -INFINITY : 0.0f, t->heads)) {
                return fail(error, CANDID_ERROR_ARGUMENT, "attention of layer %d: a value is no number", a->layer);
            }
            if (t->shows_scores) {
                to_probs(p, t->heads, n);
            }
            for (int k = 0; k < n; k++) {
                sums[(size_t)h * (size_t)a->max_keys + (size_t)k] += t->heads[k];
            }
        }
    }
    return CANDID_OK;
}

/* Attaches edits and probes to the rows. */
static candid_status attach(candid_pass *p, struct kv_attention *a, candid_error *error) {
    struct pass_attention *t = &p->attention;
    p->run.rows = p->all.plans;
    p->run.n_rows = p->all.n;
    p->run.shown = p;
    p->run.shown_columns = shown_columns;
    TRY(plan_at_attention(&p->run, a->layer, a, p->views, NULL, error));
    float *memory = t->probed.probs;
    t->probed = probed_rows_of(a, (size_t)a->max_keys);
    t->probed.probs = memory;
    if (t->probed.n_sets > 0) {
        const size_t count = (size_t)p->all.n * (size_t)t->probed.n_sets * (size_t)a->n_head * (size_t)a->max_keys;
        TRY(pass_room(&t->probed.probs, &t->probed_capacity, count, error));
    }
    t->layer = a->layer;
    return CANDID_OK;
}

candid_status pass_attention_at(candid_pass *p, enum candid_site site, int layer, const candid_view *given,
                                const char *what, candid_error *error) {
    const struct model_facts *f = &p->plugin->facts;
    const bool scores = site == CANDID_SITE_ATTENTION_SCORES;
    const struct kv_shape shape = {f->n_layer, f->n_head_kv, f->head_dim, true};
    struct kv_attention a = {
        .shape = &shape, .layer = layer, .n_head = f->n_head, .rows = p->views, .n_rows = p->all.n, .scale = 1.0f};
    for (int i = 0; i < p->all.n; i++) {
        const int end = attention_row_end(&p->views[i]);
        a.max_keys = end > a.max_keys ? end : a.max_keys;
    }
    candid_view v;
    TRY(view_read(given, 4, what, &v, error));
    TRY(check_view(p, &v, what, error));
    const size_t scores_at = site_index(layer, CANDID_SITE_ATTENTION_SCORES);
    if (!scores && p->wants[scores_at] && !p->shown[scores_at]) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: the layer's scores were not shown before", what);
    }
    if (p->attention.layer != layer) {
        p->attention.shown = &v;
        p->attention.shows_scores = scores;
        TRY(attach(p, &a, error));
    }
    TRY(edit_rows(p, &v, layer, scores, a.max_keys, what, error));
    if (!scores || !p->wants[site_index(layer, CANDID_SITE_ATTENTION_PROBS)]) {
        plan_after_attention(&p->run, &a);
    }
    return CANDID_OK;
}
