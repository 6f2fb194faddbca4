/* Layouts: appending, cutting, copying, finding, and the layout of a prompt. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lm/layout.h"

static void append(struct layout *l, enum span_kind kind, int n_tokens) {
    assert_int_equal(layout_append(l, kind, n_tokens, 5, 7, 7, NULL), CANDID_OK);
}

static void append_image(struct layout *l, int image, int grid_h, int grid_w) {
    assert_int_equal(layout_append(l, SPAN_IMAGE, grid_h * grid_w, image, grid_h, grid_w, NULL), CANDID_OK);
}

static void check_span(const struct span *s, enum span_kind kind, int begin, int end, int image, int grid_h,
                       int grid_w) {
    assert_non_null(s);
    assert_int_equal(s->kind, kind);
    assert_int_equal(s->begin, begin);
    assert_int_equal(s->end, end);
    assert_int_equal(s->image, image);
    assert_int_equal(s->grid_h, grid_h);
    assert_int_equal(s->grid_w, grid_w);
}

/* 3 system, image 0 of 2 × 3, image 1 of 2 × 2, 4 question, 2 generated: 19 positions */
static struct layout example(void) {
    struct layout l = {0};
    append(&l, SPAN_SYSTEM, 1);
    append(&l, SPAN_SYSTEM, 2);
    append_image(&l, 0, 2, 3);
    append_image(&l, 1, 2, 2);
    append(&l, SPAN_QUESTION, 4);
    append(&l, SPAN_GENERATED, 1);
    append(&l, SPAN_GENERATED, 1);
    return l;
}

static void appending(void **state) {
    struct layout l = {0};
    assert_int_equal(layout_length(&l), 0);
    append(&l, SPAN_SYSTEM, 0);
    assert_int_equal(l.n_spans, 0);
    l = example();
    assert_int_equal(layout_length(&l), 19);
    assert_int_equal(l.n_spans, 5);
    check_span(&l.spans[0], SPAN_SYSTEM, 0, 3, -1, 0, 0); /* image and grid of text are not taken over */
    check_span(&l.spans[1], SPAN_IMAGE, 3, 9, 0, 2, 3);
    check_span(&l.spans[2], SPAN_IMAGE, 9, 13, 1, 2, 2);
    check_span(&l.spans[3], SPAN_QUESTION, 13, 17, -1, 0, 0);
    check_span(&l.spans[4], SPAN_GENERATED, 17, 19, -1, 0, 0);
    for (int i = 0; i < 50; i++) { /* the same image twice stays two spans; and the array grows */
        append_image(&l, 2, 1, 1);
    }
    assert_int_equal(l.n_spans, 55);
    check_span(&l.spans[54], SPAN_IMAGE, 68, 69, 2, 1, 1);
    layout_free(&l);
    assert_null(l.spans);
    layout_free(NULL);
}

static void bad_appends(void **state) {
    struct layout l = example();
    candid_error error = {0};
    const candid_status argument = CANDID_ERROR_ARGUMENT;
    assert_int_equal(layout_append(&l, SPAN_QUESTION, -1, -1, 0, 0, &error), argument);
    assert_non_null(strstr(error.message, "-1"));
    assert_int_equal(layout_append(&l, SPAN_QUESTION, INT_MAX - 18, -1, 0, 0, NULL), argument);
    assert_int_equal(layout_append(&l, SPAN_IMAGE, 6, -1, 2, 3, NULL), argument);
    assert_int_equal(layout_append(&l, SPAN_IMAGE, 6, 2, 2, 2, &error), argument);
    assert_non_null(strstr(error.message, "6 tokens of image 2 do not fill a grid of 2 rows by 2"));
    assert_int_equal(layout_append(&l, SPAN_IMAGE, 6, 2, 0, 6, NULL), argument);
    assert_int_equal(layout_append(&l, SPAN_IMAGE, 6, 2, -2, -3, NULL), argument);
    assert_int_equal(layout_append(&l, SPAN_IMAGE, 0, 2, 65536, 65536, NULL), argument); /* 2^32 is not 0 */
    assert_int_equal(layout_length(&l), 19);
    assert_int_equal(l.n_spans, 5);
    assert_int_equal(layout_append(&l, SPAN_IMAGE, 6, 2, 0, 0, NULL), CANDID_OK); /* no grid */
    check_span(layout_find_image(&l, 2), SPAN_IMAGE, 19, 25, 2, 0, 0);
    layout_free(&l);
}

static void truncating(void **state) {
    struct layout l = example();
    layout_truncate(&l, 20);
    assert_int_equal(layout_length(&l), 19);
    layout_truncate(&l, 19);
    assert_int_equal(l.n_spans, 5);
    layout_truncate(&l, 18);
    check_span(&l.spans[4], SPAN_GENERATED, 17, 18, -1, 0, 0);
    layout_truncate(&l, 17);
    assert_int_equal(l.n_spans, 4);
    layout_truncate(&l, 5);
    assert_int_equal(l.n_spans, 2);
    check_span(&l.spans[1], SPAN_IMAGE, 3, 5, 0, 2, 3);
    append(&l, SPAN_QUESTION, 2);
    check_span(&l.spans[2], SPAN_QUESTION, 5, 7, -1, 0, 0);
    layout_truncate(&l, -3);
    assert_int_equal(l.n_spans, 0);
    assert_int_equal(layout_length(&l), 0);
    layout_free(&l);
    layout_truncate(&l, 0);
}

static void finding(void **state) {
    struct layout l = example();
    for (int i = 0; i < 19; i++) {
        const struct span *s = layout_span_at(&l, i);
        assert_non_null(s);
        assert_true(s->begin <= i && i < s->end);
    }
    assert_ptr_equal(layout_span_at(&l, 9), &l.spans[2]);
    assert_null(layout_span_at(&l, 19));
    assert_null(layout_span_at(&l, -1));
    assert_ptr_equal(layout_find_image(&l, 1), &l.spans[2]);
    assert_null(layout_find_image(&l, 2));
    assert_null(layout_find_image(&l, -1)); /* text has -1 there */
    layout_free(&l);
    assert_null(layout_span_at(&l, 0));
    assert_null(layout_find_image(&l, 0));
}

static void copying(void **state) {
    struct layout a = example(), b = {0}, empty = {0};
    assert_int_equal(layout_copy(&b, &a, NULL), CANDID_OK);
    assert_ptr_not_equal(a.spans, b.spans);
    assert_int_equal(b.n_spans, 5);
    append(&b, SPAN_GENERATED, 3);
    assert_int_equal(layout_length(&b), 22);
    assert_int_equal(layout_length(&a), 19);
    assert_int_equal(layout_copy(&a, &b, NULL), CANDID_OK);
    assert_int_equal(layout_length(&a), 22);
    assert_int_equal(layout_copy(&a, &a, NULL), CANDID_OK);
    assert_int_equal(layout_length(&a), 22);
    assert_int_equal(layout_copy(&a, &empty, NULL), CANDID_OK);
    assert_int_equal(layout_length(&a), 0);
    layout_free(&a);
    layout_free(&b);
    assert_int_equal(layout_copy(&a, &empty, NULL), CANDID_OK);
    layout_free(&a);
}

static void prompts(void **state) {
    struct prompt_chunk chunks[] = {{-1, 0, 5}, {0, 5, 0}, {-1, 5, 2}, {1, 7, 0}, {-1, 7, 4}};
    struct prompt p = {.tokens = {.count = 11}, .chunks = chunks, .n_chunks = 5};
    const struct image_span images[] = {{6, 2, 3, IMAGE_RASTER}, {7, 0, 0, IMAGE_RASTER}}; /* the second forms no grid */
    const struct image_span wrong[] = {{6, 3, 3, IMAGE_RASTER}, {7, 0, 0, IMAGE_RASTER}};
    struct layout l = example();
    assert_int_equal(prompt_length(&p, images), 24);
    assert_int_equal(layout_from_prompt(&p, images, &l, NULL), CANDID_OK);
    assert_int_equal(l.n_spans, 5);
    check_span(&l.spans[0], SPAN_SYSTEM, 0, 5, -1, 0, 0);
    check_span(&l.spans[1], SPAN_IMAGE, 5, 11, 0, 2, 3);
    check_span(&l.spans[2], SPAN_QUESTION, 11, 13, -1, 0, 0);
    check_span(&l.spans[3], SPAN_IMAGE, 13, 20, 1, 0, 0);
    check_span(&l.spans[4], SPAN_QUESTION, 20, 24, -1, 0, 0);

    assert_int_equal(layout_from_prompt(&p, wrong, &l, NULL), CANDID_ERROR_ARGUMENT);
    assert_int_equal(layout_length(&l), 24); /* as it was */

    p.n_chunks = 1;
    assert_int_equal(layout_from_prompt(&p, images, &l, NULL), CANDID_OK);
    assert_int_equal(l.n_spans, 1);
    check_span(&l.spans[0], SPAN_QUESTION, 0, 5, -1, 0, 0);

    p.chunks = &chunks[1];
    p.n_chunks = 2;
    assert_int_equal(layout_from_prompt(&p, images, &l, NULL), CANDID_OK);
    check_span(&l.spans[0], SPAN_IMAGE, 0, 6, 0, 2, 3);
    check_span(&l.spans[1], SPAN_QUESTION, 6, 8, -1, 0, 0);
    layout_free(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appending), cmocka_unit_test(bad_appends), cmocka_unit_test(truncating),
        cmocka_unit_test(finding),   cmocka_unit_test(copying),     cmocka_unit_test(prompts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
