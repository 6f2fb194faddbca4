/*
 * Products of stored weight rows with a few activation rows: the decode path.
 *
 * Activations are rounded once to a partner format (blocks of int8 with a scale), then every weight row is read
 * once and multiplied with up to MATVEC_MAX_ROWS activation rows, so extra rows (beams, contrastive branches) cost
 * little beside the memory traffic of the weights. Kernels are single-threaded; the caller splits the weight rows.
 */
#ifndef CANDID_BACKEND_CPU_MATVEC_H
#define CANDID_BACKEND_CPU_MATVEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/cpu/features.h"

#define MATVEC_MAX_ROWS 32

struct matvec_kernels {
    /* Bytes of one prepared activation row of n_in values (a multiple of 64) for weights of `type`. */
    size_t (*prepared_bytes)(uint32_t type, int n_in);
    /* Rounds x (n_in values) to the partner format of `type`. */
    void (*prepare)(uint32_t type, const float *x, int n_in, void *prepared);
    /*
     * out[r * out_stride + i] = weight row (row_begin + i) · activation row r, for r < n_x <= MATVEC_MAX_ROWS and
     * i < row_end - row_begin. w: first byte of the matrix; prepared: n_x rows, prepared_bytes apart.
     */
    void (*multiply)(uint32_t type, const void *w, int n_in, int row_begin, int row_end, const void *prepared, int n_x,
                     float *out, int out_stride);
};

/*
 * How many activation rows are multiplied here, more by gemm.h, which unpacks the weights first. Q8_0 becomes int16
 * there, with scales to be found for every 128 values, which costs as much as 16 rows: those of a decoding step do
 * without.
 */
int matvec_most_rows(uint32_t type, bool step);

/* The family's kernels; all types that quant_type_supported() names. Never NULL for an available family. */
const struct matvec_kernels *matvec_kernels_get(enum cpu_isa isa);

#endif
