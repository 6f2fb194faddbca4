/* Paged KV cache: fork, truncate, copy on write; a random walk against a plain model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "lm/kv.h"

static struct backend *backend;
static const struct kv_shape shape = {.n_layer = 2, .n_head_kv = 2, .head_dim = 8, .f32 = true};

static int setup(void **state) {
    (void)state;
    return backend_cpu_create(CANDID_PRECISION_EXACT, 1, NULL, &backend, NULL);
}

static int teardown(void **state) {
    (void)state;
    backend_destroy(backend);
    return 0;
}

/* Appends one token whose keys and values in every layer and head hold `tag`. */
static candid_status append(struct kv_seq *seq, float tag, candid_error *error) {
    candid_status status = kv_reserve(seq, 1, error);
    if (status != CANDID_OK) {
        return status;
    }
    float row[16];
    for (int i = 0; i < 16; i++) {
        row[i] = tag;
    }
    struct attention_row view = {.blocks = seq->blocks, .index = kv_next_slot(seq)};
    view.n_keys = view.index + 1;
    for (int layer = 0; layer < shape.n_layer; layer++) {
        struct kv_attention a = {.shape = &shape, .layer = layer, .n_head = 2, .rows = &view, .n_rows = 1, .scale = 1};
        backend->ops->kv_store(backend, &a, row, row);
    }
    kv_commit(seq);
    layout_append(&seq->layout, SPAN_GENERATED, 1, -1, 0, 0, NULL);
    return CANDID_OK;
}

/* The tag of a stored token, from the last value of the last head of the last layer; checks the first one too. */
static float tag_at(const struct kv_seq *seq, int position) {
    const float *block = seq->blocks[position / KV_BLOCK];
    const size_t page = (size_t)KV_BLOCK * 8, slot = (size_t)(position % KV_BLOCK) * 8;
    const float *last = block + 7 * page + slot; /* layer 1, value, head 1 */
    assert_true(block[slot] == last[7]);
    return last[7];
}

static void fork_shares_and_copies_on_write(void **state) {
    (void)state;
    struct kv_cache *cache;
    struct kv_seq *a, *b;
    assert_int_equal(kv_cache_create(backend, &shape, 8 * KV_BLOCK, &cache, NULL), CANDID_OK);
    assert_int_equal(kv_seq_create(cache, &a, NULL), CANDID_OK);
    for (int i = 0; i < KV_BLOCK + 3; i++) {
        assert_int_equal(append(a, (float)i, NULL), CANDID_OK);
    }
    assert_int_equal(kv_fork(a, &b, NULL), CANDID_OK);
    assert_int_equal(kv_blocks_used(cache), 2);
    assert_int_equal(kv_block_refcount(cache, a->block_ids[1]), 2);

    assert_int_equal(append(b, 1000, NULL), CANDID_OK);
    assert_int_equal(kv_blocks_used(cache), 3); /* the last block was copied, the full one is still shared */
    assert_ptr_equal(a->blocks[0], b->blocks[0]);
    assert_ptr_not_equal(a->blocks[1], b->blocks[1]);
    assert_int_equal(append(a, 2000, NULL), CANDID_OK);
    assert_true(tag_at(a, KV_BLOCK + 3) == 2000 && tag_at(b, KV_BLOCK + 3) == 1000);
    assert_true(tag_at(b, KV_BLOCK + 2) == KV_BLOCK + 2);

    kv_seq_free(a);
    assert_true(tag_at(b, 0) == 0); /* what the other sequence still needs stays */
    assert_int_equal(kv_blocks_used(cache), 2);
    kv_seq_free(b);
    assert_int_equal(kv_blocks_used(cache), 0);
    kv_cache_free(cache);
}

static void truncate_in_a_shared_block_keeps_the_other(void **state) {
    (void)state;
    struct kv_cache *cache;
    struct kv_seq *a, *b;
    assert_int_equal(kv_cache_create(backend, &shape, 8 * KV_BLOCK, &cache, NULL), CANDID_OK);
    assert_int_equal(kv_seq_create(cache, &a, NULL), CANDID_OK);
    for (int i = 0; i < 10; i++) {
        append(a, (float)i, NULL);
    }
    assert_int_equal(kv_fork(a, &b, NULL), CANDID_OK);
    kv_truncate(b, 4);
    assert_int_equal(b->length, 4);
    assert_int_equal(layout_length(&b->layout), 4);
    append(b, 77, NULL);
    assert_true(tag_at(a, 4) == 4 && tag_at(b, 4) == 77 && tag_at(b, 3) == 3);
    kv_truncate(b, 100); /* longer than it is: nothing happens */
    assert_int_equal(b->length, 5);
    kv_truncate(a, -1);
    assert_int_equal(a->length, 0);
    kv_seq_free(a);
    kv_seq_free(b);
    kv_cache_free(cache);
}

static void a_full_cache_is_an_error_and_changes_nothing(void **state) {
    (void)state;
    struct kv_cache *cache;
    struct kv_seq *a, *b;
    candid_error error;
    assert_int_equal(kv_cache_create(backend, &shape, 0, &cache, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(kv_cache_create(backend, &shape, KV_BLOCK, &cache, NULL), CANDID_OK);
    assert_int_equal(kv_seq_create(cache, &a, NULL), CANDID_OK);
    assert_int_equal(kv_reserve(a, KV_BLOCK + 1, &error), CANDID_ERROR_CONTEXT);
    assert_non_null(strstr(error.message, "full"));
    assert_int_equal(kv_blocks_used(cache), 0); /* what it could have had is there for others */
    for (int i = 0; i < 5; i++) {
        append(a, (float)i, NULL);
    }
    assert_int_equal(kv_fork(a, &b, NULL), CANDID_OK);
    assert_int_equal(append(b, 9, &error), CANDID_ERROR_CONTEXT); /* no block for the copy */
    assert_int_equal(b->length, 5);
    assert_true(tag_at(b, 4) == 4);
    kv_seq_free(b);
    assert_int_equal(append(a, 5, NULL), CANDID_OK); /* alone again: no copy needed */
    kv_seq_free(a);
    kv_cache_free(cache);
}

/* A request that fails or is abandoned leaves no block with the sequence. */
static void unused_blocks_go_back(void **state) {
    (void)state;
    struct kv_cache *cache;
    struct kv_seq *a, *b;
    assert_int_equal(kv_cache_create(backend, &shape, 4 * KV_BLOCK, &cache, NULL), CANDID_OK);
    assert_int_equal(kv_seq_create(cache, &a, NULL), CANDID_OK);
    assert_int_equal(kv_seq_create(cache, &b, NULL), CANDID_OK);
    append(a, 1, NULL);
    assert_int_equal(kv_reserve(a, 3 * KV_BLOCK, NULL), CANDID_OK);
    assert_int_equal(kv_blocks_used(cache), 4);
    assert_int_equal(kv_reserve(b, 1, NULL), CANDID_ERROR_CONTEXT);
    kv_abandon(a);
    assert_int_equal(kv_blocks_used(cache), 1);
    assert_int_equal(kv_reserve(a, 10 * KV_BLOCK, NULL), CANDID_ERROR_CONTEXT);
    assert_int_equal(kv_blocks_used(cache), 1);
    assert_int_equal(append(b, 2, NULL), CANDID_OK);
    assert_true(tag_at(a, 0) == 1);
    kv_seq_free(a);
    kv_seq_free(b);
    kv_cache_free(cache);
}

/* The layout of a prompt may be set before its tokens are there; cutting and forking speak of the tokens. */
static void the_layout_never_outlives_its_tokens(void **state) {
    (void)state;
    struct kv_cache *cache;
    struct kv_seq *a, *b;
    assert_int_equal(kv_cache_create(backend, &shape, 4 * KV_BLOCK, &cache, NULL), CANDID_OK);
    assert_int_equal(kv_seq_create(cache, &a, NULL), CANDID_OK);
    assert_int_equal(layout_append(&a->layout, SPAN_QUESTION, 50, -1, 0, 0, NULL), CANDID_OK);
    for (int i = 0; i < 10; i++) {
        append(a, (float)i, NULL);
    }
    assert_int_equal(kv_fork(a, &b, NULL), CANDID_OK);
    assert_int_equal(layout_length(&b->layout), 10);
    kv_truncate(a, 10);
    assert_int_equal(layout_length(&a->layout), 10);
    kv_truncate(a, 20);
    assert_int_equal(a->length, 10);
    kv_seq_free(a);
    kv_seq_free(b);
    kv_cache_free(cache);
}

#define SEQS 6
#define MAX  200

/* Random forks, truncations, appends and deaths; every sequence must at all times read back exactly what was put in it,
 * and every block's reference count must be the number of sequences that list it. */
static void random_walk_against_a_plain_model(void **state) {
    (void)state;
    struct kv_cache *cache;
    assert_int_equal(kv_cache_create(backend, &shape, 14 * KV_BLOCK, &cache, NULL), CANDID_OK);
    struct kv_seq *seqs[SEQS] = {0};
    static float model[SEQS][MAX];
    int length[SEQS] = {0};
    unsigned random = 7;
    int full = 0;
    for (int step = 0; step < 20000; step++) {
        random = random * 1664525u + 1013904223u;
        const int i = (int)(random >> 8) % SEQS, j = (int)(random >> 12) % SEQS, action = (int)(random >> 20) % 16;
        if (!seqs[i]) {
            assert_int_equal(kv_seq_create(cache, &seqs[i], NULL), CANDID_OK);
            length[i] = 0;
        } else if (action == 0) {
            kv_seq_free(seqs[i]);
            seqs[i] = NULL;
        } else if (action == 1 && !seqs[j]) {
            assert_int_equal(kv_fork(seqs[i], &seqs[j], NULL), CANDID_OK);
            memcpy(model[j], model[i], sizeof model[i]);
            length[j] = length[i];
        } else if (action == 2) {
            const int to = length[i] ? (int)(random >> 4) % (length[i] + 1) : 0;
            kv_truncate(seqs[i], to);
            length[i] = to < length[i] ? to : length[i];
        } else {
            for (int n = (int)(random >> 16) % 40; n > 0 && length[i] < MAX; n--) {
                if (append(seqs[i], (float)(step * 64 + n), NULL) != CANDID_OK) {
                    full++;
                    break;
                }
                model[i][length[i]++] = (float)(step * 64 + n);
            }
        }
        if (step % 50 == 0) {
            int references[14] = {0}, used = 0;
            for (int s = 0; s < SEQS; s++) {
                if (!seqs[s]) {
                    continue;
                }
                assert_int_equal(seqs[s]->length, length[s]);
                assert_int_equal(layout_length(&seqs[s]->layout), length[s]);
                for (int t = 0; t < length[s]; t++) {
                    assert_true(tag_at(seqs[s], t) == model[s][t]);
                }
                for (int k = 0; k < seqs[s]->n_blocks; k++) {
                    references[seqs[s]->block_ids[k]]++;
                }
            }
            for (int k = 0; k < 14; k++) {
                assert_int_equal(references[k], kv_block_refcount(cache, k));
                used += references[k] > 0;
            }
            assert_int_equal(used, kv_blocks_used(cache));
        }
    }
    assert_true(full > 0); /* the walk did meet a full cache */
    for (int s = 0; s < SEQS; s++) {
        kv_seq_free(seqs[s]);
    }
    assert_int_equal(kv_blocks_used(cache), 0);
    kv_cache_free(cache);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fork_shares_and_copies_on_write),
        cmocka_unit_test(truncate_in_a_shared_block_keeps_the_other),
        cmocka_unit_test(a_full_cache_is_an_error_and_changes_nothing),
        cmocka_unit_test(unused_blocks_go_back),
        cmocka_unit_test(the_layout_never_outlives_its_tokens),
        cmocka_unit_test(random_walk_against_a_plain_model),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
