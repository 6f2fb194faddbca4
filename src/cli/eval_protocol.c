/* Protocols: options of candid eval in a file. */
#include <stdlib.h>
#include <string.h>

#include "cli/eval.h"
#include "core/json.h"
#include "core/text.h"

/* "--name=value", or "--name" where value is NULL, goes to the end of o->extra. */
static bool add_option(struct eval_options *o, const char *name, const char *value) {
    char **grown = realloc(o->extra, ((size_t)o->n_extra + 1) * sizeof *grown);
    const size_t size = strlen(name) + (value ? strlen(value) : 0) + 4;
    char *text = malloc(size);
    o->extra = grown ? grown : o->extra;
    if (!grown || !text) {
        complain("out of memory");
        free(text);
        return false;
    }
    snprintf(text, size, "--%s%s%s", name, value ? "=" : "", value ? value : "");
    o->extra[o->n_extra++] = text;
    return true;
}

static bool add_value(struct eval_options *o, const char *label, const cJSON *item, const char *name) {
    struct printable shown;
    char found[JSON_FOUND];
    if (!cJSON_IsString(item) && !cJSON_IsNumber(item)) {
        complain("%s: \"%s\": expected a text or a number, found %s", label, printable_string(&shown, name),
                 json_found(item, found));
        return false;
    }
    char *number = cJSON_IsNumber(item) ? cJSON_PrintUnformatted(item) : NULL;
    const bool added = add_option(o, name, number ? number : cJSON_GetStringValue(item));
    cJSON_free(number);
    return added;
}

/* A list is an option that is given several times. */
static bool add_item(struct eval_options *o, const char *label, const cJSON *item) {
    const int kind = eval_option_kind(item->string);
    struct printable shown;
    char found[JSON_FOUND];
    if (kind < 0) {
        complain("%s: candid eval has no option --%s", label, printable_string(&shown, item->string));
        return false;
    }
    if (kind == 0 && !cJSON_IsBool(item)) {
        complain("%s: \"%s\": expected true or false, found %s", label, item->string, json_found(item, found));
        return false;
    }
    if (kind == 0) {
        return cJSON_IsFalse(item) || add_option(o, item->string, NULL);
    }
    bool good = true;
    for (const cJSON *one = cJSON_IsArray(item) ? item->child : item; good && one;
         one = cJSON_IsArray(item) ? one->next : NULL) {
        good = add_value(o, label, one, item->string);
    }
    return good;
}

bool eval_protocol_read(const char *path, struct eval_options *o) {
    struct json file = {0};
    candid_error error;
    if (json_read(path, 1 << 20, &file, &error) != CANDID_OK) {
        complain("%s", error.message);
        return false;
    }
    bool good = true;
    const cJSON *options = NULL;
    for (const cJSON *item = file.root->child; good && item; item = item->next) {
        struct printable shown;
        if (strcmp(item->string, "options") == 0 && cJSON_IsObject(item)) {
            options = item;
        } else if ((strcmp(item->string, "comment") != 0 && strcmp(item->string, "source") != 0) ||
                   !cJSON_IsString(item)) {
            complain("%s: expected the texts \"comment\" and \"source\" and an object \"options\", found \"%s\"",
                     file.label, printable_string(&shown, item->string));
            good = false;
        }
    }
    if (good && !options) {
        complain("%s: expected an object \"options\"", file.label);
        good = false;
    }
    for (const cJSON *item = good ? options->child : NULL; good && item; item = item->next) {
        good = add_item(o, file.label, item);
    }
    json_free(&file);
    return good;
}
