/*
 * candid's methods inside llama.cpp: compiled by the host with its own llama.h, ggml.h and ggml-backend.h, beside
 * libcandid, which knows no ggml.
 *
 *   struct llama_context_params params = llama_context_default_params();
 *   candid_llama_attach(model, &params, config, NULL, &candid, &error);   the callback, sequences, flash attention
 *   ctx = llama_init_from_model(model, params);
 *   candid_llama_start(candid, ctx, &error);                              does this host compute as expected?
 *   llama_sampler_chain_add(chain, candid_llama_sampler(candid));         first in the chain
 *
 *   candid_llama_ask(candid, question, 1, &error);
 *   candid_llama_encode(candid, encoder, &image, 1, NULL, &error);        or the host's own visual tokens
 *   candid_llama_prompt(candid, -1, parts, n_parts, NULL, 0, &error);     text and visual tokens
 *   for (;;) {
 *       token = llama_sampler_sample(chain, ctx, -1);
 *       ...
 *       candid_llama_step(candid, token, &error);
 *   }
 *
 * Conventions are those of candid/plugin.h. A handle serves one llama_context and one thread at a time; handles share
 * nothing. The llama.cpp tested with is named by candid_llama_tested(); another one gets a warning, and where its graph
 * does not name and shape its tensors as expected a CANDID_ERROR_UNSUPPORTED from candid_llama_start() or a later call.
 */
#ifndef CANDID_LLAMA_CPP_H
#define CANDID_LLAMA_CPP_H

#include <llama.h>

#include "candid/plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct candid_llama candid_llama;

/* Versions of llama.cpp this was tested with, one sentence; static. */
const char *candid_llama_tested(void);

typedef struct candid_llama_options {
    size_t struct_size;
    int32_t n_vision_blocks; /* candid_model_info.n_vision_blocks, where candid_llama_encode() will be called; 0: images
                              * come from elsewhere */
    candid_log_fn log;       /* may be NULL */
    void *log_user_data;
} candid_llama_options;

/*
 * Before llama_init_from_model(): looks what the configuration needs and changes *params accordingly.
 *   cb_eval           candid's; one that is there is called, too, after candid's, and sees what candid changed
 *   flash_attn_type   off where a method needs rows of attention; else left alone. One that was forced on, or a
 * quantised V cache, which needs it, is then a CANDID_ERROR_UNSUPPORTED n_seq_max         grows by the sequences that
 * branches and companions take: the last ones are candid's kv_unified        true where there are several sequences;
 * they share n_ctx cells config is borrowed and must outlive the handle. options may be NULL. The handle must outlive
 * the llama_context.
 */
candid_status candid_llama_attach(const struct llama_model *model, struct llama_context_params *params,
                                  const candid_config *config, const candid_llama_options *options, candid_llama **out,
                                  candid_error *error);

/* After llama_init_from_model(), before the context is used: runs one token and checks that the tensors have the names
 * and shapes that are expected. */
candid_status candid_llama_start(candid_llama *candid, struct llama_context *ctx, candid_error *error);

/* candid_host_capabilities() of this model in a context made with these params. */
candid_status candid_llama_capabilities(const struct llama_model *model, const struct llama_context_params *params,
                                        const candid_config *config, const candid_llama_options *options, char **out,
                                        candid_error *error);

/* Ends the question: nothing is measured or changed any more until the next candid_llama_ask(). May be called at any
 * time between decodes; what the host decodes then is its own. */
void candid_llama_detach(candid_llama *candid);

/* After llama_free() of the context. NULL is allowed. */
void candid_llama_free(candid_llama *candid);

/* ---- one question ------------------------------------------------------------------------------ */

/* Starts a question; the sequences of the one before are removed from the context's memory. */
candid_status candid_llama_ask(candid_llama *candid, const char *request, size_t n_images, candid_error *error);

/* Of the question, for candid_task_request(), candid_task_needs(), candid_task_branch(), … */
candid_task *candid_llama_task(candid_llama *candid);

/*
 * The question's images through candid's own image encoder, which computes LLaVA-1.5's exactly, as the main sequence
 * and every branch sees them. encoder: a context of a candid_model with the image encoder, whose projector makes
 * vectors of this llama_model's width. params as for candid_task_encode().
 */
candid_status candid_llama_encode(candid_llama *candid, candid_context *encoder, const candid_image *const *images,
                                  size_t n_images, const candid_generate_params *params, candid_error *error);

/* A part of a prompt: text, or the visual tokens of an image. */
typedef struct candid_llama_part {
    size_t struct_size;
    const llama_token *tokens; /* text: [n_tokens]; else NULL */
    const float *embd;         /* or an image of the host's: (n_tokens, n_embd), rows of its grid from the top */
    int32_t n_tokens;
    int32_t grid_h, grid_w; /* of embd; 0 where its tokens form no grid */
    int32_t image;          /* neither: this image of candid_llama_encode() */
} candid_llama_part;

/*
 * Runs a prompt. branch: -1 the answer's own, which comes last and runs its companions before it; others are those of
 * candid_task_branch(). Branches with the same text that see all of the images or nothing need no call of their own.
 * The main sequence is llama_seq_id 0 and must be empty. Afterwards llama_get_logits_ith(ctx, -1) are the last row's.
 * taps: as in candid_sequence_create().
 */
candid_status candid_llama_prompt(candid_llama *candid, int32_t branch, const candid_llama_part *parts, size_t n_parts,
                                  const candid_tap *taps, size_t n_taps, candid_error *error);

/* Runs a generated token, in the branches, too, as far as they are needed; the last logits are the main sequence's. */
candid_status candid_llama_step(candid_llama *candid, llama_token token, candid_error *error);

/* Takes tokens back until n_generated are left (llama_memory_seq_rm). */
candid_status candid_llama_rollback(candid_llama *candid, int32_t n_generated, candid_error *error);

/* What the methods did so far in the main sequence: JSON; candid_task_report() of the task tells of contrasts. Owned by
 * the caller: candid_string_free. */
candid_status candid_llama_report(const candid_llama *candid, char **out, candid_error *error);

/* ---- for hosts with a loop of their own --------------------------------------------------------- */

/* The sequence that the host will fill by itself with candid_llama_decode(); candid_llama_prompt() does this. spans as
 * they are fed. Companions and orders of image tokens are the host's business then. */
candid_status candid_llama_follow(candid_llama *candid, int32_t branch, llama_seq_id id, const candid_span *spans,
                                  size_t n_spans, const candid_tap *taps, size_t n_taps, candid_error *error);

/* llama_decode() with candid looking. Rows of sequences that are not followed are left alone. A batch with rows of a
 * followed sequence has rows of that one only, and logits of the last row at most; or logits of all rows, and one row
 * of each followed sequence. What does not fit in n_ubatch is cut where that changes nothing. */
candid_status candid_llama_decode(candid_llama *candid, struct llama_batch batch, candid_error *error);

/* Contrasts logits of the main sequence, (n_vocab), with those of the branches; in place. The sampler does this. */
candid_status candid_llama_contrast(candid_llama *candid, float *logits, candid_error *error);

/* The contrast as a sampler. It has to stand first in the chain: it needs all tokens, unsorted. Where it finds
 * something else it changes nothing, and the next candid_llama_step() or candid_llama_decode() says so. The chain owns
 * it; the handle must outlive the chain. NULL: no memory. */
struct llama_sampler *candid_llama_sampler(candid_llama *candid);

#ifdef __cplusplus
}
#endif

#endif
