/*
 * The image encoder and projector against a naive one in double precision, over what mmproj files may ask for:
 * activations, projectors, a bias of the patch embedding; and what observers are shown.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/weight_file.h"
#include "vision/clip.h"

#define LM_WIDTH 64
#define SIDE     28

/* ---- the naive encoder ---- */

static double *doubles(size_t n) {
    double *p = calloc(n, sizeof *p);
    assert_non_null(p);
    return p;
}

/* out (n, m->n_out) = x (n, m->n_in) Wᵀ + bias */
static double *linear(const double *x, int n, const struct matrix *m, const float *bias) {
    double *out = doubles((size_t)(n * m->n_out));
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

static void layer_norm(double *out, const double *x, int n, int d, const float *w, const float *b, double eps) {
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

static double activate(enum activation a, double x) {
    return a == ACTIVATION_GELU_ERF     ? x / 2 * (1 + erf(x / sqrt(2)))
           : a == ACTIVATION_GELU_QUICK ? x / (1 + exp(-1.702 * x))
                                        : x / (1 + exp(-x));
}

static void add(double *x, double *y, size_t n) {
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

static void attention(const struct clip_weights *w, const struct clip_layer *l, double *x, int n, double *probs) {
    const int d = w->n_embd, hd = w->head_dim;
    double *h = doubles((size_t)(n * d)), *heads = doubles((size_t)(n * d));
    layer_norm(h, x, n, d, l->ln1_w, l->ln1_b, w->eps);
    double *q = linear(h, n, &l->q, l->q_b), *k = linear(h, n, &l->k, l->k_b), *v = linear(h, n, &l->v, l->v_b);
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
    add(x, linear(heads, n, &l->out, l->out_b), (size_t)(n * d));
    free(h), free(heads), free(q), free(k), free(v);
}

static double *project(const struct clip_weights *w, const double *features, int n) {
    double *hidden = linear(features, n, &w->mm_0, w->mm_0_b);
    if (w->projector == PROJECTOR_LINEAR) {
        return hidden;
    }
    if (w->projector == PROJECTOR_MLP_NORM) {
        layer_norm(hidden, hidden, n, w->mm_0.n_out, w->mm_ln1_w, w->mm_ln1_b, w->eps);
    }
    for (int i = 0; i < n * w->mm_0.n_out; i++) {
        hidden[i] = activate(ACTIVATION_GELU_ERF, hidden[i]);
    }
    double *out = linear(hidden, n, &w->mm_2, w->mm_2_b);
    free(hidden);
    if (w->projector == PROJECTOR_MLP_NORM) {
        layer_norm(out, out, n, LM_WIDTH, w->mm_ln4_w, w->mm_ln4_b, w->eps);
    }
    return out;
}

static struct naive encode_naive(const struct clip_weights *w, const float *pixels) {
    const int d = w->n_embd, p = w->patch_size, n_patches = w->grid * w->grid, n = n_patches + 1, values = 3 * p * p;
    double *patches = doubles((size_t)(n_patches * values)), *x = doubles((size_t)(n * d));
    for (int i = 0; i < n_patches * values; i++) {
        const int patch = i / values, c = i % values / (p * p), y = i % (p * p) / p, column = i % p;
        const int row = patch / w->grid * p + y;
        patches[i] = pixels[(c * SIDE + row) * SIDE + patch % w->grid * p + column];
    }
    double *embedded = linear(patches, n_patches, &w->patch_embd, w->patch_bias);
    for (int i = 0; i < n * d; i++) {
        x[i] = w->position_embd[i] + (i < d ? (double)w->class_embd[i] : embedded[i - d]);
    }
    free(patches), free(embedded);
    layer_norm(x, x, n, d, w->pre_ln_w, w->pre_ln_b, w->eps);
    const size_t n_x = (size_t)(n * d), n_probs = (size_t)(n * w->n_head * n);
    struct naive out = {doubles((size_t)w->n_run * n_probs), doubles((size_t)(w->n_run + 1) * n_x), NULL};
    memcpy(out.hidden, x, n_x * sizeof *x);
    double *h = doubles(n_x);
    for (int l = 0; l < w->n_run; l++) {
        const struct clip_layer *layer = &w->layers[l];
        attention(w, layer, x, n, out.probs + (size_t)l * n_probs);
        layer_norm(h, x, n, d, layer->ln2_w, layer->ln2_b, w->eps);
        double *up = linear(h, n, &layer->fc1, layer->fc1_b);
        for (int i = 0; i < n * w->n_ff; i++) {
            up[i] = activate(w->activation, up[i]);
        }
        add(x, linear(up, n, &layer->fc2, layer->fc2_b), n_x);
        free(up);
        memcpy(out.hidden + (size_t)(l + 1) * n_x, x, n_x * sizeof *x);
    }
    out.tokens = project(w, x + d, n_patches);
    free(x), free(h);
    return out;
}

/* ---- comparison ---- */

struct shown {
    const struct clip_weights *w;
    const struct naive *naive;
    double bound;
    int calls[SITE_COUNT];
};

static double error_of(const float *found, const double *expected, size_t n) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += (found[i] - expected[i]) * (found[i] - expected[i]);
        norm += expected[i] * expected[i];
    }
    return sqrt(difference / norm);
}

static void see(void *user_data, enum site site, int layer, const float *data, int n_rows, int n_cols) {
    struct shown *s = user_data;
    const int n = s->w->grid * s->w->grid + 1;
    const size_t size = (size_t)n_rows * (size_t)n_cols;
    const double *expected = NULL;
    s->calls[site]++;
    if (site == SITE_VISION_ATTENTION) {
        assert_int_equal(n_rows, n * s->w->n_head);
        assert_int_equal(n_cols, n);
        assert_in_range(layer, 0, s->w->n_run - 1);
        expected = s->naive->probs + (size_t)layer * size;
    } else if (site == SITE_VISION_HIDDEN) {
        assert_int_equal(n_rows, n);
        assert_in_range(layer + 1, 0, s->w->n_run);
        expected = s->naive->hidden + (size_t)(layer + 1) * size;
    } else {
        assert_int_equal(site, SITE_VISUAL_TOKENS);
        expected = s->naive->tokens;
    }
    assert_true(error_of(data, expected, size) < s->bound);
}

static void check(const struct file *f, candid_precision precision, double bound, enum activation activation,
                  enum projector_type projector, bool biased) {
    struct clip_weights w;
    struct backend *b = NULL;
    struct clip *clip = NULL;
    void *tokens = NULL;
    assert_int_equal(clip_weights_load(f->gguf, LM_WIDTH, &w, NULL, NULL), CANDID_OK);
    assert_int_equal(w.activation, activation);
    assert_int_equal(w.projector, projector);
    assert_int_equal(w.patch_bias != NULL, biased);
    assert_int_equal(backend_cpu_create(precision, 2, NULL, &b, NULL), CANDID_OK);
    assert_int_equal(clip_create(&w, LM_WIDTH, b, &clip, NULL), CANDID_OK);
    const size_t n = (size_t)(w.grid * w.grid) * LM_WIDTH;
    assert_int_equal(b->ops->alloc(b, n * sizeof(float), &tokens, NULL), CANDID_OK);
    float pixels[3 * SIDE * SIDE];
    for (int i = 0; i < 3 * SIDE * SIDE; i++) {
        pixels[i] = (float)((unsigned)i * 2654435761u % 1000) / 250.0f - 2.0f;
    }
    const struct naive naive = encode_naive(&w, pixels);
    struct shown s = {.w = &w, .naive = &naive, .bound = bound};
    const struct observer observer = {.mask = 1u << SITE_VISION_ATTENTION | 1u << SITE_VISION_HIDDEN |
                                              1u << SITE_VISUAL_TOKENS,
                                      .see = see,
                                      .user_data = &s};
    assert_int_equal(clip_encode(clip, pixels, tokens, &observer, NULL), CANDID_OK);
    assert_int_equal(s.calls[SITE_VISION_ATTENTION], w.n_run);
    assert_int_equal(s.calls[SITE_VISION_HIDDEN], w.n_run + 1);
    assert_int_equal(s.calls[SITE_VISUAL_TOKENS], 1);
    assert_true(error_of(tokens, naive.tokens, n) < bound);
    free(naive.probs), free(naive.hidden), free(naive.tokens);
    b->ops->release(b, tokens);
    clip_free(clip);
    backend_destroy(b);
    clip_weights_free(&w);
}

/* ---- variants ---- */

static enum activation wanted;
static bool with_bias;

static void add_variant(struct gguf_writer *w) {
    gw_bool(w, "clip.use_gelu", wanted == ACTIVATION_GELU_ERF);
    gw_bool(w, "clip.use_silu", wanted == ACTIVATION_SILU);
    if (with_bias) {
        float bias[64];
        for (int i = 0; i < 64; i++) {
            bias[i] = 0.3f * (float)(i % 7 - 3);
        }
        gw_tensor(w, "v.patch_embd.bias", TYPE_F32, 1, (const int64_t[]){64}, bias, sizeof bias);
    }
}

static void every_variant(void **state) {
    (void)state;
    static const enum activation activations[] = {ACTIVATION_GELU_ERF, ACTIVATION_GELU_QUICK, ACTIVATION_SILU};
    static const enum projector_type projectors[] = {PROJECTOR_MLP, PROJECTOR_MLP_NORM, PROJECTOR_LINEAR};
    for (int variant = 0; variant < 18; variant++) {
        struct tiny_model_options o = tiny_model_options_default();
        o.language_model = false;
        const enum projector_type projector = projectors[variant / 3 % 3];
        wanted = activations[variant % 3];
        with_bias = variant >= 9;
        o.mlp_norm = projector == PROJECTOR_MLP_NORM;
        struct gguf_writer *w = gw_open(NULL);
        gw_skip(w, "clip.use_gelu");
        gw_skip(w, "clip.use_silu");
        if (projector == PROJECTOR_LINEAR) { /* mm.0 alone has the right shape here */
            gw_skip(w, "mm.2.weight");
            gw_skip(w, "mm.2.bias");
        }
        tiny_model_fill(w, &o);
        gw_skip(w, NULL);
        add_variant(w);
        size_t size;
        struct file f = {0};
        f.bytes = gw_take(w, &size);
        assert_int_equal(gguf_open_memory(f.bytes, size, "mmproj.gguf", &f.gguf, NULL), CANDID_OK);
        check(&f, CANDID_PRECISION_EXACT, 1e-5, wanted, projector, with_bias);
        check(&f, CANDID_PRECISION_FAST, 1e-3, wanted, projector, with_bias);
        drop(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_variant)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
