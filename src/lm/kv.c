/* Paged KV cache with reference-counted blocks. */
#include "lm/kv.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"

struct kv_cache {
    struct backend *backend;
    struct kv_shape shape;
    size_t block_bytes;
    int max_blocks;
    int n_blocks;  /* blocks that have memory: ids 0 .. n_blocks-1 */
    void **memory; /* [max_blocks] device */
    int *refcount; /* [max_blocks], 0: on the free list */
    int *free_ids; /* [max_blocks] stack */
    int n_free;
};

candid_status kv_cache_create(struct backend *backend, const struct kv_shape *shape, int max_tokens,
                              struct kv_cache **out, candid_error *error) {
    if (max_tokens < 1) {
        return fail(error, CANDID_ERROR_ARGUMENT, "context size: expected at least 1 token, found %d", max_tokens);
    }
    struct kv_cache *cache = calloc(1, sizeof *cache);
    if (!cache) {
        return fail_memory(error, "the KV cache", sizeof *cache);
    }
    cache->backend = backend;
    cache->shape = *shape;
    cache->block_bytes = (size_t)shape->n_layer * 2 * (size_t)shape->n_head_kv * KV_BLOCK * (size_t)shape->head_dim *
                         (shape->f32 ? sizeof(float) : sizeof(uint16_t));
    cache->max_blocks = (max_tokens - 1) / KV_BLOCK + 1;
    size_t n = (size_t)cache->max_blocks;
    cache->memory = calloc(n, sizeof *cache->memory);
    cache->refcount = calloc(n, sizeof *cache->refcount);
    cache->free_ids = calloc(n, sizeof *cache->free_ids);
    if (!cache->memory || !cache->refcount || !cache->free_ids) {
        kv_cache_free(cache);
        return fail_memory(error, "the KV cache's block table", n * sizeof *cache->memory);
    }
    *out = cache;
    return CANDID_OK;
}

void kv_cache_free(struct kv_cache *cache) {
    if (!cache) {
        return;
    }
    for (int i = 0; i < cache->n_blocks; i++) {
        cache->backend->ops->release(cache->backend, cache->memory[i]);
    }
    free(cache->memory);
    free(cache->refcount);
    free(cache->free_ids);
    free(cache);
}

const struct kv_shape *kv_cache_shape(const struct kv_cache *cache) {
    return &cache->shape;
}

size_t kv_block_bytes(const struct kv_cache *cache) {
    return cache->block_bytes;
}

int kv_blocks_used(const struct kv_cache *cache) {
    return cache->n_blocks - cache->n_free;
}

int kv_block_refcount(const struct kv_cache *cache, int block_id) {
    return cache->refcount[block_id];
}

/* A block with reference count 1: a freed one, else new memory. */
static candid_status block_take(struct kv_cache *cache, int *id, candid_error *error) {
    if (cache->n_free > 0) {
        *id = cache->free_ids[--cache->n_free];
    } else if (cache->n_blocks < cache->max_blocks) {
        TRY(cache->backend->ops->alloc(cache->backend, cache->block_bytes, &cache->memory[cache->n_blocks], error));
        *id = cache->n_blocks++;
    } else {
        return fail(error, CANDID_ERROR_CONTEXT, "KV cache is full: all %d blocks of %d tokens are in use",
                    cache->max_blocks, KV_BLOCK);
    }
    cache->refcount[*id] = 1;
    return CANDID_OK;
}

static void block_drop(struct kv_cache *cache, int id) {
    if (--cache->refcount[id] == 0) {
        cache->free_ids[cache->n_free++] = id;
    }
}

candid_status kv_seq_create(struct kv_cache *cache, struct kv_seq **out, candid_error *error) {
    struct kv_seq *seq = calloc(1, sizeof *seq);
    if (!seq) {
        return fail_memory(error, "a sequence", sizeof *seq);
    }
    seq->cache = cache;
    *out = seq;
    return CANDID_OK;
}

void kv_seq_free(struct kv_seq *seq) {
    if (!seq) {
        return;
    }
    for (int i = 0; i < seq->n_blocks; i++) {
        block_drop(seq->cache, seq->block_ids[i]);
    }
    layout_free(&seq->layout);
    free(seq->block_ids);
    free(seq->blocks);
    free(seq);
}

static candid_status seq_grow(struct kv_seq *seq, int n_blocks, candid_error *error) {
    if (n_blocks <= seq->capacity) {
        return CANDID_OK;
    }
    int capacity = n_blocks < 8 ? 8 : n_blocks * 2;
    int *ids = realloc(seq->block_ids, (size_t)capacity * sizeof *ids);
    if (!ids) {
        return fail_memory(error, "a sequence's block list", (size_t)capacity * sizeof *ids);
    }
    seq->block_ids = ids;
    void **blocks = realloc(seq->blocks, (size_t)capacity * sizeof *blocks);
    if (!blocks) {
        return fail_memory(error, "a sequence's block list", (size_t)capacity * sizeof *blocks);
    }
    seq->blocks = blocks;
    seq->capacity = capacity;
    return CANDID_OK;
}

candid_status kv_fork(const struct kv_seq *seq, struct kv_seq **out, candid_error *error) {
    struct kv_seq *copy = NULL;
    TRY(kv_seq_create(seq->cache, &copy, error));
    candid_status status = seq_grow(copy, seq->n_blocks, error);
    if (status == CANDID_OK) {
        status = layout_copy(&copy->layout, &seq->layout, error);
        layout_truncate(&copy->layout, seq->length); /* it may run ahead of the tokens, while a prompt is read */
    }
    if (status != CANDID_OK) {
        kv_seq_free(copy);
        return status;
    }
    /* Blocks beyond the stored tokens (reserved, not committed) stay with the original. */
    copy->n_blocks = (seq->length + KV_BLOCK - 1) / KV_BLOCK;
    for (int i = 0; i < copy->n_blocks; i++) {
        copy->block_ids[i] = seq->block_ids[i];
        copy->blocks[i] = seq->blocks[i];
        seq->cache->refcount[seq->block_ids[i]]++;
    }
    copy->length = seq->length;
    *out = copy;
    return CANDID_OK;
}

/* Drops the blocks from number `keep` on. */
static void drop_blocks(struct kv_seq *seq, int keep) {
    for (int i = keep; i < seq->n_blocks; i++) {
        block_drop(seq->cache, seq->block_ids[i]);
    }
    seq->n_blocks = keep < seq->n_blocks ? keep : seq->n_blocks;
}

void kv_truncate(struct kv_seq *seq, int length) {
    if (length < 0) {
        length = 0;
    }
    seq->length = length < seq->length ? length : seq->length;
    layout_truncate(&seq->layout, seq->length);
    kv_abandon(seq);
}

/* Gives block i of the sequence memory of its own, with the same content. */
static candid_status make_exclusive(struct kv_seq *seq, int i, candid_error *error) {
    struct kv_cache *cache = seq->cache;
    int shared = seq->block_ids[i];
    if (cache->refcount[shared] == 1) {
        return CANDID_OK;
    }
    int own = 0;
    TRY(block_take(cache, &own, error));
    cache->backend->ops->copy(cache->backend, cache->memory[own], cache->memory[shared], cache->block_bytes);
    block_drop(cache, shared);
    seq->block_ids[i] = own;
    seq->blocks[i] = cache->memory[own];
    return CANDID_OK;
}

candid_status kv_reserve(struct kv_seq *seq, int n, candid_error *error) {
    if (n <= 0) {
        return CANDID_OK;
    }
    int first = seq->length / KV_BLOCK;
    int needed = (seq->length + n - 1) / KV_BLOCK + 1;
    TRY(seq_grow(seq, needed, error));
    if (first < seq->n_blocks) {
        TRY(make_exclusive(seq, first, error));
    }
    const int had = seq->n_blocks;
    while (seq->n_blocks < needed) {
        int id = 0;
        const candid_status status = block_take(seq->cache, &id, error);
        if (status != CANDID_OK) { /* a request too large must not starve the other sequences */
            drop_blocks(seq, had);
            return status;
        }
        seq->block_ids[seq->n_blocks] = id;
        seq->blocks[seq->n_blocks] = seq->cache->memory[id];
        seq->n_blocks++;
    }
    return CANDID_OK;
}

int kv_next_slot(struct kv_seq *seq) {
    return seq->length + seq->pending++;
}

void kv_commit(struct kv_seq *seq) {
    seq->length += seq->pending;
    seq->pending = 0;
}

void kv_abandon(struct kv_seq *seq) {
    seq->pending = 0;
    drop_blocks(seq, (seq->length + KV_BLOCK - 1) / KV_BLOCK);
}
