/* The one translation unit that contains stb_image_write, restricted to PNG in memory. */
#include "vision/png_write.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"

#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO

/* The warnings that stay off are given at the end of the file, about functions of stb_image_write. */
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#include <stb_image_write.h>
#pragma GCC diagnostic pop

candid_status png_encode(const uint8_t *pixels, int width, int height, int channels, uint8_t **png, size_t *size,
                         candid_error *error) {
    const int64_t bytes = (int64_t)width * height * channels;
    if (width < 1 || height < 1 || bytes > INT32_MAX / 2) { /* stb_image_write computes in int */
        return fail(error, CANDID_ERROR_UNSUPPORTED, "cannot write a PNG picture of %d×%d pixels", width, height);
    }
    int length = 0;
    unsigned char *file = stbi_write_png_to_mem(pixels, width * channels, width, height, channels, &length);
    if (!file) {
        return fail_memory(error, "a PNG picture", (size_t)bytes);
    }
    *png = file;
    *size = (size_t)length;
    return CANDID_OK;
}
