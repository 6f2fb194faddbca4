/*
 * Numbers over an image: attention or relevance per cell of a grid, of any origin and size, brought onto the image.
 */
#ifndef CANDID_VISION_CELL_MAP_H
#define CANDID_VISION_CELL_MAP_H

#include "vision/image.h"
#include "vision/map_back.h"

#define CELL_MAP_MAX 8192 /* rows and columns */

/* rows × cols values in raster order; borrowed. */
struct cell_map {
    const float *values;
    int rows, cols;
    /* The cells divide evenly what the encoder's view shows, of which padding is no part of the image and which a crop
     * makes smaller than the image. NULL: they divide the image itself. */
    const struct view_map *view;
};

/* Refuses maps without cells, with too many, and with values that are NaN or infinite. `what` begins the message. */
candid_status cell_map_check(const struct cell_map *map, const char *what, candid_error *error);

/*
 * Draws the map over a picture of the whole image of width × height pixels, bilinear between the centres of cells, the
 * outermost values continued to the border (torch's and Pillow's bilinear where they enlarge). *seen is the part of the
 * picture that the map covers; without a view, all of it. *out holds its values, raster order; owned by the caller:
 * free.
 */
candid_status cell_map_draw(const struct cell_map *map, int width, int height, struct image_box *seen, float **out,
                            candid_error *error);

/* How many cells of the view's size fit on the image (at least 1; CELL_MAP_MAX_FITTED at most, for panoramas). */
#define CELL_MAP_MAX_FITTED 256
void cell_map_fit(const struct view_map *view, int *rows, int *cols);

/*
 * The map of a view as one of rows × cols cells of the image: each cell gets the mean of what the view's cells have
 * where they meet it, 0 for the part that the view does not show. What lies in the padding is dropped. out: [rows *
 * cols].
 */
void cell_map_to_image(const struct cell_map *map, int rows, int cols, float *out);

/* The rank-th smallest of n finite values, rank in [0, n). */
float values_rank(const float *values, size_t n, size_t rank);

/* numpy.percentile(values, 100 * share), linear interpolation; n > 0 finite values, share from 0 to 1. */
double values_percentile(const float *values, size_t n, double share);

#endif
