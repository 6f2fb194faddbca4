/* Lines of items in JSON text: a scanner that knows strings and brackets, and nothing of values. */
#include "core/json_lines.h"

#include <limits.h>
#include <string.h>

struct scanner {
    const char *text; /* [size] */
    size_t size, at;
};

int json_line_at(const char *text, size_t size, size_t offset) {
    int line = 1;
    for (size_t i = 0; i < size && i < offset && line < INT_MAX; i++) {
        line += text[i] == '\n' && i + 1 < size; /* the line break that ends the text begins no line */
    }
    return line;
}

/* The byte at the scanner, 0 at the end. */
static char peek(const struct scanner *s) {
    return s->at < s->size ? s->text[s->at] : '\0';
}

/* cJSON takes every control character for a space. */
static void skip_space(struct scanner *s) {
    while (s->at < s->size && (unsigned char)s->text[s->at] <= ' ') {
        s->at++;
    }
}

static void skip_string(struct scanner *s) {
    s->at++;
    while (s->at < s->size && s->text[s->at] != '"') {
        s->at += s->text[s->at] == '\\' ? 2 : 1;
    }
    s->at = s->at < s->size ? s->at + 1 : s->size;
}

static void skip_value(struct scanner *s) {
    size_t open = 0;
    while (s->at < s->size) {
        const char c = s->text[s->at];
        if (open == 0 && (c == ',' || c == ']' || c == '}')) {
            return;
        }
        if (c == '"') {
            skip_string(s);
            continue;
        }
        open += c == '[' || c == '{';
        open -= c == ']' || c == '}';
        s->at++;
    }
}

/* From the opening bracket of a container into its item `index`. *begin: where the item begins; the scanner is at its
 * value. Returns 0 when there is no such item. */
static int enter(struct scanner *s, int index, size_t *begin) {
    const char bracket = peek(s);
    if (bracket != '{' && bracket != '[') {
        return 0;
    }
    s->at++;
    for (int i = 0;; i++) {
        skip_space(s);
        *begin = s->at;
        if (bracket == '{') {
            if (peek(s) != '"') {
                return 0;
            }
            skip_string(s);
            skip_space(s);
            s->at += peek(s) == ':';
            skip_space(s);
        }
        if (i == index) {
            return 1;
        }
        skip_value(s);
        if (peek(s) != ',') {
            return 0;
        }
        s->at++;
    }
}

int json_line_of(const char *text, size_t size, const int *path, int depth) {
    static const char mark[] = "\xEF\xBB\xBF"; /* byte order mark */
    struct scanner s = {text, size, size >= 3 && memcmp(text, mark, 3) == 0 ? 3 : 0};
    skip_space(&s);
    size_t begin = s.at;
    for (int level = 0; level < depth && enter(&s, path[level], &begin); level++) {
    }
    return json_line_at(text, size, begin);
}
