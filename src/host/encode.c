/* candid_task_encode: a task's images through candid's own encoder, as candid_generate would see them. */
#include <stdlib.h>
#include <string.h>

#include "api/params.h"
#include "api/request.h"
#include "api/sights.h"
#include "core/status.h"
#include "host/host.h"

/* What one row sees. */
struct row_sight {
    struct image_span *spans; /* [n_images]; NULL: no image */
    float *tokens;            /* all images', one after the other */
};

struct candid_encoding {
    int n_images, n_branches, n_embd;
    struct row_sight rows[1 + MAX_BRANCHES]; /* the main row, then the branches */
    candid_tap *taps;                        /* [n_taps] */
    candid_view *views;                      /* their of_cls */
    float *of_cls;
    size_t n_taps;
};

void candid_encoding_free(candid_encoding *e) {
    if (e) {
        for (int i = 0; i <= e->n_branches; i++) {
            free(e->rows[i].spans);
            free(e->rows[i].tokens);
        }
        free(e->taps);
        free(e->views);
        free(e->of_cls);
        free(e);
    }
}

static candid_status copy_row(const candid_context *c, const struct request *r, const struct image_span *spans,
                              const float *tokens, struct row_sight *out, candid_error *error) {
    const size_t row = (size_t)c->model->llama.n_embd * sizeof(float);
    size_t n = 0;
    for (size_t i = 0; i < r->n_images; i++) {
        n += (size_t)spans[i].n_tokens;
    }
    out->spans = malloc((r->n_images + 1) * sizeof *out->spans);
    out->tokens = malloc(n * row + 1);
    if (!out->spans || !out->tokens) {
        return fail_memory(error, "visual tokens", n * row);
    }
    memcpy(out->spans, spans, r->n_images * sizeof *spans);
    c->backend->ops->download(c->backend, out->tokens, tokens, n * row);
    return CANDID_OK;
}

static candid_status copy_taps(const struct request *r, candid_encoding *e, candid_error *error) {
    const size_t n = r->n_images * (size_t)r->needs.n_vision_blocks, n_patches = n > 0 ? (size_t)r->taps[0].n : 0;
    e->taps = calloc(n + 1, sizeof *e->taps);
    e->views = calloc(n + 1, sizeof *e->views);
    e->of_cls = malloc((n * n_patches + 1) * sizeof *e->of_cls);
    if (!e->taps || !e->views || !e->of_cls) {
        return fail_memory(error, "the class token's attention", n * n_patches * sizeof *e->of_cls);
    }
    e->n_taps = n;
    for (size_t i = 0; i < n; i++) {
        float *values = e->of_cls + i * n_patches;
        memcpy(values, r->taps[i].of_cls, n_patches * sizeof *values);
        e->views[i] = (candid_view){.struct_size = sizeof(candid_view),
                                    .data = values,
                                    .n_dims = 2,
                                    .shape = {1, (int64_t)n_patches},
                                    .strides = {(int64_t)n_patches, 1}};
        e->taps[i] = (candid_tap){.struct_size = sizeof(candid_tap),
                                  .image = (int32_t)(i / (size_t)r->needs.n_vision_blocks),
                                  .block = r->taps[i].block,
                                  .of_cls = &e->views[i]};
    }
    return CANDID_OK;
}

/* r: n_images, list and needs are set. */
static candid_status encode(candid_context *c, const candid_image *const *images, const candid_generate_params *params,
                            struct request *r, candid_encoding *e, candid_error *error) {
    const struct observer observer = {.cancelled = params->should_cancel, .user_data = params->should_cancel_user_data};
    TRY(request_see(c, images, params->preprocess, r, error));
    TRY(sights_encode(c, images, r, &observer, error));
    e->n_images = (int)r->n_images;
    e->n_branches = r->list.n;
    e->n_embd = c->model->llama.n_embd;
    TRY(copy_row(c, r, r->spans, c->visual_tokens, &e->rows[0], error));
    for (int i = 0; i < r->list.n; i++) {
        if (r->list.branches[i].sight != SIGHT_NONE) {
            TRY(copy_row(c, r, r->branches[i].spans, r->branches[i].visual_tokens, &e->rows[1 + i], error));
        }
    }
    return copy_taps(r, e, error);
}

static candid_status check_call(const candid_task *task, const candid_context *c, const candid_image *const *images,
                                size_t n_images, const void *out, candid_error *error) {
    if (!task || !c || !out || n_images != (size_t)task->n_images || (n_images > 0 && !images)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_task_encode: expected a task, a context and %d images",
                    task ? task->n_images : 0);
    }
    for (size_t i = 0; i < n_images; i++) {
        if (!images[i]) {
            return fail(error, CANDID_ERROR_ARGUMENT, "candid_task_encode: image %zu is NULL", i);
        }
    }
    const struct model_facts *own = &c->model->facts, *host = &task->plugin->facts;
    if (own->n_embd != host->n_embd || own->n_vision_blocks != host->n_vision_blocks) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "candid_task_encode: expected a model with n_embd %d and %d blocks of the image encoder, found %d "
                    "and %d",
                    host->n_embd, host->n_vision_blocks, own->n_embd, own->n_vision_blocks);
    }
    return CANDID_OK;
}

candid_status candid_task_encode(const candid_task *task, candid_context *c, const candid_image *const *images,
                                 size_t n_images, const candid_generate_params *given, candid_encoding **out,
                                 candid_error *error) {
    candid_generate_params params = candid_generate_params_default();
    TRY(check_call(task, c, images, n_images, out, error));
    TRY(params_read(&params, sizeof params, given, "candid_generate_params", error));
    TRY(request_check_params(&params, error));
    TRY(model_check_vision(c->model, error));
    struct request r = {.context = c, .n_images = n_images, .needs = task->plugin->needs};
    candid_encoding *e = calloc(1, sizeof *e);
    candid_status status = e ? interventions_branches(task->plugin->config, task->request, task->n_images,
                                                      &task->plugin->log, &r.list, error)
                             : fail_memory(error, "an encoding", sizeof *e);
    if (status == CANDID_OK) {
        status = encode(c, images, &params, &r, e, error);
    }
    request_free(&r);
    if (status != CANDID_OK) {
        candid_encoding_free(e);
        return status;
    }
    *out = e;
    return CANDID_OK;
}

candid_status candid_encoding_tokens(const candid_encoding *e, int32_t branch, int32_t image, candid_span *span,
                                     const float **tokens, candid_error *error) {
    if (!e || !span || !tokens || branch < -1 || branch >= e->n_branches || image < 0 || image >= e->n_images) {
        return fail(
            error, CANDID_ERROR_ARGUMENT,
            "candid_encoding_tokens: expected a branch from -1 to %d and an image from 0 to %d, found %d and %d",
            e ? e->n_branches - 1 : -1, e ? e->n_images - 1 : -1, branch, image);
    }
    const struct row_sight *row = &e->rows[1 + branch];
    if (!row->spans) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_encoding_tokens: branch %d sees no image", branch);
    }
    const float *at = row->tokens;
    for (int i = 0; i < image; i++) {
        at += (size_t)row->spans[i].n_tokens * (size_t)e->n_embd;
    }
    const candid_span found = {.struct_size = sizeof found,
                               .kind = CANDID_SPAN_IMAGE,
                               .n_tokens = row->spans[image].n_tokens,
                               .grid_h = row->spans[image].grid_h,
                               .grid_w = row->spans[image].grid_w};
    TRY(params_write(span, &found, sizeof found, "candid_span", error));
    *tokens = at;
    return CANDID_OK;
}

const candid_tap *candid_encoding_taps(const candid_encoding *e, size_t *n_taps) {
    if (!e || !n_taps) {
        return NULL;
    }
    *n_taps = e->n_taps;
    return e->taps;
}
