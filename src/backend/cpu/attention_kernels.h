/*
 * What the fast attention path asks of an instruction set: fold one block of 32 keys into the running softmax of a
 * tile of queries. Single-threaded; src/backend/cpu/attention.c cuts the work into tiles and owns the memory.
 *
 * Every score is a sum over head_dim in ascending order and every output value a sum over keys in ascending order, one
 * multiply-add per term (fused where the instruction set has it), and nothing is shared between queries but loads. So a
 * query's result depends on its own keys alone, whatever else is in the tile.
 */
#ifndef CANDID_BACKEND_CPU_ATTENTION_KERNELS_H
#define CANDID_BACKEND_CPU_ATTENTION_KERNELS_H

#include "backend/backend.h"
#include "backend/cpu/features.h"

#define ATTENTION_TILE 48 /* most queries in a tile; a multiple of every family's rows per micro-kernel */

/* K and V of up to KV_BLOCK tokens of one kv head: token i at k + i * stride and v + i * stride elements. */
struct attention_block {
    const void *k, *v;
    size_t stride;
    bool f16;                    /* else f32 */
    const void *next_k, *next_v; /* the block that comes next, to prefetch; NULL if there is none */
};

/* Softmax over the keys seen so far, before normalisation: o = Σ exp(s - m) v, l = Σ exp(s - m), m = max s. */
struct attention_state {
    float *m, *l; /* (n_queries) */
    float *o;     /* (n_queries, padded_dim) */
};

struct attention_tile {
    int head_dim;
    int padded_dim; /* head_dim rounded up to the kernels' lanes */
    float scale;
    const float *q;     /* (n_queries, head_dim) */
    const int *visible; /* (n_queries) keys of the current block that a query sees, 1..KV_BLOCK */
    struct attention_state state;
    /* Scratch. */
    float *p;     /* (n_queries, KV_BLOCK): scores, then exp(s - m) */
    float *alpha; /* (n_queries): what the old o and l are multiplied by */
    float *k_t;   /* (head_dim, KV_BLOCK): keys transposed, f32 */
    float *v;     /* (KV_BLOCK, padded_dim): values, f32 */
};

struct attention_kernels {
    int lanes;
    /* Folds the block into queries begin..end-1 of the tile. Slots no query sees are not read, or not used. */
    void (*block)(const struct attention_tile *t, int begin, int end, const struct attention_block *keys);
    /* The two halves of `block`: p = scaled scores, and o = alpha · o + p V. */
    void (*scores)(const struct attention_tile *t, int begin, int end, const struct attention_block *keys);
    void (*values)(const struct attention_tile *t, int begin, int end, const struct attention_block *keys);
    /* Scores of one query to probabilities, in place; -inf becomes 0. n: a multiple of KV_BLOCK. */
    void (*softmax)(float *s, int n);
    /* f32 to f16, round to nearest even; magnitudes beyond the largest f16 become infinities. */
    void (*to_f16)(uint16_t *dst, const float *src, int n);
};

const struct attention_kernels *attention_kernels_get(enum cpu_isa isa);

extern const struct attention_kernels attention_kernels_scalar;
#if defined(__x86_64__)
extern const struct attention_kernels attention_kernels_avx2;
extern const struct attention_kernels attention_kernels_avx512;
#elif defined(__aarch64__)
extern const struct attention_kernels attention_kernels_neon;
#endif

#endif
