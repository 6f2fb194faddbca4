/* Diffusion noise: the schedule against 40-digit arithmetic, the numbers' distribution and their bits. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/ok.h"
#include "core/crc32.h"
#include "core/rng.h"
#include "vision/noise.h"

#define N 300000

static float *noise_of(int step, uint64_t seed, int view, float x0) {
    float *x = malloc(N * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < N; i++) {
        x[i] = x0;
    }
    OK(noise_diffuse(&(struct noise){step, seed}, view, x, N, error));
    return x;
}

static void schedule(void **state) {
    (void)state;
    /* mpmath with 40 digits: prod of 1 - ((0.005 - 1e-5) sigmoid(-6 + 12 i / 999) + 1e-5) */
    static const struct {
        int step;
        double signal;
    } expected[] = {{0, 0.999977661610448392},   {1, 0.99995517499373962},    {250, 0.978385691334644057},
                    {500, 0.744798526043077614}, {700, 0.351266420202659357}, {999, 0.0812491943039999531}};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        assert_true(fabs(noise_signal(expected[i].step) / expected[i].signal - 1) < 1e-13);
    }
    for (int t = 1; t < NOISE_STEPS; t++) {
        assert_true(noise_signal(t) < noise_signal(t - 1));
    }
    float x = 1;
    candid_error why;
    assert_int_equal(noise_diffuse(&(struct noise){-1, 0}, 0, &x, 1, &why), CANDID_ERROR_ARGUMENT);
    assert_int_equal(noise_diffuse(&(struct noise){NOISE_STEPS, 0}, 0, &x, 1, &why), CANDID_ERROR_ARGUMENT);
    assert_non_null(strstr(why.message, "noise step 1000, expected 0 to 999"));
    assert_true(x == 1);
    OK(noise_diffuse(&(struct noise){999, 0}, 0, NULL, 0, error));
}

/* x_t = sqrt(abar) x0 + sqrt(1 - abar) eps with the eps that pure noise shows; eps ~ N(0, 1), none like its neighbour.
 */
static void distribution(void **state) {
    (void)state;
    const double signal = noise_signal(500);
    float *pure = noise_of(500, 55, 0, 0), *mixed = noise_of(500, 55, 0, 2), *other = noise_of(500, 55, 1, 0);
    double sums[5] = {0}, neighbours = 0, views = 0;
    for (size_t i = 0; i < N; i++) {
        assert_true(fabs((double)mixed[i] - (double)pure[i] - 2 * sqrt(signal)) < 1e-6);
        const double eps = (double)pure[i] / sqrt(1 - signal);
        double power = 1;
        for (int p = 1; p <= 4; p++) {
            sums[p] += power *= eps;
        }
        neighbours += eps * (double)pure[(i + 1) % N] / sqrt(1 - signal);
        views += eps * (double)other[i] / sqrt(1 - signal);
    }
    const double deviation = 1 / sqrt(N); /* bounds: five deviations of each mean */
    assert_true(fabs(sums[1] / N) < 5 * deviation);
    assert_true(fabs(sums[2] / N - 1) < 5 * sqrt(2) * deviation);
    assert_true(fabs(sums[3] / N) < 5 * sqrt(15) * deviation);
    assert_true(fabs(sums[4] / N - 3) < 5 * sqrt(96) * deviation);
    assert_true(fabs(neighbours / N) < 5 * deviation);
    assert_true(fabs(views / N) < 5 * deviation);
    free(pure), free(mixed), free(other);
}

/* The same numbers by the mathematics of the C library. */
static void polar_method(void **state) {
    (void)state;
    const double b = sqrt(1 - noise_signal(999));
    float *found = noise_of(999, 7, 3, 0);
    struct rng r;
    rng_seed_stream(&r, 7, 3);
    for (size_t i = 0; i < N; i += 2) {
        double u, v, s;
        do {
            u = 2 * rng_unit(&r) - 1;
            v = 2 * rng_unit(&r) - 1;
            s = u * u + v * v;
        } while (s >= 1 || s == 0);
        const double scale = b * sqrt(-2 * log(s) / s);
        assert_true(fabs((double)found[i] - u * scale) < 3e-7);
        assert_true(fabs((double)found[i + 1] - v * scale) < 3e-7);
    }
    free(found);
}

/* Pinned, so that a machine where they differ is noticed. */
static void bits(void **state) {
    (void)state;
    struct rng r;
    rng_seed_stream(&r, 0, 0);
    static const uint64_t first[] = {0xfb5405f7bd79c540u, 0x780c98e26cea5883u, 0x2a146e0980febc66u};
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) {
        assert_int_equal(rng_next(&r), first[i]);
    }
    for (int i = 0; i < 1000; i++) {
        assert_true(rng_below(&r, 7) < 7);
        assert_int_equal(rng_below(&r, 1), 0);
    }
    float *a = noise_of(500, 55, 0, 0.5f), *b = noise_of(500, 55, 0, 0.5f), *c = noise_of(500, 56, 0, 0.5f);
    assert_memory_equal(a, b, N * sizeof *a);
    assert_memory_not_equal(a, c, N * sizeof *a);
    assert_int_equal(crc32_update(0, a, N * sizeof *a), 0x2479edefu);
    free(a), free(b), free(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedule),
        cmocka_unit_test(distribution),
        cmocka_unit_test(polar_method),
        cmocka_unit_test(bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
