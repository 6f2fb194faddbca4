/*
 * Questions about an image, answered by the naive host with candid's methods (naive_host.h), in the order that plugin.h
 * describes: task, branches, sequences, companions, prompts, tokens. What the host would have of its own - tokenizer,
 * conversation, image encoder - is borrowed from candid's runtime. Include after cmocka.h.
 */
#ifndef CANDID_TESTS_HOST_ANSWER_H
#define CANDID_TESTS_HOST_ANSWER_H

#include <stdio.h>

#include "demo_request.h"
#include "naive_clip.h"
#include "naive_host.h"
#include "vision/clip.h"
#include "vision/image.h"

#define HOST_MAX_BRANCHES 4

/* ' becomes ". */
static inline void host_quote(const char *json, char *text, size_t size) {
    assert_true(strlen(json) < size);
    for (size_t i = 0; i <= strlen(json); i++) {
        text[i] = (char)(json[i] == '\'' ? '"' : json[i]);
    }
}

/* ---- images ------------------------------------------------------------------------------------ */

/* What the image encoder says of an image. */
struct host_image {
    float *tokens; /* (n, n_embd), raster order */
    int n, grid_h, grid_w;
};

static inline const struct clip_weights *host_clip(const struct demo *d) {
    return &d->model->clip;
}

/* Normalised pixels (3, size, size); the caller frees. */
static inline float *host_pixels(const struct demo *d) {
    const struct clip_weights *w = host_clip(d);
    float *pixels = host_floats(3 * (size_t)w->image_size * (size_t)w->image_size);
    OK(image_preprocess(d->image, w->preprocess, w->image_size, w->mean, w->std, pixels, error));
    return pixels;
}

static inline struct host_image host_encode(const struct demo *d, const float *pixels, const struct observer *o) {
    const struct clip_weights *w = host_clip(d);
    const size_t n = (size_t)w->grid * (size_t)w->grid * (size_t)d->model->llama.n_embd;
    struct backend *b = d->context->backend;
    struct host_image out = {host_floats(n), w->grid * w->grid, w->grid, w->grid};
    struct clip *clip = NULL;
    void *device = NULL;
    OK(clip_create(w, d->model->llama.n_embd, b, &clip, error));
    OK(b->ops->alloc(b, n * sizeof(float), &device, error));
    OK(clip_encode(clip, pixels, device, o, error));
    b->ops->download(b, out.tokens, device, n * sizeof(float));
    b->ops->release(b, device);
    clip_free(clip);
    return out;
}

/* What is seen of the encoder on the way. */
struct host_watch {
    int layer, n_head;
    enum site site;
    float *data; /* a copy */
    int n_rows, n_cols;
};

static inline void host_watched(void *user_data, enum site site, int layer, const float *data, int n_rows, int n_cols) {
    struct host_watch *watch = user_data;
    if (site == watch->site && layer == watch->layer) {
        const size_t n = (size_t)n_rows * (size_t)n_cols;
        watch->data = host_floats(n);
        memcpy(watch->data, data, n * sizeof *data);
        watch->n_rows = n_rows;
        watch->n_cols = n_cols;
    }
}

/* One site of the encoder; the caller frees watch->data. */
static inline void host_look(const struct demo *d, struct host_watch *watch) {
    const struct observer o = {.mask = 1u << watch->site, .see = host_watched, .user_data = watch};
    float *pixels = host_pixels(d);
    struct host_image image = host_encode(d, pixels, &o);
    assert_non_null(watch->data);
    free(image.tokens);
    free(pixels);
}

/* Attention of the class token to the patches in a block, (heads, patches), in the caller's memory. */
static inline candid_tap host_tap(const struct demo *d, int block, float **memory, candid_view *view) {
    const int heads = host_clip(d)->n_head;
    struct host_watch watch = {.layer = block, .site = SITE_VISION_ATTENTION};
    host_look(d, &watch);
    *memory = watch.data;
    *view = host_view(watch.data + 1, 2, (int64_t[]){heads, watch.n_cols - 1});
    view->strides[0] = watch.n_cols; /* rows of the first token come first, a head each */
    return (candid_tap){.struct_size = sizeof(candid_tap), .block = block, .of_cls = view};
}

/* DAMRO's tokens: those that candid_task_choose names. */
static inline struct host_image host_choose(const struct demo *d, const candid_task *task, int branch,
                                            const candid_branch *b, const struct host_image *from) {
    const struct clip_weights *w = host_clip(d);
    const int n_embd = w->n_embd, n_tokens = w->grid * w->grid + 1;
    struct host_watch watch = {.layer = b->block - 1, .site = SITE_VISION_HIDDEN}; /* what enters the block */
    host_look(d, &watch);
    const struct clip_layer *layer = &w->layers[b->block];
    double *x = naive_doubles((size_t)(n_tokens * n_embd));
    for (int i = 0; i < n_tokens * n_embd; i++) {
        x[i] = (double)watch.data[i];
    }
    naive_layer_norm(x, x, n_tokens, n_embd, layer->ln1_w, layer->ln1_b, (double)w->eps);
    double *q = naive_linear(x, 1, &layer->q, layer->q_b), *k = naive_linear(x, n_tokens, &layer->k, layer->k_b);
    float *q32 = host_floats((size_t)n_embd), *k32 = host_floats((size_t)(n_tokens * n_embd));
    for (int i = 0; i < n_tokens * n_embd; i++) {
        k32[i] = (float)k[i];
        q32[i % n_embd] = (float)q[i % n_embd];
    }
    const candid_view q_view = host_view(q32, 1, (int64_t[]){n_embd});
    const candid_view k_view = host_view(k32, 2, (int64_t[]){n_tokens, n_embd});
    int32_t *index = host_memory((size_t)b->n_chosen, sizeof *index), n = 0;
    OK(candid_task_choose(task, branch, &q_view, &k_view, index, &n, error));
    const size_t width = (size_t)d->model->llama.n_embd;
    struct host_image out = {host_floats((size_t)n * width), n, 0, 0};
    for (int i = 0; i < n; i++) {
        assert_in_range(index[i], 0, from->n - 1);
        memcpy(out.tokens + (size_t)i * width, from->tokens + (size_t)index[i] * width, width * sizeof(float));
    }
    free(watch.data), free(x), free(q), free(k), free(q32), free(k32), free(index);
    return out;
}

/* ---- prompts ----------------------------------------------------------------------------------- */

/* Rows of a prompt, with and without its image, and the spans that candid is told. */
struct host_prompt {
    struct host_row *rows, *text; /* [n_rows], [n_text] */
    int n_rows, n_text;
    candid_span spans[8];
    size_t n_spans;
    float *embeddings; /* of the text */
};

/* task: NULL without candid. */
static inline struct host_prompt host_prompt_make(const struct naive_host *h, const candid_task *task,
                                                  const struct prompt *prompt, const struct host_image *image) {
    const size_t n_embd = (size_t)h->w->n_embd;
    struct host_prompt p = {.embeddings = host_floats(prompt->tokens.count * n_embd)};
    p.rows = host_memory(prompt->tokens.count + (size_t)(image ? image->n : 0), sizeof *p.rows);
    p.text = host_memory(prompt->tokens.count, sizeof *p.text);
    int position = 0;
    for (size_t i = 0; i < prompt->n_chunks; i++) {
        const struct prompt_chunk *chunk = &prompt->chunks[i];
        const int first = p.n_rows;
        candid_span span = {.struct_size = sizeof span, .kind = CANDID_SPAN_TEXT};
        for (size_t t = 0; t < chunk->count; t++) {
            float *embedding = p.embeddings + (chunk->begin + t) * n_embd;
            const size_t id = (size_t)prompt->tokens.ids[chunk->begin + t];
            memcpy(embedding, h->embeddings + id * n_embd, n_embd * sizeof *embedding);
            p.rows[p.n_rows++] = (struct host_row){embedding, position++};
            p.text[p.n_text] = (struct host_row){embedding, p.n_text};
            p.n_text++;
        }
        if (chunk->image >= 0 && image) {
            int32_t *cells = host_memory((size_t)image->n, sizeof *cells), n_positions = image->n;
            int32_t *positions = host_memory((size_t)image->n, sizeof *positions);
            for (int t = 0; t < image->n; t++) {
                cells[t] = positions[t] = t;
            }
            if (task && image->grid_h > 0) {
                OK(candid_task_place(task, image->grid_h, image->grid_w, cells, positions, &n_positions, error));
            }
            for (int t = 0; t < image->n; t++) {
                p.rows[p.n_rows++] =
                    (struct host_row){image->tokens + (size_t)cells[t] * n_embd, position + positions[t]};
            }
            position += n_positions;
            span.kind = CANDID_SPAN_IMAGE;
            span.grid_h = image->grid_h;
            span.grid_w = image->grid_w;
            free(cells), free(positions);
        }
        span.n_tokens = p.n_rows - first;
        p.spans[p.n_spans++] = span;
        assert_true(p.n_spans < sizeof p.spans / sizeof *p.spans);
    }
    return p;
}

static inline void host_prompt_free(struct host_prompt *p) {
    free(p->rows), free(p->text), free(p->embeddings);
}

/* ---- a question -------------------------------------------------------------------------------- */

/* The main row, or a branch. */
struct host_side {
    struct host_image image; /* tokens NULL: sees none, or the main row's */
    struct host_prompt prompt;
    candid_sequence *sequence;
    struct host_cache cache;
    float *logits;
};

struct host_lab {
    struct demo demo;
    struct naive_host host;
    struct host_image image;
};

struct host_question {
    struct host_lab *lab;
    candid_config *config;
    candid_plugin *plugin; /* NULL: without candid */
    candid_pass *pass;
    candid_task *task;
    candid_needs needs;
    struct host_side sides[1 + HOST_MAX_BRANCHES]; /* the main one first */
    int n_sides;
    enum host_layout layout;
    int most; /* rows of a prompt in one pass, where that may be cut; 0: all */
    int n_generated;
};

/* A toy with random weights and keys that heads share, and the demo model with two scenes; under a sanitizer the toy
 * alone, see demo_request.h. */
static const struct {
    const char *model, *image;
} host_scenes[] = {
    {PROJECT_ROOT "/tests/golden/hf/llava15_gqa", PROJECT_ROOT "/tests/golden/hf/images/wide.png"},
    {PROJECT_ROOT "/models/demo/candid-demo.gguf", PROJECT_ROOT "/models/demo/heldout/images/scene_000007.png"},
    {PROJECT_ROOT "/models/demo/candid-demo.gguf", PROJECT_ROOT "/models/demo/heldout/images/scene_000011.png"},
};
#ifdef __SANITIZE_ADDRESS__
enum { N_HOST_SCENES = 1 };
#else
enum { N_HOST_SCENES = 3 };
#endif

static inline void host_lab_open(struct host_lab *lab, int scene) {
    *lab = (struct host_lab){0};
    model_open(&lab->demo, host_scenes[scene].model, host_scenes[scene].image, CANDID_PRECISION_EXACT, 1);
    naive_host_open(&lab->host, &lab->demo.model->llama);
    float *pixels = host_pixels(&lab->demo);
    lab->image = host_encode(&lab->demo, pixels, NULL);
    free(pixels);
}

static inline void host_lab_close(struct host_lab *lab) {
    free(lab->image.tokens);
    naive_host_close(&lab->host);
    demo_close(&lab->demo);
}

static inline const char *host_conversation(const struct demo *d) {
    return d->model->conversation ? d->model->conversation : "vicuna_v1";
}

/* What is asked, as the host words it; branch NULL: the main row. */
static inline struct prompt host_words(const struct host_question *q, const candid_branch *branch) {
    const struct demo *d = &q->lab->demo;
    const char *request = q->task ? candid_task_request(q->task) : DEMO_PROMPT;
    char text[1000], *other = NULL, *rendered = NULL;
    snprintf(text, sizeof text, "%s%s%s", branch && branch->prefix ? branch->prefix : "",
             branch && branch->prefix ? " " : "", branch && branch->request ? branch->request : request);
    if (branch && branch->system) {
        OK(prompt_replace_system(host_conversation(d), branch->system, &other, error));
    }
    struct prompt made = {0}, whole = {0};
    OK(prompt_render(other ? other : host_conversation(d), text, 1, &rendered, error));
    OK(prompt_tokenize(d->model->tokenizer, rendered, &whole, error));
    if (branch && branch->sight == CANDID_SIGHT_NONE) {
        OK(prompt_without_images(&whole, &made, error));
        prompt_free(&whole);
    } else {
        made = whole;
    }
    free(rendered), free(other);
    return made;
}

static inline void host_prepare_side(struct host_question *q, int side) {
    struct host_lab *lab = q->lab;
    struct host_side *s = &q->sides[side];
    candid_branch branch = {.struct_size = sizeof branch};
    const struct host_image *seen = &lab->image;
    if (side > 0) {
        OK(candid_task_branch(q->task, side - 1, &branch, error));
    }
    if (side > 0 && branch.sight == CANDID_SIGHT_NOISE) {
        float *pixels = host_pixels(&lab->demo);
        const int64_t size = host_clip(&lab->demo)->image_size;
        const candid_view view = host_view(pixels, 3, (int64_t[]){3, size, size});
        OK(candid_task_noise(q->task, side - 1, 0, 0, &view, error));
        s->image = host_encode(&lab->demo, pixels, NULL);
        seen = &s->image;
        free(pixels);
    } else if (side > 0 && branch.sight == CANDID_SIGHT_CHOSEN) {
        s->image = host_choose(&lab->demo, q->task, side - 1, &branch, &lab->image);
        seen = &s->image;
    }
    struct prompt words = host_words(q, side > 0 ? &branch : NULL);
    s->prompt = host_prompt_make(&lab->host, q->task, &words, branch.sight == CANDID_SIGHT_NONE ? NULL : seen);
    prompt_free(&words);
    s->cache = host_cache_make(&lab->host, s->prompt.n_rows + 40);
    s->logits = host_floats(demo_vocab(&(struct asked){.demo = &lab->demo}));
    if (q->plugin) {
        candid_tap taps[CANDID_MAX_TAPS];
        candid_view views[CANDID_MAX_TAPS];
        float *memory[CANDID_MAX_TAPS];
        for (int i = 0; i < q->needs.n_taps; i++) {
            taps[i] = host_tap(&lab->demo, q->needs.taps[i], &memory[i], &views[i]);
        }
        OK(candid_sequence_create(q->task, side - 1, s->prompt.spans, s->prompt.n_spans, taps, (size_t)q->needs.n_taps,
                                  &s->sequence, error));
        for (int i = 0; i < q->needs.n_taps; i++) {
            free(memory[i]);
        }
    }
}

/* json: with ' for "; NULL: without candid. */
static inline void host_ask(struct host_question *q, struct host_lab *lab, const char *json, const char *request,
                            enum host_layout layout) {
    *q = (struct host_question){.lab = lab, .layout = layout, .n_sides = 1};
    if (json) {
        const struct candid_model *m = lab->demo.model;
        const candid_host host = naive_host_describe(&lab->host, m->name, m->facts.n_vision_blocks);
        char text[1000];
        host_quote(json, text, sizeof text);
        q->config = demo_config(text);
        OK(candid_plugin_create(&host, q->config, &q->plugin, error));
        OK(candid_pass_create(q->plugin, &q->pass, error));
        OK(candid_task_create(q->plugin, request, 1, &q->task, error));
        q->needs.struct_size = sizeof q->needs;
        OK(candid_task_needs(q->task, &q->needs, error));
        q->n_sides += q->needs.n_branches;
        assert_true(q->needs.n_branches <= HOST_MAX_BRANCHES);
    }
    for (int i = 0; i < q->n_sides; i++) {
        host_prepare_side(q, i);
    }
}

static inline void host_answered(struct host_question *q) {
    for (int i = 0; i < q->n_sides; i++) {
        candid_sequence_free(q->sides[i].sequence);
        host_prompt_free(&q->sides[i].prompt);
        host_cache_free(&q->sides[i].cache);
        free(q->sides[i].image.tokens);
        free(q->sides[i].logits);
    }
    candid_task_free(q->task);
    candid_pass_free(q->pass);
    candid_plugin_free(q->plugin);
    candid_config_free(q->config);
}

static inline void host_companion(struct host_question *q, struct host_side *s, candid_role role) {
    const bool text = role == CANDID_ROLE_TEXT_ONLY;
    struct host_cache beside = host_cache_make(&q->lab->host, s->prompt.n_rows);
    struct host_lane lane = {.cache = &beside,
                             .sequence = s->sequence,
                             .role = role,
                             .rows = text ? s->prompt.text : s->prompt.rows,
                             .n_rows = text ? s->prompt.n_text : s->prompt.n_rows,
                             .logits = s->logits};
    host_forward(&q->lab->host, q->pass, q->layout, &lane, 1);
    host_cache_free(&beside);
}

/* The prompts of all sides: companions, then each in a pass of its own or, where it may be, in several. */
static inline void host_read(struct host_question *q) {
    for (int i = 0; i < q->n_sides; i++) {
        struct host_side *s = &q->sides[i];
        candid_run run = {.struct_size = sizeof run};
        if (s->sequence) {
            OK(candid_sequence_run(s->sequence, &run, error));
        }
        for (int role = CANDID_ROLE_MAIN + 1; role < CANDID_ROLE_COUNT; role++) {
            if (run.companions >> role & 1u) {
                host_companion(q, s, (candid_role)role);
            }
        }
        for (int done = 0, n; done < s->prompt.n_rows; done += n) {
            n = s->prompt.n_rows - done;
            n = !run.whole_prompt && q->most > 0 && n > q->most ? q->most : n;
            struct host_lane lane = {.cache = &s->cache,
                                     .sequence = s->sequence,
                                     .rows = s->prompt.rows + done,
                                     .n_rows = n,
                                     .logits = s->logits};
            host_forward(&q->lab->host, q->pass, q->layout, &lane, 1);
        }
    }
}

/* Feeds a token to all sides that still count, in one pass. */
static inline void host_feed(struct host_question *q, int token) {
    const size_t n_embd = (size_t)q->lab->host.w->n_embd;
    struct host_row rows[1 + HOST_MAX_BRANCHES];
    struct host_lane lanes[1 + HOST_MAX_BRANCHES];
    int n = 0;
    q->n_generated++;
    for (int i = 0; i < q->n_sides; i++) {
        if (i == 0 || candid_task_needs_branch(q->task, i - 1, q->n_generated)) {
            struct host_side *s = &q->sides[i];
            rows[n] = (struct host_row){q->lab->host.embeddings + (size_t)token * n_embd, s->cache.position};
            lanes[n] = (struct host_lane){
                .cache = &s->cache, .sequence = s->sequence, .rows = &rows[n], .n_rows = 1, .logits = s->logits};
            n++;
        }
    }
    host_forward(&q->lab->host, q->pass, q->layout, lanes, n);
}

/* The main row's logits become those that the next token is chosen from. */
static inline void host_contrast(struct host_question *q) {
    const int64_t n_vocab = q->lab->host.w->n_vocab;
    if (q->n_sides == 1) {
        return;
    }
    candid_view views[1 + HOST_MAX_BRANCHES];
    for (int i = 0; i < q->n_sides; i++) {
        views[i] = host_view(q->sides[i].logits, 1, &n_vocab);
        if (i > 0 && !candid_task_needs_branch(q->task, i - 1, q->n_generated)) {
            views[i].data = NULL;
        }
    }
    OK(candid_task_contrast(q->task, q->n_generated, &views[0], views + 1, (size_t)q->n_sides - 1, error));
}

static inline int host_best(const float *logits, int n_vocab) {
    int best = 0;
    for (int i = 1; i < n_vocab; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

#endif
