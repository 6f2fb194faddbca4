/*
 * From an image to the encoder's input, as Hugging Face's CLIPImageProcessor (crop) and the original LLaVA (pad) do it.
 *
 * Only the pixels of the result are computed: padding is not materialised and what the centre crop cuts off is never
 * resized, so panoramas cost no more memory than squares.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "vision/decode.h"
#include "vision/resize.h"

#define MAX_ENCODER_SIZE 8192

struct canvas square_canvas(const struct candid_image *image, const uint8_t background[3]) {
    int side = image->width > image->height ? image->width : image->height;
    struct canvas canvas = {.image = image,
                            .width = side,
                            .height = side,
                            .left = (side - image->width) / 2,
                            .top = (side - image->height) / 2};
    memcpy(canvas.background, background, 3);
    return canvas;
}

candid_status image_pad_square(const struct candid_image *image, const uint8_t background[3], struct candid_image **out,
                               candid_error *error) {
    struct canvas canvas = square_canvas(image, background);
    if ((uint64_t)canvas.width * (uint64_t)canvas.height > IMAGE_MAX_PIXELS) {
        return fail(error, CANDID_ERROR_UNSUPPORTED, "cannot pad an image of %d×%d pixels to a square", image->width,
                    image->height);
    }
    struct candid_image *square = NULL;
    TRY(image_create(canvas.width, canvas.height, &square, error));
    size_t side = (size_t)canvas.width, row = 3 * (size_t)image->width;
    for (size_t i = 0; i < side * side; i++) {
        memcpy(square->rgb + 3 * i, background, 3);
    }
    for (size_t y = 0; y < (size_t)image->height; y++) {
        memcpy(square->rgb + 3 * ((y + (size_t)canvas.top) * side + (size_t)canvas.left), image->rgb + y * row, row);
    }
    *out = square;
    return CANDID_OK;
}

/* (height, width, 3) bytes to (3, height, width): value * (1 / 255) in double rounded to f32, then (x - mean) / std in
 * f32, the order of CLIPImageProcessor. */
static void normalise(const uint8_t *rgb, size_t n, const float mean[3], const float std[3], float *pixels) {
    for (size_t c = 0; c < 3; c++) {
        float table[256];
        for (int v = 0; v < 256; v++) {
            float x = (float)(v * (1.0 / 255.0));
            table[v] = (x - mean[c]) / std[c];
        }
        for (size_t i = 0; i < n; i++) {
            pixels[c * n + i] = table[rgb[3 * i + c]];
        }
    }
}

/* Whether the encoder's size, mean and deviation make sense. */
static candid_status check_target(int size, const float mean[3], const float std[3], candid_error *error) {
    if (size < 1 || size > MAX_ENCODER_SIZE) {
        return fail(error, CANDID_ERROR_ARGUMENT, "image size of the encoder is %d, expected 1 to %d", size,
                    MAX_ENCODER_SIZE);
    }
    for (int c = 0; c < 3; c++) {
        if (!(mean[c] >= 0 && mean[c] <= 1) || !(std[c] > 0) || !isfinite(std[c])) {
            return fail(error, CANDID_ERROR_ARGUMENT,
                        "image mean %g and deviation %g of channel %d, expected a mean from 0 to 1 and a deviation "
                        "above 0",
                        (double)mean[c], (double)std[c], c);
        }
    }
    return CANDID_OK;
}

candid_status image_preprocess(const struct candid_image *image, candid_preprocess mode, int size, const float mean[3],
                               const float std[3], float *pixels, candid_error *error) {
    TRY(check_target(size, mean, std, error));
    if (mode != CANDID_PREPROCESS_PAD && mode != CANDID_PREPROCESS_CROP) {
        return fail(error, CANDID_ERROR_ARGUMENT, "unknown preprocessing mode %d, expected pad or crop", (int)mode);
    }
    struct canvas canvas = {.image = image, .width = image->width, .height = image->height};
    if (mode == CANDID_PREPROCESS_PAD) {
        uint8_t background[3];
        for (int c = 0; c < 3; c++) {
            background[c] = (uint8_t)(mean[c] * 255.0f);
        }
        canvas = square_canvas(image, background);
    }
    int shorter = canvas.width < canvas.height ? canvas.width : canvas.height;
    int width = (int)((int64_t)size * canvas.width / shorter), height = (int)((int64_t)size * canvas.height / shorter);
    struct window window = {.left = (width - size) / 2, .top = (height - size) / 2, .width = size, .height = size};

    size_t n = (size_t)size * (size_t)size;
    uint8_t *rgb = malloc(3 * n);
    if (!rgb) {
        return fail_memory(error, "preprocessing an image", 3 * n);
    }
    candid_status status = resize_window(&canvas, RESIZE_BICUBIC, width, height, &window, rgb, error);
    if (status == CANDID_OK) {
        normalise(rgb, n, mean, std, pixels);
    }
    free(rgb);
    return status;
}

/* The overlap of [begin, begin + size) with [0, length). */
static void overlap(int begin, int size, int length, int *first, int *count) {
    const int from = begin < 0 ? 0 : begin, to = begin + size < length ? begin + size : length;
    *first = from;
    *count = to > from ? to - from : 0;
}

candid_status image_preprocess_view(const struct candid_image *image, const struct image_view *view, int size,
                                    const float mean[3], const float std[3], float *pixels, candid_error *error) {
    TRY(check_target(size, mean, std, error));
    struct window window;
    overlap(view->left, size, view->width, &window.left, &window.width);
    overlap(view->top, size, view->height, &window.top, &window.height);
    const size_t n = (size_t)size * (size_t)size, side = (size_t)size;
    uint8_t *rgb = calloc(n, 6); /* the tile, black, and the part of the image that is in it */
    if (!rgb) {
        return fail_memory(error, "preprocessing an image", 6 * n);
    }
    uint8_t *part = rgb + 3 * n;
    candid_status status = CANDID_OK;
    if (window.width > 0 && window.height > 0) {
        const struct canvas canvas = {.image = image, .width = image->width, .height = image->height};
        status = resize_window(&canvas, RESIZE_BICUBIC, view->width, view->height, &window, part, error);
    }
    for (int y = 0; y < window.height && status == CANDID_OK; y++) {
        const size_t row = (size_t)(window.top - view->top + y) * side + (size_t)(window.left - view->left);
        memcpy(rgb + 3 * row, part + 3 * (size_t)y * (size_t)window.width, 3 * (size_t)window.width);
    }
    if (status == CANDID_OK) {
        normalise(rgb, n, mean, std, pixels);
    }
    free(rgb);
    return status;
}
