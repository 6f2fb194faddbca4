/*
 * LLaMA decoder: one forward pass over a batch of rows that may belong to several sequences.
 */
#ifndef CANDID_LM_LLAMA_H
#define CANDID_LM_LLAMA_H

#include "lm/kv.h"
#include "lm/plan.h"
#include "lm/site.h"
#include "model/weights.h"

/*
 * One row of a batch: the next token of a sequence. Rows of one sequence stand in their order.
 *
 * Rows may also be alternatives: several candidates for the token at index n of a sequence of n tokens, in one batch.
 * Row i of them takes slot n + i and sees the prefix and itself: sees = n, also_begin = n + i, also_end = n + i + 1,
 * and all have the position of token n. Such a row computes what it would as the only row of a fork, on the exact path
 * bit for bit, plans included. Afterwards all of their slots are part of the sequence; kv_keep_slot() or kv_truncate()
 * ends the choice.
 */
struct forward_row {
    struct kv_seq *seq;
    int32_t token;          /* id in the vocabulary; ignored when embedding is given */
    const float *embedding; /* device (n_embd): a visual token in place of a token id, or NULL */
    int32_t position;       /* for RoPE; usually the index in the sequence */
    bool want_logits;
    int sees; /* keys 0 .. sees-1 of its sequence; 0: itself and all before. May reach to rows of this batch */
    int also_begin, also_end; /* and keys [also_begin, also_end), also_begin >= sees; none when also_end is 0 */
    struct plan *plan;        /* what is probed and edited, or NULL; a plan's rows stand together */
    enum plan_role role;      /* which of the plan's sequences the row belongs to */
};

struct llama; /* work buffers for the batches of one context */

/* weights and backend are borrowed. max_rows: most rows of one forward pass. */
candid_status llama_create(const struct llama_weights *weights, struct backend *backend, int max_rows,
                           struct llama **out, candid_error *error);
void llama_free(struct llama *m);

int llama_max_rows(const struct llama *m);
/* The max_rows it was created with: how prompts are cut into passes does not depend on what ran before. */
int llama_pass_rows(const struct llama *m);

/* Makes room for passes of n_rows, which stays until the decoder is freed. On failure nothing changes. */
candid_status llama_reserve(struct llama *m, int n_rows, candid_error *error);

#define LLAMA_FEW_ROWS 8

/*
 * Runs the rows through all layers, appends their keys and values to their sequences, and writes the logits of the
 * rows that want them to `logits`, host (number of wanted rows, n_vocab), in row order. On failure no sequence changes.
 *
 * observer may be NULL.
 *
 * A row's result does not depend on the other rows of its batch, with one limit: on the fast path up to LLAMA_FEW_ROWS
 * rows (decoding; of Q8_0 weights up to 32 of one step) and more rows (prompts) go through kernels that round
 * differently; past the last attention it is the rows that want logits that count, and at the output also the earlier
 * states that plans contrast with them. Within either kind, and on the exact path always, a row gives the same bits
 * alone and in company.
 */
candid_status llama_forward(struct llama *m, const struct forward_row *rows, int n_rows,
                            const struct observer *observer, float *logits, candid_error *error);

/* Bytes of weights one forward pass with few rows reads (embedding table excluded). */
size_t llama_weight_bytes(const struct llama_weights *weights);

#endif
