/* JSON files of foreign origin, read with cJSON: typed access with messages that name file, key, expected, found. */
#ifndef CANDID_CORE_JSON_H
#define CANDID_CORE_JSON_H

#include <cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "candid/candid.h"

/* A parsed document. Start from {0}; release with json_free. */
struct json {
    char label[208]; /* the file's name for messages */
    cJSON *root;     /* an object */
};

/* The file must be at most `limit` bytes, valid JSON without trailing text, and an object. */
candid_status json_read(const char *path, size_t limit, struct json *out, candid_error *error);
/* The same for text in memory (not NUL-terminated); `label` stands for the file in messages. */
candid_status json_parse(const char *text, size_t size, const char *label, struct json *out, candid_error *error);
void json_free(struct json *j);

/* The member, or NULL when it is absent or null: the two mean the same in the files we read. object may be NULL. */
const cJSON *json_find(const cJSON *object, const char *key);

/*
 * Typed members of `object`. Absent or null: *out is left alone, so the caller sets the default first. Another kind or
 * a value outside of min..max is a CANDID_ERROR_FORMAT naming file and key. `path` is how messages call the object,
 * such as "text_config." or "".
 */
candid_status json_get_int(const struct json *j, const cJSON *object, const char *path, const char *key, int64_t min,
                           int64_t max, int64_t *out, candid_error *error);
candid_status json_get_float(const struct json *j, const cJSON *object, const char *path, const char *key, double min,
                             double max, double *out, candid_error *error);
candid_status json_get_bool(const struct json *j, const cJSON *object, const char *path, const char *key, bool *out,
                            candid_error *error);
/* *out belongs to the document. */
candid_status json_get_string(const struct json *j, const cJSON *object, const char *path, const char *key,
                              const char **out, candid_error *error);
candid_status json_get_object(const struct json *j, const cJSON *object, const char *path, const char *key,
                              const cJSON **out, candid_error *error);

/* A number that is an integer within min..max. */
bool json_is_int(const cJSON *item, int64_t min, int64_t max, int64_t *out);

/* What an item is, for messages: `string "x"`, `number 3`, `an array`. Returns buffer. */
#define JSON_FOUND 100
const char *json_found(const cJSON *item, char buffer[JSON_FOUND]);

#endif
