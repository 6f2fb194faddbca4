/* Reports: what is written. Answers of tests/data/report hold what would break a page, a table or a CSV file. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base64.h"
#include "eval/report/page.h"
#include "eval/report/report.h"
#include "eval/report/svg.h"
#include "eval/report/write.h"

#define DATA TEST_DATA "/report/"

/* What a writer has written; free it. */
struct memory {
    FILE *f;
    char *text;
    size_t size;
};

static void memory_open(struct memory *m) {
    m->f = open_memstream(&m->text, &m->size);
    assert_non_null(m->f);
}

static const char *memory_close(struct memory *m) {
    assert_int_equal(fclose(m->f), 0);
    return m->text;
}

static void check_written(void (*write)(FILE *f, const char *text), const char *text, const char *expected) {
    struct memory m;
    memory_open(&m);
    write(m.f, text);
    assert_string_equal(memory_close(&m), expected);
    free(m.text);
}

static void test_escapes(void **state) {
    check_written(write_html, "<b a=\"1\" c='2'> & é\n\x01\xff\x7f",
                  "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt; &amp; é\n"
                  "\uFFFD\uFFFD\uFFFD");
    check_written(write_json, "</script><!--\"\\\n\t\u2028\u2029é\x02\xc3",
                  "\"\\u003c/script\\u003e\\u003c!--\\\"\\\\\\u000a\\u0009\\u2028\\u2029é\uFFFD\uFFFD\"");
    check_written(write_markdown, "a|b\\c\n*d* _e_ `f` [g](h) <i> #",
                  "a\\|b\\\\c \\*d\\* \\_e\\_ \\`f\\` \\[g\\](h) "
                  "\\<i\\> \\#");
    check_written(write_csv, "plain", "plain");
    check_written(write_csv, "a,\"b\"\r\nc", "\"a,\"\"b\"\"\r\nc\"");
}

static void check_double(double value, const char *expected) {
    struct memory m;
    memory_open(&m);
    write_double(m.f, value);
    assert_string_equal(memory_close(&m), expected);
    free(m.text);
}

static void test_numbers(void **state) {
    check_double(0.1, "0.1");
    check_double(1.0 / 3, "0.3333333333333333");
    check_double(0.1 + 0.2, "0.30000000000000004");
    check_double(-2, "-2");
    check_double(NAN, "");
    struct memory m;
    memory_open(&m);
    write_count(m.f, 1234567);
    write_count(m.f, 999);
    write_count(m.f, -1000);
    write_count(m.f, NAN);
    assert_string_equal(memory_close(&m), "1,234,567999-1,000–");
    free(m.text);
    memory_open(&m);
    base64_write(m.f, (const uint8_t *)"foobar", 4);
    assert_string_equal(memory_close(&m), "Zm9vYg==");
    free(m.text);
    struct shown p;
    assert_string_equal(show_p(&p, 0.0005), "p < 0.001");
    assert_string_equal(show_p(&p, 0.0125), "p = 0.013");
    assert_string_equal(show_p(&p, NAN), "");
}

/* ---- charts -------------------------------------------------------------------------------------- */

static void test_axis(void **state) {
    const double ranges[][2] = {{0, 1}, {94, 98.5},   {-3, 4},   {5, 5},
                                {0, 0}, {1e-9, 2e-9}, {0, 1e12}, {INFINITY, -INFINITY}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        for (int zero = 0; zero < 2; zero++) {
            const struct svg_axis a = svg_axis(ranges[i][0], ranges[i][1], zero);
            const double ticks = (a.high - a.low) / a.step;
            assert_true(a.step > 0 && ticks >= 2 && ticks <= 11);
            assert_true(isinf(ranges[i][0]) || (a.high >= ranges[i][1] && (zero || a.low <= ranges[i][0])));
        }
    }
}

/* Labels of points that lie together do not cover each other. */
static void test_labels(void **state) {
    struct svg_point points[6];
    for (int i = 0; i < 6; i++) {
        points[i] =
            (struct svg_point){.x = 0.01 * i, .y = i == 5 ? NAN : 0.01 * (i % 2), .label = "method", .colour = i};
    }
    points[0].x = -1;
    points[0].y = 1;
    struct memory m;
    memory_open(&m);
    svg_write_scatter(m.f, &(struct svg_scatter){
                               .title = "a < b", .about = "c", .x_name = "x", .y_name = "y", .points = points, .n = 6});
    const char *text = memory_close(&m);
    assert_non_null(strstr(text, "<title>a &lt; b</title>"));
    double x[8], y[8];
    int n = 0;
    for (const char *at = text; (at = strstr(at, "class=\"label")); at++) {
        const char *open = at;
        while (strncmp(open, "<text", 5) != 0) {
            open--;
        }
        assert_int_equal(sscanf(open, "<text x=\"%lf\" y=\"%lf\"", &x[n], &y[n]), 2);
        n++;
    }
    assert_int_equal(n, 5); /* not the one that is undefined */
    for (int a = 0; a < n; a++) {
        for (int b = a + 1; b < n; b++) {
            assert_true(fabs(x[a] - x[b]) > 40 || fabs(y[a] - y[b]) > 10);
        }
    }
    free(m.text);
}

/* ---- outputs ------------------------------------------------------------------------------------- */

struct two {
    struct report_run runs[4];
    struct report report;
};

static void open_two(struct two *t, const struct report_options *options) {
    static const char *const names[] = {"pope-vhr", "chair-greedy", "chair-short", "pope-greedy"};
    struct report_run *runs[4];
    candid_error error;
    for (int i = 0; i < 4; i++) {
        char path[300];
        snprintf(path, sizeof path, DATA "%s.json", names[i]);
        runs[i] = &t->runs[i];
        assert_int_equal(report_run_read(path, runs[i], &error), CANDID_OK);
    }
    assert_int_equal(report_build(runs, 4, options, &t->report, &error), CANDID_OK);
}

static void close_two(struct two *t) {
    report_free(&t->report);
    for (int i = 0; i < 4; i++) {
        report_run_free(&t->runs[i]);
    }
}

static void write_with(candid_status (*write)(const struct report *, FILE *, candid_error *),
                       const struct report_options *options, struct memory *m) {
    struct two t;
    candid_error error;
    open_two(&t, options);
    memory_open(m);
    assert_int_equal(write(&t.report, m->f, &error), CANDID_OK);
    memory_close(m);
    close_two(&t);
}

static size_t count(const char *text, const char *part) {
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, part)); at += strlen(part)) {
        n++;
    }
    return n;
}

static void has(const char *text, const char *part) {
    if (!strstr(text, part)) {
        fail_msg("\"%s\" is missing", part);
    }
}

static void test_html(void **state) {
    struct report_options o = REPORT_DEFAULTS;
    o.images = DATA "images";
    o.title = "T & <t>";
    struct memory m, again;
    write_with(report_write_html, &o, &m);
    write_with(report_write_html, &o, &again);
    assert_int_equal(m.size, again.size);
    assert_memory_equal(m.text, again.text, m.size);
    assert_int_equal(count(m.text, "<script"), 2); /* the data and the program */
    assert_int_equal(count(m.text, "</script>"), 2);
    assert_null(strstr(m.text, "<model>"));
    assert_null(strstr(m.text, "<this>"));
    has(m.text, "<title>T &amp; &lt;t&gt;</title>");
    has(m.text, "a | b &lt;model&gt;");
    has(m.text, "Describe &lt;this&gt;.");
    has(m.text, "configs/vhr.json <code>{&quot;vhr&quot;:{&quot;alpha&quot;:2}}</code>");
    has(m.text, "<td class=best><b>87.50</b>"); /* accuracy of vhr */
    has(m.text, "<td><b>1.25</b>");             /* its time */
    assert_int_equal(count(m.text, "data:image/png;base64,"), 1);
    const char *data = strstr(m.text, "id=\"data\">") + strlen("id=\"data\">");
    cJSON *json = cJSON_ParseWithLength(data, (size_t)(strstr(data, "</script>") - data));
    assert_non_null(json);
    assert_int_equal(json_find(json, "distinct")->valueint, 3);
    assert_int_equal(json_find(json, "embedded")->valueint, 1);
    assert_int_equal(json_find(json, "missing")->valueint, 2);
    const cJSON *pope = json_find(json, "groups")->child, *chair = pope->next;
    assert_int_equal(cJSON_GetArraySize(json_find(pope, "items")), 8);
    const cJSON *no = cJSON_GetArrayItem(json_find(cJSON_GetArrayItem(json_find(pope, "items"), 1), "a"), 1);
    assert_string_equal(cJSON_GetArrayItem(no, 2)->valuestring,
                        "No, | \"none\" </script><script>alert(1)</script><!-- ]]> \u2028 &amp;");
    assert_int_equal(cJSON_GetArrayItem(no, 0)->valueint, 0);
    const cJSON *caption = json_find(json_find(chair, "items")->child, "a")->child;
    char *pieces = cJSON_PrintUnformatted(caption);
    assert_string_equal(pieces,
                        "[1,\"\",\"A \",{\"w\":\"Dog\",\"h\":0},\" and a \",{\"w\":\"dog\",\"h\":0},\" beside a "
                        "\",{\"w\":\"cat\",\"h\":1},\".\"]");
    cJSON_free(pieces);
    cJSON_Delete(json);
    free(m.text);
    free(again.text);
    o.images_limit = 0;
    write_with(report_write_html, &o, &m);
    assert_null(strstr(m.text, "data:image"));
    has(m.text, "\"distinct\":3,\"embedded\":0,\"missing\":0");
    free(m.text);
}

static void test_markdown(void **state) {
    const struct report_options o = REPORT_DEFAULTS;
    struct memory m;
    write_with(report_write_markdown, &o, &m);
    has(m.text, "8 questions about 2 images; model: a \\| b \\<model\\>; candid: 0.1.0;");
    has(m.text, "| method | Accuracy ↑ | Precision ↑ | Recall ↑ | F1 ↑ | Yes ratio | difference of Accuracy | time, × "
                "baseline |\n|---|---|---|---|---|---|---|---|\n");
    has(m.text, "| greedy | 50.00 (50.00–50.00) | 50.00 (50.00–50.00) |"); /* a resample without yes counts not */
    has(m.text, "| vhr | **87.50** (75.00–100.00) |");
    has(m.text, " +50.00, p = 0.500 | 1.25 |"); /* random */
    has(m.text, " −25.00, p = 1.000 | 1.25 |"); /* popular */
    has(m.text,
        "| method | CHAIR\\_s ↓ | CHAIR\\_i ↓ | Recall ↑ | Precision ↑ | F1 ↑ | Length | difference of CHAIR\\_i | "
        "baseline's CHAIR\\_i at this recall | … at this length | time, × baseline |\n");
    /* every row of a table has as many cells as its head */
    size_t cells = 0;
    for (char *line = strtok(m.text, "\n"); line; line = strtok(NULL, "\n")) {
        size_t n = 0;
        for (const char *at = line; *at; at++) {
            n += *at == '|' && (at == line || at[-1] != '\\');
        }
        if (line[0] == '|') {
            assert_true(cells == 0 || n == cells);
            cells = n;
        } else {
            cells = 0;
        }
    }
    free(m.text);
}

static void test_csv(void **state) {
    struct report_options o = REPORT_DEFAULTS;
    o.resamples = 0;
    struct memory m;
    write_with(report_write_csv, &o, &m);
    has(m.text, "benchmark,run,split,metric,value,low,high,difference,difference_low,difference_high,p\n"
                "pope,greedy,mean,accuracy,0.75,,,,,,\n");
    has(m.text, "\npope,vhr,popular,precision,0.6666666666666666,,,-0.33333333333333337,,,\n");
    has(m.text, "\npope,vhr,random,accuracy,1,,,0.5,,,0.5\n"); /* McNemar needs no resamples */
    has(m.text, "\nchair,short,,baseline_chair_i_at_recall,0,,,,,,\n");
    has(m.text, "\nchair,short,,time_relative,0.5,,,,,,\n");
    free(m.text);
}

/* ---- images -------------------------------------------------------------------------------------- */

static bool embeds(const char *folder, const char *name, const char *begin) {
    struct memory m;
    candid_error error;
    bool written;
    memory_open(&m);
    assert_int_equal(page_image(m.f, folder, name, &written, &error), CANDID_OK);
    const char *text = memory_close(&m);
    assert_true(written == (m.size > 0));
    const bool right = written && strncmp(text, begin, strlen(begin)) == 0;
    free(m.text);
    return right;
}

static void test_images(void **state) {
    assert_true(embeds(DATA "images", "a.png", "data:image/png;base64,iVBOR"));
    assert_false(embeds(DATA "images", "missing.png", ""));
    assert_false(embeds(NULL, "a.png", ""));
    assert_false(embeds(DATA, "pope-vhr.json", "")); /* is no image */
    assert_false(embeds(DATA "images", "../images/a.png", ""));
    assert_false(embeds(DATA "images", DATA "images/a.png", ""));
    assert_false(embeds(DATA, "images", ""));
    assert_true(embeds(DATA, "images/a.png", "data:image/png"));
    /* What browsers do not show, or what is large, is written anew and not larger than 480 pixels. */
    FILE *f = fopen("test_report_output.ppm", "wb");
    assert_non_null(f);
    fputs("P6 700 20 255\n", f);
    for (int i = 0; i < 700 * 20 * 3; i++) {
        fputc(i % 251, f);
    }
    assert_int_equal(fclose(f), 0);
    assert_true(embeds(".", "test_report_output.ppm", "data:image/jpeg;base64,/9j/"));
    unlink("test_report_output.ppm");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escapes), cmocka_unit_test(test_numbers), cmocka_unit_test(test_axis),
        cmocka_unit_test(test_labels),  cmocka_unit_test(test_html),    cmocka_unit_test(test_markdown),
        cmocka_unit_test(test_csv),     cmocka_unit_test(test_images),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
