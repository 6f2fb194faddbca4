/* candid eval merge and --reproduce: a run from its summary. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "cli/eval.h"
#include "core/json.h"
#include "interventions/config.h"

/* ---- an evaluation as a summary tells ------------------------------------------------------------ */

/* An evaluation set up again; release with again_free. */
struct again {
    struct json summary;
    char **argv; /* owned, its texts by the summary */
    struct eval_options options;
    struct evaluation e;
    bool prepared;
};

static const char *text_of(const cJSON *object, const char *key) {
    return cJSON_GetStringValue(json_find(object, key));
}

static int read_summary(const char *path, struct json *out) {
    candid_error error;
    if (json_read(path, (size_t)64 << 20, out, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_ITEM;
    }
    if (!json_find(out->root, "candid_run") || !text_of(out->root, "benchmark") || !text_of(out->root, "name") ||
        !text_of(out->root, "run") || !cJSON_IsArray(json_find(out->root, "arguments"))) {
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
    snprintf(c->name, sizeof c->name, "%s", text_of(a->summary.root, "name"));
    c->path = text_of(a->summary.root, "config_file");
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

/* Sets up the evaluation of a summary that has been read. */
static int prepare_again(struct again *a, int n_extra, char **extra) {
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

static void again_free(struct again *a) {
    if (a->prepared) {
        evaluation_free(&a->e);
        eval_options_free(&a->options);
    }
    free(a->argv);
    json_free(&a->summary);
}

/* ---- reproduce ----------------------------------------------------------------------------------- */

static const char reproduce_help[] =
    "Usage: candid eval --reproduce RUN.json [--out DIR] [options]\n\n"
    "Runs what RUN.json tells of once more, with the same model, questions, settings and configuration, into DIR (by\n"
    "default RUN.reproduced beside it), and says whether every answer and the logits it was chosen from are the same.\n"
    "Further options replace those of the run: --model, --images where files have moved, --threads. Relative file "
    "names\n"
    "mean what they meant then: run it in the same folder.\n";

static bool same_text(const char *a, const char *b) {
    return a && b ? strcmp(a, b) == 0 : a == b;
}

/* What a run was made with that is not what it is made with now. */
static void compare_circumstances(const struct again *a, const cJSON *about) {
    static const char *const keys[] = {"name", "sha256", "mmproj_sha256", "backend"};
    const cJSON *before = json_find(a->summary.root, "model"), *now = json_find(about, "model");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *x = text_of(before, keys[i]), *y = text_of(now, keys[i]);
        if (!same_text(x, y)) {
            printf("the model's %s was %s, is %s\n", keys[i], x ? x : "none", y ? y : "none");
        }
    }
    char *x = cJSON_PrintUnformatted(json_find(a->summary.root, "settings"));
    char *y = cJSON_PrintUnformatted(json_find(about, "settings"));
    if (!same_text(x, y)) {
        printf("settings were %s, are %s\n", x ? x : "none", y ? y : "none");
    }
    cJSON_free(x);
    cJSON_free(y);
}

/* Results of the same items, in two lists. */
static int compare_answers(const struct eval_items *before, const struct eval_held *h, const struct eval_items *now,
                           const struct eval_held *g) {
    size_t answers = 0, logits = 0, shown = 0;
    for (size_t i = 0; i < now->n; i++) {
        const char *x = before->items[i].answer, *y = now->items[i].answer;
        const bool same = same_text(x, y);
        answers += same;
        logits += same && h->fingerprint[i] == g->fingerprint[i];
        if (!same && shown < 10) {
            printf("%s, %s: was \"%s\", is \"%s\"\n", now->items[i].image, now->items[i].id, x ? x : "(failed)",
                   y ? y : "(failed)");
            shown++;
        }
    }
    printf("%zu of %zu answers are the same, %zu of them from the same logits\n", answers, now->n, logits);
    return answers == now->n ? EXIT_OK : EXIT_ITEM;
}

/* "DIR/NAME.jsonl" beside the summary. */
static char *beside(const char *summary, const char *name) {
    const char *slash = strrchr(summary, '/');
    const size_t folder = slash ? (size_t)(slash - summary) + 1 : 0, size = folder + strlen(name) + 1;
    char *path = malloc(size);
    if (path) {
        memcpy(path, summary, folder);
        memcpy(path + folder, name, strlen(name) + 1);
    }
    return path;
}

static int reproduce(struct again *a, const char *path) {
    struct eval_items before = {0};
    struct eval_held old = {0}, now = {0};
    candid_error error = {CANDID_OK, "out of memory"};
    const char *items_name = text_of(a->summary.root, "items"), *name = a->e.configs[0].name;
    char *items_file = beside(path, items_name ? items_name : ""), *again = NULL;
    int code = EXIT_ITEM;
    candid_status status = items_file ? evaluation_items(&a->e, &before, &error) : CANDID_ERROR_MEMORY;
    status = status == CANDID_OK ? held_make(&old, before.n, &error) : status;
    status = status == CANDID_OK
                 ? results_read(items_file, text_of(a->summary.root, "run"), &before, &old, NULL, &error)
                 : status;
    if (status != CANDID_OK) {
        complain("%s", error.message);
    } else if (old.n_held < before.n) {
        complain("%s: holds %zu of %zu answers: finish the run first", items_file, old.n_held, before.n);
    } else if ((code = evaluation_open(&a->e)) == EXIT_OK) {
        cJSON *about = eval_about(&a->e, &a->e.configs[0]);
        compare_circumstances(a, about);
        cJSON_Delete(about);
        code = eval_runs(&a->e);
        again = eval_file(a->options.out, name, 1, 1, ".jsonl");
        if (code == EXIT_OK || code == EXIT_ITEM) {
            status = again ? held_make(&now, a->e.items.n, &error) : CANDID_ERROR_MEMORY;
            for (size_t i = 0; i < a->e.items.n; i++) {
                a->e.items.items[i].answer = NULL;
            }
            status = status == CANDID_OK ? results_read(again, NULL, &a->e.items, &now, NULL, &error) : status;
            code = status == CANDID_OK ? compare_answers(&before, &old, &a->e.items, &now) : EXIT_ITEM;
        }
    }
    items_free(&before);
    held_free(&old);
    held_free(&now);
    free(items_file);
    free(again);
    return code;
}

int eval_reproduce(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        fputs(reproduce_help, argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_USAGE : EXIT_OK;
    }
    struct again a = {0};
    char folder[4096], **extra = calloc((size_t)argc + 3, sizeof *extra);
    int n = 0, code = extra ? read_summary(argv[1], &a.summary) : EXIT_ITEM;
    if (code == EXIT_OK) {
        const size_t length = strlen(argv[1]), cut = length > 5 && strcmp(argv[1] + length - 5, ".json") == 0 ? 5 : 0;
        snprintf(folder, sizeof folder, "%.*s.reproduced", (int)(length - cut), argv[1]);
        extra[n++] = "--out";
        extra[n++] = folder;
        for (int i = 2; i < argc; i++) {
            extra[n++] = argv[i];
        }
        code = prepare_again(&a, n, extra);
    }
    if (code == EXIT_OK) {
        code = make_folder(a.options.out) ? reproduce(&a, argv[1]) : EXIT_OUTPUT;
    }
    again_free(&a);
    free(extra);
    return code;
}

/* ---- merge --------------------------------------------------------------------------------------- */

static const char merge_help[] =
    "Usage: candid eval merge DIR [--out DIR]\n\n"
    "Joins the shards NAME.shard-I-of-N in a folder to NAME.jsonl, scores them and writes NAME.json. Every question "
    "must\n"
    "be answered in exactly one of them, and all must come from the same run: anything else is an error.\n";

/* The shards of one run. */
struct shards {
    char name[96];
    char **paths; /* [of] summaries by index, NULL: missing */
    int of;
};

struct shard_list {
    struct shards *runs; /* [n] */
    size_t n;
};

static void shard_list_free(struct shard_list *list) {
    for (size_t i = 0; i < list->n; i++) {
        for (int k = 0; k < list->runs[i].of; k++) {
            free(list->runs[i].paths[k]);
        }
        free(list->runs[i].paths);
    }
    free(list->runs);
}

/* "NAME.shard-2-of-8.json" */
static bool parse_shard_name(const char *file, char name[96], int *index, int *of) {
    const char *at = strstr(file, ".shard-");
    int end = 0;
    if (!at || at == file || at - file >= 96 || sscanf(at, ".shard-%d-of-%d.json%n", index, of, &end) != 2 ||
        end == 0 || at[end] || *index < 1 || *index > *of || *of > 100000) {
        return false;
    }
    snprintf(name, 96, "%.*s", (int)(at - file), file);
    return true;
}

static int add_shard(struct shard_list *list, const char *folder, const char *file) {
    char name[96];
    int index, of;
    if (!parse_shard_name(file, name, &index, &of)) {
        return EXIT_OK;
    }
    struct shards *s = NULL;
    for (size_t i = 0; i < list->n; i++) {
        if (strcmp(list->runs[i].name, name) == 0) {
            s = &list->runs[i];
        }
    }
    if (s && s->of != of) {
        complain("%s: %s is split into %d and into %d shards", folder, name, s->of, of);
        return EXIT_ITEM;
    }
    if (!s) {
        struct shards *grown = realloc(list->runs, (list->n + 1) * sizeof *grown);
        char **paths = calloc((size_t)of, sizeof *paths);
        if (grown) {
            list->runs = grown;
        }
        if (!grown || !paths) {
            free(paths);
            complain("out of memory");
            return EXIT_ITEM;
        }
        s = &grown[list->n++];
        *s = (struct shards){.paths = paths, .of = of};
        memcpy(s->name, name, sizeof name);
    }
    s->paths[index - 1] = eval_file(folder, file, 1, 1, "");
    return s->paths[index - 1] ? EXIT_OK : EXIT_ITEM;
}

static int find_shards(const char *folder, struct shard_list *out) {
    struct dirent **entries;
    const int n = scandir(folder, &entries, NULL, alphasort);
    if (n < 0) {
        complain("%s: cannot read the folder", folder);
        return EXIT_USAGE;
    }
    int code = EXIT_OK;
    for (int i = 0; i < n; i++) {
        code = code == EXIT_OK ? add_shard(out, folder, entries[i]->d_name) : code;
        free(entries[i]);
    }
    free(entries);
    if (code == EXIT_OK && out->n == 0) {
        complain("%s: found no shards (NAME.shard-I-of-N.json)", folder);
        code = EXIT_USAGE;
    }
    return code;
}

/* Takes a shard's answers in. */
static int take_shard_results(struct again *a, const char *path, struct eval_held *held) {
    struct json one = {0};
    candid_error error;
    int code = read_summary(path, &one);
    char *items_file =
        code == EXIT_OK ? beside(path, text_of(one.root, "items") ? text_of(one.root, "items") : "") : NULL;
    if (code == EXIT_OK && !same_text(text_of(one.root, "run"), text_of(a->summary.root, "run"))) {
        complain("%s: comes from another run than %s: model, configuration, settings or questions differ", path,
                 a->summary.label);
        code = EXIT_ITEM;
    }
    if (code == EXIT_OK &&
        results_read(items_file, text_of(one.root, "run"), &a->e.items, held, NULL, &error) != CANDID_OK) {
        complain("%s", error.message);
        code = EXIT_ITEM;
    }
    free(items_file);
    json_free(&one);
    return code;
}

static int append_file(FILE *to, const char *path) {
    FILE *from = fopen(path, "r");
    char buffer[65536];
    size_t n;
    bool ok = from;
    while (ok && (n = fread(buffer, 1, sizeof buffer, from)) > 0) {
        ok = fwrite(buffer, 1, n, to) == n;
    }
    ok = ok && !ferror(from);
    if (from) {
        fclose(from);
    }
    return ok ? EXIT_OK : EXIT_OUTPUT;
}

/* The results files one after the other, under a temporary name first. */
static int join_files(const struct shards *s, const char *out, char **joined) {
    char *path = eval_file(out, s->name, 1, 1, ".jsonl"), *temporary = eval_file(out, s->name, 1, 1, ".jsonl.part");
    FILE *file = temporary ? fopen(temporary, "w") : NULL;
    int code = path && file ? EXIT_OK : EXIT_OUTPUT;
    for (int i = 0; code == EXIT_OK && i < s->of; i++) {
        const size_t n = strlen(s->paths[i]);
        char *items = malloc(n + 2);
        code = items ? EXIT_OK : EXIT_OUTPUT;
        if (items) {
            memcpy(items, s->paths[i], n);
            memcpy(items + n, "l", 2); /* …json to …jsonl */
            code = append_file(file, items);
        }
        free(items);
    }
    if (file && fclose(file) != 0) {
        code = EXIT_OUTPUT;
    }
    if (code != EXIT_OK || rename(temporary, path) != 0) {
        complain("%s: cannot write", path ? path : out);
        code = EXIT_OUTPUT;
    }
    free(temporary);
    *joined = path;
    return code;
}

static int merge_one(const struct shards *s, char *out) {
    for (int i = 0; i < s->of; i++) {
        if (!s->paths[i]) {
            complain("%s: shard %d of %d is missing", s->name, i + 1, s->of);
            return EXIT_ITEM;
        }
    }
    struct again a = {0};
    struct eval_held held = {0};
    candid_error error;
    char *extra[] = {"--out", out}, *joined = NULL, run[9];
    int code = read_summary(s->paths[0], &a.summary);
    code = code == EXIT_OK ? prepare_again(&a, 2, extra) : code;
    if (code == EXIT_OK && held_make(&held, a.e.items.n, &error) != CANDID_OK) {
        complain("%s", error.message);
        code = EXIT_ITEM;
    }
    for (int i = 0; code == EXIT_OK && i < s->of; i++) {
        code = take_shard_results(&a, s->paths[i], &held);
    }
    for (size_t i = 0; code == EXIT_OK && i < a.e.items.n; i++) {
        if (!held.held[i]) {
            complain("%s: question %s about %s (number %zu) is in none of the shards", s->name, a.e.items.items[i].id,
                     a.e.items.items[i].image, i);
            code = EXIT_ITEM;
        }
    }
    if (code == EXIT_OK) {
        a.e.model = cJSON_Duplicate(json_find(a.summary.root, "model"), true);
        cJSON *about = eval_about(&a.e, &a.e.configs[0]);
        eval_run_id(&a.e, about, run);
        if (strcmp(run, text_of(a.summary.root, "run")) != 0) {
            complain("%s: the questions or the configuration have changed since the shards ran", s->name);
            code = EXIT_ITEM;
        }
        code = code == EXIT_OK ? join_files(s, out, &joined) : code;
        if (code == EXIT_OK) {
            code = eval_finish(&a.e, &a.e.configs[0], about, run, text_of(json_find(a.summary.root, "time"), "started"),
                               text_of(a.summary.root, "prompts_not_shared"), &held);
        }
        cJSON_Delete(about);
    }
    free(joined);
    held_free(&held);
    again_free(&a);
    return code;
}

int eval_merge(int argc, char **argv) {
    const bool help = argc > 1 && strcmp(argv[1], "--help") == 0;
    if (help || (argc != 2 && !(argc == 4 && strcmp(argv[2], "--out") == 0))) {
        fputs(merge_help, help ? stdout : stderr);
        return help ? EXIT_OK : EXIT_USAGE;
    }
    struct shard_list list = {0};
    int worst = argc == 4 && !make_folder(argv[3]) ? EXIT_USAGE : find_shards(argv[1], &list);
    for (size_t i = 0; worst != EXIT_USAGE && i < list.n; i++) {
        const int code = merge_one(&list.runs[i], argc == 4 ? argv[3] : argv[1]);
        worst = code > worst ? code : worst;
    }
    shard_list_free(&list);
    return worst;
}
