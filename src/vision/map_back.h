/*
 * From what the image encoder sees back to the image: which pixels of the original a cell of the token grid looked at.
 *
 * Coordinates are continuous: pixel i covers [i, i + 1).
 */
#ifndef CANDID_VISION_MAP_BACK_H
#define CANDID_VISION_MAP_BACK_H

#include "vision/visual.h"

/* Encoder position = original position * scale + offset, for a view of `size` pixels of which the grid's cells of
 * `patch` pixels cover the first grid * patch. */
struct view_map {
    double scale_x, scale_y, offset_x, offset_y;
    int size, patch, grid;
    int width, height; /* of the original */
};

/* A rectangle of the original image; reaches beyond it where the encoder saw padding. */
struct image_rect {
    double x0, y0, x1, y1;
};

/* The single view of pad and crop; of anyres the base view, which squeezes the whole image into a square. */
struct view_map view_map_make(const struct clip_weights *w, const struct visual_plan *plan, int width, int height);

/* What cell (y, x) of the grid covers. */
struct image_rect view_map_cell(const struct view_map *m, int y, int x);

/* Grid coordinates of a point of the original: [0, grid) where the encoder saw it. */
void view_map_point(const struct view_map *m, double x, double y, double *grid_x, double *grid_y);

/* The part of the original that cells cover. */
struct image_rect view_map_seen(const struct view_map *m);

/* Whether the cell shows nothing but padding. */
bool view_map_is_padding(const struct view_map *m, int y, int x);

#endif
