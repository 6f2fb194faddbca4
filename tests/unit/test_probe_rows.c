/*
 * PLAN_PROBE_ROWS on the demo model, against the probabilities and scores an observer is shown: which rows are told of,
 * in which order, before and after edits, in prompts with companions and in steps of several forks.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/demo_request.h"

#define VAR "\"var\": {\"tau\": 4.5, \"sink_dims\": [1, 181]}"

/* ---- what an observer sees, and what a probe is told ---------------------------------------------- */

struct told {
    int layer, row, index, n_keys;
    float *values;
};

struct notes {
    int n_told, n_layer, n_head;
    struct told told[4096];
    /* of the pass, by layer: (n_rows, n_head, n_keys) */
    float *scores[32], *probs[32];
    int n_rows, n_keys;
};

static void note_row(struct plan_step *step, const struct probe_result *r) {
    struct notes *n = step->state;
    struct told *t = &n->told[n->n_told++];
    assert_true(n->n_told < 4096);
    *t = (struct told){r->layer, r->row, r->index, r->n_keys, malloc((size_t)r->n_keys * sizeof *t->values)};
    assert_non_null(t->values);
    memcpy(t->values, r->values, (size_t)r->n_keys * sizeof *t->values);
}

static void see(void *user_data, enum site site, int layer, const float *data, int n_rows, int n_cols) {
    struct notes *n = user_data;
    float **to = site == SITE_ATTENTION_SCORES ? &n->scores[layer] : &n->probs[layer];
    const size_t bytes = (size_t)n_rows * (size_t)n_cols * sizeof **to;
    n->n_rows = n_rows / n->n_head;
    n->n_keys = n_cols;
    free(*to);
    *to = malloc(bytes);
    assert_non_null(*to);
    memcpy(*to, data, bytes);
}

static struct observer observing(struct notes *n) {
    return (struct observer){
        .mask = 1u << SITE_ATTENTION_SCORES | 1u << SITE_ATTENTION_PROBS, .see = see, .user_data = n};
}

static void forget(struct notes *n) {
    for (int i = 0; i < n->n_told; i++) {
        free(n->told[i].values);
    }
    for (int l = 0; l < n->n_layer; l++) {
        free(n->scores[l]);
        free(n->probs[l]);
        n->scores[l] = n->probs[l] = NULL;
    }
    n->n_told = 0;
}

static struct notes *new_notes(const struct demo *d) {
    struct notes *n = calloc(1, sizeof *n);
    assert_non_null(n);
    n->n_layer = d->model->llama.n_layer;
    n->n_head = d->model->llama.n_head;
    assert_true(n->n_layer <= 32);
    return n;
}

static struct plan_step *add_probe(struct asked *a, struct notes *n, unsigned rows, enum head_reduction reduce,
                                   bool before, unsigned layers) {
    struct plan_step *step = NULL;
    OK(plan_add(a->request.plan, PLAN_PROBE_ROWS, NULL, &step, error));
    step->rows = rows;
    step->reduce = reduce;
    step->before_edits = before;
    step->decide = note_row;
    step->state = n;
    for (int l = 0; l < n->n_layer; l++) {
        step->layers[l] = layers >> l & 1u;
    }
    return step;
}

/* What a probe should be told of row `row` of the pass; observed scores of keys that are not seen are -inf or, beyond
 * the last, untouched. */
static double expected_value(const struct notes *n, const struct told *t, int row, enum head_reduction reduce,
                             bool before, int key) {
    double value = 0;
    for (int h = 0; h < n->n_head; h++) {
        const size_t at = ((size_t)row * (size_t)n->n_head + (size_t)h) * (size_t)n->n_keys;
        double p = (double)n->probs[t->layer][at + (size_t)key];
        if (before) {
            double highest = -INFINITY, sum = 0;
            for (int k = 0; k < t->n_keys; k++) {
                highest = fmax(highest, (double)n->scores[t->layer][at + (size_t)k]);
            }
            for (int k = 0; k < t->n_keys; k++) {
                sum += exp((double)n->scores[t->layer][at + (size_t)k] - highest);
            }
            p = exp((double)n->scores[t->layer][at + (size_t)key] - highest) / sum;
        }
        value = reduce == HEADS_MAX ? fmax(value, p) : value + p / n->n_head;
    }
    return value;
}

/* Row `row` of the pass was told as number `told`. */
static void check_told(const struct notes *n, int told, int row, int number, int index, int layer,
                       enum head_reduction reduce, bool before) {
    assert_true(told < n->n_told);
    const struct told *t = &n->told[told];
    assert_int_equal(t->layer, layer);
    assert_int_equal(t->row, number);
    assert_int_equal(t->index, index);
    assert_true(t->n_keys > index && t->n_keys <= n->n_keys);
    double sum = 0;
    for (int k = 0; k < t->n_keys; k++) {
        const double e = expected_value(n, t, row, reduce, before, k);
        sum += (double)t->values[k];
        if (!(fabs((double)t->values[k] - e) <= 2e-6)) {
            fail_msg("layer %d row %d key %d: told %.9g, expected %.9g", layer, row, k, (double)t->values[k], e);
        }
    }
    assert_true(reduce == HEADS_MAX ? sum >= 1 - 1e-5 : fabs(sum - 1) < 1e-5);
}

/* ---- tests ----------------------------------------------------------------------------------------- */

static void rows_of_a_prompt(void **state) {
    (void)state;
    static const char *const configs[] = {"{" VAR "}", "{" VAR ", \"pai\": true, \"hgai\": true, \"vhr\": true}",
                                          "{\"mma\": true, \"head_scale\": {\"heads\": [[3, 2]], \"scale\": 0.5}}"};
    struct demo d;
    demo_open(&d, CANDID_PRECISION_EXACT, 2);
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        for (int kind = 0; kind < 4; kind++) {
            const enum head_reduction reduce = kind & 1 ? HEADS_MAX : HEADS_MEAN;
            const bool before = kind & 2;
            struct notes *n = new_notes(&d);
            struct asked a;
            demo_ask(&a, &d, configs[c]);
            add_probe(&a, n, ROW_LAST, reduce, before, 1u << 1 | 1u << (n->n_layer - 1));
            add_probe(&a, n, ROW_BEFORE | ROW_IMAGE, reduce, before, 1u << 4);
            const struct observer o = observing(n);
            demo_prefill(&a, NULL, &o);
            int told = 0;
            check_told(n, told++, a.n_prompt - 1, a.n_prompt - 1, a.n_prompt - 1, 1, reduce, before);
            for (int row = 0; row < a.n_prompt; row++) {
                if (plan_row_sets(a.request.plan, row) & (ROW_BEFORE | ROW_IMAGE)) {
                    check_told(n, told++, row, row, row, 4, reduce, before);
                }
            }
            check_told(n, told++, a.n_prompt - 1, a.n_prompt - 1, a.n_prompt - 1, n->n_layer - 1, reduce, before);
            assert_int_equal(told, n->n_told);
            forget(n);
            free(n);
            asked_free(&a);
        }
    }
    demo_close(&d);
}

/* Three forks, and a request without a plan among the rows before them; one fork gives two rows. */
static void rows_of_several_forks(void **state) {
    (void)state;
    struct demo d;
    demo_open(&d, CANDID_PRECISION_EXACT, 2);
    struct notes *n = new_notes(&d);
    struct asked a, plain;
    struct kv_seq *fork[3];
    demo_ask(&plain, &d, NULL);
    demo_prefill(&plain, NULL, NULL);
    demo_ask(&a, &d, "{" VAR "}");
    struct plan_step *step = add_probe(&a, n, ROW_GENERATED, HEADS_MAX, false, 1u << (n->n_layer - 1) | 1u << 2);
    demo_prefill(&a, NULL, NULL);
    assert_int_equal(n->n_told, 0);
    for (int i = 0; i < 3; i++) {
        OK(kv_fork(a.seq, &fork[i], error));
    }
    const struct observer o = observing(n);
    for (int pass = 0; pass < 4; pass++) {
        struct forward_row rows[6] = {demo_row(&plain, plain.seq, 20), demo_row(&plain, plain.seq, 21),
                                      demo_row(&a, fork[2], 30),       demo_row(&a, fork[0], 31),
                                      demo_row(&a, fork[0], 32),       demo_row(&a, fork[1], 33)};
        rows[1].position++;
        rows[4].position++;
        for (int i = 0; i < 6; i++) {
            rows[i].want_logits = i % 2; /* all rows are told of, wanted or not */
        }
        const int index[] = {fork[2]->length, fork[0]->length, fork[0]->length + 1, fork[1]->length};
        OK(llama_forward(d.context->llama, rows, 6, &o, a.logits, error));
        int told = 0;
        for (int l = 0; l < n->n_layer; l++) {
            for (int i = 0; step->layers[l] && i < 4; i++) {
                check_told(n, told++, 2 + i, i, index[i], l, HEADS_MAX, false);
            }
        }
        assert_int_equal(told, n->n_told);
        forget(n);
        a.position += 2;
        plain.position += 2;
    }
    for (int i = 0; i < 3; i++) {
        kv_seq_free(fork[i]);
    }
    free(n);
    asked_free(&a);
    asked_free(&plain);
    demo_close(&d);
}

/* A probe changes nothing on the exact path, and what it is told on the fast path is near to what it is told there. */
static void probes_look_only(void **state) {
    (void)state;
    struct notes *notes[2];
    double worst = 0;
    for (int p = 0; p < 2; p++) {
        struct demo d;
        struct asked plain, a;
        demo_open(&d, p ? CANDID_PRECISION_FAST : CANDID_PRECISION_EXACT, 2);
        notes[p] = new_notes(&d);
        demo_ask(&plain, &d, "{" VAR "}");
        demo_ask(&a, &d, "{" VAR "}");
        add_probe(&a, notes[p], ROW_LAST | ROW_GENERATED, HEADS_MAX, false, ~0u);
        add_probe(&a, notes[p], ROW_GENERATED, HEADS_MEAN, true, ~0u);
        demo_prefill(&plain, NULL, NULL);
        demo_prefill(&a, NULL, NULL);
        for (int step = 0; step < 12; step++) {
            if (p == 0) {
                assert_memory_equal(a.logits, plain.logits, demo_vocab(&a) * sizeof(float));
            }
            demo_step(&plain, NULL, 40 + step);
            demo_step(&a, NULL, 40 + step);
        }
        asked_free(&plain);
        asked_free(&a);
        demo_close(&d);
    }
    assert_int_equal(notes[0]->n_told, notes[1]->n_told);
    assert_int_equal(notes[0]->n_told, notes[0]->n_layer * (1 + 2 * 12));
    for (int i = 0; i < notes[0]->n_told; i++) {
        const struct told *exact = &notes[0]->told[i], *fast = &notes[1]->told[i];
        assert_true(exact->layer == fast->layer && exact->row == fast->row && exact->index == fast->index);
        assert_int_equal(exact->n_keys, fast->n_keys);
        for (int k = 0; k < exact->n_keys; k++) {
            worst = fmax(worst, fabs((double)exact->values[k] - (double)fast->values[k]));
        }
    }
    print_message("probabilities told, fast against exact: at most %.1e apart\n", worst);
    assert_true(worst < 5e-3);
    for (int p = 0; p < 2; p++) {
        forget(notes[p]);
        free(notes[p]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_a_prompt),
        cmocka_unit_test(rows_of_several_forks),
        cmocka_unit_test(probes_look_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
