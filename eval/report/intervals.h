/*
 * How sure the numbers are: intervals by the bootstrap, differences of paired runs, McNemar's test.
 *
 * A metric is a function of sums of counts, each count belonging to a unit (an image). A resample draws as many units
 * as there are, with replacement, adds up their counts and computes the metrics. The same draws serve all runs, so the
 * differences are paired.
 */
#ifndef CANDID_EVAL_REPORT_INTERVALS_H
#define CANDID_EVAL_REPORT_INTERVALS_H

#include <stddef.h>
#include <stdint.h>

#include "candid/candid.h"

struct intervals_problem {
    const double *counts; /* [n_runs][n_units][n_counts] */
    size_t n_runs, n_units, n_counts, n_metrics;
    size_t baseline; /* SIZE_MAX: none */
    /* values [n_metrics] of sums [n_counts]; NAN where undefined */
    void (*measure)(const void *context, const double *sums, double *values);
    const void *context;
    size_t resamples;
    uint64_t seed;
};

struct interval {
    double low, high;                       /* 2.5 % and 97.5 % points of the resampled values */
    double difference_low, difference_high; /* the same of value minus the baseline's */
    double p; /* two-sided: twice the smaller share of resampled differences on one side of 0; NAN: no baseline */
};

/* out [n_runs][n_metrics]. Resamples in which a metric is undefined do not count for it. */
candid_status intervals_bootstrap(const struct intervals_problem *problem, struct interval *out, candid_error *error);

/* Two-sided exact p of McNemar's test: of two answers to the same questions `only_a` are right in the first alone and
 * `only_b` in the second alone. 1 when there is none. */
double intervals_mcnemar(size_t only_a, size_t only_b);

#endif
