/* Attention kernels for AArch64: vectors of four floats, 6 x 4 accumulators of 32 registers. */
#include <arm_neon.h>

#define LANES              4
#define MICRO_ROWS         6
#define MICRO_ACCUMULATORS 24

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/attention_vector.h"

INLINE vf v_set1(float x) {
    return (vf)vdupq_n_f32(x);
}

INLINE vf v_fma(vf a, vf b, vf c) {
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}

INLINE vf v_max(vf a, vf b) {
    return v_select(a > b, a, b);
}

INLINE float v_sum(vf x) {
    return (x[0] + x[2]) + (x[1] + x[3]);
}

INLINE float v_highest(vf x) {
    return vmaxvq_f32((float32x4_t)x);
}

INLINE vf v_load_f16(const uint16_t *p) {
    return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

static void to_f32(const uint16_t *src, int n, float *dst) {
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        v_store(dst + i, v_load_f16(src + i));
    }
    for (; i < n; i++) {
        __fp16 h;
        __builtin_memcpy(&h, src + i, sizeof h);
        dst[i] = (float)h;
    }
}

static void to_f16(uint16_t *dst, const float *src, int n) {
    int i = 0;
    for (; i + LANES <= n; i += LANES) {
        vst1_u16(dst + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(src + i))));
    }
    for (; i < n; i++) {
        const __fp16 h = (__fp16)src[i];
        __builtin_memcpy(dst + i, &h, sizeof h);
    }
}

static void transpose_4x4(const vf a[4], int d, float *k_t) {
    const float32x4_t r0 = (float32x4_t)a[0], r1 = (float32x4_t)a[1], r2 = (float32x4_t)a[2], r3 = (float32x4_t)a[3];
    const float64x2_t b0 = vreinterpretq_f64_f32(vtrn1q_f32(r0, r1)), b1 = vreinterpretq_f64_f32(vtrn2q_f32(r0, r1));
    const float64x2_t b2 = vreinterpretq_f64_f32(vtrn1q_f32(r2, r3)), b3 = vreinterpretq_f64_f32(vtrn2q_f32(r2, r3));
    vst1q_f32(k_t + (size_t)d * KV_BLOCK, vreinterpretq_f32_f64(vtrn1q_f64(b0, b2)));
    vst1q_f32(k_t + (size_t)(d + 1) * KV_BLOCK, vreinterpretq_f32_f64(vtrn1q_f64(b1, b3)));
    vst1q_f32(k_t + (size_t)(d + 2) * KV_BLOCK, vreinterpretq_f32_f64(vtrn2q_f64(b0, b2)));
    vst1q_f32(k_t + (size_t)(d + 3) * KV_BLOCK, vreinterpretq_f32_f64(vtrn2q_f64(b1, b3)));
}

/* Four keys at a time, the whole block; behind the last key, its row is read again. */
static void pack_keys(const struct attention_block *keys, int n, int dim, float *k_t) {
    for (int i = 0; i < KV_BLOCK; i += LANES) {
        size_t row[LANES];
        for (int j = 0; j < LANES; j++) {
            row[j] = (size_t)(i + j < n ? i + j : n - 1) * keys->stride;
        }
        int d = 0;
        for (; d + LANES <= dim; d += LANES) {
            vf a[LANES];
            for (int j = 0; j < LANES; j++) {
                a[j] = keys->f16 ? v_load_f16((const uint16_t *)keys->k + row[j] + d)
                                 : v_load((const float *)keys->k + row[j] + d);
            }
            transpose_4x4(a, d, k_t + i);
        }
        for (; d < dim; d++) {
            for (int j = 0; j < LANES; j++) {
                float *x = k_t + (size_t)d * KV_BLOCK + (size_t)(i + j);
                if (keys->f16) {
                    to_f32((const uint16_t *)keys->k + row[j] + d, 1, x);
                } else {
                    *x = ((const float *)keys->k)[row[j] + (size_t)d];
                }
            }
        }
    }
}

#include "backend/cpu/attention_tile.h"

const struct attention_kernels attention_kernels_neon = ATTENTION_KERNELS;
