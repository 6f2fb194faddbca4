/* Where the model looks: attention of the rows that predict tokens to the image, mean over the heads. */
#ifndef CANDID_API_GAZE_H
#define CANDID_API_GAZE_H

#include "api/request.h"

/*
 * Attention of the last row of the request's prompt to the first view of image number `image`, mean over heads and over
 * the layers that `layers` names ("auto": the middle third), raster order. *cells: (grid, grid), owned by the caller.
 * The visual tokens must have been encoded; `owner` begins messages. Runs the prompt by itself, without edits.
 */
candid_status gaze_prompt(candid_context *c, const struct request *r, const char *layers, const char *owner, int image,
                          float **cells, const struct observer *observer, candid_error *error);

/* The same for each generated token and each layer by itself. */
struct gaze {
    int n_steps, n_layers, n_cells;
    float *values; /* (n_steps, n_layers, n_cells) of one image, raster order; owned: gaze_free */
};

/* A greedy answer of up to max_new tokens to a prepared and encoded request, and where each token looked. layers:
 * [n_layer]. Room is taken for max_new steps; n_steps says how many there are. */
candid_status gaze_answer(candid_context *c, struct request *r, const bool *layers, int max_new, struct gaze *out,
                          const struct observer *observer, candid_error *error);

/* Where the given tokens looked, at image number `image` and in every layer, with what the request's plan does. */
candid_status gaze_tokens(candid_context *c, const struct request *r, int image, const struct token_list *tokens,
                          struct gaze *out, const struct observer *observer, candid_error *error);
void gaze_free(struct gaze *g);

#endif
