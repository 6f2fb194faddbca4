/* Lanes times hypotheses. */
#include "decode/group.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "decode/contrast.h"
#include "decode/prefill.h"

struct lane {
    struct branch_input *branch; /* NULL: the answer's own lane */
    struct kv_seq **seqs;        /* [capacity], n used; NULL once the branch has ended */
    int position;                /* RoPE position of the next token, the same for all hypotheses */
    struct plan *plan;
};

struct group {
    const struct generation *g;
    int n, capacity;
    struct lane *lanes; /* [n_lanes], the first is the answer's own */
    int n_lanes;
    int n_generated;          /* tokens fed to every hypothesis */
    struct forward_row *rows; /* [row_capacity] */
    float *logits;            /* (row_capacity, n_vocab): lane after lane */
    size_t row_capacity;
};

static size_t n_vocab(const struct group *group) {
    return (size_t)group->g->weights->n_vocab;
}

/* ---- life ---- */

static void end_lane(const struct group *group, struct lane *lane) {
    for (int i = 0; lane->seqs && i < group->n; i++) {
        if (lane->seqs[i] != group->g->seq) {
            kv_seq_free(lane->seqs[i]);
        }
    }
    free(lane->seqs);
    lane->seqs = NULL;
}

void group_free(struct group *group) {
    if (group) {
        for (int i = 0; i < group->n_lanes; i++) {
            end_lane(group, &group->lanes[i]);
        }
        free(group->lanes);
        free(group->rows);
        free(group->logits);
        free(group);
    }
}

static candid_status make_room(struct group *group, size_t rows, candid_error *error) {
    if (rows <= group->row_capacity) {
        return CANDID_OK;
    }
    const size_t bytes = rows * n_vocab(group) * sizeof(float);
    float *logits = realloc(group->logits, bytes);
    if (!logits) {
        return fail_memory(error, "logits", bytes);
    }
    group->logits = logits;
    struct forward_row *grown = realloc(group->rows, rows * sizeof *grown);
    if (!grown) {
        return fail_memory(error, "the rows of a step", rows * sizeof *grown);
    }
    group->rows = grown;
    group->row_capacity = rows;
    return CANDID_OK;
}

/* ---- prompts ---- */

/* Whether a plan may change what rows before `end` leave in the cache. */
static bool touches_prefix(const struct plan *plan, int end) {
    if (!plan) {
        return false;
    }
    if (plan->unlock_end > 0 || plan->whole_prompt) {
        return true;
    }
    unsigned sets = 0;
    for (int i = 0; i < end && i < plan->n_prompt; i++) {
        sets |= plan->row_sets[i];
    }
    for (int i = 0; i < plan->n_steps; i++) {
        if (plan->steps[i].kind < PLAN_PROBE_PEAKS && (plan->steps[i].rows & sets)) {
            return true;
        }
    }
    return false;
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

/* A pass of few rows is computed by other kernels, which round differently: leave a branch more than that to read. */
#define LEAST_OWN_ROWS (LLAMA_FEW_ROWS + 1)

/* Positions that two prompts have in common and that no plan changes. */
static int shared_prefix(const struct generation *a, const struct generation *b) {
    int n = 0;
    size_t i = 0;
    for (; i < a->prompt->n_chunks && i < b->prompt->n_chunks; i++) {
        const struct prompt_chunk *x = &a->prompt->chunks[i], *y = &b->prompt->chunks[i];
        if (!same_chunk(a, x, b, y)) {
            n += x->image < 0 && y->image < 0 ? common_tokens(a, x, b, y) : 0;
            break;
        }
        n += x->image >= 0 ? a->images[x->image].n_tokens : (int)x->count;
    }
    const int most = (int)prompt_length(b->prompt, b->images) - LEAST_OWN_ROWS;
    n = n < most ? n : most;
    return n <= 0 || touches_prefix(a->plan, n) || touches_prefix(b->plan, n) ? 0 : n;
}

/* What a branch reads, as a generation. */
static struct generation reading(const struct generation *g, const struct branch_input *branch) {
    struct generation b = *g;
    b.prompt = branch->prompt;
    b.images = branch->images;
    b.visual_tokens = branch->visual_tokens;
    b.plan = branch->plan;
    return b;
}

/* The sequence of a branch's prompt; logits: of its last row, room for ROLE_COUNT rows. */
static candid_status read_branch(struct group *group, struct lane *lane, struct kv_seq **out, float *logits,
                                 candid_error *error) {
    const struct generation *g = group->g;
    struct generation b = reading(g, lane->branch);
    const int shared = shared_prefix(g, &b);
    struct kv_seq *seq = NULL;
    if (shared > 0) {
        TRY(kv_fork(group->lanes[0].seqs[0], &seq, error));
        kv_truncate(seq, shared);
    } else {
        TRY(kv_seq_create(g->seq->cache, &seq, error));
    }
    b.seq = seq;
    const candid_status status = prefill(&b, logits, &lane->position, error);
    if (status != CANDID_OK) {
        kv_seq_free(seq);
        return status;
    }
    lane->branch->n_shared = shared;
    lane->branch->n_prompt = (int)prompt_length(b.prompt, b.images);
    *out = seq;
    return CANDID_OK;
}

/* ---- contrast ---- */

/* Branches whose time has come end. */
static void end_branches(struct group *group) {
    for (int l = 1; l < group->n_lanes; l++) {
        struct lane *lane = &group->lanes[l];
        const int until = lane->branch->n_tokens;
        if (lane->seqs && until > 0 && group->n_generated + 1 >= until) {
            end_lane(group, lane);
        }
    }
}

/* group->logits of all live lanes become those of the hypotheses. */
static void contrast(struct group *group) {
    struct contrast_term terms[MAX_BRANCHES];
    const size_t row = n_vocab(group), lane_size = (size_t)group->n * row;
    for (int h = 0; group->n_lanes > 1 && h < group->n; h++) {
        float *main = group->logits + (size_t)h * row;
        const float *next = main + lane_size;
        for (int l = 1; l < group->n_lanes; l++) {
            struct branch_input *b = group->lanes[l].branch;
            const bool live = group->lanes[l].seqs;
            terms[l - 1] = (struct contrast_term){live ? next : main, b->weight, b->added, b->cutoff};
            next += live ? lane_size : 0;
            b->n_contrasted += live;
        }
        const int removed = contrast_combine(main, terms, group->n_lanes - 1, (int)row, main);
        for (int l = 1; l < group->n_lanes; l++) {
            group->lanes[l].branch->n_removed += removed;
            group->lanes[l].branch->n_rows++;
        }
    }
    end_branches(group);
}

/* ---- public ---- */

static candid_status start(struct group *group, candid_error *error) {
    const struct generation *g = group->g;
    const size_t lanes = 1 + (size_t)g->n_branches;
    group->lanes = calloc(1 + MAX_BRANCHES, sizeof *group->lanes);
    if (!group->lanes) {
        return fail_memory(error, "a sequence group", (1 + MAX_BRANCHES) * sizeof *group->lanes);
    }
    TRY(make_room(group, lanes + ROLE_COUNT, error)); /* a prompt's companions have logits, too */
    group->n = 1;
    for (size_t i = 0; i < lanes; i++) {
        struct lane *lane = &group->lanes[i];
        lane->seqs = calloc((size_t)group->capacity, sizeof *lane->seqs);
        if (!lane->seqs) {
            return fail_memory(error, "a sequence group", (size_t)group->capacity * sizeof *lane->seqs);
        }
        float *logits = group->logits + i * n_vocab(group);
        group->n_lanes++;
        if (i == 0) {
            lane->plan = g->plan;
            lane->seqs[0] = g->seq;
            TRY(prefill(g, logits, &lane->position, error));
        } else {
            lane->branch = &g->branches[i - 1];
            lane->plan = lane->branch->plan;
            TRY(read_branch(group, lane, &lane->seqs[0], logits, error));
        }
    }
    contrast(group);
    return CANDID_OK;
}

candid_status group_create(const struct generation *g, int capacity, struct group **out, candid_error *error) {
    struct group *group = calloc(1, sizeof *group);
    if (!group) {
        return fail_memory(error, "a sequence group", sizeof *group);
    }
    group->g = g;
    group->capacity = capacity;
    const candid_status status = start(group, error);
    if (status != CANDID_OK) {
        group_free(group);
        return status;
    }
    *out = group;
    return CANDID_OK;
}

int group_size(const struct group *group) {
    return group->n;
}

float *group_logits(struct group *group) {
    return group->logits;
}

/* Sequences of a lane after reordering: the first child of a parent takes its sequence over, others are forks. */
static candid_status reorder_lane(const struct lane *lane, int n_before, const int *parents, int n,
                                  struct kv_seq **next, candid_error *error) {
    for (int i = 0; i < n; i++) {
        bool taken = false;
        for (int k = 0; k < i; k++) {
            taken = taken || parents[k] == parents[i];
        }
        next[i] = NULL;
        if (parents[i] < 0 || parents[i] >= n_before) {
            return fail(error, CANDID_ERROR_INTERNAL, "hypothesis %d goes on from %d of %d", i, parents[i], n_before);
        }
        if (!taken) {
            next[i] = lane->seqs[parents[i]];
            continue;
        }
        const candid_status status = kv_fork(lane->seqs[parents[i]], &next[i], error);
        if (status != CANDID_OK) {
            return status;
        }
    }
    return CANDID_OK;
}

static bool is_parent(const int *parents, int n, int i) {
    for (int k = 0; k < n; k++) {
        if (parents[k] == i) {
            return true;
        }
    }
    return false;
}

candid_status group_reorder(struct group *group, const int *parents, int n, candid_error *error) {
    if (n < 1 || n > group->capacity) {
        return fail(error, CANDID_ERROR_INTERNAL, "a group for %d hypotheses cannot hold %d", group->capacity, n);
    }
    TRY(make_room(group, (size_t)n, error)); /* the caller may write logits of all */
    const size_t count = (size_t)group->n_lanes * (size_t)n;
    struct kv_seq **next = calloc(count, sizeof *next);
    if (!next) {
        return fail_memory(error, "a sequence group", count * sizeof *next);
    }
    candid_status status = CANDID_OK;
    for (int l = 0; status == CANDID_OK && l < group->n_lanes; l++) {
        if (group->lanes[l].seqs) {
            status = reorder_lane(&group->lanes[l], group->n, parents, n, next + (size_t)l * (size_t)n, error);
        }
    }
    for (int l = 0; l < group->n_lanes; l++) {
        struct lane *lane = &group->lanes[l];
        struct kv_seq **own = next + (size_t)l * (size_t)n;
        if (!lane->seqs) {
            continue;
        }
        if (status != CANDID_OK) { /* only what was forked goes */
            for (int i = 0; i < n; i++) {
                bool old = false;
                for (int k = 0; k < group->n; k++) {
                    old = old || own[i] == lane->seqs[k];
                }
                if (!old) {
                    kv_seq_free(own[i]);
                }
            }
            continue;
        }
        for (int i = 0; i < group->n; i++) {
            if (!is_parent(parents, n, i)) {
                kv_seq_drop(lane->seqs[i], group->g->seq);
            }
        }
        memcpy(lane->seqs, own, (size_t)n * sizeof *own);
    }
    group->n = status == CANDID_OK ? n : group->n;
    free(next);
    return status;
}

/* The rows of one lane. */
static candid_status add_rows(const struct group *group, const struct lane *lane, const int32_t *tokens,
                              struct forward_row *rows, candid_error *error) {
    for (int h = 0; h < group->n; h++) {
        rows[h] = (struct forward_row){.seq = lane->seqs[h],
                                       .token = tokens[h],
                                       .position = lane->position,
                                       .want_logits = true,
                                       .plan = lane->plan};
        TRY(layout_append(&lane->seqs[h]->layout, SPAN_GENERATED, 1, -1, 0, 0, error));
    }
    return CANDID_OK;
}

candid_status group_step(struct group *group, const int32_t *tokens, candid_error *error) {
    const struct generation *g = group->g;
    const int n_rows = group_rows(group);
    TRY(make_room(group, (size_t)n_rows, error));
    TRY(llama_reserve(g->llama, n_rows, error));
    candid_status status = CANDID_OK;
    int n = 0;
    for (int l = 0; status == CANDID_OK && l < group->n_lanes; l++) {
        if (group->lanes[l].seqs) {
            status = add_rows(group, &group->lanes[l], tokens, group->rows + n, error);
            n += group->n;
        }
    }
    if (status == CANDID_OK) {
        status = llama_forward(g->llama, group->rows, n_rows, g->observer, group->logits, error);
    }
    for (int l = 0; l < group->n_lanes; l++) {
        struct lane *lane = &group->lanes[l];
        for (int h = 0; status != CANDID_OK && lane->seqs && h < group->n; h++) {
            layout_truncate(&lane->seqs[h]->layout, lane->seqs[h]->length);
        }
        lane->position += status == CANDID_OK && lane->seqs;
    }
    TRY(status);
    group->n_generated++;
    contrast(group);
    return CANDID_OK;
}

/* Feeds the tokens generated so far to a sequence that has read its prompt. */
static candid_status catch_up(const struct group *group, const struct lane *lane, struct kv_seq *seq,
                              const int32_t *tokens, int n_tokens, candid_error *error) {
    for (int t = 0; t < n_tokens; t++) {
        const struct forward_row row = {
            .seq = seq, .token = tokens[t], .position = lane->position + t, .plan = lane->plan};
        TRY(layout_append(&seq->layout, SPAN_GENERATED, 1, -1, 0, 0, error));
        TRY(llama_forward(group->g->llama, &row, 1, group->g->observer, NULL, error));
    }
    return CANDID_OK;
}

candid_status group_join(struct group *group, struct branch_input *branch, const int32_t *const *tokens, int n_tokens,
                         candid_error *error) {
    if (group->n_lanes > MAX_BRANCHES) {
        return fail(error, CANDID_ERROR_ARGUMENT, "expected at most %d branches", MAX_BRANCHES);
    }
    struct lane lane = {.branch = branch, .plan = branch->plan};
    lane.seqs = calloc((size_t)group->capacity, sizeof *lane.seqs);
    float *unused = malloc(ROLE_COUNT * n_vocab(group) * sizeof *unused);
    struct kv_seq *prompt = NULL;
    candid_status status =
        lane.seqs && unused ? CANDID_OK : fail_memory(error, "a branch", ROLE_COUNT * n_vocab(group) * sizeof *unused);
    if (status == CANDID_OK) {
        status = read_branch(group, &lane, &prompt, unused, error);
    }
    for (int h = 0; status == CANDID_OK && h < group->n; h++) {
        status = kv_fork(prompt, &lane.seqs[h], error);
        if (status == CANDID_OK) {
            status = catch_up(group, &lane, lane.seqs[h], tokens[h], n_tokens, error);
        }
    }
    kv_seq_free(prompt);
    free(unused);
    if (status != CANDID_OK) {
        end_lane(group, &lane);
        return status;
    }
    lane.position += n_tokens;
    group->lanes[group->n_lanes++] = lane;
    return CANDID_OK;
}

int group_rows(const struct group *group) {
    int n = 0;
    for (int l = 0; l < group->n_lanes; l++) {
        n += group->lanes[l].seqs ? group->n : 0;
    }
    return n;
}

double group_kv_bytes(const struct group *group) {
    double tokens = 0;
    for (int l = 0; l < group->n_lanes; l++) {
        for (int h = 0; group->lanes[l].seqs && h < group->n; h++) {
            tokens += group->lanes[l].seqs[h]->length;
        }
    }
    return (double)kv_block_bytes(group->g->seq->cache) / KV_BLOCK * tokens;
}
