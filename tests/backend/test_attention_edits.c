/*
 * Edited attention against an oracle in double precision that knows nothing of blocks, tiles or kernels: random edits
 * of every kind, alone and combined, in rows of several sequences of which some have none, by the reference and every
 * kernel family of this machine. Then what is promised bit by bit: a row gives the same in any company, by any number
 * of threads, and an edit that leaves a head alone changes nothing.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cpu/attention.h"
#include "backend/cpu/attention_edit.h"
#include "model/quant.h"

#define MOST_ROWS  60
#define MOST_EDITS 4
#define MARGIN     5e-5 /* how far a condition stays from its threshold, so that rounding cannot decide it */
#define SENTINEL   -12345.0f
#define GUARD      16

static const enum cpu_isa every_isa[] = {ISA_SCALAR, ISA_NEON, ISA_AVX2, ISA_AVX512};
#define N_ISA ((int)(sizeof every_isa / sizeof every_isa[0]))

static uint64_t random_state = 1;

static uint32_t random_bits(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}

/* low..high, both included */
static int random_int(int low, int high) {
    return low + (int)(random_bits() % (uint32_t)(high - low + 1));
}

static float random_between(float low, float high) {
    return low + (high - low) * (float)random_bits() / 2147483648.0f;
}

static bool chance(int percent) {
    return random_int(1, 100) <= percent;
}

/* ---- scenes ------------------------------------------------------------------------------------ */

#define MOST_KEYS   1536
#define MOST_BLOCKS (MOST_KEYS / KV_BLOCK)

struct sequence {
    void *blocks[MOST_BLOCKS];
    int n_blocks, length;
    float *kv[2]; /* (length, n_head_kv*head_dim), as the cache has rounded them */
};

struct edited_row {
    struct row_edits edits;
    struct attention_edit edit[MOST_EDITS];
    uint8_t *classes[MOST_EDITS], *heads[MOST_EDITS];
    int sequence;
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
    bool rounded;           /* some edit rounds to f16 */
    bool marginal;          /* a condition is too close to its threshold */
};

static size_t row_floats(const struct scene *s) {
    return (size_t)s->a.n_head * (size_t)s->shape.head_dim;
}

static size_t moved_floats(const struct scene *s) {
    return (size_t)s->a.n_rows * MOST_EDITS * (size_t)s->a.n_head;
}

/* Random keys and values; what lies behind the last token is NaN. */
static void sequence_fill(struct sequence *q, const struct kv_shape *s, int length) {
    const size_t width = (size_t)s->n_head_kv * (size_t)s->head_dim, elements = kv_offset(s, s->n_layer, 0, 0);
    q->length = length;
    q->n_blocks = (length - 1) / KV_BLOCK + 1;
    for (int b = 0; b < q->n_blocks; b++) {
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
            float x = random_between(-1.0f, 1.0f);
            x = s->f32 ? x : f16_to_f32(f32_to_f16(x));
            q->kv[value][i] = x;
            const int token = (int)(i / width), head = (int)(i % width) / s->head_dim;
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

enum wanted { WANT_ABS, WANT_MEAN, WANT_MOVE, WANT_MOVE_F16, WANT_ANY };

static void random_edit(struct scene *s, struct edited_row *row, int i, enum wanted wanted) {
    struct attention_edit *e = &row->edit[i];
    const int kind = wanted == WANT_ANY ? random_int(WANT_ABS, WANT_MOVE) : (int)wanted, n_head = s->a.n_head;
    *e = (struct attention_edit){.kind = kind == WANT_ABS    ? EDIT_SCORES_ABS
                                         : kind == WANT_MEAN ? EDIT_SCORES_MEAN_ABS
                                                             : EDIT_PROBS_MOVE};
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

static void free_edits(struct edited_row *row) {
    for (int i = 0; i < MOST_EDITS; i++) {
        free(row->classes[i]);
        free(row->heads[i]);
        row->classes[i] = row->heads[i] = NULL;
    }
}

/* About two thirds of the rows get edits. */
static void random_edits(struct scene *s, int r, enum wanted wanted) {
    struct edited_row *row = &s->edited[r];
    free_edits(row);
    row->edits = (struct row_edits){row->edit, chance(35) && r > 0 ? 0 : random_int(1, MOST_EDITS),
                                    s->moved + (size_t)r * MOST_EDITS * (size_t)s->a.n_head};
    for (int i = 0; i < row->edits.n_edits; i++) {
        random_edit(s, row, i, wanted);
    }
    s->rows[r].edits = row->edits.n_edits ? &row->edits : NULL;
}

/* ---- the oracle -------------------------------------------------------------------------------- */

static int class_of(const struct attention_edit *e, int head, int key) {
    return key < e->n_classes ? e->classes[(size_t)head * e->class_stride + (size_t)key] : 0;
}

static bool visible(const struct attention_row *r, int key) {
    return key < r->n_keys || (r->also_end > 0 && key >= r->also_begin && key < r->also_end);
}

static void oracle_move(struct scene *s, const struct attention_edit *e, int head, int n, double *p, double *moved) {
    double whole = 0, part = 0, from = 0, to = 0;
    for (int k = 0; k < n; k++) {
        const unsigned c = 1u << class_of(e, head, k);
        whole += e->whole & c ? p[k] : 0;
        part += e->part & c ? p[k] : 0;
        from += e->from & c ? p[k] : 0;
        to += (e->to & c) && !(e->from & c) ? p[k] : 0;
    }
    const double share = part / (whole + (double)e->eps);
    s->marginal = s->marginal || (e->min_mass > 0 && fabs(whole - (double)e->min_mass) < MARGIN) ||
                  fabs(share - (double)e->max_share) < MARGIN || (part > 0 && part < 1e-6); /* f16 may have none */
    *moved = -1;
    if (whole >= (double)e->min_mass && share <= (double)e->max_share && to > 0 && (!e->part || part > 0)) {
        *moved = (1 - (double)e->keep) * from;
        for (int k = 0; k < n; k++) {
            const unsigned c = 1u << class_of(e, head, k);
            p[k] = e->from & c ? p[k] * (double)e->keep : e->to & c ? p[k] + *moved * p[k] / to : p[k];
        }
    }
}

static void oracle_row(struct scene *s, int r) {
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
    double *moved = s->expected_moved + (size_t)r * MOST_EDITS * (size_t)n_head;
    for (int i = 0; row->edits && i < row->edits->n_edits; i++) {
        const struct attention_edit *e = &row->edits->edits[i];
        for (int k = 0; k < n; k++) {
            mean[k] = 0;
            for (int h = 0; h < n_head; h++) {
                mean[k] += fabs(p[h * n + k]) / n_head;
            }
        }
        for (int h = 0; h < n_head && e->kind != EDIT_PROBS_MOVE; h++) {
            const bool edits = !e->heads || e->heads[h];
            moved[i * n_head + h] = edits ? 0 : -1;
            for (int k = 0; k < n && edits; k++) {
                const double magnitude = e->kind == EDIT_SCORES_ABS ? fabs(p[h * n + k]) : mean[k];
                p[h * n + k] += (double)e->gain[class_of(e, h, k)] * magnitude;
            }
        }
    }
    for (int h = 0; h < n_head; h++) {
        double highest = -INFINITY, sum = 0;
        for (int k = 0; k < n; k++) {
            highest = visible(row, k) ? fmax(highest, p[h * n + k]) : highest;
        }
        for (int k = 0; k < n; k++) {
            sum += p[h * n + k] = visible(row, k) ? exp(p[h * n + k] - highest) : 0;
        }
        for (int k = 0; k < n; k++) {
            p[h * n + k] /= sum;
        }
        for (int i = 0; row->edits && i < row->edits->n_edits; i++) {
            const struct attention_edit *e = &row->edits->edits[i];
            if (e->kind == EDIT_PROBS_MOVE) {
                moved[i * n_head + h] = -1;
                if (!e->heads || e->heads[h]) {
                    oracle_move(s, e, h, n, p + h * n, &moved[i * n_head + h]);
                }
            }
        }
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
static void scene_begin(struct scene *s, bool f32, int n_head_kv, int group, int dim, int n_keys, int n_rows,
                        enum wanted wanted) {
    *s = (struct scene){.shape = {.n_layer = 2, .n_head_kv = n_head_kv, .head_dim = dim, .f32 = f32}};
    s->a = (struct kv_attention){.shape = &s->shape,
                                 .layer = 1, /* layer 0 stays NaN */
                                 .n_head = n_head_kv * group,
                                 .rows = s->rows,
                                 .n_rows = n_rows,
                                 .scale = 1.0f / sqrtf((float)dim)};
    for (int i = 0; i < 3; i++) {
        sequence_fill(&s->seq[i], &s->shape, i == 0 ? n_keys : random_int(1, n_keys));
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
        s->edited[r].sequence = sequence;
    }
    s->q = malloc((size_t)n_rows * row_floats(s) * sizeof *s->q);
    s->expected = malloc((size_t)n_rows * row_floats(s) * sizeof *s->expected);
    s->moved = malloc((moved_floats(s) + GUARD) * sizeof *s->moved);
    s->expected_moved = malloc(moved_floats(s) * sizeof *s->expected_moved);
    assert_true(s->q && s->expected && s->moved && s->expected_moved);
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

static void scene_free(struct scene *s) {
    for (int r = 0; r < s->a.n_rows; r++) {
        free_edits(&s->edited[r]);
    }
    for (int i = 0; i < 3; i++) {
        for (int b = 0; b < s->seq[i].n_blocks; b++) {
            free(s->seq[i].blocks[b]);
        }
        free(s->seq[i].kv[0]);
        free(s->seq[i].kv[1]);
    }
    free(s->q);
    free(s->expected);
    free(s->moved);
    free(s->expected_moved);
}

/* ---- runs -------------------------------------------------------------------------------------- */

/* Rows begin..end-1 as one call; isa < 0: the reference. Returns their output, which the caller frees. */
static float *run(const struct scene *s, int isa, int begin, int end, int n_threads) {
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
    candid_error error = {0};
    const candid_status status = isa < 0 ? attention_kv_reference(&a, q, out, n_threads, &error)
                                         : attention_kv_fast((enum cpu_isa)isa, &a, q, out, n_threads, &error);
    assert_int_equal(status, CANDID_OK);
    for (size_t i = 0; i < GUARD; i++) {
        assert_true(out[n + i] == SENTINEL);
    }
    return out;
}

static const char *name_of(int isa) {
    return isa < 0 ? "reference" : cpu_isa_name((enum cpu_isa)isa);
}

static bool available(int isa) {
    return isa < 0 || cpu_isa_available((enum cpu_isa)isa);
}

static void check_bits(const float *a, const float *b, size_t n, int isa, int row, const char *what) {
    if (memcmp(a, b, n * sizeof *a) != 0) {
        fail_msg("%s: row %d has other bits %s", name_of(isa), row, what);
    }
}

static void check_oracle(struct scene *s, int isa, int n_threads, const char *what) {
    const double bound = s->rounded ? 8e-3 : 2e-5;
    const size_t n = moved_floats(s);
    for (size_t i = 0; i < n + GUARD; i++) {
        s->moved[i] = SENTINEL;
    }
    float *out = run(s, isa, 0, s->a.n_rows, n_threads);
    for (size_t i = 0; i < (size_t)s->a.n_rows * row_floats(s); i++) {
        if (!(fabs((double)out[i] - s->expected[i]) <= bound)) {
            fail_msg("%s, %s, %s cache, %d/%d heads of %d: row %d value %d is %.9g, expected %.9g", name_of(isa), what,
                     s->shape.f32 ? "f32" : "f16", s->a.n_head, s->shape.n_head_kv, s->shape.head_dim,
                     (int)(i / row_floats(s)), (int)(i % row_floats(s)), (double)out[i], s->expected[i]);
        }
    }
    for (size_t i = 0; i < n + GUARD; i++) {
        const double e = i < n ? s->expected_moved[i] : (double)SENTINEL;
        const bool exact = e < 0; /* left alone, or not to be written */
        if (exact ? (double)s->moved[i] != e : !(fabs((double)s->moved[i] - e) <= bound)) {
            fail_msg("%s, %s: moved %zu is %.9g, expected %.9g", name_of(isa), what, i, (double)s->moved[i], e);
        }
    }
    free(out);
}

/* Everything about one scene, for one family. */
static void check_scene(struct scene *s, int isa, const char *what) {
    check_oracle(s, isa, 2, what);
    const size_t n = row_floats(s);
    float *all = run(s, isa, 0, s->a.n_rows, 2), *threads = run(s, isa, 0, s->a.n_rows, 3);
    const struct row_edits *kept[MOST_ROWS];
    for (int r = 0; r < s->a.n_rows; r++) {
        check_bits(all + (size_t)r * n, threads + (size_t)r * n, n, isa, r, "with other threads");
        float *alone = run(s, isa, r, r + 1, 1);
        check_bits(all + (size_t)r * n, alone, n, isa, r, "alone");
        free(alone);
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

/* ---- tests ------------------------------------------------------------------------------------- */

static const char *const wanted_names[] = {"abs", "mean", "move", "move in f16", "all kinds"};

static void check_shapes(enum wanted wanted) {
    static const struct {
        int n_head_kv, group, dim, keys, rows;
    } shapes[] = {
        {2, 1, 64, 100, 20}, {1, 4, 32, 33, 60},  {2, 2, 80, 257, 12}, {1, 8, 128, 64, 9},  {3, 1, 40, 31, 60},
        {1, 1, 64, 1, 3},    {1, 71, 24, 45, 5},  {2, 4, 100, 40, 17}, {1, 2, 7, 96, 60},   {2, 2, 128, 1500, 5},
        {4, 1, 32, 600, 33}, {1, 16, 64, 130, 8}, {6, 1, 32, 82, 60},  {1, 3, 256, 70, 10}, {1, 1, 1, 65, 30},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (int f32 = 0; f32 < 2; f32++) {
            struct scene s;
            scene_begin(&s, f32, shapes[i].n_head_kv, shapes[i].group, shapes[i].dim, shapes[i].keys, shapes[i].rows,
                        wanted);
            for (int isa = -1; isa < N_ISA; isa++) {
                if (available(isa)) {
                    check_scene(&s, isa, wanted_names[wanted]);
                }
            }
            scene_free(&s);
        }
    }
}

static void scores_grow_by_their_magnitude(void **state) {
    (void)state;
    check_shapes(WANT_ABS);
}

static void scores_grow_by_the_heads_mean(void **state) {
    (void)state;
    check_shapes(WANT_MEAN);
}

static void probabilities_move(void **state) {
    (void)state;
    check_shapes(WANT_MOVE);
}

static void probabilities_move_in_f16(void **state) {
    (void)state;
    check_shapes(WANT_MOVE_F16);
}

static void edits_combine(void **state) {
    (void)state;
    check_shapes(WANT_ANY);
}

/* Conditions that no head meets, heads that are not asked for, gains of 0, sinks that keep all: the reference gives the
 * bits of no edit. */
static void edits_that_leave_heads_alone(void **state) {
    (void)state;
    for (int f32 = 0; f32 < 2; f32++) {
        struct scene s;
        scene_begin(&s, f32, 2, 2, 40, 75, 30, WANT_ANY);
        const size_t n = row_floats(&s);
        for (int r = 0; r < s.a.n_rows; r++) {
            for (int i = 0; i < s.edited[r].edits.n_edits; i++) {
                struct attention_edit *e = &s.edited[r].edit[i];
                memset(e->gain, 0, sizeof e->gain);
                if (e->kind == EDIT_PROBS_MOVE && r % 5 == 0) {
                    e->min_mass = 2.0f;
                } else if (e->kind == EDIT_PROBS_MOVE && r % 5 == 1) {
                    e->max_share = -1.0f;
                } else if (e->kind == EDIT_PROBS_MOVE && r % 5 == 2) {
                    e->to = e->from; /* nothing receives */
                } else if (e->kind == EDIT_PROBS_MOVE) {
                    e->keep = 1.0f;
                }
                if (r % 5 == 3) {
                    memset(e->gain, 0x3f, sizeof e->gain);
                    e->keep = 0.0f;
                    s.edited[r].heads[i] = realloc(s.edited[r].heads[i], (size_t)s.a.n_head);
                    memset(s.edited[r].heads[i], 0, (size_t)s.a.n_head);
                    e->heads = s.edited[r].heads[i];
                }
            }
        }
        float *edited = run(&s, -1, 0, s.a.n_rows, 2);
        for (int r = 0; r < s.a.n_rows; r++) {
            for (int k = 0; s.rows[r].edits && k < s.edited[r].edits.n_edits * s.a.n_head; k++) {
                const struct attention_edit *e = &s.edited[r].edit[k / s.a.n_head];
                const bool move = e->kind == EDIT_PROBS_MOVE, asked = !e->heads || e->heads[k % s.a.n_head];
                const float moved = s.edited[r].edits.moved[k];
                if (move && r % 5 == 4) {
                    assert_true(moved == -1.0f || (moved == 0.0f && asked));
                } else {
                    assert_true(moved == (asked && !move ? 0.0f : -1.0f));
                }
            }
            s.rows[r].edits = NULL;
        }
        float *plain = run(&s, -1, 0, s.a.n_rows, 2);
        for (int r = 0; r < s.a.n_rows; r++) {
            check_bits(edited + (size_t)r * n, plain + (size_t)r * n, n, -1, r, "though nothing is edited");
        }
        free(edited);
        free(plain);
        scene_free(&s);
    }
}

/* Both conditions hold at equality; nothing is edited where nothing can receive. */
static void conditions_include_their_thresholds(void **state) {
    (void)state;
    const uint8_t classes[] = {0, 1, 2, 2}; /* other, whole, whole and part */
    struct attention_edit e = {.kind = EDIT_PROBS_MOVE,
                               .classes = classes,
                               .n_classes = 4,
                               .from = 4,
                               .to = 2,
                               .whole = 6,
                               .part = 4,
                               .keep = 0.5f,
                               .min_mass = 0.5f,
                               .max_share = 0.5f};
    for (int f16 = 0; f16 < 2; f16++) {
        for (int i = 0; i < 4; i++) {
            struct attention_edit edit = e;
            float moved = SENTINEL, p[] = {0.5f, 0.25f, 0.125f, 0.125f};
            const struct row_edits edits = {&edit, 1, &moved};
            edit.round_f16 = f16;
            edit.min_mass += i == 1 ? 0x1p-10f : 0;
            edit.max_share -= i == 2 ? 0x1p-10f : 0;
            edit.to = i == 3 ? 4 : 2;
            attention_edit_probs(&edits, 0, 1, p, 4);
            const float edited[] = {0.5f, 0.375f, 0.0625f, 0.0625f}, plain[] = {0.5f, 0.25f, 0.125f, 0.125f};
            assert_memory_equal(p, i == 0 ? edited : plain, sizeof p);
            assert_true(moved == (i == 0 ? 0.125f : -1.0f));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_grow_by_their_magnitude),
        cmocka_unit_test(scores_grow_by_the_heads_mean),
        cmocka_unit_test(probabilities_move),
        cmocka_unit_test(probabilities_move_in_f16),
        cmocka_unit_test(edits_combine),
        cmocka_unit_test(edits_that_leave_heads_alone),
        cmocka_unit_test(conditions_include_their_thresholds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
