/* What mitigation methods cost: prefill and decode with a method on, against the same without, alternating. */
#ifndef CANDID_CLI_BENCH_METHODS_H
#define CANDID_CLI_BENCH_METHODS_H

#include <cJSON.h>

#include "api/handles.h"

/*
 * configs: comma-separated methods, or assignments joined by '+' ("var.tau=3+var.sink_dims=[0,1],vhr"). Each round runs
 * the prompt and `decode` steps once without and once with every configuration; the ratio of the medians is reported.
 * The prompt has n_before + grid*grid + n_after tokens of random content. Adds one object per configuration to the
 * array `out`.
 */
candid_status bench_methods(candid_context *c, const char *configs, int rounds, int decode, cJSON *out,
                            candid_error *error);

#endif
