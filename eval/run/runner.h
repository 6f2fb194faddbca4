/*
 * Runs a benchmark: image by image through candid_generate_many(), results appended as they come.
 */
#ifndef CANDID_EVAL_RUN_RUNNER_H
#define CANDID_EVAL_RUN_RUNNER_H

#include "eval/run/results.h"
#include "eval/run/units.h"

struct eval_job {
    candid_context *context;
    const candid_generate_params *params; /* with the configuration */
    struct eval_items *items;             /* answers are set */
    const struct eval_units *units;
    struct eval_prompt prompt;
    const char *images; /* their folder */
    const char *run;    /* id of the run, in every line */
    size_t batch;       /* requests answered at a time: whole images until there are so many */
    bool one_by_one;    /* nothing is shared: each request by itself, as public scripts do */
    bool strict;        /* the first failing question ends the run */
    const struct results_file *file;
    struct eval_held *held; /* what the file holds: kept up */

    /* Called after each batch. skipped: all of its questions were held before. */
    void (*progress)(void *user_data, size_t n_units, bool skipped);
    void (*failed)(void *user_data, const char *image, const char *message);
    void *user_data;

    char why_not[200]; /* written: why prompts share less than they could, or "" */
};

/*
 * A question that cannot be answered (its image is missing or damaged, it does not fit in the context) is recorded as
 * failed and the run goes on. What is wrong with the request itself and not with an image ends it, as does a file that
 * cannot be written. CANDID_ERROR_CANCELLED: params->should_cancel asked for it; whole images are in the file.
 */
candid_status eval_run(struct eval_job *job, candid_error *error);

#endif
