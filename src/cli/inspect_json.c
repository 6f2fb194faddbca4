/* candid inspect: inspect.json, all numbers. */
#include <stdlib.h>
#include <string.h>

#include "cli/inspect.h"
#include "core/status.h"
#include "interventions/config.h"

#define NUMBER_SIZE 16

static const char *const mode_names[] = {"auto", "pad", "crop", "anyres"}; /* by value of the enum */

/* (rows, columns) numbers with five digits: enough for what they are, and a third of the size. columns 0: a flat list
 * of `rows`. */
static void add_numbers(cJSON *object, const char *name, const float *values, int rows, int columns) {
    const size_t n = (size_t)rows * (size_t)(columns > 0 ? columns : 1);
    char *text = malloc(n * NUMBER_SIZE + 2 * (size_t)rows + 4), *at = text;
    if (!text) {
        return;
    }
    *at++ = '[';
    for (int r = 0; r < rows; r++) {
        at += sprintf(at, "%s%s", r > 0 ? "," : "", columns > 0 ? "[" : "");
        for (int c = 0; c < (columns > 0 ? columns : 1); c++) {
            at += sprintf(at, "%s%.5g", c > 0 ? "," : "", (double)*values++);
        }
        at += sprintf(at, "%s", columns > 0 ? "]" : "");
    }
    *at++ = ']';
    *at = '\0';
    cJSON_AddRawToObject(object, name, text);
    free(text);
}

static void add_run(const struct inspection *in, cJSON *word, const char *name, const struct attention_record *r,
                    size_t k, float *cells) {
    cJSON *run = cJSON_AddObjectToObject(word, name);
    const size_t plane = (size_t)in->n_layer * (size_t)in->n_head, n = (size_t)in->n_cells;
    float on_image, on_padding;
    inspect_shares(in, r, k, &on_image, &on_padding);
    cJSON_AddNumberToObject(run, "image_attention", (double)on_image);
    cJSON_AddNumberToObject(run, "padding_attention", (double)on_padding);
    add_numbers(run, "heads", r->word_mass + k * plane, in->n_layer, in->n_head);
    for (int l = 0; l < in->n_layer; l++) {
        inspect_cells(in, r, k, l, l + 1, cells + (size_t)l * n);
    }
    add_numbers(run, "layers", cells, in->n_layer, in->n_cells);
}

static void add_words(const struct inspection *in, cJSON *root, float *cells) {
    cJSON *words = cJSON_AddArrayToObject(root, "words");
    for (size_t k = 0; k < in->n_words; k++) {
        char text[256], slug[64];
        inspect_word(in, k, text, sizeof text);
        inspect_slug(in, k, slug, sizeof slug);
        cJSON *word = cJSON_CreateObject();
        cJSON_AddItemToArray(words, word);
        cJSON_AddStringToObject(word, "word", text);
        cJSON_AddStringToObject(word, "files", slug);
        cJSON_AddNumberToObject(word, "token", (double)in->words[k].token);
        cJSON_AddNumberToObject(word, "n_tokens", (double)in->words[k].n_tokens);
        add_run(in, word, "before", &in->before, k, cells);
        if (in->has_after) {
            add_run(in, word, "after", &in->after, k, cells);
        }
    }
}

static void add_tokens(const struct inspection *in, cJSON *root) {
    cJSON *tokens = cJSON_AddArrayToObject(root, "tokens");
    for (size_t i = 0; i < in->answer.n_tokens; i++) {
        const size_t begin = i > 0 ? in->answer.token_end[i - 1] : 0;
        char *text = strndup(in->answer.text + begin, in->answer.token_end[i] - begin);
        cJSON *token = cJSON_CreateObject();
        cJSON_AddItemToArray(tokens, token);
        cJSON_AddNumberToObject(token, "id", in->result->tokens[i]);
        cJSON_AddStringToObject(token, "text", text ? text : "");
        free(text);
    }
}

static void add_geometry(const struct inspection *in, cJSON *root) {
    const struct view_map *m = &in->map;
    cJSON *g = cJSON_AddObjectToObject(root, "geometry");
    cJSON_AddStringToObject(g, "preprocess", mode_names[in->mode]);
    cJSON_AddNumberToObject(g, "image_width", m->width);
    cJSON_AddNumberToObject(g, "image_height", m->height);
    cJSON_AddNumberToObject(g, "view_size", m->size);
    cJSON_AddNumberToObject(g, "patch", m->patch);
    cJSON_AddNumberToObject(g, "grid", m->grid);
    cJSON_AddNumberToObject(g, "scale_x", m->scale_x);
    cJSON_AddNumberToObject(g, "scale_y", m->scale_y);
    cJSON_AddNumberToObject(g, "offset_x", m->offset_x);
    cJSON_AddNumberToObject(g, "offset_y", m->offset_y);
    cJSON_AddNumberToObject(g, "prompt_tokens", in->n_prompt);
    cJSON_AddNumberToObject(g, "image_begin", in->image_begin);
    cJSON_AddNumberToObject(g, "image_tokens", in->n_image);
    cJSON_AddStringToObject(
        g, "note",
        "view = pixel of the image * scale + offset; cell (y, x) is view pixels [x * patch, (x + 1) * "
        "patch); cells are listed row by row whatever their order in the prompt");
}

static void add_sinks(const struct inspection *in, cJSON *root) {
    cJSON *sinks = cJSON_AddObjectToObject(root, "sinks");
    cJSON_AddStringToObject(sinks, "source", in->sinks.source);
    cJSON *list = in->sinks.known ? cJSON_AddArrayToObject(sinks, "tokens") : NULL;
    for (int i = 0; list && i < in->n_prompt; i++) {
        if (in->sinks.layers[i] > 0) {
            cJSON *one = cJSON_CreateObject();
            cJSON_AddItemToArray(list, one);
            cJSON_AddNumberToObject(one, "position", i);
            cJSON_AddNumberToObject(one, "layers", in->sinks.layers[i]);
            cJSON_AddNumberToObject(one, "cell", inspect_sink_cell(in, i));
        }
    }
}

static cJSON *everything(const struct inspection *in, float *cells) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "made_by", "candid inspect");
    cJSON_AddStringToObject(root, "version", candid_version());
    cJSON_AddStringToObject(root, "command", in->command);
    cJSON_AddStringToObject(root, "image", in->path);
    cJSON_AddStringToObject(root, "model", in->options->model ? in->options->model : "(embedded demo model)");
    cJSON_AddStringToObject(root, "question", in->options->prompt);
    cJSON_AddStringToObject(root, "answer", in->result->text);
    add_tokens(in, root);
    if (in->has_after) {
        cJSON_AddItemToObject(root, "config", config_resolved(in->options->config));
        cJSON_AddRawToObject(root, "interventions", in->after.interventions);
    }
    add_geometry(in, root);
    add_words(in, root, cells);
    cJSON *heads = cJSON_AddObjectToObject(root, "heads");
    add_numbers(heads, "image_attention_before", in->before.mass, in->n_layer, in->n_head);
    if (in->has_after) {
        add_numbers(heads, "image_attention_after", in->after.mass, in->n_layer, in->n_head);
    }
    add_numbers(heads, "divergence", in->divergence, in->n_layer, in->n_head);
    add_sinks(in, root);
    return root;
}

candid_status inspect_write_json(const struct inspection *in, candid_error *error) {
    float *cells = malloc((size_t)in->n_layer * (size_t)in->n_cells * sizeof *cells);
    if (!cells) {
        return fail_memory(error, "inspect.json", 0);
    }
    cJSON *root = everything(in, cells);
    free(cells);
    char *text = root ? cJSON_PrintUnformatted(root) : NULL;
    cJSON_Delete(root);
    if (!text) {
        return fail_memory(error, "inspect.json", 0);
    }
    const candid_status status = inspect_write_file(in, "inspect.json", text, strlen(text), error);
    cJSON_free(text);
    return status;
}
