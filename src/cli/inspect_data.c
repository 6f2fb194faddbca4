/* candid inspect: what the pictures, the JSON file and the page show, computed from the records. */
#include <stdlib.h>
#include <string.h>

#include "cli/inspect.h"
#include "core/status.h"
#include "vision/heat_map.h"

const char *const inspect_group_names[INSPECT_GROUPS] = {"early", "middle", "late"};

void inspect_group(const struct inspection *in, int group, int *begin, int *end) {
    *begin = group < 0 ? 0 : in->n_layer * group / INSPECT_GROUPS;
    *end = group < 0 ? in->n_layer : in->n_layer * (group + 1) / INSPECT_GROUPS;
}

void inspect_cells(const struct inspection *in, const struct attention_record *r, size_t word, int begin, int end,
                   float *cells) {
    const size_t n = (size_t)in->n_cells;
    memset(cells, 0, n * sizeof *cells);
    for (int l = begin; l < end; l++) {
        for (int h = 0; h < in->n_head; h++) {
            const size_t at = (word * (size_t)in->n_layer + (size_t)l) * (size_t)in->n_head + (size_t)h;
            for (size_t i = 0; i < n; i++) {
                cells[i] += r->cells[at * n + i];
            }
        }
    }
    for (size_t i = 0; i < n && end > begin; i++) {
        cells[i] /= (float)((end - begin) * in->n_head);
    }
}

void inspect_shares(const struct inspection *in, const struct attention_record *r, size_t word, float *on_image,
                    float *on_padding) {
    const size_t plane = (size_t)in->n_layer * (size_t)in->n_head, n = (size_t)in->n_cells;
    double image = 0.0, padding = 0.0;
    for (size_t i = 0; i < plane; i++) {
        image += (double)r->word_mass[word * plane + i];
        for (size_t c = 0; c < n; c++) {
            if (view_map_is_padding(&in->map, (int)c / in->map.grid, (int)c % in->map.grid)) {
                padding += (double)r->cells[(word * plane + i) * n + c];
            }
        }
    }
    *on_image = (float)(image / (double)plane);
    *on_padding = (float)(padding / (double)plane);
}

candid_status inspect_scale(const struct inspection *in, size_t word, int begin, int end, float *robust, float *most,
                            candid_error *error) {
    const size_t n = (size_t)in->n_cells, total = in->has_after ? 2 * n : n;
    float *values = malloc(2 * total * sizeof *values);
    if (!values) {
        return fail_memory(error, "the scale of a heat map", 2 * total * sizeof *values);
    }
    inspect_cells(in, &in->before, word, begin, end, values);
    if (in->has_after) {
        inspect_cells(in, &in->after, word, begin, end, values + n);
    }
    *robust = heat_quantile(values, total, HEAT_QUANTILE, values + total);
    *most = heat_quantile(values, total, 1.0, values + total);
    free(values);
    return CANDID_OK;
}

void inspect_word(const struct inspection *in, size_t word, char *buffer, size_t size) {
    const struct word *w = &in->words[word];
    size_t n = w->end - w->begin < size - 1 ? w->end - w->begin : size - 1;
    while (n > 0 && w->begin + n < in->answer.size && ((unsigned char)in->answer.text[w->begin + n] & 0xC0) == 0x80) {
        n--; /* do not cut a UTF-8 character */
    }
    memcpy(buffer, in->answer.text + w->begin, n);
    buffer[n] = '\0';
}

void inspect_slug(const struct inspection *in, size_t word, char *buffer, size_t size) {
    char text[33];
    inspect_word(in, word, text, sizeof text);
    for (char *c = text; *c; c++) {
        const bool kept = (*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9');
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c + 'a' - 'A') : kept ? *c : '_';
    }
    snprintf(buffer, size, "%02zu-%s", word + 1, text);
}

int inspect_sink_cell(const struct inspection *in, int position) {
    const int index = position - in->image_begin, grid = in->map.grid;
    if (index < 0 || index >= in->n_cells) {
        return -1;
    }
    int *cells = malloc((size_t)in->n_cells * sizeof *cells);
    if (!cells) {
        return -1;
    }
    grid_cells(in->sinks.order, grid, grid, cells);
    const int cell = cells[index];
    free(cells);
    return cell;
}

int inspect_sink_cells(const struct inspection *in) {
    int n = 0;
    for (int i = 0; i < in->n_prompt; i++) {
        n += in->sinks.layers[i] > 0 && inspect_sink_cell(in, i) >= 0;
    }
    return n;
}

const char *inspect_geometry(const struct inspection *in) {
    if (in->mode != CANDID_PREPROCESS_ANYRES && in->map.width == in->map.height) {
        return "The model saw the whole image.";
    }
    switch (in->mode) {
    case CANDID_PREPROCESS_PAD:
        return "The image was padded to a square. Cells on the padding lie outside the picture and are not drawn.";
    case CANDID_PREPROCESS_CROP:
        return "The image was scaled to its shorter side and cut to the square in the middle. What the model did not "
               "see "
               "is veiled in grey.";
    default:
        return "The image was seen as a whole and in tiles. Only the attention on the whole view, squeezed to a "
               "square, "
               "is drawn; the tiles' tokens count in the sums.";
    }
}
