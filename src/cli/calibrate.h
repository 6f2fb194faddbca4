/* The two calibrations. o: parsed options, inputs are images. out: file to write, NULL: standard output. */
#ifndef CANDID_CLI_CALIBRATE_H
#define CANDID_CLI_CALIBRATE_H

#include <cJSON.h>

#include "api/request.h"
#include "cli/cli.h"

int calibrate_sinks(struct run_options *o, float tau, const char *out);
int calibrate_heads(struct run_options *o, const char *out);

/* Writes the table and deletes it. */
int calibrate_write(cJSON *table, const char *out);

/* Opens model and context; prints errors, returns an exit code. What was opened is the caller's, also on failure. */
int calibrate_open(const struct run_options *o, candid_model **model, candid_context **context);

/* Prompt, encoded images and plan of one request about `image` (NULL: none), and an empty sequence. Run with
 * calibrate_run, which fills `text` and releases everything. */
struct calibrate_request {
    struct request request;
    struct observer observer;
    int max_new_tokens;
    char *text; /* the answer; the caller frees it */
    int n_generated;
};

/* Answers greedily with at most max_new_tokens, c->request prepared and encoded; releases the request. */
candid_status calibrate_run(candid_context *context, struct calibrate_request *c, candid_error *error);

#endif
