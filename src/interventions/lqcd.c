/*
 * LQCD, leading-query contrastive decoding: a question that suggests its answer pulls the model along. The answer is
 * that to a neutral wording, contrasted with that to the user's.
 *
 * Zhao et al.: Towards Analyzing and Mitigating Sycophancy in Large Vision-Language Models, arXiv 2408.11261. There is
 * no released program; the paper's neutral wordings are written by a language model, ours by rules or by the user.
 */
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/status.h"
#include "interventions/branch.h"
#include "interventions/neutral.h"

static candid_status branches(const struct settings *s, struct branch_list *list, candid_error *error) {
    const char *given = setting_string(s, "neutral");
    bool changed = true;
    char *neutral = given ? strdup(given) : neutral_request(list->request, &changed);
    if (!neutral) {
        return fail_memory(error, "a prompt", strlen(list->request));
    }
    if (!changed || strcmp(neutral, list->request) == 0) {
        free(neutral);
        return branches_idle(list, given ? "lqcd.neutral is the question itself"
                                         : "the question is not a leading one by our rules; lqcd.neutral gives another "
                                           "wording");
    }
    free(list->main_request);
    list->main_request = neutral;
    struct branch *b = NULL;
    TRY(branch_add(list, "leading question", &b, error));
    b->sight = SIGHT_SAME;
    b->request = strdup(list->request);
    b->weight = setting_float(s, "alpha");
    b->cutoff = setting_float(s, "beta");
    return b->request ? CANDID_OK : fail_memory(error, "a prompt", strlen(list->request));
}

static const struct method_option options[] = {
    {"alpha", OPTION_FLOAT, "1", NULL, NULL, 0, 100, NULL,
     "Logits become (1 + alpha) times those of the neutral question minus alpha times those of the leading one."},
    {"beta", OPTION_FLOAT, "0.1", NULL, NULL, 0, 1, NULL,
     "Tokens less probable than beta times the most probable one (of the neutral question) are cut off."},
    {"neutral", OPTION_TEXT, "null", NULL, NULL, 0, 0, NULL,
     "The neutral wording of the question; null: by rules (negated verbs, tags like \"right?\", \"I think\")."},
};

const struct method method_lqcd = {
    .name = "lqcd",
    .title = "Leading-query contrastive decoding (LQCD)",
    .kind = METHOD_CONTRAST,
    .edits = "logits: those for a neutral question, contrasted with those for the user's leading one",
    .cost = "one more question (the image is shared), one more row in every step",
    .citation = "Zhao et al.: Towards Analyzing and Mitigating Sycophancy in Large Vision-Language Models. arXiv "
                "2408.11261. No released program",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .branches = branches,
};
