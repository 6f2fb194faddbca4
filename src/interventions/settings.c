/* Typed access to a method's options, and lists of layers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "core/text.h"
#include "interventions/method.h"

static const cJSON *find(const struct settings *s, const char *name) {
    return cJSON_GetObjectItemCaseSensitive(s->values, name);
}

bool setting_bool(const struct settings *s, const char *name) {
    return cJSON_IsTrue(find(s, name));
}

int setting_int(const struct settings *s, const char *name) {
    const cJSON *item = find(s, name);
    return cJSON_IsNumber(item) ? item->valueint : 0;
}

float setting_float(const struct settings *s, const char *name) {
    const cJSON *item = find(s, name);
    return cJSON_IsNumber(item) ? (float)item->valuedouble : 0.0f;
}

const char *setting_string(const struct settings *s, const char *name) {
    return cJSON_GetStringValue(find(s, name));
}

const cJSON *setting_list(const struct settings *s, const char *name) {
    const cJSON *item = find(s, name);
    return cJSON_IsArray(item) ? item : NULL;
}

/* ---- layers ---- */

#define LAYER_DIGITS 4
#define LAST_LAYER   9999 /* what "a-" means before the model is known */

/* A number at *p, which moves behind it; -1 when there is none or it is too long. */
static int read_number(const char **p) {
    int value = 0, digits = 0;
    while (**p >= '0' && **p <= '9' && digits <= LAYER_DIGITS) {
        value = 10 * value + (*(*p)++ - '0');
        digits++;
    }
    return digits == 0 || digits > LAYER_DIGITS ? -1 : value;
}

/* One item at *p, which moves to the comma or the end behind it. *last is LAST_LAYER for "a-". */
static bool read_item(const char **p, int *first, int *last, bool *is_range) {
    *first = *last = read_number(p);
    *is_range = **p == '-';
    if (*is_range) {
        (*p)++;
        *last = **p == ',' || **p == '\0' ? LAST_LAYER : read_number(p);
    }
    return *first >= 0 && *last >= *first && (**p == ',' || **p == '\0');
}

bool layers_valid(const char *text) {
    if (strcmp(text, "all") == 0) {
        return true;
    }
    for (const char *p = text;; p++) {
        int first, last;
        bool is_range;
        if (!read_item(&p, &first, &last, &is_range)) {
            return false;
        }
        if (*p == '\0') {
            return true;
        }
    }
}

int layers_select(const char *text, int n_layer, bool *out, const char *method, candid_error *error) {
    if (!layers_valid(text)) { /* configurations are checked; this is for callers with their own text */
        struct printable p;
        fail(error, CANDID_ERROR_ARGUMENT,
             "%s: expected layers such as \"5\", \"2-\", \"1,5-18\" or \"all\", found \"%s\"", method,
             printable_string(&p, text));
        return -1;
    }
    memset(out, 0, (size_t)n_layer * sizeof *out);
    const bool all = strcmp(text, "all") == 0;
    for (const char *p = all ? "0-" : text;; p++) {
        int first = 0, last = 0;
        bool is_range = false;
        read_item(&p, &first, &last, &is_range);
        if (!is_range && first >= n_layer) {
            struct printable shown;
            fail(error, CANDID_ERROR_ARGUMENT,
                 "%s: layer %d of \"%s\" does not exist: the model has %d layers, 0 to %d", method, first,
                 printable_string(&shown, text), n_layer, n_layer - 1);
            return -1;
        }
        for (int l = first; l <= last && l < n_layer; l++) {
            out[l] = true;
        }
        if (*p == '\0') {
            break;
        }
    }
    int count = 0;
    for (int l = 0; l < n_layer; l++) {
        count += out[l];
    }
    return count;
}

bool setting_path(const struct settings *s, const char *name, char *path, size_t size) {
    const bool as_is = name[0] == '/' || !s->folder || !s->folder[0];
    const int n = snprintf(path, size, "%s%s%s", as_is ? "" : s->folder, as_is ? "" : "/", name);
    return n >= 0 && (size_t)n < size;
}
