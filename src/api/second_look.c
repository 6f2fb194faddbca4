/* ViCrop and CARVE, step by step. */
#include "api/second_look.h"

#include <stdlib.h>
#include <string.h>

#include "api/gaze.h"
#include "api/sights.h"
#include "core/clock.h"
#include "core/status.h"
#include "vision/carve.h"
#include "vision/vicrop.h"

void second_look_free(struct second_look *look) {
    candid_image_free(look->refined);
    free(look->prompt);
    *look = (struct second_look){0};
}

/* The layers an option names; "auto" is a part of the depth given in 32nds. */
static candid_status find_layers(const struct look_options *o, int n_layer, int first, int last, bool *on,
                                 candid_error *error) {
    if (strcmp(o->layers, "auto") != 0) {
        const int n = layers_select(o->layers, n_layer, on, o->method->name, error);
        return n < 0   ? CANDID_ERROR_ARGUMENT
               : n > 0 ? CANDID_OK
                       : fail(error, CANDID_ERROR_ARGUMENT, "%s.layers \"%s\": the model has layers 0 to %d",
                              o->method->name, o->layers, n_layer - 1);
    }
    for (int l = 0; l < n_layer; l++) {
        on[l] = l >= first * n_layer / 32 && l <= last * n_layer / 32;
    }
    return CANDID_OK;
}

/* One request of the first pass, prepared and with its image encoded. */
static candid_status ask(candid_context *c, const candid_image *const *image, const char *prompt,
                         const candid_generate_params *params, const struct observer *observer, struct request *r,
                         candid_error *error) {
    candid_generate_params plain = *params;
    plain.config = NULL;
    plain.temperature = 0;
    plain.repetition_penalty = 1;
    TRY(request_prepare(c, image, 1, prompt, &plain, r, error));
    const candid_status status = sights_encode(c, image, r, observer, error);
    if (status != CANDID_OK) {
        request_free(r);
    }
    return status;
}

/* Where a prompt's answer of up to `steps` tokens looks. */
static candid_status gaze_at(candid_context *c, const candid_image *const *image, const char *prompt,
                             const candid_generate_params *params, const bool *layers, int steps,
                             const struct observer *observer, struct second_look *look, struct gaze *out,
                             candid_error *error) {
    struct request r;
    TRY(ask(c, image, prompt, params, observer, &r, error));
    const int64_t left = c->n_ctx - request_length(&r);
    candid_status status = CANDID_OK;
    if (left < 1) {
        status = fail(error, CANDID_ERROR_CONTEXT, "%s: the first look's prompt has %lld tokens, the context holds %d",
                      look->options->method->name, (long long)request_length(&r), c->n_ctx);
    }
    const double start = clock_ms();
    if (status == CANDID_OK) {
        status = gaze_answer(c, &r, layers, left < steps ? (int)left : steps, out, observer, error);
    }
    look->load_ms += r.load_ms;
    look->encode_ms += r.encode_ms;
    look->prefill_ms += clock_ms() - start;
    request_free(&r);
    return status;
}

/* Mean over the layers of the first step; in the first n_cells of the gaze. */
static void mean_of_layers(struct gaze *g) {
    for (int i = 0; i < g->n_cells; i++) {
        float sum = 0;
        for (int l = 0; l < g->n_layers; l++) {
            sum += g->values[(size_t)l * (size_t)g->n_cells + (size_t)i];
        }
        g->values[i] = sum / (float)g->n_layers;
    }
}

static candid_status crop(const candid_context *c, const candid_image *image, const struct view_map *view,
                          struct gaze *question, struct gaze *general, struct second_look *look, candid_error *error) {
    const int grid = c->model->clip.grid;
    mean_of_layers(question);
    mean_of_layers(general);
    TRY(vicrop_relative(question->values, general->values, question->n_cells, question->values, error));
    const struct cell_map map = {question->values, grid, grid, look->options->whole_geometry ? NULL : view};
    TRY(vicrop_box(&map, image->width, image->height, c->model->clip.image_size, &look->box, error));
    return image_crop(image, &look->box, &look->refined, error);
}

static candid_status carve(const candid_context *c, const candid_image *image, const struct view_map *view,
                           const struct gaze *question, const struct gaze *general, struct second_look *look,
                           candid_error *error) {
    const struct look_options *o = look->options;
    const int grid = c->model->clip.grid;
    float *cells = malloc((size_t)question->n_cells * sizeof *cells);
    if (!cells) {
        return fail_memory(error, "a map", (size_t)question->n_cells * sizeof *cells);
    }
    const struct carve_attention a = {.question = question->values,
                                      .general = general->values,
                                      .n_question = question->n_steps,
                                      .n_general = general->n_steps,
                                      .n_layers = question->n_layers,
                                      .n_cells = question->n_cells};
    const struct carve_options options = {(double)o->top_share, o->min_regions};
    const struct cell_map map = {cells, grid, grid, o->whole_geometry ? NULL : view};
    candid_status status =
        carve_contrast(&a, o->first_step_only ? CARVE_FIRST_STEP : CARVE_ALL_STEPS, 1e-8, cells, error);
    if (status == CANDID_OK) {
        status = carve_image(image, &map, &options, &look->refined, &look->box, error);
    }
    free(cells);
    return status;
}

static candid_status find(candid_context *c, const candid_image *const *image, const char *prompt,
                          const candid_generate_params *params, const bool *layers, struct second_look *look,
                          candid_error *error) {
    const struct look_options *o = look->options;
    const struct observer observer = {.cancelled = params->should_cancel, .user_data = params->should_cancel_user_data};
    struct gaze question = {0}, general = {0};
    struct visual_plan plan;
    const int steps = o->kind == LOOK_CARVE ? o->steps : 1;
    TRY(visual_plan_make(&c->model->clip, params->preprocess, image[0]->width, image[0]->height, &plan, error));
    const struct view_map view = view_map_make(&c->model->clip, &plan, image[0]->width, image[0]->height);
    candid_status status = gaze_at(c, image, prompt, params, layers, steps, &observer, look, &question, error);
    if (status == CANDID_OK) {
        status = gaze_at(c, image, o->general, params, layers, steps, &observer, look, &general, error);
    }
    if (status == CANDID_OK) {
        status = o->kind == LOOK_VICROP ? crop(c, image[0], &view, &question, &general, look, error)
                                        : carve(c, image[0], &view, &question, &general, look, error);
    }
    gaze_free(&question);
    gaze_free(&general);
    return status;
}

candid_status second_look_prompt(const char *prompt, size_t n, char **out, candid_error *error) {
    const char *place = strstr(prompt, "<image>");
    const size_t size = strlen(prompt) + sizeof "<image>\n" + 1;
    *out = malloc(size);
    if (!*out) {
        return fail_memory(error, "a prompt", size);
    }
    **out = '\0';
    if (place && n == 2) {
        strncat(*out, prompt, (size_t)(place - prompt));
        strcat(*out, "<image>\n");
        strcat(*out, place);
    } else {
        strcpy(*out, prompt);
    }
    return CANDID_OK;
}

candid_status second_look(candid_context *c, const candid_image *const *images, size_t n_images, const char *prompt,
                          const candid_generate_params *params, const struct look_options *options,
                          struct second_look *out, candid_error *error) {
    const int n_layer = c->model->llama.n_layer;
    *out = (struct second_look){.options = options};
    if (n_images != 1 || !c->model->has_vision) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s looks twice at one image: expected one in the request, found %zu",
                    options->method->name, n_images);
    }
    bool *layers = calloc((size_t)n_layer, sizeof *layers);
    if (!layers) {
        return fail_memory(error, "layers", (size_t)n_layer);
    }
    candid_status status = options->kind == LOOK_VICROP ? find_layers(options, n_layer, 14, 14, layers, error)
                                                        : find_layers(options, n_layer, 20, 25, layers, error);
    if (status == CANDID_OK) {
        status = find(c, images, prompt, params, layers, out, error);
    }
    free(layers);
    if (status == CANDID_OK) {
        out->images[out->n_images++] = options->refined_alone ? out->refined : images[0];
        if (!options->refined_alone) {
            out->images[out->n_images++] = out->refined;
        }
        status = second_look_prompt(prompt, out->n_images, &out->prompt, error);
    }
    if (status != CANDID_OK) {
        second_look_free(out);
    }
    return status;
}
