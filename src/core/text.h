/* Foreign text made safe to print. */
#ifndef CANDID_CORE_TEXT_H
#define CANDID_CORE_TEXT_H

#include <stddef.h>

/* Length of the valid UTF-8 sequence at the first of n bytes (n > 0), or 0 when it is none. */
size_t text_utf8_length(const char *bytes, size_t n);

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
