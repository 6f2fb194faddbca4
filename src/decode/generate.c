/* From a prompt to answers: what all strategies have in common. */
#include "decode/generate.h"

#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/crc32.h"
#include "core/status.h"
#include "decode/beam.h"
#include "decode/opera.h"
#include "decode/sampler.h"
#include "decode/strategies.h"
#include "decode/text_stream.h"

struct generation branch_reading(const struct generation *g, const struct branch_input *branch) {
    struct generation b = *g;
    b.seq = NULL;
    b.prompt = branch->prompt;
    b.images = branch->images;
    b.visual_tokens = branch->visual_tokens;
    b.plan = branch->plan;
    return b;
}

void generated_free(struct generated *out) {
    for (int i = 0; i < out->n_answers; i++) {
        token_list_free(&out->answers[i].tokens);
        free(out->answers[i].text);
    }
    free(out->answers);
    free(out->search.rollbacks);
    *out = (struct generated){0};
}

candid_status make_answers(struct generated *out, int n, candid_error *error) {
    out->answers = calloc((size_t)n, sizeof *out->answers);
    if (!out->answers) {
        return fail_memory(error, "answers", (size_t)n * sizeof *out->answers);
    }
    out->n_answers = n;
    return CANDID_OK;
}

void count_logits(const struct generation *g, const float *logits, int n, struct generated *out) {
    out->stats.fingerprint =
        crc32_update(out->stats.fingerprint, logits, (size_t)n * (size_t)g->weights->n_vocab * sizeof *logits);
}

void note_kv_bytes(const struct generation *g, size_t elsewhere, struct generated *out) {
    const struct kv_cache *cache = g->seq->cache;
    const size_t bytes = (size_t)kv_blocks_used(cache) * kv_block_bytes(cache) + elsewhere;
    out->kv_bytes = bytes > out->kv_bytes ? bytes : out->kv_bytes;
}

candid_status counted_step(const struct generation *g, struct group *group, const int32_t *tokens,
                           struct generated *out, candid_error *error) {
    TRY(group_step(group, tokens, error));
    out->stats.decode_bytes += (double)llama_weight_bytes(g->weights) + group_kv_bytes(group);
    out->n_steps++;
    out->n_rows += group_rows(group);
    note_kv_bytes(g, 0, out);
    return CANDID_OK;
}

candid_status answer_text(const struct generation *g, struct answer *answer, candid_error *error) {
    struct text_stream stream = {.stop = g->stop, .n_stop = g->n_stop};
    candid_status status = CANDID_OK;
    for (size_t i = 0; status == CANDID_OK && i < answer->tokens.count && !stream.stopped; i++) {
        char piece[512];
        const int32_t token = answer->tokens.ids[i];
        if (!tokenizer_is_end(g->tokenizer, token)) {
            const size_t size = tokenizer_piece(g->tokenizer, token, false, piece, sizeof piece);
            status = text_stream_push(&stream, piece, size < sizeof piece ? size : sizeof piece, error);
        }
    }
    if (status == CANDID_OK) {
        status = text_stream_finish(&stream, error);
    }
    if (status == CANDID_OK) {
        answer->finish = stream.stopped ? CANDID_FINISH_STOP : answer->finish;
        answer->text = stream.text ? stream.text : strdup("");
        stream.text = NULL;
        status = answer->text ? CANDID_OK : fail_memory(error, "an answer", 1);
    }
    text_stream_free(&stream);
    return status;
}

/* n: 1, or the questions that are answered side by side. */
static candid_status grouped(const struct generation *gs, int n, struct generated *outs, candid_error *error) {
    const int answers = gs->decoding.answers, beams = gs->decoding.beams;
    struct group *group = NULL;
    const double start = clock_ms();
    TRY(group_create(gs, n, n > 1 ? n : answers > beams ? answers : beams, &group, error));
    outs->stats.prefill_ms = clock_ms() - start;
    const candid_status status = gs->decoding.strategy == STRATEGY_BEAM ? beams_run(gs, group, outs, error)
                                                                        : samples_run(gs, n, group, outs, error);
    group_free(group);
    return status;
}

/* Answers that were not streamed are handed over whole. */
static void hand_over(const struct generation *g, const struct generated *out) {
    const bool streamed = out->n_answers == 1 && g->decoding.strategy <= STRATEGY_SAMPLE;
    const char *text = out->answers[0].text;
    if (!streamed && g->on_text && text[0]) {
        g->on_text(g->on_text_user_data, text, strlen(text));
    }
}

static candid_status check_prompt(const struct generation *g, struct generated *out, candid_error *error) {
    const int64_t n_prompt = prompt_length(g->prompt, g->images);
    if (n_prompt < 1) {
        return fail(error, CANDID_ERROR_ARGUMENT, "the prompt is empty: expected at least one token");
    }
    out->stats.n_prompt = (int)n_prompt;
    return CANDID_OK;
}

static void count_generated(struct generated *out) {
    for (int i = 0; i < out->n_answers; i++) {
        out->stats.n_generated += (int)out->answers[i].tokens.count;
    }
}

static candid_status run(const struct generation *g, struct generated *out, candid_error *error) {
    TRY(check_prompt(g, out, error));
    const double start = clock_ms();
    TRY(g->decoding.strategy == STRATEGY_OPERA ? opera_run(g, out, error) : grouped(g, 1, out, error));
    hand_over(g, out);
    out->stats.decode_ms = clock_ms() - start - out->stats.prefill_ms;
    count_generated(out);
    return CANDID_OK;
}

candid_status generate_check(const struct decoding *d, const struct tokenizer *tokenizer, int n_vocab,
                             candid_error *error) {
    const struct sampler_params sampling = {.temperature = d->temperature,
                                            .top_k = d->top_k,
                                            .top_p = d->top_p,
                                            .repetition_penalty = d->repetition_penalty};
    TRY(sampler_check(&sampling, n_vocab, error));
    if (d->beams > MAX_HYPOTHESES || d->answers > MAX_HYPOTHESES) {
        return fail(error, CANDID_ERROR_ARGUMENT, "expected at most %d beams and answers, found %d and %d",
                    MAX_HYPOTHESES, d->beams, d->answers);
    }
    int32_t ends[TOKENIZER_MAX_ENDS];
    const struct beam_params beams = {
        .n_beams = d->beams, .n_ends = tokenizer_ends(tokenizer, ends), .n_vocab = n_vocab};
    switch (d->strategy) {
    case STRATEGY_GREEDY:
    case STRATEGY_SAMPLE: break;
    case STRATEGY_BEAM: return beam_check(&beams, error);
    case STRATEGY_OPERA:
        return opera_check(&(struct opera_params){.options = d->opera,
                                                  .n_beams = d->beams,
                                                  .n_vocab = n_vocab,
                                                  .n_prompt_ids = 1,
                                                  .max_new_tokens = 1,
                                                  .end_tokens = ends,
                                                  .n_end_tokens = beams.n_ends},
                           error);
    }
    return CANDID_OK;
}

candid_status generate(const struct generation *g, struct generated *out, candid_error *error) {
    *out = (struct generated){0};
    const candid_status status = run(g, out, error);
    if (status != CANDID_OK) {
        generated_free(out);
    }
    return status;
}

/* Times and bytes of all of n questions, which are in the first, become the share of each. */
static void divide(struct generated *outs, int n) {
    const candid_stats all = outs->stats;
    for (int i = 0; i < n; i++) {
        outs[i].stats.prefill_ms = all.prefill_ms / n;
        outs[i].stats.decode_ms = all.decode_ms / n;
        outs[i].stats.decode_bytes = all.decode_bytes / n;
    }
}

static candid_status run_side_by_side(const struct generation *gs, int n, struct generated *outs, candid_error *error) {
    for (int i = 0; i < n; i++) {
        TRY(check_prompt(&gs[i], &outs[i], error));
    }
    const double start = clock_ms();
    TRY(grouped(gs, n, outs, error));
    outs->stats.decode_ms = clock_ms() - start - outs->stats.prefill_ms;
    for (int i = 0; i < n; i++) {
        count_generated(&outs[i]);
    }
    divide(outs, n);
    return CANDID_OK;
}

bool generates_side_by_side(const struct decoding *d) {
    return d->answers == 1 && (d->strategy == STRATEGY_GREEDY || d->strategy == STRATEGY_SAMPLE);
}

/* Whether two questions have the same lanes: as many branches, which end at the same time. */
static bool same_lanes(const struct generation *a, const struct generation *b) {
    bool same = a->n_branches == b->n_branches;
    for (int i = 0; same && i < a->n_branches; i++) {
        same = a->branches[i].n_tokens == b->branches[i].n_tokens;
    }
    return same;
}

/* How many of n questions, the first on, can be answered side by side. */
static int beside(const struct generation *gs, int n) {
    const int most = !generates_side_by_side(&gs->decoding) ? 1 : n < MAX_HYPOTHESES ? n : MAX_HYPOTHESES;
    int count = 1;
    while (count < most && same_lanes(&gs[0], &gs[count])) {
        count++;
    }
    return count;
}

candid_status generate_many(const struct generation *gs, int n, struct generated *outs, candid_error *error) {
    memset(outs, 0, (size_t)n * sizeof *outs);
    candid_status status = CANDID_OK;
    for (int done = 0, now; status == CANDID_OK && done < n; done += now) {
        now = beside(gs + done, n - done);
        status = now > 1 ? run_side_by_side(gs + done, now, outs + done, error) : run(&gs[done], &outs[done], error);
    }
    for (int i = 0; status != CANDID_OK && i < n; i++) {
        generated_free(&outs[i]);
    }
    return status;
}
