/*
 * Generation: the prompt, then one forward pass per token, for one answer, several samples, beams or OPERA
 * (decoding.strategy). docs/decoding.md shows rows, branches and caches.
 */
#ifndef CANDID_DECODE_GENERATE_H
#define CANDID_DECODE_GENERATE_H

#include "interventions/branch.h"
#include "interventions/decoding.h"
#include "lm/layout.h"
#include "lm/llama.h"
#include "lm/prompt.h"

/* A row that the answer's own is contrasted with; everything above the counters is given and borrowed. */
struct branch_input {
    const struct prompt *prompt;
    const struct image_span *images;
    const float *visual_tokens; /* as in struct generation */
    struct plan *plan;
    float weight; /* weight, added, cutoff: see decode/contrast.h */
    bool added;
    float cutoff;
    int n_tokens;                /* generated tokens it takes part in; 0: all */
    const struct kv_seq *prefix; /* the first positions of its prompt, read already, or NULL */

    int n_prompt, n_shared; /* written: positions of its prompt, and those shared with the answer's row */
    int64_t n_contrasted;   /* rows of logits it was contrasted with */
    int64_t n_rows;         /* rows of logits in all */
    int64_t n_removed;      /* tokens that the cut-offs removed from them */
};

/* What to generate from; everything is borrowed. */
struct generation {
    struct llama *llama;
    const struct llama_weights *weights;
    const struct tokenizer *tokenizer;
    struct backend *backend;
    struct kv_seq *seq; /* empty, or with the first positions of the prompt */
    const struct prompt *prompt;
    const struct image_span *images; /* by number of the image */
    const float *visual_tokens;      /* device (tokens of all images, n_embd), image after image, raster order */
    struct plan *plan;               /* what methods do, or NULL */
    struct branch_input *branches;   /* [n_branches] */
    int n_branches;

    struct decoding decoding;
    uint64_t seed;                   /* of the first answer; the following count up from it */
    const struct token_list *forced; /* answer with these tokens instead, or NULL */
    int max_new_tokens;              /* >= 1; prompt + max_new_tokens fit in the context */
    const char *const *stop;         /* n_stop strings that end an answer */
    size_t n_stop;
    candid_text_fn on_text; /* may be NULL. A sole greedy or sampled answer comes as it grows, others at the end */
    void *on_text_user_data;
    const struct observer *observer; /* may be NULL; its `cancelled` is polled */
};

/* An answer; tokens and text are owned. */
struct answer {
    struct token_list tokens;
    char *text; /* NUL-terminated, without leading white space, up to a stop string */
    candid_finish finish;
    float score; /* beam, opera: sum of log-probabilities with the length penalty; else 0 */
};

/* What OPERA did. */
struct search_note {
    int n_rewarded, n_penalised; /* candidates, see decode/opera.h */
    int n_plain, n_filled;       /* beams */
    int n_rollbacks;
    int (*rollbacks)[2]; /* [n_rollbacks] tokens there were, and tokens there were after going back; owned */
};

/* What came out; release with generated_free. */
struct generated {
    struct answer *answers; /* [n_answers], best first; of samples in the order of their seeds */
    int n_answers;
    candid_stats stats; /* prefill_ms, decode_ms, n_prompt, n_generated, decode_bytes, fingerprint */
    int n_steps;        /* forward passes after the prompt */
    int64_t n_rows;     /* rows in them */
    size_t kv_bytes;    /* most memory that keys and values took at once, the prompt's and the branches' included */
    struct search_note search;
};

/* Whether a search with these options fits a model, before any work; CANDID_ERROR_ARGUMENT. */
candid_status generate_check(const struct decoding *d, const struct tokenizer *tokenizer, int n_vocab,
                             candid_error *error);

/*
 * On a cancelled search the best finished answer is returned, its finish CANDID_FINISH_CANCELLED; where there is none,
 * and without beams, CANDID_ERROR_CANCELLED.
 */
candid_status generate(const struct generation *g, struct generated *out, candid_error *error);

/*
 * Several questions, gs[n] alike but for prompts, plans, sequences and branches. One greedy or sampled answer each is
 * decoded side by side with those of the questions that follow and have as many branches (MAX_HYPOTHESES at a time),
 * everything else one after the other. Times are divided evenly. outs: [n]; on failure nothing is to be freed.
 */
candid_status generate_many(const struct generation *gs, int n, struct generated *outs, candid_error *error);

/* Whether generate_many() decodes the answers of several questions side by side. */
bool generates_side_by_side(const struct decoding *d);

/* What a branch of a generation reads, as a generation; its sequence is not set. */
struct generation branch_reading(const struct generation *g, const struct branch_input *branch);

void generated_free(struct generated *out);

#endif
