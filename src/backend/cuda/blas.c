/* cuBLAS, opened at run time. */
#include "backend/cuda/blas.h"

#include <cublas_v2.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"

/* Work memory of products, given once: cuBLAS allocates none by itself then, and picks the same kernels every time. */
#define WORKSPACE ((size_t)32 << 20)

struct cuda_blas {
    void *library;
    cublasHandle_t handle;
    void *workspace;
    cublasStatus_t (*create)(cublasHandle_t *handle);
    cublasStatus_t (*destroy)(cublasHandle_t handle);
    cublasStatus_t (*set_stream)(cublasHandle_t handle, cudaStream_t stream);
    cublasStatus_t (*set_workspace)(cublasHandle_t handle, void *workspace, size_t bytes);
    cublasStatus_t (*gemm)(cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb, int m, int n,
                           int k, const void *alpha, const void *a, cudaDataType a_type, int lda, long long stride_a,
                           const void *b, cudaDataType b_type, int ldb, long long stride_b, const void *beta, void *c,
                           cudaDataType c_type, int ldc, long long stride_c, int batch,
                           cublasComputeType_t compute_type, cublasGemmAlgo_t algo);
};

/* The name carries the major version, which should be the runtime's; the functions used here are the same in all. */
#if CUDART_VERSION >= 13000
#define CUBLAS_NAME "libcublas.so.13"
#else
#define CUBLAS_NAME "libcublas.so.12"
#endif
static const char *const names[] = {CUBLAS_NAME, "/usr/local/cuda/lib64/" CUBLAS_NAME, "libcublas.so"};

static candid_status open_library(struct cuda_blas *blas, candid_error *error) {
    for (size_t i = 0; i < sizeof names / sizeof *names && !blas->library; i++) {
        blas->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    }
    if (!blas->library) {
        return fail(error, CANDID_ERROR_UNSUPPORTED,
                    "CUDA: expected cuBLAS (%s) where the loader finds it, found none: install it, set "
                    "LD_LIBRARY_PATH, or use --device cpu",
                    names[0]);
    }
    const struct {
        const char *name;
        void *to;
    } symbols[] = {{"cublasCreate_v2", &blas->create},
                   {"cublasDestroy_v2", &blas->destroy},
                   {"cublasSetStream_v2", &blas->set_stream},
                   {"cublasSetWorkspace_v2", &blas->set_workspace},
                   {"cublasGemmStridedBatchedEx", &blas->gemm}};
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *symbol = dlsym(blas->library, symbols[i].name);
        if (!symbol) {
            return fail(error, CANDID_ERROR_UNSUPPORTED, "CUDA: the cuBLAS found has no function %s", symbols[i].name);
        }
        memcpy(symbols[i].to, &symbol, sizeof symbol);
    }
    return CANDID_OK;
}

static candid_status check(cublasStatus_t status, const char *what, candid_error *error) {
    return status == CUBLAS_STATUS_SUCCESS
               ? CANDID_OK
               : fail(error, status == CUBLAS_STATUS_ALLOC_FAILED ? CANDID_ERROR_MEMORY : CANDID_ERROR_INTERNAL,
                      "CUDA: cuBLAS, %s: error %d", what, (int)status);
}

static candid_status start(struct cuda_blas *blas, cudaStream_t stream, candid_error *error) {
    TRY(open_library(blas, error));
    TRY(check(blas->create(&blas->handle), "starting", error));
    TRY(check(blas->set_stream(blas->handle, stream), "setting the stream", error));
    if (cudaMalloc(&blas->workspace, WORKSPACE) != cudaSuccess) {
        blas->workspace = NULL;
        return fail(error, CANDID_ERROR_MEMORY, "CUDA: cannot allocate %zu bytes for cuBLAS", WORKSPACE);
    }
    return check(blas->set_workspace(blas->handle, blas->workspace, WORKSPACE), "setting work memory", error);
}

candid_status cuda_blas_create(cudaStream_t stream, struct cuda_blas **out, candid_error *error) {
    struct cuda_blas *blas = calloc(1, sizeof *blas);
    if (!blas) {
        return fail_memory(error, "cuBLAS", sizeof *blas);
    }
    const candid_status status = start(blas, stream, error);
    if (status != CANDID_OK) {
        cuda_blas_free(blas);
        return status;
    }
    *out = blas;
    return CANDID_OK;
}

void cuda_blas_free(struct cuda_blas *blas) {
    if (!blas) {
        return;
    }
    if (blas->handle) {
        blas->destroy(blas->handle);
    }
    cudaFree(blas->workspace);
    if (blas->library) {
        dlclose(blas->library);
    }
    free(blas);
}

candid_status cuda_blas_product(struct cuda_blas *blas, const struct blas_product *p, candid_error *error) {
    const float zero = 0.0f;
    const cudaDataType type = p->type == CUDA_F32 ? CUDA_R_32F : p->type == CUDA_F16 ? CUDA_R_16F : CUDA_R_16BF;
    return check(blas->gemm(blas->handle, p->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, CUBLAS_OP_N, p->m, p->n, p->k,
                            &p->alpha, p->a, type, p->lda, p->stride_a, p->b, type, p->ldb, p->stride_b, &zero, p->c,
                            CUDA_R_32F, p->ldc, p->stride_c, p->batch, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                 "product", error);
}
