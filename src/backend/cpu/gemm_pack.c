/* Packing of activations and weights to the integer layouts of gemm_internal.h, portable C. */
#include <math.h>
#include <string.h>

#include "backend/cpu/gemm_internal.h"

enum gemm_format gemm_format_of(uint32_t type) {
    switch (type) {
    case TYPE_Q4_0:
    case TYPE_Q4_K: return GEMM_U4;
    case TYPE_Q5_K: return GEMM_U5;
    case TYPE_Q6_K: return GEMM_U6;
    default: return GEMM_S16;
    }
}

static void put_float(uint8_t *p, float v) {
    memcpy(p, &v, sizeof v);
}

static void put_i16_pair(uint8_t *p, int first, int second) {
    const int16_t pair[2] = {(int16_t)first, (int16_t)second};
    memcpy(p, pair, sizeof pair);
}

static float max_magnitude(const float *x, int n) {
    float amax = 0;
    for (int i = 0; i < n; i++) {
        const float v = fabsf(x[i]);
        amax = v > amax || v != v ? v : amax; /* keeps a NaN: nothing compares greater */
    }
    return amax;
}

/* ---- activations ---- */

/* The scale of a block must be the unit d times an integer; rounding it up keeps every q within +-127. */
void gemm_pack_s8_portable(const float *x, size_t x_stride, int r, int n_in, void *tile) {
    const int n_blocks = gemm_blocks(GEMM_U4, n_in);
    uint8_t *header = tile;
    for (int i = 0; i < r; i++) {
        const float *row = x + (size_t)i * x_stride;
        const float row_max = max_magnitude(row, n_in);
        const bool finite = row_max <= GEMM_HUGE;
        const float d = row_max / (127.0f * GEMM_S8_SCALE);
        const float inverse_d = row_max < GEMM_TINY ? 0.0f : 127.0f * GEMM_S8_SCALE / row_max;
        put_float(header + 4 * i, finite ? d : NAN); /* an infinity or NaN makes the whole output row NaN */
        for (int n = 0; n < n_blocks; n++) {
            uint8_t *block = header + 4 * r + (size_t)n * 56 * (size_t)r;
            const int left = n_in - n * GEMM_S8_BLOCK, count = left < GEMM_S8_BLOCK ? left : GEMM_S8_BLOCK;
            const float amax = max_magnitude(row + n * GEMM_S8_BLOCK, count);
            int e = 0;
            float inverse = 0;
            if (finite && amax * inverse_d > 0.0f) { /* not of denormals beside large values: the product is 0 */
                e = (int)ceilf(amax * inverse_d * (1.0f / 127.0f));
                e = e > GEMM_S8_SCALE ? GEMM_S8_SCALE : e;
                inverse = inverse_d / (float)e;
            }
            int sums[2][2] = {{0, 0}, {0, 0}}; /* [half of the block][lane] */
            for (int k = 0; k < GEMM_S8_BLOCK; k++) {
                int q = 0;
                if (k < count && inverse > 0.0f) {
                    q = (int)rintf(row[n * GEMM_S8_BLOCK + k] * inverse);
                    q = q > 127 ? 127 : q < -127 ? -127 : q;
                }
                sums[k / 16][k % 4 / 2] += q;
                block[((k / 4) * r + i) * 4 + k % 4] = (uint8_t)(int8_t)q;
            }
            const int lane[2] = {sums[0][0] + sums[1][0], sums[0][1] + sums[1][1]};
            put_i16_pair(block + 32 * r + 4 * i, e, e);
            put_float(block + 36 * r + 4 * i, (float)e);
            put_float(block + 40 * r + 4 * i, (float)(e * (lane[0] + lane[1])));
            put_i16_pair(block + 44 * r + 4 * i, -16 * lane[0], -16 * lane[1]);
            put_i16_pair(block + 48 * r + 4 * i, -32 * sums[0][0], -32 * sums[0][1]);
            put_i16_pair(block + 52 * r + 4 * i, -32 * sums[1][0], -32 * sums[1][1]);
        }
    }
}

/* Rounds 128 values to int16 as described in gemm_internal.h; returns the value of one unit. The sum of squares runs
 * over eight lanes so that vector code adds in the same order. */
static float round_s16(const float x[GEMM_S16_BLOCK], int16_t q[GEMM_S16_BLOCK]) {
    const float amax = max_magnitude(x, GEMM_S16_BLOCK);
    memset(q, 0, GEMM_S16_BLOCK * sizeof q[0]);
    if (amax < GEMM_TINY) {
        return 0.0f;
    }
    if (!(amax <= GEMM_HUGE)) {
        return NAN;
    }
    const float scale = amax < GEMM_SMALL || amax > GEMM_LARGE ? 1.0f / amax : 1.0f; /* squares stay in range */
    float lane[8] = {0};
    for (int k = 0; k < GEMM_S16_BLOCK; k++) {
        const float v = x[k] * scale;
        lane[k % 8] = fmaf(v, v, lane[k % 8]);
    }
    const float four[4] = {lane[0] + lane[4], lane[1] + lane[5], lane[2] + lane[6], lane[3] + lane[7]};
    const float norm = sqrtf((four[0] + four[2]) + (four[1] + four[3]));
    float top = GEMM_S16_NORM * (amax * scale) / norm;
    top = floorf(top < 32767.0f ? top : 32767.0f); /* the largest value itself is exact */
    const float inverse = top / amax;
    for (int k = 0; k < GEMM_S16_BLOCK; k++) {
        const float v = rintf(x[k] * inverse);
        q[k] = (int16_t)(v > 32767.0f ? 32767.0f : v < -32767.0f ? -32767.0f : v);
    }
    return amax / top;
}

void gemm_pack_s16_portable(const float *x, size_t x_stride, int r, int n_in, void *tile) {
    const int n_blocks = gemm_blocks(GEMM_S16, n_in);
    uint8_t *header = tile;
    for (int i = 0; i < r; i++) {
        put_float(header + 4 * i, 1.0f);
        for (int n = 0; n < n_blocks; n++) {
            uint8_t *block = header + 4 * r + (size_t)n * 260 * (size_t)r;
            const int left = n_in - n * GEMM_S16_BLOCK, count = left < GEMM_S16_BLOCK ? left : GEMM_S16_BLOCK;
            float values[GEMM_S16_BLOCK] = {0};
            int16_t q[GEMM_S16_BLOCK];
            memcpy(values, x + (size_t)i * x_stride + n * GEMM_S16_BLOCK, (size_t)count * sizeof values[0]);
            put_float(block + 256 * r + 4 * i, round_s16(values, q));
            for (int k = 0; k < GEMM_S16_BLOCK; k += 2) {
                memcpy(block + (k / 2 * r + i) * 4, q + k, 4);
            }
        }
    }
}

/* ---- weights ---- */

/* Values [begin, begin + 128) of a row, zeros beyond n_in. Super-blocks are decoded whole. */
static void decode_128(const struct gemm_weights *w, const uint8_t *row, int begin, float *values) {
    const int left = w->n_in - begin, count = left < GEMM_S16_BLOCK ? left : GEMM_S16_BLOCK;
    const int per_block = quant_block_values(w->type);
    memset(values, 0, GEMM_S16_BLOCK * sizeof values[0]);
    if (per_block == QKK) {
        float super[QKK];
        quant_dequantize(w->type, row + (size_t)(begin / QKK) * quant_block_bytes(w->type), super, QKK);
        memcpy(values, super + begin % QKK, GEMM_S16_BLOCK * sizeof values[0]);
    } else {
        quant_dequantize(w->type, row + (size_t)(begin / per_block) * quant_block_bytes(w->type), values, count);
    }
}

static void pack_weights_s16(const struct gemm_weights *w, int row, int n, int block, int n_blocks, uint8_t *panel) {
    for (int b = 0; b < n_blocks; b++, panel += gemm_panel_bytes(GEMM_S16)) {
        memset(panel, 0, gemm_panel_bytes(GEMM_S16));
        for (int c = 0; c < n; c++) {
            float values[GEMM_S16_BLOCK];
            int16_t q[GEMM_S16_BLOCK];
            decode_128(w, w->data + (size_t)(row + c) * w->row_bytes, (block + b) * GEMM_S16_BLOCK, values);
            put_float(panel + 4096 + 4 * c, round_s16(values, q));
            for (int k = 0; k < GEMM_S16_BLOCK; k += 2) {
                memcpy(panel + (k / 2 * GEMM_COLUMNS + c) * 4, q + k, 4);
            }
        }
    }
}

/* One block of 32 values: its unsigned integers, and the block's a and b (unless U6). */
static void decode_u4(uint32_t type, const uint8_t *row, int block, uint8_t q[32], float *a, float *b) {
    if (type == TYPE_Q4_0) {
        const struct block_q4_0 *s = (const struct block_q4_0 *)row + block;
        for (int k = 0; k < 16; k++) {
            q[k] = s->qs[k] & 15;
            q[k + 16] = s->qs[k] >> 4;
        }
        *a = f16_to_f32(s->d);
        *b = 8 * *a;
        return;
    }
    const struct block_q4_k *s = (const struct block_q4_k *)row + block / 8;
    const int j = block % 8;
    for (int k = 0; k < 32; k++) {
        const uint8_t v = s->qs[j / 2 * 32 + k];
        q[k] = j & 1 ? v >> 4 : v & 15;
    }
    uint8_t scale, min;
    quant_scale_min(s->scales, j, &scale, &min);
    *a = f16_to_f32(s->d) * scale;
    *b = f16_to_f32(s->dmin) * min;
}

static void decode_u5(const uint8_t *row, int block, uint8_t q[32], float *a, float *b) {
    const struct block_q5_k *s = (const struct block_q5_k *)row + block / 8;
    const int j = block % 8;
    for (int k = 0; k < 32; k++) {
        const uint8_t v = s->qs[j / 2 * 32 + k];
        q[k] = (uint8_t)((j & 1 ? v >> 4 : v & 15) | (s->qh[k] >> j & 1) << 4);
    }
    uint8_t scale, min;
    quant_scale_min(s->scales, j, &scale, &min);
    *a = f16_to_f32(s->d) * scale;
    *b = f16_to_f32(s->dmin) * min - 16 * *a;
}

static void decode_u6(const uint8_t *row, int block, uint8_t q[32], float *a, const int8_t **scales) {
    const struct block_q6_k *s = (const struct block_q6_k *)row + block / 8;
    const int half = block % 8 / 4, j = block % 4;
    for (int k = 0; k < 32; k++) {
        const uint8_t low = s->ql[half * 64 + (j & 1) * 32 + k], high = s->qh[half * 32 + k];
        q[k] = (uint8_t)((j & 2 ? low >> 4 : low & 15) | (high >> (2 * j) & 3) << 4);
    }
    *a = f16_to_f32(s->d);
    *scales = s->scales + block % 8 * 2;
}

void gemm_pack_weights_portable(enum gemm_format f, const struct gemm_weights *w, int row, int n, int block,
                                int n_blocks, void *panel) {
    if (f == GEMM_S16) {
        pack_weights_s16(w, row, n, block, n_blocks, panel);
        return;
    }
    const size_t bytes = gemm_panel_bytes(f);
    uint8_t *p = panel;
    for (int m = 0; m < n_blocks; m++, p += bytes) {
        memset(p, 0, bytes);
        for (int c = 0; c < n; c++) {
            const uint8_t *source = w->data + (size_t)(row + c) * w->row_bytes;
            uint8_t q[32];
            float a, b = 0;
            const int8_t *scales = NULL;
            if (f == GEMM_U4) {
                decode_u4(w->type, source, block + m, q, &a, &b);
            } else if (f == GEMM_U5) {
                decode_u5(source, block + m, q, &a, &b);
            } else {
                decode_u6(source, block + m, q, &a, &scales);
            }
            for (int k = 0; k < 32; k += 4) {
                memcpy(p + (k / 4 * GEMM_COLUMNS + c) * 4, q + k, 4);
            }
            put_float(p + 512 + 4 * c, a);
            if (scales) {
                put_i16_pair(p + 576 + 4 * c, scales[0], scales[0]);
                put_i16_pair(p + 640 + 4 * c, scales[1], scales[1]);
            } else {
                put_float(p + 576 + 4 * c, b);
            }
        }
    }
}
