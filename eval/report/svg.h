/* Charts as inline SVG, coloured by the classes m0 … m7 of the page's style. */
#ifndef CANDID_EVAL_REPORT_SVG_H
#define CANDID_EVAL_REPORT_SVG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* An axis of values with ticks at round numbers. */
struct svg_axis {
    double low, high, step;
    int decimals;
};

/* Covers low..high with some air; `from_zero` begins at 0. Works for empty and undefined ranges. */
struct svg_axis svg_axis(double low, double high, bool from_zero);

/* A row of a bar chart. `label` NULL: a heading `heading` only. NAN interval: none. */
struct svg_bar {
    const char *heading, *label;
    double value, low, high;
    int colour;
    const char *shown; /* the value as text */
};

struct svg_bars {
    const char *title, *about;  /* about: what a reader who cannot see it is told; plain text */
    const char *unit;           /* under the axis */
    const struct svg_bar *bars; /* [n] */
    size_t n;
    double reference; /* a dashed line, NAN: none */
};

/* Bars from 0, or points on a shorter axis where bars would all look alike. */
void svg_write_bars(FILE *f, const struct svg_bars *chart);

struct svg_point {
    double x, y;
    const char *label;
    int colour;
    const double *line_x, *line_y; /* [n_line] a curve that belongs to it */
    size_t n_line;
};

struct svg_scatter {
    const char *title, *about, *x_name, *y_name;
    const char *better;             /* "lower right is better" */
    const struct svg_point *points; /* [n]; those with NAN are left out */
    size_t n;
    bool zero_line; /* a line at y = 0 */
};

void svg_write_scatter(FILE *f, const struct svg_scatter *chart);

#endif
