/*
 * NLTK's averaged perceptron tagger (Honnibal; nltk.tag.perceptron): greedy, left to right. Its weights come with
 * NLTK's data and not with candid; `candid chair import-tagger` rewrites them as one text file of candid's own:
 *
 *     candid-tagger 1
 *     from TEXT                     what was imported
 *     tags N                        then N lines "TAG", in alphabetical order
 *     words N                       then "WORD<tab>TAG": words that always have the same tag
 *     features N                    then "FEATURE<tab>TAG WEIGHT TAG WEIGHT…"
 *     abbreviations N, collocations N, starters N
 *                                   Punkt's words, one a line; N 0 when there was no Punkt data
 *     crc32 XXXXXXXX                of everything before
 */
#ifndef CANDID_EVAL_CHAIR_TAGGER_H
#define CANDID_EVAL_CHAIR_TAGGER_H

#include "eval/chair/objects.h"

#define TAGGER_MAGIC "candid-tagger 1"
#define MAX_TAGS     255

struct tag_weight {
    double weight;
    uint32_t tag;
};

struct tagger {
    char *text; /* the file; the strings below lie in it */
    char sha256[65];
    const char *from;
    const char *tags[MAX_TAGS];
    uint8_t classes[MAX_TAGS]; /* enum word_class of each tag */
    size_t n_tags;
    struct string_table words;    /* -> tag */
    struct string_table features; /* -> index in `first` */
    uint32_t *first;              /* [n_features + 1] into weights */
    size_t n_features;
    struct tag_weight *weights;
    size_t n_weights;
    struct punkt punkt;
    bool has_punkt;
};

candid_status tagger_open(const char *path, struct tagger **out, candid_error *error);
/* The same from memory; the text is copied. */
candid_status tagger_parse(const char *text, size_t size, const char *label, struct tagger **out, candid_error *error);
void tagger_free(struct tagger *tagger);

/* The tag of each word of a text, as an index in tagger->tags. Words in lower case, as CHAIR has them. */
candid_status tagger_tag(const struct tagger *tagger, const struct words *words, uint8_t *tags, candid_error *error);

/* As struct word_tagger wants it; the context is the tagger. */
candid_status tagger_classify(void *tagger, const struct words *words, uint8_t *classes, candid_error *error);

/* Noun, verb, adjective or adverb by the first letter of a Penn Treebank tag; anything else counts as a noun. */
enum word_class tag_class(const char *tag);

/* "$XDG_DATA_HOME/candid/nltk-tagger" or "~/.local/share/candid/nltk-tagger", malloc'd; NULL when neither is known. */
char *tagger_default_path(void);

#endif
