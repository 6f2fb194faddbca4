/*
 * Conversation templates: from a user's request and a number of images to the text chunks between the images.
 */
#ifndef CANDID_LM_PROMPT_H
#define CANDID_LM_PROMPT_H

#include "lm/tokenizer.h"

/*
 * A template is text with "{prompt}" once, for the request; "<image>" places the images. Named ones, each the first
 * turn of the conversation of that name in LLaVA's llava/conversation.py (github.com/haotian-liu/LLaVA):
 *   vicuna_v1  system sentence "A chat between a curious user and …", then " USER: {prompt} ASSISTANT:"
 *   llava_v1   the same with "a curious human" and "the human's questions"; the roles are USER and ASSISTANT here too
 *   llava_hf   "USER: {prompt} ASSISTANT:", the chat template of llava-hf/llava-1.5-7b-hf
 *   mistral_instruct  "[INST] {prompt} [/INST]", as in llava-hf/llava-v1.6-mistral-7b-hf and LLaVA's mistral_instruct
 *   plain      the request alone, so that an image gives "<image>\n{prompt}". conversation.py would end the turn with
 *              another newline; it is left out because the models of this style continue the text
 * Returns the text of a named template, or NULL for an unknown name.
 */
const char *prompt_template_named(const char *name);

/* Names for messages and --help, NULL-terminated. */
const char *const *prompt_template_names(void);

/*
 * `conversation`: a template name, or template text containing "{prompt}" (else CANDID_ERROR_ARGUMENT naming both);
 * NULL is vicuna_v1. Fills in the request, whose own text is taken literally ("{prompt}" in it means nothing), and
 * returns the finished text, malloc'd. Where the images go:
 *   1. The request says "<image>": there. Places in the template are removed.
 *   2. Else the template says "<image>": there. A single place is repeated for several images. For no image all places
 *      are removed. A newline directly after a place belongs to it, being removed or repeated with it.
 *   3. Else each image becomes "<image>\n" right before the request (LLaVA's convention).
 * The number of "<image>" in the result must equal n_images, else CANDID_ERROR_ARGUMENT.
 */
candid_status prompt_render(const char *conversation, const char *request, size_t n_images, char **text,
                            candid_error *error);

/* One element of a tokenised prompt: text ids (image == -1) or the place of image number `image`. */
struct prompt_chunk {
    int image;
    size_t begin, count; /* range in the token list, count 0 for an image */
};

/* A tokenised prompt; release with prompt_free. */
struct prompt {
    struct token_list tokens; /* text tokens of all chunks, one after the other, BOS included */
    struct prompt_chunk *chunks;
    size_t n_chunks;
};

/*
 * Splits the rendered text at "<image>" and tokenises each chunk by itself, as the original LLaVA does
 * (tokenizer_image_token in llava/mm_utils.py): BOS before the first chunk only, even if that is empty, and every
 * non-empty chunk gets its own space prefix. Empty chunks are left out. Special tokens written in the text ("</s>")
 * become that token, in the request as in the template: the original does so too. Overwrites *out.
 */
candid_status prompt_tokenize(const struct tokenizer *t, const char *text, struct prompt *out, candid_error *error);
void prompt_free(struct prompt *p);

/* The prompt without its images: the text chunks as they are, one after the other. *out is the caller's. */
candid_status prompt_without_images(const struct prompt *p, struct prompt *out, candid_error *error);

/*
 * The conversation text with `system` in place of what it says before its first role: before "USER:" if that stands
 * before "{prompt}", else before everything. A space goes between. malloc'd; conversation as in prompt_render.
 */
candid_status prompt_replace_system(const char *conversation, const char *system, char **out, candid_error *error);

#endif
