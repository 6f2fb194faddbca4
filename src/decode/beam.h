/*
 * Beam search over sums of log-probabilities, apart from any model: which continuations live on, which answers are
 * finished, when to stop. Equal to transformers' GenerationMixin._beam_search (version 4.57).
 *
 * A step: of all continuations of the running beams by one token the best max(2, 1 + n_ends) * n_beams are looked at.
 * Those that end, and are among the first n_beams, become hypotheses; the best n_beams of the others run on.
 */
#ifndef CANDID_DECODE_BEAM_H
#define CANDID_DECODE_BEAM_H

#include <stdbool.h>
#include <stdint.h>

#include "candid/candid.h"

enum beam_stopping {
    BEAM_STOP_HEURISTIC, /* when the best running beam, at its present length, cannot beat the worst hypothesis */
    BEAM_STOP_EARLY,     /* … or as soon as there are n_beams hypotheses */
    BEAM_STOP_NEVER,     /* as HEURISTIC, but with a length penalty above 0 at the longest possible length */
};

struct beam_params {
    int n_beams;
    float length_penalty; /* a hypothesis' score is its sum divided by its length to this power */
    enum beam_stopping stopping;
    int max_new_tokens;
    const int32_t *ends; /* [n_ends] tokens that end an answer, borrowed */
    int n_ends;
    int n_vocab;
};

/* A running beam or a hypothesis. */
struct beam {
    int32_t *tokens; /* [n_tokens] generated so far */
    int n_tokens;
    float score;   /* running: sum of log-probabilities; hypothesis: with the length penalty */
    bool finished; /* false for a hypothesis that is not there */
    bool ended;    /* hypothesis: by an end token, else by its length */
};

struct beam_search;

candid_status beam_check(const struct beam_params *params, candid_error *error);

/* A value out of range is CANDID_ERROR_ARGUMENT: the vocabulary must hold max(2, 1 + n_ends) * n_beams tokens. */
candid_status beam_create(const struct beam_params *params, struct beam_search **out, candid_error *error);
void beam_free(struct beam_search *s);

/* The running beams, best first: [n_beams]. Before the first step they are all empty. */
const struct beam *beam_running(const struct beam_search *s);

/*
 * One step. log_probs: (n_beams, n_vocab), of the next token of each running beam. parents: [n_beams], written: the
 * running beam that each new one goes on from; its last token is the one to run next. Returns false at the end of the
 * search: nothing can improve any more, or the length is reached. NaN counts as impossible.
 */
bool beam_step(struct beam_search *s, const float *log_probs, int *parents);

/* The hypotheses, best first: [n_beams]. */
const struct beam *beam_hypotheses(const struct beam_search *s);

#endif
