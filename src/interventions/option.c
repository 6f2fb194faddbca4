/* Options: their types as a check and in words. */
#include "interventions/option.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/json.h"
#include "core/status.h"
#include "interventions/config.h"

const char *const preset_names[PRESET_COUNT] = {"recommended", "paper", "code"};
const char *const builtin_keys[] = {"preset", "enabled", "comment", "source", NULL};

const char *option_default(const struct method_option *o, enum preset preset) {
    const char *own = preset == PRESET_PAPER ? o->paper : preset == PRESET_CODE ? o->code : NULL;
    return own ? own : o->recommended;
}

bool option_has_default(const struct method_option *o, const char *json) {
    for (int p = 0; p < PRESET_COUNT; p++) {
        if (strcmp(option_default(o, (enum preset)p), json) == 0) {
            return true;
        }
    }
    return false;
}

bool option_admits_null(const struct method_option *o) {
    return o->type == OPTION_INTS || o->type == OPTION_HEADS || o->type == OPTION_PATH || o->type == OPTION_TEXT ||
           o->type == OPTION_METHODS || option_has_default(o, "null");
}

static bool is_index_pair(const cJSON *item) {
    int64_t v;
    return cJSON_IsArray(item) && cJSON_GetArraySize(item) == 2 && json_is_int(item->child, 0, OPTION_MAX_INDEX, &v) &&
           json_is_int(item->child->next, 0, OPTION_MAX_INDEX, &v);
}

/* Integers only compare with whole numbers, so the bounds may be fractions or infinite. */
static bool is_int_within(const cJSON *item, double min, double max) {
    int64_t v;
    return json_is_int(item, INT32_MIN, INT32_MAX, &v) && (double)v >= min && (double)v <= max;
}

static bool list_accepts(const struct method_option *o, const cJSON *list, int *element) {
    if (!cJSON_IsArray(list)) {
        return false;
    }
    int index = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        if (o->type == OPTION_INTS ? !is_int_within(item, o->min, o->max) : !is_index_pair(item)) {
            *element = index;
            return false;
        }
        index++;
    }
    return true;
}

static bool is_choice(const struct method_option *o, const char *text) {
    for (const char *const *c = o->choices; text && *c; c++) {
        if (strcmp(*c, text) == 0) {
            return true;
        }
    }
    return false;
}

bool option_accepts(const struct method_option *o, const cJSON *value, int *element) {
    int unused;
    element = element ? element : &unused;
    *element = -1;
    if (cJSON_IsNull(value)) {
        return option_admits_null(o);
    }
    const char *text = cJSON_GetStringValue(value);
    switch (o->type) {
    case OPTION_BOOL: return cJSON_IsBool(value);
    case OPTION_INT: return is_int_within(value, o->min, o->max);
    case OPTION_FLOAT:
        return cJSON_IsNumber(value) && isfinite(value->valuedouble) && value->valuedouble >= o->min &&
               value->valuedouble <= o->max;
    case OPTION_CHOICE: return is_choice(o, text);
    case OPTION_LAYERS:
        return text && (layers_valid(text) || (strcmp(text, "auto") == 0 && option_has_default(o, "\"auto\"")));
    case OPTION_INTS:
    case OPTION_HEADS: return list_accepts(o, value, element);
    case OPTION_PATH:
    case OPTION_TEXT: return text && text[0] != '\0';
    case OPTION_METHODS: return cJSON_IsArray(value); /* the reader looks at what is in it */
    }
    return false;
}

/* "from 0 to 1", "of at least 0", "" */
static const char *range_text(const struct method_option *o, char buffer[80]) {
    buffer[0] = '\0';
    if (isfinite(o->min) && isfinite(o->max)) {
        snprintf(buffer, 80, " from %.12g to %.12g", o->min, o->max);
    } else if (isfinite(o->min)) {
        snprintf(buffer, 80, " of at least %.12g", o->min);
    } else if (isfinite(o->max)) {
        snprintf(buffer, 80, " of at most %.12g", o->max);
    }
    return buffer;
}

const char *option_expected(const struct method_option *o, bool element, char buffer[OPTION_EXPECTED]) {
    const char *or_null = option_admits_null(o) ? " or null" : "";
    char range[80];
    range_text(o, range);
    size_t n = 0;
    switch (o->type) {
    case OPTION_BOOL: snprintf(buffer, OPTION_EXPECTED, "true or false%s", or_null); break;
    case OPTION_INT: snprintf(buffer, OPTION_EXPECTED, "an integer%s%s", range, or_null); break;
    case OPTION_FLOAT: snprintf(buffer, OPTION_EXPECTED, "a number%s%s", range, or_null); break;
    case OPTION_CHOICE:
        for (const char *const *c = o->choices; *c && n < OPTION_EXPECTED; c++) {
            const char *join = c == o->choices ? "" : c[1] || or_null[0] ? ", " : " or ";
            n += (size_t)snprintf(buffer + n, OPTION_EXPECTED - n, "%s\"%s\"", join, *c);
        }
        if (n < OPTION_EXPECTED) {
            snprintf(buffer + n, OPTION_EXPECTED - n, "%s", or_null);
        }
        break;
    case OPTION_LAYERS:
        snprintf(buffer, OPTION_EXPECTED, "layers as text like \"5\", \"2-\", \"1,5-18\"%s%s",
                 option_has_default(o, "\"auto\"") ? ", \"all\" or \"auto\"" : " or \"all\"", or_null);
        break;
    case OPTION_INTS:
        snprintf(buffer, OPTION_EXPECTED, "%s%s%s", element ? "an integer" : "a list of integers", range,
                 element ? "" : " or null");
        break;
    case OPTION_HEADS:
        snprintf(buffer, OPTION_EXPECTED, "%s of integers from 0 to %d%s",
                 element ? "a pair [layer, head]" : "a list of pairs [layer, head]", OPTION_MAX_INDEX,
                 element ? "" : ", or null");
        break;
    case OPTION_PATH: snprintf(buffer, OPTION_EXPECTED, "a file name or null"); break;
    case OPTION_TEXT: snprintf(buffer, OPTION_EXPECTED, "a text or null"); break;
    case OPTION_METHODS: snprintf(buffer, OPTION_EXPECTED, "a list of methods or null"); break;
    }
    return buffer;
}

/* ---- tables ---- */

static bool is_key(const char *name) {
    return name && name[0] && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(name);
}

static candid_status check_option(const struct method *m, const struct method_option *o, candid_error *error) {
    const bool numbers = o->type == OPTION_INT || o->type == OPTION_FLOAT || o->type == OPTION_INTS;
    if (!o->recommended || !o->doc || !o->doc[0] || (o->type == OPTION_CHOICE && (!o->choices || !o->choices[0]))) {
        return fail(error, CANDID_ERROR_INTERNAL, "option %s.%s: expected recommended value, doc and choices", m->name,
                    o->name);
    }
    if (numbers && !(o->min < o->max)) {
        return fail(error, CANDID_ERROR_INTERNAL, "option %s.%s: expected min below max, found %g and %g", m->name,
                    o->name, o->min, o->max);
    }
    for (int p = 0; p < PRESET_COUNT; p++) {
        const char *text = option_default(o, (enum preset)p);
        cJSON *value = cJSON_ParseWithOpts(text, NULL, true);
        const bool accepted = value && option_accepts(o, value, NULL);
        cJSON_Delete(value);
        if (!accepted) {
            char expected[OPTION_EXPECTED];
            return fail(error, CANDID_ERROR_INTERNAL, "option %s.%s: expected %s as %s default, found %s", m->name,
                        o->name, option_expected(o, false, expected), preset_names[p], text);
        }
    }
    return CANDID_OK;
}

static candid_status check_option_name(const struct method *m, int index, candid_error *error) {
    const char *name = m->options[index].name;
    bool taken = !is_key(name);
    for (const char *const *k = builtin_keys; !taken && *k; k++) {
        taken = strcmp(*k, name) == 0;
    }
    for (int i = 0; !taken && i < index; i++) {
        taken = strcmp(m->options[i].name, name) == 0;
    }
    return taken ? fail(error, CANDID_ERROR_INTERNAL, "option %d of %s: the name %s is taken or no key", index, m->name,
                        name ? name : "(NULL)")
                 : CANDID_OK;
}

candid_status methods_check(const struct method *const *table, candid_error *error) {
    for (int i = 0; table[i]; i++) {
        const struct method *m = table[i];
        bool taken = !is_key(m->name);
        for (const struct config_section *s = config_sections; !taken && s->name; s++) {
            taken = strcmp(s->name, m->name) == 0;
        }
        for (int j = 0; !taken && j < i; j++) {
            taken = strcmp(table[j]->name, m->name) == 0;
        }
        if (taken) {
            return fail(error, CANDID_ERROR_INTERNAL, "method %d: the name %s is taken or no key", i,
                        m->name ? m->name : "(NULL)");
        }
        if (!m->title || !m->edits || !m->cost || !m->citation || (m->n_options > 0 && !m->options)) {
            return fail(error, CANDID_ERROR_INTERNAL, "method %s: expected title, edits, cost and citation", m->name);
        }
        for (int o = 0; o < m->n_options; o++) {
            TRY(check_option_name(m, o, error));
            TRY(check_option(m, &m->options[o], error));
        }
    }
    return CANDID_OK;
}
