/* candid score amber. */
#include <stdlib.h>

#include "cli/score.h"
#include "core/file.h"
#include "eval/amber/amber.h"
#include "eval/chair/tagger.h"
#include "eval/common/run_items.h"

static const char help_text[] =
    "Usage: candid score amber RESPONSES.json|RUN.jsonl... --amber-data FOLDER [options]\n"
    "\n"
    "Scores AMBER's answers, [{\"id\": 1, \"response\": \"…\"}] as its official program reads them, or runs of candid "
    "eval.\n"
    "Prints what that program prints, in percent.\n"
    "\n"
    "  --amber-data FOLDER  AMBER's repository, or its folder data/: annotations.json, relation.json, safe_words.txt\n"
    "  --similarity FILE    which words are alike, made by eval/amber/similarity.py from spaCy's vectors; without it\n"
    "                       only equal words are, which counts more nouns as invented\n"
    "  --tagger FILE        finds the nouns of descriptions; default is what candid chair import-tagger has written.\n"
    "                       Without one every word of AMBER's vocabulary counts, a verb like \"watch\" too\n";

static candid_status read_file(const char *path, const struct amber_data *data, struct eval_items *items,
                               candid_error *error) {
    bool is_run = false;
    const candid_status status = run_recognise(path, &is_run, error);
    return status != CANDID_OK ? status
           : is_run            ? run_read_items(path, items, error)
                               : amber_read_responses(path, data, items, error);
}

static double number(const cJSON *object, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(object, key)->valuedouble;
}

void score_amber_print(const cJSON *summary) {
    const cJSON *g = cJSON_GetObjectItemCaseSensitive(summary, "generative"), *dimension;
    if (g) {
        printf("\n%-16s%10s%10s%10s%10s%10s\n", "generative", "CHAIR", "Cover", "Hal", "Cog", "images");
        printf("%-16s%10.1f%10.1f%10.1f%10.1f%10.0f\n", "", number(g, "chair"), number(g, "cover"), number(g, "hal"),
               number(g, "cog"), number(g, "images"));
        printf("words are alike: %s; nouns: %s\n", cJSON_GetObjectItem(summary, "similarity")->valuestring,
               cJSON_GetObjectItem(summary, "tagger")->valuestring);
    }
    const cJSON *d = cJSON_GetObjectItemCaseSensitive(summary, "discriminative");
    if (d) {
        printf("\n%-16s%10s%10s%10s%10s%10s\n", "discriminative", "accuracy", "precision", "recall", "F1", "questions");
    }
    cJSON_ArrayForEach(dimension, d) {
        printf("%-16s%10.1f%10.1f%10.1f%10.1f%10.0f\n", dimension->string, number(dimension, "accuracy"),
               number(dimension, "precision"), number(dimension, "recall"), number(dimension, "f1"),
               number(dimension, "questions"));
    }
    if (g && d) {
        printf("\nAMBER score %.2f\n", number(summary, "amber_score"));
    }
}

int score_amber(int argc, char **argv) {
    struct score_files files = {0};
    struct score_output output = {0};
    const char *folder = NULL, *similarity = NULL, *tagger = NULL;
    const struct score_option options[] = {{.name = "--amber-data", .value = &folder},
                                           {.name = "--tagger", .value = &tagger},
                                           {.name = "--similarity", .value = &similarity},
                                           {0}};
    bool done;
    int code = score_parse(argc, argv, help_text, options, &files, &output, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    if (!folder) {
        complain("expected --amber-data FOLDER; see candid score amber --help");
        return EXIT_USAGE;
    }
    struct amber_data *data = NULL;
    struct amber_nouns nouns = {0};
    char *standard = tagger ? NULL : tagger_default_path();
    struct eval_items items = {0};
    struct eval_scores scores = {0};
    candid_error error;
    candid_status status = amber_data_read(folder, similarity, &data, &error);
    if (status == CANDID_OK) {
        status = amber_nouns_open(
            data, tagger || (standard && file_exists(standard)) ? (tagger ? tagger : standard) : NULL, &nouns, &error);
    }
    for (int i = 0; i < files.n && status == CANDID_OK; i++) {
        status = read_file(files.paths[i], data, &items, &error);
    }
    if (status == CANDID_OK) {
        status = amber_score(&items, &(struct amber_options){data, nouns}, &scores, &error);
    }
    if (status == CANDID_OK) {
        const size_t n_failed = score_count_failed(&items);
        score_print_sources(&items);
        score_amber_print(scores.summary);
        code = score_write(&output, "amber", &items, &scores);
        code = code == EXIT_OK && n_failed > 0 ? EXIT_ITEM : code;
    } else {
        complain("%s", error.message);
        code = EXIT_ITEM;
    }
    scores_free(&scores);
    items_free(&items);
    amber_nouns_close(&nouns);
    free(standard);
    amber_data_free(data);
    return code;
}
