/* Attention kernels for AVX-512: vectors of sixteen floats; keys are transposed with AVX2 shuffles. */
#define LANES              16
#define MICRO_ROWS         6
#define MICRO_ACCUMULATORS 24

#include "backend/cpu/attention_pack_x86.h"
#include "backend/cpu/attention_vector.h"

INLINE vf v_set1(float x) {
    return _mm512_set1_ps(x);
}

INLINE vf v_fma(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}

INLINE vf v_max(vf a, vf b) {
    return _mm512_max_ps(a, b);
}

INLINE float v_sum(vf x) {
    return _mm512_reduce_add_ps(x);
}

INLINE float v_highest(vf x) {
    return _mm512_reduce_max_ps(x);
}

INLINE vf v_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

#include "backend/cpu/attention_tile.h"

const struct attention_kernels attention_kernels_avx512 = ATTENTION_KERNELS;
