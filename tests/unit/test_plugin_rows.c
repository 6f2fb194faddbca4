/* Which rows a host shows: none that a method needs may be missing, and none that it does not need must be there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../support/plugin_scene.h"
#include "../support/refused.h"

#define SINKS "{\"var\": {\"sink_dims\": [1], \"tau\": 1.2, \"layers\": \"all\", \"summ\": 0, \"rho\": 1}}"
#define MIXES "{\"vista\": {\"lambda\": 0, \"sla_layers\": \"0-1\"}}"

/* A prefix out of a cache is one in which no sink is found. */
static void rows_that_are_measured_are_not_left_out(void **state) {
    (void)state;
    struct scene s;
    open_scene(&s, SINKS);
    candid_segment tail = s.segment;
    tail.first_index = 4;
    tail.n_rows = N_PROMPT - 4;
    WRONG(candid_pass_begin(s.pass, &tail, 1, error), "expected its rows from 0 on, found row 4");
    tail.first_index = N_PROMPT;
    tail.n_rows = 1;
    tail.n_keys = N_PROMPT + 1;
    WRONG(candid_pass_begin(s.pass, &tail, 1, error), "expected its rows from 0 on");
    run_whole(&s);
    OK(candid_pass_begin(s.pass, &tail, 1, error));
    run_whole(&s); /* once more from the beginning */
    close_scene(&s);

    open_scene(&s, MIXES); /* which looks at nothing in the prompt but its last row */
    tail = s.segment;
    tail.first_index = 4;
    tail.n_rows = N_PROMPT - 4;
    OK(candid_pass_begin(s.pass, &tail, 1, error));
    close_scene(&s);
}

/* Only behind the last layer's attention may rows be missing. */
static void rows_are_not_left_out_before_the_end(void **state) {
    (void)state;
    static const struct {
        const char *json;
        int site, layer;
    } cases[] = {
        {SINKS, CANDID_SITE_BLOCK_INPUT, 1},
        {"{\"head_scale\": {\"heads\": [[0, 1], [1, 0]], \"scale\": 0.5}}", CANDID_SITE_HEAD_OUTPUT, 0},
        {MIXES, CANDID_SITE_BLOCK_OUTPUT, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct scene s;
        open_scene(&s, cases[i].json);
        run_up_to(&s, (candid_site)cases[i].site, cases[i].layer);
        s.rows.shape[1] = 1;
        WRONG(candid_pass_at(s.pass, (candid_site)cases[i].site, cases[i].layer, &s.rows, error),
              "expected the rows of all segments; found 1 rows");
        close_scene(&s);
    }
}

/* In one batch element, a sequence that nothing is done to stands before one that is changed. */
static void last_rows_of_others_are_counted(void **state) {
    (void)state;
    struct scene s;
    open_scene(&s,
               "{\"pai\": {\"layers\": \"all\", \"alpha\": 0.5}, \"vista\": {\"lambda\": 0, \"sla_layers\": \"0-1\"}}");
    const candid_span text = {.struct_size = sizeof text, .kind = CANDID_SPAN_TEXT, .n_tokens = 5};
    candid_sequence *beside = NULL;
    OK(candid_sequence_create(s.task, 0, &text, 1, NULL, 0, &beside, error));
    OK(candid_sequence_run(beside, &s.run, error));
    assert_false(s.run.acts);
    enum { N_ALL = 5 + N_PROMPT };
    const candid_segment segments[] = {
        {.struct_size = sizeof *segments, .sequence = beside, .n_rows = 5, .n_keys = 5},
        {.struct_size = sizeof *segments,
         .sequence = s.sequence,
         .first_row = 5,
         .n_rows = N_PROMPT,
         .n_keys = N_PROMPT,
         .key_offset = 5},
    };
    static float hidden[N_ALL * LAB_EMBD], attention[LAB_HEADS * N_ALL * N_ALL];
    float last[2 * LAB_EMBD], expected[LAB_EMBD];
    candid_view rows = view_of(hidden, 3, (int64_t[]){1, N_ALL, LAB_EMBD});
    const candid_view keys = view_of(attention, 4, (int64_t[]){1, LAB_HEADS, N_ALL, N_ALL}),
                      two = view_of(last, 3, (int64_t[]){1, 2, LAB_EMBD});
    for (int compact = 0; compact < 2; compact++) {
        for (int i = 0; i < N_ALL * LAB_EMBD; i++) {
            hidden[i] = (float)(i / LAB_EMBD) + 1.0f;
        }
        OK(candid_pass_begin(s.pass, segments, 2, error));
        for (int l = 0; l < LAB_LAYERS; l++) {
            OK(candid_pass_at(s.pass, CANDID_SITE_ATTENTION_SCORES, l, &keys, error));
            OK(candid_pass_at(s.pass, CANDID_SITE_BLOCK_OUTPUT, l, &rows, error));
        }
        for (int i = 0; i < 2 * LAB_EMBD; i++) {
            last[i] = i < LAB_EMBD ? -1.0f : 100.0f;
        }
        memcpy(hidden + (N_ALL - 1) * LAB_EMBD, last + LAB_EMBD, sizeof expected);
        OK(candid_pass_at(s.pass, CANDID_SITE_FINAL_NORM, LAB_LAYERS, compact ? &two : &rows, error));
        OK(candid_pass_end(s.pass, error));
        if (!compact) {
            memcpy(expected, hidden + (N_ALL - 1) * LAB_EMBD, sizeof expected);
            assert_true(expected[0] < 100.0f);
        }
    }
    assert_true(last[0] == -1.0f);
    assert_memory_equal(last + LAB_EMBD, expected, sizeof expected);
    candid_sequence_free(beside);
    close_scene(&s);
}

/* A prompt whose answer is known and goes through with it: its last row is what is compared, not the answer's. */
static void an_answer_may_go_through_with_its_prompt(void **state) {
    (void)state;
    enum { N_ANSWER = 2, N_ALL = N_PROMPT + N_ANSWER };
    struct scene s;
    char *report[2];
    for (int together = 0; together < 2; together++) {
        open_scene(&s, "{\"vhr\": {\"layers\": \"all\"}}");
        float heads[N_ALL * LAB_EMBD];
        for (int role = CANDID_ROLE_TEXT_ONLY; role >= CANDID_ROLE_MAIN; role--) {
            const int n = role == CANDID_ROLE_TEXT_ONLY ? N_PROMPT - LAB_IMAGE : together ? N_ALL : N_PROMPT;
            s.segment.role = (candid_role)role;
            s.segment.n_rows = s.segment.n_keys = n;
            OK(candid_pass_begin(s.pass, &s.segment, 1, error));
            for (int l = 0; l < LAB_LAYERS; l++) {
                for (int i = 0; i < N_ALL * LAB_EMBD; i++) {
                    heads[i] = lab_number(0, (candid_role)role, 0, l, 0, i / LAB_EMBD, i % LAB_EMBD);
                }
                const candid_view v = view_of(heads, 3, (int64_t[]){1, n, LAB_EMBD});
                OK(candid_pass_at(s.pass, CANDID_SITE_HEAD_OUTPUT, l, &v, error));
            }
            OK(candid_pass_end(s.pass, error));
        }
        OK(candid_sequence_report(s.sequence, &report[together], error));
        close_scene(&s);
    }
    const char *apart = strstr(report[0], "\"heads\":"), *both = strstr(report[1], "\"heads\":");
    assert_non_null(apart);
    assert_non_null(both);
    assert_string_equal(both, apart); /* the same heads */
    assert_null(strstr(apart, "\"heads\":[]"));
    candid_string_free(report[0]);
    candid_string_free(report[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_that_are_measured_are_not_left_out),
        cmocka_unit_test(rows_are_not_left_out_before_the_end),
        cmocka_unit_test(last_rows_of_others_are_counted),
        cmocka_unit_test(an_answer_may_go_through_with_its_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
