/*
 * The image encoder and projector against a naive one in double precision, over what mmproj files may ask for:
 * activations, projectors, a bias of the patch embedding; and what observers are shown.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/naive_clip.h"
#include "../support/weight_file.h"
#include "vision/clip.h"

#define LM_WIDTH 64
#define SIDE     28

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
    const struct naive naive = naive_encode(&w, pixels);
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
