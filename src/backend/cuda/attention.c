/* Attention ops: slices of rows through the steps of attention.h. */
#include "backend/cuda/attention.h"

#include <stdlib.h>
#include <string.h>

#include "backend/cpu/attention_check.h"
#include "backend/cuda/call.h"
#include "backend/cuda/internal.h"
#include "core/status.h"

/* Where the keys of a slice stand for products: (n_head_kv, end, head_dim), or rows of several heads. */
struct product_keys {
    const void *k, *v;
    enum cuda_float type;
    int row;        /* elements from one key to the next */
    long long head; /* from one head's first key to the next head's */
};

void cuda_op_kv_store(struct backend *b, const struct kv_attention *a, const float *k, const float *v) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    struct attention_call call;
    candid_error error;
    const candid_status status = call_begin(c, a, CALL_STORE, NULL, &call, &error);
    if (status != CANDID_OK) {
        if (c->failed == CANDID_OK) {
            c->failed = status;
            c->failure = error;
        }
        return;
    }
    cuda_kv_store(c->stream, &call.a, k, v, a->n_rows);
    call_free(&call);
}

/* ---- products ----------------------------------------------------------------------------------- */

/* One product for each query head, in batches: over the key heads, or over the heads that share one. */
static candid_status head_products(struct cuda_backend *c, const struct cuda_attention *a,
                                   const struct blas_product *of_head, const struct product_keys *keys, const void *k,
                                   long long b_head, long long c_head, candid_error *error) {
    const int group = a->n_head / a->n_head_kv;
    const bool over_groups = a->n_head_kv <= group;
    const int n_calls = over_groups ? a->n_head_kv : group;
    const size_t element = of_head->type == CUDA_F32 ? sizeof(float) : sizeof(uint16_t);
    for (int i = 0; i < n_calls; i++) {
        struct blas_product p = *of_head;
        const long long first = over_groups ? (long long)i * group : i; /* query head */
        p.a = (const char *)k + (over_groups ? (size_t)i * (size_t)keys->head * element : 0);
        p.b = (const char *)of_head->b + (size_t)(first * b_head) * element;
        p.c = of_head->c + first * c_head;
        p.stride_a = over_groups ? 0 : keys->head;
        p.stride_b = over_groups ? b_head : b_head * group;
        p.stride_c = over_groups ? c_head : c_head * group;
        p.batch = over_groups ? group : a->n_head_kv;
        TRY(cuda_blas_product(c->blas, &p, error));
    }
    return CANDID_OK;
}

/* Scores of all keys 0 .. s->end-1, seen or not. q: (rows of the call, n_head*head_dim) in the type of the keys. */
static candid_status product_scores(struct cuda_backend *c, const struct cuda_attention *a, const struct cuda_slice *s,
                                    const struct product_keys *keys, const void *q, candid_error *error) {
    const size_t element = keys->type == CUDA_F32 ? sizeof(float) : sizeof(uint16_t);
    const int width = a->n_head * a->head_dim;
    const struct blas_product p = {.transpose_a = true,
                                   .m = s->end,
                                   .n = s->n_rows,
                                   .k = a->head_dim,
                                   .alpha = a->scale,
                                   .type = keys->type,
                                   .b = (const char *)q + (size_t)s->first * (size_t)width * element,
                                   .c = s->scores,
                                   .lda = keys->row,
                                   .ldb = width,
                                   .ldc = a->n_head * s->stride};
    return head_products(c, a, &p, keys, keys->k, a->head_dim, s->stride, error);
}

/* probs: laid out like the scores, in the type of the keys. */
static candid_status product_values(struct cuda_backend *c, const struct cuda_attention *a, const struct cuda_slice *s,
                                    const struct product_keys *keys, const void *probs, float *out,
                                    candid_error *error) {
    const int width = a->n_head * a->head_dim;
    const struct blas_product p = {.m = a->head_dim,
                                   .n = s->n_rows,
                                   .k = s->end,
                                   .alpha = 1.0f,
                                   .type = keys->type,
                                   .b = probs,
                                   .c = out + (size_t)s->first * (size_t)width,
                                   .lda = keys->row,
                                   .ldb = a->n_head * s->stride,
                                   .ldc = width};
    return head_products(c, a, &p, keys, keys->v, s->stride, a->head_dim, error);
}

/* The keys of a slice's sequence one after the other. They are gathered anew for every slice; a prompt is one slice. */
static candid_status gather_keys(struct cuda_backend *c, const struct cuda_attention *a, const struct cuda_slice *s,
                                 struct product_keys *out, candid_error *error) {
    const size_t element = a->f32 ? sizeof(float) : sizeof(uint16_t);
    const size_t bytes = (size_t)a->n_head_kv * (size_t)s->end * (size_t)a->head_dim * element;
    const size_t padded = (bytes + 255) / 256 * 256;
    TRY(cuda_room(c, &c->kv, 2 * padded, "keys and values of a prompt", error));
    *out = (struct product_keys){.k = c->kv.memory,
                                 .v = (char *)c->kv.memory + padded,
                                 .type = a->f32 ? CUDA_F32 : CUDA_F16,
                                 .row = a->head_dim,
                                 .head = (long long)s->end * a->head_dim};
    cuda_gather(c->stream, a, s->first, s->end, c->kv.memory, (char *)c->kv.memory + padded);
    return CANDID_OK;
}

/* Rows of x (n_rows, width) in the type of the keys. */
static candid_status typed_rows(struct cuda_backend *c, struct cuda_room *room, const float *x, int n_rows, int width,
                                enum cuda_float type, const void **out, candid_error *error) {
    *out = x;
    if (type != CUDA_F32) {
        const size_t n = (size_t)n_rows * (size_t)width;
        TRY(cuda_room(c, room, n * sizeof(uint16_t), "queries in f16", error));
        cuda_to_f16(c->stream, room->memory, x, n);
        *out = room->memory;
    }
    return CANDID_OK;
}

/* ---- slices ------------------------------------------------------------------------------------- */

/* Copies a slice's rows of scores or probabilities to an observer's buffer (n_rows, n_head, max_keys). */
static candid_status show(struct cuda_backend *c, const struct kv_attention *a, const struct cuda_slice *s, float *to,
                          candid_error *error) {
    for (int r = s->first; to && r < s->first + s->n_rows; r++) {
        const size_t from = (size_t)(r - s->first) * (size_t)a->n_head * (size_t)s->stride;
        const size_t at = (size_t)r * (size_t)a->n_head * (size_t)a->max_keys;
        const size_t n = (size_t)attention_row_end(&a->rows[r]) * sizeof(float);
        cuda_note(c,
                  cudaMemcpy2DAsync(to + at, (size_t)a->max_keys * sizeof(float), s->scores + from,
                                    (size_t)s->stride * sizeof(float), n, (size_t)a->n_head, cudaMemcpyDeviceToHost,
                                    c->stream),
                  "showing attention");
    }
    return to ? cuda_wait(c, "showing attention", error) : CANDID_OK;
}

static candid_status scores_room(struct cuda_backend *c, const struct cuda_attention *a, struct cuda_slice *s,
                                 candid_error *error) {
    s->stride = slice_stride(s->end);
    TRY(cuda_room(c, &c->scores, (size_t)s->n_rows * (size_t)a->n_head * (size_t)s->stride * sizeof(float),
                  "attention scores", error));
    s->scores = c->scores.memory;
    return CANDID_OK;
}

/* Scores to edited probabilities, with everything that looks at them. keys: NULL, or f16 wants halves. */
static candid_status edit_slice(struct cuda_backend *c, const struct attention_call *call, const struct call_slice *of,
                                const struct cuda_slice *s, const struct product_keys *keys, candid_error *error) {
    const struct cuda_attention *a = &call->a;
    const size_t n = (size_t)s->n_rows * (size_t)a->n_head * (size_t)s->stride;
    uint16_t *halves = NULL;
    if (keys && keys->type == CUDA_F16) {
        TRY(cuda_room(c, &c->halves, n * sizeof(uint16_t), "attention probabilities in f16", error));
        halves = c->halves.memory;
    }
    if (of->before) {
        TRY(cuda_room(c, &c->before, n * sizeof(float), "attention probabilities before edits", error));
        cuda_probs_before(c->stream, a, s, c->before.memory);
    }
    if (of->shuffle) {
        TRY(cuda_room(c, &c->spare, n * sizeof(float), "attention probabilities to shuffle", error));
    }
    enum cuda_stage stage = CUDA_WHOLE;
    if (of->mean) {
        TRY(cuda_room(c, &c->mean, (size_t)s->n_rows * (size_t)s->stride * sizeof(float), "mean scores", error));
        cuda_probs(c->stream, a, s, CUDA_UP_TO_MEAN, NULL, NULL, c->moved.memory, NULL);
        cuda_mean_abs(c->stream, a, s, c->mean.memory);
        stage = CUDA_FROM_MEAN;
    }
    cuda_probs(c->stream, a, s, stage, of->mean ? c->mean.memory : NULL, of->shuffle ? c->spare.memory : NULL,
               c->moved.memory, halves);
    if (of->n_probes > 0) {
        cuda_reduce_probes(c->stream, a, s, c->before.memory, call->probes + of->first_probe, of->n_probes,
                           c->values.memory);
    }
    return CANDID_OK;
}

/* A slice up to its probabilities, in *s; *keys is filled for products, whose q is in *typed_q. */
static candid_status slice_probs(struct cuda_backend *c, const struct attention_call *call, const struct call_slice *of,
                                 const struct kv_attention *host, const float *q, struct cuda_slice *s,
                                 struct product_keys *keys, candid_error *error) {
    const struct cuda_attention *a = &call->a;
    *s = (struct cuda_slice){.first = of->first, .n_rows = of->n_rows, .end = of->end};
    TRY(scores_room(c, a, s, error));
    if (of->kind == SLICE_PRODUCTS) {
        const void *typed_q = NULL;
        const int width = a->n_head * a->head_dim;
        TRY(gather_keys(c, a, s, keys, error));
        TRY(typed_rows(c, &c->q, q, host->n_rows, width, keys->type, &typed_q, error));
        TRY(product_scores(c, a, s, keys, typed_q, error));
    } else {
        cuda_scores(c->stream, a, s, q, of->first_tile, of->n_tiles);
    }
    TRY(show(c, host, s, host->scores_out, error));
    TRY(edit_slice(c, call, of, s, of->kind == SLICE_PRODUCTS ? keys : NULL, error));
    return show(c, host, s, host->probs_out, error);
}

static candid_status attend_slice(struct cuda_backend *c, const struct attention_call *call,
                                  const struct call_slice *of, const struct kv_attention *host, const float *q,
                                  float *out, candid_error *error) {
    const struct cuda_attention *a = &call->a;
    if (of->kind == SLICE_DECODE) {
        struct cuda_attention rows = *a;
        const size_t at = (size_t)of->first * (size_t)a->n_head * (size_t)a->head_dim;
        rows.rows += of->first;
        TRY(cuda_room(c, &c->partial, cuda_decode_floats(a, of->n_rows, of->end) * sizeof(float), "parts of attention",
                      error));
        cuda_decode(c->stream, &rows, q + at, out + at, c->partial.memory, of->n_rows, of->end);
        return CANDID_OK;
    }
    struct cuda_slice s;
    struct product_keys keys;
    TRY(slice_probs(c, call, of, host, q, &s, &keys, error));
    if (of->kind == SLICE_PRODUCTS) {
        return product_values(c, a, &s, &keys, keys.type == CUDA_F32 ? (const void *)s.scores : c->halves.memory, out,
                              error);
    }
    TRY(cuda_room(c, &c->partial, cuda_values_floats(a, s.n_rows, s.end) * sizeof(float), "parts of attention", error));
    cuda_values(c->stream, a, &s, c->partial.memory, out, of->first_tile, of->n_tiles);
    return CANDID_OK;
}

/* What edits have moved and probes have seen, to where the rows want it. The one place where a layer waits. */
static candid_status hand_back(struct cuda_backend *c, const struct attention_call *call, const struct kv_attention *a,
                               candid_error *error) {
    const size_t n_head = (size_t)a->n_head, n_moved = (size_t)call->n_edits * n_head;
    if (n_moved + call->n_values == 0) {
        return CANDID_OK;
    }
    float *host = malloc((n_moved + call->n_values) * sizeof *host);
    if (!host) {
        return fail_memory(error, "what edits have moved", (n_moved + call->n_values) * sizeof *host);
    }
    if (n_moved > 0) {
        cuda_note(c, cudaMemcpyAsync(host, c->moved.memory, n_moved * sizeof *host, cudaMemcpyDeviceToHost, c->stream),
                  "fetching what edits have moved");
    }
    if (call->n_values > 0) {
        cuda_note(c,
                  cudaMemcpyAsync(host + n_moved, c->values.memory, call->n_values * sizeof *host,
                                  cudaMemcpyDeviceToHost, c->stream),
                  "fetching what probes have seen");
    }
    const candid_status status = cuda_wait(c, "attention", error);
    const float *moved = host, *values = host + n_moved;
    for (int i = 0; status == CANDID_OK && i < a->n_rows; i++) {
        const struct attention_row *row = &a->rows[i];
        if (row->edits) {
            const size_t n = (size_t)row->edits->n_edits * n_head;
            memcpy(row->edits->moved, moved, n * sizeof *moved);
            moved += n;
        }
        for (int k = 0; k < row->n_probes; k++) {
            const size_t n = (size_t)attention_row_end(row);
            memcpy(row->probes[k].values, values, n * sizeof *values);
            values += n;
        }
    }
    free(host);
    return status;
}

candid_status cuda_kv_attend(struct backend *b, const struct kv_attention *a, const float *q, float *out,
                             candid_error *error) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    TRY(attention_check_kv(a, error));
    const bool observed = a->scores_out || a->probs_out;
    struct attention_call call;
    candid_status status;
    TRY_GOTO(call_begin(c, a, observed ? CALL_OBSERVE : CALL_ATTEND, NULL, &call, error), status, done);
    TRY_GOTO(cuda_room(c, &c->moved, (size_t)call.n_edits * (size_t)a->n_head * sizeof(float), "edits", error), status,
             done);
    TRY_GOTO(cuda_room(c, &c->values, call.n_values * sizeof(float), "probes", error), status, done);
    for (int i = 0; i < call.n_slices; i++) {
        TRY_GOTO(attend_slice(c, &call, &call.slices[i], a, q, out, error), status, done);
    }
    TRY_GOTO(hand_back(c, &call, a, error), status, done);
    status = cuda_settle(c, error);
done:
    call_free(&call);
    return status;
}

candid_status cuda_kv_columns(struct backend *b, const struct kv_attention *a, const float *q, const uint8_t *heads,
                              float *sums, candid_error *error) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    TRY(attention_check_kv(a, error));
    const size_t bytes = (size_t)a->n_head * (size_t)a->max_keys * sizeof *sums;
    struct attention_call call;
    candid_status status;
    TRY_GOTO(call_begin(c, a, CALL_COLUMNS, heads, &call, error), status, done);
    TRY_GOTO(cuda_room(c, &c->columns, bytes, "attention columns", error), status, done);
    cuda_note(c, cudaMemsetAsync(c->columns.memory, 0, bytes, c->stream), "clearing attention columns");
    for (int i = 0; i < call.n_slices; i++) {
        struct cuda_slice s;
        struct product_keys keys;
        TRY_GOTO(slice_probs(c, &call, &call.slices[i], a, q, &s, &keys, error), status, done);
        cuda_add_columns(c->stream, &call.a, &s, call.heads, c->columns.memory, a->max_keys);
    }
    cuda_note(c, cudaMemcpyAsync(sums, c->columns.memory, bytes, cudaMemcpyDeviceToHost, c->stream),
              "fetching attention columns");
    status = cuda_wait(c, "attention columns", error);
done:
    call_free(&call);
    return status;
}

/* ---- the image encoder -------------------------------------------------------------------------- */

/* n_queries rows of q over all n_rows rows of k and v. probs: host (n_queries, n_head, n_rows) or NULL; out may be NULL
 * where only they are wanted. */
static candid_status attend_rows(struct cuda_backend *c, const float *q, int n_queries, const float *k, const float *v,
                                 float *out, int n_rows, int n_head, int head_dim, float scale, float *probs,
                                 candid_error *error) {
    struct attention_call call = {.a = {.k = k,
                                        .v = v,
                                        .n_keys = n_rows,
                                        .n_head = n_head,
                                        .n_head_kv = n_head,
                                        .head_dim = head_dim,
                                        .scale = scale}};
    const struct cuda_attention *a = &call.a;
    const bool products = !c->exact && !probs && n_queries >= CUDA_FEW_ROWS;
    const int width = n_head * head_dim, stride = slice_stride(n_rows);
    const size_t values = (size_t)(n_rows / KV_BLOCK + 1) * (size_t)head_dim * sizeof(float);
    const size_t of_row = (size_t)n_head * ((size_t)stride * 6 + (products ? 0 : values));
    const int fit = (int)(CALL_SLICE_BYTES / of_row / CUDA_TILE_ROWS), most = (fit < 1 ? 1 : fit) * CUDA_TILE_ROWS;
    struct product_keys keys = {.type = CUDA_F16, .row = width, .head = head_dim};
    const void *typed_q = q;
    if (products) {
        const size_t n = (size_t)n_rows * (size_t)width, padded = (n * sizeof(uint16_t) + 255) / 256 * 256;
        TRY(cuda_room(c, &c->kv, 2 * padded, "keys and values of an image", error));
        keys.k = c->kv.memory;
        keys.v = (char *)c->kv.memory + padded;
        cuda_to_f16(c->stream, c->kv.memory, k, n);
        cuda_to_f16(c->stream, (uint16_t *)keys.v, v, n);
        TRY(typed_rows(c, &c->q, q, n_queries, width, CUDA_F16, &typed_q, error));
    } else {
        const int n_tiles = (n_queries - 1) / CUDA_TILE_ROWS + 1;
        struct cuda_tile *tiles = malloc((size_t)n_tiles * sizeof *tiles);
        if (!tiles) {
            return fail_memory(error, "attention tiles", (size_t)n_tiles * sizeof *tiles);
        }
        for (int i = 0; i < n_tiles; i++) {
            const int first = i * CUDA_TILE_ROWS, left = n_queries - first;
            tiles[i] = (struct cuda_tile){first, left < CUDA_TILE_ROWS ? left : CUDA_TILE_ROWS};
        }
        call.a.tiles = cuda_stage(c, tiles, (size_t)n_tiles * sizeof *tiles);
        free(tiles);
        if (!call.a.tiles) {
            return cuda_settle(c, error);
        }
    }
    for (int first = 0; first < n_queries; first += most) {
        const int n = n_queries - first < most ? n_queries - first : most;
        const int tile = first / CUDA_TILE_ROWS, n_tiles = (n - 1) / CUDA_TILE_ROWS + 1;
        struct cuda_slice s = {.first = first, .n_rows = n, .end = n_rows};
        const struct call_slice of = {.first = first, .n_rows = n, .end = n_rows};
        TRY(scores_room(c, a, &s, error));
        if (products) {
            TRY(product_scores(c, a, &s, &keys, typed_q, error));
        } else {
            cuda_scores(c->stream, a, &s, q, tile, n_tiles);
        }
        TRY(edit_slice(c, &call, &of, &s, products ? &keys : NULL, error));
        if (probs) {
            const size_t row = (size_t)n_rows * sizeof *probs, n_lines = (size_t)n * (size_t)n_head;
            cuda_note(c,
                      cudaMemcpy2DAsync(probs + (size_t)first * (size_t)n_head * (size_t)n_rows, row, s.scores,
                                        (size_t)stride * sizeof *probs, row, n_lines, cudaMemcpyDeviceToHost,
                                        c->stream),
                      "fetching attention");
        }
        if (products) {
            TRY(product_values(c, a, &s, &keys, c->halves.memory, out, error));
        } else if (out) {
            TRY(cuda_room(c, &c->partial, cuda_values_floats(a, n, n_rows) * sizeof(float), "parts of attention",
                          error));
            cuda_values(c->stream, a, &s, c->partial.memory, out, tile, n_tiles);
        }
    }
    return probs ? cuda_wait(c, "attention", error) : cuda_settle(c, error);
}

candid_status cuda_attend_full(struct backend *b, const float *q, const float *k, const float *v, float *out,
                               int n_rows, int n_head, int head_dim, float scale, float *probs_out,
                               candid_error *error) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    TRY(attention_check_full(n_rows, n_head, head_dim, error));
    return n_rows < 1 ? CANDID_OK
                      : attend_rows(c, q, n_rows, k, v, out, n_rows, n_head, head_dim, scale, probs_out, error);
}

candid_status cuda_attend_row(struct backend *b, const float *q, const float *k, float *probs, int n_rows, int n_head,
                              int head_dim, float scale, candid_error *error) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    TRY(attention_check_full(n_rows, n_head, head_dim, error));
    return n_rows < 1 ? CANDID_OK : attend_rows(c, q, 1, k, NULL, NULL, n_rows, n_head, head_dim, scale, probs, error);
}
