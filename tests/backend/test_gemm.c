/*
 * Products of many activation rows, every path that can run here, against sums in double over the reference decoder.
 *
 * Stated bounds of the normalised error |out - exact| / |exact| (Euclidean norms over the whole output):
 *   int16 forms 2e-4, 4- to 6-bit weights x int8 activations 8e-3, bf16 1e-2, f32 1e-5.
 * Where a sum happens to cancel, an output counts in |exact| with the size it has for uncorrelated operands,
 * |x row| |w row| / sqrt(n_in). Matrices of extreme values, whose rounding errors do not average out, are held to the
 * same bounds relative to the sums of the magnitudes.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cpu/gemm_internal.h"

#define GUARD    64
#define SENTINEL 12345.5f

static const uint32_t types[] = {TYPE_F32, TYPE_F16, TYPE_BF16, TYPE_Q8_0, TYPE_Q4_0, TYPE_Q4_K, TYPE_Q5_K, TYPE_Q6_K};
enum { N_TYPES = sizeof types / sizeof types[0] };

/* Every path with every choice of integers. */
static const struct variant {
    enum gemm_path path;
    bool int16_only;
} variants[] = {{GEMM_SCALAR, false}, {GEMM_SCALAR, true}, {GEMM_AVX2, false},       {GEMM_AVX2, true},
                {GEMM_AVX512, false}, {GEMM_AVX512, true}, {GEMM_ONEDNN_F32, false}, {GEMM_ONEDNN_BF16, false}};
enum { N_VARIANTS = sizeof variants / sizeof variants[0] };

static double bound(struct variant v, uint32_t type) {
    switch (v.path) {
    case GEMM_ONEDNN_F32: return 1e-5;
    case GEMM_ONEDNN_BF16: return 1e-2;
    default: return v.int16_only || gemm_format_of(type) == GEMM_S16 ? 2e-4 : 8e-3;
    }
}

/* ---- data ---- */

static uint64_t seed = 1;

static uint32_t random_u32(void) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}

/* Roughly normal, standard deviation 1. */
static float random_normal(void) {
    float sum = 0;
    for (int i = 0; i < 12; i++) {
        sum += (float)random_u32() * 0x1p-32f;
    }
    return sum - 6.0f;
}

static float *random_floats(size_t n) {
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) {
        x[i] = random_normal();
    }
    return x;
}

static void *random_weights(uint32_t type, int n_out, int n_in) {
    const size_t n = (size_t)n_out * (size_t)n_in, bytes = quant_row_bytes(type, (int64_t)n);
    uint8_t *data = malloc(bytes);
    assert_non_null(data);
    if (quant_block_values(type) < QKK) {
        float *values = random_floats(n);
        assert_true(quant_quantize(type, values, data, (int64_t)n));
        free(values);
        return data;
    }
    for (size_t i = 0; i < bytes; i++) {
        data[i] = (uint8_t)random_u32();
    }
    for (size_t i = 0; i < n / QKK; i++) { /* any bits are a block, but its f16 scales must be finite */
        const uint16_t d = f32_to_f16(0.001f * (float)(1 + random_u32() % 8));
        const uint16_t dmin = f32_to_f16(0.002f * (float)(1 + random_u32() % 8));
        uint8_t *block = data + i * quant_block_bytes(type);
        if (type == TYPE_Q6_K) {
            memcpy(block + offsetof(struct block_q6_k, d), &d, 2);
        } else {
            memcpy(block, &d, 2);
            memcpy(block + 2, &dmin, 2);
        }
    }
    return data;
}

/* ---- reference ---- */

struct exact {
    double *out;
    double norm;       /* of out, see above */
    double magnitudes; /* norm of the sums of the magnitudes of the products */
};

static struct exact reference(const float *x, int n_rows, const struct matrix *w, const float *bias) {
    const size_t n_in = (size_t)w->n_in, n_out = (size_t)w->n_out;
    struct exact exact = {.out = malloc((size_t)n_rows * n_out * sizeof(double))};
    float *row = malloc(n_in * sizeof *row);
    assert_non_null(exact.out);
    assert_non_null(row);
    for (size_t o = 0; o < n_out; o++) {
        quant_dequantize(w->type, (const uint8_t *)w->data + o * quant_row_bytes(w->type, w->n_in), row, w->n_in);
        for (size_t r = 0; r < (size_t)n_rows; r++) {
            double sum = bias ? (double)bias[o] : 0, sum_abs = 0, xx = 0, ww = 0;
            for (size_t k = 0; k < n_in; k++) {
                const double a = (double)row[k], b = (double)x[r * n_in + k];
                sum += a * b;
                sum_abs += fabs(a * b);
                ww += a * a;
                xx += b * b;
            }
            exact.out[r * n_out + o] = sum;
            exact.norm += fmax(sum * sum, xx * ww / (double)n_in);
            exact.magnitudes += sum_abs * sum_abs;
        }
    }
    exact.norm = sqrt(exact.norm);
    exact.magnitudes = sqrt(exact.magnitudes);
    free(row);
    return exact;
}

static double normalised_error(const float *out, struct exact exact, size_t n, bool extreme) {
    const double norm = extreme ? exact.magnitudes : exact.norm;
    double difference = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)out[i] - exact.out[i]) * ((double)out[i] - exact.out[i]);
    }
    return norm > 0 ? sqrt(difference) / norm : sqrt(difference);
}

/* An output with guard zones. */
static float *guarded(size_t n) {
    float *p = malloc((n + 2 * GUARD) * sizeof *p);
    assert_non_null(p);
    for (size_t i = 0; i < n + 2 * GUARD; i++) {
        p[i] = SENTINEL;
    }
    return p + GUARD;
}

static void release_guarded(float *p, size_t n) {
    for (int i = 0; i < GUARD; i++) {
        assert_true(p[-1 - i] == SENTINEL);
        assert_true(p[n + (size_t)i] == SENTINEL);
    }
    free(p - GUARD);
}

static struct gemm *create(struct variant v, int n_threads) {
    struct gemm *g = NULL;
    return gemm_create_with(v.path, v.int16_only, n_threads, &g, NULL) == CANDID_OK ? g : NULL;
}

/* Runs x (n_rows, w->n_in) through every variant and holds it to its bound. */
static void check_all(const float *x, int n_rows, const struct matrix *w, const float *bias, bool extreme) {
    const size_t n = (size_t)n_rows * (size_t)w->n_out;
    const struct exact exact = reference(x, n_rows, w, bias);
    for (int v = 0; v < N_VARIANTS; v++) {
        if (variants[v].path == GEMM_SCALAR && n * (size_t)w->n_in > 5000000) {
            continue; /* slow */
        }
        struct gemm *g = create(variants[v], 2);
        if (!g) {
            continue;
        }
        float *out = guarded(n);
        const struct linear_job job = {.w = w, .bias = bias, .out = out};
        candid_error error;
        assert_int_equal(gemm_linear(g, x, n_rows, w->n_in, &job, 1, &error), CANDID_OK);
        const double e = normalised_error(out, exact, n, extreme), limit = bound(variants[v], w->type);
        if (!(e <= limit)) {
            fail_msg("%s, %s %d x %d, %d rows: error %.3g > %.3g", gemm_description(g), quant_type_name(w->type),
                     w->n_out, w->n_in, n_rows, e, limit);
        }
        release_guarded(out, n);
        gemm_free(g);
    }
    free(exact.out);
}

/* ---- tests ---- */

static void test_sizes(void **state) {
    (void)state;
    static const struct {
        int n_rows, n_out, n_in;
    } cases[] = {{1, 1, 256},    {1, 100, 1024},  {2, 8, 256},    {5, 15, 512},   {6, 33, 256},
                 {7, 100, 1024}, {12, 16, 256},   {13, 65, 768},  {64, 64, 1024}, {64, 129, 256},
                 {577, 33, 256}, {1100, 15, 256}, {7, 33, 11008}, {25, 40, 1280}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        for (int t = 0; t < N_TYPES; t++) {
            const struct matrix w = {.type = types[t],
                                     .n_out = cases[c].n_out,
                                     .n_in = cases[c].n_in,
                                     .data = random_weights(types[t], cases[c].n_out, cases[c].n_in)};
            float *x = random_floats((size_t)cases[c].n_rows * (size_t)w.n_in);
            float *bias = c % 2 ? random_floats((size_t)w.n_out) : NULL;
            check_all(x, cases[c].n_rows, &w, bias, false);
            free(x);
            free(bias);
            free((void *)w.data);
        }
    }
}

/* Row lengths that are no multiple of the packed blocks. */
static void test_row_lengths(void **state) {
    (void)state;
    static const int lengths[] = {1, 3, 31, 32, 33, 64, 96, 127, 129, 160, 544, 588, 1056};
    for (size_t c = 0; c < sizeof lengths / sizeof lengths[0]; c++) {
        for (int t = 0; t < N_TYPES; t++) {
            if (lengths[c] % quant_block_values(types[t])) {
                continue;
            }
            const struct matrix w = {
                .type = types[t], .n_out = 17, .n_in = lengths[c], .data = random_weights(types[t], 17, lengths[c])};
            float *x = random_floats(9 * (size_t)w.n_in);
            check_all(x, 9, &w, NULL, false);
            free(x);
            free((void *)w.data);
        }
    }
}

/* Channels a thousand times larger than the rest, tiny rows, zero rows, and blocks of zeros. */
static void test_outliers(void **state) {
    (void)state;
    enum { ROWS = 14, N_OUT = 40, N_IN = 1024 };
    for (int t = 0; t < N_TYPES; t++) {
        const struct matrix w = {
            .type = types[t], .n_out = N_OUT, .n_in = N_IN, .data = random_weights(types[t], N_OUT, N_IN)};
        float *x = random_floats((size_t)ROWS * N_IN);
        for (int r = 0; r < ROWS; r++) {
            x[r * N_IN + 77] *= 1000;
            x[r * N_IN + 900] *= 300;
            memset(x + r * N_IN + 128, 0, 128 * sizeof *x);
        }
        memset(x + 3 * N_IN, 0, N_IN * sizeof *x);
        check_all(x, ROWS, &w, NULL, false);
        for (int i = 0; i < ROWS * N_IN; i++) {
            x[i] *= 1e-20f;
        }
        check_all(x, ROWS, &w, NULL, false);
        for (int i = 0; i < ROWS * N_IN; i++) {
            x[i] *= 1e36f;
        }
        check_all(x, ROWS, &w, NULL, false);
        memset(x, 0, (size_t)ROWS * N_IN * sizeof *x);
        check_all(x, ROWS, &w, NULL, false);
        free(x);
        free((void *)w.data);
    }
}

/* Fills a matrix with the extreme blocks of its type: pattern 0 all largest, 1 all smallest, 2 alternating. */
static void *extreme_weights(uint32_t type, int n_out, int n_in, int pattern) {
    const size_t n = (size_t)n_out * (size_t)n_in, bytes = quant_row_bytes(type, (int64_t)n);
    uint8_t *data = malloc(bytes);
    assert_non_null(data);
    const uint16_t d = f32_to_f16(0.5f);
    const uint8_t fill = pattern == 0 ? 0xFF : pattern == 1 ? 0x00 : 0xF0;
    memset(data, fill, bytes);
    for (size_t i = 0; i < n / (size_t)quant_block_values(type); i++) {
        uint8_t *block = data + i * quant_block_bytes(type);
        const float value = pattern == 0 || (pattern == 2 && i % 2) ? 60000.0f : -60000.0f;
        switch (type) {
        case TYPE_F32:
        case TYPE_F16:
        case TYPE_BF16: assert_true(quant_quantize(type, &value, block, 1)); break;
        case TYPE_Q8_0:
            memcpy(block, &d, 2);
            for (int k = 0; k < QK; k++) {
                block[2 + k] = (uint8_t)(int8_t)(pattern == 0 || (pattern == 2 && k % 2) ? 127 : -128);
            }
            break;
        case TYPE_Q4_0: memcpy(block, &d, 2); break;
        case TYPE_Q6_K:
            memset(block + offsetof(struct block_q6_k, scales), pattern ? 0x80 : 0x7F, 16);
            memcpy(block + offsetof(struct block_q6_k, d), &d, 2);
            break;
        default:
            memcpy(block, &d, 2);
            memcpy(block + 2, &d, 2);
            memset(block + 4, 0xFF, 12); /* scales and minima 63 */
            break;
        }
    }
    return data;
}

/* The largest sums there can be: nothing may wrap or saturate. */
static void test_extremes(void **state) {
    (void)state;
    enum { ROWS = 13, N_OUT = 18, N_IN = 512 };
    for (int t = 0; t < N_TYPES; t++) {
        for (int pattern = 0; pattern < 3; pattern++) {
            const struct matrix w = {.type = types[t],
                                     .n_out = N_OUT,
                                     .n_in = N_IN,
                                     .data = extreme_weights(types[t], N_OUT, N_IN, pattern)};
            float x[ROWS * N_IN];
            for (int signs = 0; signs < 4; signs++) {
                for (int i = 0; i < ROWS * N_IN; i++) {
                    const bool negative = signs == 1 || (signs == 2 && i % 2) || (signs == 3 && i % 32 < 16);
                    x[i] = negative ? -3.0f : 3.0f;
                }
                for (int i = 0; i < N_IN; i += 4) {
                    x[i] *= 0.5f;
                }
                check_all(x, ROWS, &w, NULL, true);
            }
            free((void *)w.data);
        }
    }
}

/* The f32 sums of tile and portable kernels come in the same order: all integer kernels agree bit for bit. */
static void test_kernels_agree(void **state) {
    (void)state;
    enum { ROWS = 29, N_OUT = 83, N_IN = 1280 };
    static const enum gemm_path paths[] = {GEMM_AVX2, GEMM_AVX512};
    float *x = random_floats((size_t)ROWS * N_IN);
    x[5 * N_IN + 40] = 3000.0f;
    for (int t = 0; t < N_TYPES; t++) {
        const struct matrix w = {
            .type = types[t], .n_out = N_OUT, .n_in = N_IN, .data = random_weights(types[t], N_OUT, N_IN)};
        for (int int16_only = 0; int16_only < 2; int16_only++) {
            float *expected = guarded((size_t)ROWS * N_OUT);
            struct gemm *scalar = create((struct variant){GEMM_SCALAR, int16_only}, 1);
            assert_non_null(scalar);
            struct linear_job job = {.w = &w, .out = expected};
            assert_int_equal(gemm_linear(scalar, x, ROWS, N_IN, &job, 1, NULL), CANDID_OK);
            gemm_free(scalar);
            for (int p = 0; p < 2; p++) {
                struct gemm *g = create((struct variant){paths[p], int16_only}, 3);
                if (!g) {
                    continue;
                }
                float *out = guarded((size_t)ROWS * N_OUT);
                job.out = out;
                assert_int_equal(gemm_linear(g, x, ROWS, N_IN, &job, 1, NULL), CANDID_OK);
                for (int i = 0; i < ROWS * N_OUT; i++) {
                    if (out[i] != expected[i]) {
                        fail_msg("%s, %s: output %d is %.9g, portable %.9g", gemm_description(g),
                                 quant_type_name(types[t]), i, (double)out[i], (double)expected[i]);
                    }
                }
                release_guarded(out, (size_t)ROWS * N_OUT);
                gemm_free(g);
            }
            release_guarded(expected, (size_t)ROWS * N_OUT);
        }
        free((void *)w.data);
    }
    free(x);
}

/* Jobs of different types and widths share x; the same context serves calls of growing and shrinking size. */
static void test_jobs(void **state) {
    (void)state;
    enum { N_IN = 512, MAX_ROWS = 70 };
    static const int widths[N_TYPES] = {1, 64, 30, 100, 16, 33, 130, 48};
    struct matrix w[N_TYPES];
    float *bias[N_TYPES];
    for (int t = 0; t < N_TYPES; t++) {
        w[t] = (struct matrix){
            .type = types[t], .n_out = widths[t], .n_in = N_IN, .data = random_weights(types[t], widths[t], N_IN)};
        bias[t] = t % 2 ? random_floats((size_t)widths[t]) : NULL;
    }
    float *x = random_floats((size_t)MAX_ROWS * N_IN);
    static const int rows[] = {3, 70, 1, 12};
    for (int v = 0; v < N_VARIANTS; v++) {
        struct gemm *g = create(variants[v], 2);
        for (int c = 0; g && c < 4; c++) {
            struct linear_job jobs[N_TYPES];
            for (int t = 0; t < N_TYPES; t++) {
                jobs[t] = (struct linear_job){
                    .w = &w[t], .bias = bias[t], .out = guarded((size_t)rows[c] * (size_t)widths[t])};
            }
            assert_int_equal(gemm_linear(g, x, rows[c], N_IN, jobs, N_TYPES, NULL), CANDID_OK);
            for (int t = 0; t < N_TYPES; t++) {
                const size_t n = (size_t)rows[c] * (size_t)widths[t];
                const struct exact exact = reference(x, rows[c], &w[t], bias[t]);
                assert_true(normalised_error(jobs[t].out, exact, n, false) <= bound(variants[v], types[t]));
                release_guarded(jobs[t].out, n);
                free(exact.out);
            }
        }
        gemm_free(g);
    }
    free(x);
    for (int t = 0; t < N_TYPES; t++) {
        free((void *)w[t].data);
        free(bias[t]);
    }
}

/* A value that is no number makes its own row NaN, and only that. */
static void test_not_finite(void **state) {
    (void)state;
    enum { ROWS = 8, N_OUT = 20, N_IN = 256 };
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int t = 0; t < N_TYPES; t++) {
        const struct matrix w = {
            .type = types[t], .n_out = N_OUT, .n_in = N_IN, .data = random_weights(types[t], N_OUT, N_IN)};
        for (int v = 0; v < N_VARIANTS; v++) {
            struct gemm *g = variants[v].path <= GEMM_AVX512 ? create(variants[v], 2) : NULL;
            for (int b = 0; g && b < 3; b++) {
                float *x = random_floats((size_t)ROWS * N_IN), *out = guarded((size_t)ROWS * N_OUT);
                x[2 * N_IN + 100] = bad[b];
                const struct linear_job job = {.w = &w, .out = out};
                assert_int_equal(gemm_linear(g, x, ROWS, N_IN, &job, 1, NULL), CANDID_OK);
                for (int i = 0; i < ROWS * N_OUT; i++) {
                    assert_int_equal(isnan(out[i]) != 0, i / N_OUT == 2);
                }
                release_guarded(out, (size_t)ROWS * N_OUT);
                free(x);
            }
            gemm_free(g);
        }
        free((void *)w.data);
    }
}

static void test_thread_count(void **state) {
    (void)state;
    enum { ROWS = 50, N_OUT = 300, N_IN = 512 };
    for (int t = 0; t < N_TYPES; t++) {
        const struct matrix w = {
            .type = types[t], .n_out = N_OUT, .n_in = N_IN, .data = random_weights(types[t], N_OUT, N_IN)};
        float *x = random_floats((size_t)ROWS * N_IN), *first = NULL;
        struct gemm *own = NULL;
        for (int n_threads = 1; n_threads <= 4; n_threads++) {
            own = create((struct variant){gemm_path_available(GEMM_AVX2) ? GEMM_AVX2 : GEMM_SCALAR, false}, n_threads);
            assert_non_null(own);
            float *out = guarded((size_t)ROWS * N_OUT);
            const struct linear_job job = {.w = &w, .out = out};
            assert_int_equal(gemm_linear(own, x, ROWS, N_IN, &job, 1, NULL), CANDID_OK);
            gemm_free(own);
            if (first) {
                assert_memory_equal(first, out, (size_t)ROWS * N_OUT * sizeof *out);
                release_guarded(out, (size_t)ROWS * N_OUT);
            } else {
                first = out;
            }
        }
        release_guarded(first, (size_t)ROWS * N_OUT);
        free(x);
        free((void *)w.data);
    }
}

static void test_arguments(void **state) {
    (void)state;
    struct gemm *g = NULL;
    candid_error error;
    assert_int_equal(gemm_create_with(GEMM_SCALAR, false, 0, &g, &error), CANDID_ERROR_ARGUMENT);
    assert_int_equal(gemm_create(cpu_detect(), 2, &g, &error), CANDID_OK);
    assert_true(strlen(gemm_description(g)) > 0);
    float x[256] = {0}, out[4] = {7, 7, 7, 7};
    const struct matrix w = {.type = TYPE_F32, .n_out = 1, .n_in = 256, .data = x};
    struct matrix wrong = w;
    struct linear_job job = {.w = &wrong, .out = out};
    wrong.n_in = 128;
    assert_int_equal(gemm_linear(g, x, 1, 256, &job, 1, &error), CANDID_ERROR_ARGUMENT);
    wrong = w;
    wrong.type = 3;
    assert_int_equal(gemm_linear(g, x, 1, 256, &job, 1, &error), CANDID_ERROR_UNSUPPORTED);
    wrong.type = TYPE_Q8_0;
    wrong.n_in = 100;
    assert_int_equal(gemm_linear(g, x, 1, 100, &job, 1, &error), CANDID_ERROR_ARGUMENT);
    wrong = w;
    assert_int_equal(gemm_linear(g, x, 0, 256, &job, 1, &error), CANDID_OK);
    assert_true(out[0] == 7);
    assert_int_equal(gemm_linear(g, x, 1, 256, &job, 1, &error), CANDID_OK);
    assert_true(out[0] == 0 && out[1] == 7);
    gemm_free(g);
    gemm_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),      cmocka_unit_test(test_row_lengths),   cmocka_unit_test(test_outliers),
        cmocka_unit_test(test_extremes),   cmocka_unit_test(test_kernels_agree), cmocka_unit_test(test_jobs),
        cmocka_unit_test(test_not_finite), cmocka_unit_test(test_thread_count),  cmocka_unit_test(test_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
