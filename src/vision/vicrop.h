/*
 * ViCrop's second image: the part of the image that the question is about, cut out.
 *
 * Zhang et al.: MLLMs Know Where to Look: Training-free Perception of Small Visual Details with Multimodal LLMs, ICLR
 * 2025, arXiv 2502.17422; code saccharomycetes/mllms_know, utils.py (bbox_from_att_image_adaptive) and llava_methods.py
 * (rel_attention_llava).
 */
#ifndef CANDID_VISION_VICROP_H
#define CANDID_VISION_VICROP_H

#include "vision/cell_map.h"

/*
 * Relative attention: out = question / general, each the mean over heads of the last prompt row's attention to the n
 * image tokens; out may be either. Where `general` is below 1e-8 it counts as that (CARVE's lambda; released: divides
 * by what there is). Negative, infinite and NaN values are an error.
 */
candid_status vicrop_relative(const float *question, const float *general, int n, float *out, candid_error *error);

/*
 * The box for a map over an image of width × height pixels. `side`: the encoder's image size in pixels (LLaVA-1.5:
 * 336), the box's size at ratio 1.
 *
 * For each ratio 1, 1.2 … 2 a window of as many whole cells as side * ratio pixels of the image hold (no more than
 * there are) is laid where the map's sum is greatest, the leftmost of those, of these the topmost. The ratio whose sum
 * stands out most from those one cell up, down, left and right, per cell of the window, gives the box: a square of side
 * * ratio pixels (rounded down to even) around the window's centre, moved into the image, cut where the image is
 * smaller. When the whole map fits into the window at ratio 1 the box is the whole image; larger ratios at which it
 * fits are left out.
 *
 * map->view NULL: the map is taken to cover the image, as released, also where preprocessing has cropped or padded it.
 * With a view (recommended) it is first brought into the image's coordinates: cell_map_to_image() on cell_map_fit().
 *
 * Sums are f64 (released: f32), so ties and near ties may fall otherwise. Cells of more than `side` pixels, for which
 * the released program divides 0 by 0, make windows of one cell.
 */
candid_status vicrop_box(const struct cell_map *map, int width, int height, int side, struct image_box *box,
                         candid_error *error);

#endif
