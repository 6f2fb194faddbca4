/* The tokenizer files of a Hugging Face directory to GGUF keys. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "model/hf_internal.h"

#define MAX_VOCAB (1 << 22)

void hf_vocab_free(struct hf_vocab *v) {
    for (size_t i = 0; i < v->count; i++) {
        free(v->pieces[i].text);
    }
    free(v->pieces);
    *v = (struct hf_vocab){0};
}

candid_status hf_vocab_set(struct hf_vocab *v, int64_t id, const char *text, size_t size, float score, int32_t type,
                           const char *label, candid_error *error) {
    if (id < 0 || id >= MAX_VOCAB) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: expected token ids from 0 to %d, found %lld", label, MAX_VOCAB - 1,
                    (long long)id);
    }
    const size_t i = (size_t)id;
    if (i >= v->capacity) {
        const size_t capacity = 2 * i + 1024;
        struct hf_piece *grown = realloc(v->pieces, capacity * sizeof *grown);
        if (!grown) {
            return fail_memory(error, "a vocabulary", capacity * sizeof *grown);
        }
        memset(grown + v->capacity, 0, (capacity - v->capacity) * sizeof *grown);
        v->pieces = grown;
        v->capacity = capacity;
    }
    char *copy = malloc(size + 1);
    if (!copy) {
        return fail_memory(error, "a vocabulary", size + 1);
    }
    if (size > 0) {
        memcpy(copy, text, size);
    }
    copy[size] = '\0';
    free(v->pieces[i].text);
    v->pieces[i] = (struct hf_piece){copy, size, score, type};
    v->count = i + 1 > v->count ? i + 1 : v->count;
    return CANDID_OK;
}

static int64_t find_piece(const struct hf_vocab *v, const char *text) {
    for (size_t i = 0; i < v->count; i++) {
        if (v->pieces[i].text && strcmp(v->pieces[i].text, text) == 0) {
            return (int64_t)i;
        }
    }
    return -1;
}

/* Opens directory/name; out->root stays NULL when there is no such file. */
static candid_status read_optional(const char *directory, const char *name, struct json *out, candid_error *error) {
    *out = (struct json){0};
    char *path = NULL;
    TRY(file_join(directory, name, &path, error));
    const candid_status status = file_exists(path) ? json_read(path, HF_MAX_JSON, out, error) : CANDID_OK;
    free(path);
    return status;
}

/* ---- tokens added beside tokenizer.model ---- */

static candid_status add_token(struct hf_vocab *v, int64_t id, const char *content, bool special, const char *label,
                               candid_error *error) {
    if (id >= 0 && (size_t)id < v->count && v->pieces[id].text && strcmp(v->pieces[id].text, content) == 0) {
        return CANDID_OK; /* <s> and its like, which the model file has */
    }
    return hf_vocab_set(v, id, content, strlen(content), 0.0f, special ? HF_CONTROL : HF_USER_DEFINED, label, error);
}

/* added_tokens_decoder of tokenizer_config.json: {"32000": {"content": "<image>", "special": true, …}}. */
static candid_status read_added_decoder(const struct json *j, struct hf_vocab *v, candid_error *error) {
    const cJSON *map = NULL, *item;
    TRY(json_get_object(j, j->root, "", "added_tokens_decoder", &map, error));
    cJSON_ArrayForEach(item, map) {
        char *end = NULL;
        const long long id = strtoll(item->string, &end, 10);
        const char *content = NULL;
        bool special = false;
        TRY(json_get_string(j, item, "added_tokens_decoder.", "content", &content, error));
        TRY(json_get_bool(j, item, "added_tokens_decoder.", "special", &special, error));
        if (end == item->string || *end != '\0' || !content) {
            return fail(error, CANDID_ERROR_FORMAT,
                        "%s: key added_tokens_decoder: expected ids with contents, found others", j->label);
        }
        TRY(add_token(v, id, content, special, j->label, error));
    }
    return CANDID_OK;
}

/* added_tokens.json of older files: {"<image>": 32000}. */
static candid_status read_added_file(const char *directory, struct hf_vocab *v, candid_error *error) {
    struct json j;
    TRY(read_optional(directory, "added_tokens.json", &j, error));
    candid_status status = CANDID_OK;
    const cJSON *item;
    cJSON_ArrayForEach(item, j.root) {
        int64_t id = 0;
        if (!json_is_int(item, 0, MAX_VOCAB, &id)) {
            status = fail(error, CANDID_ERROR_FORMAT, "%s: expected token ids, found something else", j.label);
            break;
        }
        status = add_token(v, id, item->string, true, j.label, error);
        if (status != CANDID_OK) {
            break;
        }
    }
    json_free(&j);
    return status;
}

/* ---- tokenizer_config.json, generation_config.json ---- */

/* "bos_token": a string or {"content": string}. */
static void read_token(const struct json *config, const char *key, const struct hf_vocab *v, int64_t *id) {
    const cJSON *item = json_find(config->root, key);
    item = cJSON_IsObject(item) ? json_find(item, "content") : item;
    const int64_t found = cJSON_IsString(item) ? find_piece(v, item->valuestring) : -1;
    *id = found >= 0 ? found : *id;
}

/* eos_token_id: one id or several; the second becomes the end-of-turn token. */
static candid_status read_generation(const char *directory, struct hf_vocab *v, int64_t *eot, candid_error *error) {
    struct json j;
    TRY(read_optional(directory, "generation_config.json", &j, error));
    const cJSON *item = json_find(j.root, "eos_token_id");
    int64_t ids[2] = {-1, -1};
    candid_status status = CANDID_OK;
    const cJSON *first = cJSON_IsArray(item) ? item->child : item;
    size_t n = 0;
    for (; first && status == CANDID_OK; first = cJSON_IsArray(item) ? first->next : NULL) {
        if (n == 2 || !json_is_int(first, 0, MAX_VOCAB, &ids[n])) {
            status = fail(error, CANDID_ERROR_UNSUPPORTED,
                          "%s: key eos_token_id: expected one or two ids, found others", j.label);
        }
        n++;
    }
    json_free(&j);
    v->eos = ids[0] >= 0 ? ids[0] : v->eos;
    *eot = ids[1];
    return status;
}

/* ---- chat template ---- */

/* The conversation (see lm/prompt.h) that a Jinja template of the LLaVA family renders for one turn; NULL: unknown. */
static const char *recognise_template(const char *jinja) {
    static const struct {
        const char *marks[3]; /* all must occur */
        const char *conversation;
    } known[] = {
        {{"curious human", "USER", "ASSISTANT"}, "llava_v1"},
        {{"curious user", "USER", "ASSISTANT"}, "vicuna_v1"},
        {{"[INST]", "[/INST]", NULL}, "mistral_instruct"},
        {{".upper()", "ASSISTANT:", NULL}, "llava_hf"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        bool all = true;
        for (size_t m = 0; m < 3 && known[i].marks[m]; m++) {
            all = all && strstr(jinja, known[i].marks[m]);
        }
        if (all) {
            return known[i].conversation;
        }
    }
    return NULL;
}

/* chat_template.jinja, chat_template.json, processor_config.json or tokenizer_config.json: the first that has one. */
static candid_status read_chat_template(const char *directory, const struct json *config, struct gguf_keys *keys,
                                        const struct logger *log, candid_error *error) {
    static const char *const files[] = {"chat_template.json", "processor_config.json"};
    char *path = NULL, *text = NULL;
    TRY(file_join(directory, "chat_template.jinja", &path, error));
    candid_status status = CANDID_OK;
    if (file_exists(path)) {
        struct mapped_file file;
        status = file_map(path, "a chat template", &file, error);
        if (status == CANDID_OK && file.size > 0) {
            text = strndup((const char *)file.data, file.size);
        }
        if (status == CANDID_OK) {
            file_unmap(&file);
        }
    }
    free(path);
    for (size_t i = 0; i < 2 && status == CANDID_OK && !text; i++) {
        struct json j;
        status = read_optional(directory, files[i], &j, error);
        const cJSON *item = json_find(j.root, "chat_template");
        text = cJSON_IsString(item) ? strdup(item->valuestring) : NULL;
        json_free(&j);
    }
    const cJSON *item = json_find(config->root, "chat_template");
    if (status == CANDID_OK && !text && cJSON_IsString(item)) {
        text = strdup(item->valuestring);
    }
    if (status == CANDID_OK && text) {
        const char *conversation = recognise_template(text);
        if (conversation) {
            gguf_set_string(keys, "candid.conversation", conversation);
        } else {
            char label[208];
            log_write(log, CANDID_LOG_WARN, "%s: the chat template is none that candid knows: using vicuna_v1",
                      file_label(directory, label, sizeof label));
        }
    }
    free(text);
    return status;
}

/* ---- all together ---- */

static void set_vocabulary(const struct hf_vocab *v, int64_t n_rows, int64_t eot, bool add_bos, struct gguf_keys *keys,
                           float *scores, int32_t *types) {
    gguf_set_string(keys, "tokenizer.ggml.model", "llama");
    gguf_set_string(keys, "tokenizer.ggml.pre", "default");
    gguf_begin_strings(keys, "tokenizer.ggml.tokens", (uint64_t)n_rows);
    for (int64_t i = 0; i < n_rows; i++) {
        const struct hf_piece *p = (size_t)i < v->count && v->pieces[i].text ? &v->pieces[i] : NULL;
        scores[i] = p ? p->score : -1e6f;
        types[i] = p ? p->type : HF_UNUSED;
        if (p) {
            gguf_add_string(keys, p->text, p->size);
        } else { /* rows without a token: padding of the table */
            char name[32];
            const int n = snprintf(name, sizeof name, "[PAD%lld]", (long long)i);
            gguf_add_string(keys, name, (size_t)n);
        }
    }
    gguf_set_f32_array(keys, "tokenizer.ggml.scores", scores, (size_t)n_rows);
    gguf_set_i32_array(keys, "tokenizer.ggml.token_type", types, (size_t)n_rows);
    const struct {
        const char *key;
        int64_t id;
    } ids[] = {{"tokenizer.ggml.bos_token_id", v->bos},
               {"tokenizer.ggml.eos_token_id", v->eos},
               {"tokenizer.ggml.unknown_token_id", v->unknown},
               {"tokenizer.ggml.eot_token_id", eot}};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        if (ids[i].id >= 0) {
            gguf_set_u32(keys, ids[i].key, (uint32_t)ids[i].id);
        }
    }
    gguf_set_bool(keys, "tokenizer.ggml.add_bos_token", add_bos);
    gguf_set_bool(keys, "tokenizer.ggml.add_eos_token", false);
    gguf_set_bool(keys, "tokenizer.ggml.add_space_prefix", v->add_space_prefix);
    if (v->metaspace) {
        gguf_set_bool(keys, "candid.tokenizer.metaspace", true);
        gguf_set_bool(keys, "candid.tokenizer.prefix_first", v->prefix_first);
    }
}

candid_status hf_set_vocabulary(const struct hf_vocab *v, int64_t n_rows, int64_t eot, bool add_bos,
                                struct gguf_keys *keys, candid_error *error) {
    float *scores = malloc((size_t)n_rows * sizeof *scores);
    int32_t *types = malloc((size_t)n_rows * sizeof *types);
    if (scores && types) {
        set_vocabulary(v, n_rows, eot, add_bos, keys, scores, types);
    }
    const bool good = scores && types;
    free(scores);
    free(types);
    return good ? CANDID_OK : fail_memory(error, "a vocabulary", (size_t)n_rows * 8);
}

static candid_status read_vocabulary(const char *directory, const struct json *config, struct hf_vocab *v,
                                     struct gguf_keys *keys, bool *add_bos, candid_error *error) {
    char *json_path = NULL, *model_path = NULL;
    candid_status status = file_join(directory, "tokenizer.json", &json_path, error);
    if (status == CANDID_OK) {
        status = file_join(directory, "tokenizer.model", &model_path, error);
    }
    if (status == CANDID_OK && file_exists(json_path)) {
        status = hf_read_tokenizer_json(json_path, v, keys, add_bos, error);
    } else if (status == CANDID_OK && file_exists(model_path)) {
        status = hf_read_sentencepiece(model_path, v, error);
        if (status == CANDID_OK) {
            status = read_added_decoder(config, v, error);
        }
        if (status == CANDID_OK) {
            status = read_added_file(directory, v, error);
        }
    } else if (status == CANDID_OK) {
        char label[208];
        status = fail(error, CANDID_ERROR_IO,
                      "%s: expected tokenizer.json or tokenizer.model in the directory, found neither",
                      file_label(directory, label, sizeof label));
    }
    free(json_path);
    free(model_path);
    return status;
}

static candid_status read_all(const char *directory, int64_t n_rows, const struct json *config, struct hf_vocab *v,
                              struct gguf_keys *keys, const struct logger *log, candid_error *error) {
    bool add_bos = true;
    int64_t eot = -1;
    TRY(read_vocabulary(directory, config, v, keys, &add_bos, error));
    read_token(config, "bos_token", v, &v->bos);
    read_token(config, "eos_token", v, &v->eos);
    TRY(json_get_bool(config, config->root, "", "add_bos_token", &add_bos, error));
    TRY(read_generation(directory, v, &eot, error));
    TRY(read_chat_template(directory, config, keys, log, error));
    if ((int64_t)v->count > n_rows) {
        char label[208];
        return fail(error, CANDID_ERROR_FORMAT, "%s: expected at most %lld tokens (vocab_size), found %zu",
                    file_label(directory, label, sizeof label), (long long)n_rows, v->count);
    }
    return hf_set_vocabulary(v, n_rows, eot, add_bos, keys, error);
}

candid_status hf_read_tokenizer(const char *directory, int64_t n_rows, struct gguf_keys *keys, const struct logger *log,
                                candid_error *error) {
    struct hf_vocab v = {.bos = -1, .eos = -1, .unknown = -1};
    struct json config;
    candid_status status = read_optional(directory, "tokenizer_config.json", &config, error);
    if (status == CANDID_OK) {
        status = read_all(directory, n_rows, &config, &v, keys, log, error);
    }
    json_free(&config);
    hf_vocab_free(&v);
    return status;
}
