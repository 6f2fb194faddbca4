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

#endif
