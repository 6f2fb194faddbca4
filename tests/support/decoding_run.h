/* Cases of tests/golden/decoding: what their requests are and how recorded logits are compared. Include after
 * cmocka.h. */
#ifndef CANDID_TESTS_DECODING_RUN_H
#define CANDID_TESTS_DECODING_RUN_H

#include <math.h>

#include "api/request.h"
#include "decode/group.h"
#include "golden_run.h"
#include "model/safetensors.h"

#define DECODING              TEST_GOLDEN "/decoding/"
#define DECODING_CONVERSATION "USER: <image>\n{prompt} ASSISTANT:"

/* Every case; under a sanitizer a sample of them. */
#ifdef __SANITIZE_ADDRESS__
#define DECODING_STRIDE 20
#else
#define DECODING_STRIDE 1
#endif

static inline int integer_of(const cJSON *item, const char *name) {
    const cJSON *number = cJSON_GetObjectItem(item, name);
    assert_true(cJSON_IsNumber(number));
    return number->valueint;
}

static inline int integer_at(const cJSON *array, int index) {
    const cJSON *number = cJSON_GetArrayItem(array, index);
    assert_true(cJSON_IsNumber(number));
    return number->valueint;
}

static inline bool is_kind(const cJSON *item, const char *kind) {
    return strcmp(text_of(item, "kind"), kind) == 0;
}

static inline candid_generate_params case_params(const cJSON *item, const candid_config *config) {
    candid_generate_params params = candid_generate_params_default();
    params.conversation = DECODING_CONVERSATION;
    params.config = config;
    params.max_new_tokens = integer_of(item, "max_new_tokens");
    return params;
}

/* How many of the recorded answers a result has, in their order; *error_of_scores grows to their scores' largest. */
static inline int answers_agreed(const cJSON *item, const candid_result *result, double *error_of_scores) {
    const cJSON *answers = cJSON_GetObjectItem(item, "answers");
    int agreed = 0;
    if (result->n_answers != (size_t)cJSON_GetArraySize(answers)) {
        return -1;
    }
    for (size_t i = 0; i < result->n_answers; i++) {
        const cJSON *answer = cJSON_GetArrayItem(answers, (int)i), *tokens = cJSON_GetObjectItem(answer, "tokens");
        const double score = cJSON_GetObjectItem(answer, "score")->valuedouble;
        bool same = result->answers[i].n_tokens == (size_t)cJSON_GetArraySize(tokens);
        for (size_t t = 0; same && t < result->answers[i].n_tokens; t++) {
            same = result->answers[i].tokens[t] == integer_at(tokens, (int)t);
        }
        agreed += same;
        *error_of_scores = fmax(*error_of_scores, fabs((double)result->answers[i].score - score) / fabs(score));
    }
    return agreed;
}

/* ---- recorded numbers ---- */

/* "demo.greedy.vcd" is recorded in demo.safetensors. */
static inline struct safetensors *recorded_for(const char *name) {
    char path[600];
    snprintf(path, sizeof path, DECODING "%.*s.safetensors", (int)strcspn(name, "."), name);
    struct safetensors *file = NULL;
    OK(safetensors_open(path, &file, error));
    return file;
}

/* The case's tensor `what`. */
static inline const struct safetensors_tensor *recorded(const struct safetensors *file, const cJSON *item,
                                                        const char *what) {
    char name[128];
    snprintf(name, sizeof name, "%s.%s", text_of(item, "name"), what);
    const struct safetensors_tensor *tensor = safetensors_find(file, name);
    assert_non_null(tensor);
    return tensor;
}

/* Compares the finite ones of n numbers with those recorded as row `row`; the largest difference over the largest
 * number recorded. *n_finite may be NULL. */
static inline double compare_row(const struct safetensors_tensor *expected, int row, const float *found, int n,
                                 int *n_finite) {
    double difference = 0, largest = 0;
    int finite = 0;
    for (int i = 0; i < n; i++) {
        float e;
        memcpy(&e, expected->data + ((size_t)row * (size_t)n + (size_t)i) * sizeof e, sizeof e);
        assert_false(isnan(found[i]));
        if (found[i] != -INFINITY) {
            difference = fmax(difference, fabs((double)e - (double)found[i]));
            finite++;
        }
        largest = fmax(largest, isfinite(e) ? fabs((double)e) : 0);
    }
    if (n_finite) {
        *n_finite = finite;
    }
    return difference / largest;
}

/* ---- a given answer ---- */

static inline int best_of(const float *row, int n) {
    int best = 0;
    for (int i = 1; i < n; i++) {
        best = row[i] > row[best] ? i : best;
    }
    return best;
}

/* Answers an encoded request with n recorded tokens, also past an end token; `see` gets what each is chosen from. */
static inline void answer_with(struct runner *r, struct request *request, const cJSON *tokens, int n,
                               void (*see)(void *user_data, int step, const float *logits), void *user_data) {
    struct kv_cache *kv = NULL;
    struct kv_seq *seq = NULL;
    struct group *group = NULL;
    OK(kv_cache_create(r->context->backend, kv_cache_shape(r->context->kv), 4096, &kv, error));
    OK(kv_seq_create(kv, &seq, error));
    const struct generation g = request_generation(r->context, request, seq);
    OK(group_create(&g, 1, 1, &group, error));
    for (int step = 0; step < n; step++) {
        const int32_t token = integer_at(tokens, step);
        see(user_data, step, group_logits(group));
        if (step + 1 < n) {
            OK(group_step(group, &token, error));
        }
    }
    group_free(group);
    kv_seq_free(seq);
    assert_int_equal(kv_blocks_used(kv), 0);
    kv_cache_free(kv);
}

#endif
