/*
 * Attention of decoding steps: every row has its own keys, which are read once, so memory sets the pace and one row
 * must keep the whole machine busy. Keys are split over blocks (flash decoding): each computes softmax and values of
 * its CUDA_SPLIT keys, a second kernel joins the parts. Scores stay in shared memory.
 *
 * Sixteen lanes read one key: 8 values each, 16 bytes of f16, so a warp has two keys and a block eight in one access.
 */
#include "backend/cuda/keys.cuh"

#define LANES   16
#define THREADS 128
#define KEYS    (THREADS / LANES) /* at a time */
#define CHUNKS  2                 /* 2 · 16 · 8 = CUDA_DECODE_MOST_DIM values */

/* Values d .. d+7 of a key; beyond dim zeros. */
static __device__ __forceinline__ void load8(const void *values, bool f32, int d, int dim, float v[8]) {
    if (d + 8 <= dim && dim % 8 == 0) { /* every key begins at a 16-byte place */
        if (f32) {
            const float4 a = ((const float4 *)values)[d / 4], b = ((const float4 *)values)[d / 4 + 1];
            v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
            v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
        } else {
            const uint4 a = ((const uint4 *)values)[d / 8];
            const uint32_t words[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float2 two = half2_float2(words[i]);
                v[2 * i] = two.x;
                v[2 * i + 1] = two.y;
            }
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
        v[i] = d + i < dim ? float_at(values, f32, d + i) : 0.0f;
    }
}

/* What a part leaves: head_dim sums, then the highest score and the sum of exponentials. */
static __device__ __forceinline__ float *part_at(float *partial, const struct cuda_attention *a, int r, int head,
                                                 int split, int n_splits) {
    const size_t at = ((size_t)r * (size_t)a->n_head + (size_t)head) * (size_t)n_splits + (size_t)split;
    return partial + at * ((size_t)a->head_dim + 2);
}

/* Grid (split, key head, row). */
static __global__ void __launch_bounds__(THREADS)
    decode_kernel(const struct cuda_attention a, const float *q, float *partial) {
    __shared__ float scores[CUDA_SPLIT], reduced[MOST_WARPS], joined[THREADS / WARP][CUDA_DECODE_MOST_DIM];
    const int r = (int)blockIdx.z, kv_head = (int)blockIdx.y, group = a.n_head / a.n_head_kv, dim = a.head_dim;
    const int lane = threadIdx.x % LANES, slot = threadIdx.x / LANES, warp = threadIdx.x / WARP;
    const struct cuda_row row = a.rows[r];
    const int first = (int)blockIdx.x * CUDA_SPLIT;
    const int n = row.n_keys - first < CUDA_SPLIT ? row.n_keys - first : CUDA_SPLIT;
    if (n <= 0) { /* the whole block leaves */
        return;
    }
    const bool f32 = keys_f32(&a);
    for (int g = 0; g < group; g++) { /* the cache brings later heads of the group their keys */
        const int head = kv_head * group + g;
        const float *from = q + ((size_t)r * (size_t)a.n_head + (size_t)head) * (size_t)dim;
        float query[CHUNKS][8];
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const int d = (c * LANES + lane) * 8 + i;
                query[c][i] = d < dim ? from[d] : 0.0f;
            }
        }
#pragma unroll 4
        for (int k0 = 0; k0 < n; k0 += KEYS) { /* all lanes go through, for the shuffles */
            const int k = k0 + slot;
            float dot = 0.0f;
#pragma unroll
            for (int c = 0; c < CHUNKS; c++) {
                if (k < n && c * LANES * 8 < dim) {
                    float v[8];
                    load8(key_at(&a, &row, false, kv_head, first + k), f32, (c * LANES + lane) * 8, dim, v);
#pragma unroll
                    for (int i = 0; i < 8; i++) {
                        dot = fmaf(query[c][i], v[i], dot);
                    }
                }
            }
            for (int offset = LANES / 2; offset > 0; offset /= 2) {
                dot += __shfl_xor_sync(FULL_WARP, dot, offset);
            }
            if (lane == 0 && k < n) {
                scores[k] = dot * a.scale;
            }
        }
        __syncthreads();
        const bool mine = (int)threadIdx.x < n;
        const float score = mine ? scores[threadIdx.x] : -INFINITY;
        const float highest = block_reduce<max_of>(score, reduced);
        const float p = mine ? expf(score - highest) : 0.0f;
        const float sum = block_reduce<sum_of>(p, reduced);
        if (mine) {
            scores[threadIdx.x] = p;
        }
        __syncthreads();
        float values[CHUNKS][8] = {};
#pragma unroll 4
        for (int k = slot; k < n; k += KEYS) {
#pragma unroll
            for (int c = 0; c < CHUNKS; c++) {
                if (c * LANES * 8 < dim) {
                    float v[8];
                    load8(key_at(&a, &row, true, kv_head, first + k), f32, (c * LANES + lane) * 8, dim, v);
#pragma unroll
                    for (int i = 0; i < 8; i++) {
                        values[c][i] = fmaf(scores[k], v[i], values[c][i]);
                    }
                }
            }
        }
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const float both = values[c][i] + __shfl_xor_sync(FULL_WARP, values[c][i], LANES);
                const int d = (c * LANES + lane) * 8 + i;
                if (threadIdx.x % WARP < LANES) {
                    joined[warp][d] = both;
                }
            }
        }
        __syncthreads();
        float *part = part_at(partial, &a, r, head, (int)blockIdx.x, (int)gridDim.x);
        for (int d = threadIdx.x; d < dim; d += THREADS) {
            part[d] = (joined[0][d] + joined[1][d]) + (joined[2][d] + joined[3][d]);
        }
        if (threadIdx.x == 0) {
            part[dim] = highest;
            part[dim + 1] = sum;
        }
    }
}

/* Grid (head, row). */
static __global__ void decode_join_kernel(const struct cuda_attention a, float *partial, float *out, int n_splits) {
    const int head = (int)blockIdx.x, r = (int)blockIdx.y, dim = a.head_dim;
    const int n = (a.rows[r].n_keys - 1) / CUDA_SPLIT + 1;
    float highest = -INFINITY, sum = 0.0f;
    for (int i = 0; i < n; i++) {
        highest = max_of::join(highest, part_at(partial, &a, r, head, i, n_splits)[dim]);
    }
    for (int i = 0; i < n; i++) {
        const float *part = part_at(partial, &a, r, head, i, n_splits);
        sum += part[dim + 1] * expf(part[dim] - highest);
    }
    float *to = out + ((size_t)r * (size_t)a.n_head + (size_t)head) * (size_t)dim;
    for (int d = threadIdx.x; d < dim; d += blockDim.x) {
        float value = 0.0f;
        for (int i = 0; i < n; i++) {
            const float *part = part_at(partial, &a, r, head, i, n_splits);
            value = fmaf(part[d], expf(part[dim] - highest), value);
        }
        to[d] = value / sum;
    }
}

void cuda_decode(cudaStream_t stream, const struct cuda_attention *a, const float *q, float *out, float *partial,
                 int n_rows, int most_keys) {
    const unsigned n_splits = blocks_for((size_t)most_keys, CUDA_SPLIT);
    CUDA_LAUNCH(decode_kernel, dim3(n_splits, (unsigned)a->n_head_kv, (unsigned)n_rows), THREADS, 0, stream, *a, q,
                partial);
    CUDA_LAUNCH(decode_join_kernel, dim3((unsigned)a->n_head, (unsigned)n_rows), THREADS, 0, stream, *a, partial, out,
                (int)n_splits);
}
