/* Escaping and numbers. */
#include "eval/report/write.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/text.h"
#include "eval/report/rules.h"

#define REPLACEMENT "\xEF\xBF\xBD"

/* The next character of the text: its length, and in *out (of that length) what stands for it. Line ends and tabs pass.
 */
static size_t next_character(const char *text, size_t size, const char **out, size_t *out_size) {
    const size_t n = text_utf8_length(text, size);
    const unsigned char c = (unsigned char)text[0];
    const bool control = n == 1 && ((c < 0x20 && c != '\n' && c != '\t' && c != '\r') || c == 0x7F);
    const bool bad = n == 0 || control;
    *out = bad ? REPLACEMENT : text;
    *out_size = bad ? sizeof REPLACEMENT - 1 : n;
    return n ? n : 1;
}

void write_html(FILE *f, const char *text) {
    const char *out;
    size_t n;
    for (size_t left = strlen(text), used; left > 0; text += used, left -= used) {
        used = next_character(text, left, &out, &n);
        switch (*out) {
        case '&': fputs("&amp;", f); break;
        case '<': fputs("&lt;", f); break;
        case '>': fputs("&gt;", f); break;
        case '"': fputs("&quot;", f); break;
        case '\'': fputs("&#39;", f); break;
        default: fwrite(out, 1, n, f);
        }
    }
}

void write_json_part(FILE *f, const char *text, size_t size) {
    const char *out;
    size_t n;
    for (size_t used; size > 0; text += used, size -= used) {
        used = next_character(text, size, &out, &n);
        const bool separator = n == 3 && (memcmp(out, "\xE2\x80\xA8", 3) == 0 || memcmp(out, "\xE2\x80\xA9", 3) == 0);
        if (separator) {
            fprintf(f, "\\u202%c", out[2] == '\xA8' ? '8' : '9');
        } else if (strchr("<>&\n\r\t", *out)) {
            fprintf(f, "\\u%04x", (unsigned)*out);
        } else if (*out == '"' || *out == '\\') {
            fprintf(f, "\\%c", *out);
        } else {
            fwrite(out, 1, n, f);
        }
    }
}

void write_json(FILE *f, const char *text) {
    fputc('"', f);
    write_json_part(f, text, strlen(text));
    fputc('"', f);
}

void write_markdown(FILE *f, const char *text) {
    const char *out;
    size_t n;
    for (size_t left = strlen(text), used; left > 0; text += used, left -= used) {
        used = next_character(text, left, &out, &n);
        if (strchr("\n\r\t", *out)) {
            fputc(' ', f);
        } else if (strchr("|\\`*_[]<>&#~", *out)) {
            fprintf(f, "\\%c", *out);
        } else {
            fwrite(out, 1, n, f);
        }
    }
}

void write_csv(FILE *f, const char *text) {
    const bool quoted = strpbrk(text, ",\"\n\r") != NULL;
    const char *out;
    size_t n;
    fputs(quoted ? "\"" : "", f);
    for (size_t left = strlen(text), used; left > 0; text += used, left -= used) {
        used = next_character(text, left, &out, &n);
        fputs(*out == '"' ? "\"" : "", f);
        fwrite(out, 1, n, f);
    }
    fputs(quoted ? "\"" : "", f);
}

void write_double(FILE *f, double value) {
    char text[40];
    for (int digits = 15; digits <= 17 && !isnan(value); digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            fputs(text, f);
            return;
        }
    }
}

void write_count(FILE *f, double value) {
    char digits[40];
    if (isnan(value) || snprintf(digits, sizeof digits, "%.0f", value) >= 30) {
        fputs("–", f);
        return;
    }
    const size_t n = strlen(digits);
    for (size_t i = 0; i < n; i++) {
        fputs(i > 0 && (n - i) % 3 == 0 && digits[i - 1] != '-' ? "," : "", f);
        fputc(digits[i], f);
    }
}

const char *show_value(struct shown *to, const struct report_group *g, const struct report_metric *m, double value,
                       bool sign) {
    if (isnan(value)) {
        return strcpy(to->s, "–");
    }
    const int decimals = m->unit == UNIT_FRACTION && g->rules->yes_no ? 2 : 1;
    char digits[40];
    snprintf(digits, sizeof digits, "%.*f", decimals, fabs(m->unit == UNIT_FRACTION ? 100 * value : value));
    const bool zero = strspn(digits, "0.") == strlen(digits);
    snprintf(to->s, sizeof to->s, "%s%s", zero ? (sign ? "±" : "") : value < 0 ? "−" : sign ? "+" : "", digits);
    return to->s;
}

const char *show_p(struct shown *to, double p) {
    if (isnan(p)) {
        to->s[0] = '\0';
    } else if (p < 0.001) {
        strcpy(to->s, "p < 0.001");
    } else {
        snprintf(to->s, sizeof to->s, "p = %.3f", p);
    }
    return to->s;
}
