/* Intervals and tests of a group's metrics, by eval/stats. */
#ifndef CANDID_EVAL_REPORT_INTERVALS_H
#define CANDID_EVAL_REPORT_INTERVALS_H

#include "eval/report/report.h"

/* Fills g->values but the differences and McNemar's p. counts: [n_runs][n_units][n_counts] of the images. */
candid_status intervals_find(struct report_group *g, const double *counts, size_t n_counts,
                             const struct report_options *o, candid_error *error);

/* Fills the differences to the baseline, and p of accuracy in a split by McNemar's exact test. The values are final. */
candid_status intervals_compare(struct report_group *g, candid_error *error);

#endif
