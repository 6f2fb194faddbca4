/*
 * OPERA's decoding without any model: the test says what the logits are and which column is the strongest. Include
 * after cmocka.h.
 */
#ifndef CANDID_TESTS_OPERA_LAB_H
#define CANDID_TESTS_OPERA_LAB_H

#include <string.h>

#include "decode/opera.h"
#include "interventions/config.h"
#include "ok.h"

#define LAB_VOCAB  40
#define LAB_BEAMS  4
#define LAB_LENGTH 64
#define LAB_ROWS   (LAB_BEAMS * 6)

/* Options as a configuration gives them. */
static inline struct opera_options opera_lab_options(const char *json) {
    static const struct method *const table[] = {&method_opera, NULL};
    struct candid_config *config = NULL;
    struct settings settings;
    struct opera_options options;
    OK(config_parse(table, json, strlen(json), "test", ".", &config, error));
    assert_true(config_method(config, &method_opera, &settings));
    opera_params_from(&settings, &options);
    config_free(config);
    return options;
}

/* The released program's, with logits in f32. */
static inline struct opera_options opera_lab_parity(void) {
    return opera_lab_options("{\"opera\": {\"preset\": \"code\", \"logits_fp16\": false}}");
}

struct opera_lab {
    struct opera *o;
    int n_beams, n_vocab;
    float logits[LAB_BEAMS * LAB_VOCAB];   /* of every beam, for the coming steps */
    int strongest[LAB_LENGTH * LAB_BEAMS]; /* column of each node */
};

/* Column scores are 2 for the strongest one and 1 for the others. */
static inline void opera_lab_open(struct opera_lab *lab, const struct opera_params *params) {
    struct opera_params p = *params;
    p.options.scale = 1e4f;
    p.options.score_scale = 1e-3f;
    *lab = (struct opera_lab){.n_beams = p.n_beams, .n_vocab = p.n_vocab};
    assert_true(p.n_beams <= LAB_BEAMS && p.n_vocab <= LAB_VOCAB);
    OK(opera_create(&p, &lab->o, error));
}

/* The same logits for every beam: `first` and so on, from token 0. The others are low. */
static inline void opera_lab_logits(struct opera_lab *lab, const float *first, int n) {
    for (int i = 0; i < lab->n_beams * lab->n_vocab; i++) {
        const int v = i % lab->n_vocab;
        lab->logits[i] = v < n ? first[v] : -5.0f - 0.1f * (float)v;
    }
}

/* The row of token t after node `parent` (TREE_ROOT: none) that makes `loc` the strongest column. */
static inline struct opera_row opera_lab_row(const struct opera_lab *lab, int t, int parent, int loc, float *local) {
    for (int j = 0; j <= t; j++) {
        const float before = j == t ? 1.0f : j == lab->strongest[parent] ? 2000.0f : 1000.0f;
        local[j] = (j == loc ? 2000.0f : 1000.0f) / before * 1e-4f;
    }
    return (struct opera_row){.sum = 1.0f, .image_mass = 0.25f, .local = local};
}

/* After a choice: rows of tokens that were no candidates, with their own column the strongest. locs: of the candidates
 * of each former beam. */
static inline void opera_lab_measure(struct opera_lab *lab, const struct opera_choice *choice, const int *locs) {
    for (int b = 0; b < lab->n_beams; b++) {
        const int node = opera_beam_node(lab->o, b);
        if (choice->candidates[b] >= 0) {
            lab->strongest[node] = locs[choice->parents[b]];
        } else if (choice->verdict == OPERA_CHOSEN) {
            float local[LAB_LENGTH];
            const struct opera_row row =
                opera_lab_row(lab, choice->step, opera_node_parent(lab->o, node), choice->step, local);
            OK(opera_measured(lab->o, b, &row, error));
            lab->strongest[node] = choice->step;
        }
    }
}

/* One step in which candidates of beam b have the strongest column locs[b]. Returns where it went back to, -1: not. */
static inline int opera_lab_step(struct opera_lab *lab, const int *locs, struct opera_choice *choice) {
    struct opera *o = lab->o;
    float local[LAB_ROWS][LAB_LENGTH];
    struct opera_row rows[LAB_ROWS];
    int32_t candidates[LAB_ROWS];
    const int n = opera_n_candidates(o), n_rows = n * opera_n_running(o);
    int to = -1;
    assert_true(n_rows <= LAB_ROWS);
    OK(opera_candidates(o, lab->logits, candidates, error));
    for (int i = 0; i < n_rows; i++) {
        rows[i] = opera_lab_row(lab, opera_step(o), opera_beam_node(o, i / n), locs[i / n], local[i]);
    }
    OK(opera_choose(o, rows, choice, error));
    if (choice->verdict == OPERA_ROLLBACK) {
        to = choice->step;
        OK(opera_rechoose(o, lab->logits, choice, error));
    }
    opera_lab_measure(lab, choice, locs);
    return to;
}

/* The same with one column for all beams. */
static inline int opera_lab_step_all(struct opera_lab *lab, int loc, struct opera_choice *choice) {
    int locs[LAB_BEAMS];
    for (int b = 0; b < LAB_BEAMS; b++) {
        locs[b] = loc;
    }
    return opera_lab_step(lab, locs, choice);
}

#endif
