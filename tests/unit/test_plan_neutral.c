/*
 * Methods whose settings change nothing, or that find nothing to change, give the bits of no method and say why; and
 * with methods on, the exact path's bits do not depend on the number of threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "../support/demo_request.h"

/* The fingerprint of an answer. active: what every method's report must say of itself, with a reason if false. */
static uint32_t answer(struct demo *d, const char *json, bool with_image, bool active, int n_tokens) {
    candid_config *config = demo_config(json);
    candid_generate_params params = candid_generate_params_default();
    params.max_new_tokens = n_tokens;
    params.config = config;
    params.conversation = with_image ? NULL : "USER: {prompt} ASSISTANT:";
    const candid_image *images[] = {d->image};
    const candid_result *result = NULL;
    OK(candid_generate(d->context, images, with_image, DEMO_PROMPT, &params, &result, error));
    const uint32_t fingerprint = result->stats.fingerprint;
    cJSON *report = cJSON_Parse(result->interventions);
    assert_non_null(report);
    for (const cJSON *one = report->child; one; one = one->next) {
        const char *why = cJSON_GetStringValue(cJSON_GetObjectItem(one, "why"));
        if (cJSON_IsTrue(cJSON_GetObjectItem(one, "active")) != active || active == (why && strlen(why) > 10)) {
            fail_msg("%s: %s", json, result->interventions);
        }
    }
    assert_int_equal(cJSON_GetArraySize(report) > 0, json != NULL);
    cJSON_Delete(report);
    candid_result_free(result);
    candid_config_free(config);
    return fingerprint;
}

#define NEUTRAL                                                                                                        \
    "\"pai\": {\"alpha\": 0, \"gamma\": 1}, \"paint\": {\"alpha\": 0, \"beta\": 0, \"gamma\": 1}, \"hgai\": "          \
    "{\"alpha\": 0}, \"vhr\": {\"alpha\": "                                                                            \
    "1}, \"act\": {\"beta\": 1}, \"vista\": {\"lambda\": 0, \"gamma\": 0}, \"head_scale\": {\"scale\": 1, \"heads\": " \
    "[[0, 0], [3, 2]]}, \"var\": {\"p\": 1, \"tau\": 4.5, \"sink_dims\": [1, 181]}"

static void neutral_settings(void **state) {
    (void)state;
    static const char *const configs[] = {
        "{\"var\": {\"p\": 1, \"tau\": 4.5, \"sink_dims\": [1, 181]}}",
        "{\"var\": {\"p\": 0, \"p_is_removed_fraction\": true, \"tau\": 4.5, \"sink_dims\": [1, 181]}}",
        "{\"vhr\": {\"alpha\": 1}}",
        "{\"pai\": {\"alpha\": 0, \"gamma\": 1}}",
        "{\"paint\": {\"alpha\": 0, \"beta\": 0, \"gamma\": 1}}",
        "{\"hgai\": {\"alpha\": 0}}",
        "{\"act\": {\"beta\": 1}}",
        "{\"vista\": {\"lambda\": 0, \"gamma\": 0}}",
        "{\"head_scale\": {\"scale\": 1, \"heads\": [[0, 0], [3, 2]]}}",
        "{\"head_scale\": {\"scale\": 0}}", /* no heads are named */
        "{" NEUTRAL "}",
    };
    for (int p = 0; p < N_DEMO_PRECISIONS; p++) {
        struct demo d;
        demo_open(&d, demo_precisions[p], 1);
        const uint32_t plain = answer(&d, NULL, true, true, 5);
        for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
            if (answer(&d, configs[i], true, false, 5) != plain) {
                fail_msg("%s changes the answer of the %s path", configs[i], p ? "exact" : "fast");
            }
        }
        /* the fingerprint does tell: the smallest change of one head shows */
        assert_true(answer(&d, "{\"head_scale\": {\"scale\": 1.0001, \"heads\": [[5, 5]]}}", true, true, 5) != plain);
        demo_close(&d);
    }
}

/* Settings that are no identity, but meet nothing: no token is a sink, no head has enough attention, … */
static void nothing_meets_the_conditions(void **state) {
    (void)state;
    static const char *const configs[] = {
        "{\"var\": {\"tau\": 13, \"sink_dims\": [1, 181]}}", "{\"var\": {\"tau\": 50, \"sink_dims\": [1, 181]}}",
        "{\"act\": {\"threshold\": 1}}", "{\"pai\": {\"layers\": \"7-\", \"gamma\": 1}}",
        "{\"hgai\": {\"layers\": \"30-31\"}}"};
    for (int p = 0; p < N_DEMO_PRECISIONS; p++) {
        struct demo d;
        demo_open(&d, demo_precisions[p], 1);
        const uint32_t plain = answer(&d, NULL, true, true, 4);
        for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
            assert_int_equal(answer(&d, configs[i], true, false, 4), plain);
        }
        if (demo_precisions[p] == CANDID_PRECISION_EXACT) { /* here rows are looked at, and every head is left alone */
            assert_int_equal(
                answer(&d, "{\"var\": {\"tau\": 4.5, \"sink_dims\": [1, 181], \"summ\": 1}}", true, false, 4), plain);
        }
        demo_close(&d);
    }
}

static void without_an_image(void **state) {
    (void)state;
    static const char *const configs[] = {
        "{\"var\": {\"sink_dims\": [1]}}",
        "{\"vhr\": true}",
        "{\"cca\": true}",
        "{\"mma\": true}",
        "{\"pai\": true}",
        "{\"paint\": true}",
        "{\"hgai\": true}",
        "{\"vista\": {\"sla_layers\": \"2-4\"}}",
    };
    for (int p = 0; p < N_DEMO_PRECISIONS; p++) {
        struct demo d;
        demo_open(&d, demo_precisions[p], 1);
        const uint32_t plain = answer(&d, NULL, false, true, 4);
        for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
            assert_int_equal(answer(&d, configs[i], false, false, 4), plain);
        }
        demo_close(&d);
    }
}

#define MOST                                                                                                           \
    "\"pai\": true, \"paint\": true, \"hgai\": true, \"var\": {\"tau\": 4.5, \"sink_dims\": [1, 181]}, \"act\": "      \
    "true, "                                                                                                           \
    "\"vhr\": true, \"head_scale\": {\"heads\": [[3, 2]], \"scale\": 0.5}, \"vista\": {\"sla_layers\": \"2-4\"}"

static void threads_change_no_bit(void **state) {
    (void)state;
    static const char *const configs[] = {"{\"cca\": true, " MOST "}", "{\"mma\": true, " MOST "}",
                                          "{\"vhr\": {\"measure\": \"unreinforced\"}, \"vista\": {\"site\": "
                                          "\"residual\", \"sla_layers\": \"2-4\"}}"};
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        uint32_t fingerprint[3];
        for (int t = 0; t < 3; t++) {
            struct demo d;
            demo_open(&d, CANDID_PRECISION_EXACT, (const int[]){1, 2, 5}[t]);
            fingerprint[t] = answer(&d, configs[i], true, true, 4);
            demo_close(&d);
        }
        assert_int_equal(fingerprint[0], fingerprint[1]);
        assert_int_equal(fingerprint[0], fingerprint[2]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neutral_settings),
        cmocka_unit_test(nothing_meets_the_conditions),
        cmocka_unit_test(without_an_image),
        cmocka_unit_test(threads_change_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
