/* Matvec kernels in portable C: the model of what the vector families compute, and the fallback. */
#include <math.h>
#include <string.h>

#include "backend/cpu/matvec_kernels.h"

/* Rounds n values to int8 with one scale; returns the scale. */
static float round_block(const float *x, int n, int8_t *q) {
    float max = 0;
    bool finite = true;
    for (int i = 0; i < n; i++) {
        max = fmaxf(max, fabsf(x[i]));
        finite = finite && isfinite(x[i]);
    }
    if (!finite || max < MATVEC_TINY) {
        memset(q, 0, (size_t)n);
        return finite ? 0.0f : NAN;
    }
    float inverse = 127.0f / max;
    for (int i = 0; i < n; i++) {
        q[i] = (int8_t)lrintf(x[i] * inverse);
    }
    return max / 127.0f;
}

static int sum_of(const int8_t *q, int n) {
    int sum = 0;
    for (int i = 0; i < n; i++) {
        sum += q[i];
    }
    return sum;
}

static void prepare_blocks(const float *x, int n_in, void *prepared, bool with_offset) {
    int8_t *q = prepared;
    float *d = (float *)((char *)prepared + n_in);
    int n_blocks = n_in / QK;
    size_t padded = matvec_padded_blocks(n_in);
    memset(d, 0, padded * sizeof(float) * (with_offset ? 2 : 1));
    for (int b = 0; b < n_blocks; b++) {
        d[b] = round_block(x + b * QK, QK, q + b * QK);
        if (with_offset) {
            d[padded + (size_t)b] = d[b] * (float)(-8 * sum_of(q + b * QK, QK));
        }
    }
}

static void prepare_super(const float *x, int n_in, void *prepared, int values_per_sum) {
    int8_t *q = prepared;
    int16_t *sums = (int16_t *)((char *)prepared + n_in);
    float *d = (float *)(sums + n_in / values_per_sum);
    for (int b = 0; b < n_in / QKK; b++) {
        d[b] = round_block(x + b * QKK, QKK, q + b * QKK);
    }
    for (int i = 0; i < n_in / values_per_sum; i++) {
        sums[i] = (int16_t)sum_of(q + i * values_per_sum, values_per_sum);
    }
}

void matvec_prepare(uint32_t type, const float *x, int n_in, void *prepared) {
    switch (type) {
    case TYPE_Q8_0: prepare_blocks(x, n_in, prepared, false); break;
    case TYPE_Q4_0: prepare_blocks(x, n_in, prepared, true); break;
    case TYPE_Q4_K:
    case TYPE_Q5_K: prepare_super(x, n_in, prepared, 32); break;
    case TYPE_Q6_K: prepare_super(x, n_in, prepared, 16); break;
    default: {
        size_t n = (size_t)n_in;
        memcpy(prepared, x, n * sizeof(float));
        memset((float *)prepared + n, 0, (((n + 15) & ~(size_t)15) - n) * sizeof(float));
    }
    }
}

static int dot_int8(const int8_t *a, const int8_t *b, int n) {
    int sum = 0;
    for (int i = 0; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

/* ---- one weight row times one prepared row ---- */

static float dot_q8_0(const void *row, int n_in, const void *prepared) {
    const struct block_q8_0 *w = row;
    struct partner_blocks x = matvec_partner_blocks(prepared, n_in);
    float sum = 0;
    for (int b = 0; b < n_in / QK; b++) {
        sum += f16_to_f32(w[b].d) * x.d[b] * (float)dot_int8(w[b].qs, x.q + b * QK, QK);
    }
    return sum;
}

static float dot_q4_0(const void *row, int n_in, const void *prepared) {
    const struct block_q4_0 *w = row;
    struct partner_blocks x = matvec_partner_blocks(prepared, n_in);
    float sum = 0;
    for (int b = 0; b < n_in / QK; b++) {
        int8_t q[QK];
        for (int i = 0; i < QK / 2; i++) {
            q[i] = (int8_t)((w[b].qs[i] & 15) - 8);
            q[i + QK / 2] = (int8_t)((w[b].qs[i] >> 4) - 8);
        }
        sum += f16_to_f32(w[b].d) * x.d[b] * (float)dot_int8(q, x.q + b * QK, QK);
    }
    return sum;
}

/* Σ scale (q·x) and Σ min (Σx) of one super-block of Q4_K or Q5_K; qh is NULL for Q4_K. */
static void dot_super_min(const uint8_t *scales, const uint8_t *qh, const uint8_t *qs, const int8_t *x,
                          const int16_t *sums, int *scaled, int *mins) {
    *scaled = *mins = 0;
    for (int j = 0; j < QKK / 32; j++) {
        const uint8_t *low = qs + j / 2 * 32;
        int8_t q[32];
        for (int i = 0; i < 32; i++) {
            int fifth = qh ? ((qh[i] >> j) & 1) << 4 : 0;
            q[i] = (int8_t)((j % 2 ? low[i] >> 4 : low[i] & 15) | fifth);
        }
        uint8_t scale, min;
        quant_scale_min(scales, j, &scale, &min);
        *scaled += scale * dot_int8(q, x + j * 32, 32);
        *mins += min * sums[j];
    }
}

static float dot_q4_k(const void *row, int n_in, const void *prepared) {
    const struct block_q4_k *w = row;
    struct partner_super x = matvec_partner_super(prepared, n_in, 32);
    float sum = 0;
    for (int b = 0; b < n_in / QKK; b++) {
        int scaled, mins;
        dot_super_min(w[b].scales, NULL, w[b].qs, x.q + b * QKK, x.sums + b * (QKK / 32), &scaled, &mins);
        sum += x.d[b] * (f16_to_f32(w[b].d) * (float)scaled - f16_to_f32(w[b].dmin) * (float)mins);
    }
    return sum;
}

static float dot_q5_k(const void *row, int n_in, const void *prepared) {
    const struct block_q5_k *w = row;
    struct partner_super x = matvec_partner_super(prepared, n_in, 32);
    float sum = 0;
    for (int b = 0; b < n_in / QKK; b++) {
        int scaled, mins;
        dot_super_min(w[b].scales, w[b].qh, w[b].qs, x.q + b * QKK, x.sums + b * (QKK / 32), &scaled, &mins);
        sum += x.d[b] * (f16_to_f32(w[b].d) * (float)scaled - f16_to_f32(w[b].dmin) * (float)mins);
    }
    return sum;
}

static float dot_q6_k(const void *row, int n_in, const void *prepared) {
    const struct block_q6_k *w = row;
    struct partner_super x = matvec_partner_super(prepared, n_in, 16);
    float sum = 0;
    for (int b = 0; b < n_in / QKK; b++) {
        int scaled = 0;
        for (int k = 0; k < QKK / 32; k++) { /* 32 values: half k / 4, quarter k % 4 of the half */
            const uint8_t *low = w[b].ql + k / 4 * 64 + k % 2 * 32, *high = w[b].qh + k / 4 * 32;
            int8_t q[32];
            for (int i = 0; i < 32; i++) {
                int nibble = k % 4 < 2 ? low[i] & 15 : low[i] >> 4;
                q[i] = (int8_t)((nibble | ((high[i] >> (2 * (k % 4))) & 3) << 4) - 32);
            }
            const int8_t *xq = x.q + b * QKK + k * 32;
            scaled += w[b].scales[2 * k] * dot_int8(q, xq, 16) + w[b].scales[2 * k + 1] * dot_int8(q + 16, xq + 16, 16);
        }
        sum += f16_to_f32(w[b].d) * x.d[b] * (float)scaled;
    }
    return sum;
}

/* Float rows are summed in 16 interleaved parts, so that compilers may use vectors and long rows lose little. */
#define FLOAT_DOT(name, stored, convert)                                                                               \
    static float name(const void *row, int n_in, const void *prepared) {                                               \
        const stored *w = row;                                                                                         \
        const float *x = prepared;                                                                                     \
        float part[16] = {0};                                                                                          \
        int i = 0;                                                                                                     \
        for (; i + 16 <= n_in; i += 16) {                                                                              \
            for (int j = 0; j < 16; j++) {                                                                             \
                part[j] += convert(w[i + j]) * x[i + j];                                                               \
            }                                                                                                          \
        }                                                                                                              \
        for (; i < n_in; i++) {                                                                                        \
            part[i % 16] += convert(w[i]) * x[i];                                                                      \
        }                                                                                                              \
        float sum = 0;                                                                                                 \
        for (int j = 0; j < 16; j++) {                                                                                 \
            sum += part[j];                                                                                            \
        }                                                                                                              \
        return sum;                                                                                                    \
    }

FLOAT_DOT(dot_f32, float, )
FLOAT_DOT(dot_f16, uint16_t, f16_to_f32)
FLOAT_DOT(dot_bf16, uint16_t, bf16_to_f32)

static void multiply(uint32_t type, const void *w, int n_in, int row_begin, int row_end, const void *prepared, int n_x,
                     float *out, int out_stride) {
    float (*dot)(const void *row, int n_in, const void *prepared);
    switch (type) {
    case TYPE_Q8_0: dot = dot_q8_0; break;
    case TYPE_Q4_0: dot = dot_q4_0; break;
    case TYPE_Q4_K: dot = dot_q4_k; break;
    case TYPE_Q5_K: dot = dot_q5_k; break;
    case TYPE_Q6_K: dot = dot_q6_k; break;
    case TYPE_F16: dot = dot_f16; break;
    case TYPE_BF16: dot = dot_bf16; break;
    default: dot = dot_f32; break;
    }
    size_t row_bytes = quant_row_bytes(type, n_in), stride = matvec_prepared_bytes(type, n_in);
    for (int i = row_begin; i < row_end; i++) {
        const char *row = (const char *)w + (size_t)i * row_bytes;
        for (int r = 0; r < n_x; r++) {
            out[(size_t)r * (size_t)out_stride + (size_t)(i - row_begin)] =
                dot(row, n_in, (const char *)prepared + (size_t)r * stride);
        }
    }
}

const struct matvec_kernels matvec_scalar = {matvec_prepared_bytes, matvec_prepare, multiply};
