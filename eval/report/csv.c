/* The report as CSV, one value per line: what statistics programs read without reshaping. */
#include <math.h>

#include "core/status.h"
#include "eval/report/rules.h"
#include "eval/report/write.h"

static void write_row(FILE *f, const struct report_group *g, size_t run, const char *split, const char *metric,
                      const struct report_value *v) {
    write_csv(f, g->benchmark);
    fputc(',', f);
    write_csv(f, g->runs[run]->name);
    fputc(',', f);
    write_csv(f, split);
    fputc(',', f);
    write_csv(f, metric);
    const double numbers[] = {v->value, v->low, v->high, v->difference, v->difference_low, v->difference_high, v->p};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        fputc(',', f);
        write_double(f, numbers[i]);
    }
    fputs("\n", f);
}

static void write_number(FILE *f, const struct report_group *g, size_t run, const char *name, double value) {
    if (!isnan(value)) {
        write_row(f, g, run, "", name, &(struct report_value){value, NAN, NAN, NAN, NAN, NAN, NAN});
    }
}

candid_status report_write_csv(const struct report *report, FILE *f, candid_error *error) {
    fputs("benchmark,run,split,metric,value,low,high,difference,difference_low,difference_high,p\n", f);
    for (size_t k = 0; k < report->n_groups; k++) {
        const struct report_group *g = &report->groups[k];
        for (size_t r = 0; r < g->n_runs; r++) {
            const struct report_cost *c = &g->costs[r];
            for (size_t m = 0; m < g->n_metrics; m++) {
                write_row(f, g, r, g->metrics[m].split, g->metrics[m].key, report_value(g, r, m));
            }
            if (g->curves) {
                write_number(f, g, r, "baseline_chair_i_at_recall", g->curves[r].at_recall);
                write_number(f, g, r, "baseline_chair_i_at_length", g->curves[r].at_length);
            }
            write_number(f, g, r, "questions", (double)g->n_items);
            write_number(f, g, r, "images", (double)g->n_units);
            write_number(f, g, r, "questions_per_s", c->questions_per_s);
            write_number(f, g, r, "tokens_per_s", c->tokens_per_s);
            write_number(f, g, r, "time_relative", c->relative);
            write_number(f, g, r, "prefilled_tokens", c->prefilled);
            write_number(f, g, r, "reused_tokens", c->reused);
            write_number(f, g, r, "generated_tokens", c->generated);
        }
    }
    return CANDID_OK;
}
