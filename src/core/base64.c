#include "core/base64.h"

void base64_write(FILE *f, const uint8_t *data, size_t size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size; i += 3) {
        const size_t left = size - i;
        const unsigned bits =
            (unsigned)data[i] << 16 | (left > 1 ? (unsigned)data[i + 1] << 8 : 0) | (left > 2 ? data[i + 2] : 0);
        fputc(digits[bits >> 18], f);
        fputc(digits[bits >> 12 & 63], f);
        fputc(left > 1 ? digits[bits >> 6 & 63] : '=', f);
        fputc(left > 2 ? digits[bits & 63] : '=', f);
    }
}
