/* clang-format off */
/*
 * What the matvec families share: their tables and the partner formats, the memory layout of a prepared row.
 *
 * A prepared row of n values, by weight type (arrays follow each other without gaps, the row is padded to 64 bytes):
 *   Q8_0           int8 q[n], f32 d[B]                    x ≈ d q per block of 32; B = n/32 rounded up to a multiple of 8
 *   Q4_0           int8 q[n], f32 d[B], f32 offset[B]     offset = -8 d Σq: what the -8 in the weights contributes
 *   Q4_K, Q5_K     int8 q[n], int16 sums[n/32], f32 d[n/256]    x ≈ d q per super-block of 256, sums of q
 *   Q6_K           int8 q[n], int16 sums[n/16], f32 d[n/256]
 *   F32, F16, BF16 f32 x[n rounded up to a multiple of 16]      no rounding; zeros behind n
 *
 * |q| <= 127, so that the sign trick and 16-bit pair sums cannot overflow. The d and offset of blocks behind n/32 are
 * zero. A block with a NaN or an infinity gets d = NaN and q = 0, so that the products show it.
 */
/* clang-format on */
#ifndef CANDID_BACKEND_CPU_MATVEC_KERNELS_H
#define CANDID_BACKEND_CPU_MATVEC_KERNELS_H

#include "backend/cpu/matvec.h"
#include "model/quant.h"

extern const struct matvec_kernels matvec_scalar;
#if defined(__x86_64__)
extern const struct matvec_kernels matvec_avx2, matvec_avx512;
#elif defined(__aarch64__)
extern const struct matvec_kernels matvec_neon;
#endif

/* The portable implementations, for families that need no own. */
size_t matvec_prepared_bytes(uint32_t type, int n_in);
void matvec_prepare(uint32_t type, const float *x, int n_in, void *prepared);

/* Blocks smaller than this are rounded to zero: the reciprocal of their scale would overflow. */
#define MATVEC_TINY 1e-36f

/* Elements of d (and of offset) in a prepared row of n_in values for Q8_0 and Q4_0. */
static inline size_t matvec_padded_blocks(int n_in) {
    return ((size_t)n_in / QK + 7) & ~(size_t)7;
}

/* The arrays of one prepared row. */
struct partner_blocks { /* Q8_0, Q4_0 */
    const int8_t *q;
    const float *d, *offset; /* offset: Q4_0 only */
};
struct partner_super { /* Q4_K, Q5_K, Q6_K */
    const int8_t *q;
    const int16_t *sums;
    const float *d;
};

static inline struct partner_blocks matvec_partner_blocks(const void *prepared, int n_in) {
    const float *d = (const float *)((const char *)prepared + n_in);
    return (struct partner_blocks){(const int8_t *)prepared, d, d + matvec_padded_blocks(n_in)};
}

static inline struct partner_super matvec_partner_super(const void *prepared, int n_in, int values_per_sum) {
    const int16_t *sums = (const int16_t *)((const char *)prepared + n_in);
    return (struct partner_super){(const int8_t *)prepared, sums, (const float *)(sums + n_in / values_per_sum)};
}

#endif
