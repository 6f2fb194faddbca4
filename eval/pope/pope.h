/*
 * POPE, polling-based object probing (Li et al. 2023, arXiv 2305.10355): questions "Is there a X in the image?" about
 * objects that are there and objects that are not, which are drawn at random, are frequent (popular) or often stand
 * together with one that is there (adversarial). Question files, answer files, and the ways in which public programs
 * read "yes" or "no" from an answer.
 */
#ifndef CANDID_EVAL_POPE_POPE_H
#define CANDID_EVAL_POPE_POPE_H

#include <stdbool.h>

#include "eval/common/items.h"

/* ---- files ---- */

/*
 * Appends the questions of a file, and the file to items->sources. Forms: JSON lines or a JSON array of
 * {"question_id", "image", "text", "label"}; LLaVA's file, with "category" and without labels; PAI's chat form, whose
 * "text" and "label" are lists. A file of answers that repeats question and label (ours; PAI's) is read with the
 * answers: keys "answer", "ans" or "output"; an object with "error" is a question that got no answer.
 * The split is, in this order: the object's "split" or "category", `split` (may be NULL), the one of random, popular
 * and adversarial that the file's name holds, none (NULL). Labels become "yes" or "no", ids text.
 * No two files may bring the same split: CANDID_ERROR_FORMAT, as for everything else that is wrong in a file.
 */
candid_status pope_read_questions(const char *path, const char *split, struct eval_items *items, candid_error *error);

/*
 * Labels for the questions of `items` that have none, from a labelled question file: LLaVA's question file is joined
 * with the official ones. Goes by split and, within it, order; images must agree, and LLaVA's text must begin with the
 * official one.
 */
candid_status pope_read_labels(const char *path, const char *split, struct eval_items *items, candid_error *error);

/*
 * Sets the answers of items[begin .. end) from a file of answers: objects with "answer", "ans", "output" or "text".
 * Where both sides have ids ("question_id" or "id") that are distinct, answers are joined by id and may stand in any
 * order, else, or with by_order, one after the other. Another number of answers, an id that is not there or there
 * twice, and an object without answer are a CANDID_ERROR_FORMAT that names both files and the line: nothing is cut off.
 */
candid_status pope_read_answers(const char *path, bool by_order, struct eval_items *items, size_t begin, size_t end,
                                candid_error *error);

/*
 * HALC's OPOPE: answers every question with "Yes" or "No" from a description of its image, objects with "image_id" or
 * "image" and "caption" (or "answer"); images are told by the number in their name. A question whose image has no
 * caption, or two, is a CANDID_ERROR_FORMAT. Kept as it is there: an object counts as described when any word of its
 * name is a substring of the text ("car" of "cardboard", "hot" of "hot dog").
 */
candid_status pope_read_captions(const char *path, struct eval_items *items, candid_error *error);

/* That test: whether one of the words of `object` ([size] bytes), divided by blanks, is a substring of the caption. */
bool pope_caption_names(const char *caption, const char *object, size_t size);

/* No split of items[begin ..), read from `path`, may be among the items before: two files of one split are mostly two
 * data sets. pope_read_questions has checked it. */
candid_status pope_check_splits(const struct eval_items *items, size_t begin, const char *path, candid_error *error);

/* Questions of items[begin .. end) with the misspelling "imange" that some published versions hold. */
size_t pope_count_imange(const struct eval_items *items, size_t begin, size_t end);

/* The published version that items[begin .. end) are, whatever the form of the file: "POPE-COCO random, 2910 questions
 * (old)". NULL: none that is known. Compares a checksum of all images, texts and labels. */
const char *pope_known_version(const struct eval_items *items, size_t begin, size_t end);

/* ---- answers ---- */

enum pope_verdict { POPE_NO, POPE_YES, POPE_UNKNOWN };

/* "no", "yes", "unknown" */
const char *pope_verdict_name(enum pope_verdict verdict);

/* How a public program reads an answer and counts. */
struct pope_rule {
    const char *name;
    const char *same_as; /* NULL, or the name of the rule that this one is equal to */
    const char *about;   /* one sentence; NULL where same_as says it */
    enum pope_verdict (*read)(const char *answer, bool gold_yes); /* VCD looks at what is right */
    enum { POPE_COUNTS_PLAIN, POPE_COUNTS_LMMS_EVAL, POPE_COUNTS_VLMEVALKIT } counts;
};

extern const struct pope_rule pope_rules[];
extern const size_t n_pope_rules;

/* The rule of that name, or NULL. */
const struct pope_rule *pope_rule_find(const char *name);

/* ---- score ---- */

struct pope_options {
    const char *rule; /* NULL: "official" */
    bool all_rules;   /* every distinct rule besides */
};

/*
 * Summary {"rule": "official", "splits": {"random": {"tp", "fp", "tn", "fn", "unknown", "answers", "accuracy",
 * "precision", "recall", "f1", "yes_ratio"}, …}, "mean": {…}, "rules": {"opera": {"splits", "mean"}, …}}; fractions;
 * null where a denominator is 0 and the program in question would fail. Items without split are the split "all".
 * "mean" is over the splits. The oddities of programs are kept under their names: lmms-eval's yes_ratio is that of the
 * labels and its 0/0 is 0, VLMEvalKit has "overall", F1 in percent.
 * Verdicts {"verdict": "yes"|"no"|"unknown", "correct": bool}, with all_rules also "rules": {"opera": "yes", …}; NULL
 * for an item without answer, which counts nowhere. A label other than "yes" and "no" is a CANDID_ERROR_FORMAT.
 */
candid_status pope_score(const struct eval_items *items, const struct pope_options *options, struct eval_scores *out,
                         candid_error *error);

#endif
