/* The generate loop. */
#include "decode/generate.h"

#include <stdlib.h>

#include "core/clock.h"
#include "core/crc32.h"
#include "core/status.h"

/* The prompt as rows of the decoder: text tokens and visual tokens, positions 0, 1, 2, …; only the last wants logits.
 */
static void prompt_rows(const struct generation *g, struct forward_row *rows) {
    int n = 0;
    for (size_t i = 0; i < g->prompt->n_chunks; i++) {
        const struct prompt_chunk *chunk = &g->prompt->chunks[i];
        const int count = chunk->image >= 0 ? g->images[chunk->image].n_tokens : (int)chunk->count;
        size_t first = 0; /* of the image's tokens */
        for (int k = 0; k < chunk->image; k++) {
            first += (size_t)g->images[k].n_tokens;
        }
        for (int t = 0; t < count; t++, n++) {
            rows[n] = (struct forward_row){.seq = g->seq, .position = n};
            if (chunk->image >= 0) {
                rows[n].embedding = g->visual_tokens + (first + (size_t)t) * (size_t)g->weights->n_embd;
            } else {
                rows[n].token = g->prompt->tokens.ids[chunk->begin + (size_t)t];
            }
        }
    }
    rows[n - 1].want_logits = true;
}

static candid_status prefill(const struct generation *g, float *logits, int n_prompt, candid_error *error) {
    struct forward_row *rows = calloc((size_t)n_prompt, sizeof *rows);
    if (!rows) {
        return fail_memory(error, "the prompt's rows", (size_t)n_prompt * sizeof *rows);
    }
    prompt_rows(g, rows);
    candid_status status = layout_from_prompt(g->prompt, g->images, &g->seq->layout, error);
    for (int done = 0, n; status == CANDID_OK && done < n_prompt; done += n) {
        n = n_prompt - done < llama_max_rows(g->llama) ? n_prompt - done : llama_max_rows(g->llama);
        status = llama_forward(g->llama, rows + done, n, g->observer, logits, error);
    }
    free(rows);
    return status;
}

/* Bytes of keys and values one step reads. */
static double kv_bytes(const struct kv_seq *seq) {
    return (double)kv_block_bytes(seq->cache) / KV_BLOCK * seq->length;
}

/* Picks a token, records it, streams its text. *more: whether another step follows. */
static candid_status take_token(const struct generation *g, float *logits, struct generated *out, bool *more,
                                candid_error *error) {
    out->stats.fingerprint = crc32_update(out->stats.fingerprint, logits, (size_t)g->weights->n_vocab * sizeof *logits);
    const int32_t token = sampler_pick(g->sampler, logits);
    if (token < 0) {
        return fail(error, CANDID_ERROR_FORMAT, "logits of step %zu are not numbers: the model's weights are damaged",
                    out->tokens.count);
    }
    TRY(token_list_push(&out->tokens, token, error));
    sampler_accept(g->sampler, token);
    *more = false;
    if (tokenizer_is_end(g->tokenizer, token)) {
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
    TRY(prefill(g, logits, n_prompt, error));
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
            .position = g->seq->length,
            .want_logits = true,
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
    float *logits = malloc((size_t)g->weights->n_vocab * sizeof *logits);
    if (!logits) {
        return fail_memory(error, "logits", (size_t)g->weights->n_vocab * sizeof *logits);
    }
    candid_status status = run(g, logits, out, error);
    free(logits);
    return status;
}
