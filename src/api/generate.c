/* candid_generate: checks a request, encodes its images, runs the generate loop, packs the result. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/handles.h"
#include "api/params.h"
#include "core/clock.h"
#include "core/status.h"
#include "decode/generate.h"
#include "vision/image.h"
#include "vision/visual.h"

#define DEFAULT_NEW_TOKENS 512

candid_generate_params candid_generate_params_default(void) {
    return (candid_generate_params){
        .struct_size = sizeof(candid_generate_params),
        .top_p = 1.0f,
        .repetition_penalty = 1.0f,
    };
}

/* The public result with the memory behind its pointers. */
struct result {
    candid_result public;
    char *text;
    struct token_list tokens;
};

void candid_result_free(const candid_result *result) {
    if (!result) {
        return;
    }
    struct result *r = (struct result *)(uintptr_t)result; /* public is the first field; const is for the reader */
    free(r->text);
    token_list_free(&r->tokens);
    free(r);
}

static candid_status check_params(const candid_generate_params *p, candid_error *error) {
    if (p->max_new_tokens < 0) {
        return fail(error, CANDID_ERROR_ARGUMENT, "max_new_tokens: expected 0 or more, found %d", p->max_new_tokens);
    }
    if (p->preprocess < CANDID_PREPROCESS_AUTO || p->preprocess > CANDID_PREPROCESS_ANYRES) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "preprocess: expected 0 (auto), 1 (pad), 2 (crop) or 3 (anyres), found %d", (int)p->preprocess);
    }
    if (p->n_stop > 0 && !p->stop) {
        return fail(error, CANDID_ERROR_ARGUMENT, "stop: expected %zu strings, found NULL", p->n_stop);
    }
    for (size_t i = 0; i < p->n_stop; i++) {
        if (!p->stop[i] || !p->stop[i][0]) {
            return fail(error, CANDID_ERROR_ARGUMENT, "stop: string %zu is empty", i);
        }
    }
    return CANDID_OK;
}

/* How many tokens may be generated, or the error that the request does not fit. */
static candid_status fit_context(const candid_context *c, int64_t n_prompt, int requested, int *max_new,
                                 candid_error *error) {
    const int left = n_prompt < c->n_ctx ? c->n_ctx - (int)n_prompt : 0;
    if (left < 1 || requested > left) {
        return fail(error, CANDID_ERROR_CONTEXT,
                    "the prompt has %" PRId64 " tokens and %d new ones were requested, but the context window holds %d",
                    n_prompt, requested > 0 ? requested : 1, c->n_ctx);
    }
    *max_new = requested > 0 ? requested : left < DEFAULT_NEW_TOKENS ? left : DEFAULT_NEW_TOKENS;
    return CANDID_OK;
}

/* How each image is seen, and what it takes in the sequence. */
static candid_status plan_images(const candid_context *c, const candid_image *const *images, size_t n_images,
                                 candid_preprocess mode, struct visual_plan *plans, struct image_span *spans,
                                 candid_error *error) {
    for (size_t i = 0; i < n_images; i++) {
        TRY(visual_plan_make(&c->model->clip, mode, images[i]->width, images[i]->height, &plans[i], error));
        spans[i] = plans[i].span;
    }
    return CANDID_OK;
}

/* Makes room for n_tokens visual tokens, and the encoder itself at the first image. */
static candid_status prepare_vision(candid_context *c, size_t n_tokens, candid_error *error) {
    const struct candid_model *m = c->model;
    if (!c->visual) {
        TRY(visual_create(&m->clip, m->llama.n_embd, c->backend, &c->visual, error));
    }
    if (n_tokens > c->visual_capacity) {
        c->backend->ops->release(c->backend, c->visual_tokens);
        c->visual_tokens = NULL;
        c->visual_capacity = 0;
        void *memory;
        TRY(c->backend->ops->alloc(c->backend, n_tokens * (size_t)m->llama.n_embd * sizeof(float), &memory, error));
        c->visual_tokens = memory;
        c->visual_capacity = n_tokens;
    }
    return CANDID_OK;
}

static candid_status encode_images(candid_context *c, const candid_image *const *images, size_t n_images,
                                   const struct visual_plan *plans, const struct observer *observer,
                                   candid_stats *stats, candid_error *error) {
    size_t n_tokens = 0;
    for (size_t i = 0; i < n_images; i++) {
        n_tokens += (size_t)plans[i].span.n_tokens;
    }
    if (n_tokens == 0) {
        return CANDID_OK;
    }
    TRY(prepare_vision(c, n_tokens, error));
    float *tokens = c->visual_tokens;
    for (size_t i = 0; i < n_images; i++) {
        TRY(visual_encode(c->visual, images[i], &plans[i], tokens, observer, &stats->load_ms, &stats->encode_ms,
                          error));
        tokens += (size_t)plans[i].span.n_tokens * (size_t)c->model->llama.n_embd;
    }
    return CANDID_OK;
}

/* Generates into an allocated result. */
static candid_status answer(candid_context *c, const candid_image *const *images, size_t n_images,
                            const struct visual_plan *plans, const struct image_span *spans,
                            const struct prompt *prompt, const candid_generate_params *params, struct result *r,
                            candid_error *error) {
    const struct candid_model *m = c->model;
    int max_new = 0;
    TRY(fit_context(c, prompt_length(prompt, spans), params->max_new_tokens, &max_new, error));

    struct observer observer = {.cancelled = params->should_cancel, .user_data = params->should_cancel_user_data};
    struct sampler_params sampling = {
        .temperature = params->temperature,
        .top_k = params->top_k,
        .top_p = params->top_p,
        .repetition_penalty = params->repetition_penalty,
        .seed = params->seed,
    };
    struct text_stream stream = {
        .stop = params->stop,
        .n_stop = params->n_stop,
        .on_text = params->on_text,
        .user_data = params->on_text_user_data,
    };
    struct generated out = {0};
    struct sampler *sampler = NULL;
    struct kv_seq *seq = NULL;
    candid_status status;
    TRY_GOTO(sampler_create(&sampling, m->llama.n_vocab, &sampler, error), status, done);
    TRY_GOTO(kv_seq_create(c->kv, &seq, error), status, done);
    TRY_GOTO(encode_images(c, images, n_images, plans, &observer, &r->public.stats, error), status, done);

    struct generation g = {
        .llama = c->llama,
        .weights = &m->llama,
        .tokenizer = m->tokenizer,
        .seq = seq,
        .prompt = prompt,
        .images = spans,
        .visual_tokens = c->visual_tokens,
        .sampler = sampler,
        .max_new_tokens = max_new,
        .stream = &stream,
        .observer = &observer,
    };
    TRY_GOTO(generate(&g, &out, error), status, done);

    out.stats.load_ms = r->public.stats.load_ms;
    out.stats.encode_ms = r->public.stats.encode_ms;
    r->public.stats = out.stats;
    r->public.finish = out.finish;
    r->tokens = out.tokens;
    r->text = stream.text;
    r->public.text = r->text;
    r->public.tokens = r->tokens.ids;
    r->public.n_tokens = r->tokens.count;
    out.tokens = (struct token_list){0};
    stream.text = NULL;
done:
    text_stream_free(&stream);
    token_list_free(&out.tokens);
    kv_seq_free(seq);
    sampler_free(sampler);
    return status;
}

candid_status candid_generate(candid_context *c, const candid_image *const *images, size_t n_images,
                              const char *request, const candid_generate_params *given, const candid_result **out,
                              candid_error *error) {
    if (!c || !request || !out || (n_images > 0 && !images)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_generate: %s is NULL",
                    !c         ? "context"
                    : !request ? "prompt"
                    : !out     ? "out"
                               : "images");
    }
    for (size_t i = 0; i < n_images; i++) {
        if (!images[i]) {
            return fail(error, CANDID_ERROR_ARGUMENT, "candid_generate: image %zu is NULL", i);
        }
    }
    if (n_images > 0 && !c->model->has_vision) {
        return fail(error, CANDID_ERROR_UNSUPPORTED,
                    "%s has no image encoder: open the model with mmproj_path to ask about images",
                    gguf_path(c->model->lm_file));
    }
    candid_generate_params params = candid_generate_params_default();
    TRY(params_read(&params, sizeof params, given, "candid_generate_params", error));
    TRY(check_params(&params, error));

    const char *conversation = params.conversation      ? params.conversation
                               : c->model->conversation ? c->model->conversation
                                                        : "vicuna_v1";
    char *text = NULL;
    struct prompt prompt = {0};
    TRY(prompt_render(conversation, request, n_images, &text, error));
    candid_status status = prompt_tokenize(c->model->tokenizer, text, &prompt, error);
    free(text);
    TRY(status);

    struct result *r = calloc(1, sizeof *r);
    struct visual_plan *plans = calloc(n_images + 1, sizeof *plans);
    struct image_span *spans = calloc(n_images + 1, sizeof *spans);
    if (!r || !plans || !spans) {
        status = fail_memory(error, "a result", sizeof *r + n_images * (sizeof *plans + sizeof *spans));
    } else {
        status = plan_images(c, images, n_images, params.preprocess, plans, spans, error);
    }
    if (status == CANDID_OK) {
        status = answer(c, images, n_images, plans, spans, &prompt, &params, r, error);
    }
    free(plans);
    free(spans);
    prompt_free(&prompt);
    if (status != CANDID_OK) {
        candid_result_free(r ? &r->public : NULL);
        return status;
    }
    *out = &r->public;
    return CANDID_OK;
}
