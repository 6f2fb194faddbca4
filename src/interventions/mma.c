/*
 * MMA, modality-mutual attention. Image tokens, which stand before the question, may also see the text after the image.
 * A change of the mask during the prompt; positions and the image's own causal order stay.
 *
 * Wang et al.: Seeing is Understanding: Unlocking Causal Attention into Modality-Mutual Attention for Multimodal LLMs,
 * arXiv 2503.02597; code sony/aki. Not training-free. One image: with several, the rows of each see the text after the
 * last.
 */
#include "core/log.h"
#include "core/status.h"
#include "interventions/common.h"

static candid_status compile(const struct settings *s, struct compile_job *job, candid_error *error) {
    if (!has_image(job)) {
        return CANDID_OK;
    }
    int after = 0;
    for (int i = 0; i < job->layout->n_spans; i++) {
        after = job->layout->spans[i].kind == SPAN_IMAGE ? job->layout->spans[i].end : after;
    }
    const int end = job->plan->n_prompt - setting_int(s, "keep_last");
    if (end <= after) {
        return idle(job, "no text after the image is left to be seen (keep_last = %d)", setting_int(s, "keep_last"));
    }
    log_write(
        job->log, CANDID_LOG_WARN,
        "mma: model \"%s\" is not known to be trained with modality-mutual attention; on other weights it is out of "
        "distribution",
        job->facts->name);
    job->plan->unlock_begin = after;
    job->note->acts = true;
    job->plan->unlock_end = end;
    job->plan->whole_prompt = true;
    return CANDID_OK;
}

static const struct method_option options[] = {
    {"keep_last", OPTION_INT, "0", NULL, NULL, 0, 1e6, NULL,
     "Last tokens of the prompt that image tokens do not see, such as those of the assistant marker. The released "
     "program shows them its marker."},
};

const struct method method_mma = {
    .name = "mma",
    .title = "Modality-mutual attention (MMA)",
    .edits = "positions: the mask lets image tokens see the text after the image",
    .cost = "image rows leave the ordinary attention kernel: a prompt about 1.4 times as long; its keys depend on the "
            "question",
    .citation = "Wang et al.: Seeing is Understanding: Unlocking Causal Attention into Modality-Mutual Attention for "
                "Multimodal LLMs. arXiv 2503.02597. Code: sony/aki",
    .for_every_row = true,
    .per_question = true,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .compile = compile,
};
