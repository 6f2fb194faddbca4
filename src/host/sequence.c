/* candid_sequence: the plan of one prompt, and what it wants to see. */
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "host/array.h"
#include "host/host.h"
#include "host/search.h"
#include "host/view.h"

/* ---- the prompt ---------------------------------------------------------------------------------- */

#define MOST_TOKENS (1 << 24)

static candid_status add_span(candid_sequence *s, candid_span span, bool before_images, int *image,
                              candid_error *error) {
    if (span.kind != CANDID_SPAN_TEXT && span.kind != CANDID_SPAN_IMAGE) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_span.kind: expected 0 (text) or 1 (image), found %d",
                    (int)span.kind);
    }
    if (span.n_tokens < 0 || span.n_tokens > MOST_TOKENS - layout_length(&s->layout)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_span.n_tokens: expected 0 to %d, found %d",
                    MOST_TOKENS - layout_length(&s->layout), span.n_tokens);
    }
    if (span.kind == CANDID_SPAN_TEXT) {
        return layout_append(&s->layout, before_images ? SPAN_SYSTEM : SPAN_QUESTION, span.n_tokens, -1, 0, 0, error);
    }
    const int64_t cells = (int64_t)span.grid_h * span.grid_w;
    const bool grid = span.grid_h != 0 || span.grid_w != 0;
    if (span.n_tokens < 1 || span.grid_h < 0 || span.grid_w < 0 || (grid && cells != span.n_tokens)) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "candid_span: image %d: expected as many tokens as its grid has cells, found %d and %d x %d",
                    *image, span.n_tokens, span.grid_h, span.grid_w);
    }
    s->n_image_tokens += span.n_tokens;
    TRY(layout_append(&s->layout, SPAN_IMAGE, span.n_tokens, (*image)++, span.grid_h, span.grid_w, error));
    s->layout.spans[s->layout.n_spans - 1].order = grid ? s->task->plugin->needs.order : IMAGE_RASTER;
    return CANDID_OK;
}

/* Text before the first image is the system's; without images all of it is the question. */
static candid_status read_spans(candid_sequence *s, const candid_span *spans, size_t n_spans, candid_error *error) {
    int images = 0, image = 0;
    candid_span span;
    for (size_t i = 0; i < n_spans; i++) {
        TRY(array_read(&span, sizeof span, spans, i, "candid_span", error));
        images += span.kind == CANDID_SPAN_IMAGE;
    }
    const int expected = s->branch && s->branch->sight == SIGHT_NONE ? 0 : s->task->n_images;
    if (images != expected) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_sequence_create: expected %d images in the prompt, found %d",
                    expected, images);
    }
    for (size_t i = 0; i < n_spans; i++) {
        TRY(array_read(&span, sizeof span, spans, i, "candid_span", error));
        TRY(add_span(s, span, images > 0 && image == 0, &image, error));
    }
    s->n_prompt = layout_length(&s->layout);
    if (s->n_prompt == 0) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_sequence_create: the prompt is empty");
    }
    return CANDID_OK;
}

/* ---- taps ---------------------------------------------------------------------------------------- */

/* out: [n] sums over the heads. row: room for n. */
static candid_status sum_heads(const candid_view *v, float *out, float *row, candid_error *error) {
    const int n = (int)v->shape[1];
    memset(out, 0, (size_t)n * sizeof *out);
    for (int64_t h = 0; h < v->shape[0]; h++) {
        view_get(v, h * v->strides[0], v->strides[1], n, row);
        for (int i = 0; i < n; i++) {
            out[i] += row[i];
        }
    }
    return any_nan(out, (size_t)n) ? fail(error, CANDID_ERROR_ARGUMENT, "candid_tap.of_cls: a value is no number")
                                   : CANDID_OK;
}

/* The tap of an image and block. */
static candid_status find_tap(const candid_tap *taps, size_t n_taps, int image, int block, candid_tap *out,
                              candid_error *error) {
    for (size_t i = 0; i < n_taps; i++) {
        TRY(array_read(out, sizeof *out, taps, i, "candid_tap", error));
        if (out->image == image && out->block == block) {
            return CANDID_OK;
        }
    }
    return fail(error, CANDID_ERROR_ARGUMENT,
                "candid_sequence_create: expected a tap of image %d in block %d of the image encoder, found none",
                image, block);
}

static candid_status read_taps(candid_sequence *s, const candid_tap *taps, size_t n_taps, candid_error *error) {
    const struct method_needs *needs = &s->task->plugin->needs;
    const int n = s->task->n_images * needs->n_vision_blocks;
    if (n == 0) {
        return CANDID_OK;
    }
    s->taps = calloc((size_t)n, sizeof *s->taps);
    if (!s->taps) {
        return fail_memory(error, "the class token's attention", (size_t)n * sizeof *s->taps);
    }
    for (int i = 0; i < n; i++) {
        const int image = i / needs->n_vision_blocks, block = needs->vision_blocks[i % needs->n_vision_blocks];
        candid_tap tap;
        candid_view v;
        TRY(find_tap(taps, n_taps, image, block, &tap, error));
        TRY(view_read(tap.of_cls, 2, "candid_tap.of_cls", &v, error));
        if (v.shape[1] > MOST_TOKENS || (s->taps[0].n > 0 && v.shape[1] != s->taps[0].n)) {
            return fail(error, CANDID_ERROR_ARGUMENT, "candid_tap.of_cls: expected as many patches in every tap");
        }
        const size_t n_patches = (size_t)v.shape[1];
        if (i == 0) {
            s->of_cls = calloc(((size_t)n + 1) * n_patches, sizeof *s->of_cls);
            if (!s->of_cls) {
                return fail_memory(error, "the class token's attention", ((size_t)n + 1) * n_patches * sizeof(float));
            }
        }
        s->taps[i] = (struct vision_tap){block, (int)n_patches, s->of_cls + (size_t)i * n_patches};
        TRY(sum_heads(&v, s->taps[i].of_cls, s->of_cls + (size_t)n * n_patches, error));
    }
    return CANDID_OK;
}

/* ---- the plan ------------------------------------------------------------------------------------ */

static bool has_companions(const struct plan *plan) {
    return plan && (plan->companions[ROLE_TEXT_ONLY] || plan->companions[ROLE_PLAIN]);
}

static candid_status make_plan(candid_sequence *s, candid_error *error) {
    const candid_plugin *p = s->task->plugin;
    const int n_taps = p->needs.n_vision_blocks;
    if (s->branch) {
        TRY(interventions_compile_branch(p->config, &p->facts, &s->layout, s->branch, p->decoding.branch_edits, s->taps,
                                         s->task->n_images, n_taps, &p->log, &s->plan, error));
    } else {
        TRY(interventions_compile(p->config, &p->facts, &s->layout, s->taps, s->task->n_images, n_taps, &p->log,
                                  &s->plan, error));
        if (p->decoding.strategy == STRATEGY_OPERA) {
            TRY(search_measure(s, error));
        }
    }
    return has_companions(s->plan) ? plan_keep_companions(s->plan, p->facts.head_dim, error) : CANDID_OK;
}

/* Whether compile() of what this sequence carries looks at taps. */
static bool looks_at_taps(const candid_sequence *s) {
    return !s->branch || s->task->plugin->decoding.branch_edits;
}

static candid_status fill(candid_sequence *s, const candid_span *spans, size_t n_spans, const candid_tap *taps,
                          size_t n_taps, candid_error *error) {
    TRY(read_spans(s, spans, n_spans, error));
    if (looks_at_taps(s)) {
        TRY(read_taps(s, taps, taps ? n_taps : 0, error));
    }
    return make_plan(s, error);
}

candid_status candid_sequence_create(candid_task *task, int32_t branch, const candid_span *spans, size_t n_spans,
                                     const candid_tap *taps, size_t n_taps, candid_sequence **out,
                                     candid_error *error) {
    const struct branch *b = NULL;
    if (!task || !spans || n_spans < 1 || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_sequence_create: %s",
                    !task  ? "task is NULL"
                    : !out ? "out is NULL"
                           : "expected spans, found none");
    }
    if (branch != -1) {
        TRY(task_branch(task, branch, "candid_sequence_create", &b, error));
    }
    candid_sequence *s = calloc(1, sizeof *s);
    if (!s) {
        return fail_memory(error, "a sequence", sizeof *s);
    }
    s->task = task;
    s->branch = b;
    const candid_status status = fill(s, spans, n_spans, taps, n_taps, error);
    if (status != CANDID_OK) {
        candid_sequence_free(s);
        return status;
    }
    if (b) {
        task->tallies[branch].n_prompt = s->n_prompt;
        task->tallies[branch].n_shared = -1; /* the host's business */
    }
    *out = s;
    return CANDID_OK;
}

void candid_sequence_free(candid_sequence *s) {
    if (s) {
        plan_free(s->plan);
        layout_free(&s->layout);
        free(s->taps);
        free(s->of_cls);
        free(s->measured.rows);
        free(s->measured.local);
        free(s);
    }
}

/* ---- what it wants ------------------------------------------------------------------------------- */

static void add_layers(const struct plan *plan, const struct plan_step *step, enum candid_site site, bool last,
                       uint8_t *table) {
    /* behind the last layer's attention only rows matter whose logits count */
    const bool cut = site == CANDID_SITE_MLP_OUTPUT || site == CANDID_SITE_BLOCK_OUTPUT;
    for (int l = 0; l < plan->n_layer; l++) {
        table[site_index(l, site)] |= step->layers[l] && (last || !cut || l + 1 < plan->n_layer);
    }
}

static bool edits_scores(const struct plan_step *step) {
    return step->edit.kind == EDIT_SCORES_ABS || step->edit.kind == EDIT_SCORES_MEAN_ABS;
}

/* Layers that probes of the same method may still switch the step on for, while the prompt runs. */
static void add_undecided(const struct plan *plan, const struct plan_step *step, enum candid_site site,
                          uint8_t *table) {
    for (int i = 0; i < plan->n_steps; i++) {
        const struct plan_step *probe = &plan->steps[i];
        if (probe->owner == step->owner && probe->decide) {
            add_layers(plan, probe, site, true, table);
        }
    }
}

void step_sites(const struct plan *plan, const struct plan_step *step, enum plan_role role, unsigned row_sets,
                bool last, uint8_t *table) {
    const bool main = role == ROLE_MAIN, edited = main && (step->rows & row_sets);
    const bool prompt = role != ROLE_MAIN || (row_sets & ROW_PROMPT);
    switch (step->kind) {
    case PLAN_ATTENTION:
        if (edited) {
            const enum candid_site site =
                edits_scores(step) ? CANDID_SITE_ATTENTION_SCORES : CANDID_SITE_ATTENTION_PROBS;
            add_layers(plan, step, site, last, table);
            if (row_sets & ROW_PROMPT) {
                add_undecided(plan, step, site, table);
            }
        }
        return;
    case PLAN_SCALE_HEADS:
        if (edited) {
            add_layers(plan, step, CANDID_SITE_HEAD_OUTPUT, last, table);
        }
        return;
    case PLAN_STEER:
        if (edited) {
            add_layers(plan, step, step->steer == STEER_RESIDUAL ? CANDID_SITE_BLOCK_OUTPUT : CANDID_SITE_MLP_OUTPUT,
                       last, table);
        }
        return;
    case PLAN_MIX_LAYERS:
        if (edited && last) {
            add_layers(plan, step, CANDID_SITE_BLOCK_OUTPUT, last, table);
            table[site_index(plan->n_layer, CANDID_SITE_FINAL_NORM)] = 1;
        }
        return;
    case PLAN_CONTRAST_LAYERS:
        if (edited && last) {
            table[site_index(plan->n_layer, CANDID_SITE_LOGITS)] = 1;
        }
        return;
    case PLAN_PROBE_PEAKS:
        if (main && prompt) {
            add_layers(plan, step, CANDID_SITE_BLOCK_INPUT, last, table);
        }
        return;
    case PLAN_PROBE_COLUMNS:
        if (main && prompt) {
            add_layers(plan, step, CANDID_SITE_ATTENTION_PROBS, last, table);
        }
        return;
    case PLAN_PROBE_HEADS:
        if (prompt && (role == step->role || role == step->own_role)) {
            add_layers(plan, step, CANDID_SITE_HEAD_OUTPUT, last, table);
        }
        return;
    case PLAN_PROBE_HIDDEN:
        if (role != ROLE_MAIN) {
            add_layers(plan, step, CANDID_SITE_BLOCK_OUTPUT, last, table);
        }
        return;
    case PLAN_PROBE_ROWS:
        if (edited) {
            add_layers(plan, step, CANDID_SITE_ATTENTION_PROBS, last, table);
        }
        return;
    }
}

void sequence_sites(const candid_sequence *s, enum plan_role role, unsigned row_sets, bool last, uint8_t *table) {
    for (int i = 0; s->plan && i < s->plan->n_steps; i++) {
        step_sites(s->plan, &s->plan->steps[i], role, row_sets, last, table);
    }
}

int32_t candid_sequence_wants(const candid_sequence *s, candid_role role, candid_site site, uint32_t rows,
                              uint8_t *layers) {
    if (!s || !layers || role < 0 || role >= CANDID_ROLE_COUNT || site < 0 || site >= CANDID_SITE_COUNT) {
        return 0;
    }
    const int n_layer = s->task->plugin->facts.n_layer;
    uint8_t table[CANDID_SITE_COUNT];
    int32_t n = 0;
    memset(layers, 0, (size_t)n_layer + 1);
    uint8_t *all = calloc((size_t)n_layer + 1, sizeof table);
    if (!all) { /* the safe answer */
        memset(layers, 1, (size_t)n_layer + 1);
        return n_layer + 1;
    }
    sequence_sites(s, (enum plan_role)role,
                   (rows & CANDID_ROWS_PROMPT ? ROW_PROMPT : 0) | (rows & CANDID_ROWS_GENERATED ? ROW_GENERATED : 0),
                   true, all);
    for (int l = 0; l <= n_layer; l++) {
        layers[l] = all[site_index(l, site)];
    }
    free(all);
    for (int i = 0; site == CANDID_SITE_LOGITS && s->plan && i < s->plan->n_steps; i++) {
        const struct plan_step *step = &s->plan->steps[i];
        for (int l = 0; l < n_layer && layers[n_layer] && step->kind == PLAN_CONTRAST_LAYERS; l++) {
            layers[l] |= step->layers[l];
        }
    }
    for (int l = 0; l <= n_layer; l++) {
        n += layers[l];
    }
    return n;
}

candid_status candid_sequence_run(const candid_sequence *s, candid_run *out, candid_error *error) {
    if (!s || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_sequence_run: %s is NULL", s ? "out" : "sequence");
    }
    const struct plan *plan = s->plan;
    candid_run run = {.struct_size = sizeof run, .acts = plan_acts(plan), .whole_prompt = plan && plan->whole_prompt};
    for (int role = ROLE_MAIN + 1; plan && role < ROLE_COUNT; role++) {
        run.companions |= plan->companions[role] ? 1u << role : 0;
    }
    for (int i = 0; plan && i < plan->n_steps; i++) {
        const struct plan_step *step = &plan->steps[i];
        if (step->kind == PLAN_CONTRAST_LAYERS) {
            run.early_embeddings = step->embeddings;
            run.early_normed = step->normed;
            run.n_early = step->embeddings;
            for (int l = 0; l < plan->n_layer; l++) {
                run.n_early += step->layers[l];
            }
        }
    }
    return params_write(out, &run, sizeof run, "candid_run", error);
}

/* ---- rows ---------------------------------------------------------------------------------------- */

int sequence_prompt_rows(const candid_sequence *s, enum plan_role role) {
    return role == ROLE_TEXT_ONLY ? s->n_prompt - s->n_image_tokens : s->n_prompt;
}

struct attention_row sequence_row(const candid_sequence *s, enum plan_role role, int index) {
    struct attention_row row = {.index = index, .n_keys = index + 1, .number = index};
    const struct span *span = role == ROLE_TEXT_ONLY ? NULL : layout_span_at(&s->layout, index);
    if (span && span->kind == SPAN_IMAGE) {
        row.n_keys = span_row_keys(span, index);
        if (role == ROLE_MAIN && s->plan && s->plan->unlock_end > 0) {
            row.also_begin = s->plan->unlock_begin;
            row.also_end = s->plan->unlock_end;
        }
    }
    return row;
}

candid_status candid_sequence_reach(const candid_sequence *s, candid_role role, int32_t index, candid_reach *out,
                                    candid_error *error) {
    if (!s || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_sequence_reach: %s is NULL", s ? "out" : "sequence");
    }
    if (role < 0 || role >= CANDID_ROLE_COUNT || index < 0 || index >= MOST_TOKENS) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "candid_sequence_reach: expected a role from 0 to %d and an index from 0, found %d and %d",
                    CANDID_ROLE_COUNT - 1, (int)role, index);
    }
    const struct attention_row row = sequence_row(s, (enum plan_role)role, index);
    const candid_reach reach = {.struct_size = sizeof reach,
                                .n_keys = row.n_keys,
                                .also_begin = row.also_end > 0 ? row.also_begin : 0,
                                .also_end = row.also_end};
    return params_write(out, &reach, sizeof reach, "candid_reach", error);
}

candid_status candid_sequence_report(const candid_sequence *s, char **out, candid_error *error) {
    if (!s || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_sequence_report: %s is NULL", s ? "out" : "sequence");
    }
    cJSON *report = interventions_report(s->plan);
    *out = report ? cJSON_PrintUnformatted(report) : NULL;
    cJSON_Delete(report);
    return *out ? CANDID_OK : fail_memory(error, "a report", 0);
}
