/* Plans: memory, and which rows are which. */
#include "lm/plan.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"

static void mark_rows(struct plan *p, const struct layout *layout) {
    bool image_seen = false;
    for (int i = 0; i < layout->n_spans; i++) {
        const struct span *span = &layout->spans[i];
        image_seen = image_seen || span->kind == SPAN_IMAGE;
        const unsigned set = span->kind == SPAN_IMAGE ? ROW_IMAGE : image_seen ? ROW_QUESTION : ROW_BEFORE;
        memset(p->row_sets + span->begin, (int)set, (size_t)(span->end - span->begin));
    }
    p->row_sets[p->n_prompt - 1] |= ROW_LAST;
}

candid_status plan_create(int n_layer, int n_head, int n_embd, const struct layout *prompt, struct plan **out,
                          candid_error *error) {
    const int n = layout_length(prompt);
    if (n < 1) {
        return fail(error, CANDID_ERROR_ARGUMENT, "plan: the prompt is empty");
    }
    struct plan *p = calloc(1, sizeof *p);
    if (!p) {
        return fail_memory(error, "a plan", sizeof *p);
    }
    p->n_layer = n_layer;
    p->n_head = n_head;
    p->n_embd = n_embd;
    p->n_prompt = n;
    const candid_status status = plan_alloc(p, (size_t)n, 1, &p->row_sets, error);
    if (status != CANDID_OK) {
        plan_free(p);
        return status;
    }
    mark_rows(p, prompt);
    *out = p;
    return CANDID_OK;
}

void plan_free(struct plan *p) {
    if (p) {
        for (int i = 0; i < p->n_owned; i++) {
            free(p->owned[i]);
        }
        free(p->owned);
        free(p->steps);
        free(p->notes);
        free(p);
    }
}

candid_status plan_alloc(struct plan *p, size_t count, size_t size, void *out, candid_error *error) {
    if (p->n_owned == p->owned_capacity) {
        const int capacity = p->owned_capacity ? 2 * p->owned_capacity : 16;
        void **grown = realloc(p->owned, (size_t)capacity * sizeof *grown);
        if (!grown) {
            return fail_memory(error, "a plan", (size_t)capacity * sizeof *grown);
        }
        p->owned = grown;
        p->owned_capacity = capacity;
    }
    void *memory = calloc(count ? count : 1, size);
    if (!memory) {
        return fail_memory(error, "a plan's tables", count * size);
    }
    p->owned[p->n_owned++] = memory;
    memcpy(out, &memory, sizeof memory);
    return CANDID_OK;
}

candid_status plan_add(struct plan *p, enum plan_kind kind, const struct method *owner, struct plan_step **out,
                       candid_error *error) {
    if (p->n_steps == p->step_capacity) {
        const int capacity = p->step_capacity ? 2 * p->step_capacity : 8;
        struct plan_step *grown = realloc(p->steps, (size_t)capacity * sizeof *grown);
        if (!grown) {
            return fail_memory(error, "a plan", (size_t)capacity * sizeof *grown);
        }
        p->steps = grown;
        p->step_capacity = capacity;
    }
    bool *layers = NULL;
    TRY(plan_alloc(p, (size_t)p->n_layer, sizeof *layers, &layers, error));
    p->steps[p->n_steps] = (struct plan_step){.kind = kind, .owner = owner, .layers = layers};
    *out = &p->steps[p->n_steps++];
    return CANDID_OK;
}

unsigned plan_row_sets(const struct plan *p, int index) {
    return index < p->n_prompt ? p->row_sets[index] : ROW_GENERATED;
}

bool plan_has(const struct plan *p, enum plan_kind kind) {
    for (int i = 0; p && i < p->n_steps; i++) {
        if (p->steps[i].kind == kind) {
            return true;
        }
    }
    return false;
}

candid_status plan_record_peaks(struct plan *plan, candid_error *error) {
    if (plan->peaks || !plan_has(plan, PLAN_PROBE_PEAKS)) {
        return CANDID_OK;
    }
    const size_t count = (size_t)plan->n_steps * (size_t)plan->n_layer * (size_t)plan->n_prompt;
    return plan_alloc(plan, count, sizeof *plan->peaks, &plan->peaks, error);
}

candid_status plan_keep_companions(struct plan *plan, int head_dim, candid_error *error) {
    const size_t n_layer = (size_t)plan->n_layer, n_heads = (size_t)plan->n_head * (size_t)head_dim;
    TRY(plan_alloc(plan, ROLE_COUNT, sizeof *plan->kept, &plan->kept, error));
    for (int role = ROLE_MAIN + 1; role < ROLE_COUNT; role++) {
        if (plan->companions[role]) {
            TRY(plan_alloc(plan, n_layer * n_heads, sizeof(float), &plan->kept[role].heads, error));
            TRY(plan_alloc(plan, n_layer * (size_t)plan->n_embd, sizeof(float), &plan->kept[role].hidden, error));
        }
    }
    return CANDID_OK;
}

float *plan_peaks_at(const struct plan *plan, const struct plan_step *step, int layer) {
    const size_t at = (size_t)(step - plan->steps) * (size_t)plan->n_layer + (size_t)layer;
    return plan->peaks + at * (size_t)plan->n_prompt;
}

void plan_replay_peaks(struct plan *plan, const struct plan *seen, int n_rows) {
    for (int l = 0; seen->peaks && l < plan->n_layer; l++) {
        for (int i = 0; i < plan->n_steps; i++) {
            struct plan_step *step = &plan->steps[i];
            if (step->kind == PLAN_PROBE_PEAKS && step->layers[l]) {
                step->decide(step, &(struct probe_result){
                                       .layer = l, .n_rows = n_rows, .peaks = plan_peaks_at(seen, &seen->steps[i], l)});
            }
        }
    }
}
