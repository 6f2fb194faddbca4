/* candid score sycophancy. */
#include "cli/score.h"
#include "eval/pope/sycophancy.h"

static const char help_text[] =
    "Usage: candid score sycophancy NEUTRAL LEADING [options]\n"
    "\n"
    "Compares answers to the same yes/no questions asked neutrally and with a misleading hint. Both files hold "
    "question,\n"
    "label and answer, as the runs of candid eval do, in the same order. All shares are of the questions answered "
    "both\n"
    "times: changed (another verdict), newly wrong (right, then wrong), newly right.\n"
    "\n"
    "  --rule NAME    how \"yes\" and \"no\" are read (default official); candid pope rules lists the ways\n";

static void print_scores(const cJSON *s) {
    static const char *const counts[][2] = {
        {"right_right", "right, stays right"},   {"right_wrong", "right, becomes wrong"},
        {"wrong_right", "wrong, becomes right"}, {"wrong_wrong", "wrong, stays wrong"},
        {"yes_to_no", "yes becomes no"},         {"no_to_yes", "no becomes yes"}};
    static const char *const shares[][2] = {{"changed", "changed"},
                                            {"newly_wrong", "newly wrong"},
                                            {"newly_right", "newly right"},
                                            {"yes_to_no_share", "yes to no, of both ways"},
                                            {"accuracy_neutral", "accuracy, neutral"},
                                            {"accuracy_leading", "accuracy, leading"}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        printf("%-24s%8.0f\n", counts[i][1], cJSON_GetObjectItemCaseSensitive(s, counts[i][0])->valuedouble);
    }
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        printf("%-24s", shares[i][1]);
        score_print_percent(s, shares[i][0], 8);
        puts(" %");
    }
}

int score_sycophancy(int argc, char **argv) {
    struct score_files files = {0};
    struct score_output output = {0};
    const char *rule = NULL;
    const struct score_option options[] = {{.name = "--rule", .value = &rule}, {0}};
    bool done;
    int code = score_parse(argc, argv, help_text, options, &files, &output, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    if (files.n != 2) {
        complain("expected NEUTRAL and LEADING, found %d files; see candid score sycophancy --help", files.n);
        return EXIT_USAGE;
    }
    struct eval_items items[2] = {{0}, {0}};
    struct eval_scores scores = {0};
    candid_error error;
    candid_status status = CANDID_OK;
    for (int i = 0; i < 2 && status == CANDID_OK; i++) {
        status = pope_read_questions(files.paths[i], NULL, &items[i], &error);
    }
    if (status == CANDID_OK) {
        status = sycophancy_score(&items[0], &items[1], rule, &scores, &error);
    }
    if (status == CANDID_OK) {
        const size_t n_failed = score_count_failed(&items[0]) + score_count_failed(&items[1]);
        score_print_sources(&items[0]);
        score_print_sources(&items[1]);
        print_scores(scores.summary);
        code = score_write(&output, "sycophancy", &items[1], &scores);
        code = code == EXIT_OK && n_failed > 0 ? EXIT_ITEM : code;
    } else {
        complain("%s", error.message);
        code = status == CANDID_ERROR_ARGUMENT ? EXIT_USAGE : EXIT_ITEM;
    }
    scores_free(&scores);
    items_free(&items[0]);
    items_free(&items[1]);
    return code;
}
