/*
 * The CUDA backend's kernels beside what the GPU can do: copy bandwidth and the rate of large products are measured in
 * the same run, everything else is told as a share of them.
 *
 *   bench_gpu [--device N] [--ms MILLISECONDS]
 *
 * Weights rotate through a set larger than the caches. Every number is the median of several runs of about MILLISECONDS
 * (default 50), each a queue of ops that is waited for once.
 */
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/cuda/internal.h"
#include "lm/kv.h"
#include "model/quant.h"

#define RUNS      7
#define SET_BYTES ((size_t)1 << 30)

static double run_ms = 50;

static void check(candid_status status, const candid_error *error) {
    if (status != CANDID_OK) {
        fprintf(stderr, "bench_gpu: %s\n", error->message);
        exit(1);
    }
}

static struct backend *open_backend(int device) {
    struct backend *b = NULL;
    candid_error error = {.message = ""};
    check(backend_cuda_create(CANDID_PRECISION_FAST, device, NULL, NULL, &b, &error), &error);
    return b;
}

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median milliseconds of one call of op(context, i), i counting up. */
static double time_op(struct backend *b, void (*op)(void *context, int i), void *context) {
    double times[RUNS];
    candid_error error = {.message = ""};
    int n = 1, i = 0;
    for (int run = -1; run < RUNS; run++) { /* one to warm up and to find out how many calls fill a run */
        const double start = now_ms();
        for (int k = 0; k < n; k++) {
            op(context, i++);
        }
        check(b->ops->finish(b, &error), &error);
        const double ms = now_ms() - start;
        if (run < 0 && ms < run_ms && n < 1 << 20) {
            n *= 2;
            run = -2;
        } else if (run >= 0) {
            times[run] = ms / n;
        }
    }
    qsort(times, RUNS, sizeof *times, by_size);
    return times[RUNS / 2];
}

static void *device_memory(struct backend *b, size_t bytes) {
    void *memory = NULL;
    candid_error error = {.message = ""};
    check(b->ops->alloc(b, bytes, &memory, &error), &error);
    return memory;
}

/* Random numbers near 1 as floats; products of zeros would be faster than real ones. */
static float *device_floats(struct backend *b, size_t n) {
    const size_t piece = 1 << 20;
    float *host = malloc(piece * sizeof *host), *device = device_memory(b, n * sizeof *host);
    for (size_t i = 0; i < piece; i++) {
        host[i] = (float)(rand() % 2001) * 1e-3f - 1.0f;
    }
    for (size_t at = 0; at < n; at += piece) {
        b->ops->upload(b, device + at, host, (n - at < piece ? n - at : piece) * sizeof *host);
    }
    free(host);
    return device;
}

/* ---- ceilings ---------------------------------------------------------------------------------- */

struct copy {
    struct backend *b;
    char *from, *to;
};

static void copy_op(void *context, int i) {
    const struct copy *c = context;
    c->b->ops->copy(c->b, i % 2 ? c->to : c->from, i % 2 ? c->from : c->to, SET_BYTES);
}

struct gemm {
    struct cuda_backend *c;
    struct blas_product p;
};

static void gemm_op(void *context, int i) {
    struct gemm *g = context;
    candid_error error = {.message = ""};
    check(cuda_blas_product(g->c->blas, &g->p, &error), &error);
}

/* TFLOP/s of a product of n_rows rows with an n by n matrix. */
static double gemm_rate(struct backend *b, enum cuda_float type, int n, int n_rows) {
    void *a = device_floats(b, (size_t)n * (size_t)n), *x = device_floats(b, (size_t)n * (size_t)n_rows);
    uint16_t *narrow_a = device_memory(b, (size_t)n * (size_t)n * 2);
    uint16_t *narrow_x = device_memory(b, (size_t)n * (size_t)n_rows * 2);
    struct cuda_backend *c = cuda_of(b);
    (type == CUDA_F16 ? cuda_to_f16 : cuda_to_bf16)(c->stream, narrow_a, a, (size_t)n * (size_t)n);
    (type == CUDA_F16 ? cuda_to_f16 : cuda_to_bf16)(c->stream, narrow_x, x, (size_t)n * (size_t)n_rows);
    struct gemm g = {c,
                     {.transpose_a = true,
                      .m = n,
                      .n = n_rows,
                      .k = n,
                      .alpha = 1,
                      .type = type,
                      .a = narrow_a,
                      .b = narrow_x,
                      .c = device_memory(b, (size_t)n * (size_t)n_rows * sizeof(float)),
                      .lda = n,
                      .ldb = n,
                      .ldc = n,
                      .batch = 1}};
    const double ms = time_op(b, gemm_op, &g);
    void *all[] = {a, x, narrow_a, narrow_x, g.p.c};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        b->ops->release(b, all[i]);
    }
    return 2.0 * n * n * n_rows / ms * 1e-9;
}

/* ---- products ---------------------------------------------------------------------------------- */

struct products {
    struct backend *b;
    struct matrix *w; /* [n] */
    int n, n_rows;
    float *x, *out;
};

static void product_op(void *context, int i) {
    const struct products *p = context;
    candid_error error = {.message = ""};
    const struct linear_job job = {&p->w[i % p->n], NULL, p->out, true};
    check(p->b->ops->linear(p->b, p->x, p->n_rows, job.w->n_in, &job, 1, &error), &error);
}

/* Random blocks whose scales are ordinary numbers. */
static void *random_blocks(uint32_t type, size_t bytes) {
    uint8_t *blocks = malloc(bytes);
    float values[QKK];
    const size_t block = quant_block_bytes(type), n_pool = 997;
    for (size_t at = 0; at < bytes; at += block) {
        if (at >= n_pool * block) {
            memcpy(blocks + at, blocks + at - n_pool * block, block);
            continue;
        }
        for (int i = 0; i < QKK; i++) {
            values[i] = (float)(rand() % 2001) * 1e-4f - 0.1f;
        }
        quant_quantize(type, values, blocks + at, quant_block_values(type));
    }
    return blocks;
}

static void bench_products(int device, double copy_gb_s, int n_out, int n_in) {
    static const uint32_t types[] = {TYPE_F16, TYPE_BF16, TYPE_Q8_0, TYPE_Q4_0, TYPE_Q4_K, TYPE_Q5_K, TYPE_Q6_K};
    static const int rows[] = {1, 2, 5, 8, 16, 32};
    printf("\nproducts with a (%d, %d) matrix: GB/s of weights, share of the copy\n%-6s", n_out, n_in, "type");
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        printf("  %9d rows", rows[r]);
    }
    putchar('\n');
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        struct backend *b = open_backend(device);
        const size_t bytes = (size_t)n_out * quant_row_bytes(types[t], n_in);
        const int n = (int)(SET_BYTES / bytes);
        struct products p = {.b = b, .n = n, .w = calloc((size_t)n, sizeof *p.w)};
        void **blocks = calloc((size_t)n, sizeof *blocks);
        for (int i = 0; i < n; i++) {
            /* the same numbers at different addresses: the backend copies each, and the caches hold none */
            blocks[i] = i == 0 ? random_blocks(types[t], bytes) : malloc(bytes);
            memcpy(blocks[i], blocks[0], bytes);
            p.w[i] = (struct matrix){types[t], n_out, n_in, blocks[i]};
        }
        p.x = device_floats(b, 32 * (size_t)n_in);
        p.out = device_memory(b, 32 * (size_t)n_out * sizeof(float));
        p.n_rows = 1;
        for (int i = 0; i < n; i++) {
            product_op(&p, i); /* weights to the device */
        }
        printf("%-6s", quant_type_name(types[t]));
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            p.n_rows = rows[r];
            const double gb_s = (double)bytes / time_op(b, product_op, &p) * 1e-6;
            printf("  %7.0f %5.1f%%", gb_s, 100 * gb_s / copy_gb_s);
            fflush(stdout);
        }
        putchar('\n');
        b->ops->release(b, p.x);
        b->ops->release(b, p.out);
        backend_destroy(b); /* it finds its copies by the addresses, which may be used again only now */
        for (int i = 0; i < n; i++) {
            free(blocks[i]);
        }
        free(blocks);
        free(p.w);
    }
}

/* ---- attention of a decoding step ----------------------------------------------------------------- */

struct attention {
    struct backend *b;
    struct kv_attention a;
    float *q, *out;
};

static void attention_op(void *context, int i) {
    struct attention *t = context;
    candid_error error = {.message = ""};
    t->a.layer = i % t->a.shape->n_layer; /* layers in turn: the cache is larger than the L2 */
    check(t->b->ops->kv_attend(t->b, &t->a, t->q, t->out, &error), &error);
}

static void bench_attention(struct backend *b, double copy_gb_s) {
    static const int lengths[] = {128, 700, 2048, 4096};
    const struct kv_shape shape = {32, 32, 128, false};
    printf("\ndecode attention, 32 heads of 128, f16 cache\n");
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
        const int n = lengths[l];
        struct kv_cache *cache = NULL;
        struct kv_seq *seq = NULL;
        candid_error error = {.message = ""};
        check(kv_cache_create(b, &shape, n, &cache, &error), &error);
        check(kv_seq_create(cache, &seq, &error), &error);
        check(kv_reserve(seq, n, &error), &error);
        for (int i = 0; i < seq->n_blocks; i++) { /* any finite numbers; zeros would be kinder than real ones */
            float *values = device_floats(b, kv_block_bytes(cache) / 2);
            cuda_to_f16(cuda_of(b)->stream, seq->blocks[i], values, kv_block_bytes(cache) / 2);
            b->ops->release(b, values);
        }
        struct attention_row row = {.blocks = seq->blocks, .index = n - 1, .n_keys = n};
        struct attention t = {b,
                              {.shape = &shape, .n_head = 32, .rows = &row, .n_rows = 1, .scale = 1 / sqrtf(128)},
                              device_floats(b, 4096),
                              device_memory(b, 4096 * sizeof(float))};
        const double ms = time_op(b, attention_op, &t), gb_s = 2.0 * n * 4096 * 2 / ms * 1e-6;
        printf("%5d keys  %8.2f us  %7.0f GB/s %5.1f%%\n", n, ms * 1e3, gb_s, 100 * gb_s / copy_gb_s);
        b->ops->release(b, t.q);
        b->ops->release(b, t.out);
        kv_seq_free(seq);
        kv_cache_free(cache);
    }
}

int main(int argc, char **argv) {
    int device = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--device") == 0 && i + 1 < argc) {
            device = atoi(argv[++i]);
        } else if (strcmp(argv[i], "--ms") == 0 && i + 1 < argc && atof(argv[i + 1]) > 0) {
            run_ms = atof(argv[++i]);
        } else {
            fprintf(stderr, "usage: bench_gpu [--device N] [--ms MILLISECONDS]\n");
            return 2;
        }
    }
    candid_error error = {.message = ""};
    if (cuda_device_count(&error) == 0) {
        printf("no GPU: %s\n", error.message);
        return 77;
    }
    struct backend *b = open_backend(device);
    printf("%s\n", b->description);

    struct copy c = {b, (char *)device_floats(b, SET_BYTES / 4), (char *)device_floats(b, SET_BYTES / 4)};
    const double copy_gb_s = 2.0 * (double)SET_BYTES / time_op(b, copy_op, &c) * 1e-6;
    b->ops->release(b, c.from);
    b->ops->release(b, c.to);
    printf("device copy      %8.0f GB/s read and written\n", copy_gb_s);
    printf("fp16 product     %8.0f TFLOP/s (8192 rows of 8192)\n", gemm_rate(b, CUDA_F16, 8192, 8192));
    printf("bf16 product     %8.0f TFLOP/s\n", gemm_rate(b, CUDA_BF16, 8192, 8192));
    printf("fp16 product     %8.0f TFLOP/s (675 rows of 4096: a prompt)\n", gemm_rate(b, CUDA_F16, 4096, 675));
    bench_attention(b, copy_gb_s);
    bench_products(device, copy_gb_s, 4096, 4096);
    bench_products(device, copy_gb_s, 11008, 4096);
    backend_destroy(b);
    return 0;
}
