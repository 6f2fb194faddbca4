/*
 * CLIP image encoder and projector: from preprocessed pixels to visual tokens of the language model.
 */
#ifndef CANDID_VISION_CLIP_H
#define CANDID_VISION_CLIP_H

#include "backend/backend.h"
#include "lm/site.h"
#include "model/weights.h"

struct clip; /* work buffers of one context */

/* weights and backend are borrowed; n_embd_lm: width of the visual tokens (the decoder's n_embd). */
candid_status clip_create(const struct clip_weights *weights, int n_embd_lm, struct backend *backend, struct clip **out,
                          candid_error *error);
void clip_free(struct clip *c);

/* Blocks whose class token is watched; everything borrowed. */
struct clip_taps {
    const int *blocks; /* [n], each below the number of blocks that run */
    int n;
    float *of_cls; /* host (n, patches): attention of the class token to each patch, summed over heads */
};

/* From now on clip_encode fills *taps. NULL: no longer. */
void clip_tap(struct clip *c, const struct clip_taps *taps);

/* What else of a block's attention can be noted down in passing. None of it changes the result in any bit. */
enum clip_probe_kind {
    CLIP_PROBE_CLS,      /* (patches): attention of the class token to each patch, summed over heads: as a tap */
    CLIP_PROBE_CLS_WIDE, /* (patches): the same as if there were one head of the encoder's full width: softmax over all
                            tokens of q . k / sqrt(n_embd), q and k as the projections with their biases give them. No
                            attention that the encoder itself uses; DAMRO's */
    CLIP_PROBE_MAP,      /* (tokens, n_head, tokens): all probabilities */
};
struct clip_probe {
    enum clip_probe_kind kind;
    int block;  /* below the number of blocks that run */
    float *out; /* host */
};

/* From now on clip_encode fills the n probes; borrowed. 0: no longer. */
void clip_watch(struct clip *c, const struct clip_probe *probes, int n);

/*
 * pixels: host (3, image_size, image_size), normalised. tokens: device (grid*grid, n_embd_lm), patches in row-major
 * order. observer may be NULL.
 */
candid_status clip_encode(struct clip *c, const float *pixels, float *tokens, const struct observer *observer,
                          candid_error *error);

/* Visual tokens, as clip_encode writes them, of the features of the last clip_encode that succeeded, each patch's
 * multiplied by its weight. weights: host (patches). */
candid_status clip_project_scaled(struct clip *c, const float *weights, float *tokens, candid_error *error);

#endif
