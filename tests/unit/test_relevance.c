/*
 * AGLA's masked image: the smooth map and the mask against scikit-image and SciPy (tests/golden/make_look_twice.py),
 * geometry, thresholds, maps from files, hostile input.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/ok.h"
#include "core/rng.h"
#include "model/safetensors.h"
#include "model/weights.h"
#include "vision/png_write.h"
#include "vision/relevance.h"

#define SIDE 384
#define N    (SIDE * SIDE)

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

static const struct safetensors_tensor *recorded(const char *name, const char *what) {
    char key[64];
    snprintf(key, sizeof key, "relevance.%s.%s", name, what);
    const struct safetensors_tensor *t = safetensors_find(golden, key);
    if (!t) {
        fail_msg("look_twice.safetensors lacks %s", key);
    }
    return t;
}

/* A recorded map; values must be freed. */
static struct cell_map map_of(const char *name) {
    const struct safetensors_tensor *t = recorded(name, "map");
    float *values = malloc(t->size);
    assert_non_null(values);
    memcpy(values, t->data, t->size);
    return (struct cell_map){.values = values, .rows = (int)t->shape[0], .cols = (int)t->shape[1]};
}

/* All pixels of one colour; white is what the tests count. */
static candid_image *plain_image(int width, int height) {
    const size_t size = 3 * (size_t)width * (size_t)height;
    uint8_t *rgb = malloc(size);
    assert_non_null(rgb);
    memset(rgb, 255, size);
    candid_image *image = NULL;
    OK(candid_image_from_rgb(rgb, width, height, 3 * (size_t)width, &image, error));
    free(rgb);
    return image;
}

static bool survives(const candid_image *image, int x, int y) {
    return image->rgb[3 * ((size_t)y * (size_t)image->width + (size_t)x)] == 255;
}

static int survivors(const candid_image *image) {
    int n = 0;
    for (int i = 0; i < image->width * image->height; i++) {
        n += survives(image, i % image->width, i / image->width);
    }
    return n;
}

/* ---- against the libraries ---- */

static void smooth_maps(void **state) {
    (void)state;
    static const char *const names[] = {"vit", "raw", "odd", "line", "tall", "same", "negative"};
    static float soft[N];
    for (size_t m = 0; m < sizeof names / sizeof *names; m++) {
        const struct cell_map map = map_of(names[m]);
        OK(relevance_soften(&map, soft, error));
        const struct safetensors_tensor *t = recorded(names[m], "soft");
        assert_int_equal(t->size, 55 * 55 * sizeof(float));
        double worst = 0;
        for (int i = 0; i < 55 * 55; i++) {
            float expected;
            memcpy(&expected, t->data + (size_t)i * sizeof expected, sizeof expected);
            worst = fmax(worst, fabs((double)soft[(3 + 7 * (i / 55)) * SIDE + 3 + 7 * (i % 55)] - (double)expected));
        }
        print_message("%s, %d×%d: %.1e\n", names[m], map.cols, map.rows, worst);
        assert_true(worst < 1e-6);
        free((void *)map.values);
    }
}

static void masks(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int percent;
    } cases[] = {{"vit", 10}, {"vit", 65}, {"odd", 10}, {"odd", 65}};
    candid_image *image = plain_image(640, 480), *masked = NULL;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const struct cell_map map = map_of(cases[c].name);
        char what[16];
        snprintf(what, sizeof what, "mask.%d", cases[c].percent);
        const struct safetensors_tensor *t = recorded(cases[c].name, what);
        OK(relevance_image(image, &map, RELEVANCE_SQUASH, cases[c].percent / 100.0, &masked, error));
        assert_int_equal(masked->width, SIDE);
        assert_int_equal(masked->height, SIDE);
        int differences = 0;
        for (int i = 0; i < N; i++) {
            differences += (t->data[i / 8] >> (7 - i % 8) & 1) != survives(masked, i % SIDE, i / SIDE);
        }
        print_message("%s %s: %d pixels differ of %d\n", cases[c].name, what, differences, N);
        assert_in_range(differences, 0, 3); /* theirs is f32 in between */
        assert_int_equal(survivors(masked), (int)(N * (cases[c].percent / 100.0)) + 1);
        candid_image_free(masked);
        free((void *)map.values);
    }
    candid_image_free(image);
}

/* The pixels that survive are those of the squeezed image. */
static void colours(void **state) {
    (void)state;
    candid_image *image = NULL, *squeezed = NULL, *masked = NULL;
    OK(candid_image_load(TEST_DATA "/images/large.png", &image, error));
    OK(image_resize_bicubic(image, SIDE, SIDE, &squeezed, error));
    const struct cell_map map = map_of("vit");
    OK(relevance_image(image, &map, RELEVANCE_SQUASH, 1, &masked, error));
    assert_memory_equal(masked->rgb, squeezed->rgb, 3 * N);
    candid_image_free(masked);
    OK(relevance_image(image, &map, RELEVANCE_NATIVE, 1, &masked, error));
    assert_int_equal(masked->width, image->width);
    assert_memory_equal(masked->rgb, image->rgb, 3 * (size_t)image->width * (size_t)image->height);
    candid_image_free(masked);
    candid_image_free(image);

    /* on an image of 384×384 both geometries are the same */
    candid_image *native = NULL;
    OK(relevance_image(squeezed, &map, RELEVANCE_SQUASH, 0.4, &masked, error));
    OK(relevance_image(squeezed, &map, RELEVANCE_NATIVE, 0.4, &native, error));
    assert_memory_equal(masked->rgb, native->rgb, 3 * N);
    assert_memory_not_equal(masked->rgb, squeezed->rgb, 3 * N);
    candid_image_free(masked);
    candid_image_free(native);
    candid_image_free(squeezed);
    free((void *)map.values);
}

/* ---- thresholds ---- */

static void shares(void **state) {
    (void)state;
    const struct cell_map map = map_of("vit");
    candid_image *image = plain_image(211, 97), *masked = NULL;
    static const double keeps[] = {0, 1e-9, 0.01, 0.5, 0.85, 1 - 1e-5, 1};
    const int n = 211 * 97;
    for (size_t k = 0; k < sizeof keeps / sizeof *keeps; k++) {
        OK(relevance_image(image, &map, RELEVANCE_NATIVE, keeps[k], &masked, error));
        const int expected = (int)(n * keeps[k]) + 1;
        assert_in_range(survivors(masked), expected < n ? expected : n, expected + 2 < n ? expected + 2 : n);
        candid_image_free(masked);
    }
    free((void *)map.values);

    float same[12]; /* no differences, or no cells to differ: everything survives */
    for (int i = 0; i < 12; i++) {
        same[i] = 0.7f;
    }
    static float soft[N];
    const struct cell_map flat[] = {{same, 3, 4, NULL}, {same, 1, 1, NULL}};
    for (int m = 0; m < 2; m++) {
        OK(relevance_soften(&flat[m], soft, error));
        for (int i = 0; i < N; i++) {
            assert_true(soft[i] == 0);
        }
        for (int keep = 0; keep <= 1; keep++) {
            OK(relevance_image(image, &flat[m], RELEVANCE_NATIVE, keep, &masked, error));
            assert_int_equal(survivors(masked), n);
            candid_image_free(masked);
        }
    }
    candid_image_free(image);

    image = plain_image(1, 1);
    static const float two[] = {0, 1};
    for (int geometry = 0; geometry < 2; geometry++) {
        OK(relevance_image(image, &(struct cell_map){two, 1, 2, NULL}, (enum relevance_geometry)geometry, 0.3, &masked,
                           error));
        assert_true(survivors(masked) >= 1);
        candid_image_free(masked);
    }
    candid_image_free(image);
}

/* One cell stands out: what survives lies around its middle, in the image's coordinates. */
static void a_view_is_undone(void **state) {
    (void)state;
    static const struct clip_weights clip = {.image_size = 336, .patch_size = 14, .grid = 24};
    static const int sizes[][2] = {{640, 480}, {300, 500}, {336, 336}, {97, 300}};
    static const candid_preprocess modes[] = {CANDID_PREPROCESS_PAD, CANDID_PREPROCESS_CROP, CANDID_PREPROCESS_ANYRES};
    for (size_t s = 0; s < 4; s++) {
        for (int m = 0; m < 3; m++) {
            const int width = sizes[s][0], height = sizes[s][1];
            const struct visual_plan plan = {.mode = modes[m]};
            const struct view_map view = view_map_make(&clip, &plan, width, height);
            const int cy = 11, cx = 13;
            float values[576] = {0};
            values[cy * 24 + cx] = 1;
            candid_image *image = plain_image(width, height), *masked = NULL;
            const struct cell_map map = {values, 24, 24, &view};
            OK(relevance_image(image, &map, RELEVANCE_NATIVE, 0.004, &masked, error));
            double sum_x = 0, sum_y = 0;
            const int n = survivors(masked);
            for (int i = 0; i < width * height; i++) {
                if (survives(masked, i % width, i / width)) {
                    sum_x += i % width + 0.5;
                    sum_y += i / width + 0.5;
                }
            }
            const struct image_rect cell = view_map_cell(&view, cy, cx);
            assert_true(fabs(sum_x / n - (cell.x0 + cell.x1) / 2) < 1);
            assert_true(fabs(sum_y / n - (cell.y0 + cell.y1) / 2) < 1);
            candid_image_free(masked);

            /* what the encoder does not see does not survive, nor count */
            const struct image_rect seen = view_map_seen(&view);
            OK(relevance_image(image, &map, RELEVANCE_NATIVE, 1, &masked, error));
            for (int i = 0; i < width * height; i++) {
                const double x = i % width + 0.5, y = i / width + 0.5;
                const bool is_seen = x > seen.x0 && x < seen.x1 && y > seen.y0 && y < seen.y1;
                const bool is_near = fabs(x - seen.x0) < 1e-6 || fabs(x - seen.x1) < 1e-6 || fabs(y - seen.y0) < 1e-6 ||
                                     fabs(y - seen.y1) < 1e-6;
                assert_true(is_near || is_seen == survives(masked, i % width, i / width));
            }
            candid_image_free(masked);

            /* squeezed and back is the same place */
            OK(relevance_image(image, &map, RELEVANCE_SQUASH, 0.004, &masked, error));
            sum_x = sum_y = 0;
            for (int i = 0; i < N; i++) {
                if (survives(masked, i % SIDE, i / SIDE)) {
                    sum_x += (i % SIDE + 0.5) * width / SIDE;
                    sum_y += (i / SIDE + 0.5) * height / SIDE;
                }
            }
            const int n_squeezed = survivors(masked);
            assert_true(fabs(sum_x / n_squeezed - (cell.x0 + cell.x1) / 2) < 1.5);
            assert_true(fabs(sum_y / n_squeezed - (cell.y0 + cell.y1) / 2) < 1.5);
            candid_image_free(masked);
            candid_image_free(image);
        }
    }
}

/* ---- files ---- */

static void write_png(const char *path, const uint8_t *pixels, int width, int height, int channels) {
    uint8_t *png = NULL;
    size_t size = 0;
    OK(png_encode(pixels, width, height, channels, &png, &size, error));
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(png, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
    free(png);
}

static void maps_from_files(void **state) {
    (void)state;
    char path[] = "relevance_XXXXXX";
    const int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    struct cell_map map;
    static const uint8_t grey[] = {0, 255, 51, 102, 153, 204};
    write_png(path, grey, 3, 2, 1);
    OK(relevance_load(path, &map, error));
    assert_int_equal(map.rows, 2);
    assert_int_equal(map.cols, 3);
    assert_null(map.view);
    for (int i = 0; i < 6; i++) {
        assert_true(map.values[i] == (float)grey[i] / 255.0f);
    }
    free((void *)map.values);

    static const uint8_t red[] = {255, 0, 0};
    write_png(path, red, 1, 1, 3);
    OK(relevance_load(path, &map, error));
    assert_true(map.values[0] == 76.0f / 255.0f); /* Pillow: (255, 0, 0) is 76 in "L" */
    free((void *)map.values);

    /* a large drawing: half white. As a map and after the mask it is still a half */
    uint8_t *drawing = calloc(900 * 500, 1);
    assert_non_null(drawing);
    for (int i = 0; i < 900 * 500; i++) {
        drawing[i] = i % 900 < 450 ? 255 : 0;
    }
    write_png(path, drawing, 900, 500, 1);
    free(drawing);
    OK(relevance_load(path, &map, error));
    assert_int_equal(map.rows, SIDE);
    assert_int_equal(map.cols, SIDE);
    candid_image *image = plain_image(90, 50), *masked = NULL;
    OK(relevance_image(image, &map, RELEVANCE_NATIVE, 0.4, &masked, error));
    for (int i = 0; i < 90 * 50; i++) {
        assert_false(i % 90 >= 45 && survives(masked, i % 90, i / 90));
    }
    candid_image_free(masked);
    candid_image_free(image);
    free((void *)map.values);

    FILE *f = fopen(path, "wb");
    fputs("not an image", f);
    fclose(f);
    candid_error why;
    assert_int_equal(relevance_load(path, &map, &why), CANDID_ERROR_FORMAT);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(relevance_load(path, &map, &why), CANDID_ERROR_IO);
}

/* ---- hostile ---- */

static void hostile(void **state) {
    (void)state;
    float values[4] = {0, 1, 2, 3};
    candid_image *image = plain_image(8, 8), *masked = NULL;
    candid_error why;
    const struct cell_map map = {values, 2, 2, NULL};
    static const double keeps[] = {-1e-9, 1.1, NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof keeps / sizeof *keeps; i++) {
        assert_int_equal(relevance_image(image, &map, RELEVANCE_NATIVE, keeps[i], &masked, &why),
                         CANDID_ERROR_ARGUMENT);
    }
    static const int sizes[][2] = {{0, 2}, {2, 0}, {-1, 2}, {2, CELL_MAP_MAX + 1}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const struct cell_map wrong = {values, sizes[i][0], sizes[i][1], NULL};
        assert_int_equal(relevance_image(image, &wrong, RELEVANCE_NATIVE, 0.5, &masked, &why), CANDID_ERROR_ARGUMENT);
    }
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        values[3] = bad[i];
        assert_int_equal(relevance_image(image, &map, RELEVANCE_SQUASH, 0.5, &masked, &why), CANDID_ERROR_ARGUMENT);
        assert_non_null(strstr(why.message, "relevance: the map's value in row 1, column 1 is"));
    }
    assert_null(masked);
    values[0] = -3e38f; /* the difference is beyond f32 */
    values[3] = 3e38f;
    OK(relevance_image(image, &map, RELEVANCE_NATIVE, 0.5, &masked, error));
    assert_int_equal(survivors(masked), 33);
    candid_image_free(masked);
    candid_image_free(image);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smooth_maps),      cmocka_unit_test(masks),
        cmocka_unit_test(colours),          cmocka_unit_test(shares),
        cmocka_unit_test(a_view_is_undone), cmocka_unit_test(maps_from_files),
        cmocka_unit_test(hostile),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
