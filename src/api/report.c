/* What methods, contrasts and searches did in one request, as JSON. */
#include <stdlib.h>
#include <string.h>

#include "api/request.h"
#include "api/second_look.h"
#include "core/status.h"

/* The method's entry, made if it is not there. */
static cJSON *entry(cJSON *all, const char *method) {
    cJSON *one = cJSON_GetObjectItemCaseSensitive(all, method);
    return one ? one : cJSON_AddObjectToObject(all, method);
}

/* A branch and how often it was contrasted with. asked: what the answer's row was asked in place of the user's text. */
static void report_branch(const struct branch *b, const struct branch_input *in, const char *asked, cJSON *all) {
    cJSON *one = entry(all, b->owner->name);
    const bool acted = in->n_contrasted > 0 && (b->weight != 0 || b->cutoff > 0);
    if (!one) {
        return;
    }
    if (acted || !cJSON_HasObjectItem(one, "active")) {
        cJSON *active = acted ? cJSON_CreateTrue() : cJSON_CreateFalse();
        if (!cJSON_ReplaceItemInObjectCaseSensitive(one, "active", active)) {
            cJSON_AddItemToObject(one, "active", active);
        }
    }
    if (acted) { /* another part of the method may have had nothing to do */
        cJSON *why = cJSON_DetachItemFromObjectCaseSensitive(one, "why");
        if (why && !cJSON_AddItemToObject(one, "left_out", why)) {
            cJSON_Delete(why);
        }
    } else if (!cJSON_IsTrue(cJSON_GetObjectItem(one, "active")) && !cJSON_HasObjectItem(one, "why")) {
        cJSON_AddStringToObject(one, "why", "weight 0 leaves the logits as they are");
    }
    if (b->request && asked && !cJSON_HasObjectItem(one, "asked")) {
        cJSON_AddStringToObject(one, "asked", asked);
    }
    cJSON *list = cJSON_GetObjectItemCaseSensitive(one, "branches");
    list = list ? list : cJSON_AddArrayToObject(one, "branches");
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "sees", b->name);
    cJSON_AddNumberToObject(item, "prompt_tokens", in->n_prompt);
    cJSON_AddNumberToObject(item, "shared_tokens", in->n_shared);
    cJSON_AddNumberToObject(item, "rows_contrasted", (double)in->n_contrasted);
    if (b->cutoff > 0 && in->n_rows > 0) {
        cJSON_AddNumberToObject(item, "mean_tokens_cut_off", (double)in->n_removed / (double)in->n_rows);
    }
    if (!cJSON_AddItemToArray(list, item)) {
        cJSON_Delete(item);
    }
}

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

static void report_opera(const struct search_note *n, cJSON *all) {
    cJSON *one = entry(all, "opera");
    if (!one) {
        return;
    }
    cJSON_AddBoolToObject(one, "active", true);
    cJSON_AddNumberToObject(one, "candidates_rewarded", n->n_rewarded);
    cJSON_AddNumberToObject(one, "candidates_penalised", n->n_penalised);
    cJSON_AddNumberToObject(one, "beams_with_plain_logits", n->n_plain + n->n_filled);
    cJSON *list = cJSON_AddArrayToObject(one, "rollbacks");
    for (int i = 0; i < n->n_rollbacks; i++) {
        cJSON *pair = cJSON_CreateIntArray(n->rollbacks[i], 2);
        if (!cJSON_AddItemToArray(list, pair)) {
            cJSON_Delete(pair);
        }
    }
}

static void report_look(const struct second_look *look, cJSON *all) {
    cJSON *one = entry(all, look->options->method->name);
    const int box[] = {look->box.x0, look->box.y0, look->box.x1, look->box.y1};
    if (one) {
        cJSON_AddBoolToObject(one, "active", true);
        cJSON_AddItemToObject(one, "box", cJSON_CreateIntArray(box, 4));
        cJSON_AddNumberToObject(one, "images_shown", (double)look->n_images);
    }
}

candid_status request_report(const struct request *r, const struct generated *out, char **text, candid_error *error) {
    cJSON *report = interventions_report(r->plan);
    for (int i = 0; report && i < r->list.n_idle; i++) {
        cJSON *one = entry(report, r->list.idle[i].method->name);
        cJSON_AddBoolToObject(one, "active", false);
        cJSON_AddStringToObject(one, "why", r->list.idle[i].reason);
    }
    for (int i = 0; report && out && i < r->list.n; i++) {
        report_branch(&r->list.branches[i], &r->inputs[i], r->list.main_request, report);
    }
    if (report && r->look) {
        report_look(r->look, report);
    }
    if (report && out) {
        report_search(&r->decoding, out, report);
        if (r->decoding.strategy == STRATEGY_OPERA) {
            report_opera(&out->search, report);
        }
    }
    char *printed = report ? cJSON_PrintUnformatted(report) : NULL;
    cJSON_Delete(report);
    *text = printed ? strdup(printed) : NULL;
    cJSON_free(printed);
    return *text ? CANDID_OK : fail_memory(error, "the report of the methods", 0);
}
