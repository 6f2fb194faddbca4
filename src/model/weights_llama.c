/* The language model's weights: LLaMA as GGUF files store it. */
#include <float.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "model/weights_internal.h"

/* Far above any model, low enough that products of two stay inside int64 and of heads inside int. */
#define MAX_WIDTH  (1 << 22)
#define MAX_HEADS  (1 << 16)
#define MAX_LAYERS (1 << 14)
/* Epsilons and scales outside of these bounds are damage, not taste. */
#define MAX_EPS        1.0f
#define MIN_ROPE_BASE  1.0f
#define MAX_ROPE_SCALE 1e6f

/* ---- hyperparameters ---- */

/* An integer, or an array (one entry per layer) of equal integers. Absent: *out is left alone. */
static candid_status per_layer_int(const struct loader *l, const char *key, int max, int n_layer, int *out) {
    const struct gguf *g = l->gguf;
    enum gguf_value_type element = GGUF_U32;
    size_t count = 0;
    if (!gguf_has_key(g, key)) {
        return CANDID_OK;
    }
    if (gguf_get_array(g, key, &element, &count, NULL) != CANDID_OK) { /* not an array */
        return loader_int(l, key, max, out);
    }
    const bool integers = element != GGUF_STRING && element != GGUF_F32 && element != GGUF_F64 && element != GGUF_BOOL;
    if (!integers || count != (size_t)n_layer) {
        return fail(l->error, CANDID_ERROR_FORMAT, "%s: key %s: expected an integer or %d of them, found %zu of %s",
                    gguf_path(g), key, n_layer, count, integers ? "integer type" : "another type");
    }
    const int64_t first = gguf_array_i64(g, key, 0);
    if (first < 1 || first > max) {
        return fail(l->error, CANDID_ERROR_FORMAT, "%s: key %s: expected integers from 1 to %d, found %" PRId64,
                    gguf_path(g), key, max, first);
    }
    for (size_t i = 1; i < count; i++) {
        const int64_t value = gguf_array_i64(g, key, i);
        if (value != first) {
            return fail(l->error, CANDID_ERROR_UNSUPPORTED,
                        "%s: key %s: expected the same number in all layers, found %" PRId64 " and %" PRId64,
                        gguf_path(g), key, first, value);
        }
    }
    *out = (int)first;
    return CANDID_OK;
}

static candid_status read_heads(const struct loader *l, struct llama_weights *w) {
    const struct gguf *g = l->gguf;
    if (!gguf_has_key(g, "llama.attention.head_count")) {
        return loader_int(l, "llama.attention.head_count", MAX_HEADS, &w->n_head); /* for its message */
    }
    TRY(per_layer_int(l, "llama.attention.head_count", MAX_HEADS, w->n_layer, &w->n_head));
    w->n_head_kv = w->n_head;
    TRY(per_layer_int(l, "llama.attention.head_count_kv", MAX_HEADS, w->n_layer, &w->n_head_kv));
    if (w->n_head % w->n_head_kv != 0) {
        return fail(l->error, CANDID_ERROR_FORMAT,
                    "%s: key llama.attention.head_count_kv: expected a divisor of the %d heads, found %d", gguf_path(g),
                    w->n_head, w->n_head_kv);
    }
    int64_t key_length = 0;
    TRY(gguf_get_i64(g, "llama.attention.key_length", 1, MAX_HEADS, &key_length, l->error));
    if (key_length == 0) {
        if (w->n_embd % w->n_head != 0) {
            return fail(l->error, CANDID_ERROR_FORMAT,
                        "%s: key llama.attention.head_count: expected a divisor of the embedding length %d, found %d",
                        gguf_path(g), w->n_embd, w->n_head);
        }
        key_length = w->n_embd / w->n_head;
    }
    if (key_length * w->n_head > MAX_WIDTH) {
        return fail(l->error, CANDID_ERROR_UNSUPPORTED,
                    "%s: key llama.attention.key_length: expected at most %d values in all %d heads, found %" PRId64
                    " in each",
                    gguf_path(g), MAX_WIDTH, w->n_head, key_length);
    }
    w->head_dim = (int)key_length;
    int64_t value_length = key_length;
    TRY(gguf_get_i64(g, "llama.attention.value_length", 1, MAX_HEADS, &value_length, l->error));
    if (value_length != key_length) {
        return fail(l->error, CANDID_ERROR_UNSUPPORTED,
                    "%s: key llama.attention.value_length: expected the key length %" PRId64 ", found %" PRId64,
                    gguf_path(g), key_length, value_length);
    }
    return CANDID_OK;
}

/* Positions are multiplied by 1/factor. As in llama.cpp a factor without a type means "linear", and 0 means none. */
static candid_status read_rope_scaling(const struct loader *l, float *position_scale) {
    const char *type = "linear";
    float factor = 0;
    TRY(gguf_get_string(l->gguf, "llama.rope.scaling.type", &type, l->error));
    const bool none = strcmp(type, "none") == 0;
    if (!none && strcmp(type, "linear") != 0) {
        char found[FOUND_TEXT];
        return fail(l->error, CANDID_ERROR_UNSUPPORTED,
                    "%s: key llama.rope.scaling.type: expected \"none\" or \"linear\", found %s", gguf_path(l->gguf),
                    loader_found(l, "llama.rope.scaling.type", found));
    }
    const char *key =
        gguf_has_key(l->gguf, "llama.rope.scaling.factor") ? "llama.rope.scaling.factor" : "llama.rope.scale_linear";
    TRY(loader_float(l, key, 0.0f, MAX_ROPE_SCALE, false, &factor));
    if (factor > 0 && factor < 1 / MAX_ROPE_SCALE) {
        return fail(l->error, CANDID_ERROR_FORMAT, "%s: key %s: expected 0 or a number from %g to %g, found %g",
                    gguf_path(l->gguf), key, 1 / (double)MAX_ROPE_SCALE, (double)MAX_ROPE_SCALE, (double)factor);
    }
    *position_scale = none || factor == 0 ? 1.0f : 1.0f / factor;
    return CANDID_OK;
}

static candid_status read_rope(const struct loader *l, struct llama_weights *w) {
    int64_t n_dims = w->head_dim;
    TRY(gguf_get_i64(l->gguf, "llama.rope.dimension_count", 2, MAX_HEADS, &n_dims, l->error));
    if (n_dims > w->head_dim || n_dims % 2 != 0) {
        return fail(l->error, CANDID_ERROR_FORMAT,
                    "%s: key llama.rope.dimension_count: expected an even number up to the head's %d values, found "
                    "%" PRId64,
                    gguf_path(l->gguf), w->head_dim, n_dims);
    }
    bool halves = false; /* the order of rows in Hugging Face files, see hf.h */
    TRY(gguf_get_bool(l->gguf, "candid.rope_halves", &halves, l->error));
    w->rope = (struct rope_params){
        .n_dims = (int)n_dims, .base = 10000.0f, .position_scale = 1.0f, .adjacent_pairs = !halves};
    TRY(loader_float(l, "llama.rope.freq_base", MIN_ROPE_BASE, FLT_MAX, false, &w->rope.base));
    return read_rope_scaling(l, &w->rope.position_scale);
}

static candid_status read_hyperparameters(const struct loader *l, struct llama_weights *w) {
    TRY(loader_architecture(l, "llama", NULL));
    TRY(loader_int(l, "llama.embedding_length", MAX_WIDTH, &w->n_embd));
    TRY(loader_int(l, "llama.block_count", MAX_LAYERS, &w->n_layer));
    TRY(loader_int(l, "llama.feed_forward_length", MAX_WIDTH, &w->n_ff));
    TRY(loader_int(l, "llama.context_length", 1 << 30, &w->n_ctx_train));
    TRY(loader_float(l, "llama.attention.layer_norm_rms_epsilon", 0.0f, MAX_EPS, true, &w->rms_eps));
    int64_t n_expert = 0;
    TRY(gguf_get_i64(l->gguf, "llama.expert_count", 0, INT32_MAX, &n_expert, l->error));
    if (n_expert > 0) {
        return fail(l->error, CANDID_ERROR_UNSUPPORTED,
                    "%s: key llama.expert_count: expected 0 (no mixture of experts), found %" PRId64,
                    gguf_path(l->gguf), n_expert);
    }
    TRY(read_heads(l, w));
    return read_rope(l, w);
}

/* ---- tensors ---- */

/* Rows of the embedding table are the vocabulary; more rows than tokens are padding, fewer are damage. */
static candid_status read_vocabulary(struct loader *l, struct llama_weights *w) {
    const struct gguf *g = l->gguf;
    TRY(loader_matrix(l, "token_embd.weight", w->n_embd, 0, &w->token_embd));
    w->n_vocab = w->token_embd.n_out;
    int64_t vocab_size = w->n_vocab;
    TRY(gguf_get_i64(g, "llama.vocab_size", 1, INT32_MAX, &vocab_size, l->error));
    if (vocab_size != w->n_vocab) {
        return fail(l->error, CANDID_ERROR_FORMAT,
                    "%s: key llama.vocab_size: expected the %d rows of token_embd.weight, found %" PRId64, gguf_path(g),
                    w->n_vocab, vocab_size);
    }
    enum gguf_value_type element = GGUF_STRING;
    size_t n_tokens = 0;
    TRY(gguf_get_array(g, "tokenizer.ggml.tokens", &element, &n_tokens, l->error));
    if (n_tokens > (size_t)w->n_vocab) {
        return fail(l->error, CANDID_ERROR_FORMAT,
                    "%s: key tokenizer.ggml.tokens: expected at most the %d rows of token_embd.weight, found %zu",
                    gguf_path(g), w->n_vocab, n_tokens);
    }
    return CANDID_OK;
}

static candid_status read_layer(struct loader *l, int i, const struct llama_weights *w, struct llama_layer *layer) {
    const int n_q = w->n_head * w->head_dim, n_kv = w->n_head_kv * w->head_dim;
    const struct {
        const char *suffix;
        int n_in, n_out;
        struct matrix *out;
    } matrices[] = {
        {"attn_q", w->n_embd, n_q, &layer->attn_q},         {"attn_k", w->n_embd, n_kv, &layer->attn_k},
        {"attn_v", w->n_embd, n_kv, &layer->attn_v},        {"attn_output", n_q, w->n_embd, &layer->attn_out},
        {"ffn_gate", w->n_embd, w->n_ff, &layer->ffn_gate}, {"ffn_up", w->n_embd, w->n_ff, &layer->ffn_up},
        {"ffn_down", w->n_ff, w->n_embd, &layer->ffn_down},
    };
    char name[TENSOR_NAME];
    TRY(loader_vector(l, tensor_name(name, "blk.%d.attn_norm.weight", i), w->n_embd, &layer->attn_norm));
    TRY(loader_vector(l, tensor_name(name, "blk.%d.ffn_norm.weight", i), w->n_embd, &layer->ffn_norm));
    for (size_t m = 0; m < sizeof matrices / sizeof *matrices; m++) {
        TRY(loader_matrix(l, tensor_name(name, "blk.%d.%s.weight", i, matrices[m].suffix), matrices[m].n_in,
                          matrices[m].n_out, matrices[m].out));
    }
    return CANDID_OK;
}

static candid_status read_rope_factors(struct loader *l, struct rope_params *rope) {
    if (!gguf_find_tensor(l->gguf, "rope_freqs.weight")) {
        return CANDID_OK;
    }
    TRY(loader_vector(l, "rope_freqs.weight", rope->n_dims / 2, &rope->factors));
    for (int i = 0; i < rope->n_dims / 2; i++) {
        if (!(rope->factors[i] > 0 && rope->factors[i] <= FLT_MAX)) {
            return fail(l->error, CANDID_ERROR_FORMAT,
                        "%s: tensor rope_freqs.weight: expected positive finite factors, found %g at index %d",
                        gguf_path(l->gguf), (double)rope->factors[i], i);
        }
    }
    return CANDID_OK;
}

/* Precomputed rotations of old converters; the forward pass computes them itself. */
static bool harmless(const char *name) {
    return strstr(name, ".attn_rot_embd") != NULL;
}

/* A tensor of the network that nobody uses means a network that is not LLaMA. */
static const char *const network_prefixes[] = {"blk.", "token_", "position_embd", "output"};

static candid_status load(struct loader *l, struct llama_weights *w) {
    TRY(read_hyperparameters(l, w));
    TRY(read_vocabulary(l, w));
    TRY(read_rope_factors(l, &w->rope));
    w->layers = calloc((size_t)w->n_layer, sizeof *w->layers);
    if (!w->layers) {
        return fail_memory(l->error, "the layer table", (size_t)w->n_layer * sizeof *w->layers);
    }
    for (int i = 0; i < w->n_layer; i++) {
        TRY(read_layer(l, i, w, &w->layers[i]));
    }
    TRY(loader_vector(l, "output_norm.weight", w->n_embd, &w->output_norm));
    w->output = w->token_embd;
    if (gguf_find_tensor(l->gguf, "output.weight")) {
        TRY(loader_matrix(l, "output.weight", w->n_embd, w->n_vocab, &w->output));
    }
    return loader_refuse_unused(l, network_prefixes, sizeof network_prefixes / sizeof *network_prefixes, harmless,
                                "a plain LLaMA with the layers of llama.block_count");
}

candid_status llama_weights_load(const struct gguf *gguf, struct llama_weights *out, candid_error *error) {
    *out = (struct llama_weights){0};
    struct loader l;
    TRY(loader_init(&l, gguf, &out->owned, error));
    const candid_status status = load(&l, out);
    loader_finish(&l);
    if (status != CANDID_OK) {
        llama_weights_free(out);
    }
    return status;
}

void llama_weights_free(struct llama_weights *w) {
    if (!w) {
        return;
    }
    free(w->layers);
    owned_vectors_free(&w->owned);
    *w = (struct llama_weights){0};
}
