/* An attention call made ready for the kernels: its rows, edits and tables on the device, cut into slices. */
#ifndef CANDID_BACKEND_CUDA_CALL_H
#define CANDID_BACKEND_CUDA_CALL_H

#include "backend/cuda/attention.h"
#include "backend/cuda/internal.h"

#define CALL_SLICE_BYTES ((size_t)256 << 20) /* of scores at a time */

/* How a slice is computed. */
enum slice_kind {
    SLICE_DECODE,  /* plain rows, by cuda_decode */
    SLICE_ROWS,    /* rows of scores, by f32 kernels */
    SLICE_PRODUCTS /* rows of scores, by matrix products: rows of one sequence */
};

struct call_slice {
    enum slice_kind kind;
    int first, n_rows;
    int first_tile, n_tiles;
    int end; /* no row sees a key from here on */
    int first_probe, n_probes;
    bool mean, before, shuffle; /* an edit or a probe needs it */
};

struct attention_call {
    struct cuda_attention a;
    struct call_slice *slices; /* [n_slices] host, released by call_free */
    int n_slices;
    const struct cuda_probe *probes; /* device */
    const uint8_t *heads;            /* device [n_head], or NULL */
    int n_edits, n_probes;
    size_t n_values; /* of all probes */
};

/* What a call is for. */
enum call_purpose {
    CALL_STORE,   /* slices are not used */
    CALL_ATTEND,  /* edits and probes as the rows say */
    CALL_OBSERVE, /* the same without decode and products, whose scores nobody can be shown */
    CALL_COLUMNS  /* neither edits nor probes */
};

/* heads: host, or NULL; for CALL_COLUMNS. */
candid_status call_begin(struct cuda_backend *c, const struct kv_attention *a, enum call_purpose purpose,
                         const uint8_t *heads, struct attention_call *out, candid_error *error);
void call_free(struct attention_call *call);

/* Keys of a row of scores in memory: rounded up, so that rows of f16 begin at 16-byte places. */
static inline int slice_stride(int end) {
    return (end + 15) / 16 * 16;
}

#endif
