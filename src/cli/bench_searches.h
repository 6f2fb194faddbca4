/* What searches and contrasts cost: a token of each, against a token of greedy search in the same run. */
#ifndef CANDID_CLI_BENCH_SEARCHES_H
#define CANDID_CLI_BENCH_SEARCHES_H

#include <cJSON.h>

#include "api/handles.h"

/*
 * searches: comma-separated, each "contrast" or "contrast-N" (N branches that read the same prompt), or assignments
 * joined by '+' ("decode.beams=5", "opera.candidates=1+decode.beams=5"). A prompt of n_prompt random tokens is read
 * once; every search generates `decode` tokens after it, between two greedy ones. Adds one object for each to the array
 * `out`.
 */
candid_status bench_searches(candid_context *c, const char *searches, int n_prompt, int rounds, int decode, cJSON *out,
                             candid_error *error);

#endif
