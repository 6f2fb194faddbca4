/*
 * CausalMM: what the model would say if attention were counterfactual (in the image encoder, in the language model, or
 * in both) shows the prior of that modality, and is subtracted.
 *
 * Zhou et al.: Mitigating Modality Prior-Induced Hallucinations in Multimodal Large Language Models via Deciphering
 * Attention Causality, ICLR 2025, arXiv 2410.04780; code The-Martyr/CausalMM. The released image branch scales each
 * patch's features by its edited attention map, shrunk to the grid. The language branch is a snippet there that does
 * not say which layers it edits. As released only the first token is contrasted.
 */
#include <string.h>

#include "core/status.h"
#include "interventions/branch.h"
#include "interventions/common.h"

static const char *const vision_modes[] = {"off", "shuffle", "random", "uniform", "reversed", NULL};
static const char *const language_modes[] = {"off",     "reverse", "reverse_normalised", "uniform", "random",
                                             "shuffle", NULL};

static int index_of(const char *const *list, const char *name) {
    int i = 0;
    while (list[i] && strcmp(list[i], name) != 0) {
        i++;
    }
    return i;
}

static void weigh(const struct settings *s, struct branch *b) {
    b->weight = setting_float(s, "gamma");
    b->cutoff = setting_float(s, "epsilon");
    b->n_tokens = setting_bool(s, "first_token_only") ? 1 : 0;
    b->seed = (uint64_t)setting_int(s, "seed");
}

static candid_status branches(const struct settings *s, struct branch_list *list, candid_error *error) {
    const int vision = index_of(vision_modes, setting_string(s, "vision")),
              language = index_of(language_modes, setting_string(s, "language"));
    candid_status status = CANDID_OK;
    struct branch *b = NULL;
    if (vision == 0 && language == 0) {
        return branches_idle(list, "vision and language are both off");
    }
    if (vision > 0) {
        status = branch_add(list, "counterfactual image attention", &b, error);
        if (status == CANDID_OK) {
            b->sight = SIGHT_SCALED;
            b->map_edit = vision - 1;
            b->block = setting_int(s, "vision_block");
            weigh(s, b);
        }
    }
    if (status == CANDID_OK && language > 0) {
        status = branch_add(list, "counterfactual language attention", &b, error);
        if (status == CANDID_OK) {
            b->sight = SIGHT_SAME;
            b->own_edits = true;
            weigh(s, b);
        }
    }
    return status;
}

/* The plan of the language branch. */
static candid_status compile(const struct settings *s, struct compile_job *job, candid_error *error) {
    static const enum replace_mode modes[] = {REPLACE_REVERSE, REPLACE_REVERSE_NORMALISED, REPLACE_UNIFORM,
                                              REPLACE_RANDOM, REPLACE_SHUFFLE};
    const int mode = index_of(language_modes, setting_string(s, "language"));
    struct plan_step *step = NULL;
    TRY(plan_add(job->plan, PLAN_ATTENTION, job->method, &step, error));
    TRY(select_layers(s, "language_layers", job, step->layers, NULL, error));
    step->rows = ROW_ALL;
    step->edit = (struct attention_edit){
        .kind = EDIT_PROBS_REPLACE, .replace = modes[mode - 1], .seed = (uint64_t)setting_int(s, "seed")};
    return CANDID_OK;
}

static const struct method_option options[] = {
    {"vision", OPTION_CHOICE, "\"reversed\"", "\"shuffle\"", "\"shuffle\"", 0, 0, vision_modes,
     "Counterfactual attention of the image encoder; off: no such branch."},
    {"language", OPTION_CHOICE, "\"off\"", NULL, NULL, 0, 0, language_modes,
     "Counterfactual attention of the language model, in all rows; off: no such branch. reverse: the row's highest "
     "probability minus each, not normalised."},
    {"gamma", OPTION_FLOAT, "1", NULL, NULL, 0, 100, NULL,
     "Weight of each difference: logits become z + gamma (z - z_vision) + gamma (z - z_language)."},
    {"epsilon", OPTION_FLOAT, "0.1", NULL, "0.6", 0, 1, NULL,
     "Tokens less probable than epsilon times the most probable one are cut off. The released script has 0.6."},
    {"vision_block", OPTION_INT, "-1", NULL, NULL, -1000, 1000, NULL,
     "Block of the image encoder whose map is edited; -1: the last block whose output the projector reads."},
    {"language_layers", OPTION_LAYERS, "\"all\"", NULL, NULL, 0, 0, NULL,
     "Decoder layers with counterfactual attention; the released program does not say which."},
    {"seed", OPTION_INT, "0", NULL, NULL, 0, 2147483647, NULL, "Of random and shuffle."},
    OPTION_FIRST_TOKEN_ONLY,
};

const struct method method_causalmm = {
    .name = "causalmm",
    .title = "Causal inference on attention (CausalMM)",
    .kind = METHOD_CONTRAST,
    .edits = "logits: contrasted with those under counterfactual attention (reads vision.attention; edits "
             "attention.probs of a branch)",
    .cost = "for each branch one more prompt and one more row in every step",
    .citation = "Zhou, Yan, Zou, Wang, Liu, Hu: Mitigating Modality Prior-Induced Hallucinations in Multimodal Large "
                "Language Models via Deciphering Attention Causality. ICLR 2025, arXiv 2410.04780. Code: "
                "The-Martyr/CausalMM",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .compile = compile,
    .branches = branches,
};
