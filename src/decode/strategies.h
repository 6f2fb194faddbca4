/* The searches behind generate(). */
#ifndef CANDID_DECODE_STRATEGIES_H
#define CANDID_DECODE_STRATEGIES_H

#include "decode/group.h"

/* One or more answers, each the most probable token or a draw at every step: several of one question, or one of each
 * of n questions. outs: [n]. */
candid_status samples_run(const struct generation *gs, int n, struct group *group, struct generated *outs,
                          candid_error *error);

/* Beam search (decode/beam.h). */
candid_status beams_run(const struct generation *g, struct group *group, struct generated *out, candid_error *error);

/* OPERA (decode/opera.h); reads the prompt itself. */
candid_status opera_run(const struct generation *g, struct generated *out, candid_error *error);

/* Keeps out->kv_bytes: what the cache of g->seq has in use, and `elsewhere` bytes. */
void note_kv_bytes(const struct generation *g, size_t elsewhere, struct generated *out);

/* group_step() with the counters of `out` kept. */
candid_status counted_step(const struct generation *g, struct group *group, const int32_t *tokens,
                           struct generated *out, candid_error *error);

/* Takes note of logits that tokens are chosen from: (n, n_vocab). */
void count_logits(const struct generation *g, const float *logits, int n, struct generated *out);

/* The text of a finished answer. A stop string cuts it and changes `finish`. */
candid_status answer_text(const struct generation *g, struct answer *answer, candid_error *error);

/* Room for n answers. */
candid_status make_answers(struct generated *out, int n, candid_error *error);

#endif
