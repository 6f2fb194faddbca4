/* candid_generate: checks the call, runs the generate loop, packs the result. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/handles.h"
#include "api/params.h"
#include "api/request.h"
#include "core/status.h"
#include "decode/generate.h"

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
    char *interventions;
    struct token_list tokens;
};

void candid_result_free(const candid_result *result) {
    if (!result) {
        return;
    }
    struct result *r = (struct result *)(uintptr_t)result; /* public is the first field; const is for the reader */
    free(r->text);
    free(r->interventions);
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

/* Generates into an allocated result. */
static candid_status answer(candid_context *c, const candid_image *const *images, struct request *request,
                            const candid_generate_params *params, struct result *r, candid_error *error) {
    const struct candid_model *m = c->model;
    int max_new = 0;
    TRY(fit_context(c, request_length(request), params->max_new_tokens, &max_new, error));

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
    TRY_GOTO(request_encode(c, images, request, params->config, &observer, error), status, done);

    struct generation g = request_generation(c, request, seq);
    g.sampler = sampler;
    g.max_new_tokens = max_new;
    g.stream = &stream;
    g.observer = &observer;
    TRY_GOTO(generate(&g, &out, error), status, done);
    TRY_GOTO(request_report(request, &r->interventions, error), status, done);

    out.stats.load_ms = request->load_ms;
    out.stats.encode_ms = request->encode_ms;
    r->public.stats = out.stats;
    r->public.finish = out.finish;
    r->tokens = out.tokens;
    r->text = stream.text;
    r->public.text = r->text;
    r->public.tokens = r->tokens.ids;
    r->public.n_tokens = r->tokens.count;
    r->public.interventions = r->interventions;
    out.tokens = (struct token_list){0};
    stream.text = NULL;
done:
    text_stream_free(&stream);
    token_list_free(&out.tokens);
    kv_seq_free(seq);
    sampler_free(sampler);
    return status;
}

static candid_status check_call(const candid_context *c, const candid_image *const *images, size_t n_images,
                                const char *prompt, const candid_result **out, candid_error *error) {
    if (!c || !prompt || !out || (n_images > 0 && !images)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_generate: %s is NULL",
                    !c        ? "context"
                    : !prompt ? "prompt"
                    : !out    ? "out"
                              : "images");
    }
    for (size_t i = 0; i < n_images; i++) {
        if (!images[i]) {
            return fail(error, CANDID_ERROR_ARGUMENT, "candid_generate: image %zu is NULL", i);
        }
    }
    return CANDID_OK;
}

candid_status candid_generate(candid_context *c, const candid_image *const *images, size_t n_images, const char *prompt,
                              const candid_generate_params *given, const candid_result **out, candid_error *error) {
    TRY(check_call(c, images, n_images, prompt, out, error));
    candid_generate_params params = candid_generate_params_default();
    TRY(params_read(&params, sizeof params, given, "candid_generate_params", error));
    TRY(check_params(&params, error));

    struct request request;
    TRY(request_prepare(c, images, n_images, prompt, &params, &request, error));
    struct result *r = calloc(1, sizeof *r);
    candid_status status =
        r ? answer(c, images, &request, &params, r, error) : fail_memory(error, "a result", sizeof *r);
    request_free(&request);
    if (status != CANDID_OK) {
        candid_result_free(r ? &r->public : NULL);
        return status;
    }
    *out = &r->public;
    return CANDID_OK;
}
