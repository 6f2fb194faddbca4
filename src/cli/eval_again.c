/* A run set up again from its summary. */
#include "cli/eval_again.h"

#include <stdlib.h>
#include <string.h>

#include "interventions/config.h"

const char *again_text(const cJSON *object, const char *key) {
    return cJSON_GetStringValue(json_find(object, key));
}

int again_read_summary(const char *path, struct json *out) {
    candid_error error;
    if (json_read(path, (size_t)64 << 20, out, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_ITEM;
    }
    if (!json_find(out->root, "candid_run") || !again_text(out->root, "benchmark") || !again_text(out->root, "name") ||
        !again_text(out->root, "run") || !cJSON_IsArray(json_find(out->root, "arguments"))) {
        complain("%s: expected the summary of a run of candid eval", path);
        return EXIT_ITEM;
    }
    return EXIT_OK;
}

/* "eval BENCHMARK", the arguments of the run, and extra ones. */
static int arguments_of(struct again *a, int n_extra, char **extra, int *argc) {
    const cJSON *list = json_find(a->summary.root, "arguments");
    a->argv = calloc((size_t)(cJSON_GetArraySize(list) + n_extra) + 3, sizeof *a->argv);
    if (!a->argv) {
        complain("out of memory");
        return EXIT_ITEM;
    }
    *argc = 0;
    a->argv[(*argc)++] = "eval";
    a->argv[(*argc)++] = cJSON_GetStringValue(json_find(a->summary.root, "benchmark"));
    for (const cJSON *item = list->child; item; item = item->next) {
        if (!cJSON_IsString(item)) {
            complain("%s: \"arguments\" should be texts", a->summary.label);
            return EXIT_ITEM;
        }
        a->argv[(*argc)++] = item->valuestring;
    }
    for (int i = 0; i < n_extra; i++) {
        a->argv[(*argc)++] = extra[i];
    }
    return EXIT_OK;
}

/* The folder of the configuration's file, which the names of files in it are relative to. */
static void config_folder(const char *path, char folder[4096]) {
    const char *slash = path ? strrchr(path, '/') : NULL;
    const int length = !slash || slash == path ? 1 : (int)(slash - path);
    snprintf(folder, 4096, "%.*s", length, slash ? path : ".");
}

/* The run's configuration takes the place of those of the command line. */
static int take_config(struct again *a) {
    const cJSON *config = json_find(a->summary.root, "config");
    struct eval_config *c = &a->e.configs[0];
    candid_error error;
    snprintf(c->name, sizeof c->name, "%s", again_text(a->summary.root, "name"));
    c->path = again_text(a->summary.root, "config_file");
    if (!config || !config->child) {
        return EXIT_OK;
    }
    char folder[4096], *text = cJSON_PrintUnformatted(config);
    config_folder(c->path, folder);
    const candid_status status =
        text ? config_parse(methods, text, strlen(text), a->summary.label, folder, &c->config, &error)
             : CANDID_ERROR_MEMORY;
    cJSON_free(text);
    if (status != CANDID_OK) {
        complain("%s", text ? error.message : "out of memory");
        return EXIT_ITEM;
    }
    return EXIT_OK;
}

int again_prepare(struct again *a, int n_extra, char **extra) {
    bool done;
    int argc, code = arguments_of(a, n_extra, extra, &argc);
    if (code == EXIT_OK) {
        code = eval_options_parse(argc, a->argv, &a->options, &done);
        a->prepared = true;
    }
    if (code == EXIT_OK) {
        code = evaluation_prepare(&a->options, &a->e);
    }
    return code == EXIT_OK ? take_config(a) : code;
}

void again_free(struct again *a) {
    if (a->prepared) {
        evaluation_free(&a->e);
        eval_options_free(&a->options);
    }
    free(a->argv);
    json_free(&a->summary);
}

bool again_same_text(const char *a, const char *b) {
    return a && b ? strcmp(a, b) == 0 : a == b;
}

char *again_beside(const char *summary, const char *name) {
    const char *slash = strrchr(summary, '/');
    const size_t folder = slash ? (size_t)(slash - summary) + 1 : 0, size = folder + strlen(name) + 1;
    char *path = malloc(size);
    if (path) {
        memcpy(path, summary, folder);
        memcpy(path + folder, name, strlen(name) + 1);
    }
    return path;
}
