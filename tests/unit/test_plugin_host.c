/*
 * candid's methods in a host that shares no code with candid's runtime, against that runtime: every step's logits, the
 * tokens, and what the methods say they did. The host lays its tensors out in three ways.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../support/host_answer.h"
#include "../support/refused.h"
#include "decode/group.h"
#include "interventions/interventions.h"

#define TOLERANCE 1e-4

enum { N_STEPS = 5 };

/* Configurations, ' for ". */
#define VAR                                                                                                            \
    "'var': {'sink_dims': [3, 12, 31, 45], 'tau': 1.8, 'layers': 'all', 'exclude_last_layer': false, 'summ': 0, "      \
    "'rho': 1}"
static const char *const configs[] = {
    "{" VAR "}",
    "{'var': {'sink_dims': [3, 12, 31, 45], 'tau': 1.8, 'layers': 'all', 'summ': 0.05, 'rounding': 'f16', 'eps_mode': "
    "'once'}}",
    "{'vhr': {'layers': 'all'}}",
    "{'vhr': {'layers': '1-', 'measure': 'unreinforced', 'prefill_rows': 'last', 'filter_guard': 0}}",
    "{'pai': {'layers': 'all', 'gamma': 1}}",
    "{'pai': {'layers': '1-', 'gamma': 1.4, 'boost_first_token': false}}",
    "{'paint': {'layers': 'all', 'alpha': 0.4, 'beta': 0.7}}",
    "{'hgai': {'layers': 'all'}}",
    "{'act': {'layers': 'all', 'threshold': 0.02}}",
    "{'act': {'layers': '0-1', 'threshold': 0.02, 'heads': [[0, 1], [1, 2]]}}",
    "{'vista': {'sla_layers': '0'}}",
    "{'vista': {'site': 'residual', 'gamma': 0}}",
    "{'vista': {'cosine_gain': false, 'pca_quirk': true, 'lambda': 0.05, 'sla_layers': '0-1'}}",
    "{'cca': true}",
    "{'cca': {'mode': 'reverse_raster'}}",
    "{'mma': true}",
    "{'mma': {'keep_last': 2}}",
    "{'head_scale': {'heads': [[0, 1], [1, 2]], 'scale': 0.5}}",
    "{'dola': true}",
    "{'dola': {'normed_early': true, 'cutoff': 0}}",
    "{'decode': {'contrast': ['vcd']}}",
    "{'decode': {'contrast': [{'method': 'vcd', 'first_token_only': true, 'noise_step': 800, 'seed': 5}]}}",
    "{'decode': {'contrast': [{'method': 'damro', 'tokens': 4}]}}",
    "{'decode': {'contrast': ['icd']}}",
    "{'decode': {'contrast': [{'method': 'icd', 'place': 'question'}]}}",
    "{'causalmm': {'vision': 'off', 'language': 'uniform'}}",
    "{'causalmm': {'vision': 'off', 'language': 'shuffle', 'seed': 3}}",
    "{'vhr': {'layers': 'all'}, 'pai': {'layers': 'all', 'alpha': 0.2, 'gamma': 1}, " VAR "}",
    "{'vcd': true, 'icd': true, 'cca': true, 'hgai': {'layers': 'all'}}",
    "{'vcd': true, 'vhr': {'layers': 'all'}, 'dola': true, 'decode': {'branch_edits': 'same'}}",
    "{'vista': {'sla_layers': '0'}, 'act': {'layers': 'all', 'threshold': 0.02}, 'mma': true}",
};
enum { N_CONFIGS = sizeof configs / sizeof *configs };

/* What candid's own runtime computes: logits (N_STEPS, n_vocab) and the report. */
struct expected {
    float *logits;
    cJSON *report;
    int n_vocab;
};

static struct expected run_runtime(struct host_lab *lab, const char *json, const char *request) {
    struct expected out = {.n_vocab = lab->host.w->n_vocab};
    const size_t n_vocab = (size_t)out.n_vocab;
    out.logits = host_floats(N_STEPS * n_vocab);
    struct asked asked;
    struct group *group = NULL;
    char text[1000];
    host_quote(json, text, sizeof text);
    demo_ask_about(&asked, &lab->demo, 1, request, text);
    struct generation g = request_generation(lab->demo.context, &asked.request, asked.seq);
    OK(group_create(&g, 1, 1, &group, error));
    for (int t = 0; t < N_STEPS; t++) {
        float *to = out.logits + (size_t)t * n_vocab;
        memcpy(to, group_logits(group), n_vocab * sizeof *to);
        const int32_t token = host_best(to, out.n_vocab);
        if (t + 1 < N_STEPS) {
            OK(group_step(group, &token, error));
        }
    }
    out.report = interventions_report(asked.request.plan);
    group_free(group);
    asked_free(&asked);
    return out;
}

static void expected_free(struct expected *e) {
    free(e->logits);
    cJSON_Delete(e->report);
}

/* Largest difference of finite logits by the largest of them; infinite where one is and the other is not. */
static double difference(const float *a, const float *b, int n) {
    double most = 0, scale = 0;
    for (int i = 0; i < n; i++) {
        assert_false(isnan(a[i]) || isnan(b[i]));
        if (isinf(a[i]) || isinf(b[i])) {
            most = a[i] == b[i] ? most : INFINITY; /* NOLINT: infinities */
            continue;
        }
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
        scale = fmax(scale, fabs((double)a[i]));
    }
    return most / scale;
}

/* Whether two reports say the same; numbers that are sums of probabilities may differ in their last digits. */
static bool same_report(const cJSON *a, const cJSON *b) {
    if (a && b && cJSON_IsNumber(a) && cJSON_IsNumber(b)) {
        return fabs(a->valuedouble - b->valuedouble) <= 1e-3 * fmax(fabs(a->valuedouble), 1e-3);
    }
    if (!a || !b || a->type != b->type || cJSON_GetArraySize(a) != cJSON_GetArraySize(b)) {
        return false;
    }
    const cJSON *y = b->child;
    for (const cJSON *x = a->child; x; x = x->next, y = y->next) {
        if (!same_report(x, cJSON_IsObject(a) ? cJSON_GetObjectItemCaseSensitive(b, x->string) : y)) {
            return false;
        }
    }
    return !cJSON_IsString(a) || strcmp(a->valuestring, b->valuestring) == 0;
}

static void check_report(const struct host_question *q, const struct expected *e, const char *json) {
    char *text = NULL;
    OK(candid_sequence_report(q->sides[0].sequence, &text, error));
    cJSON *report = cJSON_Parse(text);
    assert_non_null(report);
    for (const cJSON *one = e->report->child; one; one = one->next) {
        const cJSON *found = cJSON_GetObjectItemCaseSensitive(report, one->string);
        if (!same_report(one, found)) {
            char *wanted = cJSON_PrintUnformatted(one);
            print_error("%s\n expected %s\n found    %s\n", json, wanted, text);
            cJSON_free(wanted);
            fail();
        }
    }
    cJSON_Delete(report);
    candid_string_free(text);
}

/* Contrasts are counted as the host feeds them. */
static void check_contrasts(const struct host_question *q, const char *json) {
    char *text = NULL;
    OK(candid_task_report(q->task, &text, error));
    cJSON *report = cJSON_Parse(text);
    for (int i = 0; i < q->needs.n_branches; i++) {
        candid_branch branch = {.struct_size = sizeof branch};
        int n = 0;
        OK(candid_task_branch(q->task, i, &branch, error));
        for (int t = 0; t < N_STEPS; t++) {
            n += candid_task_needs_branch(q->task, i, t);
        }
        const cJSON *one = cJSON_GetObjectItemCaseSensitive(report, branch.method), *found = NULL;
        const cJSON *list = cJSON_GetObjectItem(one, "branches");
        for (const cJSON *item = list ? list->child : NULL; item; item = item->next) {
            found = strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(item, "sees")), branch.name) == 0 ? item : found;
        }
        if (!cJSON_IsTrue(cJSON_GetObjectItem(one, "active")) ||
            cJSON_GetNumberValue(cJSON_GetObjectItem(found, "rows_contrasted")) != n) { /* NOLINT: a whole number */
            fail_msg("%s: expected %d rows contrasted, found %s", json, n, text);
        }
    }
    cJSON_Delete(report);
    candid_string_free(text);
}

/* The host's answer to a case, compared with the runtime's. */
static void compare(struct host_lab *lab, const char *json, const char *request, const struct expected *e,
                    enum host_layout layout, int most) {
    struct host_question q;
    host_ask(&q, lab, json, request, layout);
    q.most = most;
    host_read(&q);
    for (int t = 0; t < N_STEPS; t++) {
        const float *expected = e->logits + (size_t)t * (size_t)e->n_vocab;
        host_contrast(&q);
        const double d = difference(expected, q.sides[0].logits, e->n_vocab);
        if (!(d <= TOLERANCE)) {
            fail_msg("%s, layout %d, parts of %d: the logits of token %d differ by %g", json, layout, most, t, d);
        }
        const int token = host_best(expected, e->n_vocab);
        assert_int_equal(host_best(q.sides[0].logits, e->n_vocab), token);
        if (t + 1 < N_STEPS) {
            host_feed(&q, token);
        }
    }
    check_report(&q, e, json);
    check_contrasts(&q, json);
    host_answered(&q);
}

static void a_host_computes_what_the_runtime_does(void **state) {
    (void)state;
    for (int scene = 0; scene < N_HOST_SCENES; scene++) {
        struct host_lab lab;
        host_lab_open(&lab, scene);
        struct expected plain = run_runtime(&lab, "{}", DEMO_PROMPT);
        compare(&lab, "{}", DEMO_PROMPT, &plain, HOST_LEFT, 0);
        for (int i = 0; i < N_CONFIGS; i++) {
            if (scene > 0 && i % 5 != scene) {
                continue; /* the toy runs all, the larger model a few on each scene */
            }
            struct expected e = run_runtime(&lab, configs[i], DEMO_PROMPT);
            if (difference(plain.logits, e.logits, N_STEPS * e.n_vocab) < 100 * TOLERANCE) {
                fail_msg("%s changes nothing, so that nothing is compared", configs[i]);
            }
            compare(&lab, configs[i], DEMO_PROMPT, &e, (enum host_layout)(i % HOST_LAYOUTS), 0);
            expected_free(&e);
        }
        expected_free(&plain);
        host_lab_close(&lab);
    }
}

/* LQCD asks a leading question in another way and contrasts with it as it was; others it leaves alone. */
static void questions_may_be_reworded(void **state) {
    (void)state;
    static const char *const json = "{'decode': {'contrast': ['lqcd']}}";
    static const char *const questions[] = {"Isn't there a dog in the image?", "Is there a dog in the image?"};
    struct host_lab lab;
    host_lab_open(&lab, N_HOST_SCENES - 1);
    for (int i = 0; i < 2; i++) {
        struct expected e = run_runtime(&lab, json, questions[i]);
        compare(&lab, json, questions[i], &e, HOST_LEFT, 0);
        expected_free(&e);
        struct host_question q;
        host_ask(&q, &lab, json, questions[i], HOST_LEFT);
        assert_int_equal(q.needs.n_branches, i == 0);
        assert_int_equal(strcmp(candid_task_request(q.task), questions[i]) == 0, i == 1);
        host_answered(&q);
    }
    host_lab_close(&lab);
}

/* Image `tokens` as candid's encoder gives them to a row are those that the host made itself. */
static void check_sight(const struct host_lab *lab, const candid_encoding *e, int branch,
                        const struct host_image *own) {
    candid_span span = {.struct_size = sizeof span};
    const float *tokens = NULL;
    OK(candid_encoding_tokens(e, branch, 0, &span, &tokens, error));
    assert_int_equal(span.kind, CANDID_SPAN_IMAGE);
    assert_int_equal(span.n_tokens, own->n);
    assert_int_equal(span.grid_h * span.grid_w, own->grid_h * own->grid_w);
    assert_memory_equal(tokens, own->tokens, (size_t)own->n * (size_t)lab->host.w->n_embd * sizeof *tokens);
}

static void candid_may_encode_for_the_host(void **state) {
    (void)state;
    static const char *const seeing[] = {
        "{}",
        "{'vcd': true, 'damro': {'tokens': 4}, 'icd': true, 'pai': {'gamma': 1.2}}",
        "{'paint': {'layers': 'all', 'gamma': 1}, 'vcd': {'seed': 3}}",
    };
    struct host_lab lab;
    host_lab_open(&lab, N_HOST_SCENES - 1);
    const candid_image *images[] = {lab.demo.image};
    for (size_t k = 0; k < sizeof seeing / sizeof *seeing; k++) {
        struct host_question q;
        candid_encoding *e = NULL;
        host_ask(&q, &lab, seeing[k], DEMO_PROMPT, HOST_LEFT);
        OK(candid_task_encode(q.task, lab.demo.context, images, 1, NULL, &e, error));
        check_sight(&lab, e, -1, &lab.image);
        for (int i = 1; i < q.n_sides; i++) {
            candid_branch branch = {.struct_size = sizeof branch};
            candid_span span = {.struct_size = sizeof span};
            const float *tokens;
            OK(candid_task_branch(q.task, i - 1, &branch, error));
            if (branch.sight == CANDID_SIGHT_NONE) {
                WRONG(candid_encoding_tokens(e, i - 1, 0, &span, &tokens, error), "sees no image");
            } else {
                check_sight(&lab, e, i - 1, branch.sight == CANDID_SIGHT_SAME ? &lab.image : &q.sides[i].image);
            }
        }
        size_t n_taps = 99;
        const candid_tap *taps = candid_encoding_taps(e, &n_taps);
        assert_int_equal(n_taps, q.needs.n_taps);
        candid_sequence *sequence = NULL;
        OK(candid_sequence_create(q.task, -1, q.sides[0].prompt.spans, q.sides[0].prompt.n_spans, taps, n_taps,
                                  &sequence, error));
        char *own = NULL, *other = NULL;
        OK(candid_sequence_report(q.sides[0].sequence, &own, error));
        OK(candid_sequence_report(sequence, &other, error));
        assert_string_equal(own, other); /* PAINT tells how many tokens the taps chose */
        candid_string_free(own), candid_string_free(other);
        candid_sequence_free(sequence);

        candid_encoding *none = NULL;
        candid_span span = {.struct_size = sizeof span};
        const float *tokens;
        WRONG(candid_task_encode(q.task, lab.demo.context, images, 0, NULL, &none, error), "expected");
        WRONG(candid_task_encode(NULL, lab.demo.context, images, 1, NULL, &none, error), "expected");
        WRONG(candid_task_encode(q.task, NULL, images, 1, NULL, &none, error), "expected");
        WRONG(candid_encoding_tokens(e, -2, 0, &span, &tokens, error), "expected");
        WRONG(candid_encoding_tokens(e, -1, 1, &span, &tokens, error), "expected");
        WRONG(candid_encoding_tokens(e, q.n_sides, 0, &span, &tokens, error), "expected");
        host_answered(&q);
        check_sight(&lab, e, -1, &lab.image); /* outlives the task */
        candid_encoding_free(e);
    }
    host_lab_close(&lab);
}

static void tensors_may_lie_as_they_like(void **state) {
    (void)state;
    static const char *const json = "{'vcd': true, 'dola': true, 'pai': {'layers': 'all', 'gamma': 1.2}, " VAR "}";
    struct host_lab lab;
    host_lab_open(&lab, 0);
    struct expected e = run_runtime(&lab, json, DEMO_PROMPT);
    for (int layout = 0; layout < HOST_LAYOUTS; layout++) {
        compare(&lab, json, DEMO_PROMPT, &e, (enum host_layout)layout, 0);
        compare(&lab, json, DEMO_PROMPT, &e, (enum host_layout)layout, 7);
    }
    expected_free(&e);
    host_lab_close(&lab);
}

/* The host by itself is right, whatever candid does. */
static void the_host_without_candid(void **state) {
    (void)state;
    struct host_lab lab;
    host_lab_open(&lab, N_HOST_SCENES - 1);
    struct expected e = run_runtime(&lab, "{}", DEMO_PROMPT);
    for (int layout = 0; layout < HOST_LAYOUTS; layout++) {
        struct host_question q;
        host_ask(&q, &lab, NULL, NULL, (enum host_layout)layout);
        q.most = layout == HOST_PACKED ? 11 : 0;
        host_read(&q);
        for (int t = 0; t < N_STEPS; t++) {
            const float *expected = e.logits + (size_t)t * (size_t)e.n_vocab;
            assert_true(difference(expected, q.sides[0].logits, e.n_vocab) <= TOLERANCE);
            if (t + 1 < N_STEPS) {
                host_feed(&q, host_best(expected, e.n_vocab));
            }
        }
        host_answered(&q);
    }
    expected_free(&e);
    host_lab_close(&lab);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_host_without_candid),      cmocka_unit_test(a_host_computes_what_the_runtime_does),
        cmocka_unit_test(questions_may_be_reworded),    cmocka_unit_test(candid_may_encode_for_the_host),
        cmocka_unit_test(tensors_may_lie_as_they_like),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
