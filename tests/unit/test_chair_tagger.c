/* Tokens and tags against NLTK's own (tests/golden/make_chair.py), and the import of its data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/chair_fixture.h"
#include "core/crc32.h"
#include "eval/chair/pickle.h"
#include "eval/chair/tagger_import.h"

#define OK(call) assert_int_equal((call), CANDID_OK)

static struct tagger *import(const char *path) {
    char *text;
    size_t size;
    candid_error error;
    struct tagger *tagger;
    OK(tagger_import(path, &text, &size, &error));
    OK(tagger_parse(text, size, "tagger", &tagger, &error));
    free(text);
    return tagger;
}

static void check_tokens(const char *file, enum tokenizer_rules rules, const struct punkt *punkt) {
    cJSON *list = fixture_read(file);
    assert_non_null(list);
    struct word_tokenizer without = {.rules = rules}, with = {.rules = rules, .punkt = punkt};
    struct words words = {0};
    candid_error error;
    int n_different = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        const cJSON *other = fixture_get(item, "with_punkt");
        OK(tokenize(&without, fixture_get(item, "text")->valuestring, &words, &error));
        assert_true(fixture_same_words(&words, fixture_get(item, "tokens")));
        OK(tokenize(&with, fixture_get(item, "text")->valuestring, &words, &error));
        assert_true(fixture_same_words(&words, other ? other : fixture_get(item, "tokens")));
        n_different += other != NULL;
    }
    assert_int_equal(cJSON_GetArraySize(list), 360);
    assert_true(n_different > 20);
    words_free(&words);
    word_tokenizer_free(&without);
    word_tokenizer_free(&with);
    cJSON_Delete(list);
}

static void tokens(void **state) {
    struct tagger *old = import(TEST_DATA "/chair/nltk_data_38"), *new = import(TEST_DATA "/chair/nltk_data_39");
    assert_true(old->has_punkt && new->has_punkt);
    check_tokens("tokens_38.json", TOKENIZER_NLTK38, &old->punkt);
    check_tokens("tokens_39.json", TOKENIZER_NLTK39, &new->punkt);
    tagger_free(old);
    tagger_free(new);
}

static void bytes_that_are_no_text(void **state) {
    struct word_tokenizer t = {0};
    struct words words = {0};
    candid_error error;
    OK(tokenize(&t, "", &words, &error));
    assert_true(words.n == 0);
    OK(tokenize(&t,
                "\xff"
                "DOG\xc3 \xe2\x82",
                &words, &error));
    assert_true(words.n == 2);
    assert_string_equal(word_at(&words, 0), "\xef\xbf\xbd"
                                            "dog\xef\xbf\xbd");
    words_free(&words);
    word_tokenizer_free(&t);
}

/* Both forms of the data hold the same tagger, and it tags as NLTK does. */
static void tags(void **state) {
    static const char *const paths[] = {
        TEST_DATA "/chair/nltk_data_38", TEST_DATA "/chair/nltk_data_39",
        TEST_DATA "/chair/nltk_data_38/taggers/averaged_perceptron_tagger/averaged_perceptron_tagger.pickle",
        TEST_DATA "/chair/nltk_data_39/taggers/averaged_perceptron_tagger_eng"};
    cJSON *list = fixture_read("tags.json");
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct tagger *tagger = import(paths[i]);
        assert_true(tagger->words.n == 3 && tagger->n_features > 500);
        struct word_tokenizer t = {0};
        struct words words = {0};
        candid_error error;
        uint8_t found[512];
        const cJSON *item, *tag;
        cJSON_ArrayForEach(item, list) {
            OK(tokenize(&t, fixture_get(item, "caption")->valuestring, &words, &error));
            OK(tagger_tag(tagger, &words, found, &error));
            size_t k = 0;
            cJSON_ArrayForEach(tag, fixture_get(item, "tags")) {
                assert_string_equal(tagger->tags[found[k++]], tag->valuestring);
            }
            assert_true(k == words.n);
        }
        words_free(&words);
        word_tokenizer_free(&t);
        tagger_free(tagger);
    }
    cJSON_Delete(list);
}

/* A tagger file of the lines given, with its checksum. */
static candid_status parse(const char *lines, candid_error *error) {
    char text[1024];
    const int n = snprintf(text, sizeof text, "%s", lines);
    snprintf(text + n, sizeof text - (size_t)n, "crc32 %08x\n", crc32_update(0, text, (size_t)n));
    struct tagger *tagger;
    const candid_status status = tagger_parse(text, strlen(text), "T", &tagger, error);
    tagger_free(tagger);
    return status;
}

static void tagger_files(void **state) {
    static const char good[] =
        TAGGER_MAGIC "\nfrom x\ntags 2\nJJ\nNN\nwords 1\nthe\tJJ\nfeatures 2\nbias\tNN 1 JJ -0.5\ni word a\t\n"
                     "abbreviations 0\ncollocations 0\nstarters 0\n";
    static const struct {
        const char *from, *to, *message;
    } broken[] = {
        {"tags 2", "tags 3", "\"words N\""},
        {"tags 2", "tags 999999999", "\"tags N\""},
        {"JJ\nNN", "NN\nJJ", "alphabetical order"},
        {"the\tJJ", "the\tXX", "\"WORD<tab>TAG\""},
        {"the\tJJ", "the JJ", "\"WORD<tab>TAG\""},
        {"JJ -0.5", "JJ x", "\"FEATURE<tab>"},
        {"JJ -0.5", "JJ", "\"FEATURE<tab>"},
        {"JJ -0.5", "JJ nan", "\"FEATURE<tab>"},
        {"starters 0", "starters 1", "\"starters N\""},
        {"starters 0\n", "starters 0\nmore\n", "the end of the file"},
        {"words 1", "words", "\"words N\""},
        {TAGGER_MAGIC, "candid-tagger 2", "no tagger file of this version"},
    };
    candid_error error;
    OK(parse(good, &error));
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        char text[1024];
        const char *at = strstr(good, broken[i].from);
        assert_non_null(at);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, broken[i].to, at + strlen(broken[i].from));
        assert_int_equal(parse(text, &error), CANDID_ERROR_FORMAT);
        assert_non_null(strstr(error.message, broken[i].message));
    }
    struct tagger *tagger;
    assert_int_equal(tagger_parse(good, sizeof good - 1, "T", &tagger, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "checksum"));
    assert_null(tagger);
}

static candid_status read_pickle(const char *bytes, size_t size, candid_error *error) {
    struct tagger_parts parts = {0};
    const candid_status status = tagger_add_pickle(&parts, (const uint8_t *)bytes, size, "P", error);
    tagger_parts_free(&parts);
    return status;
}

#define PICKLE(bytes) (bytes), sizeof(bytes) - 1

/* Nothing but plain values, and nothing that is cut. */
static void hostile_pickles(void **state) {
    candid_error error;
    static const char empty[] = "\x80\x02}}c__builtin__\nset\n]\x85R\x87.";
    OK(read_pickle(PICKLE(empty), &error));
    for (size_t n = 0; n + 1 < sizeof empty - 1; n++) {
        assert_int_equal(read_pickle(empty, n, &error), CANDID_ERROR_FORMAT);
    }
    assert_int_equal(read_pickle(PICKLE("\x80\x02"
                                        "cos\nsystem\nU\x02id\x85R."),
                                 &error),
                     CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "it wants \"os.system\""));
    assert_int_equal(read_pickle(PICKLE("\x80\x02"
                                        "cnltk.tokenize.punkt\nPunktParameters\n)R."),
                                 &error),
                     CANDID_ERROR_FORMAT);
    static const struct {
        const char *bytes;
        size_t size;
    } broken[] = {
        {PICKLE(".")},
        {PICKLE("}}.")},
        {PICKLE("(.")},
        {PICKLE("}s.")},
        {PICKLE("}Na.")},
        {PICKLE("}(Nu.")},
        {PICKLE("h\x01.")},
        {PICKLE("r\xff\xff\xff\x7f.")},
        {PICKLE("}r\xff\xff\xff\x7f.")},
        {PICKLE("X\xff\xff\xff\xff.")},
        {PICKLE("U\x01\0.")},
        {PICKLE("\x8a\x09"
                "123456789.")},
        {PICKLE("I1\n.")},
        {PICKLE("N}b.")},
        {PICKLE("NR.")},
        {PICKLE("e.")},
        {PICKLE("\x87.")},
        {PICKLE("}]]\x87.")},
        {PICKLE("N.")},
        {PICKLE("}(U\x01xNu}]\x87.")},
        {PICKLE("}(U\x01x}(U\x01yNuu}]\x87.")},
    };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        assert_int_equal(read_pickle(broken[i].bytes, broken[i].size, &error), CANDID_ERROR_FORMAT);
        assert_memory_equal(error.message, "P: ", 3);
    }
}

/* A dictionary that holds itself. */
static void cyclic_pickle(void **state) {
    static const char bytes[] = "}q\x00(U\x04selfh\x00u.";
    static const char *const none[] = {NULL};
    struct pickle p;
    candid_error error;
    OK(pickle_read((const uint8_t *)bytes, sizeof bytes - 1, "P", none, &p, &error));
    const struct pickle_value *root = &p.values[p.root];
    assert_ptr_equal(pickle_find(&p, root, "self"), root);
    pickle_free(&p);
    assert_int_equal(read_pickle(PICKLE("}q\x00(U\x04selfh\x00u}]\x87."), &error), CANDID_ERROR_FORMAT);
}

static void nothing_to_import(void **state) {
    char *text;
    size_t size;
    candid_error error;
    assert_int_equal(tagger_import(TEST_DATA "/chair", &text, &size, &error), CANDID_ERROR_IO);
    assert_non_null(strstr(error.message, "averaged_perceptron_tagger"));
    assert_null(text);
    assert_int_equal(tagger_import(TEST_DATA "/chair/fixture.json", &text, &size, &error), CANDID_ERROR_FORMAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens),
        cmocka_unit_test(bytes_that_are_no_text),
        cmocka_unit_test(tags),
        cmocka_unit_test(tagger_files),
        cmocka_unit_test(hostile_pickles),
        cmocka_unit_test(cyclic_pickle),
        cmocka_unit_test(nothing_to_import),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
