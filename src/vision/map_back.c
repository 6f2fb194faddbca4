/* The geometry of image_preprocess() and image_preprocess_view(), backwards. */
#include "vision/map_back.h"

#include <math.h>

struct view_map view_map_make(const struct clip_weights *w, const struct visual_plan *plan, int width, int height) {
    const int size = w->image_size;
    struct view_map m = {.size = size, .patch = w->patch_size, .grid = w->grid, .width = width, .height = height};
    if (plan->mode == CANDID_PREPROCESS_PAD) {
        const int side = width > height ? width : height;
        m.scale_x = m.scale_y = (double)size / side;
        m.offset_x = (side - width) / 2 * m.scale_x; /* whole pixels: where the image is pasted */
        m.offset_y = (side - height) / 2 * m.scale_y;
    } else if (plan->mode == CANDID_PREPROCESS_CROP) {
        const int shorter = width < height ? width : height;
        const int resized_w = (int)((int64_t)size * width / shorter);
        const int resized_h = (int)((int64_t)size * height / shorter);
        m.scale_x = (double)resized_w / width;
        m.scale_y = (double)resized_h / height;
        m.offset_x = -(double)((resized_w - size) / 2);
        m.offset_y = -(double)((resized_h - size) / 2);
    } else {
        m.scale_x = (double)size / width;
        m.scale_y = (double)size / height;
    }
    return m;
}

struct image_rect view_map_cell(const struct view_map *m, int y, int x) {
    return (struct image_rect){
        .x0 = (x * m->patch - m->offset_x) / m->scale_x,
        .y0 = (y * m->patch - m->offset_y) / m->scale_y,
        .x1 = ((x + 1) * m->patch - m->offset_x) / m->scale_x,
        .y1 = ((y + 1) * m->patch - m->offset_y) / m->scale_y,
    };
}

void view_map_point(const struct view_map *m, double x, double y, double *grid_x, double *grid_y) {
    *grid_x = (x * m->scale_x + m->offset_x) / m->patch;
    *grid_y = (y * m->scale_y + m->offset_y) / m->patch;
}

struct image_rect view_map_seen(const struct view_map *m) {
    const struct image_rect first = view_map_cell(m, 0, 0), last = view_map_cell(m, m->grid - 1, m->grid - 1);
    return (struct image_rect){fmax(first.x0, 0), fmax(first.y0, 0), fmin(last.x1, m->width), fmin(last.y1, m->height)};
}

bool view_map_is_padding(const struct view_map *m, int y, int x) {
    const struct image_rect r = view_map_cell(m, y, x);
    const double least = 1e-6; /* of a pixel: rounding of the divisions above */
    return r.x1 <= least || r.y1 <= least || r.x0 >= m->width - least || r.y0 >= m->height - least;
}
