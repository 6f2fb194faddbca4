/* POPE: the answer rules and metrics of public programs, against what those programs gave for the same answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/json.h"
#include "eval/pope/pope.h"

static struct json vectors;

static int load(void **state) {
    return json_read(TEST_DATA "/pope/vectors.json", 1 << 20, &vectors, NULL) != CANDID_OK;
}

static int unload(void **state) {
    json_free(&vectors);
    return 0;
}

static const cJSON *member(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    assert_non_null(item);
    return item;
}

static double number(const cJSON *object, const char *key) {
    assert_true(cJSON_IsNumber(member(object, key)));
    return member(object, key)->valuedouble;
}

static void expect_verdict(const char *rule_name, const char *answer, const char *label, const char *expected) {
    const struct pope_rule *rule = pope_rule_find(rule_name);
    assert_non_null(rule);
    const char *found = pope_verdict_name(rule->read(answer, strcmp(label, "yes") == 0));
    if (strcasecmp(found, expected) != 0) {
        fail_msg("%s of \"%s\" (%s): expected %s, found %s", rule_name, answer, label, expected, found);
    }
}

static void answer_rules(void **state) {
    static const char *const columns[][2] = {
        {"official", "official"}, {"llava", "llava"}, {"opera", "opera"}, {"vcd", "vcd"}, {"vlmevalkit", "vlmevalkit"}};
    const cJSON *answer;
    int n = 0;
    cJSON_ArrayForEach(answer, member(vectors.root, "answers")) {
        const char *text = member(answer, "answer")->valuestring, *label = member(answer, "label")->valuestring;
        for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) {
            expect_verdict(columns[c][0], text, label, member(answer, columns[c][1])->valuestring);
        }
        /* lmms-eval compares the normalised text: what is neither word has no verdict */
        const char *normal = member(answer, "lmms_eval")->valuestring;
        const bool word = strcmp(normal, "yes") == 0 || strcmp(normal, "no") == 0;
        expect_verdict("lmms-eval", text, label, word ? normal : "unknown");
        n++;
    }
    assert_int_equal(n, 50);
}

/* What the vectors leave open. */
static void answer_rule_edges(void **state) {
    expect_verdict("official", "n,o", "no", "no"); /* commas go first */
    expect_verdict("official", "no", "no", "no");
    expect_verdict("official", "Yes not", "no", "no");
    expect_verdict("official", ".no", "no", "yes"); /* an empty first sentence */
    expect_verdict("official", "no\tdog", "no", "yes");
    expect_verdict("opera", "n.o", "no", "no");
    expect_verdict("opera", "don't.", "no", "no"); /* the full stop is gone before the end is looked at */
    expect_verdict("opera", "don'ts", "no", "yes");
    expect_verdict("opera", "n't", "no", "no");
    expect_verdict("opera", "'t", "no", "yes");
    expect_verdict("opera", "NOT", "no", "yes");
    expect_verdict("vcd", "YES no", "yes", "yes");
    expect_verdict("vcd", "YES no", "no", "no");
    expect_verdict("lmms-eval", "\u00a0\u3000Yes\u2003\n", "yes", "yes");
    expect_verdict("lmms-eval", "No \u00a1", "no", "unknown");
    expect_verdict("lmms-eval", "", "no", "unknown");
    expect_verdict("lmms-eval", " \u3000", "no", "unknown");
    expect_verdict("vlmevalkit", "no\u00a0doubt", "no", "no");      /* words end at any white space */
    expect_verdict("vlmevalkit", "no,doubt", "no", "no");           /* a comma becomes a blank */
    expect_verdict("vlmevalkit", "no,doubt, sir", "no", "unknown"); /* but goes where one stands before a blank */
    expect_verdict("vlmevalkit", "no;doubt 1,2", "no", "unknown");  /* all go with a comma between digits */
    expect_verdict("vlmevalkit", "n.o", "no", "no");
    expect_verdict("vlmevalkit", "1.2 no", "no", "no");
    expect_verdict("vlmevalkit", "................................ no", "no", "no");
    expect_verdict("vlmevalkit", "................................ no.", "no",
                   "unknown"); /* the 33rd full stop stays */
}

/* The fixture's answers as items. */
static void fill(struct eval_items *items, const char *split) {
    const cJSON *answer;
    cJSON_ArrayForEach(answer, member(vectors.root, "answers")) {
        const struct eval_item item = {.split = split,
                                       .question = "?",
                                       .label = member(answer, "label")->valuestring,
                                       .answer = member(answer, "answer")->valuestring};
        assert_int_equal(items_add(items, &item, NULL), CANDID_OK);
    }
}

static void same(const cJSON *found, const char *key, const cJSON *expected, const char *their_key) {
    const double a = number(found, key), b = number(expected, their_key);
    if (a != b) {
        fail_msg("%s: expected %.17g, found %.17g", key, b, a);
    }
}

static void metrics(void **state) {
    struct eval_items items = {0};
    struct eval_scores scores;
    fill(&items, "random");
    assert_int_equal(pope_score(&items, &(struct pope_options){.all_rules = true}, &scores, NULL), CANDID_OK);
    assert_string_equal(member(scores.summary, "rule")->valuestring, "official");
    const cJSON *expected = member(vectors.root, "metrics");
    static const char *const rules[] = {"official", "opera"};
    for (int r = 0; r < 2; r++) {
        const cJSON *of = member(expected, rules[r]);
        const cJSON *found = member(member(member(member(scores.summary, "rules"), rules[r]), "splits"), "random");
        same(found, "tp", of, "TP");
        same(found, "fp", of, "FP");
        same(found, "tn", of, "TN");
        same(found, "fn", of, "FN");
        same(found, "accuracy", of, "Accuracy");
        same(found, "precision", of, "Precision");
        same(found, "recall", of, "Recall");
        same(found, "f1", of, "F1 score");
        same(found, "yes_ratio", of, "Yes ratio");
    }
    const cJSON *all = member(scores.summary, "rules");
    const cJSON *vcd = member(member(member(all, "vcd"), "splits"), "random"), *of = member(expected, "vcd");
    same(vcd, "tp", of, "TP");
    same(vcd, "fn", of, "FN");
    same(vcd, "accuracy", of, "Accuracy");
    same(vcd, "f1", of, "F1");
    same(vcd, "yes_ratio", of, "yes");
    const cJSON *lmms = member(member(member(all, "lmms-eval"), "splits"), "random");
    of = member(expected, "lmms_eval");
    same(lmms, "accuracy", of, "accuracy");
    same(lmms, "precision", of, "precision");
    same(lmms, "recall", of, "recall");
    same(lmms, "f1", of, "f1_score");
    same(lmms, "yes_ratio", of, "yes_ratio");
    /* Verdicts hold what the summary counts. */
    int correct = 0;
    for (size_t i = 0; i < scores.n; i++) {
        correct += cJSON_IsTrue(member(scores.verdicts[i], "correct"));
    }
    const cJSON *official = member(member(scores.summary, "splits"), "random");
    assert_int_equal(correct, (int)(number(official, "tp") + number(official, "tn")));
    assert_string_equal(member(member(scores.verdicts[7], "rules"), "opera")->valuestring, "no");
    scores_free(&scores);
    items_free(&items);
}

static void add(struct eval_items *items, const char *split, const char *label, const char *answer) {
    const struct eval_item item = {.split = split, .question = "?", .label = label, .answer = answer};
    assert_int_equal(items_add(items, &item, NULL), CANDID_OK);
}

/* VLMEvalKit's unknown: wrong, and no "yes". */
static void unknown_answers(void **state) {
    struct eval_items items = {0};
    struct eval_scores scores;
    add(&items, NULL, "yes", "Yes");
    add(&items, NULL, "yes", "Sure");
    add(&items, NULL, "no", "Never");
    add(&items, NULL, "no", "No");
    assert_int_equal(pope_score(&items, &(struct pope_options){.rule = "vlmevalkit"}, &scores, NULL), CANDID_OK);
    const cJSON *all = member(member(scores.summary, "splits"), "all");
    assert_true(number(all, "accuracy") == 0.5 && number(all, "precision") == 1 && number(all, "recall") == 0.5);
    assert_true(number(all, "unknown") == 2 && number(all, "answers") == 4 && number(all, "fn") == 0);
    assert_true(number(all, "overall") == 2 * (1 * 0.5) / (1 + 0.5) * 100);
    assert_string_equal(member(scores.verdicts[1], "verdict")->valuestring, "unknown");
    scores_free(&scores);
    /* lmms-eval's recall knows only the literal "no" */
    assert_int_equal(pope_score(&items, &(struct pope_options){.rule = "lmms-eval"}, &scores, NULL), CANDID_OK);
    assert_true(number(member(member(scores.summary, "splits"), "all"), "recall") == 1);
    scores_free(&scores);
    items_free(&items);
}

/* Denominators of zero are null where the program would fail, 0 in those that say so; a failed answer counts nowhere.
 */
static void undefined(void **state) {
    struct eval_items items = {0};
    struct eval_scores scores;
    add(&items, "random", "no", "No");
    add(&items, "popular", "yes", "Yes");
    add(&items, "popular", "yes", NULL);
    assert_int_equal(pope_score(&items, NULL, &scores, NULL), CANDID_OK);
    const cJSON *random = member(member(scores.summary, "splits"), "random");
    const cJSON *mean = member(scores.summary, "mean");
    assert_true(cJSON_IsNull(member(random, "precision")) && cJSON_IsNull(member(random, "recall")) &&
                cJSON_IsNull(member(random, "f1")) && cJSON_IsNull(member(mean, "f1")));
    assert_true(number(mean, "accuracy") == 1 && number(mean, "yes_ratio") == 0.5);
    assert_true(number(member(member(scores.summary, "splits"), "popular"), "answers") == 1);
    assert_null(scores.verdicts[2]);
    scores_free(&scores);
    assert_int_equal(pope_score(&items, &(struct pope_options){.rule = "lmms-eval"}, &scores, NULL), CANDID_OK);
    random = member(member(scores.summary, "splits"), "random");
    assert_true(number(random, "precision") == 0 && number(random, "f1") == 0 && number(random, "yes_ratio") == 0);
    scores_free(&scores);
    candid_error error;
    assert_int_equal(pope_score(&items, &(struct pope_options){.rule = "mine"}, &scores, &error),
                     CANDID_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "\"mine\""));
    add(&items, "popular", NULL, "Yes");
    assert_int_equal(pope_score(&items, NULL, &scores, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "question 4 of 4: POPE needs the label \"yes\" or \"no\", found none"));
    items.items[3].label = "Yes";
    assert_int_equal(pope_score(&items, NULL, &scores, &error), CANDID_ERROR_FORMAT);
    items_free(&items);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answer_rules),    cmocka_unit_test(answer_rule_edges), cmocka_unit_test(metrics),
        cmocka_unit_test(unknown_answers), cmocka_unit_test(undefined),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
