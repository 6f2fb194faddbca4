/*
 * The objects a caption mentions: tokens, their tags, their basic forms, pairs merged, classes. Source: chair.py of
 * LisaAnne/Hallucination, Maxlinn/CHAIR-metric-standalone (pattern mode) and shikiw/OPERA (NLTK mode).
 */
#ifndef CANDID_EVAL_CHAIR_OBJECTS_H
#define CANDID_EVAL_CHAIR_OBJECTS_H

#include "eval/chair/tokenize.h"
#include "eval/chair/vocabulary.h"

enum chair_mode {
    CHAIR_NLTK38,      /* tokens of NLTK <= 3.8.1, tagger, WordNet lemmas: what most publications report */
    CHAIR_NLTK39,      /* the same with the tokens of NLTK 3.9 to 3.10.0 */
    CHAIR_PATTERN,     /* tokens of NLTK 3.8.1, Pattern's singularize: LisaAnne's original, CHAIR-metric-standalone */
    CHAIR_APPROXIMATE, /* nltk38 without a tagger: every word is taken for a noun. Not the published metric */
    N_CHAIR_MODES,
};

const char *chair_mode_name(enum chair_mode mode);
/* False when there is no mode of that name. */
bool chair_mode_find(const char *name, enum chair_mode *out);

/* Something that gives each word its class. */
struct word_tagger {
    candid_status (*classify)(void *context, const struct words *words, uint8_t *classes, candid_error *error);
    void *context;
};

/* What is needed to read captions, and the memory it is done in: one per thread. Fill mode, vocabulary and, for the
 * NLTK modes, the tagger, the rest {0}; release the memory with chair_language_free. */
struct chair_language {
    enum chair_mode mode;
    const struct vocabulary *vocabulary;
    const struct word_tagger *tagger;
    struct word_tokenizer tokenizer; /* .punkt may be set */
    struct words words;              /* the tokens of the last caption */
    uint8_t *classes;                /* enum word_class of each */
    struct merged_word *merged;
    size_t capacity;
};

struct chair_mention {
    int object;           /* class */
    uint32_t first_token; /* in words */
    uint32_t n_tokens;    /* 1, or 2 for a pair */
    uint32_t index;  /* what OPERA's script prints: the first token, but off by one for each "seat" dropped before */
    uint32_t merged; /* what PAI's script prints: the position in the merged list */
};

/* Start from {0}; release with chair_objects_free. */
struct chair_objects {
    struct chair_mention *mentions; /* in the order of the caption */
    size_t n, capacity;
    size_t length; /* words after merging, punctuation included */
};

/* Replaces *out by the objects of a caption. */
candid_status chair_find_objects(struct chair_language *language, const char *caption, struct chair_objects *out,
                                 candid_error *error);

void chair_objects_free(struct chair_objects *objects);
void chair_language_free(struct chair_language *language);

#endif
