/* Element-wise functions for AVX2 + FMA. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "backend/cpu/vecops.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __m256 set(float value) {
    return _mm256_set1_ps(value);
}

/*
 * e^x = 2^n e^r with |r| <= ln 2 / 2, e^r from the polynomial of the Cephes library. 2^n is applied in two halves:
 * the result may be a denormal or infinity although n itself fits no exponent field. MIN and MAX take their second
 * operand when there is a NaN.
 */
INLINE __m256 exp_8(__m256 x) {
    x = _mm256_max_ps(set(-110.0f), _mm256_min_ps(set(100.0f), x));
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, set(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, set(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, set(-2.12194440e-4f), r);
    __m256 p = set(1.9875691500e-4f);
    p = _mm256_fmadd_ps(p, r, set(1.3981999507e-3f));
    p = _mm256_fmadd_ps(p, r, set(8.3334519073e-3f));
    p = _mm256_fmadd_ps(p, r, set(4.1665795894e-2f));
    p = _mm256_fmadd_ps(p, r, set(1.6666665459e-1f));
    p = _mm256_fmadd_ps(p, r, set(5.0000001201e-1f));
    p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), set(1.0f));
    const __m256i i = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(i, 1), bias = _mm256_set1_epi32(127);
    const __m256i scale0 = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const __m256i scale1 = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(i, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(scale0)), _mm256_castsi256_ps(scale1));
}

/* x / (1 + e^(-slope x)) */
INLINE __m256 swish_8(__m256 x, float slope) {
    return _mm256_div_ps(x, _mm256_add_ps(set(1.0f), exp_8(_mm256_mul_ps(x, set(-slope)))));
}

/* Minimax polynomials for erf near zero and for ln(erfc) elsewhere; within about 1 ulp. */
INLINE __m256 erf_8(__m256 x) {
    const __m256 sign = _mm256_and_ps(x, set(-0.0f)), t = _mm256_andnot_ps(set(-0.0f), x), s = _mm256_mul_ps(x, x);
    __m256 far = _mm256_fmadd_ps(set(-1.72853470e-5f), t, set(3.83197126e-4f));
    const __m256 u = _mm256_fmadd_ps(set(-3.88396438e-3f), t, set(2.42546219e-2f));
    far = _mm256_fmadd_ps(far, s, u);
    far = _mm256_fmadd_ps(far, t, set(-1.06777877e-1f));
    far = _mm256_fmadd_ps(far, t, set(-6.34846687e-1f));
    far = _mm256_fmadd_ps(far, t, set(-1.28717512e-1f));
    far = _mm256_fmadd_ps(far, t, _mm256_sub_ps(set(0.0f), t));
    /* The polynomial is only meant for |x| < 4; erf is 1 in f32 behind that. */
    const __m256 one = _mm256_cmp_ps(t, set(4.0f), _CMP_GT_OQ);
    far = _mm256_blendv_ps(_mm256_sub_ps(set(1.0f), exp_8(far)), set(1.0f), one);
    __m256 near = set(-5.96761703e-4f);
    near = _mm256_fmadd_ps(near, s, set(4.99119423e-3f));
    near = _mm256_fmadd_ps(near, s, set(-2.67681349e-2f));
    near = _mm256_fmadd_ps(near, s, set(1.12819925e-1f));
    near = _mm256_fmadd_ps(near, s, set(-3.76125336e-1f));
    near = _mm256_fmadd_ps(near, s, set(1.28379166e-1f));
    near = _mm256_fmadd_ps(near, x, x);
    return _mm256_blendv_ps(near, _mm256_or_ps(far, sign), _mm256_cmp_ps(t, set(0.927734375f), _CMP_GT_OQ));
}

INLINE __m256 gelu_8(__m256 x) {
    const __m256 erf = erf_8(_mm256_mul_ps(x, set(0.70710678f)));
    return _mm256_mul_ps(_mm256_mul_ps(set(0.5f), x), _mm256_add_ps(set(1.0f), erf));
}

/* Applies `expression` of v to all of x, the last incomplete vector through a buffer. */
#define MAP(x, n, expression)                                                                                          \
    do {                                                                                                               \
        size_t i_ = 0;                                                                                                 \
        for (; i_ + 8 <= (n); i_ += 8) {                                                                               \
            const __m256 v = _mm256_loadu_ps((x) + i_);                                                                \
            _mm256_storeu_ps((x) + i_, (expression));                                                                  \
        }                                                                                                              \
        if (i_ < (n)) {                                                                                                \
            float rest_[8] = {0};                                                                                      \
            memcpy(rest_, (x) + i_, ((n)-i_) * sizeof(float));                                                         \
            const __m256 v = _mm256_loadu_ps(rest_);                                                                   \
            _mm256_storeu_ps(rest_, (expression));                                                                     \
            memcpy((x) + i_, rest_, ((n)-i_) * sizeof(float));                                                         \
        }                                                                                                              \
    } while (0)

static void vec_exp(float *x, size_t n) {
    MAP(x, n, exp_8(v));
}

static void silu(float *x, size_t n) {
    MAP(x, n, swish_8(v, 1.0f));
}

static void gelu_quick(float *x, size_t n) {
    MAP(x, n, swish_8(v, 1.702f));
}

static void gelu_erf(float *x, size_t n) {
    MAP(x, n, gelu_8(v));
}

static void silu_mul(float *gate, const float *up, size_t n) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 v = swish_8(_mm256_loadu_ps(gate + i), 1.0f);
        _mm256_storeu_ps(gate + i, _mm256_mul_ps(v, _mm256_loadu_ps(up + i)));
    }
    if (i < n) {
        float g[8] = {0}, u[8] = {0};
        memcpy(g, gate + i, (n - i) * sizeof(float));
        memcpy(u, up + i, (n - i) * sizeof(float));
        _mm256_storeu_ps(g, _mm256_mul_ps(swish_8(_mm256_loadu_ps(g), 1.0f), _mm256_loadu_ps(u)));
        memcpy(gate + i, g, (n - i) * sizeof(float));
    }
}

/* The squares are summed in double precision, as the portable version does: rows may hold outliers. */
static void rms_norm(float *out, const float *x, const float *weight, size_t n, float eps) {
    __m256d part[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()};
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (int k = 0; k < 4; k++) {
            const __m256d v = _mm256_cvtps_pd(_mm_loadu_ps(x + i + 4 * k));
            part[k] = _mm256_fmadd_pd(v, v, part[k]);
        }
    }
    double sums[4], sum = 0;
    _mm256_storeu_pd(sums, _mm256_add_pd(_mm256_add_pd(part[0], part[1]), _mm256_add_pd(part[2], part[3])));
    for (int k = 0; k < 4; k++) {
        sum += sums[k];
    }
    for (; i < n; i++) {
        sum += (double)x[i] * x[i];
    }
    const float scale = (float)(1.0 / sqrt(sum / (double)n + (double)eps));
    for (i = 0; i < n; i++) {
        out[i] = x[i] * scale * weight[i];
    }
}

const struct vec_kernels vec_avx2 = {vec_exp, silu, silu_mul, gelu_quick, gelu_erf, rms_norm};
