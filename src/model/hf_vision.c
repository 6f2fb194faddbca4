/*
 * vision_config and preprocessor_config.json of Hugging Face directories to GGUF keys, with the defaults of
 * transformers' CLIPVisionConfig and CLIPImageProcessor; and the helpers both config readers share.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "model/hf_internal.h"

#define MAX_IMAGE (1 << 14)
#define MAX_WIDTH (1 << 22)

candid_status hf_get_int(const struct hf_node *n, const char *key, int64_t min, int64_t max, int64_t *out) {
    return json_get_int(n->j, n->object, n->path, key, min, max, out, n->error);
}

candid_status hf_unsupported(const struct hf_node *n, const char *key, const char *expected) {
    char found[JSON_FOUND];
    return fail(n->error, CANDID_ERROR_UNSUPPORTED, "%s: key %s%s: expected %s, found %s", n->j->label, n->path, key,
                expected, json_found(json_find(n->object, key), found));
}

candid_status hf_expect_string(const struct hf_node *n, const char *key, const char *first, const char *other,
                               bool *second) {
    const char *value = first;
    TRY(json_get_string(n->j, n->object, n->path, key, &value, n->error));
    const bool is_other = other && strcmp(value, other) == 0;
    if (!is_other && strcmp(value, first) != 0) {
        char expected[96];
        strcpy(expected, "\"");
        strcat(expected, first);
        strcat(expected, other ? "\" or \"" : "");
        strcat(expected, other ? other : "");
        strcat(expected, "\"");
        return hf_unsupported(n, key, expected);
    }
    if (second) {
        *second = is_other;
    }
    return CANDID_OK;
}

candid_status hf_expect_bool(const struct hf_node *n, const char *key, bool wanted, bool absent) {
    bool value = absent;
    TRY(json_get_bool(n->j, n->object, n->path, key, &value, n->error));
    return value == wanted ? CANDID_OK : hf_unsupported(n, key, wanted ? "true" : "false");
}

/* ---- encoder ---- */

static candid_status read_encoder(const struct hf_node *n, struct gguf_keys *keys, struct hf_config *c,
                                  int64_t *image_size) {
    int64_t width = 768, ff = 3072, layers = 12, heads = 12, image = 224, patch = 32;
    double eps = 1e-5;
    bool gelu = false;
    TRY(hf_expect_string(n, "model_type", "clip_vision_model", NULL, NULL));
    TRY(hf_get_int(n, "hidden_size", 1, MAX_WIDTH, &width));
    TRY(hf_get_int(n, "intermediate_size", 1, MAX_WIDTH, &ff));
    TRY(hf_get_int(n, "num_hidden_layers", 1, 1 << 10, &layers));
    TRY(hf_get_int(n, "num_attention_heads", 1, width, &heads));
    TRY(hf_get_int(n, "image_size", 1, MAX_IMAGE, &image));
    TRY(hf_get_int(n, "patch_size", 1, image, &patch));
    TRY(json_get_float(n->j, n->object, n->path, "layer_norm_eps", 0.0, 1.0, &eps, n->error));
    TRY(hf_expect_string(n, "hidden_act", "quick_gelu", "gelu", &gelu));
    c->vision_layers = layers;
    *image_size = image;
    gguf_set_bool(keys, "clip.has_vision_encoder", true);
    gguf_set_bool(keys, "clip.has_text_encoder", false);
    gguf_set_bool(keys, "clip.has_llava_projector", true);
    gguf_set_bool(keys, "clip.use_gelu", gelu);
    gguf_set_u32(keys, "clip.vision.image_size", (uint32_t)image);
    gguf_set_u32(keys, "clip.vision.patch_size", (uint32_t)patch);
    gguf_set_u32(keys, "clip.vision.embedding_length", (uint32_t)width);
    gguf_set_u32(keys, "clip.vision.feed_forward_length", (uint32_t)ff);
    gguf_set_u32(keys, "clip.vision.attention.head_count", (uint32_t)heads);
    gguf_set_u32(keys, "clip.vision.block_count", (uint32_t)layers);
    gguf_set_f32(keys, "clip.vision.attention.layer_norm_epsilon", (float)eps);
    return CANDID_OK;
}

/* ---- preprocessing ---- */

static candid_status read_rgb(const struct hf_node *n, const char *key, const char *target, struct gguf_keys *keys) {
    const cJSON *list = json_find(n->object, key), *item;
    if (!list) {
        return CANDID_OK; /* CLIP's own, the loader's default */
    }
    float values[3];
    size_t count = 0;
    cJSON_ArrayForEach(item, list) {
        if (!cJSON_IsNumber(item) || count == 3) {
            return hf_unsupported(n, key, "three numbers");
        }
        values[count++] = (float)item->valuedouble;
    }
    if (count != 3) {
        return hf_unsupported(n, key, "three numbers");
    }
    gguf_set_f32_array(keys, target, values, 3);
    return CANDID_OK;
}

/* "size" or "crop_size": an integer, {"shortest_edge": n} or {"height": n, "width": n}; must be the encoder's size. */
static candid_status expect_size(const struct hf_node *n, const char *key, int64_t wanted) {
    const cJSON *item = json_find(n->object, key);
    int64_t size = wanted;
    if (item && !cJSON_IsObject(item)) {
        TRY(hf_get_int(n, key, 1, MAX_IMAGE, &size));
        return size == wanted ? CANDID_OK : hf_unsupported(n, key, "the image size of the encoder");
    }
    static const char *const names[] = {"shortest_edge", "height", "width"};
    for (size_t i = 0; i < 3; i++) {
        TRY(json_get_int(n->j, item, key, names[i], 1, MAX_IMAGE, &size, n->error));
        if (size != wanted) {
            return hf_unsupported(n, key, "the image size of the encoder");
        }
    }
    return CANDID_OK;
}

/* The one pipeline we compute: RGB, bicubic to the encoder's size, 1/255, mean and deviation. */
candid_status hf_parse_preprocessor(const struct hf_node *n, int64_t image_size, bool square_decided,
                                    struct gguf_keys *keys) {
    int64_t resample = 3;
    double factor = 1.0 / 255.0;
    TRY(hf_expect_bool(n, "do_resize", true, true));
    TRY(hf_expect_bool(n, "do_rescale", true, true));
    TRY(hf_expect_bool(n, "do_normalize", true, true));
    TRY(hf_get_int(n, "resample", 0, 5, &resample));
    if (resample != 3) {
        return hf_unsupported(n, "resample", "3 (bicubic)");
    }
    TRY(json_get_float(n->j, n->object, n->path, "rescale_factor", 0.0, 1.0, &factor, n->error));
    if (fabs(factor * 255.0 - 1.0) > 1e-6) {
        return hf_unsupported(n, "rescale_factor", "1/255");
    }
    TRY(expect_size(n, "size", image_size));
    TRY(expect_size(n, "crop_size", image_size));
    TRY(read_rgb(n, "image_mean", "clip.vision.image_mean", keys));
    TRY(read_rgb(n, "image_std", "clip.vision.image_std", keys));
    if (square_decided) {
        return CANDID_OK;
    }
    bool pad = false, crop = true;
    TRY(json_get_bool(n->j, n->object, n->path, "do_pad", &pad, n->error));
    TRY(json_get_bool(n->j, n->object, n->path, "do_center_crop", &crop, n->error));
    if (!pad && !crop) {
        return hf_unsupported(n, "do_center_crop", "true (or do_pad: true)");
    }
    gguf_set_string(keys, "clip.vision.image_aspect_ratio", pad ? "pad" : "crop");
    return CANDID_OK;
}

static candid_status read_preprocessor_file(const char *directory, int64_t image_size, const struct hf_config *c,
                                            struct gguf_keys *keys, candid_error *error) {
    char *path = NULL;
    TRY(file_join(directory, "preprocessor_config.json", &path, error));
    if (!file_exists(path)) {
        free(path);
        return CANDID_OK; /* the defaults of CLIPImageProcessor, which are the loader's */
    }
    struct json j;
    candid_status status = json_read(path, HF_MAX_JSON, &j, error);
    free(path);
    TRY(status);
    /* The original LLaVA says in config.json how it makes squares, whatever CLIP's own file says. */
    const bool square_decided = c->next || c->layout == HF_ORIGINAL;
    status = hf_parse_preprocessor(&(struct hf_node){&j, j.root, "", error}, image_size, square_decided, keys);
    json_free(&j);
    return status;
}

candid_status hf_parse_vision_config(const struct json *j, struct gguf_keys *keys, struct hf_config *config,
                                     int64_t *image_size, candid_error *error) {
    struct hf_node n = {j, j->root, "", error};
    const char *type = "";
    TRY(json_get_string(j, j->root, "", "model_type", &type, error));
    if (strcmp(type, "clip_vision_model") != 0) { /* a LLaVA or a whole CLIP */
        n = (struct hf_node){j, NULL, "vision_config.", error};
        TRY(json_get_object(j, j->root, "", "vision_config", &n.object, error));
    }
    if (!n.object) {
        return fail(error, CANDID_ERROR_UNSUPPORTED, "%s: key vision_config: expected an image encoder, found none",
                    j->label);
    }
    return read_encoder(&n, keys, config, image_size);
}

candid_status hf_read_vision_config(const char *directory, struct gguf_keys *keys, struct hf_config *config,
                                    candid_error *error) {
    char *path = NULL;
    TRY(file_join(directory, "config.json", &path, error));
    struct json j;
    candid_status status = json_read(path, HF_MAX_JSON, &j, error);
    free(path);
    TRY(status);
    int64_t image_size = 0;
    status = hf_parse_vision_config(&j, keys, config, &image_size, error);
    json_free(&j);
    return status == CANDID_OK ? read_preprocessor_file(directory, image_size, config, keys, error) : status;
}
