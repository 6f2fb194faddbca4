/* MME: how answers are read, scores, folders in both layouts, result files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/json.h"
#include "eval/mme/mme.h"

static const cJSON *member(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    assert_non_null(item);
    return item;
}

static void answers(void **state) {
    struct json vectors;
    assert_int_equal(json_read(TEST_DATA "/pope/vectors.json", 1 << 20, &vectors, NULL), CANDID_OK);
    const cJSON *answer;
    int n = 0;
    cJSON_ArrayForEach(answer, member(vectors.root, "answers")) {
        const char *text = member(answer, "answer")->valuestring;
        assert_string_equal(mme_read_answer(NULL, text), member(answer, "mme_tool")->valuestring);
        assert_string_equal(mme_read_answer("lmms-eval", text), member(answer, "lmms_mme")->valuestring);
        n++;
    }
    assert_int_equal(n, 50);
    json_free(&vectors);
    assert_string_equal(mme_read_answer("official", "äöno"), "no"); /* four characters, not bytes */
    assert_string_equal(mme_read_answer("official", "äöüno"), "other");
    assert_string_equal(mme_read_answer("official", "   yes"), "other");
    assert_string_equal(mme_read_answer("lmms-eval", "   y."), "yes");
    assert_string_equal(mme_read_answer("lmms-eval", "...no"), "no");
    assert_string_equal(mme_read_answer("official", "...no"), "other");
    assert_string_equal(mme_read_answer("official", "aİno"), "other"); /* its lower case is two characters */
    assert_null(mme_read_answer("mine", "yes"));
}

static void add(struct eval_items *items, const char *split, const char *image, const char *label, const char *answer) {
    const struct eval_item item = {.image = image, .split = split, .question = "?", .label = label, .answer = answer};
    assert_int_equal(items_add(items, &item, NULL), CANDID_OK);
}

/* Three images with 2, 1 and 1 right answers: acc 4/6, acc+ 1/3. */
static void fill(struct eval_items *items, const char *split) {
    add(items, split, "a.jpg", "yes", "Yes");
    add(items, split, "a.jpg", "no", "no.");
    add(items, split, "b.jpg", "yes", "Maybe");
    add(items, split, "b.jpg", "no", "No, it is not");
    add(items, split, "c.jpg", "yes", "yes");
    add(items, split, "c.jpg", "no", "yes");
}

static double number(const cJSON *object, const char *key) {
    return member(object, key)->valuedouble;
}

static void scores(void **state) {
    struct eval_items items = {0};
    struct eval_scores out;
    fill(&items, "existence");
    assert_int_equal(mme_score(&items, NULL, &out, NULL), CANDID_OK);
    const cJSON *existence = member(member(out.summary, "subtasks"), "existence");
    assert_true(number(existence, "questions") == 6 && number(existence, "images") == 3);
    assert_true(number(existence, "acc") == 4.0 / 6 && number(existence, "acc_plus") == 1.0 / 3);
    assert_true(number(existence, "score") == 4.0 / 6 * 100 + 1.0 / 3 * 100);
    assert_null(cJSON_GetObjectItem(out.summary, "hallucination")); /* three sub-tasks are missing */
    assert_string_equal(member(out.verdicts[2], "verdict")->valuestring, "other");
    assert_true(cJSON_IsFalse(member(out.verdicts[2], "correct")) && cJSON_IsTrue(member(out.verdicts[3], "correct")));
    scores_free(&out);
    assert_int_equal(mme_score(&items, &(struct mme_options){"lmms-eval"}, &out, NULL), CANDID_OK);
    assert_true(number(member(member(out.summary, "subtasks"), "existence"), "score") == (200.0 + 50 + 50) / 3);
    scores_free(&out);

    fill(&items, "count");
    fill(&items, "position");
    add(&items, "color", "d.jpg", "yes", "yes");
    add(&items, "color", "d.jpg", "no", "no");
    add(&items, "color", "e.jpg", "yes", NULL); /* failed: the image is left out */
    add(&items, "color", "e.jpg", "no", "no");
    assert_int_equal(mme_score(&items, NULL, &out, NULL), CANDID_OK);
    assert_true(number(member(member(out.summary, "subtasks"), "color"), "images") == 1);
    const double one = 4.0 / 6 * 100 + 1.0 / 3 * 100;
    assert_true(number(out.summary, "hallucination") == one + one + one + 200);
    assert_null(cJSON_GetObjectItem(out.summary, "perception"));
    assert_null(out.verdicts[items.n - 1]);
    scores_free(&out);

    candid_error error;
    add(&items, "color", "f.jpg", "yes", "yes");
    assert_int_equal(mme_score(&items, NULL, &out, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "expected two about one image"));
    add(&items, "color", "g.jpg", "no", "yes");
    assert_int_equal(mme_score(&items, NULL, &out, &error), CANDID_ERROR_FORMAT);
    items_free(&items);
    add(&items, "color", "f.jpg", "yes", "yes");
    add(&items, "color", "f.jpg", "No", "yes");
    assert_int_equal(mme_score(&items, NULL, &out, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "question 2 of MME: expected the label"));
    items_free(&items);
    add(&items, "colour", "f.jpg", "yes", "yes");
    assert_int_equal(mme_score(&items, NULL, &out, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "\"colour\""));
    assert_int_equal(mme_score(&items, &(struct mme_options){"x"}, &out, &error), CANDID_ERROR_ARGUMENT);
    items_free(&items);
}

/*
 * What the official calculation.py printed for the results of LaVIN that it comes with, sub-tasks and totals to the
 * last digit. Numbers of right answers and of images with both right are some that give these scores.
 */
static void official_scores(void **state) {
    static const struct {
        const char *name;
        int questions, correct, both;
        double score;
    } subtasks[MME_SUBTASKS] = {
        {"existence", 60, 57, 27, 185.0},
        {"count", 60, 31, 11, 88.33333333333334},
        {"position", 60, 30, 4, 63.333333333333336},
        {"color", 60, 29, 8, 75.0},
        {"posters", 294, 146, 44, 79.59183673469389},
        {"celebrity", 340, 125, 18, 47.35294117647059},
        {"scene", 400, 295, 126, 136.75},
        {"landmark", 400, 222, 76, 93.5},
        {"artwork", 400, 211, 69, 87.25},
        {"OCR", 40, 25, 9, 107.5},
        {"commonsense_reasoning", 140, 74, 24, 87.14285714285714},
        {"numerical_calculation", 40, 18, 4, 65.0},
        {"text_translation", 40, 15, 2, 47.5},
        {"code_reasoning", 40, 14, 3, 50.0},
    };
    struct eval_items items = {0};
    struct eval_scores out;
    for (int s = 0; s < MME_SUBTASKS; s++) {
        assert_string_equal(subtasks[s].name, mme_subtasks[s]);
        for (int i = 0; i < subtasks[s].questions / 2; i++) {
            const bool both = i < subtasks[s].both, one = i < subtasks[s].correct - subtasks[s].both;
            char image[16];
            snprintf(image, sizeof image, "%d.jpg", i);
            add(&items, subtasks[s].name, image, "yes", both || one ? "yes" : "no");
            add(&items, subtasks[s].name, image, "no", both ? "no" : "yes");
        }
    }
    assert_int_equal(items.n, 2374);
    assert_int_equal(mme_score(&items, NULL, &out, NULL), CANDID_OK);
    for (int s = 0; s < MME_SUBTASKS; s++) {
        assert_true(number(member(member(out.summary, "subtasks"), mme_subtasks[s]), "score") == subtasks[s].score);
    }
    assert_true(number(out.summary, "perception") == 963.6114445778312);
    assert_true(number(out.summary, "cognition") == 249.64285714285714);
    assert_true(number(out.summary, "hallucination") == 185.0 + 88.33333333333334 + 63.333333333333336 + 75.0);
    scores_free(&out);
    items_free(&items);
}

static char root[] = "/tmp/candid_mme_XXXXXX";

static void write_file(const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void make_folder(const char *name) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

static int make_root(void **state) {
    return mkdtemp(root) == NULL;
}

static int remove_root(void **state) {
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", root);
    return system(command);
}

static void folder_fails(const char *message) {
    struct eval_items items = {0};
    candid_error error;
    assert_int_equal(mme_read_folder(root, NULL, &items, &error), CANDID_ERROR_FORMAT);
    if (!strstr(error.message, message)) {
        fail_msg("expected \"%s\", found: %s", message, error.message);
    }
    items_free(&items);
}

static void folders(void **state) {
    struct eval_items items = {0};
    folder_fails("expected folders of MME's sub-tasks");
    make_folder("count");
    folder_fails("expected text files with questions");
    make_folder("existence");
    make_folder("existence/images");
    make_folder("existence/questions_answers_YN");
    write_file("existence/questions_answers_YN/x.txt", "C?\tYes\nD?\tNo\n");
    write_file("existence/images/x.jpg", "");
    write_file("count/0002.txt", "Are there 2? Please answer yes or no.\tYes\r\nAre there 3?\tNo\n\n");
    folder_fails("count/0002.txt: expected an image of the same name");
    write_file("count/0002.jpg", "");
    write_file("count/0001.txt", "A?\tYes\nB?\tNo");
    write_file("count/0001.png", "");
    assert_int_equal(mme_read_folder(root, NULL, &items, NULL), CANDID_OK);
    assert_int_equal(items.n, 6);
    assert_string_equal(items.items[0].image, "existence/images/x.jpg");
    assert_string_equal(items.items[0].split, "existence");
    assert_string_equal(items.items[1].label, "no");
    assert_string_equal(items.items[2].image, "count/0001.png");
    assert_string_equal(items.items[4].question, "Are there 2? Please answer yes or no.");
    assert_string_equal(items.items[5].id, "count/0002.txt/2");
    assert_int_equal(items.sources[0].n_lines, 6);
    items_free(&items);
    static const char *const only[] = {"count", NULL};
    assert_int_equal(mme_read_folder(root, only, &items, NULL), CANDID_OK);
    assert_int_equal(items.n, 4);
    items_free(&items);
    write_file("count/0001.txt", "A?\tYes\nB? No\n");
    folder_fails("count/0001.txt:2: expected a question, a tab, and Yes or No, found \"B? No\"");
    write_file("count/0001.txt", "A?\tYes\n");
    folder_fails("count/0001.txt:1: expected two questions, found \"fewer\"");
    write_file("count/0001.txt", "A?\tYes\nB?\tno\nC?\tyes");
    folder_fails("found \"more\"");
}

static void results_fail(const char *text, const char *message) {
    struct eval_items items = {0};
    candid_error error;
    char path[256];
    snprintf(path, sizeof path, "%s/color.txt", root);
    write_file("color.txt", text);
    assert_int_equal(mme_read_results(path, &items, &error), CANDID_ERROR_FORMAT);
    if (!strstr(error.message, message) || !strstr(error.message, "color.txt")) {
        fail_msg("expected \"%s\", found: %s", message, error.message);
    }
    items_free(&items);
}

static void results(void **state) {
    struct eval_items items = {0}, again = {0};
    char path[256];
    fill(&items, "color");
    items.items[0].answer = "Yes\tand\nno";
    items.items[1].image = "color/a.jpg";
    assert_int_equal(mme_write_results(root, &items, NULL), CANDID_OK);
    snprintf(path, sizeof path, "%s/color.txt", root);
    assert_int_equal(mme_read_results(path, &again, NULL), CANDID_OK);
    assert_int_equal(again.n, 6);
    assert_string_equal(again.items[0].answer, "Yes and no");
    assert_string_equal(again.items[1].image, "a.jpg");
    assert_string_equal(again.items[3].label, "no");
    assert_string_equal(again.items[3].split, "color");
    assert_string_equal(again.items[5].id, "color/6");
    items_free(&again);
    items.items[3].answer = NULL;
    assert_int_equal(mme_write_results(root, &items, NULL), CANDID_ERROR_FORMAT);
    items_free(&items);
    write_file("color.txt", "a.jpg\tQ?\tYes\na.jpg\tQ?\tNo\n"); /* a template */
    assert_int_equal(mme_read_results(path, &items, NULL), CANDID_OK);
    assert_null(items.items[1].answer);
    items_free(&items);
    results_fail("a.jpg\tQ?\tYes\tyes\n", "two lines per image");
    results_fail("a.jpg\tQ?\tYes\tyes\nx\ty\n", ":2: expected image, question, gold and answer");
    results_fail("a.jpg\tQ?\tYes\tyes\tno\n", ":1: expected image, question, gold and answer");
    results_fail("a.jpg\tQ?\tyep\tyes\n", ":1: expected Yes or No in the third column, found \"yep\"");
    assert_int_equal(mme_read_results("colours.txt", &items, NULL), CANDID_ERROR_FORMAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers), cmocka_unit_test(scores),  cmocka_unit_test(official_scores),
        cmocka_unit_test(folders), cmocka_unit_test(results),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
