/*
 * DAMRO: the few background patches that the image encoder's class token attends to most mislead the language model;
 * what it would say of them alone is subtracted.
 *
 * Gong et al.: DAMRO, EMNLP 2024, arXiv 2410.04514; code coder-gx/DAMRO. "Attention" is the program's: queries and keys
 * of one encoder block as if they were a single head of full width.
 */
#include "interventions/branch.h"

static candid_status branches(const struct settings *s, struct branch_list *list, candid_error *error) {
    struct branch *b = NULL;
    candid_status status = branch_add(list, "outlier tokens", &b, error);
    if (status == CANDID_OK) {
        b->sight = SIGHT_CHOSEN;
        b->n_chosen = setting_int(s, "tokens");
        b->block = setting_int(s, "block");
        b->weight = setting_float(s, "alpha");
        b->cutoff = setting_float(s, "beta");
        b->n_tokens = setting_bool(s, "first_token_only") ? 1 : 0;
    }
    return status;
}

static const struct method_option options[] = {
    {"alpha", OPTION_FLOAT, "2", NULL, NULL, 0, 100, NULL,
     "Logits become (1 + alpha) times those of the image minus alpha times those of the chosen tokens."},
    {"beta", OPTION_FLOAT, "0.1", NULL, NULL, 0, 1, NULL,
     "Tokens less probable than beta times the most probable one are cut off."},
    {"tokens", OPTION_INT, "10", NULL, NULL, 2, 100000, NULL,
     "Image tokens kept in the branch, of the first view, highest attention first."},
    {"block", OPTION_INT, "-1", NULL, NULL, -1000, 1000, NULL,
     "Block of the image encoder whose class token chooses; -1: the last block whose output the projector reads."},
    {"first_token_only", OPTION_BOOL, "false", NULL, NULL, 0, 0, NULL, "Contrast the first generated token only."},
};

const struct method method_damro = {
    .name = "damro",
    .title = "Contrast with the image encoder's outlier tokens (DAMRO)",
    .kind = METHOD_CONTRAST,
    .edits = "logits: contrasted with those for a few image tokens (reads vision.attention)",
    .cost = "one row of attention in the image encoder, one more short prompt, one more row in every step",
    .citation = "Gong, Ming, Wang, Wei: DAMRO: Dive into the Attention Mechanism of LVLM to Reduce Object "
                "Hallucination. EMNLP 2024, arXiv 2410.04514. Code: coder-gx/DAMRO",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .branches = branches,
};
