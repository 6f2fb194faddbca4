/*
 * A host without a model: every tensor it shows is made of numbers that depend on nothing but what they stand for, so
 * that what candid makes of them can be compared however the tensors lie. Include after cmocka.h.
 */
#ifndef CANDID_TESTS_PLUGIN_LAB_H
#define CANDID_TESTS_PLUGIN_LAB_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "candid/plugin.h"
#include "model/quant.h"
#include "ok.h"

enum { LAB_LAYERS = 3, LAB_HEADS = 2, LAB_DIM = 4, LAB_EMBD = 8, LAB_VOCAB = 13, LAB_GRID = 2, LAB_LANES = 3 };
enum { LAB_IMAGE = LAB_GRID * LAB_GRID, LAB_STEPS = 2 };

/* Everything that acts without an image encoder. */
#define LAB_EVERYTHING                                                                                                 \
    "{\"var\": {\"sink_dims\": [1, 5], \"tau\": 1.2, \"layers\": \"all\", \"exclude_last_layer\": false, \"summ\": "   \
    "0, "                                                                                                              \
    "\"rho\": 1}, \"vhr\": {\"layers\": \"all\", \"filter_guard\": 0}, \"pai\": {\"layers\": \"all\", \"gamma\": 1}, " \
    "\"hgai\": {\"layers\": \"all\"}, \"act\": {\"layers\": \"all\", \"threshold\": 0.05}, \"vista\": "                \
    "{\"sla_layers\": "                                                                                                \
    "\"0-1\"}, \"dola\": true, \"head_scale\": {\"heads\": [[0, 1]], \"scale\": 0.5}, \"mma\": true}"

static inline candid_host lab_host(void) {
    candid_host host = candid_host_default();
    host.host = "lab";
    host.abilities = 0x1ffff;
    host.n_layer = LAB_LAYERS;
    host.n_head = host.n_head_kv = LAB_HEADS;
    host.head_dim = LAB_DIM;
    host.n_embd = LAB_EMBD;
    host.n_vocab = LAB_VOCAB;
    return host;
}

static inline candid_config *lab_config(const char *json) {
    candid_config *config = NULL;
    OK(candid_config_parse(json, strlen(json), "lab", &config, error));
    return config;
}

/* A plugin with its configuration. */
struct lab_plugin {
    candid_config *config;
    candid_plugin *plugin;
};

static inline struct lab_plugin lab_plugin_make(const char *json) {
    const candid_host host = lab_host();
    struct lab_plugin p = {.config = lab_config(json)};
    OK(candid_plugin_create(&host, p.config, &p.plugin, error));
    return p;
}

static inline void lab_plugin_free(struct lab_plugin *p) {
    candid_plugin_free(p->plugin);
    candid_config_free(p->config);
}

/* Spans of text, a square image, and text. */
static inline candid_sequence *lab_sequence(candid_task *task, int n_before, int n_after) {
    const candid_span spans[] = {
        {.struct_size = sizeof *spans, .kind = CANDID_SPAN_TEXT, .n_tokens = n_before},
        {.struct_size = sizeof *spans,
         .kind = CANDID_SPAN_IMAGE,
         .n_tokens = LAB_IMAGE,
         .grid_h = LAB_GRID,
         .grid_w = LAB_GRID},
        {.struct_size = sizeof *spans, .kind = CANDID_SPAN_TEXT, .n_tokens = n_after},
    };
    candid_sequence *sequence = NULL;
    OK(candid_sequence_create(task, -1, spans, 3, NULL, 0, &sequence, error));
    return sequence;
}

/* ---- how tensors lie --------------------------------------------------------------------------- */

struct arrangement {
    enum { LANES_ALONE, LANES_LEFT, LANES_RIGHT, LANES_PACKED } lanes; /* padded left or right, or one batch element */
    candid_dtype dtype;
    bool transposed;  /* the first dimension is the innermost */
    bool gaps;        /* other numbers stand between the elements */
    bool shuffled;    /* keys are anywhere among the columns */
    bool only_wanted; /* sites that candid_sequence_wants() does not name are not shown */
    bool last_rows;   /* of the final sites the last row is shown only */
};

/* A question under way, and everything that candid made of its tensors, one number after the other. */
struct lane {
    int number, n_before, n_after;
    candid_task *task;
    candid_sequence *sequence;
    int n; /* rows that have gone through */
    float *made;
    size_t n_made, capacity;
    candid_segment segment; /* in this pass */
    int32_t columns[64];
};

struct lab {
    const struct arrangement *a;
    candid_pass *pass;
    struct lane *lanes;
    int n_lanes;
    candid_role role;
    uint32_t rows; /* of this pass: candid_rows */
    int64_t n_batch, n_rows, n_keys;
    candid_run run;
};

/* From -1 to 1 in steps of 1/64, which every element type can hold. */
static inline float lab_number(int lane, candid_role role, int site, int layer, int index, int row, int column) {
    uint64_t s = 0;
    const int parts[] = {lane, (int)role, site, layer, index, row, column};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        s = (s ^ (uint64_t)parts[i]) * 0x9E3779B97F4A7C15u;
        s ^= s >> 29;
    }
    return (float)((int)(s >> 40 & 127) - 63) / 64.0f;
}

static inline void lab_keep(struct lane *lane, float x) {
    if (lane->n_made == lane->capacity) {
        lane->capacity = 2 * lane->capacity + 64;
        lane->made = realloc(lane->made, lane->capacity * sizeof *lane->made);
        assert_non_null(lane->made);
    }
    lane->made[lane->n_made++] = x;
}

/* ---- one tensor -------------------------------------------------------------------------------- */

struct lab_tensor {
    candid_view view;
    void *memory;
    size_t n; /* elements of memory */
};

static inline size_t lab_tensor_size(const struct lab_tensor *t) {
    return t->view.dtype == CANDID_F32 ? 4 : 2;
}

/* Numbers that are none, in every element: whatever candid reads of those that are no lane's shows. */
static inline struct lab_tensor lab_tensor_make(const struct arrangement *a, int n_dims, const int64_t *shape) {
    struct lab_tensor t = {.view = {.struct_size = sizeof(candid_view), .dtype = a->dtype, .n_dims = n_dims}};
    int64_t stride = a->gaps ? 3 : 1;
    for (int i = 0; i < n_dims; i++) {
        const int dim = a->transposed ? i : n_dims - 1 - i;
        t.view.shape[dim] = shape[dim];
        t.view.strides[dim] = stride;
        stride *= shape[dim] + (a->gaps ? 1 : 0);
    }
    t.n = (size_t)stride;
    t.view.data = t.memory = malloc(t.n * lab_tensor_size(&t));
    assert_non_null(t.memory);
    memset(t.memory, 0xff, t.n * lab_tensor_size(&t));
    return t;
}

static inline size_t lab_tensor_at(const struct lab_tensor *t, int64_t i, int64_t j, int64_t k, int64_t l) {
    const int64_t index[] = {i, j, k, l};
    size_t at = 0;
    for (int d = 0; d < t->view.n_dims; d++) {
        at += (size_t)(index[d] * t->view.strides[d]);
    }
    assert_true(at < t->n);
    return at;
}

static inline void lab_tensor_put(struct lab_tensor *t, size_t at, float x) {
    if (t->view.dtype == CANDID_F32) {
        ((float *)t->memory)[at] = x;
    } else {
        ((uint16_t *)t->memory)[at] = t->view.dtype == CANDID_F16 ? f32_to_f16(x) : f32_to_bf16(x);
    }
}

/* Takes a number out, so that only what is nobody's is left. */
static inline float lab_tensor_take(struct lab_tensor *t, size_t at) {
    const uint16_t half = t->view.dtype == CANDID_F32 ? 0 : ((uint16_t *)t->memory)[at];
    const float x = t->view.dtype == CANDID_F32   ? ((float *)t->memory)[at]
                    : t->view.dtype == CANDID_F16 ? f16_to_f32(half)
                                                  : bf16_to_f32(half);
    memset((char *)t->memory + at * lab_tensor_size(t), 0xff, lab_tensor_size(t));
    return x;
}

/* What is nobody's is untouched. */
static inline void lab_tensor_free(struct lab_tensor *t) {
    for (size_t i = 0; i < t->n * lab_tensor_size(t); i++) {
        assert_int_equal(((uint8_t *)t->memory)[i], 0xff);
    }
    free(t->memory);
}

/* ---- sites ------------------------------------------------------------------------------------- */

static inline bool lab_wanted(const struct lab *l, candid_site site, int layer) {
    uint8_t layers[LAB_LAYERS + 1];
    bool wanted = !l->a->only_wanted;
    for (int i = 0; i < l->n_lanes; i++) {
        candid_sequence_wants(l->lanes[i].sequence, l->role, site, l->rows, layers);
        wanted = wanted || layers[layer];
    }
    return wanted;
}

/* Scores and probabilities. */
static inline void lab_attention(struct lab *l, candid_site site, int layer) {
    if (!lab_wanted(l, site, layer)) {
        return;
    }
    struct lab_tensor t = lab_tensor_make(l->a, 4, (int64_t[]){l->n_batch, LAB_HEADS, l->n_rows, l->n_keys});
    for (int pass = 0; pass < 2; pass++) { /* put, then take */
        for (int i = 0; i < l->n_lanes; i++) {
            struct lane *lane = &l->lanes[i];
            const candid_segment *s = &lane->segment;
            for (int j = 0; j < LAB_HEADS * s->n_rows * s->n_keys; j++) {
                const int head = j / (s->n_rows * s->n_keys), row = j / s->n_keys % s->n_rows, key = j % s->n_keys;
                const int column = s->key_columns ? s->key_columns[key] : s->key_offset + key;
                const size_t at = lab_tensor_at(&t, s->batch, head, s->first_row + row, column);
                float x = lab_number(lane->number, l->role, site, layer, head, s->first_index + row, key);
                x = site == CANDID_SITE_ATTENTION_PROBS ? (x + 1) / 8 : x; /* need not add up to one */
                if (pass == 0) {
                    lab_tensor_put(&t, at, x);
                } else {
                    lab_keep(lane, lab_tensor_take(&t, at));
                }
            }
        }
        if (pass == 0) {
            OK(candid_pass_at(l->pass, site, layer, &t.view, error));
        }
    }
    lab_tensor_free(&t);
}

/* Where a lane's row is in a tensor, or in one that has the last row of each lane only. */
static inline int64_t lab_row(const struct lab *l, int lane, int row, bool last) {
    return !last ? l->lanes[lane].segment.first_row + row : l->a->lanes == LANES_PACKED ? lane : 0;
}

/* Rows of `width` numbers, or of n_early times as many. */
static inline struct lab_tensor lab_rows(struct lab *l, candid_site site, int layer, int width, int n_early,
                                         bool last) {
    const int64_t n_rows = !last ? l->n_rows : l->a->lanes == LANES_PACKED ? l->n_lanes : 1;
    struct lab_tensor t = n_early > 0 ? lab_tensor_make(l->a, 4, (int64_t[]){l->n_batch, n_rows, n_early, width})
                                      : lab_tensor_make(l->a, 3, (int64_t[]){l->n_batch, n_rows, width});
    for (int i = 0; i < l->n_lanes; i++) {
        const candid_segment *s = &l->lanes[i].segment;
        for (int row = last ? s->n_rows - 1 : 0; row < s->n_rows; row++) {
            const int64_t r = lab_row(l, i, row, last);
            for (int j = 0; j < width * (n_early > 0 ? n_early : 1); j++) {
                const size_t at = n_early > 0 ? lab_tensor_at(&t, s->batch, r, j / width, j % width)
                                              : lab_tensor_at(&t, s->batch, r, j, 0);
                lab_tensor_put(&t, at,
                               lab_number(l->lanes[i].number, l->role, site, layer, n_early, s->first_index + row, j));
            }
        }
    }
    return t;
}

/* Takes the rows whose numbers count: with `last` and behind the last attention the last ones only. */
static inline void lab_take_rows(struct lab *l, struct lab_tensor *t, bool last, bool keep_last_only) {
    for (int i = 0; i < l->n_lanes; i++) {
        const candid_segment *s = &l->lanes[i].segment;
        for (int row = last ? s->n_rows - 1 : 0; row < s->n_rows; row++) {
            for (int j = 0; j < t->view.shape[2]; j++) {
                const float x = lab_tensor_take(t, lab_tensor_at(t, s->batch, lab_row(l, i, row, last), j, 0));
                if (!keep_last_only || row == s->n_rows - 1) {
                    lab_keep(&l->lanes[i], x);
                }
            }
        }
    }
    lab_tensor_free(t);
}

static inline void lab_hidden(struct lab *l, candid_site site, int layer) {
    if (!lab_wanted(l, site, layer)) {
        return;
    }
    const int width = site == CANDID_SITE_HEAD_OUTPUT ? LAB_HEADS * LAB_DIM : LAB_EMBD;
    const bool last = site == CANDID_SITE_FINAL_NORM && l->a->last_rows;
    struct lab_tensor t = lab_rows(l, site, layer, width, 0, last);
    OK(candid_pass_at(l->pass, site, layer, &t.view, error));
    lab_take_rows(l, &t, last, layer >= LAB_LAYERS - 1 && site >= CANDID_SITE_MLP_OUTPUT);
}

static inline void lab_logits(struct lab *l) {
    if (!lab_wanted(l, CANDID_SITE_LOGITS, LAB_LAYERS)) {
        return;
    }
    const int n_early = l->run.n_early;
    struct lab_tensor t = lab_rows(l, CANDID_SITE_LOGITS, LAB_LAYERS, LAB_VOCAB, 0, l->a->last_rows);
    struct lab_tensor early =
        lab_rows(l, CANDID_SITE_LOGITS, LAB_LAYERS, LAB_VOCAB, n_early > 0 ? n_early : 1, l->a->last_rows);
    OK(candid_pass_logits(l->pass, &t.view, n_early > 0 ? &early.view : NULL, error));
    lab_take_rows(l, &t, l->a->last_rows, true);
    free(early.memory);
}

/* ---- passes ------------------------------------------------------------------------------------ */

static inline void lab_place(struct lab *l) {
    l->n_batch = l->n_rows = l->n_keys = 1;
    int64_t all_rows = 1, all_keys = 2;
    for (int i = 0; i < l->n_lanes; i++) {
        const candid_segment *s = &l->lanes[i].segment;
        l->n_rows = s->n_rows + 1 > l->n_rows ? s->n_rows + 1 : l->n_rows;
        l->n_keys = s->n_keys + 2 > l->n_keys ? s->n_keys + 2 : l->n_keys;
        all_rows += s->n_rows;
        all_keys += s->n_keys;
    }
    if (l->a->lanes == LANES_PACKED) {
        l->n_rows = all_rows + 1;
        l->n_keys = all_keys;
    } else {
        l->n_batch = l->n_lanes;
    }
    int row = 1, key = 1;
    for (int i = 0; i < l->n_lanes; i++) {
        struct lane *lane = &l->lanes[i];
        candid_segment *s = &lane->segment;
        s->batch = l->a->lanes == LANES_PACKED ? 0 : i;
        s->first_row = l->a->lanes == LANES_PACKED ? row : l->a->lanes == LANES_LEFT ? (int)l->n_rows - s->n_rows : 0;
        s->key_offset = l->a->lanes == LANES_PACKED ? key : l->a->lanes == LANES_LEFT ? (int)l->n_keys - s->n_keys : 0;
        assert_true(s->n_keys <= 64);
        for (int k = 0; l->a->shuffled && k < s->n_keys; k++) {
            lane->columns[k] = s->key_offset + (k * 7 + 3) % s->n_keys; /* no multiple of 7 keys, see lab_lanes */
        }
        s->key_columns = l->a->shuffled ? lane->columns : NULL;
        row += s->n_rows;
        key += s->n_keys;
    }
}

/* n_rows[i] rows of lane i from its place first[i] on. */
static inline void lab_pass(struct lab *l, candid_role role, uint32_t rows, const int *n_rows, const int *first) {
    candid_segment segments[LAB_LANES];
    l->role = role;
    l->rows = rows;
    for (int i = 0; i < l->n_lanes; i++) {
        l->lanes[i].segment = (candid_segment){.struct_size = sizeof *segments,
                                               .sequence = l->lanes[i].sequence,
                                               .role = role,
                                               .n_rows = n_rows[i],
                                               .first_index = first[i],
                                               .n_keys = first[i] + n_rows[i]};
    }
    lab_place(l);
    for (int i = 0; i < l->n_lanes; i++) {
        segments[i] = l->lanes[i].segment;
    }
    OK(candid_pass_begin(l->pass, segments, (size_t)l->n_lanes, error));
    for (int layer = 0; layer < LAB_LAYERS; layer++) {
        lab_hidden(l, CANDID_SITE_BLOCK_INPUT, layer);
        lab_attention(l, CANDID_SITE_ATTENTION_SCORES, layer);
        lab_attention(l, CANDID_SITE_ATTENTION_PROBS, layer);
        lab_hidden(l, CANDID_SITE_HEAD_OUTPUT, layer);
        lab_hidden(l, CANDID_SITE_MLP_OUTPUT, layer);
        lab_hidden(l, CANDID_SITE_BLOCK_OUTPUT, layer);
    }
    lab_hidden(l, CANDID_SITE_FINAL_NORM, LAB_LAYERS);
    lab_logits(l);
    OK(candid_pass_end(l->pass, error));
}

/* Companions, prompts, a few tokens, of n lanes side by side. */
static inline void lab_run(candid_pass *pass, const struct arrangement *a, struct lane *lanes, int n_lanes) {
    struct lab l = {.a = a, .pass = pass, .lanes = lanes, .n_lanes = n_lanes, .run = {.struct_size = sizeof l.run}};
    int n_rows[LAB_LANES], first[LAB_LANES] = {0};
    OK(candid_sequence_run(lanes[0].sequence, &l.run, error));
    for (int role = CANDID_ROLE_COUNT - 1; role >= 0; role--) {
        for (int i = 0; i < n_lanes; i++) {
            n_rows[i] = lanes[i].n_before + lanes[i].n_after + (role == CANDID_ROLE_TEXT_ONLY ? 0 : LAB_IMAGE);
        }
        if (role == CANDID_ROLE_MAIN || (l.run.companions >> role & 1u)) {
            lab_pass(&l, (candid_role)role, CANDID_ROWS_PROMPT, n_rows, first);
        }
    }
    for (int t = 0; t < LAB_STEPS; t++) {
        for (int i = 0; i < n_lanes; i++) {
            first[i] += n_rows[i];
            n_rows[i] = 1;
        }
        lab_pass(&l, CANDID_ROLE_MAIN, CANDID_ROWS_GENERATED, n_rows, first);
    }
}

/* Questions of different lengths. */
static inline void lab_lanes(const struct lab_plugin *p, struct lane *lanes, int n) {
    static const int lengths[LAB_LANES][2] = {{2, 3}, {4, 2}, {1, 5}}; /* with LAB_STEPS tokens never 7, 14, … keys */
    for (int i = 0; i < n; i++) {
        lanes[i] = (struct lane){.number = i, .n_before = lengths[i][0], .n_after = lengths[i][1]};
        OK(candid_task_create(p->plugin, "What is it?", 1, &lanes[i].task, error));
        lanes[i].sequence = lab_sequence(lanes[i].task, lanes[i].n_before, lanes[i].n_after);
    }
}

static inline void lab_lanes_free(struct lane *lanes, int n) {
    for (int i = 0; i < n; i++) {
        candid_sequence_free(lanes[i].sequence);
        candid_task_free(lanes[i].task);
        free(lanes[i].made);
    }
}

#endif
