/* What the two halves of the GGUF reader share: gguf.c builds this, gguf_values.c answers questions about keys. */
#ifndef CANDID_MODEL_GGUF_INTERNAL_H
#define CANDID_MODEL_GGUF_INTERNAL_H

#include "model/gguf.h"

/* One key/value pair. */
struct gguf_value {
    const char *key; /* NUL-terminated, in the arena */
    enum gguf_value_type type;
    enum gguf_value_type element; /* arrays: type of the elements */
    uint64_t count;               /* arrays: elements; strings: bytes */
    const uint8_t *data;          /* the value, or first element; strings: first byte. Mapped, any alignment */
    const char *string;           /* strings without NUL inside: NUL-terminated copy in the arena; else NULL */
    uint64_t *offsets;            /* string arrays: where in the file each element's length stands */
};

/* Sorted by name, so that look-ups and the search for duplicates cost n log n however the names were chosen. */
struct gguf_name {
    const char *name;
    size_t index;
};

struct gguf_arena_block;

struct gguf {
    char path[208];      /* for messages */
    const uint8_t *data; /* the file; of an assembled model the header made for it */
    size_t size;
    size_t file_size;        /* bytes of all files behind the model */
    bool mapped;             /* data is ours to unmap */
    bool assembled;          /* data is ours to free, owner ours to release */
    struct gguf_owner owner; /* assembled only */
    uint32_t version;

    struct gguf_value *values;
    struct gguf_name *value_names;
    size_t n_values;

    struct tensor *tensors;
    struct gguf_name *tensor_names;
    size_t n_tensors;

    struct gguf_arena_block *arena; /* copies of names and strings */
};

/* Index of `name` in the n sorted names, or SIZE_MAX. */
size_t gguf_find_name(const struct gguf_name *names, size_t n, const char *name);

/* Bytes of one value of a fixed-size type; 0 for strings and arrays. */
size_t gguf_value_size(enum gguf_value_type type);

#endif
