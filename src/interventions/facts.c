/* What is known of models: configs/models.json, which the build places in the library. */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/status.h"
#include "interventions/interventions.h"

extern const char candid_models_json[];
extern const size_t candid_models_json_size;

struct known_models {
    struct json table;
};

candid_status known_models_load(struct known_models **out, candid_error *error) {
    struct known_models *known = calloc(1, sizeof *known);
    if (!known) {
        return fail_memory(error, "the table of models", sizeof *known);
    }
    const candid_status status =
        json_parse(candid_models_json, candid_models_json_size, "configs/models.json", &known->table, error);
    if (status != CANDID_OK) {
        free(known);
        return status;
    }
    *out = known;
    return CANDID_OK;
}

void known_models_free(struct known_models *known) {
    if (known) {
        json_free(&known->table);
        free(known);
    }
}

static bool number_matches(const cJSON *match, const char *key, int value) {
    const cJSON *item = cJSON_GetObjectItem(match, key);
    if (!item || cJSON_IsNumber(item)) {
        return !item || item->valueint == value;
    }
    for (const cJSON *one = item->child; one; one = one->next) {
        if (one->valueint == value) {
            return true;
        }
    }
    return false;
}

static bool matches(const cJSON *entry, const struct model_facts *f) {
    const cJSON *match = cJSON_GetObjectItem(entry, "match");
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(match, "name"));
    return match && (!name || strcmp(name, f->name) == 0) && number_matches(match, "n_layer", f->n_layer) &&
           number_matches(match, "n_embd", f->n_embd) && number_matches(match, "n_head", f->n_head) &&
           number_matches(match, "n_head_kv", f->n_head_kv) && number_matches(match, "n_vocab", f->n_vocab);
}

void model_facts_fill(struct model_facts *f, const char *name, const char *trained_with,
                      const struct llama_weights *llama, const struct clip_weights *clip,
                      const struct known_models *known) {
    *f = (struct model_facts){
        .name = name,
        .n_layer = llama->n_layer,
        .n_head = llama->n_head,
        .n_head_kv = llama->n_head_kv,
        .head_dim = llama->head_dim,
        .n_embd = llama->n_embd,
        .n_vocab = llama->n_vocab,
        .n_vision_blocks = clip ? clip->n_run : 0,
    };
    model_facts_look_up(f, trained_with, known);
}

void model_facts_look_up(struct model_facts *f, const char *trained_with, const struct known_models *known) {
    f->trained_with_cca = strstr(trained_with, "cca") != NULL;
    const cJSON *list = known ? cJSON_GetObjectItem(known->table.root, "models") : NULL;
    for (const cJSON *entry = list ? list->child : NULL; entry && !f->known; entry = entry->next) {
        f->known = matches(entry, f) ? entry : NULL;
    }
    const cJSON *schemes = cJSON_GetObjectItem(f->known, "trained_with");
    for (const cJSON *scheme = schemes ? schemes->child : NULL; scheme; scheme = scheme->next) {
        f->trained_with_cca =
            f->trained_with_cca || (cJSON_IsString(scheme) && strcmp(scheme->valuestring, "cca") == 0);
    }
}
