/* OPERA: parameters, life, what can be asked. */
#include "decode/opera.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "decode/opera_internal.h"

/* ---- parameters ---- */

static candid_status check_int(const char *what, int value, int min, int max, candid_error *error) {
    return value >= min && value <= max ? CANDID_OK
                                        : fail(error, CANDID_ERROR_ARGUMENT,
                                               "opera: expected %s from %d to %d, found %d", what, min, max, value);
}

/* A finite number of at least 0, or above it. */
static candid_status check_float(const char *what, float value, bool zero, candid_error *error) {
    return isfinite(value) && (zero ? value >= 0.0f : value > 0.0f)
               ? CANDID_OK
               : fail(error, CANDID_ERROR_ARGUMENT, "opera: expected %s to be a finite number %s 0, found %g", what,
                      zero ? "of at least" : "above", (double)value);
}

/* Rows in one step: what a forward pass cannot be asked for is a mistake. */
#define MAX_ROWS 65536

static candid_status check_candidates(const char *what, int n, int n_beams, int n_vocab, candid_error *error) {
    if (n < 1 || n > n_vocab || n > MAX_ROWS / n_beams) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "opera: expected %s of at least 1, at most the %d tokens of the vocabulary and in all %d beams at "
                    "most %d, found %d",
                    what, n_vocab, n_beams, MAX_ROWS, n);
    }
    return CANDID_OK;
}

static candid_status check_options(const struct opera_options *o, candid_error *error) {
    TRY(check_float("scale", o->scale, false, error));
    TRY(check_float("alpha", o->alpha, true, error));
    TRY(check_float("score_scale", o->score_scale, false, error));
    TRY(check_float("phi_max", o->phi_max, true, error));
    TRY(check_int("threshold", o->threshold, 0, INT_MAX, error));
    TRY(check_int("image_reward_len", o->image_reward_len, 0, INT_MAX, error));
    TRY(check_int("rollback_min", o->rollback_min, 0, INT_MAX, error));
    TRY(check_int("history", o->history, 2, INT_MAX, error));
    if (o->max_rollbacks < 1) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "opera: expected max_rollbacks of at least 1, found %d: to never go back, set threshold above "
                    "the number of tokens to generate",
                    o->max_rollbacks);
    }
    return CANDID_OK;
}

/* first_candidates as a number. */
static void resolve(struct opera_params *p) {
    struct opera_options *o = &p->options;
    if (o->first_candidates == OPERA_FIRST_AUTO) {
        o->first_candidates = o->candidates > p->n_beams ? o->candidates : p->n_beams + 1;
    } else if (o->first_candidates == 0) {
        o->first_candidates = o->candidates;
    }
}

candid_status opera_check(const struct opera_params *given, candid_error *error) {
    struct opera_params resolved = *given;
    const struct opera_params *p = &resolved;
    resolve(&resolved);
    if (p->n_beams < 2) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "opera: expected at least 2 beams, found %d: it is a beam search and compares the beams' columns",
                    p->n_beams);
    }
    TRY(check_int("n_end_tokens", p->n_end_tokens, 0, INT_MAX / 2, error));
    const int per_beam = p->n_end_tokens > 1 ? 1 + p->n_end_tokens : 2;
    if (p->n_vocab < 1 || p->n_beams > p->n_vocab / per_beam) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "opera: expected a vocabulary of at least %d tokens for each of the %d beams, found %d in all",
                    per_beam, p->n_beams, p->n_vocab);
    }
    TRY(check_int("max_new_tokens", p->max_new_tokens, 1, INT_MAX / 2, error));
    TRY(check_int("n_prompt_ids", p->n_prompt_ids, 1, INT_MAX / 2, error));
    TRY(check_candidates("candidates", p->options.candidates, p->n_beams, p->n_vocab, error));
    TRY(check_candidates("first_candidates", p->options.first_candidates, 1, p->n_vocab, error));
    return check_options(&p->options, error);
}

/* ---- life ---- */

static candid_status allocate(struct opera *o, candid_error *error) {
    const struct opera_params *p = &o->params;
    const size_t n_beams = (size_t)p->n_beams, n_logits = n_beams * (size_t)p->n_vocab;
    const size_t n_best = n_beams * (size_t)(p->n_end_tokens > 1 ? 1 + p->n_end_tokens : 2);
    /* one step for each token, and the one after the last */
    const size_t n_states =
        (size_t)(p->options.history <= p->max_new_tokens ? p->options.history : p->max_new_tokens + 1);
    o->end_tokens = malloc(((size_t)p->n_end_tokens + 1) * sizeof *o->end_tokens);
    o->states = calloc(n_states, sizeof *o->states);
    o->slots = calloc(OPERA_SLOTS, sizeof *o->slots);
    o->logits = calloc(n_logits, sizeof *o->logits);
    o->work = calloc(n_logits, sizeof *o->work);
    o->best = calloc(n_best, sizeof *o->best);
    o->filled = calloc(n_beams, sizeof *o->filled);
    o->chosen_candidates = calloc(n_beams, sizeof *o->chosen_candidates);
    o->beam_locs = calloc(n_beams, sizeof *o->beam_locs);
    if (!o->end_tokens || !o->states || !o->slots || !o->logits || !o->work || !o->best || !o->filled ||
        !o->chosen_candidates || !o->beam_locs) {
        return fail_memory(error, "the search", 2 * n_logits * sizeof *o->logits);
    }
    return CANDID_OK;
}

/* The one beam of the first step. */
static candid_status start(struct opera *o, candid_error *error) {
    struct opera_state *s;
    TRY(opera_state_create(o, 0, &s, error));
    s->nodes[0] = TREE_ROOT;
    s->n_running = 1;
    opera_push(o, s);
    return CANDID_OK;
}

candid_status opera_create(const struct opera_params *params, struct opera **out, candid_error *error) {
    struct opera_params p = *params;
    resolve(&p);
    TRY(opera_check(&p, error));
    struct opera *o = calloc(1, sizeof *o);
    if (!o) {
        return fail_memory(error, "the search", sizeof *o);
    }
    o->params = p;
    o->last_rollback = -1;
    o->tree.on_release = p.node_released;
    o->tree.user_data = p.user_data;
    candid_status status = allocate(o, error);
    if (status == CANDID_OK) {
        if (p.n_end_tokens > 0) {
            memcpy(o->end_tokens, p.end_tokens, (size_t)p.n_end_tokens * sizeof *p.end_tokens);
        }
        o->params.end_tokens = o->end_tokens;
        status = start(o, error);
    }
    if (status != CANDID_OK) {
        opera_free(o);
        return status;
    }
    *out = o;
    return CANDID_OK;
}

void opera_free(struct opera *o) {
    if (!o) {
        return;
    }
    while (o->n_states > 0) {
        opera_state_free(o, opera_now(o));
        o->n_states--;
    }
    for (int p = 0; o->slots && p < OPERA_SLOTS; p++) {
        free(o->slots[p].rejects);
    }
    tree_free(&o->tree);
    free(o->end_tokens);
    free(o->states);
    free(o->slots);
    free(o->locs);
    free(o->logits);
    free(o->work);
    free(o->products);
    free(o->best);
    free(o->filled);
    free(o->chosen_candidates);
    free(o->beam_locs);
    free(o->rollbacks);
    free(o);
}

/* ---- the running beams ---- */

int opera_step(const struct opera *o) {
    return opera_now(o)->step;
}

int opera_n_running(const struct opera *o) {
    return opera_now(o)->n_running;
}

int opera_n_candidates(const struct opera *o) {
    return opera_now(o)->n_candidates;
}

int opera_beam_node(const struct opera *o, int beam) {
    return opera_now(o)->nodes[beam];
}

void opera_beam_ids(const struct opera *o, int beam, int32_t *ids) {
    tree_path(&o->tree, opera_beam_node(o, beam), ids);
}

int opera_node_parent(const struct opera *o, int node) {
    return o->tree.nodes[node].parent;
}

int32_t opera_node_token(const struct opera *o, int node) {
    return o->tree.nodes[node].token;
}

int opera_live_nodes(const struct opera *o) {
    return o->tree.n - o->tree.n_released;
}

const int *opera_beam_locs(const struct opera *o) {
    return o->beam_locs;
}

int opera_loc(const struct opera *o) {
    return o->loc;
}

/* ---- results ---- */

struct opera_counters opera_counters(const struct opera *o) {
    struct opera_counters counters = o->counters;
    counters.rollbacks = o->rollbacks;
    return counters;
}

int opera_n_answers(const struct opera *o) {
    const struct opera_state *now = opera_now(o);
    return now->scorer.n_kept + (o->phase == PHASE_DONE ? 0 : now->n_running);
}

/* The running beam with `rank` better ones, the first among equal ones. */
static int ranked_beam(const struct opera_state *s, int rank) {
    for (int b = 0; b < s->n_running; b++) {
        int better = 0;
        for (int i = 0; i < s->n_running; i++) {
            better += s->scores[i] > s->scores[b] || (s->scores[i] == s->scores[b] && i < b);
        }
        if (better == rank) {
            return b;
        }
    }
    return 0;
}

static candid_status answer_create(int n, struct opera_answer *out, candid_error *error) {
    const size_t bytes = ((size_t)n + 1) * sizeof *out->ids;
    *out = (struct opera_answer){.ids = malloc(bytes), .n = n, .end_token = -1};
    return out->ids ? CANDID_OK : fail_memory(error, "an answer", bytes);
}

candid_status opera_best(const struct opera *o, int rank, struct opera_answer *out, candid_error *error) {
    const struct opera_state *now = opera_now(o);
    TRY(check_int("rank", rank, 0, opera_n_answers(o) - 1, error));
    const struct hypothesis *h = beam_scorer_ranked(&now->scorer, rank);
    if (h) {
        TRY(answer_create(h->n, out, error));
        if (h->n > 0) {
            memcpy(out->ids, h->ids, (size_t)h->n * sizeof *out->ids);
        }
        out->end_token = h->end_token;
        out->score = h->score;
    } else {
        const int beam = ranked_beam(now, rank - now->scorer.n_kept);
        TRY(answer_create(now->step, out, error));
        opera_beam_ids(o, beam, out->ids);
        out->score = (double)now->scores[beam] / (o->params.n_prompt_ids + now->step);
    }
    return CANDID_OK;
}
