/* Pillow's resize of a padded image, restricted to a window of the result. */
#ifndef CANDID_VISION_RESIZE_H
#define CANDID_VISION_RESIZE_H

#include "vision/image.h"

/* What is resized: `image` at (left, top) of a width × height canvas of one colour. Nothing is materialised. */
struct canvas {
    const struct candid_image *image;
    int width, height, left, top;
    uint8_t background[3];
};

/* Pillow's Image.BICUBIC (a = -0.5) and Image.LANCZOS (three lobes). */
enum resize_filter { RESIZE_BICUBIC, RESIZE_LANCZOS };

/* A rectangle of the resized canvas. */
struct window {
    int left, top, width, height;
};

/* Resizes the canvas to width × height and writes the window of it to rgb (window.height, window.width, 3). */
candid_status resize_window(const struct canvas *canvas, enum resize_filter filter, int width, int height,
                            const struct window *window, uint8_t *rgb, candid_error *error);

/* Where LLaVA's expand2square puts the image: in the middle of a square of its longer edge. */
struct canvas square_canvas(const struct candid_image *image, const uint8_t background[3]);

#endif
