/*
 * Reports: runs of benchmarks read, compared on the questions they share, and written as a page, as Markdown and CSV.
 *
 *   report_run_read    one run: its summary, answers and verdicts
 *   report_build       runs grouped by benchmark, questions aligned, metrics with intervals, what makes it unfair
 *   report_write_*     the outputs; they only print what report_build found
 *
 * Metrics are counted again from the verdicts, so that a resampled set of images can be scored like the whole. The unit
 * of resampling is the image: the questions about one image are not independent.
 */
#ifndef CANDID_EVAL_REPORT_REPORT_H
#define CANDID_EVAL_REPORT_REPORT_H

#include <stdio.h>

#include "core/json.h"
#include "eval/common/items.h"

/* ---- runs ---------------------------------------------------------------------------------------- */

/* A run as `candid eval` writes it: NAME.json, and beside it the files that it names. Start from {0}. */
struct report_run {
    char *path;                  /* of the summary */
    struct json summary;         /* what follows points into it */
    const char *name;            /* of the method */
    const char *benchmark;       /* "pope", "chair", … */
    bool complete;               /* the run went through all its questions */
    bool has_answers;            /* false: the summary names no answers (candid score), only its scores are there */
    struct eval_items questions; /* in order of their index */
    const char **errors;         /* [questions.n] why there is no answer, else NULL; strings of `questions` */
    cJSON **verdicts;            /* [questions.n] NULL: none. An answer without verdict counts as unanswered */
};

candid_status report_run_read(const char *path, struct report_run *out, candid_error *error);
void report_run_free(struct report_run *run);

/* A member of the summary by its path, "settings.prompt"; NULL when it is not there. */
const cJSON *report_summary(const struct report_run *run, const char *path);
/* The same as a string or number; NULL or NAN when it is not there or is none (infinite: none). */
const char *report_summary_string(const struct report_run *run, const char *path);
double report_summary_number(const struct report_run *run, const char *path);

/* ---- comparison ---------------------------------------------------------------------------------- */

enum report_unit {
    UNIT_FRACTION, /* 0..1, shown in percent */
    UNIT_NUMBER,   /* shown with one decimal */
};

struct report_metric {
    const char *split; /* "random", "mean"; "" where there are no splits */
    size_t part;       /* what the rules know it by */
    const char *key;   /* as in summaries: "chair_i" */
    const char *name;  /* as shown: "CHAIR_i" */
    enum report_unit unit;
    int better; /* 1: higher, -1: lower, 0: neither */
    bool main;  /* in the first table and the charts */
};

/* A metric of a run. NAN: undefined, or not known. */
struct report_value {
    double value, low, high;                               /* 95 % interval, bootstrap over images */
    double difference, difference_low, difference_high, p; /* to the baseline; p of the bootstrap or McNemar's */
};

/* A point of what a run would score were all its captions cut after some words. */
struct report_cut {
    double words, recall, chair_i; /* mean length, micro recall, CHAIR_i */
};

/* CHAIR: the run's curve, and the baseline's CHAIR_i where its curve has the run's recall and length. */
struct report_curve {
    struct report_cut *cuts; /* [n] from short to whole */
    size_t n;
    double at_recall, at_length; /* NAN: the baseline's captions never get that far */
};

/* Seconds and tokens; NAN: the summary does not say. */
struct report_cost {
    double questions_per_s, tokens_per_s;
    double relative; /* time per question, in that of the baseline */
    double prefilled, reused, generated, images_encoded;
};

struct report_benchmark;

/* The runs of one benchmark. */
struct report_group {
    const char *benchmark;
    const struct report_benchmark *rules;
    struct report_run *const *runs; /* [n_runs] */
    size_t n_runs;
    size_t baseline;     /* SIZE_MAX: none */
    size_t n_items;      /* questions that all runs answered */
    size_t *at;          /* [n_runs][n_items] where each stands in its run's list */
    size_t *unit;        /* [n_items] image of each */
    size_t n_units;      /* images */
    const char **splits; /* [n_splits] in order of appearance */
    size_t n_splits;
    size_t *split; /* [n_items] */
    struct report_metric *metrics;
    size_t n_metrics;
    struct report_value *values; /* [n_runs][n_metrics] */
    struct report_curve *curves; /* [n_runs], NULL unless CHAIR */
    struct report_cost *costs;   /* [n_runs] */
    char **warnings;             /* what makes the comparison unfair or incomplete, one sentence each */
    size_t n_warnings;
};

struct report_options {
    const char *title;    /* NULL: a title of its own */
    const char *baseline; /* NULL: "greedy", or "sampled" where no run has that name */
    bool common;          /* compare on the questions that all runs share */
    size_t resamples;     /* of the bootstrap; 0: no intervals */
    uint64_t seed;
    const char *images;  /* folder of the images; NULL: what the summaries say */
    bool no_images;      /* embed none */
    size_t images_limit; /* embed at most so many */
};

#define REPORT_DEFAULTS                                                                                                \
    { .resamples = 10000, .images_limit = 200 }

struct report {
    struct report_options options;
    struct report_run **runs; /* [n_runs] sorted by benchmark, baseline first, else as given */
    size_t n_runs;
    struct report_group *groups;
    size_t n_groups;
};

/* *runs [n] stay the caller's and must outlive the report; release with report_free. */
candid_status report_build(struct report_run *const *runs, size_t n, const struct report_options *options,
                           struct report *out, candid_error *error);
void report_free(struct report *report);

/* Item i of the group in a run. */
const struct eval_item *report_item(const struct report_group *g, size_t run, size_t i);
const cJSON *report_verdict(const struct report_group *g, size_t run, size_t i);
const struct report_value *report_value(const struct report_group *g, size_t run, size_t metric);
/* SIZE_MAX: there is none. */
size_t report_metric_find(const struct report_group *g, const char *split, const char *key);
/* Whether the run has the best value of all; never where a metric has no direction or all are equal. */
bool report_is_best(const struct report_group *g, size_t run, size_t metric);
/* Whether any run has a value. */
bool report_is_known(const struct report_group *g, size_t metric);

/* ---- outputs ------------------------------------------------------------------------------------- */

candid_status report_write_html(const struct report *report, FILE *f, candid_error *error);
candid_status report_write_markdown(const struct report *report, FILE *f, candid_error *error);
candid_status report_write_csv(const struct report *report, FILE *f, candid_error *error);

#endif
