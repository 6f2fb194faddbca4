/*
 * The ops that plans are made of, on every backend, against loops in double precision: what they compute, and what a
 * method relies on (columns of heads that are not wanted, norms that steering keeps, the limit of strong steering).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/backends.h"
#include "lm/kv.h"

#define FOR_EACH_BACKEND(t, b)                                                                                         \
    for (const struct tested_backend *t = tested_backends; t < tested_backends + N_TESTED_BACKENDS; t++)               \
        for (struct backend *b = tested_backend_open(t); b; backend_destroy(b), b = NULL)

static uint64_t random_state = 3;

/* Uniform in [-1, 1). */
static float random_value(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(uint32_t)(random_state >> 33) / 1073741824.0f - 1.0f;
}

static float *random_floats(size_t n) {
    float *x = malloc((n + 1) * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) {
        x[i] = random_value();
    }
    return x;
}

static void near(const struct tested_backend *t, const char *what, double found, double expected, double tolerance) {
    if (!(fabs(found - expected) <= tolerance)) {
        fail_msg("%s, %s: found %.9g, expected %.9g", t->name, what, found, expected);
    }
}

/* ---- attention --------------------------------------------------------------------------------- */

/* probs[k], k < n: softmax of scale · q kₖ over the keys for which `sees` is not 0. */
static void oracle_probs(const float *q, const float *k, size_t stride, const uint8_t *sees, int n, int dim,
                         double scale, double *probs) {
    double highest = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) {
        probs[i] = 0;
        for (int d = 0; d < dim; d++) {
            probs[i] += (double)q[d] * (double)k[(size_t)i * stride + (size_t)d] * scale;
        }
        highest = sees[i] ? fmax(highest, probs[i]) : highest;
    }
    for (int i = 0; i < n; i++) {
        sum += probs[i] = sees[i] ? exp(probs[i] - highest) : 0;
    }
    for (int i = 0; i < n; i++) {
        probs[i] /= sum;
    }
}

/* A prompt of n_rows rows over n_keys keys; row r sees those up to its own, the first rows some later ones, too. */
static void check_columns(const struct tested_backend *t, struct backend *b, int n_head_kv, int group, int dim,
                          int n_keys, int n_rows) {
    const int n_head = n_head_kv * group, max_keys = n_keys + 3;
    const size_t kv_width = (size_t)(n_head_kv * dim), q_width = (size_t)(n_head * dim);
    const struct kv_shape shape = {2, n_head_kv, dim, true};
    struct kv_cache *cache = NULL;
    struct kv_seq *seq = NULL;
    assert_int_equal(kv_cache_create(b, &shape, n_keys + KV_BLOCK, &cache, NULL), CANDID_OK);
    assert_int_equal(kv_seq_create(cache, &seq, NULL), CANDID_OK);
    assert_int_equal(kv_reserve(seq, n_keys, NULL), CANDID_OK);
    struct attention_row *rows = calloc((size_t)n_keys, sizeof *rows);
    uint8_t *sees = malloc((size_t)n_keys), *heads = malloc((size_t)n_head);
    double *probs = malloc((size_t)n_keys * sizeof *probs),
           *expected = calloc((size_t)(n_head * max_keys), sizeof *expected);
    float *sums = malloc((size_t)(n_head * max_keys + 1) * sizeof *sums);
    assert_true(rows && sees && heads && probs && expected && sums);
    float *k = random_floats((size_t)n_keys * kv_width), *q = random_floats((size_t)n_rows * q_width);
    float *device_k = device_copy(b, k, (size_t)n_keys * kv_width),
          *device_q = device_copy(b, q, (size_t)n_rows * q_width);
    struct kv_attention a = {
        .shape = &shape, .layer = 1, .n_head = n_head, .rows = rows, .scale = 1.0f / sqrtf((float)dim)};
    for (int i = 0; i < n_keys; i++) {
        rows[i] = (struct attention_row){.blocks = seq->blocks, .index = kv_next_slot(seq), .n_keys = i + 1};
    }
    a.n_rows = n_keys;
    b->ops->kv_store(b, &a, device_k, device_k);
    a.n_rows = n_rows;
    a.max_keys = max_keys;
    for (int r = 0; r < n_rows; r++) {
        rows[r].n_keys = n_keys - n_rows + r + 1;
        if (r == 0 && n_rows > 2) {
            rows[r].also_begin = rows[r].n_keys + 1;
            rows[r].also_end = n_keys;
        }
    }
    for (int some = 0; some < 2; some++) {
        memset(expected, 0, (size_t)(n_head * max_keys) * sizeof *expected);
        for (int h = 0; h < n_head; h++) {
            heads[h] = h % 3 != 1;
            for (int r = 0; r < n_rows && (!some || heads[h]); r++) {
                for (int i = 0; i < n_keys; i++) {
                    sees[i] = i < rows[r].n_keys || (i >= rows[r].also_begin && i < rows[r].also_end);
                }
                oracle_probs(q + (size_t)r * q_width + (size_t)(h * dim), k + (size_t)(h / group * dim), kv_width, sees,
                             n_keys, dim, (double)a.scale, probs);
                for (int i = 0; i < n_keys; i++) {
                    expected[h * max_keys + i] += probs[i];
                }
            }
        }
        for (int i = 0; i <= n_head * max_keys; i++) {
            sums[i] = -7.0f;
        }
        assert_int_equal(b->ops->kv_columns(b, &a, device_q, some ? heads : NULL, sums, NULL), CANDID_OK);
        for (int i = 0; i < n_head * max_keys; i++) {
            near(t, "columns", (double)sums[i], expected[i], 1e-5);
        }
        assert_true(sums[n_head * max_keys] == -7.0f);
    }
    b->ops->release(b, device_k);
    b->ops->release(b, device_q);
    free(rows);
    free(sees);
    free(heads);
    free(probs);
    free(expected);
    free(sums);
    free(k);
    free(q);
    kv_seq_free(seq);
    kv_cache_free(cache);
}

static void columns(void **state) {
    (void)state;
    FOR_EACH_BACKEND(t, b) {
        check_columns(t, b, 2, 2, 40, 70, 70);
        check_columns(t, b, 1, 4, 32, 33, 5);
        check_columns(t, b, 3, 1, 64, 100, 1);
        check_columns(t, b, 1, 1, 8, 1, 1);
    }
}

static void one_row(void **state) {
    (void)state;
    static const int shapes[][3] = {{577, 3, 64}, {65, 5, 32}, {1, 1, 8}, {33, 2, 80}}; /* rows, heads, dim */
    FOR_EACH_BACKEND(t, b) {
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            const int n = shapes[s][0], n_head = shapes[s][1], dim = shapes[s][2];
            const size_t width = (size_t)(n_head * dim);
            float *q = random_floats(width), *k = random_floats((size_t)n * width);
            float *probs = random_floats((size_t)(n_head * n));
            double *expected = malloc((size_t)n * sizeof *expected);
            uint8_t *all = malloc((size_t)n);
            memset(all, 1, (size_t)n);
            float *device_q = device_copy(b, q, width), *device_k = device_copy(b, k, (size_t)n * width);
            assert_int_equal(b->ops->attend_row(b, device_q, device_k, probs, n, n_head, dim, 0.3f, NULL), CANDID_OK);
            for (int h = 0; h < n_head; h++) {
                oracle_probs(q + h * dim, k + h * dim, width, all, n, dim, (double)0.3f, expected);
                for (int i = 0; i < n; i++) {
                    near(t, "attend_row", (double)probs[h * n + i], expected[i], 1e-6);
                }
            }
            b->ops->release(b, device_q);
            b->ops->release(b, device_k);
            free(q);
            free(k);
            free(probs);
            free(expected);
            free(all);
        }
    }
}

/* ---- hidden states ------------------------------------------------------------------------------- */

static const int widths[] = {1, 3, 4, 7, 64, 100, 4096};
#define N_WIDTHS (sizeof widths / sizeof *widths)

static double norm_of(const float *x, int n) {
    double sum = 0;
    for (int d = 0; d < n; d++) {
        sum += (double)x[d] * (double)x[d];
    }
    return sqrt(sum);
}

static void peaks(void **state) {
    (void)state;
    FOR_EACH_BACKEND(t, b) {
        for (size_t w = 0; w < N_WIDTHS; w++) {
            const int n = widths[w], n_rows = 37, dims[] = {n - 1, 0, n / 2};
            float *x = random_floats((size_t)(n_rows * n)), found[38];
            memset(x + 5 * n, 0, (size_t)n * sizeof *x); /* a row of zeros has no peak */
            for (int d = 0; d < n; d++) {
                x[6 * n + d] *= 1e-4f; /* mean square near eps */
                x[7 * n + d] *= 1e15f; /* whose square sum is beyond f32 for wide rows */
            }
            float *device = device_copy(b, x, (size_t)(n_rows * n));
            for (int n_dims = 0; n_dims <= 3; n_dims++) {
                found[n_rows] = -7.0f;
                b->ops->peaks(b, found, device, n_rows, n, dims, n_dims, 1e-6f);
                for (int r = 0; r < n_rows; r++) {
                    const double norm = norm_of(x + r * n, n);
                    double expected = 0;
                    for (int i = 0; i < n_dims; i++) {
                        expected = fmax(expected, fabs((double)x[r * n + dims[i]]) / sqrt(norm * norm / n + 1e-6));
                    }
                    near(t, "peaks", (double)found[r], expected, 1e-6 + 1e-6 * expected);
                }
                assert_true(found[n_rows] == -7.0f);
            }
            b->ops->release(b, device);
            free(x);
        }
    }
}

static void heads_are_scaled(void **state) {
    (void)state;
    FOR_EACH_BACKEND(t, b) {
        const float scale[] = {1.0f, 2.0f, 0.0f, -0.5f, 1.0f};
        const int n_head = 5, dim = 7, n_rows = 9, n = n_rows * n_head * dim;
        float *x = random_floats((size_t)n), *found = malloc((size_t)n * sizeof *found);
        float *device = device_copy(b, x, (size_t)n);
        b->ops->scale_heads(b, device, n_rows, n_head, dim, scale);
        b->ops->download(b, found, device, (size_t)n * sizeof *found);
        for (int i = 0; i < n; i++) {
            assert_true(found[i] == x[i] * scale[i / dim % n_head]);
        }
        b->ops->release(b, device);
        free(x);
        free(found);
    }
}

/* y = |x| normalise(…), as the table of modes says. */
static void oracle_steer(const float *x, const float *v, int n, double s, enum steer_mode mode, double *y) {
    const double x_norm = norm_of(x, n), v_norm = fmax(norm_of(v, n), 1e-12);
    double dot = 0, square = 0;
    for (int d = 0; d < n; d++) {
        dot += (double)x[d] * (double)v[d];
    }
    const double cosine = dot / (fmax(x_norm, 1e-8) * fmax(v_norm, 1e-8));
    const double gain = mode == STEER_COSINE ? 1 + fmax(0, -cosine) : 1;
    for (int d = 0; d < n; d++) {
        y[d] = mode == STEER_RESIDUAL ? (double)x[d] + s * (double)v[d]
                                      : (double)x[d] / fmax(x_norm, 1e-12) + s * gain * (double)v[d] / v_norm;
        square += y[d] * y[d];
    }
    for (int d = 0; d < n; d++) {
        y[d] *= x_norm / fmax(sqrt(square), 1e-12);
    }
}

static void steering(void **state) {
    (void)state;
    static const float strengths[] = {0.0f, 0.17f, 3.0f, 1e12f};
    FOR_EACH_BACKEND(t, b) {
        for (size_t i = 0; i < N_WIDTHS * 12; i++) {
            const int n = widths[i % N_WIDTHS], n_rows = 11;
            const float s = strengths[i / N_WIDTHS % 4];
            const enum steer_mode mode = (enum steer_mode)(i / N_WIDTHS / 4);
            float *x = random_floats((size_t)(n_rows * n)), *v = random_floats((size_t)n);
            float *found = malloc((size_t)(n_rows * n) * sizeof *found);
            double *expected = malloc((size_t)n * sizeof *expected);
            memset(x + 2 * n, 0, (size_t)n * sizeof *x); /* a zero row stays one */
            for (int d = 0; d < n; d++) {
                x[3 * n + d] = -2.0f * v[d] + 1e-3f * random_value(); /* away from v: the cosine's gain is 2 */
                x[4 * n + d] *= 1e3f;
            }
            float *device = device_copy(b, x, (size_t)(n_rows * n));
            b->ops->steer(b, device, n_rows, n, v, s, mode);
            b->ops->download(b, found, device, (size_t)(n_rows * n) * sizeof *found);
            b->ops->release(b, device);
            for (int r = 0; r < n_rows; r++) {
                const float *row = x + r * n, *y = found + r * n;
                const double norm = norm_of(row, n);
                oracle_steer(row, v, n, (double)s, mode, expected);
                for (int d = 0; d < n; d++) {
                    near(t, "steer", (double)y[d], expected[d], 1e-5 * norm);
                    if (s == 0.0f) {
                        near(t, "steer by nothing", (double)y[d], (double)row[d], 1e-6 * norm);
                    } else if (s == 1e12f) {
                        near(t, "steer without end", (double)y[d], norm * (double)v[d] / norm_of(v, n), 1e-5 * norm);
                    }
                }
                near(t, "norm after steering", norm_of(y, n), norm, 1e-6 * norm);
            }
            free(x);
            free(v);
            free(found);
            free(expected);
        }
    }
}

static void mixes(void **state) {
    (void)state;
    FOR_EACH_BACKEND(t, b) {
        for (size_t w = 0; w < N_WIDTHS; w++) {
            const size_t n = (size_t)widths[w];
            float *x = random_floats(n), *y = random_floats(n), *found = malloc(n * sizeof *found);
            float *device_x = device_copy(b, x, n), *device_y = device_copy(b, y, n);
            b->ops->mix(b, device_y, 0.7f, device_x, 0.3f, n);
            b->ops->download(b, found, device_y, n * sizeof *found);
            for (size_t d = 0; d < n; d++) {
                near(t, "mix", (double)found[d], (double)0.7f * (double)y[d] + (double)0.3f * (double)x[d], 2e-7);
            }
            b->ops->release(b, device_x);
            b->ops->release(b, device_y);
            free(x);
            free(y);
            free(found);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns),          cmocka_unit_test(one_row),  cmocka_unit_test(peaks),
        cmocka_unit_test(heads_are_scaled), cmocka_unit_test(steering), cmocka_unit_test(mixes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
