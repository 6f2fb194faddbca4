/*
 * Attention on the CPU: reference loops and vectorised ones, decode rows and prefill tiles, and the image encoder.
 * Threaded inside (OpenMP) over heads and row tiles.
 */
#ifndef CANDID_BACKEND_CPU_ATTENTION_H
#define CANDID_BACKEND_CPU_ATTENTION_H

#include "backend/backend.h"
#include "backend/cpu/features.h"

/* Plain f32 loops in the textbook order; the only path that can write scores_out and probs_out. */
candid_status attention_kv_reference(const struct kv_attention *a, const float *q, float *out, int n_threads,
                                     candid_error *error);
/* sums (n_head, max_keys) = Σ over the rows of the unedited probabilities; heads that are not wanted are left 0. */
candid_status attention_kv_columns(const struct kv_attention *a, const float *q, const uint8_t *heads, float *sums,
                                   int n_threads, candid_error *error);
candid_status attention_full_reference(const float *q, const float *k, const float *v, float *out, int n_rows,
                                       int n_head, int head_dim, float scale, float *probs_out, int n_threads,
                                       candid_error *error);

candid_status attention_row_reference(const float *q, const float *k, float *probs, int n_rows, int n_head,
                                      int head_dim, float scale, candid_error *error);

/* The fast path of a family: same results up to rounding (softmax in f32). */
candid_status attention_kv_fast(enum cpu_isa isa, const struct kv_attention *a, const float *q, float *out,
                                int n_threads, candid_error *error);
candid_status attention_full_fast(enum cpu_isa isa, const float *q, const float *k, const float *v, float *out,
                                  int n_rows, int n_head, int head_dim, float scale, int n_threads,
                                  candid_error *error);

/* The fast path for rows that are special (attention_edit.h): scores of whole rows, edits, softmax, values. */
candid_status attention_kv_edited(enum cpu_isa isa, const struct kv_attention *a, const float *q, float *out,
                                  int n_threads, candid_error *error);

candid_status attention_kv_columns_fast(enum cpu_isa isa, const struct kv_attention *a, const float *q,
                                        const uint8_t *heads, float *sums, int n_threads, candid_error *error);

/* Stores k and v rows in their blocks, converting to the cache's type. */
void attention_kv_store(const struct kv_attention *a, const float *k, const float *v, int n_threads);

/* Element offset of (layer, value 0 = K / 1 = V, kv_head, slot 0) inside a block. */
static inline size_t kv_offset(const struct kv_shape *s, int layer, int value, int kv_head) {
    return ((((size_t)layer * 2 + (size_t)value) * (size_t)s->n_head_kv) + (size_t)kv_head) * KV_BLOCK *
           (size_t)s->head_dim;
}

#endif
