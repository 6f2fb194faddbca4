/* AMBER's questions, and the answers that its official program reads. */
#include <string.h>

#include "core/json.h"
#include "core/status.h"
#include "core/text.h"
#include "eval/amber/data.h"
#include "eval/common/json_objects.h"

/* Reads a file of objects with an id; `key`: what the questions or answers are called. */
static candid_status read_file(const char *path, const char *key, const struct amber_data *data,
                               struct eval_items *items, candid_error *error) {
    struct json_objects file;
    TRY(json_objects_read(path, &file, error));
    const bool questions = strcmp(key, "query") == 0;
    candid_status status = CANDID_OK;
    for (size_t i = 0; i < file.n && status == CANDID_OK; i++) {
        char number[JSON_ID];
        struct printable p;
        const char *id = json_id(json_find(file.items[i], "id"), number);
        const cJSON *text = json_find(file.items[i], key), *image = json_find(file.items[i], "image");
        const struct amber_annotation *annotation = amber_annotation_find(data, id);
        if (!annotation) {
            status = json_objects_fail(&file, i, error, "expected the \"id\" of an annotation, found \"%s\"",
                                       printable_string(&p, id ? id : ""));
        } else if (!cJSON_IsString(text) || (questions && !cJSON_IsString(image))) {
            status = json_objects_fail(&file, i, error, "expected a string as \"%s\"%s", key,
                                       questions ? " and as \"image\"" : "");
        } else {
            const struct eval_item item = {.id = id,
                                           .image = questions ? image->valuestring : NULL,
                                           .split = annotation->type,
                                           .question = questions ? text->valuestring : NULL,
                                           .label = annotation->generative ? NULL
                                                    : annotation->yes      ? "yes"
                                                                           : "no",
                                           .answer = questions ? NULL : text->valuestring};
            status = items_add(items, &item, error);
        }
    }
    if (status == CANDID_OK) {
        struct eval_source source = {.path = path, .n_lines = file.n};
        memcpy(source.sha256, file.sha256, sizeof source.sha256);
        status = items_add_source(items, &source, error);
    }
    json_objects_free(&file);
    return status;
}

candid_status amber_read_questions(const char *path, const struct amber_data *data, struct eval_items *items,
                                   candid_error *error) {
    return read_file(path, "query", data, items, error);
}

candid_status amber_read_responses(const char *path, const struct amber_data *data, struct eval_items *items,
                                   candid_error *error) {
    return read_file(path, "response", data, items, error);
}
