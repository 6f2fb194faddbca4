/* Maps over images: geometry, drawing, order statistics. */
#include "vision/cell_map.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"

candid_status cell_map_check(const struct cell_map *map, const char *what, candid_error *error) {
    if (map->rows < 1 || map->cols < 1 || map->rows > CELL_MAP_MAX || map->cols > CELL_MAP_MAX) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: a map of %d×%d cells, expected 1 to %d a side", what, map->cols,
                    map->rows, CELL_MAP_MAX);
    }
    const size_t n = (size_t)map->rows * (size_t)map->cols;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(map->values[i])) {
            return fail(error, CANDID_ERROR_ARGUMENT, "%s: the map's value in row %zu, column %zu is %g", what,
                        i / (size_t)map->cols, i % (size_t)map->cols, (double)map->values[i]);
        }
    }
    return CANDID_OK;
}

/* ---- drawing ---- */

/* Pixels [begin, end) of a row or column of the picture, and between which cells each lies. */
struct axis {
    int begin, end;
    int *low, *high; /* [end - begin] */
    double *t;       /* share of `high` */
};

static void axis_free(struct axis *a) {
    free(a->low);
    free(a->t);
}

/* Pixel i of n looks at cell coordinate (i + 0.5) * scale + offset of `cells`. */
static candid_status axis_make(struct axis *a, int n, int cells, double scale, double offset, candid_error *error) {
    *a = (struct axis){0};
    const double least = 1e-9; /* rounding: a pixel whose centre is on the border of the view is seen */
    for (int i = 0; i < n; i++) {
        const double at = (i + 0.5) * scale + offset;
        if (at >= -least && at <= cells + least) {
            a->begin = a->end > a->begin ? a->begin : i;
            a->end = i + 1;
        }
    }
    const size_t count = (size_t)(a->end - a->begin) + 1;
    a->low = malloc(2 * count * sizeof *a->low);
    a->t = malloc(count * sizeof *a->t);
    if (!a->low || !a->t) {
        return fail_memory(error, "a map over an image", count * (2 * sizeof *a->low + sizeof *a->t));
    }
    a->high = a->low + count;
    for (int i = a->begin; i < a->end; i++) {
        const double at = fmin(fmax((i + 0.5) * scale + offset - 0.5, 0), cells - 1);
        const int k = i - a->begin, low = (int)at;
        a->low[k] = low;
        a->high[k] = low + (low < cells - 1);
        a->t[k] = at - low;
    }
    return CANDID_OK;
}

static candid_status draw(const struct cell_map *map, const struct axis *x, const struct axis *y, float **out,
                          candid_error *error) {
    const size_t width = (size_t)(x->end - x->begin), height = (size_t)(y->end - y->begin);
    float *values = malloc((width * height + 1) * sizeof *values), *to = values;
    if (!values) {
        return fail_memory(error, "a map over an image", width * height * sizeof *values);
    }
    for (size_t r = 0; r < height; r++) {
        const float *above = map->values + (size_t)y->low[r] * (size_t)map->cols;
        const float *below = map->values + (size_t)y->high[r] * (size_t)map->cols;
        const double ty = y->t[r];
        for (size_t c = 0; c < width; c++) {
            const int low = x->low[c], high = x->high[c];
            const double tx = x->t[c];
            const double upper = (double)above[low] + ((double)above[high] - (double)above[low]) * tx;
            const double lower = (double)below[low] + ((double)below[high] - (double)below[low]) * tx;
            *to++ = (float)(upper + (lower - upper) * ty);
        }
    }
    *out = values;
    return CANDID_OK;
}

candid_status cell_map_draw(const struct cell_map *map, int width, int height, struct image_box *seen, float **out,
                            candid_error *error) {
    double scale_x = (double)map->cols / width, scale_y = (double)map->rows / height, offset_x = 0, offset_y = 0;
    const struct view_map *v = map->view;
    if (v) { /* pixel of the picture -> of the image -> of the view -> cell */
        const double cells_x = (double)map->cols / (v->grid * v->patch),
                     cells_y = (double)map->rows / (v->grid * v->patch);
        scale_x = (double)v->width / width * v->scale_x * cells_x;
        scale_y = (double)v->height / height * v->scale_y * cells_y;
        offset_x = v->offset_x * cells_x;
        offset_y = v->offset_y * cells_y;
    }
    struct axis x = {0}, y = {0};
    candid_status status;
    TRY_GOTO(axis_make(&x, width, map->cols, scale_x, offset_x, error), status, done);
    TRY_GOTO(axis_make(&y, height, map->rows, scale_y, offset_y, error), status, done);
    if (x.end == x.begin || y.end == y.begin) {
        status = fail(error, CANDID_ERROR_ARGUMENT, "the map's view shows nothing of the image of %d×%d pixels", width,
                      height);
        goto done;
    }
    *seen = (struct image_box){x.begin, y.begin, x.end, y.end};
    status = draw(map, &x, &y, out, error);
done:
    axis_free(&x);
    axis_free(&y);
    return status;
}

/* ---- cells of the image ---- */

static int fitted(double cells) {
    return cells < 1 ? 1 : cells > CELL_MAP_MAX_FITTED ? CELL_MAP_MAX_FITTED : (int)lround(cells);
}

void cell_map_fit(const struct view_map *view, int *rows, int *cols) {
    *cols = fitted(view->width * view->scale_x / view->patch);
    *rows = fitted(view->height * view->scale_y / view->patch);
}

/* How much of cell i of n cells of the image, in cells of the map, cell k of the map covers: from 0 to 1. */
static double share_of(int i, int n, int k, double length, double offset) {
    const double begin = i * length / n + offset, end = (i + 1) * length / n + offset;
    const double covered = fmin(end, k + 1) - fmax(begin, k);
    return covered > 0 ? covered / (end - begin) : 0;
}

void cell_map_to_image(const struct cell_map *map, int rows, int cols, float *out) {
    const struct view_map *v = map->view;
    double length_x = map->cols, length_y = map->rows, offset_x = 0,
           offset_y = 0; /* of the image, in the map's cells */
    if (v) {
        const double cells_x = (double)map->cols / (v->grid * v->patch),
                     cells_y = (double)map->rows / (v->grid * v->patch);
        length_x = v->width * v->scale_x * cells_x;
        length_y = v->height * v->scale_y * cells_y;
        offset_x = v->offset_x * cells_x;
        offset_y = v->offset_y * cells_y;
    }
    for (int y = 0; y < rows; y++) {
        for (int x = 0; x < cols; x++) {
            double sum = 0;
            for (int r = 0; r < map->rows; r++) {
                const double share_y = share_of(y, rows, r, length_y, offset_y);
                for (int c = 0; share_y > 0 && c < map->cols; c++) {
                    sum += share_y * share_of(x, cols, c, length_x, offset_x) *
                           (double)map->values[(size_t)r * (size_t)map->cols + (size_t)c];
                }
            }
            out[(size_t)y * (size_t)cols + (size_t)x] = (float)sum;
        }
    }
}

/* ---- order ---- */

/* An integer in the order of the floats. */
static uint32_t ordered(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

/* Eleven bits at a time from the top: no copy of the values, which may be those of a large image. */
float values_rank(const float *values, size_t n, size_t rank) {
    uint32_t found = 0, known = 0; /* the bits of the value so far, and which those are */
    for (int pass = 0; pass < 3; pass++) {
        static const int shifts[] = {21, 10, 0};
        static const uint32_t masks[] = {2047, 2047, 1023};
        size_t counts[2048] = {0}, bin = 0;
        for (size_t i = 0; i < n; i++) {
            const uint32_t bits = ordered(values[i]);
            counts[bits >> shifts[pass] & masks[pass]] += (bits & known) == found;
        }
        while (bin < masks[pass] && rank >= counts[bin]) {
            rank -= counts[bin++];
        }
        known |= masks[pass] << shifts[pass];
        found |= (uint32_t)bin << shifts[pass];
    }
    const uint32_t bits = found >> 31 ? found & 0x7fffffffu : ~found;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

double values_percentile(const float *values, size_t n, double share) {
    const double at = share * (double)(n - 1);
    const size_t low = (size_t)at, high = low + 1 < n ? low + 1 : low;
    const double a = (double)values_rank(values, n, low), b = (double)values_rank(values, n, high),
                 t = at - (double)low;
    return t < 0.5 ? a + (b - a) * t : b - (b - a) * (1 - t); /* numpy's order of operations */
}
