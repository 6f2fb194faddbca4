/*
 * Contrasts and searches against an independent implementation on transformers (tests/golden/make_decoding.py):
 * combined logits of 16 steps and 64 tokens of greedy search, every answer and score of beam search, on the exact path;
 * the fast path's error on the same tokens.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/decoding_run.h"

#define LOGITS 16

/* ---- greedy search with contrasts ---- */

struct outcome {
    const cJSON *item;
    const struct safetensors_tensor *expected;
    int n_vocab;
    double error;
    int tokens, kept; /* steps that agree */
};

static void see_step(void *user_data, int step, const float *row) {
    struct outcome *o = user_data;
    if (step < LOGITS) { /* those that the cut-offs left */
        int kept;
        o->error = fmax(o->error, compare_row(o->expected, step, row, o->n_vocab, &kept));
        o->kept += kept == integer_at(cJSON_GetObjectItem(o->item, "kept"), step);
    }
    o->tokens += best_of(row, o->n_vocab) == integer_at(cJSON_GetObjectItem(o->item, "tokens"), step);
}

static struct outcome run_greedy(struct runner *r, const cJSON *item, const struct safetensors *file) {
    runner_open(r, text_of(item, "model"));
    candid_image *image = case_image(item);
    candid_config *config = case_config(item);
    const candid_generate_params params = case_params(item, config);
    const candid_image *images[] = {image};
    struct request request;
    OK(request_prepare(r->context, images, 1, text_of(item, "prompt"), &params, &request, error));
    assert_int_equal(request_length(&request), cJSON_GetArraySize(cJSON_GetObjectItem(item, "ids")));
    OK(request_encode(r->context, images, &request, config, NULL, error));

    struct outcome out = {.item = item, .expected = recorded(file, item, "out"), .n_vocab = r->model->llama.n_vocab};
    answer_with(r, &request, cJSON_GetObjectItem(item, "tokens"), params.max_new_tokens, see_step, &out);
    for (int i = 0; i < request.list.n; i++) {
        assert_true(request.inputs[i].n_contrasted > 0);
    }
    request_free(&request);
    candid_config_free(config);
    candid_image_free(image);
    return out;
}

static void greedy_cases(candid_precision precision, double bound, bool all_agree) {
    cJSON *cases = read_cases(DECODING "cases.json");
    struct runner r = {.precision = precision};
    double worst = 0;
    int failed = 0, n = 0, seen = 0;
    for (const cJSON *item = cases->child; item; item = item->next) {
        if (!is_kind(item, "greedy") || seen++ % DECODING_STRIDE != 0) {
            continue;
        }
        struct safetensors *file = recorded_for(text_of(item, "name"));
        const struct outcome out = run_greedy(&r, item, file);
        const int n_tokens = integer_of(item, "max_new_tokens");
        worst = fmax(worst, out.error);
        n++;
        if (out.error > bound || (all_agree && (out.tokens != n_tokens || out.kept != LOGITS))) {
            print_message("%s: error %.2e, %d of %d tokens, %d of %d cut-offs\n", text_of(item, "name"), out.error,
                          out.tokens, n_tokens, out.kept, LOGITS);
            failed++;
        }
        safetensors_close(file);
    }
    print_message("%d cases, largest error %.2e of the largest logit\n", n, worst);
    assert_int_equal(failed, 0);
    assert_true(seen >= 50 && n >= seen / DECODING_STRIDE);
    runner_close(&r);
    cJSON_Delete(cases);
}

static void contrasts_on_the_exact_path(void **state) {
    (void)state;
    greedy_cases(CANDID_PRECISION_EXACT, 1e-4, true);
}

static void contrasts_on_the_fast_path(void **state) {
    (void)state;
    greedy_cases(CANDID_PRECISION_FAST, 2e-2, false);
}

/* ---- beam search ---- */

/* How many of the recorded answers come out, in their order, with their score. */
static int run_search(struct runner *r, const cJSON *item, double *error_of_scores) {
    runner_open(r, text_of(item, "model"));
    candid_image *image = case_image(item);
    candid_config *config = case_config(item);
    const candid_generate_params params = case_params(item, config);
    const candid_image *images[] = {image};
    const candid_result *result = NULL;
    OK(candid_generate(r->context, images, 1, text_of(item, "prompt"), &params, &result, error));
    const int agreed = answers_agreed(item, result, error_of_scores);
    candid_result_free(result);
    candid_config_free(config);
    candid_image_free(image);
    return agreed;
}

static void beam_searches(void **state) {
    (void)state;
    cJSON *cases = read_cases(DECODING "cases.json");
    struct runner r = {.precision = CANDID_PRECISION_EXACT};
    double worst = 0;
    int failed = 0, n = 0, seen = 0;
    for (const cJSON *item = cases->child; item; item = item->next) {
        if ((!is_kind(item, "beam") && !is_kind(item, "search")) || seen++ % DECODING_STRIDE != 0) {
            continue;
        }
        const int wanted = cJSON_GetArraySize(cJSON_GetObjectItem(item, "answers"));
        double error_of_scores = 0;
        const int agreed = run_search(&r, item, &error_of_scores);
        worst = fmax(worst, error_of_scores);
        n++;
        if (agreed != wanted || error_of_scores > 1e-4) {
            print_message("%s: %d of %d answers, error of scores %.2e\n", text_of(item, "name"), agreed, wanted,
                          error_of_scores);
            failed++;
        }
    }
    print_message("%d searches, largest relative error of a score %.2e\n", n, worst);
    assert_int_equal(failed, 0);
    assert_true(seen >= 30 && n >= seen / DECODING_STRIDE);
    runner_close(&r);
    cJSON_Delete(cases);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contrasts_on_the_exact_path),
        cmocka_unit_test(contrasts_on_the_fast_path),
        cmocka_unit_test(beam_searches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
