/*
 * Weights of the two networks by role: finds each tensor of a GGUF by its published name, checks type and shape,
 * and collects the hyperparameters. Matrices point into the mapped file, and so do F32 vectors; vectors (norms, biases,
 * embeddings of the image encoder) in F16 or BF16 are widened into memory the struct owns. The gguf must outlive it.
 *
 * What these files promise to the networks: every shape agrees with the hyperparameters, hyperparameters are finite
 * and in a sane range, and no tensor of the network was left out of account.
 */
#ifndef CANDID_MODEL_WEIGHTS_H
#define CANDID_MODEL_WEIGHTS_H

#include "backend/backend.h"
#include "core/log.h"
#include "model/gguf.h"

/* Widened vectors: malloc'd f32 blocks, released together. */
struct owned_vectors {
    float **blocks; /* [count] */
    size_t count;
};

/* ---- language model ---- */

struct llama_layer {
    const float *attn_norm; /* (n_embd) */
    struct matrix attn_q, attn_k, attn_v,
        attn_out;          /* (n_head*head_dim, n_embd), (n_head_kv*head_dim, n_embd) ×2, (n_embd, n_head*head_dim) */
    const float *ffn_norm; /* (n_embd) */
    struct matrix ffn_gate, ffn_up, ffn_down; /* (n_ff, n_embd) ×2, (n_embd, n_ff) */
};

struct llama_weights {
    int n_layer, n_embd, n_head, n_head_kv, head_dim, n_ff, n_vocab;
    int n_ctx_train;
    float rms_eps;
    struct rope_params rope;
    struct matrix token_embd;   /* (n_vocab, n_embd) */
    struct llama_layer *layers; /* [n_layer] */
    const float *output_norm;   /* (n_embd) */
    struct matrix output;       /* (n_vocab, n_embd); the embedding table when the file has none (tied) */
    struct owned_vectors owned;
};

/*
 * Architecture "llama" without extensions: mixtures of experts, biases, rope scalings other than "linear" and any other
 * unknown blk.* tensor are CANDID_ERROR_UNSUPPORTED, because the forward pass would ignore them. On failure *out is
 * empty (llama_weights_free is allowed and does nothing).
 */
candid_status llama_weights_load(const struct gguf *gguf, struct llama_weights *out, candid_error *error);
void llama_weights_free(struct llama_weights *w);

/* ---- image encoder and projector ---- */

struct clip_layer {
    const float *ln1_w, *ln1_b;
    struct matrix q, k, v, out;
    const float *q_b, *k_b, *v_b, *out_b;
    const float *ln2_w, *ln2_b;
    struct matrix fc1, fc2; /* (n_ff, n_embd), (n_embd, n_ff): told apart by shape, not by name */
    const float *fc1_b, *fc2_b;
};

enum projector_type { PROJECTOR_MLP, PROJECTOR_MLP_NORM, PROJECTOR_LINEAR };
enum activation { ACTIVATION_GELU_ERF, ACTIVATION_GELU_QUICK, ACTIVATION_SILU };

struct clip_weights {
    int image_size, patch_size, grid; /* grid = image_size / patch_size patches per side */
    int n_embd, n_ff, n_head, head_dim;
    int n_layer; /* layers stored in the file */
    int n_run;   /* layers that make the features, 0..n_layer: see clip_weights_load */
    float eps;
    enum activation activation;
    float mean[3], std[3];
    candid_preprocess preprocess;     /* how the model was trained to see: pad, crop or anyres */
    int n_pinpoints;                  /* anyres: resolutions to choose from, see vision/visual.h */
    int (*pinpoints)[2];              /* [n_pinpoints] height, width in pixels, multiples of image_size; owned */
    const float *image_newline;       /* (n_embd_lm) ends each row of tiles' tokens; anyres only, else NULL */
    struct matrix patch_embd;         /* (n_embd, 3*patch*patch), input order channel, y, x */
    const float *patch_bias;          /* (n_embd) or NULL */
    const float *class_embd;          /* (n_embd) */
    const float *position_embd;       /* (grid*grid + 1, n_embd), row 0 = CLS */
    const float *pre_ln_w, *pre_ln_b; /* (n_embd) */
    struct clip_layer *layers;        /* [n_layer] */
    enum projector_type projector;
    /* mlp: mm.0, GELU(erf), mm.2. linear: mm.0 alone. mlp_norm: mm.0, LN mm.1, GELU(erf), mm.3 (in mm_2), LN mm.4. */
    struct matrix mm_0, mm_2; /* (n_mid, n_embd), (n_embd_lm, n_mid); linear: (n_embd_lm, n_embd), unset */
    const float *mm_0_b, *mm_2_b;
    const float *mm_ln1_w, *mm_ln1_b, *mm_ln4_w, *mm_ln4_b; /* (n_mid) ×2, (n_embd_lm) ×2; mlp_norm only */
    struct owned_vectors owned;
};

/* Whether the file holds an image encoder. */
bool clip_weights_present(const struct gguf *gguf);

/*
 * Accepts the legacy LLaVA mmproj convention and the current ones. n_embd_lm: width of the language model, which the
 * projector must produce. On failure *out is empty (clip_weights_free is allowed and does nothing).
 *
 * Layers that run (LLaVA takes hidden_states[-2], the input of the last of 24 layers):
 *   - clip.vision.block_count must equal the number of layers the file stores, N.
 *   - With clip.vision.feature_layer = f: hidden_states[f] of a network of N layers, so f layers for f >= 0 and
 *     N + 1 + f for f < 0 (-2: N - 1). Several feature layers are unsupported.
 *   - Without it all N run, because the legacy converter has dropped the last layer already (N = 23), except for the
 *     whole ViT-L/14 (N = 24, n_embd = 1024): 23 run, and a warning is logged.
 *
 * Feed-forward matrices: fc1 is the one of ffn_down, ffn_up that has rows of n_embd values; legacy files call it
 * ffn_down. When n_ff = n_embd the shapes do not tell, and the file is legacy if it has the key
 * clip.has_llava_projector and not clip.vision.feature_layer.
 *
 * Activation: clip.use_gelu -> erf GELU, clip.use_silu -> SiLU, neither -> quick GELU (OpenAI CLIP). The projector type
 * is "mlp" when no key names it; mm.3.weight makes it mlp_norm, absent mm.2 and mm.3 make it linear.
 *
 * LLaVA-NeXT is told by clip.vision.mm_patch_merge_type "spatial_unpad" or by the newline vector (v.image_newline, in
 * old files model.image_newline); clip.vision.image_grid_pinpoints lists its resolutions. Otherwise
 * clip.vision.image_aspect_ratio "pad" (the default) or "crop" says how images become squares.
 */
candid_status clip_weights_load(const struct gguf *gguf, int n_embd_lm, struct clip_weights *out,
                                const struct logger *log, candid_error *error);
void clip_weights_free(struct clip_weights *w);

#endif
