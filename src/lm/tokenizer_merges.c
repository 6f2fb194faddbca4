/* The order of merges of a tokenizer.json: a hash table from a pair of pieces to its rank. */
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "lm/tokenizer_vocab.h"

#define KEY "tokenizer.ggml.merges"

static uint32_t hash_pair(int32_t left, int32_t right) {
    const uint64_t x = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(x >> 32);
}

int32_t merge_rank(const struct tokenizer *t, int32_t left, int32_t right) {
    uint32_t slot = hash_pair(left, right) & t->merge_mask;
    for (; t->merges[slot].rank >= 0; slot = (slot + 1) & t->merge_mask) {
        if (t->merges[slot].left == left && t->merges[slot].right == right) {
            return t->merges[slot].rank;
        }
    }
    return -1;
}

/* The first of equal merges counts. */
static void insert(struct tokenizer *t, struct merge merge) {
    if (merge_rank(t, merge.left, merge.right) < 0) {
        uint32_t slot = hash_pair(merge.left, merge.right) & t->merge_mask;
        while (t->merges[slot].rank >= 0) {
            slot = (slot + 1) & t->merge_mask;
        }
        t->merges[slot] = merge;
    }
}

candid_status merges_load(const struct gguf *gguf, struct tokenizer *t, candid_error *error) {
    enum gguf_value_type type = GGUF_STRING;
    size_t n = 0;
    if (!gguf_has_key(gguf, KEY)) {
        return CANDID_OK;
    }
    TRY(gguf_get_array(gguf, KEY, &type, &n, error));
    if (type != GGUF_STRING || n > INT32_MAX / 4) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: key " KEY ": expected an array of strings, found %zu of type %d",
                    gguf_path(gguf), n, (int)type);
    }
    size_t n_slots = 16;
    while (n_slots < 2 * n) {
        n_slots *= 2;
    }
    t->merges = malloc(n_slots * sizeof *t->merges);
    if (!t->merges) {
        return fail_memory(error, "the merges of a tokenizer", n_slots * sizeof *t->merges);
    }
    memset(t->merges, 0xff, n_slots * sizeof *t->merges); /* rank -1: empty */
    t->merge_mask = (uint32_t)(n_slots - 1);
    for (size_t i = 0; i < n; i++) {
        size_t size = 0;
        const char *text = gguf_array_string(gguf, KEY, i, &size);
        const char *space = memchr(text, ' ', size);
        const size_t n_left = space ? (size_t)(space - text) : 0;
        const int32_t left = space ? vocab_find(t, text, n_left) : -1;
        const int32_t right = space ? vocab_find(t, space + 1, size - n_left - 1) : -1;
        if (left < 0 || right < 0) {
            return fail(error, CANDID_ERROR_FORMAT,
                        "%s: key " KEY ": expected two pieces of the vocabulary with a space between, found another "
                        "entry at %zu",
                        gguf_path(gguf), i);
        }
        insert(t, (struct merge){left, right, (int32_t)i});
    }
    return CANDID_OK;
}
