/* OPERA's options, what each safeguard and each quirk of the released program does, the order of calls, odd input. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/opera_lab.h"
#include "../support/opera_toy.h"
#include "decode/opera_internal.h"
#include "interventions/option.h"

/* ---- options ---- */

static void table_is_valid(void **state) {
    (void)state;
    static const struct method *const table[] = {&method_opera, NULL};
    OK(methods_check(table, error));
}

static void presets(void **state) {
    (void)state;
    struct opera_options o = opera_lab_options("{\"opera\": true}");
    assert_true(o.candidates == 5 && o.max_rollbacks == 5 && o.first_candidates == OPERA_FIRST_AUTO);
    assert_true(o.scale == 50.0f && o.alpha == 1.0f && o.threshold == 15 && o.threshold_strict && o.history == 512);
    assert_true(o.image_reward_len == 10 && o.score_scale == 1e-7f && o.score_fp16 && !o.logits_fp16);
    assert_true(o.rollback_min == 10 && !o.monotone && o.retry_full_vocab && o.phi_max == 100.0f);
    assert_true(!o.share_hypotheses && o.clean_rejects && o.plain_fallback && !o.before_edits);
    o = opera_lab_options("{\"opera\": {\"preset\": \"code\"}}");
    assert_true(o.logits_fp16 && o.phi_max == 0.0f && o.first_candidates == 0);
    assert_true(o.share_hypotheses && !o.clean_rejects && !o.plain_fallback && o.retry_full_vocab && !o.monotone);
    o = opera_lab_options("{\"opera\": {\"preset\": \"paper\"}}");
    assert_true(o.image_reward_len == 0 && o.score_scale == 1.0f && !o.score_fp16 && o.rollback_min == 0);
    assert_true(!o.threshold_strict && o.monotone && !o.retry_full_vocab && o.phi_max == 0.0f);
    o = opera_lab_options("{\"opera\": {\"candidates\": 2, \"first_candidates\": 7, \"attention\": \"before_edits\"}}");
    assert_true(o.candidates == 2 && o.max_rollbacks == 2 && o.first_candidates == 7 && o.before_edits);
    o = opera_lab_options("{\"opera\": {\"max_rollbacks\": 9, \"first_candidates\": null}}");
    assert_true(o.max_rollbacks == 9 && o.first_candidates == OPERA_FIRST_AUTO);
}

static void budget_of_zero(void **state) {
    (void)state;
    static const struct method *const table[] = {&method_opera, NULL};
    static const char json[] = "{\"opera\": {\"max_rollbacks\": 0}}";
    struct candid_config *config = NULL;
    candid_error problem;
    assert_int_equal(config_parse(table, json, strlen(json), "test", ".", &config, &problem), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(problem.message, "max_rollbacks"));
    assert_non_null(strstr(problem.message, "an integer from 1"));
}

/* ---- parameters ---- */

static struct opera_params valid_params(void) {
    return (struct opera_params){.options = opera_lab_options("{\"opera\": {\"candidates\": 2}}"),
                                 .n_beams = 2,
                                 .n_vocab = 12,
                                 .n_prompt_ids = 1,
                                 .max_new_tokens = 20};
}

static void expect_refusal(const struct opera_params *params, const char *sentence) {
    struct opera *o = NULL;
    candid_error problem = {CANDID_OK, ""};
    if (opera_create(params, &o, &problem) != CANDID_ERROR_ARGUMENT || !strstr(problem.message, sentence)) {
        fail_msg("expected \"%s\", found \"%s\"", sentence, problem.message);
    }
}

#define REFUSED(field, value, sentence)                                                                                \
    do {                                                                                                               \
        struct opera_params p = valid_params();                                                                        \
        p.field = value;                                                                                               \
        expect_refusal(&p, sentence);                                                                                  \
    } while (0)

static void invalid_parameters(void **state) {
    (void)state;
    static const int32_t ends[] = {1, 2, 3, 4, 5, 6};
    REFUSED(n_beams, 1, "expected at least 2 beams, found 1");
    REFUSED(n_beams, -3, "expected at least 2 beams, found -3");
    REFUSED(n_beams, 7, "at least 2 tokens for each of the 7 beams, found 12");
    REFUSED(n_vocab, 0, "found 0 in all");
    REFUSED(n_prompt_ids, 0, "expected n_prompt_ids from 1");
    REFUSED(max_new_tokens, 0, "expected max_new_tokens from 1");
    REFUSED(n_end_tokens, -1, "expected n_end_tokens from 0");
    REFUSED(options.candidates, 0, "expected candidates of at least 1");
    REFUSED(options.candidates, 13, "at most the 12 tokens of the vocabulary");
    REFUSED(options.first_candidates, 13, "expected first_candidates of at least 1");
    REFUSED(options.first_candidates, -2, "expected first_candidates of at least 1");
    REFUSED(options.scale, 0.0f, "expected scale to be a finite number above 0, found 0");
    REFUSED(options.scale, NAN, "expected scale");
    REFUSED(options.alpha, -1.0f, "expected alpha to be a finite number of at least 0, found -1");
    REFUSED(options.alpha, INFINITY, "expected alpha");
    REFUSED(options.score_scale, 0.0f, "expected score_scale");
    REFUSED(options.phi_max, -1.0f, "expected phi_max");
    REFUSED(options.threshold, -1, "expected threshold from 0");
    REFUSED(options.image_reward_len, -1, "expected image_reward_len from 0");
    REFUSED(options.rollback_min, -1, "expected rollback_min from 0");
    REFUSED(options.history, 1, "expected history from 2");
    REFUSED(options.max_rollbacks, 0, "expected max_rollbacks of at least 1, found 0");
    struct opera_params p = valid_params();
    p.end_tokens = ends;
    p.n_end_tokens = 6;
    expect_refusal(&p, "at least 7 tokens for each of the 2 beams, found 12");
    p = valid_params();
    p.n_vocab = 300000;
    p.options.candidates = 40000;
    expect_refusal(&p, "in all 2 beams at most 65536, found 40000");
}

/* ---- a column that nothing limits ---- */

/* Every token looks at those before it alike, at a scale that lets products explode; no column can be left. */
static const struct toy exploding = {.n_vocab = 30,
                                     .n_image = 4,
                                     .n_head = 2,
                                     .prompt = {3, 5, 99, 7},
                                     .n_prompt = 4,
                                     .image_at = 2,
                                     .a = 26,
                                     .b = 15,
                                     .c = 96,
                                     .d = 31,
                                     .image_weight = 1,
                                     .heavy_mod = 2,
                                     .heavy_res = 5};

/* Runs it; returns how many chosen tokens were no candidates. */
static int strangers(const struct opera_options *options, struct opera_counters *counters) {
    struct opera_params params = {.options = *options, .n_beams = 3, .max_new_tokens = 40};
    params.options.scale = 300.0f;
    params.options.rollback_min = 100;
    struct toy_run run;
    toy_open(&run, &exploding, &params);
    int n = 0;
    struct toy_event e;
    do {
        e = toy_step(&run, params.n_beams);
        for (int b = 0; b < params.n_beams; b++) {
            n += e.choice.candidates[b] < 0;
        }
    } while (e.choice.verdict != OPERA_DONE);
    *counters = opera_counters(run.opera);
    toy_close(&run);
    return n;
}

static void safeguards(void **state) {
    (void)state;
    struct opera_counters counters;
    struct opera_options options = opera_lab_parity();
    assert_true(strangers(&options, &counters) > 20); /* what the released program writes: tokens nobody measured */

    options.phi_max = 100.0f;
    assert_int_equal(strangers(&options, &counters), 0);
    assert_true(counters.n_plain == 0 && counters.n_penalised > 0);

    options = opera_lab_parity();
    options.plain_fallback = true;
    assert_int_equal(strangers(&options, &counters), 0);
    assert_true(counters.n_plain > 20 && counters.n_filled == 0);

    options = opera_lab_options("{\"opera\": true}");
    assert_int_equal(strangers(&options, &counters), 0);
    assert_true(counters.n_plain == 0 && counters.n_filled == 0);
}

/* One candidate and several beams: the program starts the other beams with tokens nobody measured. */
static void first_candidates(void **state) {
    (void)state;
    struct opera_options options = opera_lab_parity();
    options.candidates = 1;
    struct opera_counters counters;
    assert_true(strangers(&options, &counters) >= 2);
    options = opera_lab_options("{\"opera\": {\"candidates\": 1}}");
    assert_int_equal(strangers(&options, &counters), 0);
    options.first_candidates = 0; /* as candidates */
    assert_int_equal(strangers(&options, &counters), 2);
    assert_int_equal(counters.n_filled, 2);
}

/* ---- going back twice ---- */

static struct opera_params opera_lab_params(bool parity) {
    static const int32_t end = 7;
    struct opera_params p = {.options = opera_lab_options("{\"opera\": true}"),
                             .n_beams = 2,
                             .n_vocab = 20,
                             .n_prompt_ids = 1,
                             .max_new_tokens = 30,
                             .end_tokens = &end,
                             .n_end_tokens = 1};
    if (parity) {
        p.options = opera_lab_parity();
    }
    p.options.alpha = 0.0f; /* columns only tell when to go back */
    p.options.candidates = 3;
    p.options.threshold = 1;
    p.options.rollback_min = 2;
    return p;
}

static const float ordinary[] = {4.0f, 2.0f, 1.0f, 0.5f, 0.0f};
static const float ending[] = {3.0f, 2.0f, 1.0f, 0.5f, 0.0f, 0.0f, 0.0f, 4.0f}; /* token 7 first */

/* Answers finished after going back to 3, when 3 is gone back to a second time; *before: just before. */
static int finished_after_second_rollback(bool share, int *before) {
    static const int locs[] = {0, 0, 0, 2};
    struct opera_params params = opera_lab_params(false);
    params.options.share_hypotheses = share;
    struct opera_lab lab;
    struct opera_choice choice;
    opera_lab_open(&lab, &params);
    opera_lab_logits(&lab, ordinary, 5);
    for (int t = 0; t < 4; t++) {
        assert_int_equal(opera_lab_step_all(&lab, locs[t], &choice), -1);
    }
    assert_int_equal(opera_lab_step_all(&lab, 2, &choice), 3);
    opera_lab_logits(&lab, ending, 8);
    assert_int_equal(opera_lab_step_all(&lab, 0, &choice), -1);
    assert_int_equal(choice.verdict, OPERA_CHOSEN);
    *before = opera_n_answers(lab.o) - opera_n_running(lab.o);
    opera_lab_logits(&lab, ordinary, 5);
    assert_int_equal(opera_lab_step_all(&lab, 2, &choice), 3);
    const int n = opera_n_answers(lab.o) - opera_n_running(lab.o);
    opera_free(lab.o);
    return n;
}

static void shared_hypotheses(void **state) {
    (void)state;
    int before, before_too;
    const int kept = finished_after_second_rollback(true, &before);
    const int kept_too = finished_after_second_rollback(false, &before_too);
    assert_true(before > 0 && before == before_too);
    assert_true(kept == before && kept_too == 0);
}

/* Goes back to 5, to 3 and to 5 again; returns what is rejected at 5 then. */
static int rejects_after_detour(bool clean) {
    static const int locs[] = {0, 0, 2, 0, 4, 0, 4 /* to 5 */, 2 /* to 3 */, 4, 0, 4 /* to 5 */};
    static const int expected[] = {-1, -1, -1, -1, -1, -1, 5, 3, -1, -1, 5};
    struct opera_params params = opera_lab_params(true);
    params.options.clean_rejects = clean;
    struct opera_lab lab;
    struct opera_choice choice;
    opera_lab_open(&lab, &params);
    opera_lab_logits(&lab, ordinary, 5);
    for (size_t i = 0; i < sizeof locs / sizeof *locs; i++) {
        assert_int_equal(opera_lab_step_all(&lab, locs[i], &choice), expected[i]);
    }
    const struct opera_slot *slot = &lab.o->slots[5];
    for (int b = 0; b < 2; b++) { /* nothing rejected is chosen */
        for (int i = 0; i < slot->n_rejects; i++) {
            assert_false(choice.parents[b] == slot->rejects[i].parent && choice.tokens[b] == slot->rejects[i].token);
        }
    }
    const int n = slot->n_rejects;
    opera_free(lab.o);
    return n;
}

static void clean_rejects(void **state) {
    (void)state;
    assert_int_equal(rejects_after_detour(false), 4);
    assert_int_equal(rejects_after_detour(true), 2);
}

static void retry_among_candidates(void **state) {
    (void)state;
    for (int full = 0; full < 2; full++) {
        struct opera_params params = opera_lab_params(false);
        params.options.retry_full_vocab = full;
        params.options.max_rollbacks = 3;
        struct opera_lab lab;
        struct opera_choice choice;
        opera_lab_open(&lab, &params);
        opera_lab_logits(&lab, ordinary, 5);
        for (int t = 0; t < 4; t++) {
            opera_lab_step_all(&lab, t == 3 ? 2 : 0, &choice);
        }
        for (int i = 0; i < 3; i++) {
            assert_int_equal(opera_lab_step_all(&lab, 2, &choice), 3);
            if (i == 0) { /* two of six candidates are rejected; 0, 1 and 2 are candidates */
                assert_int_equal(choice.tokens[0] > 2 || choice.tokens[1] > 2, full);
                assert_int_equal(opera_counters(lab.o).n_plain, 0);
            }
        }
        assert_int_equal(opera_counters(lab.o).n_plain > 0, !full); /* all of them */
        opera_free(lab.o);
    }
}

static void monotone(void **state) {
    (void)state;
    for (int on = 0; on < 2; on++) {
        static const int locs[] = {0, 0, 2, 0, 4, 0, 4, 2};
        struct opera_params params = opera_lab_params(false);
        params.options.monotone = on;
        struct opera_lab lab;
        struct opera_choice choice;
        int to = -1;
        opera_lab_open(&lab, &params);
        opera_lab_logits(&lab, ordinary, 5);
        for (size_t i = 0; i < sizeof locs / sizeof *locs; i++) {
            to = opera_lab_step_all(&lab, locs[i], &choice);
            assert_int_equal(to == 5, i == 6);
        }
        assert_int_equal(to, on ? -1 : 3);
        opera_free(lab.o);
    }
}

/* A step that is kept no longer cannot be gone back to, nor can the step that is being made. */
static void missing_steps(void **state) {
    (void)state;
    for (int history = 2; history < 7; history++) {
        struct opera_params params = opera_lab_params(false);
        params.options.history = history;
        struct opera_lab lab;
        struct opera_choice choice;
        int to = -1;
        opera_lab_open(&lab, &params);
        opera_lab_logits(&lab, ordinary, 5);
        for (int t = 0; t < 8; t++) {
            to = opera_lab_step_all(&lab, t == 3 || t == 7 ? 2 : 0, &choice);
            assert_true(t == 7 || to == -1);
        }
        assert_int_equal(to, history >= 5 ? 3 : -1); /* steps 3 to 7 */
        opera_free(lab.o);
    }
    struct opera_params params = opera_lab_params(false);
    params.options.threshold = 0;
    struct opera_lab lab;
    struct opera_choice choice;
    opera_lab_open(&lab, &params);
    opera_lab_logits(&lab, ordinary, 5);
    for (int t = 0; t < 6; t++) { /* its own column: position t + 1 is to come, position t has no successor */
        assert_int_equal(opera_lab_step_all(&lab, t, &choice), -1);
        assert_int_equal(opera_step(lab.o), t + 1);
    }
    assert_int_equal(opera_lab_step_all(&lab, 5, &choice), -1);
    assert_int_equal(opera_lab_step_all(&lab, 5, &choice), 6);
    opera_free(lab.o);
}

/* ---- answers before the end ---- */

static void cancelled(void **state) {
    (void)state;
    struct opera_params params = opera_lab_params(false);
    struct opera_lab lab;
    struct opera_choice choice;
    struct opera_answer answer;
    opera_lab_open(&lab, &params);
    assert_int_equal(opera_n_answers(lab.o), 1);
    OK(opera_best(lab.o, 0, &answer, error));
    assert_true(answer.n == 0 && answer.end_token == -1);
    free(answer.ids);
    opera_lab_logits(&lab, ordinary, 5);
    opera_lab_step_all(&lab, 0, &choice);
    opera_lab_step_all(&lab, 0, &choice);
    assert_int_equal(opera_n_answers(lab.o), 2);
    OK(opera_best(lab.o, 0, &answer, error));
    assert_true(answer.n == 2 && answer.ids[0] == 0 && answer.ids[1] == 0 && answer.end_token == -1);
    assert_true(answer.score == (double)choice.scores[0] / 3);
    free(answer.ids);
    opera_lab_logits(&lab, ending, 8);
    opera_lab_step_all(&lab, 0, &choice);
    assert_int_equal(opera_n_answers(lab.o), 3);
    OK(opera_best(lab.o, 0, &answer, error)); /* finished ones first */
    assert_true(answer.n == 2 && answer.end_token == 7);
    free(answer.ids);
    OK(opera_best(lab.o, 1, &answer, error));
    assert_true(answer.n == 3 && answer.end_token == -1);
    free(answer.ids);
    candid_error problem;
    assert_int_equal(opera_best(lab.o, 3, &answer, &problem), CANDID_ERROR_ARGUMENT);
    opera_free(lab.o);
}

/* ---- odd input ---- */

static struct opera *fresh(void) {
    struct opera_params params = valid_params();
    struct opera *o;
    OK(opera_create(&params, &o, error));
    return o;
}

static void order_of_calls(void **state) {
    (void)state;
    static const float logits[24] = {1.0f, 2.0f, 3.0f, 4.0f};
    static const float local[] = {0.1f};
    int32_t candidates[8];
    struct opera_row rows[8];
    struct opera_choice choice;
    candid_error problem;
    struct opera *o = fresh();
    for (int i = 0; i < 8; i++) {
        rows[i] = (struct opera_row){.sum = 1.0f, .image_mass = 0.5f, .local = local};
    }
    assert_int_equal(opera_choose(o, rows, &choice, &problem), CANDID_ERROR_INTERNAL);
    assert_string_equal(problem.message, "opera_choose: expected opera_candidates");
    assert_int_equal(opera_rechoose(o, logits, &choice, &problem), CANDID_ERROR_INTERNAL);
    assert_int_equal(opera_n_running(o), 1);
    assert_int_equal(opera_n_candidates(o), 3); /* beams + 1 */
    OK(opera_candidates(o, logits, candidates, error));
    assert_true(candidates[0] == 3 && candidates[1] == 2 && candidates[2] == 1);
    assert_int_equal(opera_candidates(o, logits, candidates, &problem), CANDID_ERROR_INTERNAL);
    assert_string_equal(problem.message, "opera_candidates: expected opera_choose");
    OK(opera_choose(o, rows, &choice, error));
    assert_int_equal(opera_n_candidates(o), 2);
    assert_int_equal(opera_measured(o, 0, rows, &problem), CANDID_ERROR_INTERNAL); /* was a candidate */
    assert_int_equal(opera_candidates(o, logits, candidates, &problem), CANDID_ERROR_INTERNAL);
    assert_string_equal(problem.message, "opera_candidates: expected no further call: an earlier one failed");
    opera_free(o);
    opera_free(NULL);
}

/* After going back the new tokens' rows are asked for. */
static void unmeasured(void **state) {
    (void)state;
    struct opera_params params = opera_lab_params(false);
    struct opera_lab lab;
    struct opera_choice choice;
    int32_t candidates[LAB_ROWS];
    candid_error problem;
    opera_lab_open(&lab, &params);
    opera_lab_logits(&lab, ordinary, 5);
    for (int t = 0; t < 4; t++) {
        opera_lab_step_all(&lab, t == 3 ? 2 : 0, &choice);
    }
    float local[LAB_ROWS][LAB_LENGTH];
    struct opera_row rows[LAB_ROWS];
    OK(opera_candidates(lab.o, lab.logits, candidates, error));
    for (int i = 0; i < 6; i++) {
        rows[i] = opera_lab_row(&lab, 4, opera_beam_node(lab.o, i / 3), 2, local[i]);
    }
    OK(opera_choose(lab.o, rows, &choice, error));
    assert_true(choice.verdict == OPERA_ROLLBACK && choice.step == 3 && !choice.tokens);
    OK(opera_rechoose(lab.o, lab.logits, &choice, error));
    assert_int_equal(opera_candidates(lab.o, lab.logits, candidates, &problem), CANDID_ERROR_INTERNAL);
    assert_string_equal(problem.message, "opera_candidates: expected opera_measured for beam 0");
    OK(opera_measured(lab.o, 0, &rows[0], error));
    assert_int_equal(opera_candidates(lab.o, lab.logits, candidates, &problem), CANDID_ERROR_INTERNAL);
    assert_string_equal(problem.message, "opera_candidates: expected opera_measured for beam 1");
    OK(opera_measured(lab.o, 1, &rows[1], error));
    OK(opera_candidates(lab.o, lab.logits, candidates, error));
    opera_free(lab.o);
}

static void odd_logits(void **state) {
    (void)state;
    static const float values[] = {NAN, INFINITY, 70000.0f};
    for (int i = 0; i < 3; i++) {
        struct opera_params params = valid_params();
        params.options.logits_fp16 = i == 2; /* where it is infinite */
        struct opera *o;
        OK(opera_create(&params, &o, error));
        float logits[24] = {0.0f};
        int32_t candidates[8];
        candid_error problem;
        logits[5] = values[i];
        assert_int_equal(opera_candidates(o, logits, candidates, &problem), CANDID_ERROR_FORMAT);
        assert_non_null(strstr(problem.message, "step 0, beam 0"));
        assert_non_null(strstr(problem.message, "token 5"));
        opera_free(o);
    }
}

/* Fewer tokens than beams are left. */
static void too_few_logits(void **state) {
    (void)state;
    float logits[24];
    static const float local[] = {0.1f};
    struct opera_row rows[8];
    int32_t candidates[8];
    struct opera_choice choice;
    candid_error problem;
    struct opera *o = fresh();
    for (int i = 0; i < 24; i++) {
        logits[i] = -INFINITY;
    }
    for (int i = 0; i < 8; i++) {
        rows[i] = (struct opera_row){.sum = 1.0f, .image_mass = 0.5f, .local = local};
    }
    logits[4] = 1.0f;
    OK(opera_candidates(o, logits, candidates, error));
    assert_int_equal(candidates[0], 4);
    assert_int_equal(opera_choose(o, rows, &choice, &problem), CANDID_ERROR_FORMAT);
    assert_non_null(strstr(problem.message, "allow 1 continuations"));
    assert_int_equal(opera_n_answers(o), 1); /* can still be asked */
    opera_free(o);
}

static void odd_rows(void **state) {
    (void)state;
    static const struct opera_row odd[] = {{.sum = 0.0f, .image_mass = 0.0f},
                                           {.sum = NAN, .image_mass = 0.1f},
                                           {.sum = 1.0f, .image_mass = 1.5f},
                                           {.sum = 1.0f, .image_mass = NAN},
                                           {.sum = 0.05f, .image_mass = 0.0f}};
    static const float logits[24] = {1.0f}, local[] = {0.1f};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        int32_t candidates[8];
        struct opera_row rows[8];
        struct opera_choice choice;
        candid_error problem;
        struct opera *o = fresh();
        for (int r = 0; r < 8; r++) {
            rows[r] = r == 2 ? odd[i] : (struct opera_row){.sum = 1.0f, .image_mass = 0.5f};
            rows[r].local = local;
        }
        OK(opera_candidates(o, logits, candidates, error));
        assert_int_equal(opera_choose(o, rows, &choice, &problem), CANDID_ERROR_FORMAT);
        assert_non_null(strstr(problem.message, "attention row of generated token 0"));
        opera_free(o);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_valid),     cmocka_unit_test(presets),       cmocka_unit_test(budget_of_zero),
        cmocka_unit_test(invalid_parameters), cmocka_unit_test(safeguards),    cmocka_unit_test(first_candidates),
        cmocka_unit_test(shared_hypotheses),  cmocka_unit_test(clean_rejects), cmocka_unit_test(retry_among_candidates),
        cmocka_unit_test(monotone),           cmocka_unit_test(missing_steps), cmocka_unit_test(cancelled),
        cmocka_unit_test(order_of_calls),     cmocka_unit_test(unmeasured),    cmocka_unit_test(odd_logits),
        cmocka_unit_test(too_few_logits),     cmocka_unit_test(odd_rows),
    };
    return cmocka_run_group_tests_name("opera_rules", tests, NULL, NULL);
}
