/*
 * The questions of a benchmark and their answers, whatever the format of the file they came from.
 */
#ifndef CANDID_EVAL_COMMON_ITEMS_H
#define CANDID_EVAL_COMMON_ITEMS_H

#include <cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "candid/candid.h"

/* One question, or one image to caption. Strings belong to the list. */
struct eval_item {
    const char *id;       /* the question's id as the file writes it; of captions the image's id */
    const char *image;    /* file name, relative to the images folder */
    const char *split;    /* POPE: "random", "popular", "adversarial"; MME: sub-task; AMBER: type; else NULL */
    const char *question; /* as in the file; NULL: the caption prompt of the run */
    const char *label;    /* what is right, as in the file ("yes"); NULL: the file does not say */
    const char *answer;   /* what a model said; NULL: nothing, or it failed */
};

/* A file that questions or answers came from. */
struct eval_source {
    const char *path;
    char sha256[65];
    size_t n_lines;       /* questions in it */
    const char *known_as; /* a published version of it by name, or NULL */
};

/* Start from {0}; release with items_free. */
struct eval_items {
    struct eval_item *items; /* [n], in the order of the files */
    size_t n, capacity;
    struct eval_source *sources; /* [n_sources] */
    size_t n_sources;
    struct text_block *text; /* the memory of all strings */
};

/* A copy of `text` (NULL: NULL) that lives as long as the list; NULL when there is no memory. */
const char *items_text(struct eval_items *list, const char *text);

/* Appends an item; its strings are copied. */
candid_status items_add(struct eval_items *list, const struct eval_item *item, candid_error *error);

/* Appends a source; its strings are copied. */
candid_status items_add_source(struct eval_items *list, const struct eval_source *source, candid_error *error);

void items_free(struct eval_items *list);

/* What a benchmark makes of the answers; release with scores_free. */
struct eval_scores {
    cJSON *summary;   /* object: the "scores" of a run's summary */
    cJSON **verdicts; /* [n] object of each item, NULL for one without answer: what the summary was counted from */
    size_t n;
};

void scores_free(struct eval_scores *scores);

#endif
