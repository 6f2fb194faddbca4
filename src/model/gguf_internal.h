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
    const uint8_t *data; /* the file */
    size_t size;
    bool mapped; /* data is ours to unmap */
    uint32_t version;

    struct gguf_value *values;
    struct gguf_name *value_names;
    size_t n_values;

    struct tensor *tensors;
    struct gguf_name *tensor_names;
    size_t n_tensors;

    struct gguf_arena_block *arena; /* copies of names and strings */
};

/* Printable copies of names from the file, for messages. */
struct gguf_text {
    char s[112];
};

/* `size` bytes as printable UTF-8: control characters and invalid bytes become '?', "…" marks a cut. Returns t->s. */
const char *gguf_printable(struct gguf_text *t, const char *bytes, size_t size);

/* The same into any buffer (capacity >= 4). Returns the length. */
size_t gguf_print_text(char *buffer, size_t capacity, const char *bytes, size_t size);

/* Index of `name` in the n sorted names, or SIZE_MAX. */
size_t gguf_find_name(const struct gguf_name *names, size_t n, const char *name);

/* Bytes of one value of a fixed-size type; 0 for strings and arrays. */
size_t gguf_value_size(enum gguf_value_type type);

#endif
