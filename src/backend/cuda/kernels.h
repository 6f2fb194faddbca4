/*
 * Launchers of the CUDA kernels: what the C part of the backend calls. All pointers are device memory unless a comment
 * says host; every launch is asynchronous on `stream`. Errors of a launch are found by the caller (cudaGetLastError).
 */
#ifndef CANDID_BACKEND_CUDA_KERNELS_H
#define CANDID_BACKEND_CUDA_KERNELS_H

#include <cuda_runtime_api.h>

#include "backend/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- element-wise (elementwise.cu) ---- */

void cuda_add(cudaStream_t stream, float *x, const float *y, size_t n);
void cuda_silu_mul(cudaStream_t stream, float *gate, const float *up, size_t n);
void cuda_silu(cudaStream_t stream, float *x, size_t n);
void cuda_gelu(cudaStream_t stream, float *x, size_t n, enum gelu_kind kind);
void cuda_mix(cudaStream_t stream, float *out, float keep, const float *x, float add, size_t n);
/* out (n_rows, n_out) += bias (n_out) */
void cuda_add_bias(cudaStream_t stream, float *out, const float *bias, int n_rows, int n_out);
void cuda_to_f16(cudaStream_t stream, uint16_t *out, const float *x, size_t n);
void cuda_to_bf16(cudaStream_t stream, uint16_t *out, const float *x, size_t n);
void cuda_scale_heads(cudaStream_t stream, float *x, int n_rows, int n_head, int head_dim, const float *scale);
/* inv_freq (n_dims/2), already with the factors and the scale of positions */
void cuda_rope_table(cudaStream_t stream, float *table, const int32_t *positions, const float *inv_freq, int n_rows,
                     int half);
void cuda_rope(cudaStream_t stream, float *x, const float *table, int n_rows, int n_head, int head_dim, int n_dims,
               bool adjacent_pairs);

/* ---- rows (rows.cu): one block a row ---- */

void cuda_rms_norm(cudaStream_t stream, float *out, const float *x, const float *weight, int n_rows, int n, float eps);
void cuda_layer_norm(cudaStream_t stream, float *out, const float *x, const float *weight, const float *bias,
                     int n_rows, int n, float eps);
void cuda_peaks(cudaStream_t stream, float *out, const float *x, int n_rows, int n, const int *dims, int n_dims,
                float eps);
void cuda_steer(cudaStream_t stream, float *x, int n_rows, int n, const float *v, float strength, enum steer_mode mode);

/* ---- weights (dequantize.cu, matvec.cu) ---- */

/*
 * A weight matrix in device memory. Q8_0, Q4_0 and Q6_K are stored in two planes, because blocks of 34, 18 and 210
 * bytes would rule out aligned wide loads (see cuda_repack): `main` holds the codes, 32, 16 and 208 bytes a block,
 * `scales` the f16 factors d, one a block. All other types are in `main` as in the file.
 */
struct cuda_matrix {
    uint32_t type;
    int n_out, n_in;
    const void *main;
    const uint16_t *scales;
};

enum cuda_float { CUDA_F32, CUDA_F16, CUDA_BF16 };

/* out (n_rows, w->n_in) in `to` = rows first .. first+n_rows-1 of w. */
void cuda_dequantize(cudaStream_t stream, void *out, enum cuda_float to, const struct cuda_matrix *w, int first,
                     int n_rows);
/* out (n, w->n_in) = rows ids[0..n-1] of w */
void cuda_embed(cudaStream_t stream, float *out, const struct cuda_matrix *w, const int32_t *ids, int n);
/* out (n_rows, ld_out), columns 0 .. n_out-1 = x (n_rows, n_in) · w (n_out, n_in)ᵀ + bias (may be NULL): one running
 * sum each, in the order of the columns. */
void cuda_exact_product(cudaStream_t stream, float *out, int ld_out, const float *x, const float *w, const float *bias,
                        int n_rows, int n_in, int n_out);

#define CUDA_FEW_ROWS 8 /* rows of one matrix-vector launch */

/* Rounded activations for the matrix-vector products of quantised weights: codes (n_rows, n) int8, scale (n_rows,
 * n/32), sums (n_rows, n/16): scale times the sum of 16 codes. n is a multiple of 32. */
struct cuda_rounded {
    int8_t *codes;
    float *scale, *sums;
};
void cuda_round_rows(cudaStream_t stream, const struct cuda_rounded *out, const float *x, int n_rows, int n);
/* Few rows. x is used by F32, F16 and BF16 weights, `rounded` by the others. out (n_rows, w->n_out). */
void cuda_matvec(cudaStream_t stream, float *out, const struct cuda_matrix *w, const float *x,
                 const struct cuda_rounded *rounded, const float *bias, int n_rows);

#ifdef __cplusplus
}
#endif

#endif
