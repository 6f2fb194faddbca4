/* The report as Markdown tables. */
#include <math.h>
#include <string.h>

#include "core/status.h"
#include "eval/report/rules.h"
#include "eval/report/write.h"

static void write_cell(FILE *f, const struct report_group *g, size_t run, size_t metric) {
    const struct report_metric *m = &g->metrics[metric];
    const struct report_value *v = report_value(g, run, metric);
    const char *mark = report_is_best(g, run, metric) ? "**" : "";
    struct shown a, b;
    fprintf(f, " %s%s%s", mark, show_value(&a, g, m, v->value, false), mark);
    if (!isnan(v->low)) {
        fprintf(f, " (%s–%s)", show_value(&a, g, m, v->low, false), show_value(&b, g, m, v->high, false));
    }
    fputs(" |", f);
}

/* The difference of the first metric that has a direction. */
static void write_difference(FILE *f, const struct report_group *g, size_t run, size_t lead) {
    struct shown a, b;
    const struct report_value *v = report_value(g, run, lead);
    fputs(" ", f);
    if (!isnan(v->difference)) {
        fputs(show_value(&a, g, &g->metrics[lead], v->difference, true), f);
        fputs(isnan(v->p) ? "" : ", ", f);
        fputs(show_p(&b, v->p), f);
    }
    fputs(" |", f);
}

static void write_table(FILE *f, const struct report_group *g, size_t begin, size_t end) {
    size_t lead = begin, columns = 1; /* whose differences are given; besides the name */
    while (lead + 1 < end && (g->metrics[lead].better == 0 || !report_is_known(g, lead) ||
                              strcmp(g->metrics[lead].key, "chair_s") == 0)) {
        lead++;
    }
    const bool compared =
        g->baseline != SIZE_MAX && g->n_runs > 1 && g->metrics[lead].better != 0 && report_is_known(g, lead);
    const bool matched = compared && g->curves;
    fputs("| method |", f);
    for (size_t m = begin; m < end; m++) {
        if (report_is_known(g, m)) {
            fputs(" ", f);
            write_markdown(f, g->metrics[m].name);
            fputs(g->metrics[m].better > 0 ? " ↑ |" : g->metrics[m].better < 0 ? " ↓ |" : " |", f);
            columns++;
        }
    }
    if (compared) {
        fputs(" difference of ", f);
        write_markdown(f, g->metrics[lead].name);
        fputs(" |", f);
    }
    fputs(matched ? " baseline's CHAIR\\_i at this recall | … at this length |" : "", f);
    fputs(" time, × baseline |\n|---|", f);
    for (size_t i = 0; i < columns + compared + 2 * matched; i++) {
        fputs("---|", f);
    }
    for (size_t r = 0; r < g->n_runs; r++) {
        fputs("\n| ", f);
        write_markdown(f, g->runs[r]->name);
        fputs(" |", f);
        for (size_t m = begin; m < end; m++) {
            if (report_is_known(g, m)) {
                write_cell(f, g, r, m);
            }
        }
        if (compared) {
            write_difference(f, g, r, lead);
        }
        if (matched) {
            struct shown a, b;
            const struct report_metric *m = &g->metrics[lead];
            const bool other = r != g->baseline;
            fprintf(f, " %s | %s |", other ? show_value(&a, g, m, g->curves[r].at_recall, false) : "",
                    other ? show_value(&b, g, m, g->curves[r].at_length, false) : "");
        }
        if (isnan(g->costs[r].relative)) {
            fputs(" – |", f);
        } else {
            fprintf(f, " %.2f |", g->costs[r].relative);
        }
    }
    fputs("\n\n", f);
}

static void write_facts(FILE *f, const struct report_group *g) {
    static const struct {
        const char *path, *name;
    } facts[] = {
        {"model.name", "model"},       {"binary.version", "candid"},        {"binary.commit", "commit"},
        {"binary.backend", "backend"}, {"settings.precision", "precision"}, {"settings.preprocess", "preprocessing"},
        {"settings.prompt", "prompt"}, {"settings.suffix", "suffix"},       {"scores.rule", "rule"},
        {"scores.mode", "mode"},       {"scores.truth", "truth"},           {"scores.tagger", "tagger"},
    };
    if (g->n_items > 0) {
        write_count(f, (double)g->n_items);
        fputs(g->rules == &report_chair ? " captions of " : " questions about ", f);
        write_count(f, (double)g->n_units);
        fputs(g->n_units == 1 ? " image" : " images", f);
    } else {
        fputs("Scores without answers", f);
    }
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        const char *value = report_summary_string(g->runs[0], facts[i].path);
        if (value) {
            fprintf(f, "; %s: ", facts[i].name);
            write_markdown(f, value);
        }
    }
    fputs(".\n\n", f);
}

candid_status report_write_markdown(const struct report *report, FILE *f, candid_error *error) {
    if (report->options.title) {
        fputs("## ", f);
        write_markdown(f, report->options.title);
        fputs("\n\n", f);
    }
    for (size_t i = 0; i < report->n_groups; i++) {
        const struct report_group *g = &report->groups[i];
        fputs("### ", f);
        write_markdown(f, g->rules->title ? g->rules->title : g->benchmark);
        fputs("\n\n", f);
        write_facts(f, g);
        for (size_t w = 0; w < g->n_warnings; w++) {
            fputs("> **Warning.** ", f);
            write_markdown(f, g->warnings[w]);
            fputs("\n\n", f);
        }
        for (size_t begin = 0, end; begin < g->n_metrics; begin = end) {
            const char *split = g->metrics[begin].split;
            for (end = begin; end < g->n_metrics && strcmp(g->metrics[end].split, split) == 0; end++) {
            }
            if (split[0]) {
                fputs("#### ", f);
                write_markdown(f, split);
                fputs("\n\n", f);
            }
            write_table(f, g, begin, end);
        }
        if (report->options.resamples > 0 && g->n_items > 0) {
            fprintf(f, "In brackets 95 %% intervals (%zu resamples of the images); %s.\n\n", report->options.resamples,
                    g->rules->yes_no ? "p of accuracy in a split by McNemar's exact test, else by the paired bootstrap"
                                     : "p by the paired bootstrap");
        }
    }
    return CANDID_OK;
}
