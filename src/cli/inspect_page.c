/* candid inspect: parts of the page. */
#include "cli/inspect_page.h"

#include <stdlib.h>
#include <string.h>

#include "core/base64.h"
#include "core/status.h"
#include "core/text.h"
#include "interventions/method.h"
#include "vision/heat_map.h"
#include "vision/png_write.h"

/* Text without line ends. */
static void write_line(FILE *f, const char *text, size_t size) {
    char *clean = malloc(size + 8); /* at least 4, and room for the mark of a cut that does not happen */
    if (!clean) {
        return;
    }
    const size_t n = text_print(clean, size + 8, text, size);
    for (size_t i = 0; i < n; i++) {
        switch (clean[i]) {
        case '&': fputs("&amp;", f); break;
        case '<': fputs("&lt;", f); break;
        case '>': fputs("&gt;", f); break;
        case '"': fputs("&quot;", f); break;
        default: fputc(clean[i], f);
        }
    }
    free(clean);
}

void page_text(FILE *f, const char *text, size_t size) {
    for (const char *end; (end = memchr(text, '\n', size)); text = end + 1) {
        write_line(f, text, (size_t)(end - text));
        fputs("<br>", f);
        size -= (size_t)(end - text) + 1;
    }
    write_line(f, text, size);
}

void page_string(FILE *f, const char *text) {
    page_text(f, text, strlen(text));
}

candid_status page_png(FILE *f, const uint8_t *pixels, int width, int height, int channels, candid_error *error) {
    uint8_t *png = NULL;
    size_t size = 0;
    TRY(png_encode(pixels, width, height, channels, &png, &size, error));
    fputs("data:image/png;base64,", f);
    base64_write(f, png, size);
    free(png);
    return CANDID_OK;
}

candid_status page_heat(FILE *f, const struct inspection *in, const float *cells, float full, int side,
                        candid_error *error) {
    const int longer = in->map.width > in->map.height ? in->map.width : in->map.height;
    int w = (int)((int64_t)in->map.width * side / longer), h = (int)((int64_t)in->map.height * side / longer);
    w = w > 0 ? w : 1;
    h = h > 0 ? h : 1;
    uint8_t *layer = malloc(4 * (size_t)w * (size_t)h);
    if (!layer) {
        return fail_memory(error, "a heat map", 4 * (size_t)w * (size_t)h);
    }
    heat_layer(&in->map, cells, full, w, h, layer);
    fputs("<span class=pic><i class=base></i><img class=heat alt=\"\" src=\"", f);
    const candid_status status = page_png(f, layer, w, h, 4, error);
    fputs("\"></span>", f);
    free(layer);
    return status;
}

/* ---- maps of heads ------------------------------------------------------------------------------- */

void page_heads(FILE *f, const struct inspection *in, const float *values, float most, const char *title,
                const char *about) {
    const int side = in->n_head <= 16 && in->n_layer <= 16 ? 24 : 12, left = 34, top = 8;
    const int w = side * in->n_head, h = side * in->n_layer;
    const int step = side == 24 ? 1 : 4;
    fprintf(f, "<figure class=heads><figcaption><b>%s</b><br>%s</figcaption>", title, about);
    fprintf(f, "<svg width=%d height=%d role=img aria-label=\"%s\">", left + w + 66, top + h + 40, title);
    for (int l = 0; l < in->n_layer; l++) {
        for (int head = 0; head < in->n_head; head++) {
            const float v = values[l * in->n_head + head];
            uint8_t c[3];
            heat_colour(most > 0.0f ? v / most : 0.0f, c);
            fprintf(f,
                    "<rect x=%d y=%d width=%d height=%d fill=\"#%02x%02x%02x\"><title>layer %d, head %d: "
                    "%.4g</title></rect>",
                    left + head * side, top + l * side, side - 1, side - 1, c[0], c[1], c[2], l, head, (double)v);
        }
        if (l % step == 0) {
            fprintf(f, "<text x=%d y=%d text-anchor=end>%d</text>", left - 6, top + l * side + side / 2 + 4, l);
        }
    }
    for (int head = 0; head < in->n_head; head += step) {
        fprintf(f, "<text x=%d y=%d text-anchor=middle>%d</text>", left + head * side + side / 2, top + h + 14, head);
    }
    fprintf(f, "<text x=%d y=%d text-anchor=middle class=axis>head</text>", left + w / 2, top + h + 32);
    fprintf(f, "<text transform=\"translate(9 %d) rotate(-90)\" text-anchor=middle class=axis>layer</text>",
            top + h / 2);
    for (int i = 0; i < 24; i++) { /* the scale */
        uint8_t c[3];
        heat_colour((23.0f - (float)i) / 23.0f, c);
        fprintf(f, "<rect x=%d y=%.2f width=12 height=%.2f fill=\"#%02x%02x%02x\"></rect>", left + w + 12,
                top + (double)h * i / 24, (double)h / 24 + 0.5, c[0], c[1], c[2]);
    }
    fprintf(f, "<text x=%d y=%d>%.2g</text><text x=%d y=%d>0</text></svg></figure>\n", left + w + 28, top + 10,
            (double)most, left + w + 28, top + h);
}

/* ---- sinks --------------------------------------------------------------------------------------- */

/* What the picture of the sinks does not show. */
static void write_sink_counts(FILE *f, const struct inspection *in, int framed) {
    int elsewhere = 0, in_text = 0;
    for (int i = 0; i < in->n_prompt; i++) {
        const bool within = i >= in->image_begin && i < in->image_begin + in->n_image;
        elsewhere += in->sinks.layers[i] > 0 && within;
        in_text += in->sinks.layers[i] > 0 && !within;
    }
    elsewhere -= framed;
    fprintf(f, "<p>%s", framed > 0 ? "Point at a frame to see in how many layers it is a sink. " : "");
    if (framed + elsewhere == 0) {
        fputs("No token of the image is a sink. ", f);
    } else if (elsewhere > 0) {
        fprintf(f, "%d more lie in the tiles. ", elsewhere);
    }
    fputs(in_text > 0 ? "Sinks in the text, by position in the prompt:" : "No token of the text is one.", f);
    for (int i = 0; i < in->n_prompt && in_text > 0; i++) {
        if (in->sinks.layers[i] > 0 && (i < in->image_begin || i >= in->image_begin + in->n_image)) {
            fprintf(f, " %d%s", i, --in_text > 0 ? "," : ".");
        }
    }
    fputs("</p>\n", f);
}

void page_sinks(FILE *f, const struct inspection *in) {
    const int framed = inspect_sink_cells(in);
    if (framed > 0) {
        fprintf(f, "<div class=sinks><i class=shown></i><svg viewBox=\"0 0 %d %d\" preserveAspectRatio=none>",
                in->map.width, in->map.height);
    }
    for (int i = 0; i < in->n_prompt; i++) {
        const int n = in->sinks.layers[i], cell = n > 0 ? inspect_sink_cell(in, i) : -1;
        if (cell >= 0) {
            const struct image_rect r = view_map_cell(&in->map, cell / in->map.grid, cell % in->map.grid);
            fprintf(f,
                    "<rect x=%.2f y=%.2f width=%.2f height=%.2f vector-effect=non-scaling-stroke><title>row %d, column "
                    "%d: a sink in %d of %d layers</title></rect>",
                    r.x0, r.y0, r.x1 - r.x0, r.y1 - r.y0, cell / in->map.grid, cell % in->map.grid, n, in->n_layer);
        }
    }
    fputs(framed > 0 ? "</svg></div>" : "", f);
    write_sink_counts(f, in, framed);
}

/* ---- interventions ------------------------------------------------------------------------------- */

/* "2–5, 7" of a list of whole numbers in order. */
static void write_ranges(FILE *f, const cJSON *list) {
    for (const cJSON *item = list->child, *last; item; item = last->next) {
        last = item;
        while (last->next && last->next->valueint == last->valueint + 1) {
            last = last->next;
        }
        fprintf(f, "%s%d", item == list->child ? "" : ", ", item->valueint);
        if (last != item) {
            fprintf(f, "–%d", last->valueint);
        }
    }
}

static double number_of(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItem(object, name);
    return item ? item->valuedouble : 0.0;
}

/* What the report says beyond what is told in sentences. */
static void write_rest(FILE *f, const cJSON *one) {
    static const char *const told[] = {
        "active", "why", "layers", "edits", "edits_in_prompt", "head_rows_looked_at", "mean_mass_moved", "sinks"};
    for (const cJSON *item = one->child; item; item = item->next) {
        bool skip = false;
        for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
            skip = skip || strcmp(item->string, told[i]) == 0;
        }
        if (skip) {
            continue;
        }
        char *text = cJSON_GetArraySize(item) > 12 ? NULL : cJSON_PrintUnformatted(item);
        fputs("<br><span class=quiet>", f);
        for (const char *c = item->string; *c; c++) {
            fputc(*c == '_' ? ' ' : *c, f); /* names of ours */
        }
        fputs(": ", f);
        if (cJSON_IsNumber(item)) {
            fprintf(f, "%.4g", item->valuedouble);
        } else if (text) {
            page_string(f, text);
        } else {
            fprintf(f, "%d", cJSON_GetArraySize(item));
        }
        fputs("</span>", f);
        cJSON_free(text);
    }
}

/* What a method edits, without the name of the site that its table puts in front. */
static void write_edits(FILE *f, const struct method *m) {
    const char *text = m ? m->edits : "", *colon = strstr(text, ": ");
    text = colon ? colon + 2 : text;
    if (*text) {
        fputc(*text >= 'a' && *text <= 'z' ? *text - 'a' + 'A' : *text, f);
        page_string(f, text + 1);
        fputs(". ", f);
    }
}

static void write_method(FILE *f, const cJSON *one) {
    const struct method *m = method_find(one->string);
    const char *why = cJSON_GetStringValue(cJSON_GetObjectItem(one, "why"));
    const cJSON *layers = cJSON_GetObjectItem(one, "layers");
    fputs("<li><b>", f);
    page_string(f, m ? m->title : one->string);
    fputs("</b> ", f);
    if (!cJSON_IsTrue(cJSON_GetObjectItem(one, "active"))) {
        fputs("did nothing: ", f);
        page_string(f, why ? why : "");
        fputs(".", f);
    } else {
        fputs("was active. ", f);
        write_edits(f, m);
        const double edits = number_of(one, "edits"), looked = number_of(one, "head_rows_looked_at");
        if (edits > 0) {
            fprintf(f, "It made %.0f edits, %.0f of them while reading the prompt", edits,
                    number_of(one, "edits_in_prompt"));
            if (looked > 0) {
                fprintf(f, " (of %.0f places it looked at)", looked);
            }
            if (cJSON_GetArraySize(layers) > 0) {
                fputs(cJSON_GetArraySize(layers) == 1 ? ", in layer " : ", in layers ", f);
                write_ranges(f, layers);
            }
            fputs(".", f);
        }
        if (cJSON_GetObjectItem(one, "mean_mass_moved")) {
            fprintf(f, " On average it moved %.2g %% of a head's attention.", 100 * number_of(one, "mean_mass_moved"));
        }
    }
    write_rest(f, one);
    fputs("</li>\n", f);
}

void page_interventions(FILE *f, const char *interventions) {
    cJSON *all = cJSON_Parse(interventions);
    fputs("<ul>\n", f);
    for (const cJSON *one = all ? all->child : NULL; one; one = one->next) {
        write_method(f, one);
    }
    fputs("</ul>\n", f);
    cJSON_Delete(all);
}
