/* POPE: question and answer files in the forms that circulate, and what is said about broken ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "eval/pope/pope.h"

static char folder[] = "/tmp/candid_pope_XXXXXX";

static int make_folder(void **state) {
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state) {
    return rmdir(folder);
}

/* Writes a file for one call of a reader; the name is static. */
static const char *file(const char *name, const char *text) {
    static char path[2][128];
    static int next;
    char *to = path[next = !next];
    snprintf(to, sizeof path[0], "%s/%s", folder, name);
    FILE *f = fopen(to, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    fclose(f);
    return to;
}

static void read_ok(const char *name, const char *text, const char *split, struct eval_items *items) {
    const char *path = file(name, text);
    candid_error error;
    if (pope_read_questions(path, split, items, &error) != CANDID_OK) {
        fail_msg("%s", error.message);
    }
    unlink(path);
}

static void read_fails(const char *text, const char *message) {
    struct eval_items items = {0};
    const char *path = file("bad.jsonl", text);
    candid_error error = {CANDID_OK, ""};
    assert_int_equal(pope_read_questions(path, NULL, &items, &error), CANDID_ERROR_FORMAT);
    if (!strstr(error.message, message) || !strstr(error.message, "bad.jsonl")) {
        fail_msg("expected \"%s\", found: %s", message, error.message);
    }
    unlink(path);
    items_free(&items);
}

static const char two[] = "{\"question_id\": 1, \"image\": \"a.jpg\", \"text\": \"Is there a cat in the image?\", "
                          "\"label\": \"yes\"}\n"
                          "{\"question_id\": 2, \"image\": \"a.jpg\", \"text\": \"Is there an owl in the imange?\", "
                          "\"label\": \"no\"}\n";

static void expect_two(const struct eval_items *items, const char *split) {
    assert_int_equal(items->n, 2);
    assert_string_equal(items->items[0].id, "1");
    assert_string_equal(items->items[1].image, "a.jpg");
    assert_string_equal(items->items[1].question, "Is there an owl in the imange?");
    assert_string_equal(items->items[0].label, "yes");
    assert_string_equal(items->items[1].label, "no");
    assert_null(items->items[0].answer);
    if (split) {
        assert_string_equal(items->items[1].split, split);
    } else {
        assert_null(items->items[1].split);
    }
}

static void forms(void **state) {
    struct eval_items items = {0};
    read_ok("coco_pope_popular.json", two, NULL, &items);
    expect_two(&items, "popular");
    assert_int_equal(items.n_sources, 1);
    assert_int_equal(items.sources[0].n_lines, 2);
    assert_null(items.sources[0].known_as);
    assert_int_equal(strlen(items.sources[0].sha256), 64);
    assert_int_equal(pope_count_imange(&items, 0, 2), 1);
    items_free(&items);

    char array[sizeof two + 8];
    snprintf(array, sizeof array, "[\n%s", two);
    *strchr(array + 2, '\n') = ',';
    strcat(array, "]\n");
    read_ok("q.json", array, NULL, &items);
    expect_two(&items, NULL);
    items_free(&items);

    read_ok("q_random.jsonl", two, "mine", &items); /* what is given goes before the file's name */
    expect_two(&items, "mine");
    items_free(&items);

    /* LLaVA: category, no label */
    read_ok(
        "llava.jsonl",
        "{\"question_id\": 0, \"image\": \"a.jpg\", \"text\": \"Is it?\\nOne word.\", \"category\": \"popular\"}\n\n"
        "{\"question_id\": 1, \"image\": \"a.jpg\", \"text\": \"Or?\", \"category\": \"random\"}",
        "mine", &items);
    assert_string_equal(items.items[0].split, "popular");
    assert_string_equal(items.items[1].split, "random");
    assert_null(items.items[0].label);
    items_free(&items);

    /* PAI: chat form */
    read_ok("chat_adversarial.json",
            "{\"text\": [\"A?\", \"B?\"], \"label\": [\"yes\", \"no\"], \"chat_id\": 7, \"image\": \"a.jpg\"}", NULL,
            &items);
    assert_int_equal(items.n, 2);
    assert_string_equal(items.items[1].id, "7.1");
    assert_string_equal(items.items[1].question, "B?");
    assert_string_equal(items.items[1].label, "no");
    assert_string_equal(items.items[1].image, "a.jpg");
    assert_string_equal(items.items[1].split, "adversarial");
    items_free(&items);

    /* PAI's answers, and ours with a failed question: no other file is needed */
    read_ok("answers.jsonl",
            "{\"query\": \"A?\", \"label\": 1, \"ans\": \"Yes\", \"question\": \"USER: A? ASSISTANT:\"}", NULL, &items);
    assert_string_equal(items.items[0].question, "A?");
    assert_string_equal(items.items[0].label, "yes");
    assert_string_equal(items.items[0].answer, "Yes");
    items_free(&items);
    read_ok(
        "ours.jsonl",
        "{\"id\": \"x\", \"split\": \"random\", \"question\": \"A?\", \"label\": \"no\", \"answer\": \"\"}\n"
        "{\"id\": \"y\", \"split\": \"random\", \"question\": \"B?\", \"label\": \"no\", \"error\": \"no image\"}\n",
        NULL, &items);
    assert_string_equal(items.items[0].answer, "");
    assert_null(items.items[1].answer);
    items_free(&items);
}

static void broken_questions(void **state) {
    read_fails("", ":1: expected JSON objects, found none");
    read_fails("{\"text\": \"A?\"}\n{\"text\": \"A?\"", "bad.jsonl:2: expected valid JSON");
    read_fails("{\"text\": \"A?\"}\n5", ":2: expected a JSON object");
    read_fails("[{\"text\": \"A?\"}, 5]", ":1: expected a JSON object, found number 5");
    read_fails("[{\"text\": \"A?\"}\n{}]", ":2: expected \",\" or \"]\"");
    read_fails("[{\"text\": \"A?\"}] x", ":1: expected nothing after the array");
    read_fails("{\"image\": \"a.jpg\"}", ":1: expected a question");
    read_fails("\n{\"text\": \"A?\", \"label\": \"maybe\"}",
               ":2: expected \"yes\" or \"no\" as \"label\", found string \"maybe\"");
    read_fails("{\"text\": 3}", "a string as the question, found number 3");
    read_fails("{\"text\": \"A?\", \"image\": []}", "a string as \"image\", found an array");
    read_fails("{\"text\": \"A?\", \"question_id\": {}}", "the question's id, found an object");
    read_fails("{\"text\": [\"A?\"], \"label\": [\"yes\", \"no\"]}", "as many labels");
    read_fails("{\"text\": [\"A?\", 2], \"label\": [\"yes\", \"no\"]}", "a string in \"text\", found number 2");
    read_fails("{\"text\": [\"A?\"], \"label\": [null]}", "in \"label\", found null");
    read_fails("{\"text\": \"A\\u0000?\"}", "U+0000");
    struct eval_items items = {0};
    candid_error error;
    read_ok("a.jsonl", two, "random", &items);
    const char *path = file("b.jsonl", two);
    assert_int_equal(pope_read_questions(path, "random", &items, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "found \"random\", which an earlier file has too"));
    unlink(path);
    items_free(&items);
}

/* Joins with the two questions; NULL: must work, else what the message says. */
static void join(const char *answers, bool by_order, const char *message, const char *first, const char *second) {
    struct eval_items items = {0};
    candid_error error = {CANDID_OK, ""};
    read_ok("q.jsonl", two, NULL, &items);
    const char *path = file("answers.jsonl", answers);
    const candid_status status = pope_read_answers(path, by_order, &items, 0, 2, &error);
    unlink(path);
    if (message) {
        assert_int_equal(status, CANDID_ERROR_FORMAT);
        if (!strstr(error.message, message) || !strstr(error.message, "answers.jsonl") ||
            !strstr(error.message, "q.jsonl")) {
            fail_msg("expected \"%s\", found: %s", message, error.message);
        }
    } else {
        assert_int_equal(status, CANDID_OK);
        assert_string_equal(items.items[0].answer, first);
        assert_string_equal(items.items[1].answer, second);
    }
    items_free(&items);
}

static void answers(void **state) {
    join("{\"question\": \"Is there a cat?\", \"answer\": \"Yes\"}{\"question\": \"\", \"answer\": \"No\"}", false,
         NULL, "Yes", "No");
    join("{\"question_id\": 2, \"text\": \"No\", \"prompt\": \"…\"}\n{\"question_id\": 1, \"text\": \"Yes\"}", false,
         NULL, "Yes", "No");
    join("{\"question_id\": \"2\", \"output\": \"No\", \"text\": \"q\"}\n{\"question_id\": 1, \"output\": \"Yes\"}",
         false, NULL, "Yes", "No");
    join("{\"question_id\": 0, \"text\": \"Yes\"}\n{\"question_id\": 1, \"text\": \"No\"}", true, NULL, "Yes", "No");

    join("{\"answer\": \"Yes\"}", false, "expected an answer to each of the 2 questions", NULL, NULL);
    join("{\"answer\": \"Yes\"}{\"answer\": \"Yes\"}{\"answer\": \"Yes\"}", false, "found 3", NULL, NULL);
    join("{\"answer\": \"Yes\"}\n{\"answr\": \"No\"}", false, ":2: expected an answer", NULL, NULL);
    join("{\"answer\": \"Yes\"}\n{\"answer\": 1}", false, "to question 2 of", NULL, NULL);
    join("{\"question_id\": 0, \"text\": \"Yes\"}\n{\"question_id\": 1, \"text\": \"No\"}", false,
         ":1: expected the id of a question", NULL, NULL);
    join("{\"question_id\": 1, \"text\": \"Yes\"}\n{\"question_id\": 1, \"text\": \"No\"}", false,
         ":2: expected one answer to question \"1\"", NULL, NULL);
    join("{\"question_id\": 1, \"text\": \"Yes\"}\n{\"text\": \"No\"}", false, ":2: expected the \"question_id\"", NULL,
         NULL);
}

/* Ids that are not distinct: order decides, and ids must agree. */
static void answers_by_order(void **state) {
    struct eval_items items = {0};
    candid_error error;
    read_ok("q.jsonl",
            "{\"id\": 5, \"text\": \"A?\", \"label\": \"no\"}{\"id\": 5, \"text\": \"B?\", \"label\": \"no\"}", NULL,
            &items);
    const char *path = file("a.jsonl", "{\"id\": 5, \"answer\": \"1\"}\n{\"id\": 5, \"answer\": \"2\"}");
    assert_int_equal(pope_read_answers(path, false, &items, 0, 2, &error), CANDID_OK);
    assert_string_equal(items.items[1].answer, "2");
    path = file("a.jsonl", "{\"id\": 5, \"answer\": \"1\"}\n{\"id\": 6, \"answer\": \"2\"}");
    assert_int_equal(pope_read_answers(path, false, &items, 0, 2, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "a.jsonl:2: expected the answer to question \"5\""));
    unlink(path);
    items_free(&items);
}

static const char llava[] =
    "{\"question_id\": 0, \"image\": \"a.jpg\", \"text\": \"Is there a cat in the image?\\nOne word.\", \"category\": "
    "\"random\"}\n"
    "{\"question_id\": 1, \"image\": \"a.jpg\", \"text\": \"Is there an owl in the imange?\\nOne word.\", "
    "\"category\": "
    "\"random\"}\n";

static void labels(void **state) {
    struct eval_items items = {0};
    candid_error error;
    read_ok("llava.jsonl", llava, NULL, &items);
    const char *path = file("coco_pope_random.json", two);
    assert_int_equal(pope_read_labels(path, NULL, &items, &error), CANDID_OK);
    assert_string_equal(items.items[0].label, "yes");
    assert_string_equal(items.items[1].label, "no");
    assert_int_equal(items.n_sources, 2);
    unlink(path);
    path = file("coco_pope_popular.json", two); /* no such questions */
    assert_int_equal(pope_read_labels(path, NULL, &items, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "found more"));
    unlink(path);
    path =
        file("random.json", "{\"image\": \"a.jpg\", \"text\": \"Is there a cat in the image?\", \"label\": \"yes\"}");
    assert_int_equal(pope_read_labels(path, NULL, &items, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "found fewer"));
    unlink(path);
    path =
        file("random.json", "{\"image\": \"a.jpg\", \"text\": \"Is there a dog in the image?\", \"label\": \"yes\"}");
    assert_int_equal(pope_read_labels(path, NULL, &items, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "question 1: expected a label for \"Is there a cat"));
    unlink(path);
    items_free(&items);
}

static void captions(void **state) {
    static const char questions[] =
        "{\"image\": \"COCO_val2014_000000000042.jpg\", \"text\": \"Is there a car in the image?\", \"label\": "
        "\"no\"}\n"
        "{\"image\": \"COCO_val2014_000000000042.jpg\", \"text\": \"Is there an orange bus in the imange?\", "
        "\"label\": "
        "\"no\"}\n"
        "{\"image\": \"COCO_val2014_000000000007.jpg\", \"text\": \"hot dog\", \"label\": \"yes\"}\n"
        "{\"image\": \"COCO_val2014_000000000007.jpg\", \"text\": \"Is there a cat in the image?\", \"label\": "
        "\"no\"}\n";
    static const char *const expected[] = {"Yes", "No", "Yes", "No"};
    struct eval_items items = {0};
    candid_error error;
    read_ok("q.jsonl", questions, NULL, &items);
    const char *path = file("c.jsonl", "{\"image_id\": 42, \"caption\": \"A cardboard box\"}\n"
                                       "{\"image\": \"x/0007.png\", \"answer\": \"It is hot. A Cat?\"}");
    assert_int_equal(pope_read_captions(path, &items, NULL), CANDID_OK);
    for (int i = 0; i < 4; i++) {
        assert_string_equal(items.items[i].answer, expected[i]);
    }
    path = file("c.jsonl", "{\"image_id\": 42, \"caption\": \"A box\"}");
    assert_int_equal(pope_read_captions(path, &items, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "COCO_val2014_000000000007.jpg, which question 3 is about"));
    path = file("c.jsonl", "{\"image_id\": 42, \"caption\": \"A\"}\n{\"image_id\": \"042\", \"caption\": \"A\"}");
    assert_int_equal(pope_read_captions(path, &items, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "expected one caption of image 42, found two"));
    path = file("c.jsonl", "{\"image_id\": \"a\", \"caption\": \"A\"}");
    assert_int_equal(pope_read_captions(path, &items, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "c.jsonl:1: expected an image with a number"));
    unlink(path);
    items_free(&items);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms),   cmocka_unit_test(broken_questions),
        cmocka_unit_test(answers), cmocka_unit_test(answers_by_order),
        cmocka_unit_test(labels),  cmocka_unit_test(captions),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
