/*
 * libFuzzer target: image decoding, then both preprocessing modes.
 *
 * Images are limited to 2^14 pixels, so that a run is about the decoders and not about memory. The CRCs of PNG files
 * are made right first: a fuzzer cannot guess them, and without that it would never get past the first chunk.
 */
#include <stdlib.h>
#include <string.h>

#include "vision/decode.h"

#define SIZE 28

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t crc32_of(const uint8_t *bytes, size_t size) {
    uint32_t c = 0xFFFFFFFFu;
    for (size_t i = 0; i < size; i++) {
        c ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
        }
    }
    return ~c;
}

static void repair_png(uint8_t *data, size_t size) {
    if (size < 8 || memcmp(data, "\x89PNG", 4) != 0) {
        return;
    }
    for (size_t pos = 8; size - pos >= 12 && size - pos - 12 >= read_u32be(data + pos);) {
        size_t length = read_u32be(data + pos);
        uint32_t crc = crc32_of(data + pos + 4, length + 4);
        uint8_t *p = data + pos + 8 + length;
        for (int i = 0; i < 4; i++) {
            p[i] = (uint8_t)(crc >> (24 - 8 * i));
        }
        pos += 12 + length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
    static const float std[3] = {0.26862954f, 0.26130258f, 0.27577711f};
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) {
        return 0;
    }
    if (size) {
        memcpy(copy, data, size);
    }
    repair_png(copy, size);
    struct encoded_image file = {.data = copy, .size = size, .name = "input", .max_pixels = 1 << 14};
    struct candid_image *image = NULL;
    candid_error error = {CANDID_OK, ""};
    candid_status status = image_decode(&file, &image, &error);
    if (status == CANDID_OK) {
        static float pixels[3 * SIZE * SIZE];
        for (int mode = CANDID_PREPROCESS_PAD; mode <= CANDID_PREPROCESS_CROP; mode++) {
            if (image_preprocess(image, (candid_preprocess)mode, SIZE, mean, std, pixels, &error) != CANDID_OK) {
                abort();
            }
        }
        candid_image_free(image);
    } else if (image || error.status != status || !strstr(error.message, "input")) {
        abort(); /* every failure names the file */
    }
    free(copy);
    return 0;
}
