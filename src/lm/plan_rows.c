/* PLAN_PROBE_ROWS: which rows are probed in a layer, and who is told. */
#include <stddef.h>

#include "core/status.h"
#include "lm/plan_run_internal.h"

static bool probes(const struct plan_row *row, const struct plan_step *step, int layer) {
    return step->kind == PLAN_PROBE_ROWS && step_acts(row, step, layer);
}

candid_status plan_ask_rows(struct plan_run *run, int layer, struct attention_row *views, candid_error *error) {
    size_t n = 0, floats = 0;
    for (int i = 0; i < run->n_rows; i++) {
        views[i].n_probes = 0;
        for (int s = 0; run->rows[i].plan && s < run->rows[i].plan->n_steps; s++) {
            views[i].n_probes += probes(&run->rows[i], &run->rows[i].plan->steps[s], layer);
        }
        n += (size_t)views[i].n_probes;
        floats += (size_t)views[i].n_probes * (size_t)attention_row_end(&views[i]);
    }
    run->n_probes = (int)n;
    if (n == 0) {
        return CANDID_OK;
    }
    size_t same = run->probe_capacity, also = run->probe_capacity;
    TRY(plan_room(&run->probes, &same, n, sizeof *run->probes, error));
    TRY(plan_room(&run->probe_steps, &also, n, sizeof *run->probe_steps, error));
    TRY(plan_room(&run->probe_rows, &run->probe_capacity, n, sizeof *run->probe_rows, error));
    TRY(plan_room(&run->probed, &run->probed_capacity, floats, sizeof *run->probed, error));
    size_t at = 0;
    float *values = run->probed;
    for (int i = 0; i < run->n_rows; i++) {
        views[i].probes = run->probes + at;
        for (int s = 0; views[i].n_probes > 0 && s < run->rows[i].plan->n_steps; s++) {
            struct plan_step *step = &run->rows[i].plan->steps[s];
            if (probes(&run->rows[i], step, layer)) {
                run->probes[at] = (struct row_probe){step->reduce, step->before_edits, values};
                run->probe_rows[at] = i;
                run->probe_steps[at++] = step;
                values += attention_row_end(&views[i]);
            }
        }
    }
    return CANDID_OK;
}

void plan_tell_rows(struct plan_run *run, const struct kv_attention *a) {
    int first = 0; /* of the plan's rows */
    for (int p = 0, row = 0; p < run->n_probes; p++) {
        for (; row < run->probe_rows[p]; row++) {
            first = run->rows[row + 1].plan != run->rows[row].plan ? row + 1 : first;
        }
        struct plan_step *step = run->probe_steps[p];
        step->decide(step, &(struct probe_result){.layer = a->layer,
                                                  .row = row - first,
                                                  .index = run->rows[row].index,
                                                  .n_keys = attention_row_end(&a->rows[row]),
                                                  .values = run->probes[p].values});
    }
}
