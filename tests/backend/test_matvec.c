/*
 * Matvec kernels of every family this processor has, against dot products in double precision.
 *
 * Two bounds per result. Tight: against the activations as the partner format rounds them, where only the rounding of
 * f32 sums is left. End to end: against the activations as given; each value of a block is at most max|x| / 254 off.
 * Matrices end where their heap block ends, so that AddressSanitizer sees every read behind them.
 */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cpu/matvec.h"
#include "model/quant.h"

#define N_X 13 /* two full passes and a lone row */

static const uint32_t types[] = {TYPE_Q8_0, TYPE_Q4_0, TYPE_Q4_K, TYPE_Q5_K, TYPE_Q6_K, TYPE_F16, TYPE_BF16, TYPE_F32};
#define N_TYPES (sizeof types / sizeof types[0])

static uint32_t random_state;

static uint32_t random_u32(void) {
    random_state = random_state * 1664525u + 1013904223u;
    return random_state ^ random_state >> 15;
}

static float random_f32(void) { /* roughly normal */
    float sum = 0;
    for (int i = 0; i < 6; i++) {
        sum += (float)(random_u32() & 0xffff) / 65536.0f - 0.5f;
    }
    return sum;
}

static bool is_float(uint32_t type) {
    return type == TYPE_F32 || type == TYPE_F16 || type == TYPE_BF16;
}

static bool has_size(uint32_t type, int n_in) {
    return n_in % quant_block_values(type) == 0;
}

/* Values of a block that share an activation scale. */
static int scale_values(uint32_t type) {
    return quant_block_values(type);
}

/* ---- weights ---- */

/* What the bytes of blocks (without their f16 scales) are; 256: random. Extremes of every field are among these. */
static const int fills[] = {256, 0xff, 0x00, 0x80, 0x7f, 0x88, 0x0f, 0xf0, 0x81};
#define N_FILLS (sizeof fills / sizeof fills[0])

static void put_f16(uint8_t *at, float value) {
    uint16_t h = f32_to_f16(value);
    memcpy(at, &h, sizeof h);
}

static void fill_weights(uint32_t type, uint8_t *w, int rows, int n_in, int fill) {
    size_t bytes = (size_t)rows * quant_row_bytes(type, n_in), block = quant_block_bytes(type);
    if (is_float(type)) {
        for (size_t i = 0; i < bytes; i += block) {
            float value = fill == 256 ? random_f32() : (float)(fill - 128) * 100.0f;
            assert_true(quant_quantize(type, &value, w + i, 1));
        }
        return;
    }
    for (size_t i = 0; i < bytes; i++) {
        w[i] = fill == 256 ? (uint8_t)(random_u32() >> 8) : (uint8_t)fill;
    }
    for (size_t i = 0; i < bytes; i += block) {
        float d = (random_u32() % 8 == 0 ? -1.0f : 1.0f) * (0.001f + 0.01f * (float)(random_u32() % 100));
        put_f16(w + i + (type == TYPE_Q6_K ? offsetof(struct block_q6_k, d) : 0), random_u32() % 16 == 0 ? 0.0f : d);
        if (type == TYPE_Q4_K || type == TYPE_Q5_K) {
            put_f16(w + i + 2, 0.7f * d);
        }
    }
}

/* The largest magnitude a kernel may meet on its way to a weight: codes before their offset is taken away. */
static double code_range(uint32_t type, const uint8_t *block) {
    uint16_t h;
    memcpy(&h, block + (type == TYPE_Q6_K ? offsetof(struct block_q6_k, d) : 0), sizeof h);
    double d = is_float(type) ? 0 : fabs((double)f16_to_f32(h)), min = 0;
    if (type == TYPE_Q4_K || type == TYPE_Q5_K) {
        memcpy(&h, block + 2, sizeof h);
        min = 63 * fabs((double)f16_to_f32(h));
    }
    switch (type) {
    case TYPE_Q4_0: return 15 * d;
    case TYPE_Q4_K: return 63 * 15 * d + min;
    case TYPE_Q5_K: return 63 * 31 * d + min;
    case TYPE_Q6_K: return 128 * 63 * d;
    default: return 0;
    }
}

/* ---- activations ---- */

enum activation_kind { NORMAL, OUTLIERS, ONES, ALTERNATING, ZERO, SPARSE, TINY, HUGE_VALUES, N_KINDS };

static void fill_activations(enum activation_kind kind, float *x, int n) {
    for (int i = 0; i < n; i++) {
        float v = random_f32();
        switch (kind) {
        case NORMAL: x[i] = v; break;
        case OUTLIERS: x[i] = i % 97 == 5 ? 300.0f * v : v; break;
        case ONES: x[i] = -1.0f; break;
        case ALTERNATING: x[i] = i % 2 ? 1.0f : -1.0f; break;
        case ZERO: x[i] = 0.0f; break;
        case SPARSE: x[i] = i % 41 == 3 ? v : 0.0f; break;
        case TINY: x[i] = 1e-39f * v; break;
        default: x[i] = 1e18f * v; break;
        }
    }
}

/* The values the partner format keeps of x. */
static void round_activations(uint32_t type, const float *x, int n, double *rounded) {
    int step = scale_values(type);
    for (int b = 0; b < n; b += step) {
        float max = 0;
        for (int i = b; i < b + step; i++) {
            max = fmaxf(max, fabsf(x[i]));
        }
        for (int i = b; i < b + step; i++) {
            if (is_float(type)) {
                rounded[i] = x[i];
            } else {
                rounded[i] = max < 1e-36f ? 0.0 : (double)(max / 127.0f) * nearbyint(x[i] * (127.0f / max));
            }
        }
    }
}

/* ---- one case ---- */

struct test_case {
    const struct matvec_kernels *kernels;
    uint32_t type;
    int n_in, rows, n_x;
    uint8_t *allocation, *w; /* w lies unaligned in its allocation and ends with it */
    float *weights, *x;      /* (rows, n_in), (n_x, n_in) */
    uint8_t *prepared;
    size_t prepared_row;
    float *out; /* n_x rows of stride values, guards between and around */
    int stride;
};

#define GUARD 5

static void *allocate(size_t bytes) {
    void *p = malloc(bytes);
    assert_non_null(p);
    return p;
}

static struct test_case make_case(const struct matvec_kernels *kernels, uint32_t type, int n_in, int rows, int n_x,
                                  int fill, enum activation_kind kind) {
    struct test_case c = {.kernels = kernels, .type = type, .n_in = n_in, .rows = rows, .n_x = n_x};
    size_t bytes = (size_t)rows * quant_row_bytes(type, n_in), offset = type == TYPE_F32 ? 4 : 2;
    c.allocation = allocate(bytes + offset);
    c.w = c.allocation + offset;
    fill_weights(type, c.w, rows, n_in, fill);
    c.weights = allocate(sizeof(float) * (size_t)rows * (size_t)n_in);
    quant_dequantize(type, c.w, c.weights, (int64_t)rows * n_in);
    c.x = allocate(sizeof(float) * (size_t)n_x * (size_t)n_in);
    c.prepared_row = kernels->prepared_bytes(type, n_in);
    assert_int_equal(c.prepared_row % 64, 0);
    c.prepared = aligned_alloc(64, c.prepared_row * (size_t)n_x);
    assert_non_null(c.prepared);
    memset(c.prepared, 0xee, c.prepared_row * (size_t)n_x);
    for (int r = 0; r < n_x; r++) {
        /* A copy that ends where the values end: prepare must not read more. */
        float *row = allocate(sizeof(float) * (size_t)n_in);
        fill_activations(kind, row, n_in);
        memcpy(c.x + (size_t)r * (size_t)n_in, row, sizeof(float) * (size_t)n_in);
        kernels->prepare(type, row, n_in, c.prepared + (size_t)r * c.prepared_row);
        free(row);
    }
    c.stride = rows + GUARD;
    c.out = allocate(sizeof(float) * (size_t)(GUARD + n_x * c.stride));
    return c;
}

static void free_case(struct test_case *c) {
    free(c->allocation);
    free(c->weights);
    free(c->x);
    free(c->prepared);
    free(c->out);
}

/* Multiplies rows [begin, end) of x rows first..first+n_x-1 and checks that nothing else was written. */
static const float *multiply(struct test_case *c, int begin, int end, int first, int n_x) {
    size_t n = (size_t)(GUARD + c->n_x * c->stride);
    memset(c->out, 0xa5, n * sizeof(float));
    float *out = c->out + GUARD;
    c->kernels->multiply(c->type, c->w, c->n_in, begin, end, c->prepared + (size_t)first * c->prepared_row, n_x, out,
                         c->stride);
    for (size_t i = 0; i < n; i++) {
        size_t r = i < GUARD ? 0 : (i - GUARD) / (size_t)c->stride;
        bool inside = i >= GUARD && r < (size_t)n_x && (i - GUARD) % (size_t)c->stride < (size_t)(end - begin);
        uint32_t bits;
        memcpy(&bits, c->out + i, sizeof bits);
        if (!inside && bits != 0xa5a5a5a5u) {
            fail_msg("%s n_in %d: value %zu outside of the result was written", quant_type_name(c->type), c->n_in, i);
        }
    }
    return out;
}

/* Checks all results against both bounds; returns the largest error relative to the tight bound. */
static double check_values(struct test_case *c, const float *out) {
    int n = c->n_in, step = scale_values(c->type);
    double *rounded = allocate(sizeof(double) * (size_t)n), worst = 0;
    size_t row_bytes = quant_row_bytes(c->type, n);
    for (int r = 0; r < c->n_x; r++) {
        const float *x = c->x + (size_t)r * (size_t)n;
        round_activations(c->type, x, n, rounded);
        for (int i = 0; i < c->rows; i++) {
            const float *w = c->weights + (size_t)i * (size_t)n;
            const uint8_t *block = c->w + (size_t)i * row_bytes;
            double exact = 0, exact_x = 0, magnitude = 0, rounding = 0;
            for (int b = 0; b < n; b += step, block += quant_block_bytes(c->type)) {
                double range = code_range(c->type, block), sum_w = 0, max_x = 0;
                for (int k = b; k < b + step; k++) {
                    exact += (double)w[k] * rounded[k];
                    exact_x += (double)w[k] * x[k];
                    magnitude += (fabs((double)w[k]) + range) * fabs(rounded[k]);
                    sum_w += fabs((double)w[k]);
                    max_x = fmax(max_x, fabs((double)x[k]));
                }
                rounding += is_float(c->type) ? 0 : sum_w * fmax(max_x / 254 * (1 + 1e-5), max_x < 1e-36 ? 1e-36 : 0);
            }
            double bound = (n / 32.0 + 16) * (double)FLT_EPSILON / 2 * magnitude + n * (double)FLT_MIN * 256;
            double got = out[(size_t)r * (size_t)c->stride + (size_t)i];
            worst = fmax(worst, fabs(got - exact) / bound);
            if (!(fabs(got - exact) <= bound)) {
                fail_msg("%s n_in %d row %d x %d: got %.9g, expected %.9g within %.3g", quant_type_name(c->type), n, i,
                         r, got, exact, bound);
            }
            if (!(fabs(got - exact_x) <= bound + rounding)) {
                fail_msg("%s n_in %d row %d x %d: got %.9g, unrounded activations give %.9g, bound %.3g",
                         quant_type_name(c->type), n, i, r, got, exact_x, bound + rounding);
            }
        }
    }
    free(rounded);
    return worst;
}

typedef void check_fn(const struct matvec_kernels *kernels, uint32_t type);

static void for_all(check_fn *check) {
    for (int isa = ISA_SCALAR; isa <= ISA_AVX512; isa++) {
        if (!cpu_isa_available((enum cpu_isa)isa)) {
            continue;
        }
        const struct matvec_kernels *kernels = matvec_kernels_get((enum cpu_isa)isa);
        assert_non_null(kernels);
        for (size_t t = 0; t < N_TYPES; t++) {
            random_state = 1234 + (uint32_t)t;
            check(kernels, types[t]);
        }
    }
}

/* ---- tests ---- */

static void check_sizes(const struct matvec_kernels *kernels, uint32_t type) {
    static const int sizes[] = {32, 64, 96, 256, 288, 512, 588, 1, 7, 16, 31, 4096, 11008};
    static const int row_counts[] = {1, 3, 4, 7, 33};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        for (size_t k = 0; k < sizeof row_counts / sizeof row_counts[0]; k++) {
            if (!has_size(type, sizes[s]) || (sizes[s] > 4096 && row_counts[k] > 7)) {
                continue;
            }
            for (int n_x = 1; n_x <= N_X; n_x += sizes[s] > 1000 ? 3 : 1) {
                struct test_case c = make_case(kernels, type, sizes[s], row_counts[k], n_x, 256, NORMAL);
                check_values(&c, multiply(&c, 0, c.rows, 0, n_x));
                free_case(&c);
            }
        }
    }
}

static void test_sizes(void **state) {
    for_all(check_sizes);
}

static void check_extremes(const struct matvec_kernels *kernels, uint32_t type) {
    static const int sizes[] = {256, 512};
    for (size_t f = 0; f < N_FILLS; f++) {
        for (int kind = 0; kind < N_KINDS; kind++) {
            for (size_t s = 0; s < 2; s++) {
                struct test_case c = make_case(kernels, type, sizes[s], 4, 5, fills[f], (enum activation_kind)kind);
                check_values(&c, multiply(&c, 0, c.rows, 0, c.n_x));
                free_case(&c);
                if (type == TYPE_Q8_0 || type == TYPE_Q4_0) { /* blocks behind the last group of eight */
                    c = make_case(kernels, type, 32 * (int)(s + 1), 4, 5, fills[f], (enum activation_kind)kind);
                    check_values(&c, multiply(&c, 0, c.rows, 0, c.n_x));
                    free_case(&c);
                }
            }
        }
    }
}

static void test_extremes(void **state) {
    for_all(check_extremes);
}

/* A row's result is the same bits alone, in any batch, at any place of it, and in any share of the rows. */
static void check_same_bits(const struct matvec_kernels *kernels, uint32_t type) {
    static const int sizes[] = {32, 96, 256, 288, 588, 1024, 4096};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        if (!has_size(type, sizes[s])) {
            continue;
        }
        enum { ROWS = 11 };
        struct test_case c = make_case(kernels, type, sizes[s], ROWS, N_X, 256, OUTLIERS);
        float single[N_X][ROWS];
        for (int r = 0; r < N_X; r++) {
            memcpy(single[r], multiply(&c, 0, ROWS, r, 1), sizeof single[r]);
        }
        for (int n_x = 1; n_x <= N_X; n_x++) {
            for (int first = 0; first + n_x <= N_X; first++) {
                const float *out = multiply(&c, 0, ROWS, first, n_x);
                for (int r = 0; r < n_x; r++) {
                    assert_memory_equal(out + r * c.stride, single[first + r], sizeof single[0]);
                }
            }
            for (int split = 0; split <= ROWS; split++) {
                const float *out = multiply(&c, split, ROWS, 0, n_x);
                for (int r = 0; r < n_x; r++) {
                    assert_memory_equal(out + r * c.stride, single[r] + split, sizeof(float) * (size_t)(ROWS - split));
                }
                out = multiply(&c, split / 2, split, 0, n_x);
                for (int r = 0; r < n_x; r++) {
                    assert_memory_equal(out + r * c.stride, single[r] + split / 2,
                                        sizeof(float) * (size_t)(split - split / 2));
                }
            }
        }
        free_case(&c);
    }
}

static void test_same_bits(void **state) {
    for_all(check_same_bits);
}

/* A NaN or an infinity among the activations shows in every product that reads it, and only there. */
static void check_not_finite(const struct matvec_kernels *kernels, uint32_t type) {
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t k = 0; k < 3; k++) {
        for (int at = 0; at < 512; at += 37) {
            struct test_case c = make_case(kernels, type, 512, 3, 2, 256, NORMAL);
            c.x[at] = bad[k];
            kernels->prepare(type, c.x, 512, c.prepared);
            const float *out = multiply(&c, 0, c.rows, 0, 2);
            for (int i = 0; i < c.rows; i++) {
                assert_false(isfinite(out[i]));
                assert_true(isfinite(out[c.stride + i]));
            }
            free_case(&c);
        }
    }
}

static void test_not_finite(void **state) {
    for_all(check_not_finite);
}

/* One Q8_0, one Q4_0 and one Q4_K product worked out by hand; exact in every family. */
static void test_by_hand(void **state) {
    for (int isa = ISA_SCALAR; isa <= ISA_AVX512; isa++) {
        if (!cpu_isa_available((enum cpu_isa)isa)) {
            continue;
        }
        const struct matvec_kernels *kernels = matvec_kernels_get((enum cpu_isa)isa);
        float x[QKK], out;
        _Alignas(64) uint8_t prepared[4096];
        assert_true(kernels->prepared_bytes(TYPE_Q4_0, QKK) <= sizeof prepared);
        for (int i = 0; i < QKK; i++) {
            x[i] = 127.0f; /* rounds to d = 1, q = 127 */
        }
        struct block_q8_0 w8[8];
        struct block_q4_0 w4[8];
        for (int b = 0; b < 8; b++) {
            w8[b].d = f32_to_f16((float)(b + 1));
            memset(w8[b].qs, 0x80, sizeof w8[b].qs); /* -128 */
            w4[b].d = f32_to_f16((float)(b + 1));
            memset(w4[b].qs, 0x9f, sizeof w4[b].qs); /* 15 - 8 = 7, then 9 - 8 = 1 */
        }
        x[3 * QK + 5] = -127.0f;
        kernels->prepare(TYPE_Q8_0, x, QKK, prepared);
        kernels->multiply(TYPE_Q8_0, w8, QKK, 0, 1, prepared, 1, &out, 1);
        /* 36 = 1 + .. + 8; block 4 has one value of the other sign */
        assert_float_equal(out, -128.0f * 127.0f * (36 * 32 - 4 * 2), 0);
        kernels->prepare(TYPE_Q4_0, x, QKK, prepared);
        kernels->multiply(TYPE_Q4_0, w4, QKK, 0, 1, prepared, 1, &out, 1);
        assert_float_equal(out, 127.0f * (36 * (16 * 7 + 16 * 1) - 4 * 2 * 7), 0);
        struct block_q4_k wk = {.d = f32_to_f16(1), .dmin = f32_to_f16(2)};
        memset(wk.scales, 0xff, sizeof wk.scales); /* every scale and minimum 63 */
        memset(wk.qs, 0xff, sizeof wk.qs);
        kernels->prepare(TYPE_Q4_K, x, QKK, prepared);
        kernels->multiply(TYPE_Q4_K, &wk, QKK, 0, 1, prepared, 1, &out, 1);
        assert_float_equal(out, (63.0f * 15 - 2 * 63) * 127 * (QKK - 2), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),   cmocka_unit_test(test_sizes),      cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_same_bits), cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
