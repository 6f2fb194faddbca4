/* CARVE: contrast, regions, the enlarged cut. */
#include "vision/carve.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "vision/decode.h"

/* ---- contrast ---- */

candid_status carve_contrast(const struct carve_attention *a, enum carve_steps steps, double lambda, float *out,
                             candid_error *error) {
    int n_steps = a->n_question < a->n_general ? a->n_question : a->n_general;
    n_steps = steps == CARVE_FIRST_STEP && n_steps > 1 ? 1 : n_steps;
    if (n_steps < 1 || a->n_layers < 1 || a->n_cells < 1 || !(lambda >= 0)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "carve: attention of %d steps, %d layers and %d tokens, lambda %g",
                    n_steps, a->n_layers, a->n_cells, lambda);
    }
    const size_t n_cells = (size_t)a->n_cells, n_rows = (size_t)n_steps * (size_t)a->n_layers;
    for (size_t i = 0; i < n_rows * n_cells; i++) {
        if (!(a->question[i] >= 0) || !(a->general[i] >= 0) || isinf(a->general[i])) {
            return fail(error, CANDID_ERROR_ARGUMENT, "carve: token %zu of the image has attention %g and %g",
                        i % n_cells, (double)a->question[i], (double)a->general[i]);
        }
    }
    for (size_t cell = 0; cell < n_cells; cell++) {
        double sum = 0;
        for (size_t row = 0; row < n_rows; row++) {
            const size_t i = row * n_cells + cell;
            const double weight = steps == CARVE_ALL_STEPS ? (double)(row / (size_t)a->n_layers + 1) : 1;
            sum += weight * ((double)a->question[i] / ((double)a->general[i] + lambda));
        }
        out[cell] = (float)sum;
        if (!isfinite(out[cell])) {
            return fail(error, CANDID_ERROR_ARGUMENT, "carve: token %zu of the image has a contrast of %g", cell, sum);
        }
    }
    return CANDID_OK;
}

/* ---- regions ---- */

/* A part of the image and the values over it; label 0: no candidate, else 1 + the region's number. */
struct regions {
    int width, height;
    const float *values;
    uint32_t *label;
    size_t n;
};

/* The first pixel of the tree that pixel i is in; shortens the way there. */
static uint32_t root_of(uint32_t *parent, uint32_t i) {
    while (parent[i] != i) {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    return i;
}

static void join(uint32_t *parent, uint32_t a, uint32_t b) {
    a = root_of(parent, a);
    b = root_of(parent, b);
    parent[a > b ? a : b] = a > b ? b : a; /* the root is the pixel that comes first */
}

/* Numbers the regions of pixels at or above `least`, in the order in which rows meet them. */
static void find_regions(struct regions *r, double least) {
    const uint32_t width = (uint32_t)r->width, n = width * (uint32_t)r->height, none = UINT32_MAX;
    uint32_t *parent = r->label;
    for (uint32_t i = 0; i < n; i++) {
        parent[i] = (double)r->values[i] >= least ? i : none;
        if (parent[i] == none) {
            continue;
        }
        if (i % width > 0 && parent[i - 1] != none) {
            join(parent, i - 1, i);
        }
        if (i >= width && parent[i - width] != none) {
            join(parent, i - width, i);
        }
    }
    for (uint32_t i = 0; i < n; i++) { /* roots stay as they are until all point at them */
        parent[i] = parent[i] == none ? none : root_of(parent, i);
    }
    /* a root comes before its region's other pixels, so their numbers can be read off it */
    r->n = 0;
    for (uint32_t i = 0; i < n; i++) {
        r->label[i] = r->label[i] == none ? 0 : r->label[i] == i ? (uint32_t)++r->n : r->label[r->label[i]];
    }
}

struct score {
    double sum;
    size_t region;
};

static int by_sum(const void *a, const void *b) {
    const struct score *x = a, *y = b;
    return x->sum != y->sum ? (x->sum < y->sum) - (x->sum > y->sum) : (x->region > y->region) - (x->region < y->region);
}

/* Sets the label of every pixel of a region that does not stay to 0. */
static candid_status keep_regions(struct regions *r, const struct carve_options *o, candid_error *error) {
    const size_t n = (size_t)r->width * (size_t)r->height;
    struct score *scores = calloc(r->n + 1, sizeof *scores);
    uint8_t *stays = calloc(r->n + 1, 1);
    if (!scores || !stays) {
        free(scores);
        free(stays);
        return fail_memory(error, "carve", (r->n + 1) * (sizeof *scores + 1));
    }
    for (size_t i = 0; i <= r->n; i++) {
        scores[i].region = i;
    }
    for (size_t i = 0; i < n; i++) {
        scores[r->label[i]].sum += (double)r->values[i];
    }
    qsort(scores + 1, r->n, sizeof *scores, by_sum); /* 0 is no region */
    const size_t share = (size_t)((double)r->n * o->top_share), least = (size_t)o->min_regions;
    for (size_t i = 1; i <= r->n && i <= (share > least ? share : least); i++) {
        stays[scores[i].region] = 1;
    }
    for (size_t i = 0; i < n; i++) {
        r->label[i] = stays[r->label[i]] ? r->label[i] : 0;
    }
    free(scores);
    free(stays);
    return CANDID_OK;
}

/* The box around the labelled pixels, of which there are some. */
static struct image_box box_around(const struct regions *r) {
    struct image_box box = {r->width, r->height, 0, 0};
    for (int y = 0; y < r->height; y++) {
        for (int x = 0; x < r->width; x++) {
            if (r->label[(size_t)y * (size_t)r->width + (size_t)x]) {
                box.x0 = x < box.x0 ? x : box.x0;
                box.x1 = x + 1 > box.x1 ? x + 1 : box.x1;
                box.y0 = y < box.y0 ? y : box.y0;
                box.y1 = y + 1;
            }
        }
    }
    return box;
}

/* ---- the image ---- */

/* Cuts the box, given in pixels of `seen`, out of the image and blackens what has no label. */
static candid_status cut(const struct candid_image *image, const struct regions *r, const struct image_box *seen,
                         const struct image_box *box, struct candid_image **out, candid_error *error) {
    const struct image_box at = {seen->x0 + box->x0, seen->y0 + box->y0, seen->x0 + box->x1, seen->y0 + box->y1};
    TRY(image_crop(image, &at, out, error));
    const int width = (*out)->width, height = (*out)->height;
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width; x++) {
            if (!r->label[(size_t)(box->y0 + y) * (size_t)r->width + (size_t)(box->x0 + x)]) {
                memset((*out)->rgb + 3 * ((size_t)y * (size_t)width + (size_t)x), 0, 3);
            }
        }
    }
    return CANDID_OK;
}

/* The released factor, less where the result would be too large; never less than 1. */
static void enlarged_size(int width, int height, int cut_width, int cut_height, int *out_width, int *out_height) {
    double scale = fmax((double)width / cut_width, (double)height / cut_height);
    const double longest = (double)IMAGE_MAX_SIDE / (cut_width > cut_height ? cut_width : cut_height);
    const double largest = sqrt((double)CARVE_MAX_PIXELS / ((double)cut_width * cut_height));
    scale = fmax(fmin(scale, fmin(longest, largest)), 1);
    *out_width = (int)(cut_width * scale);
    *out_height = (int)(cut_height * scale);
}

candid_status carve_image(const struct candid_image *image, const struct cell_map *map,
                          const struct carve_options *options, struct candid_image **out, struct image_box *box,
                          candid_error *error) {
    if (!(options->top_share >= 0 && options->top_share <= 1) || options->min_regions < 1) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "carve: a share of %g and at least %d regions, expected a share from 0 to 1 and a region or more",
                    options->top_share, options->min_regions);
    }
    TRY(cell_map_check(map, "carve", error));
    struct image_box seen, inner;
    float *values = NULL;
    struct candid_image *part = NULL;
    TRY(cell_map_draw(map, image->width, image->height, &seen, &values, error));
    struct regions r = {.width = seen.x1 - seen.x0, .height = seen.y1 - seen.y0, .values = values};
    const size_t n = (size_t)r.width * (size_t)r.height;
    candid_status status;
    r.label = malloc(n * sizeof *r.label);
    if (!r.label) {
        status = fail_memory(error, "carve", n * sizeof *r.label);
        goto done;
    }
    find_regions(&r, values_percentile(values, n, 1 - options->top_share));
    TRY_GOTO(keep_regions(&r, options, error), status, done);
    inner = box_around(&r);
    TRY_GOTO(cut(image, &r, &seen, &inner, &part, error), status, done);
    int width, height;
    enlarged_size(image->width, image->height, part->width, part->height, &width, &height);
    TRY_GOTO(image_resize_lanczos(part, width, height, out, error), status, done);
    if (box) {
        *box = (struct image_box){seen.x0 + inner.x0, seen.y0 + inner.y0, seen.x0 + inner.x1, seen.y0 + inner.y1};
    }
done:
    candid_image_free(part);
    free(r.label);
    free(values);
    return status;
}
