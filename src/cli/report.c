/* candid report: runs compared on a page, in Markdown, in CSV. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/file.h"
#include "core/status.h"
#include "eval/report/report.h"

static const char help[] =
    "Usage: candid report RUN.json...|DIR [options]\n"
    "\n"
    "Compares runs of candid eval: metrics with 95 % intervals, differences to the baseline, costs, every answer "
    "beside\n"
    "the others. Runs of several benchmarks get a section each. A directory stands for all runs in it.\n"
    "\n"
    "  --out FILE          one HTML page that needs nothing else (default report.html, unless --markdown or --csv)\n"
    "  --markdown FILE     tables for a README (- for stdout)\n"
    "  --csv FILE          one value per line, exact (- for stdout)\n"
    "  --title TEXT        of the page\n"
    "  --baseline NAME     the run that others are compared with (default greedy, else sampled)\n"
    "  --common            compare on the questions that all runs answered, instead of refusing others\n"
    "  --bootstrap N       resamples of the images for intervals (default 10000; 0: none)\n"
    "  --seed N            of the resampling (default 0)\n"
    "  --images DIR        where the images are (default: what the runs say)\n"
    "  --images-limit N    embed at most N images (default 200)\n"
    "  --no-images         embed none\n"
    "  -h, --help\n";

struct arguments {
    struct report_options options;
    const char *out, *markdown, *csv;
    char **inputs; /* at the front of argv */
    int n_inputs;
};

/* ---- command line -------------------------------------------------------------------------------- */

static int parse_number(const char *name, const char *text, uint64_t most, uint64_t *out) {
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *end || end == text || text[0] == '-' || value > most) {
        complain("%s: expected a number from 0 to %llu, found \"%s\"", name, (unsigned long long)most, text);
        return EXIT_USAGE;
    }
    *out = value;
    return EXIT_OK;
}

/* The value of option `name` at argv[*i], "--name VALUE" or "--name=VALUE"; NULL when it is another option. */
static const char *value_of(const char *name, int argc, char **argv, int *i) {
    const size_t n = strlen(name);
    if (strncmp(argv[*i], name, n) == 0 && argv[*i][n] == '=') {
        return argv[*i] + n + 1;
    }
    return strcmp(argv[*i], name) == 0 && *i + 1 < argc ? argv[++*i] : NULL;
}

static int parse_option(struct arguments *a, int argc, char **argv, int *i) {
    const struct {
        const char *name, **to;
    } texts[] = {{"--out", &a->out},
                 {"--markdown", &a->markdown},
                 {"--csv", &a->csv},
                 {"--title", &a->options.title},
                 {"--baseline", &a->options.baseline},
                 {"--images", &a->options.images}};
    uint64_t resamples = a->options.resamples, limit = a->options.images_limit;
    const struct {
        const char *name;
        uint64_t most, *to;
    } numbers[] = {{"--bootstrap", 1000000, &resamples},
                   {"--seed", UINT64_MAX, &a->options.seed},
                   {"--images-limit", 1000000, &limit}};
    const char *given = argv[*i], *value;
    for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) {
        if ((value = value_of(texts[k].name, argc, argv, i))) {
            *texts[k].to = value;
            return EXIT_OK;
        }
    }
    for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++) {
        if ((value = value_of(numbers[k].name, argc, argv, i))) {
            const int code = parse_number(numbers[k].name, value, numbers[k].most, numbers[k].to);
            a->options.resamples = (size_t)resamples;
            a->options.images_limit = (size_t)limit;
            return code;
        }
    }
    if (strcmp(given, "--common") == 0) {
        a->options.common = true;
    } else if (strcmp(given, "--no-images") == 0) {
        a->options.no_images = true;
    } else {
        complain(*i + 1 == argc ? "unknown option \"%s\", or its value is missing; see candid report --help"
                                : "unknown option \"%s\"; see candid report --help",
                 given);
        return EXIT_USAGE;
    }
    return EXIT_OK;
}

/* ---- inputs -------------------------------------------------------------------------------------- */

struct run_list {
    struct report_run **run; /* [n] */
    size_t n, capacity;
};

static int add_run(struct run_list *list, const char *path, candid_error *error) {
    if (list->n == list->capacity) {
        const size_t capacity = list->capacity ? 2 * list->capacity : 16;
        struct report_run **grown = realloc(list->run, capacity * sizeof *grown);
        if (!grown) {
            complain("out of memory");
            return EXIT_ITEM;
        }
        list->run = grown;
        list->capacity = capacity;
    }
    struct report_run *run = malloc(sizeof *run);
    if (!run || report_run_read(path, run, error) != CANDID_OK) {
        complain("%s", run ? error->message : "out of memory");
        free(run);
        return EXIT_USAGE;
    }
    list->run[list->n++] = run;
    return EXIT_OK;
}

/* A summary of candid eval or candid score, and no other JSON file that lies about. *shard: one of a part of a run. */
static bool is_summary(const char *path, bool *shard) {
    struct json json;
    *shard = false;
    if (json_read(path, (size_t)64 << 20, &json, NULL) != CANDID_OK) {
        return false;
    }
    const bool yes = json_find(json.root, "candid_run") || json_find(json.root, "candid_score");
    *shard = yes && json_find(json.root, "shard");
    json_free(&json);
    return yes;
}

static int is_json(const struct dirent *entry) {
    const size_t n = strlen(entry->d_name);
    return entry->d_name[0] != '.' && n > 5 && strcmp(entry->d_name + n - 5, ".json") == 0;
}

/* Parts of runs are left out: candid eval merge makes runs of them. */
static int add_directory(struct run_list *list, const char *directory, candid_error *error) {
    struct dirent **entries = NULL;
    const int n = scandir(directory, &entries, is_json, alphasort);
    int code = EXIT_OK;
    const size_t before = list->n;
    size_t n_shards = 0;
    for (int i = 0; i < n; i++) {
        char *path = NULL;
        bool shard;
        if (code == EXIT_OK && file_join(directory, entries[i]->d_name, &path, error) == CANDID_OK &&
            is_summary(path, &shard)) {
            code = shard ? code : add_run(list, path, error);
            n_shards += shard;
        }
        free(path);
        free(entries[i]);
    }
    free(entries);
    if (code == EXIT_OK && list->n == before && n_shards > 0) {
        complain("%s: found parts of runs only; candid eval merge %s joins them", directory, directory);
        code = EXIT_USAGE;
    } else if (code == EXIT_OK && list->n == before) {
        complain("%s: expected a directory with runs of candid eval or scores of candid score, found none", directory);
        code = EXIT_USAGE;
    }
    return code;
}

/* ---- outputs ------------------------------------------------------------------------------------- */

typedef candid_status (*writer)(const struct report *report, FILE *f, candid_error *error);

static int write_output(const char *path, const struct report *report, writer write) {
    const bool standard = strcmp(path, "-") == 0;
    FILE *f = standard ? stdout : fopen(path, "wbe");
    candid_error error;
    if (!f) {
        complain("%s: cannot be written: %s", path, strerror(errno));
        return EXIT_OUTPUT;
    }
    const candid_status status = write(report, f, &error);
    const bool written = fflush(f) == 0 && !ferror(f);
    if ((!standard && fclose(f) != 0) || !written) {
        complain("%s: cannot be written: %s", path, strerror(errno));
        return EXIT_OUTPUT;
    }
    if (status != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_ITEM;
    }
    return EXIT_OK;
}

static int write_outputs(const struct arguments *a, const struct report *report) {
    const struct {
        const char *path;
        writer write;
    } outputs[] = {{a->out, report_write_html}, {a->markdown, report_write_markdown}, {a->csv, report_write_csv}};
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++) {
        const int code = outputs[i].path ? write_output(outputs[i].path, report, outputs[i].write) : EXIT_OK;
        if (code != EXIT_OK) {
            return code;
        }
        if (outputs[i].path && strcmp(outputs[i].path, "-") != 0) {
            fprintf(stderr, "candid: wrote %s\n", outputs[i].path);
        }
    }
    return EXIT_OK;
}

static int make_report(const struct arguments *a, const struct run_list *list) {
    struct report report;
    candid_error error;
    if (report_build(list->run, list->n, &a->options, &report, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_USAGE;
    }
    for (size_t g = 0; g < report.n_groups; g++) {
        for (size_t w = 0; w < report.groups[g].n_warnings; w++) {
            fprintf(stderr, "candid: warning: %s: %s\n", report.groups[g].benchmark, report.groups[g].warnings[w]);
        }
    }
    const int code = write_outputs(a, &report);
    report_free(&report);
    return code;
}

int command_report(int argc, char **argv) {
    struct arguments a = {.options = REPORT_DEFAULTS, .inputs = argv};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(help, stdout);
            return EXIT_OK;
        }
        if (argv[i][0] != '-') {
            a.inputs[a.n_inputs++] = argv[i];
            continue;
        }
        const int code = parse_option(&a, argc, argv, &i);
        if (code != EXIT_OK) {
            return code;
        }
    }
    if (a.n_inputs == 0) {
        complain("expected runs to report, found none; see candid report --help");
        return EXIT_USAGE;
    }
    a.out = a.out || a.markdown || a.csv ? a.out : "report.html";
    struct run_list list = {0};
    candid_error error;
    int code = EXIT_OK;
    for (int i = 0; i < a.n_inputs && code == EXIT_OK; i++) {
        code = file_is_directory(a.inputs[i]) ? add_directory(&list, a.inputs[i], &error)
                                              : add_run(&list, a.inputs[i], &error);
    }
    code = code == EXIT_OK ? make_report(&a, &list) : code;
    for (size_t r = 0; r < list.n; r++) {
        report_run_free(list.run[r]);
        free(list.run[r]);
    }
    free(list.run);
    return code;
}
