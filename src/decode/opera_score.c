/* OPERA's candidates: their attention rows, column products and scores. */
#include <math.h>
#include <stdlib.h>

#include "core/status.h"
#include "decode/opera_internal.h"

/* Sums are rounded, so parts may exceed them a little. */
static bool is_part(float value, float sum) {
    return value >= 0.0f && value <= 1.001f * sum;
}

static candid_status check_row(const struct opera_row *row, int t, candid_error *error) {
    bool valid = isfinite(row->sum) && row->sum > 0.0f && is_part(row->image_mass, row->sum);
    for (int j = 0; valid && j <= t; j++) {
        valid = is_part(row->local[j], row->sum);
    }
    return valid ? CANDID_OK
                 : fail(error, CANDID_ERROR_FORMAT,
                        "opera: the attention row of generated token %d is none: expected weights from 0 to their sum, "
                        "found a sum of %g, %g of it for the image",
                        t, (double)row->sum, (double)row->image_mass);
}

candid_status opera_extend_node(struct opera *o, int parent, const struct opera_row *row, float *products,
                                candid_error *error) {
    const int t = tree_length(&o->tree, parent);
    const float *before = parent == TREE_ROOT ? NULL : o->tree.nodes[parent].products;
    TRY(check_row(row, t, error));
    opera_extend(before, row, t, o->params.options.scale, products);
    return CANDID_OK;
}

/* ---- scores ---- */

static candid_status reserve_products(struct opera *o, candid_error *error) {
    const struct opera_state *now = opera_now(o);
    const size_t n = (size_t)now->n_running * (size_t)now->n_candidates * ((size_t)now->step + 1);
    if (n > o->products_capacity) {
        float *products = realloc(o->products, 2 * n * sizeof *products);
        if (!products) {
            return fail_memory(error, "column products", 2 * n * sizeof *products);
        }
        o->products = products;
        o->products_capacity = 2 * n;
    }
    return CANDID_OK;
}

/* Scores candidate `index`, a continuation of `beam`; *loc: its strongest column. */
static candid_status score_candidate(struct opera *o, int beam, int index, const struct opera_row *row, int *loc,
                                     candid_error *error) {
    const struct opera_options *options = &o->params.options;
    struct opera_state *now = opera_now(o);
    const int length = now->step + 1;
    float *products = opera_products_of(o, index);
    TRY(opera_extend_node(o, now->nodes[beam], row, products, error));
    const struct opera_column column = opera_strongest(products, length, options);
    const float logit = opera_row_of(o->logits, o, beam)[now->candidates[index]], share = row->image_mass / row->sum;
    now->candidate_scores[index] = opera_candidate_score(logit, share, column.phi, length, options);
    const bool rewarded = length <= options->image_reward_len;
    o->counters.n_rewarded += rewarded && options->alpha * share > 0.0f;
    o->counters.n_penalised += !rewarded && options->alpha > 0.0f && column.phi > 0.0f;
    *loc = column.index;
    return CANDID_OK;
}

/* A penalty that excludes all candidates of a beam tells them apart no better than none. */
static void lift_penalty(struct opera *o, int beam) {
    const struct opera_state *now = opera_now(o);
    const int n = now->n_candidates;
    bool lift = o->params.options.plain_fallback;
    for (int c = beam * n; lift && c < (beam + 1) * n; c++) {
        lift = now->candidate_scores[c] == -INFINITY;
    }
    for (int c = beam * n; lift && c < (beam + 1) * n; c++) {
        now->candidate_scores[c] = opera_row_of(o->logits, o, beam)[now->candidates[c]];
    }
    o->counters.n_plain += lift;
}

candid_status opera_score_candidates(struct opera *o, const struct opera_row *rows, candid_error *error) {
    const struct opera_state *now = opera_now(o);
    const int n = now->n_candidates;
    const size_t bytes = (size_t)n * sizeof(int);
    int *locs = malloc(bytes);
    if (!locs) {
        return fail_memory(error, "the candidates' columns", bytes);
    }
    candid_status status = reserve_products(o, error);
    for (int b = 0; status == CANDID_OK && b < now->n_running; b++) {
        for (int c = 0; status == CANDID_OK && c < n; c++) {
            status = score_candidate(o, b, b * n + c, &rows[b * n + c], &locs[c], error);
        }
        if (status == CANDID_OK) {
            o->beam_locs[b] = opera_mode(locs, n);
            lift_penalty(o, b);
        }
    }
    for (int b = now->n_running; b < o->params.n_beams; b++) { /* before the first choice all beams are the same */
        o->beam_locs[b] = o->beam_locs[0];
    }
    free(locs);
    return status;
}
