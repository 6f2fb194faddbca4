/*
 * Plans that only measure: what a prompt shows of a model's heads and tokens, without changing anything. Used by
 * `candid inspect` and `candid calibrate`.
 */
#ifndef CANDID_INTERVENTIONS_MEASURE_H
#define CANDID_INTERVENTIONS_MEASURE_H

#include "interventions/method.h"
#include "interventions/vhr.h"

/* An empty plan for a prompt; the functions below add what is to be measured. Release with plan_free. */
candid_status measure_create(const struct model_facts *facts, const struct layout *prompt, struct plan **out,
                             candid_error *error);

/*
 * Vision-aware head divergence of all heads: how far the output of a head at the prompt's last row is from its output
 * without the image, the whole way without any edit. divergence: (n_layer, n_head), filled while the prompt runs, must
 * live as long as the plan. rule: {0} gives the plain Euclidean distance.
 */
candid_status measure_heads(struct plan *plan, const struct model_facts *facts, const struct vhr_rule *rule,
                            float *divergence, candid_error *error);

/*
 * phi of every token of the prompt as it enters each layer: max over dims of |x_d| / rms(x), large in attention sinks.
 * peaks: (n_layer, n_prompt), as above.
 */
candid_status measure_peaks(struct plan *plan, const int *dims, int n_dims, float *peaks, candid_error *error);

/*
 * Attention to the image: adds to mass (n_layer, n_head) what every row that predicts a token of the answer has on
 * image tokens. mass must live as long as the plan.
 */
candid_status measure_image_attention(struct plan *plan, const struct layout *prompt, float *mass, candid_error *error);

#endif
