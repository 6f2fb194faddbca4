/*
 * tokenizer.json of LLaMA-style models (github.com/huggingface/tokenizers): BPE over characters with byte fallback. The
 * merges are kept, because their order decides where pieces of one score compete.
 */
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "core/text.h"
#include "model/hf_internal.h"

#define SPACE "\xe2\x96\x81" /* U+2581 */

struct file {
    struct json j;
    struct hf_vocab *v;
    struct gguf_keys *keys;
    candid_error *error;
};

static candid_status unsupported(const struct file *f, const char *what) {
    return fail(f->error, CANDID_ERROR_UNSUPPORTED, "%s: expected a LLaMA-style BPE tokenizer, found %s", f->j.label,
                what);
}

static bool string_is(const cJSON *object, const char *key, const char *value) {
    const cJSON *item = json_find(object, key);
    return cJSON_IsString(item) && strcmp(item->valuestring, value) == 0;
}

/* "<0x0A>" */
static bool is_byte_piece(const char *s) {
    return strlen(s) == 6 && strncmp(s, "<0x", 3) == 0 && s[5] == '>' && strspn(s + 3, "0123456789abcdefABCDEF") == 2;
}

/* ---- spaces ---- */

/* Prepend "▁" and replace " " by "▁": what SentencePiece does. */
static candid_status read_normalizer_step(const struct file *f, const cJSON *step) {
    if (string_is(step, "type", "Prepend") && string_is(step, "prepend", SPACE)) {
        f->v->add_space_prefix = true;
        return CANDID_OK;
    }
    if (string_is(step, "type", "Replace") && string_is(step, "content", SPACE) &&
        string_is(json_find(step, "pattern"), "String", " ")) {
        return CANDID_OK;
    }
    return unsupported(f, "a normaliser that changes the text otherwise than by the space prefix");
}

static candid_status read_normalizer(const struct file *f) {
    const cJSON *normalizer = json_find(f->j.root, "normalizer"), *step;
    if (!normalizer) {
        return CANDID_OK;
    }
    if (!string_is(normalizer, "type", "Sequence")) {
        return read_normalizer_step(f, normalizer);
    }
    cJSON_ArrayForEach(step, json_find(normalizer, "normalizers")) {
        TRY(read_normalizer_step(f, step));
    }
    return CANDID_OK;
}

/* Metaspace replaces spaces and, unless the text begins with one, puts one in front. */
static candid_status read_pre_tokenizer(const struct file *f) {
    const cJSON *pre = json_find(f->j.root, "pre_tokenizer");
    if (!pre) {
        return CANDID_OK;
    }
    if (!string_is(pre, "type", "Metaspace") || !string_is(pre, "replacement", SPACE)) {
        return unsupported(f, string_is(pre, "type", "ByteLevel") || string_is(pre, "type", "Sequence")
                                  ? "a byte-level one (GPT-2, Llama 3)"
                                  : "another pre-tokenizer");
    }
    bool split = true;
    TRY(json_get_bool(&f->j, pre, "pre_tokenizer.", "split", &split, f->error));
    if (split) {
        return unsupported(f, "a pre-tokenizer that splits at spaces");
    }
    const char *scheme = "always";
    TRY(json_get_string(&f->j, pre, "pre_tokenizer.", "prepend_scheme", &scheme, f->error));
    f->v->metaspace = true;
    f->v->add_space_prefix = strcmp(scheme, "never") != 0;
    f->v->prefix_first = strcmp(scheme, "first") == 0;
    return CANDID_OK;
}

/* ---- vocabulary ---- */

static candid_status read_vocab(const struct file *f, const cJSON *model) {
    const cJSON *vocab = json_find(model, "vocab"), *item;
    bool byte_fallback = false;
    TRY(json_get_bool(&f->j, model, "model.", "byte_fallback", &byte_fallback, f->error));
    if (!cJSON_IsObject(vocab) || !vocab->child) {
        return unsupported(f, "no model.vocab");
    }
    const char *unknown = NULL;
    TRY(json_get_string(&f->j, model, "model.", "unk_token", &unknown, f->error));
    cJSON_ArrayForEach(item, vocab) {
        int64_t id = 0;
        if (!json_is_int(item, 0, INT32_MAX, &id)) {
            char found[JSON_FOUND];
            struct printable piece;
            return fail(f->error, CANDID_ERROR_FORMAT, "%s: key model.vocab.%s: expected an id, found %s", f->j.label,
                        printable_string(&piece, item->string), json_found(item, found));
        }
        const bool is_unknown = unknown && strcmp(unknown, item->string) == 0;
        const int32_t type = is_unknown                                     ? HF_UNKNOWN
                             : byte_fallback && is_byte_piece(item->string) ? HF_BYTE
                                                                            : HF_NORMAL;
        f->v->unknown = is_unknown ? id : f->v->unknown;
        TRY(hf_vocab_set(f->v, id, item->string, strlen(item->string), -1e6f, type, f->j.label, f->error));
    }
    return CANDID_OK;
}

static candid_status read_added(const struct file *f) {
    const cJSON *item;
    cJSON_ArrayForEach(item, json_find(f->j.root, "added_tokens")) {
        int64_t id = -1;
        const char *content = NULL;
        bool special = false;
        TRY(json_get_int(&f->j, item, "added_tokens[].", "id", 0, INT32_MAX, &id, f->error));
        TRY(json_get_string(&f->j, item, "added_tokens[].", "content", &content, f->error));
        TRY(json_get_bool(&f->j, item, "added_tokens[].", "special", &special, f->error));
        if (id < 0 || !content) {
            return unsupported(f, "an added token without id or content");
        }
        static const char *const flags[] = {"lstrip", "rstrip", "single_word"};
        for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
            bool on = false;
            TRY(json_get_bool(&f->j, item, "added_tokens[].", flags[i], &on, f->error));
            if (on) {
                struct printable token;
                return fail(f->error, CANDID_ERROR_UNSUPPORTED,
                            "%s: added token %s: expected %s to be false, found true", f->j.label,
                            printable_string(&token, content), flags[i]);
            }
        }
        const int32_t type = id == f->v->unknown ? HF_UNKNOWN : special ? HF_CONTROL : HF_USER_DEFINED;
        TRY(hf_vocab_set(f->v, id, content, strlen(content), 0.0f, type, f->j.label, f->error));
    }
    return CANDID_OK;
}

/* ---- merges ---- */

struct id_of {
    const char *text;
    int32_t id;
};

static int by_text(const void *a, const void *b) {
    return strcmp(((const struct id_of *)a)->text, ((const struct id_of *)b)->text);
}

/* One merge as its two pieces, "a b" or ["a", "b"]. False if it is neither. */
static bool merge_parts(const cJSON *item, const char **left, size_t *n_left, const char **right) {
    if (cJSON_IsString(item)) {
        const char *space = strchr(item->valuestring, ' ');
        *left = item->valuestring;
        *n_left = space ? (size_t)(space - item->valuestring) : 0;
        *right = space ? space + 1 : "";
    } else if (cJSON_IsArray(item) && cJSON_GetArraySize(item) == 2 && cJSON_IsString(item->child) &&
               cJSON_IsString(item->child->next)) {
        *left = item->child->valuestring;
        *n_left = strlen(*left);
        *right = item->child->next->valuestring;
    } else {
        return false;
    }
    return *n_left > 0 && **right != '\0' && !memchr(*left, ' ', *n_left) && !strchr(*right, ' ');
}

/* Merge number r, and the score -r for the piece it makes, so that engines that know only scores agree. */
static candid_status read_merge(const struct file *f, const cJSON *item, size_t rank, const struct id_of *ids,
                                size_t n_ids) {
    const char *left = NULL, *right = NULL;
    size_t n_left = 0;
    char text[2048];
    const bool good = merge_parts(item, &left, &n_left, &right) && n_left + strlen(right) < sizeof text - 1;
    const struct id_of *found = NULL;
    if (good) {
        memcpy(text, left, n_left);
        strcpy(text + n_left, right);
        found = bsearch(&(struct id_of){text, 0}, ids, n_ids, sizeof *ids, by_text);
    }
    if (!found) {
        return fail(f->error, CANDID_ERROR_FORMAT,
                    "%s: key model.merges: expected two pieces that make a third one of the vocabulary, found another "
                    "entry at %zu",
                    f->j.label, rank);
    }
    struct hf_piece *p = &f->v->pieces[found->id];
    p->score = p->score > -1e6f ? p->score : -(float)rank;
    memcpy(text, left, n_left);
    text[n_left] = ' ';
    strcpy(text + n_left + 1, right);
    gguf_add_string(f->keys, text, strlen(text));
    return CANDID_OK;
}

static candid_status read_merges(const struct file *f, const cJSON *model) {
    const cJSON *merges = json_find(model, "merges"), *item;
    if (!cJSON_IsArray(merges)) {
        return unsupported(f, "no model.merges");
    }
    const size_t n = (size_t)cJSON_GetArraySize(merges);
    struct id_of *ids = malloc((f->v->count + 1) * sizeof *ids);
    if (!ids) {
        return fail_memory(f->error, "the index of a vocabulary", f->v->count * sizeof *ids);
    }
    size_t n_ids = 0;
    for (size_t i = 0; i < f->v->count; i++) {
        if (f->v->pieces[i].text) {
            ids[n_ids++] = (struct id_of){f->v->pieces[i].text, (int32_t)i};
        }
    }
    qsort(ids, n_ids, sizeof *ids, by_text);
    gguf_begin_strings(f->keys, "tokenizer.ggml.merges", n);
    candid_status status = CANDID_OK;
    size_t rank = 0;
    cJSON_ArrayForEach(item, merges) {
        status = read_merge(f, item, rank++, ids, n_ids);
        if (status != CANDID_OK) {
            break;
        }
    }
    free(ids);
    return status;
}

/* ---- BOS ---- */

/* TemplateProcessing puts a special token before the text. */
static bool template_adds_bos(const struct file *f, int64_t *bos) {
    const cJSON *post = json_find(f->j.root, "post_processor");
    const cJSON *single = json_find(post, "single");
    const cJSON *first = cJSON_IsArray(single) ? single->child : NULL;
    const cJSON *token = json_find(json_find(first, "SpecialToken"), "id");
    if (!cJSON_IsString(token)) {
        return false;
    }
    for (size_t i = 0; i < f->v->count; i++) {
        if (f->v->pieces[i].text && strcmp(f->v->pieces[i].text, token->valuestring) == 0) {
            *bos = (int64_t)i;
            return true;
        }
    }
    return false;
}

static candid_status read_file(const struct file *f, bool *add_bos) {
    const cJSON *model = json_find(f->j.root, "model");
    if (!cJSON_IsObject(model) || (json_find(model, "type") && !string_is(model, "type", "BPE"))) {
        return unsupported(f, "another model type");
    }
    static const char *const unknown_features[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 3; i++) {
        const cJSON *item = json_find(model, unknown_features[i]);
        if (item && !(cJSON_IsString(item) && item->valuestring[0] == '\0')) {
            return unsupported(f, unknown_features[i]);
        }
    }
    bool ignore_merges = false;
    TRY(json_get_bool(&f->j, model, "model.", "ignore_merges", &ignore_merges, f->error));
    if (ignore_merges) {
        return unsupported(f, "model.ignore_merges");
    }
    TRY(read_normalizer(f));
    TRY(read_pre_tokenizer(f));
    TRY(read_vocab(f, model));
    TRY(read_added(f));
    TRY(read_merges(f, model));
    *add_bos = template_adds_bos(f, &f->v->bos);
    return CANDID_OK;
}

candid_status hf_parse_tokenizer_json(const struct json *j, struct hf_vocab *v, struct gguf_keys *keys, bool *add_bos,
                                      candid_error *error) {
    const struct file f = {*j, v, keys, error};
    v->add_space_prefix = false;
    return read_file(&f, add_bos);
}

candid_status hf_read_tokenizer_json(const char *path, struct hf_vocab *v, struct gguf_keys *keys, bool *add_bos,
                                     candid_error *error) {
    struct json j;
    TRY(json_read(path, HF_MAX_JSON, &j, error));
    const candid_status status = hf_parse_tokenizer_json(&j, v, keys, add_bos, error);
    json_free(&j);
    return status;
}
