/* The parts of `candid inspect` that compute: geometry back to the image, heat maps, PNG files, words, measuring plans.
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

#include "decode/words.h"
#include "interventions/measure.h"
#include "model/weights.h"
#include "vision/decode.h"
#include "vision/heat_map.h"
#include "vision/map_back.h"
#include "vision/png_write.h"

#define SIZE  56
#define PATCH 14
#define GRID  4

static const struct clip_weights clip = {.image_size = SIZE, .patch_size = PATCH, .grid = GRID};

static struct view_map map_of(candid_preprocess mode, int width, int height) {
    const struct visual_plan plan = {.mode = mode};
    return view_map_make(&clip, &plan, width, height);
}

/* A black image with one white rectangle, clipped to it. Must be freed. */
static uint8_t *marked(int width, int height, const struct image_rect *r) {
    uint8_t *rgb = calloc((size_t)width * (size_t)height, 3);
    assert_non_null(rgb);
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width; x++) {
            if (x + 0.5 >= r->x0 && x + 0.5 < r->x1 && y + 0.5 >= r->y0 && y + 0.5 < r->y1) {
                memset(rgb + 3 * ((size_t)y * (size_t)width + (size_t)x), 255, 3);
            }
        }
    }
    return rgb;
}

/* What the encoder is given of the image, as values from 0 to 1 of one channel, (SIZE, SIZE). */
static void encoder_sees(candid_preprocess mode, const uint8_t *rgb, int width, int height, float *view) {
    static const float mean[3] = {0, 0, 0}, std[3] = {1, 1, 1};
    static float pixels[3 * SIZE * SIZE];
    candid_image *image = NULL;
    assert_int_equal(candid_image_from_rgb(rgb, width, height, 3 * (size_t)width, &image, NULL), CANDID_OK);
    if (mode == CANDID_PREPROCESS_ANYRES) {
        const struct image_view whole = {.width = SIZE, .height = SIZE};
        assert_int_equal(image_preprocess_view(image, &whole, SIZE, mean, std, pixels, NULL), CANDID_OK);
    } else {
        assert_int_equal(image_preprocess(image, mode, SIZE, mean, std, pixels, NULL), CANDID_OK);
    }
    memcpy(view, pixels, SIZE * SIZE * sizeof *view);
    candid_image_free(image);
}

/* Paints what the map says a cell is and looks where the encoder sees the paint: in that cell, up to one pixel. */
static void check_cell(candid_preprocess mode, int width, int height, int cy, int cx) {
    const struct view_map m = map_of(mode, width, height);
    const struct image_rect r = view_map_cell(&m, cy, cx);
    static float view[SIZE * SIZE];
    uint8_t *rgb = marked(width, height, &r);
    encoder_sees(mode, rgb, width, height, view);
    free(rgb);
    /* the part of the cell that shows the image, in view pixels */
    const double x0 = fmax(r.x0, 0) * m.scale_x + m.offset_x, x1 = fmin(r.x1, width) * m.scale_x + m.offset_x;
    const double y0 = fmax(r.y0, 0) * m.scale_y + m.offset_y, y1 = fmin(r.y1, height) * m.scale_y + m.offset_y;
    assert_true(x0 >= cx * PATCH - 1e-6 && x1 <= (cx + 1) * PATCH + 1e-6);
    double mass = 0, at_x = 0, at_y = 0;
    for (int y = 0; y < SIZE; y++) {
        for (int x = 0; x < SIZE; x++) {
            const double v = fmax((double)view[y * SIZE + x], 0);
            if (x + 0.5 < x0 - 1.6 || x + 0.5 > x1 + 1.6 || y + 0.5 < y0 - 1.6 || y + 0.5 > y1 + 1.6) {
                assert_true(v < 0.12);
            }
            if (x + 0.5 > x0 + 1.6 && x + 0.5 < x1 - 1.6 && y + 0.5 > y0 + 1.6 && y + 0.5 < y1 - 1.6) {
                assert_true(v > 0.85);
            }
            mass += v;
            at_x += v * (x + 0.5);
            at_y += v * (y + 0.5);
        }
    }
    /* the rectangle was painted in whole pixels of the original, which may be larger than those of the view */
    if (fabs(at_x / mass - (x0 + x1) / 2) > 0.3 + 0.5 * m.scale_x ||
        fabs(at_y / mass - (y0 + y1) / 2) > 0.3 + 0.5 * m.scale_y) {
        fail_msg("mode %d, %d×%d, cell (%d, %d): seen at (%g, %g), expected (%g, %g)", (int)mode, width, height, cy, cx,
                 at_x / mass, at_y / mass, (x0 + x1) / 2, (y0 + y1) / 2);
    }
}

static void test_cells(void **state) {
    static const int sizes[][2] = {{300, 200}, {200, 333}, {97, 64}, {56, 56}, {640, 480}, {30, 41}};
    static const candid_preprocess modes[] = {CANDID_PREPROCESS_PAD, CANDID_PREPROCESS_CROP, CANDID_PREPROCESS_ANYRES};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        for (size_t m = 0; m < 3; m++) {
            const struct view_map map = map_of(modes[m], sizes[s][0], sizes[s][1]);
            int seen = 0;
            for (int cell = 0; cell < GRID * GRID; cell++) {
                const struct image_rect r = view_map_cell(&map, cell / GRID, cell % GRID);
                const double w = (fmin(r.x1, map.width) - fmax(r.x0, 0)) * map.scale_x;
                const double h = (fmin(r.y1, map.height) - fmax(r.y0, 0)) * map.scale_y;
                assert_int_equal(view_map_is_padding(&map, cell / GRID, cell % GRID), w <= 1e-6 || h <= 1e-6);
                if (w > 4 && h > 4) {
                    check_cell(modes[m], sizes[s][0], sizes[s][1], cell / GRID, cell % GRID);
                    seen++;
                }
            }
            assert_true(seen >= 8);
        }
    }
}

/* By hand: 300×200 in a view of 56 pixels with cells of 14. */
static void test_numbers(void **state) {
    const struct view_map pad = map_of(CANDID_PREPROCESS_PAD, 300, 200);
    const struct image_rect a = view_map_cell(&pad, 1, 2); /* square of 300, image 50 down: cells of 75 */
    assert_true(fabs(a.x0 - 150) < 1e-9 && fabs(a.x1 - 225) < 1e-9 && fabs(a.y0 - 25) < 1e-9 &&
                fabs(a.y1 - 100) < 1e-9);
    assert_false(view_map_is_padding(&pad, 0, 0));
    assert_true(view_map_is_padding(
        &(struct view_map){
            .scale_x = 1, .scale_y = 1, .offset_y = 14, .patch = 14, .grid = 4, .width = 56, .height = 28},
        0, 3));
    const struct view_map crop = map_of(CANDID_PREPROCESS_CROP, 300, 200);
    const struct image_rect b = view_map_cell(&crop, 0, 0); /* 84×56, the middle 56: 14 of 84 = 50 of 300 cut off */
    assert_true(fabs(b.x0 - 50) < 1e-9 && fabs(b.x1 - 100) < 1e-9 && fabs(b.y0) < 1e-9 && fabs(b.y1 - 50) < 1e-9);
    const struct image_rect seen = view_map_seen(&crop);
    assert_true(fabs(seen.x0 - 50) < 1e-9 && fabs(seen.x1 - 250) < 1e-9 && fabs(seen.y1 - 200) < 1e-9);
    double x, y;
    view_map_point(&crop, 75, 25, &x, &y);
    assert_true(fabs(x - 0.5) < 1e-9 && fabs(y - 0.5) < 1e-9);
}

/* One hot cell: the picture is brightest at its centre; what was cut off is veiled. */
static void test_heat(void **state) {
    const struct view_map crop = map_of(CANDID_PREPROCESS_CROP, 300, 200);
    float values[GRID * GRID] = {0};
    values[2 * GRID + 1] = 1.0f;
    static uint8_t layer[150 * 100 * 4];
    heat_layer(&crop, values, 1.0f, 150, 100, layer);
    int best = 0, at = 0;
    for (int i = 0; i < 150 * 100; i++) {
        const int x = i % 150, bright = layer[4 * i] + layer[4 * i + 1] + layer[4 * i + 2];
        if (x < 25 || x >= 125) {
            assert_int_equal(layer[4 * i], layer[4 * i + 1]);
            assert_int_equal(layer[4 * i + 3], layer[3]);
        } else if (bright > best) {
            best = bright;
            at = i;
        }
    }
    assert_true(abs(at % 150 - 62) <= 1 && abs(at / 150 - 62) <= 1); /* (125, 125) of the original */
    uint8_t rgb[6] = {10, 20, 30, 200, 200, 200};
    heat_blend(rgb, (const uint8_t[]){100, 100, 100, 0, 100, 0, 0, 255}, 2);
    assert_int_equal(rgb[0], 10);
    assert_int_equal(rgb[3], 100);
    assert_int_equal(rgb[4], 0);
    uint8_t dark[3], bright[3], none[3];
    heat_colour(0.0f, dark);
    heat_colour(7.0f, bright);
    heat_colour(NAN, none);
    assert_true(dark[0] < 10 && bright[0] > 240 && none[0] == dark[0]);
    float room[5];
    assert_true(heat_quantile((const float[]){5, 1, 4, 2, 3}, 5, 1.0, room) == 5.0f);
    assert_true(heat_quantile((const float[]){5, 1, 4, 2, 3}, 5, 0.6, room) == 3.0f);
    assert_true(heat_quantile((const float[]){5, 1, 4, 2, 3}, 5, 0.0, room) == 1.0f);
}

static void test_png(void **state) {
    uint8_t rgb[7 * 5 * 3], *png = NULL;
    size_t size = 0;
    for (size_t i = 0; i < sizeof rgb; i++) {
        rgb[i] = (uint8_t)(i * 37);
    }
    assert_int_equal(png_encode(rgb, 7, 5, 3, &png, &size, NULL), CANDID_OK);
    candid_image *image = NULL;
    assert_int_equal(candid_image_load_memory(png, size, "made", &image, NULL), CANDID_OK);
    assert_int_equal(image->width, 7);
    assert_int_equal(image->height, 5);
    assert_memory_equal(image->rgb, rgb, sizeof rgb);
    candid_image_free(image);
    free(png);
    assert_int_equal(png_encode(rgb, 0, 5, 3, &png, &size, NULL), CANDID_ERROR_UNSUPPORTED);
    assert_int_equal(png_encode(rgb, 60000, 60000, 3, &png, &size, NULL), CANDID_ERROR_UNSUPPORTED);
}

/* tokens: the pieces, NULL-terminated. expected: "word@token+n_tokens word@…". */
static void check_words(const char *const *tokens, const char *expected) {
    char text[256] = "", found[256] = "";
    size_t ends[32], n = 0;
    for (; tokens[n]; n++) {
        strcat(text, tokens[n]);
        ends[n] = strlen(text);
    }
    struct word words[129];
    const size_t n_words = words_split(text, strlen(text), ends, n, words);
    for (size_t i = 0; i < n_words; i++) {
        snprintf(found + strlen(found), sizeof found - strlen(found), "%s%.*s@%zu+%zu", i > 0 ? " " : "",
                 (int)(words[i].end - words[i].begin), text + words[i].begin, words[i].token, words[i].n_tokens);
    }
    assert_string_equal(found, expected);
}

static void test_words(void **state) {
    check_words((const char *const[]){" A", " dog", " and", " a", " gir", "affe", ".", NULL},
                "A@0+1 dog@1+1 and@2+1 a@3+1 giraffe@4+2");
    check_words((const char *const[]){"", " ", "\"", "cat", "s\"", ",", "", "\n", "\n", "x", "", NULL},
                "cats@3+2 x@9+1");
    check_words((const char *const[]){" well", "-", "lit", " ...", " caf", "\xC3", "\xA9", "!", NULL},
                "well-lit@0+3 caf\xC3\xA9@4+3");
    check_words((const char *const[]){"one two three", " four", NULL}, "one@0+1 two@0+1 three@0+1 four@1+1");
    check_words((const char *const[]){" ", "...", NULL}, "");
    check_words((const char *const[]){NULL}, "");

    static const char *const things[] = {"dog", "Giraffe", "couch", "tv", "elephant", "caf\xC3\xA9"};
    static const char *const others[] = {"the", "The", "is", "a", "7", "of", "image", "x", "bottom", "showing"};
    for (size_t i = 0; i < sizeof things / sizeof *things; i++) {
        assert_true(word_is_content(things[i], strlen(things[i])));
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_false(word_is_content(others[i], strlen(others[i])));
    }
    assert_true(word_equals("Dog", 3, "dog", 3));
    assert_false(word_equals("Dog", 3, "dogs", 4));
}

/* The probes of a measuring plan fill the tables they were given. */
static void test_measure(void **state) {
    const struct model_facts facts = {.n_layer = 2, .n_head = 2, .n_head_kv = 2, .head_dim = 2, .n_embd = 4};
    struct layout layout = {0};
    assert_int_equal(layout_append(&layout, SPAN_SYSTEM, 1, -1, 0, 0, NULL), CANDID_OK);
    assert_int_equal(layout_append(&layout, SPAN_IMAGE, 4, 0, 2, 2, NULL), CANDID_OK);
    assert_int_equal(layout_append(&layout, SPAN_QUESTION, 1, -1, 0, 0, NULL), CANDID_OK);
    float divergence[4] = {0}, peaks[12] = {0};
    struct plan *plan = NULL;
    assert_int_equal(measure_create(&facts, &layout, &plan, NULL), CANDID_OK);
    assert_int_equal(measure_heads(plan, &facts, &(struct vhr_rule){0}, divergence, NULL), CANDID_OK);
    assert_int_equal(measure_peaks(plan, (const int[]){1, 3}, 2, peaks, NULL), CANDID_OK);
    assert_int_equal(plan->n_steps, 2);
    assert_true(plan->companions[ROLE_TEXT_ONLY] && plan->whole_prompt);
    struct plan_step *heads = &plan->steps[0], *phi = &plan->steps[1];
    assert_true(heads->layers[0] && heads->layers[1] && phi->layers[1]);
    assert_int_equal(phi->dims[1], 3);
    heads->decide(heads, &(struct probe_result){
                             .layer = 1, .own = (const float[]){3, 4, 1, 1}, .other = (const float[]){0, 0, 1, 0}});
    assert_true(fabsf(divergence[2] - 5.0f) < 1e-6f && fabsf(divergence[3] - 1.0f) < 1e-6f && divergence[0] == 0.0f);
    phi->decide(phi, &(struct probe_result){.layer = 1, .first = 2, .n_rows = 2, .peaks = (const float[]){7, 8}});
    assert_true(peaks[8] == 7.0f && peaks[9] == 8.0f && peaks[7] == 0.0f);
    plan_free(plan);
    const struct model_facts wide = {.n_layer = 1, .n_head = VHR_MOST_HEADS + 1, .head_dim = 1, .n_embd = 4};
    assert_int_equal(measure_create(&wide, &layout, &plan, NULL), CANDID_OK);
    assert_int_equal(measure_heads(plan, &wide, &(struct vhr_rule){0}, divergence, NULL), CANDID_ERROR_UNSUPPORTED);
    plan_free(plan);
    layout_free(&layout);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cells), cmocka_unit_test(test_numbers), cmocka_unit_test(test_heat),
        cmocka_unit_test(test_png),   cmocka_unit_test(test_words),   cmocka_unit_test(test_measure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
