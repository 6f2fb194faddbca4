/*
 * Several candidates for the next token of one sequence in one batch, each in a slot of its own (llama.h), against as
 * many forks with one row each: without plans and with them, kept with kv_keep_slot, and beside those of other beams.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/demo_request.h"

enum { N = 5 };
#define VAR "\"var\": {\"tau\": 4.5, \"sink_dims\": [1, 181]}"

static const candid_precision precisions[] = {CANDID_PRECISION_EXACT, CANDID_PRECISION_FAST};

/* Candidate number i of the n tokens of a sequence. */
static struct forward_row alternative(const struct asked *a, struct kv_seq *seq, int i, int token) {
    struct forward_row row = demo_row(a, seq, token);
    row.sees = seq->length;
    row.also_begin = seq->length + i;
    row.also_end = row.also_begin + 1;
    return row;
}

static double relative(const float *a, const float *b, size_t n) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(error / norm);
}

/* ---- probes, beside ------------------------------------------------------------------------------- */

struct told {
    int n, n_keys[64], index[64];
    float values[64][1024];
};

static void note(struct plan_step *step, const struct probe_result *r) {
    struct told *t = step->state;
    assert_true(t->n < 64 && r->n_keys <= 1024);
    t->n_keys[t->n] = r->n_keys;
    t->index[t->n] = r->index;
    memcpy(t->values[t->n++], r->values, (size_t)r->n_keys * sizeof *r->values);
}

static void add_probe(struct asked *a, struct told *t) {
    struct plan_step *step = NULL;
    OK(plan_add(a->request.plan, PLAN_PROBE_ROWS, NULL, &step, error));
    step->rows = ROW_GENERATED;
    step->reduce = HEADS_MAX;
    step->decide = note;
    step->state = t;
    step->layers[a->request.plan->n_layer - 1] = step->layers[1] = true;
}

/* Counterfactual rows, whose random numbers must not tell a candidate from the only row of a fork. */
static void add_replacement(struct asked *a, enum replace_mode mode) {
    struct plan_step *step = NULL;
    OK(plan_add(a->request.plan, PLAN_ATTENTION, NULL, &step, error));
    step->rows = ROW_GENERATED;
    step->edit = (struct attention_edit){.kind = EDIT_PROBS_REPLACE, .replace = mode, .seed = 7};
    step->layers[2] = step->layers[3] = true;
}

/* ---- the comparison ------------------------------------------------------------------------------- */

/* Steps of candidates, of which one is kept each time. Returns the largest relative difference of logits. */
static double compare(struct asked *a, bool exact, int n_steps) {
    struct llama *llama = a->demo->context->llama;
    const size_t n_vocab = demo_vocab(a);
    struct told *told = a->request.plan ? calloc(2, sizeof *told) : NULL;
    float *together = malloc(N * n_vocab * sizeof *together), *alone = malloc(n_vocab * sizeof *alone);
    double worst = 0;
    assert_true(together && alone);
    demo_prefill(a, NULL, NULL);
    if (told) {
        add_probe(a, told);
    }
    for (int step = 0; step < n_steps; step++) {
        struct forward_row rows[N];
        struct kv_seq *fork[N];
        const int n = a->seq->length, kept = step * 3 % N;
        for (int i = 0; i < N; i++) {
            OK(kv_fork(a->seq, &fork[i], error));
            rows[i] = alternative(a, a->seq, i, 20 + step + 7 * i);
        }
        for (int i = 0; told && i < 2; i++) {
            told[i].n = 0;
        }
        OK(llama_forward(llama, rows, N, NULL, together, error));
        assert_int_equal(a->seq->length, n + N);
        for (int i = 0; i < N; i++) {
            const struct forward_row row = demo_row(a, fork[i], rows[i].token);
            if (told) {
                a->request.plan->steps[a->request.plan->n_steps - 1].state = told + 1;
            }
            OK(llama_forward(llama, &row, 1, NULL, alone, error));
            const float *found = together + (size_t)i * n_vocab;
            if (exact) {
                assert_memory_equal(found, alone, n_vocab * sizeof *alone);
            }
            worst = fmax(worst, relative(found, alone, n_vocab));
        }
        if (told) {
            a->request.plan->steps[a->request.plan->n_steps - 1].state = told;
            assert_true(told[0].n == 2 * N && told[1].n == 2 * N);
        }
        for (int p = 0; told && p < 2 * N; p++) { /* layer by layer; fork by fork */
            const int i = p % N, q = 2 * i + p / N;
            assert_true(told[0].n_keys[p] == n + i + 1 && told[0].index[p] == n + i && told[1].n_keys[q] == n + 1);
            for (int k = 0; k < n + i; k++) {
                const float e = k < n ? told[1].values[q][k] : 0.0f;
                assert_true(exact || k >= n ? told[0].values[p][k] == e : fabsf(told[0].values[p][k] - e) < 1e-3f);
            }
            assert_true(fabsf(told[0].values[p][n + i] - told[1].values[q][n]) <= (exact ? 0.0f : 1e-3f));
        }
        OK(kv_keep_slot(a->seq, n, n + kept, error));
        assert_int_equal(a->seq->length, n + 1);
        a->position++;
        /* the kept one goes on like its fork */
        const struct forward_row next[] = {demo_row(a, a->seq, 50 + step), demo_row(a, fork[kept], 50 + step)};
        OK(llama_forward(llama, &next[0], 1, NULL, together, error));
        OK(llama_forward(llama, &next[1], 1, NULL, alone, error));
        if (exact) {
            assert_memory_equal(together, alone, n_vocab * sizeof *alone);
        }
        worst = fmax(worst, relative(together, alone, n_vocab));
        a->position++;
        for (int i = 0; i < N; i++) {
            kv_seq_free(fork[i]);
        }
    }
    free(together);
    free(alone);
    free(told);
    return worst;
}

static void as_forks_would(void **state) {
    (void)state;
    static const char *const configs[] = {
        NULL, "{" VAR "}", "{\"act\": true}", "{\"hgai\": {\"layers\": \"1-\"}, \"pai\": true}",
        "{\"pai\": true, \"hgai\": true, " VAR ", \"act\": true, \"vhr\": {\"layers\": \"all\"}, \"vista\": "
        "{\"sla_layers\": \"2-4\"}}"};
    double worst = 0;
    for (size_t i = 0; i < 2 * sizeof configs / sizeof *configs; i++) {
        struct demo d;
        struct asked a;
        demo_open(&d, precisions[i % 2], 1);
        demo_ask(&a, &d, configs[i / 2]);
        const double error = compare(&a, i % 2 == 0, 4);
        worst = fmax(worst, error);
        asked_free(&a);
        demo_close(&d);
    }
    print_message("fast path: logits at most %.1e apart\n", worst);
    assert_true(worst > 0 && worst < 1e-4);
}

static void with_counterfactual_rows(void **state) {
    (void)state;
    for (int mode = REPLACE_REVERSE; mode <= REPLACE_SHUFFLE; mode++) {
        struct demo d;
        struct asked a;
        demo_open(&d, CANDID_PRECISION_EXACT, 1);
        demo_ask(&a, &d, "{" VAR "}");
        add_replacement(&a, (enum replace_mode)mode);
        compare(&a, true, 2);
        asked_free(&a);
        demo_close(&d);
    }
}

/* Candidates of two beams with a plan and a row of another request in one batch. */
static void beside_other_beams(void **state) {
    (void)state;
    for (int p = 0; p < 2; p++) {
        struct demo d;
        struct asked a, plain;
        struct kv_seq *beam[2], *fork = NULL;
        demo_open(&d, precisions[p], 1);
        demo_ask(&plain, &d, NULL);
        demo_prefill(&plain, NULL, NULL);
        demo_ask(&a, &d, "{" VAR "}");
        demo_prefill(&a, NULL, NULL);
        const size_t n_vocab = demo_vocab(&a);
        float *together = malloc(7 * n_vocab * sizeof *together);
        for (int i = 0; i < 2; i++) {
            OK(kv_fork(a.seq, &beam[i], error));
            const struct forward_row row = demo_row(&a, beam[i], 30 + i);
            OK(llama_forward(d.context->llama, &row, 1, NULL, a.logits, error));
        }
        a.position++;
        struct forward_row rows[7];
        for (int i = 0; i < 6; i++) {
            rows[i] = alternative(&a, beam[i / 3], i % 3, 40 + i);
        }
        rows[6] = demo_row(&plain, plain.seq, 20);
        OK(llama_forward(d.context->llama, rows, 7, NULL, together, error));
        for (int i = 0; i < 6; i++) {
            OK(kv_fork_at(beam[i / 3], rows[i].sees, &fork, error));
            const struct forward_row row = demo_row(&a, fork, rows[i].token);
            OK(llama_forward(d.context->llama, &row, 1, NULL, a.logits, error));
            if (p == 0) {
                assert_memory_equal(together + (size_t)i * n_vocab, a.logits, n_vocab * sizeof *a.logits);
            }
            assert_true(relative(together + (size_t)i * n_vocab, a.logits, n_vocab) < 1e-4);
            kv_seq_free(fork);
        }
        kv_seq_free(beam[0]);
        kv_seq_free(beam[1]);
        free(together);
        asked_free(&a);
        asked_free(&plain);
        demo_close(&d);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_forks_would),
        cmocka_unit_test(with_counterfactual_rows),
        cmocka_unit_test(beside_other_beams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
