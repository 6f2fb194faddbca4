/*
 * Choices made from the image encoder's attention: DAMRO's tokens, CausalMM's weights; by naive computation in double
 * precision and against torch (tests/golden/make_vision_branches.py).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/ok.h"
#include "core/rng.h"
#include "model/safetensors.h"
#include "vision/causalmm.h"
#include "vision/damro.h"

/* ---- choosing ---- */

static void selection(void **state) {
    (void)state;
    static const float a[] = {1, 5, NAN, 5, -INFINITY, 7, 0};
    static const int expected[] = {5, 1, 3, 0, 6, 2, 4};
    int out[8] = {0};
    assert_int_equal(damro_select(a, 7, 8, out), 7);
    assert_memory_equal(out, expected, sizeof expected);
    for (int k = 0; k <= 7; k++) {
        memset(out, 0, sizeof out);
        assert_int_equal(damro_select(a, 7, k, out), k);
        assert_memory_equal(out, expected, (size_t)k * sizeof *out);
    }
    assert_int_equal(damro_select(a, 7, -1, out), 0);
    assert_int_equal(damro_select(a, 0, 3, out), 0);
    static const float same[576] = {0};
    int all[576];
    assert_int_equal(damro_select(same, 576, 576, all), 576);
    for (int i = 0; i < 576; i++) {
        assert_int_equal(all[i], i);
    }
}

/* ---- counterfactual weights ---- */

/* Entry (row, column) of a head's map in the encoder's layout. */
static size_t at(int row, int head, int column, int n_head, int n) {
    return ((size_t)row * (size_t)n_head + (size_t)head) * (size_t)n + (size_t)column;
}

/* The whole edited map, then interpolation by its definition, in double precision. */
static void reversed_weights(const float *map, int n_head, int n, int grid, double *out) {
    for (int i = 0; i < grid * grid; i++) {
        out[i] = 0;
    }
    for (int h = 0; h < n_head; h++) {
        double highest = -INFINITY;
        for (int i = 0; i < n * n; i++) {
            highest = fmax(highest, (double)map[at(i / n, h, i % n, n_head, n)]);
        }
        for (int i = 0; i < grid * grid; i++) {
            const double y = fmax((i / grid + 0.5) * n / grid - 0.5, 0), x = fmax((i % grid + 0.5) * n / grid - 0.5, 0);
            for (int r = (int)y; r <= (int)y + 1; r++) {
                for (int c = (int)x; c <= (int)x + 1; c++) {
                    const double share = (1 - fabs(y - r)) * (1 - fabs(x - c));
                    const int row = r < n ? r : n - 1, column = c < n ? c : n - 1;
                    out[i] += share * (highest - (double)map[at(row, h, column, n_head, n)]) / n_head;
                }
            }
        }
    }
}

static float *random_map(int n_head, int n) {
    const size_t size = (size_t)n_head * (size_t)n * (size_t)n;
    float *map = malloc(size * sizeof *map);
    assert_non_null(map);
    struct rng r;
    rng_seed_stream(&r, 1, 2);
    for (size_t i = 0; i < size; i++) {
        map[i] = (float)rng_unit(&r);
    }
    return map;
}

static void reversed_and_uniform(void **state) {
    (void)state;
    static const int shapes[][3] = {{16, 577, 24}, {3, 50, 7}, {2, 5, 2}, {1, 2, 1}, {2, 9, 4}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int n_head = shapes[s][0], n = shapes[s][1], grid = shapes[s][2];
        float *map = random_map(n_head, n), found[576];
        double expected[576];
        OK(causalmm_weights(CAUSALMM_REVERSED, map, n_head, n, grid, 0, 0, found, error));
        reversed_weights(map, n_head, n, grid, expected);
        for (int i = 0; i < grid * grid; i++) { /* positions are f32 as torch's, off by up to 577 * 6e-8 */
            assert_true(fabs(found[i] - expected[i]) < 2e-5);
        }
        OK(causalmm_weights(CAUSALMM_UNIFORM, NULL, n_head, n, grid, 0, 0, found, error));
        for (int i = 0; i < grid * grid; i++) {
            assert_true(found[i] == 1.0f / (float)n);
        }
        free(map);
    }
}

static void shuffled(void **state) {
    (void)state;
    float found[576], again[576];

    /* the one patch of a 2×2 map gets the mean of all four entries, however they lie */
    static const float four[] = {1, 2, 4, 9};
    for (uint64_t seed = 0; seed < 50; seed++) {
        OK(causalmm_weights(CAUSALMM_SHUFFLE, four, 1, 2, 1, seed, 0, found, error));
        assert_true(found[0] == 4);
    }

    /* no entry goes to two places: of a map with one mark, at most one patch sees it; over the seeds, 16 of 25 times */
    float *mark = calloc(5 * 5, sizeof *mark);
    assert_non_null(mark);
    mark[13] = 1;
    int marked = 0;
    double sum = 0;
    for (uint64_t seed = 0; seed < 20000; seed++) {
        int here = 0;
        OK(causalmm_weights(CAUSALMM_SHUFFLE, mark, 1, 5, 2, seed, 0, found, error));
        for (int i = 0; i < 4; i++) {
            here += found[i] != 0;
            sum += (double)found[i];
        }
        assert_in_range(here, 0, 1);
        marked += here;
    }
    /* at 0.75 and 3.25 the shares are 1/4 and 3/4, none is 0: 12800 ± 68 of 20000; the mean of a patch is 1/25 */
    assert_in_range(marked, 12800 - 340, 12800 + 340);
    assert_true(fabs(sum / 80000 - 0.04) < 0.002);
    free(mark);

    /* of a large map: the mean is kept, the seed and the stream decide, a constant stays */
    float *map = random_map(16, 577);
    double mean = 0;
    OK(causalmm_weights(CAUSALMM_SHUFFLE, map, 16, 577, 24, 3, 0, found, error));
    OK(causalmm_weights(CAUSALMM_SHUFFLE, map, 16, 577, 24, 3, 0, again, error));
    assert_memory_equal(found, again, sizeof found);
    for (int i = 0; i < 576; i++) {
        mean += (double)found[i] / 576;
        assert_in_range((int)(found[i] * 100), 20, 80);
    }
    assert_true(fabs(mean - 0.5) < 0.01);
    OK(causalmm_weights(CAUSALMM_SHUFFLE, map, 16, 577, 24, 4, 0, again, error));
    assert_memory_not_equal(found, again, sizeof found);
    OK(causalmm_weights(CAUSALMM_SHUFFLE, map, 16, 577, 24, 3, 1, again, error));
    assert_memory_not_equal(found, again, sizeof found);
    for (size_t i = 0; i < (size_t)16 * 577 * 577; i++) {
        map[i] = 0.25f;
    }
    OK(causalmm_weights(CAUSALMM_SHUFFLE, map, 16, 577, 24, 3, 0, found, error));
    for (int i = 0; i < 576; i++) {
        assert_true(found[i] == 0.25f);
    }
    free(map);
}

static void random_numbers(void **state) {
    (void)state;
    float found[576], again[576];
    OK(causalmm_weights(CAUSALMM_RANDOM, NULL, 16, 577, 24, 3, 0, found, error));
    OK(causalmm_weights(CAUSALMM_RANDOM, NULL, 16, 577, 24, 3, 0, again, error));
    assert_memory_equal(found, again, sizeof found);
    double mean = 0, square = 0;
    for (int i = 0; i < 576; i++) {
        assert_true(found[i] > 0 && found[i] < 2);
        mean += (double)found[i] / 576;
        square += (double)found[i] * (double)found[i] / 576;
    }
    /* the four shares are products of t and 1 - t with t near 0.5 at most; variance 1/3 times their squares, 16 heads
     */
    assert_true(fabs(mean - 1) < 0.02);
    assert_true(square - mean * mean > 0.25 / 3 / 16 * 0.8 && square - mean * mean < 1.0 / 3 / 16);
}

static void weights_of_nothing(void **state) {
    (void)state;
    float out[4] = {7, 7, 7, 7};
    static const float map[100] = {0};
    candid_error why;
    assert_int_equal(causalmm_weights(CAUSALMM_REVERSED, NULL, 1, 5, 2, 0, 0, out, &why), CANDID_ERROR_ARGUMENT);
    assert_non_null(strstr(why.message, "not there"));
    static const int wrong[][3] = {{0, 5, 2}, {1, 3, 2}, {1, 5, 0}, {-1, 5, 2}, {1, 0, 1}, {1, 40000, 2}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(
            causalmm_weights(CAUSALMM_SHUFFLE, map, wrong[i][0], wrong[i][1], wrong[i][2], 0, 0, out, &why),
            CANDID_ERROR_ARGUMENT);
    }
    assert_true(out[0] == 7);
    float holes[4] = {NAN, NAN, INFINITY, NAN}; /* of a broken model: nothing to say, but no crash */
    OK(causalmm_weights(CAUSALMM_SHUFFLE, holes, 1, 2, 1, 0, 0, out, error));
    OK(causalmm_weights(CAUSALMM_REVERSED, holes, 1, 2, 1, 0, 0, out, error));
}

/* ---- torch ---- */

static struct safetensors *golden;

static int setup(void **state) {
    (void)state;
    return safetensors_open(TEST_GOLDEN "/vision_branches.safetensors", &golden, NULL) == CANDID_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    safetensors_close(golden);
    return 0;
}

/* Largest absolute difference to a recorded tensor. */
static double difference(const char *name, const float *found, size_t n) {
    const struct safetensors_tensor *t = safetensors_find(golden, name);
    if (!t || t->size != n * sizeof(float)) {
        fail_msg("vision_branches.safetensors: no %s of %zu numbers", name, n);
    }
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        float expected;
        memcpy(&expected, t->data + i * sizeof expected, sizeof expected);
        worst = fmax(worst, fabs((double)found[i] - (double)expected));
    }
    return worst;
}

/* The map that the golden file describes by a formula. */
static void interpolation_equals_torch(void **state) {
    (void)state;
    static const int shapes[][3] = {{16, 577, 24}, {3, 50, 7}, {2, 5, 2}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int n_head = shapes[s][0], n = shapes[s][1], grid = shapes[s][2];
        const size_t size = (size_t)n_head * (size_t)n * (size_t)n;
        float *map = malloc(size * sizeof *map), found[576];
        assert_non_null(map);
        for (size_t i = 0; i < size; i++) {
            const int head = (int)(i / (size_t)(n * n)), row = (int)(i / (size_t)n % (size_t)n);
            map[at(row, head, (int)(i % (size_t)n), n_head, n)] = (float)((uint32_t)(i * 2654435761u) * 0x1p-32);
        }
        OK(causalmm_weights(CAUSALMM_REVERSED, map, n_head, n, grid, 0, 0, found, error));
        char key[64];
        snprintf(key, sizeof key, "interpolate.%d.%d.%d", n_head, n, grid);
        const double worst = difference(key, found, (size_t)(grid * grid));
        print_message("%d×%d to %d×%d: %.1e\n", n, n, grid, grid, worst);
        assert_true(worst < 1e-6);
        free(map);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(selection),          cmocka_unit_test(reversed_and_uniform),
        cmocka_unit_test(shuffled),           cmocka_unit_test(random_numbers),
        cmocka_unit_test(weights_of_nothing), cmocka_unit_test(interpolation_equals_torch),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
