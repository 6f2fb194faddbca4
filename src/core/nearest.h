/* "Did you mean": the known name that a misspelt one resembles. */
#ifndef CANDID_CORE_NEAREST_H
#define CANDID_CORE_NEAREST_H

/* Of `candidate` and `best` (a result of an earlier call or NULL) the one closer to `word`, NULL when neither is close:
 * a third of the letters inserted, left out, replaced or swapped with a neighbour. Case does not count. */
const char *nearest_name(const char *word, const char *best, const char *candidate);

#endif
