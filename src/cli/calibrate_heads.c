/* candid calibrate heads. */
#include <stdlib.h>
#include <string.h>

#include "cli/calibrate.h"
#include "cli/progress.h"
#include "core/status.h"
#include "interventions/measure.h"

#define ANSWER_TOKENS 64

/* Sums over the images, (n_layer, n_head) each. */
struct heads {
    int n_layer, n_head, n_images;
    double *vhd, *attention;
    float *divergence, *mass; /* of the current image */
};

static candid_status heads_create(struct heads *h, const struct candid_model *m, candid_error *error) {
    const size_t n = (size_t)m->llama.n_layer * (size_t)m->llama.n_head;
    *h = (struct heads){.n_layer = m->llama.n_layer, .n_head = m->llama.n_head};
    h->vhd = calloc(n, sizeof *h->vhd);
    h->attention = calloc(n, sizeof *h->attention);
    h->divergence = calloc(n, sizeof *h->divergence);
    h->mass = calloc(n, sizeof *h->mass);
    return h->vhd && h->attention && h->divergence && h->mass ? CANDID_OK
                                                              : fail_memory(error, "a head table", n * sizeof *h->vhd);
}

static void heads_free(struct heads *h) {
    free(h->vhd);
    free(h->attention);
    free(h->divergence);
    free(h->mass);
}

/* Adds to the request's plan what is to be measured. */
static candid_status measure(struct heads *h, const struct candid_model *m, struct request *r, candid_error *error) {
    struct layout layout = {0};
    TRY(layout_from_prompt(&r->prompt, r->spans, &layout, error));
    candid_status status = r->plan ? CANDID_OK : measure_create(&m->facts, &layout, &r->plan, error);
    const struct vhr_rule plain = {0};
    if (status == CANDID_OK) {
        status = measure_heads(r->plan, &m->facts, &plain, h->divergence, error);
    }
    if (status == CANDID_OK) {
        memset(h->mass, 0, (size_t)h->n_layer * (size_t)h->n_head * sizeof *h->mass);
        status = measure_image_attention(r->plan, &layout, h->mass, error);
    }
    layout_free(&layout);
    return status;
}

static candid_status run_image(candid_context *context, struct run_options *o, const char *path, struct heads *h,
                               candid_error *error) {
    candid_image *image = NULL;
    TRY(candid_image_load(path, &image, error));
    const candid_image *images[] = {image};
    struct calibrate_request c = {.max_new_tokens =
                                      o->generate.max_new_tokens ? o->generate.max_new_tokens : ANSWER_TOKENS};
    c.observer = (struct observer){.cancelled = interrupt_requested};
    candid_status status =
        request_prepare(context, images, 1, o->prompt ? o->prompt : CAPTION_PROMPT, &o->generate, &c.request, error);
    if (status == CANDID_OK) {
        status = request_encode(context, images, &c.request, o->generate.config, &c.observer, error);
        status = status == CANDID_OK ? measure(h, context->model, &c.request, error) : status;
        if (status == CANDID_OK) {
            status = calibrate_run(context, &c, error);
        } else {
            request_free(&c.request);
        }
    }
    for (int i = 0; status == CANDID_OK && i < h->n_layer * h->n_head; i++) {
        h->vhd[i] += (double)h->divergence[i];
        h->attention[i] += (double)h->mass[i] / c.n_generated;
    }
    h->n_images += status == CANDID_OK;
    free(c.text);
    candid_image_free(image);
    return status;
}

static void add_table(cJSON *out, const char *name, const struct heads *h, const double *sums) {
    cJSON *rows = cJSON_AddArrayToObject(out, name);
    for (int l = 0; l < h->n_layer; l++) {
        cJSON *row = cJSON_CreateArray();
        cJSON_AddItemToArray(rows, row);
        for (int i = 0; i < h->n_head; i++) {
            char number[32];
            snprintf(number, sizeof number, "%.5g", sums[l * h->n_head + i] / h->n_images);
            cJSON_AddItemToArray(row, cJSON_CreateRaw(number));
        }
    }
}

/* The ten highest as [layer, head] pairs, for readers and for head_scale.heads. */
static void add_top(cJSON *out, const char *name, const struct heads *h, const double *sums) {
    cJSON *list = cJSON_AddArrayToObject(out, name);
    const int n = h->n_layer * h->n_head;
    bool *taken = calloc((size_t)n, sizeof *taken);
    for (int k = 0; taken && k < 10 && k < n; k++) {
        int best = -1;
        for (int i = 0; i < n; i++) {
            best = !taken[i] && (best < 0 || sums[i] > sums[best]) ? i : best;
        }
        taken[best] = true;
        const int pair[] = {best / h->n_head, best % h->n_head};
        cJSON_AddItemToArray(list, cJSON_CreateIntArray(pair, 2));
    }
    free(taken);
}

static cJSON *to_json(const struct heads *h, const struct candid_model *m, const char *prompt) {
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(
        out, "comment",
        "Head table by candid calibrate heads: per layer and head, means over the images of the distance of the "
        "last prompt row's output with and without the image (vhd) and of the attention to the image in the "
        "rows that predict the answer");
    cJSON_AddStringToObject(out, "model", m->name);
    cJSON_AddNumberToObject(out, "n_layer", h->n_layer);
    cJSON_AddNumberToObject(out, "n_head", h->n_head);
    cJSON_AddNumberToObject(out, "images", h->n_images);
    cJSON_AddStringToObject(out, "prompt", prompt ? prompt : CAPTION_PROMPT);
    add_top(out, "top_vhd", h, h->vhd);
    add_top(out, "top_image_attention", h, h->attention);
    add_table(out, "vhd", h, h->vhd);
    add_table(out, "image_attention", h, h->attention);
    return out;
}

int calibrate_heads(struct run_options *o, const char *out) {
    char **paths = NULL;
    size_t n_paths = 0;
    struct heads h = {0};
    candid_model *model = NULL;
    candid_context *context = NULL;
    candid_error error = {CANDID_OK, ""};
    int code = paths_collect(o->inputs, o->n_inputs, &paths, &n_paths);
    if (code == EXIT_OK) {
        code = calibrate_open(o, &model, &context);
    }
    candid_status status = code == EXIT_OK ? heads_create(&h, model, &error) : CANDID_OK;
    for (size_t i = 0; code == EXIT_OK && status == CANDID_OK && i < n_paths; i++) {
        status = run_image(context, o, paths[i], &h, &error);
        if (status != CANDID_OK && !strstr(error.message, paths[i])) {
            complain("%s:", paths[i]);
        }
    }
    if (status != CANDID_OK) {
        complain("%s", error.message);
        code = status == CANDID_ERROR_CANCELLED ? EXIT_INTERRUPTED : EXIT_ITEM;
    } else if (code == EXIT_OK) {
        code = calibrate_write(to_json(&h, model, o->prompt), out);
    }
    heads_free(&h);
    candid_context_free(context);
    candid_model_free(model);
    paths_free(paths, n_paths);
    return code;
}
