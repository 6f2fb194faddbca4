#include "eval/common/unicode.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"

/* Every step-th code point from first to last. */
struct range {
    uint32_t first, last, step;
};

/* Their lower-case forms are `difference` away. */
struct mapping {
    uint32_t first, last, step;
    int32_t difference;
};

#include "eval/common/unicode_ranges.inc"

static bool in_ranges(const struct range *ranges, size_t n, uint32_t c) {
    size_t low = 0, high = n;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (ranges[middle].last < c) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < n && c >= ranges[low].first && (c - ranges[low].first) % ranges[low].step == 0;
}

#define IN(ranges, c) in_ranges(ranges, sizeof(ranges) / sizeof *(ranges), c)

bool unicode_is_word(uint32_t c) {
    if (c < 0x80) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    }
    return IN(word_ranges, c);
}

bool unicode_is_decimal(uint32_t c) {
    return c < 0x80 ? c >= '0' && c <= '9' : IN(decimal_ranges, c);
}

bool unicode_is_digit(uint32_t c) {
    return c < 0x80 ? c >= '0' && c <= '9' : IN(digit_ranges, c);
}

bool unicode_is_lower(uint32_t c) {
    return c < 0x80 ? c >= 'a' && c <= 'z' : IN(lower_ranges, c);
}

bool unicode_is_space(uint32_t c) {
    if (c < 0x80) {
        return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
    }
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

uint32_t unicode_lower(uint32_t c) {
    if (c < 0x80) {
        return c >= 'A' && c <= 'Z' ? c + 32 : c;
    }
    size_t low = 0, high = sizeof lower_map / sizeof *lower_map;
    const size_t n = high;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (lower_map[middle].last < c) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    const struct mapping *m = &lower_map[low < n ? low : 0];
    const bool inside = low < n && c >= m->first && (c - m->first) % m->step == 0;
    return inside ? (uint32_t)((int32_t)c + m->difference) : c;
}

candid_status text32_reserve(struct text32 *text, size_t n, candid_error *error) {
    if (text->capacity - text->n >= n) {
        return CANDID_OK;
    }
    const size_t capacity = 2 * (text->n + n) + 64;
    uint32_t *grown = realloc(text->c, capacity * sizeof *grown);
    if (!grown) {
        return fail_memory(error, "a text", capacity * sizeof *grown);
    }
    text->c = grown;
    text->capacity = capacity;
    return CANDID_OK;
}

void text32_free(struct text32 *text) {
    free(text->c);
    *text = (struct text32){0};
}

/* The next character of s, U+FFFD for a byte that begins none; *used bytes of it. */
static uint32_t utf8_next(const uint8_t *s, size_t size, size_t *used) {
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t b = s[0];
    const size_t length = b < 0x80                ? 1
                          : b >= 0xc2 && b < 0xe0 ? 2
                          : b >= 0xe0 && b < 0xf0 ? 3
                          : b >= 0xf0 && b < 0xf5 ? 4
                                                  : 0;
    *used = 1;
    if (length == 1) {
        return b;
    }
    if (length == 0 || length > size) {
        return 0xfffd;
    }
    uint32_t c = b & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0xfffd;
        }
        c = c << 6 | (s[i] & 0x3f);
    }
    if (c < smallest[length] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
        return 0xfffd;
    }
    *used = length;
    return c;
}

candid_status text32_decode(struct text32 *text, const char *utf8, size_t size, candid_error *error) {
    text->n = 0;
    TRY(text32_reserve(text, size, error));
    for (size_t at = 0, used; at < size; at += used) {
        text->c[text->n++] = utf8_next((const uint8_t *)utf8 + at, size - at, &used);
    }
    return CANDID_OK;
}

/* The one character whose lower-case form is two: I with a dot above. */
#define CAPITAL_I_WITH_DOT 0x130
#define DOT_ABOVE          0x307

candid_status text32_lower(struct text32 *text, candid_error *error) {
    size_t n_more = 0;
    for (size_t i = 0; i < text->n; i++) {
        n_more += text->c[i] == CAPITAL_I_WITH_DOT;
    }
    TRY(text32_reserve(text, n_more, error));
    size_t to = text->n + n_more;
    const size_t n = to;
    for (size_t i = text->n; i-- > 0;) {
        if (text->c[i] == CAPITAL_I_WITH_DOT) {
            text->c[--to] = DOT_ABOVE;
            text->c[--to] = 'i';
        } else {
            text->c[--to] = unicode_lower(text->c[i]);
        }
    }
    text->n = n;
    return CANDID_OK;
}

size_t utf8_put(char *to, uint32_t c) {
    if (c < 0x80) {
        to[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        to[0] = (char)(0xc0 | c >> 6);
        to[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        to[0] = (char)(0xe0 | c >> 12);
        to[1] = (char)(0x80 | (c >> 6 & 0x3f));
        to[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    to[0] = (char)(0xf0 | c >> 18);
    to[1] = (char)(0x80 | (c >> 12 & 0x3f));
    to[2] = (char)(0x80 | (c >> 6 & 0x3f));
    to[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}
