/* Rows of scores to probabilities, with edits and probes. Grid (head, row of the slice) unless said otherwise. */
#include "backend/cuda/edits.cuh"

static __device__ __forceinline__ size_t row_at(const struct cuda_attention *a, const struct cuda_slice *s, int r,
                                                int head) {
    return ((size_t)r * (size_t)a->n_head + (size_t)head) * (size_t)s->stride;
}

static __global__ void probs_kernel(const struct cuda_attention a, const struct cuda_slice s, enum cuda_stage stage,
                                    const float *mean, float *spare, float *moved, uint16_t *half_out) {
    __shared__ float floats[MOST_WARPS];
    __shared__ double doubles[MOST_WARPS];
    const int head = (int)blockIdx.x, r = (int)blockIdx.y;
    const size_t at = row_at(&a, &s, r, head);
    const struct head_row h = {row_of(&a, s.first + r), a.layer, head, s.scores + at, floats, doubles};
    const int n_edits = a.edits ? h.row.n_edits : 0, with_mean = a.edits && h.row.mean_edit < n_edits;
    if (stage == CUDA_UP_TO_MEAN && !with_mean) {
        return;
    }
    const int begin = stage == CUDA_FROM_MEAN && with_mean ? h.row.mean_edit : 0;
    const int end = stage == CUDA_UP_TO_MEAN ? h.row.mean_edit : n_edits;
    const bool mine = threadIdx.x == 0;
    FOR_EACH_KEY(k, h.row.end) { /* products with keys know no ranges */
        h.p[k] = sees(&h.row, k) ? h.p[k] : -INFINITY;
    }
    for (int i = begin; i < end; i++) {
        const struct cuda_edit *e = &a.edits[h.row.first_edit + i];
        if (e->kind == EDIT_SCORES_ABS || e->kind == EDIT_SCORES_MEAN_ABS) {
            const bool edits = edits_head(a.bytes, e, head);
            if (edits) {
                edit_scores(&h, a.bytes, e, mean ? mean + (size_t)r * (size_t)s.stride : NULL);
            }
            if (mine) {
                moved[(size_t)(h.row.first_edit + i) * (size_t)a.n_head + (size_t)head] = edits ? 0.0f : -1.0f;
            }
        }
    }
    if (stage == CUDA_UP_TO_MEAN) {
        return;
    }
    softmax(&h);
    for (int i = 0; i < n_edits; i++) {
        const struct cuda_edit *e = &a.edits[h.row.first_edit + i];
        float of_this = -1.0f;
        if (e->kind == EDIT_SCORES_ABS || e->kind == EDIT_SCORES_MEAN_ABS) {
            continue;
        }
        if (edits_head(a.bytes, e, head)) {
            if (e->kind == PROBE_PROBS_MASS) {
                const struct masses m = class_masses(&h, a.bytes, e);
                of_this = (float)mass_of(&m, e->whole);
            } else if (e->kind == EDIT_PROBS_REPLACE) {
                of_this = replace(&h, e, spare ? spare + at : NULL);
            } else {
                of_this = e->round_f16 ? move_f16(&h, a.bytes, e) : move(&h, a.bytes, e);
            }
        }
        if (mine) {
            moved[(size_t)(h.row.first_edit + i) * (size_t)a.n_head + (size_t)head] = of_this;
        }
    }
    FOR_EACH_KEY(k, s.end) {
        const float p = k < h.row.end ? h.p[k] : 0.0f;
        h.p[k] = p;
        if (half_out) {
            half_out[at + (size_t)k] = float_half(p);
        }
    }
}

void cuda_probs(cudaStream_t stream, const struct cuda_attention *a, const struct cuda_slice *s, enum cuda_stage stage,
                const float *mean, float *spare, float *moved, uint16_t *half_out) {
    CUDA_LAUNCH(probs_kernel, dim3((unsigned)a->n_head, (unsigned)s->n_rows), BLOCK, 0, stream, *a, *s, stage, mean,
                spare, moved, half_out);
}

/* Grid (key blocks, row): a thread a key, heads in their order. */
static __global__ void mean_abs_kernel(const struct cuda_attention a, const struct cuda_slice s, float *mean) {
    const int r = (int)blockIdx.y, key = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    const struct cuda_row row = row_of(&a, s.first + r);
    if (key >= row.end || row.mean_edit >= row.n_edits) {
        return;
    }
    float sum = 0.0f;
    for (int head = 0; head < a.n_head && sees(&row, key); head++) {
        sum += fabsf(s.scores[row_at(&a, &s, r, head) + (size_t)key]);
    }
    mean[(size_t)r * (size_t)s.stride + (size_t)key] = sum / (float)a.n_head;
}

void cuda_mean_abs(cudaStream_t stream, const struct cuda_attention *a, const struct cuda_slice *s, float *mean) {
    CUDA_LAUNCH(mean_abs_kernel, dim3(blocks_for((size_t)s->end, BLOCK), (unsigned)s->n_rows), BLOCK, 0, stream, *a, *s,
                mean);
}

static __global__ void probs_before_kernel(const struct cuda_attention a, const struct cuda_slice s, float *before) {
    __shared__ float floats[MOST_WARPS];
    const int head = (int)blockIdx.x, r = (int)blockIdx.y;
    const size_t at = row_at(&a, &s, r, head);
    const struct head_row h = {row_of(&a, s.first + r), a.layer, head, before + at, floats, NULL};
    if (!h.row.asks_before) {
        return;
    }
    FOR_EACH_KEY(k, h.row.end) {
        h.p[k] = sees(&h.row, k) ? s.scores[at + (size_t)k] : -INFINITY;
    }
    softmax(&h);
}

void cuda_probs_before(cudaStream_t stream, const struct cuda_attention *a, const struct cuda_slice *s, float *before) {
    CUDA_LAUNCH(probs_before_kernel, dim3((unsigned)a->n_head, (unsigned)s->n_rows), BLOCK, 0, stream, *a, *s, before);
}

/* Grid (key blocks, probe). */
static __global__ void reduce_probes_kernel(const struct cuda_attention a, const struct cuda_slice s,
                                            const float *before, const struct cuda_probe *probes, float *values) {
    const struct cuda_probe probe = probes[blockIdx.y];
    const int r = probe.row - s.first, key = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (key >= row_of(&a, probe.row).end) {
        return;
    }
    const float *p = (probe.before ? before : s.scores) + (size_t)key;
    float value = p[row_at(&a, &s, r, 0)];
    for (int head = 1; head < a.n_head; head++) {
        const float x = p[row_at(&a, &s, r, head)];
        value = probe.reduce == HEADS_MAX ? max_of::join(x, value) : value + x;
    }
    values[(size_t)probe.at + (size_t)key] = probe.reduce == HEADS_MAX ? value : value / (float)a.n_head;
}

void cuda_reduce_probes(cudaStream_t stream, const struct cuda_attention *a, const struct cuda_slice *s,
                        const float *before, const struct cuda_probe *probes, int n_probes, float *values) {
    CUDA_LAUNCH(reduce_probes_kernel, dim3(blocks_for((size_t)s->end, BLOCK), (unsigned)n_probes), BLOCK, 0, stream, *a,
                *s, before, probes, values);
}

/* Grid (key blocks, head): rows in their order. */
static __global__ void add_columns_kernel(const struct cuda_attention a, const struct cuda_slice s,
                                          const uint8_t *heads, float *sums, int max_keys) {
    const int head = (int)blockIdx.y, key = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (key >= s.end || key >= max_keys || (heads && !heads[head])) {
        return;
    }
    float *sum = sums + (size_t)head * (size_t)max_keys + (size_t)key;
    float total = *sum;
    for (int r = 0; r < s.n_rows; r++) {
        if (key < row_of(&a, s.first + r).end) {
            total += s.scores[row_at(&a, &s, r, head) + (size_t)key];
        }
    }
    *sum = total;
}

void cuda_add_columns(cudaStream_t stream, const struct cuda_attention *a, const struct cuda_slice *s,
                      const uint8_t *heads, float *sums, int max_keys) {
    CUDA_LAUNCH(add_columns_kernel, dim3(blocks_for((size_t)s->end, BLOCK), (unsigned)a->n_head), BLOCK, 0, stream, *a,
                *s, heads, sums, max_keys);
}
