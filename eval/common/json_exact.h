/* JSON text whose numbers read back as the same doubles. cJSON prints 15 digits where the rest is within a rounding
 * error, which is not enough for scores that are compared to the last digit. */
#ifndef CANDID_EVAL_COMMON_JSON_EXACT_H
#define CANDID_EVAL_COMMON_JSON_EXACT_H

#include <cJSON.h>
#include <stdbool.h>

/* The text of `item`, NULL when there is no memory; release with cJSON_free. Integers have no ".0"; what is not finite
 * is null. */
char *json_print_exact(const cJSON *item, bool formatted);

#endif
