/* candid_host and candid_plugin: what is known of the host and its model. */
#include <stdlib.h>
#include <string.h>

#include "api/params.h"
#include "core/status.h"
#include "host/host.h"

uint32_t candid_abi_version(void) {
    return CANDID_ABI_VERSION;
}

const char *host_site_name(enum candid_site site) {
    static const char *const names[CANDID_SITE_COUNT] = {
        "block_input", "attention.scores", "attention.probs", "head_output",
        "mlp_output",  "block_output",     "final_norm",      "logits",
    };
    return names[site];
}

#define MOST_LAYERS 4096
#define MOST_WIDTH  (1 << 20)

candid_status host_read(const candid_host *given, candid_host *out, candid_error *error) {
    if (!given) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_host is NULL");
    }
    *out = candid_host_default();
    TRY(params_read(out, sizeof *out, given, "candid_host", error));
    const struct {
        const char *name;
        int32_t value, least, most;
    } fields[] = {
        {"n_layer", out->n_layer, 1, MOST_LAYERS},
        {"n_head", out->n_head, 1, MOST_WIDTH},
        {"n_head_kv", out->n_head_kv, 1, out->n_head},
        {"head_dim", out->head_dim, 1, MOST_WIDTH},
        {"n_embd", out->n_embd, 1, MOST_WIDTH},
        {"n_vocab", out->n_vocab, 1, 1 << 26},
        {"n_vision_blocks", out->n_vision_blocks, 0, MOST_LAYERS},
        {"n_threads", out->n_threads, 1, 1024},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (fields[i].value < fields[i].least || fields[i].value > fields[i].most) {
            return fail(error, CANDID_ERROR_ARGUMENT, "candid_host.%s: expected %d to %d, found %d", fields[i].name,
                        fields[i].least, fields[i].most, fields[i].value);
        }
    }
    if (!(out->score_scale >= 0.0f && out->score_scale <= 1e6f)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_host.score_scale: expected 0 to 1e6, found %g",
                    (double)out->score_scale);
    }
    if (out->n_head % out->n_head_kv != 0 || (int64_t)out->n_head * out->head_dim > MOST_WIDTH) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "candid_host: expected n_head in whole groups of n_head_kv and n_head * head_dim up to %d, found "
                    "%d, %d and %d",
                    MOST_WIDTH, out->n_head, out->n_head_kv, out->head_dim);
    }
    return CANDID_OK;
}

static candid_status copy_string(const char *text, char **out, candid_error *error) {
    text = text ? text : "";
    *out = strdup(text);
    return *out ? CANDID_OK : fail_memory(error, "a plugin", strlen(text) + 1);
}

static candid_status fill(candid_plugin *p, const candid_host *host, const candid_config *config, candid_error *error) {
    TRY(copy_string(host->host && host->host[0] ? host->host : "the host", &p->host, error));
    TRY(copy_string(host->model, &p->model, error));
    TRY(copy_string(host->trained_with, &p->trained_with, error));
    p->log = (struct logger){host->log, host->log_user_data};
    p->abilities =
        host->n_vision_blocks > 0 ? host->abilities : host->abilities & ~(uint32_t)CANDID_CAN_VISION_ATTENTION;
    p->n_threads = host->n_threads;
    p->score_scale = host->score_scale > 0.0f ? host->score_scale : 1.0f;
    p->config = config;
    TRY(known_models_load(&p->known, error));
    p->facts = (struct model_facts){
        .name = p->model,
        .n_layer = host->n_layer,
        .n_head = host->n_head,
        .n_head_kv = host->n_head_kv,
        .head_dim = host->head_dim,
        .n_embd = host->n_embd,
        .n_vocab = host->n_vocab,
        .n_vision_blocks = host->n_vision_blocks,
    };
    model_facts_look_up(&p->facts, p->trained_with, p->known);
    TRY(interventions_needs(config, &p->facts, &p->needs, error));
    const struct decoding none = {.top_p = 1.0f, .repetition_penalty = 1.0f};
    return decoding_resolve(config, &none, &p->decoding, error);
}

candid_status plugin_open(const candid_host *host, const candid_config *config, candid_plugin **out,
                          candid_error *error) {
    candid_host full;
    TRY(host_read(host, &full, error));
    candid_plugin *p = calloc(1, sizeof *p);
    if (!p) {
        return fail_memory(error, "a plugin", sizeof *p);
    }
    const candid_status status = fill(p, &full, config, error);
    if (status != CANDID_OK) {
        candid_plugin_free(p);
        return status;
    }
    *out = p;
    return CANDID_OK;
}

candid_status candid_plugin_create(const candid_host *host, const candid_config *config, candid_plugin **out,
                                   candid_error *error) {
    if (!out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_plugin_create: out is NULL");
    }
    candid_plugin *p = NULL;
    TRY(plugin_open(host, config, &p, error));
    const candid_status status = capabilities_check(p, error);
    if (status != CANDID_OK) {
        candid_plugin_free(p);
        return status;
    }
    if (p->facts.trained_with_cca && p->needs.order != IMAGE_RINGS) {
        log_write(&p->log, CANDID_LOG_WARN,
                  "%s was trained with concentric causal attention and runs without it; switch cca on", p->model);
    }
    *out = p;
    return CANDID_OK;
}

void candid_plugin_free(candid_plugin *p) {
    if (p) {
        free(p->host);
        free(p->model);
        free(p->trained_with);
        known_models_free(p->known);
        free(p);
    }
}
