/*
 * The op table: everything the networks need from a machine.
 *
 * Networks (src/lm, src/vision) are written once against this table. A backend executes the ops; it knows no
 * network and no method. Buffers named `device` in comments live in the backend's memory: only ops touch them
 * (on the CPU they are ordinary memory). All activations are f32, row-major: (rows, columns).
 *
 * A backend belongs to one thread at a time: it owns scratch memory. Weights are shared and constant.
 */
#ifndef CANDID_BACKEND_BACKEND_H
#define CANDID_BACKEND_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "candid/candid.h"
#include "core/log.h"

/* A weight matrix as stored: y = W x. Row r holds the n_in weights of output feature r. Not owned. */
struct matrix {
    uint32_t type;    /* enum quant_type */
    int n_out, n_in;  /* rows, columns */
    const void *data; /* n_out rows of quant_row_bytes(type, n_in) bytes each, contiguous */
};

/* One product of ops->linear: out = x Wᵀ + bias. */
struct linear_job {
    const struct matrix *w;
    const float *bias; /* (w->n_out) or NULL */
    float *out;        /* device (n_rows, w->n_out), must not overlap x */
    bool step;         /* the rows are tokens of one decoding step, which may be rounded like a lone one's */
};

struct rope_params {
    int n_dims;           /* leading values of each head that are rotated, even */
    float base;           /* frequency base, 10000 for LLaMA */
    float position_scale; /* positions are multiplied by this (linear scaling: 1/factor) */
    const float *factors; /* (n_dims/2) divisors of the frequencies, or NULL */
    bool adjacent_pairs;  /* true: rotate (2i, 2i+1) as GGUF files want; false: (i, i + n_dims/2) as Hugging Face */
};

enum gelu_kind { GELU_ERF, GELU_QUICK };

/* x' = |x| normalise(...), where normalise(a) = a / max(|a|, 1e-12). */
enum steer_mode {
    STEER_COSINE,   /* x/|x| + s g v/|v|, g = 1 + max(0, cos(x, -v)) */
    STEER_PLAIN,    /* x/|x| + s v/|v| */
    STEER_RESIDUAL, /* x + s v */
};

/* Where an attention row finds its keys: blocks of KV_BLOCK tokens, see lm/kv.h. */
#define KV_BLOCK 32

/* Geometry of a KV block: [n_layer][K, V][n_head_kv][KV_BLOCK][head_dim] elements of f16 or f32. */
struct kv_shape {
    int n_layer, n_head_kv, head_dim;
    bool f32; /* else f16 */
};

#define KEY_CLASSES 4

enum attention_edit_kind {
    EDIT_SCORES_ABS,      /* s += gain[class] * |s| */
    EDIT_SCORES_MEAN_ABS, /* s += gain[class] * mean of |s| over all heads, s as the edits before left it; one per row
                           */
    PROBE_PROBS_MASS,     /* changes nothing; `moved` is the probability of the keys of `whole` */
    EDIT_PROBS_MOVE,      /* keys of `from` keep `keep` of their probability; the rest goes to `to` in proportion */
    EDIT_PROBS_REPLACE,   /* the keys a row sees get other probabilities, see enum replace_mode */
};

/* What a row's probabilities a_k become; k counts the n keys it sees. */
enum replace_mode {
    REPLACE_REVERSE,            /* max(a) - a_k */
    REPLACE_REVERSE_NORMALISED, /* the same divided by its sum; a row whose a_k are all equal is left alone */
    REPLACE_UNIFORM,            /* 1/n */
    REPLACE_RANDOM,             /* u_k / sum of u, u_k = ((draw(k) >> 40) + 1/2) / 2^24 */
    REPLACE_SHUFFLE, /* permuted: for i = n-1 .. 1 a_i and a_j change places, j = (draw(i) >> 32) * (i + 1) >> 32 */
};

/*
 * The random numbers of a replaced row are a function of where it stands and of nothing else, so that neither batches
 * nor threads show in them:
 *
 *   draw(k) = mix(stream + k * 0x9E3779B97F4A7C15)
 *   stream  = mix(mix(mix(mix(seed) + layer) + head) + number)      number: of struct attention_row
 *
 * where mix(x) is the first output of splitmix64 with state x. They are uniform in [0, 2^64).
 */

/*
 * One change of attention rows. Every key position has a class below KEY_CLASSES; positions from n_classes on are in
 * class 0. Sets of classes are bit masks.
 */
struct attention_edit {
    enum attention_edit_kind kind;
    const uint8_t *classes; /* host (n_classes), or with class_stride (n_head, n_classes) */
    int n_classes;
    size_t class_stride;  /* from one head's classes to the next; 0: all heads have the same */
    const uint8_t *heads; /* host [n_head], nonzero: edited; NULL: all */

    float gain[KEY_CLASSES]; /* scores */

    /* MOVE. A (row, head) is edited if mass(whole) >= min_mass, mass(part) / (mass(whole) + eps) <= max_share and,
     * where part is not empty, mass(part) > 0: a row that sees none of it is left alone. */
    unsigned from, to, whole, part;
    float keep, min_mass, max_share, eps;
    bool round_f16; /* every intermediate value is rounded to f16, as in a program that works in f16; the row's
                     * probabilities too, also of a head that is then left alone */

    /* REPLACE. Looks at no class. */
    enum replace_mode replace;
    uint64_t seed; /* RANDOM and SHUFFLE */
};

/* The edits of one row, in order. */
struct row_edits {
    const struct attention_edit *edits; /* [n_edits] */
    int n_edits;
    float *moved; /* host (n_edits, n_head), written: mass moved (REPLACE: half the sum of absolute differences; scores:
                     0; MASS: see there), or -1 where the edit left the head alone */
};

enum head_reduction { HEADS_MEAN, HEADS_MAX };

/* What is to be told of a row's probabilities, reduced over the heads. */
struct row_probe {
    enum head_reduction reduce;
    bool before_edits; /* as they are before this call's edits, else after them */
    float *values;     /* host [attention_row_end(row)], written; 0 for keys the row does not see */
};

/* One query row over the keys of its sequence. */
struct attention_row {
    void *const *blocks;           /* device blocks of the sequence, token t in block t / KV_BLOCK */
    int index;                     /* where this row's own key lies in the sequence */
    int n_keys;                    /* keys it sees: 0 .. n_keys-1 (index + 1 when causal) */
    int also_begin, also_end;      /* and these, also_begin >= n_keys; none when also_end is 0 */
    int number;                    /* of the row in its sequence, for random numbers */
    const struct row_edits *edits; /* or NULL */
    /* A probed row is computed as an edited one is, which on a fast path may round differently. */
    const struct row_probe *probes; /* [n_probes] */
    int n_probes;
};

/* Keys from 0 to here may be seen by the row. */
static inline int attention_row_end(const struct attention_row *row) {
    return row->also_end > 0 ? row->also_end : row->n_keys;
}

struct kv_attention {
    const struct kv_shape *shape;
    int layer;
    int n_head;
    const struct attention_row *rows; /* [n_rows] */
    int n_rows;
    float scale; /* of the scores: 1/sqrt(head_dim) */
    /* Observation, off when NULL: pre-softmax scores and post-softmax probabilities, host memory,
     * (n_rows, n_head, max_keys) with max_keys >= every n_keys; entries beyond a row's n_keys are left alone. */
    float *scores_out, *probs_out;
    int max_keys;
};

struct backend;

struct backend_ops {
    void (*destroy)(struct backend *b);

    /* ---- device memory ---- */
    candid_status (*alloc)(struct backend *b, size_t bytes, void **out, candid_error *error); /* 64-byte aligned */
    void (*release)(struct backend *b, void *device);
    void (*upload)(struct backend *b, void *device, const void *host, size_t bytes);
    void (*download)(struct backend *b, void *host, const void *device, size_t bytes);
    void (*copy)(struct backend *b, void *to, const void *from, size_t bytes); /* both device, not overlapping */
    /* n_pieces pieces of `bytes` bytes, each one a stride further than the one before; both device, not overlapping. */
    void (*copy_strided)(struct backend *b, void *to, size_t to_stride, const void *from, size_t from_stride,
                         size_t bytes, int n_pieces);
    void (*zero)(struct backend *b, void *device, size_t bytes);
    /* Waits for what was started; the first failure since the last call of an op that returns no status. */
    candid_status (*finish)(struct backend *b, candid_error *error);

    /* ---- rows in, rows out ---- */
    /* out (n, w->n_in) = rows ids[0..n-1] of the table, decoded to f32. ids: host, each in [0, w->n_out). */
    void (*embed)(struct backend *b, float *out, const struct matrix *w, const int32_t *ids, int n);
    /* Several products of one x (n_rows, n_in); all jobs' matrices have this n_in. */
    candid_status (*linear)(struct backend *b, const float *x, int n_rows, int n_in, const struct linear_job *jobs,
                            int n_jobs, candid_error *error);
    /* out = x / sqrt(mean(x²) + eps) * weight, per row; out may be x. */
    void (*rms_norm)(struct backend *b, float *out, const float *x, const float *weight, int n_rows, int n, float eps);
    void (*layer_norm)(struct backend *b, float *out, const float *x, const float *weight, const float *bias,
                       int n_rows, int n, float eps);
    void (*add)(struct backend *b, float *x, const float *y, size_t n);          /* x += y */
    void (*silu_mul)(struct backend *b, float *gate, const float *up, size_t n); /* gate = silu(gate) * up */
    void (*gelu)(struct backend *b, float *x, size_t n, enum gelu_kind kind);    /* in place */
    void (*silu)(struct backend *b, float *x, size_t n);                         /* in place */
    /* table: device (n_rows, n_dims/2, 2) = cos and sin of position * frequency. positions: host [n_rows]. */
    void (*rope_table)(struct backend *b, float *table, const int32_t *positions, int n_rows,
                       const struct rope_params *params);
    /* Rotates n_head heads of head_dim values per row, in place. */
    void (*rope)(struct backend *b, float *x, const float *table, int n_rows, int n_head, int head_dim,
                 const struct rope_params *params);

    /* ---- attention ---- */
    /* Stores k and v (n_rows, n_head_kv*head_dim) at rows[i].index of each row's sequence. */
    void (*kv_store)(struct backend *b, const struct kv_attention *a, const float *k, const float *v);
    /* out (n_rows, n_head*head_dim) = softmax(scale · q Kᵀ) V per head, group-query when n_head > n_head_kv.
     * q as out; must not overlap. */
    candid_status (*kv_attend)(struct backend *b, const struct kv_attention *a, const float *q, float *out,
                               candid_error *error);
    /* sums: host (n_head, max_keys) = sum over the rows of the unedited probabilities; of heads that are not in `heads`
     * (host [n_head], NULL: all) zeros. */
    candid_status (*kv_columns)(struct backend *b, const struct kv_attention *a, const float *q, const uint8_t *heads,
                                float *sums, candid_error *error);
    /* Bidirectional attention inside one sequence (image encoder): q, k, v, out (n_rows, n_head*head_dim).
     * probs_out as above with max_keys = n_rows, or NULL. */
    candid_status (*attend_full)(struct backend *b, const float *q, const float *k, const float *v, float *out,
                                 int n_rows, int n_head, int head_dim, float scale, float *probs_out,
                                 candid_error *error);
    /* probs: host (n_head, n_rows) = softmax(scale · q Kᵀ) of one query row q (n_head*head_dim) over all rows of k. */
    candid_status (*attend_row)(struct backend *b, const float *q, const float *k, float *probs, int n_rows, int n_head,
                                int head_dim, float scale, candid_error *error);

    /* ---- plans ---- */
    /* out: host [n_rows] = max over dims (host [n_dims]) of |x_d| / sqrt(mean(x²) + eps). */
    void (*peaks)(struct backend *b, float *out, const float *x, int n_rows, int n, const int *dims, int n_dims,
                  float eps);
    /* Head h of every row times scale[h] (host [n_head]); x (n_rows, n_head*head_dim), in place. */
    void (*scale_heads)(struct backend *b, float *x, int n_rows, int n_head, int head_dim, const float *scale);
    /* Pushes every row towards v (host [n]), its norm preserved; in place. */
    void (*steer)(struct backend *b, float *x, int n_rows, int n, const float *v, float strength, enum steer_mode mode);
    void (*mix)(struct backend *b, float *out, float keep, const float *x, float add, size_t n); /* keep*out + add*x */
};

struct backend {
    const struct backend_ops *ops;
    char description[96]; /* for logs: "cpu fast (avx2, …)" */
};

/* CPU backend. n_threads 0: every core the process may use. */
candid_status backend_cpu_create(candid_precision precision, int n_threads, const struct logger *log,
                                 struct backend **out, candid_error *error);

static inline void backend_destroy(struct backend *b) {
    if (b) {
        b->ops->destroy(b);
    }
}

#endif
