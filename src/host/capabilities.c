/* Which methods a host can run: what each one's plan and branches need, against what the host says it can do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "host/host.h"

/* Beyond every host: candid's own image encoder, or a second request. */
#define OWN_RUNTIME (1u << 31)

/* A prompt on which methods show what they need: an image amid text, and a question that suggests its answer. */
#define SAMPLE_REQUEST "There is a dog in the image, isn't there?"
#define SAMPLE_TEXT    8
#define SAMPLE_GRID    4

static const struct {
    uint32_t bit;
    const char *name;
} abilities[] = {
    {CANDID_CAN_BLOCK_INPUT, "block_input"},
    {CANDID_CAN_ATTENTION_SCORES, "attention.scores"},
    {CANDID_CAN_ATTENTION_PROBS, "attention.probs"},
    {CANDID_CAN_HEAD_OUTPUT, "head_output"},
    {CANDID_CAN_MLP_OUTPUT, "mlp_output"},
    {CANDID_CAN_BLOCK_OUTPUT, "block_output"},
    {CANDID_CAN_FINAL_NORM, "final_norm"},
    {CANDID_CAN_LOGITS, "logits"},
    {CANDID_CAN_EARLY_LOGITS, "early_logits"},
    {CANDID_CAN_POSITIONS, "positions"},
    {CANDID_CAN_MASK, "mask"},
    {CANDID_CAN_COMPANIONS, "companions"},
    {CANDID_CAN_BRANCHES, "branches"},
    {CANDID_CAN_VISION_ATTENTION, "vision.attention"},
    {CANDID_CAN_PIXELS, "pixels"},
    {CANDID_CAN_VISUAL_TOKENS, "visual_tokens"},
    {CANDID_CAN_CANDIDATES, "candidates"},
    {OWN_RUNTIME, "candid's own runtime"},
};
#define N_ABILITIES (sizeof abilities / sizeof *abilities)

/* What one method asks for. */
struct demand {
    uint32_t needs;
    char idle[PLAN_NOTE]; /* why it would do nothing, or "" */
};

/* The sample prompt compiled: every active method's steps and branches, and what these edit. */
struct sample {
    struct plan *plan, *branch_plans[MAX_BRANCHES];
    struct branch_list branches;
};

static candid_status sample_layout(const struct method_needs *needs, struct layout *out, candid_error *error) {
    TRY(layout_append(out, SPAN_SYSTEM, SAMPLE_TEXT, -1, 0, 0, error));
    TRY(layout_append(out, SPAN_IMAGE, SAMPLE_GRID * SAMPLE_GRID, 0, SAMPLE_GRID, SAMPLE_GRID, error));
    out->spans[1].order = needs->order;
    return layout_append(out, SPAN_QUESTION, SAMPLE_TEXT, -1, 0, 0, error);
}

static candid_status sample_compile(const candid_plugin *p, const struct layout *layout, struct sample *out,
                                    candid_error *error) {
    const struct logger silent = {0};
    float of_cls[SAMPLE_GRID * SAMPLE_GRID];
    struct vision_tap taps[CANDID_MAX_TAPS];
    for (int i = 0; i < SAMPLE_GRID * SAMPLE_GRID; i++) {
        of_cls[i] = 1.0f;
    }
    for (int i = 0; i < p->needs.n_vision_blocks; i++) {
        taps[i] = (struct vision_tap){p->needs.vision_blocks[i], SAMPLE_GRID * SAMPLE_GRID, of_cls};
    }
    for (int i = 0; i < out->branches.n; i++) {
        TRY(interventions_compile_branch(p->config, &p->facts, layout, &out->branches.branches[i], false, NULL, 0, 0,
                                         &silent, &out->branch_plans[i], error));
    }
    return interventions_compile(p->config, &p->facts, layout, taps, 1, p->needs.n_vision_blocks, &silent, &out->plan,
                                 error);
}

static candid_status sample_make(const candid_plugin *p, struct sample *out, candid_error *error) {
    const struct logger silent = {0};
    struct layout layout = {0};
    *out = (struct sample){0};
    TRY(interventions_branches(p->config, SAMPLE_REQUEST, 1, &silent, &out->branches, error));
    TRY(decoding_check_branches(&p->decoding, p->config, &out->branches, error));
    candid_status status = sample_layout(&p->needs, &layout, error);
    if (status == CANDID_OK) {
        status = sample_compile(p, &layout, out, error);
    }
    layout_free(&layout);
    return status;
}

static void sample_free(struct sample *s) {
    plan_free(s->plan);
    for (int i = 0; i < MAX_BRANCHES; i++) {
        plan_free(s->branch_plans[i]);
    }
    branch_list_free(&s->branches);
}

/* ---- demands ------------------------------------------------------------------------------------- */

static candid_status demand_of_steps(const struct plan *plan, const struct method *method, struct demand *out,
                                     candid_error *error) {
    const size_t n = site_index(plan->n_layer + 1, 0);
    uint8_t *table = calloc(n, 1);
    if (!table) {
        return fail_memory(error, "capabilities", n);
    }
    for (int i = 0; i < plan->n_steps; i++) {
        const struct plan_step *step = &plan->steps[i];
        if (step->owner != method) {
            continue;
        }
        for (int role = ROLE_MAIN; role < ROLE_COUNT; role++) {
            step_sites(plan, step, (enum plan_role)role, ROW_ALL, true, table);
        }
        out->needs |= step->kind == PLAN_PROBE_HEADS || step->kind == PLAN_PROBE_HIDDEN ? CANDID_CAN_COMPANIONS : 0;
        out->needs |= step->kind == PLAN_CONTRAST_LAYERS ? CANDID_CAN_EARLY_LOGITS : 0;
    }
    for (size_t i = 0; i < n; i++) {
        out->needs |= table[i] ? 1u << i % CANDID_SITE_COUNT : 0;
    }
    free(table);
    for (int i = 0; i < plan->n_notes; i++) {
        if (plan->notes[i].method == method) {
            memcpy(out->idle, plan->notes[i].idle, sizeof out->idle);
            out->needs |= plan->notes[i].acts && plan->unlock_end > 0 ? CANDID_CAN_MASK : 0;
        }
    }
    return CANDID_OK;
}

static uint32_t sight_needs(enum branch_sight sight) {
    switch (sight) {
    case SIGHT_SAME:
    case SIGHT_NONE: return CANDID_CAN_BRANCHES;
    case SIGHT_NOISE: return CANDID_CAN_BRANCHES | CANDID_CAN_PIXELS;
    case SIGHT_CHOSEN: return CANDID_CAN_BRANCHES | CANDID_CAN_VISION_ATTENTION | CANDID_CAN_VISUAL_TOKENS;
    case SIGHT_SCALED:
    case SIGHT_MASKED: break;
    }
    return OWN_RUNTIME;
}

/* What is known before a prompt is compiled. */
static uint32_t needs_before(const candid_plugin *p, const struct method *method, const struct settings *settings) {
    struct method_needs own = {0};
    uint32_t needs = method->kind == METHOD_SECOND_LOOK ? OWN_RUNTIME : 0;
    if (method == &method_opera) {
        needs |= CANDID_CAN_CANDIDATES | CANDID_CAN_ATTENTION_PROBS;
    }
    if (method->needs) {
        method->needs(settings, &p->facts, &own);
    }
    needs |= own.order != IMAGE_RASTER ? CANDID_CAN_POSITIONS : 0;
    return needs | (own.n_vision_blocks > 0 ? CANDID_CAN_VISION_ATTENTION : 0);
}

static candid_status demand_of(const candid_plugin *p, const struct sample *sample, const struct method *method,
                               const struct settings *settings, struct demand *out, candid_error *error) {
    *out = (struct demand){.needs = needs_before(p, method, settings)};
    for (int i = 0; i < sample->branches.n; i++) {
        const struct branch *b = &sample->branches.branches[i];
        out->needs |= b->owner == method ? sight_needs(b->sight) : 0;
        if (sample->branch_plans[i]) {
            TRY(demand_of_steps(sample->branch_plans[i], method, out, error));
        }
    }
    return sample->plan ? demand_of_steps(sample->plan, method, out, error) : CANDID_OK;
}

/* The names of what is missing, in one sentence; "" when nothing is. */
static void describe_missing(const candid_plugin *p, uint32_t missing, char *out, size_t size) {
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < N_ABILITIES && missing; i++) {
        if (missing & abilities[i].bit && at < size) {
            at += (size_t)snprintf(out + at, size - at, "%s%s", at ? ", " : "needs ", abilities[i].name);
        }
    }
    if (missing && at < size) {
        snprintf(out + at, size - at, ", out of reach in %s", p->host);
    }
}

static uint32_t missing_of(const candid_plugin *p, const struct demand *d) {
    return d->needs & ~(p->abilities & ~OWN_RUNTIME); /* whatever bits the host sets */
}

/* ---- one configuration ----------------------------------------------------------------------------- */

/* What is left of "decode" when OPERA is taken out is the host's. */
static candid_status check_decoding(const candid_plugin *p, candid_error *error) {
    const struct decoding *d = &p->decoding;
    const bool own = d->strategy == STRATEGY_GREEDY || d->strategy == STRATEGY_OPERA;
    if (!own || d->answers != 1 || d->repetition_penalty != 1.0f) {
        return fail(error, CANDID_ERROR_UNSUPPORTED,
                    "decode: %s chooses the tokens: leave out strategies other than opera, answers and penalties",
                    p->host);
    }
    return CANDID_OK;
}

static candid_status check_missing(const candid_plugin *p, const struct method *method, const struct demand *demand,
                                   candid_error *error) {
    char why[400];
    describe_missing(p, missing_of(p, demand), why, sizeof why);
    return why[0] ? fail(error, CANDID_ERROR_UNSUPPORTED, "%s %s", method->name, why) : CANDID_OK;
}

candid_status capabilities_check(const candid_plugin *p, candid_error *error) {
    struct sample sample;
    struct settings s;
    TRY(check_decoding(p, error));
    for (const struct method *const *m = methods; *m; m++) {
        if (config_method(p->config, *m, &s)) {
            TRY(check_missing(p, *m, &(struct demand){.needs = needs_before(p, *m, &s)}, error));
        }
    }
    candid_status status = sample_make(p, &sample, error);
    for (const struct method *const *m = methods; status == CANDID_OK && *m; m++) {
        struct demand demand;
        if (!config_method(p->config, *m, &s)) {
            continue;
        }
        status = demand_of(p, &sample, *m, &s, &demand, error);
        if (status == CANDID_OK) {
            status = check_missing(p, *m, &demand, error);
        }
    }
    sample_free(&sample);
    return status;
}

/* ---- the table -------------------------------------------------------------------------------------- */

static candid_status add_method(const candid_plugin *p, const struct method *method, cJSON *out, candid_error *error) {
    struct sample sample;
    struct settings s;
    struct demand demand = {0};
    candid_error found = {0};
    candid_status status = CANDID_OK;
    if (config_method(p->config, method, &s)) {
        demand.needs = needs_before(p, method, &s);
        if (!missing_of(p, &demand)) {
            status = sample_make(p, &sample, &found);
            if (status == CANDID_OK) {
                status = demand_of(p, &sample, method, &s, &demand, &found);
            }
            sample_free(&sample);
        }
    }
    if (status == CANDID_ERROR_MEMORY) {
        return fail(error, status, "%s", found.message);
    }
    cJSON *one = cJSON_AddObjectToObject(out, method->name), *needs = cJSON_AddArrayToObject(one, "needs");
    for (size_t i = 0; i < N_ABILITIES; i++) {
        if (demand.needs & abilities[i].bit) {
            cJSON_AddItemToArray(needs, cJSON_CreateString(abilities[i].name));
        }
    }
    char why[400];
    describe_missing(p, missing_of(p, &demand), why, sizeof why);
    cJSON_AddBoolToObject(one, "runs", status == CANDID_OK && !why[0]);
    if (status != CANDID_OK || why[0] || demand.idle[0]) {
        cJSON_AddStringToObject(one, "why", status != CANDID_OK ? found.message : why[0] ? why : demand.idle);
    }
    return CANDID_OK;
}

/* A method with its defaults, alone. */
static candid_status add_default(const candid_host *host, const struct method *method, cJSON *out,
                                 candid_error *error) {
    char text[80];
    candid_config *config = NULL;
    candid_plugin *plugin = NULL;
    const int n = snprintf(text, sizeof text, "{\"%s\": true}", method->name);
    candid_error found = {0};
    TRY(candid_config_parse(text, (size_t)n, method->name, &config, error));
    candid_status status = plugin_open(host, config, &plugin, &found);
    if (status == CANDID_OK) {
        status = add_method(plugin, method, out, error);
    } else if (status == CANDID_ERROR_MEMORY) {
        fail(error, status, "%s", found.message);
    } else { /* the method does not fit the model */
        cJSON *one = cJSON_AddObjectToObject(out, method->name);
        cJSON_AddArrayToObject(one, "needs");
        cJSON_AddBoolToObject(one, "runs", false);
        cJSON_AddStringToObject(one, "why", found.message);
        status = CANDID_OK;
    }
    candid_plugin_free(plugin);
    candid_config_free(config);
    return status;
}

static candid_status add_configured(const candid_host *host, const candid_config *config, cJSON *out,
                                    candid_error *error) {
    candid_plugin *plugin = NULL;
    struct settings s;
    TRY(plugin_open(host, config, &plugin, error));
    candid_status status = CANDID_OK;
    for (const struct method *const *m = methods; status == CANDID_OK && *m; m++) {
        if (*m != &method_decode && config_method(config, *m, &s)) {
            status = add_method(plugin, *m, out, error);
        }
    }
    candid_plugin_free(plugin);
    return status;
}

candid_status candid_host_capabilities(const candid_host *host, const candid_config *config, char **out,
                                       candid_error *error) {
    if (!out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_host_capabilities: out is NULL");
    }
    candid_host checked;
    TRY(host_read(host, &checked, error));
    cJSON *all = cJSON_CreateObject();
    candid_status status = all ? CANDID_OK : fail_memory(error, "capabilities", 0);
    if (status == CANDID_OK && config) {
        status = add_configured(host, config, all, error);
    }
    for (const struct method *const *m = methods; status == CANDID_OK && !config && *m; m++) {
        if (*m != &method_decode) {
            status = add_default(host, *m, all, error);
        }
    }
    *out = status == CANDID_OK ? cJSON_PrintUnformatted(all) : NULL;
    cJSON_Delete(all);
    return status == CANDID_OK && !*out ? fail_memory(error, "capabilities", 0) : status;
}
