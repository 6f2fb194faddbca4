/* What is known of a model in llama.cpp, what a context for it has to be like, and whether its graph is as expected. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define MOST_BRANCHES 16 /* of a question */

/* llama.h has no number of its own version; this one came before and after the tested one. */
#if !defined(LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY)
#error "candid's adapter needs a llama.cpp of 2026 or later; see candid_llama_tested()"
#endif

static const char *const tested[] = {"0.5.0-dev"}; /* llama_version() */

const char *candid_llama_tested(void) {
    return "llama.cpp 0.5.0-dev (0c1e57098, in llama-cpp-python 0.3.36)";
}

candid_status refuse(candid_error *error, candid_status status, const char *format, ...) {
    if (error) {
        va_list args;
        va_start(args, format);
        error->status = status;
        vsnprintf(error->message, sizeof error->message, format, args);
        va_end(args);
    }
    return status;
}

void say(const candid_llama *l, candid_log_level level, const char *format, ...) {
    if (l->host.log) {
        char text[512];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        l->host.log(l->host.log_user_data, level, text);
    }
}

/* ---- the host ---------------------------------------------------------------------------------- */

#define ROWS ((uint32_t)CANDID_CAN_ATTENTION_SCORES | (uint32_t)CANDID_CAN_ATTENTION_PROBS)

static uint32_t abilities(const struct llama_context_params *params, int32_t n_vision_blocks) {
    const bool no_rows = params->flash_attn_type == LLAMA_FLASH_ATTN_TYPE_ENABLED || ggml_is_quantized(params->type_v);
    return (no_rows ? 0u : ROWS) | CANDID_CAN_BLOCK_INPUT | CANDID_CAN_HEAD_OUTPUT | CANDID_CAN_MLP_OUTPUT |
           CANDID_CAN_BLOCK_OUTPUT | CANDID_CAN_FINAL_NORM | CANDID_CAN_LOGITS | CANDID_CAN_POSITIONS |
           CANDID_CAN_MASK | CANDID_CAN_COMPANIONS | CANDID_CAN_BRANCHES | CANDID_CAN_VISUAL_TOKENS |
           (n_vision_blocks > 0 ? (uint32_t)CANDID_CAN_VISION_ATTENTION | (uint32_t)CANDID_CAN_PIXELS : 0u);
}

/* A number of the file, "<arch>.<key>", or otherwise. */
static int32_t meta_number(const struct llama_model *model, const char *key, int32_t otherwise) {
    char arch[64], name[128], value[64];
    if (llama_model_meta_val_str(model, "general.architecture", arch, sizeof arch) < 0) {
        return otherwise;
    }
    snprintf(name, sizeof name, "%s.%s", arch, key);
    return llama_model_meta_val_str(model, name, value, sizeof value) < 0 ? otherwise
                                                                          : (int32_t)strtol(value, NULL, 10);
}

static candid_status check_model(const struct llama_model *model, candid_error *error) {
    const enum llama_rope_type rope = llama_model_rope_type(model);
    const char *what = llama_model_has_encoder(model)                                    ? "an encoder"
                       : llama_model_is_recurrent(model) || llama_model_is_hybrid(model) ? "recurrent layers"
                       : llama_model_is_diffusion(model)                                 ? "diffusion"
                       : llama_model_n_swa(model) > 0                                    ? "sliding windows"
                       : rope == LLAMA_ROPE_TYPE_MROPE || rope == LLAMA_ROPE_TYPE_VISION
                           ? "positions of several numbers"
                           : NULL;
    return what ? refuse(error, CANDID_ERROR_UNSUPPORTED,
                         "a model with %s; candid's adapter is for decoders with one KV cache for all layers", what)
                : CANDID_OK;
}

static candid_status describe(candid_llama *l, const struct llama_model *model,
                              const struct llama_context_params *params, const candid_llama_options *options,
                              candid_error *error) {
    TRY(check_model(model, error));
    l->host = candid_host_default();
    snprintf(l->host_name, sizeof l->host_name, "llama.cpp %s", llama_version());
    if (llama_model_meta_val_str(model, "general.name", l->model_name, sizeof l->model_name) >= 0) {
        l->host.model = l->model_name;
    }
    if (llama_model_meta_val_str(model, "candid.trained_with", l->trained_with, sizeof l->trained_with) >= 0) {
        l->host.trained_with = l->trained_with;
    }
    l->host.host = l->host_name;
    l->host.n_vision_blocks = options ? options->n_vision_blocks : 0;
    l->host.abilities = abilities(params, l->host.n_vision_blocks);
    l->host.log = options ? options->log : NULL;
    l->host.log_user_data = options ? options->log_user_data : NULL;
    l->host.n_layer = llama_model_n_layer(model);
    l->host.n_head = llama_model_n_head(model);
    l->host.n_head_kv = llama_model_n_head_kv(model);
    l->host.n_embd = llama_model_n_embd(model);
    l->host.n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    l->host.head_dim = meta_number(model, "attention.value_length", l->host.n_embd / l->host.n_head);
    l->host.score_scale = 1.0f / sqrtf((float)l->host.head_dim); /* scores are shown unscaled */
    l->host.n_threads = params->n_threads > 0 ? params->n_threads : 1;
    l->model = model;
    return CANDID_OK;
}

candid_status candid_llama_capabilities(const struct llama_model *model, const struct llama_context_params *params,
                                        const candid_config *config, const candid_llama_options *options, char **out,
                                        candid_error *error) {
    if (!model || !params || !out) {
        return refuse(error, CANDID_ERROR_ARGUMENT, "candid_llama_capabilities: model, params or out is NULL");
    }
    candid_llama l = {0};
    TRY(describe(&l, model, params, options, error));
    return candid_host_capabilities(&l.host, config, out, error);
}

/* Whether the configuration runs in this host without these abilities. */
static bool runs_without(const candid_llama *l, const candid_config *config, uint32_t without, candid_error *error) {
    candid_host host = l->host;
    candid_plugin *plugin = NULL;
    host.abilities &= ~without;
    host.log = NULL;
    const candid_status status = candid_plugin_create(&host, config, &plugin, error);
    candid_plugin_free(plugin);
    return status == CANDID_OK;
}

/* ---- attach ------------------------------------------------------------------------------------ */

static candid_status adapt(candid_llama *l, struct llama_context_params *params, const candid_config *config,
                           candid_error *error) {
    candid_error why = {0};
    if (params->cb_eval == candid_llama_eval) {
        return refuse(error, CANDID_ERROR_ARGUMENT, "these params are attached already");
    }
    if (params->embeddings) {
        return refuse(error, CANDID_ERROR_UNSUPPORTED, "a context for embeddings: candid changes answers");
    }
    const bool needs_rows = !runs_without(l, config, ROWS, &why);
    if (needs_rows && !(l->host.abilities & ROWS)) {
        return refuse(error, CANDID_ERROR_UNSUPPORTED,
                      "%s, but flash attention was forced on%s: it has no rows of attention to look at; leave "
                      "flash_attn_type at LLAMA_FLASH_ATTN_TYPE_AUTO",
                      why.message, ggml_is_quantized(params->type_v) ? " by a quantised V cache" : "");
    }
    TRY(candid_plugin_create(&l->host, config, &l->plugin, error));
    TRY(candid_pass_create(l->plugin, &l->pass, error));
    l->n_ids = (runs_without(l, config, CANDID_CAN_BRANCHES, NULL) ? 0 : MOST_BRANCHES) +
               (runs_without(l, config, CANDID_CAN_COMPANIONS | CANDID_CAN_BRANCHES, NULL) ? 0 : 1);
    l->first_id = (int32_t)params->n_seq_max;
    l->config = config;
    l->needs_rows = needs_rows;
    l->user_eval = params->cb_eval;
    l->user_data = params->cb_eval_user_data;
    params->cb_eval = candid_llama_eval;
    params->cb_eval_user_data = l;
    params->n_seq_max += (uint32_t)l->n_ids;
    params->kv_unified = params->kv_unified || params->n_seq_max > 1;
    if (needs_rows) {
        params->flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    return CANDID_OK;
}

candid_status candid_llama_attach(const struct llama_model *model, struct llama_context_params *params,
                                  const candid_config *config, const candid_llama_options *options, candid_llama **out,
                                  candid_error *error) {
    if (!model || !params || !out) {
        return refuse(error, CANDID_ERROR_ARGUMENT, "candid_llama_attach: model, params or out is NULL");
    }
    candid_llama *l = calloc(1, sizeof *l);
    if (!l) {
        return refuse(error, CANDID_ERROR_MEMORY, "out of memory: a handle");
    }
    candid_status status = describe(l, model, params, options, error);
    if (status == CANDID_OK) {
        status = adapt(l, params, config, error);
    }
    if (status != CANDID_OK) {
        candid_llama_free(l);
        return status;
    }
    *out = l;
    return CANDID_OK;
}

void candid_llama_free(candid_llama *l) {
    if (!l) {
        return;
    }
    drop_tracks(l);
    candid_pass_free(l->pass);
    candid_plugin_free(l->plugin);
    free(l->learned);
    free(l->flight.out_rows);
    free(l->flight.segments);
    free(l->flight.tracks);
    free(l->flight.parts);
    free(l->flight.wants);
    free(l->flight.staged);
    free(l);
}

/* ---- start ------------------------------------------------------------------------------------- */

static candid_status make_room(candid_llama *l, candid_error *error) {
    struct flight *f = &l->flight;
    const size_t n_segments = (size_t)l->n_ids + 1;
    l->learned = malloc((size_t)l->host.n_embd * sizeof *l->learned);
    f->out_rows = malloc((size_t)llama_n_ubatch(l->ctx) * sizeof *f->out_rows);
    f->segments = malloc(n_segments * sizeof *f->segments);
    f->tracks = malloc(n_segments * sizeof *f->tracks);
    f->parts = malloc(n_segments * sizeof *f->parts);
    f->wants = calloc((size_t)(CANDID_SITE_COUNT + 1) * ((size_t)l->host.n_layer + 1), 1);
    return l->learned && f->out_rows && f->segments && f->tracks && f->parts && f->wants
               ? CANDID_OK
               : refuse(error, CANDID_ERROR_MEMORY, "out of memory: tables of passes");
}

/* Whether candid computes a token's embedding as the host does. */
static candid_status check_embedding(candid_llama *l, llama_token token, candid_error *error) {
    if (!l->token_embd || !l->has_learned ||
        ggml_backend_buffer_get_usage(l->token_embd->buffer) != GGML_BACKEND_BUFFER_USAGE_WEIGHTS) {
        return refuse(error, CANDID_ERROR_UNSUPPORTED, "%s: found no token embeddings in its graph", l->host_name);
    }
    float *row = malloc((size_t)l->host.n_embd * sizeof *row);
    candid_status status =
        row ? token_rows(l, &token, 1, row, error) : refuse(error, CANDID_ERROR_MEMORY, "out of memory: a row");
    for (int32_t i = 0; status == CANDID_OK && i < l->host.n_embd; i++) {
        if (!(fabsf(row[i] - l->learned[i]) <= 1e-6f * fabsf(row[i]))) {
            status = refuse(error, CANDID_ERROR_UNSUPPORTED,
                            "%s: token %d is embedded as (…, %g, …), its row of token_embd is (…, %g, …)", l->host_name,
                            token, (double)l->learned[i], (double)row[i]);
        }
    }
    free(row);
    return status;
}

/* One token, whose tensors are looked at by name and shape. */
static candid_status learn_graph(candid_llama *l, candid_error *error) {
    const struct llama_vocab *vocab = llama_model_get_vocab(l->model);
    const llama_token bos = llama_vocab_bos(vocab), token = bos == LLAMA_TOKEN_NULL ? 0 : bos;
    const llama_memory_t memory = llama_get_memory(l->ctx);
    struct llama_batch batch = llama_batch_init(1, 0, 1);
    batch.n_tokens = 1;
    batch.token[0] = token;
    batch.pos[0] = 0;
    batch.n_seq_id[0] = 1;
    batch.seq_id[0][0] = 0;
    batch.logits[0] = 1;
    l->flight.n_segments = 0;
    l->flight.n_rows = l->flight.n_out = 1;
    l->flight.out_rows[0] = 0;
    l->learning = true;
    candid_status status = fly(l, batch, error);
    l->learning = false;
    llama_batch_free(batch);
    llama_memory_seq_rm(memory, 0, -1, -1);
    TRY(status);
    return check_embedding(l, token, error);
}

/* Methods that need what this graph does not show. */
static candid_status check_sites(candid_llama *l, candid_error *error) {
    uint32_t missing = 0;
    for (int site = CANDID_SITE_ATTENTION_SCORES; site <= CANDID_SITE_FINAL_NORM; site++) {
        missing |= l->saw[site] ? 0u : 1u << site;
    }
    missing |= missing & CANDID_CAN_BLOCK_OUTPUT ? CANDID_CAN_BLOCK_INPUT : 0u;
    if (l->score_scale != 0.0f && fabsf(l->score_scale - l->host.score_scale) > 1e-6f) {
        missing |= CANDID_CAN_ATTENTION_SCORES;
    }
    candid_error why = {0};
    if (!runs_without(l, l->config, missing, &why)) {
        return refuse(error, CANDID_ERROR_UNSUPPORTED, "%s does not show what is needed in this context: %s",
                      l->host_name, why.message);
    }
    return CANDID_OK;
}

candid_status candid_llama_start(candid_llama *l, struct llama_context *ctx, candid_error *error) {
    if (!l || !ctx || l->ctx) {
        return refuse(error, CANDID_ERROR_ARGUMENT, "candid_llama_start: %s",
                      !l     ? "the handle is NULL"
                      : !ctx ? "the context is NULL: llama_init_from_model() failed?"
                             : "the handle has a context already");
    }
    if (llama_get_model(ctx) != l->model || llama_n_seq_max(ctx) < (uint32_t)(l->first_id + l->n_ids) ||
        llama_memory_seq_pos_max(llama_get_memory(ctx), 0) >= 0) {
        return refuse(error, CANDID_ERROR_ARGUMENT,
                      "candid_llama_start: expected a context of the same model, made with the params of "
                      "candid_llama_attach() (n_seq_max %d, found %u) and not used yet",
                      l->first_id + l->n_ids, llama_n_seq_max(ctx));
    }
    bool known = false;
    for (size_t i = 0; i < sizeof tested / sizeof *tested; i++) {
        known = known || strcmp(llama_version(), tested[i]) == 0;
    }
    if (!known) {
        say(l, CANDID_LOG_WARN, "%s was not tested, only %s", l->host_name, candid_llama_tested());
    }
    l->ctx = ctx;
    candid_status status = l->flight.wants ? CANDID_OK : make_room(l, error);
    status = status == CANDID_OK ? learn_graph(l, error) : status;
    status = status == CANDID_OK ? check_sites(l, error) : status;
    if (status != CANDID_OK) {
        l->ctx = NULL;
    }
    return status;
}
