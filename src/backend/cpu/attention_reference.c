/*
 * Reference attention: plain f32 loops in the textbook order, one query head after the other. The path that defines
 * the result, and the only one that can write scores and probabilities out.
 */
#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "backend/cpu/attention.h"
#include "backend/cpu/attention_check.h"
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

/* One query head over n_keys keys. probs: n_keys floats of scratch; decoded: head_dim. */
static void attend_head(const float *q, const struct reference_keys *keys, int n_keys, int head_dim, float scale,
                        float *out, float *scores_out, float *probs_out, float *probs, float *decoded) {
    float highest = -INFINITY;
    for (int i = 0; i < n_keys; i++) {
        const float *k = row_f32(keys, false, i, head_dim, decoded);
        float dot = 0.0f;
        for (int d = 0; d < head_dim; d++) {
            dot += q[d] * k[d];
        }
        probs[i] = dot * scale;
        if (scores_out) {
            scores_out[i] = probs[i];
        }
        highest = probs[i] > highest ? probs[i] : highest;
    }
    float sum = 0.0f;
    for (int i = 0; i < n_keys; i++) {
        probs[i] = expf(probs[i] - highest);
        sum += probs[i];
    }
    for (int d = 0; d < head_dim; d++) {
        out[d] = 0.0f;
    }
    for (int i = 0; i < n_keys; i++) {
        const float p = probs[i] / sum;
        if (probs_out) {
            probs_out[i] = p;
        }
        const float *v = row_f32(keys, true, i, head_dim, decoded);
        for (int d = 0; d < head_dim; d++) {
            out[d] += p * v[d];
        }
    }
}

candid_status attention_kv_reference(const struct kv_attention *a, const float *q, float *out, int n_threads,
                                     candid_error *error) {
    TRY(attention_check_kv(a, error));
    const struct kv_shape *s = a->shape;
    const int head_dim = s->head_dim, group = a->n_head / s->n_head_kv;
    int most_keys = 0;
    for (int i = 0; i < a->n_rows; i++) {
        most_keys = a->rows[i].n_keys > most_keys ? a->rows[i].n_keys : most_keys;
    }
    n_threads = attention_threads(n_threads);
    const size_t scratch_floats = (size_t)most_keys + (size_t)head_dim;
    float *scratch = attention_alloc((size_t)n_threads, scratch_floats, sizeof(float));
    if (!scratch) {
        return fail_memory(error, "attention scores", (size_t)n_threads * scratch_floats * sizeof(float));
    }
    const int64_t n_tasks = (int64_t)a->n_rows * a->n_head;
#pragma omp parallel for num_threads(n_threads) schedule(dynamic, 1)
    for (int64_t task = 0; task < n_tasks; task++) {
        const struct attention_row *row = a->rows + task / a->n_head;
        const int kv_head = (int)(task % a->n_head) / group;
        const struct reference_keys keys = {.blocks = row->blocks,
                                            .k_offset = kv_offset(s, a->layer, 0, kv_head),
                                            .v_offset = kv_offset(s, a->layer, 1, kv_head),
                                            .f32 = s->f32};
        const size_t at = (size_t)task * (size_t)head_dim, observed = (size_t)task * (size_t)a->max_keys;
        float *probs = scratch + (size_t)omp_get_thread_num() * scratch_floats;
        attend_head(q + at, &keys, row->n_keys, head_dim, a->scale, out + at,
                    a->scores_out ? a->scores_out + observed : NULL, a->probs_out ? a->probs_out + observed : NULL,
                    probs, probs + most_keys);
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
        attend_head(q + at, &keys, n_rows, head_dim, scale, out + at, NULL,
                    probs_out ? probs_out + (size_t)task * (size_t)n_rows : NULL,
                    scratch + (size_t)omp_get_thread_num() * (size_t)n_rows, NULL);
    }
    free(scratch);
    return CANDID_OK;
}
