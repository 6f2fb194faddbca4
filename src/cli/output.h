/* Results as JSON: JSON lines that survive kill -9 and can be resumed, or one array written at the end. */
#ifndef CANDID_CLI_OUTPUT_H
#define CANDID_CLI_OUTPUT_H

#include "cli/cli.h"

struct output;

/* Opens what the options ask for (*out NULL when they ask for nothing). Prints errors, returns an exit code. With
 * --resume reads what the file holds and cuts off a torn last line. */
int output_open(const struct run_options *o, struct output **out);

/* Whether the resumed file already holds this image with this prompt, answered by the same model and settings. */
bool output_holds(const struct output *out, const char *image, const char *prompt);

/* Adds one result. */
int output_add(struct output *out, const struct run_options *o, const char *image, const char *prompt,
               const candid_result *result);

/* Writes what is pending, closes and frees. */
int output_close(struct output *out);

#endif
