/*
 * The CUDA backend's ops outside attention, against loops in double precision or the CPU's exact path: products of
 * every weight type by each of the three ways, embeddings, norms, activations, rotary positions, copies, the image
 * encoder's attention; then failures and what is left behind.
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

#include "../support/backends.h"
#include "backend/cuda/cuda.h"
#include "model/quant.h"

static uint64_t random_state = 7;

/* Uniform in [-1, 1). */
static float random_value(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(uint32_t)(random_state >> 33) / 1073741824.0f - 1.0f;
}

static float *random_floats(size_t n) {
    float *x = malloc((n + 1) * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) {
        x[i] = random_value();
    }
    return x;
}

static struct backend *open_backend(candid_precision precision) {
    return tested_backend_open(&tested_backends[precision == CANDID_PRECISION_EXACT ? 0 : 1]);
}

static void ok(struct backend *b, candid_status status, const candid_error *error) {
    candid_error later = {.message = ""};
    if (status != CANDID_OK) {
        fail_msg("%s", error->message);
    }
    if (b->ops->finish(b, &later) != CANDID_OK) {
        fail_msg("%s", later.message);
    }
}

/* n floats of the device, which is released. */
static float *fetch(struct backend *b, float *device, size_t n) {
    float *host = malloc((n + 1) * sizeof *host);
    assert_non_null(host);
    b->ops->download(b, host, device, n * sizeof *host);
    b->ops->release(b, device);
    return host;
}

static void near(const char *what, size_t i, double found, double expected, double tolerance) {
    if (!(fabs(found - expected) <= tolerance)) {
        fail_msg("%s, value %zu: found %.9g, expected %.9g", what, i, found, expected);
    }
}

/* ---- products ---------------------------------------------------------------------------------- */

static const uint32_t types[] = {TYPE_F32, TYPE_F16, TYPE_BF16, TYPE_Q8_0, TYPE_Q4_0, TYPE_Q4_K, TYPE_Q5_K, TYPE_Q6_K};
#define N_TYPES (sizeof types / sizeof *types)

struct weights {
    struct matrix w;
    void *blocks;
    float *values; /* (n_out, n_in) as the blocks decode */
};

static struct weights random_weights(uint32_t type, int n_out, int n_in) {
    const size_t n = (size_t)n_out * (size_t)n_in, row = quant_row_bytes(type, n_in);
    struct weights s = {.values = random_floats(n), .blocks = malloc((size_t)n_out * row)};
    assert_non_null(s.blocks);
    for (int o = 0; o < n_out; o++) {
        s.values[(size_t)o * (size_t)n_in] *= 4; /* blocks have different scales */
        assert_true(
            quant_quantize(type, s.values + (size_t)o * (size_t)n_in, (char *)s.blocks + (size_t)o * row, n_in));
        quant_dequantize(type, (char *)s.blocks + (size_t)o * row, s.values + (size_t)o * (size_t)n_in, n_in);
    }
    s.w = (struct matrix){type, n_out, n_in, s.blocks};
    return s;
}

static void free_weights(struct weights *s) {
    free(s->blocks);
    free(s->values);
}

static bool is_float(uint32_t type) {
    return type == TYPE_F32 || type == TYPE_F16 || type == TYPE_BF16;
}

/* x as the fast path rounds it. few: for the matrix-vector kernels. */
static void round_as(uint32_t type, bool few, float *x, size_t n) {
    for (size_t i = 0; i < n && few && !is_float(type); i += QK) {
        float highest = 0;
        for (size_t j = 0; j < QK; j++) {
            highest = fmaxf(highest, fabsf(x[i + j]));
        }
        const float d = highest / 127.0f;
        for (size_t j = 0; j < QK; j++) {
            x[i + j] = d > 0 ? d * (float)lrintf(x[i + j] / d) : 0;
        }
    }
    for (size_t i = 0; i < n && !few && type != TYPE_F32; i++) {
        x[i] = type == TYPE_BF16 ? bf16_to_f32(f32_to_bf16(x[i])) : f16_to_f32(f32_to_f16(x[i]));
    }
}

/* A backend finds its copies of weights by their address on the host, which must not be used again while it lives. */
static void *kept[4096];
static int n_kept;

static void keep(void *memory) {
    assert_true(n_kept < 4096);
    kept[n_kept++] = memory;
}

static void free_kept(void) {
    while (n_kept > 0) {
        free(kept[--n_kept]);
    }
}

/* Two jobs of one x, the first with a bias. */
static void check_product(struct backend *b, bool exact, uint32_t type, int n_rows, int n_in, bool step) {
    static const int n_outs[] = {37, 8};
    struct weights w[2];
    struct linear_job jobs[2];
    float *x = random_floats((size_t)n_rows * (size_t)n_in), *bias = random_floats(37), *out[2];
    for (int i = 0; i < QK / 2 && i < n_in; i++) {
        x[i] = 0;
    }
    for (int i = 0; i < QK && n_rows > 1 && n_in >= QK; i++) {
        x[n_in + i] = 0; /* a block of zeros has no scale */
    }
    float *device_x = device_copy(b, x, (size_t)n_rows * (size_t)n_in);
    for (int j = 0; j < 2; j++) {
        w[j] = random_weights(type, n_outs[j], n_in);
        out[j] = device_copy(b, NULL, (size_t)n_rows * (size_t)n_outs[j]);
        jobs[j] = (struct linear_job){&w[j].w, j == 0 ? bias : NULL, out[j], step};
    }
    candid_error error = {.message = ""};
    ok(b, b->ops->linear(b, device_x, n_rows, n_in, jobs, 2, &error), &error);
    const bool few = n_rows <= 8 || (step && !is_float(type) && n_rows <= 32);
    if (!exact) {
        round_as(type, few, x, (size_t)n_rows * (size_t)n_in);
    }
    for (int j = 0; j < 2; j++) {
        const size_t n_out = (size_t)n_outs[j];
        float *found = fetch(b, out[j], (size_t)n_rows * n_out);
        for (size_t i = 0; i < (size_t)n_rows * n_out; i++) {
            double expected = j == 0 ? (double)bias[i % n_out] : 0, size = 1;
            for (int k = 0; k < n_in; k++) {
                float value = w[j].values[i % n_out * (size_t)n_in + (size_t)k];
                if (!exact && !few && !is_float(type)) { /* decoded to f16 for a product */
                    value = f16_to_f32(f32_to_f16(value));
                }
                const double term = (double)value * (double)x[i / n_out * (size_t)n_in + (size_t)k];
                expected += term;
                size += fabs(term);
            }
            char what[64];
            snprintf(what, sizeof what, "%s %s, %d rows of %d", exact ? "exact" : "fast", quant_type_name(type), n_rows,
                     n_in);
            near(what, i, (double)found[i], expected, 2e-6 * size);
        }
        free(found);
    }
    b->ops->release(b, device_x);
    free(x);
    for (int j = 0; j < 2; j++) {
        keep(w[j].blocks);
        free(w[j].values);
    }
    keep(bias);
}

static void products(void **state) {
    static const int rows[] = {1, 2, 3, 8, 9, 19, 33}, odd[] = {1, 7, 24, 588, 520};
    for (int exact = 0; exact < 2; exact++) {
        struct backend *b = open_backend(exact ? CANDID_PRECISION_EXACT : CANDID_PRECISION_FAST);
        for (size_t t = 0; t < N_TYPES; t++) {
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
                check_product(b, exact, types[t], rows[r], r % 2 ? 256 : 768, false);
                check_product(b, exact, types[t], rows[r], is_float(types[t]) ? odd[r % 5] : 512, true);
            }
        }
        backend_destroy(b);
        free_kept();
    }
}

/* A row gives the same bits alone and in company, within few rows and everywhere on the exact path. */
static void rows_are_independent(void **state) {
    for (int exact = 0; exact < 2; exact++) {
        struct backend *b = open_backend(exact ? CANDID_PRECISION_EXACT : CANDID_PRECISION_FAST);
        struct weights w[N_TYPES];
        for (size_t t = 0; t < N_TYPES; t++) {
            w[t] = random_weights(types[t], 21, 512);
            const int most = exact ? 40 : is_float(types[t]) ? 8 : 32;
            float *x = random_floats((size_t)most * 512), *device_x = device_copy(b, x, (size_t)most * 512);
            float *all = device_copy(b, NULL, (size_t)most * 21), *one = device_copy(b, NULL, 21);
            struct linear_job job = {&w[t].w, NULL, all, true};
            candid_error error;
            ok(b, b->ops->linear(b, device_x, most, 512, &job, 1, &error), &error);
            float *found = fetch(b, all, (size_t)most * 21), alone[21];
            job.out = one;
            for (int r = 0; r < most; r += 3) {
                ok(b, b->ops->linear(b, device_x + (size_t)r * 512, 1, 512, &job, 1, &error), &error);
                b->ops->download(b, alone, one, sizeof alone);
                assert_memory_equal(alone, found + (size_t)r * 21, sizeof alone);
            }
            b->ops->release(b, one);
            b->ops->release(b, device_x);
            free(found);
            free(x);
        }
        backend_destroy(b);
        for (size_t t = 0; t < N_TYPES; t++) {
            free_weights(&w[t]);
        }
    }
}

static void embeddings(void **state) {
    static const int32_t ids[] = {11, 0, 5, 5, 12};
    struct backend *b = open_backend(CANDID_PRECISION_FAST);
    struct weights w[N_TYPES];
    for (size_t t = 0; t < N_TYPES; t++) {
        const int n_in = is_float(types[t]) ? 77 : 512;
        w[t] = random_weights(types[t], 13, n_in);
        float *out = device_copy(b, NULL, 5 * (size_t)n_in);
        b->ops->embed(b, out, &w[t].w, ids, 5);
        ok(b, CANDID_OK, NULL);
        float *found = fetch(b, out, 5 * (size_t)n_in);
        for (int i = 0; i < 5 * n_in; i++) {
            const float expected = w[t].values[ids[i / n_in] * n_in + i % n_in];
            near(quant_type_name(types[t]), (size_t)i, (double)found[i], (double)expected,
                 4e-7 * fabs((double)expected));
        }
        free(found);
    }
    backend_destroy(b);
    for (size_t t = 0; t < N_TYPES; t++) {
        free_weights(&w[t]);
    }
}

/* ---- rows and elements, against the CPU ---------------------------------------------------------- */

/* The same op on both backends over the same x (n). */
struct pair {
    struct backend *cpu, *cuda;
    float *x, *y, *w, *v; /* host */
    float *of[2][3];      /* device copies of x, y and a result of NaN */
    size_t n;
};

static void pair_begin(struct pair *p, size_t n, size_t n_weights) {
    *p = (struct pair){.n = n, .x = random_floats(n), .y = random_floats(n)};
    assert_int_equal(create_cpu_exact(&p->cpu, NULL), CANDID_OK);
    p->cuda = open_backend(CANDID_PRECISION_FAST);
    p->w = random_floats(n_weights);
    p->v = random_floats(n_weights);
    for (size_t i = 0; i < n; i++) {
        p->x[i] *= 6;
    }
    for (int i = 0; i < 2; i++) {
        struct backend *b = i ? p->cuda : p->cpu;
        p->of[i][0] = device_copy(b, p->x, n);
        p->of[i][1] = device_copy(b, p->y, n);
        p->of[i][2] = device_copy(b, NULL, n);
    }
}

static void pair_end(struct pair *p, const char *what, int which, double tolerance) {
    ok(p->cuda, CANDID_OK, NULL);
    for (int k = 0; k < 3; k++) {
        float *expected = fetch(p->cpu, p->of[0][k], p->n), *found = fetch(p->cuda, p->of[1][k], p->n);
        for (size_t i = 0; i < p->n && k == which; i++) {
            near(what, i, (double)found[i], (double)expected[i], tolerance * (1 + fabs((double)expected[i])));
        }
        free(expected);
        free(found);
    }
    backend_destroy(p->cpu);
    backend_destroy(p->cuda);
    free(p->x);
    free(p->y);
    free(p->w);
    free(p->v);
}

static void rows_and_elements(void **state) {
    static const int widths[] = {1, 31, 64, 577, 1000};
    for (size_t s = 0; s < sizeof widths / sizeof *widths; s++) {
        const int width = widths[s], n_rows = 9;
        const size_t n = (size_t)(width * n_rows);
        struct pair p;
#define BOTH(what, which, tolerance, call)                                                                             \
    pair_begin(&p, n, (size_t)width);                                                                                  \
    for (int i = 0; i < 2; i++) {                                                                                      \
        struct backend *b = i ? p.cuda : p.cpu;                                                                        \
        float **of = p.of[i];                                                                                          \
        call;                                                                                                          \
    }                                                                                                                  \
    pair_end(&p, what, which, tolerance)
        BOTH("rms_norm", 2, 2e-6, b->ops->rms_norm(b, of[2], of[0], p.w, n_rows, width, 1e-5f));
        BOTH("rms_norm in place", 0, 2e-6, b->ops->rms_norm(b, of[0], of[0], p.w, n_rows, width, 1e-5f));
        BOTH("layer_norm", 2, 1e-5, b->ops->layer_norm(b, of[2], of[0], p.w, p.v, n_rows, width, 1e-5f));
        BOTH("layer_norm in place", 0, 1e-5, b->ops->layer_norm(b, of[0], of[0], p.w, p.v, n_rows, width, 1e-5f));
        BOTH("add", 0, 0, b->ops->add(b, of[0], of[1], n));
        BOTH("silu_mul", 0, 1e-6, b->ops->silu_mul(b, of[0], of[1], n));
        BOTH("silu", 0, 1e-6, b->ops->silu(b, of[0], n));
        BOTH("gelu", 0, 1e-6, b->ops->gelu(b, of[0], n, GELU_ERF));
        BOTH("quick gelu", 0, 1e-6, b->ops->gelu(b, of[0], n, GELU_QUICK));
        BOTH("copy", 2, 0, b->ops->copy(b, of[2], of[0], n * sizeof(float)));
        BOTH("zero", 0, 0, b->ops->zero(b, of[0], n * sizeof(float)));
        BOTH("copy_strided", 2, 0, {
            b->ops->zero(b, of[2], n * sizeof(float));
            b->ops->copy_strided(b, of[2], (size_t)width * sizeof(float), of[0], 2 * (size_t)width * sizeof(float),
                                 (size_t)(width + 1) / 2 * sizeof(float), 4);
        });
    }
}

static void rotary_positions(void **state) {
    static const int32_t positions[] = {0, 1, 4095, 17, 17};
    const float factors[] = {1.0f, 2.0f, 0.5f, 3.0f};
    for (int i = 0; i < 8; i++) {
        const int n_head = 3, dim = 12, n_rows = 5, n_dims = i & 1 ? 8 : 12;
        const struct rope_params params = {.n_dims = n_dims,
                                           .base = 10000.0f,
                                           .position_scale = i & 2 ? 0.25f : 1.0f,
                                           .factors = i & 1 ? factors : NULL,
                                           .adjacent_pairs = i & 4};
        struct pair p;
        pair_begin(&p, (size_t)(n_rows * n_head * dim), 1);
        for (int k = 0; k < 2; k++) {
            struct backend *b = k ? p.cuda : p.cpu;
            b->ops->rope_table(b, p.of[k][2], positions, n_rows, &params);
            b->ops->rope(b, p.of[k][0], p.of[k][2], n_rows, n_head, dim, &params);
        }
        pair_end(&p, "rope", 0, 2e-6);
    }
}

/* ---- the image encoder's attention ---------------------------------------------------------------- */

static void full_attention(void **state) {
    static const int shapes[][3] = {{65, 3, 32}, {37, 2, 20}, {1, 1, 8}, {7, 2, 64}, {100, 1, 300}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int n = shapes[s][0], n_head = shapes[s][1], dim = shapes[s][2];
        const size_t floats = (size_t)(n * n_head * dim), n_probs = (size_t)n * (size_t)(n * n_head);
        struct backend *cpu = NULL;
        assert_int_equal(create_cpu_exact(&cpu, NULL), CANDID_OK);
        float *in[3] = {random_floats(floats), random_floats(floats), random_floats(floats)};
        float *expected = malloc(floats * sizeof *expected),
              *probs[2] = {random_floats(n_probs), random_floats(n_probs)};
        candid_error error;
        ok(cpu, cpu->ops->attend_full(cpu, in[0], in[1], in[2], expected, n, n_head, dim, 0.3f, probs[0], &error),
           &error);
        for (int i = 0; i < 4; i++) {
            const bool exact = i & 1, shown = i & 2;
            struct backend *b = open_backend(exact ? CANDID_PRECISION_EXACT : CANDID_PRECISION_FAST);
            float *q = device_copy(b, in[0], floats), *k = device_copy(b, in[1], floats);
            float *v = device_copy(b, in[2], floats), *out = device_copy(b, NULL, floats);
            ok(b, b->ops->attend_full(b, q, k, v, out, n, n_head, dim, 0.3f, shown ? probs[1] : NULL, &error), &error);
            float *found = fetch(b, out, floats);
            for (size_t j = 0; j < floats; j++) {
                near("attend_full", j, (double)found[j], (double)expected[j], exact || shown || n < 8 ? 1e-5 : 3e-3);
            }
            for (size_t j = 0; shown && j < n_probs; j++) {
                near("attend_full's probabilities", j, (double)probs[1][j], (double)probs[0][j], 1e-5);
            }
            b->ops->release(b, q);
            b->ops->release(b, k);
            b->ops->release(b, v);
            free(found);
            backend_destroy(b);
        }
        backend_destroy(cpu);
        for (int i = 0; i < 3; i++) {
            free(in[i]);
        }
        free(expected);
        free(probs[0]);
        free(probs[1]);
    }
}

/* ---- failures -------------------------------------------------------------------------------------- */

static void weights_are_shared(void **state) {
    struct weights w = random_weights(TYPE_Q6_K, 9, 512);
    const struct weight_span span = {w.blocks, TYPE_Q6_K, 9 * quant_row_bytes(TYPE_Q6_K, 512)};
    struct cuda_weights *store = NULL;
    candid_error error = {.message = ""};
    if (cuda_weights_create(0, &span, 1, NULL, &store, &error) != CANDID_OK) {
        fail_msg("%s", error.message);
    }
    assert_true(cuda_weights_bytes(store) >= span.bytes && cuda_weights_bytes(store) < span.bytes + 1024);
    memset(w.blocks, 0xff, span.bytes); /* what is on the device is used */
    static const int32_t ids[] = {8, 3};
    for (int i = 0; i < 2; i++) {
        struct backend *b = NULL;
        assert_int_equal(backend_cuda_create(CANDID_PRECISION_FAST, 0, store, NULL, &b, &error), CANDID_OK);
        float *out = device_copy(b, NULL, 1024);
        b->ops->embed(b, out, &w.w, ids, 2);
        float *found = fetch(b, out, 1024);
        for (int k = 0; k < 1024; k++) {
            near("shared weights", (size_t)k, (double)found[k], (double)w.values[ids[k / 512] * 512 + k % 512], 1e-5);
        }
        free(found);
        backend_destroy(b);
    }
    cuda_weights_free(store);
    free_weights(&w);
}

static void memory_that_is_short(void **state) {
    struct backend *b = open_backend(CANDID_PRECISION_FAST);
    candid_error error = {.message = ""};
    void *device = NULL;
    assert_int_equal(b->ops->alloc(b, (size_t)1 << 50, &device, &error), CANDID_ERROR_MEMORY);
    assert_null(device);
    assert_non_null(strstr(error.message, "--ctx"));
    assert_non_null(strstr(error.message, "free"));
    assert_int_equal(b->ops->finish(b, &error), CANDID_OK); /* told once */
    const struct weight_span span = {&span, TYPE_F32, (size_t)1 << 50};
    struct cuda_weights *store = NULL;
    assert_int_equal(cuda_weights_create(0, &span, 1, NULL, &store, &error), CANDID_ERROR_MEMORY);
    assert_non_null(strstr(error.message, "weights"));
    backend_destroy(b);
    assert_int_equal(backend_cuda_create(CANDID_PRECISION_FAST, 1000, NULL, NULL, &b, &error), CANDID_ERROR_INTERNAL);
}

#ifdef CANDID_CUDA_EMULATED
#include "cuda_runtime_api.h"

static void nothing_is_left_behind(void **state) {
    const size_t before = emulated_gpu.n_blocks;
    for (int fast = 0; fast < 2; fast++) {
        struct backend *b = open_backend(fast ? CANDID_PRECISION_FAST : CANDID_PRECISION_EXACT);
        check_product(b, !fast, TYPE_Q4_K, 12, 256, false);
        backend_destroy(b);
        free_kept();
    }
    assert_int_equal(emulated_gpu.n_blocks, before);
}

static void no_device(void **state) {
    struct device *device = NULL;
    struct backend *b = NULL;
    candid_error error = {.message = ""};
    emulated_gpu.n_devices = 0;
    assert_int_equal(device_open("cuda", CANDID_PRECISION_FAST, 1, NULL, &device, &error), CANDID_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "no NVIDIA GPU"));
    assert_int_equal(device_open("auto", CANDID_PRECISION_FAST, 1, NULL, &device, &error), CANDID_OK);
    assert_int_equal(device_backend(device, &b, &error), CANDID_OK);
    assert_non_null(strstr(b->description, "cpu"));
    backend_destroy(b);
    device_free(device);
    emulated_gpu.n_devices = 2;
    assert_int_equal(device_open("cuda:2", CANDID_PRECISION_FAST, 1, NULL, &device, &error), CANDID_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "0 to 1"));
    static const char *const names[] = {"cuda:", "cuda:x", "cuda:1x", "cuda1", "gpu", "", "cuda:-1"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_int_equal(device_open(names[i], CANDID_PRECISION_FAST, 1, NULL, &device, &error), CANDID_ERROR_ARGUMENT);
    }
    assert_int_equal(device_open("cuda:1", CANDID_PRECISION_FAST, 1, NULL, &device, &error), CANDID_OK);
    assert_int_equal(device_backend(device, &b, &error), CANDID_OK);
    assert_non_null(strstr(b->description, "cuda fast"));
    backend_destroy(b);
    device_free(device);
    emulated_gpu.n_devices = 1;
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),
        cmocka_unit_test(rows_are_independent),
        cmocka_unit_test(embeddings),
        cmocka_unit_test(rows_and_elements),
        cmocka_unit_test(rotary_positions),
        cmocka_unit_test(full_attention),
        cmocka_unit_test(weights_are_shared),
        cmocka_unit_test(memory_that_is_short),
#ifdef CANDID_CUDA_EMULATED
        cmocka_unit_test(nothing_is_left_behind),
        cmocka_unit_test(no_device),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
