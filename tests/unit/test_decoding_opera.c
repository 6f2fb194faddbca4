/*
 * OPERA against an independent implementation on transformers (tests/golden/make_decoding.py), step by step on the
 * exact path: columns, rollbacks, chosen tokens, sums and finished texts; and the answers. The linker puts __wrap_...
 * before the two functions of decode/opera.h that choose, so the steps are those of candid_generate.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/decoding_run.h"
#include "decode/opera_internal.h"

/* ---- the engine's steps, compared while they are made ---- */

struct watch {
    const cJSON *trace; /* the recorded one */
    int n_steps, step;  /* number of the step that is being made */
    double sums;        /* largest relative error */
    char first[200];    /* disagreement, empty: none */
};

static struct watch watch;

static const cJSON *expected(const char *what) {
    const cJSON *list = cJSON_GetObjectItem(watch.trace, what), *item = cJSON_GetArrayItem(list, watch.step);
    assert_true(cJSON_IsArray(list));
    return item;
}

static void disagree(const char *what, int found, const cJSON *recorded_value) {
    if (!watch.first[0]) {
        snprintf(watch.first, sizeof watch.first, "step %d of the trace: %s %d, recorded %d", watch.step, what, found,
                 recorded_value ? recorded_value->valueint : -1000);
    }
}

static void compare_number(const char *what, int found) {
    const cJSON *item = expected(what);
    if (!item || item->valueint != found) {
        disagree(what, found, item);
    }
}

static void compare_numbers(const char *what, const int *found, int n) {
    const cJSON *list = expected(what);
    for (int i = 0; list && i < n; i++) {
        const cJSON *item = cJSON_GetArrayItem(list, i);
        if (!item || item->valueint != found[i]) {
            disagree(what, found[i], item);
        }
    }
}

/* Of sums, which are next to 0 where every token was nearly certain. */
static double relative(double found, double recorded_value) {
    return fabs(found - recorded_value) / fmax(fabs(recorded_value), 1);
}

/* The largest column score of any candidate of a step with t tokens. */
static double largest_column(const struct opera *o, int t, int n_candidates) {
    double phi = 0;
    for (int i = 0; i < n_candidates * (t + 1); i++) {
        phi = fmax(phi, (double)opera_column_score(o->products[i], &o->params.options));
    }
    return phi;
}

/* Column scores are recorded with four digits; in half precision they may also fall on the next number. */
static void compare_phi(const struct opera *o, double phi) {
    const cJSON *item = expected("phi");
    const double bound = o->params.options.score_fp16 ? 1.6e-3 * phi + 0x1p-24 : 6e-4 * phi;
    if (!item || cJSON_IsString(item) != isinf(phi)) {
        disagree("infinite column score", isinf(phi), item);
    } else if (isfinite(phi) && fabs(phi - item->valuedouble) > bound) {
        disagree("column score in 1e-7", (int)(phi * 1e7), item);
    }
}

/* What was chosen, which ends the step. */
static void compare_choice(const struct opera *o, const struct opera_choice *choice) {
    const int n = o->params.n_beams;
    compare_numbers("tokens", choice->tokens, n);
    compare_numbers("parents", choice->parents, n);
    const cJSON *sums = expected("scores");
    for (int i = 0; i < n; i++) {
        const cJSON *sum = cJSON_GetArrayItem(sums, i);
        watch.sums = fmax(watch.sums, sum ? relative((double)choice->scores[i], sum->valuedouble) : 1);
    }
    const bool closed = choice->step + 1 == o->params.max_new_tokens; /* then beams have become finished texts */
    if (!closed) {
        compare_number("finished", opera_now(o)->scorer.n_kept);
    }
    watch.step++;
}

candid_status __real_opera_choose(struct opera *o, const struct opera_row *rows, struct opera_choice *out,
                                  candid_error *error);
candid_status __wrap_opera_choose(struct opera *o, const struct opera_row *rows, struct opera_choice *out,
                                  candid_error *error);
candid_status __real_opera_rechoose(struct opera *o, const float *logits, struct opera_choice *out,
                                    candid_error *error);
candid_status __wrap_opera_rechoose(struct opera *o, const float *logits, struct opera_choice *out,
                                    candid_error *error);

candid_status __wrap_opera_choose(struct opera *o, const struct opera_row *rows, struct opera_choice *out,
                                  candid_error *error) {
    const int t = opera_step(o), n_candidates = opera_n_running(o) * opera_n_candidates(o);
    const candid_status status = __real_opera_choose(o, rows, out, error);
    if (status == CANDID_OK) {
        const bool back = out->verdict == OPERA_ROLLBACK;
        compare_number("step", t);
        compare_numbers("locations", opera_beam_locs(o), o->params.n_beams);
        compare_number("location", opera_loc(o));
        compare_number("rollback", back ? out->step : -1);
        compare_phi(o, largest_column(o, t, n_candidates));
        if (!back) {
            compare_choice(o, out);
        }
    }
    return status;
}

candid_status __wrap_opera_rechoose(struct opera *o, const float *logits, struct opera_choice *out,
                                    candid_error *error) {
    const candid_status status = __real_opera_rechoose(o, logits, out, error);
    if (status == CANDID_OK) {
        compare_choice(o, out);
    }
    return status;
}

/* ---- cases ---- */

/* The rollbacks that the report tells are the recorded ones. */
static bool same_rollbacks(const cJSON *item, const candid_result *result) {
    cJSON *report = cJSON_Parse(result->interventions);
    const bool same = cJSON_Compare(cJSON_GetObjectItem(cJSON_GetObjectItem(report, "opera"), "rollbacks"),
                                    cJSON_GetObjectItem(item, "rollbacks"), true);
    cJSON_Delete(report);
    return same;
}

static bool run_case(struct runner *r, const cJSON *item, double *error_of_scores) {
    runner_open(r, text_of(item, "model"));
    candid_image *image = case_image(item);
    candid_config *config = case_config(item);
    const candid_generate_params params = case_params(item, config);
    const candid_image *images[] = {image};
    const candid_result *result = NULL;
    watch = (struct watch){.trace = cJSON_GetObjectItem(item, "trace")};
    watch.n_steps = cJSON_GetArraySize(cJSON_GetObjectItem(watch.trace, "step"));
    OK(candid_generate(r->context, images, 1, text_of(item, "prompt"), &params, &result, error));
    const int agreed = answers_agreed(item, result, error_of_scores),
              wanted = cJSON_GetArraySize(cJSON_GetObjectItem(item, "answers"));
    const bool rollbacks = same_rollbacks(item, result);
    const bool good = agreed == wanted && *error_of_scores <= 1e-4 && rollbacks && watch.step == watch.n_steps &&
                      watch.sums <= 1e-4 && !watch.first[0];
    if (!good) {
        print_message("%s: %d of %d answers, errors of scores %.2e, sums %.2e, %s rollbacks, %d of %d steps, %s\n",
                      text_of(item, "name"), agreed, wanted, *error_of_scores, watch.sums, rollbacks ? "same" : "other",
                      watch.step, watch.n_steps, watch.first[0] ? watch.first : "all the same");
    }
    candid_result_free(result);
    candid_config_free(config);
    candid_image_free(image);
    return good;
}

static void steps_and_answers(void **state) {
    (void)state;
    cJSON *cases = read_cases(DECODING "cases.json");
    struct runner r = {.precision = CANDID_PRECISION_EXACT};
    double scores = 0, sums = 0;
    int failed = 0, n = 0, seen = 0, steps = 0, rollbacks = 0;
    for (const cJSON *item = cases->child; item; item = item->next) {
        if (!is_kind(item, "opera") || seen++ % DECODING_STRIDE != 0) {
            continue;
        }
        double error_of_scores = 0;
        failed += !run_case(&r, item, &error_of_scores);
        scores = fmax(scores, error_of_scores);
        sums = fmax(sums, watch.sums);
        steps += watch.step;
        rollbacks += cJSON_GetArraySize(cJSON_GetObjectItem(item, "rollbacks"));
        n++;
    }
    print_message("%d cases, %d steps, %d rollbacks; largest relative error of a score %.2e, of a beam's sum %.2e\n", n,
                  steps, rollbacks, scores, sums);
    assert_int_equal(failed, 0);
    assert_true(seen >= 40 && n >= seen / DECODING_STRIDE);
    runner_close(&r);
    cJSON_Delete(cases);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_and_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
