/*
 * A Hugging Face directory as one model in GGUF's terms: the tensors of both networks by their GGUF names, over the
 * mapped files. Nothing is converted; only a tensor that a file stores at an odd address is copied.
 */
#include "model/hf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "core/text.h"
#include "model/hf_internal.h"

#define NAME 160

/* What the assembled model keeps alive. */
struct directory {
    struct hf_shards main, vision; /* vision: a second directory, or empty */
    uint8_t **copies;
    size_t n_copies;
};

static void directory_free(void *what) {
    struct directory *d = what;
    hf_shards_close(&d->main);
    hf_shards_close(&d->vision);
    for (size_t i = 0; i < d->n_copies; i++) {
        free(d->copies[i]);
    }
    free(d->copies);
    free(d);
}

/* The table under construction. */
struct table {
    struct directory *d;
    struct tensor *tensors;
    char (*names)[2][NAME]; /* [capacity] GGUF name, origin */
    size_t count, capacity;
    candid_error *error;
};

static void table_free(struct table *t) {
    free(t->tensors);
    free(t->names);
}

/* A tensor name; all of ours fit. */
__attribute__((format(printf, 2, 3))) static void format_name(char out[NAME], const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(out, NAME, format, args);
    va_end(args);
}

/* ---- one tensor ---- */

/* Values are read in place by kernels that expect them on their natural boundary. */
static candid_status aligned_data(struct table *t, const struct safetensors_tensor *s, const void **out) {
    const size_t bytes = quant_block_bytes(s->type);
    *out = s->data;
    if ((uintptr_t)s->data % bytes == 0) {
        return CANDID_OK;
    }
    uint8_t **copies = realloc(t->d->copies, (t->d->n_copies + 1) * sizeof *copies);
    if (!copies) {
        return fail_memory(t->error, "the list of copied tensors", (t->d->n_copies + 1) * sizeof *copies);
    }
    t->d->copies = copies;
    uint8_t *copy = malloc(s->size);
    if (!copy) {
        return fail_memory(t->error, "a tensor at an odd address", s->size);
    }
    memcpy(copy, s->data, s->size);
    t->d->copies[t->d->n_copies++] = copy;
    *out = copy;
    return CANDID_OK;
}

static candid_status add_tensor(struct table *t, const struct hf_shards *shards, const char *name,
                                const char *gguf_name) {
    const struct safetensors *file = shards->files[0];
    const struct safetensors_tensor *s = hf_shards_find(shards, name, &file);
    if (!s) {
        return fail(t->error, CANDID_ERROR_FORMAT,
                    "%s: tensor %s: expected it in the model's files, found none of this name", safetensors_path(file),
                    name);
    }
    if (s->type == SAFETENSORS_OTHER) {
        return fail(t->error, CANDID_ERROR_UNSUPPORTED, "%s: tensor %s: expected F32, F16 or BF16, found %s",
                    safetensors_path(file), name, s->dtype);
    }
    if (s->n_dims < 1 || s->n_dims > 4 || s->size == 0) {
        return fail(t->error, CANDID_ERROR_FORMAT,
                    "%s: tensor %s: expected 1 to 4 dimensions above 0, found %d dimensions "
                    "and %zu bytes",
                    safetensors_path(file), name, s->n_dims, s->size);
    }
    if (t->count == t->capacity) {
        const size_t capacity = 2 * t->capacity + 256;
        struct tensor *tensors = realloc(t->tensors, capacity * sizeof *tensors);
        t->tensors = tensors ? tensors : t->tensors;
        void *names = realloc(t->names, capacity * sizeof *t->names);
        t->names = names ? names : t->names;
        if (!tensors || !names) {
            return fail_memory(t->error, "the tensor table of a model", capacity * sizeof *tensors);
        }
        t->capacity = capacity;
    }
    struct tensor *out = &t->tensors[t->count];
    *out = (struct tensor){.type = s->type, .n_dims = s->n_dims, .ne = {1, 1, 1, 1}, .size = s->size};
    for (int i = 0; i < s->n_dims; i++) {
        out->ne[i] = s->shape[s->n_dims - 1 - i];
    }
    format_name(t->names[t->count][0], "%s", gguf_name);
    format_name(t->names[t->count][1], "%s", name);
    t->count++;
    return aligned_data(t, s, &out->data);
}

/* prefix + suffix under a GGUF name. */
static candid_status add(struct table *t, const struct hf_shards *shards, const char *prefix, const char *suffix,
                         const char *gguf_name) {
    char name[NAME];
    format_name(name, "%s%s", prefix, suffix);
    return add_tensor(t, shards, name, gguf_name);
}

/* Layer i: prefix "layers.i." suffix -> block "blk.i." or "v.blk.i.". */
struct pair {
    const char *hf, *gguf;
};

static candid_status add_layer(struct table *t, const struct hf_shards *shards, const char *prefix, const char *block,
                               int64_t i, const struct pair *pairs, size_t n) {
    for (size_t p = 0; p < n; p++) {
        char name[NAME], gguf_name[NAME];
        format_name(name, "%s%d.%s", prefix, (int)i, pairs[p].hf);
        format_name(gguf_name, "%s%d.%s", block, (int)i, pairs[p].gguf);
        TRY(add_tensor(t, shards, name, gguf_name));
    }
    return CANDID_OK;
}

/* The first prefix under which `probe` exists, or NULL. */
static const char *find_prefix(const struct hf_shards *shards, const char *const *prefixes, size_t n,
                               const char *probe) {
    for (size_t i = 0; i < n; i++) {
        char name[NAME];
        format_name(name, "%s%s", prefixes[i], probe);
        if (hf_shards_find(shards, name, NULL)) {
            return prefixes[i];
        }
    }
    return NULL;
}

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- language model ---- */

static const struct pair text_layer[] = {
    {"input_layernorm.weight", "attn_norm.weight"},    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"},      {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"}, {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},       {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
};

/* As on disk of llava-hf, as saved by newer transformers, as in original LLaVA and plain language models. NULL: none.
 */
static const char *text_prefix(const struct hf_shards *shards) {
    static const char *const prefixes[] = {"language_model.model.", "model.language_model.", "model."};
    return find_prefix(shards, prefixes, COUNT(prefixes), "embed_tokens.weight");
}

/* Rows of the embedding table. */
static candid_status vocabulary_rows(const struct hf_shards *shards, int64_t *out, candid_error *error) {
    const char *prefix = text_prefix(shards);
    if (!prefix) {
        return fail(
            error, CANDID_ERROR_FORMAT,
            "%s: tensor model.embed_tokens.weight: expected a language model, found none under this name or with "
            "the prefix language_model.model. or model.language_model.",
            safetensors_path(shards->files[0]));
    }
    char name[NAME];
    format_name(name, "%sembed_tokens.weight", prefix);
    const struct safetensors_tensor *table = hf_shards_find(shards, name, NULL);
    *out = table->shape[0];
    return table->n_dims == 2 && *out > 0
               ? CANDID_OK
               : fail(error, CANDID_ERROR_FORMAT, "%s: tensor %s: expected two dimensions above 0, found %d dimensions",
                      safetensors_path(shards->files[0]), name, table->n_dims);
}

static candid_status add_text(struct table *t, const struct hf_config *c) {
    static const char *const heads[] = {"language_model.lm_head.weight", "lm_head.weight"};
    const struct hf_shards *shards = &t->d->main;
    const char *prefix = text_prefix(shards);
    TRY(add(t, shards, prefix, "embed_tokens.weight", "token_embd.weight"));
    TRY(add(t, shards, prefix, "norm.weight", "output_norm.weight"));
    char layers[NAME];
    format_name(layers, "%slayers.", prefix);
    for (int64_t i = 0; i < c->text_layers; i++) {
        TRY(add_layer(t, shards, layers, "blk.", i, text_layer, COUNT(text_layer)));
    }
    if (c->tied) {
        return CANDID_OK; /* transformers ignores a stored head then */
    }
    const char *head = hf_shards_find(shards, heads[0], NULL) ? heads[0] : heads[1];
    return add_tensor(t, shards, head, "output.weight");
}

/* ---- image encoder and projector ---- */

static const struct pair vision_layer[] = {
    {"layer_norm1.weight", "ln1.weight"},
    {"layer_norm1.bias", "ln1.bias"},
    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.q_proj.bias", "attn_q.bias"},
    {"self_attn.k_proj.weight", "attn_k.weight"},
    {"self_attn.k_proj.bias", "attn_k.bias"},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.out_proj.weight", "attn_out.weight"},
    {"self_attn.out_proj.bias", "attn_out.bias"},
    {"layer_norm2.weight", "ln2.weight"},
    {"layer_norm2.bias", "ln2.bias"},
    {"mlp.fc1.weight", "ffn_up.weight"},
    {"mlp.fc1.bias", "ffn_up.bias"},
    {"mlp.fc2.weight", "ffn_down.weight"},
    {"mlp.fc2.bias", "ffn_down.bias"},
};

static const char *const vision_prefixes[] = {
    "vision_tower.vision_model.",
    "model.vision_tower.vision_model.",
    "model.vision_tower.vision_tower.vision_model.",
    "vision_model.",
};

static candid_status add_encoder(struct table *t, const struct hf_shards *shards, const struct hf_config *c) {
    const char *probe = "embeddings.class_embedding";
    const char *prefix = find_prefix(shards, vision_prefixes, COUNT(vision_prefixes), probe);
    if (!prefix) {
        return fail(t->error, CANDID_ERROR_FORMAT,
                    "%s: tensor vision_model.%s: expected a CLIP image encoder, found none",
                    safetensors_path(shards->files[0]), probe);
    }
    TRY(add(t, shards, prefix, probe, "v.class_embd"));
    TRY(add(t, shards, prefix, "embeddings.patch_embedding.weight", "v.patch_embd.weight"));
    TRY(add(t, shards, prefix, "embeddings.position_embedding.weight", "v.position_embd.weight"));
    TRY(add(t, shards, prefix, "pre_layrnorm.weight", "v.pre_ln.weight"));
    TRY(add(t, shards, prefix, "pre_layrnorm.bias", "v.pre_ln.bias"));
    char layers[NAME];
    format_name(layers, "%sencoder.layers.", prefix);
    for (int64_t i = 0; i < c->vision_layers; i++) {
        TRY(add_layer(t, shards, layers, "v.blk.", i, vision_layer, COUNT(vision_layer)));
    }
    return CANDID_OK;
}

static candid_status add_projector(struct table *t, const struct hf_config *c) {
    static const struct {
        const char *first, *second;
    } names[] = {
        {"multi_modal_projector.linear_1", "multi_modal_projector.linear_2"},
        {"model.multi_modal_projector.linear_1", "model.multi_modal_projector.linear_2"},
        {"model.mm_projector.0", "model.mm_projector.2"},
        {"model.mm_projector", NULL},
    };
    const struct hf_shards *shards = &t->d->main;
    for (size_t i = 0; i < COUNT(names); i++) {
        const char *first = names[i].first, *second = names[i].second;
        if (!find_prefix(shards, &first, 1, ".weight")) {
            continue;
        }
        TRY(add(t, shards, first, ".weight", "mm.0.weight"));
        TRY(add(t, shards, first, ".bias", "mm.0.bias"));
        if (second) {
            TRY(add(t, shards, second, ".weight", "mm.2.weight"));
            TRY(add(t, shards, second, ".bias", "mm.2.bias"));
        }
        static const char *const newlines[] = {"image_newline", "model.image_newline"};
        const char *newline = find_prefix(shards, newlines, 2, "");
        return c->next ? add_tensor(t, shards, newline ? newline : newlines[0], "v.image_newline") : CANDID_OK;
    }
    return fail(
        t->error, CANDID_ERROR_FORMAT,
        "%s: tensor multi_modal_projector.linear_1.weight: expected a projector, found none under this name nor "
        "as model.mm_projector.0.weight",
        safetensors_path(shards->files[0]));
}

/* ---- nothing may be left over ---- */

/* Tensors no forward pass of LLaVA reads: buffers, the norm after the feature layer, the other half of CLIP. */
static bool is_harmless(const char *name) {
    static const char *const parts[] = {"rotary_emb.inv_freq", "position_ids",      "post_layernorm.", "text_model.",
                                        "text_projection",     "visual_projection", "logit_scale"};
    for (size_t i = 0; i < COUNT(parts); i++) {
        if (strstr(name, parts[i])) {
            return true;
        }
    }
    return false;
}

static int by_origin(const void *a, const void *b) {
    return strcmp(((const struct tensor *)a)->origin, ((const struct tensor *)b)->origin);
}

static candid_status refuse_unused(const struct table *t, const struct hf_config *c) {
    struct tensor *sorted = malloc((t->count + 1) * sizeof *sorted);
    if (!sorted) {
        return fail_memory(t->error, "the account of used tensors", t->count * sizeof *sorted);
    }
    memcpy(sorted, t->tensors, t->count * sizeof *sorted);
    qsort(sorted, t->count, sizeof *sorted, by_origin);
    candid_status status = CANDID_OK;
    const struct hf_shards *all[] = {&t->d->main, &t->d->vision};
    for (size_t s = 0; s < 2; s++) {
        for (size_t f = 0; f < all[s]->n_files && status == CANDID_OK; f++) {
            for (size_t i = 0; i < safetensors_count(all[s]->files[f]) && status == CANDID_OK; i++) {
                const char *name = safetensors_at(all[s]->files[f], i)->name;
                const struct tensor wanted = {.origin = name};
                const bool head = c->tied && strstr(name, "lm_head.weight");
                if (!bsearch(&wanted, sorted, t->count, sizeof *sorted, by_origin) && !is_harmless(name) && !head) {
                    struct printable text;
                    status = fail(t->error, CANDID_ERROR_UNSUPPORTED,
                                  "%s: tensor %s: expected only tensors of a LLaMA decoder, a CLIP encoder and a LLaVA "
                                  "projector, found this one besides",
                                  safetensors_path(all[s]->files[f]), printable_string(&text, name));
                }
            }
        }
    }
    free(sorted);
    return status;
}

/* ---- the directory ---- */

static candid_status fill_table(struct table *t, struct hf_config *c, bool own_tower) {
    TRY(add_text(t, c));
    if (c->has_vision) {
        TRY(add_encoder(t, own_tower ? &t->d->main : &t->d->vision, c));
        TRY(add_projector(t, c));
    }
    for (size_t i = 0; i < t->count; i++) { /* now that the names stay where they are */
        t->tensors[i].name = t->names[i][0];
        t->tensors[i].origin = t->names[i][1];
    }
    return refuse_unused(t, c);
}

static candid_status read_keys(const char *path, const char *vision_path, struct directory *d, struct gguf_keys *keys,
                               struct hf_config *c, bool *own_tower, const struct logger *log, candid_error *error) {
    char label[208];
    TRY(hf_read_config(path, keys, c, log, error));
    if (c->layout == HF_CLIP) {
        return fail(error, CANDID_ERROR_UNSUPPORTED,
                    "%s: expected a language model, found an image encoder: give it as the second directory (--mmproj)",
                    file_label(path, label, sizeof label));
    }
    TRY(hf_shards_open(path, &d->main, log, error));
    *own_tower = find_prefix(&d->main, vision_prefixes, COUNT(vision_prefixes), "embeddings.class_embedding") != NULL;
    if (c->has_vision && !vision_path && (!*own_tower || c->layout == HF_ORIGINAL)) {
        return fail(
            error, CANDID_ERROR_FORMAT,
            "%s: the image encoder is not described in this directory: give the directory of its CLIP model (such as "
            "clip-vit-large-patch14-336) as --mmproj",
            file_label(path, label, sizeof label));
    }
    if (vision_path && c->layout == HF_LLAVA) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "%s: the model has its own image encoder: expected no second one (--mmproj)",
                    file_label(path, label, sizeof label));
    }
    if (vision_path && !file_is_directory(vision_path)) {
        return fail(error, CANDID_ERROR_IO, "%s: expected the directory of a CLIP model, found %s",
                    file_label(vision_path, label, sizeof label), file_exists(vision_path) ? "a file" : "nothing");
    }
    if (vision_path && !c->has_vision) {
        return fail(error, CANDID_ERROR_UNSUPPORTED,
                    "%s: expected a LLaVA to go with the image encoder, found a language model without projector",
                    file_label(path, label, sizeof label));
    }
    if (vision_path && !*own_tower) {
        TRY(hf_shards_open(vision_path, &d->vision, log, error));
    }
    if (c->has_vision) {
        TRY(hf_read_vision_config(vision_path ? vision_path : path, keys, c, error));
    }
    int64_t n_rows = 0;
    TRY(vocabulary_rows(&d->main, &n_rows, error));
    return hf_read_tokenizer(path, n_rows, keys, log, error);
}

/* "…/llava-1.5-7b-hf/" -> "llava-1.5-7b-hf". */
static void set_name(const char *path, struct gguf_keys *keys) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') {
        end--;
    }
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') {
        begin--;
    }
    char name[208];
    text_print(name, sizeof name, path + begin, end - begin);
    gguf_set_string(keys, "general.name", name);
}

candid_status hf_open(const char *path, const char *vision_path, struct gguf **out, const struct logger *log,
                      candid_error *error) {
    struct directory *d = calloc(1, sizeof *d);
    if (!d) {
        return fail_memory(error, "a model directory", sizeof *d);
    }
    struct gguf_keys keys = {0};
    struct hf_config config;
    struct table table = {.d = d, .error = error};
    bool own_tower = false;
    candid_status status = read_keys(path, vision_path, d, &keys, &config, &own_tower, log, error);
    if (status == CANDID_OK) {
        set_name(path, &keys);
        status = fill_table(&table, &config, own_tower);
    }
    if (status == CANDID_OK) {
        const size_t size = d->main.total_size + d->vision.total_size;
        const struct gguf_owner owner = {d, directory_free};
        status = gguf_assemble(path, &keys, table.tensors, table.count, size, owner, out, error);
        d = NULL; /* released by the model, or by the failure */
    }
    if (d) {
        directory_free(d);
    }
    gguf_keys_free(&keys);
    table_free(&table);
    return status;
}
