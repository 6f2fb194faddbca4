/* candid calibrate sinks. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/calibrate.h"
#include "interventions/sinks.h"

/* Ordinary requests: what they say matters little, the first token comes before it. */
static const char *const text_prompts[] = {
    "Please describe the weather in your country in two sentences.",
    "Write a short note to a friend about a book you have read.",
    "What is the difference between a lake and a river?",
    "List three animals that live in cold places.",
    "How do you make a cup of tea?",
    "The quick brown fox jumps over the lazy dog.",
};
#define N_TEXT (sizeof text_prompts / sizeof *text_prompts)

#define MOST_DIMS 64

struct search {
    struct sink_search *sinks;
    int n_seen; /* rows of the prompt that have passed the current layer */
    int layer;
    int first; /* rows of earlier passes */
};

static void see(void *user_data, enum site site, int layer, const float *data, int n_rows, int n_cols) {
    struct search *s = user_data;
    if (layer == -1) { /* a pass begins */
        s->first = s->n_seen;
        s->n_seen += n_rows;
    }
    sink_search_rows(s->sinks, layer + 1, s->first, data, n_rows); /* a block's output enters the next */
}

static candid_status run_prompt(candid_context *context, const char *prompt, const candid_image *image,
                                struct run_options *o, struct search *s, candid_error *error) {
    const candid_image *images[] = {image};
    const size_t n = image ? 1 : 0;
    struct calibrate_request c = {.max_new_tokens = 1};
    candid_generate_params params = o->generate;
    params.conversation = image || o->conversation ? o->conversation : "USER: {prompt} ASSISTANT:";
    candid_status status = request_prepare(context, images, n, prompt, &params, &c.request, error);
    if (status != CANDID_OK) {
        return status;
    }
    s->n_seen = 0;
    sink_search_begin(s->sinks);
    c.observer =
        (struct observer){.mask = 1u << SITE_HIDDEN, .see = see, .cancelled = interrupt_requested, .user_data = s};
    status = request_encode(context, images, &c.request, params.config, NULL, error);
    if (status != CANDID_OK) {
        request_free(&c.request);
        return status;
    }
    status = calibrate_run(context, &c, error);
    free(c.text);
    return status;
}

static candid_status run_prompts(candid_context *context, struct run_options *o, char **paths, size_t n_paths,
                                 struct search *s, candid_error *error) {
    candid_status status = CANDID_OK;
    for (size_t i = 0; status == CANDID_OK && i < N_TEXT; i++) {
        status = run_prompt(context, text_prompts[i], NULL, o, s, error);
    }
    for (size_t i = 0; status == CANDID_OK && i < n_paths; i++) {
        candid_image *image = NULL;
        status = candid_image_load(paths[i], &image, error);
        if (status == CANDID_OK) {
            status = run_prompt(context, o->prompt ? o->prompt : "Please describe this image in detail.", image, o, s,
                                error);
        }
        candid_image_free(image);
    }
    return status;
}

static cJSON *to_json(const struct candid_model *m, const struct search *s, size_t n_images) {
    struct sink_dim dims[MOST_DIMS];
    bool first_token;
    const int n = sink_search_result(s->sinks, dims, MOST_DIMS, &first_token);
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "comment", "Sink dimensions found by candid calibrate sinks; use as var.table");
    cJSON_AddStringToObject(out, "model", m->name);
    cJSON_AddNumberToObject(out, "n_layer", m->llama.n_layer);
    cJSON_AddNumberToObject(out, "n_embd", m->llama.n_embd);
    cJSON_AddNumberToObject(out, "text_prompts", (double)N_TEXT);
    cJSON_AddNumberToObject(out, "image_prompts", (double)n_images);
    cJSON_AddNumberToObject(out, "sink_tau", (double)sink_search_tau(s->sinks));
    cJSON_AddNumberToObject(out, "highest_phi", (double)sink_search_highest(s->sinks));
    cJSON_AddNumberToObject(out, "highest_possible_phi", sqrt((double)m->llama.n_embd));
    if (m->llama.n_layer < 4) {
        cJSON_AddStringToObject(out, "note",
                                "sinks are searched in layers from 2 to the last but one: this model has none");
    }
    cJSON_AddStringToObject(out, "found_in", n == 0 ? "nowhere" : first_token ? "first token" : "highest token");
    cJSON *list = cJSON_AddArrayToObject(out, "sink_dims");
    cJSON *details = cJSON_AddArrayToObject(out, "dims");
    for (int i = 0; i < n; i++) {
        cJSON_AddItemToArray(list, cJSON_CreateNumber(dims[i].dim));
        cJSON *one = cJSON_CreateObject();
        cJSON_AddItemToArray(details, one);
        cJSON_AddNumberToObject(one, "dim", dims[i].dim);
        cJSON_AddNumberToObject(one, "mean_phi", (double)dims[i].phi);
        cJSON_AddNumberToObject(one, "first_layer", dims[i].from);
        cJSON_AddNumberToObject(one, "last_layer", dims[i].to);
        cJSON_AddNumberToObject(one, "layers", dims[i].n_layers);
    }
    return out;
}

int calibrate_sinks(struct run_options *o, float tau, const char *out) {
    char **paths = NULL;
    size_t n_paths = 0;
    int code = o->n_inputs > 0 ? paths_collect(o->inputs, o->n_inputs, &paths, &n_paths) : EXIT_OK;
    candid_model *model = NULL;
    candid_context *context = NULL;
    struct search s = {0};
    candid_error error = {CANDID_OK, ""};
    if (code == EXIT_OK) {
        code = calibrate_open(o, &model, &context);
    }
    candid_status status = CANDID_OK;
    if (code == EXIT_OK && status == CANDID_OK) {
        status = sink_search_create(model->llama.n_layer, model->llama.n_embd, tau, &s.sinks, &error);
    }
    if (code == EXIT_OK && status == CANDID_OK) {
        status = run_prompts(context, o, paths, n_paths, &s, &error);
    }
    if (status != CANDID_OK) {
        complain("%s", error.message);
        code = status == CANDID_ERROR_CANCELLED ? EXIT_INTERRUPTED : EXIT_ITEM;
    } else if (code == EXIT_OK) {
        code = calibrate_write(to_json(model, &s, n_paths), out);
    }
    sink_search_free(s.sinks);
    candid_context_free(context);
    candid_model_free(model);
    paths_free(paths, n_paths);
    return code;
}
