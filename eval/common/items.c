#include "eval/common/items.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"

/* Strings are carved from blocks, so that thousands of them cost few allocations. */
struct text_block {
    struct text_block *next;
    size_t used, size;
    char bytes[];
};

#define BLOCK_BYTES (64 * 1024)

const char *items_text(struct eval_items *list, const char *text) {
    if (!text) {
        return NULL;
    }
    const size_t size = strlen(text) + 1;
    struct text_block *block = list->text;
    if (!block || block->size - block->used < size) {
        const size_t room = size > BLOCK_BYTES ? size : BLOCK_BYTES;
        block = malloc(sizeof *block + room);
        if (!block) {
            return NULL;
        }
        *block = (struct text_block){.next = list->text, .size = room};
        list->text = block;
    }
    char *copy = memcpy(block->bytes + block->used, text, size);
    block->used += size;
    return copy;
}

/* Copies *from to *to; false when there is no memory. */
static bool copy_text(struct eval_items *list, const char **to, const char *from) {
    *to = items_text(list, from);
    return *to || !from;
}

candid_status items_add(struct eval_items *list, const struct eval_item *item, candid_error *error) {
    if (list->n == list->capacity) {
        const size_t capacity = list->capacity > 0 ? 2 * list->capacity : 256;
        struct eval_item *grown = realloc(list->items, capacity * sizeof *grown);
        if (!grown) {
            return fail_memory(error, "the questions", capacity * sizeof *grown);
        }
        list->items = grown;
        list->capacity = capacity;
    }
    struct eval_item *to = &list->items[list->n];
    if (!copy_text(list, &to->id, item->id) || !copy_text(list, &to->image, item->image) ||
        !copy_text(list, &to->split, item->split) || !copy_text(list, &to->question, item->question) ||
        !copy_text(list, &to->label, item->label) || !copy_text(list, &to->answer, item->answer)) {
        return fail_memory(error, "a question", BLOCK_BYTES);
    }
    list->n++;
    return CANDID_OK;
}

candid_status items_add_source(struct eval_items *list, const struct eval_source *source, candid_error *error) {
    struct eval_source *grown = realloc(list->sources, (list->n_sources + 1) * sizeof *grown);
    if (!grown) {
        return fail_memory(error, "a file's name", (list->n_sources + 1) * sizeof *grown);
    }
    list->sources = grown;
    struct eval_source *to = &grown[list->n_sources];
    *to = *source;
    if (!copy_text(list, &to->path, source->path) || !copy_text(list, &to->known_as, source->known_as)) {
        return fail_memory(error, "a file's name", BLOCK_BYTES);
    }
    list->n_sources++;
    return CANDID_OK;
}

void items_free(struct eval_items *list) {
    while (list->text) {
        struct text_block *next = list->text->next;
        free(list->text);
        list->text = next;
    }
    free(list->items);
    free(list->sources);
    *list = (struct eval_items){0};
}

void scores_free(struct eval_scores *scores) {
    cJSON_Delete(scores->summary);
    for (size_t i = 0; scores->verdicts && i < scores->n; i++) {
        cJSON_Delete(scores->verdicts[i]);
    }
    free(scores->verdicts);
    *scores = (struct eval_scores){0};
}
