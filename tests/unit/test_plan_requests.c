/* Methods in unusual requests: several images, little text, other masks, and what one request leaves for the next. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cJSON.h>
#include <cmocka.h>

#include "../support/demo_request.h"

/* Rows between two images must not be edited because of sinks in the later one, which they cannot see; so it does not
 * matter whether both images pass together. */
static void images_are_seen_from_behind_only(void **state) {
    (void)state;
    static const char *const configs[] = {"{\"var\": true}", "{\"var\": {\"rho\": 1, \"summ\": 0}, \"hgai\": true}",
                                          "{\"cca\": true, \"var\": true}", "{\"pai\": true, \"paint\": true}"};
    static const char prompt[] =
        "<image> Is there a dog in the image? How many cars are in the image? <image> Where is the cat?";
    struct demo d;
    demo_open(&d, CANDID_PRECISION_EXACT, 1);
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        struct asked whole, part;
        struct llama *small = NULL;
        demo_ask_about(&whole, &d, 2, prompt, configs[i]);
        demo_prefill(&whole, NULL, NULL);
        OK(llama_create(&d.model->llama, d.context->backend, 40, &small, error));
        demo_ask_about(&part, &d, 2, prompt, configs[i]);
        demo_prefill(&part, small, NULL);
        assert_memory_equal(part.logits, whole.logits, demo_vocab(&whole) * sizeof(float));
        for (int s = 0; s < part.request.plan->n_steps; s++) {
            assert_int_equal(part.request.plan->steps[s].rows_done, whole.request.plan->steps[s].rows_done);
        }
        asked_free(&part);
        asked_free(&whole);
        llama_free(small);
    }
    demo_close(&d);
}

static cJSON *report_of(struct asked *a) {
    char *text = NULL;
    OK(request_report(&a->request, NULL, &text, error));
    cJSON *report = cJSON_Parse(text);
    free(text);
    assert_non_null(report);
    return report;
}

/* {"active", "why"} of one method for a configuration. */
static void check_idle(struct demo *d, const char *json, const char *method, const char *why) {
    struct asked a;
    demo_ask(&a, d, json);
    demo_prefill(&a, NULL, NULL);
    cJSON *report = report_of(&a);
    const cJSON *one = cJSON_GetObjectItem(report, method);
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(one, "active")));
    const char *told = cJSON_GetStringValue(cJSON_GetObjectItem(one, "why"));
    if (!told || !strstr(told, why)) {
        fail_msg("%s: expected \"%s\", found \"%s\"", json, why, told ? told : "nothing");
    }
    assert_false(a.request.plan->companions[ROLE_TEXT_ONLY]); /* nothing runs beside the prompt for nothing */
    cJSON_Delete(report);
    asked_free(&a);
}

static void idle_methods_tell_why(void **state) {
    (void)state;
    struct demo d;
    demo_open(&d, CANDID_PRECISION_FAST, 1);
    check_idle(&d, "{\"pai\": {\"layers\": \"9-\"}}", "pai", "layers \"9-\": the model has layers 0 to 5");
    check_idle(&d, "{\"vhr\": {\"layers\": \"7-20\"}}", "vhr", "the model has layers 0 to 5");
    check_idle(&d, "{\"vista\": {\"layers\": \"6-\", \"gamma\": 0}}", "vista", "the model has layers 0 to 5");
    check_idle(&d, "{\"var\": {\"layers\": \"5\"}}", "var", "exclude_last_layer");
    check_idle(&d, "{\"var\": {\"tau\": 20}}", "var", "no token can exceed tau 20");
    check_idle(&d, "{\"var\": {\"tau\": 12}}", "var", "no image token exceeds tau 12");
    check_idle(&d, "{\"act\": {\"threshold\": 1}}", "act", "no position but the first");
    check_idle(&d, "{\"act\": {\"threshold\": 1}, \"mma\": true}", "act",
               "no position but the first"); /* means are at most 1 */
    check_idle(&d, "{\"act\": {\"threshold\": 1}, \"cca\": true}", "act", "no position but the first");
    check_idle(&d, "{\"paint\": {\"local_ratio\": 0, \"beta\": 0}}", "paint", "no token is boosted");
    check_idle(&d, "{\"head_scale\": {\"scale\": 0}}", "head_scale", "neither heads nor a table");
    demo_close(&d);
}

static void parts_of_a_method_are_told_apart(void **state) {
    (void)state;
    struct demo d;
    struct asked a;
    demo_open(&d, CANDID_PRECISION_FAST, 1);
    demo_ask(&a, &d, "{\"vista\": {\"layers\": \"9-\", \"sla_layers\": \"3-4\"}}");
    demo_prefill(&a, NULL, NULL);
    cJSON *report = report_of(&a);
    const cJSON *one = cJSON_GetObjectItem(report, "vista");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(one, "active"))); /* it mixes layers */
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(one, "mixed_layers")), 2);
    assert_null(cJSON_GetObjectItem(one, "edits"));
    assert_non_null(cJSON_GetObjectItem(one, "left_out"));
    cJSON_Delete(report);
    asked_free(&a);
    demo_close(&d);
}

/* Prompts a little longer than one pass, on the fast path, before and after a request that needs larger buffers. */
static void what_ran_before_does_not_matter(void **state) {
    (void)state;
    candid_model *model = NULL;
    candid_context *context = NULL;
    candid_image *image = NULL;
    candid_config *vista = NULL;
    static const char json[] = "{\"vista\": {\"sla_layers\": \"2-3\"}}";
    OK(candid_model_open(TEST_GOLDEN "/interventions/planted", NULL, &model, error));
    OK(candid_context_create(model, NULL, &context, error));
    OK(candid_image_load(TEST_GOLDEN "/hf/images/square.png", &image, error));
    OK(candid_config_parse(json, strlen(json), "vista", &vista, error));
    const candid_image *images[] = {image};
    uint32_t plain[9];
    int lengths[9];
    for (int pass = 0; pass < 2; pass++) {
        for (int more = 0; more < 9; more++) {
            char prompt[4096] = "";
            for (int i = 0; i < 711 + more; i++) {
                strcat(prompt, "dog ");
            }
            candid_generate_params params = candid_generate_params_default();
            params.max_new_tokens = 2;
            const candid_result *result = NULL;
            OK(candid_generate(context, images, 1, prompt, &params, &result, error));
            if (pass == 0) {
                plain[more] = result->stats.fingerprint;
                lengths[more] = result->stats.n_prompt;
            }
            assert_int_equal(result->stats.fingerprint, plain[more]);
            candid_result_free(result);
            if (pass == 0 && more == 8) {
                params.config = vista;
                OK(candid_generate(context, images, 1, prompt, &params, &result, error));
                assert_true(result->stats.fingerprint != plain[more]);
                candid_result_free(result);
            }
        }
    }
    assert_true(lengths[0] <= 776 && lengths[8] > 768); /* the pass length is met */
    candid_config_free(vista);
    candid_image_free(image);
    candid_context_free(context);
    candid_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_are_seen_from_behind_only),
        cmocka_unit_test(idle_methods_tell_why),
        cmocka_unit_test(parts_of_a_method_are_told_apart),
        cmocka_unit_test(what_ran_before_does_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
