#include "eval/common/python_float.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Significant digits of a finite value without the point, and the power of ten of the first one. */
static int shortest_digits(double value, char digits[20], int *exponent) {
    char text[PYTHON_FLOAT];
    int n = 0;
    do {
        snprintf(text, sizeof text, "%.*e", n, value);
    } while (strtod(text, NULL) != value && ++n < 17);
    int at = 0;
    for (const char *c = text; *c && *c != 'e'; c++) {
        if (*c >= '0' && *c <= '9') {
            digits[at++] = *c;
        }
    }
    digits[at] = '\0';
    *exponent = atoi(strchr(text, 'e') + 1);
    return at;
}

const char *python_float(double value, char buffer[PYTHON_FLOAT]) {
    if (!isfinite(value)) {
        snprintf(buffer, PYTHON_FLOAT, "%s", isnan(value) ? "nan" : value < 0 ? "-inf" : "inf");
        return buffer;
    }
    char digits[20];
    int exponent;
    const int n = shortest_digits(fabs(value), digits, &exponent);
    const char *sign = signbit(value) ? "-" : "";
    if (exponent < -4 || exponent >= 16) {
        snprintf(buffer, PYTHON_FLOAT, "%s%c%s%se%+03d", sign, digits[0], n > 1 ? "." : "", digits + 1, exponent);
    } else if (exponent < 0) {
        snprintf(buffer, PYTHON_FLOAT, "%s0.%.*s%s", sign, -exponent - 1, "000", digits);
    } else if (n <= exponent + 1) {
        snprintf(buffer, PYTHON_FLOAT, "%s%s%.*s.0", sign, digits, exponent + 1 - n, "0000000000000000");
    } else {
        snprintf(buffer, PYTHON_FLOAT, "%s%.*s.%s", sign, exponent + 1, digits, digits + exponent + 1);
    }
    return buffer;
}

double python_round1(double value) {
    char text[352]; /* the largest double has 309 digits */
    snprintf(text, sizeof text, "%.1f", value);
    return strtod(text, NULL);
}
