/*
 * Weights in device memory: one arena for a model, a hash table from host addresses to it. The files stay mapped on the
 * host, where the networks' weight structs point; ops look up what they are given.
 */
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/internal.h"
#include "core/status.h"
#include "model/quant.h"

#define ALIGNMENT   256
#define CHUNK_BYTES ((size_t)16 << 20) /* of a copy through pinned memory */

struct cuda_weights {
    int device;
    struct weight_entry *entries; /* [capacity] open addressing, capacity a power of two */
    size_t capacity, count;
    char *arena;
    size_t arena_bytes, arena_used, bytes;
    char *pinned; /* CHUNK_BYTES host memory; made for copying */
};

/* ---- layout ------------------------------------------------------------------------------------ */

/* Blocks whose f16 factor d stands apart: its place in the block, and how many bytes the rest has. */
static bool in_planes(uint32_t type, size_t *d_at, size_t *rest) {
    switch (type) {
    case TYPE_Q8_0: *d_at = offsetof(struct block_q8_0, d); break;
    case TYPE_Q4_0: *d_at = offsetof(struct block_q4_0, d); break;
    case TYPE_Q6_K: *d_at = offsetof(struct block_q6_k, d); break;
    default: return false;
    }
    *rest = quant_block_bytes(type) - sizeof(uint16_t);
    return true;
}

static size_t aligned(size_t bytes) {
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Bytes of a tensor's main plane and of all of it. */
static size_t main_bytes(const struct weight_span *span) {
    size_t d_at, rest;
    return in_planes(span->type, &d_at, &rest) ? span->bytes / quant_block_bytes(span->type) * rest : span->bytes;
}

static size_t device_bytes(const struct weight_span *span) {
    return aligned(main_bytes(span)) + aligned(span->bytes - main_bytes(span));
}

/* ---- table ------------------------------------------------------------------------------------- */

static size_t place_of(const struct cuda_weights *w, const void *host) {
    size_t i = (size_t)(((uintptr_t)host >> 4) * 0x9E3779B97F4A7C15u >> 20) & (w->capacity - 1);
    while (w->entries[i].host && w->entries[i].host != host) {
        i = (i + 1) & (w->capacity - 1);
    }
    return i;
}

const struct weight_entry *cuda_weights_find(const struct cuda_weights *w, const void *host) {
    if (!w || !w->capacity) {
        return NULL;
    }
    const struct weight_entry *e = &w->entries[place_of(w, host)];
    return e->host ? e : NULL;
}

static candid_status make_place(struct cuda_weights *w, candid_error *error) {
    if (2 * (w->count + 1) <= w->capacity) {
        return CANDID_OK;
    }
    struct cuda_weights larger = *w;
    larger.capacity = w->capacity ? 2 * w->capacity : 64;
    larger.entries = calloc(larger.capacity, sizeof *larger.entries);
    if (!larger.entries) {
        return fail_memory(error, "the table of weights", larger.capacity * sizeof *larger.entries);
    }
    for (size_t i = 0; i < w->capacity; i++) {
        if (w->entries[i].host) {
            larger.entries[place_of(&larger, w->entries[i].host)] = w->entries[i];
        }
    }
    free(w->entries);
    *w = larger;
    return CANDID_OK;
}

/* ---- copies ------------------------------------------------------------------------------------ */

static candid_status copy_plain(struct cuda_weights *w, char *to, const char *from, size_t bytes, candid_error *error) {
    for (size_t at = 0; at < bytes; at += CHUNK_BYTES) {
        const size_t n = bytes - at < CHUNK_BYTES ? bytes - at : CHUNK_BYTES;
        memcpy(w->pinned, from + at, n);
        TRY(cuda_check(cudaMemcpy(to + at, w->pinned, n, cudaMemcpyHostToDevice), "copying weights", error));
    }
    return CANDID_OK;
}

/* Codes and scales part ways, some blocks at a time. */
static candid_status copy_planes(struct cuda_weights *w, const struct weight_entry *e, const struct weight_span *span,
                                 size_t d_at, size_t rest, candid_error *error) {
    const size_t block = rest + sizeof(uint16_t), n_blocks = span->bytes / block, most = CHUNK_BYTES / block;
    for (size_t first = 0; first < n_blocks; first += most) {
        const size_t n = n_blocks - first < most ? n_blocks - first : most;
        char *codes = w->pinned, *scales = w->pinned + n * rest;
        const char *from = (const char *)span->data + first * block;
        for (size_t i = 0; i < n; i++, from += block) {
            memcpy(codes + i * rest, from, d_at);
            memcpy(codes + i * rest + d_at, from + d_at + sizeof(uint16_t), rest - d_at);
            memcpy(scales + i * sizeof(uint16_t), from + d_at, sizeof(uint16_t));
        }
        TRY(cuda_check(cudaMemcpy(e->main + first * rest, codes, n * rest, cudaMemcpyHostToDevice), "copying weights",
                       error));
        TRY(cuda_check(cudaMemcpy(e->scales + first, scales, n * sizeof(uint16_t), cudaMemcpyHostToDevice),
                       "copying weights", error));
    }
    return CANDID_OK;
}

candid_status cuda_weights_add(struct cuda_weights *w, const struct weight_span *span, candid_error *error) {
    TRY(make_place(w, error));
    struct weight_entry *e = &w->entries[place_of(w, span->data)];
    if (e->host) {
        return CANDID_OK; /* two names of one tensor */
    }
    if (!w->pinned) {
        TRY(cuda_check(cudaMallocHost((void **)&w->pinned, CHUNK_BYTES), "allocating pinned memory", error));
    }
    const size_t bytes = device_bytes(span);
    size_t d_at, rest;
    struct weight_entry made = {.host = span->data};
    if (w->arena && bytes <= w->arena_bytes - w->arena_used) {
        made.main = w->arena + w->arena_used;
        w->arena_used += bytes;
    } else if (cudaMalloc((void **)&made.main, bytes ? bytes : ALIGNMENT) == cudaSuccess) {
        made.owned = true;
    } else {
        return cuda_fail_memory(bytes, "a weight matrix", error);
    }
    candid_status status;
    if (in_planes(span->type, &d_at, &rest)) {
        made.scales = (uint16_t *)(made.main + aligned(main_bytes(span)));
        status = copy_planes(w, &made, span, d_at, rest, error);
    } else {
        status = copy_plain(w, made.main, span->data, span->bytes, error);
    }
    if (status != CANDID_OK) {
        if (made.owned) {
            cudaFree(made.main);
        }
        return status;
    }
    *e = made;
    w->count++;
    w->bytes += bytes;
    return CANDID_OK;
}

/* ---- life -------------------------------------------------------------------------------------- */

candid_status cuda_weights_empty(int device, struct cuda_weights **out, candid_error *error) {
    struct cuda_weights *w = calloc(1, sizeof *w);
    if (!w) {
        return fail_memory(error, "the table of weights", sizeof *w);
    }
    w->device = device;
    *out = w;
    return CANDID_OK;
}

static candid_status fill(struct cuda_weights *w, const struct weight_span *spans, size_t n_spans,
                          candid_error *error) {
    TRY(cuda_check(cudaSetDevice(w->device), "choosing the GPU", error));
    for (size_t i = 0; i < n_spans; i++) {
        w->arena_bytes += device_bytes(&spans[i]);
    }
    if (cudaMalloc((void **)&w->arena, w->arena_bytes ? w->arena_bytes : ALIGNMENT) != cudaSuccess) {
        w->arena = NULL;
        return cuda_fail_memory(w->arena_bytes, "the model's weights", error);
    }
    for (size_t i = 0; i < n_spans; i++) {
        TRY(cuda_weights_add(w, &spans[i], error));
    }
    cudaFreeHost(w->pinned);
    w->pinned = NULL;
    return CANDID_OK;
}

candid_status cuda_weights_create(int device, const struct weight_span *spans, size_t n_spans, const struct logger *log,
                                  struct cuda_weights **out, candid_error *error) {
    struct cuda_weights *w = NULL;
    TRY(cuda_weights_empty(device, &w, error));
    const candid_status status = fill(w, spans, n_spans, error);
    if (status != CANDID_OK) {
        cuda_weights_free(w);
        return status;
    }
    log_write(log, CANDID_LOG_DEBUG, "GPU %d: %.1f MiB of weights", device, (double)w->bytes / 1048576.0);
    *out = w;
    return CANDID_OK;
}

size_t cuda_weights_bytes(const struct cuda_weights *w) {
    return w->bytes;
}

void cuda_weights_free(struct cuda_weights *w) {
    if (!w) {
        return;
    }
    cudaSetDevice(w->device);
    for (size_t i = 0; i < w->capacity; i++) {
        if (w->entries[i].owned) {
            cudaFree(w->entries[i].main);
        }
    }
    cudaFree(w->arena);
    cudaFreeHost(w->pinned);
    free(w->entries);
    free(w);
}

/* ---- lookup by ops ----------------------------------------------------------------------------- */

/* The entry of a tensor, copied now if nobody has before. */
static const struct weight_entry *find(struct cuda_backend *c, const struct weight_span *span) {
    const struct weight_entry *e = cuda_weights_find(c->weights, span->data);
    e = e ? e : cuda_weights_find(c->own, span->data);
    if (e) {
        return e;
    }
    const candid_status status = cuda_weights_add(c->own, span, &c->failure);
    if (status != CANDID_OK) {
        c->failed = c->failed != CANDID_OK ? c->failed : status;
        return NULL;
    }
    return cuda_weights_find(c->own, span->data);
}

bool cuda_find_matrix(struct cuda_backend *c, const struct matrix *w, struct cuda_matrix *out) {
    const struct weight_span span = {w->data, w->type, (size_t)w->n_out * quant_row_bytes(w->type, w->n_in)};
    const struct weight_entry *e = find(c, &span);
    if (e) {
        *out = (struct cuda_matrix){w->type, w->n_out, w->n_in, e->main, e->scales};
    }
    return e;
}

const float *cuda_find_vector(struct cuda_backend *c, const float *host, size_t n) {
    const struct weight_span span = {host, TYPE_F32, n * sizeof *host};
    const struct weight_entry *e = host ? find(c, &span) : NULL;
    return e ? (const float *)e->main : NULL;
}
