/* Element-wise functions in portable C on libm, and the choice among families. */
#include "backend/cpu/vecops.h"

#include <math.h>

static void vec_exp(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        x[i] = expf(x[i]);
    }
}

static void silu(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        x[i] = x[i] / (1.0f + expf(-x[i]));
    }
}

static void silu_mul(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) {
        gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
    }
}

static void gelu_quick(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        x[i] = x[i] / (1.0f + expf(-1.702f * x[i]));
    }
}

static void gelu_erf(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        x[i] = 0.5f * x[i] * (1.0f + erff(x[i] * 0.70710678f));
    }
}

static void rms_norm(float *out, const float *x, const float *weight, size_t n, float eps) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)x[i] * x[i];
    }
    float scale = (float)(1.0 / sqrt(sum / (double)n + (double)eps));
    for (size_t i = 0; i < n; i++) {
        out[i] = x[i] * scale * weight[i];
    }
}

static const struct vec_kernels vec_scalar = {vec_exp, silu, silu_mul, gelu_quick, gelu_erf, rms_norm};

const struct vec_kernels *vec_kernels_get(enum cpu_isa isa) {
#if defined(__x86_64__)
    if (isa == ISA_AVX2 || isa == ISA_AVX512) {
        return &vec_avx2;
    }
#endif
    (void)isa;
    return &vec_scalar;
}
