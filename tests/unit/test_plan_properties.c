/*
 * What plans promise, on the demo model: only the rows a method names change, moved attention keeps each row's sum,
 * what was found in the prompt stays for the answer and for forks of it, rows with and without plans can share a pass,
 * and a prompt may come in several passes.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/demo_request.h"

#define VAR "\"var\": {\"tau\": 4.5, \"sink_dims\": [1, 181]}"

/* ---- what a prompt's rows go through ------------------------------------------------------------- */

struct trace {
    int n_rows, n_embd, n_head, n_layer; /* n_rows: of the prompt, without companions */
    float *hidden;                       /* (n_layer + 1, n_rows, n_embd); first the embeddings */
    float *probs;                        /* (n_layer, n_rows, n_head, n_rows) */
    bool beside;                         /* look at the last n_rows rows of the pass instead: a companion */
};

static void see(void *user_data, enum site site, int layer, const float *data, int n_rows, int n_cols) {
    struct trace *t = user_data;
    if (site == SITE_HIDDEN) {
        const size_t n = (size_t)t->n_rows * (size_t)t->n_embd;
        assert_int_equal(n_cols, t->n_embd);
        const int first = t->beside ? n_rows - t->n_rows : 0;
        memcpy(t->hidden + (size_t)(layer + 1) * n, data + (size_t)first * (size_t)n_cols, n * sizeof *data);
    } else {
        const size_t n = (size_t)t->n_rows * (size_t)t->n_head * (size_t)t->n_rows;
        assert_int_equal(n_cols, t->n_rows);
        memcpy(t->probs + (size_t)layer * n, data, n * sizeof *data);
    }
}

/* Runs the prompt under observation. */
static struct trace trace_rows(struct asked *a, bool probs, bool beside) {
    const struct llama_weights *w = &a->demo->model->llama;
    struct trace t = {a->n_prompt, w->n_embd, w->n_head, w->n_layer, NULL, NULL, beside};
    const size_t rows = (size_t)t.n_rows;
    t.hidden = calloc((size_t)(t.n_layer + 1) * rows * (size_t)t.n_embd, sizeof *t.hidden);
    t.probs = calloc((size_t)t.n_layer * rows * rows * (size_t)t.n_head, sizeof *t.probs);
    assert_true(t.hidden && t.probs);
    const struct observer o = {
        .mask = 1u << SITE_HIDDEN | (probs ? 1u << SITE_ATTENTION_PROBS : 0), .see = see, .user_data = &t};
    demo_prefill(a, NULL, &o);
    return t;
}

static struct trace trace_prompt(struct asked *a, bool probs) {
    return trace_rows(a, probs, false);
}

static void trace_free(struct trace *t) {
    free(t->hidden);
    free(t->probs);
}

static bool row_differs(const struct trace *a, const struct trace *b, int layer, int row) {
    const size_t at = ((size_t)(layer + 1) * (size_t)a->n_rows + (size_t)row) * (size_t)a->n_embd;
    return memcmp(a->hidden + at, b->hidden + at, (size_t)a->n_embd * sizeof *a->hidden) != 0;
}

/* The prompt's rows that have other hidden states than without the method, and the first layer where one has. */
static void changed_rows(struct demo *d, const char *json, bool *changed, int *first_layer) {
    struct asked with, without;
    demo_ask(&without, d, NULL);
    struct trace plain = trace_prompt(&without, false);
    demo_ask(&with, d, json);
    struct trace edited = trace_prompt(&with, false);
    *first_layer = plain.n_layer;
    for (int row = 0; row < plain.n_rows; row++) {
        changed[row] = false;
        for (int layer = plain.n_layer - 1; layer >= -1; layer--) {
            if (row_differs(&plain, &edited, layer, row)) {
                changed[row] = true;
                *first_layer = layer < *first_layer ? layer : *first_layer;
            }
        }
    }
    trace_free(&plain);
    trace_free(&edited);
    asked_free(&with);
    asked_free(&without);
}

static void only_named_rows_change(void **state) {
    (void)state;
    static const struct {
        const char *json;
        bool question, all; /* the rows after the image, or all, rather than the last only */
        int layer;          /* the first edited */
    } cases[] = {
        {"{\"pai\": true}", false, false, 2},
        {"{\"hgai\": true}", false, false, 5},
        {"{\"paint\": true}", false, false, 2},
        {"{\"pai\": true, \"hgai\": {\"layers\": \"3\"}, \"paint\": {\"layers\": \"1\"}}", false, false, 1},
        {"{\"vhr\": {\"prefill_rows\": \"last\", \"layers\": \"4-\"}}", false, false, 4},
        {"{" VAR "}", true, false, 2},
        {"{\"vhr\": {\"layers\": \"1\"}}", true, true, 1},
        {"{\"act\": {\"layers\": \"2-\"}}", true, true, 2},
        {"{\"head_scale\": {\"heads\": [[3, 2]]}}", true, true, 3},
        {"{\"vista\": {\"layers\": \"2-\", \"gamma\": 0}}", true, true, 2},
    };
    for (int p = 0; p < N_DEMO_PRECISIONS; p++) {
        struct demo d;
        demo_open(&d, demo_precisions[p], 1);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            struct asked a;
            demo_ask(&a, &d, NULL);
            bool changed[512];
            int layer, image_end = 0, n_question = 0;
            changed_rows(&d, cases[i].json, changed, &layer);
            struct layout layout = {0};
            OK(layout_from_prompt(&a.request.prompt, a.request.spans, &layout, error));
            image_end = layout_find_image(&layout, 0)->end;
            layout_free(&layout);
            for (int row = 0; row < a.n_prompt; row++) {
                const bool may = cases[i].all || row == a.n_prompt - 1 || (cases[i].question && row >= image_end);
                if (changed[row] && !may) {
                    fail_msg("%s: row %d changes", cases[i].json, row);
                }
                n_question += changed[row] && row >= image_end && row < a.n_prompt - 1;
            }
            assert_true(changed[a.n_prompt - 1]);
            assert_int_equal(n_question > 0, cases[i].question);
            assert_int_equal(layer, cases[i].layer);
            asked_free(&a);
        }
        demo_close(&d);
    }
}

/* The prompt that runs beside, for comparison, is the prompt without any method. */
static void companions_carry_no_edits(void **state) {
    (void)state;
    static const char *const configs[] = {
        "{\"vista\": {\"gamma\": 0}, \"pai\": true, " VAR ", \"act\": true}",
        "{\"vhr\": {\"measure\": \"unreinforced\"}, \"head_scale\": {\"heads\": [[0, 0], [3, 2]]}}"};
    for (size_t i = 0; i < N_DEMO_PRECISIONS * sizeof configs / sizeof *configs; i++) {
        struct demo d;
        struct asked with, without;
        demo_open(&d, demo_precisions[i % N_DEMO_PRECISIONS], 1);
        demo_ask(&without, &d, NULL);
        struct trace plain = trace_prompt(&without, false);
        demo_ask(&with, &d, configs[i / N_DEMO_PRECISIONS]);
        struct trace beside = trace_rows(&with, false, true);
        for (int row = 0; row < plain.n_rows; row++) {
            for (int layer = -1; layer < plain.n_layer; layer++) {
                assert_false(row_differs(&plain, &beside, layer, row));
            }
        }
        assert_int_equal(with.seq->length, with.n_prompt);
        trace_free(&plain);
        trace_free(&beside);
        asked_free(&with);
        asked_free(&without);
        demo_close(&d);
    }
}

/* In the first layer that moves attention, where rows still are what they are without the method. */
static void check_moves(struct demo *d, const char *json) {
    struct asked with, without;
    demo_ask(&without, d, NULL);
    struct trace plain = trace_prompt(&without, true);
    demo_ask(&with, d, json);
    struct trace edited = trace_prompt(&with, true);
    const struct plan_step *step = with.request.plan->steps;
    while (step->kind != PLAN_ATTENTION) {
        step++;
    }
    assert_int_equal(step->edit.kind, EDIT_PROBS_MOVE);
    int layer = 0, n_edited = 0;
    while (!step->layers[layer]) {
        layer++;
    }
    const int n = plain.n_rows, n_head = plain.n_head;
    for (int i = 0; i < n * n_head; i++) {
        const int row = i / n_head, head = i % n_head;
        const float *before = plain.probs + (size_t)(layer * n * n_head + i) * (size_t)n;
        const float *after = edited.probs + (size_t)(layer * n * n_head + i) * (size_t)n;
        const uint8_t *classes =
            step->edit.classes + (size_t)layer * step->classes_stride + (size_t)head * step->edit.class_stride;
        double sum = 0;
        bool changed = false;
        for (int key = 0; key < n; key++) {
            const unsigned c = 1u << classes[key];
            sum += (double)after[key];
            changed = changed || after[key] != before[key];
            if (step->edit.from & c) {
                assert_true(after[key] <= before[key]);
                assert_true(after[key] >= before[key] * step->edit.keep * 0.999999f);
            } else if (step->edit.to & c) {
                assert_true(after[key] >= before[key]);
            } else {
                assert_true(after[key] == before[key]);
            }
            assert_true(key <= row || after[key] == 0.0f);
        }
        assert_true(fabs(sum - 1) < 2e-6);
        assert_true(!changed || (plan_row_sets(with.request.plan, row) & step->rows));
        n_edited += changed;
    }
    assert_true(n_edited > 0 && n_edited < n * n_head); /* some, not all */
    trace_free(&plain);
    trace_free(&edited);
    asked_free(&with);
    asked_free(&without);
}

static void moved_attention_keeps_its_sum(void **state) {
    (void)state;
    struct demo d;
    demo_open(&d, CANDID_PRECISION_EXACT, 1);
    check_moves(&d, "{" VAR "}");
    check_moves(&d, "{\"var\": {\"tau\": 4.5, \"sink_dims\": [1, 181], \"p\": 0, \"summ\": 0, \"rho\": 1}}");
    check_moves(&d, "{\"act\": true}");
    check_moves(&d, "{\"act\": {\"beta\": 0, \"threshold\": 0.02}}");
    demo_close(&d);
}

/* ---- what the prompt decided --------------------------------------------------------------------- */

#define EVERYTHING                                                                                                     \
    "{\"pai\": true, \"paint\": true, \"hgai\": true, " VAR ", \"act\": true, \"vhr\": {\"layers\": \"all\"}, "        \
    "\"head_scale\": {\"heads\": [[3, 2]], \"scale\": 0.5}, \"vista\": {\"sla_layers\": \"2-4\"}}"

/* The tables of all steps, one after the other; returns their bytes. */
static size_t copy_tables(const struct plan *plan, uint8_t **out) {
    size_t n = 0, capacity = (size_t)8 << 20;
    uint8_t *bytes = malloc(capacity);
    assert_non_null(bytes);
    const size_t n_layer = (size_t)plan->n_layer, n_head = (size_t)plan->n_head;
    for (int s = 0; s < plan->n_steps; s++) {
        const struct plan_step *step = &plan->steps[s];
        memcpy(bytes + n, step->layers, n_layer * sizeof *step->layers);
        n += n_layer * sizeof *step->layers;
        if (step->kind == PLAN_ATTENTION) {
            const size_t heads = step->edit.class_stride ? n_head : 1, layers = step->classes_stride ? n_layer : 1;
            const size_t size = layers * heads * (size_t)step->edit.n_classes;
            assert_true(n + size < capacity);
            memcpy(bytes + n, step->edit.classes, size);
            n += size;
        } else if (step->table) {
            const size_t columns = step->kind == PLAN_SCALE_HEADS ? n_head
                                   : step->kind == PLAN_STEER     ? (size_t)plan->n_embd
                                                                  : 1;
            assert_true(n + n_layer * columns * sizeof(float) < capacity);
            memcpy(bytes + n, step->table, n_layer * columns * sizeof(float));
            n += n_layer * columns * sizeof(float);
        }
    }
    *out = bytes;
    return n;
}

static void answers_leave_the_tables_alone(void **state) {
    (void)state;
    static const char *const configs[] = {"{" VAR "}", "{\"vhr\": true}", "{\"act\": true}", EVERYTHING};
    for (size_t i = 0; i < N_DEMO_PRECISIONS * sizeof configs / sizeof *configs; i++) {
        struct demo d;
        struct asked a;
        uint8_t *before, *empty, *after;
        demo_open(&d, demo_precisions[i % N_DEMO_PRECISIONS], 1);
        demo_ask(&a, &d, configs[i / N_DEMO_PRECISIONS]);
        const size_t n = copy_tables(a.request.plan, &empty);
        demo_prefill(&a, NULL, NULL);
        assert_int_equal(copy_tables(a.request.plan, &before), n);
        assert_true(memcmp(empty, before, n) != 0); /* the prompt did decide something */
        for (int step = 0; step < 16; step++) {
            demo_step(&a, NULL, demo_best(&a));
        }
        assert_int_equal(copy_tables(a.request.plan, &after), n);
        assert_memory_equal(before, after, n);
        free(before);
        free(empty);
        free(after);
        asked_free(&a);
        demo_close(&d);
    }
}

static void forks_share_the_plan(void **state) {
    (void)state;
    for (int p = 0; p < N_DEMO_PRECISIONS; p++) {
        struct demo d;
        struct asked a;
        demo_open(&d, demo_precisions[p], 1);
        demo_ask(&a, &d, EVERYTHING);
        demo_prefill(&a, NULL, NULL);
        const size_t bytes = demo_vocab(&a) * sizeof(float);
        struct kv_seq *fork[3];
        for (int i = 0; i < 3; i++) {
            OK(kv_fork(a.seq, &fork[i], error));
        }
        float *expected = malloc(bytes);
        for (int step = 0; step < 6; step++) {
            const int token = demo_best(&a), other = 20 + step;
            /* two forks in one pass with the same plan, the second with tokens of its own */
            const struct forward_row rows[] = {demo_row(&a, fork[0], token), demo_row(&a, fork[1], other)};
            const struct forward_row alone = demo_row(&a, fork[2], other);
            float *both = malloc(2 * bytes);
            OK(llama_forward(d.context->llama, rows, 2, NULL, both, error));
            OK(llama_forward(d.context->llama, &alone, 1, NULL, expected, error));
            demo_step(&a, NULL, token);
            assert_memory_equal(both, a.logits, bytes);
            assert_memory_equal(both + demo_vocab(&a), expected, bytes);
            assert_memory_not_equal(both, expected, bytes);
            free(both);
        }
        for (int i = 0; i < 3; i++) {
            kv_seq_free(fork[i]);
        }
        free(expected);
        asked_free(&a);
        demo_close(&d);
    }
}

/* ---- passes ---------------------------------------------------------------------------------------- */

/* The prompt's rows in raster order as they go into one pass, with companions; returns their number. */
static int list_rows(const struct asked *a, struct kv_seq *seq, struct kv_seq *const *beside,
                     struct forward_row *rows) {
    const struct prompt *prompt = &a->request.prompt;
    const size_t n_embd = (size_t)a->demo->model->llama.n_embd;
    int n = 0;
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (role != ROLE_MAIN && !(a->request.plan && a->request.plan->companions[role])) {
            continue;
        }
        int position = 0;
        for (size_t c = 0; c < prompt->n_chunks; c++) {
            const bool image = prompt->chunks[c].image >= 0;
            const int count = image ? a->request.spans[0].n_tokens : (int)prompt->chunks[c].count;
            for (int i = 0; i < count && !(image && role == ROLE_TEXT_ONLY); i++) {
                rows[n++] = (struct forward_row){
                    .seq = role == ROLE_MAIN ? seq : beside[role],
                    .token = image ? 0 : prompt->tokens.ids[prompt->chunks[c].begin + (size_t)i],
                    .embedding = image ? a->demo->context->visual_tokens + (size_t)i * n_embd : NULL,
                    .position = position++,
                    .plan = a->request.plan,
                    .role = (enum plan_role)role,
                };
            }
        }
        rows[n - 1].want_logits = true;
    }
    return n;
}

/* Three requests - with plan, without, with another - in one pass, prompt and then steps, against each alone. */
static void plans_belong_to_their_rows(void **state) {
    (void)state;
    static const char *const configs[][3] = {
        {"{" VAR ", \"pai\": true}", NULL, "{\"head_scale\": {\"heads\": [[1, 0], [3, 2]]}, \"hgai\": true}"},
        {EVERYTHING, NULL, "{\"vhr\": true}"},
        {NULL, "{\"act\": true}", NULL},
        {"{\"head_scale\": {\"heads\": [[1, 0]]}}", "{\"head_scale\": {\"heads\": [[3, 2]]}}", "{\"vhr\": true}"},
    };
    for (size_t i = 0; i < N_DEMO_PRECISIONS * sizeof configs / sizeof *configs; i++) {
        struct demo d;
        struct asked a[3];
        struct kv_seq *seq[3], *beside[3][ROLE_COUNT];
        struct forward_row *rows = calloc(2048, sizeof *rows);
        int n = 0, wanted = 0, first[4] = {0};
        demo_open(&d, demo_precisions[i % N_DEMO_PRECISIONS], 1);
        OK(llama_reserve(d.context->llama, 2048, error));
        struct kv_cache *kv = NULL;
        OK(kv_cache_create(d.context->backend, kv_cache_shape(d.context->kv), 8192, &kv, error));
        const size_t n_vocab = (size_t)d.model->llama.n_vocab, bytes = n_vocab * sizeof(float);
        for (int k = 0; k < 3; k++) {
            demo_ask(&a[k], &d, configs[i / N_DEMO_PRECISIONS][k]);
            OK(kv_seq_create(kv, &seq[k], error));
            for (int role = 0; role < ROLE_COUNT; role++) {
                OK(kv_seq_create(kv, &beside[k][role], error));
            }
            first[k] = wanted;
            const int count = list_rows(&a[k], seq[k], beside[k], rows + n);
            for (int r = n; r < n + count; r++) {
                wanted += rows[r].want_logits;
            }
            n += count;
        }
        float *together = malloc((size_t)wanted * bytes);
        OK(llama_forward(d.context->llama, rows, n, NULL, together, error));
        struct asked lone[3];
        for (int k = 0; k < 3; k++) { /* with a plan of its own: the one above has been used */
            demo_ask(&lone[k], &d, configs[i / N_DEMO_PRECISIONS][k]);
            demo_prefill(&lone[k], NULL, NULL);
            assert_memory_equal(lone[k].logits, together + (size_t)first[k] * n_vocab, bytes);
            a[k].position = lone[k].position;
        }
        for (int step = 0; step < 3; step++) {
            const int token = demo_best(&lone[1]);
            for (int k = 0; k < 3; k++) {
                rows[k] = demo_row(&a[k], seq[k], token);
                a[k].position++;
                demo_step(&lone[k], NULL, token);
            }
            OK(llama_forward(d.context->llama, rows, 3, NULL, together, error));
            for (int k = 0; k < 3; k++) {
                assert_memory_equal(lone[k].logits, together + (size_t)k * n_vocab, bytes);
            }
        }
        assert_memory_not_equal(lone[0].logits, lone[1].logits, bytes);
        for (int k = 0; k < 3; k++) {
            kv_seq_free(seq[k]);
            for (int role = 0; role < ROLE_COUNT; role++) {
                kv_seq_free(beside[k][role]);
            }
            asked_free(&a[k]);
            asked_free(&lone[k]);
        }
        kv_cache_free(kv);
        free(together);
        free(rows);
        demo_close(&d);
    }
}

/* A decoder for few rows takes the prompt in several passes, or makes room where a method needs all of it at once. */
static void prompts_come_in_parts(void **state) {
    (void)state;
    static const char *const configs[] = {NULL,
                                          "{" VAR "}",
                                          "{\"cca\": true}",
                                          "{\"cca\": {\"mode\": \"reverse_raster\"}}",
                                          "{\"mma\": true}",
                                          "{\"cca\": true, " VAR ", \"pai\": true, \"hgai\": true}",
                                          "{\"vhr\": {\"layers\": \"all\"}, \"act\": true}"};
    struct demo d;
    struct asked any;
    struct layout layout = {0};
    demo_open(&d, CANDID_PRECISION_EXACT, 1);
    demo_ask(&any, &d, NULL);
    OK(layout_from_prompt(&any.request.prompt, any.request.spans, &layout, error));
    const struct span *image = layout_find_image(&layout, 0);
    /* the last would cut off the outer ring's last token */
    const int sizes[] = {7, 30, image->begin + grid_ring_end(0, image->grid_h, image->grid_w) - 1};
    layout_free(&layout);
    asked_free(&any);
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        struct asked whole;
        demo_ask(&whole, &d, configs[i]);
        OK(llama_reserve(d.context->llama, 512, error));
        demo_prefill(&whole, NULL, NULL);
        const size_t bytes = demo_vocab(&whole) * sizeof(float);
        float *first = malloc(bytes);
        memcpy(first, whole.logits, bytes);
        demo_step(&whole, NULL, 30);
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            struct llama *small = NULL;
            struct asked part;
            OK(llama_create(&d.model->llama, d.context->backend, sizes[k], &small, error));
            demo_ask(&part, &d, configs[i]);
            assert_true(part.n_prompt > 50);
            demo_prefill(&part, small, NULL);
            assert_int_equal(part.position, whole.position - 1);
            assert_memory_equal(part.logits, first, bytes);
            demo_step(&part, small, 30);
            assert_memory_equal(part.logits, whole.logits, bytes);
            for (int s = 0; part.request.plan && s < part.request.plan->n_steps; s++) {
                assert_int_equal(part.request.plan->steps[s].rows_done, whole.request.plan->steps[s].rows_done);
            }
            asked_free(&part);
            llama_free(small);
        }
        free(first);
        asked_free(&whole);
    }
    demo_close(&d);
}

/* ---- probes ---------------------------------------------------------------------------------------- */

struct peaks_seen {
    float *peaks; /* (n_layer, n_prompt) */
    int n_prompt;
};

static void keep_peaks(struct plan_step *step, const struct probe_result *r) {
    struct peaks_seen *s = step->state;
    memcpy(s->peaks + r->layer * s->n_prompt + r->first, r->peaks, (size_t)r->n_rows * sizeof *r->peaks);
}

/* The peaks a probe is told, against the hidden states an observer is shown; eps is 1e-6. */
static void probes_measure_peaks(void **state) {
    (void)state;
    struct demo d;
    struct asked a;
    demo_open(&d, CANDID_PRECISION_EXACT, 1);
    demo_ask(&a, &d, "{" VAR "}");
    struct plan_step *step = a.request.plan->steps;
    while (step->kind != PLAN_PROBE_PEAKS) {
        step++;
    }
    struct peaks_seen s = {calloc((size_t)(d.model->llama.n_layer * a.n_prompt), sizeof(float)), a.n_prompt};
    step->state = &s;
    step->decide = keep_peaks;
    memset(step->layers, 1, (size_t)d.model->llama.n_layer);
    struct trace t = trace_prompt(&a, false);
    double smallest = 1;
    for (int i = 0; i < t.n_layer * t.n_rows; i++) {
        const float *x = t.hidden + (size_t)i * (size_t)t.n_embd; /* entering the layer: output of the one before */
        double square = 0, highest = 0;
        for (int k = 0; k < t.n_embd; k++) {
            square += (double)x[k] * (double)x[k] / t.n_embd;
        }
        for (int k = 0; k < step->n_dims; k++) {
            highest = fmax(highest, fabs((double)x[step->dims[k]]) / sqrt(square + 1e-6));
        }
        smallest = fmin(smallest, square);
        assert_true(fabs((double)s.peaks[i] - highest) <= 2e-7 * highest + 1e-9);
    }
    assert_true(smallest < 0.05); /* so that 1e-5 in place of 1e-6 would show */
    free(s.peaks);
    trace_free(&t);
    asked_free(&a);
    demo_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_named_rows_change),        cmocka_unit_test(companions_carry_no_edits),
        cmocka_unit_test(moved_attention_keeps_its_sum), cmocka_unit_test(answers_leave_the_tables_alone),
        cmocka_unit_test(forks_share_the_plan),          cmocka_unit_test(plans_belong_to_their_rows),
        cmocka_unit_test(prompts_come_in_parts),         cmocka_unit_test(probes_measure_peaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
