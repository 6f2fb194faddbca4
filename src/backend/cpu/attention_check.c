/* Argument checks and scratch memory common to the reference and the fast attention path. */
#include "backend/cpu/attention_check.h"

#include <stdint.h>
#include <stdlib.h>

#include "backend/cpu/attention_edit.h"
#include "core/status.h"

static candid_status check_head(int n_head, int head_dim, candid_error *error) {
    if (n_head < 1) {
        return fail(error, CANDID_ERROR_ARGUMENT, "attention: expected at least one head, got %d", n_head);
    }
    if (head_dim < 1 || head_dim > ATTENTION_MAX_HEAD_DIM) {
        return fail(error, CANDID_ERROR_ARGUMENT, "attention: expected a head_dim of 1..%d, got %d",
                    ATTENTION_MAX_HEAD_DIM, head_dim);
    }
    return CANDID_OK;
}

candid_status attention_check_kv(const struct kv_attention *a, candid_error *error) {
    const struct kv_shape *s = a->shape;
    TRY(check_head(a->n_head, s->head_dim, error));
    if (s->n_head_kv < 1 || a->n_head % s->n_head_kv != 0) {
        return fail(error, CANDID_ERROR_ARGUMENT, "attention: %d query heads cannot share %d key heads evenly",
                    a->n_head, s->n_head_kv);
    }
    if (a->layer < 0 || a->layer >= s->n_layer) {
        return fail(error, CANDID_ERROR_ARGUMENT, "attention: layer %d is outside the %d layers of the KV cache",
                    a->layer, s->n_layer);
    }
    const bool observed = a->scores_out || a->probs_out;
    for (int i = 0; i < a->n_rows; i++) {
        if (a->rows[i].n_keys < 1) {
            return fail(error, CANDID_ERROR_ARGUMENT, "attention: row %d sees %d keys, expected at least 1", i,
                        a->rows[i].n_keys);
        }
        const struct attention_row *row = &a->rows[i];
        if (row->also_end > 0 && (row->also_begin < row->n_keys || row->also_end <= row->also_begin)) {
            return fail(error, CANDID_ERROR_ARGUMENT, "attention: row %d sees keys 0 to %d and [%d, %d), which overlap",
                        i, row->n_keys - 1, row->also_begin, row->also_end);
        }
        if (observed && attention_row_end(row) > a->max_keys) {
            return fail(error, CANDID_ERROR_ARGUMENT,
                        "attention: row %d sees %d keys, but the observation buffers hold %d per row", i,
                        a->rows[i].n_keys, a->max_keys);
        }
    }
    return CANDID_OK;
}

candid_status attention_check_full(int n_rows, int n_head, int head_dim, candid_error *error) {
    if (n_rows < 0) {
        return fail(error, CANDID_ERROR_ARGUMENT, "attention: got %d rows", n_rows);
    }
    return check_head(n_head, head_dim, error);
}

int attention_threads(int n_threads) {
    return n_threads < 1 ? 1 : n_threads > ATTENTION_MAX_THREADS ? ATTENTION_MAX_THREADS : n_threads;
}

void *attention_alloc(size_t a, size_t b, size_t c) {
    size_t bytes = 0;
    if (__builtin_mul_overflow(a, b, &bytes) || __builtin_mul_overflow(bytes, c, &bytes) || bytes > SIZE_MAX - 64) {
        return NULL;
    }
    return aligned_alloc(64, (bytes + 63) / 64 * 64 + (bytes == 0 ? 64 : 0));
}
