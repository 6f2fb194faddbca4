/*
 * Sites: the named places of the forward pass where methods may measure or change something, in the order in which
 * data passes them. llama_forward() and clip_encode() mention each of theirs by name.
 */
#ifndef CANDID_LM_SITE_H
#define CANDID_LM_SITE_H

#include <stdbool.h>

/* clang-format off */
enum site {
    SITE_IMAGE,            /* per view of an image: preprocessed pixels (3, size, size) */
    SITE_VISION_ATTENTION, /* image encoder, per view and layer: probabilities (tokens*heads, tokens), row = token*heads + head */
    SITE_VISION_HIDDEN,    /* image encoder, per view and layer: block output (tokens, n_embd); layer -1: embeddings after pre-LN */
    SITE_VISUAL_TOKENS,    /* per view: projected tokens (grid*grid, n_embd of the decoder), before LLaVA-NeXT drops and joins */
    SITE_POSITIONS,        /* position per row, as f32 (rows, 1) */
    SITE_ATTENTION_SCORES, /* per layer: pre-softmax scores (rows*heads, max_keys), row = row*heads + head */
    SITE_ATTENTION_PROBS,  /* per layer: post-softmax probabilities, same shape */
    SITE_HEAD_OUTPUT,      /* per layer: head vectors before the output projection (rows, n_head*head_dim) */
    SITE_HIDDEN,           /* per layer: block output (rows, n_embd); layer -1: embeddings */
    SITE_EARLY_LOGITS,     /* per layer: the head on the layer's output (wanted rows, n_vocab) */
    SITE_LOGITS,           /* final logits (wanted rows, n_vocab) */
    SITE_COUNT
};
/* clang-format on */

static inline const char *site_name(enum site site) {
    static const char *const names[SITE_COUNT] = {
        "image",           "vision.attention", "vision.hidden", "visual_tokens", "positions", "attention.scores",
        "attention.probs", "head_output",      "hidden",        "early_logits",  "logits",
    };
    return site >= 0 && site < SITE_COUNT ? names[site] : "unknown";
}

/*
 * Looks at data as it passes, for golden tests and inspection. `data` is host memory (n_rows, n_cols), valid during the
 * call. Sites not in `mask` cost nothing. Looking does not change the result, but for the last bits where attention's
 * scores or probabilities are observed on the fast path: then plain loops compute that attention.
 */
struct observer {
    unsigned mask; /* bit (1u << site) set: call `see` for that site */
    void (*see)(void *user_data, enum site site, int layer, const float *data, int n_rows, int n_cols);
    bool (*cancelled)(void *user_data); /* polled once per layer; true ends the pass with CANDID_ERROR_CANCELLED */
    void *user_data;
};

static inline bool observes(const struct observer *o, enum site site) {
    return o && (o->mask >> site & 1u);
}

static inline bool observer_cancels(const struct observer *o) {
    return o && o->cancelled && o->cancelled(o->user_data);
}

#endif
