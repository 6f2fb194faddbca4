/*
 * Layout of a sequence: which key positions are system text, image i, question and generated text.
 *
 * Spans are contiguous from position 0, in order and never empty, so that methods can speak of spans instead of raw
 * positions. One layout belongs to one sequence; it has no locks.
 */
#ifndef CANDID_LM_LAYOUT_H
#define CANDID_LM_LAYOUT_H

#include "candid/candid.h"
#include "lm/prompt.h"

enum span_kind { SPAN_SYSTEM, SPAN_IMAGE, SPAN_QUESTION, SPAN_GENERATED };

/* In which order the tokens of an image's grid stand in the sequence. */
enum image_order {
    IMAGE_RASTER,  /* row by row */
    IMAGE_RINGS,   /* from the border to the centre, raster order within a ring (concentric causal attention) */
    IMAGE_REVERSE, /* raster order backwards */
};

struct span {
    enum span_kind kind;
    int begin, end;         /* positions [begin, end), begin < end */
    int image;              /* number of the image for SPAN_IMAGE, else -1 */
    int grid_h, grid_w;     /* rows and columns of an image's token grid, 0 where its tokens form none */
    enum image_order order; /* of the grid's cells: with IMAGE_RASTER position begin + y * grid_w + x */
};

/* Start from {0}; release with layout_free. */
struct layout {
    struct span *spans; /* [capacity], n_spans used */
    int n_spans, capacity;
};

/*
 * Appends n_tokens positions. Text of the kind that the last span has extends it; an image always makes a span of its
 * own. `image`, `grid_h`, `grid_w` count for SPAN_IMAGE only: grid_h * grid_w must be n_tokens, or both 0 where the
 * tokens form no grid. n_tokens 0 changes nothing. On failure the layout is unchanged.
 */
candid_status layout_append(struct layout *layout, enum span_kind kind, int n_tokens, int image, int grid_h, int grid_w,
                            candid_error *error);

/* Forgets all positions from `length` on. An image that is cut keeps its grid; `end` says how much of it is left. A
 * length beyond the end changes nothing, a negative one counts as 0. */
void layout_truncate(struct layout *layout, int length);

/* Makes dst (initialised, its spans are replaced) equal to src. On failure dst is unchanged. */
candid_status layout_copy(struct layout *dst, const struct layout *src, candid_error *error);

/* Releases the spans and leaves {0}. NULL is allowed. */
void layout_free(struct layout *layout);

/* Number of positions. */
int layout_length(const struct layout *layout);

/* The span that holds `position`, or NULL outside the layout. O(log n_spans). */
const struct span *layout_span_at(const struct layout *layout, int position);

/* The span of image number `image`, or NULL. */
const struct span *layout_find_image(const struct layout *layout, int image);

/* What an image is in a sequence. */
struct image_span {
    int n_tokens;
    int grid_h, grid_w; /* as in struct span */
    enum image_order order;
};

/* Ring of cell (y, x) of an h×w grid: 0 at the border. */
int grid_ring(int y, int x, int h, int w);
/* Number of rings: half the shorter side, rounded up. */
int grid_rings(int h, int w);

/* How many keys of its sequence, counted from the first, the row at `index` of an image's span sees: itself and all
 * before; of IMAGE_RINGS all of its ring. */
int span_row_keys(const struct span *span, int index);

/* Number of cells in rings 0..ring. */
int grid_ring_end(int ring, int h, int w);

/* cells[i] = raster index y * w + x of the i-th token of an h×w grid in the given order; [h * w]. */
void grid_cells(enum image_order order, int h, int w, int *cells);

/* Positions of a tokenised prompt; `images` is indexed by the number of the image. */
int64_t prompt_length(const struct prompt *prompt, const struct image_span *images);

/*
 * Fills `layout` (initialised, its spans are replaced) for a tokenised prompt with these images. Text before the first
 * image is SPAN_SYSTEM (BOS included), all later text SPAN_QUESTION; a prompt without image is SPAN_QUESTION
 * throughout. On failure the layout is unchanged.
 */
candid_status layout_from_prompt(const struct prompt *prompt, const struct image_span *images, struct layout *layout,
                                 candid_error *error);

#endif
