/*
 * Conversation templates: from a user's request and a number of images to the text chunks between the images.
 */
#ifndef CANDID_LM_PROMPT_H
#define CANDID_LM_PROMPT_H

#include "lm/tokenizer.h"

/*
 * A template is text with "{prompt}" for the request; "<image>" places the images. Named ones:
 *   vicuna_v1  system sentence "A chat between a curious user and …", "USER: … ASSISTANT:"
 *   llava_v1   system sentence with "curious human", as LLaVA's conversation.py
 *   plain      "<image>\n{prompt}" reduced to LLaVA's plain style: images, newline, request
 * Returns the text of a named template, or NULL for an unknown name.
 */
const char *prompt_template_named(const char *name);

/* Names for messages and --help, NULL-terminated. */
const char *const *prompt_template_names(void);

/*
 * `conversation`: a template name, or template text containing "{prompt}" (else CANDID_ERROR_ARGUMENT naming both).
 * Fills in the request and returns the finished text, malloc'd. When neither request nor template place images, each of
 * the n_images gets "<image>\n" before the request (LLaVA's convention). The number of "<image>" in the result must
 * equal n_images, else CANDID_ERROR_ARGUMENT.
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
 * (tokenizer_image_token): BOS before the first chunk only, and every non-empty chunk gets its own space prefix.
 */
candid_status prompt_tokenize(const struct tokenizer *t, const char *text, struct prompt *out, candid_error *error);
void prompt_free(struct prompt *p);

#endif
