/* Ops of plans in plain loops the compiler vectorises; sums in double, so that they do not depend on its choices. */
#include "backend/cpu/plan_ops.h"

#include <math.h>

static double dot(const float *a, const float *b, int n) {
    double sum[4] = {0};
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        for (int j = 0; j < 4; j++) {
            sum[j] += (double)a[i + j] * (double)b[i + j];
        }
    }
    for (; i < n; i++) {
        sum[0] += (double)a[i] * (double)b[i];
    }
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

void cpu_peaks(float *out, const float *x, int n_rows, int n, const int *dims, int n_dims, float eps, int n_threads) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (int r = 0; r < n_rows; r++) {
        const float *row = x + (size_t)r * (size_t)n;
        const double scale = 1.0 / sqrt(dot(row, row, n) / n + (double)eps);
        float highest = 0.0f;
        for (int i = 0; i < n_dims; i++) {
            highest = fmaxf(highest, (float)(fabs((double)row[dims[i]]) * scale));
        }
        out[r] = highest;
    }
}

void cpu_scale_heads(float *x, int n_rows, int n_head, int head_dim, const float *scale, int n_threads) {
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (int r = 0; r < n_rows; r++) {
        for (int h = 0; h < n_head; h++) {
            float *head = x + ((size_t)r * (size_t)n_head + (size_t)h) * (size_t)head_dim;
            for (int d = 0; scale[h] != 1.0f && d < head_dim; d++) {
                head[d] *= scale[h];
            }
        }
    }
}

/* x = a x + b v, scaled to length `norm`. */
static void push(float *x, double a, const float *v, double b, double norm, int n) {
    double square = 0.0;
    for (int d = 0; d < n; d++) {
        const double y = a * (double)x[d] + b * (double)v[d];
        square += y * y;
    }
    const double scale = norm / fmax(sqrt(square), 1e-12);
    for (int d = 0; d < n; d++) {
        x[d] = (float)((a * (double)x[d] + b * (double)v[d]) * scale);
    }
}

void cpu_steer(float *x, int n_rows, int n, const float *v, float strength, enum steer_mode mode, int n_threads) {
    const double v_norm = fmax(sqrt(dot(v, v, n)), 1e-12);
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (int r = 0; r < n_rows; r++) {
        float *row = x + (size_t)r * (size_t)n;
        const double norm = sqrt(dot(row, row, n));
        if (mode == STEER_RESIDUAL) {
            push(row, 1.0, v, (double)strength, norm, n);
            continue;
        }
        double gain = 1.0;
        if (mode == STEER_COSINE) {
            /* torch's cosine_similarity bounds each norm from below by 1e-8 */
            gain += fmax(0.0, -dot(row, v, n) / (fmax(norm, 1e-8) * fmax(v_norm, 1e-8)));
        }
        push(row, 1.0 / fmax(norm, 1e-12), v, (double)strength * gain / v_norm, norm, n);
    }
}

void cpu_mix(float *out, float keep, const float *x, float add, size_t n) {
    for (size_t i = 0; i < n; i++) {
        out[i] = keep * out[i] + add * x[i];
    }
}
