/*
 * BMP without compression and binary PNM: plain rasters behind a small header, with the arithmetic of Pillow where
 * samples are not 8 bits wide.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "vision/decode.h"

/* ---- BMP --------------------------------------------------------------------------------------- */

#define BMP_FILE_HEADER_SIZE 14

struct bmp_channel {
    int shift;
    uint32_t max; /* value of full intensity */
};

struct bmp_walk {
    const struct encoded_image *file;
    int width, height, bits;
    bool top_down;
    struct bmp_channel channel[3]; /* red, green, blue of 16- and 32-bit pixels */
    uint8_t palette[256][3];
    size_t raster, stride;
};

static candid_status set_mask(struct bmp_walk *walk, int channel, uint32_t mask, candid_error *error) {
    struct bmp_channel *c = &walk->channel[channel];
    c->shift = 0;
    while (mask && !(mask & 1)) {
        mask >>= 1;
        c->shift++;
    }
    c->max = mask;
    if (mask == 0 || (mask & (mask + 1)) != 0) {
        return image_broken(walk->file, "BMP", "a colour mask is empty or has gaps", error);
    }
    return CANDID_OK;
}

static candid_status read_masks(struct bmp_walk *walk, uint32_t compression, candid_error *error) {
    uint32_t masks[3] = {0xFF0000, 0xFF00, 0xFF};
    if (compression != 0) {
        /* Bit fields follow the 40-byte header or are part of a longer one: the same place. */
        if (walk->file->size < BMP_FILE_HEADER_SIZE + 40 + 12) {
            return image_truncated(walk->file, "BMP", "colour masks", error);
        }
        for (int i = 0; i < 3; i++) {
            masks[i] = read_u32le(walk->file->data + BMP_FILE_HEADER_SIZE + 40 + 4 * i);
        }
    } else if (walk->bits == 16) {
        masks[0] = 31 << 10;
        masks[1] = 31 << 5;
        masks[2] = 31;
    }
    for (int i = 0; i < 3; i++) {
        TRY(set_mask(walk, i, masks[i], error));
    }
    return CANDID_OK;
}

/* Entries between the header and the raster; indices behind them are black. */
static void read_palette(struct bmp_walk *walk, size_t start, uint32_t colours, size_t entry_size) {
    size_t room = walk->raster > start ? (walk->raster - start) / entry_size : 0;
    size_t n = colours ? colours : (size_t)1 << walk->bits;
    n = n < room ? n : room;
    n = n < 256 ? n : 256;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *bgr = walk->file->data + start + i * entry_size;
        walk->palette[i][0] = bgr[2];
        walk->palette[i][1] = bgr[1];
        walk->palette[i][2] = bgr[0];
    }
}

static candid_status walk_bmp(struct bmp_walk *walk, candid_error *error) {
    const struct encoded_image *file = walk->file;
    const uint8_t *p = file->data;
    if (file->size < BMP_FILE_HEADER_SIZE + 12 ||
        file->size - BMP_FILE_HEADER_SIZE < read_u32le(p + BMP_FILE_HEADER_SIZE)) {
        return image_truncated(file, "BMP", "header", error);
    }
    size_t header_size = read_u32le(p + BMP_FILE_HEADER_SIZE);
    walk->raster = read_u32le(p + 10);
    int64_t width, height;
    uint32_t compression = 0, colours = 0;
    if (header_size == 12) {
        width = read_u16le(p + 18);
        height = read_u16le(p + 20);
        walk->bits = (int)read_u16le(p + 24);
    } else {
        if (header_size < 40) {
            return image_broken(file, "BMP", "the header has an unknown length", error);
        }
        width = (int32_t)read_u32le(p + 18);
        height = (int32_t)read_u32le(p + 22);
        walk->bits = (int)read_u16le(p + 28);
        compression = read_u32le(p + 30);
        colours = read_u32le(p + 46);
    }
    walk->top_down = height < 0;
    height = height < 0 ? -height : height;
    TRY(image_check_size(file, "BMP", width, height, error));
    walk->width = (int)width;
    walk->height = (int)height;

    bool bit_fields = compression == 3 || compression == 6;
    if (compression != 0 && !bit_fields) {
        return fail(error, CANDID_ERROR_UNSUPPORTED, "%s: BMP file with compression %u, expected 0, 3 or 6 (none)",
                    file->name, compression);
    }
    int bits = walk->bits;
    if (bits != 1 && bits != 4 && bits != 8 && bits != 16 && bits != 24 && bits != 32) {
        return fail(error, CANDID_ERROR_FORMAT,
                    "%s: broken BMP file: %d bits per pixel, expected 1, 4, 8, 16, 24 or 32", file->name, bits);
    }
    if (bits == 16 || bits == 32) {
        TRY(read_masks(walk, compression, error));
    }
    walk->stride = ((size_t)walk->width * (size_t)bits + 31) / 32 * 4;
    /* The padding of the last row may be missing. */
    size_t needed = walk->stride * (size_t)(walk->height - 1) + ((size_t)walk->width * (size_t)bits + 7) / 8;
    if (walk->raster > file->size || file->size - walk->raster < needed) {
        return image_truncated(file, "BMP", "rest of the pixels", error);
    }
    if (bits <= 8) {
        read_palette(walk, BMP_FILE_HEADER_SIZE + header_size, colours, header_size == 12 ? 3 : 4);
    }
    return CANDID_OK;
}

static void read_bmp_row(const struct bmp_walk *walk, const uint8_t *row, uint8_t *rgb) {
    for (size_t x = 0; x < (size_t)walk->width; x++, rgb += 3) {
        if (walk->bits <= 8) {
            size_t per_byte = (size_t)(8 / walk->bits);
            int shift = 8 - walk->bits * (int)(x % per_byte + 1);
            int index = row[x / per_byte] >> shift & ((1 << walk->bits) - 1);
            memcpy(rgb, walk->palette[index], 3);
        } else if (walk->bits == 24) {
            rgb[0] = row[3 * x + 2];
            rgb[1] = row[3 * x + 1];
            rgb[2] = row[3 * x];
        } else {
            uint32_t v = walk->bits == 16 ? read_u16le(row + 2 * x) : read_u32le(row + 4 * x);
            for (int i = 0; i < 3; i++) {
                const struct bmp_channel *c = &walk->channel[i];
                rgb[i] = (uint8_t)((uint64_t)(v >> c->shift & c->max) * 255 / c->max);
            }
        }
    }
}

candid_status decode_bmp(const struct encoded_image *file, struct candid_image **out, candid_error *error) {
    struct bmp_walk walk = {.file = file};
    TRY(walk_bmp(&walk, error));
    struct candid_image *image = NULL;
    TRY(image_create(walk.width, walk.height, &image, error));
    for (int y = 0; y < walk.height; y++) {
        int row = walk.top_down ? y : walk.height - 1 - y;
        read_bmp_row(&walk, file->data + walk.raster + walk.stride * (size_t)row,
                     image->rgb + (size_t)y * (size_t)walk.width * 3);
    }
    *out = image;
    return CANDID_OK;
}

/* ---- PNM --------------------------------------------------------------------------------------- */

static bool is_space(uint8_t c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Reads a decimal number after white space and comments; -1 where there is none or it is absurdly large. */
static int64_t read_number(const struct encoded_image *file, size_t *pos) {
    while (*pos < file->size && (is_space(file->data[*pos]) || file->data[*pos] == '#')) {
        if (file->data[*pos] == '#') {
            while (*pos < file->size && file->data[*pos] != '\n' && file->data[*pos] != '\r') {
                ++*pos;
            }
        } else {
            ++*pos;
        }
    }
    int64_t value = -1;
    while (*pos < file->size && file->data[*pos] >= '0' && file->data[*pos] <= '9' && value < INT32_MAX) {
        value = (value < 0 ? 0 : 10 * value) + (file->data[*pos] - '0');
        ++*pos;
    }
    return value < INT32_MAX ? value : -1;
}

candid_status decode_pnm(const struct encoded_image *file, struct candid_image **out, candid_error *error) {
    if (file->data[1] != '5' && file->data[1] != '6') {
        return fail(error, CANDID_ERROR_UNSUPPORTED, "%s: PNM file of type P%c, expected P5 or P6", file->name,
                    file->data[1]);
    }
    size_t channels = file->data[1] == '6' ? 3 : 1, pos = 2;
    int64_t width = read_number(file, &pos), height = read_number(file, &pos), max = read_number(file, &pos);
    if (width < 0 || height < 0 || max < 1 || max > UINT16_MAX || pos == file->size || !is_space(file->data[pos])) {
        return image_broken(file, "PNM", "expected width, height and a maximum from 1 to 65535", error);
    }
    pos++;
    TRY(image_check_size(file, "PNM", width, height, error));
    size_t pixels = (size_t)width * (size_t)height, sample_size = max > 255 ? 2 : 1;
    if (file->size - pos < pixels * channels * sample_size) {
        return image_truncated(file, "PNM", "rest of the pixels", error);
    }
    struct candid_image *image = NULL;
    TRY(image_create((int)width, (int)height, &image, error));
    const uint8_t *from = file->data + pos;
    uint8_t *to = image->rgb;
    for (size_t i = 0; i < pixels; i++) {
        for (size_t c = 0; c < 3; c++) {
            const uint8_t *sample = from + (channels == 3 ? c * sample_size : 0);
            uint32_t v = sample_size == 2 ? read_u16be(sample) : *sample;
            v = v > max ? (uint32_t)max : v;
            *to++ = max == 255 ? (uint8_t)v : (uint8_t)rint((double)v / (double)max * 255);
        }
        from += channels * sample_size;
    }
    *out = image;
    return CANDID_OK;
}
