/*
 * What observers are shown at each site of the decoder, value by value against the naive decoder; and the variants of
 * rotary embedding. A method that measures or edits at a site relies on these being what their names say.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/naive_llama.h"
#include "../support/weight_file.h"
#include "lm/llama.h"

#define N 12 /* rows of the one pass */

/* What one pass showed. */
struct shown {
    const struct llama_weights *w;
    int calls[SITE_COUNT];
    float *hidden, *scores, *probs, *heads, *early, *logits, *positions; /* laid out as in struct naive_trace */
};

static void see(void *user_data, enum site site, int layer, const float *data, int n_rows, int n_cols) {
    struct shown *s = user_data;
    const struct llama_weights *w = s->w;
    const size_t n = (size_t)n_rows * (size_t)n_cols;
    s->calls[site]++;
    int rows = N, cols = 0;
    float *to = NULL;
    switch (site) {
    case SITE_POSITIONS:
        assert_int_equal(layer, -1);
        cols = 1;
        to = s->positions;
        break;
    case SITE_HIDDEN:
        assert_in_range(layer + 1, 0, w->n_layer);
        cols = w->n_embd;
        to = s->hidden + (size_t)(layer + 1) * n;
        break;
    case SITE_ATTENTION_SCORES:
    case SITE_ATTENTION_PROBS:
        assert_in_range(layer, 0, w->n_layer - 1);
        rows = N * w->n_head;
        cols = N;
        to = (site == SITE_ATTENTION_SCORES ? s->scores : s->probs) + (size_t)layer * n;
        break;
    case SITE_HEAD_OUTPUT:
        assert_in_range(layer, 0, w->n_layer - 1);
        cols = w->n_head * w->head_dim;
        to = s->heads + (size_t)layer * n;
        break;
    case SITE_EARLY_LOGITS:
        assert_in_range(layer, 0, w->n_layer - 1);
        rows = 2;
        cols = w->n_vocab;
        to = s->early + (size_t)layer * n;
        break;
    case SITE_LOGITS:
        assert_int_equal(layer, -1);
        rows = 2;
        cols = w->n_vocab;
        to = s->logits;
        break;
    default: fail_msg("site %s is not the decoder's", site_name(site));
    }
    assert_int_equal(n_rows, rows);
    assert_int_equal(n_cols, cols);
    memcpy(to, data, n * sizeof *data);
}

static double error_of(const float *found, const double *expected, size_t n) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += (found[i] - expected[i]) * (found[i] - expected[i]);
        norm += expected[i] * expected[i];
    }
    return sqrt(difference / norm);
}

static float *floats(size_t n) {
    float *p = calloc(n, sizeof *p);
    assert_non_null(p);
    return p;
}

static double *doubles(size_t n) {
    double *p = calloc(n, sizeof *p);
    assert_non_null(p);
    return p;
}

/* One observed pass of N rows of which the last two want logits, compared with the naive decoder. */
static void check_sites(const struct file *f, candid_precision precision, double bound) {
    struct llama_weights w;
    struct backend *b = NULL;
    struct kv_cache *kv = NULL;
    struct kv_seq *seq = NULL;
    struct llama *llama = NULL;
    assert_int_equal(llama_weights_load(f->gguf, &w, NULL), CANDID_OK);
    assert_int_equal(backend_cpu_create(precision, 2, NULL, &b, NULL), CANDID_OK);
    const struct kv_shape shape = {w.n_layer, w.n_head_kv, w.head_dim, precision == CANDID_PRECISION_EXACT};
    assert_int_equal(kv_cache_create(b, &shape, 64, &kv, NULL), CANDID_OK);
    assert_int_equal(kv_seq_create(kv, &seq, NULL), CANDID_OK);
    assert_int_equal(llama_create(&w, b, N, &llama, NULL), CANDID_OK);

    const size_t n_x = (size_t)(N * w.n_embd), n_q = (size_t)(N * w.n_head * w.head_dim);
    const size_t n_keys = (size_t)(N * w.n_head * N), n_layer = (size_t)w.n_layer, n_vocab = (size_t)w.n_vocab;
    const struct naive_trace naive = {doubles((n_layer + 1) * n_x), doubles(n_layer * n_keys),
                                      doubles(n_layer * n_keys), doubles(n_layer * n_q)};
    int tokens[N];
    struct forward_row rows[N];
    for (int i = 0; i < N; i++) {
        tokens[i] = 3 + i * 31 % (w.n_vocab - 3);
        rows[i] = (struct forward_row){.seq = seq, .token = tokens[i], .position = i, .want_logits = i >= N - 2};
    }
    double *expected = naive_forward(f->gguf, &w, tokens, N, &naive);
    struct shown s = {.w = &w,
                      .hidden = floats((n_layer + 1) * n_x),
                      .scores = floats(n_layer * n_keys),
                      .probs = floats(n_layer * n_keys),
                      .heads = floats(n_layer * n_q),
                      .early = floats(n_layer * 2 * n_vocab),
                      .logits = floats(2 * n_vocab),
                      .positions = floats(N)};
    float *logits = floats(2 * n_vocab);
    const unsigned decoder = 1u << SITE_POSITIONS | 1u << SITE_ATTENTION_SCORES | 1u << SITE_ATTENTION_PROBS |
                             1u << SITE_HEAD_OUTPUT | 1u << SITE_HIDDEN | 1u << SITE_EARLY_LOGITS | 1u << SITE_LOGITS;
    const struct observer observer = {.mask = decoder, .see = see, .user_data = &s};
    assert_int_equal(llama_forward(llama, rows, N, &observer, logits, NULL), CANDID_OK);

    assert_int_equal(s.calls[SITE_POSITIONS], 1);
    assert_int_equal(s.calls[SITE_HIDDEN], w.n_layer + 1);
    assert_int_equal(s.calls[SITE_ATTENTION_SCORES], w.n_layer);
    assert_int_equal(s.calls[SITE_ATTENTION_PROBS], w.n_layer);
    assert_int_equal(s.calls[SITE_HEAD_OUTPUT], w.n_layer);
    assert_int_equal(s.calls[SITE_EARLY_LOGITS], w.n_layer);
    assert_int_equal(s.calls[SITE_LOGITS], 1);
    for (int i = 0; i < N; i++) {
        assert_true(s.positions[i] == (float)i);
    }
    assert_memory_equal(s.logits, logits, 2 * n_vocab * sizeof *logits);
    assert_memory_equal(s.early + (n_layer - 1) * 2 * n_vocab, logits, 2 * n_vocab * sizeof *logits);
    assert_true(error_of(logits, expected + (size_t)(N - 2) * n_vocab, 2 * n_vocab) < bound);
    for (size_t l = 0; l <= n_layer; l++) {
        assert_true(error_of(s.hidden + l * n_x, naive.hidden + l * n_x, n_x) < bound);
    }
    for (size_t l = 0; l < n_layer; l++) {
        assert_true(error_of(s.scores + l * n_keys, naive.scores + l * n_keys, n_keys) < bound);
        assert_true(error_of(s.probs + l * n_keys, naive.probs + l * n_keys, n_keys) < bound);
        assert_true(error_of(s.heads + l * n_q, naive.heads + l * n_q, n_q) < bound);
    }
    /* early logits: the head on a layer's output, by the naive decoder's own hidden states */
    float *norm = tensor_values(f->gguf, "output_norm.weight"), *head = tensor_values(f->gguf, "output.weight");
    double *normed = doubles((size_t)w.n_embd), *early = doubles(n_vocab);
    for (size_t l = 0; l < n_layer; l++) {
        for (size_t r = 0; r < 2; r++) {
            const double *x = naive.hidden + (l + 1) * n_x + (N - 2 + r) * (size_t)w.n_embd;
            normalise(normed, x, norm, w.n_embd, w.rms_eps);
            product(early, head, normed, w.n_vocab, w.n_embd);
            assert_true(error_of(s.early + (l * 2 + r) * n_vocab, early, n_vocab) < bound);
        }
    }
    float *ours[] = {s.hidden, s.scores, s.probs, s.heads, s.early, s.logits, s.positions, logits, norm, head};
    double *theirs[] = {naive.hidden, naive.scores, naive.probs, naive.heads, expected, normed, early};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        free(ours[i]);
    }
    for (size_t i = 0; i < sizeof theirs / sizeof *theirs; i++) {
        free(theirs[i]);
    }
    llama_free(llama);
    kv_seq_free(seq);
    kv_cache_free(kv);
    backend_destroy(b);
    llama_weights_free(&w);
}

/* ---- RoPE variants ---- */

static void none(struct gguf_writer *w) {
    gw_bool(w, "test.nothing", true);
}
static void factors(struct gguf_writer *w) { /* 8 pairs of heads of 16 */
    gw_tensor(w, "rope_freqs.weight", TYPE_F32, 1, (const int64_t[]){8}, (const float[]){1, 1, 1.5f, 2, 3, 4, 8, 8},
              32);
}
static void partial(struct gguf_writer *w) {
    gw_u32(w, "llama.rope.dimension_count", 8);
}
static void linear(struct gguf_writer *w) {
    gw_str(w, "llama.rope.scaling.type", "linear");
    gw_f32(w, "llama.rope.scaling.factor", 4.0f);
}
static void halves(struct gguf_writer *w) {
    gw_bool(w, "candid.rope_halves", true);
}
static void partial_halves(struct gguf_writer *w) {
    partial(w);
    halves(w);
}

static void sites_show_what_they_say(void **state) {
    (void)state;
    static void (*const variants[])(struct gguf_writer *) = {none, factors, partial, linear, halves, partial_halves};
    static const char *const skip[3] = {"llama.rope.dimension_count"};
    struct tiny_model_options o = tiny_model_options_default();
    o.vision = false;
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
        const bool own_count = variants[i] == partial || variants[i] == partial_halves;
        struct file f = make_file("sites.gguf", &o, own_count ? skip : NULL, variants[i]);
        check_sites(&f, CANDID_PRECISION_EXACT, 1e-5);
        check_sites(&f, CANDID_PRECISION_FAST, 2e-3);
        drop(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sites_show_what_they_say)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
