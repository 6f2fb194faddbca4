/* Attention kernels for AVX2 + FMA + F16C: vectors of eight floats, 6 x 2 accumulators of 16 registers. */
#define LANES              8
#define MICRO_ROWS         6
#define MICRO_ACCUMULATORS 12

#include "backend/cpu/attention_pack_x86.h"
#include "backend/cpu/attention_vector.h"

INLINE vf v_set1(float x) {
    return _mm256_set1_ps(x);
}

INLINE vf v_fma(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}

INLINE vf v_max(vf a, vf b) {
    return _mm256_max_ps(a, b);
}

INLINE float v_sum(vf x) {
    __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}

INLINE float v_highest(vf x) {
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}

INLINE vf v_load_f16(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

#include "backend/cpu/attention_tile.h"

const struct attention_kernels attention_kernels_avx2 = ATTENTION_KERNELS;
