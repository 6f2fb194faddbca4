/*
 * OPERA, over-trust penalty and retrospection-allocation. When an answer drifts from the image, the tokens that follow
 * tend to look at one earlier "summary" token in the last layer. Inside a beam search OPERA measures that column of
 * attention for every candidate token, subtracts it from the candidate's logit, and when the same column stays the
 * strongest for many steps goes back to the token after it and chooses anew.
 *
 * Huang et al.: OPERA, CVPR 2024, arXiv 2311.17911; code shikiw/OPERA. The search itself is decode/opera.c; here are
 * its options.
 *
 * The released program differs from the paper: it rewards a look at the image in the first ten tokens instead of
 * penalising, multiplies the column by 1e-7 and keeps it in half precision (below 3e-8 it is 0), counts over the whole
 * answer instead of its last tokens, and chooses anew from the whole vocabulary. A column among the first ten tokens is
 * never left there, so its product can grow until every candidate is worse than the tokens that were no candidates, all
 * equal, and an arbitrary one of them is written. The recommended values follow the program but not into that.
 */
#include "interventions/opera.h"

#include <string.h>

static bool is_null(const struct settings *s, const char *name) {
    return cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(s->values, name));
}

void opera_params_from(const struct settings *s, struct opera_options *out) {
    const int candidates = setting_int(s, "candidates");
    *out = (struct opera_options){
        .candidates = candidates,
        .first_candidates = is_null(s, "first_candidates") ? OPERA_FIRST_AUTO : setting_int(s, "first_candidates"),
        .scale = setting_float(s, "scale"),
        .alpha = setting_float(s, "alpha"),
        .threshold = setting_int(s, "threshold"),
        .threshold_strict = setting_bool(s, "threshold_strict"),
        .history = setting_int(s, "history"),
        .image_reward_len = setting_int(s, "image_reward_len"),
        .score_scale = setting_float(s, "score_scale"),
        .score_fp16 = setting_bool(s, "score_fp16"),
        .logits_fp16 = setting_bool(s, "logits_fp16"),
        .phi_max = setting_float(s, "phi_max"),
        .plain_fallback = setting_bool(s, "plain_fallback"),
        .rollback_min = setting_int(s, "rollback_min"),
        .max_rollbacks = is_null(s, "max_rollbacks") ? candidates : setting_int(s, "max_rollbacks"),
        .monotone = setting_bool(s, "monotone"),
        .retry_full_vocab = setting_bool(s, "retry_full_vocab"),
        .share_hypotheses = setting_bool(s, "share_hypotheses"),
        .clean_rejects = setting_bool(s, "clean_rejects"),
        .before_edits = strcmp(setting_string(s, "attention"), "before_edits") == 0,
    };
}

static const char *const attention_sources[] = {"after_edits", "before_edits", NULL};
static const struct method_option options[] = {
    {"candidates", OPTION_INT, "5", NULL, NULL, 1, 1000, NULL,
     "Tokens measured and scored for each beam in a step: those with the highest logits. Each is a row of the step's "
     "forward pass. 1 or 2 is the authors' advice for speed."},
    {"first_candidates", OPTION_INT, "null", NULL, "0", 0, 1000, NULL,
     "The same for the first step, where all beams come from one. null: the greater of candidates and beams + 1, so "
     "that every beam starts with a measured token; 0: as candidates."},
    {"scale", OPTION_FLOAT, "50", NULL, NULL, 1e-6, 1e6, NULL,
     "Factor on each attention weight of a column before they are multiplied, so that products neither vanish nor "
     "explode."},
    {"alpha", OPTION_FLOAT, "1", NULL, NULL, 0, 1000, NULL,
     "Weight of the penalty (and of the reward, see image_reward_len) against the logit."},
    {"image_reward_len", OPTION_INT, "10", "0", "10", 0, 1e6, NULL,
     "Up to this many tokens, the candidate included, a candidate gains alpha times its attention to the image; only "
     "longer answers are penalised. The paper penalises from the start."},
    {"score_scale", OPTION_FLOAT, "1e-7", "1", "1e-7", 1e-30, 1e6, NULL,
     "Factor on a column's product: the penalty's unit. The paper has none."},
    {"score_fp16", OPTION_BOOL, "true", "false", "true", 0, 0, NULL,
     "Round a column's score to half precision: below 3e-8 it is 0, above 65504 infinite."},
    {"logits_fp16", OPTION_BOOL, "false", NULL, "true", 0, 0, NULL,
     "Round logits and candidate scores to half precision, as a model run in it has them."},
    {"phi_max", OPTION_FLOAT, "100", "0", "0", 0, 1e9, NULL,
     "Greatest penalty, before alpha: where every candidate is penalised beyond it, the logits decide. 0: no limit."},
    {"plain_fallback", OPTION_BOOL, "true", NULL, "false", 0, 0, NULL,
     "Tokens that are no candidates are excluded; a beam whose candidates are all excluded by an infinite penalty "
     "takes "
     "their plain logits, and beams that candidates cannot fill take the best other tokens. Off: their logits are "
     "-999, "
     "all equal, and the first of them wins where candidates are worse."},
    {"threshold", OPTION_INT, "15", NULL, NULL, 0, 1e6, NULL,
     "How many steps of an answer must have the same strongest column, in every beam, before it goes back. 25 is the "
     "authors' faster setting."},
    {"threshold_strict", OPTION_BOOL, "true", "false", "true", 0, 0, NULL,
     "More than `threshold` steps; off: at least as many."},
    {"rollback_min", OPTION_INT, "10", "0", "10", 0, 1e6, NULL,
     "No going back where the column is that of a token before this one (counted from 0)."},
    {"max_rollbacks", OPTION_INT, "null", NULL, NULL, 1, 1e6, NULL,
     "How often an answer goes back to one position; after that it goes to the one before, as often. null: as "
     "candidates."},
    {"monotone", OPTION_BOOL, "false", "true", "false", 0, 0, NULL,
     "Go back only where the position after the column's token is not before the last one gone back to. The program "
     "has "
     "this check switched off."},
    {"retry_full_vocab", OPTION_BOOL, "true", "false", "true", 0, 0, NULL,
     "After going back choose among all tokens but those rejected there, by plain logits; off: among that position's "
     "candidates and their scores."},
    {"clean_rejects", OPTION_BOOL, "true", NULL, "false", 0, 0, NULL,
     "After going back forget what was rejected at every later position; off: at the next one only, although the "
     "beams there will be others."},
    {"share_hypotheses", OPTION_BOOL, "false", NULL, "true", 0, 0, NULL,
     "Answers that were finished after going back to a position are kept when it is gone back to once more; off: "
     "forgotten like all that came after it."},
    {"history", OPTION_INT, "512", NULL, NULL, 2, 1e6, NULL,
     "Steps kept to go back to, the current one included. Keys and values of their tokens stay in memory."},
    {"attention", OPTION_CHOICE, "\"after_edits\"", NULL, NULL, 0, 0, attention_sources,
     "Attention of the last layer that is measured: after other methods' edits, or as the softmax left it."},
};

const struct method method_opera = {
    .name = "opera",
    .title = "Over-trust penalty and retrospection-allocation (OPERA)",
    .kind = METHOD_SEARCH,
    .edits = "search: penalises candidates in a beam search and goes back where one token draws all attention",
    .cost = "every step runs a row for each candidate of each beam; the last layer's attention is measured",
    .citation = "Huang et al.: OPERA: Alleviating Hallucination in Multi-Modal Large Language Models via Over-Trust "
                "Penalty and Retrospection-Allocation. CVPR 2024, arXiv 2311.17911. Code: shikiw/OPERA",
    .options = options,
    .n_options = sizeof options / sizeof *options,
};
