/*
 * CHAIR: how many of the objects a caption mentions are not in the image (Rohrbach et al. 2018). Numbers equal those of
 * the public scripts; every result carries the mode of the words, the tagger and the mode of the truth, because they
 * change it by as much as many methods do.
 *
 *     vocabulary_open(NULL, &vocabulary, error);
 *     tagger_open(path, &tagger, error);                                   for the NLTK modes
 *     const struct word_tagger words = {tagger_classify, tagger};
 *     struct chair_language language = {.mode = CHAIR_NLTK38, .vocabulary = vocabulary, .tagger = &words,
 *                                       .tokenizer.punkt = &tagger->punkt};
 *     chair_truth_build(&language, tagger->sha256, &files, &truth, error);  or chair_truth_read
 *     chair_score(&items, &(struct chair_options){.language = &language, .truth = truth}, &scores, error);
 */
#ifndef CANDID_EVAL_CHAIR_CHAIR_H
#define CANDID_EVAL_CHAIR_CHAIR_H

#include "eval/chair/tagger.h"
#include "eval/chair/truth.h"
#include "eval/common/items.h"

struct chair_options {
    struct chair_language *language;
    const struct chair_truth *truth;
    const char *tagger;        /* what the label says of the tagger, NULL: "imported" where the mode uses one */
    bool unknown_images_empty; /* an image that the truth does not know has no objects, as in the public scripts; else
                                  it is an error */
};

/*
 * Scores the captions items[i].answer; items without one are left out and have no verdict. The image is the number in
 * items[i].id, else it is found by items[i].image; when both name one they must agree.
 *
 * Summary: mode, tagger, truth, truth_sources, captions, mentions, hallucinated (counts), chair_s, chair_i, recall,
 * precision, f1 as fractions, null where nothing can be divided, and length, the mean number of words. Verdicts:
 * objects (word, class, hallucinated, index), truth, length, chair_s, chair_i, recall, precision, f1 of each caption, 0
 * for 0/0 as the scripts do.
 */
candid_status chair_score(const struct eval_items *items, const struct chair_options *options, struct eval_scores *out,
                          candid_error *error);

/* The ids of a published list of 500 images of COCO val2014: "opera" or "pai-927" (sorted file names, shuffled by
 * CPython with seed 927). In their order. CANDID_ERROR_ARGUMENT for another name. *ids is malloc'd. */
candid_status chair_image_list(const char *name, int64_t **ids, size_t *n, candid_error *error);

/* Reads captions: JSON lines or a JSON list of objects with the caption as "caption", "answer" or "text" and the image
 * as "image_id", "id", "question_id" (a number) or "image" (a file name). Appends to the list. */
candid_status chair_read_captions(const char *path, struct eval_items *items, candid_error *error);

#endif
