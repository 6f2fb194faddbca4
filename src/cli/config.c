/* candid config and candid methods: what can be switched on, and what a configuration switches on. */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/nearest.h"
#include "interventions/config.h"
#include "interventions/schema.h"

static const char config_help[] =
    "Usage: candid config FILE [--set METHOD.OPTION=VALUE]...\n"
    "       candid config --set METHOD.OPTION=VALUE...\n"
    "       candid config --schema | --markdown\n"
    "\n"
    "Checks a configuration and prints the value of every option of the active methods as JSON. An error names\n"
    "file, line and key; the exit code is 2.\n"
    "\n"
    "  --set METHOD.OPTION=VALUE  change an option and switch its method on; several are allowed\n"
    "  --set METHOD=true|false    switch a method\n"
    "  --set METHOD.preset=NAME   recommended, paper or code: where options that are not given come from\n"
    "  --schema                   print the JSON schema of configurations\n"
    "  --markdown                 print the documentation of all methods\n";

static const char methods_help[] =
    "Usage: candid methods [NAME]\n"
    "\n"
    "Lists the methods that configurations can switch on, or tells everything about one.\n";

static bool is(const char *argument, const char *name) {
    return strcmp(argument, name) == 0;
}

static int print_schema(void) {
    char *text;
    candid_error error;
    if (candid_config_schema(&text, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_ITEM;
    }
    puts(text);
    candid_string_free(text);
    return EXIT_OK;
}

static int print_resolved(const struct candid_config *config) {
    cJSON *all = config_resolved(config);
    char *text = all ? cJSON_Print(all) : NULL;
    cJSON_Delete(all);
    if (!text) {
        complain("out of memory");
        return EXIT_ITEM;
    }
    puts(text);
    cJSON_free(text);
    return EXIT_OK;
}

/* file: may be NULL; sets: n of them, in the order given. */
static int check(const char *file, char *const *sets, int n) {
    candid_config *config = NULL;
    candid_error error;
    candid_status status =
        file ? candid_config_load(file, &config, &error) : candid_config_parse("{}", 2, NULL, &config, &error);
    for (int i = 0; i < n && status == CANDID_OK; i++) {
        status = candid_config_set(config, sets[i], &error);
    }
    int code = EXIT_USAGE;
    if (status == CANDID_OK) {
        code = print_resolved(config);
    } else {
        complain("%s", error.message);
    }
    candid_config_free(config);
    return code;
}

int command_config(int argc, char **argv) {
    const char *file = NULL;
    int n_sets = 0; /* assignments are gathered at the front of argv, over what was read before */
    for (int i = 1; i < argc; i++) {
        if (is(argv[i], "--help") || is(argv[i], "-h")) {
            fputs(config_help, stdout);
            return EXIT_OK;
        }
        if (is(argv[i], "--schema") || is(argv[i], "--markdown")) {
            if (argc != 2) {
                complain("%s takes no other arguments; see candid config --help", argv[i]);
                return EXIT_USAGE;
            }
            if (is(argv[i], "--schema")) {
                return print_schema();
            }
            methods_write_markdown(methods, stdout);
            return EXIT_OK;
        }
        if (is(argv[i], "--set") && i + 1 < argc) {
            argv[n_sets++] = argv[++i];
        } else if (argv[i][0] == '-') {
            complain(is(argv[i], "--set") ? "option %s needs a value; see candid config --help"
                                          : "unknown option \"%s\"; see candid config --help",
                     argv[i]);
            return EXIT_USAGE;
        } else if (file) {
            complain("expected one file, found \"%s\" and \"%s\"; see candid config --help", file, argv[i]);
            return EXIT_USAGE;
        } else {
            file = argv[i];
        }
    }
    if (!file && n_sets == 0) {
        fputs(config_help, stderr);
        return EXIT_USAGE;
    }
    return check(file, argv, n_sets);
}

int command_methods(int argc, char **argv) {
    if (argc > 1 && (is(argv[1], "--help") || is(argv[1], "-h"))) {
        fputs(methods_help, stdout);
        return EXIT_OK;
    }
    if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
        fputs(methods_help, stderr);
        return EXIT_USAGE;
    }
    if (argc < 2) {
        methods_write_list(methods, stdout);
        return EXIT_OK;
    }
    const struct method *m = method_find(argv[1]);
    if (m) {
        method_write(m, stdout);
        return EXIT_OK;
    }
    const char *near = NULL;
    for (const struct method *const *other = methods; *other; other++) {
        near = nearest_name(argv[1], near, (*other)->name);
    }
    complain(near ? "there is no method \"%s\"; did you mean \"%s\"?" : "there is no method \"%s\"; see candid methods",
             argv[1], near);
    return EXIT_USAGE;
}
