/* POPE's builder, against questions made by the official program, and the random numbers of CPython that it draws. */
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
#include "eval/pope/build.h"

static struct json vectors;
static struct pope_truth truth;

static const cJSON *member(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    assert_non_null(item);
    return item;
}

static int load(void **state) {
    if (json_read(TEST_DATA "/pope/vectors.json", 1 << 20, &vectors, NULL) != CANDID_OK) {
        return 1;
    }
    const cJSON *image, *object;
    cJSON_ArrayForEach(image, member(member(vectors.root, "build"), "segmentation")) {
        pope_truth_add_image(&truth, member(image, "image")->valuestring, NULL);
        cJSON_ArrayForEach(object, member(image, "objects")) {
            pope_truth_add_object(&truth, truth.n - 1, object->valuestring, NULL);
        }
    }
    return truth.n != 12;
}

static int unload(void **state) {
    pope_truth_free(&truth);
    json_free(&vectors);
    return 0;
}

static void expect_questions(const char *key, enum pope_split split, struct mt19937 *r) {
    struct eval_items items = {0};
    size_t *images = NULL, n = 0;
    const struct pope_build build = {.split = split, .per_image = 3, .typo = true};
    assert_int_equal(pope_sample_images(&truth, 0, 3, r, &images, &n, NULL), CANDID_OK);
    assert_int_equal(n, 12);
    assert_int_equal(pope_build_questions(&truth, images, n, &build, r, &items, NULL), CANDID_OK);
    const cJSON *question;
    size_t i = 0;
    cJSON_ArrayForEach(question, member(member(vectors.root, "build"), key)) {
        assert_true(i < items.n);
        assert_int_equal(atoi(items.items[i].id), member(question, "question_id")->valueint);
        assert_string_equal(items.items[i].image, member(question, "image")->valuestring);
        assert_string_equal(items.items[i].question, member(question, "text")->valuestring);
        assert_string_equal(items.items[i].label, member(question, "label")->valuestring);
        assert_string_equal(items.items[i].split, key);
        i++;
    }
    assert_int_equal(items.n, 72);
    assert_int_equal(i, 72);
    items_free(&items);
    free(images);
}

static void official_questions(void **state) {
    struct mt19937 r, before;
    mt19937_seed(&r, 7);
    before = r;
    expect_questions("popular", POPE_POPULAR, &r);
    assert_memory_equal(&r, &before, sizeof r); /* nothing was drawn */
    expect_questions("adversarial", POPE_ADVERSARIAL, &r);
    mt19937_seed(&r, 7);
    expect_questions("random", POPE_RANDOM, &r);
}

static void templates(void **state) {
    static const struct {
        const char *template, *object, *text;
        bool typo;
    } cases[] = {
        {NULL, "apple", "Is there an apple in the image?", false},
        {NULL, "apple", "Is there an apple in the imange?", true},
        {NULL, "Apple", "Is there a Apple in the image?", false}, /* lower-case vowels only, as in the official one */
        {"{}? a cat?", "oven", "oven? a cat?", false},
        {"A {}, a cat?", "oven", "An oven, a cat?", false},
        {"Extra {}?", "oven", "Extra oven?", false},
        {"Extra {}?", "oven", "Extran oven?", true},
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct pope_truth one = {0};
        struct eval_items items = {0};
        struct mt19937 r;
        mt19937_seed(&r, 1);
        pope_truth_add_image(&one, "a", NULL);
        pope_truth_add_object(&one, 0, cases[c].object, NULL);
        pope_truth_add_image(&one, "b", NULL);
        pope_truth_add_object(&one, 1, "dog", NULL);
        const struct pope_build build = {POPE_POPULAR, 1, cases[c].typo, cases[c].template};
        assert_int_equal(pope_build_questions(&one, (const size_t[]){0, 1}, 2, &build, &r, &items, NULL), CANDID_OK);
        assert_string_equal(items.items[0].question, cases[c].text);
        items_free(&items);
        pope_truth_free(&one);
    }
}

static void nothing_left(void **state) {
    struct pope_truth one = {0};
    struct eval_items items = {0};
    struct mt19937 r;
    candid_error error;
    mt19937_seed(&r, 1);
    pope_truth_add_image(&one, "only.jpg", NULL);
    pope_truth_add_object(&one, 0, "dog", NULL);
    const struct pope_build build = {POPE_RANDOM, 1, false, NULL};
    assert_int_equal(pope_build_questions(&one, (const size_t[]){0}, 1, &build, &r, &items, &error),
                     CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "image only.jpg: no object is left"));
    size_t *images, n;
    assert_int_equal(pope_sample_images(&one, 2, 1, &r, &images, &n, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "expected 2 images with at least 1 objects each, found 1 of 1"));
    assert_int_equal(
        pope_build_questions(&one, NULL, 0, &(struct pope_build){POPE_RANDOM, 1, false, "no slot"}, &r, &items, &error),
        CANDID_ERROR_ARGUMENT);
    items_free(&items);
    pope_truth_free(&one);
}

static void instances(void **state) {
    char path[] = "/tmp/candid_instances_XXXXXX";
    const int fd = mkstemp(path);
    static const char text[] =
        "{\"images\": [{\"id\": 9, \"file_name\": \"b.jpg\"}, {\"id\": 4, \"file_name\": \"a.jpg\"}],"
        "\"categories\": [{\"id\": 1, \"name\": \"person\"}, {\"id\": 17, \"name\": \"cat\"}],"
        "\"annotations\": [{\"image_id\": 4, \"category_id\": 17}, {\"image_id\": 4, \"category_id\": 1},"
        "{\"image_id\": 9, \"category_id\": 1}, {\"image_id\": 4, \"category_id\": 17}]}";
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    struct pope_truth coco = {0};
    assert_int_equal(pope_truth_read_instances(path, &coco, NULL), CANDID_OK);
    assert_int_equal(coco.n, 2);
    assert_string_equal(coco.images[1].name, "a.jpg");
    assert_int_equal(coco.images[1].n, 2); /* in order of first annotation, once */
    assert_string_equal(coco.objects[coco.images[1].objects[0]], "cat");
    assert_string_equal(coco.objects[coco.images[1].objects[1]], "person");
    assert_int_equal(coco.images[0].n, 1);
    pope_truth_free(&coco);
    candid_error error;
    static const char *const bad[][2] = {
        {"{\"images\": 1}", ":1 (byte"},
        {"{\"images\": []}", "array \"categories\", found none"},
        {"{\"images\": [{\"id\": 1}]}", "expected an \"id\" and a string \"file_name\""},
        {"{\"images\": [{\"id\": 1, \"file_name\": \"a\"}, {\"id\": 1, \"file_name\": \"b\"}], \"categories\": [], "
         "\"annotations\": []}",
         "found 1 twice"},
        {"{\"images\": [], \"categories\": []}", "array \"annotations\""},
        {"{\"images\": [], \"categories\": [], \"annotations\": [{\"image_id\": 3}]}",
         "annotations[0]: expected the id of an image"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, bad[i][0], strlen(bad[i][0]), 0), strlen(bad[i][0]));
        assert_int_equal(pope_truth_read_instances(path, &coco, &error), CANDID_ERROR_FORMAT);
        if (!strstr(error.message, bad[i][1])) {
            fail_msg("expected \"%s\", found: %s", bad[i][1], error.message);
        }
        pope_truth_free(&coco);
    }
    close(fd);
    unlink(path);
}

static const cJSON *random_numbers(const char *key) {
    return member(member(member(vectors.root, "build"), "cpython_rng"), key);
}

static void cpython_random(void **state) {
    struct mt19937 r;
    const cJSON *expected;
    mt19937_seed(&r, 7);
    cJSON_ArrayForEach(expected, random_numbers("seed7_getrandbits32")) {
        assert_true((double)mt19937_bits(&r, 32) == expected->valuedouble);
    }
    mt19937_seed(&r, 7);
    cJSON_ArrayForEach(expected, random_numbers("seed7_choice_range80")) {
        assert_int_equal(mt19937_below(&r, 80), expected->valueint);
    }
    size_t shuffled[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, sample[30];
    mt19937_seed(&r, 927);
    mt19937_shuffle(&r, shuffled, 10);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(shuffled[i], cJSON_GetArrayItem(random_numbers("seed927_shuffle_range10"), i)->valueint);
    }
    static const struct {
        size_t n;
        const char *key;
    } samples[] = {{40, "seed7_sample_range40_k6"}, {40000, "seed7_sample_range40000_k6"}};
    for (int s = 0; s < 2; s++) {
        mt19937_seed(&r, 7);
        assert_int_equal(mt19937_sample(&r, samples[s].n, 6, sample, NULL), CANDID_OK);
        for (int i = 0; i < 6; i++) {
            assert_int_equal(sample[i], cJSON_GetArrayItem(random_numbers(samples[s].key), i)->valueint);
        }
    }
    /* Computed with CPython 3.11. */
    mt19937_seed(&r, 1);
    assert_true(mt19937_random(&r) == 0.13436424411240122);
    assert_true(mt19937_uniform(&r, -2, 3) == 2.2371686846861634);
    assert_true(mt19937_bits(&r, 53) == 568416432208836ull);
    mt19937_seed(&r, 12345678901234567ull);
    assert_int_equal(mt19937_bits(&r, 7), 12);
    assert_true(mt19937_random(&r) == 0.5963406114860355);
    mt19937_seed(&r, 0);
    assert_true(mt19937_random(&r) == 0.8444218515250481);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(official_questions), cmocka_unit_test(templates),      cmocka_unit_test(nothing_left),
        cmocka_unit_test(instances),          cmocka_unit_test(cpython_random),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
