/* JPEG by stb_image: what is used where libjpeg-turbo is not found. How far its pixels are from Pillow's stands in
 * docs/exactness.md. */
#include "vision/decode.h"

const char *jpeg_decoder_name(void) {
    return "stb_image";
}

candid_status jpeg_decode(const struct encoded_image *file, const uint8_t *clean, size_t size, int width, int height,
                          uint8_t **pixels, candid_error *error) {
    return stb_decode(file, "JPEG", clean, size, 3, width, height, pixels, error);
}
