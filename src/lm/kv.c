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

void kv_seq_drop(struct kv_seq *seq, const struct kv_seq *borrowed) {
    if (seq == borrowed) {
        kv_truncate(seq, 0);
    } else {
        kv_seq_free(seq);
    }
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
    return kv_fork_at(seq, seq->length, out, error);
}

candid_status kv_fork_at(const struct kv_seq *seq, int length, struct kv_seq **out, candid_error *error) {
    length = length < 0 ? 0 : length < seq->length ? length : seq->length;
    const int n_blocks = (length + KV_BLOCK - 1) / KV_BLOCK;
    struct kv_seq *copy = NULL;
    TRY(kv_seq_create(seq->cache, &copy, error));
    candid_status status = seq_grow(copy, n_blocks, error);
    if (status == CANDID_OK) {
        status = layout_copy(&copy->layout, &seq->layout, error);
        layout_truncate(&copy->layout, length); /* it may run ahead of the tokens, while a prompt is read */
    }
    if (status != CANDID_OK) {
        kv_seq_free(copy);
        return status;
    }
    /* Blocks beyond the stored tokens (reserved, not committed) stay with the original. */
    copy->n_blocks = n_blocks;
    for (int i = 0; i < copy->n_blocks; i++) {
        copy->block_ids[i] = seq->block_ids[i];
        copy->blocks[i] = seq->blocks[i];
        seq->cache->refcount[seq->block_ids[i]]++;
    }
    copy->length = length;
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

/* ---- slots ------------------------------------------------------------------------------------- */

/* Bytes of one key or value of one head. */
static size_t piece_bytes(const struct kv_cache *cache) {
    return (size_t)cache->shape.head_dim * (cache->shape.f32 ? sizeof(float) : sizeof(uint16_t));
}

static int slot_pieces(const struct kv_cache *cache) {
    return cache->shape.n_layer * 2 * cache->shape.n_head_kv;
}

size_t kv_slot_bytes(const struct kv_cache *cache) {
    return (size_t)slot_pieces(cache) * piece_bytes(cache);
}

/* The first piece of a slot; its others are KV_BLOCK pieces apart. */
static char *slot_at(const struct kv_seq *seq, int index) {
    return (char *)seq->blocks[index / KV_BLOCK] + (size_t)(index % KV_BLOCK) * piece_bytes(seq->cache);
}

static void copy_slot(const struct kv_cache *cache, char *to, size_t to_stride, const char *from, size_t from_stride) {
    cache->backend->ops->copy_strided(cache->backend, to, to_stride, from, from_stride, piece_bytes(cache),
                                      slot_pieces(cache));
}

/* Room for one slot after the stored tokens, told of by the layout. */
static candid_status append_begin(struct kv_seq *seq, candid_error *error) {
    if (seq->pending > 0) {
        return fail(error, CANDID_ERROR_INTERNAL, "KV cache: a slot is appended to a sequence with %d slots pending",
                    seq->pending);
    }
    const bool kept_up = layout_length(&seq->layout) == seq->length;
    if (kept_up) {
        TRY(layout_append(&seq->layout, SPAN_GENERATED, 1, -1, 0, 0, error));
    }
    const candid_status status = kv_reserve(seq, 1, error);
    if (status != CANDID_OK && kept_up) {
        layout_truncate(&seq->layout, seq->length);
    }
    return status;
}

candid_status kv_copy_slot(struct kv_seq *to, const struct kv_seq *from, int from_index, candid_error *error) {
    if (to->cache != from->cache) {
        return fail(error, CANDID_ERROR_INTERNAL, "KV cache: a slot is copied between sequences of different caches");
    }
    if (from_index < 0 || from_index >= from->length) {
        return fail(error, CANDID_ERROR_ARGUMENT, "KV cache: expected a slot from 0 to %d, found %d", from->length - 1,
                    from_index);
    }
    TRY(append_begin(to, error));
    const size_t stride = KV_BLOCK * piece_bytes(to->cache);
    copy_slot(to->cache, slot_at(to, to->length), stride, slot_at(from, from_index), stride);
    to->length++;
    return CANDID_OK;
}

void kv_save_slot(const struct kv_seq *seq, int index, void *device) {
    const size_t piece = piece_bytes(seq->cache);
    copy_slot(seq->cache, device, piece, slot_at(seq, index), KV_BLOCK * piece);
}

candid_status kv_append_saved(struct kv_seq *seq, const void *device, candid_error *error) {
    TRY(append_begin(seq, error));
    const size_t piece = piece_bytes(seq->cache);
    copy_slot(seq->cache, slot_at(seq, seq->length), KV_BLOCK * piece, device, piece);
    seq->length++;
    return CANDID_OK;
}

/* The layout of the first `length` tokens and a generated one, unless it tells of fewer. */
static candid_status keep_generated(struct layout *layout, int length, candid_error *error) {
    if (layout_length(layout) == length) {
        return layout_append(layout, SPAN_GENERATED, 1, -1, 0, 0, error);
    }
    const struct span *at = layout_span_at(layout, length);
    if (!at || at->kind == SPAN_GENERATED) {
        layout_truncate(layout, length + 1);
        return CANDID_OK;
    }
    struct layout kept = {0};
    TRY(layout_copy(&kept, layout, error));
    layout_truncate(&kept, length);
    const candid_status status = layout_append(&kept, SPAN_GENERATED, 1, -1, 0, 0, error);
    if (status != CANDID_OK) {
        layout_free(&kept);
        return status;
    }
    layout_free(layout);
    *layout = kept;
    return CANDID_OK;
}

candid_status kv_keep_slot(struct kv_seq *seq, int length, int from_index, candid_error *error) {
    if (length < 0 || from_index < length || from_index >= seq->length || seq->pending > 0) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "KV cache: expected a slot from %d to %d and none pending, found slot %d and %d pending", length,
                    seq->length - 1, from_index, seq->pending);
    }
    if (from_index > length) {
        TRY(make_exclusive(seq, length / KV_BLOCK, error));
    }
    TRY(keep_generated(&seq->layout, length, error));
    if (from_index > length) {
        const size_t stride = KV_BLOCK * piece_bytes(seq->cache);
        copy_slot(seq->cache, slot_at(seq, length), stride, slot_at(seq, from_index), stride);
    }
    kv_truncate(seq, length + 1);
    return CANDID_OK;
}
