/*
 * Portable kernels of the integer products: the plain meaning of the packed layouts.
 *
 * They add in the order of the vector kernels, so results are equal bit for bit; the tests hold the others to that.
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/gemm_internal.h"

static float get_float(const uint8_t *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

static int get_i16(const uint8_t *p) {
    int16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Sum over the products of column j and row i in half a block (first or second 16 values), less `offset` per weight. */
static int half_sum(int r, const uint8_t *tile, const uint8_t *panel, int i, int j, int half, int offset) {
    int sum = 0;
    for (int k = half * 16; k < half * 16 + 16; k++) {
        sum += (panel[(k / 4 * GEMM_COLUMNS + j) * 4 + k % 4] - offset) * (int8_t)tile[(k / 4 * r + i) * 4 + k % 4];
    }
    return sum;
}

static float product_s16(int r, const uint8_t *tile, const uint8_t *panel, int i, int j, float c) {
    int32_t sum = 0;
    for (int k = 0; k < GEMM_S16_BLOCK; k++) {
        sum += get_i16(panel + (k / 2 * GEMM_COLUMNS + j) * 4 + k % 2 * 2) *
               get_i16(tile + (k / 2 * r + i) * 4 + k % 2 * 2);
    }
    return fmaf((float)sum, get_float(panel + 4096 + 4 * j) * get_float(tile + 256 * r + 4 * i), c);
}

static float product_u6(int r, const uint8_t *tile, const uint8_t *panel, int i, int j, float c) {
    const int32_t sum = get_i16(panel + 576 + 4 * j) * half_sum(r, tile, panel, i, j, 0, 32) +
                        get_i16(panel + 640 + 4 * j) * half_sum(r, tile, panel, i, j, 1, 32);
    return fmaf((float)sum, get_float(panel + 512 + 4 * j) * get_float(tile + 36 * r + 4 * i), c);
}

/* U4: offset 0, U5: offset 16 */
static float product_min(int offset, int r, const uint8_t *tile, const uint8_t *panel, int i, int j, float c) {
    const int sum = half_sum(r, tile, panel, i, j, 0, offset) + half_sum(r, tile, panel, i, j, 1, offset);
    c = fmaf(-get_float(panel + 576 + 4 * j), get_float(tile + 40 * r + 4 * i), c);
    return fmaf((float)(sum * get_i16(tile + 32 * r + 4 * i)), get_float(panel + 512 + 4 * j), c);
}

static void multiply(enum gemm_format f, int r, int n_blocks, const void *tile, const void *panel, float *c) {
    for (int n = 0; n < n_blocks; n++) {
        const uint8_t *t = (const uint8_t *)tile + (size_t)n * gemm_tile_bytes(f) * (size_t)r;
        const uint8_t *p = (const uint8_t *)panel + (size_t)n * gemm_panel_bytes(f);
        for (int i = 0; i < r; i++) {
            for (int j = 0; j < GEMM_COLUMNS; j++) {
                float *out = c + i * GEMM_COLUMNS + j;
                *out = f == GEMM_S16  ? product_s16(r, t, p, i, j, *out)
                       : f == GEMM_U6 ? product_u6(r, t, p, i, j, *out)
                                      : product_min(f == GEMM_U5 ? 16 : 0, r, t, p, i, j, *out);
            }
        }
    }
}

const struct gemm_kernels gemm_kernels_scalar = {
    .tile_rows = 6,
    .pack_s8 = gemm_pack_s8_portable,
    .pack_s16 = gemm_pack_s16_portable,
    .pack_weights = gemm_pack_weights_portable,
    .multiply = multiply,
};
