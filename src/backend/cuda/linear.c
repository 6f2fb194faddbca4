/* ops->linear: one x, several weight matrices. */
#include "backend/cuda/internal.h"
#include "core/status.h"
#include "model/quant.h"

#define DECODED_BYTES ((size_t)96 << 20) /* of weights decoded at a time for a product */
#define STEP_ROWS     32 /* rows of one decoding step that quantised weights take by matrix-vector kernels */

static bool is_float(uint32_t type) {
    return type == TYPE_F32 || type == TYPE_F16 || type == TYPE_BF16;
}

/* Rows that go through the matrix-vector kernels, CUDA_FEW_ROWS at a time. Four passes over 4-bit weights read less
 * than decoding them to f16 for a product writes and reads. */
static int most_rows(const struct linear_job *job) {
    return job->step && !is_float(job->w->type) ? STEP_ROWS : CUDA_FEW_ROWS;
}

/* What the rows of x have been turned into so far in this call. */
struct prepared {
    const float *x;
    int n_rows, n_in;
    bool rounded, narrow;
    enum cuda_float narrow_type;
    struct cuda_rounded codes;
};

static candid_status round_rows(struct cuda_backend *c, struct prepared *p, candid_error *error) {
    if (p->rounded) {
        return CANDID_OK;
    }
    const size_t n = (size_t)p->n_rows * (size_t)p->n_in;
    TRY(cuda_room(c, &c->rounded, n + (n / QK + n / 16) * sizeof(float), "rounded activations", error));
    p->codes.codes = c->rounded.memory;
    p->codes.scale = (float *)(p->codes.codes + n);
    p->codes.sums = p->codes.scale + n / QK;
    cuda_round_rows(c->stream, &p->codes, p->x, p->n_rows, p->n_in);
    p->rounded = true;
    return CANDID_OK;
}

static candid_status few_rows(struct cuda_backend *c, struct prepared *p, const struct linear_job *job,
                              const struct cuda_matrix *w, const float *bias, candid_error *error) {
    const bool rounds = !is_float(w->type);
    if (rounds) {
        TRY(round_rows(c, p, error));
    }
    for (int r = 0; r < p->n_rows; r += CUDA_FEW_ROWS) {
        const int n = p->n_rows - r < CUDA_FEW_ROWS ? p->n_rows - r : CUDA_FEW_ROWS;
        const size_t at = (size_t)r * (size_t)p->n_in;
        struct cuda_rounded codes = {0};
        if (rounds) {
            codes = (struct cuda_rounded){p->codes.codes + at, p->codes.scale + at / QK, p->codes.sums + at / 16};
        }
        cuda_matvec(c->stream, job->out + (size_t)r * (size_t)w->n_out, w, p->x + at, &codes, bias, n);
    }
    return CANDID_OK;
}

/* Rows of w from `first` on that are decoded at a time. */
static int decoded_rows(const struct cuda_matrix *w, int first, size_t element) {
    const size_t fit = DECODED_BYTES / ((size_t)w->n_in * element), left = (size_t)(w->n_out - first);
    return (int)(fit < 1 ? 1 : fit < left ? fit : left);
}

static candid_status exact(struct cuda_backend *c, const struct prepared *p, const struct linear_job *job,
                           const struct cuda_matrix *w, const float *bias, candid_error *error) {
    for (int first = 0, n; first < w->n_out; first += n) {
        const float *rows = (const float *)w->main + (size_t)first * (size_t)w->n_in;
        n = w->n_out - first;
        if (w->type != TYPE_F32) {
            n = decoded_rows(w, first, sizeof(float));
            TRY(cuda_room(c, &c->decoded, (size_t)n * (size_t)w->n_in * sizeof(float), "decoded weights", error));
            cuda_dequantize(c->stream, c->decoded.memory, CUDA_F32, w, first, n);
            rows = c->decoded.memory;
        }
        cuda_exact_product(c->stream, job->out + first, w->n_out, p->x, rows, bias ? bias + first : NULL, p->n_rows,
                           p->n_in, n);
    }
    return CANDID_OK;
}

/* x as f16 or bf16. */
static candid_status narrow_rows(struct cuda_backend *c, struct prepared *p, enum cuda_float type,
                                 candid_error *error) {
    if (p->narrow && p->narrow_type == type) {
        return CANDID_OK;
    }
    const size_t n = (size_t)p->n_rows * (size_t)p->n_in;
    TRY(cuda_room(c, &c->narrow, n * sizeof(uint16_t), "activations in 16 bits", error));
    (type == CUDA_F16 ? cuda_to_f16 : cuda_to_bf16)(c->stream, c->narrow.memory, p->x, n);
    p->narrow = true;
    p->narrow_type = type;
    return CANDID_OK;
}

/* In the type of the weights, quantised ones decoded to f16; sums in f32. */
static candid_status many_rows(struct cuda_backend *c, struct prepared *p, const struct linear_job *job,
                               const struct cuda_matrix *w, const float *bias, candid_error *error) {
    const enum cuda_float type = w->type == TYPE_F32 ? CUDA_F32 : w->type == TYPE_BF16 ? CUDA_BF16 : CUDA_F16;
    const void *x = p->x;
    if (type != CUDA_F32) {
        TRY(narrow_rows(c, p, type, error));
        x = c->narrow.memory;
    }
    for (int first = 0, n; first < w->n_out; first += n) {
        const void *rows = w->main;
        n = w->n_out;
        if (!is_float(w->type)) {
            n = decoded_rows(w, first, sizeof(uint16_t));
            TRY(cuda_room(c, &c->decoded, (size_t)n * (size_t)w->n_in * sizeof(uint16_t), "decoded weights", error));
            cuda_dequantize(c->stream, c->decoded.memory, CUDA_F16, w, first, n);
            rows = c->decoded.memory;
        }
        const struct blas_product product = {.transpose_a = true,
                                             .m = n,
                                             .n = p->n_rows,
                                             .k = w->n_in,
                                             .alpha = 1.0f,
                                             .type = type,
                                             .a = rows,
                                             .b = x,
                                             .c = job->out + first,
                                             .lda = w->n_in,
                                             .ldb = w->n_in,
                                             .ldc = w->n_out,
                                             .batch = 1};
        TRY(cuda_blas_product(c->blas, &product, error));
    }
    if (bias) {
        cuda_add_bias(c->stream, job->out, bias, p->n_rows, w->n_out);
    }
    return CANDID_OK;
}

candid_status cuda_linear(struct backend *b, const float *x, int n_rows, int n_in, const struct linear_job *jobs,
                          int n_jobs, candid_error *error) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    struct prepared p = {.x = x, .n_rows = n_rows, .n_in = n_in};
    for (int j = 0; j < n_jobs && n_rows > 0; j++) {
        struct cuda_matrix w;
        const bool found = cuda_find_matrix(c, jobs[j].w, &w);
        const float *bias = cuda_find_vector(c, jobs[j].bias, (size_t)jobs[j].w->n_out);
        if (!found || (jobs[j].bias && !bias)) {
            return cuda_settle(c, error);
        }
        if (c->exact) {
            TRY(exact(c, &p, &jobs[j], &w, bias, error));
        } else if (n_rows <= most_rows(&jobs[j])) {
            TRY(few_rows(c, &p, &jobs[j], &w, bias, error));
        } else {
            TRY(many_rows(c, &p, &jobs[j], &w, bias, error));
        }
    }
    return cuda_settle(c, error);
}
