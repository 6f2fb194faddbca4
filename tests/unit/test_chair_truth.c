/* CHAIR's truth out of annotation files, and its cache. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/chair_fixture.h"
#include "core/crc32.h"

#define OK(call) assert_int_equal((call), CANDID_OK)

static const char instances_path[] = "truth_instances.json", captions_path[] = "truth_captions.json",
                  cache_path[] = "truth_cache";

static const char good_instances[] =
    "{\"images\": [{\"id\": 5, \"file_name\": \"scene_a.png\"}, {\"file_name\": \"COCO_val2014_000000000007.jpg\", "
    "\"id\": 7}, {\"id\": 8}],\n"
    "\"annotations\": [{\"image_id\": 5, \"category_id\": 18, \"segmentation\": {\"counts\": \"x]}\"}},\n"
    "{\"category_id\": 1, \"image_id\": 5}, {\"category_id\": 18, \"image_id\": 5}],\n"
    "\"categories\": [{\"name\": \"dog\", \"id\": 18}, {\"id\": 1, \"name\": \"person\"}, {\"id\": 2, \"name\": "
    "\"unicorn\"}]}";
static const char good_captions[] = "{\"annotations\": [{\"image_id\": 7, \"caption\": \"Two cats and a dog.\"},\n"
                                    "{\"caption\": \"A red BUS\", \"id\": 3, \"image_id\": 9}]}";

static void write_text(const char *path, const char *text) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

struct setup {
    struct vocabulary *vocabulary;
    struct chair_language language;
};

static int begin(void **state) {
    static struct setup s;
    candid_error error;
    OK(vocabulary_open(NULL, &s.vocabulary, &error));
    s.language = (struct chair_language){.mode = CHAIR_APPROXIMATE, .vocabulary = s.vocabulary};
    write_text(instances_path, good_instances);
    write_text(captions_path, good_captions);
    *state = &s;
    return 0;
}

static int end(void **state) {
    struct setup *s = *state;
    chair_language_free(&s->language);
    vocabulary_free(s->vocabulary);
    remove(instances_path);
    remove(captions_path);
    remove(cache_path);
    return 0;
}

static const char *const instances_list[] = {instances_path}, *const captions_list[] = {captions_path};
static const struct truth_files both = {instances_list, 1, captions_list, 1};

static candid_status build(struct setup *s, const struct truth_files *files, struct chair_truth **truth,
                           candid_error *error) {
    return chair_truth_build(&s->language, "", files, truth, error);
}

static void assert_classes(const struct setup *s, const struct chair_truth *truth, int64_t id, const char *names) {
    char found[256] = "";
    const size_t image = chair_truth_image(truth, id);
    assert_true(image != TRUTH_NO_IMAGE);
    for (size_t i = 0; i < truth->n_classes; i++) {
        if (chair_truth_has(truth, image, (int)i)) {
            strcat(strcat(found, found[0] ? " " : ""), s->vocabulary->class_names[i]);
        }
    }
    assert_string_equal(found, names);
}

static void check_good(const struct setup *s, const struct chair_truth *truth) {
    assert_true(truth->n == 4 && truth->n_sources == 2 && truth->sources[0].n == 3 && truth->sources[1].n == 2);
    assert_classes(s, truth, 5, "person dog");
    assert_classes(s, truth, 7, "cat dog");
    assert_classes(s, truth, 8, "");
    assert_classes(s, truth, 9, "bus"); /* "BUS" in lower case */
    assert_true(chair_truth_image(truth, 6) == TRUTH_NO_IMAGE);
    assert_true(chair_truth_image_named(truth, "images/scene_a.png") == chair_truth_image(truth, 5));
    assert_true(chair_truth_image_named(truth, "COCO_val2014_000000000007.jpg") == chair_truth_image(truth, 7));
    assert_true(chair_truth_image_named(truth, "000000000008.jpg") == chair_truth_image(truth, 8));
    assert_true(chair_truth_image_named(truth, "scene_5.png") == TRUTH_NO_IMAGE); /* 5 has another name */
    assert_true(chair_truth_image_named(truth, "cat.png") == TRUTH_NO_IMAGE);
}

static void annotations(void **state) {
    struct setup *s = *state;
    struct chair_truth *truth;
    candid_error error;
    OK(build(s, &both, &truth, &error));
    check_good(s, truth);
    chair_truth_free(truth);
    OK(build(s, &(struct truth_files){instances_list, 1, NULL, 0}, &truth, &error));
    assert_classes(s, truth, 5, "person dog");
    assert_classes(s, truth, 7, "");
    chair_truth_free(truth);
    assert_int_equal(build(s, &(struct truth_files){0}, &truth, &error), CANDID_ERROR_ARGUMENT);
}

/* More images than the tables start with. */
static void many_images(void **state) {
    struct setup *s = *state;
    struct chair_truth *truth;
    candid_error error;
    FILE *file = fopen(instances_path, "wb");
    fputs("{\"categories\": [{\"id\": 3, \"name\": \"car\"}], \"annotations\": [", file);
    for (int i = 0; i < 5000; i++) {
        fprintf(file, "%s{\"image_id\": %lld, \"category_id\": 3}", i ? "," : "", i * 524288LL);
    }
    fputs("]}", file);
    fclose(file);
    OK(build(s, &(struct truth_files){instances_list, 1, NULL, 0}, &truth, &error));
    assert_true(truth->n == 5000);
    for (int64_t i = 0; i < 5000; i++) {
        assert_true(chair_truth_image(truth, i * 524288) == (size_t)i);
        assert_true(chair_truth_image(truth, i * 524288 + 1) == TRUTH_NO_IMAGE);
    }
    chair_truth_free(truth);
    write_text(instances_path, good_instances);
}

static void wrong_annotations(void **state) {
    static const struct {
        const char *text, *message;
    } broken[] = {
        {"{\"annotations\": []}", "no \"annotations\""},
        {"{\"images\": [{\"file_name\": \"x\"}], \"annotations\": []}", "an image without \"id\""},
        {"{\"categories\": [{\"id\": 1}]}", "a category without \"name\""},
        {"{\"annotations\": [{\"image_id\": 1, \"caption\": \"x\"}]}", "is this a file of instances?"},
        {"{\"annotations\": [{\"category_id\": 1}]}", "an annotation without \"image_id\""},
        {"{\"annotations\": [{\"category_id\": 1, \"image_id\": \"1\"}]}", "expected a number"},
        {"{\"annotations\": [{\"category_id\": 7, \"image_id\": 1}]}",
         "category 7, which \"categories\" does not list"},
        {"{\"categories\": [{\"id\": 2, \"name\": \"unicorn\"}],\n \"annotations\": [{\"category_id\": 2, "
         "\"image_id\": "
         "1}]}",
         "the category \"unicorn\" is none of the 80 classes"},
        {"{\"images\": [{\"id\": 1, \"file_name\": \"a\"}, {\"id\": 2, \"file_name\": \"b/a\"}], \"annotations\": []}",
         "the images 1 and 2 are both called \"a\""},
        {"{\"annotations\":\n [", "truth_instances.json:2 (byte 18): expected"},
        {"[]", "expected an object"},
        {"", "expected an object {…}, found the end of the file"},
        {"{\"categories\": [{\"id\": 1, \"name\": \"dog\"}], \"annotations\": [{\"category_id\": 1, \"image_id\": 1}]} "
         "x",
         "expected the end of the file"},
    };
    struct setup *s = *state;
    struct chair_truth *truth;
    candid_error error;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        write_text(instances_path, broken[i].text);
        assert_int_equal(build(s, &(struct truth_files){instances_list, 1, NULL, 0}, &truth, &error),
                         CANDID_ERROR_FORMAT);
        assert_non_null(strstr(error.message, broken[i].message));
        assert_null(truth);
    }
    write_text(instances_path, good_instances);
    write_text(captions_path, good_instances);
    assert_int_equal(build(s, &both, &truth, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "is this a file of captions?"));
    write_text(captions_path, good_captions);
}

static void round_trip(void **state) {
    struct setup *s = *state;
    struct chair_truth *truth, *again;
    candid_error error;
    OK(build(s, &both, &truth, &error));
    OK(chair_truth_write(truth, cache_path, &error));
    OK(chair_truth_read(cache_path, &again, &error));
    check_good(s, again);
    assert_string_equal(again->sources[1].sha256, truth->sources[1].sha256);
    OK(chair_truth_check(again, "C", CHAIR_APPROXIMATE, s->vocabulary, "", &both, &error));
    OK(chair_truth_check(again, "C", CHAIR_APPROXIMATE, s->vocabulary, "", &(struct truth_files){0}, &error));
    chair_truth_free(again);
    chair_truth_free(truth);
    assert_int_equal(chair_truth_read("no/such/file", &again, &error), CANDID_ERROR_IO);
}

static void assert_refused(const struct chair_truth *truth, enum chair_mode mode, const struct vocabulary *v,
                           const char *tagger, const struct truth_files *files, const char *message) {
    candid_error error;
    assert_int_equal(chair_truth_check(truth, "C", mode, v, tagger, files, &error), CANDID_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, message));
}

static void refusals(void **state) {
    struct setup *s = *state;
    struct chair_truth *truth;
    candid_error error;
    OK(build(s, &both, &truth, &error));
    const struct truth_files none = {0};
    assert_refused(truth, CHAIR_NLTK38, s->vocabulary, "", &none,
                   "C was made in mode approximate, asked for is truth of mode nltk38");
    write_text(cache_path, "lamp, lantern\n");
    struct vocabulary *own;
    OK(vocabulary_open(cache_path, &own, &error));
    assert_refused(truth, CHAIR_APPROXIMATE, own, "", &none, "another table of synonyms");
    vocabulary_free(own);
    strcpy(truth->tagger, "1234");
    assert_refused(truth, CHAIR_APPROXIMATE, s->vocabulary, "4321", &none, "another tagger");
    assert_refused(truth, CHAIR_APPROXIMATE, s->vocabulary, "", &(struct truth_files){instances_list, 1, NULL, 0},
                   "also made from truth_captions.json");
    const char *const two[] = {captions_path, captions_path};
    assert_refused(truth, CHAIR_APPROXIMATE, s->vocabulary, "", &(struct truth_files){instances_list, 1, two, 2},
                   "made without truth_captions.json");
    /* the same size, another content */
    char changed[sizeof good_captions];
    memcpy(changed, good_captions, sizeof changed);
    memcpy(strstr(changed, "cats"), "cows", 4);
    write_text(captions_path, changed);
    assert_refused(truth, CHAIR_APPROXIMATE, s->vocabulary, "", &both, "made from another file than truth_captions");
    write_text(captions_path, good_captions);
    chair_truth_free(truth);
}

/* A cache of the lines given, with its checksum. */
static candid_status parse(const char *lines, candid_error *error) {
    char text[4096];
    const int n = snprintf(text, sizeof text, "%s", lines);
    snprintf(text + n, sizeof text - (size_t)n, "crc32 %08x\n", crc32_update(0, text, (size_t)n));
    struct chair_truth *truth;
    const candid_status status = chair_truth_parse(text, strlen(text), "C", &truth, error);
    chair_truth_free(truth);
    return status;
}

#define HASH "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void damaged(void **state) {
    static const char good[] =
        "candid-chair-truth 1\nmode pattern\nvocabulary 80 " HASH "\ntagger -\nsource captions 9 2 " HASH
        " a b.json\nimages 2\n-5 ffffffffffffffff ffff x y\n7 0 1\n";
    static const struct {
        const char *from, *to, *message;
    } broken[] = {
        {"truth 1", "truth 2", "another version"},
        {"pattern", "patern", "\"mode NAME\""},
        {"vocabulary 80", "vocabulary 0", "\"vocabulary N SHA256\""},
        {"vocabulary 80", "vocabulary 80 1", "\"vocabulary N SHA256\""},
        {"vocabulary 80", "vocabulary 99999999999999999999", "\"vocabulary N SHA256\""},
        {"tagger -", "tagger x", "\"tagger SHA256\""},
        {"captions 9", "caption 9", "\"source KIND"},
        {"captions 9 2", "captions 9", "\"source KIND"},
        {" a b.json", "", "\"source KIND"},
        {"images 2", "images x", "\"images N\""},
        {"images 2", "images 3", "another image"},
        {"images 2", "images 1", "the end of the file"},
        {"\n7 0", "\n-5 0", "the id of another image"},
        {"\n7 0", "\nx 0", "the id of another image"},
        {"\n7 0 1", "\n7 0", "a mask"},
        {"\n7 0 1", "\n7 0 1ffff", "a mask"},
        {"\n7 0 1", "\n7 0 -1", "a mask"},
        {"\n7 0 1", "\n7 0 1 x y", "both called"},
    };
    candid_error error;
    OK(parse(good, &error));
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        char text[2048];
        const char *at = strstr(good, broken[i].from);
        assert_non_null(at);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, broken[i].to, at + strlen(broken[i].from));
        assert_int_equal(parse(text, &error), CANDID_ERROR_FORMAT);
        assert_non_null(strstr(error.message, broken[i].message));
    }
    struct chair_truth *truth;
    assert_int_equal(chair_truth_parse(good, sizeof good - 1, "C", &truth, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "checksum"));
    assert_null(truth);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(annotations), cmocka_unit_test(many_images), cmocka_unit_test(wrong_annotations),
        cmocka_unit_test(round_trip),  cmocka_unit_test(refusals),    cmocka_unit_test(damaged),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
