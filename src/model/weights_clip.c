/* The image encoder's and projector's weights: LLaVA's mmproj files in their legacy and current conventions. */
#include <float.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "model/weights_internal.h"

#define MAX_IMAGE  (1 << 14)
#define MAX_WIDTH  (1 << 22)
#define MAX_LAYERS (1 << 10)
#define MAX_EPS    1.0f

#define MAX_PINPOINTS 64

/* Width and depth of ViT-L/14, LLaVA-1.5's image encoder. */
#define VIT_L_WIDTH  1024
#define VIT_L_LAYERS 24

static const float clip_mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
static const float clip_std[3] = {0.26862954f, 0.26130258f, 0.27577711f};

bool clip_weights_present(const struct gguf *gguf) {
    bool has_encoder = false;
    return gguf_find_tensor(gguf, "v.patch_embd.weight") != NULL ||
           (gguf_get_bool(gguf, "clip.has_vision_encoder", &has_encoder, NULL) == CANDID_OK && has_encoder);
}

/* ---- hyperparameters ---- */

/* Three finite numbers from `min`; absent: `values` keeps its default. */
static candid_status read_rgb(const struct loader *l, const char *key, float min, float values[3]) {
    const struct gguf *g = l->gguf;
    if (!gguf_has_key(g, key)) {
        return CANDID_OK;
    }
    enum gguf_value_type element = GGUF_F32;
    size_t count = 0;
    TRY(gguf_get_array(g, key, &element, &count, l->error));
    if (count != 3 || (element != GGUF_F32 && element != GGUF_F64)) {
        return fail(l->error, CANDID_ERROR_FORMAT, "%s: key %s: expected an array of 3 floats, found %zu %s",
                    gguf_path(g), key, count, element == GGUF_F32 || element == GGUF_F64 ? "floats" : "other values");
    }
    for (size_t i = 0; i < 3; i++) {
        values[i] = gguf_array_f32(g, key, i);
        if (!(values[i] >= min && values[i] <= 1e3f)) {
            return fail(l->error, CANDID_ERROR_FORMAT, "%s: key %s: expected numbers from %g to 1000, found %g",
                        gguf_path(g), key, (double)min, (double)values[i]);
        }
    }
    return CANDID_OK;
}

static candid_status read_activation(const struct loader *l, enum activation *out) {
    bool gelu = false, silu = false;
    TRY(gguf_get_bool(l->gguf, "clip.use_gelu", &gelu, l->error));
    TRY(gguf_get_bool(l->gguf, "clip.use_silu", &silu, l->error));
    if (gelu && silu) {
        return fail(l->error, CANDID_ERROR_FORMAT,
                    "%s: keys clip.use_gelu and clip.use_silu: expected one activation, found both true",
                    gguf_path(l->gguf));
    }
    *out = gelu ? ACTIVATION_GELU_ERF : silu ? ACTIVATION_SILU : ACTIVATION_GELU_QUICK;
    return CANDID_OK;
}

/* ---- LLaVA-NeXT ---- */

static const char *newline_name(const struct gguf *g) {
    static const char *const names[] = {"v.image_newline", "model.image_newline"};
    return gguf_find_tensor(g, names[0]) ? names[0] : gguf_find_tensor(g, names[1]) ? names[1] : NULL;
}

static candid_status read_pinpoints(const struct loader *l, struct clip_weights *w) {
    static const char key[] = "clip.vision.image_grid_pinpoints";
    const struct gguf *g = l->gguf;
    enum gguf_value_type element = GGUF_I32;
    size_t count = 0;
    TRY(gguf_get_array(g, key, &element, &count, l->error));
    const bool integers = element != GGUF_STRING && element != GGUF_F32 && element != GGUF_F64 && element != GGUF_BOOL;
    if (count == 0 || count % 2 != 0 || count > 2 * MAX_PINPOINTS || !integers) {
        return fail(l->error, CANDID_ERROR_FORMAT,
                    "%s: key %s: expected 1 to %d pairs of integers (height, width), found %zu %s", gguf_path(g), key,
                    MAX_PINPOINTS, count, integers ? "integers" : "other values");
    }
    w->pinpoints = calloc(count / 2, sizeof *w->pinpoints);
    if (!w->pinpoints) {
        return fail_memory(l->error, "the resolutions of an image encoder", count / 2 * sizeof *w->pinpoints);
    }
    w->n_pinpoints = (int)(count / 2);
    for (size_t i = 0; i < count; i++) {
        const int64_t value = gguf_array_i64(g, key, i);
        if (value < w->image_size || value > MAX_IMAGE || value % w->image_size != 0) {
            return fail(l->error, CANDID_ERROR_UNSUPPORTED,
                        "%s: key %s: expected multiples of the image size %d up to %d, found %" PRId64, gguf_path(g),
                        key, w->image_size, MAX_IMAGE, value);
        }
        w->pinpoints[i / 2][i % 2] = (int)value;
    }
    return CANDID_OK;
}

static candid_status read_views(struct loader *l, struct clip_weights *w, int n_embd_lm) {
    const char *merge = "", *aspect = "pad", *newline = newline_name(l->gguf);
    TRY(gguf_get_string(l->gguf, "clip.vision.mm_patch_merge_type", &merge, l->error));
    TRY(gguf_get_string(l->gguf, "clip.vision.image_aspect_ratio", &aspect, l->error));
    if (strcmp(merge, "spatial_unpad") == 0 || newline) {
        w->preprocess = CANDID_PREPROCESS_ANYRES;
        TRY(read_pinpoints(l, w));
        return loader_vector(l, newline ? newline : "v.image_newline", n_embd_lm, &w->image_newline);
    }
    w->preprocess = strcmp(aspect, "crop") == 0 ? CANDID_PREPROCESS_CROP : CANDID_PREPROCESS_PAD;
    return CANDID_OK;
}

static candid_status read_hyperparameters(const struct loader *l, struct clip_weights *w) {
    TRY(loader_architecture(l, "clip", "llama"));
    if (!clip_weights_present(l->gguf)) {
        return fail(l->error, CANDID_ERROR_FORMAT,
                    "%s: tensor v.patch_embd.weight: expected an image encoder, found none in this file",
                    gguf_path(l->gguf));
    }
    TRY(loader_int(l, "clip.vision.image_size", MAX_IMAGE, &w->image_size));
    TRY(loader_int(l, "clip.vision.patch_size", w->image_size, &w->patch_size));
    if (w->image_size % w->patch_size != 0) {
        return fail(l->error, CANDID_ERROR_UNSUPPORTED,
                    "%s: key clip.vision.image_size: expected a multiple of the patch size %d, found %d",
                    gguf_path(l->gguf), w->patch_size, w->image_size);
    }
    w->grid = w->image_size / w->patch_size;
    TRY(loader_int(l, "clip.vision.embedding_length", MAX_WIDTH, &w->n_embd));
    TRY(loader_int(l, "clip.vision.feed_forward_length", MAX_WIDTH, &w->n_ff));
    TRY(loader_int(l, "clip.vision.attention.head_count", w->n_embd, &w->n_head));
    if (w->n_embd % w->n_head != 0) {
        return fail(l->error, CANDID_ERROR_FORMAT,
                    "%s: key clip.vision.attention.head_count: expected a divisor of the embedding length %d, found %d",
                    gguf_path(l->gguf), w->n_embd, w->n_head);
    }
    w->head_dim = w->n_embd / w->n_head;
    TRY(loader_float(l, "clip.vision.attention.layer_norm_epsilon", 0.0f, MAX_EPS, true, &w->eps));
    TRY(read_activation(l, &w->activation));
    memcpy(w->mean, clip_mean, sizeof clip_mean);
    memcpy(w->std, clip_std, sizeof clip_std);
    TRY(read_rgb(l, "clip.vision.image_mean", -1e3f, w->mean));
    return read_rgb(l, "clip.vision.image_std", 1e-6f, w->std); /* divisors */
}

/* ---- depth ---- */

/* One more than the largest N of the tensors v.blk.N.*. */
static int64_t stored_layers(const struct gguf *g) {
    int64_t n = 0;
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const char *name = gguf_tensor_at(g, i)->name;
        if (strncmp(name, "v.blk.", 6) == 0) {
            int64_t layer = 0;
            for (const char *p = name + 6; *p >= '0' && *p <= '9' && layer < INT32_MAX; p++) {
                layer = layer * 10 + (*p - '0');
            }
            n = layer + 1 > n ? layer + 1 : n;
        }
    }
    return n;
}

/* *out is set and *present true when the file names the one hidden state that makes the features. */
static candid_status read_feature_layer(const struct loader *l, int n_layer, bool *present, int64_t *out) {
    static const char key[] = "clip.vision.feature_layer";
    const struct gguf *g = l->gguf;
    *present = gguf_has_key(g, key);
    if (!*present) {
        return CANDID_OK;
    }
    enum gguf_value_type element = GGUF_I32;
    size_t count = 1;
    if (gguf_get_array(g, key, &element, &count, NULL) != CANDID_OK) { /* a single integer */
        return gguf_get_i64(g, key, -n_layer - 1, n_layer, out, l->error);
    }
    if (element == GGUF_STRING || element == GGUF_F32 || element == GGUF_F64 || element == GGUF_BOOL || count == 0) {
        return fail(l->error, CANDID_ERROR_FORMAT, "%s: key %s: expected one integer, found %zu of %s", gguf_path(g),
                    key, count, count == 0 ? "them" : "another type");
    }
    if (count > 1) {
        return fail(l->error, CANDID_ERROR_UNSUPPORTED, "%s: key %s: expected one feature layer, found %zu",
                    gguf_path(g), key, count);
    }
    *out = gguf_array_i64(g, key, 0);
    if (*out < -n_layer - 1 || *out > n_layer) {
        return fail(l->error, CANDID_ERROR_FORMAT, "%s: key %s: expected an integer from %d to %d, found %" PRId64,
                    gguf_path(g), key, -n_layer - 1, n_layer, *out);
    }
    return CANDID_OK;
}

/* The rule in weights.h. */
static candid_status read_depth(const struct loader *l, struct clip_weights *w, const struct logger *log) {
    TRY(loader_int(l, "clip.vision.block_count", MAX_LAYERS, &w->n_layer));
    const int64_t stored = stored_layers(l->gguf);
    if (stored != w->n_layer) {
        return fail(l->error, CANDID_ERROR_FORMAT,
                    "%s: key clip.vision.block_count: expected the %" PRId64 " layers the file stores (v.blk.*), "
                    "found %d",
                    gguf_path(l->gguf), stored, w->n_layer);
    }
    bool present = false;
    int64_t feature = 0;
    TRY(read_feature_layer(l, w->n_layer, &present, &feature));
    w->n_run = w->n_layer;
    if (present) {
        w->n_run = (int)(feature < 0 ? w->n_layer + 1 + feature : feature);
    } else if (w->n_layer == VIT_L_LAYERS && w->n_embd == VIT_L_WIDTH) {
        w->n_run = VIT_L_LAYERS - 1;
        log_write(log, CANDID_LOG_WARN,
                  "%s: the file stores all %d layers of ViT-L/14 and no key clip.vision.feature_layer: running %d as "
                  "LLaVA does",
                  gguf_path(l->gguf), w->n_layer, w->n_run);
    }
    return CANDID_OK;
}

/* ---- tensors ---- */

/* prefix.weight (n_out, n_in) and prefix.bias (n_out). */
static candid_status read_linear(struct loader *l, const char *prefix, int n_in, int n_out, struct matrix *weight,
                                 const float **bias) {
    char name[TENSOR_NAME];
    TRY(loader_matrix(l, tensor_name(name, "%s.weight", prefix), n_in, n_out, weight));
    return loader_vector(l, tensor_name(name, "%s.bias", prefix), weight->n_out, bias);
}

static candid_status read_norm(struct loader *l, const char *prefix, int n, const float **weight, const float **bias) {
    char name[TENSOR_NAME];
    TRY(loader_vector(l, tensor_name(name, "%s.weight", prefix), n, weight));
    return loader_vector(l, tensor_name(name, "%s.bias", prefix), n, bias);
}

static candid_status read_embeddings(struct loader *l, struct clip_weights *w) {
    const struct tensor *patch = NULL;
    TRY(loader_tensor(l, "v.patch_embd.weight", &patch));
    TRY(loader_check_shape(l, patch, 4, (const int64_t[]){w->patch_size, w->patch_size, 3, w->n_embd}));
    if (patch->type != TYPE_F32 && patch->type != TYPE_F16 && patch->type != TYPE_BF16) {
        return fail(l->error, CANDID_ERROR_UNSUPPORTED, "%s: tensor %s: expected type F32, F16 or BF16, found %s",
                    gguf_path(l->gguf), loader_tensor_label(patch), quant_type_name(patch->type));
    }
    /* A convolution with stride = kernel size is a product with the flattened patch. */
    if ((int64_t)w->patch_size * w->patch_size * 3 > MAX_WIDTH) {
        return fail(l->error, CANDID_ERROR_UNSUPPORTED,
                    "%s: key clip.vision.patch_size: expected patches of at most %d values, found %d pixels a side",
                    gguf_path(l->gguf), MAX_WIDTH, w->patch_size);
    }
    w->patch_embd = (struct matrix){
        .type = patch->type, .n_out = w->n_embd, .n_in = 3 * w->patch_size * w->patch_size, .data = patch->data};
    if (gguf_find_tensor(l->gguf, "v.patch_embd.bias")) {
        TRY(loader_vector(l, "v.patch_embd.bias", w->n_embd, &w->patch_bias));
    }
    TRY(loader_vector(l, "v.class_embd", w->n_embd, &w->class_embd));
    const int64_t rows = (int64_t)w->grid * w->grid + 1;
    TRY(loader_floats(l, "v.position_embd.weight", 2, (const int64_t[]){w->n_embd, rows}, &w->position_embd));
    return read_norm(l, "v.pre_ln", w->n_embd, &w->pre_ln_w, &w->pre_ln_b);
}

/* Whether fc1 is the matrix called ffn_down, as the legacy converter has it: see weights.h. */
static candid_status fc1_is_ffn_down(struct loader *l, int i, const struct clip_weights *w, bool *out) {
    char name[TENSOR_NAME];
    const struct tensor *down = NULL;
    TRY(loader_tensor(l, tensor_name(name, "v.blk.%d.ffn_down.weight", i), &down));
    *out = w->n_ff == w->n_embd ? gguf_has_key(l->gguf, "clip.has_llava_projector") &&
                                      !gguf_has_key(l->gguf, "clip.vision.feature_layer")
                                : down->ne[0] == w->n_embd;
    return CANDID_OK;
}

static candid_status read_layer(struct loader *l, int i, const struct clip_weights *w, struct clip_layer *layer) {
    const int d = w->n_embd;
    char prefix[TENSOR_NAME];
#define PREFIX(suffix) tensor_name(prefix, "v.blk.%d.%s", i, suffix)
    TRY(read_norm(l, PREFIX("ln1"), d, &layer->ln1_w, &layer->ln1_b));
    TRY(read_linear(l, PREFIX("attn_q"), d, d, &layer->q, &layer->q_b));
    TRY(read_linear(l, PREFIX("attn_k"), d, d, &layer->k, &layer->k_b));
    TRY(read_linear(l, PREFIX("attn_v"), d, d, &layer->v, &layer->v_b));
    TRY(read_linear(l, PREFIX("attn_out"), d, d, &layer->out, &layer->out_b));
    TRY(read_norm(l, PREFIX("ln2"), d, &layer->ln2_w, &layer->ln2_b));
    bool legacy = false;
    TRY(fc1_is_ffn_down(l, i, w, &legacy));
    TRY(read_linear(l, PREFIX(legacy ? "ffn_down" : "ffn_up"), d, w->n_ff, &layer->fc1, &layer->fc1_b));
    TRY(read_linear(l, PREFIX(legacy ? "ffn_up" : "ffn_down"), w->n_ff, d, &layer->fc2, &layer->fc2_b));
#undef PREFIX
    return CANDID_OK;
}

/* ---- projector ---- */

static candid_status read_projector_type(const struct loader *l, enum projector_type *out, const struct logger *log) {
    const struct gguf *g = l->gguf;
    const char *key = gguf_has_key(g, "clip.projector_type") ? "clip.projector_type" : "clip.vision.projector_type";
    const char *type = "mlp"; /* the oldest files do not say */
    TRY(gguf_get_string(g, key, &type, l->error));
    const bool has_2 = gguf_find_tensor(g, "mm.2.weight"), has_3 = gguf_find_tensor(g, "mm.3.weight");
    const bool linear = strcmp(type, "linear") == 0;
    if (strcmp(type, "mlp") != 0 && strcmp(type, "mlp_norm") != 0 && !linear) {
        char found[FOUND_TEXT];
        return fail(l->error, CANDID_ERROR_UNSUPPORTED,
                    "%s: key %s: expected \"mlp\", \"mlp_norm\" or \"linear\", found %s", gguf_path(g), key,
                    loader_found(l, key, found));
    }
    if (has_3) {
        *out = PROJECTOR_MLP_NORM;
    } else if (has_2) {
        *out = PROJECTOR_MLP;
    } else {
        *out = PROJECTOR_LINEAR;
    }
    if (linear && *out != PROJECTOR_LINEAR) {
        return fail(l->error, CANDID_ERROR_FORMAT,
                    "%s: key %s: expected mm.0 alone in a \"linear\" projector, found %s", gguf_path(g), key,
                    has_3 ? "mm.3.weight" : "mm.2.weight");
    }
    if (*out != PROJECTOR_MLP_NORM && strcmp(type, "mlp_norm") == 0) {
        return fail(l->error, CANDID_ERROR_FORMAT,
                    "%s: tensor mm.3.weight: expected it in a projector of type "
                    "\"mlp_norm\" (key %s), found none of this name",
                    gguf_path(g), key);
    }
    if (*out == PROJECTOR_LINEAR && !linear) {
        log_write(log, CANDID_LOG_WARN, "%s: neither mm.2.weight nor mm.3.weight: the projector is one linear layer",
                  gguf_path(g));
    }
    return CANDID_OK;
}

static candid_status read_projector(struct loader *l, struct clip_weights *w, int n_embd_lm, const struct logger *log) {
    TRY(read_projector_type(l, &w->projector, log));
    switch (w->projector) {
    case PROJECTOR_LINEAR: return read_linear(l, "mm.0", w->n_embd, n_embd_lm, &w->mm_0, &w->mm_0_b);
    case PROJECTOR_MLP:
        TRY(read_linear(l, "mm.0", w->n_embd, 0, &w->mm_0, &w->mm_0_b));
        return read_linear(l, "mm.2", w->mm_0.n_out, n_embd_lm, &w->mm_2, &w->mm_2_b);
    case PROJECTOR_MLP_NORM: break;
    }
    TRY(read_linear(l, "mm.0", w->n_embd, 0, &w->mm_0, &w->mm_0_b));
    TRY(read_norm(l, "mm.1", w->mm_0.n_out, &w->mm_ln1_w, &w->mm_ln1_b));
    TRY(read_linear(l, "mm.3", w->mm_0.n_out, n_embd_lm, &w->mm_2, &w->mm_2_b));
    return read_norm(l, "mm.4", n_embd_lm, &w->mm_ln4_w, &w->mm_ln4_b);
}

/* LLaVA takes its features before the last norm. */
static bool harmless(const char *name) {
    return strncmp(name, "v.post_ln.", 10) == 0;
}

static const char *const network_prefixes[] = {"v.", "mm."};

static candid_status load(struct loader *l, int n_embd_lm, struct clip_weights *w, const struct logger *log) {
    TRY(read_hyperparameters(l, w));
    TRY(read_depth(l, w, log));
    TRY(read_embeddings(l, w));
    w->layers = calloc((size_t)w->n_layer, sizeof *w->layers);
    if (!w->layers) {
        return fail_memory(l->error, "the layer table", (size_t)w->n_layer * sizeof *w->layers);
    }
    for (int i = 0; i < w->n_layer; i++) {
        TRY(read_layer(l, i, w, &w->layers[i]));
    }
    TRY(read_projector(l, w, n_embd_lm, log));
    TRY(read_views(l, w, n_embd_lm));
    return loader_refuse_unused(l, network_prefixes, sizeof network_prefixes / sizeof *network_prefixes, harmless,
                                "a CLIP encoder and a LLaVA projector");
}

candid_status clip_weights_load(const struct gguf *gguf, int n_embd_lm, struct clip_weights *out,
                                const struct logger *log, candid_error *error) {
    *out = (struct clip_weights){0};
    if (n_embd_lm < 1) {
        return fail(error, CANDID_ERROR_ARGUMENT, "expected a positive width of the language model, found %d",
                    n_embd_lm);
    }
    struct loader l;
    TRY(loader_init(&l, gguf, &out->owned, error));
    const candid_status status = load(&l, n_embd_lm, out, log);
    loader_finish(&l);
    if (status != CANDID_OK) {
        clip_weights_free(out);
    }
    return status;
}

void clip_weights_free(struct clip_weights *w) {
    if (!w) {
        return;
    }
    free(w->layers);
    free(w->pinpoints);
    owned_vectors_free(&w->owned);
    *w = (struct clip_weights){0};
}
