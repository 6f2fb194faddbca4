/* Configurations: reading, checking, changing and resolving them. */
#include "interventions/config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/crc32.h"
#include "core/file.h"
#include "core/json.h"
#include "core/json_lines.h"
#include "core/nearest.h"
#include "core/status.h"
#include "core/text.h"
#include "interventions/option.h"

/* What was said about one method. */
struct choice {
    bool active;
    enum preset preset;
    cJSON *given; /* object of the values given, or NULL; owned */
};

struct entry {
    struct choice choice;
    cJSON *values; /* object of all options; owned, NULL until the method is mentioned */
};

struct candid_config {
    const struct method *const *table; /* NULL-terminated, borrowed */
    int n_methods;
    struct entry *entries; /* [n_methods], in the table's order */
    char *folder;          /* that paths are relative to */
    uint32_t checksum;
};

/* Where a value comes from, for messages. */
struct config_source {
    const char *label; /* printable name of the file, or the assignment */
    const char *text;  /* [size] the file's text; NULL for an assignment */
    size_t size;
    candid_error *error;
};

/* An item's place: `path` as for json_line_of. */
struct place {
    const struct config_source *source;
    int path[6];
    int depth;
    const char *method; /* NULL at the top level */
    bool listed;        /* the method is an element of a list, which names it by "method" */
};

static candid_status reject(const struct place *at, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "FILE:LINE: key METHOD.KEY: …" or "assignment "…": key METHOD.KEY: …" */
static candid_status reject(const struct place *at, const char *key, const char *format, ...) {
    const struct config_source *s = at->source;
    char what[300];
    struct printable p;
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    printable_string(&p, key ? key : "");
    const char *method = at->method ? at->method : "", *dot = at->method && key ? "." : "";
    if (!s->text) {
        return fail(s->error, CANDID_ERROR_ARGUMENT, "assignment \"%s\": key %s%s%s: %s", s->label, method, dot, p.s,
                    what);
    }
    return fail(s->error, CANDID_ERROR_FORMAT, "%s:%d: key %s%s%s: %s", s->label,
                json_line_of(s->text, s->size, at->path, at->depth), method, dot, p.s, what);
}

static candid_status reject_value(const struct place *at, const char *key, const char *expected, const cJSON *value) {
    char found[JSON_FOUND];
    return reject(at, key, "expected %s, found %s", expected, json_found(value, found));
}

/* A key may stand once in an object; cJSON keeps both. */
static candid_status reject_repeated(const struct place *at, const cJSON *object, const cJSON *item) {
    int index = 0;
    for (const cJSON *before = object->child; before != item; before = before->next, index++) {
        if (strcmp(before->string, item->string) != 0) {
            continue;
        }
        const struct config_source *s = at->source;
        struct place first = *at;
        first.path[first.depth - 1] = index;
        return s->text ? reject(at, item->string, "expected once, found again (first in line %d)",
                                json_line_of(s->text, s->size, first.path, first.depth))
                       : reject(at, item->string, "expected once, found again");
    }
    return CANDID_OK;
}

/* ---- one method ---- */

static void choice_clear(struct choice *c) {
    cJSON_Delete(c->given);
    *c = (struct choice){0};
}

static candid_status choice_copy(const struct choice *from, struct choice *out, candid_error *error) {
    *out = *from;
    out->given = from->given ? cJSON_Duplicate(from->given, true) : cJSON_CreateObject();
    return out->given ? CANDID_OK : fail_memory(error, "a configuration", sizeof(cJSON));
}

/* The value with every option that is not given taken from the preset. */
static candid_status resolve(const struct method *m, const struct choice *c, cJSON **out, candid_error *error) {
    cJSON *values = cJSON_CreateObject();
    for (int i = 0; values && i < m->n_options; i++) {
        const struct method_option *o = &m->options[i];
        const cJSON *given = cJSON_GetObjectItemCaseSensitive(c->given, o->name);
        cJSON *value = given ? cJSON_Duplicate(given, true) : cJSON_Parse(option_default(o, c->preset));
        if (!value || !cJSON_AddItemToObject(values, o->name, value)) {
            cJSON_Delete(value);
            cJSON_Delete(values);
            values = NULL;
        }
    }
    *out = values;
    return values ? CANDID_OK : fail_memory(error, "a configuration", sizeof(cJSON));
}

/* Makes `draft`, which it empties, the entry's choice. */
static candid_status commit(struct entry *e, const struct method *m, struct choice *draft, candid_error *error) {
    cJSON *values;
    const candid_status status = resolve(m, draft, &values, error);
    if (status == CANDID_OK) {
        cJSON_Delete(e->values);
        choice_clear(&e->choice);
        *e = (struct entry){*draft, values};
        *draft = (struct choice){0};
    }
    return status;
}

static const struct method_option *find_option(const struct method *m, const char *name) {
    for (int i = 0; i < m->n_options; i++) {
        if (strcmp(m->options[i].name, name) == 0) {
            return &m->options[i];
        }
    }
    return NULL;
}

static candid_status unknown_option(const struct place *at, const struct method *m, const char *key) {
    const char *near = NULL;
    for (int i = 0; i < m->n_options; i++) {
        near = nearest_name(key, near, m->options[i].name);
    }
    for (const char *const *k = builtin_keys; *k; k++) {
        near = nearest_name(key, near, *k);
    }
    if (near) {
        return reject(at, key, "%s has no such option; did you mean \"%s\"?", m->name, near);
    }
    char names[200] = "";
    size_t n = 0;
    for (int i = 0; i < m->n_options && n < sizeof names; i++) {
        n += (size_t)snprintf(names + n, sizeof names - n, "%s, ", m->options[i].name);
    }
    if (n < sizeof names) {
        snprintf(names + n, sizeof names - n, "preset or enabled");
    }
    return reject(at, key, "%s has no such option; expected one of %s", m->name, names);
}

static candid_status read_preset(struct choice *c, const struct place *at, const cJSON *value) {
    for (int p = 0; p < PRESET_COUNT; p++) {
        if (cJSON_IsString(value) && strcmp(value->valuestring, preset_names[p]) == 0) {
            c->preset = (enum preset)p;
            return CANDID_OK;
        }
    }
    return reject_value(at, "preset", "\"recommended\", \"paper\" or \"code\"", value);
}

/* Relative paths in assignments are relative to the current directory, those of a file to its folder: the former are
 * kept absolute where the two may differ. */
static candid_status absolute_path(cJSON *value, candid_error *error) {
    char *here = getcwd(NULL, 0), *path = NULL;
    candid_status status = here ? file_join(here, value->valuestring, &path, error)
                                : fail(error, CANDID_ERROR_IO, "the current directory: %s", strerror(errno));
    if (status == CANDID_OK && !cJSON_SetValuestring(value, path)) {
        status = fail_memory(error, "a path", strlen(path));
    }
    free(path);
    free(here);
    return status;
}

static candid_status keep_value(struct choice *c, const struct method_option *o, const cJSON *value, bool make_absolute,
                                candid_error *error) {
    cJSON *copy = cJSON_Duplicate(value, true);
    if (!copy) {
        return fail_memory(error, "an option", sizeof *copy);
    }
    candid_status status = CANDID_OK;
    if (make_absolute && o->type == OPTION_PATH && cJSON_IsString(copy) && copy->valuestring[0] != '/') {
        status = absolute_path(copy, error);
    }
    if (status == CANDID_OK) {
        cJSON_DeleteItemFromObjectCaseSensitive(c->given, o->name);
        if (cJSON_AddItemToObject(c->given, o->name, copy)) {
            return CANDID_OK;
        }
        status = fail_memory(error, "an option", sizeof *copy);
    }
    cJSON_Delete(copy);
    return status;
}

static candid_status change(struct candid_config *config, int i, const struct place *at, const char *key,
                            const cJSON *value);

static int find_method(const struct candid_config *config, const char *name) {
    for (int i = 0; i < config->n_methods; i++) {
        if (strcmp(config->table[i]->name, name) == 0) {
            return i;
        }
    }
    return -1;
}

/* One element of a list of methods: its name, or {"method": NAME, options}. at: the element. */
static candid_status read_listed(struct candid_config *config, const struct place *at, const char *key,
                                 const cJSON *item) {
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(item, "method");
    const char *name = cJSON_GetStringValue(cJSON_IsObject(item) ? member : item);
    if (!name) {
        return reject_value(at, key, "the name of a method or an object with \"method\": NAME", item);
    }
    const int i = find_method(config, name);
    if (i < 0 || config->table[i]->kind != METHOD_CONTRAST) {
        const char *near = NULL;
        char names[160] = "";
        size_t n = 0;
        for (int k = 0; k < config->n_methods; k++) {
            if (config->table[k]->kind == METHOD_CONTRAST) {
                const char *one = config->table[k]->name;
                near = nearest_name(name, near, one);
                n += n < sizeof names ? (size_t)snprintf(names + n, sizeof names - n, "%s%s", n ? ", " : "", one) : 0;
            }
        }
        struct printable p;
        printable_string(&p, name);
        return i >= 0 ? reject(at, key, "\"%s\" is no contrast: switch it on by its own key", p.s)
               : near ? reject(at, key, "there is no contrast \"%s\"; did you mean \"%s\"?", p.s, near)
                      : reject(at, key, "there is no contrast \"%s\"; contrasts are %s", p.s, names);
    }
    struct place inner = *at;
    inner.method = config->table[i]->name;
    inner.listed = true;
    if (cJSON_IsObject(item)) {
        return change(config, i, &inner, NULL, item);
    }
    const cJSON on = {.type = cJSON_True};
    return change(config, i, &inner, NULL, &on);
}

static candid_status read_methods(struct candid_config *config, const struct place *at, const char *key,
                                  const cJSON *list) {
    if (!at->source->text) {
        return reject(at, key, "a list of methods stands in a file; here write METHOD=true or METHOD.OPTION=VALUE");
    }
    struct place inner = *at;
    inner.depth++;
    int index = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        inner.path[inner.depth - 1] = index++;
        TRY(read_listed(config, &inner, key, item));
    }
    return CANDID_OK;
}

/* One key of a method's object. */
static candid_status read_key(struct candid_config *config, const struct method *m, struct choice *c,
                              const struct place *at, const char *key, const cJSON *value) {
    if (strcmp(key, "preset") == 0) {
        return read_preset(c, at, value);
    }
    if (strcmp(key, "enabled") == 0) {
        c->active = cJSON_IsTrue(value);
        return cJSON_IsBool(value) ? CANDID_OK : reject_value(at, key, "true or false", value);
    }
    if (strcmp(key, "comment") == 0 || strcmp(key, "source") == 0) {
        return cJSON_IsString(value) ? CANDID_OK : reject_value(at, key, "a string", value);
    }
    const struct method_option *o = find_option(m, key);
    if (!o) {
        return unknown_option(at, m, key);
    }
    if (o->type == OPTION_METHODS && cJSON_IsArray(value)) {
        return read_methods(config, at, key, value);
    }
    int element;
    if (!option_accepts(o, value, &element)) {
        char expected[OPTION_EXPECTED];
        struct place where = *at;
        option_expected(o, element >= 0, expected);
        if (element < 0) {
            return reject_value(&where, key, expected, value);
        }
        where.path[where.depth++] = element;
        char name[80];
        snprintf(name, sizeof name, "%s[%d]", key, element);
        return reject_value(&where, name, expected, cJSON_GetArrayItem(value, element));
    }
    const bool elsewhere = !at->source->text && strcmp(config->folder, ".") != 0;
    return keep_value(c, o, value, elsewhere, at->source->error);
}

/* A method's value: true, false, or an object that activates it unless it says "enabled": false. */
static candid_status read_choice(struct candid_config *config, const struct method *m, struct choice *c,
                                 const struct place *at, const cJSON *value) {
    if (cJSON_IsBool(value)) {
        c->active = cJSON_IsTrue(value);
        return CANDID_OK;
    }
    if (!cJSON_IsObject(value)) {
        return reject_value(at, NULL, "true, false or an object of options", value);
    }
    c->active = true;
    struct place inner = *at;
    int index = 0;
    inner.depth++;
    inner.listed = false;
    for (const cJSON *item = value->child; item; item = item->next) {
        inner.path[inner.depth - 1] = index++;
        TRY(reject_repeated(&inner, value, item));
        if (!at->listed || strcmp(item->string, "method") != 0) {
            TRY(read_key(config, m, c, &inner, item->string, item));
        }
    }
    return CANDID_OK;
}

/* Changes entry i by `value`, of the method's key or (key not NULL) of one of its options; all of it or nothing. */
static candid_status change(struct candid_config *config, int i, const struct place *at, const char *key,
                            const cJSON *value) {
    const struct method *m = config->table[i];
    struct entry *e = &config->entries[i];
    struct choice draft;
    candid_status status;
    TRY_GOTO(choice_copy(&e->choice, &draft, at->source->error), status, end);
    if (key) {
        draft.active = true;
        TRY_GOTO(read_key(config, m, &draft, at, key, value), status, end);
    } else {
        TRY_GOTO(read_choice(config, m, &draft, at, value), status, end);
    }
    status = commit(e, m, &draft, at->source->error);
end:
    choice_clear(&draft);
    return status;
}

/* ---- top level ---- */

/* A text for readers. */
static candid_status read_note(struct candid_config *config, const cJSON *item, int index,
                               const struct config_source *source) {
    const struct place at = {.source = source, .path = {index}, .depth = 1};
    return cJSON_IsString(item) ? CANDID_OK : reject_value(&at, item->string, "a string", item);
}

const struct config_section config_sections[] = {
    {"$schema", "Address of the JSON schema, for editors; ignored.", read_note},
    {"name", "A name, for readers; ignored.", read_note},
    {"comment", "A remark, for readers; ignored.", read_note},
    {"source", "Where the values come from, for readers; ignored.", read_note},
    {NULL, NULL, NULL},
};

static candid_status unknown_method(const struct candid_config *config, const struct place *at, const char *key) {
    const char *near = NULL;
    for (int i = 0; i < config->n_methods; i++) {
        near = nearest_name(key, near, config->table[i]->name);
    }
    for (const struct config_section *s = config_sections; s->name; s++) {
        near = nearest_name(key, near, s->name);
    }
    if (near) {
        return reject(at, key, "there is no such method; did you mean \"%s\"?", near);
    }
    char names[200] = "";
    size_t n = 0;
    for (int i = 0; i < config->n_methods && n < sizeof names; i++) {
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", config->table[i]->name);
    }
    return n > 0 ? reject(at, key, "there is no such method; methods are %s", names)
                 : reject(at, key, "there is no such method, this build has none");
}

static candid_status read_top(struct candid_config *config, const cJSON *item, const struct place *at) {
    for (const struct config_section *s = config_sections; s->name; s++) {
        if (strcmp(s->name, item->string) == 0) {
            return s->read(config, item, at->path[0], at->source);
        }
    }
    const int i = find_method(config, item->string);
    if (i < 0) {
        return unknown_method(config, at, item->string);
    }
    struct place inner = *at;
    inner.method = config->table[i]->name;
    return change(config, i, &inner, NULL, item);
}

static candid_status read_all(struct candid_config *config, const cJSON *root, const struct config_source *source) {
    int index = 0;
    for (const cJSON *item = root->child; item; item = item->next) {
        const struct place at = {.source = source, .path = {index++}, .depth = 1};
        TRY(reject_repeated(&at, root, item));
        TRY(read_top(config, item, &at));
    }
    return CANDID_OK;
}

cJSON *config_resolved(const struct candid_config *config) {
    cJSON *all = cJSON_CreateObject();
    for (int i = 0; all && i < config->n_methods; i++) {
        if (!config->entries[i].choice.active) {
            continue;
        }
        cJSON *values = cJSON_Duplicate(config->entries[i].values, true);
        if (!values || !cJSON_AddItemToObject(all, config->table[i]->name, values)) {
            cJSON_Delete(values);
            cJSON_Delete(all);
            all = NULL;
        }
    }
    return all;
}

static candid_status update_checksum(struct candid_config *config, candid_error *error) {
    cJSON *all = config_resolved(config);
    char *text = all ? cJSON_PrintUnformatted(all) : NULL;
    const bool any = all && all->child;
    cJSON_Delete(all);
    if (!text) {
        return fail_memory(error, "a configuration", sizeof(cJSON));
    }
    config->checksum = any ? crc32_update(0, text, strlen(text)) : 0;
    cJSON_free(text);
    return CANDID_OK;
}

static candid_status create(const struct method *const *table, const char *folder, struct candid_config **out,
                            candid_error *error) {
    int n = 0;
    while (table[n]) {
        n++;
    }
    struct candid_config *config = calloc(1, sizeof *config);
    *out = config;
    if (!config || !(config->entries = calloc((size_t)n + 1, sizeof *config->entries)) ||
        !(config->folder = strdup(folder))) {
        config_free(config);
        return fail_memory(error, "a configuration", sizeof *config + ((size_t)n + 1) * sizeof *config->entries);
    }
    config->table = table;
    config->n_methods = n;
    return CANDID_OK;
}

void config_free(struct candid_config *config) {
    if (!config) {
        return;
    }
    for (int i = 0; config->entries && i < config->n_methods; i++) {
        choice_clear(&config->entries[i].choice);
        cJSON_Delete(config->entries[i].values);
    }
    free(config->entries);
    free(config->folder);
    free(config);
}

candid_status config_parse(const struct method *const *table, const char *text, size_t size, const char *label,
                           const char *folder, struct candid_config **out, candid_error *error) {
    char shown[208];
    file_label(label, shown, sizeof shown);
    if (size == 0 || size > CONFIG_MAX_BYTES) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: expected a configuration of 1 to %zu bytes, found %zu", shown,
                    CONFIG_MAX_BYTES, size);
    }
    struct json j;
    struct candid_config *config;
    TRY(json_parse(text, size, label, &j, error));
    candid_status status = create(table, folder, &config, error);
    if (status == CANDID_OK) {
        const struct config_source source = {shown, text, size, error};
        status = read_all(config, j.root, &source);
        status = status == CANDID_OK ? update_checksum(config, error) : status;
        if (status != CANDID_OK) {
            config_free(config);
        } else {
            *out = config;
        }
    }
    json_free(&j);
    return status;
}

candid_status config_load(const struct method *const *table, const char *path, struct candid_config **out,
                          candid_error *error) {
    struct mapped_file file;
    TRY(file_map(path, "a JSON file", &file, error));
    const char *slash = strrchr(path, '/');
    char *folder = !slash ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    const candid_status status = folder
                                     ? config_parse(table, (const char *)file.data, file.size, path, folder, out, error)
                                     : fail_memory(error, "a path", strlen(path));
    free(folder);
    file_unmap(&file);
    return status;
}

/* ---- assignments ---- */

/* The right side as JSON, or as plain text where only that fits: option o, NULL when the left side is no option. The
 * caller deletes it; NULL: out of memory. */
static cJSON *assigned_value(const char *text, const struct method_option *o) {
    cJSON *value = cJSON_ParseWithOpts(text, NULL, true);
    if (value && (!o || option_accepts(o, value, NULL))) {
        return value;
    }
    cJSON *plain = cJSON_CreateString(text);
    if (value && plain && !option_accepts(o, plain, NULL)) { /* neither fits: the message tells what was written */
        cJSON_Delete(plain);
        return value;
    }
    cJSON_Delete(value);
    return plain;
}

/* name: the left side, which is cut in two here. */
static candid_status assign(struct candid_config *config, char *name, const char *text,
                            const struct config_source *source) {
    struct place at = {.source = source};
    char *key = strchr(name, '.');
    if (key) {
        *key++ = '\0';
    }
    const int i = find_method(config, name);
    if (i < 0) {
        return unknown_method(config, &at, name);
    }
    const struct method *m = config->table[i];
    cJSON *value = assigned_value(text, key ? find_option(m, key) : NULL);
    if (!value) {
        return fail_memory(source->error, "an assignment", strlen(text));
    }
    at.method = m->name;
    candid_status status = change(config, i, &at, key, value);
    cJSON_Delete(value);
    return status == CANDID_OK ? update_checksum(config, source->error) : status;
}

candid_status config_assign(struct candid_config *config, const char *assignment, candid_error *error) {
    char shown[120];
    text_print(shown, sizeof shown, assignment, strlen(assignment));
    const struct config_source source = {.label = shown, .error = error};
    const char *equals = strchr(assignment, '=');
    if (!equals || equals == assignment) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "assignment \"%s\": expected METHOD.OPTION=VALUE, METHOD=true or METHOD=false", shown);
    }
    char *name = strndup(assignment, (size_t)(equals - assignment));
    if (!name) {
        return fail_memory(error, "an assignment", strlen(assignment));
    }
    const candid_status status = assign(config, name, equals + 1, &source);
    free(name);
    return status;
}

bool config_method(const struct candid_config *config, const struct method *method, struct settings *out) {
    for (int i = 0; config && i < config->n_methods; i++) {
        if (config->table[i] == method && config->entries[i].choice.active) {
            *out = (struct settings){config->entries[i].values, config->folder};
            return true;
        }
    }
    return false;
}

uint32_t config_checksum(const struct candid_config *config) {
    return config ? config->checksum : 0;
}

bool config_file(const struct candid_config *config, int n, char *path, size_t size) {
    struct settings s;
    for (int m = 0; config && m < config->n_methods; m++) {
        const struct method *method = config->table[m];
        for (int i = 0; config_method(config, method, &s) && i < method->n_options; i++) {
            const struct method_option *o = &method->options[i];
            const char *name = o->type == OPTION_PATH ? setting_string(&s, o->name) : NULL;
            if (name && setting_path(&s, name, path, size) && n-- == 0) {
                return true;
            }
        }
    }
    return false;
}
