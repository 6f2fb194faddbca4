/* Edits of attention rows (struct attention_edit), on one head's row of scores or probabilities at a time. */
#ifndef CANDID_BACKEND_CPU_ATTENTION_EDIT_H
#define CANDID_BACKEND_CPU_ATTENTION_EDIT_H

#include "backend/backend.h"

static inline bool attention_row_sees(const struct attention_row *row, int key) {
    return key < row->n_keys || (key >= row->also_begin && key < row->also_end);
}

/* How many keys that are. The k-th of them lies at attention_row_key(row, k). */
static inline int attention_row_count(const struct attention_row *row) {
    return row->n_keys + (row->also_end > 0 ? row->also_end - row->also_begin : 0);
}

static inline int attention_row_key(const struct attention_row *row, int k) {
    return k < row->n_keys ? k : row->also_begin + k - row->n_keys;
}

/* Whether a row cannot take the ordinary path. */
static inline bool attention_row_special(const struct attention_row *row) {
    return row->also_end > 0 || (row->edits && row->edits->n_edits > 0) || row->n_probes > 0;
}

/* Scores to probabilities, in place; -inf becomes 0. */
void attention_softmax(float *s, int n);

/* Index of the first edit that needs the mean of |score| over the heads, the scores being edited up to there; n_edits
 * when there is none. */
int attention_mean_edit(const struct row_edits *edits);
bool attention_edits_need_mean(const struct row_edits *edits); /* edits may be NULL */

/* Applies the edits of scores among edits first..last-1, in order. s: [n] scaled scores of `head`; mean_abs: [n], may
 * be NULL when not needed. */
void attention_edit_scores(const struct row_edits *edits, int first, int last, int head, int n_head, float *s,
                           const float *mean_abs, int n);

/* Applies the edits of a row's probabilities, in order. p: [attention_row_end(row)] probabilities of `head`, 0 where
 * not seen; scratch: as many floats, for EDIT_PROBS_REPLACE. */
void attention_edit_probs(const struct attention_row *row, int layer, int head, int n_head, float *p, float *scratch);

/* EDIT_PROBS_REPLACE; returns what becomes `moved`. */
float attention_replace(const struct attention_edit *e, const struct attention_row *row, int layer, int head, float *p,
                        float *scratch);

#endif
