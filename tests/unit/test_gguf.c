/*
 * GGUF reader: good files are read back value by value; keys of another kind or out of range give their sentence;
 * values are described in words. Malformed files: test_gguf_broken.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "../support/every_kind.h"
#include "model/gguf.h"

/* ---- a good file ---- */

static void check_good(const struct gguf *g) {
    candid_error error = {0};
    int64_t i = 0;
    float f = 0;
    bool b = false;
    const char *s = NULL;
    assert_int_equal(gguf_key_count(g), 17);
    assert_string_equal(gguf_key_at(g, 0), "t.u8");
    assert_null(gguf_key_at(g, 17));
    const struct {
        const char *key;
        int64_t value;
    } integers[] = {{"t.u8", 200}, {"t.i8", -8},         {"t.u16", 65535},     {"t.i16", -300},
                    {"t.i32", -5}, {"t.i64", INT64_MIN}, {"t.u32", 4000000000}};
    for (size_t k = 0; k < sizeof integers / sizeof *integers; k++) {
        assert_int_equal(gguf_require_i64(g, integers[k].key, INT64_MIN, INT64_MAX, &i, &error), CANDID_OK);
        assert_true(i == integers[k].value);
    }
    assert_int_equal(gguf_get_f32(g, "t.f32", &f, &error), CANDID_OK);
    assert_true(f == 1e-5f);
    assert_int_equal(gguf_get_f32(g, "t.f64", &f, &error), CANDID_OK);
    assert_true(f == 0.25f);
    assert_int_equal(gguf_get_f32(g, "t.i32", &f, &error), CANDID_OK); /* integers do for floats */
    assert_true(f == -5.0f);
    assert_int_equal(gguf_get_bool(g, "t.bool", &b, &error), CANDID_OK);
    assert_true(b);
    assert_int_equal(gguf_get_string(g, "t.string", &s, &error), CANDID_OK);
    assert_string_equal(s, "caf\u00e9");
    assert_true(gguf_has_key(g, "t.string"));
    assert_false(gguf_has_key(g, "t.strin"));

    enum gguf_value_type type = GGUF_U8;
    size_t count = 0, size = 0;
    assert_int_equal(gguf_get_array(g, "t.strings", &type, &count, &error), CANDID_OK);
    assert_int_equal(type, GGUF_STRING);
    assert_int_equal(count, 3);
    gguf_array_string(g, "t.strings", 0, &size);
    assert_int_equal(size, 0);
    const char *the = gguf_array_string(g, "t.strings", 2, &size);
    assert_int_equal(size, strlen("\u2581the"));
    assert_memory_equal(the, "\u2581the", size);
    assert_int_equal(gguf_get_array(g, "t.floats", &type, &count, &error), CANDID_OK);
    assert_int_equal(type, GGUF_F32);
    assert_int_equal(count, 2);
    assert_true(gguf_array_f32(g, "t.floats", 1) == -1.0f);
    assert_int_equal(gguf_array_i64(g, "t.ints", 1), -7);
    assert_true(gguf_array_f32(g, "t.ints", 1) == -7.0f);
    assert_int_equal(gguf_array_i64(g, "t.bools", 1), 1);
    assert_int_equal(gguf_get_array(g, "t.empty", &type, &count, &error), CANDID_OK);
    assert_int_equal(count, 0);
    count = 5;
    assert_int_equal(gguf_get_array(g, "absent", &type, &count, &error), CANDID_OK);
    assert_int_equal(count, 0);

    assert_int_equal(gguf_tensor_count(g), 4);
    assert_null(gguf_find_tensor(g, "e"));
    assert_null(gguf_tensor_at(g, 4));
    const struct tensor *a = gguf_find_tensor(g, "a"), *q = gguf_find_tensor(g, "b"), *d = gguf_find_tensor(g, "d");
    assert_ptr_equal(a, gguf_tensor_at(g, 0));
    assert_string_equal(a->name, "a");
    assert_int_equal(a->type, TYPE_F32);
    assert_int_equal(a->n_dims, 2);
    assert_memory_equal(a->ne, ((const int64_t[]){4, 2, 1, 1}), sizeof a->ne);
    assert_int_equal(a->size, 32);
    assert_memory_equal(a->data, f32_data, 32);
    assert_int_equal(q->size, 68);
    assert_memory_equal(q->data, q8_data, 68);
    assert_int_equal((uintptr_t)q->data % 32, 0);
    assert_int_equal(gguf_find_tensor(g, "c")->size, 144);
    assert_memory_equal(d->ne, ((const int64_t[]){1, 2, 1, 3}), sizeof d->ne);
    assert_memory_equal(d->data, f32_data, 12);
}

static void reads_a_good_file(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof q8_data; i++) {
        q8_data[i] = (uint8_t)(3 * i);
    }
    for (int variant = 0; variant < 4; variant++) {
        struct gguf_writer *w = gw_open("good.gguf");
        w->version = variant == 1 ? 2 : 3;
        w->pad_last = variant != 2; /* the last tensor may lack its padding */
        add_one_of_each(w);
        add_tensors(w);
        struct gguf *g = NULL;
        candid_error error = {0};
        if (variant < 3) {
            assert_int_equal(gw_close(w), 0);
            assert_int_equal(gguf_open("good.gguf", &g, &error), CANDID_OK);
            assert_string_equal(gguf_path(g), "good.gguf");
            struct stat st;
            assert_int_equal(stat("good.gguf", &st), 0);
            assert_int_equal(gguf_file_size(g), st.st_size);
            assert_int_equal(gguf_version(g), variant == 1 ? 2 : 3);
            check_good(g);
            gguf_close(g);
        } else {
            size_t size;
            uint8_t *bytes = gw_take(w, &size);
            assert_int_equal(gguf_open_memory(bytes, size, "good", &g, &error), CANDID_OK);
            check_good(g);
            gguf_close(g);
            free(bytes);
        }
    }
    assert_int_equal(remove("good.gguf"), 0);
    gguf_close(NULL);
}

static void other_alignments(void **state) {
    (void)state;
    const uint32_t alignments[] = {8, 16, 32, 64, 4096};
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        struct gguf_writer *w = gw_open(NULL);
        w->alignment = alignments[i];
        gw_u32(w, "general.alignment", alignments[i]);
        add_tensors(w);
        size_t size;
        uint8_t *bytes = gw_take(w, &size);
        struct gguf *g = NULL;
        assert_int_equal(gguf_open_memory(bytes, size, "x", &g, NULL), CANDID_OK);
        assert_int_equal(((const uint8_t *)gguf_find_tensor(g, "b")->data - bytes) % alignments[i], 0);
        assert_memory_equal(gguf_find_tensor(g, "d")->data, f32_data, 12);
        gguf_close(g);
        free(bytes);
    }
}

static void no_tensors_need_no_data(void **state) {
    (void)state;
    struct gguf_writer *w = gw_open(NULL);
    gw_u32(w, "k", 1);
    size_t size;
    uint8_t *bytes = gw_take(w, &size);
    struct gguf *g = NULL;
    assert_int_equal(gguf_open_memory(bytes, 24 + 8 + 1 + 4 + 4, "x", &g, NULL), CANDID_OK);
    assert_int_equal(gguf_tensor_count(g), 0);
    assert_null(gguf_find_tensor(g, "a"));
    gguf_close(g);
    memset(bytes + 8, 0, 16); /* nor keys */
    assert_int_equal(gguf_open_memory(bytes, 24, "x", &g, NULL), CANDID_OK);
    assert_false(gguf_has_key(g, "k"));
    gguf_close(g);
    free(bytes);
}

/* ---- typed access ---- */

static struct gguf *open_scalars(uint8_t **bytes) {
    struct gguf_writer *w = gw_open(NULL);
    add_one_of_each(w);
    gw_raw(w, "t.nul", 8, "\3\0\0\0\0\0\0\0a\0b", 11);
    gw_raw(w, "t.huge", 12, &(const double){1e300}, 8);
    gw_str(w, "t.lines", "one\ntwo\xff");
    size_t size;
    *bytes = gw_take(w, &size);
    struct gguf *g = NULL;
    assert_int_equal(gguf_open_memory(*bytes, size, "scalars.gguf", &g, NULL), CANDID_OK);
    return g;
}

static void assert_message(const candid_error *error, const char *key, const char *expected, const char *found) {
    if (error->status != CANDID_ERROR_FORMAT || !strstr(error->message, "scalars.gguf") ||
        !strstr(error->message, key) || !strstr(error->message, expected) || !strstr(error->message, found)) {
        fail_msg("unexpected message \"%s\"", error->message);
    }
}

static void wrong_kinds_and_ranges(void **state) {
    (void)state;
    uint8_t *bytes;
    struct gguf *g = open_scalars(&bytes);
    int64_t i = 42;
    float f = 42;
    bool b = true;
    const char *s = "default";
    candid_error e = {0};
    /* absent: the default stays */
    assert_int_equal(gguf_get_i64(g, "no", 0, 1, &i, &e), CANDID_OK);
    assert_int_equal(gguf_get_f32(g, "no", &f, &e), CANDID_OK);
    assert_int_equal(gguf_get_bool(g, "no", &b, &e), CANDID_OK);
    assert_int_equal(gguf_get_string(g, "no", &s, &e), CANDID_OK);
    assert_true(i == 42 && f == 42 && b && strcmp(s, "default") == 0 && e.status == CANDID_OK);
    assert_int_equal(gguf_require_i64(g, "no.key", 1, 9, &i, &e), CANDID_ERROR_FORMAT);
    assert_message(&e, "key no.key", "an integer from 1 to 9", "no such key");
    /* kinds */
    assert_int_equal(gguf_get_i64(g, "t.f32", 0, 9, &i, &e), CANDID_ERROR_FORMAT);
    assert_message(&e, "key t.f32", "an integer from 0 to 9", "found f32 1e-05");
    assert_int_equal(gguf_get_i64(g, "t.bool", 0, 9, &i, &e), CANDID_ERROR_FORMAT);
    assert_message(&e, "key t.bool", "an integer", "found bool true");
    assert_int_equal(gguf_get_f32(g, "t.string", &f, &e), CANDID_ERROR_FORMAT);
    assert_message(&e, "key t.string", "a number", "found string \"caf\u00e9\"");
    assert_int_equal(gguf_get_bool(g, "t.u8", &b, &e), CANDID_ERROR_FORMAT);
    assert_message(&e, "key t.u8", "a bool", "found u8 200");
    assert_int_equal(gguf_get_string(g, "t.strings", &s, &e), CANDID_ERROR_FORMAT);
    assert_message(&e, "key t.strings", "a string", "found array of 3 string");
    assert_int_equal(gguf_get_string(g, "t.nul", &s, &e), CANDID_ERROR_FORMAT);
    assert_message(&e, "key t.nul", "without NUL", "found string \"a?b\"");
    enum gguf_value_type type = GGUF_U8;
    size_t count = 0;
    assert_int_equal(gguf_get_array(g, "t.i16", &type, &count, &e), CANDID_ERROR_FORMAT);
    assert_message(&e, "key t.i16", "an array", "found i16 -300");
    /* ranges */
    assert_int_equal(gguf_get_i64(g, "t.i32", -4, 9, &i, &e), CANDID_ERROR_FORMAT);
    assert_message(&e, "key t.i32", "from -4 to 9", "found i32 -5");
    assert_int_equal(gguf_get_i64(g, "t.u8", 0, 199, &i, &e), CANDID_ERROR_FORMAT);
    assert_int_equal(gguf_get_i64(g, "t.u64", INT64_MIN, INT64_MAX, &i, &e), CANDID_ERROR_FORMAT);
    assert_message(&e, "key t.u64", "an integer", "found u64 18446744073709551615");
    assert_true(i == 42 && f == 42);
    assert_int_equal(gguf_get_f32(g, "t.huge", &f, &e), CANDID_OK); /* infinity: for the caller to judge */
    assert_true(f > 3e38f);
    gguf_close(g);
    free(bytes);
}

static void describes_values(void **state) {
    (void)state;
    uint8_t *bytes;
    struct gguf *g = open_scalars(&bytes);
    const char *expected[] = {"u8 200",
                              "i8 -8",
                              "u16 65535",
                              "i16 -300",
                              "u32 4000000000",
                              "i32 -5",
                              "f32 1e-05",
                              "bool true",
                              "string \"caf\u00e9\"",
                              "u64 18446744073709551615",
                              "i64 -9223372036854775808",
                              "f64 0.25",
                              "array of 3 string",
                              "array of 2 f32",
                              "array of 3 i32",
                              "array of 2 bool",
                              "array of 0 string",
                              "string \"a?b\"",
                              "f64 1e+300",
                              "string \"one?two?\""};
    char words[64];
    for (size_t i = 0; i < gguf_key_count(g); i++) {
        gguf_describe_value(g, i, words, sizeof words);
        assert_string_equal(words, expected[i]);
    }
    gguf_describe_value(g, 12, words, 12);
    assert_string_equal(words, "array of\u2026"); /* 8 + 3 bytes */
    gguf_describe_value(g, 8, words, sizeof "string \"caf\u00e9");
    assert_string_equal(words, "string \"ca\u2026"); /* not in the middle of a character */
    gguf_describe_value(g, 12, words, 1);
    assert_string_equal(words, "");
    gguf_describe_value(g, 99, words, sizeof words);
    assert_string_equal(words, "");
    gguf_close(g);
    free(bytes);
}

/* A hundred thousand keys whose names differ at the end only: sorted, not compared pair by pair. */
static void many_similar_keys(void **state) {
    (void)state;
    struct gguf_writer *w = gw_open(NULL);
    char key[64];
    for (uint32_t i = 0; i < 100000; i++) {
        snprintf(key, sizeof key, "a.rather.long.common.prefix.%06u", (i * 7919u) % 100000u);
        gw_u32(w, key, i);
    }
    size_t size;
    uint8_t *bytes = gw_take(w, &size);
    struct gguf *g = NULL;
    assert_int_equal(gguf_open_memory(bytes, size, "many", &g, NULL), CANDID_OK);
    int64_t value = 0;
    assert_int_equal(gguf_require_i64(g, "a.rather.long.common.prefix.007919", 0, 100000, &value, NULL), CANDID_OK);
    assert_int_equal(value, 1);
    gguf_close(g);
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_good_file),       cmocka_unit_test(other_alignments),
        cmocka_unit_test(no_tensors_need_no_data), cmocka_unit_test(wrong_kinds_and_ranges),
        cmocka_unit_test(describes_values),        cmocka_unit_test(many_similar_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
