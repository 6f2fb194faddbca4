/* Plain f32 arithmetic: the reference path of the CPU backend. */
#include "backend/cpu/reference.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "core/sanitize.h"
#include "core/status.h"
#include "model/quant.h"

/*
 * Eight running sums: a fixed order that the compiler may vectorise, and a smaller rounding error than one sum. A check
 * of every access makes this fifty times slower under AddressSanitizer, so there dot() checks both rows as a whole.
 */
__attribute__((no_sanitize("address", "undefined"))) static float dot_unchecked(const float *a, const float *b, int n) {
    float sums[8] = {0};
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        for (int j = 0; j < 8; j++) {
            sums[j] += a[i + j] * b[i + j];
        }
    }
    for (; i < n; i++) {
        sums[i & 7] += a[i] * b[i];
    }
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

static float dot(const float *a, const float *b, int n) {
    sanitize_readable(a, (size_t)n * sizeof *a);
    sanitize_readable(b, (size_t)n * sizeof *b);
    return dot_unchecked(a, b, n);
}

static float sum(const float *a, int n) {
    float sums[8] = {0};
    for (int i = 0; i < n; i++) {
        sums[i & 7] += a[i];
    }
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

candid_status reference_linear(const float *x, int n_rows, int n_in, const struct linear_job *jobs, int n_jobs,
                               int n_threads, candid_error *error) {
    float *decoded = malloc((size_t)n_threads * (size_t)n_in * sizeof *decoded); /* a weight row per thread */
    if (!decoded) {
        return fail_memory(error, "a decoded weight row", (size_t)n_threads * (size_t)n_in * sizeof *decoded);
    }
    for (int j = 0; j < n_jobs; j++) {
        const struct linear_job *job = &jobs[j];
        const struct matrix *w = job->w;
        const size_t row_bytes = quant_row_bytes(w->type, n_in);
#pragma omp parallel num_threads(n_threads)
        {
            float *row = decoded + (size_t)omp_get_thread_num() * (size_t)n_in;
#pragma omp for schedule(static)
            for (int o = 0; o < w->n_out; o++) {
                quant_dequantize(w->type, (const char *)w->data + (size_t)o * row_bytes, row, n_in);
                for (int r = 0; r < n_rows; r++) {
                    float bias = job->bias ? job->bias[o] : 0.0f;
                    job->out[(size_t)r * (size_t)w->n_out + (size_t)o] =
                        dot(row, x + (size_t)r * (size_t)n_in, n_in) + bias;
                }
            }
        }
    }
    free(decoded);
    return CANDID_OK;
}

void reference_rms_norm(float *out, const float *x, const float *weight, int n_rows, int n, float eps, int n_threads) {
#pragma omp parallel for num_threads(n_threads) schedule(static) if (n_rows > 4)
    for (int r = 0; r < n_rows; r++) {
        const float *in = x + (size_t)r * (size_t)n;
        float *to = out + (size_t)r * (size_t)n;
        float scale = 1.0f / sqrtf(dot(in, in, n) / (float)n + eps);
        for (int i = 0; i < n; i++) {
            to[i] = weight[i] * (in[i] * scale);
        }
    }
}

void reference_layer_norm(float *out, const float *x, const float *weight, const float *bias, int n_rows, int n,
                          float eps, int n_threads) {
#pragma omp parallel for num_threads(n_threads) schedule(static) if (n_rows > 4)
    for (int r = 0; r < n_rows; r++) {
        const float *in = x + (size_t)r * (size_t)n;
        float *to = out + (size_t)r * (size_t)n;
        const float mean = sum(in, n) / (float)n;
        for (int i = 0; i < n; i++) {
            to[i] = in[i] - mean;
        }
        const float scale = 1.0f / sqrtf(dot(to, to, n) / (float)n + eps);
        for (int i = 0; i < n; i++) {
            to[i] = to[i] * scale * weight[i] + bias[i];
        }
    }
}

void reference_silu_mul(float *gate, const float *up, size_t n, int n_threads) {
#pragma omp parallel for num_threads(n_threads) schedule(static) if (n > 16384)
    for (size_t i = 0; i < n; i++) {
        gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
    }
}

void reference_silu(float *x, size_t n, int n_threads) {
#pragma omp parallel for num_threads(n_threads) schedule(static) if (n > 16384)
    for (size_t i = 0; i < n; i++) {
        x[i] = x[i] / (1.0f + expf(-x[i]));
    }
}

void reference_gelu(float *x, size_t n, enum gelu_kind kind, int n_threads) {
#pragma omp parallel for num_threads(n_threads) schedule(static) if (n > 16384)
    for (size_t i = 0; i < n; i++) {
        if (kind == GELU_ERF) {
            x[i] = 0.5f * x[i] * (1.0f + erff(x[i] * 0.70710678f));
        } else {
            x[i] = x[i] / (1.0f + expf(-1.702f * x[i]));
        }
    }
}
