/* Attention over rows of scores: storing keys and values, products with keys and with values, in f32. */
#include "backend/cuda/keys.cuh"

/* ---- the cache --------------------------------------------------------------------------------- */

/* Block (row, K or V). */
static __global__ void kv_store_kernel(const struct cuda_attention a, const float *k, const float *v) {
    const bool value = blockIdx.y == 1;
    const struct cuda_row row = a.rows[blockIdx.x];
    const int width = a.n_head_kv * a.head_dim;
    const float *from = (value ? v : k) + (size_t)blockIdx.x * (size_t)width;
    void *block = a.tables[row.table + row.index / KV_BLOCK];
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        const size_t at = block_offset(&a, value, i / a.head_dim, row.index % KV_BLOCK) + (size_t)(i % a.head_dim);
        if (a.f32) {
            ((float *)block)[at] = from[i];
        } else {
            ((uint16_t *)block)[at] = float_half(from[i]);
        }
    }
}

void cuda_kv_store(cudaStream_t stream, const struct cuda_attention *a, const float *k, const float *v, int n_rows) {
    if (n_rows > 0) {
        CUDA_LAUNCH(kv_store_kernel, dim3((unsigned)n_rows, 2), BLOCK, 0, stream, *a, k, v);
    }
}

/* Block (key, K or V), for products that want the keys of a head one after the other. */
template <class T> static __global__ void gather_kernel(const struct cuda_attention a, int r, int n, T *k, T *v) {
    const bool value = blockIdx.y == 1;
    const struct cuda_row row = a.rows[r];
    const int key = (int)blockIdx.x, width = a.n_head_kv * a.head_dim;
    const T *block = (const T *)a.tables[row.table + key / KV_BLOCK];
    T *to = value ? v : k;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        const int head = i / a.head_dim, d = i % a.head_dim;
        to[((size_t)head * (size_t)n + (size_t)key) * (size_t)a.head_dim + (size_t)d] =
            block[block_offset(&a, value, head, key % KV_BLOCK) + (size_t)d];
    }
}

void cuda_gather(cudaStream_t stream, const struct cuda_attention *a, int row, int n, void *k, void *v) {
    const dim3 grid((unsigned)n, 2);
    if (a->f32) {
        CUDA_LAUNCH((gather_kernel<float>), grid, BLOCK, 0, stream, *a, row, n, (float *)k, (float *)v);
    } else {
        CUDA_LAUNCH((gather_kernel<uint16_t>), grid, BLOCK, 0, stream, *a, row, n, (uint16_t *)k, (uint16_t *)v);
    }
}

/* ---- scores ------------------------------------------------------------------------------------ */

#define STAGED_DIM 256 /* head_dim up to which a block's keys are staged in shared memory */

/* Grid (KV block, key head, tile). The keys of a KV block are staged once for all rows and query heads of the tile; a
 * warp takes one (row, query head) after the other, each lane a key. */
static __global__ void scores_kernel(const struct cuda_attention a, const struct cuda_slice s, const float *q,
                                     int first_tile) {
    DYNAMIC_SHARED(float, staged);
    const struct cuda_tile tile = a.tiles[first_tile + (int)blockIdx.z];
    const int kv_head = (int)blockIdx.y, group = a.n_head / a.n_head_kv, dim = a.head_dim;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, first_key = (int)blockIdx.x * KV_BLOCK;
    int end = 0; /* of the tile */
    for (int r = tile.first; r < tile.first + tile.count; r++) {
        const int e = row_of(&a, r).end;
        end = e > end ? e : end;
    }
    if (first_key >= end) { /* the whole block leaves */
        return;
    }
    const struct cuda_row any = row_of(&a, tile.first); /* its sequence is everybody's */
    const bool stage = dim <= STAGED_DIM;
    const int n = end - first_key < KV_BLOCK ? end - first_key : KV_BLOCK;
    const bool f32 = keys_f32(&a);
    if (stage) { /* rows of dim + 1: lanes on different banks */
        for (int i = threadIdx.x; i < n * dim; i += blockDim.x) {
            const void *k = key_at(&a, &any, false, kv_head, first_key + i / dim);
            staged[i / dim * (dim + 1) + i % dim] = float_at(k, f32, i % dim);
        }
        __syncthreads();
    }
    const int key = first_key + lane;
    const void *own = lane < n ? key_at(&a, &any, false, kv_head, key) : NULL;
    for (int pair = warp; pair < tile.count * group && own; pair += BLOCK / WARP) {
        const int r = tile.first + pair / group, head = kv_head * group + pair % group;
        const struct cuda_row row = row_of(&a, r);
        if (key >= row.end) {
            continue;
        }
        float score = -INFINITY;
        if (sees(&row, key)) {
            const float *from = q + ((size_t)r * (size_t)a.n_head + (size_t)head) * (size_t)dim;
            float dot = 0.0f;
            if (stage) {
                for (int d = 0; d < dim; d++) {
                    dot = fmaf(from[d], staged[lane * (dim + 1) + d], dot);
                }
            } else {
                for (int d = 0; d < dim; d++) {
                    dot = fmaf(from[d], float_at(own, f32, d), dot);
                }
            }
            score = dot * a.scale;
        }
        s.scores[((size_t)(r - s.first) * (size_t)a.n_head + (size_t)head) * (size_t)s.stride + (size_t)key] = score;
    }
}

void cuda_scores(cudaStream_t stream, const struct cuda_attention *a, const struct cuda_slice *s, const float *q,
                 int first_tile, int n_tiles) {
    const size_t shared = a->head_dim <= STAGED_DIM ? KV_BLOCK * ((size_t)a->head_dim + 1) * sizeof(float) : 0;
    const dim3 grid(blocks_for((size_t)s->end, KV_BLOCK), (unsigned)a->n_head_kv, (unsigned)n_tiles);
    CUDA_LAUNCH(scores_kernel, grid, BLOCK, shared, stream, *a, *s, q, first_tile);
}

/* ---- values ------------------------------------------------------------------------------------ */

/* Grid (KV block, key head, tile): partial (row of the slice, head, KV block, head_dim) = Σ p v over the block's keys.
 * Keys are split so finely because one row has to fill the whole machine. */
static __global__ void values_kernel(const struct cuda_attention a, const struct cuda_slice s, float *partial,
                                     int first_tile) {
    const struct cuda_tile tile = a.tiles[first_tile + (int)blockIdx.z];
    const int kv_head = (int)blockIdx.y, group = a.n_head / a.n_head_kv, dim = a.head_dim;
    const int first_key = (int)blockIdx.x * KV_BLOCK;
    for (int i = threadIdx.x; i < tile.count * group * dim; i += blockDim.x) {
        const int d = i % dim, pair = i / dim, r = tile.first + pair / group, head = kv_head * group + pair % group;
        const struct cuda_row row = row_of(&a, r);
        const int stop = row.end < first_key + KV_BLOCK ? row.end : first_key + KV_BLOCK;
        const size_t at = (size_t)(r - s.first) * (size_t)a.n_head + (size_t)head;
        const float *p = s.scores + at * (size_t)s.stride;
        float sum = 0.0f;
        const bool f32 = keys_f32(&a);
#pragma unroll 8
        for (int key = first_key; key < stop; key++) {
            if (sees(&row, key)) { /* what is not seen may be anything, NaN too */
                sum = fmaf(p[key], float_at(key_at(&a, &row, true, kv_head, key), f32, d), sum);
            }
        }
        partial[(at * gridDim.x + blockIdx.x) * (size_t)dim + (size_t)d] = sum;
    }
}

/* Grid (head, row of the slice): sums of the KV blocks in their order. */
static __global__ void values_sum_kernel(const struct cuda_attention a, const struct cuda_slice s, const float *partial,
                                         float *out, int n_splits) {
    const int head = (int)blockIdx.x, r = (int)blockIdx.y, dim = a.head_dim;
    const int n = (row_of(&a, s.first + r).end - 1) / KV_BLOCK + 1;
    const size_t at = (size_t)r * (size_t)a.n_head + (size_t)head;
    const size_t to = (size_t)(s.first + r) * (size_t)a.n_head + (size_t)head;
    for (int d = threadIdx.x; d < dim; d += blockDim.x) {
        float sum = 0.0f;
        for (int i = 0; i < n; i++) {
            sum += partial[(at * (size_t)n_splits + (size_t)i) * (size_t)dim + (size_t)d];
        }
        out[to * (size_t)dim + (size_t)d] = sum;
    }
}

void cuda_values(cudaStream_t stream, const struct cuda_attention *a, const struct cuda_slice *s, float *partial,
                 float *out, int first_tile, int n_tiles) {
    const unsigned n_splits = blocks_for((size_t)s->end, KV_BLOCK);
    CUDA_LAUNCH(values_kernel, dim3(n_splits, (unsigned)a->n_head_kv, (unsigned)n_tiles), BLOCK, 0, stream, *a, *s,
                partial, first_tile);
    CUDA_LAUNCH(values_sum_kernel, dim3((unsigned)a->n_head, (unsigned)s->n_rows), 128, 0, stream, *a, *s, partial, out,
                (int)n_splits);
}
