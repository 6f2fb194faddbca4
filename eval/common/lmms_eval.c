#include "eval/common/lmms_eval.h"

#include <strings.h>

#include "core/json.h"
#include "core/status.h"

/* A text, or the only one of a list. */
static const char *only_text(const cJSON *item) {
    if (cJSON_IsArray(item) && cJSON_GetArraySize(item) == 1) {
        item = item->child;
    }
    return cJSON_GetStringValue(item);
}

/* The member of the first task metric that has one. */
static const cJSON *in_metric(const cJSON *line, const char *key) {
    for (const cJSON *item = line->child; item; item = item->next) {
        const cJSON *found = cJSON_IsObject(item) ? json_find(item, key) : NULL;
        if (found) {
            return found;
        }
    }
    return NULL;
}

static bool add_id(cJSON *line, const char *key, const cJSON *id) {
    char text[JSON_ID];
    const char *value = id ? json_id(id, text) : NULL;
    return !value || json_find(line, key) || cJSON_AddStringToObject(line, key, value);
}

static candid_status adapt(struct json_objects *list, size_t i, candid_error *error) {
    cJSON *line = list->items[i];
    const char *answer = only_text(json_find(line, "filtered_resps"));
    const char *question = only_text(json_find(line, "input"));
    const char *target = cJSON_GetStringValue(json_find(line, "target"));
    const cJSON *id = in_metric(line, "question_id"), *image = in_metric(line, "image_id");
    if (!answer) {
        return json_objects_fail(list, i, error, "expected one text in \"filtered_resps\"");
    }
    bool good = cJSON_AddStringToObject(line, "answer", answer);
    good = good && (!question || cJSON_AddStringToObject(line, "question", question));
    if (good && target && (strcasecmp(target, "yes") == 0 || strcasecmp(target, "no") == 0)) {
        good = cJSON_AddStringToObject(line, "label", target);
    }
    good = good && add_id(line, "image_id", image) &&
           (image || add_id(line, "question_id", id ? id : json_find(line, "doc_id")));
    return good ? CANDID_OK : fail_memory(error, "a log's line", 1);
}

candid_status answer_objects_read(const char *path, struct json_objects *out, candid_error *error) {
    TRY(json_objects_read(path, out, error));
    candid_status status = CANDID_OK;
    for (size_t i = 0; status == CANDID_OK && i < out->n; i++) {
        const cJSON *line = out->items[i];
        if (json_find(line, "doc_id") && json_find(line, "filtered_resps") && !json_find(line, "answer")) {
            status = adapt(out, i, error);
        }
    }
    if (status != CANDID_OK) {
        json_objects_free(out);
    }
    return status;
}
