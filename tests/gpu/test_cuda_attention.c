/*
 * Attention of the CUDA backend against the oracle of support/attention_scene.h: rows of several sequences with edits
 * of every kind, probes and second ranges, caches of both types, blocks behind the last token poisoned. On the exact
 * path a row also gives the same bits in any company.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/attention_scene.h"
#include "backend/cuda/cuda.h"

static struct backend *open_backend(candid_precision precision) {
    struct backend *b = NULL;
    candid_error error = {.message = ""};
    if (backend_cuda_create(precision, 0, NULL, NULL, &b, &error) != CANDID_OK) {
        fail_msg("%s", error.message);
    }
    return b;
}

static void *to_device(struct backend *b, const void *host, size_t bytes) {
    void *device = NULL;
    assert_int_equal(b->ops->alloc(b, bytes, &device, NULL), CANDID_OK);
    b->ops->upload(b, device, host, bytes);
    return device;
}

/* The scene's blocks on the device. */
struct device_blocks {
    void *of[3][MOST_BLOCKS];
};

static void blocks_upload(struct backend *b, const struct scene *s, struct device_blocks *d) {
    const size_t bytes =
        kv_offset(&s->shape, s->shape.n_layer, 0, 0) * (s->shape.f32 ? sizeof(float) : sizeof(uint16_t));
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < s->seq[i].n_blocks; k++) {
            d->of[i][k] = k < s->seq[i].n_shared ? d->of[0][k] : to_device(b, s->seq[i].blocks[k], bytes);
        }
    }
}

static void blocks_release(struct backend *b, const struct scene *s, struct device_blocks *d) {
    for (int i = 0; i < 3; i++) {
        for (int k = s->seq[i].n_shared; k < s->seq[i].n_blocks; k++) {
            b->ops->release(b, d->of[i][k]);
        }
    }
}

/* Rows begin..end-1 as one call, like run() of the scene. */
static float *run_cuda(struct backend *b, const struct scene *s, const struct device_blocks *d, int begin, int end) {
    struct attention_row rows[MOST_ROWS];
    struct kv_attention a = s->a;
    a.rows = rows;
    a.n_rows = end - begin;
    const size_t n = (size_t)a.n_rows * row_floats(s);
    float *out = malloc((n + GUARD) * sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < n + GUARD; i++) {
        out[i] = SENTINEL;
    }
    for (int r = begin; r < end; r++) {
        rows[r - begin] = s->rows[r];
        rows[r - begin].blocks = d->of[s->edited[r].sequence];
        for (int i = 0; i < s->rows[r].n_probes; i++) {
            for (int k = 0; k < attention_row_end(&s->rows[r]) + GUARD; k++) {
                s->edited[r].values[i][k] = SENTINEL;
            }
        }
    }
    void *q = to_device(b, s->q + (size_t)begin * row_floats(s), n * sizeof *out);
    void *device_out = to_device(b, out, (n + GUARD) * sizeof *out);
    candid_error error = {.message = ""};
    if (b->ops->kv_attend(b, &a, q, device_out, &error) || b->ops->finish(b, &error)) {
        fail_msg("%s", error.message);
    }
    b->ops->download(b, out, device_out, (n + GUARD) * sizeof *out);
    b->ops->release(b, q);
    b->ops->release(b, device_out);
    for (size_t i = 0; i < GUARD; i++) {
        assert_true(out[n + i] == SENTINEL);
    }
    return out;
}

static void check_probes_within(const struct scene *s, double bound, const char *what) {
    for (int r = 0; r < s->a.n_rows; r++) {
        const int n = attention_row_end(&s->rows[r]);
        for (int i = 0; i < s->rows[r].n_probes; i++) {
            const float *found = s->edited[r].values[i];
            for (int k = 0; k < n + GUARD; k++) {
                const double e = k < n ? s->edited[r].expected[i][k] : (double)SENTINEL;
                const bool exact = k >= n || !visible(&s->rows[r], k); /* not to be written, or 0 */
                if (exact ? (double)found[k] != e : !(fabs((double)found[k] - e) <= bound)) {
                    fail_msg("%s: row %d: probe %d is told %.9g of key %d, expected %.9g", what, r, i, (double)found[k],
                             k, e);
                }
            }
        }
    }
}

static float *check_all(struct backend *b, const struct scene *s, const struct device_blocks *d, double bound,
                        const char *what) {
    const size_t n = moved_floats(s);
    for (size_t i = 0; i < n + GUARD; i++) {
        s->moved[i] = SENTINEL;
    }
    float *out = run_cuda(b, s, d, 0, s->a.n_rows);
    for (size_t i = 0; i < (size_t)s->a.n_rows * row_floats(s); i++) {
        if (!(fabs((double)out[i] - s->expected[i]) <= bound * s->sums[i / (size_t)s->shape.head_dim])) {
            fail_msg("%s, %s cache, %d/%d heads of %d: row %d value %d is %.9g, expected %.9g", what,
                     s->shape.f32 ? "f32" : "f16", s->a.n_head, s->shape.n_head_kv, s->shape.head_dim,
                     (int)(i / row_floats(s)), (int)(i % row_floats(s)), (double)out[i], s->expected[i]);
        }
    }
    for (size_t i = 0; i < n + GUARD; i++) {
        const double e = i < n ? s->expected_moved[i] : (double)SENTINEL;
        const bool exact = e < 0; /* left alone, or not to be written */
        if (exact ? (double)s->moved[i] != e : !(fabs((double)s->moved[i] - e) <= bound * fmax(e, 1))) {
            fail_msg("%s: moved %zu is %.9g, expected %.9g", what, i, (double)s->moved[i], e);
        }
    }
    check_probes_within(s, bound, what);
    return out;
}

struct shape {
    int n_head_kv, group, dim, keys, rows;
};

static void check_shape(const struct shape *shape, bool f32, enum wanted wanted, candid_precision precision) {
    static const char *const names[] = {"abs", "mean", "move", "replace", "move in f16", "all kinds"};
    const bool is_exact = precision == CANDID_PRECISION_EXACT;
    struct backend *b = open_backend(precision);
    struct scene s;
    struct device_blocks d;
    scene_margin = is_exact ? 5e-5 : 4e-3; /* products round queries and probabilities to f16 */
    scene_begin(&s, f32, shape->n_head_kv, shape->group, shape->dim, shape->keys, shape->rows, wanted);
    blocks_upload(b, &s, &d);
    const double bound = s.rounded ? 8e-3 : is_exact ? 2e-5 : 8e-3;
    float *all = check_all(b, &s, &d, bound, names[wanted]);
    const size_t n = row_floats(&s);
    for (int r = 0; is_exact && r < s.a.n_rows; r += 7) {
        float *alone = run_cuda(b, &s, &d, r, r + 1);
        if (memcmp(alone, all + (size_t)r * n, n * sizeof *alone) != 0) {
            fail_msg("%s: row %d has other bits alone", names[wanted], r);
        }
        free(alone);
    }
    /* Plain rows of a decoding step, of which few belong to one sequence, take the split way. */
    for (int r = 0; r < s.a.n_rows; r++) {
        s.rows[r].edits = NULL;
        s.rows[r].n_probes = 0;
        s.rows[r].also_begin = s.rows[r].also_end = 0;
    }
    float *plain = run_cuda(b, &s, &d, 0, s.a.n_rows);
    for (int r = 0; r < s.a.n_rows; r++) {
        for (int i = 0; i < MOST_EDITS * s.a.n_head; i++) {
            s.expected_moved[r * MOST_EDITS * s.a.n_head + i] = (double)SENTINEL;
        }
        oracle_row(&s, r);
        for (size_t i = 0; i < n; i++) {
            const double found = (double)plain[(size_t)r * n + i], expected = s.expected[(size_t)r * n + i];
            if (!(fabs(found - expected) <= (is_exact ? 2e-5 : 2e-3))) {
                fail_msg("plain rows, %d heads of %d: row %d value %zu is %.9g, expected %.9g", s.a.n_head,
                         s.shape.head_dim, r, i, found, expected);
            }
        }
        float *alone = r % 5 == 0 ? run_cuda(b, &s, &d, r, r + 1) : NULL;
        for (size_t i = 0; alone && i < n; i++) {
            const double expected = s.expected[(size_t)r * n + i];
            assert_true(fabs((double)alone[i] - expected) <= 2e-5); /* never by products */
        }
        free(alone);
    }
    free(plain);
    free(all);
    blocks_release(b, &s, &d);
    scene_free(&s);
    backend_destroy(b);
}

static void check_shapes(enum wanted wanted) {
    static const struct shape shapes[] = {
        {2, 1, 64, 100, 20}, {1, 4, 32, 33, 30}, {2, 2, 80, 150, 12}, {1, 3, 7, 96, 25},
        {1, 1, 64, 1, 3},    {3, 2, 40, 31, 25}, {1, 2, 256, 70, 10}, {1, 1, 1, 65, 12},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const bool f32 = (i + (size_t)wanted) % 2;
        check_shape(&shapes[i], f32, wanted, CANDID_PRECISION_EXACT);
        check_shape(&shapes[i], !f32, wanted, CANDID_PRECISION_FAST);
    }
}

static void scores_grow_by_their_magnitude(void **state) {
    check_shapes(WANT_ABS);
}

static void scores_grow_by_the_heads_mean(void **state) {
    check_shapes(WANT_MEAN);
}

static void probabilities_move(void **state) {
    check_shapes(WANT_MOVE);
}

static void probabilities_move_in_f16(void **state) {
    check_shapes(WANT_MOVE_F16);
}

static void probabilities_are_replaced(void **state) {
    check_shapes(WANT_REPLACE);
}

static void edits_combine(void **state) {
    check_shapes(WANT_ANY);
}

static void wide_heads_and_large_groups(void **state) {
    static const struct shape shapes[] = {{1, 12, 24, 45, 9}, {2, 1, 300, 40, 12}, {1, 8, 128, 330, 6}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_shape(&shapes[i], i == 1, WANT_ANY, CANDID_PRECISION_EXACT);
    }
    check_shape(&shapes[1], false, WANT_ABS, CANDID_PRECISION_FAST);
    check_shape(&shapes[2], false, WANT_ABS, CANDID_PRECISION_FAST);
}

/* The rows of a prompt mostly have the same classes and heads, which the call then holds once. */
static void rows_share_sets(void **state) {
    struct scene s;
    struct device_blocks d;
    struct backend *b = open_backend(CANDID_PRECISION_EXACT);
    scene_margin = 5e-5;
    scene_begin(&s, true, 2, 2, 24, 60, 40, WANT_ANY);
    blocks_upload(b, &s, &d);
    for (int r = 1; r < s.a.n_rows; r++) {
        struct edited_row *row = &s.edited[r], *before = &s.edited[r - 1];
        if (!s.rows[r].edits || !s.rows[r - 1].edits || r % 4 == 0) {
            continue;
        }
        do { /* parameters of their own, sets of the row before; some without its heads */
            random_edits(&s, r, WANT_ANY);
            for (int i = 0; s.rows[r].edits && i < row->edits.n_edits && i < before->edits.n_edits; i++) {
                row->edit[i].kind = before->edit[i].kind;
                row->edit[i].classes = before->edit[i].classes;
                row->edit[i].n_classes = before->edit[i].n_classes;
                row->edit[i].class_stride = before->edit[i].class_stride;
                row->edit[i].heads = chance(70) ? before->edit[i].heads : NULL;
            }
            for (int i = before->edits.n_edits; i < row->edits.n_edits; i++) { /* a second mean is not defined */
                row->edit[i].kind = row->edit[i].kind == EDIT_SCORES_MEAN_ABS ? EDIT_SCORES_ABS : row->edit[i].kind;
            }
            s.marginal = false;
            for (int i = 0; i < MOST_EDITS * s.a.n_head; i++) {
                s.expected_moved[r * MOST_EDITS * s.a.n_head + i] = (double)SENTINEL;
            }
            for (int i = 0; i < s.rows[r].n_probes; i++) {
                memset(row->expected[i], 0, (size_t)attention_row_end(&s.rows[r]) * sizeof *row->expected[i]);
            }
            oracle_row(&s, r);
        } while (s.marginal);
    }
    free(check_all(b, &s, &d, 2e-5, "shared sets"));
    blocks_release(b, &s, &d);
    scene_free(&s);
    backend_destroy(b);
}

/* Scores and probabilities shown to an observer are those of the CPU's reference. */
static void observers_see_the_reference(void **state) {
    for (int fast = 0; fast < 2; fast++) {
        struct backend *b = open_backend(fast ? CANDID_PRECISION_FAST : CANDID_PRECISION_EXACT);
        struct scene s;
        struct device_blocks d;
        scene_margin = 5e-5;
        scene_begin(&s, true, 2, 2, 24, 70, 20, WANT_ABS);
        blocks_upload(b, &s, &d);
        s.a.max_keys = 75;
        const size_t n = (size_t)(s.a.n_rows * s.a.n_head * s.a.max_keys);
        float *shown[4];
        for (int i = 0; i < 4; i++) {
            shown[i] = malloc(n * sizeof **shown);
            assert_non_null(shown[i]);
            for (size_t k = 0; k < n; k++) {
                shown[i][k] = SENTINEL;
            }
        }
        s.a.scores_out = shown[0];
        s.a.probs_out = shown[1];
        free(run(&s, -1, 0, s.a.n_rows, 1));
        s.a.scores_out = shown[2];
        s.a.probs_out = shown[3];
        free(run_cuda(b, &s, &d, 0, s.a.n_rows));
        for (int i = 0; i < 2; i++) {
            for (size_t k = 0; k < n; k++) {
                const float found = shown[i + 2][k], expected = shown[i][k];
                if (found != expected && !(fabsf(found - expected) <= 2e-5f)) {
                    fail_msg("%s %zu is %.9g, expected %.9g", i ? "probability" : "score", k, (double)found,
                             (double)expected);
                }
            }
        }
        for (int i = 0; i < 4; i++) {
            free(shown[i]);
        }
        blocks_release(b, &s, &d);
        scene_free(&s);
        backend_destroy(b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_grow_by_their_magnitude),
        cmocka_unit_test(scores_grow_by_the_heads_mean),
        cmocka_unit_test(probabilities_move),
        cmocka_unit_test(probabilities_move_in_f16),
        cmocka_unit_test(probabilities_are_replaced),
        cmocka_unit_test(edits_combine),
        cmocka_unit_test(wide_heads_and_large_groups),
        cmocka_unit_test(rows_share_sets),
        cmocka_unit_test(observers_see_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
