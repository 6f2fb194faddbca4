/* Words of a verdict found in the answer they were said in. */
#ifndef CANDID_EVAL_REPORT_MARKS_H
#define CANDID_EVAL_REPORT_MARKS_H

#include <cJSON.h>
#include <stdbool.h>
#include <stddef.h>

struct mark {
    size_t begin, end; /* bytes of the answer */
    bool hallucinated;
};

/*
 * Marks of the verdict's words in the answer, in order, each found behind the one before: CHAIR's objects, AMBER's
 * nouns. Letters match in both cases, the blank of a word of two any white space; whole words only. A word that is not
 * found is left out. Returns how many of `capacity` were filled.
 */
size_t marks_find(const char *answer, const cJSON *verdict, struct mark *marks, size_t capacity);

#endif
