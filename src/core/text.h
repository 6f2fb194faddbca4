/* Foreign text made safe to print. */
#ifndef CANDID_CORE_TEXT_H
#define CANDID_CORE_TEXT_H

#include <stddef.h>

/* Copies `size` bytes as printable UTF-8: control characters and invalid bytes become '?', "…" marks a cut.
 * capacity >= 4. NUL-terminated; returns the length. */
size_t text_print(char *buffer, size_t capacity, const char *bytes, size_t size);

/* A name from a file, for messages. */
struct printable {
    char s[112];
};

/* Returns p->s. */
const char *printable(struct printable *p, const char *bytes, size_t size);
const char *printable_string(struct printable *p, const char *string);

#endif
