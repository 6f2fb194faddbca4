/* candid inspect: index.html, one page that needs nothing else. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/inspect_page.h"
#include "core/file.h"
#include "core/status.h"
#include "vision/heat_map.h"

#define BASE_SIDE 640 /* most pixels of the image's longer side in the page */
#define N_COLOURS 8

/* Colours of words: dark enough for white letters. */
static const char *const colours[N_COLOURS] = {"#b3261e", "#1b5e9e", "#2e7d32", "#7b3fa0",
                                               "#b35c00", "#00796b", "#ad1457", "#4e5d6c"};

static const char style[] =
    "body{font:16px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:1240px;margin:0 auto;padding:1rem "
    "1.5rem}"
    "h1{font-size:1.5rem;margin:.2em 0}h2{font-size:1.2rem;margin:2.2em 0 .4em;border-top:1px solid "
    "#ddd;padding-top:1em}"
    "p{max-width:52em}.quiet{color:#666;font-size:.9rem}.top{display:flex;gap:1.5rem;flex-wrap:wrap}"
    ".top>div:first-child{flex:0 1 420px}.top>div:last-child{flex:1 1 340px}.top .base,.sinks .shown{filter:none}"
    ".answer{font-size:1.15rem;line-height:2}.chip{color:#fff;border-radius:.9em;padding:.1em "
    ".55em;text-decoration:none;"
    "white-space:nowrap}h2 "
    ".chip{font-size:1.1rem}.pic,.sinks{position:relative;display:block;width:100%;overflow:hidden;"
    "background:#eee}.pic>*,.sinks>*{position:absolute;left:0;top:0;width:100%;height:100%}.heat{opacity:var(--heat,1)}"
    ".wide{overflow-x:auto}table{min-width:720px;border-collapse:separate;border-spacing:8px "
    "4px;margin-left:-8px}td,th{vertical-align:top;font-weight:normal;"
    "text-align:left;font-size:.9rem;width:19%}th.run{width:5em;font-weight:bold;padding-top:.4em}"
    ".sheet{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:8px;margin:.4em 0 1em}"
    ".sheet div{font-size:.8rem;color:#555}details{margin:.6em 0}summary{cursor:pointer}"
    ".scale{display:inline-block;width:160px;height:12px;vertical-align:middle;background:linear-gradient(90deg,#"
    "000004,"
    "#1f0c48,#550f6d,#88226a,#ba3655,#e35933,#f98c0a,#f9c932,#fcffa4)}.maps{display:flex;flex-wrap:wrap;gap:1.5rem}"
    ".heads{margin:0}.heads svg{max-width:100%;font:11px system-ui,sans-serif}.heads figcaption{max-width:25em;"
    "font-size:.9rem;min-height:5.5em}.axis{fill:#666}.sinks{max-width:560px}.sinks rect{fill:#e6003c;fill-opacity:.12;"
    "stroke:#e6003c;stroke-width:2.5px}code{background:#f3f3f3;padding:.1em .3em;overflow-wrap:anywhere}"
    "@media print{details{display:block}}";

/* ---- top ----------------------------------------------------------------------------------------- */

/* The image, once: every picture of the page has it as its background. */
static candid_status write_base(FILE *f, const struct inspection *in, candid_error *error) {
    const struct candid_image *image = in->shown;
    const int longer = image->width > image->height ? image->width : image->height;
    struct candid_image *small = NULL;
    if (longer > BASE_SIDE) {
        const int w = image->width * BASE_SIDE / longer, h = image->height * BASE_SIDE / longer;
        TRY(image_resize_bicubic(image, w > 0 ? w : 1, h > 0 ? h : 1, &small, error));
        image = small;
    }
    fputs(".base,.shown{background-size:100% 100%;background-image:url(", f);
    const candid_status status = page_png(f, image->rgb, image->width, image->height, 3, error);
    fprintf(f, ")}.base{filter:grayscale(%g)}.pic,.sinks{aspect-ratio:%d/%d}", 1.0 - (double)HEAT_KEEP_COLOUR,
            in->map.width, in->map.height);
    candid_image_free(small);
    return status;
}

/* The answer with a chip for each inspected word. */
static void write_answer(FILE *f, const struct inspection *in) {
    size_t at = strspn(in->answer.text, " \t\r\n");
    const size_t end =
        at + strlen(in->result->text) < in->answer.size ? at + strlen(in->result->text) : in->answer.size;
    fputs("<p class=answer>", f);
    for (size_t k = 0; k < in->n_words; k++) {
        const struct word *w = &in->words[k];
        page_text(f, in->answer.text + at, w->begin - at);
        fprintf(f, "<a class=chip href=\"#w%zu\" style=\"background:%s\">", k, colours[k % N_COLOURS]);
        page_text(f, in->answer.text + w->begin, w->end - w->begin);
        fputs("</a>", f);
        at = w->end;
    }
    page_text(f, in->answer.text + at, end > at ? end - at : 0);
    fputs("</p>\n", f);
}

static candid_status write_top(FILE *f, const struct inspection *in, candid_error *error) {
    fputs("<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport "
          "content=\"width=device-width\"><title>candid inspect: ",
          f);
    page_string(f, in->path);
    fprintf(f, "</title>\n<style>%s", style);
    TRY(write_base(f, in, error));
    fputs("</style></head><body>\n<h1>What the model looked at</h1>\n<p class=quiet>", f);
    page_string(f, in->path);
    fprintf(f, ", %d×%d pixels. Model: ", in->map.width, in->map.height);
    page_string(f, in->options->model ? in->options->model : "embedded demo model");
    if (in->model->name[0]) {
        fputs(" (", f);
        page_string(f, in->model->name);
        fputs(")", f);
    }
    fprintf(f, ", %d layers of %d heads.</p>\n", in->n_layer, in->n_head);
    fputs("<div class=top><div><span class=pic><i class=base></i></span></div><div><p><b>Question</b><br>", f);
    page_string(f, in->options->prompt);
    fprintf(f, "</p><p><b>Answer</b>%s</p>", in->has_after ? " (generated with the methods below)" : "");
    write_answer(f, in);
    fputs("<p class=quiet>Coloured words are inspected below.</p></div></div>\n", f);
    return CANDID_OK;
}

static void write_guide(FILE *f, const struct inspection *in) {
    fputs(
        "<h2>How to read the pictures</h2>\n<p>Each picture shows the attention of the step that chose the "
        "<em>first</em> token of a word: how much it read from each part of the image. Dark <span class=scale></span> "
        "bright: little to much.",
        f);
    if (in->has_after) {
        fputs(" <b>Without</b> and <b>with</b> the methods, the model is made to say the same answer, and both "
              "pictures of "
              "a pair have the same scale.",
              f);
    }
    fprintf(
        f,
        " The brightest colour stands for the value that %g %% of the cells do not exceed, so that a few tokens that "
        "soak up attention (sinks) do not darken the rest; the last column is scaled to the maximum instead. ",
        100 * HEAT_QUANTILE);
    page_string(f, inspect_geometry(in));
    fprintf(
        f,
        " The grid has %d×%d cells; between their centres values are interpolated. High attention is no proof that a "
        "word was read off there.</p>\n<p><label>Strength of the colours <input type=range min=0 max=1 step=.05 "
        "value=1 oninput=\"document.documentElement.style.setProperty('--heat',this.value)\"></label></p>\n",
        in->map.grid, in->map.grid);
}

/* ---- words --------------------------------------------------------------------------------------- */

struct column {
    const char *name;
    int group;
    bool most;
};

static candid_status write_row(FILE *f, const struct inspection *in, const struct attention_record *r, size_t word,
                               const char *run, float *cells, candid_error *error) {
    static const struct column columns[] = {
        {"all layers", -1, false},         {"early", 0, false}, {"middle", 1, false}, {"late", 2, false},
        {"all, to the maximum", -1, true},
    };
    const int side = in->map.grid * 6 < 96 ? 96 : in->map.grid * 6 > 192 ? 192 : in->map.grid * 6;
    fprintf(f, "<tr>%s%s%s", in->has_after ? "<th class=run>" : "", in->has_after ? run : "",
            in->has_after ? "</th>" : "");
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        int begin, end;
        float robust, most;
        inspect_group(in, columns[i].group, &begin, &end);
        if (begin == end) {
            continue;
        }
        TRY(inspect_scale(in, word, begin, end, &robust, &most, error));
        inspect_cells(in, r, word, begin, end, cells);
        fputs("<td>", f);
        TRY(page_heat(f, in, cells, columns[i].most ? most : robust, side, error));
        if (columns[i].group < 0) {
            fprintf(f, "%s", columns[i].name);
        } else {
            fprintf(f, "%s: layer%s %d", columns[i].name, end - begin > 1 ? "s" : "", begin);
            if (end - begin > 1) {
                fprintf(f, "–%d", end - 1);
            }
        }
        fputs("</td>", f);
    }
    fputs("</tr>\n", f);
    return CANDID_OK;
}

static candid_status write_layers(FILE *f, const struct inspection *in, const struct attention_record *r, size_t word,
                                  const char *run, float *cells, candid_error *error) {
    const int side = in->map.grid * 3 < 48 ? 48 : in->map.grid * 3 > 96 ? 96 : in->map.grid * 3;
    fprintf(f, "%s%s%s<div class=sheet>", in->has_after ? "<b>" : "", in->has_after ? run : "",
            in->has_after ? "</b>" : "");
    for (int l = 0; l < in->n_layer; l++) {
        float robust, most;
        TRY(inspect_scale(in, word, l, l + 1, &robust, &most, error));
        inspect_cells(in, r, word, l, l + 1, cells);
        fputs("<div>", f);
        TRY(page_heat(f, in, cells, robust, side, error));
        fprintf(f, "layer %d</div>", l);
    }
    fputs("</div>\n", f);
    return CANDID_OK;
}

static void write_shares(FILE *f, const struct inspection *in, size_t word) {
    float before, after = 0.0f, padding, padding_after = 0.0f;
    inspect_shares(in, &in->before, word, &before, &padding);
    if (in->has_after) {
        inspect_shares(in, &in->after, word, &after, &padding_after);
        fprintf(f, "<p>Of all attention, <b>%.1f %%</b> was on the image without the methods, <b>%.1f %%</b> with them",
                100 * (double)before, 100 * (double)after);
    } else {
        fprintf(f, "<p>Of all attention, <b>%.1f %%</b> was on the image", 100 * (double)before);
    }
    if (padding > 0.0f && in->has_after) {
        fprintf(f, "; on cells that show nothing but padding, %.1f %% and %.1f %%", 100 * (double)padding,
                100 * (double)padding_after);
    } else if (padding > 0.0f) {
        fprintf(f, ", %.1f %% on cells that show nothing but padding", 100 * (double)padding);
    }
    fputs(". (Mean of all heads and layers.)</p>\n", f);
}

static candid_status write_word(FILE *f, const struct inspection *in, size_t k, float *cells, candid_error *error) {
    char text[256];
    inspect_word(in, k, text, sizeof text);
    fprintf(f, "<h2 id=w%zu><span class=chip style=\"background:%s\">", k, colours[k % N_COLOURS]);
    page_string(f, text);
    fprintf(f, "</span> <span class=quiet>token %zu of the answer</span></h2>\n", in->words[k].token + 1);
    write_shares(f, in, k);
    fputs("<div class=wide><table>\n", f);
    TRY(write_row(f, in, &in->before, k, "without", cells, error));
    if (in->has_after) {
        TRY(write_row(f, in, &in->after, k, "with", cells, error));
    }
    fputs("</table></div>\n<details><summary>Every layer (each at a scale of its own)</summary>\n", f);
    TRY(write_layers(f, in, &in->before, k, "Without", cells, error));
    if (in->has_after) {
        TRY(write_layers(f, in, &in->after, k, "With", cells, error));
    }
    fputs("</details>\n", f);
    return CANDID_OK;
}

/* ---- the rest ------------------------------------------------------------------------------------ */

static float greatest(const float *a, const float *b, size_t n) {
    float most = 0.0f;
    for (size_t i = 0; i < n; i++) {
        most = a[i] > most ? a[i] : most;
        most = b && b[i] > most ? b[i] : most;
    }
    return most;
}

static void write_heads(FILE *f, const struct inspection *in) {
    const size_t n = (size_t)in->n_layer * (size_t)in->n_head;
    const float most = greatest(in->before.mass, in->has_after ? in->after.mass : NULL, n);
    fputs("<h2>Heads</h2>\n<div class=maps>\n", f);
    page_heads(f, in, in->before.mass, most,
               in->has_after ? "Attention on the image, without" : "Attention on the image",
               "Share of each head's attention that is on image tokens, mean of all tokens of the answer.");
    if (in->has_after) {
        page_heads(f, in, in->after.mass, most, "Attention on the image, with",
                   "The same with the methods, same scale.");
    }
    page_heads(f, in, in->divergence, greatest(in->divergence, NULL, n), "Head divergence (VHD)",
               "How far each head's output at the end of the prompt moves when the image is taken away (Euclidean "
               "distance), without methods.");
    fputs("</div>\n", f);
}

static void write_bottom(FILE *f, const struct inspection *in) {
    fputs("<h2>Sinks</h2>\n<p>", f);
    page_string(f, in->sinks.source);
    fputs("</p>\n", f);
    if (in->sinks.known) {
        page_sinks(f, in);
    }
    fputs("<h2>Methods</h2>\n", f);
    if (in->has_after) {
        page_interventions(f, in->after.interventions);
    } else {
        fputs("<p>None was switched on.</p>\n", f);
    }
    fprintf(f, "<h2>How this was made</h2>\n<p>candid %s<br><code>", candid_version());
    page_string(f, in->command);
    fputs(
        "</code></p>\n<p class=quiet>inspect.json beside this page has all numbers, the PNG files the pictures at full "
        "size.</p>\n</body></html>\n",
        f);
}

static candid_status write_page(FILE *f, const struct inspection *in, float *cells, candid_error *error) {
    TRY(write_top(f, in, error));
    write_guide(f, in);
    for (size_t k = 0; k < in->n_words; k++) {
        TRY(write_word(f, in, k, cells, error));
    }
    write_heads(f, in);
    write_bottom(f, in);
    return CANDID_OK;
}

candid_status inspect_write_html(const struct inspection *in, candid_error *error) {
    char *path = NULL;
    float *cells = malloc((size_t)in->n_cells * sizeof *cells);
    candid_status status = cells ? file_join(in->out, "index.html", &path, error)
                                 : fail_memory(error, "a heat map", (size_t)in->n_cells * sizeof *cells);
    FILE *f = status == CANDID_OK ? fopen(path, "wbe") : NULL;
    if (f) {
        status = write_page(f, in, cells, error);
    }
    if (status == CANDID_OK) {
        const bool ok = f && !ferror(f);
        if ((f && fclose(f) != 0) || !ok) {
            status = fail(error, CANDID_ERROR_IO, "%s: cannot write: %s", path, strerror(errno));
        }
    } else if (f) {
        fclose(f);
    }
    free(path);
    free(cells);
    return status;
}
