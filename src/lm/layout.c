/* Layout of a sequence: a sorted array of contiguous spans. */
#include "lm/layout.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"

int layout_length(const struct layout *layout) {
    return layout->n_spans > 0 ? layout->spans[layout->n_spans - 1].end : 0;
}

static candid_status reserve(struct layout *layout, int n_spans, candid_error *error) {
    if (n_spans <= layout->capacity) {
        return CANDID_OK;
    }
    if (n_spans > INT_MAX / 2 || (size_t)n_spans > SIZE_MAX / (2 * sizeof *layout->spans)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "layout: %d spans are too many", n_spans);
    }
    const int capacity = n_spans < 4 ? 8 : 2 * n_spans;
    const size_t bytes = (size_t)capacity * sizeof *layout->spans;
    struct span *spans = realloc(layout->spans, bytes);
    if (!spans) {
        return fail_memory(error, "the layout of a sequence", bytes);
    }
    layout->spans = spans;
    layout->capacity = capacity;
    return CANDID_OK;
}

candid_status layout_append(struct layout *layout, enum span_kind kind, int n_tokens, int image, int grid_h, int grid_w,
                            candid_error *error) {
    const int begin = layout_length(layout);
    if (n_tokens < 0 || n_tokens > INT_MAX - begin) {
        return fail(error, CANDID_ERROR_ARGUMENT, "layout: cannot append %d tokens to %d", n_tokens, begin);
    }
    if (kind != SPAN_IMAGE) {
        image = -1;
        grid_h = grid_w = 0;
    } else if (image < 0) {
        return fail(error, CANDID_ERROR_ARGUMENT, "layout: image number %d is negative", image);
    } else if ((grid_h != 0 || grid_w != 0) &&
               (grid_h <= 0 || grid_w <= 0 || (int64_t)grid_h * grid_w != (int64_t)n_tokens)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "layout: %d tokens of image %d do not fill a grid of %d rows by %d",
                    n_tokens, image, grid_h, grid_w);
    }
    if (n_tokens == 0) {
        return CANDID_OK;
    }
    struct span *last = layout->n_spans > 0 ? &layout->spans[layout->n_spans - 1] : NULL;
    if (last && last->kind == kind && kind != SPAN_IMAGE) {
        last->end += n_tokens;
        return CANDID_OK;
    }
    TRY(reserve(layout, layout->n_spans + 1, error));
    layout->spans[layout->n_spans++] =
        (struct span){kind, begin, begin + n_tokens, image, grid_h, grid_w, IMAGE_RASTER};
    return CANDID_OK;
}

void layout_truncate(struct layout *layout, int length) {
    while (layout->n_spans > 0 && layout->spans[layout->n_spans - 1].begin >= length) {
        layout->n_spans--;
    }
    if (layout->n_spans > 0 && layout->spans[layout->n_spans - 1].end > length) {
        layout->spans[layout->n_spans - 1].end = length;
    }
}

candid_status layout_copy(struct layout *dst, const struct layout *src, candid_error *error) {
    if (dst == src) {
        return CANDID_OK;
    }
    TRY(reserve(dst, src->n_spans, error));
    if (src->n_spans > 0) {
        memcpy(dst->spans, src->spans, (size_t)src->n_spans * sizeof *src->spans);
    }
    dst->n_spans = src->n_spans;
    return CANDID_OK;
}

void layout_free(struct layout *layout) {
    if (layout) {
        free(layout->spans);
        *layout = (struct layout){0};
    }
}

const struct span *layout_span_at(const struct layout *layout, int position) {
    if (position < 0 || position >= layout_length(layout)) {
        return NULL;
    }
    int low = 0, high = layout->n_spans - 1;
    while (low < high) {
        const int middle = low + (high - low) / 2;
        if (layout->spans[middle].end > position) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return &layout->spans[low];
}

const struct span *layout_find_image(const struct layout *layout, int image) {
    for (int i = 0; i < layout->n_spans; i++) {
        if (layout->spans[i].kind == SPAN_IMAGE && layout->spans[i].image == image) {
            return &layout->spans[i];
        }
    }
    return NULL;
}

int grid_ring(int y, int x, int h, int w) {
    const int vertical = y < h - 1 - y ? y : h - 1 - y, horizontal = x < w - 1 - x ? x : w - 1 - x;
    return vertical < horizontal ? vertical : horizontal;
}

int grid_rings(int h, int w) {
    return ((h < w ? h : w) + 1) / 2;
}

int grid_ring_end(int ring, int h, int w) {
    const int inner_h = h - 2 * (ring + 1), inner_w = w - 2 * (ring + 1);
    return h * w - (inner_h > 0 && inner_w > 0 ? inner_h * inner_w : 0);
}

int span_row_keys(const struct span *span, int index) {
    if (span->order != IMAGE_RINGS || span->grid_h == 0) {
        return index + 1;
    }
    int ring = 0;
    while (index - span->begin >= grid_ring_end(ring, span->grid_h, span->grid_w)) {
        ring++;
    }
    return span->begin + grid_ring_end(ring, span->grid_h, span->grid_w);
}

void grid_cells(enum image_order order, int h, int w, int *cells) {
    int n = 0;
    for (int ring = 0; order == IMAGE_RINGS && ring < grid_rings(h, w); ring++) {
        for (int cell = 0; cell < h * w; cell++) {
            if (grid_ring(cell / w, cell % w, h, w) == ring) {
                cells[n++] = cell;
            }
        }
    }
    for (; n < h * w; n++) {
        cells[n] = order == IMAGE_REVERSE ? h * w - 1 - n : n;
    }
}

int64_t prompt_length(const struct prompt *prompt, const struct image_span *images) {
    int64_t length = 0;
    for (size_t i = 0; i < prompt->n_chunks; i++) {
        const struct prompt_chunk *chunk = &prompt->chunks[i];
        length += chunk->image >= 0 ? images[chunk->image].n_tokens : (int64_t)chunk->count;
    }
    return length;
}

static candid_status append_prompt(struct layout *layout, const struct prompt *prompt, const struct image_span *images,
                                   candid_error *error) {
    bool before_image = false;
    for (size_t i = 0; i < prompt->n_chunks; i++) {
        before_image = before_image || prompt->chunks[i].image >= 0;
    }
    for (size_t i = 0; i < prompt->n_chunks; i++) {
        const struct prompt_chunk *chunk = &prompt->chunks[i];
        if (chunk->image >= 0) {
            before_image = false;
            const struct image_span *image = &images[chunk->image];
            TRY(layout_append(layout, SPAN_IMAGE, image->n_tokens, chunk->image, image->grid_h, image->grid_w, error));
            if (image->n_tokens > 0) {
                layout->spans[layout->n_spans - 1].order = image->order;
            }
        } else if (chunk->count > INT_MAX) {
            return fail(error, CANDID_ERROR_ARGUMENT, "layout: a prompt chunk of %zu tokens is too long", chunk->count);
        } else {
            TRY(layout_append(layout, before_image ? SPAN_SYSTEM : SPAN_QUESTION, (int)chunk->count, -1, 0, 0, error));
        }
    }
    return CANDID_OK;
}

candid_status layout_from_prompt(const struct prompt *prompt, const struct image_span *images, struct layout *layout,
                                 candid_error *error) {
    struct layout made = {0};
    const candid_status status = append_prompt(&made, prompt, images, error);
    if (status != CANDID_OK) {
        layout_free(&made);
        return status;
    }
    layout_free(layout);
    *layout = made;
    return CANDID_OK;
}
