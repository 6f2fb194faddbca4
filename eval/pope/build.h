/*
 * Makes POPE questions from the objects of images, by the rules of the official program (RUCAIBox/POPE): with the same
 * objects in the same order and the same seed, the same questions.
 */
#ifndef CANDID_EVAL_POPE_BUILD_H
#define CANDID_EVAL_POPE_BUILD_H

#include "eval/common/mt19937.h"
#include "eval/pope/pope.h"

/* Images and what is in them, from any source. Start from {0}; release with pope_truth_free. */
struct pope_truth {
    struct pope_truth_image *images; /* [n] */
    size_t n, capacity;
    char **objects; /* [n_objects] distinct names, in order of first occurrence */
    size_t n_objects;
};

struct pope_truth_image {
    char *name;
    int *objects; /* [n] indices of names; which three are asked about depends on the order */
    size_t n;
};

/* Appends an image without objects. */
candid_status pope_truth_add_image(struct pope_truth *truth, const char *name, candid_error *error);
/* Appends an object to the image. Names there twice stay twice. */
candid_status pope_truth_add_object(struct pope_truth *truth, size_t image, const char *object, candid_error *error);
bool pope_truth_has_object(const struct pope_truth *truth, size_t image, const char *object);
void pope_truth_free(struct pope_truth *truth);

/* JSON lines {"image": "…", "objects": ["…", …]}: the input of the official program. */
candid_status pope_truth_read_objects(const char *path, struct pope_truth *truth, candid_error *error);
/* A COCO instances file: categories' names, each once per image, in the order of the image's first annotation of it. */
candid_status pope_truth_read_instances(const char *path, struct pope_truth *truth, candid_error *error);

enum pope_split { POPE_RANDOM, POPE_POPULAR, POPE_ADVERSARIAL };

struct pope_build {
    enum pope_split split;
    size_t per_image;     /* questions with "yes" per image; as many with "no" */
    bool typo;            /* the official program's "imange", where the article is "an" */
    const char *template; /* NULL: POPE_TEMPLATE; a word "a" before {} becomes "an" before a vowel */
};

#define POPE_TEMPLATE "Is there a {} in the image?"

/* Draws the images to ask about from those with at least per_image objects; 0: all of those, in order. *out: indices of
 * truth->images, malloc'd. Fewer than wanted is an error. */
candid_status pope_sample_images(const struct pope_truth *truth, size_t n_images, size_t per_image, struct mt19937 *r,
                                 size_t **out, size_t *n_out, candid_error *error);

/*
 * Appends the questions about these images to `items`: ids count from 1, labels alternate yes, no. The tables of
 * frequency and co-occurrence are those of these images. An image without any object left to ask about is an error.
 */
candid_status pope_build_questions(const struct pope_truth *truth, const size_t *images, size_t n_images,
                                   const struct pope_build *build, struct mt19937 *r, struct eval_items *items,
                                   candid_error *error);

#endif
