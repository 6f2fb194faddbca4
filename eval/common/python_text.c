#include "eval/common/python_text.h"

#include <string.h>

size_t python_space(const char *text) {
    const unsigned char *c = (const unsigned char *)text;
    if ((c[0] >= 0x09 && c[0] <= 0x0D) || (c[0] >= 0x1C && c[0] <= 0x20)) {
        return 1;
    }
    if (c[0] == 0xC2 && (c[1] == 0x85 || c[1] == 0xA0)) { /* next line, no-break space */
        return 2;
    }
    static const char *const wide[] = {"\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004",
                                       "\u2005", "\u2006", "\u2007", "\u2008", "\u2009", "\u200A",
                                       "\u2028", "\u2029", "\u202F", "\u205F", "\u3000"};
    for (size_t i = 0; c[0] >= 0xE1 && c[0] <= 0xE3 && i < sizeof wide / sizeof *wide; i++) {
        if (strncmp(text, wide[i], 3) == 0) {
            return 3;
        }
    }
    return 0;
}

const char *python_strip(const char *text, size_t *size) {
    const char *end = text + *size;
    for (size_t n; text < end && (n = python_space(text)) > 0 && text + n <= end; text += n) {
    }
    for (const char *last = end; last > text;) {
        do { /* to the first byte of the character before */
            last--;
        } while (last > text && (*last & 0xC0) == 0x80);
        if (last + python_space(last) != end) {
            break;
        }
        end = last;
    }
    *size = (size_t)(end - text);
    return text;
}
