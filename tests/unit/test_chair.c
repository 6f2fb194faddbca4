/* CHAIR against what the public scripts gave: tests/data/chair/fixture.json says which and how they were run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/chair_fixture.h"

#define OK(call) assert_int_equal((call), CANDID_OK)

struct fixture {
    cJSON *json, *cases;
    struct vocabulary *vocabulary;
    struct word_tagger tagger;
    char instances[64], captions[64];
    struct eval_items items;
};

static int open_fixture(void **state) {
    static struct fixture f;
    candid_error error;
    f = (struct fixture){.json = fixture_read("fixture.json")};
    assert_non_null(f.json);
    f.cases = fixture_get(f.json, "cases");
    OK(vocabulary_open(NULL, &f.vocabulary, &error));
    f.tagger = (struct word_tagger){fixture_classify, f.cases};
    snprintf(f.instances, sizeof f.instances, "chair_instances_%d.json", (int)getpid());
    snprintf(f.captions, sizeof f.captions, "chair_captions_%d.json", (int)getpid());
    assert_true(fixture_write_coco(f.cases, f.vocabulary, f.instances, f.captions));
    const cJSON *c;
    cJSON_ArrayForEach(c, f.cases) {
        char id[32];
        snprintf(id, sizeof id, "%.0f", fixture_get(c, "image_id")->valuedouble);
        const struct eval_item item = {.id = id, .answer = fixture_get(c, "caption")->valuestring};
        OK(items_add(&f.items, &item, &error));
    }
    assert_true(f.items.n == 38);
    *state = &f;
    return 0;
}

static int close_fixture(void **state) {
    struct fixture *f = *state;
    remove(f->instances);
    remove(f->captions);
    items_free(&f->items);
    vocabulary_free(f->vocabulary);
    cJSON_Delete(f->json);
    return 0;
}

static struct chair_language language_of(const struct fixture *f, enum chair_mode mode) {
    return (struct chair_language){.mode = mode, .vocabulary = f->vocabulary, .tagger = &f->tagger};
}

static struct chair_truth *build_truth(const struct fixture *f, enum chair_mode mode) {
    const char *instances[] = {f->instances}, *captions[] = {f->captions};
    struct chair_language language = language_of(f, mode);
    struct chair_truth *truth;
    candid_error error;
    OK(chair_truth_build(&language, "", &(struct truth_files){instances, 1, captions, 1}, &truth, &error));
    chair_language_free(&language);
    return truth;
}

static void assert_same_set(const cJSON *a, const cJSON *b) {
    assert_int_equal(cJSON_GetArraySize(a), cJSON_GetArraySize(b));
    const cJSON *x, *y;
    cJSON_ArrayForEach(x, a) {
        bool found = false;
        cJSON_ArrayForEach(y, b) {
            found = found || strcmp(x->valuestring, y->valuestring) == 0;
        }
        assert_true(found);
    }
}

static void assert_number(const cJSON *got, const char *key, const cJSON *expected, const char *expected_key) {
    if (fixture_get(expected, expected_key)) {
        assert_true(fixture_get(got, key)->valuedouble == fixture_get(expected, expected_key)->valuedouble);
    }
}

/* The fixture names the word of a hallucination after its reduction: "men" is "man" there. */
static void assert_objects(const cJSON *verdict, const cJSON *expected) {
    const cJSON *mention, *object = fixture_get(expected, "objects")->child;
    const cJSON *wrong = fixture_get(expected, "hallucinated")->child;
    cJSON_ArrayForEach(mention, fixture_get(verdict, "objects")) {
        assert_non_null(object);
        assert_string_equal(fixture_get(mention, "class")->valuestring, object->valuestring);
        object = object->next;
        if (cJSON_IsTrue(fixture_get(mention, "hallucinated"))) {
            assert_non_null(wrong);
            assert_string_equal(fixture_get(mention, "class")->valuestring, wrong->child->next->valuestring);
            assert_true(fixture_get(mention, "index")->valuedouble == wrong->child->next->next->valuedouble);
            wrong = wrong->next;
        }
    }
    assert_null(object);
    assert_null(wrong);
}

/* Every caption and the sums of a mode; `name` is the fixture's, which leaves out what equals nltk38. */
static void check_mode(const struct fixture *f, const char *name, enum chair_mode mode, enum chair_mode truth_mode) {
    struct chair_truth *truth = build_truth(f, truth_mode);
    struct chair_language language = language_of(f, mode);
    struct eval_scores scores;
    candid_error error;
    OK(chair_score(&f->items, &(struct chair_options){.language = &language, .truth = truth}, &scores, &error));
    const cJSON *c = f->cases->child;
    for (size_t i = 0; i < f->items.n; i++, c = c->next) {
        const cJSON *expected = fixture_get(c, name) ? fixture_get(c, name) : fixture_get(c, "nltk38");
        const cJSON *got = scores.verdicts[i];
        assert_same_set(fixture_get(got, "truth"), fixture_get(expected, "ground_truth"));
        assert_objects(got, expected);
        assert_number(got, "length", expected, "length");
        assert_number(got, "chair_s", expected, "CHAIRs");
        assert_number(got, "chair_i", expected, "CHAIRi");
        assert_number(got, "recall", expected, "Recall");
        assert_number(got, "precision", expected, "Precision");
        assert_number(got, "f1", expected, "F1");
    }
    const cJSON *overall = fixture_get(fixture_get(f->json, "overall"), name);
    assert_number(scores.summary, "chair_s", overall, "CHAIRs");
    assert_number(scores.summary, "chair_i", overall, "CHAIRi");
    assert_number(scores.summary, "recall", overall, "Recall");
    assert_string_equal(fixture_get(scores.summary, "mode")->valuestring, chair_mode_name(mode));
    assert_string_equal(fixture_get(scores.summary, "truth")->valuestring, chair_mode_name(truth_mode));
    scores_free(&scores);
    chair_language_free(&language);
    chair_truth_free(truth);
}

static void pattern(void **state) {
    check_mode(*state, "pattern", CHAIR_PATTERN, CHAIR_PATTERN);
}

static void nltk38(void **state) {
    check_mode(*state, "nltk38", CHAIR_NLTK38, CHAIR_NLTK38);
}

static void nltk39(void **state) {
    check_mode(*state, "nltk39", CHAIR_NLTK39, CHAIR_NLTK39);
}

/* Captions by NLTK, truth by pattern: the published cache file. */
static void mixed(void **state) {
    check_mode(*state, "mixed38", CHAIR_NLTK38, CHAIR_PATTERN);
}

static void tokens_and_positions(void **state) {
    const struct fixture *f = *state;
    struct chair_language language = language_of(f, CHAIR_NLTK38);
    struct chair_objects objects = {0};
    candid_error error;
    const cJSON *c;
    int n_variants = 0;
    cJSON_ArrayForEach(c, f->cases) {
        OK(chair_find_objects(&language, fixture_get(c, "caption")->valuestring, &objects, &error));
        assert_true(fixture_same_words(&language.words, fixture_get(c, "tokens")));
        assert_true(objects.length == (size_t)cJSON_GetArraySize(fixture_get(fixture_get(c, "nltk38"), "words")) ||
                    fixture_get(fixture_get(c, "nltk38"), "length")->valuedouble == (double)objects.length);
        /* PAI's positions, of the hallucinated mentions */
        const cJSON *variant = fixture_get(c, "merged_index_variant"), *wrong;
        int i = 0;
        const cJSON *all = variant ? fixture_get(fixture_get(c, "nltk38"), "hallucinated") : NULL;
        cJSON_ArrayForEach(wrong, all) {
            bool found = false;
            for (size_t k = 0; k < objects.n; k++) {
                found = found || (objects.mentions[k].index == wrong->child->next->next->valuedouble &&
                                  objects.mentions[k].merged == cJSON_GetArrayItem(variant, i)->valuedouble);
            }
            assert_true(found);
            i++;
            n_variants++;
        }
    }
    assert_true(n_variants > 0);
    chair_objects_free(&objects);
    chair_language_free(&language);
}

/* Without a tagger every word is a noun: other results, and another name. */
static void approximate(void **state) {
    const struct fixture *f = *state;
    struct chair_truth *truth = build_truth(f, CHAIR_APPROXIMATE);
    struct chair_language language = {.mode = CHAIR_APPROXIMATE, .vocabulary = f->vocabulary};
    struct eval_scores scores;
    candid_error error;
    const struct chair_options options = {.language = &language, .truth = truth};
    OK(chair_score(&f->items, &options, &scores, &error));
    assert_non_null(strstr(fixture_get(scores.summary, "tagger")->valuestring, "approximate"));
    scores_free(&scores);
    language.mode = CHAIR_NLTK38;
    assert_int_equal(chair_score(&f->items, &options, &scores, &error), CANDID_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "tagger"));
    assert_null(scores.summary);
    chair_language_free(&language);
    chair_truth_free(truth);
}

static struct eval_scores score_one(const struct fixture *f, const struct chair_truth *truth, const char *id,
                                    const char *image, const char *caption, bool unknown, candid_status expected,
                                    candid_error *error) {
    struct chair_language language = language_of(f, CHAIR_PATTERN);
    struct eval_items items = {0};
    struct eval_scores scores;
    OK(items_add(&items, &(struct eval_item){.id = id, .image = image, .answer = caption}, error));
    const struct chair_options options = {.language = &language, .truth = truth, .unknown_images_empty = unknown};
    assert_int_equal(chair_score(&items, &options, &scores, error), expected);
    items_free(&items);
    chair_language_free(&language);
    return scores;
}

static void images_and_undefined(void **state) {
    const struct fixture *f = *state;
    struct chair_truth *truth = build_truth(f, CHAIR_PATTERN);
    candid_error error;
    /* no mention: only CHAIR_i and precision have nothing to divide by */
    struct eval_scores s =
        score_one(f, truth, "1000", "COCO_val2014_000000001000.jpg", "nothing", false, CANDID_OK, &error);
    assert_true(cJSON_IsNull(fixture_get(s.summary, "chair_i")) && cJSON_IsNull(fixture_get(s.summary, "precision")) &&
                cJSON_IsNull(fixture_get(s.summary, "f1")));
    assert_true(fixture_get(s.summary, "recall")->valuedouble == 0 &&
                fixture_get(s.summary, "chair_s")->valuedouble == 0);
    assert_true(fixture_get(s.verdicts[0], "chair_i")->valuedouble == 0);
    scores_free(&s);
    s = score_one(f, truth, NULL, "val/COCO_val2014_000000001000.jpg", "a surfboard", false, CANDID_OK, &error);
    assert_int_equal(cJSON_GetArraySize(fixture_get(s.verdicts[0], "truth")), 2);
    assert_true(fixture_get(s.summary, "precision")->valuedouble == 1);
    scores_free(&s);
    score_one(f, truth, "1000", "COCO_val2014_000000001002.jpg", "a", false, CANDID_ERROR_FORMAT, &error);
    assert_non_null(strstr(error.message, "is image 1002"));
    score_one(f, truth, "77", NULL, "a dog", false, CANDID_ERROR_FORMAT, &error);
    assert_non_null(strstr(error.message, "no annotation file lists"));
    s = score_one(f, truth, "77", NULL, "a dog", true, CANDID_OK, &error);
    assert_true(fixture_get(s.summary, "unknown_images")->valuedouble == 1 &&
                fixture_get(s.summary, "chair_i")->valuedouble == 1 && cJSON_IsNull(fixture_get(s.summary, "recall")));
    scores_free(&s);
    chair_truth_free(truth);
}

static void image_lists(void **state) {
    int64_t *ids;
    size_t n;
    candid_error error;
    OK(chair_image_list("opera", &ids, &n, &error));
    assert_true(n == 500 && ids[0] == 226988 && ids[1] == 337443);
    free(ids);
    OK(chair_image_list("pai-927", &ids, &n, &error));
    assert_true(n == 500 && ids[0] == 236338 && ids[1] == 255315);
    free(ids);
    assert_int_equal(chair_image_list("pai", &ids, &n, &error), CANDID_ERROR_ARGUMENT);
}

/* Classes of one's own: plurals by suffix, names of two words. */
static void own_vocabulary(void **state) {
    static const char path[] = "chair_own_synonyms.txt";
    FILE *file = fopen(path, "wb");
    fputs("lamp, lantern, street lamp\nbox\n\nperson, woman\n", file);
    fclose(file);
    struct vocabulary *v;
    candid_error error;
    OK(vocabulary_open(path, &v, &error));
    assert_true(v->n_classes == 3);
    struct chair_language language = {.mode = CHAIR_APPROXIMATE, .vocabulary = v};
    struct chair_objects objects = {0};
    OK(chair_find_objects(&language, "Women with boxes under two street lamps, a dog and lanterns.", &objects, &error));
    assert_true(objects.n == 4);
    const int classes[] = {2, 1, 0, 0};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(objects.mentions[i].object, classes[i]);
    }
    assert_int_equal(objects.mentions[2].n_tokens, 2);
    chair_objects_free(&objects);
    chair_language_free(&language);
    vocabulary_free(v);
    file = fopen(path, "wb");
    fputs("lamp, lantern\nlight, lantern\n", file);
    fclose(file);
    assert_int_equal(vocabulary_open(path, &v, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "synonyms.txt:2: \"lantern\" already belongs to the class \"lamp\""));
    remove(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pattern),
        cmocka_unit_test(nltk38),
        cmocka_unit_test(nltk39),
        cmocka_unit_test(mixed),
        cmocka_unit_test(tokens_and_positions),
        cmocka_unit_test(approximate),
        cmocka_unit_test(images_and_undefined),
        cmocka_unit_test(image_lists),
        cmocka_unit_test(own_vocabulary),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
