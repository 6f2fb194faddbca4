/* What methods, contrasts and searches did in one request, as JSON. */
#include <stdlib.h>
#include <string.h>

#include "api/request.h"
#include "api/second_look.h"
#include "core/status.h"
#include "interventions/report.h"

static void report_search(const struct decoding *d, const struct generated *out, cJSON *all) {
    if (!d->configured && d->strategy <= STRATEGY_SAMPLE) {
        return;
    }
    cJSON *one = cJSON_AddObjectToObject(all, "decode");
    cJSON_AddBoolToObject(one, "active", true);
    cJSON_AddStringToObject(one, "strategy", strategy_name(d->strategy));
    if (d->strategy >= STRATEGY_BEAM) {
        cJSON_AddNumberToObject(one, "beams", d->beams);
    }
    cJSON_AddNumberToObject(one, "answers", out->n_answers);
    cJSON_AddNumberToObject(one, "steps", out->n_steps);
    if (out->n_steps > 0) {
        cJSON_AddNumberToObject(one, "rows_per_step", (double)out->n_rows / out->n_steps);
        cJSON_AddNumberToObject(one, "kv_bytes", (double)out->kv_bytes);
    }
}

static void report_look(const struct second_look *look, cJSON *all) {
    cJSON *one = report_entry(all, look->options->method->name);
    const int box[] = {look->box.x0, look->box.y0, look->box.x1, look->box.y1};
    if (one) {
        cJSON_AddBoolToObject(one, "active", true);
        cJSON_AddItemToObject(one, "box", cJSON_CreateIntArray(box, 4));
        cJSON_AddNumberToObject(one, "images_shown", (double)look->n_images);
    }
}

candid_status request_report(const struct request *r, const struct generated *out, char **text, candid_error *error) {
    cJSON *report = interventions_report(r->plan);
    report_idle(&r->list, report);
    for (int i = 0; report && out && i < r->list.n; i++) {
        const struct branch_input *in = &r->inputs[i];
        const struct branch_tally tally = {in->n_prompt, in->n_shared, in->n_contrasted, in->n_rows, in->n_removed};
        report_branch(&r->list.branches[i], &tally, r->list.main_request, report);
    }
    if (report && r->look) {
        report_look(r->look, report);
    }
    if (report && out) {
        report_search(&r->decoding, out, report);
        if (r->decoding.strategy == STRATEGY_OPERA) {
            const struct search_note *n = &out->search;
            report_opera(n->n_rewarded, n->n_penalised, n->n_plain + n->n_filled, (const int(*)[2])n->rollbacks,
                         n->n_rollbacks, report);
        }
    }
    char *printed = report ? cJSON_PrintUnformatted(report) : NULL;
    cJSON_Delete(report);
    *text = printed ? strdup(printed) : NULL;
    cJSON_free(printed);
    return *text ? CANDID_OK : fail_memory(error, "the report of the methods", 0);
}
