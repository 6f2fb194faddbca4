/*
 * From an image to its visual tokens: which views of it the encoder sees, and in what order their tokens go to the
 * language model.
 *
 * pad, crop   one view, its grid*grid tokens in row-major order.
 * anyres      LLaVA-NeXT: the whole image squeezed into one view, then the tiles of the best fitting resolution. The
 *             tiles' tokens form one large grid; the rows and columns that lie in the padding are dropped and each row
 *             is ended by the newline vector. (LLaVA: process_anyres_image and prepare_inputs_labels_for_multimodal
 * with "spatial_unpad"; transformers: LlavaNextImageProcessor, pack_image_features, unpad_image.)
 */
#ifndef CANDID_VISION_VISUAL_H
#define CANDID_VISION_VISUAL_H

#include "lm/layout.h"
#include "vision/causalmm.h"
#include "vision/clip.h"
#include "vision/image.h"
#include "vision/noise.h"

/* How one image of a given size is seen. */
struct visual_plan {
    candid_preprocess mode;               /* pad, crop or anyres */
    struct image_span span;               /* what it is in the sequence: number of tokens; grid of a single view */
    int tile_rows, tile_cols;             /* anyres: tiles */
    int width, height, left, top;         /* anyres: size of the resized image, and where it lies on the tiles */
    int first_row, first_col, rows, cols; /* anyres: the part of the large token grid that is kept */
};

/* mode AUTO is the model's own; anyres needs a model made for it. */
candid_status visual_plan_make(const struct clip_weights *w, candid_preprocess mode, int width, int height,
                               struct visual_plan *out, candid_error *error);

/* Work buffers of one context. */
struct visual;
candid_status visual_create(const struct clip_weights *w, int n_embd_lm, struct backend *backend, struct visual **out,
                            candid_error *error);
void visual_free(struct visual *v);

/* From now on the first view of an image fills *taps. NULL: no longer. */
void visual_tap(struct visual *v, const struct clip_taps *taps);

/* The same for probes, of which at most VISUAL_PROBES are copied; n = 0: no longer. A block that does not run is an
 * error. */
#define VISUAL_PROBES 8
candid_status visual_watch(struct visual *v, const struct clip_probe *probes, int n, candid_error *error);

/* From now on the pixels of every view get noise of their own before they are encoded. NULL: no longer; borrowed. */
void visual_noise(struct visual *v, const struct noise *noise);

/* A second set of tokens of the same image, from the same pass through the encoder: those of counterfactual attention
 * (vision/causalmm.h). */
struct visual_twin {
    enum causalmm_mode mode;
    int block; /* whose attention is edited: the last that runs (n_run - 1), as released */
    uint64_t seed;
    float *tokens; /* device, of the size and order of visual_encode's tokens; the newline vectors are not changed */
};

/* From now on visual_encode writes a twin's tokens, too. Of LLaVA-NeXT every view is scaled by weights of its own.
 * NULL: no longer; borrowed. */
void visual_counterfactual(struct visual *v, const struct visual_twin *twin);

/* Which token is a newline vector, by its index among those that visual_encode writes, or -1 where there is none. DAMRO
 * appends it to the chosen tokens of the base view, whose patches are the tokens 0 .. grid * grid - 1. */
int visual_newline_token(const struct visual_plan *plan, const struct clip_weights *w);

/* out, device (n, n_embd): tokens index[0], index[1], … of tokens, device (?, n_embd). The projector works token by
 * token, so these are the tokens of the features gathered in this order. */
void visual_gather(struct backend *b, const float *tokens, const int *index, int n, int n_embd, float *out);

/* Writes plan->span.n_tokens tokens (n_tokens, n_embd_lm) to device memory. Adds the time of preprocessing and of
 * encoding to *load_ms and *encode_ms. observer may be NULL. */
candid_status visual_encode(struct visual *v, const struct candid_image *image, const struct visual_plan *plan,
                            float *tokens, const struct observer *observer, double *load_ms, double *encode_ms,
                            candid_error *error);

#endif
