/*
 * Element-wise functions and norms of single rows, vectorised: the fast path beside the linear products.
 *
 * Single-threaded; the caller splits. A result does not depend on where in the array its value lies. NaN stays NaN.
 */
#ifndef CANDID_BACKEND_CPU_VECOPS_H
#define CANDID_BACKEND_CPU_VECOPS_H

#include <stddef.h>

#include "backend/cpu/features.h"

struct vec_kernels {
    void (*exp)(float *x, size_t n);                          /* x = e^x, within 2e-7 relative */
    void (*silu)(float *x, size_t n);                         /* x = x / (1 + e^-x) */
    void (*silu_mul)(float *gate, const float *up, size_t n); /* gate = silu(gate) * up */
    void (*gelu_quick)(float *x, size_t n);                   /* x = x / (1 + e^(-1.702 x)) */
    void (*gelu_erf)(float *x, size_t n);                     /* x = x (1 + erf(x / √2)) / 2 */
    /* out = x / sqrt(mean(x²) + eps) * weight; out may be x. */
    void (*rms_norm)(float *out, const float *x, const float *weight, size_t n, float eps);
};

/* The best kernels for the family. Never NULL. */
const struct vec_kernels *vec_kernels_get(enum cpu_isa isa);

#if defined(__x86_64__)
extern const struct vec_kernels vec_avx2;
#endif

#endif
