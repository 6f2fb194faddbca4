/*
 * The words of CHAIR: classes with their synonyms, names of two words, and what the forms of a word are reduced to
 * (Rohrbach et al. 2018, "Object Hallucination in Image Captioning"). Words are numbers here, 0 is any word that cannot
 * matter. The tables are data files in eval/chair/tables, with their notices.
 */
#ifndef CANDID_EVAL_CHAIR_VOCABULARY_H
#define CANDID_EVAL_CHAIR_VOCABULARY_H

#include <stdbool.h>

#include "eval/common/string_table.h"

/* How a form is reduced: by Pattern's singularize, or by NLTK's WordNet lemmatizer for the class of its tag. */
enum word_class { WORD_NOUN, WORD_VERB, WORD_ADJECTIVE, WORD_ADVERB, N_WORD_CLASSES };

struct vocabulary {
    char **class_names; /* [n_classes] COCO's names, or the first words of the rows of an own file */
    size_t n_classes;
    bool own;                /* not COCO's */
    struct string_table ids; /* word or pair of words -> id */
    int16_t *class_of;       /* [n_ids] or -1 */
    size_t n_ids;
    struct string_table lemmas; /* form -> row of lemma_rows */
    uint16_t (*lemma_rows)[N_WORD_CLASSES];
    struct string_table singulars; /* form -> id */
    struct word_pair *pairs;
    size_t n_pairs;
    char *text; /* the own file */
};

/* `synonyms` NULL: COCO's 80 classes. Else a file with a row "name, synonym, synonym" per class; forms that the tables
 * do not know are then reduced by WordNet's suffix rules for nouns. */
candid_status vocabulary_open(const char *synonyms, struct vocabulary **out, candid_error *error);
void vocabulary_free(struct vocabulary *v);

/* The id of a form, 0 for a word that cannot matter. */
uint16_t vocabulary_lemma(const struct vocabulary *v, const char *form, enum word_class word_class);
uint16_t vocabulary_singular(const struct vocabulary *v, const char *form);

/* The id two words in a row are merged to, 0 when they are not. */
uint16_t vocabulary_pair(const struct vocabulary *v, uint16_t first, uint16_t second);

/* The id of a word in its basic form, and the class of an id: -1 for none. */
uint16_t vocabulary_word(const struct vocabulary *v, const char *word);
int vocabulary_class(const struct vocabulary *v, uint16_t id);

#endif
