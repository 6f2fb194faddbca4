/* White space as Python's str methods know it. */
#ifndef CANDID_EVAL_COMMON_PYTHON_TEXT_H
#define CANDID_EVAL_COMMON_PYTHON_TEXT_H

#include <stddef.h>

/* Bytes of the white space character that the NUL-terminated UTF-8 text begins with, 0 when it begins with none. */
size_t python_space(const char *text);

/* str.strip() of text[*size], which a NUL follows: where what is left begins; *size becomes its size. */
const char *python_strip(const char *text, size_t *size);

#endif
