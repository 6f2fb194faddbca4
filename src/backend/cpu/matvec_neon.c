/*
 * Matvec kernels for AArch64. Same plan as the x86 ones: one linear stream of weights, each unpacked once for up to
 * six activation rows, the same operations in the same order for every activation row. The dot product instruction
 * is used where the compiler may assume it.
 */
#include <arm_neon.h>
#include <stdbool.h>
#include <string.h>

#include "backend/cpu/matvec_kernels.h"

#define TEMPLATE static inline __attribute__((always_inline))
#define UNROLL   _Pragma("GCC unroll 16")
#define NX_MAX   6

TEMPLATE float f16_at(const uint8_t *p) {
    __fp16 h;
    memcpy(&h, p, sizeof h);
    return (float)h;
}

/* sum + 4 × i32: partial sums of 16 products. Two products fit 16 bits: 2 * 128 * 127 = 32512. */
TEMPLATE int32x4_t add_dot_16(int32x4_t sum, int8x16_t w, int8x16_t x) {
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(sum, w, x);
#else
    int16x8_t pairs = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    return vpadalq_s16(sum, vmlal_high_s8(pairs, w, x));
#endif
}

TEMPLATE int32x4_t dot_32(const int8x16_t w[2], const int8_t *x) {
    return add_dot_16(add_dot_16(vdupq_n_s32(0), w[0], vld1q_s8(x)), w[1], vld1q_s8(x + 16));
}

/* ---- Q8_0 and Q4_0 ---- */

TEMPLATE void blocks_row(bool q4, const uint8_t *w, int n_in, const char *prepared, size_t stride, const int nx,
                         float *out, size_t out_stride) {
    const size_t bytes = q4 ? sizeof(struct block_q4_0) : sizeof(struct block_q8_0);
    struct partner_blocks x[NX_MAX];
    float32x4_t sum[NX_MAX];
    UNROLL for (int r = 0; r < nx; r++) {
        x[r] = matvec_partner_blocks(prepared + (size_t)r * stride, n_in);
        sum[r] = vdupq_n_f32(0);
    }
    for (int b = 0; b < n_in / QK; b++, w += bytes) {
        const float d = f16_at(w);
        int8x16_t q[2];
        if (q4) {
            const uint8x16_t bits = vld1q_u8(w + 2);
            q[0] = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(bits, vdupq_n_u8(15))), vdupq_n_s8(8));
            q[1] = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(bits, 4)), vdupq_n_s8(8));
        } else {
            q[0] = vld1q_s8((const int8_t *)w + 2);
            q[1] = vld1q_s8((const int8_t *)w + 18);
        }
        UNROLL for (int r = 0; r < nx; r++) {
            sum[r] = vfmaq_n_f32(sum[r], vcvtq_f32_s32(dot_32(q, x[r].q + b * QK)), d * x[r].d[b]);
        }
    }
    UNROLL for (int r = 0; r < nx; r++) {
        out[(size_t)r * out_stride] = vaddvq_f32(sum[r]);
    }
}

/* ---- K types ---- */

/* Q4_K, or Q5_K when q5. */
TEMPLATE void super_min_row(bool q5, const uint8_t *w, int n_in, const char *prepared, size_t stride, const int nx,
                            float *out, size_t out_stride) {
    const size_t bytes = q5 ? sizeof(struct block_q5_k) : sizeof(struct block_q4_k);
    struct partner_super x[NX_MAX];
    float32x4_t sum[NX_MAX];
    UNROLL for (int r = 0; r < nx; r++) {
        x[r] = matvec_partner_super(prepared + (size_t)r * stride, n_in, 32);
        sum[r] = vdupq_n_f32(0);
    }
    for (int b = 0; b < n_in / QKK; b++, w += bytes) {
        const float d = f16_at(w), dmin = f16_at(w + 2);
        const uint8_t *qh = w + 16, *qs = q5 ? w + 16 + QKK / 8 : w + 16;
        uint8_t scale[8], min[8];
        for (int j = 0; j < 8; j++) {
            quant_scale_min(w + 4, j, &scale[j], &min[j]);
        }
        const int16x8_t mins = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(min)));
        int32x4_t scaled[NX_MAX];
        UNROLL for (int r = 0; r < nx; r++) {
            scaled[r] = vdupq_n_s32(0);
        }
        for (int j = 0; j < 8; j++) { /* 32 values of one scale: lower nibbles, then upper ones of the same bytes */
            int8x16_t q[2];
            UNROLL for (int half = 0; half < 2; half++) {
                const uint8x16_t bits = vld1q_u8(qs + 32 * (j / 2) + 16 * half);
                uint8x16_t u = j % 2 ? vshrq_n_u8(bits, 4) : vandq_u8(bits, vdupq_n_u8(15));
                if (q5) {
                    uint8x16_t fifth = vtstq_u8(vld1q_u8(qh + 16 * half), vdupq_n_u8((uint8_t)(1 << j)));
                    u = vorrq_u8(u, vandq_u8(fifth, vdupq_n_u8(16)));
                }
                q[half] = vreinterpretq_s8_u8(u);
            }
            UNROLL for (int r = 0; r < nx; r++) {
                scaled[r] = vmlaq_n_s32(scaled[r], dot_32(q, x[r].q + b * QKK + j * 32), scale[j]);
            }
        }
        UNROLL for (int r = 0; r < nx; r++) {
            const int16x8_t sums = vld1q_s16(x[r].sums + b * (QKK / 32));
            int32x4_t min_sums = vmlal_high_s16(vmull_s16(vget_low_s16(mins), vget_low_s16(sums)), mins, sums);
            sum[r] = vfmsq_n_f32(sum[r], vcvtq_f32_s32(min_sums), dmin * x[r].d[b]);
            sum[r] = vfmaq_n_f32(sum[r], vcvtq_f32_s32(scaled[r]), d * x[r].d[b]);
        }
    }
    UNROLL for (int r = 0; r < nx; r++) {
        out[(size_t)r * out_stride] = vaddvq_f32(sum[r]);
    }
}

TEMPLATE void q6_k_row(const uint8_t *w, int n_in, const char *prepared, size_t stride, const int nx, float *out,
                       size_t out_stride) {
    struct partner_super x[NX_MAX];
    float32x4_t sum[NX_MAX];
    UNROLL for (int r = 0; r < nx; r++) {
        x[r] = matvec_partner_super(prepared + (size_t)r * stride, n_in, 16);
        sum[r] = vdupq_n_f32(0);
    }
    for (int b = 0; b < n_in / QKK; b++, w += sizeof(struct block_q6_k)) {
        const int8_t *scales = (const int8_t *)w + 192;
        const float d = f16_at(w + 208);
        int32x4_t scaled[NX_MAX];
        UNROLL for (int r = 0; r < nx; r++) {
            scaled[r] = vdupq_n_s32(0);
        }
        for (int k = 0; k < 16; k++) { /* 16 values of one scale: half k / 8, quarter k / 2 % 4 of the half */
            const int quarter = k / 2 % 4;
            const uint8x16_t low = vld1q_u8(w + k / 8 * 64 + quarter % 2 * 32 + k % 2 * 16);
            const uint8x16_t high = vld1q_u8(w + 128 + k / 8 * 32 + k % 2 * 16);
            const uint8x16_t nibble = quarter < 2 ? vandq_u8(low, vdupq_n_u8(15)) : vshrq_n_u8(low, 4);
            const uint8x16_t two = vandq_u8(vshlq_u8(high, vdupq_n_s8((int8_t)(-2 * quarter))), vdupq_n_u8(3));
            const int8x16_t q = vsubq_s8(vreinterpretq_s8_u8(vorrq_u8(nibble, vshlq_n_u8(two, 4))), vdupq_n_s8(32));
            UNROLL for (int r = 0; r < nx; r++) {
                int32x4_t dot = add_dot_16(vdupq_n_s32(0), q, vld1q_s8(x[r].q + b * QKK + k * 16));
                scaled[r] = vmlaq_n_s32(scaled[r], dot, scales[k]);
            }
        }
        UNROLL for (int r = 0; r < nx; r++) {
            sum[r] = vfmaq_n_f32(sum[r], vcvtq_f32_s32(scaled[r]), d * x[r].d[b]);
        }
    }
    UNROLL for (int r = 0; r < nx; r++) {
        out[(size_t)r * out_stride] = vaddvq_f32(sum[r]);
    }
}

/* ---- float types ---- */

TEMPLATE float32x4_t load_4(uint32_t type, const uint8_t *p) {
    switch (type) {
    case TYPE_F16: return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
    case TYPE_BF16: return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
    default: return vreinterpretq_f32_u8(vld1q_u8(p));
    }
}

/* sum += 8 weights at w times x. */
TEMPLATE void add_8(uint32_t type, const uint8_t *w, size_t size, const float *const x[NX_MAX], int i, const int nx,
                    float32x4_t sum[NX_MAX][2]) {
    const float32x4_t w0 = load_4(type, w), w1 = load_4(type, w + 4 * size);
    UNROLL for (int r = 0; r < nx; r++) {
        sum[r][0] = vfmaq_f32(sum[r][0], w0, vld1q_f32(x[r] + i));
        sum[r][1] = vfmaq_f32(sum[r][1], w1, vld1q_f32(x[r] + i + 4));
    }
}

TEMPLATE void float_row(uint32_t type, const uint8_t *w, int n_in, const char *prepared, size_t stride, const int nx,
                        float *out, size_t out_stride) {
    const size_t size = type == TYPE_F32 ? 4 : 2;
    const float *x[NX_MAX];
    float32x4_t sum[NX_MAX][2];
    UNROLL for (int r = 0; r < nx; r++) {
        x[r] = (const float *)(prepared + (size_t)r * stride);
        sum[r][0] = sum[r][1] = vdupq_n_f32(0);
    }
    int i = 0;
    for (; i + 8 <= n_in; i += 8, w += 8 * size) {
        add_8(type, w, size, x, i, nx, sum);
    }
    if (i < n_in) { /* the rest beside zeros, as the prepared row has them */
        uint8_t rest[8 * 4] = {0};
        memcpy(rest, w, (size_t)(n_in - i) * size);
        add_8(type, rest, size, x, i, nx, sum);
    }
    UNROLL for (int r = 0; r < nx; r++) {
        out[(size_t)r * out_stride] = vaddvq_f32(vaddq_f32(sum[r][0], sum[r][1]));
    }
}

#include "backend/cpu/matvec_rows.h"

const struct matvec_kernels matvec_neon = {matvec_prepared_bytes, matvec_prepare, multiply};
