/* Parts of `candid inspect`: what is recorded, and the pictures, the JSON file and the page made of it. */
#ifndef CANDID_CLI_INSPECT_H
#define CANDID_CLI_INSPECT_H

#include <cJSON.h>

#include "api/handles.h"
#include "cli/cli.h"
#include "decode/words.h"
#include "vision/map_back.h"

#define INSPECT_GROUPS 3 /* early, middle and late layers */

/* The attention of one run that is forced to give the answer. */
struct attention_record {
    float *cells;        /* (n_words, n_layer, n_head, n_cells) of the row that predicts the word's first token */
    float *word_mass;    /* (n_words, n_layer, n_head) on all image tokens */
    float *mass;         /* (n_layer, n_head) the same, mean of all rows that predict a token of the answer */
    char *interventions; /* JSON text: what the methods did */
};

/* Tokens of the prompt that soak up attention. */
struct sinks {
    char source[160]; /* where the list comes from, or why there is none */
    bool known;
    bool by_var;
    enum image_order order; /* of the image in the run they were found in */
    int *layers;            /* [n_prompt] in how many layers the position is a sink */
};

/* Everything there is to show. */
struct inspection {
    const struct run_options *options;
    struct candid_model *model;
    candid_context *context;
    const char *path, *out; /* of the image; directory for results */
    char *command;          /* the command line */
    candid_image *image;

    const candid_result *result;
    struct answer_words answer;
    struct word *words; /* [n_words] those inspected */
    size_t n_words;

    int n_layer, n_head, n_cells, n_prompt;
    int image_begin, n_image; /* positions of the image in the prompt */
    candid_preprocess mode;
    struct view_map map;
    struct attention_record before, after; /* after: with the methods; nothing where none is active */
    bool has_after;
    float *divergence; /* (n_layer, n_head) */
    struct sinks sinks;

    struct candid_image *shown; /* the image at the size of the pictures */
};

/* ---- inspect_record.c ---- */

/* Fills n_layer … divergence and sinks, for the answer and words at hand. */
candid_status inspect_record(struct inspection *in, candid_error *error);
void attention_record_free(struct attention_record *r);

/* ---- inspect_data.c ---- */

/* Cells of one word, [n_cells]: mean over heads and over layers [begin, end). */
void inspect_cells(const struct inspection *in, const struct attention_record *r, size_t word, int begin, int end,
                   float *cells);

/* Layers of group 0 … INSPECT_GROUPS - 1, thirds of the depth; group -1 is all of them. Empty in very small models. */
void inspect_group(const struct inspection *in, int group, int *begin, int *end);
extern const char *const inspect_group_names[INSPECT_GROUPS];

/* Mean over heads and layers of what is on image tokens, and of the cells that show padding. */
void inspect_shares(const struct inspection *in, const struct attention_record *r, size_t word, float *on_image,
                    float *on_padding);

/* Two values at which the heat map of these layers is brightest, of both runs together: a quantile that cuts off
 * sinks, and the maximum. */
candid_status inspect_scale(const struct inspection *in, size_t word, int begin, int end, float *robust, float *most,
                            candid_error *error);

/* The word, NUL-terminated, cut to fit. */
void inspect_word(const struct inspection *in, size_t word, char *buffer, size_t size);

/* What the file names of a word begin with: "01-dog". */
void inspect_slug(const struct inspection *in, size_t word, char *buffer, size_t size);

/* The image's cell that a position of the prompt in the run of the sinks is, or -1. */
int inspect_sink_cell(const struct inspection *in, int position);

/* How many cells of the image are sinks. */
int inspect_sink_cells(const struct inspection *in);

/* The sentence that says how the grid lies on the image. */
const char *inspect_geometry(const struct inspection *in);

/* ---- inspect_pictures.c ---- */

/* Writes a file of the directory. */
candid_status inspect_write_file(const struct inspection *in, const char *name, const void *data, size_t size,
                                 candid_error *error);

/* Writes the PNG files. */
candid_status inspect_write_pictures(struct inspection *in, candid_error *error);

/* ---- inspect_json.c ---- */
candid_status inspect_write_json(const struct inspection *in, candid_error *error);

/* ---- inspect_html.c, inspect_html_parts.c ---- */
candid_status inspect_write_html(const struct inspection *in, candid_error *error);

#endif
