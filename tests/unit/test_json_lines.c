/* Lines of items in JSON text, and names that resemble each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/json_lines.h"
#include "core/nearest.h"

static int line(const char *text, int depth, int a, int b, int c) {
    return json_line_of(text, strlen(text), (const int[]){a, b, c}, depth);
}

static void offsets(void **state) {
    static const char text[] = "ab\ncd\r\n\nx\n";
    const size_t n = sizeof text - 1;
    assert_int_equal(json_line_at(text, n, 0), 1);
    assert_int_equal(json_line_at(text, n, 2), 1); /* the line break itself */
    assert_int_equal(json_line_at(text, n, 3), 2);
    assert_int_equal(json_line_at(text, n, 7), 3);
    assert_int_equal(json_line_at(text, n, 8), 4);
    assert_int_equal(json_line_at(text, n, 10), 4); /* no line begins behind the last break */
    assert_int_equal(json_line_at(text, n, 1000), 4);
    assert_int_equal(json_line_at("", 0, 0), 1);
}

static void items(void **state) {
    static const char text[] = "\n{\n"
                               "  \"a\": 1,\n"                               /* 3 */
                               "  \"b{,\\\"\\\\\": {\"x\": [],\n"            /* 4 */
                               "     \"y\"\n:\n[1, {\"k\": \"]\"},\n3\n],\n" /* 5 to 8 */
                               "\"z\": null},\n"                             /* 9, after "]," */
                               "  \"a\": \"again\"\n"
                               "}\n";
    assert_int_equal(line(text, 0, 0, 0, 0), 2);
    assert_int_equal(line(text, 1, 0, 0, 0), 3);
    assert_int_equal(line(text, 1, 1, 0, 0), 4);
    assert_int_equal(line(text, 2, 1, 0, 0), 4);
    assert_int_equal(line(text, 2, 1, 1, 0), 5);
    assert_int_equal(line(text, 3, 1, 1, 0), 7);
    assert_int_equal(line(text, 3, 1, 1, 1), 7);
    assert_int_equal(line(text, 3, 1, 1, 2), 8);
    assert_int_equal(line(text, 2, 1, 2, 0), 10);
    assert_int_equal(line(text, 1, 2, 0, 0), 11);
    assert_int_equal(line("\xEF\xBB\xBF{\n\"a\": 1}", 1, 0, 0, 0), 2);
}

/* Paths that lead nowhere and text that is no JSON end somewhere inside. */
static void nowhere(void **state) {
    static const char *const texts[] = {"",       "{",       "[",        "{\"",   "{\"a",       "{\"a\\",
                                        "{\"a\"", "{\"a\":", "{\"a\":1", "[1,2,", "{\"a\":[[",  "]]]]}",
                                        "\"",     "1",       "{1:2}",    ",",     "{\"a\":\"\\"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        for (int a = 0; a < 4; a++) {
            assert_int_equal(line(texts[i], 3, a, 0, 0), 1);
        }
    }
    const int found = line("{\n\"a\": [1,\n2]\n}", 2, 0, 7, 0);
    assert_true(found >= 2 && found <= 4);
}

static const char *nearest(const char *word) {
    static const char *const names[] = {"rho", "tau", "layers", "renormalize", "preset", "p"};
    const char *best = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        best = nearest_name(word, best, names[i]);
    }
    return best;
}

static void names(void **state) {
    assert_string_equal(nearest("roh"), "rho");
    assert_string_equal(nearest("RHO"), "rho");
    assert_string_equal(nearest("rh"), "rho");
    assert_string_equal(nearest("taau"), "tau");
    assert_string_equal(nearest("layer"), "layers");
    assert_string_equal(nearest("lyaer"), "layers");
    assert_string_equal(nearest("renormalise"), "renormalize");
    assert_string_equal(nearest("re-normalized"), "renormalize");
    assert_null(nearest("x"));
    assert_null(nearest(""));
    assert_null(nearest("strength"));
    assert_null(nearest("gamma"));
    assert_null(nearest("a name that is far too long to be any option's name at all"));
    assert_string_equal(nearest_name("bat", "cat", "hat"), "cat"); /* of two as close, the first */
    assert_string_equal(nearest_name("ace", "axes", "ace"), "ace");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offsets),
        cmocka_unit_test(items),
        cmocka_unit_test(nowhere),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
