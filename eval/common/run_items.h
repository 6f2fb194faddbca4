/* The answers of candid eval: JSON lines with index, id, split, image, question, label, answer or error. */
#ifndef CANDID_EVAL_COMMON_RUN_ITEMS_H
#define CANDID_EVAL_COMMON_RUN_ITEMS_H

#include "eval/common/items.h"

/* Appends the items of a run in the order of their index, and the file to items->sources. An item with "error" has no
 * answer; one without both, or two with the same index, are a CANDID_ERROR_FORMAT. */
candid_status run_read_items(const char *path, struct eval_items *items, candid_error *error);

/* Whether the file's first object has an "index", as the answers of candid eval do. */
candid_status run_recognise(const char *path, bool *is_run, candid_error *error);

#endif
