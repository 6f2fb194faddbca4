/*
 * Edited attention against an oracle in double precision that knows nothing of blocks, tiles or kernels: random edits
 * of every kind, alone and combined, in rows of several sequences of which some have none and some are probed, by the
 * reference and every kernel family of this machine. Then what is promised bit by bit: a row gives the same in any
 * company, by any number of threads, and an edit that leaves a head alone changes nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/attention_scene.h"

/* ---- tests ------------------------------------------------------------------------------------- */

static const char *const wanted_names[] = {"abs", "mean", "move", "replace", "move in f16", "all kinds"};

static void check_shapes(enum wanted wanted) {
    static const struct {
        int n_head_kv, group, dim, keys, rows;
    } shapes[] = {
        {2, 1, 64, 100, 20}, {1, 4, 32, 33, 60},  {2, 2, 80, 257, 12}, {1, 8, 128, 64, 9},  {3, 1, 40, 31, 60},
        {1, 1, 64, 1, 3},    {1, 71, 24, 45, 5},  {2, 4, 100, 40, 17}, {1, 2, 7, 96, 60},   {2, 2, 128, 1500, 5},
        {4, 1, 32, 600, 33}, {1, 16, 64, 130, 8}, {6, 1, 32, 82, 60},  {1, 3, 256, 70, 10}, {1, 1, 1, 65, 30},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (int f32 = 0; f32 < 2; f32++) {
            struct scene s;
            scene_begin(&s, f32, shapes[i].n_head_kv, shapes[i].group, shapes[i].dim, shapes[i].keys, shapes[i].rows,
                        wanted);
            for (int isa = -1; isa < N_ISA; isa++) {
                if (available(isa)) {
                    check_scene(&s, isa, wanted_names[wanted]);
                }
            }
            scene_free(&s);
        }
    }
}

static void scores_grow_by_their_magnitude(void **state) {
    (void)state;
    check_shapes(WANT_ABS);
}

static void scores_grow_by_the_heads_mean(void **state) {
    (void)state;
    check_shapes(WANT_MEAN);
}

static void probabilities_move(void **state) {
    (void)state;
    check_shapes(WANT_MOVE);
}

static void probabilities_move_in_f16(void **state) {
    (void)state;
    check_shapes(WANT_MOVE_F16);
}

static void probabilities_are_replaced(void **state) {
    (void)state;
    check_shapes(WANT_REPLACE);
}

static void edits_combine(void **state) {
    (void)state;
    check_shapes(WANT_ANY);
}

/* Conditions that no head meets, heads that are not asked for, gains of 0, sinks that keep all: the reference gives the
 * bits of no edit. */
static void edits_that_leave_heads_alone(void **state) {
    (void)state;
    for (int f32 = 0; f32 < 2; f32++) {
        struct scene s;
        scene_begin(&s, f32, 2, 2, 40, 75, 30, WANT_ANY);
        const size_t n = row_floats(&s);
        for (int r = 0; r < s.a.n_rows; r++) {
            for (int i = 0; i < s.edited[r].edits.n_edits; i++) {
                struct attention_edit *e = &s.edited[r].edit[i];
                memset(e->gain, 0, sizeof e->gain);
                e->kind = e->kind == EDIT_PROBS_REPLACE ? EDIT_PROBS_MOVE : e->kind; /* it has no neutral setting */
                if (e->kind == EDIT_PROBS_MOVE && r % 5 == 0) {
                    e->min_mass = 2.0f;
                } else if (e->kind == EDIT_PROBS_MOVE && r % 5 == 1) {
                    e->max_share = -1.0f;
                } else if (e->kind == EDIT_PROBS_MOVE && r % 5 == 2) {
                    e->to = e->from; /* nothing receives */
                } else if (e->kind == EDIT_PROBS_MOVE) {
                    e->keep = 1.0f;
                }
                if (r % 5 == 3) {
                    memset(e->gain, 0x3f, sizeof e->gain);
                    e->keep = 0.0f;
                    s.edited[r].heads[i] = realloc(s.edited[r].heads[i], (size_t)s.a.n_head);
                    memset(s.edited[r].heads[i], 0, (size_t)s.a.n_head);
                    e->heads = s.edited[r].heads[i];
                }
            }
        }
        float *edited = run(&s, -1, 0, s.a.n_rows, 2);
        for (int r = 0; r < s.a.n_rows; r++) {
            for (int k = 0; s.rows[r].edits && k < s.edited[r].edits.n_edits * s.a.n_head; k++) {
                const struct attention_edit *e = &s.edited[r].edit[k / s.a.n_head];
                const bool move = e->kind == EDIT_PROBS_MOVE, asked = !e->heads || e->heads[k % s.a.n_head];
                const float moved = s.edited[r].edits.moved[k];
                if (move && r % 5 == 4) {
                    assert_true(moved == -1.0f || (moved == 0.0f && asked));
                } else {
                    assert_true(moved == (asked && !move ? 0.0f : -1.0f));
                }
            }
            s.rows[r].edits = NULL;
        }
        float *plain = run(&s, -1, 0, s.a.n_rows, 2);
        for (int r = 0; r < s.a.n_rows; r++) {
            check_bits(edited + (size_t)r * n, plain + (size_t)r * n, n, -1, r, "though nothing is edited");
        }
        free(edited);
        free(plain);
        scene_free(&s);
    }
}

/* Both conditions hold at equality; nothing is edited where nothing can receive. */
static void conditions_include_their_thresholds(void **state) {
    (void)state;
    const uint8_t classes[] = {0, 1, 2, 2}; /* other, whole, whole and part */
    struct attention_edit e = {.kind = EDIT_PROBS_MOVE,
                               .classes = classes,
                               .n_classes = 4,
                               .from = 4,
                               .to = 2,
                               .whole = 6,
                               .part = 4,
                               .keep = 0.5f,
                               .min_mass = 0.5f,
                               .max_share = 0.5f};
    for (int f16 = 0; f16 < 2; f16++) {
        for (int i = 0; i < 4; i++) {
            struct attention_edit edit = e;
            float moved = SENTINEL, p[] = {0.5f, 0.25f, 0.125f, 0.125f};
            const struct row_edits edits = {&edit, 1, &moved};
            edit.round_f16 = f16;
            edit.min_mass += i == 1 ? 0x1p-10f : 0;
            edit.max_share -= i == 2 ? 0x1p-10f : 0;
            edit.to = i == 3 ? 4 : 2;
            const struct attention_row row = {.n_keys = 4, .edits = &edits};
            attention_edit_probs(&row, 0, 0, 1, p, NULL);
            const float edited[] = {0.5f, 0.375f, 0.0625f, 0.0625f}, plain[] = {0.5f, 0.25f, 0.125f, 0.125f};
            assert_memory_equal(p, i == 0 ? edited : plain, sizeof p);
            assert_true(moved == (i == 0 ? 0.125f : -1.0f));
        }
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
        cmocka_unit_test(edits_that_leave_heads_alone),
        cmocka_unit_test(conditions_include_their_thresholds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
