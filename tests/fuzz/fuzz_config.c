/*
 * libFuzzer target: configurations. Lines of the input that begin with '@' are assignments, the rest is the JSON text;
 * the line scanner also gets the text as it is. What is accepted is resolved, and must resolve to itself when read
 * again.
 */
#include <stdlib.h>
#include <string.h>

#include "../example_methods.h"
#include "core/json_lines.h"
#include "interventions/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
    if (!condition) {
        abort();
    }
}

static void check(candid_status status, const candid_error *error, const char *part) {
    require(status == CANDID_OK || (error->status == status && strstr(error->message, part)));
}

/* Any path in any text leads to one of its lines. */
static void scan(const char *text, size_t size) {
    int lines = 1;
    for (size_t i = 0; i < size; i++) {
        lines += text[i] == '\n';
    }
    for (int i = 0; i < 16; i++) {
        const int line = json_line_of(text, size, (const int[]){i & 3, i >> 2, i & 1}, 3);
        require(line >= 1 && line <= lines);
    }
}

static char *resolved(const struct candid_config *config) {
    cJSON *all = config_resolved(config);
    char *text = cJSON_PrintUnformatted(all);
    cJSON_Delete(all);
    require(text != NULL);
    return text;
}

static void round_trip(const struct candid_config *config) {
    struct candid_config *again = NULL;
    char *text = resolved(config);
    require(config_parse(example_methods, text, strlen(text), "again", ".", &again, NULL) == CANDID_OK);
    char *same = resolved(again);
    require(strcmp(text, same) == 0 && config_checksum(config) == config_checksum(again));
    bool layers[32];
    struct settings s;
    if (config_method(again, &alpha_method, &s)) {
        layers_select(setting_string(&s, "layers"), 32, layers, "alpha", NULL);
    }
    config_free(again);
    cJSON_free(same);
    cJSON_free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1), *line = malloc(size + 1);
    size_t n = 0;
    struct candid_config *config = NULL;
    candid_error error = {CANDID_OK, ""};
    if (!text || !line) {
        goto end;
    }
    for (size_t i = 0; i < size;) { /* the lines that are no assignments */
        const uint8_t *stop = memchr(data + i, '\n', size - i);
        const size_t length = stop ? (size_t)(stop - data) + 1 - i : size - i;
        if (data[i] != '@') {
            memcpy(text + n, data + i, length);
            n += length;
        }
        i += length;
    }
    char *exact = realloc(text, n ? n : 1); /* of its own size, so that reads beyond the end are seen */
    text = exact ? exact : text;
    scan(text, n);
    check(config_parse(example_methods, text, n, "input", ".", &config, &error), &error, "input");
    if (!config) {
        goto end;
    }
    round_trip(config);
    for (size_t i = 0; i < size;) {
        const uint8_t *stop = memchr(data + i, '\n', size - i);
        const size_t length = stop ? (size_t)(stop - (data + i)) : size - i;
        if (data[i] == '@') {
            memcpy(line, data + i + 1, length - 1);
            line[length - 1] = '\0';
            check(config_assign(config, line, &error), &error, "assignment");
            round_trip(config);
        }
        i += length + 1;
    }
end:
    config_free(config);
    free(line);
    free(text);
    return 0;
}
