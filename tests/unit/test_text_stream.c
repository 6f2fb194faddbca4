/* Streamed text: UTF-8 assembly, stop strings, cancelling; CRC-32. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "core/crc32.h"
#include "decode/text_stream.h"

struct sink {
    char text[256];
    int calls, limit;
};

static bool collect(void *user_data, const char *text, size_t size) {
    struct sink *sink = user_data;
    assert_int_equal(strlen(text), size);
    strcat(sink->text, text);
    return ++sink->calls != sink->limit;
}

static struct text_stream stream_to(struct sink *sink, const char *const *stop, size_t n_stop) {
    return (struct text_stream){.stop = stop, .n_stop = n_stop, .on_text = collect, .user_data = sink};
}

static void push(struct text_stream *s, const char *bytes) {
    assert_int_equal(text_stream_push(s, bytes, strlen(bytes), NULL), CANDID_OK);
}

static void characters_are_passed_on_whole(void **state) {
    (void)state;
    struct sink sink = {0};
    struct text_stream s = stream_to(&sink, NULL, 0);
    push(&s, " \n");
    push(&s, " caf\xc3");
    assert_string_equal(sink.text, "caf");
    push(&s, "\xa9 \xf0\x9f\x90");
    assert_string_equal(sink.text, "caf\xc3\xa9 ");
    push(&s, "\xb6");
    text_stream_finish(&s, NULL);
    assert_string_equal(sink.text, "caf\xc3\xa9 \xf0\x9f\x90\xb6");
    assert_string_equal(s.text, sink.text);
    text_stream_free(&s);
}

static void invalid_bytes_become_replacement_characters(void **state) {
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"a\xff"
         "b",
         "a\xef\xbf\xbd"
         "b"},
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},                 /* overlong */
        {"\xe0\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* overlong */
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* surrogate */
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xe2\x82", "\xef\xbf\xbd"}, /* cut short */
        {"\xe2\x82z", "\xef\xbf\xbdz"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text_stream s = {0};
        push(&s, cases[i].in);
        text_stream_finish(&s, NULL);
        assert_string_equal(s.text, cases[i].out);
        text_stream_free(&s);
    }
}

static void stop_strings_are_cut_and_never_shown(void **state) {
    (void)state;
    static const char *const stop[] = {"###", "</s>"};
    struct sink sink = {0};
    struct text_stream s = stream_to(&sink, stop, 2);
    push(&s, "one #");
    assert_string_equal(sink.text, "one "); /* "#" may begin a stop string */
    push(&s, "# two <");
    assert_string_equal(sink.text, "one ## two ");
    push(&s, "/s> three ###");
    assert_true(s.stopped);
    text_stream_finish(&s, NULL);
    assert_string_equal(sink.text, "one ## two ");
    assert_string_equal(s.text, "one ## two ");
    text_stream_free(&s);
}

static void an_unfinished_stop_string_is_shown_at_the_end(void **state) {
    (void)state;
    static const char *const stop[] = {"END"};
    struct sink sink = {0};
    struct text_stream s = stream_to(&sink, stop, 1);
    push(&s, "the EN");
    assert_string_equal(sink.text, "the ");
    text_stream_finish(&s, NULL);
    assert_string_equal(sink.text, "the EN");
    text_stream_free(&s);
}

static void a_callback_can_cancel(void **state) {
    (void)state;
    struct sink sink = {.limit = 2};
    struct text_stream s = stream_to(&sink, NULL, 0);
    push(&s, "a");
    assert_false(s.cancelled);
    push(&s, "b");
    assert_true(s.cancelled);
    push(&s, "c");
    text_stream_finish(&s, NULL);
    assert_string_equal(sink.text, "ab");
    assert_string_equal(s.text, "abc");
    text_stream_free(&s);
}

static void an_empty_answer_is_an_empty_string(void **state) {
    (void)state;
    struct text_stream s = {0};
    assert_int_equal(text_stream_finish(&s, NULL), CANDID_OK);
    assert_string_equal(s.text, "");
    text_stream_free(&s);
}

static void crc32_matches_the_published_check_value(void **state) {
    (void)state;
    assert_int_equal(crc32_update(0, "123456789", 9), 0xcbf43926u);
    assert_int_equal(crc32_update(crc32_update(0, "1234", 4), "56789", 5), 0xcbf43926u);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(characters_are_passed_on_whole),
        cmocka_unit_test(invalid_bytes_become_replacement_characters),
        cmocka_unit_test(stop_strings_are_cut_and_never_shown),
        cmocka_unit_test(an_unfinished_stop_string_is_shown_at_the_end),
        cmocka_unit_test(a_callback_can_cancel),
        cmocka_unit_test(an_empty_answer_is_an_empty_string),
        cmocka_unit_test(crc32_matches_the_published_check_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
