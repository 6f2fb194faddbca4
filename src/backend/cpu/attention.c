/*
 * The fast attention path: cuts the work into tiles of queries that share keys, walks the blocks of keys and merges.
 *
 * A tile is up to ATTENTION_TILE query vectors (rows × query heads) of one key head. Block by block of 32 keys,
 * kernels fold K and V into the tile's running softmax. The running softmax starts anew every CHUNK_KEYS keys, and
 * the chunks' results are merged in order; where there are fewer tiles than threads, chunks are computed in parallel
 * and merged afterwards by the same function. Blocks and chunks lie at fixed key positions. So a query's result
 * depends on its own keys and the kernel family only: not on the other rows of the call, the cutting of a prompt into
 * calls or the number of threads.
 */
#include "backend/cpu/attention.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/attention_check.h"
#include "backend/cpu/attention_edit.h"
#include "backend/cpu/attention_kernels.h"
#include "core/status.h"

#define CHUNK_BLOCKS 16
#define CHUNK_KEYS   (CHUNK_BLOCKS * KV_BLOCK)

/* Keys in the blocks of a KV cache, or in rows for the image encoder. */
struct problem {
    const struct kv_attention *kv; /* NULL: k and v, (n_rows, n_head*head_dim) */
    const float *k, *v;
    const float *q;
    float *out;
    int n_rows, n_head, n_head_kv, head_dim;
    float scale;
};

/* How a problem is cut. A task is (tile of rows, part of the query heads of a key head). */
struct cut {
    int *tile_begin; /* [n_tiles + 1] first row of each tile */
    int n_tiles;
    int tile_queries;   /* most queries of a tile */
    int heads_per_tile; /* query heads */
    int n_parts;        /* parts of the query heads of a key head */
    int64_t n_tasks;    /* n_head_kv * n_parts * n_tiles */
    int padded_dim;
    int n_chunks; /* of the row with most keys */
    bool split;   /* each chunk is computed by itself, then merged */
};

/* Offsets, in floats, of the arrays in a thread's scratch memory. */
struct scratch_layout {
    size_t q, total, part, p, alpha, visible, k_t, v, size;
};

/* The queries of one task. */
struct task {
    int row_begin, row_end;
    int kv_head;
    int head_begin, n_heads; /* query heads */
};

const struct attention_kernels *attention_kernels_get(enum cpu_isa isa) {
    switch (isa) {
#if defined(__x86_64__)
    case ISA_AVX2: return &attention_kernels_avx2;
    case ISA_AVX512: return &attention_kernels_avx512;
#elif defined(__aarch64__)
    case ISA_NEON: return &attention_kernels_neon;
#endif
    default: return &attention_kernels_scalar;
    }
}

static int row_keys(const struct problem *p, int row) {
    return p->kv ? p->kv->rows[row].n_keys : p->n_rows;
}

/* What identifies the memory of a row's block b: rows with equal blocks share the loads. */
static const void *row_block(const struct problem *p, int row, int b) {
    return p->kv ? p->kv->rows[row].blocks[b] : NULL;
}

static struct attention_block block_keys(const struct problem *p, int row, int b, int kv_head) {
    const size_t head_dim = (size_t)p->head_dim;
    if (!p->kv) {
        const size_t stride = (size_t)p->n_head * head_dim;
        const size_t at = (size_t)b * KV_BLOCK * stride + (size_t)kv_head * head_dim;
        return (struct attention_block){.k = p->k + at, .v = p->v + at, .stride = stride};
    }
    const struct kv_shape *s = p->kv->shape;
    const char *block = p->kv->rows[row].blocks[b];
    const size_t bytes = s->f32 ? sizeof(float) : sizeof(uint16_t);
    return (struct attention_block){.k = block + kv_offset(s, p->kv->layer, 0, kv_head) * bytes,
                                    .v = block + kv_offset(s, p->kv->layer, 1, kv_head) * bytes,
                                    .stride = head_dim,
                                    .f16 = !s->f32};
}

/* ---- one task ---------------------------------------------------------------------------------- */

/* A state of n queries at `at`, state_floats() long: o, then m and l. */
static size_t state_floats(int n, int padded_dim) {
    return (size_t)n * ((size_t)padded_dim + 2);
}

static struct attention_state state_at(float *at, int n, int padded_dim) {
    float *m = at + (size_t)n * (size_t)padded_dim;
    return (struct attention_state){.o = at, .m = m, .l = m + n};
}

static void state_clear(const struct attention_state *s, int n, int padded_dim) {
    for (int i = 0; i < n; i++) {
        s->m[i] = -INFINITY;
        s->l[i] = 0.0f;
    }
    memset(s->o, 0, (size_t)n * (size_t)padded_dim * sizeof(float));
}

/* total and part of query i become the softmax over both sets of keys, in total. */
static void state_merge(const struct attention_state *total, const struct attention_state *part, int i,
                        int padded_dim) {
    const float m = total->m[i] > part->m[i] ? total->m[i] : part->m[i];
    const float of_total = expf(total->m[i] - m), of_part = expf(part->m[i] - m);
    float *o = total->o + (size_t)i * (size_t)padded_dim;
    const float *o_part = part->o + (size_t)i * (size_t)padded_dim;
    for (int d = 0; d < padded_dim; d++) {
        o[d] = o[d] * of_total + o_part[d] * of_part;
    }
    total->l[i] = total->l[i] * of_total + part->l[i] * of_part;
    total->m[i] = m;
}

static struct task task_get(const struct problem *p, const struct cut *cut, int64_t index) {
    /* A head's tiles follow each other, so its K and V stay in the cache; later rows see more keys and go first. */
    const int tile = cut->n_tiles - 1 - (int)(index % cut->n_tiles);
    const int part = (int)(index / cut->n_tiles);
    const int group = p->n_head / p->n_head_kv;
    const int first = part % cut->n_parts * cut->heads_per_tile;
    const int rest = group - first;
    return (struct task){.row_begin = cut->tile_begin[tile],
                         .row_end = cut->tile_begin[tile + 1],
                         .kv_head = part / cut->n_parts,
                         .head_begin = part / cut->n_parts * group + first,
                         .n_heads = rest < cut->heads_per_tile ? rest : cut->heads_per_tile};
}

static int task_most_keys(const struct problem *p, const struct task *task) {
    int most = 0;
    for (int row = task->row_begin; row < task->row_end; row++) {
        most = row_keys(p, row) > most ? row_keys(p, row) : most;
    }
    return most;
}

/* Query i of the task is head head_begin + i % n_heads of row row_begin + i / n_heads. */
static size_t query_offset(const struct problem *p, const struct task *task, int row, int head) {
    return ((size_t)row * (size_t)p->n_head + (size_t)(task->head_begin + head)) * (size_t)p->head_dim;
}

static void gather_queries(const struct problem *p, const struct task *task, float *q) {
    for (int row = task->row_begin; row < task->row_end; row++) {
        const size_t floats = (size_t)task->n_heads * (size_t)p->head_dim; /* heads of a row are contiguous */
        memcpy(q, p->q + query_offset(p, task, row, 0), floats * sizeof(float));
        q += floats;
    }
}

/* Folds block b into the queries of the task that see it. */
static void fold_block(const struct problem *p, const struct attention_kernels *kernels, const struct task *task,
                       const struct attention_tile *tile, int *visible, int b) {
    int row = task->row_begin;
    while (row < task->row_end) {
        const int begin = row;
        while (row < task->row_end && row_keys(p, row) > b * KV_BLOCK &&
               row_block(p, row, b) == row_block(p, begin, b)) {
            const int left = row_keys(p, row) - b * KV_BLOCK;
            for (int head = 0; head < task->n_heads; head++) {
                visible[(row - task->row_begin) * task->n_heads + head] = left < KV_BLOCK ? left : KV_BLOCK;
            }
            row++;
        }
        if (row == begin) {
            row++; /* sees none of it */
            continue;
        }
        struct attention_block keys = block_keys(p, begin, b, task->kv_head);
        if (p->kv && row_keys(p, begin) - b * KV_BLOCK > KV_BLOCK) {
            const struct attention_block next = block_keys(p, begin, b + 1, task->kv_head);
            keys.next_k = next.k;
            keys.next_v = next.v;
        }
        kernels->block(tile, (begin - task->row_begin) * task->n_heads, (row - task->row_begin) * task->n_heads, &keys);
    }
}

/* The state over chunk c alone. The tile's state must be clear. */
static void fold_chunk(const struct problem *p, const struct attention_kernels *kernels, const struct task *task,
                       const struct attention_tile *tile, int *visible, int c, int most_keys) {
    const int n_blocks = (most_keys - 1) / KV_BLOCK + 1;
    for (int b = c * CHUNK_BLOCKS; b < (c + 1) * CHUNK_BLOCKS && b < n_blocks; b++) {
        fold_block(p, kernels, task, tile, visible, b);
    }
}

static void merge_chunk(const struct problem *p, const struct task *task, const struct attention_state *total,
                        const struct attention_state *part, int c, int padded_dim) {
    for (int row = task->row_begin; row < task->row_end; row++) {
        if (row_keys(p, row) > c * CHUNK_KEYS) {
            const int first = (row - task->row_begin) * task->n_heads;
            for (int i = first; i < first + task->n_heads; i++) {
                state_merge(total, part, i, padded_dim);
            }
        }
    }
}

static void write_out(const struct problem *p, const struct task *task, const struct attention_state *s,
                      int padded_dim) {
    int i = 0;
    for (int row = task->row_begin; row < task->row_end; row++) {
        for (int head = 0; head < task->n_heads; head++, i++) {
            float *out = p->out + query_offset(p, task, row, head);
            const float *o = s->o + (size_t)i * (size_t)padded_dim;
            const float inverse = 1.0f / s->l[i];
            for (int d = 0; d < p->head_dim; d++) {
                out[d] = o[d] * inverse;
            }
        }
    }
}

/* All chunks of a task one after the other, or, with partial given, chunk c alone to partial. */
static void run_task(const struct problem *p, const struct attention_kernels *kernels, const struct cut *cut,
                     const struct scratch_layout *at, const struct task *task, float *scratch, int c, float *partial) {
    const int n = (task->row_end - task->row_begin) * task->n_heads;
    const int most_keys = task_most_keys(p, task);
    int *visible = (int *)(void *)(scratch + at->visible);
    const struct attention_state total = state_at(scratch + at->total, n, cut->padded_dim);
    const struct attention_state part = state_at(partial ? partial : scratch + at->part, n, cut->padded_dim);
    struct attention_tile tile = {.head_dim = p->head_dim,
                                  .padded_dim = cut->padded_dim,
                                  .scale = p->scale,
                                  .q = scratch + at->q,
                                  .visible = visible,
                                  .p = scratch + at->p,
                                  .alpha = scratch + at->alpha,
                                  .k_t = scratch + at->k_t,
                                  .v = scratch + at->v};
    gather_queries(p, task, scratch + at->q);
    if (partial) {
        tile.state = part;
        state_clear(&part, n, cut->padded_dim);
        fold_chunk(p, kernels, task, &tile, visible, c, most_keys);
        return;
    }
    const int n_chunks = (most_keys - 1) / CHUNK_KEYS + 1;
    for (c = 0; c < n_chunks; c++) {
        tile.state = c == 0 ? total : part;
        state_clear(&tile.state, n, cut->padded_dim);
        fold_chunk(p, kernels, task, &tile, visible, c, most_keys);
        if (c > 0) {
            merge_chunk(p, task, &total, &part, c, cut->padded_dim);
        }
    }
    write_out(p, task, &total, cut->padded_dim);
}

/* ---- all tasks --------------------------------------------------------------------------------- */

/* Chooses rows per tile: as many as share loads well, fewer when threads would be idle. Fills tile_begin. */
static void cut_rows(const struct problem *p, struct cut *cut, int n_threads) {
    int rows = ATTENTION_TILE / cut->heads_per_tile;
    const int64_t columns = (int64_t)p->n_head_kv * cut->n_parts;
    while (rows * cut->heads_per_tile > 12 && rows > 1 && (p->n_rows / rows + 1) * columns < 2 * (int64_t)n_threads) {
        rows = (rows + 1) / 2;
    }
    cut->n_tiles = 0;
    cut->tile_begin[0] = 0;
    int longest = 0;
    for (int row = 1; row <= p->n_rows; row++) {
        const int begin = cut->tile_begin[cut->n_tiles];
        if (row == p->n_rows || row - begin == rows || row_block(p, row, 0) != row_block(p, begin, 0)) {
            cut->tile_begin[++cut->n_tiles] = row;
            longest = row - begin > longest ? row - begin : longest;
        }
    }
    cut->tile_queries = longest * cut->heads_per_tile;
}

static void cut_problem(const struct problem *p, struct cut *cut, int lanes, int n_threads) {
    const int group = p->n_head / p->n_head_kv;
    cut->heads_per_tile = group < ATTENTION_TILE ? group : ATTENTION_TILE;
    cut->n_parts = (group - 1) / cut->heads_per_tile + 1;
    cut_rows(p, cut, n_threads);
    cut->n_tasks = (int64_t)p->n_head_kv * cut->n_parts * cut->n_tiles;
    cut->padded_dim = (p->head_dim + lanes - 1) / lanes * lanes;
    int most_keys = 0;
    for (int row = 0; row < p->n_rows; row++) {
        most_keys = row_keys(p, row) > most_keys ? row_keys(p, row) : most_keys;
    }
    cut->n_chunks = (most_keys - 1) / CHUNK_KEYS + 1;
    cut->split = cut->n_tasks < n_threads && cut->n_chunks > 1;
}

static size_t take(size_t *size, size_t floats) {
    const size_t at = *size;
    *size += (floats + 15) / 16 * 16; /* cache lines */
    return at;
}

static struct scratch_layout layout_scratch(const struct cut *cut, int head_dim) {
    struct scratch_layout l = {0};
    const size_t n = (size_t)cut->tile_queries;
    const bool merges = cut->n_chunks > 1 && !cut->split;
    l.q = take(&l.size, n * (size_t)head_dim);
    l.total = take(&l.size, cut->split ? 0 : state_floats(cut->tile_queries, cut->padded_dim));
    l.part = take(&l.size, merges ? state_floats(cut->tile_queries, cut->padded_dim) : 0);
    l.p = take(&l.size, n * KV_BLOCK);
    l.alpha = take(&l.size, n);
    l.visible = take(&l.size, n);
    l.k_t = take(&l.size, (size_t)head_dim * KV_BLOCK);
    l.v = take(&l.size, (size_t)cut->padded_dim * KV_BLOCK);
    return l;
}

/* The chunks of every task in parallel, then the merges. */
static candid_status run_split(const struct problem *p, const struct attention_kernels *kernels, const struct cut *cut,
                               const struct scratch_layout *at, float *scratch, int n_threads, candid_error *error) {
    const size_t floats = (state_floats(cut->tile_queries, cut->padded_dim) + 15) / 16 * 16;
    const int64_t n_pieces = cut->n_tasks * cut->n_chunks;
    float *partial = attention_alloc((size_t)n_pieces, floats, sizeof(float));
    if (!partial) {
        return fail_memory(error, "attention over split keys", (size_t)n_pieces * floats * sizeof(float));
    }
#pragma omp parallel for num_threads(n_threads) schedule(dynamic, 1)
    for (int64_t i = 0; i < n_pieces; i++) {
        const struct task task = task_get(p, cut, i / cut->n_chunks);
        run_task(p, kernels, cut, at, &task, scratch + (size_t)omp_get_thread_num() * at->size,
                 (int)(i % cut->n_chunks), partial + (size_t)i * floats);
    }
    for (int64_t i = 0; i < cut->n_tasks; i++) {
        const struct task task = task_get(p, cut, i);
        const int n = (task.row_end - task.row_begin) * task.n_heads;
        float *pieces = partial + (size_t)i * (size_t)cut->n_chunks * floats;
        const struct attention_state total = state_at(pieces, n, cut->padded_dim);
        for (int c = 1; c < cut->n_chunks; c++) {
            const struct attention_state part = state_at(pieces + (size_t)c * floats, n, cut->padded_dim);
            merge_chunk(p, &task, &total, &part, c, cut->padded_dim);
        }
        write_out(p, &task, &total, cut->padded_dim);
    }
    free(partial);
    return CANDID_OK;
}

static candid_status run_problem(const struct problem *p, enum cpu_isa isa, int n_threads, candid_error *error) {
    if (p->n_rows == 0) {
        return CANDID_OK;
    }
    n_threads = attention_threads(n_threads);
    const struct attention_kernels *kernels = attention_kernels_get(isa);
    struct cut cut = {.tile_begin = attention_alloc((size_t)p->n_rows + 1, sizeof(int), 1)};
    if (!cut.tile_begin) {
        return fail_memory(error, "attention tiles", ((size_t)p->n_rows + 1) * sizeof(int));
    }
    cut_problem(p, &cut, kernels->lanes, n_threads);
    const struct scratch_layout layout = layout_scratch(&cut, p->head_dim);
    float *scratch = attention_alloc((size_t)n_threads, layout.size, sizeof(float));
    candid_status status = CANDID_OK;
    if (!scratch) {
        status = fail_memory(error, "attention scratch", (size_t)n_threads * layout.size * sizeof(float));
    } else if (cut.split) {
        status = run_split(p, kernels, &cut, &layout, scratch, n_threads, error);
    } else {
#pragma omp parallel for num_threads(n_threads) schedule(dynamic, 1)
        for (int64_t i = 0; i < cut.n_tasks; i++) {
            const struct task task = task_get(p, &cut, i);
            run_task(p, kernels, &cut, &layout, &task, scratch + (size_t)omp_get_thread_num() * layout.size, 0, NULL);
        }
    }
    free(scratch);
    free(cut.tile_begin);
    return status;
}

/* Rows begin..end-1, none of them special. */
static candid_status run_plain(enum cpu_isa isa, const struct kv_attention *a, int begin, int end, const float *q,
                               float *out, int n_threads, candid_error *error) {
    struct kv_attention part = *a;
    part.rows = a->rows + begin;
    part.n_rows = end - begin;
    const size_t first = (size_t)begin * (size_t)a->n_head * (size_t)a->shape->head_dim;
    const struct problem p = {.kv = &part,
                              .q = q + first,
                              .out = out + first,
                              .n_rows = part.n_rows,
                              .n_head = a->n_head,
                              .n_head_kv = a->shape->n_head_kv,
                              .head_dim = a->shape->head_dim,
                              .scale = a->scale};
    return run_problem(&p, isa, n_threads, error);
}

candid_status attention_kv_fast(enum cpu_isa isa, const struct kv_attention *a, const float *q, float *out,
                                int n_threads, candid_error *error) {
    TRY(attention_check_kv(a, error));
    if (a->scores_out || a->probs_out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "attention: only the reference path writes scores and probabilities");
    }
    bool special = false;
    for (int begin = 0, end; begin < a->n_rows; begin = end) {
        const bool skip = attention_row_special(&a->rows[begin]);
        for (end = begin + 1; end < a->n_rows && attention_row_special(&a->rows[end]) == skip;) {
            end++;
        }
        special = special || skip;
        if (!skip) {
            TRY(run_plain(isa, a, begin, end, q, out, n_threads, error));
        }
    }
    return special ? attention_kv_edited(isa, a, q, out, n_threads, error) : CANDID_OK;
}

candid_status attention_full_fast(enum cpu_isa isa, const float *q, const float *k, const float *v, float *out,
                                  int n_rows, int n_head, int head_dim, float scale, int n_threads,
                                  candid_error *error) {
    TRY(attention_check_full(n_rows, n_head, head_dim, error));
    const struct problem p = {.k = k,
                              .v = v,
                              .q = q,
                              .out = out,
                              .n_rows = n_rows,
                              .n_head = n_head,
                              .n_head_kv = n_head,
                              .head_dim = head_dim,
                              .scale = scale};
    return run_problem(&p, isa, n_threads, error);
}

/* ---- storing ----------------------------------------------------------------------------------- */

static void store_row(const struct kv_attention *a, const struct attention_kernels *kernels, int row, int value,
                      const float *src) {
    const struct kv_shape *s = a->shape;
    const int index = a->rows[row].index;
    void *block = a->rows[row].blocks[index / KV_BLOCK];
    const size_t dim = (size_t)s->head_dim, slot = (size_t)(index % KV_BLOCK) * dim;
    for (int head = 0; head < s->n_head_kv; head++) {
        const size_t at = kv_offset(s, a->layer, value, head) + slot;
        if (s->f32) {
            memcpy((float *)block + at, src + (size_t)head * dim, dim * sizeof(float));
        } else {
            kernels->to_f16((uint16_t *)block + at, src + (size_t)head * dim, s->head_dim);
        }
    }
}

void attention_kv_store(const struct kv_attention *a, const float *k, const float *v, int n_threads) {
    /* Every family rounds alike; AVX-512 would gain nothing over AVX2 here. */
    const struct attention_kernels *kernels = attention_kernels_get(ISA_SCALAR);
    if (cpu_isa_available(ISA_AVX2)) {
        kernels = attention_kernels_get(ISA_AVX2);
    } else if (cpu_isa_available(ISA_NEON)) {
        kernels = attention_kernels_get(ISA_NEON);
    }
    const size_t n = (size_t)a->shape->n_head_kv * (size_t)a->shape->head_dim;
    /* A few rows are stored sooner than threads wake up. */
#pragma omp parallel for num_threads(attention_threads(n_threads)) if (a->n_rows >= 32)
    for (int row = 0; row < a->n_rows; row++) {
        store_row(a, kernels, row, 0, k + (size_t)row * n);
        store_row(a, kernels, row, 1, v + (size_t)row * n);
    }
}
