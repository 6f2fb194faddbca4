/*
 * Block formats: every decoder against blocks packed bit by bit here, straight from the formulas of the format, and
 * against golden blocks decoded by gguf-py; 16-bit floats exhaustively; the rounding rules of the quantisers.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/crc32.h"
#include "model/quant.h"

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static void assert_same(const float *got, const float *expected, int n) {
    for (int i = 0; i < n; i++) {
        if (bits_of(got[i]) != bits_of(expected[i])) {
            fail_msg("value %d: expected %.9g, got %.9g", i, (double)expected[i], (double)got[i]);
        }
    }
}

static uint32_t random_state = 12345;
static uint32_t random_u32(void) {
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

/* ---- names and sizes ---- */

static void names_and_sizes(void **state) {
    (void)state;
    const struct {
        uint32_t type;
        const char *name;
        int values;
        size_t bytes;
    } types[] = {{0, "F32", 1, 4},       {1, "F16", 1, 2},       {2, "Q4_0", 32, 18},    {8, "Q8_0", 32, 34},
                 {12, "Q4_K", 256, 144}, {13, "Q5_K", 256, 176}, {14, "Q6_K", 256, 210}, {30, "BF16", 1, 2}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        assert_string_equal(quant_type_name(types[i].type), types[i].name);
        assert_true(quant_type_supported(types[i].type));
        assert_int_equal(quant_block_values(types[i].type), types[i].values);
        assert_int_equal(quant_block_bytes(types[i].type), types[i].bytes);
        assert_int_equal(quant_row_bytes(types[i].type, 512), 512 / types[i].values * types[i].bytes);
    }
    const struct {
        uint32_t type;
        const char *name;
    } others[] = {{3, "Q4_1"},    {6, "Q5_0"}, {10, "Q2_K"}, {11, "Q3_K"},  {15, "Q8_K"},  {16, "IQ2_XXS"},
                  {23, "IQ4_XS"}, {24, "I8"},  {28, "F64"},  {34, "TQ1_0"}, {39, "MXFP4"}, {42, "Q2_0"}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_string_equal(quant_type_name(others[i].type), others[i].name);
        assert_false(quant_type_supported(others[i].type));
        assert_int_equal(quant_block_values(others[i].type), 0);
        assert_int_equal(quant_block_bytes(others[i].type), 0);
    }
    const uint32_t unknown[] = {4, 5, 31, 32, 33, 36, 37, 38, 43, 97, 1u << 31, UINT32_MAX};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        assert_null(quant_type_name(unknown[i]));
        assert_false(quant_type_supported(unknown[i]));
    }
}

/* ---- 16-bit floats ---- */

/* The value of a half by its definition, in double. */
static double half_value(uint16_t h) {
    const int exponent = h >> 10 & 31, mantissa = h & 1023;
    const double magnitude = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return h & 0x8000 ? -magnitude : magnitude;
}

static void every_half(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        const float f = f16_to_f32((uint16_t)h);
        if ((h & 0x7C00) == 0x7C00) {
            assert_true((h & 1023) ? isnan(f) : isinf(f));
            assert_int_equal(signbit(f) != 0, h >> 15);
        } else {
            assert_true((double)f == half_value((uint16_t)h));
            assert_int_equal(signbit(f) != 0, h >> 15);
        }
        assert_int_equal(f32_to_f16(f), h); /* payloads of NaNs too */
    }
}

static void half_rounding(void **state) {
    (void)state;
    /* Between each pair of neighbours: the exact middle goes to the even one, a hair off goes to the nearer one. */
    for (uint32_t h = 0; h < 0x7BFF; h++) {
        const float low = f16_to_f32((uint16_t)h), high = f16_to_f32((uint16_t)(h + 1));
        const float middle = (float)(((double)low + (double)high) / 2);
        assert_int_equal(f32_to_f16(middle), h % 2 ? h + 1 : h);
        assert_int_equal(f32_to_f16(nextafterf(middle, 0.0f)), h);
        assert_int_equal(f32_to_f16(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(f32_to_f16(-middle), 0x8000 | (h % 2 ? h + 1 : h));
    }
    assert_int_equal(f32_to_f16(65504.0f), 0x7BFF);
    assert_int_equal(f32_to_f16(65519.996f), 0x7BFF);
    assert_int_equal(f32_to_f16(65520.0f), 0x7C00);
    assert_int_equal(f32_to_f16(1e30f), 0x7C00);
    assert_int_equal(f32_to_f16(-INFINITY), 0xFC00);
    assert_int_equal(f32_to_f16(0x1p-25f), 0);   /* tie between 0 and the least subnormal: even */
    assert_int_equal(f32_to_f16(0x1.8p-24f), 2); /* tie between 1 and 2 units */
    assert_int_equal(f32_to_f16(0x1p-149f), 0);
    assert_int_equal(f32_to_f16(-0.0f), 0x8000);
    assert_int_equal(f32_to_f16(float_of(0x7F800001)) & 0x7C00, 0x7C00);
    assert_true(f32_to_f16(float_of(0x7F800001)) & 1023); /* a NaN stays one though its payload is cut */
}

static void bfloat(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        const float f = bf16_to_f32((uint16_t)h);
        assert_int_equal(bits_of(f), h << 16);
        assert_int_equal(f32_to_bf16(f), h);
    }
    assert_int_equal(f32_to_bf16(1.0f), 0x3F80);
    assert_int_equal(f32_to_bf16(float_of(0x3F808000)), 0x3F80); /* ties to even */
    assert_int_equal(f32_to_bf16(float_of(0x3F818000)), 0x3F82);
    assert_int_equal(f32_to_bf16(float_of(0x3F808001)), 0x3F81);
    assert_int_equal(f32_to_bf16(float_of(0x3F80FFFF)), 0x3F81);
    assert_int_equal(f32_to_bf16(float_of(0x7F7FFFFF)), 0x7F80); /* rounds to infinity */
    assert_int_equal(f32_to_bf16(-INFINITY), 0xFF80);
    assert_int_equal(f32_to_bf16(float_of(0x7F800001)), 0x7FC0); /* NaN with a payload that is cut */
    assert_int_equal(f32_to_bf16(float_of(0x00008000)), 0);      /* subnormal tie */
    assert_int_equal(f32_to_bf16(float_of(0x00018000)), 2);
}

static void decode_16_bit(void **state) {
    (void)state;
    const uint16_t halves[] = {0x3C00, 0xC000, 0x0001, 0x7C00}, bfloats[] = {0x3F80, 0xC000, 0x0001, 0x7F80};
    float y[4];
    quant_dequantize(TYPE_F16, halves, y, 4);
    assert_same(y, (const float[]){1.0f, -2.0f, 0x1p-24f, INFINITY}, 4);
    quant_dequantize(TYPE_BF16, bfloats, y, 4);
    assert_same(y, (const float[]){1.0f, -2.0f, 0x1p-133f, INFINITY}, 4);
    const float x[] = {1.0f, -2.0f, 0x1p-133f, INFINITY};
    uint16_t h[4];
    assert_true(quant_quantize(TYPE_BF16, x, h, 4));
    assert_memory_equal(h, bfloats, sizeof h);
    assert_true(quant_quantize(TYPE_F16, x, h, 4));
    assert_memory_equal(h, ((const uint16_t[]){0x3C00, 0xC000, 0, 0x7C00}), sizeof h);
    float copy[4];
    assert_true(quant_quantize(TYPE_F32, x, copy, 4));
    assert_same(copy, x, 4);
    quant_dequantize(TYPE_F32, x, y, 4);
    assert_same(y, x, 4);
}

/* ---- blocks of 32 ---- */

static void decode_q8_0_blocks(void **state) {
    (void)state;
    uint8_t file[2 * 34] = {0};
    float expected[64];
    file[0] = 0x00, file[1] = 0x38;   /* d = 0.5 */
    file[34] = 0x01, file[35] = 0x80; /* d = -2^-24 */
    for (int i = 0; i < 32; i++) {
        const int q = i == 31 ? -128 : 4 * i - 60;
        file[2 + i] = file[36 + i] = (uint8_t)q;
        expected[i] = (float)q / 2;
        expected[32 + i] = (float)q * -0x1p-24f;
    }
    float y[64];
    quant_dequantize(TYPE_Q8_0, file, y, 64);
    assert_same(y, expected, 64);
}

static void decode_q4_0_block(void **state) {
    (void)state;
    uint8_t file[18] = {0x00, 0x3E}; /* d = 1.5 */
    float expected[32];
    for (int j = 0; j < 16; j++) {
        file[2 + j] = (uint8_t)(j + 16 * (15 - j)); /* low nibble j is element j, high nibble 15-j element j+16 */
        expected[j] = 1.5f * (float)(j - 8);
        expected[j + 16] = 1.5f * (float)(7 - j);
    }
    float y[32];
    quant_dequantize(TYPE_Q4_0, file, y, 32);
    assert_same(y, expected, 32);
}

/* ---- super-blocks ---- */

/* The bit pattern of the packed six-bit pairs, by hand. */
static void scale_min_patterns(void **state) {
    (void)state;
    uint8_t sc, m;
    const uint8_t low[12] = {0x3F, 0, 0, 0, 0x15}; /* pair 0 */
    quant_scale_min(low, 0, &sc, &m);
    assert_int_equal(sc, 63);
    assert_int_equal(m, 21);
    quant_scale_min(low, 4, &sc, &m);
    assert_int_equal(sc, 0);
    assert_int_equal(m, 0);
    /* pair 7: sc = 0b10'1101 (top bits in s[3] 7..6, low in s[11] 3..0), m = 0b01'0110 (s[7] 7..6, s[11] 7..4) */
    const uint8_t high[12] = {[3] = 0x80, [7] = 0x40, [11] = 0x6D};
    quant_scale_min(high, 7, &sc, &m);
    assert_int_equal(sc, 45);
    assert_int_equal(m, 22);
    quant_scale_min(high, 3, &sc, &m);
    assert_int_equal(sc, 0);
    assert_int_equal(m, 0);
}

/* Writes eight pairs bit by bit: bit b of sc or m of pair j goes where the format keeps it. */
static void pack_scales(const int sc[8], const int m[8], uint8_t s[12]) {
    memset(s, 0, 12);
    for (int j = 0; j < 8; j++) {
        for (int b = 0; b < 6; b++) {
            int sc_byte, sc_bit, m_byte, m_bit;
            if (j < 4) {
                sc_byte = j, m_byte = j + 4, sc_bit = m_bit = b;
            } else if (b < 4) {
                sc_byte = m_byte = j + 4, sc_bit = b, m_bit = b + 4;
            } else {
                sc_byte = j - 4, m_byte = j, sc_bit = m_bit = b + 2;
            }
            s[sc_byte] |= (uint8_t)((sc[j] >> b & 1) << sc_bit);
            s[m_byte] |= (uint8_t)((m[j] >> b & 1) << m_bit);
        }
    }
}

static const uint16_t ds[] = {0x3C00, 0x2E66, 0x9C01, 0x0123, 0x0000}; /* 1, 0.1, negative, subnormal, 0 */

static void decode_q4_k_q5_k_blocks(void **state) {
    (void)state;
    for (int round = 0; round < 500; round++) {
        const bool five = round % 2;
        int sc[8], m[8], q[256];
        uint8_t file[176] = {0};
        for (int j = 0; j < 8; j++) {
            sc[j] = (int)(random_u32() % 64);
            m[j] = (int)(random_u32() % 64);
        }
        const uint16_t d = ds[random_u32() % 5], dmin = ds[random_u32() % 5];
        file[0] = (uint8_t)d, file[1] = (uint8_t)(d >> 8), file[2] = (uint8_t)dmin, file[3] = (uint8_t)(dmin >> 8);
        pack_scales(sc, m, file + 4);
        uint8_t *qh = file + 16, *qs = five ? file + 48 : file + 16;
        for (int e = 0; e < 256; e++) {
            q[e] = (int)(random_u32() % (five ? 32 : 16));
            const int group = e / 64, in_group = e % 64, l = in_group % 32, upper = in_group >= 32;
            qs[32 * group + l] |= (uint8_t)((q[e] & 15) << (upper ? 4 : 0));
            if (five && q[e] >= 16) {
                qh[l] |= (uint8_t)(1 << (2 * group + upper));
            }
        }
        float y[256], expected[256];
        for (int e = 0; e < 256; e++) {
            /* every product of an 11-bit d with 6 bits is exact; the formula rounds twice after that */
            const float scale = (float)(half_value(d) * sc[e / 32]), min = (float)(half_value(dmin) * m[e / 32]);
            const volatile float product = (float)((double)scale * q[e]);
            expected[e] = product - min;
        }
        quant_dequantize(five ? TYPE_Q5_K : TYPE_Q4_K, file, y, 256);
        assert_same(y, expected, 256);
    }
}

static void decode_q6_k_blocks(void **state) {
    (void)state;
    for (int round = 0; round < 300; round++) {
        uint8_t file[210] = {0};
        int q[256], scale[16];
        for (int e = 0; e < 256; e++) {
            q[e] = (int)(random_u32() % 64);
            const int half = e / 128, run = e % 128 / 32, l = e % 32;
            for (int b = 0; b < 6; b++) {
                const int bit = q[e] >> b & 1;
                if (b < 4) { /* runs 0 and 2 share ql[0..31], runs 1 and 3 ql[32..63]; 2 and 3 in the high nibble */
                    file[64 * half + (run == 1 || run == 3 ? 32 : 0) + l] |= (uint8_t)(bit << (b + (run >= 2 ? 4 : 0)));
                } else {
                    file[128 + 32 * half + l] |= (uint8_t)(bit << (b - 4 + 2 * run));
                }
            }
        }
        for (int i = 0; i < 16; i++) {
            scale[i] = (int)(random_u32() % 256) - 128;
            file[192 + i] = (uint8_t)scale[i];
        }
        const uint16_t d = ds[round % 5];
        file[208] = (uint8_t)d, file[209] = (uint8_t)(d >> 8);
        float y[256], expected[256];
        for (int e = 0; e < 256; e++) {
            const float product = (float)(half_value(d) * scale[e / 16]); /* exact */
            expected[e] = product * (float)(q[e] - 32);
        }
        quant_dequantize(TYPE_Q6_K, file, y, 256);
        assert_same(y, expected, 256);
    }
}

/* Two blocks of each type from random bytes, decoded by gguf-py: tests/golden/quant_blocks.py. */
static void golden_blocks(void **state) {
    (void)state;
    FILE *f = fopen(TEST_GOLDEN "/quant_blocks.bin", "rb");
    assert_non_null(f);
    const uint32_t types[] = {TYPE_Q4_0, TYPE_Q8_0, TYPE_Q4_K, TYPE_Q5_K, TYPE_Q6_K};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const int n = 2 * quant_block_values(types[i]);
        uint8_t blocks[2 * 210];
        float expected[512], y[512];
        assert_int_equal(fread(blocks, 1, quant_row_bytes(types[i], n), f), quant_row_bytes(types[i], n));
        assert_int_equal(fread(expected, sizeof(float), (size_t)n, f), n);
        quant_dequantize(types[i], blocks, y, n);
        assert_same(y, expected, n);
    }
    assert_int_equal(fgetc(f), EOF);
    fclose(f);
}

/* ---- quantisers ---- */

static void quantize_q8_0(void **state) {
    (void)state;
    float x[32] = {0};
    x[0] = 127.0f; /* d = 1 */
    x[1] = 0.5f, x[2] = -0.5f, x[3] = 1.5f, x[4] = 2.5f, x[5] = -2.5f, x[6] = 0.49999997f, x[7] = -127.0f;
    const int8_t expected[8] = {127, 1, -1, 2, 3, -3, 0, -127}; /* halves away from zero */
    struct block_q8_0 block;
    assert_true(quant_quantize(TYPE_Q8_0, x, &block, 32));
    assert_int_equal(block.d, 0x3C00);
    assert_memory_equal(block.qs, expected, 8);
    for (int i = 8; i < 32; i++) {
        assert_int_equal(block.qs[i], 0);
    }
    /* The codes are those of the unrounded d, not of its half-precision copy. */
    for (int i = 0; i < 32; i++) {
        x[i] = 0.1f * (float)(i - 16);
    }
    assert_true(quant_quantize(TYPE_Q8_0, x, &block, 32));
    assert_int_equal(block.d, f32_to_f16(1.6f / 127.0f));
    for (int i = 0; i < 32; i++) {
        assert_int_equal(block.qs[i], (int)round((double)x[i] / (1.6 / 127.0)));
    }
}

static void quantize_q4_0(void **state) {
    (void)state;
    float x[32] = {0};
    x[3] = -8.0f; /* the largest is negative: d = 1, code 0 */
    x[4] = 7.0f, x[5] = 7.5f, x[16] = 0.5f, x[17] = -0.5f, x[18] = 0.49f, x[31] = -7.5f;
    struct block_q4_0 block;
    assert_true(quant_quantize(TYPE_Q4_0, x, &block, 32));
    assert_int_equal(block.d, 0x3C00);
    assert_int_equal(block.qs[3] & 15, 0);
    assert_int_equal(block.qs[4] & 15, 15);
    assert_int_equal(block.qs[5] & 15, 15); /* 16 does not fit */
    assert_int_equal(block.qs[0] >> 4, 9);  /* int(0.5 + 8.5) */
    assert_int_equal(block.qs[1] >> 4, 8);  /* int(-0.5 + 8.5) */
    assert_int_equal(block.qs[2] >> 4, 8);  /* int(0.49 + 8.5) */
    assert_int_equal(block.qs[15] >> 4, 1); /* int(-7.5 + 8.5) */
    assert_int_equal(block.qs[0] & 15, 8);
    /* A positive largest value makes d negative. */
    x[3] = 8.0f;
    assert_true(quant_quantize(TYPE_Q4_0, x, &block, 32));
    assert_int_equal(block.d, 0xBC00);
    assert_int_equal(block.qs[3] & 15, 0);
    assert_int_equal(block.qs[4] & 15, 1); /* int(-7 + 8.5) */
}

/* Zeros, tiny, huge and non-finite input give some block and never undefined behaviour (run under the sanitizer). */
static void quantize_extremes(void **state) {
    (void)state;
    const float values[] = {0.0f, -0.0f, 1e-45f, 1e-40f, 1e38f, -3.4e38f, INFINITY, -INFINITY, NAN};
    for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
        float x[32], y[32];
        for (int i = 0; i < 32; i++) {
            x[i] = i % 3 ? values[v] : (float)i;
        }
        struct block_q8_0 q8;
        struct block_q4_0 q4;
        assert_true(quant_quantize(TYPE_Q8_0, x, &q8, 32));
        assert_true(quant_quantize(TYPE_Q4_0, x, &q4, 32));
        for (int i = 0; i < 32; i++) {
            x[i] = values[v];
        }
        assert_true(quant_quantize(TYPE_Q8_0, x, &q8, 32));
        assert_true(quant_quantize(TYPE_Q4_0, x, &q4, 32));
        if (values[v] == 0) {
            quant_dequantize(TYPE_Q8_0, &q8, y, 32);
            assert_same(y, (const float[32]){0}, 32);
        }
    }
    static const uint32_t k_types[] = {TYPE_Q4_K, TYPE_Q5_K, TYPE_Q6_K};
    for (size_t t = 0; t < 3; t++) {
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            float x[QKK], y[QKK];
            uint8_t block[sizeof(struct block_q6_k)];
            for (int i = 0; i < QKK; i++) {
                x[i] = i % 3 || i >= 128 ? values[v] : (float)i;
            }
            assert_true(quant_quantize(k_types[t], x, block, QKK));
            quant_dequantize(k_types[t], block, y, QKK);
            if (values[v] == 0) {
                for (int i = 128; i < QKK; i++) {
                    assert_true(y[i] == 0);
                }
            }
        }
    }
    assert_false(quant_quantize(99, NULL, NULL, 0));
}

/* Values that exercise the search: scales over many magnitudes, one-sided groups, outliers, zero groups. */
static void k_block_input(uint64_t *seed, int block, float x[QKK]) {
    const float scale = ldexpf(1.0f, block % 17 - 12);
    for (int i = 0; i < QKK; i++) {
        float sum = 0;
        for (int k = 0; k < 4; k++) {
            *seed = *seed * 6364136223846793005u + 1442695040888963407u;
            sum += (float)(*seed >> 40) / 16777216.0f - 0.5f;
        }
        x[i] = scale * (block % 7 == 0 ? fabsf(sum) : sum);
        x[i] *= block % 11 == 0 && i % 32 < 3 ? 10.0f : 1.0f;
        x[i] *= block % 13 == 0 && i < 64 ? 0.0f : 1.0f;
    }
}

/* Checksums (tests/golden/quant_k_reference.c) of what ggml's quantize_row_q4_K_ref, _q5_K_ref and _q6_K_ref (llama.cpp
 * of llama-cpp-python 0.3.36) make of the same input, compiled without contraction: ours are the same bits. And the
 * error is as it should be. */
static void k_types_round_as_ggml_does(void **state) {
    (void)state;
    static const struct {
        uint32_t type, crc;
        double bound; /* of the error, relative */
    } cases[] = {{TYPE_Q4_K, 0x57964764u, 0.091}, {TYPE_Q5_K, 0x8a7a0cbfu, 0.047}, {TYPE_Q6_K, 0x25ac6f14u, 0.025}};
    for (size_t t = 0; t < 3; t++) {
        uint64_t seed = 1;
        uint32_t crc = 0;
        double error = 0, norm = 0;
        for (int b = 0; b < 500; b++) {
            float x[QKK], y[QKK];
            uint8_t block[sizeof(struct block_q6_k)];
            k_block_input(&seed, b, x);
            assert_true(quant_quantize(cases[t].type, x, block, QKK));
            crc = crc32_update(crc, block, quant_block_bytes(cases[t].type));
            quant_dequantize(cases[t].type, block, y, QKK);
            const double scale = ldexp(1.0, b % 17 - 12);
            for (int i = 0; i < QKK; i++) {
                error += (double)(x[i] - y[i]) * (x[i] - y[i]) / scale / scale;
                norm += (double)x[i] * x[i] / scale / scale;
            }
        }
        print_message("%s: relative error %.4f\n", quant_type_name(cases[t].type), sqrt(error / norm));
        assert_int_equal(crc, cases[t].crc);
        assert_true(sqrt(error / norm) < cases[t].bound);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_sizes),
        cmocka_unit_test(every_half),
        cmocka_unit_test(half_rounding),
        cmocka_unit_test(bfloat),
        cmocka_unit_test(decode_16_bit),
        cmocka_unit_test(decode_q8_0_blocks),
        cmocka_unit_test(decode_q4_0_block),
        cmocka_unit_test(scale_min_patterns),
        cmocka_unit_test(decode_q4_k_q5_k_blocks),
        cmocka_unit_test(decode_q6_k_blocks),
        cmocka_unit_test(golden_blocks),
        cmocka_unit_test(quantize_q8_0),
        cmocka_unit_test(quantize_q4_0),
        cmocka_unit_test(quantize_extremes),
        cmocka_unit_test(k_types_round_as_ggml_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
