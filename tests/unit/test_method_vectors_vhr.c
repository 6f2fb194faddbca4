/* VHR's choice of heads and layers against the published test vectors. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/plan_lab.h"
#include "../support/vectors.h"
#include "interventions/vhr.h"

#define MOST 64

static double tolerance(double expected) {
    return 1e-5 * fabs(expected) + 1e-7;
}

static void check_selection(const cJSON *data, const cJSON *rules, const cJSON *expect, bool squared, bool guarded) {
    float text[MOST], image[MOST], divergence[MOST], raw[MOST];
    uint8_t selected[MOST], unused[MOST];
    int n, n_head = cJSON_GetArraySize(member(data, "text_only")), n_raw;
    flatten_floats(member(data, "text_only"), text, MOST, &n);
    flatten_floats(member(data, "with_image"), image, MOST, &n);
    const cJSON *guard = cJSON_GetObjectItem(data, "guard");
    struct vhr_rule rule = {.squared = squared,
                            .text_squared = strcmp(member(data, "text_norm")->valuestring, "squared") == 0,
                            .filter = cJSON_IsTrue(member(rules, "filter")),
                            .guard = guarded && cJSON_IsNumber(guard) ? (float)guard->valuedouble : 0.0f};
    const int count = vhr_select(image, text, n_head, n / n_head, &rule, divergence, selected);
    rule.filter = false;
    vhr_select(image, text, n_head, n / n_head, &rule, raw, unused);
    double *expected = flatten(member(expect, "vhd"), &n), *expected_raw = flatten(member(expect, "vhd_raw"), &n_raw);
    assert_int_equal(n, n_head);
    for (int h = 0; h < n_head; h++) {
        /* distances of numbers with three decimals: 1e-5 of the coordinates, not of their difference */
        assert_close((double)divergence[h], expected[h], tolerance(expected[h]) + 1e-6, "divergence", h);
        assert_close((double)raw[h], expected_raw[h], tolerance(expected_raw[h]) + 1e-6, "raw divergence", h);
    }
    assert_close((double)vhr_median(divergence, n_head), number(expect, "median"), 1e-5, "median", 0);
    const cJSON *chosen = member(expect, "selected");
    assert_int_equal(count, cJSON_GetArraySize(chosen));
    for (const cJSON *head = chosen->child; head; head = head->next) {
        assert_int_equal(selected[head->valueint], 1);
    }
    for (const cJSON *head = member(expect, "outliers")->child; head; head = head->next) {
        assert_true(divergence[head->valueint] == 0.0f && !selected[head->valueint]);
    }
    free(expected);
    free(expected_raw);
}

static void vhr_selection(void **state) {
    (void)state;
    static const char *const ids[] = {"vhr_outlier_removed", "vhr_large_divergence_small_text_norm",
                                      "vhr_guard_small_spread", "vhr_ties"};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        const cJSON *v = vector_named("vhr", ids[i]), *input = member(v, "input");
        check_selection(input, input, member(v, "expect"), true, true);
    }
    const cJSON *v = vector_named("vhr", "vhr_no_filter");
    check_selection(member(vector_named("vhr", member(member(v, "input"), "same_as")->valuestring), "input"),
                    member(v, "input"), member(v, "expect"), true, true);
    v = vector_named("vhr", "vhr_guard_small_spread");
    check_selection(member(v, "input"), member(v, "input"), member(v, "expect_guard_null"), true, false);
    v = vector_named("vhr", "vhr_squared_vs_plain");
    check_selection(member(v, "input"), member(v, "input"), member(v, "expect_squared"), true, false);
    check_selection(member(v, "input"), member(v, "input"), member(v, "expect_plain"), false, false);
}

static void vhr_t_vhd_vector(void **state) {
    (void)state;
    const cJSON *v = vector_named("vhr", "vhr_t_vhd"), *input = member(v, "input");
    float vhd[MOST];
    int n;
    flatten_floats(member(input, "vhd"), vhd, MOST, &n);
    const int n_layer = cJSON_GetArraySize(member(input, "vhd")), n_head = n / n_layer;
    const double expected = number(member(v, "expect"), "t_vhd");
    assert_close(vhr_t_vhd(vhd, n_layer, n_head, integer(input, "k")), expected, tolerance(expected), "t_vhd", 0);
    assert_close(vhr_t_vhd(vhd, n_layer, n_head, 100), 22.0, 1e-6, "t_vhd of all heads", 0);
    assert_true(vhr_t_vhd(vhd, n_layer, n_head, 0) == 0.0);
}

static void vhr_layer_lists(void **state) {
    (void)state;
    const cJSON *v = vector_named("vhr", "vhr_layer_lists");
    const cJSON *expect = member(v, "expect")->child;
    for (const cJSON *c = member(member(v, "input"), "cases")->child; c; c = c->next, expect = expect->next) {
        const int n_layer = integer(c, "L"), last = integer(c, "last");
        const bool layer1 = cJSON_IsTrue(member(c, "layer1"));
        char named[96];
        snprintf(named, sizeof named, "{\"vhr\": {\"layers\": \"%s%d-\"}}", layer1 ? "1," : "", n_layer - last);
        const char *json[] = {named, "{\"vhr\": true}"}; /* the default is layer 1 and the last 14 */
        for (int i = 0; i < (layer1 && last == 14 ? 2 : 1); i++) {
            struct plan *plan = lab_vhr_plan(json[i], n_layer, 4, 8);
            const bool *probed = lab_step(plan, PLAN_PROBE_HEADS)->layers;
            const bool *scaled = lab_step(plan, PLAN_SCALE_HEADS)->layers;
            int n = 0;
            for (const cJSON *l = expect->child; l; l = l->next, n++) {
                assert_true(probed[l->valueint] && scaled[l->valueint]);
            }
            for (int l = 0; l < n_layer; l++) {
                n -= probed[l];
                assert_int_equal(probed[l], scaled[l]);
            }
            assert_int_equal(n, 0);
            plan_free(plan);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vhr_selection),
        cmocka_unit_test(vhr_t_vhd_vector),
        cmocka_unit_test(vhr_layer_lists),
    };
    return cmocka_run_group_tests(tests, vectors_open, vectors_close);
}
