/*
 * AGLA's second image: what is relevant to the question, everything else black.
 *
 * An et al.: Mitigating Object Hallucinations in Large Vision-Language Models with Assembly of Global and Local
 * Attention, CVPR 2025, arXiv 2406.12718; code Lackel/AGLA, eval/augmentation.py and lavis/common/gradcam.py
 * (getAttMap). Where the map comes from - there GradCAM of an image-text matching model - is not this file's business.
 */
#ifndef CANDID_VISION_RELEVANCE_H
#define CANDID_VISION_RELEVANCE_H

#include "vision/cell_map.h"

#define RELEVANCE_SIDE 384

enum relevance_geometry {
    RELEVANCE_SQUASH, /* as released: the image squeezed to 384×384 (Pillow's bicubic), whose aspect is lost; the result
                         has this size, and the encoder's preprocessing does not cut off what it cuts off the original
                       */
    RELEVANCE_NATIVE, /* recommended: the image keeps its size, the map is stretched over it */
};

/*
 * The map as a smooth picture of RELEVANCE_SIDE² values from 0 to 1: minimum subtracted, divided by the maximum,
 * resized by interpolating cubic B-splines, blurred by a Gaussian of sigma 2 % of the side (7.68), and again minimum
 * subtracted, divided by the maximum. A map whose values are all the same becomes 0 everywhere. map->view plays no
 * part.
 *
 * That is skimage.transform.resize(order=3, mode="constant") of version 0.19 and later: outside the map there is 0, so
 * that the border is paler; overshoots are clipped to the range of the map; maps larger than the result are first
 * smoothed by a Gaussian of sigma (factor - 1)/2. Then scipy.ndimage.gaussian_filter: truncated at 4 sigma, the picture
 * mirrored with its outermost pixel repeated.
 */
candid_status relevance_soften(const struct cell_map *map, float *soft, candid_error *error);

/*
 * The image with the most relevant pixels and the rest black. Of the n pixels that the map covers those survive that
 * are at least as relevant as number int(n * keep) in descending order: about a share of `keep`, at least one; all with
 * keep 1 or a map without differences. Pixels that the map's view does not cover are black: the encoder does not see
 * them either. *out is owned by the caller: candid_image_free.
 *
 * Released: keep = min(1 - sim/2, 1 - 1e-5), sim the cosine of image and text.
 */
candid_status relevance_image(const struct candid_image *image, const struct cell_map *map,
                              enum relevance_geometry geometry, double keep, struct candid_image **out,
                              candid_error *error);

/* A map from a picture of any size, white = relevant: its grey values (of colours Pillow's "L") from 0 to 1. Sides
 * above RELEVANCE_SIDE are shrunk to it. It covers the whole image (map->view is NULL). map->values is owned by the
 * caller: free((void *)map->values). */
candid_status relevance_load(const char *path, struct cell_map *map, candid_error *error);

#endif
