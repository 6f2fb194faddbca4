/*
 * DoLa: its arithmetic against a computation in double precision that follows the released program line by line, its
 * choice where the two directions of the divergence disagree; then whole passes of the demo model against the hidden
 * states an observer is shown, rows of several sequences in one batch among them.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/demo_request.h"
#include "../support/plan_lab.h"

/* ---- the released program ------------------------------------------------------------------------- */

static void naive_log_softmax(const float *x, int n, double *out) {
    double highest = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++) {
        highest = fmax(highest, (double)x[i]);
    }
    for (int i = 0; i < n; i++) {
        sum += exp((double)x[i] - highest);
    }
    for (int i = 0; i < n; i++) {
        out[i] = (double)x[i] - highest - log(sum);
    }
}

/* mean over the tokens of to (ln to - from), what kl_div(from, to) of logarithm and distribution gives */
static double kl_div(const double *from, const double *to, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += to[i] > 0 ? to[i] * (log(to[i]) - from[i]) : 0;
    }
    return sum / n;
}

struct naive {
    double *out;   /* [n], before tokens are left out */
    double *above; /* [n] by how much ln p is over the threshold */
    int premature; /* the candidate chosen */
    int other_way; /* the one that the paper's Jensen-Shannon divergence would choose */
    double margin; /* by which it is farther than the next, relative */
};

static struct naive naive_dola(const float *mature, const float *early, int n_early, int n, double cutoff) {
    struct naive r = {.out = malloc((size_t)n * sizeof(double)), .above = malloc((size_t)n * sizeof(double))};
    double *p = malloc((size_t)n * sizeof *p), *q = malloc((size_t)n * sizeof *q), *m = malloc((size_t)n * sizeof *m);
    double best = -INFINITY, second = -INFINITY, best_js = -INFINITY, highest = -INFINITY;
    assert_true(r.out && r.above && p && q && m);
    naive_log_softmax(mature, n, p);
    for (int c = 0; c < n_early; c++) {
        naive_log_softmax(early + c * n, n, q);
        double js = 0;
        for (int i = 0; i < n; i++) {
            m[i] = 0.5 * (exp(p[i]) + exp(q[i]));
            js += m[i] > 0 ? 0.5 * (exp(p[i]) * (p[i] - log(m[i])) + exp(q[i]) * (q[i] - log(m[i]))) : 0;
        }
        const double d = 0.5 * (kl_div(p, m, n) + kl_div(q, m, n));
        r.premature = d > best ? c : r.premature;
        second = fmax(second, fmin(d, best));
        best = fmax(d, best);
        r.other_way = js > best_js ? c : r.other_way;
        best_js = fmax(js, best_js);
    }
    r.margin = (best - second) / best;
    naive_log_softmax(early + r.premature * n, n, q);
    for (int i = 0; i < n; i++) {
        highest = fmax(highest, p[i]);
    }
    for (int i = 0; i < n; i++) {
        r.above[i] = p[i] - highest - log(cutoff);
        r.out[i] = p[i] - q[i];
    }
    free(p);
    free(q);
    free(m);
    return r;
}

static void naive_free(struct naive *e) {
    free(e->out);
    free(e->above);
}

static void check_logits(const float *found, const struct naive *e, int n, double bound, const char *what) {
    for (int i = 0; i < n; i++) {
        const bool out = e->above[i] < 0, close = fabs(e->above[i]) < 1e-4 && e->above[i] != 0;
        if (!close && (out ? found[i] != -INFINITY : !(fabs((double)found[i] - e->out[i]) <= bound))) {
            fail_msg("%s: token %d has %.9g, expected %.9g%s", what, i, (double)found[i], e->out[i],
                     out ? ", left out" : "");
        }
    }
}

/* ---- the arithmetic ------------------------------------------------------------------------------- */

static uint64_t random_state = 5;

static float random_normal(void) {
    float sum = -6.0f;
    for (int i = 0; i < 12; i++) {
        random_state = random_state * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(random_state >> 40) * 0x1p-24f;
    }
    return sum;
}

static struct plan *dola_plan(const char *json, int n_layer, int n_vocab) {
    const struct model_facts facts = {
        .name = "made up", .n_layer = n_layer, .n_head = 2, .head_dim = 4, .n_embd = 8, .n_vocab = n_vocab};
    struct layout layout = lab_layout(2, 3, 1);
    struct plan *plan = lab_plan(json, &facts, &layout);
    layout_free(&layout);
    return plan;
}

static void follows_the_released_program(void **state) {
    (void)state;
    enum { N = 50, MOST = 6 };
    int disagreements = 0, chosen[MOST] = {0};
    static const struct {
        const char *json;
        double cutoff;
    } cases[] = {{"{\"dola\": true}", 0.1}, {"{\"dola\": {\"cutoff\": 0}}", 0}, {"{\"dola\": {\"cutoff\": 1}}", 1}};
    struct plan *plans[3];
    for (int i = 0; i < 3; i++) {
        plans[i] = dola_plan(cases[i].json, 2 * MOST, N);
    }
    for (int trial = 0; trial < 600; trial++) {
        const float spread = 1.0f + (float)(trial % 8), likeness = (float)(trial % 5) / 4.0f;
        float mature[N], early[MOST * N], logits[N];
        for (int i = 0; i < N; i++) {
            mature[i] = spread * random_normal() + 100.0f;
        }
        for (int c = 0; c < MOST; c++) {
            for (int i = 0; i < N; i++) {
                early[c * N + i] = likeness * mature[i] + (1.0f + (float)(c % 3)) * random_normal() - 300.0f;
            }
        }
        memcpy(logits, mature, sizeof logits);
        struct plan_step *step = lab_step(plans[trial % 3], PLAN_CONTRAST_LAYERS);
        assert_true(step->embeddings && !step->normed);
        struct naive e = naive_dola(mature, early, MOST, N, cases[trial % 3].cutoff);
        if (e.margin > 1e-4) {
            step->contrast(step, logits, early, MOST, N);
            check_logits(logits, &e, N, 2e-4, cases[trial % 3].json);
            disagreements += e.premature != e.other_way;
            chosen[e.premature]++;
        }
        naive_free(&e);
    }
    assert_true(disagreements > 10); /* so the direction is told apart */
    /* and it is counted */
    int told[MOST] = {0};
    for (int i = 0; i < 3; i++) {
        cJSON *report = interventions_report(plans[i]);
        const cJSON *one = NULL, *list = cJSON_GetObjectItem(cJSON_GetObjectItem(report, "dola"), "chosen");
        cJSON_ArrayForEach(one, list) {
            const int k = cJSON_GetObjectItem(one, "hidden_state")->valueint;
            assert_int_equal(k % 2, 0);
            told[k / 2] += cJSON_GetObjectItem(one, "times")->valueint;
        }
        cJSON_Delete(report);
        plan_free(plans[i]);
    }
    assert_memory_equal(told, chosen, sizeof told);
}

static void numbers_that_are_none_stay(void **state) {
    (void)state;
    struct plan *plan = dola_plan("{\"dola\": true}", 4, 3);
    struct plan_step *step = lab_step(plan, PLAN_CONTRAST_LAYERS);
    float logits[] = {1.0f, NAN, 2.0f}, far[] = {400.0f, 0.0f, -400.0f};
    const float early[] = {1, 2, 3, 3, 2, 1}, opposite[] = {-400, 0, 400, 400, 0, -400};
    step->contrast(step, logits, early, 2, 3);
    assert_true(isnan(logits[1]));
    step->contrast(step, far, opposite, 2, 3); /* probabilities that are 0 in f32 */
    assert_true(far[0] == 800.0f && far[1] == -INFINITY && far[2] == -INFINITY);
    plan_free(plan);
}

static void candidates_are_hidden_states(void **state) {
    (void)state;
    static const struct {
        const char *json;
        bool embeddings;
        unsigned layers;
    } cases[] = {{"{\"dola\": true}", true, 1u << 1 | 1u << 3},
                 {"{\"dola\": {\"layers\": [5, 1, 5]}}", false, 1u << 4 | 1u << 0},
                 {"{\"dola\": {\"layers\": [0]}}", true, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plan *plan = dola_plan(cases[i].json, 6, 9);
        const struct plan_step *step = lab_step(plan, PLAN_CONTRAST_LAYERS);
        assert_int_equal(step->embeddings, cases[i].embeddings);
        for (int l = 0; l < 6; l++) {
            assert_int_equal(step->layers[l], cases[i].layers >> l & 1u);
        }
        plan_free(plan);
    }
    struct plan *plan = dola_plan("{\"dola\": {\"layers\": []}}", 6, 9);
    assert_int_equal(plan->n_steps, 0);
    assert_non_null(strstr(plan->notes[0].idle, "empty"));
    plan_free(plan);
    struct candid_config *config = lab_config("{\"dola\": {\"layers\": [2, 6]}}");
    const struct model_facts facts = {.n_layer = 6, .n_head = 1, .head_dim = 1, .n_embd = 1, .n_vocab = 9};
    struct layout layout = lab_layout(1, 0, 1);
    candid_error e = {CANDID_OK, ""};
    assert_int_equal(interventions_compile(config, &facts, &layout, NULL, 0, 0, NULL, &plan, &e),
                     CANDID_ERROR_ARGUMENT);
    assert_non_null(strstr(e.message, "0 (embeddings) to 5"));
    layout_free(&layout);
    config_free(config);
}

/* ---- in the model --------------------------------------------------------------------------------- */

enum { N_LAYER = 6 }; /* of the demo model */

struct shown {
    float *hidden[N_LAYER + 1]; /* (n_rows, n_embd) of the pass; first the embeddings */
    float *logits;              /* (wanted, n_vocab) */
};

static void see(void *user_data, enum site site, int layer, const float *data, int n_rows, int n_cols) {
    struct shown *s = user_data;
    float **to = site == SITE_LOGITS ? &s->logits : &s->hidden[layer + 1];
    const size_t bytes = (size_t)n_rows * (size_t)n_cols * sizeof **to;
    free(*to);
    *to = malloc(bytes);
    assert_non_null(*to);
    memcpy(*to, data, bytes);
}

static void shown_free(struct shown *s) {
    for (int l = 0; l <= N_LAYER; l++) {
        free(s->hidden[l]);
    }
    free(s->logits);
}

/* Logits (n, n_vocab) of hidden states `states` at row `row`, in double. */
static float *early_logits(const struct demo *d, const struct shown *s, int row, const int *states, int n,
                           bool normed) {
    const struct llama_weights *w = &d->model->llama;
    float *out = malloc((size_t)n * (size_t)w->n_vocab * sizeof *out), *weights = malloc((size_t)w->n_embd * 4);
    assert_true(out && weights);
    for (int c = 0; c < n; c++) {
        const float *x = s->hidden[states[c]] + (size_t)row * (size_t)w->n_embd;
        double square = 0;
        for (int i = 0; i < w->n_embd; i++) {
            square += (double)x[i] * (double)x[i] / w->n_embd;
        }
        for (int v = 0; v < w->n_vocab; v++) {
            double sum = 0;
            quant_dequantize(w->output.type,
                             (const char *)w->output.data + (size_t)v * quant_row_bytes(w->output.type, w->n_embd),
                             weights, w->n_embd);
            for (int i = 0; i < w->n_embd; i++) {
                const double scale = normed ? (double)w->output_norm[i] / sqrt(square + (double)w->rms_eps) : 1;
                sum += (double)weights[i] * (double)x[i] * scale;
            }
            out[(size_t)c * (size_t)w->n_vocab + (size_t)v] = (float)sum;
        }
    }
    free(weights);
    return out;
}

/* Against the plain logits of the same tokens and the hidden states shown: the prompt, then steps of several rows. */
static void check_model(const char *json, const int *states, int n_states, bool normed, double cutoff) {
    struct demo d;
    struct asked plain, a;
    struct kv_seq *seq[2][4]; /* with and without the plan; the last has none in either */
    struct shown s = {.logits = NULL};
    const struct observer o = {.mask = 1u << SITE_HIDDEN | 1u << SITE_LOGITS, .see = see, .user_data = &s};
    demo_open(&d, CANDID_PRECISION_EXACT, 1);
    assert_int_equal(d.model->llama.n_layer, N_LAYER);
    demo_ask(&plain, &d, NULL);
    demo_ask(&a, &d, json);
    demo_prefill(&plain, NULL, NULL);
    demo_prefill(&a, NULL, &o);
    const size_t n_vocab = demo_vocab(&a);
    float *found = malloc(4 * n_vocab * sizeof *found), *mature = malloc(4 * n_vocab * sizeof *mature);
    assert_true(found && mature);
    memcpy(found, a.logits, n_vocab * sizeof *found);
    memcpy(mature, plain.logits, n_vocab * sizeof *mature);
    for (int i = 0; i < 4; i++) {
        OK(kv_fork(i < 3 ? a.seq : plain.seq, &seq[0][i], error));
        OK(kv_fork(plain.seq, &seq[1][i], error));
    }
    int n_checked = 0;
    for (int step = 0; step < 5; step++) {
        const int n_rows = step == 0 ? 1 : 4, last_row[] = {a.n_prompt - 1};
        static const int wanted[] = {0, 1, 3, 4}; /* of the rows below */
        for (int i = 0; i < n_rows; i++) {
            const float *out = found + (size_t)i * n_vocab, *p = mature + (size_t)i * n_vocab;
            assert_memory_equal(s.logits + (size_t)i * n_vocab, out,
                                n_vocab * sizeof *out); /* what comes out is shown */
            if (step > 0 && i == 0) {
                assert_memory_equal(out, p, n_vocab * sizeof *out); /* a row beside them is as it was */
                continue;
            }
            float *early = early_logits(&d, &s, step == 0 ? last_row[0] : wanted[i], states, n_states, normed);
            struct naive e = naive_dola(p, early, n_states, (int)n_vocab, cutoff);
            if (e.margin > 1e-4) {
                check_logits(out, &e, (int)n_vocab, 1e-3, json);
                n_checked++;
            }
            free(early);
            naive_free(&e);
        }
        for (int k = 0; k < 2; k++) {
            struct forward_row rows[] = {demo_row(&plain, seq[k][3], 20 + step), demo_row(&a, seq[k][0], 30 + step),
                                         demo_row(&a, seq[k][1], 50 + step), demo_row(&a, seq[k][1], 60 + step),
                                         demo_row(&a, seq[k][2], 70 + step)};
            rows[2].want_logits = false; /* then nothing of it is contrasted */
            rows[3].position++;
            for (int i = 0; k == 1 && i < 5; i++) {
                rows[i].plan = NULL;
            }
            OK(llama_forward(d.context->llama, rows, 5, k == 0 ? &o : NULL, k == 0 ? found : mature, error));
        }
        a.position += 2;
        plain.position += 2;
    }
    assert_true(n_checked > 10);
    assert_int_equal(a.request.plan->steps[0].rows_done, 1 + 3 * 5);
    for (int i = 0; i < 4; i++) {
        kv_seq_free(seq[0][i]);
        kv_seq_free(seq[1][i]);
    }
    free(found);
    free(mature);
    shown_free(&s);
    asked_free(&plain);
    asked_free(&a);
    demo_close(&d);
}

static void in_prompts_and_steps(void **state) {
    (void)state;
    check_model("{\"dola\": true}", (const int[]){0, 2, 4}, 3, false, 0.1);
    check_model("{\"dola\": {\"normed_early\": true, \"cutoff\": 0}}", (const int[]){0, 2, 4}, 3, true, 0);
    check_model("{\"dola\": {\"layers\": [5, 3, 4, 1], \"cutoff\": 0.01}}", (const int[]){1, 3, 4, 5}, 4, false, 0.01);
}

/* Three sequences and one of them alone; on the fast path near to the exact one. */
static void rows_do_not_meet(void **state) {
    (void)state;
    double worst = 0;
    float *exact = NULL;
    for (int p = 0; p < 2; p++) {
        struct demo d;
        struct asked a;
        struct kv_seq *fork[3];
        demo_open(&d, p ? CANDID_PRECISION_FAST : CANDID_PRECISION_EXACT, 1);
        demo_ask(&a, &d, "{\"dola\": {\"normed_early\": true, \"cutoff\": 0}, \"vista\": {\"sla_layers\": \"2-4\"}}");
        demo_prefill(&a, NULL, NULL);
        const size_t n_vocab = demo_vocab(&a);
        float *together = malloc(3 * n_vocab * sizeof *together);
        for (int i = 0; i < 3; i++) {
            OK(kv_fork(a.seq, &fork[i], error));
        }
        const struct forward_row rows[] = {demo_row(&a, fork[0], 30), demo_row(&a, fork[1], 40),
                                           demo_row(&a, fork[2], 50)};
        OK(llama_forward(d.context->llama, rows, 3, NULL, together, error));
        for (int i = 0; i < 3; i++) {
            const int token = rows[i].token;
            struct kv_seq *own = NULL;
            OK(kv_fork(a.seq, &own, error));
            const struct forward_row row = demo_row(&a, own, token);
            OK(llama_forward(d.context->llama, &row, 1, NULL, a.logits, error));
            for (size_t k = 0; k < n_vocab; k++) {
                const float found = together[(size_t)i * n_vocab + k];
                assert_true(p == 0 ? found == a.logits[k] : fabsf(found - a.logits[k]) < 0.05f);
            }
            kv_seq_free(own);
            kv_seq_free(fork[i]);
        }
        if (p == 0) {
            exact = together;
        } else {
            for (size_t k = 0; k < 3 * n_vocab; k++) {
                worst = fmax(worst, fabs((double)together[k] - (double)exact[k]));
            }
            free(together);
        }
        asked_free(&a);
        demo_close(&d);
    }
    print_message("contrasted logits, fast against exact: at most %.1e apart\n", worst);
    assert_true(worst < 0.2);
    free(exact);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_released_program),
        cmocka_unit_test(numbers_that_are_none_stay),
        cmocka_unit_test(candidates_are_hidden_states),
        cmocka_unit_test(in_prompts_and_steps),
        cmocka_unit_test(rows_do_not_meet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
