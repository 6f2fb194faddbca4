/*
 * Attention in kernels: what a call's rows and edits look like in device memory, and the launchers.
 *
 * Two ways lead to the output of a row. Plain rows of a decoding step take the split way (cuda_decode): scores never
 * leave the chip. All others go through whole rows of scores in device memory - scores, then edits and softmax, then
 * values - where each step is either an f32 kernel over the paged cache or, for many rows of one sequence, a matrix
 * product.
 */
#ifndef CANDID_BACKEND_CUDA_ATTENTION_H
#define CANDID_BACKEND_CUDA_ATTENTION_H

#include "backend/cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* struct attention_row without what the host keeps. */
struct cuda_row {
    int table; /* index of its sequence's first block in tables */
    int index, n_keys, also_begin, also_end, end, number;
    int first_edit, n_edits, mean_edit; /* mean_edit: among its own, n_edits when none */
    int asks_before;                    /* a probe wants its probabilities before the edits */
};

/* struct attention_edit; classes and heads are offsets into `bytes`. */
struct cuda_edit {
    enum attention_edit_kind kind;
    enum replace_mode replace;
    float gain[KEY_CLASSES];
    unsigned from, to, whole, part;
    float keep, min_mass, max_share, eps;
    int round_f16;
    int n_classes;
    uint32_t class_stride, classes;
    uint32_t heads, all_heads; /* heads is not read where all_heads is set */
    uint64_t seed;
};

struct cuda_probe {
    int row;
    enum head_reduction reduce;
    int before;
    uint32_t at; /* of its first value among the values of all probes */
};

/* Up to CUDA_TILE_ROWS neighbouring rows of one sequence, which read its keys together. */
#define CUDA_TILE_ROWS 8
struct cuda_tile {
    int first, count;
};

/* A call, passed to kernels by value. */
struct cuda_attention {
    const struct cuda_row *rows;   /* NULL: every row sees all of n_keys keys */
    const struct cuda_edit *edits; /* NULL: none, whatever the rows say */
    const struct cuda_tile *tiles;
    void *const *tables; /* NULL: keys and values stand in k and v */
    const uint8_t *bytes;
    const float *k, *v; /* (n_keys, n_head_kv*head_dim) */
    int n_keys;
    int n_layer, layer, n_head, n_head_kv, head_dim;
    bool f32; /* type of the cache */
    float scale;
};

/* A slice of rows first .. first+n_rows-1 and its scores (n_rows, n_head, stride). */
struct cuda_slice {
    int first, n_rows;
    float *scores;
    int stride;
    int end; /* no row sees a key from here on */
};

void cuda_kv_store(cudaStream_t stream, const struct cuda_attention *a, const float *k, const float *v, int n_rows);

/* ---- rows of scores ---- */

/* scores = scale · q Kᵀ, -inf for keys between a row's ranges; q belongs to row 0 of the call. Tiles
 * first_tile .. first_tile+n_tiles-1 are those of the slice. */
void cuda_scores(cudaStream_t stream, const struct cuda_attention *a, const struct cuda_slice *s, const float *q,
                 int first_tile, int n_tiles);
/* out (rows of the call, n_head*head_dim) = Σ p v. partial: cuda_values_floats() floats. */
void cuda_values(cudaStream_t stream, const struct cuda_attention *a, const struct cuda_slice *s, float *partial,
                 float *out, int first_tile, int n_tiles);
static inline size_t cuda_values_floats(const struct cuda_attention *a, int n_rows, int end) {
    return (size_t)n_rows * (size_t)a->n_head * (size_t)((end - 1) / KV_BLOCK + 1) * (size_t)a->head_dim;
}

enum cuda_stage {
    CUDA_WHOLE,      /* all edits, softmax */
    CUDA_UP_TO_MEAN, /* only edits of scores before a row's EDIT_SCORES_MEAN_ABS */
    CUDA_FROM_MEAN   /* what that has left over; rows without one as CUDA_WHOLE */
};
/* Scores to edited probabilities, in place. mean (n_rows, stride) and spare (as scores; for REPLACE_SHUFFLE) may be
 * NULL where no edit needs them. moved: (edits of the call, n_head). half_out: the probabilities as f16, laid out like
 * the scores, or NULL; from a row's end to s->end both are filled with zeros. */
void cuda_probs(cudaStream_t stream, const struct cuda_attention *a, const struct cuda_slice *s, enum cuda_stage stage,
                const float *mean, float *spare, float *moved, uint16_t *half_out);
/* mean = mean over the heads of |score| */
void cuda_mean_abs(cudaStream_t stream, const struct cuda_attention *a, const struct cuda_slice *s, float *mean);
/* before, laid out like the scores = softmax of the scores, of rows that ask for it */
void cuda_probs_before(cudaStream_t stream, const struct cuda_attention *a, const struct cuda_slice *s, float *before);
void cuda_reduce_probes(cudaStream_t stream, const struct cuda_attention *a, const struct cuda_slice *s,
                        const float *before, const struct cuda_probe *probes, int n_probes, float *values);
/* sums (n_head, max_keys) += Σ over the rows of their probabilities, for heads whose byte is set (NULL: all) */
void cuda_add_columns(cudaStream_t stream, const struct cuda_attention *a, const struct cuda_slice *s,
                      const uint8_t *heads, float *sums, int max_keys);

/* Keys and values 0 .. n-1 of row `row`'s sequence as k and v (n_head_kv, n, head_dim), f16 or f32 as the cache. */
void cuda_gather(cudaStream_t stream, const struct cuda_attention *a, int row, int n, void *k, void *v);

/* ---- split decoding ---- */

#define CUDA_SPLIT           64  /* keys of one block; fixed, so that a row's bits do not depend on its company */
#define CUDA_DECODE_MOST_DIM 256 /* head_dim */

/* Rows 0 .. n_rows-1 with neither edits nor probes nor a second range of keys; most_keys: most that one sees. partial:
 * cuda_decode_floats() floats. */
void cuda_decode(cudaStream_t stream, const struct cuda_attention *a, const float *q, float *out, float *partial,
                 int n_rows, int most_keys);
static inline size_t cuda_decode_floats(const struct cuda_attention *a, int n_rows, int most_keys) {
    return (size_t)n_rows * (size_t)a->n_head * (size_t)((most_keys - 1) / CUDA_SPLIT + 1) * ((size_t)a->head_dim + 2);
}

#ifdef __cplusplus
}
#endif

#endif
