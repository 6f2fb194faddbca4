/* The page: what was run, tables, charts, answers. */
#include <math.h>
#include <string.h>

#include "core/status.h"
#include "eval/report/page.h"
#include "eval/report/rules.h"
#include "eval/report/write.h"

/* ---- what was run -------------------------------------------------------------------------------- */

static const char *title_of(const struct report_group *g) {
    return g->rules->title ? g->rules->title : g->benchmark;
}

static void write_item(FILE *f, const cJSON *item) {
    if (cJSON_IsString(item)) {
        write_html(f, item->valuestring);
    } else if (item) {
        char *text = cJSON_PrintUnformatted(item);
        write_html(f, text ? text : "");
        cJSON_free(text);
    }
}

/* A fact that holds for all runs, or what each run says. */
static void write_fact(FILE *f, const struct report_group *g, const char *name, const char *path) {
    const cJSON *first = report_summary(g->runs[0], path);
    bool same = true, any = first != NULL;
    for (size_t r = 1; r < g->n_runs; r++) {
        const cJSON *other = report_summary(g->runs[r], path);
        same = same && ((!first && !other) || (first && other && cJSON_Compare(first, other, true)));
        any = any || other;
    }
    if (!any) {
        return;
    }
    fprintf(f, "<div><dt>%s</dt><dd>", name);
    if (same) {
        write_item(f, first);
    }
    for (size_t r = 0; r < g->n_runs && !same; r++) {
        fputs(r > 0 ? "<br><b>" : "<b>", f);
        write_html(f, g->runs[r]->name);
        fputs("</b>: ", f);
        const cJSON *value = report_summary(g->runs[r], path);
        if (value) {
            write_item(f, value);
        } else {
            fputs("none", f);
        }
    }
    fputs("</dd></div>\n", f);
}

static void write_sources(FILE *f, const struct report_group *g) {
    const cJSON *sources = report_summary(g->runs[0], "data.sources");
    for (const cJSON *s = cJSON_IsArray(sources) ? sources->child : NULL; s; s = s->next) {
        const cJSON *path = json_find(s, "path"), *sha = json_find(s, "sha256"), *lines = json_find(s, "lines"),
                    *known = json_find(s, "known_as");
        fputs("<div class=long><dt>Questions</dt><dd>", f);
        write_item(f, path);
        if (cJSON_IsNumber(lines)) {
            fputs(", ", f);
            write_count(f, lines->valuedouble);
            fputs(" lines", f);
        }
        if (known) {
            fputs(", known as ", f);
            write_item(f, known);
        }
        fputs("<br><code>sha256 ", f);
        write_item(f, sha);
        fputs("</code></dd></div>\n", f);
    }
}

static void write_configs(FILE *f, const struct report_group *g) {
    fputs("<div class=wide><table class=runs><thead><tr><th>Run<th>Configuration<th>Started<th>Fingerprint</thead>\n",
          f);
    for (size_t r = 0; r < g->n_runs; r++) {
        const struct report_run *run = g->runs[r];
        const cJSON *config = report_summary(run, "config"), *file = report_summary(run, "config_file");
        fputs("<tr><th>", f);
        write_html(f, run->name);
        fputs("<td>", f);
        write_item(f, file);
        if (cJSON_IsObject(config) && config->child) {
            fputs(file ? " <code>" : "<code>", f);
            write_item(f, config);
            fputs("</code>", f);
        } else if (!file) {
            fputs("none", f);
        }
        fputs("<td>", f);
        write_item(f, report_summary(run, "time.started"));
        fputs("<td><code>", f);
        write_item(f, report_summary(run, "fingerprint"));
        fputs("</code>\n", f);
    }
    fputs("</table></div>\n", f);
}

static void write_setup(FILE *f, const struct report_group *g) {
    static const struct {
        const char *name, *path;
    } facts[] = {
        {"Model", "model.name"},
        {"Model file", "model.path"},
        {"Model sha256", "model.sha256"},
        {"Image encoder", "model.mmproj"},
        {"candid", "binary.version"},
        {"Commit", "binary.commit"},
        {"Backend", "binary.backend"},
        {"Precision", "settings.precision"},
        {"KV cache", "settings.kv"},
        {"Preprocessing", "settings.preprocess"},
        {"JPEG decoder", "settings.jpeg_decoder"},
        {"Conversation", "settings.conversation"},
        {"Prompt", "settings.prompt"},
        {"Left out of questions", "settings.cut"},
        {"Suffix of questions", "settings.suffix"},
        {"New tokens at most", "settings.max_new_tokens"},
        {"Temperature", "settings.temperature"},
        {"Seed", "settings.seed"},
        {"Threads", "threads"},
        {"Batch", "settings.batch"},
        {"Rule", "scores.rule"},
        {"Mode", "scores.mode"},
        {"Tagger", "scores.tagger"},
        {"Truth", "scores.truth"},
        {"Images", "data.images"},
    };
    fputs("<details class=setup><summary>What was run, to the letter</summary><dl>\n", f);
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        write_fact(f, g, facts[i].name, facts[i].path);
    }
    write_sources(f, g);
    fputs("</dl>\n", f);
    write_configs(f, g);
    fputs("</details>\n", f);
}

/* "1,194 questions about 200 images · rule official · candid-demo · …" */
static void write_summary_line(FILE *f, const struct report_group *g) {
    static const char *const paths[] = {"scores.rule", "scores.mode", "scores.truth", "scores.tagger"};
    static const char *const names[] = {"rule", "mode", "truth", "tagger"};
    fputs("<p class=lead>", f);
    if (g->n_items > 0) {
        write_count(f, (double)g->n_items);
        fputs(g->rules == &report_chair ? " captions of " : " questions about ", f);
        write_count(f, (double)g->n_units);
        fputs(g->n_units == 1 ? " image" : " images", f);
    } else {
        fputs("Scores without answers", f);
    }
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        const char *value = report_summary_string(g->runs[0], paths[i]);
        if (value) {
            fprintf(f, " · %s <b>", names[i]);
            write_html(f, value);
            fputs("</b>", f);
        }
    }
    fputs("</p>\n", f);
}

static void write_warnings(FILE *f, const struct report_group *g) {
    if (g->n_warnings == 0) {
        return;
    }
    fputs("<aside class=warning role=note><b>Read this first</b><ul>", f);
    for (size_t w = 0; w < g->n_warnings; w++) {
        fputs("<li>", f);
        write_html(f, g->warnings[w]);
    }
    fputs("</ul></aside>\n", f);
}

/* ---- tables -------------------------------------------------------------------------------------- */

static void write_value(FILE *f, const struct report_group *g, size_t run, size_t metric) {
    const struct report_metric *m = &g->metrics[metric];
    const struct report_value *v = report_value(g, run, metric);
    struct shown a, b;
    fprintf(f, "<td%s><b>%s</b>", report_is_best(g, run, metric) ? " class=best" : "",
            show_value(&a, g, m, v->value, false));
    if (!isnan(v->low)) {
        fprintf(f, "<small>%s – %s</small>", show_value(&a, g, m, v->low, false), show_value(&b, g, m, v->high, false));
    }
    if (!isnan(v->difference)) {
        const double good = v->difference * m->better;
        const char *class = !(v->p < 0.05) || good == 0 ? "same" : good > 0 ? "up" : "down";
        fprintf(f, "<small class=%s>%s", class, show_value(&a, g, m, v->difference, true));
        if (!isnan(v->p)) {
            fputs(" <i>", f);
            write_html(f, show_p(&b, v->p));
            fputs("</i>", f);
        }
        fputs("</small>", f);
    }
}

static void write_name(FILE *f, const struct report *report, const struct report_group *g, size_t run) {
    fprintf(f, "<tr><th scope=row><i class=\"key m%d\"></i>", page_colour(report, g, run));
    write_html(f, g->runs[run]->name);
    fputs(run == g->baseline ? "<small>baseline</small>" : "", f);
}

/* CHAIR_i of the baseline where it has the method's recall, or length. */
static void write_matched(FILE *f, const struct report_group *g, size_t run, double baseline) {
    const struct report_metric *m = &g->metrics[report_metric_find(g, "", "chair_i")];
    const double mine = report_value(g, run, report_metric_find(g, "", "chair_i"))->value;
    struct shown shown;
    if (run == g->baseline || isnan(baseline)) {
        fprintf(f, "<td><b class=none>%s</b>%s", run == g->baseline ? "" : "–",
                run == g->baseline ? "" : "<small>never gets there</small>");
        return;
    }
    fprintf(f, "<td><b>%s</b>", show_value(&shown, g, m, baseline, false));
    const char *class = fabs(mine - baseline) < 0.0005 ? "same" : mine < baseline ? "up" : "down";
    fprintf(f, "<small class=%s>method %s</small>", class, show_value(&shown, g, m, mine - baseline, true));
}

/* The metrics from `begin` to `end`, one row per run. */
static void write_table(FILE *f, const struct report *report, const struct report_group *g, size_t begin, size_t end) {
    const bool matched = g->curves && g->baseline != SIZE_MAX && g->n_runs > 1;
    fputs("<div class=wide><table class=scores><thead><tr><th scope=col>Method", f);
    for (size_t m = begin; m < end; m++) {
        static const char *const arrows[] = {" <span title=\"lower is better\">↓</span>", "",
                                             " <span title=\"higher is better\">↑</span>"};
        if (report_is_known(g, m)) {
            fputs("<th scope=col>", f);
            write_html(f, g->metrics[m].name);
            fputs(arrows[g->metrics[m].better + 1], f);
        }
    }
    fputs(matched
              ? "<th scope=col>Baseline’s CHAIR_i<br>at this recall<th scope=col>Baseline’s CHAIR_i<br>at this length"
              : "",
          f);
    fputs("</thead><tbody>\n", f);
    for (size_t r = 0; r < g->n_runs; r++) {
        write_name(f, report, g, r);
        for (size_t m = begin; m < end; m++) {
            if (report_is_known(g, m)) {
                write_value(f, g, r, m);
            }
        }
        if (matched) {
            write_matched(f, g, r, g->curves[r].at_recall);
            write_matched(f, g, r, g->curves[r].at_length);
        }
        fputc('\n', f);
    }
    fputs("</tbody></table></div>\n", f);
}

/* Metrics of one split stand together; those of the first table at the top, the others in a fold. */
static void write_tables(FILE *f, const struct report *report, const struct report_group *g) {
    bool folded = false;
    for (size_t begin = 0, end; begin < g->n_metrics; begin = end) {
        for (end = begin; end < g->n_metrics && strcmp(g->metrics[end].split, g->metrics[begin].split) == 0; end++) {
        }
        const char *split = g->metrics[begin].split;
        if (!g->metrics[begin].main && !folded) {
            fputs("<details class=splits><summary>Every split</summary>\n", f);
            folded = true;
        }
        if (split[0]) {
            fputs("<h3>", f);
            write_html(f, strcmp(split, "mean") == 0 ? "Mean of the splits" : split);
            fputs("</h3>\n", f);
        }
        write_table(f, report, g, begin, end);
    }
    fputs(folded ? "</details>\n" : "", f);
}

static void write_number(FILE *f, int decimals, double value) {
    fputs("<td><b>", f);
    if (isnan(value)) {
        fputs("–", f);
    } else {
        fprintf(f, "%.*f", decimals, value);
    }
    fputs("</b>", f);
}

static candid_status write_costs(FILE *f, const struct report *report, const struct report_group *g,
                                 candid_error *error) {
    fputs("<h3>Cost</h3>\n<div class=\"charts costs\"><div class=wide><table class=scores><thead><tr><th "
          "scope=col>Method<th scope=col>Questions/s"
          "<th scope=col>× time<th scope=col>Tokens/s<th scope=col>Prefilled<th scope=col>Reused"
          "<th scope=col>Generated<th scope=col>Images</thead><tbody>\n",
          f);
    for (size_t r = 0; r < g->n_runs; r++) {
        const struct report_cost *c = &g->costs[r];
        write_name(f, report, g, r);
        write_number(f, 1, c->questions_per_s);
        write_number(f, 2, c->relative);
        write_number(f, 0, c->tokens_per_s);
        const double counts[] = {c->prefilled, c->reused, c->generated, c->images_encoded};
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            fputs("<td><b>", f);
            write_count(f, counts[i]);
            fputs("</b>", f);
        }
        fputc('\n', f);
    }
    fputs("</tbody></table><p class=quiet>× time: per question, in that of the baseline. Prefilled, reused, generated: "
          "tokens of all questions. Images: passes of the image encoder.</p></div>\n",
          f);
    TRY(page_cost_chart(f, report, g, error));
    fputs("</div>\n", f);
    return CANDID_OK;
}

static void write_legend(FILE *f, const struct report *report, const struct report_group *g) {
    if (report->options.resamples == 0 || g->n_items == 0) {
        return;
    }
    fputs("<p class=quiet>Small: 95 % intervals from ", f);
    write_count(f, (double)report->options.resamples);
    fputs(" resamples of the images, and the difference to the baseline. ", f);
    fputs(g->rules->yes_no ? "p: McNemar’s exact test of the accuracy of a split; else the paired bootstrap. "
                           : "p: paired bootstrap. ",
          f);
    fputs("Green and red differ at p &lt; 0.05, not corrected for the number of comparisons.", f);
    if (g->curves && g->n_runs > 1 && g->baseline != SIZE_MAX) {
        fputs(" The last two columns cut all captions of the baseline after some words, until its recall or length is "
              "the method’s.",
              f);
    }
    fputs("</p>\n", f);
}

/* ---- page ---------------------------------------------------------------------------------------- */

/* The title given, or "POPE and CHAIR: candid-demo". */
static void write_title(FILE *f, const struct report *report) {
    if (report->options.title) {
        write_html(f, report->options.title);
        return;
    }
    for (size_t i = 0; i < report->n_groups; i++) {
        fputs(i == 0 ? "" : i + 1 < report->n_groups ? ", " : " and ", f);
        write_html(f, title_of(&report->groups[i]));
    }
    const char *model = report_summary_string(report->runs[0], "model.name");
    fputs(model ? ": " : "", f);
    write_html(f, model ? model : "");
}

static void write_head(FILE *f, const struct report *report) {
    fputs("<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
          "<meta name=viewport content=\"width=device-width,initial-scale=1\">"
          "<meta name=color-scheme content=\"light dark\"><title>",
          f);
    write_title(f, report);
    fprintf(f, "</title>\n<style>%s</style></head><body>\n<header><p class=brand>candid report</p><h1>",
            report_page_css);
    write_title(f, report);
    fputs("</h1><p>", f);
    const struct report_run *run = report->runs[0];
    const char *parts[] = {report_summary_string(run, "model.name"), report_summary_string(run, "binary.version"),
                           report_summary_string(run, "binary.backend"), report_summary_string(run, "time.started")};
    for (size_t i = 0, n = 0; i < sizeof parts / sizeof *parts; i++) {
        if (parts[i]) {
            fputs(n++ > 0 ? " · " : "", f);
            fputs(i == 1 ? "candid " : "", f);
            write_html(f, parts[i]);
        }
    }
    fputs("</p><nav>", f);
    for (size_t i = 0; i < report->n_groups; i++) {
        fprintf(f, "<a href=\"#b%zu\">", i);
        write_html(f, title_of(&report->groups[i]));
        fputs("</a>", f);
    }
    fputs("<a href=\"#answers\">Answers</a></nav></header>\n", f);
}

candid_status report_write_html(const struct report *report, FILE *f, candid_error *error) {
    if (report->n_runs == 0) {
        return fail(error, CANDID_ERROR_ARGUMENT, "expected runs to report, found none");
    }
    write_head(f, report);
    for (size_t i = 0; i < report->n_groups; i++) {
        const struct report_group *g = &report->groups[i];
        fprintf(f, "<section id=b%zu><h2>", i);
        write_html(f, title_of(g));
        fputs("</h2>\n", f);
        write_summary_line(f, g);
        write_warnings(f, g);
        write_tables(f, report, g);
        write_legend(f, report, g);
        TRY(page_charts(f, report, g, error));
        TRY(write_costs(f, report, g, error));
        write_setup(f, g);
        fputs("</section>\n", f);
    }
    fputs("<section id=answers><h2>Answers</h2><noscript><p>The answers are shown by a script.</p></noscript>"
          "<div id=explorer></div></section>\n",
          f);
    TRY(page_answers(f, report, error));
    fprintf(f, "<footer>candid %s</footer>\n<script>%s</script>\n</body></html>\n", candid_version(), report_page_js);
    return CANDID_OK;
}
