/* What an option admits: as a check, in words, and whether a table of methods keeps to its own rules. */
#ifndef CANDID_INTERVENTIONS_OPTION_H
#define CANDID_INTERVENTIONS_OPTION_H

#include "interventions/method.h"

enum preset { PRESET_RECOMMENDED, PRESET_PAPER, PRESET_CODE, PRESET_COUNT };
extern const char *const preset_names[PRESET_COUNT];

/* Largest number in pairs of OPTION_HEADS: no model has as many layers or heads. */
#define OPTION_MAX_INDEX 9999

/* Keys of a method's object that are not options: "preset", "enabled" and texts for readers. NULL-terminated. */
extern const char *const builtin_keys[];

/* JSON text of the value that a preset gives the option. */
const char *option_default(const struct method_option *o, enum preset preset);

/* Whether one of the option's defaults is this JSON text: "null" and "\"auto\"" are admitted where they are a default.
 */
bool option_has_default(const struct method_option *o, const char *json);
bool option_admits_null(const struct method_option *o);

/* Whether `value` is admitted. If not, *element (may be NULL) tells which element of a list is wrong, -1: all of it. */
bool option_accepts(const struct method_option *o, const cJSON *value, int *element);

/* What is admitted, such as `a number from 0 to 1`; with `element`, in a list. Returns buffer. */
#define OPTION_EXPECTED 200
const char *option_expected(const struct method_option *o, bool element, char buffer[OPTION_EXPECTED]);

/* Checks a NULL-terminated table as its users rely on it: names unique and not taken, texts present, ranges not empty,
 * every default valid. A failure is a CANDID_ERROR_INTERNAL that names method and option. */
candid_status methods_check(const struct method *const *table, candid_error *error);

#endif
