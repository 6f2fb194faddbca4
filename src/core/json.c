/* Typed access to JSON files. */
#include "core/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "core/json_lines.h"
#include "core/status.h"
#include "core/text.h"

candid_status json_parse(const char *text, size_t size, const char *label, struct json *out, candid_error *error) {
    *out = (struct json){0};
    file_label(label, out->label, sizeof out->label);
    const char *end = text;
    cJSON *root = cJSON_ParseWithLengthOpts(text, size, &end, false);
    size_t rest = root && end >= text && end <= text + size ? (size_t)(end - text) : 0;
    while (root && rest < size &&
           (text[rest] == ' ' || text[rest] == '\n' || text[rest] == '\r' || text[rest] == '\t')) {
        rest++;
    }
    if (!root || rest != size) {
        const size_t at = root ? rest : end && end >= text && end <= text + size ? (size_t)(end - text) : 0;
        cJSON_Delete(root);
        return fail(error, CANDID_ERROR_FORMAT, "%s:%d: expected valid JSON, found an error near byte %zu of %zu",
                    out->label, json_line_at(text, size, at), at, size);
    }
    if (!cJSON_IsObject(root)) {
        char found[JSON_FOUND];
        json_found(root, found);
        cJSON_Delete(root);
        return fail(error, CANDID_ERROR_FORMAT, "%s: expected a JSON object, found %s", out->label, found);
    }
    out->root = root;
    return CANDID_OK;
}

candid_status json_read(const char *path, size_t limit, struct json *out, candid_error *error) {
    *out = (struct json){0};
    struct mapped_file file;
    TRY(file_map(path, "a JSON file", &file, error));
    file_label(path, out->label, sizeof out->label);
    candid_status status;
    if (file.size > limit) {
        status = fail(error, CANDID_ERROR_FORMAT, "%s: expected a JSON file of at most %zu bytes, found %zu",
                      out->label, limit, file.size);
    } else if (file.size == 0) {
        status = fail(error, CANDID_ERROR_FORMAT, "%s: expected a JSON file, found an empty one", out->label);
    } else {
        status = json_parse((const char *)file.data, file.size, path, out, error);
    }
    file_unmap(&file);
    return status;
}

void json_free(struct json *j) {
    cJSON_Delete(j->root);
    j->root = NULL;
}

const cJSON *json_find(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNull(item) ? NULL : item;
}

const char *json_found(const cJSON *item, char buffer[JSON_FOUND]) {
    if (cJSON_IsString(item)) {
        char text[64];
        text_print(text, sizeof text, item->valuestring, strlen(item->valuestring));
        snprintf(buffer, JSON_FOUND, "string \"%s\"", text);
    } else if (cJSON_IsNumber(item)) {
        snprintf(buffer, JSON_FOUND, "number %.12g", item->valuedouble);
    } else {
        snprintf(buffer, JSON_FOUND, "%s",
                 cJSON_IsBool(item)     ? (cJSON_IsTrue(item) ? "true" : "false")
                 : cJSON_IsArray(item)  ? "an array"
                 : cJSON_IsObject(item) ? "an object"
                                        : "null");
    }
    return buffer;
}

static candid_status wrong(const struct json *j, const char *path, const char *key, const char *expected,
                           const cJSON *item, candid_error *error) {
    char found[JSON_FOUND];
    return fail(error, CANDID_ERROR_FORMAT, "%s: key %s%s: expected %s, found %s", j->label, path, key, expected,
                json_found(item, found));
}

bool json_is_int(const cJSON *item, int64_t min, int64_t max, int64_t *out) {
    if (!cJSON_IsNumber(item)) {
        return false;
    }
    const double v = item->valuedouble;
    if (!(v >= -0x1p53 && v <= 0x1p53) || v != (double)(int64_t)v || (int64_t)v < min || (int64_t)v > max) {
        return false;
    }
    *out = (int64_t)v;
    return true;
}

candid_status json_get_int(const struct json *j, const cJSON *object, const char *path, const char *key, int64_t min,
                           int64_t max, int64_t *out, candid_error *error) {
    const cJSON *item = json_find(object, key);
    if (!item || json_is_int(item, min, max, out)) {
        return CANDID_OK;
    }
    char expected[80];
    snprintf(expected, sizeof expected, "an integer from %" PRId64 " to %" PRId64, min, max);
    return wrong(j, path, key, expected, item, error);
}

candid_status json_get_float(const struct json *j, const cJSON *object, const char *path, const char *key, double min,
                             double max, double *out, candid_error *error) {
    const cJSON *item = json_find(object, key);
    if (!item) {
        return CANDID_OK;
    }
    if (cJSON_IsNumber(item) && item->valuedouble >= min && item->valuedouble <= max) {
        *out = item->valuedouble;
        return CANDID_OK;
    }
    char expected[80];
    snprintf(expected, sizeof expected, "a number from %g to %g", min, max);
    return wrong(j, path, key, expected, item, error);
}

candid_status json_get_bool(const struct json *j, const cJSON *object, const char *path, const char *key, bool *out,
                            candid_error *error) {
    const cJSON *item = json_find(object, key);
    if (item && !cJSON_IsBool(item)) {
        return wrong(j, path, key, "true or false", item, error);
    }
    *out = item ? cJSON_IsTrue(item) : *out;
    return CANDID_OK;
}

candid_status json_get_string(const struct json *j, const cJSON *object, const char *path, const char *key,
                              const char **out, candid_error *error) {
    const cJSON *item = json_find(object, key);
    if (item && !cJSON_IsString(item)) {
        return wrong(j, path, key, "a string", item, error);
    }
    *out = item ? item->valuestring : *out;
    return CANDID_OK;
}

candid_status json_get_object(const struct json *j, const cJSON *object, const char *path, const char *key,
                              const cJSON **out, candid_error *error) {
    const cJSON *item = json_find(object, key);
    if (item && !cJSON_IsObject(item)) {
        return wrong(j, path, key, "an object", item, error);
    }
    *out = item ? item : *out;
    return CANDID_OK;
}
