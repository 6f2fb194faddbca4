/*
 * EDIT_PROBS_REPLACE in plans, on the demo model: what the attention of the named heads becomes, that all else stays,
 * and that neither threads nor the cutting of a prompt into passes shows in random numbers.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/demo_request.h"

enum { LAYER = 2, ROWS = ROW_QUESTION | ROW_GENERATED };

static const uint8_t heads[6 * 6] = {[LAYER * 6 + 1] = 1, [LAYER * 6 + 4] = 1, [3 * 6 + 0] = 1};

static bool replaced(const struct asked *a, int row, int head) {
    return heads[LAYER * 6 + head] && (plan_row_sets(a->request.plan, row) & ROWS);
}

static struct plan_step *add_step(struct asked *a, enum replace_mode mode, uint64_t seed) {
    struct plan_step *step = NULL;
    OK(plan_add(a->request.plan, PLAN_ATTENTION, NULL, &step, error));
    step->rows = ROWS;
    step->edit = (struct attention_edit){.kind = EDIT_PROBS_REPLACE, .heads = heads, .replace = mode, .seed = seed};
    step->heads_stride = 6;
    step->layers[LAYER] = step->layers[3] = true;
    return step;
}

/* A configuration that does next to nothing, for a plan to add to. */
#define BARE "{\"head_scale\": {\"heads\": [[5, 5]], \"scale\": 0.999}}"

struct seen {
    float *probs; /* (n_rows, n_head, n_keys) of LAYER */
    int n_keys;
};

static void see(void *user_data, enum site site, int layer, const float *data, int n_rows, int n_cols) {
    struct seen *s = user_data;
    const size_t bytes = (size_t)n_rows * (size_t)n_cols * sizeof *data;
    if (layer == LAYER) {
        s->n_keys = n_cols;
        s->probs = malloc(bytes);
        assert_non_null(s->probs);
        memcpy(s->probs, data, bytes);
    }
}

static int by_value(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* What became of a row's probabilities `a` over n keys. */
static void check_row(enum replace_mode mode, const float *a, const float *b, int n) {
    float highest = 0, before[512], after[512];
    double sum = 0, reversed = 0;
    for (int k = 0; k < n; k++) {
        highest = fmaxf(highest, a[k]);
        before[k] = a[k];
        after[k] = b[k];
        sum += (double)b[k];
    }
    for (int k = 0; k < n; k++) {
        reversed += (double)highest - (double)a[k];
    }
    if (mode == REPLACE_SHUFFLE) {
        assert_true(n < 10 || memcmp(before, after, (size_t)n * sizeof *before) != 0);
        qsort(before, (size_t)n, sizeof *before, by_value);
        qsort(after, (size_t)n, sizeof *after, by_value);
        assert_memory_equal(before, after, (size_t)n * sizeof *before);
    }
    assert_true(mode == REPLACE_REVERSE ? fabs(sum - reversed) < 1e-5 * (1 + reversed) : fabs(sum - 1) < 1e-5);
    for (int k = 0; k < n; k++) {
        const double turned = (double)highest - (double)a[k];
        if (mode == REPLACE_RANDOM) {
            assert_true(b[k] > 0 && b[k] <= 1);
        } else if (mode != REPLACE_SHUFFLE) {
            const double e = mode == REPLACE_UNIFORM   ? 1.0 / n
                             : mode == REPLACE_REVERSE ? turned
                             : reversed > 0            ? turned / reversed
                                                       : (double)a[k];
            assert_true(fabs((double)b[k] - e) < 1e-6);
        }
    }
}

static void only_what_is_named(void **state) {
    (void)state;
    struct demo d;
    demo_open(&d, CANDID_PRECISION_EXACT, 1);
    assert_true(d.model->llama.n_head == 6 && d.model->llama.n_layer == 6);
    for (int mode = REPLACE_REVERSE; mode <= REPLACE_SHUFFLE; mode++) {
        struct asked plain, a;
        struct seen before = {0}, after = {0};
        const struct observer o[] = {{1u << SITE_ATTENTION_PROBS, see, NULL, &before},
                                     {1u << SITE_ATTENTION_PROBS, see, NULL, &after}};
        demo_ask(&plain, &d, BARE);
        demo_ask(&a, &d, BARE);
        const struct plan_step *step = add_step(&a, (enum replace_mode)mode, 3);
        demo_prefill(&plain, NULL, &o[0]);
        demo_prefill(&a, NULL, &o[1]);
        int n_replaced = 0;
        for (int row = 0; row < a.n_prompt; row++) {
            for (int head = 0; head < 6; head++) {
                const size_t at = (size_t)(row * 6 + head) * (size_t)after.n_keys;
                const size_t bytes = (size_t)after.n_keys * sizeof(float);
                if (!replaced(&a, row, head)) {
                    assert_memory_equal(before.probs + at, after.probs + at, bytes);
                } else {
                    check_row((enum replace_mode)mode, before.probs + at, after.probs + at, row + 1);
                    n_replaced++;
                }
            }
        }
        assert_int_equal(step->rows_done, n_replaced / 2 * 3);
        assert_true(step->moved > 0.01 * (double)step->rows_done);
        assert_memory_not_equal(a.logits, plain.logits, demo_vocab(&a) * sizeof(float));
        free(before.probs);
        free(after.probs);
        asked_free(&plain);
        asked_free(&a);
    }
    demo_close(&d);
}

/* The logits of a prompt and two steps: by other threads, in other passes, and with another seed. */
static void numbers_belong_to_the_row(void **state) {
    (void)state;
    for (int mode = REPLACE_RANDOM; mode <= REPLACE_SHUFFLE; mode++) {
        float *first = NULL;
        for (int way = 0; way < 4; way++) {
            struct demo d;
            struct asked a;
            struct llama *small = NULL;
            demo_open(&d, CANDID_PRECISION_EXACT, way == 1 ? 3 : 1);
            OK(llama_create(&d.model->llama, d.context->backend, 17, &small, error));
            demo_ask(&a, &d, BARE);
            add_step(&a, (enum replace_mode)mode, way == 3 ? 4 : 3);
            struct llama *llama = way == 2 ? small : NULL;
            demo_prefill(&a, llama, NULL);
            demo_step(&a, llama, 30);
            demo_step(&a, llama, 31);
            const size_t bytes = demo_vocab(&a) * sizeof(float);
            if (way == 0) {
                first = malloc(bytes);
                assert_non_null(first);
                memcpy(first, a.logits, bytes);
            } else if (way < 3) {
                assert_memory_equal(a.logits, first, bytes);
            } else {
                assert_memory_not_equal(a.logits, first, bytes);
            }
            llama_free(small);
            asked_free(&a);
            demo_close(&d);
        }
        free(first);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_is_named),
        cmocka_unit_test(numbers_belong_to_the_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
