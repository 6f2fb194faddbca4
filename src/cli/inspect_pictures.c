/* candid inspect: the PNG files. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/inspect.h"
#include "cli/inspect_draw.h"
#include "core/file.h"
#include "core/status.h"
#include "vision/heat_map.h"
#include "vision/png_write.h"

#define SHEET_SIDE 176 /* longer side of one picture on a contact sheet */
#define SHEET_GAP  10
#define LABEL      26
#define NAME_SIZE  96

static const uint8_t black[3] = {0, 0, 0}, grey[3] = {110, 110, 110}, red[3] = {230, 0, 60}, white[3] = {255, 255, 255};

candid_status inspect_write_file(const struct inspection *in, const char *name, const void *data, size_t size,
                                 candid_error *error) {
    char *path = NULL;
    TRY(file_join(in->out, name, &path, error));
    FILE *f = fopen(path, "wbe");
    bool ok = f && fwrite(data, 1, size, f) == size;
    const int reason = errno;
    ok = (!f || fclose(f) == 0) && ok;
    candid_status status = CANDID_OK;
    if (!ok) {
        status = fail(error, CANDID_ERROR_IO, "%s: cannot write: %s", path, strerror(reason));
    }
    free(path);
    return status;
}

static candid_status write_png(const struct inspection *in, const char *name, const struct picture *p,
                               candid_error *error) {
    uint8_t *png = NULL;
    size_t size = 0;
    TRY(png_encode(p->rgb, p->width, p->height, 3, &png, &size, error));
    const candid_status status = inspect_write_file(in, name, png, size, error);
    free(png);
    return status;
}

/* The image, faded, with a heat map over it. */
static candid_status overlay(const struct inspection *in, const float *cells, float full,
                             const struct candid_image *base, struct picture *out, candid_error *error) {
    TRY(picture_create(base->width, base->height, out, error));
    memcpy(out->rgb, base->rgb, 3 * (size_t)base->width * (size_t)base->height);
    return heat_overlay(&in->map, cells, full, base->width, base->height, out->rgb, error);
}

static candid_status write_overlay(const struct inspection *in, const char *name, const float *cells, float full,
                                   candid_error *error) {
    struct picture p = {0};
    candid_status status = overlay(in, cells, full, in->shown, &p, error);
    if (status == CANDID_OK) {
        status = write_png(in, name, &p, error);
    }
    picture_free(&p);
    return status;
}

/* One small overlay per layer. */
static candid_status write_sheet(const struct inspection *in, const struct attention_record *r, size_t word,
                                 const char *run, const char *name, float *cells, candid_error *error) {
    const int longer = in->shown->width > in->shown->height ? in->shown->width : in->shown->height;
    int w = in->shown->width * SHEET_SIDE / longer, h = in->shown->height * SHEET_SIDE / longer;
    w = w > 0 ? w : 1;
    h = h > 0 ? h : 1;
    const int most = h > w ? 8 : 6, columns = in->n_layer < most ? in->n_layer : most;
    const int rows = (in->n_layer + columns - 1) / columns;
    struct picture sheet = {0};
    struct candid_image *base = NULL;
    char text[320], title[32];
    candid_status status;
    TRY_GOTO(image_resize_bicubic(in->shown, w, h, &base, error), status, done);
    TRY_GOTO(picture_create(columns * (w + SHEET_GAP) + SHEET_GAP,
                            rows * (h + LABEL + SHEET_GAP) + 2 * LABEL + SHEET_GAP, &sheet, error),
             status, done);
    inspect_word(in, word, title, sizeof title);
    snprintf(text, sizeof text, "\"%s\"%s, each layer at a scale of its own", title, run);
    picture_text(&sheet, SHEET_GAP, SHEET_GAP, text, 2, black);
    for (int l = 0; l < in->n_layer; l++) {
        const int x = SHEET_GAP + l % columns * (w + SHEET_GAP),
                  y = 2 * LABEL + SHEET_GAP + l / columns * (h + LABEL + SHEET_GAP);
        float robust, highest;
        struct picture one = {0};
        TRY_GOTO(inspect_scale(in, word, l, l + 1, &robust, &highest, error), status, done);
        inspect_cells(in, r, word, l, l + 1, cells);
        status = overlay(in, cells, robust, base, &one, error);
        if (status == CANDID_OK) {
            picture_paste(&sheet, x, y, one.rgb, w, h);
            snprintf(text, sizeof text, "layer %d", l);
            picture_text(&sheet, x, y + h + 6, text, 2, black);
        }
        picture_free(&one);
        if (status != CANDID_OK) {
            goto done;
        }
    }
    status = write_png(in, name, &sheet, error);
done:
    candid_image_free(base);
    picture_free(&sheet);
    return status;
}

static candid_status write_word(const struct inspection *in, const struct attention_record *r, size_t word,
                                const char *run, float *cells, candid_error *error) {
    char slug[64], name[NAME_SIZE];
    inspect_slug(in, word, slug, sizeof slug);
    for (int g = -1; g < INSPECT_GROUPS; g++) {
        int begin, end;
        float robust, most;
        inspect_group(in, g, &begin, &end);
        if (begin == end) {
            continue;
        }
        TRY(inspect_scale(in, word, begin, end, &robust, &most, error));
        inspect_cells(in, r, word, begin, end, cells);
        snprintf(name, sizeof name, "%s-%s-%s.png", slug, run, g < 0 ? "mean" : inspect_group_names[g]);
        TRY(write_overlay(in, name, cells, robust, error));
        if (g < 0) {
            snprintf(name, sizeof name, "%s-%s-mean-max.png", slug, run);
            TRY(write_overlay(in, name, cells, most, error));
        }
    }
    char title[32] = "";
    if (in->has_after) {
        snprintf(title, sizeof title, " %s the methods", r == &in->after ? "with" : "without");
    }
    snprintf(name, sizeof name, "%s-%s-layers.png", slug, run);
    return write_sheet(in, r, word, title, name, cells, error);
}

/* ---- head maps ----------------------------------------------------------------------------------- */

/* A step for axis labels so that at most about 16 are drawn. */
static int label_step(int n) {
    return n <= 16 ? 1 : n <= 40 ? 4 : 8;
}

static candid_status write_heads(const struct inspection *in, const float *values, const char *title, const char *name,
                                 candid_error *error) {
    const int side = in->n_head <= 16 ? 36 : in->n_head <= 40 ? 20 : 12;
    const int left = 76, top = 70, w = side * in->n_head, h = side * in->n_layer, bar = 24;
    const int right = 120, least = picture_text_width(title, 2) + 2 * SHEET_GAP;
    float most = 0.0f;
    for (int i = 0; i < in->n_layer * in->n_head; i++) {
        most = values[i] > most ? values[i] : most;
    }
    struct picture p = {0};
    const int width = left + w + right > least ? left + w + right : least;
    candid_status status = picture_create(width, top + h + 56, &p, error);
    if (status != CANDID_OK) {
        return status;
    }
    char text[48];
    picture_text(&p, SHEET_GAP, SHEET_GAP, title, 2, black);
    picture_text(&p, left, top + h + 30, "head", 2, grey);
    picture_text(&p, SHEET_GAP, top - 28, "layer", 2, grey);
    for (int l = 0; l < in->n_layer; l++) {
        for (int head = 0; head < in->n_head; head++) {
            uint8_t colour[3];
            heat_colour(most > 0.0f ? values[l * in->n_head + head] / most : 0.0f, colour);
            picture_fill(&p, left + head * side, top + l * side, side - 1, side - 1, colour);
        }
        if (l % label_step(in->n_layer) == 0) {
            snprintf(text, sizeof text, "%d", l);
            picture_text(&p, left - 8 - picture_text_width(text, 2), top + l * side + side / 2 - 8, text, 2, black);
        }
    }
    for (int head = 0; head < in->n_head; head += label_step(in->n_head)) {
        snprintf(text, sizeof text, "%d", head);
        picture_text(&p, left + head * side + (side - picture_text_width(text, 2)) / 2, top + h + 6, text, 2, black);
    }
    for (int i = 0; i < h; i++) { /* the scale */
        uint8_t colour[3];
        heat_colour(1.0f - (float)i / (float)h, colour);
        picture_fill(&p, left + w + 20, top + i, bar, 1, colour);
    }
    snprintf(text, sizeof text, "%.3g", (double)most);
    picture_text(&p, left + w + 20, top - 20, text, 2, black);
    picture_text(&p, left + w + 20, top + h + 4, "0", 2, black);
    status = write_png(in, name, &p, error);
    picture_free(&p);
    return status;
}

/* ---- sinks --------------------------------------------------------------------------------------- */

static candid_status write_sinks(const struct inspection *in, candid_error *error) {
    struct picture p = {0};
    TRY(picture_create(in->shown->width, in->shown->height, &p, error));
    memcpy(p.rgb, in->shown->rgb, 3 * (size_t)p.width * (size_t)p.height);
    const double sx = (double)p.width / in->map.width, sy = (double)p.height / in->map.height;
    for (int i = 0; i < in->n_prompt; i++) {
        const int cell = in->sinks.layers[i] > 0 ? inspect_sink_cell(in, i) : -1;
        if (cell >= 0) {
            const struct image_rect r = view_map_cell(&in->map, cell / in->map.grid, cell % in->map.grid);
            const int x = (int)lround(r.x0 * sx), y = (int)lround(r.y0 * sy);
            const int w = (int)lround(r.x1 * sx) - x, h = (int)lround(r.y1 * sy) - y;
            char text[16];
            snprintf(text, sizeof text, "%d", in->sinks.layers[i]);
            picture_frame(&p, x, y, w, h, 4, white);
            picture_frame(&p, x + 1, y + 1, w - 2, h - 2, 2, red);
            picture_fill(&p, x + 4, y + 4, picture_text_width(text, 1) + 3, 10, white);
            picture_text(&p, x + 5, y + 5, text, 1, red);
        }
    }
    const candid_status status = write_png(in, "sinks.png", &p, error);
    picture_free(&p);
    return status;
}

/* ---- all of it ----------------------------------------------------------------------------------- */

/* The image at a size at which overlays can be read: the longer side from 448 to 768 pixels. */
static candid_status make_shown(struct inspection *in, candid_error *error) {
    const int w = in->image->width, h = in->image->height, longer = w > h ? w : h;
    const int target = longer < 448 ? 448 : longer > 768 ? 768 : longer;
    const int width = (int)((int64_t)w * target / longer), height = (int)((int64_t)h * target / longer);
    return image_resize_bicubic(in->image, width > 0 ? width : 1, height > 0 ? height : 1, &in->shown, error);
}

static candid_status write_all(const struct inspection *in, float *cells, candid_error *error) {
    const struct picture image = {in->shown->width, in->shown->height, in->shown->rgb};
    TRY(write_png(in, "image.png", &image, error));
    for (size_t k = 0; k < in->n_words; k++) {
        TRY(write_word(in, &in->before, k, "before", cells, error));
        if (in->has_after) {
            TRY(write_word(in, &in->after, k, "after", cells, error));
        }
    }
    TRY(write_heads(in, in->before.mass,
                    in->has_after ? "Attention on the image, without methods" : "Attention on the image",
                    "heads-attention-before.png", error));
    if (in->has_after) {
        TRY(write_heads(in, in->after.mass, "Attention on the image, with methods", "heads-attention-after.png",
                        error));
    }
    TRY(write_heads(in, in->divergence, "Head divergence, image vs. none", "heads-divergence.png", error));
    return in->sinks.known && inspect_sink_cells(in) > 0 ? write_sinks(in, error) : CANDID_OK;
}

candid_status inspect_write_pictures(struct inspection *in, candid_error *error) {
    float *cells = malloc((size_t)in->n_cells * sizeof *cells);
    if (!cells) {
        return fail_memory(error, "a heat map", (size_t)in->n_cells * sizeof *cells);
    }
    candid_status status = make_shown(in, error);
    if (status == CANDID_OK) {
        status = write_all(in, cells, error);
    }
    free(cells);
    return status;
}
