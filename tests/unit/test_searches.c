/*
 * Searches on the demo model: OPERA's sequences, slots and ways back against a driver that computes every row from the
 * whole text; the same bits for any number of threads; cancelling; what is refused.
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../support/demo_request.h"
#include "decode/group.h"
#include "decode/opera.h"

/* Under a sanitizer a part of the cases has to do. */
#ifdef __SANITIZE_ADDRESS__
#define THOROUGH 0
#else
#define THOROUGH 1
#endif

static candid_status generate_with(struct demo *d, const char *json, candid_generate_params *params,
                                   const candid_result **out, candid_error *error) {
    candid_config *config = demo_config(json);
    params->config = config;
    const candid_image *images[] = {d->image};
    const candid_status status = candid_generate(d->context, images, 1, DEMO_PROMPT, params, out, error);
    candid_config_free(config);
    return status;
}

/* ---- OPERA by brute force ---- */

/* Rows computed one at a time, each text from the end of the prompt. */
struct brute {
    struct demo *d;
    struct asked asked;
    struct generation g;
    struct plan *plan;
    int n_prompt, n_tokens; /* generated tokens before the row that is measured */
    int image_begin, image_end;
    struct opera_row row;
    float *local;
};

static void see(struct plan_step *step, const struct probe_result *result) {
    struct brute *b = step->state;
    b->row = (struct opera_row){.local = b->local};
    for (int i = 0; i < result->n_keys; i++) {
        b->row.sum += result->values[i];
        b->row.image_mass += i >= b->image_begin && i < b->image_end ? result->values[i] : 0;
    }
    memcpy(b->local, result->values + b->n_prompt, (size_t)(result->n_keys - b->n_prompt) * sizeof *b->local);
}

static void brute_open(struct brute *b, struct demo *d, const char *json) {
    *b = (struct brute){.d = d};
    demo_ask(&b->asked, d, json);
    b->g = request_generation(d->context, &b->asked.request, b->asked.seq);
    b->local = calloc(1024, sizeof *b->local);
    struct layout layout = {0};
    OK(layout_from_prompt(b->g.prompt, b->g.images, &layout, error));
    b->n_prompt = layout_length(&layout);
    b->image_begin = layout_find_image(&layout, 0)->begin;
    b->image_end = layout_find_image(&layout, 0)->end;
    const struct llama_weights *w = &d->model->llama;
    OK(plan_create(w->n_layer, w->n_head, w->n_embd, &layout, &b->plan, error));
    struct plan_step *step;
    OK(plan_add(b->plan, PLAN_PROBE_ROWS, NULL, &step, error));
    step->layers[w->n_layer - 1] = true;
    step->rows = ROW_GENERATED;
    step->reduce = HEADS_MAX;
    step->decide = see;
    step->state = b;
    layout_free(&layout);
    demo_prefill(&b->asked, NULL, NULL);
}

static void brute_close(struct brute *b) {
    plan_free(b->plan);
    free(b->local);
    asked_free(&b->asked);
}

/* Logits after the prompt and n tokens, all read anew; the last token's attention is in b->row. */
static void compute(struct brute *b, const int32_t *ids, int n, float *logits) {
    const size_t bytes = (size_t)b->d->model->llama.n_vocab * sizeof *logits;
    struct forward_row rows[64] = {0};
    struct kv_seq *seq = NULL;
    if (n == 0) {
        memcpy(logits, b->asked.logits, bytes);
        return;
    }
    OK(kv_fork(b->asked.seq, &seq, error));
    OK(layout_append(&seq->layout, SPAN_GENERATED, n, -1, 0, 0, error));
    for (int i = 0; i < n; i++) {
        rows[i] = (struct forward_row){
            .seq = seq, .token = ids[i], .position = b->asked.position + i, .want_logits = i == n - 1, .plan = b->plan};
    }
    OK(llama_forward(b->d->context->llama, rows, n, NULL, logits, error));
    kv_seq_free(seq);
}

/* Runs the state machine; returns the best answer's ids and how often it went back. */
static int brute_run(struct brute *b, const struct opera_options *options, int n_beams, int max_new, int32_t *ids,
                     int *n_rollbacks) {
    const size_t n_vocab = (size_t)b->d->model->llama.n_vocab;
    int32_t ends[TOKENIZER_MAX_ENDS];
    const struct opera_params params = {.options = *options,
                                        .n_beams = n_beams,
                                        .n_vocab = (int)n_vocab,
                                        .n_prompt_ids = (int)b->g.prompt->tokens.count + 1,
                                        .max_new_tokens = max_new,
                                        .end_tokens = ends,
                                        .n_end_tokens = tokenizer_ends(b->g.tokenizer, ends)};
    struct opera *o = NULL;
    OK(opera_create(&params, &o, error));
    float *logits = malloc((size_t)n_beams * n_vocab * sizeof *logits), *unused = malloc(n_vocab * sizeof *unused);
    struct opera_row rows[64];
    float *locals = calloc(64 * 512, sizeof *locals);
    int32_t candidates[64], path[512];
    for (;;) {
        const int t = opera_step(o), running = opera_n_running(o);
        for (int i = 0; i < running; i++) {
            opera_beam_ids(o, i, path);
            compute(b, path, t, logits + (size_t)i * n_vocab);
        }
        OK(opera_candidates(o, logits, candidates, error));
        const int n = opera_n_candidates(o);
        assert_true(running * n <= 64);
        for (int i = 0; i < running * n; i++) {
            opera_beam_ids(o, i / n, path);
            path[t] = candidates[i];
            compute(b, path, t + 1, unused);
            rows[i] = b->row;
            rows[i].local = memcpy(locals + (size_t)i * 512, b->local, (size_t)(t + 1) * sizeof *locals);
        }
        struct opera_choice choice;
        OK(opera_choose(o, rows, &choice, error));
        if (choice.verdict == OPERA_ROLLBACK) {
            for (int i = 0; i < opera_n_running(o); i++) {
                opera_beam_ids(o, i, path);
                compute(b, path, opera_step(o), logits + (size_t)i * n_vocab);
            }
            OK(opera_rechoose(o, logits, &choice, error));
        }
        if (choice.verdict == OPERA_DONE) {
            break;
        }
        for (int i = 0; i < n_beams; i++) {
            if (choice.candidates[i] < 0) {
                opera_beam_ids(o, i, path);
                compute(b, path, opera_step(o), unused);
                OK(opera_measured(o, i, &b->row, error));
            }
        }
    }
    struct opera_answer best;
    OK(opera_best(o, 0, &best, error));
    memcpy(ids, best.ids, (size_t)best.n * sizeof *ids);
    int n = best.n;
    if (best.end_token >= 0) {
        ids[n++] = best.end_token;
    }
    *n_rollbacks = opera_counters(o).n_rollbacks;
    free(best.ids);
    free(locals);
    free(logits);
    free(unused);
    opera_free(o);
    return n;
}

static void opera_equals_brute_force(void **state) {
    (void)state;
    static const struct {
        const char *json;
        int beams, max_new, least_rollbacks;
    } cases[] = {
        {"{\"opera\": {\"candidates\": 3}, \"decode\": {\"beams\": 3}}", 3, 10, 0},
        {"{\"opera\": {\"candidates\": 2, \"threshold\": 1, \"rollback_min\": 1, \"image_reward_len\": 0, \"scale\": "
         "200}, "
         "\"decode\": {\"beams\": 2}}",
         2, 14, 1},
        {"{\"opera\": {\"candidates\": 3, \"threshold\": 2, \"rollback_min\": 1, \"scale\": 100, \"image_reward_len\": "
         "0, "
         "\"preset\": \"code\"}, \"decode\": {\"beams\": 3}}",
         3, 16, 3},
        {"{\"opera\": {\"candidates\": 3, \"threshold\": 2, \"rollback_min\": 1, \"scale\": 100, \"image_reward_len\": "
         "0}, "
         "\"decode\": {\"beams\": 3}}",
         3, 16, 5},
        /* back to the prompt itself */
        {"{\"opera\": {\"candidates\": 4, \"threshold\": 2, \"rollback_min\": 0, \"scale\": 200, \"image_reward_len\": "
         "0}, "
         "\"decode\": {\"beams\": 3}}",
         3, 10, 7},
        /* tokens that are no candidates */
        {"{\"opera\": {\"candidates\": 1, \"threshold\": 2, \"rollback_min\": 1, \"score_scale\": 0.001, \"scale\": "
         "300}, "
         "\"decode\": {\"beams\": 4}}",
         4, 14, 0},
    };
    struct demo d;
    exact_open(&d, 1);
    int rollbacks_in_all = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i += THOROUGH ? 1 : 4) {
        struct brute b;
        brute_open(&b, &d, cases[i].json);
        int32_t ids[64];
        int n_rollbacks;
        const int n =
            brute_run(&b, &b.asked.request.decoding.opera, cases[i].beams, cases[i].max_new, ids, &n_rollbacks);
        brute_close(&b);

        candid_generate_params params = candid_generate_params_default();
        params.max_new_tokens = cases[i].max_new;
        const candid_result *result = NULL;
        OK(generate_with(&d, cases[i].json, &params, &result, error));
        assert_int_equal(result->n_tokens, n);
        assert_memory_equal(result->tokens, ids, (size_t)n * sizeof *ids);
        cJSON *report = cJSON_Parse(result->interventions);
        const cJSON *list = cJSON_GetObjectItem(cJSON_GetObjectItem(report, "opera"), "rollbacks");
        assert_int_equal(cJSON_GetArraySize(list), n_rollbacks);
        if (THOROUGH && n_rollbacks < cases[i].least_rollbacks) { /* counted on the demo model */
            fail_msg("case %zu: %d rollbacks", i, n_rollbacks);
        }
        rollbacks_in_all += n_rollbacks;
        cJSON_Delete(report);
        candid_result_free(result);
    }
    print_message("%d rollbacks\n", rollbacks_in_all);
    demo_close(&d);
}

/* ---- threads ---- */

static void threads_change_no_bit(void **state) {
    (void)state;
    static const char *const configs[] = {
        "{\"decode\": {\"beams\": 4, \"answers\": 3}, \"vcd\": true}",
        "{\"opera\": {\"candidates\": 3, \"threshold\": 3, \"rollback_min\": 2}, \"vhr\": true}",
        "{\"causalmm\": {\"vision\": \"shuffle\", \"language\": \"random\"}, \"dola\": true}",
        "{\"agla\": true, \"damro\": true, \"pai\": true}",
        "{\"carve\": {\"steps\": 3}}",
    };
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        uint32_t expected = 0;
        for (int threads = 1; threads <= (THOROUGH ? 3 : 2); threads++) {
            struct demo d;
            exact_open(&d, threads);
            candid_generate_params params = candid_generate_params_default();
            params.max_new_tokens = 10;
            const candid_result *result = NULL;
            OK(generate_with(&d, configs[i], &params, &result, error));
            expected = threads == 1 ? result->stats.fingerprint : expected;
            assert_int_equal(result->stats.fingerprint, expected);
            candid_result_free(result);
            demo_close(&d);
        }
    }
}

/* ---- cancelling ---- */

static bool count_down(void *user_data) {
    int *left = user_data;
    return (*left)-- <= 0;
}

/* Cancelled at every moment a search gives an error or, once an answer is finished, the best one so far. */
static void cancelled_searches(void **state) {
    (void)state;
    static const char *const configs[] = {
        "{\"decode\": {\"beams\": 5, \"early_stopping\": \"never\", \"length_penalty\": 2}}",
        "{\"opera\": {\"candidates\": 2}, \"decode\": {\"beams\": 3}}"};
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        struct demo d;
        demo_open(&d, CANDID_PRECISION_FAST, 1);
        const int32_t end = tokenizer_eos(d.model->tokenizer);
        int n_errors = 0, n_kept = 0;
        for (int polls = 0;; polls += THOROUGH ? 7 : 41) {
            int left = polls;
            candid_generate_params params = candid_generate_params_default();
            params.max_new_tokens = 90;
            params.should_cancel = count_down;
            params.should_cancel_user_data = &left;
            const candid_result *result = NULL;
            const candid_status status = generate_with(&d, configs[i], &params, &result, NULL);
            if (status == CANDID_OK && result->finish != CANDID_FINISH_CANCELLED) {
                assert_true(left >= 0);
                candid_result_free(result);
                break;
            }
            if (status == CANDID_OK) {
                n_kept++;
                assert_true(result->n_tokens > 0 && result->tokens[result->n_tokens - 1] == end);
                candid_result_free(result);
            } else {
                assert_int_equal(status, CANDID_ERROR_CANCELLED);
                assert_int_equal(n_kept, 0); /* what is finished is not lost any more */
                n_errors++;
            }
        }
        print_message("%d errors, %d answers kept\n", n_errors, n_kept);
        assert_true(n_errors > 0 && n_kept > 0);
        demo_close(&d);
    }
}

/* ---- refused before any work ---- */

static void refused(void **state) {
    (void)state;
    static const struct {
        const char *json, *message;
    } cases[] = {
        {"{\"opera\": true, \"vcd\": true}", "opera and vcd exclude each other"},
        {"{\"opera\": true, \"pai\": true}", "pai.gamma to 1"},
        {"{\"opera\": true, \"decode\": {\"strategy\": \"beam\"}}", "opera is active"},
        {"{\"opera\": true, \"decode\": {\"beams\": 1}}", "at least 2"},
        {"{\"opera\": {\"candidates\": 1000}, \"decode\": {\"beams\": 5}}", "vocabulary"},
        {"{\"decode\": {\"strategy\": \"greedy\", \"answers\": 2}}", "greedy search has one answer"},
        {"{\"decode\": {\"beams\": 3, \"answers\": 4}}", "at most as many as beams"},
        {"{\"decode\": {\"strategy\": \"sample\"}}", "temperature above 0"},
        {"{\"decode\": {\"beams\": 3, \"temperature\": 1}}", "expected temperature 0"},
        {"{\"vicrop\": true, \"carve\": true}", "exclude each other"},
        {"{\"agla\": {\"map\": \"file\"}}", "agla.file"},
        {"{\"damro\": {\"block\": 40}}", "block of the image encoder"},
        {"{\"vicrop\": {\"layers\": \"9\"}}", "layer 9"},
        {"{\"agla\": {\"layers\": \"9\"}}", "layer 9"},
        {"{\"dola\": {\"layers\": [9]}}", "dola.layers"},
        {"{\"agla\": {\"map\": \"file\", \"file\": \"/nowhere.png\"}}", "/nowhere.png"},
        {"{\"causalmm\": {\"language\": \"uniform\", \"language_layers\": \"9\"}}", "layer 9"},
        {"{\"decode\": {\"strategy\": \"greedy\", \"beams\": 4}}", "decode.beams is given"},
        {"{\"decode\": {\"strategy\": \"opera\", \"length_penalty\": 3}}", "decode.length_penalty is given"},
        {"{\"decode\": {\"strategy\": \"greedy\", \"early_stopping\": \"never\"}}", "early_stopping is given"},
        {"{\"decode\": {\"beams\": 2, \"top_k\": 5}}", "no use for top_k"},
        {"{\"opera\": true, \"decode\": {\"top_p\": 0.5}}", "no use for top_p"},
    };
    struct demo d;
    candid_error failure;
    demo_open(&d, CANDID_PRECISION_FAST, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        candid_generate_params params = candid_generate_params_default();
        const candid_result *result = NULL;
        int polls = INT_MAX;
        params.should_cancel = count_down;
        params.should_cancel_user_data = &polls;
        if (generate_with(&d, cases[i].json, &params, &result, &failure) == CANDID_OK ||
            !strstr(failure.message, cases[i].message)) {
            fail_msg("%s: %s", cases[i].json, failure.message);
        }
        assert_int_equal(polls, INT_MAX); /* nothing was computed */
    }
    /* a branch that does not fit although the prompt does */
    candid_generate_params params = candid_generate_params_default();
    const candid_result *result = NULL;
    params.max_new_tokens = 512 - 81 - 20; /* the disturbed prompt is some 57 tokens longer */
    assert_int_equal(generate_with(&d, "{\"icd\": true}", &params, &result, &failure), CANDID_ERROR_CONTEXT);
    assert_non_null(strstr(failure.message, "icd contrasts with"));
    demo_close(&d);
}

/* ---- accepted at the edges ---- */

static void accepted(void **state) {
    (void)state;
    static const char *const configs[] = {
        /* many more slots of candidates than of tokens */
        "{\"opera\": {\"candidates\": 350}, \"decode\": {\"beams\": 2}}",
        "{\"opera\": {\"candidates\": 1, \"first_candidates\": 700}, \"decode\": {\"beams\": 2}}",
        /* scores below that of an empty hypothesis in transformers */
        "{\"decode\": {\"beams\": 3, \"length_penalty\": -10}}",
    };
    struct demo d;
    demo_open(&d, CANDID_PRECISION_FAST, 1);
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        candid_generate_params params = candid_generate_params_default();
        const candid_result *result = NULL;
        params.max_new_tokens = 4;
        OK(generate_with(&d, configs[i], &params, &result, error));
        candid_result_free(result);
    }
    /* a stop string ends every answer, also those that searches return whole */
    static const char *const searches[] = {"{}", "{\"decode\": {\"beams\": 3, \"answers\": 2}}",
                                           "{\"opera\": {\"candidates\": 2}, \"decode\": {\"beams\": 2}}"};
    for (size_t i = 0; i < sizeof searches / sizeof *searches; i++) {
        static const char *const stop[] = {" scene"};
        candid_generate_params params = candid_generate_params_default();
        const candid_result *result = NULL;
        params.max_new_tokens = 16;
        params.stop = stop;
        params.n_stop = 1;
        OK(generate_with(&d, searches[i], &params, &result, error));
        for (size_t k = 0; k < result->n_answers; k++) {
            assert_int_equal(result->answers[k].finish, CANDID_FINISH_STOP);
            assert_null(strstr(result->answers[k].text, "scene"));
            assert_true(strlen(result->answers[k].text) > 10);
        }
        candid_result_free(result);
    }
    /* a second look at a prompt that has a place for its image */
    for (int alone = 0; alone < 2; alone++) {
        candid_generate_params params = candid_generate_params_default();
        const candid_image *images[] = {d.image};
        const candid_result *placed = NULL, *in_front = NULL;
        params.max_new_tokens = 8;
        params.config = demo_config(alone ? "{\"vicrop\": {\"images\": \"refined\"}}" : "{\"vicrop\": true}");
        OK(candid_generate(d.context, images, 1, "<image>\nWhat is on the left?", &params, &placed, error));
        OK(candid_generate(d.context, images, 1, "What is on the left?", &params, &in_front, error));
        assert_string_equal(placed->text, in_front->text);
        assert_int_equal(placed->stats.n_prompt, in_front->stats.n_prompt);
        candid_result_free(placed);
        candid_result_free(in_front);
        candid_config_free((candid_config *)(uintptr_t)params.config);
    }
    demo_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opera_equals_brute_force),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(cancelled_searches),
        cmocka_unit_test(refused),
        cmocka_unit_test(accepted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
