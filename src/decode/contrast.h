/*
 * Contrast: one row of logits from those of a main row and of its branches.
 *
 *   out = z + sum over branches k of  w_k (z - n_k)     where the branch is subtracted
 *                                     w_k n_k           where it is added (AGLA)
 *   out_y = -infinity for every token y with z_y < ln(beta_k) + max z for some k
 *
 * z: logits of the main row, n_k: of branch k. The second line is the adaptive plausibility constraint (Li et al. 2023,
 * arXiv 2210.15097; VCD, eq. 6): tokens stay whose probability in the main row is at least beta times the highest. It
 * works on logits, since the normaliser of the softmax cancels, and is asked of the main row as it is. The classic
 * (1 + alpha) z - alpha n is w = alpha; PAI's gamma (a - u) + u is w = gamma - 1.
 *
 * Contrast comes before everything that makes a choice of logits: penalties, temperature, top-k, top-p, beam search.
 */
#ifndef CANDID_DECODE_CONTRAST_H
#define CANDID_DECODE_CONTRAST_H

#include <stdbool.h>

struct contrast_term {
    const float *logits; /* [n_vocab] of the branch; the main row itself once a branch has ended */
    float weight;        /* w */
    bool added;
    float cutoff; /* beta in [0, 1]; 0: none */
};

/* out: [n_vocab], may be `main`. Returns how many tokens the cut-offs removed. */
int contrast_combine(const float *main, const struct contrast_term *terms, int n_terms, int n_vocab, float *out);

#endif
