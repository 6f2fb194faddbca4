/*
 * AMBER (Wang et al. 2023, arXiv 2311.07397; github.com/junyangwang0410/AMBER): descriptions of 1,004 images checked
 * against lists of objects that are there and that models like to invent (generative), and 14,216 yes/no questions
 * (discriminative). The numbers are those that the official inference.py prints, its oddities included: all
 * denominators begin at 0.001, answers must be "Yes" or "No" to the letter, F1 is made of rounded numbers.
 */
#ifndef CANDID_EVAL_AMBER_AMBER_H
#define CANDID_EVAL_AMBER_AMBER_H

#include <stdbool.h>

#include "eval/common/items.h"

/* ---- the benchmark's data ---- */

/* Annotations, association table, safe words, and which words are alike. */
struct amber_data;

/*
 * Reads annotations.json, relation.json and safe_words.txt of AMBER's folder data/ (`folder`, or the folder above it).
 * `similarity`: a table made by similarity.py, NULL: words are alike only when they are equal. Release with
 * amber_data_free.
 */
candid_status amber_data_read(const char *folder, const char *similarity, struct amber_data **out, candid_error *error);
void amber_data_free(struct amber_data *data);

/* What decides that words are alike: "en_core_web_lg 3.7.1, above 0.8", or "equality only". */
const char *amber_similarity_name(const struct amber_data *data);

/* ---- files ---- */

/*
 * Appends the questions of query_all.json, query_generative.json and so on: [{"id", "image", "query"}]. Items: split
 * the type of the annotation ("generative", "discriminative-hallucination"), label "yes" or "no" of the discriminative
 * ones.
 */
candid_status amber_read_questions(const char *path, const struct amber_data *data, struct eval_items *items,
                                   candid_error *error);

/* Appends answers without their questions: [{"id", "response"}], what the official program reads. */
candid_status amber_read_responses(const char *path, const struct amber_data *data, struct eval_items *items,
                                   candid_error *error);

/* ---- score ---- */

/* Words, copied. Start from {0}; release with amber_words_free. */
struct amber_words {
    char **words; /* [n] */
    size_t n, capacity;
};
candid_status amber_words_add(struct amber_words *list, const char *word, size_t size, candid_error *error);
void amber_words_free(struct amber_words *list);

/*
 * The basic form of a noun as NLTK's WordNetLemmatizer gives it, in the case of the text, which decides ("Cars" stays);
 * exact for what is, or would become, a word of the vocabulary. The result is `word`, buffer or static.
 */
#define AMBER_LEMMA 64
const char *amber_lemma(const struct amber_data *data, const char *word, char buffer[AMBER_LEMMA]);

/* Appends the nouns of a description: amber_lemma of every token whose tag begins with NN, in order. The official
 * program does not put the text in lower case. */
struct amber_nouns {
    candid_status (*find)(const void *context, const char *text, struct amber_words *out, candid_error *error);
    const void *context;
    const char *name; /* of the tagger, for the summary */
};

/*
 * Nouns by NLTK's tokenizer and tagger as CHAIR uses them; `tagger`: the file that candid chair import-tagger writes,
 * or NULL, then every word is taken for a noun and only the vocabulary decides. The official program tags the text in
 * its own case, this in lower case: words with a capital letter keep it and so match as little as there, but tags of
 * their neighbours, and ends of sentences, may differ. `data` is borrowed. Release with amber_nouns_close.
 */
candid_status amber_nouns_open(const struct amber_data *data, const char *tagger, struct amber_nouns *out,
                               candid_error *error);
void amber_nouns_close(struct amber_nouns *nouns);

struct amber_options {
    const struct amber_data *data;
    struct amber_nouns nouns; /* find NULL: descriptions are an error */
};

/*
 * Summary {"generative": {"chair", "cover", "hal", "cog", "images", "nouns", "hallucinated"}, "tagger", "similarity",
 * "discriminative": {"total": {"accuracy", "precision", "recall", "f1", "questions"}, "existence", "attribute",
 * "state", "number", "action", "relation"}, "amber_score"}: percent, rounded to one digit as printed; "No" is the
 * positive answer. Only what there are answers for; amber_score = (100 - chair + f1) / 2 of the paper where there are
 * both. Verdicts: of descriptions {"nouns", "hallucinated", "covered", "listed", "truth", "hallu"}: the nouns that
 * count, those that are invented, the true and the listed invented objects that were named, and how many of these there
 * are; of questions {"verdict": "yes"|"no"|"other", "correct"}. An item whose id has no annotation is a
 * CANDID_ERROR_FORMAT.
 */
candid_status amber_score(const struct eval_items *items, const struct amber_options *options, struct eval_scores *out,
                          candid_error *error);

#endif
