/* Drawing for the pictures of candid inspect. */
#include "cli/inspect_draw.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#include <stb_easy_font.h>
#pragma GCC diagnostic pop

#define MOST_LETTERS 128

candid_status picture_create(int width, int height, struct picture *out, candid_error *error) {
    const size_t bytes = 3 * (size_t)width * (size_t)height;
    *out = (struct picture){width, height, malloc(bytes ? bytes : 1)};
    if (!out->rgb) {
        return fail_memory(error, "a picture", bytes);
    }
    memset(out->rgb, 255, bytes);
    return CANDID_OK;
}

void picture_free(struct picture *p) {
    free(p->rgb);
    p->rgb = NULL;
}

void picture_fill(struct picture *p, int x, int y, int width, int height, const uint8_t colour[3]) {
    const int x0 = x > 0 ? x : 0, y0 = y > 0 ? y : 0;
    const int x1 = x + width < p->width ? x + width : p->width, y1 = y + height < p->height ? y + height : p->height;
    for (int row = y0; row < y1; row++) {
        for (int col = x0; col < x1; col++) {
            memcpy(p->rgb + 3 * ((size_t)row * (size_t)p->width + (size_t)col), colour, 3);
        }
    }
}

void picture_frame(struct picture *p, int x, int y, int width, int height, int line, const uint8_t colour[3]) {
    picture_fill(p, x, y, width, line, colour);
    picture_fill(p, x, y + height - line, width, line, colour);
    picture_fill(p, x, y, line, height, colour);
    picture_fill(p, x + width - line, y, line, height, colour);
}

void picture_paste(struct picture *p, int x, int y, const uint8_t *rgb, int width, int height) {
    for (int row = 0; row < height && y + row < p->height; row++) {
        const int n = width < p->width - x ? width : p->width - x;
        if (n > 0 && y + row >= 0) {
            memcpy(p->rgb + 3 * ((size_t)(y + row) * (size_t)p->width + (size_t)x),
                   rgb + 3 * (size_t)row * (size_t)width, 3 * (size_t)n);
        }
    }
}

void picture_text(struct picture *p, int x, int y, const char *text, int scale, const uint8_t colour[3]) {
    struct corner {
        float x, y, z;
        uint8_t colour[4];
    } corners[MOST_LETTERS * 20];
    char line[MOST_LETTERS + 1];
    strncpy(line, text, MOST_LETTERS);
    line[MOST_LETTERS] = '\0';
    const int quads = stb_easy_font_print(0, 0, line, NULL, corners, sizeof corners);
    for (int i = 0; i < quads; i++) {
        const struct corner *q = &corners[4 * i]; /* clockwise from the top left */
        picture_fill(p, x + scale * (int)lroundf(q[0].x), y + scale * (int)lroundf(q[0].y),
                     scale * (int)lroundf(q[2].x - q[0].x), scale * (int)lroundf(q[2].y - q[0].y), colour);
    }
}

int picture_text_width(const char *text, int scale) {
    char line[MOST_LETTERS + 1];
    strncpy(line, text, MOST_LETTERS);
    line[MOST_LETTERS] = '\0';
    return scale * stb_easy_font_width(line);
}
