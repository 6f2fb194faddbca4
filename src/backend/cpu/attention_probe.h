/* Probes of attention rows (struct row_probe): whole rows of all heads are kept until they can be reduced. */
#ifndef CANDID_BACKEND_CPU_ATTENTION_PROBE_H
#define CANDID_BACKEND_CPU_ATTENTION_PROBE_H

#include "backend/backend.h"

/* Most floats of whole rows held at a time; calls with more go slice by slice of rows. */
#define ATTENTION_SLICE ((size_t)16 << 20)

/* The probabilities of a slice of rows. Of rows that are not probed nothing is written. */
struct probed_rows {
    float *probs; /* (n_rows, n_sets, n_head, stride), or NULL where no row is probed; set 0 after edits, 1 before */
    int n_sets;   /* 0: no row is probed */
    int n_head;
    size_t stride; /* keys */
};

/* Which sets the probes of these rows ask for; no memory yet. */
struct probed_rows probed_rows_of(const struct kv_attention *a, size_t stride);

/* Rows of a slice: as many as fit, at least one, at most n_rows. */
size_t probed_rows_fit(const struct probed_rows *p, int n_rows);

/* Where the probabilities of row number `row` of the slice go as they are before or after the row's edits; NULL: nobody
 * asks. What no edit changes is kept as after edits. */
float *probed_before(const struct probed_rows *p, const struct attention_row *of, int row, int head);
float *probed_after(const struct probed_rows *p, const struct attention_row *of, int row, int head);

/* Once all heads are there: writes the values of the row's probes. */
void probed_reduce(const struct probed_rows *p, const struct attention_row *of, int row);

#endif
