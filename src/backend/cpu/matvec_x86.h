/*
 * Matvec kernels for x86 with 256-bit vectors. Included by matvec_avx2.c and matvec_avx512.c, which define before:
 *   dot_u8s8(u, s)           8 × i32: sums of 4 products u8 × s8; u <= 128, |s| <= 127
 *   add_dot_u8s8(sum, u, s)  8 × i32: sum + dot_u8s8(u, s)
 *   add_dot_i16(sum, a, b)   8 × i32: sum + sums of 2 products i16 × i16
 *   NARROW_Q4                whether sums of Q4_0 products are better kept in 16 bits as long as possible
 *
 * Decoding is bound by the memory traffic of the weights: rows are read one after the other as one linear stream,
 * unpacked once and multiplied with up to six activation rows. More activation rows go over the
 * weight row again, which then lies in the first-level cache. The sums of one (weight row, activation row) pair are
 * built by the same operations in the same order however many activation rows there are.
 *
 * Loops over activation rows have compile-time bounds and vanish: each kernel body is a template of nx = 1..6.
 */
#include <float.h>
#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#include "backend/cpu/matvec_kernels.h"

#define TEMPLATE static inline __attribute__((always_inline))
#define UNROLL   _Pragma("GCC unroll 16")
#define NX_MAX   6 /* sums that do not fit in registers stay in the first-level cache */

TEMPLATE float f16_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return _cvtsh_ss(h);
}

TEMPLATE short i16_at(const uint8_t *p) {
    short h;
    memcpy(&h, p, sizeof h);
    return h;
}

TEMPLATE __m256i load256(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

TEMPLATE __m128i load128(const void *p) {
    return _mm_loadu_si128((const __m128i *)p);
}

/* Asks for the `bytes` bytes one page behind w: hardware prefetchers stop at the end of each page. */
TEMPLATE void prefetch(const uint8_t *w, size_t bytes) {
    UNROLL for (size_t line = 0; line < bytes; line += 64) {
        _mm_prefetch((const char *)w + 4096 + line, _MM_HINT_T0);
    }
}

TEMPLATE float sum_8(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

TEMPLATE int sum_8i(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xB1)));
}

/* ---- partner formats: the values of matvec_prepare, some of them in another order ---- */

/* Rounds n values (a multiple of 32) to int8 with one scale; returns the scale. */
TEMPLATE float round_block(const float *x, int n, int8_t *q) {
    /* Magnitudes compare as integers, NaN above infinity: nothing non-finite gets lost in the maximum. */
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i m = _mm256_setzero_si256();
    for (int i = 0; i < n; i += 8) {
        m = _mm256_max_epi32(m, _mm256_and_si256(load256(x + i), magnitude));
    }
    __m128i m4 = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    m4 = _mm_max_epi32(m4, _mm_shuffle_epi32(m4, 0x4E));
    m4 = _mm_max_epi32(m4, _mm_shuffle_epi32(m4, 0xB1));
    float max = _mm_cvtss_f32(_mm_castsi128_ps(m4));
    if (!(max <= FLT_MAX) || max < MATVEC_TINY) {
        memset(q, 0, (size_t)n);
        return max < MATVEC_TINY ? 0.0f : __builtin_nanf("");
    }
    const __m256 inverse = _mm256_set1_ps(127.0f / max);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* undoes the lane-wise packing */
    for (int i = 0; i < n; i += 32) {
        __m256i v0 = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), inverse));
        __m256i v1 = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + 8), inverse));
        __m256i v2 = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + 16), inverse));
        __m256i v3 = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + 24), inverse));
        __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(v0, v1), _mm256_packs_epi32(v2, v3));
        _mm256_storeu_si256((__m256i *)(q + i), _mm256_permutevar8x32_epi32(bytes, order));
    }
    return max / 127.0f;
}

/* 8 × i32, the first four the sum of q[0..15], the others that of q[16..31]. */
TEMPLATE __m256i partial_sums(const int8_t *q) {
    __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), load256(q));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

/* Reorders 8 blocks as blocks_row reads them: for k < 4 the halves of blocks k and k + 4 side by side. */
TEMPLATE void pair_blocks(int8_t *q) {
    __m256i block[8];
    UNROLL for (int k = 0; k < 8; k++) {
        block[k] = load256(q + k * QK);
    }
    UNROLL for (int k = 0; k < 4; k++) {
        __m256i low = _mm256_permute2x128_si256(block[k], block[k + 4], 0x20);
        __m256i high = _mm256_permute2x128_si256(block[k], block[k + 4], 0x31);
        _mm256_storeu_si256((__m256i *)(q + k * 64), low);
        _mm256_storeu_si256((__m256i *)(q + k * 64 + 32), high);
    }
}

/* Reorders values 0..15 to even ones, then odd ones, as load_16 gives the weights of BF16. */
TEMPLATE void split_even_odd(float *x) {
    const __m256i even_odd = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    __m256 a = _mm256_permutevar8x32_ps(_mm256_loadu_ps(x), even_odd);
    __m256 b = _mm256_permutevar8x32_ps(_mm256_loadu_ps(x + 8), even_odd);
    _mm256_storeu_ps(x, _mm256_permute2f128_ps(a, b, 0x20));
    _mm256_storeu_ps(x + 8, _mm256_permute2f128_ps(a, b, 0x31));
}

static void prepare(uint32_t type, const float *x, int n_in, void *prepared) {
    int8_t *q = prepared;
    if (type == TYPE_Q8_0 || type == TYPE_Q4_0) {
        float *d = (float *)((char *)prepared + n_in);
        size_t padded = matvec_padded_blocks(n_in), n_blocks = (size_t)n_in / QK;
        memset(d, 0, padded * sizeof(float) * (type == TYPE_Q4_0 ? 2 : 1));
        for (size_t b = 0; b < n_blocks; b++) {
            d[b] = round_block(x + b * QK, QK, q + b * QK);
            if (type == TYPE_Q4_0) {
                d[padded + b] = d[b] * (float)(-8 * sum_8i(partial_sums(q + b * QK)));
            }
        }
        for (size_t b = 0; b + 8 <= n_blocks; b += 8) {
            pair_blocks(q + b * QK);
        }
    } else if (type == TYPE_Q4_K || type == TYPE_Q5_K || type == TYPE_Q6_K) {
        int per_sum = type == TYPE_Q6_K ? 16 : 32;
        int16_t *sums = (int16_t *)((char *)prepared + n_in);
        float *d = (float *)(sums + n_in / per_sum);
        for (int b = 0; b < n_in / QKK; b++) {
            d[b] = round_block(x + b * QKK, QKK, q + b * QKK);
        }
        for (int i = 0; i < n_in / 32; i++) {
            __m256i s = partial_sums(q + i * 32);
            if (per_sum == 32) {
                sums[i] = (int16_t)sum_8i(s);
            } else {
                s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0x4E));
                s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0xB1));
                sums[2 * i] = (int16_t)_mm256_extract_epi32(s, 0);
                sums[2 * i + 1] = (int16_t)_mm256_extract_epi32(s, 4);
            }
        }
    } else {
        matvec_prepare(type, x, n_in, prepared);
        for (int i = 0; type == TYPE_BF16 && i < n_in; i += 16) {
            split_even_odd((float *)prepared + i);
        }
    }
}

/* ---- Q8_0 and Q4_0: blocks of 32, taken eight at a time ---- */

/* The first two bytes of 4 consecutive blocks. Put together by the integer units: the vector units are busy. */
TEMPLATE uint64_t first_halves(const uint8_t *w, size_t bytes) {
    uint16_t even[2];
    uint32_t odd[2]; /* with the two bytes before */
    UNROLL for (size_t k = 0; k < 2; k++) {
        memcpy(even + k, w + 2 * k * bytes, sizeof even[k]);
        memcpy(odd + k, w + (2 * k + 1) * bytes - 2, sizeof odd[k]);
        odd[k] = (odd[k] & 0xffff0000) | even[k];
    }
    return (uint64_t)odd[1] << 32 | odd[0];
}

/* The f16 scales of 8 consecutive blocks. */
TEMPLATE __m256 scales_8(const uint8_t *w, size_t bytes) {
    return _mm256_cvtph_ps(
        _mm_set_epi64x((long long)first_halves(w + 4 * bytes, bytes), (long long)first_halves(w, bytes)));
}

/* 16 bytes at a in the lower lane, 16 at b in the upper one. */
TEMPLATE __m256i lanes(const uint8_t *a, const uint8_t *b) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load128(a)), load128(b), 1);
}

/* A pair of blocks, one per lane: values 0..15 of both blocks, then 16..31. */
struct block_pair {
    __m256i u[2];      /* unsigned: magnitudes of Q8_0, nibbles of Q4_0 */
    __m256i stored[2]; /* Q8_0: for their signs */
};

TEMPLATE struct block_pair unpack_pair(bool q4, const uint8_t *a, const uint8_t *b) {
    struct block_pair p;
    p.stored[0] = lanes(a + 2, b + 2);
    if (q4) {
        const __m256i nibble = _mm256_set1_epi8(15);
        p.stored[1] = p.stored[0];
        p.u[0] = _mm256_and_si256(p.stored[0], nibble);
        p.u[1] = _mm256_and_si256(_mm256_srli_epi16(p.stored[0], 4), nibble);
    } else {
        p.stored[1] = lanes(a + 18, b + 18);
        p.u[0] = _mm256_abs_epi8(p.stored[0]);
        p.u[1] = _mm256_abs_epi8(p.stored[1]);
    }
    return p;
}

/*
 * The products of both blocks with the 64 bytes at q, 32 bits per partial sum. Where NARROW_Q4 holds, those of Q4_0
 * stay two sums of 16 bits each: 8 blocks' worth of pairs are at most 8 * 2 * 15 * 127 = 30480.
 */
TEMPLATE __m256i pair_dot(bool q4, struct block_pair p, const int8_t *q) {
    __m256i x0 = load256(q), x1 = load256(q + 32);
    if (q4 && NARROW_Q4) {
        return _mm256_add_epi16(_mm256_maddubs_epi16(p.u[0], x0), _mm256_maddubs_epi16(p.u[1], x1));
    }
    if (!q4) {
        x0 = _mm256_sign_epi8(x0, p.stored[0]);
        x1 = _mm256_sign_epi8(x1, p.stored[1]);
    }
    return add_dot_u8s8(dot_u8s8(p.u[0], x0), p.u[1], x1);
}

TEMPLATE __m256i add_sums(bool narrow, __m256i a, __m256i b) {
    return narrow ? _mm256_add_epi16(a, b) : _mm256_add_epi32(a, b);
}

/* Per lane, from four sums of a and four of b: two of a, two of b. */
TEMPLATE __m256i fold_4(bool narrow, __m256i a, __m256i b) {
    return add_sums(narrow, _mm256_blend_epi32(a, b, 0xCC), _mm256_alignr_epi8(b, a, 8));
}

/* Per lane, from two sums each of a0, a1 (in a) and b0, b1 (in b): one of each. */
TEMPLATE __m256i fold_2(bool narrow, __m256i a, __m256i b) {
    __m256 even = _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0x88);
    __m256 odd = _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0xDD);
    return add_sums(narrow, _mm256_castps_si256(even), _mm256_castps_si256(odd));
}

/*
 * Blocks k and k + 4 (k < 4) of each group of eight form a pair. Folding the products of the four pairs together ends
 * in one vector with the eight blocks' sums in their natural order, beside the eight scales: one conversion and one
 * multiplication by each scale for 256 values.
 */
TEMPLATE void blocks_row(bool q4, const uint8_t *w, int n_in, const char *prepared, size_t stride, const int nx,
                         float *out, size_t out_stride) {
    const size_t bytes = q4 ? sizeof(struct block_q4_0) : sizeof(struct block_q8_0);
    const bool narrow = q4 && NARROW_Q4;
    const int n_blocks = n_in / QK;
    struct partner_blocks x[NX_MAX];
    __m256 sum[NX_MAX];
    UNROLL for (int r = 0; r < nx; r++) {
        x[r] = matvec_partner_blocks(prepared + (size_t)r * stride, n_in);
        sum[r] = _mm256_setzero_ps();
    }
    int b = 0;
    for (; b + 8 <= n_blocks; b += 8, w += 8 * bytes) {
        prefetch(w, 8 * bytes);
        const __m256 d = scales_8(w, bytes);
        __m256i first[NX_MAX];
        UNROLL for (int half = 0; half < 2; half++) {
            const uint8_t *p = w + (size_t)half * 2 * bytes;
            const struct block_pair p0 = unpack_pair(q4, p, p + 4 * bytes);
            const struct block_pair p1 = unpack_pair(q4, p + bytes, p + 5 * bytes);
            UNROLL for (int r = 0; r < nx; r++) {
                const int8_t *q = x[r].q + b * QK + half * 128;
                __m256i t = fold_4(narrow, pair_dot(q4, p0, q), pair_dot(q4, p1, q + 64));
                if (half == 0) {
                    first[r] = t;
                    continue;
                }
                t = fold_2(narrow, first[r], t);
                if (narrow) {
                    t = _mm256_madd_epi16(t, _mm256_set1_epi16(1));
                }
                __m256 dot = _mm256_cvtepi32_ps(t), x_d = _mm256_loadu_ps(x[r].d + b);
                dot = q4 ? _mm256_fmadd_ps(dot, x_d, _mm256_loadu_ps(x[r].offset + b)) : _mm256_mul_ps(dot, x_d);
                sum[r] = _mm256_fmadd_ps(d, dot, sum[r]);
            }
        }
    }
    for (; b < n_blocks; b++, w += bytes) { /* single blocks, their values in natural order */
        const float d = f16_at(w);
        const struct block_pair p = unpack_pair(q4, w, w);
        const __m256i u = _mm256_blend_epi32(p.u[0], p.u[1], 0xF0);
        const __m256i stored = _mm256_blend_epi32(p.stored[0], p.stored[1], 0xF0);
        UNROLL for (int r = 0; r < nx; r++) {
            __m256i q = load256(x[r].q + b * QK);
            __m256 dot = _mm256_cvtepi32_ps(dot_u8s8(u, q4 ? q : _mm256_sign_epi8(q, stored)));
            sum[r] = _mm256_fmadd_ps(_mm256_set1_ps(d * x[r].d[b]), dot, sum[r]);
            if (q4) { /* into one element: only their total matters */
                sum[r] = _mm256_add_ps(sum[r], _mm256_zextps128_ps256(_mm_set_ss(d * x[r].offset[b])));
            }
        }
    }
    UNROLL for (int r = 0; r < nx; r++) {
        out[(size_t)r * out_stride] = sum_8(sum[r]);
    }
}

/* ---- K types: super-blocks of 256 ---- */

/* i16 2k and 2k + 1 of a lane, over the whole lane: shuffle control k of scale k. */
#define PAIR(k)        2 * (k), 2 * (k) + 1
#define EIGHT_PAIRS(k) PAIR(k), PAIR(k), PAIR(k), PAIR(k), PAIR(k), PAIR(k), PAIR(k), PAIR(k)
static const uint8_t spread_i16[8][32] __attribute__((aligned(32))) = {
    {EIGHT_PAIRS(0), EIGHT_PAIRS(0)}, {EIGHT_PAIRS(1), EIGHT_PAIRS(1)}, {EIGHT_PAIRS(2), EIGHT_PAIRS(2)},
    {EIGHT_PAIRS(3), EIGHT_PAIRS(3)}, {EIGHT_PAIRS(4), EIGHT_PAIRS(4)}, {EIGHT_PAIRS(5), EIGHT_PAIRS(5)},
    {EIGHT_PAIRS(6), EIGHT_PAIRS(6)}, {EIGHT_PAIRS(7), EIGHT_PAIRS(7)},
};

/* Bytes 2k and 2k + 1, eight times each: shuffle control k of two Q6_K scales. */
#define EIGHT(b) b, b, b, b, b, b, b, b
#define TWO_EIGHTS(k)                                                                                                  \
    { EIGHT(2 * (k)), EIGHT(2 * (k) + 1) }
static const uint8_t spread_i8[8][16] __attribute__((aligned(16))) = {
    TWO_EIGHTS(0), TWO_EIGHTS(1), TWO_EIGHTS(2), TWO_EIGHTS(3),
    TWO_EIGHTS(4), TWO_EIGHTS(5), TWO_EIGHTS(6), TWO_EIGHTS(7),
};

/* The 8 six-bit scales (lower lane) and 8 minima (upper lane) of a super-block as i16; see quant_scale_min. */
TEMPLATE __m256i scales_and_mins(const uint8_t *scales) {
    uint32_t s[3];
    memcpy(s, scales, sizeof s);
    uint32_t low = s[0] & 0x3f3f3f3f, min_low = s[1] & 0x3f3f3f3f;
    uint32_t high = (s[2] & 0x0f0f0f0f) | ((s[0] >> 6) & 0x03030303) << 4;
    uint32_t min_high = ((s[2] >> 4) & 0x0f0f0f0f) | ((s[1] >> 6) & 0x03030303) << 4;
    return _mm256_cvtepu8_epi16(_mm_setr_epi32((int)low, (int)high, (int)min_low, (int)min_high));
}

/* Q4_K, or Q5_K when q5. */
TEMPLATE void super_min_row(bool q5, const uint8_t *w, int n_in, const char *prepared, size_t stride, const int nx,
                            float *out, size_t out_stride) {
    const size_t bytes = q5 ? sizeof(struct block_q5_k) : sizeof(struct block_q4_k);
    const __m256i nibble = _mm256_set1_epi8(15);
    struct partner_super x[NX_MAX];
    __m256 sum[NX_MAX];
    UNROLL for (int r = 0; r < nx; r++) {
        x[r] = matvec_partner_super(prepared + (size_t)r * stride, n_in, 32);
        sum[r] = _mm256_setzero_ps();
    }
    for (int b = 0; b < n_in / QKK; b++, w += bytes) {
        prefetch(w, bytes);
        const uint8_t *qh = w + 16, *qs = q5 ? w + 16 + QKK / 8 : w + 16;
        const float d = f16_at(w), dmin = f16_at(w + 2);
        const __m256i both = scales_and_mins(w + 4);
        const __m256i scales = _mm256_permute2x128_si256(both, both, 0x00);
        const __m128i mins = _mm256_extracti128_si256(both, 1);
        const __m256i fifth = q5 ? load256(qh) : _mm256_setzero_si256();
        __m256i scaled[NX_MAX];
        UNROLL for (int r = 0; r < nx; r++) {
            /* The minima only fill the lower lanes of the sum. */
            __m256 min_sums =
                _mm256_zextps128_ps256(_mm_cvtepi32_ps(_mm_madd_epi16(mins, load128(x[r].sums + b * (QKK / 32)))));
            sum[r] = _mm256_fnmadd_ps(_mm256_set1_ps(dmin * x[r].d[b]), min_sums, sum[r]);
            scaled[r] = _mm256_setzero_si256();
        }
        UNROLL for (int j = 0; j < 4; j++) { /* 64 values: lower nibbles, then upper ones */
            const __m256i bits = load256(qs + 32 * j);
            __m256i low = _mm256_and_si256(bits, nibble);
            __m256i high = _mm256_and_si256(_mm256_srli_epi16(bits, 4), nibble);
            if (q5) {
                const __m256i one = _mm256_set1_epi8(1);
                __m256i bit_low = _mm256_and_si256(_mm256_srli_epi16(fifth, 2 * j), one);
                __m256i bit_high = _mm256_and_si256(_mm256_srli_epi16(fifth, 2 * j + 1), one);
                low = _mm256_or_si256(low, _mm256_slli_epi16(bit_low, 4));
                high = _mm256_or_si256(high, _mm256_slli_epi16(bit_high, 4));
            }
            const __m256i scale_low = _mm256_shuffle_epi8(scales, load256(spread_i16[2 * j]));
            const __m256i scale_high = _mm256_shuffle_epi8(scales, load256(spread_i16[2 * j + 1]));
            UNROLL for (int r = 0; r < nx; r++) {
                const int8_t *q = x[r].q + b * QKK + j * 64;
                scaled[r] = add_dot_i16(scaled[r], scale_low, _mm256_maddubs_epi16(low, load256(q)));
                scaled[r] = add_dot_i16(scaled[r], scale_high, _mm256_maddubs_epi16(high, load256(q + 32)));
            }
        }
        UNROLL for (int r = 0; r < nx; r++) {
            sum[r] = _mm256_fmadd_ps(_mm256_set1_ps(d * x[r].d[b]), _mm256_cvtepi32_ps(scaled[r]), sum[r]);
        }
    }
    UNROLL for (int r = 0; r < nx; r++) {
        out[(size_t)r * out_stride] = sum_8(sum[r]);
    }
}

TEMPLATE void q6_k_row(const uint8_t *w, int n_in, const char *prepared, size_t stride, const int nx, float *out,
                       size_t out_stride) {
    const __m256i nibble = _mm256_set1_epi8(15), two_bits = _mm256_set1_epi8(0x30);
    struct partner_super x[NX_MAX];
    __m256 sum[NX_MAX];
    UNROLL for (int r = 0; r < nx; r++) {
        x[r] = matvec_partner_super(prepared + (size_t)r * stride, n_in, 16);
        sum[r] = _mm256_setzero_ps();
    }
    for (int b = 0; b < n_in / QKK; b++, w += sizeof(struct block_q6_k)) {
        prefetch(w, sizeof(struct block_q6_k));
        const __m128i scales = load128(w + 192);
        const __m256i scales_i16 = _mm256_cvtepi8_epi16(scales);
        const float d = f16_at(w + 208);
        __m256i scaled[NX_MAX];
        UNROLL for (int r = 0; r < nx; r++) { /* what the -32 of every value contributes */
            __m256i s = _mm256_madd_epi16(scales_i16, load256(x[r].sums + b * (QKK / 16)));
            scaled[r] = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(s, 5));
        }
        UNROLL for (int half = 0; half < 2; half++) { /* 128 values each */
            const __m256i ql0 = load256(w + 64 * half), ql1 = load256(w + 64 * half + 32);
            const __m256i qh = load256(w + 128 + 32 * half);
            const __m256i u[4] = {
                _mm256_or_si256(_mm256_and_si256(ql0, nibble), _mm256_and_si256(_mm256_slli_epi16(qh, 4), two_bits)),
                _mm256_or_si256(_mm256_and_si256(ql1, nibble), _mm256_and_si256(_mm256_slli_epi16(qh, 2), two_bits)),
                _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(ql0, 4), nibble), _mm256_and_si256(qh, two_bits)),
                _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(ql1, 4), nibble),
                                _mm256_and_si256(_mm256_srli_epi16(qh, 2), two_bits)),
            };
            UNROLL for (int k = 0; k < 4; k++) {
                const __m256i scale = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(scales, load128(spread_i8[4 * half + k])));
                UNROLL for (int r = 0; r < nx; r++) {
                    const int8_t *q = x[r].q + b * QKK + half * 128 + k * 32;
                    scaled[r] = add_dot_i16(scaled[r], scale, _mm256_maddubs_epi16(u[k], load256(q)));
                }
            }
        }
        UNROLL for (int r = 0; r < nx; r++) {
            sum[r] = _mm256_fmadd_ps(_mm256_set1_ps(d * x[r].d[b]), _mm256_cvtepi32_ps(scaled[r]), sum[r]);
        }
    }
    UNROLL for (int r = 0; r < nx; r++) {
        out[(size_t)r * out_stride] = sum_8(sum[r]);
    }
}

/* ---- float types ---- */

/* 16 weights in order, those of BF16 even ones first: that spares unpacking them. */
TEMPLATE void load_16(uint32_t type, const uint8_t *p, __m256 w[2]) {
    switch (type) {
    case TYPE_F16:
        w[0] = _mm256_cvtph_ps(load128(p));
        w[1] = _mm256_cvtph_ps(load128(p + 16));
        break;
    case TYPE_BF16:
        w[0] = _mm256_castsi256_ps(_mm256_slli_epi32(load256(p), 16));
        w[1] = _mm256_castsi256_ps(_mm256_and_si256(load256(p), _mm256_set1_epi32((int)0xffff0000)));
        break;
    default:
        w[0] = _mm256_loadu_ps((const float *)p);
        w[1] = _mm256_loadu_ps((const float *)p + 8);
        break;
    }
}

TEMPLATE void float_row(uint32_t type, const uint8_t *w, int n_in, const char *prepared, size_t stride, const int nx,
                        float *out, size_t out_stride) {
    const size_t size = type == TYPE_F32 ? 4 : 2;
    const float *x[NX_MAX];
    __m256 sum[NX_MAX][2];
    UNROLL for (int r = 0; r < nx; r++) {
        x[r] = (const float *)(prepared + (size_t)r * stride);
        sum[r][0] = sum[r][1] = _mm256_setzero_ps();
    }
    int i = 0;
    for (; i + 16 <= n_in; i += 16, w += 16 * size) {
        prefetch(w, 16 * size);
        __m256 w2[2];
        load_16(type, w, w2);
        UNROLL for (int r = 0; r < nx; r++) {
            sum[r][0] = _mm256_fmadd_ps(w2[0], _mm256_loadu_ps(x[r] + i), sum[r][0]);
            sum[r][1] = _mm256_fmadd_ps(w2[1], _mm256_loadu_ps(x[r] + i + 8), sum[r][1]);
        }
    }
    if (i < n_in) { /* the rest beside zeros, as the prepared row has them */
        uint8_t rest[16 * 4] = {0};
        memcpy(rest, w, (size_t)(n_in - i) * size);
        __m256 w2[2];
        load_16(type, rest, w2);
        UNROLL for (int r = 0; r < nx; r++) {
            sum[r][0] = _mm256_fmadd_ps(w2[0], _mm256_loadu_ps(x[r] + i), sum[r][0]);
            sum[r][1] = _mm256_fmadd_ps(w2[1], _mm256_loadu_ps(x[r] + i + 8), sum[r][1]);
        }
    }
    UNROLL for (int r = 0; r < nx; r++) {
        out[(size_t)r * out_stride] = sum_8(_mm256_add_ps(sum[r][0], sum[r][1]));
    }
}

#include "backend/cpu/matvec_rows.h"
