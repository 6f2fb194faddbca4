/*
 * The generate loop: prefill of a prompt, then one forward pass per token.
 */
#ifndef CANDID_DECODE_GENERATE_H
#define CANDID_DECODE_GENERATE_H

#include "decode/sampler.h"
#include "decode/text_stream.h"
#include "lm/layout.h"
#include "lm/llama.h"
#include "lm/prompt.h"

/* What to generate from; everything is borrowed. */
struct generation {
    struct llama *llama;
    const struct llama_weights *weights;
    const struct tokenizer *tokenizer;
    struct kv_seq *seq; /* empty sequence with its layout still empty */
    const struct prompt *prompt;
    const struct image_span *images; /* by number of the image */
    const float *visual_tokens;      /* device (tokens of all images, n_embd), image after image, raster order */
    struct backend *backend;
    struct plan *plan;               /* what methods do, or NULL */
    const struct token_list *forced; /* answer with these tokens instead of the sampler's, or NULL */
    struct sampler *sampler;
    int max_new_tokens;              /* >= 1; prompt + max_new_tokens fit in the context */
    struct text_stream *stream;      /* receives the text */
    const struct observer *observer; /* may be NULL; its `cancelled` is polled */
};

/* What came out. tokens is owned by the caller. */
struct generated {
    struct token_list tokens;
    candid_finish finish;
    candid_stats stats; /* prefill_ms, decode_ms, n_prompt, n_generated, decode_bytes, fingerprint */
};

candid_status generate(const struct generation *g, struct generated *out, candid_error *error);

#endif
