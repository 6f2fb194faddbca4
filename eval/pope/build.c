/* The official algorithm of POPE, step by step. */
#include "eval/pope/build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "core/text.h"

candid_status pope_sample_images(const struct pope_truth *truth, size_t n_images, size_t per_image, struct mt19937 *r,
                                 size_t **out, size_t *n_out, candid_error *error) {
    size_t n = 0;
    size_t *enough = malloc((truth->n + 1) * sizeof *enough), *drawn = malloc((n_images + 1) * sizeof *drawn);
    candid_status status =
        enough && drawn ? CANDID_OK : fail_memory(error, "a list of images", truth->n * sizeof *enough);
    for (size_t i = 0; status == CANDID_OK && i < truth->n; i++) {
        enough[n] = i;
        n += truth->images[i].n >= per_image;
    }
    if (status == CANDID_OK && (n == 0 || n < n_images)) {
        status = fail(error, CANDID_ERROR_FORMAT,
                      "expected %zu images with at least %zu objects each, found %zu of %zu images",
                      n_images ? n_images : 1, per_image, n, truth->n);
    }
    if (status == CANDID_OK && n_images > 0) {
        status = mt19937_sample(r, n, n_images, drawn, error);
    }
    for (size_t i = 0; status == CANDID_OK && i < n_images; i++) {
        drawn[i] = enough[drawn[i]];
    }
    const bool all = n_images == 0;
    free(all ? drawn : enough);
    if (status != CANDID_OK) {
        free(all ? enough : drawn);
        return status;
    }
    *out = all ? enough : drawn;
    *n_out = all ? n : n_images;
    return CANDID_OK;
}

#define MAX_OBJECTS 4000 /* the co-occurrence table is quadratic */

/* A name with how often it was counted. */
struct counted {
    int object, count;
};

/* The tables of a build. Objects are indices of truth->objects. */
struct tables {
    struct counted *popular;  /* [n_known] most frequent first */
    int *known;               /* [n_known] in order of first occurrence: what the random draws are from */
    struct counted *together; /* [n_objects * n_objects] row o: partners of o, most frequent first */
    int *n_together;          /* [n_objects] */
    int n_known, n_objects;
};

static struct counted *count_one(struct counted *list, int *n, int object) {
    for (int i = 0; i < *n; i++) {
        if (list[i].object == object) {
            list[i].count++;
            return &list[i];
        }
    }
    list[*n] = (struct counted){object, 1};
    return &list[(*n)++];
}

/* Most frequent first, stable. */
static void sort_counted(struct counted *list, int n) {
    for (int i = 1; i < n; i++) {
        const struct counted moved = list[i];
        int k = i;
        for (; k > 0 && list[k - 1].count < moved.count; k--) {
            list[k] = list[k - 1];
        }
        list[k] = moved;
    }
}

static void count_image(struct tables *t, const struct pope_truth_image *image) {
    for (size_t a = 0; a < image->n; a++) {
        const int object = image->objects[a];
        count_one(t->popular, &t->n_known, object);
        for (size_t b = 0; b < image->n; b++) {
            if (image->objects[b] != object) {
                count_one(t->together + (size_t)object * (size_t)t->n_objects, &t->n_together[object],
                          image->objects[b]);
            }
        }
    }
}

static void tables_free(struct tables *t) {
    free(t->popular);
    free(t->known);
    free(t->together);
    free(t->n_together);
}

/* *t must be released with tables_free, whatever the status. */
static candid_status tables_make(const struct pope_truth *truth, const size_t *images, size_t n_images,
                                 struct tables *t, candid_error *error) {
    const size_t n = truth->n_objects;
    if (n > MAX_OBJECTS) {
        return fail(error, CANDID_ERROR_FORMAT, "expected at most %d different objects, found %zu", MAX_OBJECTS, n);
    }
    *t = (struct tables){.n_objects = (int)n,
                         .popular = calloc(n + 1, sizeof *t->popular),
                         .known = calloc(n + 1, sizeof *t->known),
                         .together = calloc(n * n + 1, sizeof *t->together),
                         .n_together = calloc(n + 1, sizeof *t->n_together)};
    if (!t->popular || !t->known || !t->together || !t->n_together) {
        return fail_memory(error, "the co-occurrence of objects", n * n * sizeof *t->together);
    }
    for (size_t i = 0; i < n_images; i++) {
        count_image(t, &truth->images[images[i]]);
    }
    for (int i = 0; i < t->n_known; i++) {
        t->known[i] = t->popular[i].object;
    }
    sort_counted(t->popular, t->n_known);
    for (size_t o = 0; o < n; o++) {
        sort_counted(t->together + o * n, t->n_together[o]);
    }
    return CANDID_OK;
}

/* Whether the image has the object, or it was asked about already. */
static bool taken(const struct pope_truth_image *image, const int *history, size_t n_history, int object) {
    for (size_t i = 0; i < image->n; i++) {
        if (image->objects[i] == object) {
            return true;
        }
    }
    for (size_t i = 0; i < n_history; i++) {
        if (history[i] == object) {
            return true;
        }
    }
    return false;
}

/* An object that the image does not have; -1: none is left. */
static int choose_negative(const struct tables *t, const struct pope_truth_image *image, enum pope_split split,
                           int positive, const int *history, size_t n_history, struct mt19937 *r) {
    const struct counted *list = split == POPE_POPULAR       ? t->popular
                                 : split == POPE_ADVERSARIAL ? t->together + (size_t)positive * (size_t)t->n_objects
                                                             : NULL;
    const int n = split == POPE_POPULAR ? t->n_known : split == POPE_ADVERSARIAL ? t->n_together[positive] : 0;
    for (int i = 0; i < n; i++) {
        if (!taken(image, history, n_history, list[i].object)) {
            return list[i].object;
        }
    }
    bool left = false;
    for (int i = 0; i < t->n_known && !left; i++) {
        left = !taken(image, history, n_history, t->known[i]);
    }
    while (left) {
        const int drawn = t->known[mt19937_below(r, (size_t)t->n_known)];
        if (!taken(image, history, n_history, drawn)) {
            return drawn;
        }
    }
    return -1;
}

/* Where the article before the object is in the template, NULL: nowhere. */
static const char *find_article(const char *template, const char *slot) {
    const char *a = slot - template >= 2 && slot[-1] == ' ' ? slot - 2 : NULL;
    return a && (*a == 'a' || *a == 'A') && (a == template || a[-1] == ' ') ? a : NULL;
}

/* The question as malloc'd text. For "an" the official program doubles every "a" of the template: "imange". */
static char *make_text(const char *template, const char *object, bool typo) {
    const bool an = strchr("aeiou", object[0]) != NULL;
    const char *slot = strstr(template, "{}"), *article = find_article(template, slot);
    char *text = malloc(2 * strlen(template) + strlen(object) + 1), *to = text;
    for (const char *c = template; text && *c; c++) {
        if (c == slot) {
            to = stpcpy(to, object);
            c++;
            continue;
        }
        *to++ = *c;
        if (an && (typo ? *c == 'a' : c == article)) {
            *to++ = 'n';
        }
    }
    if (text) {
        *to = '\0';
    }
    return text;
}

static candid_status add_question(const struct pope_truth *truth, const struct pope_truth_image *image, int object,
                                  const char *label, const struct pope_build *build, struct eval_items *items,
                                  size_t number, candid_error *error) {
    static const char *const splits[] = {"random", "popular", "adversarial"};
    char id[24];
    snprintf(id, sizeof id, "%zu", number);
    char *text = make_text(build->template ? build->template : POPE_TEMPLATE, truth->objects[object], build->typo);
    if (!text) {
        return fail_memory(error, "a question", strlen(truth->objects[object]));
    }
    const struct eval_item item = {
        .id = id, .image = image->name, .split = splits[build->split], .question = text, .label = label};
    const candid_status status = items_add(items, &item, error);
    free(text);
    return status;
}

/* The questions about one image; history: room for 2 * per_image objects. */
static candid_status ask_about(const struct pope_truth *truth, const struct pope_truth_image *image,
                               const struct tables *t, const struct pope_build *build, struct mt19937 *r, int *history,
                               size_t begin, struct eval_items *items, candid_error *error) {
    size_t n = 0;
    for (size_t i = 0; i < build->per_image; i++) {
        const int positive = image->objects[i];
        history[n++] = positive;
        const int negative = choose_negative(t, image, build->split, positive, history, n, r);
        if (negative < 0) {
            struct printable p;
            return fail(error, CANDID_ERROR_FORMAT, "image %s: no object is left to ask about that it does not have",
                        printable_string(&p, image->name));
        }
        history[n++] = negative;
        TRY(add_question(truth, image, positive, "yes", build, items, items->n - begin + 1, error));
        TRY(add_question(truth, image, negative, "no", build, items, items->n - begin + 1, error));
    }
    return CANDID_OK;
}

candid_status pope_build_questions(const struct pope_truth *truth, const size_t *images, size_t n_images,
                                   const struct pope_build *build, struct mt19937 *r, struct eval_items *items,
                                   candid_error *error) {
    if (build->per_image == 0 || build->per_image > 1000 || (build->template && !strstr(build->template, "{}"))) {
        return fail(error, CANDID_ERROR_ARGUMENT, "POPE: expected %s",
                    build->template ? "{} in the template, and 1 to 1000 objects per image"
                                    : "1 to 1000 objects per image");
    }
    struct tables t = {0};
    int *history = malloc(2 * build->per_image * sizeof *history);
    candid_status status =
        history ? tables_make(truth, images, n_images, &t, error) : fail_memory(error, "a build", build->per_image);
    const size_t begin = items->n;
    for (size_t i = 0; status == CANDID_OK && i < n_images; i++) {
        const struct pope_truth_image *image = &truth->images[images[i]];
        status = image->n < build->per_image
                     ? fail(error, CANDID_ERROR_ARGUMENT, "image %zu has fewer than %zu objects", i, build->per_image)
                     : ask_about(truth, image, &t, build, r, history, begin, items, error);
    }
    tables_free(&t);
    free(history);
    return status;
}
