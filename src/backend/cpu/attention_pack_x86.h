/* Keys transposed and f16 converted with AVX2 and F16C, for the AVX2 and AVX-512 attention kernels. */
#ifndef CANDID_BACKEND_CPU_ATTENTION_PACK_X86_H
#define CANDID_BACKEND_CPU_ATTENTION_PACK_X86_H

#include <immintrin.h>

#include "backend/cpu/attention_kernels.h"

static inline float load_f16(uint16_t h) {
    return _cvtsh_ss(h);
}

static void to_f32(const uint16_t *src, int n, float *dst) {
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(src + i))));
    }
    for (; i < n; i++) {
        dst[i] = load_f16(src[i]);
    }
}

static void to_f16(uint16_t *dst, const float *src, int n) {
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        _mm_storeu_si128((__m128i *)(void *)(dst + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
    }
    for (; i < n; i++) {
        dst[i] = _cvtss_sh(src[i], _MM_FROUND_TO_NEAREST_INT);
    }
}

/* 8 rows of 16 f16 to 16 columns of 8 f32, columns KV_BLOCK floats apart. */
static inline void transpose_f16_8x16(const uint16_t *const row[8], int d, float *k_t) {
    __m256i a[8], b[8];
    for (int i = 0; i < 8; i++) {
        a[i] = _mm256_loadu_si256((const __m256i *)(const void *)(row[i] + d));
    }
    for (int i = 0; i < 4; i++) { /* pairs of keys */
        b[2 * i] = _mm256_unpacklo_epi16(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm256_unpackhi_epi16(a[2 * i], a[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) { /* fours */
        a[4 * i] = _mm256_unpacklo_epi32(b[4 * i], b[4 * i + 2]);
        a[4 * i + 1] = _mm256_unpackhi_epi32(b[4 * i], b[4 * i + 2]);
        a[4 * i + 2] = _mm256_unpacklo_epi32(b[4 * i + 1], b[4 * i + 3]);
        a[4 * i + 3] = _mm256_unpackhi_epi32(b[4 * i + 1], b[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) { /* eights: dims 2i and 2i + 1, and 8 more in the upper half */
        b[2 * i] = _mm256_unpacklo_epi64(a[i], a[i + 4]);
        b[2 * i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 4]);
    }
    for (int i = 0; i < 8; i++) {
        _mm256_storeu_ps(k_t + (size_t)(d + i) * KV_BLOCK, _mm256_cvtph_ps(_mm256_castsi256_si128(b[i])));
        _mm256_storeu_ps(k_t + (size_t)(d + 8 + i) * KV_BLOCK, _mm256_cvtph_ps(_mm256_extracti128_si256(b[i], 1)));
    }
}

static inline void transpose_8x8(__m256 a[8], int d, float *k_t) {
    __m256 b[8];
    for (int i = 0; i < 4; i++) {
        b[2 * i] = _mm256_unpacklo_ps(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm256_unpackhi_ps(a[2 * i], a[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        a[4 * i] = _mm256_shuffle_ps(b[4 * i], b[4 * i + 2], 0x44);
        a[4 * i + 1] = _mm256_shuffle_ps(b[4 * i], b[4 * i + 2], 0xee);
        a[4 * i + 2] = _mm256_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0x44);
        a[4 * i + 3] = _mm256_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(k_t + (size_t)(d + i) * KV_BLOCK, _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
        _mm256_storeu_ps(k_t + (size_t)(d + 4 + i) * KV_BLOCK, _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
    }
}

/* The cache line at p in 8 rows. */
static inline void prefetch_rows(const void *p, size_t stride_bytes) {
    for (size_t j = 0; j < 8; j++) {
        _mm_prefetch((const char *)p + j * stride_bytes, _MM_HINT_T0);
    }
}

/* Eight keys at a time, the whole block; behind the last key, its row is read again. */
static void pack_keys(const struct attention_block *keys, int n, int dim, float *k_t) {
    for (int i = 0; i < KV_BLOCK; i += 8) {
        int d = 0;
        if (keys->f16) {
            const uint16_t *row[8];
            for (int j = 0; j < 8; j++) {
                row[j] = (const uint16_t *)keys->k + (size_t)(i + j < n ? i + j : n - 1) * keys->stride;
            }
            for (; d + 16 <= dim; d += 16) {
                if (keys->next_k && d % 32 == 0) {
                    prefetch_rows((const uint16_t *)keys->next_k + (size_t)i * keys->stride + d, keys->stride * 2);
                }
                transpose_f16_8x16(row, d, k_t + i);
            }
            for (; d + 8 <= dim; d += 8) {
                __m256 a[8];
                for (int j = 0; j < 8; j++) {
                    a[j] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(row[j] + d)));
                }
                transpose_8x8(a, d, k_t + i);
            }
            for (; d < dim; d++) {
                for (int j = 0; j < 8; j++) {
                    k_t[(size_t)d * KV_BLOCK + (size_t)(i + j)] = load_f16(row[j][d]);
                }
            }
        } else {
            const float *row[8];
            for (int j = 0; j < 8; j++) {
                row[j] = (const float *)keys->k + (size_t)(i + j < n ? i + j : n - 1) * keys->stride;
            }
            for (; d + 8 <= dim; d += 8) {
                if (keys->next_k && d % 16 == 0) {
                    prefetch_rows((const float *)keys->next_k + (size_t)i * keys->stride + d, keys->stride * 4);
                }
                __m256 a[8];
                for (int j = 0; j < 8; j++) {
                    a[j] = _mm256_loadu_ps(row[j] + d);
                }
                transpose_8x8(a, d, k_t + i);
            }
            for (; d < dim; d++) {
                for (int j = 0; j < 8; j++) {
                    k_t[(size_t)d * KV_BLOCK + (size_t)(i + j)] = row[j][d];
                }
            }
        }
    }
}

#endif
