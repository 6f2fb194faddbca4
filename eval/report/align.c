/* Questions of several runs matched to each other. */
#include "eval/report/align.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/status.h"
#include "core/text.h"
#include "eval/report/rules.h"

/* A question of a run, findable among those of others. */
struct key {
    const struct eval_item *item;
    size_t at, repeat; /* where it stands; how many equal ones stand before */
};

static int by_text(const char *a, const char *b) {
    return strcmp(a ? a : "", b ? b : "");
}

static int by_question(const struct key *a, const struct key *b) {
    const int split = by_text(a->item->split, b->item->split), image = by_text(a->item->image, b->item->image);
    return split ? split : image ? image : by_text(a->item->question, b->item->question);
}

static int by_place(const void *a, const void *b) {
    const struct key *x = a, *y = b;
    const int order = by_question(x, y);
    return order ? order : x->at < y->at ? -1 : x->at > y->at;
}

static int by_key(const void *a, const void *b) {
    const struct key *x = a, *y = b;
    const int order = by_question(x, y);
    return order ? order : x->repeat < y->repeat ? -1 : x->repeat > y->repeat;
}

static bool is_answered(const struct report_run *run, size_t i) {
    return run->verdicts[i] || (run->questions.items[i].answer && !report_summary(run, "scored"));
}

struct keys {
    struct key *key; /* [n] sorted */
    size_t n;        /* questions that the run answered */
};

static candid_status keys_make(const struct report_run *run, struct keys *out, candid_error *error) {
    out->key = malloc((run->questions.n + 1) * sizeof *out->key);
    if (!out->key) {
        return fail_memory(error, "the questions", (run->questions.n + 1) * sizeof *out->key);
    }
    size_t n = 0;
    for (size_t i = 0; i < run->questions.n; i++) {
        out->key[n++] = (struct key){&run->questions.items[i], i, 0};
    }
    if (n > 0) {
        qsort(out->key, n, sizeof *out->key, by_place);
    }
    for (size_t i = 1; i < n; i++) {
        out->key[i].repeat = by_question(&out->key[i], &out->key[i - 1]) == 0 ? out->key[i - 1].repeat + 1 : 0;
    }
    for (size_t i = 0; i < n; i++) { /* the unanswered go after the repeats are numbered */
        if (is_answered(run, out->key[i].at)) {
            out->key[out->n++] = out->key[i];
        }
    }
    return CANDID_OK;
}

/* The first run with answers, SIZE_MAX when there is none. */
static size_t first_run(const struct report_group *g) {
    for (size_t r = 0; r < g->n_runs; r++) {
        if (g->runs[r]->has_answers) {
            return r;
        }
    }
    return SIZE_MAX;
}

static candid_status mismatch(const struct report_group *g, const struct keys *keys, size_t run, candid_error *error) {
    const size_t first = first_run(g);
    const struct report_run *a = g->runs[first], *b = g->runs[run];
    char labels[2][160];
    struct printable image;
    for (size_t i = 0; i < keys[run].n; i++) {
        const struct eval_item *item = keys[run].key[i].item;
        for (size_t r = 0; r < g->n_runs; r++) {
            if (g->runs[r]->has_answers &&
                !bsearch(&keys[run].key[i], keys[r].key, keys[r].n, sizeof(struct key), by_key)) {
                return fail(error, CANDID_ERROR_ARGUMENT,
                            "%s and %s did not answer the same questions (%zu and %zu answers; a question about \"%s\" "
                            "is in the first alone): compare them on what they share by --common",
                            file_label(b->path, labels[0], sizeof labels[0]),
                            file_label(g->runs[r]->path, labels[1], sizeof labels[1]), keys[run].n, keys[r].n,
                            printable_string(&image, item->image));
            }
        }
    }
    return fail(error, CANDID_ERROR_ARGUMENT, "%s and %s did not answer the same questions: compare them by --common",
                file_label(b->path, labels[0], sizeof labels[0]), file_label(a->path, labels[1], sizeof labels[1]));
}

static int by_number(const void *a, const void *b) {
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return x < y ? -1 : x > y;
}

/* g->at from the keys of all runs: in the order of the first run. */
static candid_status match(struct report_group *g, const struct keys *keys, size_t first, candid_error *error) {
    const size_t room = keys[first].n + 1;
    size_t *order = malloc(room * sizeof *order); /* places in the first run of what all have */
    const struct key **of = calloc(g->runs[first]->questions.n + 1, sizeof *of); /* the key of a place */
    candid_status status = CANDID_OK;
    if (!order || !of) {
        status = fail_memory(error, "the questions", room * sizeof *order);
        goto end;
    }
    for (size_t i = 0; i < keys[first].n; i++) {
        bool everywhere = true;
        for (size_t r = 0; r < g->n_runs && everywhere; r++) {
            everywhere = !g->runs[r]->has_answers ||
                         bsearch(&keys[first].key[i], keys[r].key, keys[r].n, sizeof(struct key), by_key);
        }
        if (everywhere) {
            order[g->n_items++] = keys[first].key[i].at;
            of[keys[first].key[i].at] = &keys[first].key[i];
        }
    }
    if (g->n_items > 0) {
        qsort(order, g->n_items, sizeof *order, by_number);
    }
    g->at = calloc(g->n_runs * g->n_items + 1, sizeof *g->at);
    if (!g->at) {
        status = fail_memory(error, "the questions", g->n_runs * g->n_items * sizeof *g->at);
        goto end;
    }
    for (size_t r = 0; r < g->n_runs; r++) {
        for (size_t i = 0; i < g->n_items && g->runs[r]->has_answers; i++) {
            const struct key *found = bsearch(of[order[i]], keys[r].key, keys[r].n, sizeof(struct key), by_key);
            g->at[r * g->n_items + i] = found->at;
        }
    }
end:
    free(order);
    free(of);
    return status;
}

/* ---- splits and images --------------------------------------------------------------------------- */

static candid_status add_split(struct report_group *g, const char *name, size_t *out, candid_error *error) {
    for (size_t s = 0; s < g->n_splits; s++) {
        if (strcmp(g->splits[s], name) == 0) {
            *out = s;
            return CANDID_OK;
        }
    }
    const char **grown = realloc(g->splits, (g->n_splits + 1) * sizeof *grown);
    if (!grown) {
        return fail_memory(error, "the splits", (g->n_splits + 1) * sizeof *grown);
    }
    g->splits = grown;
    grown[g->n_splits] = name;
    *out = g->n_splits++;
    return CANDID_OK;
}

/* Splits of the questions, or of the scores where no run has answers. */
static candid_status find_splits(struct report_group *g, size_t first, candid_error *error) {
    size_t unused;
    for (size_t i = 0; i < g->n_items; i++) {
        const char *split = report_item(g, first, i)->split;
        TRY(add_split(g, split ? split : g->rules->yes_no ? "all" : "", &g->split[i], error));
    }
    const cJSON *splits = report_summary(g->runs[0], "scores.splits");
    splits = splits ? splits : report_summary(g->runs[0], "scores.subtasks"); /* POPE's, else MME's */
    for (const cJSON *s = first == SIZE_MAX && splits ? splits->child : NULL; s; s = s->next) {
        TRY(add_split(g, s->string, &unused, error));
    }
    return CANDID_OK;
}

struct named {
    const char *image, *split;
    size_t item;
};

static int by_image(const void *a, const void *b) {
    const struct named *x = a, *y = b;
    const int image = strcmp(x->image, y->image);
    return image ? image : strcmp(x->split, y->split);
}

/* Numbers the images. */
static candid_status find_units(struct report_group *g, size_t first, candid_error *error) {
    struct named *all = malloc((g->n_items + 1) * sizeof *all);
    if (!all) {
        return fail_memory(error, "the images", (g->n_items + 1) * sizeof *all);
    }
    for (size_t i = 0; i < g->n_items; i++) {
        all[i] =
            (struct named){report_item(g, first, i)->image, g->rules->unit_is_pair ? g->splits[g->split[i]] : "", i};
    }
    if (g->n_items > 0) {
        qsort(all, g->n_items, sizeof *all, by_image);
    }
    for (size_t i = 0; i < g->n_items; i++) {
        g->n_units += i == 0 || by_image(&all[i - 1], &all[i]) != 0;
        g->unit[all[i].item] = g->n_units - 1;
    }
    free(all);
    return CANDID_OK;
}

/* ---- group --------------------------------------------------------------------------------------- */

static candid_status align(struct report_group *g, struct keys *keys, bool common, candid_error *error) {
    const size_t first = first_run(g);
    if (first != SIZE_MAX) {
        for (size_t r = 0; r < g->n_runs; r++) {
            if (g->runs[r]->has_answers) {
                TRY(keys_make(g->runs[r], &keys[r], error));
            }
        }
        TRY(match(g, keys, first, error));
        for (size_t r = 0; r < g->n_runs; r++) {
            const size_t rest = keys[r].n - (g->runs[r]->has_answers ? g->n_items : 0);
            if (rest > 0 && !common) {
                return mismatch(g, keys, r, error);
            }
            if (rest > 0) {
                TRY(align_warn(g, error,
                               "%s answered %zu more question%s that not all runs answered; the numbers are of the "
                               "%zu that all share.",
                               g->runs[r]->name, rest, rest > 1 ? "s" : "", g->n_items));
            }
        }
        if (g->n_items == 0) {
            char label[160];
            return fail(error, CANDID_ERROR_ARGUMENT, "%s: expected answers that can be compared, found none",
                        file_label(g->runs[first]->path, label, sizeof label));
        }
    }
    g->unit = calloc(g->n_items + 1, sizeof *g->unit);
    g->split = calloc(g->n_items + 1, sizeof *g->split);
    if (!g->unit || !g->split) {
        return fail_memory(error, "the questions", g->n_items * sizeof *g->unit);
    }
    TRY(find_splits(g, first, error));
    return find_units(g, first, error);
}

candid_status align_group(struct report_group *g, bool common, candid_error *error) {
    struct keys *keys = calloc(g->n_runs, sizeof *keys);
    const candid_status status =
        keys ? align(g, keys, common, error) : fail_memory(error, "the runs", g->n_runs * sizeof *keys);
    for (size_t r = 0; keys && r < g->n_runs; r++) {
        free(keys[r].key);
    }
    free(keys);
    return status;
}
