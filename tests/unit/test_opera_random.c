/* OPERA's decoding against its description written down naively, on random models and options: same beams, scores,
 * columns, rollbacks and answers, bit for bit, and a record of nodes that comes out even. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/opera_lab.h"
#include "../support/opera_naive.h"

/* ---- random numbers ---- */

static uint64_t random_state;

/* From min to max. */
static int pick(int min, int max) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return min + (int)((random_state >> 33) % (uint64_t)(max - min + 1));
}

/* True once in n times. */
static bool once_in(int n) {
    return pick(1, n) == 1;
}

/* ---- a case ---- */

struct random_case {
    struct toy model;
    struct opera_params params;
    int32_t end_tokens[2];
    float penalty;
    bool mask;
    uint64_t seed;
};

/* Two tokens never come. */
static void mask_logits(float *logits, int n) {
    logits[1] = logits[n - 2] = -INFINITY;
}

static struct toy random_model(void) {
    struct toy m = {.n_vocab = pick(16, 24), .n_image = pick(2, 6), .n_head = pick(1, 3), .n_prompt = pick(3, 5)};
    m.image_at = pick(1, m.n_prompt - 2);
    for (int i = 0; i < m.n_prompt; i++) {
        m.prompt[i] = i == m.image_at ? 99 : pick(0, m.n_vocab - 1);
    }
    m.a = pick(1, 100);
    m.b = pick(0, 100);
    m.c = pick(0, 100);
    m.d = pick(0, 100);
    m.image_weight = pick(1, 12);
    m.heavy = pick(0, 8);
    m.heavy_from = pick(0, 10);
    m.heavy_mod = pick(2, 4);
    m.heavy_res = pick(0, m.heavy_mod - 1);
    return m;
}

static void random_case(struct random_case *c, uint64_t seed, const struct opera_options *options) {
    random_state = seed * 0x9e3779b97f4a7c15u + 12345;
    pick(0, 1);
    *c = (struct random_case){.model = random_model(), .penalty = 1.0f, .seed = seed};
    for (int i = 0; i < 2; i++) {
        c->end_tokens[i] = pick(0, c->model.n_vocab + 3); /* some never come */
    }
    c->params = (struct opera_params){.options = *options,
                                      .n_beams = pick(2, 4),
                                      .max_new_tokens = pick(10, 26),
                                      .end_tokens = c->end_tokens,
                                      .n_end_tokens = once_in(4) ? 2 : pick(0, 1)};
    struct opera_options *o = &c->params.options;
    o->candidates = once_in(8) ? 1 : pick(2, 6);
    o->max_rollbacks = o->candidates;
    o->threshold = pick(1, 4);
    o->rollback_min = once_in(4) ? 10 : pick(0, 6);
    if (once_in(3)) {
        o->scale = 200.0f;
    }
    if (o->first_candidates == 0) {
        o->first_candidates = o->candidates;
    } else {
        o->first_candidates = o->candidates > c->params.n_beams ? o->candidates : c->params.n_beams + 1;
    }
}

/* Every option has any value. */
static void random_options(struct random_case *c) {
    struct opera_options *o = &c->params.options;
    o->scale = once_in(4) ? 5000.0f : 50.0f;
    o->alpha = once_in(3) ? 2.5f : 1.0f;
    o->threshold_strict = once_in(2);
    o->threshold = pick(0, 4);
    o->image_reward_len = pick(0, 12);
    o->score_scale = once_in(2) ? 1e-7f : 1e-3f;
    o->score_fp16 = !once_in(4);
    o->logits_fp16 = once_in(2);
    o->phi_max = once_in(2) ? 100.0f : 0.0f;
    o->plain_fallback = once_in(2);
    o->max_rollbacks = pick(1, 5);
    o->monotone = once_in(3);
    o->retry_full_vocab = once_in(2);
    o->share_hypotheses = once_in(2);
    o->clean_rejects = once_in(2);
    o->history = once_in(2) ? 512 : pick(2, 12);
    o->first_candidates = once_in(2) ? o->candidates : c->params.n_beams + 1;
    c->penalty = once_in(3) ? 1.5f : 1.0f;
    c->mask = once_in(5);
}

static void describe(const struct random_case *c, int step, const char *what) {
    fail_msg("case %llu, iteration %d: %s differs", (unsigned long long)c->seed, step, what);
}

/* ---- both ways ---- */

static float hook_penalty; /* of the case being run */

static void penalize(void *user_data, const struct opera *o, int beam, float *log_probs) {
    const struct toy_run *run = user_data;
    int32_t ids[TOY_LENGTH];
    bool seen[TOY_VOCAB] = {false};
    opera_beam_ids(o, beam, ids);
    for (int i = 0; i < opera_step(o); i++) {
        seen[ids[i]] = true;
    }
    for (int v = 0; v < run->model->n_vocab; v++) {
        log_probs[v] *= seen[v] && log_probs[v] < 0.0f ? hook_penalty : 1.0f;
    }
}

static void compare_event(const struct random_case *c, int i, const struct toy_event *e,
                          const struct naive_event *expected) {
    const size_t n = (size_t)c->params.n_beams;
    if (e->step != expected->step || e->loc != expected->loc ||
        memcmp(e->beam_locs, expected->beam_locs, n * sizeof *e->beam_locs) != 0) {
        describe(c, i, "step or column");
    }
    if (e->rollback_to != expected->rollback_to) {
        describe(c, i, "going back");
    }
    if (memcmp(e->choice.tokens, expected->tokens, n * sizeof *expected->tokens) != 0 ||
        memcmp(e->choice.parents, expected->parents, n * sizeof *expected->parents) != 0) {
        describe(c, i, "choice");
    }
    if (memcmp(e->choice.scores, expected->scores, n * sizeof *expected->scores) != 0) {
        describe(c, i, "beam score");
    }
}

static void compare_answers(const struct random_case *c, const struct opera *o, const struct naive *s) {
    if (opera_n_answers(o) != s->scorer->n) {
        describe(c, -1, "number of answers");
    }
    for (int rank = 0; rank < s->scorer->n; rank++) {
        const struct naive_hypothesis *h = naive_ranked(s->scorer, rank);
        struct opera_answer answer;
        OK(opera_best(o, rank, &answer, error));
        if (answer.n != h->n || answer.end_token != h->end || answer.score != h->score ||
            memcmp(answer.ids, h->ids, (size_t)h->n * sizeof *h->ids) != 0) {
            describe(c, rank, "answer");
        }
        free(answer.ids);
    }
}

/* What the cases have met, so that nobody believes in a comparison of nothing. */
struct coverage {
    int steps, rollbacks, shifts, repeated, with_rollbacks, ended, junk, plain, filled, reused;
};

static void note(struct coverage *cover, const struct toy_run *run, const struct naive *s) {
    const struct opera_counters counters = opera_counters(run->opera);
    assert_int_equal(counters.n_rewarded, s->n_rewarded);
    assert_int_equal(counters.n_penalised, s->n_penalised);
    assert_int_equal(counters.n_plain, s->n_plain);
    assert_int_equal(counters.n_filled, s->n_filled);
    cover->steps += counters.n_steps;
    cover->rollbacks += counters.n_rollbacks;
    cover->with_rollbacks += counters.n_rollbacks > 0;
    for (int i = 0; i < counters.n_rollbacks; i++) {
        cover->shifts += counters.rollbacks[i].to == counters.rollbacks[i].loc;
        cover->repeated += i > 0 && counters.rollbacks[i].to == counters.rollbacks[i - 1].to;
    }
    cover->ended += naive_ranked(s->scorer, 0)->end >= 0;
    cover->plain += counters.n_plain;
    cover->filled += counters.n_filled;
    cover->reused += run->n_reused;
}

static void run_case(const struct random_case *c, struct coverage *cover) {
    struct toy_run run;
    struct naive *s = malloc(sizeof *s);
    assert_non_null(s);
    struct opera_params p = c->params;
    hook_penalty = c->penalty;
    p.process = c->penalty != 1.0f ? penalize : NULL;
    toy_open(&run, &c->model, &p);
    naive_open(s, &c->model, &c->params);
    run.change_logits = s->change_logits = c->mask ? mask_logits : NULL;
    s->penalty = c->penalty;
    for (int i = 0; !s->done; i++) {
        struct naive_event expected;
        assert_true(naive_step(s, &expected));
        const struct toy_event e = toy_step(&run, c->params.n_beams);
        compare_event(c, i, &e, &expected);
        if (e.n_alive != naive_live_tokens(s)) {
            describe(c, i, "number of live nodes");
        }
        for (int b = 0; b < c->params.n_beams; b++) {
            cover->junk += e.rollback_to < 0 && e.choice.candidates[b] < 0;
        }
        if ((e.choice.verdict == OPERA_DONE) != s->done) {
            describe(c, i, "the end");
        }
    }
    compare_answers(c, run.opera, s);
    note(cover, &run, s);
    toy_close(&run);
    naive_close(s);
    free(s);
}

static struct coverage run_cases(int n, const char *json, bool any_options, int steps_at_least) {
    const struct opera_options options = opera_lab_options(json);
    struct coverage cover = {0};
    for (int i = 0; i < n; i++) {
        static struct random_case c;
        random_case(&c, (uint64_t)i, &options);
        if (any_options) {
            random_options(&c);
        }
        run_case(&c, &cover);
    }
    print_message("%d cases: %d steps, %d rollbacks in %d cases, %d to the position before, %d to the same again; %d "
                  "ended, %d beams of no candidate, %d of plain logits, %d filled, %d passes reused\n",
                  n, cover.steps, cover.rollbacks, cover.with_rollbacks, cover.shifts, cover.repeated, cover.ended,
                  cover.junk, cover.plain, cover.filled, cover.reused);
    assert_true(cover.steps >= steps_at_least);
    assert_true(cover.shifts > 0 && cover.repeated > 0 && cover.ended > 0 && cover.ended < n);
    return cover;
}

/* Under a sanitizer a tenth has to do. */
#ifdef __SANITIZE_ADDRESS__
#define PART 10
#else
#define PART 1
#endif

static void released_settings(void **state) {
    (void)state;
    run_cases(1500 / PART, "{\"opera\": {\"preset\": \"code\"}}", false, 30000 / PART);
}

static void recommended_settings(void **state) {
    (void)state;
    run_cases(1500 / PART, "{\"opera\": true}", false, 30000 / PART);
}

static void any_settings(void **state) {
    (void)state;
    const struct coverage cover = run_cases(2500 / PART, "{\"opera\": true}", true, 50000 / PART);
    assert_true(cover.plain > 0 && cover.filled > 0 && cover.junk > cover.filled);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(released_settings),
        cmocka_unit_test(recommended_settings),
        cmocka_unit_test(any_settings),
    };
    return cmocka_run_group_tests_name("opera_random", tests, NULL, NULL);
}
