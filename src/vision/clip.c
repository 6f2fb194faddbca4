/*
 * CLIP image encoder and projector. Differs on purpose from what other C engines do for LLaVA-1.5: the class token
 * comes first (so each patch meets its own position embedding) and is dropped at the end, every wanted layer runs, and
 * GELU is exact.
 */
#include "vision/clip.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"

struct clip {
    const struct clip_weights *w;
    struct backend *b;
    int n_embd_lm;
    int n_tokens; /* patches + 1 */

    /* device */
    float *patches;                       /* (n_patches, 3*patch*patch) */
    float *x;                             /* (n_tokens, n_embd) residual stream, row 0 = CLS */
    float *normed;                        /* (n_tokens, n_embd) */
    float *q, *k, *v, *heads, *projected; /* (n_tokens, n_embd) */
    float *mlp;                           /* (n_tokens, n_ff) */
    float *hidden;                        /* (n_patches, mm_0.n_out) between the projector's layers */
    float *position; /* (n_tokens, n_embd) position embeddings, with the class embedding added to row 0 */

    /* host */
    float *columns;  /* (n_patches, 3*patch*patch) */
    float *observed; /* for observers, grown on demand */
    size_t observed_count;
    const struct clip_taps *taps; /* or NULL */
    const struct clip_probe *probes;
    int n_probes;
};

static candid_status device_floats(struct clip *c, int rows, int columns, float **out, candid_error *error) {
    void *memory = NULL;
    TRY(c->b->ops->alloc(c->b, (size_t)rows * (size_t)columns * sizeof(float), &memory, error));
    *out = memory;
    return CANDID_OK;
}

candid_status clip_create(const struct clip_weights *w, int n_embd_lm, struct backend *backend, struct clip **out,
                          candid_error *error) {
    struct clip *c = calloc(1, sizeof *c);
    if (!c) {
        return fail_memory(error, "the image encoder", sizeof *c);
    }
    c->w = w;
    c->b = backend;
    c->n_embd_lm = n_embd_lm;
    const int n_patches = w->grid * w->grid, patch_values = 3 * w->patch_size * w->patch_size;
    const int n = c->n_tokens = n_patches + 1;
    candid_status status;
    TRY_GOTO(device_floats(c, n_patches, patch_values, &c->patches, error), status, failed);
    TRY_GOTO(device_floats(c, n, w->n_embd, &c->x, error), status, failed);
    TRY_GOTO(device_floats(c, n, w->n_embd, &c->normed, error), status, failed);
    TRY_GOTO(device_floats(c, n, w->n_embd, &c->q, error), status, failed);
    TRY_GOTO(device_floats(c, n, w->n_embd, &c->k, error), status, failed);
    TRY_GOTO(device_floats(c, n, w->n_embd, &c->v, error), status, failed);
    TRY_GOTO(device_floats(c, n, w->n_embd, &c->heads, error), status, failed);
    TRY_GOTO(device_floats(c, n, w->n_embd, &c->projected, error), status, failed);
    TRY_GOTO(device_floats(c, n, w->n_ff, &c->mlp, error), status, failed);
    TRY_GOTO(device_floats(c, n_patches, w->mm_0.n_out, &c->hidden, error), status, failed);
    TRY_GOTO(device_floats(c, n, w->n_embd, &c->position, error), status, failed);

    const size_t columns = (size_t)n_patches * (size_t)patch_values;
    c->columns = malloc(columns * sizeof *c->columns);
    float *position = malloc((size_t)n * (size_t)w->n_embd * sizeof *position);
    if (!c->columns || !position) {
        free(position);
        status = fail_memory(error, "image patches", columns * sizeof *c->columns);
        goto failed;
    }
    memcpy(position, w->position_embd, (size_t)n * (size_t)w->n_embd * sizeof *position);
    for (int i = 0; i < w->n_embd; i++) {
        position[i] += w->class_embd[i];
    }
    c->b->ops->upload(c->b, c->position, position, (size_t)n * (size_t)w->n_embd * sizeof *position);
    free(position);
    *out = c;
    return CANDID_OK;
failed:
    clip_free(c);
    return status;
}

void clip_free(struct clip *c) {
    if (!c) {
        return;
    }
    float *device[] = {c->patches, c->x,         c->normed, c->q,      c->k,       c->v,
                       c->heads,   c->projected, c->mlp,    c->hidden, c->position};
    for (size_t i = 0; i < sizeof device / sizeof *device; i++) {
        c->b->ops->release(c->b, device[i]);
    }
    free(c->columns);
    free(c->observed);
    free(c);
}

static candid_status observed_room(struct clip *c, size_t count, candid_error *error) {
    if (count > c->observed_count) {
        float *grown = realloc(c->observed, count * sizeof *grown);
        if (!grown) {
            return fail_memory(error, "an observed activation", count * sizeof *grown);
        }
        c->observed = grown;
        c->observed_count = count;
    }
    return CANDID_OK;
}

static candid_status at_site(struct clip *c, const struct observer *o, enum site site, int layer, const float *device,
                             int n_rows, int n_cols, candid_error *error) {
    if (!observes(o, site)) {
        return CANDID_OK;
    }
    const size_t count = (size_t)n_rows * (size_t)n_cols;
    TRY(observed_room(c, count, error));
    c->b->ops->download(c->b, c->observed, device, count * sizeof(float));
    o->see(o->user_data, site, layer, c->observed, n_rows, n_cols);
    return CANDID_OK;
}

/* Non-overlapping patches as rows, values in the order channel, y, x of the convolution weight. */
static void cut_patches(const struct clip *c, const float *pixels) {
    const int size = c->w->image_size, p = c->w->patch_size, grid = c->w->grid;
    float *to = c->columns;
    for (int gy = 0; gy < grid; gy++) {
        for (int gx = 0; gx < grid; gx++) {
            for (int channel = 0; channel < 3; channel++) {
                for (int y = 0; y < p; y++) {
                    const float *from = pixels + ((size_t)channel * (size_t)size + (size_t)(gy * p + y)) * (size_t)size;
                    memcpy(to, from + (size_t)gx * (size_t)p, (size_t)p * sizeof *to);
                    to += p;
                }
            }
        }
    }
}

static void activate(struct clip *c, float *x, size_t n) {
    switch (c->w->activation) {
    case ACTIVATION_GELU_ERF: c->b->ops->gelu(c->b, x, n, GELU_ERF); break;
    case ACTIVATION_GELU_QUICK: c->b->ops->gelu(c->b, x, n, GELU_QUICK); break;
    case ACTIVATION_SILU: c->b->ops->silu(c->b, x, n); break;
    }
}

void clip_tap(struct clip *c, const struct clip_taps *taps) {
    c->taps = taps;
}

void clip_watch(struct clip *c, const struct clip_probe *probes, int n) {
    c->probes = probes;
    c->n_probes = n;
}

/* The class token's attention to the patches as n_head heads see it, summed over them. */
static candid_status cls_attention(struct clip *c, int n_head, float *of_cls, candid_error *error) {
    const size_t n = (size_t)c->n_tokens;
    const int head_dim = c->w->n_embd / n_head;
    TRY(observed_room(c, (size_t)n_head * n, error));
    TRY(c->b->ops->attend_row(c->b, c->q, c->k, c->observed, c->n_tokens, n_head, head_dim,
                              1.0f / sqrtf((float)head_dim), error));
    memset(of_cls, 0, (n - 1) * sizeof *of_cls);
    for (int head = 0; head < n_head; head++) {
        for (size_t i = 0; i + 1 < n; i++) {
            of_cls[i] += c->observed[(size_t)head * n + i + 1];
        }
    }
    return CANDID_OK;
}

/* A second attention with its own, discarded result: the one that counts may be computed by other loops. */
static candid_status attention_map(struct clip *c, float *map, candid_error *error) {
    const struct clip_weights *w = c->w;
    return c->b->ops->attend_full(c->b, c->q, c->k, c->v, c->projected, c->n_tokens, w->n_head, w->head_dim,
                                  1.0f / sqrtf((float)w->head_dim), map, error);
}

/* What somebody watches of block l. */
static candid_status fill_taps(struct clip *c, int l, candid_error *error) {
    for (int t = 0; c->taps && t < c->taps->n; t++) {
        if (c->taps->blocks[t] == l) {
            TRY(cls_attention(c, c->w->n_head, c->taps->of_cls + (size_t)t * (size_t)(c->n_tokens - 1), error));
        }
    }
    for (int p = 0; p < c->n_probes; p++) {
        const struct clip_probe *probe = &c->probes[p];
        if (probe->block != l) {
            continue;
        }
        switch (probe->kind) {
        case CLIP_PROBE_CLS: TRY(cls_attention(c, c->w->n_head, probe->out, error)); break;
        case CLIP_PROBE_CLS_WIDE: TRY(cls_attention(c, 1, probe->out, error)); break;
        case CLIP_PROBE_MAP: TRY(attention_map(c, probe->out, error)); break;
        }
    }
    return CANDID_OK;
}

/* Pre-LN transformer block l on all tokens. */
static candid_status run_layer(struct clip *c, int l, const struct observer *o, candid_error *error) {
    const struct clip_weights *w = c->w;
    const struct clip_layer *layer = &w->layers[l];
    struct backend *b = c->b;
    const struct backend_ops *op = b->ops;
    const int n = c->n_tokens, n_embd = w->n_embd;
    const size_t n_x = (size_t)n * (size_t)n_embd;

    /* h = LN1(x);  q, k, v = W h + b */
    op->layer_norm(b, c->normed, c->x, layer->ln1_w, layer->ln1_b, n, n_embd, w->eps);
    struct linear_job qkv[] = {{&layer->q, layer->q_b, c->q, false},
                               {&layer->k, layer->k_b, c->k, false},
                               {&layer->v, layer->v_b, c->v, false}};
    TRY(op->linear(b, c->normed, n, n_embd, qkv, 3, error));

    /* site: vision.attention */
    TRY(fill_taps(c, l, error));
    float *probs = NULL;
    if (observes(o, SITE_VISION_ATTENTION)) {
        TRY(observed_room(c, (size_t)n * (size_t)w->n_head * (size_t)n, error));
        probs = c->observed;
    }
    TRY(op->attend_full(b, c->q, c->k, c->v, c->heads, n, w->n_head, w->head_dim, 1.0f / sqrtf((float)w->head_dim),
                        probs, error));
    if (probs) {
        o->see(o->user_data, SITE_VISION_ATTENTION, l, probs, n * w->n_head, n);
    }

    /* x += Wout heads + b */
    struct linear_job out = {&layer->out, layer->out_b, c->projected, false};
    TRY(op->linear(b, c->heads, n, n_embd, &out, 1, error));
    op->add(b, c->x, c->projected, n_x);

    /* x += W2 act(W1 LN2(x) + b1) + b2 */
    op->layer_norm(b, c->normed, c->x, layer->ln2_w, layer->ln2_b, n, n_embd, w->eps);
    struct linear_job fc1 = {&layer->fc1, layer->fc1_b, c->mlp, false};
    TRY(op->linear(b, c->normed, n, n_embd, &fc1, 1, error));
    activate(c, c->mlp, (size_t)n * (size_t)w->n_ff);
    struct linear_job fc2 = {&layer->fc2, layer->fc2_b, c->projected, false};
    TRY(op->linear(b, c->mlp, n, w->n_ff, &fc2, 1, error));
    op->add(b, c->x, c->projected, n_x);
    return at_site(c, o, SITE_VISION_HIDDEN, l, c->x, n, n_embd, error);
}

/* Patch features (n_patches, n_embd) to visual tokens (n_patches, n_embd_lm). */
static candid_status project(struct clip *c, const float *features, float *tokens, candid_error *error) {
    const struct clip_weights *w = c->w;
    struct backend *b = c->b;
    const struct backend_ops *op = b->ops;
    const int n = c->n_tokens - 1;
    if (w->projector == PROJECTOR_LINEAR) {
        struct linear_job only = {&w->mm_0, w->mm_0_b, tokens, false};
        return op->linear(b, features, n, w->n_embd, &only, 1, error);
    }
    struct linear_job first = {&w->mm_0, w->mm_0_b, c->hidden, false};
    TRY(op->linear(b, features, n, w->n_embd, &first, 1, error));
    if (w->projector == PROJECTOR_MLP_NORM) {
        op->layer_norm(b, c->hidden, c->hidden, w->mm_ln1_w, w->mm_ln1_b, n, w->mm_0.n_out, w->eps);
    }
    op->gelu(b, c->hidden, (size_t)n * (size_t)w->mm_0.n_out, GELU_ERF);
    struct linear_job second = {&w->mm_2, w->mm_2_b, tokens, false};
    TRY(op->linear(b, c->hidden, n, w->mm_0.n_out, &second, 1, error));
    if (w->projector == PROJECTOR_MLP_NORM) {
        op->layer_norm(b, tokens, tokens, w->mm_ln4_w, w->mm_ln4_b, n, c->n_embd_lm, w->eps);
    }
    return CANDID_OK;
}

candid_status clip_encode(struct clip *c, const float *pixels, float *tokens, const struct observer *o,
                          candid_error *error) {
    const struct clip_weights *w = c->w;
    struct backend *b = c->b;
    const struct backend_ops *op = b->ops;
    const int n_patches = c->n_tokens - 1, patch_values = 3 * w->patch_size * w->patch_size;
    const size_t embd_bytes = (size_t)w->n_embd * sizeof(float);

    /* site: image */
    if (observes(o, SITE_IMAGE)) {
        o->see(o->user_data, SITE_IMAGE, -1, pixels, 3 * w->image_size, w->image_size);
    }

    /* x = [class; patches] + positions, then LN */
    cut_patches(c, pixels);
    op->upload(b, c->patches, c->columns, (size_t)n_patches * (size_t)patch_values * sizeof(float));
    struct linear_job embed = {&w->patch_embd, w->patch_bias, c->projected + w->n_embd, false};
    TRY(op->linear(b, c->patches, n_patches, patch_values, &embed, 1, error));
    op->copy(b, c->x, c->position, (size_t)c->n_tokens * embd_bytes);
    op->add(b, c->x + w->n_embd, c->projected + w->n_embd, (size_t)n_patches * (size_t)w->n_embd);
    op->layer_norm(b, c->x, c->x, w->pre_ln_w, w->pre_ln_b, c->n_tokens, w->n_embd, w->eps);
    TRY(at_site(c, o, SITE_VISION_HIDDEN, -1, c->x, c->n_tokens, w->n_embd, error));

    for (int l = 0; l < w->n_run; l++) {
        if (observer_cancels(o)) {
            return fail(error, CANDID_ERROR_CANCELLED, "cancelled in image encoder layer %d", l);
        }
        TRY(run_layer(c, l, o, error));
    }

    TRY(project(c, c->x + w->n_embd, tokens, error)); /* row 0, the class token, is dropped */
    TRY(op->finish(b, error));
    return at_site(c, o, SITE_VISUAL_TOKENS, -1, tokens, n_patches, c->n_embd_lm, error);
}

candid_status clip_project_scaled(struct clip *c, const float *weights, float *tokens, candid_error *error) {
    const int n = c->n_tokens - 1, n_embd = c->w->n_embd;
    c->b->ops->copy(c->b, c->normed, c->x + n_embd, (size_t)n * (size_t)n_embd * sizeof(float));
    c->b->ops->scale_heads(c->b, c->normed, 1, n, n_embd, weights); /* one row whose heads are the patches */
    return project(c, c->normed, tokens, error);
}
