/* Benchmarks by name; the rules of POPE and of those a report does not know. */
#include "eval/report/rules.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"

const struct report_benchmark *report_benchmark(const char *name) {
    static const struct report_benchmark *const known[] = {&report_pope, &report_chair, &report_mme, &report_amber};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(known[i]->name, name) == 0) {
            return known[i];
        }
    }
    return &report_other;
}

double report_ratio(double a, double b) {
    return b > 0.0 ? a / b : NAN;
}

candid_status report_add_metric(struct report_group *g, const struct report_metric *metric, candid_error *error) {
    struct report_metric *grown = realloc(g->metrics, (g->n_metrics + 1) * sizeof *grown);
    if (!grown) {
        return fail_memory(error, "the metrics", (g->n_metrics + 1) * sizeof *grown);
    }
    g->metrics = grown;
    grown[g->n_metrics++] = *metric;
    return CANDID_OK;
}

bool report_is_bad(const cJSON *verdict) {
    const cJSON *correct = json_find(verdict, "correct"), *objects = json_find(verdict, "objects");
    if (correct) {
        return !cJSON_IsTrue(correct);
    }
    for (const cJSON *o = cJSON_IsArray(objects) ? objects->child : NULL; o; o = o->next) {
        if (cJSON_IsTrue(json_find(o, "hallucinated"))) {
            return true;
        }
    }
    const cJSON *nouns = json_find(verdict, "hallucinated");
    return cJSON_IsArray(nouns) && nouns->child;
}

/* ---- POPE ---------------------------------------------------------------------------------------- */

/* Counts of a split. An answer that is neither yes nor no is wrong and no "yes". */
enum { ASKED, GOLD_YES, SAID_YES, TRUE_YES, CORRECT, POPE_COUNTS };
enum { POPE_METRICS = 5 };

static const struct report_metric pope_metrics[POPE_METRICS] = {
    {.key = "accuracy", .name = "Accuracy", .better = 1},   {.key = "precision", .name = "Precision", .better = 1},
    {.key = "recall", .name = "Recall", .better = 1},       {.key = "f1", .name = "F1", .better = 1},
    {.key = "yes_ratio", .name = "Yes ratio", .better = 0},
};

/* The metrics of one split, or of their mean. */
static candid_status add_split(struct report_group *g, const char *split, bool main, candid_error *error) {
    for (size_t k = 0; k < POPE_METRICS; k++) {
        struct report_metric m = pope_metrics[k];
        m.split = split;
        m.main = main;
        TRY(report_add_metric(g, &m, error));
    }
    return CANDID_OK;
}

static candid_status pope_prepare(struct report_group *g, candid_error *error) {
    if (g->n_splits > 1) {
        TRY(add_split(g, "mean", true, error));
    }
    for (size_t s = 0; s < g->n_splits; s++) {
        TRY(add_split(g, g->splits[s], g->n_splits == 1, error));
    }
    return CANDID_OK;
}

static size_t pope_n_counts(const struct report_group *g) {
    return g->n_splits * POPE_COUNTS;
}

static bool pope_count(const struct report_group *g, size_t run, size_t i, double *counts) {
    const cJSON *verdict = json_find(report_verdict(g, run, i), "verdict");
    const cJSON *correct = json_find(report_verdict(g, run, i), "correct");
    const char *label = report_item(g, run, i)->label;
    if (!cJSON_IsString(verdict) || !cJSON_IsBool(correct) || !label) {
        return false;
    }
    double *c = counts + g->split[i] * POPE_COUNTS;
    const bool yes = strcmp(label, "no") != 0, said = strcmp(verdict->valuestring, "yes") == 0;
    c[ASKED] += 1;
    c[GOLD_YES] += yes;
    c[SAID_YES] += said;
    c[TRUE_YES] += yes && said;
    c[CORRECT] += cJSON_IsTrue(correct);
    return true;
}

/* Metric k of one split. */
static double pope_of_split(size_t k, const double *c) {
    const double precision = report_ratio(c[TRUE_YES], c[SAID_YES]), recall = report_ratio(c[TRUE_YES], c[GOLD_YES]);
    switch (k) {
    case 0: return report_ratio(c[CORRECT], c[ASKED]);
    case 1: return precision;
    case 2: return recall;
    case 3: return report_ratio(2 * precision * recall, precision + recall);
    default: return report_ratio(c[SAID_YES], c[ASKED]);
    }
}

static double pope_value(const struct report_group *g, size_t m, const double *sums) {
    const size_t k = m % POPE_METRICS, slot = m / POPE_METRICS;
    if (g->n_splits == 1 || slot > 0) {
        return pope_of_split(k, sums + (g->n_splits == 1 ? 0 : slot - 1) * POPE_COUNTS);
    }
    double sum = 0.0;
    for (size_t s = 0; s < g->n_splits; s++) {
        sum += pope_of_split(k, sums + s * POPE_COUNTS);
    }
    return sum / (double)g->n_splits;
}

static double pope_path(const struct report_group *g, size_t metric, char path[128]) {
    const struct report_metric *m = &g->metrics[metric];
    if (g->n_splits > 1 && metric < POPE_METRICS) {
        snprintf(path, 128, "mean.%s", m->key);
    } else {
        snprintf(path, 128, "splits.%s.%s", m->split, m->key);
    }
    return 1.0;
}

const struct report_benchmark report_pope = {
    .name = "pope",
    .title = "POPE",
    .yes_no = true,
    .prepare = pope_prepare,
    .n_counts = pope_n_counts,
    .count = pope_count,
    .value = pope_value,
    .path = pope_path,
};

/* ---- any other benchmark ------------------------------------------------------------------------- */

enum { ANSWERS, WORDS, JUDGED, RIGHT, OTHER_COUNTS };

static candid_status other_prepare(struct report_group *g, candid_error *error) {
    TRY(report_add_metric(
        g, &(struct report_metric){.split = "", .key = "correct", .name = "Correct", .better = 1, .main = true},
        error));
    return report_add_metric(
        g, &(struct report_metric){.split = "", .key = "words", .name = "Words", .unit = UNIT_NUMBER, .main = true},
        error);
}

static size_t other_n_counts(const struct report_group *g) {
    return OTHER_COUNTS;
}

static bool other_count(const struct report_group *g, size_t run, size_t i, double *counts) {
    const cJSON *correct = json_find(report_verdict(g, run, i), "correct");
    counts[ANSWERS] += 1;
    for (const char *at = report_item(g, run, i)->answer; *(at += strspn(at, " \t\r\n"));) {
        at += strcspn(at, " \t\r\n");
        counts[WORDS] += 1;
    }
    counts[JUDGED] += cJSON_IsBool(correct);
    counts[RIGHT] += cJSON_IsTrue(correct);
    return true;
}

static double other_value(const struct report_group *g, size_t m, const double *sums) {
    return m == 0 ? report_ratio(sums[RIGHT], sums[JUDGED]) : report_ratio(sums[WORDS], sums[ANSWERS]);
}

const struct report_benchmark report_other = {
    .prepare = other_prepare,
    .n_counts = other_n_counts,
    .count = other_count,
    .value = other_value,
};
