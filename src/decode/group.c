/* Lanes times hypotheses. */
#include "decode/group.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "decode/contrast.h"
#include "decode/prefill.h"
#include "decode/prefix.h"

struct lane {
    int branch;                  /* which of the generations' branches; OWN: the answer's own lane */
    struct branch_input *joined; /* one that came later, or NULL */
    struct kv_seq **seqs;        /* [capacity], n used; NULL once the branch has ended */
    int *positions;              /* [n_questions] RoPE position of the next token */
};

#define OWN (-1)

struct group {
    const struct generation *g; /* [n_questions] */
    int n_questions;
    int *question; /* [2 * capacity], n used: which question a hypothesis answers; then room for reordering them */
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

/* The branch of a lane for a question, NULL: the answer's own row. */
static struct branch_input *branch_of(const struct group *group, const struct lane *lane, int question) {
    return lane->joined ? lane->joined : lane->branch == OWN ? NULL : &group->g[question].branches[lane->branch];
}

/* ---- life ---- */

static bool is_borrowed(const struct group *group, const struct kv_seq *seq) {
    for (int q = 0; q < group->n_questions; q++) {
        if (seq == group->g[q].seq) {
            return true;
        }
    }
    return false;
}

static void end_lane(const struct group *group, struct lane *lane) {
    for (int i = 0; lane->seqs && i < group->n; i++) {
        if (!is_borrowed(group, lane->seqs[i])) {
            kv_seq_free(lane->seqs[i]);
        }
    }
    free(lane->seqs);
    free(lane->positions);
    lane->seqs = NULL;
    lane->positions = NULL;
}

void group_free(struct group *group) {
    if (group) {
        for (int i = 0; i < group->n_lanes; i++) {
            end_lane(group, &group->lanes[i]);
        }
        free(group->lanes);
        free(group->question);
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

/* ---- prompts ---------------------------------------------------------------------------------------- */

/* A pass of few rows is computed by other kernels, which round differently: leave a branch more than that to read. */
#define LEAST_OWN_ROWS (LLAMA_FEW_ROWS + 1)

/* The sequence of a branch's prompt with what it shares with the answer's row, or with other prompts. */
static candid_status fork_prefix(const struct group *group, struct branch_input *branch, int question,
                                 const struct generation *b, struct kv_seq **out, candid_error *error) {
    const struct generation *g = &group->g[question];
    const bool measures = b->plan && plan_has(b->plan, PLAN_PROBE_PEAKS); /* it must see all rows itself */
    const int with_own = measures ? 0 : prefix_shared(g, b, LEAST_OWN_ROWS);
    const int with_others = branch->prefix ? branch->prefix->length : 0;
    branch->n_shared = with_own > with_others ? with_own : with_others;
    branch->n_prompt = (int)prompt_length(b->prompt, b->images);
    if (with_others > 0 && with_others >= with_own) {
        return kv_fork(branch->prefix, out, error);
    }
    return with_own > 0 ? kv_fork_at(group->lanes[0].seqs[question], with_own, out, error)
                        : kv_seq_create(g->seq->cache, out, error);
}

/* Reads the prompts of a lane's branch, one for each question. logits: (n_questions, n_vocab), with room for ROLE_COUNT
 * - 1 rows more. */
static candid_status read_branch(struct group *group, struct lane *lane, struct kv_seq **seqs, float *logits,
                                 candid_error *error) {
    const int n = group->n_questions;
    struct generation *bs = calloc((size_t)n, sizeof *bs);
    if (!bs) {
        return fail_memory(error, "a branch", (size_t)n * sizeof *bs);
    }
    candid_status status = CANDID_OK;
    for (int q = 0; status == CANDID_OK && q < n; q++) {
        struct branch_input *branch = branch_of(group, lane, q);
        bs[q] = branch_reading(&group->g[q], branch);
        status = fork_prefix(group, branch, q, &bs[q], &seqs[q], error);
        bs[q].seq = seqs[q];
    }
    if (status == CANDID_OK) {
        status = prefill_many(bs, n, logits, lane->positions, error);
    }
    free(bs);
    return status;
}

/* ---- contrast ---- */

/* Branches whose time has come end. */
static void end_branches(struct group *group) {
    for (int l = 1; l < group->n_lanes; l++) {
        struct lane *lane = &group->lanes[l];
        const int until = branch_of(group, lane, 0)->n_tokens;
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
        const int q = group->question[h];
        float *main = group->logits + (size_t)h * row;
        const float *next = main + lane_size;
        for (int l = 1; l < group->n_lanes; l++) {
            struct branch_input *b = branch_of(group, &group->lanes[l], q);
            const bool live = group->lanes[l].seqs;
            terms[l - 1] = (struct contrast_term){live ? next : main, b->weight, b->added, b->cutoff};
            next += live ? lane_size : 0;
            b->n_contrasted += live;
        }
        const int removed = contrast_combine(main, terms, group->n_lanes - 1, (int)row, main);
        for (int l = 1; l < group->n_lanes; l++) {
            struct branch_input *b = branch_of(group, &group->lanes[l], q);
            b->n_removed += removed;
            b->n_rows++;
        }
    }
    end_branches(group);
}

/* ---- public ---- */

static candid_status make_lane(const struct group *group, struct lane *lane, candid_error *error) {
    lane->seqs = calloc((size_t)group->capacity, sizeof *lane->seqs);
    lane->positions = calloc((size_t)group->n_questions, sizeof *lane->positions);
    return lane->seqs && lane->positions
               ? CANDID_OK
               : fail_memory(error, "a sequence group", (size_t)group->capacity * sizeof *lane->seqs);
}

static candid_status start(struct group *group, candid_error *error) {
    const size_t lanes = 1 + (size_t)group->g->n_branches, n = (size_t)group->n_questions;
    group->lanes = calloc(1 + MAX_BRANCHES, sizeof *group->lanes);
    group->question = calloc(2 * (size_t)group->capacity, sizeof *group->question);
    if (!group->lanes || !group->question) {
        return fail_memory(error, "a sequence group", (1 + MAX_BRANCHES) * sizeof *group->lanes);
    }
    TRY(make_room(group, lanes * n + ROLE_COUNT, error)); /* a prompt's companions have logits, too */
    group->n = (int)n;
    for (size_t i = 0; i < lanes; i++) {
        struct lane *lane = &group->lanes[i];
        lane->branch = (int)i - 1;
        group->n_lanes++;
        TRY(make_lane(group, lane, error));
        float *logits = group->logits + i * n * n_vocab(group);
        for (size_t q = 0; i == 0 && q < n; q++) {
            group->question[q] = (int)q;
            lane->seqs[q] = group->g[q].seq;
        }
        TRY(i == 0 ? prefill_many(group->g, (int)n, logits, lane->positions, error)
                   : read_branch(group, lane, lane->seqs, logits, error));
    }
    contrast(group);
    return CANDID_OK;
}

candid_status group_create(const struct generation *gs, int n_questions, int capacity, struct group **out,
                           candid_error *error) {
    struct group *group = calloc(1, sizeof *group);
    if (!group) {
        return fail_memory(error, "a sequence group", sizeof *group);
    }
    group->g = gs;
    group->n_questions = n_questions;
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

static void reorder_questions(struct group *group, const int *parents, int n) {
    int *old = group->question + group->capacity;
    memcpy(old, group->question, (size_t)group->n * sizeof *old);
    for (int i = 0; i < n; i++) {
        group->question[i] = old[parents[i]];
    }
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
                kv_seq_drop(lane->seqs[i], is_borrowed(group, lane->seqs[i]) ? lane->seqs[i] : NULL);
            }
        }
        memcpy(lane->seqs, own, (size_t)n * sizeof *own);
    }
    if (status == CANDID_OK) {
        reorder_questions(group, parents, n);
    }
    group->n = status == CANDID_OK ? n : group->n;
    free(next);
    return status;
}

/* The rows of one lane. */
static candid_status add_rows(const struct group *group, const struct lane *lane, const int32_t *tokens,
                              struct forward_row *rows, candid_error *error) {
    for (int h = 0; h < group->n; h++) {
        const int q = group->question[h];
        const struct branch_input *branch = branch_of(group, lane, q);
        rows[h] = (struct forward_row){.seq = lane->seqs[h],
                                       .token = tokens[h],
                                       .position = lane->positions[q],
                                       .want_logits = true,
                                       .plan = branch ? branch->plan : group->g[q].plan};
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
        for (int q = 0; status == CANDID_OK && lane->seqs && q < group->n_questions; q++) {
            lane->positions[q]++;
        }
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
            .seq = seq, .token = tokens[t], .position = lane->positions[0] + t, .plan = lane->joined->plan};
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
    struct lane lane = {.joined = branch};
    float *unused = malloc(ROLE_COUNT * n_vocab(group) * sizeof *unused);
    struct kv_seq *prompt = NULL;
    candid_status status =
        unused ? make_lane(group, &lane, error) : fail_memory(error, "a branch", ROLE_COUNT * n_vocab(group));
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
    lane.positions[0] += n_tokens;
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
