/* candid_model: opens files, collects weights and tokenizer. */
#include <stdlib.h>
#include <string.h>

#include "api/handles.h"
#include "api/params.h"
#include "core/file.h"
#include "core/status.h"
#include "model/hf.h"
#include "vision/decode.h"

void candid_model_free(candid_model *m) {
    if (!m) {
        return;
    }
    tokenizer_free(m->tokenizer);
    llama_weights_free(&m->llama);
    clip_weights_free(&m->clip);
    known_models_free(m->known);
    gguf_close(m->mm_file);
    gguf_close(m->lm_file);
    free(m);
}

/* Everything after the language model's file was opened. */
static candid_status load(struct candid_model *m, const candid_model_params *params, candid_error *error) {
    TRY(llama_weights_load(m->lm_file, &m->llama, error));
    TRY(tokenizer_create(m->lm_file, &m->tokenizer, error));
    if (tokenizer_vocab_size(m->tokenizer) > m->llama.n_vocab) {
        return fail(error, CANDID_ERROR_FORMAT,
                    "%s: expected at most %d tokenizer pieces (rows of token_embd.weight), found %d",
                    gguf_path(m->lm_file), m->llama.n_vocab, tokenizer_vocab_size(m->tokenizer));
    }
    TRY(gguf_get_string(m->lm_file, "general.name", &m->name, error));
    TRY(gguf_get_string(m->lm_file, "candid.conversation", &m->conversation, error));

    const struct gguf *vision = m->lm_file;
    if (params->mmproj_path) {
        TRY(gguf_open(params->mmproj_path, &m->mm_file, error));
        vision = m->mm_file;
        if (!clip_weights_present(vision)) {
            return fail(error, CANDID_ERROR_FORMAT, "%s: expected an image encoder (tensor v.class_embd), found none",
                        params->mmproj_path);
        }
    }
    if (clip_weights_present(vision)) {
        TRY(clip_weights_load(vision, m->llama.n_embd, &m->clip, &m->log, error));
        m->has_vision = true;
    }

    TRY(known_models_load(&m->known, error));
    const char *trained_with = "";
    TRY(gguf_get_string(m->lm_file, "candid.trained_with", &trained_with, error));
    model_facts_fill(&m->facts, m->name, trained_with, &m->llama, m->has_vision ? &m->clip : NULL, m->known);

    struct backend *backend;
    TRY(backend_cpu_create(m->precision, m->n_threads, &m->log, &backend, error));
    memcpy(m->backend, backend->description, sizeof m->backend);
    backend_destroy(backend);
    log_write(&m->log, CANDID_LOG_INFO, "%s: %d layers, width %d, %d heads, %d tokens, context %d; %s; JPEG by %s",
              gguf_path(m->lm_file), m->llama.n_layer, m->llama.n_embd, m->llama.n_head, m->llama.n_vocab,
              m->llama.n_ctx_train, m->backend, jpeg_decoder_name());
    return CANDID_OK;
}

static candid_status open_model(const char *path, const void *data, size_t size, const candid_model_params *given,
                                candid_model **out, candid_error *error) {
    candid_model_params params = candid_model_params_default();
    TRY(params_read(&params, sizeof params, given, "candid_model_params", error));
    if (params.n_threads < 0 || params.n_threads > 4096) {
        return fail(error, CANDID_ERROR_ARGUMENT, "n_threads: expected 0 (all cores) to 4096, found %d",
                    params.n_threads);
    }
    if (params.precision != CANDID_PRECISION_FAST && params.precision != CANDID_PRECISION_EXACT) {
        return fail(error, CANDID_ERROR_ARGUMENT, "precision: expected 0 (fast) or 1 (exact), found %d",
                    (int)params.precision);
    }
    struct candid_model *m = calloc(1, sizeof *m);
    if (!m) {
        return fail_memory(error, "a model", sizeof *m);
    }
    m->log = (struct logger){params.log, params.log_user_data};
    m->precision = params.precision;
    m->n_threads = params.n_threads;
    m->name = "";
    const bool directory = path && file_is_directory(path);
    candid_status status = directory ? hf_open(path, params.mmproj_path, &m->lm_file, &m->log, error)
                           : path    ? gguf_open(path, &m->lm_file, error)
                                     : gguf_open_memory(data, size, "(model in memory)", &m->lm_file, error);
    if (directory) { /* it has taken in the image encoder's directory */
        params.mmproj_path = NULL;
    }
    if (status == CANDID_OK) {
        status = load(m, &params, error);
    }
    if (status != CANDID_OK) {
        candid_model_free(m);
        return status;
    }
    *out = m;
    return CANDID_OK;
}

candid_status candid_model_open(const char *path, const candid_model_params *params, candid_model **out,
                                candid_error *error) {
    if (!path || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_model_open: %s is NULL", path ? "out" : "path");
    }
    return open_model(path, NULL, 0, params, out, error);
}

candid_status candid_model_open_memory(const void *data, size_t size, const candid_model_params *params,
                                       candid_model **out, candid_error *error) {
    if (!data || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_model_open_memory: %s is NULL", data ? "out" : "data");
    }
    if ((uintptr_t)data % 32 != 0) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_model_open_memory: expected data aligned to 32 bytes");
    }
    return open_model(NULL, data, size, params, out, error);
}

candid_status model_check_vision(const struct candid_model *m, candid_error *error) {
    return m->has_vision ? CANDID_OK
                         : fail(error, CANDID_ERROR_UNSUPPORTED,
                                "%s has no image encoder: open the model with mmproj_path to ask about images",
                                gguf_path(m->lm_file));
}

candid_status candid_model_get_info(const candid_model *m, candid_model_info *info, candid_error *error) {
    if (!m || !info) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_model_get_info: %s is NULL", m ? "info" : "model");
    }
    candid_model_info full = {
        .struct_size = sizeof full,
        .name = m->name,
        .backend = m->backend,
        .has_vision = m->has_vision,
        .n_layer = m->llama.n_layer,
        .n_head = m->llama.n_head,
        .n_head_kv = m->llama.n_head_kv,
        .n_embd = m->llama.n_embd,
        .n_vocab = m->llama.n_vocab,
        .n_ctx_train = m->llama.n_ctx_train,
        .image_size = m->has_vision ? m->clip.image_size : 0,
        .image_tokens = model_image_tokens(m),
        .file_bytes = gguf_file_size(m->lm_file) + (m->mm_file ? gguf_file_size(m->mm_file) : 0),
        .conversation = model_conversation(m),
        .n_vision_blocks = m->facts.n_vision_blocks,
    };
    return params_write(info, &full, sizeof full, "candid_model_info", error);
}
