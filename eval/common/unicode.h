/*
 * Characters as Python's str methods and regular expressions see them (Unicode 14): what rules written for Python need
 * to come out the same. Text is held as code points; bytes that are no UTF-8 become U+FFFD.
 */
#ifndef CANDID_EVAL_COMMON_UNICODE_H
#define CANDID_EVAL_COMMON_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "candid/candid.h"

/* Start from {0}; release with text32_free. */
struct text32 {
    uint32_t *c; /* [n] */
    size_t n, capacity;
};

/* Room for `n` more code points. */
candid_status text32_reserve(struct text32 *text, size_t n, candid_error *error);

void text32_free(struct text32 *text);

/* Replaces the contents by those of UTF-8 text. */
candid_status text32_decode(struct text32 *text, const char *utf8, size_t size, candid_error *error);

/* str.lower(), but for the final form of the Greek sigma; one character can become two. */
candid_status text32_lower(struct text32 *text, candid_error *error);

/* Writes c as UTF-8, at most 4 bytes; returns their number. */
size_t utf8_put(char *to, uint32_t c);

/* `\w`, `\d` and `\s` of regular expressions, str.isdigit(), str.islower(). */
bool unicode_is_word(uint32_t c);
bool unicode_is_decimal(uint32_t c);
bool unicode_is_space(uint32_t c);
bool unicode_is_digit(uint32_t c);
bool unicode_is_lower(uint32_t c);
uint32_t unicode_lower(uint32_t c);

#endif
