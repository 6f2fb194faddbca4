/* CUDA backend: life, memory, and the ops that are one launch. */
#include "backend/cuda/cuda.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/internal.h"
#include "core/status.h"

/* ---- memory ------------------------------------------------------------------------------------ */

static candid_status op_alloc(struct backend *b, size_t bytes, void **out, candid_error *error) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    if (cudaMalloc(out, bytes ? bytes : 64) != cudaSuccess) {
        *out = NULL;
        return cuda_fail_memory(bytes, "activations or the KV cache", error);
    }
    return CANDID_OK;
}

static void op_release(struct backend *b, void *device) {
    cuda_enter(cuda_of(b));
    cudaFree(device); /* waits for what is queued */
}

/* From pageable memory, which may be changed once this returns. */
static void op_upload(struct backend *b, void *device, const void *host, size_t bytes) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    cuda_note(c, cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, c->stream), "copying to the GPU");
    cuda_note(c, cudaStreamSynchronize(c->stream), "copying to the GPU");
}

/* Logits and the like come by pinned memory, which is several times as fast as any other. */
#define LANDING_BYTES ((size_t)1 << 20)

static void op_download(struct backend *b, void *host, const void *device, size_t bytes) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    void *to = c->landing && bytes <= LANDING_BYTES ? c->landing : host;
    const bool copied =
        cuda_note(c, cudaMemcpyAsync(to, device, bytes, cudaMemcpyDeviceToHost, c->stream), "copying from the GPU") &&
        cuda_note(c, cudaStreamSynchronize(c->stream), "copying from the GPU");
    if (copied && to != host) {
        memcpy(host, to, bytes);
    }
}

static void op_copy(struct backend *b, void *to, const void *from, size_t bytes) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    cuda_note(c, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, c->stream), "copying");
}

static void op_copy_strided(struct backend *b, void *to, size_t to_stride, const void *from, size_t from_stride,
                            size_t bytes, int n_pieces) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    if (n_pieces > 0) {
        cuda_note(c,
                  cudaMemcpy2DAsync(to, to_stride, from, from_stride, bytes, (size_t)n_pieces, cudaMemcpyDeviceToDevice,
                                    c->stream),
                  "copying");
    }
}

static void op_zero(struct backend *b, void *device, size_t bytes) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    cuda_note(c, cudaMemsetAsync(device, 0, bytes, c->stream), "clearing memory");
}

static candid_status op_finish(struct backend *b, candid_error *error) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    return cuda_wait(c, "running the model", error);
}

/* ---- rows -------------------------------------------------------------------------------------- */

static void op_embed(struct backend *b, float *out, const struct matrix *w, const int32_t *ids, int n) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    struct cuda_matrix table;
    const int32_t *device_ids = cuda_stage(c, ids, (size_t)n * sizeof *ids);
    if (device_ids && cuda_find_matrix(c, w, &table)) {
        cuda_embed(c->stream, out, &table, device_ids, n);
    }
}

static void op_rms_norm(struct backend *b, float *out, const float *x, const float *weight, int n_rows, int n,
                        float eps) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    const float *device_weight = cuda_find_vector(c, weight, (size_t)n);
    if (device_weight) {
        cuda_rms_norm(c->stream, out, x, device_weight, n_rows, n, eps);
    }
}

static void op_layer_norm(struct backend *b, float *out, const float *x, const float *weight, const float *bias,
                          int n_rows, int n, float eps) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    const float *device_weight = cuda_find_vector(c, weight, (size_t)n);
    const float *device_bias = cuda_find_vector(c, bias, (size_t)n);
    if (device_weight && device_bias) {
        cuda_layer_norm(c->stream, out, x, device_weight, device_bias, n_rows, n, eps);
    }
}

static void op_add(struct backend *b, float *x, const float *y, size_t n) {
    cuda_enter(cuda_of(b));
    cuda_add(cuda_of(b)->stream, x, y, n);
}

static void op_silu_mul(struct backend *b, float *gate, const float *up, size_t n) {
    cuda_enter(cuda_of(b));
    cuda_silu_mul(cuda_of(b)->stream, gate, up, n);
}

static void op_gelu(struct backend *b, float *x, size_t n, enum gelu_kind kind) {
    cuda_enter(cuda_of(b));
    cuda_gelu(cuda_of(b)->stream, x, n, kind);
}

static void op_silu(struct backend *b, float *x, size_t n) {
    cuda_enter(cuda_of(b));
    cuda_silu(cuda_of(b)->stream, x, n);
}

/* Frequencies on the host, in the order of the CPU backend; angles on the device. */
static void op_rope_table(struct backend *b, float *table, const int32_t *positions, int n_rows,
                          const struct rope_params *params) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    const int half = params->n_dims / 2;
    const size_t floats = (size_t)half * sizeof(float), ids = (size_t)n_rows * sizeof(int32_t);
    char *host = malloc(floats + ids + 1);
    if (!host) {
        cuda_note(c, cudaErrorMemoryAllocation, "making room for positions");
        return;
    }
    for (int i = 0; i < half; i++) {
        float inv_freq = 1.0f / powf(params->base, (float)(2 * i) / (float)params->n_dims);
        if (params->factors) {
            inv_freq /= params->factors[i];
        }
        inv_freq *= params->position_scale;
        memcpy(host + (size_t)i * sizeof inv_freq, &inv_freq, sizeof inv_freq);
    }
    memcpy(host + floats, positions, ids);
    const char *device = cuda_stage(c, host, floats + ids);
    free(host);
    if (device) {
        cuda_rope_table(c->stream, table, (const int32_t *)(device + floats), (const float *)device, n_rows, half);
    }
}

static void op_rope(struct backend *b, float *x, const float *table, int n_rows, int n_head, int head_dim,
                    const struct rope_params *params) {
    cuda_enter(cuda_of(b));
    cuda_rope(cuda_of(b)->stream, x, table, n_rows, n_head, head_dim, params->n_dims, params->adjacent_pairs);
}

/* ---- plans ------------------------------------------------------------------------------------- */

static void op_peaks(struct backend *b, float *out, const float *x, int n_rows, int n, const int *dims, int n_dims,
                     float eps) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    candid_error error;
    const int *device_dims = n_dims > 0 ? cuda_stage(c, dims, (size_t)n_dims * sizeof *dims) : NULL;
    if ((n_dims > 0 && !device_dims) || n_rows < 1) {
        return;
    }
    if (cuda_room(c, &c->values, (size_t)n_rows * sizeof *out, "peaks", &error) != CANDID_OK) {
        cuda_note(c, cudaErrorMemoryAllocation, "making room for peaks");
        return;
    }
    cuda_peaks(c->stream, c->values.memory, x, n_rows, n, device_dims, n_dims, eps);
    op_download(b, out, c->values.memory, (size_t)n_rows * sizeof *out);
}

static void op_scale_heads(struct backend *b, float *x, int n_rows, int n_head, int head_dim, const float *scale) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    const float *device_scale = cuda_stage(c, scale, (size_t)n_head * sizeof *scale);
    if (device_scale) {
        cuda_scale_heads(c->stream, x, n_rows, n_head, head_dim, device_scale);
    }
}

static void op_steer(struct backend *b, float *x, int n_rows, int n, const float *v, float strength,
                     enum steer_mode mode) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    const float *device_v = cuda_stage(c, v, (size_t)n * sizeof *v);
    if (device_v) {
        cuda_steer(c->stream, x, n_rows, n, device_v, strength, mode);
    }
}

static void op_mix(struct backend *b, float *out, float keep, const float *x, float add, size_t n) {
    cuda_enter(cuda_of(b));
    cuda_mix(cuda_of(b)->stream, out, keep, x, add, n);
}

/* ---- life -------------------------------------------------------------------------------------- */

static void op_destroy(struct backend *b) {
    struct cuda_backend *c = cuda_of(b);
    cuda_enter(c);
    if (c->stream) {
        cudaStreamSynchronize(c->stream);
    }
    struct cuda_room *rooms[] = {&c->decoded, &c->narrow, &c->rounded, &c->scores,  &c->halves,
                                 &c->before,  &c->spare,  &c->mean,    &c->partial, &c->q,
                                 &c->kv,      &c->moved,  &c->values,  &c->columns};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) {
        cuda_room_free(rooms[i]);
    }
    cuda_ring_free(&c->ring);
    cudaFreeHost(c->landing);
    free(c->call.built);
    free(c->call.last);
    cuda_weights_free(c->own);
    cuda_blas_free(c->blas);
    if (c->stream) {
        cudaStreamDestroy(c->stream);
    }
    free(c);
}

static const struct backend_ops cuda_ops = {
    .destroy = op_destroy,
    .alloc = op_alloc,
    .release = op_release,
    .upload = op_upload,
    .download = op_download,
    .copy = op_copy,
    .copy_strided = op_copy_strided,
    .zero = op_zero,
    .finish = op_finish,
    .embed = op_embed,
    .linear = cuda_linear,
    .rms_norm = op_rms_norm,
    .layer_norm = op_layer_norm,
    .add = op_add,
    .silu_mul = op_silu_mul,
    .gelu = op_gelu,
    .silu = op_silu,
    .rope_table = op_rope_table,
    .rope = op_rope,
    .kv_store = cuda_op_kv_store,
    .kv_attend = cuda_kv_attend,
    .kv_columns = cuda_kv_columns,
    .attend_full = cuda_attend_full,
    .attend_row = cuda_attend_row,
    .peaks = op_peaks,
    .scale_heads = op_scale_heads,
    .steer = op_steer,
    .mix = op_mix,
};

static candid_status start(struct cuda_backend *c, candid_error *error) {
    TRY(cuda_check(cudaSetDevice(c->device), "choosing the GPU", error));
    struct cudaDeviceProp properties;
    TRY(cuda_check(cudaGetDeviceProperties(&properties, c->device), "asking what GPU this is", error));
    if (properties.major < 8) {
        return fail(error, CANDID_ERROR_UNSUPPORTED,
                    "GPU %d (%s): expected compute capability 8.0 or newer, found %d.%d", c->device, properties.name,
                    properties.major, properties.minor);
    }
    TRY(cuda_check(cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "making a stream", error));
    TRY(cuda_check(cudaMallocHost((void **)&c->landing, LANDING_BYTES), "allocating pinned memory", error));
    TRY(cuda_weights_empty(c->device, &c->own, error));
    if (!c->exact) {
        TRY(cuda_blas_create(c->stream, &c->blas, error));
    }
    snprintf(c->base.description, sizeof c->base.description, "cuda %s (%.40s, compute %d.%d, GPU %d)",
             c->exact ? "exact, f32" : "fast, f16", properties.name, properties.major, properties.minor, c->device);
    return CANDID_OK;
}

candid_status backend_cuda_create(candid_precision precision, int device, const struct cuda_weights *weights,
                                  const struct logger *log, struct backend **out, candid_error *error) {
    struct cuda_backend *c = calloc(1, sizeof *c);
    if (!c) {
        return fail_memory(error, "the CUDA backend", sizeof *c);
    }
    c->base.ops = &cuda_ops;
    c->exact = precision == CANDID_PRECISION_EXACT;
    c->device = device;
    c->weights = weights;
    const candid_status status = start(c, error);
    if (status != CANDID_OK) {
        op_destroy(&c->base);
        return status;
    }
    log_write(log, CANDID_LOG_DEBUG, "backend: %s", c->base.description);
    *out = &c->base;
    return CANDID_OK;
}
