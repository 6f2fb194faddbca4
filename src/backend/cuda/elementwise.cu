/* Element-wise ops and rotary positions. Formulas and order of operations are those of cpu/reference.c. */
#include "backend/cuda/kernel.cuh"

/* Index of this thread's element; a grid covers all elements once. */
static __device__ __forceinline__ size_t element(void) {
    return (size_t)blockIdx.x * blockDim.x + threadIdx.x;
}

static __global__ void add_kernel(float *x, const float *y, size_t n) {
    const size_t i = element();
    if (i < n) {
        x[i] += y[i];
    }
}

static __device__ __forceinline__ float silu(float x) {
    return x / (1.0f + expf(-x));
}

static __global__ void silu_mul_kernel(float *gate, const float *up, size_t n) {
    const size_t i = element();
    if (i < n) {
        gate[i] = silu(gate[i]) * up[i];
    }
}

static __global__ void silu_kernel(float *x, size_t n) {
    const size_t i = element();
    if (i < n) {
        x[i] = silu(x[i]);
    }
}

static __global__ void gelu_kernel(float *x, size_t n, bool erf_kind) {
    const size_t i = element();
    if (i < n) {
        const float v = x[i];
        x[i] = erf_kind ? 0.5f * v * (1.0f + erff(v * 0.70710678f)) : v / (1.0f + expf(-1.702f * v));
    }
}

static __global__ void mix_kernel(float *out, float keep, const float *x, float add, size_t n) {
    const size_t i = element();
    if (i < n) {
        out[i] = keep * out[i] + add * x[i];
    }
}

static __global__ void add_bias_kernel(float *out, const float *bias, size_t n, int n_out) {
    const size_t i = element();
    if (i < n) {
        out[i] += bias[i % (size_t)n_out];
    }
}

static __global__ void to_f16_kernel(uint16_t *out, const float *x, size_t n) {
    const size_t i = element();
    if (i < n) {
        out[i] = float_half(x[i]);
    }
}

static __global__ void to_bf16_kernel(uint16_t *out, const float *x, size_t n) {
    const size_t i = element();
    if (i < n) {
        out[i] = float_bfloat(x[i]);
    }
}

static __global__ void scale_heads_kernel(float *x, size_t n, int n_head, int head_dim, const float *scale) {
    const size_t i = element();
    if (i < n) {
        const float s = scale[i / (size_t)head_dim % (size_t)n_head];
        if (s != 1.0f) { /* so that a head that is left alone keeps its bits, NaN included */
            x[i] *= s;
        }
    }
}

static __global__ void rope_table_kernel(float *table, const int32_t *positions, const float *inv_freq, size_t n,
                                         int half) {
    const size_t i = element();
    if (i < n) {
        const float angle = (float)positions[i / (size_t)half] * inv_freq[i % (size_t)half];
        table[2 * i] = cosf(angle);
        table[2 * i + 1] = sinf(angle);
    }
}

/* One thread a pair. */
static __global__ void rope_kernel(float *x, const float *table, size_t n, int n_head, int head_dim, int half,
                                   bool adjacent) {
    const size_t i = element();
    if (i >= n) {
        return;
    }
    const size_t pair = i % (size_t)half, head = i / (size_t)half, row = head / (size_t)n_head;
    const float *angle = table + (row * (size_t)half + pair) * 2;
    float *first = x + head * (size_t)head_dim + (adjacent ? 2 * pair : pair);
    float *second = first + (adjacent ? 1 : half);
    const float c = angle[0], s = angle[1], x0 = *first, x1 = *second;
    *first = x0 * c - x1 * s;
    *second = x1 * c + x0 * s;
}

#define LAUNCH_ELEMENTS(kernel, n, ...)                                                                                \
    if ((n) > 0) {                                                                                                     \
        CUDA_LAUNCH(kernel, blocks_for(n, BLOCK), BLOCK, 0, stream, __VA_ARGS__);                                      \
    }

void cuda_add(cudaStream_t stream, float *x, const float *y, size_t n) {
    LAUNCH_ELEMENTS(add_kernel, n, x, y, n);
}

void cuda_silu_mul(cudaStream_t stream, float *gate, const float *up, size_t n) {
    LAUNCH_ELEMENTS(silu_mul_kernel, n, gate, up, n);
}

void cuda_silu(cudaStream_t stream, float *x, size_t n) {
    LAUNCH_ELEMENTS(silu_kernel, n, x, n);
}

void cuda_gelu(cudaStream_t stream, float *x, size_t n, enum gelu_kind kind) {
    LAUNCH_ELEMENTS(gelu_kernel, n, x, n, kind == GELU_ERF);
}

void cuda_mix(cudaStream_t stream, float *out, float keep, const float *x, float add, size_t n) {
    LAUNCH_ELEMENTS(mix_kernel, n, out, keep, x, add, n);
}

void cuda_add_bias(cudaStream_t stream, float *out, const float *bias, int n_rows, int n_out) {
    const size_t n = (size_t)n_rows * (size_t)n_out;
    LAUNCH_ELEMENTS(add_bias_kernel, n, out, bias, n, n_out);
}

void cuda_to_f16(cudaStream_t stream, uint16_t *out, const float *x, size_t n) {
    LAUNCH_ELEMENTS(to_f16_kernel, n, out, x, n);
}

void cuda_to_bf16(cudaStream_t stream, uint16_t *out, const float *x, size_t n) {
    LAUNCH_ELEMENTS(to_bf16_kernel, n, out, x, n);
}

void cuda_scale_heads(cudaStream_t stream, float *x, int n_rows, int n_head, int head_dim, const float *scale) {
    const size_t n = (size_t)n_rows * (size_t)n_head * (size_t)head_dim;
    LAUNCH_ELEMENTS(scale_heads_kernel, n, x, n, n_head, head_dim, scale);
}

void cuda_rope_table(cudaStream_t stream, float *table, const int32_t *positions, const float *inv_freq, int n_rows,
                     int half) {
    const size_t n = (size_t)n_rows * (size_t)half;
    LAUNCH_ELEMENTS(rope_table_kernel, n, table, positions, inv_freq, n, half);
}

void cuda_rope(cudaStream_t stream, float *x, const float *table, int n_rows, int n_head, int head_dim, int n_dims,
               bool adjacent_pairs) {
    const int half = n_dims / 2;
    const size_t n = (size_t)n_rows * (size_t)n_head * (size_t)half;
    LAUNCH_ELEMENTS(rope_kernel, n, x, table, n, n_head, head_dim, half, adjacent_pairs);
}
