/* Ops on whole rows: norms, peaks, steering. One block a row; sums of plan ops in double, as on the CPU. */
#include "backend/cuda/kernel.cuh"

static __global__ void rms_norm_kernel(float *out, const float *x, const float *weight, int n, float eps) {
    __shared__ float partial[MOST_WARPS];
    const float *in = x + (size_t)blockIdx.x * (size_t)n;
    float *to = out + (size_t)blockIdx.x * (size_t)n;
    float square = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        square += in[i] * in[i];
    }
    square = block_reduce<sum_of>(square, partial);
    const float scale = 1.0f / sqrtf(square / (float)n + eps);
    for (int i = threadIdx.x; i < n; i += blockDim.x) { /* each thread writes what it alone has read: out may be x */
        to[i] = weight[i] * (in[i] * scale);
    }
}

static __global__ void layer_norm_kernel(float *out, const float *x, const float *weight, const float *bias, int n,
                                         float eps) {
    __shared__ float partial[MOST_WARPS];
    const float *in = x + (size_t)blockIdx.x * (size_t)n;
    float *to = out + (size_t)blockIdx.x * (size_t)n;
    float sum = 0.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        sum += in[i];
    }
    const float mean = block_reduce<sum_of>(sum, partial) / (float)n;
    float square = 0.0f; /* around the mean, not from the sum of squares, whose difference would cancel */
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const float centred = in[i] - mean;
        square += centred * centred;
    }
    const float scale = 1.0f / sqrtf(block_reduce<sum_of>(square, partial) / (float)n + eps);
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        to[i] = (in[i] - mean) * scale * weight[i] + bias[i];
    }
}

static __global__ void peaks_kernel(float *out, const float *x, int n, const int *dims, int n_dims, float eps) {
    __shared__ double partial[MOST_WARPS];
    const float *row = x + (size_t)blockIdx.x * (size_t)n;
    double square = 0.0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        square += (double)row[i] * (double)row[i];
    }
    square = block_reduce<sum_of>(square, partial);
    const double scale = 1.0 / sqrt(square / n + (double)eps);
    double highest = 0.0;
    for (int i = threadIdx.x; i < n_dims; i += blockDim.x) {
        highest = max_of::join(highest, fabs((double)row[dims[i]]) * scale);
    }
    highest = block_reduce<max_of>(highest, partial);
    if (threadIdx.x == 0) {
        out[blockIdx.x] = (float)highest;
    }
}

/* See cpu_steer: x = a x + b v, scaled to the length x had. */
static __global__ void steer_kernel(float *x, int n, const float *v, float strength, enum steer_mode mode) {
    __shared__ double partial[MOST_WARPS];
    float *row = x + (size_t)blockIdx.x * (size_t)n;
    double xx = 0.0, vv = 0.0, xv = 0.0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        xx += (double)row[i] * (double)row[i];
        vv += (double)v[i] * (double)v[i];
        xv += (double)row[i] * (double)v[i];
    }
    const double norm = sqrt(block_reduce<sum_of>(xx, partial));
    const double v_norm = fmax(sqrt(block_reduce<sum_of>(vv, partial)), 1e-12);
    xv = block_reduce<sum_of>(xv, partial);
    double a = 1.0, b = (double)strength;
    if (mode != STEER_RESIDUAL) {
        /* torch's cosine_similarity bounds each norm from below by 1e-8 */
        const double gain = mode == STEER_COSINE ? 1.0 + fmax(0.0, -xv / (fmax(norm, 1e-8) * fmax(v_norm, 1e-8))) : 1.0;
        a = 1.0 / fmax(norm, 1e-12);
        b = (double)strength * gain / v_norm;
    }
    double square = 0.0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const double y = a * (double)row[i] + b * (double)v[i];
        square += y * y;
    }
    const double scale = norm / fmax(sqrt(block_reduce<sum_of>(square, partial)), 1e-12);
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        row[i] = (float)((a * (double)row[i] + b * (double)v[i]) * scale);
    }
}

void cuda_rms_norm(cudaStream_t stream, float *out, const float *x, const float *weight, int n_rows, int n, float eps) {
    if (n_rows > 0) {
        CUDA_LAUNCH(rms_norm_kernel, n_rows, BLOCK, 0, stream, out, x, weight, n, eps);
    }
}

void cuda_layer_norm(cudaStream_t stream, float *out, const float *x, const float *weight, const float *bias,
                     int n_rows, int n, float eps) {
    if (n_rows > 0) {
        CUDA_LAUNCH(layer_norm_kernel, n_rows, BLOCK, 0, stream, out, x, weight, bias, n, eps);
    }
}

void cuda_peaks(cudaStream_t stream, float *out, const float *x, int n_rows, int n, const int *dims, int n_dims,
                float eps) {
    if (n_rows > 0) {
        CUDA_LAUNCH(peaks_kernel, n_rows, BLOCK, 0, stream, out, x, n, dims, n_dims, eps);
    }
}

void cuda_steer(cudaStream_t stream, float *x, int n_rows, int n, const float *v, float strength,
                enum steer_mode mode) {
    if (n_rows > 0) {
        CUDA_LAUNCH(steer_kernel, n_rows, BLOCK, 0, stream, x, n, v, strength, mode);
    }
}
