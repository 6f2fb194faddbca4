/* The public API on tiny models: life cycle, errors, callbacks, versioned structs, two models in two threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "../support/tiny_model.h"
#include "candid/candid.h"

#define MODEL_PATH  "test_api.gguf"
#define LM_PATH     "test_api_lm.gguf"
#define MMPROJ_PATH "test_api_mmproj.gguf"
#define TEMPLATE    "<image>\n{prompt} ASSISTANT:"

static candid_model *open_ok(const char *path, const candid_model_params *params) {
    candid_model *model = NULL;
    candid_error error;
    if (candid_model_open(path, params, &model, &error) != CANDID_OK) {
        fail_msg("%s", error.message);
    }
    return model;
}

static candid_image *test_image(int shade) {
    uint8_t rgb[20 * 30 * 3];
    for (size_t i = 0; i < sizeof rgb; i++) {
        rgb[i] = (uint8_t)(i * (size_t)shade);
    }
    candid_image *image = NULL;
    assert_int_equal(candid_image_from_rgb(rgb, 30, 20, 90, &image, NULL), CANDID_OK);
    return image;
}

static int setup(void **state) {
    (void)state;
    struct tiny_model_options o = tiny_model_options_default();
    int bad = tiny_model_write(MODEL_PATH, &o);
    o.vision = false;
    bad |= tiny_model_write(LM_PATH, &o);
    o.vision = true;
    o.language_model = false;
    return bad | tiny_model_write(MMPROJ_PATH, &o);
}

static int teardown(void **state) {
    (void)state;
    remove(MODEL_PATH);
    remove(LM_PATH);
    remove(MMPROJ_PATH);
    return 0;
}

static candid_generate_params short_answer(void) {
    candid_generate_params p = candid_generate_params_default();
    p.max_new_tokens = 12;
    p.conversation = TEMPLATE;
    return p;
}

static void two_files_work_as_one(void **state) {
    (void)state;
    candid_model_params params = candid_model_params_default();
    candid_model *one = open_ok(MODEL_PATH, &params);
    params.mmproj_path = MMPROJ_PATH;
    candid_model *two = open_ok(LM_PATH, &params);
    candid_model_info info = {.struct_size = sizeof info};
    assert_int_equal(candid_model_get_info(two, &info, NULL), CANDID_OK);
    assert_true(info.has_vision);
    assert_int_equal(info.image_tokens, 4);
    assert_int_equal(info.n_embd, 64);
    candid_image *image = test_image(7);
    const candid_image *images[] = {image};
    candid_generate_params p = short_answer();
    uint32_t text_only[2];
    candid_model *models[] = {one, two};
    for (int i = 0; i < 2; i++) {
        candid_context *context;
        const candid_result *result;
        assert_int_equal(candid_context_create(models[i], NULL, &context, NULL), CANDID_OK);
        assert_int_equal(candid_generate(context, images, 1, "what is this", &p, &result, NULL), CANDID_OK);
        assert_true(result->n_tokens >= 1 && result->n_tokens <= 12);
        assert_int_equal(result->stats.n_generated, result->n_tokens);
        candid_result_free(result);
        assert_int_equal(candid_generate(context, NULL, 0, "what is this", &p, &result, NULL), CANDID_OK);
        text_only[i] = result->stats.fingerprint;
        candid_result_free(result);
        candid_context_free(context);
    }
    assert_int_equal(text_only[0], text_only[1]); /* the same decoder, alone in its file or not */
    candid_image_free(image);
    candid_model_free(one);
    candid_model_free(two);
}

static void a_context_can_be_used_again(void **state) {
    (void)state;
    candid_model *model = open_ok(MODEL_PATH, NULL);
    candid_context *context;
    assert_int_equal(candid_context_create(model, NULL, &context, NULL), CANDID_OK);
    candid_image *a = test_image(3), *b = test_image(11);
    const candid_image *both[] = {a, b}, *only_b[] = {b};
    candid_generate_params p = short_answer();
    const candid_result *first, *again, *pair, *text;
    assert_int_equal(candid_generate(context, both, 1, "cat", &p, &first, NULL), CANDID_OK);
    assert_int_equal(candid_generate(context, both, 2, "cat", &p, &pair, NULL), CANDID_OK);
    assert_true(pair->stats.n_prompt > first->stats.n_prompt + 4); /* four visual tokens and the newline before them */
    assert_int_equal(candid_generate(context, both, 1, "cat", &p, &again, NULL), CANDID_OK);
    assert_int_equal(first->stats.fingerprint, again->stats.fingerprint);
    candid_result_free(again);
    assert_int_equal(candid_generate(context, only_b, 1, "cat", &p, &again, NULL), CANDID_OK);
    assert_int_not_equal(first->stats.fingerprint, again->stats.fingerprint); /* the image matters */
    assert_int_equal(candid_generate(context, NULL, 0, "cat", &p, &text, NULL), CANDID_OK);
    candid_result_free(first);
    candid_result_free(again);
    candid_result_free(pair);
    candid_result_free(text);
    candid_image_free(a);
    candid_image_free(b);
    candid_context_free(context);
    candid_model_free(model);
}

static void mistakes_are_errors_with_a_sentence(void **state) {
    (void)state;
    candid_model *model = NULL;
    candid_context *context;
    candid_error error;
    const candid_result *result = NULL;
    assert_int_equal(candid_model_open(NULL, NULL, &model, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_model_open("none.gguf", NULL, &model, &error), CANDID_ERROR_IO);
    assert_non_null(strstr(error.message, "none.gguf"));
    assert_int_equal(candid_model_open(MMPROJ_PATH, NULL, &model, &error), CANDID_ERROR_UNSUPPORTED);
    candid_model_params device = candid_model_params_default();
    device.device = "toaster";
    assert_int_equal(candid_model_open(MODEL_PATH, &device, &model, &error), CANDID_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "toaster"));
    device.struct_size = offsetof(candid_model_params, device); /* an older host's struct ends before it */
    candid_model_free(open_ok(MODEL_PATH, &device));
    candid_model_params zero = {0};
    assert_int_equal(candid_model_open(MODEL_PATH, &zero, &model, &error), CANDID_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "struct_size"));
    assert_null(model);

    model = open_ok(LM_PATH, NULL);
    candid_context_params cp = candid_context_params_default();
    cp.n_ctx = 1 << 20;
    assert_int_equal(candid_context_create(model, &cp, &context, &error), CANDID_ERROR_ARGUMENT);
    cp.n_ctx = 64;
    assert_int_equal(candid_context_create(model, &cp, &context, &error), CANDID_OK);
    candid_image *image = test_image(5);
    const candid_image *images[] = {image, NULL};
    candid_generate_params p = short_answer();
    assert_int_equal(candid_generate(context, images, 1, "cat", &p, &result, &error), CANDID_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "mmproj"));
    assert_int_equal(candid_generate(context, images, 2, "cat", &p, &result, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_generate(context, NULL, 0, NULL, &p, &result, &error), CANDID_ERROR_ARGUMENT);
    p.max_new_tokens = 64;
    assert_int_equal(candid_generate(context, NULL, 0, "cat", &p, &result, &error), CANDID_ERROR_CONTEXT);
    assert_non_null(strstr(error.message, "64"));
    p.max_new_tokens = 4;
    p.temperature = -1;
    assert_int_equal(candid_generate(context, NULL, 0, "cat", &p, &result, &error), CANDID_ERROR_ARGUMENT);
    p.temperature = 0;
    p.conversation = "no place";
    assert_int_equal(candid_generate(context, NULL, 0, "cat", &p, &result, &error), CANDID_ERROR_ARGUMENT);
    p.conversation = TEMPLATE;
    p.n_stop = 1;
    assert_int_equal(candid_generate(context, NULL, 0, "cat", &p, &result, &error), CANDID_ERROR_ARGUMENT);
    assert_null(result);
    candid_image_free(image);
    candid_context_free(context);
    candid_model_free(model);
}

/* A host compiled against an older header passes a shorter struct: the new fields keep their defaults. */
static void shorter_structs_keep_defaults(void **state) {
    (void)state;
    candid_model *model = open_ok(LM_PATH, NULL);
    candid_context *context;
    assert_int_equal(candid_context_create(model, NULL, &context, NULL), CANDID_OK);
    candid_generate_params p = short_answer();
    p.max_new_tokens = 3;
    p.temperature = -1; /* beyond what the older struct has: must not be read */
    p.struct_size = offsetof(candid_generate_params, temperature);
    const candid_result *result;
    assert_int_equal(candid_generate(context, NULL, 0, "cat", &p, &result, NULL), CANDID_OK);
    assert_true(result->n_tokens <= 3);
    candid_result_free(result);

    struct {
        candid_model_info info;
        char guard[8];
    } small = {.info.struct_size = offsetof(candid_model_info, n_layer), .info.n_layer = -5, .guard = "guard"};
    assert_int_equal(candid_model_get_info(model, &small.info, NULL), CANDID_OK);
    assert_int_equal(small.info.n_layer, -5);
    candid_context_free(context);
    candid_model_free(model);
}

struct listener {
    int pieces, stop_after, polls;
    bool cancel;
    char text[4096];
};

static bool on_text(void *user_data, const char *text, size_t size) {
    struct listener *l = user_data;
    strncat(l->text, text, size);
    return ++l->pieces != l->stop_after;
}

static bool should_cancel(void *user_data) {
    struct listener *l = user_data;
    l->polls++;
    return l->cancel;
}

static void callbacks_stream_stop_and_cancel(void **state) {
    (void)state;
    candid_model *model = open_ok(MODEL_PATH, NULL);
    candid_context *context;
    assert_int_equal(candid_context_create(model, NULL, &context, NULL), CANDID_OK);
    candid_image *image = test_image(9);
    const candid_image *images[] = {image};
    struct listener listener = {0};
    candid_generate_params p = short_answer();
    p.max_new_tokens = 40;
    p.temperature = 3; /* random weights: varied text */
    p.seed = 4;
    p.on_text = on_text;
    p.on_text_user_data = &listener;
    p.should_cancel = should_cancel;
    p.should_cancel_user_data = &listener;
    const candid_result *result;
    candid_error error;
    assert_int_equal(candid_generate(context, images, 1, "cat", &p, &result, NULL), CANDID_OK);
    assert_string_equal(listener.text, result->text);
    assert_true(listener.polls > 4);
    candid_result_free(result);

    listener = (struct listener){.stop_after = 2};
    assert_int_equal(candid_generate(context, images, 1, "cat", &p, &result, NULL), CANDID_OK);
    assert_int_equal(result->finish, CANDID_FINISH_CANCELLED);
    assert_int_equal(listener.pieces, 2);
    candid_result_free(result);

    listener = (struct listener){.cancel = true};
    assert_int_equal(candid_generate(context, images, 1, "cat", &p, &result, &error), CANDID_ERROR_CANCELLED);
    assert_int_equal(listener.pieces, 0);
    candid_image_free(image);
    candid_context_free(context);
    candid_model_free(model);
}

/* ---- threads ---- */

struct worker {
    const char *path;
    candid_model *shared; /* or NULL: opens its own */
    uint32_t fingerprint;
    bool ok;
};

static void *work(void *argument) {
    struct worker *w = argument;
    candid_model_params params = candid_model_params_default();
    params.n_threads = 2;
    candid_model *own = NULL;
    candid_context *context = NULL;
    candid_image *image = NULL;
    const uint8_t grey[3 * 8 * 8] = {128};
    w->ok = (w->shared || candid_model_open(w->path, &params, &own, NULL) == CANDID_OK) &&
            candid_context_create(w->shared ? w->shared : own, NULL, &context, NULL) == CANDID_OK &&
            candid_image_from_rgb(grey, 8, 8, 24, &image, NULL) == CANDID_OK;
    for (int i = 0; w->ok && i < 8; i++) {
        const candid_image *images[] = {image};
        candid_generate_params p = candid_generate_params_default();
        p.max_new_tokens = 12;
        p.conversation = TEMPLATE;
        const candid_result *result;
        w->ok = candid_generate(context, images, 1, "dog", &p, &result, NULL) == CANDID_OK;
        if (w->ok) {
            w->ok = i == 0 || w->fingerprint == result->stats.fingerprint;
            w->fingerprint = result->stats.fingerprint;
            candid_result_free(result);
        }
    }
    candid_image_free(image);
    candid_context_free(context);
    candid_model_free(own);
    return NULL;
}

static void models_and_contexts_run_in_parallel(void **state) {
    (void)state;
    struct tiny_model_options o = tiny_model_options_default();
    o.seed = 99;
    o.type = TYPE_Q8_0;
    assert_int_equal(tiny_model_write("test_api_other.gguf", &o), 0);
    candid_model *shared = open_ok(MODEL_PATH, NULL);
    struct worker workers[4] = {
        {.path = MODEL_PATH}, {.path = "test_api_other.gguf"}, {.shared = shared}, {.shared = shared}};
    struct worker alone = {.path = MODEL_PATH};
    work(&alone);
    assert_true(alone.ok);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_true(workers[i].ok);
    }
    assert_int_equal(workers[0].fingerprint, alone.fingerprint);
    assert_int_equal(workers[2].fingerprint, alone.fingerprint);
    assert_int_equal(workers[3].fingerprint, alone.fingerprint);
    assert_int_not_equal(workers[1].fingerprint, alone.fingerprint);
    candid_model_free(shared);
    remove("test_api_other.gguf");
}

/* Methods of one request do not reach the next, also when it fails or is cancelled half-way. */
static bool cancel_at_once(void *calls) {
    return ++*(int *)calls > 2;
}

static void methods_belong_to_their_request(void **state) {
    (void)state;
    candid_model_params exact = candid_model_params_default();
    exact.precision = CANDID_PRECISION_EXACT;
    candid_model *model = open_ok(MODEL_PATH, &exact);
    candid_context *context;
    assert_int_equal(candid_context_create(model, NULL, &context, NULL), CANDID_OK);
    candid_image *image = test_image(7);
    const candid_image *images[] = {image};
    candid_config *config, *broken;
    static const char all[] = "{\"pai\": {\"layers\": \"0-\"}, \"vhr\": {\"layers\": \"0-\"}, \"cca\": true,"
                              "\"vista\": {\"sla_layers\": \"0\"}, \"hgai\": {\"layers\": \"0-\"}}";
    assert_int_equal(candid_config_parse(all, strlen(all), NULL, &config, NULL), CANDID_OK);
    assert_int_equal(candid_config_parse("{\"var\": true}", 13, NULL, &broken, NULL), CANDID_OK);
    candid_generate_params plain = short_answer(), edited = short_answer(), failing = short_answer();
    edited.config = config;
    failing.config = broken; /* no sink dimensions are known for this model */
    const candid_result *first, *with, *again, *none = NULL;
    assert_int_equal(candid_generate(context, images, 1, "what is this", &plain, &first, NULL), CANDID_OK);
    assert_string_equal(first->interventions, "{}");
    assert_int_equal(candid_generate(context, images, 1, "what is this", &edited, &with, NULL), CANDID_OK);
    assert_true(with->stats.fingerprint != first->stats.fingerprint);
    assert_non_null(strstr(with->interventions, "\"vhr\":{\"active\":true"));
    candid_error error;
    assert_int_equal(candid_generate(context, images, 1, "what is this", &failing, &none, &error),
                     CANDID_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "var.sink_dims"));
    int calls = 0;
    edited.should_cancel = cancel_at_once;
    edited.should_cancel_user_data = &calls;
    assert_int_equal(candid_generate(context, images, 1, "what is this", &edited, &none, NULL), CANDID_ERROR_CANCELLED);
    assert_int_equal(candid_generate(context, images, 1, "what is this", &plain, &again, NULL), CANDID_OK);
    assert_int_equal(again->stats.fingerprint, first->stats.fingerprint);
    candid_generate_params old = plain; /* a host whose header had no config */
    old.struct_size = offsetof(candid_generate_params, config);
    old.config = config;
    candid_result_free(again);
    assert_int_equal(candid_generate(context, images, 1, "what is this", &old, &again, NULL), CANDID_OK);
    assert_int_equal(again->stats.fingerprint, first->stats.fingerprint);
    candid_result_free(first);
    candid_result_free(with);
    candid_result_free(again);
    candid_config_free(config);
    candid_config_free(broken);
    candid_image_free(image);
    candid_context_free(context);
    candid_model_free(model);
}

static void freeing_nothing_is_fine(void **state) {
    (void)state;
    candid_model_free(NULL);
    candid_context_free(NULL);
    candid_image_free(NULL);
    candid_result_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_files_work_as_one),
        cmocka_unit_test(a_context_can_be_used_again),
        cmocka_unit_test(mistakes_are_errors_with_a_sentence),
        cmocka_unit_test(shorter_structs_keep_defaults),
        cmocka_unit_test(callbacks_stream_stop_and_cancel),
        cmocka_unit_test(models_and_contexts_run_in_parallel),
        cmocka_unit_test(methods_belong_to_their_request),
        cmocka_unit_test(freeing_nothing_is_fine),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
