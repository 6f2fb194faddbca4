/*
 * Attention calls made ready. What the kernels need of rows and edits is packed into one piece of memory and copied in
 * one go; a call with the bytes of the one before (the next layer of a pass without edits) copies nothing.
 */
#include "backend/cuda/call.h"

#include <stdlib.h>
#include <string.h>

#include "backend/cpu/attention_edit.h"
#include "core/status.h"

#define PRODUCT_ROWS 9     /* from so many rows of one sequence on: as in ops->linear */
#define MOST_ROWS    32768 /* of a slice: grids are limited */

/* The packed call: arrays one after the other in c->call.built, found again by offset. */
struct packer {
    struct cuda_call_cache *to;
    size_t used;
    bool full; /* memory was short */
};

/* Room for n bytes, zeroed; returns its offset. */
static size_t pack(struct packer *p, size_t n) {
    const size_t at = (p->used + 15) / 16 * 16;
    if (at + n > p->to->capacity) {
        const size_t capacity = 2 * (at + n) + 4096;
        char *built = realloc(p->to->built, capacity), *last = built ? realloc(p->to->last, capacity) : NULL;
        p->to->built = built ? built : p->to->built;
        p->to->last = last ? last : p->to->last;
        if (!built || !last) {
            p->full = true;
            return 0;
        }
        p->to->capacity = capacity;
    }
    memset(p->to->built + p->used, 0, at + n - p->used);
    p->used = at + n;
    return at;
}

static void *packed(const struct packer *p, size_t at) {
    return p->to->built + at;
}

/* ---- slices and tiles --------------------------------------------------------------------------- */

static bool special(const struct attention_row *row, enum call_purpose purpose) {
    return purpose == CALL_COLUMNS ? row->also_end > 0 : attention_row_special(row);
}

/* Rows from `begin` on of one sequence. */
static int sequence_end(const struct kv_attention *a, int begin) {
    int end = begin + 1;
    while (end < a->n_rows && a->rows[end].blocks == a->rows[begin].blocks) {
        end++;
    }
    return end;
}

static bool by_products(const struct cuda_backend *c, const struct kv_attention *a, int begin,
                        enum call_purpose purpose) {
    return !c->exact && (purpose == CALL_ATTEND || purpose == CALL_COLUMNS) &&
           sequence_end(a, begin) - begin >= PRODUCT_ROWS;
}

static bool by_decode(const struct cuda_backend *c, const struct kv_attention *a, int i, enum call_purpose purpose) {
    return !c->exact && purpose == CALL_ATTEND && !special(&a->rows[i], purpose) &&
           a->shape->head_dim <= CUDA_DECODE_MOST_DIM;
}

static candid_status add_slice(struct attention_call *call, int *capacity, enum slice_kind kind, int first, int n_rows,
                               candid_error *error) {
    if (call->n_slices == *capacity) {
        *capacity = 2 * *capacity + 8;
        struct call_slice *grown = realloc(call->slices, (size_t)*capacity * sizeof *grown);
        if (!grown) {
            return fail_memory(error, "attention slices", (size_t)*capacity * sizeof *grown);
        }
        call->slices = grown;
    }
    call->slices[call->n_slices++] = (struct call_slice){.kind = kind, .first = first, .n_rows = n_rows};
    return CANDID_OK;
}

/* Rows first..end-1 in slices whose scores fit. */
static candid_status cut(struct attention_call *call, int *capacity, const struct kv_attention *a, enum slice_kind kind,
                         int first, int end, candid_error *error) {
    int most = 0;
    for (int i = first; i < end; i++) {
        const int e = attention_row_end(&a->rows[i]);
        most = e > most ? e : most;
    }
    /* scores, as f16 too, before and spare, at most; parts of values have a share for each block of keys */
    const size_t row = (size_t)a->n_head * ((size_t)slice_stride(most) * 14 +
                                            ((size_t)most / KV_BLOCK + 1) * (size_t)a->shape->head_dim * sizeof(float));
    size_t fit = kind == SLICE_DECODE ? MOST_ROWS : CALL_SLICE_BYTES / row;
    fit = fit < 1 ? 1 : fit > MOST_ROWS ? MOST_ROWS : fit;
    for (int i = first; i < end; i += (int)fit) {
        TRY(add_slice(call, capacity, kind, i, end - i < (int)fit ? end - i : (int)fit, error));
    }
    return CANDID_OK;
}

static candid_status make_slices(const struct cuda_backend *c, const struct kv_attention *a, enum call_purpose purpose,
                                 struct attention_call *call, candid_error *error) {
    int capacity = 0;
    for (int i = 0, end; i < a->n_rows; i = end) {
        enum slice_kind kind = SLICE_PRODUCTS;
        if (by_products(c, a, i, purpose)) {
            end = sequence_end(a, i);
        } else {
            kind = by_decode(c, a, i, purpose) ? SLICE_DECODE : SLICE_ROWS;
            for (end = i + 1; end < a->n_rows && !by_products(c, a, end, purpose) &&
                              by_decode(c, a, end, purpose) == (kind == SLICE_DECODE);) {
                end++;
            }
        }
        TRY(cut(call, &capacity, a, kind, i, end, error));
    }
    return CANDID_OK;
}

/* Neighbouring rows of one sequence, CUDA_TILE_ROWS at most; of the slice's. */
static size_t pack_tiles(struct packer *p, const struct kv_attention *a, struct attention_call *call) {
    const size_t at = pack(p, (size_t)(a->n_rows + 1) * sizeof(struct cuda_tile));
    int n = 0;
    for (int s = 0; s < call->n_slices && !p->full; s++) {
        struct cuda_tile *tiles = packed(p, at);
        struct call_slice *slice = &call->slices[s];
        slice->first_tile = n;
        for (int i = slice->first; i < slice->first + slice->n_rows; i++) {
            const int e = attention_row_end(&a->rows[i]);
            slice->end = e > slice->end ? e : slice->end;
            if (n > slice->first_tile && tiles[n - 1].count < CUDA_TILE_ROWS &&
                a->rows[i].blocks == a->rows[i - 1].blocks) {
                tiles[n - 1].count++;
            } else {
                tiles[n++] = (struct cuda_tile){i, 1};
            }
        }
        slice->n_tiles = n - slice->first_tile;
    }
    return at;
}

/* ---- rows --------------------------------------------------------------------------------------- */

/* Rows and the block tables of their sequences; rows of one sequence share one. */
static void pack_rows(struct packer *p, const struct kv_attention *a, size_t *rows_at, size_t *tables_at) {
    *rows_at = pack(p, (size_t)a->n_rows * sizeof(struct cuda_row));
    size_t n_pointers = 0;
    for (int i = 0, end; i < a->n_rows; i = end) {
        int keys = 1;
        end = sequence_end(a, i);
        for (int j = i; j < end; j++) {
            const int e = attention_row_end(&a->rows[j]), own = a->rows[j].index + 1;
            keys = e > keys ? e : keys;
            keys = own > keys ? own : keys;
        }
        const size_t n_blocks = (size_t)(keys - 1) / KV_BLOCK + 1;
        const size_t at = pack(p, n_blocks * sizeof(void *));
        if (p->full) {
            return;
        }
        if (i == 0) {
            *tables_at = at;
        }
        n_pointers = (at - *tables_at) / sizeof(void *);
        memcpy(packed(p, at), (const void *)a->rows[i].blocks, n_blocks * sizeof(void *));
        for (int j = i; j < end; j++) {
            const struct attention_row *from = &a->rows[j];
            ((struct cuda_row *)packed(p, *rows_at))[j] = (struct cuda_row){.table = (int)n_pointers,
                                                                            .index = from->index,
                                                                            .n_keys = from->n_keys,
                                                                            .also_begin = from->also_begin,
                                                                            .also_end = from->also_end,
                                                                            .end = attention_row_end(from),
                                                                            .number = from->number};
        }
    }
}

static uint32_t pack_bytes(struct packer *p, const uint8_t *bytes, size_t n) {
    const size_t at = pack(p, n);
    if (!p->full && n > 0) {
        memcpy(packed(p, at), bytes, n);
    }
    return (uint32_t)at;
}

static struct cuda_edit edit_of(struct packer *p, const struct attention_edit *e, int n_head) {
    struct cuda_edit out;
    memset(&out, 0, sizeof out); /* padding too: calls are compared byte by byte */
    out.kind = e->kind;
    out.replace = e->replace;
    memcpy(out.gain, e->gain, sizeof out.gain);
    out.from = e->from;
    out.to = e->to;
    out.whole = e->whole;
    out.part = e->part;
    out.keep = e->keep;
    out.min_mass = e->min_mass;
    out.max_share = e->max_share;
    out.eps = e->eps;
    out.round_f16 = e->round_f16;
    out.seed = e->seed;
    out.n_classes = e->kind == EDIT_PROBS_REPLACE || !e->classes ? 0 : e->n_classes;
    out.class_stride = (uint32_t)e->class_stride;
    out.all_heads = !e->heads;
    if (out.n_classes > 0) {
        out.classes = pack_bytes(p, e->classes, (size_t)(n_head - 1) * e->class_stride + (size_t)out.n_classes);
    }
    if (e->heads) {
        out.heads = pack_bytes(p, e->heads, (size_t)n_head);
    }
    return out;
}

/* The classes and heads of an edit that the row before has, too, are stored once: the rows of a prompt share them. */
static bool same_sets(const struct attention_edit *x, const struct attention_edit *y) {
    return x->classes == y->classes && x->heads == y->heads && x->n_classes == y->n_classes &&
           x->class_stride == y->class_stride && x->kind == y->kind;
}

static void pack_edits(struct packer *p, const struct kv_attention *a, struct attention_call *call, size_t rows_at,
                       size_t *edits_at) {
    int n = 0;
    for (int i = 0; i < a->n_rows; i++) {
        n += a->rows[i].edits ? a->rows[i].edits->n_edits : 0;
    }
    call->n_edits = n;
    *edits_at = pack(p, (size_t)n * sizeof(struct cuda_edit));
    n = 0;
    const struct row_edits *before = NULL;
    for (int i = 0; i < a->n_rows && !p->full; i++) {
        const struct row_edits *edits = a->rows[i].edits;
        for (int e = 0; edits && e < edits->n_edits && !p->full; e++) {
            const bool again = before && e < before->n_edits && same_sets(&edits->edits[e], &before->edits[e]);
            struct attention_edit own = edits->edits[e];
            const struct cuda_edit *shared =
                (struct cuda_edit *)packed(p, *edits_at) + n + e - (again ? before->n_edits : 0);
            struct cuda_edit kept = *shared;
            if (again) { /* take the offsets over */
                own.classes = NULL;
                own.heads = NULL;
            }
            struct cuda_edit made = edit_of(p, &own, a->n_head);
            if (again) {
                made.n_classes = kept.n_classes;
                made.classes = kept.classes;
                made.heads = kept.heads;
                made.all_heads = kept.all_heads;
            }
            if (!p->full) {
                ((struct cuda_edit *)packed(p, *edits_at))[n + e] = made;
            }
        }
        struct cuda_row *row = (struct cuda_row *)packed(p, rows_at) + i;
        row->first_edit = n;
        row->n_edits = edits ? edits->n_edits : 0;
        row->mean_edit = edits ? attention_mean_edit(edits) : 0;
        n += row->n_edits;
        before = edits;
    }
}

static size_t pack_probes(struct packer *p, const struct kv_attention *a, struct attention_call *call, size_t rows_at) {
    for (int i = 0; i < a->n_rows; i++) {
        call->n_probes += a->rows[i].n_probes;
    }
    const size_t at = pack(p, (size_t)call->n_probes * sizeof(struct cuda_probe));
    int n = 0;
    for (int i = 0; i < a->n_rows && !p->full; i++) {
        struct cuda_row *row = (struct cuda_row *)packed(p, rows_at) + i;
        for (int k = 0; k < a->rows[i].n_probes; k++) {
            const struct row_probe *probe = &a->rows[i].probes[k];
            const bool before = probe->before_edits && row->n_edits > 0;
            ((struct cuda_probe *)packed(p, at))[n++] =
                (struct cuda_probe){i, probe->reduce, before, (uint32_t)call->n_values};
            row->asks_before |= before;
            call->n_values += (size_t)row->end;
        }
    }
    return at;
}

/* What the slices need besides scores. */
static void note_needs(const struct kv_attention *a, struct attention_call *call) {
    int probe = 0;
    for (int s = 0; s < call->n_slices; s++) {
        struct call_slice *slice = &call->slices[s];
        slice->first_probe = probe;
        for (int i = slice->first; i < slice->first + slice->n_rows; i++) {
            const struct attention_row *row = &a->rows[i];
            const int n_edits = row->edits ? row->edits->n_edits : 0;
            slice->mean = slice->mean || attention_edits_need_mean(row->edits);
            for (int e = 0; e < n_edits; e++) {
                const struct attention_edit *edit = &row->edits->edits[e];
                slice->shuffle =
                    slice->shuffle || (edit->kind == EDIT_PROBS_REPLACE && edit->replace == REPLACE_SHUFFLE);
            }
            for (int k = 0; k < row->n_probes; k++) {
                slice->before = slice->before || (row->probes[k].before_edits && n_edits > 0);
            }
            probe += row->n_probes;
        }
        slice->n_probes = probe - slice->first_probe;
    }
}

/* ---- calls -------------------------------------------------------------------------------------- */

/* The packed call on the device, copied unless it is there. */
static char *copy_call(struct cuda_backend *c, const struct packer *p) {
    struct cuda_call_cache *cache = &c->call;
    if (cache->device && cache->turn == c->ring.turn && cache->n_last == p->used &&
        memcmp(cache->last, cache->built, p->used) == 0) {
        return cache->device;
    }
    cache->device = cuda_stage(c, cache->built, p->used);
    cache->turn = c->ring.turn;
    cache->n_last = p->used;
    char *built = cache->built; /* becomes the last */
    cache->built = cache->last;
    cache->last = built;
    return cache->device;
}

candid_status call_begin(struct cuda_backend *c, const struct kv_attention *a, enum call_purpose purpose,
                         const uint8_t *heads, struct attention_call *call, candid_error *error) {
    *call = (struct attention_call){0};
    struct packer p = {.to = &c->call};
    size_t rows_at = 0, tables_at = 0, edits_at = 0, probes_at = 0, heads_at = 0;
    const bool edited = purpose == CALL_ATTEND || purpose == CALL_OBSERVE;
    candid_status status = purpose == CALL_STORE ? CANDID_OK : make_slices(c, a, purpose, call, error);
    if (status != CANDID_OK) {
        call_free(call);
        return status;
    }
    pack_rows(&p, a, &rows_at, &tables_at);
    const size_t tiles_at = purpose == CALL_STORE ? 0 : pack_tiles(&p, a, call);
    if (edited && !p.full) {
        pack_edits(&p, a, call, rows_at, &edits_at);
        probes_at = pack_probes(&p, a, call, rows_at);
        note_needs(a, call);
    }
    if (heads && !p.full) {
        heads_at = pack_bytes(&p, heads, (size_t)a->n_head);
    }
    char *device = p.full ? NULL : copy_call(c, &p);
    if (!device) {
        call_free(call);
        return p.full ? fail_memory(error, "an attention call", p.used) : cuda_settle(c, error);
    }
    call->a = (struct cuda_attention){.rows = (const struct cuda_row *)(device + rows_at),
                                      .edits = call->n_edits > 0 ? (const struct cuda_edit *)(device + edits_at) : NULL,
                                      .tiles = (const struct cuda_tile *)(device + tiles_at),
                                      .tables = (void *const *)(device + tables_at),
                                      .bytes = (const uint8_t *)device,
                                      .n_layer = a->shape->n_layer,
                                      .layer = a->layer,
                                      .n_head = a->n_head,
                                      .n_head_kv = a->shape->n_head_kv,
                                      .head_dim = a->shape->head_dim,
                                      .f32 = a->shape->f32,
                                      .scale = a->scale};
    call->probes = (const struct cuda_probe *)(device + probes_at);
    call->heads = heads ? (const uint8_t *)(device + heads_at) : NULL;
    return CANDID_OK;
}

void call_free(struct attention_call *call) {
    free(call->slices);
    call->slices = NULL;
}
