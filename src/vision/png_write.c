/* The one translation unit that contains stb_image_write, restricted to PNG and JPEG in memory. */
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

struct growing {
    uint8_t *data;
    size_t size, capacity;
    bool failed;
};

static void append(void *context, void *data, int size) {
    struct growing *to = context;
    if (to->failed || size < 0) {
        return;
    }
    if (to->capacity - to->size < (size_t)size) {
        const size_t capacity = 2 * to->capacity + (size_t)size + 4096;
        uint8_t *grown = realloc(to->data, capacity);
        if (!grown) {
            to->failed = true;
            return;
        }
        to->data = grown;
        to->capacity = capacity;
    }
    memcpy(to->data + to->size, data, (size_t)size);
    to->size += (size_t)size;
}

candid_status jpeg_encode(const uint8_t *pixels, int width, int height, int quality, uint8_t **jpeg, size_t *size,
                          candid_error *error) {
    if (width < 1 || height < 1 || width > UINT16_MAX || height > UINT16_MAX) {
        return fail(error, CANDID_ERROR_UNSUPPORTED, "cannot write a JPEG picture of %d×%d pixels", width, height);
    }
    struct growing file = {0};
    if (!stbi_write_jpg_to_func(append, &file, width, height, 3, pixels, quality) || file.failed) {
        free(file.data);
        return fail_memory(error, "a JPEG picture", 3 * (size_t)width * (size_t)height);
    }
    *jpeg = file.data;
    *size = file.size;
    return CANDID_OK;
}
