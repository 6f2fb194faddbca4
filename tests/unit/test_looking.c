/* candid_encode_image, candid_attention_of, candid_image_overlay, candid_cancel_when_set. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/demo_request.h"
#include "../support/naive_clip.h"
#include "vision/heat_map.h"

#define NEXT PROJECT_ROOT "/tests/golden/hf/next_vicuna"
#define WIDE PROJECT_ROOT "/tests/golden/hf/images/wide.png"

/* ---- vectors of an image ------------------------------------------------------------------------- */

/* What the function gives, with its shape. The caller frees it. */
static float *encode(const struct demo *d, candid_features features, const candid_generate_params *params, int *n_rows,
                     int *n_embd) {
    OK(candid_encode_image(d->context, d->image, features, params, NULL, 0, n_rows, n_embd, error));
    const size_t count = (size_t)*n_rows * (size_t)*n_embd;
    float *out = malloc((count + 1) * sizeof *out);
    assert_non_null(out);
    out[count] = 7.0f;
    OK(candid_encode_image(d->context, d->image, features, params, out, count, n_rows, n_embd, error));
    assert_true(out[count] == 7.0f);
    return out;
}

/* The same as candid_generate encodes it, of which the naive projector makes the same of the encoder's features. */
static void check_encoding(const char *model, candid_preprocess preprocess, int n_views) {
    struct demo d;
    model_open(&d, model, WIDE, CANDID_PRECISION_EXACT, 1);
    const struct clip_weights *clip = &d.model->clip;
    const int n_patches = clip->grid * clip->grid, width = d.model->llama.n_embd;
    candid_generate_params params = candid_generate_params_default();
    params.preprocess = preprocess;
    int n_tokens, n_embd, n_features, n_wide;
    float *tokens = encode(&d, CANDID_FEATURES_PROJECTED, &params, &n_tokens, &n_embd);
    float *features = encode(&d, CANDID_FEATURES_ENCODER, &params, &n_features, &n_wide);
    assert_int_equal(n_embd, width);
    assert_int_equal(n_wide, clip->n_embd);
    assert_int_equal(n_features, n_views * n_patches);

    const candid_image *images[] = {d.image};
    struct request r;
    OK(request_prepare(d.context, images, 1, DEMO_PROMPT, &params, &r, error));
    OK(request_encode(d.context, images, &r, NULL, NULL, error));
    assert_int_equal(r.spans[0].n_tokens, n_tokens);
    assert_memory_equal(tokens, r.visual_tokens, (size_t)n_tokens * (size_t)width * sizeof *tokens);
    request_free(&r);

    double *doubles = naive_doubles((size_t)n_patches * (size_t)n_wide);
    for (int i = 0; i < n_patches * n_wide; i++) {
        doubles[i] = (double)features[i];
    }
    double *projected = naive_project(clip, doubles, n_patches); /* the first view's tokens come first */
    for (int i = 0; i < n_patches * width; i++) {
        assert_true(fabs(projected[i] - (double)tokens[i]) < 1e-4 * (1 + fabs(projected[i])));
    }
    if (n_views > 1) { /* the second view is another */
        assert_memory_not_equal(features, features + (size_t)n_patches * (size_t)n_wide,
                                (size_t)n_patches * (size_t)n_wide * sizeof *features);
    }
    free(projected), free(doubles), free(tokens), free(features);
    demo_close(&d);
}

static void vectors_are_those_of_the_prompt(void **state) {
    (void)state;
    check_encoding(PROJECT_ROOT "/tests/golden/hf/llava15_mha", CANDID_PREPROCESS_AUTO, 1);
    check_encoding(PROJECT_ROOT "/tests/golden/hf/llava15_mha", CANDID_PREPROCESS_PAD, 1);
}

static void tiles_follow_the_whole_image(void **state) {
    (void)state;
    struct demo d;
    struct visual_plan plan;
    model_open(&d, NEXT, WIDE, CANDID_PRECISION_EXACT, 1);
    OK(visual_plan_make(&d.model->clip, CANDID_PREPROCESS_AUTO, d.image->width, d.image->height, &plan, error));
    demo_close(&d);
    assert_true(plan.tile_rows * plan.tile_cols > 1);
    check_encoding(NEXT, CANDID_PREPROCESS_AUTO, 1 + plan.tile_rows * plan.tile_cols);
}

static void encoding_refuses(void **state) {
    (void)state;
    struct demo d;
    demo_open(&d, CANDID_PRECISION_FAST, 1);
    candid_error found;
    int n_rows, n_embd, flag = 0;
    float few[8];
    assert_int_equal(candid_encode_image(NULL, d.image, 0, NULL, NULL, 0, &n_rows, &n_embd, &found),
                     CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_encode_image(d.context, d.image, 2, NULL, NULL, 0, &n_rows, &n_embd, &found),
                     CANDID_ERROR_ARGUMENT);
    assert_string_equal(found.message, "features: expected 0 (projected) or 1 (encoder), found 2");
    assert_int_equal(candid_encode_image(d.context, d.image, 0, NULL, few, 8, &n_rows, &n_embd, &found),
                     CANDID_ERROR_ARGUMENT);
    assert_string_equal(found.message, "capacity: expected 12288 floats or more (64 rows of 192), found 8");
    candid_generate_params params = candid_generate_params_default();
    params.preprocess = CANDID_PREPROCESS_ANYRES;
    assert_int_equal(candid_encode_image(d.context, d.image, 0, &params, NULL, 0, &n_rows, &n_embd, &found),
                     CANDID_ERROR_ARGUMENT);

    params.preprocess = CANDID_PREPROCESS_AUTO;
    params.should_cancel = candid_cancel_when_set;
    params.should_cancel_user_data = &flag;
    float *tokens = encode(&d, CANDID_FEATURES_PROJECTED, &params, &n_rows, &n_embd);
    flag = 1;
    assert_int_equal(candid_encode_image(d.context, d.image, 0, &params, tokens, 12288, &n_rows, &n_embd, &found),
                     CANDID_ERROR_CANCELLED);
    free(tokens);
    demo_close(&d);
}

/* ---- attention of an answer ---------------------------------------------------------------------- */

/* Attention of every row to the image, from probabilities that an observer is shown. */
struct seen {
    const struct request *r;
    int n_head, begin, n_cells, n_layer;
    int done, step;
    int *cells;
    float *values; /* (n_tokens, n_layer, n_cells) */
};

static void see(void *user_data, enum site site, int layer, const float *data, int n_rows, int n_cols) {
    struct seen *s = user_data;
    const int n_prompt = (int)request_length(s->r);
    int rows = n_rows / s->n_head;
    if (s->done < n_prompt && rows > n_prompt - s->done) {
        rows = n_prompt - s->done; /* companions stand behind */
    }
    if (s->done + rows >= n_prompt) {
        float *to = s->values + ((size_t)s->step * (size_t)s->n_layer + (size_t)layer) * (size_t)s->n_cells;
        for (int i = 0; i < s->n_cells; i++) {
            double sum = 0;
            for (int h = 0; h < s->n_head; h++) {
                sum += (double)data[((size_t)(rows - 1) * (size_t)s->n_head + (size_t)h) * (size_t)n_cols +
                                    (size_t)(s->begin + i)];
            }
            to[s->cells[i]] = (float)(sum / s->n_head);
        }
        s->step += layer == s->n_layer - 1;
    }
    s->done += layer == s->n_layer - 1 ? rows : 0;
}

static int begin_of_image(const struct request *r, int image) {
    struct layout layout = {0};
    OK(layout_from_prompt(&r->prompt, r->spans, &layout, error));
    const int begin = layout_find_image(&layout, image)->begin;
    layout_free(&layout);
    return begin;
}

static float *observe(const struct demo *d, const candid_image *const *images, size_t n_images, int which,
                      const candid_generate_params *params, const candid_result *result) {
    const struct token_list forced = {.ids = (int32_t *)(uintptr_t)result->tokens, .count = result->n_tokens};
    const int grid = d->model->clip.grid;
    struct request r;
    struct kv_seq *seq;
    struct generated out = {0};
    OK(request_prepare(d->context, images, n_images, DEMO_PROMPT, params, &r, error));
    OK(request_encode(d->context, images, &r, params->config, NULL, error));
    OK(kv_seq_create(d->context->kv, &seq, error));
    struct seen s = {.r = &r,
                     .n_head = d->model->llama.n_head,
                     .begin = begin_of_image(&r, which),
                     .n_cells = grid * grid,
                     .n_layer = d->model->llama.n_layer};
    s.cells = malloc((size_t)s.n_cells * sizeof *s.cells);
    s.values = calloc(forced.count * (size_t)s.n_layer * (size_t)s.n_cells, sizeof *s.values);
    assert_true(s.cells && s.values);
    grid_cells(r.spans[which].order, grid, grid, s.cells);
    const struct observer observer = {.mask = 1u << SITE_ATTENTION_PROBS, .see = see, .user_data = &s};
    struct generation g = request_generation(d->context, &r, seq);
    g.n_branches = 0;
    g.decoding.strategy = STRATEGY_GREEDY;
    g.decoding.beams = g.decoding.answers = 1;
    g.forced = &forced;
    g.max_new_tokens = (int)forced.count;
    g.observer = &observer;
    OK(generate(&g, &out, error));
    assert_int_equal(s.step, forced.count);
    generated_free(&out);
    kv_seq_free(seq);
    request_free(&r);
    free(s.cells);
    return s.values;
}

static void check_attention(const char *json, size_t n_images, int which) {
    struct demo d;
    exact_open(&d, 1);
    const candid_image *images[] = {d.image, d.image};
    candid_config *config = demo_config(json);
    candid_generate_params params = candid_generate_params_default();
    params.config = config;
    params.max_new_tokens = 8;
    const candid_result *result;
    OK(candid_generate(d.context, images, n_images, DEMO_PROMPT, &params, &result, error));
    const candid_attention *a;
    OK(candid_attention_of(d.context, images, n_images, (size_t)which, DEMO_PROMPT, &params, result->tokens,
                           result->n_tokens, &a, error));
    assert_int_equal(a->n_tokens, result->n_tokens);
    assert_int_equal(a->n_layer, d.model->llama.n_layer);
    assert_int_equal(a->grid_h, d.model->clip.grid);
    assert_int_equal(a->grid_w, d.model->clip.grid);
    const size_t count = a->n_tokens * (size_t)a->n_layer * (size_t)(a->grid_h * a->grid_w);
    float *expected = observe(&d, images, n_images, which, &params, result);
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += (double)expected[i];
        if (!(fabsf(a->values[i] - expected[i]) <= 1e-5f)) {
            fail_msg("%s: value %zu is %g, expected %g", json ? json : "plain", i, (double)a->values[i],
                     (double)expected[i]);
        }
    }
    assert_true(sum > 0.0);
    assert_true(a->token_end[a->n_tokens - 1] == strlen(a->text));
    for (size_t i = 1; i < a->n_tokens; i++) {
        assert_true(a->token_end[i] >= a->token_end[i - 1]);
    }
#ifndef __SANITIZE_ADDRESS__ /* the small model says bytes that are no characters, which the two texts spell           \
                                differently */
    assert_non_null(strstr(a->text, result->text));
#endif
    free(expected);
    candid_attention_free(a);
    candid_result_free(result);
    candid_config_free(config);
    demo_close(&d);
}

static void attention_is_what_an_observer_sees(void **state) {
    (void)state;
    check_attention(NULL, 1, 0);
    check_attention(NULL, 2, 1);
    check_attention("{\"cca\": true}", 1, 0);                           /* tokens in rings, cells in rows */
    check_attention("{\"pai\": {\"alpha\": 0.9, \"gamma\": 1}}", 1, 0); /* after the edits */
    check_attention("{\"vhr\": true}", 1, 0);                           /* with a companion of the prompt */
    check_attention("{\"vcd\": true}", 1, 0);                           /* the contrast has had its say */
}

static void attention_refuses(void **state) {
    (void)state;
    struct demo d;
    demo_open(&d, CANDID_PRECISION_FAST, 1);
    const candid_image *images[] = {d.image};
    const int32_t good[] = {5, 6}, bad[] = {5, 1 << 20};
    const candid_attention *a = NULL;
    candid_error found;
    candid_generate_params params = candid_generate_params_default();
    assert_int_equal(candid_attention_of(d.context, images, 1, 1, "a", NULL, good, 2, &a, &found),
                     CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_attention_of(d.context, images, 1, 0, "a", NULL, good, 0, &a, &found),
                     CANDID_ERROR_ARGUMENT);
    assert_string_equal(found.message, "n_tokens: expected 1 to 512 (the context window), found 0");
    assert_int_equal(candid_attention_of(d.context, images, 1, 0, "a", NULL, bad, 2, &a, &found),
                     CANDID_ERROR_ARGUMENT);
    assert_string_equal(found.message, "token 1: expected 0 to 716, found 1048576");
    assert_int_equal(candid_attention_of(d.context, images, 1, 0, NULL, NULL, good, 2, &a, &found),
                     CANDID_ERROR_ARGUMENT);
    params.config = demo_config("{\"vicrop\": true}");
    assert_int_equal(candid_attention_of(d.context, images, 1, 0, "a", &params, good, 2, &a, &found),
                     CANDID_ERROR_ARGUMENT);
    assert_non_null(strstr(found.message, "vicrop"));
    candid_config_free((candid_config *)(uintptr_t)params.config);
    int32_t many[500] = {0};
    params.config = NULL;
    assert_int_equal(candid_attention_of(d.context, images, 1, 0, "a", &params, many, 500, &a, &found),
                     CANDID_ERROR_CONTEXT);
    int flag = 1;
    params.should_cancel = candid_cancel_when_set;
    params.should_cancel_user_data = &flag;
    assert_int_equal(candid_attention_of(d.context, images, 1, 0, "a", &params, good, 2, &a, &found),
                     CANDID_ERROR_CANCELLED);
    assert_null(a);
    candid_attention_free(NULL);
    demo_close(&d);
}

/* ---- pictures ------------------------------------------------------------------------------------ */

static void overlays_show_the_hot_cell(void **state) {
    (void)state;
    struct demo d;
    demo_open(&d, CANDID_PRECISION_FAST, 1);
    const int w = candid_image_width(d.image), h = candid_image_height(d.image), grid = d.model->clip.grid;
    float values[64] = {0};
    assert_int_equal(grid, 8);
    values[2 * grid + 5] = 0.5f; /* row 2, column 5 */
    candid_image *picture = NULL;
    OK(candid_image_overlay(d.model, d.image, values, 0.5f, NULL, &picture, error));
    assert_int_equal(candid_image_width(picture), w);
    assert_int_equal(candid_image_height(picture), h);
    const uint8_t *p = candid_image_pixels(picture);
    const uint8_t *hot = p + 3 * ((size_t)(h * 5 / 16) * (size_t)w + (size_t)(w * 11 / 16));
    const uint8_t *cold = p + 3 * ((size_t)(h * 13 / 16) * (size_t)w + (size_t)(w * 3 / 16));
    assert_true(hot[0] + hot[1] + hot[2] > cold[0] + cold[1] + cold[2] + 150);

    /* the same as drawn by hand */
    struct visual_plan plan;
    OK(visual_plan_make(&d.model->clip, CANDID_PREPROCESS_AUTO, w, h, &plan, error));
    const struct view_map map = view_map_make(&d.model->clip, &plan, w, h);
    uint8_t *rgba = malloc(4 * (size_t)(w * h)), *rgb = malloc(3 * (size_t)(w * h));
    assert_true(rgba && rgb);
    memcpy(rgb, candid_image_pixels(d.image), 3 * (size_t)(w * h));
    heat_fade(rgb, (size_t)(w * h), HEAT_KEEP_COLOUR);
    heat_layer(&map, values, 0.5f, w, h, rgba);
    heat_blend(rgb, rgba, (size_t)(w * h));
    assert_memory_equal(p, rgb, 3 * (size_t)(w * h));
    free(rgba), free(rgb);
    candid_image_free(picture);

    candid_error found;
    assert_int_equal(candid_image_overlay(d.model, d.image, values, NAN, NULL, &picture, &found),
                     CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_image_overlay(d.model, d.image, NULL, 0, NULL, &picture, &found), CANDID_ERROR_ARGUMENT);
    for (int i = 0; i < 64; i++) {
        values[i] = i < 2 ? 100.0f : (float)i / 64; /* two sinks, which the 0.98 quantile cuts one of */
    }
    candid_image *robust, *given;
    OK(candid_image_overlay(d.model, d.image, values, 0, NULL, &robust, error));
    float room[64];
    OK(candid_image_overlay(d.model, d.image, values, heat_quantile(values, 64, 0.98, room), NULL, &given, error));
    assert_memory_equal(candid_image_pixels(robust), candid_image_pixels(given), 3 * (size_t)(w * h));
    candid_image_free(robust);
    candid_image_free(given);
    demo_close(&d);
}

static void the_conversation_is_told(void **state) {
    (void)state;
    struct demo d;
    demo_open(&d, CANDID_PRECISION_FAST, 1);
    candid_model_info info = {.struct_size = sizeof info};
    OK(candid_model_get_info(d.model, &info, error));
    assert_string_equal(info.conversation, "USER: <image>\n{prompt} ASSISTANT:");
    memset(&info, 0, sizeof info);
    info.struct_size = offsetof(candid_model_info, conversation); /* a host from before there was the field */
    OK(candid_model_get_info(d.model, &info, error));
    assert_null(info.conversation);
    assert_int_equal(info.n_layer, 6);
    demo_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_are_those_of_the_prompt),
        cmocka_unit_test(tiles_follow_the_whole_image),
        cmocka_unit_test(encoding_refuses),
        cmocka_unit_test(attention_is_what_an_observer_sees),
        cmocka_unit_test(attention_refuses),
        cmocka_unit_test(overlays_show_the_hot_cell),
        cmocka_unit_test(the_conversation_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
