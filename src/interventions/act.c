/*
 * ACT, attention calibration. Besides the first token many heads have sinks in the middle of the prompt. ACT finds them
 * by the mean attention a position gets, leaves them `beta` of their attention and gives the rest to all other
 * positions.
 *
 * Yu et al.: Unveiling and Harnessing Hidden Attention Sinks, ICML 2024, arXiv 2406.15765; code GATECH-EIC/ACT. Made
 * for text models, with a list of heads found offline per model. The released program's decode steps take the current
 * row for the column means and set the first token's probability to 1; that is not copied: here the sinks found in the
 * prompt stay.
 */
#include <stdlib.h>

#include "core/status.h"
#include "interventions/common.h"

enum { KEY_SINK = 1 };

struct act_state {
    float threshold;
    int n_prompt, n_head, n_layer;
    uint8_t *classes; /* (n_layer, n_head, n_prompt) */
    uint8_t *heads;   /* (n_layer, n_head), or NULL: all */
    bool *edited;     /* [n_layer] of the edit */
};

static void found_columns(struct plan_step *step, const struct probe_result *r) {
    struct act_state *a = step->state;
    for (int h = 0; h < a->n_head; h++) {
        const size_t at = (size_t)r->layer * (size_t)a->n_head + (size_t)h;
        const float *sums = r->columns + (size_t)h * (size_t)r->n_keys;
        bool first = true; /* the first position over the threshold is taken for the first token's sink and spared */
        for (int j = 0; j < r->n_keys && (!a->heads || a->heads[at]); j++) {
            if (r->seen_by[j] > 0 && sums[j] / (float)r->seen_by[j] > a->threshold) {
                a->classes[at * (size_t)a->n_prompt + (size_t)j] = first ? 0 : KEY_SINK;
                a->edited[r->layer] = a->edited[r->layer] || !first;
                first = false;
            }
        }
    }
}

static void report(const struct plan *plan, const struct plan_note *note, cJSON *out) {
    const struct act_state *a = note->state;
    int sinks = 0, heads = 0;
    for (int i = 0; i < a->n_layer * a->n_head; i++) {
        int of_head = 0;
        for (int j = 0; j < a->n_prompt; j++) {
            of_head += a->classes[(size_t)i * (size_t)a->n_prompt + (size_t)j] == KEY_SINK;
        }
        sinks += of_head;
        heads += of_head > 0;
    }
    cJSON_AddNumberToObject(out, "sinks", sinks);
    cJSON_AddNumberToObject(out, "heads_with_sinks", heads);
    if (sinks == 0 && !note->idle[0]) {
        cJSON_AddStringToObject(out, "why", "no position but the first gets a mean attention over the threshold");
    }
}

static candid_status compile(const struct settings *s, struct compile_job *job, candid_error *error) {
    const struct model_facts *facts = job->facts;
    struct plan *plan = job->plan;
    const float beta = setting_float(s, "beta");
    if (beta == 1.0f) {
        return idle(job, "beta = 1 leaves sinks all of their attention");
    }
    struct act_state *a;
    TRY(plan_alloc(plan, 1, sizeof *a, &a, error));
    *a = (struct act_state){.threshold = setting_float(s, "threshold"),
                            .n_prompt = plan->n_prompt,
                            .n_head = facts->n_head,
                            .n_layer = facts->n_layer};
    const size_t n_heads = (size_t)facts->n_layer * (size_t)facts->n_head;
    TRY(plan_alloc(plan, n_heads, (size_t)plan->n_prompt, &a->classes, error));
    uint8_t *heads;
    bool given;
    TRY(plan_alloc(plan, n_heads, 1, &heads, error));
    TRY(select_heads(s, job, heads, &given, error));
    a->heads = given ? heads : NULL;

    struct plan_step *step;
    TRY(plan_add(plan, PLAN_PROBE_COLUMNS, job->method, &step, error));
    TRY(select_layers(s, "layers", job, step->layers, NULL, error));
    step->probe_heads = a->heads;
    step->decide = found_columns;
    step->state = a;
    TRY(plan_add(plan, PLAN_ATTENTION, job->method, &step, error)); /* layers: on where sinks are found */
    a->edited = step->layers;
    step->rows = ROW_ALL;
    step->classes_stride = (size_t)facts->n_head * (size_t)plan->n_prompt;
    step->heads_stride = (size_t)facts->n_head;
    step->edit = (struct attention_edit){.kind = EDIT_PROBS_MOVE,
                                         .classes = a->classes,
                                         .n_classes = plan->n_prompt,
                                         .class_stride = (size_t)plan->n_prompt,
                                         .heads = a->heads,
                                         .from = 1u << KEY_SINK,
                                         .to = 1u,
                                         .part = 1u << KEY_SINK,
                                         .keep = beta,
                                         .max_share = 1e9f,
                                         .eps = 1.0f};
    plan->whole_prompt = true;
    job->note->report = report;
    job->note->state = a;
    return CANDID_OK;
}

static const char *const columns[] = {"vhd", "image_attention", NULL};
static const struct method_option options[] = {
    {"beta", OPTION_FLOAT, "0.4", NULL, NULL, 0, 1, NULL, "What sinks keep of their attention. 1 changes nothing."},
    {"threshold", OPTION_FLOAT, "0.1", NULL, NULL, 0, 1, NULL,
     "A position is a sink of a head when the mean attention of the rows that see it exceeds this (0.15 in one "
     "script)."},
    {"layers", OPTION_LAYERS, "\"2-\"", NULL, "\"2-30\"", 0, 0, NULL, "Layers edited."},
    {"heads", OPTION_HEADS, "null", NULL, NULL, 0, 4096, NULL,
     "Heads edited. null: those of `table`, or all. The paper searches a list for each text model; none exists for "
     "LLaVA."},
    {"table", OPTION_PATH, "null", NULL, NULL, 0, 0, NULL,
     "Head table of `candid calibrate heads` to take heads from."},
    {"top", OPTION_INT, "32", NULL, NULL, 1, 1e6, NULL, "How many heads of the table are taken."},
    {"rank_by", OPTION_CHOICE, "\"image_attention\"", NULL, NULL, 0, 0, columns, "The table's column that ranks them."},
};

const struct method method_act = {
    .name = "act",
    .title = "Attention calibration (ACT)",
    .edits = "attention.probs: moves attention from sinks of the prompt to all other positions, in all rows",
    .cost = "the prompt's attention is computed twice in the layers edited",
    .citation = "Yu, Wang, Fu, Shi, Shaikh, Lin: Unveiling and Harnessing Hidden Attention Sinks: Enhancing Large "
                "Language Models without Training through Attention Calibration. ICML 2024, arXiv 2406.15765. Code: "
                "GATECH-EIC/ACT",
    .per_question = true,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .compile = compile,
};
