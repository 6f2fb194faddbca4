/*
 * Images as handles: reading the file, recognising its format, raw pixels, and the sentences for what is not an image.
 */
#include "vision/image.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "vision/decode.h"

#define EXPECTED_FORMATS "a JPEG, PNG, BMP, GIF or PNM image"

/* ---- allocation -------------------------------------------------------------------------------- */

candid_status image_adopt(int width, int height, uint8_t *rgb, struct candid_image **out, candid_error *error) {
    struct candid_image *image = malloc(sizeof *image);
    if (!image) {
        free(rgb);
        return fail_memory(error, "an image", sizeof *image);
    }
    *image = (struct candid_image){.width = width, .height = height, .rgb = rgb};
    *out = image;
    return CANDID_OK;
}

candid_status image_create(int width, int height, struct candid_image **out, candid_error *error) {
    size_t size = (size_t)width * (size_t)height * 3;
    uint8_t *rgb = malloc(size);
    if (!rgb) {
        return fail_memory(error, "the pixels of an image", size);
    }
    return image_adopt(width, height, rgb, out, error);
}

void candid_image_free(candid_image *image) {
    if (image) {
        free(image->rgb);
        free(image);
    }
}

int candid_image_width(const candid_image *image) {
    return image ? image->width : 0;
}

int candid_image_height(const candid_image *image) {
    return image ? image->height : 0;
}

const uint8_t *candid_image_pixels(const candid_image *image) {
    return image ? image->rgb : NULL;
}

/* ---- cutting ----------------------------------------------------------------------------------- */

candid_status image_crop(const struct candid_image *image, const struct image_box *box, struct candid_image **out,
                         candid_error *error) {
    if (box->x0 < 0 || box->y0 < 0 || box->x1 <= box->x0 || box->y1 <= box->y0 || box->x1 > image->width ||
        box->y1 > image->height) {
        return fail(error, CANDID_ERROR_ARGUMENT, "cannot cut [%d, %d) × [%d, %d) out of an image of %d×%d pixels",
                    box->x0, box->x1, box->y0, box->y1, image->width, image->height);
    }
    struct candid_image *part = NULL;
    TRY(image_create(box->x1 - box->x0, box->y1 - box->y0, &part, error));
    const size_t row = 3 * (size_t)part->width;
    for (int y = 0; y < part->height; y++) {
        const size_t from = (size_t)(box->y0 + y) * (size_t)image->width + (size_t)box->x0;
        memcpy(part->rgb + (size_t)y * row, image->rgb + 3 * from, row);
    }
    *out = part;
    return CANDID_OK;
}

/* ---- what decoders share ----------------------------------------------------------------------- */

void write_bytes(struct byte_writer *writer, const void *bytes, size_t size) {
    if (size) {
        memcpy(writer->data + writer->size, bytes, size);
        writer->size += size;
    }
}

candid_status image_check_size(const struct encoded_image *file, const char *format, int64_t width, int64_t height,
                               candid_error *error) {
    if (width < 1 || height < 1) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: broken %s file: %lld×%lld pixels", file->name, format,
                    (long long)width, (long long)height);
    }
    if (width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE || (uint64_t)(width * height) > file->max_pixels) {
        return fail(error, CANDID_ERROR_UNSUPPORTED,
                    "%s: %s image of %lld×%lld pixels, at most %d a side and %llu in all are supported", file->name,
                    format, (long long)width, (long long)height, IMAGE_MAX_SIDE, (unsigned long long)file->max_pixels);
    }
    return CANDID_OK;
}

candid_status image_truncated(const struct encoded_image *file, const char *format, const char *missing,
                              candid_error *error) {
    return fail(error, CANDID_ERROR_FORMAT, "%s: truncated %s file: the %s is missing in %zu bytes", file->name, format,
                missing, file->size);
}

candid_status image_broken(const struct encoded_image *file, const char *format, const char *why, candid_error *error) {
    return fail(error, CANDID_ERROR_FORMAT, "%s: broken %s file: %s", file->name, format, why);
}

/* ---- recognising ------------------------------------------------------------------------------- */

static bool starts_with(const struct encoded_image *file, size_t at, const char *magic, size_t size) {
    return file->size >= at + size && memcmp(file->data + at, magic, size) == 0;
}

/* The failure for what is none of our formats, with a guess at what it is. */
static candid_status not_an_image(const struct encoded_image *file, candid_error *error) {
    static const struct {
        size_t at;
        const char *magic;
        size_t size;
        const char *what;
    } known[] = {
        {8, "WEBP", 4, "a WebP image"},
        {0, "II*\0", 4, "a TIFF image"},
        {0, "MM\0*", 4, "a TIFF image"},
        {4, "ftyp", 4, "an AVIF or HEIF image or a video"},
        {0, "8BPS", 4, "a Photoshop image"},
        {0, "#?RADIANCE", 10, "a Radiance HDR image"},
        {0, "#?RGBE", 6, "a Radiance HDR image"},
        {0, "\0\0\1\0", 4, "an icon"},
        {0, "\0\0\0\fjP  ", 8, "a JPEG 2000 image"},
        {0, "%PDF", 4, "a PDF document"},
        {0, "GGUF", 4, "a GGUF file"},
        {0, "PK\3\4", 4, "a ZIP archive"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (starts_with(file, known[i].at, known[i].magic, known[i].size)) {
            return fail(error, CANDID_ERROR_UNSUPPORTED, "%s: expected " EXPECTED_FORMATS ", found %s", file->name,
                        known[i].what);
        }
    }
    char text[25];
    size_t n = 0;
    while (n < sizeof text - 1 && n < file->size && file->data[n] >= ' ' && file->data[n] < 127) {
        text[n] = (char)file->data[n];
        n++;
    }
    text[n] = '\0';
    if (n == sizeof text - 1 || (n > 0 && (n == file->size || file->data[n] == '\n' || file->data[n] == '\r'))) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: expected " EXPECTED_FORMATS ", found text that begins with \"%s\"",
                    file->name, text);
    }
    char bytes[3 * 8 + 1] = "";
    for (n = 0; n < 8 && n < file->size; n++) {
        snprintf(bytes + 3 * n, sizeof bytes - 3 * n, " %02x", file->data[n]);
    }
    return fail(error, CANDID_ERROR_FORMAT, "%s: expected " EXPECTED_FORMATS ", found %zu bytes that begin with%s",
                file->name, file->size, bytes);
}

candid_status image_decode(const struct encoded_image *file, struct candid_image **out, candid_error *error) {
    if (file->size == 0) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: expected " EXPECTED_FORMATS ", found 0 bytes", file->name);
    }
    if (file->size > IMAGE_MAX_FILE) {
        return fail(error, CANDID_ERROR_UNSUPPORTED, "%s: %zu bytes, image files of at most %zu are supported",
                    file->name, file->size, IMAGE_MAX_FILE);
    }
    if (starts_with(file, 0, "\xFF\xD8\xFF", 3)) {
        return decode_jpeg(file, out, error);
    }
    if (starts_with(file, 0, "\x89PNG\r\n\x1A\n", 8)) {
        return decode_png(file, out, error);
    }
    if (starts_with(file, 0, "GIF87a", 6) || starts_with(file, 0, "GIF89a", 6)) {
        return decode_gif(file, out, error);
    }
    /* Two letters are little evidence: the reserved bytes of BMP and the white space of PNM make up for it. */
    if (starts_with(file, 0, "BM", 2) && (file->size < 10 || starts_with(file, 6, "\0\0\0\0", 4))) {
        return decode_bmp(file, out, error);
    }
    if (file->size >= 3 && file->data[0] == 'P' && file->data[1] >= '1' && file->data[1] <= '7' &&
        (file->data[2] == ' ' || (file->data[2] >= '\t' && file->data[2] <= '\r') || file->data[2] == '#')) {
        return decode_pnm(file, out, error);
    }
    return not_an_image(file, error);
}

/* ---- public ------------------------------------------------------------------------------------ */

/* The end of an overlong name, so that a message keeps its cause. */
static const char *printable_name(const char *name) {
    const size_t longest = 256;
    size_t size = strlen(name);
    if (size <= longest) {
        return name;
    }
    name += size - longest;
    while (((unsigned char)*name & 0xC0) == 0x80) { /* do not begin inside a UTF-8 character */
        name++;
    }
    return name;
}

candid_status candid_image_load_memory(const void *data, size_t size, const char *name, candid_image **out,
                                       candid_error *error) {
    if (!out || (!data && size)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_image_load_memory: %s is NULL", out ? "data" : "out");
    }
    *out = NULL;
    struct encoded_image file = {
        .data = data, .size = size, .name = name ? printable_name(name) : "image", .max_pixels = IMAGE_MAX_PIXELS};
    return image_decode(&file, out, error);
}

/* Reads to the end of `stream`, whose size is not trusted: it may be a pipe. */
static candid_status read_stream(FILE *stream, const char *name, uint8_t **data, size_t *size, candid_error *error) {
    size_t capacity = 1 << 16, used = 0;
    if (fseek(stream, 0, SEEK_END) == 0) {
        long end = ftell(stream);
        if (end > 0 && (unsigned long)end <= IMAGE_MAX_FILE) {
            capacity = (size_t)end + 1; /* one more, so that the end is seen without growing */
        }
        rewind(stream);
    }
    uint8_t *buffer = NULL;
    for (;;) {
        uint8_t *grown = realloc(buffer, capacity);
        if (!grown) {
            free(buffer);
            return fail_memory(error, name, capacity);
        }
        buffer = grown;
        errno = 0;
        used += fread(buffer + used, 1, capacity - used, stream);
        if (used < capacity || used > IMAGE_MAX_FILE) {
            break;
        }
        capacity *= 2;
    }
    if (ferror(stream)) {
        int reason = errno;
        free(buffer);
        return fail(error, CANDID_ERROR_IO, "%s: cannot read the image: %s", name,
                    reason ? strerror(reason) : "input error");
    }
    *data = buffer;
    *size = used;
    return CANDID_OK;
}

candid_status candid_image_load(const char *path, candid_image **out, candid_error *error) {
    if (!path || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_image_load: %s is NULL", path ? "out" : "path");
    }
    *out = NULL;
    const char *name = printable_name(path);
    FILE *stream = fopen(path, "rbe");
    if (!stream) {
        return fail(error, CANDID_ERROR_IO, "%s: cannot open the image: %s", name, strerror(errno));
    }
    uint8_t *data = NULL;
    size_t size = 0;
    candid_status status = read_stream(stream, name, &data, &size, error);
    fclose(stream);
    TRY(status);
    status = candid_image_load_memory(data, size, name, out, error);
    free(data);
    return status;
}

candid_status candid_image_from_rgb(const uint8_t *rgb, int width, int height, size_t stride, candid_image **out,
                                    candid_error *error) {
    if (!rgb || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_image_from_rgb: %s is NULL", rgb ? "out" : "rgb");
    }
    *out = NULL;
    if (width < 1 || height < 1 || width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE ||
        (uint64_t)width * (uint64_t)height > IMAGE_MAX_PIXELS) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "candid_image_from_rgb: %d×%d pixels, expected 1 to %d a side and at most %llu in all", width,
                    height, IMAGE_MAX_SIDE, (unsigned long long)IMAGE_MAX_PIXELS);
    }
    size_t row = (size_t)width * 3;
    if (stride < row) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "candid_image_from_rgb: stride of %zu bytes, expected at least %zu for %d pixels", stride, row,
                    width);
    }
    struct candid_image *image = NULL;
    TRY(image_create(width, height, &image, error));
    for (int y = 0; y < height; y++) {
        memcpy(image->rgb + (size_t)y * row, rgb + (size_t)y * stride, row);
    }
    *out = image;
    return CANDID_OK;
}
