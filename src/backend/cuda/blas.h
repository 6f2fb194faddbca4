/*
 * Matrix products by cuBLAS. The library is opened at run time (dlopen) when the first backend of the fast path is
 * made: it has half a gigabyte, is not on machines without a CUDA toolkit, and candid must load there. Without it
 * --device cuda fails with a sentence and everything else works.
 */
#ifndef CANDID_BACKEND_CUDA_BLAS_H
#define CANDID_BACKEND_CUDA_BLAS_H

#include <cuda_runtime_api.h>

#include "backend/backend.h"
#include "backend/cuda/kernels.h"

struct cuda_blas;

/* `batch` products C = alpha · op(A) · B of column-major matrices, op(A) (m, k), B (k, n), C (m, n) in f32, sums in
 * f32. Each product's matrices lie a stride (in elements) behind the one before. */
struct blas_product {
    bool transpose_a;
    int m, n, k;
    float alpha;
    enum cuda_float type; /* of A and B */
    const void *a, *b;
    float *c;
    int lda, ldb, ldc;
    long long stride_a, stride_b, stride_c;
    int batch;
};

candid_status cuda_blas_create(cudaStream_t stream, struct cuda_blas **out, candid_error *error);
void cuda_blas_free(struct cuda_blas *blas);
candid_status cuda_blas_product(struct cuda_blas *blas, const struct blas_product *p, candid_error *error);

#endif
