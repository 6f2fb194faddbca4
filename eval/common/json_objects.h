/*
 * Files that hold a list of JSON objects: JSON lines, one JSON array, or objects one after the other over several lines
 * each. Every object knows the line it began on, for messages.
 */
#ifndef CANDID_EVAL_COMMON_JSON_OBJECTS_H
#define CANDID_EVAL_COMMON_JSON_OBJECTS_H

#include <cJSON.h>
#include <stddef.h>

#include "candid/candid.h"

/* Start from {0}; release with json_objects_free. */
struct json_objects {
    char label[208]; /* the file's name for messages */
    char sha256[65]; /* of the file */
    cJSON **items;   /* [n] */
    int *lines;      /* [n], counted from 1 */
    size_t n, capacity;
};

/* Strings with a U+0000 are refused: C text would lose what follows it. */
candid_status json_objects_read(const char *path, struct json_objects *out, candid_error *error);
/* The same for text in memory (not NUL-terminated); `label` stands for the file in messages. */
candid_status json_objects_parse(const char *text, size_t size, const char *label, struct json_objects *out,
                                 candid_error *error);
void json_objects_free(struct json_objects *list);

/* CANDID_ERROR_FORMAT "FILE:LINE: …" about object i. */
candid_status json_objects_fail(const struct json_objects *list, size_t i, candid_error *error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* A string or a number as text, NULL when it is neither: ids are written both ways. A number is printed into buffer. */
#define JSON_ID 48
const char *json_id(const cJSON *item, char buffer[JSON_ID]);

#endif
