/*
 * JPEG by libjpeg-turbo, with the settings of Pillow: slow integer DCT, fancy upsampling, and Pillow's arithmetic from
 * CMYK to RGB. The pixels are Pillow's to the byte.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "core/status.h"
#include "vision/decode.h"

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)

const char *jpeg_decoder_name(void) {
    return "libjpeg-turbo " TEXT(LIBJPEG_TURBO_VERSION);
}

/* libjpeg reports errors by a call that must not return. */
struct failure {
    struct jpeg_error_mgr manager; /* first: libjpeg hands back a pointer to it */
    jmp_buf back;
    char text[JMSG_LENGTH_MAX];
};

static void leave(j_common_ptr info) {
    struct failure *failure = (struct failure *)info->err;
    failure->manager.format_message(info, failure->text);
    longjmp(failure->back, 1);
}

/* Warnings are for damaged data, of which libjpeg makes what it can. */
static void be_silent(j_common_ptr info) {
}

static int multiply_255(int a, int b) {
    const int t = a * b + 128;
    return ((t >> 8) + t) >> 8;
}

/* A row of Adobe's inverted CMYK to RGB, as Pillow converts it. */
static void cmyk_row(const uint8_t *cmyk, uint8_t *rgb, int width) {
    for (int x = 0; x < width; x++) {
        const int rest = cmyk[4 * x + 3]; /* 255 - K */
        for (int c = 0; c < 3; c++) {
            const int v = rest - multiply_255(255 - cmyk[4 * x + c], rest);
            rgb[3 * x + c] = (uint8_t)(v < 0 ? 0 : v);
        }
    }
}

static void read_rows(struct jpeg_decompress_struct *info, uint8_t *row, uint8_t *pixels) {
    const size_t stride = 3 * (size_t)info->output_width;
    while (info->output_scanline < info->output_height) {
        uint8_t *to = pixels + info->output_scanline * stride;
        const bool direct = info->output_components == 3;
        JSAMPROW rows[1] = {direct ? to : row};
        if (jpeg_read_scanlines(info, rows, 1) != 1) {
            return; /* cannot be: the source never suspends */
        }
        if (info->output_components == 4) {
            cmyk_row(row, to, (int)info->output_width);
        } else if (!direct) {
            for (size_t x = 0; x < info->output_width; x++) {
                memset(to + 3 * x, row[x], 3);
            }
        }
    }
}

candid_status jpeg_decode(const struct encoded_image *file, const uint8_t *clean, size_t size, int width, int height,
                          uint8_t **pixels, candid_error *error) {
    const size_t bytes = 3 * (size_t)width * (size_t)height;
    uint8_t *const out = calloc(1, bytes + 4 * (size_t)width); /* and a row of up to four components */
    if (!out) {
        return fail_memory(error, file->name, bytes);
    }
    struct jpeg_decompress_struct info;
    struct failure failure;
    info.err = jpeg_std_error(&failure.manager);
    failure.manager.error_exit = leave;
    failure.manager.output_message = be_silent;
    if (setjmp(failure.back)) {
        jpeg_destroy_decompress(&info);
        free(out);
        return image_broken(file, "JPEG", failure.text, error);
    }
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, clean, size);
    jpeg_read_header(&info, TRUE);
    info.out_color_space = info.num_components == 4 ? JCS_CMYK : info.num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_start_decompress(&info);
    if (info.output_width != (JDIMENSION)width || info.output_height != (JDIMENSION)height) {
        jpeg_destroy_decompress(&info);
        free(out);
        return fail(error, CANDID_ERROR_INTERNAL, "%s: JPEG image decoded to %u×%u pixels, expected %d×%d", file->name,
                    info.output_width, info.output_height, width, height);
    }
    read_rows(&info, out + bytes, out);
    jpeg_finish_decompress(&info);
    jpeg_destroy_decompress(&info);
    *pixels = out;
    return CANDID_OK;
}
