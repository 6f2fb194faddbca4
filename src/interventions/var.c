/*
 * VAR, visual attention redistribution. A few tokens - the first, some background patches - carry huge activations in
 * fixed dimensions and soak up attention without contributing. VAR takes a share of the attention of these sinks and
 * gives it to the other image tokens, in the heads that already look at the image.
 *
 * Kang, Kim, Kim, Hwang: See What You Are Told: Visual Attention Sink in Large Multimodal Models, ICLR 2025, arXiv
 * 2503.03321; code seilk/VisAttnSink. A token is a sink of layer l if phi = max over the sink dimensions of |x| /
 * rms(x) exceeds tau, x entering the layer. A row and head is edited if the sinks' share of its image attention is at
 * most rho and its image attention at least summ. Then sinks keep p of their attention, the rest goes to the image's
 * other tokens in proportion.
 *
 * The released program also edits the last layer (a flag without effect) and keeps the first sample's sinks for the
 * whole process; the former is an option here, the latter is not.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "interventions/common.h"

enum key_class { KEY_OTHER, KEY_IMAGE, KEY_IMAGE_SINK, KEY_TEXT_SINK };

/* What the prompt shows, filled by found_peaks(). */
struct var_state {
    float tau;
    bool first_token; /* position 0 may be a sink */
    int n_prompt, n_layer;
    uint8_t *classes; /* (n_layer, n_prompt) */
    bool *edited;     /* [n_layer] of the edit: on where the layer has a sink in the image */
    float highest;    /* phi of all tokens looked at */
};

static void found_peaks(struct plan_step *step, const struct probe_result *r) {
    struct var_state *v = step->state;
    uint8_t *classes = v->classes + (size_t)r->layer * (size_t)v->n_prompt + r->first;
    for (int i = 0; i < r->n_rows; i++) {
        v->highest = r->peaks[i] > v->highest ? r->peaks[i] : v->highest;
        if (r->peaks[i] > v->tau && (v->first_token || r->first + i > 0)) {
            const bool image = classes[i] == KEY_IMAGE || classes[i] == KEY_IMAGE_SINK;
            classes[i] = image ? KEY_IMAGE_SINK : KEY_TEXT_SINK;
            v->edited[r->layer] = v->edited[r->layer] || image;
        }
    }
}

/* The sinks of every layer that has some, and the highest phi where none was found. */
static void report(const struct plan *plan, const struct plan_note *note, cJSON *out) {
    const struct var_state *v = note->state;
    cJSON *layers = cJSON_AddArrayToObject(out, "sinks");
    int in_image = 0;
    for (int l = 0; l < v->n_layer; l++) {
        cJSON *layer = NULL;
        for (int i = 0; i < v->n_prompt; i++) {
            const uint8_t c = v->classes[(size_t)l * (size_t)v->n_prompt + (size_t)i];
            if (c == KEY_IMAGE_SINK || c == KEY_TEXT_SINK) {
                if (!layer) {
                    layer = cJSON_CreateObject();
                    cJSON_AddItemToArray(layers, layer);
                    cJSON_AddNumberToObject(layer, "layer", l);
                    cJSON_AddArrayToObject(layer, "text");
                    cJSON_AddArrayToObject(layer, "image");
                }
                cJSON_AddItemToArray(cJSON_GetObjectItem(layer, c == KEY_IMAGE_SINK ? "image" : "text"),
                                     cJSON_CreateNumber(i));
                in_image += c == KEY_IMAGE_SINK;
            }
        }
    }
    cJSON_AddNumberToObject(out, "tau", (double)v->tau);
    cJSON_AddNumberToObject(out, "highest_phi", (double)v->highest);
    if (in_image == 0) {
        char why[PLAN_NOTE];
        snprintf(why, sizeof why, "no image token exceeds tau %.4g in any layer (highest phi of the prompt: %.4g)",
                 (double)v->tau, (double)v->highest);
        cJSON_AddStringToObject(out, "why", why);
    }
}

/* A list of dimensions as the plan's own array. */
static candid_status take_dims(const cJSON *list, const char *from, struct compile_job *job, const int **dims, int *n,
                               candid_error *error) {
    int *out;
    char found[JSON_FOUND];
    *n = cJSON_GetArraySize(list);
    if (list && (!cJSON_IsArray(list) || *n == 0)) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: expected sink_dims to be a list of dimensions, found %s", from,
                    cJSON_IsArray(list) ? "an empty one" : json_found(list, found));
    }
    TRY(plan_alloc(job->plan, (size_t)*n, sizeof *out, &out, error));
    *dims = out;
    for (const cJSON *item = list ? list->child : NULL; item; item = item->next) {
        int64_t dim;
        if (!json_is_int(item, 0, job->facts->n_embd - 1, &dim)) {
            return fail(error, CANDID_ERROR_ARGUMENT, "%s: expected sink dimensions from 0 to %d, found %s", from,
                        job->facts->n_embd - 1, json_found(item, found));
        }
        *out++ = (int)dim;
    }
    return CANDID_OK;
}

/* From an option, a table file or what is known of the model. */
static candid_status find_tau(const struct settings *s, const cJSON *from, const char *label, float *tau,
                              candid_error *error) {
    const cJSON *known = json_find(from, "sink_tau");
    char found[JSON_FOUND];
    *tau = setting_float(s, "tau");
    if (*tau != 0.0f) {
        return CANDID_OK;
    }
    if (known && !(cJSON_IsNumber(known) && known->valuedouble > 0.0 && known->valuedouble < 1e6)) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: expected sink_tau to be a number over 0, found %s", label,
                    json_found(known, found));
    }
    *tau = known ? (float)known->valuedouble : 20.0f;
    return CANDID_OK;
}

/* Sink dimensions and tau: the option's, else the table file's, else what is known of the model. */
static candid_status find_sinks(const struct settings *s, struct compile_job *job, const int **dims, int *n, float *tau,
                                candid_error *error) {
    struct json table = {0};
    const char *path = setting_string(s, "table");
    if (path) {
        TRY(open_table(s, job, path, &table, error));
    }
    const cJSON *option = setting_list(s, "sink_dims"), *from = path ? table.root : job->facts->known;
    const char *label = path ? table.label : "configs/models.json";
    candid_status status = find_tau(s, from, label, tau, error);
    if (status == CANDID_OK) {
        status = option ? take_dims(option, "var.sink_dims", job, dims, n, error)
                        : take_dims(json_find(from, "sink_dims"), label, job, dims, n, error);
    }
    if (status == CANDID_OK && *n == 0) {
        status = fail(
            error, CANDID_ERROR_ARGUMENT,
            "var.sink_dims: none given and none known for model \"%s\"; find them with `candid calibrate sinks` and "
            "set var.table or var.sink_dims",
            job->facts->name);
    }
    json_free(&table);
    return status;
}

static candid_status compile(const struct settings *s, struct compile_job *job, candid_error *error) {
    const struct model_facts *facts = job->facts;
    struct plan *plan = job->plan;
    const float p = setting_float(s, "p"), rho = setting_float(s, "rho");
    const float keep = setting_bool(s, "p_is_removed_fraction") ? 1.0f - p : p;
    if (keep == 1.0f) {
        return idle(job, "sinks keep all of their attention (p = %g)", (double)p);
    }
    if (!has_image(job)) {
        return CANDID_OK;
    }
    float tau;
    const int *dims = NULL;
    int n_dims = 0;
    TRY(find_sinks(s, job, &dims, &n_dims, &tau, error));
    if (sqrtf((float)facts->n_embd) <= tau) {
        return idle(job, "no token can exceed tau %g: the width %d bounds phi by %.3g; see `candid calibrate sinks`",
                    (double)tau, facts->n_embd, sqrt((double)facts->n_embd));
    }

    struct var_state *v;
    TRY(plan_alloc(plan, 1, sizeof *v, &v, error));
    *v = (struct var_state){.tau = tau,
                            .first_token = setting_bool(s, "include_first_token"),
                            .n_prompt = plan->n_prompt,
                            .n_layer = plan->n_layer};
    TRY(plan_alloc(plan, (size_t)plan->n_layer * (size_t)plan->n_prompt, 1, &v->classes, error));
    for (int l = 0; l < plan->n_layer; l++) {
        classify_images(job->layout, v->classes + (size_t)l * (size_t)plan->n_prompt);
    }

    struct plan_step *step;
    TRY(plan_add(plan, PLAN_PROBE_PEAKS, job->method, &step, error));
    int n_layers;
    TRY(select_layers(s, "layers", job, step->layers, &n_layers, error));
    if (setting_bool(s, "exclude_last_layer") && step->layers[plan->n_layer - 1]) {
        step->layers[plan->n_layer - 1] = false;
        n_layers--;
    }
    if (n_layers == 0) {
        return job->note->idle[0] ? CANDID_OK
                                  : idle(job, "of its layers only the last is left, and exclude_last_layer is on");
    }
    step->dims = dims;
    step->n_dims = n_dims;
    step->decide = found_peaks;
    step->state = v;

    TRY(plan_add(plan, PLAN_ATTENTION, job->method, &step, error)); /* layers: on where sinks are found */
    v->edited = step->layers;
    step->rows = ROW_QUESTION | ROW_GENERATED;
    step->classes_stride = (size_t)plan->n_prompt;
    const bool once = strcmp(setting_string(s, "eps_mode"), "once") == 0;
    step->edit = (struct attention_edit){
        .kind = EDIT_PROBS_MOVE,
        .classes = v->classes,
        .n_classes = plan->n_prompt,
        .from = 1u << KEY_IMAGE_SINK | 1u << KEY_TEXT_SINK,
        .to = 1u << KEY_IMAGE,
        .whole = 1u << KEY_IMAGE | 1u << KEY_IMAGE_SINK,
        .part = 1u << KEY_IMAGE_SINK,
        .keep = keep,
        .min_mass = setting_float(s, "summ"),
        .max_share = setting_bool(s, "rho_is_min_nonsink") ? 1.0f - rho : rho,
        .eps = (once ? 1.0f : (float)image_tokens(job->layout)) * 1e-6f,
        .round_f16 = strcmp(setting_string(s, "rounding"), "f16") == 0,
    };
    job->note->report = report;
    job->note->state = v;
    return CANDID_OK;
}

static const char *const eps_modes[] = {"per_element", "once", NULL};
static const char *const roundings[] = {"f32", "f16", NULL};
static const struct method_option options[] = {
    {"tau", OPTION_FLOAT, "0", "20", "20", 0, 1e6, NULL,
     "A token is a sink when phi exceeds this. 0: the table's or the model's calibrated value, else 20."},
    {"rho", OPTION_FLOAT, "0.5", NULL, NULL, 0, 1, NULL,
     "Edit a head only if sinks hold at most this share of its image attention. The paper states the opposite share "
     "(at least 1 - rho on other tokens) and tunes it per task: 0.8 general, 0.5 hallucination, 0.9 vision-centric."},
    {"summ", OPTION_FLOAT, "0.2", NULL, NULL, 0, 1, NULL,
     "Edit a head only if at least this much of its attention is on the image."},
    {"p", OPTION_FLOAT, "0.6", NULL, NULL, 0, 1, NULL, "What sinks keep of their attention. 1 changes nothing."},
    {"sink_dims", OPTION_INTS, "null", NULL, NULL, 0, 1e6, NULL,
     "Dimensions of the hidden state that are massive in sinks. null: what configs/models.json knows of the model. "
     "Find them for another model with `candid calibrate sinks`. The released program uses the 7B model's for 13B, "
     "too."},
    {"table", OPTION_PATH, "null", NULL, NULL, 0, 0, NULL,
     "File of `candid calibrate sinks`: sink dimensions and tau of the model, where they are not given."},
    {"layers", OPTION_LAYERS, "\"2-\"", NULL, NULL, 0, 0, NULL, "Layers edited."},
    {"exclude_last_layer", OPTION_BOOL, "true", "true", "false", 0, 0, NULL,
     "Leave the last layer alone, as the paper says; the released program's flag for it has no effect."},
    {"include_first_token", OPTION_BOOL, "true", NULL, NULL, 0, 0, NULL,
     "Whether position 0 may be a sink. The released program's prompts have no BOS token."},
    {"p_is_removed_fraction", OPTION_BOOL, "false", NULL, NULL, 0, 0, NULL,
     "Read p as the share taken away from sinks, as some descriptions of the paper do."},
    {"rho_is_min_nonsink", OPTION_BOOL, "false", NULL, NULL, 0, 0, NULL,
     "Read rho as the paper does: the least share of image attention that is not on sinks."},
    {"eps_mode", OPTION_CHOICE, "\"per_element\"", NULL, NULL, 0, 0, eps_modes,
     "Where the denominator of the share gets its 1e-6: for every image token (released program) or once."},
    {"rounding", OPTION_CHOICE, "\"f32\"", NULL, NULL, 0, 0, roundings,
     "f16 rounds every step to half precision in the released program's order, for comparisons with it."},
};

const struct method method_var = {
    .name = "var",
    .title = "Visual attention redistribution (VAR)",
    .edits = "attention.probs: moves attention from sink tokens to the image's other tokens, in rows after the image",
    .cost = "no extra pass; sink search reads the prompt's hidden states once per layer",
    .citation =
        "Kang, Kim, Kim, Hwang: See What You Are Told: Visual Attention Sink in Large Multimodal Models. ICLR 2025, "
        "arXiv 2503.03321. Code: seilk/VisAttnSink",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .compile = compile,
};
