/*
 * Models of integer formulas for OPERA's decoding (tests/data/method_vectors.json, opera_toy_model), and a driver that
 * runs it as a model's would, with a record in place of keys and values. Include after cmocka.h.
 */
#ifndef CANDID_TESTS_OPERA_TOY_H
#define CANDID_TESTS_OPERA_TOY_H

#include <stdlib.h>
#include <string.h>

#include "decode/opera.h"
#include "ok.h"

#define TOY_VOCAB      64
#define TOY_BEAMS      8
#define TOY_CANDIDATES 16
#define TOY_LENGTH     64 /* generated tokens */
#define TOY_PROMPT     8
#define TOY_NODES      (TOY_LENGTH * TOY_BEAMS)

struct toy {
    int n_vocab, n_image, n_head;
    int32_t prompt[TOY_PROMPT];
    int n_prompt, image_at; /* short ids; index of the image's */
    int a, b, c, d;
    int image_weight, heavy, heavy_from, heavy_mod, heavy_res;
};

/* Logits after the prompt and n generated ids. */
static inline void toy_logits(const struct toy *m, const int32_t *ids, int n, float *logits) {
    int32_t x[2]; /* the last and the one before */
    for (int i = 0; i < 2; i++) {
        x[i] = n > i ? ids[n - 1 - i] : m->prompt[m->n_prompt - 1 - i + n];
    }
    for (int v = 0; v < m->n_vocab; v++) {
        const int y = (m->a * v + m->b * x[0] + m->c * x[1] + m->d * (m->n_prompt + n)) % 101;
        logits[v] = (float)(y * y % 1009) / 128.0f;
    }
}

static inline int toy_weight(const struct toy *m, const int32_t *ids, int h, int i, int j) {
    const int n_positions = m->n_prompt + m->n_image - 1, c = j - n_positions;
    if (j >= m->image_at && j < m->image_at + m->n_image) {
        return m->image_weight + (h + i + j + (i < n_positions ? 0 : ids[i - n_positions])) % 5;
    }
    if (c < 0) {
        return 2;
    }
    return 1 + (h + i + c) % 2 + (c >= m->heavy_from && ids[c] % m->heavy_mod == m->heavy_res ? m->heavy : 0);
}

/* Attention row of the last of n generated ids, maximum over the heads. local: [n] */
static inline struct opera_row toy_row(const struct toy *m, const int32_t *ids, int n, float *local) {
    const int n_positions = m->n_prompt + m->n_image - 1, i = n_positions + n - 1;
    struct opera_row row = {.local = local};
    int sums[8] = {0};
    for (int h = 0; h < m->n_head; h++) {
        for (int j = 0; j <= i; j++) {
            sums[h] += toy_weight(m, ids, h, i, j);
        }
    }
    for (int j = 0; j <= i; j++) {
        float most = 0.0f;
        for (int h = 0; h < m->n_head; h++) {
            const float a = (float)toy_weight(m, ids, h, i, j) / (float)sums[h];
            most = a > most ? a : most;
        }
        row.sum += most;
        row.image_mass += j >= m->image_at && j < m->image_at + m->n_image ? most : 0.0f;
        if (j >= n_positions) {
            local[j - n_positions] = most;
        }
    }
    return row;
}

/* ---- the driver ---- */

/* What a driver keeps of a node. */
struct toy_node {
    bool alive;
    int parent;
    int32_t token;
};

struct toy_run {
    const struct toy *model;
    struct opera *opera;
    struct toy_node nodes[TOY_NODES];
    int n_alive, n_reused, n_measured;           /* n_reused: chosen tokens whose pass had been run */
    void (*change_logits)(float *logits, int n); /* or NULL */
};

/* One call of opera_choose and, after a rollback, of opera_rechoose. */
struct toy_event {
    int step, loc, beam_locs[TOY_BEAMS];
    int rollback_to; /* -1: none */
    int n_alive;
    struct opera_choice choice;
};

static inline void toy_released(void *user_data, int node) {
    struct toy_run *run = user_data;
    assert_true(node >= 0 && node < TOY_NODES && run->nodes[node].alive);
    for (int i = 0; i < TOY_NODES; i++) {
        assert_false(run->nodes[i].alive && run->nodes[i].parent == node); /* children go first */
    }
    run->nodes[node].alive = false;
    run->n_alive--;
}

/* The generated ids of a running beam, from the driver's own record; returns their number. */
static inline int toy_ids(const struct toy_run *run, int beam, int32_t *ids) {
    int32_t told[TOY_LENGTH];
    const int n = opera_step(run->opera);
    opera_beam_ids(run->opera, beam, told);
    int node = opera_beam_node(run->opera, beam);
    for (int i = n - 1; i >= 0; i--) {
        assert_true(node >= 0 && node < TOY_NODES && run->nodes[node].alive);
        ids[i] = run->nodes[node].token;
        assert_int_equal(ids[i], told[i]);
        assert_int_equal(ids[i], opera_node_token(run->opera, node));
        assert_int_equal(run->nodes[node].parent, opera_node_parent(run->opera, node));
        node = run->nodes[node].parent;
    }
    assert_int_equal(node, TREE_ROOT);
    return n;
}

static inline void toy_beam_logits(const struct toy_run *run, float *logits) {
    for (int b = 0; b < opera_n_running(run->opera); b++) {
        int32_t ids[TOY_LENGTH];
        const int n = toy_ids(run, b, ids);
        float *row = logits + b * run->model->n_vocab;
        toy_logits(run->model, ids, n, row);
        if (run->change_logits) {
            run->change_logits(row, run->model->n_vocab);
        }
    }
}

/* New nodes get what their candidate's pass gave, or a pass of their own. former: the beams' nodes before. */
static inline void toy_take_over(struct toy_run *run, const struct opera_choice *choice, const int *former,
                                 int n_beams) {
    for (int b = 0; b < n_beams; b++) {
        const int node = opera_beam_node(run->opera, b);
        assert_true(node >= 0 && node < TOY_NODES && !run->nodes[node].alive);
        run->nodes[node] =
            (struct toy_node){.alive = true, .parent = former[choice->parents[b]], .token = choice->tokens[b]};
        run->n_alive++;
        run->n_reused += choice->candidates[b] >= 0;
    }
    for (int b = 0; b < n_beams && choice->verdict == OPERA_CHOSEN; b++) {
        if (choice->candidates[b] < 0) {
            int32_t ids[TOY_LENGTH];
            float local[TOY_LENGTH];
            const int n = toy_ids(run, b, ids);
            const struct opera_row row = toy_row(run->model, ids, n, local);
            OK(opera_measured(run->opera, b, &row, error));
            run->n_measured++;
        }
    }
}

/* One step of the search; choice.verdict tells whether it was the last. */
static inline struct toy_event toy_step(struct toy_run *run, int n_beams) {
    static float logits[TOY_BEAMS * TOY_VOCAB], locals[TOY_BEAMS * TOY_CANDIDATES][TOY_LENGTH];
    struct opera_row rows[TOY_BEAMS * TOY_CANDIDATES];
    int32_t candidates[TOY_BEAMS * TOY_CANDIDATES], ids[TOY_LENGTH];
    struct opera *o = run->opera;
    struct toy_event e = {.step = opera_step(o), .rollback_to = -1};
    const int n_running = opera_n_running(o), n = opera_n_candidates(o);
    assert_true(n_running * n <= TOY_BEAMS * TOY_CANDIDATES);
    toy_beam_logits(run, logits);
    OK(opera_candidates(o, logits, candidates, error));
    int former[TOY_BEAMS];
    for (int b = 0; b < n_running; b++) {
        toy_ids(run, b, ids);
        former[b] = opera_beam_node(o, b);
        for (int c = b * n; c < (b + 1) * n; c++) {
            ids[e.step] = candidates[c];
            rows[c] = toy_row(run->model, ids, e.step + 1, locals[c]);
        }
    }
    OK(opera_choose(o, rows, &e.choice, error));
    e.loc = opera_loc(o);
    memcpy(e.beam_locs, opera_beam_locs(o), (size_t)n_beams * sizeof *e.beam_locs);
    if (e.choice.verdict == OPERA_ROLLBACK) {
        e.rollback_to = e.choice.step;
        assert_int_equal(opera_step(o), e.rollback_to);
        toy_beam_logits(run, logits);
        for (int b = 0; b < opera_n_running(o); b++) {
            former[b] = opera_beam_node(o, b);
        }
        OK(opera_rechoose(o, logits, &e.choice, error));
    }
    toy_take_over(run, &e.choice, former, n_beams);
    assert_int_equal(opera_live_nodes(o), run->n_alive);
    e.n_alive = run->n_alive;
    return e;
}

static inline void toy_open(struct toy_run *run, const struct toy *model, const struct opera_params *params) {
    struct opera_params p = *params;
    *run = (struct toy_run){.model = model};
    p.n_vocab = model->n_vocab;
    p.n_prompt_ids = model->n_prompt;
    p.node_released = toy_released;
    p.user_data = run;
    OK(opera_create(&p, &run->opera, error));
}

static inline void toy_close(struct toy_run *run) {
    opera_free(run->opera);
    assert_int_equal(run->n_alive, 0);
}

#endif
