/*
 * Slots of the KV cache: forks cut short, slots copied, kept, saved and put back, with caches of both types; and a long
 * random walk over all operations against arrays of numbers.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/backends.h"
#include "../support/ok.h"
#include "lm/kv.h"
#include "model/quant.h"

enum { N_LAYER = 3, N_HEAD_KV = 2, HEAD_DIM = 5, WIDTH = N_HEAD_KV * HEAD_DIM };

/* What value d of a token's key (value 0) or value (1) in a layer holds, as the cache's type stores it exactly. */
static float expected(bool f32, int token, int layer, int value, int d) {
    const int place = (layer * 2 + value) * WIDTH + d;
    return f32 ? (float)(token * 64 + place) : f16_to_f32((uint16_t)((token * 977 + place * 131) % 0x7c00));
}

struct bench {
    struct backend *b;
    struct kv_shape shape;
    struct kv_cache *cache;
    float *k, *v; /* device (WIDTH) */
};

static void bench_open(struct bench *t, bool f32, int max_blocks) {
    *t = (struct bench){.shape = {N_LAYER, N_HEAD_KV, HEAD_DIM, f32}};
    OK(create_cpu_exact(&t->b, error));
    OK(kv_cache_create(t->b, &t->shape, max_blocks * KV_BLOCK, &t->cache, error));
    t->k = device_copy(t->b, NULL, WIDTH);
    t->v = device_copy(t->b, NULL, WIDTH);
}

static void bench_close(struct bench *t) {
    assert_int_equal(kv_blocks_used(t->cache), 0);
    kv_cache_free(t->cache);
    t->b->ops->release(t->b, t->k);
    t->b->ops->release(t->b, t->v);
    backend_destroy(t->b);
}

static struct kv_seq *new_seq(struct bench *t) {
    struct kv_seq *seq = NULL;
    OK(kv_seq_create(t->cache, &seq, error));
    return seq;
}

/* As the generate loop does it: layout, slot, keys and values of each layer, commit. */
static candid_status append(struct bench *t, struct kv_seq *seq, int token, enum span_kind kind) {
    const candid_status status = kv_reserve(seq, 1, NULL);
    if (status != CANDID_OK) {
        return status;
    }
    OK(layout_append(&seq->layout, kind, 1, 0, 0, 0, error));
    struct attention_row view = {.blocks = seq->blocks, .index = kv_next_slot(seq)};
    view.n_keys = view.index + 1;
    for (int layer = 0; layer < N_LAYER; layer++) {
        float k[WIDTH], v[WIDTH];
        for (int d = 0; d < WIDTH; d++) {
            k[d] = expected(t->shape.f32, token, layer, 0, d);
            v[d] = expected(t->shape.f32, token, layer, 1, d);
        }
        t->b->ops->upload(t->b, t->k, k, sizeof k);
        t->b->ops->upload(t->b, t->v, v, sizeof v);
        const struct kv_attention a = {
            .shape = &t->shape, .layer = layer, .n_head = N_HEAD_KV, .rows = &view, .n_rows = 1, .scale = 1.0f};
        t->b->ops->kv_store(t->b, &a, t->k, t->v);
    }
    kv_commit(seq);
    return CANDID_OK;
}

/* A block's values start to finish, as the header says they lie: [layer][K, V][head][slot][dim]. */
static float value_at(const struct bench *t, const void *block, size_t at) {
    return t->shape.f32 ? ((const float *)block)[at] : f16_to_f32(((const uint16_t *)block)[at]);
}

static void check_token(const struct bench *t, const struct kv_seq *seq, int index, int token) {
    const void *block = seq->blocks[index / KV_BLOCK];
    for (int layer = 0; layer < N_LAYER; layer++) {
        for (int value = 0; value < 2; value++) {
            for (int d = 0; d < WIDTH; d++) {
                const size_t page = ((size_t)layer * 2 + (size_t)value) * N_HEAD_KV + (size_t)(d / HEAD_DIM);
                const size_t at = (page * KV_BLOCK + (size_t)(index % KV_BLOCK)) * HEAD_DIM + (size_t)(d % HEAD_DIM);
                const float found = value_at(t, block, at);
                if (found != expected(t->shape.f32, token, layer, value, d)) {
                    fail_msg("slot %d: layer %d %s %d is %g, expected %g of token %d", index, layer, value ? "V" : "K",
                             d, (double)found, (double)expected(t->shape.f32, token, layer, value, d), token);
                }
            }
        }
    }
}

static void check_seq(const struct bench *t, const struct kv_seq *seq, const int *tokens, int n) {
    assert_int_equal(seq->length, n);
    assert_int_equal(seq->pending, 0);
    assert_int_equal(layout_length(&seq->layout), n);
    for (int i = 0; i < n; i++) {
        check_token(t, seq, i, tokens[i]);
    }
}

/* ---- one at a time ------------------------------------------------------------------------------ */

static void forks_may_be_shorter(void **state) {
    (void)state;
    struct bench t;
    bench_open(&t, true, 16);
    struct kv_seq *a = new_seq(&t), *b = NULL, *c = NULL, *d = NULL;
    int tokens[80];
    for (int i = 0; i < 75; i++) {
        tokens[i] = i;
        append(&t, a, i, i < 40 ? SPAN_QUESTION : SPAN_GENERATED);
    }
    OK(kv_fork_at(a, 35, &b, error));
    OK(kv_fork_at(a, 64, &c, error));
    OK(kv_fork_at(a, 100, &d, error));
    assert_int_equal(kv_block_refcount(t.cache, a->block_ids[0]), 4);
    assert_int_equal(kv_block_refcount(t.cache, a->block_ids[1]), 4);
    assert_int_equal(kv_block_refcount(t.cache, a->block_ids[2]), 2);
    check_seq(&t, b, tokens, 35);
    check_seq(&t, c, tokens, 64);
    check_seq(&t, d, tokens, 75);
    assert_int_equal(b->layout.n_spans, 1);
    assert_int_equal(c->layout.n_spans, 2);
    append(&t, b, 900, SPAN_GENERATED);
    check_seq(&t, a, tokens, 75);
    kv_seq_free(b);
    OK(kv_fork_at(a, -3, &b, error));
    assert_int_equal(b->length, 0);
    assert_int_equal(b->n_blocks, 0);
    kv_seq_free(a);
    kv_seq_free(b);
    kv_seq_free(c);
    kv_seq_free(d);
    bench_close(&t);
}

static void one_alternative_is_kept(void **state) {
    (void)state;
    for (int f32 = 0; f32 < 2; f32++) {
        struct bench t;
        bench_open(&t, f32, 16);
        for (int n = 28; n < 36; n++) { /* alternatives in one block, in two, and in the next */
            for (int kept = 0; kept < 6; kept++) {
                struct kv_seq *a = new_seq(&t), *fork = NULL;
                int tokens[64];
                for (int i = 0; i < n + 6; i++) {
                    tokens[i] = i;
                    append(&t, a, i, i < 20 ? SPAN_QUESTION : SPAN_GENERATED);
                }
                OK(kv_fork(a, &fork, error)); /* shares the block that is written */
                OK(kv_keep_slot(a, n, n + kept, error));
                check_seq(&t, fork, tokens, n + 6);
                tokens[n] = n + kept;
                check_seq(&t, a, tokens, n + 1);
                assert_int_equal(a->n_blocks, n / KV_BLOCK + 1);
                kv_seq_free(a);
                kv_seq_free(fork);
            }
        }
        bench_close(&t);
    }
}

/* The layout tells of what is kept, also where the owner said something else of the slots, or nothing. */
static void layouts_follow(void **state) {
    (void)state;
    struct bench t;
    bench_open(&t, true, 16);
    struct kv_seq *a = new_seq(&t), *b = NULL;
    for (int i = 0; i < 10; i++) {
        append(&t, a, i, SPAN_QUESTION);
    }
    OK(kv_fork(a, &b, error));
    OK(kv_keep_slot(a, 4, 7, error));
    assert_int_equal(a->layout.n_spans, 2);
    assert_int_equal(a->layout.spans[0].end, 4);
    assert_true(a->layout.spans[1].kind == SPAN_GENERATED && a->layout.spans[1].end == 5);
    OK(kv_copy_slot(a, b, 9, error));
    assert_true(a->layout.n_spans == 2 && a->layout.spans[1].end == 6);
    layout_truncate(&b->layout, 6); /* the owner left four slots out */
    OK(kv_keep_slot(b, 6, 8, error));
    assert_true(b->layout.n_spans == 2 && b->layout.spans[1].kind == SPAN_GENERATED && b->layout.spans[1].end == 7);
    layout_truncate(&b->layout, 0); /* and then all of them */
    OK(kv_copy_slot(b, b, 2, error));
    assert_int_equal(b->length, 8);
    assert_int_equal(layout_length(&b->layout), 0);
    kv_seq_free(a);
    kv_seq_free(b);
    bench_close(&t);
}

static void slots_outlive_their_sequence(void **state) {
    (void)state;
    for (int f32 = 0; f32 < 2; f32++) {
        struct bench t;
        bench_open(&t, f32, 16);
        assert_int_equal(kv_slot_bytes(t.cache) * KV_BLOCK, kv_block_bytes(t.cache));
        float *saved = device_copy(t.b, NULL, kv_slot_bytes(t.cache) / sizeof(float) + 1);
        struct kv_seq *a = new_seq(&t);
        for (int i = 0; i < 40; i++) {
            append(&t, a, 100 + i, SPAN_GENERATED);
        }
        kv_save_slot(a, 37, saved);
        kv_truncate(a, 31);
        append(&t, a, 7, SPAN_GENERATED);
        OK(kv_append_saved(a, saved, error)); /* the first of a block */
        OK(kv_append_saved(a, saved, error));
        int tokens[34];
        for (int i = 0; i < 34; i++) {
            tokens[i] = i < 31 ? 100 + i : i == 31 ? 7 : 137;
        }
        check_seq(&t, a, tokens, 34);
        kv_seq_free(a);
        t.b->ops->release(t.b, saved);
        bench_close(&t);
    }
}

static void mistakes_change_nothing(void **state) {
    (void)state;
    struct bench t, other;
    bench_open(&t, true, 2);
    bench_open(&other, true, 2);
    struct kv_seq *a = new_seq(&t), *b = NULL, *stranger = new_seq(&other);
    float *saved = device_copy(t.b, NULL, kv_slot_bytes(t.cache) / sizeof(float));
    int tokens[40];
    for (int i = 0; i < 40; i++) {
        tokens[i] = i;
        append(&t, a, i, SPAN_QUESTION);
    }
    candid_error e;
    assert_int_equal(kv_copy_slot(a, a, 40, &e), CANDID_ERROR_ARGUMENT);
    assert_int_equal(kv_copy_slot(a, a, -1, &e), CANDID_ERROR_ARGUMENT);
    assert_int_equal(kv_copy_slot(a, stranger, 0, &e), CANDID_ERROR_INTERNAL);
    assert_int_equal(kv_keep_slot(a, 10, 9, &e), CANDID_ERROR_ARGUMENT);
    assert_int_equal(kv_keep_slot(a, 10, 40, &e), CANDID_ERROR_ARGUMENT);
    assert_int_equal(kv_keep_slot(a, -1, 4, &e), CANDID_ERROR_ARGUMENT);
    check_seq(&t, a, tokens, 40);

    OK(kv_fork(a, &b, error)); /* both blocks are shared, none is free for a copy */
    kv_save_slot(a, 3, saved);
    assert_int_equal(kv_copy_slot(a, b, 0, &e), CANDID_ERROR_CONTEXT);
    assert_int_equal(kv_append_saved(b, saved, &e), CANDID_ERROR_CONTEXT);
    assert_int_equal(kv_keep_slot(b, 10, 12, &e), CANDID_ERROR_CONTEXT);
    check_seq(&t, a, tokens, 40);
    check_seq(&t, b, tokens, 40);
    OK(kv_keep_slot(b, 10, 10, error)); /* only cut */
    check_seq(&t, b, tokens, 11);

    kv_truncate(b, 0);
    OK(kv_reserve(a, 1, error));
    kv_next_slot(a);
    assert_int_equal(kv_copy_slot(a, a, 0, &e), CANDID_ERROR_INTERNAL);
    assert_int_equal(kv_keep_slot(a, 1, 2, &e), CANDID_ERROR_ARGUMENT);
    kv_abandon(a);
    check_seq(&t, a, tokens, 40);
    kv_seq_free(a);
    kv_seq_free(b);
    kv_seq_free(stranger);
    t.b->ops->release(t.b, saved);
    bench_close(&t);
    bench_close(&other);
}

/* ---- all of them, at random --------------------------------------------------------------------- */

enum { SEQS = 7, MAX = 170, BLOCKS = 24, STEPS = 10000, SAVED = 3 };

struct walk {
    struct bench t;
    struct kv_seq *seq[SEQS];
    int token[SEQS][MAX], length[SEQS];
    float *saved[SAVED];
    int saved_token[SAVED]; /* -1: none yet */
    uint64_t random;
    int tokens, full, done[9];
};

static int draw(struct walk *w, int n) { /* 0 .. n-1 */
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return (int)((w->random >> 33) % (uint64_t)n);
}

/* A fork into a free place, cut anywhere. */
static void walk_fork(struct walk *w, int i, int to, bool cut) {
    if (w->seq[to]) {
        return;
    }
    const int n = cut ? draw(w, w->length[i] + 1) : w->length[i];
    OK(cut ? kv_fork_at(w->seq[i], n, &w->seq[to], error) : kv_fork(w->seq[i], &w->seq[to], error));
    memcpy(w->token[to], w->token[i], sizeof w->token[i]);
    w->length[to] = n;
}

/* Notes a token that an operation appended, or that the cache was full. */
static void walk_appended(struct walk *w, int i, int token, candid_status status) {
    assert_true(status == CANDID_OK || status == CANDID_ERROR_CONTEXT);
    if (status == CANDID_OK) {
        w->token[i][w->length[i]++] = token;
    } else {
        w->full++;
    }
}

static void walk_keep(struct walk *w, int i) {
    const int last = w->length[i] - 1, back = draw(w, 40);
    const int n = draw(w, 4) ? (last > back ? last - back : 0) : draw(w, last + 1);
    const int from = n + draw(w, last - n + 1);
    const candid_status status = kv_keep_slot(w->seq[i], n, from, NULL);
    assert_true(status == CANDID_OK || status == CANDID_ERROR_CONTEXT);
    w->full += status != CANDID_OK;
    if (status == CANDID_OK) {
        w->token[i][n] = w->token[i][from];
        w->length[i] = n + 1;
    }
}

static void walk_step(struct walk *w) {
    const int i = draw(w, SEQS), j = draw(w, SEQS), slot = draw(w, SAVED), action = draw(w, 18);
    struct kv_seq *seq = w->seq[i];
    if (!seq) {
        w->seq[i] = new_seq(&w->t);
        w->length[i] = 0;
        return;
    }
    const int n = w->length[i];
    w->done[action < 9 ? action : 8]++;
    if (action == 0) {
        kv_seq_free(seq);
        w->seq[i] = NULL;
    } else if (action == 1 || action == 2) {
        walk_fork(w, i, j, action == 2);
    } else if (action == 3) {
        const int to = draw(w, n + 1);
        kv_truncate(seq, to);
        w->length[i] = to;
    } else if (action == 4 && w->seq[j] && w->length[j] > 0 && n < MAX) {
        const int from = draw(w, w->length[j]);
        walk_appended(w, i, w->token[j][from], kv_copy_slot(seq, w->seq[j], from, NULL));
    } else if (action == 5 && n > 0) {
        walk_keep(w, i);
    } else if (action == 6 && n > 0) {
        const int from = draw(w, n);
        kv_save_slot(seq, from, w->saved[slot]);
        w->saved_token[slot] = w->token[i][from];
    } else if (action == 7 && w->saved_token[slot] >= 0 && n < MAX) {
        walk_appended(w, i, w->saved_token[slot], kv_append_saved(seq, w->saved[slot], NULL));
    } else {
        for (int k = draw(w, 25); k > 0 && w->length[i] < MAX; k--) {
            const int token = w->tokens++;
            walk_appended(w, i, token, append(&w->t, seq, token, SPAN_GENERATED));
        }
    }
}

/* Contents, and every block's count is the number of sequences that list it. */
static void walk_check(struct walk *w) {
    int references[BLOCKS] = {0}, used = 0;
    for (int i = 0; i < SEQS; i++) {
        if (w->seq[i]) {
            check_seq(&w->t, w->seq[i], w->token[i], w->length[i]);
            for (int b = 0; b < w->seq[i]->n_blocks; b++) {
                references[w->seq[i]->block_ids[b]]++;
            }
        }
    }
    for (int b = 0; b < BLOCKS; b++) {
        assert_int_equal(references[b], kv_block_refcount(w->t.cache, b));
        used += references[b] > 0;
    }
    assert_int_equal(used, kv_blocks_used(w->t.cache));
}

static void any_order_of_operations(void **state) {
    (void)state;
    for (int f32 = 0; f32 < 2; f32++) {
        struct walk *w = calloc(1, sizeof *w);
        assert_non_null(w);
        w->random = 11;
        bench_open(&w->t, f32, BLOCKS);
        for (int i = 0; i < SAVED; i++) {
            w->saved[i] = device_copy(w->t.b, NULL, kv_slot_bytes(w->t.cache) / sizeof(float) + 1);
            w->saved_token[i] = -1;
        }
        for (int step = 0; step < STEPS; step++) {
            walk_step(w);
            walk_check(w);
        }
        assert_true(w->full > 0 && w->tokens < 1 << 18); /* the cache was full at times */
        for (int action = 0; action < 9; action++) {
            assert_true(w->done[action] > 300);
        }
        for (int i = 0; i < SEQS; i++) {
            kv_seq_free(w->seq[i]);
        }
        for (int i = 0; i < SAVED; i++) {
            w->t.b->ops->release(w->t.b, w->saved[i]);
        }
        bench_close(&w->t);
        free(w);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forks_may_be_shorter),    cmocka_unit_test(one_alternative_is_kept),
        cmocka_unit_test(layouts_follow),          cmocka_unit_test(slots_outlive_their_sequence),
        cmocka_unit_test(mistakes_change_nothing), cmocka_unit_test(any_order_of_operations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
