/*
 * Text and numbers as the outputs of a report need them. Answers may hold anything: everything that comes from a file
 * goes through one of these. Bytes that are no UTF-8 and control characters become U+FFFD.
 */
#ifndef CANDID_EVAL_REPORT_WRITE_H
#define CANDID_EVAL_REPORT_WRITE_H

#include <stddef.h>
#include <stdio.h>

#include "eval/report/report.h"

/* Between tags, and in attributes in double quotes; of SVG as well. */
void write_html(FILE *f, const char *text);

/* A string with its quotes, for JSON in a script element: no "</script>", no "<!--", no line separators. */
void write_json(FILE *f, const char *text);
void write_json_part(FILE *f, const char *text, size_t size); /* without the quotes */

/* A cell of a table. */
void write_markdown(FILE *f, const char *text);

/* A field, quoted where it must be. */
void write_csv(FILE *f, const char *text);

/* The shortest decimal that reads back as the same double; nothing for NAN. */
void write_double(FILE *f, double value);

/* "1,234,567"; "–" for NAN. */
void write_count(FILE *f, double value);

/* A value as shown: "85.33", "12.4"; "–" for NAN. `sign`: with a sign, the minus sign a true one. */
struct shown {
    char s[48];
};
const char *show_value(struct shown *to, const struct report_group *g, const struct report_metric *m, double value,
                       bool sign);
/* "0.012", "< 0.001" */
const char *show_p(struct shown *to, double p);

#endif
