/* Caption files in the shapes of public programs, and published lists of images. */
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "core/text.h"
#include "eval/chair/chair.h"
#include "eval/chair/tables.h"
#include "eval/common/lmms_eval.h"

static const char *text_of(const cJSON *object, const char *const *keys) {
    for (; *keys; keys++) {
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, *keys);
        if (cJSON_IsString(value)) {
            return value->valuestring;
        }
    }
    return NULL;
}

/* OPERA, LisaAnne, VISTA: image_id, caption; LLaVA: question_id, text; lmms-eval: its sample log; candid:
 * id, image, answer. */
static candid_status read_caption(const struct json_objects *list, size_t i, struct eval_items *items,
                                  candid_error *error) {
    static const char *const captions[] = {"caption", "answer", "text", NULL};
    static const char *const images[] = {"image", "image_file", "file_name", NULL};
    static const char *const ids[] = {"image_id", "id", "question_id"};
    const cJSON *object = list->items[i];
    struct eval_item item = {.answer = text_of(object, captions), .image = text_of(object, images)};
    char id[JSON_ID];
    for (size_t k = 0; k < sizeof ids / sizeof *ids && !item.id; k++) {
        item.id = json_id(cJSON_GetObjectItemCaseSensitive(object, ids[k]), id);
    }
    if (!item.answer && !cJSON_HasObjectItem(object, "error")) {
        return json_objects_fail(list, i, error, "no caption: expected a string \"caption\", \"answer\" or \"text\"");
    }
    if (!item.id && !item.image) {
        return json_objects_fail(list, i, error,
                                 "no image: expected \"image_id\", \"id\", \"question_id\" or a file name \"image\"");
    }
    return items_add(items, &item, error);
}

candid_status chair_read_captions(const char *path, struct eval_items *items, candid_error *error) {
    struct json_objects list = {0};
    candid_status status = answer_objects_read(path, &list, error);
    for (size_t i = 0; i < list.n && status == CANDID_OK; i++) {
        status = read_caption(&list, i, items, error);
    }
    if (status == CANDID_OK && list.n == 0) {
        status = fail(error, CANDID_ERROR_FORMAT, "%s: no captions", list.label);
    }
    if (status == CANDID_OK) {
        struct eval_source source = {.path = path, .n_lines = list.n};
        memcpy(source.sha256, list.sha256, sizeof source.sha256);
        status = items_add_source(items, &source, error);
    }
    json_objects_free(&list);
    return status;
}

candid_status chair_image_list(const char *name, int64_t **ids, size_t *n, candid_error *error) {
    const char *text = strcmp(name, "opera") == 0     ? chair_table_images_opera
                       : strcmp(name, "pai-927") == 0 ? chair_table_images_pai_927
                                                      : NULL;
    *n = 0;
    *ids = NULL;
    if (!text) {
        struct printable p;
        return fail(error, CANDID_ERROR_ARGUMENT, "no list of images is called \"%s\"; known are opera and pai-927",
                    printable_string(&p, name));
    }
    *ids = malloc(strlen(text) * sizeof **ids);
    if (!*ids) {
        return fail_memory(error, "a list of images", strlen(text) * sizeof **ids);
    }
    for (char *end; *text; text = end + 1) {
        (*ids)[(*n)++] = strtoll(text, &end, 10);
    }
    return CANDID_OK;
}
