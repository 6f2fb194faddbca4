/* Values of an image's token grid as a picture over the image. */
#ifndef CANDID_VISION_HEAT_MAP_H
#define CANDID_VISION_HEAT_MAP_H

#include "vision/map_back.h"

/* Colour of a value from 0 (black) to 1 (light yellow), perceptually even: matplotlib's inferno, interpolated. */
void heat_colour(float value, uint8_t rgb[3]);

/*
 * The layer to lay over a picture of the whole original image of any size: width × height pixels of colour and opacity
 * (RGBA). values: (grid, grid), raster order, drawn smoothly; `full` and more is the brightest. What the encoder did
 * not see of the image is veiled.
 */
void heat_layer(const struct view_map *map, const float *values, float full, int width, int height, uint8_t *rgba);

/* Lays RGBA over RGB, both n pixels. */
void heat_blend(uint8_t *rgb, const uint8_t *rgba, size_t n);

/* The picture that layers go over: colours `keep` of the way from grey, so that those of the layer are told apart. */
void heat_fade(uint8_t *rgb, size_t n, float keep);

#define HEAT_KEEP_COLOUR 0.5f /* of the image under a heat map */

/* A heat map over a picture of the whole original image: width × height RGB pixels, faded by HEAT_KEEP_COLOUR, under
 * heat_layer. In place. */
candid_status heat_overlay(const struct view_map *map, const float *values, float full, int width, int height,
                           uint8_t *rgb, candid_error *error);

/*
 * The value that a share of the n values do not exceed (share 1: the greatest). A few tokens that soak up attention
 * (sinks) would make everything else look equal: with 0.98 those few are cut off instead. `room`: n floats.
 */
float heat_quantile(const float *values, size_t n, double share, float *room);
#define HEAT_QUANTILE 0.98

#endif
