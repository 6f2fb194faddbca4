/* Leading questions made neutral, by rules. */
#ifndef CANDID_INTERVENTIONS_NEUTRAL_H
#define CANDID_INTERVENTIONS_NEUTRAL_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Rewrites the first question of a request so that it suggests no answer:
 *   "Isn't there a dog in the picture?"        -> "Is there a dog in the picture?"
 *   "There is a dog in the picture, right?"    -> "Is there a dog in the picture?"
 *   "I think the cup is red. Isn't it?"        -> "Is it true or not that the cup is red?"
 *   "Surely you can see a cat, can't you?"     -> "Is it true or not that you can see a cat?"
 * What stands before and after it stays ("<image>\n", "Please answer with one word."). Returns the new request, which
 * the caller frees, NULL without memory; *changed: whether the question was leading at all.
 */
char *neutral_request(const char *request, bool *changed);

#endif
