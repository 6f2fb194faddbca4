/*
 * How sure a score is, and whether two runs differ.
 *
 * Bootstrap (Efron 1979): items are drawn anew with replacement, many times, and the metric is computed from each draw;
 * the interval is the percentile one (Efron and Tibshirani 1993, chapter 13). Questions about one image are not
 * independent, so what is drawn are clusters, that is, images with all their questions.
 *
 * McNemar (1947): two runs answer the same yes/no questions; under the null hypothesis the questions that only one of
 * them gets right fall to either with probability 1/2. The exact test is conservative; Fagerland, Lydersen and Laake
 * (2013, BMC Medical Research Methodology 13:91) recommend its mid-p variant. Both treat questions as independent.
 *
 * Metrics are ratios of sums (CHAIR_i: hallucinated mentions / mentions), so an item is a small vector of counts and a
 * metric a function of the vectors' sum. Nothing here knows a benchmark.
 */
#ifndef CANDID_EVAL_STATS_STATS_H
#define CANDID_EVAL_STATS_STATS_H

#include <stddef.h>
#include <stdint.h>

#include "candid/candid.h"

/* value(sums, context): a metric from summed counts; NAN where it is undefined. */
struct stats_metric {
    double (*value)(const double *sums, const void *context);
    const void *context;
};

/* Ready-made metrics. context: const size_t[2], the indices of numerator and denominator. */
double stats_ratio(const double *sums, const void *context);
/* context: const size_t[3], the indices of true positives, false positives and false negatives: 2tp/(2tp+fp+fn). */
double stats_f1(const double *sums, const void *context);

/* Items as vectors of counts. Borrowed. */
struct stats_data {
    const double *counts; /* [n][n_counts] */
    size_t n, n_counts;
    const size_t *cluster; /* [n] which cluster an item belongs to, from 0 to below n; NULL: each its own */
};

/* Zero: the default. */
struct stats_options {
    int n_resamples; /* 10,000 */
    double level;    /* 0.95 */
    uint64_t seed;   /* the same seed, the same draws, on every machine */
};

/* A metric of all items and its interval; all NAN where it is undefined for all items. */
struct stats_interval {
    double value, low, high;
    int n_undefined; /* resamples it was undefined for, which are left out */
};

/* Intervals of `n_metrics` metrics from the same draws into out[n_metrics]. No items: CANDID_ERROR_ARGUMENT. */
candid_status stats_bootstrap(const struct stats_data *data, const struct stats_metric *metrics, size_t n_metrics,
                              const struct stats_options *options, struct stats_interval *out, candid_error *error);

/* Run b against run a. */
struct stats_difference {
    struct stats_interval a, b;
    struct stats_interval difference; /* b - a */
    double p; /* two-sided: twice the smaller share of draws on one side of no difference, (1 + count) / (1 + draws) */
};

/*
 * The same for two runs over the same items: counts_a and counts_b are [n][n_counts] with rows for the same items
 * (data->counts is not used), and each draw takes the same items from both.
 */
candid_status stats_compare(const struct stats_data *data, const double *counts_a, const double *counts_b,
                            const struct stats_metric *metrics, size_t n_metrics, const struct stats_options *options,
                            struct stats_difference *out, candid_error *error);

/* Two runs over the same yes/no questions. */
struct stats_mcnemar {
    size_t both, only_a, only_b, neither; /* questions answered right */
    double p;                             /* exact, two-sided; 1 where only_a == only_b */
    double mid_p;
};

/* From right (not 0) or wrong (0) answers, [n] each. */
struct stats_mcnemar stats_mcnemar(const double *correct_a, const double *correct_b, size_t n);

/* Gives each of n items the number of its text's first occurrence: equal texts, one cluster. NULL texts are clusters of
 * their own. out: [n]. */
candid_status stats_clusters(const char *const *texts, size_t n, size_t *out, candid_error *error);

#endif
