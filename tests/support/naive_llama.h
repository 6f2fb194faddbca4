/*
 * A LLaMA decoder written for the tests: double precision, no cache, whole sequence at once, weights decoded through
 * the file's tensors. Include cmocka before it.
 */
#ifndef CANDID_TESTS_NAIVE_LLAMA_H
#define CANDID_TESTS_NAIVE_LLAMA_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/gguf.h"
#include "model/weights.h"

static inline float *tensor_values(const struct gguf *gguf, const char *name) {
    const struct tensor *t = gguf_find_tensor(gguf, name);
    assert_non_null(t);
    int64_t n = t->ne[0] * t->ne[1];
    float *out = malloc((size_t)n * sizeof *out);
    quant_dequantize(t->type, t->data, out, n);
    return out;
}

static inline float *layer_values(const struct gguf *gguf, int layer, const char *role) {
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s.weight", layer, role);
    return tensor_values(gguf, name);
}

/* out = W x for one row */
static inline void product(double *out, const float *w, const double *x, int n_out, int n_in) {
    for (int o = 0; o < n_out; o++) {
        double sum = 0;
        for (int i = 0; i < n_in; i++) {
            sum += (double)w[(size_t)o * (size_t)n_in + (size_t)i] * x[i];
        }
        out[o] = sum;
    }
}

static inline void normalise(double *out, const double *x, const float *w, int n, double eps) {
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += x[i] * x[i];
    }
    for (int i = 0; i < n; i++) {
        out[i] = x[i] / sqrt(sum / n + eps) * w[i];
    }
}

/* Positions are scaled, frequencies divided by factors, pairs adjacent or halves, as the file says. */
static inline void rotate(double *head, const struct rope_params *r, int position) {
    for (int i = 0; i < r->n_dims / 2; i++) {
        double *a = &head[r->adjacent_pairs ? 2 * i : i], *b = &head[r->adjacent_pairs ? 2 * i + 1 : i + r->n_dims / 2];
        const double frequency = pow(r->base, -2.0 * i / r->n_dims) / (r->factors ? r->factors[i] : 1.0);
        const double angle = position * (double)r->position_scale * frequency, x = *a, y = *b;
        *a = x * cos(angle) - y * sin(angle);
        *b = x * sin(angle) + y * cos(angle);
    }
}

/* What passes the sites; filled where not NULL. */
struct naive_trace {
    double *hidden; /* (n_layer + 1, n, n_embd), embeddings first */
    double *scores; /* (n_layer, n, n_head, n); zeros beyond a row's keys */
    double *probs;  /* the same */
    double *heads;  /* (n_layer, n, n_head*head_dim) */
};

/* Logits (n, n_vocab) of a whole token sequence at positions 0 .. n-1. */
static inline double *naive_forward(const struct gguf *gguf, const struct llama_weights *h, const int *tokens, int n,
                                    const struct naive_trace *trace) {
    const int d = h->n_embd, hd = h->head_dim, n_q = h->n_head * hd, n_kv = h->n_head_kv * hd;
    double *x = calloc((size_t)(n * d), sizeof *x), *normed = calloc((size_t)d, sizeof *x);
    double *q = calloc((size_t)(n * n_q), sizeof *x), *k = calloc((size_t)(n * n_kv), sizeof *x);
    double *v = calloc((size_t)(n * n_kv), sizeof *x), *heads = calloc((size_t)n_q, sizeof *x);
    double *gate = calloc((size_t)h->n_ff, sizeof *x), *up = calloc((size_t)h->n_ff, sizeof *x),
           *y = calloc((size_t)d, sizeof *x);
    double *probs = calloc((size_t)n, sizeof *x), *logits = calloc((size_t)(n * h->n_vocab), sizeof *x);
    float *table = tensor_values(gguf, "token_embd.weight");
    for (int t = 0; t < n; t++) {
        for (int i = 0; i < d; i++) {
            x[t * d + i] = table[tokens[t] * d + i];
        }
    }
    if (trace) {
        memcpy(trace->hidden, x, (size_t)(n * d) * sizeof *x);
    }
    for (int l = 0; l < h->n_layer; l++) {
        float *an = layer_values(gguf, l, "attn_norm"), *wq = layer_values(gguf, l, "attn_q");
        float *wk = layer_values(gguf, l, "attn_k"), *wv = layer_values(gguf, l, "attn_v");
        float *wo = layer_values(gguf, l, "attn_output"), *fn = layer_values(gguf, l, "ffn_norm");
        float *wg = layer_values(gguf, l, "ffn_gate"), *wu = layer_values(gguf, l, "ffn_up"),
              *wd = layer_values(gguf, l, "ffn_down");
        for (int t = 0; t < n; t++) {
            normalise(normed, x + t * d, an, d, h->rms_eps);
            product(q + t * n_q, wq, normed, n_q, d);
            product(k + t * n_kv, wk, normed, n_kv, d);
            product(v + t * n_kv, wv, normed, n_kv, d);
            for (int i = 0; i < h->n_head; i++) {
                rotate(q + t * n_q + i * hd, &h->rope, t);
            }
            for (int i = 0; i < h->n_head_kv; i++) {
                rotate(k + t * n_kv + i * hd, &h->rope, t);
            }
        }
        for (int t = 0; t < n; t++) {
            for (int i = 0; i < h->n_head; i++) {
                const int kv = i / (h->n_head / h->n_head_kv);
                double sum = 0;
                for (int s = 0; s <= t; s++) {
                    double score = 0;
                    for (int e = 0; e < hd; e++) {
                        score += q[t * n_q + i * hd + e] * k[s * n_kv + kv * hd + e];
                    }
                    sum += probs[s] = exp(score / sqrt(hd));
                }
                for (int s = 0; trace && s <= t; s++) {
                    const size_t at = ((size_t)(l * n + t) * (size_t)h->n_head + (size_t)i) * (size_t)n + (size_t)s;
                    trace->probs[at] = probs[s] / sum;
                    trace->scores[at] = log(probs[s]);
                }
                for (int e = 0; e < hd; e++) {
                    double value = 0;
                    for (int s = 0; s <= t; s++) {
                        value += probs[s] / sum * v[s * n_kv + kv * hd + e];
                    }
                    heads[i * hd + e] = value;
                }
            }
            if (trace) {
                memcpy(trace->heads + (size_t)(l * n + t) * (size_t)n_q, heads, (size_t)n_q * sizeof *heads);
            }
            product(y, wo, heads, d, n_q);
            for (int i = 0; i < d; i++) {
                x[t * d + i] += y[i];
            }
        }
        for (int t = 0; t < n; t++) {
            normalise(normed, x + t * d, fn, d, h->rms_eps);
            product(gate, wg, normed, h->n_ff, d);
            product(up, wu, normed, h->n_ff, d);
            for (int i = 0; i < h->n_ff; i++) {
                gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
            }
            product(y, wd, gate, d, h->n_ff);
            for (int i = 0; i < d; i++) {
                x[t * d + i] += y[i];
            }
        }
        if (trace) {
            memcpy(trace->hidden + (size_t)((l + 1) * n * d), x, (size_t)(n * d) * sizeof *x);
        }
        float *all[] = {an, wq, wk, wv, wo, fn, wg, wu, wd};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
            free(all[i]);
        }
    }
    float *norm = tensor_values(gguf, "output_norm.weight");
    bool tied = !gguf_find_tensor(gguf, "output.weight");
    float *head = tied ? NULL : tensor_values(gguf, "output.weight");
    for (int t = 0; t < n; t++) {
        normalise(normed, x + t * d, norm, d, h->rms_eps);
        product(logits + t * h->n_vocab, tied ? table : head, normed, h->n_vocab, d);
    }
    free(table), free(norm), free(head), free(x), free(normed), free(q), free(k), free(v), free(heads);
    free(gate), free(up), free(y), free(probs);
    return logits;
}

#endif
