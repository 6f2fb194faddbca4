/*
 * The prompt as rows of the decoder: text tokens and visual tokens in the order their image asks for, their positions,
 * what each row sees, and the sequences a plan wants beside it.
 */
#ifndef CANDID_DECODE_PREFILL_H
#define CANDID_DECODE_PREFILL_H

#include "decode/generate.h"

/* Runs g's prompt into g->seq, which may hold its first positions already (then no plan may want the whole prompt in
 * one pass, and at least one row is left), and writes the logits of its last row, host (n_vocab). logits must have room
 * for ROLE_COUNT rows. *next_position: RoPE position of the first generated token. */
candid_status prefill(const struct generation *g, float *logits, int *next_position, candid_error *error);

/* The first n_rows positions of g's prompt only, which end no image in its middle; no plan may want all in one pass. */
candid_status prefill_begin(const struct generation *g, int n_rows, candid_error *error);

/* The prompts of n generations, each as prefill() reads it. Where only text is left to read, all go side by side in as
 * few passes as they fit in. logits: (n, n_vocab) and room for ROLE_COUNT - 1 rows more; next_positions: [n]. */
candid_status prefill_many(const struct generation *gs, int n, float *logits, int *next_positions, candid_error *error);

#endif
