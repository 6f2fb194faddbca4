/*
 * Whole models on the CUDA backend against the CPU's exact path: the same greedy tokens with every method that can be
 * switched on, the same weights for several contexts, and nothing of the device's memory left behind.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "candid/candid.h"
#ifdef CANDID_CUDA_EMULATED
#include "cuda_runtime_api.h"
#endif
#if !defined(CANDID_CUDA_EMULATED) || defined(CANDID_EMULATE_ALL)
#define WITH_DEMO_MODEL 1
#endif

#define DEMO_MODEL PROJECT_ROOT "/models/demo/candid-demo.gguf"
#define TINY_MODEL PROJECT_ROOT "/tests/golden/hf/llava15_mha" /* random weights, shaped like LLaVA-1.5 */
#define QUESTION   "Please help me describe the image in detail."

static void ok(candid_status status, const candid_error *error) {
    if (status != CANDID_OK) {
        fail_msg("%s", error->message);
    }
}

static candid_model *open_model(const char *path, const char *device, candid_precision precision) {
    candid_model *model = NULL;
    candid_error error = {.message = ""};
    candid_model_params params = candid_model_params_default();
    params.precision = precision;
    params.n_threads = 2;
    params.device = device;
    ok(candid_model_open(path, &params, &model, &error), &error);
    candid_model_info info = {.struct_size = sizeof info};
    ok(candid_model_get_info(model, &info, &error), &error);
    assert_true(strncmp(info.backend, device, strlen(device)) == 0);
    return model;
}

/* A new context's answer. config: JSON in memory, or the path of a file that begins with '/'; NULL: none. */
static const candid_result *answer(const candid_model *model, const candid_image *image, const char *config,
                                   int max_new_tokens) {
    candid_error error = {.message = ""};
    candid_context *context = NULL;
    candid_config *c = NULL;
    const candid_result *result = NULL;
    candid_generate_params params = candid_generate_params_default();
    params.max_new_tokens = max_new_tokens;
    if (config) {
        ok(config[0] == '/' ? candid_config_load(config, &c, &error)
                            : candid_config_parse(config, strlen(config), "test", &c, &error),
           &error);
        params.config = c;
    }
    ok(candid_context_create(model, NULL, &context, &error), &error);
    const candid_status status = candid_generate(context, &image, 1, QUESTION, &params, &result, &error);
    if (status != CANDID_OK) {
        fail_msg("%s: %s", config ? config : "no method", error.message);
    }
    candid_context_free(context);
    candid_config_free(c);
    return result;
}

static void check_same(const candid_result *expected, const candid_result *found, const char *what) {
    if (expected->n_tokens != found->n_tokens ||
        memcmp(expected->tokens, found->tokens, found->n_tokens * sizeof *found->tokens) != 0) {
        fail_msg("%s: the GPU says \"%s\", the CPU \"%s\"", what, found->text, expected->text);
    }
}

static void compare(const char *path, const char *image_path, const char *const *configs, size_t n_configs,
                    int max_new_tokens, candid_precision precision) {
    candid_error error = {.message = ""};
    candid_image *image = NULL;
    ok(candid_image_load(image_path, &image, &error), &error);
    candid_model *cpu = open_model(path, "cpu", CANDID_PRECISION_EXACT), *cuda = open_model(path, "cuda", precision);
    for (size_t i = 0; i < n_configs; i++) {
        const candid_result *expected = answer(cpu, image, configs[i], max_new_tokens);
        const candid_result *found = answer(cuda, image, configs[i], max_new_tokens);
        check_same(expected, found, configs[i] ? configs[i] : "no method");
        candid_result_free(expected);
        candid_result_free(found);
    }
    candid_model_free(cuda);
    candid_model_free(cpu);
    candid_image_free(image);
}

#ifdef WITH_DEMO_MODEL
/* On the demo model, whose attention looks at the image. Emulated, one answer takes seconds: the other methods are left
 * to a GPU there. */
static void the_demo_model_says_the_same(void **state) {
    static const char *const configs[] = {
        PROJECT_ROOT "/configs/var-demo.json", /* probabilities moved, peaks of the input */
#ifndef CANDID_CUDA_EMULATED
        NULL,
        PROJECT_ROOT "/configs/vhr-demo-fixed.json",
        PROJECT_ROOT "/configs/cca.json",
        PROJECT_ROOT "/configs/pai.json",
        PROJECT_ROOT "/configs/vista.json",
        PROJECT_ROOT "/configs/dola.json",
        PROJECT_ROOT "/configs/opera-fast.json",
#endif
    };
    compare(DEMO_MODEL, PROJECT_ROOT "/examples/park_28.png", configs, sizeof configs / sizeof *configs, 5,
            CANDID_PRECISION_EXACT);
}

/* The fast path has the same answer where nothing is near a tie. */
static void the_fast_path_says_the_same(void **state) {
    static const char *const configs[] = {PROJECT_ROOT "/configs/vhr-demo-fixed.json"};
    compare(DEMO_MODEL, PROJECT_ROOT "/examples/park_28.png", configs, 1, 6, CANDID_PRECISION_FAST);
}

#endif

/* Every method on a tiny model: what they compute is random, but it is the same. */
static void every_method_says_the_same(void **state) {
    static const char *const configs[] = {
        NULL,
        PROJECT_ROOT "/configs/cca.json",           /* positions and second ranges of keys */
        PROJECT_ROOT "/configs/vista.json",         /* steering, and a mix of layers */
        PROJECT_ROOT "/configs/dola.json",          /* logits of earlier layers */
        PROJECT_ROOT "/configs/opera-fast.json",    /* beams, columns of attention */
        PROJECT_ROOT "/configs/pai.json",           /* scores, and a second row */
        PROJECT_ROOT "/configs/vhr.json",           /* heads of two rows compared, then scaled */
        PROJECT_ROOT "/configs/causalmm-both.json", /* probabilities replaced, and the image encoder's */
        PROJECT_ROOT "/configs/damro.json",
        PROJECT_ROOT "/configs/paint.json",
        PROJECT_ROOT "/configs/mma.json",
        PROJECT_ROOT "/configs/hgai.json",
        PROJECT_ROOT "/configs/act.json",
#ifndef CANDID_CUDA_EMULATED /* ways to touch the forward pass that are above already */
        PROJECT_ROOT "/configs/vcd.json",
        PROJECT_ROOT "/configs/agla.json",
        PROJECT_ROOT "/configs/lqcd.json",
        PROJECT_ROOT "/configs/icd.json",
        PROJECT_ROOT "/configs/vicrop.json",
        PROJECT_ROOT "/configs/carve.json",
        PROJECT_ROOT "/configs/beam-5.json",
        PROJECT_ROOT "/configs/vista-pope.json",
#endif
    };
    compare(TINY_MODEL, PROJECT_ROOT "/tests/golden/hf/images/wide.png", configs, sizeof configs / sizeof *configs, 4,
            CANDID_PRECISION_EXACT);
    compare(TINY_MODEL, PROJECT_ROOT "/tests/golden/hf/images/wide.png", configs, 1, 4, CANDID_PRECISION_FAST);
}

static void contexts_share_weights(void **state) {
    candid_error error = {.message = ""};
    candid_image *image = NULL;
    ok(candid_image_load(PROJECT_ROOT "/tests/golden/hf/images/wide.png", &image, &error), &error);
    candid_model *cuda = open_model(TINY_MODEL, "cuda", CANDID_PRECISION_EXACT);
    const candid_result *one = answer(cuda, image, NULL, 6), *two = answer(cuda, image, NULL, 6);
    check_same(one, two, "a second context");
    assert_int_equal(one->stats.fingerprint, two->stats.fingerprint);
    candid_result_free(one);
    candid_result_free(two);
    candid_model_free(cuda);
    candid_image_free(image);
#ifdef CANDID_CUDA_EMULATED
    assert_int_equal(emulated_gpu.n_blocks, 0);
    assert_int_equal(emulated_gpu.used, 0);
#endif
}

#ifdef CANDID_CUDA_EMULATED
/* A decoding step waits for its logits, not for its layers, and allocates nothing. */
static void steps_wait_once(void **state) {
    for (int fast = 0; fast < 2; fast++) {
        candid_error error = {.message = ""};
        candid_model *cuda = open_model(TINY_MODEL, "cuda", fast ? CANDID_PRECISION_FAST : CANDID_PRECISION_EXACT);
        candid_context *context = NULL;
        ok(candid_context_create(cuda, NULL, &context, &error), &error);
        size_t waits[3], allocations[3];
        const int tokens[3] = {12, 4, 12}; /* the first time work memory is made */
        for (int i = 0; i < 3; i++) {
            const size_t waits_before = emulated_gpu.n_waits, allocations_before = emulated_gpu.n_allocations;
            candid_generate_params params = candid_generate_params_default();
            params.max_new_tokens = tokens[i];
            const candid_result *result = NULL;
            ok(candid_generate(context, NULL, 0, QUESTION, &params, &result, &error), &error);
            assert_int_equal(result->n_tokens, tokens[i]);
            candid_result_free(result);
            waits[i] = emulated_gpu.n_waits - waits_before;
            allocations[i] = emulated_gpu.n_allocations - allocations_before;
        }
        assert_true(waits[2] - waits[1] <= 2 * 8);
        assert_int_equal(allocations[1], 0);
        assert_int_equal(allocations[2], 0);
        candid_context_free(context);
        candid_model_free(cuda);
    }
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
#ifdef WITH_DEMO_MODEL
        cmocka_unit_test(the_demo_model_says_the_same),
        cmocka_unit_test(the_fast_path_says_the_same),
#endif
        cmocka_unit_test(every_method_says_the_same),
        cmocka_unit_test(contexts_share_weights),
#ifdef CANDID_CUDA_EMULATED
        cmocka_unit_test(steps_wait_once),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
