/*
 * The objects that are in each image: COCO's instance annotations united with the objects of the reference captions
 * (Rohrbach et al. 2018). Any COCO-style JSON files will do; a file of several hundred megabytes is read as a stream.
 */
#ifndef CANDID_EVAL_CHAIR_TRUTH_H
#define CANDID_EVAL_CHAIR_TRUTH_H

#include "eval/chair/objects.h"

/* A file that the truth was made of. */
struct truth_source {
    char *path;
    bool captions; /* reference captions; else instances */
    uint64_t size;
    char sha256[65];
    size_t n; /* annotations used */
};

struct chair_truth {
    enum chair_mode mode;
    char vocabulary[65]; /* SHA-256 of the word tables */
    char tagger[65];     /* SHA-256 of the tagger's file in the NLTK modes, else "" */
    size_t n_classes;
    size_t n_words;  /* of 64 bits in a mask */
    int64_t *ids;    /* [n] */
    uint64_t *masks; /* [n][n_words] bit of each class */
    size_t n, capacity;
    uint32_t *slots; /* [n_slots] hash of the ids: index + 1 */
    size_t n_slots;
    struct string_table names; /* file name -> index, of images whose name does not end in their id */
    char **name_texts;
    uint32_t *name_images; /* [n_names] */
    size_t n_names, names_capacity;
    struct truth_source *sources;
    size_t n_sources;
};

/* What to make the truth of. Captions may be missing: then it is the instances alone. */
struct truth_files {
    const char *const *instances;
    size_t n_instances;
    const char *const *captions;
    size_t n_captions;
};

/* Reads the files; `language` is for the reference captions, `tagger` the SHA-256 of its tagger or "". Wrong files and
 * categories that are no class are CANDID_ERROR_FORMAT naming file and line. */
candid_status chair_truth_build(struct chair_language *language, const char *tagger, const struct truth_files *files,
                                struct chair_truth **out, candid_error *error);
void chair_truth_free(struct chair_truth *truth);

#define TRUTH_NO_IMAGE SIZE_MAX

/* The index of an image by its id, or by its file name: as listed in the annotations, else by the digits it ends in
 * ("COCO_val2014_000000123456.jpg"). TRUTH_NO_IMAGE when there is none. */
size_t chair_truth_image(const struct chair_truth *truth, int64_t id);
size_t chair_truth_image_named(const struct chair_truth *truth, const char *file_name);

static inline bool chair_truth_has(const struct chair_truth *truth, size_t image, int object) {
    return image != TRUTH_NO_IMAGE &&
           (truth->masks[image * truth->n_words + (size_t)object / 64] >> (object % 64) & 1) != 0;
}

/* SHA-256 of what decides how words become classes. */
void chair_vocabulary_hash(const struct vocabulary *vocabulary, char hex[65]);

/* ---- parts that the cache shares ---- */

candid_status chair_truth_add(struct chair_truth *truth, int64_t id, size_t *index, candid_error *error);
candid_status chair_truth_add_name(struct chair_truth *truth, size_t index, const char *name, candid_error *error);
candid_status chair_truth_add_source(struct chair_truth *truth, const struct truth_source *source, candid_error *error);

/* ---- cache: building from COCO's files takes seconds to a minute ---- */

candid_status chair_truth_write(const struct chair_truth *truth, const char *path, candid_error *error);
/* A damaged file is CANDID_ERROR_FORMAT. */
candid_status chair_truth_read(const char *path, struct chair_truth **out, candid_error *error);
candid_status chair_truth_parse(const char *text, size_t size, const char *label, struct chair_truth **out,
                                candid_error *error);

/* Refuses (CANDID_ERROR_ARGUMENT) a truth of another mode, of other word tables, by another tagger, or, where files are
 * named, of other files. `label` is what messages call it. */
candid_status chair_truth_check(const struct chair_truth *truth, const char *label, enum chair_mode mode,
                                const struct vocabulary *vocabulary, const char *tagger,
                                const struct truth_files *files, candid_error *error);

#endif
