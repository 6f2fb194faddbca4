/*
 * GIF: finds the first frame and lets stb_image decode a copy that consists of that frame alone, with one full colour
 * table and without transparency. What the frame leaves uncovered gets the transparent (else the first) colour, and
 * transparent pixels keep the colour of their index, both as in Pillow's convert("RGB").
 */
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "vision/decode.h"

#define GIF_HEADER_SIZE     13
#define GIF_DESCRIPTOR_SIZE 9
#define GIF_TABLE_SIZE      768

struct gif_walk {
    const struct encoded_image *file;
    size_t pos;
    uint8_t table[GIF_TABLE_SIZE];
    int width, height;                                    /* canvas */
    int frame_left, frame_top, frame_width, frame_height; /* first frame */
    bool interlaced;
    int transparent;        /* index, or 0 */
    size_t data, data_size; /* LZW code size and sub-blocks with their terminator */
};

static bool has_bytes(const struct gif_walk *walk, size_t size) {
    return walk->file->size - walk->pos >= size;
}

/* A colour table of 2 << (flags & 7) entries; what lies behind them is black. */
static candid_status read_table(struct gif_walk *walk, uint8_t flags, candid_error *error) {
    size_t size = 3 * ((size_t)2 << (flags & 7));
    if (!has_bytes(walk, size)) {
        return image_truncated(walk->file, "GIF", "colour table", error);
    }
    memset(walk->table, 0, sizeof walk->table);
    memcpy(walk->table, walk->file->data + walk->pos, size);
    walk->pos += size;
    return CANDID_OK;
}

static candid_status skip_sub_blocks(struct gif_walk *walk, candid_error *error) {
    for (;;) {
        if (!has_bytes(walk, 1)) {
            return image_truncated(walk->file, "GIF", "end of a data block", error);
        }
        size_t size = walk->file->data[walk->pos++];
        if (size == 0) {
            return CANDID_OK;
        }
        if (!has_bytes(walk, size)) {
            return image_truncated(walk->file, "GIF", "end of a data block", error);
        }
        walk->pos += size;
    }
}

static candid_status read_frame(struct gif_walk *walk, candid_error *error) {
    const struct encoded_image *file = walk->file;
    if (!has_bytes(walk, GIF_DESCRIPTOR_SIZE)) {
        return image_truncated(file, "GIF", "image descriptor", error);
    }
    const uint8_t *p = file->data + walk->pos;
    walk->frame_left = (int)read_u16le(p);
    walk->frame_top = (int)read_u16le(p + 2);
    walk->frame_width = (int)read_u16le(p + 4);
    walk->frame_height = (int)read_u16le(p + 6);
    uint8_t flags = p[8];
    walk->interlaced = flags & 0x40;
    walk->pos += GIF_DESCRIPTOR_SIZE;
    /* A frame that leaves the canvas enlarges it, as in Pillow. */
    int right = walk->frame_left + walk->frame_width, bottom = walk->frame_top + walk->frame_height;
    walk->width = right > walk->width ? right : walk->width;
    walk->height = bottom > walk->height ? bottom : walk->height;
    TRY(image_check_size(file, "GIF", walk->frame_width, walk->frame_height, error));
    /* stb_image counts canvas bytes in 16 bits per side. */
    if (walk->width > UINT16_MAX || walk->height > UINT16_MAX) {
        return image_broken(file, "GIF", "the first frame lies outside of the largest canvas", error);
    }
    TRY(image_check_size(file, "GIF", walk->width, walk->height, error));
    if (flags & 0x80) {
        TRY(read_table(walk, flags, error));
    }
    walk->data = walk->pos;
    if (!has_bytes(walk, 1)) {
        return image_truncated(file, "GIF", "image data", error);
    }
    walk->pos++;
    TRY(skip_sub_blocks(walk, error));
    walk->data_size = walk->pos - walk->data;
    return CANDID_OK;
}

static candid_status walk_gif(struct gif_walk *walk, candid_error *error) {
    const struct encoded_image *file = walk->file;
    if (file->size < GIF_HEADER_SIZE) {
        return image_truncated(file, "GIF", "header", error);
    }
    walk->width = (int)read_u16le(file->data + 6);
    walk->height = (int)read_u16le(file->data + 8);
    walk->pos = GIF_HEADER_SIZE;
    for (int i = 0; i < GIF_TABLE_SIZE; i++) {
        walk->table[i] = (uint8_t)(i / 3); /* grey where there is no table at all */
    }
    if (file->data[10] & 0x80) {
        TRY(read_table(walk, file->data[10], error));
    }
    for (;;) {
        if (!has_bytes(walk, 2)) {
            return image_truncated(file, "GIF", "first frame", error);
        }
        const uint8_t *p = file->data + walk->pos;
        switch (p[0]) {
        case 0: walk->pos++; break; /* stray terminator */
        case 0x2C: walk->pos++; return read_frame(walk, error);
        case 0x21:
            if (p[1] == 0xF9 && has_bytes(walk, 8) && p[2] == 4 && (p[3] & 1)) {
                walk->transparent = p[6];
            }
            walk->pos += 2;
            TRY(skip_sub_blocks(walk, error));
            break;
        case 0x3B: return image_broken(file, "GIF", "it holds no image", error);
        default: return image_broken(file, "GIF", "a block of unknown type", error);
        }
    }
}

static void write_u16le(struct byte_writer *writer, int value) {
    write_bytes(writer, (uint8_t[2]){(uint8_t)value, (uint8_t)(value >> 8)}, 2);
}

static void write_clean_gif(const struct gif_walk *walk, struct byte_writer *clean) {
    write_bytes(clean, "GIF89a", 6);
    write_u16le(clean, walk->width);
    write_u16le(clean, walk->height);
    write_bytes(clean, "\xF7\0\0", 3); /* 256 colours, background index 0, no aspect ratio */
    write_bytes(clean, walk->table, GIF_TABLE_SIZE);
    write_bytes(clean, "\x2C", 1);
    write_u16le(clean, walk->frame_left);
    write_u16le(clean, walk->frame_top);
    write_u16le(clean, walk->frame_width);
    write_u16le(clean, walk->frame_height);
    write_bytes(clean, walk->interlaced ? "\x40" : "\0", 1);
    write_bytes(clean, walk->file->data + walk->data, walk->data_size);
    write_bytes(clean, "\x3B", 1);
}

/* RGBA to RGB in place. stb_image marks pixels it did not draw by alpha 0: outside of the frame they get the uncovered
 * colour, inside of it the compressed data ended early. */
static candid_status drop_alpha(const struct gif_walk *walk, uint8_t *pixels, candid_error *error) {
    const uint8_t *uncovered = walk->table + 3 * walk->transparent;
    const uint8_t *from = pixels;
    uint8_t *to = pixels;
    for (int y = 0; y < walk->height; y++) {
        bool frame_row = y >= walk->frame_top && y < walk->frame_top + walk->frame_height;
        for (int x = 0; x < walk->width; x++, from += 4, to += 3) {
            bool in_frame = frame_row && x >= walk->frame_left && x < walk->frame_left + walk->frame_width;
            if (in_frame && from[3] == 0) {
                return image_truncated(walk->file, "GIF", "rest of the compressed pixels", error);
            }
            const uint8_t *colour = in_frame ? from : uncovered;
            uint8_t r = colour[0], g = colour[1], b = colour[2];
            to[0] = r;
            to[1] = g;
            to[2] = b;
        }
    }
    return CANDID_OK;
}

candid_status decode_gif(const struct encoded_image *file, struct candid_image **out, candid_error *error) {
    struct gif_walk walk = {.file = file};
    TRY(walk_gif(&walk, error));
    size_t capacity = GIF_HEADER_SIZE + GIF_TABLE_SIZE + 1 + GIF_DESCRIPTOR_SIZE + walk.data_size + 1;
    struct byte_writer clean = {.data = malloc(capacity)};
    if (!clean.data) {
        return fail_memory(error, file->name, capacity);
    }
    write_clean_gif(&walk, &clean);
    uint8_t *pixels = NULL;
    candid_status status = stb_decode(file, "GIF", clean.data, clean.size, 4, walk.width, walk.height, &pixels, error);
    free(clean.data);
    TRY(status);
    status = drop_alpha(&walk, pixels, error);
    if (status != CANDID_OK) {
        free(pixels);
        return status;
    }
    size_t size = 3 * (size_t)walk.width * (size_t)walk.height;
    uint8_t *rgb = realloc(pixels, size);
    return image_adopt(walk.width, walk.height, rgb ? rgb : pixels, out, error);
}
