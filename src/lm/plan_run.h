/*
 * Execution of plans at the sites of one forward pass. llama_forward() calls one function per site; each does nothing
 * where no row has a plan.
 */
#ifndef CANDID_LM_PLAN_RUN_H
#define CANDID_LM_PLAN_RUN_H

#include "lm/plan.h"

/* What executes with a row of the batch. */
struct plan_row {
    struct plan *plan; /* NULL: an ordinary row */
    enum plan_role role;
    unsigned sets; /* of enum plan_rows */
    int index;     /* position in its sequence */
    bool wanted;   /* its logits are; of a prompt that is the last row of each sequence */
};

/* Work memory of one network. Start from {0}. */
struct plan_run {
    struct backend *b;
    struct plan_row *rows; /* of the current batch; n_rows shrinks with the batch */
    int n_rows;
    bool active;   /* a row has a plan */
    bool counting; /* off while a pass is only shown to an observer */
    struct row_edits *row_edits;
    struct attention_edit *edits;
    struct plan_step **edit_steps;
    float *moved, *host;
    int *seen_by;
    struct row_probe *probes; /* of one layer, in the order of the rows */
    struct plan_step **probe_steps;
    int *probe_rows; /* indices into rows */
    int n_probes;
    float *probed;
    size_t probe_capacity, probed_capacity;
    /* Where attention is shown from outside there are no keys: ops->kv_columns of rows that stand at a->rows. NULL: the
     * backend's. */
    candid_status (*shown_columns)(void *shown, const struct kv_attention *a, const uint8_t *heads, float *sums,
                                   candid_error *error);
    void *shown;
    size_t row_capacity, edit_capacity, moved_capacity, host_capacity, seen_capacity;
};

void plan_run_free(struct plan_run *run);

/* Makes *array (a pointer to the elements) hold `count`. */
candid_status plan_room(void *array, size_t *capacity, size_t count, size_t size, candid_error *error);

/* site hidden, input of a layer: x (rows, n_embd) */
candid_status plan_at_input(struct plan_run *run, int layer, const float *x, int n_embd, candid_error *error);

/* sites attention.scores and attention.probs: attaches edits and probes to the rows of `a`, whose first row is the
 * run's first. q is for probes of columns. After the attention, plan_after_attention() counts what was done and tells
 * what was probed. */
candid_status plan_at_attention(struct plan_run *run, int layer, struct kv_attention *a, struct attention_row *views,
                                const float *q, candid_error *error);
void plan_after_attention(struct plan_run *run, const struct kv_attention *a);

/* site head_output: heads (rows, n_head*head_dim), edited in place */
candid_status plan_at_heads(struct plan_run *run, int layer, float *heads, int n_head, int head_dim,
                            candid_error *error);

/* site hidden, output of the MLP before it is added to x: mlp (rows, n_embd), edited in place */
candid_status plan_at_mlp(struct plan_run *run, int layer, const float *x, float *mlp, int n_embd, candid_error *error);

/* site hidden, output of a layer: x (rows, n_embd), edited in place */
candid_status plan_at_output(struct plan_run *run, int layer, float *x, int n_embd, candid_error *error);

/*
 * site early_logits. Rows whose logits are wanted are counted in the order of the batch, also while others are there.
 */
bool plan_mixes(const struct plan_run *run);
/* Adds what the rows of x contribute to their mixes: device (wanted rows, n_embd). */
void plan_mix_layer(struct plan_run *run, int layer, const float *x, float *mixed, int n_embd);
/* normed = (1 - strength) normed + mix, of row `row` */
void plan_mix_final(struct plan_run *run, int row, float *normed, const float *mix, int n_embd);

/* The final norm, for earlier states that want it. */
struct early_norm {
    const float *weight;
    float eps;
};
/* Number of earlier states that row number `row` contrasts with. */
int plan_row_states(const struct plan_run *run, int row);
/* Number of earlier states that the batch's wanted rows contrast with. */
int plan_early_states(const struct plan_run *run);
/* Copies those that are outputs of `layer` (-1: the embeddings), x (rows, n_embd), to their places in `early`, device
 * (plan_early_states, n_embd). */
void plan_keep_early(struct plan_run *run, int layer, const float *x, float *early, int n_embd,
                     const struct early_norm *norm);
/* Once only wanted rows are left: changes their logits, host (rows, n_vocab). early: host (plan_early_states, n_vocab)
 */
void plan_contrast(struct plan_run *run, float *logits, const float *early, int n_vocab);

#endif
