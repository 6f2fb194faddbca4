/*
 * What a run would take, without running it: images encoded and tokens read, one question at a time as public scripts
 * ask them, and as candid does.
 */
#ifndef CANDID_EVAL_RUN_PLAN_H
#define CANDID_EVAL_RUN_PLAN_H

#include "eval/run/units.h"
#include "lm/tokenizer.h"

/* How prompts become tokens. */
struct eval_tokens {
    const struct tokenizer
        *tokenizer;           /* NULL: estimated, a token for every mark and every begun six letters of a word */
    const char *conversation; /* as in prompt_render */
    int image_tokens;
};

struct eval_plan {
    size_t questions, distinct, images;
    int64_t prefill_alone, prefill; /* tokens; encoded are `questions` and `images` images */
    int64_t longest_prompt;
};

/* per_question: a method is active that reads the whole prompt for each question anew. */
candid_status eval_plan_make(const struct eval_items *items, const struct eval_units *units,
                             const struct eval_prompt *prompt, const struct eval_tokens *tokens, bool per_question,
                             struct eval_plan *out, candid_error *error);

#endif
