/*
 * Random attention over several sequences, and what it must give: an oracle in double precision that knows nothing of
 * blocks, tiles or kernels. Rows see prefixes and second ranges, and have edits of every kind and probes. Include after
 * cmocka.h.
 */
#ifndef CANDID_TESTS_ATTENTION_SCENE_H
#define CANDID_TESTS_ATTENTION_SCENE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/attention.h"
#include "backend/cpu/attention_edit.h"
#include "model/quant.h"

#define MOST_ROWS   60
#define MOST_EDITS  4
#define MOST_PROBES 2
#define GUARD       16
#define SENTINEL    -12345.0f

static const enum cpu_isa every_isa[] = {ISA_SCALAR, ISA_NEON, ISA_AVX2, ISA_AVX512};
#define N_ISA ((int)(sizeof every_isa / sizeof every_isa[0]))

/* How far a condition stays from its threshold, so that rounding cannot decide it. */
static double scene_margin = 5e-5;

static uint64_t random_state = 1;

static inline uint32_t random_bits(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}

/* low..high, both included */
static inline int random_int(int low, int high) {
    return low + (int)(random_bits() % (uint32_t)(high - low + 1));
}

static inline float random_between(float low, float high) {
    return low + (high - low) * (float)random_bits() / 2147483648.0f;
}

static inline bool chance(int percent) {
    return random_int(1, 100) <= percent;
}

/* ---- scenes ------------------------------------------------------------------------------------ */

#define MOST_KEYS   1536
#define MOST_BLOCKS (MOST_KEYS / KV_BLOCK)

struct sequence {
    void *blocks[MOST_BLOCKS];
    int n_blocks, n_shared, length; /* the first n_shared blocks are another sequence's */
    float *kv[2];                   /* (length, n_head_kv*head_dim), as the cache has rounded them */
};

struct edited_row {
    struct row_edits edits;
    struct attention_edit edit[MOST_EDITS];
    uint8_t *classes[MOST_EDITS], *heads[MOST_EDITS];
    int sequence;
    struct row_probe probes[MOST_PROBES];
    float *values[MOST_PROBES];    /* [keys] and a guard */
    double *expected[MOST_PROBES]; /* [keys] */
};

struct scene {
    struct kv_shape shape;
    struct kv_attention a;
    struct sequence seq[3];
    struct attention_row rows[MOST_ROWS];
    struct edited_row edited[MOST_ROWS];
    float *moved; /* (n_rows, MOST_EDITS, n_head) and a guard */
    float *q;
    double *expected;       /* (n_rows, n_head*head_dim) */
    double *expected_moved; /* as moved */
    double *sums;           /* (n_rows, n_head): sum of the edited probabilities, at least 1 */
    bool rounded;           /* some edit rounds to f16 */
    bool marginal;          /* a condition is too close to its threshold */
};

static inline size_t row_floats(const struct scene *s) {
    return (size_t)s->a.n_head * (size_t)s->shape.head_dim;
}

static inline size_t moved_floats(const struct scene *s) {
    return (size_t)s->a.n_rows * MOST_EDITS * (size_t)s->a.n_head;
}

/* Random keys and values; what lies behind the last token is NaN. fork_of (or NULL) lends some of its full blocks. */
static inline void sequence_fill(struct sequence *q, const struct kv_shape *s, int length,
                                 const struct sequence *fork_of) {
    const size_t width = (size_t)s->n_head_kv * (size_t)s->head_dim, elements = kv_offset(s, s->n_layer, 0, 0);
    q->length = length;
    q->n_blocks = (length - 1) / KV_BLOCK + 1;
    q->n_shared = fork_of ? random_int(0, (length < fork_of->length ? length : fork_of->length) / KV_BLOCK) : 0;
    for (int b = 0; b < q->n_shared; b++) {
        q->blocks[b] = fork_of->blocks[b];
    }
    for (int b = q->n_shared; b < q->n_blocks; b++) {
        q->blocks[b] = malloc(elements * (s->f32 ? sizeof(float) : sizeof(uint16_t)));
        assert_non_null(q->blocks[b]);
        for (size_t i = 0; i < elements; i++) {
            if (s->f32) {
                ((float *)q->blocks[b])[i] = NAN;
            } else {
                ((uint16_t *)q->blocks[b])[i] = 0x7e00;
            }
        }
    }
    for (int value = 0; value < 2; value++) {
        q->kv[value] = malloc((size_t)length * width * sizeof(float));
        assert_non_null(q->kv[value]);
        for (size_t i = 0; i < (size_t)length * width; i++) {
            const int token = (int)(i / width), head = (int)(i % width) / s->head_dim;
            float x = random_between(-1.0f, 1.0f);
            x = token < q->n_shared * KV_BLOCK ? fork_of->kv[value][i] : s->f32 ? x : f16_to_f32(f32_to_f16(x));
            q->kv[value][i] = x;
            const size_t at = kv_offset(s, 1, value, head) + (size_t)(token % KV_BLOCK) * (size_t)s->head_dim +
                              i % (size_t)s->head_dim;
            if (s->f32) {
                ((float *)q->blocks[token / KV_BLOCK])[at] = x;
            } else {
                ((uint16_t *)q->blocks[token / KV_BLOCK])[at] = f32_to_f16(x);
            }
        }
    }
}

enum wanted { WANT_ABS, WANT_MEAN, WANT_MOVE, WANT_REPLACE, WANT_MOVE_F16, WANT_ANY };

static inline void random_edit(struct scene *s, struct edited_row *row, int i, enum wanted wanted) {
    struct attention_edit *e = &row->edit[i];
    const int kind = wanted == WANT_ANY ? random_int(WANT_ABS, WANT_REPLACE) : (int)wanted, n_head = s->a.n_head;
    *e = (struct attention_edit){.kind = kind == WANT_ABS       ? EDIT_SCORES_ABS
                                         : kind == WANT_MEAN    ? EDIT_SCORES_MEAN_ABS
                                         : kind == WANT_REPLACE ? EDIT_PROBS_REPLACE
                                                                : EDIT_PROBS_MOVE,
                                 .replace = (enum replace_mode)random_int(REPLACE_REVERSE, REPLACE_SHUFFLE),
                                 .seed = chance(50) ? (uint64_t)random_int(0, 3) : (uint64_t)random_bits() << 35};
    for (int before = 0; before < i; before++) { /* a second mean is not defined */
        if (e->kind == EDIT_SCORES_MEAN_ABS && row->edit[before].kind == EDIT_SCORES_MEAN_ABS) {
            e->kind = EDIT_SCORES_ABS;
        }
    }
    e->n_classes = random_int(0, s->seq[row->sequence].length + 5);
    const bool per_head = chance(40);
    e->class_stride = per_head ? (size_t)e->n_classes : 0;
    const size_t n = (size_t)(per_head ? n_head : 1) * (size_t)e->n_classes;
    row->classes[i] = malloc(n + 1);
    for (size_t k = 0; k < n; k++) {
        row->classes[i][k] = (uint8_t)random_int(0, KEY_CLASSES - 1);
    }
    e->classes = row->classes[i];
    if (chance(40)) {
        row->heads[i] = malloc((size_t)n_head);
        for (int h = 0; h < n_head; h++) {
            row->heads[i][h] = chance(60) ? (uint8_t)random_int(1, 255) : 0;
        }
        e->heads = row->heads[i];
    }
    for (int c = 0; c < KEY_CLASSES; c++) {
        e->gain[c] = chance(30) ? 0.0f : random_between(-0.8f, 1.5f);
    }
    e->from = (unsigned)random_int(0, 15);
    e->to = (unsigned)random_int(0, 15);
    e->whole = (unsigned)random_int(0, 15);
    e->part = (unsigned)random_int(0, 15);
    e->keep = chance(20) ? (float)random_int(0, 1) : random_between(0.0f, 1.0f);
    e->min_mass = chance(20) ? 0.0f : random_between(0.0f, 0.7f);
    e->max_share = chance(20) ? 1e9f : random_between(0.0f, 1.2f);
    e->eps = chance(50) ? 1e-6f : 1e-3f;
    if (kind == WANT_MOVE_F16) {
        e->round_f16 = s->rounded = true;
        e->whole = 15;
        e->min_mass = chance(80) ? 0.0f : 2.0f; /* nothing that rounding decides */
        e->max_share = 1e9f;
    }
}

static inline void free_edits(struct edited_row *row) {
    for (int i = 0; i < MOST_EDITS; i++) {
        free(row->classes[i]);
        free(row->heads[i]);
        row->classes[i] = row->heads[i] = NULL;
    }
}

/* About two thirds of the rows get edits. */
static inline void random_edits(struct scene *s, int r, enum wanted wanted) {
    struct edited_row *row = &s->edited[r];
    free_edits(row);
    row->edits = (struct row_edits){row->edit, chance(35) && r > 0 ? 0 : random_int(1, MOST_EDITS),
                                    s->moved + (size_t)r * MOST_EDITS * (size_t)s->a.n_head};
    for (int i = 0; i < row->edits.n_edits; i++) {
        random_edit(s, row, i, wanted);
    }
    s->rows[r].edits = row->edits.n_edits ? &row->edits : NULL;
}

/* Half of the rows are probed, some twice. */
static inline void random_probes(struct scene *s, int r) {
    struct edited_row *row = &s->edited[r];
    const size_t n = (size_t)attention_row_end(&s->rows[r]);
    s->rows[r].n_probes = chance(50) ? 0 : random_int(1, MOST_PROBES);
    s->rows[r].probes = row->probes;
    for (int i = 0; i < s->rows[r].n_probes; i++) {
        row->values[i] = malloc((n + GUARD) * sizeof *row->values[i]);
        row->expected[i] = calloc(n, sizeof *row->expected[i]);
        assert_true(row->values[i] && row->expected[i]);
        row->probes[i] = (struct row_probe){chance(50) ? HEADS_MEAN : HEADS_MAX, chance(50), row->values[i]};
    }
}

/* ---- the oracle -------------------------------------------------------------------------------- */

static inline int class_of(const struct attention_edit *e, int head, int key) {
    return key < e->n_classes ? e->classes[(size_t)head * e->class_stride + (size_t)key] : 0;
}

static inline bool visible(const struct attention_row *r, int key) {
    return key < r->n_keys || (r->also_end > 0 && key >= r->also_begin && key < r->also_end);
}

static inline void oracle_move(struct scene *s, const struct attention_edit *e, int head, int n, double *p,
                               double *moved) {
    double whole = 0, part = 0, from = 0, to = 0;
    for (int k = 0; k < n; k++) {
        const unsigned c = 1u << class_of(e, head, k);
        whole += e->whole & c ? p[k] : 0;
        part += e->part & c ? p[k] : 0;
        from += e->from & c ? p[k] : 0;
        to += (e->to & c) && !(e->from & c) ? p[k] : 0;
    }
    const double share = part / (whole + (double)e->eps);
    s->marginal = s->marginal || (e->min_mass > 0 && fabs(whole - (double)e->min_mass) < scene_margin) ||
                  fabs(share - (double)e->max_share) < scene_margin ||
                  (part > 0 && part < 1e-6); /* f16 may have none */
    *moved = -1;
    if (whole >= (double)e->min_mass && share <= (double)e->max_share && to > 0 && (!e->part || part > 0)) {
        *moved = (1 - (double)e->keep) * from;
        for (int k = 0; k < n; k++) {
            const unsigned c = 1u << class_of(e, head, k);
            p[k] = e->from & c ? p[k] * (double)e->keep : e->to & c ? p[k] + *moved * p[k] / to : p[k];
        }
    }
}

/* Output number `skip` of splitmix64. */
static inline uint64_t oracle_splitmix(uint64_t state, uint64_t skip) {
    const uint64_t x = state + (skip + 1) * 0x9E3779B97F4A7C15u;
    const uint64_t y = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u, z = (y ^ y >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* Number k of the stream that belongs to seed, layer, head and row. */
static inline uint64_t oracle_draw(uint64_t seed, int layer, int head, int row, int k) {
    const uint64_t of_layer = oracle_splitmix(oracle_splitmix(seed, 0) + (uint64_t)layer, 0);
    const uint64_t of_head = oracle_splitmix(of_layer + (uint64_t)head, 0);
    return oracle_splitmix(oracle_splitmix(of_head + (uint64_t)row, 0), (uint64_t)k);
}

static inline void oracle_replace(struct scene *s, const struct attention_edit *e, int r, int head, double *p,
                                  double *moved) {
    int keys[MOST_KEYS], n = 0;
    double x[MOST_KEYS], highest = 0, sum = 0;
    for (int k = 0; k < attention_row_end(&s->rows[r]); k++) {
        if (visible(&s->rows[r], k)) {
            keys[n++] = k;
            highest = fmax(highest, p[k]);
        }
    }
    for (int k = 0; k < n; k++) {
        const uint64_t drawn = oracle_draw(e->seed, s->a.layer, head, s->rows[r].number, k);
        x[k] = e->replace == REPLACE_UNIFORM   ? 1
               : e->replace == REPLACE_RANDOM  ? (double)(drawn >> 40) + 0.5
               : e->replace == REPLACE_SHUFFLE ? p[keys[k]]
                                               : highest - p[keys[k]];
        sum += x[k];
    }
    const bool normalised = e->replace != REPLACE_REVERSE && e->replace != REPLACE_SHUFFLE;
    *moved = -1;
    if (normalised && sum == 0) {
        return;
    }
    s->marginal = s->marginal || (e->replace == REPLACE_REVERSE_NORMALISED && sum < 0.1 * highest);
    for (int k = n - 1; k > 0 && e->replace == REPLACE_SHUFFLE; k--) {
        const uint64_t drawn = oracle_draw(e->seed, s->a.layer, head, s->rows[r].number, k);
        const int other = (int)((drawn >> 32) * (uint64_t)(k + 1) >> 32);
        const double kept = x[k];
        x[k] = x[other];
        x[other] = kept;
    }
    *moved = 0;
    for (int k = 0; k < n; k++) {
        x[k] /= normalised ? sum : 1;
        *moved += fabs(x[k] - p[keys[k]]) / 2;
        p[keys[k]] = x[k];
    }
}

/* Takes one head's probabilities into what the row's probes should be told. */
static inline void oracle_probe(struct scene *s, int r, int head, const double *p, bool before) {
    const struct attention_row *row = &s->rows[r];
    for (int i = 0; i < row->n_probes; i++) {
        double *x = s->edited[r].expected[i];
        for (int k = 0; k < attention_row_end(row) && row->probes[i].before_edits == before; k++) {
            x[k] = row->probes[i].reduce == HEADS_MEAN ? (head ? x[k] : 0) + p[k] / s->a.n_head
                                                       : fmax(head ? x[k] : 0, p[k]);
        }
    }
}

/* Scores to probabilities of the n keys, 0 where not seen. */
static inline void oracle_softmax(const struct attention_row *row, const double *scores, int n, double *p) {
    double highest = -INFINITY, sum = 0;
    for (int k = 0; k < n; k++) {
        highest = visible(row, k) ? fmax(highest, scores[k]) : highest;
    }
    for (int k = 0; k < n; k++) {
        sum += p[k] = visible(row, k) ? exp(scores[k] - highest) : 0;
    }
    for (int k = 0; k < n; k++) {
        p[k] /= sum;
    }
}

static inline void oracle_row(struct scene *s, int r) {
    const struct attention_row *row = &s->rows[r];
    const struct sequence *q = &s->seq[s->edited[r].sequence];
    const int n = row->also_end > 0 ? row->also_end : row->n_keys, n_head = s->a.n_head, dim = s->shape.head_dim;
    const int group = n_head / s->shape.n_head_kv, width = s->shape.n_head_kv * dim;
    double *p = calloc((size_t)(n_head * n), sizeof *p), *mean = calloc((size_t)n, sizeof *mean);
    assert_true(p && mean);
    for (int h = 0; h < n_head; h++) {
        for (int k = 0; k < n; k++) {
            for (int d = 0; d < dim; d++) {
                p[h * n + k] += (double)s->q[(r * n_head + h) * dim + d] *
                                (double)q->kv[0][k * width + h / group * dim + d] * (double)s->a.scale;
            }
        }
    }
    for (int h = 0; h < n_head; h++) {
        oracle_softmax(row, p + h * n, n, mean);
        oracle_probe(s, r, h, mean, true);
    }
    double *moved = s->expected_moved + (size_t)r * MOST_EDITS * (size_t)n_head;
    for (int i = 0; row->edits && i < row->edits->n_edits; i++) {
        const struct attention_edit *e = &row->edits->edits[i];
        for (int k = 0; k < n; k++) {
            mean[k] = 0;
            for (int h = 0; h < n_head; h++) {
                mean[k] += fabs(p[h * n + k]) / n_head;
            }
        }
        for (int h = 0; h < n_head && (e->kind == EDIT_SCORES_ABS || e->kind == EDIT_SCORES_MEAN_ABS); h++) {
            const bool edits = !e->heads || e->heads[h];
            moved[i * n_head + h] = edits ? 0 : -1;
            for (int k = 0; k < n && edits; k++) {
                const double magnitude = e->kind == EDIT_SCORES_ABS ? fabs(p[h * n + k]) : mean[k];
                p[h * n + k] += (double)e->gain[class_of(e, h, k)] * magnitude;
            }
        }
    }
    for (int h = 0; h < n_head; h++) {
        oracle_softmax(row, p + h * n, n, p + h * n);
        for (int i = 0; row->edits && i < row->edits->n_edits; i++) {
            const struct attention_edit *e = &row->edits->edits[i];
            if (e->kind == EDIT_PROBS_MOVE || e->kind == EDIT_PROBS_REPLACE) {
                moved[i * n_head + h] = -1;
                if (e->heads && !e->heads[h]) {
                    continue;
                }
                if (e->kind == EDIT_PROBS_MOVE) {
                    oracle_move(s, e, h, n, p + h * n, &moved[i * n_head + h]);
                } else {
                    oracle_replace(s, e, r, h, p + h * n, &moved[i * n_head + h]);
                }
            }
        }
        oracle_probe(s, r, h, p + h * n, false);
        double sum = 0;
        for (int k = 0; k < n; k++) {
            sum += p[h * n + k];
        }
        s->sums[r * n_head + h] = fmax(sum, 1);
        double *out = s->expected + (size_t)(r * n_head + h) * (size_t)dim;
        for (int d = 0; d < dim; d++) {
            out[d] = 0;
            for (int k = 0; k < n; k++) {
                out[d] += p[h * n + k] * (double)q->kv[1][k * width + h / group * dim + d];
            }
        }
    }
    free(p);
    free(mean);
}

/* Random rows over three sequences, with edits whose conditions are clear. */
static inline void scene_begin(struct scene *s, bool f32, int n_head_kv, int group, int dim, int n_keys, int n_rows,
                               enum wanted wanted) {
    *s = (struct scene){.shape = {.n_layer = 2, .n_head_kv = n_head_kv, .head_dim = dim, .f32 = f32}};
    s->a = (struct kv_attention){.shape = &s->shape,
                                 .layer = 1, /* layer 0 stays NaN */
                                 .n_head = n_head_kv * group,
                                 .rows = s->rows,
                                 .n_rows = n_rows,
                                 .scale = 1.0f / sqrtf((float)dim)};
    for (int i = 0; i < 3; i++) {
        sequence_fill(&s->seq[i], &s->shape, i == 0 ? n_keys : random_int(1, n_keys),
                      i == 0 || chance(30) ? NULL : &s->seq[0]);
    }
    int sequence = 0;
    for (int r = 0; r < n_rows; r++) {
        sequence = chance(25) ? random_int(0, 2) : sequence; /* rows of one sequence mostly stand together */
        const int length = s->seq[sequence].length, sees = chance(40) ? length : random_int(1, length);
        s->rows[r] = (struct attention_row){.blocks = s->seq[sequence].blocks, .index = length - 1, .n_keys = sees};
        if (sees < length && chance(40)) {
            s->rows[r].also_begin = random_int(sees, length - 1);
            s->rows[r].also_end = random_int(s->rows[r].also_begin + 1, length);
        }
        s->rows[r].number = chance(50) ? length - 1 : random_int(0, 3);
        s->edited[r].sequence = sequence;
        random_probes(s, r);
    }
    s->q = malloc((size_t)n_rows * row_floats(s) * sizeof *s->q);
    s->expected = malloc((size_t)n_rows * row_floats(s) * sizeof *s->expected);
    s->moved = malloc((moved_floats(s) + GUARD) * sizeof *s->moved);
    s->expected_moved = malloc(moved_floats(s) * sizeof *s->expected_moved);
    s->sums = malloc((size_t)(n_rows * s->a.n_head) * sizeof *s->sums);
    assert_true(s->q && s->expected && s->moved && s->expected_moved && s->sums);
    for (size_t i = 0; i < (size_t)n_rows * row_floats(s); i++) {
        s->q[i] = random_between(-1.5f, 1.5f);
    }
    for (int r = 0; r < n_rows; r++) {
        do {
            random_edits(s, r, wanted);
            s->marginal = false;
            for (int i = 0; i < MOST_EDITS * s->a.n_head; i++) { /* edits the row does not have stay so */
                s->expected_moved[r * MOST_EDITS * s->a.n_head + i] = (double)SENTINEL;
            }
            oracle_row(s, r);
        } while (s->marginal);
    }
}

static inline void scene_free(struct scene *s) {
    for (int r = 0; r < s->a.n_rows; r++) {
        free_edits(&s->edited[r]);
        for (int i = 0; i < MOST_PROBES; i++) {
            free(s->edited[r].values[i]);
            free(s->edited[r].expected[i]);
        }
    }
    for (int i = 0; i < 3; i++) {
        for (int b = s->seq[i].n_shared; b < s->seq[i].n_blocks; b++) {
            free(s->seq[i].blocks[b]);
        }
        free(s->seq[i].kv[0]);
        free(s->seq[i].kv[1]);
    }
    free(s->q);
    free(s->expected);
    free(s->moved);
    free(s->expected_moved);
    free(s->sums);
}

/* ---- runs -------------------------------------------------------------------------------------- */

/* Rows begin..end-1 as one call; isa < 0: the reference. Returns their output, which the caller frees. */
static inline float *run(const struct scene *s, int isa, int begin, int end, int n_threads) {
    struct kv_attention a = s->a;
    a.rows += begin;
    a.n_rows = end - begin;
    const float *q = s->q + (size_t)begin * row_floats(s);
    const size_t n = (size_t)a.n_rows * row_floats(s);
    float *out = malloc((n + GUARD) * sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < n + GUARD; i++) {
        out[i] = SENTINEL;
    }
    for (int r = begin; r < end; r++) {
        for (int i = 0; i < s->rows[r].n_probes; i++) {
            for (int k = 0; k < attention_row_end(&s->rows[r]) + GUARD; k++) {
                s->edited[r].values[i][k] = SENTINEL;
            }
        }
    }
    candid_error error = {0};
    const candid_status status = isa < 0 ? attention_kv_reference(&a, q, out, n_threads, &error)
                                         : attention_kv_fast((enum cpu_isa)isa, &a, q, out, n_threads, &error);
    assert_int_equal(status, CANDID_OK);
    for (size_t i = 0; i < GUARD; i++) {
        assert_true(out[n + i] == SENTINEL);
    }
    return out;
}

static inline const char *name_of(int isa) {
    return isa < 0 ? "reference" : cpu_isa_name((enum cpu_isa)isa);
}

static inline bool available(int isa) {
    return isa < 0 || cpu_isa_available((enum cpu_isa)isa);
}

static inline void check_bits(const float *a, const float *b, size_t n, int isa, int row, const char *what) {
    if (memcmp(a, b, n * sizeof *a) != 0) {
        fail_msg("%s: row %d has other bits %s", name_of(isa), row, what);
    }
}

/* What the last run told the probes. */
static inline void check_probes(const struct scene *s, int isa, const char *what) {
    const double bound = s->rounded ? 8e-3 : 5e-6;
    for (int r = 0; r < s->a.n_rows; r++) {
        const int n = attention_row_end(&s->rows[r]);
        for (int i = 0; i < s->rows[r].n_probes; i++) {
            const float *found = s->edited[r].values[i];
            for (int k = 0; k < n + GUARD; k++) {
                const double e = k < n ? s->edited[r].expected[i][k] : (double)SENTINEL;
                const bool exact = k >= n || !visible(&s->rows[r], k); /* not to be written, or 0 */
                if (exact ? (double)found[k] != e : !(fabs((double)found[k] - e) <= bound)) {
                    fail_msg("%s, %s: row %d: probe %d (%s, %s) is told %.9g of key %d, expected %.9g", name_of(isa),
                             what, r, i, s->rows[r].probes[i].reduce == HEADS_MEAN ? "mean" : "max",
                             s->rows[r].probes[i].before_edits ? "before" : "after", (double)found[k], k, e);
                }
            }
        }
    }
}

static inline void check_oracle(struct scene *s, int isa, int n_threads, const char *what) {
    const double bound = s->rounded ? 8e-3 : 2e-5;
    const size_t n = moved_floats(s);
    for (size_t i = 0; i < n + GUARD; i++) {
        s->moved[i] = SENTINEL;
    }
    float *out = run(s, isa, 0, s->a.n_rows, n_threads);
    for (size_t i = 0; i < (size_t)s->a.n_rows * row_floats(s); i++) {
        if (!(fabs((double)out[i] - s->expected[i]) <= bound * s->sums[i / (size_t)s->shape.head_dim])) {
            fail_msg("%s, %s, %s cache, %d/%d heads of %d: row %d value %d is %.9g, expected %.9g", name_of(isa), what,
                     s->shape.f32 ? "f32" : "f16", s->a.n_head, s->shape.n_head_kv, s->shape.head_dim,
                     (int)(i / row_floats(s)), (int)(i % row_floats(s)), (double)out[i], s->expected[i]);
        }
    }
    for (size_t i = 0; i < n + GUARD; i++) {
        const double e = i < n ? s->expected_moved[i] : (double)SENTINEL;
        const bool exact = e < 0; /* left alone, or not to be written */
        if (exact ? (double)s->moved[i] != e : !(fabs((double)s->moved[i] - e) <= bound * fmax(e, 1))) {
            fail_msg("%s, %s: moved %zu is %.9g, expected %.9g", name_of(isa), what, i, (double)s->moved[i], e);
        }
    }
    check_probes(s, isa, what);
    free(out);
}

/* Everything about one scene, for one family. */
static inline void check_scene(struct scene *s, int isa, const char *what) {
    check_oracle(s, isa, 2, what);
    const size_t n = row_floats(s);
    float *all = run(s, isa, 0, s->a.n_rows, 2), *threads = run(s, isa, 0, s->a.n_rows, 3);
    const struct row_edits *kept[MOST_ROWS];
    for (int r = 0; r < s->a.n_rows; r++) {
        check_bits(all + (size_t)r * n, threads + (size_t)r * n, n, isa, r, "with other threads");
        float *told[MOST_PROBES];
        const size_t n_keys = (size_t)attention_row_end(&s->rows[r]);
        for (int i = 0; i < s->rows[r].n_probes; i++) {
            told[i] = malloc(n_keys * sizeof *told[i]);
            assert_non_null(told[i]);
            memcpy(told[i], s->edited[r].values[i], n_keys * sizeof *told[i]);
        }
        float *alone = run(s, isa, r, r + 1, 1);
        check_bits(all + (size_t)r * n, alone, n, isa, r, "alone");
        free(alone);
        for (int i = 0; i < s->rows[r].n_probes; i++) {
            check_bits(told[i], s->edited[r].values[i], n_keys, isa, r, "in a probe, alone");
            free(told[i]);
        }
        kept[r] = s->rows[r].edits;
        s->rows[r].edits = NULL;
    }
    float *plain = run(s, isa, 0, s->a.n_rows, 2);
    for (int r = 0; r < s->a.n_rows; r++) {
        s->rows[r].edits = kept[r];
        if (!kept[r]) {
            check_bits(all + (size_t)r * n, plain + (size_t)r * n, n, isa, r, "beside edited rows");
        }
    }
    free(all);
    free(threads);
    free(plain);
}

#endif
