/* Checksums, numbers and texts as Python has them, lists of JSON objects. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "eval/common/json_exact.h"
#include "eval/common/json_objects.h"
#include "eval/common/python_float.h"
#include "eval/common/python_text.h"
#include "eval/common/sha256.h"

static void checksums(void **state) {
    char hex[65];
    /* FIPS 180-4's examples */
    sha256_hex("", 0, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_hex("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, hex);
    assert_string_equal(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    struct sha256 h;
    sha256_begin(&h);
    for (int i = 0; i < 1000000; i += 37) { /* a million times 'a', in pieces that do not fit the blocks */
        static const char a[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        sha256_add(&h, a, (size_t)(1000000 - i < 37 ? 1000000 - i : 37));
    }
    sha256_end(&h, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    assert_int_equal(sha256_file("/nonexistent", hex, NULL), CANDID_ERROR_IO);
}

static void floats(void **state) {
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0, "0.0"},
                 {-0.0, "-0.0"},
                 {1, "1.0"},
                 {-2.5, "-2.5"},
                 {0.52, "0.52"},
                 {0.5199999999999999, "0.5199999999999999"},
                 {0.1 + 0.2, "0.30000000000000004"},
                 {963.6114445778312, "963.6114445778312"},
                 {0.0001, "0.0001"},
                 {0.00012345, "0.00012345"},
                 {0.00001, "1e-05"},
                 {1.5e-7, "1.5e-07"},
                 {123456789012345680.0, "1.2345678901234568e+17"},
                 {1e16, "1e+16"},
                 {9999999999999998.0, "9999999999999998.0"},
                 {1e22, "1e+22"},
                 {5e-324, "5e-324"},
                 {1.7976931348623157e308, "1.7976931348623157e+308"},
                 {2.0 / 3, "0.6666666666666666"},
                 {100, "100.0"},
                 {NAN, "nan"},
                 {-INFINITY, "-inf"}};
    char buffer[PYTHON_FLOAT];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_string_equal(python_float(cases[i].value, buffer), cases[i].text);
    }
    assert_true(python_round1(0.25) == 0.2 && python_round1(0.35) == 0.3 && python_round1(0.45) == 0.5);
    assert_true(python_round1(99.95) == 100.0 && python_round1(-1.25) == -1.2);
}

static void spaces(void **state) {
    assert_int_equal(python_space(" x"), 1);
    assert_int_equal(python_space("\x1c"), 1);
    assert_int_equal(python_space("\xC2\x85"), 2);
    assert_int_equal(python_space("\u3000"), 3);
    assert_int_equal(python_space("\u200B"), 0); /* zero width: no space in Python */
    assert_int_equal(python_space("\xC2"), 0);
    assert_int_equal(python_space("\xE2\x80"), 0);
    assert_int_equal(python_space(""), 0);
    size_t n = strlen("\u00a0 a b\u2003\n");
    const char *text = python_strip("\u00a0 a b\u2003\n", &n);
    assert_int_equal(n, 3);
    assert_memory_equal(text, "a b", 3);
    n = 3;
    python_strip(" \t\n", &n);
    assert_int_equal(n, 0);
    n = 0;
    python_strip("", &n);
    assert_int_equal(n, 0);
    n = 3;
    text = python_strip("a\xA0\x85", &n); /* broken UTF-8 is no space */
    assert_int_equal(n, 3);
}

static void objects(void **state) {
    struct json_objects list;
    static const char pretty[] = "\xEF\xBB\xBF\n{\n \"a\": 1\n}\n{\"a\": 2}{\"a\": \"\\\\u0000\"}\r\n\n\n{}\n";
    assert_int_equal(json_objects_parse(pretty, sizeof pretty - 1, "x", &list, NULL), CANDID_OK);
    assert_int_equal(list.n, 4);
    assert_int_equal(list.lines[0], 2);
    assert_int_equal(list.lines[1], 5);
    assert_int_equal(list.lines[2], 5);
    assert_int_equal(list.lines[3], 8);
    candid_error error;
    assert_int_equal(json_objects_fail(&list, 3, &error, "no %s", "a"), CANDID_ERROR_FORMAT);
    assert_string_equal(error.message, "x:8: no a");
    json_objects_free(&list);
    static const char array[] = "[\n{},\n{}\n]";
    assert_int_equal(json_objects_parse(array, sizeof array - 1, "x", &list, NULL), CANDID_OK);
    assert_int_equal(list.n, 2);
    assert_int_equal(list.lines[1], 3);
    json_objects_free(&list);
    assert_int_equal(json_objects_parse("[]", 2, "x", &list, &error), CANDID_ERROR_FORMAT);
    assert_int_equal(json_objects_parse("{}\0{}", 5, "x", &list, &error), CANDID_ERROR_FORMAT);
    assert_int_equal(json_objects_parse("[{}", 3, "x", &list, &error), CANDID_ERROR_FORMAT);
    assert_int_equal(json_objects_parse("[{},", 4, "x", &list, &error), CANDID_ERROR_FORMAT);
    assert_int_equal(json_objects_read("/nonexistent", &list, &error), CANDID_ERROR_IO);
    char id[JSON_ID];
    cJSON *number = cJSON_CreateNumber(-12), *fraction = cJSON_CreateNumber(1e300), *text = cJSON_CreateString("x");
    assert_string_equal(json_id(number, id), "-12");
    assert_string_equal(json_id(fraction, id), "1e+300");
    assert_string_equal(json_id(text, id), "x");
    assert_null(json_id(NULL, id));
    cJSON_Delete(number);
    cJSON_Delete(fraction);
    cJSON_Delete(text);
}

static void exact_json(void **state) {
    cJSON *list = cJSON_CreateArray();
    static const double values[] = {0.1 + 0.2, 0.5199999999999999, 3, -7, 1e300, 4294967297.0, NAN, 0.5};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        cJSON *object = cJSON_CreateObject();
        cJSON_AddNumberToObject(object, "x", values[i]);
        cJSON_AddItemToArray(list, object);
    }
    char *text = json_print_exact(list, false);
    assert_string_equal(text, "[{\"x\":0.30000000000000004},{\"x\":0.5199999999999999},{\"x\":3},{\"x\":-7},"
                              "{\"x\":1e+300},{\"x\":4294967297.0},{\"x\":null},{\"x\":0.5}]");
    cJSON_free(text);
    assert_true(cJSON_IsNumber(cJSON_GetArrayItem(list, 0)->child)); /* the tree stays as it was */
    cJSON_Delete(list);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checksums), cmocka_unit_test(floats),     cmocka_unit_test(spaces),
        cmocka_unit_test(objects),   cmocka_unit_test(exact_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
