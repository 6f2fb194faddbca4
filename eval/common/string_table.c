#include "eval/common/string_table.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"

struct string_slot {
    const char *key; /* NULL: empty */
    uint32_t size, value;
    uint64_t hash;
};

/* FNV-1a with a final mix, because slots are chosen by the low bits. */
static uint64_t hash_of(const char *key, size_t size) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++) {
        h = (h ^ (uint8_t)key[i]) * 0x100000001b3u;
    }
    return h ^ h >> 32;
}

/* The slot of a key, or the empty one where it belongs; the table has at least one empty slot. */
static struct string_slot *slot_of(const struct string_table *table, const char *key, size_t size, uint64_t hash) {
    for (size_t at = hash & (table->capacity - 1);; at = (at + 1) & (table->capacity - 1)) {
        struct string_slot *slot = &table->slots[at];
        if (!slot->key || (slot->hash == hash && slot->size == size && memcmp(slot->key, key, size) == 0)) {
            return slot;
        }
    }
}

candid_status string_table_reserve(struct string_table *table, size_t n, candid_error *error) {
    size_t capacity = table->capacity > 0 ? table->capacity : 16;
    while (capacity < 2 * n) {
        capacity *= 2;
    }
    if (capacity == table->capacity) {
        return CANDID_OK;
    }
    struct string_table grown = {.n = table->n, .capacity = capacity, .slots = calloc(capacity, sizeof *grown.slots)};
    if (!grown.slots) {
        return fail_memory(error, "a table of words", capacity * sizeof *grown.slots);
    }
    for (size_t i = 0; i < table->capacity; i++) {
        const struct string_slot *slot = &table->slots[i];
        if (slot->key) {
            *slot_of(&grown, slot->key, slot->size, slot->hash) = *slot;
        }
    }
    free(table->slots);
    *table = grown;
    return CANDID_OK;
}

uint32_t string_table_find(const struct string_table *table, const char *key, size_t size) {
    if (table->capacity == 0) {
        return STRING_TABLE_NONE;
    }
    const struct string_slot *slot = slot_of(table, key, size, hash_of(key, size));
    return slot->key ? slot->value : STRING_TABLE_NONE;
}

candid_status string_table_put(struct string_table *table, const char *key, size_t size, uint32_t value,
                               candid_error *error) {
    TRY(string_table_reserve(table, table->n + 1, error));
    const uint64_t hash = hash_of(key, size);
    struct string_slot *slot = slot_of(table, key, size, hash);
    table->n += slot->key == NULL;
    *slot = (struct string_slot){.key = key, .size = (uint32_t)size, .value = value, .hash = hash};
    return CANDID_OK;
}

void string_table_free(struct string_table *table) {
    free(table->slots);
    *table = (struct string_table){0};
}
