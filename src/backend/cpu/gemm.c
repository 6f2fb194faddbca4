/*
 * Products of stored weights with many activation rows: choice of the path, threads, loop order.
 *
 * Own integer paths: activations are packed once per call and shared by all jobs and threads. Work items are groups of
 * 64 output features; for each the thread unpacks a chunk of the weights (which then stays in its second-level cache)
 * and runs it against all activation tiles. Every output is computed by one thread in one fixed order, so results do
 * not depend on the number of threads.
 */
#include "backend/cpu/gemm.h"

#include <limits.h>
#include <omp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/gemm_internal.h"
#include "core/status.h"

#define SLAB_ROWS    1020 /* rows packed at once (a multiple of every tile_rows): bounds the scratch memory */
#define ITEM_PANELS  4    /* panels per work item */
#define ITEM_COLUMNS (ITEM_PANELS * GEMM_COLUMNS)
#define CHUNK_VALUES 1024 /* values of a weight row unpacked at once */

struct gemm {
    enum gemm_path path;
    bool int16_only;
    int n_threads;
    const struct gemm_kernels *kernels; /* own paths */
    struct gemm_onednn *onednn;         /* oneDNN paths */
    uint8_t *tiles[2];                  /* packed activations: S8, S16; grown on demand, 64-byte aligned */
    size_t tiles_size[2];
    uint8_t *panels; /* [n_threads][panels_size] */
    size_t panels_size;
    char description[48];
};

static const struct gemm_kernels *kernels_of(enum gemm_path path) {
    switch (path) {
    case GEMM_SCALAR: return &gemm_kernels_scalar;
#if defined(__x86_64__)
    case GEMM_AVX2: return cpu_isa_available(ISA_AVX2) ? &gemm_kernels_avx2 : NULL;
    case GEMM_AVX512: return cpu_isa_available(ISA_AVX512) ? &gemm_kernels_avx512 : NULL;
#endif
    default: return NULL;
    }
}

static const char *path_name(enum gemm_path path) {
    static const char *const names[] = {"integer scalar", "integer avx2", "integer avx512", "onednn f32",
                                        "onednn bf16"};
    return names[path];
}

static int chunk_blocks(enum gemm_format f) {
    return gemm_blocks(f, CHUNK_VALUES);
}

static size_t round_up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

candid_status gemm_create_with(enum gemm_path path, bool int16_only, int n_threads, struct gemm **out,
                               candid_error *error) {
    if (n_threads < 1) {
        return fail(error, CANDID_ERROR_ARGUMENT, "gemm needs at least one thread, %d asked for", n_threads);
    }
    struct gemm *g = calloc(1, sizeof *g);
    if (!g) {
        return fail_memory(error, "gemm", sizeof *g);
    }
    g->path = path;
    g->int16_only = int16_only;
    g->n_threads = n_threads;
    snprintf(g->description, sizeof g->description, "%s%s", path_name(path), int16_only ? " (int16 only)" : "");
    candid_status status = CANDID_OK;
    if (path == GEMM_ONEDNN_F32 || path == GEMM_ONEDNN_BF16) {
        TRY_GOTO(gemm_onednn_create(path == GEMM_ONEDNN_BF16, n_threads, &g->onednn, error), status, failed);
    } else {
        g->kernels = kernels_of(path);
        if (!g->kernels) {
            status =
                fail(error, CANDID_ERROR_UNSUPPORTED, "products by %s cannot run on this processor", path_name(path));
            goto failed;
        }
        for (int f = 0; f < GEMM_FORMATS; f++) {
            const size_t bytes =
                ITEM_PANELS * (size_t)chunk_blocks((enum gemm_format)f) * gemm_panel_bytes((enum gemm_format)f);
            g->panels_size = bytes > g->panels_size ? bytes : g->panels_size;
        }
        g->panels_size = round_up(g->panels_size, 4096);
        g->panels = aligned_alloc(4096, g->panels_size * (size_t)n_threads);
        if (!g->panels) {
            status = fail_memory(error, "unpacked weights", g->panels_size * (size_t)n_threads);
            goto failed;
        }
    }
    *out = g;
    return CANDID_OK;
failed:
    gemm_free(g);
    return status;
}

bool gemm_path_available(enum gemm_path path) {
    struct gemm *g = NULL;
    const bool available = gemm_create_with(path, false, 1, &g, NULL) == CANDID_OK;
    gemm_free(g);
    return available;
}

candid_status gemm_create(struct cpu_features features, int n_threads, struct gemm **out, candid_error *error) {
    if (features.bf16_matmul) {
        const candid_status status = gemm_create_with(GEMM_ONEDNN_BF16, false, n_threads, out, error);
        if (status != CANDID_ERROR_UNSUPPORTED) {
            return status;
        }
    }
    const enum gemm_path path = features.isa == ISA_AVX512 ? GEMM_AVX512
                                : features.isa == ISA_AVX2 ? GEMM_AVX2
                                                           : GEMM_ONEDNN_F32;
    return gemm_create_with(path, false, n_threads, out, error);
}

void gemm_free(struct gemm *g) {
    if (g) {
        gemm_onednn_free(g->onednn);
        free(g->tiles[0]);
        free(g->tiles[1]);
        free(g->panels);
        free(g);
    }
}

const char *gemm_description(const struct gemm *g) {
    return g->description;
}

/* ---- own integer paths ---- */

static enum gemm_format format_of(const struct gemm *g, uint32_t type) {
    return g->int16_only ? GEMM_S16 : gemm_format_of(type);
}

/* Which of g->tiles format f multiplies with. */
static int tiles_of(enum gemm_format f) {
    return f == GEMM_S16;
}

static candid_status reserve_tiles(struct gemm *g, int which, size_t bytes, candid_error *error) {
    if (g->tiles_size[which] >= bytes) {
        return CANDID_OK;
    }
    free(g->tiles[which]);
    g->tiles_size[which] = 0;
    bytes = round_up(bytes, 64);
    g->tiles[which] = aligned_alloc(64, bytes);
    if (!g->tiles[which]) {
        return fail_memory(error, "packed activations", bytes);
    }
    g->tiles_size[which] = bytes;
    return CANDID_OK;
}

/* A work item: columns [column, column + n_columns) of a job, for rows [row, row + n_rows) of its output. */
struct item {
    const struct linear_job *job;
    int column, n_columns;
    int row, n_rows;
};

/* out = (out or bias or zero) + unit * sums, n values; n is a constant for whole panels. */
static inline void merge_row(float *out, const float *start, const float *sums, float unit, int n) {
    for (int j = 0; j < n; j++) {
        out[j] = (start ? start[j] : 0.0f) + unit * sums[j];
    }
}

/* Adds a tile of r x 16 sums to the output; the first one starts from the bias. units: d of the rows. */
static void merge(const struct item *item, bool first, int row, int r, int panel, const float *c,
                  const uint8_t *units) {
    const int column = item->column + panel * GEMM_COLUMNS, left = item->n_columns - panel * GEMM_COLUMNS;
    const float *bias = item->job->bias ? item->job->bias + column : NULL;
    for (int i = 0; i < r; i++) {
        float *out = item->job->out + (size_t)(item->row + row + i) * (size_t)item->job->w->n_out + column;
        const float *start = first ? bias : out, *sums = c + i * GEMM_COLUMNS;
        float unit;
        memcpy(&unit, units + 4 * i, sizeof unit);
        if (left < GEMM_COLUMNS) {
            merge_row(out, start, sums, unit, left);
        } else if (start) {
            merge_row(out, start, sums, unit, GEMM_COLUMNS);
        } else {
            merge_row(out, NULL, sums, unit, GEMM_COLUMNS);
        }
    }
}

static void run_item(const struct gemm *g, const struct item *item, uint8_t *panels) {
    const struct matrix *w = item->job->w;
    const enum gemm_format f = format_of(g, w->type);
    struct gemm_weights weights = {
        .type = w->type, .data = w->data, .row_bytes = quant_row_bytes(w->type, w->n_in), .n_in = w->n_in};
    const int n_blocks = gemm_blocks(f, w->n_in), chunk = chunk_blocks(f), tile_rows = g->kernels->tile_rows;
    const int n_panels = (item->n_columns + GEMM_COLUMNS - 1) / GEMM_COLUMNS;
    const size_t panel_size = (size_t)chunk * gemm_panel_bytes(f), row_size = gemm_row_bytes(f, w->n_in);
    const size_t panel_rows = GEMM_COLUMNS * weights.row_bytes, chunk_bytes = quant_row_bytes(w->type, CHUNK_VALUES);
    const uint8_t *tiles = g->tiles[tiles_of(f)];
    _Alignas(64) float c[GEMM_MAX_TILE * GEMM_COLUMNS];

    for (int block = 0; block < n_blocks; block += chunk) {
        const int count = n_blocks - block < chunk ? n_blocks - block : chunk;
        for (int p = 0; p < n_panels; p++) {
            const int left = item->n_columns - p * GEMM_COLUMNS;
            weights.ahead = p + 1 < n_panels ? (ptrdiff_t)panel_rows
                                             : (ptrdiff_t)chunk_bytes - (n_panels - 1) * (ptrdiff_t)panel_rows;
            g->kernels->pack_weights(f, &weights, item->column + p * GEMM_COLUMNS,
                                     left < GEMM_COLUMNS ? left : GEMM_COLUMNS, block, count,
                                     panels + (size_t)p * panel_size);
        }
        for (int row = 0; row < item->n_rows; row += tile_rows) {
            const int r = item->n_rows - row < tile_rows ? item->n_rows - row : tile_rows;
            const uint8_t *header = tiles + (size_t)row * row_size;
            const uint8_t *tile = header + ((size_t)block * gemm_tile_bytes(f) + sizeof(float)) * (size_t)r;
            for (int p = 0; p < n_panels; p++) {
                memset(c, 0, (size_t)r * GEMM_COLUMNS * sizeof c[0]);
                for (int i = 0; i < r; i++) {
                    const size_t at = (size_t)(item->row + row + i) * (size_t)w->n_out;
                    __builtin_prefetch(item->job->out + at + (size_t)(item->column + p * GEMM_COLUMNS), 1);
                }
                g->kernels->multiply(f, r, count, tile, panels + (size_t)p * panel_size, c);
                merge(item, block == 0, row, r, p, c, header);
            }
        }
    }
}

/* Item number i of rows [row, row + n_rows). */
static struct item find_item(const struct linear_job *jobs, int i, int row, int n_rows) {
    for (;; jobs++) {
        const int n_items = (jobs->w->n_out + ITEM_COLUMNS - 1) / ITEM_COLUMNS;
        if (i < n_items) {
            const int column = i * ITEM_COLUMNS, left = jobs->w->n_out - column;
            return (struct item){.job = jobs,
                                 .column = column,
                                 .n_columns = left < ITEM_COLUMNS ? left : ITEM_COLUMNS,
                                 .row = row,
                                 .n_rows = n_rows};
        }
        i -= n_items;
    }
}

static candid_status linear_slab(struct gemm *g, const float *x, int row, int n_rows, int n_in,
                                 const struct linear_job *jobs, int n_jobs, candid_error *error) {
    bool wanted[2] = {false, false};
    int n_items = 0;
    for (int j = 0; j < n_jobs; j++) {
        wanted[tiles_of(format_of(g, jobs[j].w->type))] = true;
        n_items += (jobs[j].w->n_out + ITEM_COLUMNS - 1) / ITEM_COLUMNS;
    }
    for (int t = 0; t < 2; t++) {
        if (wanted[t]) {
            TRY(reserve_tiles(g, t, (size_t)n_rows * gemm_row_bytes(t ? GEMM_S16 : GEMM_U4, n_in), error));
        }
    }
    const struct gemm_kernels *kernels = g->kernels;
    const int tile_rows = kernels->tile_rows, n_tiles = (n_rows + tile_rows - 1) / tile_rows;
    atomic_int next_item = 0;
    /* Small products (a small model) are done before a second thread has woken up. */
    const double work = (double)n_rows * n_in * n_items * ITEM_COLUMNS;
#pragma omp parallel num_threads(work < 4e6 ? 1 : g->n_threads)
    {
#pragma omp for schedule(dynamic, 1)
        for (int tile = 0; tile < n_tiles; tile++) {
            const int first = tile * tile_rows, r = n_rows - first < tile_rows ? n_rows - first : tile_rows;
            const float *rows = x + (size_t)(row + first) * (size_t)n_in;
            if (wanted[0]) {
                kernels->pack_s8(rows, (size_t)n_in, r, n_in,
                                 g->tiles[0] + (size_t)first * gemm_row_bytes(GEMM_U4, n_in));
            }
            if (wanted[1]) {
                kernels->pack_s16(rows, (size_t)n_in, r, n_in,
                                  g->tiles[1] + (size_t)first * gemm_row_bytes(GEMM_S16, n_in));
            }
        }
        uint8_t *panels = g->panels + (size_t)omp_get_thread_num() * g->panels_size;
        for (int i = atomic_fetch_add(&next_item, 1); i < n_items; i = atomic_fetch_add(&next_item, 1)) {
            const struct item item = find_item(jobs, i, row, n_rows);
            run_item(g, &item, panels);
        }
    }
    return CANDID_OK;
}

static candid_status check_jobs(int n_rows, int n_in, const struct linear_job *jobs, int n_jobs, candid_error *error) {
    if (n_rows < 0 || n_in < 1 || n_in > INT_MAX - GEMM_S16_BLOCK) {
        return fail(error, CANDID_ERROR_ARGUMENT, "product of %d rows of %d values", n_rows, n_in);
    }
    int64_t n_items = 0;
    for (int j = 0; j < n_jobs; j++) {
        const struct matrix *w = jobs[j].w;
        if (!quant_type_supported(w->type)) {
            return fail(error, CANDID_ERROR_UNSUPPORTED, "product with weights of unsupported type %u",
                        (unsigned)w->type);
        }
        if (w->n_in != n_in || w->n_out < 1 || n_in % quant_block_values(w->type) != 0) {
            return fail(error, CANDID_ERROR_ARGUMENT, "product of rows of %d values with a %s matrix of %d x %d", n_in,
                        quant_type_name(w->type), w->n_out, w->n_in);
        }
        n_items += w->n_out / ITEM_COLUMNS + 1;
    }
    if (n_items > INT_MAX / 2) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%d products in one call are too many", n_jobs);
    }
    return CANDID_OK;
}

candid_status gemm_linear(struct gemm *g, const float *x, int n_rows, int n_in, const struct linear_job *jobs,
                          int n_jobs, candid_error *error) {
    TRY(check_jobs(n_rows, n_in, jobs, n_jobs, error));
    if (n_jobs < 1) {
        return CANDID_OK;
    }
    if (g->onednn) {
        return n_rows ? gemm_onednn_linear(g->onednn, x, n_rows, n_in, jobs, n_jobs, error) : CANDID_OK;
    }
    for (int row = 0; row < n_rows; row += SLAB_ROWS) {
        const int count = n_rows - row < SLAB_ROWS ? n_rows - row : SLAB_ROWS;
        TRY(linear_slab(g, x, row, count, n_in, jobs, n_jobs, error));
    }
    return CANDID_OK;
}
