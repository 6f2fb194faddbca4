/*
 * CCA, concentric causal attention. Image tokens get the position of their ring, border first, so that every image
 * token is close to the text after the image; an image token sees its own ring and those outside of it.
 *
 * Xing et al.: Mitigating Object Hallucination via Concentric Causal Attention, NeurIPS 2024, arXiv 2410.15926; code
 * xing0047/cca-llava. Not training-free: weights must have been trained with it. The released program knows the 24x24
 * grid only; here ring = distance to the border, so any grid works.
 *
 * Image tokens are stored ring by ring. Then what a row sees is a prefix of the sequence, and neither the attention
 * kernels nor the other methods need to know of rings.
 */
#include <string.h>

#include "core/log.h"
#include "core/status.h"
#include "interventions/common.h"

static enum image_order order_of(const struct settings *s) {
    return strcmp(setting_string(s, "mode"), "rings") == 0 ? IMAGE_RINGS : IMAGE_REVERSE;
}

static void needs(const struct settings *s, const struct model_facts *facts, struct method_needs *needs) {
    needs->order = order_of(s);
}

static void report(const struct plan *plan, const struct plan_note *note, cJSON *out) {
    const int *rings = note->state;
    cJSON_AddNumberToObject(out, "rings", *rings);
}

static candid_status compile(const struct settings *s, struct compile_job *job, candid_error *error) {
    if (!has_image(job)) {
        return CANDID_OK;
    }
    int *rings;
    TRY(plan_alloc(job->plan, 1, sizeof *rings, &rings, error));
    for (int i = 0; i < job->layout->n_spans; i++) {
        const struct span *span = &job->layout->spans[i];
        if (span->kind == SPAN_IMAGE && span->grid_h == 0) {
            return fail(error, CANDID_ERROR_UNSUPPORTED,
                        "cca: the tokens of image %d form no grid (LLaVA-NeXT's tiles); use preprocess pad or crop",
                        span->image);
        }
        if (span->kind == SPAN_IMAGE) {
            *rings = grid_rings(span->grid_h, span->grid_w);
        }
    }
    if (order_of(s) == IMAGE_RINGS && !job->facts->trained_with_cca) {
        log_write(job->log, CANDID_LOG_WARN,
                  "cca: model \"%s\" is not known to be trained with concentric causal attention; on other weights it "
                  "is out of distribution",
                  job->facts->name);
    }
    job->plan->order = order_of(s);
    job->note->acts = true;
    job->note->report = report;
    job->note->state = rings;
    return CANDID_OK;
}

static const char *const modes[] = {"rings", "reverse_raster", NULL};
static const struct method_option options[] = {
    {"mode", OPTION_CHOICE, "\"rings\"", NULL, NULL, 0, 0, modes,
     "rings: the method. reverse_raster: the pilot study's order, image token i at the place of the last but i."},
};

const struct method method_cca = {
    .name = "cca",
    .title = "Concentric causal attention (CCA)",
    .edits = "positions: ring numbers as positions of image tokens, and a ring-wise causal mask among them",
    .cost = "none",
    .citation =
        "Xing et al.: Mitigating Object Hallucination via Concentric Causal Attention. NeurIPS 2024, arXiv 2410.15926. "
        "Code: xing0047/cca-llava",
    .for_every_row = true,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .needs = needs,
    .compile = compile,
};
