/* MME. */
#include <math.h>
#include <string.h>
#include <strings.h>

#include "core/status.h"
#include "eval/report/rules.h"

/* ---- MME ----------------------------------------------------------------------------------------- */

enum { QUESTIONS, CORRECT, IMAGES, ALL_CORRECT, MME_COUNTS };
enum { MME_METRICS = 3 }; /* of a sub-task */

/* The sums that are published: their names and the beginnings of their sub-tasks' names. */
static const struct {
    const char *name;
    const char *parts[12];
} totals[] = {
    {"hallucination", {"existence", "count", "position", "color"}},
    {"perception",
     {"existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "ocr"}},
    {"cognition", {"commonsense", "numerical", "text", "code"}},
};
enum { TOTALS = sizeof totals / sizeof *totals };

static size_t find_part(const struct report_group *g, const char *part) {
    for (size_t s = 0; s < g->n_splits; s++) {
        if (strncasecmp(g->splits[s], part, strlen(part)) == 0) {
            return s;
        }
    }
    return SIZE_MAX;
}

/* All its sub-tasks were asked. */
static bool has_total(const struct report_group *g, size_t total) {
    for (size_t i = 0; totals[total].parts[i]; i++) {
        if (find_part(g, totals[total].parts[i]) == SIZE_MAX) {
            return false;
        }
    }
    return true;
}

static candid_status mme_prepare(struct report_group *g, candid_error *error) {
    for (size_t t = 0; t < TOTALS; t++) {
        if (has_total(g, t)) {
            const struct report_metric m = {.split = totals[t].name,
                                            .part = t,
                                            .key = "score",
                                            .name = "Score",
                                            .unit = UNIT_NUMBER,
                                            .better = 1,
                                            .main = true};
            TRY(report_add_metric(g, &m, error));
        }
    }
    const bool few = g->n_metrics == 0; /* no total: the sub-tasks are the result */
    for (size_t s = 0; s < g->n_splits; s++) {
        struct report_metric m[MME_METRICS] = {
            {.key = "acc", .name = "Accuracy", .better = 1},
            {.key = "acc_plus", .name = "Accuracy+", .better = 1},
            {.key = "score", .name = "Score", .unit = UNIT_NUMBER, .better = 1, .main = few},
        };
        for (size_t k = 0; k < MME_METRICS; k++) {
            m[k].split = g->splits[s];
            m[k].part = TOTALS + s;
            TRY(report_add_metric(g, &m[k], error));
        }
    }
    return CANDID_OK;
}

static size_t mme_n_counts(const struct report_group *g) {
    return g->n_splits * MME_COUNTS;
}

static bool mme_count(const struct report_group *g, size_t run, size_t i, double *counts) {
    const cJSON *correct = json_find(report_verdict(g, run, i), "correct");
    if (!cJSON_IsBool(correct)) {
        return false;
    }
    counts[g->split[i] * MME_COUNTS + QUESTIONS] += 1;
    counts[g->split[i] * MME_COUNTS + CORRECT] += cJSON_IsTrue(correct);
    return true;
}

static void mme_finish(const struct report_group *g, double *counts) {
    for (size_t s = 0; s < g->n_splits; s++, counts += MME_COUNTS) {
        counts[IMAGES] = counts[QUESTIONS] > 0;
        counts[ALL_CORRECT] = counts[QUESTIONS] > 0 && counts[CORRECT] == counts[QUESTIONS];
    }
}

static double mme_score(const double *c) {
    return report_ratio(c[CORRECT], c[QUESTIONS]) * 100 + report_ratio(c[ALL_CORRECT], c[IMAGES]) * 100;
}

static double mme_value(const struct report_group *g, size_t m, const double *sums) {
    const struct report_metric *metric = &g->metrics[m];
    if (metric->part < TOTALS) {
        double sum = 0.0;
        for (size_t i = 0; totals[metric->part].parts[i]; i++) {
            sum += mme_score(sums + find_part(g, totals[metric->part].parts[i]) * MME_COUNTS);
        }
        return sum;
    }
    const double *c = sums + (metric->part - TOTALS) * MME_COUNTS;
    return strcmp(metric->key, "acc") == 0        ? report_ratio(c[CORRECT], c[QUESTIONS])
           : strcmp(metric->key, "acc_plus") == 0 ? report_ratio(c[ALL_CORRECT], c[IMAGES])
                                                  : mme_score(c);
}

static double mme_path(const struct report_group *g, size_t m, char path[128]) {
    const struct report_metric *metric = &g->metrics[m];
    if (metric->part < TOTALS) {
        snprintf(path, 128, "%s", metric->split);
    } else {
        snprintf(path, 128, "subtasks.%s.%s", metric->split, metric->key);
    }
    return 1.0;
}

const struct report_benchmark report_mme = {
    .name = "mme",
    .title = "MME",
    .yes_no = true,
    .unit_is_pair = true,
    .prepare = mme_prepare,
    .n_counts = mme_n_counts,
    .count = mme_count,
    .finish = mme_finish,
    .value = mme_value,
    .path = mme_path,
};
