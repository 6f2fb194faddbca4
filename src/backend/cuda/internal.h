/* What the C files of the CUDA backend share. */
#ifndef CANDID_BACKEND_CUDA_INTERNAL_H
#define CANDID_BACKEND_CUDA_INTERNAL_H

#include <cuda_runtime_api.h>

#include "backend/cuda/blas.h"
#include "backend/cuda/cuda.h"
#include "backend/cuda/kernels.h"

/* Device memory that grows on demand and is kept: after the first passes nothing is allocated any more. */
struct cuda_room {
    void *memory;
    size_t bytes;
};

/* Small host data on its way to the device: a ring in pinned memory and its copy. */
struct cuda_ring {
    char *host, *device;
    size_t bytes, used;
    unsigned turn; /* pointers handed out in an earlier turn are void */
};

/* The rows of the last attention call, which is mostly that of the next layer, too. */
struct cuda_call_cache {
    char *built, *last; /* [capacity] host; last: what `device` holds */
    size_t capacity, n_last;
    char *device;
    unsigned turn;
};

struct cuda_backend {
    struct backend base;
    bool exact;
    int device;
    cudaStream_t stream;
    struct cuda_blas *blas;             /* NULL on the exact path */
    const struct cuda_weights *weights; /* the model's, or NULL */
    struct cuda_weights *own;           /* those met besides */
    struct cuda_ring ring;
    struct cuda_call_cache call;
    char *landing;                             /* pinned host memory for copies from the device */
    struct cuda_room decoded, narrow, rounded; /* linear: weights, activations */
    struct cuda_room scores, halves, before, spare, mean, partial, q, kv; /* attention */
    struct cuda_room moved, values, columns;
    candid_status failed; /* the first failure of an op that returns nothing */
    candid_error failure;
};

static inline struct cuda_backend *cuda_of(struct backend *b) {
    return (struct cuda_backend *)b;
}

/* CANDID_OK, or the failure in words. what: "copying weights". */
candid_status cuda_check(cudaError_t result, const char *what, candid_error *error);

/* fail() for device memory, with what is free and which options need less. */
candid_status cuda_fail_memory(size_t bytes, const char *what, candid_error *error);

/* Makes the calling thread's CUDA calls go to the backend's device. Every op begins with it. */
void cuda_enter(struct cuda_backend *c);

/* Keeps a failure for the next op that returns a status; true when there was none. */
bool cuda_note(struct cuda_backend *c, cudaError_t result, const char *what);
/* The kept failure, or that of a launch since the last call. */
candid_status cuda_settle(struct cuda_backend *c, candid_error *error);

/* Waits for what is queued. */
candid_status cuda_wait(struct cuda_backend *c, const char *what, candid_error *error);

/* At least `bytes` bytes; what the room held is lost when it grows. */
candid_status cuda_room(struct cuda_backend *c, struct cuda_room *room, size_t bytes, const char *what,
                        candid_error *error);
void cuda_room_free(struct cuda_room *room);

/* Queues a copy of host data; the device pointer is good until the ring's turn changes, 16-byte aligned. NULL: failure
 * kept. */
void *cuda_stage(struct cuda_backend *c, const void *host, size_t bytes);
void cuda_ring_free(struct cuda_ring *ring);

/* The device's copy; NULL with the failure kept. A NULL vector is NULL. */
bool cuda_find_matrix(struct cuda_backend *c, const struct matrix *w, struct cuda_matrix *out);
const float *cuda_find_vector(struct cuda_backend *c, const float *host, size_t n);

/* weights.c, for a backend's own */
struct weight_entry {
    const void *host; /* NULL: free place */
    char *main;       /* device: as in the file, or the plane of codes */
    uint16_t *scales; /* device: the plane of scales, or NULL */
    bool owned;       /* memory of its own, not a part of the arena */
};
const struct weight_entry *cuda_weights_find(const struct cuda_weights *w, const void *host);
candid_status cuda_weights_empty(int device, struct cuda_weights **out, candid_error *error);
candid_status cuda_weights_add(struct cuda_weights *w, const struct weight_span *span, candid_error *error);

/* Ops of linear.c and attention.c; see backend.h. */
candid_status cuda_linear(struct backend *b, const float *x, int n_rows, int n_in, const struct linear_job *jobs,
                          int n_jobs, candid_error *error);
void cuda_op_kv_store(struct backend *b, const struct kv_attention *a, const float *k, const float *v);
candid_status cuda_kv_attend(struct backend *b, const struct kv_attention *a, const float *q, float *out,
                             candid_error *error);
candid_status cuda_kv_columns(struct backend *b, const struct kv_attention *a, const float *q, const uint8_t *heads,
                              float *sums, candid_error *error);
candid_status cuda_attend_full(struct backend *b, const float *q, const float *k, const float *v, float *out,
                               int n_rows, int n_head, int head_dim, float scale, float *probs_out,
                               candid_error *error);
candid_status cuda_attend_row(struct backend *b, const float *q, const float *k, float *probs, int n_rows, int n_head,
                              int head_dim, float scale, candid_error *error);

#endif
