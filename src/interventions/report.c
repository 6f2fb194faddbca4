/* What contrasts and OPERA did, as JSON. */
#include "interventions/report.h"

cJSON *report_entry(cJSON *all, const char *method) {
    cJSON *one = cJSON_GetObjectItemCaseSensitive(all, method);
    return one ? one : cJSON_AddObjectToObject(all, method);
}

void report_idle(const struct branch_list *list, cJSON *all) {
    for (int i = 0; all && i < list->n_idle; i++) {
        cJSON *one = report_entry(all, list->idle[i].method->name);
        cJSON_AddBoolToObject(one, "active", false);
        cJSON_AddStringToObject(one, "why", list->idle[i].reason);
    }
}

void report_branch(const struct branch *b, const struct branch_tally *tally, const char *asked, cJSON *all) {
    cJSON *one = report_entry(all, b->owner->name);
    const bool acted = tally->n_contrasted > 0 && (b->weight != 0 || b->cutoff > 0);
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
        cJSON_AddStringToObject(one, "why",
                                b->weight == 0 && b->cutoff <= 0 ? "weight 0 leaves the logits as they are"
                                                                 : "no row of logits was contrasted");
    }
    if (b->request && asked && !cJSON_HasObjectItem(one, "asked")) {
        cJSON_AddStringToObject(one, "asked", asked);
    }
    cJSON *list = cJSON_GetObjectItemCaseSensitive(one, "branches");
    list = list ? list : cJSON_AddArrayToObject(one, "branches");
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "sees", b->name);
    cJSON_AddNumberToObject(item, "prompt_tokens", tally->n_prompt);
    if (tally->n_shared >= 0) {
        cJSON_AddNumberToObject(item, "shared_tokens", tally->n_shared);
    }
    cJSON_AddNumberToObject(item, "rows_contrasted", (double)tally->n_contrasted);
    if (b->cutoff > 0 && tally->n_rows > 0) {
        cJSON_AddNumberToObject(item, "mean_tokens_cut_off", (double)tally->n_removed / (double)tally->n_rows);
    }
    if (!cJSON_AddItemToArray(list, item)) {
        cJSON_Delete(item);
    }
}

void report_opera(int n_rewarded, int n_penalised, int n_plain, const int (*rollbacks)[2], int n_rollbacks,
                  cJSON *all) {
    cJSON *one = report_entry(all, "opera");
    if (!one) {
        return;
    }
    cJSON_AddBoolToObject(one, "active", true);
    cJSON_AddNumberToObject(one, "candidates_rewarded", n_rewarded);
    cJSON_AddNumberToObject(one, "candidates_penalised", n_penalised);
    cJSON_AddNumberToObject(one, "beams_with_plain_logits", n_plain);
    cJSON *list = cJSON_AddArrayToObject(one, "rollbacks");
    for (int i = 0; i < n_rollbacks; i++) {
        cJSON *pair = cJSON_CreateIntArray(rollbacks[i], 2);
        if (!cJSON_AddItemToArray(list, pair)) {
            cJSON_Delete(pair);
        }
    }
}
