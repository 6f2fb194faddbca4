/*
 * OPERA's decoding written down as its description reads, for models of opera_toy.h: nothing is kept from one step to
 * the next but ids, scores and records, every attention row is computed again, every state is a copy. Include after
 * cmocka.h.
 */
#ifndef CANDID_TESTS_OPERA_NAIVE_H
#define CANDID_TESTS_OPERA_NAIVE_H

#include <math.h>

#include "model/quant.h"
#include "opera_toy.h"

#define NAIVE_TOKENS 200000 /* chosen in one decoding, those gone back from included */

struct naive_hypothesis {
    double score;
    int32_t ids[TOY_LENGTH], end;
    int n;
};

/* One object may be the running search's and a state's. */
struct naive_scorer {
    struct naive_hypothesis kept[TOY_BEAMS + 1];
    int n;
    double worst;
    struct naive_scorer *all; /* to be freed */
};

struct naive_state {
    int t;
    int32_t ids[TOY_BEAMS][TOY_LENGTH];
    int numbers[TOY_BEAMS][TOY_LENGTH]; /* of the ids: which choice they were */
    float scores[TOY_BEAMS];
    struct naive_scorer *scorer;
    int32_t candidates[TOY_BEAMS][TOY_CANDIDATES];
    float candidate_scores[TOY_BEAMS][TOY_CANDIDATES];
    int32_t tokens[TOY_BEAMS]; /* chosen in the step before */
    int parents[TOY_BEAMS];
};

struct naive_option {
    float score;
    int parent;
    int32_t token;
};

struct naive {
    const struct toy *m;
    const struct opera_params *p; /* resolved: first_candidates is a number */
    void (*change_logits)(float *logits, int n);
    float penalty; /* repetition penalty, 1: none */

    int t;
    int32_t ids[TOY_BEAMS][TOY_LENGTH];
    int numbers[TOY_BEAMS][TOY_LENGTH], n_chosen;
    float scores[TOY_BEAMS];
    struct naive_scorer *scorer, *scorers;
    int32_t tokens[TOY_BEAMS];
    int parents[TOY_BEAMS];
    struct naive_state *history;
    int n_history;
    int locs[TOY_LENGTH + 1][TOY_BEAMS], n_locs;
    int count[OPERA_SLOTS], last;
    struct naive_option rejected[TOY_LENGTH + 1][TOY_LENGTH * TOY_BEAMS];
    int n_rejected[TOY_LENGTH + 1];
    bool done;
    int n_rewarded, n_penalised, n_plain, n_filled;
};

/* What one iteration did. */
struct naive_event {
    int step, loc, rollback_to, beam_locs[TOY_BEAMS], parents[TOY_BEAMS];
    int32_t tokens[TOY_BEAMS];
    float scores[TOY_BEAMS];
};

static inline float naive_half(float x, bool on) {
    return on ? f16_to_f32(f32_to_f16(x)) : x;
}

static inline struct naive_scorer *naive_new_scorer(struct naive *s, const struct naive_scorer *from) {
    struct naive_scorer *scorer = calloc(1, sizeof *scorer);
    assert_non_null(scorer);
    if (from) {
        *scorer = *from;
    } else {
        scorer->worst = 1e9;
    }
    scorer->all = s->scorers;
    s->scorers = scorer;
    return scorer;
}

static inline void naive_add(const struct naive *s, struct naive_scorer *scorer, int beam, float sum, int32_t end) {
    struct naive_hypothesis h = {.score = (double)sum / (s->m->n_prompt + s->t), .n = s->t, .end = end};
    memcpy(h.ids, s->ids[beam], sizeof h.ids);
    if (scorer->n < s->p->n_beams || h.score > scorer->worst) {
        scorer->kept[scorer->n++] = h;
        if (scorer->n > s->p->n_beams) {
            int lowest = 0;
            for (int i = 1; i < scorer->n; i++) {
                lowest = scorer->kept[i].score < scorer->kept[lowest].score ? i : lowest;
            }
            memmove(&scorer->kept[lowest], &scorer->kept[lowest + 1], (size_t)(scorer->n - 1 - lowest) * sizeof h);
            scorer->n--;
            scorer->worst = INFINITY;
            for (int i = 0; i < scorer->n; i++) {
                scorer->worst = fmin(scorer->worst, scorer->kept[i].score);
            }
        } else {
            scorer->worst = fmin(h.score, scorer->worst);
        }
    }
}

/* The k-th best hypothesis: sorted upwards, the order of arrival kept among equal ones, taken from the end. */
static inline const struct naive_hypothesis *naive_ranked(const struct naive_scorer *scorer, int rank) {
    const struct naive_hypothesis *sorted[TOY_BEAMS + 1];
    for (int i = 0; i < scorer->n; i++) {
        int at = i;
        for (; at > 0 && sorted[at - 1]->score > scorer->kept[i].score; at--) {
            sorted[at] = sorted[at - 1];
        }
        sorted[at] = &scorer->kept[i];
    }
    return sorted[scorer->n - 1 - rank];
}

static inline void naive_logits(const struct naive *s, float logits[TOY_BEAMS][TOY_VOCAB]) {
    for (int b = 0; b < s->p->n_beams; b++) {
        toy_logits(s->m, s->ids[b], s->t, logits[b]);
        if (s->change_logits) {
            s->change_logits(logits[b], s->m->n_vocab);
        }
        for (int v = 0; v < s->m->n_vocab; v++) {
            logits[b][v] = naive_half(logits[b][v], s->p->options.logits_fp16);
        }
    }
}

static inline int naive_n_candidates(const struct naive *s, int t) {
    return t == 0 ? s->p->options.first_candidates : s->p->options.candidates;
}

/* Score of one candidate after a beam; *loc: its column. */
static inline float naive_score(struct naive *s, int beam, int32_t token, float logit, int *loc) {
    const struct opera_options *o = &s->p->options;
    int32_t ids[TOY_LENGTH];
    float w[TOY_LENGTH][TOY_LENGTH], image = 0.0f;
    memcpy(ids, s->ids[beam], sizeof ids);
    ids[s->t] = token;
    for (int i = 0; i <= s->t; i++) {
        float local[TOY_LENGTH];
        const struct opera_row row = toy_row(s->m, ids, i + 1, local);
        for (int j = 0; j <= i; j++) {
            w[i][j] = local[j] / row.sum;
        }
        image = row.image_mass / row.sum;
    }
    float phi = -1.0f;
    for (int j = 0; j <= s->t; j++) {
        float product = o->scale * w[j][j];
        for (int i = j + 1; i <= s->t; i++) {
            product *= o->scale * w[i][j];
        }
        const float score = naive_half(o->score_scale * product, o->score_fp16);
        if (score > phi) {
            phi = score;
            *loc = j;
        }
    }
    phi = o->phi_max > 0.0f && phi > o->phi_max ? o->phi_max : phi;
    if (s->t + 1 <= o->image_reward_len) {
        s->n_rewarded += o->alpha * image > 0.0f;
        return naive_half(logit + o->alpha * image, o->logits_fp16);
    }
    s->n_penalised += o->alpha * phi > 0.0f;
    return naive_half(logit - o->alpha * phi, o->logits_fp16);
}

static inline int naive_mode(const int *values, int n) {
    int best = -1, most = 0;
    for (int value = 0; value < 1000; value++) { /* upwards: ties to the smallest */
        int count = 0;
        for (int i = 0; i < n; i++) {
            count += values[i] == value;
        }
        if (count > most) {
            best = value;
            most = count;
        }
    }
    return best;
}

static inline void naive_candidates(struct naive *s, struct naive_state *state, float logits[TOY_BEAMS][TOY_VOCAB]) {
    const int n = naive_n_candidates(s, s->t);
    for (int b = 0; b < s->p->n_beams; b++) {
        bool taken[TOY_VOCAB] = {false};
        int locs[TOY_CANDIDATES], n_infinite = 0;
        for (int c = 0; c < n; c++) {
            int best = -1;
            for (int v = 0; v < s->m->n_vocab; v++) {
                if (!taken[v] && (best < 0 || logits[b][v] > logits[b][best])) {
                    best = v;
                }
            }
            taken[best] = true;
            state->candidates[b][c] = best;
            state->candidate_scores[b][c] = naive_score(s, b, best, logits[b][best], &locs[c]);
            n_infinite += state->candidate_scores[b][c] == -INFINITY;
        }
        s->locs[s->n_locs][b] = naive_mode(locs, n);
        if (n_infinite == n && s->p->options.plain_fallback) {
            for (int c = 0; c < n; c++) {
                state->candidate_scores[b][c] = logits[b][state->candidates[b][c]];
            }
            s->n_plain++;
        }
    }
    s->n_locs++;
}

static inline struct naive_state *naive_state_of(const struct naive *s, int t) {
    for (int i = 0; i < s->n_history; i++) {
        if (s->history[i].t == t) {
            return &s->history[i];
        }
    }
    return NULL;
}

static inline int naive_position(struct naive *s, int g) {
    const struct opera_options *o = &s->p->options;
    for (int b = 0; b < s->p->n_beams; b++) {
        int count = 0;
        for (int i = 0; i < s->n_locs; i++) {
            count += s->locs[i][b] == g;
        }
        if (!(o->threshold_strict ? count > o->threshold : count >= o->threshold)) {
            return -1;
        }
    }
    if (g < o->rollback_min || (o->monotone && g + 1 < s->last)) {
        return -1;
    }
    int pos = g + 1;
    if (s->count[pos] >= o->max_rollbacks) {
        pos = g;
        if (s->count[pos] >= o->max_rollbacks) {
            return -1;
        }
    }
    if (!naive_state_of(s, pos) || !naive_state_of(s, pos + 1)) {
        return -1;
    }
    s->count[pos]++;
    s->last = pos;
    return pos;
}

static inline bool naive_is_rejected(const struct naive *s, int t, int parent, int32_t token) {
    for (int i = 0; i < s->n_rejected[t]; i++) {
        if (s->rejected[t][i].parent == parent && s->rejected[t][i].token == token) {
            return true;
        }
    }
    return false;
}

static inline void naive_restore(struct naive *s, int pos) {
    const struct opera_options *o = &s->p->options;
    const int length = s->t + 1;
    s->n_history -= length - pos - 2;
    s->n_locs -= length - pos - 2;
    const struct naive_state *after = &s->history[s->n_history - 1], *at = &s->history[s->n_history - 2];
    assert_int_equal(after->t, pos + 1);
    assert_int_equal(at->t, pos);
    memcpy(s->ids, at->ids, sizeof s->ids);
    memcpy(s->numbers, at->numbers, sizeof s->numbers);
    memcpy(s->scores, at->scores, sizeof s->scores);
    s->scorer = o->share_hypotheses ? at->scorer : naive_new_scorer(s, at->scorer);
    s->t = pos;
    s->n_rejected[pos + 1] = 0;
    for (int q = pos + 1; q <= TOY_LENGTH && o->clean_rejects; q++) {
        s->n_rejected[q] = 0;
    }
    for (int b = 0; b < s->p->n_beams; b++) {
        s->rejected[pos][s->n_rejected[pos]++] =
            (struct naive_option){.parent = after->parents[b], .token = after->tokens[b]};
    }
    s->n_history--;
    s->n_locs--;
}

/* Rows of logits among which the choice is made anew. */
static inline void naive_again(struct naive *s, float logits[TOY_BEAMS][TOY_VOCAB], float rows[TOY_BEAMS][TOY_VOCAB]) {
    const struct opera_options *o = &s->p->options;
    const struct naive_state *at = naive_state_of(s, s->t);
    const int n_running = s->t == 0 ? 1 : s->p->n_beams;
    for (int b = 0; b < s->p->n_beams; b++) {
        int n_left = 0;
        for (int v = 0; v < s->m->n_vocab; v++) {
            rows[b][v] = o->plain_fallback ? -INFINITY : -999.0f;
        }
        for (int c = 0; c < naive_n_candidates(s, s->t); c++) {
            const int32_t token = at->candidates[b][c];
            if (at->candidate_scores[b][c] == -INFINITY || !naive_is_rejected(s, s->t, b, token)) {
                rows[b][token] = at->candidate_scores[b][c];
                n_left += rows[b][token] > -INFINITY;
            }
        }
        if (!o->retry_full_vocab && (!o->plain_fallback || n_left > 0)) {
            continue;
        }
        s->n_plain += !o->retry_full_vocab && b < n_running;
        float lowest = INFINITY;
        for (int v = 0; v < s->m->n_vocab; v++) {
            lowest = logits[b][v] > -INFINITY ? fminf(lowest, logits[b][v]) : lowest;
        }
        const float shift = naive_half(999.0f + lowest, o->logits_fp16);
        for (int v = 0; v < s->m->n_vocab; v++) {
            const bool strike = logits[b][v] > -INFINITY && naive_is_rejected(s, s->t, b, v);
            rows[b][v] = strike ? -999.0f : naive_half(logits[b][v] - shift, o->logits_fp16);
        }
    }
}

static inline void naive_sums(const struct naive *s, int beam, const float *row, float *sums) {
    float greatest = -INFINITY;
    double sum = 0.0;
    for (int v = 0; v < s->m->n_vocab; v++) {
        greatest = fmaxf(greatest, row[v]);
    }
    for (int v = 0; v < s->m->n_vocab; v++) {
        sum += exp((double)(row[v] - greatest));
    }
    for (int v = 0; v < s->m->n_vocab; v++) {
        bool seen = false;
        for (int i = 0; i < s->t; i++) {
            seen = seen || s->ids[beam][i] == v;
        }
        sums[v] = row[v] - greatest - (float)log(sum);
        sums[v] = (seen && sums[v] < 0.0f ? sums[v] * s->penalty : sums[v]) + s->scores[beam];
    }
}

static inline bool naive_is_end(const struct naive *s, int32_t token) {
    for (int i = 0; i < s->p->n_end_tokens; i++) {
        if (s->p->end_tokens[i] == token) {
            return true;
        }
    }
    return false;
}

/* The best of all options in `sums`, which is then taken out; false when only -infinity is left. */
static inline bool naive_best(const struct naive *s, float sums[TOY_BEAMS][TOY_VOCAB], struct naive_option *out) {
    out->score = -INFINITY;
    for (int b = 0; b < s->p->n_beams; b++) {
        for (int v = 0; v < s->m->n_vocab; v++) {
            if (sums[b][v] > out->score) {
                *out = (struct naive_option){sums[b][v], b, v};
            }
        }
    }
    if (out->score > -INFINITY) {
        sums[out->parent][out->token] = -INFINITY;
        return true;
    }
    return false;
}

/* Beams of the first step that are copies of the first. Their score of -1e9 keeps them out where others have -999. */
static inline void naive_no_copies(const struct naive *s, float sums[TOY_BEAMS][TOY_VOCAB]) {
    for (int b = 1; s->t == 0 && s->p->options.plain_fallback && b < s->p->n_beams; b++) {
        for (int v = 0; v < s->m->n_vocab; v++) {
            sums[b][v] = -INFINITY;
        }
    }
}

static inline int naive_fill(struct naive *s, int n, bool again, float logits[TOY_BEAMS][TOY_VOCAB],
                             struct naive_option *chosen) {
    static float sums[TOY_BEAMS][TOY_VOCAB];
    const struct naive_state *at = naive_state_of(s, s->t);
    for (int b = 0; b < s->p->n_beams; b++) {
        float lowest = INFINITY;
        naive_sums(s, b, logits[b], sums[b]);
        for (int v = 0; v < s->m->n_vocab; v++) {
            lowest = sums[b][v] > -INFINITY ? fminf(lowest, sums[b][v]) : lowest;
        }
        for (int v = 0; v < s->m->n_vocab; v++) {
            bool least = again && naive_is_rejected(s, s->t, b, v);
            for (int c = 0; c < naive_n_candidates(s, s->t); c++) {
                least = least || at->candidates[b][c] == v;
            }
            sums[b][v] = least && sums[b][v] > -INFINITY ? lowest : sums[b][v];
            sums[b][v] = naive_is_end(s, v) ? -INFINITY : sums[b][v];
        }
    }
    for (int i = 0; i < n; i++) {
        sums[chosen[i].parent][chosen[i].token] = -INFINITY;
    }
    naive_no_copies(s, sums);
    for (; n < s->p->n_beams && naive_best(s, sums, &chosen[n]); n++) {
        s->n_filled++;
    }
    return n;
}

/* From rows of logits to the next beams. False: there are not enough. */
static inline bool naive_choose(struct naive *s, bool again, float logits[TOY_BEAMS][TOY_VOCAB],
                                float rows[TOY_BEAMS][TOY_VOCAB]) {
    static float sums[TOY_BEAMS][TOY_VOCAB];
    const int n_beams = s->p->n_beams, per_beam = 1 + (s->p->n_end_tokens > 1 ? s->p->n_end_tokens : 1);
    struct naive_option chosen[TOY_BEAMS], option;
    int n = 0;
    float best = -INFINITY;
    for (int b = 0; b < n_beams; b++) {
        naive_sums(s, b, rows[b], sums[b]);
    }
    naive_no_copies(s, sums);
    for (int rank = 0; rank < per_beam * n_beams && naive_best(s, sums, &option); rank++) {
        best = fmaxf(best, option.score);
        if (n == n_beams) {
            continue;
        }
        if (!naive_is_end(s, option.token)) {
            chosen[n++] = option;
        } else if (rank < n_beams) {
            naive_add(s, s->scorer, option.parent, option.score, option.token);
        }
    }
    if (s->p->options.plain_fallback) {
        n = naive_fill(s, n, again, logits, chosen);
    }
    if (n < n_beams) {
        return false;
    }
    int32_t ids[TOY_BEAMS][TOY_LENGTH];
    int numbers[TOY_BEAMS][TOY_LENGTH];
    for (int b = 0; b < n_beams; b++) {
        best = fmaxf(best, chosen[b].score);
        memcpy(ids[b], s->ids[chosen[b].parent], sizeof ids[b]);
        memcpy(numbers[b], s->numbers[chosen[b].parent], sizeof numbers[b]);
        numbers[b][s->t] = s->n_chosen++;
        ids[b][s->t] = s->tokens[b] = chosen[b].token;
        s->parents[b] = chosen[b].parent;
        s->scores[b] = chosen[b].score;
    }
    memcpy(s->ids, ids, sizeof ids);
    memcpy(s->numbers, numbers, sizeof numbers);
    s->t++;
    s->done = s->scorer->n == n_beams && s->scorer->worst >= (double)best / (s->m->n_prompt + s->t);
    if (!s->done && s->t == s->p->max_new_tokens) {
        for (int b = 0; b < n_beams; b++) {
            naive_add(s, s->scorer, b, s->scores[b], -1);
        }
        s->done = true;
    }
    return true;
}

static inline void naive_open(struct naive *s, const struct toy *m, const struct opera_params *p) {
    *s = (struct naive){.m = m, .p = p, .penalty = 1.0f, .last = -1};
    s->history = calloc((size_t)TOY_LENGTH + 1, sizeof *s->history);
    assert_non_null(s->history);
    s->scorer = naive_new_scorer(s, NULL);
    for (int b = 1; b < p->n_beams; b++) {
        s->scores[b] = -1e9f;
    }
}

/* One iteration. False: the logits leave fewer continuations than beams. */
static inline bool naive_step(struct naive *s, struct naive_event *e) {
    static float logits[TOY_BEAMS][TOY_VOCAB], rows[TOY_BEAMS][TOY_VOCAB];
    struct naive_state state = {.t = s->t, .scorer = naive_new_scorer(s, s->scorer)};
    memcpy(state.ids, s->ids, sizeof state.ids);
    memcpy(state.numbers, s->numbers, sizeof state.numbers);
    memcpy(state.scores, s->scores, sizeof state.scores);
    memcpy(state.tokens, s->tokens, sizeof state.tokens);
    memcpy(state.parents, s->parents, sizeof state.parents);
    naive_logits(s, logits);
    const int n_plain = s->n_plain, n_rewarded = s->n_rewarded, n_penalised = s->n_penalised;
    naive_candidates(s, &state, logits);
    if (s->t == 0) { /* the beams are one and counted once */
        s->n_plain = n_plain + (s->n_plain - n_plain) / s->p->n_beams;
        s->n_rewarded = n_rewarded + (s->n_rewarded - n_rewarded) / s->p->n_beams;
        s->n_penalised = n_penalised + (s->n_penalised - n_penalised) / s->p->n_beams;
    }
    if (s->n_history >= s->p->options.history) {
        memmove(s->history, s->history + 1, (size_t)--s->n_history * sizeof *s->history);
    }
    s->history[s->n_history++] = state;

    *e = (struct naive_event){.step = s->t, .rollback_to = -1};
    memcpy(e->beam_locs, s->locs[s->n_locs - 1], sizeof e->beam_locs);
    e->loc = naive_mode(e->beam_locs, s->p->n_beams);
    const int pos = naive_position(s, e->loc);
    if (pos >= 0) {
        e->rollback_to = pos;
        naive_restore(s, pos);
        naive_logits(s, logits);
        naive_again(s, logits, rows);
    } else {
        for (int b = 0; b < s->p->n_beams; b++) {
            for (int v = 0; v < s->m->n_vocab; v++) {
                rows[b][v] = s->p->options.plain_fallback ? -INFINITY : -999.0f;
            }
            for (int c = 0; c < naive_n_candidates(s, s->t); c++) {
                rows[b][state.candidates[b][c]] = state.candidate_scores[b][c];
            }
        }
    }
    if (!naive_choose(s, pos >= 0, logits, rows)) {
        return false;
    }
    memcpy(e->tokens, s->tokens, sizeof e->tokens);
    memcpy(e->parents, s->parents, sizeof e->parents);
    memcpy(e->scores, s->scores, sizeof e->scores);
    return true;
}

static inline int naive_mark(bool *marked, int numbers[TOY_BEAMS][TOY_LENGTH], int n_beams, int t) {
    int n = 0;
    for (int b = 0; b < n_beams; b++) {
        for (int i = 0; i < t; i++) {
            assert_true(numbers[b][i] < NAIVE_TOKENS);
            n += !marked[numbers[b][i]];
            marked[numbers[b][i]] = true;
        }
    }
    return n;
}

/* Distinct tokens in the running beams and in the steps that are kept beside the coming one. */
static inline int naive_live_tokens(struct naive *s) {
    static bool marked[NAIVE_TOKENS];
    memset(marked, 0, (size_t)s->n_chosen * sizeof *marked);
    int n = naive_mark(marked, s->numbers, s->p->n_beams, s->t);
    const int kept = s->n_history < s->p->options.history ? s->n_history : s->p->options.history - 1;
    for (int i = s->n_history - kept; i < s->n_history; i++) {
        n += naive_mark(marked, s->history[i].numbers, s->p->n_beams, s->history[i].t);
    }
    return n;
}

static inline void naive_close(struct naive *s) {
    while (s->scorers) {
        struct naive_scorer *next = s->scorers->all;
        free(s->scorers);
        s->scorers = next;
    }
    free(s->history);
}

#endif
