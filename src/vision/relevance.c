/* AGLA's masked image: spline, blur, threshold. */
#include "vision/relevance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "vision/decode.h"

#define SIDE    RELEVANCE_SIDE
#define PADDING 12 /* zeros around a map before its splines are fitted: what lies further is below 0.27^12 */

/* A plane of numbers, rows × cols; all passes go along the rows and transpose, so that two make a whole. */
struct plane {
    int rows, cols;
    double *v;
};

static candid_status plane_make(struct plane *p, int rows, int cols, candid_error *error) {
    *p = (struct plane){rows, cols, calloc((size_t)rows * (size_t)cols, sizeof *p->v)};
    return p->v ? CANDID_OK : fail_memory(error, "a relevance map", (size_t)rows * (size_t)cols * sizeof *p->v);
}

static void plane_replace(struct plane *p, struct plane *by) {
    free(p->v);
    *p = *by;
    by->v = NULL;
}

/* Minimum subtracted, divided by the maximum. */
static void normalise(struct plane *p) {
    const size_t n = (size_t)p->rows * (size_t)p->cols;
    double low = p->v[0], high = p->v[0];
    for (size_t i = 1; i < n; i++) {
        low = fmin(low, p->v[i]);
        high = fmax(high, p->v[i]);
    }
    for (size_t i = 0; i < n; i++) {
        p->v[i] = high > low ? (p->v[i] - low) / (high - low) : 0;
    }
}

/* ---- Gaussian ---- */

enum beyond { BEYOND_ZERO, BEYOND_MIRROR }; /* what lies outside: 0, or … b a | a b c … */

/* Position i of a row of n, brought back into it; -1: nothing there. */
static int inside(int i, int n, enum beyond beyond) {
    if (i >= 0 && i < n) {
        return i;
    }
    if (beyond == BEYOND_ZERO) {
        return -1;
    }
    const int period = 2 * n, at = (i % period + period) % period;
    return at < n ? at : period - 1 - at;
}

/* Blurs along the rows and transposes. */
static candid_status blur_rows(struct plane *p, double sigma, enum beyond beyond, candid_error *error) {
    const int radius = (int)(4 * sigma + 0.5);
    struct plane out = {0};
    TRY(plane_make(&out, p->cols, p->rows, error));
    double *weights = malloc((2 * (size_t)radius + 1) * sizeof *weights), sum = 0;
    double *line = malloc(((size_t)p->cols + 2 * (size_t)radius) * sizeof *line); /* the row with what lies beyond */
    if (!weights || !line) {
        free(weights);
        free(line);
        free(out.v);
        return fail_memory(error, "a relevance map", (size_t)p->cols * sizeof *line);
    }
    for (int i = -radius; i <= radius; i++) {
        weights[i + radius] = sigma > 0 ? exp(-0.5 / (sigma * sigma) * i * i) : 1;
        sum += weights[i + radius];
    }
    for (int y = 0; y < p->rows; y++) {
        const double *row = p->v + (size_t)y * (size_t)p->cols;
        for (int x = -radius; x < p->cols + radius; x++) {
            const int from = inside(x, p->cols, beyond);
            line[x + radius] = from < 0 ? 0 : row[from];
        }
        for (int x = 0; x < p->cols; x++) {
            double total = 0;
            for (int i = 0; i <= 2 * radius; i++) {
                total += weights[i] * line[x + i];
            }
            out.v[(size_t)x * (size_t)out.cols + (size_t)y] = total / sum;
        }
    }
    free(weights);
    free(line);
    plane_replace(p, &out);
    return CANDID_OK;
}

/* ---- splines ---- */

/* From n > 2 values to the coefficients of the cubic B-spline through them, mirrored beyond its ends: solves
 * c[i-1] + 4 c[i] + c[i+1] = 6 f[i] from the top down and back. `room`: n. */
static void spline_coefficients(double *f, int n, double *room) {
    room[0] = 0.5; /* 4 c0 + 2 c1 = 6 f0 */
    f[0] *= 1.5;
    for (int i = 1; i < n; i++) {
        const double before = i == n - 1 ? 2 : 1, pivot = 4 - before * room[i - 1];
        room[i] = 1 / pivot;
        f[i] = (6 * f[i] - before * f[i - 1]) / pivot;
    }
    for (int i = n - 2; i >= 0; i--) {
        f[i] -= room[i] * f[i + 1];
    }
}

/* The spline between coefficients c[0] and c[1], which have c[-1] and c[2] beside them. */
static double spline_at(const double *c, double t) {
    const double s = 1 - t;
    return (s * s * s * c[-1] + (3 * t * t * (t - 2) + 4) * c[0] + (3 * s * s * (s - 2) + 4) * c[1] +
            t * t * t * c[2]) /
           6;
}

/* Resizes along the rows to `cols` and transposes. */
static candid_status spline_rows(struct plane *p, int cols, candid_error *error) {
    struct plane out = {0};
    const int n = p->cols + 2 * PADDING;
    TRY(plane_make(&out, cols, p->rows, error));
    double *line = malloc(2 * (size_t)n * sizeof *line);
    if (!line) {
        free(out.v);
        return fail_memory(error, "a relevance map", 2 * (size_t)n * sizeof *line);
    }
    for (int y = 0; y < p->rows; y++) {
        memset(line, 0, (size_t)n * sizeof *line);
        memcpy(line + PADDING, p->v + (size_t)y * (size_t)p->cols, (size_t)p->cols * sizeof *line);
        spline_coefficients(line, n, line + n);
        for (int x = 0; x < cols; x++) {
            const double at = (x + 0.5) * p->cols / cols - 0.5 + PADDING;
            const int low = (int)at;
            out.v[(size_t)x * (size_t)out.cols + (size_t)y] = spline_at(line + low, at - low);
        }
    }
    free(line);
    plane_replace(p, &out);
    return CANDID_OK;
}

/* ---- the smooth map ---- */

static candid_status soften(struct plane *p, candid_error *error) {
    normalise(p);
    /* blurring and fitting are linear and work axis by axis, so their order does not matter: rows first, then columns
     */
    for (int axis = 0; axis < 2; axis++) { /* sigma 0 turns only */
        TRY(blur_rows(p, fmax((double)p->cols / SIDE - 1, 0) / 2, BEYOND_ZERO, error));
    }
    for (int axis = 0; axis < 2; axis++) {
        TRY(spline_rows(p, SIDE, error));
    }
    for (size_t i = 0; i < (size_t)SIDE * SIDE; i++) {
        p->v[i] = fmin(fmax(p->v[i], 0), 1);
    }
    for (int axis = 0; axis < 2; axis++) {
        TRY(blur_rows(p, 0.02 * SIDE, BEYOND_MIRROR, error));
    }
    normalise(p);
    return CANDID_OK;
}

candid_status relevance_soften(const struct cell_map *map, float *soft, candid_error *error) {
    TRY(cell_map_check(map, "relevance", error));
    struct plane p = {0};
    TRY(plane_make(&p, map->rows, map->cols, error));
    for (size_t i = 0; i < (size_t)map->rows * (size_t)map->cols; i++) {
        p.v[i] = (double)map->values[i];
    }
    const candid_status status = soften(&p, error);
    for (size_t i = 0; status == CANDID_OK && i < (size_t)SIDE * SIDE; i++) {
        soft[i] = (float)p.v[i];
    }
    free(p.v);
    return status;
}

/* ---- the masked image ---- */

/* Keeps of `from` the pixels of `seen` whose value is at least that of number int(n * keep) in descending order. */
static candid_status keep_pixels(const struct candid_image *from, const struct image_box *seen, const float *values,
                                 double keep, struct candid_image **out, candid_error *error) {
    const size_t width = (size_t)(seen->x1 - seen->x0), n = width * (size_t)(seen->y1 - seen->y0);
    const size_t descending = (double)n * keep < (double)(n - 1) ? (size_t)((double)n * keep) : n - 1;
    const float least = values_rank(values, n, n - 1 - descending);
    struct candid_image *kept = NULL;
    TRY(image_create(from->width, from->height, &kept, error));
    memset(kept->rgb, 0, 3 * (size_t)from->width * (size_t)from->height);
    for (size_t i = 0; i < n; i++) {
        if (values[i] >= least) {
            const size_t y = (size_t)seen->y0 + i / width, x = (size_t)seen->x0 + i % width;
            const size_t at = 3 * (y * (size_t)from->width + x);
            memcpy(kept->rgb + at, from->rgb + at, 3);
        }
    }
    *out = kept;
    return CANDID_OK;
}

candid_status relevance_image(const struct candid_image *image, const struct cell_map *map,
                              enum relevance_geometry geometry, double keep, struct candid_image **out,
                              candid_error *error) {
    if (!(keep >= 0 && keep <= 1)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "relevance: a share of %g of the pixels to keep, expected 0 to 1",
                    keep);
    }
    struct candid_image *squashed = NULL;
    float *soft = malloc((size_t)SIDE * SIDE * sizeof *soft), *values = NULL;
    if (!soft) {
        return fail_memory(error, "a relevance map", (size_t)SIDE * SIDE * sizeof *soft);
    }
    candid_status status;
    TRY_GOTO(relevance_soften(map, soft, error), status, done);
    if (geometry == RELEVANCE_SQUASH) {
        TRY_GOTO(image_resize_bicubic(image, SIDE, SIDE, &squashed, error), status, done);
        image = squashed;
    }
    struct image_box seen;
    const struct cell_map smooth = {soft, SIDE, SIDE, map->view};
    TRY_GOTO(cell_map_draw(&smooth, image->width, image->height, &seen, &values, error), status, done);
    status = keep_pixels(image, &seen, values, keep, out, error);
done:
    candid_image_free(squashed);
    free(soft);
    free(values);
    return status;
}

/* ---- maps from files ---- */

candid_status relevance_load(const char *path, struct cell_map *map, candid_error *error) {
    struct candid_image *image = NULL, *small = NULL;
    TRY(candid_image_load(path, &image, error));
    if (image->width > SIDE || image->height > SIDE) {
        const candid_status status = image_resize_bicubic(image, image->width < SIDE ? image->width : SIDE,
                                                          image->height < SIDE ? image->height : SIDE, &small, error);
        candid_image_free(image);
        TRY(status);
        image = small;
    }
    const size_t n = (size_t)image->width * (size_t)image->height;
    float *values = malloc(n * sizeof *values);
    for (size_t i = 0; values && i < n; i++) {
        const uint8_t *p = image->rgb + 3 * i;
        const unsigned grey = (p[0] * 19595u + p[1] * 38470u + p[2] * 7471u + 0x8000u) >> 16; /* ITU-R 601-2 luma */
        values[i] = (float)grey / 255.0f;
    }
    *map = (struct cell_map){.values = values, .rows = image->height, .cols = image->width};
    candid_image_free(image);
    return values ? CANDID_OK : fail_memory(error, "a relevance map", n * sizeof *values);
}
