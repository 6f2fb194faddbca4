/* OPERA's kept steps: when to go back, to where, and what is not to be chosen again there. */
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "decode/opera_internal.h"

/* ---- states ---- */

candid_status opera_state_create(struct opera *o, int step, struct opera_state **out, candid_error *error) {
    const struct opera_options *options = &o->params.options;
    const size_t n_beams = (size_t)o->params.n_beams;
    const int n_candidates = step == 0 ? options->first_candidates : options->candidates;
    const size_t n_options = (step == 0 ? 1 : n_beams) * (size_t)n_candidates;
    struct opera_state *s = calloc(1, sizeof *s);
    if (!s) {
        return fail_memory(error, "a step of the search", sizeof *s);
    }
    s->step = step;
    s->n_candidates = n_candidates;
    s->nodes = calloc(n_beams, sizeof *s->nodes);
    s->scores = calloc(n_beams, sizeof *s->scores);
    s->candidates = calloc(n_options, sizeof *s->candidates);
    s->candidate_scores = calloc(n_options, sizeof *s->candidate_scores);
    s->parents = calloc(n_beams, sizeof *s->parents);
    s->tokens = calloc(n_beams, sizeof *s->tokens);
    candid_status status = beam_scorer_init(&s->scorer, o->params.n_beams, error);
    if (status == CANDID_OK &&
        (!s->nodes || !s->scores || !s->candidates || !s->candidate_scores || !s->parents || !s->tokens)) {
        status = fail_memory(error, "a step of the search", (n_beams + n_options) * sizeof *s->candidates);
    }
    if (status != CANDID_OK) {
        opera_state_free(o, s);
        return status;
    }
    *out = s;
    return CANDID_OK;
}

void opera_state_free(struct opera *o, struct opera_state *s) {
    if (!s) {
        return;
    }
    if (o->shared == s) {
        o->shared = NULL;
    }
    for (int b = 0; b < s->n_running; b++) {
        tree_release(&o->tree, s->nodes[b]);
    }
    beam_scorer_free(&s->scorer);
    free(s->nodes);
    free(s->scores);
    free(s->candidates);
    free(s->candidate_scores);
    free(s->parents);
    free(s->tokens);
    free(s);
}

void opera_push(struct opera *o, struct opera_state *s) {
    if (o->n_states == o->params.options.history) {
        opera_state_free(o, o->states[0]);
        o->n_states--;
        memmove(o->states, o->states + 1, (size_t)o->n_states * sizeof *o->states);
    }
    o->states[o->n_states++] = s;
}

/* ---- locations ---- */

candid_status opera_note_locs(struct opera *o, candid_error *error) {
    const int n_beams = o->params.n_beams;
    if (o->n_locs == o->locs_capacity) {
        const int capacity = o->locs_capacity > 0 ? 2 * o->locs_capacity : 64;
        const size_t bytes = (size_t)capacity * (size_t)n_beams * sizeof *o->locs;
        int *locs = realloc(o->locs, bytes);
        if (!locs) {
            return fail_memory(error, "the columns of past steps", bytes);
        }
        o->locs = locs;
        o->locs_capacity = capacity;
    }
    memcpy(o->locs + (size_t)o->n_locs++ * (size_t)n_beams, o->beam_locs, (size_t)n_beams * sizeof *o->locs);
    o->loc = opera_mode(o->beam_locs, n_beams);
    return CANDID_OK;
}

/* Whether in every beam enough steps of the whole answer have the location of all beams. */
static bool repeats(const struct opera *o) {
    const int n_beams = o->params.n_beams, threshold = o->params.options.threshold;
    for (int b = 0; b < n_beams; b++) {
        int count = 0;
        for (int t = 0; t < o->n_locs; t++) {
            count += o->locs[(size_t)t * (size_t)n_beams + (size_t)b] == o->loc;
        }
        if (o->params.options.threshold_strict ? count <= threshold : count < threshold) {
            return false;
        }
    }
    return true;
}

/*
 * The token after the column's, or the column's own where that has been chosen anew often enough. A step and the one
 * after it must be kept: what was chosen there is rejected. (Where the released program has dropped the step it goes to
 * the one before its oldest one, fails, and carries on without going back.)
 */
int opera_rollback_position(struct opera *o) {
    const struct opera_options *options = &o->params.options;
    if (o->loc < options->rollback_min || !repeats(o)) {
        return -1;
    }
    int position = o->loc + 1;
    if (position >= OPERA_SLOTS || (options->monotone && position < o->last_rollback)) {
        return -1;
    }
    position -= o->slots[position].n_rollbacks >= options->max_rollbacks;
    if (o->slots[position].n_rollbacks >= options->max_rollbacks || position < o->states[0]->step ||
        position >= opera_now(o)->step) {
        return -1;
    }
    o->slots[position].n_rollbacks++;
    return position;
}

/* ---- going back ---- */

static candid_status reject(struct opera_slot *slot, const struct opera_state *s, int n_beams, candid_error *error) {
    const int n = slot->n_rejects + n_beams;
    if (n > slot->capacity) {
        struct opera_reject *rejects = realloc(slot->rejects, 2 * (size_t)n * sizeof *rejects);
        if (!rejects) {
            return fail_memory(error, "rejected tokens", 2 * (size_t)n * sizeof *rejects);
        }
        slot->rejects = rejects;
        slot->capacity = 2 * n;
    }
    for (int b = 0; b < n_beams; b++) {
        slot->rejects[slot->n_rejects++] = (struct opera_reject){.parent = s->parents[b], .token = s->tokens[b]};
    }
    return CANDID_OK;
}

static candid_status note_rollback(struct opera *o, int position, candid_error *error) {
    struct opera_counters *c = &o->counters;
    if (c->n_rollbacks == o->rollbacks_capacity) {
        const int capacity = c->n_rollbacks > 0 ? 2 * c->n_rollbacks : 16;
        struct opera_rollback *rollbacks = realloc(o->rollbacks, (size_t)capacity * sizeof *rollbacks);
        if (!rollbacks) {
            return fail_memory(error, "the record of rollbacks", (size_t)capacity * sizeof *rollbacks);
        }
        o->rollbacks = rollbacks;
        o->rollbacks_capacity = capacity;
    }
    o->rollbacks[c->n_rollbacks++] = (struct opera_rollback){.step = opera_now(o)->step, .loc = o->loc, .to = position};
    return CANDID_OK;
}

candid_status opera_go_back(struct opera *o, int position, candid_error *error) {
    TRY(note_rollback(o, position, error));
    while (opera_now(o)->step > position) {
        opera_state_free(o, opera_now(o));
        o->n_states--;
    }
    TRY(reject(&o->slots[position], opera_now(o), o->params.n_beams, error));
    const int last = o->params.options.clean_rejects ? OPERA_SLOTS - 1 : position + 1;
    for (int p = position + 1; p <= last && p < OPERA_SLOTS; p++) {
        o->slots[p].n_rejects = 0;
    }
    o->n_locs = position + 1;
    o->last_rollback = position;
    o->shared = o->params.options.share_hypotheses ? opera_now(o) : NULL;
    return CANDID_OK;
}
