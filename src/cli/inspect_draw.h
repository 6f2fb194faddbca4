/* Drawing on RGB pictures: boxes, text, pasting. Everything is clipped to the picture. */
#ifndef CANDID_CLI_INSPECT_DRAW_H
#define CANDID_CLI_INSPECT_DRAW_H

#include "candid/candid.h"

struct picture {
    int width, height;
    uint8_t *rgb; /* (height, width, 3), owned */
};

/* White. */
candid_status picture_create(int width, int height, struct picture *out, candid_error *error);
void picture_free(struct picture *p);

void picture_fill(struct picture *p, int x, int y, int width, int height, const uint8_t colour[3]);
void picture_frame(struct picture *p, int x, int y, int width, int height, int line, const uint8_t colour[3]);
void picture_paste(struct picture *p, int x, int y, const uint8_t *rgb, int width, int height);

/* One line of ASCII text, its top left corner at (x, y); letters are 12 * scale pixels high with their descenders. */
void picture_text(struct picture *p, int x, int y, const char *text, int scale, const uint8_t colour[3]);
int picture_text_width(const char *text, int scale);

#endif
