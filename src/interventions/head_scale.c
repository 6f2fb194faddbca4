/*
 * Head masking and scaling by an explicit table: the tool of head studies, such as masking retrieval heads (Wu et al.:
 * Retrieval Head Mechanistically Explains Long-Context Factuality, arXiv 2404.15574).
 */
#include "core/status.h"
#include "interventions/common.h"

static void report(const struct plan *plan, const struct plan_note *note, cJSON *out) {
    cJSON_AddNumberToObject(out, "heads_scaled", *(const int *)note->state);
}

static candid_status compile(const struct settings *s, struct compile_job *job, candid_error *error) {
    const struct model_facts *facts = job->facts;
    const float scale = setting_float(s, "scale");
    if (scale == 1.0f) {
        return idle(job, "scale = 1 leaves every head as it is");
    }
    uint8_t *heads;
    bool given;
    int *count;
    const int n = facts->n_layer * facts->n_head;
    TRY(plan_alloc(job->plan, (size_t)n, 1, &heads, error));
    TRY(plan_alloc(job->plan, 1, sizeof *count, &count, error));
    TRY(select_heads(s, job, heads, &given, error));
    if (!given) {
        return idle(job, "neither heads nor a table is given");
    }
    struct plan_step *step;
    TRY(plan_add(job->plan, PLAN_SCALE_HEADS, job->method, &step, error));
    TRY(plan_alloc(job->plan, (size_t)n, sizeof *step->table, &step->table, error));
    step->rows = ROW_ALL;
    for (int i = 0; i < n; i++) {
        step->table[i] = heads[i] ? scale : 1.0f;
        step->layers[i / facts->n_head] = step->layers[i / facts->n_head] || heads[i];
        *count += heads[i];
    }
    job->note->report = report;
    job->note->state = count;
    return CANDID_OK;
}

static const char *const columns[] = {"vhd", "image_attention", NULL};
static const struct method_option options[] = {
    {"scale", OPTION_FLOAT, "0", NULL, NULL, -100, 100, NULL,
     "Factor on the heads' output: 0 masks them, 1 changes nothing."},
    {"heads", OPTION_HEADS, "null", NULL, NULL, 0, 4096, NULL, "The heads."},
    {"table", OPTION_PATH, "null", NULL, NULL, 0, 0, NULL,
     "Head table of `candid calibrate heads` to take heads from instead."},
    {"top", OPTION_INT, "10", NULL, NULL, 1, 1e6, NULL, "How many heads of the table are taken."},
    {"rank_by", OPTION_CHOICE, "\"vhd\"", NULL, NULL, 0, 0, columns, "The table's column that ranks them."},
};

const struct method method_head_scale = {
    .name = "head_scale",
    .title = "Head masking and scaling",
    .edits = "head_output: multiplies the output of listed heads, in all rows",
    .cost = "none worth measuring",
    .citation = "A tool of head studies, e.g. Wu et al.: Retrieval Head Mechanistically Explains Long-Context "
                "Factuality. arXiv 2404.15574",
    .per_question = true,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .compile = compile,
};
