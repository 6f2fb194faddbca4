/*
 * Plans: what methods measure and change while a prompt and its answer pass the decoder.
 *
 * A plan is a flat array of steps. A step is a probe or an edit at one site (lm/site.h), for a set of layers, heads,
 * rows and key positions. llama_forward() executes plans; it knows no method. A method (src/interventions/) writes the
 * steps before the prompt runs; where an edit depends on what the prompt does, a probe step measures it and its
 * `decide` function, the method's, fills in the tables that later edits read. What was decided during the prompt stays
 * as it is for the answer, so every sequence forked from the prompt shares its plan.
 *
 *   site               probes                            edits
 *   positions          -                                 order of image tokens, keys seen (struct forward_row)
 *   hidden (input)     PROBE_PEAKS                       -
 *   attention.scores   -                                 EDIT_SCORES_ABS, EDIT_SCORES_MEAN_ABS (backend)
 *   attention.probs    PROBE_COLUMNS, PROBE_ROWS         EDIT_PROBS_MOVE, EDIT_PROBS_REPLACE (backend)
 *   head_output        PROBE_HEADS                       PLAN_SCALE_HEADS
 *   hidden (output)    PROBE_HIDDEN                      PLAN_STEER (MLP output or block output)
 *   early_logits       -                                 PLAN_MIX_LAYERS, PLAN_CONTRAST_LAYERS
 */
#ifndef CANDID_LM_PLAN_H
#define CANDID_LM_PLAN_H

#include <cJSON.h>

#include "backend/backend.h"
#include "lm/layout.h"

/* Sequences that run beside the prompt, layer by layer, because a probe compares with them. They carry no edits and are
 * dropped after the prompt. */
enum plan_role {
    ROLE_MAIN,
    ROLE_TEXT_ONLY, /* the prompt without its images */
    ROLE_PLAIN,     /* the prompt as it is */
    ROLE_COUNT
};

/* Where a row stands; a step names the rows it edits by a set of these. */
enum plan_rows {
    ROW_BEFORE = 1,   /* text before the first image */
    ROW_IMAGE = 2,    /* image token */
    ROW_QUESTION = 4, /* text after the first image */
    ROW_LAST = 8,     /* the prompt's last row (also ROW_QUESTION, or ROW_BEFORE without image) */
    ROW_GENERATED = 16,
    ROW_PROMPT = ROW_BEFORE | ROW_IMAGE | ROW_QUESTION | ROW_LAST,
    ROW_ALL = ROW_PROMPT | ROW_GENERATED,
};

enum plan_kind {
    PLAN_ATTENTION,       /* `edit` on attention rows; PROBE_PROBS_MASS adds up in table (n_layer, n_head) */
    PLAN_SCALE_HEADS,     /* head h of layer l times table[l][h] */
    PLAN_STEER,           /* rows pushed towards vector table[l] with `strength` */
    PLAN_MIX_LAYERS,      /* normalised final state * (1 - strength) + sum of strength * table[l] * output of block l */
    PLAN_CONTRAST_LAYERS, /* logits of earlier states beside the final ones, which `contrast` changes */
    PLAN_PROBE_PEAKS,     /* max over dims of |x_d| / sqrt(mean(x²) + 1e-6) of each prompt row entering layer l */
    PLAN_PROBE_COLUMNS,   /* attention that each key gets from the prompt's rows, per head, before any edit of the layer
                           */
    PLAN_PROBE_HEADS,     /* head vectors of the last prompt row, here and in the companion `role` */
    PLAN_PROBE_HIDDEN,    /* block output at the last row of ROLE_PLAIN and of ROLE_TEXT_ONLY */
    PLAN_PROBE_ROWS,      /* attention of each of `rows`, in the prompt and after it, reduced over the heads */
};

/* What a probe measured at one layer. Host memory, valid during the call. */
struct probe_result {
    int layer;
    int first, n_rows;    /* PEAKS: prompt positions [first, first + n_rows) */
    const float *peaks;   /* PEAKS: (n_rows) */
    const float *columns; /* COLUMNS: (n_head, n_keys) sums of probabilities over the rows that see the key */
    const int *seen_by;   /* COLUMNS: [n_keys] number of those rows */
    int n_keys;
    const float *own, *other; /* HEADS: (n_head*head_dim) main and companion; HIDDEN: (n_embd) with and without image */
    /* ROWS: one call per row, in the order of the batch, which is that of the plan's sequences and beams in it. */
    int row;             /* number among the plan's rows of this pass */
    int index;           /* where its own key lies in its sequence */
    const float *values; /* [n_keys] by position in the sequence; 0 for keys the row does not see */
};

struct plan_step;
typedef void (*probe_fn)(struct plan_step *step, const struct probe_result *result);

struct plan_step {
    enum plan_kind kind;
    const struct method *owner;    /* whose step it is, for reports; the executor does not look */
    bool *layers;                  /* [n_layer], owned by the plan; decide() may switch layers on and off */
    unsigned rows;                 /* set of enum plan_rows: edits and PROBE_ROWS */
    enum plan_role own_role, role; /* PROBE_HEADS: the sequences compared, usually ROLE_MAIN and a companion */

    /* PLAN_ATTENTION. edit.classes and edit.heads point at layer 0; layer l's are l strides further. */
    struct attention_edit edit;
    size_t classes_stride, heads_stride;

    float *table; /* SCALE_HEADS (n_layer, n_head), STEER (n_layer, n_embd), MIX_LAYERS (n_layer); owned by the plan */
    float strength;
    enum steer_mode steer; /* STEER_RESIDUAL acts on the block output, the others on the MLP output */

    /* CONTRAST_LAYERS, for rows whose logits are wanted: the outputs of `layers` and, where `embeddings` says so, what
     * enters layer 0 go through the output matrix, first through the final norm if `normed`. contrast() changes the
     * row's n_vocab final logits in place; early: host (n_early, n_vocab), embeddings first, then layer by layer. */
    bool embeddings, normed;
    bool keep_all; /* contrast() excludes no token: in a branch of another contrast, whose main row decides that */
    void (*contrast)(struct plan_step *step, float *logits, const float *early, int n_early, int n_vocab);

    const int *dims; /* PROBE_PEAKS: [n_dims], owned by the plan */
    int n_dims;
    const uint8_t *probe_heads; /* PROBE_COLUMNS: (n_layer, n_head) heads wanted, or NULL */
    enum head_reduction reduce; /* PROBE_ROWS */
    bool before_edits;          /* PROBE_ROWS: as the layer's probabilities are before its edits, else after them */
    probe_fn decide;
    void *state; /* decide's and contrast's own, owned by the plan */

    /* What was really done, for reports. */
    int64_t rows_done;   /* rows (attention: rows times heads) edited */
    int64_t rows_looked; /* attention: rows times heads where the condition was asked */
    double moved;        /* EDIT_PROBS_MOVE, _REPLACE: probability moved, summed over rows_done */
    int64_t prompt_rows; /* of rows_done, those of the prompt */
};

/* What the last row of a companion that ran in a pass of its own left for the probes that compare with it. */
struct plan_kept {
    float *heads;  /* (n_layer, n_head*head_dim) */
    float *hidden; /* (n_layer, n_embd) block output */
};

#define PLAN_NOTE 240

struct plan;

/* What one method did in one request. */
struct plan_note {
    const struct method *method;
    char idle[PLAN_NOTE]; /* why it (or a part of it) did nothing, or "" */
    bool acts;            /* it does its work without steps: positions and mask */
    /* Adds what the method knows beyond its steps' tallies (sinks found, …); may be NULL. */
    void (*report)(const struct plan *plan, const struct plan_note *note, cJSON *out);
    void *state; /* owned by the plan */
};

/* One prompt's plan. Start from plan_create. */
struct plan {
    int n_layer, n_head, n_embd;
    struct plan_step *steps; /* [n_steps] */
    int n_steps, step_capacity;
    struct plan_note *notes; /* [n_notes], one per active method */
    int n_notes;
    bool companions[ROLE_COUNT]; /* which sequences must run beside the prompt */
    bool whole_prompt;           /* a probe or mask needs all rows of the prompt in one pass */
    enum image_order order;
    int unlock_begin, unlock_end; /* image rows also see prompt positions [begin, end); end 0: causal */
    int n_prompt;                 /* positions of the prompt */
    uint8_t *row_sets;            /* [n_prompt] set of enum plan_rows */
    struct plan_kept *kept;       /* [ROLE_COUNT], or NULL: companions run beside the prompt */
    float *peaks;                 /* (n_steps, n_layer, n_prompt) what PROBE_PEAKS saw, or NULL: not kept */
    void **owned;                 /* memory to free with the plan */
    int n_owned, owned_capacity;
};

candid_status plan_create(int n_layer, int n_head, int n_embd, const struct layout *prompt, struct plan **out,
                          candid_error *error);
void plan_free(struct plan *plan);

/* Zeroed memory that lives as long as the plan. */
candid_status plan_alloc(struct plan *plan, size_t count, size_t size, void *out, candid_error *error);

/* A new step with all layers off. The pointer is valid until the next plan_add. */
candid_status plan_add(struct plan *plan, enum plan_kind kind, const struct method *owner, struct plan_step **out,
                       candid_error *error);

/* The sets a row belongs to; index: position in its sequence. */
unsigned plan_row_sets(const struct plan *plan, int index);

bool plan_has(const struct plan *plan, enum plan_kind kind);

/* From now on plan->peaks is kept. */
candid_status plan_record_peaks(struct plan *plan, candid_error *error);

/* From now on companions run before the prompt, in passes of their own. */
candid_status plan_keep_companions(struct plan *plan, int head_dim, candid_error *error);

/* What step `step` saw at a layer: [n_prompt]. */
float *plan_peaks_at(const struct plan *plan, const struct plan_step *step, int layer);

/* Tells the PROBE_PEAKS steps of a plan what those of another, with the same steps, have seen of the first n_rows
 * positions, which both prompts have in common. */
void plan_replay_peaks(struct plan *plan, const struct plan *seen, int n_rows);

#endif
