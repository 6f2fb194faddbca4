/* Visual tokens of the main row and of its branches. */
#include "api/sights.h"

#include <stdlib.h>
#include <string.h>

#include "api/gaze.h"
#include "core/status.h"
#include "vision/damro.h"
#include "vision/relevance.h"

static size_t row_size(const candid_context *c) {
    return (size_t)c->model->llama.n_embd;
}

/* ---- sizes --------------------------------------------------------------------------------------- */

/* DAMRO: the chosen patches of the first view, and of LLaVA-NeXT a newline vector behind them. */
static struct image_span chosen_span(const candid_context *c, const struct visual_plan *view, int n) {
    const int grid = c->model->clip.grid, n_patches = grid * grid;
    const int newline = visual_newline_token(view, &c->model->clip) >= 0;
    return (struct image_span){.n_tokens = (n < n_patches ? n : n_patches) + newline};
}

static bool is_squashed(const struct branch *b) {
    return b->sight == SIGHT_MASKED && strcmp(setting_string(&b->settings, "geometry"), "squash") == 0;
}

/* The file of AGLA's map. */
static candid_status map_path(const struct branch *b, char path[4096], candid_error *error) {
    return setting_path(&b->settings, b->path, path, 4096)
               ? CANDID_OK
               : fail(error, CANDID_ERROR_ARGUMENT, "agla.file: the name is too long");
}

/* A map that cannot be read is known before anything is encoded. */
static candid_status check_map(const struct branch *b, candid_error *error) {
    char path[4096];
    struct cell_map map;
    TRY(map_path(b, path, error));
    TRY(relevance_load(path, &map, error));
    free((float *)(uintptr_t)map.values);
    return CANDID_OK;
}

candid_status sights_plan(const candid_context *c, struct request *r, int i, candid_error *error) {
    const struct branch *b = &r->list.branches[i];
    struct request_branch *to = &r->branches[i];
    to->spans = calloc(r->n_images + 1, sizeof *to->spans);
    to->views = calloc(r->n_images + 1, sizeof *to->views);
    if (!to->spans || !to->views) {
        return fail_memory(error, "a branch", (r->n_images + 1) * (sizeof *to->spans + sizeof *to->views));
    }
    if (b->path) {
        TRY(check_map(b, error));
    }
    for (size_t k = 0; k < r->n_images; k++) {
        to->spans[k] = r->spans[k];
        to->views[k] = r->views[k];
        if (b->sight == SIGHT_CHOSEN) {
            to->spans[k] = chosen_span(c, &r->views[k], b->n_chosen);
        } else if (is_squashed(b)) {
            TRY(visual_plan_make(&c->model->clip, r->views[k].mode, RELEVANCE_SIDE, RELEVANCE_SIDE, &to->views[k],
                                 error));
            to->spans[k] = to->views[k].span;
            to->spans[k].order = r->spans[k].order;
        }
    }
    return CANDID_OK;
}

static size_t count_tokens(const struct image_span *spans, size_t n_images) {
    size_t n = 0;
    for (size_t i = 0; i < n_images; i++) {
        n += (size_t)spans[i].n_tokens;
    }
    return n;
}

/* ---- memory -------------------------------------------------------------------------------------- */

candid_status sights_make_room(candid_context *c, size_t n_tokens, candid_error *error) {
    const struct candid_model *m = c->model;
    if (!c->visual) {
        TRY(visual_create(&m->clip, m->llama.n_embd, c->backend, &c->visual, error));
    }
    if (n_tokens > c->visual_capacity) {
        c->backend->ops->release(c->backend, c->visual_tokens);
        c->visual_tokens = NULL;
        c->visual_capacity = 0;
        void *memory;
        TRY(c->backend->ops->alloc(c->backend, n_tokens * row_size(c) * sizeof(float), &memory, error));
        c->visual_tokens = memory;
        c->visual_capacity = n_tokens;
    }
    return CANDID_OK;
}

static candid_status make_taps(const candid_context *c, struct request *r, candid_error *error) {
    const size_t n_patches = (size_t)model_image_tokens(c->model), n = r->n_images * (size_t)r->needs.n_vision_blocks;
    r->taps = calloc(n + 1, sizeof *r->taps);
    r->of_cls = calloc(n * n_patches + 1, sizeof *r->of_cls);
    if (!r->taps || !r->of_cls) {
        return fail_memory(error, "the class token's attention", n * n_patches * sizeof *r->of_cls);
    }
    for (size_t i = 0; i < n; i++) {
        r->taps[i] = (struct vision_tap){.block = r->needs.vision_blocks[i % (size_t)r->needs.n_vision_blocks],
                                         .n = (int)n_patches,
                                         .of_cls = r->of_cls + i * n_patches};
    }
    return CANDID_OK;
}

/* Memory for what a branch sees, where that is not what the main row sees. */
static candid_status make_tokens(candid_context *c, struct request *r, int i, candid_error *error) {
    struct request_branch *b = &r->branches[i];
    const enum branch_sight sight = r->list.branches[i].sight;
    if (sight == SIGHT_SAME) {
        b->visual_tokens = c->visual_tokens;
    } else if (sight != SIGHT_NONE) {
        void *memory;
        const size_t n = count_tokens(b->spans, r->n_images);
        TRY(c->backend->ops->alloc(c->backend, n * row_size(c) * sizeof(float), &memory, error));
        b->visual_tokens = memory;
        b->own_tokens = true;
    }
    return CANDID_OK;
}

/* ---- one pass through the encoder ---------------------------------------------------------------- */

/* What else the pass over one image yields. */
struct extras {
    struct clip_taps taps;
    struct clip_probe probes[VISUAL_PROBES];
    int n_probes;
    float *wide; /* (VISUAL_PROBES, patches) what the probes fill; owned */
    struct visual_twin twin;
    bool twinned;
};

static int block_of(const candid_context *c, int block) {
    return block < 0 ? c->model->facts.n_vision_blocks + block : block;
}

/* Asks for what the branches need of image `image`, whose tokens in branch b begin at offsets[b]. */
static candid_status ask(candid_context *c, struct request *r, size_t image, const size_t *offsets, struct extras *x,
                         candid_error *error) {
    const size_t n_patches = (size_t)model_image_tokens(c->model);
    const int n_taps = r->needs.n_vision_blocks;
    *x = (struct extras){
        .taps = {r->needs.vision_blocks, n_taps, n_taps ? r->taps[image * (size_t)n_taps].of_cls : NULL}};
    x->wide = malloc(VISUAL_PROBES * n_patches * sizeof *x->wide);
    if (!x->wide) {
        return fail_memory(error, "the class token's attention", VISUAL_PROBES * n_patches * sizeof *x->wide);
    }
    for (int i = 0; i < r->list.n; i++) {
        const struct branch *b = &r->list.branches[i];
        const int block = block_of(c, b->block);
        if (b->sight != SIGHT_CHOSEN && b->sight != SIGHT_SCALED) {
            continue;
        }
        if (block < 0 || block >= c->model->facts.n_vision_blocks) {
            return fail(error, CANDID_ERROR_ARGUMENT,
                        "%s: expected a block of the image encoder from 0 to %d, or negative from the end, found %d",
                        b->owner->name, c->model->facts.n_vision_blocks - 1, b->block);
        }
        if (b->sight == SIGHT_CHOSEN) {
            float *out = x->wide + (size_t)x->n_probes * n_patches;
            x->probes[x->n_probes++] = (struct clip_probe){CLIP_PROBE_CLS_WIDE, block, out};
        } else {
            x->twinned = true;
            x->twin = (struct visual_twin){(enum causalmm_mode)b->map_edit, block, b->seed + image,
                                           r->branches[i].visual_tokens + offsets[i] * row_size(c)};
        }
    }
    visual_tap(c->visual, n_taps ? &x->taps : NULL);
    visual_counterfactual(c->visual, x->twinned ? &x->twin : NULL);
    return visual_watch(c->visual, x->probes, x->n_probes, error);
}

static void stop_asking(candid_context *c, struct extras *x) {
    candid_error unused;
    visual_tap(c->visual, NULL);
    visual_counterfactual(c->visual, NULL);
    visual_watch(c->visual, NULL, 0, &unused);
    free(x->wide);
}

/* DAMRO's branch: the patches that the class token attends to most, highest first. */
static candid_status choose(candid_context *c, struct request *r, int i, size_t image, const float *attention,
                            const float *tokens, size_t offset, candid_error *error) {
    const int n_patches = model_image_tokens(c->model), n = r->branches[i].spans[image].n_tokens;
    int *index = malloc((size_t)n * sizeof *index);
    if (!index) {
        return fail_memory(error, "chosen tokens", (size_t)n * sizeof *index);
    }
    const int newline = visual_newline_token(&r->views[image], &c->model->clip);
    const int chosen = damro_select(attention, n_patches, newline >= 0 ? n - 1 : n, index);
    if (newline >= 0) {
        index[chosen] = newline;
    }
    visual_gather(c->backend, tokens, index, n, c->model->llama.n_embd,
                  r->branches[i].visual_tokens + offset * row_size(c));
    free(index);
    return CANDID_OK;
}

/* Image number `image`: the main row's tokens and what else this pass gives. */
static candid_status encode_image(candid_context *c, const candid_image *const *images, struct request *r, size_t image,
                                  float *tokens, const size_t *offsets, const struct observer *observer,
                                  candid_error *error) {
    struct extras x;
    candid_status status = ask(c, r, image, offsets, &x, error);
    if (status == CANDID_OK) {
        status = visual_encode(c->visual, images[image], &r->views[image], tokens, observer, &r->load_ms, &r->encode_ms,
                               error);
    }
    for (int i = 0, probe = 0; status == CANDID_OK && i < r->list.n; i++) {
        if (r->list.branches[i].sight == SIGHT_CHOSEN) {
            status = choose(c, r, i, image, x.probes[probe++].out, tokens, offsets[i], error);
        }
    }
    stop_asking(c, &x);
    return status;
}

/* ---- passes of their own ------------------------------------------------------------------------- */

static candid_status encode_noised(candid_context *c, const candid_image *image, struct request *r, int i, size_t k,
                                   float *tokens, const struct observer *observer, candid_error *error) {
    const struct noise noise = {.step = r->list.branches[i].noise_step, .seed = r->list.branches[i].seed + k};
    visual_noise(c->visual, &noise);
    const candid_status status =
        visual_encode(c->visual, image, &r->branches[i].views[k], tokens, observer, &r->load_ms, &r->encode_ms, error);
    visual_noise(c->visual, NULL);
    return status;
}

/* AGLA's map of an image: from its file, or what the question's last token attends to. *values: owned by the caller. */
static candid_status relevance_of(candid_context *c, const candid_image *image, struct request *r, int i, size_t k,
                                  struct cell_map *map, struct view_map *view, float **values,
                                  const struct observer *observer, candid_error *error) {
    const struct branch *b = &r->list.branches[i];
    if (b->path) {
        char path[4096];
        TRY(map_path(b, path, error));
        TRY(relevance_load(path, map, error));
        *values = (float *)(uintptr_t)map->values;
        return CANDID_OK;
    }
    const int grid = c->model->clip.grid;
    TRY(gaze_prompt(c, r, setting_string(&b->settings, "layers"), "agla", (int)k, values, observer, error));
    *view = view_map_make(&c->model->clip, &r->views[k], image->width, image->height);
    *map = (struct cell_map){*values, grid, grid, view};
    return CANDID_OK;
}

static candid_status encode_masked(candid_context *c, const candid_image *image, struct request *r, int i, size_t k,
                                   float *tokens, const struct observer *observer, candid_error *error) {
    const struct branch *b = &r->list.branches[i];
    struct cell_map map;
    struct view_map view;
    float *values = NULL;
    candid_image *masked = NULL;
    candid_status status = relevance_of(c, image, r, i, k, &map, &view, &values, observer, error);
    if (status == CANDID_OK) {
        status = relevance_image(image, &map, is_squashed(b) ? RELEVANCE_SQUASH : RELEVANCE_NATIVE,
                                 (double)setting_float(&b->settings, "keep"), &masked, error);
    }
    free(values);
    if (status == CANDID_OK) {
        status = visual_encode(c->visual, masked, &r->branches[i].views[k], tokens, observer, &r->load_ms,
                               &r->encode_ms, error);
    }
    candid_image_free(masked);
    return status;
}

/* What needs the images in another form. */
static candid_status encode_again(candid_context *c, const candid_image *const *images, struct request *r, int i,
                                  const struct observer *observer, candid_error *error) {
    const enum branch_sight sight = r->list.branches[i].sight;
    float *tokens = r->branches[i].visual_tokens;
    for (size_t k = 0; k < r->n_images && (sight == SIGHT_NOISE || sight == SIGHT_MASKED); k++) {
        TRY((sight == SIGHT_NOISE ? encode_noised : encode_masked)(c, images[k], r, i, k, tokens, observer, error));
        tokens += (size_t)r->branches[i].spans[k].n_tokens * row_size(c);
    }
    return CANDID_OK;
}

candid_status sights_encode(candid_context *c, const candid_image *const *images, struct request *r,
                            const struct observer *observer, candid_error *error) {
    const size_t n_tokens = count_tokens(r->spans, r->n_images);
    size_t offsets[MAX_BRANCHES] = {0}; /* tokens of earlier images in each branch */
    TRY(make_taps(c, r, error));
    if (n_tokens == 0) {
        return CANDID_OK;
    }
    TRY(sights_make_room(c, n_tokens, error));
    for (int i = 0; i < r->list.n; i++) {
        TRY(make_tokens(c, r, i, error));
    }
    float *tokens = c->visual_tokens;
    for (size_t k = 0; k < r->n_images; k++) {
        TRY(encode_image(c, images, r, k, tokens, offsets, observer, error));
        tokens += (size_t)r->spans[k].n_tokens * row_size(c);
        for (int i = 0; i < r->list.n; i++) {
            offsets[i] += (size_t)r->branches[i].spans[k].n_tokens;
        }
    }
    for (int i = 0; i < r->list.n; i++) {
        TRY(encode_again(c, images, r, i, observer, error));
    }
    return CANDID_OK;
}

/* AGLA's map is what the question attends to, unless it comes from a file. */
static bool depends_on_question(const struct branch *b) {
    return b->sight == SIGHT_MASKED && !b->path;
}

/* The visual tokens that branch b has in another request about the same images, or NULL. Branches are told by what they
 * are: a question may leave some out (LQCD), so that the numbers of the others differ. */
static float *tokens_of_branch(const struct request *r, const struct branch *b) {
    for (int i = 0; i < r->list.n; i++) {
        if (r->list.branches[i].owner == b->owner && strcmp(r->list.branches[i].name, b->name) == 0) {
            return r->branches[i].visual_tokens;
        }
    }
    return NULL;
}

candid_status sights_share(candid_context *c, const candid_image *const *images, struct request *r,
                           const struct request *first, const struct observer *observer, candid_error *error) {
    TRY(make_taps(c, r, error));
    const size_t n_taps = r->n_images * (size_t)r->needs.n_vision_blocks * (size_t)model_image_tokens(c->model);
    memcpy(r->of_cls, first->of_cls, n_taps * sizeof *r->of_cls);
    for (int i = 0; i < r->list.n && count_tokens(r->spans, r->n_images) > 0; i++) {
        const struct branch *b = &r->list.branches[i];
        if (depends_on_question(b)) {
            TRY(make_tokens(c, r, i, error));
            TRY(encode_again(c, images, r, i, observer, error));
        } else {
            r->branches[i].visual_tokens = b->sight == SIGHT_SAME ? c->visual_tokens : tokens_of_branch(first, b);
        }
    }
    return CANDID_OK;
}
