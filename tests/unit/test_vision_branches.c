/*
 * What negative branches need of the image encoder: attention noted in passing, gathered tokens, features scaled by
 * counterfactual attention, noise. Against a naive encoder in double precision and against transformers and torch
 * (tests/golden/make_vision_branches.py).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/backends.h"
#include "../support/naive_clip.h"
#include "../support/ok.h"
#include "../support/weight_file.h"
#include "api/handles.h"
#include "model/safetensors.h"
#include "vision/visual.h"

#define LM_WIDTH 64
#define SIDE     56
#define PATCHES  16
#define TOKENS   17
#define HEADS    4

/* Bounds of each backend of support/backends.h. */
static const double bounds[] = {2e-5, 2e-3};

static double error_of(const float *found, const double *expected, size_t n) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += (found[i] - expected[i]) * (found[i] - expected[i]);
        norm += expected[i] * expected[i];
    }
    return sqrt(difference / norm);
}

/* ---- a tiny encoder ---- */

struct tiny {
    struct file file;
    struct clip_weights w;
    struct backend *b;
    struct clip *clip;
    float *tokens, *other; /* device (PATCHES, LM_WIDTH) */
    float pixels[3 * SIDE * SIDE];
};

static void tiny_open(struct tiny *t, const struct tested_backend *backend, bool mlp_norm) {
    struct tiny_model_options o = tiny_model_options_default();
    o.language_model = false;
    o.image_size = SIDE;
    o.v_layer = 3;
    o.mlp_norm = mlp_norm;
    t->file = make_file("mmproj.gguf", &o, NULL, NULL);
    OK(clip_weights_load(t->file.gguf, LM_WIDTH, &t->w, NULL, error));
    assert_int_equal(t->w.grid * t->w.grid, PATCHES);
    assert_int_equal(t->w.n_head, HEADS);
    t->b = tested_backend_open(backend);
    OK(clip_create(&t->w, LM_WIDTH, t->b, &t->clip, error));
    t->tokens = device_copy(t->b, NULL, PATCHES * LM_WIDTH);
    t->other = device_copy(t->b, NULL, PATCHES * LM_WIDTH);
    for (int i = 0; i < 3 * SIDE * SIDE; i++) {
        t->pixels[i] = (float)((unsigned)i * 2654435761u % 1000) / 250.0f - 2.0f;
    }
}

static void tiny_close(struct tiny *t) {
    t->b->ops->release(t->b, t->tokens);
    t->b->ops->release(t->b, t->other);
    clip_free(t->clip);
    backend_destroy(t->b);
    clip_weights_free(&t->w);
    drop(&t->file);
}

static void download(const struct tiny *t, float *host, const float *device) {
    t->b->ops->download(t->b, host, device, PATCHES * LM_WIDTH * sizeof *host);
}

/* DAMRO's attention by its formula, from the states that enter the layer (TOKENS, n_embd). */
static void naive_wide(const struct clip_weights *w, int layer, const double *x, double *out) {
    const struct clip_layer *l = &w->layers[layer];
    const int d = w->n_embd;
    double *h = naive_doubles((size_t)(TOKENS * d)), sum = 0, all[TOKENS];
    naive_layer_norm(h, x, TOKENS, d, l->ln1_w, l->ln1_b, w->eps);
    double *q = naive_linear(h, TOKENS, &l->q, l->q_b), *k = naive_linear(h, TOKENS, &l->k, l->k_b);
    for (int j = 0; j < TOKENS; j++) {
        double dot = 0;
        for (int e = 0; e < d; e++) {
            dot += q[e] * k[j * d + e];
        }
        sum += all[j] = exp(dot / sqrt(d));
    }
    for (int j = 0; j < PATCHES; j++) {
        out[j] = all[j + 1] / sum;
    }
    free(h), free(q), free(k);
}

static void free_naive(struct naive *n) {
    free(n->probs), free(n->hidden), free(n->tokens);
}

static void probes_against_naive(void **state) {
    (void)state;
    for (size_t backend = 0; backend < N_TESTED_BACKENDS; backend++) {
        struct tiny t;
        tiny_open(&t, &tested_backends[backend], false);
        struct naive naive = naive_encode(&t.w, t.pixels);
        float plain[PATCHES * LM_WIDTH], watched[PATCHES * LM_WIDTH];
        OK(clip_encode(t.clip, t.pixels, t.tokens, NULL, error));
        download(&t, plain, t.tokens);

        static float cls[3][PATCHES], wide[3][PATCHES], map[3][TOKENS * HEADS * TOKENS], tap[PATCHES];
        struct clip_probe probes[9];
        for (int l = 0; l < 3; l++) {
            probes[l] = (struct clip_probe){CLIP_PROBE_CLS, l, cls[l]};
            probes[3 + l] = (struct clip_probe){CLIP_PROBE_CLS_WIDE, l, wide[l]};
            probes[6 + l] = (struct clip_probe){CLIP_PROBE_MAP, l, map[l]};
        }
        const struct clip_taps taps = {(const int[]){2}, 1, tap};
        clip_tap(t.clip, &taps);
        clip_watch(t.clip, probes, 9);
        OK(clip_encode(t.clip, t.pixels, t.tokens, NULL, error));
        download(&t, watched, t.tokens);
        assert_memory_equal(plain, watched, sizeof plain);
        assert_memory_equal(tap, cls[2], sizeof tap);
        for (int l = 0; l < 3; l++) {
            const double *probs = naive.probs + (size_t)l * TOKENS * HEADS * TOKENS;
            double expected[PATCHES] = {0};
            for (int i = 0; i < HEADS * PATCHES; i++) {
                expected[i % PATCHES] += probs[i / PATCHES * TOKENS + i % PATCHES + 1];
            }
            assert_true(error_of(cls[l], expected, PATCHES) < bounds[backend]);
            assert_true(error_of(map[l], probs, TOKENS * HEADS * TOKENS) < bounds[backend]);
            naive_wide(&t.w, l, naive.hidden + l * TOKENS * t.w.n_embd, expected);
            assert_true(error_of(wide[l], expected, PATCHES) < bounds[backend]);
        }

        /* and no longer */
        memset(cls, 0, sizeof cls);
        clip_tap(t.clip, NULL);
        clip_watch(t.clip, NULL, 0);
        OK(clip_encode(t.clip, t.pixels, t.tokens, NULL, error));
        for (int i = 0; i < 3 * PATCHES; i++) {
            assert_true(cls[i / PATCHES][i % PATCHES] == 0);
        }
        free_naive(&naive);
        tiny_close(&t);
    }
}

/* The projector of gathered features = gathered tokens; of scaled features = clip_project_scaled. */
static void gathered_and_scaled(void **state) {
    (void)state;
    for (int variant = 0; variant < 2 * (int)N_TESTED_BACKENDS; variant++) {
        struct tiny t;
        tiny_open(&t, &tested_backends[variant / 2], variant % 2);
        const double bound = bounds[variant / 2];
        const int d = t.w.n_embd;
        struct naive naive = naive_encode(&t.w, t.pixels);
        const double *features = naive.hidden + (size_t)(t.w.n_run * TOKENS + 1) * (size_t)d;
        OK(clip_encode(t.clip, t.pixels, t.tokens, NULL, error));

        static const int index[] = {7, 0, 15, 3, 3};
        double *rows = naive_doubles(PATCHES * (size_t)d);
        for (int i = 0; i < 5; i++) {
            memcpy(rows + i * d, features + index[i] * d, (size_t)d * sizeof *rows);
        }
        double *expected = naive_project(&t.w, rows, 5);
        float found[PATCHES * LM_WIDTH], plain[PATCHES * LM_WIDTH];
        visual_gather(t.b, t.tokens, index, 5, LM_WIDTH, t.other);
        download(&t, found, t.other);
        assert_true(error_of(found, expected, 5 * LM_WIDTH) < bound);
        free(expected);
        download(&t, plain, t.tokens);
        for (int i = 0; i < 5; i++) { /* rows as they are, to the bit */
            assert_memory_equal(found + i * LM_WIDTH, plain + index[i] * LM_WIDTH, LM_WIDTH * sizeof *found);
        }
        visual_gather(t.b, t.tokens, index, 0, LM_WIDTH, t.other);

        float weights[PATCHES];
        for (int i = 0; i < PATCHES; i++) {
            weights[i] = 1;
        }
        OK(clip_project_scaled(t.clip, weights, t.other, error));
        download(&t, found, t.other);
        assert_memory_equal(found, plain, sizeof plain);
        for (int i = 0; i < PATCHES * d; i++) {
            weights[i / d] = (float)(i / d - 5) / 4.0f;
            rows[i] = features[i] * (double)weights[i / d];
        }
        expected = naive_project(&t.w, rows, PATCHES);
        OK(clip_project_scaled(t.clip, weights, t.other, error));
        OK(clip_project_scaled(t.clip, weights, t.other, error)); /* the features are still there */
        download(&t, found, t.other);
        assert_true(error_of(found, expected, PATCHES * LM_WIDTH) < bound);
        free(expected), free(rows);
        free_naive(&naive);
        tiny_close(&t);
    }
}

/* ---- models of transformers ---- */

static struct safetensors *golden;

static int setup(void **state) {
    (void)state;
    return safetensors_open(TEST_GOLDEN "/vision_branches.safetensors", &golden, NULL) == CANDID_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    safetensors_close(golden);
    return 0;
}

/* Largest absolute difference to a recorded tensor. */
static double difference(const char *name, const float *found, size_t n) {
    const struct safetensors_tensor *t = safetensors_find(golden, name);
    if (!t || t->size != n * sizeof(float)) {
        fail_msg("vision_branches.safetensors: no %s of %zu numbers", name, n);
    }
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        float expected;
        memcpy(&expected, t->data + i * sizeof expected, sizeof expected);
        worst = fmax(worst, fabs((double)found[i] - (double)expected));
    }
    return worst;
}

struct subject {
    candid_model *model;
    struct backend *b;
    struct visual *visual;
};

static void subject_open(struct subject *s, const char *name, candid_precision precision) {
    char path[512];
    snprintf(path, sizeof path, TEST_GOLDEN "/hf/%s", name);
    candid_model_params params = candid_model_params_default();
    params.precision = precision;
    OK(candid_model_open(path, &params, &s->model, error));
    OK(backend_cpu_create(precision, 2, NULL, &s->b, error));
    OK(visual_create(&s->model->clip, s->model->llama.n_embd, s->b, &s->visual, error));
}

static void subject_close(struct subject *s) {
    visual_free(s->visual);
    backend_destroy(s->b);
    candid_model_free(s->model);
}

static candid_image *load(const char *name) {
    char path[512];
    candid_image *image = NULL;
    snprintf(path, sizeof path, TEST_GOLDEN "/hf/images/%s", name);
    OK(candid_image_load(path, &image, error));
    return image;
}

static struct visual_plan plan_of(const struct subject *s, candid_preprocess mode, const candid_image *image) {
    struct visual_plan plan;
    OK(visual_plan_make(&s->model->clip, mode, image->width, image->height, &plan, error));
    return plan;
}

/* Encodes to tokens the caller frees. */
static float *encode(const struct subject *s, const candid_image *image, const struct visual_plan *plan,
                     const struct observer *observer) {
    double load_ms = 0, encode_ms = 0;
    float *tokens = device_copy(s->b, NULL, (size_t)plan->span.n_tokens * (size_t)s->model->llama.n_embd);
    OK(visual_encode(s->visual, image, plan, tokens, observer, &load_ms, &encode_ms, error));
    return tokens;
}

static void against_transformers(const char *name, int number, candid_precision precision, double worst[5]) {
    struct subject s;
    subject_open(&s, name, precision);
    const int n_run = s.model->clip.n_run;
    candid_image *image = load(number ? "tall.png" : "wide.png");
    const struct visual_plan plan = plan_of(&s, number ? CANDID_PREPROCESS_PAD : CANDID_PREPROCESS_CROP, image);
    static float wide[PATCHES], cls[PATCHES], map[TOKENS * HEADS * TOKENS], weights[PATCHES];
    const size_t n_tokens = PATCHES * (size_t)s.model->llama.n_embd;
    char key[64];
    for (int b = 0; b < n_run; b++) {
        const struct clip_probe probes[] = {
            {CLIP_PROBE_CLS_WIDE, b, wide}, {CLIP_PROBE_CLS, b, cls}, {CLIP_PROBE_MAP, b, map}};
        OK(visual_watch(s.visual, probes, 3, error));
        s.b->ops->release(s.b, encode(&s, image, &plan, NULL));
        snprintf(key, sizeof key, "%s.case%d.wide.%d", name, number, b);
        worst[0] = fmax(worst[0], difference(key, wide, PATCHES));
        snprintf(key, sizeof key, "%s.case%d.cls.%d", name, number, b);
        worst[1] = fmax(worst[1], difference(key, cls, PATCHES));
    }
    snprintf(key, sizeof key, "%s.case%d.map.%d", name, number, n_run - 1);
    worst[2] = fmax(worst[2], difference(key, map, TOKENS * HEADS * TOKENS));
    OK(visual_watch(s.visual, NULL, 0, error));
    float *plain = encode(&s, image, &plan, NULL);
    for (int reversed = 0; reversed < 2; reversed++) {
        const char *mode = reversed ? "reversed" : "uniform";
        struct visual_twin twin = {.mode = reversed ? CAUSALMM_REVERSED : CAUSALMM_UNIFORM, .block = n_run - 1};
        twin.tokens = device_copy(s.b, NULL, n_tokens);
        OK(causalmm_weights(twin.mode, map, HEADS, TOKENS, 4, 0, 0, weights, error));
        snprintf(key, sizeof key, "%s.case%d.weights.%s", name, number, mode);
        worst[3] = fmax(worst[3], difference(key, weights, PATCHES));
        visual_counterfactual(s.visual, &twin);
        float *tokens = encode(&s, image, &plan, NULL);
        visual_counterfactual(s.visual, NULL);
        assert_memory_equal(tokens, plain, n_tokens * sizeof *tokens);
        snprintf(key, sizeof key, "%s.case%d.tokens.%s", name, number, mode);
        worst[4] = fmax(worst[4], difference(key, twin.tokens, n_tokens));
        s.b->ops->release(s.b, twin.tokens);
        s.b->ops->release(s.b, tokens);
    }
    s.b->ops->release(s.b, plain);
    candid_image_free(image);
    subject_close(&s);
}

static void equal_to_transformers(void **state) {
    (void)state;
    for (int fast = 0; fast < 2; fast++) {
        double worst[5] = {0};
        for (int number = 0; number < 2; number++) {
            against_transformers("llava15_mha", number, fast ? CANDID_PRECISION_FAST : CANDID_PRECISION_EXACT, worst);
            against_transformers("llava15_tied", number, fast ? CANDID_PRECISION_FAST : CANDID_PRECISION_EXACT, worst);
        }
        print_message("%s: pseudo attention %.1e, class token %.1e, map %.1e, weights %.1e, scaled tokens %.1e\n",
                      fast ? "fast" : "exact", worst[0], worst[1], worst[2], worst[3], worst[4]);
        for (int i = 0; i < 5; i++) {
            assert_true(worst[i] < (fast ? 3e-3 : 1e-5));
        }
    }
}

/* ---- views ---- */

#define MAX_VIEWS 8

struct views {
    int n, last_block;
    float *pixels[MAX_VIEWS];   /* (3, size, size) */
    float *features[MAX_VIEWS]; /* (tokens, n_embd), class token first */
};

static float *copy_of(const float *data, size_t n) {
    float *copy = malloc(n * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, data, n * sizeof *copy);
    return copy;
}

static void see(void *user_data, enum site site, int layer, const float *data, int n_rows, int n_cols) {
    struct views *v = user_data;
    assert_true(v->n < MAX_VIEWS);
    if (site == SITE_IMAGE) {
        v->pixels[v->n] = copy_of(data, (size_t)n_rows * (size_t)n_cols);
    } else if (layer == v->last_block) {
        v->features[v->n++] = copy_of(data, (size_t)n_rows * (size_t)n_cols);
    }
}

static void free_views(struct views *v) {
    for (int i = 0; i < v->n; i++) {
        free(v->pixels[i]);
        free(v->features[i]);
    }
    *v = (struct views){.last_block = v->last_block};
}

static struct observer watching(struct views *v) {
    return (struct observer){.mask = 1u << SITE_IMAGE | 1u << SITE_VISION_HIDDEN, .see = see, .user_data = v};
}

/* Every view gets noise of its own; without the hook all is as it was. */
static void noise_on_every_view(void **state) {
    (void)state;
    static const char *const models[] = {"llava15_mha", "next_vicuna"};
    for (int m = 0; m < 2; m++) {
        struct subject s;
        subject_open(&s, models[m], CANDID_PRECISION_EXACT);
        candid_image *image = load("large.png");
        const struct visual_plan plan = plan_of(&s, CANDID_PREPROCESS_AUTO, image);
        struct views plain = {.last_block = s.model->clip.n_run - 1}, noised = plain;
        struct observer observer = watching(&plain);
        const size_t n_pixels = 3 * SIDE * SIDE, n = (size_t)plan.span.n_tokens * (size_t)s.model->llama.n_embd;
        assert_int_equal(s.model->clip.image_size, SIDE);
        float *before = encode(&s, image, &plan, &observer);
        const struct noise noise = {.step = 700, .seed = 5};
        visual_noise(s.visual, &noise);
        observer = watching(&noised);
        float *during = encode(&s, image, &plan, &observer), *again = encode(&s, image, &plan, NULL);
        visual_noise(s.visual, NULL);
        float *after = encode(&s, image, &plan, NULL);
        assert_memory_equal(before, after, n * sizeof *before);
        assert_memory_equal(during, again, n * sizeof *before);
        assert_memory_not_equal(before, during, n * sizeof *before);
        assert_int_equal(plain.n, noised.n);
        assert_int_equal(plain.n, m == 0 ? 1 : 1 + plan.tile_rows * plan.tile_cols);
        for (int i = 0; i < plain.n; i++) {
            OK(noise_diffuse(&noise, i, plain.pixels[i], n_pixels, error));
            assert_memory_equal(plain.pixels[i], noised.pixels[i], n_pixels * sizeof(float));
        }
        visual_noise(s.visual, &(struct noise){.step = 1000});
        candid_error why;
        double ms = 0;
        assert_int_equal(visual_encode(s.visual, image, &plan, during, NULL, &ms, &ms, &why), CANDID_ERROR_ARGUMENT);
        float *const all[] = {before, during, again, after};
        for (int i = 0; i < 4; i++) {
            s.b->ops->release(s.b, all[i]);
        }
        free_views(&plain), free_views(&noised);
        candid_image_free(image);
        subject_close(&s);
    }
}

/* Of a LLaVA-NeXT image the whole, squeezed into one view, is watched and none of the tiles: as a square image alone.
 */
static void the_first_view_is_watched(void **state) {
    (void)state;
    struct subject s;
    subject_open(&s, "next_vicuna", CANDID_PRECISION_EXACT);
    candid_image *image = load("square.png");
    assert_int_equal(image->width, image->height);
    static float seen[2][3][TOKENS * TOKENS * 8];
    assert_true(s.model->clip.n_head <= 8 && s.model->clip.grid * s.model->clip.grid == PATCHES);
    for (int m = 0; m < 2; m++) {
        const struct clip_probe probes[] = {
            {CLIP_PROBE_CLS_WIDE, 1, seen[m][0]}, {CLIP_PROBE_CLS, 0, seen[m][1]}, {CLIP_PROBE_MAP, 1, seen[m][2]}};
        const struct visual_plan plan = plan_of(&s, m ? CANDID_PREPROCESS_ANYRES : CANDID_PREPROCESS_CROP, image);
        assert_int_equal(plan.span.n_tokens > PATCHES, m);
        OK(visual_watch(s.visual, probes, 3, error));
        s.b->ops->release(s.b, encode(&s, image, &plan, NULL));
    }
    assert_true(seen[0][0][0] > 0 && seen[0][1][0] > 0 && seen[0][2][0] > 0);
    assert_memory_equal(seen[0], seen[1], sizeof seen[0]);
    candid_image_free(image);
    subject_close(&s);
}

/* The twin's tokens of a LLaVA-NeXT image, put together by hand from the features of every view. */
static void twin_of_every_view(void **state) {
    (void)state;
    struct subject s;
    subject_open(&s, "next_vicuna", CANDID_PRECISION_EXACT);
    const struct clip_weights *w = &s.model->clip;
    candid_image *image = load("large.png");
    const struct visual_plan p = plan_of(&s, CANDID_PREPROCESS_AUTO, image);
    const int n_embd = s.model->llama.n_embd, d = w->n_embd, grid = w->grid, n_patches = grid * grid;
    assert_int_equal(p.mode, CANDID_PREPROCESS_ANYRES);
    assert_true(p.tile_rows * p.tile_cols > 1);
    struct visual_twin twin = {.mode = CAUSALMM_RANDOM, .seed = 9};
    twin.tokens = device_copy(s.b, NULL, (size_t)(p.span.n_tokens * n_embd));
    struct views views = {.last_block = w->n_run - 1};
    const struct observer observer = watching(&views);
    float *plain = encode(&s, image, &p, NULL);
    visual_counterfactual(s.visual, &twin);
    float *tokens = encode(&s, image, &p, &observer);
    assert_memory_equal(plain, tokens, (size_t)(p.span.n_tokens * n_embd) * sizeof *tokens);

    int covered = 0;
    for (int v = 0; v < views.n; v++) {
        float weights[64];
        OK(causalmm_weights(twin.mode, NULL, w->n_head, n_patches + 1, grid, twin.seed, (uint64_t)v, weights, error));
        double *rows = naive_doubles((size_t)(n_patches * d));
        for (int i = 0; i < n_patches * d; i++) {
            rows[i] = (double)views.features[v][d + i] * (double)weights[i / d];
        }
        double *expected = naive_project(w, rows, n_patches);
        for (int i = 0; i < n_patches; i++) {
            const int y = (v - 1) / p.tile_cols * grid + i / grid - p.first_row;
            const int x = (v - 1) % p.tile_cols * grid + i % grid - p.first_col;
            const int token = v == 0 ? i : n_patches + y * (p.cols + 1) + x;
            if (v == 0 || (y >= 0 && y < p.rows && x >= 0 && x < p.cols)) {
                assert_true(error_of(twin.tokens + token * n_embd, expected + i * n_embd, (size_t)n_embd) < 2e-5);
                covered++;
            }
        }
        free(rows), free(expected);
    }
    for (int r = 0; r < p.rows; r++, covered++) {
        const int token = n_patches + r * (p.cols + 1) + p.cols;
        assert_memory_equal(twin.tokens + token * n_embd, w->image_newline, (size_t)n_embd * sizeof(float));
        assert_int_equal(r == 0, token == visual_newline_token(&p, w));
    }
    assert_int_equal(covered, p.span.n_tokens);

    /* maps are read of every view, too: shuffled, a twin is another with another seed only */
    twin.mode = CAUSALMM_SHUFFLE;
    twin.block = w->n_run - 1;
    s.b->ops->release(s.b, tokens);
    tokens = encode(&s, image, &p, NULL);
    float *first = copy_of(twin.tokens, (size_t)(p.span.n_tokens * n_embd));
    s.b->ops->release(s.b, tokens);
    tokens = encode(&s, image, &p, NULL);
    assert_memory_equal(first, twin.tokens, (size_t)(p.span.n_tokens * n_embd) * sizeof *first);
    twin.seed++;
    s.b->ops->release(s.b, tokens);
    tokens = encode(&s, image, &p, NULL);
    assert_memory_not_equal(first, twin.tokens, (size_t)(p.span.n_tokens * n_embd) * sizeof *first);
    free(first);

    twin.block = w->n_run;
    candid_error why;
    double ms = 0;
    assert_int_equal(visual_encode(s.visual, image, &p, tokens, NULL, &ms, &ms, &why), CANDID_ERROR_ARGUMENT);
    visual_counterfactual(s.visual, NULL);
    float out[PATCHES];
    struct clip_probe probes[VISUAL_PROBES + 1] = {{CLIP_PROBE_CLS, w->n_run, out}};
    assert_int_equal(visual_watch(s.visual, probes, 1, &why), CANDID_ERROR_ARGUMENT);
    probes[0].block = -1;
    assert_int_equal(visual_watch(s.visual, probes, 1, &why), CANDID_ERROR_ARGUMENT);
    assert_int_equal(visual_watch(s.visual, probes, VISUAL_PROBES + 1, &why), CANDID_ERROR_ARGUMENT);
    assert_int_equal(visual_newline_token(&(struct visual_plan){.mode = CANDID_PREPROCESS_PAD}, w), -1);

    s.b->ops->release(s.b, plain);
    s.b->ops->release(s.b, tokens);
    s.b->ops->release(s.b, twin.tokens);
    free_views(&views);
    candid_image_free(image);
    subject_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probes_against_naive),      cmocka_unit_test(gathered_and_scaled),
        cmocka_unit_test(equal_to_transformers),     cmocka_unit_test(noise_on_every_view),
        cmocka_unit_test(the_first_view_is_watched), cmocka_unit_test(twin_of_every_view),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
