/* A forward pass of a host, shared by pass.c (rows, order, hidden states, logits) and pass_attention.c. */
#ifndef CANDID_HOST_PASS_H
#define CANDID_HOST_PASS_H

#include "backend/cpu/attention_probe.h"
#include "host/host.h"

/* A segment of the host's rows. */
struct pass_segment {
    candid_sequence *sequence;
    enum plan_role role;
    int batch, first_row, n_rows, first_index, n_keys, key_offset;
    int *key_columns; /* [n_keys] of pass->columns, or NULL */
    /* Its last n_last rows are those whose logits count. In a view with no others they begin at row last_at;
     * n_last_all: rows of the batch element in such a view. */
    int n_last, last_at, n_last_all;
};

/* Where a row is found in views. */
struct pass_row {
    int segment;
    int row; /* in the row dimension */
};

/* Rows of a pass that candid works on. */
struct pass_rows {
    struct plan_row *plans; /* [n] */
    struct pass_row *at;    /* [n] */
    int n;
};

/* Attention of one layer between its sites. */
struct pass_attention {
    int layer;                 /* whose edits and probes are attached to the views, -1: none */
    struct probed_rows probed; /* memory of its own */
    size_t probed_capacity;
    float *heads, *work, *mean; /* of each thread: (n_head, keys), [keys], [keys] */
    size_t heads_capacity, work_capacity, mean_capacity;
    const candid_view *shown; /* while edits are attached: the view at hand, and whether it shows scores */
    bool shows_scores;
};

struct candid_pass {
    const candid_plugin *plugin;
    struct backend *cpu;
    struct plan_run run; /* its rows are those of `all` or `last` */
    bool open;
    int progress; /* site_index() of the last site shown, -1: none */

    struct pass_segment *segments; /* [n_segments] */
    size_t n_segments, segment_capacity;
    int *columns; /* all segments' key columns */
    size_t column_capacity;
    struct pass_rows all, last; /* all rows with a plan; those whose logits count */
    size_t row_capacity;
    struct attention_row *views; /* [all.n] */
    uint8_t *wants, *shown;      /* (n_layer + 1, CANDID_SITE_COUNT) */

    float *staged, *early, *mixed; /* dense copies: (rows, n), early logits, (last.n, n_embd) */
    size_t staged_capacity, early_capacity, mixed_capacity;
    struct pass_attention attention;
};

#define MOST_ROWS (1 << 24)

/* Fills p->segments and their key columns. */
candid_status pass_read_segments(candid_pass *pass, const candid_segment *given, size_t n, candid_error *error);

/* Whether rows of a prompt in segment `i` come as their sequence's plan needs them. */
candid_status pass_check_prompt(const candid_pass *pass, size_t i, candid_error *error);

/* Room for `count` floats; what was there is lost. */
candid_status pass_room(float **buffer, size_t *capacity, size_t count, candid_error *error);

/* Scores or probabilities of a layer, (b, h, r, k). */
candid_status pass_attention_at(candid_pass *pass, enum candid_site site, int layer, const candid_view *given,
                                const char *what, candid_error *error);

#endif
