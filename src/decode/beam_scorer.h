/*
 * Finished hypotheses of a beam search, with the rules of Hugging Face transformers' BeamSearchScorer (4.29, one
 * request, length penalty 1, no early stopping): as many as beams are kept, ranked by sum of log-probabilities over
 * length, and the search is done when no running beam can still beat the worst of them.
 */
#ifndef CANDID_DECODE_BEAM_SCORER_H
#define CANDID_DECODE_BEAM_SCORER_H

#include <stdbool.h>
#include <stdint.h>

#include "candid/candid.h"

/* A sequence that may be continued. */
struct beam_option {
    float score; /* sum of log-probabilities with `token` */
    int parent;  /* beam */
    int32_t token;
};

/* The best options offered so far, best first; among equal ones the earlier. */
struct beam_list {
    struct beam_option *items; /* [capacity], owned by the caller */
    int n, capacity;
};

void beam_list_offer(struct beam_list *list, struct beam_option option);

/* A finished sequence. Shared by the scorers that keep it and never changed. */
struct hypothesis {
    int n_owners;
    double score;      /* sum of log-probabilities over length */
    int32_t end_token; /* what closed it; -1: the search ended first */
    int n;
    int32_t ids[]; /* [n] generated tokens, without end_token */
};

/* With one owner; ids still to be filled. `length` (>= 1) is what the sum is divided by. */
candid_status hypothesis_create(float sum, int length, int n, int32_t end_token, struct hypothesis **out,
                                candid_error *error);

/* Zero-initialised: not yet made. */
struct beam_scorer {
    int n_beams;
    struct hypothesis **kept; /* [n_beams + 1], in order of arrival */
    int n_kept;
};

candid_status beam_scorer_init(struct beam_scorer *s, int n_beams, candid_error *error);
void beam_scorer_free(struct beam_scorer *s);

/* Makes `to` keep what `from` keeps. Both initialised, for the same number of beams. */
void beam_scorer_copy(struct beam_scorer *to, const struct beam_scorer *from);

/* Keeps the hypothesis or, where enough better ones are kept, releases it. Takes over one ownership. */
void beam_scorer_add(struct beam_scorer *s, struct hypothesis *h);

/* Whether no beam can get better than the worst one kept: `best_sum` is the best running score, `length` what a
 * sequence one token longer is divided by. */
bool beam_scorer_is_done(const struct beam_scorer *s, float best_sum, int length);

/* The hypothesis with `rank` better ones, the later among equal ones; NULL when there are not so many. */
const struct hypothesis *beam_scorer_ranked(const struct beam_scorer *s, int rank);

#endif
