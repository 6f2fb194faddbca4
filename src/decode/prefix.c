/* Common beginnings of prompts. */
#include "decode/prefix.h"

#include <string.h>

#include "core/status.h"
#include "decode/prefill.h"
#include "interventions/method.h"

/* The first positions, at most `end`, whose keys and values no plan changes. */
static int untouched(const struct plan *plan, int end) {
    if (!plan) {
        return end;
    }
    if (plan->unlock_end > 0 || plan->whole_prompt) {
        return 0;
    }
    unsigned edited = 0;
    for (int i = 0; i < plan->n_steps; i++) {
        edited |= plan->steps[i].kind < PLAN_PROBE_PEAKS ? plan->steps[i].rows : 0;
    }
    int n = 0;
    while (n < end && n < plan->n_prompt && !(plan->row_sets[n] & edited)) {
        n++;
    }
    return n;
}

/* Whether the method of a step needs the whole prompt before it can edit: what it measures there is compared. */
static bool needs_whole(const struct plan_step *step) {
    return step->kind == PLAN_PROBE_COLUMNS || step->kind == PLAN_PROBE_HEADS || step->kind == PLAN_PROBE_HIDDEN;
}

const char *prefix_blocker(const struct plan *plan, int shared) {
    if (!plan || shared >= plan->n_prompt || (plan->row_sets[shared] & ROW_QUESTION)) {
        return NULL; /* all up to the question is shared */
    }
    for (int i = 0; i < plan->n_steps; i++) {
        const struct plan_step *step = &plan->steps[i];
        const bool edits = step->kind < PLAN_PROBE_PEAKS && (step->rows & plan->row_sets[shared]);
        if (step->owner && (needs_whole(step) || edits)) {
            return step->owner->name;
        }
    }
    for (int i = 0; i < plan->n_notes; i++) {
        if (plan->notes[i].acts && plan->unlock_end > 0) {
            return plan->notes[i].method->name;
        }
    }
    return NULL;
}

static bool same_chunk(const struct generation *a, const struct prompt_chunk *x, const struct generation *b,
                       const struct prompt_chunk *y) {
    if (x->image != y->image) {
        return false;
    }
    if (x->image >= 0) { /* the same tokens in the same order */
        return a->visual_tokens == b->visual_tokens && a->images[x->image].n_tokens == b->images[y->image].n_tokens &&
               a->images[x->image].order == b->images[y->image].order;
    }
    return x->count == y->count && memcmp(a->prompt->tokens.ids + x->begin, b->prompt->tokens.ids + y->begin,
                                          x->count * sizeof *a->prompt->tokens.ids) == 0;
}

/* Leading tokens of a text chunk that are equal. */
static int common_tokens(const struct generation *a, const struct prompt_chunk *x, const struct generation *b,
                         const struct prompt_chunk *y) {
    size_t n = 0;
    while (n < x->count && n < y->count && a->prompt->tokens.ids[x->begin + n] == b->prompt->tokens.ids[y->begin + n]) {
        n++;
    }
    return (int)n;
}

int prefix_shared(const struct generation *a, const struct generation *b, int least_own) {
    int n = 0;
    for (size_t i = 0; i < a->prompt->n_chunks && i < b->prompt->n_chunks; i++) {
        const struct prompt_chunk *x = &a->prompt->chunks[i], *y = &b->prompt->chunks[i];
        if (!same_chunk(a, x, b, y)) {
            n += x->image < 0 && y->image < 0 ? common_tokens(a, x, b, y) : 0;
            break;
        }
        n += x->image >= 0 ? a->images[x->image].n_tokens : (int)x->count;
    }
    const int most = (int)prompt_length(b->prompt, b->images) - least_own;
    n = n < most ? n : most;
    return n > 0 ? untouched(b->plan, untouched(a->plan, n)) : 0;
}

/* The tokens of a ring see all of it (CCA), so that a pass cannot end in the middle: such an image is read whole or not
 * at all. */
static int before_split_image(const struct generation *g, int end) {
    int begin = 0;
    for (size_t i = 0; i < g->prompt->n_chunks && begin < end; i++) {
        const struct prompt_chunk *chunk = &g->prompt->chunks[i];
        const int n = chunk->image < 0 ? (int)chunk->count : g->images[chunk->image].n_tokens;
        if (chunk->image >= 0 && g->images[chunk->image].order == IMAGE_RINGS && begin + n > end) {
            return begin;
        }
        begin += n;
    }
    return end;
}

int prefix_shared_by_all(const struct generation *gs, int n, int least_own) {
    int shared = (int)prompt_length(gs[0].prompt, gs[0].images) - least_own;
    for (int i = 1; i < n; i++) {
        const int both = prefix_shared(&gs[0], &gs[i], least_own);
        shared = both < shared ? both : shared;
    }
    return shared > 0 ? before_split_image(&gs[0], shared) : 0;
}

candid_status prefix_read(const struct generation *gs, int n, int n_rows, struct kv_seq *seq, candid_error *error) {
    struct generation g = gs[0];
    g.seq = seq;
    if (g.plan) {
        TRY(plan_record_peaks(g.plan, error));
    }
    TRY(prefill_begin(&g, n_rows, error));
    for (int i = 1; i < n && g.plan; i++) {
        plan_replay_peaks(gs[i].plan, g.plan, n_rows);
    }
    return CANDID_OK;
}
