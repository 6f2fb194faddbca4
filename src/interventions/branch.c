/* The list of branches. */
#include "interventions/branch.h"

#include <stdlib.h>

#include "core/status.h"

candid_status branch_add(struct branch_list *list, const char *name, struct branch **out, candid_error *error) {
    if (list->n == MAX_BRANCHES) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: expected at most %d branches in all", list->method->name,
                    MAX_BRANCHES);
    }
    struct branch *b = &list->branches[list->n++];
    *b = (struct branch){.owner = list->method, .name = name};
    *out = b;
    return CANDID_OK;
}

candid_status branches_idle(struct branch_list *list, const char *reason) {
    if (list->n_idle < MAX_BRANCHES) {
        list->idle[list->n_idle].method = list->method;
        list->idle[list->n_idle++].reason = reason;
    }
    return CANDID_OK;
}

candid_status text_contrast(const struct settings *s, struct branch_list *list, candid_error *error) {
    const float gamma = setting_float(s, "gamma");
    if (gamma == 1.0f || list->n_images == 0) {
        return CANDID_OK; /* the method's other part says what it does */
    }
    struct branch *b = NULL;
    TRY(branch_add(list, "text without image", &b, error));
    b->sight = SIGHT_NONE;
    b->weight = gamma - 1.0f;
    b->cutoff = setting_float(s, "cutoff");
    return CANDID_OK;
}

void branch_list_free(struct branch_list *list) {
    for (int i = 0; i < list->n; i++) {
        free(list->branches[i].request);
        free(list->branches[i].prefix);
        free(list->branches[i].system);
    }
    free(list->main_request);
    *list = (struct branch_list){0};
}
