/* How answers are searched for: the options of "decode" in a configuration. */
#ifndef CANDID_INTERVENTIONS_DECODING_H
#define CANDID_INTERVENTIONS_DECODING_H

#include "interventions/branch.h"
#include "interventions/config.h"
#include "interventions/opera.h"

#define MAX_HYPOTHESES 256 /* beams, answers */

enum strategy { STRATEGY_GREEDY, STRATEGY_SAMPLE, STRATEGY_BEAM, STRATEGY_OPERA };

enum early_stopping { STOPPING_HEURISTIC, STOPPING_EARLY, STOPPING_NEVER }; /* as enum beam_stopping */

struct decoding {
    enum strategy strategy;
    int beams; /* 1 without beams */
    float length_penalty;
    enum early_stopping early_stopping;
    bool configured;   /* a configuration speaks of it */
    int answers;       /* samples drawn, or hypotheses returned */
    bool branch_edits; /* branches of contrasts carry the methods' edits too */
    float temperature; /* 0: greedy */
    int top_k;
    float top_p, repetition_penalty;
    struct opera_options opera; /* of STRATEGY_OPERA */
};

extern const struct method method_decode;

/*
 * What a request asks for: `given` are the caller's temperature, top_k, top_p and repetition_penalty; a value of the
 * configuration stands in for one that the caller left at its default. What contradicts itself (temperature with beams,
 * several answers of a greedy search, …) is CANDID_ERROR_ARGUMENT. config may be NULL.
 */
candid_status decoding_resolve(const struct candid_config *config, const struct decoding *given, struct decoding *out,
                               candid_error *error);

/* Whether the search goes with what the answer's row is contrasted with; CANDID_ERROR_ARGUMENT: OPERA does not. */
candid_status decoding_check_branches(const struct decoding *d, const struct candid_config *config,
                                      const struct branch_list *list, candid_error *error);

const char *strategy_name(enum strategy strategy);

#endif
