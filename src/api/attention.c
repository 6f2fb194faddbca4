/* candid_attention_of and candid_image_overlay: where an answer looked. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/gaze.h"
#include "api/params.h"
#include "core/status.h"
#include "decode/words.h"
#include "interventions/look_twice.h"
#include "vision/heat_map.h"

/* The public struct with the memory behind its pointers. */
struct attention {
    candid_attention public; /* the first field */
    struct gaze gaze;
    struct answer_words words;
};

void candid_attention_free(const candid_attention *attention) {
    if (attention) {
        struct attention *a = (struct attention *)(uintptr_t)attention; /* const is for the reader */
        gaze_free(&a->gaze);
        answer_words_free(&a->words);
        free(a);
    }
}

/* ---- the run ------------------------------------------------------------------------------------- */

static candid_status check_tokens(const candid_context *c, const int32_t *tokens, size_t n_tokens,
                                  candid_error *error) {
    if (n_tokens == 0 || n_tokens > (size_t)c->n_ctx) {
        return fail(error, CANDID_ERROR_ARGUMENT, "n_tokens: expected 1 to %d (the context window), found %zu",
                    c->n_ctx, n_tokens);
    }
    for (size_t i = 0; i < n_tokens; i++) {
        if (tokens[i] < 0 || tokens[i] >= tokenizer_vocab_size(c->model->tokenizer)) {
            return fail(error, CANDID_ERROR_ARGUMENT, "token %zu: expected 0 to %d, found %d", i,
                        tokenizer_vocab_size(c->model->tokenizer) - 1, (int)tokens[i]);
        }
    }
    return CANDID_OK;
}

static candid_status check_config(const candid_config *config, candid_error *error) {
    struct look_options options;
    TRY(look_options_from(config, &options, error));
    return options.kind == LOOK_ONCE
               ? CANDID_OK
               : fail(error, CANDID_ERROR_ARGUMENT,
                      "candid_attention_of watches one look at the image; %s asks again about another: switch it off",
                      options.method->name);
}

static candid_status watch(candid_context *c, const candid_image *const *images, struct request *r, size_t which,
                           const candid_generate_params *params, const struct token_list *tokens, struct attention *a,
                           candid_error *error) {
    const struct observer observer = {.cancelled = params->should_cancel, .user_data = params->should_cancel_user_data};
    int max_new;
    TRY(request_fit(c, r, (int)tokens->count, &max_new, error));
    TRY(request_encode(c, images, r, params->config, &observer, error));
    TRY(gaze_tokens(c, r, (int)which, tokens, &a->gaze, &observer, error));
    TRY(answer_words_make(c->model->tokenizer, tokens->ids, tokens->count, &a->words, error));
    if (a->gaze.n_steps != (int)tokens->count) {
        return fail(error, CANDID_ERROR_INTERNAL, "saw the attention of %d tokens, expected %zu", a->gaze.n_steps,
                    tokens->count);
    }
    a->public = (candid_attention){.n_tokens = tokens->count,
                                   .n_layer = a->gaze.n_layers,
                                   .grid_h = c->model->clip.grid,
                                   .grid_w = c->model->clip.grid,
                                   .values = a->gaze.values,
                                   .text = a->words.text,
                                   .token_end = a->words.token_end};
    return CANDID_OK;
}

static candid_status check_call(const candid_context *c, const candid_image *const *images, size_t n_images,
                                size_t which, const char *prompt, const int32_t *tokens, const candid_attention **out,
                                candid_error *error) {
    if (!c || !images || !prompt || !tokens || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_attention_of: %s is NULL",
                    !c        ? "context"
                    : !images ? "images"
                    : !prompt ? "prompt"
                    : !tokens ? "tokens"
                              : "out");
    }
    if (which >= n_images) {
        return fail(error, CANDID_ERROR_ARGUMENT, "which: expected the number of one of %zu images, found %zu",
                    n_images, which);
    }
    for (size_t i = 0; i < n_images; i++) {
        if (!images[i]) {
            return fail(error, CANDID_ERROR_ARGUMENT, "candid_attention_of: image %zu is NULL", i);
        }
    }
    return CANDID_OK;
}

candid_status candid_attention_of(candid_context *c, const candid_image *const *images, size_t n_images, size_t which,
                                  const char *prompt, const candid_generate_params *given, const int32_t *tokens,
                                  size_t n_tokens, const candid_attention **out, candid_error *error) {
    TRY(check_call(c, images, n_images, which, prompt, tokens, out, error));
    candid_generate_params params = candid_generate_params_default();
    TRY(params_read(&params, sizeof params, given, "candid_generate_params", error));
    TRY(request_check_params(&params, error));
    TRY(check_tokens(c, tokens, n_tokens, error));
    TRY(check_config(params.config, error));
    const struct token_list forced = {.ids = (int32_t *)(uintptr_t)tokens, .count = n_tokens}; /* only read */
    struct request r;
    TRY(request_prepare(c, images, n_images, prompt, &params, &r, error));
    struct attention *a = calloc(1, sizeof *a);
    candid_status status =
        a ? watch(c, images, &r, which, &params, &forced, a, error) : fail_memory(error, "attention", sizeof *a);
    request_free(&r);
    if (status != CANDID_OK) {
        candid_attention_free(a ? &a->public : NULL);
        return status;
    }
    *out = &a->public;
    return CANDID_OK;
}

/* ---- the picture --------------------------------------------------------------------------------- */

/* The value that HEAT_QUANTILE of the cells do not exceed. */
static candid_status find_brightest(const float *values, size_t n, float *brightest, candid_error *error) {
    float *room = malloc(n * sizeof *room);
    if (!room) {
        return fail_memory(error, "a heat map", n * sizeof *room);
    }
    *brightest = heat_quantile(values, n, HEAT_QUANTILE, room);
    free(room);
    return CANDID_OK;
}

candid_status candid_image_overlay(const candid_model *m, const candid_image *image, const float *values,
                                   float brightest, const candid_generate_params *given, candid_image **out,
                                   candid_error *error) {
    if (!m || !image || !values || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_image_overlay: %s is NULL",
                    !m        ? "model"
                    : !image  ? "image"
                    : !values ? "values"
                              : "out");
    }
    if (!(brightest >= 0.0f) || !isfinite(brightest)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "brightest: expected 0 or more, found %g", (double)brightest);
    }
    candid_generate_params params = candid_generate_params_default();
    TRY(params_read(&params, sizeof params, given, "candid_generate_params", error));
    TRY(request_check_params(&params, error));
    TRY(model_check_vision(m, error));
    struct visual_plan plan;
    TRY(visual_plan_make(&m->clip, params.preprocess, image->width, image->height, &plan, error));
    if (brightest == 0.0f) {
        TRY(find_brightest(values, (size_t)model_image_tokens(m), &brightest, error));
    }
    const struct view_map map = view_map_make(&m->clip, &plan, image->width, image->height);
    candid_image *picture;
    TRY(candid_image_from_rgb(image->rgb, image->width, image->height, 3 * (size_t)image->width, &picture, error));
    const candid_status status =
        heat_overlay(&map, values, brightest, image->width, image->height, picture->rgb, error);
    if (status != CANDID_OK) {
        candid_image_free(picture);
        return status;
    }
    *out = picture;
    return CANDID_OK;
}
