/* The CPU's ops that plans need, apart from attention. Arguments as in backend.h. */
#ifndef CANDID_BACKEND_CPU_PLAN_OPS_H
#define CANDID_BACKEND_CPU_PLAN_OPS_H

#include "backend/backend.h"

void cpu_peaks(float *out, const float *x, int n_rows, int n, const int *dims, int n_dims, float eps, int n_threads);
void cpu_scale_heads(float *x, int n_rows, int n_head, int head_dim, const float *scale, int n_threads);
void cpu_steer(float *x, int n_rows, int n, const float *v, float strength, enum steer_mode mode, int n_threads);
void cpu_mix(float *out, float keep, const float *x, float add, size_t n);

#endif
