/* The words of an answer and the tokens they begin with. */
#ifndef CANDID_DECODE_WORDS_H
#define CANDID_DECODE_WORDS_H

#include <stdbool.h>

#include "lm/tokenizer.h"

/* What stands between white space, without the punctuation around it. */
struct word {
    size_t begin, end; /* bytes of the text */
    size_t token;      /* the token with its first letter */
    size_t n_tokens;   /* those that hold letters of it */
};

/* An answer as its tokens spell it; release with answer_words_free. */
struct answer_words {
    char *text; /* UTF-8: bytes that are none are '?'; NUL-terminated */
    size_t size;
    size_t *token_end; /* [n_tokens] where each token's bytes end */
    size_t n_tokens;
    struct word *words;
    size_t n_words;
};

candid_status answer_words_make(const struct tokenizer *t, const int32_t *ids, size_t n, struct answer_words *out,
                                candid_error *error);
void answer_words_free(struct answer_words *a);

/*
 * Finds the words of a text of which token i spells the bytes up to token_end[i]. words: room for size / 2 + 1; returns
 * their number.
 */
size_t words_split(const char *text, size_t size, const size_t *token_end, size_t n_tokens, struct word *words);

/*
 * Whether the word may name a thing: at least two letters, and not in a list of articles, pronouns, prepositions,
 * common verbs and words that only say where something is. There is no tagger behind it: adjectives pass.
 */
bool word_is_content(const char *word, size_t size);

/* Whether two words are equal but for the case of ASCII letters. */
bool word_equals(const char *a, size_t a_size, const char *b, size_t b_size);

#endif
