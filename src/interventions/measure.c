/* Plans of probes. */
#include "interventions/measure.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "interventions/common.h"

candid_status measure_create(const struct model_facts *facts, const struct layout *prompt, struct plan **out,
                             candid_error *error) {
    return plan_create(facts->n_layer, facts->n_head, facts->n_embd, prompt, out, error);
}

/* Adds a probe of all layers with memory for its state. */
static candid_status add_probe(struct plan *plan, enum plan_kind kind, size_t state_size, probe_fn decide,
                               struct plan_step **out, candid_error *error) {
    void *state;
    TRY(plan_alloc(plan, 1, state_size, &state, error));
    TRY(plan_add(plan, kind, NULL, out, error));
    memset((*out)->layers, 1, (size_t)plan->n_layer * sizeof *(*out)->layers);
    (*out)->decide = decide;
    (*out)->state = state;
    return CANDID_OK;
}

struct heads_state {
    struct vhr_rule rule;
    int n_head, head_dim;
    float *divergence;
    uint8_t *selected; /* [n_head], not of interest */
};

static void found_heads(struct plan_step *step, const struct probe_result *r) {
    struct heads_state *s = step->state;
    vhr_select(r->own, r->other, s->n_head, s->head_dim, &s->rule, s->divergence + (size_t)r->layer * (size_t)s->n_head,
               s->selected);
}

candid_status measure_heads(struct plan *plan, const struct model_facts *facts, const struct vhr_rule *rule,
                            float *divergence, candid_error *error) {
    uint8_t *selected;
    struct plan_step *step;
    if (facts->n_head > VHR_MOST_HEADS) {
        return fail(error, CANDID_ERROR_UNSUPPORTED, "head divergence: %d heads in a layer, at most %d are supported",
                    facts->n_head, VHR_MOST_HEADS);
    }
    TRY(plan_alloc(plan, (size_t)facts->n_head, 1, &selected, error));
    TRY(add_probe(plan, PLAN_PROBE_HEADS, sizeof(struct heads_state), found_heads, &step, error));
    *(struct heads_state *)step->state =
        (struct heads_state){*rule, facts->n_head, facts->head_dim, divergence, selected};
    step->own_role = ROLE_MAIN;
    step->role = ROLE_TEXT_ONLY;
    plan->companions[ROLE_TEXT_ONLY] = true;
    plan->whole_prompt = true;
    return CANDID_OK;
}

struct peaks_state {
    int n_prompt;
    float *peaks;
};

static void found_peaks(struct plan_step *step, const struct probe_result *r) {
    const struct peaks_state *s = step->state;
    memcpy(s->peaks + (size_t)r->layer * (size_t)s->n_prompt + (size_t)r->first, r->peaks,
           (size_t)r->n_rows * sizeof *r->peaks);
}

candid_status measure_peaks(struct plan *plan, const int *dims, int n_dims, float *peaks, candid_error *error) {
    int *own;
    struct plan_step *step;
    TRY(plan_alloc(plan, (size_t)n_dims, sizeof *own, &own, error));
    memcpy(own, dims, (size_t)n_dims * sizeof *own);
    TRY(add_probe(plan, PLAN_PROBE_PEAKS, sizeof(struct peaks_state), found_peaks, &step, error));
    *(struct peaks_state *)step->state = (struct peaks_state){plan->n_prompt, peaks};
    step->dims = own;
    step->n_dims = n_dims;
    return CANDID_OK;
}

candid_status measure_image_attention(struct plan *plan, const struct layout *prompt, float *mass,
                                      candid_error *error) {
    uint8_t *classes;
    struct plan_step *step;
    TRY(plan_alloc(plan, (size_t)plan->n_prompt, 1, &classes, error));
    classify_images(prompt, classes);
    TRY(plan_add(plan, PLAN_ATTENTION, NULL, &step, error));
    memset(step->layers, true, (size_t)plan->n_layer * sizeof *step->layers);
    step->rows = ROW_LAST | ROW_GENERATED;
    step->table = mass;
    step->edit = (struct attention_edit){
        .kind = PROBE_PROBS_MASS, .classes = classes, .n_classes = plan->n_prompt, .whole = 1u << 1};
    return CANDID_OK;
}
