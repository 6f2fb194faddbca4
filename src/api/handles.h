/* What is behind the opaque handles of candid.h. */
#ifndef CANDID_API_HANDLES_H
#define CANDID_API_HANDLES_H

#include "core/log.h"
#include "interventions/interventions.h"
#include "lm/llama.h"
#include "lm/tokenizer.h"
#include "model/gguf.h"
#include "model/weights.h"
#include "vision/visual.h"

struct candid_model {
    struct logger log;
    candid_precision precision;
    int n_threads;
    struct gguf *lm_file; /* language model, and the image encoder when mm_file is NULL */
    struct gguf *mm_file; /* separate image encoder, or NULL */
    struct llama_weights llama;
    bool has_vision;
    struct clip_weights clip;
    struct tokenizer *tokenizer;
    const char *name;         /* general.name or "" */
    const char *conversation; /* the model's own template, or NULL */
    struct known_models *known;
    struct model_facts facts; /* what methods may know */
    char backend[96];         /* description of the backend its contexts use */
};

struct candid_context {
    const struct candid_model *model;
    struct backend *backend;
    int n_ctx;
    struct kv_cache *kv;
    struct llama *llama;
    struct visual *visual;  /* NULL until the first image */
    float *visual_tokens;   /* device (visual_capacity, n_embd), tokens of all images, grown on demand */
    size_t visual_capacity; /* tokens */
};

/* The conversation template that is used where none is given. */
static inline const char *model_conversation(const struct candid_model *m) {
    return m->conversation ? m->conversation : "vicuna_v1";
}

/* Whether there is an image encoder; else CANDID_ERROR_UNSUPPORTED. */
candid_status model_check_vision(const struct candid_model *m, candid_error *error);

/* Visual tokens per view of an image. */
static inline int model_image_tokens(const struct candid_model *m) {
    return m->has_vision ? m->clip.grid * m->clip.grid : 0;
}

#endif
