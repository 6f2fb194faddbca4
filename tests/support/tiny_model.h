/*
 * Makes tiny random LLaVA-shaped GGUF models for tests: one file with language model and image encoder, or either
 * alone. Weights are deterministic in the seed, normal with deviation 1/sqrt(n_in); norm weights are near 1.
 *
 *     struct tiny_model_options o = tiny_model_options_default();
 *     o.type = TYPE_Q8_0;
 *     assert_int_equal(tiny_model_write("tiny.gguf", &o), 0);
 *
 * The K types need rows of 256: set n_embd = 256 and n_ff = 256 or 512 (tiny_model_options_wide()).
 */
#ifndef CANDID_TESTS_TINY_MODEL_H
#define CANDID_TESTS_TINY_MODEL_H

#include <math.h>

#include "gguf_writer.h"
#include "model/quant.h"

struct tiny_model_options {
    uint64_t seed;
    bool language_model, vision; /* which halves the file holds; vision alone makes an mmproj (architecture "clip") */
    bool q_output_q6k;           /* output.weight in Q6_K, as K quantisers do; needs n_embd 256 */
    bool tied;                   /* no output.weight */
    uint32_t type;               /* of the language model's matrices */
    uint32_t vision_type;        /* of the image encoder's and projector's matrices; the patch matrix is F16 or F32 */
    uint32_t norm_type;          /* of norm and bias vectors: F32, F16 or BF16 */

    int n_embd, n_layer, n_head, n_head_kv, n_ff, n_ctx;
    int v_embd, v_layer, v_head, v_ff, image_size, patch_size;
    bool mlp_norm;     /* projector mm.0, mm.1 (LN), mm.3, mm.4 (LN) instead of mm.0, mm.2 */
    bool zeros;        /* all values 0: quick, for large shapes */
    bool modern_names; /* fc1 is ffn_up; otherwise the legacy swap (fc1 is ffn_down) */
};

/* d = 64, 2 layers, 4 heads over 2 KV heads, F32; image 28 in patches of 14: 4 visual tokens. */
static inline struct tiny_model_options tiny_model_options_default(void) {
    return (struct tiny_model_options){.seed = 1,
                                       .language_model = true,
                                       .vision = true,
                                       .type = TYPE_F32,
                                       .vision_type = TYPE_F32,
                                       .norm_type = TYPE_F32,
                                       .n_embd = 64,
                                       .n_layer = 2,
                                       .n_head = 4,
                                       .n_head_kv = 2,
                                       .n_ff = 128,
                                       .n_ctx = 256,
                                       .v_embd = 64,
                                       .v_layer = 2,
                                       .v_head = 4,
                                       .v_ff = 128,
                                       .image_size = 28,
                                       .patch_size = 14};
}

/* The same with rows of 256 values, for any type. */
static inline struct tiny_model_options tiny_model_options_wide(uint32_t type) {
    struct tiny_model_options o = tiny_model_options_default();
    o.type = type;
    o.n_embd = 256;
    o.n_ff = 512;
    return o;
}

#define TINY_VOCAB 512

/* ---- random numbers ---- */

static inline uint64_t tiny_random(uint64_t *state) { /* splitmix64 */
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Nearly normal, deviation 1: additions only, so the bits are the same on every machine. */
static inline float tiny_normal(uint64_t *state) {
    float sum = -6.0f;
    for (int i = 0; i < 12; i++) {
        sum += (float)(tiny_random(state) >> 40) * 0x1p-24f;
    }
    return sum;
}

/* ---- tensors ---- */

static inline int tiny_between(uint64_t *state, int low, int high) {
    return low + (int)(tiny_random(state) % (uint64_t)(high - low + 1));
}

static inline void tiny_random_bytes(uint64_t *state, uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        p[i] = (uint8_t)(tiny_random(state) >> 56);
    }
}

/* Random K blocks of mean 0: with sc = m and dmin = d * (largest q)/2 a value is d * sc * (q - middle). */
static inline void tiny_k_blocks(uint64_t *state, uint32_t type, float std, uint8_t *out, size_t n_blocks) {
    for (size_t b = 0; b < n_blocks; b++) {
        if (type == TYPE_Q6_K) {
            struct block_q6_k *block = (struct block_q6_k *)out + b;
            tiny_random_bytes(state, (uint8_t *)block, sizeof *block);
            for (int i = 0; i < QKK / 16; i++) {
                block->scales[i] = (int8_t)(tiny_between(state, 40, 100) * (tiny_between(state, 0, 1) ? 1 : -1));
            }
            block->d = f32_to_f16(std / (18.5f * 72.0f));
            continue;
        }
        const bool five = type == TYPE_Q5_K;
        /* Q4_K and Q5_K begin alike. */
        struct block_q4_k *block = (struct block_q4_k *)(out + b * quant_block_bytes(type));
        tiny_random_bytes(state, (uint8_t *)block, quant_block_bytes(type));
        const float d = std / ((five ? 9.23f : 4.61f) * 48.0f);
        block->d = f32_to_f16(d);
        block->dmin = f32_to_f16(d * (five ? 15.5f : 7.5f));
        int sc[8];
        for (int j = 0; j < 8; j++) {
            sc[j] = tiny_between(state, 32, 63);
        }
        for (int j = 0; j < 4; j++) { /* low six bits of pair j; top two bits belong to pair j + 4 */
            block->scales[j] = (uint8_t)(sc[j] | (sc[j + 4] >> 4) << 6);
            block->scales[j + 4] = (uint8_t)(sc[j] | (sc[j + 4] >> 4) << 6);
            block->scales[j + 8] = (uint8_t)((sc[j + 4] & 15) | (sc[j + 4] & 15) << 4);
        }
    }
}

/* Values of `mean` plus noise of deviation std, stored as `type`; zeros when state is NULL. */
static inline void tiny_tensor(struct gguf_writer *w, uint64_t *state, const char *name, uint32_t type, int n_dims,
                               const int64_t *ne, float mean, float std) {
    int64_t n = 1;
    for (int d = 0; d < n_dims; d++) {
        n *= ne[d];
    }
    if (ne[0] % quant_block_values(type) != 0) {
        fprintf(stderr, "tiny_model: rows of %s (%lld values) do not fit type %s\n", name, (long long)ne[0],
                quant_type_name(type));
        abort();
    }
    const size_t size = quant_row_bytes(type, n);
    uint8_t *bytes = calloc(size, 1);
    float *values = malloc((size_t)n * sizeof *values);
    if (!bytes || !values) {
        abort();
    }
    if (!state) {
        /* zeros */
    } else if (type == TYPE_Q4_K || type == TYPE_Q5_K || type == TYPE_Q6_K) {
        tiny_k_blocks(state, type, std, bytes, (size_t)n / QKK);
    } else {
        for (int64_t i = 0; i < n; i++) {
            values[i] = mean + std * tiny_normal(state);
        }
        quant_quantize(type, values, bytes, n);
    }
    gw_tensor(w, name, type, (uint32_t)n_dims, ne, bytes, size);
    free(bytes);
    free(values);
}

static inline void tiny_matrix(struct gguf_writer *w, uint64_t *state, const char *name, uint32_t type, int n_in,
                               int n_out) {
    tiny_tensor(w, state, name, type, 2, (const int64_t[]){n_in, n_out}, 0.0f, 1.0f / sqrtf((float)n_in));
}

static inline void tiny_vector(struct gguf_writer *w, uint64_t *state, const char *name, uint32_t type, int n,
                               float mean) {
    tiny_tensor(w, state, name, type, 1, (const int64_t[]){n}, mean, 0.1f);
}

/* ---- vocabulary ---- */

/*
 * 0 <unk>, 1 <s>, 2 </s>, 3..258 bytes, then merged pieces (every prefix of some words, so that SPM merges can build
 * them left to right), then single characters, then unused padding up to TINY_VOCAB. Scores fall with the index.
 */
static inline void tiny_vocabulary(struct gguf_writer *w) {
    static const char *const words[] = {"\u2581a",    "\u2581the",      "\u2581cat",  "\u2581dog",       "\u2581image",
                                        "\u2581is",   "\u2581on",       "\u2581what", "\u2581this",      "\u2581red",
                                        "\u2581USER", "\u2581describe", "\u2581in",   "\u2581ASSISTANT", "\u2581A",
                                        "\u2581chat", "\u2581and",      "\u2581user", "\u2581human"};
    char(*text)[32] = calloc(TINY_VOCAB, sizeof *text);
    const char **tokens = calloc(TINY_VOCAB, sizeof *tokens);
    float *scores = calloc(TINY_VOCAB, sizeof *scores);
    int32_t *types = calloc(TINY_VOCAB, sizeof *types);
    if (!text || !tokens || !scores || !types) {
        abort();
    }
    int n = 0;
    strcpy(text[n++], "<unk>");
    strcpy(text[n++], "<s>");
    strcpy(text[n++], "</s>");
    types[0] = 2;
    types[1] = types[2] = 3;
    for (int byte = 0; byte < 256; byte++) {
        types[n] = 6;
        snprintf(text[n++], sizeof *text, "<0x%02X>", byte);
    }
    const int first = n;
    for (size_t length = 1; length < 16; length++) { /* short pieces first: they merge first */
        for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
            const size_t bytes = strlen("\u2581") + length;
            if (bytes > strlen(words[i])) {
                continue;
            }
            bool known = false;
            for (int k = first; k < n; k++) {
                known |= strlen(text[k]) == bytes && memcmp(text[k], words[i], bytes) == 0;
            }
            if (!known) {
                memcpy(text[n++], words[i], bytes);
            }
        }
    }
    strcpy(text[n++], "\u2581");
    for (char c = '!'; c <= '~'; c++) {
        text[n++][0] = c;
    }
    for (int i = first; i < n; i++) {
        types[i] = 1;
        scores[i] = -(float)(i - first);
    }
    for (; n < TINY_VOCAB; n++) {
        types[n] = 5;
        snprintf(text[n], sizeof *text, "[PAD%d]", n);
    }
    for (int i = 0; i < TINY_VOCAB; i++) {
        tokens[i] = text[i];
    }
    gw_str(w, "tokenizer.ggml.model", "llama");
    gw_arr_str(w, "tokenizer.ggml.tokens", tokens, TINY_VOCAB);
    gw_arr_f32(w, "tokenizer.ggml.scores", scores, TINY_VOCAB);
    gw_arr_i32(w, "tokenizer.ggml.token_type", types, TINY_VOCAB);
    gw_u32(w, "tokenizer.ggml.bos_token_id", 1);
    gw_u32(w, "tokenizer.ggml.eos_token_id", 2);
    gw_u32(w, "tokenizer.ggml.unknown_token_id", 0);
    gw_bool(w, "tokenizer.ggml.add_bos_token", true);
    gw_bool(w, "tokenizer.ggml.add_eos_token", false);
    free(text);
    free(tokens);
    free(scores);
    free(types);
}

/* ---- the two halves: keys, then tensors ---- */

static inline void tiny_llama_keys(struct gguf_writer *w, const struct tiny_model_options *o) {
    gw_u32(w, "llama.context_length", (uint32_t)o->n_ctx);
    gw_u32(w, "llama.embedding_length", (uint32_t)o->n_embd);
    gw_u32(w, "llama.block_count", (uint32_t)o->n_layer);
    gw_u32(w, "llama.feed_forward_length", (uint32_t)o->n_ff);
    gw_u32(w, "llama.attention.head_count", (uint32_t)o->n_head);
    gw_u32(w, "llama.attention.head_count_kv", (uint32_t)o->n_head_kv);
    gw_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gw_u32(w, "llama.rope.dimension_count", (uint32_t)(o->n_embd / o->n_head));
    gw_f32(w, "llama.rope.freq_base", 10000.0f);
    gw_u32(w, "llama.vocab_size", TINY_VOCAB);
    tiny_vocabulary(w);
}

static inline void tiny_llama_tensors(struct gguf_writer *w, const struct tiny_model_options *o, uint64_t *state) {
    const int d = o->n_embd, head_dim = d / o->n_head;
    char name[64];
#define TINY_NAME(format, ...) (snprintf(name, sizeof name, format, __VA_ARGS__), name)
    tiny_matrix(w, state, "token_embd.weight", o->type, d, TINY_VOCAB);
    for (int i = 0; i < o->n_layer; i++) {
        tiny_vector(w, state, TINY_NAME("blk.%d.attn_norm.weight", i), o->norm_type, d, 1.0f);
        tiny_matrix(w, state, TINY_NAME("blk.%d.attn_q.weight", i), o->type, d, d);
        tiny_matrix(w, state, TINY_NAME("blk.%d.attn_k.weight", i), o->type, d, o->n_head_kv * head_dim);
        tiny_matrix(w, state, TINY_NAME("blk.%d.attn_v.weight", i), o->type, d, o->n_head_kv * head_dim);
        tiny_matrix(w, state, TINY_NAME("blk.%d.attn_output.weight", i), o->type, d, d);
        tiny_vector(w, state, TINY_NAME("blk.%d.ffn_norm.weight", i), o->norm_type, d, 1.0f);
        tiny_matrix(w, state, TINY_NAME("blk.%d.ffn_gate.weight", i), o->type, d, o->n_ff);
        tiny_matrix(w, state, TINY_NAME("blk.%d.ffn_up.weight", i), o->type, d, o->n_ff);
        tiny_matrix(w, state, TINY_NAME("blk.%d.ffn_down.weight", i), o->type, o->n_ff, d);
    }
    tiny_vector(w, state, "output_norm.weight", o->norm_type, d, 1.0f);
    if (!o->tied) {
        tiny_matrix(w, state, "output.weight", o->q_output_q6k ? TYPE_Q6_K : o->type, d, TINY_VOCAB);
    }
}

static inline void tiny_clip_keys(struct gguf_writer *w, const struct tiny_model_options *o) {
    static const float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f},
                       std[3] = {0.26862954f, 0.26130258f, 0.27577711f};
    gw_bool(w, "clip.has_text_encoder", false);
    gw_bool(w, "clip.has_vision_encoder", true);
    gw_bool(w, "clip.has_llava_projector", true);
    gw_str(w, "clip.projector_type", "mlp");
    gw_bool(w, "clip.use_gelu", false);
    gw_u32(w, "clip.vision.image_size", (uint32_t)o->image_size);
    gw_u32(w, "clip.vision.patch_size", (uint32_t)o->patch_size);
    gw_u32(w, "clip.vision.embedding_length", (uint32_t)o->v_embd);
    gw_u32(w, "clip.vision.feed_forward_length", (uint32_t)o->v_ff);
    gw_u32(w, "clip.vision.projection_dim", (uint32_t)o->n_embd);
    gw_u32(w, "clip.vision.attention.head_count", (uint32_t)o->v_head);
    gw_f32(w, "clip.vision.attention.layer_norm_epsilon", 1e-5f);
    gw_u32(w, "clip.vision.block_count", (uint32_t)o->v_layer);
    gw_arr_f32(w, "clip.vision.image_mean", mean, 3);
    gw_arr_f32(w, "clip.vision.image_std", std, 3);
}

/* name.weight (n_in, n_out) and name.bias. */
static inline void tiny_linear(struct gguf_writer *w, const struct tiny_model_options *o, uint64_t *state,
                               const char *prefix, int n_in, int n_out) {
    char name[64];
    tiny_matrix(w, state, TINY_NAME("%s.weight", prefix), o->vision_type, n_in, n_out);
    tiny_vector(w, state, TINY_NAME("%s.bias", prefix), o->norm_type, n_out, 0.0f);
}

static inline void tiny_layer_norm(struct gguf_writer *w, const struct tiny_model_options *o, uint64_t *state,
                                   const char *prefix, int n) {
    char name[64];
    tiny_vector(w, state, TINY_NAME("%s.weight", prefix), o->norm_type, n, 1.0f);
    tiny_vector(w, state, TINY_NAME("%s.bias", prefix), o->norm_type, n, 0.0f);
}

static inline void tiny_clip_tensors(struct gguf_writer *w, const struct tiny_model_options *o, uint64_t *state) {
    const int d = o->v_embd, p = o->patch_size, grid = o->image_size / p;
    char prefix[40];
#define TINY_PREFIX(what, i) (snprintf(prefix, sizeof prefix, "v.blk.%d." what, i), prefix)
    tiny_vector(w, state, "v.class_embd", TYPE_F32, d, 0.0f);
    tiny_tensor(w, state, "v.patch_embd.weight", o->vision_type == TYPE_F32 ? TYPE_F32 : TYPE_F16, 4,
                (const int64_t[]){p, p, 3, d}, 0.0f, 1.0f / sqrtf((float)(3 * p * p)));
    tiny_tensor(w, state, "v.position_embd.weight", o->vision_type == TYPE_F32 ? TYPE_F32 : TYPE_F16, 2,
                (const int64_t[]){d, grid * grid + 1}, 0.0f, 0.1f);
    tiny_layer_norm(w, o, state, "v.pre_ln", d);
    for (int i = 0; i < o->v_layer; i++) {
        tiny_linear(w, o, state, TINY_PREFIX("attn_q", i), d, d);
        tiny_linear(w, o, state, TINY_PREFIX("attn_k", i), d, d);
        tiny_linear(w, o, state, TINY_PREFIX("attn_v", i), d, d);
        tiny_linear(w, o, state, TINY_PREFIX("attn_out", i), d, d);
        tiny_layer_norm(w, o, state, TINY_PREFIX("ln1", i), d);
        tiny_linear(w, o, state, o->modern_names ? TINY_PREFIX("ffn_up", i) : TINY_PREFIX("ffn_down", i), d, o->v_ff);
        tiny_linear(w, o, state, o->modern_names ? TINY_PREFIX("ffn_down", i) : TINY_PREFIX("ffn_up", i), o->v_ff, d);
        tiny_layer_norm(w, o, state, TINY_PREFIX("ln2", i), d);
    }
    tiny_linear(w, o, state, "mm.0", d, o->n_embd);
    if (o->mlp_norm) {
        tiny_layer_norm(w, o, state, "mm.1", o->n_embd);
        tiny_linear(w, o, state, "mm.3", o->n_embd, o->n_embd);
        tiny_layer_norm(w, o, state, "mm.4", o->n_embd);
    } else {
        tiny_linear(w, o, state, "mm.2", o->n_embd, o->n_embd);
    }
#undef TINY_PREFIX
#undef TINY_NAME
}

/* ---- the file ---- */

/* Adds everything to a writer. */
static inline void tiny_model_fill(struct gguf_writer *w, const struct tiny_model_options *o) {
    uint64_t seeded = o->seed, *state = o->zeros ? NULL : &seeded;
    gw_str(w, "general.architecture", o->language_model ? "llama" : "clip");
    gw_str(w, "general.name", "tiny");
    if (o->language_model) {
        tiny_llama_keys(w, o);
    }
    if (o->vision) {
        tiny_clip_keys(w, o);
    }
    if (o->language_model) {
        tiny_llama_tensors(w, o, state);
    }
    if (o->vision) {
        tiny_clip_tensors(w, o, state);
    }
}

/* A writer with everything in it; the caller may add to it before gw_close or gw_take. path NULL: memory only. */
static inline struct gguf_writer *tiny_model_begin(const char *path, const struct tiny_model_options *opt) {
    const struct tiny_model_options o = opt ? *opt : tiny_model_options_default();
    struct gguf_writer *w = gw_open(path);
    tiny_model_fill(w, &o);
    return w;
}

/* Writes the file; opt may be NULL. Returns 0, or -1 when the file cannot be written. */
static inline int tiny_model_write(const char *path, const struct tiny_model_options *opt) {
    return gw_close(tiny_model_begin(path, opt));
}

/* The same as 64-byte aligned memory, released with free(). */
static inline uint8_t *tiny_model_bytes(const struct tiny_model_options *opt, size_t *size) {
    return gw_take(tiny_model_begin(NULL, opt), size);
}

#endif
