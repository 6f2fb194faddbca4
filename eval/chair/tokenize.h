/*
 * NLTK's word_tokenize for lower-cased text: sentences by Punkt, then the rules of NLTKWordTokenizer. Source: the NLTK
 * releases 3.8.1 and 3.9.4 (nltk.org); own code, in time linear in the text.
 */
#ifndef CANDID_EVAL_CHAIR_TOKENIZE_H
#define CANDID_EVAL_CHAIR_TOKENIZE_H

#include "eval/common/string_table.h"
#include "eval/common/unicode.h"

/* Which release the rules are those of. From 3.9 on white space is collapsed before clitics are split and the dashes
 * U+2012 to U+2015 are tokens (the latter from 3.9.3 on). Since 3.10.1 a leading apostrophe stands alone and
 * since 3.10.2 curly quotes end sentences too, which no publication has used yet and is not here. */
enum tokenizer_rules { TOKENIZER_NLTK38, TOKENIZER_NLTK39 };

/* Words one after the other, each with a NUL behind it. Start from {0}; release with words_free. */
struct words {
    char *bytes;
    size_t n_bytes, bytes_capacity;
    uint32_t *offset; /* [n] into bytes */
    size_t n, capacity;
};

static inline const char *word_at(const struct words *words, size_t i) {
    return words->bytes + words->offset[i];
}

void words_clear(struct words *words);
candid_status words_add(struct words *words, const uint32_t *c, size_t n, candid_error *error);
void words_free(struct words *words);

/*
 * What Punkt learnt from text. Without it (NULL or empty) a handful of abbreviations is known, and a sentence ends at
 * every other final period but one behind a number or a single letter.
 */
struct punkt {
    struct string_table abbreviations; /* without the final period */
    struct string_table collocations;  /* "word next" */
    struct string_table starters;      /* lower-case words seen at the beginning of a sentence and never capitalised:
                                          they may begin one after a number or a single letter */
};

/* Reused from text to text. Start from {0}; release with word_tokenizer_free. */
struct word_tokenizer {
    enum tokenizer_rules rules;
    const struct punkt *punkt; /* may be NULL */
    struct text32 text, sentence, spare;
    struct sentence_span *spans;
    size_t n_spans, spans_capacity;
};

/* Replaces *out by the tokens of a text, which is put in lower case first. */
candid_status tokenize(struct word_tokenizer *t, const char *text, struct words *out, candid_error *error);

void word_tokenizer_free(struct word_tokenizer *t);

#endif
