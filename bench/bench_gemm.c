/*
 * Speed of products with many activation rows: the shapes of LLaVA-1.5-7B's prefill (640 rows) and image encoder
 * (577 rows), best of N runs, own path beside oneDNN f32.
 *
 *   bench_gemm [threads [runs [type-name]]]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/cpu/gemm_internal.h"

/* With one thread the processor time of the process, which other programs disturb less than the clock on the wall. */
static double now(int n_threads) {
    struct timespec t;
    clock_gettime(n_threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static uint32_t random_u32(void) {
    static uint64_t seed = 1;
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}

static float random_float(void) {
    return (float)random_u32() * 0x1p-31f - 1.0f;
}

/* Weights of small random values; K types get random bits with sane scales. */
static void fill(uint32_t type, uint8_t *data, size_t n) {
    if (quant_block_values(type) < QKK) {
        float values[QK];
        for (size_t i = 0; i < n / QK; i++, data += quant_row_bytes(type, QK)) {
            for (int k = 0; k < QK; k++) {
                values[k] = random_float();
            }
            quant_quantize(type, values, data, QK);
        }
        return;
    }
    const size_t bytes = quant_row_bytes(type, (int64_t)n), block = quant_block_bytes(type);
    for (size_t i = 0; i < bytes; i++) {
        data[i] = (uint8_t)random_u32();
    }
    const uint16_t d = f32_to_f16(0.001f);
    for (size_t i = 0; i < bytes; i += block) {
        memcpy(data + i + (type == TYPE_Q6_K ? offsetof(struct block_q6_k, d) : 0), &d, 2);
        if (type != TYPE_Q6_K) {
            memcpy(data + i + 2, &d, 2);
        }
    }
}

struct shape {
    int rows, n_in, n_out;
};

/* GFLOP/s of the best of `runs`, 0 when the path cannot run here. */
static double measure(enum gemm_path path, bool int16_only, int n_threads, int runs, const float *x,
                      const struct matrix *w, int rows, float *out) {
    struct gemm *g = NULL;
    if (gemm_create_with(path, int16_only, n_threads, &g, NULL) != CANDID_OK) {
        return 0;
    }
    const struct linear_job job = {.w = w, .out = out};
    double best = INFINITY;
    for (int i = 0; i < runs; i++) {
        const double start = now(n_threads);
        if (gemm_linear(g, x, rows, w->n_in, &job, 1, NULL) != CANDID_OK) {
            best = INFINITY;
            break;
        }
        const double seconds = now(n_threads) - start;
        best = seconds < best ? seconds : best;
    }
    gemm_free(g);
    return 2e-9 * rows * w->n_in * w->n_out / best;
}

static void bench(uint32_t type, struct shape s, int n_threads, int runs) {
    const size_t n = (size_t)s.n_in * (size_t)s.n_out;
    uint8_t *data = aligned_alloc(64, (quant_row_bytes(type, (int64_t)n) + 63) / 64 * 64);
    float *x = malloc((size_t)s.rows * (size_t)s.n_in * sizeof *x);
    float *out = malloc((size_t)s.rows * (size_t)s.n_out * sizeof *out);
    if (data && x && out) {
        fill(type, data, n);
        for (size_t i = 0; i < (size_t)s.rows * (size_t)s.n_in; i++) {
            x[i] = random_float();
        }
        const struct matrix w = {.type = type, .n_out = s.n_out, .n_in = s.n_in, .data = data};
        printf("%-5s %4d x %5d -> %5d  ", quant_type_name(type), s.rows, s.n_in, s.n_out);
        static const enum gemm_path paths[] = {GEMM_AVX2, GEMM_AVX2, GEMM_AVX512, GEMM_ONEDNN_F32, GEMM_ONEDNN_BF16};
        for (int p = 0; p < 5; p++) {
            const bool int16_only = p == 1;
            if (int16_only && gemm_format_of(type) == GEMM_S16) {
                printf("       -");
                continue;
            }
            printf(" %7.0f", measure(paths[p], int16_only, n_threads, runs, x, &w, s.rows, out));
        }
        printf("\n");
        fflush(stdout);
    }
    free(data);
    free(x);
    free(out);
}

int main(int argc, char **argv) {
    const int n_threads = argc > 1 ? atoi(argv[1]) : 2, runs = argc > 2 ? atoi(argv[2]) : 5;
    static const uint32_t types[] = {TYPE_Q4_0, TYPE_Q4_K, TYPE_Q5_K, TYPE_Q6_K, TYPE_Q8_0, TYPE_F16};
    static const struct shape decoder[] = {{640, 4096, 4096}, {640, 4096, 11008}, {640, 11008, 4096}};
    static const struct shape encoder[] = {{577, 1024, 1024}, {577, 1024, 4096}, {577, 4096, 1024}};
    printf("GFLOP/s, %d threads, best of %d\n", n_threads, runs);
    printf("%-29s  %7s %7s %7s %7s %7s\n", "", "avx2", "(int16)", "avx512", "1dnn32", "1dnn16");
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        if (argc > 3 && strcmp(argv[3], quant_type_name(types[t])) != 0) {
            continue;
        }
        for (int i = 0; i < 3; i++) {
            bench(types[t], decoder[i], n_threads, runs);
        }
        for (int i = 0; types[t] == TYPE_F16 && i < 3; i++) {
            bench(types[t], encoder[i], n_threads, runs * 4);
        }
    }
    return 0;
}
