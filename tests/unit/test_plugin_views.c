/*
 * Where a host's tensors lie, and in which element type, changes nothing: strides, padding, packed rows, columns of
 * keys, batches of questions. What belongs to no segment is neither read nor written.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../support/plugin_lab.h"

/* What candid makes of three questions' tensors: each by itself, or side by side. */
static void run(const struct lab_plugin *p, const struct arrangement *a, struct lane *lanes) {
    candid_pass *pass = NULL;
    OK(candid_pass_create(p->plugin, &pass, error));
    lab_lanes(p, lanes, LAB_LANES);
    for (int i = 0; a->lanes == LANES_ALONE && i < LAB_LANES; i++) {
        lab_run(pass, a, &lanes[i], 1);
    }
    if (a->lanes != LANES_ALONE) {
        lab_run(pass, a, lanes, LAB_LANES);
    }
    candid_pass_free(pass);
}

static bool same_bits(float a, float b) {
    return memcmp(&a, &b, sizeof a) == 0;
}

/* x rounded to an element type, once. */
static float rounded(candid_dtype dtype, float x) {
    return dtype == CANDID_F32 ? x : dtype == CANDID_F16 ? f16_to_f32(f32_to_f16(x)) : bf16_to_f32(f32_to_bf16(x));
}

static char *report_of(const struct lane *lane) {
    char *text = NULL;
    OK(candid_sequence_report(lane->sequence, &text, error));
    return text;
}

/* How many numbers of the first question differ. */
static size_t changes(const struct lane *a, const struct lane *b) {
    size_t n = 0;
    assert_int_equal(a->n_made, b->n_made);
    for (size_t j = 0; j < a->n_made; j++) {
        n += !same_bits(a->made[j], b->made[j]);
    }
    return n;
}

static void arrangements_agree(const char *json, int first, const struct arrangement *others, int n) {
    static const struct arrangement plain = {.lanes = LANES_ALONE};
    struct lab_plugin p = lab_plugin_make(json);
    struct lane expected[LAB_LANES], found[LAB_LANES];
    run(&p, &plain, expected);
    for (int k = first; k < n; k++) {
        const struct arrangement *a = &others[k];
        run(&p, a, found);
        for (int i = 0; i < LAB_LANES; i++) {
            assert_int_equal(found[i].n_made, expected[i].n_made);
            for (size_t j = 0; j < found[i].n_made; j++) {
                if (!same_bits(rounded(a->dtype, expected[i].made[j]), found[i].made[j])) {
                    fail_msg("arrangement %d, question %d, number %zu: expected %.9g, found %.9g", k, i, j,
                             (double)expected[i].made[j], (double)found[i].made[j]);
                }
            }
            char *a_text = report_of(&expected[i]), *b_text = report_of(&found[i]);
            assert_string_equal(a_text, b_text);
            candid_string_free(a_text);
            candid_string_free(b_text);
        }
        lab_lanes_free(found, LAB_LANES);
    }
    lab_lanes_free(expected, LAB_LANES);
    lab_plugin_free(&p);
}

static const struct arrangement arrangements[] = {
    {.lanes = LANES_ALONE},
    {.lanes = LANES_ALONE, .transposed = true},
    {.lanes = LANES_ALONE, .gaps = true},
    {.lanes = LANES_ALONE, .shuffled = true},
    {.lanes = LANES_LEFT},
    {.lanes = LANES_LEFT, .transposed = true, .last_rows = true},
    {.lanes = LANES_RIGHT},
    {.lanes = LANES_RIGHT, .gaps = true, .last_rows = true},
    {.lanes = LANES_PACKED},
    {.lanes = LANES_PACKED, .last_rows = true},
    {.lanes = LANES_PACKED, .shuffled = true, .transposed = true, .gaps = true},
    {.lanes = LANES_ALONE, .dtype = CANDID_F16},
    {.lanes = LANES_LEFT, .dtype = CANDID_F16, .gaps = true},
    {.lanes = LANES_ALONE, .dtype = CANDID_BF16},
    {.lanes = LANES_PACKED, .dtype = CANDID_BF16, .shuffled = true, .transposed = true},
};
enum { N_ARRANGEMENTS = sizeof arrangements / sizeof *arrangements };

static void strides_padding_and_columns_change_nothing(void **state) {
    (void)state;
    arrangements_agree(LAB_EVERYTHING, 0, arrangements, N_ARRANGEMENTS);
}

static void one_method_at_a_time(void **state) {
    (void)state;
    static const char *const configs[] = {
        "{}",
        "{\"var\": {\"sink_dims\": [1, 5], \"tau\": 1.2, \"layers\": \"all\", \"summ\": 0, \"rho\": 1}}",
        "{\"vhr\": {\"layers\": \"all\", \"measure\": \"unreinforced\", \"prefill_rows\": \"last\"}}",
        "{\"pai\": {\"layers\": \"all\"}}",
        "{\"hgai\": {\"layers\": \"all\"}}",
        "{\"act\": {\"layers\": \"all\", \"threshold\": 0.05}}",
        "{\"vista\": {\"site\": \"residual\", \"gamma\": 0}}",
        "{\"vista\": {\"lambda\": 0, \"sla_layers\": \"0-1\"}}",
        "{\"dola\": {\"normed_early\": true}}",
        "{\"opera\": true}",
    };
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        arrangements_agree(configs[i], (int)i % 3, arrangements, N_ARRANGEMENTS);
    }
}

/* Showing less, what wants() names alone, gives the same where it is shown. */
static void what_is_not_wanted_need_not_be_shown(void **state) {
    (void)state;
    static const struct arrangement all = {.lanes = LANES_PACKED},
                                    wanted = {.lanes = LANES_PACKED, .only_wanted = true};
    struct lab_plugin p = lab_plugin_make(LAB_EVERYTHING);
    struct lane a[LAB_LANES], b[LAB_LANES];
    run(&p, &all, a);
    run(&p, &wanted, b);
    for (int i = 0; i < LAB_LANES; i++) {
        char *a_text = report_of(&a[i]), *b_text = report_of(&b[i]);
        assert_string_equal(a_text, b_text);
        assert_true(b[i].n_made > 0 && b[i].n_made < a[i].n_made);
        for (size_t j = 0, k = 0; j < b[i].n_made; j++, k++) { /* b is a without some parts */
            while (k < a[i].n_made && !same_bits(a[i].made[k], b[i].made[j])) {
                k++;
            }
            assert_true(k < a[i].n_made);
        }
        candid_string_free(a_text);
        candid_string_free(b_text);
    }
    lab_lanes_free(a, LAB_LANES);
    lab_lanes_free(b, LAB_LANES);
    lab_plugin_free(&p);
}

/* The methods that are compared do change what they say they change. */
static void every_site_is_edited(void **state) {
    (void)state;
    static const struct {
        const char *json;
        size_t least, most; /* numbers changed in the tensors of a question */
    } cases[] = {
        {"{}", 0, 0},
        {"{\"var\": {\"sink_dims\": [1, 5], \"tau\": 1.2, \"layers\": \"all\", \"summ\": 0, \"rho\": 1}}", 50, 1000},
        {"{\"vhr\": {\"layers\": \"all\"}}", 50, 300},
        {"{\"pai\": {\"layers\": \"all\"}}", LAB_LAYERS * LAB_HEADS * LAB_IMAGE,
         LAB_LAYERS * LAB_HEADS * LAB_IMAGE * 3},
        {"{\"vista\": {\"gamma\": 0}}", 100, 300},
        {"{\"vista\": {\"lambda\": 0, \"sla_layers\": \"0-1\"}}", LAB_EMBD, LAB_EMBD * 3},
        {"{\"dola\": true}", LAB_VOCAB, LAB_VOCAB * 3},
    };
    static const struct arrangement plain = {.lanes = LANES_ALONE};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lab_plugin none = lab_plugin_make("{}"), p = lab_plugin_make(cases[i].json);
        struct lane a[LAB_LANES], b[LAB_LANES];
        run(&none, &plain, a);
        run(&p, &plain, b);
        const size_t shift = b[0].n_made - a[0].n_made; /* what companions show comes first */
        b[0].made += shift;
        b[0].n_made -= shift;
        const size_t n = changes(&a[0], &b[0]);
        b[0].made -= shift;
        if (n < cases[i].least || n > cases[i].most) {
            fail_msg("%s: expected %zu to %zu numbers to change, found %zu", cases[i].json, cases[i].least,
                     cases[i].most, n);
        }
        lab_lanes_free(a, LAB_LANES);
        lab_lanes_free(b, LAB_LANES);
        lab_plugin_free(&none);
        lab_plugin_free(&p);
    }
}

/* Without methods nothing is written at all. */
static void a_plugin_without_methods_leaves_everything(void **state) {
    (void)state;
    static const struct arrangement plain = {.lanes = LANES_LEFT};
    struct lab_plugin p = lab_plugin_make("{}");
    struct lane lanes[LAB_LANES];
    run(&p, &plain, lanes);
    for (size_t j = 0; j < lanes[0].n_made; j++) { /* all numbers are multiples of 1/512 still */
        assert_true(same_bits(lanes[0].made[j] * 512, roundf(lanes[0].made[j] * 512)));
    }
    candid_run r = {.struct_size = sizeof r};
    OK(candid_sequence_run(lanes[0].sequence, &r, error));
    assert_false(r.acts || r.whole_prompt || r.companions || r.n_early);
    uint8_t layers[LAB_LAYERS + 1];
    for (int site = 0; site < CANDID_SITE_COUNT; site++) {
        assert_int_equal(candid_sequence_wants(lanes[0].sequence, CANDID_ROLE_MAIN, (candid_site)site, 3, layers), 0);
    }
    lab_lanes_free(lanes, LAB_LANES);
    lab_plugin_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strides_padding_and_columns_change_nothing),
        cmocka_unit_test(every_site_is_edited),
        cmocka_unit_test(one_method_at_a_time),
        cmocka_unit_test(what_is_not_wanted_need_not_be_shown),
        cmocka_unit_test(a_plugin_without_methods_leaves_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
