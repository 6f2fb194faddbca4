/*
 * ViCrop and CARVE against an independent implementation on transformers (tests/golden/make_decoding.py), on the exact
 * path: the first pass's attention and map, the box, the size of the refined picture, the second pass's prompt, the
 * logits of its 16 steps and its tokens; and the answer and report of candid_generate.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/decoding_run.h"
#include "api/gaze.h"
#include "api/second_look.h"
#include "vision/carve.h"
#include "vision/vicrop.h"

struct outcome {
    double attention, map, logits; /* largest difference over the largest value */
    int tokens;                    /* that agree */
};

/* ---- the first pass ---- */

/* Where an answer to `prompt` looks; tokens: what is to be said, or NULL. */
static struct gaze gaze_of(struct runner *r, const cJSON *item, const candid_image *image, const char *prompt,
                           const struct look_options *options, const cJSON *tokens) {
    const candid_image *images[] = {image};
    const int n_layer = r->model->llama.n_layer, steps = options->kind == LOOK_CARVE ? options->steps : 1;
    candid_generate_params params = case_params(item, NULL);
    struct request request;
    struct gaze gaze;
    bool *layers = calloc((size_t)n_layer, sizeof *layers);
    assert_non_null(layers);
    assert_true(layers_select(options->layers, n_layer, layers, "case", NULL) > 0);
    OK(request_prepare(r->context, images, 1, prompt, &params, &request, error));
    OK(request_encode(r->context, images, &request, NULL, NULL, error));
    OK(gaze_answer(r->context, &request, layers, steps, &gaze, NULL, error));
    request_free(&request);
    free(layers);
    if (tokens) {
        const candid_result *result = NULL;
        params.max_new_tokens = steps;
        OK(candid_generate(r->context, images, 1, prompt, &params, &result, error));
        assert_int_equal(result->n_tokens, cJSON_GetArraySize(tokens));
        assert_int_equal(gaze.n_steps, cJSON_GetArraySize(tokens));
        for (size_t t = 0; t < result->n_tokens; t++) {
            assert_int_equal(result->tokens[t], integer_at(tokens, (int)t));
        }
        candid_result_free(result);
    }
    return gaze;
}

/* Mean over the layers of the first step, in place. */
static void mean_of_layers(struct gaze *g) {
    for (int i = 0; i < g->n_cells; i++) {
        double sum = 0;
        for (int l = 0; l < g->n_layers; l++) {
            sum += (double)g->values[l * g->n_cells + i];
        }
        g->values[i] = (float)(sum / g->n_layers);
    }
}

static void compare_first_pass(struct runner *r, const cJSON *item, const candid_image *image,
                               const struct safetensors *file, const struct look_options *options,
                               struct outcome *out) {
    struct gaze question =
        gaze_of(r, item, image, text_of(item, "prompt"), options, cJSON_GetObjectItem(item, "first_tokens"));
    struct gaze general =
        gaze_of(r, item, image, options->general, options, cJSON_GetObjectItem(item, "general_tokens"));
    const int n = question.n_cells;
    float *map = calloc((size_t)n, sizeof *map);
    assert_non_null(map);
    if (options->kind == LOOK_VICROP) {
        mean_of_layers(&question);
        mean_of_layers(&general);
        out->attention = fmax(compare_row(recorded(file, item, "question"), 0, question.values, n, NULL),
                              compare_row(recorded(file, item, "general"), 0, general.values, n, NULL));
        OK(vicrop_relative(question.values, general.values, n, map, error));
    } else {
        const struct carve_attention a = {.question = question.values,
                                          .general = general.values,
                                          .n_question = question.n_steps,
                                          .n_general = general.n_steps,
                                          .n_layers = question.n_layers,
                                          .n_cells = n};
        OK(carve_contrast(&a, options->first_step_only ? CARVE_FIRST_STEP : CARVE_ALL_STEPS, 1e-8, map, error));
    }
    out->map = compare_row(recorded(file, item, "map"), 0, map, n, NULL);
    free(map);
    gaze_free(&question);
    gaze_free(&general);
}

/* ---- the second pass ---- */

struct steps {
    const struct safetensors_tensor *expected;
    const cJSON *tokens;
    int n_vocab;
    struct outcome *out;
};

static void see_step(void *user_data, int step, const float *row) {
    const struct steps *s = user_data;
    s->out->logits = fmax(s->out->logits, compare_row(s->expected, step, row, s->n_vocab, NULL));
    s->out->tokens += best_of(row, s->n_vocab) == integer_at(s->tokens, step);
}

static void assert_numbers(const cJSON *array, const int *found, int n) {
    assert_int_equal(cJSON_GetArraySize(array), n);
    for (int i = 0; i < n; i++) {
        assert_int_equal(found[i], integer_at(array, i));
    }
}

static void compare_second_pass(struct runner *r, const cJSON *item, const struct safetensors *file,
                                const struct second_look *look, const candid_generate_params *params,
                                struct outcome *out) {
    const int box[] = {look->box.x0, look->box.y0, look->box.x1, look->box.y1};
    assert_numbers(cJSON_GetObjectItem(item, "box"), box, 4);
    const cJSON *size = cJSON_GetObjectItem(item, "size");
    if (size) {
        assert_numbers(size, (int[]){look->refined->width, look->refined->height}, 2);
    }
    char *text = NULL;
    OK(prompt_render(DECODING_CONVERSATION, look->prompt, look->n_images, &text, error));
    assert_string_equal(text, text_of(item, "second_text"));
    free(text);

    struct request request;
    OK(request_prepare(r->context, look->images, look->n_images, look->prompt, params, &request, error));
    assert_int_equal(request_length(&request), integer_of(item, "second_length"));
    OK(request_encode(r->context, look->images, &request, params->config, NULL, error));
    struct steps steps = {.expected = recorded(file, item, "z"),
                          .tokens = cJSON_GetObjectItem(item, "tokens"),
                          .n_vocab = r->model->llama.n_vocab,
                          .out = out};
    answer_with(r, &request, steps.tokens, params->max_new_tokens, see_step, &steps);
    request_free(&request);
}

/* The same from outside. */
static void compare_answer(struct runner *r, const cJSON *item, const candid_image *image,
                           const candid_generate_params *params, const struct look_options *options) {
    const candid_image *images[] = {image};
    const candid_result *result = NULL;
    OK(candid_generate(r->context, images, 1, text_of(item, "prompt"), params, &result, error));
    const cJSON *tokens = cJSON_GetObjectItem(item, "tokens");
    for (size_t t = 0; t < result->n_tokens; t++) {
        assert_int_equal(result->tokens[t], integer_at(tokens, (int)t));
    }
    assert_true(result->n_tokens == (size_t)params->max_new_tokens ||
                tokenizer_is_end(r->model->tokenizer, result->tokens[result->n_tokens - 1]));
    cJSON *report = cJSON_Parse(result->interventions);
    const cJSON *told = cJSON_GetObjectItem(report, options->method->name);
    assert_true(cJSON_Compare(cJSON_GetObjectItem(told, "box"), cJSON_GetObjectItem(item, "box"), true));
    assert_int_equal(integer_of(told, "images_shown"), options->refined_alone ? 1 : 2);
    cJSON_Delete(report);
    candid_result_free(result);
}

/* ---- cases ---- */

static struct outcome run_case(struct runner *r, const cJSON *item) {
    runner_open(r, text_of(item, "model"));
    struct safetensors *file = recorded_for(text_of(item, "name"));
    candid_image *image = case_image(item);
    candid_config *config = case_config(item);
    const candid_generate_params params = case_params(item, config);
    const candid_image *images[] = {image};
    struct look_options options;
    struct second_look look;
    struct outcome out = {0};
    OK(look_options_from(config, &options, error));
    compare_first_pass(r, item, image, file, &options, &out);
    OK(second_look(r->context, images, 1, text_of(item, "prompt"), &params, &options, &look, error));
    compare_second_pass(r, item, file, &look, &params, &out);
    second_look_free(&look);
    compare_answer(r, item, image, &params, &options);
    candid_config_free(config);
    candid_image_free(image);
    safetensors_close(file);
    return out;
}

static void both_passes(void **state) {
    (void)state;
    cJSON *cases = read_cases(DECODING "cases.json");
    struct runner r = {.precision = CANDID_PRECISION_EXACT};
    struct outcome worst = {0};
    int failed = 0, n = 0, seen = 0;
    for (const cJSON *item = cases->child; item; item = item->next) {
        if (!is_kind(item, "crop") || seen++ % DECODING_STRIDE != 0) {
            continue;
        }
        const struct outcome out = run_case(&r, item);
        const int wanted = integer_of(item, "max_new_tokens");
        worst.attention = fmax(worst.attention, out.attention);
        worst.map = fmax(worst.map, out.map);
        worst.logits = fmax(worst.logits, out.logits);
        n++;
        if (out.attention > 1e-5 || out.map > 1e-5 || out.logits > 1e-5 || out.tokens != wanted) {
            print_message("%s: errors of attention %.2e, map %.2e, logits %.2e; %d of %d tokens\n",
                          text_of(item, "name"), out.attention, out.map, out.logits, out.tokens, wanted);
            failed++;
        }
    }
    print_message("%d cases; largest errors of attention %.2e, maps %.2e, logits %.2e of the largest value\n", n,
                  worst.attention, worst.map, worst.logits);
    assert_int_equal(failed, 0);
    assert_true(seen >= 13 && n >= seen / DECODING_STRIDE);
    runner_close(&r);
    cJSON_Delete(cases);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
