/* Objects of images, to build POPE from. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/status.h"
#include "eval/common/json_objects.h"
#include "eval/common/json_stream.h"
#include "eval/pope/build.h"

candid_status pope_truth_add_image(struct pope_truth *truth, const char *name, candid_error *error) {
    if (truth->n == truth->capacity) {
        const size_t capacity = truth->capacity ? 2 * truth->capacity : 256;
        struct pope_truth_image *grown = realloc(truth->images, capacity * sizeof *grown);
        if (!grown) {
            return fail_memory(error, "a list of images", capacity * sizeof *grown);
        }
        truth->images = grown;
        truth->capacity = capacity;
    }
    char *copy = strdup(name);
    if (!copy) {
        return fail_memory(error, "an image's name", strlen(name) + 1);
    }
    truth->images[truth->n++] = (struct pope_truth_image){.name = copy};
    return CANDID_OK;
}

/* The index of a name, which is added where it is new; -1 without memory. Few names, so a linear search is enough. */
static int name_index(struct pope_truth *truth, const char *object) {
    for (size_t i = 0; i < truth->n_objects; i++) {
        if (strcmp(truth->objects[i], object) == 0) {
            return (int)i;
        }
    }
    char **grown = realloc(truth->objects, (truth->n_objects + 1) * sizeof *grown);
    if (!grown) {
        return -1;
    }
    truth->objects = grown;
    grown[truth->n_objects] = strdup(object);
    return grown[truth->n_objects] ? (int)truth->n_objects++ : -1;
}

candid_status pope_truth_add_object(struct pope_truth *truth, size_t image, const char *object, candid_error *error) {
    struct pope_truth_image *to = &truth->images[image];
    const int name = name_index(truth, object);
    int *grown = name < 0 ? NULL : realloc(to->objects, (to->n + 1) * sizeof *grown);
    if (!grown) {
        return fail_memory(error, "an image's objects", (to->n + 1) * sizeof *grown);
    }
    to->objects = grown;
    grown[to->n++] = name;
    return CANDID_OK;
}

bool pope_truth_has_object(const struct pope_truth *truth, size_t image, const char *object) {
    for (size_t i = 0; i < truth->images[image].n; i++) {
        if (strcmp(truth->objects[truth->images[image].objects[i]], object) == 0) {
            return true;
        }
    }
    return false;
}

void pope_truth_free(struct pope_truth *truth) {
    for (size_t i = 0; i < truth->n; i++) {
        free(truth->images[i].name);
        free(truth->images[i].objects);
    }
    for (size_t i = 0; i < truth->n_objects; i++) {
        free(truth->objects[i]);
    }
    free(truth->images);
    free(truth->objects);
    *truth = (struct pope_truth){0};
}

static candid_status read_objects_row(const struct json_objects *file, size_t row, struct pope_truth *truth,
                                      candid_error *error) {
    const cJSON *image = json_find(file->items[row], "image"), *objects = json_find(file->items[row], "objects");
    char found[JSON_FOUND];
    if (!cJSON_IsString(image)) {
        return json_objects_fail(file, row, error, "expected a string as \"image\", found %s",
                                 image ? json_found(image, found) : "none");
    }
    if (!cJSON_IsArray(objects)) {
        return json_objects_fail(file, row, error, "expected an array as \"objects\", found %s",
                                 objects ? json_found(objects, found) : "none");
    }
    TRY(pope_truth_add_image(truth, image->valuestring, error));
    const cJSON *object;
    cJSON_ArrayForEach(object, objects) {
        if (!cJSON_IsString(object) || object->valuestring[0] == '\0') {
            return json_objects_fail(file, row, error, "expected names in \"objects\", found %s",
                                     json_found(object, found));
        }
        TRY(pope_truth_add_object(truth, truth->n - 1, object->valuestring, error));
    }
    return CANDID_OK;
}

candid_status pope_truth_read_objects(const char *path, struct pope_truth *truth, candid_error *error) {
    struct json_objects file;
    TRY(json_objects_read(path, &file, error));
    candid_status status = CANDID_OK;
    for (size_t row = 0; row < file.n && status == CANDID_OK; row++) {
        status = read_objects_row(&file, row, truth, error);
    }
    json_objects_free(&file);
    return status;
}

/* ---- COCO instances ---- */

/* An image or a category of the file. */
struct id_entry {
    int64_t id;
    size_t index; /* of the image in the truth */
    char *name;
};

struct annotation {
    int64_t image, category;
};

/* What is taken from the file; its parts may come in any order. */
struct instances {
    struct id_entry *images, *categories;
    size_t n_images, n_categories;
    struct annotation *annotations;
    size_t n_annotations;
    bool has_images, has_categories, has_annotations;
};

/* Room for one more element of `size` bytes in a list of n that grows by doubling. NULL: no memory, the list stays. */
static void *grow(void *list, size_t n, size_t size) {
    return n == 0 || (n & (n - 1)) == 0 ? realloc(list, (n ? 2 * n : 1) * size) : list;
}

/* One object of "images" or "categories". */
static candid_status read_entry(struct json_stream *s, const char *name_key, struct id_entry *out,
                                candid_error *error) {
    candid_status status = CANDID_OK;
    *out = (struct id_entry){.id = -1};
    TRY(json_enter(s, '{', error));
    for (const char *key, *text; json_key(s, &key, &status, error);) {
        if (strcmp(key, "id") == 0) {
            status = json_integer(s, &out->id, error);
        } else if (strcmp(key, name_key) == 0 && !out->name) {
            status = json_text(s, &text, error);
            out->name = status == CANDID_OK ? strdup(text) : NULL;
        } else {
            status = json_skip(s, error);
        }
        TRY(status);
    }
    TRY(status);
    return out->id >= 0 && out->name && out->name[0]
               ? CANDID_OK
               : json_stream_fail(s, error, "expected an \"id\" and a string \"%s\" in the object before", name_key);
}

static candid_status read_entries(struct json_stream *s, const char *name_key, struct id_entry **list, size_t *n,
                                  candid_error *error) {
    candid_status status = CANDID_OK;
    TRY(json_enter(s, '[', error));
    while (json_item(s, &status, error)) {
        struct id_entry *grown = grow(*list, *n, sizeof *grown);
        if (!grown) {
            return fail_memory(error, "images and categories", 2 * *n * sizeof *grown);
        }
        *list = grown;
        grown[*n] = (struct id_entry){0};
        TRY(read_entry(s, name_key, &grown[(*n)++], error));
        grown[*n - 1].index = *n - 1;
    }
    return status;
}

static candid_status read_annotations(struct json_stream *s, struct instances *to, candid_error *error) {
    candid_status status = CANDID_OK;
    TRY(json_enter(s, '[', error));
    while (json_item(s, &status, error)) {
        struct annotation *grown = grow(to->annotations, to->n_annotations, sizeof *grown);
        if (!grown) {
            return fail_memory(error, "annotations", 2 * to->n_annotations * sizeof *grown);
        }
        to->annotations = grown;
        struct annotation *one = &grown[to->n_annotations++];
        *one = (struct annotation){-1, -1};
        TRY(json_enter(s, '{', error));
        for (const char *key; json_key(s, &key, &status, error);) {
            status = strcmp(key, "image_id") == 0      ? json_integer(s, &one->image, error)
                     : strcmp(key, "category_id") == 0 ? json_integer(s, &one->category, error)
                                                       : json_skip(s, error);
            TRY(status);
        }
        TRY(status);
    }
    return status;
}

static candid_status read_parts(struct json_stream *s, struct instances *to, candid_error *error) {
    candid_status status = CANDID_OK;
    TRY(json_enter(s, '{', error));
    for (const char *key; json_key(s, &key, &status, error);) {
        if (strcmp(key, "images") == 0) {
            to->has_images = true;
            status = read_entries(s, "file_name", &to->images, &to->n_images, error);
        } else if (strcmp(key, "categories") == 0) {
            to->has_categories = true;
            status = read_entries(s, "name", &to->categories, &to->n_categories, error);
        } else if (strcmp(key, "annotations") == 0) {
            to->has_annotations = true;
            status = read_annotations(s, to, error);
        } else {
            status = json_skip(s, error);
        }
        TRY(status);
    }
    TRY(status);
    TRY(json_end(s, error));
    return to->has_images && to->has_categories && to->has_annotations
               ? CANDID_OK
               : fail(error, CANDID_ERROR_FORMAT, "%s: expected a COCO instances file with an array \"%s\", found none",
                      s->label,
                      !to->has_images       ? "images"
                      : !to->has_categories ? "categories"
                                            : "annotations");
}

static int compare_ids(const void *a, const void *b) {
    const int64_t x = ((const struct id_entry *)a)->id, y = ((const struct id_entry *)b)->id;
    return (x > y) - (x < y);
}

static const struct id_entry *find_id(const struct id_entry *entries, size_t n, int64_t id) {
    const struct id_entry wanted = {.id = id};
    return n > 0 ? bsearch(&wanted, entries, n, sizeof wanted, compare_ids) : NULL;
}

static candid_status sort_ids(const char *label, const char *key, struct id_entry *entries, size_t n,
                              candid_error *error) {
    if (n > 0) {
        qsort(entries, n, sizeof *entries, compare_ids);
    }
    for (size_t i = 1; i < n; i++) {
        if (entries[i - 1].id == entries[i].id) {
            return fail(error, CANDID_ERROR_FORMAT, "%s: %s: expected every id once, found %lld twice", label, key,
                        (long long)entries[i].id);
        }
    }
    return CANDID_OK;
}

static candid_status add_instances(const char *label, struct instances *from, struct pope_truth *truth,
                                   candid_error *error) {
    const size_t first = truth->n;
    for (size_t i = 0; i < from->n_images; i++) {
        TRY(pope_truth_add_image(truth, from->images[i].name, error));
    }
    TRY(sort_ids(label, "images", from->images, from->n_images, error));
    TRY(sort_ids(label, "categories", from->categories, from->n_categories, error));
    for (size_t i = 0; i < from->n_annotations; i++) {
        const struct annotation *a = &from->annotations[i];
        const struct id_entry *image = find_id(from->images, from->n_images, a->image);
        const struct id_entry *category = find_id(from->categories, from->n_categories, a->category);
        if (!image || !category) {
            return fail(error, CANDID_ERROR_FORMAT, "%s: annotations[%zu]: expected the id of %s of the file in \"%s\"",
                        label, i, image ? "a category" : "an image", image ? "category_id" : "image_id");
        }
        if (!pope_truth_has_object(truth, first + image->index, category->name)) {
            TRY(pope_truth_add_object(truth, first + image->index, category->name, error));
        }
    }
    return CANDID_OK;
}

candid_status pope_truth_read_instances(const char *path, struct pope_truth *truth, candid_error *error) {
    struct json_stream stream;
    struct instances parts = {0};
    TRY(json_stream_open(path, &stream, error));
    candid_status status = read_parts(&stream, &parts, error);
    if (status == CANDID_OK) {
        status = add_instances(stream.label, &parts, truth, error);
    }
    for (size_t i = 0; i < parts.n_images; i++) {
        free(parts.images[i].name);
    }
    for (size_t i = 0; i < parts.n_categories; i++) {
        free(parts.categories[i].name);
    }
    free(parts.images);
    free(parts.categories);
    free(parts.annotations);
    json_stream_close(&stream);
    return status;
}
