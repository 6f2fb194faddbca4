/*
 * LLaMA SentencePiece (SPM) tokenizer from GGUF metadata: byte-pair merges by score, or by the order of a
 * tokenizer.json (key tokenizer.ggml.merges); byte fallback.
 */
#ifndef CANDID_LM_TOKENIZER_H
#define CANDID_LM_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "candid/candid.h"
#include "model/gguf.h"

struct tokenizer;

/* A growing list of token ids; free(ids) by the owner. Start from {0}. */
struct token_list {
    int32_t *ids;
    size_t count, capacity;
};
candid_status token_list_push(struct token_list *list, int32_t id, candid_error *error);
void token_list_free(struct token_list *list);

/*
 * Reads tokenizer.ggml.*; pieces point into the gguf, which must outlive the tokenizer. The arrays tokens, scores and
 * token_type must be there and of one length; any model but "llama" is CANDID_ERROR_UNSUPPORTED. Defaults of absent
 * keys: BOS 1 and EOS 2 where those are control pieces (else none), unknown id 0, add_bos_token (if there is a BOS) and
 * add_space_prefix true.
 */
candid_status tokenizer_create(const struct gguf *gguf, struct tokenizer **out, candid_error *error);
void tokenizer_free(struct tokenizer *t);

int tokenizer_vocab_size(const struct tokenizer *t);
int32_t tokenizer_bos(const struct tokenizer *t); /* -1 when the file has none */
int32_t tokenizer_eos(const struct tokenizer *t);
bool tokenizer_add_bos(const struct tokenizer *t);            /* whether prompts begin with BOS */
bool tokenizer_prefix_first(const struct tokenizer *t);       /* text after an image gets no space prefix either */
bool tokenizer_is_end(const struct tokenizer *t, int32_t id); /* EOS, or tokenizer.ggml.eot_token_id */

/* The tokens that end an answer; returns their number. */
#define TOKENIZER_MAX_ENDS 2
int tokenizer_ends(const struct tokenizer *t, int32_t ends[TOKENIZER_MAX_ENDS]);

/*
 * Appends the ids of `size` bytes of UTF-8 text (invalid bytes become byte tokens). parse_special: pieces of control,
 * unknown and user-defined type written out in the text become that token; otherwise only user-defined ones do. Of
 * overlapping ones the longest is taken.
 * add_space: put the SPM space in front as at the start of a text, if the model wants one (add_space_prefix). Text
 * after a special piece gets that space too, as in llama.cpp and transformers' (legacy) LlamaTokenizer, unless the
 * model wants it at the start only (tokenizer_prefix_first).
 * Bytes for which the vocabulary has no byte token become the unknown token.
 * Never adds BOS or EOS. On failure nothing is appended. O(n log n) time, plus a search of the text for each special
 * piece.
 */
candid_status tokenizer_encode(const struct tokenizer *t, const char *text, size_t size, bool parse_special,
                               bool add_space, struct token_list *out, candid_error *error);

/* The piece's bytes: U+2581 becomes a space, byte tokens their byte; control and unknown tokens give "" unless
 * show_control. Returns the full length; writes at most `capacity` bytes, no NUL. Ids out of range give 0. */
size_t tokenizer_piece(const struct tokenizer *t, int32_t id, bool show_control, char *buffer, size_t capacity);

/* Decodes n ids to a NUL-terminated malloc'd string without control tokens; drops one leading space as SentencePiece
 * does, where the model wants the space prefix. *size (may be NULL) gets the length. */
candid_status tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, char **text, size_t *size,
                               candid_error *error);

#endif
