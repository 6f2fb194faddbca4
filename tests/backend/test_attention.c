/*
 * Attention against an oracle in double precision: every kernel family of this machine, both cache types, group-query,
 * odd head dims, partial blocks, scattered and shared blocks. Every slot no row may see is poisoned with NaN, every
 * buffer is allocated to its exact size, and results must not depend on the company a row keeps.
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
#include "model/quant.h"

#define MAX_ROWS   80
#define MAX_BLOCKS 64
#define TOLERANCE  1e-5
/* f32 scores near 80 are rounded by some 80 · 2^-24 in every later addition, and their error is that of the result. */
#define LARGE_SCORES_TOLERANCE 4e-5
#define SENTINEL               -12345.0f
#define GUARD                  16

static const enum cpu_isa every_isa[] = {ISA_SCALAR, ISA_NEON, ISA_AVX2, ISA_AVX512};
#define N_ISA (sizeof every_isa / sizeof every_isa[0])

/* ---- data -------------------------------------------------------------------------------------- */

static uint64_t random_state = 1;

static uint32_t random_bits(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}

/* Uniform in [-1, 1). */
static float random_value(void) {
    return (float)random_bits() / 1073741824.0f - 1.0f;
}

static float *random_floats(size_t n) {
    float *x = malloc(n * sizeof(float));
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) {
        x[i] = random_value();
    }
    return x;
}

static size_t block_elements(const struct kv_shape *s) {
    return kv_offset(s, s->n_layer, 0, 0);
}

static size_t element_bytes(const struct kv_shape *s) {
    return s->f32 ? sizeof(float) : sizeof(uint16_t);
}

static void write_element(const struct kv_shape *s, void *block, size_t at, float x) {
    if (s->f32) {
        ((float *)block)[at] = x;
    } else {
        ((uint16_t *)block)[at] = f32_to_f16(x);
    }
}

static double read_element(const struct kv_shape *s, const void *block, size_t at) {
    return s->f32 ? (double)((const float *)block)[at] : (double)f16_to_f32(((const uint16_t *)block)[at]);
}

/* A block of its own allocation, all NaN. */
static void *block_new(const struct kv_shape *s) {
    void *block = malloc(block_elements(s) * element_bytes(s));
    assert_non_null(block);
    for (size_t i = 0; i < block_elements(s); i++) {
        write_element(s, block, i, NAN);
    }
    return block;
}

struct sequence {
    void *blocks[MAX_BLOCKS];
    int n_blocks, n_shared; /* the first n_shared belong to another sequence */
    int length;
};

/* Appends random keys and values in `layer` until the sequence is `length` long. */
static void sequence_extend(struct sequence *q, const struct kv_shape *s, int layer, int length) {
    for (; q->length < length; q->length++) {
        const int b = q->length / KV_BLOCK;
        if (b == q->n_blocks) {
            assert_true(b < MAX_BLOCKS);
            q->blocks[q->n_blocks++] = block_new(s);
        }
        for (int value = 0; value < 2; value++) {
            for (int head = 0; head < s->n_head_kv; head++) {
                for (int d = 0; d < s->head_dim; d++) {
                    const int slot = q->length % KV_BLOCK;
                    write_element(s, q->blocks[b],
                                  kv_offset(s, layer, value, head) + (size_t)slot * (size_t)s->head_dim + (size_t)d,
                                  random_value());
                }
            }
        }
    }
}

/* A fork of `of` that shares its first whole blocks. */
static void sequence_fork(struct sequence *q, const struct sequence *of, int n_shared) {
    *q = (struct sequence){.n_blocks = n_shared, .n_shared = n_shared, .length = n_shared * KV_BLOCK};
    memcpy(q->blocks, of->blocks, (size_t)n_shared * sizeof(void *));
}

static void sequence_free(struct sequence *q) {
    for (int i = q->n_shared; i < q->n_blocks; i++) {
        free(q->blocks[i]);
    }
}

struct fixture {
    struct kv_shape shape;
    struct sequence seq[4];
    struct attention_row rows[MAX_ROWS];
    struct kv_attention a;
    float *q;
    double *expected;       /* (n_rows, n_head*head_dim) */
    double *scores, *probs; /* (n_rows, n_head, max_keys) */
};

static void add_row(struct fixture *f, int seq, int index) {
    assert_true(f->a.n_rows < MAX_ROWS);
    f->rows[f->a.n_rows++] = (struct attention_row){.blocks = f->seq[seq].blocks, .index = index, .n_keys = index + 1};
}

static void oracle_head(const struct fixture *f, int row, int head) {
    const struct kv_shape *s = &f->shape;
    const struct attention_row *r = f->rows + row;
    const size_t dim = (size_t)s->head_dim, at = (size_t)row * (size_t)f->a.n_head + (size_t)head;
    const int kv_head = head / (f->a.n_head / s->n_head_kv);
    double *scores = f->scores + at * (size_t)f->a.max_keys, *probs = f->probs + at * (size_t)f->a.max_keys;
    double highest = -INFINITY, sum = 0.0;
    for (int i = 0; i < r->n_keys; i++) {
        const size_t k = kv_offset(s, f->a.layer, 0, kv_head) + (size_t)(i % KV_BLOCK) * dim;
        scores[i] = 0.0;
        for (size_t d = 0; d < dim; d++) {
            scores[i] += (double)f->q[at * dim + d] * read_element(s, r->blocks[i / KV_BLOCK], k + d);
        }
        scores[i] *= (double)f->a.scale;
        highest = fmax(highest, scores[i]);
    }
    for (int i = 0; i < r->n_keys; i++) {
        sum += probs[i] = exp(scores[i] - highest);
    }
    for (int i = 0; i < r->n_keys; i++) {
        probs[i] /= sum;
        const size_t v = kv_offset(s, f->a.layer, 1, kv_head) + (size_t)(i % KV_BLOCK) * dim;
        for (size_t d = 0; d < dim; d++) {
            f->expected[at * dim + d] += probs[i] * read_element(s, r->blocks[i / KV_BLOCK], v + d);
        }
    }
}

/* What the rows give, from f->q; call again after changing q. */
static void oracle(struct fixture *f) {
    const size_t n = (size_t)f->a.n_rows * (size_t)f->a.n_head;
    free(f->expected);
    free(f->scores);
    free(f->probs);
    f->expected = calloc(n * (size_t)f->shape.head_dim, sizeof(double));
    f->scores = calloc(n * (size_t)f->a.max_keys, sizeof(double));
    f->probs = calloc(n * (size_t)f->a.max_keys, sizeof(double));
    for (int row = 0; row < f->a.n_rows; row++) {
        for (int head = 0; head < f->a.n_head; head++) {
            oracle_head(f, row, head);
        }
    }
}

static void fixture_begin(struct fixture *f, bool f32, int n_head_kv, int group, int head_dim) {
    *f = (struct fixture){.shape = {.n_layer = 2, .n_head_kv = n_head_kv, .head_dim = head_dim, .f32 = f32}};
    f->a = (struct kv_attention){.shape = &f->shape,
                                 .layer = 1, /* layer 0 stays NaN */
                                 .n_head = n_head_kv * group,
                                 .rows = f->rows,
                                 .scale = 1.0f / sqrtf((float)head_dim)};
}

static size_t row_floats(const struct fixture *f) {
    return (size_t)f->a.n_head * (size_t)f->shape.head_dim;
}

/* After the rows are added. */
static void fixture_finish(struct fixture *f) {
    for (int i = 0; i < f->a.n_rows; i++) {
        f->a.max_keys = f->rows[i].n_keys > f->a.max_keys ? f->rows[i].n_keys : f->a.max_keys;
    }
    f->a.max_keys += 3;
    f->q = random_floats((size_t)f->a.n_rows * row_floats(f));
    oracle(f);
}

static void fixture_free(struct fixture *f) {
    for (int i = 0; i < 4; i++) {
        sequence_free(&f->seq[i]);
    }
    free(f->q);
    free(f->expected);
    free(f->scores);
    free(f->probs);
}

/* Runs rows begin..end-1 as one call. isa < 0: the reference. out: exact size of the rows. */
static void run_rows(const struct fixture *f, int isa, int begin, int end, int n_threads, float *out) {
    struct kv_attention a = f->a;
    a.rows += begin;
    a.n_rows = end - begin;
    const float *q = f->q + (size_t)begin * row_floats(f);
    candid_error error = {0};
    const candid_status status = isa < 0 ? attention_kv_reference(&a, q, out, n_threads, &error)
                                         : attention_kv_fast((enum cpu_isa)isa, &a, q, out, n_threads, &error);
    assert_int_equal(status, CANDID_OK);
}

static void check_close(const float *out, const double *expected, size_t n, double tolerance, const char *what) {
    for (size_t i = 0; i < n; i++) {
        if (!(fabs((double)out[i] - expected[i]) <= tolerance)) {
            fail_msg("%s: value %zu is %.9g, expected %.9g", what, i, (double)out[i], expected[i]);
        }
    }
}

/* The whole call by one family (or the reference), with guards around the output, against the oracle. */
static float *run_checked(const struct fixture *f, int isa, int n_threads, double tolerance) {
    const size_t n = (size_t)f->a.n_rows * row_floats(f);
    float *guarded = malloc((n + 2 * GUARD) * sizeof(float));
    assert_non_null(guarded);
    for (size_t i = 0; i < n + 2 * GUARD; i++) {
        guarded[i] = SENTINEL;
    }
    run_rows(f, isa, 0, f->a.n_rows, n_threads, guarded + GUARD);
    for (size_t i = 0; i < GUARD; i++) {
        assert_true(guarded[i] == SENTINEL && guarded[GUARD + n + i] == SENTINEL);
    }
    char what[120];
    snprintf(what, sizeof what, "%s %s kv, %d/%d heads of %d, %d rows, %d keys",
             isa < 0 ? "reference" : cpu_isa_name((enum cpu_isa)isa), f->shape.f32 ? "f32" : "f16", f->a.n_head,
             f->shape.n_head_kv, f->shape.head_dim, f->a.n_rows, f->a.max_keys - 3);
    check_close(guarded + GUARD, f->expected, n, tolerance, what);
    memmove(guarded, guarded + GUARD, n * sizeof(float));
    return guarded;
}

static void run_every_family(const struct fixture *f, double tolerance) {
    free(run_checked(f, -1, 2, tolerance));
    for (size_t i = 0; i < N_ISA; i++) {
        if (cpu_isa_available(every_isa[i])) {
            free(run_checked(f, (int)every_isa[i], 2, tolerance));
        }
    }
}

/* Rows of several sequences, n_keys the longest of the first: a lone row, a fork, a prompt's tail. */
static void mixed_rows(struct fixture *f, int n_keys, int n_tail) {
    const int half = n_keys > 1 ? n_keys / 2 : 1;
    for (int length = 7; length < n_keys + 7; length += 7) { /* in turns, so that their blocks interleave */
        sequence_extend(&f->seq[0], &f->shape, 1, length < n_keys ? length : n_keys);
        sequence_extend(&f->seq[1], &f->shape, 1, length < half ? length : half);
    }
    sequence_fork(&f->seq[2], &f->seq[0], n_keys / KV_BLOCK / 2);
    sequence_extend(&f->seq[2], &f->shape, 1, n_keys);
    sequence_extend(&f->seq[3], &f->shape, 1, n_keys + 5);
    add_row(f, 1, half - 1);
    add_row(f, 0, n_keys - 1);
    add_row(f, 2, n_keys - 1);
    for (int i = n_tail < n_keys ? n_keys - n_tail : 0; i < n_keys; i++) {
        add_row(f, 0, i);
    }
    add_row(f, 3, n_keys + 4);
    fixture_finish(f);
}

/* ---- tests ------------------------------------------------------------------------------------- */

static void test_grid(void **state) {
    static const int groups[] = {1, 2, 4, 8};
    static const int dims[] = {8, 32, 64, 80, 96, 128, 20};
    static const int keys[] = {1, 2, 31, 32, 33, 64, 100, 577};
    for (int f32 = 0; f32 < 2; f32++) {
        for (size_t g = 0; g < 4; g++) {
            for (size_t d = 0; d < 7; d++) {
                for (size_t k = 0; k < 8; k++) {
                    struct fixture f;
                    fixture_begin(&f, f32, groups[g] > 2 ? 1 : 2, groups[g], dims[d]);
                    mixed_rows(&f, keys[k], keys[k] > 100 ? 2 : 8);
                    run_every_family(&f, TOLERANCE);
                    fixture_free(&f);
                }
            }
        }
    }
}

static void test_odd_shapes(void **state) {
    static const int shapes[][3] = {{1, 1, 1}, {3, 5, 7}, {1, 71, 24}, {2, 4, 100}, {1, 1, 256}}; /* kv, group, dim */
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        for (int f32 = 0; f32 < 2; f32++) {
            struct fixture f;
            fixture_begin(&f, f32, shapes[i][0], shapes[i][1], shapes[i][2]);
            mixed_rows(&f, 45, 10);
            run_every_family(&f, TOLERANCE);
            fixture_free(&f);
        }
    }
}

/* 70 rows of one prompt, more than a tile, over more than one chunk of keys. */
static void test_prompt(void **state) {
    static const int lengths[] = {70, 577};
    for (int i = 0; i < 2; i++) {
        for (int f32 = 0; f32 < 2; f32++) {
            struct fixture f;
            fixture_begin(&f, f32, 2, 2, 40);
            sequence_extend(&f.seq[0], &f.shape, 1, lengths[i]);
            for (int j = lengths[i] - 70; j < lengths[i]; j++) {
                add_row(&f, 0, j);
            }
            fixture_finish(&f);
            run_every_family(&f, TOLERANCE);
            fixture_free(&f);
        }
    }
}

static void check_bits(const float *a, const float *b, size_t n) {
    assert_memory_equal(a, b, n * sizeof(float));
}

/* A row gives the same bits alone, in any batch, in any cutting of the prompt and with any number of threads. */
static void test_company(void **state) {
    static const int shapes[][4] = {{2, 2, 64, 577}, {1, 1, 20, 1100}, {1, 8, 128, 530}, {4, 1, 80, 70}};
    for (size_t c = 0; c < 8; c++) {
        const int *shape = shapes[c / 2];
        struct fixture f;
        fixture_begin(&f, c % 2, shape[0], shape[1], shape[2]);
        mixed_rows(&f, shape[3], 60);
        const size_t n = row_floats(&f);
        const int n_rows = f.a.n_rows;
        float *other = malloc((size_t)n_rows * n * sizeof(float));
        for (int isa = 0; isa < (int)N_ISA; isa++) {
            if (!cpu_isa_available((enum cpu_isa)isa)) {
                continue;
            }
            float *batch = run_checked(&f, isa, 2, TOLERANCE);
            for (int threads = 1; threads <= 17; threads += 8) {
                run_rows(&f, isa, 0, n_rows, threads, other);
                check_bits(batch, other, (size_t)n_rows * n);
            }
            for (int row = 0; row < n_rows; row++) {
                run_rows(&f, isa, row, row + 1, row % 3 ? 1 : 9, other); /* 9 threads: keys are split */
                check_bits(batch + (size_t)row * n, other, n);
            }
            static const int cuts[] = {0, 2, 3, 20, 43, 1000};
            for (int i = 0; cuts[i] < n_rows; i++) {
                const int end = cuts[i + 1] < n_rows ? cuts[i + 1] : n_rows;
                run_rows(&f, isa, cuts[i], end, 2, other + (size_t)cuts[i] * n);
            }
            check_bits(batch, other, (size_t)n_rows * n);
            free(batch);
        }
        free(other);
        fixture_free(&f);
    }
}

/* Scores between -80 and 80, and one key far above the rest. */
static void test_large_scores(void **state) {
    for (int f32 = 0; f32 < 2; f32++) {
        for (int dominant = 0; dominant < 2; dominant++) {
            struct fixture f;
            fixture_begin(&f, f32, 2, 2, 64);
            mixed_rows(&f, 200, 4);
            double most = 0.0;
            const size_t n_scores = (size_t)f.a.n_rows * (size_t)f.a.n_head * (size_t)f.a.max_keys;
            for (size_t i = 0; i < n_scores; i++) {
                most = fmax(most, fabs(f.scores[i]));
            }
            if (dominant) {
                /* every query along key 50 of its own head: that key's score is 80 for all rows that see it */
                for (int row = 0; row < f.a.n_rows; row++) {
                    for (int head = 0; head < f.a.n_head; head++) {
                        float *q = f.q + (size_t)row * row_floats(&f) + (size_t)head * 64;
                        const size_t at = kv_offset(&f.shape, 1, 0, head / 2) + 18 * 64;
                        double norm = 0.0;
                        for (size_t d = 0; d < 64; d++) {
                            q[d] = (float)read_element(&f.shape, f.rows[row].blocks[1], at + d);
                            norm += (double)q[d] * (double)q[d];
                        }
                        for (size_t d = 0; d < 64; d++) {
                            q[d] *= (float)(80.0 / norm / (double)f.a.scale);
                        }
                    }
                }
            } else {
                for (size_t i = 0; i < (size_t)f.a.n_rows * row_floats(&f); i++) {
                    f.q[i] *= (float)(80.0 / most);
                }
            }
            oracle(&f);
            if (dominant) {
                assert_true(f.probs[50] > 0.999);
            }
            run_every_family(&f, dominant ? TOLERANCE : LARGE_SCORES_TOLERANCE);
            fixture_free(&f);
        }
    }
}

/* The exponential through the softmax: of keys with scores 0 and x, the second has the value 1. */
static void test_exponential(void **state) {
    enum { STEPS = 2000 };
    struct fixture f;
    fixture_begin(&f, true, 1, 1, 1);
    sequence_extend(&f.seq[0], &f.shape, 1, 2);
    for (int i = 0; i < 2; i++) {
        write_element(&f.shape, f.seq[0].blocks[0], kv_offset(&f.shape, 1, 0, 0) + (size_t)i, (float)i);
        write_element(&f.shape, f.seq[0].blocks[0], kv_offset(&f.shape, 1, 1, 0) + (size_t)i, (float)i);
    }
    add_row(&f, 0, 1);
    fixture_finish(&f);
    for (int isa = 0; isa < (int)N_ISA; isa++) {
        for (int i = 0; i <= STEPS && cpu_isa_available((enum cpu_isa)isa); i++) {
            f.q[0] = -100.0f * (float)i / STEPS;
            float out = NAN;
            run_rows(&f, isa, 0, 1, 1, &out);
            const double e = exp((double)f.q[0]), expected = e / (1.0 + e);
            if (f.q[0] < -87.0f) {
                assert_true(out == 0.0f);
            } else if (!(fabs((double)out / expected - 1.0) <= 4e-7)) {
                fail_msg("%s: score %g gives %.9g, expected %.9g", cpu_isa_name((enum cpu_isa)isa), (double)f.q[0],
                         (double)out, expected);
            }
        }
    }
    fixture_free(&f);
}

/* NaN in one key head's K or V must show in its own query heads and nowhere else. */
static void test_poisoned_head(void **state) {
    for (int isa = -1; isa < (int)N_ISA; isa++) {
        for (int value = 0; value < 2 && (isa < 0 || cpu_isa_available((enum cpu_isa)isa)); value++) {
            struct fixture f;
            fixture_begin(&f, value, 2, 2, 32);
            mixed_rows(&f, 40, 8);
            write_element(&f.shape, f.seq[0].blocks[1], kv_offset(&f.shape, 1, value, 1) + 5 * 32 + 3,
                          NAN); /* key 37 */
            const size_t n = (size_t)f.a.n_rows * row_floats(&f);
            float *out = malloc(n * sizeof(float));
            run_rows(&f, isa, 0, f.a.n_rows, 2, out);
            for (int row = 0; row < f.a.n_rows; row++) {
                const bool sees = f.rows[row].n_keys > 37 && f.rows[row].blocks[1] == f.seq[0].blocks[1];
                for (size_t i = 0; i < row_floats(&f); i++) {
                    const size_t at = (size_t)row * row_floats(&f) + i;
                    const bool poisoned = sees && i / 64 == 1 && (value == 0 || i % 32 == 3);
                    if (poisoned) {
                        assert_true(isnan(out[at]));
                    } else {
                        assert_true(fabs((double)out[at] - f.expected[at]) <= TOLERANCE);
                    }
                }
            }
            free(out);
            fixture_free(&f);
        }
    }
}

static void test_observation(void **state) {
    for (int f32 = 0; f32 < 2; f32++) {
        struct fixture f;
        fixture_begin(&f, f32, 2, 2, 20);
        mixed_rows(&f, 50, 6);
        const size_t n = (size_t)f.a.n_rows * (size_t)f.a.n_head * (size_t)f.a.max_keys;
        float *observed[2];
        for (int i = 0; i < 2; i++) {
            observed[i] = malloc(n * sizeof(float));
            for (size_t j = 0; j < n; j++) {
                observed[i][j] = SENTINEL;
            }
        }
        f.a.scores_out = observed[0];
        f.a.probs_out = observed[1];
        free(run_checked(&f, -1, 2, TOLERANCE));
        for (size_t j = 0; j < n; j++) {
            const int row = (int)(j / (size_t)f.a.max_keys) / f.a.n_head, key = (int)(j % (size_t)f.a.max_keys);
            if (key < f.rows[row].n_keys) {
                assert_true(fabs((double)observed[0][j] - f.scores[j]) <= TOLERANCE);
                assert_true(fabs((double)observed[1][j] - f.probs[j]) <= TOLERANCE);
            } else {
                assert_true(observed[0][j] == SENTINEL && observed[1][j] == SENTINEL);
            }
        }
        free(observed[0]);
        free(observed[1]);
        fixture_free(&f);
    }
}

static void test_arguments(void **state) {
    struct fixture f;
    fixture_begin(&f, true, 2, 2, 8);
    mixed_rows(&f, 10, 2);
    const size_t n = (size_t)f.a.n_rows * row_floats(&f);
    float *out = malloc(n * sizeof(float));
    float *observed = malloc((size_t)f.a.n_rows * (size_t)f.a.n_head * (size_t)f.a.max_keys * sizeof(float));
    struct kv_attention bad[6];
    for (int i = 0; i < 6; i++) {
        bad[i] = f.a;
    }
    struct attention_row no_keys = f.rows[0];
    no_keys.n_keys = 0;
    struct kv_shape no_dim = f.shape;
    no_dim.head_dim = 0;
    bad[0].n_head = 3;
    bad[1].layer = 2;
    bad[2].rows = &no_keys;
    bad[2].n_rows = 1;
    bad[3].shape = &no_dim;
    bad[4].probs_out = observed;
    bad[4].max_keys = 9; /* a row sees 10 keys */
    bad[5].scores_out = observed;
    for (int i = 0; i < 6; i++) {
        candid_error error = {0};
        assert_int_equal(attention_kv_fast(ISA_SCALAR, &bad[i], f.q, out, 1, &error), CANDID_ERROR_ARGUMENT);
        assert_true(strlen(error.message) > 10);
        if (i < 5) {
            assert_int_equal(attention_kv_reference(&bad[i], f.q, out, 1, NULL), CANDID_ERROR_ARGUMENT);
        }
    }
    f.a.n_rows = 0; /* nothing to do is no error */
    assert_int_equal(attention_kv_fast(ISA_SCALAR, &f.a, f.q, out, 2, NULL), CANDID_OK);
    assert_int_equal(attention_kv_reference(&f.a, f.q, out, 2, NULL), CANDID_OK);
    assert_int_equal(attention_full_fast(ISA_SCALAR, NULL, NULL, NULL, NULL, 4, 0, 8, 1.0f, 1, NULL),
                     CANDID_ERROR_ARGUMENT);
    free(out);
    free(observed);
    fixture_free(&f);
}

/* ---- image encoder ----------------------------------------------------------------------------- */

static void oracle_full(const float *q, const float *k, const float *v, double *out, double *probs, int n_rows,
                        int n_head, int dim, float scale) {
    for (int row = 0; row < n_rows; row++) {
        for (int head = 0; head < n_head; head++) {
            double *p = probs + ((size_t)row * (size_t)n_head + (size_t)head) * (size_t)n_rows;
            double highest = -INFINITY, sum = 0.0;
            for (int i = 0; i < n_rows; i++) {
                p[i] = 0.0;
                for (int d = 0; d < dim; d++) {
                    p[i] += (double)q[(row * n_head + head) * dim + d] * (double)k[(i * n_head + head) * dim + d];
                }
                p[i] *= (double)scale;
                highest = fmax(highest, p[i]);
            }
            for (int i = 0; i < n_rows; i++) {
                sum += p[i] = exp(p[i] - highest);
            }
            for (int i = 0; i < n_rows; i++) {
                p[i] /= sum;
                for (int d = 0; d < dim; d++) {
                    out[(row * n_head + head) * dim + d] += p[i] * (double)v[(i * n_head + head) * dim + d];
                }
            }
        }
    }
}

static void check_full(int n_rows, int n_head, int dim) {
    const size_t n = (size_t)n_rows * (size_t)n_head * (size_t)dim;
    const size_t n_probs = (size_t)n_rows * (size_t)n_head * (size_t)n_rows;
    const float scale = 1.0f / sqrtf((float)dim);
    float *q = random_floats(n), *k = random_floats(n), *v = random_floats(n);
    float *out = malloc(n * sizeof(float)), *first = malloc(n * sizeof(float));
    float *probs_out = malloc(n_probs * sizeof(float));
    double *expected = calloc(n, sizeof(double)), *probs = calloc(n_probs, sizeof(double));
    oracle_full(q, k, v, expected, probs, n_rows, n_head, dim, scale);

    assert_int_equal(attention_full_reference(q, k, v, out, n_rows, n_head, dim, scale, probs_out, 2, NULL), CANDID_OK);
    check_close(out, expected, n, TOLERANCE, "image encoder, reference");
    check_close(probs_out, probs, n_probs, TOLERANCE, "image encoder, probabilities");
    for (size_t i = 0; i < N_ISA; i++) {
        const int threads[] = {1, 2, 12};
        for (int t = 0; t < 3 && cpu_isa_available(every_isa[i]); t++) {
            assert_int_equal(
                attention_full_fast(every_isa[i], q, k, v, out, n_rows, n_head, dim, scale, threads[t], NULL),
                CANDID_OK);
            check_close(out, expected, n, TOLERANCE, cpu_isa_name(every_isa[i]));
            if (t == 0) {
                memcpy(first, out, n * sizeof(float));
            } else {
                check_bits(first, out, n);
            }
        }
    }
    free(q);
    free(k);
    free(v);
    free(out);
    free(first);
    free(probs_out);
    free(expected);
    free(probs);
}

static void test_full(void **state) {
    static const int rows[] = {1, 2, 31, 32, 33, 64, 100};
    static const int dims[] = {8, 32, 64, 80, 96, 128, 20};
    for (size_t r = 0; r < 7; r++) {
        for (size_t d = 0; d < 7; d++) {
            check_full(rows[r], 3, dims[d]);
        }
    }
    check_full(577, 2, 64);
}

/* ---- storing ----------------------------------------------------------------------------------- */

static void test_store(void **state) {
    static const int dims[] = {1, 8, 20, 64};
    for (int c = 0; c < 8; c++) {
        struct fixture f;
        fixture_begin(&f, c % 2, 3, 1, dims[c / 2]);
        sequence_extend(&f.seq[0], &f.shape, 1, 70);
        sequence_extend(&f.seq[1], &f.shape, 1, 5);
        for (int i = 25; i < 70; i++) {
            add_row(&f, 0, i);
        }
        add_row(&f, 1, 0);
        const size_t row_n = row_floats(&f), dim = (size_t)dims[c / 2];
        float *kv[2] = {random_floats((size_t)f.a.n_rows * row_n), random_floats((size_t)f.a.n_rows * row_n)};
        /* ties to even both ways, the smallest subnormals, overflow, infinities */
        static const float special[] = {2049.0f,  2051.0f,        65519.0f,       65520.0f,  -1e30f,       INFINITY,
                                        -0.0f,    5.9604645e-8f,  2.9802322e-8f,  -3.1e-8f,  1e-20f,       6.1e-5f,
                                        0.33325f, 1.00048828125f, 1.00146484375f, -65519.0f, 8.9406967e-8f};
        for (size_t i = 0; i < sizeof special / sizeof special[0]; i++) {
            kv[i % 2][i] = special[i];
        }
        /* every element that is not to be written keeps its bytes */
        const size_t bytes = block_elements(&f.shape) * element_bytes(&f.shape);
        struct sequence *seqs[] = {&f.seq[0], &f.seq[1]};
        char *expected[2][MAX_BLOCKS];
        for (int s = 0; s < 2; s++) {
            for (int b = 0; b < seqs[s]->n_blocks; b++) {
                expected[s][b] = malloc(bytes);
                memcpy(expected[s][b], seqs[s]->blocks[b], bytes);
            }
        }
        for (int row = 0; row < f.a.n_rows; row++) {
            char *block = row < 45 ? expected[0][f.rows[row].index / 32] : expected[1][0];
            for (int value = 0; value < 2; value++) {
                for (size_t i = 0; i < row_n; i++) {
                    const size_t at = kv_offset(&f.shape, 1, value, (int)(i / dim)) +
                                      (size_t)(f.rows[row].index % 32) * dim + i % dim;
                    write_element(&f.shape, block, at, kv[value][(size_t)row * row_n + i]);
                }
            }
        }
        attention_kv_store(&f.a, kv[0], kv[1], 2);
        for (int s = 0; s < 2; s++) {
            for (int b = 0; b < seqs[s]->n_blocks; b++) {
                assert_memory_equal(expected[s][b], seqs[s]->blocks[b], bytes);
                free(expected[s][b]);
            }
        }
        free(kv[0]);
        free(kv[1]);
        fixture_free(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grid),          cmocka_unit_test(test_odd_shapes),   cmocka_unit_test(test_prompt),
        cmocka_unit_test(test_company),       cmocka_unit_test(test_large_scores), cmocka_unit_test(test_exponential),
        cmocka_unit_test(test_poisoned_head), cmocka_unit_test(test_observation),  cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_full),          cmocka_unit_test(test_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
