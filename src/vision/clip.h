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

/*
 * pixels: host (3, image_size, image_size), normalised. tokens: device (grid*grid, n_embd_lm), patches in row-major
 * order. observer may be NULL.
 */
candid_status clip_encode(struct clip *c, const float *pixels, float *tokens, const struct observer *observer,
                          candid_error *error);

#endif
