/* OPERA's decoding against the published vectors: single numbers, when it goes back, whole decodings step by step. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "decode/log_softmax.h"
#include "../support/opera_lab.h"
#include "../support/opera_toy.h"
#include "../support/plan_lab.h"
#include "../support/vectors.h"

/* ---- single numbers ---- */

/* Column products of a triangular window given as nested lists; returns the number of columns. */
static int products_of_window(const cJSON *window, float scale, float *products) {
    int t = 0;
    for (const cJSON *item = window->child; item; item = item->next, t++) {
        float local[TOY_LENGTH];
        int n;
        flatten_floats(item, local, TOY_LENGTH, &n);
        assert_int_equal(n, t + 1);
        const struct opera_row row = {.sum = 1.0f, .local = local};
        opera_extend(products, &row, t, scale, products);
    }
    return t;
}

/* The same for "rows" rows with `col0` in the first column, `first_diag` at its top and `other` elsewhere. */
static int products_of_column(const cJSON *input, float *products) {
    const int rows = integer(input, "rows");
    for (int t = 0; t < rows; t++) {
        float local[TOY_LENGTH];
        for (int j = 0; j <= t; j++) {
            local[j] = (float)number(input, j > 0 ? "other" : t > 0 ? "col0" : "first_diag");
        }
        const struct opera_row row = {.sum = 1.0f, .local = local};
        opera_extend(products, &row, t, (float)number(input, "sigma"), products);
    }
    return rows;
}

static double expected_number(const cJSON *item) {
    return cJSON_IsString(item) ? (strcmp(item->valuestring, "inf") == 0 ? (double)INFINITY : -(double)INFINITY)
                                : item->valuedouble;
}

static void column_scores(void **state) {
    (void)state;
    static const char *const ids[] = {"opera_column_scores", "opera_underflow_ties", "opera_all_zero"};
    const struct opera_options options = opera_lab_parity();
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        const cJSON *v = vector_named("opera", ids[i]), *input = member(v, "input"), *expect = member(v, "expect");
        float products[TOY_LENGTH];
        const int n = products_of_window(member(input, "window"), (float)number(input, "sigma"), products);
        const cJSON *score = member(expect, "scores_fp16")->child;
        for (int j = 0; j < n; j++, score = score->next) {
            assert_true(opera_column_score(products[j], &options) == (float)score->valuedouble);
        }
        assert_null(score);
        const struct opera_column column = opera_strongest(products, n, &options);
        assert_int_equal(column.index, integer(expect, "loc"));
        if (cJSON_GetObjectItem(expect, "phi_fp16")) {
            assert_true(column.phi == (float)number(expect, "phi_fp16"));
        }
        if (cJSON_GetObjectItem(expect, "column_products")) {
            double *expected = flatten(member(expect, "column_products"), &(int){0});
            for (int j = 0; j < n; j++) {
                assert_close((double)products[j], expected[j], 1e-5 * expected[j], "product", j);
            }
            free(expected);
        }
    }
}

static void column_scores_long(void **state) {
    (void)state;
    const cJSON *v = vector_named("opera", "opera_column_scores_long"), *expect = member(v, "expect");
    const struct opera_options options = opera_lab_parity();
    float products[TOY_LENGTH];
    const int n = products_of_column(member(v, "input"), products);
    const double product = number(expect, "product_col0"), score = number(expect, "score_col0_fp16");
    assert_close((double)products[0], product, 1e-5 * product, "product", 0);
    assert_close((double)opera_column_score(products[0], &options), score, 0x1p-16, "score", 0); /* one f16 step */
    for (int j = 1; j < n; j++) {
        assert_true(opera_column_score(products[j], &options) ==
                    (float)member(expect, "scores_other_fp16")->child->valuedouble);
    }
    assert_int_equal(opera_strongest(products, n, &options).index, integer(expect, "loc"));
}

/* The score beyond f16 that makes the released program write arbitrary tokens, and what a limit makes of it. */
static void column_scores_overflow(void **state) {
    (void)state;
    const cJSON *v = vector_named("opera", "opera_overflow"), *expect = member(v, "expect");
    const struct opera_options options = opera_lab_parity(), recommended = opera_lab_options("{\"opera\": true}");
    float products[TOY_LENGTH];
    const int n = products_of_column(member(v, "input"), products);
    const cJSON *scores = member(expect, "scores_fp16");
    assert_true(opera_column_score(products[0], &options) == (float)expected_number(scores->child));
    assert_true(opera_column_score(products[1], &options) == (float)expected_number(scores->child->next));
    const struct opera_column column = opera_strongest(products, n, &options);
    assert_int_equal(column.index, integer(expect, "loc"));
    assert_true(column.phi == INFINITY);
    assert_true(opera_candidate_score(10.0f, 0.5f, column.phi, n, &options) ==
                (float)expected_number(member(expect, "candidate_score_with_logit_10")));

    const struct opera_column limited = opera_strongest(products, n, &recommended);
    assert_int_equal(limited.index, column.index);
    assert_true(limited.phi == 100.0f);
    assert_true(opera_candidate_score(10.0f, 0.5f, limited.phi, n, &recommended) == -90.0f);
}

/* A column that has become infinite ends where its token is not looked at, and alpha 0 does not turn it into a NaN. */
static void column_scores_odd(void **state) {
    (void)state;
    struct opera_options options = opera_lab_parity();
    const float before[] = {INFINITY, 2.0f}, local[] = {0.0f, 0.5f, 0.25f};
    const struct opera_row row = {.sum = 2.0f, .local = local};
    float after[3];
    opera_extend(before, &row, 2, 50.0f, after);
    assert_true(after[0] == 0.0f && after[1] == 25.0f && after[2] == 6.25f);
    options.alpha = 0.0f;
    assert_true(opera_candidate_score(3.0f, 0.5f, INFINITY, 20, &options) == 3.0f);
}

static void candidate_scores(void **state) {
    (void)state;
    const cJSON *v = vector_named("opera", "opera_candidate_score");
    const cJSON *expected = member(member(v, "expect"), "score")->child;
    for (const cJSON *c = member(member(v, "input"), "cases")->child; c; c = c->next, expected = expected->next) {
        for (int f16 = 0; f16 < 2; f16++) {
            struct opera_options options = opera_lab_parity();
            options.alpha = (float)number(c, "alpha");
            options.logits_fp16 = f16;
            const float score = opera_candidate_score((float)number(c, "logit"), (float)number(c, "image_mass"),
                                                      (float)number(c, "phi"), integer(c, "L"), &options);
            assert_close((double)score, expected->valuedouble, f16 ? 0.0078 : 1e-6, "score", integer(c, "L"));
            assert_true(!f16 || score == round_f16(score));
        }
    }
}

static void modes(void **state) {
    (void)state;
    const cJSON *v = vector_named("opera", "opera_mode_ties"), *expect = member(v, "expect");
    const cJSON *mode = member(expect, "per_row")->child;
    int of_rows[8], n_rows = 0;
    for (const cJSON *row = member(member(v, "input"), "rows")->child; row; row = row->next, mode = mode->next) {
        int values[8], n = 0;
        for (const cJSON *item = row->child; item; item = item->next) {
            values[n++] = item->valueint;
        }
        of_rows[n_rows] = opera_mode(values, n);
        assert_int_equal(of_rows[n_rows++], mode->valueint);
    }
    assert_int_equal(opera_mode(of_rows, n_rows), integer(expect, "over_rows"));
}

static void rejected_logits(void **state) {
    (void)state;
    const cJSON *v = vector_named("opera", "opera_rejected_logits"), *expect = member(v, "expect");
    float logits[8], expected[8];
    int n;
    flatten_floats(member(member(v, "input"), "logits"), logits, 8, &n);
    opera_shift(logits, n, false);
    for (const cJSON *r = member(member(v, "input"), "rejected")->child; r; r = r->next) {
        logits[r->valueint] = OPERA_FLOOR;
    }
    flatten_floats(member(expect, "shifted"), expected, 8, &n);
    for (int i = 0; i < n; i++) {
        assert_true(logits[i] == expected[i]);
    }
    log_softmax(logits, n);
    flatten_floats(member(expect, "log_softmax"), expected, 8, &n);
    for (int i = 0; i < n; i++) {
        assert_close((double)logits[i], (double)expected[i], 1e-6, "log-probability", i);
    }
    float half[] = {2.13f, 5.0f, 1.0f, -INFINITY};
    opera_shift(half, 4, true); /* halves are all that f16 has there; what was excluded stays so */
    assert_true(half[0] == -998.0f && half[1] == -995.0f && half[2] == -999.0f && half[3] == -INFINITY);
}

static void normal_logits(void **state) {
    (void)state;
    const cJSON *v = vector_named("opera", "opera_normal_logits"), *input = member(v, "input");
    const cJSON *expect = member(v, "expect");
    float logits[8];
    const int n_vocab = integer(input, "vocab");
    for (int i = 0; i < n_vocab; i++) {
        logits[i] = OPERA_FLOOR;
    }
    const cJSON *score = member(input, "scores")->child, *c;
    for (c = member(input, "candidates")->child; c; c = c->next, score = score->next) {
        logits[c->valueint] = (float)score->valuedouble;
    }
    log_softmax(logits, n_vocab);
    const cJSON *expected = member(expect, "log_softmax_candidates")->child;
    for (c = member(input, "candidates")->child; c; c = c->next, expected = expected->next) {
        assert_close((double)logits[c->valueint], expected->valuedouble, 1e-6, "candidate", c->valueint);
        logits[c->valueint] = 1.0f;
    }
    for (int i = 0; i < n_vocab; i++) {
        assert_true(logits[i] == 1.0f || fabs((double)logits[i] - number(expect, "log_softmax_other")) < 1e-3);
    }
}

/* The spans that a driver sums over, of a prompt as the layout describes it. */
static void key_positions(void **state) {
    (void)state;
    const cJSON *v = vector_named("opera", "opera_key_positions"), *input = member(v, "input");
    const cJSON *expect = member(v, "expect");
    const int n_image = integer(input, "K"), before = integer(input, "tokens_before_without_bos") + 1;
    struct layout layout = lab_layout(before, n_image, integer(input, "tokens_after"));
    const struct span *image = &layout.spans[1], *last = &layout.spans[layout.n_spans - 1];
    assert_int_equal(image->kind, SPAN_IMAGE);
    assert_int_equal(image->begin, integer(expect, "image_start"));
    assert_int_equal(image->end - 1, integer(expect, "image_end_inclusive"));
    assert_int_equal(last->end, integer(expect, "response_start"));
    assert_int_equal(last->end, integer(expect, "expanded_prompt_length"));
    assert_int_equal(last->end - n_image + 1, integer(expect, "short_prompt_length"));
    layout_free(&layout);
}

/* ---- when to go back ---- */

static int number_or(const cJSON *object, const char *key, int otherwise) {
    const cJSON *item = member(object, key);
    return cJSON_IsNumber(item) ? item->valueint : otherwise;
}

static void rollback_decision(void **state) {
    (void)state;
    const cJSON *v = vector_named("opera", "opera_rollback_decision"), *input = member(v, "input");
    const cJSON *locs = member(input, "locs")->child, *expected = member(v, "expect")->child;
    struct opera_params params = {
        .options = opera_lab_parity(), .n_beams = 2, .n_vocab = LAB_VOCAB, .n_prompt_ids = 1, .max_new_tokens = 60};
    params.options.candidates = 2;
    params.options.threshold = integer(input, "threshold");
    params.options.max_rollbacks = integer(input, "max_rollbacks");
    struct opera_lab lab;
    opera_lab_open(&lab, &params);
    for (int i = 0; i < 2 * LAB_VOCAB; i++) {
        lab.logits[i] = (float)(i * 37 % 101) / 50.0f;
    }
    for (; expected; expected = expected->next, locs = locs->next) {
        const int of_beams[] = {locs->child->valueint, locs->child->next->valueint};
        struct opera_choice choice;
        assert_int_equal(opera_step(lab.o), integer(expected, "t"));
        const int to = opera_lab_step(&lab, of_beams, &choice);
        assert_int_equal(opera_loc(lab.o), integer(expected, "loc"));
        assert_int_equal(to, number_or(expected, "rollback_to", -1));
        /* of the record of columns one row stays for each step up to the one that is chosen, or chosen anew */
        assert_int_equal(choice.step + 1, integer(expected, "locs_kept"));
    }
    assert_null(locs);
    opera_free(lab.o);
}

/* ---- whole decodings ---- */

static struct toy toy_of(const cJSON *input) {
    struct toy m = {.n_vocab = integer(input, "V"),
                    .n_image = integer(input, "K"),
                    .n_head = integer(input, "heads"),
                    .a = integer(input, "a"),
                    .b = integer(input, "b"),
                    .c = integer(input, "c"),
                    .d = integer(input, "d"),
                    .image_weight = integer(input, "wi"),
                    .heavy = integer(input, "heavy"),
                    .heavy_from = integer(input, "heavy_from"),
                    .heavy_mod = integer(input, "heavy_mod"),
                    .heavy_res = integer(input, "heavy_res")};
    for (const cJSON *id = member(input, "prompt_ids")->child; id; id = id->next) {
        if (id->valueint == integer(input, "image_id")) {
            m.image_at = m.n_prompt;
        }
        m.prompt[m.n_prompt++] = id->valueint;
    }
    return m;
}

static void check_event(const cJSON *expected, const struct toy_event *e, int n_beams) {
    const cJSON *loc = member(expected, "beam_locs")->child, *token = member(expected, "tokens")->child;
    const cJSON *parent = member(expected, "parents")->child, *score = member(expected, "beam_scores")->child;
    assert_int_equal(e->step, integer(expected, "t"));
    assert_int_equal(e->rollback_to, number_or(expected, "rollback_to", -1));
    for (int b = 0; b < n_beams; b++) {
        assert_int_equal(e->beam_locs[b], loc->valueint);
        assert_int_equal(e->choice.tokens[b], token->valueint);
        assert_int_equal(e->choice.parents[b], parent->valueint);
        assert_close((double)e->choice.scores[b], score->valuedouble, 1e-3, "beam score", b);
        loc = loc->next;
        token = token->next;
        parent = parent->next;
        score = score->next;
    }
}

static void check_answer(const struct opera *o, const struct toy *m, const cJSON *input, const cJSON *expect) {
    struct opera_answer answer;
    OK(opera_best(o, 0, &answer, error));
    const cJSON *id = member(expect, "output_ids")->child;
    for (int i = 0; i < m->n_prompt; i++, id = id->next) {
        assert_int_equal(id->valueint, m->prompt[i]);
    }
    for (int i = 0; i < answer.n; i++, id = id->next) {
        assert_non_null(id);
        assert_int_equal(id->valueint, answer.ids[i]);
    }
    if (id) {
        assert_int_equal(answer.end_token, integer(input, "eos"));
        assert_int_equal(id->valueint, answer.end_token);
        assert_null(id->next);
    } else {
        assert_int_equal(answer.end_token, -1);
    }
    assert_close(answer.score, number(expect, "score"), 1e-3, "score", 0);
    free(answer.ids);
}

static void check_decoding(const char *id) {
    const cJSON *v = vector_named("opera", id), *input = member(v, "input"), *expect = member(v, "expect");
    const struct toy m = toy_of(input);
    const int32_t eos = integer(input, "eos");
    struct opera_params params = {.options = opera_lab_parity(),
                                  .n_beams = integer(input, "num_beams"),
                                  .max_new_tokens = integer(input, "max_new"),
                                  .end_tokens = &eos,
                                  .n_end_tokens = 1};
    params.options.candidates = params.options.max_rollbacks = integer(input, "n_cand");
    params.options.threshold = integer(input, "threshold");
    params.options.scale = (float)number(input, "scale");
    params.options.alpha = (float)number(input, "alpha");
    struct toy_run run;
    toy_open(&run, &m, &params);
    const cJSON *expected = member(expect, "trace")->child;
    struct toy_event e;
    int n_steps = 0;
    do {
        e = toy_step(&run, params.n_beams);
        assert_non_null(expected);
        check_event(expected, &e, params.n_beams);
        expected = expected->next;
        n_steps++;
    } while (e.choice.verdict != OPERA_DONE);
    assert_null(expected);
    check_answer(run.opera, &m, input, expect);

    const struct opera_counters counters = opera_counters(run.opera);
    assert_int_equal(counters.n_steps, n_steps);
    assert_int_equal(counters.n_rollbacks, cJSON_GetArraySize(member(expect, "rollbacks")));
    const cJSON *rollback = member(expect, "rollbacks")->child;
    for (int i = 0; i < counters.n_rollbacks; i++, rollback = rollback->next) {
        assert_int_equal(counters.rollbacks[i].step, integer(rollback, "t"));
        assert_int_equal(counters.rollbacks[i].loc, integer(rollback, "loc"));
        assert_int_equal(counters.rollbacks[i].to, integer(rollback, "rollback_to"));
    }
    assert_true(counters.n_rewarded > 0 && counters.n_penalised > 0);
    assert_int_equal(run.n_measured + run.n_reused, n_steps * params.n_beams);
    assert_int_equal(run.n_measured, counters.n_rollbacks * params.n_beams);
    toy_close(&run);
}

static void decoding_without_rollback(void **state) {
    (void)state;
    check_decoding("opera_toy_no_rollback");
}

static void decoding_with_rollbacks(void **state) {
    (void)state;
    check_decoding("opera_toy_rollback_eos");
}

static void decoding_with_shifts(void **state) {
    (void)state;
    check_decoding("opera_toy_rollback_shift");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(column_scores),
        cmocka_unit_test(column_scores_long),
        cmocka_unit_test(column_scores_overflow),
        cmocka_unit_test(column_scores_odd),
        cmocka_unit_test(candidate_scores),
        cmocka_unit_test(modes),
        cmocka_unit_test(rejected_logits),
        cmocka_unit_test(normal_logits),
        cmocka_unit_test(key_positions),
        cmocka_unit_test(rollback_decision),
        cmocka_unit_test(decoding_without_rollback),
        cmocka_unit_test(decoding_with_rollbacks),
        cmocka_unit_test(decoding_with_shifts),
    };
    return cmocka_run_group_tests_name("opera", tests, vectors_open, vectors_close);
}
