/*
 * The work of a run: units of one image with all its questions, and how little has to be read for them.
 */
#ifndef CANDID_EVAL_RUN_UNITS_H
#define CANDID_EVAL_RUN_UNITS_H

#include "eval/common/items.h"

/* Items are asked `question` without `cut`, then suffix; or where they have no question the prompt. Borrowed. */
struct eval_prompt {
    const char *prompt; /* may be NULL where all items have a question */
    const char *suffix; /* "" */
    const char *cut;    /* NULL: nothing is left out */
};

/* What a model is asked about item i, malloc'd. */
candid_status eval_prompt_of(const struct eval_prompt *p, const struct eval_item *item, char **out,
                             candid_error *error);

/* One image. Questions that several splits ask are asked once. */
struct eval_unit {
    const char *image; /* of the items */
    size_t *items;     /* [n_items] indices, ascending */
    size_t n_items;
    size_t *asked; /* [n_items] for each the number of its prompt, 0 .. n_asked - 1 in order of first occurrence */
    size_t n_asked;
};

/* The units of a run in order of their images' first item. Start from {0}; release with units_free. */
struct eval_units {
    struct eval_unit *units; /* [n] */
    size_t n;
    size_t *memory;
};

/* shard: 1 .. n_shards. A shard has every n_shards-th image. */
candid_status units_make(const struct eval_items *items, size_t shard, size_t n_shards, struct eval_units *out,
                         candid_error *error);

/* From now on every item is asked by itself, also where another asks the same. */
void units_repeat(struct eval_units *units);

void units_free(struct eval_units *units);

#endif
