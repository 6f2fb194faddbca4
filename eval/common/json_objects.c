#include "eval/common/json_objects.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/json_lines.h"
#include "core/status.h"
#include "eval/common/python_float.h"
#include "eval/common/sha256.h"

struct scanner {
    const char *text; /* [size] */
    size_t size, at;
    int line; /* of `at` */
};

static void move_to(struct scanner *s, size_t at) {
    for (; s->at < at; s->at++) {
        s->line += s->text[s->at] == '\n';
    }
}

/* Moves to the next byte that is no space and returns it, 0 at the end. */
static char next_byte(struct scanner *s) {
    size_t at = s->at;
    while (at < s->size && strchr(" \t\r\n", s->text[at])) {
        at++;
    }
    move_to(s, at);
    return at < s->size ? s->text[at] : '\0';
}

static candid_status syntax(const struct json_objects *list, int line, const char *expected, candid_error *error) {
    return fail(error, CANDID_ERROR_FORMAT, "%s:%d: expected %s", list->label, line, expected);
}

/* A NUL byte or "\u0000" within the text: offset, or size. */
static size_t find_nul(const char *text, size_t size) {
    const char *nul = memchr(text, '\0', size);
    size_t end = nul ? (size_t)(nul - text) : size;
    for (size_t i = 0; i + 6 <= end; i++) {
        if (text[i] != '\\') {
            continue;
        }
        if (memcmp(text + i, "\\u0000", 6) == 0) {
            return i;
        }
        i++; /* the escaped character */
    }
    return end;
}

static candid_status append(struct json_objects *list, cJSON *item, int line, candid_error *error) {
    if (list->n == list->capacity) {
        const size_t capacity = list->capacity ? 2 * list->capacity : 256;
        cJSON **items = realloc(list->items, capacity * sizeof *items);
        list->items = items ? items : list->items;
        int *lines = items ? realloc(list->lines, capacity * sizeof *lines) : NULL;
        list->lines = lines ? lines : list->lines;
        if (!lines) {
            cJSON_Delete(item);
            return fail_memory(error, "a list of JSON objects", capacity * sizeof *items);
        }
        list->capacity = capacity;
    }
    list->items[list->n] = item;
    list->lines[list->n++] = line;
    return CANDID_OK;
}

/* One object at the scanner. */
static candid_status read_object(struct scanner *s, struct json_objects *list, candid_error *error) {
    const int line = s->line;
    const char *end = s->text + s->at;
    cJSON *item = cJSON_ParseWithLengthOpts(s->text + s->at, s->size - s->at, &end, false);
    if (!item) {
        if (end >= s->text + s->at && end <= s->text + s->size) {
            move_to(s, (size_t)(end - s->text));
        }
        char expected[96];
        snprintf(expected, sizeof expected, "valid JSON, found an error in the object that begins on line %d", line);
        return syntax(list, s->line, expected, error);
    }
    if (!cJSON_IsObject(item)) {
        char found[JSON_FOUND], expected[JSON_FOUND + 40];
        snprintf(expected, sizeof expected, "a JSON object, found %s", json_found(item, found));
        cJSON_Delete(item);
        return syntax(list, line, expected, error);
    }
    move_to(s, (size_t)(end - s->text));
    return append(list, item, line, error);
}

static candid_status read_all(struct scanner *s, struct json_objects *list, candid_error *error) {
    const bool array = next_byte(s) == '[';
    if (!array) {
        for (char c = next_byte(s); s->at < s->size; c = next_byte(s)) {
            if (c != '{') {
                return syntax(list, s->line, "a JSON object", error);
            }
            TRY(read_object(s, list, error));
        }
        return CANDID_OK;
    }
    move_to(s, s->at + 1);
    if (next_byte(s) != ']') {
        TRY(read_object(s, list, error));
        while (next_byte(s) == ',') {
            move_to(s, s->at + 1);
            next_byte(s);
            TRY(read_object(s, list, error));
        }
    }
    if (next_byte(s) != ']') {
        return syntax(list, s->line, "\",\" or \"]\" in the array", error);
    }
    move_to(s, s->at + 1);
    next_byte(s);
    return s->at == s->size ? CANDID_OK : syntax(list, s->line, "nothing after the array", error);
}

candid_status json_objects_parse(const char *text, size_t size, const char *label, struct json_objects *out,
                                 candid_error *error) {
    *out = (struct json_objects){0};
    file_label(label, out->label, sizeof out->label);
    text = size > 0 ? text : "";
    sha256_hex(text, size, out->sha256);
    const size_t mark = size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    const size_t nul = find_nul(text, size);
    candid_status status;
    if (nul < size) {
        status = syntax(out, json_line_at(text, size, nul), "text, found the character U+0000", error);
    } else {
        status = read_all(&(struct scanner){text + mark, size - mark, 0, 1}, out, error);
    }
    if (status == CANDID_OK && out->n == 0) {
        status = syntax(out, 1, "JSON objects, found none", error);
    }
    if (status != CANDID_OK) {
        json_objects_free(out);
    }
    return status;
}

candid_status json_objects_read(const char *path, struct json_objects *out, candid_error *error) {
    *out = (struct json_objects){0};
    struct mapped_file file;
    TRY(file_map(path, "a JSON file", &file, error));
    const candid_status status = json_objects_parse((const char *)file.data, file.size, path, out, error);
    file_unmap(&file);
    return status;
}

void json_objects_free(struct json_objects *list) {
    for (size_t i = 0; i < list->n; i++) {
        cJSON_Delete(list->items[i]);
    }
    free(list->items);
    free(list->lines);
    list->items = NULL;
    list->lines = NULL;
    list->n = list->capacity = 0;
}

candid_status json_objects_fail(const struct json_objects *list, size_t i, candid_error *error, const char *format,
                                ...) {
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return fail(error, CANDID_ERROR_FORMAT, "%s:%d: %s", list->label, list->lines[i], text);
}

const char *json_id(const cJSON *item, char buffer[JSON_ID]) {
    int64_t number;
    if (cJSON_IsString(item)) {
        return item->valuestring;
    }
    if (json_is_int(item, INT64_MIN, INT64_MAX, &number)) {
        snprintf(buffer, JSON_ID, "%lld", (long long)number);
        return buffer;
    }
    return cJSON_IsNumber(item) ? python_float(item->valuedouble, buffer) : NULL;
}
