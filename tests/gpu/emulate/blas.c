/* Matrix products in plain loops, in place of cuBLAS. Sums in double: any order would be allowed. */
#include "backend/cuda/blas.h"

#include <stdlib.h>

#include "core/status.h"
#include "model/quant.h"

candid_status cuda_blas_create(cudaStream_t stream, struct cuda_blas **out, candid_error *error) {
    *out = malloc(1);
    return *out ? CANDID_OK : fail_memory(error, "cuBLAS", 1);
}

void cuda_blas_free(struct cuda_blas *blas) {
    free(blas);
}

static double element(enum cuda_float type, const void *x, long long at) {
    return type == CUDA_F32   ? (double)((const float *)x)[at]
           : type == CUDA_F16 ? (double)f16_to_f32(((const uint16_t *)x)[at])
                              : (double)bf16_to_f32(((const uint16_t *)x)[at]);
}

candid_status cuda_blas_product(struct cuda_blas *blas, const struct blas_product *p, candid_error *error) {
    if (p->m < 1 || p->n < 1 || p->k < 1 || p->lda < (p->transpose_a ? p->k : p->m) || p->ldb < p->k || p->ldc < p->m) {
        return fail(error, CANDID_ERROR_INTERNAL, "product of (%d, %d, %d) with rows of %d, %d, %d", p->m, p->n, p->k,
                    p->lda, p->ldb, p->ldc);
    }
    for (int i = 0; i < p->batch; i++) {
        for (int n = 0; n < p->n; n++) {
            for (int m = 0; m < p->m; m++) {
                double sum = 0;
                for (int k = 0; k < p->k; k++) {
                    const long long a = p->transpose_a ? (long long)m * p->lda + k : (long long)k * p->lda + m;
                    sum += element(p->type, p->a, i * p->stride_a + a) *
                           element(p->type, p->b, i * p->stride_b + (long long)n * p->ldb + k);
                }
                p->c[i * p->stride_c + (long long)n * p->ldc + m] = (float)((double)p->alpha * sum);
            }
        }
    }
    return CANDID_OK;
}
