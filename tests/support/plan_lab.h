/*
 * Plans of methods for models that need not exist, and attention rows with chosen probabilities through any backend.
 * Include after cmocka.h.
 */
#ifndef CANDID_TESTS_PLAN_LAB_H
#define CANDID_TESTS_PLAN_LAB_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backends.h"
#include "interventions/interventions.h"
#include "lm/kv.h"

/* ---- plans ---- */

/* A prompt of text, one image of n_image tokens without a grid (none: no image) and text. */
static inline struct layout lab_layout(int before, int n_image, int after) {
    struct layout layout = {0};
    assert_int_equal(layout_append(&layout, n_image ? SPAN_SYSTEM : SPAN_QUESTION, before, -1, 0, 0, NULL), CANDID_OK);
    assert_int_equal(layout_append(&layout, SPAN_IMAGE, n_image, 0, 0, 0, NULL), CANDID_OK);
    assert_int_equal(layout_append(&layout, SPAN_QUESTION, after, -1, 0, 0, NULL), CANDID_OK);
    return layout;
}

static inline struct candid_config *lab_config(const char *json) {
    struct candid_config *config = NULL;
    candid_error error = {CANDID_OK, ""};
    if (config_parse(methods, json, strlen(json), "test", ".", &config, &error) != CANDID_OK) {
        fail_msg("%s: %s", json, error.message);
    }
    return config;
}

/* The plan that `json` gives for this prompt. */
static inline struct plan *lab_plan(const char *json, const struct model_facts *facts, const struct layout *layout) {
    struct candid_config *config = lab_config(json);
    struct plan *plan = NULL;
    candid_error error = {CANDID_OK, ""};
    if (interventions_compile(config, facts, layout, NULL, 0, 0, NULL, &plan, &error) != CANDID_OK) {
        fail_msg("%s: %s", json, error.message);
    }
    config_free(config);
    assert_non_null(plan);
    return plan;
}

/* The first step of a kind, or NULL. */
static inline struct plan_step *lab_step(const struct plan *plan, enum plan_kind kind) {
    for (int i = 0; i < plan->n_steps; i++) {
        if (plan->steps[i].kind == kind) {
            return &plan->steps[i];
        }
    }
    return NULL;
}

/* VHR's plan for a prompt with an image. */
static inline struct plan *lab_vhr_plan(const char *json, int n_layer, int n_head, int head_dim) {
    const struct model_facts facts = {
        .name = "made up", .n_layer = n_layer, .n_head = n_head, .head_dim = head_dim, .n_embd = n_head * head_dim};
    struct layout layout = lab_layout(2, 3, 1);
    struct plan *plan = lab_plan(json, &facts, &layout);
    layout_free(&layout);
    return plan;
}

/* What an attention step does to the row at `index` of the sequence in `layer`; false: nothing. */
static inline bool lab_edit(const struct plan *plan, const struct plan_step *step, int layer, int index,
                            struct attention_edit *edit) {
    *edit = step->edit;
    edit->classes += (size_t)layer * step->classes_stride;
    return step->layers[layer] && (plan_row_sets(plan, index) & step->rows);
}

/* ---- attention ---- */

/* One call of kv_attend on a sequence of its own. Host memory. */
struct lab_attention {
    int n_head, n_head_kv, head_dim, n_keys;
    float scale;
    const float *k, *v; /* (n_keys, n_head_kv*head_dim) */
    const float *q;     /* (n_rows, n_head*head_dim) */
    int n_rows;
    const int *sees;               /* [n_rows] keys each row sees; NULL: all */
    const struct row_edits *edits; /* [n_rows] or NULL; rows with n_edits 0 get none */
};

static inline void lab_attend(struct backend *b, bool f32, const struct lab_attention *l, float *out) {
    const struct kv_shape shape = {1, l->n_head_kv, l->head_dim, f32};
    struct kv_cache *cache = NULL;
    struct kv_seq *seq = NULL;
    assert_int_equal(kv_cache_create(b, &shape, l->n_keys + KV_BLOCK, &cache, NULL), CANDID_OK);
    assert_int_equal(kv_seq_create(cache, &seq, NULL), CANDID_OK);
    assert_int_equal(kv_reserve(seq, l->n_keys, NULL), CANDID_OK);
    struct attention_row *rows = calloc((size_t)(l->n_keys > l->n_rows ? l->n_keys : l->n_rows), sizeof *rows);
    assert_non_null(rows);
    for (int i = 0; i < l->n_keys; i++) {
        rows[i] = (struct attention_row){.blocks = seq->blocks, .index = kv_next_slot(seq), .n_keys = i + 1};
    }
    struct kv_attention a = {
        .shape = &shape, .n_head = l->n_head, .rows = rows, .n_rows = l->n_keys, .scale = l->scale};
    const size_t n_kv = (size_t)l->n_keys * (size_t)l->n_head_kv * (size_t)l->head_dim;
    const size_t n_q = (size_t)l->n_rows * (size_t)l->n_head * (size_t)l->head_dim;
    float *device[] = {device_copy(b, l->k, n_kv), device_copy(b, l->v, n_kv), device_copy(b, l->q, n_q),
                       device_copy(b, NULL, n_q)};
    b->ops->kv_store(b, &a, device[0], device[1]);
    for (int i = 0; i < l->n_keys; i++) {
        kv_commit(seq);
    }
    for (int i = 0; i < l->n_rows; i++) {
        rows[i] = (struct attention_row){.blocks = seq->blocks,
                                         .index = l->n_keys - 1,
                                         .n_keys = l->sees ? l->sees[i] : l->n_keys,
                                         .edits = l->edits && l->edits[i].n_edits ? &l->edits[i] : NULL};
    }
    a.n_rows = l->n_rows;
    candid_error error = {CANDID_OK, ""};
    if (b->ops->kv_attend(b, &a, device[2], device[3], &error) != CANDID_OK) {
        fail_msg("%s", error.message);
    }
    b->ops->download(b, out, device[3], n_q * sizeof(float));
    for (int i = 0; i < 4; i++) {
        b->ops->release(b, device[i]);
    }
    free(rows);
    kv_seq_free(seq);
    kv_cache_free(cache);
}

/*
 * Queries, keys and values for which row r's head h has the probabilities probs (n_rows, n_head, n_keys) and, with
 * values NULL, shows them, edited, as its output: key j is unit vector j and a query holds logarithms. values:
 * (n_head_kv, n_keys, n_values), the first components of each value. Every head of a row sees n_keys keys.
 */
#define LAB_DIM 32
struct lab_probs {
    float *k, *v, *q;
};

static inline struct lab_probs lab_probs(const double *probs, int n_rows, int n_head, int n_head_kv, int n_keys,
                                         const double *values, int n_values) {
    assert_true(n_keys <= LAB_DIM && n_values <= LAB_DIM);
    const size_t dim = LAB_DIM, heads = (size_t)n_head, kv = (size_t)n_head_kv, keys = (size_t)n_keys;
    struct lab_probs p = {calloc(keys * kv * dim, sizeof(float)), calloc(keys * kv * dim, sizeof(float)),
                          calloc((size_t)n_rows * heads * dim, sizeof(float))};
    assert_true(p.k && p.v && p.q);
    for (size_t j = 0; j < keys; j++) {
        for (size_t h = 0; h < kv; h++) {
            p.k[(j * kv + h) * dim + j] = 1.0f;
            p.v[(j * kv + h) * dim + j] = values ? 0.0f : 1.0f;
            for (size_t d = 0; values && d < (size_t)n_values; d++) {
                p.v[(j * kv + h) * dim + d] = (float)values[(h * keys + j) * (size_t)n_values + d];
            }
        }
    }
    for (size_t i = 0; i < (size_t)n_rows * heads; i++) {
        for (size_t j = 0; j < keys; j++) {
            const double x = probs[i * keys + j];
            p.q[i * dim + j] = x > 0.0 ? (float)log(x) : -200.0f;
        }
    }
    return p;
}

static inline void lab_probs_free(struct lab_probs *p) {
    free(p->k);
    free(p->v);
    free(p->q);
}

#endif
