/* The parts of a run: units, plans, results files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../support/ok.h"
#include "core/rng.h"
#include "eval/run/plan.h"
#include "eval/run/results.h"

#define PATH "test_eval_run.jsonl"

static void add(struct eval_items *items, const char *image, const char *question) {
    OK(items_add(items, &(struct eval_item){.id = "1", .image = image, .question = question, .label = "yes"}, error));
}

/* ---- units --------------------------------------------------------------------------------------- */

static void test_units(void **state) {
    (void)state;
    struct eval_items items = {0};
    add(&items, "b.png", "dog?");
    add(&items, "a.png", "cat?");
    add(&items, "b.png", "cat?");
    add(&items, "b.png", "dog?");
    struct eval_units units;
    OK(units_make(&items, 1, 1, &units, error));
    assert_int_equal(units.n, 2);
    assert_string_equal(units.units[0].image, "b.png"); /* in order of first questions, not of names */
    assert_int_equal(units.units[0].n_items, 3);
    const size_t indices[] = {0, 2, 3}, asked[] = {0, 1, 0};
    assert_memory_equal(units.units[0].items, indices, sizeof indices);
    assert_memory_equal(units.units[0].asked, asked, sizeof asked);
    assert_int_equal(units.units[0].n_asked, 2);
    assert_int_equal(units.units[1].items[0], 1);
    units_free(&units);
    items_free(&items);
}

/* Whatever the items, shards have every item once, and whole images. */
static void test_shards_partition(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct rng rng;
        rng_seed(&rng, seed);
        struct eval_items items = {0};
        const size_t n = 1 + (size_t)(rng_next(&rng) % 60), n_shards = 1 + (size_t)(rng_next(&rng) % 9);
        for (size_t i = 0; i < n; i++) {
            char image[16], question[16];
            snprintf(image, sizeof image, "%d.png", (int)(rng_next(&rng) % 11));
            snprintf(question, sizeof question, "%d?", (int)(rng_next(&rng) % 5));
            add(&items, image, question);
        }
        int seen[60] = {0};
        const char *owner[11] = {NULL};
        static const char *const names[] = {"0", "1", "2", "3", "4", "5", "6", "7", "8"};
        for (size_t s = 1; s <= n_shards; s++) {
            struct eval_units units;
            OK(units_make(&items, s, n_shards, &units, error));
            for (size_t u = 0; u < units.n; u++) {
                const int number = atoi(units.units[u].image);
                assert_true(!owner[number]);
                owner[number] = names[s - 1];
                for (size_t i = 0; i < units.units[u].n_items; i++) {
                    const size_t index = units.units[u].items[i];
                    assert_string_equal(items.items[index].image, units.units[u].image);
                    assert_true(i == 0 || units.units[u].items[i - 1] < index);
                    seen[index]++;
                }
            }
            units_free(&units);
        }
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(seen[i], 1);
        }
        items_free(&items);
    }
}

/* ---- prompts ------------------------------------------------------------------------------------- */

static void expect_prompt(const struct eval_prompt *prompt, const char *question, const char *expected) {
    const struct eval_item item = {.id = "1", .image = "a.png", .question = question};
    char *text = NULL;
    OK(eval_prompt_of(prompt, &item, &text, error));
    assert_string_equal(text, expected);
    free(text);
}

static void test_prompts(void **state) {
    (void)state;
    const struct eval_prompt prompt = {"Describe.", "!", " yes"};
    expect_prompt(&prompt, "Dog? yes", "Dog?!");
    expect_prompt(&prompt, " yes yes no yes", " no!");
    expect_prompt(&prompt, " ye", " ye!");
    expect_prompt(&prompt, "", "!");
    expect_prompt(&prompt, NULL, "Describe."); /* the prompt stays as it is */
    expect_prompt(&(struct eval_prompt){.suffix = "", .cut = ""}, "Dog?", "Dog?");
}

/* ---- plan ---------------------------------------------------------------------------------------- */

static void test_plan_counts_tokens(void **state) {
    (void)state;
    struct eval_items items = {0};
    add(&items, "a.png", "Is it a dog?"); /* is it a dog ? */
    add(&items, "a.png", "Is it a cat?");
    add(&items, "a.png", "Is it a cat?");     /* in another split */
    add(&items, "b.png", "Is it elephants?"); /* a word of more than six letters is two tokens */
    const struct eval_prompt prompt = {.suffix = " Yes."};
    const struct eval_tokens tokens = {.conversation = "<image>\n{prompt}", .image_tokens = 10};
    struct eval_units units;
    struct eval_plan plan;
    OK(units_make(&items, 1, 1, &units, error));
    OK(eval_plan_make(&items, &units, &prompt, &tokens, false, &plan, error));
    assert_int_equal(plan.questions, 4);
    assert_int_equal(plan.distinct, 3);
    assert_int_equal(plan.images, 2);
    /* a begin token, the image, a line break; then 5 + 2, for the elephants 2 + 2 + 1 + 2 */
    assert_int_equal(plan.prefill_alone, 4 * 12 + 3 * 7 + 7);
    /* of the first image all but the animal, "?", "Yes" and "." is shared */
    assert_int_equal(plan.prefill, (12 + 3 + 4 + 4) + (12 + 7));
    assert_int_equal(plan.longest_prompt, 19);
    OK(eval_plan_make(&items, &units, &prompt, &tokens, true, &plan, error));
    assert_int_equal(plan.prefill, 3 * 12 + 2 * 7 + 7);
    units_free(&units);
    items_free(&items);
}

/* ---- results ------------------------------------------------------------------------------------- */

static void write_file(const char *text) {
    FILE *file = fopen(PATH, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void make_two(struct eval_items *items, struct eval_held *held) {
    *items = (struct eval_items){0};
    add(items, "a.png", "dog?");
    add(items, "b.png", NULL);
    OK(held_make(held, items->n, error));
}

#define LINE_0                                                                                                         \
    "{\"run\":\"r\",\"index\":0,\"image\":\"a.png\",\"question\":\"dog?\",\"answer\":\"Yes\","                         \
    "\"fingerprint\":\"0000002a\",\"work\":{\"seconds\":1.5,\"encoded\":1}}\n"
#define LINE_1 "{\"run\":\"r\",\"index\":1,\"image\":\"b.png\",\"error\":\"gone\"}\n"

static void test_results_are_read_back(void **state) {
    (void)state;
    struct eval_items items;
    struct eval_held held;
    struct results_file file;
    make_two(&items, &held);
    write_file(LINE_1 LINE_0 "{\"run\":\"r\",\"ind");
    OK(results_open(PATH, "r", true, &items, &held, &file, error));
    assert_int_equal(held.n_held, 2);
    assert_int_equal(held.n_failed, 1);
    assert_string_equal(items.items[0].answer, "Yes");
    assert_null(items.items[1].answer);
    assert_string_equal(held.error[1], "gone");
    assert_int_equal(held.fingerprint[0], 42);
    assert_true(held.work.seconds == 1.5 && held.work.encoded == 1);
    OK(results_close(&file, error));
    held_free(&held);
    items_free(&items);

    make_two(&items, &held); /* the torn line is gone */
    OK(results_read(PATH, "r", &items, &held, NULL, error));
    assert_int_equal(held.n_held, 2);
    held_free(&held);
    items_free(&items);
    remove(PATH);
}

static void test_foreign_results_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {LINE_0 "nonsense\n", ":2: it is not JSON"},
        {LINE_0 LINE_0, ":2: its question has an answer on an earlier line"},
        {"{\"run\":\"other\",\"index\":0}\n", "another model, configuration, settings or questions"},
        {"{\"run\":\"r\",\"index\":2,\"image\":\"a.png\",\"answer\":\"x\"}\n", "answers another question"},
        {"{\"run\":\"r\",\"index\":0,\"image\":\"a.png\",\"question\":\"cat?\",\"answer\":\"x\"}\n",
         "answers another question"},
        {"{\"run\":\"r\",\"index\":-1,\"image\":\"a.png\",\"answer\":\"x\"}\n", "expected a JSON object"},
        {"{\"run\":\"r\",\"index\":1,\"image\":\"b.png\"}\n", "expected \"answer\" or \"error\""},
        {"[]\n", "expected a JSON object"},
        {"\n", "it is not JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct eval_items items;
        struct eval_held held;
        candid_error error;
        make_two(&items, &held);
        write_file(cases[i].text);
        assert_int_equal(results_read(PATH, "r", &items, &held, NULL, &error), CANDID_ERROR_FORMAT);
        if (!strstr(error.message, cases[i].message)) {
            fail_msg("expected \"%s\", found \"%s\"", cases[i].message, error.message);
        }
        held_free(&held);
        items_free(&items);
    }
    remove(PATH);
}

static void test_a_full_disk_is_an_error(void **state) {
    (void)state;
    if (access("/dev/full", W_OK) != 0) {
        skip();
    }
    struct eval_items items;
    struct eval_held held;
    struct results_file file;
    candid_error error;
    make_two(&items, &held);
    assert_int_equal(results_open("/dev/full", "r", false, &items, &held, &file, &error), CANDID_OK);
    assert_int_equal(results_append(&file, LINE_0, strlen(LINE_0), &error), CANDID_ERROR_IO);
    assert_non_null(strstr(error.message, "/dev/full: cannot write: "));
    assert_int_equal(results_close(&file, &error), CANDID_OK);
    held_free(&held);
    items_free(&items);
}

/* Two runs into one file would answer everything twice. */
static void test_a_file_has_one_writer(void **state) {
    (void)state;
    struct eval_items items;
    struct eval_held held;
    struct results_file first, second;
    candid_error error;
    make_two(&items, &held);
    remove(PATH);
    assert_int_equal(results_open(PATH, "r", true, &items, &held, &first, &error), CANDID_OK);
    assert_int_equal(results_open(PATH, "r", true, &items, &held, &second, &error), CANDID_ERROR_IO);
    assert_non_null(strstr(error.message, "another run is writing to it"));
    assert_int_equal(results_close(&first, &error), CANDID_OK);
    assert_int_equal(results_open(PATH, "r", true, &items, &held, &second, &error), CANDID_OK);
    assert_int_equal(results_close(&second, &error), CANDID_OK);
    held_free(&held);
    items_free(&items);
    remove(PATH);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_shards_partition),
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_plan_counts_tokens),
        cmocka_unit_test(test_results_are_read_back),
        cmocka_unit_test(test_foreign_results_are_refused),
        cmocka_unit_test(test_a_full_disk_is_an_error),
        cmocka_unit_test(test_a_file_has_one_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
