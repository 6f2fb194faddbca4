/*
 * VCD, visual contrastive decoding: what the model would say of the image under diffusion noise shows its priors, and
 * is subtracted.
 *
 * Leng et al.: Mitigating Object Hallucinations in Large Vision-Language Models through Visual Contrastive Decoding,
 * CVPR 2024, arXiv 2311.16922; code DAMO-NLP-SG/VCD. The released program contrasts when sampling only, and until July
 * 2024 only the first token.
 */
#include "interventions/branch.h"

static candid_status branches(const struct settings *s, struct branch_list *list, candid_error *error) {
    struct branch *b = NULL;
    candid_status status = branch_add(list, "noised image", &b, error);
    if (status == CANDID_OK) {
        b->sight = SIGHT_NOISE;
        b->noise_step = setting_int(s, "noise_step");
        b->seed = (uint64_t)setting_int(s, "seed");
        b->weight = setting_float(s, "alpha");
        b->cutoff = setting_float(s, "beta");
        b->n_tokens = setting_bool(s, "first_token_only") ? 1 : 0;
    }
    return status;
}

static const struct method_option options[] = {
    {"alpha", OPTION_FLOAT, "1", NULL, NULL, 0, 100, NULL,
     "Logits become (1 + alpha) times those of the image minus alpha times those of the noised image."},
    {"beta", OPTION_FLOAT, "0.1", NULL, NULL, 0, 1, NULL,
     "Tokens less probable than beta times the most probable one are cut off. The released LLaVA script has 0.2."},
    {"noise_step", OPTION_INT, "500", NULL, NULL, 0, 999, NULL, "Diffusion step, of 1000."},
    {"seed", OPTION_INT, "0", NULL, NULL, 0, 2147483647, NULL, "Of the noise, which is drawn once per image."},
    /* the released program was mended: no preset contrasts the first token only */
    {"first_token_only", OPTION_BOOL, "false", NULL, NULL, 0, 0, NULL,
     "Contrast the first generated token only, as the released program did until July 2024."},
};

const struct method method_vcd = {
    .name = "vcd",
    .title = "Visual contrastive decoding (VCD)",
    .kind = METHOD_CONTRAST,
    .edits = "logits: contrasted with those for the image under diffusion noise",
    .cost = "one more image encoding and prompt, one more row in every step",
    .citation = "Leng, Zhang, Chen, Li, Lu, Miao, Bing: Mitigating Object Hallucinations in Large Vision-Language "
                "Models through Visual Contrastive Decoding. CVPR 2024, arXiv 2311.16922. Code: DAMO-NLP-SG/VCD",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .branches = branches,
};
