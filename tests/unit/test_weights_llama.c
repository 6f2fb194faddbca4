/* The language model's weights: every hyperparameter rule and every check of shape, type and name. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../support/weight_file.h"

/* Three layers, so that block_count can lie in both directions; no image encoder. */
static struct tiny_model_options options(void) {
    struct tiny_model_options o = tiny_model_options_default();
    o.vision = false;
    o.n_layer = 3;
    return o;
}

static struct file make(const struct tiny_model_options *o, const char *const skip[3],
                        void (*add)(struct gguf_writer *)) {
    return make_file("lm.gguf", o, skip, add);
}

static void load_good(const struct file *f, struct llama_weights *w) {
    candid_error error = {0};
    if (llama_weights_load(f->gguf, w, &error) != CANDID_OK) {
        fail_msg("unexpected error: %s", error.message);
    }
}

/* ---- good files ---- */

static void roles_and_hyperparameters(void **state) {
    (void)state;
    const uint32_t types[] = {TYPE_F32, TYPE_F16, TYPE_BF16, TYPE_Q8_0, TYPE_Q4_0, TYPE_Q4_K, TYPE_Q5_K, TYPE_Q6_K};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct tiny_model_options o = i < 5 ? options() : tiny_model_options_wide(types[i]);
        o.type = types[i];
        o.q_output_q6k = i == 5;
        const int d = o.n_embd, kv = d / 2;
        struct file f = make(&o, NULL, NULL);
        struct llama_weights w;
        load_good(&f, &w);
        assert_int_equal(w.n_layer, o.n_layer);
        assert_int_equal(w.n_embd, d);
        assert_int_equal(w.n_head, 4);
        assert_int_equal(w.n_head_kv, 2);
        assert_int_equal(w.head_dim, d / 4);
        assert_int_equal(w.n_ff, o.n_ff);
        assert_int_equal(w.n_vocab, TINY_VOCAB);
        assert_int_equal(w.n_ctx_train, 256);
        assert_true(w.rms_eps == 1e-5f);
        assert_int_equal(w.rope.n_dims, d / 4);
        assert_true(w.rope.base == 10000.0f);
        assert_true(w.rope.position_scale == 1.0f);
        assert_null(w.rope.factors);
        assert_true(w.rope.adjacent_pairs);
        const struct llama_layer *l = &w.layers[1];
        assert_matrix(&f, &w.token_embd, "token_embd.weight", TINY_VOCAB, d);
        assert_matrix(&f, &w.output, "output.weight", TINY_VOCAB, d);
        assert_matrix(&f, &l->attn_q, "blk.1.attn_q.weight", d, d);
        assert_matrix(&f, &l->attn_k, "blk.1.attn_k.weight", kv, d);
        assert_matrix(&f, &l->attn_v, "blk.1.attn_v.weight", kv, d);
        assert_matrix(&f, &l->attn_out, "blk.1.attn_output.weight", d, d);
        assert_matrix(&f, &l->ffn_gate, "blk.1.ffn_gate.weight", o.n_ff, d);
        assert_matrix(&f, &l->ffn_up, "blk.1.ffn_up.weight", o.n_ff, d);
        assert_matrix(&f, &l->ffn_down, "blk.1.ffn_down.weight", d, o.n_ff);
        assert_ptr_equal(l->attn_norm, gguf_find_tensor(f.gguf, "blk.1.attn_norm.weight")->data);
        assert_ptr_equal(l->ffn_norm, gguf_find_tensor(f.gguf, "blk.1.ffn_norm.weight")->data);
        assert_ptr_equal(w.output_norm, gguf_find_tensor(f.gguf, "output_norm.weight")->data);
        assert_int_equal(w.owned.count, 0);
        llama_weights_free(&w);
        llama_weights_free(&w); /* empty now */
        drop(&f);
    }
    llama_weights_free(NULL);
}

static void widens_norms(void **state) {
    (void)state;
    struct tiny_model_options o = options();
    for (int round = 0; round < 2; round++) {
        o.norm_type = round ? TYPE_BF16 : TYPE_F16;
        struct file f = make(&o, NULL, NULL);
        struct llama_weights w;
        load_good(&f, &w);
        assert_int_equal(w.owned.count, 7);
        const uint16_t *stored = gguf_find_tensor(f.gguf, "blk.2.ffn_norm.weight")->data;
        for (int i = 0; i < o.n_embd; i++) {
            assert_true(w.layers[2].ffn_norm[i] == (round ? bf16_to_f32(stored[i]) : f16_to_f32(stored[i])));
            assert_true(fabsf(w.layers[2].ffn_norm[i] - 1.0f) < 0.7f);
        }
        llama_weights_free(&w);
        drop(&f);
    }
}

static void tied_output(void **state) {
    (void)state;
    struct tiny_model_options o = options();
    o.tied = true;
    struct file f = make(&o, NULL, NULL);
    struct llama_weights w;
    load_good(&f, &w);
    assert_ptr_equal(w.output.data, w.token_embd.data);
    assert_int_equal(w.output.n_out, TINY_VOCAB);
    llama_weights_free(&w);
    drop(&f);
}

static void add_equal_heads(struct gguf_writer *w) {
    gw_arr_i32(w, "llama.attention.head_count", (const int32_t[]){4, 4, 4}, 3);
    gw_arr_i32(w, "llama.attention.head_count_kv", (const int32_t[]){2, 2, 2}, 3);
}
static void add_key_length(struct gguf_writer *w) {
    gw_u32(w, "llama.attention.key_length", 32);
    gw_u32(w, "llama.attention.value_length", 32);
    gw_u32(w, "llama.attention.head_count", 2); /* 2 · 32: the same shapes as 4 · 16 */
    gw_u32(w, "llama.attention.head_count_kv", 1);
}
static void add_rope(struct gguf_writer *w) {
    gw_u32(w, "llama.rope.dimension_count", 8);
    gw_f32(w, "llama.rope.freq_base", 500000.0f);
    gw_str(w, "llama.rope.scaling.type", "linear");
    gw_f32(w, "llama.rope.scaling.factor", 4.0f);
    gw_tensor(w, "rope_freqs.weight", TYPE_F32, 1, (const int64_t[]){4}, (const float[]){1, 2, 4, 8}, 16);
}
static void add_old_scale(struct gguf_writer *w) {
    gw_f32(w, "llama.rope.scale_linear", 2.0f);
}
static void add_no_scale(struct gguf_writer *w) {
    gw_str(w, "llama.rope.scaling.type", "none");
    gw_f32(w, "llama.rope.scaling.factor", 4.0f);
}
static void add_zero_factor(struct gguf_writer *w) {
    gw_f32(w, "llama.rope.scaling.factor", 0.0f);
}
static void add_harmless(struct gguf_writer *w) {
    tensor(w, "blk.0.attn_rot_embd", TYPE_F32, 1, (const int64_t[]){8});
    tensor(w, "v.blk.0.attn_q.weight", TYPE_F32, 1, (const int64_t[]){8});
    tensor(w, "mm.0.weight", TYPE_F32, 1, (const int64_t[]){8});
    gw_u32(w, "llama.expert_count", 0);
}

static void optional_keys(void **state) {
    (void)state;
    const struct tiny_model_options o = options();
    const struct {
        const char *skip[3];
        void (*add)(struct gguf_writer *);
        int n_head, n_head_kv, head_dim, n_rope;
        float base, position_scale;
    } cases[] = {
        {{"llama.attention.head_count", "llama.attention.head_count_kv"}, add_equal_heads, 4, 2, 16, 16, 1e4f, 1.0f},
        {{"llama.attention.head_count", "llama.attention.head_count_kv", "llama.rope.dimension_count"},
         add_key_length,
         2,
         1,
         32,
         32,
         1e4f,
         1.0f},
        {{"llama.rope.dimension_count", "llama.rope.freq_base"}, NULL, 4, 2, 16, 16, 1e4f, 1.0f},
        {{"llama.rope.dimension_count", "llama.rope.freq_base"}, add_rope, 4, 2, 16, 8, 5e5f, 0.25f},
        {{"llama.vocab_size"}, add_old_scale, 4, 2, 16, 16, 1e4f, 0.5f},
        {{NULL}, add_no_scale, 4, 2, 16, 16, 1e4f, 1.0f},
        {{NULL}, add_zero_factor, 4, 2, 16, 16, 1e4f, 1.0f},
        {{NULL}, add_harmless, 4, 2, 16, 16, 1e4f, 1.0f},
        {{"tokenizer.ggml.tokens"}, NULL, 4, 2, 16, 16, 1e4f, 1.0f},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct file f = make(&o, cases[i].skip, cases[i].add);
        struct llama_weights w;
        load_good(&f, &w);
        assert_int_equal(w.n_head, cases[i].n_head);
        assert_int_equal(w.n_head_kv, cases[i].n_head_kv);
        assert_int_equal(w.head_dim, cases[i].head_dim);
        assert_int_equal(w.rope.n_dims, cases[i].n_rope);
        assert_true(w.rope.base == cases[i].base);
        assert_true(w.rope.position_scale == cases[i].position_scale);
        if (cases[i].add == add_rope) {
            assert_memory_equal(w.rope.factors, ((const float[]){1, 2, 4, 8}), 16);
        }
        llama_weights_free(&w);
        drop(&f);
    }
    /* An absent head_count_kv means one KV head per head. */
    struct tiny_model_options full = options();
    full.n_head_kv = 4;
    struct file f = make(&full, (const char *const[3]){"llama.attention.head_count_kv"}, NULL);
    struct llama_weights w;
    load_good(&f, &w);
    assert_int_equal(w.n_head_kv, 4);
    llama_weights_free(&w);
    drop(&f);
}

/* ---- bad files ---- */

static const int64_t square[2] = {64, 64};

static void a_mamba(struct gguf_writer *w) {
    gw_str(w, "general.architecture", "mam\nba");
}
static void a_float_width(struct gguf_writer *w) {
    gw_f32(w, "llama.embedding_length", 64.0f);
}
static void no_width(struct gguf_writer *w) {
    gw_u32(w, "llama.embedding_length", 0);
}
static void half_width(struct gguf_writer *w) {
    gw_u32(w, "llama.embedding_length", 32);
}
static void huge_depth(struct gguf_writer *w) {
    gw_u32(w, "llama.block_count", 4000000000u);
}
static void more_layers(struct gguf_writer *w) {
    gw_u32(w, "llama.block_count", 4);
}
static void fewer_layers(struct gguf_writer *w) {
    gw_u32(w, "llama.block_count", 2);
}
static void other_ff(struct gguf_writer *w) {
    gw_u32(w, "llama.feed_forward_length", 96);
}
static void nan_eps(struct gguf_writer *w) {
    gw_f32(w, "llama.attention.layer_norm_rms_epsilon", NAN);
}
static void minus_eps(struct gguf_writer *w) {
    gw_f32(w, "llama.attention.layer_norm_rms_epsilon", -1e-5f);
}
static void inf_base(struct gguf_writer *w) {
    gw_f32(w, "llama.rope.freq_base", INFINITY);
}
static void zero_base(struct gguf_writer *w) {
    gw_f32(w, "llama.rope.freq_base", 0.0f);
}
static void five_heads(struct gguf_writer *w) {
    gw_u32(w, "llama.attention.head_count", 5);
}
static void three_kv_heads(struct gguf_writer *w) {
    gw_u32(w, "llama.attention.head_count_kv", 3);
}
static void more_kv_heads(struct gguf_writer *w) {
    gw_u32(w, "llama.attention.head_count_kv", 4);
}
static void mixed_kv_heads(struct gguf_writer *w) {
    gw_arr_i32(w, "llama.attention.head_count_kv", (const int32_t[]){2, 2, 4}, 3);
}
static void two_kv_entries(struct gguf_writer *w) {
    gw_arr_i32(w, "llama.attention.head_count_kv", (const int32_t[]){2, 2}, 2);
}
static void zero_kv_entries(struct gguf_writer *w) {
    gw_arr_i32(w, "llama.attention.head_count_kv", (const int32_t[]){0, 0, 0}, 3);
}
static void float_kv_entries(struct gguf_writer *w) {
    gw_arr_f32(w, "llama.attention.head_count_kv", (const float[]){2, 2, 2}, 3);
}
static void huge_heads(struct gguf_writer *w) {
    gw_u32(w, "llama.attention.head_count", 65536);
    gw_u32(w, "llama.attention.key_length", 65536);
}
static void other_values(struct gguf_writer *w) {
    gw_u32(w, "llama.attention.value_length", 8);
}
static void odd_rope(struct gguf_writer *w) {
    gw_u32(w, "llama.rope.dimension_count", 15);
}
static void wide_rope(struct gguf_writer *w) {
    gw_u32(w, "llama.rope.dimension_count", 32);
}
static void yarn(struct gguf_writer *w) {
    gw_str(w, "llama.rope.scaling.type", "yarn");
}
static void minus_factor(struct gguf_writer *w) {
    gw_f32(w, "llama.rope.scaling.factor", -2.0f);
}
static void tiny_factor(struct gguf_writer *w) {
    gw_f32(w, "llama.rope.scaling.factor", 1e-30f);
}
static void nan_old_factor(struct gguf_writer *w) {
    gw_f32(w, "llama.rope.scale_linear", NAN);
}
static void wrong_freqs(struct gguf_writer *w) {
    tensor(w, "rope_freqs.weight", TYPE_F32, 1, (const int64_t[]){16});
}
static void zero_freqs(struct gguf_writer *w) {
    tensor(w, "rope_freqs.weight", TYPE_F32, 1, (const int64_t[]){8});
}
static void experts(struct gguf_writer *w) {
    gw_u32(w, "llama.expert_count", 8);
}
static void small_vocab(struct gguf_writer *w) {
    gw_u32(w, "llama.vocab_size", 500);
}
static void short_table(struct gguf_writer *w) {
    tensor(w, "token_embd.weight", TYPE_F32, 2, (const int64_t[]){64, 511});
}
static void flat_table(struct gguf_writer *w) {
    tensor(w, "token_embd.weight", TYPE_F32, 1, (const int64_t[]){64});
}
static void short_output(struct gguf_writer *w) {
    tensor(w, "output.weight", TYPE_F32, 2, (const int64_t[]){64, 511});
}
static void turned_down(struct gguf_writer *w) {
    tensor(w, "blk.1.ffn_down.weight", TYPE_F32, 2, (const int64_t[]){64, 128});
}
static void deep_q(struct gguf_writer *w) {
    tensor(w, "blk.1.attn_q.weight", TYPE_F32, 3, (const int64_t[]){64, 64, 1});
}
static void wide_norm(struct gguf_writer *w) {
    tensor(w, "blk.0.attn_norm.weight", TYPE_F32, 1, (const int64_t[]){65});
}
static void deep_norm(struct gguf_writer *w) {
    tensor(w, "blk.0.attn_norm.weight", TYPE_F32, 2, (const int64_t[]){64, 1});
}
static void q8_norm(struct gguf_writer *w) {
    tensor(w, "output_norm.weight", TYPE_Q8_0, 1, square);
}
static void q_bias(struct gguf_writer *w) {
    tensor(w, "blk.0.attn_q.bias", TYPE_F32, 1, square);
}
static void q_norm(struct gguf_writer *w) {
    tensor(w, "blk.2.attn_q\nnorm.weight", TYPE_F32, 1, square);
}
static void out_bias(struct gguf_writer *w) {
    tensor(w, "output.bias", TYPE_F32, 1, square);
}
static void embd_norm(struct gguf_writer *w) {
    tensor(w, "token_embd_norm.weight", TYPE_F32, 1, square);
}

static const struct {
    const char *what;
    const char *skip[3];
    void (*add)(struct gguf_writer *);
    candid_status status;
    const char *needles[3];
} bad_files[] = {
#define FORMAT      CANDID_ERROR_FORMAT
#define UNSUPPORTED CANDID_ERROR_UNSUPPORTED
    {"no architecture", {"general.architecture"}, NULL, FORMAT, {"general.architecture", "\"llama\"", "no such key"}},
    {"other architecture",
     {"general.architecture"},
     a_mamba,
     UNSUPPORTED,
     {"general.architecture", "\"llama\"", "found string \"mam?ba\""}},
    {"no width", {"llama.embedding_length"}, NULL, FORMAT, {"llama.embedding_length", "an integer", "no such key"}},
    {"width as float",
     {"llama.embedding_length"},
     a_float_width,
     FORMAT,
     {"llama.embedding_length", "integer", "f32 64"}},
    {"width 0", {"llama.embedding_length"}, no_width, FORMAT, {"llama.embedding_length", "from 1", "found u32 0"}},
    {"half width",
     {"llama.embedding_length", "llama.rope.dimension_count"},
     half_width,
     FORMAT,
     {"tensor token_embd.weight", "shape [32, any]", "found [64, 512]"}},
    {"no depth", {"llama.block_count"}, NULL, FORMAT, {"llama.block_count", "no such key"}},
    {"absurd depth", {"llama.block_count"}, huge_depth, FORMAT, {"llama.block_count", "found u32 4000000000"}},
    {"layer missing",
     {"llama.block_count"},
     more_layers,
     FORMAT,
     {"tensor blk.3.attn_norm.weight", "none of this name"}},
    {"layer too many", {"llama.block_count"}, fewer_layers, UNSUPPORTED, {"tensor blk.2.", "llama.block_count"}},
    {"no ff", {"llama.feed_forward_length"}, NULL, FORMAT, {"llama.feed_forward_length", "no such key"}},
    {"other ff",
     {"llama.feed_forward_length"},
     other_ff,
     FORMAT,
     {"tensor blk.0.ffn_gate.weight", "[64, 96]", "found [64, 128]"}},
    {"no context", {"llama.context_length"}, NULL, FORMAT, {"llama.context_length", "no such key"}},
    {"no eps", {"llama.attention.layer_norm_rms_epsilon"}, NULL, FORMAT, {"rms_epsilon", "a number", "no such key"}},
    {"eps NaN", {"llama.attention.layer_norm_rms_epsilon"}, nan_eps, FORMAT, {"rms_epsilon", "from 0 to 1", "nan"}},
    {"eps < 0", {"llama.attention.layer_norm_rms_epsilon"}, minus_eps, FORMAT, {"rms_epsilon", "from 0", "-1e-05"}},
    {"base inf", {"llama.rope.freq_base"}, inf_base, FORMAT, {"llama.rope.freq_base", "a number", "found inf"}},
    {"base 0", {"llama.rope.freq_base"}, zero_base, FORMAT, {"llama.rope.freq_base", "from 1", "found 0"}},
    {"no heads", {"llama.attention.head_count"}, NULL, FORMAT, {"llama.attention.head_count", "no such key"}},
    {"5 heads",
     {"llama.attention.head_count", "llama.attention.head_count_kv"},
     five_heads,
     FORMAT,
     {"llama.attention.head_count", "divisor of the embedding length 64", "found 5"}},
    {"3 KV heads", {"llama.attention.head_count_kv"}, three_kv_heads, FORMAT, {"head_count_kv", "divisor", "found 3"}},
    {"4 KV heads",
     {"llama.attention.head_count_kv"},
     more_kv_heads,
     FORMAT,
     {"tensor blk.0.attn_k.weight", "[64, 64]", "found [64, 32]"}},
    {"mixed KV heads",
     {"llama.attention.head_count_kv"},
     mixed_kv_heads,
     UNSUPPORTED,
     {"head_count_kv", "same number", "found 2 and 4"}},
    {"two entries", {"llama.attention.head_count_kv"}, two_kv_entries, FORMAT, {"head_count_kv", "or 3 of", "found 2"}},
    {"entries of 0",
     {"llama.attention.head_count_kv"},
     zero_kv_entries,
     FORMAT,
     {"head_count_kv", "from 1", "found 0"}},
    {"float entries", {"llama.attention.head_count_kv"}, float_kv_entries, FORMAT, {"head_count_kv", "another type"}},
    {"2^32 values in heads", {"llama.attention.head_count"}, huge_heads, UNSUPPORTED, {"key_length", "65536 heads"}},
    {"other value length", {NULL}, other_values, UNSUPPORTED, {"value_length", "key length 16", "found 8"}},
    {"odd rope", {"llama.rope.dimension_count"}, odd_rope, FORMAT, {"rope.dimension_count", "even", "found 15"}},
    {"wide rope", {"llama.rope.dimension_count"}, wide_rope, FORMAT, {"rope.dimension_count", "16", "found 32"}},
    {"yarn", {NULL}, yarn, UNSUPPORTED, {"llama.rope.scaling.type", "\"linear\"", "found string \"yarn\""}},
    {"factor < 0", {NULL}, minus_factor, FORMAT, {"llama.rope.scaling.factor", "from 0", "found -2"}},
    {"factor 1e-30", {NULL}, tiny_factor, FORMAT, {"llama.rope.scaling.factor", "0 or a number", "found 1e-30"}},
    {"old factor NaN", {NULL}, nan_old_factor, FORMAT, {"llama.rope.scale_linear", "a number", "nan"}},
    {"16 rope factors", {NULL}, wrong_freqs, FORMAT, {"tensor rope_freqs.weight", "[8]", "found [16]"}},
    {"rope factors 0", {NULL}, zero_freqs, FORMAT, {"tensor rope_freqs.weight", "positive", "found 0 at index 0"}},
    {"experts", {NULL}, experts, UNSUPPORTED, {"llama.expert_count", "mixture of experts", "found 8"}},
    {"vocabulary of 500", {"llama.vocab_size"}, small_vocab, FORMAT, {"llama.vocab_size", "512 rows", "found 500"}},
    {"512 tokens, 511 rows",
     {"token_embd.weight", "llama.vocab_size"},
     short_table,
     FORMAT,
     {"tokenizer.ggml.tokens", "511 rows", "found 512"}},
    {"flat table", {"token_embd.weight"}, flat_table, FORMAT, {"tensor token_embd.weight", "[64, any]", "found [64]"}},
    {"short output", {"output.weight"}, short_output, FORMAT, {"tensor output.weight", "[64, 512]", "found [64, 511]"}},
    {"no table", {"token_embd.weight"}, NULL, FORMAT, {"tensor token_embd.weight", "present", "none of this name"}},
    {"no q", {"blk.2.attn_q.weight"}, NULL, FORMAT, {"tensor blk.2.attn_q.weight", "present"}},
    {"no last norm", {"output_norm.weight"}, NULL, FORMAT, {"tensor output_norm.weight", "present"}},
    {"ffn_down turned",
     {"blk.1.ffn_down.weight"},
     turned_down,
     FORMAT,
     {"tensor blk.1.ffn_down.weight", "[128, 64]", "found [64, 128]"}},
    {"q of 3 dimensions", {"blk.1.attn_q.weight"}, deep_q, FORMAT, {"blk.1.attn_q.weight", "[64, 64]", "[64, 64, 1]"}},
    {"norm of 65", {"blk.0.attn_norm.weight"}, wide_norm, FORMAT, {"blk.0.attn_norm.weight", "[64]", "found [65]"}},
    {"norm of 2 dimensions",
     {"blk.0.attn_norm.weight"},
     deep_norm,
     FORMAT,
     {"blk.0.attn_norm.weight", "found [64, 1]"}},
    {"norm in Q8_0", {"output_norm.weight"}, q8_norm, UNSUPPORTED, {"output_norm.weight", "F32, F16 or BF16", "Q8_0"}},
    {"q bias", {NULL}, q_bias, UNSUPPORTED, {"tensor blk.0.attn_q.bias", "plain LLaMA", "besides"}},
    {"q norm", {NULL}, q_norm, UNSUPPORTED, {"tensor blk.2.attn_q?norm.weight", "plain LLaMA"}},
    {"output bias", {NULL}, out_bias, UNSUPPORTED, {"tensor output.bias", "plain LLaMA"}},
    {"embedding norm", {NULL}, embd_norm, UNSUPPORTED, {"tensor token_embd_norm.weight", "plain LLaMA"}},
};

static void refuses_bad_files(void **state) {
    (void)state;
    const struct tiny_model_options o = options();
    for (size_t i = 0; i < sizeof bad_files / sizeof *bad_files; i++) {
        struct file f = make(&o, bad_files[i].skip, bad_files[i].add);
        struct llama_weights w;
        candid_error error = {0};
        const candid_status status = llama_weights_load(f.gguf, &w, &error);
        bool good = status == bad_files[i].status && error.status == status && strstr(error.message, "lm.gguf: ") &&
                    !strchr(error.message, '\n');
        for (int n = 0; n < 3 && bad_files[i].needles[n]; n++) {
            good = good && strstr(error.message, bad_files[i].needles[n]);
        }
        if (!good) {
            fail_msg("%s: unexpected status %d, message \"%s\"", bad_files[i].what, (int)status, error.message);
        }
        assert_null(w.layers);
        assert_int_equal(llama_weights_load(f.gguf, &w, NULL), status); /* error may be NULL */
        drop(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(roles_and_hyperparameters),
        cmocka_unit_test(widens_norms),
        cmocka_unit_test(tied_output),
        cmocka_unit_test(optional_keys),
        cmocka_unit_test(refuses_bad_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
