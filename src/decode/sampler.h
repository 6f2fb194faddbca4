/*
 * From logits to the next token: repetition penalty, temperature, top-k, top-p and a seeded draw, in the order and
 * with the meaning of Hugging Face transformers' logits processors.
 */
#ifndef CANDID_DECODE_SAMPLER_H
#define CANDID_DECODE_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "candid/candid.h"

struct sampler_params {
    float temperature;        /* 0: the greatest logit (greedy), top_k and top_p do not matter; finite, >= 0 */
    int top_k;                /* keep logits not below the k-th greatest, ties included; 0: off */
    float top_p;              /* keep the most probable tokens until their sum reaches top_p; (0, 1], 1: off */
    float repetition_penalty; /* of tokens seen: positive logits divided, others multiplied by it; > 0, 1: off */
    uint64_t seed;
};

struct sampler;

/* A parameter out of range is CANDID_ERROR_ARGUMENT. */
candid_status sampler_check(const struct sampler_params *params, int n_vocab, candid_error *error);

/* *out is released by sampler_free. Parameters are checked. */
candid_status sampler_create(const struct sampler_params *params, int n_vocab, struct sampler **out,
                             candid_error *error);
void sampler_free(struct sampler *s);

/* Marks a token as seen for the repetition penalty: prompt tokens and each generated one. Once is enough; ids outside
 * the vocabulary are ignored. */
void sampler_accept(struct sampler *s, int32_t token);

/*
 * Chooses a token from logits[n_vocab], which are overwritten. Does not mark it as seen. With temperature 0 equal
 * logits give the smallest id and no random number is drawn; else exactly one is. Same seed and logits, same tokens.
 * -1 if the logits allow no choice: one is NaN or +infinity, or all are -infinity (one alone means "never").
 */
int32_t sampler_pick(struct sampler *s, float *logits);

/* The probabilities sampler_pick would draw from: probs[n_vocab], 0 for removed tokens. logits are overwritten. False
 * where sampler_pick returns -1. */
bool sampler_probabilities(struct sampler *s, float *logits, float *probs);

#endif
