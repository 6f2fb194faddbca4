/*
 * The numbers of OPERA: column products, scores and locations, candidate scores, the logits of a second choice. Plain
 * functions of their arguments; products and sums are f32 and rounded to f16 where the options say so.
 */
#ifndef CANDID_DECODE_OPERA_METRIC_H
#define CANDID_DECODE_OPERA_METRIC_H

#include "interventions/opera.h"

/* What tokens that must not win have as logit in the released program. */
#define OPERA_FLOOR (-999.0f)

/*
 * One row of the last layer's attention, of a generated or candidate token with local index t (t generated tokens
 * before it): for each key the maximum over the heads, as measured, not normalised.
 */
struct opera_row {
    float sum;          /* over all keys, the prompt's too; > 0 */
    float image_mass;   /* over the image's keys, first to last */
    const float *local; /* [t + 1] the generated tokens' keys, the token's own last */
};

/* The strongest column of a window. */
struct opera_column {
    float phi; /* its score, at most phi_max */
    int index; /* local index of its token, the first of equal ones */
};

/* Rounded to the nearest f16, ties to even; infinite beyond its range. */
float round_f16(float x);

/*
 * Appends a row to the column products: after[j] = before[j] · scale · row.local[j] / row.sum for j < t, and
 * after[t] = scale · row.local[t] / row.sum. before: [t], not used for t = 0; after: [t + 1], may be before.
 */
void opera_extend(const float *before, const struct opera_row *row, int t, float scale, float *after);

/* score_scale · product, in half precision where the options say so. */
float opera_column_score(float product, const struct opera_options *o);

struct opera_column opera_strongest(const float *products, int n, const struct opera_options *o);

/* A candidate's logit with the reward (`length` tokens with it, up to image_reward_len) or the penalty. image_share:
 * of the row's attention. */
float opera_candidate_score(float logit, float image_share, float phi, int length, const struct opera_options *o);

/* The most frequent of n >= 1 values, the smallest of equally frequent ones. */
int opera_mode(const int *values, int n);

/* The lowest of n values that is no -infinity; +infinity where there is none. */
float opera_lowest(const float *x, int n);

/* Shifts logits so that the lowest finite one becomes OPERA_FLOOR: a rejected token at the floor is then the least
 * probable one. f16: every operation is rounded. */
void opera_shift(float *logits, int n, bool f16);

#endif
