/*
 * Block formats of GGUF tensors and their reference decoder.
 *
 * Layouts and formulas follow the ggml format definitions; sizes are closed by static assertions because the
 * structs are laid over mapped file bytes.
 */
#ifndef CANDID_MODEL_QUANT_H
#define CANDID_MODEL_QUANT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The numeric values are those of GGUF files. */
enum quant_type {
    TYPE_F32 = 0,
    TYPE_F16 = 1,
    TYPE_Q4_0 = 2,
    TYPE_Q8_0 = 8,
    TYPE_Q4_K = 12,
    TYPE_Q5_K = 13,
    TYPE_Q6_K = 14,
    TYPE_BF16 = 30,
};

#define QK  32  /* values in a block of Q8_0 and Q4_0 */
#define QKK 256 /* values in a super-block of the K types */

/* y[i] = d * qs[i] */
struct block_q8_0 {
    uint16_t d; /* f16 */
    int8_t qs[QK];
};
/* y[j] = d * ((qs[j] & 15) - 8),  y[j + 16] = d * ((qs[j] >> 4) - 8) */
struct block_q4_0 {
    uint16_t d; /* f16 */
    uint8_t qs[QK / 2];
};
/* y = d * sc * q - dmin * m with 8 six-bit (sc, m) pairs, see quant_scale_min */
struct block_q4_k {
    uint16_t d, dmin; /* f16 */
    uint8_t scales[12];
    uint8_t qs[QKK / 2];
};
/* as Q4_K, the fifth bit of each value in qh */
struct block_q5_k {
    uint16_t d, dmin; /* f16 */
    uint8_t scales[12];
    uint8_t qh[QKK / 8];
    uint8_t qs[QKK / 2];
};
/* y = d * scales[i / 16] * (q - 32), q of 4 low bits in ql and 2 high bits in qh */
struct block_q6_k {
    uint8_t ql[QKK / 2];
    uint8_t qh[QKK / 4];
    int8_t scales[QKK / 16];
    uint16_t d; /* f16 */
};

static_assert(sizeof(struct block_q8_0) == 34, "Q8_0 block is 34 bytes");
static_assert(sizeof(struct block_q4_0) == 18, "Q4_0 block is 18 bytes");
static_assert(sizeof(struct block_q4_k) == 144, "Q4_K block is 144 bytes");
static_assert(sizeof(struct block_q5_k) == 176, "Q5_K block is 176 bytes");
static_assert(sizeof(struct block_q6_k) == 210, "Q6_K block is 210 bytes");

/* Name ("Q4_K") of any type id GGUF files are known to use, supported here or not; NULL for an unknown id. */
const char *quant_type_name(uint32_t type);

/* Whether candid can run tensors of this type. */
bool quant_type_supported(uint32_t type);

/* Values and bytes per block; 0 for unsupported types. */
int quant_block_values(uint32_t type);
size_t quant_block_bytes(uint32_t type);

/* Bytes of one row of n values; n must be a multiple of quant_block_values. */
size_t quant_row_bytes(uint32_t type, int64_t n);

/* Decodes n values (a multiple of the block size) at src to f32. Exactly the format's reference formula. */
void quant_dequantize(uint32_t type, const void *src, float *dst, int64_t n);

/* Rounds n values (a multiple of the block size) to the type's blocks at dst, by the format's reference rounding (the K
 * types: ggml's search for scales, see quant_k.c). Returns false for unsupported types. */
bool quant_quantize(uint32_t type, const float *src, void *dst, int64_t n);

/* Unpacks scale and minimum j (0..7) of a Q4_K or Q5_K super-block. */
static inline void quant_scale_min(const uint8_t s[12], int j, uint8_t *scale, uint8_t *min) {
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (uint8_t)((s[j + 4] & 15) | ((s[j - 4] >> 6) << 4));
        *min = (uint8_t)((s[j + 4] >> 4) | ((s[j] >> 6) << 4));
    }
}

/* IEEE half and bfloat16 conversions, round to nearest even, NaN and infinities kept. */
float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f);
float bf16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f);

#endif
