/* Element-wise kernels of every family against the same functions in double precision. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cpu/vecops.h"

#define FOR_EACH_FAMILY(k)                                                                                             \
    for (int isa_ = ISA_SCALAR; isa_ <= ISA_AVX512; isa_++)                                                            \
        for (const struct vec_kernels *k = cpu_isa_available((enum cpu_isa)isa_) ? vec_kernels_get((enum cpu_isa)isa_) \
                                                                                 : NULL;                               \
             k; k = NULL)

static double exact_silu(double x) {
    return x / (1 + exp(-x));
}
static double exact_gelu_quick(double x) {
    return x / (1 + exp(-(double)1.702f * x));
}
static double exact_gelu_erf(double x) {
    return x / 2 * erfc(-x / sqrt(2.0));
}

/* Sweeps [low, high]: |error| <= relative |exact| + absolute |x| + tiny: e^x overflows where the quotient would still
 * be a number near the smallest ones. */
static void sweep(void (*kernel)(float *, size_t), double (*exact)(double), float low, float high, double relative,
                  double absolute) {
    enum { N = 200001 };
    float *x = malloc(N * sizeof(float)), *y = malloc(N * sizeof(float));
    assert_non_null(x);
    assert_non_null(y);
    for (int i = 0; i < N; i++) {
        x[i] = low + (high - low) * (float)i / (N - 1);
    }
    memcpy(y, x, N * sizeof(float));
    kernel(y, N);
    for (int i = 0; i < N; i++) {
        double want = exact(x[i]), bound = relative * fabs(want) + absolute * fabs((double)x[i]) + 3e-37;
        if (!(fabs(y[i] - want) <= bound)) {
            fail_msg("f(%.9g) = %.9g, expected %.9g within %.3g", (double)x[i], (double)y[i], want, bound);
        }
    }
    free(x);
    free(y);
}

static void test_accuracy(void **state) {
    FOR_EACH_FAMILY(k) {
        sweep(k->exp, exp, -87.3f, 88.7f, 2e-7, 0);
        sweep(k->exp, exp, -1.0f, 1.0f, 2e-7, 0);
        sweep(k->exp, exp, -120.0f, -87.0f, 2e-7, 0);
        /* e^-x carries the rounding of its argument, hence the larger bound far below zero */
        sweep(k->silu, exact_silu, -20.0f, 20.0f, 4e-7, 0);
        sweep(k->silu, exact_silu, -100.0f, 100.0f, 1e-6, 0);
        sweep(k->gelu_quick, exact_gelu_quick, -10.0f, 10.0f, 2e-6, 0);
        sweep(k->gelu_quick, exact_gelu_quick, -60.0f, 60.0f, 1e-5, 0);
        sweep(k->gelu_erf, exact_gelu_erf, -10.0f, 10.0f, 2e-7, 1.2e-7);
        sweep(k->gelu_erf, exact_gelu_erf, -0.5f, 20.0f, 3e-7, 0);
    }
}

static void test_special_values(void **state) {
    FOR_EACH_FAMILY(k) {
        float x[] = {NAN, INFINITY, -INFINITY, 0.0f, -1e30f, 1e30f};
        enum { N = sizeof x / sizeof x[0] };
        float y[N];
        memcpy(y, x, sizeof x);
        k->exp(y, N);
        assert_true(isnan(y[0]));
        assert_true(isinf(y[1]) && y[1] > 0);
        assert_true(y[2] == 0.0f && y[3] == 1.0f && y[4] == 0.0f && isinf(y[5]));
        void (*const functions[])(float *, size_t) = {k->silu, k->gelu_quick, k->gelu_erf};
        for (size_t f = 0; f < 3; f++) {
            memcpy(y, x, sizeof x);
            functions[f](y, N);
            assert_true(isnan(y[0]));
            assert_true(isinf(y[1]) && y[1] > 0);
            assert_true(y[3] == 0.0f && y[4] == 0.0f && y[5] == 1e30f);
        }
    }
}

/* Every length, results independent of the place, nothing written behind the end. */
static void test_lengths(void **state) {
    FOR_EACH_FAMILY(k) {
        void (*const functions[])(float *, size_t) = {k->exp, k->silu, k->gelu_quick, k->gelu_erf};
        for (size_t n = 0; n < 40; n++) {
            float *x = malloc((n + 1) * sizeof(float)), *up = malloc((n + 1) * sizeof(float));
            assert_non_null(x);
            assert_non_null(up);
            for (size_t f = 0; f <= 4; f++) {
                for (size_t i = 0; i < n; i++) {
                    x[i] = 0.37f * (float)i - 5.0f;
                    up[i] = 1.5f - 0.1f * (float)i;
                }
                x[n] = 77.0f;
                if (f < 4) {
                    functions[f](x, n);
                } else {
                    k->silu_mul(x, up, n);
                }
                for (size_t i = 0; i < n; i++) {
                    float one = 0.37f * (float)i - 5.0f;
                    if (f < 4) {
                        functions[f](&one, 1);
                    } else {
                        k->silu_mul(&one, up + i, 1);
                        float want = 0.37f * (float)i - 5.0f;
                        k->silu(&want, 1);
                        want *= up[i];
                        assert_memory_equal(&one, &want, sizeof one);
                    }
                    assert_memory_equal(x + i, &one, sizeof one);
                }
                assert_true(x[n] == 77.0f);
            }
            free(x);
            free(up);
        }
    }
}

static void test_rms_norm(void **state) {
    static const size_t sizes[] = {1, 5, 16, 33, 4096};
    FOR_EACH_FAMILY(k) {
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            size_t n = sizes[s];
            float *x = malloc(n * sizeof(float)), *w = malloc(n * sizeof(float)), *out = malloc(n * sizeof(float));
            assert_non_null(x);
            assert_non_null(w);
            assert_non_null(out);
            double sum = 0;
            for (size_t i = 0; i < n; i++) {
                x[i] = (float)((i * 37) % 101) * 0.02f - 1.0f + (i == 3 ? 500.0f : 0.0f);
                w[i] = 0.5f + 0.001f * (float)(i % 100);
                sum += (double)x[i] * x[i];
            }
            double scale = 1 / sqrt(sum / (double)n + (double)1e-5f);
            k->rms_norm(out, x, w, n, 1e-5f);
            k->rms_norm(x, x, w, n, 1e-5f); /* in place: the same */
            assert_memory_equal(x, out, n * sizeof(float));
            for (size_t i = 0; i < n; i++) {
                double original = (double)((float)((i * 37) % 101) * 0.02f - 1.0f + (i == 3 ? 500.0f : 0.0f));
                double want = original * scale * w[i];
                assert_true(fabs(out[i] - want) <= 3e-7 * fabs(want));
            }
            free(x);
            free(w);
            free(out);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accuracy),
        cmocka_unit_test(test_special_values),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_rms_norm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
