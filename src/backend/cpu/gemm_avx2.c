/*
 * AVX2 kernels of the integer products: tiles of up to 6 rows x 16 columns.
 *
 * 12 accumulators, two weight vectors, one broadcast activation and one product fill the 16 vector registers, so the
 * f32 tile lives in memory (first-level cache) and is touched once per block of 32 values.
 */
#include <immintrin.h>
#include <string.h>

#include "backend/cpu/gemm_internal.h"

#define INLINE static inline __attribute__((always_inline))

/* Panels come from the second-level cache: how many bytes ahead of their use they are asked for (7 to 10 % for the
 * narrow forms). */
#define AHEAD 768

/*
 * One step of one row: acc{0,1} += product of the four activation bytes at p, broadcast, with w{0,1}. In assembly
 * because compilers reorder the integer sums into trees and spill every accumulator; the instructions here use exactly
 * the 16 registers there are.
 */
#define STEP(multiply, add, acc0, acc1, w0, w1, p)                                                                     \
    do {                                                                                                               \
        __m256i x_, t_;                                                                                                \
        __asm__ volatile("vpbroadcastd %[p_], %[x]\n\t" multiply " %[x], %[w0_], %[t]\n\t" add                         \
                         " %[t], %[a0], %[a0]\n\t" multiply " %[x], %[w1_], %[x]\n\t" add " %[x], %[a1], %[a1]"        \
                         : [a0] "+x"(acc0), [a1] "+x"(acc1), [x] "=&x"(x_), [t] "=&x"(t_)                              \
                         : [w0_] "x"(w0), [w1_] "x"(w1), [p_] "m"(*(const uint32_t(*)[1])(p)));                        \
    } while (0)

/* The first step: acc = product. */
#define STEP_FIRST(multiply, acc0, acc1, w0, w1, p)                                                                    \
    do {                                                                                                               \
        __m256i x_;                                                                                                    \
        __asm__ volatile("vpbroadcastd %[p_], %[x]\n\t" multiply " %[x], %[w0_], %[a0]\n\t" multiply                   \
                         " %[x], %[w1_], %[a1]"                                                                        \
                         : [a0] "=&x"(acc0), [a1] "=&x"(acc1), [x] "=&x"(x_)                                           \
                         : [w0_] "x"(w0), [w1_] "x"(w1), [p_] "m"(*(const uint32_t(*)[1])(p)));                        \
    } while (0)

/* Four bytes of one activation row, in all lanes. */
INLINE __m256i broadcast4(const uint8_t *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return _mm256_set1_epi32(v);
}

INLINE __m256 broadcast_float(const uint8_t *p) {
    return _mm256_castsi256_ps(broadcast4(p));
}

INLINE __m256i load(const uint8_t *p) {
    return _mm256_load_si256((const __m256i *)p);
}

INLINE __m256 load_float(const uint8_t *p) {
    return _mm256_castsi256_ps(load(p));
}

/* row += scale * sum */
INLINE void flush(float *row, __m256i sum, __m256 scale) {
    _mm256_store_ps(row, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, _mm256_load_ps(row)));
}

/* In the functions below r is a compile-time constant at every call: loops over rows unroll into registers. */

INLINE void multiply_s16(const int r, int n_blocks, const uint8_t *tile, const uint8_t *panel, float *c) {
    enum { STEPS = GEMM_S16_BLOCK / 2, UNROLL = 16 };
    for (int n = 0; n < n_blocks; n++) {
        __m256i sum[6][2];
#pragma GCC unroll 6
        for (int i = 0; i < r; i++) {
            sum[i][0] = sum[i][1] = _mm256_setzero_si256();
        }
        for (int j = 0; j < STEPS; j += UNROLL) {
#pragma GCC unroll 16
            for (int k = 0; k < UNROLL; k++) {
                _mm_prefetch((const char *)panel + k * 64 + AHEAD, _MM_HINT_T0);
                const __m256i w0 = load(panel + k * 64), w1 = load(panel + k * 64 + 32);
#pragma GCC unroll 6
                for (int i = 0; i < r; i++) {
                    STEP("vpmaddwd", "vpaddd", sum[i][0], sum[i][1], w0, w1, tile + (k * r + i) * 4);
                }
            }
            tile += UNROLL * 4 * r;
            panel += UNROLL * 64;
        }
        const __m256 a0 = load_float(panel), a1 = load_float(panel + 32);
#pragma GCC unroll 6
        for (int i = 0; i < r; i++) {
            const __m256 e = broadcast_float(tile + 4 * i);
            flush(c + i * GEMM_COLUMNS, sum[i][0], _mm256_mul_ps(a0, e));
            flush(c + i * GEMM_COLUMNS + 8, sum[i][1], _mm256_mul_ps(a1, e));
        }
        tile += 4 * r;
        panel += 64;
    }
}

/* row += a * sum - b * es */
INLINE void flush_min(float *row, __m256i sum, __m256 a, __m256 b, __m256 es) {
    const __m256 t = _mm256_fnmadd_ps(b, es, _mm256_load_ps(row));
    _mm256_store_ps(row, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), a, t));
}

/* u5: lanes start at the offset of -16, else at zero. */
INLINE void multiply_min(const int r, const bool u5, int n_blocks, const uint8_t *tile, const uint8_t *panel,
                         float *c) {
    for (int n = 0; n < n_blocks; n++) {
        __m256i sum[6][2];
        if (u5) {
#pragma GCC unroll 6
            for (int i = 0; i < r; i++) {
                sum[i][0] = sum[i][1] = broadcast4(tile + 44 * r + 4 * i);
            }
        }
#pragma GCC unroll 8
        for (int k = 0; k < 8; k++) {
            _mm_prefetch((const char *)panel + k * 64 + AHEAD, _MM_HINT_T0);
            const __m256i w0 = load(panel + k * 64), w1 = load(panel + k * 64 + 32);
#pragma GCC unroll 6
            for (int i = 0; i < r; i++) {
                if (k || u5) {
                    STEP("vpmaddubsw", "vpaddw", sum[i][0], sum[i][1], w0, w1, tile + (k * r + i) * 4);
                } else {
                    STEP_FIRST("vpmaddubsw", sum[i][0], sum[i][1], w0, w1, tile + i * 4);
                }
            }
        }
        const __m256 a0 = load_float(panel + 512), a1 = load_float(panel + 544);
        const __m256 b0 = load_float(panel + 576), b1 = load_float(panel + 608);
#pragma GCC unroll 6
        for (int i = 0; i < r; i++) {
            const __m256i e = broadcast4(tile + 32 * r + 4 * i);
            const __m256 es = broadcast_float(tile + 40 * r + 4 * i);
            flush_min(c + i * GEMM_COLUMNS, _mm256_madd_epi16(sum[i][0], e), a0, b0, es);
            flush_min(c + i * GEMM_COLUMNS + 8, _mm256_madd_epi16(sum[i][1], e), a1, b1, es);
        }
        tile += 56 * r;
        panel += 640;
    }
}

/* 6-bit weights with a scale per half block: the widening multiplication applies it. r rows of a tile of `stride` rows:
 * at most three, so that lanes and widened sums stay in registers together. */
INLINE void block_u6(const int r, const int stride, const uint8_t *tile, const uint8_t *panel, float *c) {
    __m256i wide[3][2];
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        __m256i sum[3][2];
#pragma GCC unroll 3
        for (int i = 0; i < r; i++) {
            sum[i][0] = sum[i][1] = broadcast4(tile + (48 + 4 * half) * stride + 4 * i);
        }
#pragma GCC unroll 4
        for (int k = half * 4; k < half * 4 + 4; k++) {
            _mm_prefetch((const char *)panel + k * 64 + AHEAD, _MM_HINT_T0);
            const __m256i w0 = load(panel + k * 64), w1 = load(panel + k * 64 + 32);
#pragma GCC unroll 3
            for (int i = 0; i < r; i++) {
                STEP("vpmaddubsw", "vpaddw", sum[i][0], sum[i][1], w0, w1, tile + (k * stride + i) * 4);
            }
        }
        const __m256i s0 = load(panel + 576 + half * 64), s1 = load(panel + 608 + half * 64);
#pragma GCC unroll 3
        for (int i = 0; i < r; i++) {
            const __m256i p0 = _mm256_madd_epi16(sum[i][0], s0), p1 = _mm256_madd_epi16(sum[i][1], s1);
            wide[i][0] = half ? _mm256_add_epi32(wide[i][0], p0) : p0;
            wide[i][1] = half ? _mm256_add_epi32(wide[i][1], p1) : p1;
        }
    }
    const __m256 a0 = load_float(panel + 512), a1 = load_float(panel + 544);
#pragma GCC unroll 3
    for (int i = 0; i < r; i++) {
        const __m256 e = broadcast_float(tile + 36 * stride + 4 * i);
        flush(c + i * GEMM_COLUMNS, wide[i][0], _mm256_mul_ps(a0, e));
        flush(c + i * GEMM_COLUMNS + 8, wide[i][1], _mm256_mul_ps(a1, e));
    }
}

INLINE void multiply_u6(const int r, int n_blocks, const uint8_t *tile, const uint8_t *panel, float *c) {
    for (int n = 0; n < n_blocks; n++) {
        block_u6(r < 3 ? r : 3, r, tile, panel, c);
        if (r > 3) {
            block_u6(r - 3, r, tile + 12, panel, c + 3 * GEMM_COLUMNS);
        }
        tile += 56 * r;
        panel += 704;
    }
}

INLINE void multiply_rows(const int r, enum gemm_format f, int n_blocks, const void *tile, const void *panel,
                          float *c) {
    switch (f) {
    case GEMM_S16: multiply_s16(r, n_blocks, tile, panel, c); break;
    case GEMM_U4: multiply_min(r, false, n_blocks, tile, panel, c); break;
    case GEMM_U5: multiply_min(r, true, n_blocks, tile, panel, c); break;
    case GEMM_U6: multiply_u6(r, n_blocks, tile, panel, c); break;
    default: break;
    }
}

static void multiply(enum gemm_format f, int r, int n_blocks, const void *tile, const void *panel, float *c) {
    switch (r) {
    case 1: multiply_rows(1, f, n_blocks, tile, panel, c); break;
    case 2: multiply_rows(2, f, n_blocks, tile, panel, c); break;
    case 3: multiply_rows(3, f, n_blocks, tile, panel, c); break;
    case 4: multiply_rows(4, f, n_blocks, tile, panel, c); break;
    case 5: multiply_rows(5, f, n_blocks, tile, panel, c); break;
    case 6: multiply_rows(6, f, n_blocks, tile, panel, c); break;
    default: break;
    }
}

const struct gemm_kernels gemm_kernels_avx2 = {
    .tile_rows = 6,
    .pack_s8 = gemm_pack_s8_avx2,
    .pack_s16 = gemm_pack_s16_avx2,
    .pack_weights = gemm_pack_weights_avx2,
    .multiply = multiply,
};
