/* candid inspect: runs that watch attention. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/request.h"
#include "cli/inspect.h"
#include "core/status.h"
#include "interventions/measure.h"

void attention_record_free(struct attention_record *r) {
    free(r->cells);
    free(r->word_mass);
    free(r->mass);
    free(r->interventions);
    *r = (struct attention_record){0};
}

/* ---- watching ------------------------------------------------------------------------------------ */

/* Follows one run. The row that predicts answer token k is the prompt's last row for k = 0, else the only row of the
 * k-th pass after the prompt. */
struct watch {
    const struct inspection *in;
    struct attention_record *record;
    const int *cells; /* [n_cells] raster index of the image's first tokens */
    int done;         /* rows of the prompt, then passes, that are over */
    int n_seen;       /* rows that predicted a token */
};

static void record_row(struct watch *w, int step, int layer, int head, const float *keys) {
    const struct inspection *in = w->in;
    const size_t at = (size_t)layer * (size_t)in->n_head + (size_t)head;
    const size_t plane = (size_t)in->n_layer * (size_t)in->n_head;
    double mass = 0.0;
    for (int i = 0; i < in->n_image; i++) {
        mass += (double)keys[in->image_begin + i];
    }
    w->record->mass[at] += (float)mass;
    for (size_t k = 0; k < in->n_words; k++) {
        if (in->words[k].token == (size_t)step) {
            float *cells = w->record->cells + (k * plane + at) * (size_t)in->n_cells;
            w->record->word_mass[k * plane + at] = (float)mass;
            for (int i = 0; i < in->n_cells; i++) {
                cells[w->cells[i]] = keys[in->image_begin + i];
            }
        }
    }
}

static void see(void *user_data, enum site site, int layer, const float *data, int n_rows, int n_cols) {
    struct watch *w = user_data;
    const struct inspection *in = w->in;
    const bool in_prompt = w->done < in->n_prompt;
    int rows = n_rows / in->n_head; /* companions of the prompt stand behind its own rows */
    rows = in_prompt && rows > in->n_prompt - w->done ? in->n_prompt - w->done : rows;
    if (w->done + rows >= in->n_prompt) {
        const int row = in_prompt ? in->n_prompt - 1 - w->done : 0;
        const int step = in_prompt ? 0 : w->done - in->n_prompt + 1;
        for (int h = 0; h < in->n_head; h++) {
            record_row(w, step, layer, h, data + ((size_t)row * (size_t)in->n_head + (size_t)h) * (size_t)n_cols);
        }
        w->n_seen += layer == in->n_layer - 1;
    }
    w->done += layer == in->n_layer - 1 ? rows : 0;
}

/* ---- runs ---------------------------------------------------------------------------------------- */

/* Runs the request with this plan, forced to give these tokens; what comes out is what the observer and the plan saw.
 */
static candid_status run(struct inspection *in, struct request *r, struct plan *plan, const struct token_list *forced,
                         const struct observer *observer, candid_error *error) {
    struct kv_seq *seq = NULL;
    struct generated out = {0};
    TRY(kv_seq_create(in->context->kv, &seq, error));
    struct generation g = request_generation(in->context, r, seq);
    g.plan = plan;
    g.n_branches = 0; /* the tokens are given: nothing is contrasted or searched for */
    g.decoding.strategy = STRATEGY_GREEDY;
    g.decoding.beams = g.decoding.answers = 1;
    g.forced = forced;
    g.max_new_tokens = (int)forced->count;
    g.observer = observer;
    const candid_status status = generate(&g, &out, error);
    generated_free(&out);
    kv_seq_free(seq);
    return status;
}

static candid_status allocate(const struct inspection *in, struct attention_record *r, candid_error *error) {
    const size_t plane = (size_t)in->n_layer * (size_t)in->n_head;
    const size_t cells = in->n_words * plane * (size_t)in->n_cells;
    r->cells = calloc(cells + 1, sizeof *r->cells);
    r->word_mass = calloc(in->n_words * plane + 1, sizeof *r->word_mass);
    r->mass = calloc(plane, sizeof *r->mass);
    return r->cells && r->word_mass && r->mass ? CANDID_OK
                                               : fail_memory(error, "recorded attention", cells * sizeof *r->cells);
}

/* Runs the answer once and records it. */
static candid_status record_run(struct inspection *in, struct request *request, const struct token_list *forced,
                                struct attention_record *r, candid_error *error) {
    const int grid = in->map.grid;
    int *cells = malloc((size_t)in->n_cells * sizeof *cells);
    if (!cells) {
        return fail_memory(error, "the order of image tokens", (size_t)in->n_cells * sizeof *cells);
    }
    grid_cells(request->spans[0].order, grid, grid, cells);
    struct watch watch = {.in = in, .record = r, .cells = cells};
    const struct observer observer = {
        .mask = 1u << SITE_ATTENTION_PROBS, .see = see, .cancelled = interrupt_requested, .user_data = &watch};
    candid_status status = run(in, request, request->plan, forced, &observer, error);
    free(cells);
    const size_t plane = (size_t)in->n_layer * (size_t)in->n_head;
    for (size_t i = 0; i < plane && watch.n_seen > 0; i++) {
        r->mass[i] /= (float)watch.n_seen;
    }
    if (status == CANDID_OK && watch.n_seen != (int)forced->count) {
        status = fail(error, CANDID_ERROR_INTERNAL, "inspect: saw %d rows of attention, expected %zu", watch.n_seen,
                      forced->count);
    }
    return status == CANDID_OK ? request_report(request, NULL, &r->interventions, error) : status;
}

/* ---- measuring ----------------------------------------------------------------------------------- */

/* Sinks by the model's known dimensions, when no active method has looked for them. */
static void peaks_to_sinks(struct inspection *in, const float *peaks, float tau) {
    for (int l = 0; l < in->n_layer; l++) {
        for (int i = 0; i < in->n_prompt; i++) {
            in->sinks.layers[i] += peaks[(size_t)l * (size_t)in->n_prompt + (size_t)i] > tau;
        }
    }
}

/* The dimensions that are massive in this model's sinks; false with the reason in `source`. */
static bool known_dims(struct inspection *in, int *dims, int most, int *n, float *tau) {
    const struct model_facts *facts = &in->model->facts;
    const cJSON *list = cJSON_GetObjectItem(facts->known, "sink_dims"),
                *known = cJSON_GetObjectItem(facts->known, "sink_tau");
    *tau = known ? (float)known->valuedouble : 20.0f;
    *n = 0;
    for (const cJSON *item = list ? list->child : NULL; item && *n < most; item = item->next) {
        if (item->valueint >= 0 && item->valueint < facts->n_embd) {
            dims[(*n)++] = item->valueint;
        }
    }
    char *why = in->sinks.source;
    const size_t size = sizeof in->sinks.source;
    if (*n == 0) {
        snprintf(why, size, "Not marked: the dimensions that are massive in this model's sinks are not known.");
        return false;
    }
    if (sqrtf((float)facts->n_embd) <= *tau) {
        snprintf(why, size, "Not marked: with %d dimensions no token can exceed the threshold of %g.", facts->n_embd,
                 (double)*tau);
        return false;
    }
    snprintf(why, size, "Tokens whose known massive dimensions exceed %g times their root mean square.", (double)*tau);
    return true;
}

/* One run of the prompt with nothing but probes. */
static candid_status measure(struct inspection *in, struct request *request, const struct token_list *forced,
                             candid_error *error) {
    const struct model_facts *facts = &in->model->facts;
    const struct vhr_rule distance = {0};
    const struct token_list first = {.ids = forced->ids, .count = 1};
    const struct observer observer = {.cancelled = interrupt_requested};
    int dims[16], n_dims = 0;
    float tau = 0.0f, *peaks = NULL;
    struct layout layout = {0};
    struct plan *plan = NULL;
    candid_status status;
    TRY_GOTO(layout_from_prompt(&request->prompt, request->spans, &layout, error), status, done);
    TRY_GOTO(measure_create(facts, &layout, &plan, error), status, done);
    TRY_GOTO(measure_heads(plan, facts, &distance, in->divergence, error), status, done);
    if (!in->sinks.known && known_dims(in, dims, 16, &n_dims, &tau)) {
        peaks = calloc((size_t)in->n_layer * (size_t)in->n_prompt, sizeof *peaks);
        status = peaks ? measure_peaks(plan, dims, n_dims, peaks, error) : fail_memory(error, "phi of all tokens", 0);
    }
    if (status == CANDID_OK) {
        status = run(in, request, plan, &first, &observer, error);
    }
    if (status == CANDID_OK && peaks) {
        in->sinks.known = true;
        peaks_to_sinks(in, peaks, tau);
    }
done:
    plan_free(plan);
    layout_free(&layout);
    free(peaks);
    return status;
}

/* The sinks that VAR found, from its report. */
static void sinks_of_var(struct inspection *in, const char *interventions) {
    cJSON *report = cJSON_Parse(interventions);
    const cJSON *var = cJSON_GetObjectItem(report, "var"), *layers = cJSON_GetObjectItem(var, "sinks");
    if (layers) {
        in->sinks.known = in->sinks.by_var = true;
        snprintf(in->sinks.source, sizeof in->sinks.source, "Tokens that VAR took for sinks (tau %g).",
                 cJSON_GetNumberValue(cJSON_GetObjectItem(var, "tau")));
    }
    for (const cJSON *layer = layers ? layers->child : NULL; layer; layer = layer->next) {
        const char *const kinds[] = {"text", "image"};
        for (int k = 0; k < 2; k++) {
            const cJSON *list = cJSON_GetObjectItem(layer, kinds[k]);
            for (const cJSON *item = list ? list->child : NULL; item; item = item->next) {
                if (item->valueint >= 0 && item->valueint < in->n_prompt) {
                    in->sinks.layers[item->valueint]++;
                }
            }
        }
    }
    cJSON_Delete(report);
}

/* ---- all of it ----------------------------------------------------------------------------------- */

/* Where the image stands in the prompt, and how it was seen. */
static candid_status place(struct inspection *in, const struct request *r, candid_error *error) {
    struct layout layout = {0};
    TRY(layout_from_prompt(&r->prompt, r->spans, &layout, error));
    const struct span *span = layout_find_image(&layout, 0);
    if (span) {
        in->image_begin = span->begin;
        in->n_image = span->end - span->begin;
    }
    layout_free(&layout);
    const struct clip_weights *clip = &in->model->clip;
    in->mode = r->views[0].mode;
    in->map = view_map_make(clip, &r->views[0], in->image->width, in->image->height);
    in->n_cells = clip->grid * clip->grid;
    in->n_prompt = (int)request_length(r);
    return in->n_image >= in->n_cells ? CANDID_OK
                                      : fail(error, CANDID_ERROR_INTERNAL,
                                             "inspect: the image has %d tokens, expected %d", in->n_image, in->n_cells);
}

/* asked: the question of the answer's row, which LQCD words anew */
static candid_status run_without(struct inspection *in, const candid_generate_params *params, const char *asked,
                                 const struct token_list *forced, candid_error *error) {
    const candid_image *images[] = {in->image};
    struct request r;
    TRY(request_prepare(in->context, images, 1, asked, params, &r, error));
    const struct observer observer = {.cancelled = interrupt_requested};
    candid_status status;
    TRY_GOTO(place(in, &r, error), status, done);
    in->divergence = calloc((size_t)in->n_layer * (size_t)in->n_head, sizeof *in->divergence);
    in->sinks.layers = calloc((size_t)in->n_prompt, sizeof *in->sinks.layers);
    if (!in->divergence || !in->sinks.layers) {
        status = fail_memory(error, "head divergences", 0);
        goto done;
    }
    if (in->has_after) {
        sinks_of_var(in, in->result->interventions);
    }
    TRY_GOTO(allocate(in, &in->before, error), status, done);
    TRY_GOTO(request_encode(in->context, images, &r, NULL, &observer, error), status, done);
    TRY_GOTO(record_run(in, &r, forced, &in->before, error), status, done);
    status = measure(in, &r, forced, error);
done:
    request_free(&r);
    return status;
}

static candid_status run_with(struct inspection *in, const candid_generate_params *params,
                              const struct token_list *forced, candid_error *error) {
    const candid_image *images[] = {in->image};
    struct request r;
    TRY(request_prepare(in->context, images, 1, in->options->prompt, params, &r, error));
    const struct observer observer = {.cancelled = interrupt_requested};
    in->sinks.order = in->sinks.by_var ? r.spans[0].order : IMAGE_RASTER;
    candid_status status;
    TRY_GOTO(allocate(in, &in->after, error), status, done);
    TRY_GOTO(request_encode(in->context, images, &r, params->config, &observer, error), status, done);
    status = record_run(in, &r, forced, &in->after, error);
done:
    request_free(&r);
    return status;
}

/* The question that the answer's row was asked. The caller frees it. */
static candid_status find_question(struct inspection *in, char **asked, candid_error *error) {
    const candid_image *images[] = {in->image};
    struct request r;
    TRY(request_prepare(in->context, images, 1, in->options->prompt, &in->options->generate, &r, error));
    *asked = strdup(r.list.main_request ? r.list.main_request : in->options->prompt);
    request_free(&r);
    return *asked ? CANDID_OK : fail_memory(error, "a question", 1);
}

candid_status inspect_record(struct inspection *in, candid_error *error) {
    const struct token_list forced = {.ids = (int32_t *)(uintptr_t)in->result->tokens, /* only read */
                                      .count = in->result->n_tokens};
    candid_generate_params params = in->options->generate;
    in->n_layer = in->model->facts.n_layer;
    in->n_head = in->model->facts.n_head;
    char *asked;
    TRY(find_question(in, &asked, error));
    params.config = NULL;
    const candid_status status = run_without(in, &params, asked, &forced, error);
    free(asked);
    TRY(status);
    params.config = in->options->config;
    return in->has_after ? run_with(in, &params, &forced, error) : CANDID_OK;
}
