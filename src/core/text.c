/* Foreign text made safe to print. */
#include "core/text.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

size_t text_utf8_length(const char *bytes, size_t n) {
    const uint8_t *p = (const uint8_t *)bytes;
    if (p[0] < 0x80) {
        return 1;
    }
    const size_t length = p[0] >= 0xC2 && p[0] < 0xE0   ? 2
                          : (p[0] & 0xF0) == 0xE0       ? 3
                          : p[0] >= 0xF0 && p[0] < 0xF5 ? 4
                                                        : 0;
    if (length == 0 || length > n) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    const bool overlong = (p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xF0 && p[1] < 0x90);
    const bool beyond = (p[0] == 0xED && p[1] > 0x9F) || (p[0] == 0xF4 && p[1] > 0x8F);
    return overlong || beyond ? 0 : length;
}

size_t text_print(char *buffer, size_t capacity, const char *bytes, size_t size) {
    static const char ellipsis[] = "…";
    const size_t room = capacity - 1;
    size_t n = 0, last_fit = 0; /* last_fit: where the ellipsis can still be written */
    for (size_t i = 0; i < size;) {
        const uint8_t *p = (const uint8_t *)bytes + i;
        const size_t length = text_utf8_length(bytes + i, size - i);
        const bool plain = length > 1 || (length == 1 && p[0] >= 0x20 && p[0] != 0x7F);
        const size_t out = plain ? length : 1;
        if (n + out > room) {
            n = last_fit;
            memcpy(buffer + n, ellipsis, sizeof ellipsis - 1);
            n += sizeof ellipsis - 1;
            break;
        }
        if (plain) {
            memcpy(buffer + n, p, out);
        } else {
            buffer[n] = '?';
        }
        n += out;
        if (n + sizeof ellipsis - 1 <= room) {
            last_fit = n;
        }
        i += length ? length : 1;
    }
    buffer[n] = '\0';
    return n;
}

const char *printable(struct printable *p, const char *bytes, size_t size) {
    text_print(p->s, sizeof p->s, bytes, size);
    return p->s;
}

const char *printable_string(struct printable *p, const char *string) {
    return printable(p, string, strlen(string));
}
