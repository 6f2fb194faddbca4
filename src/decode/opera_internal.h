/* OPERA's state, shared by opera.c (life, results), opera_score.c (candidates), opera_choose.c (one step) and
 * opera_history.c (going back). */
#ifndef CANDID_DECODE_OPERA_INTERNAL_H
#define CANDID_DECODE_OPERA_INTERNAL_H

#include "decode/beam_scorer.h"
#include "decode/opera.h"

/* A step: the beams as they stood before its choice, and what was chosen. */
struct opera_state {
    int step;
    int n_running;
    int *nodes;                /* [n_running], owned */
    float *scores;             /* [n_running] sums of log-probabilities */
    struct beam_scorer scorer; /* what was finished before */
    int n_candidates;          /* of each beam */
    int32_t *candidates;       /* (n_running, n_candidates) */
    float *candidate_scores;   /* (n_running, n_candidates) */
    int *parents;              /* [n_beams] of the last choice made here */
    int32_t *tokens;           /* [n_beams] */
};

/* A choice not to be made again: the token after that beam. */
struct opera_reject {
    int parent;
    int32_t token;
};

/* What has happened at a position that can be gone back to. */
struct opera_slot {
    int n_rollbacks;
    struct opera_reject *rejects; /* [n_rejects] */
    int n_rejects, capacity;
};

enum opera_phase { PHASE_LOGITS, PHASE_ROWS, PHASE_RETRY, PHASE_DONE, PHASE_BROKEN };

struct opera {
    struct opera_params params;
    int32_t *end_tokens; /* what params.end_tokens points to */
    enum opera_phase phase;
    struct token_tree tree;

    struct opera_state **states; /* [n_states], of consecutive steps; the last one is the current step */
    int n_states;
    struct opera_state *shared; /* its scorer takes part in what the running beams finish; NULL: none */
    struct opera_slot *slots;   /* [OPERA_SLOTS] */
    int last_rollback;          /* position, -1: none yet */

    int *locs; /* (n_locs, n_beams), one row for each step of the running beams */
    int n_locs, locs_capacity;
    int *beam_locs; /* [n_beams] of the last opera_choose */
    int loc;        /* of all beams, likewise */

    float *logits;   /* (n_beams, n_vocab) as handed in, rounded where the options say so */
    float *work;     /* (n_beams, n_vocab) */
    float *products; /* (candidates of all beams, step + 1) column products */
    size_t products_capacity;
    struct beam_option *best;   /* [(1 + n_end_tokens) · n_beams], at least 2 · n_beams */
    struct beam_option *filled; /* [n_beams] */
    int *chosen_candidates;     /* [n_beams], what struct opera_choice shows */

    struct opera_rollback *rollbacks;
    int rollbacks_capacity;
    struct opera_counters counters;
};

/* The current step. */
static inline struct opera_state *opera_now(const struct opera *o) {
    return o->states[o->n_states - 1];
}

/* A beam's row of `logits` or `work`. */
static inline float *opera_row_of(float *matrix, const struct opera *o, int beam) {
    return matrix + (size_t)beam * (size_t)o->params.n_vocab;
}

/* [step + 1] of the current step's candidate `index`, counted over all beams. */
static inline float *opera_products_of(const struct opera *o, int index) {
    return o->products + (size_t)index * ((size_t)opera_now(o)->step + 1);
}

/* ---- opera_score.c ---- */

/* Column products of a token after node `parent`: products[tree_length(parent) + 1]. */
candid_status opera_extend_node(struct opera *o, int parent, const struct opera_row *row, float *products,
                                candid_error *error);

/* Products, scores and locations of the current step's candidates; rows as for opera_choose. */
candid_status opera_score_candidates(struct opera *o, const struct opera_row *rows, candid_error *error);

/* ---- opera_history.c ---- */

/* A step after `step` others without beams yet; to be pushed or freed. */
candid_status opera_state_create(struct opera *o, int step, struct opera_state **out, candid_error *error);
void opera_state_free(struct opera *o, struct opera_state *s); /* NULL is allowed */

/* Makes it the current step; the oldest one goes where there are too many. */
void opera_push(struct opera *o, struct opera_state *s);

/* Appends the locations of the current step's beams, beam_locs, and finds that of all. */
candid_status opera_note_locs(struct opera *o, candid_error *error);

/* Where to go back to after opera_note_locs, or -1. Counts it. */
int opera_rollback_position(struct opera *o);

/* Makes the kept step `position` the current one and rejects what was chosen there. */
candid_status opera_go_back(struct opera *o, int position, candid_error *error);

#endif
