/* What a host must not do is refused with a sentence that says what was expected, and harms nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "../support/plugin_scene.h"
#include "../support/refused.h"

/* Edits of scores, probabilities, head outputs and logits; no companions. */
#define FEW_METHODS                                                                                                    \
    "{\"act\": {\"layers\": \"all\", \"threshold\": 0.05}, \"pai\": {\"layers\": \"all\", \"gamma\": 1}, "             \
    "\"head_scale\": {\"heads\": [[0, 1], [1, 0], [2, 1]], \"scale\": 0.5}, \"dola\": true, "                          \
    "\"vista\": {\"lambda\": 0, \"sla_layers\": \"0-1\"}}"

/* ---- order ------------------------------------------------------------------------------------- */

static void sites_come_in_their_order(void **state) {
    (void)state;
    struct scene s;
    open_scene(&s, FEW_METHODS);
    WRONG(candid_pass_at(s.pass, CANDID_SITE_HEAD_OUTPUT, 0, &s.rows, error), "no pass has begun");
    WRONG(candid_pass_logits(s.pass, &s.vocab, &s.before, error), "no pass has begun");
    WRONG(candid_pass_end(s.pass, error), "no pass has begun");

    run_up_to(&s, CANDID_SITE_MLP_OUTPUT, 1);
    WRONG(candid_pass_at(s.pass, CANDID_SITE_HEAD_OUTPUT, 1, &s.rows, error), "head_output of layer 1"); /* again */
    run_up_to(&s, CANDID_SITE_MLP_OUTPUT, 1);
    WRONG(candid_pass_at(s.pass, CANDID_SITE_HEAD_OUTPUT, 0, &s.rows, error), "head_output of layer 0"); /* back */
    run_up_to(&s, CANDID_SITE_ATTENTION_PROBS, 1);
    WRONG(candid_pass_at(s.pass, CANDID_SITE_ATTENTION_SCORES, 1, &s.keys, error), "attention.scores of layer 1");
    run_up_to(&s, CANDID_SITE_ATTENTION_SCORES, 1);
    WRONG(candid_pass_at(s.pass, CANDID_SITE_ATTENTION_PROBS, 1, &s.keys, error), "scores"); /* left out */
    static const struct {
        int site, layer;
    } nowhere[] = {{0, -1}, {0, LAB_LAYERS}, {5, 1 << 30}, {6, 0}, {6, LAB_LAYERS + 1},
                   {7, 0},  {8, 0},          {-1, 0},      {99, 1}};
    for (size_t i = 0; i < sizeof nowhere / sizeof *nowhere; i++) {
        run_up_to(&s, CANDID_SITE_BLOCK_INPUT, 0);
        WRONG(candid_pass_at(s.pass, (candid_site)nowhere[i].site, nowhere[i].layer, &s.rows, error), "site");
    }
    run_up_to(&s, CANDID_SITE_LOGITS, LAB_LAYERS);
    WRONG(candid_pass_at(s.pass, CANDID_SITE_LOGITS, LAB_LAYERS, &s.vocab, error), "candid_pass_logits");

    /* a failed pass is over */
    WRONG(candid_pass_at(s.pass, CANDID_SITE_BLOCK_INPUT, 0, &s.rows, error), "failed");
    WRONG(candid_pass_end(s.pass, error), "failed");
    run_whole(&s);
    close_scene(&s);
}

static void a_pass_may_be_used_after_a_failure(void **state) {
    (void)state;
    struct scene s, fresh;
    open_scene(&s, FEW_METHODS);
    open_scene(&fresh, FEW_METHODS);
    run_whole(&fresh);
    for (int layer = 0; layer < LAB_LAYERS; layer++) {
        for (int site = 0; site < CANDID_SITE_FINAL_NORM; site++) {
            run_up_to(&s, (candid_site)site, layer);
            WRONG(candid_pass_at(s.pass, CANDID_SITE_COUNT, layer, &s.rows, error), "site");
        }
    }
    run_whole(&s);
    assert_memory_equal(s.attention, fresh.attention, sizeof s.attention);
    assert_memory_equal(s.hidden, fresh.hidden, sizeof s.hidden);
    assert_memory_equal(s.logits, fresh.logits, sizeof s.logits);
    close_scene(&s);
    close_scene(&fresh);
}

/* Everything but one site. */
static void run_without(struct scene *s, int site, int layer) {
    fill_scene(s);
    OK(candid_pass_begin(s->pass, &s->segment, 1, error));
    for (int l = 0; l < LAB_LAYERS; l++) {
        for (int i = 0; i < CANDID_SITE_FINAL_NORM; i++) {
            if (l != layer || i != site) {
                OK(candid_pass_at(s->pass, (candid_site)i, l, view_at(s, (candid_site)i), error));
            }
        }
    }
    if (site != CANDID_SITE_FINAL_NORM || layer != LAB_LAYERS) {
        OK(candid_pass_at(s->pass, CANDID_SITE_FINAL_NORM, LAB_LAYERS, &s->rows, error));
    }
    if (site != CANDID_SITE_LOGITS) {
        OK(candid_pass_logits(s->pass, &s->vocab, &s->before, error));
    }
}

static void a_forgotten_site_is_told(void **state) {
    (void)state;
    struct scene s;
    open_scene(&s, FEW_METHODS);
    int n_wanted = 0;
    for (int site = 0; site < CANDID_SITE_COUNT; site++) {
        uint8_t wanted[LAB_LAYERS + 1];
        int left = candid_sequence_wants(s.sequence, CANDID_ROLE_MAIN, (candid_site)site, CANDID_ROWS_PROMPT, wanted);
        for (int l = 0; l <= LAB_LAYERS; l++) {
            left -= wanted[l];
            if (site == CANDID_SITE_ATTENTION_SCORES || (site == CANDID_SITE_LOGITS && l < LAB_LAYERS)) {
                continue; /* without scores the next site is refused; early logits come with the others */
            }
            run_without(&s, site, l);
            if (wanted[l]) {
                WRONG(candid_pass_end(s.pass, error), "was not shown");
                n_wanted++;
            } else {
                OK(candid_pass_end(s.pass, error));
            }
        }
        assert_int_equal(left, 0);
    }
    assert_true(n_wanted > 6);
    close_scene(&s);
}

/* ---- views ------------------------------------------------------------------------------------- */

/* A view that differs from a good one is refused where it is shown. */
static void refuse_view(struct scene *s, candid_site site, const candid_view *bad, candid_status status,
                        const char *text) {
    const int layer = site < CANDID_SITE_FINAL_NORM ? 1 : LAB_LAYERS;
    run_up_to(s, site, layer);
    if (site == CANDID_SITE_LOGITS) {
        REFUSED(candid_pass_logits(s->pass, bad, &s->before, error), status, text);
    } else {
        REFUSED(candid_pass_at(s->pass, site, layer, bad, error), status, text);
    }
}

static const candid_view *good_view(const struct scene *s, candid_site site) {
    return site == CANDID_SITE_LOGITS ? &s->vocab : view_at(s, site);
}

static void views_are_checked(void **state) {
    (void)state;
    static const candid_site sites[] = {CANDID_SITE_ATTENTION_SCORES, CANDID_SITE_ATTENTION_PROBS,
                                        CANDID_SITE_HEAD_OUTPUT,      CANDID_SITE_BLOCK_OUTPUT,
                                        CANDID_SITE_FINAL_NORM,       CANDID_SITE_LOGITS};
    struct scene s;
    open_scene(&s, FEW_METHODS);
    for (size_t i = 0; i < sizeof sites / sizeof *sites; i++) {
        const candid_site site = sites[i];
        const candid_view good = *good_view(&s, site);
        candid_view bad;
        refuse_view(&s, site, NULL, CANDID_ERROR_ARGUMENT, "NULL");
        static const int dims[] = {0, 1, 2, 5, -1, 1 << 30};
        for (size_t k = 0; k < sizeof dims / sizeof *dims; k++) {
            bad = good;
            bad.n_dims = dims[k];
            refuse_view(&s, site, &bad, CANDID_ERROR_ARGUMENT, "dimensions");
        }
        bad = good;
        bad.data = NULL;
        refuse_view(&s, site, &bad, CANDID_ERROR_ARGUMENT, "NULL");
        bad.data = (char *)good.data + 1;
        refuse_view(&s, site, &bad, CANDID_ERROR_ARGUMENT, "aligned");
        bad = good;
        bad.dtype = (candid_dtype)3;
        refuse_view(&s, site, &bad, CANDID_ERROR_ARGUMENT, "dtype");
        bad = good;
        bad.space = CANDID_SPACE_CUDA;
        refuse_view(&s, site, &bad, CANDID_ERROR_UNSUPPORTED, "CUDA");
        bad.space = (candid_space)2;
        refuse_view(&s, site, &bad, CANDID_ERROR_ARGUMENT, "space");
        for (int d = 0; d < good.n_dims; d++) {
            static const int64_t sizes[] = {0, -1, INT64_MIN, INT64_MAX, (int64_t)1 << 31};
            for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
                bad = good;
                bad.shape[d] = sizes[k];
                refuse_view(&s, site, &bad, CANDID_ERROR_ARGUMENT, "expected");
            }
            if (good.shape[d] > 1) {
                bad = good;
                bad.shape[d] -= 1;
                if (site < CANDID_SITE_MLP_OUTPUT || d == good.n_dims - 1) { /* rows may be the last ones alone */
                    refuse_view(&s, site, &bad, CANDID_ERROR_ARGUMENT, "expected");
                }
                static const int64_t strides[] = {0, -1, INT64_MIN, INT64_MAX};
                for (size_t k = 0; k < sizeof strides / sizeof *strides; k++) {
                    bad = good;
                    bad.strides[d] = strides[k];
                    refuse_view(&s, site, &bad, CANDID_ERROR_ARGUMENT, "stride");
                }
            }
        }
        bad = good; /* rows that lie over each other */
        bad.strides[good.n_dims - 2] = good.strides[good.n_dims - 1];
        refuse_view(&s, site, &bad, CANDID_ERROR_ARGUMENT, "overlap");
        static const size_t struct_sizes[] = {0, 1, 7, (size_t)-1, 1 << 20};
        for (size_t k = 0; k < sizeof struct_sizes / sizeof *struct_sizes; k++) {
            bad = good;
            bad.struct_size = struct_sizes[k];
            refuse_view(&s, site, &bad, CANDID_ERROR_ARGUMENT, "struct_size");
        }
        bad = good;
        bad.struct_size = sizeof bad.struct_size; /* all other fields are the host's no more */
        refuse_view(&s, site, &bad, CANDID_ERROR_ARGUMENT, "expected");
    }
    close_scene(&s);
}

/* A struct of a later header, with fields that this library does not know. */
static void larger_structs_are_taken(void **state) {
    (void)state;
    struct scene s;
    open_scene(&s, FEW_METHODS);
    struct {
        candid_view view;
        char more[24];
    } view = {.view = s.keys};
    struct {
        candid_segment segment;
        char more[40];
    } segments[2];
    memset(segments, 0xff, sizeof segments);
    memset(view.more, 0xff, sizeof view.more);
    view.view.struct_size = sizeof view;
    for (int i = 0; i < 2; i++) {
        segments[i].segment = s.segment;
        segments[i].segment.struct_size = sizeof *segments;
    }
    segments[1].segment.sequence = NULL;
    segments[1].segment.batch = 1;
    OK(candid_pass_begin(s.pass, &segments[0].segment, 1, error));
    OK(candid_pass_at(s.pass, CANDID_SITE_ATTENTION_SCORES, 0, &view.view, error));
    OK(candid_pass_begin(s.pass, &segments[0].segment, 2, error));
    struct {
        candid_run run;
        char more[16];
    } run = {.run = {.struct_size = sizeof run}};
    memset(run.more, 0x5a, sizeof run.more);
    OK(candid_sequence_run(s.sequence, &run.run, error));
    assert_int_equal(run.run.struct_size, sizeof run);
    assert_int_equal(run.run.n_early, s.run.n_early);
    for (size_t i = 0; i < sizeof run.more; i++) { /* what it does not know it leaves */
        assert_int_equal(run.more[i], 0x5a);
    }
    candid_run small = {.struct_size = offsetof(candid_run, companions), .companions = 77, .n_early = 78};
    OK(candid_sequence_run(s.sequence, &small, error));
    assert_true(small.companions == 77 && small.n_early == 78);
    close_scene(&s);
}

static void what_is_no_number_is_told(void **state) {
    (void)state;
    static const candid_site sites[] = {CANDID_SITE_ATTENTION_SCORES, CANDID_SITE_ATTENTION_PROBS,
                                        CANDID_SITE_HEAD_OUTPUT,      CANDID_SITE_BLOCK_OUTPUT,
                                        CANDID_SITE_FINAL_NORM,       CANDID_SITE_LOGITS};
    struct scene s;
    open_scene(&s, FEW_METHODS);
    for (size_t i = 0; i < sizeof sites / sizeof *sites; i++) {
        const candid_view *v = good_view(&s, sites[i]);
        const int layer = sites[i] < CANDID_SITE_FINAL_NORM ? 1 : LAB_LAYERS;
        run_up_to(&s, sites[i], layer);
        ((float *)v->data)[(N_PROMPT - 1) * v->strides[v->n_dims - 2]] = NAN; /* in the last row, which all edit */
        if (sites[i] == CANDID_SITE_LOGITS) {
            WRONG(candid_pass_logits(s.pass, v, &s.before, error), "no number");
        } else {
            WRONG(candid_pass_at(s.pass, sites[i], layer, v, error), "no number");
        }
    }
    run_up_to(&s, CANDID_SITE_LOGITS, LAB_LAYERS);
    s.early[(N_PROMPT - 1) * s.before.strides[1]] = NAN;
    WRONG(candid_pass_logits(s.pass, &s.vocab, &s.before, error), "no number");
    run_up_to(&s, CANDID_SITE_LOGITS, LAB_LAYERS);
    WRONG(candid_pass_logits(s.pass, &s.vocab, NULL, error), "early");
    run_up_to(&s, CANDID_SITE_LOGITS, LAB_LAYERS);
    s.before.shape[2]--;
    WRONG(candid_pass_logits(s.pass, &s.vocab, &s.before, error), "early");
    close_scene(&s);
}

/* ---- segments ---------------------------------------------------------------------------------- */

static void segments_are_checked(void **state) {
    (void)state;
    struct scene s, other;
    open_scene(&s, FEW_METHODS);
    open_scene(&other, "{\"vhr\": {\"layers\": \"all\"}}");
    candid_segment bad[2];
    WRONG(candid_pass_begin(NULL, &s.segment, 1, error), "NULL");
    WRONG(candid_pass_begin(s.pass, NULL, 1, error), "segments");
    WRONG(candid_pass_begin(s.pass, &s.segment, 0, error), "segments");
    WRONG(candid_pass_begin(s.pass, &s.segment, (size_t)1 << 40, error), "segments");
    static const struct {
        size_t offset;
        const char *name;
        int32_t value;
    } fields[] = {
        {offsetof(candid_segment, batch), "batch", -1},
        {offsetof(candid_segment, first_row), "first_row", -1},
        {offsetof(candid_segment, n_rows), "n_rows", 0},
        {offsetof(candid_segment, n_rows), "n_rows", -5},
        {offsetof(candid_segment, n_rows), "n_rows", INT32_MAX},
        {offsetof(candid_segment, first_index), "first_index", -1},
        {offsetof(candid_segment, first_index), "first_index", INT32_MAX},
        {offsetof(candid_segment, n_keys), "n_keys", N_PROMPT - 1},
        {offsetof(candid_segment, n_keys), "n_keys", INT32_MAX},
        {offsetof(candid_segment, n_keys), "n_keys", INT32_MIN},
        {offsetof(candid_segment, key_offset), "key_offset", -1},
        {offsetof(candid_segment, role), "role", 3},
        {offsetof(candid_segment, role), "role", -1},
        {offsetof(candid_segment, role), "companion", CANDID_ROLE_PLAIN},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        bad[0] = s.segment;
        memcpy((char *)&bad[0] + fields[i].offset, &fields[i].value, sizeof fields[i].value);
        WRONG(candid_pass_begin(s.pass, bad, 1, error), fields[i].name);
        WRONG(candid_pass_at(s.pass, CANDID_SITE_BLOCK_INPUT, 0, &s.rows, error), "no pass has begun");
    }
    bad[0] = s.segment;
    bad[0].struct_size = 4;
    WRONG(candid_pass_begin(s.pass, bad, 1, error), "struct_size");

    /* rows in common */
    candid_sequence *second = lab_sequence(s.task, 2, 3);
    bad[0] = bad[1] = s.segment;
    bad[1].sequence = second;
    WRONG(candid_pass_begin(s.pass, bad, 2, error), "rows in common");
    bad[1].first_row = N_PROMPT - 1;
    WRONG(candid_pass_begin(s.pass, bad, 2, error), "rows in common");
    bad[1].first_row = N_PROMPT;
    OK(candid_pass_begin(s.pass, bad, 2, error));
    bad[1].first_row = 0;
    bad[1].batch = 1;
    OK(candid_pass_begin(s.pass, bad, 2, error));
    candid_sequence_free(second);

    /* columns */
    int32_t columns[N_PROMPT];
    for (int i = 0; i < N_PROMPT; i++) {
        columns[i] = N_PROMPT - 1 - i;
    }
    bad[0] = s.segment;
    bad[0].key_columns = columns;
    OK(candid_pass_begin(s.pass, bad, 1, error));
    columns[3] = columns[0];
    WRONG(candid_pass_begin(s.pass, bad, 1, error), "twice");
    columns[3] = -1;
    WRONG(candid_pass_begin(s.pass, bad, 1, error), "key_columns[3]");
    columns[3] = INT32_MAX;
    WRONG(candid_pass_begin(s.pass, bad, 1, error), "key_columns[3]");
    columns[3] = N_PROMPT; /* beyond the view */
    OK(candid_pass_begin(s.pass, bad, 1, error));
    WRONG(candid_pass_at(s.pass, CANDID_SITE_ATTENTION_SCORES, 0, &s.keys, error), "column");

    /* places beyond the views */
    bad[0] = s.segment;
    bad[0].key_offset = 1;
    OK(candid_pass_begin(s.pass, bad, 1, error));
    WRONG(candid_pass_at(s.pass, CANDID_SITE_ATTENTION_SCORES, 0, &s.keys, error), "column");
    bad[0] = s.segment;
    bad[0].first_row = 1;
    OK(candid_pass_begin(s.pass, bad, 1, error));
    WRONG(candid_pass_at(s.pass, CANDID_SITE_ATTENTION_SCORES, 0, &s.keys, error), "rows");
    bad[0] = s.segment;
    bad[0].batch = 1;
    OK(candid_pass_begin(s.pass, bad, 1, error));
    WRONG(candid_pass_at(s.pass, CANDID_SITE_ATTENTION_SCORES, 0, &s.keys, error), "batch");
    OK(candid_pass_begin(s.pass, bad, 1, error));
    WRONG(candid_pass_at(s.pass, CANDID_SITE_HEAD_OUTPUT, 0, &s.rows, error), "batch");

    /* another plugin's sequence; a prompt in parts, or without what must run before it */
    WRONG(candid_pass_begin(s.pass, &other.segment, 1, error), "another plugin");
    WRONG(candid_pass_begin(other.pass, &other.segment, 1, error), "companion");
    bad[0] = other.segment;
    bad[0].n_rows = bad[0].n_keys = N_PROMPT - 1;
    WRONG(candid_pass_begin(other.pass, bad, 1, error), "one pass");
    bad[0] = other.segment;
    bad[0].role = CANDID_ROLE_TEXT_ONLY;
    WRONG(candid_pass_begin(other.pass, bad, 1, error), "companion"); /* has fewer rows */
    close_scene(&s);
    close_scene(&other);
}

/* Rows of a prompt stand once in a pass, in their order. */
static void prompts_are_not_given_twice(void **state) {
    (void)state;
    struct scene s;
    candid_segment parts[2];
    open_scene(&s, "{\"var\": {\"sink_dims\": [1], \"tau\": 1.2, \"layers\": \"all\", \"summ\": 0, \"rho\": 1}}");
    parts[0] = parts[1] = s.segment;
    parts[1].batch = 1;
    WRONG(candid_pass_begin(s.pass, parts, 2, error), "follow each other");
    parts[0].n_rows = 4;
    parts[1].first_index = 5;
    parts[1].n_rows = N_PROMPT - 5;
    WRONG(candid_pass_begin(s.pass, parts, 2, error), "follow each other");
    parts[1].first_index = 4;
    parts[1].n_rows = N_PROMPT - 4;
    OK(candid_pass_begin(s.pass, parts, 2, error));
    run_whole(&s);
    parts[0].first_index = parts[1].first_index = N_PROMPT; /* beams */
    parts[0].n_rows = parts[1].n_rows = 1;
    parts[0].n_keys = parts[1].n_keys = N_PROMPT + 1;
    OK(candid_pass_begin(s.pass, parts, 2, error));
    close_scene(&s);
}

/* ---- hosts ------------------------------------------------------------------------------------- */

static void hosts_are_checked(void **state) {
    (void)state;
    candid_plugin *plugin = NULL;
    const candid_host good = lab_host();
    WRONG(candid_plugin_create(NULL, NULL, &plugin, error), "NULL");
    WRONG(candid_plugin_create(&good, NULL, NULL, error), "NULL");
    static const struct {
        size_t offset;
        const char *name;
        int32_t values[4];
    } fields[] = {
        {offsetof(candid_host, n_layer), "n_layer", {0, -1, INT32_MIN, INT32_MAX}},
        {offsetof(candid_host, n_head), "n_head", {0, -1, INT32_MIN, INT32_MAX}},
        {offsetof(candid_host, n_head_kv), "n_head_kv", {0, -1, LAB_HEADS + 1, INT32_MAX}},
        {offsetof(candid_host, head_dim), "head_dim", {0, -1, INT32_MIN, INT32_MAX}},
        {offsetof(candid_host, n_embd), "n_embd", {0, -1, INT32_MIN, INT32_MAX}},
        {offsetof(candid_host, n_vocab), "n_vocab", {0, -1, INT32_MIN, INT32_MAX}},
        {offsetof(candid_host, n_vision_blocks), "n_vision_blocks", {-1, -7, INT32_MIN, INT32_MAX}},
        {offsetof(candid_host, n_threads), "n_threads", {0, -1, INT32_MIN, INT32_MAX}},
        {offsetof(candid_host, struct_size), "struct_size", {0, 0, 4, 7}},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        for (int k = 0; k < 4; k++) {
            candid_host bad = good;
            memcpy((char *)&bad + fields[i].offset, &fields[i].values[k], sizeof(int32_t));
            WRONG(candid_plugin_create(&bad, NULL, &plugin, error), fields[i].name);
            char *text = NULL;
            WRONG(candid_host_capabilities(&bad, NULL, &text, error), fields[i].name);
            assert_null(text);
        }
    }
    candid_host bad = good;
    bad.n_head = 4;
    bad.n_head_kv = 3;
    WRONG(candid_plugin_create(&bad, NULL, &plugin, error), "groups");
    bad = good;
    bad.score_scale = NAN;
    WRONG(candid_plugin_create(&bad, NULL, &plugin, error), "score_scale");
    bad.score_scale = -1;
    WRONG(candid_plugin_create(&bad, NULL, &plugin, error), "score_scale");
    assert_null(plugin);

    /* what decides on tokens is the host's own */
    static const char *const own[] = {"{\"decode\": {\"temperature\": 0.7}}", "{\"decode\": {\"strategy\": \"beam\"}}",
                                      "{\"decode\": {\"repetition_penalty\": 1.2}}"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        candid_config *config = lab_config(own[i]);
        REFUSED(candid_plugin_create(&good, config, &plugin, error), CANDID_ERROR_UNSUPPORTED, "lab");
        candid_config_free(config);
    }
    candid_plugin_free(NULL);
    candid_task_free(NULL);
    candid_sequence_free(NULL);
    candid_pass_free(NULL);
    candid_search_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sites_come_in_their_order), cmocka_unit_test(a_pass_may_be_used_after_a_failure),
        cmocka_unit_test(a_forgotten_site_is_told),  cmocka_unit_test(views_are_checked),
        cmocka_unit_test(larger_structs_are_taken),  cmocka_unit_test(what_is_no_number_is_told),
        cmocka_unit_test(segments_are_checked),      cmocka_unit_test(prompts_are_not_given_twice),
        cmocka_unit_test(hosts_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
