/*
 * config.json of Hugging Face directories to GGUF keys. Keys that a file leaves out have the defaults of transformers'
 * configuration classes (LlamaConfig, MistralConfig), because save_pretrained leaves out what equals them.
 */
#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "model/hf_internal.h"

#define MAX_WIDTH  (1 << 22)
#define MAX_LAYERS (1 << 14)
#define MAX_TOKENS (1 << 30)

/* ---- language model ---- */

/* "rope_scaling" of old files, "rope_parameters" of new ones, which may hold rope_theta too. */
static candid_status read_rope(const struct hf_node *n, struct gguf_keys *keys) {
    double theta = 10000.0, factor = 1.0;
    TRY(json_get_float(n->j, n->object, n->path, "rope_theta", 1.0, FLT_MAX, &theta, n->error));
    static const char *const names[] = {"rope_parameters", "rope_scaling"};
    for (size_t i = 0; i < 2; i++) {
        const cJSON *rope = NULL;
        TRY(json_get_object(n->j, n->object, n->path, names[i], &rope, n->error));
        if (!rope) {
            continue;
        }
        char path[48];
        snprintf(path, sizeof path, "%s%s.", n->path, names[i]);
        const struct hf_node r = {n->j, rope, path, n->error};
        const char *key = json_find(rope, "rope_type") ? "rope_type" : "type";
        bool linear = false;
        TRY(hf_expect_string(&r, key, "default", "linear", &linear));
        TRY(json_get_float(r.j, rope, r.path, "rope_theta", 1.0, FLT_MAX, &theta, n->error));
        if (linear) {
            TRY(json_get_float(r.j, rope, r.path, "factor", 1e-6, 1e6, &factor, n->error));
        }
    }
    gguf_set_f32(keys, "llama.rope.freq_base", (float)theta);
    if (factor != 1.0) {
        gguf_set_string(keys, "llama.rope.scaling.type", "linear");
        gguf_set_f32(keys, "llama.rope.scaling.factor", (float)factor);
    }
    gguf_set_bool(keys, "candid.rope_halves", true);
    return CANDID_OK;
}

static candid_status read_text(const struct hf_node *n, struct gguf_keys *keys, struct hf_config *c,
                               const struct logger *log) {
    bool mistral = false;
    /* In the flat layout model_type says "llava"; it is LLaMA, or "llava_mistral". */
    if (c->layout == HF_ORIGINAL) {
        const char *type = "llava";
        TRY(json_get_string(n->j, n->object, n->path, "model_type", &type, n->error));
        mistral = strcmp(type, "llava_mistral") == 0;
        if (!mistral && strcmp(type, "llava") != 0 && strcmp(type, "llava_llama") != 0) {
            return hf_unsupported(n, "model_type", "\"llava\", \"llava_llama\" or \"llava_mistral\"");
        }
    } else {
        TRY(hf_expect_string(n, "model_type", "llama", "mistral", &mistral));
    }
    int64_t width = 4096, ff = mistral ? 14336 : 11008, layers = 32, heads = 32, vocab = 32000;
    int64_t context = mistral ? 4096 * 32 : 2048, window = 0;
    double eps = 1e-6;
    TRY(hf_get_int(n, "hidden_size", 1, MAX_WIDTH, &width));
    TRY(hf_get_int(n, "intermediate_size", 1, MAX_WIDTH, &ff));
    TRY(hf_get_int(n, "num_hidden_layers", 1, MAX_LAYERS, &layers));
    TRY(hf_get_int(n, "num_attention_heads", 1, 1 << 16, &heads));
    int64_t kv_heads = mistral ? 8 : heads, head_dim = width / heads;
    TRY(hf_get_int(n, "num_key_value_heads", 1, heads, &kv_heads));
    TRY(hf_get_int(n, "head_dim", 1, 1 << 16, &head_dim));
    TRY(hf_get_int(n, "vocab_size", 1, MAX_WIDTH, &vocab));
    TRY(hf_get_int(n, "max_position_embeddings", 1, MAX_TOKENS, &context));
    TRY(json_get_float(n->j, n->object, n->path, "rms_norm_eps", 0.0, 1.0, &eps, n->error));
    TRY(json_get_bool(n->j, n->object, n->path, "tie_word_embeddings", &c->tied, n->error));
    TRY(hf_expect_string(n, "hidden_act", "silu", "swish", NULL));
    TRY(hf_expect_bool(n, "attention_bias", false, false));
    TRY(hf_expect_bool(n, "mlp_bias", false, false));
    if (mistral) {
        window = cJSON_HasObjectItem(n->object, "sliding_window") ? 0 : 4096; /* null means none */
        TRY(hf_get_int(n, "sliding_window", 1, MAX_TOKENS, &window));
        if (window > 0 && window < context) { /* below its length the window changes nothing */
            log_write(log, CANDID_LOG_INFO, "%s: the context is the sliding window, %lld tokens of %lld", n->j->label,
                      (long long)window, (long long)context);
            context = window;
        }
    }
    c->text_layers = layers;
    gguf_set_string(keys, "general.architecture", "llama");
    gguf_set_u32(keys, "llama.context_length", (uint32_t)context);
    gguf_set_u32(keys, "llama.embedding_length", (uint32_t)width);
    gguf_set_u32(keys, "llama.block_count", (uint32_t)layers);
    gguf_set_u32(keys, "llama.feed_forward_length", (uint32_t)ff);
    gguf_set_u32(keys, "llama.attention.head_count", (uint32_t)heads);
    gguf_set_u32(keys, "llama.attention.head_count_kv", (uint32_t)kv_heads);
    gguf_set_u32(keys, "llama.attention.key_length", (uint32_t)head_dim);
    gguf_set_u32(keys, "llama.attention.value_length", (uint32_t)head_dim);
    gguf_set_u32(keys, "llama.rope.dimension_count", (uint32_t)head_dim);
    gguf_set_f32(keys, "llama.attention.layer_norm_rms_epsilon", (float)eps);
    gguf_set_u32(keys, "llama.vocab_size", (uint32_t)vocab);
    return read_rope(n, keys);
}

/* ---- LLaVA's connection of the two ---- */

/* One integer, or a list of one. */
static candid_status read_feature_layer(const struct hf_node *n, const char *key, struct gguf_keys *keys) {
    int64_t layer = -2;
    const cJSON *item = json_find(n->object, key);
    if (cJSON_IsArray(item)) {
        if (cJSON_GetArraySize(item) != 1 || !json_is_int(item->child, -MAX_LAYERS, MAX_LAYERS, &layer)) {
            return hf_unsupported(n, key, "one feature layer");
        }
    } else {
        TRY(hf_get_int(n, key, -MAX_LAYERS, MAX_LAYERS, &layer));
    }
    gguf_set_i32(keys, "clip.vision.feature_layer", (int32_t)layer);
    return CANDID_OK;
}

/* [[height, width], …] in pixels; the original LLaVA has [[width, height], …]. */
static candid_status read_pinpoints(const struct hf_node *n, struct gguf_keys *keys, bool width_first) {
    const char *key = "image_grid_pinpoints";
    const cJSON *list = json_find(n->object, key), *pair;
    int32_t values[2 * HF_MAX_PINPOINTS];
    size_t count = 0;
    if (!list) { /* the default of LlavaNextConfig */
        static const int32_t standard[] = {336, 672, 672, 336, 672, 672, 1008, 336, 336, 1008};
        gguf_set_i32_array(keys, "clip.vision.image_grid_pinpoints", standard, 10);
        return CANDID_OK;
    }
    cJSON_ArrayForEach(pair, list) {
        int64_t h = 0, w = 0;
        if (!cJSON_IsArray(pair) || cJSON_GetArraySize(pair) != 2 || count == 2 * HF_MAX_PINPOINTS ||
            !json_is_int(pair->child, 1, 1 << 16, &h) || !json_is_int(pair->child->next, 1, 1 << 16, &w)) {
            return hf_unsupported(n, key, "at most 64 pairs [height, width]");
        }
        values[count++] = (int32_t)(width_first ? w : h);
        values[count++] = (int32_t)(width_first ? h : w);
    }
    if (count == 0) {
        return hf_unsupported(n, key, "at least one pair [height, width]");
    }
    gguf_set_i32_array(keys, "clip.vision.image_grid_pinpoints", values, count);
    return CANDID_OK;
}

static candid_status set_next(const struct hf_node *n, struct gguf_keys *keys, struct hf_config *c) {
    c->next = true;
    gguf_set_string(keys, "clip.vision.mm_patch_merge_type", "spatial_unpad");
    gguf_set_string(keys, "clip.vision.image_aspect_ratio", "anyres");
    return read_pinpoints(n, keys, c->layout == HF_ORIGINAL);
}

static candid_status read_llava_hf(const struct hf_node *n, struct gguf_keys *keys, struct hf_config *c) {
    TRY(read_feature_layer(n, "vision_feature_layer", keys));
    TRY(hf_expect_string(n, "vision_feature_select_strategy", "default", NULL, NULL));
    TRY(hf_expect_string(n, "projector_hidden_act", "gelu", NULL, NULL));
    TRY(hf_expect_bool(n, "multimodal_projector_bias", true, true));
    gguf_set_string(keys, "clip.projector_type", "mlp");
    const char *type = "llava";
    TRY(json_get_string(n->j, n->object, n->path, "model_type", &type, n->error));
    return strcmp(type, "llava_next") == 0 ? set_next(n, keys, c) : CANDID_OK;
}

static candid_status read_llava_original(const struct hf_node *n, struct gguf_keys *keys, struct hf_config *c) {
    TRY(read_feature_layer(n, "mm_vision_select_layer", keys));
    TRY(hf_expect_string(n, "mm_vision_select_feature", "patch", NULL, NULL));
    bool linear = false;
    TRY(hf_expect_string(n, "mm_projector_type", "mlp2x_gelu", "linear", &linear));
    gguf_set_string(keys, "clip.projector_type", linear ? "linear" : "mlp");
    const char *aspect = "square";
    TRY(json_get_string(n->j, n->object, n->path, "image_aspect_ratio", &aspect, n->error));
    if (strcmp(aspect, "anyres") == 0) {
        const char *merge = "flat";
        TRY(json_get_string(n->j, n->object, n->path, "mm_patch_merge_type", &merge, n->error));
        if (strcmp(merge, "spatial_unpad") != 0) {
            return hf_unsupported(n, "mm_patch_merge_type", "\"spatial_unpad\"");
        }
        return set_next(n, keys, c);
    }
    if (strcmp(aspect, "pad") != 0 && strcmp(aspect, "square") != 0) {
        return hf_unsupported(n, "image_aspect_ratio", "\"pad\", \"square\" or \"anyres\"");
    }
    gguf_set_string(keys, "clip.vision.image_aspect_ratio", strcmp(aspect, "pad") == 0 ? "pad" : "crop");
    return CANDID_OK;
}

static candid_status read_layout(const struct hf_node *n, struct hf_config *c) {
    const char *type = NULL;
    TRY(json_get_string(n->j, n->object, n->path, "model_type", &type, n->error));
    if (!type) {
        return hf_unsupported(n, "model_type", "the model's type");
    }
    if (json_find(n->object, "quantization_config")) {
        return hf_unsupported(n, "quantization_config",
                              "weights in F32, F16 or BF16 (quantise with `candid quantize` instead)");
    }
    if (strcmp(type, "llava") == 0 || strcmp(type, "llava_next") == 0) {
        c->layout = json_find(n->object, "text_config") ? HF_LLAVA : HF_ORIGINAL;
    } else if (strcmp(type, "llava_llama") == 0 || strcmp(type, "llava_mistral") == 0) {
        c->layout = HF_ORIGINAL;
    } else if (strcmp(type, "llama") == 0 || strcmp(type, "mistral") == 0) {
        c->layout = HF_TEXT;
    } else if (strcmp(type, "clip") == 0 || strcmp(type, "clip_vision_model") == 0) {
        c->layout = HF_CLIP;
    } else {
        return hf_unsupported(n, "model_type", "llava, llava_next, llama, mistral or (for the image encoder) clip");
    }
    c->has_vision = c->layout != HF_TEXT;
    return CANDID_OK;
}

candid_status hf_parse_config(const struct json *j, struct gguf_keys *keys, struct hf_config *c,
                              const struct logger *log, candid_error *error) {
    *c = (struct hf_config){0};
    const struct hf_node top = {j, j->root, "", error};
    TRY(read_layout(&top, c));
    switch (c->layout) {
    case HF_CLIP: return CANDID_OK;
    case HF_TEXT: return read_text(&top, keys, c, log);
    case HF_ORIGINAL: TRY(read_text(&top, keys, c, log)); return read_llava_original(&top, keys, c);
    case HF_LLAVA: break;
    }
    struct hf_node text = {j, NULL, "text_config.", error};
    TRY(json_get_object(j, top.object, "", "text_config", &text.object, error));
    TRY(json_get_bool(j, top.object, "", "tie_word_embeddings", &c->tied, error));
    TRY(read_text(&text, keys, c, log));
    return read_llava_hf(&top, keys, c);
}

candid_status hf_read_config(const char *directory, struct gguf_keys *keys, struct hf_config *out,
                             const struct logger *log, candid_error *error) {
    char *path = NULL;
    TRY(file_join(directory, "config.json", &path, error));
    struct json j;
    candid_status status = json_read(path, HF_MAX_JSON, &j, error);
    free(path);
    TRY(status);
    status = hf_parse_config(&j, keys, out, log, error);
    json_free(&j);
    return status;
}
