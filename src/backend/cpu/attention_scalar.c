/* Attention kernels in portable C: vectors of four floats, which the compiler maps to what the machine has. */
#define LANES              4
#define MICRO_ROWS         4
#define MICRO_ACCUMULATORS 8

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/attention_vector.h"
#include "model/quant.h"

INLINE vf v_set1(float x) {
    return (vf){x, x, x, x};
}

INLINE vf v_fma(vf a, vf b, vf c) {
    return a * b + c;
}

INLINE vf v_max(vf a, vf b) {
    return v_select(a > b, a, b);
}

INLINE float v_sum(vf x) {
    return (x[0] + x[2]) + (x[1] + x[3]);
}

INLINE float v_highest(vf x) {
    const float a = x[0] > x[2] ? x[0] : x[2], b = x[1] > x[3] ? x[1] : x[3];
    return a > b ? a : b;
}

INLINE vf v_load_f16(const uint16_t *p) {
    return (vf){f16_to_f32(p[0]), f16_to_f32(p[1]), f16_to_f32(p[2]), f16_to_f32(p[3])};
}

static void to_f32(const uint16_t *src, int n, float *dst) {
    for (int i = 0; i < n; i++) {
        dst[i] = f16_to_f32(src[i]);
    }
}

static void to_f16(uint16_t *dst, const float *src, int n) {
    for (int i = 0; i < n; i++) {
        dst[i] = f32_to_f16(src[i]);
    }
}

static void pack_keys(const struct attention_block *keys, int n, int dim, float *k_t) {
    for (int i = 0; i < KV_BLOCK; i++) {
        const size_t row = (size_t)i * keys->stride;
        for (int d = 0; d < dim; d++) {
            float x = 0.0f;
            if (i < n) {
                x = keys->f16 ? f16_to_f32(((const uint16_t *)keys->k)[row + (size_t)d])
                              : ((const float *)keys->k)[row + (size_t)d];
            }
            k_t[(size_t)d * KV_BLOCK + (size_t)i] = x;
        }
    }
}

#include "backend/cpu/attention_tile.h"

const struct attention_kernels attention_kernels_scalar = ATTENTION_KERNELS;
