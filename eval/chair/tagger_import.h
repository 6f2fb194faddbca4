/* NLTK's data as candid's tagger file. */
#ifndef CANDID_EVAL_CHAIR_TAGGER_IMPORT_H
#define CANDID_EVAL_CHAIR_TAGGER_IMPORT_H

#include "eval/chair/tagger.h"

/*
 * Reads what the user has of NLTK's data and returns the text of a tagger file, malloc'd.
 *
 * path: an nltk_data directory (taggers/averaged_perceptron_tagger_eng, else taggers/averaged_perceptron_tagger; with
 * tokenizers/punkt_tab/english, else tokenizers/punkt/[PY3/]english.pickle, where they exist), the directory of the
 * tagger itself, its pickle (NLTK <= 3.8) or its weights.json (NLTK >= 3.9, with tagdict.json and classes.json beside).
 */
candid_status tagger_import(const char *path, char **text, size_t *size, candid_error *error);

struct string_list {
    char **s; /* [n], owned */
    size_t n, capacity;
};

/* The sections of the file. */
enum tagger_section {
    TAGGER_TAGS,
    TAGGER_WORDS,
    TAGGER_FEATURES,
    TAGGER_ABBREVIATIONS,
    TAGGER_COLLOCATIONS,
    TAGGER_STARTERS,
    N_TAGGER_SECTIONS
};

/* What tagger_import is made of: parts are added in any order, then the text is written. Start from {0}. */
struct tagger_parts {
    struct string_list sections[N_TAGGER_SECTIONS]; /* their lines */
};

candid_status tagger_add_pickle(struct tagger_parts *parts, const uint8_t *bytes, size_t size, const char *label,
                                candid_error *error);
candid_status tagger_add_punkt_pickle(struct tagger_parts *parts, const uint8_t *bytes, size_t size, const char *label,
                                      candid_error *error);

/* One of the JSON files: "weights", "tagdict" or "classes". */
struct json_stream;
candid_status tagger_add_json(struct tagger_parts *parts, const char *kind, struct json_stream *s, candid_error *error);

/* One of punkt_tab's files: "abbrev_types.txt", "collocations.tab" or "ortho_context.tab". */
candid_status tagger_add_punkt_text(struct tagger_parts *parts, const char *name, const char *text, size_t size,
                                    const char *label, candid_error *error);

candid_status tagger_write(const struct tagger_parts *parts, const char *from, char **text, size_t *size,
                           candid_error *error);
void tagger_parts_free(struct tagger_parts *parts);

#endif
