/* What the parts of plan execution share; not for others. */
#ifndef CANDID_LM_PLAN_RUN_INTERNAL_H
#define CANDID_LM_PLAN_RUN_INTERNAL_H

#include "lm/plan_run.h"

/* Whether the step acts on the row in this layer. */
static inline bool step_acts(const struct plan_row *row, const struct plan_step *step, int layer) {
    return row->plan && row->role == ROLE_MAIN && step->layers[layer] && (row->sets & step->rows);
}

/* Counts rows begin..end-1 as edited by the step. */
void plan_count_rows(const struct plan_run *run, struct plan_step *step, int begin, int end);

/* Attaches the probes of rows to the views; after the attention, tells what they saw. */
candid_status plan_ask_rows(struct plan_run *run, int layer, struct attention_row *views, candid_error *error);
void plan_tell_rows(struct plan_run *run, const struct kv_attention *a);

#endif
