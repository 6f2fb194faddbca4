/*
 * Paged KV cache. A cache owns blocks of KV_BLOCK tokens (all layers, keys and values); sequences refer to blocks and
 * share them by reference count.
 *
 * The invariant everything rests on: a block is written only while exactly one sequence refers to it. kv_reserve makes
 * the slots it hands out exclusive first (copy on write), so a fork can never change what another sequence sees.
 */
#ifndef CANDID_LM_KV_H
#define CANDID_LM_KV_H

#include "backend/backend.h"
#include "lm/layout.h"

struct kv_cache;

/* A sequence: a list of blocks and a length. Fields are read-only outside kv.c. */
struct kv_seq {
    struct kv_cache *cache;
    int *block_ids; /* [n_blocks] */
    void **blocks;  /* [n_blocks] device memory of each block, for attention rows */
    int n_blocks, capacity;
    int length;  /* tokens stored */
    int pending; /* slots handed out by kv_next_slot and not yet committed */
    /* What each stored position is: maintained by the owner of the sequence, cut and copied here. A position that the
     * functions below add is SPAN_GENERATED, added to the layout here unless it already tells of that position or has
     * not been kept up. */
    struct layout layout;
};

/* max_tokens bounds the tokens of all sequences together, in whole blocks; memory is taken block by block as needed. */
candid_status kv_cache_create(struct backend *backend, const struct kv_shape *shape, int max_tokens,
                              struct kv_cache **out, candid_error *error);
void kv_cache_free(struct kv_cache *cache); /* all sequences must have been freed */

const struct kv_shape *kv_cache_shape(const struct kv_cache *cache);
size_t kv_block_bytes(const struct kv_cache *cache);
int kv_blocks_used(const struct kv_cache *cache); /* blocks some sequence refers to */
int kv_block_refcount(const struct kv_cache *cache, int block_id);

candid_status kv_seq_create(struct kv_cache *cache, struct kv_seq **out, candid_error *error);
void kv_seq_free(struct kv_seq *seq);
/* The same, but one that has another owner, `borrowed`, is only emptied. */
void kv_seq_drop(struct kv_seq *seq, const struct kv_seq *borrowed);

/* A second sequence with the same content; no tokens are copied. */
candid_status kv_fork(const struct kv_seq *seq, struct kv_seq **out, candid_error *error);

/* The same of the first `length` tokens; longer lengths are cut to what is stored. kv_fork is the case of all. */
candid_status kv_fork_at(const struct kv_seq *seq, int length, struct kv_seq **out, candid_error *error);

/* Forgets everything from position `length` on; longer lengths are ignored. */
void kv_truncate(struct kv_seq *seq, int length);

/* Makes the `n` slots after the stored tokens writable: allocates blocks, copies a shared last block. Fails with
 * CANDID_ERROR_CONTEXT when the cache is full, leaving content and length as they were. */
candid_status kv_reserve(struct kv_seq *seq, int n, candid_error *error);

/* The next reserved slot; it becomes part of the sequence at kv_commit. */
int kv_next_slot(struct kv_seq *seq);
void kv_commit(struct kv_seq *seq);
void kv_abandon(struct kv_seq *seq); /* gives handed-out slots back instead */

/*
 * Slots: the keys and values of one token, all layers and heads. Keys are stored as rotated, so a slot that is moved or
 * copied keeps the RoPE position it was computed with. These functions commit what they append; no slots may be
 * pending. On failure nothing changes.
 */

/* Appends to `to` a copy of the slot at from_index of `from`, the same or another sequence of the same cache. */
candid_status kv_copy_slot(struct kv_seq *to, const struct kv_seq *from, int from_index, candid_error *error);

/* The sequence becomes its first `length` tokens and the slot at from_index >= length, which moves to `length`: of
 * several alternatives (struct forward_row) one is kept. */
candid_status kv_keep_slot(struct kv_seq *seq, int length, int from_index, candid_error *error);

/* A slot in plain device memory, kv_slot_bytes() long: [n_layer][K, V][n_head_kv][head_dim]. index < seq->length. */
size_t kv_slot_bytes(const struct kv_cache *cache);
void kv_save_slot(const struct kv_seq *seq, int index, void *device);
/* Appends a saved slot. */
candid_status kv_append_saved(struct kv_seq *seq, const void *device, candid_error *error);

#endif
