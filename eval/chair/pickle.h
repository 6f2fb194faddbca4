/*
 * Python pickles as inert values: a reader for the opcodes of NLTK's data files (protocols 0 to 4, plain containers,
 * text and numbers). Nothing is ever called: a pickled object is kept as the name of its class with its arguments and
 * its state, and only the names that the caller allows are accepted. Everything else is CANDID_ERROR_FORMAT.
 */
#ifndef CANDID_EVAL_CHAIR_PICKLE_H
#define CANDID_EVAL_CHAIR_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "candid/candid.h"

enum pickle_kind {
    PICKLE_NONE,
    PICKLE_BOOL,
    PICKLE_INTEGER,
    PICKLE_FLOAT,
    PICKLE_TEXT,
    PICKLE_DICT,     /* children: key, value, key, value… */
    PICKLE_SEQUENCE, /* list, tuple or set */
    PICKLE_NAME,     /* "module name" of a class */
    PICKLE_OBJECT,   /* children: class, arguments, then keys and values of its state and of its items */
};

struct pickle_value {
    enum pickle_kind kind;
    int64_t integer;
    double number;
    const char *text; /* in the pickle's bytes, not terminated */
    size_t size;
    uint32_t *children; /* [n] indices in pickle->values */
    size_t n, capacity;
};

struct pickle {
    struct pickle_value *values;
    size_t n, capacity;
    uint32_t root;
    const char *label; /* the file's name for messages */
};

/* Reads `size` bytes, which must stay as long as the pickle. allowed: "module name" of each class, the list ends with
 * NULL. On an error *out needs no pickle_free. */
candid_status pickle_read(const uint8_t *bytes, size_t size, const char *label, const char *const *allowed,
                          struct pickle *out, candid_error *error);
void pickle_free(struct pickle *pickle);

static inline const struct pickle_value *pickle_child(const struct pickle *p, const struct pickle_value *v, size_t i) {
    return &p->values[v->children[i]];
}

bool pickle_is_text(const struct pickle_value *v, const char *text);

/* The value of a text key of a dictionary or of an object's state, NULL when there is none. */
const struct pickle_value *pickle_find(const struct pickle *p, const struct pickle_value *v, const char *key);

#endif
