/*
 * OPERA in a host: candid_search decides, the host runs candidates, moves beams and goes back. Answers and what the
 * search says it did are those of candid's own runtime. candid_generate is the reference, brute force the host.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../support/host_answer.h"

enum { MOST_ROWS = 64 };

struct beam {
    struct host_cache cache;
    float *logits; /* [n_vocab] */
};

struct lab {
    struct host_question q;
    candid_search *search;
    struct beam prompt;
    struct beam beams[MOST_ROWS], rows[MOST_ROWS]; /* running, and candidates of the last pass */
    int n_beams, n_rows;
    int max_new;
};

static size_t vocabulary(const struct lab *l) {
    return (size_t)l->q.lab->host.w->n_vocab;
}

static struct beam copy_beam(const struct lab *l, const struct beam *from) {
    struct beam to = {host_cache_copy(&l->q.lab->host, &from->cache), host_floats(vocabulary(l))};
    memcpy(to.logits, from->logits, vocabulary(l) * sizeof *to.logits);
    return to;
}

static void drop(struct beam *beams, int *n) {
    for (int i = 0; i < *n; i++) {
        host_cache_free(&beams[i].cache);
        free(beams[i].logits);
    }
    *n = 0;
}

/* One more token of each of n beams, in one pass, as segments of the same sequence. */
static void run_tokens(struct lab *l, struct beam *beams, const int32_t *tokens, int n) {
    struct host_row rows[MOST_ROWS];
    struct host_lane lanes[MOST_ROWS];
    for (int i = 0; i < n; i++) {
        const float *embedding = l->q.lab->host.embeddings + (size_t)tokens[i] * (size_t)l->q.lab->host.w->n_embd;
        rows[i] = (struct host_row){embedding, beams[i].cache.position};
        lanes[i] = (struct host_lane){.cache = &beams[i].cache,
                                      .sequence = l->q.sides[0].sequence,
                                      .rows = &rows[i],
                                      .n_rows = 1,
                                      .logits = beams[i].logits};
    }
    host_forward(&l->q.lab->host, l->q.pass, l->q.layout, lanes, n);
}

static void measure(struct lab *l, candid_order *order) {
    assert_int_equal(order->n_beams, l->n_beams);
    assert_in_range(order->n_beams * order->n_candidates, 1, MOST_ROWS);
    drop(l->rows, &l->n_rows);
    for (int i = 0; i < order->n_beams * order->n_candidates; i++) {
        l->rows[l->n_rows++] = copy_beam(l, &l->beams[i / order->n_candidates]);
    }
    run_tokens(l, l->rows, order->tokens, l->n_rows);
    OK(candid_search_measured(l->search, order, error));
}

/* The logits of all running beams. */
static float *gather(const struct lab *l) {
    float *logits = host_floats((size_t)l->n_beams * vocabulary(l));
    for (int i = 0; i < l->n_beams; i++) {
        memcpy(logits + (size_t)i * vocabulary(l), l->beams[i].logits, vocabulary(l) * sizeof *logits);
    }
    return logits;
}

static void tell_logits(struct lab *l, bool again, candid_order *order) {
    float *logits = gather(l);
    const candid_view view = host_view(logits, 2, (int64_t[]){l->n_beams, (int64_t)vocabulary(l)});
    if (again) {
        OK(candid_search_again(l->search, &view, order, error));
    } else {
        OK(candid_search_logits(l->search, &view, order, error));
    }
    free(logits);
}

static void follow(struct lab *l, const candid_order *order, int n_candidates) {
    struct beam next[MOST_ROWS], left[MOST_ROWS];
    int32_t tokens[MOST_ROWS], numbers[MOST_ROWS];
    int n_left = 0;
    assert_in_range(order->n_beams, 1, MOST_ROWS);
    for (int i = 0; i < order->n_beams; i++) {
        const int parent = order->parents[i], candidate = order->candidates[i];
        assert_in_range(parent, 0, l->n_beams - 1);
        if (candidate >= 0) {
            next[i] = copy_beam(l, &l->rows[parent * n_candidates + candidate]);
        } else {
            next[i] = copy_beam(l, &l->beams[parent]);
            tokens[n_left] = order->tokens[i];
            numbers[n_left] = i;
            left[n_left++] = next[i];
        }
    }
    const int n_beams = order->n_beams;
    if (n_left > 0) {
        run_tokens(l, left, tokens, n_left);
        for (int i = 0; i < n_left; i++) {
            next[numbers[i]] = left[i];
        }
        OK(candid_search_measured_beams(l->search, numbers, (size_t)n_left, error));
    }
    drop(l->beams, &l->n_beams);
    memcpy(l->beams, next, (size_t)n_beams * sizeof *next);
    l->n_beams = n_beams;
}

/* The beams as they were: the prompt and their tokens, run once more. */
static void go_back(struct lab *l, const candid_order *order) {
    int32_t *ids = host_memory((size_t)l->max_new, sizeof *ids);
    const int n_tokens = order->n_tokens, n_beams = order->n_beams;
    drop(l->beams, &l->n_beams);
    for (int i = 0; i < n_beams; i++) {
        l->beams[l->n_beams++] = copy_beam(l, &l->prompt);
        OK(candid_search_beam(l->search, i, ids, error));
        for (int t = 0; t < n_tokens; t++) {
            run_tokens(l, &l->beams[i], &ids[t], 1);
        }
    }
    free(ids);
}

static void search(struct lab *l) {
    candid_order order = {.struct_size = sizeof order};
    l->beams[l->n_beams++] = copy_beam(l, &l->prompt);
    tell_logits(l, false, &order);
    for (int n_candidates = 0; order.verb != CANDID_VERB_STOP;) {
        switch (order.verb) {
        case CANDID_VERB_MEASURE:
            n_candidates = order.n_candidates;
            measure(l, &order);
            break;
        case CANDID_VERB_CONTINUE:
            follow(l, &order, n_candidates);
            tell_logits(l, false, &order);
            break;
        case CANDID_VERB_ROLLBACK:
            go_back(l, &order);
            tell_logits(l, true, &order);
            break;
        default: fail_msg("verb %d", (int)order.verb);
        }
    }
}

static void begin(struct lab *l, struct host_lab *host, const char *json, enum host_layout layout, int max_new) {
    *l = (struct lab){.max_new = max_new};
    host_ask(&l->q, host, json, DEMO_PROMPT, layout);
    assert_true(l->q.needs.searches);
    host_read(&l->q);
    struct prompt words = host_words(&l->q, NULL);
    int32_t ends[TOKENIZER_MAX_ENDS];
    const candid_search_params params = {.struct_size = sizeof params,
                                         .n_prompt_ids = (int32_t)words.tokens.count + 1,
                                         .max_new_tokens = max_new,
                                         .end_tokens = ends,
                                         .n_end_tokens = (size_t)tokenizer_ends(host->demo.model->tokenizer, ends)};
    OK(candid_search_create(l->q.task, l->q.sides[0].sequence, &params, &l->search, error));
    prompt_free(&words);
    l->prompt = (struct beam){l->q.sides[0].cache, l->q.sides[0].logits};
}

static void end(struct lab *l) {
    drop(l->beams, &l->n_beams);
    drop(l->rows, &l->n_rows);
    candid_search_free(l->search);
    host_answered(&l->q);
}

/* Answers, scores and rollbacks are those of candid_generate; returns how often it went back. */
static int compare(struct lab *l, const candid_result *expected) {
    int32_t *ids = host_memory((size_t)l->max_new, sizeof *ids);
    for (size_t i = 0; i < expected->n_answers; i++) {
        const candid_answer *answer = &expected->answers[i];
        size_t n = 0;
        float score = 0;
        OK(candid_search_answer(l->search, (int32_t)i, ids, &n, &score, error));
        assert_int_equal(n, answer->n_tokens - (answer->finish == CANDID_FINISH_EOS));
        assert_memory_equal(ids, answer->tokens, n * sizeof *ids);
        assert_true(fabs((double)score - (double)answer->score) <= 1e-4 * fabs((double)answer->score));
    }
    free(ids);
    char *text = NULL;
    OK(candid_search_report(l->search, &text, error));
    cJSON *found = cJSON_Parse(text), *all = cJSON_Parse(expected->interventions);
    assert_non_null(found);
    const cJSON *wanted = cJSON_GetObjectItem(all, "opera");
    const cJSON *opera = cJSON_GetObjectItem(found, "opera") ? cJSON_GetObjectItem(found, "opera") : found;
    static const char *const names[] = {"candidates_rewarded", "candidates_penalised", "beams_with_plain_logits",
                                        "rollbacks"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const cJSON *a = cJSON_GetObjectItem(wanted, names[i]), *b = cJSON_GetObjectItem(opera, names[i]);
        if (!a || !b || !cJSON_Compare(a, b, true)) {
            fail_msg("%s: expected as in %s, found %s", names[i], expected->interventions, text);
        }
    }
    const int n = cJSON_GetArraySize(cJSON_GetObjectItem(wanted, "rollbacks"));
    cJSON_Delete(found);
    cJSON_Delete(all);
    candid_string_free(text);
    return n;
}

static const struct {
    const char *json;
    int max_new;
} cases[] = {
    {"{'opera': true, 'decode': {'beams': 2}}", 8},
    {"{'opera': {'candidates': 3, 'threshold': 2, 'rollback_min': 0, 'scale': 200, 'image_reward_len': 0}, 'decode': "
     "{'beams': 3}}",
     10},
    {"{'opera': {'candidates': 1, 'threshold': 2, 'rollback_min': 1, 'score_scale': 0.001, 'scale': 300}, 'decode': "
     "{'beams': 4}}",
     14},
    {"{'opera': {'preset': 'code', 'candidates': 2, 'threshold': 2, 'rollback_min': 0}, 'decode': {'beams': 3}, "
     "'vhr': {'layers': 'all'}}",
     8},
    {"{'opera': {'candidates': 2, 'attention': 'before_edits'}, 'decode': {'beams': 2}, 'pai': {'layers': 'all', "
     "'gamma': 1}}",
     6},
};

static int compare_case(struct host_lab *host, const char *json, int max_new, enum host_layout layout) {
    char text[1000];
    host_quote(json, text, sizeof text);
    candid_config *config = demo_config(text);
    candid_generate_params params = candid_generate_params_default();
    params.config = config;
    params.max_new_tokens = max_new;
    const candid_image *images[] = {host->demo.image};
    const candid_result *expected = NULL;
    OK(candid_generate(host->demo.context, images, 1, DEMO_PROMPT, &params, &expected, error));

    struct lab l;
    begin(&l, host, json, layout, max_new);
    search(&l);
    const int rollbacks = compare(&l, expected);
    int32_t ids[64];
    size_t n;
    float score;
    candid_error error;
    assert_int_equal(candid_search_answer(l.search, 1000, ids, &n, &score, &error), CANDID_ERROR_ARGUMENT);
    end(&l);
    candid_result_free(expected);
    candid_config_free(config);
    return rollbacks;
}

static void a_host_finds_what_the_runtime_finds(void **state) {
    (void)state;
    int rollbacks = 0;
    for (int scene = 0; scene < N_HOST_SCENES; scene++) {
        struct host_lab host;
        host_lab_open(&host, scene);
        for (int i = 0; i < (int)(sizeof cases / sizeof *cases); i++) {
            if (scene == 0 || i == scene) { /* the toy runs all, the larger model one on each scene */
                rollbacks += compare_case(&host, cases[i].json, cases[i].max_new, (enum host_layout)(i % HOST_LAYOUTS));
            }
        }
        host_lab_close(&host);
    }
    assert_true(rollbacks > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_host_finds_what_the_runtime_finds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
