/* Which charts a benchmark gets. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "eval/report/page.h"
#include "eval/report/rules.h"
#include "eval/report/svg.h"
#include "eval/report/write.h"

int page_colour(const struct report *report, const struct report_group *g, size_t run) {
    const char *baseline = report->options.baseline;
    const char *name = g->runs[run]->name;
    if (strcmp(name, baseline) == 0) {
        return 0;
    }
    int colour = 0;
    for (size_t r = 0; r < report->n_runs && strcmp(report->runs[r]->name, name) != 0; r++) {
        bool first = strcmp(report->runs[r]->name, baseline) != 0;
        for (size_t before = 0; before < r; before++) {
            first = first && strcmp(report->runs[before]->name, report->runs[r]->name) != 0;
        }
        colour += first;
    }
    return 1 + colour % 7;
}

static double in_unit(const struct report_metric *m, double value) {
    return m->unit == UNIT_FRACTION ? 100 * value : value;
}

/* Rows of one metric, under a heading where several are shown. */
static size_t add_rows(const struct report *report, const struct report_group *g, size_t metric, const char *heading,
                       struct svg_bar *bars, struct shown *shown) {
    size_t n = 0;
    if (heading) {
        bars[n++] = (struct svg_bar){.heading = heading};
    }
    const struct report_metric *m = &g->metrics[metric];
    for (size_t r = 0; r < g->n_runs; r++) {
        const struct report_value *v = report_value(g, r, metric);
        bars[n] = (struct svg_bar){
            .label = g->runs[r]->name,
            .value = in_unit(m, v->value),
            .low = in_unit(m, v->low),
            .high = in_unit(m, v->high),
            .colour = page_colour(report, g, r),
            .shown = show_value(&shown[n], g, m, v->value, false),
        };
        n++;
    }
    return n;
}

/* One chart of one metric in one or several splits. */
static candid_status write_bars(FILE *f, const struct report *report, const struct report_group *g,
                                const size_t *metrics, size_t n_metrics, const char *title, double reference,
                                candid_error *error) {
    const size_t room = n_metrics * (g->n_runs + 1);
    struct svg_bar *bars = calloc(room, sizeof *bars);
    struct shown *shown = calloc(room, sizeof *shown);
    candid_status status = CANDID_OK;
    if (bars && shown) {
        size_t n = 0;
        for (size_t k = 0; k < n_metrics; k++) {
            const char *split = g->metrics[metrics[k]].split;
            n += add_rows(report, g, metrics[k], n_metrics > 1 ? split : NULL, bars + n, shown + n);
        }
        const struct report_metric *m = &g->metrics[metrics[0]];
        char about[300];
        snprintf(about, sizeof about, "%s of %zu methods with 95 %% confidence intervals%s; the table has the numbers.",
                 title, g->n_runs, n_metrics > 1 ? ", for each split" : "");
        svg_write_bars(f, &(struct svg_bars){
                              .title = title,
                              .about = about,
                              .unit = m->unit == UNIT_FRACTION ? "percent, 95 % interval" : "95 % interval",
                              .bars = bars,
                              .n = n,
                              .reference = reference,
                          });
    } else {
        status = fail_memory(error, "a chart", room * sizeof *bars);
    }
    free(bars);
    free(shown);
    return status;
}

static candid_status write_metric(FILE *f, const struct report *report, const struct report_group *g, const char *split,
                                  const char *key, const char *title, double reference, candid_error *error) {
    const size_t metric = report_metric_find(g, split, key);
    return metric == SIZE_MAX ? CANDID_OK : write_bars(f, report, g, &metric, 1, title, reference, error);
}

/* ---- scatters ------------------------------------------------------------------------------------ */

/* A point per run; coordinates of a metric, or taken from `x` and `y` [n_runs] where they are not NULL. */
struct points {
    struct svg_point *point; /* [n_runs] */
    double *line;            /* memory of the curves */
};

static candid_status points_make(const struct report *report, const struct report_group *g, struct points *out,
                                 candid_error *error) {
    *out = (struct points){.point = calloc(g->n_runs, sizeof *out->point)};
    if (!out->point) {
        return fail_memory(error, "a chart", g->n_runs * sizeof *out->point);
    }
    for (size_t r = 0; r < g->n_runs; r++) {
        out->point[r].label = g->runs[r]->name;
        out->point[r].colour = page_colour(report, g, r);
    }
    return CANDID_OK;
}

static void points_free(struct points *points) {
    free(points->point);
    free(points->line);
}

/* The curves of cut captions, over recall or over length. */
static candid_status add_curves(const struct report_group *g, bool over_length, struct points *points,
                                candid_error *error) {
    size_t total = 0;
    for (size_t r = 0; r < g->n_runs; r++) {
        total += g->curves[r].n;
    }
    double *at = points->line = malloc((2 * total + 1) * sizeof *at);
    if (!at) {
        return fail_memory(error, "a curve", 2 * total * sizeof *at);
    }
    for (size_t r = 0; r < g->n_runs; r++) {
        const struct report_curve *c = &g->curves[r];
        for (size_t k = 0; k < c->n; k++) {
            at[k] = over_length ? c->cuts[k].words : 100 * c->cuts[k].recall;
            at[c->n + k] = 100 * c->cuts[k].chair_i;
        }
        points->point[r].line_x = at;
        points->point[r].line_y = at + c->n;
        points->point[r].n_line = c->n;
        at += 2 * c->n;
    }
    return CANDID_OK;
}

static candid_status write_scatter(FILE *f, const struct report *report, const struct report_group *g, size_t x_metric,
                                   size_t y_metric, bool curves, struct svg_scatter chart, candid_error *error) {
    struct points points;
    TRY(points_make(report, g, &points, error));
    for (size_t r = 0; r < g->n_runs; r++) {
        points.point[r].x = in_unit(&g->metrics[x_metric], report_value(g, r, x_metric)->value);
        points.point[r].y = in_unit(&g->metrics[y_metric], report_value(g, r, y_metric)->value);
    }
    candid_status status = curves ? add_curves(g, g->metrics[x_metric].unit == UNIT_NUMBER, &points, error) : CANDID_OK;
    if (status == CANDID_OK) {
        chart.points = points.point;
        chart.n = g->n_runs;
        svg_write_scatter(f, &chart);
    }
    points_free(&points);
    return status;
}

/* ---- benchmarks ---------------------------------------------------------------------------------- */

static candid_status pope_charts(FILE *f, const struct report *report, const struct report_group *g,
                                 candid_error *error) {
    const char *lead = g->n_splits > 1 ? "mean" : g->splits[0];
    size_t *splits = malloc((g->n_splits + 1) * sizeof *splits);
    if (!splits) {
        return fail_memory(error, "a chart", g->n_splits * sizeof *splits);
    }
    for (size_t s = 0; s < g->n_splits; s++) {
        splits[s] = report_metric_find(g, g->splits[s], "accuracy");
    }
    fputs("<div class=\"charts two\">\n", f);
    const candid_status status = write_bars(f, report, g, splits, g->n_splits, "Accuracy", NAN, error);
    free(splits);
    TRY(status);
    TRY(write_scatter(
        f, report, g, report_metric_find(g, lead, "recall"), report_metric_find(g, lead, "precision"), false,
        (struct svg_scatter){
            .title = "Precision against recall",
            .about = "Of the questions answered by yes, how many rightly, against how many of those to be "
                     "answered by yes were.",
            .x_name = "recall, percent",
            .y_name = "precision, percent",
            .better = "Upper right is better. A method that only says yes less often moves to the upper left.",
        },
        error));
    TRY(write_metric(f, report, g, lead, "f1", "F1", NAN, error));
    TRY(write_metric(f, report, g, lead, "yes_ratio", "Yes ratio", 50, error));
    fputs("</div>\n", f);
    return CANDID_OK;
}

static candid_status chair_charts(FILE *f, const struct report *report, const struct report_group *g,
                                  candid_error *error) {
    const size_t chair_i = report_metric_find(g, "", "chair_i"), recall = report_metric_find(g, "", "recall"),
                 length = report_metric_find(g, "", "length");
    struct svg_scatter chart = {
        .title = "CHAIR_i against recall",
        .about = "Share of hallucinated mentions against the share of true objects that are mentioned. Each curve is a "
                 "method's captions cut after ever more words.",
        .x_name = "recall, percent",
        .y_name = "CHAIR_i, percent",
        .better = "Lower right is better. Curves: the same captions cut after 1, 2, 3 … words. A low CHAIR bought by "
                  "short captions is no gain: it lies on the baseline's curve.",
    };
    fputs("<div class=\"charts two\">\n", f);
    TRY(write_scatter(f, report, g, recall, chair_i, true, chart, error));
    chart.title = "CHAIR_i against length";
    chart.about = "Share of hallucinated mentions against the mean length of captions.";
    chart.x_name = "mean length, words";
    chart.better = "Below the baseline's curve: fewer hallucinations at equal length.";
    TRY(write_scatter(f, report, g, length, chair_i, true, chart, error));
    fputs("</div>\n<div class=\"charts three\">\n", f);
    TRY(write_metric(f, report, g, "", "chair_s", "CHAIR_s: captions with a hallucination", NAN, error));
    TRY(write_metric(f, report, g, "", "chair_i", "CHAIR_i: hallucinated mentions", NAN, error));
    TRY(write_metric(f, report, g, "", "recall", "Recall of true objects", NAN, error));
    fputs("</div>\n", f);
    return CANDID_OK;
}

/* The scores of all sub-tasks in one chart, since they have one scale; the totals have others. */
static candid_status mme_charts(FILE *f, const struct report *report, const struct report_group *g,
                                candid_error *error) {
    size_t *scores = malloc((g->n_metrics + 1) * sizeof *scores), n = 0;
    if (!scores) {
        return fail_memory(error, "a chart", g->n_metrics * sizeof *scores);
    }
    candid_status status = CANDID_OK;
    fputs("<div class=\"charts two\">\n", f);
    for (size_t m = 0; m < g->n_metrics && status == CANDID_OK; m++) {
        const bool subtask = m > 0 && strcmp(g->metrics[m - 1].key, "acc_plus") == 0;
        if (subtask) {
            scores[n++] = m;
        } else if (strcmp(g->metrics[m].key, "score") == 0) {
            char title[160];
            snprintf(title, sizeof title, "Score (%s)", g->metrics[m].split);
            status = write_bars(f, report, g, &m, 1, title, NAN, error);
        }
    }
    if (status == CANDID_OK && n > 0) {
        status = write_bars(f, report, g, scores, n, "Scores of the sub-tasks, at most 200", NAN, error);
    }
    fputs("</div>\n", f);
    free(scores);
    return status;
}

static candid_status main_charts(FILE *f, const struct report *report, const struct report_group *g,
                                 candid_error *error) {
    fputs("<div class=\"charts three\">\n", f);
    for (size_t m = 0; m < g->n_metrics; m++) {
        if (g->metrics[m].main && report_is_known(g, m)) {
            const char *split = g->metrics[m].split;
            char title[160];
            snprintf(title, sizeof title, "%s%s%s%s", g->metrics[m].name, split[0] ? " (" : "", split,
                     split[0] ? ")" : "");
            TRY(write_bars(f, report, g, &m, 1, title, NAN, error));
        }
    }
    fputs("</div>\n", f);
    return CANDID_OK;
}

candid_status page_charts(FILE *f, const struct report *report, const struct report_group *g, candid_error *error) {
    if (g->rules == &report_pope && g->n_splits > 0) {
        return pope_charts(f, report, g, error);
    }
    return g->rules == &report_chair ? chair_charts(f, report, g, error)
           : g->rules == &report_mme ? mme_charts(f, report, g, error)
                                     : main_charts(f, report, g, error);
}

/* ---- cost ---------------------------------------------------------------------------------------- */

/* The metric that a gain is read off: CHAIR_i, else the first with a direction. */
static size_t leading_metric(const struct report_group *g) {
    size_t m = g->rules == &report_chair ? report_metric_find(g, "", "chair_i") : 0;
    while (m < g->n_metrics && g->metrics[m].better == 0) {
        m++;
    }
    return m;
}

candid_status page_cost_chart(FILE *f, const struct report *report, const struct report_group *g, candid_error *error) {
    const size_t lead = leading_metric(g);
    if (g->baseline == SIZE_MAX || lead >= g->n_metrics) {
        return CANDID_OK;
    }
    const struct report_metric *m = &g->metrics[lead];
    char gain[96];
    snprintf(gain, sizeof gain, "%s of %s, points", m->better < 0 ? "reduction" : "gain", m->name);
    struct points points;
    TRY(points_make(report, g, &points, error));
    bool known = false;
    for (size_t r = 0; r < g->n_runs; r++) {
        const double difference = r == g->baseline ? 0.0 : report_value(g, r, lead)->difference;
        points.point[r].x = g->costs[r].relative;
        points.point[r].y = in_unit(m, difference * m->better);
        known = known || (r != g->baseline && !isnan(points.point[r].x) && !isnan(difference));
    }
    if (known) {
        svg_write_scatter(f, &(struct svg_scatter){
                                 .title = "Cost against gain",
                                 .about = "Time per question relative to the baseline, against the improvement on it.",
                                 .x_name = "time per question, baseline = 1",
                                 .y_name = gain,
                                 .better = "Upper left is better: more gain for less time.",
                                 .points = points.point,
                                 .n = g->n_runs,
                                 .zero_line = true,
                             });
    }
    points_free(&points);
    return CANDID_OK;
}
