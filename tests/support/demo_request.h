/* Requests to the demo model, step by step. Include after cmocka.h. */
#ifndef CANDID_TESTS_DEMO_REQUEST_H
#define CANDID_TESTS_DEMO_REQUEST_H

#include <stdlib.h>
#include <string.h>

#include "api/request.h"
#include "decode/prefill.h"
#include "ok.h"

#define DEMO_PROMPT "Please help me describe the image in detail."

/* Both precisions, the fast one first. Under a sanitizer it stays at that: the exact path takes many minutes there, and
 * what it computes is the release build's concern. */
static const candid_precision demo_precisions[] = {CANDID_PRECISION_FAST, CANDID_PRECISION_EXACT};
#ifdef __SANITIZE_ADDRESS__
#define N_DEMO_PRECISIONS 1
#else
#define N_DEMO_PRECISIONS 2
#endif

struct demo {
    candid_model *model;
    candid_context *context;
    candid_image *image;
};

static inline void model_open(struct demo *d, const char *model, const char *image, candid_precision precision,
                              int n_threads) {
    candid_model_params params = candid_model_params_default();
    params.precision = precision;
    params.n_threads = n_threads;
    OK(candid_model_open(model, &params, &d->model, error));
    candid_context_params context = candid_context_params_default();
    OK(candid_context_create(d->model, &context, &d->context, error));
    OK(candid_image_load(image, &d->image, error));
}

static inline void demo_open(struct demo *d, candid_precision precision, int n_threads) {
    model_open(d, PROJECT_ROOT "/models/demo/candid-demo.gguf",
               PROJECT_ROOT "/models/demo/heldout/images/scene_000007.png", precision, n_threads);
}

/* The exact path; under a sanitizer on a much smaller model. */
static inline void exact_open(struct demo *d, int n_threads) {
#ifdef __SANITIZE_ADDRESS__
    model_open(d, PROJECT_ROOT "/tests/golden/hf/llava15_mha", PROJECT_ROOT "/tests/golden/hf/images/wide.png",
               CANDID_PRECISION_EXACT, n_threads);
#else
    demo_open(d, CANDID_PRECISION_EXACT, n_threads);
#endif
}

static inline void demo_close(struct demo *d) {
    candid_image_free(d->image);
    candid_context_free(d->context);
    candid_model_free(d->model);
}

static inline candid_config *demo_config(const char *json) {
    candid_config *config = NULL;
    if (json) {
        OK(candid_config_parse(json, strlen(json), json, &config, error));
    }
    return config;
}

/* A request under way. */
struct asked {
    struct demo *demo;
    candid_config *config;
    struct request request;
    struct kv_seq *seq;
    int n_prompt, position; /* of the next token */
    float *logits;          /* room for those of 8 rows */
};

/* About the demo's image, n_images times (up to 4). json: the configuration, or NULL. */
static inline void demo_ask_about(struct asked *a, struct demo *d, size_t n_images, const char *prompt,
                                  const char *json) {
    *a = (struct asked){.demo = d, .config = demo_config(json)};
    candid_generate_params params = candid_generate_params_default();
    params.config = a->config;
    const candid_image *images[] = {d->image, d->image, d->image, d->image};
    OK(request_prepare(d->context, images, n_images, prompt, &params, &a->request, error));
    OK(request_encode(d->context, images, &a->request, a->config, NULL, error));
    OK(kv_seq_create(d->context->kv, &a->seq, error));
    a->n_prompt = (int)request_length(&a->request);
    a->logits = malloc(8 * (size_t)d->model->llama.n_vocab * sizeof *a->logits);
    assert_non_null(a->logits);
}

static inline void demo_ask(struct asked *a, struct demo *d, const char *json) {
    demo_ask_about(a, d, 1, DEMO_PROMPT, json);
}

static inline void asked_free(struct asked *a) {
    kv_seq_free(a->seq);
    request_free(&a->request);
    candid_config_free(a->config);
    free(a->logits);
}

static inline size_t demo_vocab(const struct asked *a) {
    return (size_t)a->demo->model->llama.n_vocab;
}

/* Runs the prompt through `llama` (NULL: the context's). */
static inline void demo_prefill(struct asked *a, struct llama *llama, const struct observer *observer) {
    struct generation g = request_generation(a->demo->context, &a->request, a->seq);
    g.llama = llama ? llama : g.llama;
    g.observer = observer;
    OK(prefill(&g, a->logits, &a->position, error));
}

static inline int demo_best(const struct asked *a) {
    int best = 0;
    for (int i = 1; i < (int)demo_vocab(a); i++) {
        best = a->logits[i] > a->logits[best] ? i : best;
    }
    return best;
}

static inline struct forward_row demo_row(const struct asked *a, struct kv_seq *seq, int token) {
    return (struct forward_row){
        .seq = seq, .token = token, .position = a->position, .want_logits = true, .plan = a->request.plan};
}

/* One token more. */
static inline void demo_step(struct asked *a, struct llama *llama, int token) {
    const struct forward_row row = demo_row(a, a->seq, token);
    OK(llama_forward(llama ? llama : a->demo->context->llama, &row, 1, NULL, a->logits, error));
    a->position++;
}

#endif
