/*
 * Weights of the two networks by role: finds each tensor of a GGUF by its published name, checks type and shape,
 * and collects the hyperparameters. Nothing is copied; matrices point into the mapped file.
 */
#ifndef CANDID_MODEL_WEIGHTS_H
#define CANDID_MODEL_WEIGHTS_H

#include "backend/backend.h"
#include "core/log.h"
#include "model/gguf.h"

/* ---- language model ---- */

struct llama_layer {
    const float *attn_norm;                          /* (n_embd) */
    struct matrix attn_q, attn_k, attn_v, attn_out;  /* (n_head*head_dim, n_embd), (n_head_kv*head_dim, n_embd) ×2, (n_embd, n_head*head_dim) */
    const float *ffn_norm;                           /* (n_embd) */
    struct matrix ffn_gate, ffn_up, ffn_down;        /* (n_ff, n_embd) ×2, (n_embd, n_ff) */
};

struct llama_weights {
    int n_layer, n_embd, n_head, n_head_kv, head_dim, n_ff, n_vocab;
    int n_ctx_train;
    float rms_eps;
    struct rope_params rope;
    struct matrix token_embd;    /* (n_vocab, n_embd) */
    struct llama_layer *layers;  /* [n_layer] */
    const float *output_norm;    /* (n_embd) */
    struct matrix output;        /* (n_vocab, n_embd); the embedding table when the file has none (tied) */
    float *rope_factors;         /* owned copy of rope_freqs.weight, or NULL */
    float *owned;                /* f32 copies of norm vectors stored in another type, or NULL */
    size_t n_owned;
};

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
    int n_layer;   /* layers stored in the file */
    int n_run;     /* layers that make the features: min(stored, wanted), see clip_weights_load */
    float eps;
    enum activation activation;
    float mean[3], std[3];
    struct matrix patch_embd;         /* (n_embd, 3*patch*patch), input order channel, y, x */
    const float *patch_bias;          /* (n_embd) or NULL */
    const float *class_embd;          /* (n_embd) */
    const float *position_embd;       /* (grid*grid + 1, n_embd), row 0 = CLS */
    const float *pre_ln_w, *pre_ln_b; /* (n_embd) */
    struct clip_layer *layers;        /* [n_layer] */
    enum projector_type projector;
    struct matrix mm_0, mm_2;               /* mlp: linear, GELU, linear (mm_2 unused for LINEAR) */
    const float *mm_0_b, *mm_2_b;
    const float *mm_ln1_w, *mm_ln1_b, *mm_ln4_w, *mm_ln4_b; /* mlp_norm only */
    float *owned; /* f32 copies of vectors stored in another type */
    size_t n_owned;
};

/* Whether the file holds an image encoder. */
bool clip_weights_present(const struct gguf *gguf);

/*
 * Accepts the legacy LLaVA mmproj convention (clip.vision.block_count counts the layers that are run and stored,
 * fc1 named ffn_down) and the current ones (clip.vision.feature_layer, fc1 named ffn_up). n_embd_lm: width of the
 * language model, which the projector must produce.
 */
candid_status clip_weights_load(const struct gguf *gguf, int n_embd_lm, struct clip_weights *out,
                                const struct logger *log, candid_error *error);
void clip_weights_free(struct clip_weights *w);

#endif
