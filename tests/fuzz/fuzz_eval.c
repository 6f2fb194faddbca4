/*
 * libFuzzer target: the files of benchmarks. The first byte of the input chooses the reader; a byte 0x1E ends a file
 * where a reader takes several. What is accepted is scored, and the counts must add up.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "eval/amber/amber.h"
#include "eval/common/run_items.h"
#include "eval/mme/mme.h"
#include "eval/pope/build.h"
#include "eval/pope/sycophancy.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_FILES = 4 };

static char folder[] = "/tmp/candid_fuzz_XXXXXX";
static char paths[MAX_FILES][64];

static void require(bool condition) {
    if (!condition) {
        abort();
    }
}

static void remove_folder(void) {
    for (int i = 0; i < MAX_FILES; i++) {
        unlink(paths[i]);
    }
    rmdir(folder);
}

/* The names that AMBER's and MME's readers look for. */
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    static const char *const names[MAX_FILES] = {"relation.json", "annotations.json", "safe_words.txt", "color.txt"};
    require(mkdtemp(folder) != NULL && atexit(remove_folder) == 0);
    for (int i = 0; i < MAX_FILES; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/%s", folder, names[i]);
    }
    return 0;
}

/* Writes the parts of the input to the files; those without a part become empty. */
static void write_files(const uint8_t *data, size_t size) {
    for (int i = 0; i < MAX_FILES; i++) {
        const uint8_t *end = size > 0 ? memchr(data, 0x1E, size) : NULL;
        const size_t n = end ? (size_t)(end - data) : size;
        FILE *file = fopen(paths[i], "wb");
        require(file && fwrite(data, 1, n, file) == n && fclose(file) == 0);
        data += end ? n + 1 : n;
        size -= end ? n + 1 : n;
    }
}

static void check(candid_status status, const candid_error *error) {
    require(status == CANDID_OK || (error->status == status && error->message[0] != '\0'));
}

static int count(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    require(cJSON_IsNumber(item));
    return item->valueint;
}

static void score_pope(const struct eval_items *items) {
    struct eval_scores scores;
    candid_error error;
    const candid_status status = pope_score(items, &(struct pope_options){.all_rules = true}, &scores, &error);
    check(status, &error);
    if (status != CANDID_OK) {
        return;
    }
    int n_answers = 0, n_verdicts = 0;
    const cJSON *split;
    cJSON_ArrayForEach(split, cJSON_GetObjectItem(scores.summary, "splits")) {
        n_answers += count(split, "answers");
        require(count(split, "tp") + count(split, "fp") + count(split, "tn") + count(split, "fn") +
                    count(split, "unknown") ==
                count(split, "answers"));
    }
    for (size_t i = 0; i < scores.n; i++) {
        n_verdicts += scores.verdicts[i] != NULL;
    }
    require(n_answers == n_verdicts);
    scores_free(&scores);
}

static void fuzz_pope(bool answers) {
    struct eval_items items = {0}, again = {0};
    struct eval_scores scores;
    candid_error error;
    candid_status status = pope_read_questions(paths[0], NULL, &items, &error);
    check(status, &error);
    if (status == CANDID_OK && answers) {
        status = pope_read_answers(paths[1], false, &items, 0, items.n, &error);
        check(status, &error);
        for (size_t i = 0; i < items.n && status == CANDID_OK; i++) {
            require(items.items[i].answer != NULL);
        }
    } else if (status == CANDID_OK) {
        check(pope_read_labels(paths[1], NULL, &items, &error), &error);
        if (pope_read_questions(paths[2], NULL, &again, &error) == CANDID_OK &&
            sycophancy_score(&items, &again, NULL, &scores, &error) == CANDID_OK) {
            scores_free(&scores);
        }
    }
    score_pope(&items);
    items_free(&items);
    items_free(&again);
}

/* Captions that answer the questions. */
static void fuzz_captions(void) {
    struct eval_items items = {0};
    candid_error error;
    candid_status status = pope_read_questions(paths[0], NULL, &items, &error);
    if (status == CANDID_OK) {
        status = pope_read_captions(paths[1], &items, &error);
    }
    check(status, &error);
    items_free(&items);
}

static void fuzz_build(bool instances) {
    struct pope_truth truth = {0};
    struct eval_items items = {0};
    struct mt19937 r;
    candid_error error;
    size_t *images = NULL, n = 0;
    mt19937_seed(&r, 7);
    const candid_status status = instances ? pope_truth_read_instances(paths[0], &truth, &error)
                                           : pope_truth_read_objects(paths[0], &truth, &error);
    check(status, &error);
    if (status == CANDID_OK && truth.n_objects < 200 &&
        pope_sample_images(&truth, 0, 1, &r, &images, &n, &error) == CANDID_OK) {
        const struct pope_build build = {.split = POPE_ADVERSARIAL, .per_image = 1};
        if (pope_build_questions(&truth, images, n, &build, &r, &items, &error) == CANDID_OK) {
            require(items.n == 2 * n);
        }
    }
    free(images);
    items_free(&items);
    pope_truth_free(&truth);
}

static void fuzz_mme(void) {
    struct eval_items items = {0};
    struct eval_scores scores;
    candid_error error;
    candid_status status = mme_read_results(paths[3], &items, &error);
    check(status, &error);
    if (status == CANDID_OK) {
        status = mme_score(&items, NULL, &scores, &error);
        check(status, &error);
        if (status == CANDID_OK) {
            scores_free(&scores);
        }
        check(mme_write_results(folder, &items, &error), &error);
    }
    items_free(&items);
}

/* One noun per blank. */
static candid_status find_nouns(const void *context, const char *text, struct amber_words *out, candid_error *error) {
    for (const char *word = text; *word;) {
        const size_t n = strcspn(word, " ");
        require(amber_words_add(out, word, n, error) == CANDID_OK);
        word += n + (word[n] == ' ');
    }
    return CANDID_OK;
}

static void fuzz_amber(void) {
    struct amber_data *data = NULL;
    struct eval_items items = {0};
    struct eval_scores scores;
    candid_error error;
    candid_status status = amber_data_read(folder, NULL, &data, &error);
    check(status, &error);
    if (status == CANDID_OK) {
        status = amber_read_responses(paths[3], data, &items, &error);
        check(status, &error);
    }
    if (status == CANDID_OK) {
        const struct amber_options options = {data, {find_nouns, NULL, "blanks"}};
        require(amber_score(&items, &options, &scores, &error) == CANDID_OK);
        scores_free(&scores);
    }
    items_free(&items);
    amber_data_free(data);
}

static void fuzz_run(void) {
    struct eval_items items = {0};
    candid_error error;
    check(run_read_items(paths[0], &items, &error), &error);
    items_free(&items);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    write_files(data + 1, size - 1);
    switch (data[0]) {
    case 'q': fuzz_pope(false); break;
    case 'a': fuzz_pope(true); break;
    case 'c': fuzz_captions(); break;
    case 'o': fuzz_build(false); break;
    case 'i': fuzz_build(true); break;
    case 'm': fuzz_mme(); break;
    case 'w': fuzz_amber(); break;
    case 'r': fuzz_run(); break;
    default: break;
    }
    return 0;
}
