/* Tasks, branches, sequences and searches of a host that gets something wrong; and what a host is told it can run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "../support/plugin_lab.h"
#include "../support/refused.h"
#include "interventions/method.h"

static candid_view view_of(float *data, int n_dims, const int64_t *shape) {
    candid_view v = {.struct_size = sizeof v, .data = data, .n_dims = n_dims};
    for (int64_t i = n_dims - 1, stride = 1; i >= 0; stride *= shape[i--]) {
        v.shape[i] = shape[i];
        v.strides[i] = stride;
    }
    return v;
}

static candid_plugin *plugin_with(candid_config **config, const char *json) {
    candid_host host = lab_host();
    candid_plugin *plugin = NULL;
    host.n_vision_blocks = 3;
    *config = lab_config(json);
    OK(candid_plugin_create(&host, *config, &plugin, error));
    return plugin;
}

static candid_task *task_of(const candid_plugin *plugin) {
    candid_task *task = NULL;
    OK(candid_task_create(plugin, "What is it?", 1, &task, error));
    return task;
}

/* ---- capabilities ------------------------------------------------------------------------------ */

static const char *const ability_names[] = {
    "block_input", "attention.scores", "attention.probs", "head_output",   "mlp_output", "block_output",
    "final_norm",  "logits",           "early_logits",    "positions",     "mask",       "companions",
    "branches",    "vision.attention", "pixels",          "visual_tokens", "candidates",
};
enum { N_ABILITIES = sizeof ability_names / sizeof *ability_names };

/* Whether a plugin with the method's defaults can be made. */
static candid_status try_method(const candid_host *host, const char *name, candid_error *error) {
    char json[80];
    snprintf(json, sizeof json, "{\"%s\": true}", name);
    candid_config *config = lab_config(json);
    candid_plugin *plugin = NULL;
    const candid_status status = candid_plugin_create(host, config, &plugin, error);
    candid_plugin_free(plugin);
    candid_config_free(config);
    return status;
}

static cJSON *capabilities_of(const candid_host *host) {
    char *text = NULL;
    OK(candid_host_capabilities(host, NULL, &text, error));
    cJSON *all = cJSON_Parse(text);
    assert_non_null(all);
    candid_string_free(text);
    return all;
}

/* What a host is told is what happens: without any ability that a method needs it is refused, without another it is
 * not. */
static void a_host_is_told_what_it_can_run(void **state) {
    (void)state;
    candid_host host = lab_host();
    host.model = "candid-demo"; /* sinks of this one are known */
    host.n_embd = 192;
    host.n_vision_blocks = 3;
    cJSON *full = capabilities_of(&host);
    int n_run = 0, n_not = 0;
    for (const struct method *const *m = methods; *m; m++) {
        const cJSON *one = cJSON_GetObjectItemCaseSensitive(full, (*m)->name);
        if (strcmp((*m)->name, "decode") == 0) {
            assert_null(one);
            continue;
        }
        assert_non_null(one);
        candid_error error = {CANDID_OK, ""};
        const bool runs = cJSON_IsTrue(cJSON_GetObjectItem(one, "runs"));
        assert_int_equal(runs, try_method(&host, (*m)->name, &error) == CANDID_OK);
        n_run += runs;
        if (!runs) {
            assert_true(strlen(cJSON_GetStringValue(cJSON_GetObjectItem(one, "why"))) > 10);
            n_not++;
            continue;
        }
        bool needed[N_ABILITIES] = {false};
        const cJSON *name;
        cJSON_ArrayForEach(name, cJSON_GetObjectItem(one, "needs")) {
            int i = 0;
            while (i < N_ABILITIES && strcmp(ability_names[i], name->valuestring) != 0) {
                i++;
            }
            if (i == N_ABILITIES) {
                fail_msg("%s needs \"%s\", which is no ability", (*m)->name, name->valuestring);
            }
            needed[i] = true;
        }
        for (int i = 0; i < N_ABILITIES; i++) {
            candid_host less = host;
            less.abilities &= ~(1u << i);
            const candid_status status = try_method(&less, (*m)->name, &error);
            if (status != (needed[i] ? CANDID_ERROR_UNSUPPORTED : CANDID_OK)) {
                fail_msg("%s without %s: status %d, %s", (*m)->name, ability_names[i], (int)status, error.message);
            }
            cJSON *told = capabilities_of(&less);
            const cJSON *same = cJSON_GetObjectItemCaseSensitive(told, (*m)->name);
            assert_int_equal(cJSON_IsTrue(cJSON_GetObjectItem(same, "runs")), !needed[i]);
            if (needed[i]) {
                assert_non_null(strstr(error.message, ability_names[i]));
                assert_non_null(strstr(cJSON_GetStringValue(cJSON_GetObjectItem(same, "why")), ability_names[i]));
            }
            cJSON_Delete(told);
        }
    }
    assert_true(n_run >= 14);
    print_message("%d methods run in a host that can do everything, %d do not\n", n_run, n_not);
    cJSON_Delete(full);
}

/* Bits that this version does not know give a host nothing. */
static void unknown_abilities_mean_nothing(void **state) {
    (void)state;
    candid_host host = lab_host();
    candid_error error = {CANDID_OK, ""};
    host.n_vision_blocks = 3;
    host.abilities = UINT32_MAX;
    assert_int_equal(try_method(&host, "agla", &error), CANDID_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "candid's own runtime"));
    assert_int_equal(try_method(&host, "vcd", &error), CANDID_OK);
}

/* ---- tasks ------------------------------------------------------------------------------------- */

static void tasks_are_checked(void **state) {
    (void)state;
    candid_config *config = NULL;
    candid_plugin *plugin = plugin_with(&config, "{\"vcd\": true, \"damro\": {\"tokens\": 2}}");
    candid_task *task = NULL;
    WRONG(candid_task_create(NULL, "x", 1, &task, error), "plugin");
    WRONG(candid_task_create(plugin, NULL, 1, &task, error), "request");
    WRONG(candid_task_create(plugin, "x", 1, NULL, error), "out");
    WRONG(candid_task_create(plugin, "x", (size_t)1 << 60, &task, error), "images");
    WRONG(candid_task_create(plugin, "x", 0, &task, error), "image"); /* a noised image needs one */
    assert_null(task);
    assert_null(candid_task_request(NULL));
    task = task_of(plugin);

    candid_needs needs = {.struct_size = 3};
    WRONG(candid_task_needs(task, &needs, error), "struct_size");
    WRONG(candid_task_needs(NULL, &needs, error), "NULL");
    WRONG(candid_task_needs(task, NULL, error), "NULL");
    needs.struct_size = sizeof needs;
    OK(candid_task_needs(task, &needs, error));
    assert_int_equal(needs.n_branches, 2);

    static const int32_t nowhere[] = {-1, -2, 2, INT32_MAX, INT32_MIN};
    candid_branch branch = {.struct_size = sizeof branch};
    for (size_t i = 0; i < sizeof nowhere / sizeof *nowhere; i++) {
        WRONG(candid_task_branch(task, nowhere[i], &branch, error), "expected a branch from 0 to 1");
        assert_false(candid_task_needs_branch(task, nowhere[i], 0));
    }
    assert_false(candid_task_needs_branch(NULL, 0, 0));
    assert_false(candid_task_needs_branch(task, 0, -1));
    WRONG(candid_task_branch(NULL, 0, &branch, error), "NULL");
    WRONG(candid_task_branch(task, 0, NULL, error), "NULL");
    int noise = -1, chosen = -1;
    for (int i = 0; i < 2; i++) {
        OK(candid_task_branch(task, i, &branch, error));
        noise = branch.sight == CANDID_SIGHT_NOISE ? i : noise;
        chosen = branch.sight == CANDID_SIGHT_CHOSEN ? i : chosen;
    }
    assert_true(noise >= 0 && chosen >= 0);

    float pixels[3 * 4 * 4] = {0}, q[5] = {1}, k[7 * 5] = {0};
    candid_view image = view_of(pixels, 3, (int64_t[]){3, 4, 4}), bad = image;
    OK(candid_task_noise(task, noise, 0, 0, &image, error));
    WRONG(candid_task_noise(task, chosen, 0, 0, &image, error), "otherwise");
    WRONG(candid_task_noise(task, noise, 1, 0, &image, error), "image");
    WRONG(candid_task_noise(task, noise, -1, 0, &image, error), "image");
    WRONG(candid_task_noise(task, noise, 0, -1, &image, error), "view");
    WRONG(candid_task_noise(task, noise, 0, 0, NULL, error), "NULL");
    bad.shape[0] = 2;
    WRONG(candid_task_noise(task, noise, 0, 0, &bad, error), "3 channels");
    pixels[5] = NAN;
    WRONG(candid_task_noise(task, noise, 0, 0, &image, error), "no number");

    int32_t index[2], n = 0;
    candid_view of_cls = view_of(q, 1, (int64_t[]){5}), keys = view_of(k, 2, (int64_t[]){7, 5});
    OK(candid_task_choose(task, chosen, &of_cls, &keys, index, &n, error));
    assert_true(n == 2 && index[0] == 0 && index[1] == 1); /* all alike */
    WRONG(candid_task_choose(task, noise, &of_cls, &keys, index, &n, error), "otherwise");
    WRONG(candid_task_choose(task, chosen, NULL, &keys, index, &n, error), "NULL");
    WRONG(candid_task_choose(task, chosen, &of_cls, NULL, index, &n, error), "NULL");
    WRONG(candid_task_choose(task, chosen, &of_cls, &keys, NULL, &n, error), "NULL");
    WRONG(candid_task_choose(task, chosen, &of_cls, &keys, index, NULL, error), "NULL");
    bad = of_cls;
    bad.shape[0] = 4;
    WRONG(candid_task_choose(task, chosen, &bad, &keys, index, &n, error), "expected");
    bad = keys;
    bad.shape[0] = 1; /* the class token alone */
    WRONG(candid_task_choose(task, chosen, &of_cls, &bad, index, &n, error), "class token");
    k[9] = NAN;
    WRONG(candid_task_choose(task, chosen, &of_cls, &keys, index, &n, error), "no number");

    int32_t cells[16], positions[16], n_positions = 0;
    OK(candid_task_place(task, 4, 4, cells, positions, &n_positions, error));
    assert_int_equal(n_positions, 16);
    static const int32_t grids[][2] = {{0, 1}, {1, 0}, {-1, 4}, {4, INT32_MIN}, {INT32_MAX, INT32_MAX}, {1 << 20, 1}};
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
        WRONG(candid_task_place(task, grids[i][0], grids[i][1], cells, positions, &n_positions, error), "grid");
    }
    WRONG(candid_task_place(NULL, 4, 4, cells, positions, &n_positions, error), "NULL");
    WRONG(candid_task_place(task, 4, 4, NULL, positions, &n_positions, error), "NULL");
    candid_task_free(task);
    candid_plugin_free(plugin);
    candid_config_free(config);
}

static void contrasts_are_checked(void **state) {
    (void)state;
    candid_config *config = NULL;
    candid_plugin *plugin = plugin_with(&config, "{\"vcd\": {\"first_token_only\": true}, \"icd\": true}");
    candid_task *task = task_of(plugin);
    float logits[3][2 * LAB_VOCAB];
    for (int i = 0; i < 3 * 2 * LAB_VOCAB; i++) {
        logits[i / (2 * LAB_VOCAB)][i % (2 * LAB_VOCAB)] = (float)(i * 7 % 11);
    }
    candid_view main = view_of(logits[0], 2, (int64_t[]){2, LAB_VOCAB}), branches[2], bad;
    branches[0] = view_of(logits[1], 2, (int64_t[]){2, LAB_VOCAB});
    branches[1] = view_of(logits[2], 2, (int64_t[]){2, LAB_VOCAB});
    OK(candid_task_contrast(task, 0, &main, branches, 2, error));
    WRONG(candid_task_contrast(NULL, 0, &main, branches, 2, error), "NULL");
    WRONG(candid_task_contrast(task, -1, &main, branches, 2, error), "negative");
    WRONG(candid_task_contrast(task, 0, NULL, branches, 2, error), "NULL");
    WRONG(candid_task_contrast(task, 0, &main, NULL, 2, error), "branches");
    WRONG(candid_task_contrast(task, 0, &main, branches, 1, error), "expected 2 branches");
    WRONG(candid_task_contrast(task, 0, &main, branches, 3, error), "expected 2 branches");
    bad = main;
    bad.shape[1] = LAB_VOCAB - 1;
    WRONG(candid_task_contrast(task, 0, &bad, branches, 2, error), "logits");
    bad = main;
    bad.shape[0] = 1;
    WRONG(candid_task_contrast(task, 0, &bad, branches, 2, error), "rows");
    branches[1].shape[1] = 5;
    WRONG(candid_task_contrast(task, 0, &main, branches, 2, error), "logits");
    branches[1].shape[1] = LAB_VOCAB;
    branches[0].data = NULL;
    WRONG(candid_task_contrast(task, 0, &main, branches, 2, error), "NULL"); /* it counts for the first token … */
    assert_true(candid_task_needs_branch(task, 0, 0) && !candid_task_needs_branch(task, 0, 1));
    OK(candid_task_contrast(task, 1, &main, branches, 2, error)); /* … only */
    branches[0] = (candid_view){.struct_size = sizeof *branches};
    OK(candid_task_contrast(task, 1, &main, branches, 2, error));
    branches[0].struct_size = (size_t)1 << 48; /* how far the next lies */
    WRONG(candid_task_contrast(task, 1, &main, branches, 2, error), "struct_size");
    branches[0].struct_size = 0;
    WRONG(candid_task_contrast(task, 1, &main, branches, 2, error), "struct_size");
    branches[0].struct_size = sizeof *branches;
    logits[2][LAB_VOCAB + 3] = NAN;
    WRONG(candid_task_contrast(task, 1, &main, branches, 2, error), "no number");
    logits[2][LAB_VOCAB + 3] = logits[0][0] = NAN;
    WRONG(candid_task_contrast(task, 1, &main, branches, 2, error), "no number");
    candid_task_free(task);
    candid_plugin_free(plugin);
    candid_config_free(config);
}

/* ---- sequences --------------------------------------------------------------------------------- */

static void sequences_are_checked(void **state) {
    (void)state;
    candid_config *config = NULL;
    candid_plugin *plugin = plugin_with(&config, "{\"paint\": {\"layers\": \"all\", \"gamma\": 1}}");
    candid_task *task = task_of(plugin);
    candid_needs needs = {.struct_size = sizeof needs};
    OK(candid_task_needs(task, &needs, error));
    assert_int_equal(needs.n_taps, 2);
    float attention[2 * LAB_IMAGE];
    for (int i = 0; i < 2 * LAB_IMAGE; i++) {
        attention[i] = (float)(i % 5) / 10;
    }
    candid_view of_cls = view_of(attention, 2, (int64_t[]){2, LAB_IMAGE});
    candid_tap taps[2] = {{.struct_size = sizeof *taps, .block = needs.taps[0], .of_cls = &of_cls},
                          {.struct_size = sizeof *taps, .block = needs.taps[1], .of_cls = &of_cls}};
    const candid_span good[3] = {
        {.struct_size = sizeof *good, .kind = CANDID_SPAN_TEXT, .n_tokens = 2},
        {.struct_size = sizeof *good,
         .kind = CANDID_SPAN_IMAGE,
         .n_tokens = LAB_IMAGE,
         .grid_h = LAB_GRID,
         .grid_w = LAB_GRID},
        {.struct_size = sizeof *good, .kind = CANDID_SPAN_TEXT, .n_tokens = 3},
    };
    candid_span bad[3];
    candid_sequence *sequence = NULL;
    WRONG(candid_sequence_create(NULL, -1, good, 3, taps, 2, &sequence, error), "task");
    WRONG(candid_sequence_create(task, -1, NULL, 3, taps, 2, &sequence, error), "spans");
    WRONG(candid_sequence_create(task, -1, good, 0, taps, 2, &sequence, error), "spans");
    WRONG(candid_sequence_create(task, -1, good, 3, taps, 2, NULL, error), "out");
    WRONG(candid_sequence_create(task, 0, good, 3, taps, 2, &sequence, error), "branch");
    WRONG(candid_sequence_create(task, -2, good, 3, taps, 2, &sequence, error), "branch");
    static const struct {
        int span;
        size_t offset;
        int32_t value;
        const char *text;
    } fields[] = {
        {0, offsetof(candid_span, kind), 2, "kind"},
        {0, offsetof(candid_span, kind), -1, "kind"},
        {0, offsetof(candid_span, n_tokens), -1, "n_tokens"},
        {0, offsetof(candid_span, n_tokens), INT32_MAX, "n_tokens"},
        {1, offsetof(candid_span, n_tokens), 0, "grid"},
        {1, offsetof(candid_span, n_tokens), LAB_IMAGE + 1, "grid"},
        {1, offsetof(candid_span, grid_h), -1, "grid"},
        {1, offsetof(candid_span, grid_w), INT32_MAX, "grid"},
        {1, offsetof(candid_span, kind), CANDID_SPAN_TEXT, "expected 1 images"},
        {2, offsetof(candid_span, kind), CANDID_SPAN_IMAGE, "expected 1 images"},
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        memcpy(bad, good, sizeof bad);
        memcpy((char *)&bad[fields[i].span] + fields[i].offset, &fields[i].value, sizeof(int32_t));
        WRONG(candid_sequence_create(task, -1, bad, 3, taps, 2, &sequence, error), fields[i].text);
    }
    memcpy(bad, good, sizeof bad);
    bad[1].struct_size = 1;
    WRONG(candid_sequence_create(task, -1, bad, 3, taps, 2, &sequence, error), "struct_size");
    WRONG(candid_sequence_create(task, -1, good, 3, taps, 1, &sequence, error), "tap");
    WRONG(candid_sequence_create(task, -1, good, 3, NULL, 2, &sequence, error), "tap");
    taps[1].of_cls = NULL;
    WRONG(candid_sequence_create(task, -1, good, 3, taps, 2, &sequence, error), "NULL");
    candid_view fewer = of_cls;
    fewer.shape[1] = 3;
    taps[1].of_cls = &fewer;
    WRONG(candid_sequence_create(task, -1, good, 3, taps, 2, &sequence, error), "patches");
    taps[0].of_cls = &fewer; /* both, but not as many as the image has tokens */
    REFUSED(candid_sequence_create(task, -1, good, 3, taps, 2, &sequence, error), CANDID_ERROR_UNSUPPORTED, "patch");
    taps[0].of_cls = taps[1].of_cls = &of_cls;
    attention[1] = NAN;
    WRONG(candid_sequence_create(task, -1, good, 3, taps, 2, &sequence, error), "no number");
    assert_null(sequence);
    attention[1] = 0.5f;
    OK(candid_sequence_create(task, -1, good, 3, taps, 2, &sequence, error));

    candid_run run = {.struct_size = 2};
    candid_reach reach = {.struct_size = sizeof reach};
    uint8_t layers[LAB_LAYERS + 1];
    char *text = NULL;
    WRONG(candid_sequence_run(sequence, &run, error), "struct_size");
    WRONG(candid_sequence_run(NULL, &run, error), "NULL");
    WRONG(candid_sequence_run(sequence, NULL, error), "NULL");
    WRONG(candid_sequence_reach(NULL, CANDID_ROLE_MAIN, 0, &reach, error), "NULL");
    WRONG(candid_sequence_reach(sequence, CANDID_ROLE_MAIN, -1, &reach, error), "index");
    WRONG(candid_sequence_reach(sequence, CANDID_ROLE_MAIN, INT32_MAX, &reach, error), "index");
    WRONG(candid_sequence_reach(sequence, CANDID_ROLE_COUNT, 0, &reach, error), "role");
    WRONG(candid_sequence_report(sequence, NULL, error), "NULL");
    WRONG(candid_sequence_report(NULL, &text, error), "NULL");
    assert_int_equal(candid_sequence_wants(NULL, CANDID_ROLE_MAIN, CANDID_SITE_LOGITS, 3, layers), 0);
    assert_int_equal(candid_sequence_wants(sequence, CANDID_ROLE_MAIN, CANDID_SITE_LOGITS, 3, NULL), 0);
    assert_int_equal(candid_sequence_wants(sequence, CANDID_ROLE_COUNT, CANDID_SITE_LOGITS, 3, layers), 0);
    assert_int_equal(candid_sequence_wants(sequence, CANDID_ROLE_MAIN, CANDID_SITE_COUNT, 3, layers), 0);
    assert_int_equal(candid_sequence_wants(sequence, CANDID_ROLE_MAIN, CANDID_SITE_ATTENTION_SCORES, 0, layers), 0);
    assert_true(candid_sequence_wants(sequence, CANDID_ROLE_MAIN, CANDID_SITE_ATTENTION_SCORES, 3, layers) > 0);
    candid_sequence_free(sequence);
    candid_task_free(task);
    candid_plugin_free(plugin);
    candid_config_free(config);
}

/* ---- searches ---------------------------------------------------------------------------------- */

static void searches_are_checked(void **state) {
    (void)state;
    candid_config *config = NULL, *none = NULL;
    candid_plugin *plugin = plugin_with(&config, "{\"opera\": {\"candidates\": 2}, \"decode\": {\"beams\": 2}}");
    candid_plugin *plain = plugin_with(&none, "{}");
    candid_task *task = task_of(plugin), *other = task_of(plugin), *unsearched = task_of(plain);
    candid_sequence *sequence = lab_sequence(task, 2, 3), *elsewhere = lab_sequence(unsearched, 2, 3);
    const int32_t ends[] = {2};
    const candid_search_params good = {
        .struct_size = sizeof good, .n_prompt_ids = 6, .max_new_tokens = 4, .end_tokens = ends, .n_end_tokens = 1};
    candid_search *search = NULL;
    candid_search_params bad = good;
    WRONG(candid_search_create(NULL, sequence, &good, &search, error), "NULL");
    WRONG(candid_search_create(task, NULL, &good, &search, error), "NULL");
    WRONG(candid_search_create(task, sequence, NULL, &search, error), "NULL");
    WRONG(candid_search_create(task, sequence, &good, NULL, error), "NULL");
    WRONG(candid_search_create(other, sequence, &good, &search, error), "main sequence");
    WRONG(candid_search_create(unsearched, elsewhere, &good, &search, error), "opera");
    bad.max_new_tokens = 0;
    WRONG(candid_search_create(task, sequence, &bad, &search, error), "new tokens");
    bad = good;
    bad.n_prompt_ids = 0;
    WRONG(candid_search_create(task, sequence, &bad, &search, error), "prompt");
    bad = good;
    bad.end_tokens = NULL;
    WRONG(candid_search_create(task, sequence, &bad, &search, error), "end_tokens");
    bad = good;
    bad.n_end_tokens = (size_t)-1;
    WRONG(candid_search_create(task, sequence, &bad, &search, error), "end tokens");
    bad = good;
    bad.struct_size = 0;
    WRONG(candid_search_create(task, sequence, &bad, &search, error), "struct_size");
    assert_null(search);
    OK(candid_search_create(task, sequence, &good, &search, error));

    float logits[2 * LAB_VOCAB];
    for (int i = 0; i < 2 * LAB_VOCAB; i++) {
        logits[i] = (float)(i * 5 % 7);
    }
    candid_view one = view_of(logits, 2, (int64_t[]){1, LAB_VOCAB}),
                two = view_of(logits, 2, (int64_t[]){2, LAB_VOCAB});
    candid_order order = {.struct_size = sizeof order};
    int32_t ids[4], beam = 0;
    size_t n_ids;
    float score;
    char *text = NULL;
    WRONG(candid_search_measured(search, &order, error), "turn of candid_search_logits");
    WRONG(candid_search_again(search, &one, &order, error), "turn of candid_search_logits");
    WRONG(candid_search_measured_beams(search, &beam, 1, error), "wait");
    WRONG(candid_search_logits(search, &two, &order, error), "expected (1, 13)");
    WRONG(candid_search_logits(search, NULL, &order, error), "NULL");
    WRONG(candid_search_logits(search, &one, NULL, error), "NULL");
    candid_order unsized = {0};
    WRONG(candid_search_logits(search, &one, &unsized, error), "struct_size"); /* and no step is lost */
    OK(candid_search_logits(search, &one, &order, error));
    assert_int_equal(order.verb, CANDID_VERB_MEASURE);
    WRONG(candid_search_logits(search, &one, &order, error), "turn of candid_search_measured");
    WRONG(candid_search_measured(search, &order, error), "rows of the last layer"); /* no pass has run */
    WRONG(candid_search_beam(search, 1, ids, error), "beam");
    WRONG(candid_search_beam(search, -1, ids, error), "beam");
    WRONG(candid_search_beam(search, 0, NULL, error), "beam");
    OK(candid_search_beam(search, 0, ids, error)); /* has no token yet */
    WRONG(candid_search_answer(search, -1, ids, &n_ids, &score, error), "rank");
    WRONG(candid_search_answer(search, INT32_MAX, ids, &n_ids, &score, error), "rank");
    WRONG(candid_search_answer(search, 0, NULL, &n_ids, &score, error), "NULL");
    WRONG(candid_search_report(NULL, &text, error), "NULL");
    WRONG(candid_search_report(search, NULL, error), "NULL");
    candid_search_free(search);

    OK(candid_search_create(task, sequence, &good, &search, error));
    logits[3] = NAN;
    candid_error error;
    assert_int_not_equal(candid_search_logits(search, &one, &order, &error), CANDID_OK);
    candid_search_free(search);
    candid_sequence_free(sequence);
    candid_sequence_free(elsewhere);
    candid_task_free(task);
    candid_task_free(other);
    candid_task_free(unsearched);
    candid_plugin_free(plugin);
    candid_plugin_free(plain);
    candid_config_free(config);
    candid_config_free(none);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_abilities_mean_nothing),
        cmocka_unit_test(a_host_is_told_what_it_can_run),
        cmocka_unit_test(tasks_are_checked),
        cmocka_unit_test(contrasts_are_checked),
        cmocka_unit_test(sequences_are_checked),
        cmocka_unit_test(searches_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
