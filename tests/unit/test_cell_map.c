/* Maps over images: order statistics, drawing, and the way back through pad and crop, by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/ok.h"
#include "core/rng.h"
#include "model/weights.h"
#include "vision/cell_map.h"

static const struct clip_weights clip = {.image_size = 336, .patch_size = 14, .grid = 24};

static struct view_map view_of(candid_preprocess mode, int width, int height) {
    const struct visual_plan plan = {.mode = mode};
    return view_map_make(&clip, &plan, width, height);
}

static void assert_box(struct image_box found, int x0, int y0, int x1, int y1) {
    if (found.x0 != x0 || found.y0 != y0 || found.x1 != x1 || found.y1 != y1) {
        fail_msg("box [%d, %d) × [%d, %d), expected [%d, %d) × [%d, %d)", found.x0, found.x1, found.y0, found.y1, x0,
                 x1, y0, y1);
    }
}

static int ascending(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void order_statistics(void **state) {
    (void)state;
    static float values[3000], sorted[3000];
    struct rng r;
    rng_seed_stream(&r, 1, 0);
    for (int i = 0; i < 3000; i++) {
        const float scales[] = {1e-30f, 1, 1e30f, 0};
        values[i] = (float)(rng_unit(&r) - 0.5) * scales[rng_below(&r, 4)]; /* ties at 0 and -0 */
    }
    values[7] = -0x1.fffffep127f;
    values[8] = 0x1.fffffep127f;
    memcpy(sorted, values, sizeof values);
    qsort(sorted, 3000, sizeof *sorted, ascending);
    for (size_t rank = 0; rank < 3000; rank++) {
        assert_true(values_rank(values, 3000, rank) == sorted[rank]);
    }
    static const float few[] = {15, 20, 35, 40, 50};
    assert_true(values_percentile(few, 5, 0) == 15);
    assert_true(values_percentile(few, 5, 1) == 50);
    assert_true(fabs(values_percentile(few, 5, 0.4) - 29) < 1e-12); /* numpy.percentile(few, 40) */
    assert_true(fabs(values_percentile(few, 5, 0.8) - 42) < 1e-12);
    assert_true(values_percentile(few, 1, 0.5) == 15);
}

static void drawing(void **state) {
    (void)state;
    static const float values[] = {0, 1, 2, 3}; /* 2 × 2 */
    const struct cell_map map = {values, 2, 2, NULL};
    struct image_box seen;
    float *drawn = NULL;
    OK(cell_map_draw(&map, 4, 1, &seen, &drawn, error));
    assert_box(seen, 0, 0, 4, 1);
    static const float expected[] = {1, 1.25f, 1.75f, 2}; /* x: 0, 0.25, 0.75, 1; y: halfway */
    assert_memory_equal(drawn, expected, sizeof expected);
    free(drawn);
    OK(cell_map_draw(&map, 2, 2, &seen, &drawn, error));
    assert_memory_equal(drawn, values, sizeof values);
    free(drawn);
    OK(cell_map_draw(&map, 1, 1, &seen, &drawn, error));
    assert_true(drawn[0] == 1.5f);
    free(drawn);

    /* a crop shows the middle square of a wide image, a pad all of it in its middle rows */
    float ramp[576];
    for (int i = 0; i < 576; i++) {
        ramp[i] = (float)(i % 24 + 100 * (i / 24));
    }
    struct view_map view = view_of(CANDID_PREPROCESS_CROP, 672, 336);
    OK(cell_map_draw(&(struct cell_map){ramp, 24, 24, &view}, 672, 336, &seen, &drawn, error));
    assert_box(seen, 168, 0, 504, 336);
    for (int y = 7; y < 329; y++) { /* between the centres of the outermost cells, all is linear */
        for (int x = 7; x < 329; x++) {
            const double gx = (x + 0.5) / 14 - 0.5, gy = (y + 0.5) / 14 - 0.5;
            assert_true(fabs((double)drawn[y * 336 + x] - gx - 100 * gy) < 1e-3);
        }
    }
    free(drawn);
    view = view_of(CANDID_PREPROCESS_PAD, 672, 336);
    OK(cell_map_draw(&(struct cell_map){ramp, 24, 24, &view}, 672, 336, &seen, &drawn, error));
    assert_box(seen, 0, 0, 672, 336);
    for (int y = 0; y < 336; y++) {
        assert_true(fabs((double)drawn[y * 672 + 336] - (336.5 / 28 - 0.5) - 100 * ((y + 168.5) / 28 - 0.5)) < 1e-3);
    }
    free(drawn);
    view.offset_x = 1e6;
    candid_error why;
    drawn = NULL;
    assert_int_equal(cell_map_draw(&(struct cell_map){ramp, 24, 24, &view}, 672, 336, &seen, &drawn, &why),
                     CANDID_ERROR_ARGUMENT);
    assert_null(drawn);
}

static void cells_of_the_image(void **state) {
    (void)state;
    float values[576];
    for (int i = 0; i < 576; i++) {
        values[i] = (float)(i + 1);
    }
    int rows, cols;
    static float out[CELL_MAP_MAX_FITTED * CELL_MAP_MAX_FITTED];

    struct view_map view = view_of(CANDID_PREPROCESS_PAD, 500, 500); /* nothing to undo */
    cell_map_fit(&view, &rows, &cols);
    assert_int_equal(rows, 24);
    assert_int_equal(cols, 24);
    const struct cell_map map = {values, 24, 24, &view};
    cell_map_to_image(&map, rows, cols, out);
    for (int i = 0; i < 576; i++) {
        assert_true(fabsf(out[i] - values[i]) < 1e-3f);
    }

    view = view_of(CANDID_PREPROCESS_PAD, 600, 300); /* rows 0 to 5 and 18 to 23 are padding */
    cell_map_fit(&view, &rows, &cols);
    assert_int_equal(rows, 12);
    assert_int_equal(cols, 24);
    cell_map_to_image(&map, rows, cols, out);
    for (int i = 0; i < 12 * 24; i++) {
        assert_true(fabsf(out[i] - values[i + 6 * 24]) < 1e-3f);
    }

    view = view_of(CANDID_PREPROCESS_CROP, 640, 480); /* 448 × 336: four columns on both sides are cut off */
    cell_map_fit(&view, &rows, &cols);
    assert_int_equal(rows, 24);
    assert_int_equal(cols, 32);
    cell_map_to_image(&map, rows, cols, out);
    for (int i = 0; i < 24 * 32; i++) {
        const int x = i % 32 - 4;
        assert_true(fabsf(out[i] - (x < 0 || x >= 24 ? 0 : values[i / 32 * 24 + x])) < 1e-3f);
    }

    view = view_of(CANDID_PREPROCESS_CROP, 500, 333); /* cells that do not fall together: the sum is kept */
    cell_map_fit(&view, &rows, &cols);
    cell_map_to_image(&map, rows, cols, out);
    double sum = 0, expected = 576 * 577 / 2;
    for (int i = 0; i < rows * cols; i++) {
        sum += (double)out[i] * (view.width * view.scale_x / 14 / cols) * (view.height * view.scale_y / 14 / rows);
    }
    assert_true(fabs(sum / expected - 1) < 0.01); /* 333 · 1.009 = 336 pixels, up to rounding */

    view = view_of(CANDID_PREPROCESS_CROP, 65536, 1); /* panoramas stay finite */
    cell_map_fit(&view, &rows, &cols);
    assert_int_equal(rows, 24);
    assert_int_equal(cols, CELL_MAP_MAX_FITTED);
    cell_map_to_image(&map, rows, cols, out);
    view = view_of(CANDID_PREPROCESS_PAD, 65536, 1);
    cell_map_fit(&view, &rows, &cols);
    assert_int_equal(rows, 1);
    assert_int_equal(cols, 24);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_statistics),
        cmocka_unit_test(drawing),
        cmocka_unit_test(cells_of_the_image),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
