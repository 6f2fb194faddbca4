/*
 * What a report knows of each benchmark: which counts a verdict adds, and which metrics the sums of counts make.
 * Formulas: the scorers of eval/; here without their rounding, because they serve intervals and subsets.
 */
#ifndef CANDID_EVAL_REPORT_RULES_H
#define CANDID_EVAL_REPORT_RULES_H

#include "eval/report/report.h"

struct report_benchmark {
    const char *name;  /* as in summaries; NULL: any other */
    const char *title; /* as shown; NULL: the name */
    bool yes_no;       /* right or wrong: differences of accuracy are tested by McNemar */
    bool unit_is_pair; /* images of the same name in two splits are two images (MME) */
    /* Appends the metrics. g->splits are known. */
    candid_status (*prepare)(struct report_group *g, candid_error *error);
    size_t (*n_counts)(const struct report_group *g);
    /* Adds an item to counts [n_counts] of its image; false when the verdict lacks what it takes. */
    bool (*count)(const struct report_group *g, size_t run, size_t i, double *counts);
    /* Completes the counts of an image after its last item. May be NULL. */
    void (*finish)(const struct report_group *g, double *counts);
    /* Metric m of sums [n_counts]; NAN where it is undefined. */
    double (*value)(const struct report_group *g, size_t m, const double *sums);
    /* Whether item i counts for metric m. NULL: by the name of the split. */
    bool (*covers)(const struct report_group *g, size_t m, size_t i);
    /* Where the summary has metric m: a path below "scores"; returns what its value is to be divided by. May be NULL.
     */
    double (*path)(const struct report_group *g, size_t m, char path[128]);
};

const struct report_benchmark *report_benchmark(const char *name);

/* Appends a metric of NAN values. */
candid_status report_add_metric(struct report_group *g, const struct report_metric *metric, candid_error *error);

/* What is to be marked in an answer: wrong, or something in it is hallucinated. */
bool report_is_bad(const cJSON *verdict);

extern const struct report_benchmark report_pope, report_chair, report_mme, report_amber, report_other;

/* a / b, NAN for 0 / 0 */
double report_ratio(double a, double b);

#endif
