/*
 * VHR, vision-aware head reinforcement. Measures for each attention head how much its output for the last prompt row
 * changes when the image is taken away (vision-aware head divergence, VHD) and multiplies the output of the heads that
 * change more than the median, in this and all later steps.
 *
 * He et al.: Cracking the Code of Hallucination in LVLMs with Vision-aware Head Divergence, ACL 2025, arXiv 2412.13949;
 * official code (jinghan1he/VHR) not available to us: the details follow the paper and the ports' records. Layers are
 * taken in order: the divergence of a layer is measured with the layers before it already reinforced.
 */
#include "interventions/vhr.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "interventions/common.h"

float vhr_median(const float *values, int n) {
    float sorted[VHR_MOST_HEADS];
    memcpy(sorted, values, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    return sorted[(n - 1) / 2];
}

double vhr_t_vhd(const float *divergence, int n_layer, int n_head, int k) {
    float sorted[VHR_MOST_HEADS];
    double sum = 0.0;
    for (int l = 0; l < n_layer; l++) {
        memcpy(sorted, divergence + (size_t)l * (size_t)n_head, (size_t)n_head * sizeof *sorted);
        qsort(sorted, (size_t)n_head, sizeof *sorted, ascending);
        for (int h = n_head - 1; h >= 0 && h >= n_head - k; h--) {
            sum += (double)sorted[h];
        }
    }
    return sum;
}

/* Mean and unbiased standard deviation. */
static void moments(const double *x, int n, double *mean, double *deviation) {
    double sum = 0.0, square = 0.0;
    for (int i = 0; i < n; i++) {
        sum += x[i];
    }
    *mean = sum / n;
    for (int i = 0; i < n; i++) {
        square += (x[i] - *mean) * (x[i] - *mean);
    }
    *deviation = n > 1 ? sqrt(square / (n - 1)) : 0.0;
}

int vhr_select(const float *own, const float *other, int n_head, int head_dim, const struct vhr_rule *rule,
               float *divergence, uint8_t *selected) {
    double d[VHR_MOST_HEADS], norm[VHR_MOST_HEADS];
    for (int h = 0; h < n_head; h++) {
        const float *v = own + (size_t)h * (size_t)head_dim, *t = other + (size_t)h * (size_t)head_dim;
        d[h] = norm[h] = 0.0;
        for (int i = 0; i < head_dim; i++) {
            d[h] += ((double)v[i] - (double)t[i]) * ((double)v[i] - (double)t[i]);
            norm[h] += (double)t[i] * (double)t[i];
        }
        d[h] = rule->squared ? d[h] : sqrt(d[h]);
        norm[h] = rule->text_squared ? norm[h] : sqrt(norm[h]);
    }
    double mean_d, deviation_d, mean_norm, deviation_norm;
    moments(d, n_head, &mean_d, &deviation_d);
    moments(norm, n_head, &mean_norm, &deviation_norm);
    const bool filter = rule->filter && (rule->guard == 0.0f || deviation_d > (double)rule->guard);
    for (int h = 0; h < n_head; h++) {
        const bool outlier = d[h] > mean_d + deviation_d && norm[h] > mean_norm + deviation_norm;
        divergence[h] = filter && outlier ? 0.0f : (float)d[h];
    }
    const float median = vhr_median(divergence, n_head);
    int n = 0;
    for (int h = 0; h < n_head; h++) {
        selected[h] = divergence[h] > median;
        n += selected[h];
    }
    return n;
}

struct vhr_state {
    struct vhr_rule rule;
    int n_layer, n_head, head_dim;
    float alpha;
    float *scale;      /* (n_layer, n_head), read by the edit */
    float *divergence; /* (n_layer, n_head) */
    uint8_t *selected; /* (n_layer, n_head) */
};

static void reinforce(struct vhr_state *v, int layer) {
    for (int h = 0; h < v->n_head; h++) {
        const size_t at = (size_t)layer * (size_t)v->n_head + (size_t)h;
        v->scale[at] = v->selected[at] ? v->alpha : 1.0f;
    }
}

static void found_heads(struct plan_step *step, const struct probe_result *r) {
    struct vhr_state *v = step->state;
    const size_t at = (size_t)r->layer * (size_t)v->n_head;
    vhr_select(r->own, r->other, v->n_head, v->head_dim, &v->rule, v->divergence + at, v->selected + at);
    reinforce(v, r->layer);
}

static void report(const struct plan *plan, const struct plan_note *note, cJSON *out) {
    const struct vhr_state *v = note->state;
    cJSON *heads = cJSON_AddArrayToObject(out, "heads");
    for (int i = 0; i < v->n_layer * v->n_head; i++) {
        if (v->selected[i]) {
            const int pair[] = {i / v->n_head, i % v->n_head};
            cJSON_AddItemToArray(heads, cJSON_CreateIntArray(pair, 2));
        }
    }
    cJSON_AddNumberToObject(out, "heads_scaled", cJSON_GetArraySize(heads));
}

/* The paper's layers: the second and the last 14 of 32 (or more); in smaller models the same part of the depth. */
static void auto_layers(int n_layer, bool *layers) {
    const int last = n_layer >= 32 ? 14 : (int)lround(14.0 * n_layer / 32.0);
    for (int l = 0; l < n_layer; l++) {
        layers[l] = l == 1 || l >= n_layer - last;
    }
}

static candid_status vhr_layers(const struct settings *s, struct compile_job *job, bool *layers, int *n,
                                candid_error *error) {
    if (strcmp(setting_string(s, "layers"), "auto") != 0) {
        return select_layers(s, "layers", job, layers, n, error);
    }
    auto_layers(job->facts->n_layer, layers);
    *n = 1; /* at least */
    return CANDID_OK;
}

/* Heads above their layer's median in a table, the same for every image. */
static candid_status fixed_heads(const struct settings *s, struct compile_job *job, struct vhr_state *v,
                                 const bool *layers, candid_error *error) {
    TRY(read_head_table(s, job, setting_string(s, "table"), "vhd", v->divergence, error));
    for (int l = 0; l < v->n_layer; l++) {
        const float *d = v->divergence + (size_t)l * (size_t)v->n_head, median = vhr_median(d, v->n_head);
        for (int h = 0; layers[l] && h < v->n_head; h++) {
            v->selected[(size_t)l * (size_t)v->n_head + (size_t)h] = d[h] > median;
        }
        reinforce(v, l);
    }
    return CANDID_OK;
}

static candid_status compile(const struct settings *s, struct compile_job *job, candid_error *error) {
    const struct model_facts *facts = job->facts;
    struct plan *plan = job->plan;
    const float alpha = setting_float(s, "alpha");
    if (alpha == 1.0f) {
        return idle(job, "alpha = 1 leaves every head as it is");
    }
    if (!has_image(job) || (!setting_string(s, "table") && !has_text(job))) {
        return CANDID_OK;
    }
    if (facts->n_head < 2) {
        return idle(job, "a model with one head has none above the median");
    }
    if (facts->n_head > VHR_MOST_HEADS) {
        return fail(error, CANDID_ERROR_UNSUPPORTED, "vhr: expected at most %d heads in a layer, found %d",
                    VHR_MOST_HEADS, facts->n_head);
    }
    struct vhr_state *v;
    TRY(plan_alloc(plan, 1, sizeof *v, &v, error));
    *v = (struct vhr_state){
        .rule = {.squared = strcmp(setting_string(s, "distance"), "sq") == 0,
                 .text_squared = strcmp(setting_string(s, "text_norm"), "sq") == 0,
                 .filter = setting_bool(s, "filter"),
                 .guard = setting_float(s, "filter_guard")},
        .n_layer = facts->n_layer,
        .n_head = facts->n_head,
        .head_dim = facts->head_dim,
        .alpha = alpha,
    };
    const size_t n = (size_t)facts->n_layer * (size_t)facts->n_head;
    TRY(plan_alloc(plan, n, sizeof *v->scale, &v->scale, error));
    TRY(plan_alloc(plan, n, sizeof *v->divergence, &v->divergence, error));
    TRY(plan_alloc(plan, n, sizeof *v->selected, &v->selected, error));

    for (size_t i = 0; i < n; i++) {
        v->scale[i] = 1.0f;
    }
    struct plan_step *step;
    int n_layers;
    TRY(plan_add(plan, PLAN_SCALE_HEADS, job->method, &step, error));
    TRY(vhr_layers(s, job, step->layers, &n_layers, error));
    const bool last_only = strcmp(setting_string(s, "prefill_rows"), "last") == 0;
    step->rows = (last_only ? ROW_LAST : ROW_PROMPT) | ROW_GENERATED;
    step->table = v->scale;
    if (n_layers == 0) {
        return CANDID_OK;
    }
    if (setting_string(s, "table")) {
        TRY(fixed_heads(s, job, v, step->layers, error));
    } else {
        const bool *layers = step->layers;
        const bool plain = strcmp(setting_string(s, "measure"), "unreinforced") == 0;
        TRY(plan_add(plan, PLAN_PROBE_HEADS, job->method, &step, error));
        memcpy(step->layers, layers, (size_t)facts->n_layer * sizeof *layers);
        step->own_role = plain ? ROLE_PLAIN : ROLE_MAIN;
        step->role = ROLE_TEXT_ONLY;
        step->decide = found_heads;
        step->state = v;
        plan->companions[ROLE_TEXT_ONLY] = true;
        plan->companions[ROLE_PLAIN] = plan->companions[ROLE_PLAIN] || plain;
    }
    job->note->report = report;
    job->note->state = v;
    return CANDID_OK;
}

static const char *const distances[] = {"sq", "l2", NULL};
static const char *const row_choices[] = {"all", "last", NULL};
static const char *const measures[] = {"layerwise", "unreinforced", NULL};
static const struct method_option options[] = {
    {"alpha", OPTION_FLOAT, "2", NULL, NULL, 0, 100, NULL,
     "Factor on the selected heads' output. 1 changes nothing; above 3 the paper sees the text collapse."},
    {"layers", OPTION_LAYERS, "\"auto\"", NULL, NULL, 0, 0, NULL,
     "Layers edited. auto: layer 1 and the last 14 (LLaVA-1.5 and LLaVA-NeXT, 32 layers; InstructBLIP: \"1,14-31\"); "
     "in models with fewer layers the last 14/32 of them."},
    {"distance", OPTION_CHOICE, "\"sq\"", "\"l2\"", "\"sq\"", 0, 0, distances,
     "Divergence: squared or plain Euclidean distance. Only the filter can tell the difference."},
    {"filter", OPTION_BOOL, "true", NULL, NULL, 0, 0, NULL,
     "Drop heads whose divergence and whose text-only output are both above mean + standard deviation of their layer."},
    {"filter_guard", OPTION_FLOAT, "1", "0", "1", 0, 1e9, NULL,
     "Filter only where the divergences' standard deviation exceeds this; 0: always (the paper's text)."},
    {"text_norm", OPTION_CHOICE, "\"sq\"", NULL, NULL, 0, 0, distances, "Norm of the text-only output in the filter."},
    {"prefill_rows", OPTION_CHOICE, "\"all\"", NULL, NULL, 0, 0, row_choices,
     "Prompt rows whose heads are scaled: all, or the last only."},
    {"measure", OPTION_CHOICE, "\"layerwise\"", NULL, NULL, 0, 0, measures,
     "layerwise: with the layers before already reinforced (paper). unreinforced: both sequences without any edit (a "
     "port)."},
    {"table", OPTION_PATH, "null", NULL, NULL, 0, 0, NULL,
     "Head table of `candid calibrate heads`: the same heads for every image, nothing is measured."},
};

const struct method method_vhr = {
    .name = "vhr",
    .title = "Vision-aware head reinforcement (VHR)",
    .edits = "head_output: multiplies the heads whose output depends most on the image",
    .cost = "the prompt's text runs once more without the image, beside the prompt",
    .citation =
        "He et al.: Cracking the Code of Hallucination in LVLMs with Vision-aware Head Divergence. ACL 2025, arXiv "
        "2412.13949",
    .per_question = true,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .compile = compile,
};
