/*
 * MME (Fu et al. 2023, arXiv 2306.13394): two questions about each image, one to be answered yes and one no, in 14
 * sub-tasks. Existence, count, position and color are the ones that papers on hallucination report.
 */
#ifndef CANDID_EVAL_MME_MME_H
#define CANDID_EVAL_MME_MME_H

#include "eval/common/items.h"

/* ---- files ---- */

/*
 * Appends the questions of MME's folder: for each sub-task a folder with the image 0001.jpg (or .png) beside 0001.txt,
 * or with the images in images/ and the texts in questions_answers_YN/; both layouts are public. A text has two lines
 * "question TAB Yes" and "question TAB No". Sub-tasks that are not there are left out; none there is an error. Items:
 * split the sub-task, image relative to `folder`, label "yes" or "no", in the official order of sub-tasks and that of
 * file names. `only`: names of sub-tasks that ends with NULL, or NULL for all.
 */
candid_status mme_read_folder(const char *folder, const char *const *only, struct eval_items *items,
                              candid_error *error);

/*
 * Appends the lines "image TAB question TAB gold TAB answer" of a result file of the official tool, whose name is that
 * of the sub-task (existence.txt). Lines without the fourth column are questions, as in the tool's templates.
 */
candid_status mme_read_results(const char *path, struct eval_items *items, candid_error *error);

/* Writes result files for the official tool into `folder`, one per sub-task. Tabs and line breaks in answers become
 * blanks. An item without answer is a CANDID_ERROR_FORMAT: the tool cannot read one. */
candid_status mme_write_results(const char *folder, const struct eval_items *items, candid_error *error);

/* The 14 sub-tasks in the official order, then NULL: ten of perception, the hallucination subset first, and four of
 * cognition. */
extern const char *const mme_subtasks[];
enum { MME_HALLUCINATION = 4, MME_PERCEPTION = 10, MME_SUBTASKS = 14 };

/* ---- score ---- */

struct mme_options {
    const char *rule; /* "official" (NULL) or "lmms-eval" */
};

/*
 * How an answer is read. official: "yes" or "no" within its first four characters, whatever the case, yes first.
 * lmms-eval: the same after white space around it and full stops are taken out, and a single y or n counts.
 * "yes", "no" or "other"; NULL: there is no such rule.
 */
const char *mme_read_answer(const char *rule, const char *answer);

/*
 * Summary {"rule", "subtasks": {"existence": {"questions", "images", "acc", "acc_plus", "score"}, …}, "hallucination",
 * "perception", "cognition"}: acc and acc_plus fractions, scores up to 200; the totals only where all of their
 * sub-tasks are there. Two items that follow each other are the questions about one image; images one of whose
 * questions has no answer are left out, with both verdicts NULL. Verdicts {"verdict": "yes"|"no"|"other", "correct"}.
 */
candid_status mme_score(const struct eval_items *items, const struct mme_options *options, struct eval_scores *out,
                        candid_error *error);

#endif
