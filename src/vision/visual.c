/* Views of an image and the order of their tokens. */
#include "vision/visual.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/status.h"

struct visual {
    const struct clip_weights *w;
    struct backend *b;
    int n_embd_lm;
    struct clip *clip;
    float *pixels;  /* host (3, image_size, image_size) */
    float *view;    /* device (grid*grid, n_embd_lm): tokens of one tile; NULL without anyres */
    float *newline; /* device (n_embd_lm); NULL without anyres */

    struct clip_probe probes[VISUAL_PROBES + 1]; /* of the first view; room for the twin's behind */
    int n_probes;
    const struct noise *noise;      /* or NULL */
    const struct visual_twin *twin; /* or NULL */
    float *map;                     /* host (tokens, n_head, tokens): attention for the twin, made on demand */
    float *weights;                 /* host (patches), with the map */
    int n_seen;                     /* views of this image so far */
};

/* ---- planning ---- */

/* select_best_resolution: the one that keeps most pixels of the image, of those the one that wastes fewest. */
static void best_resolution(const struct clip_weights *w, int width, int height, int *best_h, int *best_w) {
    int64_t most = 0, least_waste = INT64_MAX;
    *best_h = w->pinpoints[0][0];
    *best_w = w->pinpoints[0][1];
    for (int i = 0; i < w->n_pinpoints; i++) {
        const int h = w->pinpoints[i][0], wide = w->pinpoints[i][1];
        const double scale = fmin((double)wide / width, (double)h / height);
        const int64_t scaled = (int64_t)(width * scale) * (int64_t)(height * scale);
        const int64_t pixels = (int64_t)width * height, effective = scaled < pixels ? scaled : pixels;
        const int64_t waste = (int64_t)h * wide - effective;
        if (effective > most || (effective == most && waste < least_waste)) {
            most = effective;
            least_waste = waste;
            *best_h = h;
            *best_w = wide;
        }
    }
}

/* int(round(x, 7)) of Python. */
static int floor_rounded(double x) {
    return (int)(nearbyint(x * 1e7) / 1e7);
}

static void plan_tiles(const struct clip_weights *w, int width, int height, struct visual_plan *p) {
    int target_h = 0, target_w = 0;
    best_resolution(w, width, height, &target_h, &target_w);
    p->tile_rows = target_h / w->image_size;
    p->tile_cols = target_w / w->image_size;

    /* get_patch_output_size: as large as fits, aspect kept; centred on black */
    const double scale_w = (double)target_w / width, scale_h = (double)target_h / height;
    if (scale_w < scale_h) {
        p->width = target_w;
        p->height = (int)fmin(ceil(height * scale_w), target_h);
    } else {
        p->height = target_h;
        p->width = (int)fmin(ceil(width * scale_h), target_w);
    }
    p->left = (target_w - p->width) / 2;
    p->top = (target_h - p->height) / 2;

    /* unpad_image: the tokens that lie in the padding go */
    const int all_rows = p->tile_rows * w->grid, all_cols = p->tile_cols * w->grid;
    if ((double)width / height > (double)all_cols / all_rows) {
        const int kept = floor_rounded(height * ((double)all_cols / width));
        p->first_row = (all_rows - kept) / 2;
    } else {
        const int kept = floor_rounded(width * ((double)all_rows / height));
        p->first_col = (all_cols - kept) / 2;
    }
    p->rows = all_rows - 2 * p->first_row;
    p->cols = all_cols - 2 * p->first_col;
    p->span = (struct image_span){.n_tokens = w->grid * w->grid + p->rows * (p->cols + 1)};
}

candid_status visual_plan_make(const struct clip_weights *w, candid_preprocess mode, int width, int height,
                               struct visual_plan *out, candid_error *error) {
    const candid_preprocess used = mode == CANDID_PREPROCESS_AUTO ? w->preprocess : mode;
    *out = (struct visual_plan){.mode = used};
    if (used == CANDID_PREPROCESS_ANYRES) {
        if (!w->image_newline) {
            return fail(error, CANDID_ERROR_ARGUMENT,
                        "preprocess: anyres needs a LLaVA-NeXT model, this one takes one view of each image");
        }
        plan_tiles(w, width, height, out);
        return CANDID_OK;
    }
    out->span = (struct image_span){.n_tokens = w->grid * w->grid, .grid_h = w->grid, .grid_w = w->grid};
    return CANDID_OK;
}

/* ---- work buffers ---- */

static candid_status device_floats(struct visual *v, size_t n, float **out, candid_error *error) {
    void *memory = NULL;
    TRY(v->b->ops->alloc(v->b, n * sizeof(float), &memory, error));
    *out = memory;
    return CANDID_OK;
}

static candid_status build(struct visual *v, candid_error *error) {
    const struct clip_weights *w = v->w;
    const size_t pixels = 3 * (size_t)w->image_size * (size_t)w->image_size, n_embd = (size_t)v->n_embd_lm;
    TRY(clip_create(w, v->n_embd_lm, v->b, &v->clip, error));
    v->pixels = malloc(pixels * sizeof *v->pixels);
    if (!v->pixels) {
        return fail_memory(error, "image pixels", pixels * sizeof *v->pixels);
    }
    if (w->image_newline) {
        TRY(device_floats(v, (size_t)w->grid * (size_t)w->grid * n_embd, &v->view, error));
        TRY(device_floats(v, n_embd, &v->newline, error));
        v->b->ops->upload(v->b, v->newline, w->image_newline, n_embd * sizeof(float));
    }
    return CANDID_OK;
}

candid_status visual_create(const struct clip_weights *w, int n_embd_lm, struct backend *backend, struct visual **out,
                            candid_error *error) {
    struct visual *v = calloc(1, sizeof *v);
    if (!v) {
        return fail_memory(error, "the image encoder", sizeof *v);
    }
    v->w = w;
    v->b = backend;
    v->n_embd_lm = n_embd_lm;
    const candid_status status = build(v, error);
    if (status != CANDID_OK) {
        visual_free(v);
        return status;
    }
    *out = v;
    return CANDID_OK;
}

void visual_free(struct visual *v) {
    if (v) {
        clip_free(v->clip);
        v->b->ops->release(v->b, v->view);
        v->b->ops->release(v->b, v->newline);
        free(v->pixels);
        free(v->map);
        free(v->weights);
        free(v);
    }
}

void visual_tap(struct visual *v, const struct clip_taps *taps) {
    clip_tap(v->clip, taps);
}

candid_status visual_watch(struct visual *v, const struct clip_probe *probes, int n, candid_error *error) {
    if (n < 0 || n > VISUAL_PROBES) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%d probes of the image encoder, expected 0 to %d", n, VISUAL_PROBES);
    }
    for (int i = 0; i < n; i++) {
        if (probes[i].block < 0 || probes[i].block >= v->w->n_run) {
            return fail(error, CANDID_ERROR_ARGUMENT, "probe of block %d of the image encoder, of which %d run",
                        probes[i].block, v->w->n_run);
        }
    }
    for (int i = 0; i < n; i++) {
        v->probes[i] = probes[i];
    }
    v->n_probes = n;
    return CANDID_OK;
}

void visual_noise(struct visual *v, const struct noise *noise) {
    v->noise = noise;
}

void visual_counterfactual(struct visual *v, const struct visual_twin *twin) {
    v->twin = twin;
}

/* ---- encoding ---- */

/* Room for the twin's numbers, and its probe behind the others when it reads the attention. */
static candid_status prepare_twin(struct visual *v, candid_error *error) {
    const struct clip_weights *w = v->w;
    const size_t n = (size_t)w->grid * (size_t)w->grid + 1;
    if (!v->weights) {
        v->weights = malloc(n * sizeof *v->weights);
    }
    if (!v->weights) {
        return fail_memory(error, "counterfactual attention", n * sizeof *v->weights);
    }
    if (!causalmm_reads_map(v->twin->mode)) {
        return CANDID_OK;
    }
    if (v->twin->block < 0 || v->twin->block >= w->n_run) {
        return fail(error, CANDID_ERROR_ARGUMENT, "counterfactual attention of block %d, of which %d run",
                    v->twin->block, w->n_run);
    }
    if (!v->map) {
        v->map = malloc(n * (size_t)w->n_head * n * sizeof *v->map);
    }
    return v->map ? CANDID_OK
                  : fail_memory(error, "counterfactual attention", n * (size_t)w->n_head * n * sizeof *v->map);
}

/* Encodes the pixels at hand. Methods look at the first view only, the twin at all. */
static candid_status encode(struct visual *v, double start, float *tokens, const struct observer *observer,
                            double *load_ms, double *encode_ms, candid_error *error) {
    const int view = v->n_seen++;
    if (v->noise) {
        const size_t size = (size_t)v->w->image_size;
        TRY(noise_diffuse(v->noise, view, v->pixels, 3 * size * size, error));
    }
    int n_probes = view == 0 ? v->n_probes : 0;
    struct clip_probe probes[VISUAL_PROBES + 1];
    memcpy(probes, v->probes, sizeof probes);
    if (v->twin) {
        TRY(prepare_twin(v, error));
        if (causalmm_reads_map(v->twin->mode)) {
            probes[n_probes++] = (struct clip_probe){CLIP_PROBE_MAP, v->twin->block, v->map};
        }
    }
    const double loaded = clock_ms();
    clip_watch(v->clip, probes, n_probes);
    const candid_status status = clip_encode(v->clip, v->pixels, tokens, observer, error);
    clip_watch(v->clip, NULL, 0);
    *load_ms += loaded - start;
    *encode_ms += clock_ms() - loaded;
    return status;
}

/* The twin's tokens of the view that was encoded last. */
static candid_status project_twin(struct visual *v, float *tokens, double *encode_ms, candid_error *error) {
    const struct clip_weights *w = v->w;
    const double start = clock_ms();
    TRY(causalmm_weights(v->twin->mode, v->map, w->n_head, w->grid * w->grid + 1, w->grid, v->twin->seed,
                         (uint64_t)(v->n_seen - 1), v->weights, error));
    TRY(clip_project_scaled(v->clip, v->weights, tokens, error));
    *encode_ms += clock_ms() - start;
    return CANDID_OK;
}

static candid_status encode_view(struct visual *v, const struct candid_image *image, const struct image_view *view,
                                 float *tokens, const struct observer *observer, double *load_ms, double *encode_ms,
                                 candid_error *error) {
    const struct clip_weights *w = v->w;
    const double start = clock_ms();
    TRY(image_preprocess_view(image, view, w->image_size, w->mean, w->std, v->pixels, error));
    return encode(v, start, tokens, observer, load_ms, encode_ms, error);
}

/* Copies what is kept of tile (tile_row, tile_col), which is in v->view, to its places. `rows`: device, the first token
 * of the large grid. */
static void place_tile(struct visual *v, const struct visual_plan *p, int tile_row, int tile_col, float *rows) {
    const int grid = v->w->grid;
    const size_t n_embd = (size_t)v->n_embd_lm;
    const int from = tile_col * grid > p->first_col ? tile_col * grid : p->first_col;
    const int last = p->first_col + p->cols, to = (tile_col + 1) * grid < last ? (tile_col + 1) * grid : last;
    for (int y = 0; y < grid && from < to; y++) {
        const int row = tile_row * grid + y - p->first_row;
        if (row < 0 || row >= p->rows) {
            continue;
        }
        const size_t source = (size_t)y * (size_t)grid + (size_t)(from - tile_col * grid);
        const size_t target = (size_t)row * (size_t)(p->cols + 1) + (size_t)(from - p->first_col);
        v->b->ops->copy(v->b, rows + target * n_embd, v->view + source * n_embd,
                        (size_t)(to - from) * n_embd * sizeof(float));
    }
}

/* The newline vectors at the ends of the large grid's rows. */
static void end_rows(struct visual *v, const struct visual_plan *p, float *rows) {
    const size_t n_embd = (size_t)v->n_embd_lm;
    for (int r = 0; r < p->rows; r++) {
        float *end = rows + ((size_t)r * (size_t)(p->cols + 1) + (size_t)p->cols) * n_embd;
        v->b->ops->copy(v->b, end, v->newline, n_embd * sizeof(float));
    }
}

static candid_status encode_anyres(struct visual *v, const struct candid_image *image, const struct visual_plan *p,
                                   float *tokens, const struct observer *observer, double *load_ms, double *encode_ms,
                                   candid_error *error) {
    const int size = v->w->image_size;
    const size_t base = (size_t)v->w->grid * (size_t)v->w->grid * (size_t)v->n_embd_lm; /* floats of the base view */
    const struct image_view whole = {.width = size, .height = size};
    TRY(encode_view(v, image, &whole, tokens, observer, load_ms, encode_ms, error));
    clip_tap(v->clip, NULL);
    if (v->twin) {
        TRY(project_twin(v, v->twin->tokens, encode_ms, error));
        end_rows(v, p, v->twin->tokens + base);
    }
    for (int r = 0; r < p->tile_rows; r++) {
        for (int c = 0; c < p->tile_cols; c++) {
            const struct image_view tile = {p->width, p->height, c * size - p->left, r * size - p->top};
            TRY(encode_view(v, image, &tile, v->view, observer, load_ms, encode_ms, error));
            place_tile(v, p, r, c, tokens + base);
            if (v->twin) {
                TRY(project_twin(v, v->view, encode_ms, error));
                place_tile(v, p, r, c, v->twin->tokens + base);
            }
        }
    }
    end_rows(v, p, tokens + base);
    return CANDID_OK;
}

candid_status visual_encode(struct visual *v, const struct candid_image *image, const struct visual_plan *plan,
                            float *tokens, const struct observer *observer, double *load_ms, double *encode_ms,
                            candid_error *error) {
    v->n_seen = 0;
    if (plan->mode == CANDID_PREPROCESS_ANYRES) {
        return encode_anyres(v, image, plan, tokens, observer, load_ms, encode_ms, error);
    }
    const struct clip_weights *w = v->w;
    const double start = clock_ms();
    TRY(image_preprocess(image, plan->mode, w->image_size, w->mean, w->std, v->pixels, error));
    TRY(encode(v, start, tokens, observer, load_ms, encode_ms, error));
    return v->twin ? project_twin(v, v->twin->tokens, encode_ms, error) : CANDID_OK;
}

/* ---- choosing tokens ---- */

int visual_newline_token(const struct visual_plan *plan, const struct clip_weights *w) {
    return plan->mode == CANDID_PREPROCESS_ANYRES && plan->rows > 0 ? w->grid * w->grid + plan->cols : -1;
}

void visual_gather(struct backend *b, const float *tokens, const int *index, int n, int n_embd, float *out) {
    for (int i = 0; i < n; i++) {
        b->ops->copy(b, out + (size_t)i * (size_t)n_embd, tokens + (size_t)index[i] * (size_t)n_embd,
                     (size_t)n_embd * sizeof(float));
    }
}
