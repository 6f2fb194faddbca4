/*
 * Plain f32 arithmetic in the order of the textbook: what --precision exact runs and every fast kernel is tested
 * against.
 */
#ifndef CANDID_BACKEND_CPU_REFERENCE_H
#define CANDID_BACKEND_CPU_REFERENCE_H

#include "backend/backend.h"

/* ops->linear with weights decoded row by row to f32. */
candid_status reference_linear(const float *x, int n_rows, int n_in, const struct linear_job *jobs, int n_jobs,
                               int n_threads, candid_error *error);

void reference_rms_norm(float *out, const float *x, const float *weight, int n_rows, int n, float eps, int n_threads);
void reference_layer_norm(float *out, const float *x, const float *weight, const float *bias, int n_rows, int n,
                          float eps, int n_threads);
void reference_silu_mul(float *gate, const float *up, size_t n, int n_threads);
void reference_silu(float *x, size_t n, int n_threads);
void reference_gelu(float *x, size_t n, enum gelu_kind kind, int n_threads);

#endif
