/* candid score mme. */
#include <stdlib.h>
#include <string.h>

#include "cli/score.h"
#include "core/file.h"
#include "eval/common/run_items.h"
#include "eval/mme/mme.h"

static const char help_text[] =
    "Usage: candid score mme FOLDER|FILE.txt...|RUN.jsonl [options]\n"
    "\n"
    "Scores result files of MME's official tool (existence.txt and so on: image, question, gold, answer between "
    "tabs),\n"
    "all of a folder or single ones, or a run of candid eval. The score of a sub-task is 100 acc + 100 acc+, at most\n"
    "200; acc+ is the share of images with both questions answered right.\n"
    "\n"
    "  --rule NAME    official (default) or lmms-eval, which also reads a single y or n\n"
    "  --write FOLDER write result files for the official tool\n";

static bool ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Every result file of the folder. */
static candid_status read_folder(const char *folder, struct eval_items *items, candid_error *error) {
    const size_t begin = items->n;
    for (int s = 0; s < MME_SUBTASKS; s++) {
        char name[64], *path;
        snprintf(name, sizeof name, "%s.txt", mme_subtasks[s]);
        candid_status status = file_join(folder, name, &path, error);
        if (status == CANDID_OK && file_exists(path)) {
            status = mme_read_results(path, items, error);
        }
        free(path);
        if (status != CANDID_OK) {
            return status;
        }
    }
    if (items->n == begin) {
        snprintf(error->message, sizeof error->message,
                 "%s: expected MME's result files (existence.txt, …), found none", folder);
        return CANDID_ERROR_FORMAT;
    }
    return CANDID_OK;
}

static candid_status read_file(const char *path, struct eval_items *items, candid_error *error) {
    return file_is_directory(path)     ? read_folder(path, items, error)
           : ends_with(path, ".jsonl") ? run_read_items(path, items, error)
                                       : mme_read_results(path, items, error);
}

void score_mme_print(const cJSON *summary) {
    static const char *const totals[] = {"hallucination", "perception", "cognition"};
    printf("\n%-22s%10s%10s%10s%10s\n", "sub-task", "images", "acc", "acc+", "score");
    const cJSON *subtask;
    cJSON_ArrayForEach(subtask, cJSON_GetObjectItemCaseSensitive(summary, "subtasks")) {
        printf("%-22s%10.0f", subtask->string, cJSON_GetObjectItemCaseSensitive(subtask, "images")->valuedouble);
        score_print_percent(subtask, "acc", 10);
        score_print_percent(subtask, "acc_plus", 10);
        printf("%10.2f\n", cJSON_GetObjectItemCaseSensitive(subtask, "score")->valuedouble);
    }
    for (size_t t = 0; t < sizeof totals / sizeof *totals; t++) {
        const cJSON *total = cJSON_GetObjectItemCaseSensitive(summary, totals[t]);
        if (total) {
            printf("%-22s%40.2f\n", totals[t], total->valuedouble);
        }
    }
}

int score_mme(int argc, char **argv) {
    struct score_files files = {0};
    struct score_output output = {0};
    const char *rule = NULL, *write = NULL;
    const struct score_option options[] = {
        {.name = "--rule", .value = &rule}, {.name = "--write", .value = &write}, {0}};
    bool done;
    int code = score_parse(argc, argv, help_text, options, &files, &output, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    struct eval_items items = {0};
    struct eval_scores scores = {0};
    candid_error error;
    candid_status status = CANDID_OK;
    for (int i = 0; i < files.n && status == CANDID_OK; i++) {
        status = read_file(files.paths[i], &items, &error);
    }
    if (status == CANDID_OK) {
        status = mme_score(&items, &(struct mme_options){rule}, &scores, &error);
    }
    if (status == CANDID_OK) {
        const size_t n_failed = score_count_failed(&items);
        score_print_sources(&items);
        score_mme_print(scores.summary);
        code = score_write(&output, "mme", &items, &scores);
        code = code == EXIT_OK && n_failed > 0 ? EXIT_ITEM : code;
        status = write ? mme_write_results(write, &items, &error) : CANDID_OK;
    }
    if (status != CANDID_OK) {
        complain("%s", error.message);
        code = status == CANDID_ERROR_ARGUMENT ? EXIT_USAGE : EXIT_ITEM;
    }
    scores_free(&scores);
    items_free(&items);
    return code;
}
