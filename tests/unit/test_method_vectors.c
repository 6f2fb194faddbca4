/*
 * The edits of VAR, VHR and both together against the published test vectors, on every backend: the plan that the
 * method compiles, fed what its probes would have found, edits attention rows that have the vector's probabilities.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/plan_lab.h"
#include "../support/vectors.h"
#include "backend/cpu/attention_edit.h"
#include "model/quant.h"

#define LAYER    5 /* the layer looked at; any that the methods' defaults name */
#define RELATIVE 1e-5
#define FLOOR    1e-7

static double tolerance(double expected) {
    return RELATIVE * fabs(expected) + FLOOR;
}

/* ---- VAR --------------------------------------------------------------------------------------- */

static const struct model_facts var_facts = {
    .name = "made up", .n_layer = 32, .n_head = 4, .n_head_kv = 4, .head_dim = 32, .n_embd = 4096, .n_vocab = 10};

/* VAR's edit of one layer of a prompt, for some sinks. */
struct var {
    struct plan *plan;
    struct plan_step *edit; /* NULL: the method is idle */
};

static void var_sinks(struct var *v, const cJSON *sinks) {
    struct plan_step *probe = lab_step(v->plan, PLAN_PROBE_PEAKS);
    float *peaks = calloc((size_t)v->plan->n_prompt, sizeof *peaks);
    assert_non_null(peaks);
    for (const cJSON *sink = sinks->child; sink; sink = sink->next) {
        peaks[sink->valueint] = 1000.0f;
    }
    probe->decide(probe, &(struct probe_result){.layer = LAYER, .n_rows = v->plan->n_prompt, .peaks = peaks});
    free(peaks);
}

/* rho, summ and p of the vector's input where it has them; `more` adds options. */
static struct var var_compile(const cJSON *input, int n_prompt, double rho, double summ, double p, const char *more) {
    char json[256];
    snprintf(json, sizeof json, "{\"var\": {\"sink_dims\": [1], \"rho\": %.9g, \"summ\": %.9g, \"p\": %.9g%s}}", rho,
             summ, p, more);
    const int im = integer(input, "im"), pa = integer(input, "pa");
    struct layout layout = lab_layout(im, pa, n_prompt - im - pa);
    struct var v = {.plan = lab_plan(json, &var_facts, &layout)};
    v.edit = lab_step(v.plan, PLAN_ATTENTION);
    if (v.edit) {
        var_sinks(&v, member(input, "sinks"));
    }
    layout_free(&layout);
    return v;
}

/* Runs rows first_row.. (index in the sequence; one row per (n_head, n_keys) of attn) through every backend and both
 * cache types, and compares the edited probabilities and which (row, head) were edited (selected may be NULL). */
static void var_check(const struct var *v, const double *attn, int n_rows, int n_head, int n_keys, int first_row,
                      const double *expected, const double *selected) {
    struct lab_probs p = lab_probs(attn, n_rows, n_head, 1, n_keys, NULL, 0);
    struct attention_edit *edits = calloc((size_t)n_rows, sizeof *edits);
    struct row_edits *rows = calloc((size_t)n_rows, sizeof *rows);
    float *moved = calloc((size_t)(n_rows * n_head), sizeof *moved);
    float *out = calloc((size_t)(n_rows * n_head) * LAB_DIM, sizeof *out);
    assert_true(edits && rows && moved && out);
    for (size_t i = 0; i < N_TESTED_BACKENDS * 2; i++) {
        const struct tested_backend *t = &tested_backends[i / 2];
        struct backend *b = tested_backend_open(t);
        for (int r = 0; r < n_rows; r++) {
            const bool edited = v->edit && lab_edit(v->plan, v->edit, LAYER, first_row + r, &edits[r]);
            rows[r] = (struct row_edits){&edits[r], edited ? 1 : 0, moved + r * n_head};
        }
        for (int k = 0; k < n_rows * n_head; k++) {
            moved[k] = -1.0f;
        }
        lab_attend(b, i % 2,
                   &(struct lab_attention){n_head, 1, LAB_DIM, n_keys, 1.0f, p.k, p.v, p.q, n_rows, NULL, rows}, out);
        for (int k = 0; k < n_rows * n_head; k++) {
            for (int j = 0; j < n_keys; j++) {
                const double e = expected[k * n_keys + j];
                assert_close((double)out[k * LAB_DIM + j], e, tolerance(e) + t->rounding * fabs(e), t->name,
                             k * n_keys + j);
            }
            if (selected && (moved[k] >= 0.0f) != (selected[k] != 0.0)) {
                fail_msg("%s: row and head %d: expected %s", t->name, k, selected[k] != 0.0 ? "an edit" : "no edit");
            }
        }
        backend_destroy(b);
    }
    free(edits);
    free(rows);
    free(moved);
    free(out);
    lab_probs_free(&p);
}

static void var_sink_phi(void **state) {
    (void)state;
    const cJSON *v = vector_named("var", "var_sink_phi"), *input = member(v, "input"), *expect = member(v, "expect");
    int n, n_dims, n_rows;
    double *hidden = flatten(member(input, "hidden"), &n), *dims_given = flatten(member(input, "dims"), &n_dims);
    double *phi = flatten(member(expect, "phi"), &n_rows);
    const int width = n / n_rows;
    int dims[4];
    float x[64], found[8];
    for (int i = 0; i < n_dims; i++) {
        dims[i] = (int)dims_given[i];
    }
    for (int i = 0; i < n; i++) {
        x[i] = (float)hidden[i];
    }
    /* the method with the vector's dimensions and threshold, token 3 in the image */
    char json[128];
    snprintf(json, sizeof json, "{\"var\": {\"sink_dims\": [%d, %d], \"tau\": %g}}", dims[0], dims[1],
             number(input, "tau"));
    struct model_facts facts = var_facts;
    facts.n_embd = width;
    for (size_t i = 0; i < N_TESTED_BACKENDS; i++) {
        struct backend *b = tested_backend_open(&tested_backends[i]);
        float *device = device_copy(b, x, (size_t)n);
        b->ops->peaks(b, found, device, n_rows, width, dims, n_dims, (float)number(input, "eps"));
        b->ops->release(b, device);
        backend_destroy(b);
        for (int r = 0; r < n_rows; r++) {
            assert_close((double)found[r], phi[r], tolerance(phi[r]), tested_backends[i].name, r);
        }
        struct layout layout = lab_layout(2, 3, n_rows - 5);
        struct plan *plan = lab_plan(json, &facts, &layout);
        struct plan_step *probe = lab_step(plan, PLAN_PROBE_PEAKS), *edit = lab_step(plan, PLAN_ATTENTION);
        assert_int_equal(probe->n_dims, n_dims);
        assert_memory_equal(probe->dims, dims, (size_t)n_dims * sizeof *dims);
        probe->decide(probe, &(struct probe_result){.layer = LAYER, .n_rows = n_rows, .peaks = found});
        const uint8_t *classes = edit->edit.classes + LAYER * edit->classes_stride;
        for (int r = 0; r < n_rows; r++) {
            const bool sink = cJSON_IsTrue(cJSON_GetArrayItem(member(expect, "sink"), r));
            assert_int_equal(edit->edit.from >> classes[r] & 1u, sink);
            assert_int_equal(edit->edit.to >> classes[r] & 1u, r >= 2 && r < 5 && !sink);
        }
        assert_true(edit->layers[LAYER]);
        /* strict: phi equal to tau is none */
        const float at_tau[] = {2.0f, 2.0f, 2.0f, 2.0f, 2.0f, 2.0f, 2.0f};
        probe->decide(probe, &(struct probe_result){.layer = LAYER + 1, .n_rows = n_rows, .peaks = at_tau});
        assert_false(edit->layers[LAYER + 1]);
        plan_free(plan);
        layout_free(&layout);
    }
    free(hidden);
    free(dims_given);
    free(phi);
}

static void var_decode_one_query(void **state) {
    (void)state;
    const cJSON *v = vector_named("var", "var_decode_one_query"), *input = member(v, "input");
    const cJSON *expect = member(v, "expect");
    int n, n_head;
    double *attn = flatten(member(input, "attn"), &n), *out = flatten(member(expect, "attn_out"), &n);
    double *selected = flatten(member(expect, "selected"), &n_head),
           *share = flatten(member(expect, "portion"), &n_head);
    double *mass = flatten(member(expect, "summation"), &n_head);
    const int n_keys = n / n_head, n_prompt = n_keys - 1; /* the query's own key is no prompt position */
    struct var var = var_compile(input, n_prompt, number(input, "rho"), number(input, "summ"), number(input, "p"), "");
    var_check(&var, attn, 1, n_head, n_keys, n_prompt, out, selected);
    plan_free(var.plan);

    /* The sums that decide: a threshold just above or below each head's value parts the heads as they should be. */
    for (int h = 0; h < n_head; h++) {
        for (int above = 0; above < 2; above++) {
            const double by = above ? 1 + 2e-6 : 1 - 2e-6, reverse = above ? 1 - 2e-6 : 1 + 2e-6;
            double expected = above;
            struct var by_share = var_compile(input, n_prompt, share[h] * by, 0.0, 0.5, "");
            struct var by_mass = var_compile(input, n_prompt, 1.0, mass[h] * reverse, 0.5, "");
            const struct var *both[] = {&by_share, &by_mass};
            for (int k = 0; k < 2; k++) {
                struct attention_edit edit;
                assert_true(lab_edit(both[k]->plan, both[k]->edit, LAYER, n_prompt, &edit));
                float row[16], moved = 7;
                for (int j = 0; j < n_keys; j++) {
                    row[j] = (float)attn[h * n_keys + j];
                }
                const struct row_edits edits = {&edit, 1, &moved};
                attention_edit_probs(&(struct attention_row){.n_keys = n_keys, .edits = &edits}, 0, 0, 1, row, NULL);
                assert_true((moved >= 0.0f) == (expected != 0.0));
            }
            plan_free(by_share.plan);
            plan_free(by_mass.plan);
        }
    }
    free(attn);
    free(out);
    free(selected);
    free(share);
    free(mass);
}

static void var_no_visual_sink(void **state) {
    (void)state;
    const cJSON *v = vector_named("var", "var_no_visual_sink"), *input = member(v, "input");
    const cJSON *expect = member(v, "expect");
    int n, n_head;
    double *attn = flatten(member(input, "attn"), &n), *out = flatten(member(expect, "attn_out"), &n);
    double *selected = flatten(member(expect, "selected"), &n_head);
    const int n_keys = n / n_head;
    struct var var =
        var_compile(input, n_keys - 1, number(input, "rho"), number(input, "summ"), number(input, "p"), "");
    assert_false(var.edit->layers[LAYER]);
    var_check(&var, attn, 1, n_head, n_keys, n_keys - 1, out, selected);
    plan_free(var.plan);
    free(attn);
    free(out);
    free(selected);
}

static void var_prefill_queries(void **state) {
    (void)state;
    const cJSON *v = vector_named("var", "var_prefill_queries"), *input = member(v, "input");
    const cJSON *expect = member(v, "expect");
    const int n_head = cJSON_GetArraySize(member(input, "attn"));
    int n, n_changed;
    double *attn = flatten(member(input, "attn"), &n), *out = flatten(member(expect, "attn_out"), &n);
    double *changed = flatten(member(expect, "changed"), &n_changed);
    const int n_rows = n_changed / n_head, n_keys = n / n_changed;
    /* the vector has heads outside, rows inside */
    double rows[3][512];
    for (int h = 0; h < n_head; h++) {
        for (int r = 0; r < n_rows; r++) {
            for (int j = 0; j < n_keys; j++) {
                rows[0][(r * n_head + h) * n_keys + j] = attn[(h * n_rows + r) * n_keys + j];
                rows[1][(r * n_head + h) * n_keys + j] = out[(h * n_rows + r) * n_keys + j];
            }
            rows[2][r * n_head + h] = changed[h * n_rows + r];
        }
    }
    struct var var = var_compile(input, n_rows, number(input, "rho"), number(input, "summ"), number(input, "p"), "");
    var_check(&var, rows[0], n_rows, n_head, n_keys, 0, rows[1], rows[2]);
    plan_free(var.plan);
    free(attn);
    free(out);
    free(changed);
}

static void var_edge_p(void **state) {
    (void)state;
    const cJSON *v = vector_named("var", "var_edge_p"), *input = member(v, "input");
    int n;
    double *attn = flatten(member(input, "attn"), &n);
    for (int p = 0; p < 2; p++) {
        double *out = flatten(member(member(v, "expect"), p ? "p_1" : "p_0"), &n);
        struct var var = var_compile(input, n - 1, number(input, "rho"), number(input, "summ"), p, "");
        assert_true((var.edit == NULL) == (p == 1)); /* the identity is no step at all */
        var_check(&var, attn, 1, 1, n, n - 1, out, NULL);
        plan_free(var.plan);
        /* the same where p is the fraction that is taken away */
        var = var_compile(input, n - 1, number(input, "rho"), number(input, "summ"), 1 - p,
                          ", \"p_is_removed_fraction\": true");
        assert_true((var.edit == NULL) == (p == 1));
        var_check(&var, attn, 1, 1, n, n - 1, out, NULL);
        plan_free(var.plan);
        /* and as an edit that keeps all */
        var = var_compile(input, n - 1, number(input, "rho"), number(input, "summ"), 0.5, "");
        var.edit->edit.keep = (float)p;
        var_check(&var, attn, 1, 1, n, n - 1, out, (const double[]){1});
        plan_free(var.plan);
        free(out);
    }
    free(attn);
}

/* Bit for bit: every probability shown is the f16 number of the vector. */
static void var_fp16_rounding(void **state) {
    (void)state;
    const cJSON *v = vector_named("var", "var_fp16_rounding"), *input = member(v, "input");
    int n;
    double *attn = flatten(member(input, "attn_fp16"), &n);
    double *expected = flatten(member(member(v, "expect"), "attn_out_fp16"), &n);
    struct var var = var_compile(input, n - 1, 0.5, 0.2, number(input, "p"), ", \"rounding\": \"f16\"");
    struct attention_edit edit;
    float moved = -1, row[16], out[LAB_DIM];
    const struct row_edits edits = {&edit, 1, &moved};
    assert_true(lab_edit(var.plan, var.edit, LAYER, n - 1, &edit) && edit.round_f16);
    for (int j = 0; j < n; j++) {
        row[j] = (float)attn[j];
        assert_true((double)f16_to_f32(f32_to_f16(row[j])) == attn[j]);
    }
    attention_edit_probs(&(struct attention_row){.n_keys = n, .edits = &edits}, 0, 0, 1, row, NULL);
    for (int j = 0; j < n; j++) {
        assert_true((double)row[j] == expected[j]);
    }
    struct lab_probs p = lab_probs(attn, 1, 1, 1, n, NULL, 0);
    for (size_t i = 0; i < N_TESTED_BACKENDS * 2; i++) {
        struct backend *b = tested_backend_open(&tested_backends[i / 2]);
        lab_attend(b, i % 2, &(struct lab_attention){1, 1, LAB_DIM, n, 1.0f, p.k, p.v, p.q, 1, NULL, &edits}, out);
        for (int j = 0; j < n; j++) {
            assert_close((double)out[j], expected[j], 0.0, tested_backends[i / 2].name, j);
        }
        backend_destroy(b);
    }
    lab_probs_free(&p);
    plan_free(var.plan);
    free(attn);
    free(expected);
}

/* ---- VHR --------------------------------------------------------------------------------------- */

#define MOST 64

/* Tells the plan what its probe found in LAYER and returns the scale of that layer's heads. */
static const float *vhr_found(struct plan *plan, const float *with_image, const float *text_only) {
    struct plan_step *probe = lab_step(plan, PLAN_PROBE_HEADS), *scale = lab_step(plan, PLAN_SCALE_HEADS);
    assert_true(probe->layers[LAYER] && scale->layers[LAYER]);
    probe->decide(probe, &(struct probe_result){.layer = LAYER, .own = with_image, .other = text_only});
    return scale->table + (size_t)LAYER * (size_t)plan->n_head;
}

static void scale_and_check(const float *heads, int n, int n_head, const float *scale, const double *expected) {
    for (size_t i = 0; i < N_TESTED_BACKENDS; i++) {
        struct backend *b = tested_backend_open(&tested_backends[i]);
        float rows[3 * MOST], out[3 * MOST];
        for (int r = 0; r < 3; r++) { /* all query rows */
            memcpy(rows + r * n, heads, (size_t)n * sizeof *rows);
        }
        float *device = device_copy(b, rows, (size_t)(3 * n));
        b->ops->scale_heads(b, device, 3, n_head, n / n_head, scale);
        b->ops->download(b, out, device, (size_t)(3 * n) * sizeof *out);
        for (int k = 0; k < 3 * n; k++) {
            assert_close((double)out[k], expected[k % n], tolerance(expected[k % n]), tested_backends[i].name, k);
        }
        b->ops->release(b, device);
        backend_destroy(b);
    }
}

static void vhr_scale(void **state) {
    (void)state;
    const cJSON *v = vector_named("vhr", "vhr_scale"), *input = member(v, "input");
    float heads[MOST], found[MOST] = {0}, zeros[MOST] = {0};
    int n;
    flatten_floats(member(input, "heads_out"), heads, MOST, &n);
    double *expected = flatten(member(member(v, "expect"), "concat"), &n);
    const int n_head = cJSON_GetArraySize(member(input, "heads_out"));
    for (const cJSON *head = member(input, "selected")->child; head; head = head->next) {
        found[head->valueint * (n / n_head)] = 1.0f; /* these differ from the text-only run */
    }
    char json[128];
    snprintf(json, sizeof json, "{\"vhr\": {\"alpha\": %g, \"filter\": false, \"layers\": \"all\"}}",
             number(input, "alpha"));
    struct plan *plan = lab_vhr_plan(json, 32, n_head, n / n_head);
    scale_and_check(heads, n, n_head, vhr_found(plan, found, zeros), expected);
    assert_int_equal(lab_step(plan, PLAN_SCALE_HEADS)->rows, ROW_ALL);
    plan_free(plan);
    free(expected);
}

/* One query over the keys kept[0..n-1] of every head. */
static void one_layer(struct backend *b, bool f32, const cJSON *heads, const int *kept, int n, float *out) {
    const int n_head = cJSON_GetArraySize(heads);
    float k[MOST], v[MOST], q[MOST], part[MOST];
    int unused, h = 0;
    for (const cJSON *head = heads->child; head; head = head->next, h++) {
        flatten_floats(member(head, "q"), q + 2 * h, MOST, &unused);
        for (int value = 0; value < 2; value++) {
            flatten_floats(member(head, value ? "v" : "k"), part, MOST, &unused);
            for (int i = 0; i < n; i++) {
                memcpy((value ? v : k) + 2 * (i * n_head + h), part + 2 * kept[i], 2 * sizeof *part);
            }
        }
    }
    lab_attend(b, f32, &(struct lab_attention){n_head, n_head, 2, n, sqrtf(0.5f), k, v, q, 1, NULL, NULL}, out);
}

static void vhr_one_layer_end_to_end(void **state) {
    (void)state;
    const cJSON *v = vector_named("vhr", "vhr_one_layer_end_to_end"), *input = member(v, "input");
    const cJSON *expect = member(v, "expect"), *heads = member(input, "heads");
    int n, n_head = cJSON_GetArraySize(heads);
    double *with = flatten(member(expect, "out_with_image"), &n),
           *without = flatten(member(expect, "out_text_only"), &n);
    double *concat = flatten(member(expect, "concat"), &n);
    const int all[] = {0, 1, 2, 3, 4, 5}, text[] = {0, 1, 5};
    char json[128];
    snprintf(json, sizeof json, "{\"vhr\": {\"alpha\": %g, \"layers\": \"all\"}}", number(input, "alpha"));
    for (size_t i = 0; i < N_TESTED_BACKENDS * 2; i++) {
        struct backend *b = tested_backend_open(&tested_backends[i / 2]);
        float found[2][MOST];
        one_layer(b, i % 2, heads, all, 6, found[0]);
        one_layer(b, i % 2, heads, text, 3, found[1]);
        backend_destroy(b);
        for (int k = 0; k < n; k++) {
            assert_close((double)found[0][k], with[k], RELATIVE, "with image", k);
            assert_close((double)found[1][k], without[k], RELATIVE, "text only", k);
        }
        struct plan *plan = lab_vhr_plan(json, 32, n_head, 2);
        const float *scale = vhr_found(plan, found[0], found[1]);
        for (int h = 0; h < n_head; h++) {
            assert_true(scale[h] == (h == 1 || h == 2 ? 2.0f : 1.0f));
        }
        scale_and_check(found[0], n, n_head, scale, concat);
        plan_free(plan);
    }
    free(with);
    free(without);
    free(concat);
}

/* ---- VAR, then VHR ----------------------------------------------------------------------------- */

/* One head's output from three partial sums of any scale: sinks, the image's other tokens, the rest. */
static void three_sums(const cJSON *input, const double *attn, const double *values, double *out) {
    const int im = integer(input, "im"), pa = integer(input, "pa");
    double mass[3] = {0}, sum[3][2] = {{0}}, in_image = 0;
    for (int j = 0; j < 9; j++) {
        const double w = 7.25 * attn[j]; /* not normalised */
        const bool sink = j == 0 || j == 3, image = j >= im && j < im + pa;
        const int which = sink ? 0 : image ? 1 : 2;
        mass[which] += w;
        in_image += sink && image ? w : 0;
        sum[which][0] += w * values[2 * j];
        sum[which][1] += w * values[2 * j + 1];
    }
    const double l = mass[0] + mass[1] + mass[2], p = number(input, "p");
    const bool selected = in_image / (in_image + mass[1] + pa * 1e-6 * l) <= number(input, "rho") &&
                          (in_image + mass[1]) / l >= number(input, "summ");
    for (int d = 0; d < 2; d++) {
        out[d] = selected ? p * sum[0][d] + (1 + (1 - p) * mass[0] / mass[1]) * sum[1][d] + sum[2][d]
                          : sum[0][d] + sum[1][d] + sum[2][d];
        out[d] /= l;
    }
}

static void compose_var_then_vhr(void **state) {
    (void)state;
    const cJSON *v = vector_named("compose", "compose_var_then_vhr"), *input = member(v, "input");
    const cJSON *expect = member(v, "expect");
    int n;
    double *attn = flatten(member(input, "attn"), &n), *values = flatten(member(input, "values"), &n);
    double *plain = flatten(member(expect, "head_out_without_var"), &n);
    double *edited = flatten(member(expect, "head_out_with_var"), &n), *concat = flatten(member(expect, "concat"), &n);
    double *sums = flatten(member(expect, "head0_by_three_sums"), &n);
    struct var var = var_compile(input, 8, number(input, "rho"), number(input, "summ"), number(input, "p"),
                                 "}, \"vhr\": {\"alpha\": 2, \"filter\": false, \"layers\": \"all\"");
    float own[4 * LAB_DIM] = {0}, other[4 * LAB_DIM] = {0};
    own[LAB_DIM] = 1.0f; /* head 1 alone depends on the image */
    const float *scale = vhr_found(var.plan, own, other);
    struct attention_edit edit;
    float moved[2];
    const struct row_edits edits = {&edit, 1, moved};
    assert_true(lab_edit(var.plan, var.edit, LAYER, 8, &edit));
    struct lab_probs p = lab_probs(attn, 1, 2, 2, 9, values, 2);
    for (size_t i = 0; i < N_TESTED_BACKENDS * 4; i++) {
        struct backend *b = tested_backend_open(&tested_backends[i / 4]);
        float out[2 * LAB_DIM], two[4];
        const bool with_var = i % 2;
        lab_attend(b, i / 2 % 2,
                   &(struct lab_attention){2, 2, LAB_DIM, 9, 1.0f, p.k, p.v, p.q, 1, NULL, with_var ? &edits : NULL},
                   out);
        backend_destroy(b);
        for (int k = 0; k < 4; k++) {
            two[k] = out[k / 2 * LAB_DIM + k % 2];
            assert_close((double)two[k], (with_var ? edited : plain)[k], 1e-5, tested_backends[i / 4].name, k);
        }
        if (with_var) {
            double fused[4];
            three_sums(input, attn, values, fused);
            three_sums(input, attn + 9, values + 18, fused + 2);
            for (int k = 0; k < 4; k++) {
                assert_close(fused[k], edited[k], 1e-9, "three sums", k);
                assert_close((double)two[k], fused[k], 1e-5, "the edited attention and three sums", k);
            }
            assert_close(fused[0], sums[0], 1e-9, "three sums", 0);
            assert_close(fused[1], sums[1], 1e-9, "three sums", 1);
            scale_and_check(two, 4, 2, scale, concat);
        }
    }
    lab_probs_free(&p);
    plan_free(var.plan);
    double *all[] = {attn, values, plain, edited, concat, sums};
    for (int i = 0; i < 6; i++) {
        free(all[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(var_sink_phi),
        cmocka_unit_test(var_decode_one_query),
        cmocka_unit_test(var_no_visual_sink),
        cmocka_unit_test(var_prefill_queries),
        cmocka_unit_test(var_edge_p),
        cmocka_unit_test(var_fp16_rounding),
        cmocka_unit_test(vhr_scale),
        cmocka_unit_test(vhr_one_layer_end_to_end),
        cmocka_unit_test(compose_var_then_vhr),
    };
    return cmocka_run_group_tests(tests, vectors_open, vectors_close);
}
