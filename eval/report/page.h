/* Parts of the page. */
#ifndef CANDID_EVAL_REPORT_PAGE_H
#define CANDID_EVAL_REPORT_PAGE_H

#include "eval/report/report.h"

/* Embedded at build time: eval/report/page.css and page.js. NUL-terminated. */
extern const char report_page_css[], report_page_js[];

/* Class m0 (baseline) … m7 of a run: runs of one name have one colour in all groups. */
int page_colour(const struct report *report, const struct report_group *g, size_t run);

candid_status page_charts(FILE *f, const struct report *report, const struct report_group *g, candid_error *error);

/* What the gains cost; nothing where there is no baseline or no times. */
candid_status page_cost_chart(FILE *f, const struct report *report, const struct report_group *g, candid_error *error);

/* The answers as JSON in a script element, and the images. */
candid_status page_answers(FILE *f, const struct report *report, candid_error *error);

/*
 * The image as a data: URI without quotes: the file's bytes where it is small and a browser can show it, else scaled
 * down and written as JPEG. *written is false, without an error, when there is no such image: a report must not fail
 * for it.
 */
candid_status page_image(FILE *f, const char *folder, const char *name, bool *written, candid_error *error);

/* The folder of a group's images: the option, or what the first run says; NULL: nobody says. */
const char *page_images_folder(const struct report *report, const struct report_group *g);

#endif
