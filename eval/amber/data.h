/* AMBER's data in memory, for the reader and the scorer. Words are numbers of the vocabulary. */
#ifndef CANDID_EVAL_AMBER_DATA_H
#define CANDID_EVAL_AMBER_DATA_H

#include <stdint.h>

#include "eval/amber/amber.h"

struct amber_word {
    char *text;
    int *associated; /* [n_associated] words that stand for it */
    size_t n_associated;
    bool safe; /* never counted as invented */
    bool key;  /* objects of annotations are keys of the association table */
};

struct amber_annotation {
    int64_t id;
    char *type;
    bool generative, yes; /* yes: what is right, of a question */
    int *truth, *hallu;   /* words */
    size_t n_truth, n_hallu;
};

struct amber_data {
    struct amber_word *words; /* [n_words] keys and associated words in order of first occurrence */
    size_t n_words;
    int *by_text;                         /* [n_words] sorted */
    struct amber_annotation *annotations; /* [n_annotations] sorted by id */
    size_t n_annotations;
    bool *alike; /* [n_words * n_words] row: the noun; NULL: only equal words are */
    char similarity[128];
};

/* The number of a word, -1: not in the vocabulary. */
int amber_word_find(const struct amber_data *data, const char *text);
/* NULL: there is none of that id. */
const struct amber_annotation *amber_annotation_find(const struct amber_data *data, const char *id);

#endif
