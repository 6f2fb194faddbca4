/*
 * The fast attention path for rows with edits or with keys that are no prefix: the scores of whole rows are computed,
 * edited, turned into probabilities, edited again and multiplied with the values, by the same kernels as ordinary rows.
 *
 * A task is a tile of up to ATTENTION_TILE queries (rows × query heads of one key head). It runs from
 * scores to output at once, and its thread holds the tile's scores. Only where an edit needs a mean over all heads, all
 * scores of a slice of rows are computed before any is edited. Rows that are probed leave a copy of their
 * probabilities, which are reduced over the heads when the slice is done.
 */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/attention.h"
#include "backend/cpu/attention_check.h"
#include "backend/cpu/attention_edit.h"
#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/attention_probe.h"
#include "core/status.h"

struct edited {
    const struct attention_kernels *kernels;
    const struct kv_attention *a;
    const float *q;
    float *out;
    int padded_dim;
    int heads_per_tile, n_parts; /* query heads of a key head, cut where there are more than a tile holds */

    /* of the slice */
    const int *rows; /* [n_rows] indices into a->rows */
    int n_rows;
    int *tile_begin; /* [n_tiles + 1] into rows */
    int n_tiles;
    size_t stride; /* keys, whole blocks */
    float *scores; /* (n_rows, n_head, stride), or NULL: each thread holds those of its tile */
    float *mean;   /* (n_rows, stride), or NULL */
    struct probed_rows probed;
};

/* Scratch of one thread. */
struct tile_scratch {
    float *q, *p, *alpha, *o, *k_t, *v, *scores, *row;
    int *visible;
};

struct tile_task {
    int row_begin, row_end; /* into rows */
    int kv_head, head_begin, n_heads;
    float *scores;     /* of its first query */
    size_t row_stride; /* to the same head of the next row */
};

/* Tile number `tile` of part `part` of the heads, with the scores in `s` where the slice holds none. */
static struct tile_task task_at(const struct edited *e, int tile, int part, const struct tile_scratch *s) {
    const int group = e->a->n_head / e->a->shape->n_head_kv;
    const int first = part % e->n_parts * e->heads_per_tile, rest = group - first;
    struct tile_task t = {.row_begin = e->tile_begin[tile],
                          .row_end = e->tile_begin[tile + 1],
                          .kv_head = part / e->n_parts,
                          .head_begin = part / e->n_parts * group + first,
                          .n_heads = rest < e->heads_per_tile ? rest : e->heads_per_tile};
    const size_t n_head = (size_t)e->a->n_head;
    t.row_stride = (e->scores ? n_head : (size_t)t.n_heads) * e->stride;
    t.scores = e->scores ? e->scores + ((size_t)t.row_begin * n_head + (size_t)t.head_begin) * e->stride : s->scores;
    return t;
}

static struct tile_task task_get(const struct edited *e, int64_t index, const struct tile_scratch *s) {
    return task_at(e, (int)(index % e->n_tiles), (int)(index / e->n_tiles), s);
}

/* Scores of query i of the task: head i % n_heads of row i / n_heads. */
static float *query_scores(const struct edited *e, const struct tile_task *t, int i) {
    return t->scores + (size_t)(i / t->n_heads) * t->row_stride + (size_t)(i % t->n_heads) * e->stride;
}

static const struct attention_row *row_of(const struct edited *e, int row) {
    return &e->a->rows[e->rows[row]];
}

/* Keys of block b that lie at or before the row's last one. Those in between that it does not see get probability 0. */
static int keys_left(const struct edited *e, int row, int b) {
    const int left = attention_row_end(row_of(e, row)) - b * KV_BLOCK;
    return left < 0 ? 0 : left < KV_BLOCK ? left : KV_BLOCK;
}

static int task_blocks(const struct edited *e, const struct tile_task *t) {
    int most = 0;
    for (int row = t->row_begin; row < t->row_end; row++) {
        const int end = attention_row_end(row_of(e, row));
        most = end > most ? end : most;
    }
    return (most - 1) / KV_BLOCK + 1;
}

/* Neighbouring rows of a task that see the same memory as block b, and its queries. */
struct block_rows {
    int begin, end;
    int first_query, last_query; /* in the tile, the last not included */
    struct attention_block keys;
};

/* The next such rows after r->end; false: there are none. Start with end = t->row_begin. Sets the queries' `visible`.
 */
static bool next_rows(const struct edited *e, const struct tile_task *t, int b, struct block_rows *r, int *visible) {
    const struct kv_shape *s = e->a->shape;
    for (r->begin = r->end; r->begin < t->row_end && keys_left(e, r->begin, b) == 0;) {
        r->begin++; /* sees none of it */
    }
    if (r->begin == t->row_end) {
        return false;
    }
    void *const *blocks = row_of(e, r->begin)->blocks;
    for (r->end = r->begin;
         r->end < t->row_end && keys_left(e, r->end, b) > 0 && row_of(e, r->end)->blocks[b] == blocks[b]; r->end++) {
        for (int head = 0; head < t->n_heads; head++) {
            visible[(r->end - t->row_begin) * t->n_heads + head] = keys_left(e, r->end, b);
        }
    }
    r->first_query = (r->begin - t->row_begin) * t->n_heads;
    r->last_query = (r->end - t->row_begin) * t->n_heads;
    const size_t bytes = s->f32 ? sizeof(float) : sizeof(uint16_t);
    const size_t k = kv_offset(s, e->a->layer, 0, t->kv_head) * bytes,
                 v = kv_offset(s, e->a->layer, 1, t->kv_head) * bytes;
    const char *block = blocks[b], *next = keys_left(e, r->begin, b + 1) > 0 ? blocks[b + 1] : NULL;
    r->keys = (struct attention_block){.k = block + k,
                                       .v = block + v,
                                       .stride = (size_t)s->head_dim,
                                       .f16 = !s->f32,
                                       .next_k = next ? next + k : NULL,
                                       .next_v = next ? next + v : NULL};
    return true;
}

static void task_scores(const struct edited *e, const struct tile_task *t, const struct tile_scratch *s) {
    const int n = (t->row_end - t->row_begin) * t->n_heads, head_dim = e->a->shape->head_dim;
    const size_t head_bytes = (size_t)t->n_heads * (size_t)head_dim * sizeof(float);
    for (int row = t->row_begin; row < t->row_end; row++) {
        const size_t at = ((size_t)e->rows[row] * (size_t)e->a->n_head + (size_t)t->head_begin) * (size_t)head_dim;
        memcpy(s->q + (size_t)(row - t->row_begin) * (size_t)t->n_heads * (size_t)head_dim, e->q + at, head_bytes);
    }
    const struct attention_tile tile = {.head_dim = head_dim,
                                        .padded_dim = e->padded_dim,
                                        .scale = e->a->scale,
                                        .q = s->q,
                                        .visible = s->visible,
                                        .p = s->p,
                                        .k_t = s->k_t,
                                        .v = s->v};
    const int n_blocks = task_blocks(e, t);
    for (int b = 0; b < n_blocks; b++) {
        struct block_rows r = {.end = t->row_begin};
        while (next_rows(e, t, b, &r, s->visible)) {
            e->kernels->scores(&tile, r.first_query, r.last_query, &r.keys);
            for (int i = r.first_query; i < r.last_query; i++) {
                float *row = query_scores(e, t, i) + b * KV_BLOCK;
                memcpy(row, s->p + (size_t)i * KV_BLOCK, KV_BLOCK * sizeof(float));
            }
        }
    }
    for (int i = 0; i < n; i++) {
        const struct attention_row *row = row_of(e, t->row_begin + i / t->n_heads);
        float *scores = query_scores(e, t, i);
        for (int key = row->n_keys; key < (int)e->stride; key++) {
            scores[key] = attention_row_sees(row, key) ? scores[key] : -INFINITY;
        }
    }
}

/* Floats of a row up to its last key, in whole blocks. */
static int padded_end(const struct attention_row *row) {
    return (attention_row_end(row) - 1) / KV_BLOCK * KV_BLOCK + KV_BLOCK;
}

/* Keeps what the scores are without edits, where a probe asks for that. */
static void task_probe_unedited(const struct edited *e, const struct tile_task *t) {
    for (int row = t->row_begin; row < t->row_end; row++) {
        const struct attention_row *r = row_of(e, row);
        for (int head = t->head_begin; head < t->head_begin + t->n_heads; head++) {
            float *kept = probed_before(&e->probed, r, row, head);
            if (kept) {
                const float *s = query_scores(e, t, (row - t->row_begin) * t->n_heads + head - t->head_begin);
                memcpy(kept, s, (size_t)padded_end(r) * sizeof *kept);
                e->kernels->softmax(kept, padded_end(r));
            }
        }
    }
}

/* Scores to probabilities, edited. With a mean over the heads the edits before it have been made. */
static void task_edit(const struct edited *e, const struct tile_task *t, const struct tile_scratch *scratch) {
    for (int row = t->row_begin; row < t->row_end; row++) {
        const struct attention_row *r = row_of(e, row);
        const int end = attention_row_end(r);
        const float *mean = e->mean ? e->mean + (size_t)row * e->stride : NULL;
        for (int head = t->head_begin; head < t->head_begin + t->n_heads; head++) {
            float *s = query_scores(e, t, (row - t->row_begin) * t->n_heads + head - t->head_begin);
            if (r->edits) {
                attention_edit_scores(r->edits, mean ? attention_mean_edit(r->edits) : 0, r->edits->n_edits, head,
                                      e->a->n_head, s, mean, end);
            }
            e->kernels->softmax(s, padded_end(r));
            if (r->edits) {
                attention_edit_probs(r, e->a->layer, head, e->a->n_head, s, scratch->row);
            }
            float *kept = probed_after(&e->probed, r, row, head);
            if (kept) {
                memcpy(kept, s, (size_t)end * sizeof *kept);
            }
        }
    }
}

static void task_values(const struct edited *e, const struct tile_task *t, const struct tile_scratch *s) {
    const int n = (t->row_end - t->row_begin) * t->n_heads, head_dim = e->a->shape->head_dim;
    const size_t padded = (size_t)e->padded_dim;
    const struct attention_tile tile = {.head_dim = head_dim,
                                        .padded_dim = e->padded_dim,
                                        .visible = s->visible,
                                        .state = {.o = s->o},
                                        .p = s->p,
                                        .alpha = s->alpha,
                                        .v = s->v};
    memset(s->o, 0, (size_t)n * padded * sizeof(float));
    for (int i = 0; i < n; i++) {
        s->alpha[i] = 1.0f;
    }
    const int n_blocks = task_blocks(e, t);
    for (int b = 0; b < n_blocks; b++) {
        struct block_rows r = {.end = t->row_begin};
        while (next_rows(e, t, b, &r, s->visible)) {
            for (int i = r.first_query; i < r.last_query; i++) {
                const float *row = query_scores(e, t, i) + b * KV_BLOCK;
                memcpy(s->p + (size_t)i * KV_BLOCK, row, KV_BLOCK * sizeof(float));
            }
            e->kernels->values(&tile, r.first_query, r.last_query, &r.keys);
        }
    }
    for (int i = 0; i < n; i++) {
        const size_t row = (size_t)e->rows[t->row_begin + i / t->n_heads],
                     head = (size_t)(t->head_begin + i % t->n_heads);
        memcpy(e->out + (row * (size_t)e->a->n_head + head) * (size_t)head_dim, s->o + (size_t)i * padded,
               (size_t)head_dim * sizeof(float));
    }
}

/* mean[row][key] over the heads of |score|, edited as far as the edit that asks for it. */
static void row_mean(const struct edited *e, int row) {
    const struct row_edits *edits = row_of(e, row)->edits;
    float *mean = e->mean + (size_t)row * e->stride;
    const int end = attention_row_end(row_of(e, row));
    memset(mean, 0, e->stride * sizeof *mean);
    for (int head = 0; head < e->a->n_head; head++) {
        float *s = e->scores + ((size_t)row * (size_t)e->a->n_head + (size_t)head) * e->stride;
        if (edits) {
            attention_edit_scores(edits, 0, attention_mean_edit(edits), head, e->a->n_head, s, NULL, end);
        }
        for (int key = 0; key < end; key++) {
            mean[key] += s[key] == -INFINITY ? 0.0f : fabsf(s[key]);
        }
    }
    for (int key = 0; key < end; key++) {
        mean[key] /= (float)e->a->n_head;
    }
}

static size_t cache_lines(size_t floats) {
    return (floats + 15) / 16 * 16;
}

/* The arrays of thread number `thread` in `memory`; returns the floats one thread takes. */
static size_t scratch_of(const struct edited *e, float *memory, int thread, struct tile_scratch *s) {
    const size_t head_dim = (size_t)e->a->shape->head_dim, padded = (size_t)e->padded_dim, tile = ATTENTION_TILE;
    const size_t sizes[] = {tile * head_dim,
                            tile * KV_BLOCK,
                            tile,
                            tile,
                            tile * padded,
                            head_dim * KV_BLOCK,
                            padded * KV_BLOCK,
                            e->scores ? 0 : tile * e->stride,
                            e->stride};
    enum { N = sizeof sizes / sizeof *sizes };
    size_t at[N + 1] = {0};
    for (int i = 0; i < N; i++) {
        at[i + 1] = at[i] + cache_lines(sizes[i]);
    }
    if (memory) {
        float *base = memory + (size_t)thread * at[N];
        *s = (struct tile_scratch){.q = base + at[0],
                                   .p = base + at[1],
                                   .alpha = base + at[2],
                                   .visible = (int *)(void *)(base + at[3]),
                                   .o = base + at[4],
                                   .k_t = base + at[5],
                                   .v = base + at[6],
                                   .scores = base + at[7],
                                   .row = base + at[8]};
    }
    return at[N];
}

/* Cuts the slice into tiles of rows that share at least the first block, smaller ones where threads would be idle. */
static void cut_tiles(struct edited *e, int n_threads) {
    const int64_t columns = (int64_t)e->a->shape->n_head_kv * e->n_parts;
    int most = ATTENTION_TILE / e->heads_per_tile;
    while (most * e->heads_per_tile > 12 && most > 1 && (e->n_rows / most + 1) * columns < 2 * (int64_t)n_threads) {
        most = (most + 1) / 2;
    }
    e->n_tiles = 0;
    e->tile_begin[0] = 0;
    for (int row = 1; row <= e->n_rows; row++) {
        const int begin = e->tile_begin[e->n_tiles];
        if (row == e->n_rows || row - begin == most || row_of(e, row)->blocks[0] != row_of(e, begin)->blocks[0]) {
            e->tile_begin[++e->n_tiles] = row;
        }
    }
}

static void run_slice(struct edited *e, float *memory, int n_threads) {
    cut_tiles(e, n_threads);
    const int64_t n_tasks = (int64_t)e->a->shape->n_head_kv * e->n_parts * e->n_tiles;
#pragma omp parallel num_threads(n_threads)
    {
        struct tile_scratch s;
        scratch_of(e, memory, omp_get_thread_num(), &s);
        if (e->mean) {
#pragma omp for schedule(dynamic, 1)
            for (int64_t i = 0; i < n_tasks; i++) {
                const struct tile_task t = task_get(e, i, &s);
                task_scores(e, &t, &s);
                task_probe_unedited(e, &t);
            }
#pragma omp for schedule(static)
            for (int row = 0; row < e->n_rows; row++) {
                row_mean(e, row);
            }
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < n_tasks; i++) {
            const struct tile_task t = task_get(e, i, &s);
            if (!e->mean) {
                task_scores(e, &t, &s);
                task_probe_unedited(e, &t);
            }
            task_edit(e, &t, &s);
            task_values(e, &t, &s);
        }
        if (e->probed.probs) {
#pragma omp for schedule(static)
            for (int row = 0; row < e->n_rows; row++) {
                probed_reduce(&e->probed, row_of(e, row), row);
            }
        }
    }
}

/* Memory of a call. */
struct edited_memory {
    int *rows, *tile_begin;
    float *scratch;
};

/* Lists the rows that are `all` or special, and allocates; slice: most rows at a time. */
static candid_status prepare(struct edited *e, enum cpu_isa isa, const struct kv_attention *a, bool all, int n_threads,
                             struct edited_memory *m, int *n, size_t *slice, candid_error *error) {
    const int group = a->n_head / a->shape->n_head_kv;
    *e = (struct edited){.kernels = attention_kernels_get(isa), .a = a};
    e->padded_dim = (a->shape->head_dim + e->kernels->lanes - 1) / e->kernels->lanes * e->kernels->lanes;
    e->heads_per_tile = group < ATTENTION_TILE ? group : ATTENTION_TILE;
    e->n_parts = (group - 1) / e->heads_per_tile + 1;
    m->rows = attention_alloc((size_t)a->n_rows, sizeof(int), 1);
    m->tile_begin = attention_alloc((size_t)a->n_rows + 1, sizeof(int), 1);
    int most_keys = 1;
    bool mean = false;
    *n = 0;
    for (int i = 0; m->rows && i < a->n_rows; i++) {
        if (all || attention_row_special(&a->rows[i])) {
            m->rows[(*n)++] = i;
            const int end = attention_row_end(&a->rows[i]);
            most_keys = end > most_keys ? end : most_keys;
            mean = mean || (!all && attention_edits_need_mean(a->rows[i].edits));
        }
    }
    e->stride = ((size_t)most_keys - 1) / KV_BLOCK * KV_BLOCK + KV_BLOCK;
    *slice = mean ? ATTENTION_SLICE / ((size_t)a->n_head * e->stride) : (size_t)*n;
    *slice = *slice < 1 ? 1 : *slice < (size_t)*n ? *slice : (size_t)*n;
    if (!all) {
        e->probed = probed_rows_of(a, e->stride);
        *slice = probed_rows_fit(&e->probed, (int)*slice);
        e->probed.probs = e->probed.n_sets == 0 ? NULL
                                                : attention_alloc(*slice * (size_t)e->probed.n_sets,
                                                                  (size_t)a->n_head * e->stride, sizeof(float));
    }
    if (mean) {
        e->scores = attention_alloc(*slice, (size_t)a->n_head * e->stride, sizeof(float));
        e->mean = attention_alloc(*slice, e->stride, sizeof(float));
    }
    m->scratch = attention_alloc((size_t)n_threads, scratch_of(e, NULL, 0, NULL), sizeof(float));
    e->tile_begin = m->tile_begin;
    if (!m->rows || !m->tile_begin || (mean && (!e->scores || !e->mean)) || !m->scratch ||
        (e->probed.n_sets > 0 && !e->probed.probs)) {
        return fail_memory(error, "edited attention",
                           (*slice * (size_t)(mean + e->probed.n_sets) * (size_t)a->n_head + ATTENTION_TILE) *
                               e->stride * sizeof(float));
    }
    return CANDID_OK;
}

static void release(struct edited *e, struct edited_memory *m) {
    free(m->rows);
    free(m->tile_begin);
    free(m->scratch);
    free(e->scores);
    free(e->mean);
    free(e->probed.probs);
}

candid_status attention_kv_edited(enum cpu_isa isa, const struct kv_attention *a, const float *q, float *out,
                                  int n_threads, candid_error *error) {
    struct edited e;
    struct edited_memory m;
    int n;
    size_t slice;
    n_threads = attention_threads(n_threads);
    const candid_status status = prepare(&e, isa, a, false, n_threads, &m, &n, &slice, error);
    e.q = q;
    e.out = out;
    for (size_t first = 0; status == CANDID_OK && first < (size_t)n; first += slice) {
        e.rows = m.rows + first;
        e.n_rows = (int)((size_t)n - first < slice ? (size_t)n - first : slice);
        run_slice(&e, m.scratch, n_threads);
    }
    release(&e, &m);
    return status;
}

/* Adds the probabilities of the task's rows to the sums of its heads. */
static void add_columns(const struct edited *e, const struct tile_task *t, float *sums) {
    for (int i = 0; i < (t->row_end - t->row_begin) * t->n_heads; i++) {
        const int end = attention_row_end(row_of(e, t->row_begin + i / t->n_heads));
        float *p = query_scores(e, t, i),
              *sum = sums + (size_t)(t->head_begin + i % t->n_heads) * (size_t)e->a->max_keys;
        e->kernels->softmax(p, (end - 1) / KV_BLOCK * KV_BLOCK + KV_BLOCK);
        for (int key = 0; key < end; key++) {
            sum[key] += p[key];
        }
    }
}

static bool any_wanted(const uint8_t *heads, const struct tile_task *t) {
    for (int head = t->head_begin; heads && head < t->head_begin + t->n_heads; head++) {
        if (heads[head]) {
            return true;
        }
    }
    return !heads;
}

candid_status attention_kv_columns_fast(enum cpu_isa isa, const struct kv_attention *a, const float *q,
                                        const uint8_t *heads, float *sums, int n_threads, candid_error *error) {
    TRY(attention_check_kv(a, error));
    struct edited e;
    struct edited_memory m;
    int n;
    size_t slice;
    n_threads = attention_threads(n_threads);
    const candid_status status = prepare(&e, isa, a, true, n_threads, &m, &n, &slice, error);
    e.q = q;
    e.rows = m.rows;
    e.n_rows = n;
    memset(sums, 0, (size_t)a->n_head * (size_t)a->max_keys * sizeof *sums);
    if (status == CANDID_OK) {
        cut_tiles(&e, 1);
        /* A head's columns belong to one thread, rows in order: the sums do not depend on the number of threads. */
#pragma omp parallel for num_threads(n_threads) schedule(dynamic, 1)
        for (int part = 0; part < a->shape->n_head_kv * e.n_parts; part++) {
            struct tile_scratch s;
            scratch_of(&e, m.scratch, omp_get_thread_num(), &s);
            for (int tile = 0; tile < e.n_tiles; tile++) {
                const struct tile_task t = task_at(&e, tile, part, &s);
                if (any_wanted(heads, &t)) {
                    task_scores(&e, &t, &s);
                    add_columns(&e, &t, sums);
                }
            }
        }
    }
    for (int head = 0; heads && head < a->n_head; head++) { /* computed beside a wanted one */
        if (!heads[head]) {
            memset(sums + (size_t)head * (size_t)a->max_keys, 0, (size_t)a->max_keys * sizeof *sums);
        }
    }
    release(&e, &m);
    return status;
}
