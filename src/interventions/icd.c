/*
 * ICD, instruction contrastive decoding: an instruction that disturbs the model brings its hallucinations forward; what
 * it would say under it is subtracted.
 *
 * Wang et al.: Mitigating Hallucinations in Large Vision-Language Models with Instruction Contrastive Decoding,
 * Findings of ACL 2024, arXiv 2403.18715; code p1k0pan/ICD. Its LLaVA runner puts the disturbance in place of the
 * conversation's system sentence, its InstructBLIP runner before the question.
 */
#include <string.h>

#include "core/status.h"
#include "interventions/branch.h"

static const char *const places[] = {"system", "question", NULL};

static candid_status branches(const struct settings *s, struct branch_list *list, candid_error *error) {
    struct branch *b = NULL;
    TRY(branch_add(list, "disturbed instruction", &b, error));
    const char *prefix = setting_string(s, "prefix");
    char *copy = strdup(prefix);
    if (!copy) {
        return fail_memory(error, "a prompt", strlen(prefix));
    }
    if (strcmp(setting_string(s, "place"), "system") == 0) {
        b->system = copy;
    } else {
        b->prefix = copy;
    }
    b->sight = SIGHT_SAME;
    b->weight = setting_float(s, "alpha");
    b->cutoff = setting_float(s, "beta");
    b->n_tokens = setting_bool(s, "first_token_only") ? 1 : 0;
    return CANDID_OK;
}

#define DISTURBANCE "\"You are a confused objects detector to provide a fuzzy overview or impression of the image.\""

static const struct method_option options[] = {
    {"alpha", OPTION_FLOAT, "1", NULL, NULL, 0, 100, NULL,
     "Logits become (1 + alpha) times those of the prompt minus alpha times those of the disturbed prompt."},
    {"beta", OPTION_FLOAT, "0.1", NULL, NULL, 0, 1, NULL,
     "Tokens less probable than beta times the most probable one are cut off."},
    {"prefix", OPTION_TEXT, DISTURBANCE, NULL, NULL, 0, 0, NULL, "The disturbing instruction."},
    {"place", OPTION_CHOICE, "\"system\"", NULL, NULL, 0, 0, places,
     "Where it goes: in place of what the conversation says before \"USER:\" (in front, if it has no such turn), or "
     "before the question."},
    {"first_token_only", OPTION_BOOL, "false", NULL, NULL, 0, 0, NULL, "Contrast the first generated token only."},
};

const struct method method_icd = {
    .name = "icd",
    .title = "Instruction contrastive decoding (ICD)",
    .kind = METHOD_CONTRAST,
    .edits = "logits: contrasted with those under a disturbing instruction",
    .cost = "one more prompt (its image is shared where the disturbance comes after it), one more row in every step",
    .citation = "Wang, Pan, Ding, Biemann: Mitigating Hallucinations in Large Vision-Language Models with Instruction "
                "Contrastive Decoding. Findings of ACL 2024, arXiv 2403.18715. Code: p1k0pan/ICD",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .branches = branches,
};
