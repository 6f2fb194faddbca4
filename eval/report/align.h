/* The questions that runs share, and what makes their comparison unfair. */
#ifndef CANDID_EVAL_REPORT_ALIGN_H
#define CANDID_EVAL_REPORT_ALIGN_H

#include "eval/report/report.h"

/*
 * Fills n_items, at, unit, n_units, split, splits of a group whose runs are set. Two questions are the same when split,
 * image and question are; where a run asks one twice, its first is compared with the others' first. An error when the
 * runs did not answer the same questions and `common` is false.
 */
candid_status align_group(struct report_group *g, bool common, candid_error *error);

/* Appends a sentence to g->warnings. */
candid_status align_warn(struct report_group *g, candid_error *error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Warns of what differs between the runs besides the method, and of what is missing. */
candid_status align_check(struct report_group *g, candid_error *error);

#endif
