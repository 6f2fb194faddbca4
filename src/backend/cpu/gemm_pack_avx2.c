/* Packing of activations and weights to the integer layouts of gemm_internal.h, AVX2. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "backend/cpu/gemm_internal.h"

#define INLINE static inline __attribute__((always_inline))

INLINE float half_to_float(uint16_t h) {
    return _cvtsh_ss(h);
}

INLINE void put_float(uint8_t *p, float v) {
    memcpy(p, &v, sizeof v);
}

INLINE void put_i16_pair(uint8_t *p, int first, int second) {
    const uint32_t pair = (uint32_t)(first & 0xFFFF) | (uint32_t)second << 16;
    memcpy(p, &pair, sizeof pair);
}

INLINE void prefetch(const uint8_t *p) {
    _mm_prefetch((const char *)p, _MM_HINT_T0);
}

INLINE __m256 magnitude(__m256 v) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
}

/* Largest of eight magnitudes as integers: orders like the floats, with NaN above infinity, so a NaN is kept. */
INLINE float largest(__m256i v) {
    const __m128i a = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    const __m128i b = _mm_max_epi32(a, _mm_shuffle_epi32(a, 0x4E));
    const __m128i c = _mm_max_epi32(b, _mm_shuffle_epi32(b, 0xB1));
    return _mm_cvtss_f32(_mm_castsi128_ps(c));
}

INLINE __m256i max_magnitude(__m256i max, __m256 v) {
    return _mm256_max_epi32(max, _mm256_castps_si256(magnitude(v)));
}

/* Eight rows of eight 4-byte units to eight columns: after it, v[k] holds unit k of rows 0..7. */
INLINE void transpose(__m256i v[8]) {
    __m256i t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x20);
        v[i + 4] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x31);
    }
}

/* ---- activations ---- */

/* Four vectors of f32 to 32 int8 in order. */
INLINE __m256i round_32(const __m256 v[4], __m256 scale) {
    __m256i q[4];
    for (int i = 0; i < 4; i++) {
        q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], scale));
    }
    const __m256i low = _mm256_packs_epi32(q[0], q[1]), high = _mm256_packs_epi32(q[2], q[3]);
    const __m256i bytes = _mm256_max_epi8(_mm256_packs_epi16(low, high), _mm256_set1_epi8(-127));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* Sums of 32 int8 by half block and lane (lane 0: units' first two bytes, lane 1: last two). */
INLINE void lane_sums(__m256i q, int16_t sums[2][2]) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), q);
    const __m256i fours = _mm256_add_epi16(pairs, _mm256_shuffle_epi32(pairs, 0x4E));
    const __m256i all = _mm256_add_epi16(fours, _mm256_shuffle_epi32(fours, 0xB1));
    const int32_t halves[2] = {_mm256_cvtsi256_si32(all), _mm256_extract_epi32(all, 4)};
    memcpy(sums, halves, sizeof halves);
}

/* 32 values at x, of which the first count exist. */
INLINE void load_32(const float *x, int count, __m256 v[4]) {
    float buffer[32];
    if (count < 32) {
        memset(buffer, 0, sizeof buffer);
        memcpy(buffer, x, (size_t)count * sizeof *x);
        x = buffer;
    }
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(x + 8 * i);
    }
}

void gemm_pack_s8_avx2(const float *x, size_t x_stride, int r, int n_in, void *tile) {
    const int n_blocks = gemm_blocks(GEMM_U4, n_in);
    uint8_t *header = tile;
    for (int i = 0; i < r; i++) {
        const float *row = x + (size_t)i * x_stride;
        __m256i max = _mm256_setzero_si256();
        for (int n = 0; n < n_blocks; n++) {
            __m256 v[4];
            load_32(row + n * 32, n_in - n * 32, v);
            for (int k = 0; k < 4; k++) {
                max = max_magnitude(max, v[k]);
            }
        }
        const float row_max = largest(max);
        const bool finite = row_max <= GEMM_HUGE;
        const float inverse_d = row_max < GEMM_TINY ? 0.0f : 127.0f * GEMM_S8_SCALE / row_max;
        put_float(header + 4 * i, finite ? row_max / (127.0f * GEMM_S8_SCALE) : NAN);
        for (int n = 0; n < n_blocks; n++) {
            uint8_t *block = header + 4 * r + (size_t)n * 56 * (size_t)r;
            __m256 v[4];
            load_32(row + n * 32, n_in - n * 32, v);
            const __m256i m = max_magnitude(max_magnitude(_mm256_setzero_si256(), v[0]), v[1]);
            const float amax = largest(max_magnitude(max_magnitude(m, v[2]), v[3]));
            int e = 0;
            int16_t sums[2][2] = {{0, 0}, {0, 0}};
            __m256i q = _mm256_setzero_si256();
            if (finite && amax * inverse_d > 0.0f) { /* not of denormals beside large values: the product is 0 */
                e = (int)ceilf(amax * inverse_d * (1.0f / 127.0f));
                e = e > GEMM_S8_SCALE ? GEMM_S8_SCALE : e;
                q = round_32(v, _mm256_set1_ps(inverse_d / (float)e));
                lane_sums(q, sums);
            }
            uint32_t units[8];
            _mm256_storeu_si256((__m256i *)units, q);
            for (int k = 0; k < 8; k++) {
                memcpy(block + (k * r + i) * 4, units + k, 4);
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

/* Rounds 128 values to int16 in order (eight vectors of 16); returns the value of one unit. */
INLINE float round_s16(const __m256 v[16], __m256i q[8]) {
    __m256i max = _mm256_setzero_si256();
    for (int i = 0; i < 16; i++) {
        max = max_magnitude(max, v[i]);
    }
    const float amax = largest(max);
    if (amax < GEMM_TINY || !(amax <= GEMM_HUGE)) {
        for (int i = 0; i < 8; i++) {
            q[i] = _mm256_setzero_si256();
        }
        return amax < GEMM_TINY ? 0.0f : NAN;
    }
    float scale = 1.0f;
    __m256 squares = _mm256_setzero_ps();
    if (amax < GEMM_SMALL || amax > GEMM_LARGE) {
        scale = 1.0f / amax;
        for (int i = 0; i < 16; i++) {
            const __m256 u = _mm256_mul_ps(v[i], _mm256_set1_ps(scale));
            squares = _mm256_fmadd_ps(u, u, squares);
        }
    } else {
        for (int i = 0; i < 16; i++) {
            squares = _mm256_fmadd_ps(v[i], v[i], squares);
        }
    }
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(squares), _mm256_extractf128_ps(squares, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    const float norm = _mm_cvtss_f32(_mm_sqrt_ss(_mm_add_ss(two, _mm_movehdup_ps(two))));
    float top = GEMM_S16_NORM * (amax * scale) / norm;
    top = floorf(top < 32767.0f ? top : 32767.0f); /* the largest value itself is exact */
    const __m256 inverse = _mm256_set1_ps(top / amax);
    for (int i = 0; i < 8; i++) {
        const __m256i low = _mm256_cvtps_epi32(_mm256_mul_ps(v[2 * i], inverse));
        const __m256i high = _mm256_cvtps_epi32(_mm256_mul_ps(v[2 * i + 1], inverse));
        const __m256i packed = _mm256_max_epi16(_mm256_packs_epi32(low, high), _mm256_set1_epi16(-32767));
        q[i] = _mm256_permute4x64_epi64(packed, 0xD8);
    }
    return amax / top;
}

void gemm_pack_s16_avx2(const float *x, size_t x_stride, int r, int n_in, void *tile) {
    const int n_blocks = gemm_blocks(GEMM_S16, n_in);
    uint8_t *header = tile;
    for (int i = 0; i < r; i++) {
        put_float(header + 4 * i, 1.0f);
        for (int n = 0; n < n_blocks; n++) {
            uint8_t *block = header + 4 * r + (size_t)n * 260 * (size_t)r;
            const float *values = x + (size_t)i * x_stride + n * GEMM_S16_BLOCK;
            float buffer[GEMM_S16_BLOCK];
            if (n_in - n * GEMM_S16_BLOCK < GEMM_S16_BLOCK) {
                memset(buffer, 0, sizeof buffer);
                memcpy(buffer, values, (size_t)(n_in - n * GEMM_S16_BLOCK) * sizeof *values);
                values = buffer;
            }
            __m256 v[16];
            __m256i q[8];
            for (int k = 0; k < 16; k++) {
                v[k] = _mm256_loadu_ps(values + 8 * k);
            }
            put_float(block + 256 * r + 4 * i, round_s16(v, q));
            uint32_t units[64];
            for (int k = 0; k < 8; k++) {
                _mm256_storeu_si256((__m256i *)(units + 8 * k), q[k]);
            }
            for (int k = 0; k < 64; k++) {
                memcpy(block + (k * r + i) * 4, units + k, 4);
            }
        }
    }
}

/* ---- weights to int16 ---- */

/* Values [begin, begin + 128) of a row, zeros beyond n_in. */
INLINE void decode_128(const struct gemm_weights *w, const uint8_t *row, int begin, __m256 v[16]) {
    const int left = w->n_in - begin, count = left < GEMM_S16_BLOCK ? left : GEMM_S16_BLOCK;
    if (w->type == TYPE_F16 && count == GEMM_S16_BLOCK) {
        for (int i = 0; i < 16; i++) {
            v[i] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(row + 2 * begin + 16 * i)));
        }
        return;
    }
    if (w->type == TYPE_BF16 && count == GEMM_S16_BLOCK) {
        for (int i = 0; i < 16; i++) {
            const __m128i h = _mm_loadu_si128((const __m128i *)(row + 2 * begin + 16 * i));
            v[i] = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
        }
        return;
    }
    if (w->type == TYPE_Q8_0 && count == GEMM_S16_BLOCK) {
        const uint8_t *block = row + (size_t)(begin / QK) * sizeof(struct block_q8_0);
        for (int i = 0; i < 16; i++, block += i % 4 ? 0 : sizeof(struct block_q8_0)) {
            uint16_t d;
            memcpy(&d, block, sizeof d);
            const __m128i q = _mm_loadl_epi64((const __m128i *)(block + 2 + i % 4 * 8));
            v[i] = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)), _mm256_set1_ps(half_to_float(d)));
        }
        return;
    }
    float values[QKK];
    const int per_block = quant_block_values(w->type);
    const uint8_t *source = row + (size_t)(begin / per_block) * quant_block_bytes(w->type);
    const float *from = values;
    if (per_block == QKK) {
        quant_dequantize(w->type, source, values, QKK);
        from += begin % QKK;
    } else {
        memset(values, 0, GEMM_S16_BLOCK * sizeof values[0]);
        quant_dequantize(w->type, source, values, count);
    }
    for (int i = 0; i < 16; i++) {
        v[i] = _mm256_loadu_ps(from + 8 * i);
    }
}

void gemm_decode_avx2(uint32_t type, const void *src, float *dst, int n) {
    const struct gemm_weights w = {.type = type, .data = src, .row_bytes = 0, .n_in = n};
    if (type != TYPE_F16 && type != TYPE_BF16 && type != TYPE_Q8_0) {
        quant_dequantize(type, src, dst, n);
        return;
    }
    for (int begin = 0; begin < n; begin += GEMM_S16_BLOCK) {
        __m256 v[16];
        float values[GEMM_S16_BLOCK];
        const int count = n - begin < GEMM_S16_BLOCK ? n - begin : GEMM_S16_BLOCK;
        decode_128(&w, src, begin, v);
        for (int i = 0; i < 16; i++) {
            _mm256_storeu_ps((count == GEMM_S16_BLOCK ? dst + begin : values) + 8 * i, v[i]);
        }
        if (count < GEMM_S16_BLOCK) {
            memcpy(dst + begin, values, (size_t)count * sizeof values[0]);
        }
    }
}

/* Sums over the lanes of eight vectors, in the order of round_s16. */
INLINE __m256 sums_of_eight(__m256 v[8]) {
    __m256i t[8];
    memcpy(t, v, sizeof t);
    transpose(t);
    memcpy(v, t, sizeof t);
    const __m256 even = _mm256_add_ps(_mm256_add_ps(v[0], v[4]), _mm256_add_ps(v[2], v[6]));
    const __m256 odd = _mm256_add_ps(_mm256_add_ps(v[1], v[5]), _mm256_add_ps(v[3], v[7]));
    return _mm256_add_ps(even, odd);
}

INLINE __m256 largest_of_eight(__m256i v[8]) {
    transpose(v);
    for (int step = 4; step > 0; step /= 2) {
        for (int i = 0; i < step; i++) {
            v[i] = _mm256_max_epi32(v[i], v[i + step]);
        }
    }
    return _mm256_castsi256_ps(v[0]);
}

/* 128 values of eight weight rows. */
struct eight_rows {
    __m256 v[8][16];
};

/* What round_s16 finds for each of the eight rows at once. False if that does not serve: some values are too small or
 * too large to be squared. */
INLINE bool scales_s16(const struct eight_rows *rows, __m256 *inverse, __m256 *unit) {
    __m256i max[8];
    __m256 squares[8];
    for (int c = 0; c < 8; c++) {
        max[c] = _mm256_setzero_si256();
        squares[c] = _mm256_setzero_ps();
        for (int i = 0; i < 16; i++) {
            const __m256 v = rows->v[c][i];
            max[c] = max_magnitude(max[c], v);
            squares[c] = _mm256_fmadd_ps(v, v, squares[c]);
        }
    }
    const __m256 amax = largest_of_eight(max), norm = _mm256_sqrt_ps(sums_of_eight(squares));
    const __m256 usual = _mm256_and_ps(_mm256_cmp_ps(amax, _mm256_set1_ps(GEMM_SMALL), _CMP_GE_OQ),
                                       _mm256_cmp_ps(amax, _mm256_set1_ps(GEMM_LARGE), _CMP_LE_OQ));
    __m256 top = _mm256_div_ps(_mm256_mul_ps(_mm256_set1_ps(GEMM_S16_NORM), amax), norm);
    top = _mm256_floor_ps(_mm256_min_ps(top, _mm256_set1_ps(32767.0f)));
    *inverse = _mm256_div_ps(top, amax);
    *unit = _mm256_div_ps(amax, top);
    return _mm256_movemask_ps(usual) == 0xFF;
}

/* Rounds the values and stores them as eight columns of a panel. */
INLINE void store_s16(const struct eight_rows *rows, const float inverse[8], uint8_t *to) {
    for (int k = 0; k < 8; k++) {
        /* Packing works in each lane, so units come as 0 1 4 5 2 3 6 7. */
        static const int unit[8] = {0, 1, 4, 5, 2, 3, 6, 7};
        __m256i t[8];
        for (int c = 0; c < 8; c++) {
            const __m256 scale = _mm256_set1_ps(inverse[c]);
            const __m256i low = _mm256_cvtps_epi32(_mm256_mul_ps(rows->v[c][2 * k], scale));
            const __m256i high = _mm256_cvtps_epi32(_mm256_mul_ps(rows->v[c][2 * k + 1], scale));
            t[c] = _mm256_max_epi16(_mm256_packs_epi32(low, high), _mm256_set1_epi16(-32767));
        }
        transpose(t);
        for (int i = 0; i < 8; i++) {
            _mm256_store_si256((__m256i *)(to + (k * 8 + unit[i]) * 64), t[i]);
        }
    }
}

/* Up to eight columns, row by row. */
static void pack_eight_s16(const struct eight_rows *rows, int n, uint8_t *to) {
    __m256i q[8][8]; /* column, eighth of the block */
    memset(q, 0, sizeof q);
    for (int c = 0; c < 8; c++) {
        put_float(to + 4096 + 4 * c, c < n ? round_s16(rows->v[c], q[c]) : 0.0f);
    }
    for (int k = 0; k < 8; k++) {
        __m256i t[8];
        for (int c = 0; c < 8; c++) {
            t[c] = q[c][k];
        }
        transpose(t);
        for (int i = 0; i < 8; i++) {
            _mm256_store_si256((__m256i *)(to + (k * 8 + i) * 64), t[i]);
        }
    }
}

static void pack_weights_s16(const struct gemm_weights *w, int row, int n, int block, int n_blocks, uint8_t *panel) {
    const size_t bytes = quant_row_bytes(w->type, GEMM_S16_BLOCK);
    for (int b = 0; b < n_blocks; b++, panel += gemm_panel_bytes(GEMM_S16)) {
        const int begin = (block + b) * GEMM_S16_BLOCK;
        for (int group = 0; group < GEMM_COLUMNS; group += 8) {
            uint8_t *to = panel + group * 4;
            struct eight_rows rows;
            for (int c = 0; c < 8 && group + c < n; c++) {
                const uint8_t *source = w->data + (size_t)(row + group + c) * w->row_bytes;
                for (size_t at = 0; at < bytes; at += 64) {
                    prefetch(source + (size_t)(block + b) * bytes + at + w->ahead);
                }
                decode_128(w, source, begin, rows.v[c]);
            }
            __m256 inverse, unit;
            if (n - group >= 8 && scales_s16(&rows, &inverse, &unit)) {
                float scales[8];
                _mm256_storeu_ps(scales, inverse);
                _mm256_store_ps((float *)(void *)(to + 4096), unit);
                store_s16(&rows, scales, to);
            } else {
                pack_eight_s16(&rows, n - group, to);
            }
        }
    }
}

/* ---- weights of 4 to 6 bits ---- */

INLINE __m256i low_nibbles(__m256i v) {
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
}

INLINE __m256i load_bytes(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

INLINE __m256i decode_q4_0(const uint8_t *row, int block, float *a, float *b) {
    const struct block_q4_0 *s = (const struct block_q4_0 *)row + block;
    const __m128i v = _mm_loadu_si128((const __m128i *)s->qs);
    *a = half_to_float(s->d);
    *b = 8 * *a;
    return low_nibbles(_mm256_set_m128i(_mm_srli_epi16(v, 4), v));
}

INLINE void k_scales(const uint8_t scales[12], int j, uint16_t d, uint16_t dmin, float *a, float *b) {
    uint8_t scale, min;
    quant_scale_min(scales, j, &scale, &min);
    *a = half_to_float(d) * scale;
    *b = half_to_float(dmin) * min;
}

INLINE __m256i decode_q4_k(const uint8_t *row, int block, float *a, float *b) {
    const struct block_q4_k *s = (const struct block_q4_k *)row + block / 8;
    const int j = block % 8;
    k_scales(s->scales, j, s->d, s->dmin, a, b);
    return low_nibbles(_mm256_srl_epi16(load_bytes(s->qs + j / 2 * 32), _mm_cvtsi32_si128((j & 1) * 4)));
}

INLINE __m256i decode_q5_k(const uint8_t *row, int block, float *a, float *b) {
    const struct block_q5_k *s = (const struct block_q5_k *)row + block / 8;
    const int j = block % 8;
    k_scales(s->scales, j, s->d, s->dmin, a, b);
    *b -= 16 * *a;
    const __m256i low = low_nibbles(_mm256_srl_epi16(load_bytes(s->qs + j / 2 * 32), _mm_cvtsi32_si128((j & 1) * 4)));
    const __m256i bit =
        _mm256_and_si256(_mm256_srl_epi16(load_bytes(s->qh), _mm_cvtsi32_si128(j)), _mm256_set1_epi8(1));
    return _mm256_or_si256(low, _mm256_slli_epi16(bit, 4));
}

INLINE __m256i decode_q6_k(const uint8_t *row, int block, float *a, const int8_t **scales) {
    const struct block_q6_k *s = (const struct block_q6_k *)row + block / 8;
    const int half = block % 8 / 4, j = block % 4;
    *a = half_to_float(s->d);
    *scales = s->scales + block % 8 * 2;
    const __m256i low = _mm256_srl_epi16(load_bytes(s->ql + half * 64 + (j & 1) * 32), _mm_cvtsi32_si128((j & 2) * 2));
    const __m256i high = _mm256_srl_epi16(load_bytes(s->qh + half * 32), _mm_cvtsi32_si128(2 * j));
    const __m256i two = _mm256_and_si256(high, _mm256_set1_epi8(3));
    return _mm256_or_si256(low_nibbles(low), _mm256_slli_epi16(two, 4));
}

/* type is a compile-time constant at every call. */
INLINE void pack_narrow(const uint32_t type, const struct gemm_weights *w, int row, int n, int block, int n_blocks,
                        uint8_t *panel) {
    const size_t values = (size_t)quant_block_values(type), bytes = quant_block_bytes(type);
    for (int m = 0; m < n_blocks; m++, panel += type == TYPE_Q6_K ? 704 : 640) {
        for (int group = 0; group < GEMM_COLUMNS; group += 8) {
            __m256i q[8];
            for (int c = 0; c < 8; c++) {
                static const int8_t no_scales[2] = {0, 0};
                const uint8_t *source = w->data + (size_t)(row + group + c) * w->row_bytes;
                const int8_t *scales = no_scales;
                prefetch(source + (size_t)(block + m) * QK / values * bytes + w->ahead);
                float a = 0, b = 0;
                if (group + c >= n) {
                    q[c] = _mm256_setzero_si256();
                } else if (type == TYPE_Q4_0) {
                    q[c] = decode_q4_0(source, block + m, &a, &b);
                } else if (type == TYPE_Q4_K) {
                    q[c] = decode_q4_k(source, block + m, &a, &b);
                } else if (type == TYPE_Q5_K) {
                    q[c] = decode_q5_k(source, block + m, &a, &b);
                } else {
                    q[c] = decode_q6_k(source, block + m, &a, &scales);
                }
                uint8_t *p = panel + 4 * (group + c);
                put_float(p + 512, a);
                if (type == TYPE_Q6_K) {
                    put_i16_pair(p + 576, scales[0], scales[0]);
                    put_i16_pair(p + 640, scales[1], scales[1]);
                } else {
                    put_float(p + 576, b);
                }
            }
            transpose(q);
            for (int k = 0; k < 8; k++) {
                _mm256_store_si256((__m256i *)(panel + k * 64 + group * 4), q[k]);
            }
        }
    }
}

/* The scales at the beginning of eight blocks. */
INLINE __m256 block_scales(const uint8_t *const s[8]) {
    uint16_t d[8];
    for (int c = 0; c < 8; c++) {
        memcpy(d + c, s[c], sizeof d[c]);
    }
    return _mm256_cvtph_ps(_mm_setr_epi16((short)d[0], (short)d[1], (short)d[2], (short)d[3], (short)d[4], (short)d[5],
                                          (short)d[6], (short)d[7]));
}

/* Whole panels of Q4_0: both nibbles are transposed at once, as they are stored, which takes half the shuffles. */
static void pack_q4_0(const struct gemm_weights *w, int row, int block, int n_blocks, uint8_t *panel) {
    const size_t bytes = sizeof(struct block_q4_0);
    for (int group = 0; group < GEMM_COLUMNS; group += 8) {
        const uint8_t *source = w->data + (size_t)(row + group) * w->row_bytes + (size_t)block * bytes;
        uint8_t *to = panel + group * 4;
        for (int m = 0; m < n_blocks; m++, source += bytes, to += 640) {
            const uint8_t *s[8];
            __m256i v[4], t[4]; /* columns 0..3 in the lower lane, 4..7 in the upper one */
            for (int c = 0; c < 8; c++) {
                s[c] = source + (size_t)c * w->row_bytes;
                prefetch(s[c] + w->ahead);
            }
            for (int c = 0; c < 4; c++) {
                v[c] = _mm256_set_m128i(_mm_loadu_si128((const __m128i *)(s[c + 4] + 2)),
                                        _mm_loadu_si128((const __m128i *)(s[c] + 2)));
            }
            for (int c = 0; c < 4; c += 2) {
                t[c] = _mm256_unpacklo_epi32(v[c], v[c + 1]);
                t[c + 1] = _mm256_unpackhi_epi32(v[c], v[c + 1]);
            }
            for (int k = 0; k < 2; k++) {
                v[2 * k] = _mm256_unpacklo_epi64(t[k], t[k + 2]);
                v[2 * k + 1] = _mm256_unpackhi_epi64(t[k], t[k + 2]);
            }
            for (int k = 0; k < 4; k++) {
                _mm256_store_si256((__m256i *)(to + k * 64), low_nibbles(v[k]));
                _mm256_store_si256((__m256i *)(to + (k + 4) * 64), low_nibbles(_mm256_srli_epi16(v[k], 4)));
            }
            const __m256 d = block_scales(s);
            _mm256_store_ps((float *)(void *)(to + 512), d);
            _mm256_store_ps((float *)(void *)(to + 576), _mm256_mul_ps(d, _mm256_set1_ps(8)));
        }
    }
}

void gemm_pack_weights_avx2(enum gemm_format f, const struct gemm_weights *w, int row, int n, int block, int n_blocks,
                            void *panel) {
    if (f == GEMM_S16) {
        pack_weights_s16(w, row, n, block, n_blocks, panel);
        return;
    }
    switch (w->type) {
    case TYPE_Q4_0:
        if (n == GEMM_COLUMNS) {
            pack_q4_0(w, row, block, n_blocks, panel);
        } else {
            pack_narrow(TYPE_Q4_0, w, row, n, block, n_blocks, panel);
        }
        break;
    case TYPE_Q4_K: pack_narrow(TYPE_Q4_K, w, row, n, block, n_blocks, panel); break;
    case TYPE_Q5_K: pack_narrow(TYPE_Q5_K, w, row, n, block, n_blocks, panel); break;
    case TYPE_Q6_K: pack_narrow(TYPE_Q6_K, w, row, n, block, n_blocks, panel); break;
    default: break;
    }
}
