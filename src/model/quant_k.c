/*
 * Rounding to the K types: Q4_K, Q5_K, Q6_K. The search for scales follows ggml's reference (make_qkx2_quants and
 * make_qx_quants in ggml-quants.c): a few candidate scales around the obvious one, each refitted by weighted least
 * squares, the one with the least error wins.
 */
#include <math.h>
#include <string.h>

#include "model/quant.h"
#include "model/quant_internal.h"

#define TINY 1e-15f /* a group below this is zero */

static int nearest(float x) {
    return (int)lrintf(x); /* half to even, as ggml's nearest_int */
}

static int clamp(int v, int low, int high) {
    return v < low ? low : v > high ? high : v;
}

/* ---- Q4_K, Q5_K: x = scale * l - minimum, l in 0..n_max ---- */

/* Weighted square error of the codes. */
static float code_error(int n, const float *x, const float *weight, const uint8_t *codes, float scale, float min) {
    float error = 0;
    for (int i = 0; i < n; i++) {
        const float d = scale * codes[i] + min - x[i];
        error += weight[i] * (d * d);
    }
    return error;
}

static void encode_group(int n, int n_max, const float *x, float inverse, float min, uint8_t *codes) {
    for (int i = 0; i < n; i++) {
        codes[i] = (uint8_t)clamp(nearest(inverse * (x[i] - min)), 0, n_max);
    }
}

/* Scale of 32 values; *minimum >= 0 is what is subtracted. Candidate inverse scales: (n_max + first + k/10) / range. */
static float fit_scale_min(int n_max, const float *x, const float *weight, float first, int n_steps, float *minimum) {
    enum { N = 32 };
    float low = x[0], high = x[0], sum_w = 0, sum_x = 0;
    for (int i = 0; i < N; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
        sum_w += weight[i];
        sum_x += weight[i] * x[i];
    }
    low = low > 0 ? 0 : low;
    *minimum = -low;
    if (high == low) {
        return 0;
    }
    uint8_t codes[N];
    float min = low, scale = 1 / ((float)n_max / (high - low));
    encode_group(N, n_max, x, (float)n_max / (high - low), min, codes);
    float best = code_error(N, x, weight, codes, scale, min);
    for (int step = 0; step <= n_steps; step++) {
        /* from the best minimum so far, as the reference does */
        encode_group(N, n_max, x, (first + 0.1f * (float)step + (float)n_max) / (high - min), min, codes);
        float sum_l = 0, sum_l2 = 0, sum_xl = 0;
        for (int i = 0; i < N; i++) {
            const float l = codes[i], w = weight[i];
            sum_l += w * l;
            sum_l2 += w * l * l;
            sum_xl += w * l * x[i];
        }
        const float determinant = sum_w * sum_l2 - sum_l * sum_l;
        if (determinant > 0) {
            float this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            float this_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
            if (this_min > 0) {
                this_min = 0;
                this_scale = sum_xl / sum_l2;
            }
            const float error = code_error(N, x, weight, codes, this_scale, this_min);
            if (error < best) {
                best = error;
                scale = this_scale;
                min = this_min;
            }
        }
    }
    *minimum = -min;
    return scale;
}

/* Eight scales and minima of six bits, and the two f16 factors that turn them into numbers. */
static void pack_scales(const float scales[8], const float mins[8], uint8_t packed[12], uint16_t *d, uint16_t *dmin) {
    float max_scale = 0, max_min = 0;
    for (int j = 0; j < 8; j++) {
        max_scale = scales[j] > max_scale ? scales[j] : max_scale; /* not fmaxf: it may answer -0 for 0 and -0 */
        max_min = mins[j] > max_min ? mins[j] : max_min;
    }
    const float inverse_scale = max_scale > 0 ? 63.0f / max_scale : 0, inverse_min = max_min > 0 ? 63.0f / max_min : 0;
    memset(packed, 0, 12);
    for (int j = 0; j < 8; j++) {
        const int s = clamp(nearest(inverse_scale * scales[j]), 0, 63),
                  m = clamp(nearest(inverse_min * mins[j]), 0, 63);
        if (j < 4) {
            packed[j] = (uint8_t)s;
            packed[j + 4] = (uint8_t)m;
        } else {
            packed[j + 4] = (uint8_t)((s & 15) | (m & 15) << 4);
            packed[j - 4] |= (uint8_t)((s >> 4) << 6);
            packed[j] |= (uint8_t)((m >> 4) << 6);
        }
    }
    *d = f32_to_f16(max_scale / 63.0f);
    *dmin = f32_to_f16(max_min / 63.0f);
}

/* The codes of a super-block under its rounded scales. */
static void encode_super(int n_max, const float *x, const uint8_t packed[12], uint16_t d, uint16_t dmin,
                         uint8_t codes[QKK]) {
    memset(codes, 0, QKK);
    for (int j = 0; j < 8; j++) {
        uint8_t s, m;
        quant_scale_min(packed, j, &s, &m);
        const float scale = f16_to_f32(d) * s, min = f16_to_f32(dmin) * m;
        for (int i = 32 * j; scale != 0 && i < 32 * (j + 1); i++) {
            codes[i] = (uint8_t)clamp(nearest((x[i] + min) / scale), 0, n_max);
        }
    }
}

static void encode_scale_min(int n_max, float first, int n_steps, const float *x, uint8_t packed[12], uint16_t *d,
                             uint16_t *dmin, uint8_t codes[QKK]) {
    float scales[8], mins[8];
    for (int j = 0; j < 8; j++) {
        const float *group = x + 32 * j;
        float weight[32], sum = 0;
        for (int i = 0; i < 32; i++) {
            sum += group[i] * group[i];
        }
        const float average = sqrtf(sum / 32);
        for (int i = 0; i < 32; i++) {
            weight[i] = average + fabsf(group[i]);
        }
        scales[j] = fit_scale_min(n_max, group, weight, first, n_steps, &mins[j]);
    }
    pack_scales(scales, mins, packed, d, dmin);
    encode_super(n_max, x, packed, *d, *dmin, codes);
}

void quant_encode_q4_k(const float *x, struct block_q4_k *block) {
    uint8_t codes[QKK];
    encode_scale_min(15, -1.0f, 20, x, block->scales, &block->d, &block->dmin, codes);
    for (int g = 0; g < 4; g++) {
        for (int l = 0; l < 32; l++) {
            block->qs[32 * g + l] = (uint8_t)(codes[64 * g + l] | codes[64 * g + 32 + l] << 4);
        }
    }
}

void quant_encode_q5_k(const float *x, struct block_q5_k *block) {
    uint8_t codes[QKK];
    encode_scale_min(31, -0.5f, 15, x, block->scales, &block->d, &block->dmin, codes);
    memset(block->qh, 0, sizeof block->qh);
    for (int g = 0; g < 4; g++) {
        for (int l = 0; l < 32; l++) {
            const int low = codes[64 * g + l], high = codes[64 * g + 32 + l];
            block->qs[32 * g + l] = (uint8_t)((low & 15) | (high & 15) << 4);
            block->qh[l] |= (uint8_t)((low >> 4) << (2 * g) | (high >> 4) << (2 * g + 1));
        }
    }
}

/* ---- Q6_K: x = scale * l, l in -32..31 ---- */

/* Scale of 16 values, each weighted by its square. */
static float fit_scale(const float *x) {
    enum { N = 16, MAX = 32 };
    float extreme = 0;
    for (int i = 0; i < N; i++) {
        extreme = fabsf(x[i]) > fabsf(extreme) ? x[i] : extreme;
    }
    if (fabsf(extreme) < TINY) {
        return 0;
    }
    float scale = 0, best = 0;
    for (int step = 0; step < 19; step++) { /* the obvious candidate first */
        const int is = step == 0 ? 0 : step <= 9 ? step - 10 : step - 9;
        const float inverse = -((float)MAX + 0.1f * (float)is) / extreme;
        float sum_lx = 0, sum_l2 = 0;
        for (int i = 0; i < N; i++) {
            const float l = (float)clamp(nearest(inverse * x[i]), -MAX, MAX - 1), w = x[i] * x[i];
            sum_lx += w * x[i] * l;
            sum_l2 += w * l * l;
        }
        if (step == 0 || (sum_l2 > 0 && sum_lx * sum_lx > best * sum_l2)) {
            scale = sum_l2 > 0 ? sum_lx / sum_l2 : 0;
            best = scale * sum_lx;
        }
    }
    return scale;
}

void quant_encode_q6_k(const float *x, struct block_q6_k *block) {
    float scales[QKK / 16], extreme = 0;
    for (int j = 0; j < QKK / 16; j++) {
        scales[j] = fit_scale(x + 16 * j);
        extreme = fabsf(scales[j]) > fabsf(extreme) ? scales[j] : extreme;
    }
    memset(block, 0, sizeof *block);
    if (fabsf(extreme) < TINY) {
        return;
    }
    const float inverse = -128.0f / extreme;
    block->d = f32_to_f16(1 / inverse);
    uint8_t codes[QKK];
    for (int j = 0; j < QKK / 16; j++) {
        block->scales[j] = (int8_t)clamp(nearest(inverse * scales[j]), -128, 127);
        const float scale = f16_to_f32(block->d) * block->scales[j];
        for (int i = 16 * j; i < 16 * (j + 1); i++) {
            codes[i] = (uint8_t)(scale != 0 ? 32 + clamp(nearest(x[i] / scale), -32, 31) : 0);
        }
    }
    for (int half = 0; half < 2; half++) {
        const uint8_t *c = codes + 128 * half;
        for (int l = 0; l < 32; l++) {
            block->ql[64 * half + l] = (uint8_t)((c[l] & 15) | (c[l + 64] & 15) << 4);
            block->ql[64 * half + 32 + l] = (uint8_t)((c[l + 32] & 15) | (c[l + 96] & 15) << 4);
            block->qh[32 * half + l] =
                (uint8_t)(c[l] >> 4 | (c[l + 32] >> 4) << 2 | (c[l + 64] >> 4) << 4 | (c[l + 96] >> 4) << 6);
        }
    }
}
