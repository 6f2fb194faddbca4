/* JSON Schema of configurations, from the tables. */
#include "interventions/schema.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "interventions/config.h"
#include "interventions/option.h"

/* cJSON reports a lack of memory at each step; here it is noted once and asked at the end. */
struct builder {
    bool failed;
};

static void add(struct builder *b, cJSON *object, const char *key, cJSON *item) {
    if (!item || !object || !cJSON_AddItemToObject(object, key, item)) {
        cJSON_Delete(item);
        b->failed = true;
    }
}

static void add_text(struct builder *b, cJSON *object, const char *key, const char *text) {
    add(b, object, key, cJSON_CreateString(text));
}

static void add_json(struct builder *b, cJSON *object, const char *key, const char *json) {
    add(b, object, key, cJSON_Parse(json));
}

/* A new object inside `object`; NULL when there is no memory, which later calls pass on. */
static cJSON *add_object(struct builder *b, cJSON *object, const char *key) {
    cJSON *child = cJSON_CreateObject();
    if (!child || !object || !cJSON_AddItemToObject(object, key, child)) {
        cJSON_Delete(child);
        b->failed = true;
        return NULL;
    }
    return child;
}

static void add_range(struct builder *b, cJSON *object, double min, double max) {
    if (isfinite(min)) {
        add(b, object, "minimum", cJSON_CreateNumber(min));
    }
    if (isfinite(max)) {
        add(b, object, "maximum", cJSON_CreateNumber(max));
    }
}

/* {"type": NAME} or, where null is admitted, {"type": [NAME, "null"]} */
static void add_type(struct builder *b, cJSON *object, const char *name, bool or_null) {
    const char *names[] = {name, "null"};
    add(b, object, "type", or_null ? cJSON_CreateStringArray(names, 2) : cJSON_CreateString(name));
}

static void add_choices(struct builder *b, cJSON *object, const struct method_option *o) {
    cJSON *list = cJSON_CreateArray();
    for (const char *const *c = o->choices; list && *c; c++) {
        b->failed |= !cJSON_AddItemToArray(list, cJSON_CreateString(*c));
    }
    if (list && option_admits_null(o)) {
        b->failed |= !cJSON_AddItemToArray(list, cJSON_CreateNull());
    }
    add(b, object, "enum", list);
}

static void add_constraints(struct builder *b, cJSON *object, const struct method_option *o) {
    const bool or_null = option_admits_null(o);
    cJSON *items;
    switch (o->type) {
    case OPTION_BOOL: add_type(b, object, "boolean", or_null); break;
    case OPTION_INT:
    case OPTION_FLOAT:
        add_type(b, object, o->type == OPTION_INT ? "integer" : "number", or_null);
        add_range(b, object, o->min, o->max);
        break;
    case OPTION_CHOICE: add_choices(b, object, o); break;
    case OPTION_LAYERS:
        add_type(b, object, "string", or_null);
        add_text(b, object, "pattern",
                 option_has_default(o, "\"auto\"")
                     ? "^(all|auto|[0-9]{1,4}(-([0-9]{1,4})?)?(,[0-9]{1,4}(-([0-9]{1,4})?)?)*)$"
                     : "^(all|[0-9]{1,4}(-([0-9]{1,4})?)?(,[0-9]{1,4}(-([0-9]{1,4})?)?)*)$");
        break;
    case OPTION_INTS:
        add_type(b, object, "array", or_null);
        items = add_object(b, object, "items");
        add_type(b, items, "integer", false);
        add_range(b, items, o->min, o->max);
        break;
    case OPTION_HEADS:
        add_type(b, object, "array", or_null);
        items = add_object(b, object, "items");
        add_type(b, items, "array", false);
        add_json(b, items, "minItems", "2");
        add_json(b, items, "maxItems", "2");
        items = add_object(b, items, "items");
        add_type(b, items, "integer", false);
        add_range(b, items, 0, OPTION_MAX_INDEX);
        break;
    case OPTION_PATH:
    case OPTION_TEXT:
        add_type(b, object, "string", or_null);
        add_json(b, object, "minLength", "1");
        break;
    case OPTION_METHODS:
        add_type(b, object, "array", or_null);
        add_json(b, object, "items",
                 "{\"anyOf\": [{\"type\": \"string\"}, {\"type\": \"object\", \"properties\": {\"method\": "
                 "{\"type\": \"string\"}}, \"required\": [\"method\"]}]}");
        break;
    }
}

static void add_option(struct builder *b, cJSON *properties, const struct method_option *o) {
    cJSON *object = add_object(b, properties, o->name);
    add_text(b, object, "description", o->doc);
    add_constraints(b, object, o);
    add_json(b, object, "default", o->recommended);
}

static void add_method(struct builder *b, cJSON *properties, const struct method *m) {
    cJSON *object = add_object(b, properties, m->name);
    add_text(b, object, "title", m->title);
    add_text(b, object, "description", m->edits);
    add_json(b, object, "type", "[\"boolean\", \"object\"]");
    cJSON *keys = add_object(b, object, "properties");
    for (int i = 0; i < m->n_options; i++) {
        add_option(b, keys, &m->options[i]);
    }
    cJSON *key = add_object(b, keys, "preset");
    add_text(b, key, "description", "Where options that are not given come from.");
    add(b, key, "enum", cJSON_CreateStringArray((const char **)(uintptr_t)preset_names, PRESET_COUNT));
    add_text(b, key, "default", preset_names[PRESET_RECOMMENDED]);
    key = add_object(b, keys, "enabled");
    add_text(b, key, "description", "false: the method is off, whatever else is given.");
    add_type(b, key, "boolean", false);
    add_json(b, key, "default", "true");
    add_type(b, add_object(b, keys, "comment"), "string", false);
    add_type(b, add_object(b, keys, "source"), "string", false);
    add_json(b, object, "additionalProperties", "false");
}

candid_status schema_create(const struct method *const *table, char **out, candid_error *error) {
    struct builder b = {0};
    cJSON *root = cJSON_CreateObject();
    add_text(&b, root, "$schema", "https://json-schema.org/draft/2020-12/schema");
    add_text(&b, root, "title", "candid configuration");
    add_text(&b, root, "type", "object");
    cJSON *properties = add_object(&b, root, "properties");
    for (const struct config_section *s = config_sections; s->name; s++) {
        cJSON *object = add_object(&b, properties, s->name);
        add_text(&b, object, "description", s->doc);
        add_type(&b, object, "string", false);
    }
    for (const struct method *const *m = table; *m; m++) {
        add_method(&b, properties, *m);
    }
    add_json(&b, root, "additionalProperties", "false");
    char *text = root && !b.failed ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    *out = text ? strdup(text) : NULL; /* cJSON's memory need not be malloc's */
    cJSON_free(text);
    return *out ? CANDID_OK : fail_memory(error, "the schema", sizeof *root);
}
