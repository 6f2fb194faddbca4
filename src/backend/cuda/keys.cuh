/* Where the keys and values of a row lie, for the attention kernels. */
#ifndef CANDID_BACKEND_CUDA_KEYS_CUH
#define CANDID_BACKEND_CUDA_KEYS_CUH

#include "backend/cuda/attention.h"
#include "backend/cuda/kernel.cuh"

static __device__ __forceinline__ struct cuda_row row_of(const struct cuda_attention *a, int r) {
    if (a->rows) {
        return a->rows[r];
    }
    struct cuda_row all = {};
    all.n_keys = all.end = a->n_keys;
    return all;
}

static __device__ __forceinline__ bool sees(const struct cuda_row *row, int key) {
    return key < row->n_keys || (key >= row->also_begin && key < row->also_end);
}

/* Element offset in a KV block: [n_layer][K, V][n_head_kv][KV_BLOCK][head_dim]. */
static __device__ __forceinline__ size_t block_offset(const struct cuda_attention *a, bool value, int kv_head,
                                                      int slot) {
    const size_t plane = ((size_t)a->layer * 2 + value) * (size_t)a->n_head_kv + (size_t)kv_head;
    return (plane * KV_BLOCK + (size_t)slot) * (size_t)a->head_dim;
}

/* Keys and values are f32; else f16. */
static __device__ __forceinline__ bool keys_f32(const struct cuda_attention *a) {
    return !a->tables || a->f32;
}

/* The head_dim values of one key or value. */
static __device__ __forceinline__ const void *key_at(const struct cuda_attention *a, const struct cuda_row *row,
                                                     bool value, int kv_head, int key) {
    if (!a->tables) {
        return (value ? a->v : a->k) + ((size_t)key * (size_t)a->n_head_kv + (size_t)kv_head) * (size_t)a->head_dim;
    }
    const size_t at = block_offset(a, value, kv_head, key % KV_BLOCK);
    const void *block = a->tables[row->table + key / KV_BLOCK];
    return a->f32 ? (const void *)((const float *)block + at) : (const void *)((const uint16_t *)block + at);
}

static __device__ __forceinline__ float float_at(const void *values, bool f32, int d) {
    return f32 ? ((const float *)values)[d] : half_float(((const uint16_t *)values)[d]);
}

#endif
