/*
 * Directories that are damaged, incomplete, lying or of another kind: each is refused with one sentence that names the
 * file, what was expected and what was found. Made from tests/golden/hf/llava15_mha by one change each.
 */
#include <dirent.h>
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

#include "candid/candid.h"
#include "model/safetensors.h"

#define SOURCE TEST_GOLDEN "/hf/"

static char work[] = "/tmp/candid-test-hf-XXXXXX";

static int setup(void **state) {
    (void)state;
    return mkdtemp(work) ? 0 : -1;
}

/* ---- directories ---- */

static char *read_file(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*size + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *size, f), *size);
    data[*size] = '\0';
    fclose(f);
    return data;
}

static void write_file(const char *path, const char *data, size_t size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static void empty_work(void) {
    DIR *dir = opendir(work);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", work, entry->d_name);
        unlink(path);
    }
    closedir(dir);
}

static int teardown(void **state) {
    (void)state;
    empty_work();
    return rmdir(work);
}

static void copy_model(const char *name) {
    char from[512], to[512];
    empty_work();
    snprintf(from, sizeof from, SOURCE "%s", name);
    DIR *dir = opendir(from);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] != '.') {
            snprintf(from, sizeof from, SOURCE "%s/%s", name, entry->d_name);
            snprintf(to, sizeof to, "%s/%s", work, entry->d_name);
            size_t size;
            char *data = read_file(from, &size);
            write_file(to, data, size);
            free(data);
        }
    }
    closedir(dir);
}

/* What is done to one file. */
struct change {
    const char *file;
    const char *find, *put; /* replace the first `find`; NULL: the whole content becomes `put` */
    bool remove;
    long cut; /* > 0: keep so many bytes; < 0: drop so many at the end */
};

static void apply(const struct change *c) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", work, c->file);
    if (c->remove) {
        assert_int_equal(unlink(path), 0);
        return;
    }
    if (!c->find && !c->cut) {
        write_file(path, c->put, strlen(c->put));
        return;
    }
    size_t size;
    char *data = read_file(path, &size);
    if (c->cut) {
        write_file(path, data, c->cut > 0 ? (size_t)c->cut : size - (size_t)-c->cut);
    } else {
        char *at = memmem(data, size, c->find, strlen(c->find));
        if (!at) {
            fail_msg("%s has no \"%s\"", c->file, c->find);
        }
        const size_t before = (size_t)(at - data), n = strlen(c->find), m = strlen(c->put);
        char *changed = malloc(size + m + 1);
        assert_non_null(changed);
        memcpy(changed, data, before);
        memcpy(changed + before, c->put, m);
        memcpy(changed + before + m, at + n, size - before - n);
        write_file(path, changed, size - n + m);
        free(changed);
    }
    free(data);
}

#define CONFIG    "config.json"
#define WEIGHTS   "model.safetensors"
#define TOKENIZER "tokenizer.json"
#define FORMAT    CANDID_ERROR_FORMAT
#define OTHER     CANDID_ERROR_UNSUPPORTED
#define IO        CANDID_ERROR_IO

#define REPLACE(name, a, b)                                                                                            \
    { .file = (name), .find = (a), .put = (b) }
#define REMOVE(name)                                                                                                   \
    { .file = (name), .remove = true }
#define CUT(name, n)                                                                                                   \
    { .file = (name), .cut = (n) }
#define CONTENT(name, text)                                                                                            \
    { .file = (name), .put = (text) }

static const struct {
    const char *what, *model;
    struct change change;
    candid_status status;
    const char *needles[3];
} cases[] = {
    /* config.json */
    {"no config", "llava15_mha", REMOVE(CONFIG), IO, {"config.json", "cannot be opened"}},
    {"empty config", "llava15_mha", CONTENT(CONFIG, ""), FORMAT, {"config.json", "found an empty one"}},
    {"cut config", "llava15_mha", CUT(CONFIG, 100), FORMAT, {"config.json", "valid JSON", "near byte"}},
    {"array", "llava15_mha", CONTENT(CONFIG, "[1]"), FORMAT, {"a JSON object", "found an array"}},
    {"text after", "llava15_mha", CONTENT(CONFIG, "{} x"), FORMAT, {"valid JSON", "near byte 3 of 4"}},
    {"no type", "llava15_mha", CONTENT(CONFIG, "{}"), OTHER, {"model_type", "found null"}},
    {"other type",
     "llava15_mha",
     REPLACE(CONFIG, "\"llava\"", "\"qwen2_vl\""),
     OTHER,
     {"model_type", "llava", "\"qwen2_vl\""}},
    {"other text",
     "llava15_mha",
     REPLACE(CONFIG, "\"llama\"", "\"gemma\""),
     OTHER,
     {"text_config.model_type", "\"gemma\""}},
    {"quantised",
     "llava15_mha",
     REPLACE(CONFIG, "\"dtype\"", "\"quantization_config\": {\"quant_method\": \"awq\"}, \"dtype\""),
     OTHER,
     {"quantization_config", "F32, F16 or BF16", "an object"}},
    {"heads",
     "llava15_mha",
     REPLACE(CONFIG, "\"num_attention_heads\": 4", "\"num_attention_heads\": \"4\""),
     FORMAT,
     {"text_config.num_attention_heads", "an integer from 1", "string \"4\""}},
    {"negative width",
     "llava15_mha",
     REPLACE(CONFIG, "\"hidden_size\": 64", "\"hidden_size\": -64"),
     FORMAT,
     {"text_config.hidden_size", "found number -64"}},
    {"fractional",
     "llava15_mha",
     REPLACE(CONFIG, "\"hidden_size\": 64", "\"hidden_size\": 64.5"),
     FORMAT,
     {"text_config.hidden_size", "found number 64.5"}},
    {"wrong width",
     "llava15_mha",
     REPLACE(CONFIG, "\"hidden_size\": 64", "\"hidden_size\": 128"),
     FORMAT,
     {"tensor language_model.model.embed_tokens.weight", "[128, any]", "[64, 432]"}},
    {"deeper",
     "llava15_mha",
     REPLACE(CONFIG, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"),
     FORMAT,
     {"language_model.model.layers.2.input_layernorm.weight", "found none of this name"}},
    {"shallower",
     "llava15_mha",
     REPLACE(CONFIG, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"),
     OTHER,
     {"language_model.model.layers.1.", "besides"}},
    {"activation",
     "llava15_mha",
     REPLACE(CONFIG, "\"silu\"", "\"relu\""),
     OTHER,
     {"text_config.hidden_act", "\"relu\""}},
    {"bias",
     "llava15_mha",
     REPLACE(CONFIG, "\"attention_bias\": false", "\"attention_bias\": true"),
     OTHER,
     {"text_config.attention_bias", "expected false"}},
    {"rope",
     "llava15_mha",
     REPLACE(CONFIG, "\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4}"),
     OTHER,
     {"text_config.", "rope_type", "\"yarn\""}},
    {"vision activation",
     "llava15_mha",
     REPLACE(CONFIG, "\"quick_gelu\"", "\"gelu_new\""),
     OTHER,
     {"vision_config.hidden_act", "\"gelu_new\""}},
    {"select strategy",
     "llava15_mha",
     REPLACE(CONFIG, "\"default\"", "\"full\""),
     OTHER,
     {"vision_feature_select_strategy", "\"default\"", "\"full\""}},
    {"feature layers",
     "llava15_mha",
     REPLACE(CONFIG, "\"vision_feature_layer\": -2", "\"vision_feature_layer\": [-2, -5]"),
     OTHER,
     {"vision_feature_layer", "one feature layer", "an array"}},
    {"deep feature",
     "llava15_mha",
     REPLACE(CONFIG, "\"vision_feature_layer\": -2", "\"vision_feature_layer\": 9"),
     FORMAT,
     {"clip.vision.feature_layer", "from -4 to 3"}},
    {"pinpoints",
     "next_vicuna",
     REPLACE(CONFIG, "\"image_grid_pinpoints\": [", "\"image_grid_pinpoints\": [[1, 2, 3],"),
     OTHER,
     {"image_grid_pinpoints", "pairs"}},
    {"crooked pinpoint",
     "next_vicuna",
     REPLACE(CONFIG, "\"image_grid_pinpoints\": [", "\"image_grid_pinpoints\": [[56, 57],"),
     OTHER,
     {"image_grid_pinpoints", "multiples of the image size 56"}},
    /* preprocessor_config.json */
    {"bilinear",
     "llava15_mha",
     REPLACE("preprocessor_config.json", "\"resample\": 3", "\"resample\": 2"),
     OTHER,
     {"resample", "3 (bicubic)", "found number 2"}},
    {"crop size",
     "llava15_mha",
     REPLACE("preprocessor_config.json", "\"height\": 56", "\"height\": 57"),
     OTHER,
     {"crop_size", "image size of the encoder"}},
    {"two means",
     "llava15_mha",
     REPLACE("preprocessor_config.json", "0.48145466,", ""),
     OTHER,
     {"image_mean", "three numbers"}},
    /* weights */
    {"no weights", "llava15_mha", REMOVE(WEIGHTS), IO, {"model.safetensors", "found neither"}},
    {"empty weights", "llava15_mha", CONTENT(WEIGHTS, ""), FORMAT, {"model.safetensors", "only 0 bytes"}},
    {"text as weights",
     "llava15_mha",
     CONTENT(WEIGHTS, "This is no model at all."),
     FORMAT,
     {"model.safetensors", "header length"}},
    {"cut header", "llava15_mha", CUT(WEIGHTS, 200), FORMAT, {"truncated", "the header needs"}},
    {"cut data", "llava15_mha", CUT(WEIGHTS, -1000), FORMAT, {"truncated", "expected data up to byte"}},
    {"cut by one", "llava15_mha", CUT(WEIGHTS, -1), FORMAT, {"truncated"}},
    {"type lie",
     "llava15_mha",
     REPLACE(WEIGHTS, "\"F32\"", "\"F16\""),
     FORMAT,
     {"tensor ", "bytes for its shape and dtype F16"}},
    {"integers",
     "llava15_mha",
     REPLACE(WEIGHTS, "\"F32\"", "\"I32\""),
     OTHER,
     {"expected F32, F16 or BF16, found I32"}},
    {"unknown type", "llava15_mha", REPLACE(WEIGHTS, "\"F32\"", "\"Q32\""), OTHER, {"dtype", "string \"Q32\""}},
    {"renamed",
     "llava15_mha",
     REPLACE(WEIGHTS, "mlp.gate_proj", "mlp.gote_proj"),
     FORMAT,
     {"mlp.gate_proj.weight", "found none of this name"}},
    {"no shard",
     "llava15_gqa",
     REMOVE("model-00002-of-00003.safetensors"),
     IO,
     {"model-00002-of-00003.safetensors", "cannot be opened"}},
    {"outside shard",
     "llava15_gqa",
     REPLACE("model.safetensors.index.json", "model-00001-of-00003.safetensors", "../../../etc/passwd"),
     FORMAT,
     {"weight_map.", "a file in the directory", "../../../etc/passwd"}},
    {"missing tensor",
     "llava15_gqa",
     REPLACE("model.safetensors.index.json", "lm_head.weight", "lm_head.wright"),
     FORMAT,
     {"lm_head.wright", "found none of this name"}},
    {"empty index",
     "llava15_gqa",
     CONTENT("model.safetensors.index.json", "{\"weight_map\": {}}"),
     FORMAT,
     {"weight_map", "found none"}},
    /* tokenizer */
    {"no tokenizer", "llava15_gqa", REMOVE(TOKENIZER), IO, {"tokenizer.json or tokenizer.model", "neither"}},
    {"byte level",
     "llava15_gqa",
     REPLACE(TOKENIZER, "\"Metaspace\"", "\"ByteLevel\""),
     OTHER,
     {"tokenizer.json", "byte-level"}},
    {"normaliser",
     "llava15_mha",
     REPLACE(TOKENIZER, "\"Prepend\"", "\"Lowercase\""),
     OTHER,
     {"tokenizer.json", "normaliser"}},
    {"unigram",
     "llava15_mha",
     REPLACE(TOKENIZER, "\"BPE\"", "\"Unigram\""),
     OTHER,
     {"tokenizer.json", "another model type"}},
    {"merge",
     "llava15_mha",
     REPLACE(TOKENIZER, "\"merges\": [", "\"merges\": [[\"qq\", \"zz\"],"),
     FORMAT,
     {"model.merges", "third one", "at 0"}},
    {"id", "llava15_mha", REPLACE(TOKENIZER, "\"<s>\": 1,", "\"<s>\": -1,"), FORMAT, {"model.vocab.<s>", "an id"}},
    {"huge id", "llava15_mha", REPLACE(TOKENIZER, "\"<s>\": 1,", "\"<s>\": 99999999,"), FORMAT, {"token ids from 0"}},
    {"more tokens than rows",
     "llava15_mha",
     REPLACE(TOKENIZER, "\"<s>\": 1,", "\"<s>\": 5000,"),
     FORMAT,
     {"at most 432 tokens", "found 5001"}},
    {"lstrip",
     "llava15_mha",
     REPLACE(TOKENIZER, "\"lstrip\": false", "\"lstrip\": true"),
     OTHER,
     {"added token", "lstrip"}},
    {"cut model", "llava15_tied", CUT("tokenizer.model", 1000), FORMAT, {"tokenizer.model", "malformed"}},
    {"no model", "llava15_tied", CONTENT("tokenizer.model", ""), FORMAT, {"tokenizer.model", "no pieces"}},
    {"text as model", "llava15_tied", CONTENT("tokenizer.model", "hello"), FORMAT, {"tokenizer.model", "malformed"}},
    {"three ends",
     "llava15_mha",
     CONTENT("generation_config.json", "{\"eos_token_id\": [1, 2, 3]}"),
     OTHER,
     {"eos_token_id", "one or two"}},
};

static void refuses_bad_directories(void **state) {
    (void)state;
    int n_wrong = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        copy_model(cases[i].model);
        apply(&cases[i].change);
        candid_model *model = NULL;
        candid_error error = {CANDID_OK, ""};
        const candid_status status = candid_model_open(work, NULL, &model, &error);
        bool good = status == cases[i].status && error.status == status && strstr(error.message, work) && !model &&
                    !strchr(error.message, '\n');
        for (int n = 0; n < 3 && cases[i].needles[n]; n++) {
            good = good && strstr(error.message, cases[i].needles[n]);
        }
        if (!good) {
            print_message("%s: status %d, \"%s\"\n", cases[i].what, (int)status, error.message);
            n_wrong++;
        }
    }
    assert_int_equal(n_wrong, 0);
}

/* Every truncation of a small file, and every byte of its header set to something else: never a crash, and what is
 * accepted is what the reader promises. */
static void survives_damaged_safetensors(void **state) {
    (void)state;
    static const char header[] = "{\"b\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[0,12]},"
                                 "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[12,16]},"
                                 "\"__metadata__\":{\"format\":\"pt\"}}";
    uint8_t file[sizeof header + 64] = {0};
    const uint64_t n = sizeof header - 1;
    memcpy(file, &n, 8);
    memcpy(file + 8, header, n);
    const size_t size = 8 + n + 16;
    struct safetensors *s = NULL;
    assert_int_equal(safetensors_open_memory(file, size, "x", &s, NULL), CANDID_OK);
    assert_int_equal(safetensors_count(s), 2);
    assert_string_equal(safetensors_at(s, 0)->name, "a");
    assert_int_equal(safetensors_find(s, "b")->shape[1], 3);
    assert_null(safetensors_find(s, "c"));
    assert_ptr_equal(safetensors_find(s, "a")->data, file + 8 + n + 12);
    safetensors_close(s);
    for (size_t cut = 0; cut < size; cut++) {
        uint8_t *copy = malloc(cut + 1); /* on the heap, so that the sanitizer sees reads beyond */
        assert_non_null(copy);
        memcpy(copy, file, cut);
        candid_error error = {CANDID_OK, ""};
        assert_int_not_equal(safetensors_open_memory(copy, cut, "x", &s, &error), CANDID_OK);
        assert_true(strncmp(error.message, "x: ", 3) == 0);
        free(copy);
    }
    for (size_t at = 0; at < 8 + n; at++) {
        for (int v = 0; v < 256; v++) {
            uint8_t *copy = malloc(size);
            assert_non_null(copy);
            memcpy(copy, file, size);
            copy[at] = (uint8_t)v;
            if (safetensors_open_memory(copy, size, "x", &s, NULL) == CANDID_OK) {
                size_t bytes = 0;
                for (size_t i = 0; i < safetensors_count(s); i++) {
                    const struct safetensors_tensor *t = safetensors_at(s, i);
                    assert_true(t->data >= copy && t->data + t->size <= copy + size);
                    bytes += t->size;
                }
                assert_true(bytes <= 16);
                safetensors_close(s);
            }
            free(copy);
        }
    }
}

/* Data need not be aligned: a header of odd length moves everything. */
static void reads_unaligned_weights(void **state) {
    (void)state;
    copy_model("llava15_mha");
    char path[512];
    snprintf(path, sizeof path, "%s/" WEIGHTS, work);
    size_t size;
    char *data = read_file(path, &size), *moved = malloc(size + 1);
    assert_non_null(moved);
    uint64_t header;
    memcpy(&header, data, 8);
    header++;
    memcpy(moved, &header, 8);
    memcpy(moved + 8, data + 8, header - 1);
    moved[8 + header - 1] = ' ';
    memcpy(moved + 8 + header, data + 8 + header - 1, size - 8 - (header - 1));
    write_file(path, moved, size + 1);
    free(data);
    free(moved);

    candid_model_params params = candid_model_params_default();
    params.precision = CANDID_PRECISION_EXACT;
    uint32_t fingerprint[2];
    const char *const directories[2] = {work, SOURCE "llava15_mha"};
    for (int i = 0; i < 2; i++) {
        candid_model *model = NULL;
        candid_context *context = NULL;
        candid_image *image = NULL;
        const candid_result *result = NULL;
        assert_int_equal(candid_model_open(directories[i], &params, &model, NULL), CANDID_OK);
        assert_int_equal(candid_context_create(model, NULL, &context, NULL), CANDID_OK);
        assert_int_equal(candid_image_load(SOURCE "images/wide.png", &image, NULL), CANDID_OK);
        candid_generate_params g = candid_generate_params_default();
        g.max_new_tokens = 4;
        assert_int_equal(candid_generate(context, (const candid_image *const *)&image, 1, "What?", &g, &result, NULL),
                         CANDID_OK);
        fingerprint[i] = result->stats.fingerprint;
        candid_result_free(result);
        candid_image_free(image);
        candid_context_free(context);
        candid_model_free(model);
    }
    assert_int_equal(fingerprint[0], fingerprint[1]);
}

static void asks_for_the_image_encoder(void **state) {
    (void)state;
    candid_model *model = NULL;
    candid_error error;
    assert_int_equal(candid_model_open(SOURCE "liuhaotian", NULL, &model, &error), FORMAT);
    assert_non_null(strstr(error.message, "--mmproj"));
    candid_model_params params = candid_model_params_default();
    params.mmproj_path = SOURCE "nothing";
    assert_int_equal(candid_model_open(SOURCE "liuhaotian", &params, &model, &error), IO);
    assert_non_null(strstr(error.message, "expected the directory of a CLIP model, found nothing"));
    params.mmproj_path = SOURCE "cases.json";
    assert_int_equal(candid_model_open(SOURCE "liuhaotian", &params, &model, &error), IO);
    params.mmproj_path = SOURCE "liuhaotian_clip";
    assert_int_equal(candid_model_open(SOURCE "llava15_mha", &params, &model, &error), CANDID_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "its own image encoder"));
    assert_int_equal(candid_model_open(SOURCE "liuhaotian_clip", NULL, &model, &error), OTHER);
    assert_non_null(strstr(error.message, "found an image encoder"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_bad_directories),
        cmocka_unit_test(survives_damaged_safetensors),
        cmocka_unit_test(reads_unaligned_weights),
        cmocka_unit_test(asks_for_the_image_encoder),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
