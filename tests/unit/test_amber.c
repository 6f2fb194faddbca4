/* AMBER, against what the official program printed for the same answers; the nouns its tagger found are given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/crc32.h"
#include "core/json.h"
#include "eval/amber/data.h"

#define DATA TEST_DATA "/amber"

static struct json expected;
static struct amber_data *data;

static int load(void **state) {
    return json_read(DATA "/expected.json", 1 << 20, &expected, NULL) != CANDID_OK ||
           amber_data_read(DATA, NULL, &data, NULL) != CANDID_OK;
}

static int unload(void **state) {
    amber_data_free(data);
    json_free(&expected);
    return 0;
}

static const cJSON *member(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    assert_non_null(item);
    return item;
}

/* The nouns that NLTK found in this description. */
static candid_status known_nouns(const void *context, const char *text, struct amber_words *out, candid_error *error) {
    const cJSON *row, *noun;
    cJSON_ArrayForEach(row, member(expected.root, "nouns")) {
        if (strcmp(member(row, "response")->valuestring, text) == 0) {
            cJSON_ArrayForEach(noun, member(row, "nouns")) {
                assert_int_equal(amber_words_add(out, noun->valuestring, strlen(noun->valuestring), error), CANDID_OK);
            }
            return CANDID_OK;
        }
    }
    fail_msg("no such description: %s", text);
    return CANDID_OK;
}

static struct amber_options options_of(const struct amber_data *of) {
    return (struct amber_options){of, {known_nouns, NULL, "given"}};
}

/* The number that the official program printed as `name` below the title. */
static double printed(const char *title, const char *name) {
    const cJSON *line;
    bool inside = false;
    char key[32];
    const int n = snprintf(key, sizeof key, "%s: ", name);
    cJSON_ArrayForEach(line, member(expected.root, "printed")) {
        if (inside && strncmp(line->valuestring, key, (size_t)n) == 0) {
            return atof(line->valuestring + n);
        }
        inside = inside || strcmp(line->valuestring, title) == 0;
    }
    fail_msg("%s %s is not there", title, name);
    return 0;
}

static void same(const cJSON *object, const char *key, const char *title, const char *name) {
    const double found = member(object, key)->valuedouble, wanted = printed(title, name);
    if (found != wanted) {
        fail_msg("%s %s: expected %g, found %g", title, name, wanted, found);
    }
}

static void official_scores(void **state) {
    struct eval_items items = {0};
    struct eval_scores out;
    const struct amber_options options = options_of(data);
    assert_int_equal(amber_read_responses(DATA "/responses.json", data, &items, NULL), CANDID_OK);
    assert_int_equal(items.n, 32);
    assert_int_equal(items.sources[0].n_lines, 32);
    assert_int_equal(amber_score(&items, &options, &out, NULL), CANDID_OK);
    const cJSON *generative = member(out.summary, "generative");
    same(generative, "chair", "Generative Task:", "CHAIR");
    same(generative, "cover", "Generative Task:", "Cover");
    same(generative, "hal", "Generative Task:", "Hal");
    same(generative, "cog", "Generative Task:", "Cog");
    static const char *const dimensions[][2] = {{"total", "Descriminative Task:"},
                                                {"existence", "Exsitence:"},
                                                {"attribute", "Attribute:"},
                                                {"state", "State:"},
                                                {"number", "Number:"},
                                                {"action", "Action:"},
                                                {"relation", "Relation:"}};
    for (size_t d = 0; d < sizeof dimensions / sizeof *dimensions; d++) {
        const cJSON *found = member(member(out.summary, "discriminative"), dimensions[d][0]);
        same(found, "accuracy", dimensions[d][1], "Accuracy");
        same(found, "precision", dimensions[d][1], "Precision");
        same(found, "recall", dimensions[d][1], "Recall");
        same(found, "f1", dimensions[d][1], "F1");
    }
    assert_string_equal(member(out.summary, "similarity")->valuestring, "equality only");
    assert_string_equal(member(out.summary, "tagger")->valuestring, "given");
    assert_true(member(out.summary, "amber_score")->valuedouble == (100 - 40.9 + 41.6) / 2);

    /* The verdicts are enough to count again. */
    int nouns = 0, invented = 0, correct = 0, covered = 0, truth = 0;
    for (size_t i = 0; i < out.n; i++) {
        if (cJSON_HasObjectItem(out.verdicts[i], "nouns")) {
            nouns += cJSON_GetArraySize(member(out.verdicts[i], "nouns"));
            invented += cJSON_GetArraySize(member(out.verdicts[i], "hallucinated"));
            covered += cJSON_GetArraySize(member(out.verdicts[i], "covered"));
            truth += member(out.verdicts[i], "truth")->valueint;
        } else {
            correct += cJSON_IsTrue(member(out.verdicts[i], "correct"));
        }
    }
    assert_int_equal(nouns, member(generative, "nouns")->valueint);
    assert_int_equal(invented, member(generative, "hallucinated")->valueint);
    assert_int_equal(correct, 9);
    assert_true(covered == 12 && truth == 32);
    /* "a dog ... a bird and a flower": all three are on the list of what models like to invent */
    assert_int_equal(cJSON_GetArraySize(member(out.verdicts[0], "listed")), 4);
    scores_free(&out);
    items_free(&items);
}

static char folder[] = "/tmp/candid_amber_XXXXXX";

static void write_file(const char *name, const char *text) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static const char *file_path(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void data_fails(const char *similarity, const char *message) {
    struct amber_data *broken = NULL;
    candid_error error;
    assert_int_equal(amber_data_read(folder, similarity, &broken, &error), CANDID_ERROR_FORMAT);
    if (!strstr(error.message, message)) {
        fail_msg("expected \"%s\", found: %s", message, error.message);
    }
}

static const char cat_words[] = "\"words\": [\"dog\", \"puppy\", \"cat\"]";

static void similarity(void **state) {
    char table[256];
    write_file("relation.json", "{\"dog\": [\"puppy\"], \"cat\": []}");
    write_file("safe_words.txt", "cat");
    write_file("annotations.json",
               "[{\"id\": 1, \"type\": \"generative\", \"truth\": [\"dog\"], \"hallu\": [\"cat\"]}]");
    snprintf(
        table, sizeof table,
        "{\"vectors\": \"v 1\", \"threshold\": 0.8, %s, \"similar\": {\"cat\": [\"puppy\"], \"puppy\": [\"cat\"]}}",
        cat_words);
    write_file("table.json", table);
    struct amber_data *small = NULL;
    assert_int_equal(amber_data_read(folder, file_path("table.json"), &small, NULL), CANDID_OK);
    assert_string_equal(amber_similarity_name(small), "v 1, above 0.8");
    struct eval_items items = {0};
    struct eval_scores out;
    write_file("responses.json", "[{\"id\": 1, \"response\": \"Nothing special.\"}]");
    assert_int_equal(amber_read_responses(file_path("responses.json"), small, &items, NULL), CANDID_OK);
    amber_data_free(small);
    /* not a safe word any more: the cat is listed, and like a puppy, which stands for the dog */
    write_file("safe_words.txt", "dog\n");
    assert_int_equal(amber_data_read(folder, file_path("table.json"), &small, NULL), CANDID_OK);
    items.items[0].answer = "Nothing special.";
    struct amber_options options = options_of(small);
    assert_int_equal(amber_score(&items, &options, &out, NULL), CANDID_OK);
    assert_int_equal(cJSON_GetArraySize(member(out.verdicts[0], "nouns")), 0);
    scores_free(&out);
    options.nouns.find = NULL;
    candid_error error;
    assert_int_equal(amber_score(&items, &options, &out, &error), CANDID_ERROR_UNSUPPORTED);
    amber_data_free(small);
    items_free(&items);

    data_fails(file_path("relation.json"), "expected a table of similarity.py");
    write_file("table.json", "{\"vectors\": \"v\", \"threshold\": 0.8, \"words\": [\"dog\"], \"similar\": {}}");
    data_fails(file_path("table.json"), "expected the 3 words of relation.json, found 1 of them");
    snprintf(table, sizeof table, "{\"vectors\": \"v\", \"threshold\": 0.8, %s, \"similar\": {\"cat\": [\"bus\"]}}",
             cat_words);
    write_file("table.json", table);
    data_fails(file_path("table.json"), "\"cat\": expected words of relation.json");
}

/* One noun per blank. */
static candid_status every_word(const void *context, const char *text, struct amber_words *out, candid_error *error) {
    for (const char *word = text; *word;) {
        const size_t n = strcspn(word, " ");
        assert_int_equal(amber_words_add(out, word, n, error), CANDID_OK);
        word += n + (word[n] == ' ');
    }
    return CANDID_OK;
}

static void expect_words(const cJSON *verdict, const char *key, const char *words) {
    char found[128] = "";
    const cJSON *word;
    cJSON_ArrayForEach(word, member(verdict, key)) {
        strcat(strcat(found, *found ? " " : ""), word->valuestring);
    }
    assert_string_equal(found, words);
}

/* The order of the rules: safe words, equal to what is there, equal to and like what is listed, like what is there. */
static void noun_rules(void **state) {
    char table[256];
    struct amber_data *small = NULL;
    struct eval_items items = {0};
    struct eval_scores out;
    write_file("relation.json", "{\"dog\": [\"puppy\"], \"cat\": [\"lion\"], \"bus\": [], \"car\": [], \"van\": []}");
    write_file("safe_words.txt", "bus");
    write_file("annotations.json", "[{\"id\": 1, \"type\": \"generative\", \"truth\": [\"car\", \"dog\", \"dog\"],"
                                   " \"hallu\": [\"cat\", \"bus\"]}]");
    write_file("responses.json", "[{\"id\": 1, \"response\": \"bus puppy lion van tree cat\"}]");
    snprintf(table, sizeof table,
             "{\"vectors\": \"v\", \"threshold\": 0.8, \"words\": [\"dog\", \"puppy\", \"cat\", \"lion\", \"bus\", "
             "\"car\", \"van\"], \"similar\": {\"van\": [\"bus\", \"car\"], \"cat\": [\"cat\"]}}");
    write_file("table.json", table);
    assert_int_equal(amber_data_read(folder, file_path("table.json"), &small, NULL), CANDID_OK);
    assert_int_equal(amber_read_responses(file_path("responses.json"), small, &items, NULL), CANDID_OK);
    const struct amber_options options = {small, {every_word, NULL, NULL}};
    assert_int_equal(amber_score(&items, &options, &out, NULL), CANDID_OK);
    expect_words(out.verdicts[0], "nouns", "bus puppy lion van cat"); /* tree is no word of the vocabulary */
    expect_words(out.verdicts[0], "hallucinated", "lion cat");
    expect_words(out.verdicts[0], "covered", "car dog"); /* the first dog alone */
    expect_words(out.verdicts[0], "listed", "cat bus");  /* the van is like a bus, the safe word itself marks nothing */
    assert_null(cJSON_GetObjectItem(out.summary, "discriminative"));
    assert_true(member(member(out.summary, "generative"), "hal")->valuedouble == 100);
    scores_free(&out);
    items_free(&items);
    amber_data_free(small);
}

static void broken_data(void **state) {
    write_file("safe_words.txt", "");
    write_file("relation.json", "{\"dog\": \"puppy\"}");
    data_fails(NULL, "key dog: expected one list of words");
    write_file("relation.json", "{\"dog\": [1]}");
    data_fails(NULL, "key dog: expected words");
    write_file("relation.json", "{\"dog\": [], \"dog\": []}");
    data_fails(NULL, "key dog: expected one list");
    write_file("relation.json", "{\"dog\": [\"puppy\"]}");
    write_file("annotations.json", "[{\"id\": 1, \"type\": \"generative\", \"truth\": [\"puppy\"], \"hallu\": []}]");
    data_fails(NULL, "annotations.json:1: expected keys of relation.json in \"truth\", found string \"puppy\"");
    write_file("annotations.json", "[{\"id\": 1, \"type\": \"relation\", \"truth\": \"maybe\"}]");
    data_fails(NULL, "expected \"yes\" or \"no\"");
    write_file("annotations.json", "[{\"id\": 1.5, \"type\": \"relation\", \"truth\": \"yes\"}]");
    data_fails(NULL, "expected an integer \"id\"");
    write_file("annotations.json", "[{\"id\": 1, \"type\": \"generative\", \"truth\": [\"dog\"]}]");
    data_fails(NULL, "expected a list of words as \"hallu\"");
    write_file("annotations.json", "[{\"id\": 1, \"type\": \"relation\", \"truth\": \"yes\"},\n"
                                   "{\"id\": 1, \"type\": \"relation\", \"truth\": \"no\"}]");
    data_fails(NULL, "expected every id once, found 1 twice");
}

static void questions(void **state) {
    struct eval_items items = {0};
    candid_error error;
    write_file("query.json", "[{\"id\": 1, \"image\": \"AMBER_1.jpg\", \"query\": \"Describe this image.\"},\n"
                             "{\"id\": 1006, \"image\": \"AMBER_1.jpg\", \"query\": \"Is the sky red?\"}]");
    assert_int_equal(amber_read_questions(file_path("query.json"), data, &items, NULL), CANDID_OK);
    assert_string_equal(items.items[0].split, "generative");
    assert_null(items.items[0].label);
    assert_string_equal(items.items[0].question, "Describe this image.");
    assert_string_equal(items.items[1].split, "discriminative-attribute-state");
    assert_string_equal(items.items[1].label, "no");
    assert_string_equal(items.items[1].image, "AMBER_1.jpg");
    assert_string_equal(items.items[1].id, "1006");
    struct eval_scores out;
    const struct amber_options options = options_of(data);
    assert_int_equal(amber_score(&items, &options, &out, NULL), CANDID_OK); /* nothing is answered */
    assert_null(out.summary->child);
    scores_free(&out);
    items_free(&items);
    write_file("query.json", "[{\"id\": 77777, \"image\": \"a\", \"query\": \"b\"}]");
    assert_int_equal(amber_read_questions(file_path("query.json"), data, &items, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "query.json:1: expected the \"id\" of an annotation, found \"77777\""));
    write_file("query.json", "[{\"id\": 1, \"query\": \"b\"}]");
    assert_int_equal(amber_read_questions(file_path("query.json"), data, &items, &error), CANDID_ERROR_FORMAT);
    items_free(&items);
    assert_int_equal(items_add(&items, &(struct eval_item){.id = "x", .answer = "Yes"}, NULL), CANDID_OK);
    assert_int_equal(amber_score(&items, &options, &out, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "id \"x\""));
    items_free(&items);
}

/* Every form of every word of the full vocabulary. */
static void lemmas(void **state) {
    struct amber_data *all = NULL;
    char line[128], mark, word[64], lemma[64], buffer[AMBER_LEMMA];
    FILE *forms = fopen(DATA "/lemmas.txt", "r"), *relation = fopen(file_path("relation.json"), "w");
    assert_true(forms && relation);
    int n_words = 0, n_forms = 0;
    while (fgets(line, sizeof line, forms)) {
        if (line[0] == '=' && sscanf(line, "%c %63s %63s", &mark, word, lemma) == 3) {
            fprintf(relation, "%s\"%s\": []\n", n_words++ ? "," : "{", word);
        }
    }
    fprintf(relation, "}");
    fclose(relation);
    assert_int_equal(n_words, 418);
    write_file("annotations.json", "[{\"id\": 1, \"type\": \"relation\", \"truth\": \"no\"}]");
    assert_int_equal(amber_data_read(folder, NULL, &all, NULL), CANDID_OK);
    rewind(forms);
    while (fgets(line, sizeof line, forms)) {
        if (line[0] == '#' || sscanf(line + 1, "%63s %63s", word, lemma) != 2) {
            continue;
        }
        const char *found = amber_lemma(all, word, buffer);
        if (amber_word_find(all, found) >= 0 ? strcmp(found, lemma) != 0 : strcmp(lemma, "-") != 0) {
            fail_msg("%s: expected %s, found %s", word, lemma, found);
        }
        n_forms++;
    }
    assert_true(n_forms > 1800);
    fclose(forms);
    assert_string_equal(amber_lemma(all, "Cars", buffer), "Cars");
    assert_string_equal(amber_lemma(all, "", buffer), "");
    static const char overlong[] = "carscarscarscarscarscarscarscarscarscarscarscarscarscarscarscarscars";
    assert_ptr_equal(amber_lemma(all, overlong, buffer), overlong);
    amber_data_free(all);
}

/* A tagger to whom everything is a verb but a few nouns; words keep the case of the text. */
static void nouns(void **state) {
    static const char weights[] = "candid-tagger 1\nfrom a test\ntags 3\nNN\nNNS\nVB\nwords 4\ndogs\tNNS\nlake\tNN\n"
                                  "sky\tNN\ntv\tNN\nfeatures 1\nbias\tVB 1\nabbreviations 0\ncollocations 0\n"
                                  "starters 0\n";
    static const char text[] = "The \"dogs\" watch a TV; Sky over the lake, and trees.";
    char file[sizeof weights + 32];
    snprintf(file, sizeof file, "%scrc32 %08x\n", weights, crc32_update(0, weights, sizeof weights - 1));
    write_file("tagger", file);
    struct amber_nouns nouns = {0};
    struct amber_words found = {0};
    candid_error error;
    if (amber_nouns_open(data, file_path("tagger"), &nouns, &error) != CANDID_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(nouns.find(nouns.context, text, &found, NULL), CANDID_OK);
    assert_int_equal(found.n, 4);
    assert_string_equal(found.words[0], "dog");
    assert_string_equal(found.words[1], "TV");
    assert_string_equal(found.words[2], "Sky");
    assert_string_equal(found.words[3], "lake");
    amber_words_free(&found);
    amber_nouns_close(&nouns);
    assert_int_equal(amber_nouns_open(data, file_path("annotations.json"), &nouns, &error), CANDID_ERROR_FORMAT);

    assert_int_equal(amber_nouns_open(data, NULL, &nouns, NULL), CANDID_OK); /* no tagger: every word */
    assert_non_null(strstr(nouns.name, "approximate"));
    assert_int_equal(nouns.find(nouns.context, text, &found, NULL), CANDID_OK);
    assert_true(found.n > 10);
    amber_words_free(&found);
    amber_nouns_close(&nouns);
}

static int make_folder(void **state) {
    return mkdtemp(folder) == NULL || load(state);
}

static int remove_folder(void **state) {
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) + unload(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(official_scores), cmocka_unit_test(similarity), cmocka_unit_test(noun_rules),
        cmocka_unit_test(broken_data),     cmocka_unit_test(questions),  cmocka_unit_test(lemmas),
        cmocka_unit_test(nouns),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
