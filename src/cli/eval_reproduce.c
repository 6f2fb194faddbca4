/* candid eval --reproduce: a run once more, every answer compared. */
#include <stdlib.h>
#include <string.h>

#include "cli/eval_again.h"

static const char reproduce_help[] =
    "Usage: candid eval --reproduce RUN.json [--out DIR] [options]\n\n"
    "Runs what RUN.json tells of once more, with the same model, questions, settings and configuration, into DIR (by\n"
    "default RUN.reproduced beside it), and says whether every answer and the logits it was chosen from are the same.\n"
    "Further options replace those of the run: --model, --images where files have moved, --threads. Relative file "
    "names\n"
    "mean what they meant then: run it in the same folder.\n";

/* What a run was made with that is not what it is made with now. */
static void compare_circumstances(const struct again *a, const cJSON *about) {
    static const char *const keys[] = {"name", "sha256", "mmproj_sha256", "backend"};
    const cJSON *before = json_find(a->summary.root, "model"), *now = json_find(about, "model");
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *x = again_text(before, keys[i]), *y = again_text(now, keys[i]);
        if (!again_same_text(x, y)) {
            printf("the model's %s was %s, is %s\n", keys[i], x ? x : "none", y ? y : "none");
        }
    }
    char *x = cJSON_PrintUnformatted(json_find(a->summary.root, "settings"));
    char *y = cJSON_PrintUnformatted(json_find(about, "settings"));
    if (!again_same_text(x, y)) {
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
        const bool same = again_same_text(x, y);
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

static int reproduce(struct again *a, const char *path) {
    struct eval_items before = {0};
    struct eval_held old = {0}, now = {0};
    candid_error error = {CANDID_OK, "out of memory"};
    const char *items_name = again_text(a->summary.root, "items"), *name = a->e.configs[0].name;
    char *items_file = again_beside(path, items_name ? items_name : ""), *again = NULL;
    int code = EXIT_ITEM;
    candid_status status = items_file ? evaluation_items(&a->e, &before, &error) : CANDID_ERROR_MEMORY;
    status = status == CANDID_OK ? held_make(&old, before.n, &error) : status;
    status = status == CANDID_OK
                 ? results_read(items_file, again_text(a->summary.root, "run"), &before, &old, NULL, &error)
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
    int n = 0, code = extra ? again_read_summary(argv[1], &a.summary) : EXIT_ITEM;
    if (code == EXIT_OK) {
        const size_t length = strlen(argv[1]), cut = length > 5 && strcmp(argv[1] + length - 5, ".json") == 0 ? 5 : 0;
        snprintf(folder, sizeof folder, "%.*s.reproduced", (int)(length - cut), argv[1]);
        extra[n++] = "--out";
        extra[n++] = folder;
        for (int i = 2; i < argc; i++) {
            extra[n++] = argv[i];
        }
        code = again_prepare(&a, n, extra);
    }
    if (code == EXIT_OK) {
        code = make_folder(a.options.out) ? reproduce(&a, argv[1]) : EXIT_OUTPUT;
    }
    again_free(&a);
    free(extra);
    return code;
}
