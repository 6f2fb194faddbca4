/* candid score pope. */
#include <string.h>

#include "cli/score.h"
#include "eval/common/run_items.h"
#include "eval/pope/pope.h"

static const char help_text[] =
    "Usage: candid score pope ANSWERS... [--questions FILE...] [options]\n"
    "\n"
    "Scores answers to POPE's questions: accuracy, precision, recall, F1 and the share of \"yes\", in percent, of "
    "each\n"
    "split and their mean; \"-\" is a division by zero. Answers of candid eval, and others with \"question\", "
    "\"label\" and\n"
    "\"answer\" (or \"ans\", \"output\"), need no question files. Others are joined with them by question_id where "
    "both\n"
    "have distinct ones, else in order: one answer file per question file, or one for all of them. Nothing is cut "
    "off:\n"
    "another number of answers is an error.\n"
    "\n"
    "  --questions FILE...  POPE's question files, or LLaVA's llava_pope_test.jsonl\n"
    "  --labels FILE...     POPE's question files, where the labels for LLaVA's are\n"
    "  --opope              ANSWERS is one file of captions (\"image_id\", \"caption\"), and an object counts as seen "
    "when a\n"
    "                       word of its name is a substring of its image's caption: HALC's OPOPE\n"
    "  --by-order           do not look at ids\n"
    "  --split NAME         the split of files that do not name it; else their name tells (random, popular,\n"
    "                       adversarial)\n"
    "  --rule NAME|all      how \"yes\" and \"no\" are read (default official); candid pope rules lists the ways\n"
    "\n";

struct pope_arguments {
    struct score_files answers, questions, labels;
    const char *split, *rule;
    bool by_order, opope;
    struct score_output output;
};

/* Answers that stand beside question and label: those of candid eval, in the order of their index, and others. */
static candid_status read_answered(const struct pope_arguments *a, const char *path, struct eval_items *items,
                                   candid_error *error) {
    bool is_run = false;
    const size_t begin = items->n;
    candid_status status = run_recognise(path, &is_run, error);
    if (status != CANDID_OK || !is_run) {
        return status != CANDID_OK ? status : pope_read_questions(path, a->split, items, error);
    }
    status = run_read_items(path, items, error);
    if (status == CANDID_OK) {
        items->sources[items->n_sources - 1].known_as = pope_known_version(items, begin, items->n);
        status = pope_check_splits(items, begin, path, error);
    }
    return status;
}

static candid_status read_together(const struct pope_arguments *a, struct eval_items *items, candid_error *error) {
    for (int i = 0; i < a->answers.n; i++) {
        const size_t begin = items->n;
        candid_status status = read_answered(a, a->answers.paths[i], items, error);
        size_t n_answers = 0;
        for (size_t k = begin; status == CANDID_OK && k < items->n; k++) {
            n_answers += items->items[k].answer != NULL;
        }
        if (status == CANDID_OK && (n_answers == 0 || !items->items[begin].label)) {
            snprintf(error->message, sizeof error->message, "%s: found no %s beside the questions; give --questions",
                     a->answers.paths[i], n_answers == 0 ? "answers" : "labels");
            status = CANDID_ERROR_FORMAT;
        }
        if (status != CANDID_OK) {
            return status;
        }
    }
    return CANDID_OK;
}

static candid_status read_joined(const struct pope_arguments *a, struct eval_items *items, candid_error *error) {
    candid_status status = CANDID_OK;
    for (int i = 0; status == CANDID_OK && i < a->questions.n; i++) {
        const size_t begin = items->n;
        status = pope_read_questions(a->questions.paths[i], a->split, items, error);
        if (status == CANDID_OK && a->answers.n > 1) {
            status = pope_read_answers(a->answers.paths[i], a->by_order, items, begin, items->n, error);
        }
    }
    for (int i = 0; status == CANDID_OK && i < a->labels.n; i++) {
        status = pope_read_labels(a->labels.paths[i], NULL, items, error);
    }
    if (status == CANDID_OK && a->opope) {
        status = pope_read_captions(a->answers.paths[0], items, error);
    } else if (status == CANDID_OK && a->answers.n == 1) {
        status = pope_read_answers(a->answers.paths[0], a->by_order, items, 0, items->n, error);
    }
    return status;
}

static void print_row(const char *rule, const char *split, const cJSON *metrics) {
    static const char *const keys[] = {"accuracy", "precision", "recall", "f1", "yes_ratio"};
    printf("%-11s %-12s", rule, split);
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        score_print_percent(metrics, keys[k], 10);
    }
    const cJSON *answers = cJSON_GetObjectItemCaseSensitive(metrics, "answers");
    const cJSON *unknown = cJSON_GetObjectItemCaseSensitive(metrics, "unknown");
    if (answers) {
        printf("%9.0f%9.0f", answers->valuedouble, unknown->valuedouble);
    }
    putchar('\n');
}

static void print_rule(const char *name, const cJSON *scores) {
    const cJSON *split;
    int n = 0;
    cJSON_ArrayForEach(split, cJSON_GetObjectItemCaseSensitive(scores, "splits")) {
        print_row(name, split->string, split);
        n++;
    }
    if (n > 1) {
        print_row(name, "mean", cJSON_GetObjectItemCaseSensitive(scores, "mean"));
    }
}

void score_pope_print(const cJSON *summary) {
    printf("%-11s %-12s%10s%10s%10s%10s%10s%9s%9s\n", "rule", "split", "accuracy", "precision", "recall", "F1", "yes",
           "answers", "unknown");
    const cJSON *rules = cJSON_GetObjectItemCaseSensitive(summary, "rules"), *rule;
    if (!rules) {
        print_rule(cJSON_GetObjectItemCaseSensitive(summary, "rule")->valuestring, summary);
    }
    cJSON_ArrayForEach(rule, rules) {
        print_rule(rule->string, rule);
    }
}

static int score(const struct pope_arguments *a, struct eval_items *items) {
    candid_error error;
    const candid_status status = a->questions.n > 0 ? read_joined(a, items, &error) : read_together(a, items, &error);
    const bool all = a->rule && strcmp(a->rule, "all") == 0;
    struct eval_scores scores = {0};
    if (status != CANDID_OK ||
        pope_score(items, &(struct pope_options){all ? NULL : a->rule, all}, &scores, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_ITEM;
    }
    const size_t n_failed = score_count_failed(items);
    score_print_sources(items);
    printf("%zu questions spell \"imange\"\n\n", pope_count_imange(items, 0, items->n));
    score_pope_print(scores.summary);
    const int code = score_write(&a->output, "pope", items, &scores);
    scores_free(&scores);
    return code != EXIT_OK ? code : n_failed > 0 ? EXIT_ITEM : EXIT_OK;
}

int score_pope(int argc, char **argv) {
    struct pope_arguments a = {0};
    const struct score_option options[] = {{.name = "--questions", .files = &a.questions},
                                           {.name = "--labels", .files = &a.labels},
                                           {.name = "--by-order", .flag = &a.by_order},
                                           {.name = "--opope", .flag = &a.opope},
                                           {.name = "--split", .value = &a.split},
                                           {.name = "--rule", .value = &a.rule},
                                           {0}};
    bool done;
    const int code = score_parse(argc, argv, help_text, options, &a.answers, &a.output, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    if (a.rule && strcmp(a.rule, "all") != 0 && !pope_rule_find(a.rule)) {
        complain("no answer rule \"%s\"; candid pope rules lists them", a.rule);
        return EXIT_USAGE;
    }
    if (a.questions.n > 0 && a.answers.n != 1 && a.answers.n != a.questions.n) {
        complain("expected one answer file, or one per question file (%d), found %d", a.questions.n, a.answers.n);
        return EXIT_USAGE;
    }
    if (a.opope && (a.questions.n == 0 || a.answers.n != 1)) {
        complain("--opope needs --questions and one file of captions; see candid score pope --help");
        return EXIT_USAGE;
    }
    struct eval_items items = {0};
    const int scored = score(&a, &items);
    items_free(&items);
    return scored;
}
