/* Strings to numbers: a hash table whose keys belong to the caller. */
#ifndef CANDID_EVAL_COMMON_STRING_TABLE_H
#define CANDID_EVAL_COMMON_STRING_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "candid/candid.h"

#define STRING_TABLE_NONE UINT32_MAX

/* Start from {0}; release with string_table_free. */
struct string_table {
    struct string_slot *slots; /* [capacity], a power of two */
    size_t n, capacity;
};

/* Room for `n` keys in all. */
candid_status string_table_reserve(struct string_table *table, size_t n, candid_error *error);

/* The value of a key, STRING_TABLE_NONE when it is not there. */
uint32_t string_table_find(const struct string_table *table, const char *key, size_t size);

/* Adds a key that is not there yet, else changes its value. The bytes must outlive the table. */
candid_status string_table_put(struct string_table *table, const char *key, size_t size, uint32_t value,
                               candid_error *error);

void string_table_free(struct string_table *table);

#endif
