#include "eval/common/run_items.h"

#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/status.h"
#include "eval/common/json_objects.h"

struct row {
    int64_t index;
    size_t at; /* of the file's objects */
};

static int compare_rows(const void *a, const void *b) {
    const struct row *x = a, *y = b;
    return (x->index > y->index) - (x->index < y->index);
}

static candid_status sort_rows(const struct json_objects *file, struct row *rows, candid_error *error) {
    for (size_t i = 0; i < file->n; i++) {
        rows[i].at = i;
        if (!json_is_int(json_find(file->items[i], "index"), 0, INT64_MAX, &rows[i].index)) {
            return json_objects_fail(file, i, error, "expected an answer of candid eval, with an \"index\"");
        }
    }
    qsort(rows, file->n, sizeof *rows, compare_rows);
    for (size_t i = 1; i < file->n; i++) {
        if (rows[i - 1].index == rows[i].index) {
            return json_objects_fail(file, rows[i].at, error, "expected every index once, found %lld twice",
                                     (long long)rows[i].index);
        }
    }
    return CANDID_OK;
}

/* The member as a string, NULL where it is absent. */
static candid_status read_string(const struct json_objects *file, size_t row, const char *key, const char **out,
                                 candid_error *error) {
    const cJSON *item = json_find(file->items[row], key);
    char found[JSON_FOUND];
    *out = item ? item->valuestring : NULL;
    return !item || cJSON_IsString(item) ? CANDID_OK
                                         : json_objects_fail(file, row, error, "expected a string as \"%s\", found %s",
                                                             key, json_found(item, found));
}

static candid_status add_row(const struct json_objects *file, size_t row, struct eval_items *items,
                             candid_error *error) {
    char id[JSON_ID];
    struct eval_item item = {.id = json_id(json_find(file->items[row], "id"), id)};
    TRY(read_string(file, row, "image", &item.image, error));
    TRY(read_string(file, row, "split", &item.split, error));
    TRY(read_string(file, row, "question", &item.question, error));
    TRY(read_string(file, row, "label", &item.label, error));
    TRY(read_string(file, row, "answer", &item.answer, error));
    if (!item.answer && !json_find(file->items[row], "error")) {
        return json_objects_fail(file, row, error, "expected \"answer\" or \"error\", found neither");
    }
    return items_add(items, &item, error);
}

candid_status run_read_items(const char *path, struct eval_items *items, candid_error *error) {
    struct json_objects file;
    TRY(json_objects_read(path, &file, error));
    struct row *rows = calloc(file.n + 1, sizeof *rows);
    candid_status status =
        rows ? sort_rows(&file, rows, error) : fail_memory(error, "a run's items", file.n * sizeof *rows);
    for (size_t i = 0; status == CANDID_OK && i < file.n; i++) {
        status = add_row(&file, rows[i].at, items, error);
    }
    if (status == CANDID_OK) {
        struct eval_source source = {.path = path, .n_lines = file.n};
        memcpy(source.sha256, file.sha256, sizeof source.sha256);
        status = items_add_source(items, &source, error);
    }
    free(rows);
    json_objects_free(&file);
    return status;
}

candid_status run_recognise(const char *path, bool *is_run, candid_error *error) {
    struct json_objects file;
    TRY(json_objects_read(path, &file, error));
    *is_run = json_find(file.items[0], "index") != NULL;
    json_objects_free(&file);
    return CANDID_OK;
}
