/*
 * HGAI, heads guided attention intervention. In the middle layers, the score of every image token grows by alpha times
 * the mean over all heads of its magnitude: the same addend for every head, so that heads agree on where to look.
 *
 * Jiang et al.: Devils in Middle Layers of Large Vision-Language Models, CVPR 2025, arXiv 2411.16724; code
 * ZhangqiJiang07/middle_layers_indicating_hallucinations (its range of layers is inclusive).
 */
#include "interventions/common.h"

static candid_status compile(const struct settings *s, struct compile_job *job, candid_error *error) {
    return raise_image_scores(s, job, EDIT_SCORES_MEAN_ABS, ROW_LAST | ROW_GENERATED, error);
}

static const struct method_option options[] = {
    {"alpha", OPTION_FLOAT, "0.5", NULL, NULL, 0, 100, NULL, "Factor on the heads' mean magnitude. 0 changes nothing."},
    {"layers", OPTION_LAYERS, "\"5-18\"", NULL, NULL, 0, 0, NULL, "Layers edited; 5 to 18 of LLaVA-1.5-7B's 32."},
};

const struct method method_hgai = {
    .name = "hgai",
    .title = "Heads guided attention intervention (HGAI)",
    .edits = "attention.scores: adds the heads' mean magnitude to the scores of image tokens in the last row",
    .cost = "the scores of all heads are held before the softmax of any",
    .citation = "Jiang et al.: Devils in Middle Layers of Large Vision-Language Models: Interpreting, Detecting and "
                "Mitigating Object Hallucinations via Attention Lens. CVPR 2025, arXiv 2411.16724. Code: "
                "ZhangqiJiang07/middle_layers_indicating_hallucinations",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .compile = compile,
};
