/*
 * Decoding against Pillow's pixels, resize and preprocessing against Pillow and transformers byte for byte, and every
 * way in which a file can fail to be an image. The data is made by tests/golden/make_preprocess.py.
 */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/crc32.h"
#include "vision/decode.h"
#include "vision/image.h"

static const float clip_mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
static const float clip_std[3] = {0.26862954f, 0.26130258f, 0.27577711f};

/* ---- helpers ----------------------------------------------------------------------------------- */

static uint8_t *read_file(const char *path, size_t *size) {
    FILE *stream = fopen(path, "rb");
    if (!stream) {
        fail_msg("cannot open %s", path);
    }
    fseek(stream, 0, SEEK_END);
    *size = (size_t)ftell(stream);
    rewind(stream);
    uint8_t *data = malloc(*size + 1);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *size, stream), *size);
    fclose(stream);
    return data;
}

static uint8_t *read_image_file(const char *name, size_t *size) {
    char path[1024];
    snprintf(path, sizeof path, TEST_DATA "/images/%s", name);
    return read_file(path, size);
}

static candid_image *load(const char *path) {
    candid_image *image = NULL;
    candid_error error = {CANDID_OK, ""};
    if (candid_image_load(path, &image, &error) != CANDID_OK) {
        fail_msg("%s: %s", path, error.message);
    }
    return image;
}

static candid_image *load_source(const char *name) {
    char path[1024];
    snprintf(path, sizeof path, TEST_DATA "/images/%s", name);
    return load(path);
}

/* Loads bytes that must not be an image; the message must name them and contain `part`. */
static void refuse(const uint8_t *data, size_t size, candid_status expected, const char *part) {
    candid_image *image = NULL;
    candid_error error = {CANDID_OK, ""};
    /* An exact allocation, so that AddressSanitizer sees reads behind the end. */
    uint8_t *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    memcpy(copy, data, size);
    candid_status status = candid_image_load_memory(copy, size, "the/file", &image, &error);
    free(copy);
    assert_null(image);
    if (status != expected || error.status != expected || strncmp(error.message, "the/file: ", 10) != 0 ||
        !strstr(error.message, part)) {
        fail_msg("%zu bytes: status %d, \"%s\"; expected %d and \"%s\"", size, status, error.message, expected, part);
    }
}

/* ---- decoding ---------------------------------------------------------------------------------- */

static void decoded_pixels_equal_pillow(void **state) {
    static const char *const names[] = {
        "rgb.png",
        "grey.png",
        "grey_alpha.png",
        "grey_transparent.png",
        "rgba.png",
        "palette.png",
        "rgb_transparent.png",
        "palette_2bit.png",
        "palette_transparent.png",
        "palette_short.png",
        "one_bit.png",
        "rgb16.png",
        "rgba16.png",
        "grey16.png",
        "grey_alpha16.png",
        "interlaced.png",
        "rgb.bmp",
        "palette.bmp",
        "one_bit.bmp",
        "top_down_565.bmp",
        "rgb555.bmp",
        "rgbx.bmp",
        "os2.bmp",
        "row.bmp",
        "palette.gif",
        "transparent.gif",
        "animated.gif",
        "part_of_canvas.gif",
        "rgb.ppm",
        "grey.pgm",
        "max100.ppm",
        "rgb16.ppm",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[1024];
        snprintf(path, sizeof path, TEST_GOLDEN "/decode/%s.rgb", names[i]);
        size_t size;
        uint8_t *expected = read_file(path, &size);
        candid_image *image = load_source(names[i]);
        bool part = strcmp(names[i], "part_of_canvas.gif") == 0;
        bool row = strcmp(names[i], "row.bmp") == 0;
        assert_int_equal(candid_image_width(image), part ? 20 : 13);
        assert_int_equal(candid_image_height(image), part ? 15 : row ? 1 : 9);
        assert_int_equal(size, 3 * image->width * image->height);
        if (memcmp(image->rgb, expected, size) != 0) {
            fail_msg("%s: pixels differ from Pillow's", names[i]);
        }
        candid_image_free(image);
        free(expected);
    }
}

/* Equal where libjpeg-turbo decodes, close where stb_image does. */
static void jpeg_pixels_are_those_of_pillow(void **state) {
    const bool turbo = strncmp(jpeg_decoder_name(), "libjpeg-turbo", 13) == 0;
    print_message("JPEG by %s\n", jpeg_decoder_name());
    static const char *const names[] = {"444.jpg",  "420.jpg",  "progressive.jpg", "restart.jpg",
                                        "grey.jpg", "cmyk.jpg", "rotated.jpg"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[1024];
        snprintf(path, sizeof path, TEST_GOLDEN "/decode/%s.rgb", names[i]);
        size_t size;
        uint8_t *expected = read_file(path, &size);
        candid_image *image = load_source(names[i]);
        assert_int_equal(candid_image_width(image), 61);
        assert_int_equal(candid_image_height(image), 47);
        assert_int_equal(size, 3 * 61 * 47);
        int largest = 0, sum = 0;
        for (size_t k = 0; k < size; k++) {
            int difference = abs(image->rgb[k] - expected[k]);
            largest = difference > largest ? difference : largest;
            sum += difference;
        }
        if (largest > (turbo ? 0 : 3) || sum > (int)size / 5) {
            fail_msg("%s: differs from Pillow by up to %d, %g on average", names[i], largest,
                     (double)sum / (double)size);
        }
        candid_image_free(image);
        free(expected);
    }
}

static void bytes_behind_the_end_are_ignored(void **state) {
    static const char *const names[] = {"420.jpg", "rgb.png", "rgb.bmp", "palette.gif", "rgb.ppm"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t size;
        uint8_t *data = read_image_file(names[i], &size);
        data = realloc(data, size + 100);
        assert_non_null(data);
        memset(data + size, 0xFF, 100);
        candid_image *image = NULL;
        assert_int_equal(candid_image_load_memory(data, size + 100, NULL, &image, NULL), CANDID_OK);
        candid_image *original = load_source(names[i]);
        assert_int_equal(image->width, original->width);
        assert_memory_equal(image->rgb, original->rgb, 3 * (size_t)image->width * (size_t)image->height);
        candid_image_free(original);
        candid_image_free(image);
        free(data);
    }
}

static void every_shorter_file_is_refused(void **state) {
    /* `spare` bytes at the end do not matter: the trailer of GIF, the padding of the last row of BMP. */
    static const struct {
        const char *name;
        size_t spare;
    } files[] = {{"420.jpg", 0},     {"progressive.jpg", 0}, {"rgb.png", 0},   {"palette.png", 0},
                 {"palette.gif", 1}, {"transparent.gif", 1}, {"rgb.bmp", 1},   {"palette.bmp", 3},
                 {"rgb.ppm", 0},     {"grey.pgm", 0},        {"rgb16.ppm", 0}, {"top_down_565.bmp", 2}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t size;
        uint8_t *data = read_image_file(files[i].name, &size);
        for (size_t n = 0; n + files[i].spare < size; n++) {
            refuse(data, n, CANDID_ERROR_FORMAT, n >= 16 ? "truncated" : "");
        }
        candid_image *image = NULL;
        assert_int_equal(candid_image_load_memory(data, size - files[i].spare, "x", &image, NULL), CANDID_OK);
        candid_image_free(image);
        free(data);
    }
}

static void damage_is_refused(void **state) {
    size_t size;
    uint8_t *data = read_image_file("rgb.png", &size);
    for (size_t i = 8; i < size; i++) { /* every bit of a PNG file is under a checksum or in its structure */
        data[i] ^= 0x10;
        candid_image *image = NULL;
        candid_error error;
        assert_int_not_equal(candid_image_load_memory(data, size, "x", &image, &error), CANDID_OK);
        data[i] ^= 0x10;
    }
    data[size / 2] ^= 1;
    refuse(data, size, CANDID_ERROR_FORMAT, "wrong checksum");
    free(data);

    data = read_image_file("bad_zlib.png", &size);
    refuse(data, size, CANDID_ERROR_FORMAT, "broken PNG file: not enough pixels");
    free(data);
    data = read_image_file("bad_palette.png", &size);
    refuse(data, size, CANDID_ERROR_FORMAT, "broken PNG file: the palette is missing");
    free(data);
    data = read_image_file("bad_critical.png", &size);
    refuse(data, size, CANDID_ERROR_UNSUPPORTED, "needs the unknown chunk 41 42 43 44");
    free(data);

    data = read_image_file("palette.gif", &size);
    data[13 + 3 * (2u << (data[10] & 7)) + 11] = 0; /* no compressed data behind the code size */
    refuse(data, size, CANDID_ERROR_FORMAT, "truncated GIF file: the rest of the compressed pixels");
    free(data);

    data = read_image_file("420.jpg", &size);
    uint8_t *table = memmem(data, size, "\xFF\xC4", 2);
    assert_non_null(table);
    memset(table + 5, 0xFF, 16);
    refuse(data, size, CANDID_ERROR_FORMAT, "broken JPEG file: a Huffman table has too many symbols");
    free(data);
}

/* Files of some kilobytes that would keep a decoder busy for minutes. */
static void scans_without_end_are_refused(void **state) {
    size_t size;
    uint8_t *data = read_image_file("progressive.jpg", &size), *scan = data, *next;
    while ((next = memmem(scan + 1, size - (size_t)(scan + 1 - data), "\xFF\xDA", 2))) {
        scan = next;
    }
    const size_t before = (size_t)(scan - data), length = size - before - 2; /* the last scan, up to the end marker */
    uint8_t *many = malloc(before + 300 * length + 2);
    assert_non_null(many);
    memcpy(many, data, before);
    for (size_t i = 0; i < 300; i++) {
        memcpy(many + before + i * length, scan, length);
    }
    memcpy(many + before + 300 * length, "\xFF\xD9", 2);
    refuse(many, before + 300 * length + 2, CANDID_ERROR_FORMAT, "broken JPEG file: it has too many scans");
    const size_t header = 2 + (size_t)(scan[2] << 8 | scan[3]);
    memcpy(many + before + header, "\xFF\xD9", 2); /* a scan header and nothing behind it */
    refuse(many, before + header + 2, CANDID_ERROR_FORMAT, "broken JPEG file: a scan without data");
    free(many);
    free(data);
}

struct bit_writer {
    uint8_t *bytes;
    size_t n_bits;
};

/* Huffman codes go out first bit first. */
static void put_code(struct bit_writer *w, unsigned code, int n) {
    for (int i = n - 1; i >= 0; i--, w->n_bits++) {
        w->bytes[w->n_bits / 8] |= (uint8_t)((code >> i & 1) << w->n_bits % 8);
    }
}

static size_t put_chunk(uint8_t *to, const char *type, const uint8_t *body, size_t size) {
    const uint32_t fields[2] = {htonl((uint32_t)size), 0};
    memcpy(to, &fields[0], 4);
    memcpy(to + 4, type, 4);
    memcpy(to + 8, body, size);
    const uint32_t crc = htonl(crc32_update(0, to + 4, size + 4));
    memcpy(to + 8 + size, &crc, 4);
    return size + 12;
}

/* One pixel whose compressed data unfold to 40 MB: refused before they do. */
static void a_png_of_more_data_than_pixels_is_refused(void **state) {
    enum { MATCHES = 160000 };
    uint8_t *zlib = calloc(1, MATCHES * 13 / 8 + 64), *file = malloc(MATCHES * 13 / 8 + 256);
    assert_true(zlib && file);
    memcpy(zlib, "\x78\x9c", 2);
    struct bit_writer w = {zlib, 16};
    put_code(&w, 1, 1);    /* last block */
    put_code(&w, 2, 2);    /* fixed codes (two bits, low one first) */
    put_code(&w, 0x30, 8); /* literal 0 */
    for (int i = 0; i < MATCHES; i++) {
        put_code(&w, 0xC5, 8); /* 258 bytes … */
        put_code(&w, 0, 5);    /* … from one back */
    }
    put_code(&w, 0, 7); /* end */
    static const uint8_t header[13] = {0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0};
    size_t size = 8;
    memcpy(file, "\x89PNG\r\n\x1a\n", 8);
    size += put_chunk(file + size, "IHDR", header, sizeof header);
    size += put_chunk(file + size, "IDAT", zlib, w.n_bits / 8 + 8);
    size += put_chunk(file + size, "IEND", header, 0);
    refuse(file, size, CANDID_ERROR_MEMORY, "1×1 pixels, or it holds more data than that");
    free(zlib);
    free(file);
}

static void oversized_images_are_refused(void **state) {
    size_t size;
    uint8_t *data = read_image_file("bad_size.png", &size);
    refuse(data, size, CANDID_ERROR_UNSUPPORTED, "PNG image of 65536×65536 pixels, at most 65536 a side and 268435456");
    free(data);

    data = read_image_file("420.jpg", &size);
    uint8_t *frame = memmem(data, size, "\xFF\xC0", 2);
    assert_non_null(frame);
    memset(frame + 5, 0xFF, 4);
    refuse(data, size, CANDID_ERROR_UNSUPPORTED, "JPEG image of 65535×65535 pixels");
    memset(frame + 5, 0, 4);
    refuse(data, size, CANDID_ERROR_FORMAT, "broken JPEG file: 0×0 pixels");
    frame[1] = 0xC9;
    refuse(data, size, CANDID_ERROR_UNSUPPORTED, "JPEG coding process 9");
    free(data);

    data = read_image_file("palette.gif", &size);
    memset(data + 6, 0xFF, 4);
    refuse(data, size, CANDID_ERROR_UNSUPPORTED, "GIF image of 65535×65535 pixels");
    free(data);

    data = read_image_file("rgb.bmp", &size);
    memcpy(data + 18, "\0\0\1\0\0\0\0\x80", 8); /* height -2^31 */
    refuse(data, size, CANDID_ERROR_UNSUPPORTED, "BMP image of 65536×2147483648 pixels");
    free(data);

    refuse((const uint8_t *)"P6 65536 65536 255\nxx", 21, CANDID_ERROR_UNSUPPORTED, "PNM image of 65536×65536 pixels");
    refuse((const uint8_t *)"P6 99999999999999999999 1 255\nxx", 32, CANDID_ERROR_FORMAT, "broken PNM file");
}

static void other_files_are_named(void **state) {
    static const struct {
        const char *bytes;
        size_t size;
        candid_status status;
        const char *part;
    } files[] = {
        {"", 0, CANDID_ERROR_FORMAT, "expected a JPEG, PNG, BMP, GIF or PNM image, found 0 bytes"},
        {"<html><body>404</body></html>\n", 30, CANDID_ERROR_FORMAT, "found text that begins with \"<html><body>"},
        {"hello\n", 6, CANDID_ERROR_FORMAT, "found text that begins with \"hello\""},
        {"\1\2\3\4\5", 5, CANDID_ERROR_FORMAT, "found 5 bytes that begin with 01 02 03 04 05"},
        {"RIFF\0\0\0\0WEBPVP8 ", 16, CANDID_ERROR_UNSUPPORTED, "found a WebP image"},
        {"MM\0*\0\0\0\x08", 8, CANDID_ERROR_UNSUPPORTED, "found a TIFF image"},
        {"P3\n1 1\n255\n1 2 3\n", 17, CANDID_ERROR_UNSUPPORTED, "PNM file of type P3, expected P5 or P6"},
        /* a plausible TGA header: has no magic number and is therefore not read */
        {"\0\0\2\0\0\0\0\0\0\0\0\0\1\0\1\0\x18\0abc", 21, CANDID_ERROR_FORMAT, "found 21 bytes"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        refuse((const uint8_t *)files[i].bytes, files[i].size, files[i].status, files[i].part);
    }
}

static void path_problems_are_named(void **state) {
    char folder[] = "/tmp/candid_image_XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.jpg", folder);
    candid_image *image = (candid_image *)path;
    candid_error error;
    assert_int_equal(candid_image_load(path, &image, &error), CANDID_ERROR_IO);
    assert_null(image);
    assert_non_null(strstr(error.message, path));
    assert_non_null(strstr(error.message, "cannot open the image: No such file"));

    assert_int_equal(candid_image_load(folder, &image, &error), CANDID_ERROR_IO);
    assert_non_null(strstr(error.message, folder));
    assert_non_null(strstr(error.message, "cannot read the image: Is a directory"));

    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    fclose(stream);
    assert_int_equal(candid_image_load(path, &image, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, path));
    assert_non_null(strstr(error.message, "found 0 bytes"));
    if (geteuid() != 0) { /* root may read everything */
        assert_int_equal(chmod(path, 0), 0);
        assert_int_equal(candid_image_load(path, &image, &error), CANDID_ERROR_IO);
        assert_non_null(strstr(error.message, path));
        assert_non_null(strstr(error.message, "Permission denied"));
    }
    unlink(path);
    rmdir(folder);

    /* Of an overlong name the end is kept, and so is the cause. */
    char longest[2000];
    memset(longest, 'd', sizeof longest);
    strcpy(longest + sizeof longest - 10, "/last.jpg");
    assert_int_equal(candid_image_load_memory("x", 1, longest, &image, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "/last.jpg: expected"));
    assert_non_null(strstr(error.message, "found text"));
}

static void null_arguments_are_refused(void **state) {
    candid_image *image;
    candid_error error;
    assert_int_equal(candid_image_load(NULL, &image, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_image_load("x", NULL, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_image_load("/nonexistent/x", &image, NULL), CANDID_ERROR_IO);
    assert_int_equal(candid_image_load_memory(NULL, 1, "x", &image, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_image_load_memory("x", 1, "x", NULL, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_image_load_memory(NULL, 0, NULL, &image, &error), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "found 0 bytes"));
    uint8_t pixel[3] = {1, 2, 3};
    assert_int_equal(candid_image_from_rgb(NULL, 1, 1, 3, &image, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_image_from_rgb(pixel, 1, 1, 3, NULL, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_image_from_rgb(pixel, 0, 1, 3, &image, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_image_from_rgb(pixel, 1, -1, 3, &image, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_image_from_rgb(pixel, 65537, 1, 1 << 20, &image, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_image_from_rgb(pixel, 65536, 65536, 1 << 20, &image, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(candid_image_from_rgb(pixel, 1, 1, 2, &image, &error), CANDID_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "stride of 2 bytes, expected at least 3"));
    assert_int_equal(candid_image_width(NULL), 0);
    assert_int_equal(candid_image_height(NULL), 0);
    candid_image_free(NULL);
}

static void rows_are_copied_by_stride(void **state) {
    uint8_t bytes[2 * 10];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)i;
    }
    candid_image *image;
    assert_int_equal(candid_image_from_rgb(bytes, 2, 2, 10, &image, NULL), CANDID_OK);
    memset(bytes, 0, sizeof bytes); /* the image holds a copy */
    static const uint8_t expected[] = {0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15};
    assert_memory_equal(image->rgb, expected, sizeof expected);
    candid_image_free(image);
}

/* ---- resize ------------------------------------------------------------------------------------ */

static void resize_equals_pillow(void **state) {
    static const struct {
        const char *name;
        int width, height;
    } cases[] = {
        {"noise", 61, 47},  {"noise", 61, 20},    {"noise", 30, 47},     {"noise", 28, 28},  {"noise", 90, 71},
        {"noise", 122, 94}, {"noise", 7, 100},    {"noise", 1, 1},       {"binary", 13, 50}, {"binary", 80, 66},
        {"binary", 39, 32}, {"row", 50, 1},       {"row", 5, 3},         {"row", 23, 4},     {"column", 1, 60},
        {"column", 4, 9},   {"column", 3, 29},    {"dot", 1, 1},         {"dot", 9, 6},      {"large", 28, 21},
        {"large", 37, 28},  {"large", 400, 1},    {"wide", 17, 17},      {"wide", 300, 2},   {"tall", 14, 14},
        {"tall", 3, 190},   {"gradient", 28, 21}, {"gradient", 100, 75},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[64], path[1024];
        snprintf(name, sizeof name, "%s.png", cases[i].name);
        candid_image *image = load_source(name), *resized = NULL;
        assert_int_equal(image_resize_bicubic(image, cases[i].width, cases[i].height, &resized, NULL), CANDID_OK);
        snprintf(path, sizeof path, TEST_GOLDEN "/resize/%s_%dx%d.png", cases[i].name, cases[i].width, cases[i].height);
        candid_image *expected = load(path);
        assert_int_equal(resized->width, expected->width);
        assert_int_equal(resized->height, expected->height);
        if (memcmp(resized->rgb, expected->rgb, 3 * (size_t)expected->width * (size_t)expected->height) != 0) {
            fail_msg("%s resized to %d×%d differs from Pillow", name, cases[i].width, cases[i].height);
        }
        candid_image_free(expected);
        candid_image_free(resized);
        candid_image_free(image);
    }
}

static void lanczos_equals_pillow(void **state) {
    static const struct {
        const char *name;
        int width, height;
    } cases[] = {
        {"noise", 61, 20}, {"noise", 30, 47},  {"noise", 90, 71},  {"noise", 1, 1},
        {"noise", 600, 9}, {"binary", 13, 50}, {"binary", 80, 66}, {"row", 50, 1},
        {"row", 5, 3},     {"column", 4, 9},   {"dot", 9, 6},      {"large", 28, 21},
        {"wide", 17, 17},  {"wide", 300, 2},   {"tall", 3, 190},   {"gradient", 100, 75},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[64], path[1024];
        snprintf(name, sizeof name, "%s.png", cases[i].name);
        candid_image *image = load_source(name), *resized = NULL;
        assert_int_equal(image_resize_lanczos(image, cases[i].width, cases[i].height, &resized, NULL), CANDID_OK);
        snprintf(path, sizeof path, TEST_GOLDEN "/resize/%s_%dx%d_lanczos.png", cases[i].name, cases[i].width,
                 cases[i].height);
        candid_image *expected = load(path);
        assert_int_equal(resized->width, expected->width);
        assert_int_equal(resized->height, expected->height);
        if (memcmp(resized->rgb, expected->rgb, 3 * (size_t)expected->width * (size_t)expected->height) != 0) {
            fail_msg("%s resized to %d×%d by Lanczos differs from Pillow", name, cases[i].width, cases[i].height);
        }
        candid_image_free(expected);
        candid_image_free(resized);
        candid_image_free(image);
    }
}

/* Grey, palette, alpha, one bit, interlaced, other containers: converted to RGB, then resized. */
static void resize_of_other_modes_equals_pillow(void **state) {
    static const char *const names[] = {"grey.png",
                                        "grey_alpha.png",
                                        "one_bit.png",
                                        "palette.png",
                                        "palette_transparent.png",
                                        "palette_2bit.png",
                                        "rgba.png",
                                        "interlaced.png",
                                        "rgb_transparent.png",
                                        "palette.gif",
                                        "palette.bmp",
                                        "one_bit.bmp",
                                        "rgb555.bmp",
                                        "grey.pgm",
                                        "rgb.ppm"};
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++) {
        const int width = 13 + 7 * i, height = 97 - 6 * i;
        char path[1024];
        candid_image *image = load_source(names[i]), *resized = NULL;
        assert_int_equal(image_resize_bicubic(image, width, height, &resized, NULL), CANDID_OK);
        snprintf(path, sizeof path, TEST_GOLDEN "/resize/%s_%dx%d.png", names[i], width, height);
        candid_image *expected = load(path);
        assert_int_equal(expected->width, width);
        if (memcmp(resized->rgb, expected->rgb, 3 * (size_t)width * (size_t)height) != 0) {
            fail_msg("%s resized to %d×%d differs from Pillow", names[i], width, height);
        }
        candid_image_free(expected);
        candid_image_free(resized);
        candid_image_free(image);
    }
}

static void resize_of_two_pixels(void **state) {
    /* To one pixel: the mean, rounded up. To four: weights at distances 0.25, 0.75, 1.25, 1.75 are 0.8671875,
     * 0.2265625, -0.0703125, -0.0234375; at x = 0.25 of (0, 255) the two pixels have 0.8671875 and -0.0703125 (left
     * end), sum 0.796875, so 255 * -0.0703125 / 0.796875 = -22.5 is clipped to 0; at x = 0.75: 0.2265625 / 1.09375 *
     * 255 = 52.8. */
    static const uint8_t pair[6] = {0, 255, 0, 255, 0, 0};
    candid_image *image, *resized;
    assert_int_equal(candid_image_from_rgb(pair, 2, 1, 6, &image, NULL), CANDID_OK);
    assert_int_equal(image_resize_bicubic(image, 1, 1, &resized, NULL), CANDID_OK);
    assert_memory_equal(resized->rgb, ((uint8_t[3]){128, 128, 0}), 3);
    candid_image_free(resized);
    assert_int_equal(image_resize_bicubic(image, 4, 1, &resized, NULL), CANDID_OK);
    assert_memory_equal(resized->rgb, ((uint8_t[12]){0, 255, 0, 53, 202, 0, 202, 53, 0, 255, 0, 0}), 12);
    candid_image_free(resized);
    candid_error error;
    resized = NULL;
    assert_int_equal(image_resize_bicubic(image, 0, 4, &resized, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(image_resize_bicubic(image, 65536, 65536, &resized, &error), CANDID_ERROR_ARGUMENT);
    assert_null(resized);
    candid_image_free(image);
}

/* ---- crop -------------------------------------------------------------------------------------- */

static void crops(void **state) {
    uint8_t bytes[3 * 4 * 3];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)i;
    }
    candid_image *image, *part = NULL;
    candid_error error;
    assert_int_equal(candid_image_from_rgb(bytes, 4, 3, 12, &image, NULL), CANDID_OK);
    assert_int_equal(image_crop(image, &(struct image_box){1, 1, 3, 3}, &part, NULL), CANDID_OK);
    assert_int_equal(part->width, 2);
    assert_int_equal(part->height, 2);
    static const uint8_t expected[] = {15, 16, 17, 18, 19, 20, 27, 28, 29, 30, 31, 32};
    assert_memory_equal(part->rgb, expected, sizeof expected);
    candid_image_free(part);
    assert_int_equal(image_crop(image, &(struct image_box){0, 0, 4, 3}, &part, NULL), CANDID_OK);
    assert_memory_equal(part->rgb, bytes, sizeof bytes);
    candid_image_free(part);
    part = NULL;
    static const struct image_box wrong[] = {{-1, 0, 2, 2}, {0, -1, 2, 2}, {0, 0, 5, 2}, {0, 0, 2, 4},
                                             {2, 0, 2, 2},  {0, 2, 2, 2},  {3, 0, 1, 2}, {INT32_MIN, 0, INT32_MAX, 1}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(image_crop(image, &wrong[i], &part, &error), CANDID_ERROR_ARGUMENT);
        assert_null(part);
    }
    candid_image_free(image);
}

/* ---- preprocessing ----------------------------------------------------------------------------- */

static void padding_is_centred(void **state) {
    static const uint8_t background[3] = {7, 8, 9};
    uint8_t bytes[2 * 5 * 3];
    memset(bytes, 1, sizeof bytes);
    candid_image *image, *square;
    assert_int_equal(candid_image_from_rgb(bytes, 5, 2, 15, &image, NULL), CANDID_OK);
    assert_int_equal(image_pad_square(image, background, &square, NULL), CANDID_OK);
    assert_int_equal(square->width, 5);
    assert_int_equal(square->height, 5);
    for (size_t i = 0; i < 25; i++) { /* rows 1 and 2: (5 - 2) / 2 = 1 */
        static const uint8_t ones[3] = {1, 1, 1};
        assert_memory_equal(square->rgb + 3 * i, i / 5 == 1 || i / 5 == 2 ? ones : background, 3);
    }
    candid_image_free(square);
    candid_image_free(image);
}

static void inputs_equal_transformers(void **state) {
    static const struct {
        const char *name;
        int size;
    } cases[] = {{"noise", 28}, {"large", 56},  {"large", 31}, {"wide", 28},     {"tall", 28},
                 {"row", 14},   {"column", 14}, {"dot", 14},   {"gradient", 32}, {"binary", 40}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int mode = CANDID_PREPROCESS_PAD; mode <= CANDID_PREPROCESS_CROP; mode++) {
            char name[64], path[1024];
            snprintf(name, sizeof name, "%s.png", cases[i].name);
            snprintf(path, sizeof path, TEST_GOLDEN "/preprocess/%s_%s_%d.f32", cases[i].name,
                     mode == CANDID_PREPROCESS_PAD ? "pad" : "crop", cases[i].size);
            size_t size;
            uint8_t *expected = read_file(path, &size);
            assert_int_equal(size, 3 * cases[i].size * cases[i].size * 4);
            float *pixels = malloc(size);
            assert_non_null(pixels);
            candid_image *image = load_source(name);
            assert_int_equal(
                image_preprocess(image, (candid_preprocess)mode, cases[i].size, clip_mean, clip_std, pixels, NULL),
                CANDID_OK);
            if (memcmp(pixels, expected, size) != 0) {
                fail_msg("%s: not equal", path);
            }
            candid_image_free(image);
            free(pixels);
            free(expected);
        }
    }
}

/* The pad mode does not build the square; doing so must give the same. */
static void padding_equals_a_padded_image(void **state) {
    static const char *const names[] = {"noise.png", "wide.png", "tall.png", "column.png"};
    static const uint8_t background[3] = {122, 116, 104}; /* int(mean * 255) */
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        static float direct[3 * 28 * 28], squared[3 * 28 * 28];
        candid_image *image = load_source(names[i]), *square = NULL;
        assert_int_equal(image_pad_square(image, background, &square, NULL), CANDID_OK);
        assert_int_equal(image_preprocess(image, CANDID_PREPROCESS_PAD, 28, clip_mean, clip_std, direct, NULL),
                         CANDID_OK);
        assert_int_equal(image_preprocess(square, CANDID_PREPROCESS_CROP, 28, clip_mean, clip_std, squared, NULL),
                         CANDID_OK);
        assert_memory_equal(direct, squared, sizeof direct);
        candid_image_free(square);
        candid_image_free(image);
    }
}

static void extreme_shapes_need_no_extreme_memory(void **state) {
    /* Resized to shortest edge 336 this would be 22 million pixels wide, padded 4 billion pixels. */
    uint8_t *bytes = malloc(3 * IMAGE_MAX_SIDE);
    float *pixels = malloc(3 * 336 * 336 * sizeof *pixels);
    assert_non_null(bytes);
    assert_non_null(pixels);
    memset(bytes, 255, 3 * IMAGE_MAX_SIDE);
    candid_image *image;
    assert_int_equal(candid_image_from_rgb(bytes, IMAGE_MAX_SIDE, 1, 3 * IMAGE_MAX_SIDE, &image, NULL), CANDID_OK);
    static const float half[3] = {0.5f, 0.5f, 0.5f};
    assert_int_equal(image_preprocess(image, CANDID_PREPROCESS_CROP, 336, half, half, pixels, NULL), CANDID_OK);
    for (size_t i = 0; i < 3 * 336 * 336; i++) {
        assert_true(pixels[i] == 1.0f); /* (255/255 - 0.5) / 0.5 */
    }
    assert_int_equal(image_preprocess(image, CANDID_PREPROCESS_PAD, 336, half, half, pixels, NULL), CANDID_OK);
    float grey = ((float)(127 * (1.0 / 255.0)) - 0.5f) / 0.5f; /* int(0.5 * 255) = 127 */
    assert_true(pixels[0] == grey);
    assert_true(pixels[3 * 336 * 336 - 1] == grey);

    candid_error error;
    assert_int_equal(image_preprocess(image, CANDID_PREPROCESS_PAD, 0, half, half, pixels, &error),
                     CANDID_ERROR_ARGUMENT);
    assert_int_equal(image_preprocess(image, (candid_preprocess)7, 336, half, half, pixels, &error),
                     CANDID_ERROR_ARGUMENT);
    assert_int_equal(image_preprocess(image, CANDID_PREPROCESS_PAD, 336, half, (float[3]){1, 0, 1}, pixels, &error),
                     CANDID_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "channel 1"));
    candid_image_free(image);
    free(pixels);
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoded_pixels_equal_pillow),
        cmocka_unit_test(jpeg_pixels_are_those_of_pillow),
        cmocka_unit_test(bytes_behind_the_end_are_ignored),
        cmocka_unit_test(every_shorter_file_is_refused),
        cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(scans_without_end_are_refused),
        cmocka_unit_test(a_png_of_more_data_than_pixels_is_refused),
        cmocka_unit_test(oversized_images_are_refused),
        cmocka_unit_test(other_files_are_named),
        cmocka_unit_test(path_problems_are_named),
        cmocka_unit_test(null_arguments_are_refused),
        cmocka_unit_test(rows_are_copied_by_stride),
        cmocka_unit_test(resize_equals_pillow),
        cmocka_unit_test(resize_of_other_modes_equals_pillow),
        cmocka_unit_test(resize_of_two_pixels),
        cmocka_unit_test(lanczos_equals_pillow),
        cmocka_unit_test(crops),
        cmocka_unit_test(padding_is_centred),
        cmocka_unit_test(inputs_equal_transformers),
        cmocka_unit_test(padding_equals_a_padded_image),
        cmocka_unit_test(extreme_shapes_need_no_extreme_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
