/* candid_context: KV cache and work buffers of one thread. */
#include <stdlib.h>

#include "api/handles.h"
#include "api/params.h"
#include "core/status.h"

/* Rows of one forward pass: a LLaVA-1.5 prompt (576 visual tokens and a question) fits in one. */
#define MAX_ROWS 768

void candid_context_free(candid_context *c) {
    if (!c) {
        return;
    }
    visual_free(c->visual);
    llama_free(c->llama);
    kv_cache_free(c->kv);
    if (c->backend) {
        c->backend->ops->release(c->backend, c->visual_tokens);
    }
    backend_destroy(c->backend);
    free(c);
}

static candid_status build(struct candid_context *c, const candid_context_params *params, candid_error *error) {
    const struct candid_model *m = c->model;
    struct kv_shape shape = {
        .n_layer = m->llama.n_layer,
        .n_head_kv = m->llama.n_head_kv,
        .head_dim = m->llama.head_dim,
        .f32 = params->kv_type == CANDID_KV_F32 ||
               (params->kv_type == CANDID_KV_DEFAULT && m->precision == CANDID_PRECISION_EXACT),
    };
    TRY(backend_cpu_create(m->precision, m->n_threads, &m->log, &c->backend, error));
    TRY(kv_cache_create(c->backend, &shape, c->n_ctx, &c->kv, error));
    return llama_create(&m->llama, c->backend, c->n_ctx < MAX_ROWS ? c->n_ctx : MAX_ROWS, &c->llama, error);
}

candid_status candid_context_create(const candid_model *model, const candid_context_params *given, candid_context **out,
                                    candid_error *error) {
    if (!model || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_context_create: %s is NULL", model ? "out" : "model");
    }
    candid_context_params params = candid_context_params_default();
    TRY(params_read(&params, sizeof params, given, "candid_context_params", error));
    if (params.n_ctx < 0 || params.n_ctx > model->llama.n_ctx_train) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "n_ctx: expected 0 to %d (the context window the model was trained for), found %d",
                    model->llama.n_ctx_train, params.n_ctx);
    }
    if (params.kv_type < CANDID_KV_DEFAULT || params.kv_type > CANDID_KV_F32) {
        return fail(error, CANDID_ERROR_ARGUMENT, "kv_type: expected 0 (default), 1 (f16) or 2 (f32), found %d",
                    (int)params.kv_type);
    }
    struct candid_context *c = calloc(1, sizeof *c);
    if (!c) {
        return fail_memory(error, "a context", sizeof *c);
    }
    c->model = model;
    c->n_ctx = params.n_ctx ? params.n_ctx : model->llama.n_ctx_train;
    candid_status status = build(c, &params, error);
    if (status != CANDID_OK) {
        candid_context_free(c);
        return status;
    }
    *out = c;
    return CANDID_OK;
}
