/* Runs to report: groups, metrics, intervals, costs. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/status.h"
#include "core/text.h"
#include "eval/report/align.h"
#include "eval/report/curve.h"
#include "eval/report/intervals.h"
#include "eval/report/rules.h"

const struct eval_item *report_item(const struct report_group *g, size_t run, size_t i) {
    return &g->runs[run]->questions.items[g->at[run * g->n_items + i]];
}

const cJSON *report_verdict(const struct report_group *g, size_t run, size_t i) {
    return g->runs[run]->verdicts[g->at[run * g->n_items + i]];
}

const struct report_value *report_value(const struct report_group *g, size_t run, size_t metric) {
    return &g->values[run * g->n_metrics + metric];
}

size_t report_metric_find(const struct report_group *g, const char *split, const char *key) {
    for (size_t m = 0; m < g->n_metrics; m++) {
        if (strcmp(g->metrics[m].split, split) == 0 && strcmp(g->metrics[m].key, key) == 0) {
            return m;
        }
    }
    return SIZE_MAX;
}

bool report_is_best(const struct report_group *g, size_t run, size_t metric) {
    const double value = report_value(g, run, metric)->value, better = g->metrics[metric].better;
    if (better == 0 || g->n_runs < 2 || isnan(value)) {
        return false;
    }
    bool distinct = false;
    for (size_t r = 0; r < g->n_runs; r++) {
        const double other = report_value(g, r, metric)->value;
        if (other * better > value * better) {
            return false;
        }
        distinct = distinct || other * better < value * better;
    }
    return distinct;
}

bool report_is_known(const struct report_group *g, size_t metric) {
    for (size_t r = 0; r < g->n_runs; r++) {
        if (!isnan(report_value(g, r, metric)->value)) {
            return true;
        }
    }
    return false;
}

/* ---- metrics ------------------------------------------------------------------------------------- */

/* counts [n_runs][n_units][n_counts] */
static candid_status count_all(const struct report_group *g, size_t n_counts, double *counts, candid_error *error) {
    for (size_t r = 0; r < g->n_runs; r++) {
        double *of_run = counts + r * g->n_units * n_counts;
        for (size_t i = 0; i < g->n_items && g->runs[r]->has_answers; i++) {
            if (!g->rules->count(g, r, i, of_run + g->unit[i] * n_counts)) {
                char label[160], found[JSON_FOUND];
                struct printable image;
                const cJSON *verdict = report_verdict(g, r, i);
                return fail(error, CANDID_ERROR_FORMAT,
                            "%s: expected verdicts and labels of the benchmark %s, found for the image \"%s\" %s",
                            file_label(g->runs[r]->path, label, sizeof label), g->rules->name,
                            printable_string(&image, report_item(g, r, i)->image),
                            verdict ? json_found(verdict->child, found) : "none");
            }
        }
        for (size_t u = 0; u < g->n_units && g->rules->finish; u++) {
            g->rules->finish(g, of_run + u * n_counts);
        }
    }
    return CANDID_OK;
}

/* Scores of the run's summary hold where all its answers are compared: a scorer may round or count by rules of its own.
 */
static candid_status take_summary(struct report_group *g, size_t run, candid_error *error) {
    size_t answered = 0;
    for (size_t i = 0; i < g->runs[run]->questions.n; i++) {
        answered += g->runs[run]->verdicts[i] != NULL;
    }
    if (!g->rules->path || answered != (g->runs[run]->has_answers ? g->n_items : 0)) {
        return CANDID_OK;
    }
    bool warned = false;
    for (size_t m = 0; m < g->n_metrics; m++) {
        char path[128], whole[160];
        const double unit = g->rules->path(g, m, path);
        snprintf(whole, sizeof whole, "scores.%s", path);
        double *value = &g->values[run * g->n_metrics + m].value;
        const double stored = report_summary_number(g->runs[run], whole) / unit, counted = *value;
        if (isnan(stored)) {
            continue;
        }
        *value = stored;
        if (!warned && g->metrics[m].main && g->metrics[m].better != 0 &&
            fabs(stored - counted) > (unit == 1.0 ? 1e-6 : 2e-3)) {
            warned = true;
            TRY(align_warn(g, error, "%s: its summary says %s %.6g, its verdicts make %.6g.", g->runs[run]->name,
                           g->metrics[m].key, stored, counted));
        }
    }
    return CANDID_OK;
}

static candid_status compute(struct report_group *g, const struct report_options *o, candid_error *error) {
    TRY(g->rules->prepare(g, error));
    const size_t n_counts = g->rules->n_counts(g);
    g->values = calloc(g->n_runs * g->n_metrics + 1, sizeof *g->values);
    double *counts = calloc(g->n_runs * g->n_units * n_counts + 1, sizeof *counts);
    candid_status status = CANDID_OK;
    if (!g->values || !counts) {
        status = fail_memory(error, "the metrics", g->n_runs * g->n_units * n_counts * sizeof *counts);
        goto end;
    }
    TRY_GOTO(count_all(g, n_counts, counts, error), status, end);
    TRY_GOTO(intervals_find(g, counts, n_counts, o, error), status, end);
    for (size_t r = 0; r < g->n_runs; r++) {
        TRY_GOTO(take_summary(g, r, error), status, end);
    }
    status = intervals_compare(g, error);
end:
    free(counts);
    return status;
}

/* ---- curves and costs ---------------------------------------------------------------------------- */

static candid_status make_curves(struct report_group *g, candid_error *error) {
    g->curves = calloc(g->n_runs, sizeof *g->curves);
    if (!g->curves) {
        return fail_memory(error, "the curves", g->n_runs * sizeof *g->curves);
    }
    for (size_t r = 0; r < g->n_runs; r++) {
        g->curves[r] = (struct report_curve){.at_recall = NAN, .at_length = NAN};
        if (g->runs[r]->has_answers) {
            TRY(curve_make(g, r, &g->curves[r], error));
        }
    }
    for (size_t r = 0; r < g->n_runs && g->baseline != SIZE_MAX; r++) {
        const struct report_curve *baseline = &g->curves[g->baseline];
        const size_t recall = report_metric_find(g, "", "recall"), length = report_metric_find(g, "", "length");
        g->curves[r].at_recall = curve_at_recall(baseline, report_value(g, r, recall)->value);
        g->curves[r].at_length = curve_at_length(baseline, report_value(g, r, length)->value);
    }
    return CANDID_OK;
}

static candid_status find_costs(struct report_group *g, candid_error *error) {
    g->costs = calloc(g->n_runs, sizeof *g->costs);
    if (!g->costs) {
        return fail_memory(error, "the costs", g->n_runs * sizeof *g->costs);
    }
    for (size_t r = 0; r < g->n_runs; r++) {
        const struct report_run *run = g->runs[r];
        const double mine = report_summary_number(run, "time.questions_per_s");
        const double base =
            g->baseline == SIZE_MAX ? NAN : report_summary_number(g->runs[g->baseline], "time.questions_per_s");
        g->costs[r] = (struct report_cost){
            .questions_per_s = mine,
            .tokens_per_s = report_summary_number(run, "time.tokens_per_s"),
            .relative = report_ratio(base, mine),
            .prefilled = report_summary_number(run, "counts.prefilled_tokens"),
            .reused = report_summary_number(run, "counts.reused_tokens"),
            .generated = report_summary_number(run, "counts.generated_tokens"),
            .images_encoded = report_summary_number(run, "counts.images_encoded"),
        };
    }
    return CANDID_OK;
}

/* ---- groups -------------------------------------------------------------------------------------- */

static candid_status check_names(const struct report_group *g, candid_error *error) {
    for (size_t a = 0; a < g->n_runs; a++) {
        for (size_t b = a + 1; b < g->n_runs; b++) {
            if (strcmp(g->runs[a]->name, g->runs[b]->name) == 0) {
                char labels[2][160];
                struct printable name;
                return fail(error, CANDID_ERROR_ARGUMENT,
                            "%s and %s: expected runs of different names, found two that are called \"%s\"",
                            file_label(g->runs[a]->path, labels[0], sizeof labels[0]),
                            file_label(g->runs[b]->path, labels[1], sizeof labels[1]),
                            printable_string(&name, g->runs[a]->name));
            }
        }
    }
    return CANDID_OK;
}

static candid_status build_group(struct report_group *g, const struct report_options *o, candid_error *error) {
    g->rules = report_benchmark(g->benchmark);
    g->baseline = strcmp(g->runs[0]->name, o->baseline) == 0 ? 0 : SIZE_MAX;
    TRY(check_names(g, error));
    TRY(align_group(g, o->common, error));
    TRY(align_check(g, error));
    TRY(compute(g, o, error));
    TRY(find_costs(g, error));
    return g->rules == &report_chair ? make_curves(g, error) : CANDID_OK;
}

/* POPE, CHAIR, MME, AMBER, then others by name; the baseline before its competitors. */
static bool comes_after(const struct report_run *a, const struct report_run *b, const char *baseline) {
    static const char *const order[] = {"pope", "chair", "mme", "amber"};
    size_t rank[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        const char *benchmark = i == 0 ? a->benchmark : b->benchmark;
        while (rank[i] < sizeof order / sizeof *order && strcmp(order[rank[i]], benchmark) != 0) {
            rank[i]++;
        }
    }
    const int by_name = strcmp(a->benchmark, b->benchmark);
    if (rank[0] != rank[1] || by_name != 0) {
        return rank[0] != rank[1] ? rank[0] > rank[1] : by_name > 0;
    }
    return strcmp(a->name, baseline) != 0 && strcmp(b->name, baseline) == 0;
}

/* An insertion sort, because it keeps the order given where nothing else decides. */
static void sort_runs(struct report_run **runs, size_t n, const char *baseline) {
    for (size_t i = 1; i < n; i++) {
        struct report_run *run = runs[i];
        size_t to = i;
        for (; to > 0 && comes_after(runs[to - 1], run, baseline); to--) {
            runs[to] = runs[to - 1];
        }
        runs[to] = run;
    }
}

/* The name that candid eval gives to the run without a method: greedy, or sampled where the temperature is not 0. */
static const char *default_baseline(struct report_run *const *runs, size_t n) {
    bool greedy = false, sampled = false;
    for (size_t r = 0; r < n; r++) {
        greedy = greedy || strcmp(runs[r]->name, "greedy") == 0;
        sampled = sampled || strcmp(runs[r]->name, "sampled") == 0;
    }
    return sampled && !greedy ? "sampled" : "greedy";
}

candid_status report_build(struct report_run *const *runs, size_t n, const struct report_options *options,
                           struct report *out, candid_error *error) {
    *out = (struct report){.options = *options, .n_runs = n};
    out->runs = malloc((n + 1) * sizeof *out->runs);
    out->groups = calloc(n + 1, sizeof *out->groups);
    if (!out->runs || !out->groups) {
        report_free(out);
        return fail_memory(error, "the runs", n * sizeof *out->groups);
    }
    memcpy(out->runs, runs, n * sizeof *runs);
    if (!out->options.baseline) {
        out->options.baseline = default_baseline(runs, n);
    }
    sort_runs(out->runs, n, out->options.baseline);
    for (size_t r = 0; r < n; r++) {
        struct report_group *last = out->n_groups > 0 ? &out->groups[out->n_groups - 1] : NULL;
        if (last && strcmp(last->benchmark, out->runs[r]->benchmark) == 0) {
            last->n_runs++;
        } else {
            out->groups[out->n_groups++] =
                (struct report_group){.benchmark = out->runs[r]->benchmark, .runs = out->runs + r, .n_runs = 1};
        }
    }
    candid_status status = CANDID_OK;
    for (size_t g = 0; g < out->n_groups && status == CANDID_OK; g++) {
        status = build_group(&out->groups[g], &out->options, error);
    }
    if (status != CANDID_OK) {
        report_free(out);
    }
    return status;
}

void report_free(struct report *report) {
    for (size_t i = 0; report->groups && i < report->n_groups; i++) {
        struct report_group *g = &report->groups[i];
        for (size_t r = 0; g->curves && r < g->n_runs; r++) {
            free(g->curves[r].cuts);
        }
        for (size_t w = 0; w < g->n_warnings; w++) {
            free(g->warnings[w]);
        }
        free(g->at);
        free(g->unit);
        free(g->splits);
        free(g->split);
        free(g->metrics);
        free(g->values);
        free(g->curves);
        free(g->costs);
        free(g->warnings);
    }
    free(report->groups);
    free(report->runs);
    *report = (struct report){0};
}
