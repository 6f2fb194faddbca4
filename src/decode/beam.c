/* Beam search: sums, running beams and hypotheses. */
#include "decode/beam.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"

#define NOTHING (-1e9f) /* the score of what is not there; transformers adds it, so do we */

/* A continuation: `token` after running beam `parent`. */
struct continuation {
    float sum;
    int parent;
    int32_t token;
    bool over; /* by an end token or the length */
};

struct beam_search {
    struct beam_params p;
    int n_tokens;                             /* of every running beam */
    struct beam *running, *next, *hypotheses; /* [n_beams] each */
    struct beam *beams;                       /* the memory of all three, and of one to spare */
    int32_t *tokens;                          /* and of their tokens */
    struct beam spare;                        /* a hypothesis under construction */
    struct continuation *best;                /* [n_kept] */
    int n_kept;
};

candid_status beam_check(const struct beam_params *p, candid_error *error) {
    const int kept = p->n_ends > 0 ? 1 + p->n_ends : 2;
    if (p->n_beams < 1) {
        return fail(error, CANDID_ERROR_ARGUMENT, "beam search: expected 1 beam or more, found %d", p->n_beams);
    }
    if (p->n_beams > p->n_vocab / kept) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "beam search: %d beams look at %d continuations each time, but the vocabulary has %d tokens",
                    p->n_beams, kept * p->n_beams, p->n_vocab);
    }
    return CANDID_OK;
}

candid_status beam_create(const struct beam_params *p, struct beam_search **out, candid_error *error) {
    TRY(beam_check(p, error));
    struct beam_search *s = calloc(1, sizeof *s);
    if (!s) {
        return fail_memory(error, "a beam search", sizeof *s);
    }
    const size_t n = (size_t)p->n_beams, length = (size_t)p->max_new_tokens, n_all = 3 * n + 1;
    s->p = *p;
    s->n_kept = (p->n_ends > 0 ? 1 + p->n_ends : 2) * p->n_beams;
    s->beams = calloc(n_all, sizeof *s->beams);
    s->tokens = calloc(n_all * length, sizeof *s->tokens);
    s->best = calloc((size_t)s->n_kept, sizeof *s->best);
    if (!s->beams || !s->tokens || !s->best) {
        beam_free(s);
        return fail_memory(error, "a beam search", n_all * length * sizeof *s->tokens);
    }
    for (size_t i = 0; i < n_all; i++) {
        s->beams[i] = (struct beam){.tokens = s->tokens + i * length, .score = NOTHING};
    }
    s->running = s->beams;
    s->next = s->running + n;
    s->hypotheses = s->next + n;
    s->spare = s->beams[3 * n];
    s->running[0].score = 0; /* all are the same, empty: one of them goes on */
    *out = s;
    return CANDID_OK;
}

void beam_free(struct beam_search *s) {
    if (s) {
        free(s->beams);
        free(s->tokens);
        free(s->best);
        free(s);
    }
}

const struct beam *beam_running(const struct beam_search *s) {
    return s->running;
}

const struct beam *beam_hypotheses(const struct beam_search *s) {
    return s->hypotheses;
}

static bool is_end(const struct beam_search *s, int32_t token) {
    for (int i = 0; i < s->p.n_ends; i++) {
        if (s->p.ends[i] == token) {
            return true;
        }
    }
    return false;
}

/* Fills s->best, highest sum first; of equal ones the lower beam and token come first. */
static void find_best(struct beam_search *s, const float *log_probs) {
    int n = 0;
    for (int b = 0; b < s->p.n_beams; b++) {
        const float *row = log_probs + (size_t)b * (size_t)s->p.n_vocab;
        for (int32_t t = 0; t < s->p.n_vocab; t++) {
            const float sum = isnan(row[t]) ? -INFINITY : row[t] + s->running[b].score;
            if (n == s->n_kept && sum <= s->best[n - 1].sum) {
                continue;
            }
            int at = n < s->n_kept ? n++ : n - 1;
            for (; at > 0 && sum > s->best[at - 1].sum; at--) {
                s->best[at] = s->best[at - 1];
            }
            s->best[at] = (struct continuation){sum, b, t, false};
        }
    }
    for (int i = 0; i < n; i++) {
        s->best[i].over = s->n_tokens + 1 == s->p.max_new_tokens || is_end(s, s->best[i].token);
    }
}

/* to = the beam that c makes; their memory is apart. */
static void extend(const struct beam_search *s, const struct continuation *c, struct beam *to) {
    memcpy(to->tokens, s->running[c->parent].tokens, (size_t)s->n_tokens * sizeof *to->tokens);
    to->tokens[s->n_tokens] = c->token;
    to->n_tokens = s->n_tokens + 1;
    to->score = c->sum;
}

/* The best that are not over run on; those that are follow far behind. */
static void choose_running(struct beam_search *s, int *parents) {
    int n = 0;
    for (int over = 0; over < 2; over++) {
        for (int i = 0; i < s->n_kept && n < s->p.n_beams; i++) {
            if (s->best[i].over == over) {
                extend(s, &s->best[i], &s->next[n]);
                s->next[n].score += over ? NOTHING : 0;
                parents[n++] = s->best[i].parent;
            }
        }
    }
    struct beam *swap = s->running;
    s->running = s->next;
    s->next = swap;
}

static bool all_finished(const struct beam_search *s) {
    for (int i = 0; i < s->p.n_beams; i++) {
        if (!s->hypotheses[i].finished) {
            return false;
        }
    }
    return true;
}

/* A finished answer takes its place among the hypotheses, if it is good enough. */
static void add_hypothesis(struct beam_search *s, const struct continuation *c) {
    const int n = s->p.n_beams;
    const float score = c->sum / (float)pow(s->n_tokens + 1, (double)s->p.length_penalty);
    int at = n;
    while (at > 0 && (!s->hypotheses[at - 1].finished || score > s->hypotheses[at - 1].score)) {
        at--;
    }
    if (at == n) {
        return;
    }
    extend(s, c, &s->spare);
    s->spare.score = score;
    s->spare.finished = true;
    s->spare.ended = is_end(s, c->token);
    const struct beam dropped = s->hypotheses[n - 1];
    memmove(s->hypotheses + at + 1, s->hypotheses + at, (size_t)(n - 1 - at) * sizeof dropped);
    s->hypotheses[at] = s->spare;
    s->spare = dropped;
}

/* Whether a running beam may still beat the worst hypothesis. */
static bool can_improve(const struct beam_search *s) {
    if (!all_finished(s)) {
        return true;
    }
    const double penalty = (double)s->p.length_penalty;
    const int length = s->p.stopping == BEAM_STOP_NEVER && penalty > 0 ? s->p.max_new_tokens : s->n_tokens;
    return s->running[0].score / (float)pow(length, penalty) > s->hypotheses[s->p.n_beams - 1].score;
}

bool beam_step(struct beam_search *s, const float *log_probs, int *parents) {
    find_best(s, log_probs);
    const bool full = s->p.stopping == BEAM_STOP_EARLY && all_finished(s);
    bool all_over = true;
    for (int i = 0; i < s->n_kept; i++) {
        all_over = all_over && s->best[i].over;
        if (i < s->p.n_beams && s->best[i].over && !full) {
            add_hypothesis(s, &s->best[i]);
        }
    }
    choose_running(s, parents);
    s->n_tokens++;
    return !all_over && can_improve(s) && !(s->p.stopping == BEAM_STOP_EARLY && all_finished(s));
}
