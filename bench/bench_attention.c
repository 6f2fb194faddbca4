/*
 * Speed of the fast attention path: GFLOP/s of prefill and image encoder, GB/s of keys and values read in decode.
 *
 *   bench_attention [n_threads]      default 2; prints one line per case, best of several runs
 *
 * Counted: 4 · head_dim flop per (query, key) pair that is not masked; in decode 2 · n_keys · head_dim cache elements
 * per key head and row.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "backend/cpu/attention.h"

#define RUNS       5
#define MAX_ROWS   640
#define MAX_BLOCKS 128 /* of a sequence */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *checked(void *p) {
    if (!p) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return p;
}

static float *random_floats(size_t n) {
    float *x = checked(malloc(n * sizeof(float)));
    uint32_t s = 1;
    for (size_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = (float)(s >> 8) / 8388608.0f - 1.0f;
    }
    return x;
}

static void check(candid_status status) {
    if (status != CANDID_OK) {
        fprintf(stderr, "attention failed: status %d\n", (int)status);
        exit(1);
    }
}

struct kv_case {
    const char *name;
    int n_head, n_head_kv, head_dim;
    bool f32;
    int n_keys; /* of the last row */
    int n_rows;
    bool prompt; /* rows are the last n_rows tokens of one sequence, else the last token of n_rows sequences */
};

static void bench_kv(enum cpu_isa isa, const struct kv_case *c, int n_threads) {
    /* several layers, called in turn as in a model, so that decode finds its keys in memory and not in the cache */
    const int n_layer = c->prompt ? 1 : 4;
    const struct kv_shape shape = {n_layer, c->n_head_kv, c->head_dim, c->f32};
    const size_t elements = kv_offset(&shape, n_layer, 0, 0), width = (size_t)c->n_head * (size_t)c->head_dim;
    const int n_seq = c->prompt ? 1 : c->n_rows, n_blocks = (c->n_keys + KV_BLOCK - 1) / KV_BLOCK;
    void **blocks = checked(malloc((size_t)n_seq * MAX_BLOCKS * sizeof(void *)));
    for (int s = 0; s < n_seq; s++) {
        for (int b = 0; b < n_blocks; b++) {
            blocks[s * MAX_BLOCKS + b] = checked(aligned_alloc(64, elements * (c->f32 ? 4 : 2)));
        }
    }
    struct attention_row rows[MAX_ROWS];
    struct kv_attention a = {.shape = &shape, .n_head = c->n_head, .rows = rows, .scale = 0.1f};
    float *k = random_floats((size_t)c->n_head_kv * (size_t)c->head_dim);
    for (int s = 0; s < n_seq; s++) {
        for (int i = 0; i < c->n_keys; i++) {
            rows[0] = (struct attention_row){.blocks = blocks + s * MAX_BLOCKS, .index = i, .n_keys = i + 1};
            a.n_rows = 1;
            for (a.layer = 0; a.layer < n_layer; a.layer++) {
                attention_kv_store(&a, k, k, 1);
            }
        }
    }
    double pairs = 0.0;
    a.n_rows = c->n_rows;
    for (int i = 0; i < c->n_rows; i++) {
        const int index = c->prompt ? c->n_keys - c->n_rows + i : c->n_keys - 1;
        rows[i] = (struct attention_row){
            .blocks = blocks + (c->prompt ? 0 : i * MAX_BLOCKS), .index = index, .n_keys = index + 1};
        pairs += index + 1;
    }
    float *q = random_floats((size_t)c->n_rows * width), *out = random_floats((size_t)c->n_rows * width);
    double best = 1e30;
    for (int run = 0; run < RUNS; run++) {
        const double start = now();
        for (a.layer = 0; a.layer < n_layer; a.layer++) {
            check(attention_kv_fast(isa, &a, q, out, n_threads, NULL));
        }
        const double seconds = (now() - start) / n_layer;
        best = seconds < best ? seconds : best;
    }
    const double flop = 4.0 * pairs * (double)width;
    const double bytes = pairs * 2.0 * (double)c->n_head_kv * (double)c->head_dim * (c->f32 ? 4.0 : 2.0);
    printf("%-7s %-44s %9.3f ms %8.1f GFLOP/s", cpu_isa_name(isa), c->name, best * 1e3, flop / best * 1e-9);
    if (!c->prompt) {
        printf(" %7.1f GB/s", bytes / best * 1e-9);
    }
    printf("\n");
    for (int s = 0; s < n_seq; s++) {
        for (int b = 0; b < n_blocks; b++) {
            free(blocks[s * MAX_BLOCKS + b]);
        }
    }
    free(blocks);
    free(k);
    free(q);
    free(out);
}

/*
 * One step of a beam search that looks ahead: each of n_beams forks of one sequence has n_each candidates for its next
 * token, as alternatives (lm/llama.h); with n_each 0 it has one ordinary row. Probed: with the highest probability over
 * the heads told of each row.
 */
static void bench_candidates(enum cpu_isa isa, int n_beams, int n_each, int n_keys, bool probed, int n_threads) {
    enum { HEADS = 32, DIM = 128, WIDTH = HEADS * DIM, LAYERS = 4, SHARED = 600 };
    const struct kv_shape shape = {LAYERS, HEADS, DIM, false};
    const size_t bytes = kv_offset(&shape, LAYERS, 0, 0) * sizeof(uint16_t);
    const int per_beam = n_each > 0 ? n_each : 1, n_rows = n_beams * per_beam;
    const int n_blocks = (n_keys + per_beam - 1) / KV_BLOCK + 1, n_shared = SHARED / KV_BLOCK;
    void **blocks = checked(malloc((size_t)n_beams * MAX_BLOCKS * sizeof(void *)));
    for (int s = 0; s < n_beams; s++) {
        for (int b = 0; b < n_blocks; b++) {
            void **block = &blocks[s * MAX_BLOCKS + b];
            *block = s > 0 && b < n_shared ? blocks[b] : checked(aligned_alloc(64, bytes));
            for (size_t i = 0; i < bytes / 2; i++) {
                ((uint16_t *)*block)[i] = (uint16_t)(0x2c00 + i * 2654435761u % 4096); /* 0.06 to 1 */
            }
        }
    }
    struct attention_row rows[MAX_ROWS];
    struct row_probe probes[MAX_ROWS];
    float *values = checked(malloc((size_t)n_rows * (size_t)(n_keys + per_beam) * sizeof *values));
    for (int i = 0; i < n_rows; i++) {
        const int beam = i / per_beam, own = n_keys + i % per_beam;
        rows[i] = (struct attention_row){.blocks = blocks + beam * MAX_BLOCKS, .index = own, .n_keys = own + 1};
        if (n_each > 0) {
            rows[i].n_keys = n_keys;
            rows[i].also_begin = own;
            rows[i].also_end = own + 1;
        }
        probes[i] = (struct row_probe){HEADS_MAX, false, values + (size_t)i * (size_t)(n_keys + per_beam)};
        rows[i].probes = &probes[i];
        rows[i].n_probes = probed;
    }
    struct kv_attention a = {.shape = &shape, .n_head = HEADS, .rows = rows, .n_rows = n_rows, .scale = 0.1f};
    float *q = random_floats((size_t)n_rows * WIDTH), *out = random_floats((size_t)n_rows * WIDTH);
    double best = 1e30;
    for (int run = 0; run < 2 * RUNS; run++) {
        const double start = now();
        for (a.layer = 0; a.layer < LAYERS; a.layer++) {
            check(attention_kv_fast(isa, &a, q, out, n_threads, NULL));
        }
        const double seconds = (now() - start) / LAYERS;
        best = seconds < best ? seconds : best;
    }
    char name[80];
    snprintf(name, sizeof name, n_each > 0 ? "%d beams, %d candidates each, %d keys%s" : "%d beams%.0d, %d keys%s",
             n_beams, n_each, n_keys, probed ? ", probed" : "");
    printf("%-7s %-44s %9.3f ms\n", cpu_isa_name(isa), name, best * 1e3);
    for (int s = 0; s < n_beams; s++) {
        for (int b = s > 0 ? n_shared : 0; b < n_blocks; b++) {
            free(blocks[s * MAX_BLOCKS + b]);
        }
    }
    free(blocks);
    free(values);
    free(q);
    free(out);
}

static void bench_full(enum cpu_isa isa, int n_rows, int n_head, int head_dim, int n_threads) {
    const size_t n = (size_t)n_rows * (size_t)n_head * (size_t)head_dim;
    float *q = random_floats(n), *k = random_floats(n), *v = random_floats(n), *out = random_floats(n);
    double best = 1e30;
    for (int run = 0; run < RUNS; run++) {
        const double start = now();
        check(attention_full_fast(isa, q, k, v, out, n_rows, n_head, head_dim, 0.125f, n_threads, NULL));
        const double seconds = now() - start;
        best = seconds < best ? seconds : best;
    }
    char name[64];
    snprintf(name, sizeof name, "image encoder, %d rows, %d heads of %d", n_rows, n_head, head_dim);
    printf("%-7s %-44s %9.3f ms %8.1f GFLOP/s\n", cpu_isa_name(isa), name, best * 1e3,
           4.0 * (double)n * (double)n_rows / best * 1e-9);
    free(q);
    free(k);
    free(v);
    free(out);
}

int main(int argc, char **argv) {
    static const struct kv_case cases[] = {
        {"prefill 640, 32 heads of 128, f16", 32, 32, 128, false, 640, 640, true},
        {"prefill 640, 32 heads of 128, f32", 32, 32, 128, true, 640, 640, true},
        {"prefill 640, 32/8 heads of 128, f16", 32, 8, 128, false, 640, 640, true},
        {"prefill 64 after 576, 32 heads of 128, f16", 32, 32, 128, false, 640, 64, true},
        {"prefill 640, 8 heads of 32, f16", 8, 8, 32, false, 640, 640, true},
        {"decode 1 row, 700 keys, 32 heads of 128, f16", 32, 32, 128, false, 700, 1, false},
        {"decode 1 row, 700 keys, 32 heads of 128, f32", 32, 32, 128, true, 700, 1, false},
        {"decode 1 row, 4096 keys, 32 heads of 128, f16", 32, 32, 128, false, 4096, 1, false},
        {"decode 1 row, 4096 keys, 32/8 heads of 128, f16", 32, 8, 128, false, 4096, 1, false},
        {"decode 4 rows, 700 keys, 32 heads of 128, f16", 32, 32, 128, false, 700, 4, false},
        {"decode 1 row, 4096 keys, 8/1 heads of 128, f16", 8, 1, 128, false, 4096, 1, false},
    };
    const int n_threads = argc > 1 ? atoi(argv[1]) : 2;
    const enum cpu_isa isa = cpu_detect().isa;
    bench_full(isa, 577, 16, 64, n_threads);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bench_kv(isa, &cases[i], n_threads);
    }
    for (int probed = 0; probed < 2; probed++) {
        bench_candidates(isa, 1, 0, 1100, probed, n_threads);
        bench_candidates(isa, 5, 0, 1100, probed, n_threads);
        bench_candidates(isa, 1, 5, 1100, probed, n_threads);
        bench_candidates(isa, 5, 5, 1100, probed, n_threads);
    }
    return 0;
}
