/*
 * Products through oneDNN (version 2 or 3): bf16 where the processor multiplies it in hardware, else f32.
 *
 * Weights are expanded panel by panel to a bounded scratch matrix; the transposition is told by strides.
 */
#include <dnnl.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/gemm_internal.h"
#include "core/status.h"

#define SLAB_ROWS    1024
#define PANEL_BYTES  ((size_t)16 << 20) /* expanded weights at a time */
#define CACHED       32                 /* primitives kept */
#define COLUMNS_STEP 64                 /* panels are a multiple of this many output features where possible */

/* A matmul of (m, k) by (k, n); rows of the destination are ld apart. */
struct shape {
    int m, n, k, ld;
    bool bias;
};

struct entry {
    struct shape shape;
    dnnl_primitive_t primitive; /* NULL: unused */
    dnnl_memory_t src, weights, bias, dst;
};

struct gemm_onednn {
    bool bf16;
    int n_threads;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct entry entries[CACHED];
    int next; /* entry to replace */
    void *x;  /* activations as bf16 */
    size_t x_size;
    void *weights; /* a panel of expanded weights */
    size_t weights_size;
    float *rows; /* [n_threads][n_in] expanded to f32 on the way to bf16 */
    size_t rows_size;
};

static candid_status check(dnnl_status_t status, const char *what, candid_error *error) {
    if (status == dnnl_success) {
        return CANDID_OK;
    }
    if (status == dnnl_unimplemented) {
        return fail(error, CANDID_ERROR_UNSUPPORTED, "oneDNN does not implement %s here", what);
    }
    if (status == dnnl_out_of_memory) {
        return fail(error, CANDID_ERROR_MEMORY, "oneDNN: out of memory in %s", what);
    }
    return fail(error, CANDID_ERROR_INTERNAL, "oneDNN: %s failed with status %d", what, (int)status);
}

/* ---- the few calls that differ between versions ---- */

#if DNNL_VERSION_MAJOR >= 3

typedef dnnl_memory_desc_t memory_desc; /* a handle */

static dnnl_status_t make_desc(memory_desc *d, const dnnl_dims_t dims, dnnl_data_type_t type,
                               const dnnl_dims_t strides) {
    return dnnl_memory_desc_create_with_strides(d, 2, dims, type, strides);
}

static void free_desc(memory_desc *d) {
    if (*d) {
        dnnl_memory_desc_destroy(*d);
    }
}

static dnnl_status_t make_memory(dnnl_memory_t *m, const memory_desc *d, dnnl_engine_t engine) {
    return dnnl_memory_create(m, *d, engine, DNNL_MEMORY_NONE);
}

static dnnl_status_t make_matmul(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const memory_desc *src,
                                 const memory_desc *weights, const memory_desc *bias, const memory_desc *dst) {
    return dnnl_matmul_primitive_desc_create(out, engine, *src, *weights, bias ? *bias : NULL, *dst, NULL);
}

#else

typedef dnnl_memory_desc_t memory_desc; /* a plain struct */

static dnnl_status_t make_desc(memory_desc *d, const dnnl_dims_t dims, dnnl_data_type_t type,
                               const dnnl_dims_t strides) {
    return dnnl_memory_desc_init_by_strides(d, 2, dims, type, strides);
}

static void free_desc(memory_desc *d) {
    (void)d;
}

static dnnl_status_t make_memory(dnnl_memory_t *m, const memory_desc *d, dnnl_engine_t engine) {
    return dnnl_memory_create(m, d, engine, DNNL_MEMORY_NONE);
}

static dnnl_status_t make_matmul(dnnl_primitive_desc_t *out, dnnl_engine_t engine, const memory_desc *src,
                                 const memory_desc *weights, const memory_desc *bias, const memory_desc *dst) {
    dnnl_matmul_desc_t desc;
    const dnnl_status_t status = dnnl_matmul_desc_init(&desc, src, weights, bias, dst);
    return status == dnnl_success ? dnnl_primitive_desc_create(out, &desc, NULL, engine, NULL) : status;
}

#endif

/* ---- primitives ---- */

static void free_entry(struct entry *e) {
    if (e->primitive) {
        dnnl_primitive_destroy(e->primitive);
    }
    dnnl_memory_t memories[] = {e->src, e->weights, e->bias, e->dst};
    for (int i = 0; i < 4; i++) {
        if (memories[i]) {
            dnnl_memory_destroy(memories[i]);
        }
    }
    memset(e, 0, sizeof *e);
}

static candid_status make_entry(const struct gemm_onednn *o, struct shape s, struct entry *out, candid_error *error) {
    const dnnl_data_type_t type = o->bf16 ? dnnl_bf16 : dnnl_f32;
    memory_desc src, weights, bias, dst;
    memset(&src, 0, sizeof src);
    memset(&weights, 0, sizeof weights);
    memset(&bias, 0, sizeof bias);
    memset(&dst, 0, sizeof dst);
    dnnl_primitive_desc_t desc = NULL;
    struct entry e = {.shape = s};
    candid_status status;
    TRY_GOTO(check(make_desc(&src, (dnnl_dims_t){s.m, s.k}, type, (dnnl_dims_t){s.k, 1}), "a descriptor", error),
             status, done);
    TRY_GOTO(check(make_desc(&weights, (dnnl_dims_t){s.k, s.n}, type, (dnnl_dims_t){1, s.k}), "a descriptor", error),
             status, done);
    TRY_GOTO(check(make_desc(&bias, (dnnl_dims_t){1, s.n}, dnnl_f32, (dnnl_dims_t){s.n, 1}), "a descriptor", error),
             status, done);
    TRY_GOTO(check(make_desc(&dst, (dnnl_dims_t){s.m, s.n}, dnnl_f32, (dnnl_dims_t){s.ld, 1}), "a descriptor", error),
             status, done);
    TRY_GOTO(check(make_matmul(&desc, o->engine, &src, &weights, s.bias ? &bias : NULL, &dst),
                   o->bf16 ? "bf16 matmul" : "f32 matmul", error),
             status, done);
    TRY_GOTO(check(dnnl_primitive_create(&e.primitive, desc), "creating a matmul", error), status, done);
    TRY_GOTO(check(make_memory(&e.src, &src, o->engine), "creating a memory", error), status, done);
    TRY_GOTO(check(make_memory(&e.weights, &weights, o->engine), "creating a memory", error), status, done);
    TRY_GOTO(check(make_memory(&e.bias, &bias, o->engine), "creating a memory", error), status, done);
    TRY_GOTO(check(make_memory(&e.dst, &dst, o->engine), "creating a memory", error), status, done);
    *out = e;
done:
    if (status != CANDID_OK) {
        free_entry(&e);
    }
    if (desc) {
        dnnl_primitive_desc_destroy(desc);
    }
    free_desc(&src);
    free_desc(&weights);
    free_desc(&bias);
    free_desc(&dst);
    return status;
}

static bool same_shape(struct shape a, struct shape b) {
    return a.m == b.m && a.n == b.n && a.k == b.k && a.ld == b.ld && a.bias == b.bias;
}

static candid_status find_entry(struct gemm_onednn *o, struct shape s, struct entry **out, candid_error *error) {
    for (int i = 0; i < CACHED; i++) {
        if (o->entries[i].primitive && same_shape(o->entries[i].shape, s)) {
            *out = &o->entries[i];
            return CANDID_OK;
        }
    }
    struct entry *e = &o->entries[o->next];
    free_entry(e);
    TRY(make_entry(o, s, e, error));
    o->next = (o->next + 1) % CACHED;
    *out = e;
    return CANDID_OK;
}

/* dst (m, n) = src (m, k) · weights (n, k)ᵀ + bias */
static candid_status multiply(struct gemm_onednn *o, struct shape s, const void *src, const void *weights,
                              const float *bias, float *dst, candid_error *error) {
    struct entry *e = NULL;
    TRY(find_entry(o, s, &e, error));
    TRY(check(dnnl_memory_set_data_handle(e->src, (void *)src), "setting the source", error));
    TRY(check(dnnl_memory_set_data_handle(e->weights, (void *)weights), "setting the weights", error));
    TRY(check(dnnl_memory_set_data_handle(e->bias, (void *)bias), "setting the bias", error));
    TRY(check(dnnl_memory_set_data_handle(e->dst, dst), "setting the destination", error));
    const dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, e->src}, {DNNL_ARG_WEIGHTS, e->weights}, {DNNL_ARG_DST, e->dst}, {DNNL_ARG_BIAS, e->bias}};
    TRY(check(dnnl_primitive_execute(e->primitive, o->stream, s.bias ? 4 : 3, args), "running a matmul", error));
    return check(dnnl_stream_wait(o->stream), "waiting for a matmul", error);
}

/* ---- life ---- */

candid_status gemm_onednn_create(bool bf16, int n_threads, struct gemm_onednn **out, candid_error *error) {
    struct gemm_onednn *o = calloc(1, sizeof *o);
    if (!o) {
        return fail_memory(error, "oneDNN state", sizeof *o);
    }
    o->bf16 = bf16;
    o->n_threads = n_threads;
    candid_status status;
    struct entry *e = NULL;
    TRY_GOTO(check(dnnl_engine_create(&o->engine, dnnl_cpu, 0), "creating an engine", error), status, failed);
    TRY_GOTO(check(dnnl_stream_create(&o->stream, o->engine, dnnl_stream_default_flags), "creating a stream", error),
             status, failed);
    TRY_GOTO(find_entry(o, (struct shape){.m = 32, .n = 32, .k = 32, .ld = 32}, &e, error), status, failed);
    *out = o;
    return CANDID_OK;
failed:
    gemm_onednn_free(o);
    return status;
}

void gemm_onednn_free(struct gemm_onednn *o) {
    if (!o) {
        return;
    }
    for (int i = 0; i < CACHED; i++) {
        free_entry(&o->entries[i]);
    }
    if (o->stream) {
        dnnl_stream_destroy(o->stream);
    }
    if (o->engine) {
        dnnl_engine_destroy(o->engine);
    }
    free(o->x);
    free(o->weights);
    free(o->rows);
    free(o);
}

/* ---- products ---- */

static candid_status reserve(void **p, size_t *size, size_t bytes, const char *what, candid_error *error) {
    if (*size >= bytes) {
        return CANDID_OK;
    }
    free(*p);
    *size = 0;
    bytes = (bytes + 63) / 64 * 64;
    *p = aligned_alloc(64, bytes);
    if (!*p) {
        return fail_memory(error, what, bytes);
    }
    *size = bytes;
    return CANDID_OK;
}

/* Rounds to nearest even; without branches, so that it runs over vectors. A NaN with a payload in the low bits only
 * keeps its quiet bit through the OR. */
static void to_bf16(const float *x, uint16_t *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        const uint32_t nan = (bits & 0x7FFFFFFF) > 0x7F800000 ? 0xFFFFFFFF : 0;
        const uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16, quiet = bits >> 16 | 0x40;
        out[i] = (uint16_t)((rounded & ~nan) | (quiet & nan));
    }
}

static void expand_row(const struct matrix *w, int row, float *out) {
    const uint8_t *source = (const uint8_t *)w->data + (size_t)row * quant_row_bytes(w->type, w->n_in);
#if defined(__x86_64__)
    if (cpu_isa_available(ISA_AVX2)) {
        gemm_decode_avx2(w->type, source, out, w->n_in);
        return;
    }
#endif
    quant_dequantize(w->type, source, out, w->n_in);
}

/* Expands rows [row, row + n) to o->weights. */
static void expand_panel(struct gemm_onednn *o, const struct matrix *w, int row, int n) {
    const size_t n_in = (size_t)w->n_in;
#pragma omp parallel for num_threads(o->n_threads) schedule(static)
    for (int i = 0; i < n; i++) {
        if (o->bf16) {
            float *values = o->rows + (size_t)omp_get_thread_num() * n_in;
            expand_row(w, row + i, values);
            to_bf16(values, (uint16_t *)o->weights + (size_t)i * n_in, n_in);
        } else {
            expand_row(w, row + i, (float *)o->weights + (size_t)i * n_in);
        }
    }
}

static candid_status linear_slab(struct gemm_onednn *o, const float *x, int row, int n_rows, int n_in,
                                 const struct linear_job *jobs, int n_jobs, candid_error *error) {
    const size_t width = (size_t)n_in, value_bytes = o->bf16 ? sizeof(uint16_t) : sizeof(float);
    const void *src = x + (size_t)row * width;
    if (o->bf16) {
        TRY(reserve(&o->x, &o->x_size, (size_t)n_rows * width * value_bytes, "activations in bf16", error));
#pragma omp parallel for num_threads(o->n_threads) schedule(static)
        for (int i = 0; i < n_rows; i++) {
            to_bf16(x + (size_t)(row + i) * width, (uint16_t *)o->x + (size_t)i * width, width);
        }
        src = o->x;
    }
    size_t columns = PANEL_BYTES / (width * value_bytes);
    columns = columns < COLUMNS_STEP ? COLUMNS_STEP : columns / COLUMNS_STEP * COLUMNS_STEP;
    for (int j = 0; j < n_jobs; j++) {
        const struct matrix *w = jobs[j].w;
        const int step = columns < (size_t)w->n_out ? (int)columns : w->n_out;
        TRY(reserve(&o->weights, &o->weights_size, (size_t)step * width * value_bytes, "expanded weights", error));
        if (o->bf16) {
            void *rows = o->rows;
            const candid_status status =
                reserve(&rows, &o->rows_size, (size_t)o->n_threads * width * sizeof(float), "weight rows", error);
            o->rows = rows;
            TRY(status);
        }
        for (int column = 0; column < w->n_out; column += step) {
            const int n = w->n_out - column < step ? w->n_out - column : step;
            const float *bias = jobs[j].bias ? jobs[j].bias + column : NULL;
            expand_panel(o, w, column, n);
            TRY(multiply(o, (struct shape){.m = n_rows, .n = n, .k = n_in, .ld = w->n_out, .bias = bias != NULL}, src,
                         o->weights, bias, jobs[j].out + (size_t)row * (size_t)w->n_out + column, error));
        }
    }
    return CANDID_OK;
}

candid_status gemm_onednn_linear(struct gemm_onednn *o, const float *x, int n_rows, int n_in,
                                 const struct linear_job *jobs, int n_jobs, candid_error *error) {
    /* oneDNN takes the calling thread's OpenMP setting. */
    const int n_threads = omp_get_max_threads();
    omp_set_num_threads(o->n_threads);
    candid_status status = CANDID_OK;
    for (int row = 0; row < n_rows && status == CANDID_OK; row += SLAB_ROWS) {
        const int count = n_rows - row < SLAB_ROWS ? n_rows - row : SLAB_ROWS;
        status = linear_slab(o, x, row, count, n_in, jobs, n_jobs, error);
    }
    omp_set_num_threads(n_threads);
    return status;
}
