/*
 * Speed of the matvec kernels beside the plain read bandwidth of the machine.
 *
 *   bench_matvec [--isa scalar|neon|avx2|avx512] [--type NAME] [--rows N_OUT --in N_IN] [--ms MILLISECONDS]
 *                [--set MEBIBYTES]
 *
 * The weights rotate through a working set (--set, default 192 MiB) larger than the last-level cache, so each product
 * reads them from memory as decoding does; --set 0 keeps one matrix in the caches and so shows the arithmetic alone.
 * Every number is that of the fastest product among several runs of about MILLISECONDS each, taken in turn with the
 * plain reads, because other load on the machine only ever slows a run down. Times are relative to one activation row.
 */
#include <omp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/matvec.h"
#include "model/quant.h"

#define ROUNDS 5

static uint32_t random_state = 1;

static uint32_t random_u32(void) {
    random_state = random_state * 1664525u + 1013904223u;
    return random_state ^ random_state >> 15;
}

/* Random blocks with scales near 0.01. */
static void fill_weights(uint32_t type, uint8_t *w, size_t bytes) {
    if (type == TYPE_F32 || type == TYPE_F16 || type == TYPE_BF16) {
        size_t size = quant_block_bytes(type);
        for (size_t i = 0; i < bytes; i += size) {
            float value = (float)(random_u32() % 2001) * 1e-3f - 1.0f;
            quant_quantize(type, &value, w + i, 1);
        }
        return;
    }
    size_t block = quant_block_bytes(type);
    size_t at = type == TYPE_Q6_K ? offsetof(struct block_q6_k, d) : 0;
    size_t n_scales = type == TYPE_Q4_K || type == TYPE_Q5_K ? 2 : 1;
    for (size_t i = 0; i + 4 <= bytes; i += 4) {
        uint32_t bits = random_u32();
        memcpy(w + i, &bits, 4);
    }
    for (size_t i = 0; i < bytes; i += block) {
        for (size_t s = 0; s < n_scales; s++) {
            uint16_t d = f32_to_f16(0.01f + (float)(random_u32() % 100) * 1e-5f);
            memcpy(w + i + at + 2 * s, &d, 2);
        }
    }
}

/* Sum of the words: keeps the compiler from leaving the reads out. */
static uint64_t read_all(const uint8_t *data, size_t bytes, int n_threads) {
    uint64_t total = 0;
#pragma omp parallel num_threads(n_threads) reduction(+ : total)
    {
        size_t n = bytes / 64, id = (size_t)omp_get_thread_num(), count = (size_t)omp_get_num_threads();
        const uint64_t *p = (const uint64_t *)data + n * id / count * 8,
                       *end = (const uint64_t *)data + n * (id + 1) / count * 8;
        uint64_t part[8] = {0};
        for (; p < end; p += 8) {
            for (int j = 0; j < 8; j++) {
                part[j] += p[j];
            }
        }
        for (int j = 0; j < 8; j++) {
            total += part[j];
        }
    }
    return total;
}

struct shape {
    int n_out, n_in;
};

struct run {
    const struct matvec_kernels *kernels;
    uint32_t type;
    struct shape shape;
    const uint8_t *weights; /* n_copies matrices */
    size_t matrix_bytes, n_copies, next;
    const void *prepared;
    float *out;
    uint64_t sink; /* sums of plain reads */
};

/*
 * The next copy of the matrix. Plain reads and products take turns with the same copies, so that what is read next is
 * always what has not been read for longest.
 */
static const uint8_t *next_copy(struct run *run) {
    run->next = (run->next + 1) % run->n_copies;
    return run->weights + run->next * run->matrix_bytes;
}

/* One product (n_x > 0), rows split over the threads, or one plain read (n_x = 0). */
static void pass(struct run *run, int n_threads, int n_x) {
    const uint8_t *w = next_copy(run);
    if (n_x == 0) {
        run->sink += read_all(w, run->matrix_bytes, n_threads);
        return;
    }
#pragma omp parallel num_threads(n_threads)
    {
        long id = omp_get_thread_num(), count = omp_get_num_threads();
        int begin = (int)(run->shape.n_out * id / count), end = (int)(run->shape.n_out * (id + 1) / count);
        run->kernels->multiply(run->type, w, run->shape.n_in, begin, end, run->prepared, n_x, run->out + begin,
                               run->shape.n_out);
    }
}

/* Bytes per second of the fastest pass within about `seconds`. */
static double measure(struct run *run, int n_threads, int n_x, double seconds) {
    double start = omp_get_wtime(), begin = start, best = 1e9;
    do {
        pass(run, n_threads, n_x);
        double end = omp_get_wtime();
        best = end - begin < best ? end - begin : best;
        begin = end;
    } while (begin - start < seconds);
    return (double)run->matrix_bytes / best;
}

static const int n_x_tried[] = {0, 1, 2, 3, 4, 8}; /* 0: plain read */
#define N_TRIED (sizeof n_x_tried / sizeof n_x_tried[0])

static bool bench_type(const struct matvec_kernels *kernels, uint32_t type, struct shape shape, size_t working_set,
                       double seconds) {
    struct run run = {.kernels = kernels, .type = type, .shape = shape};
    run.matrix_bytes = (size_t)shape.n_out * quant_row_bytes(type, shape.n_in);
    run.n_copies = working_set / run.matrix_bytes + 1;
    size_t bytes = run.n_copies * run.matrix_bytes, prepared_row = kernels->prepared_bytes(type, shape.n_in);
    uint8_t *weights = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    float *x = malloc((size_t)shape.n_in * sizeof(float));
    uint8_t *prepared = aligned_alloc(64, prepared_row * MATVEC_MAX_ROWS);
    run.out = malloc((size_t)shape.n_out * MATVEC_MAX_ROWS * sizeof(float));
    bool ok = weights && x && prepared && run.out;
    if (ok) {
        fill_weights(type, weights, run.matrix_bytes);
        for (size_t i = 1; i < run.n_copies; i++) {
            memcpy(weights + i * run.matrix_bytes, weights, run.matrix_bytes);
        }
        double prepare_time = 1e9;
        for (size_t r = 0; r < MATVEC_MAX_ROWS; r++) {
            for (int i = 0; i < shape.n_in; i++) {
                x[i] = (float)(random_u32() % 2001) * 1e-3f - 1.0f;
            }
            double begin = omp_get_wtime();
            kernels->prepare(type, x, shape.n_in, prepared + r * prepared_row);
            double elapsed = omp_get_wtime() - begin;
            prepare_time = elapsed < prepare_time ? elapsed : prepare_time;
        }
        run.weights = weights;
        run.prepared = prepared;
        for (int n_threads = 1; n_threads <= omp_get_num_procs() && n_threads <= 2; n_threads++) {
            double best[N_TRIED] = {0};
            for (int round = 0; round < ROUNDS; round++) {
                for (size_t k = 0; k < N_TRIED; k++) {
                    double rate = measure(&run, n_threads, n_x_tried[k], seconds);
                    best[k] = rate > best[k] ? rate : best[k];
                }
            }
            printf("%-5s %5d x %5d  %d thr  plain %5.1f |", quant_type_name(type), shape.n_out, shape.n_in, n_threads,
                   best[0] * 1e-9);
            for (size_t k = 1; k < N_TRIED; k++) {
                printf(" %dx %5.1f GB/s %4.2ft", n_x_tried[k], best[k] * 1e-9, best[1] / best[k]);
            }
            printf(" | prepare %.1f us\n", prepare_time * 1e6);
            fflush(stdout);
        }
    }
    free(run.out);
    free(prepared);
    free(x);
    free(weights);
    return ok;
}

int main(int argc, char **argv) {
    static const uint32_t types[] = {TYPE_Q8_0, TYPE_Q4_0, TYPE_Q4_K, TYPE_Q5_K,
                                     TYPE_Q6_K, TYPE_F16,  TYPE_BF16, TYPE_F32};
    struct shape shapes[] = {{4096, 4096}, {11008, 4096}, {4096, 11008}, {32000, 4096}};
    size_t n_shapes = sizeof shapes / sizeof shapes[0];
    enum cpu_isa isa = cpu_detect().isa;
    const char *only = NULL;
    double seconds = 0.1;
    size_t working_set = (size_t)192 << 20;
    struct shape own = {0, 0};
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--isa")) {
            for (int k = ISA_SCALAR; k <= ISA_AVX512; k++) {
                isa = strcmp(argv[i + 1], cpu_isa_name((enum cpu_isa)k)) ? isa : (enum cpu_isa)k;
            }
        } else if (!strcmp(argv[i], "--type")) {
            only = argv[i + 1];
        } else if (!strcmp(argv[i], "--rows")) {
            own.n_out = atoi(argv[i + 1]);
        } else if (!strcmp(argv[i], "--in")) {
            own.n_in = atoi(argv[i + 1]);
        } else if (!strcmp(argv[i], "--set")) {
            working_set = (size_t)atoi(argv[i + 1]) << 20;
        } else if (!strcmp(argv[i], "--ms")) {
            seconds = atof(argv[i + 1]) * 1e-3;
        } else {
            fprintf(stderr, "unknown option %s\n", argv[i]);
            return 2;
        }
    }
    if (own.n_out > 0 && own.n_in > 0) {
        shapes[0] = own;
        n_shapes = 1;
    }
    if (!cpu_isa_available(isa)) {
        fprintf(stderr, "this processor cannot run %s\n", cpu_isa_name(isa));
        return 2;
    }
    printf("kernels: %s\n", cpu_isa_name(isa));
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        if (only && strcmp(only, quant_type_name(types[t])) != 0) {
            continue;
        }
        for (size_t s = 0; s < n_shapes; s++) {
            if (!bench_type(matvec_kernels_get(isa), types[t], shapes[s], working_set, seconds)) {
                fprintf(stderr, "out of memory\n");
                return 1;
            }
        }
    }
    return 0;
}
