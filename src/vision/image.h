/*
 * Images: the handle, and what the encoder is given of them, equal to Pillow's arithmetic byte for byte. Decoding is in
 * decode.h, the choice of views in visual.h.
 */
#ifndef CANDID_VISION_IMAGE_H
#define CANDID_VISION_IMAGE_H

#include "candid/candid.h"

struct candid_image {
    int width, height;
    uint8_t *rgb; /* (height, width, 3), owned */
};

/* Width and height are limited to this, and width*height to 2^28 pixels. */
#define IMAGE_MAX_SIDE 65536

/* Pillow's Image.resize((width, height), BICUBIC) of an 8-bit RGB image (a = -0.5, antialiased, two fixed-point
 * passes, horizontal first). *out is owned by the caller. */
candid_status image_resize_bicubic(const struct candid_image *image, int width, int height, struct candid_image **out,
                                   candid_error *error);

/* The same with LANCZOS (three lobes). */
candid_status image_resize_lanczos(const struct candid_image *image, int width, int height, struct candid_image **out,
                                   candid_error *error);

/* Pixels [x0, x1) × [y0, y1) of an image. */
struct image_box {
    int x0, y0, x1, y1;
};

/* The pixels of a box, which must hold at least one and lie inside the image. *out is owned by the caller. */
candid_status image_crop(const struct candid_image *image, const struct image_box *box, struct candid_image **out,
                         candid_error *error);

/* Original LLaVA: expand2square with background[3], the image pasted in the centre (integer division). */
candid_status image_pad_square(const struct candid_image *image, const uint8_t background[3], struct candid_image **out,
                               candid_error *error);

/*
 * Hugging Face CLIPImageProcessor: resize so that the shortest edge is `size` (long edge int(size*long/short)),
 * bicubic, then centre crop size×size. For PAD the image is first padded to a square with int(mean*255) per channel.
 * Writes pixels (3, size, size), channel first: (value/255 - mean) / std in f32.
 */
candid_status image_preprocess(const struct candid_image *image, candid_preprocess mode, int size, const float mean[3],
                               const float std[3], float *pixels, candid_error *error);

/* What the encoder sees of an image in one go: the image resized to width × height without regard to its aspect, then
 * the square of the encoder's size at (left, top), which may reach beyond: black there. */
struct image_view {
    int width, height, left, top;
};

/* Writes pixels (3, size, size) of the view, normalised as by image_preprocess. */
candid_status image_preprocess_view(const struct candid_image *image, const struct image_view *view, int size,
                                    const float mean[3], const float std[3], float *pixels, candid_error *error);

#endif
