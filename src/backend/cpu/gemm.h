/*
 * Products of stored weights with many activation rows: prefill and image encoder, the fast path.
 *
 * Threaded inside (OpenMP). Reads the weights in the file's format: panels are unpacked into cache-sized scratch
 * memory on the fly, no second copy of the model is kept.
 */
#ifndef CANDID_BACKEND_CPU_GEMM_H
#define CANDID_BACKEND_CPU_GEMM_H

#include "backend/backend.h"
#include "backend/cpu/features.h"

struct gemm; /* scratch memory and cached primitives; belongs to one thread at a time */

candid_status gemm_create(struct cpu_features features, int n_threads, struct gemm **out, candid_error *error);
void gemm_free(struct gemm *g);

/* How products are computed here, e.g. "own avx2 int16" or "onednn bf16"; static. */
const char *gemm_description(const struct gemm *g);

/* ops->linear for many rows: every job's out = x Wᵀ + bias. */
candid_status gemm_linear(struct gemm *g, const float *x, int n_rows, int n_in, const struct linear_job *jobs,
                          int n_jobs, candid_error *error);

#endif
