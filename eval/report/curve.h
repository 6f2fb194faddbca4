/*
 * CHAIR at equal recall and equal length. Cutting every caption after its first k words, k = 1, 2, …, gives a curve
 * from nothing said to all said; the mentions of a verdict and their positions are enough. A low CHAIR_i that a method
 * has bought by short captions lies on the baseline's own curve; a gain lies below it.
 */
#ifndef CANDID_EVAL_REPORT_CURVE_H
#define CANDID_EVAL_REPORT_CURVE_H

#include "eval/report/report.h"

#define CURVE_MOST_CUTS 160 /* evenly over longer captions; the last cut is always the whole caption */

/* The curve of a run of CHAIR. Cuts before the first mention are left out. out->cuts is the caller's. */
candid_status curve_make(const struct report_group *g, size_t run, struct report_curve *out, candid_error *error);

/* CHAIR_i of the curve at a recall or a mean length, linear between cuts; NAN before its first cut and beyond its last.
 */
double curve_at_recall(const struct report_curve *curve, double recall);
double curve_at_length(const struct report_curve *curve, double words);

#endif
