/* candid eval merge: the shards of a run become one. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "cli/eval_again.h"

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
    int code = again_read_summary(path, &one);
    char *items_file =
        code == EXIT_OK ? again_beside(path, again_text(one.root, "items") ? again_text(one.root, "items") : "") : NULL;
    if (code == EXIT_OK && !again_same_text(again_text(one.root, "run"), again_text(a->summary.root, "run"))) {
        complain("%s: comes from another run than %s: model, configuration, settings or questions differ", path,
                 a->summary.label);
        code = EXIT_ITEM;
    }
    if (code == EXIT_OK &&
        results_read(items_file, again_text(one.root, "run"), &a->e.items, held, NULL, &error) != CANDID_OK) {
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
    int code = again_read_summary(s->paths[0], &a.summary);
    code = code == EXIT_OK ? again_prepare(&a, 2, extra) : code;
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
        if (strcmp(run, again_text(a.summary.root, "run")) != 0) {
            complain("%s: the questions or the configuration have changed since the shards ran", s->name);
            code = EXIT_ITEM;
        }
        code = code == EXIT_OK ? join_files(s, out, &joined) : code;
        if (code == EXIT_OK) {
            code =
                eval_finish(&a.e, &a.e.configs[0], about, run, again_text(json_find(a.summary.root, "time"), "started"),
                            again_text(a.summary.root, "prompts_not_shared"), &held);
            code = code == EXIT_OK && held.n_failed > 0 ? EXIT_ITEM : code; /* as the run itself would end */
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
