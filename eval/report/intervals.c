/* Intervals by the bootstrap over images; differences paired by image, of accuracy in a split by question (McNemar). */
#include "eval/report/intervals.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "eval/report/rules.h"
#include "eval/stats/stats.h"

/* Which metric of which group a stats_metric is. */
struct metric_context {
    const struct report_group *g;
    size_t metric;
};

static double metric_value(const double *sums, const void *context) {
    const struct metric_context *c = context;
    return c->g->rules->value(c->g, c->metric, sums);
}

static void set_values(struct report_group *g, const double *counts, size_t n_counts, double *sums) {
    for (size_t r = 0; r < g->n_runs; r++) {
        memset(sums, 0, n_counts * sizeof *sums);
        for (size_t u = 0; u < g->n_units; u++) {
            for (size_t k = 0; k < n_counts; k++) {
                sums[k] += counts[(r * g->n_units + u) * n_counts + k];
            }
        }
        for (size_t m = 0; m < g->n_metrics; m++) {
            g->values[r * g->n_metrics + m] =
                (struct report_value){g->rules->value(g, m, sums), NAN, NAN, NAN, NAN, NAN, NAN};
        }
    }
}

static candid_status resample(struct report_group *g, const double *counts, size_t n_counts,
                              const struct report_options *o, const struct stats_metric *metrics, candid_error *error) {
    const struct stats_options options = {.n_resamples = (int)o->resamples, .seed = o->seed};
    const size_t size = g->n_units * n_counts;
    const bool compared = g->baseline != SIZE_MAX && g->runs[g->baseline]->has_answers;
    struct stats_difference *all = calloc(g->n_metrics, sizeof *all);
    struct stats_interval *alone = calloc(g->n_metrics, sizeof *alone);
    candid_status status = all && alone ? CANDID_OK : fail_memory(error, "the intervals", g->n_metrics * sizeof *all);
    for (size_t r = 0; r < g->n_runs && status == CANDID_OK; r++) {
        const struct stats_data data = {.counts = counts + r * size, .n = g->n_units, .n_counts = n_counts};
        const bool paired = compared && r != g->baseline;
        if (!g->runs[r]->has_answers) {
            continue;
        }
        status = paired ? stats_compare(&data, counts + g->baseline * size, counts + r * size, metrics, g->n_metrics,
                                        &options, all, error)
                        : stats_bootstrap(&data, metrics, g->n_metrics, &options, alone, error);
        for (size_t m = 0; m < g->n_metrics && status == CANDID_OK; m++) {
            struct report_value *v = &g->values[r * g->n_metrics + m];
            v->low = paired ? all[m].b.low : alone[m].low;
            v->high = paired ? all[m].b.high : alone[m].high;
            v->difference_low = paired ? all[m].difference.low : NAN;
            v->difference_high = paired ? all[m].difference.high : NAN;
            v->p = paired ? all[m].p : NAN;
        }
    }
    free(all);
    free(alone);
    return status;
}

candid_status intervals_find(struct report_group *g, const double *counts, size_t n_counts,
                             const struct report_options *o, candid_error *error) {
    double *sums = malloc((n_counts + 1) * sizeof *sums);
    struct stats_metric *metrics = calloc(g->n_metrics + 1, sizeof *metrics);
    struct metric_context *contexts = calloc(g->n_metrics + 1, sizeof *contexts);
    candid_status status = CANDID_OK;
    if (sums && metrics && contexts) {
        set_values(g, counts, n_counts, sums);
        for (size_t m = 0; m < g->n_metrics; m++) {
            contexts[m] = (struct metric_context){g, m};
            metrics[m] = (struct stats_metric){metric_value, &contexts[m]};
        }
        if (g->n_units > 0 && g->n_metrics > 0 && n_counts > 0 && o->resamples > 0) {
            status = resample(g, counts, n_counts, o, metrics, error);
        }
    } else {
        status = fail_memory(error, "the metrics", g->n_metrics * sizeof *metrics);
    }
    free(sums);
    free(metrics);
    free(contexts);
    return status;
}

/* ---- McNemar ------------------------------------------------------------------------------------- */

static bool covers(const struct report_group *g, size_t m, size_t i) {
    return g->rules->covers ? g->rules->covers(g, m, i) : strcmp(g->splits[g->split[i]], g->metrics[m].split) == 0;
}

/* p on the questions of metric m; right: room for 2 * n_items. */
static double mcnemar(const struct report_group *g, size_t run, size_t m, double *right) {
    size_t n = 0;
    for (size_t i = 0; i < g->n_items; i++) {
        if (covers(g, m, i)) {
            const cJSON *a = json_find(report_verdict(g, g->baseline, i), "correct");
            const cJSON *b = json_find(report_verdict(g, run, i), "correct");
            if (a && b) {
                right[n] = cJSON_IsTrue(a);
                right[g->n_items + n++] = cJSON_IsTrue(b);
            }
        }
    }
    return stats_mcnemar(right, right + g->n_items, n).p;
}

candid_status intervals_compare(struct report_group *g, candid_error *error) {
    if (g->baseline == SIZE_MAX) {
        return CANDID_OK;
    }
    double *right = malloc((2 * g->n_items + 1) * sizeof *right);
    if (!right) {
        return fail_memory(error, "the answers", 2 * g->n_items * sizeof *right);
    }
    for (size_t r = 0; r < g->n_runs; r++) {
        for (size_t m = 0; m < g->n_metrics && r != g->baseline; m++) {
            const struct report_metric *metric = &g->metrics[m];
            struct report_value *v = &g->values[r * g->n_metrics + m];
            v->difference = v->value - report_value(g, g->baseline, m)->value;
            const bool of_answers = strcmp(metric->key, "accuracy") == 0 || strcmp(metric->key, "acc") == 0;
            /* Splits of POPE share questions: a mean of them counts the same answer more than once. */
            const bool of_questions = of_answers && strcmp(metric->split, "mean") != 0;
            if (g->rules->yes_no && of_questions && g->runs[r]->has_answers && g->runs[g->baseline]->has_answers) {
                v->p = mcnemar(g, r, m, right);
            }
        }
    }
    free(right);
    return CANDID_OK;
}
