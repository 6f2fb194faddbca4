/* Intervals and tests, against closed forms and values computed by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/rng.h"
#include "eval/stats/stats.h"

static void near(double found, double expected, double tolerance) {
    if (!(fabs(found - expected) <= tolerance)) {
        fail_msg("expected %.10g within %g, found %.10g", expected, tolerance, found);
    }
}

static const size_t first_of_two[2] = {0, 1}, second_of_three[2] = {1, 2};
static const struct stats_metric ratio = {stats_ratio, first_of_two};

enum { N = 2000 };

/* The interval of a proportion is that of the normal approximation: p ± 1.96 sqrt(p (1 - p) / n). */
static void proportion(void **state) {
    static double counts[N][2];
    for (int i = 0; i < N; i++) {
        counts[i][0] = i % 10 < 3;
        counts[i][1] = 1;
    }
    struct stats_interval out, again;
    const struct stats_data data = {counts[0], N, 2, NULL};
    assert_int_equal(stats_bootstrap(&data, &ratio, 1, NULL, &out, NULL), CANDID_OK);
    const double half = 1.959964 * sqrt(0.3 * 0.7 / N);
    near(out.value, 0.3, 1e-12);
    near(out.low, 0.3 - half, 0.0015);
    near(out.high, 0.3 + half, 0.0015);
    assert_int_equal(out.n_undefined, 0);
    assert_int_equal(stats_bootstrap(&data, &ratio, 1, NULL, &again, NULL), CANDID_OK);
    assert_memory_equal(&out, &again, sizeof out); /* same seed, same draws */
    assert_int_equal(stats_bootstrap(&data, &ratio, 1, &(struct stats_options){.seed = 5, .level = 0.5}, &again, NULL),
                     CANDID_OK);
    near(again.high - again.low, 2 * 0.674490 * sqrt(0.3 * 0.7 / N), 0.0015);
    assert_true(again.low != out.low);
}

/* Items of an image that all agree count as one: with clusters of 5 the interval is sqrt(5) times as wide. */
static void clustered(void **state) {
    static double counts[N][2];
    static size_t cluster[N];
    struct rng r;
    rng_seed(&r, 3);
    for (int c = 0; c < N / 5; c++) {
        const double right = rng_unit(&r) < 0.6;
        for (int i = 0; i < 5; i++) {
            counts[c + i * (N / 5)][0] = right;
            counts[c + i * (N / 5)][1] = 1;
            cluster[c + i * (N / 5)] = (size_t)(N - 1 - c); /* numbers with gaps, in no order */
        }
    }
    struct stats_interval alone, together;
    struct stats_data data = {counts[0], N, 2, NULL};
    assert_int_equal(stats_bootstrap(&data, &ratio, 1, NULL, &alone, NULL), CANDID_OK);
    data.cluster = cluster;
    assert_int_equal(stats_bootstrap(&data, &ratio, 1, NULL, &together, NULL), CANDID_OK);
    near(together.value, alone.value, 1e-12);
    near((together.high - together.low) / (alone.high - alone.low), sqrt(5), 0.12);
    cluster[7] = N;
    candid_error error;
    assert_int_equal(stats_bootstrap(&data, &ratio, 1, NULL, &together, &error), CANDID_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "item 7"));
}

/* The interval of a ratio of sums is that of the delta method. Several metrics come from one set of draws. */
static void ratios(void **state) {
    static double counts[N][3];
    double sum_x = 0, sum_y = 0, spread = 0;
    struct rng r;
    rng_seed(&r, 11);
    for (int i = 0; i < N; i++) {
        counts[i][0] = 1;
        counts[i][2] = 2 + (double)rng_below(&r, 8);                          /* mentions */
        counts[i][1] = (double)rng_below(&r, (uint64_t)counts[i][2] / 2 + 1); /* hallucinated ones */
        sum_x += counts[i][1];
        sum_y += counts[i][2];
    }
    for (int i = 0; i < N; i++) {
        spread += pow(counts[i][1] - sum_x / sum_y * counts[i][2], 2);
    }
    const struct stats_metric metrics[2] = {{stats_ratio, second_of_three}, {stats_ratio, (const size_t[]){0, 0}}};
    struct stats_interval out[2];
    const struct stats_data data = {counts[0], N, 3, NULL};
    assert_int_equal(stats_bootstrap(&data, metrics, 2, NULL, out, NULL), CANDID_OK);
    near(out[0].value, sum_x / sum_y, 1e-12);
    near(out[0].high - out[0].low, 2 * 1.959964 * sqrt(spread) / sum_y, 0.03 * (out[0].high - out[0].low));
    assert_true(out[1].low == 1 && out[1].value == 1 && out[1].high == 1);
}

/* Three items, every resample known: the smallest and largest values of the distribution. */
static void undefined_and_small(void **state) {
    static const double counts[3][2] = {{0, 0}, {1, 1}, {0, 1}};
    struct stats_interval out;
    struct stats_data data = {counts[0], 3, 2, NULL};
    assert_int_equal(stats_bootstrap(&data, &ratio, 1, &(struct stats_options){.n_resamples = 27000}, &out, NULL),
                     CANDID_OK);
    assert_true(out.value == 0.5 && out.low == 0 && out.high == 1);
    near(out.n_undefined, 1000, 150); /* only the first item: 1 of 27 */
    data.n = 1;
    assert_int_equal(stats_bootstrap(&data, &ratio, 1, NULL, &out, NULL), CANDID_OK);
    assert_true(isnan(out.value) && isnan(out.low) && isnan(out.high) && out.n_undefined == 10000);
    data.n = 0;
    assert_int_equal(stats_bootstrap(&data, &ratio, 1, NULL, &out, NULL), CANDID_ERROR_ARGUMENT);
    const double sums[3] = {3, 1, 2};
    assert_true(stats_f1(sums, (const size_t[]){0, 1, 2}) == 6.0 / 9);
    assert_true(isnan(stats_f1((const double[]){0}, (const size_t[]){0, 0, 0})));
}

/* Paired: the interval of a difference of proportions is (b - c) / n ± 1.96 sqrt(b + c - (b - c)²/n) / n. */
static void differences(void **state) {
    static double a[N][2], b[N][2];
    for (int i = 0; i < N; i++) {
        a[i][0] = i % 2 == 0;                            /* half right */
        b[i][0] = i % 2 == 0 ? i % 20 != 0 : i % 5 == 0; /* 100 lost, 200 gained */
        a[i][1] = b[i][1] = 1;
    }
    struct stats_difference out;
    const struct stats_data data = {.n = N, .n_counts = 2};
    assert_int_equal(stats_compare(&data, a[0], b[0], &ratio, 1, NULL, &out, NULL), CANDID_OK);
    near(out.a.value, 0.5, 1e-12);
    near(out.b.value, 0.55, 1e-12);
    near(out.difference.value, 0.05, 1e-12);
    const double half = 1.959964 * sqrt(300 - 100.0 * 100 / N) / N;
    near(out.difference.low, 0.05 - half, 0.0012);
    near(out.difference.high, 0.05 + half, 0.0012);
    near(out.p, 2.0 / 10001, 1e-12); /* no draw reaches zero */
    assert_int_equal(stats_compare(&data, a[0], a[0], &ratio, 1, NULL, &out, NULL), CANDID_OK);
    assert_true(out.difference.low == 0 && out.difference.high == 0 && out.p == 1);
    /* a small difference: p of the normal approximation */
    for (int i = 0; i < N; i++) {
        b[i][0] = i % 2 == 0 ? i % 20 != 0 : i % 20 == 1 || i >= N - 40; /* 100 lost, 118 gained */
    }
    assert_int_equal(stats_compare(&data, a[0], b[0], &ratio, 1, NULL, &out, NULL), CANDID_OK);
    const double z = 18 / sqrt(218 - 18.0 * 18 / N);
    near(out.p, erfc(z / sqrt(2)), 0.02);
}

static struct stats_mcnemar mcnemar(size_t both, size_t only_a, size_t only_b, size_t neither) {
    static double a[8000], b[8000];
    size_t n = 0;
    for (; both > 0; both--, n++) {
        a[n] = b[n] = 1;
    }
    for (; only_a > 0; only_a--, n++) {
        a[n] = 1;
        b[n] = 0;
    }
    for (; only_b > 0; only_b--, n++) {
        a[n] = 0;
        b[n] = 1;
    }
    for (; neither > 0; neither--, n++) {
        a[n] = b[n] = 0;
    }
    return stats_mcnemar(a, b, n);
}

static void mcnemar_tests(void **state) {
    struct stats_mcnemar m = mcnemar(1, 1, 7, 12); /* Fagerland et al. 2013, table 1: p 0.0703, mid-p 0.0391 */
    assert_true(m.both == 1 && m.only_a == 1 && m.only_b == 7 && m.neither == 12);
    near(m.p, 2 * 9.0 / 256, 1e-12);
    near(m.mid_p, 2 * 9.0 / 256 - 8.0 / 256, 1e-12);
    m = mcnemar(59, 6, 16, 80); /* their second example: 0.0525, 0.0347 */
    near(m.p, 0.0525, 5e-5);
    near(m.mid_p, 0.0347, 5e-5);
    m = mcnemar(5, 0, 5, 0);
    near(m.p, 2.0 / 32, 1e-12);
    near(m.mid_p, 1.0 / 32, 1e-12);
    m = mcnemar(5, 2, 2, 0);
    near(m.p, 1, 0);
    near(m.mid_p, 1 - 6.0 / 16 / 2, 1e-12);
    m = mcnemar(5, 0, 0, 5);
    assert_true(m.p == 1 && m.mid_p == 1);
    m = mcnemar(0, 2000, 2150, 0); /* many: near the normal approximation */
    near(m.p, erfc(149 / sqrt(4150) / sqrt(2)), 2e-4);
}

static void cluster_numbers(void **state) {
    static const char *const texts[] = {"b", "a", NULL, "b", "a", "c", NULL, "b"};
    size_t out[8];
    assert_int_equal(stats_clusters(texts, 8, out, NULL), CANDID_OK);
    static const size_t expected[8] = {0, 1, 2, 0, 1, 5, 6, 0};
    assert_memory_equal(out, expected, sizeof out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(proportion),          cmocka_unit_test(clustered),   cmocka_unit_test(ratios),
        cmocka_unit_test(undefined_and_small), cmocka_unit_test(differences), cmocka_unit_test(mcnemar_tests),
        cmocka_unit_test(cluster_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
