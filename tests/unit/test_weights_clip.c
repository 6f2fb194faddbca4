/* The image encoder's and projector's weights: conventions of mmproj files, depth rule, and every check. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../support/weight_file.h"

#define LM_WIDTH 64

/* An mmproj of three layers for a language model of width 64. */
static struct tiny_model_options options(void) {
    struct tiny_model_options o = tiny_model_options_default();
    o.language_model = false;
    o.v_embd = 32;
    o.v_ff = 96;
    o.v_layer = 3;
    return o;
}

static struct file make(const struct tiny_model_options *o, const char *const skip[3],
                        void (*add)(struct gguf_writer *)) {
    return make_file("mmproj.gguf", o, skip, add);
}

struct heard {
    int count;
    candid_log_level level;
    char message[300];
};

static void hear(void *user_data, candid_log_level level, const char *message) {
    struct heard *h = user_data;
    h->count++;
    h->level = level;
    snprintf(h->message, sizeof h->message, "%s", message);
}

static void load_good(const struct file *f, struct clip_weights *w, struct heard *heard) {
    candid_error error = {0};
    *heard = (struct heard){0};
    const struct logger log = {hear, heard};
    if (clip_weights_load(f->gguf, LM_WIDTH, w, &log, &error) != CANDID_OK) {
        fail_msg("unexpected error: %s", error.message);
    }
}

static const float *data(const struct file *f, const char *name) {
    const struct tensor *t = gguf_find_tensor(f->gguf, name);
    assert_non_null(t);
    return t->data;
}

/* ---- good files ---- */

static void roles_and_hyperparameters(void **state) {
    (void)state;
    for (int modern = 0; modern < 2; modern++) {
        struct tiny_model_options o = options();
        o.modern_names = modern;
        struct file f = make(&o, NULL, NULL);
        struct clip_weights w;
        struct heard heard;
        load_good(&f, &w, &heard);
        assert_int_equal(heard.count, 0);
        assert_int_equal(w.image_size, 28);
        assert_int_equal(w.patch_size, 14);
        assert_int_equal(w.grid, 2);
        assert_int_equal(w.n_embd, 32);
        assert_int_equal(w.n_ff, 96);
        assert_int_equal(w.n_head, 4);
        assert_int_equal(w.head_dim, 8);
        assert_int_equal(w.n_layer, 3);
        assert_int_equal(w.n_run, 3); /* legacy: every stored layer */
        assert_true(w.eps == 1e-5f);
        assert_int_equal(w.activation, ACTIVATION_GELU_QUICK);
        assert_memory_equal(w.mean, ((const float[]){0.48145466f, 0.4578275f, 0.40821073f}), 12);
        assert_memory_equal(w.std, ((const float[]){0.26862954f, 0.26130258f, 0.27577711f}), 12);
        assert_matrix(&f, &w.patch_embd, "v.patch_embd.weight", 32, 588);
        assert_null(w.patch_bias);
        assert_ptr_equal(w.class_embd, data(&f, "v.class_embd"));
        assert_ptr_equal(w.position_embd, data(&f, "v.position_embd.weight"));
        assert_ptr_equal(w.pre_ln_w, data(&f, "v.pre_ln.weight"));
        assert_ptr_equal(w.pre_ln_b, data(&f, "v.pre_ln.bias"));
        const struct clip_layer *l = &w.layers[2];
        assert_ptr_equal(l->ln1_w, data(&f, "v.blk.2.ln1.weight"));
        assert_ptr_equal(l->ln1_b, data(&f, "v.blk.2.ln1.bias"));
        assert_ptr_equal(l->ln2_w, data(&f, "v.blk.2.ln2.weight"));
        assert_ptr_equal(l->ln2_b, data(&f, "v.blk.2.ln2.bias"));
        assert_matrix(&f, &l->q, "v.blk.2.attn_q.weight", 32, 32);
        assert_matrix(&f, &l->k, "v.blk.2.attn_k.weight", 32, 32);
        assert_matrix(&f, &l->v, "v.blk.2.attn_v.weight", 32, 32);
        assert_matrix(&f, &l->out, "v.blk.2.attn_out.weight", 32, 32);
        assert_ptr_equal(l->q_b, data(&f, "v.blk.2.attn_q.bias"));
        assert_ptr_equal(l->k_b, data(&f, "v.blk.2.attn_k.bias"));
        assert_ptr_equal(l->v_b, data(&f, "v.blk.2.attn_v.bias"));
        assert_ptr_equal(l->out_b, data(&f, "v.blk.2.attn_out.bias"));
        assert_matrix(&f, &l->fc1, modern ? "v.blk.2.ffn_up.weight" : "v.blk.2.ffn_down.weight", 96, 32);
        assert_matrix(&f, &l->fc2, modern ? "v.blk.2.ffn_down.weight" : "v.blk.2.ffn_up.weight", 32, 96);
        assert_ptr_equal(l->fc1_b, data(&f, modern ? "v.blk.2.ffn_up.bias" : "v.blk.2.ffn_down.bias"));
        assert_ptr_equal(l->fc2_b, data(&f, modern ? "v.blk.2.ffn_down.bias" : "v.blk.2.ffn_up.bias"));
        assert_int_equal(w.projector, PROJECTOR_MLP);
        assert_matrix(&f, &w.mm_0, "mm.0.weight", 64, 32);
        assert_matrix(&f, &w.mm_2, "mm.2.weight", 64, 64);
        assert_ptr_equal(w.mm_0_b, data(&f, "mm.0.bias"));
        assert_ptr_equal(w.mm_2_b, data(&f, "mm.2.bias"));
        clip_weights_free(&w);
        clip_weights_free(&w);
        drop(&f);
    }
    clip_weights_free(NULL);
}

static void half_precision_vectors(void **state) {
    (void)state;
    struct tiny_model_options o = options();
    o.vision_type = TYPE_F16; /* patches and positions too */
    o.norm_type = TYPE_BF16;
    struct file f = make(&o, NULL, NULL);
    struct clip_weights w;
    struct heard heard;
    load_good(&f, &w, &heard);
    assert_int_equal(w.patch_embd.type, TYPE_F16);
    const uint16_t *positions = (const void *)data(&f, "v.position_embd.weight");
    for (int i = 0; i < 5 * 32; i++) {
        assert_true(w.position_embd[i] == f16_to_f32(positions[i]));
    }
    const uint16_t *bias = (const void *)data(&f, "v.blk.1.ffn_down.bias");
    for (int i = 0; i < 96; i++) {
        assert_true(w.layers[1].fc1_b[i] == bf16_to_f32(bias[i]));
    }
    assert_ptr_equal(w.class_embd, data(&f, "v.class_embd")); /* F32 in this file */
    clip_weights_free(&w);
    drop(&f);
    o.vision_type = TYPE_Q8_0; /* matrices of quantised types */
    f = make(&o, NULL, NULL);
    load_good(&f, &w, &heard);
    assert_int_equal(w.layers[0].fc1.type, TYPE_Q8_0);
    clip_weights_free(&w);
    drop(&f);
}

static void add_feature(struct gguf_writer *w) {
    gw_arr_i32(w, "clip.vision.feature_layer", (const int32_t[]){-2}, 1);
}

/* When n_ff = n_embd only the file's convention tells fc1 from fc2. */
static void square_feed_forward(void **state) {
    (void)state;
    struct tiny_model_options o = options();
    o.v_ff = 32;
    const struct {
        const char *skip[3];
        void (*add)(struct gguf_writer *);
        const char *fc1;
    } cases[] = {{{NULL}, NULL, "v.blk.0.ffn_down.weight"},
                 {{"clip.has_llava_projector"}, NULL, "v.blk.0.ffn_up.weight"},
                 {{NULL}, add_feature, "v.blk.0.ffn_up.weight"}};
    for (size_t i = 0; i < 3; i++) {
        struct file f = make(&o, cases[i].skip, cases[i].add);
        struct clip_weights w;
        struct heard heard;
        load_good(&f, &w, &heard);
        assert_matrix(&f, &w.layers[0].fc1, cases[i].fc1, 32, 32);
        assert_ptr_not_equal(w.layers[0].fc1.data, w.layers[0].fc2.data);
        clip_weights_free(&w);
        drop(&f);
    }
}

static int feature_layer; /* for add_this_feature */
static void add_this_feature(struct gguf_writer *w) {
    gw_arr_i32(w, "clip.vision.feature_layer", &feature_layer, 1);
}
static void add_scalar_feature(struct gguf_writer *w) {
    gw_i32(w, "clip.vision.feature_layer", feature_layer);
}

static void depth_rule(void **state) {
    (void)state;
    struct tiny_model_options o = options();
    const struct {
        int feature, n_run;
    } cases[] = {{-1, 3}, {-2, 2}, {-4, 0}, {0, 0}, {1, 1}, {3, 3}}; /* hidden_states has 4 entries */
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        feature_layer = cases[i / 2].feature;
        struct file f = make(&o, NULL, i % 2 ? add_this_feature : add_scalar_feature);
        struct clip_weights w;
        struct heard heard;
        load_good(&f, &w, &heard);
        assert_int_equal(w.n_layer, 3);
        assert_int_equal(w.n_run, cases[i / 2].n_run);
        clip_weights_free(&w);
        drop(&f);
    }
    /* A legacy file of 23 layers runs all of them, the whole ViT-L/14 loses its last one and says so. */
    const struct {
        int width, stored;
        bool feature;
        int n_run, warnings;
    } depths[] = {{1024, 23, false, 23, 0}, {1024, 24, false, 23, 1}, {1024, 24, true, 24, 0}, {32, 24, false, 24, 0}};
    for (size_t i = 0; i < 4; i++) {
        o.zeros = true;
        o.vision_type = TYPE_Q4_0;
        o.v_ff = 64;
        o.v_embd = depths[i].width;
        o.v_layer = depths[i].stored;
        feature_layer = 24;
        struct file f = make(&o, NULL, depths[i].feature ? add_this_feature : NULL);
        struct clip_weights w;
        struct heard heard;
        load_good(&f, &w, &heard);
        assert_int_equal(w.n_layer, depths[i].stored);
        assert_int_equal(w.n_run, depths[i].n_run);
        assert_int_equal(heard.count, depths[i].warnings);
        if (heard.count) {
            assert_int_equal(heard.level, CANDID_LOG_WARN);
            assert_non_null(strstr(heard.message, "mmproj.gguf"));
            assert_non_null(strstr(heard.message, "running 23"));
        }
        clip_weights_free(&w);
        drop(&f);
    }
}

static void use_gelu(struct gguf_writer *w) {
    gw_bool(w, "clip.use_gelu", true);
}
static void use_silu(struct gguf_writer *w) {
    gw_bool(w, "clip.use_silu", true);
}

static void activations(void **state) {
    (void)state;
    const struct tiny_model_options o = options();
    const struct {
        void (*add)(struct gguf_writer *);
        enum activation activation;
    } cases[] = {{NULL, ACTIVATION_GELU_QUICK}, {use_gelu, ACTIVATION_GELU_ERF}, {use_silu, ACTIVATION_SILU}};
    for (size_t i = 0; i < 3; i++) {
        struct file f = make(&o, (const char *const[3]){"clip.use_gelu"}, cases[i].add);
        struct clip_weights w;
        struct heard heard;
        load_good(&f, &w, &heard);
        assert_int_equal(w.activation, cases[i].activation);
        clip_weights_free(&w);
        drop(&f);
    }
}

static void vision_key(struct gguf_writer *w) {
    gw_str(w, "clip.vision.projector_type", "mlp");
}
static void linear_key(struct gguf_writer *w) {
    gw_str(w, "clip.projector_type", "linear");
}
static void norm_key(struct gguf_writer *w) {
    gw_str(w, "clip.projector_type", "mlp_norm");
}

static void projectors(void **state) {
    (void)state;
    struct tiny_model_options o = options();
    const struct {
        const char *skip[3];
        void (*add)(struct gguf_writer *);
        bool norm;
        enum projector_type projector;
        int warnings;
    } cases[] = {
        {{"clip.projector_type"}, NULL, false, PROJECTOR_MLP, 0},
        {{"clip.projector_type"}, vision_key, false, PROJECTOR_MLP, 0},
        {{"clip.projector_type"}, NULL, true, PROJECTOR_MLP_NORM, 0},
        {{NULL}, NULL, true, PROJECTOR_MLP_NORM, 0},
        {{"clip.projector_type"}, norm_key, true, PROJECTOR_MLP_NORM, 0},
        {{"mm.2.weight", "mm.2.bias", "clip.projector_type"}, linear_key, false, PROJECTOR_LINEAR, 0},
        {{"mm.2.weight", "mm.2.bias"}, NULL, false, PROJECTOR_LINEAR, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        o.mlp_norm = cases[i].norm;
        struct file f = make(&o, cases[i].skip, cases[i].add);
        struct clip_weights w;
        struct heard heard;
        load_good(&f, &w, &heard);
        assert_int_equal(w.projector, cases[i].projector);
        assert_int_equal(heard.count, cases[i].warnings);
        if (o.mlp_norm) {
            assert_matrix(&f, &w.mm_2, "mm.3.weight", 64, 64);
            assert_ptr_equal(w.mm_2_b, data(&f, "mm.3.bias"));
            assert_ptr_equal(w.mm_ln1_w, data(&f, "mm.1.weight"));
            assert_ptr_equal(w.mm_ln1_b, data(&f, "mm.1.bias"));
            assert_ptr_equal(w.mm_ln4_w, data(&f, "mm.4.weight"));
            assert_ptr_equal(w.mm_ln4_b, data(&f, "mm.4.bias"));
        }
        clip_weights_free(&w);
        drop(&f);
    }
}

static void extras(struct gguf_writer *w) {
    tensor(w, "v.post_ln.weight", TYPE_F32, 1, (const int64_t[]){32});
    tensor(w, "v.post_ln.bias", TYPE_F32, 1, (const int64_t[]){32});
    tensor(w, "v.patch_embd.bias", TYPE_F32, 1, (const int64_t[]){32});
    tensor(w, "t.blk.0.attn_q.weight", TYPE_F32, 1, (const int64_t[]){32});
    gw_str(w, "clip.vision.mm_patch_merge_type", "flat");
}

static void optional_parts(void **state) {
    (void)state;
    const struct tiny_model_options o = options();
    struct file f = make(&o, (const char *const[3]){"clip.vision.image_mean", "clip.vision.image_std"}, extras);
    struct clip_weights w;
    struct heard heard;
    load_good(&f, &w, &heard);
    assert_ptr_equal(w.patch_bias, data(&f, "v.patch_embd.bias"));
    assert_memory_equal(w.mean, ((const float[]){0.48145466f, 0.4578275f, 0.40821073f}), 12);
    assert_memory_equal(w.std, ((const float[]){0.26862954f, 0.26130258f, 0.27577711f}), 12);
    clip_weights_free(&w);
    drop(&f);
}

static void one_file_with_both(void **state) {
    (void)state;
    struct tiny_model_options o = options();
    o.language_model = true;
    struct file f = make(&o, NULL, NULL);
    struct clip_weights w;
    struct llama_weights lm;
    struct heard heard;
    assert_true(clip_weights_present(f.gguf));
    load_good(&f, &w, &heard);
    assert_int_equal(llama_weights_load(f.gguf, &lm, NULL), CANDID_OK);
    assert_int_equal(w.mm_2.n_out, lm.n_embd);
    clip_weights_free(&w);
    llama_weights_free(&lm);
    drop(&f);
    o.vision = false;
    f = make(&o, NULL, NULL);
    assert_false(clip_weights_present(f.gguf));
    candid_error error = {0};
    assert_int_equal(clip_weights_load(f.gguf, LM_WIDTH, &w, NULL, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "mmproj.gguf: tensor v.patch_embd.weight: expected an image encoder"));
    assert_int_equal(clip_weights_load(f.gguf, 0, &w, NULL, &error), CANDID_ERROR_ARGUMENT);
    drop(&f);
}

/* ---- bad files ---- */

static void a_siglip(struct gguf_writer *w) {
    gw_str(w, "general.architecture", "siglip");
}
static void no_images(struct gguf_writer *w) {
    gw_u32(w, "clip.vision.image_size", 0);
}
static void size_30(struct gguf_writer *w) {
    gw_u32(w, "clip.vision.image_size", 30);
}
static void size_42(struct gguf_writer *w) {
    gw_u32(w, "clip.vision.image_size", 42);
}
static void patch_56(struct gguf_writer *w) {
    gw_u32(w, "clip.vision.patch_size", 56);
}
static void patch_7(struct gguf_writer *w) {
    gw_u32(w, "clip.vision.patch_size", 7);
}
static void heads_5(struct gguf_writer *w) {
    gw_u32(w, "clip.vision.attention.head_count", 5);
}
static void eps_inf(struct gguf_writer *w) {
    gw_f32(w, "clip.vision.attention.layer_norm_epsilon", INFINITY);
}
static void depth_2(struct gguf_writer *w) {
    gw_u32(w, "clip.vision.block_count", 2);
}
static void depth_4(struct gguf_writer *w) {
    gw_u32(w, "clip.vision.block_count", 4);
}
static void two_features(struct gguf_writer *w) {
    gw_arr_i32(w, "clip.vision.feature_layer", (const int32_t[]){-2, -3}, 2);
}
static void no_features(struct gguf_writer *w) {
    gw_arr_i32(w, "clip.vision.feature_layer", NULL, 0);
}
static void float_feature(struct gguf_writer *w) {
    gw_arr_f32(w, "clip.vision.feature_layer", (const float[]){-2.0f}, 1);
}
static void deep_feature(struct gguf_writer *w) {
    gw_arr_i32(w, "clip.vision.feature_layer", (const int32_t[]){4}, 1);
}
static void early_feature(struct gguf_writer *w) {
    gw_i32(w, "clip.vision.feature_layer", -5);
}
static void gelu_and_silu(struct gguf_writer *w) {
    use_gelu(w);
    use_silu(w);
}
static void two_means(struct gguf_writer *w) {
    gw_arr_f32(w, "clip.vision.image_mean", (const float[]){0, 0}, 2);
}
static void int_means(struct gguf_writer *w) {
    gw_arr_i32(w, "clip.vision.image_mean", (const int32_t[]){0, 0, 0}, 3);
}
static void nan_mean(struct gguf_writer *w) {
    gw_arr_f32(w, "clip.vision.image_mean", (const float[]){0, NAN, 0}, 3);
}
static void zero_std(struct gguf_writer *w) {
    gw_arr_f32(w, "clip.vision.image_std", (const float[]){1, 1, 0}, 3);
}
static void ldp(struct gguf_writer *w) {
    gw_str(w, "clip.projector_type", "ldp");
}
static void ldpv2(struct gguf_writer *w) {
    gw_str(w, "clip.vision.projector_type", "ldpv2");
}
static void unpad(struct gguf_writer *w) {
    gw_str(w, "clip.vision.mm_patch_merge_type", "spatial_unpad");
}
static void newline_1(struct gguf_writer *w) {
    tensor(w, "model.image_newline", TYPE_F32, 1, (const int64_t[]){64});
}
static void newline_2(struct gguf_writer *w) {
    tensor(w, "v.image_newline", TYPE_F32, 1, (const int64_t[]){64});
}
static void pinpoints(struct gguf_writer *w) {
    gw_arr_i32(w, "clip.vision.image_grid_pinpoints", (const int32_t[]){28, 56, 84, 28}, 4);
}
static void odd_pinpoints(struct gguf_writer *w) {
    newline_2(w);
    gw_arr_i32(w, "clip.vision.image_grid_pinpoints", (const int32_t[]){28, 56, 84}, 3);
}
static void crooked_pinpoint(struct gguf_writer *w) {
    newline_2(w);
    gw_arr_i32(w, "clip.vision.image_grid_pinpoints", (const int32_t[]){28, 29}, 2);
}
static void pinpoints_only(struct gguf_writer *w) {
    unpad(w);
    pinpoints(w);
}
static void short_newline(struct gguf_writer *w) {
    tensor(w, "model.image_newline", TYPE_F32, 1, (const int64_t[]){63});
    pinpoints(w);
}
static void legacy_next(struct gguf_writer *w) {
    newline_1(w);
    pinpoints(w);
}
static void crop(struct gguf_writer *w) {
    gw_str(w, "clip.vision.image_aspect_ratio", "crop");
}
static void flat_patches(struct gguf_writer *w) {
    tensor(w, "v.patch_embd.weight", TYPE_F32, 2, (const int64_t[]){588, 32});
}
static void q8_patches(struct gguf_writer *w) {
    tensor(w, "v.patch_embd.weight", TYPE_Q8_0, 4, (const int64_t[]){32, 32, 3, 32});
}
static void big_patches(struct gguf_writer *w) {
    gw_u32(w, "clip.vision.image_size", 32);
    gw_u32(w, "clip.vision.patch_size", 32);
    q8_patches(w);
}
static void four_positions(struct gguf_writer *w) {
    tensor(w, "v.position_embd.weight", TYPE_F32, 2, (const int64_t[]){32, 4});
}
static void q8_positions(struct gguf_writer *w) {
    tensor(w, "v.position_embd.weight", TYPE_Q8_0, 2, (const int64_t[]){32, 5});
}
static void wide_class(struct gguf_writer *w) {
    tensor(w, "v.class_embd", TYPE_F32, 1, (const int64_t[]){33});
}
static void both_fc1(struct gguf_writer *w) {
    tensor(w, "v.blk.1.ffn_up.weight", TYPE_F32, 2, (const int64_t[]){32, 96});
}
static void short_fc1_bias(struct gguf_writer *w) {
    tensor(w, "v.blk.1.ffn_down.bias", TYPE_F32, 1, (const int64_t[]){32});
}
static void narrow_projector(struct gguf_writer *w) {
    tensor(w, "mm.2.weight", TYPE_F32, 2, (const int64_t[]){64, 63});
}
static void wrong_middle(struct gguf_writer *w) {
    tensor(w, "mm.2.weight", TYPE_F32, 2, (const int64_t[]){65, 64});
}
static void layer_scale(struct gguf_writer *w) {
    tensor(w, "v.blk.0.ls1.weight", TYPE_F32, 1, (const int64_t[]){32});
}
static void layer_9(struct gguf_writer *w) {
    tensor(w, "v.blk.9.ln1.weight", TYPE_F32, 1, (const int64_t[]){32});
}
static void layer_huge(struct gguf_writer *w) {
    tensor(w, "v.blk.99999999999999999999999.ln1.weight", TYPE_F32, 1, (const int64_t[]){32});
}
static void more_projector(struct gguf_writer *w) {
    tensor(w, "mm.4.weight", TYPE_F32, 1, (const int64_t[]){64});
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
    {"no architecture", {"general.architecture"}, NULL, FORMAT, {"general.architecture", "\"clip\"", "no such key"}},
    {"other architecture", {"general.architecture"}, a_siglip, UNSUPPORTED, {"architecture", "\"clip\"", "\"siglip\""}},
    {"no image size", {"clip.vision.image_size"}, NULL, FORMAT, {"clip.vision.image_size", "no such key"}},
    {"image size 0",
     {"clip.vision.image_size"},
     no_images,
     FORMAT,
     {"clip.vision.image_size", "from 1", "found u32 0"}},
    {"image size 30", {"clip.vision.image_size"}, size_30, UNSUPPORTED, {"image_size", "multiple", "found 30"}},
    {"image size 42",
     {"clip.vision.image_size"},
     size_42,
     FORMAT,
     {"tensor v.position_embd.weight", "[32, 10]", "[32, 5]"}},
    {"patch beyond image",
     {"clip.vision.patch_size"},
     patch_56,
     FORMAT,
     {"patch_size", "from 1 to 28", "found u32 56"}},
    {"patch 7",
     {"clip.vision.patch_size"},
     patch_7,
     FORMAT,
     {"tensor v.patch_embd.weight", "[7, 7, 3, 32]", "[14, 14, 3, 32]"}},
    {"no width", {"clip.vision.embedding_length"}, NULL, FORMAT, {"clip.vision.embedding_length", "no such key"}},
    {"no ff", {"clip.vision.feed_forward_length"}, NULL, FORMAT, {"clip.vision.feed_forward_length", "no such key"}},
    {"5 heads", {"clip.vision.attention.head_count"}, heads_5, FORMAT, {"head_count", "divisor", "found 5"}},
    {"no eps", {"clip.vision.attention.layer_norm_epsilon"}, NULL, FORMAT, {"layer_norm_epsilon", "no such key"}},
    {"eps inf", {"clip.vision.attention.layer_norm_epsilon"}, eps_inf, FORMAT, {"layer_norm_epsilon", "from 0", "inf"}},
    {"no depth", {"clip.vision.block_count"}, NULL, FORMAT, {"clip.vision.block_count", "no such key"}},
    {"depth 2 of 3", {"clip.vision.block_count"}, depth_2, FORMAT, {"block_count", "the 3 layers", "found 2"}},
    {"depth 4 of 3", {"clip.vision.block_count"}, depth_4, FORMAT, {"block_count", "the 3 layers", "found 4"}},
    {"two features", {NULL}, two_features, UNSUPPORTED, {"clip.vision.feature_layer", "one feature layer", "found 2"}},
    {"no features", {NULL}, no_features, FORMAT, {"clip.vision.feature_layer", "one integer", "found 0"}},
    {"float feature", {NULL}, float_feature, FORMAT, {"clip.vision.feature_layer", "one integer"}},
    {"feature 4 of 3", {NULL}, deep_feature, FORMAT, {"clip.vision.feature_layer", "from -4 to 3", "found 4"}},
    {"feature -5 of 3", {NULL}, early_feature, FORMAT, {"clip.vision.feature_layer", "from -4 to 3", "found i32 -5"}},
    {"two activations", {"clip.use_gelu"}, gelu_and_silu, FORMAT, {"clip.use_gelu", "clip.use_silu", "both"}},
    {"two means", {"clip.vision.image_mean"}, two_means, FORMAT, {"image_mean", "3 floats", "found 2"}},
    {"integer means", {"clip.vision.image_mean"}, int_means, FORMAT, {"image_mean", "3 floats", "other values"}},
    {"mean NaN", {"clip.vision.image_mean"}, nan_mean, FORMAT, {"image_mean", "expected numbers", "nan"}},
    {"std 0", {"clip.vision.image_std"}, zero_std, FORMAT, {"image_std", "expected numbers", "found 0"}},
    {"ldp", {"clip.projector_type"}, ldp, UNSUPPORTED, {"key clip.projector_type", "\"mlp\"", "found string \"ldp\""}},
    {"ldpv2",
     {"clip.projector_type"},
     ldpv2,
     UNSUPPORTED,
     {"key clip.vision.projector_type", "found string \"ldpv2\""}},
    {"linear with mm.2",
     {"clip.projector_type"},
     linear_key,
     FORMAT,
     {"key clip.projector_type", "linear", "mm.2.weight"}},
    {"mlp_norm without mm.3", {"clip.projector_type"}, norm_key, FORMAT, {"tensor mm.3.weight", "mlp_norm"}},
    {"spatial_unpad alone", {NULL}, unpad, FORMAT, {"image_grid_pinpoints", "pairs", "found 0"}},
    {"newline alone", {NULL}, newline_2, FORMAT, {"image_grid_pinpoints", "pairs", "found 0"}},
    {"three pinpoints", {NULL}, odd_pinpoints, FORMAT, {"image_grid_pinpoints", "pairs", "found 3"}},
    {"pinpoint of 29", {NULL}, crooked_pinpoint, UNSUPPORTED, {"image_grid_pinpoints", "multiples", "found 29"}},
    {"no newline", {NULL}, pinpoints_only, FORMAT, {"tensor v.image_newline", "present"}},
    {"newline of 63", {NULL}, short_newline, FORMAT, {"tensor model.image_newline", "[64]", "[63]"}},
    {"no patches", {"v.patch_embd.weight"}, NULL, FORMAT, {"tensor v.patch_embd.weight", "present"}},
    {"flat patches",
     {"v.patch_embd.weight"},
     flat_patches,
     FORMAT,
     {"v.patch_embd.weight", "[14, 14, 3, 32]", "[588, 32]"}},
    {"patches in Q8_0",
     {"v.patch_embd.weight", "clip.vision.image_size", "clip.vision.patch_size"},
     big_patches,
     UNSUPPORTED,
     {"tensor v.patch_embd.weight", "F32, F16 or BF16", "found Q8_0"}},
    {"no class", {"v.class_embd"}, NULL, FORMAT, {"tensor v.class_embd", "present"}},
    {"class of 33", {"v.class_embd"}, wide_class, FORMAT, {"tensor v.class_embd", "[32]", "found [33]"}},
    {"4 positions",
     {"v.position_embd.weight"},
     four_positions,
     FORMAT,
     {"v.position_embd.weight", "[32, 5]", "[32, 4]"}},
    {"positions in Q8_0",
     {"v.position_embd.weight"},
     q8_positions,
     UNSUPPORTED,
     {"v.position_embd.weight", "found Q8_0"}},
    {"no pre_ln", {"v.pre_ln.bias"}, NULL, FORMAT, {"tensor v.pre_ln.bias", "present"}},
    {"no q bias", {"v.blk.1.attn_q.bias"}, NULL, FORMAT, {"tensor v.blk.1.attn_q.bias", "present"}},
    {"two fc1", {"v.blk.1.ffn_up.weight"}, both_fc1, FORMAT, {"tensor v.blk.1.ffn_up.weight", "[96, 32]", "[32, 96]"}},
    {"short fc1 bias", {"v.blk.1.ffn_down.bias"}, short_fc1_bias, FORMAT, {"v.blk.1.ffn_down.bias", "[96]", "[32]"}},
    {"no projector", {"mm.0.weight"}, NULL, FORMAT, {"tensor mm.0.weight", "present"}},
    {"projector of 63", {"mm.2.weight"}, narrow_projector, FORMAT, {"tensor mm.2.weight", "[64, 64]", "[64, 63]"}},
    {"projector's middle", {"mm.2.weight"}, wrong_middle, FORMAT, {"tensor mm.2.weight", "[64, 64]", "[65, 64]"}},
    {"layer scale", {NULL}, layer_scale, UNSUPPORTED, {"tensor v.blk.0.ls1.weight", "CLIP encoder", "besides"}},
    {"layer 9 of 3", {NULL}, layer_9, FORMAT, {"block_count", "the 10 layers", "found 3"}},
    {"layer 10^23", {NULL}, layer_huge, FORMAT, {"block_count", "layers the file stores", "found 3"}},
    {"mm.4 without mm.3", {NULL}, more_projector, UNSUPPORTED, {"tensor mm.4.weight", "LLaVA projector", "besides"}},
};

static void knows_how_images_are_seen(void **state) {
    (void)state;
    const struct tiny_model_options o = options();
    static const struct {
        void (*add)(struct gguf_writer *w);
        candid_preprocess expected;
    } cases[] = {
        {NULL, CANDID_PREPROCESS_PAD}, {crop, CANDID_PREPROCESS_CROP}, {legacy_next, CANDID_PREPROCESS_ANYRES}};
    static const char *const nothing[3] = {NULL};
    for (size_t i = 0; i < 3; i++) {
        struct file f = make(&o, nothing, cases[i].add);
        struct clip_weights w;
        assert_int_equal(clip_weights_load(f.gguf, LM_WIDTH, &w, NULL, NULL), CANDID_OK);
        assert_int_equal(w.preprocess, cases[i].expected);
        if (w.preprocess == CANDID_PREPROCESS_ANYRES) {
            assert_int_equal(w.n_pinpoints, 2);
            assert_int_equal(w.pinpoints[1][0], 84);
            assert_int_equal(w.pinpoints[1][1], 28);
            assert_non_null(w.image_newline);
        } else {
            assert_null(w.image_newline);
        }
        clip_weights_free(&w);
        drop(&f);
    }
}

static void refuses_bad_files(void **state) {
    (void)state;
    const struct tiny_model_options o = options();
    for (size_t i = 0; i < sizeof bad_files / sizeof *bad_files; i++) {
        struct file f = make(&o, bad_files[i].skip, bad_files[i].add);
        struct clip_weights w;
        candid_error error = {0};
        const candid_status status = clip_weights_load(f.gguf, LM_WIDTH, &w, NULL, &error);
        bool good = status == bad_files[i].status && error.status == status && strstr(error.message, "mmproj.gguf: ") &&
                    !strchr(error.message, '\n');
        for (int n = 0; n < 3 && bad_files[i].needles[n]; n++) {
            good = good && strstr(error.message, bad_files[i].needles[n]);
        }
        if (!good) {
            fail_msg("%s: unexpected status %d, message \"%s\"", bad_files[i].what, (int)status, error.message);
        }
        assert_null(w.layers);
        assert_int_equal(clip_weights_load(f.gguf, LM_WIDTH, &w, NULL, NULL), status);
        drop(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(roles_and_hyperparameters),
        cmocka_unit_test(half_precision_vectors),
        cmocka_unit_test(square_feed_forward),
        cmocka_unit_test(depth_rule),
        cmocka_unit_test(activations),
        cmocka_unit_test(projectors),
        cmocka_unit_test(optional_parts),
        cmocka_unit_test(one_file_with_both),
        cmocka_unit_test(knows_how_images_are_seen),
        cmocka_unit_test(refuses_bad_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
