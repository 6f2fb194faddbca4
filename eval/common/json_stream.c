#include "eval/common/json_stream.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json_lines.h"
#include "core/status.h"
#include "core/text.h"
#include "eval/common/unicode.h"

#define MAX_DEPTH 64

void json_stream_memory(const char *text, size_t size, const char *label, struct json_stream *out) {
    *out = (struct json_stream){.begin = text, .end = text + size};
    snprintf(out->label, sizeof out->label, "%s", label);
    json_stream_rewind(out);
}

candid_status json_stream_open(const char *path, struct json_stream *out, candid_error *error) {
    char label[sizeof out->label];
    struct mapped_file file;
    TRY(file_map(path, "a JSON file", &file, error));
    file_label(path, label, sizeof label);
    json_stream_memory(file.data ? (const char *)file.data : "", file.size, label, out);
    out->file = file;
    return CANDID_OK;
}

void json_stream_close(struct json_stream *s) {
    free(s->scratch);
    if (s->file.data) {
        file_unmap(&s->file);
    }
    *s = (struct json_stream){0};
}

void json_stream_rewind(struct json_stream *s) {
    s->at = s->begin;
    s->first = false;
    if (s->end - s->at >= 3 && memcmp(s->at, "\xEF\xBB\xBF", 3) == 0) {
        s->at += 3;
    }
}

candid_status json_stream_fail(const struct json_stream *s, candid_error *error, const char *format, ...) {
    char message[400];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    const size_t offset = (size_t)(s->at - s->begin), size = (size_t)(s->end - s->begin);
    return fail(error, CANDID_ERROR_FORMAT, "%s:%d (byte %zu): %s", s->label, json_line_at(s->begin, size, offset),
                offset, message);
}

static void skip_space(struct json_stream *s) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t')) {
        s->at++;
    }
}

char json_peek(struct json_stream *s) {
    skip_space(s);
    return s->at < s->end ? *s->at : '\0';
}

/* "expected …, found …" */
static candid_status unexpected(struct json_stream *s, const char *expected, candid_error *error) {
    skip_space(s);
    if (s->at == s->end) {
        return json_stream_fail(s, error, "expected %s, found the end of the file", expected);
    }
    const size_t left = (size_t)(s->end - s->at);
    struct printable p;
    return json_stream_fail(s, error, "expected %s, found \"%s\"", expected,
                            printable(&p, s->at, left < 20 ? left : 20));
}

candid_status json_enter(struct json_stream *s, char bracket, candid_error *error) {
    if (json_peek(s) != bracket) {
        return unexpected(s, bracket == '{' ? "an object {…}" : "an array […]", error);
    }
    s->at++;
    s->first = true;
    return CANDID_OK;
}

/* Steps over the comma before the next member; false at the closing bracket and on an error. */
static bool next_member(struct json_stream *s, char closing, candid_status *status, candid_error *error) {
    *status = CANDID_OK;
    const char c = json_peek(s);
    const bool first = s->first;
    s->first = false;
    if (c == closing) {
        s->at++;
        return false;
    }
    if (first) {
        return true;
    }
    if (c != ',') {
        *status = unexpected(s, closing == '}' ? "',' or '}'" : "',' or ']'", error);
        return false;
    }
    s->at++;
    return true;
}

bool json_item(struct json_stream *s, candid_status *status, candid_error *error) {
    return next_member(s, ']', status, error);
}

/* The colon between a key and its value. */
static candid_status colon(struct json_stream *s, candid_error *error) {
    if (json_peek(s) != ':') {
        return unexpected(s, "':'", error);
    }
    s->at++;
    return CANDID_OK;
}

bool json_key(struct json_stream *s, const char **key, candid_status *status, candid_error *error) {
    if (!next_member(s, '}', status, error)) {
        return false;
    }
    *status = json_text(s, key, error);
    if (*status == CANDID_OK) {
        *status = colon(s, error);
    }
    return *status == CANDID_OK;
}

/* Four hexadecimal digits behind "\u". */
static candid_status hex4(struct json_stream *s, uint32_t *out, candid_error *error) {
    *out = 0;
    for (int i = 0; i < 4; i++, s->at++) {
        const char c = s->at < s->end ? *s->at : '\0';
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0) {
            return unexpected(s, "four hexadecimal digits behind \\u", error);
        }
        *out = *out << 4 | (uint32_t)digit;
    }
    return CANDID_OK;
}

/* The character of an escape; s->at is behind the backslash. Half a surrogate pair becomes U+FFFD. */
static candid_status escape(struct json_stream *s, uint32_t *out, candid_error *error) {
    static const char letters[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char c = s->at < s->end ? *s->at : '\0';
    const char *letter = c ? strchr(letters, c) : NULL;
    if (letter) {
        s->at++;
        *out = (uint8_t)values[letter - letters];
        return CANDID_OK;
    }
    if (c != 'u') {
        return unexpected(s, "an escape such as \\n", error);
    }
    s->at++;
    TRY(hex4(s, out, error));
    if (*out >= 0xd800 && *out < 0xdc00 && s->end - s->at >= 2 && s->at[0] == '\\' && s->at[1] == 'u') {
        const char *second = s->at;
        uint32_t low;
        s->at += 2;
        TRY(hex4(s, &low, error));
        if (low >= 0xdc00 && low < 0xe000) {
            *out = 0x10000 + ((*out - 0xd800) << 10) + (low - 0xdc00);
            return CANDID_OK;
        }
        s->at = second;
    }
    *out = *out >= 0xd800 && *out < 0xe000 ? 0xfffd : *out;
    return CANDID_OK;
}

/* Steps over a string; its content is decoded to the scratch memory when `keep` is set. */
static candid_status string(struct json_stream *s, bool keep, candid_error *error) {
    if (json_peek(s) != '"') {
        return unexpected(s, "a string", error);
    }
    s->at++;
    for (size_t n = 0;;) {
        if (keep && n + 5 > s->capacity) {
            const size_t capacity = 2 * (n + 5) + 256;
            char *grown = realloc(s->scratch, capacity);
            if (!grown) {
                return fail_memory(error, "a string", capacity);
            }
            s->scratch = grown;
            s->capacity = capacity;
        }
        const uint8_t c = s->at < s->end ? (uint8_t)*s->at : 0;
        if (c < 0x20) {
            return unexpected(s, "the end of a string", error);
        }
        s->at++;
        if (c == '"') {
            if (keep) {
                s->scratch[n] = '\0';
            }
            return CANDID_OK;
        }
        uint32_t escaped = 0;
        if (c == '\\') {
            TRY(escape(s, &escaped, error));
            if (escaped == 0) {
                return json_stream_fail(s, error, "a string with \\u0000");
            }
        }
        if (keep && c == '\\') {
            n += utf8_put(s->scratch + n, escaped);
        } else if (keep) {
            s->scratch[n++] = (char)c;
        }
    }
}

candid_status json_text(struct json_stream *s, const char **out, candid_error *error) {
    TRY(string(s, true, error));
    *out = s->scratch;
    return CANDID_OK;
}

static size_t digits(struct json_stream *s) {
    const char *start = s->at;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9') {
        s->at++;
    }
    return (size_t)(s->at - start);
}

/* Steps over a number. */
static candid_status number(struct json_stream *s, candid_error *error) {
    const char *start = s->at;
    s->at += s->at < s->end && *s->at == '-';
    const bool zero = s->at < s->end && *s->at == '0';
    const size_t n = digits(s);
    bool good = n > 0 && (!zero || n == 1);
    if (good && s->at < s->end && *s->at == '.') {
        s->at++;
        good = digits(s) > 0;
    }
    if (good && s->at < s->end && (*s->at == 'e' || *s->at == 'E')) {
        s->at++;
        s->at += s->at < s->end && (*s->at == '+' || *s->at == '-');
        good = digits(s) > 0;
    }
    if (!good) {
        s->at = start;
        return unexpected(s, "a number", error);
    }
    return CANDID_OK;
}

candid_status json_number(struct json_stream *s, double *out, candid_error *error) {
    json_peek(s);
    const char *start = s->at;
    TRY(number(s, error));
    char text[64];
    const size_t n = (size_t)(s->at - start);
    if (n >= sizeof text) {
        s->at = start;
        return json_stream_fail(s, error, "a number of %zu digits", n);
    }
    memcpy(text, start, n);
    text[n] = '\0';
    *out = strtod(text, NULL);
    return CANDID_OK;
}

candid_status json_integer(struct json_stream *s, int64_t *out, candid_error *error) {
    json_peek(s);
    const char *start = s->at;
    double value = 0;
    TRY(json_number(s, &value, error));
    if (!(value >= -9007199254740992.0 && value <= 9007199254740992.0) || value != (double)(int64_t)value) {
        s->at = start;
        return unexpected(s, "a whole number", error);
    }
    *out = (int64_t)value;
    return CANDID_OK;
}

static candid_status literal(struct json_stream *s, const char *word, candid_error *error) {
    const size_t n = strlen(word);
    if ((size_t)(s->end - s->at) < n || memcmp(s->at, word, n) != 0) {
        return unexpected(s, "a value", error);
    }
    s->at += n;
    return CANDID_OK;
}

static candid_status skip(struct json_stream *s, int depth, candid_error *error) {
    const char c = json_peek(s);
    if (c == '"') {
        return string(s, false, error);
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        return number(s, error);
    }
    if (c != '{' && c != '[') {
        return literal(s, c == 't' ? "true" : c == 'f' ? "false" : "null", error);
    }
    if (depth == MAX_DEPTH) {
        return json_stream_fail(s, error, "more than %d brackets inside each other", MAX_DEPTH);
    }
    s->at++;
    s->first = true;
    candid_status status;
    while (next_member(s, c == '{' ? '}' : ']', &status, error)) {
        if (c == '{') {
            TRY(string(s, false, error));
            TRY(colon(s, error));
        }
        TRY(skip(s, depth + 1, error));
    }
    return status;
}

candid_status json_skip(struct json_stream *s, candid_error *error) {
    return skip(s, 0, error);
}

candid_status json_end(struct json_stream *s, candid_error *error) {
    skip_space(s);
    return s->at < s->end ? unexpected(s, "the end of the file", error) : CANDID_OK;
}
