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

#include "../support/golden_run.h"
#include "api/request.h"
#include "decode/group.h"
#include "model/safetensors.h"

#define ROOT         TEST_GOLDEN "/decoding/"
#define LOGITS       16
#define CONVERSATION "USER: <image>\n{prompt} ASSISTANT:"

/* Every case; under a sanitizer a sample of them. */
#ifdef __SANITIZE_ADDRESS__
#define STRIDE 20
#else
#define STRIDE 1
#endif

static int integer_of(const cJSON *item, const char *name) {
    const cJSON *number = cJSON_GetObjectItem(item, name);
    assert_true(cJSON_IsNumber(number));
    return number->valueint;
}

static candid_generate_params params_of(const cJSON *item, const candid_config *config) {
    candid_generate_params params = candid_generate_params_default();
    params.conversation = CONVERSATION;
    params.config = config;
    params.max_new_tokens = integer_of(item, "max_new_tokens");
    return params;
}

/* ---- greedy search with contrasts ---- */

/* Compares the logits that are left by the cut-offs; returns the largest difference over the row's largest logit. */
static double compare_row(const struct safetensors_tensor *expected, int step, const float *row, int n_vocab,
                          int *kept) {
    double difference = 0, largest = 0;
    *kept = 0;
    for (int i = 0; i < n_vocab; i++) {
        float e;
        memcpy(&e, expected->data + ((size_t)step * (size_t)n_vocab + (size_t)i) * sizeof e, sizeof e);
        assert_false(isnan(row[i]));
        if (row[i] != -INFINITY) {
            difference = fmax(difference, fabs((double)e - (double)row[i]));
            *kept += 1;
        }
        largest = fmax(largest, isfinite(e) ? fabs((double)e) : 0);
    }
    return difference / largest;
}

static int best_of(const float *row, int n) {
    int best = 0;
    for (int i = 1; i < n; i++) {
        best = row[i] > row[best] ? i : best;
    }
    return best;
}

struct outcome {
    double error;
    int tokens, kept; /* steps that agree */
};

static struct outcome run_greedy(struct runner *r, const cJSON *item, const struct safetensors *recorded) {
    runner_open(r, text_of(item, "model"));
    candid_image *image = case_image(item);
    candid_config *config = case_config(item);
    const candid_generate_params params = params_of(item, config);
    const candid_image *images[] = {image};
    struct request request;
    OK(request_prepare(r->context, images, 1, text_of(item, "prompt"), &params, &request, error));
    assert_int_equal(request_length(&request), cJSON_GetArraySize(cJSON_GetObjectItem(item, "ids")));
    OK(request_encode(r->context, images, &request, config, NULL, error));

    char name[128];
    snprintf(name, sizeof name, "%s.out", text_of(item, "name"));
    const struct safetensors_tensor *expected = safetensors_find(recorded, name);
    assert_non_null(expected);
    const int n_vocab = r->model->llama.n_vocab, n = params.max_new_tokens;
    struct kv_cache *kv = NULL;
    struct kv_seq *seq = NULL;
    struct group *group = NULL;
    OK(kv_cache_create(r->context->backend, kv_cache_shape(r->context->kv), 4096, &kv, error));
    OK(kv_seq_create(kv, &seq, error));
    const struct generation g = request_generation(r->context, &request, seq);
    OK(group_create(&g, 1, &group, error));
    struct outcome out = {0};
    for (int step = 0; step < n; step++) {
        const float *row = group_logits(group);
        const int32_t token = cJSON_GetArrayItem(cJSON_GetObjectItem(item, "tokens"), step)->valueint;
        if (step < LOGITS) {
            int kept;
            out.error = fmax(out.error, compare_row(expected, step, row, n_vocab, &kept));
            out.kept += kept == cJSON_GetArrayItem(cJSON_GetObjectItem(item, "kept"), step)->valueint;
        }
        out.tokens += best_of(row, n_vocab) == token;
        if (step + 1 < n) {
            OK(group_step(group, &token, error)); /* the recorded token, also past an end token */
        }
    }
    for (int i = 0; i < request.list.n; i++) {
        assert_true(request.inputs[i].n_contrasted > 0);
    }
    group_free(group);
    kv_seq_free(seq);
    assert_int_equal(kv_blocks_used(kv), 0);
    kv_cache_free(kv);
    request_free(&request);
    candid_config_free(config);
    candid_image_free(image);
    return out;
}

/* ---- beam search ---- */

/* How many of the recorded answers come out, in their order, with their score. */
static int run_search(struct runner *r, const cJSON *item, double *error_of_scores) {
    runner_open(r, text_of(item, "model"));
    candid_image *image = case_image(item);
    candid_config *config = case_config(item);
    const candid_generate_params params = params_of(item, config);
    const candid_image *images[] = {image};
    const candid_result *result = NULL;
    OK(candid_generate(r->context, images, 1, text_of(item, "prompt"), &params, &result, error));
    const cJSON *answers = cJSON_GetObjectItem(item, "answers");
    int agreed = result->n_answers == (size_t)cJSON_GetArraySize(answers) ? 0 : -1000;
    for (size_t i = 0; agreed >= 0 && i < result->n_answers; i++) {
        const cJSON *answer = cJSON_GetArrayItem(answers, (int)i), *tokens = cJSON_GetObjectItem(answer, "tokens");
        const double score = cJSON_GetObjectItem(answer, "score")->valuedouble;
        bool same = result->answers[i].n_tokens == (size_t)cJSON_GetArraySize(tokens);
        for (size_t t = 0; same && t < result->answers[i].n_tokens; t++) {
            same = result->answers[i].tokens[t] == cJSON_GetArrayItem(tokens, (int)t)->valueint;
        }
        agreed += same;
        *error_of_scores = fmax(*error_of_scores, fabs((double)result->answers[i].score - score) / fabs(score));
    }
    candid_result_free(result);
    candid_config_free(config);
    candid_image_free(image);
    return agreed;
}

/* ---- all of them ---- */

/* "demo.greedy.vcd" is recorded in demo.safetensors. */
static struct safetensors *recorded_for(const char *name) {
    char path[600];
    snprintf(path, sizeof path, ROOT "%.*s.safetensors", (int)strcspn(name, "."), name);
    struct safetensors *file = NULL;
    OK(safetensors_open(path, &file, error));
    return file;
}

static bool is_greedy(const cJSON *item) {
    return strcmp(text_of(item, "kind"), "greedy") == 0;
}

static void greedy_cases(candid_precision precision, double bound, bool all_agree) {
    cJSON *cases = read_cases(ROOT "cases.json");
    struct runner r = {.precision = precision};
    double worst = 0;
    int failed = 0, n = 0, seen = 0;
    for (const cJSON *item = cases->child; item; item = item->next) {
        if (!is_greedy(item) || seen++ % STRIDE != 0) {
            continue;
        }
        struct safetensors *recorded = recorded_for(text_of(item, "name"));
        const struct outcome out = run_greedy(&r, item, recorded);
        const int n_tokens = integer_of(item, "max_new_tokens");
        worst = fmax(worst, out.error);
        n++;
        if (out.error > bound || (all_agree && (out.tokens != n_tokens || out.kept != LOGITS))) {
            print_message("%s: error %.2e, %d of %d tokens, %d of %d cut-offs\n", text_of(item, "name"), out.error,
                          out.tokens, n_tokens, out.kept, LOGITS);
            failed++;
        }
        safetensors_close(recorded);
    }
    print_message("%d cases, largest error %.2e of the largest logit\n", n, worst);
    assert_int_equal(failed, 0);
    assert_true(seen >= 50 && n >= seen / STRIDE);
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

static void beam_searches(void **state) {
    (void)state;
    cJSON *cases = read_cases(ROOT "cases.json");
    struct runner r = {.precision = CANDID_PRECISION_EXACT};
    double worst = 0;
    int failed = 0, n = 0, seen = 0;
    for (const cJSON *item = cases->child; item; item = item->next) {
        const char *kind = text_of(item, "kind");
        if (strcmp(kind, "beam") != 0 && strcmp(kind, "search") != 0) {
            continue;
        }
        if (seen++ % STRIDE != 0) {
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
    assert_true(seen >= 30 && n >= seen / STRIDE);
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
