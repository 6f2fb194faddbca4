/* Beam search over a sequence group. */
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "decode/beam.h"
#include "decode/log_softmax.h"
#include "decode/penalty.h"
#include "decode/strategies.h"

/* Scratch of one search. */
struct beams {
    const struct generation *g;
    struct beam_search *search;
    int n;            /* beams */
    float *log_probs; /* (n, n_vocab) */
    bool *is_seen;    /* [n_vocab] all false between uses */
    int *parents;     /* [n] */
    int32_t *tokens;  /* [n] */
};

/* The log-probabilities of all beams from the group's logits; before the first step there is one hypothesis. */
static void fill_log_probs(const struct beams *b, struct group *group) {
    const size_t row = (size_t)b->g->weights->n_vocab;
    const int there = group_size(group);
    for (int i = 0; i < b->n; i++) {
        float *to = b->log_probs + (size_t)i * row;
        memcpy(to, group_logits(group) + (size_t)(i < there ? i : 0) * row, row * sizeof *to);
        const struct beam *beam = &beam_running(b->search)[i];
        const struct token_list *prompt = &b->g->prompt->tokens;
        log_softmax(to, (int)row);
        penalise_repetition(to, b->is_seen, prompt->ids, prompt->count, beam->tokens, (size_t)beam->n_tokens,
                            b->g->decoding.repetition_penalty);
    }
}

static candid_status step(struct beams *b, struct group *group, struct generated *out, bool *more,
                          candid_error *error) {
    count_logits(b->g, group_logits(group), group_size(group), out);
    fill_log_probs(b, group);
    *more = beam_step(b->search, b->log_probs, b->parents);
    if (!*more) {
        return CANDID_OK;
    }
    for (int i = 0; i < b->n; i++) {
        const struct beam *beam = &beam_running(b->search)[i];
        b->tokens[i] = beam->tokens[beam->n_tokens - 1];
        b->parents[i] = group_size(group) == 1 ? 0 : b->parents[i];
    }
    TRY(group_reorder(group, b->parents, b->n, error));
    return counted_step(b->g, group, b->tokens, out, error);
}

/* The best hypotheses as answers. */
static candid_status collect(const struct beams *b, bool cancelled, struct generated *out, candid_error *error) {
    const struct beam *found = beam_hypotheses(b->search);
    int n = 0;
    while (n < b->g->decoding.answers && found[n].finished) {
        n++;
    }
    if (n == 0) {
        return fail(error, CANDID_ERROR_FORMAT, "no answer has a probability: the model's weights are damaged");
    }
    TRY(make_answers(out, n, error));
    for (int i = 0; i < n; i++) {
        struct answer *a = &out->answers[i];
        for (int t = 0; t < found[i].n_tokens; t++) {
            TRY(token_list_push(&a->tokens, found[i].tokens[t], error));
        }
        a->score = found[i].score;
        a->finish = found[i].ended ? CANDID_FINISH_EOS : CANDID_FINISH_LENGTH;
        TRY(answer_text(b->g, a, error));
        a->finish = cancelled ? CANDID_FINISH_CANCELLED : a->finish;
    }
    return CANDID_OK;
}

static candid_status search(struct beams *b, struct group *group, struct generated *out, candid_error *error) {
    const struct decoding *d = &b->g->decoding;
    int32_t ends[TOKENIZER_MAX_ENDS];
    const int n_ends = tokenizer_ends(b->g->tokenizer, ends);
    const struct beam_params params = {.n_beams = b->n,
                                       .length_penalty = d->length_penalty,
                                       .stopping = (enum beam_stopping)d->early_stopping,
                                       .max_new_tokens = b->g->max_new_tokens,
                                       .ends = ends,
                                       .n_ends = n_ends,
                                       .n_vocab = b->g->weights->n_vocab};
    TRY(beam_create(&params, &b->search, error));
    candid_status status = CANDID_OK;
    for (bool more = true; status == CANDID_OK && more;) {
        status = step(b, group, out, &more, error);
    }
    const bool cancelled = status == CANDID_ERROR_CANCELLED && beam_hypotheses(b->search)[0].finished;
    return status == CANDID_OK || cancelled ? collect(b, cancelled, out, error) : status;
}

candid_status beams_run(const struct generation *g, struct group *group, struct generated *out, candid_error *error) {
    const size_t n = (size_t)g->decoding.beams, n_vocab = (size_t)g->weights->n_vocab;
    struct beams b = {.g = g, .n = g->decoding.beams};
    b.log_probs = malloc(n * n_vocab * sizeof *b.log_probs);
    b.is_seen = calloc(n_vocab, sizeof *b.is_seen);
    b.parents = calloc(n, sizeof *b.parents);
    b.tokens = calloc(n, sizeof *b.tokens);
    candid_status status = b.log_probs && b.is_seen && b.parents && b.tokens
                               ? search(&b, group, out, error)
                               : fail_memory(error, "beam search", n * n_vocab * sizeof *b.log_probs);
    beam_free(b.search);
    free(b.log_probs);
    free(b.is_seen);
    free(b.parents);
    free(b.tokens);
    return status;
}
