/* candid_pass: which rows a host's forward pass has, and what happens to its tensors site by site. */
#include "host/pass.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "host/search.h"
#include "host/view.h"

/* ---- life ---------------------------------------------------------------------------------------- */

candid_status candid_pass_create(const candid_plugin *plugin, candid_pass **out, candid_error *error) {
    if (!plugin || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_pass_create: %s is NULL", plugin ? "out" : "plugin");
    }
    candid_pass *p = calloc(1, sizeof *p);
    if (!p) {
        return fail_memory(error, "a pass", sizeof *p);
    }
    const size_t sites = site_index(plugin->facts.n_layer + 1, 0);
    p->plugin = plugin;
    p->wants = calloc(sites, 1);
    p->shown = calloc(sites, 1);
    candid_status status = p->wants && p->shown ? CANDID_OK : fail_memory(error, "a pass", 2 * sites);
    if (status == CANDID_OK) {
        status = backend_cpu_create(CANDID_PRECISION_EXACT, plugin->n_threads, &plugin->log, &p->cpu, error);
    }
    if (status != CANDID_OK) {
        candid_pass_free(p);
        return status;
    }
    p->run.b = p->cpu;
    *out = p;
    return CANDID_OK;
}

void candid_pass_free(candid_pass *p) {
    if (!p) {
        return;
    }
    p->run.rows = NULL; /* borrowed of all or last */
    plan_run_free(&p->run);
    backend_destroy(p->cpu);
    free(p->segments);
    free(p->columns);
    free(p->all.plans);
    free(p->all.at);
    free(p->last.plans);
    free(p->last.at);
    free(p->views);
    free(p->wants);
    free(p->shown);
    free(p->staged);
    free(p->early);
    free(p->mixed);
    free(p->attention.probed.probs);
    free(p->attention.heads);
    free(p->attention.mean);
    free(p->attention.work);
    free(p);
}

candid_status pass_room(float **buffer, size_t *capacity, size_t count, candid_error *error) {
    return plan_room(buffer, capacity, count, sizeof **buffer, error);
}

/* ---- rows ---------------------------------------------------------------------------------------- */

static candid_status rows_room(candid_pass *p, size_t n, candid_error *error) {
    if (n <= p->row_capacity) {
        return CANDID_OK;
    }
    size_t c[5] = {0};
    TRY(plan_room(&p->all.plans, &c[0], n, sizeof *p->all.plans, error));
    TRY(plan_room(&p->all.at, &c[1], n, sizeof *p->all.at, error));
    TRY(plan_room(&p->last.plans, &c[2], n, sizeof *p->last.plans, error));
    TRY(plan_room(&p->last.at, &c[3], n, sizeof *p->last.at, error));
    TRY(plan_room(&p->views, &c[4], n, sizeof *p->views, error));
    p->row_capacity = n;
    return CANDID_OK;
}

/* Lists the segment's rows, and what it wants to be shown. */
static void add_rows(candid_pass *p, int segment) {
    const struct pass_segment *s = &p->segments[segment];
    unsigned all_sets = 0;
    for (int i = 0; i < s->n_rows; i++) {
        const int index = s->first_index + i, at = p->all.n++;
        const bool last = i >= s->n_rows - s->n_last;
        p->all.at[at] = (struct pass_row){segment, s->first_row + i};
        p->all.plans[at] =
            (struct plan_row){.plan = s->sequence->plan,
                              .role = s->role,
                              .sets = s->role == ROLE_TEXT_ONLY ? 0 : plan_row_sets(s->sequence->plan, index),
                              .index = index,
                              .wanted = last};
        p->views[at] = sequence_row(s->sequence, s->role, index);
        all_sets |= p->all.plans[at].sets;
        if (last) {
            p->last.at[p->last.n] = p->all.at[at];
            p->last.plans[p->last.n++] = p->all.plans[at];
        }
    }
    sequence_sites(s->sequence, s->role, all_sets, s->n_last > 0, p->wants);
}

static candid_status begin(candid_pass *p, const candid_segment *segments, size_t n, candid_error *error) {
    TRY(pass_read_segments(p, segments, n, error));
    size_t n_rows = 0;
    for (size_t i = 0; i < n; i++) {
        n_rows += p->segments[i].sequence ? (size_t)p->segments[i].n_rows : 0;
    }
    if (n_rows > MOST_ROWS) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_pass_begin: expected up to %d rows, found %zu", MOST_ROWS,
                    n_rows);
    }
    TRY(rows_room(p, n_rows, error));
    for (size_t i = 0; i < n; i++) {
        const struct pass_segment *s = &p->segments[i];
        if (s->sequence) {
            TRY(pass_check_prompt(p, i, error));
            search_forget(s->sequence);
        }
        if (s->sequence && s->sequence->plan) {
            add_rows(p, (int)i);
        }
    }
    for (int i = 0; i < p->all.n; i++) {
        const struct attention_row *row = &p->views[i];
        const struct pass_segment *s = &p->segments[p->all.at[i].segment];
        if (attention_row_end(row) > s->n_keys) {
            return fail(
                error, CANDID_ERROR_ARGUMENT,
                "candid_segment: the row at %d sees keys up to %d, but the pass has %d: more of the prompt must "
                "go through at once",
                row->index, attention_row_end(row) - 1, s->n_keys);
        }
    }
    return CANDID_OK;
}

candid_status candid_pass_begin(candid_pass *p, const candid_segment *segments, size_t n_segments,
                                candid_error *error) {
    if (!p || !segments || n_segments < 1 || n_segments > 4096) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_pass_begin: %s",
                    !p ? "pass is NULL" : "expected 1 to 4096 segments");
    }
    memset(p->wants, 0, site_index(p->plugin->facts.n_layer + 1, 0));
    memset(p->shown, 0, site_index(p->plugin->facts.n_layer + 1, 0));
    p->open = false;
    p->progress = -1;
    p->n_segments = 0;
    p->all.n = p->last.n = 0;
    p->attention.layer = -1;
    p->run.counting = true;
    TRY(begin(p, segments, n_segments, error));
    p->run.active = p->all.n > 0;
    p->open = true;
    if (p->last.n > 0 && p->wants[site_index(p->plugin->facts.n_layer, CANDID_SITE_FINAL_NORM)]) {
        const size_t n = (size_t)p->last.n * (size_t)p->plugin->facts.n_embd;
        TRY(pass_room(&p->mixed, &p->mixed_capacity, n, error));
        memset(p->mixed, 0, n * sizeof *p->mixed);
    }
    return CANDID_OK;
}

/* ---- hidden states ------------------------------------------------------------------------------- */

/* Rows of a view (b, r, n) as (rows, n), in place where they lie so. */
struct staged_rows {
    candid_view view;
    const struct pass_rows *rows;
    int n;
    float *x;
    bool direct;
    bool compact; /* the view has no others than those whose logits count */
};

/* Whether a view lacks rows but has, one after the other, those whose logits count. behind: at this site it may. */
static candid_status find_rows(const candid_pass *p, const candid_view *v, bool behind, const char *what, bool *compact,
                               candid_error *error) {
    bool all = true, last = behind && p->last.n > 0;
    for (size_t i = 0; i < p->n_segments; i++) {
        const struct pass_segment *s = &p->segments[i];
        if (s->batch >= v->shape[0]) {
            return fail(error, CANDID_ERROR_ARGUMENT, "%s: expected batch element %d, found %lld elements", what,
                        s->batch, (long long)v->shape[0]);
        }
        all = all && s->first_row + s->n_rows <= v->shape[1];
        last = last && (s->n_last_all == 0 || s->n_last_all == v->shape[1]);
    }
    if (!all && !last) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: expected the rows of all segments%s; found %lld rows", what,
                    behind ? ", or those whose logits count" : "", (long long)v->shape[1]);
    }
    *compact = !all;
    return CANDID_OK;
}

/* Offset of row i. */
static int64_t row_offset(const candid_pass *p, const struct staged_rows *s, int i) {
    const struct pass_segment *segment = &p->segments[s->rows->at[i].segment];
    int64_t row = s->rows->at[i].row;
    if (s->compact) {
        row += segment->last_at - (segment->first_row + segment->n_rows - segment->n_last);
    }
    return segment->batch * s->view.strides[0] + row * s->view.strides[1];
}

/* Takes the rows that candid works on at the site. */
static candid_status take_rows(candid_pass *p, enum candid_site site, int layer, const candid_view *given, int width,
                               const char *what, struct staged_rows *s, candid_error *error) {
    /* behind the last layer's attention other rows come to nothing, as in candid's own runtime */
    const bool behind = layer >= p->plugin->facts.n_layer - 1 && site >= CANDID_SITE_HEAD_OUTPUT;
    const bool last = behind && site > CANDID_SITE_HEAD_OUTPUT;
    *s = (struct staged_rows){.n = width};
    TRY(view_read(given, 3, what, &s->view, error));
    if (s->view.shape[2] != width) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: expected rows of %d, found %lld", what, width,
                    (long long)s->view.shape[2]);
    }
    TRY(find_rows(p, &s->view, behind, what, &s->compact, error));
    s->rows = last || s->compact ? &p->last : &p->all;
    const int n = s->rows->n;
    s->direct = n > 0 && view_direct(&s->view, 0, s->view.strides[2]);
    for (int i = 1; i < n && s->direct; i++) {
        s->direct = row_offset(p, s, i) == row_offset(p, s, i - 1) + width;
    }
    if (s->direct) {
        s->x = view_direct(&s->view, row_offset(p, s, 0), 1);
    } else {
        TRY(pass_room(&p->staged, &p->staged_capacity, (size_t)n * (size_t)width, error));
        s->x = p->staged;
        for (int i = 0; i < n; i++) {
            view_get(&s->view, row_offset(p, s, i), s->view.strides[2], width, s->x + (size_t)i * (size_t)width);
        }
    }
    if (any_nan(s->x, (size_t)n * (size_t)width)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: a value is no number", what);
    }
    p->run.rows = s->rows->plans;
    p->run.n_rows = n;
    return CANDID_OK;
}

static void give_rows(const candid_pass *p, const struct staged_rows *s) {
    for (int i = 0; !s->direct && i < s->rows->n; i++) {
        view_put(&s->view, row_offset(p, s, i), s->view.strides[2], s->n, s->x + (size_t)i * (size_t)s->n);
    }
}

/* Last rows of `normed`, each with what was mixed for it. */
static void mix_final(candid_pass *p, float *normed) {
    const size_t n_embd = (size_t)p->plugin->facts.n_embd;
    for (int i = 0; i < p->last.n; i++) {
        plan_mix_final(&p->run, i, normed + (size_t)i * n_embd, p->mixed + (size_t)i * n_embd, (int)n_embd);
    }
}

/* A site of hidden states. */
static candid_status show_rows(candid_pass *p, enum candid_site site, int layer, const candid_view *given,
                               const char *what, candid_error *error) {
    const struct model_facts *f = &p->plugin->facts;
    const int width = site == CANDID_SITE_HEAD_OUTPUT ? f->n_head * f->head_dim : f->n_embd;
    struct staged_rows s;
    TRY(take_rows(p, site, layer, given, width, what, &s, error));
    switch (site) {
    case CANDID_SITE_BLOCK_INPUT: return plan_at_input(&p->run, layer, s.x, width, error);
    case CANDID_SITE_HEAD_OUTPUT: TRY(plan_at_heads(&p->run, layer, s.x, f->n_head, f->head_dim, error)); break;
    case CANDID_SITE_MLP_OUTPUT: TRY(plan_at_mlp(&p->run, layer, NULL, s.x, width, error)); break;
    case CANDID_SITE_BLOCK_OUTPUT:
        TRY(plan_at_output(&p->run, layer, s.x, width, error));
        if (p->wants[site_index(f->n_layer, CANDID_SITE_FINAL_NORM)]) {
            plan_mix_layer(&p->run, layer, s.x, p->mixed, width);
        }
        break;
    default: mix_final(p, s.x); break;
    }
    give_rows(p, &s);
    return CANDID_OK;
}

/* ---- order --------------------------------------------------------------------------------------- */

static void describe(char *what, size_t size, enum candid_site site, int layer, int n_layer) {
    if (layer < n_layer) {
        snprintf(what, size, "%s of layer %d", host_site_name(site), layer);
    } else {
        snprintf(what, size, "%s", host_site_name(site));
    }
}

/* Whether it is this site's turn. */
static candid_status check_turn(candid_pass *p, enum candid_site site, int layer, candid_error *error) {
    const int n_layer = p->plugin->facts.n_layer;
    if (!p->open) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_pass_at: no pass has begun, or it has failed");
    }
    const bool head = site >= CANDID_SITE_FINAL_NORM;
    if (site < 0 || site >= CANDID_SITE_COUNT || layer < 0 || (head ? layer != n_layer : layer >= n_layer)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_pass_at: there is no site %d in layer %d of %d layers",
                    (int)site, layer, n_layer);
    }
    const int turn = (int)site_index(layer, site);
    if (turn <= p->progress) {
        char now[64], before[64];
        describe(now, sizeof now, site, layer, n_layer);
        describe(before, sizeof before, (enum candid_site)(p->progress % CANDID_SITE_COUNT),
                 p->progress / CANDID_SITE_COUNT, n_layer);
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_pass_at: %s was shown after %s", now, before);
    }
    p->progress = turn;
    return CANDID_OK;
}

static candid_status close_if_failed(candid_pass *p, candid_status status) {
    if (status != CANDID_OK && p) {
        p->open = false;
    }
    return status;
}

static candid_status show(candid_pass *p, enum candid_site site, int layer, const candid_view *view,
                          candid_error *error) {
    TRY(check_turn(p, site, layer, error));
    const size_t at = site_index(layer, site);
    if (!p->wants[at]) {
        return CANDID_OK;
    }
    char what[64];
    describe(what, sizeof what, site, layer, p->plugin->facts.n_layer);
    if (site == CANDID_SITE_ATTENTION_SCORES || site == CANDID_SITE_ATTENTION_PROBS) {
        TRY(pass_attention_at(p, site, layer, view, what, error));
    } else if (site == CANDID_SITE_LOGITS) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_pass_at: logits are shown with candid_pass_logits");
    } else {
        TRY(show_rows(p, site, layer, view, what, error));
    }
    p->shown[at] = 1;
    return CANDID_OK;
}

candid_status candid_pass_at(candid_pass *p, candid_site site, int32_t layer, const candid_view *view,
                             candid_error *error) {
    if (!p) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_pass_at: pass is NULL");
    }
    return close_if_failed(p, show(p, site, layer, view, error));
}

/* ---- logits -------------------------------------------------------------------------------------- */

/* Early logits of the last rows, as plan_contrast wants them: row after row, each as many as its plan asks for. */
static candid_status take_early(candid_pass *p, const candid_view *given, const struct staged_rows *logits,
                                candid_error *error) {
    candid_view v;
    const int n_vocab = p->plugin->facts.n_vocab;
    TRY(view_read(given, 4, "early logits", &v, error));
    TRY(pass_room(&p->early, &p->early_capacity, (size_t)plan_early_states(&p->run) * (size_t)n_vocab, error));
    float *to = p->early;
    for (int i = 0; i < logits->rows->n; i++) {
        const int n = plan_row_states(&p->run, i);
        if (v.shape[0] != logits->view.shape[0] || v.shape[1] != logits->view.shape[1] || v.shape[2] < n ||
            v.shape[3] != n_vocab) {
            return fail(error, CANDID_ERROR_ARGUMENT,
                        "early logits: expected (%lld, %lld, %d, %d), found (%lld, %lld, %lld, %lld)",
                        (long long)logits->view.shape[0], (long long)logits->view.shape[1], n, n_vocab,
                        (long long)v.shape[0], (long long)v.shape[1], (long long)v.shape[2], (long long)v.shape[3]);
        }
        struct staged_rows early = *logits; /* rows lie as those of the logits do */
        early.view.strides[0] = v.strides[0];
        early.view.strides[1] = v.strides[1];
        const int64_t at = row_offset(p, &early, i);
        for (int k = 0; k < n; k++, to += n_vocab) {
            view_get(&v, at + k * v.strides[2], v.strides[3], n_vocab, to);
        }
    }
    return any_nan(p->early, (size_t)(to - p->early))
               ? fail(error, CANDID_ERROR_ARGUMENT, "early logits: a value is no number")
               : CANDID_OK;
}

static candid_status show_logits(candid_pass *p, const candid_view *given, const candid_view *early,
                                 candid_error *error) {
    const int n_layer = p->plugin->facts.n_layer, n_vocab = p->plugin->facts.n_vocab;
    const size_t at = site_index(n_layer, CANDID_SITE_LOGITS);
    struct staged_rows s;
    TRY(check_turn(p, CANDID_SITE_LOGITS, n_layer, error));
    if (!p->wants[at]) {
        return CANDID_OK;
    }
    TRY(take_rows(p, CANDID_SITE_LOGITS, n_layer, given, n_vocab, "logits", &s, error));
    TRY(take_early(p, early, &s, error));
    plan_contrast(&p->run, s.x, p->early, n_vocab);
    give_rows(p, &s);
    p->shown[at] = 1;
    return CANDID_OK;
}

candid_status candid_pass_logits(candid_pass *p, const candid_view *logits, const candid_view *early,
                                 candid_error *error) {
    if (!p) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_pass_logits: pass is NULL");
    }
    return close_if_failed(p, show_logits(p, logits, early, error));
}

candid_status candid_pass_end(candid_pass *p, candid_error *error) {
    if (!p || !p->open) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_pass_end: %s",
                    p ? "no pass has begun, or it has failed" : "pass is NULL");
    }
    p->open = false;
    const int n_layer = p->plugin->facts.n_layer;
    for (int i = 0; i < (int)site_index(n_layer + 1, 0); i++) {
        if (p->wants[i] && !p->shown[i]) {
            char what[64];
            describe(what, sizeof what, (enum candid_site)(i % CANDID_SITE_COUNT), i / CANDID_SITE_COUNT, n_layer);
            return fail(error, CANDID_ERROR_ARGUMENT, "candid_pass_end: %s was not shown", what);
        }
    }
    for (size_t i = 0; i < p->n_segments; i++) {
        const struct pass_segment *s = &p->segments[i];
        if (s->sequence) {
            s->sequence->companion_ran[s->role] = true;
        }
        if (s->sequence && s->role == ROLE_MAIN) {
            const int end = s->first_index + s->n_rows, n_prompt = s->sequence->n_prompt;
            const int n = end < n_prompt ? end : n_prompt;
            s->sequence->n_shown = n > s->sequence->n_shown ? n : s->sequence->n_shown;
        }
    }
    return CANDID_OK;
}
