/*
 * PAI, pay attention to image. In the row that predicts the next token every head's scores of image tokens grow by
 * alpha times their magnitude, before the softmax; the logits are contrasted with those of the prompt without its
 * image.
 *
 * Liu et al.: Paying More Attention to Image, ECCV 2024, arXiv 2407.21771; code LALBJ/PAI. With its contrast against a
 * text-only branch on, the released program leaves the first generated token unboosted (its issue 11).
 */
#include "interventions/branch.h"
#include "interventions/common.h"

static candid_status compile(const struct settings *s, struct compile_job *job, candid_error *error) {
    const unsigned rows = (setting_bool(s, "boost_first_token") ? ROW_LAST : 0u) | ROW_GENERATED;
    return raise_image_scores(s, job, EDIT_SCORES_ABS, rows, error);
}

static const struct method_option options[] = {
    {"alpha", OPTION_FLOAT, "0.5", NULL, NULL, 0, 100, NULL,
     "Scores of image tokens grow by alpha times their magnitude. Paper: 0.5 for LLaVA, 0.6 Shikra, 0.2 MiniGPT-4. 0 "
     "changes nothing."},
    {"layers", OPTION_LAYERS, "\"2-\"", NULL, NULL, 0, 0, NULL,
     "Layers edited. The paper's choice by similarity of hidden states is the constant 2 in the released program."},
    {"boost_first_token", OPTION_BOOL, "true", "true", "false", 0, 0, NULL,
     "Whether the first generated token is predicted with the boost; in the released program with contrast it is not."},
    OPTIONS_TEXT_CONTRAST,
};

const struct method method_pai = {
    .name = "pai",
    .title = "Pay attention to image (PAI)",
    .edits =
        "attention.scores: raises the scores of image tokens in the last row; logits: contrasted with those of the "
        "text alone",
    .cost = "one more short prompt and one more row in every step (with gamma 1 neither)",
    .citation = "Liu, Zheng, Chen: Paying More Attention to Image: A Training-Free Method for Alleviating "
                "Hallucination in LVLMs. ECCV 2024, arXiv 2407.21771. Code: LALBJ/PAI",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .compile = compile,
    .branches = text_contrast,
};
