/* ViCrop: the choice of the box. */
#include "vision/vicrop.h"

#include <math.h>
#include <stdlib.h>

#include "core/status.h"

#define N_RATIOS 6

candid_status vicrop_relative(const float *question, const float *general, int n, float *out, candid_error *error) {
    for (int i = 0; i < n; i++) {
        if (!(question[i] >= 0 && isfinite(question[i])) || !(general[i] >= 0 && isfinite(general[i]))) {
            return fail(error, CANDID_ERROR_ARGUMENT, "relative attention: token %d of the image has %g and %g", i,
                        (double)question[i], (double)general[i]);
        }
    }
    for (int i = 0; i < n; i++) {
        out[i] = question[i] / fmaxf(general[i], 1e-8f);
    }
    return CANDID_OK;
}

/* A window of w × h cells at (x, y). */
struct placed {
    int x, y, w, h;
    double sharpness;
};

/* sums: (rows - h + 1, cols - w + 1) of the windows at each place; `lines`: (rows, cols - w + 1). Each sum is made by
 * the same additions in the same order, so that equal windows have equal sums. */
static void window_sums(const struct cell_map *m, int w, int h, double *lines, double *sums) {
    const int n_x = m->cols - w + 1, n_y = m->rows - h + 1;
    for (int y = 0; y < m->rows; y++) {
        for (int x = 0; x < n_x; x++) {
            double sum = 0;
            for (int i = 0; i < w; i++) {
                sum += (double)m->values[(size_t)y * (size_t)m->cols + (size_t)(x + i)];
            }
            lines[(size_t)y * (size_t)n_x + (size_t)x] = sum;
        }
    }
    for (int y = 0; y < n_y; y++) {
        for (int x = 0; x < n_x; x++) {
            double sum = 0;
            for (int i = 0; i < h; i++) {
                sum += lines[(size_t)(y + i) * (size_t)n_x + (size_t)x];
            }
            sums[(size_t)y * (size_t)n_x + (size_t)x] = sum;
        }
    }
}

/* Puts the window where its sum is greatest; the map is larger than the window in one direction at least. */
static void place(const struct cell_map *m, struct placed *p, double *lines, double *sums) {
    const int n_x = m->cols - p->w + 1, n_y = m->rows - p->h + 1;
    window_sums(m, p->w, p->h, lines, sums);
    double best = -INFINITY;
    for (int x = 0; x < n_x; x++) {
        for (int y = 0; y < n_y; y++) {
            if (sums[(size_t)y * (size_t)n_x + (size_t)x] > best) {
                best = sums[(size_t)y * (size_t)n_x + (size_t)x];
                p->x = x;
                p->y = y;
            }
        }
    }
    const double *at = sums + (size_t)p->y * (size_t)n_x + (size_t)p->x;
    double around = 0;
    int n = 0;
    if (p->x > 0) {
        around += at[-1], n++;
    }
    if (p->x < n_x - 1) {
        around += at[1], n++;
    }
    if (p->y > 0) {
        around += at[-n_x], n++;
    }
    if (p->y < n_y - 1) {
        around += at[n_x], n++;
    }
    p->sharpness = (best - around / n) / ((double)p->w * p->h);
}

static int window_cells(double pixels, double cell, int n) {
    const double cells = pixels / cell;
    return cells >= n ? n : cells < 1 ? 1 : (int)cells;
}

/* [*from, *to): 2 half pixels around `centre`, moved into [0, size) and cut to it. */
static void clamp_side(int centre, int half, int size, int *from, int *to) {
    centre = centre < half ? half : centre;
    centre = centre > size - half ? size - half : centre;
    *from = centre - half > 0 ? centre - half : 0;
    *to = centre + half < size ? centre + half : size;
}

/* lines and sums: rows * cols each. */
static void choose(const struct cell_map *m, int width, int height, int side, double *lines, double *sums,
                   struct image_box *box) {
    static const double ratios[N_RATIOS] = {1, 1.2, 1.4, 1.6, 1.8, 2};
    const double cell_w = (double)width / m->cols, cell_h = (double)height / m->rows;
    struct placed best = {0};
    double best_side = 0;
    for (int r = 0; r < N_RATIOS; r++) {
        const double pixels = side * ratios[r];
        struct placed p = {.w = window_cells(pixels, cell_w, m->cols), .h = window_cells(pixels, cell_h, m->rows)};
        if (p.w == m->cols && p.h == m->rows) { /* at larger ratios, too */
            break;
        }
        place(m, &p, lines, sums);
        if (best_side == 0 || p.sharpness > best.sharpness) {
            best = p;
            best_side = pixels;
        }
    }
    if (best_side == 0) {
        *box = (struct image_box){0, 0, width, height};
        return;
    }
    const int half = (int)(best_side / 2);
    clamp_side((int)(best.x * cell_w + cell_w * best.w / 2), half, width, &box->x0, &box->x1);
    clamp_side((int)(best.y * cell_h + cell_h * best.h / 2), half, height, &box->y0, &box->y1);
}

candid_status vicrop_box(const struct cell_map *map, int width, int height, int side, struct image_box *box,
                         candid_error *error) {
    TRY(cell_map_check(map, "vicrop", error));
    if (width < 1 || height < 1 || width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE || side < 2 ||
        side > IMAGE_MAX_SIDE) {
        return fail(error, CANDID_ERROR_ARGUMENT, "vicrop: a box of %d pixels on an image of %d×%d", side, width,
                    height);
    }
    struct cell_map m = *map;
    if (map->view) {
        cell_map_fit(map->view, &m.rows, &m.cols);
    }
    const size_t n = (size_t)m.rows * (size_t)m.cols;
    float *values = malloc(n * sizeof *values);
    double *room = malloc(2 * n * sizeof *room);
    if (!values || !room) {
        free(values);
        free(room);
        return fail_memory(error, "vicrop", n * (sizeof *values + 2 * sizeof *room));
    }
    if (map->view) {
        cell_map_to_image(map, m.rows, m.cols, values);
        m.values = values;
    }
    choose(&m, width, height, side, room, room + n, box);
    free(values);
    free(room);
    return CANDID_OK;
}
