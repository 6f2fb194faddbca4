/* candid_generate: checks the call, runs the generate loop, packs the result. */
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/handles.h"
#include "api/params.h"
#include "api/request.h"
#include "api/second_look.h"
#include "core/status.h"
#include "decode/generate.h"

#define DEFAULT_NEW_TOKENS 512

bool candid_cancel_when_set(void *flag) {
    return __atomic_load_n((const int *)flag, __ATOMIC_RELAXED) != 0;
}

void candid_result_free(const candid_result *result) {
    if (!result) {
        return;
    }
    struct result *r = (struct result *)(uintptr_t)result; /* public is the first field; const is for the reader */
    free(r->interventions);
    free(r->answers);
    generated_free(&r->out);
    free(r);
}

candid_status request_check_params(const candid_generate_params *p, candid_error *error) {
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

candid_status request_fit(const candid_context *c, const struct request *r, int requested, int *max_new,
                          candid_error *error) {
    const char *branch;
    TRY(request_check_branches(r, error));
    const int64_t n_prompt = request_longest(r, &branch);
    const int left = n_prompt < c->n_ctx ? c->n_ctx - (int)n_prompt : 0;
    if (left < 1 || requested > left) {
        char which[64] = "";
        if (branch) {
            snprintf(which, sizeof which, " that %s contrasts with", branch);
        } else if (r->n_images > 1) {
            snprintf(which, sizeof which, " with its %zu images", r->n_images);
        }
        return fail(error, CANDID_ERROR_CONTEXT,
                    "the prompt%s has %" PRId64
                    " tokens and %d new ones were requested, but the context window holds %d",
                    which, n_prompt, requested > 0 ? requested : 1, c->n_ctx);
    }
    *max_new = requested > 0 ? requested : left < DEFAULT_NEW_TOKENS ? left : DEFAULT_NEW_TOKENS;
    return CANDID_OK;
}

candid_status request_publish(const struct request *request, struct result *r, candid_error *error) {
    const size_t n = (size_t)r->out.n_answers;
    r->out.stats.load_ms = request->load_ms;
    r->out.stats.encode_ms = request->encode_ms;
    if (request->look) {
        r->out.stats.load_ms += request->look->load_ms;
        r->out.stats.encode_ms += request->look->encode_ms;
        r->out.stats.prefill_ms += request->look->prefill_ms;
    }
    TRY(request_report(request, &r->out, &r->interventions, error));
    r->answers = calloc(n, sizeof *r->answers);
    if (!r->answers) {
        return fail_memory(error, "a result", n * sizeof *r->answers);
    }
    for (size_t i = 0; i < n; i++) {
        const struct answer *a = &r->out.answers[i];
        r->answers[i] = (candid_answer){a->text, a->tokens.ids, a->tokens.count, a->finish, a->score};
    }
    r->public = (candid_result){.text = r->answers[0].text,
                                .tokens = r->answers[0].tokens,
                                .n_tokens = r->answers[0].n_tokens,
                                .finish = r->answers[0].finish,
                                .stats = r->out.stats,
                                .interventions = r->interventions,
                                .answers = r->answers,
                                .n_answers = n};
    return CANDID_OK;
}

/* Where the rows of the request keep their keys and values: the context's cache for a single row, else one of their
 * own, which is *own. */
static candid_status choose_cache(candid_context *c, const struct request *r, int max_new, struct kv_cache **own,
                                  struct kv_cache **cache, candid_error *error) {
    const int64_t tokens = request_cache_tokens(r, max_new);
    *cache = c->kv;
    if (tokens == 0) {
        return CANDID_OK;
    }
    if (tokens > INT_MAX) {
        return fail(error, CANDID_ERROR_CONTEXT, "all rows of the request would hold %" PRId64 " tokens", tokens);
    }
    TRY(kv_cache_create(c->backend, kv_cache_shape(c->kv), (int)tokens, own, error));
    *cache = *own;
    return CANDID_OK;
}

/* Generates into an allocated result. */
static candid_status answer(candid_context *c, const candid_image *const *images, struct request *request,
                            const candid_generate_params *params, struct result *r, candid_error *error) {
    int max_new = 0;
    TRY(request_fit(c, request, params->max_new_tokens, &max_new, error));
    TRY(generate_check(&request->decoding, c->model->tokenizer, c->model->llama.n_vocab, error));
    struct observer observer = {.cancelled = params->should_cancel, .user_data = params->should_cancel_user_data};
    struct kv_cache *own = NULL, *cache = NULL;
    struct kv_seq *seq = NULL;
    candid_status status;
    TRY_GOTO(choose_cache(c, request, max_new, &own, &cache, error), status, done);
    TRY_GOTO(kv_seq_create(cache, &seq, error), status, done);
    TRY_GOTO(request_encode(c, images, request, params->config, &observer, error), status, done);

    struct generation g = request_generation(c, request, seq);
    g.seed = params->seed;
    g.max_new_tokens = max_new;
    g.stop = params->stop;
    g.n_stop = params->n_stop;
    g.on_text = params->on_text;
    g.on_text_user_data = params->on_text_user_data;
    g.observer = &observer;
    TRY_GOTO(generate(&g, &r->out, error), status, done);
    status = request_publish(request, r, error);
done:
    kv_seq_free(seq);
    kv_cache_free(own);
    return status;
}

/* A whole request. look: the first look that led to it, or NULL. */
static candid_status ask(candid_context *c, const candid_image *const *images, size_t n_images, const char *prompt,
                         const candid_generate_params *params, const struct second_look *look,
                         const candid_result **out, candid_error *error) {
    struct request request;
    TRY(request_prepare(c, images, n_images, prompt, params, &request, error));
    request.look = look;
    struct result *r = calloc(1, sizeof *r);
    candid_status status =
        r ? answer(c, images, &request, params, r, error) : fail_memory(error, "a result", sizeof *r);
    request_free(&request);
    if (status != CANDID_OK) {
        candid_result_free(r ? &r->public : NULL);
        return status;
    }
    *out = &r->public;
    return CANDID_OK;
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

/* What can be known to fail before the first look is not left for after it. */
static candid_status check_second(candid_context *c, const candid_image *image, const char *prompt,
                                  const candid_generate_params *params, const struct look_options *options,
                                  candid_error *error) {
    const candid_image *const images[] = {image, image}; /* for the refined one, which is cropped to the same views */
    const size_t n = options->refined_alone ? 1 : 2;
    struct request r;
    char *text;
    int unused;
    TRY(second_look_prompt(prompt, n, &text, error));
    candid_status status = request_prepare(c, images, n, text, params, &r, error);
    free(text);
    TRY(status);
    status = generate_check(&r.decoding, c->model->tokenizer, c->model->llama.n_vocab, error);
    if (status == CANDID_OK && r.views[0].mode != CANDID_PREPROCESS_ANYRES) {
        status = request_fit(c, &r, params->max_new_tokens, &unused, error);
    }
    request_free(&r);
    return status;
}

candid_status candid_generate(candid_context *c, const candid_image *const *images, size_t n_images, const char *prompt,
                              const candid_generate_params *given, const candid_result **out, candid_error *error) {
    TRY(check_call(c, images, n_images, prompt, out, error));
    candid_generate_params params = candid_generate_params_default();
    TRY(params_read(&params, sizeof params, given, "candid_generate_params", error));
    TRY(request_check_params(&params, error));

    struct look_options options;
    TRY(look_options_from(params.config, &options, error));
    if (options.kind == LOOK_ONCE) {
        return ask(c, images, n_images, prompt, &params, NULL, out, error);
    }
    struct second_look look;
    if (n_images == 1 && c->model->has_vision) {
        TRY(check_second(c, images[0], prompt, &params, &options, error));
    }
    TRY(second_look(c, images, n_images, prompt, &params, &options, &look, error));
    const candid_status status = ask(c, look.images, look.n_images, look.prompt, &params, &look, out, error);
    second_look_free(&look);
    return status;
}
