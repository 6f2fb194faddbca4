/* JSON read as a stream. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "eval/common/json_stream.h"

#define OK(call) assert_int_equal((call), CANDID_OK)

static struct json_stream over(const char *text) {
    struct json_stream s;
    json_stream_memory(text, strlen(text), "T", &s);
    return s;
}

static void members_and_items(void **state) {
    struct json_stream s = over("\xEF\xBB\xBF {\"a\" : [1, -2.50e2,{}, []] ,\n\"b\":{\"c\":\"d\"}}\n ");
    candid_error error;
    candid_status status;
    const char *key, *text;
    int64_t integer;
    double number;
    OK(json_enter(&s, '{', &error));
    assert_true(json_key(&s, &key, &status, &error));
    assert_string_equal(key, "a");
    OK(json_enter(&s, '[', &error));
    assert_true(json_item(&s, &status, &error));
    OK(json_integer(&s, &integer, &error));
    assert_true(integer == 1);
    assert_true(json_item(&s, &status, &error));
    OK(json_number(&s, &number, &error));
    assert_true(number == -250);
    assert_true(json_item(&s, &status, &error));
    assert_int_equal(json_peek(&s), '{');
    OK(json_enter(&s, '{', &error));
    assert_false(json_key(&s, &key, &status, &error));
    OK(status);
    assert_true(json_item(&s, &status, &error));
    OK(json_skip(&s, &error));
    assert_false(json_item(&s, &status, &error));
    OK(status);
    assert_true(json_key(&s, &key, &status, &error));
    OK(json_enter(&s, '{', &error));
    assert_true(json_key(&s, &key, &status, &error));
    OK(json_text(&s, &text, &error));
    assert_string_equal(text, "d");
    assert_false(json_key(&s, &key, &status, &error));
    assert_false(json_key(&s, &key, &status, &error));
    OK(status);
    OK(json_end(&s, &error));
    assert_int_equal(json_peek(&s), 0);
    json_stream_close(&s);
}

static void texts(void **state) {
    static const struct {
        const char *json, *text;
    } good[] = {
        {"\"\"", ""},
        {"\"a\\\"\\\\\\/\\b\\f\\n\\r\\tb\"", "a\"\\/\b\f\n\r\tb"},
        {"\"\\u00e9\\u20AC\"", "\xc3\xa9\xe2\x82\xac"},
        {"\"\\ud83d\\ude00!\"", "\xf0\x9f\x98\x80!"},
        {"\"\\ud83dx\"", "\xef\xbf\xbdx"},
        {"\"\\ud83d\\u0041\"", "\xef\xbf\xbd"
                               "A"},
        {"\"\\ude00\"", "\xef\xbf\xbd"},
    };
    static const char *const broken[] = {
        "", "x", "\"", "\"a", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\u0000\"", "\"a\nb\"", "1",
    };
    candid_error error;
    const char *text;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct json_stream s = over(good[i].json);
        OK(json_text(&s, &text, &error));
        assert_string_equal(text, good[i].text);
        OK(json_end(&s, &error));
        json_stream_close(&s);
    }
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct json_stream s = over(broken[i]);
        assert_int_equal(json_text(&s, &text, &error), CANDID_ERROR_FORMAT);
        json_stream_rewind(&s);
        assert_true(json_skip(&s, &error) != CANDID_OK || strcmp(broken[i], "1") == 0);
        json_stream_close(&s);
    }
    /* longer than the memory that a string starts with */
    static char long_text[5000];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[0] = long_text[sizeof long_text - 2] = '"';
    struct json_stream s = over(long_text);
    OK(json_text(&s, &text, &error));
    assert_int_equal(strlen(text), sizeof long_text - 3);
    json_stream_close(&s);
}

static void values(void **state) {
    static const char *const good[] = {"0",  "-0", "1e5",    "1.5E-3",       "true",        "false",  "null",
                                       "[]", "{}", "[[],1]", "{\"a\":[{}]}", " [ 1 , 2 ] ", "[true]", "\"x\""};
    static const char *const broken[] = {"",      "-",    "01",        "1.",      "1e",    ".5",    "+1",
                                         "tru",   "nulL", "[",         "[1",      "[1,",   "[1,]",  "[,1]",
                                         "[1 2]", "{",    "{\"a\"",    "{\"a\":", "{a:1}", "{1:2}", "{\"a\":1,}",
                                         "]",     "[1}",  "{\"a\":1]", "\"a\" 1", "NaN"};
    candid_error error;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct json_stream s = over(good[i]);
        OK(json_skip(&s, &error));
        OK(json_end(&s, &error));
    }
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        struct json_stream s = over(broken[i]);
        assert_true(json_skip(&s, &error) != CANDID_OK || json_end(&s, &error) != CANDID_OK);
        assert_memory_equal(error.message, "T:1 (byte ", 10);
    }
    char deep[200] = "";
    memset(deep, '[', 100);
    struct json_stream s = over(deep);
    assert_int_equal(json_skip(&s, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "64 brackets"));
}

static void integers(void **state) {
    static const char *const broken[] = {"1.5", "1e300", "9007199254740994", "\"1\"", "-"};
    candid_error error;
    int64_t value;
    struct json_stream s = over("42.0");
    OK(json_integer(&s, &value, &error));
    assert_true(value == 42);
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        s = over(broken[i]);
        assert_int_equal(json_integer(&s, &value, &error), CANDID_ERROR_FORMAT);
    }
    char digits[101];
    memset(digits, '1', 100);
    digits[100] = '\0';
    s = over(digits);
    assert_int_equal(json_integer(&s, &value, &error), CANDID_ERROR_FORMAT);
}

static void messages(void **state) {
    struct json_stream s = over("{\"a\":\n[1,\n\n x]}");
    candid_error error;
    assert_int_equal(json_skip(&s, &error), CANDID_ERROR_FORMAT);
    assert_string_equal(error.message, "T:4 (byte 12): expected a value, found \"x]}\"");
    s = over("{\"a\":1");
    assert_int_equal(json_skip(&s, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "expected ',' or '}', found the end of the file"));
    s = over("[1]");
    assert_int_equal(json_enter(&s, '{', &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "expected an object {…}, found \"[1]\""));
    assert_int_equal(json_stream_open("no/such/file", &s, &error), CANDID_ERROR_IO);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_and_items), cmocka_unit_test(texts),    cmocka_unit_test(values),
        cmocka_unit_test(integers),          cmocka_unit_test(messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
