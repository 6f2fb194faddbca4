/* PNG and JPEG files of pictures in memory. */
#ifndef CANDID_VISION_PNG_WRITE_H
#define CANDID_VISION_PNG_WRITE_H

#include <stddef.h>
#include <stdint.h>

#include "candid/candid.h"

/* pixels: (height, width, channels) of 8 bits, channels 1 (grey), 3 (RGB) or 4 (RGBA). *png is malloc'd. */
candid_status png_encode(const uint8_t *pixels, int width, int height, int channels, uint8_t **png, size_t *size,
                         candid_error *error);

/* pixels: (height, width, 3). quality 1..100. *jpeg is malloc'd. */
candid_status jpeg_encode(const uint8_t *pixels, int width, int height, int quality, uint8_t **jpeg, size_t *size,
                          candid_error *error);

#endif
