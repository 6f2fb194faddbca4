/*
 * AVX-512 VNNI kernels of the integer products: tiles of up to 12 rows x 16 columns.
 *
 * The packed layouts are those of AVX2: the 64 bytes of a step are one vector here. vpdpbusd and vpdpwssd add into
 * int32 themselves, so nothing needs widening.
 */
#include <immintrin.h>
#include <string.h>

#include "backend/cpu/gemm_internal.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __m512i broadcast4(const uint8_t *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

INLINE __m512 broadcast_float(const uint8_t *p) {
    float v;
    memcpy(&v, p, 4);
    return _mm512_set1_ps(v);
}

INLINE __m512i load(const uint8_t *p) {
    return _mm512_load_si512(p);
}

INLINE __m512 load_float(const uint8_t *p) {
    return _mm512_load_ps(p);
}

/* row += scale * sum */
INLINE void flush(float *row, __m512i sum, __m512 scale) {
    _mm512_store_ps(row, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, _mm512_load_ps(row)));
}

/* In the functions below r is a compile-time constant at every call: loops over rows unroll into registers. */

INLINE void multiply_s16(const int r, int n_blocks, const uint8_t *tile, const uint8_t *panel, float *c) {
    for (int n = 0; n < n_blocks; n++) {
        __m512i sum[12];
#pragma GCC unroll 12
        for (int i = 0; i < r; i++) {
            sum[i] = _mm512_setzero_si512();
        }
        for (int k = 0; k < GEMM_S16_BLOCK / 2; k++) {
            const __m512i w = load(panel);
#pragma GCC unroll 12
            for (int i = 0; i < r; i++) {
                sum[i] = _mm512_dpwssd_epi32(sum[i], w, broadcast4(tile + i * 4));
            }
            tile += 4 * r;
            panel += 64;
        }
        const __m512 a = load_float(panel);
#pragma GCC unroll 12
        for (int i = 0; i < r; i++) {
            flush(c + i * GEMM_COLUMNS, sum[i], _mm512_mul_ps(a, broadcast_float(tile + 4 * i)));
        }
        tile += 4 * r;
        panel += 64;
    }
}

/* sum[i] += products of the steps [begin, end) of a block */
INLINE void add_steps(const int r, const int begin, const int end, const uint8_t *tile, const uint8_t *panel,
                      __m512i sum[12]) {
#pragma GCC unroll 8
    for (int k = begin; k < end; k++) {
        const __m512i w = load(panel + k * 64);
#pragma GCC unroll 12
        for (int i = 0; i < r; i++) {
            sum[i] = _mm512_dpbusd_epi32(sum[i], w, broadcast4(tile + (k * r + i) * 4));
        }
    }
}

/* Start values: the sum of both lanes of the offset at p. */
INLINE __m512i start(const uint8_t *p) {
    return _mm512_madd_epi16(broadcast4(p), _mm512_set1_epi16(1));
}

INLINE void multiply_min(const int r, const bool u5, int n_blocks, const uint8_t *tile, const uint8_t *panel,
                         float *c) {
    for (int n = 0; n < n_blocks; n++) {
        const __m512 a = load_float(panel + 512), b = load_float(panel + 576);
        __m512i sum[12];
#pragma GCC unroll 12
        for (int i = 0; i < r; i++) {
            sum[i] = u5 ? start(tile + 44 * r + 4 * i) : _mm512_setzero_si512();
        }
        add_steps(r, 0, 8, tile, panel, sum);
#pragma GCC unroll 12
        for (int i = 0; i < r; i++) {
            float *row = c + i * GEMM_COLUMNS;
            const __m512i e = _mm512_srai_epi32(broadcast4(tile + 32 * r + 4 * i), 16);
            const __m512 es = broadcast_float(tile + 40 * r + 4 * i);
            _mm512_store_ps(row, _mm512_fnmadd_ps(b, es, _mm512_load_ps(row)));
            flush(row, _mm512_mullo_epi32(sum[i], e), a);
        }
        tile += 56 * r;
        panel += 640;
    }
}

INLINE void multiply_u6(const int r, int n_blocks, const uint8_t *tile, const uint8_t *panel, float *c) {
    for (int n = 0; n < n_blocks; n++) {
        __m512i total[12], sum[12];
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            const __m512i s = _mm512_srai_epi32(load(panel + 576 + half * 64), 16);
#pragma GCC unroll 12
            for (int i = 0; i < r; i++) {
                sum[i] = start(tile + (48 + 4 * half) * r + 4 * i);
            }
            add_steps(r, half * 4, half * 4 + 4, tile, panel, sum);
#pragma GCC unroll 12
            for (int i = 0; i < r; i++) {
                const __m512i product = _mm512_mullo_epi32(sum[i], s);
                total[i] = half ? _mm512_add_epi32(total[i], product) : product;
            }
        }
        const __m512 a = load_float(panel + 512);
#pragma GCC unroll 12
        for (int i = 0; i < r; i++) {
            flush(c + i * GEMM_COLUMNS, total[i], _mm512_mul_ps(a, broadcast_float(tile + 36 * r + 4 * i)));
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

#define ROWS(r)                                                                                                        \
    case r: multiply_rows(r, f, n_blocks, tile, panel, c); break

static void multiply(enum gemm_format f, int r, int n_blocks, const void *tile, const void *panel, float *c) {
    switch (r) {
        ROWS(1);
        ROWS(2);
        ROWS(3);
        ROWS(4);
        ROWS(5);
        ROWS(6);
        ROWS(7);
        ROWS(8);
        ROWS(9);
        ROWS(10);
        ROWS(11);
        ROWS(12);
    default: break;
    }
}

const struct gemm_kernels gemm_kernels_avx512 = {
    .tile_rows = 12,
    .pack_s8 = gemm_pack_s8_avx2,
    .pack_s16 = gemm_pack_s16_avx2,
    .pack_weights = gemm_pack_weights_avx2,
    .multiply = multiply,
};
