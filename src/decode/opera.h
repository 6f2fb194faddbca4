/*
 * OPERA's decoding: a beam search that scores each candidate token by the attention its row shows, and that goes back
 * where the same token stays the strongest column (options and citation: interventions/opera.h). A state machine
 * without a model: its driver runs the forward passes and hands in logits and attention rows.
 *
 *     opera_create
 *     logits of the prompt's last row
 *     until OPERA_DONE:
 *         opera_candidates(logits of every running beam)            -> candidates of every beam
 *         one forward pass of all candidates, each after its beam   -> their logits and attention rows
 *         opera_choose(rows)
 *             OPERA_ROLLBACK: the running beams are those of an earlier step again
 *                 one forward pass of each beam's last token again  -> its logits (of an empty beam: the prompt's)
 *                 opera_rechoose(logits)                            -> OPERA_CHOSEN or OPERA_DONE
 *             OPERA_CHOSEN: every beam has one more token
 *                 that was a candidate: its pass has been run, its logits are the next ones
 *                 that was none: one forward pass of these tokens, opera_measured(row) for each
 *     opera_best
 *
 * Tokens are nodes of a tree; a driver keeps keys and values by node. A node's number is valid until node_released is
 * called with it, and may then be that of another token. Its parents live as long as it does.
 *
 * Calls out of this order fail with CANDID_ERROR_INTERNAL. After any other failure only opera_best, the counters and
 * opera_free may be called.
 */
#ifndef CANDID_DECODE_OPERA_H
#define CANDID_DECODE_OPERA_H

#include "decode/opera_metric.h"
#include "decode/opera_tree.h"

/* Positions that can be gone back to: 0 .. OPERA_SLOTS-1. */
#define OPERA_SLOTS 512

struct opera;

struct opera_params {
    struct opera_options options;
    int n_beams;               /* >= 2 */
    int n_vocab;               /* at least n_beams options remain when all end tokens of all beams are best */
    int n_prompt_ids;          /* >= 1: what lengths of hypotheses include; one id for an image */
    int max_new_tokens;        /* >= 1 */
    const int32_t *end_tokens; /* [n_end_tokens], copied */
    int n_end_tokens;

    /* Each may be NULL. */

    /* Changes the log-probabilities [n_vocab] of what follows a running beam, such as a repetition penalty. Called at
     * least once for each beam and choice. */
    void (*process)(void *user_data, const struct opera *o, int beam, float *log_probs);
    /* The node is in no running beam and in no step that can be gone back to; children come before parents. Also
     * called for all nodes that are left at opera_free. Must not call functions of the opera it comes from. */
    void (*node_released)(void *user_data, int node);
    void *user_data;
};

enum opera_verdict { OPERA_CHOSEN, OPERA_ROLLBACK, OPERA_DONE };

/* What a step has come to. Arrays are [n_beams], valid until the next call. */
struct opera_choice {
    enum opera_verdict verdict;
    int step; /* tokens the beams had when the choice was made; ROLLBACK: will have when it is made again */

    /* CHOSEN and DONE: new beam i is token[i] after the former beam parents[i]. */
    const int *parents;
    const int32_t *tokens;
    const int *candidates; /* which of the parent's candidates it was, -1: none, or the candidates' passes are gone */
    const float *scores;   /* of the running beams: sums of log-probabilities */
};

struct opera_rollback {
    int step; /* tokens the beams had when the decision was made */
    int loc;  /* local index of the column's token */
    int to;   /* the token with this local index is chosen anew */
};

/* What has happened so far. */
struct opera_counters {
    int n_steps;     /* calls of opera_choose */
    int n_rewarded;  /* candidates whose attention to the image raised their score */
    int n_penalised; /* candidates that lost to a column score above 0 */
    int n_plain;     /* beams whose candidates were all excluded and took their plain logits */
    int n_filled;    /* beams filled with tokens that were no candidates, see plain_fallback */
    int n_rollbacks;
    const struct opera_rollback *rollbacks; /* [n_rollbacks], valid until the next call */
};

/* A sequence found. */
struct opera_answer {
    int32_t *ids; /* [n] generated tokens without an end token, owned by the caller: free */
    int n;
    int32_t end_token; /* what closed it; -1: not closed: of full length, or still running */
    double score;      /* sum of log-probabilities over length */
};

/* Parameters out of range are a CANDID_ERROR_ARGUMENT. */
candid_status opera_check(const struct opera_params *params, candid_error *error);

/* Parameters out of range are a CANDID_ERROR_ARGUMENT. *out is released by opera_free. */
candid_status opera_create(const struct opera_params *params, struct opera **out, candid_error *error);
void opera_free(struct opera *o);

/* ---- the running beams ---- */

int opera_step(const struct opera *o);                              /* tokens each has */
int opera_n_running(const struct opera *o);                         /* 1 before the first choice, later n_beams */
int opera_n_candidates(const struct opera *o);                      /* of each, in this step */
int opera_beam_node(const struct opera *o, int beam);               /* its last token, TREE_ROOT: none yet */
void opera_beam_ids(const struct opera *o, int beam, int32_t *ids); /* ids[opera_step] */
int opera_node_parent(const struct opera *o, int node);
int32_t opera_node_token(const struct opera *o, int node);
int opera_live_nodes(const struct opera *o);

/* Columns of the last opera_choose: of each running beam's candidates, [n_beams], and of all beams. */
const int *opera_beam_locs(const struct opera *o);
int opera_loc(const struct opera *o);

/* ---- one step ---- */

/* The tokens with the highest logits of each running beam, in descending order, equal ones by number. logits: host
 * (n_running, n_vocab), copied; -infinity excludes a token; NaN or +infinity is a CANDID_ERROR_FORMAT. candidates:
 * (n_running, n_candidates), written. */
candid_status opera_candidates(struct opera *o, const float *logits, int32_t *candidates, candid_error *error);

/* rows: (n_running, n_candidates), of the tokens in the order of `candidates`; rows that are no attention are a
 * CANDID_ERROR_FORMAT. */
candid_status opera_choose(struct opera *o, const struct opera_row *rows, struct opera_choice *out,
                           candid_error *error);

/* logits: as for opera_candidates, of the restored beams. */
candid_status opera_rechoose(struct opera *o, const float *logits, struct opera_choice *out, candid_error *error);

/* The row of a beam's last token, where it was no candidate. Needed before the next opera_candidates. */
candid_status opera_measured(struct opera *o, int beam, const struct opera_row *row, candid_error *error);

/* ---- results ---- */

/* Answers to be had, at least 1: after OPERA_DONE the best n_beams; before, such as after a cancellation, those that
 * are finished and the running beams. */
int opera_n_answers(const struct opera *o);

/* The answer with `rank` better ones, 0 <= rank < opera_n_answers; running beams come after finished answers. */
candid_status opera_best(const struct opera *o, int rank, struct opera_answer *out, candid_error *error);

struct opera_counters opera_counters(const struct opera *o);

#endif
