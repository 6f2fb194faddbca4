/*
 * Bicubic and Lanczos resize with the arithmetic of Pillow's Resample.c for 8-bit images: a = -0.5 and three lobes, the
 * filter is stretched by the shrink factor, weights are computed in double, normalised to a sum of 1 and rounded to 22
 * fractional bits; a horizontal and then a vertical pass each round and clip to 8 bits.
 *
 * Pillow skips a pass that does not change the size. Its weights are exactly 1 and 0 then, so the passes here need no
 * such case.
 */
#include "vision/resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "vision/decode.h"

#define PRECISION_BITS 22
#define ROUNDING       ((uint32_t)1 << (PRECISION_BITS - 1))
#define TAP_ALIGNMENT  8

/*
 * The horizontal pass is a sum of products of 16-bit numbers, which every x86-64 processor has a vector instruction
 * for: a weight is split into high * 2^11 + low with 0 <= low < 2^11. Sums are kept modulo 2^32; the total fits in 32
 * bits.
 */
#define LOW_BITS 11

/* The weights of outputs [start, start + n) of one axis; rows of `taps` numbers, zero behind `count`. */
struct weights {
    int n, taps;
    int *first, *count; /* (n) each: input positions with a weight */
    int32_t *weight;    /* (n, taps) */
};

static double bicubic(double x) {
    const double a = -0.5;
    x = x < 0.0 ? -x : x;
    if (x < 1.0) {
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    }
    if (x < 2.0) {
        return (((x - 5) * x + 8) * x - 4) * a;
    }
    return 0.0;
}

static double sinc(double x) {
    const double pi = 3.14159265358979323846;
    return x == 0.0 ? 1.0 : sin(pi * x) / (pi * x);
}

static double lanczos(double x) {
    return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0;
}

static double filter_at(enum resize_filter filter, double x) {
    return filter == RESIZE_LANCZOS ? lanczos(x) : bicubic(x);
}

/* Half its width, in pixels of the image that is not shrunk. */
static double filter_support(enum resize_filter filter) {
    return filter == RESIZE_LANCZOS ? 3.0 : 2.0;
}

static void weights_free(struct weights *w) {
    free(w->first);
    free(w->weight);
    *w = (struct weights){0};
}

/* Fills one row of `scratch` and rounds it to fixed point. */
static void make_row(struct weights *w, enum resize_filter filter, int i, double center, double filter_scale,
                     double *scratch) {
    double inverse = 1.0 / filter_scale, sum = 0.0;
    int first = w->first[i], count = w->count[i];
    for (int x = 0; x < count; x++) {
        scratch[x] = filter_at(filter, (x + first - center + 0.5) * inverse);
        sum += scratch[x];
    }
    int32_t *row = w->weight + (size_t)i * (size_t)w->taps;
    for (int x = 0; x < count; x++) {
        double v = sum != 0.0 ? scratch[x] / sum : scratch[x];
        v *= 1 << PRECISION_BITS;
        row[x] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
    }
}

static candid_status weights_make(struct weights *w, enum resize_filter filter, int in, int out, int start, int n,
                                  candid_error *error) {
    *w = (struct weights){.n = n};
    double scale = (double)in / out, filter_scale = scale < 1.0 ? 1.0 : scale;
    double support = filter_support(filter) * filter_scale;
    w->first = malloc(2 * (size_t)n * sizeof *w->first);
    if (!w->first) {
        return fail_memory(error, "resizing an image", 2 * (size_t)n * sizeof *w->first);
    }
    w->count = w->first + n;
    for (int i = 0; i < n; i++) {
        double center = (start + i + 0.5) * scale;
        int first = (int)(center - support + 0.5), end = (int)(center + support + 0.5);
        first = first < 0 ? 0 : first;
        end = end > in ? in : end;
        w->first[i] = first;
        w->count[i] = end - first;
        w->taps = end - first > w->taps ? end - first : w->taps;
    }
    w->taps = (w->taps + TAP_ALIGNMENT - 1) / TAP_ALIGNMENT * TAP_ALIGNMENT;
    size_t size = (size_t)n * (size_t)w->taps;
    w->weight = calloc(size, sizeof *w->weight);
    double *scratch = malloc((size_t)w->taps * sizeof *scratch);
    if (!w->weight || !scratch) {
        free(scratch);
        weights_free(w);
        return fail_memory(error, "resizing an image", size * sizeof *w->weight);
    }
    for (int i = 0; i < n; i++) {
        make_row(w, filter, i, (start + i + 0.5) * scale, filter_scale, scratch);
    }
    free(scratch);
    return CANDID_OK;
}

static int weights_end(const struct weights *w) {
    return w->first[w->n - 1] + w->count[w->n - 1];
}

static uint8_t clip8(uint32_t sum) {
    int32_t v = (int32_t)sum >> PRECISION_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* Columns [x0, x1) of row y of the canvas as three planes of 16-bit numbers. */
static void read_row(const struct canvas *canvas, int y, int x0, int x1, int16_t *const planes[3]) {
    const struct candid_image *image = canvas->image;
    y -= canvas->top;
    int from = x0, to = x0; /* columns of the image among them */
    if (y >= 0 && y < image->height) {
        int end = canvas->left + image->width;
        from = canvas->left > x0 ? (canvas->left < x1 ? canvas->left : x1) : x0;
        to = end < x1 ? (end > from ? end : from) : x1;
    }
    for (int c = 0; c < 3; c++) {
        for (int x = x0; x < from; x++) {
            planes[c][x - x0] = canvas->background[c];
        }
        for (int x = to; x < x1; x++) {
            planes[c][x - x0] = canvas->background[c];
        }
    }
    if (from < to) {
        const uint8_t *rgb = image->rgb + 3 * ((size_t)y * (size_t)image->width + (size_t)(from - canvas->left));
        int16_t *r = planes[0] + (from - x0), *g = planes[1] + (from - x0), *b = planes[2] + (from - x0);
        for (int i = 0, n = to - from; i < n; i++) {
            r[i] = rgb[3 * (size_t)i];
            g[i] = rgb[3 * (size_t)i + 1];
            b[i] = rgb[3 * (size_t)i + 2];
        }
    }
}

/* One plane of one row; `high` and `low` are (w->n, w->taps). Writes every third byte of `out`. */
static void horizontal_row(const struct weights *w, const int16_t *high, const int16_t *low, const int16_t *plane,
                           uint8_t *out) {
    size_t taps = (size_t)w->taps;
    for (int i = 0; i < w->n; i++) {
        const int16_t *p = plane + (w->first[i] - w->first[0]);
        uint32_t sum_high = 0, sum_low = 0;
        for (size_t t = 0; t < taps; t++) {
            sum_high += (uint32_t)(p[t] * high[t]);
            sum_low += (uint32_t)(p[t] * low[t]);
        }
        out[3 * i] = clip8((sum_high << LOW_BITS) + sum_low + ROUNDING);
        high += taps;
        low += taps;
    }
}

/* Rows [y0, y1) of the canvas to out (y1 - y0, w->n, 3). */
static candid_status horizontal_pass(const struct canvas *canvas, const struct weights *w, int y0, int y1, uint8_t *out,
                                     candid_error *error) {
    int x0 = w->first[0], x1 = weights_end(w);
    size_t plane = (size_t)(x1 - x0) + (size_t)w->taps, n = (size_t)w->n * (size_t)w->taps;
    size_t size = (3 * plane + 2 * n) * sizeof(int16_t);
    int16_t *work = calloc(1, size); /* columns behind the last have weight 0, but must hold something */
    if (!work) {
        return fail_memory(error, "resizing an image", size);
    }
    int16_t *const planes[3] = {work, work + plane, work + 2 * plane};
    int16_t *high = work + 3 * plane, *low = high + n;
    for (size_t i = 0; i < n; i++) {
        low[i] = (int16_t)(w->weight[i] & ((1 << LOW_BITS) - 1));
        high[i] = (int16_t)((w->weight[i] - low[i]) / (1 << LOW_BITS));
    }
    const uint8_t *empty = NULL; /* the result of a row beside the image: of panoramas they are almost all */
    for (int y = y0; y < y1; y++, out += 3 * (size_t)w->n) {
        bool is_empty = y < canvas->top || y >= canvas->top + canvas->image->height;
        if (is_empty && empty) {
            memcpy(out, empty, 3 * (size_t)w->n);
            continue;
        }
        read_row(canvas, y, x0, x1, planes);
        for (int c = 0; c < 3; c++) {
            horizontal_row(w, high, low, planes[c], out + c);
        }
        empty = is_empty ? out : empty;
    }
    free(work);
    return CANDID_OK;
}

/* `rows` is (?, width, 3) and begins with canvas row w->first[0]; writes out (w->n, width, 3). */
static candid_status vertical_pass(const struct weights *w, const uint8_t *rows, int width, uint8_t *out,
                                   candid_error *error) {
    size_t n = 3 * (size_t)width;
    uint32_t *sums = malloc(n * sizeof *sums);
    if (!sums) {
        return fail_memory(error, "resizing an image", n * sizeof *sums);
    }
    for (int i = 0; i < w->n; i++) {
        for (size_t x = 0; x < n; x++) {
            sums[x] = ROUNDING;
        }
        const uint8_t *row = rows + (size_t)(w->first[i] - w->first[0]) * n;
        const int32_t *weight = w->weight + (size_t)i * (size_t)w->taps;
        for (int t = 0; t < w->count[i]; t++, row += n) {
            uint32_t k = (uint32_t)weight[t];
            for (size_t x = 0; x < n; x++) {
                sums[x] += row[x] * k;
            }
        }
        for (size_t x = 0; x < n; x++) {
            out[x] = clip8(sums[x]);
        }
        out += n;
    }
    free(sums);
    return CANDID_OK;
}

candid_status resize_window(const struct canvas *canvas, enum resize_filter filter, int width, int height,
                            const struct window *window, uint8_t *rgb, candid_error *error) {
    struct weights horizontal = {0}, vertical = {0};
    uint8_t *rows = NULL;
    candid_status status;
    TRY_GOTO(weights_make(&horizontal, filter, canvas->width, width, window->left, window->width, error), status, done);
    TRY_GOTO(weights_make(&vertical, filter, canvas->height, height, window->top, window->height, error), status, done);
    int y0 = vertical.first[0], y1 = weights_end(&vertical);
    size_t size = 3 * (size_t)(y1 - y0) * (size_t)window->width;
    rows = malloc(size);
    if (!rows) {
        status = fail_memory(error, "resizing an image", size);
        goto done;
    }
    TRY_GOTO(horizontal_pass(canvas, &horizontal, y0, y1, rows, error), status, done);
    status = vertical_pass(&vertical, rows, window->width, rgb, error);
done:
    weights_free(&horizontal);
    weights_free(&vertical);
    free(rows);
    return status;
}

static candid_status resize_image(const struct candid_image *image, enum resize_filter filter, int width, int height,
                                  struct candid_image **out, candid_error *error) {
    if (width < 1 || height < 1 || width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE ||
        (uint64_t)width * (uint64_t)height > IMAGE_MAX_PIXELS) {
        return fail(error, CANDID_ERROR_ARGUMENT, "cannot resize an image to %d×%d pixels", width, height);
    }
    struct candid_image *result = NULL;
    TRY(image_create(width, height, &result, error));
    struct canvas canvas = {.image = image, .width = image->width, .height = image->height};
    const struct window all = {.width = width, .height = height};
    candid_status status = resize_window(&canvas, filter, width, height, &all, result->rgb, error);
    if (status != CANDID_OK) {
        candid_image_free(result);
        return status;
    }
    *out = result;
    return CANDID_OK;
}

candid_status image_resize_bicubic(const struct candid_image *image, int width, int height, struct candid_image **out,
                                   candid_error *error) {
    return resize_image(image, RESIZE_BICUBIC, width, height, out, error);
}

candid_status image_resize_lanczos(const struct candid_image *image, int width, int height, struct candid_image **out,
                                   candid_error *error) {
    return resize_image(image, RESIZE_LANCZOS, width, height, out, error);
}
