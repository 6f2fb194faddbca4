/* Compilation of the active methods, checks of what they ask for together, and the report. */
#include "interventions/interventions.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "interventions/common.h"

static bool active(const struct candid_config *config, const char *name) {
    struct settings s;
    const struct method *m = method_find(name);
    return m && config_method(config, m, &s);
}

static candid_status check_together(const struct candid_config *config, candid_error *error) {
    if (active(config, "cca") && active(config, "mma")) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "cca and mma contradict each other: both define which keys an image token sees; switch one off");
    }
    return CANDID_OK;
}

static candid_status want_block(struct method_needs *needs, int block, const struct model_facts *facts,
                                const char *method, candid_error *error) {
    for (int i = 0; i < needs->n_vision_blocks; i++) {
        if (needs->vision_blocks[i] == block) {
            return CANDID_OK;
        }
    }
    if (block < 0 || block >= facts->n_vision_blocks) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "%s: expected a block of the image encoder from 0 to %d, or negative from the end, found %d",
                    method, facts->n_vision_blocks - 1, block < 0 ? block - facts->n_vision_blocks : block);
    }
    if (needs->n_vision_blocks == (int)(sizeof needs->vision_blocks / sizeof *needs->vision_blocks)) {
        return fail(error, CANDID_ERROR_UNSUPPORTED, "%s: more blocks of the image encoder are asked for than are kept",
                    method);
    }
    needs->vision_blocks[needs->n_vision_blocks++] = block;
    return CANDID_OK;
}

/* Layers that were named must be the model's: known before an image is encoded. */
static candid_status check_layers(const struct method *m, const struct settings *s, int n_layer, candid_error *error) {
    bool *layers = calloc((size_t)n_layer + 1, sizeof *layers);
    candid_status status = layers ? CANDID_OK : fail_memory(error, "layers", (size_t)n_layer);
    for (int i = 0; status == CANDID_OK && i < m->n_options; i++) {
        const char *text = m->options[i].type == OPTION_LAYERS ? setting_string(s, m->options[i].name) : NULL;
        if (text && strcmp(text, "auto") != 0 && layers_select(text, n_layer, layers, m->name, error) < 0) {
            status = CANDID_ERROR_ARGUMENT;
        }
    }
    free(layers);
    return status;
}

candid_status interventions_needs(const struct candid_config *config, const struct model_facts *facts,
                                  struct method_needs *needs, candid_error *error) {
    *needs = (struct method_needs){0};
    TRY(check_together(config, error));
    for (const struct method *const *m = methods; *m; m++) {
        struct settings s;
        struct method_needs own = {0};
        if (!config_method(config, *m, &s)) {
            continue;
        }
        TRY(check_layers(*m, &s, facts->n_layer, error));
        if ((*m)->check) {
            TRY((*m)->check(&s, facts, error));
        }
        if (!(*m)->needs) {
            continue;
        }
        (*m)->needs(&s, facts, &own);
        needs->order = own.order != IMAGE_RASTER ? own.order : needs->order;
        for (int i = 0; facts->n_vision_blocks > 0 && i < own.n_vision_blocks; i++) {
            TRY(want_block(needs, own.vision_blocks[i], facts, (*m)->name, error));
        }
    }
    return CANDID_OK;
}

/* ---- branches ------------------------------------------------------------------------------------ */

static candid_status check_images(const struct branch_list *list, int n_images, candid_error *error) {
    for (int i = 0; i < list->n; i++) {
        if (list->branches[i].sight != SIGHT_SAME && n_images == 0) {
            return fail(error, CANDID_ERROR_ARGUMENT,
                        "%s contrasts with another view of the image: expected an image in the request, found none",
                        list->branches[i].owner->name);
        }
    }
    return CANDID_OK;
}

candid_status interventions_branches(const struct candid_config *config, const char *request, int n_images,
                                     const struct logger *log, struct branch_list *out, candid_error *error) {
    *out = (struct branch_list){.request = request, .n_images = n_images, .log = log};
    for (const struct method *const *m = methods; *m; m++) {
        struct settings s;
        if ((*m)->branches && config_method(config, *m, &s)) {
            out->method = *m;
            TRY((*m)->branches(&s, out, error));
        }
    }
    return check_images(out, n_images, error);
}

/* ---- plans --------------------------------------------------------------------------------------- */

/* Which methods write a plan. */
enum plan_scope {
    PLAN_MAIN,      /* of the answer's own row: all but contrasts */
    PLAN_POSITIONS, /* only what every row with an image has: orders and masks */
    PLAN_OWN,       /* those, and the edits that a contrast makes in its own branch: `owner` */
};

static bool writes_plan(const struct method *m, enum plan_scope scope, const struct method *owner) {
    switch (scope) {
    case PLAN_MAIN: return m->compile && m->kind != METHOD_CONTRAST;
    case PLAN_POSITIONS: return m->compile && m->for_every_row;
    case PLAN_OWN: return m->compile && (m->for_every_row || m == owner);
    }
    return false;
}

static void warn_together(const struct candid_config *config, const struct logger *log) {
    if (active(config, "pai") && active(config, "paint")) {
        log_write(log, CANDID_LOG_WARN, "pai and paint both raise the scores of image tokens: the boosts multiply");
    }
}

/* What compile() of every method in the scope gets. */
struct compilation {
    const struct candid_config *config;
    const struct model_facts *facts;
    const struct layout *prompt;
    const struct vision_tap *taps;
    int n_images, n_taps;
    enum plan_scope scope;
    const struct method *owner;
    const struct logger *log;
};

static candid_status compile_method(const struct compilation *c, const struct method *m, const struct settings *s,
                                    struct plan *plan, candid_error *error) {
    struct plan_note *note = &plan->notes[plan->n_notes++];
    note->method = m;
    struct compile_job job = {.facts = c->facts,
                              .layout = c->prompt,
                              .taps = c->taps,
                              .n_images = c->n_images,
                              .n_taps = c->n_taps,
                              .plan = plan,
                              .log = c->log,
                              .method = m,
                              .note = note};
    return m->compile(s, &job, error);
}

static candid_status compile(const struct compilation *c, struct plan **out, candid_error *error) {
    struct settings s;
    size_t n = 0;
    *out = NULL;
    for (const struct method *const *m = methods; *m; m++) {
        n += writes_plan(*m, c->scope, c->owner) && config_method(c->config, *m, &s);
    }
    if (n == 0) {
        return CANDID_OK;
    }
    struct plan *plan = NULL;
    TRY(plan_create(c->facts->n_layer, c->facts->n_head, c->facts->n_embd, c->prompt, &plan, error));
    plan->notes = calloc(n, sizeof *plan->notes);
    candid_status status = plan->notes ? CANDID_OK : fail_memory(error, "a plan", n * sizeof *plan->notes);
    for (const struct method *const *m = methods; status == CANDID_OK && *m; m++) {
        if (writes_plan(*m, c->scope, c->owner) && config_method(c->config, *m, &s)) {
            status = compile_method(c, *m, &s, plan, error);
        }
    }
    if (status != CANDID_OK) {
        plan_free(plan);
        return status;
    }
    plan->whole_prompt = plan->whole_prompt || plan->companions[ROLE_TEXT_ONLY] || plan->companions[ROLE_PLAIN];
    *out = plan;
    return CANDID_OK;
}

candid_status interventions_compile(const struct candid_config *config, const struct model_facts *facts,
                                    const struct layout *prompt, const struct vision_tap *taps, int n_images,
                                    int n_taps, const struct logger *log, struct plan **out, candid_error *error) {
    TRY(check_together(config, error));
    warn_together(config, log);
    const struct compilation c = {.config = config,
                                  .facts = facts,
                                  .prompt = prompt,
                                  .taps = taps,
                                  .n_images = n_images,
                                  .n_taps = n_taps,
                                  .log = log};
    return compile(&c, out, error);
}

bool plan_acts(const struct plan *plan) {
    return plan && (plan->n_steps > 0 || plan->unlock_end > 0);
}

/* Whether the branch sees as much of the images as the answer's own row. */
static bool sees_images(const struct branch *b) {
    return b->sight == SIGHT_SAME || b->sight == SIGHT_NOISE;
}

candid_status interventions_compile_branch(const struct candid_config *config, const struct model_facts *facts,
                                           const struct layout *prompt, const struct branch *branch, bool edits,
                                           const struct vision_tap *taps, int n_images, int n_taps,
                                           const struct logger *log, struct plan **out, candid_error *error) {
    if (edits && sees_images(branch) && !branch->own_edits) {
        TRY(interventions_compile(config, facts, prompt, taps, n_images, n_taps, log, out, error));
        for (int k = 0; *out && k < (*out)->n_steps; k++) {
            (*out)->steps[k].keep_all = true;
        }
        return CANDID_OK;
    }
    const struct compilation c = {.config = config,
                                  .facts = facts,
                                  .prompt = prompt,
                                  .scope = branch->own_edits ? PLAN_OWN : PLAN_POSITIONS,
                                  .owner = branch->owner,
                                  .log = log};
    TRY(compile(&c, out, error));
    if (!plan_acts(*out)) {
        plan_free(*out);
        *out = NULL;
    }
    return CANDID_OK;
}

/* ---- report -------------------------------------------------------------------------------------- */

/* What the steps of one kind of a method did, under one name. */
struct tally {
    bool any, moves;
    int64_t done, in_prompt, looked;
    double moved;
    bool *layers; /* [n_layer] */
};

static void add_step(struct tally *t, const struct plan_step *step, int n_layer) {
    t->any = true;
    t->done += step->rows_done;
    t->in_prompt += step->prompt_rows;
    t->looked += step->rows_looked;
    t->moved += step->moved;
    t->moves = t->moves || (step->kind == PLAN_ATTENTION && step->edit.kind == EDIT_PROBS_MOVE);
    for (int l = 0; t->layers && l < n_layer; l++) {
        t->layers[l] = t->layers[l] || step->layers[l];
    }
}

/* The tallies of a method's steps; returns how much it did. */
static int64_t report_steps(const struct plan *plan, const struct method *method, cJSON *out) {
    bool *layers = calloc(2 * (size_t)plan->n_layer, sizeof *layers);
    struct tally edits = {.layers = layers}, mixes = {.layers = layers ? layers + plan->n_layer : NULL};
    for (int i = 0; i < plan->n_steps; i++) {
        const struct plan_step *step = &plan->steps[i];
        if (step->owner == method && step->kind < PLAN_PROBE_PEAKS) {
            add_step(step->kind == PLAN_MIX_LAYERS ? &mixes : &edits, step, plan->n_layer);
        }
    }
    if (edits.any) {
        if (edits.layers) {
            report_layers(out, "layers", edits.layers, plan->n_layer);
        }
        cJSON_AddNumberToObject(out, "edits", (double)edits.done);
        cJSON_AddNumberToObject(out, "edits_in_prompt", (double)edits.in_prompt);
    }
    if (edits.looked > 0) {
        cJSON_AddNumberToObject(out, "head_rows_looked_at", (double)edits.looked);
    }
    if (edits.moves) {
        cJSON_AddNumberToObject(out, "mean_mass_moved", edits.done > 0 ? edits.moved / (double)edits.done : 0.0);
    }
    if (mixes.any) {
        if (mixes.layers) {
            report_layers(out, "mixed_layers", mixes.layers, plan->n_layer);
        }
        cJSON_AddNumberToObject(out, "tokens_mixed", (double)mixes.done);
    }
    free(layers);
    return edits.done + mixes.done;
}

cJSON *interventions_report(const struct plan *plan) {
    cJSON *all = cJSON_CreateObject();
    for (int i = 0; plan && all && i < plan->n_notes; i++) {
        const struct plan_note *note = &plan->notes[i];
        cJSON *one = cJSON_AddObjectToObject(all, note->method->name);
        cJSON_AddBoolToObject(one, "active", true);
        const int64_t done = report_steps(plan, note->method, one);
        if (note->report) {
            note->report(plan, note, one);
        }
        if (done == 0 && !note->acts) {
            cJSON_ReplaceItemInObject(one, "active", cJSON_CreateFalse());
            if (!cJSON_GetObjectItem(one, "why")) {
                cJSON_AddStringToObject(one, "why", note->idle[0] ? note->idle : "no row met its conditions");
            }
        } else {
            cJSON_DeleteItemFromObject(one, "why");
            if (note->idle[0]) {
                cJSON_AddStringToObject(one, "left_out", note->idle);
            }
        }
    }
    return all;
}
