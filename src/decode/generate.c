/* The generate loop. */
#include "decode/generate.h"

#include <stdlib.h>

#include "core/clock.h"
#include "core/crc32.h"
#include "core/status.h"
#include "decode/prefill.h"

/* Bytes of keys and values one step reads. */
static double kv_bytes(const struct kv_seq *seq) {
    return (double)kv_block_bytes(seq->cache) / KV_BLOCK * seq->length;
}

/* Picks a token, records it, streams its text. *more: whether another step follows. */
static candid_status take_token(const struct generation *g, float *logits, struct generated *out, bool *more,
                                candid_error *error) {
    out->stats.fingerprint = crc32_update(out->stats.fingerprint, logits, (size_t)g->weights->n_vocab * sizeof *logits);
    const size_t step = out->tokens.count;
    const int32_t token = g->forced ? g->forced->ids[step] : sampler_pick(g->sampler, logits);
    if (token < 0) {
        return fail(error, CANDID_ERROR_FORMAT, "logits of step %zu are not numbers: the model's weights are damaged",
                    out->tokens.count);
    }
    TRY(token_list_push(&out->tokens, token, error));
    sampler_accept(g->sampler, token);
    *more = false;
    if (g->forced && step + 1 == g->forced->count) {
        out->finish = CANDID_FINISH_LENGTH;
        return CANDID_OK;
    }
    if (!g->forced && tokenizer_is_end(g->tokenizer, token)) {
        out->finish = CANDID_FINISH_EOS;
        return CANDID_OK;
    }
    char piece[512];
    size_t size = tokenizer_piece(g->tokenizer, token, false, piece, sizeof piece);
    TRY(text_stream_push(g->stream, piece, size < sizeof piece ? size : sizeof piece, error));
    if (g->stream->stopped) {
        out->finish = CANDID_FINISH_STOP;
    } else if (g->stream->cancelled) {
        out->finish = CANDID_FINISH_CANCELLED;
    } else if ((int)out->tokens.count == g->max_new_tokens) {
        out->finish = CANDID_FINISH_LENGTH;
    } else {
        *more = true;
    }
    return CANDID_OK;
}

static candid_status run(const struct generation *g, float *logits, struct generated *out, candid_error *error) {
    const int n_prompt = (int)prompt_length(g->prompt, g->images); /* fits in the context, see struct generation */
    if (n_prompt < 1) {
        return fail(error, CANDID_ERROR_ARGUMENT, "the prompt is empty: expected at least one token");
    }
    double start = clock_ms();
    int position;
    TRY(prefill(g, logits, &position, error));
    out->stats.prefill_ms = clock_ms() - start;
    out->stats.n_prompt = n_prompt;
    for (size_t i = 0; i < g->prompt->tokens.count; i++) {
        sampler_accept(g->sampler, g->prompt->tokens.ids[i]);
    }

    start = clock_ms();
    bool more;
    TRY(take_token(g, logits, out, &more, error));
    while (more) {
        struct forward_row row = {
            .seq = g->seq,
            .token = out->tokens.ids[out->tokens.count - 1],
            .position = position++,
            .want_logits = true,
            .plan = g->plan,
        };
        TRY(layout_append(&g->seq->layout, SPAN_GENERATED, 1, -1, 0, 0, error));
        TRY(llama_forward(g->llama, &row, 1, g->observer, logits, error));
        out->stats.decode_bytes += (double)llama_weight_bytes(g->weights) + kv_bytes(g->seq);
        TRY(take_token(g, logits, out, &more, error));
    }
    TRY(text_stream_finish(g->stream, error));
    out->stats.decode_ms = clock_ms() - start;
    out->stats.n_generated = (int)out->tokens.count;
    return CANDID_OK;
}

candid_status generate(const struct generation *g, struct generated *out, candid_error *error) {
    const size_t bytes =
        ROLE_COUNT * (size_t)g->weights->n_vocab * sizeof(float); /* the prompt's companions have some, too */
    float *logits = malloc(bytes);
    if (!logits) {
        return fail_memory(error, "logits", bytes);
    }
    candid_status status = run(g, logits, out, error);
    free(logits);
    return status;
}
