/*
 * A naive image encoder and projector in double precision, and what it saw on the way. Include after cmocka.h.
 */
#ifndef CANDID_TESTS_NAIVE_CLIP_H
#define CANDID_TESTS_NAIVE_CLIP_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/quant.h"
#include "model/weights.h"

static inline double *naive_doubles(size_t n) {
    double *p = calloc(n, sizeof *p);
    assert_non_null(p);
    return p;
}

/* out (n, m->n_out) = x (n, m->n_in) Wᵀ + bias */
static inline double *naive_linear(const double *x, int n, const struct matrix *m, const float *bias) {
    double *out = naive_doubles((size_t)(n * m->n_out));
    float *w = malloc((size_t)m->n_out * (size_t)m->n_in * sizeof *w);
    assert_non_null(w);
    quant_dequantize(m->type, m->data, w, (int64_t)m->n_out * m->n_in);
    for (int r = 0; r < n; r++) {
        for (int o = 0; o < m->n_out; o++) {
            double sum = bias ? bias[o] : 0;
            for (int i = 0; i < m->n_in; i++) {
                sum += x[r * m->n_in + i] * w[o * m->n_in + i];
            }
            out[r * m->n_out + o] = sum;
        }
    }
    free(w);
    return out;
}

static inline void naive_layer_norm(double *out, const double *x, int n, int d, const float *w, const float *b,
                                    double eps) {
    for (int r = 0; r < n; r++) {
        double mean = 0, variance = 0;
        for (int i = 0; i < d; i++) {
            mean += x[r * d + i] / d;
        }
        for (int i = 0; i < d; i++) {
            variance += (x[r * d + i] - mean) * (x[r * d + i] - mean) / d;
        }
        for (int i = 0; i < d; i++) {
            out[r * d + i] = (x[r * d + i] - mean) / sqrt(variance + eps) * w[i] + b[i];
        }
    }
}

static inline double naive_activate(enum activation a, double x) {
    return a == ACTIVATION_GELU_ERF     ? x / 2 * (1 + erf(x / sqrt(2)))
           : a == ACTIVATION_GELU_QUICK ? x / (1 + exp(-1.702 * x))
                                        : x / (1 + exp(-x));
}

static inline void naive_add(double *x, double *y, size_t n) {
    for (size_t i = 0; i < n; i++) {
        x[i] += y[i];
    }
    free(y);
}

/* What is recorded: attention of every layer (layers, tokens*heads, tokens) and hidden states (layers + 1, tokens, d).
 */
struct naive {
    double *probs, *hidden, *tokens;
};

static inline void naive_attention(const struct clip_weights *w, const struct clip_layer *l, double *x, int n,
                                   double *probs) {
    const int d = w->n_embd, hd = w->head_dim;
    double *h = naive_doubles((size_t)(n * d)), *heads = naive_doubles((size_t)(n * d));
    naive_layer_norm(h, x, n, d, l->ln1_w, l->ln1_b, w->eps);
    double *q = naive_linear(h, n, &l->q, l->q_b), *k = naive_linear(h, n, &l->k, l->k_b),
           *v = naive_linear(h, n, &l->v, l->v_b);
    for (int t = 0; t < n; t++) {
        for (int a = 0; a < w->n_head; a++) {
            double *row = probs + (size_t)(t * w->n_head + a) * (size_t)n, sum = 0;
            for (int s = 0; s < n; s++) {
                double score = 0;
                for (int e = 0; e < hd; e++) {
                    score += q[t * d + a * hd + e] * k[s * d + a * hd + e];
                }
                sum += row[s] = exp(score / sqrt(hd));
            }
            for (int s = 0; s < n; s++) {
                row[s] /= sum;
                for (int e = 0; e < hd; e++) {
                    heads[t * d + a * hd + e] += row[s] * v[s * d + a * hd + e];
                }
            }
        }
    }
    naive_add(x, naive_linear(heads, n, &l->out, l->out_b), (size_t)(n * d));
    free(h), free(heads), free(q), free(k), free(v);
}

static inline double *naive_project(const struct clip_weights *w, const double *features, int n) {
    double *hidden = naive_linear(features, n, &w->mm_0, w->mm_0_b);
    if (w->projector == PROJECTOR_LINEAR) {
        return hidden;
    }
    if (w->projector == PROJECTOR_MLP_NORM) {
        naive_layer_norm(hidden, hidden, n, w->mm_0.n_out, w->mm_ln1_w, w->mm_ln1_b, w->eps);
    }
    for (int i = 0; i < n * w->mm_0.n_out; i++) {
        hidden[i] = naive_activate(ACTIVATION_GELU_ERF, hidden[i]);
    }
    double *out = naive_linear(hidden, n, &w->mm_2, w->mm_2_b);
    free(hidden);
    if (w->projector == PROJECTOR_MLP_NORM) {
        naive_layer_norm(out, out, n, w->mm_2.n_out, w->mm_ln4_w, w->mm_ln4_b, w->eps);
    }
    return out;
}

static inline struct naive naive_encode(const struct clip_weights *w, const float *pixels) {
    const int d = w->n_embd, p = w->patch_size, n_patches = w->grid * w->grid, n = n_patches + 1, values = 3 * p * p;
    double *patches = naive_doubles((size_t)(n_patches * values)), *x = naive_doubles((size_t)(n * d));
    for (int i = 0; i < n_patches * values; i++) {
        const int patch = i / values, c = i % values / (p * p), y = i % (p * p) / p, column = i % p;
        const int row = patch / w->grid * p + y;
        patches[i] = pixels[(c * w->image_size + row) * w->image_size + patch % w->grid * p + column];
    }
    double *embedded = naive_linear(patches, n_patches, &w->patch_embd, w->patch_bias);
    for (int i = 0; i < n * d; i++) {
        x[i] = w->position_embd[i] + (i < d ? (double)w->class_embd[i] : embedded[i - d]);
    }
    free(patches), free(embedded);
    naive_layer_norm(x, x, n, d, w->pre_ln_w, w->pre_ln_b, w->eps);
    const size_t n_x = (size_t)(n * d), n_probs = (size_t)(n * w->n_head * n);
    struct naive out = {naive_doubles((size_t)w->n_run * n_probs), naive_doubles((size_t)(w->n_run + 1) * n_x), NULL};
    memcpy(out.hidden, x, n_x * sizeof *x);
    double *h = naive_doubles(n_x);
    for (int l = 0; l < w->n_run; l++) {
        const struct clip_layer *layer = &w->layers[l];
        naive_attention(w, layer, x, n, out.probs + (size_t)l * n_probs);
        naive_layer_norm(h, x, n, d, layer->ln2_w, layer->ln2_b, w->eps);
        double *up = naive_linear(h, n, &layer->fc1, layer->fc1_b);
        for (int i = 0; i < n * w->n_ff; i++) {
            up[i] = naive_activate(w->activation, up[i]);
        }
        naive_add(x, naive_linear(up, n, &layer->fc2, layer->fc2_b), n_x);
        free(up);
        memcpy(out.hidden + (size_t)(l + 1) * n_x, x, n_x * sizeof *x);
    }
    out.tokens = naive_project(w, x + d, n_patches);
    free(x), free(h);
    return out;
}

#endif
