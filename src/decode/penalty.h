/* Repetition penalty on log-probabilities (searches); the sampler has its own on logits. */
#ifndef CANDID_DECODE_PENALTY_H
#define CANDID_DECODE_PENALTY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Multiplies what is negative by `penalty` and divides what is positive, once for every token that occurs in one of the
 * two lists (prompt and answer). seen: [n_vocab] scratch, all false before and after. As transformers'
 * RepetitionPenaltyLogitsProcessor.
 */
void penalise_repetition(float *scores, bool *seen, const int32_t *prompt, size_t n_prompt, const int32_t *answer,
                         size_t n_answer, float penalty);

#endif
