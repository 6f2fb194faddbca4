/*
 * Second images: ViCrop's box and CARVE's regions by hand, against NumPy, SciPy and Pillow
 * (tests/golden/make_look_twice.py), at the borders, through the views' geometry, with hostile input.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/ok.h"
#include "core/crc32.h"
#include "core/rng.h"
#include "model/safetensors.h"
#include "model/weights.h"
#include "vision/carve.h"
#include "vision/vicrop.h"

static struct safetensors *golden;

static int setup(void **state) {
    (void)state;
    return safetensors_open(TEST_GOLDEN "/look_twice.safetensors", &golden, NULL) == CANDID_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    safetensors_close(golden);
    return 0;
}

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

/* ---- ViCrop ---- */

static void relative_attention(void **state) {
    (void)state;
    float q[4] = {0.5f, 0.25f, 0, 1e-3f}, g[4] = {0.25f, 0.5f, 0, 0}, out[4];
    OK(vicrop_relative(q, g, 4, out, error));
    assert_true(out[0] == 2 && out[1] == 0.5f && out[2] == 0);
    assert_true(fabsf(out[3] / 1e5f - 1) < 1e-6f);
    OK(vicrop_relative(q, g, 0, out, error));
    OK(vicrop_relative(q, g, 4, q, error)); /* in place */
    assert_true(q[0] == 2);
    candid_error why;
    static const float bad[] = {NAN, INFINITY, -1e-9f};
    for (int i = 0; i < 3; i++) {
        float a[2] = {1, 1}, b[2] = {1, 1}, unchanged[2] = {7, 7};
        a[1] = bad[i];
        assert_int_equal(vicrop_relative(a, b, 2, unchanged, &why), CANDID_ERROR_ARGUMENT);
        assert_int_equal(vicrop_relative(b, a, 2, unchanged, &why), CANDID_ERROR_ARGUMENT);
        assert_true(unchanged[0] == 7);
    }
}

/* The golden script's map. */
static void hashed_map(int rows, int cols, int seed, int hot_row, int hot_col, float *out) {
    for (int i = 0; i < rows * cols; i++) {
        uint32_t h = (uint32_t)(i + 1000 * seed + 1) * 2654435761u;
        h = (h ^ h >> 15) * 2246822519u;
        const double u = h * 0x1p-32;
        const bool is_hot = abs(i / cols - hot_row) <= 2 && abs(i % cols - hot_col) <= 2;
        out[i] = (float)(u * u * u * u * (is_hot ? 8 : 1));
    }
}

static void boxes_of_the_description(void **state) {
    (void)state;
    const struct safetensors_tensor *t = safetensors_find(golden, "vicrop.cases");
    assert_non_null(t);
    const int n = (int)t->shape[0];
    int whole = 0;
    for (int i = 0; i < n; i++) {
        int32_t c[12];
        memcpy(c, t->data + (size_t)i * sizeof c, sizeof c);
        float values[576];
        hashed_map(c[0], c[1], c[5], c[6], c[7], values);
        struct image_box box;
        OK(vicrop_box(&(struct cell_map){values, c[0], c[1], NULL}, c[2], c[3], c[4], &box, error));
        assert_box(box, c[8], c[9], c[10], c[11]);
        whole += box.x1 - box.x0 == c[2] && box.y1 - box.y0 == c[3];
    }
    assert_true(n >= 100 && whole > 0 && whole < n / 2);
}

/* One hot cell of 24 × 24 on 1200 × 960: cells of 50 × 40, windows of 6 × 8 at ratio 1. */
static void box_by_hand(void **state) {
    (void)state;
    static float values[576];
    const struct cell_map map = {values, 24, 24, NULL};
    struct image_box box;

    /* Windows that hold the cell (10, 12) are equal, the first has it in its last column and row: x0 = 12 - 5 = 7,
     * y0 = 10 - 7 = 3. Its left and upper neighbours have nothing, so the sharpness is (1 - 1/2) / 48, and less at
     * larger ratios. Centre: 7 · 50 + 6 · 50 / 2 = 500, 3 · 40 + 8 · 40 / 2 = 280; half a side: 168. */
    values[10 * 24 + 12] = 1;
    OK(vicrop_box(&map, 1200, 960, 336, &box, error));
    assert_box(box, 332, 112, 668, 448);

    /* at the four corners: the box is moved into the image */
    static const int corners[4][6] = {/* row, column, box */
                                      {0, 0, 0, 0, 336, 336},
                                      {0, 23, 864, 0, 1200, 336},
                                      {23, 0, 0, 624, 336, 960},
                                      {23, 23, 864, 624, 1200, 960}};
    for (int c = 0; c < 4; c++) {
        memset(values, 0, sizeof values);
        values[corners[c][0] * 24 + corners[c][1]] = 1;
        OK(vicrop_box(&map, 1200, 960, 336, &box, error));
        assert_box(box, corners[c][2], corners[c][3], corners[c][4], corners[c][5]);
    }

    /* a flat map: all sums and all sharpnesses (0) are equal, the first window and the first ratio stay */
    for (int i = 0; i < 576; i++) {
        values[i] = 0.3f;
    }
    OK(vicrop_box(&map, 1200, 960, 336, &box, error));
    assert_box(box, 0, 0, 336, 336);

    /* an image that fits in one box is not cut; nor where only larger ratios do */
    OK(vicrop_box(&map, 336, 300, 336, &box, error));
    assert_box(box, 0, 0, 336, 300);
    OK(vicrop_box(&map, 1, 1, 336, &box, error));
    assert_box(box, 0, 0, 1, 1);
    OK(vicrop_box(&map, 338, 100, 336, &box, error)); /* 336 / (338 / 24) = 23.9 cells */
    assert_box(box, 0, 0, 336, 100);

    /* a panorama: the window has all rows, the box is as high as the image */
    memset(values, 0, sizeof values);
    values[5 * 24 + 20] = 1;
    OK(vicrop_box(&map, 2400, 200, 336, &box, error));
    assert_int_equal(box.y0, 0);
    assert_int_equal(box.y1, 200);
    assert_int_equal(box.x1 - box.x0, 336);
    assert_true(box.x0 <= 2000 && box.x1 >= 2100); /* cell 20 */

    /* a map of one cell, of huge cells */
    OK(vicrop_box(&(struct cell_map){values, 1, 1, NULL}, 60000, 60000, 336, &box, error));
    assert_box(box, 0, 0, 60000, 60000);
    values[1] = 2;
    OK(vicrop_box(&(struct cell_map){values, 1, 3, NULL}, 60000, 600, 336, &box, error));
    assert_box(box, 30000 - 168, 132, 30000 + 168, 468);
}

/* The same hot spot through every way of seeing the image. */
static void box_through_a_view(void **state) {
    (void)state;
    static const int sizes[][2] = {{1344, 1008}, {900, 1500}, {1000, 1000}};
    static const candid_preprocess modes[] = {CANDID_PREPROCESS_PAD, CANDID_PREPROCESS_CROP, CANDID_PREPROCESS_ANYRES};
    for (int s = 0; s < 3; s++) {
        for (int m = 0; m < 3; m++) {
            const struct view_map view = view_of(modes[m], sizes[s][0], sizes[s][1]);
            static float values[576];
            const int cy = 14, cx = 9;
            for (int i = 0; i < 576; i++) { /* a hill, so that windows have a middle to find */
                const double y = i / 24 - cy, x = i % 24 - cx;
                values[i] = (float)exp(-(y * y + x * x) / 8);
            }
            if (modes[m] == CANDID_PREPROCESS_PAD && sizes[s][0] != sizes[s][1]) {
                values[0] = values[575] = 1000; /* padding: no part of the image */
            }
            struct image_box box;
            OK(vicrop_box(&(struct cell_map){values, 24, 24, &view}, sizes[s][0], sizes[s][1], 336, &box, error));
            const struct image_rect cell = view_map_cell(&view, cy, cx);
            const double cell_w = cell.x1 - cell.x0, cell_h = cell.y1 - cell.y0;
            assert_true(fabs((box.x0 + box.x1) / 2.0 - (cell.x0 + cell.x1) / 2) <= cell_w);
            assert_true(fabs((box.y0 + box.y1) / 2.0 - (cell.y0 + cell.y1) / 2) <= cell_h);
        }
    }
}

static void hostile_boxes(void **state) {
    (void)state;
    static float values[576];
    struct image_box box = {7, 7, 7, 7};
    candid_error why;
    const struct cell_map map = {values, 24, 24, NULL};
    static const int wrong[][3] = {{0, 9, 336}, {9, 0, 336}, {-5, 9, 336}, {70000, 9, 336}, {9, 9, 1}, {9, 9, -336}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(vicrop_box(&map, wrong[i][0], wrong[i][1], wrong[i][2], &box, &why), CANDID_ERROR_ARGUMENT);
    }
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        values[30] = bad[i];
        assert_int_equal(vicrop_box(&map, 640, 480, 336, &box, &why), CANDID_ERROR_ARGUMENT);
        assert_non_null(strstr(why.message, "vicrop: the map's value in row 1, column 6 is"));
    }
    values[30] = 0;
    assert_int_equal(vicrop_box(&(struct cell_map){values, 0, 24, NULL}, 640, 480, 336, &box, &why),
                     CANDID_ERROR_ARGUMENT);
    assert_box(box, 7, 7, 7, 7);
    for (int i = 0; i < 576; i++) { /* sums beyond f32 */
        values[i] = 3e38f;
    }
    OK(vicrop_box(&map, 640, 480, 336, &box, error));
    assert_box(box, 0, 0, 336, 336);
}

/* ---- CARVE: contrast ---- */

static void contrast(void **state) {
    (void)state;
    /* two steps of two layers over two tokens; the general run has a step more */
    static const float q[] = {1, 2, 3, 4, 5, 6, 7, 8}, g[] = {1, 1, 2, 2, 4, 4, 8, 8, 9, 9, 9, 9};
    const struct carve_attention a = {q, g, 2, 3, 2, 2};
    float out[2];
    OK(carve_contrast(&a, CARVE_FIRST_STEP, 0, out, error));
    assert_true(out[0] == 1 + 1.5f && out[1] == 2 + 2);
    OK(carve_contrast(&a, CARVE_ALL_STEPS, 0, out, error));
    assert_true(out[0] == 2.5f + 2 * (1.25f + 0.875f) && out[1] == 4 + 2 * (1.5f + 1));
    OK(carve_contrast(&a, CARVE_FIRST_STEP, 1, out, error));
    assert_true(out[0] == 0.5f + 1 && fabsf(out[1] - (1 + 4.0f / 3)) < 1e-6f);

    float zero[2] = {0, 0}, ones[2] = {1, 0};
    const struct carve_attention none = {ones, zero, 1, 1, 1, 2};
    OK(carve_contrast(&none, CARVE_ALL_STEPS, 1e-8, out, error));
    assert_true(fabsf(out[0] / 1e8f - 1) < 1e-6f && out[1] == 0);
    candid_error why;
    assert_int_equal(carve_contrast(&none, CARVE_ALL_STEPS, 0, out, &why), CANDID_ERROR_ARGUMENT); /* 1/0, 0/0 */
    assert_int_equal(carve_contrast(&none, CARVE_ALL_STEPS, NAN, out, &why), CANDID_ERROR_ARGUMENT);
    assert_int_equal(carve_contrast(&none, CARVE_ALL_STEPS, -1, out, &why), CANDID_ERROR_ARGUMENT);
    static const float bad[] = {NAN, INFINITY, -1};
    for (int i = 0; i < 3; i++) {
        zero[1] = bad[i];
        assert_int_equal(carve_contrast(&none, CARVE_ALL_STEPS, 1e-8, out, &why), CANDID_ERROR_ARGUMENT);
        zero[1] = 0;
        ones[1] = bad[i];
        assert_int_equal(carve_contrast(&none, CARVE_ALL_STEPS, 1e-8, out, &why), CANDID_ERROR_ARGUMENT);
        ones[1] = 0;
    }
    static const int wrong[][4] = {{0, 1, 1, 2}, {1, 0, 1, 2}, {1, 1, 0, 2}, {1, 1, 1, 0}};
    for (int i = 0; i < 4; i++) {
        const struct carve_attention b = {ones, zero, wrong[i][0], wrong[i][1], wrong[i][2], wrong[i][3]};
        assert_int_equal(carve_contrast(&b, CARVE_ALL_STEPS, 1e-8, out, &why), CANDID_ERROR_ARGUMENT);
    }
}

/* ---- CARVE: images ---- */

static const struct carve_options defaults = {0.2, 3};

static const uint8_t *tensor_of(const char *name, const char *what, size_t *size) {
    char key[64];
    snprintf(key, sizeof key, "carve.%s.%s", name, what);
    const struct safetensors_tensor *t = safetensors_find(golden, key);
    if (!t) {
        fail_msg("look_twice.safetensors lacks %s", key);
    }
    *size = t->size;
    return t->data;
}

static float *floats_of(const char *name, const char *what, size_t *n) {
    size_t size;
    const uint8_t *data = tensor_of(name, what, &size);
    float *copy = malloc(size);
    assert_non_null(copy);
    memcpy(copy, data, size);
    *n = size / sizeof *copy;
    return copy;
}

static void images_of_the_libraries(void **state) {
    (void)state;
    static const struct {
        const char *name, *image;
        int steps, layers;
    } cases[] = {{"noise", "noise", 3, 2},      {"first", "noise", 3, 2}, {"large", "large", 3, 2},
                 {"small_grid", "large", 1, 1}, {"wide", "wide", 2, 2},   {"hilly", "gradient", 2, 3}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        size_t n_question, n_general, size;
        int32_t info[12];
        float *question = floats_of(cases[c].name, "question", &n_question);
        float *general = floats_of(cases[c].name, "general", &n_general), values[576];
        const uint8_t *data = tensor_of(cases[c].name, "info", &size);
        assert_int_equal(size, sizeof info);
        memcpy(info, data, size);
        const int n_cells = info[0] * info[1];
        const struct carve_attention a = {question,           general,         cases[c].steps,
                                          cases[c].steps + 1, cases[c].layers, n_cells};
        assert_int_equal(n_question, (size_t)(a.n_question * a.n_layers * n_cells));
        assert_int_equal(n_general, (size_t)(a.n_general * a.n_layers * n_cells));
        OK(carve_contrast(&a, info[2] ? CARVE_FIRST_STEP : CARVE_ALL_STEPS, 1e-8, values, error));

        char path[512];
        candid_image *image = NULL, *refined = NULL;
        struct image_box box;
        snprintf(path, sizeof path, TEST_DATA "/images/%s.png", cases[c].image);
        OK(candid_image_load(path, &image, error));
        OK(carve_image(image, &(struct cell_map){values, info[0], info[1], NULL}, &defaults, &refined, &box, error));
        assert_box(box, info[5], info[6], info[7], info[8]);
        assert_int_equal(refined->width, info[9]);
        assert_int_equal(refined->height, info[10]);
        if (crc32_update(0, refined->rgb, 3 * (size_t)refined->width * (size_t)refined->height) != (uint32_t)info[11]) {
            fail_msg("carve %s: not the pixels that SciPy and Pillow make", cases[c].name);
        }
        candid_image_free(refined);
        candid_image_free(image);
        free(question), free(general);
    }
}

/* White where the map, one cell per pixel, is; `rows` of digits. */
static candid_image *picture(const char *const *rows, int height, float *values, int *width) {
    *width = (int)strlen(rows[0]);
    uint8_t rgb[3 * 400];
    for (int i = 0; i < *width * height; i++) {
        values[i] = (float)(rows[i / *width][i % *width] - '0');
        memset(rgb + 3 * i, 255, 3);
    }
    candid_image *image = NULL;
    OK(candid_image_from_rgb(rgb, *width, height, 3 * (size_t)*width, &image, error));
    return image;
}

/* What stays of the picture, in its own place; with no enlargement to speak of the cut tells. */
static void assert_kept(const char *const *rows, int height, struct carve_options o, const char *const *expected) {
    float values[400];
    int width;
    candid_image *image = picture(rows, height, values, &width), *out = NULL;
    struct image_box box;
    OK(carve_image(image, &(struct cell_map){values, height, width, NULL}, &o, &out, &box, error));
    int x0 = width, y0 = height, x1 = 0, y1 = 0;
    for (int i = 0; i < width * height; i++) {
        if (expected[i / width][i % width] == '#') {
            x0 = i % width < x0 ? i % width : x0;
            x1 = i % width + 1 > x1 ? i % width + 1 : x1;
            y0 = i / width < y0 ? i / width : y0;
            y1 = i / width + 1;
        }
    }
    assert_box(box, x0, y0, x1, y1);
    if (x1 - x0 == width) { /* as large as it was */
        for (int i = 0; i < out->width * out->height; i++) {
            assert_int_equal(out->rgb[3 * i], expected[y0 + i / width][i % width] == '#' ? 255 : 0);
        }
    }
    candid_image_free(out);
    candid_image_free(image);
}

static void regions(void **state) {
    (void)state;
    /* Ten of 50 pixels are above 0, and numpy.percentile(80) lies at rank 39.2 of 49, between 0 and 1: they are the
     * candidates. Corners do not connect, so there are six regions, of sums 1, 9, 1 (first row), 3, 4, 7. */
    static const char *const scattered[] = {"1009000001", "0100000000", "1100220000", "0000000000", "0000004300"};
    static const char *const three[] = {"...#......", "..........", "....##....", "..........", "......##.."};
    assert_kept(scattered, 5, (struct carve_options){0.2, 3}, three);
    static const char *const one[] = {"...#......", "..........", "..........", "..........", ".........."};
    assert_kept(scattered, 5, (struct carve_options){0.2, 1}, one);

    /* Ties: four regions of one sum, the first three that rows meet stay. */
    static const char *const tied[] = {"2000200000", "0000000000", "0000000000", "2000000000", "0000000002"};
    static const char *const first_three[] = {"#...#.....", "..........", "..........", "#.........", ".........."};
    assert_kept(tied, 5, (struct carve_options){0.08, 3}, first_three);

    /* A region whose arms meet only below is one, and stands against others by its sum: 13 ones against a 9. */
    static const char *const arms[] = {"1001001000", "1001001009", "1111111000"};
    static const char *const joined[] = {"#..#..#...", "#..#..#...", "#######..."};
    assert_kept(arms, 3, (struct carve_options){0.4, 1}, joined);

    /* two regions of five: demanded, or int(0.5 · 5) */
    static const char *const five[] = {"1020304050", "0000000000"};
    static const char *const two[] = {"......#.#.", ".........."};
    assert_kept(five, 2, (struct carve_options){0.25, 2}, two);
    assert_kept(five, 1, (struct carve_options){0.5, 1}, two);

    /* no differences: all pixels are at the percentile, one region, the image itself */
    static const char *const same[] = {"5555555555", "5555555555"};
    static const char *const all[] = {"##########", "##########"};
    assert_kept(same, 2, (struct carve_options){0.2, 3}, all);
    assert_kept(same, 2, (struct carve_options){0, 1}, all);
    assert_kept(five, 2, (struct carve_options){1, 1}, all); /* the percentile is the minimum */
    assert_kept(five, 2, (struct carve_options){0, 3}, (const char *const[]){"........#.", ".........."});
    assert_kept((const char *const[]){"7"}, 1, (struct carve_options){0.2, 3}, (const char *const[]){"#"});
}

/* The cut is enlarged to the image's width or height, rounded down, black where nothing stays. */
static void enlarged(void **state) {
    (void)state;
    float values[400] = {0};
    uint8_t rgb[3 * 200];
    memset(rgb, 255, sizeof rgb);
    candid_image *image = NULL, *out = NULL;
    struct image_box box;
    OK(candid_image_from_rgb(rgb, 20, 10, 60, &image, error));
    values[3 * 20 + 4] = values[3 * 20 + 5] = values[4 * 20 + 5] = 1; /* 2 × 2 pixels, one of them black */
    OK(carve_image(image, &(struct cell_map){values, 10, 20, NULL}, &(struct carve_options){0.01, 3}, &out, &box,
                   error));
    assert_box(box, 4, 3, 6, 5);
    assert_int_equal(out->width, 20);
    assert_int_equal(out->height, 20);
    assert_int_equal(out->rgb[0], 255);
    assert_int_equal(out->rgb[3 * (19 * 20)], 0);
    candid_image_free(out);

    /* only what a view shows counts: a crop to the middle square */
    const struct clip_weights small = {.image_size = 10, .patch_size = 1, .grid = 10};
    const struct visual_plan plan = {.mode = CANDID_PREPROCESS_CROP};
    const struct view_map view = view_map_make(&small, &plan, 20, 10);
    memset(values, 0, sizeof values);
    values[0] = 1;
    OK(carve_image(image, &(struct cell_map){values, 10, 10, &view}, &(struct carve_options){0, 1}, &out, &box, error));
    assert_box(box, 5, 0, 6, 1);
    candid_image_free(out);
    candid_image_free(image);
}

/* One pixel of a long image: 2^32 pixels as released. */
static void enlargement_is_bounded(void **state) {
    (void)state;
    const int width = 65536;
    uint8_t *rgb = calloc((size_t)width, 3);
    assert_non_null(rgb);
    candid_image *image = NULL, *out = NULL;
    OK(candid_image_from_rgb(rgb, width, 1, 3 * (size_t)width, &image, error));
    static const float values[] = {0, 0, 1, 0, 0};
    struct image_box box;
    OK(carve_image(image, &(struct cell_map){values, 1, 5, NULL}, &(struct carve_options){0, 1}, &out, &box, error));
    assert_in_range(box.x1 - box.x0, 1, 2);
    assert_in_range((int64_t)out->width * out->height, CARVE_MAX_PIXELS / 100 * 99, CARVE_MAX_PIXELS);
    assert_int_equal(out->width / out->height, box.x1 - box.x0);
    candid_image_free(out);
    candid_image_free(image);
    free(rgb);
}

static void hostile_maps(void **state) {
    (void)state;
    float values[4] = {1, 2, 3, 4};
    static const uint8_t rgb[48] = {9};
    candid_image *image = NULL, *out = NULL;
    candid_error why;
    OK(candid_image_from_rgb(rgb, 4, 4, 12, &image, error));
    const struct cell_map map = {values, 2, 2, NULL};
    static const struct carve_options wrong[] = {{-0.1, 3}, {1.1, 3}, {NAN, 3}, {0.2, 0}, {0.2, -3}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(carve_image(image, &map, &wrong[i], &out, NULL, &why), CANDID_ERROR_ARGUMENT);
    }
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        values[2] = bad[i];
        assert_int_equal(carve_image(image, &map, &defaults, &out, NULL, &why), CANDID_ERROR_ARGUMENT);
    }
    values[2] = 3;
    assert_int_equal(carve_image(image, &(struct cell_map){values, 2, 0, NULL}, &defaults, &out, NULL, &why),
                     CANDID_ERROR_ARGUMENT);
    assert_null(out);
    OK(carve_image(image, &map, &(struct carve_options){0.2, INT32_MAX}, &out, NULL, error)); /* all regions */
    candid_image_free(out);
    values[0] = -3e38f;
    values[3] = 3e38f;
    OK(carve_image(image, &map, &defaults, &out, NULL, error));
    candid_image_free(out);
    candid_image_free(image);
}

/* Whatever the sizes and the values: a box inside the image, an image no smaller than the box. */
static void any_size(void **state) {
    (void)state;
    static const candid_preprocess modes[] = {CANDID_PREPROCESS_PAD, CANDID_PREPROCESS_CROP, CANDID_PREPROCESS_ANYRES};
    static float values[40 * 40];
    static uint8_t rgb[3 * 90 * 90];
    struct rng r;
    rng_seed_stream(&r, 8, 0);
    for (int round = 0; round < 400; round++) {
        const int width = 1 + (int)rng_below(&r, 90), height = 1 + (int)rng_below(&r, 90);
        const struct view_map view = view_of(modes[round % 3], width, height);
        struct cell_map map = {values, 24, 24, &view};
        if (round % 2) {
            map = (struct cell_map){values, 1 + (int)rng_below(&r, 40), 1 + (int)rng_below(&r, 40), NULL};
        }
        for (int i = 0; i < map.rows * map.cols; i++) {
            const double u = rng_unit(&r);
            values[i] = (float)(round % 5 == 0 ? floor(3 * u) : round % 5 == 1 ? (u - 0.5) * 6e38 : u * u * u);
        }
        struct image_box box;
        OK(vicrop_box(&map, width, height, 2 + (int)rng_below(&r, 80), &box, error));
        assert_true(box.x0 >= 0 && box.y0 >= 0 && box.x1 > box.x0 && box.y1 > box.y0);
        assert_true(box.x1 <= width && box.y1 <= height);

        candid_image *image = NULL, *out = NULL;
        OK(candid_image_from_rgb(rgb, width, height, 3 * (size_t)width, &image, error));
        const struct carve_options o = {rng_unit(&r), 1 + (int)rng_below(&r, 5)};
        OK(carve_image(image, &map, &o, &out, &box, error));
        assert_true(box.x0 >= 0 && box.y0 >= 0 && box.x1 > box.x0 && box.y1 > box.y0);
        assert_true(box.x1 <= width && box.y1 <= height);
        assert_true(out->width >= box.x1 - box.x0 && out->height >= box.y1 - box.y0);
        assert_true(out->width >= width - 1 || out->height >= height - 1);
        candid_image_free(out);
        candid_image_free(image);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(relative_attention),
        cmocka_unit_test(boxes_of_the_description),
        cmocka_unit_test(box_by_hand),
        cmocka_unit_test(box_through_a_view),
        cmocka_unit_test(hostile_boxes),
        cmocka_unit_test(contrast),
        cmocka_unit_test(images_of_the_libraries),
        cmocka_unit_test(regions),
        cmocka_unit_test(enlarged),
        cmocka_unit_test(enlargement_is_bounded),
        cmocka_unit_test(hostile_maps),
        cmocka_unit_test(any_size),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
