/*
 * The combiner by itself, and what groups of rows promise on the demo model: a contrast with the same row changes
 * nothing, rows of different lengths give what they give alone, samples drawn side by side are those drawn one by one.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/demo_request.h"
#include "decode/contrast.h"
#include "decode/group.h"

/* ---- the combiner ---- */

static void classic_form(void **state) {
    (void)state;
    const float z[] = {2.0f, 1.0f, 0.0f, -3.0f}, n[] = {1.0f, 2.0f, 0.0f, -9.0f};
    float out[4];
    const struct contrast_term term = {.logits = n, .weight = 1, .cutoff = 0.1f};
    assert_int_equal(contrast_combine(z, &term, 1, 4, out), 1); /* ln 0.1 = -2.303: -3 is below 2 - 2.303 */
    assert_float_equal(out[0], 3.0f, 1e-6);                     /* 2 z - n */
    assert_float_equal(out[1], 0.0f, 1e-6);
    assert_float_equal(out[2], 0.0f, 1e-6);
    assert_true(out[3] == -INFINITY);
}

static void added_and_several(void **state) {
    (void)state;
    const float z[] = {1.0f, -1.0f}, n[] = {0.5f, 3.0f}, m[] = {2.0f, 4.0f};
    float out[2];
    const struct contrast_term terms[] = {{.logits = n, .weight = 2, .added = true}, {.logits = m, .weight = 0.5f}};
    assert_int_equal(contrast_combine(z, terms, 2, 2, out), 0);
    assert_float_equal(out[0], 1.0f + 1.0f - 0.5f, 1e-6);
    assert_float_equal(out[1], -1.0f + 6.0f - 2.5f, 1e-6);
    assert_int_equal(contrast_combine(z, NULL, 0, 2, out), 0);
    assert_memory_equal(out, z, sizeof z);
}

/* What is impossible in the main row stays impossible, also against itself. */
static void impossible_tokens(void **state) {
    (void)state;
    const float z[] = {-INFINITY, 1.0f, 0.0f}, n[] = {5.0f, -INFINITY, -INFINITY};
    float out[3];
    struct contrast_term term = {.logits = z, .weight = 1};
    contrast_combine(z, &term, 1, 3, out);
    assert_memory_equal(out, z, sizeof z);
    term = (struct contrast_term){.logits = n, .weight = 1, .added = true};
    contrast_combine(z, &term, 1, 3, out);
    assert_true(out[0] == -INFINITY && out[1] == -INFINITY && out[2] == -INFINITY);
}

static uint32_t random_bits(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* The cut-off keeps exactly the tokens with p >= beta p_max. */
static void plausibility(void **state) {
    (void)state;
    enum { N = 500 };
    uint32_t seed = 7;
    for (int round = 0; round < 200; round++) {
        float z[N], out[N];
        double sum = 0, highest = 0;
        for (int i = 0; i < N; i++) {
            z[i] = (float)random_bits(&seed) / 1e6f;
            sum += exp((double)z[i]);
            highest = fmax(highest, (double)z[i]);
        }
        const float beta = (float)(1 + random_bits(&seed) % 1000) / 1000.0f;
        const struct contrast_term term = {.logits = z, .weight = 3, .cutoff = beta};
        int kept = 0, close = 0;
        const int removed = contrast_combine(z, &term, 1, N, out);
        for (int i = 0; i < N; i++) {
            const double ratio = exp((double)z[i]) / sum / (exp(highest) / sum);
            close += fabs(ratio - (double)beta) < 1e-5; /* within rounding of the bound: either way */
            kept += ratio >= (double)beta;
            if (out[i] != -INFINITY) {
                assert_true(out[i] == z[i] && ratio > (double)beta - 1e-5);
            }
        }
        assert_true(abs(N - removed - kept) <= close);
    }
}

/* ---- groups ---- */

/* A group for a configuration, and what it stands on. */
struct lab {
    struct demo *demo;
    struct asked asked;
    struct kv_cache *kv;
    struct generation g;
    struct group *group;
};

static void lab_ask(struct lab *lab, struct demo *d, const char *json) {
    lab->demo = d;
    demo_ask(&lab->asked, d, json);
    kv_seq_free(lab->asked.seq);
    OK(kv_cache_create(d->context->backend, kv_cache_shape(d->context->kv), 4096, &lab->kv, error));
    OK(kv_seq_create(lab->kv, &lab->asked.seq, error));
    lab->group = NULL;
    lab->g = request_generation(d->context, &lab->asked.request, lab->asked.seq);
}

static void lab_open(struct lab *lab, struct demo *d, const char *json, int capacity) {
    lab_ask(lab, d, json);
    OK(group_create(&lab->g, 1, capacity, &lab->group, error));
}

static void lab_close(struct lab *lab) {
    group_free(lab->group);
    kv_seq_free(lab->asked.seq);
    lab->asked.seq = NULL;
    asked_free(&lab->asked);
    assert_int_equal(kv_blocks_used(lab->kv), 0);
    kv_cache_free(lab->kv);
}

static void same_branch_changes_nothing(void **state) {
    (void)state;
    for (int p = 0; p < N_DEMO_PRECISIONS; p++) {
        struct demo d;
        demo_open(&d, demo_precisions[p], 1);
        const size_t bytes = (size_t)d.model->llama.n_vocab * sizeof(float);
        struct lab plain, same;
        lab_open(&plain, &d, NULL, 1);
        lab_ask(&same, &d, NULL); /* no method has such a branch */
        struct branch_input branch = {
            .prompt = same.g.prompt, .images = same.g.images, .visual_tokens = same.g.visual_tokens, .weight = 2.5f};
        same.g.branches = &branch;
        same.g.n_branches = 1;
        OK(group_create(&same.g, 1, 1, &same.group, error));
        assert_true(branch.n_shared > 0);
        for (int step = 0; step < 12; step++) {
            assert_memory_equal(group_logits(plain.group), group_logits(same.group), bytes);
            const int32_t token = 20 + step;
            OK(group_step(plain.group, &token, error));
            OK(group_step(same.group, &token, error));
        }
        assert_int_equal(branch.n_contrasted, 13);
        lab_close(&plain);
        lab_close(&same);
        demo_close(&d);
    }
}

/* Logits of a prompt's own row for given tokens, (n + 1, n_vocab). */
static float *alone(struct demo *d, const struct generation *like, const struct branch_input *branch,
                    const int32_t *tokens, int n) {
    const size_t n_vocab = (size_t)d->model->llama.n_vocab;
    float *all = malloc((size_t)(n + 1) * n_vocab * sizeof *all);
    assert_non_null(all);
    struct kv_seq *seq = NULL;
    struct kv_cache *kv = NULL;
    struct group *group = NULL;
    OK(kv_cache_create(d->context->backend, kv_cache_shape(d->context->kv), 2048, &kv, error));
    OK(kv_seq_create(kv, &seq, error));
    struct generation g = *like;
    g.seq = seq;
    g.prompt = branch->prompt;
    g.images = branch->images;
    g.visual_tokens = branch->visual_tokens;
    g.plan = branch->plan;
    g.n_branches = 0;
    OK(group_create(&g, 1, 1, &group, error));
    for (int i = 0; i <= n; i++) {
        memcpy(all + (size_t)i * n_vocab, group_logits(group), n_vocab * sizeof *all);
        if (i < n) {
            OK(group_step(group, &tokens[i], error));
        }
    }
    group_free(group);
    kv_seq_free(seq);
    kv_cache_free(kv);
    return all;
}

/* Rows of one group, with prompts of different lengths, give bit for bit what each gives by itself. */
static void rows_equal_separate_runs(void **state) {
    (void)state;
    enum { STEPS = 10 };
    const int32_t tokens[STEPS] = {5, 9, 30, 31, 100, 200, 44, 45, 46, 7};
    struct demo d;
    exact_open(&d, 1);
    const int n_vocab = d.model->llama.n_vocab;
    const char *const configs[] = {
        "{\"pai\": {\"gamma\": 1.5, \"cutoff\": 0}, \"damro\": {\"beta\": 0}, \"icd\": {\"beta\": 0}}",
        "{\"vcd\": {\"beta\": 0}, \"vhr\": true, \"causalmm\": {\"epsilon\": 0, \"language\": \"uniform\"}}"};
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct lab lab;
        lab_open(&lab, &d, configs[c], 1);
        const int n = lab.g.n_branches;
        assert_int_equal(n, 3);
        /* a plan belongs to one prompt, and measures it: the main row alone gets one of its own */
        struct asked other;
        demo_ask(&other, &d, configs[c]);
        const struct branch_input main = {.prompt = lab.g.prompt,
                                          .images = lab.g.images,
                                          .visual_tokens = lab.g.visual_tokens,
                                          .plan = other.request.plan};
        float *rows[4];
        rows[0] = alone(&d, &lab.g, &main, tokens, STEPS);
        for (int b = 0; b < n; b++) {
            rows[b + 1] = alone(&d, &lab.g, &lab.g.branches[b], tokens, STEPS);
        }
        float *expected = malloc((size_t)n_vocab * sizeof *expected);
        for (int step = 0; step <= STEPS; step++) {
            struct contrast_term terms[3];
            for (int b = 0; b < n; b++) {
                const struct branch_input *in = &lab.g.branches[b];
                terms[b] = (struct contrast_term){rows[b + 1] + (size_t)step * (size_t)n_vocab, in->weight, in->added,
                                                  in->cutoff};
            }
            contrast_combine(rows[0] + (size_t)step * (size_t)n_vocab, terms, n, n_vocab, expected);
            assert_memory_equal(expected, group_logits(lab.group), (size_t)n_vocab * sizeof *expected);
            if (step < STEPS) {
                OK(group_step(lab.group, &tokens[step], error));
            }
        }
        free(expected);
        for (int b = 0; b <= n; b++) {
            free(rows[b]);
        }
        asked_free(&other);
        lab_close(&lab);
    }
    demo_close(&d);
}

/* A branch that joins late counts as if it had been there; one that has ended counts as the main row. */
static void branches_come_and_go(void **state) {
    (void)state;
    struct demo d;
    exact_open(&d, 1);
    const size_t n_vocab = (size_t)d.model->llama.n_vocab, bytes = n_vocab * sizeof(float);
    const int32_t tokens[] = {5, 9, 30, 31};
    struct lab from_start, late, plain, first;
    lab_open(&from_start, &d, "{\"icd\": {\"beta\": 0}}", 2);
    lab_ask(&late, &d, "{\"icd\": {\"beta\": 0}}");
    struct branch_input branch = late.g.branches[0];
    late.g.n_branches = 0;
    OK(group_create(&late.g, 1, 2, &late.group, error));
    lab_open(&plain, &d, NULL, 1);
    lab_open(&first, &d, "{\"icd\": {\"beta\": 0, \"first_token_only\": true}}", 1);
    assert_memory_equal(group_logits(first.group), group_logits(from_start.group), bytes);
    assert_int_equal(group_rows(first.group), 1);
    for (int i = 0; i < 3; i++) {
        OK(group_step(from_start.group, &tokens[i], error));
        OK(group_step(late.group, &tokens[i], error));
        OK(group_step(plain.group, &tokens[i], error));
        OK(group_step(first.group, &tokens[i], error));
        assert_memory_equal(group_logits(late.group), group_logits(plain.group), bytes);
        assert_memory_equal(group_logits(first.group), group_logits(plain.group), bytes);
    }
    const int32_t *so_far[] = {tokens};
    OK(group_join(late.group, &branch, so_far, 3, error));
    OK(group_step(from_start.group, &tokens[3], error));
    OK(group_step(late.group, &tokens[3], error));
    assert_memory_equal(group_logits(late.group), group_logits(from_start.group), bytes);
    assert_memory_not_equal(group_logits(late.group), group_logits(plain.group), bytes);
    lab_close(&from_start);
    lab_close(&late);
    lab_close(&plain);
    lab_close(&first);
    demo_close(&d);
}

/* Reordering moves all lanes of a hypothesis. */
static void reordering_moves_groups(void **state) {
    (void)state;
    struct demo d;
    exact_open(&d, 1);
    const size_t n_vocab = (size_t)d.model->llama.n_vocab;
    struct lab beams, one;
    lab_open(&beams, &d, "{\"icd\": {\"beta\": 0}, \"pai\": true}", 3);
    lab_open(&one, &d, "{\"icd\": {\"beta\": 0}, \"pai\": true}", 1);
    const int fan[] = {0, 0, 0};
    const int32_t first[] = {5, 6, 7}, second[] = {8, 9, 10};
    OK(group_reorder(beams.group, fan, 3, error));
    OK(group_step(beams.group, first, error));
    const int parents[] = {2, 0, 2};
    OK(group_reorder(beams.group, parents, 3, error));
    OK(group_step(beams.group, second, error));
    OK(group_step(one.group, &first[2], error));
    OK(group_step(one.group, &second[2], error)); /* 7, 10: the third */
    assert_memory_equal(group_logits(beams.group) + 2 * n_vocab, group_logits(one.group), n_vocab * sizeof(float));
    const int last[] = {2};
    OK(group_reorder(beams.group, last, 1, error));
    OK(group_step(beams.group, first, error));
    OK(group_step(one.group, first, error));
    assert_memory_equal(group_logits(beams.group), group_logits(one.group), n_vocab * sizeof(float));
    lab_close(&beams);
    lab_close(&one);
    demo_close(&d);
}

/* ---- samples ---- */

static const candid_result *sample(struct demo *d, const char *json, uint64_t seed) {
    candid_config *config = demo_config(json);
    candid_generate_params params = candid_generate_params_default();
    params.config = config;
    params.temperature = 1.6f;
    params.top_k = 40;
    params.repetition_penalty = 1.1f;
    params.seed = seed;
    params.max_new_tokens = 40;
    const candid_image *images[] = {d->image};
    const candid_result *result = NULL;
    OK(candid_generate(d->context, images, 1, DEMO_PROMPT, &params, &result, error));
    candid_config_free(config);
    return result;
}

static void samples_side_by_side(void **state) {
    (void)state;
    struct demo d;
    exact_open(&d, 2);
    const candid_result *all = sample(&d, "{\"decode\": {\"answers\": 4}, \"vcd\": true}", 3);
    assert_int_equal(all->n_answers, 4);
    int different = 0;
    for (uint64_t i = 0; i < 4; i++) {
        const candid_result *single = sample(&d, "{\"vcd\": true}", 3 + i);
        assert_string_equal(single->text, all->answers[i].text);
        assert_int_equal(single->n_tokens, all->answers[i].n_tokens);
        assert_memory_equal(single->tokens, all->answers[i].tokens, single->n_tokens * sizeof *single->tokens);
        different += strcmp(all->text, all->answers[i].text) != 0;
        candid_result_free(single);
    }
    assert_true(different > 0);
    candid_result_free(all);
    demo_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classic_form),
        cmocka_unit_test(added_and_several),
        cmocka_unit_test(impossible_tokens),
        cmocka_unit_test(plausibility),
        cmocka_unit_test(same_branch_changes_nothing),
        cmocka_unit_test(rows_equal_separate_runs),
        cmocka_unit_test(branches_come_and_go),
        cmocka_unit_test(reordering_moves_groups),
        cmocka_unit_test(samples_side_by_side),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
