/*
 * The decoder's forward pass against an independent one (support/naive_llama.h): double precision, no cache, whole
 * sequence at once, weights decoded through the file's tensors. Then what a batch promises: rows of several sequences,
 * chunks and forks give what each sequence gives alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../support/backends.h"
#include "../support/naive_llama.h"
#include "../support/tiny_model.h"
#include "lm/llama.h"

#define MODEL_PATH "test_forward.gguf"

/* ---- fixture ------------------------------------------------------------------------------------- */

struct fixture {
    struct gguf *gguf;
    struct llama_weights weights;
    struct backend *backend;
    struct kv_cache *kv;
    struct llama *llama;
};

static void open_fixture(struct fixture *f, const struct tiny_model_options *o, candid_precision precision,
                         int max_rows) {
    candid_error error = {.message = ""};
    memset(f, 0, sizeof *f);
    assert_int_equal(tiny_model_write(MODEL_PATH, o), 0);
    if (gguf_open(MODEL_PATH, &f->gguf, &error) || llama_weights_load(f->gguf, &f->weights, &error) ||
        tested_backend_create(precision, &f->backend, &error)) {
        fail_msg("%s", error.message);
    }
    struct kv_shape shape = {.n_layer = f->weights.n_layer,
                             .n_head_kv = f->weights.n_head_kv,
                             .head_dim = f->weights.head_dim,
                             .f32 = precision == CANDID_PRECISION_EXACT};
    assert_int_equal(kv_cache_create(f->backend, &shape, 512, &f->kv, NULL), CANDID_OK);
    assert_int_equal(llama_create(&f->weights, f->backend, max_rows, &f->llama, NULL), CANDID_OK);
}

static void close_fixture(struct fixture *f) {
    llama_free(f->llama);
    kv_cache_free(f->kv);
    backend_destroy(f->backend);
    llama_weights_free(&f->weights);
    gguf_close(f->gguf);
    remove(MODEL_PATH);
}

static int token_at(const struct fixture *f, int i) {
    return 3 + (i * 37 + i * i) % (f->weights.n_vocab - 3);
}

/* Appends tokens [begin, end) in chunks of `chunk` rows; logits of every row to `logits`. */
static void feed(struct fixture *f, struct kv_seq *seq, int begin, int end, int chunk, float *logits) {
    struct forward_row rows[64];
    for (int at = begin; at < end;) {
        int n = end - at < chunk ? end - at : chunk;
        for (int i = 0; i < n; i++) {
            rows[i] =
                (struct forward_row){.seq = seq, .token = token_at(f, at + i), .position = at + i, .want_logits = true};
        }
        candid_error error;
        if (llama_forward(f->llama, rows, n, NULL, logits + (size_t)(at - begin) * (size_t)f->weights.n_vocab,
                          &error)) {
            fail_msg("%s", error.message);
        }
        at += n;
    }
}

static double relative_error(const float *a, const double *b, size_t n) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
    }
    return sqrt(difference / norm);
}

#define N 40

static double error_against_naive(const struct tiny_model_options *o, candid_precision precision, int chunk) {
    struct fixture f;
    open_fixture(&f, o, precision, 64);
    int tokens[N];
    for (int i = 0; i < N; i++) {
        tokens[i] = token_at(&f, i);
    }
    double *expected = naive_forward(f.gguf, &f.weights, tokens, N, NULL);
    float *logits = malloc((size_t)(N * f.weights.n_vocab) * sizeof *logits);
    struct kv_seq *seq;
    assert_int_equal(kv_seq_create(f.kv, &seq, NULL), CANDID_OK);
    feed(&f, seq, 0, N, chunk, logits);
    assert_int_equal(seq->length, N);
    double error = relative_error(logits, expected, (size_t)(N * f.weights.n_vocab));
    kv_seq_free(seq);
    free(logits);
    free(expected);
    close_fixture(&f);
    return error;
}

/* ---- tests --------------------------------------------------------------------------------------- */

static void exact_path_computes_the_model(void **state) {
    (void)state;
    struct tiny_model_options o = tiny_model_options_default();
    assert_true(error_against_naive(&o, CANDID_PRECISION_EXACT, 64) < 1e-5); /* group-query, 4 heads over 2 */
    assert_true(error_against_naive(&o, CANDID_PRECISION_EXACT, 1) < 1e-5);
    assert_true(error_against_naive(&o, CANDID_PRECISION_EXACT, 7) < 1e-5);
    o.n_head_kv = o.n_head; /* multi-head */
    o.tied = true;
    assert_true(error_against_naive(&o, CANDID_PRECISION_EXACT, 64) < 1e-5);
}

static void every_type_runs_on_both_paths(void **state) {
    (void)state;
    static const uint32_t types[] = {TYPE_F32,  TYPE_F16,  TYPE_BF16, TYPE_Q8_0,
                                     TYPE_Q4_0, TYPE_Q4_K, TYPE_Q5_K, TYPE_Q6_K};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct tiny_model_options o = tiny_model_options_wide(types[i]);
        double exact = error_against_naive(&o, CANDID_PRECISION_EXACT, 16);
        double prefill = error_against_naive(&o, CANDID_PRECISION_FAST, 64);
        double decode = error_against_naive(&o, CANDID_PRECISION_FAST, 1);
        print_message("%-5s relative error: exact %.1e, fast prefill %.1e, fast decode %.1e\n",
                      quant_type_name(types[i]), exact, prefill, decode);
        /* Float weights meet f32 activations; quantised ones meet activations rounded to 8 bits, whose error these
         * random weights, unlike trained ones, carry from layer to layer undamped. The f16 KV cache costs 5e-4 by
         * itself. */
        double bound = quant_block_values(types[i]) == 1 ? 2e-3 : 5e-2;
#ifdef CANDID_CUDA /* rounds the rows of a prompt to bf16, too */
        bound = types[i] == TYPE_BF16 ? 1.5e-2 : bound;
#endif
        assert_true(exact < 1e-5);
        assert_true(prefill < bound);
        assert_true(decode < bound);
    }
}

/* Rows of three sequences of different lengths, prefill chunks and decode rows mixed, against each alone. */
static void a_mixed_batch_equals_each_sequence_alone(void **state) {
    (void)state;
    const candid_precision precisions[] = {CANDID_PRECISION_EXACT, CANDID_PRECISION_FAST};
    for (int p = 0; p < 2; p++) {
        struct tiny_model_options o = tiny_model_options_default();
        struct fixture f;
        open_fixture(&f, &o, precisions[p], 64);
        const size_t n_vocab = (size_t)f.weights.n_vocab;
        float *alone[3], *batch = malloc(8 * n_vocab * sizeof *batch);
        const int begin[3] = {33, 5, 0}, count[3] = {1, 3, 4};
        struct kv_seq *seqs[3];
        for (int s = 0; s < 3; s++) {
            float *prefix = malloc(64 * n_vocab * sizeof *prefix);
            alone[s] = malloc(8 * n_vocab * sizeof *alone[s]);
            assert_int_equal(kv_seq_create(f.kv, &seqs[s], NULL), CANDID_OK);
            feed(&f, seqs[s], 0, begin[s], 1, prefix);
            struct kv_seq *twin;
            assert_int_equal(kv_fork(seqs[s], &twin, NULL), CANDID_OK);
            feed(&f, twin, begin[s], begin[s] + count[s], 8, alone[s]);
            kv_seq_free(twin);
            free(prefix);
        }
        struct forward_row rows[8];
        int n = 0, order[8], nth[8];
        for (int i = 0; i < 4; i++) { /* interleaved */
            for (int s = 0; s < 3; s++) {
                if (i < count[s]) {
                    order[n] = s;
                    nth[n] = i;
                    rows[n++] = (struct forward_row){.seq = seqs[s],
                                                     .token = token_at(&f, begin[s] + i),
                                                     .position = begin[s] + i,
                                                     .want_logits = true};
                }
            }
        }
        assert_int_equal(n, 8);
        assert_int_equal(llama_forward(f.llama, rows, n, NULL, batch, NULL), CANDID_OK);
        for (int i = 0; i < n; i++) {
            const float *expected = alone[order[i]] + (size_t)nth[i] * n_vocab;
            assert_memory_equal(batch + (size_t)i * n_vocab, expected, n_vocab * sizeof *batch);
        }
        for (int s = 0; s < 3; s++) {
            assert_int_equal(seqs[s]->length, begin[s] + count[s]);
            kv_seq_free(seqs[s]);
            free(alone[s]);
        }
        free(batch);
        close_fixture(&f);
    }
}

static void only_wanted_rows_give_logits(void **state) {
    (void)state;
    struct tiny_model_options o = tiny_model_options_default();
    struct fixture f;
    open_fixture(&f, &o, CANDID_PRECISION_EXACT, 64);
    const size_t n_vocab = (size_t)f.weights.n_vocab;
    float *all = malloc(6 * n_vocab * sizeof *all), *some = malloc(2 * n_vocab * sizeof *some);
    struct kv_seq *a, *b;
    kv_seq_create(f.kv, &a, NULL);
    kv_seq_create(f.kv, &b, NULL);
    feed(&f, a, 0, 6, 6, all);
    struct forward_row rows[6];
    for (int i = 0; i < 6; i++) {
        rows[i] =
            (struct forward_row){.seq = b, .token = token_at(&f, i), .position = i, .want_logits = i == 2 || i == 5};
    }
    assert_int_equal(llama_forward(f.llama, rows, 6, NULL, some, NULL), CANDID_OK);
    assert_memory_equal(some, all + 2 * n_vocab, n_vocab * sizeof *all);
    assert_memory_equal(some + n_vocab, all + 5 * n_vocab, n_vocab * sizeof *all);
    kv_seq_free(a);
    kv_seq_free(b);
    free(all);
    free(some);
    close_fixture(&f);
}

struct seen {
    int calls[SITE_COUNT];
    double worst_sum; /* of a probability row, distance from 1 */
    bool cancel;
};

static void see(void *user_data, enum site site, int layer, const float *data, int n_rows, int n_cols) {
    struct seen *seen = user_data;
    seen->calls[site]++;
    (void)layer;
    if (site == SITE_ATTENTION_PROBS) {
        for (int r = 0; r < n_rows; r++) {
            double sum = 0;
            for (int c = 0; c < n_cols; c++) {
                sum += data[(size_t)r * (size_t)n_cols + (size_t)c];
            }
            seen->worst_sum = fmax(seen->worst_sum, fabs(sum - 1));
        }
    }
}

static bool cancel(void *user_data) {
    return ((struct seen *)user_data)->cancel;
}

static void observers_see_every_site_and_change_nothing(void **state) {
    (void)state;
    struct tiny_model_options o = tiny_model_options_default();
    struct fixture f;
    open_fixture(&f, &o, CANDID_PRECISION_EXACT, 64);
    const size_t n_vocab = (size_t)f.weights.n_vocab;
    float *plain = malloc(5 * n_vocab * sizeof *plain), *watched = malloc(5 * n_vocab * sizeof *watched);
    struct kv_seq *a, *b;
    kv_seq_create(f.kv, &a, NULL);
    kv_seq_create(f.kv, &b, NULL);
    feed(&f, a, 0, 5, 5, plain);
    struct forward_row rows[5];
    for (int i = 0; i < 5; i++) {
        rows[i] = (struct forward_row){.seq = b, .token = token_at(&f, i), .position = i, .want_logits = true};
    }
    struct seen seen = {.worst_sum = 0};
    struct observer observer = {.mask = ~0u, .see = see, .cancelled = cancel, .user_data = &seen};
    assert_int_equal(llama_forward(f.llama, rows, 5, &observer, watched, NULL), CANDID_OK);
    assert_memory_equal(plain, watched, 5 * n_vocab * sizeof *plain);
    assert_int_equal(seen.calls[SITE_POSITIONS], 1);
    assert_int_equal(seen.calls[SITE_HIDDEN], f.weights.n_layer + 1);
    assert_int_equal(seen.calls[SITE_ATTENTION_SCORES], f.weights.n_layer);
    assert_int_equal(seen.calls[SITE_ATTENTION_PROBS], f.weights.n_layer);
    assert_int_equal(seen.calls[SITE_HEAD_OUTPUT], f.weights.n_layer);
    assert_int_equal(seen.calls[SITE_LOGITS], 1);
    assert_true(seen.worst_sum < 1e-5);

    seen.cancel = true;
    candid_error error;
    assert_int_equal(llama_forward(f.llama, rows, 5, &observer, watched, &error), CANDID_ERROR_CANCELLED);
    assert_int_equal(b->length, 5); /* a cancelled pass leaves the sequence as it was */
    kv_seq_free(a);
    kv_seq_free(b);
    free(plain);
    free(watched);
    close_fixture(&f);
}

static void ignore(void *user_data, enum site site, int layer, const float *data, int n_rows, int n_cols) {
    ++*(int *)user_data;
}

/* On the fast path too: a prompt of which only the last row wants logits, where the last layer runs on that row alone.
 */
static void looking_changes_no_bit_on_the_fast_path(void **state) {
    (void)state;
    struct tiny_model_options o = tiny_model_options_wide(TYPE_Q4_K);
    struct fixture f;
    open_fixture(&f, &o, CANDID_PRECISION_FAST, 64);
    const size_t n_vocab = (size_t)f.weights.n_vocab;
    float *plain = malloc(n_vocab * sizeof *plain), *watched = malloc(n_vocab * sizeof *watched);
    assert_true(plain && watched);
    int calls = 0;
    const struct observer observer = {.mask = 1u << SITE_HIDDEN | 1u << SITE_EARLY_LOGITS | 1u << SITE_HEAD_OUTPUT |
                                              1u << SITE_LOGITS,
                                      .see = ignore,
                                      .user_data = &calls};
    for (int pass = 0; pass < 2; pass++) {
        struct kv_seq *seq;
        struct forward_row rows[N];
        assert_int_equal(kv_seq_create(f.kv, &seq, NULL), CANDID_OK);
        for (int i = 0; i < N; i++) {
            rows[i] =
                (struct forward_row){.seq = seq, .token = token_at(&f, i), .position = i, .want_logits = i == N - 1};
        }
        assert_int_equal(llama_forward(f.llama, rows, N, pass ? &observer : NULL, pass ? watched : plain, NULL),
                         CANDID_OK);
        kv_seq_free(seq);
    }
    assert_true(calls > 0);
    assert_memory_equal(plain, watched, n_vocab * sizeof *plain);
    free(plain);
    free(watched);
    close_fixture(&f);
}

static void bad_rows_are_errors_and_change_nothing(void **state) {
    (void)state;
    struct tiny_model_options o = tiny_model_options_default();
    struct fixture f;
    open_fixture(&f, &o, CANDID_PRECISION_EXACT, 8);
    float *logits = malloc((size_t)f.weights.n_vocab * sizeof *logits);
    struct kv_seq *seq;
    kv_seq_create(f.kv, &seq, NULL);
    struct forward_row rows[9] = {{.seq = seq, .token = 3}, {.seq = seq, .token = f.weights.n_vocab, .position = 1}};
    for (int i = 2; i < 9; i++) {
        rows[i] = rows[0];
    }
    candid_error error;
    assert_int_equal(llama_forward(f.llama, rows, 2, NULL, logits, &error), CANDID_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "row 1"));
    assert_int_equal(llama_forward(f.llama, rows, 9, NULL, logits, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(llama_forward(f.llama, rows, 0, NULL, logits, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(seq->length, 0);
    assert_int_equal(seq->pending, 0);
    kv_seq_free(seq);
    free(logits);
    close_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_path_computes_the_model),
        cmocka_unit_test(every_type_runs_on_both_paths),
        cmocka_unit_test(a_mixed_batch_equals_each_sequence_alone),
        cmocka_unit_test(only_wanted_rows_give_logits),
        cmocka_unit_test(observers_see_every_site_and_change_nothing),
        cmocka_unit_test(looking_changes_no_bit_on_the_fast_path),
        cmocka_unit_test(bad_rows_are_errors_and_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
