/*
 * The attention kernels, written once over vectors. Included by attention_{scalar,avx2,avx512,neon}.c after
 * attention_vector.h and these definitions:
 *
 *   LANES                          floats in a vector
 *   MICRO_ROWS                     most queries in a micro-kernel
 *   MICRO_ACCUMULATORS             most vectors of running sums that fit in registers beside their operands
 *   v_set1(x)                      x in every lane
 *   v_fma(a, b, c)                 a * b + c
 *   v_max(a, b)                    larger of both, b where one is NaN
 *   v_sum(x), v_highest(x)         over the lanes, in a fixed order
 *   v_load_f16(p)                  LANES values at a uint16_t pointer
 *   pack_keys(keys, n, dim, k_t)   k_t[d * KV_BLOCK + i] = key i for i < n, anything for n <= i < KV_BLOCK; key
 *                                  rows from n on must not be read
 *   to_f32(src, n, dst)            n f16 values to f32
 *   to_f16(dst, src, n)            as struct attention_kernels
 */
#include <math.h>
#include <string.h>

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/attention_vector.h"

_Static_assert(ATTENTION_TILE % MICRO_ROWS == 0, "tiles are whole micro-kernels");
_Static_assert(KV_BLOCK % LANES == 0, "a block is whole vectors");

#define KEY_VECTORS (KV_BLOCK / LANES)

/*
 * exp(x) for x <= 0, relative error below 2e-7; 0 below -87, where results leave the normal range. NaN stays NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2; exp(r) by a polynomial (Cephes), 2^n from the exponent bits.
 */
INLINE vf v_exp(vf x) {
    const vf shift = v_set1(12582912.0f + 127.0f); /* 1.5 · 2^23: a sum with it is rounded to an integer */
    const vf t = v_fma(x, v_set1(1.44269504088896341f), shift);
    const vf n = t - shift;
    vf r = v_fma(n, v_set1(-0.693359375f), x);
    r = v_fma(n, v_set1(2.12194440e-4f), r);
    vf y = v_set1(1.9875691500e-4f);
    y = v_fma(y, r, v_set1(1.3981999507e-3f));
    y = v_fma(y, r, v_set1(8.3334519073e-3f));
    y = v_fma(y, r, v_set1(4.1665795894e-2f));
    y = v_fma(y, r, v_set1(1.6666665459e-1f));
    y = v_fma(y, r, v_set1(5.0000001201e-1f));
    y = v_fma(y, r * r, r) + v_set1(1.0f);
    y = y * (vf)((vi)t << 23);
    return (vf)((vi)y & ~(vi)(x < v_set1(-87.0f)));
}

/* ---- scores ------------------------------------------------------------------------------------ */

/* p (rows, KV_BLOCK) = scale · q Kᵀ for `vectors` vectors of keys. rows and vectors are constants where inlined. */
INLINE void score_micro(const float *q, int head_dim, const float *k_t, float scale, float *p, const int rows,
                        const int vectors) {
    vf sum[MICRO_ROWS][KEY_VECTORS];
    for (int r = 0; r < rows; r++) {
        for (int j = 0; j < vectors; j++) {
            sum[r][j] = v_set1(0.0f);
        }
    }
    const size_t stride = (size_t)head_dim;
    for (int d = 0; d < head_dim; d++) {
        vf key[KEY_VECTORS];
        for (int j = 0; j < vectors; j++) {
            key[j] = v_load(k_t + j * LANES);
        }
        for (int r = 0; r < rows; r++) {
            const vf x = v_set1(q[(size_t)r * stride]);
            for (int j = 0; j < vectors; j++) {
                sum[r][j] = v_fma(x, key[j], sum[r][j]);
            }
        }
        q++;
        k_t += KV_BLOCK;
    }
    for (int r = 0; r < rows; r++) {
        for (int j = 0; j < vectors; j++) {
            v_store(p + r * KV_BLOCK + j * LANES, sum[r][j] * v_set1(scale));
        }
    }
}

/* How many vectors of keys (or values) go with `rows` queries, at most `most`: a power of two. */
#define VECTORS_FOR(rows, most)                                                                                        \
    ((rows)*8 <= MICRO_ACCUMULATORS && (most) >= 8   ? 8                                                               \
     : (rows)*4 <= MICRO_ACCUMULATORS && (most) >= 4 ? 4                                                               \
     : (rows)*2 <= MICRO_ACCUMULATORS && (most) >= 2 ? 2                                                               \
                                                     : 1)

#define SCORE_ROWS(rows)                                                                                               \
    static void score_rows_##rows(const float *q, int head_dim, const float *k_t, int n_keys, float scale, float *p) { \
        enum { vectors = VECTORS_FOR(rows, KEY_VECTORS) };                                                             \
        for (int i = 0; i < n_keys; i += vectors * LANES) {                                                            \
            score_micro(q, head_dim, k_t + i, scale, p + i, rows, vectors);                                            \
        }                                                                                                              \
    }
SCORE_ROWS(1)
SCORE_ROWS(2)
SCORE_ROWS(3)
SCORE_ROWS(4)
#if MICRO_ROWS == 6
SCORE_ROWS(5)
SCORE_ROWS(6)
#endif

static void score_rows(int rows, const float *q, int head_dim, const float *k_t, int n_keys, float scale, float *p) {
    switch (rows) {
    case 1: score_rows_1(q, head_dim, k_t, n_keys, scale, p); break;
    case 2: score_rows_2(q, head_dim, k_t, n_keys, scale, p); break;
    case 3: score_rows_3(q, head_dim, k_t, n_keys, scale, p); break;
    case 4: score_rows_4(q, head_dim, k_t, n_keys, scale, p); break;
#if MICRO_ROWS == 6
    case 5: score_rows_5(q, head_dim, k_t, n_keys, scale, p); break;
    default: score_rows_6(q, head_dim, k_t, n_keys, scale, p); break;
#endif
    }
}

/* ---- softmax ----------------------------------------------------------------------------------- */

/* Scores of one query to exp(s - m), with the new running maximum and sum. Returns the factor for the old o. */
static float softmax_step(float *p, int visible, float *m, float *l) {
    _Static_assert(KV_BLOCK == 32, "lane numbers are spelled out");
    static const int32_t lane_number[KV_BLOCK] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                                  16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    const vf minus_infinity = v_set1(-INFINITY);
    vf s[KEY_VECTORS];
    vf highest = minus_infinity;
    for (int j = 0; j < KEY_VECTORS; j++) {
        vi number;
        memcpy(&number, lane_number + j * LANES, sizeof number);
        s[j] = v_select(number < visible, v_load(p + j * LANES), minus_infinity);
        highest = v_max(s[j], highest);
    }
    const float m_old = *m;
    const float m_block = v_highest(highest);
    const float m_new = m_old > m_block ? m_old : m_block;
    vf sum = v_set1(0.0f);
    for (int j = 0; j < KEY_VECTORS; j++) {
        const vf e = v_exp(s[j] - v_set1(m_new));
        v_store(p + j * LANES, e);
        sum += e;
    }
    const float alpha = m_new == m_old ? 1.0f : v_exp(v_set1(m_old - m_new))[0];
    *m = m_new;
    *l = *l * alpha + v_sum(sum);
    return alpha;
}

/* ---- values ------------------------------------------------------------------------------------ */

/*
 * o (rows, vectors · LANES) = alpha · o + p V over keys begin..end-1. v: f32, or f16 where said. prefetch: memory of
 * the same layout as v that will be read soon, or NULL.
 */
INLINE void value_micro(const float *p, const void *v, size_t stride, const bool f16, const void *prefetch, int begin,
                        int end, const float *alpha, float *o, size_t o_stride, const int rows, const int vectors) {
    const size_t bytes = f16 ? sizeof(uint16_t) : sizeof(float);
    vf sum[MICRO_ROWS][8];
    for (int r = 0; r < rows; r++) {
        for (int j = 0; j < vectors; j++) {
            sum[r][j] = v_load(o + (size_t)r * o_stride + j * LANES) * v_set1(alpha[r]);
        }
    }
    const float *v32 = f16 ? NULL : (const float *)v + (size_t)begin * stride;
    const uint16_t *v16 = f16 ? (const uint16_t *)v + (size_t)begin * stride : NULL;
    for (int i = begin; i < end; i++) {
        vf value[8];
        for (int j = 0; j < vectors; j++) {
            value[j] = f16 ? v_load_f16(v16 + j * LANES) : v_load(v32 + j * LANES);
        }
        for (int r = 0; r < rows; r++) {
            const vf x = v_set1(p[r * KV_BLOCK + i]);
            for (int j = 0; j < vectors; j++) {
                sum[r][j] = v_fma(x, value[j], sum[r][j]);
            }
        }
        if (f16) {
            v16 += stride;
        } else {
            v32 += stride;
        }
        if (prefetch) {
            for (size_t at = 0; at < (size_t)vectors * LANES * bytes; at += 64) {
                __builtin_prefetch((const char *)prefetch + (size_t)i * stride * bytes + at);
            }
        }
    }
    for (int r = 0; r < rows; r++) {
        for (int j = 0; j < vectors; j++) {
            v_store(o + (size_t)r * o_stride + j * LANES, sum[r][j]);
        }
    }
}

/* All columns: as many vectors at once as the registers hold, then what remains. */
INLINE void value_columns(const float *p, const void *v, size_t stride, const bool f16, const void *prefetch, int begin,
                          int end, const float *alpha, float *o, int padded_dim, const int rows) {
    const size_t bytes = f16 ? sizeof(uint16_t) : sizeof(float);
    int d = 0;
#define VALUE_STRIPS(n)                                                                                                \
    if (n <= VECTORS_FOR(rows, 8)) {                                                                                   \
        for (; d + n * LANES <= padded_dim; d += n * LANES) {                                                          \
            value_micro(p, (const char *)v + (size_t)d * bytes, stride, f16,                                           \
                        prefetch ? (const char *)prefetch + (size_t)d * bytes : NULL, begin, end, alpha, o + d,        \
                        (size_t)padded_dim, rows, n);                                                                  \
        }                                                                                                              \
    }
    VALUE_STRIPS(8)
    VALUE_STRIPS(4)
    VALUE_STRIPS(2)
    VALUE_STRIPS(1)
#undef VALUE_STRIPS
}

struct value_source {
    const void *v;
    size_t stride;
};

#define VALUE_ROWS(rows)                                                                                               \
    static void value_rows_##rows(const float *p, struct value_source v, int begin, int end, const float *alpha,       \
                                  float *o, int padded_dim) {                                                          \
        value_columns(p, v.v, v.stride, false, NULL, begin, end, alpha, o, padded_dim, rows);                          \
    }
VALUE_ROWS(1)
VALUE_ROWS(2)
VALUE_ROWS(3)
VALUE_ROWS(4)
#if MICRO_ROWS == 6
VALUE_ROWS(5)
VALUE_ROWS(6)
#endif

/* The lone query of decode reads its values as stored, and the next block's ahead. */
static void value_row_stored(const struct attention_block *keys, const float *p, int n_keys, const float *alpha,
                             float *o, int dim) {
    if (keys->f16) {
        value_columns(p, keys->v, keys->stride, true, keys->next_v, 0, n_keys, alpha, o, dim, 1);
    } else {
        value_columns(p, keys->v, keys->stride, false, keys->next_v, 0, n_keys, alpha, o, dim, 1);
    }
}

static void value_rows(int rows, const float *p, struct value_source v, int end, const float *alpha, float *o,
                       int padded_dim) {
    switch (rows) {
    case 1: value_rows_1(p, v, 0, end, alpha, o, padded_dim); break;
    case 2: value_rows_2(p, v, 0, end, alpha, o, padded_dim); break;
    case 3: value_rows_3(p, v, 0, end, alpha, o, padded_dim); break;
    case 4: value_rows_4(p, v, 0, end, alpha, o, padded_dim); break;
#if MICRO_ROWS == 6
    case 5: value_rows_5(p, v, 0, end, alpha, o, padded_dim); break;
    default: value_rows_6(p, v, 0, end, alpha, o, padded_dim); break;
#endif
    }
}

/* The first n values as f32 rows the micro-kernels can read: where they lie if they are that, else in t->v. */
static struct value_source values_f32(const struct attention_tile *t, const struct attention_block *keys, int n) {
    const size_t dim = (size_t)t->head_dim, padded = (size_t)t->padded_dim;
    if (!keys->f16 && dim == padded && keys->stride == dim) {
        return (struct value_source){keys->v, dim};
    }
    const size_t bytes = keys->f16 ? sizeof(uint16_t) : sizeof(float);
    for (size_t i = 0; i < (size_t)n; i++) {
        float *row = t->v + i * padded;
        for (size_t at = 0; keys->next_v && at < dim * bytes; at += 64) {
            __builtin_prefetch((const char *)keys->next_v + i * keys->stride * bytes + at);
        }
        if (keys->f16) {
            to_f32((const uint16_t *)keys->v + i * keys->stride, t->head_dim, row);
        } else {
            memcpy(row, (const float *)keys->v + i * keys->stride, dim * sizeof(float));
        }
        memset(row + dim, 0, (padded - dim) * sizeof(float));
    }
    return (struct value_source){t->v, padded};
}

/* ---- one block --------------------------------------------------------------------------------- */

static int highest_visible(const int *visible, int begin, int end) {
    int n = 0;
    for (int i = begin; i < end; i++) {
        n = visible[i] > n ? visible[i] : n;
    }
    return n;
}

static int lowest_visible(const int *visible, int begin, int end) {
    int n = KV_BLOCK;
    for (int i = begin; i < end; i++) {
        n = visible[i] < n ? visible[i] : n;
    }
    return n;
}

static void block_scores(const struct attention_tile *t, int begin, int end, const struct attention_block *keys) {
    pack_keys(keys, highest_visible(t->visible, begin, end), t->head_dim, t->k_t);
    for (int i = begin; i < end; i += MICRO_ROWS) {
        const int rows = end - i < MICRO_ROWS ? end - i : MICRO_ROWS;
        score_rows(rows, t->q + (size_t)i * (size_t)t->head_dim, t->head_dim, t->k_t,
                   highest_visible(t->visible, i, i + rows), t->scale, t->p + (size_t)i * KV_BLOCK);
    }
}

static void block_values(const struct attention_tile *t, int begin, int end, const struct attention_block *keys) {
    const struct attention_state *s = &t->state;
    const size_t padded = (size_t)t->padded_dim;
    const int n_keys = highest_visible(t->visible, begin, end);
    if (end - begin == 1 && t->head_dim == t->padded_dim) {
        value_row_stored(keys, t->p + (size_t)begin * KV_BLOCK, n_keys, t->alpha + begin, s->o + (size_t)begin * padded,
                         t->padded_dim);
        return;
    }
    const struct value_source v = values_f32(t, keys, n_keys);
    for (int i = begin; i < end; i += MICRO_ROWS) {
        const int rows = end - i < MICRO_ROWS ? end - i : MICRO_ROWS;
        const int common = lowest_visible(t->visible, i, i + rows);
        value_rows(rows, t->p + (size_t)i * KV_BLOCK, v, common, t->alpha + i, s->o + (size_t)i * padded,
                   t->padded_dim);
        /* Values a query does not see must not touch it even with weight 0: they may be infinities or NaN. */
        for (int r = i; r < i + rows; r++) {
            if (t->visible[r] > common) {
                static const float unchanged = 1.0f;
                value_rows_1(t->p + (size_t)r * KV_BLOCK, v, common, t->visible[r], &unchanged,
                             s->o + (size_t)r * padded, t->padded_dim);
            }
        }
    }
}

static void attend_block(const struct attention_tile *t, int begin, int end, const struct attention_block *keys) {
    block_scores(t, begin, end, keys);
    for (int i = begin; i < end; i++) {
        t->alpha[i] = softmax_step(t->p + (size_t)i * KV_BLOCK, t->visible[i], t->state.m + i, t->state.l + i);
    }
    block_values(t, begin, end, keys);
}

/* ---- whole rows -------------------------------------------------------------------------------- */

/* Scores to probabilities, in place; -inf becomes 0. n: a multiple of LANES. */
static void softmax_row(float *s, int n) {
    vf highest = v_set1(-INFINITY);
    for (int i = 0; i < n; i += LANES) {
        highest = v_max(v_load(s + i), highest);
    }
    const vf m = v_set1(v_highest(highest));
    vf sum = v_set1(0.0f);
    for (int i = 0; i < n; i += LANES) {
        const vf e = v_exp(v_load(s + i) - m);
        v_store(s + i, e);
        sum += e;
    }
    const vf scale = v_set1(1.0f / v_sum(sum));
    for (int i = 0; i < n; i += LANES) {
        v_store(s + i, v_load(s + i) * scale);
    }
}

#define ATTENTION_KERNELS                                                                                              \
    {                                                                                                                  \
        .lanes = LANES, .block = attend_block, .scores = block_scores, .values = block_values, .softmax = softmax_row, \
        .to_f16 = to_f16                                                                                               \
    }
