/* candid_generate_many: the answers of candid_generate, with less work. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "../support/demo_request.h"
#include "interventions/config.h"

static const char *const questions[] = {
    "Is there a dog in the image?",
    "Is there an elephant in the image?",
    "Is there a traffic light in the image?",
    "How many chairs are in the image?",
    DEMO_PROMPT,
};
#define N_QUESTIONS (sizeof questions / sizeof *questions)

/* Whether prompts can share what is before the question is a property of the method. */
static const struct {
    const char *config;
    bool shares;
    bool quick; /* also run under a sanitizer */
} cases[] = {
    {NULL, true, true},
    {"{\"var\": {\"sink_dims\": [3, 7], \"tau\": 3, \"rho\": 1, \"summ\": 0}}", true, true},
    {"{\"cca\": true}", true, false},
    {"{\"pai\": true}", true, true},
    {"{\"hgai\": true}", true, false},
    {"{\"vhr\": true}", false, true},
    {"{\"vista\": true}", false, false},
    {"{\"mma\": true}", false, false},
    {"{\"head_scale\": {\"heads\": [[1, 0], [2, 3]], \"scale\": 0.5}}", false, false},
    {"{\"dola\": true}", true, false},
    {"{\"vcd\": true}", true, true},
    {"{\"damro\": true}", true, false},
    {"{\"causalmm\": {\"seed\": 3}}", true, false},
    {"{\"icd\": true}", true, false},
    {"{\"lqcd\": true}", true, false},
    {"{\"agla\": true}", true, false},
    {"{\"var\": {\"sink_dims\": [3, 7], \"tau\": 3, \"rho\": 1, \"summ\": 0}, \"lqcd\": true}", true, false},
    {"{\"vcd\": true, \"var\": {\"sink_dims\": [3, 7], \"tau\": 3, \"rho\": 1, \"summ\": 0}}", true, false},
    {"{\"decode\": {\"strategy\": \"sample\", \"temperature\": 1}}", true, true},
    {"{\"decode\": {\"strategy\": \"sample\", \"temperature\": 1, \"answers\": 3}}", true, false},
    {"{\"decode\": {\"beams\": 3, \"answers\": 2}}", true, true},
    {"{\"vcd\": true, \"decode\": {\"beams\": 2}}", true, false},
    {"{\"opera\": {\"candidates\": 3}, \"decode\": {\"beams\": 2}}", true, false},
    {"{\"vicrop\": true}", false, false},
    {"{\"act\": true}", false, false},
};

/* The search of each took the same steps; the cache is that of all. */
static void expect_same_steps(const candid_result *one, const candid_result *many) {
    const char *x = strstr(one->interventions, "\"steps\""), *y = strstr(many->interventions, "\"steps\"");
    assert_true((x == NULL) == (y == NULL));
    if (x) {
        const char *end = strstr(x, "\"kv_bytes\"");
        assert_true(strncmp(x, y, end ? (size_t)(end - x) : strlen(x)) == 0);
    }
}

static void expect_same(const candid_result *one, const candid_result *many, const char *config, size_t i) {
    if (strcmp(one->text, many->text) != 0 || one->stats.fingerprint != many->stats.fingerprint) {
        fail_msg("%s, request %zu: alone \"%s\" (%08x), among others \"%s\" (%08x)", config ? config : "no method", i,
                 one->text, one->stats.fingerprint, many->text, many->stats.fingerprint);
    }
    assert_int_equal(one->n_tokens, many->n_tokens);
    assert_memory_equal(one->tokens, many->tokens, one->n_tokens * sizeof *one->tokens);
    assert_int_equal(one->finish, many->finish);
    assert_int_equal(one->stats.n_prompt, many->stats.n_prompt);
    assert_int_equal(one->stats.n_generated, many->stats.n_generated);
    assert_int_equal(one->n_answers, many->n_answers);
    expect_same_steps(one, many);
    for (size_t k = 0; k < one->n_answers; k++) {
        assert_string_equal(one->answers[k].text, many->answers[k].text);
        assert_true(one->answers[k].score == many->answers[k].score);
    }
}

/* All questions about two images. */
static void compare(struct demo *d, const candid_image *second, const char *json, bool shares) {
    candid_request requests[2 * N_QUESTIONS];
    const candid_image *const first_image = d->image;
    size_t n = 0;
    for (size_t i = 0; i < N_QUESTIONS; i++) {
        requests[n++] = (candid_request){&first_image, 1, questions[i]};
    }
    for (size_t i = 0; i < N_QUESTIONS; i++) {
        requests[n++] = (candid_request){&second, 1, questions[N_QUESTIONS - 1 - i]};
    }
    candid_config *config = demo_config(json);
    candid_generate_params params = candid_generate_params_default();
    params.max_new_tokens = 12;
    params.seed = 5;
    params.config = config;
    const candid_result *many[2 * N_QUESTIONS];
    candid_sharing sharing = {.struct_size = sizeof sharing};
    OK(candid_generate_many(d->context, requests, n, &params, &sharing, many, error));
    for (size_t i = 0; i < n; i++) {
        const candid_result *one;
        OK(candid_generate(d->context, requests[i].images, requests[i].n_images, requests[i].prompt, &params, &one,
                           error));
        expect_same(one, many[i], json, i);
        candid_result_free(one);
        candid_result_free(many[i]);
    }
    assert_int_equal(sharing.n_images, n);
    if (shares) {
        assert_string_equal(sharing.why_not, "");
        assert_int_equal(sharing.n_encoded, 2);
        if (3 * sharing.n_prefilled > 2 * sharing.n_prompt) { /* AGLA reads its masked image for each question */
            fail_msg("%s: %lld of %lld tokens read", json, (long long)sharing.n_prefilled, (long long)sharing.n_prompt);
        }
    } else {
        assert_true(strlen(sharing.why_not) > 0);
        assert_true(3 * sharing.n_prefilled > 2 * sharing.n_prompt);
    }
    candid_config_free(config);
}

/* Whether some active method says that it must read every prompt. */
static bool is_per_question(const char *json) {
    candid_config *config = demo_config(json);
    struct settings s;
    bool found = false;
    for (const struct method *const *m = methods; *m; m++) {
        found = found || ((*m)->per_question && config_method(config, *m, &s));
    }
    candid_config_free(config);
    return found;
}

static void test_methods_know_what_they_share(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (is_per_question(cases[i].config) == cases[i].shares) {
            fail_msg("%s", cases[i].config);
        }
    }
}

static void test_equals_one_by_one(void **state) {
    (void)state;
    struct demo d;
    candid_image *second = NULL;
    exact_open(&d, 2);
    OK(candid_image_load(PROJECT_ROOT "/models/demo/heldout/images/scene_000011.png", &second, error));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
#ifdef __SANITIZE_ADDRESS__
        if (!cases[i].quick) {
            continue;
        }
#endif
        compare(&d, second, cases[i].config, cases[i].shares);
    }
    candid_image_free(second);
    demo_close(&d);
}

/* Every request alone gives what it gave among the others. */
static void expect_same_alone(struct demo *d, const candid_request *requests, size_t n, const char *json) {
    candid_config *config = demo_config(json);
    candid_generate_params params = candid_generate_params_default();
    params.max_new_tokens = 6;
    params.config = config;
    const candid_result *many[16];
    assert_true(n <= sizeof many / sizeof *many);
    OK(candid_generate_many(d->context, requests, n, &params, NULL, many, error));
    for (size_t i = 0; i < n; i++) {
        const candid_result *one;
        OK(candid_generate(d->context, requests[i].images, requests[i].n_images, requests[i].prompt, &params, &one,
                           error));
        expect_same(one, many[i], json, i);
        candid_result_free(one);
        candid_result_free(many[i]);
    }
    candid_config_free(config);
}

/* LQCD has a branch where the question is a leading one, PAI where there is an image. */
static void test_branches_differ(void **state) {
    (void)state;
    struct demo d;
    exact_open(&d, 2);
    const candid_image *const image = d.image;
    const char *const leading = "Isn't there a dog in the image?";
    const candid_request asked[] = {
        {&image, 1, questions[0]}, {&image, 1, leading},      {&image, 1, questions[1]}, {NULL, 0, "Hello"},
        {&image, 1, leading},      {&image, 1, questions[2]}, {NULL, 0, leading},
    };
    const size_t n = sizeof asked / sizeof *asked;
    expect_same_alone(&d, asked, n, "{\"lqcd\": true}");
    expect_same_alone(&d, asked, n, "{\"pai\": true}");
    expect_same_alone(&d, asked, n, "{\"pai\": true, \"lqcd\": true}");
    expect_same_alone(&d, asked, 3, "{\"vcd\": {\"first_token_only\": true}, \"lqcd\": true}");
    expect_same_alone(&d, asked, 3, "{\"lqcd\": true, \"decode\": {\"beams\": 2}}");
    demo_close(&d);
}

/* After the image there are fewer tokens than a prompt keeps for itself: what is shared ends within it. */
static void test_image_at_the_end(void **state) {
    (void)state;
    struct demo d;
    exact_open(&d, 2);
    const candid_image *const image = d.image;
    const char *const prompt = "Is there a dog in the image?<image>";
    const candid_request asked[] = {{&image, 1, prompt}, {&image, 1, prompt}};
    expect_same_alone(&d, asked, 2, "{\"decode\": {\"beams\": 2}}");
    expect_same_alone(&d, asked, 2, "{\"cca\": true, \"decode\": {\"beams\": 2}}");
    expect_same_alone(&d, asked, 2, "{\"cca\": true, \"vcd\": true}");
    demo_close(&d);
}

/* The first request's limit is met while others go on. */
static void test_answers_end_at_their_own_time(void **state) {
    (void)state;
    struct demo d;
    demo_open(&d, CANDID_PRECISION_FAST, 1);
    const candid_image *const image = d.image;
    const candid_request requests[] = {{&image, 1, DEMO_PROMPT}, {&image, 1, questions[0]}, {NULL, 0, "Hello"}};
    const char *stop[] = {" in the "};
    candid_generate_params params = candid_generate_params_default();
    params.max_new_tokens = 40;
    params.stop = stop;
    params.n_stop = 1;
    const candid_result *results[3];
    OK(candid_generate_many(d.context, requests, 3, &params, NULL, results, error));
    assert_int_equal(results[0]->finish, CANDID_FINISH_STOP);
    assert_int_equal(results[1]->finish, CANDID_FINISH_EOS);
    assert_null(strstr(results[0]->text, " in the "));
    for (size_t i = 0; i < 3; i++) {
        candid_result_free(results[i]);
    }
    demo_close(&d);
}

static bool always(void *n_polls) {
    ++*(int *)n_polls;
    return true;
}

static void test_refusals(void **state) {
    (void)state;
    struct demo d;
    demo_open(&d, CANDID_PRECISION_FAST, 1);
    candid_error problem;
    const candid_image *const image = d.image, *const none = NULL;
    const candid_result *results[2];
    candid_generate_params params = candid_generate_params_default();
    OK(candid_generate_many(d.context, NULL, 0, NULL, NULL, results, error));

    const candid_request bad_image[] = {{&image, 1, "a"}, {&none, 1, "b"}};
    assert_int_equal(candid_generate_many(d.context, bad_image, 2, NULL, NULL, results, &problem),
                     CANDID_ERROR_ARGUMENT);
    assert_string_equal(problem.message, "request 1: image 0 is NULL");
    const candid_request no_prompt[] = {{&image, 1, NULL}};
    assert_int_equal(candid_generate_many(d.context, no_prompt, 1, NULL, NULL, results, &problem),
                     CANDID_ERROR_ARGUMENT);

    char *longer = malloc(20001);
    memset(longer, 'x', 20000);
    longer[20000] = '\0';
    const candid_request too_long[] = {{&image, 1, "a"}, {&image, 1, longer}};
    assert_int_equal(candid_generate_many(d.context, too_long, 2, NULL, NULL, results, &problem), CANDID_ERROR_CONTEXT);
    assert_non_null(strstr(problem.message, "request 1: "));
    free(longer);

    const candid_request good[] = {{&image, 1, "a"}, {&image, 1, "b"}};
    int n_polls = 0;
    params.should_cancel = always;
    params.should_cancel_user_data = &n_polls;
    candid_sharing unversioned = {0};
    assert_int_equal(candid_generate_many(d.context, good, 2, &params, &unversioned, results, &problem),
                     CANDID_ERROR_ARGUMENT);
    assert_non_null(strstr(problem.message, "candid_sharing: struct_size is 0"));
    assert_int_equal(n_polls, 0); /* before any work */
    assert_int_equal(candid_generate_many(d.context, good, 2, &params, NULL, results, &problem),
                     CANDID_ERROR_CANCELLED);
    demo_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_methods_know_what_they_share),
        cmocka_unit_test(test_equals_one_by_one),
        cmocka_unit_test(test_branches_differ),
        cmocka_unit_test(test_image_at_the_end),
        cmocka_unit_test(test_answers_end_at_their_own_time),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
