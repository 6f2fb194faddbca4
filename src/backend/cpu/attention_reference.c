/*
 * Reference attention: plain f32 loops in the textbook order, one query head after the other. The path that defines
 * the result, edits included, and the only one that can write scores and probabilities out.
 */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/attention.h"
#include "backend/cpu/attention_check.h"
#include "backend/cpu/attention_edit.h"
#include "backend/cpu/attention_probe.h"
#include "core/status.h"
#include "model/quant.h"

/* K and V of one head: either in KV blocks or in rows `stride` floats apart. */
struct reference_keys {
    void *const *blocks; /* NULL: rows */
    size_t k_offset, v_offset;
    bool f32;
    const float *k, *v;
    size_t stride;
};

/* Row i of K or V as f32: where it lies, or decoded to `decoded`. */
static const float *row_f32(const struct reference_keys *keys, bool value, int i, int head_dim, float *decoded) {
    if (!keys->blocks) {
        return (value ? keys->v : keys->k) + (size_t)i * keys->stride;
    }
    const void *block = keys->blocks[i / KV_BLOCK];
    const size_t at = (value ? keys->v_offset : keys->k_offset) + (size_t)(i % KV_BLOCK) * (size_t)head_dim;
    if (keys->f32) {
        return (const float *)block + at;
    }
    quant_dequantize(TYPE_F16, (const uint16_t *)block + at, decoded, head_dim);
    return decoded;
}

/* Keys [0, n_keys) and [also_begin, also_end) are seen. */
struct visible {
    int n_keys, also_begin, also_end;
};

static bool sees(const struct visible *v, int key) {
    return key < v->n_keys || (key >= v->also_begin && key < v->also_end);
}

/* s[i] = scale · q kᵢ, -inf where not seen. decoded: head_dim floats. */
static void head_scores(const float *q, const struct reference_keys *keys, const struct visible *v, int n, int head_dim,
                        float scale, float *s, float *decoded) {
    for (int i = 0; i < n; i++) {
        s[i] = -INFINITY;
        if (sees(v, i)) {
            const float *k = row_f32(keys, false, i, head_dim, decoded);
            float dot = 0.0f;
            for (int d = 0; d < head_dim; d++) {
                dot += q[d] * k[d];
            }
            s[i] = dot * scale;
        }
    }
}

/* out = Σ pᵢ vᵢ over what is seen. */
static void head_values(const float *p, const struct reference_keys *keys, const struct visible *v, int n, int head_dim,
                        float *out, float *decoded) {
    for (int d = 0; d < head_dim; d++) {
        out[d] = 0.0f;
    }
    for (int i = 0; i < n; i++) {
        if (sees(v, i)) {
            const float *value = row_f32(keys, true, i, head_dim, decoded);
            for (int d = 0; d < head_dim; d++) {
                out[d] += p[i] * value[d];
            }
        }
    }
}

static struct reference_keys cache_keys(const struct kv_attention *a, int row, int kv_head) {
    return (struct reference_keys){.blocks = a->rows[row].blocks,
                                   .k_offset = kv_offset(a->shape, a->layer, 0, kv_head),
                                   .v_offset = kv_offset(a->shape, a->layer, 1, kv_head),
                                   .f32 = a->shape->f32};
}

static struct visible row_visible(const struct attention_row *row) {
    return (struct visible){row->n_keys, row->also_begin, row->also_end};
}

/* Mean over the heads of |score|, edited as far as the edit that asks for it. s, decoded: scratch. */
static void mean_abs_scores(const struct kv_attention *a, int row, const float *q, float *mean, float *s,
                            float *decoded) {
    const int head_dim = a->shape->head_dim, group = a->n_head / a->shape->n_head_kv;
    const int n = attention_row_end(&a->rows[row]);
    const struct visible visible = row_visible(&a->rows[row]);
    const struct row_edits *edits = a->rows[row].edits;
    memset(mean, 0, (size_t)n * sizeof *mean);
    for (int head = 0; head < a->n_head; head++) {
        const struct reference_keys keys = cache_keys(a, row, head / group);
        head_scores(q + ((size_t)row * (size_t)a->n_head + (size_t)head) * (size_t)head_dim, &keys, &visible, n,
                    head_dim, a->scale, s, decoded);
        attention_edit_scores(edits, 0, attention_mean_edit(edits), head, a->n_head, s, NULL, n);
        for (int i = 0; i < n; i++) {
            mean[i] += sees(&visible, i) ? fabsf(s[i]) : 0.0f;
        }
    }
    for (int i = 0; i < n; i++) {
        mean[i] /= (float)a->n_head;
    }
}

/* Work memory of a call. */
struct reference_memory {
    float *scratch; /* (n_threads, scratch_floats): a row of probabilities, another one, a key */
    float *mean;    /* (rows of a slice, most_keys) where an edit needs it */
    size_t scratch_floats;
    int most_keys;
    struct probed_rows probed;
};

/* Rows first..last-1. */
static void reference_rows(const struct kv_attention *a, const float *q, float *out, int first, int last,
                           const struct reference_memory *m, int n_threads) {
    const int head_dim = a->shape->head_dim, group = a->n_head / a->shape->n_head_kv;
    const size_t most_keys = (size_t)m->most_keys;
#pragma omp parallel num_threads(n_threads)
    {
        float *probs = m->scratch + (size_t)omp_get_thread_num() * m->scratch_floats, *spare = probs + most_keys,
              *decoded = spare + most_keys;
#pragma omp for schedule(dynamic, 1)
        for (int row = first; row < last; row++) {
            if (attention_edits_need_mean(a->rows[row].edits)) {
                mean_abs_scores(a, row, q, m->mean + (size_t)(row - first) * most_keys, probs, decoded);
            }
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = (int64_t)first * a->n_head; task < (int64_t)last * a->n_head; task++) {
            const int row = (int)(task / a->n_head), head = (int)(task % a->n_head);
            const struct attention_row *r = &a->rows[row];
            const struct reference_keys keys = cache_keys(a, row, head / group);
            const struct visible visible = row_visible(r);
            const int n = attention_row_end(r);
            const size_t at = (size_t)task * (size_t)head_dim, observed = (size_t)task * (size_t)a->max_keys;
            const size_t bytes = (size_t)n * sizeof *probs;
            head_scores(q + at, &keys, &visible, n, head_dim, a->scale, probs, decoded);
            if (a->scores_out) {
                memcpy(a->scores_out + observed, probs, bytes);
            }
            float *before = probed_before(&m->probed, r, row - first, head);
            if (before) {
                memcpy(before, probs, bytes);
                attention_softmax(before, n);
            }
            if (r->edits) {
                attention_edit_scores(r->edits, 0, r->edits->n_edits, head, a->n_head, probs,
                                      m->mean + (size_t)(row - first) * most_keys, n);
            }
            attention_softmax(probs, n);
            if (r->edits) {
                attention_edit_probs(r, a->layer, head, a->n_head, probs, spare);
            }
            float *after = probed_after(&m->probed, r, row - first, head);
            if (after) {
                memcpy(after, probs, bytes);
            }
            if (a->probs_out) {
                memcpy(a->probs_out + observed, probs, bytes);
            }
            head_values(probs, &keys, &visible, n, head_dim, out + at, decoded);
        }
        if (m->probed.probs) {
#pragma omp for schedule(static)
            for (int row = first; row < last; row++) {
                probed_reduce(&m->probed, &a->rows[row], row - first);
            }
        }
    }
}

candid_status attention_kv_reference(const struct kv_attention *a, const float *q, float *out, int n_threads,
                                     candid_error *error) {
    TRY(attention_check_kv(a, error));
    struct reference_memory m = {.most_keys = 0};
    bool means = false;
    for (int i = 0; i < a->n_rows; i++) {
        const int end = attention_row_end(&a->rows[i]);
        m.most_keys = end > m.most_keys ? end : m.most_keys;
        means = means || attention_edits_need_mean(a->rows[i].edits);
    }
    n_threads = attention_threads(n_threads);
    const size_t most_keys = (size_t)m.most_keys;
    m.scratch_floats = 2 * most_keys + (size_t)a->shape->head_dim;
    m.probed = probed_rows_of(a, most_keys);
    const size_t slice = probed_rows_fit(&m.probed, a->n_rows), n_sets = (size_t)m.probed.n_sets;
    m.scratch = attention_alloc((size_t)n_threads, m.scratch_floats, sizeof(float));
    m.mean = attention_alloc(means ? slice : 0, most_keys, sizeof(float));
    m.probed.probs = n_sets ? attention_alloc(slice * n_sets, (size_t)a->n_head * most_keys, sizeof(float)) : NULL;
    candid_status status = CANDID_OK;
    if (!m.scratch || !m.mean || (n_sets && !m.probed.probs)) {
        status = fail_memory(error, "attention scores",
                             ((size_t)n_threads * 3 + slice + slice * n_sets * (size_t)a->n_head) * most_keys *
                                 sizeof(float));
    }
    for (size_t first = 0; status == CANDID_OK && first < (size_t)a->n_rows; first += slice) {
        const size_t last = first + slice < (size_t)a->n_rows ? first + slice : (size_t)a->n_rows;
        reference_rows(a, q, out, (int)first, (int)last, &m, n_threads);
    }
    free(m.scratch);
    free(m.mean);
    free(m.probed.probs);
    return status;
}

candid_status attention_kv_columns(const struct kv_attention *a, const float *q, const uint8_t *heads, float *sums,
                                   int n_threads, candid_error *error) {
    TRY(attention_check_kv(a, error));
    const int head_dim = a->shape->head_dim, group = a->n_head / a->shape->n_head_kv;
    n_threads = attention_threads(n_threads);
    const size_t scratch_floats = (size_t)a->max_keys + (size_t)head_dim;
    float *scratch = attention_alloc((size_t)n_threads, scratch_floats, sizeof(float));
    if (!scratch) {
        return fail_memory(error, "attention columns", (size_t)n_threads * scratch_floats * sizeof(float));
    }
    /* A head's columns belong to one thread, rows in order: the sums do not depend on the number of threads. */
#pragma omp parallel for num_threads(n_threads) schedule(dynamic, 1)
    for (int head = 0; head < a->n_head; head++) {
        float *sum = sums + (size_t)head * (size_t)a->max_keys;
        memset(sum, 0, (size_t)a->max_keys * sizeof *sum);
        if (heads && !heads[head]) {
            continue;
        }
        float *probs = scratch + (size_t)omp_get_thread_num() * scratch_floats, *decoded = probs + a->max_keys;
        for (int row = 0; row < a->n_rows; row++) {
            const struct reference_keys keys = cache_keys(a, row, head / group);
            const struct visible visible = row_visible(&a->rows[row]);
            const int n = attention_row_end(&a->rows[row]);
            head_scores(q + ((size_t)row * (size_t)a->n_head + (size_t)head) * (size_t)head_dim, &keys, &visible, n,
                        head_dim, a->scale, probs, decoded);
            attention_softmax(probs, n);
            for (int i = 0; i < n; i++) {
                sum[i] += probs[i];
            }
        }
    }
    free(scratch);
    return CANDID_OK;
}

candid_status attention_full_reference(const float *q, const float *k, const float *v, float *out, int n_rows,
                                       int n_head, int head_dim, float scale, float *probs_out, int n_threads,
                                       candid_error *error) {
    TRY(attention_check_full(n_rows, n_head, head_dim, error));
    n_threads = attention_threads(n_threads);
    float *scratch = attention_alloc((size_t)n_threads, (size_t)n_rows, sizeof(float));
    if (!scratch) {
        return fail_memory(error, "attention scores", (size_t)n_threads * (size_t)n_rows * sizeof(float));
    }
    const int64_t n_tasks = (int64_t)n_rows * n_head;
#pragma omp parallel for num_threads(n_threads) schedule(dynamic, 1)
    for (int64_t task = 0; task < n_tasks; task++) {
        const size_t head = (size_t)(task % n_head) * (size_t)head_dim;
        const struct reference_keys keys = {.k = k + head, .v = v + head, .stride = (size_t)n_head * (size_t)head_dim};
        const size_t at = (size_t)task * (size_t)head_dim;
        const struct visible all = {.n_keys = n_rows};
        float *probs = probs_out ? probs_out + (size_t)task * (size_t)n_rows
                                 : scratch + (size_t)omp_get_thread_num() * (size_t)n_rows;
        head_scores(q + at, &keys, &all, n_rows, head_dim, scale, probs, NULL);
        attention_softmax(probs, n_rows);
        head_values(probs, &keys, &all, n_rows, head_dim, out + at, NULL);
    }
    free(scratch);
    return CANDID_OK;
}

candid_status attention_row_reference(const float *q, const float *k, float *probs, int n_rows, int n_head,
                                      int head_dim, float scale, candid_error *error) {
    TRY(attention_check_full(n_rows, n_head, head_dim, error));
    const struct visible all = {.n_keys = n_rows};
    for (int head = 0; head < n_head; head++) {
        const size_t at = (size_t)head * (size_t)head_dim;
        const struct reference_keys keys = {.k = k + at, .stride = (size_t)n_head * (size_t)head_dim};
        float *p = probs + (size_t)head * (size_t)n_rows;
        head_scores(q + at, &keys, &all, n_rows, head_dim, scale, p, NULL);
        attention_softmax(p, n_rows);
    }
    return CANDID_OK;
}
