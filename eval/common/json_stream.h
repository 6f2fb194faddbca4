/*
 * JSON of any size, read in one pass over a mapped file with constant memory: the caller asks for what must come next
 * and skips what it does not want. Everything is checked, skipped values too. All errors are CANDID_ERROR_FORMAT
 * "FILE:LINE (byte N): …".
 *
 *     TRY(json_enter(s, '{', error));
 *     for (const char *key; json_key(s, &key, &status, error);) {
 *         if (strcmp(key, "id") == 0) { status = json_integer(s, &id, error); } else { status = json_skip(s, error); }
 *         TRY(status);
 *     }
 *     TRY(status);
 */
#ifndef CANDID_EVAL_COMMON_JSON_STREAM_H
#define CANDID_EVAL_COMMON_JSON_STREAM_H

#include <stdbool.h>

#include "core/file.h"

struct json_stream {
    char label[208]; /* the file's name for messages */
    struct mapped_file file;
    const char *begin, *at, *end;
    bool first;    /* directly behind an opening bracket: no comma comes */
    char *scratch; /* the last string */
    size_t capacity;
};

candid_status json_stream_open(const char *path, struct json_stream *out, candid_error *error);
/* The same for text in memory, which must stay. */
void json_stream_memory(const char *text, size_t size, const char *label, struct json_stream *out);
void json_stream_close(struct json_stream *s);

/* Back to the beginning. */
void json_stream_rewind(struct json_stream *s);

/* "FILE:LINE (byte N): …" about the current place. */
candid_status json_stream_fail(const struct json_stream *s, candid_error *error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The first character of the next value: one of { [ " t f n - 0…9, or 0 at the end of the text. */
char json_peek(struct json_stream *s);

/* Expects an object '{' or an array '['. */
candid_status json_enter(struct json_stream *s, char bracket, candid_error *error);

/* The next key of an object, or the next item of an array: false at its end, which is consumed, and on an error, then
 * with *status set. The key is valid until the next string is read. The value that follows must be read or skipped. */
bool json_key(struct json_stream *s, const char **key, candid_status *status, candid_error *error);
bool json_item(struct json_stream *s, candid_status *status, candid_error *error);

/* A string, decoded and NUL-terminated, valid until the next one is read. U+0000 in it is an error. */
candid_status json_text(struct json_stream *s, const char **out, candid_error *error);

/* A number without fraction, of at most 2^53. */
candid_status json_integer(struct json_stream *s, int64_t *out, candid_error *error);

candid_status json_number(struct json_stream *s, double *out, candid_error *error);

/* Any value. */
candid_status json_skip(struct json_stream *s, candid_error *error);

/* Expects the end of the text. */
candid_status json_end(struct json_stream *s, candid_error *error);

#endif
