/* Weights decoded to plain floats, rows of the embedding table, and the product of the exact path. */
#include "backend/cuda/blocks.cuh"

template <class TO> static __device__ __forceinline__ TO rounded(float x);
struct f16_bits {
    uint16_t bits;
};
struct bf16_bits {
    uint16_t bits;
};
template <> __device__ __forceinline__ float rounded<float>(float x) {
    return x;
}
template <> __device__ __forceinline__ f16_bits rounded<f16_bits>(float x) {
    return f16_bits{float_half(x)};
}
template <> __device__ __forceinline__ bf16_bits rounded<bf16_bits>(float x) {
    return bf16_bits{float_bfloat(x)};
}

/* One thread a chunk; row r of the output is row ids[r] of the matrix, or first + r when ids is NULL. */
template <int TYPE, class TO>
static __global__ void decode_chunks_kernel(TO *out, const void *main, const uint16_t *scales, const int32_t *ids,
                                            int first, size_t n_chunks, int row_chunks) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n_chunks) {
        return;
    }
    const size_t r = i / (size_t)row_chunks;
    const size_t row = ids ? (size_t)ids[r] : (size_t)first + r;
    struct chunk chunk;
    blocks<TYPE>::load(main, scales, row * (size_t)row_chunks, (int)(i % (size_t)row_chunks), &chunk);
    TO *to = out + r * (size_t)row_chunks * QK;
    for (int run = 0; run < 2; run++) {
        for (int j = 0; j < 16; j++) {
            to[chunk.first[run] + j] =
                rounded<TO>(fmaf(chunk.scale[run], code_at(chunk.codes[run], j), -chunk.minimum[run]));
        }
    }
}

/* F32, F16, BF16: one thread a value. */
template <class TO>
static __global__ void convert_kernel(TO *out, uint32_t type, const void *main, const int32_t *ids, int first, size_t n,
                                      int n_in) {
    const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) {
        return;
    }
    const size_t r = i / (size_t)n_in;
    const size_t at = (ids ? (size_t)ids[r] : (size_t)first + r) * (size_t)n_in + i % (size_t)n_in;
    const float x = type == TYPE_F32   ? ((const float *)main)[at]
                    : type == TYPE_F16 ? half_float(((const uint16_t *)main)[at])
                                       : bfloat_float(((const uint16_t *)main)[at]);
    out[i] = rounded<TO>(x);
}

template <class TO>
static void decode_rows(cudaStream_t stream, TO *out, const struct cuda_matrix *w, const int32_t *ids, int first,
                        int n_rows) {
    const size_t n = (size_t)n_rows * (size_t)w->n_in, n_chunks = n / QK;
    const int row_chunks = w->n_in / QK;
    if (n == 0) {
        return;
    }
#define DECODE(type)                                                                                                   \
    case type:                                                                                                         \
        CUDA_LAUNCH((decode_chunks_kernel<type, TO>), blocks_for(n_chunks, BLOCK), BLOCK, 0, stream, out, w->main,     \
                    w->scales, ids, first, n_chunks, row_chunks);                                                      \
        break
    switch (w->type) {
        DECODE(TYPE_Q8_0);
        DECODE(TYPE_Q4_0);
        DECODE(TYPE_Q4_K);
        DECODE(TYPE_Q5_K);
        DECODE(TYPE_Q6_K);
    default:
        CUDA_LAUNCH((convert_kernel<TO>), blocks_for(n, BLOCK), BLOCK, 0, stream, out, w->type, w->main, ids, first, n,
                    w->n_in);
    }
#undef DECODE
}

void cuda_dequantize(cudaStream_t stream, void *out, enum cuda_float to, const struct cuda_matrix *w, int first,
                     int n_rows) {
    switch (to) {
    case CUDA_F32: decode_rows(stream, (float *)out, w, NULL, first, n_rows); break;
    case CUDA_F16: decode_rows(stream, (f16_bits *)out, w, NULL, first, n_rows); break;
    case CUDA_BF16: decode_rows(stream, (bf16_bits *)out, w, NULL, first, n_rows); break;
    }
}

void cuda_embed(cudaStream_t stream, float *out, const struct cuda_matrix *w, const int32_t *ids, int n) {
    decode_rows(stream, out, w, ids, 0, n);
}

/* ---- the exact product ------------------------------------------------------------------------- */

#define TILE 32

/* A block computes TILE outputs of TILE rows, thread (column, i) those of rows i, i + 8, i + 16, i + 24. The sums of an
 * element run over the columns in order, whatever else is computed beside it. */
static __global__ void exact_product_kernel(float *out, int ld_out, const float *x, const float *w, const float *bias,
                                            int n_rows, int n_in, int n_out) {
    __shared__ float xs[TILE][TILE + 1], ws[TILE][TILE + 1]; /* + 1: columns in different banks */
    const int column = threadIdx.x % TILE, slice = threadIdx.x / TILE, steps = TILE / (BLOCK / TILE);
    const int first_out = (int)blockIdx.x * TILE, first_row = (int)blockIdx.y * TILE;
    float sum[TILE * TILE / BLOCK] = {0};
    for (int k = 0; k < n_in; k += TILE) {
        __syncthreads();
        for (int i = slice; i < TILE; i += BLOCK / TILE) {
            const int row = first_row + i, o = first_out + i, at = k + column;
            xs[i][column] = row < n_rows && at < n_in ? x[(size_t)row * (size_t)n_in + (size_t)at] : 0.0f;
            ws[i][column] = o < n_out && at < n_in ? w[(size_t)o * (size_t)n_in + (size_t)at] : 0.0f;
        }
        __syncthreads();
        const int width = n_in - k < TILE ? n_in - k : TILE;
        for (int j = 0; j < width; j++) {
            for (int s = 0; s < steps; s++) {
                sum[s] = fmaf(xs[slice + s * (BLOCK / TILE)][j], ws[column][j], sum[s]);
            }
        }
    }
    const int o = first_out + column;
    for (int s = 0; s < steps && o < n_out; s++) {
        const int row = first_row + slice + s * (BLOCK / TILE);
        if (row < n_rows) {
            out[(size_t)row * (size_t)ld_out + (size_t)o] = sum[s] + (bias ? bias[o] : 0.0f);
        }
    }
}

void cuda_exact_product(cudaStream_t stream, float *out, int ld_out, const float *x, const float *w, const float *bias,
                        int n_rows, int n_in, int n_out) {
    if (n_rows > 0 && n_out > 0) {
        CUDA_LAUNCH(exact_product_kernel, dim3(blocks_for((size_t)n_out, TILE), blocks_for((size_t)n_rows, TILE)),
                    BLOCK, 0, stream, out, ld_out, x, w, bias, n_rows, n_in, n_out);
    }
}
