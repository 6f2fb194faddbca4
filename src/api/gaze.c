/* Attention to the image, by a plan that only looks. */
#include "api/gaze.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"

/* Where a probe's rows go. */
struct watch {
    struct gaze *gaze;
    int max_steps;
    int begin;        /* first key of the image in the sequence */
    const int *cells; /* [n_cells] raster index of its i-th token */
    int n_prompt;
    int number[1024]; /* of a layer among those watched */
};

void gaze_free(struct gaze *g) {
    free(g->values);
    *g = (struct gaze){0};
}

static void see(struct plan_step *step, const struct probe_result *result) {
    const struct watch *w = step->state;
    struct gaze *g = w->gaze;
    const int t = result->index - (w->n_prompt - 1);
    if (t < 0 || t >= w->max_steps) {
        return;
    }
    float *to = g->values + ((size_t)t * (size_t)g->n_layers + (size_t)w->number[result->layer]) * (size_t)g->n_cells;
    for (int i = 0; i < g->n_cells; i++) {
        to[w->cells[i]] = result->values[w->begin + i];
    }
    g->n_steps = t + 1 > g->n_steps ? t + 1 : g->n_steps;
}

/* Where the first view of image number `image` begins in the prompt. */
static int image_begin(const struct request *r, int image) {
    int at = 0;
    for (size_t i = 0; i < r->prompt.n_chunks; i++) {
        const struct prompt_chunk *chunk = &r->prompt.chunks[i];
        if (chunk->image == image) {
            return at;
        }
        at += chunk->image >= 0 ? r->spans[chunk->image].n_tokens : (int)chunk->count;
    }
    return -1;
}

static candid_status add_probe(struct plan *plan, const bool *layers, struct watch *w, candid_error *error) {
    struct plan_step *step;
    TRY(plan_add(plan, PLAN_PROBE_ROWS, NULL, &step, error));
    for (int l = 0, n = 0; l < plan->n_layer; l++) {
        step->layers[l] = layers[l];
        w->number[l] = n;
        n += layers[l];
    }
    step->rows = ROW_LAST | ROW_GENERATED;
    step->reduce = HEADS_MEAN;
    step->decide = see;
    step->state = w;
    return CANDID_OK;
}

/* Runs the request for up to max_new tokens, or for those of `forced`, with the probe in its plan. */
static candid_status run(candid_context *c, const struct request *r, const bool *layers, int max_new,
                         const struct token_list *forced, struct watch *w, const struct observer *observer,
                         candid_error *error) {
    const struct llama_weights *m = &c->model->llama;
    struct layout layout = {0};
    struct plan *own = NULL, *plan = r->plan;
    struct kv_cache *kv = NULL;
    struct kv_seq *seq = NULL;
    struct generated out = {0};
    candid_status status;
    if (!plan) {
        TRY_GOTO(layout_from_prompt(&r->prompt, r->spans, &layout, error), status, done);
        TRY_GOTO(plan_create(m->n_layer, m->n_head, m->n_embd, &layout, &own, error), status, done);
        plan = own;
    }
    TRY_GOTO(add_probe(plan, layers, w, error), status, done);
    TRY_GOTO(kv_cache_create(c->backend, kv_cache_shape(c->kv), w->n_prompt + max_new, &kv, error), status, done);
    TRY_GOTO(kv_seq_create(kv, &seq, error), status, done);
    const struct generation g = {.llama = c->llama,
                                 .weights = m,
                                 .tokenizer = c->model->tokenizer,
                                 .backend = c->backend,
                                 .seq = seq,
                                 .prompt = &r->prompt,
                                 .images = r->spans,
                                 .visual_tokens = c->visual_tokens,
                                 .plan = plan,
                                 .decoding = {.beams = 1, .answers = 1, .top_p = 1, .repetition_penalty = 1},
                                 .forced = forced,
                                 .max_new_tokens = max_new,
                                 .observer = observer};
    status = generate(&g, &out, error);
done:
    generated_free(&out);
    kv_seq_free(seq);
    kv_cache_free(kv);
    plan_free(own);
    layout_free(&layout);
    return status;
}

static candid_status look(candid_context *c, const struct request *r, const bool *layers, int image, int max_new,
                          const struct token_list *forced, struct gaze *out, const struct observer *observer,
                          candid_error *error) {
    const int grid = c->model->clip.grid, n_layer = c->model->llama.n_layer;
    struct watch w = {.gaze = out, .max_steps = max_new, .begin = image_begin(r, image)};
    *out = (struct gaze){.n_cells = grid * grid};
    if (n_layer > (int)(sizeof w.number / sizeof *w.number)) {
        return fail(error, CANDID_ERROR_UNSUPPORTED, "a model of %d layers is more than can be watched", n_layer);
    }
    for (int l = 0; l < n_layer; l++) {
        out->n_layers += layers[l];
    }
    int *cells = malloc((size_t)out->n_cells * sizeof *cells);
    const size_t count = (size_t)max_new * (size_t)out->n_layers * (size_t)out->n_cells;
    out->values = calloc(count + 1, sizeof *out->values);
    candid_status status =
        cells && out->values ? CANDID_OK : fail_memory(error, "attention maps", count * sizeof *out->values);
    if (status == CANDID_OK) {
        grid_cells(r->spans[image].grid_h > 0 ? r->spans[image].order : IMAGE_RASTER, grid, grid, cells);
        w.cells = cells;
        w.n_prompt = (int)request_length(r);
        status = run(c, r, layers, max_new, forced, &w, observer, error);
    }
    free(cells);
    if (status != CANDID_OK) {
        gaze_free(out);
    }
    return status;
}

candid_status gaze_answer(candid_context *c, struct request *r, const bool *layers, int max_new, struct gaze *out,
                          const struct observer *observer, candid_error *error) {
    return look(c, r, layers, 0, max_new, NULL, out, observer, error);
}

candid_status gaze_tokens(candid_context *c, const struct request *r, int image, const struct token_list *tokens,
                          struct gaze *out, const struct observer *observer, candid_error *error) {
    bool *all = malloc((size_t)c->model->llama.n_layer * sizeof *all);
    if (!all) {
        return fail_memory(error, "layers", (size_t)c->model->llama.n_layer);
    }
    memset(all, true, (size_t)c->model->llama.n_layer * sizeof *all);
    const candid_status status = look(c, r, all, image, (int)tokens->count, tokens, out, observer, error);
    free(all);
    return status;
}

candid_status gaze_prompt(candid_context *c, const struct request *r, const char *layers, const char *owner, int image,
                          float **cells, const struct observer *observer, candid_error *error) {
    const int n_layer = c->model->llama.n_layer;
    bool *on = calloc((size_t)n_layer, sizeof *on);
    struct gaze gaze = {0};
    *cells = NULL;
    if (!on) {
        return fail_memory(error, "layers", (size_t)n_layer);
    }
    candid_status status = CANDID_OK;
    if (strcmp(layers, "auto") == 0) {
        for (int l = n_layer / 3; l < n_layer - n_layer / 3; l++) {
            on[l] = true;
        }
    } else if (layers_select(layers, n_layer, on, owner, error) < 0) {
        status = CANDID_ERROR_ARGUMENT;
    }
    if (status == CANDID_OK) {
        status = look(c, r, on, image, 1, NULL, &gaze, observer, error);
    }
    free(on);
    if (status != CANDID_OK) {
        return status;
    }
    if (gaze.n_layers == 0) {
        gaze_free(&gaze);
        return fail(error, CANDID_ERROR_ARGUMENT, "%s.layers: the model has none of these layers", owner);
    }
    for (int l = 1; l < gaze.n_layers; l++) { /* the first layer's cells become the mean */
        for (int i = 0; i < gaze.n_cells; i++) {
            gaze.values[i] += gaze.values[(size_t)l * (size_t)gaze.n_cells + (size_t)i];
        }
    }
    for (int i = 0; i < gaze.n_cells; i++) {
        gaze.values[i] /= (float)gaze.n_layers;
    }
    *cells = gaze.values;
    return CANDID_OK;
}
