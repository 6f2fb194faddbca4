/* What plans take of earlier layers at the output: mixes of states, and states whose logits are contrasted. */
#include "lm/plan_run_internal.h"

/* ---- mixes ------------------------------------------------------------------------------------- */

bool plan_mixes(const struct plan_run *run) {
    for (int i = 0; run->active && i < run->n_rows; i++) {
        if (run->rows[i].role == ROLE_MAIN && plan_has(run->rows[i].plan, PLAN_MIX_LAYERS)) {
            return true;
        }
    }
    return false;
}

void plan_mix_layer(struct plan_run *run, int layer, const float *x, float *mixed, int n_embd) {
    const size_t n = (size_t)n_embd;
    for (int i = 0; i < run->n_rows; i++) {
        const struct plan_row *r = &run->rows[i];
        for (int s = 0; r->wanted && r->plan && s < r->plan->n_steps; s++) {
            const struct plan_step *step = &r->plan->steps[s];
            if (step->kind == PLAN_MIX_LAYERS && step_acts(r, step, layer)) {
                run->b->ops->mix(run->b, mixed, 1.0f, x + (size_t)i * n, step->strength * step->table[layer], n);
            }
        }
        mixed += r->wanted ? n : 0;
    }
}

void plan_mix_final(struct plan_run *run, int row, float *normed, const float *mix, int n_embd) {
    const struct plan_row *r = &run->rows[row];
    for (int s = 0; r->plan && r->role == ROLE_MAIN && s < r->plan->n_steps; s++) {
        struct plan_step *step = &r->plan->steps[s];
        if (step->kind == PLAN_MIX_LAYERS && (r->sets & step->rows)) {
            run->b->ops->mix(run->b, normed, 1.0f - step->strength, mix, 1.0f, (size_t)n_embd);
            plan_count_rows(run, step, row, row + 1);
        }
    }
}

/* ---- contrasts --------------------------------------------------------------------------------- */

/* States of a step that come before the output of `layer`; with n_layer: all. */
static int states_before(const struct plan_step *step, int layer) {
    int n = step->embeddings;
    for (int l = 0; l < layer; l++) {
        n += step->layers[l];
    }
    return n;
}

/* States that the row contrasts with by this step. */
static int states_of(const struct plan_row *row, const struct plan_step *step) {
    const bool contrasts =
        step->kind == PLAN_CONTRAST_LAYERS && row->wanted && row->role == ROLE_MAIN && (row->sets & step->rows);
    return contrasts ? states_before(step, row->plan->n_layer) : 0;
}

int plan_row_states(const struct plan_run *run, int row) {
    const struct plan_row *r = &run->rows[row];
    int n = 0;
    for (int s = 0; r->plan && s < r->plan->n_steps; s++) {
        n += states_of(r, &r->plan->steps[s]);
    }
    return n;
}

int plan_early_states(const struct plan_run *run) {
    int n = 0;
    for (int i = 0; run->active && i < run->n_rows; i++) {
        n += plan_row_states(run, i);
    }
    return n;
}

void plan_keep_early(struct plan_run *run, int layer, const float *x, float *early, int n_embd,
                     const struct early_norm *norm) {
    const size_t n = (size_t)n_embd;
    for (int i = 0; i < run->n_rows; i++) {
        const struct plan_row *r = &run->rows[i];
        for (int s = 0; r->plan && s < r->plan->n_steps; s++) {
            const struct plan_step *step = &r->plan->steps[s];
            const int n_states = states_of(r, step);
            if (n_states > 0 && (layer < 0 ? step->embeddings : step->layers[layer])) {
                float *to = early + (layer < 0 ? 0 : (size_t)states_before(step, layer)) * n;
                const float *from = x + (size_t)i * n;
                if (step->normed) {
                    run->b->ops->rms_norm(run->b, to, from, norm->weight, 1, n_embd, norm->eps);
                } else {
                    run->b->ops->copy(run->b, to, from, n * sizeof(float));
                }
            }
            early += (size_t)n_states * n;
        }
    }
}

void plan_contrast(struct plan_run *run, float *logits, const float *early, int n_vocab) {
    for (int i = 0; i < run->n_rows; i++) {
        const struct plan_row *r = &run->rows[i];
        for (int s = 0; r->plan && s < r->plan->n_steps; s++) {
            struct plan_step *step = &r->plan->steps[s];
            const int n = states_of(r, step);
            if (n > 0) {
                step->contrast(step, logits + (size_t)i * (size_t)n_vocab, early, n, n_vocab);
                plan_count_rows(run, step, i, i + 1);
                early += (size_t)n * (size_t)n_vocab;
            }
        }
    }
}
