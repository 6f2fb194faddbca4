/* candid_task: one question, the branches its answer is contrasted with, and what they see. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/attention.h"
#include "core/status.h"
#include "decode/contrast.h"
#include "host/array.h"
#include "host/host.h"
#include "host/view.h"
#include "vision/damro.h"
#include "vision/noise.h"

/* ---- life ---------------------------------------------------------------------------------------- */

candid_status candid_task_create(const candid_plugin *plugin, const char *request, size_t n_images, candid_task **out,
                                 candid_error *error) {
    if (!plugin || !request || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_task_create: %s is NULL",
                    !plugin    ? "plugin"
                    : !request ? "request"
                               : "out");
    }
    if (n_images > 4096) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_task_create: expected up to 4096 images, found %zu",
                    n_images);
    }
    candid_task *t = calloc(1, sizeof *t);
    if (!t) {
        return fail_memory(error, "a task", sizeof *t);
    }
    t->plugin = plugin;
    t->n_images = (int)n_images;
    t->request = strdup(request);
    candid_status status = t->request ? CANDID_OK : fail_memory(error, "a task", strlen(request) + 1);
    if (status == CANDID_OK) {
        status = interventions_branches(plugin->config, t->request, t->n_images, &plugin->log, &t->list, error);
    }
    if (status == CANDID_OK) {
        status = decoding_check_branches(&plugin->decoding, plugin->config, &t->list, error);
    }
    if (status != CANDID_OK) {
        candid_task_free(t);
        return status;
    }
    *out = t;
    return CANDID_OK;
}

void candid_task_free(candid_task *task) {
    if (task) {
        branch_list_free(&task->list);
        free(task->request);
        free(task);
    }
}

const char *candid_task_request(const candid_task *task) {
    return task ? task->list.main_request ? task->list.main_request : task->request : NULL;
}

_Static_assert(sizeof((struct method_needs){0}.vision_blocks) == CANDID_MAX_TAPS * sizeof(int), "as in plugin.h");

candid_status candid_task_needs(const candid_task *task, candid_needs *out, candid_error *error) {
    if (!task || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_task_needs: %s is NULL", task ? "out" : "task");
    }
    const candid_plugin *p = task->plugin;
    const bool searches = p->decoding.strategy == STRATEGY_OPERA;
    candid_needs needs = {.struct_size = sizeof needs,
                          .n_branches = task->list.n,
                          .n_taps = p->needs.n_vision_blocks,
                          .reorders = p->needs.order != IMAGE_RASTER,
                          .searches = searches,
                          .n_beams = searches ? p->decoding.beams : 1,
                          .n_candidates = searches ? p->decoding.opera.candidates : 0};
    for (int i = 0; i < p->needs.n_vision_blocks; i++) {
        needs.taps[i] = p->needs.vision_blocks[i];
    }
    return params_write(out, &needs, sizeof needs, "candid_needs", error);
}

/* ---- branches ------------------------------------------------------------------------------------ */

candid_status task_branch(const candid_task *task, int32_t number, const char *call, const struct branch **out,
                          candid_error *error) {
    if (!task) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: task is NULL", call);
    }
    if (number < 0 || number >= task->list.n) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: expected a branch from 0 to %d, found %d", call,
                    task->list.n - 1, number);
    }
    *out = &task->list.branches[number];
    return CANDID_OK;
}

/* Negative numbers count from the end. */
static int block_of(const candid_task *task, const struct branch *b) {
    return b->block < 0 ? task->plugin->facts.n_vision_blocks + b->block : b->block;
}

static candid_sight sight_of(const struct branch *b) {
    switch (b->sight) {
    case SIGHT_NONE: return CANDID_SIGHT_NONE;
    case SIGHT_NOISE: return CANDID_SIGHT_NOISE;
    case SIGHT_CHOSEN: return CANDID_SIGHT_CHOSEN;
    default: return CANDID_SIGHT_SAME; /* the others no plugin is created with */
    }
}

candid_status candid_task_branch(const candid_task *task, int32_t branch, candid_branch *out, candid_error *error) {
    const struct branch *b = NULL;
    TRY(task_branch(task, branch, "candid_task_branch", &b, error));
    if (!out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_task_branch: out is NULL");
    }
    const int block = block_of(task, b);
    if (b->sight == SIGHT_CHOSEN && (block < 0 || block >= task->plugin->facts.n_vision_blocks)) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "%s: expected a block of the image encoder from 0 to %d, or negative from the end, found %d",
                    b->owner->name, task->plugin->facts.n_vision_blocks - 1, b->block);
    }
    const candid_branch full = {.struct_size = sizeof full,
                                .method = b->owner->name,
                                .name = b->name,
                                .sight = sight_of(b),
                                .n_chosen = b->n_chosen,
                                .block = b->sight == SIGHT_CHOSEN ? block : 0,
                                .request = b->request,
                                .prefix = b->prefix,
                                .system = b->system};
    return params_write(out, &full, sizeof full, "candid_branch", error);
}

/* The branch, if it has this sight. */
static candid_status seeing_branch(const candid_task *task, int32_t number, enum branch_sight sight, const char *call,
                                   const struct branch **out, candid_error *error) {
    TRY(task_branch(task, number, call, out, error));
    if ((*out)->sight != sight) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: branch %d (%s) sees the images otherwise", call, number,
                    (*out)->owner->name);
    }
    return CANDID_OK;
}

candid_status candid_task_noise(const candid_task *task, int32_t branch, int32_t image, int32_t view,
                                const candid_view *pixels, candid_error *error) {
    const struct branch *b = NULL;
    candid_view v;
    TRY(seeing_branch(task, branch, SIGHT_NOISE, "candid_task_noise", &b, error));
    TRY(view_read(pixels, 3, "pixels", &v, error));
    if (image < 0 || image >= task->n_images || view < 0) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "candid_task_noise: expected an image from 0 to %d and a view from 0, found %d and %d",
                    task->n_images - 1, image, view);
    }
    const int64_t rows = v.shape[0] * v.shape[1], width = v.shape[2];
    if (v.shape[0] != 3 || rows > INT32_MAX || rows * width > INT32_MAX) {
        return fail(error, CANDID_ERROR_ARGUMENT, "pixels: expected 3 channels of an image");
    }
    const size_t n = (size_t)(rows * width);
    float *dense = malloc(n * sizeof *dense);
    if (!dense) {
        return fail_memory(error, "pixels", n * sizeof *dense);
    }
    for (int64_t r = 0; r < rows; r++) {
        view_get(&v, r / v.shape[1] * v.strides[0] + r % v.shape[1] * v.strides[1], v.strides[2], (int)width,
                 dense + r * width);
    }
    const struct noise noise = {.step = b->noise_step, .seed = b->seed + (uint64_t)image};
    candid_status status =
        any_nan(dense, n) ? fail(error, CANDID_ERROR_ARGUMENT, "pixels: a value is no number") : CANDID_OK;
    if (status == CANDID_OK) {
        status = noise_diffuse(&noise, view, dense, n, error);
    }
    for (int64_t r = 0; status == CANDID_OK && r < rows; r++) {
        view_put(&v, r / v.shape[1] * v.strides[0] + r % v.shape[1] * v.strides[1], v.strides[2], (int)width,
                 dense + r * width);
    }
    free(dense);
    return status;
}

candid_status candid_task_choose(const candid_task *task, int32_t branch, const candid_view *q, const candid_view *k,
                                 int32_t *index, int32_t *n_index, candid_error *error) {
    const struct branch *b = NULL;
    candid_view of_cls, keys;
    TRY(seeing_branch(task, branch, SIGHT_CHOSEN, "candid_task_choose", &b, error));
    TRY(view_read(q, 1, "q", &of_cls, error));
    TRY(view_read(k, 2, "k", &keys, error));
    if (!index || !n_index) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_task_choose: %s is NULL", index ? "n_index" : "index");
    }
    const int n = (int)keys.shape[0], n_embd = (int)of_cls.shape[0];
    if (n < 2 || keys.shape[1] != n_embd) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "k: expected (tokens, %d) with the class token first, found (%d, %lld)", n_embd, n,
                    (long long)keys.shape[1]);
    }
    const size_t width = (size_t)n_embd, count = (size_t)n + width + (size_t)n * width;
    float *probs = malloc(count * sizeof *probs);
    if (!probs) {
        return fail_memory(error, "the class token's attention", count * sizeof *probs);
    }
    float *cls = probs + n, *rows = cls + width;
    view_get(&of_cls, 0, of_cls.strides[0], n_embd, cls);
    for (int i = 0; i < n; i++) {
        view_get(&keys, i * keys.strides[0], keys.strides[1], n_embd, rows + (size_t)i * width);
    }
    /* one head of the encoder's full width, as CLIP_PROBE_CLS_WIDE */
    candid_status status = attention_row_reference(cls, rows, probs, n, 1, n_embd, 1.0f / sqrtf((float)n_embd), error);
    if (status == CANDID_OK && any_nan(probs, (size_t)n)) {
        status = fail(error, CANDID_ERROR_ARGUMENT, "q, k: a value is no number");
    }
    if (status == CANDID_OK) {
        *n_index = damro_select(probs + 1, n - 1, b->n_chosen, index);
    }
    free(probs);
    return status;
}

/* ---- positions ----------------------------------------------------------------------------------- */

candid_status candid_task_place(const candid_task *task, int32_t grid_h, int32_t grid_w, int32_t *cells,
                                int32_t *positions, int32_t *n_positions, candid_error *error) {
    if (!task || !cells || !positions || !n_positions) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_task_place: an argument is NULL");
    }
    if (grid_h < 1 || grid_w < 1 || grid_h > 4096 || grid_w > 4096) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_task_place: expected a grid from 1 to 4096, found %d x %d",
                    grid_h, grid_w);
    }
    const enum image_order order = task->plugin->needs.order;
    grid_cells(order, grid_h, grid_w, cells);
    for (int i = 0; i < grid_h * grid_w; i++) {
        positions[i] = order == IMAGE_RINGS ? grid_ring(cells[i] / grid_w, cells[i] % grid_w, grid_h, grid_w) : i;
    }
    *n_positions = order == IMAGE_RINGS ? grid_rings(grid_h, grid_w) : grid_h * grid_w;
    return CANDID_OK;
}

/* ---- logits -------------------------------------------------------------------------------------- */

bool candid_task_needs_branch(const candid_task *task, int32_t branch, int32_t n_generated) {
    if (!task || branch < 0 || branch >= task->list.n || n_generated < 0) {
        return false;
    }
    const int n_tokens = task->list.branches[branch].n_tokens;
    return n_tokens == 0 || n_generated < n_tokens;
}

/* Logits of one or more rows. */
struct logit_rows {
    candid_view view;
    int n_rows;
    int64_t row_stride, stride;
};

static candid_status read_logits(const candid_view *given, int n_vocab, const char *what, struct logit_rows *out,
                                 candid_error *error) {
    int n_dims = 1;
    if (given && given->struct_size >= sizeof *given) {
        n_dims = given->n_dims == 2 ? 2 : 1;
    }
    TRY(view_read(given, n_dims, what, &out->view, error));
    const candid_view *v = &out->view;
    if (v->shape[n_dims - 1] != n_vocab) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: expected %d logits, found %lld", what, n_vocab,
                    (long long)v->shape[n_dims - 1]);
    }
    out->n_rows = n_dims == 2 ? (int)v->shape[0] : 1;
    out->row_stride = n_dims == 2 ? v->strides[0] : 0;
    out->stride = v->strides[n_dims - 1];
    return CANDID_OK;
}

/* Contrasts the rows; memory: (1 + n_branches, n_vocab). */
static candid_status contrast_rows(candid_task *task, const struct logit_rows *main, const struct logit_rows *branches,
                                   const bool *counts, float *memory, candid_error *error) {
    const int n_vocab = task->plugin->facts.n_vocab;
    struct contrast_term terms[MAX_BRANCHES];
    for (int r = 0; r < main->n_rows; r++) {
        view_get(&main->view, r * main->row_stride, main->stride, n_vocab, memory);
        for (int k = 0; k < task->list.n; k++) {
            const struct branch *b = &task->list.branches[k];
            float *own = memory + (size_t)(1 + k) * (size_t)n_vocab;
            terms[k] = (struct contrast_term){counts[k] ? own : memory, b->weight, b->added, b->cutoff};
            if (counts[k]) {
                view_get(&branches[k].view, r * branches[k].row_stride, branches[k].stride, n_vocab, own);
            }
            if (counts[k] && any_nan(own, (size_t)n_vocab)) {
                return fail(error, CANDID_ERROR_ARGUMENT, "logits of branch %d (%s): a value is no number", k,
                            b->owner->name);
            }
        }
        if (any_nan(memory, (size_t)n_vocab)) {
            return fail(error, CANDID_ERROR_ARGUMENT, "logits of the main row: a value is no number");
        }
        const int removed = contrast_combine(memory, terms, task->list.n, n_vocab, memory);
        for (int k = 0; k < task->list.n; k++) {
            task->tallies[k].n_contrasted += counts[k];
            task->tallies[k].n_rows++;
            task->tallies[k].n_removed += removed;
        }
        view_put(&main->view, r * main->row_stride, main->stride, n_vocab, memory);
    }
    return CANDID_OK;
}

candid_status candid_task_contrast(candid_task *task, int32_t n_generated, const candid_view *main,
                                   const candid_view *branches, size_t n_branches, candid_error *error) {
    if (!task || n_generated < 0) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_task_contrast: %s",
                    task ? "n_generated is negative" : "task is NULL");
    }
    if (n_branches != (size_t)task->list.n || (n_branches > 0 && !branches)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_task_contrast: expected %d branches, found %zu", task->list.n,
                    branches ? n_branches : 0);
    }
    if (task->list.n == 0) {
        return CANDID_OK;
    }
    const int n_vocab = task->plugin->facts.n_vocab;
    struct logit_rows rows, of[MAX_BRANCHES];
    bool counts[MAX_BRANCHES];
    TRY(read_logits(main, n_vocab, "logits of the main row", &rows, error));
    for (int k = 0; k < task->list.n; k++) {
        counts[k] = candid_task_needs_branch(task, k, n_generated);
        if (counts[k]) {
            candid_view view;
            TRY(array_read(&view, sizeof view, branches, (size_t)k, "logits of a branch", error));
            view.struct_size = sizeof view;
            TRY(read_logits(&view, n_vocab, "logits of a branch", &of[k], error));
            if (of[k].n_rows != rows.n_rows) {
                return fail(error, CANDID_ERROR_ARGUMENT, "logits of branch %d: expected %d rows, found %d", k,
                            rows.n_rows, of[k].n_rows);
            }
        }
    }
    const size_t bytes = (1 + n_branches) * (size_t)n_vocab * sizeof(float);
    float *memory = malloc(bytes);
    if (!memory) {
        return fail_memory(error, "logits", bytes);
    }
    const candid_status status = contrast_rows(task, &rows, of, counts, memory, error);
    free(memory);
    return status;
}

candid_status candid_task_report(const candid_task *task, char **out, candid_error *error) {
    if (!task || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_task_report: %s is NULL", task ? "out" : "task");
    }
    cJSON *all = cJSON_CreateObject();
    report_idle(&task->list, all);
    for (int i = 0; all && i < task->list.n; i++) {
        report_branch(&task->list.branches[i], &task->tallies[i], task->list.main_request, all);
    }
    *out = all ? cJSON_PrintUnformatted(all) : NULL;
    cJSON_Delete(all);
    return *out ? CANDID_OK : fail_memory(error, "a report", 0);
}
