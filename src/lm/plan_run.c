/* Execution of plans: at each site a loop over the rows that have a plan and the steps that act there. */
#include "lm/plan_run_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"

#define PEAK_EPS 1e-6f

void plan_run_free(struct plan_run *run) {
    free(run->rows);
    free(run->row_edits);
    free(run->edits);
    free(run->edit_steps);
    free(run->moved);
    free(run->host);
    free(run->seen_by);
    free(run->probes);
    free(run->probe_steps);
    free(run->probe_rows);
    free(run->probed);
    *run = (struct plan_run){0};
}

candid_status plan_room(void *array, size_t *capacity, size_t count, size_t size, candid_error *error) {
    if (count > *capacity) {
        void *old;
        memcpy(&old, array, sizeof old);
        void *grown = realloc(old, count * size);
        if (!grown) {
            return fail_memory(error, "a plan's work memory", count * size);
        }
        memcpy(array, &grown, sizeof grown);
        *capacity = count;
    }
    return CANDID_OK;
}

/* Rows begin..end-1 from `begin` on that share plan, role and the sets in `mask` with it. */
static int run_end(const struct plan_run *run, int begin, unsigned mask) {
    int end = begin + 1;
    while (end < run->n_rows && run->rows[end].plan == run->rows[begin].plan &&
           run->rows[end].role == run->rows[begin].role &&
           !(run->rows[end].sets & mask) == !(run->rows[begin].sets & mask)) {
        end++;
    }
    return end;
}

void plan_count_rows(const struct plan_run *run, struct plan_step *step, int begin, int end) {
    for (int i = begin; run->counting && i < end; i++) {
        step->rows_done++;
        step->prompt_rows += !(run->rows[i].sets & ROW_GENERATED);
    }
}

/* The last prompt row of the plan's sequence with this role, or -1. */
static int last_row(const struct plan_run *run, const struct plan *plan, enum plan_role role) {
    for (int i = run->n_rows - 1; i >= 0; i--) {
        const struct plan_row *r = &run->rows[i];
        if (r->plan == plan && r->role == role && r->wanted && !(r->sets & ROW_GENERATED)) {
            return i;
        }
    }
    return -1;
}

/* A plan's rows, companions included, stand together in a batch. */
static int plan_end(const struct plan_run *run, int begin) {
    int end = begin + 1;
    while (end < run->n_rows && run->rows[end].plan == run->rows[begin].plan) {
        end++;
    }
    return end;
}

/* Runs the body for every plan in the batch that has a step of `kind` active at this layer. */
#define FOR_EACH_STEP(run, layer, wanted, plan, step)                                                                  \
    for (int first_ = 0; first_ < (run)->n_rows; first_ = plan_end(run, first_))                                       \
        for (struct plan *plan = (run)->rows[first_].plan; plan; plan = NULL)                                          \
            for (int step_ = 0; step_ < plan->n_steps; step_++)                                                        \
                for (struct plan_step *step = &plan->steps[step_]; step; step = NULL)                                  \
                    if (step->kind == (wanted) && step->layers[layer])

/* The main sequence's prompt rows among the plan's rows that start at `first`; false: there are none. */
static bool main_prompt_rows(const struct plan_run *run, int first, int *begin, int *end) {
    const int stop = plan_end(run, first);
    *begin = first;
    while (*begin < stop && run->rows[*begin].role != ROLE_MAIN) {
        (*begin)++;
    }
    *end = *begin;
    while (*end < stop && run->rows[*end].role == ROLE_MAIN && !(run->rows[*end].sets & ROW_GENERATED)) {
        (*end)++;
    }
    return *begin < *end;
}

/* ---- probes and edits, in the order of the sites ------------------------------------------------- */

candid_status plan_at_input(struct plan_run *run, int layer, const float *x, int n_embd, candid_error *error) {
    if (!run->active) {
        return CANDID_OK;
    }
    TRY(plan_room(&run->host, &run->host_capacity, (size_t)run->n_rows, sizeof *run->host, error));
    FOR_EACH_STEP(run, layer, PLAN_PROBE_PEAKS, plan, step) {
        int begin, end;
        if (main_prompt_rows(run, first_, &begin, &end)) {
            run->b->ops->peaks(run->b, run->host, x + (size_t)begin * (size_t)n_embd, end - begin, n_embd, step->dims,
                               step->n_dims, PEAK_EPS);
            if (plan->peaks) {
                memcpy(plan_peaks_at(plan, step, layer) + run->rows[begin].index, run->host,
                       (size_t)(end - begin) * sizeof *run->host);
            }
            step->decide(
                step, &(struct probe_result){
                          .layer = layer, .first = run->rows[begin].index, .n_rows = end - begin, .peaks = run->host});
        }
    }
    return CANDID_OK;
}

/* seen_by[j] = rows begin..end-1 of `a` that see key j. */
static void count_seers(const struct kv_attention *a, int *seen_by, int n_keys) {
    memset(seen_by, 0, (size_t)n_keys * sizeof *seen_by);
    for (int i = 0; i < a->n_rows; i++) { /* differences first */
        const struct attention_row *row = &a->rows[i];
        const int edges[] = {0, row->n_keys, row->also_begin, row->also_end};
        for (int e = 0; e < (row->also_end > 0 ? 4 : 2); e++) {
            if (edges[e] < n_keys) {
                seen_by[edges[e]] += e % 2 == 0 ? 1 : -1;
            }
        }
    }
    for (int j = 1; j < n_keys; j++) {
        seen_by[j] += seen_by[j - 1];
    }
}

static candid_status probe_columns(struct plan_run *run, int layer, const struct kv_attention *a, const float *q,
                                   candid_error *error) {
    FOR_EACH_STEP(run, layer, PLAN_PROBE_COLUMNS, plan, step) {
        int begin, end;
        if (!main_prompt_rows(run, first_, &begin, &end)) {
            continue;
        }
        struct kv_attention part = {.shape = a->shape,
                                    .layer = layer,
                                    .n_head = a->n_head,
                                    .rows = a->rows + begin,
                                    .n_rows = end - begin,
                                    .scale = a->scale,
                                    .max_keys = plan->n_prompt};
        const size_t width = (size_t)a->n_head * (size_t)a->shape->head_dim;
        TRY(plan_room(&run->host, &run->host_capacity, (size_t)a->n_head * (size_t)plan->n_prompt, sizeof *run->host,
                      error));
        TRY(plan_room(&run->seen_by, &run->seen_capacity, (size_t)plan->n_prompt, sizeof *run->seen_by, error));
        count_seers(&part, run->seen_by, plan->n_prompt);
        const uint8_t *heads = step->probe_heads ? step->probe_heads + (size_t)layer * (size_t)a->n_head : NULL;
        TRY(run->shown_columns
                ? run->shown_columns(run->shown, &part, heads, run->host, error)
                : run->b->ops->kv_columns(run->b, &part, q + (size_t)begin * width, heads, run->host, error));
        step->decide(step,
                     &(struct probe_result){
                         .layer = layer, .columns = run->host, .seen_by = run->seen_by, .n_keys = plan->n_prompt});
    }
    return CANDID_OK;
}

candid_status plan_at_attention(struct plan_run *run, int layer, struct kv_attention *a, struct attention_row *views,
                                const float *q, candid_error *error) {
    if (!run->active) {
        return CANDID_OK;
    }
    TRY(probe_columns(run, layer, a, q, error));
    TRY(plan_ask_rows(run, layer, views, error));
    size_t n_edits = 0;
    for (int i = 0; i < run->n_rows; i++) {
        for (int s = 0; run->rows[i].plan && s < run->rows[i].plan->n_steps; s++) {
            const struct plan_step *step = &run->rows[i].plan->steps[s];
            n_edits += step->kind == PLAN_ATTENTION && step_acts(&run->rows[i], step, layer);
        }
    }
    TRY(plan_room(&run->row_edits, &run->row_capacity, (size_t)run->n_rows, sizeof *run->row_edits, error));
    size_t same = run->edit_capacity;
    TRY(plan_room(&run->edits, &same, n_edits, sizeof *run->edits, error));
    TRY(plan_room(&run->edit_steps, &run->edit_capacity, n_edits, sizeof *run->edit_steps, error));
    TRY(plan_room(&run->moved, &run->moved_capacity, n_edits * (size_t)a->n_head, sizeof *run->moved, error));
    size_t at = 0;
    for (int i = 0; i < run->n_rows; i++) {
        struct row_edits *of = &run->row_edits[i];
        *of = (struct row_edits){0};
        if (n_edits > 0) {
            *of = (struct row_edits){.edits = run->edits + at, .moved = run->moved + at * (size_t)a->n_head};
        }
        for (int s = 0; run->rows[i].plan && s < run->rows[i].plan->n_steps; s++) {
            struct plan_step *step = &run->rows[i].plan->steps[s];
            if (step->kind == PLAN_ATTENTION && step_acts(&run->rows[i], step, layer)) {
                run->edits[at] = step->edit;
                if (step->edit.classes) {
                    run->edits[at].classes += (size_t)layer * step->classes_stride;
                }
                if (step->edit.heads) {
                    run->edits[at].heads += (size_t)layer * step->heads_stride;
                }
                run->edit_steps[at++] = step;
                of->n_edits++;
            }
        }
        views[i].edits = of->n_edits > 0 ? of : NULL;
    }
    return CANDID_OK;
}

void plan_after_attention(struct plan_run *run, const struct kv_attention *a) {
    if (!run->active) {
        return;
    }
    plan_tell_rows(run, a);
    for (int i = 0; run->counting && i < run->n_rows; i++) {
        const struct row_edits *of = a->rows[i].edits;
        for (int e = 0; of && e < of->n_edits; e++) {
            struct plan_step *step = run->edit_steps[of->edits - run->edits + e];
            for (int head = 0; head < a->n_head; head++) {
                const float moved = of->moved[(size_t)e * (size_t)a->n_head + (size_t)head];
                step->rows_looked++;
                if (moved >= 0.0f) {
                    step->rows_done++;
                    step->prompt_rows += !(run->rows[i].sets & ROW_GENERATED);
                    step->moved += (double)moved;
                    if (step->edit.kind == PROBE_PROBS_MASS && step->table) {
                        step->table[(size_t)a->layer * (size_t)a->n_head + (size_t)head] += moved;
                    }
                }
            }
        }
    }
}

/* The last prompt row of a role at a probe: host memory, in this batch or kept from an earlier one; NULL: there is
 * none. x: device (rows, n); room: host [n]; kept: what an earlier pass left, which this batch's row replaces, or NULL.
 */
static const float *probed_row(struct plan_run *run, const struct plan *plan, enum plan_role role, const float *x,
                               float *kept, float *room, size_t n, bool *here) {
    const int row = last_row(run, plan, role);
    *here = row >= 0;
    if (!*here) {
        return kept;
    }
    float *to = kept ? kept : room;
    run->b->ops->download(run->b, to, x + (size_t)row * n, n * sizeof(float));
    return to;
}

static float *kept_at(const struct plan *plan, enum plan_role role, bool heads, int layer, size_t n) {
    float *kept = plan->kept ? heads ? plan->kept[role].heads : plan->kept[role].hidden : NULL;
    return kept ? kept + (size_t)layer * n : NULL;
}

/* Compares a role's last row with another's when one of them is here and the other is, too, or is kept. Of two kept
 * companions the first compares with zeros; what that decides the second replaces. heads: which of struct plan_kept. */
static candid_status compare_rows(struct plan_run *run, const struct plan *plan, struct plan_step *step, bool heads,
                                  enum plan_role own_role, enum plan_role other_role, int layer, const float *x,
                                  size_t n, candid_error *error) {
    TRY(plan_room(&run->host, &run->host_capacity, 2 * n, sizeof *run->host, error));
    bool own_here, other_here;
    const float *own =
        probed_row(run, plan, own_role, x, kept_at(plan, own_role, heads, layer, n), run->host, n, &own_here);
    const float *other =
        probed_row(run, plan, other_role, x, kept_at(plan, other_role, heads, layer, n), run->host + n, n, &other_here);
    if (own && other && (own_here || other_here)) {
        step->decide(step, &(struct probe_result){.layer = layer, .own = own, .other = other});
    }
    return CANDID_OK;
}

static bool scales_any(const float *scale, int n_head) {
    for (int h = 0; h < n_head; h++) {
        if (scale[h] != 1.0f) {
            return true;
        }
    }
    return false;
}

candid_status plan_at_heads(struct plan_run *run, int layer, float *heads, int n_head, int head_dim,
                            candid_error *error) {
    if (!run->active) {
        return CANDID_OK;
    }
    const size_t width = (size_t)n_head * (size_t)head_dim;
    FOR_EACH_STEP(run, layer, PLAN_PROBE_HEADS, plan, step) {
        TRY(compare_rows(run, plan, step, true, step->own_role, step->role, layer, heads, width, error));
    }
    FOR_EACH_STEP(run, layer, PLAN_SCALE_HEADS, plan, step) {
        if (!scales_any(step->table + (size_t)layer * (size_t)n_head, n_head)) {
            continue;
        }
        const int stop = plan_end(run, first_);
        for (int begin = first_, end; begin < stop; begin = end) {
            end = run_end(run, begin, step->rows);
            if (step_acts(&run->rows[begin], step, layer)) {
                run->b->ops->scale_heads(run->b, heads + (size_t)begin * width, end - begin, n_head, head_dim,
                                         step->table + (size_t)layer * (size_t)n_head);
                plan_count_rows(run, step, begin, end);
            }
        }
    }
    return CANDID_OK;
}

static void steer_rows(struct plan_run *run, int layer, float *x, int n_embd, bool residual) {
    FOR_EACH_STEP(run, layer, PLAN_STEER, plan, step) {
        const int stop = plan_end(run, first_);
        for (int begin = first_, end; begin < stop; begin = end) {
            end = run_end(run, begin, step->rows);
            if ((step->steer == STEER_RESIDUAL) == residual && step_acts(&run->rows[begin], step, layer)) {
                run->b->ops->steer(run->b, x + (size_t)begin * (size_t)n_embd, end - begin, n_embd,
                                   step->table + (size_t)layer * (size_t)n_embd, step->strength, step->steer);
                plan_count_rows(run, step, begin, end);
            }
        }
    }
}

candid_status plan_at_mlp(struct plan_run *run, int layer, const float *x, float *mlp, int n_embd,
                          candid_error *error) {
    if (!run->active) {
        return CANDID_OK;
    }
    const size_t n = (size_t)n_embd;
    FOR_EACH_STEP(run, layer, PLAN_PROBE_HIDDEN, plan, step) {
        const int with = last_row(run, plan, ROLE_PLAIN), without = last_row(run, plan, ROLE_TEXT_ONLY);
        if (!plan->kept && with >= 0 && without >= 0) {
            /* what will be x of the companions, which carry no edits: x + mlp */
            TRY(plan_room(&run->host, &run->host_capacity, 4 * n, sizeof *run->host, error));
            float *sum[2] = {run->host, run->host + n}, *part = run->host + 2 * n;
            for (int i = 0; i < 2; i++) {
                const size_t at = (size_t)(i == 0 ? with : without) * n;
                run->b->ops->download(run->b, sum[i], x + at, n * sizeof(float));
                run->b->ops->download(run->b, part, mlp + at, n * sizeof(float));
                for (size_t d = 0; d < n; d++) {
                    sum[i][d] += part[d];
                }
            }
            step->decide(step, &(struct probe_result){.layer = layer, .own = sum[0], .other = sum[1]});
        }
    }
    steer_rows(run, layer, mlp, n_embd, false);
    return CANDID_OK;
}

candid_status plan_at_output(struct plan_run *run, int layer, float *x, int n_embd, candid_error *error) {
    if (!run->active) {
        return CANDID_OK;
    }
    FOR_EACH_STEP(run, layer, PLAN_PROBE_HIDDEN, plan, step) {
        if (plan->kept) {
            TRY(compare_rows(run, plan, step, false, ROLE_PLAIN, ROLE_TEXT_ONLY, layer, x, (size_t)n_embd, error));
        }
    }
    steer_rows(run, layer, x, n_embd, true);
    return CANDID_OK;
}
