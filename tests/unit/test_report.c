/* Reports: runs read, aligned, counted and compared. Numbers are counted by hand from tests/data/report. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "eval/report/curve.h"
#include "eval/report/marks.h"
#include "eval/report/report.h"

#define DATA TEST_DATA "/report/"

static void near(double found, double expected) {
    assert_true(fabs(found - expected) < 1e-12);
}

/* Two runs of the test data and their report. */
struct pair {
    struct report_run runs[2];
    struct report report;
    const struct report_group *g;
};

/* The report points into the runs, so the pair stays where it is. */
static void open_pair(struct pair *p, const char *a, const char *b, const struct report_options *options) {
    candid_error error;
    assert_int_equal(report_run_read(a, &p->runs[0], &error), CANDID_OK);
    assert_int_equal(report_run_read(b, &p->runs[1], &error), CANDID_OK);
    const candid_status status =
        report_build((struct report_run *const[]){&p->runs[1], &p->runs[0]}, 2, options, &p->report, &error);
    if (status != CANDID_OK) {
        fail_msg("%s", error.message);
    }
    p->g = &p->report.groups[0];
}

static void close_pair(struct pair *p) {
    report_free(&p->report);
    report_run_free(&p->runs[0]);
    report_run_free(&p->runs[1]);
}

static const struct report_options defaults = REPORT_DEFAULTS;

static const struct report_value *value_of(const struct report_group *g, size_t run, const char *split,
                                           const char *key) {
    const size_t metric = report_metric_find(g, split, key);
    assert_true(metric != SIZE_MAX);
    return report_value(g, run, metric);
}

/* ---- numbers ------------------------------------------------------------------------------------- */

static void test_pope(void **state) {
    struct pair p;
    open_pair(&p, DATA "pope-greedy.json", DATA "pope-vhr.json", &defaults);
    const struct report_group *g = p.g;
    assert_int_equal(p.report.n_groups, 1);
    assert_string_equal(g->runs[0]->name, "greedy"); /* given last */
    assert_int_equal(g->baseline, 0);
    assert_int_equal(g->n_items, 8);
    assert_int_equal(g->n_units, 2);
    assert_int_equal(g->n_splits, 2);
    assert_int_equal(g->n_warnings, 0);
    /* answers of the second run stand in another order in its file */
    for (size_t i = 0; i < g->n_items; i++) {
        assert_string_equal(report_item(g, 0, i)->id, report_item(g, 1, i)->id);
        assert_string_equal(report_item(g, 0, i)->question, report_item(g, 1, i)->question);
    }
    near(value_of(g, 0, "random", "accuracy")->value, 0.5);
    near(value_of(g, 0, "mean", "accuracy")->value, 0.75);
    near(value_of(g, 1, "popular", "precision")->value, 2.0 / 3);
    near(value_of(g, 1, "popular", "f1")->value, 0.8);
    near(value_of(g, 1, "mean", "yes_ratio")->value, 0.625);
    near(value_of(g, 1, "mean", "f1")->difference, 0.9 - 0.75);
    /* greedy, random: one of two right about each image, so every resample has 0.5; the recall is 1 for a and 0 for b
     */
    near(value_of(g, 0, "random", "accuracy")->low, 0.5);
    near(value_of(g, 0, "random", "accuracy")->high, 0.5);
    near(value_of(g, 0, "random", "recall")->low, 0);
    near(value_of(g, 0, "random", "recall")->high, 1);
    /* McNemar: 2 against 0; 0 against 1 */
    near(value_of(g, 1, "random", "accuracy")->p, 0.5);
    near(value_of(g, 1, "popular", "accuracy")->p, 1);
    /* the mean by the bootstrap: +0.25 for a, 0 for b, so a quarter of the draws shows no gain */
    assert_true(fabs(value_of(g, 1, "mean", "accuracy")->p - 0.5) < 0.03);
    assert_true(isnan(value_of(g, 0, "mean", "accuracy")->difference));
    near(g->costs[1].relative, 1.25);
    near(g->costs[0].prefilled, 300);
    const size_t accuracy = report_metric_find(g, "mean", "accuracy");
    assert_true(report_is_best(g, 1, accuracy) && !report_is_best(g, 0, accuracy));
    assert_false(report_is_best(g, 1, report_metric_find(g, "mean", "yes_ratio")));
    close_pair(&p);
}

static void test_chair(void **state) {
    struct pair p;
    open_pair(&p, DATA "chair-greedy.json", DATA "chair-short.json", &defaults);
    const struct report_group *g = p.g;
    near(value_of(g, 0, "", "chair_s")->value, 1.0 / 3);
    near(value_of(g, 0, "", "chair_i")->value, 0.25);
    near(value_of(g, 0, "", "recall")->value, 2.0 / 3);
    near(value_of(g, 0, "", "length")->value, 5);
    near(value_of(g, 1, "", "f1")->value, 0.8);
    near(value_of(g, 1, "", "chair_i")->difference, -0.25);
    /* the counts themselves: the summary's numbers are these, or there would be a warning */
    assert_int_equal(g->n_warnings, 0);
    /* Nothing is said in the first word. After 2: two mentions of 3 objects; after 8 of them the cat. */
    const struct report_curve *c = &g->curves[0];
    assert_int_equal(c->n, 8);
    near(c->cuts[0].words, 2);
    near(c->cuts[0].recall, 2.0 / 3);
    near(c->cuts[0].chair_i, 0);
    near(c->cuts[7].words, 5);
    near(c->cuts[7].chair_i, 0.25);
    near(curve_at_length(c, 4.5), 0.125); /* between 13/3 and 14/3 */
    assert_true(isnan(curve_at_length(c, 1.9)) && isnan(curve_at_length(c, 5.1)));
    assert_true(isnan(curve_at_recall(c, 0.7)));
    near(g->curves[1].at_recall, 0);
    near(g->curves[1].at_length, 0);
    close_pair(&p);
}

static void test_seed(void **state) {
    struct report_options other = defaults;
    other.seed = 7;
    struct pair a;
    open_pair(&a, DATA "chair-greedy.json", DATA "chair-short.json", &defaults);
    struct pair b;
    open_pair(&b, DATA "chair-greedy.json", DATA "chair-short.json", &defaults);
    struct pair c;
    open_pair(&c, DATA "chair-greedy.json", DATA "chair-short.json", &other);
    const size_t size = a.g->n_runs * a.g->n_metrics;
    bool differs = false;
    for (size_t i = 0; i < size; i++) {
        assert_memory_equal(&a.g->values[i].low, &b.g->values[i].low, 2 * sizeof(double));
        assert_true(a.g->values[i].p == b.g->values[i].p || isnan(a.g->values[i].p));
        differs = differs || a.g->values[i].p != c.g->values[i].p;
    }
    assert_true(differs);
    other.resamples = 0;
    struct pair none;
    open_pair(&none, DATA "chair-greedy.json", DATA "chair-short.json", &other);
    assert_true(isnan(none.g->values[0].low) && !isnan(none.g->values[0].value));
    close_pair(&a);
    close_pair(&b);
    close_pair(&c);
    close_pair(&none);
}

/* ---- files written by the tests ------------------------------------------------------------------ */

static void write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

#define SUMMARY(benchmark, name, rest)                                                                                 \
    "{\"candid_run\":1,\"benchmark\":\"" benchmark "\",\"name\":\"" name "\",\"items\":\"test_report." name            \
    ".jsonl\",\"scored\":\"test_report." name ".scored.jsonl\"" rest "}"

/* A run of `name` with these files. */
static void write_run(const char *name, const char *summary, const char *answers, const char *verdicts) {
    char path[100];
    snprintf(path, sizeof path, "test_report.%s.json", name);
    write_file(path, summary);
    snprintf(path, sizeof path, "test_report.%s.jsonl", name);
    write_file(path, answers);
    snprintf(path, sizeof path, "test_report.%s.scored.jsonl", name);
    write_file(path, verdicts);
}

static void remove_run(const char *name) {
    static const char *const ends[] = {"json", "jsonl", "scored.jsonl"};
    char path[100];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "test_report.%s.%s", name, ends[i]);
        unlink(path);
    }
}

static void expect_error(const char *path, const char *part) {
    struct report_run run;
    candid_error error;
    assert_int_not_equal(report_run_read(path, &run, &error), CANDID_OK);
    if (!strstr(error.message, part)) {
        fail_msg("expected \"%s\" in \"%s\"", part, error.message);
    }
}

#define ANSWER(index, image, answer)                                                                                   \
    "{\"index\":" #index ",\"image\":\"" image "\",\"question\":\"q\",\"label\":\"yes\",\"answer\":\"" answer "\"}\n"
#define FAILED(index, image)                                                                                           \
    "{\"index\":" #index ",\"image\":\"" image "\",\"question\":\"q\",\"label\":\"yes\",\"error\":\"no such file\"}\n"
#define VERDICT(index, verdict, correct) "{\"index\":" #index ",\"verdict\":\"" verdict "\",\"correct\":" #correct "}\n"

static void test_broken_runs(void **state) {
    static const char summary[] = SUMMARY("pope", "x", "");
    static const struct {
        const char *summary, *answers, *verdicts, *error;
    } cases[] = {
        {"", "", "", "test_report.x.json: expected a JSON file, found an empty one"},
        {"{\"benchmark\":\"pope\",", "", "", "expected valid JSON"},
        {"[]", "", "", "expected a JSON object, found an array"},
        {"{\"name\":\"x\"}", "", "", "expected the summary of a run with a key benchmark"},
        {"{\"benchmark\":3}", "", "", "key benchmark: expected a string, found number 3"},
        {"{\"benchmark\":\"pope\"}", "", "", "expected a key items or scores, found neither"},
        {"{\"benchmark\":\"pope\",\"items\":\"../x\"}", "", "", "key items: expected the name of a file beside it"},
        {"{\"benchmark\":\"pope\",\"items\":\"missing\"}", "", "", "./missing: cannot be opened"},
        {summary, ANSWER(0, "a", "Yes") "{\"index\":1,\"image\":\"b\",\"ans", "",
         "test_report.x.jsonl:2: expected a line end, found a line that is cut off"},
        {summary, "\n{\"index\":0,\n", "", "test_report.x.jsonl:2: expected one JSON object on the line"},
        {summary, "{\"index\":0} x\n", "", "expected one JSON object on the line"},
        {summary, "7\n", "", "expected one JSON object on the line"},
        {summary, "{\"image\":\"a\"}\n", "", "key index: expected the number of a question, found none"},
        {summary, "{\"index\":-1}\n", "", "key index: expected the number of a question, found number -1"},
        {summary, "{\"index\":0,\"answer\":\"x\"}\n", "", "expected a key image, found none"},
        {summary, "{\"index\":0,\"image\":\"a\"}\n", "", "expected a key answer or error, found neither"},
        {summary, "{\"index\":0,\"image\":\"a\",\"answer\":[]}\n", "", "key answer: expected a string, found an array"},
        {summary, ANSWER(0, "a", "Yes") ANSWER(0, "a", "No"), "",
         "test_report.x.jsonl:1: expected one answer to question 0, found another on line 2"},
        {summary, ANSWER(0, "a", "Yes"), VERDICT(1, "yes", true),
         "scored.jsonl:1: expected a verdict on a question of"},
        {summary, FAILED(0, "a"), VERDICT(0, "yes", true), "expected a verdict on an answer, but question 0 has none"},
        {summary, ANSWER(0, "a", "Yes"), VERDICT(0, "yes", true) VERDICT(0, "no", false),
         "scored.jsonl:2: expected one verdict on question 0, found another on line 1"},
        {summary, ANSWER(0, "a", "Yes"), "{\"index\":0", "found a line that is cut off"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_run("x", cases[i].summary, cases[i].answers, cases[i].verdicts);
        expect_error("test_report.x.json", cases[i].error);
    }
    remove_run("x");
    expect_error("test_report.x.json", "cannot be opened");
    expect_error(".", "found a directory");
}

/* Questions that failed and were asked again, numbers as ids. */
static void test_retry(void **state) {
    write_run("x", SUMMARY("pope", "x", ""),
              FAILED(0, "a") "{\"index\":1,\"id\":17,\"image\":\"b\",\"answer\":\"No\"}\n\n" ANSWER(0, "a", "Yes"),
              VERDICT(1, "no", true) VERDICT(0, "yes", true));
    struct report_run run;
    candid_error error;
    assert_int_equal(report_run_read("test_report.x.json", &run, &error), CANDID_OK);
    assert_int_equal(run.questions.n, 2);
    assert_string_equal(run.questions.items[0].answer, "Yes");
    assert_string_equal(run.questions.items[1].id, "17");
    assert_null(run.errors[0]);
    assert_string_equal(cJSON_GetStringValue(json_find(run.verdicts[1], "verdict")), "no");
    report_run_free(&run);
    remove_run("x");
}

static void expect_build_error(const struct report_options *o, const char *part) {
    struct report_run x, y;
    struct report report;
    candid_error error;
    assert_int_equal(report_run_read("test_report.x.json", &x, &error), CANDID_OK);
    assert_int_equal(report_run_read("test_report.y.json", &y, &error), CANDID_OK);
    assert_int_not_equal(report_build((struct report_run *const[]){&x, &y}, 2, o, &report, &error), CANDID_OK);
    if (!strstr(error.message, part)) {
        fail_msg("expected \"%s\" in \"%s\"", part, error.message);
    }
    report_run_free(&x);
    report_run_free(&y);
}

static bool warns(const struct report_group *g, const char *part) {
    for (size_t w = 0; w < g->n_warnings; w++) {
        if (strstr(g->warnings[w], part)) {
            return true;
        }
    }
    return false;
}

static void test_other_questions(void **state) {
    write_run("x", SUMMARY("pope", "x", ""), ANSWER(0, "a", "Yes") ANSWER(1, "b", "No") ANSWER(2, "c", "Yes"),
              VERDICT(0, "yes", true) VERDICT(1, "no", false) VERDICT(2, "yes", true));
    write_run("y", SUMMARY("pope", "y", ",\"complete\":false"),
              ANSWER(5, "b", "Yes") FAILED(6, "c") ANSWER(9, "d", "No"),
              VERDICT(5, "yes", true) VERDICT(9, "no", false));
    struct report_options o = defaults;
    expect_build_error(&o, "did not answer the same questions (3 and 2 answers; a question about \"a\" is in the first "
                           "alone): compare them on what they share by --common");
    o.common = true;
    struct pair p;
    open_pair(&p, "test_report.x.json", "test_report.y.json", &o);
    assert_int_equal(p.g->n_items, 1);
    assert_string_equal(report_item(p.g, 0, 0)->image, "b");
    assert_true(warns(p.g, "the numbers are of the 1 that all share"));
    assert_true(warns(p.g, "y failed at 1 question, which do not count"));
    assert_true(warns(p.g, "y is not complete"));
    assert_true(warns(p.g, "There is no baseline among the runs"));
    assert_int_equal(p.g->baseline, SIZE_MAX);
    close_pair(&p);
    o.baseline = "x";
    open_pair(&p, "test_report.x.json", "test_report.y.json", &o);
    assert_int_equal(p.g->baseline, 0);
    near(value_of(p.g, 1, "all", "accuracy")->difference, 1);
    close_pair(&p);
    write_run("y", SUMMARY("pope", "y", ""), ANSWER(0, "z", "Yes"), VERDICT(0, "yes", true));
    expect_build_error(&o, "expected answers that can be compared, found none");
    write_run("y", SUMMARY("pope", "x", ""), ANSWER(0, "a", "Yes"), VERDICT(0, "yes", true));
    expect_build_error(&o, "expected runs of different names, found two that are called \"x\"");
    remove_run("x");
    remove_run("y");
}

/* Verdicts of another benchmark; none; a question asked twice of one image. */
static void test_wrong_verdicts(void **state) {
    write_run("x", SUMMARY("chair", "x", ""), ANSWER(0, "a", "Yes"), VERDICT(0, "yes", true));
    write_run("y", SUMMARY("chair", "y", ""), ANSWER(0, "a", "Yes"), VERDICT(0, "yes", true));
    expect_build_error(&defaults, "expected verdicts and labels of the benchmark chair, found for the image \"a\"");
    write_run("x", SUMMARY("pope", "x", ""), ANSWER(0, "a", "Yes") ANSWER(1, "a", "No"),
              VERDICT(0, "yes", true) VERDICT(1, "no", false));
    write_run("y", SUMMARY("pope", "y", ""), ANSWER(0, "a", "No") ANSWER(1, "a", "Yes"),
              VERDICT(0, "no", false) VERDICT(1, "yes", true));
    struct pair p;
    open_pair(&p, "test_report.x.json", "test_report.y.json", &defaults);
    assert_int_equal(p.g->n_items, 2);
    assert_int_equal(p.g->n_units, 1);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(report_item(p.g, 0, i)->answer, report_item(p.g, 1, 1 - i)->answer);
    }
    close_pair(&p);
    remove_run("x");
    remove_run("y");
}

static void test_unfair(void **state) {
    static const char *const rest[2] = {
        ",\"binary\":{\"version\":\"1\"},\"model\":{\"sha256\":\"aa\"},\"settings\":{\"precision\":\"exact\","
        "\"prompt\":"
        "\"p\"},\"threads\":2,\"data\":{\"sources\":[{\"sha256\":\"1\"}]},\"scores\":{\"rule\":\"official\",\"splits\":"
        "{"
        "\"all\":{\"accuracy\":0.25}}}}",
        ",\"binary\":{\"version\":\"2\"},\"model\":{\"sha256\":\"bb\"},\"settings\":{\"precision\":\"fast\"},"
        "\"threads\":"
        "1,\"data\":{\"sources\":[{\"sha256\":\"2\"}]},\"scores\":{\"rule\":\"vcd\"}}",
    };
    for (int i = 0; i < 2; i++) {
        char summary[700];
        snprintf(summary, sizeof summary, "%s%s", i ? SUMMARY("pope", "y", "") : SUMMARY("pope", "x", ""), "");
        snprintf(summary + strlen(summary) - 1, sizeof summary - strlen(summary) + 1, "%s", rest[i]);
        write_run(i ? "y" : "x", summary,
                  i ? "{\"index\":0,\"image\":\"a\",\"question\":\"q\",\"label\":\"no\",\"answer\":\"No\"}\n"
                    : ANSWER(0, "a", "Yes"),
                  i ? VERDICT(0, "no", true) : VERDICT(0, "yes", true));
    }
    struct report_options o = defaults;
    o.baseline = "x";
    struct pair p;
    open_pair(&p, "test_report.x.json", "test_report.y.json", &o);
    static const char *const expected[] = {
        "The version of candid is not the same: x: 1; y: 2.",
        "The model is not the same: x: aa; y: bb.",
        "The precision is not the same: x: exact; y: fast.",
        "The prompt is not the same: x: p; y: none.",
        "The rule of scoring is not the same: x: official; y: vcd.",
        "Their question files are not the same.",
        "Threads or batch size are not the same",
        "The runs disagree on the right answer to 1 question.",
        "x: its summary says accuracy 0.25, its verdicts make 1.",
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        if (!warns(p.g, expected[i])) {
            fail_msg("no warning says \"%s\"", expected[i]);
        }
    }
    assert_int_equal(p.g->n_warnings, sizeof expected / sizeof *expected);
    close_pair(&p);
    remove_run("x");
    remove_run("y");
}

/* Scores without answers stand beside runs. */
static void test_scores_only(void **state) {
    write_file("test_report.x.json", "{\"candid_score\":1,\"benchmark\":\"pope\",\"scores\":{\"rule\":\"official\","
                                     "\"splits\":{\"random\":{\"accuracy\":0.75,\"f1\":null},\"popular\":{\"accuracy\":"
                                     "0.5}},\"mean\":{\"accuracy\":0.625}}}");
    struct report_run alone, *only = &alone;
    struct report report;
    candid_error error;
    assert_int_equal(report_run_read("test_report.x.json", &alone, &error), CANDID_OK);
    assert_string_equal(alone.name, "test_report.x");
    assert_int_equal(report_build(&only, 1, &defaults, &report, &error), CANDID_OK);
    near(value_of(&report.groups[0], 0, "mean", "accuracy")->value, 0.625);
    near(value_of(&report.groups[0], 0, "random", "accuracy")->value, 0.75);
    assert_true(isnan(value_of(&report.groups[0], 0, "random", "f1")->value));
    report_free(&report);
    report_run_free(&alone);
    struct pair p;
    open_pair(&p, DATA "pope-greedy.json", "test_report.x.json", &defaults);
    near(value_of(p.g, 1, "random", "accuracy")->difference, 0.25);
    assert_true(isnan(value_of(p.g, 1, "random", "accuracy")->p));
    assert_true(isnan(value_of(p.g, 1, "random", "accuracy")->low));
    assert_int_equal(p.g->n_items, 8);
    assert_true(warns(p.g, "test_report.x has scores without answers"));
    close_pair(&p);
    unlink("test_report.x.json");
}

/* ---- MME, AMBER, others -------------------------------------------------------------------------- */

#define MME(index, split, image, question)                                                                             \
    "{\"index\":" #index ",\"split\":\"" split "\",\"image\":\"" image "\",\"question\":\"" question                   \
    "\",\"label\":\"yes\",\"answer\":\"Yes\"}\n"

static void test_mme(void **state) {
    write_run("x", SUMMARY("mme", "x", ""),
              MME(0, "existence", "1.jpg", "a") MME(1, "existence", "1.jpg", "b") MME(2, "existence", "2.jpg", "a")
                  MME(3, "existence", "2.jpg", "b") MME(4, "count", "1.jpg", "a") MME(5, "count", "1.jpg", "b"),
              VERDICT(0, "yes", true) VERDICT(1, "yes", true) VERDICT(2, "yes", true) VERDICT(3, "no", false)
                  VERDICT(4, "no", false) VERDICT(5, "yes", true));
    struct report_run run, *only = &run;
    struct report report;
    candid_error error;
    assert_int_equal(report_run_read("test_report.x.json", &run, &error), CANDID_OK);
    assert_int_equal(report_build(&only, 1, &defaults, &report, &error), CANDID_OK);
    const struct report_group *g = &report.groups[0];
    assert_int_equal(g->n_units, 3); /* an image of the same name in another sub-task is another */
    near(value_of(g, 0, "existence", "acc")->value, 0.75);
    near(value_of(g, 0, "existence", "acc_plus")->value, 0.5);
    near(value_of(g, 0, "existence", "score")->value, 125);
    near(value_of(g, 0, "count", "score")->value, 50);
    assert_int_equal(report_metric_find(g, "hallucination", "score"), SIZE_MAX); /* position and color are missing */
    report_free(&report);
    report_run_free(&run);
    remove_run("x");
}

/* One question of each of four sub-tasks; the last is answered wrong. The summary has other scores. */
static void test_mme_total(void **state) {
    write_run(
        "x", SUMMARY("mme", "x", ",\"scores\":{\"subtasks\":{\"existence\":{\"score\":199}},\"hallucination\":601}"),
        MME(0, "existence", "1", "a") MME(1, "count", "1", "a") MME(2, "position", "1", "a") MME(3, "color", "1", "a"),
        VERDICT(0, "yes", true) VERDICT(1, "yes", true) VERDICT(2, "yes", true) VERDICT(3, "other", false));
    struct report_run run, *only = &run;
    struct report report;
    candid_error error;
    assert_int_equal(report_run_read("test_report.x.json", &run, &error), CANDID_OK);
    assert_int_equal(report_build(&only, 1, &defaults, &report, &error), CANDID_OK);
    const struct report_group *g = &report.groups[0];
    near(value_of(g, 0, "hallucination", "score")->value, 601); /* what the summary says */
    assert_true(warns(g, "x: its summary says score 601, its verdicts make 600."));
    near(value_of(g, 0, "existence", "score")->value, 199);
    near(value_of(g, 0, "color", "score")->value, 0);
    assert_int_equal(report_metric_find(g, "perception", "score"), SIZE_MAX);
    report_free(&report);
    report_run_free(&run);
    remove_run("x");
}

static void test_amber(void **state) {
    write_run(
        "x", SUMMARY("amber", "x", ",\"scores\":{\"generative\":{\"cover\":49.9}}"),
        "{\"index\":0,\"split\":\"generative\",\"image\":\"1\",\"answer\":\"a tree and a dog\"}\n"
        "{\"index\":1,\"split\":\"generative\",\"image\":\"2\",\"answer\":\"a tree\"}\n"
        "{\"index\":2,\"split\":\"relation\",\"image\":\"1\",\"question\":\"q\",\"label\":\"no\",\"answer\":\"No\"}\n"
        "{\"index\":3,\"split\":\"relation\",\"image\":\"2\",\"question\":\"q\",\"label\":\"yes\",\"answer\":\"No\"}\n"
        "{\"index\":4,\"split\":\"relation\",\"image\":\"2\",\"question\":\"r\",\"label\":\"yes\",\"answer\":\"No\"}\n",
        "{\"index\":0,\"nouns\":[\"tree\",\"dog\"],\"hallucinated\":[\"dog\"],\"covered\":[\"tree\"],\"listed\":["
        "\"dog\"],\"truth\":2,\"hallu\":3}\n"
        "{\"index\":1,\"nouns\":[\"tree\"],\"hallucinated\":[],\"covered\":[\"tree\"],\"listed\":[],\"truth\":2,"
        "\"hallu\":2}\n" VERDICT(2, "no", true) VERDICT(3, "no", false) VERDICT(4, "no", false));
    struct report_run run, *only = &run;
    struct report report;
    candid_error error;
    assert_int_equal(report_run_read("test_report.x.json", &run, &error), CANDID_OK);
    assert_int_equal(report_build(&only, 1, &defaults, &report, &error), CANDID_OK);
    const struct report_group *g = &report.groups[0];
    near(value_of(g, 0, "generative", "chair")->value, 1.0 / 3);
    near(value_of(g, 0, "generative", "hal")->value, 0.5);
    near(value_of(g, 0, "generative", "cover")->value, 0.499); /* as the scorer has rounded it */
    near(value_of(g, 0, "generative", "cover")->low, 0.5);
    near(value_of(g, 0, "generative", "cog")->value, 0.2);
    assert_int_equal(g->n_warnings, 0);
    assert_int_equal(report_metric_find(g, "state", "f1"), SIZE_MAX);
    near(value_of(g, 0, "total", "accuracy")->value, 1.0 / 3);
    near(value_of(g, 0, "relation", "precision")->value, 1.0 / 3);
    near(value_of(g, 0, "relation", "recall")->value, 1);
    report_free(&report);
    /* Against a run that is right everywhere: two questions differ, of the total and of their dimension. */
    write_file("test_report.z.json", "{\"benchmark\":\"amber\",\"name\":\"z\",\"items\":\"test_report.x.jsonl\","
                                     "\"scored\":\"test_report.z.jsonl\"}");
    write_file(
        "test_report.z.jsonl",
        "{\"index\":0,\"nouns\":[],\"hallucinated\":[],\"covered\":[],\"listed\":[],\"truth\":2,\"hallu\":3}\n"
        "{\"index\":1,\"nouns\":[],\"hallucinated\":[],\"covered\":[],\"listed\":[],\"truth\":2,\"hallu\":2}\n" VERDICT(
            2, "no", true) VERDICT(3, "yes", true) VERDICT(4, "yes", true));
    struct report_options o = defaults;
    o.baseline = "x";
    struct pair p;
    open_pair(&p, "test_report.x.json", "test_report.z.json", &o);
    near(value_of(p.g, 1, "total", "accuracy")->p, 0.5);
    near(value_of(p.g, 1, "relation", "accuracy")->difference, 2.0 / 3);
    near(value_of(p.g, 1, "relation", "accuracy")->p, 0.5);
    near(value_of(p.g, 1, "generative", "cover")->value, 0);
    close_pair(&p);
    unlink("test_report.z.json");
    unlink("test_report.z.jsonl");
    report_run_free(&run);
    remove_run("x");
}

static void test_other(void **state) {
    write_file("test_report.x.json", "{\"benchmark\":\"vqa\",\"items\":\"test_report.x.jsonl\"}");
    write_file("test_report.x.jsonl", ANSWER(0, "a", "one  two three") ANSWER(1, "b", " four"));
    struct report_run run, *only = &run;
    struct report report;
    candid_error error;
    assert_int_equal(report_run_read("test_report.x.json", &run, &error), CANDID_OK);
    assert_int_equal(report_build(&only, 1, &defaults, &report, &error), CANDID_OK);
    near(value_of(&report.groups[0], 0, "", "words")->value, 2);
    assert_true(isnan(value_of(&report.groups[0], 0, "", "correct")->value));
    report_free(&report);
    report_run_free(&run);
    unlink("test_report.x.json");
    unlink("test_report.x.jsonl");
}

/* ---- marks --------------------------------------------------------------------------------------- */

static void check_marks(const char *answer, const char *verdict, const char *expected) {
    cJSON *v = cJSON_Parse(verdict);
    assert_non_null(v);
    struct mark marks[8];
    const size_t n = marks_find(answer, v, marks, 8);
    char found[200] = "";
    for (size_t k = 0; k < n; k++) {
        snprintf(found + strlen(found), sizeof found - strlen(found), "%s%zu-%zu%s", k ? " " : "", marks[k].begin,
                 marks[k].end, marks[k].hallucinated ? "!" : "");
    }
    assert_string_equal(found, expected);
    cJSON_Delete(v);
}

static void test_marks(void **state) {
#define OBJECT(word, h) "{\"word\":\"" word "\",\"hallucinated\":" #h "}"
    check_marks("Dogs: a dog-house, a DOG and dog's dog.",
                "{\"objects\":[" OBJECT("dogs", false) "," OBJECT("dog", true) "," OBJECT("dog", false) "," OBJECT(
                    "dog", true) "," OBJECT("dog", true) "]}",
                "0-4 21-24! 29-32 35-38!");
    check_marks("a wine\n glass, wineglass", "{\"objects\":[" OBJECT("wine glass", true) "," OBJECT("glass", true) "]}",
                "2-13!");
    check_marks("Trees, dogs", "{\"nouns\":[\"Trees\",\"dogs\"],\"hallucinated\":[\"dogs\"]}", "0-5 7-11!");
    check_marks("x", "{\"objects\":[" OBJECT("", true) ",{},3]}", "");
    check_marks("yes", "{\"verdict\":\"yes\",\"correct\":true}", "");
    check_marks("é dog dogé", "{\"objects\":[" OBJECT("dog", true) "," OBJECT("dog", true) "]}", "3-6!");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pope),           cmocka_unit_test(test_chair),
        cmocka_unit_test(test_seed),           cmocka_unit_test(test_broken_runs),
        cmocka_unit_test(test_retry),          cmocka_unit_test(test_other_questions),
        cmocka_unit_test(test_wrong_verdicts), cmocka_unit_test(test_unfair),
        cmocka_unit_test(test_scores_only),    cmocka_unit_test(test_mme),
        cmocka_unit_test(test_mme_total),      cmocka_unit_test(test_amber),
        cmocka_unit_test(test_other),          cmocka_unit_test(test_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
