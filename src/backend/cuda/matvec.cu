/*
 * Products of few rows with a weight matrix: decoding reads every weight once per step and does little else, so what
 * counts is that weights stream through at the memory's rate.
 *
 * - A warp computes OUTS neighbouring outputs of all rows: the activations it loads (from L1, where all warps of a
 *   multiprocessor find them) serve OUTS weights, and OUTS independent 16-byte weight loads per lane are in flight at
 *   once, more after unrolling.
 * - Quantised weights meet activations rounded to int8 in blocks of 32, four products an instruction (__dp4a). Done in
 *   f32 instead, 4-bit weights would need more instructions per byte than the machine has at full memory rate.
 * - Each row has its own sums and each sum its own order, so a row gives the same bits alone and in company.
 */
#include "backend/cuda/blocks.cuh"

#define WARPS 4 /* warps of a block */

/* ---- activations to int8 ---- */

/* One warp a block of 32 values. */
static __global__ void round_rows_kernel(int8_t *codes, float *scale, float *sums, const float *x, size_t n_blocks) {
    const size_t block = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    const int lane = threadIdx.x % WARP;
    if (block >= n_blocks) { /* whole warps leave */
        return;
    }
    const float v = x[block * QK + (size_t)lane];
    const float highest = warp_reduce<max_of>(fabsf(v));
    const float d = highest / 127.0f;
    const int code = d > 0.0f ? __float2int_rn(v / d) : 0;
    int sum = code;
    for (int offset = 8; offset > 0; offset /= 2) { /* of 16 lanes */
        sum += __shfl_xor_sync(FULL_WARP, sum, offset);
    }
    codes[block * QK + (size_t)lane] = (int8_t)code;
    if (lane % 16 == 0) {
        sums[block * 2 + (size_t)(lane / 16)] = d * (float)sum;
    }
    if (lane == 0) {
        scale[block] = d;
    }
}

void cuda_round_rows(cudaStream_t stream, const struct cuda_rounded *out, const float *x, int n_rows, int n) {
    const size_t n_blocks = (size_t)n_rows * (size_t)n / QK;
    if (n_blocks > 0) {
        CUDA_LAUNCH(round_rows_kernel, blocks_for(n_blocks, BLOCK / WARP), BLOCK, 0, stream, out->codes, out->scale,
                    out->sums, x, n_blocks);
    }
}

/* ---- quantised weights ---- */

/* Four words of codes against 16 rounded activations. */
static __device__ __forceinline__ int dot16(const uint32_t w[4], const uint4 x) {
    int sum = __dp4a((int)w[0], (int)x.x, 0);
    sum = __dp4a((int)w[1], (int)x.y, sum);
    sum = __dp4a((int)w[2], (int)x.z, sum);
    return __dp4a((int)w[3], (int)x.w, sum);
}

template <int ROWS, int OUTS>
static __device__ __forceinline__ void write_sums(float (&sum)[ROWS][OUTS], float *out, const float *bias, int first,
                                                  int n_out, int n_rows, int lane) {
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
#pragma unroll
        for (int o = 0; o < OUTS; o++) {
            const float s = warp_reduce<sum_of>(sum[r][o]);
            if (lane == 0 && r < n_rows && first + o < n_out) {
                out[(size_t)r * (size_t)n_out + (size_t)(first + o)] = s + (bias ? bias[first + o] : 0.0f);
            }
        }
    }
}

template <int TYPE, int ROWS, int OUTS>
static __global__ void __launch_bounds__(WARPS *WARP)
    quantised_kernel(float *out, const void *main, const uint16_t *scales, const struct cuda_rounded x,
                     const float *bias, int n_in, int n_out, int n_rows) {
    const int lane = threadIdx.x % WARP;
    const int first = ((int)blockIdx.x * WARPS + (int)threadIdx.x / WARP) * OUTS;
    if (first >= n_out) {
        return;
    }
    const int row_chunks = n_in / QK;
    float sum[ROWS][OUTS] = {};
#pragma unroll 2 /* more costs the K types so many registers that fewer warps fit than loads are gained */
    for (int c = lane; c < row_chunks; c += WARP) {
        struct chunk w[OUTS];
#pragma unroll
        for (int o = 0; o < OUTS; o++) { /* past the last output: the last one again, its sum is dropped */
            const int row = first + o < n_out ? first + o : n_out - 1;
            blocks<TYPE>::load(main, scales, (size_t)row * (size_t)row_chunks, c, &w[o]);
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const size_t at = (size_t)(r < n_rows ? r : 0) * (size_t)n_in;
#pragma unroll
            for (int run = 0; run < 2; run++) {
                const size_t i = at + (size_t)w[0].first[run]; /* the same in every output */
                const uint4 codes = *(const uint4 *)(x.codes + i);
                const float d = x.scale[i / QK], s = x.sums[i / 16];
#pragma unroll
                for (int o = 0; o < OUTS; o++) {
                    const float dot = (float)dot16(w[o].codes[run], codes);
                    sum[r][o] = fmaf(w[o].scale[run] * d, dot, sum[r][o]);
                    sum[r][o] = fmaf(-w[o].minimum[run], s, sum[r][o]);
                }
            }
        }
    }
    write_sums<ROWS, OUTS>(sum, out, bias, first, n_out, n_rows, lane);
}

/* ---- weights in floats ---- */

/* Eight values as they are stored: 16 bytes, or 32 of F32. */
template <int TYPE> struct stored8 { uint4 words[TYPE == TYPE_F32 ? 2 : 1]; };

template <int TYPE> static __device__ __forceinline__ struct stored8<TYPE> load8(const void *main, size_t at) {
    struct stored8<TYPE> s;
    if constexpr (TYPE == TYPE_F32) {
        s.words[0] = load_stream((const float *)main + at);
        s.words[1] = load_stream((const float *)main + at + 4);
    } else {
        s.words[0] = load_stream((const uint16_t *)main + at);
    }
    return s;
}

template <int TYPE>
static __device__ __forceinline__ void floats8(const struct stored8<TYPE> s, float v[8]) {
    if constexpr (TYPE == TYPE_F32) {
        const uint4 a = s.words[0], b = s.words[1];
        const uint32_t words[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
        for (int i = 0; i < 8; i++) {
            v[i] = __uint_as_float(words[i]);
        }
    } else {
        uint32_t words[4];
        unpack(s.words[0], words);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 two = TYPE == TYPE_F16 ? half2_float2(words[i]) : bfloat2_float2(words[i]);
            v[2 * i] = two.x;
            v[2 * i + 1] = two.y;
        }
    }
}

/* STEPS: pieces of a weight row that a lane has in flight at once. A multiprocessor holds some 16 warps of a 4096-row
 * matrix and needs about 25 KB on its way to keep the memory busy; one piece of each output would be 16. */
template <int TYPE, int ROWS, int OUTS, int STEPS>
static __global__ void __launch_bounds__(WARPS *WARP)
    float_kernel(float *out, const void *main, const float *x, const float *bias, int n_in, int n_out, int n_rows) {
    const int lane = threadIdx.x % WARP;
    const int first = ((int)blockIdx.x * WARPS + (int)threadIdx.x / WARP) * OUTS;
    if (first >= n_out) {
        return;
    }
    float sum[ROWS][OUTS] = {};
    for (int begin = lane * 8; begin < n_in; begin += STEPS * WARP * 8) {
        struct stored8<TYPE> w[STEPS][OUTS];
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            const int i = begin + s * WARP * 8;
#pragma unroll
            for (int o = 0; o < OUTS; o++) {
                const int row = first + o < n_out ? first + o : n_out - 1;
                if (i < n_in) {
                    w[s][o] = load8<TYPE>(main, (size_t)row * (size_t)n_in + (size_t)i);
                }
            }
        }
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            const int i = begin + s * WARP * 8;
            if (i >= n_in) {
                break;
            }
            float values[OUTS][8];
#pragma unroll
            for (int o = 0; o < OUTS; o++) {
                floats8<TYPE>(w[s][o], values[o]);
            }
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const float4 *from = (const float4 *)(x + (size_t)(r < n_rows ? r : 0) * (size_t)n_in + i);
                const float4 a = from[0], b = from[1];
                const float v[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
                for (int o = 0; o < OUTS; o++) {
#pragma unroll
                    for (int j = 0; j < 8; j++) {
                        sum[r][o] = fmaf(values[o][j], v[j], sum[r][o]);
                    }
                }
            }
        }
    }
    write_sums<ROWS, OUTS>(sum, out, bias, first, n_out, n_rows, lane);
}

/* Widths that are not multiples of 8, whose rows do not begin at 16-byte places: one warp an output of one row. */
static __global__ void __launch_bounds__(WARPS *WARP)
    plain_kernel(float *out, uint32_t type, const void *main, const float *x, const float *bias, int n_in, int n_out) {
    const int lane = threadIdx.x % WARP, o = (int)blockIdx.x * WARPS + (int)threadIdx.x / WARP;
    if (o >= n_out) {
        return;
    }
    const float *row = x + (size_t)blockIdx.y * (size_t)n_in;
    float sum = 0.0f;
    for (int i = lane; i < n_in; i += WARP) {
        const size_t at = (size_t)o * (size_t)n_in + (size_t)i;
        const float w = type == TYPE_F32   ? ((const float *)main)[at]
                        : type == TYPE_F16 ? half_float(((const uint16_t *)main)[at])
                                           : bfloat_float(((const uint16_t *)main)[at]);
        sum = fmaf(w, row[i], sum);
    }
    sum = warp_reduce<sum_of>(sum);
    if (lane == 0) {
        out[(size_t)blockIdx.y * (size_t)n_out + (size_t)o] = sum + (bias ? bias[o] : 0.0f);
    }
}

/* ---- choice ---- */

struct product {
    cudaStream_t stream;
    float *out;
    const struct cuda_matrix *w;
    const float *x, *bias;
    struct cuda_rounded rounded;
    int n_rows;
};

template <int TYPE, int ROWS, int OUTS> static void launch(const struct product *p) {
    const unsigned grid = blocks_for((size_t)p->w->n_out, WARPS * OUTS);
    constexpr int STEPS = ROWS == 1 && TYPE != TYPE_F32 ? 4 : ROWS <= 2 ? 2 : 1;
    if constexpr (TYPE == TYPE_F32 || TYPE == TYPE_F16 || TYPE == TYPE_BF16) {
        CUDA_LAUNCH((float_kernel<TYPE, ROWS, OUTS, STEPS>), grid, WARPS * WARP, 0, p->stream, p->out, p->w->main, p->x,
                    p->bias, p->w->n_in, p->w->n_out, p->n_rows);
    } else {
        CUDA_LAUNCH((quantised_kernel<TYPE, ROWS, OUTS>), grid, WARPS * WARP, 0, p->stream, p->out, p->w->main,
                    p->w->scales, p->rounded, p->bias, p->w->n_in, p->w->n_out, p->n_rows);
    }
}

/* Rows beyond n_rows in a kernel repeat the first and are dropped: three sizes are enough. */
template <int TYPE> static void launch_rows(const struct product *p) {
    if (p->n_rows == 1) {
        launch<TYPE, 1, 2>(p);
    } else if (p->n_rows <= 2) {
        launch<TYPE, 2, 2>(p);
    } else {
        launch<TYPE, CUDA_FEW_ROWS, 2>(p);
    }
}

void cuda_matvec(cudaStream_t stream, float *out, const struct cuda_matrix *w, const float *x,
                 const struct cuda_rounded *rounded, const float *bias, int n_rows) {
    struct product p = {stream, out, w, x, bias, {}, n_rows};
    if (rounded) {
        p.rounded = *rounded;
    }
    if (n_rows < 1 || w->n_out < 1) {
        return;
    }
    const bool floats = w->type == TYPE_F32 || w->type == TYPE_F16 || w->type == TYPE_BF16;
    if (floats && w->n_in % 8 != 0) {
        CUDA_LAUNCH(plain_kernel, dim3(blocks_for((size_t)w->n_out, WARPS), (unsigned)n_rows), WARPS * WARP, 0, stream,
                    out, w->type, w->main, x, bias, w->n_in, w->n_out);
        return;
    }
    switch (w->type) {
    case TYPE_F32: launch_rows<TYPE_F32>(&p); break;
    case TYPE_F16: launch_rows<TYPE_F16>(&p); break;
    case TYPE_BF16: launch_rows<TYPE_BF16>(&p); break;
    case TYPE_Q8_0: launch_rows<TYPE_Q8_0>(&p); break;
    case TYPE_Q4_0: launch_rows<TYPE_Q4_0>(&p); break;
    case TYPE_Q4_K: launch_rows<TYPE_Q4_K>(&p); break;
    case TYPE_Q5_K: launch_rows<TYPE_Q5_K>(&p); break;
    case TYPE_Q6_K: launch_rows<TYPE_Q6_K>(&p); break;
    default: break;
    }
}
