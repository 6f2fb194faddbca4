/*
 * PNG: walks the chunks, checks their CRCs, and lets stb_image decode a copy that consists of IHDR, PLTE (padded to 256
 * black entries), one IDAT and IEND.
 *
 * Leaving tRNS out drops transparency as Pillow's convert("RGB") drops it: the colours stay. 16-bit channels keep their
 * high byte; for RGB Pillow does the same, for 16-bit greyscale it clips everything above 255 to white, which no caller
 * can want.
 */
#include <stdlib.h>
#include <string.h>

#include "core/crc32.h"
#include "core/status.h"
#include "vision/decode.h"

#define PNG_SIGNATURE_SIZE 8
#define PNG_CHUNK_OVERHEAD 12 /* length, type, CRC */
#define PNG_PALETTE_SIZE   768

struct png_parts {
    uint32_t width, height;
    uint8_t header[13];
    uint8_t palette[PNG_PALETTE_SIZE];
    bool has_header, has_palette, has_data, has_end;
};

static void write_u32be(struct byte_writer *writer, uint32_t value) {
    write_bytes(writer,
                (uint8_t[4]){(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value}, 4);
}

/* stb_image does not look at CRCs. */
static void write_chunk(struct byte_writer *writer, const char type[4], const uint8_t *body, size_t size) {
    write_u32be(writer, (uint32_t)size);
    write_bytes(writer, type, 4);
    write_bytes(writer, body, size);
    write_u32be(writer, 0);
}

static candid_status read_header(const struct encoded_image *file, struct png_parts *parts, const uint8_t *body,
                                 size_t size, candid_error *error) {
    if (size != sizeof parts->header || parts->has_header) {
        return image_broken(file, "PNG", "the IHDR chunk has a wrong length or comes twice", error);
    }
    memcpy(parts->header, body, size);
    parts->has_header = true;
    parts->width = read_u32be(body);
    parts->height = read_u32be(body + 4);
    TRY(image_check_size(file, "PNG", parts->width, parts->height, error));

    static const uint8_t channels_of_colour[7] = {1, 0, 3, 1, 2, 0, 4};
    int depth = body[8], colour = body[9];
    int channels = colour < 7 ? channels_of_colour[colour] : 0;
    bool known_depth = depth == 1 || depth == 2 || depth == 4 || depth == 8 || depth == 16;
    if (!channels || !known_depth || (depth < 8 && channels > 1) || (depth < 8 && colour == 4) ||
        (depth == 16 && colour == 3)) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: broken PNG file: colour type %d with %d bits per channel",
                    file->name, colour, depth);
    }
    uint64_t bytes =
        (uint64_t)parts->width * parts->height * (uint64_t)(channels > 3 ? channels : 3) * (depth == 16 ? 2 : 1);
    if (bytes > INT32_MAX - IMAGE_MAX_SIDE) {
        return fail(error, CANDID_ERROR_UNSUPPORTED,
                    "%s: PNG image of %u×%u pixels with %d channels of %d bits is too large to decode", file->name,
                    parts->width, parts->height, channels, depth);
    }
    return CANDID_OK;
}

/* Collects the parts; appends image data to *data. */
static candid_status walk_png(const struct encoded_image *file, struct png_parts *parts, struct byte_writer *data,
                              candid_error *error) {
    size_t pos = PNG_SIGNATURE_SIZE;
    while (!parts->has_end) {
        if (file->size - pos < PNG_CHUNK_OVERHEAD ||
            file->size - pos - PNG_CHUNK_OVERHEAD < read_u32be(file->data + pos)) {
            return image_truncated(file, "PNG", "IEND chunk", error);
        }
        size_t size = read_u32be(file->data + pos);
        const uint8_t *type = file->data + pos + 4, *body = type + 4;
        if (crc32_update(0, type, size + 4) != read_u32be(body + size)) {
            return fail(error, CANDID_ERROR_FORMAT, "%s: broken PNG file: the chunk at byte %zu has a wrong checksum",
                        file->name, pos);
        }
        if (!parts->has_header && memcmp(type, "IHDR", 4) != 0) {
            return image_broken(file, "PNG", "the first chunk is not IHDR", error);
        }
        if (memcmp(type, "IHDR", 4) == 0) {
            TRY(read_header(file, parts, body, size, error));
        } else if (memcmp(type, "PLTE", 4) == 0) {
            if (size > PNG_PALETTE_SIZE || size % 3 != 0) {
                return image_broken(file, "PNG", "the palette has a wrong length", error);
            }
            memcpy(parts->palette, body, size);
            parts->has_palette = true;
        } else if (memcmp(type, "IDAT", 4) == 0) {
            write_bytes(data, body, size);
            parts->has_data = true;
        } else if (memcmp(type, "IEND", 4) == 0) {
            parts->has_end = true;
        } else if (!(type[0] & 0x20)) {
            return fail(error, CANDID_ERROR_UNSUPPORTED, "%s: PNG file needs the unknown chunk %02x %02x %02x %02x",
                        file->name, type[0], type[1], type[2], type[3]);
        }
        pos += PNG_CHUNK_OVERHEAD + size;
    }
    if (!parts->has_data) {
        return image_broken(file, "PNG", "it holds no image", error);
    }
    if (parts->header[9] == 3 && !parts->has_palette) {
        return image_broken(file, "PNG", "the palette is missing", error);
    }
    return CANDID_OK;
}

candid_status decode_png(const struct encoded_image *file, struct candid_image **out, candid_error *error) {
    struct png_parts parts = {0};
    /* Signature, IHDR, PLTE and the header of IDAT come first; the data goes directly to its place behind them. */
    size_t front =
        PNG_SIGNATURE_SIZE + PNG_CHUNK_OVERHEAD + sizeof parts.header + PNG_CHUNK_OVERHEAD + PNG_PALETTE_SIZE + 8;
    size_t capacity = front + file->size + 4 + PNG_CHUNK_OVERHEAD;
    uint8_t *buffer = malloc(capacity);
    if (!buffer) {
        return fail_memory(error, file->name, capacity);
    }
    uint8_t *pixels = NULL;
    candid_status status;
    struct byte_writer data = {.data = buffer + front};
    TRY_GOTO(walk_png(file, &parts, &data, error), status, done);

    struct byte_writer clean = {.data = buffer};
    write_bytes(&clean, file->data, PNG_SIGNATURE_SIZE);
    write_chunk(&clean, "IHDR", parts.header, sizeof parts.header);
    write_chunk(&clean, "PLTE", parts.palette, PNG_PALETTE_SIZE);
    write_u32be(&clean, (uint32_t)data.size);
    write_bytes(&clean, "IDAT", 4);
    clean.size += data.size;
    write_u32be(&clean, 0);
    write_chunk(&clean, "IEND", parts.palette, 0);
    TRY_GOTO(stb_decode(file, "PNG", clean.data, clean.size, 3, (int)parts.width, (int)parts.height, &pixels, error),
             status, done);
    status = image_adopt((int)parts.width, (int)parts.height, pixels, out, error);
done:
    free(buffer);
    return status;
}
