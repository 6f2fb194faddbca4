/*
 * Search for the dimensions of the hidden state that are massive in attention sinks, for `candid calibrate sinks`.
 *
 * Feed the inputs of the decoder layers of a few prompts; a dimension is a sink dimension if in at least half of the
 * layers from 2 to the last but one, and in every prompt, |x_d| / rms(x) exceeds tau in the prompt's first token. Where
 * a model's first token carries none, the same is asked of the token with the highest value, whichever it is.
 */
#ifndef CANDID_INTERVENTIONS_SINKS_H
#define CANDID_INTERVENTIONS_SINKS_H

#include "candid/candid.h"

struct sink_search;

/* tau 0: 20, or 0.3125 times the highest possible value, sqrt(n_embd), where that is less (20 of 64 in LLaMA-2-7B). */
candid_status sink_search_create(int n_layer, int n_embd, float tau, struct sink_search **out, candid_error *error);
void sink_search_free(struct sink_search *s);

void sink_search_begin(struct sink_search *s); /* of a prompt */
/* x: (n_rows, n_embd) entering `layer`, the prompt's rows from `first` on. */
void sink_search_rows(struct sink_search *s, int layer, int first, const float *x, int n_rows);

struct sink_dim {
    int dim;
    int n_layers; /* in so many layers it is massive in every prompt */
    float phi;    /* mean over those layers and the prompts */
    int from, to; /* first and last such layer */
};

/* Writes up to `most` dimensions, the highest phi first, and returns their number. *first_token: whether they were
 * found in first tokens. */
int sink_search_result(const struct sink_search *s, struct sink_dim *out, int most, bool *first_token);

float sink_search_tau(const struct sink_search *s);
/* Highest |x_d| / rms(x) of all tokens at layers from 2 to the last but one. */
float sink_search_highest(const struct sink_search *s);

#endif
