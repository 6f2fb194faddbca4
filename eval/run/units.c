/* Items by image. */
#include "eval/run/units.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"

candid_status eval_prompt_of(const struct eval_prompt *p, const struct eval_item *item, char **out,
                             candid_error *error) {
    const char *text = item->question ? item->question : p->prompt, *suffix = item->question ? p->suffix : "";
    if (!text) {
        return fail(error, CANDID_ERROR_ARGUMENT, "item %s has no question, and no prompt is given", item->id);
    }
    const size_t size = strlen(text) + strlen(suffix) + 1;
    *out = malloc(size);
    if (!*out) {
        return fail_memory(error, "a prompt", size);
    }
    char *to = *out;
    const char *cut = item->question && p->cut && p->cut[0] ? p->cut : NULL;
    for (const char *place; cut && (place = strstr(text, cut)); text = place + strlen(cut)) {
        memcpy(to, text, (size_t)(place - text));
        to += place - text;
    }
    strcpy(to, text);
    strcat(to, suffix);
    return CANDID_OK;
}

/* An index with what it is sorted by. */
struct key {
    const char *image;
    size_t index;
};

static int by_image(const void *a, const void *b) {
    const struct key *x = a, *y = b;
    const int order = strcmp(x->image, y->image);
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

static int by_first_item(const void *a, const void *b) {
    const struct eval_unit *x = a, *y = b;
    return (x->items[0] > y->items[0]) - (x->items[0] < y->items[0]);
}

static const char *question_of(const struct eval_items *items, size_t index) {
    const char *question = items->items[index].question;
    return question ? question : "";
}

static void number_questions(const struct eval_items *items, struct eval_unit *u) {
    for (size_t i = 0; i < u->n_items; i++) {
        size_t k = 0;
        while (k < i && strcmp(question_of(items, u->items[k]), question_of(items, u->items[i])) != 0) {
            k++;
        }
        u->asked[i] = k < i ? u->asked[k] : u->n_asked++;
    }
}

candid_status units_make(const struct eval_items *items, size_t shard, size_t n_shards, struct eval_units *out,
                         candid_error *error) {
    const size_t n = items->n;
    struct key *keys = malloc((n + 1) * sizeof *keys);
    *out = (struct eval_units){.units = calloc(n + 1, sizeof *out->units),
                               .memory = malloc((2 * n + 1) * sizeof *out->memory)};
    if (!keys || !out->units || !out->memory) {
        free(keys);
        units_free(out);
        return fail_memory(error, "the questions", n * sizeof *keys);
    }
    for (size_t i = 0; i < n; i++) {
        keys[i] = (struct key){items->items[i].image, i};
    }
    qsort(keys, n, sizeof *keys, by_image);
    for (size_t i = 0; i < n; i++) {
        struct eval_unit *u = out->n > 0 ? &out->units[out->n - 1] : NULL;
        if (!u || strcmp(u->image, keys[i].image) != 0) {
            u = &out->units[out->n++];
            *u = (struct eval_unit){.image = keys[i].image, .items = out->memory + i, .asked = out->memory + n + i};
        }
        u->items[u->n_items++] = keys[i].index;
    }
    free(keys);
    qsort(out->units, out->n, sizeof *out->units, by_first_item);
    size_t kept = 0;
    for (size_t i = shard - 1; i < out->n; i += n_shards) {
        out->units[kept++] = out->units[i];
    }
    out->n = kept;
    for (size_t i = 0; i < out->n; i++) {
        number_questions(items, &out->units[i]);
    }
    return CANDID_OK;
}

void units_repeat(struct eval_units *units) {
    for (size_t i = 0; i < units->n; i++) {
        struct eval_unit *u = &units->units[i];
        u->n_asked = u->n_items;
        for (size_t k = 0; k < u->n_items; k++) {
            u->asked[k] = k;
        }
    }
}

void units_free(struct eval_units *units) {
    free(units->units);
    free(units->memory);
    *units = (struct eval_units){0};
}
