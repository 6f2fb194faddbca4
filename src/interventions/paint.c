/*
 * PAINT. Like PAI's boost, but for two small sets of image tokens chosen by the image encoder's class token, with
 * strengths of their own: local tokens (an early block looks at them) and summary tokens (a late block looks at them
 * unusually much).
 *
 * Arif et al.: Fixing Imbalanced Attention to Mitigate In-Context Hallucination of Large Vision-Language Model, arXiv
 * 2501.12206; code hasanar1f/PAINT, a fork of PAI. The head-wise modulation of the first abstract and the "spatial" set
 * are not in the released program in any working form and not here. Its shipped alpha of 0.9 gives captions of six
 * words; alpha <= 0.5 is usable.
 */
#include "interventions/paint.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "interventions/branch.h"
#include "interventions/common.h"

/* Linear interpolation between the sorted values, as numpy.percentile. */
static double quantile(const float *sorted, int n, double q) {
    const double at = q * (n - 1);
    const int low = (int)at, high = low + 1 < n ? low + 1 : low;
    return (double)sorted[low] + (at - low) * ((double)sorted[high] - (double)sorted[low]);
}

int paint_select(const float *summary_score, const float *local_score, int n, int n_local, uint8_t *cells) {
    if (n < 1) {
        return 0;
    }
    float *sorted = malloc((size_t)n * sizeof *sorted);
    uint8_t *summary = calloc((size_t)n, 1);
    int n_summary = -1;
    if (sorted && summary) {
        memcpy(sorted, summary_score, (size_t)n * sizeof *sorted);
        qsort(sorted, (size_t)n, sizeof *sorted, ascending);
        const double q1 = quantile(sorted, n, 0.25), q3 = quantile(sorted, n, 0.75);
        n_summary = 0;
        for (int i = 0; i < n; i++) {
            n_summary += (double)summary_score[i] > q3 + 1.5 * (q3 - q1);
        }
        memset(cells, 0, (size_t)n);
        mark_highest(local_score, n, n_local, 1, cells);
        mark_highest(summary_score, n, n_summary, 2, summary);
        for (int i = 0; i < n; i++) {
            cells[i] = summary[i] ? 2 : cells[i];
        }
    }
    free(sorted);
    free(summary);
    return n_summary;
}

struct paint_state {
    int n_local, n_summary; /* of all images */
};

static void report(const struct plan *plan, const struct plan_note *note, cJSON *out) {
    const struct paint_state *p = note->state;
    cJSON_AddNumberToObject(out, "local_tokens", p->n_local);
    cJSON_AddNumberToObject(out, "summary_tokens", p->n_summary);
}

/* Block numbers count from the end when negative. */
static int block_of(const struct settings *s, const char *option, const struct model_facts *facts) {
    const int block = setting_int(s, option);
    return block < 0 ? facts->n_vision_blocks + block : block;
}

static void needs(const struct settings *s, const struct model_facts *facts, struct method_needs *needs) {
    needs->vision_blocks[0] = block_of(s, "local_block", facts);
    needs->vision_blocks[1] = block_of(s, "summary_block", facts);
    needs->n_vision_blocks = 2;
}

static const struct vision_tap *tap_of(const struct compile_job *job, int image, int block) {
    for (int t = 0; image < job->n_images && t < job->n_taps; t++) {
        const struct vision_tap *tap = &job->taps[image * job->n_taps + t];
        if (tap->block == block) {
            return tap;
        }
    }
    return NULL;
}

static candid_status classify(const struct settings *s, struct compile_job *job, const struct span *span,
                              struct paint_state *state, uint8_t *classes, candid_error *error) {
    const struct vision_tap *local = tap_of(job, span->image, block_of(s, "local_block", job->facts));
    const struct vision_tap *summary = tap_of(job, span->image, block_of(s, "summary_block", job->facts));
    const int n = span->grid_h * span->grid_w;
    if (n == 0 || !local || !summary || local->n != n || summary->n != n) {
        return fail(error, CANDID_ERROR_UNSUPPORTED,
                    "paint: expected one image token per patch of image %d; LLaVA-NeXT's tiles have none (use "
                    "preprocess pad or crop)",
                    span->image);
    }
    uint8_t *cells = calloc((size_t)n, 1);
    int *order = malloc((size_t)n * sizeof *order);
    candid_status status = CANDID_OK;
    if (!cells || !order ||
        paint_select(summary->of_cls, local->of_cls, n, (int)(n * (double)setting_float(s, "local_ratio")), cells) <
            0) {
        status = fail_memory(error, "paint's tokens", (size_t)n * (sizeof *order + 1));
    } else {
        grid_cells(span->order, span->grid_h, span->grid_w, order);
        for (int i = 0; i < n; i++) {
            classes[span->begin + i] = cells[order[i]];
            state->n_local += cells[i] == 1;
            state->n_summary += cells[i] == 2;
        }
    }
    free(cells);
    free(order);
    return status;
}

static candid_status compile(const struct settings *s, struct compile_job *job, candid_error *error) {
    const float alpha = setting_float(s, "alpha"), beta = setting_float(s, "beta");
    if (alpha == 0.0f && beta == 0.0f) {
        return idle(job, "alpha = beta = 0 add nothing");
    }
    if (!has_image(job)) {
        return CANDID_OK;
    }
    struct paint_state *state;
    uint8_t *classes;
    TRY(plan_alloc(job->plan, 1, sizeof *state, &state, error));
    TRY(plan_alloc(job->plan, (size_t)job->plan->n_prompt, 1, &classes, error));
    for (int i = 0; i < job->layout->n_spans; i++) {
        if (job->layout->spans[i].kind == SPAN_IMAGE) {
            TRY(classify(s, job, &job->layout->spans[i], state, classes, error));
        }
    }
    if ((alpha == 0.0f || state->n_local == 0) && (beta == 0.0f || state->n_summary == 0)) {
        return idle(job, "no token is boosted: %d local with alpha %g, %d summary with beta %g", state->n_local,
                    (double)alpha, state->n_summary, (double)beta);
    }
    const unsigned rows = (setting_bool(s, "boost_first_token") ? ROW_LAST : 0u) | ROW_GENERATED;
    struct plan_step *step;
    TRY(add_attention(s, job, EDIT_SCORES_ABS, rows, &step, error));
    step->edit.classes = classes;
    step->edit.gain[1] = alpha;
    step->edit.gain[2] = beta;
    job->note->report = report;
    job->note->state = state;
    return CANDID_OK;
}

static const struct method_option options[] = {
    {"alpha", OPTION_FLOAT, "0.5", "0.5", "0.9", 0, 100, NULL,
     "Boost of local tokens. The released script's 0.9 yields captions of six words."},
    {"beta", OPTION_FLOAT, "0.3", NULL, NULL, 0, 100, NULL, "Boost of summary tokens."},
    {"layers", OPTION_LAYERS, "\"2-\"", NULL, NULL, 0, 0, NULL, "Decoder layers edited."},
    {"local_block", OPTION_INT, "0", NULL, NULL, -1000, 1000, NULL,
     "Block of the image encoder whose class token chooses local tokens; negative: from the end."},
    {"summary_block", OPTION_INT, "-1", NULL, NULL, -1000, 1000, NULL,
     "Block whose class token chooses summary tokens; -1: the last block whose output the projector reads (CLIP-L: "
     "22)."},
    {"boost_first_token", OPTION_BOOL, "true", "true", "false", 0, 0, NULL,
     "Whether the first generated token is predicted with the boost; in the released program, with PAI's contrast, it "
     "is not."},
    OPTIONS_TEXT_CONTRAST,
    {"local_ratio", OPTION_FLOAT, "0.25", NULL, NULL, 0, 1, NULL, "Share of the patches that are local tokens."},
};

const struct method method_paint = {
    .name = "paint",
    .title = "Paying attention to informed tokens (PAINT)",
    .edits = "attention.scores: raises the scores of chosen image tokens in the last row (reads vision.attention); "
             "logits: contrasted with those of the text alone",
    .cost = "one row of attention in two blocks of the image encoder; one more short prompt and one more row in every "
            "step (with gamma 1 neither)",
    .citation = "Arif, Yoon, Nikolopoulos, Vandierendonck, John, Ji: Fixing Imbalanced Attention to Mitigate "
                "In-Context Hallucination of Large Vision-Language Model. arXiv 2501.12206. Code: hasanar1f/PAINT",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .needs = needs,
    .compile = compile,
    .branches = text_contrast,
};
