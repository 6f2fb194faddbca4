/* Several questions at once: threads with tasks of their own, plugins beside each other, beams of one prompt. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>

#include "../support/plugin_lab.h"

enum { N_THREADS = 8, N_TIMES = 4 };

static const struct arrangement packed = {.lanes = LANES_PACKED, .shuffled = true}, alone = {.lanes = LANES_ALONE};

/* Whether candid made the same of two questions. */
static bool same(const struct lane *a, const struct lane *b) {
    return a->n_made == b->n_made && memcmp(a->made, b->made, a->n_made * sizeof *a->made) == 0;
}

static void ask(const struct lab_plugin *p, struct lane *lanes) {
    candid_pass *pass = NULL;
    OK(candid_pass_create(p->plugin, &pass, error));
    lab_lanes(p, lanes, LAB_LANES);
    lab_run(pass, &packed, lanes, LAB_LANES);
    candid_pass_free(pass);
}

struct worker {
    const struct lab_plugin *p;
    const struct lane *expected;
    int n_same;
};

static void *work(void *data) {
    struct worker *w = data;
    for (int t = 0; t < N_TIMES; t++) {
        struct lane lanes[LAB_LANES];
        ask(w->p, lanes);
        for (int i = 0; i < LAB_LANES; i++) {
            w->n_same += same(&lanes[i], &w->expected[i]);
        }
        lab_lanes_free(lanes, LAB_LANES);
    }
    return NULL;
}

static void threads_share_a_plugin(void **state) {
    (void)state;
    for (int n_threads = 1; n_threads <= 3; n_threads += 2) { /* candid's own, for each of them */
        candid_host host = lab_host();
        host.n_threads = n_threads;
        struct lab_plugin p = {.config = lab_config(LAB_EVERYTHING)};
        OK(candid_plugin_create(&host, p.config, &p.plugin, error));
        struct lane expected[LAB_LANES];
        ask(&p, expected);
        pthread_t threads[N_THREADS];
        struct worker workers[N_THREADS];
        for (int i = 0; i < N_THREADS; i++) {
            workers[i] = (struct worker){.p = &p, .expected = expected};
            assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
        }
        for (int i = 0; i < N_THREADS; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
            assert_int_equal(workers[i].n_same, N_TIMES * LAB_LANES);
        }
        lab_lanes_free(expected, LAB_LANES);
        lab_plugin_free(&p);
    }
}

static void plugins_do_not_know_each_other(void **state) {
    (void)state;
    static const char *const other = "{\"hgai\": {\"layers\": \"all\", \"alpha\": 3}, \"cca\": true}";
    struct lab_plugin a = lab_plugin_make(LAB_EVERYTHING), b = lab_plugin_make(other);
    struct lane expected[LAB_LANES], found[LAB_LANES], between[LAB_LANES];
    ask(&a, expected);
    candid_pass *pass_a = NULL, *pass_b = NULL;
    OK(candid_pass_create(a.plugin, &pass_a, error));
    OK(candid_pass_create(b.plugin, &pass_b, error));
    lab_lanes(&a, found, LAB_LANES);
    lab_lanes(&b, between, LAB_LANES);
    for (int i = 0; i < LAB_LANES; i++) {
        lab_run(pass_a, &alone, &found[i], 1);
        lab_run(pass_b, &alone, &between[i], 1);
        assert_true(same(&found[i], &expected[i]));
    }
    candid_pass_free(pass_a);
    lab_lanes_free(found, LAB_LANES);
    lab_plugin_free(&a);
    struct lane again[LAB_LANES];
    lab_lanes(&b, again, LAB_LANES);
    lab_run(pass_b, &packed, again, LAB_LANES);
    for (int i = 0; i < LAB_LANES; i++) {
        assert_true(same(&again[i], &between[i]));
    }
    candid_pass_free(pass_b);
    lab_lanes_free(again, LAB_LANES);
    lab_lanes_free(between, LAB_LANES);
    lab_lanes_free(expected, LAB_LANES);
    lab_plugin_free(&b);
}

/* Beams are segments of one sequence. orders: which beam stands where, for each step. What was made of beam i goes to
 * beams[i]. */
static char *run_beams(const struct lab_plugin *p, const int orders[LAB_STEPS][LAB_LANES], struct lane *beams) {
    struct lane prompt;
    struct lab l = {.a = &packed, .lanes = &prompt, .n_lanes = 1, .run = {.struct_size = sizeof l.run}};
    OK(candid_pass_create(p->plugin, &l.pass, error));
    lab_lanes(p, &prompt, 1);
    OK(candid_sequence_run(prompt.sequence, &l.run, error));
    const int n_text = prompt.n_before + prompt.n_after, n_prompt = n_text + LAB_IMAGE;
    for (int role = CANDID_ROLE_COUNT - 1; role >= 0; role--) {
        if (role == CANDID_ROLE_MAIN || l.run.companions >> role & 1u) {
            const int n = role == CANDID_ROLE_TEXT_ONLY ? n_text : n_prompt, first = 0;
            lab_pass(&l, (candid_role)role, CANDID_ROWS_PROMPT, &n, &first);
        }
    }
    for (int i = 0; i < LAB_LANES; i++) {
        beams[i] = (struct lane){.number = 10 + i, .sequence = prompt.sequence};
    }
    for (int t = 0; t < LAB_STEPS; t++) {
        struct lane lanes[LAB_LANES];
        int n_rows[LAB_LANES], first[LAB_LANES];
        for (int i = 0; i < LAB_LANES; i++) {
            lanes[i] = beams[orders[t][i]];
            n_rows[i] = 1;
            first[i] = n_prompt + t;
        }
        l.lanes = lanes;
        l.n_lanes = LAB_LANES;
        lab_pass(&l, CANDID_ROLE_MAIN, CANDID_ROWS_GENERATED, n_rows, first);
        for (int i = 0; i < LAB_LANES; i++) {
            beams[orders[t][i]] = lanes[i];
        }
    }
    char *report = NULL;
    OK(candid_sequence_report(prompt.sequence, &report, error));
    lab_lanes_free(&prompt, 1);
    candid_pass_free(l.pass);
    return report;
}

static void beams_may_change_places(void **state) {
    (void)state;
    static const int orders[][LAB_STEPS][LAB_LANES] = {
        {{0, 1, 2}, {0, 1, 2}}, {{2, 0, 1}, {1, 0, 2}}, {{1, 2, 0}, {2, 1, 0}}};
    struct lab_plugin p = lab_plugin_make(LAB_EVERYTHING);
    struct lane expected[LAB_LANES], found[LAB_LANES];
    char *report = run_beams(&p, orders[0], expected);
    assert_false(same(&expected[0], &expected[1]));
    for (size_t k = 1; k < sizeof orders / sizeof *orders; k++) {
        char *other = run_beams(&p, orders[k], found);
        assert_string_equal(other, report);
        candid_string_free(other);
        for (int i = 0; i < LAB_LANES; i++) {
            assert_true(same(&found[i], &expected[i]));
            free(found[i].made);
        }
    }
    for (int i = 0; i < LAB_LANES; i++) {
        free(expected[i].made);
    }
    candid_string_free(report);
    lab_plugin_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_share_a_plugin),
        cmocka_unit_test(plugins_do_not_know_each_other),
        cmocka_unit_test(beams_may_change_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
