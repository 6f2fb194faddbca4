/* Heat maps: colours, bilinear drawing through the view's geometry, blending. */
#include "vision/heat_map.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"

/* The veil over the image: even the lowest value darkens, so that high ones glow on bright pictures, too. */
#define LEAST_OPACITY  0.45f
#define MOST_OPACITY   0.75f
#define UNSEEN_OPACITY 0.8f
#define UNSEEN_GREY    235
#define HEAT_ANCHORS   9

void heat_colour(float value, uint8_t rgb[3]) {
    static const uint8_t anchors[HEAT_ANCHORS][3] = {
        {0, 0, 4},     {31, 12, 72},   {85, 15, 109},  {136, 34, 106},  {186, 54, 85},
        {227, 89, 51}, {249, 140, 10}, {249, 201, 50}, {252, 255, 164},
    };
    const float x = (value > 0.0f ? value < 1.0f ? value : 1.0f : 0.0f) * (HEAT_ANCHORS - 1); /* NaN: 0 */
    const int i = x < HEAT_ANCHORS - 2 ? (int)x : HEAT_ANCHORS - 2;
    const float t = x - (float)i;
    for (int c = 0; c < 3; c++) {
        rgb[c] = (uint8_t)lroundf((float)anchors[i][c] * (1.0f - t) + (float)anchors[i + 1][c] * t);
    }
}

static float clamp(float x, float low, float high) {
    return x < low ? low : x > high ? high : x;
}

/* Bilinear between the centres of cells. */
static float value_at(const float *values, int grid, double grid_x, double grid_y) {
    const float last = (float)(grid - 1);
    const float x = clamp((float)grid_x - 0.5f, 0.0f, last), y = clamp((float)grid_y - 0.5f, 0.0f, last);
    const int x0 = (int)x, y0 = (int)y, x1 = x0 + (x0 < grid - 1), y1 = y0 + (y0 < grid - 1);
    const float tx = x - (float)x0, ty = y - (float)y0;
    const float above = values[y0 * grid + x0] * (1.0f - tx) + values[y0 * grid + x1] * tx;
    const float below = values[y1 * grid + x0] * (1.0f - tx) + values[y1 * grid + x1] * tx;
    return above * (1.0f - ty) + below * ty;
}

void heat_layer(const struct view_map *m, const float *values, float full, int width, int height, uint8_t *rgba) {
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width; x++, rgba += 4) {
            double gx, gy;
            view_map_point(m, (x + 0.5) * m->width / width, (y + 0.5) * m->height / height, &gx, &gy);
            if (gx < 0 || gy < 0 || gx >= m->grid || gy >= m->grid) {
                memset(rgba, UNSEEN_GREY, 3);
                rgba[3] = (uint8_t)(UNSEEN_OPACITY * 255.0f);
                continue;
            }
            const float v = full > 0.0f ? clamp(value_at(values, m->grid, gx, gy) / full, 0.0f, 1.0f) : 0.0f;
            heat_colour(v, rgba);
            rgba[3] = (uint8_t)lroundf(255.0f * (LEAST_OPACITY + (MOST_OPACITY - LEAST_OPACITY) * v));
        }
    }
}

void heat_blend(uint8_t *rgb, const uint8_t *rgba, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const int a = rgba[4 * i + 3];
        for (size_t c = 0; c < 3; c++) {
            rgb[3 * i + c] = (uint8_t)((rgb[3 * i + c] * (255 - a) + rgba[4 * i + c] * a + 127) / 255);
        }
    }
}

void heat_fade(uint8_t *rgb, size_t n, float keep) {
    for (uint8_t *p = rgb; p < rgb + 3 * n; p += 3) {
        const float grey = 0.2126f * (float)p[0] + 0.7152f * (float)p[1] + 0.0722f * (float)p[2]; /* CSS grayscale() */
        for (int c = 0; c < 3; c++) {
            p[c] = (uint8_t)lroundf(grey + ((float)p[c] - grey) * keep);
        }
    }
}

candid_status heat_overlay(const struct view_map *map, const float *values, float full, int width, int height,
                           uint8_t *rgb, candid_error *error) {
    const size_t n = (size_t)width * (size_t)height;
    uint8_t *layer = malloc(4 * n);
    if (!layer) {
        return fail_memory(error, "a heat map", 4 * n);
    }
    heat_fade(rgb, n, HEAT_KEEP_COLOUR);
    heat_layer(map, values, full, width, height, layer);
    heat_blend(rgb, layer, n);
    free(layer);
    return CANDID_OK;
}

static int ascending(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

float heat_quantile(const float *values, size_t n, double share, float *room) {
    if (n == 0) {
        return 0.0f;
    }
    memcpy(room, values, n * sizeof *room);
    qsort(room, n, sizeof *room, ascending);
    const double at = ceil(share * (double)n) - 1.0;
    return room[at < 0.0 ? 0 : at > (double)(n - 1) ? n - 1 : (size_t)at];
}
