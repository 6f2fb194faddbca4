/*
 * CPU backend: the op table over the reference loops (exact) or the kernels chosen for this processor (fast).
 */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "backend/cpu/attention.h"
#include "backend/cpu/features.h"
#include "backend/cpu/gemm.h"
#include "backend/cpu/matvec.h"
#include "backend/cpu/plan_ops.h"
#include "backend/cpu/reference.h"
#include "backend/cpu/vecops.h"
#include "core/status.h"
#include "model/quant.h"

struct cpu_backend {
    struct backend base;
    bool exact;
    int n_threads;
    struct cpu_features features;

    /* fast path only */
    const struct matvec_kernels *matvec;
    const struct vec_kernels *vec;
    struct gemm *gemm;
    void *prepared; /* activation rows in a matvec partner format */
    size_t prepared_size;
};

static struct cpu_backend *cpu_of(struct backend *b) {
    return (struct cpu_backend *)b;
}

/* Weight rows a thread takes at a time: long enough a stream for the prefetcher, a multiple of a cache line of outputs.
 */
#define CHUNK_ROWS 128

/* Threads for `work` multiply-adds (or bytes of weights): waking a second thread for less than this costs more than it
 * saves, far more when other programs use the processor too. */
static int threads_for(const struct cpu_backend *c, double work) {
    return work < 400e3 ? 1 : c->n_threads;
}

/* ---- memory ------------------------------------------------------------------------------------ */

static candid_status cpu_alloc(struct backend *b, size_t bytes, void **out, candid_error *error) {
    if (posix_memalign(out, 64, bytes ? bytes : 64) != 0) {
        *out = NULL;
        return fail_memory(error, "activations", bytes);
    }
    return CANDID_OK;
}

static void cpu_release(struct backend *b, void *device) {
    free(device);
}

static void cpu_copy(struct backend *b, void *to, const void *from, size_t bytes) {
    memcpy(to, from, bytes);
}

static void cpu_copy_strided(struct backend *b, void *to, size_t to_stride, const void *from, size_t from_stride,
                             size_t bytes, int n_pieces) {
    for (int i = 0; i < n_pieces; i++) {
        memcpy((char *)to + (size_t)i * to_stride, (const char *)from + (size_t)i * from_stride, bytes);
    }
}

static void cpu_zero(struct backend *b, void *device, size_t bytes) {
    memset(device, 0, bytes);
}

static candid_status cpu_finish(struct backend *b, candid_error *error) {
    return CANDID_OK;
}

/* ---- rows -------------------------------------------------------------------------------------- */

static void cpu_embed(struct backend *b, float *out, const struct matrix *w, const int32_t *ids, int n) {
    const size_t row_bytes = quant_row_bytes(w->type, w->n_in);
    for (int i = 0; i < n; i++) {
        quant_dequantize(w->type, (const char *)w->data + (size_t)ids[i] * row_bytes, out + (size_t)i * (size_t)w->n_in,
                         w->n_in);
    }
}

/*
 * The products of jobs whose weights have one type, with the activations in c->prepared: one parallel region for all
 * jobs. Threads take chunks of weight rows as they come free, since cores are not equally fast on a shared machine.
 */
static void multiply_jobs(struct cpu_backend *c, uint32_t type, int n_in, int n_rows, const struct linear_job *jobs,
                          int n_jobs) {
    double bytes = 0;
    int n_chunks = 0;
    for (int j = 0; j < n_jobs; j++) {
        bytes += (double)quant_row_bytes(type, n_in) * jobs[j].w->n_out;
        n_chunks += (jobs[j].w->n_out - 1) / CHUNK_ROWS + 1;
    }
#pragma omp parallel for num_threads(threads_for(c, bytes *n_rows)) schedule(dynamic, 1)
    for (int chunk = 0; chunk < n_chunks; chunk++) {
        const struct linear_job *job = jobs;
        int begin = chunk * CHUNK_ROWS;
        while (begin >= job->w->n_out) { /* chunks of the jobs before */
            begin -= ((job->w->n_out - 1) / CHUNK_ROWS + 1) * CHUNK_ROWS;
            job++;
        }
        const int n_out = job->w->n_out, stop = begin + CHUNK_ROWS < n_out ? begin + CHUNK_ROWS : n_out;
        c->matvec->multiply(type, job->w->data, n_in, begin, stop, c->prepared, n_rows, job->out + begin, n_out);
        if (job->bias) {
            for (int r = 0; r < n_rows; r++) {
                for (int o = begin; o < stop; o++) {
                    job->out[(size_t)r * (size_t)n_out + (size_t)o] += job->bias[o];
                }
            }
        }
    }
}

/* Few rows: round the activations once per partner format, then stream the weight rows. */
static candid_status cpu_linear_few(struct cpu_backend *c, const float *x, int n_rows, int n_in,
                                    const struct linear_job *jobs, int n_jobs, candid_error *error) {
    const struct matvec_kernels *kernels = c->matvec;
    uint32_t prepared_type = UINT32_MAX;
    for (int first = 0, end; first < n_jobs; first = end) {
        const uint32_t type = jobs[first].w->type;
        for (end = first + 1; end < n_jobs && jobs[end].w->type == type;) {
            end++;
        }
        const size_t stride = kernels->prepared_bytes(type, n_in);
        if (type != prepared_type) {
            const size_t size = stride * (size_t)n_rows;
            if (size > c->prepared_size) {
                free(c->prepared);
                c->prepared_size = 0;
                if (posix_memalign(&c->prepared, 64, size) != 0) {
                    c->prepared = NULL;
                    return fail_memory(error, "rounded activations", size);
                }
                c->prepared_size = size;
            }
            for (int r = 0; r < n_rows; r++) {
                kernels->prepare(type, x + (size_t)r * (size_t)n_in, n_in, (char *)c->prepared + (size_t)r * stride);
            }
            prepared_type = type;
        }
        multiply_jobs(c, type, n_in, n_rows, jobs + first, end - first);
    }
    return CANDID_OK;
}

static candid_status cpu_linear(struct backend *b, const float *x, int n_rows, int n_in, const struct linear_job *jobs,
                                int n_jobs, candid_error *error) {
    struct cpu_backend *c = cpu_of(b);
    if (c->exact) {
        double work = 0;
        for (int j = 0; j < n_jobs; j++) {
            work += (double)n_rows * n_in * jobs[j].w->n_out;
        }
        return reference_linear(x, n_rows, n_in, jobs, n_jobs, threads_for(c, work), error);
    }
    int most_rows = MATVEC_MAX_ROWS;
    for (int j = 0; j < n_jobs; j++) {
        const int most = matvec_most_rows(jobs[j].w->type, jobs[j].step);
        most_rows = most < most_rows ? most : most_rows;
    }
    if (n_rows <= most_rows) {
        return cpu_linear_few(c, x, n_rows, n_in, jobs, n_jobs, error);
    }
    return gemm_linear(c->gemm, x, n_rows, n_in, jobs, n_jobs, error);
}

static void cpu_rms_norm(struct backend *b, float *out, const float *x, const float *weight, int n_rows, int n,
                         float eps) {
    struct cpu_backend *c = cpu_of(b);
    const size_t columns = (size_t)n;
    if (c->exact) {
        reference_rms_norm(out, x, weight, n_rows, n, eps, c->n_threads);
        return;
    }
#pragma omp parallel for num_threads(threads_for(c, (double)n_rows *n)) schedule(static)
    for (int r = 0; r < n_rows; r++) {
        c->vec->rms_norm(out + (size_t)r * columns, x + (size_t)r * columns, weight, columns, eps);
    }
}

static void cpu_layer_norm(struct backend *b, float *out, const float *x, const float *weight, const float *bias,
                           int n_rows, int n, float eps) {
    struct cpu_backend *c = cpu_of(b);
    reference_layer_norm(out, x, weight, bias, n_rows, n, eps, threads_for(c, (double)n_rows * n));
}

static void cpu_add(struct backend *b, float *x, const float *y, size_t n) {
#pragma omp parallel for simd num_threads(threads_for(cpu_of(b), (double)n)) schedule(static)
    for (size_t i = 0; i < n; i++) {
        x[i] += y[i];
    }
}

/* Element-wise functions run over pieces of this many values, which the threads share. */
#define PIECE ((size_t)4096)

static void cpu_silu_mul(struct backend *b, float *gate, const float *up, size_t n) {
    struct cpu_backend *c = cpu_of(b);
    if (c->exact) {
        reference_silu_mul(gate, up, n, c->n_threads);
        return;
    }
#pragma omp parallel for num_threads(threads_for(c, 8.0 * (double)n)) schedule(static)
    for (size_t i = 0; i < n; i += PIECE) {
        c->vec->silu_mul(gate + i, up + i, n - i < PIECE ? n - i : PIECE);
    }
}

static void cpu_silu(struct backend *b, float *x, size_t n) {
    struct cpu_backend *c = cpu_of(b);
    if (c->exact) {
        reference_silu(x, n, c->n_threads);
        return;
    }
#pragma omp parallel for num_threads(threads_for(c, 8.0 * (double)n)) schedule(static)
    for (size_t i = 0; i < n; i += PIECE) {
        c->vec->silu(x + i, n - i < PIECE ? n - i : PIECE);
    }
}

static void cpu_gelu(struct backend *b, float *x, size_t n, enum gelu_kind kind) {
    struct cpu_backend *c = cpu_of(b);
    if (c->exact) {
        reference_gelu(x, n, kind, c->n_threads);
        return;
    }
    void (*gelu)(float *x, size_t n) = kind == GELU_ERF ? c->vec->gelu_erf : c->vec->gelu_quick;
#pragma omp parallel for num_threads(threads_for(c, 8.0 * (double)n)) schedule(static)
    for (size_t i = 0; i < n; i += PIECE) {
        gelu(x + i, n - i < PIECE ? n - i : PIECE);
    }
}

/* ---- rotary positions --------------------------------------------------------------------------- */

/* Angles in f32 in the order of transformers' LlamaRotaryEmbedding: inv_freq = 1 / base^(2i/d), angle = pos * inv_freq.
 */
static void cpu_rope_table(struct backend *b, float *table, const int32_t *positions, int n_rows,
                           const struct rope_params *params) {
    const int half = params->n_dims / 2;
    for (int i = 0; i < half; i++) {
        float inv_freq = 1.0f / powf(params->base, (float)(2 * i) / (float)params->n_dims);
        if (params->factors) {
            inv_freq /= params->factors[i];
        }
        inv_freq *= params->position_scale;
        for (int r = 0; r < n_rows; r++) {
            const float angle = (float)positions[r] * inv_freq;
            float *entry = table + ((size_t)r * (size_t)half + (size_t)i) * 2;
            entry[0] = cosf(angle);
            entry[1] = sinf(angle);
        }
    }
}

static void cpu_rope(struct backend *b, float *x, const float *table, int n_rows, int n_head, int head_dim,
                     const struct rope_params *params) {
    const int half = params->n_dims / 2;
    const int stride = params->adjacent_pairs ? 2 : 1;     /* from one pair's first value to the next */
    const int partner = params->adjacent_pairs ? 1 : half; /* from a pair's first value to its second */
#pragma omp parallel for num_threads(threads_for(cpu_of(b), (double)n_rows *n_head *head_dim)) schedule(static)
    for (int r = 0; r < n_rows; r++) {
        const float *angles = table + (size_t)r * (size_t)half * 2;
        for (int h = 0; h < n_head; h++) {
            float *head = x + ((size_t)r * (size_t)n_head + (size_t)h) * (size_t)head_dim;
            for (int i = 0; i < half; i++) {
                float *first = head + i * stride, *second = first + partner;
                const float c = angles[2 * i], s = angles[2 * i + 1], x0 = *first, x1 = *second;
                *first = x0 * c - x1 * s;
                *second = x1 * c + x0 * s;
            }
        }
    }
}

/* ---- attention ---------------------------------------------------------------------------------- */

static void cpu_kv_store(struct backend *b, const struct kv_attention *a, const float *k, const float *v) {
    const double values = (double)a->n_rows * a->shape->n_head_kv * a->shape->head_dim;
    attention_kv_store(a, k, v, threads_for(cpu_of(b), 2 * values));
}

static candid_status cpu_kv_attend(struct backend *b, const struct kv_attention *a, const float *q, float *out,
                                   candid_error *error) {
    struct cpu_backend *c = cpu_of(b);
    double work = 0;
    for (int r = 0; r < a->n_rows; r++) {
        work += 2.0 * a->rows[r].n_keys * a->n_head * a->shape->head_dim;
    }
    const int n_threads = threads_for(c, work);
    if (c->exact || a->scores_out || a->probs_out) {
        return attention_kv_reference(a, q, out, n_threads, error);
    }
    return attention_kv_fast(c->features.isa, a, q, out, n_threads, error);
}

static candid_status cpu_attend_full(struct backend *b, const float *q, const float *k, const float *v, float *out,
                                     int n_rows, int n_head, int head_dim, float scale, float *probs_out,
                                     candid_error *error) {
    struct cpu_backend *c = cpu_of(b);
    const int n_threads = threads_for(c, 2.0 * n_rows * n_rows * n_head * head_dim);
    if (c->exact || probs_out) {
        return attention_full_reference(q, k, v, out, n_rows, n_head, head_dim, scale, probs_out, n_threads, error);
    }
    return attention_full_fast(c->features.isa, q, k, v, out, n_rows, n_head, head_dim, scale, n_threads, error);
}

static candid_status op_kv_columns(struct backend *b, const struct kv_attention *a, const float *q,
                                   const uint8_t *heads, float *sums, candid_error *error) {
    struct cpu_backend *c = cpu_of(b);
    return c->exact ? attention_kv_columns(a, q, heads, sums, c->n_threads, error)
                    : attention_kv_columns_fast(c->features.isa, a, q, heads, sums, c->n_threads, error);
}

static candid_status op_attend_row(struct backend *b, const float *q, const float *k, float *probs, int n_rows,
                                   int n_head, int head_dim, float scale, candid_error *error) {
    return attention_row_reference(q, k, probs, n_rows, n_head, head_dim, scale, error);
}

/* ---- plans -------------------------------------------------------------------------------------- */

static void op_peaks(struct backend *b, float *out, const float *x, int n_rows, int n, const int *dims, int n_dims,
                     float eps) {
    cpu_peaks(out, x, n_rows, n, dims, n_dims, eps, threads_for(cpu_of(b), (double)n_rows * n));
}

static void op_scale_heads(struct backend *b, float *x, int n_rows, int n_head, int head_dim, const float *scale) {
    cpu_scale_heads(x, n_rows, n_head, head_dim, scale, threads_for(cpu_of(b), (double)n_rows * n_head * head_dim));
}

static void op_steer(struct backend *b, float *x, int n_rows, int n, const float *v, float strength,
                     enum steer_mode mode) {
    cpu_steer(x, n_rows, n, v, strength, mode, threads_for(cpu_of(b), 8.0 * n_rows * n));
}

static void op_mix(struct backend *b, float *out, float keep, const float *x, float add, size_t n) {
    cpu_mix(out, keep, x, add, n);
}

/* ---- life --------------------------------------------------------------------------------------- */

static void cpu_destroy(struct backend *b) {
    struct cpu_backend *c = cpu_of(b);
    gemm_free(c->gemm);
    free(c->prepared);
    free(c);
}

static const struct backend_ops cpu_ops = {
    .destroy = cpu_destroy,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .upload = cpu_copy,
    .download = cpu_copy,
    .copy = cpu_copy,
    .copy_strided = cpu_copy_strided,
    .zero = cpu_zero,
    .finish = cpu_finish,
    .embed = cpu_embed,
    .linear = cpu_linear,
    .rms_norm = cpu_rms_norm,
    .layer_norm = cpu_layer_norm,
    .add = cpu_add,
    .silu_mul = cpu_silu_mul,
    .gelu = cpu_gelu,
    .silu = cpu_silu,
    .rope_table = cpu_rope_table,
    .rope = cpu_rope,
    .kv_store = cpu_kv_store,
    .kv_attend = cpu_kv_attend,
    .kv_columns = op_kv_columns,
    .attend_full = cpu_attend_full,
    .attend_row = op_attend_row,
    .peaks = op_peaks,
    .scale_heads = op_scale_heads,
    .steer = op_steer,
    .mix = op_mix,
};

candid_status backend_cpu_create(candid_precision precision, int n_threads, const struct logger *log,
                                 struct backend **out, candid_error *error) {
    struct cpu_backend *c = calloc(1, sizeof *c);
    if (!c) {
        return fail_memory(error, "the CPU backend", sizeof *c);
    }
    c->base.ops = &cpu_ops;
    c->exact = precision == CANDID_PRECISION_EXACT;
    c->n_threads = n_threads > 0 ? n_threads : omp_get_num_procs();
    c->features = cpu_detect();
    if (c->exact) {
        snprintf(c->base.description, sizeof c->base.description, "cpu exact (f32 reference), %d threads",
                 c->n_threads);
    } else {
        c->matvec = matvec_kernels_get(c->features.isa);
        c->vec = vec_kernels_get(c->features.isa);
        candid_status status = gemm_create(c->features, c->n_threads, &c->gemm, error);
        if (status != CANDID_OK) {
            free(c);
            return status;
        }
        snprintf(c->base.description, sizeof c->base.description, "cpu fast (%s kernels, %s products), %d threads",
                 cpu_isa_name(c->features.isa), gemm_description(c->gemm), c->n_threads);
    }
    log_write(log, CANDID_LOG_DEBUG, "backend: %s", c->base.description);
    *out = &c->base;
    return CANDID_OK;
}
