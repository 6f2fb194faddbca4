/*
 * Edits of one head's row of scores or probabilities by one block: the arithmetic of cpu/attention_edit.c and
 * attention_replace.c, sums in double, in an order that depends on the row alone. A thread always handles the same keys
 * (threadIdx.x + i * blockDim.x), so element-wise steps need no barrier; reductions bring their own.
 */
#ifndef CANDID_BACKEND_CUDA_EDITS_CUH
#define CANDID_BACKEND_CUDA_EDITS_CUH

#include "backend/cuda/keys.cuh"

#define FOR_EACH_KEY(k, n) for (int k = threadIdx.x; k < (n); k += blockDim.x)

/* A row of one head, and shared memory for reductions. */
struct head_row {
    struct cuda_row row;
    int layer, head;
    float *p; /* [row.end] */
    float *floats;
    double *doubles;
};

static __device__ __forceinline__ bool edits_head(const uint8_t *bytes, const struct cuda_edit *e, int head) {
    return e->all_heads || bytes[e->heads + (uint32_t)head] != 0;
}

static __device__ __forceinline__ int class_of(const uint8_t *bytes, const struct cuda_edit *e, int head, int key) {
    return key < e->n_classes ? bytes[(size_t)e->classes + (size_t)head * e->class_stride + (size_t)key] : 0;
}

static __device__ __forceinline__ float half_rounded(float x) {
    return half_float(float_half(x));
}

/* ---- scores ---- */

/* mean: [row.end], of EDIT_SCORES_MEAN_ABS. */
static __device__ void edit_scores(const struct head_row *h, const uint8_t *bytes, const struct cuda_edit *e,
                                   const float *mean) {
    FOR_EACH_KEY(k, h->row.end) {
        const float s = h->p[k], gain = e->gain[class_of(bytes, e, h->head, k)];
        /* the score of a key that is not seen stays -inf */
        const float size = s == -INFINITY ? 0.0f : e->kind == EDIT_SCORES_ABS ? fabsf(s) : mean[k];
        h->p[k] = s + gain * size;
    }
}

static __device__ void softmax(const struct head_row *h) {
    float highest = -INFINITY, sum = 0.0f;
    FOR_EACH_KEY(k, h->row.end) {
        highest = max_of::join(highest, h->p[k]);
    }
    highest = block_reduce<max_of>(highest, h->floats);
    FOR_EACH_KEY(k, h->row.end) {
        const float p = h->p[k] == -INFINITY ? 0.0f : expf(h->p[k] - highest);
        h->p[k] = p;
        sum += p;
    }
    sum = block_reduce<sum_of>(sum, h->floats);
    FOR_EACH_KEY(k, h->row.end) {
        h->p[k] /= sum;
    }
}

/* ---- probabilities ---- */

struct masses {
    double of[KEY_CLASSES];
};

static __device__ struct masses class_masses(const struct head_row *h, const uint8_t *bytes,
                                             const struct cuda_edit *e) {
    struct masses m = {};
    FOR_EACH_KEY(k, h->row.end) { /* what is not seen is 0 */
        const int at = class_of(bytes, e, h->head, k);
#pragma unroll
        for (int c = 0; c < KEY_CLASSES; c++) { /* no run-time index: the sums stay in registers */
            m.of[c] += at == c ? (double)h->p[k] : 0.0;
        }
    }
#pragma unroll
    for (int c = 0; c < KEY_CLASSES; c++) {
        m.of[c] = block_reduce<sum_of>(m.of[c], h->doubles);
    }
    return m;
}

static __device__ __forceinline__ double mass_of(const struct masses *m, unsigned set) {
    double sum = 0.0;
#pragma unroll
    for (int c = 0; c < KEY_CLASSES; c++) {
        sum += set >> c & 1u ? m->of[c] : 0.0;
    }
    return sum;
}

/* The probability moved, or -1 when the condition does not hold. */
static __device__ float move(const struct head_row *h, const uint8_t *bytes, const struct cuda_edit *e) {
    const struct masses m = class_masses(h, bytes, e);
    const double whole = mass_of(&m, e->whole), part = mass_of(&m, e->part), to = mass_of(&m, e->to & ~e->from);
    if (!(whole >= (double)e->min_mass) || !(part / (whole + (double)e->eps) <= (double)e->max_share) || !(to > 0.0) ||
        (e->part && !(part > 0.0))) {
        return -1.0f;
    }
    const double budget = (1.0 - (double)e->keep) * mass_of(&m, e->from);
    const float grown = (float)(1.0 + budget / to);
    FOR_EACH_KEY(k, h->row.end) {
        const unsigned c = 1u << class_of(bytes, e, h->head, k);
        h->p[k] *= e->from & c ? e->keep : e->to & c ? grown : 1.0f;
    }
    return (float)budget;
}

/* The same with every intermediate value rounded to f16, in the order of VAR's released program. */
static __device__ float move_f16(const struct head_row *h, const uint8_t *bytes, const struct cuda_edit *e) {
    const int n = h->row.end;
    FOR_EACH_KEY(k, n) {
        h->p[k] = half_rounded(h->p[k]);
    }
    const struct masses m = class_masses(h, bytes, e);
    const float whole = half_rounded((float)mass_of(&m, e->whole)), part = half_rounded((float)mass_of(&m, e->part));
    double keys = 0.0;
    FOR_EACH_KEY(k, n) {
        keys += e->whole >> class_of(bytes, e, h->head, k) & 1u ? 1.0 : 0.0;
    }
    const float count = (float)block_reduce<sum_of>(keys, h->doubles);
    const float share = count > 0.0f ? e->eps / count : 0.0f;
    double divisor = 0.0;
    FOR_EACH_KEY(k, n) {
        divisor += e->whole >> class_of(bytes, e, h->head, k) & 1u ? (double)half_rounded(h->p[k] + share) : 0.0;
    }
    divisor = block_reduce<sum_of>(divisor, h->doubles);
    const float to = half_rounded((float)mass_of(&m, e->to & ~e->from));
    if (!(whole >= half_rounded(e->min_mass)) ||
        !(half_rounded(part / half_rounded((float)divisor)) <= half_rounded(e->max_share)) || !(to > 0.0f) ||
        (e->part && !(part > 0.0f))) {
        return -1.0f;
    }
    const float lost = 1.0f - e->keep;
    const float of_part = half_rounded(half_rounded((float)mass_of(&m, e->from & e->part)) * lost);
    const float of_rest = half_rounded(half_rounded((float)mass_of(&m, e->from & ~e->part)) * lost);
    const float budget = half_rounded(of_part + of_rest);
    FOR_EACH_KEY(k, n) {
        const unsigned c = 1u << class_of(bytes, e, h->head, k);
        const float p = h->p[k];
        if (e->from & c) {
            h->p[k] = half_rounded(p * e->keep);
        } else if (e->to & c) {
            h->p[k] = half_rounded(p + half_rounded(budget * half_rounded(p / to)));
        }
    }
    return budget;
}

/* ---- replacement: see backend.h for the formulas ---- */

#define GOLDEN 0x9E3779B97F4A7C15ull

/* splitmix64 */
static __device__ __forceinline__ uint64_t mix(uint64_t x) {
    x += GOLDEN;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

static __device__ __forceinline__ uint64_t draw(uint64_t stream, int k) {
    return mix(stream + (uint64_t)k * GOLDEN);
}

/* How many keys a row sees; the k-th of them; the number of a seen key among them. */
static __device__ __forceinline__ int seen_count(const struct cuda_row *row) {
    return row->n_keys + (row->also_end > 0 ? row->also_end - row->also_begin : 0);
}
static __device__ __forceinline__ int seen_key(const struct cuda_row *row, int k) {
    return k < row->n_keys ? k : row->also_begin + k - row->n_keys;
}
static __device__ __forceinline__ int seen_number(const struct cuda_row *row, int key) {
    return key < row->n_keys ? key : key - row->also_begin + row->n_keys;
}

/* What a seen key's probability becomes before any division. */
static __device__ __forceinline__ float replacement(const struct cuda_edit *e, float p, float highest, uint64_t drawn) {
    return e->replace == REPLACE_RANDOM ? ((float)(drawn >> 40) + 0.5f) * 0x1p-24f : highest - p;
}

/* spare: [row.end], of REPLACE_SHUFFLE. */
static __device__ float replace(const struct head_row *h, const struct cuda_edit *e, float *spare) {
    const struct cuda_row *row = &h->row;
    const uint64_t stream =
        mix(mix(mix(mix(e->seed) + (uint64_t)h->layer) + (uint64_t)h->head) + (uint64_t)row->number);
    const int n = seen_count(row);
    double difference = 0.0;
    if (e->replace == REPLACE_SHUFFLE) {
        FOR_EACH_KEY(k, row->end) {
            spare[k] = h->p[k];
        }
        __syncthreads();
        if (threadIdx.x == 0) { /* each exchange needs the one before */
            for (int i = n - 1; i > 0; i--) {
                const int other = (int)((draw(stream, i) >> 32) * (uint64_t)(i + 1) >> 32);
                float *a = h->p + seen_key(row, i), *b = h->p + seen_key(row, other);
                const float kept = *a;
                *a = *b;
                *b = kept;
            }
        }
        __syncthreads();
        FOR_EACH_KEY(k, row->end) {
            difference += fabs((double)h->p[k] - (double)spare[k]);
        }
        return (float)(0.5 * block_reduce<sum_of>(difference, h->doubles));
    }
    float highest = -INFINITY;
    FOR_EACH_KEY(k, row->end) {
        highest = sees(row, k) ? max_of::join(highest, h->p[k]) : highest;
    }
    highest = block_reduce<max_of>(highest, h->floats);
    const bool divides = e->replace == REPLACE_REVERSE_NORMALISED || e->replace == REPLACE_RANDOM;
    double sum = 0.0;
    FOR_EACH_KEY(k, row->end) {
        if (divides && sees(row, k)) {
            sum += (double)replacement(e, h->p[k], highest, draw(stream, seen_number(row, k)));
        }
    }
    sum = block_reduce<sum_of>(sum, h->doubles);
    if (divides && !(sum > 0.0)) {
        return -1.0f;
    }
    FOR_EACH_KEY(k, row->end) {
        if (sees(row, k)) {
            float x = 1.0f / (float)n;
            if (e->replace != REPLACE_UNIFORM) {
                x = replacement(e, h->p[k], highest, draw(stream, seen_number(row, k)));
                x = divides ? (float)((double)x / sum) : x;
            }
            difference += fabs((double)x - (double)h->p[k]);
            h->p[k] = x;
        }
    }
    return (float)(0.5 * block_reduce<sum_of>(difference, h->doubles));
}

#endif
