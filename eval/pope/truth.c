/* Objects of images, to build POPE from. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/status.h"
#include "eval/common/json_objects.h"
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

/* What an id of the file stands for: an image's index, or a category's name. */
struct id_entry {
    double id;
    size_t image;
    const char *name;
};

static int compare_ids(const void *a, const void *b) {
    const double x = ((const struct id_entry *)a)->id, y = ((const struct id_entry *)b)->id;
    return (x > y) - (x < y);
}

static const struct id_entry *find_id(const struct id_entry *entries, size_t n, const cJSON *id) {
    const struct id_entry wanted = {.id = cJSON_IsNumber(id) ? id->valuedouble : -1};
    return n > 0 && cJSON_IsNumber(id) ? bsearch(&wanted, entries, n, sizeof *entries, compare_ids) : NULL;
}

/* The array under `key` as sorted entries; `name_key` is the string each object must have. Malloc'd. */
static candid_status index_ids(const struct json *j, const char *key, const char *name_key, struct id_entry **out,
                               size_t *n_out, candid_error *error) {
    const cJSON *array = json_find(j->root, key), *object;
    char found[JSON_FOUND];
    if (!cJSON_IsArray(array)) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: expected a COCO instances file with an array \"%s\", found %s",
                    j->label, key, array ? json_found(array, found) : "none");
    }
    const size_t n = (size_t)cJSON_GetArraySize(array);
    struct id_entry *entries = calloc(n + 1, sizeof *entries);
    if (!entries) {
        return fail_memory(error, key, (n + 1) * sizeof *entries);
    }
    size_t i = 0;
    cJSON_ArrayForEach(object, array) {
        const cJSON *id = json_find(object, "id"), *name = json_find(object, name_key);
        if (!cJSON_IsNumber(id) || !cJSON_IsString(name) || name->valuestring[0] == '\0') {
            free(entries);
            return fail(error, CANDID_ERROR_FORMAT, "%s: %s[%zu]: expected a number \"id\" and a string \"%s\"",
                        j->label, key, i, name_key);
        }
        entries[i] = (struct id_entry){id->valuedouble, i, name->valuestring};
        i++;
    }
    qsort(entries, n, sizeof *entries, compare_ids);
    for (i = 1; i < n; i++) {
        if (entries[i - 1].id == entries[i].id) {
            const double id = entries[i].id;
            free(entries);
            return fail(error, CANDID_ERROR_FORMAT, "%s: %s: expected every id once, found %.0f twice", j->label, key,
                        id);
        }
    }
    *out = entries;
    *n_out = n;
    return CANDID_OK;
}

static bool has_object(const struct pope_truth *truth, size_t image, const char *object) {
    for (size_t i = 0; i < truth->images[image].n; i++) {
        if (strcmp(truth->objects[truth->images[image].objects[i]], object) == 0) {
            return true;
        }
    }
    return false;
}

static candid_status add_annotations(const struct json *j, const struct id_entry *images, size_t n_images,
                                     const struct id_entry *categories, size_t n_categories, size_t first,
                                     struct pope_truth *truth, candid_error *error) {
    const cJSON *annotations = json_find(j->root, "annotations"), *object;
    if (!cJSON_IsArray(annotations)) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: expected a COCO instances file with an array \"annotations\"",
                    j->label);
    }
    size_t i = 0;
    cJSON_ArrayForEach(object, annotations) {
        const struct id_entry *image = find_id(images, n_images, json_find(object, "image_id"));
        const struct id_entry *category = find_id(categories, n_categories, json_find(object, "category_id"));
        if (!image || !category) {
            return fail(error, CANDID_ERROR_FORMAT, "%s: annotations[%zu]: expected the id of %s of the file in \"%s\"",
                        j->label, i, image ? "a category" : "an image", image ? "category_id" : "image_id");
        }
        if (!has_object(truth, first + image->image, category->name)) {
            TRY(pope_truth_add_object(truth, first + image->image, category->name, error));
        }
        i++;
    }
    return CANDID_OK;
}

static candid_status add_instances(const struct json *j, struct pope_truth *truth, candid_error *error) {
    struct id_entry *images = NULL, *categories = NULL;
    size_t n_images = 0, n_categories = 0;
    const size_t first = truth->n;
    candid_status status = index_ids(j, "images", "file_name", &images, &n_images, error);
    if (status == CANDID_OK) {
        status = index_ids(j, "categories", "name", &categories, &n_categories, error);
    }
    const cJSON *image = cJSON_GetObjectItemCaseSensitive(j->root, "images");
    for (image = image ? image->child : NULL; status == CANDID_OK && image; image = image->next) {
        status = pope_truth_add_image(truth, json_find(image, "file_name")->valuestring, error);
    }
    if (status == CANDID_OK) {
        status = add_annotations(j, images, n_images, categories, n_categories, first, truth, error);
    }
    free(images);
    free(categories);
    return status;
}

candid_status pope_truth_read_instances(const char *path, struct pope_truth *truth, candid_error *error) {
    struct json j;
    TRY(json_read(path, (size_t)4 << 30, &j, error));
    const candid_status status = add_instances(&j, truth, error);
    json_free(&j);
    return status;
}
