/*
 * The demo model end to end against PyTorch on the same weights (tests/golden/make_demo_reference.py): prompt ids,
 * visual tokens, first-step logits, greedy captions and answers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cJSON.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/handles.h"
#include "lm/prompt.h"
#include "vision/image.h"

#define MODEL PROJECT_ROOT "/models/demo/candid-demo.gguf"

static cJSON *reference;

static int setup(void **state) {
    (void)state;
    FILE *f = fopen(TEST_GOLDEN "/demo_reference.json", "rb");
    if (!f) {
        return -1;
    }
    char *text = calloc(1, 1 << 20);
    size_t n = fread(text, 1, (1 << 20) - 1, f);
    fclose(f);
    reference = n ? cJSON_Parse(text) : NULL;
    free(text);
    return reference ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    cJSON_Delete(reference);
    return 0;
}

static cJSON *field(const cJSON *object, const char *name) {
    cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    if (!item) {
        fail_msg("demo_reference.json lacks %s", name);
    }
    return item;
}

static candid_model *open_demo(candid_precision precision) {
    candid_model *model = NULL;
    candid_error error;
    candid_model_params params = candid_model_params_default();
    params.precision = precision;
    if (candid_model_open(MODEL, &params, &model, &error) != CANDID_OK) {
        fail_msg("%s", error.message);
    }
    return model;
}

static candid_image *load(const cJSON *scene) {
    char path[512];
    snprintf(path, sizeof path, PROJECT_ROOT "/%s", field(scene, "image")->valuestring);
    candid_image *image = NULL;
    candid_error error;
    if (candid_image_load(path, &image, &error) != CANDID_OK) {
        fail_msg("%s", error.message);
    }
    return image;
}

static void prompt_ids_are_those_of_the_training(void **state) {
    (void)state;
    candid_model *model = open_demo(CANDID_PRECISION_FAST);
    char *text;
    struct prompt prompt;
    assert_int_equal(prompt_render(model->conversation, field(reference, "prompt")->valuestring, 1, &text, NULL),
                     CANDID_OK);
    assert_int_equal(prompt_tokenize(model->tokenizer, text, &prompt, NULL), CANDID_OK);
    assert_int_equal(prompt.n_chunks, 3);
    assert_int_equal(prompt.chunks[1].image, 0);
    const char *const names[] = {"ids_before_image", "ids_after_image"};
    for (int part = 0; part < 2; part++) {
        const cJSON *ids = field(reference, names[part]);
        const struct prompt_chunk *chunk = &prompt.chunks[2 * part];
        assert_int_equal(chunk->count, cJSON_GetArraySize(ids));
        for (size_t i = 0; i < chunk->count; i++) {
            assert_int_equal(prompt.tokens.ids[chunk->begin + i], cJSON_GetArrayItem(ids, (int)i)->valueint);
        }
    }
    prompt_free(&prompt);
    free(text);
    candid_model_free(model);
}

/* Largest difference of the recorded values of a row, relative to the row's norm. */
static double row_error(const cJSON *expected, const float *row, int n_embd) {
    double norm = 0, worst = 0;
    for (int i = 0; i < n_embd; i++) {
        norm += (double)row[i] * row[i];
    }
    const double l2 = field(expected, "l2")->valuedouble;
    const cJSON *first = field(expected, "first16");
    for (int i = 0; i < cJSON_GetArraySize(first); i++) {
        worst = fmax(worst, fabs(row[i] - cJSON_GetArrayItem(first, i)->valuedouble));
    }
    return fmax(worst, fabs(sqrt(norm) - l2)) / l2;
}

static double visual_token_error(candid_precision precision) {
    candid_model *model = open_demo(precision);
    struct backend *backend;
    struct clip *clip;
    assert_int_equal(backend_cpu_create(precision, 2, NULL, &backend, NULL), CANDID_OK);
    assert_int_equal(clip_create(&model->clip, model->llama.n_embd, backend, &clip, NULL), CANDID_OK);
    const int size = model->clip.image_size, n_embd = model->llama.n_embd;
    float *pixels = malloc(3 * (size_t)size * (size_t)size * sizeof *pixels);
    float *tokens = malloc((size_t)model_image_tokens(model) * (size_t)n_embd * sizeof *tokens);
    double worst = 0;
    const cJSON *scene;
    cJSON_ArrayForEach(scene, field(reference, "scenes")) {
        candid_image *image = load(scene);
        assert_int_equal(
            image_preprocess(image, CANDID_PREPROCESS_PAD, size, model->clip.mean, model->clip.std, pixels, NULL),
            CANDID_OK);
        assert_int_equal(clip_encode(clip, pixels, tokens, NULL, NULL), CANDID_OK);
        const cJSON *row;
        cJSON_ArrayForEach(row, field(scene, "projector")) {
            worst = fmax(worst, row_error(row, tokens + (size_t)field(row, "row")->valueint * (size_t)n_embd, n_embd));
        }
        candid_image_free(image);
    }
    free(pixels);
    free(tokens);
    clip_free(clip);
    backend_destroy(backend);
    candid_model_free(model);
    return worst;
}

static void visual_tokens_equal_pytorch(void **state) {
    (void)state;
    const double exact = visual_token_error(CANDID_PRECISION_EXACT), fast = visual_token_error(CANDID_PRECISION_FAST);
    print_message("visual tokens, worst difference relative to the row's norm: exact %.1e, fast %.1e\n", exact, fast);
    assert_true(exact < 2e-5);
    assert_true(fast < 1e-3);
}

static void check_answer(candid_context *context, const cJSON *scene, const char *prompt, const char *text_name,
                         const char *ids_name) {
    candid_image *image = load(scene);
    const candid_image *images[] = {image};
    const candid_result *result;
    candid_error error;
    if (candid_generate(context, images, 1, prompt, NULL, &result, &error) != CANDID_OK) {
        fail_msg("%s", error.message);
    }
    assert_string_equal(result->text, field(scene, text_name)->valuestring);
    const cJSON *ids = field(scene, ids_name);
    for (int i = 0; i < cJSON_GetArraySize(ids); i++) {
        assert_true((size_t)i < result->n_tokens);
        assert_int_equal(result->tokens[i], cJSON_GetArrayItem(ids, i)->valueint);
    }
    assert_int_equal(result->finish, CANDID_FINISH_EOS);
    candid_result_free(result);
    candid_image_free(image);
}

static void greedy_answers_equal_pytorch(void **state) {
    (void)state;
    candid_model *model = open_demo(CANDID_PRECISION_EXACT);
    candid_context *context;
    assert_int_equal(candid_context_create(model, NULL, &context, NULL), CANDID_OK);
    const cJSON *scene;
    cJSON_ArrayForEach(scene, field(reference, "scenes")) {
        check_answer(context, scene, field(reference, "prompt")->valuestring, "caption", "caption_ids");
        check_answer(context, scene, field(reference, "question")->valuestring, "answer", "answer_ids");
    }
    candid_context_free(context);
    candid_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompt_ids_are_those_of_the_training),
        cmocka_unit_test(visual_tokens_equal_pytorch),
        cmocka_unit_test(greedy_answers_equal_pytorch),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
