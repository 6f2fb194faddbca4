/* Block formats of GGUF tensors: sizes, names, and the plain decoder every fast kernel is measured against. */
#include "model/quant.h"

#include <math.h>
#include <string.h>

#include "model/quant_internal.h"

/* Indexed by type id; the dead ids (4, 5, 31-33, 36-38) have no name. */
static const char *const type_names[] = {
    [0] = "F32",     [1] = "F16",    [2] = "Q4_0",     [3] = "Q4_1",    [6] = "Q5_0",     [7] = "Q5_1",
    [8] = "Q8_0",    [9] = "Q8_1",   [10] = "Q2_K",    [11] = "Q3_K",   [12] = "Q4_K",    [13] = "Q5_K",
    [14] = "Q6_K",   [15] = "Q8_K",  [16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S",
    [20] = "IQ4_NL", [21] = "IQ3_S", [22] = "IQ2_S",   [23] = "IQ4_XS", [24] = "I8",      [25] = "I16",
    [26] = "I32",    [27] = "I64",   [28] = "F64",     [29] = "IQ1_M",  [30] = "BF16",    [34] = "TQ1_0",
    [35] = "TQ2_0",  [39] = "MXFP4", [40] = "NVFP4",   [41] = "Q1_0",   [42] = "Q2_0",
};

const char *quant_type_name(uint32_t type) {
    return type < sizeof type_names / sizeof *type_names ? type_names[type] : NULL;
}

bool quant_type_supported(uint32_t type) {
    return quant_block_values(type) != 0;
}

int quant_block_values(uint32_t type) {
    switch (type) {
    case TYPE_F32:
    case TYPE_F16:
    case TYPE_BF16: return 1;
    case TYPE_Q8_0:
    case TYPE_Q4_0: return QK;
    case TYPE_Q4_K:
    case TYPE_Q5_K:
    case TYPE_Q6_K: return QKK;
    default: return 0;
    }
}

size_t quant_block_bytes(uint32_t type) {
    switch (type) {
    case TYPE_F32: return sizeof(float);
    case TYPE_F16:
    case TYPE_BF16: return sizeof(uint16_t);
    case TYPE_Q8_0: return sizeof(struct block_q8_0);
    case TYPE_Q4_0: return sizeof(struct block_q4_0);
    case TYPE_Q4_K: return sizeof(struct block_q4_k);
    case TYPE_Q5_K: return sizeof(struct block_q5_k);
    case TYPE_Q6_K: return sizeof(struct block_q6_k);
    default: return 0;
    }
}

size_t quant_row_bytes(uint32_t type, int64_t n) {
    const int values = quant_block_values(type);
    return values ? (size_t)(n / values) * quant_block_bytes(type) : 0;
}

/* ---- 16-bit floats ---- */

static uint32_t float_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static float bits_float(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Without branches, so that loops over it become vectors. */
float f16_to_f32(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h & 0x7C00, rest = (uint32_t)(h & 0x7FFF) << 13;
    const uint32_t normal = rest + (112u << 23), infinite = rest | 0x7F800000;
    /* zero or subnormal, mantissa · 2^-24: added to 2^-14 its bits have their place, the difference is exact */
    const uint32_t small = float_bits(bits_float(rest + (113u << 23)) - bits_float(113u << 23));
    const uint32_t is_infinite = 0u - (exponent == 0x7C00), is_small = 0u - (exponent == 0);
    return bits_float(sign | (infinite & is_infinite) | (small & is_small) | (normal & ~(is_infinite | is_small)));
}

uint16_t f32_to_f16(float f) {
    const uint32_t bits = float_bits(f), magnitude = bits & 0x7FFFFFFF;
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (magnitude > 0x7F800000) { /* NaN: keep the payload's top, which must not become that of an infinity */
        const uint16_t payload = magnitude >> 13 & 1023;
        return sign | 0x7C00 | (payload ? payload : 0x200);
    }
    if (magnitude >= 0x477FF000) { /* 65520, half way to the first value beyond the range, and above */
        return sign | 0x7C00;
    }
    if (magnitude < 0x38800000) { /* below 2^-14: a multiple of 2^-24, rounded by the adder (ties to even) */
        const float shifted = bits_float(magnitude) + 0.5f; /* 0.5 has a unit in the last place of 2^-24 */
        return sign | (uint16_t)(float_bits(shifted) - float_bits(0.5f));
    }
    const uint32_t odd = magnitude >> 13 & 1;
    return sign | (uint16_t)((magnitude - (112u << 23) + 0xFFF + odd) >> 13);
}

float bf16_to_f32(uint16_t h) {
    return bits_float((uint32_t)h << 16);
}

uint16_t f32_to_bf16(float f) {
    const uint32_t bits = float_bits(f);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) { /* NaN, as above */
        return (uint16_t)(bits >> 16 | (bits & 0x7F0000 ? 0 : 0x40));
    }
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* ---- decoding ---- */

static void decode_q8_0(const struct block_q8_0 *block, float *y) {
    const float d = f16_to_f32(block->d);
    for (int i = 0; i < QK; i++) {
        y[i] = d * (float)block->qs[i];
    }
}

static void decode_q4_0(const struct block_q4_0 *block, float *y) {
    const float d = f16_to_f32(block->d);
    for (int j = 0; j < QK / 2; j++) {
        y[j] = (float)((block->qs[j] & 15) - 8) * d;
        y[j + QK / 2] = (float)((block->qs[j] >> 4) - 8) * d;
    }
}

/* Four groups of 64 values: group g holds 32 low nibbles with scale 2g, then 32 high nibbles with scale 2g + 1. */
static void decode_q4_k(const struct block_q4_k *block, float *y) {
    const float d = f16_to_f32(block->d), dmin = f16_to_f32(block->dmin);
    for (int j = 0; j < 8; j++) {
        const uint8_t *qs = block->qs + 32 * (j / 2);
        const int shift = 4 * (j % 2);
        uint8_t sc, m;
        quant_scale_min(block->scales, j, &sc, &m);
        const float scale = d * (float)sc, min = dmin * (float)m;
        for (int l = 0; l < 32; l++) {
            y[32 * j + l] = scale * (float)(qs[l] >> shift & 15) - min;
        }
    }
}

/* As Q4_K; the fifth bit of value l of scale j is bit j of qh[l]. */
static void decode_q5_k(const struct block_q5_k *block, float *y) {
    const float d = f16_to_f32(block->d), dmin = f16_to_f32(block->dmin);
    for (int j = 0; j < 8; j++) {
        const uint8_t *qs = block->qs + 32 * (j / 2);
        const int shift = 4 * (j % 2);
        uint8_t sc, m;
        quant_scale_min(block->scales, j, &sc, &m);
        const float scale = d * (float)sc, min = dmin * (float)m;
        for (int l = 0; l < 32; l++) {
            const int q = (qs[l] >> shift & 15) + 16 * (block->qh[l] >> j & 1);
            y[32 * j + l] = scale * (float)q - min;
        }
    }
}

/* Two halves of 128 values, each four runs of 32: low nibbles of ql[0..31], of ql[32..63], then the high ones; the
 * two upper bits of run r at bits 2r of qh. A scale serves 16 values. */
static void decode_q6_k(const struct block_q6_k *block, float *y) {
    const float d = f16_to_f32(block->d);
    for (int half = 0; half < 2; half++) {
        for (int run = 0; run < 4; run++) {
            const uint8_t *ql = block->ql + 64 * half + 32 * (run % 2);
            const uint8_t *qh = block->qh + 32 * half;
            const int8_t *scales = block->scales + 8 * half + 2 * run;
            for (int l = 0; l < 32; l++) {
                const int q = (ql[l] >> 4 * (run / 2) & 15) | (qh[l] >> 2 * run & 3) << 4;
                y[128 * half + 32 * run + l] = d * (float)scales[l / 16] * (float)(q - 32);
            }
        }
    }
}

void quant_dequantize(uint32_t type, const void *src, float *dst, int64_t n) {
    switch (type) {
    case TYPE_F32: memcpy(dst, src, (size_t)n * sizeof *dst); break;
    case TYPE_F16:
        for (int64_t i = 0; i < n; i++) {
            dst[i] = f16_to_f32(((const uint16_t *)src)[i]);
        }
        break;
    case TYPE_BF16:
        for (int64_t i = 0; i < n; i++) {
            dst[i] = bf16_to_f32(((const uint16_t *)src)[i]);
        }
        break;
    case TYPE_Q8_0:
        for (int64_t i = 0; i < n / QK; i++) {
            decode_q8_0((const struct block_q8_0 *)src + i, dst + i * QK);
        }
        break;
    case TYPE_Q4_0:
        for (int64_t i = 0; i < n / QK; i++) {
            decode_q4_0((const struct block_q4_0 *)src + i, dst + i * QK);
        }
        break;
    case TYPE_Q4_K:
        for (int64_t i = 0; i < n / QKK; i++) {
            decode_q4_k((const struct block_q4_k *)src + i, dst + i * QKK);
        }
        break;
    case TYPE_Q5_K:
        for (int64_t i = 0; i < n / QKK; i++) {
            decode_q5_k((const struct block_q5_k *)src + i, dst + i * QKK);
        }
        break;
    case TYPE_Q6_K:
        for (int64_t i = 0; i < n / QKK; i++) {
            decode_q6_k((const struct block_q6_k *)src + i, dst + i * QKK);
        }
        break;
    default: break;
    }
}

/* ---- encoding ---- */

/* Casting a NaN or an out-of-range float to int is undefined; both occur when the input is not finite or so small that
 * 1/d overflows. */
static int clamped_int(float x, int low, int high) {
    if (!(x > (float)low)) {
        return isnan(x) ? 0 : low;
    }
    return x < (float)high ? (int)x : high;
}

static void encode_q8_0(const float *x, struct block_q8_0 *block) {
    float amax = 0;
    for (int i = 0; i < QK; i++) {
        amax = fmaxf(amax, fabsf(x[i]));
    }
    const float d = amax / 127.0f;
    const float inverse = d != 0 ? 1.0f / d : 0;
    block->d = f32_to_f16(d);
    for (int i = 0; i < QK; i++) {
        block->qs[i] = (int8_t)clamped_int(roundf(x[i] * inverse), -128, 127);
    }
}

/* The value of largest magnitude becomes exactly -8, whichever sign it has. */
static void encode_q4_0(const float *x, struct block_q4_0 *block) {
    float largest = 0;
    for (int i = 0; i < QK; i++) {
        if (fabsf(x[i]) > fabsf(largest)) {
            largest = x[i];
        }
    }
    const float d = largest / -8.0f;
    const float inverse = d != 0 ? 1.0f / d : 0;
    block->d = f32_to_f16(d);
    for (int j = 0; j < QK / 2; j++) {
        const int low = clamped_int(x[j] * inverse + 8.5f, 0, 15);
        const int high = clamped_int(x[j + QK / 2] * inverse + 8.5f, 0, 15);
        block->qs[j] = (uint8_t)(low | high << 4);
    }
}

bool quant_quantize(uint32_t type, const float *src, void *dst, int64_t n) {
    switch (type) {
    case TYPE_F32: memcpy(dst, src, (size_t)n * sizeof *src); return true;
    case TYPE_F16:
        for (int64_t i = 0; i < n; i++) {
            ((uint16_t *)dst)[i] = f32_to_f16(src[i]);
        }
        return true;
    case TYPE_BF16:
        for (int64_t i = 0; i < n; i++) {
            ((uint16_t *)dst)[i] = f32_to_bf16(src[i]);
        }
        return true;
    case TYPE_Q8_0:
        for (int64_t i = 0; i < n / QK; i++) {
            encode_q8_0(src + i * QK, (struct block_q8_0 *)dst + i);
        }
        return true;
    case TYPE_Q4_0:
        for (int64_t i = 0; i < n / QK; i++) {
            encode_q4_0(src + i * QK, (struct block_q4_0 *)dst + i);
        }
        return true;
    case TYPE_Q4_K:
        for (int64_t i = 0; i < n / QKK; i++) {
            quant_encode_q4_k(src + i * QKK, (struct block_q4_k *)dst + i);
        }
        return true;
    case TYPE_Q5_K:
        for (int64_t i = 0; i < n / QKK; i++) {
            quant_encode_q5_k(src + i * QKK, (struct block_q5_k *)dst + i);
        }
        return true;
    case TYPE_Q6_K:
        for (int64_t i = 0; i < n / QKK; i++) {
            quant_encode_q6_k(src + i * QKK, (struct block_q6_k *)dst + i);
        }
        return true;
    default: return false;
    }
}
