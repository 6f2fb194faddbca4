/*
 * JPEG: walks the segments, copies those that decide about pixels, and lets libjpeg-turbo or stb_image (see
 * jpeg_decode) decode the copy.
 *
 * A file without its end-of-image marker is truncated and refused. Where the entropy-coded data breaks off although the
 * marker is there, the rest of the image is what the decoder makes of zero bits.
 *
 * The EXIF orientation is ignored, as Pillow's open and therefore LLaVA ignore it.
 */
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "vision/decode.h"

enum {
    MARKER_TEM = 0x01,
    MARKER_SOF0 = 0xC0,
    MARKER_SOF1 = 0xC1,
    MARKER_SOF2 = 0xC2,
    MARKER_DHT = 0xC4,
    MARKER_JPG = 0xC8,
    MARKER_DAC = 0xCC,
    MARKER_SOF15 = 0xCF,
    MARKER_RST0 = 0xD0,
    MARKER_RST7 = 0xD7,
    MARKER_SOI = 0xD8,
    MARKER_EOI = 0xD9,
    MARKER_SOS = 0xDA,
    MARKER_DQT = 0xDB,
    MARKER_DRI = 0xDD,
    MARKER_APP0 = 0xE0,
    MARKER_APP14 = 0xEE
};

/* Each scan costs a pass over all blocks, however few bytes it has: a few kilobytes could keep a decoder busy for an
 * hour. Real progressive files have about ten scans. */
#define MAX_SCANS       200
#define MAX_SCAN_PIXELS ((uint64_t)1 << 33)

struct jpeg_walk {
    const struct encoded_image *file;
    struct byte_writer clean;
    int width, height, components; /* 0 before the frame header */
    int adobe_transform;           /* -1 without an Adobe segment */
    int n_scans;
};

/* stb_image copies the symbols of a table into 256 bytes without looking at their number. */
static candid_status check_huffman_tables(const struct jpeg_walk *walk, const uint8_t *body, size_t size,
                                          candid_error *error) {
    while (size) {
        if (size < 17) {
            return image_broken(walk->file, "JPEG", "a Huffman table is cut off", error);
        }
        size_t symbols = 0;
        for (int i = 1; i <= 16; i++) {
            symbols += body[i];
        }
        if (symbols > 256 || symbols > size - 17) {
            return image_broken(walk->file, "JPEG", "a Huffman table has too many symbols", error);
        }
        body += 17 + symbols;
        size -= 17 + symbols;
    }
    return CANDID_OK;
}

static candid_status read_frame_header(struct jpeg_walk *walk, const uint8_t *body, size_t size, candid_error *error) {
    const struct encoded_image *file = walk->file;
    if (walk->components) {
        return image_broken(file, "JPEG", "a second frame header", error);
    }
    if (size < 6 || size != 6 + 3 * (size_t)body[5]) {
        return image_broken(file, "JPEG", "the frame header has a wrong length", error);
    }
    if (body[0] != 8) {
        return fail(error, CANDID_ERROR_UNSUPPORTED, "%s: JPEG image with %d bits per sample, expected 8", file->name,
                    body[0]);
    }
    int height = (int)read_u16be(body + 1), width = (int)read_u16be(body + 3), components = body[5];
    TRY(image_check_size(file, "JPEG", width, height, error));
    if (components != 1 && components != 3 && components != 4) {
        return fail(error, CANDID_ERROR_UNSUPPORTED, "%s: JPEG image with %d components, expected 1, 3 or 4",
                    file->name, components);
    }
    walk->width = width;
    walk->height = height;
    walk->components = components;
    return CANDID_OK;
}

/* Handles one segment (`body` without its length field) and says in *keep whether the copy gets it. */
static candid_status read_segment(struct jpeg_walk *walk, int marker, const uint8_t *body, size_t size, bool *keep,
                                  candid_error *error) {
    const struct encoded_image *file = walk->file;
    *keep = false;
    switch (marker) {
    case MARKER_SOF0:
    case MARKER_SOF1:
    case MARKER_SOF2: *keep = true; return read_frame_header(walk, body, size, error);
    case MARKER_DHT: *keep = true; return check_huffman_tables(walk, body, size, error);
    case MARKER_DQT: *keep = true; return CANDID_OK;
    case MARKER_DRI:
        *keep = true;
        return size == 2 ? CANDID_OK : image_broken(file, "JPEG", "the restart interval has a wrong length", error);
    case MARKER_APP0: *keep = size >= 5 && memcmp(body, "JFIF", 5) == 0; return CANDID_OK;
    case MARKER_APP14:
        if (size >= 12 && memcmp(body, "Adobe", 5) == 0) {
            *keep = true;
            walk->adobe_transform = body[11];
        }
        return CANDID_OK;
    case MARKER_SOS:
        if (!walk->components) {
            return image_broken(file, "JPEG", "a scan without a frame header", error);
        }
        if (size < 6 || size != 4 + 2 * (size_t)body[0]) {
            return image_broken(file, "JPEG", "a scan header has a wrong length", error);
        }
        *keep = true;
        walk->n_scans++;
        if (walk->n_scans > MAX_SCANS ||
            (uint64_t)walk->n_scans * (uint64_t)walk->width * (uint64_t)walk->height > MAX_SCAN_PIXELS) {
            return image_broken(file, "JPEG", "it has too many scans for its size", error);
        }
        return CANDID_OK;
    default: break;
    }
    if (marker > MARKER_SOF2 && marker <= MARKER_SOF15 && marker != MARKER_JPG && marker != MARKER_DAC) {
        return fail(error, CANDID_ERROR_UNSUPPORTED,
                    "%s: JPEG coding process %d (lossless, hierarchical or arithmetic), expected baseline or "
                    "progressive",
                    file->name, marker - MARKER_SOF0);
    }
    return CANDID_OK;
}

/* The position of the next marker's 0xFF at or after `pos` in entropy-coded data, or file->size. */
static size_t find_scan_end(const struct encoded_image *file, size_t pos) {
    while (pos + 1 < file->size) {
        const uint8_t *ff = memchr(file->data + pos, 0xFF, file->size - 1 - pos);
        if (!ff) {
            break;
        }
        pos = (size_t)(ff - file->data);
        uint8_t next = file->data[pos + 1];
        if (next == 0xFF) {
            pos++;
        } else if (next == 0 || (next >= MARKER_RST0 && next <= MARKER_RST7)) {
            pos += 2;
        } else {
            return pos;
        }
    }
    return file->size;
}

static candid_status walk_jpeg(struct jpeg_walk *walk, candid_error *error) {
    const struct encoded_image *file = walk->file;
    size_t pos = 2; /* after SOI */
    write_bytes(&walk->clean, file->data, 2);
    for (;;) {
        /* Stray bytes between segments are skipped, as libjpeg does. */
        while (pos < file->size && file->data[pos] != 0xFF) {
            pos++;
        }
        while (pos < file->size && file->data[pos] == 0xFF) {
            pos++;
        }
        if (pos == file->size) {
            return image_truncated(file, "JPEG", "end-of-image marker", error);
        }
        int marker = file->data[pos++];
        if (marker == MARKER_EOI) {
            break;
        }
        if (marker == 0 || marker == MARKER_TEM || (marker >= MARKER_RST0 && marker <= MARKER_RST7)) {
            continue;
        }
        if (marker == MARKER_SOI) {
            return image_broken(file, "JPEG", "a second start-of-image marker", error);
        }
        if (file->size - pos < 2 || file->size - pos < read_u16be(file->data + pos)) {
            return image_truncated(file, "JPEG", "end of a segment", error);
        }
        size_t length = read_u16be(file->data + pos);
        if (length < 2) {
            return image_broken(file, "JPEG", "a segment has a length below 2", error);
        }
        bool keep;
        TRY(read_segment(walk, marker, file->data + pos + 2, length - 2, &keep, error));
        if (keep) {
            write_bytes(&walk->clean, (uint8_t[2]){0xFF, (uint8_t)marker}, 2);
            write_bytes(&walk->clean, file->data + pos, length);
        }
        pos += length;
        if (marker == MARKER_SOS) {
            size_t end = find_scan_end(file, pos);
            if (end == file->size) {
                return image_truncated(file, "JPEG", "end-of-image marker", error);
            }
            if (end == pos) {
                return image_broken(file, "JPEG", "a scan without data", error);
            }
            write_bytes(&walk->clean, file->data + pos, end - pos);
            pos = end;
        }
    }
    write_bytes(&walk->clean, (uint8_t[2]){0xFF, MARKER_EOI}, 2);
    if (walk->n_scans == 0) {
        return image_broken(file, "JPEG", "it holds no image", error);
    }
    if (walk->components == 4 && walk->adobe_transform != 0 && walk->adobe_transform != 2) {
        return fail(error, CANDID_ERROR_UNSUPPORTED,
                    "%s: JPEG image with 4 components, expected the Adobe marker that says they are CMYK or YCCK",
                    file->name);
    }
    return CANDID_OK;
}

candid_status decode_jpeg(const struct encoded_image *file, struct candid_image **out, candid_error *error) {
    /* Everything written was read before, with at most as many bytes of marker. */
    struct jpeg_walk walk = {.file = file, .adobe_transform = -1, .clean.data = malloc(file->size)};
    if (!walk.clean.data) {
        return fail_memory(error, file->name, file->size);
    }
    uint8_t *pixels = NULL;
    candid_status status;
    TRY_GOTO(walk_jpeg(&walk, error), status, done);
    TRY_GOTO(jpeg_decode(file, walk.clean.data, walk.clean.size, walk.width, walk.height, &pixels, error), status,
             done);
    status = image_adopt(walk.width, walk.height, pixels, out, error);
done:
    free(walk.clean.data);
    return status;
}
