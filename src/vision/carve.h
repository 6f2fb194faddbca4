/*
 * CARVE's second image: the regions that the question draws attention to, everything else black, cut out and enlarged.
 *
 * Ge et al.: Focusing by Contrastive Attention: Enhancing VLMs' Visual Reasoning, arXiv 2509.06461; code YuyaoGe/CARVE,
 * carve/attention.py (fuse_contrastive_attention) and carve/masking.py (att_sum_crop_pipeline), its version v4.
 */
#ifndef CANDID_VISION_CARVE_H
#define CANDID_VISION_CARVE_H

#include "vision/cell_map.h"

/* Attention of the row that predicts each token to the image's n_cells tokens, mean over heads, of the layers that
 * count, for the question and for a general instruction. Layout: (steps, n_layers, n_cells). */
struct carve_attention {
    const float *question, *general;
    int n_question, n_general; /* steps of each; those that both have count */
    int n_layers, n_cells;
};

enum carve_steps {
    CARVE_ALL_STEPS,  /* step t, counted from 0, weighs t + 1 (released: v4) */
    CARVE_FIRST_STEP, /* only the first (v1 to v3) */
};

/* out [n_cells] = sum over steps and layers of weight * question / (general + lambda), in f64; lambda is 1e-8 as
 * released. Attention that is negative, infinite or NaN, and sums that are not finite, are an error. */
candid_status carve_contrast(const struct carve_attention *a, enum carve_steps steps, double lambda, float *out,
                             candid_error *error);

#define CARVE_MAX_PIXELS (1 << 26)

struct carve_options {
    double top_share; /* 0.2: of the pixels are candidates, and of the regions are kept */
    int min_regions;  /* 3: kept at least, where there are so many */
};

/*
 * The map is drawn over the image (bilinear). Pixels at or above the percentile 100 (1 - top_share) form regions,
 * connected by their four sides; the max(min_regions, int(top_share * number)) regions with the greatest sum of the map
 * stay, of equal ones the one met first row by row. The rest becomes black, the image is cut to the box around what
 * stays
 * (*box, may be NULL) and enlarged by Lanczos to max(width / box width, height / box height) times its size, rounded
 * down. Narrow boxes are enlarged less where the result would have a side above IMAGE_MAX_SIDE or more than
 * CARVE_MAX_PIXELS; the released program knows no limit.
 *
 * The released program resizes every layer's map to the image and adds then; that is the same up to rounding. It takes
 * the map to cover the image; with map->view set only what the view covers counts, and the rest is black.
 */
candid_status carve_image(const struct candid_image *image, const struct cell_map *map,
                          const struct carve_options *options, struct candid_image **out, struct image_box *box,
                          candid_error *error);

#endif
