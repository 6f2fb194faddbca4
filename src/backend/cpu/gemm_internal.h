/*
 * Inside the fast product of many activation rows: packed layouts, kernel table, paths.
 *
 * Both operands are packed to integers in blocks along the input dimension, each block with its own scale:
 *   S16    int16 weights x int16 activations (vpmaddwd), blocks of 128. A block is scaled so that its Euclidean norm
 *          stays below 2^15.5: by Cauchy-Schwarz no partial sum of a product of blocks can leave int32, and no bit is
 *          given away to worst-case head room.
 *   U4..U6 unsigned 4- to 6-bit weights x int8 activations (vpmaddubsw), blocks of 32, summed in int16 lanes. A lane
 *          takes 16 products of a block: 4-bit weights fit as they are (16*15*127 = 30480). 5-bit weights fit when
 *          taken as q - 16 (16*16*127 = 32512), for which the lanes start at -16 * (sum of their activations) and may
 *          wrap on the way. 6-bit weights have a scale per half block; 8 products of q - 32 (8*32*127 = 32512) fit.
 *          The scale of an activation block is an integer multiple e of the row's unit d. Widening the lanes to int32
 *          is a multiplication by pairs anyway (vpmaddwd), so the multiplication by e, or by the scale of a 6-bit half
 *          block, costs nothing: 2 * 32512 * 32767 < 2^31.
 * After each block the integer sums are converted and added to an f32 tile.
 *
 * Packed activations: a tile of r rows (r = tile_rows of the kernels, the last tile may be lower) begins with the
 * units float d[r], then per block
 *   S8:  int8 q[8][r][4]; int16 e[r][2] (twice the same); float ef[r] (e); float es[r] (e * sum of q);
 *        int16 h5[r][2] (-16 * sums of q[.][.][0..1] and q[.][.][2..3]);
 *        int16 h6[2][r][2] (-32 * the same over half a block)                            value = d * e * q
 *   S16: int16 q[64][r][2]; float e[r]                                                  value = d * e * q, d = 1
 * Packed weights: a panel of 16 output rows ("columns"), per block
 *   S16:    int16 q[64][16][2]; float a[16]                      value = a * q
 *   U4:     uint8 q[8][16][4]; float a[16]; float b[16]          value = a * q - b
 *   U5:     the same                                             value = a * (q - 16) - b
 *   U6:     uint8 q[8][16][4]; float a[16]; int16 s[2][16][2]    value = a * s * (q - 32), s twice for each half block
 */
#ifndef CANDID_BACKEND_CPU_GEMM_INTERNAL_H
#define CANDID_BACKEND_CPU_GEMM_INTERNAL_H

#include "backend/cpu/gemm.h"
#include "model/quant.h"

#define GEMM_COLUMNS   16  /* output features per panel */
#define GEMM_MAX_TILE  16  /* upper bound of tile_rows */
#define GEMM_S16_BLOCK 128 /* values per block */
#define GEMM_S8_BLOCK  32
#define GEMM_S16_NORM  46300.0f /* bound of a block's norm: (46300 + 0.5 * sqrt(128))^2 < 2^31 */
#define GEMM_S8_SCALE  32767    /* largest e of a row */
#define GEMM_TINY      1e-30f   /* blocks whose largest magnitude is smaller are zero */
#define GEMM_HUGE      3e38f    /* larger ones are infinite */
#define GEMM_SMALL     1e-12f   /* squares of magnitudes in this range are harmless */
#define GEMM_LARGE     1e12f

enum gemm_path {
    GEMM_SCALAR,      /* own integer kernels, portable C */
    GEMM_AVX2,        /* own integer kernels */
    GEMM_AVX512,      /* own integer kernels with VNNI */
    GEMM_ONEDNN_F32,  /* weights expanded to f32 */
    GEMM_ONEDNN_BF16, /* weights and activations rounded to bf16, sums in f32 */
};

/* Packed forms of weights. */
enum gemm_format { GEMM_S16, GEMM_U4, GEMM_U5, GEMM_U6, GEMM_FORMATS };

static inline int gemm_block(enum gemm_format f) {
    return f == GEMM_S16 ? GEMM_S16_BLOCK : GEMM_S8_BLOCK;
}

static inline int gemm_blocks(enum gemm_format f, int n_in) {
    return (n_in + gemm_block(f) - 1) / gemm_block(f);
}

/* Bytes per block of a weight panel. */
static inline size_t gemm_panel_bytes(enum gemm_format f) {
    static const size_t bytes[GEMM_FORMATS] = {64 * 64 + 64, 512 + 128, 512 + 128, 512 + 192};
    return bytes[f];
}

/* Bytes per row and block of packed activations for weights of format f. */
static inline size_t gemm_tile_bytes(enum gemm_format f) {
    return f == GEMM_S16 ? 256 + 4 : 32 + 24;
}

/* Bytes of a row of packed activations, its share of the tile header included. */
static inline size_t gemm_row_bytes(enum gemm_format f, int n_in) {
    return sizeof(float) + gemm_tile_bytes(f) * (size_t)gemm_blocks(f, n_in);
}

/* Values 0 .. n_in-1 of rows of a weight matrix, as the packers see it. */
struct gemm_weights {
    uint32_t type;
    const uint8_t *data;
    size_t row_bytes;
    int n_in;
    ptrdiff_t ahead; /* bytes from a weight to the one that will be packed in its place next, to prefetch */
};

struct gemm_kernels {
    int tile_rows; /* rows per activation tile, at most GEMM_MAX_TILE */

    /* Packs rows x[0..r-1] (n_in values each, x_stride apart) to one tile; n_in is padded with zeros to whole blocks.
     */
    void (*pack_s8)(const float *x, size_t x_stride, int r, int n_in, void *tile);
    void (*pack_s16)(const float *x, size_t x_stride, int r, int n_in, void *tile);

    /* Packs blocks [block, block + n_blocks) of rows [row, row + n), n <= 16, to a panel; the columns beyond n are
     * zero. f must be gemm_format_of(type) or GEMM_S16. */
    void (*pack_weights)(enum gemm_format f, const struct gemm_weights *w, int row, int n, int block, int n_blocks,
                         void *panel);

    /* c[r][16] += tile x panel over n_blocks blocks, in units of the rows' d. tile: first block, behind the header;
     * panel and c are 64-byte aligned. */
    void (*multiply)(enum gemm_format f, int r, int n_blocks, const void *tile, const void *panel, float *c);
};

extern const struct gemm_kernels gemm_kernels_scalar;
extern const struct gemm_kernels gemm_kernels_avx2;
extern const struct gemm_kernels gemm_kernels_avx512;

/* The narrow packed form of a weight type; GEMM_S16 for those that have none. */
enum gemm_format gemm_format_of(uint32_t type);

/* ---- portable packing (gemm_pack.c) ---- */

void gemm_pack_s8_portable(const float *x, size_t x_stride, int r, int n_in, void *tile);
void gemm_pack_s16_portable(const float *x, size_t x_stride, int r, int n_in, void *tile);
void gemm_pack_weights_portable(enum gemm_format f, const struct gemm_weights *w, int row, int n, int block,
                                int n_blocks, void *panel);

/* ---- AVX2 packing (gemm_pack_avx2.c); equal to the portable packing bit for bit ---- */

void gemm_pack_s8_avx2(const float *x, size_t x_stride, int r, int n_in, void *tile);
void gemm_pack_s16_avx2(const float *x, size_t x_stride, int r, int n_in, void *tile);
void gemm_pack_weights_avx2(enum gemm_format f, const struct gemm_weights *w, int row, int n, int block, int n_blocks,
                            void *panel);

/* quant_dequantize of one row, faster for the types that are not K types. */
void gemm_decode_avx2(uint32_t type, const void *src, float *dst, int n);

/* ---- oneDNN (gemm_onednn.c) ---- */

struct gemm_onednn; /* engine, stream, cached primitives, scratch */

/* bf16: else f32. CANDID_ERROR_UNSUPPORTED when the library cannot do it on this processor. */
candid_status gemm_onednn_create(bool bf16, int n_threads, struct gemm_onednn **out, candid_error *error);
void gemm_onednn_free(struct gemm_onednn *o);
candid_status gemm_onednn_linear(struct gemm_onednn *o, const float *x, int n_rows, int n_in,
                                 const struct linear_job *jobs, int n_jobs, candid_error *error);

/* ---- for tests and benchmarks ---- */

/* Whether the path can run here. */
bool gemm_path_available(enum gemm_path path);

/* gemm_create with a given path; int16_only: GEMM_S16 for every weight type (own paths). */
candid_status gemm_create_with(enum gemm_path path, bool int16_only, int n_threads, struct gemm **out,
                               candid_error *error);

#endif
