/*
 * Decoders of the image formats, one function each, from an encoded file in memory to RGB pixels.
 *
 * PNG and GIF are decoded by stb_image, JPEG by libjpeg-turbo where the build has found it and by stb_image elsewhere,
 * but never from the file as it came: each decoder walks the container
 * itself, refuses what is truncated or contradictory, and hands stb_image a clean copy of the parts that matter
 * (no metadata, no unknown chunks, no transparency, full palettes). stb_image tolerates a lot of damage silently and
 * reads stale memory for some of it; the walk turns that into errors and makes every result a function of the file.
 * BMP and PNM hold plain rasters and are read directly.
 */
#ifndef CANDID_VISION_DECODE_H
#define CANDID_VISION_DECODE_H

#include "vision/image.h"

#define IMAGE_MAX_PIXELS ((uint64_t)1 << 28)
#define IMAGE_MAX_FILE   ((size_t)1 << 30) /* bytes; stb_image counts them in an int */

/* An encoded file in memory; `name` is what errors call it. */
struct encoded_image {
    const uint8_t *data;
    size_t size;
    const char *name;
    uint64_t max_pixels; /* larger images are refused before anything is allocated for them */
};

/* Recognises the format and decodes. *out is owned by the caller: candid_image_free. */
candid_status image_decode(const struct encoded_image *file, struct candid_image **out, candid_error *error);

candid_status decode_jpeg(const struct encoded_image *file, struct candid_image **out, candid_error *error);
candid_status decode_png(const struct encoded_image *file, struct candid_image **out, candid_error *error);
candid_status decode_gif(const struct encoded_image *file, struct candid_image **out, candid_error *error);
candid_status decode_bmp(const struct encoded_image *file, struct candid_image **out, candid_error *error);
candid_status decode_pnm(const struct encoded_image *file, struct candid_image **out, candid_error *error);

/* Refuses sizes of 0, more than IMAGE_MAX_SIDE a side or more than file->max_pixels. `format` is e.g. "JPEG". */
candid_status image_check_size(const struct encoded_image *file, const char *format, int64_t width, int64_t height,
                               candid_error *error);

/* Allocates an image with undefined pixels; width and height have been checked. */
candid_status image_create(int width, int height, struct candid_image **out, candid_error *error);

/* An image that takes over `rgb` (malloc'ed), also when it fails. */
candid_status image_adopt(int width, int height, uint8_t *rgb, struct candid_image **out, candid_error *error);

/* The failures all decoders share: `file->name` is not a complete / not a valid / not a supported `format` file. */
candid_status image_truncated(const struct encoded_image *file, const char *format, const char *missing,
                              candid_error *error);
candid_status image_broken(const struct encoded_image *file, const char *format, const char *why, candid_error *error);

/*
 * Decodes the clean JPEG, PNG or GIF file `clean` with stb_image to `channels` (3 or 4) bytes per pixel. The result
 * must be width × height as the walk found; *pixels is then owned by the caller: free.
 */
candid_status stb_decode(const struct encoded_image *file, const char *format, const uint8_t *clean, size_t size,
                         int channels, int width, int height, uint8_t **pixels, candid_error *error);

/* Decodes the clean JPEG file `clean` to RGB, with the library the build has chosen (src/vision/jpeg_*.c); otherwise
 * like stb_decode. */
candid_status jpeg_decode(const struct encoded_image *file, const uint8_t *clean, size_t size, int width, int height,
                          uint8_t **pixels, candid_error *error);
/* "libjpeg-turbo 2.1.5" or "stb_image". */
const char *jpeg_decoder_name(void);

/* A buffer that is filled from the front; the decoders know an upper bound of what they write. */
struct byte_writer {
    uint8_t *data;
    size_t size;
};

void write_bytes(struct byte_writer *writer, const void *bytes, size_t size);

static inline uint32_t read_u16le(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static inline uint32_t read_u32le(const uint8_t *p) {
    return read_u16le(p) | read_u16le(p + 2) << 16;
}

static inline uint32_t read_u16be(const uint8_t *p) {
    return (uint32_t)p[0] << 8 | p[1];
}

static inline uint32_t read_u32be(const uint8_t *p) {
    return read_u16be(p) << 16 | read_u16be(p + 2);
}

#endif
