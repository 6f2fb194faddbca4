/* Greedy search and sampling: one answer, several drawn side by side from one reading of the prompt, or one for each of
 * several questions. */
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "decode/sampler.h"
#include "decode/strategies.h"
#include "decode/text_stream.h"

/* An answer under way. */
struct sample {
    const struct generation *g;
    struct generated *out;
    struct sampler *sampler;
    struct text_stream stream;
    struct answer *answer;
    bool more;
};

/* index: of the answer among those of its question. */
static candid_status begin(const struct generation *g, int index, struct generated *out, struct sample *s,
                           candid_error *error) {
    const struct decoding *d = &g->decoding;
    const struct sampler_params params = {.temperature = d->temperature,
                                          .top_k = d->top_k,
                                          .top_p = d->top_p,
                                          .repetition_penalty = d->repetition_penalty,
                                          .seed = g->seed + (uint64_t)index};
    *s = (struct sample){.g = g, .out = out, .answer = &out->answers[index], .more = true};
    s->stream = (struct text_stream){.stop = g->stop, .n_stop = g->n_stop};
    if (d->answers == 1) {
        s->stream.on_text = g->on_text;
        s->stream.user_data = g->on_text_user_data;
    }
    TRY(sampler_create(&params, g->weights->n_vocab, &s->sampler, error));
    for (size_t i = 0; i < g->prompt->tokens.count; i++) {
        sampler_accept(s->sampler, g->prompt->tokens.ids[i]);
    }
    return CANDID_OK;
}

static void end(struct sample *s) {
    sampler_free(s->sampler);
    text_stream_free(&s->stream);
}

/* Picks a token, records it, streams its text; sets s->more. */
static candid_status take_token(struct sample *s, float *logits, candid_error *error) {
    const struct generation *g = s->g;
    struct answer *a = s->answer;
    const size_t step = a->tokens.count;
    const int32_t token = g->forced ? g->forced->ids[step] : sampler_pick(s->sampler, logits);
    if (token < 0) {
        return fail(error, CANDID_ERROR_FORMAT, "logits of step %zu are not numbers: the model's weights are damaged",
                    step);
    }
    TRY(token_list_push(&a->tokens, token, error));
    sampler_accept(s->sampler, token);
    s->more = false;
    if (g->forced && step + 1 == g->forced->count) {
        a->finish = CANDID_FINISH_LENGTH;
        return CANDID_OK;
    }
    if (!g->forced && tokenizer_is_end(g->tokenizer, token)) {
        a->finish = CANDID_FINISH_EOS;
        return CANDID_OK;
    }
    char piece[512];
    const size_t size = tokenizer_piece(g->tokenizer, token, false, piece, sizeof piece);
    TRY(text_stream_push(&s->stream, piece, size < sizeof piece ? size : sizeof piece, error));
    if (s->stream.stopped) {
        a->finish = CANDID_FINISH_STOP;
    } else if (s->stream.cancelled) {
        a->finish = CANDID_FINISH_CANCELLED;
    } else if ((int)a->tokens.count == g->max_new_tokens) {
        a->finish = CANDID_FINISH_LENGTH;
    } else {
        s->more = true;
    }
    return CANDID_OK;
}

/* A step of the group, whose rows are counted for the questions that take part in it. running: [n] their answers. */
static candid_status take_step(struct group *group, struct sample *samples, const int *running, int n,
                               const int32_t *tokens, candid_error *error) {
    struct generated taken = {0};
    TRY(counted_step(samples[running[0]].g, group, tokens, &taken, error));
    samples[0].out->stats.decode_bytes += taken.stats.decode_bytes;
    for (int i = 0; i < n; i++) {
        struct generated *out = samples[running[i]].out;
        out->n_steps += i == 0 || out != samples[running[i - 1]].out;
        out->n_rows += taken.n_rows / n;
        out->kv_bytes = taken.kv_bytes > out->kv_bytes ? taken.kv_bytes : out->kv_bytes;
    }
    return CANDID_OK;
}

/* One token for each of n answers that go on, then a step; those that are over leave the group. running: [n] their
 * numbers, in the group's order. Returns how many are left by *n. */
static candid_status advance(struct group *group, struct sample *samples, int *running, int *n, candid_error *error) {
    const struct generation *g = samples[running[0]].g;
    const size_t n_vocab = (size_t)g->weights->n_vocab;
    int parents[MAX_HYPOTHESES], left = 0;
    int32_t tokens[MAX_HYPOTHESES];
    for (int i = 0; i < *n; i++) { /* before anything is changed in them */
        count_logits(g, group_logits(group) + (size_t)i * n_vocab, 1, samples[running[i]].out);
    }
    for (int i = 0; i < *n; i++) {
        struct sample *s = &samples[running[i]];
        TRY(take_token(s, group_logits(group) + (size_t)i * n_vocab, error));
        if (s->more) {
            parents[left] = i;
            tokens[left] = s->answer->tokens.ids[s->answer->tokens.count - 1];
            running[left++] = running[i];
        }
    }
    if (left > 0) {
        if (left < *n) {
            TRY(group_reorder(group, parents, left, error));
        }
        TRY(take_step(group, samples, running, left, tokens, error));
    }
    *n = left;
    return CANDID_OK;
}

/* All answers to a question begin with the same logits. */
static candid_status fan_out(const struct generation *g, struct group *group, int n, candid_error *error) {
    const size_t row = (size_t)g->weights->n_vocab;
    const int parents[MAX_HYPOTHESES] = {0};
    TRY(group_reorder(group, parents, n, error));
    float *logits = group_logits(group);
    for (int i = 1; i < n; i++) {
        memcpy(logits + (size_t)i * row, logits, row * sizeof *logits);
    }
    return CANDID_OK;
}

static candid_status run(struct group *group, struct sample *samples, int n, candid_error *error) {
    int running[MAX_HYPOTHESES];
    for (int i = 0; i < n; i++) {
        running[i] = i;
    }
    for (int left = n; left > 0;) {
        TRY(advance(group, samples, running, &left, error));
    }
    for (int i = 0; i < n; i++) {
        TRY(text_stream_finish(&samples[i].stream, error));
        samples[i].answer->text = samples[i].stream.text ? samples[i].stream.text : strdup("");
        samples[i].stream.text = NULL;
        if (!samples[i].answer->text) {
            return fail_memory(error, "an answer", 1);
        }
    }
    return CANDID_OK;
}

candid_status samples_run(const struct generation *gs, int n, struct group *group, struct generated *outs,
                          candid_error *error) {
    const int each = gs->decoding.answers, total = n * each;
    struct sample *samples = calloc((size_t)total, sizeof *samples);
    if (!samples) {
        return fail_memory(error, "answers", (size_t)total * sizeof *samples);
    }
    candid_status status = CANDID_OK;
    for (int q = 0; status == CANDID_OK && q < n; q++) {
        status = make_answers(&outs[q], each, error);
    }
    for (int i = 0; status == CANDID_OK && i < total; i++) {
        status = begin(&gs[i / each], i % each, &outs[i / each], &samples[i], error);
    }
    if (status == CANDID_OK && each > 1) {
        status = fan_out(gs, group, each, error);
    }
    if (status == CANDID_OK) {
        status = run(group, samples, total, error);
    }
    for (int i = 0; i < total; i++) {
        end(&samples[i]);
    }
    free(samples);
    return status;
}
