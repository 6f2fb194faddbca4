/* Edits of attention rows (struct attention_edit), on one head's row of scores or probabilities at a time. */
#ifndef CANDID_BACKEND_CPU_ATTENTION_EDIT_H
#define CANDID_BACKEND_CPU_ATTENTION_EDIT_H

#include "backend/backend.h"

/* Keys from 0 to here may be seen by the row. */
static inline int attention_row_end(const struct attention_row *row) {
    return row->also_end > 0 ? row->also_end : row->n_keys;
}

static inline bool attention_row_sees(const struct attention_row *row, int key) {
    return key < row->n_keys || (key >= row->also_begin && key < row->also_end);
}

/* Whether a row cannot take the ordinary path. */
static inline bool attention_row_special(const struct attention_row *row) {
    return row->also_end > 0 || (row->edits && row->edits->n_edits > 0);
}

/* Index of the first edit that needs the mean of |score| over the heads, the scores being edited up to there; n_edits
 * when there is none. */
int attention_mean_edit(const struct row_edits *edits);
bool attention_edits_need_mean(const struct row_edits *edits); /* edits may be NULL */

/* Applies the edits of scores among edits first..last-1, in order. s: [n] scaled scores of `head`; mean_abs: [n], may
 * be NULL when not needed. */
void attention_edit_scores(const struct row_edits *edits, int first, int last, int head, int n_head, float *s,
                           const float *mean_abs, int n);

/* Applies the edits of probabilities, in order. p: [n] probabilities of `head`, 0 where not seen. */
void attention_edit_probs(const struct row_edits *edits, int head, int n_head, float *p, int n);

#endif
