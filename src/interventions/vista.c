/*
 * VISTA. Visual steering vector: the difference the image makes to the last prompt row's hidden state, per layer, is
 * pushed into the MLP output of every row, its norm preserved, so that what was seen does not fade in long answers.
 * Self-logits augmentation: hidden states of late middle layers are mixed into the final one before the output matrix.
 *
 * Li et al.: The Hidden Life of Tokens, ICML 2025, arXiv 2502.03628; code LzVv123456/VISTA. The paper adds the vector
 * to the residual stream and restores its norm; the released program works on the MLP output with a cosine gain and
 * divides the vector by its norm. Its one-sample PCA returns the difference with 1 added to component 0 of layer 0
 * (option pca_quirk).
 *
 * Both captures run beside the steered prompt, layer by layer: a layer's vector is known just before it is needed.
 */
#include <math.h>
#include <string.h>

#include "core/status.h"
#include "interventions/common.h"

struct vista_state {
    float *vectors; /* (n_layer, n_embd) */
    int n_embd;
    bool pca_quirk;
};

static void found_hidden(struct plan_step *step, const struct probe_result *r) {
    const struct vista_state *v = step->state;
    float *vector = v->vectors + (size_t)r->layer * (size_t)v->n_embd;
    for (int d = 0; d < v->n_embd; d++) {
        vector[d] = r->own[d] - r->other[d];
    }
    if (v->pca_quirk && r->layer == 0) {
        vector[0] += 1.0f;
    }
}

/* The released program's 25..30 of 32 layers; in other models the same part of the depth, the last layer excluded. */
static void auto_mix_layers(int n_layer, bool *layers) {
    int first = (int)lround(25.0 * n_layer / 32.0), last = (int)lround(30.0 * n_layer / 32.0);
    last = last > n_layer - 2 ? n_layer - 2 : last;
    for (int l = first < last ? first : last; l <= last; l++) {
        if (l >= 0) {
            layers[l] = true;
        }
    }
}

static candid_status add_mix(const struct settings *s, struct compile_job *job, float gamma, candid_error *error) {
    struct plan_step *step;
    TRY(plan_add(job->plan, PLAN_MIX_LAYERS, job->method, &step, error));
    step->rows = ROW_LAST | ROW_GENERATED;
    step->strength = gamma;
    if (strcmp(setting_string(s, "sla_layers"), "auto") == 0) {
        auto_mix_layers(job->facts->n_layer, step->layers);
    } else {
        TRY(select_layers(s, "sla_layers", job, step->layers, NULL, error));
    }
    int n = 0;
    for (int l = 0; l < job->facts->n_layer; l++) {
        n += step->layers[l];
    }
    if (n == 0) {
        return fail(error, CANDID_ERROR_ARGUMENT, "vista.sla_layers: \"%s\" names no layer of a model with %d layers",
                    setting_string(s, "sla_layers"), job->facts->n_layer);
    }
    TRY(plan_alloc(job->plan, (size_t)job->facts->n_layer, sizeof *step->table, &step->table, error));
    for (int l = 0; l < job->facts->n_layer; l++) {
        step->table[l] = step->layers[l] ? 1.0f / (float)n : 0.0f;
    }
    return CANDID_OK;
}

static candid_status add_steering(const struct settings *s, struct compile_job *job, float lambda,
                                  candid_error *error) {
    struct plan *plan = job->plan;
    struct vista_state *v;
    TRY(plan_alloc(plan, 1, sizeof *v, &v, error));
    *v = (struct vista_state){.n_embd = plan->n_embd, .pca_quirk = setting_bool(s, "pca_quirk")};
    TRY(plan_alloc(plan, (size_t)plan->n_layer * (size_t)plan->n_embd, sizeof *v->vectors, &v->vectors, error));
    struct plan_step *step;
    TRY(plan_add(plan, PLAN_PROBE_HIDDEN, job->method, &step, error));
    int n_layers;
    TRY(select_layers(s, "layers", job, step->layers, &n_layers, error));
    if (n_layers == 0) {
        return CANDID_OK; /* the companions would run for nothing */
    }
    step->decide = found_hidden;
    step->state = v;
    const bool *layers = step->layers;
    TRY(plan_add(plan, PLAN_STEER, job->method, &step, error));
    memcpy(step->layers, layers, (size_t)plan->n_layer * sizeof *layers);
    step->rows = ROW_ALL;
    step->table = v->vectors;
    step->strength = lambda;
    step->steer = strcmp(setting_string(s, "site"), "residual") == 0 ? STEER_RESIDUAL
                  : setting_bool(s, "cosine_gain")                   ? STEER_COSINE
                                                                     : STEER_PLAIN;
    plan->companions[ROLE_PLAIN] = plan->companions[ROLE_TEXT_ONLY] = true;
    return CANDID_OK;
}

static candid_status compile(const struct settings *s, struct compile_job *job, candid_error *error) {
    const float lambda = setting_float(s, "lambda"), gamma = setting_float(s, "gamma");
    if (lambda == 0.0f && gamma == 0.0f) {
        return idle(job, "lambda = gamma = 0 neither steer nor mix");
    }
    if (!has_image(job)) {
        return CANDID_OK;
    }
    if (lambda != 0.0f && has_text(job)) {
        TRY(add_steering(s, job, lambda, error));
    }
    return gamma != 0.0f ? add_mix(s, job, gamma, error) : CANDID_OK;
}

static const char *const sites[] = {"mlp", "residual", NULL};
static const struct method_option options[] = {
    {"lambda", OPTION_FLOAT, "0.17", NULL, NULL, 0, 100, NULL,
     "Strength of steering. Task dependent: 0.17 for captions, 0.01 for yes/no questions (POPE) in the released "
     "scripts. 0: off."},
    {"gamma", OPTION_FLOAT, "0.3", NULL, NULL, 0, 1, NULL, "Share of the earlier layers in the final state. 0: off."},
    {"layers", OPTION_LAYERS, "\"0-\"", NULL, NULL, 0, 0, NULL, "Layers steered."},
    {"sla_layers", OPTION_LAYERS, "\"auto\"", NULL, "\"25-30\"", 0, 0, NULL,
     "Layers mixed in, equally, not normalised. auto: 25 to 30 of 32 layers, the same part of the depth in other "
     "models."},
    {"site", OPTION_CHOICE, "\"mlp\"", "\"residual\"", "\"mlp\"", 0, 0, sites,
     "mlp: steer the MLP output along the vector's direction (released program). residual: add lambda times the vector "
     "to the block output and restore its norm (paper)."},
    {"cosine_gain", OPTION_BOOL, "true", "false", "true", 0, 0, NULL,
     "Push up to twice as hard where the MLP output points away from the vector (released program)."},
    {"pca_quirk", OPTION_BOOL, "false", "false", "true", 0, 0, NULL,
     "Add 1 to component 0 of layer 0's vector, as the released program's one-sample PCA does."},
};

const struct method method_vista = {
    .name = "vista",
    .title = "Visual information steering (VISTA)",
    .edits = "hidden: steers the MLP output of every row; early_logits: mixes late middle layers into the final state",
    .cost = "the prompt runs three times side by side, once without its image; a reduction per row in decoding",
    .citation = "Li et al.: The Hidden Life of Tokens: Reducing Hallucination of Large Vision-Language Models via "
                "Visual Information Steering. ICML 2025, arXiv 2502.03628. Code: LzVv123456/VISTA",
    .per_question = true,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .compile = compile,
};
