/* Options of OPERA. The decoding that they steer is decode/opera.h. */
#ifndef CANDID_INTERVENTIONS_OPERA_H
#define CANDID_INTERVENTIONS_OPERA_H

#include "interventions/method.h"

/* first_candidates where the configuration says null. */
#define OPERA_FIRST_AUTO (-1)

/* The options' values; their meaning is told where the table is. */
struct opera_options {
    int candidates;
    int first_candidates; /* OPERA_FIRST_AUTO: the greater of candidates and beams + 1; 0: as candidates */
    float scale, alpha;
    int threshold;
    bool threshold_strict;
    int history, image_reward_len;
    float score_scale;
    bool score_fp16, logits_fp16;
    float phi_max; /* 0: off */
    bool plain_fallback;
    int rollback_min, max_rollbacks;
    bool monotone, retry_full_vocab, share_hypotheses, clean_rejects;
    bool before_edits; /* attention: as the softmax left it */
};

extern const struct method method_opera;

/* Reads valid settings of method_opera; max_rollbacks null becomes its number. */
void opera_params_from(const struct settings *s, struct opera_options *out);

#endif
