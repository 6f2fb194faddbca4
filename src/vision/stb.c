/*
 * The one translation unit that contains stb_image, restricted to JPEG, PNG and GIF from memory.
 *
 * The other formats of stb_image (2.27 in Debian 12) stay out: its TGA test accepts random bytes, its HDR reader does
 * not end on truncated files, its PNM reader overruns its buffer on 16-bit greyscale, its PSD reader takes missing data
 * for zeros.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "vision/decode.h"

/* zlib streams may hold more than the pixels need; stb_image doubles its buffer until it has 4 GiB. What a picture of
 * the size found can need is known before. Per thread and set for each call: stb_image has no place for it. */
static _Thread_local size_t stb_limit;

/* Zeroed, so that what a corrupt file leaves out is the same in every run. */
static void *stb_malloc(size_t size) {
    return size > stb_limit ? NULL : calloc(1, size ? size : 1);
}

static void *stb_realloc(void *old, size_t old_size, size_t size) {
    if (size > stb_limit) {
        return NULL;
    }
    uint8_t *p = realloc(old, size ? size : 1);
    if (p && size > old_size) {
        memset(p + old_size, 0, size - old_size);
    }
    return p;
}

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_ONLY_GIF
#define STBI_NO_STDIO
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_ASSERT(condition)                ((void)0)
#define STBI_MAX_DIMENSIONS                   IMAGE_MAX_SIDE
#define STBI_MALLOC(size)                     stb_malloc(size)
#define STBI_FREE(p)                          free(p)
#define STBI_REALLOC(p, size)                 stb_realloc(p, size, size)
#define STBI_REALLOC_SIZED(p, old_size, size) stb_realloc(p, old_size, size)

/* The two warnings that stay off are given at the end of the file, about functions of stb_image. */
#pragma GCC diagnostic ignored "-Wunused-function"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#include <stb_image.h>
#pragma GCC diagnostic pop

candid_status stb_decode(const struct encoded_image *file, const char *format, const uint8_t *clean, size_t size,
                         int channels, int width, int height, uint8_t **pixels, candid_error *error) {
    if (size > INT32_MAX) {
        return fail(error, CANDID_ERROR_UNSUPPORTED, "%s: %s file of %zu bytes, at most %d are supported", file->name,
                    format, size, INT32_MAX);
    }
    /* At most 8 bytes a pixel and 8 a row, doubled by growing; never less than the file or a decoder's tables. */
    const size_t raw = ((size_t)width + 1) * (size_t)height * 8;
    stb_limit = 2 * raw + 2 * size + ((size_t)1 << 20);
    stb_limit = stb_limit > INT32_MAX ? INT32_MAX : stb_limit;
    stbi__g_failure_reason = NULL; /* thread-local; some failures leave the reason of an earlier one */
    int x = 0, y = 0, n = 0;
    uint8_t *result = stbi_load_from_memory(clean, (int)size, &x, &y, &n, channels);
    if (!result) {
        const char *reason = stbi__g_failure_reason;
        if (reason && strcmp(reason, "outofmem") == 0) {
            return fail(error, CANDID_ERROR_MEMORY,
                        "%s: out of memory decoding a %s image of %d×%d pixels, or it holds more data than that",
                        file->name, format, width, height);
        }
        return image_broken(file, format, reason && *reason ? reason : "compressed data ends early", error);
    }
    if (x != width || y != height) {
        free(result);
        return fail(error, CANDID_ERROR_INTERNAL, "%s: %s image decoded to %d×%d pixels, expected %d×%d", file->name,
                    format, x, y, width, height);
    }
    *pixels = result;
    return CANDID_OK;
}
