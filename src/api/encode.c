/* candid_encode_image: what the image encoder makes of an image. */
#include <string.h>

#include "api/params.h"
#include "api/request.h"
#include "api/sights.h"
#include "core/status.h"

/* Follows the views through the encoder. */
struct views {
    const candid_generate_params *params;
    int last;   /* block whose output the projector gets; -1: the embeddings */
    float *out; /* where the next view's patches go */
};

static bool cancelled(void *user_data) {
    const struct views *v = user_data;
    return v->params->should_cancel && v->params->should_cancel(v->params->should_cancel_user_data);
}

static void see(void *user_data, enum site site, int layer, const float *data, int n_rows, int n_cols) {
    struct views *v = user_data;
    if (layer == v->last) { /* row 0 is the class token */
        const size_t count = (size_t)(n_rows - 1) * (size_t)n_cols;
        memcpy(v->out, data + n_cols, count * sizeof *v->out);
        v->out += count;
    }
}

static candid_status encode(candid_context *c, const candid_image *image, const struct visual_plan *plan,
                            candid_features features, const candid_generate_params *params, float *out,
                            candid_error *error) {
    const size_t n = (size_t)plan->span.n_tokens;
    const bool before = features == CANDID_FEATURES_ENCODER;
    struct views views = {.params = params, .last = c->model->clip.n_run - 1, .out = out};
    const struct observer observer = {
        .mask = before ? 1u << SITE_VISION_HIDDEN : 0u, .see = see, .cancelled = cancelled, .user_data = &views};
    double load_ms = 0, encode_ms = 0;
    TRY(sights_make_room(c, n, error));
    TRY(visual_encode(c->visual, image, plan, c->visual_tokens, &observer, &load_ms, &encode_ms, error));
    if (!before) {
        c->backend->ops->download(c->backend, out, c->visual_tokens, n * (size_t)c->model->llama.n_embd * sizeof *out);
    }
    return CANDID_OK;
}

candid_status candid_encode_image(candid_context *c, const candid_image *image, candid_features features,
                                  const candid_generate_params *given, float *out, size_t capacity, int *n_rows,
                                  int *n_embd, candid_error *error) {
    if (!c || !image || !n_rows || !n_embd || (capacity > 0 && !out)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_encode_image: %s is NULL",
                    !c        ? "context"
                    : !image  ? "image"
                    : !n_rows ? "n_rows"
                    : !n_embd ? "n_embd"
                              : "out");
    }
    if (features != CANDID_FEATURES_PROJECTED && features != CANDID_FEATURES_ENCODER) {
        return fail(error, CANDID_ERROR_ARGUMENT, "features: expected 0 (projected) or 1 (encoder), found %d",
                    (int)features);
    }
    candid_generate_params params = candid_generate_params_default();
    TRY(params_read(&params, sizeof params, given, "candid_generate_params", error));
    TRY(request_check_params(&params, error));
    TRY(model_check_vision(c->model, error));
    struct visual_plan plan;
    TRY(visual_plan_make(&c->model->clip, params.preprocess, image->width, image->height, &plan, error));
    const int n_views = 1 + plan.tile_rows * plan.tile_cols;
    *n_rows = features == CANDID_FEATURES_ENCODER ? n_views * model_image_tokens(c->model) : plan.span.n_tokens;
    *n_embd = features == CANDID_FEATURES_ENCODER ? c->model->clip.n_embd : c->model->llama.n_embd;
    if (capacity == 0) {
        return CANDID_OK;
    }
    const size_t needed = (size_t)*n_rows * (size_t)*n_embd;
    if (capacity < needed) {
        return fail(error, CANDID_ERROR_ARGUMENT, "capacity: expected %zu floats or more (%d rows of %d), found %zu",
                    needed, *n_rows, *n_embd, capacity);
    }
    return encode(c, image, &plan, features, &params, out, error);
}
