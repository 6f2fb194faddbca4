/*
 * The callback: which tensors of llama.cpp's graph are candid's sites, and how they are shown.
 *
 * Facts of llama.cpp that this file rests on, each checked while it runs:
 *   - tensors are named "<name>-<layer>": kq and kq_soft_max (cells, rows, heads), kqv_out (heads * head_dim, rows),
 *     ffn_out and l_out (n_embd, rows); result_norm (n_embd, rows) has no layer. From the last layer's ffn_out on only
 *     rows with logits are there
 *   - what is asked for is computed when the callback returns to it, and nothing after it has been started: a change is
 *     seen by all that follows
 *   - the first ggml_set_rows() of a pass stores the keys of layer 0; its indices are the cells of the rows
 *   - one mask (cells, rows) is shared by all layers: 0 or -inf
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static const struct {
    const char *name; /* with the dash before the layer; "result_norm" has none */
    candid_site site;
} site_names[] = {
    {"kq-", CANDID_SITE_ATTENTION_SCORES},    {"kq_soft_max-", CANDID_SITE_ATTENTION_PROBS},
    {"kqv_out-", CANDID_SITE_HEAD_OUTPUT},    {"ffn_out-", CANDID_SITE_MLP_OUTPUT},
    {"ffn_moe_out-", CANDID_SITE_MLP_OUTPUT}, {"l_out-", CANDID_SITE_BLOCK_OUTPUT},
};

static bool find_site(const candid_llama *l, const char *name, candid_site *site, int *layer) {
    if (name[0] != 'k' && name[0] != 'f' && name[0] != 'l' && name[0] != 'r') {
        return false;
    }
    if (strcmp(name, "result_norm") == 0) {
        *site = CANDID_SITE_FINAL_NORM;
        *layer = l->host.n_layer;
        return true;
    }
    for (size_t i = 0; i < sizeof site_names / sizeof *site_names; i++) {
        const size_t n = strlen(site_names[i].name);
        if (strncmp(name, site_names[i].name, n) == 0) {
            char *end;
            const long number = strtol(name + n, &end, 10);
            *site = site_names[i].site;
            *layer = (int)number;
            return end > name + n && *end == '\0' && number >= 0 && number < l->host.n_layer;
        }
    }
    return false;
}

static bool attention_site(candid_site site) {
    return site == CANDID_SITE_ATTENTION_SCORES || site == CANDID_SITE_ATTENTION_PROBS;
}

static bool wants(const candid_llama *l, candid_site site, int layer) {
    return l->flight.wants[(size_t)site * ((size_t)l->host.n_layer + 1) + (size_t)layer];
}

/* The pass goes on without candid; fly() reports. */
static void give_up(candid_llama *l, candid_status status) {
    l->flight.failed = true;
    l->flight.status = status;
}

#define OR_GIVE_UP(l, call)                                                                                            \
    do {                                                                                                               \
        const candid_status or_status = (call);                                                                        \
        if (or_status != CANDID_OK) {                                                                                  \
            give_up(l, or_status);                                                                                     \
            return;                                                                                                    \
        }                                                                                                              \
    } while (0)

/* ---- views ------------------------------------------------------------------------------------- */

static bool in_host_memory(const struct ggml_tensor *t) {
#ifdef CANDID_LLAMA_STAGE_ALL /* for tests of the path that other memory takes */
    (void)t;
    return false;
#else
    const ggml_backend_buffer_t buffer = t->view_src ? t->view_src->buffer : t->buffer;
    return buffer && ggml_backend_buffer_is_host(buffer);
#endif
}

static candid_status unexpected(candid_llama *l, const struct ggml_tensor *t, const char *expected) {
    return refuse(&l->flight.error, CANDID_ERROR_UNSUPPORTED,
                  "%s: expected %s to be %s, found type %s, shape (%lld, %lld, %lld, %lld) in a pass of %d rows; this "
                  "version builds its graph otherwise",
                  l->host_name, t->name, expected, ggml_type_name(t->type), (long long)t->ne[0], (long long)t->ne[1],
                  (long long)t->ne[2], (long long)t->ne[3], l->flight.n_rows);
}

static candid_status check_tensor(candid_llama *l, candid_site site, int layer, const struct ggml_tensor *t) {
    const struct flight *f = &l->flight;
    if (attention_site(site)) {
        const bool fits = t->type == GGML_TYPE_F32 && t->ne[0] >= f->n_cells && t->ne[1] == f->n_rows &&
                          t->ne[2] == l->host.n_head && t->ne[3] == 1 && t->nb[0] == sizeof(float);
        return fits ? CANDID_OK : unexpected(l, t, "f32 (cells, rows, heads)");
    }
    const bool some = layer >= l->host.n_layer - 1; /* rows without logits are gone */
    const int64_t width = site == CANDID_SITE_HEAD_OUTPUT ? (int64_t)l->host.n_head * l->host.head_dim : l->host.n_embd;
    const bool fits = t->type == GGML_TYPE_F32 && t->ne[0] == width &&
                      (t->ne[1] == f->n_rows || (some && t->ne[1] == f->n_out)) && t->ne[2] == 1 && t->ne[3] == 1 &&
                      t->nb[0] == sizeof(float);
    return fits ? CANDID_OK : unexpected(l, t, "f32 (width, rows)");
}

static candid_status stage_room(candid_llama *l, size_t count) {
    struct flight *f = &l->flight;
    if (count > f->staged_count) {
        float *grown = realloc(f->staged, count * sizeof *grown);
        if (!grown) {
            return refuse(&f->error, CANDID_ERROR_MEMORY, "out of memory: %zu bytes to show tensors in",
                          count * sizeof *grown);
        }
        f->staged = grown;
        f->staged_count = count;
    }
    return CANDID_OK;
}

static candid_view make_view(float *data, int n_dims, const int64_t *shape, const int64_t *strides) {
    candid_view v = {.struct_size = sizeof v, .data = data, .n_dims = n_dims};
    memcpy(v.shape, shape, (size_t)n_dims * sizeof *shape);
    memcpy(v.strides, strides, (size_t)n_dims * sizeof *strides);
    return v;
}

/* Between the tensor, (heads, rows, cells) or (rows, width), and f->staged, which lies the same way without gaps: rows
 * of segments only, or all that are there where those without logits are not. */
static void move_staged(candid_llama *l, struct ggml_tensor *t, bool back) {
    struct flight *f = &l->flight;
    const size_t width = (size_t)t->ne[0], row_bytes = width * sizeof(float);
    const bool all = t->ne[1] == f->n_rows;
    for (int s = 0; s < (all ? f->n_segments : 1); s++) {
        const int64_t first = all ? f->segments[s].first_row : 0, n = all ? f->segments[s].n_rows : t->ne[1];
        const bool dense = t->nb[1] == row_bytes;
        for (int64_t h = 0; h < t->ne[2]; h++) {
            for (int64_t row = first; row < first + n; row += dense ? n : 1) {
                float *at = f->staged + (size_t)(h * t->ne[1] + row) * width;
                const size_t offset = (size_t)h * t->nb[2] + (size_t)row * t->nb[1];
                const size_t bytes = (dense ? (size_t)n : 1) * row_bytes;
                if (back) {
                    ggml_backend_tensor_set(t, at, offset, bytes);
                } else {
                    ggml_backend_tensor_get(t, at, offset, bytes);
                }
            }
        }
    }
}

static candid_status show(candid_llama *l, candid_site site, int layer, struct ggml_tensor *t) {
    struct flight *f = &l->flight;
    TRY(check_tensor(l, site, layer, t));
    const bool direct = in_host_memory(t);
    const int64_t width = t->ne[0], rows = t->ne[1], heads = t->ne[2];
    int64_t row_stride = (int64_t)(t->nb[1] / sizeof(float)), head_stride = (int64_t)(t->nb[2] / sizeof(float));
    float *data = t->data;
    if (!direct) {
        TRY(stage_room(l, (size_t)(heads * rows * width)));
        move_staged(l, t, false);
        data = f->staged;
        row_stride = width;
        head_stride = rows * width;
    }
    const candid_view view =
        attention_site(site)
            ? make_view(data, 4, (int64_t[]){1, heads, rows, width},
                        (int64_t[]){heads * head_stride, head_stride, row_stride, 1})
            : make_view(data, 3, (int64_t[]){1, rows, width}, (int64_t[]){rows * row_stride, row_stride, 1});
    TRY(candid_pass_at(l->pass, site, layer, &view, &f->error));
    if (!direct && site != CANDID_SITE_BLOCK_INPUT) {
        move_staged(l, t, true);
    }
    return CANDID_OK;
}

/* ---- cells and masks --------------------------------------------------------------------------- */

/* The pass begins where it is known which cells its rows got. */
static candid_status begin(candid_llama *l, const struct ggml_tensor *store) {
    struct flight *f = &l->flight;
    const struct ggml_tensor *index = store->src[1];
    if (!index || index->type != GGML_TYPE_I64 || index->ne[0] != f->n_rows || ggml_nelements(index) != f->n_rows) {
        return unexpected(l, index ? index : store, "the cells of the rows, i64");
    }
    for (int s = 0; s < f->n_segments; s++) {
        candid_segment *segment = &f->segments[s];
        struct track *track = f->tracks[s];
        for (int32_t i = 0; i < segment->n_rows; i++) {
            int64_t cell;
            ggml_backend_tensor_get(index, &cell, (size_t)(segment->first_row + i) * sizeof cell, sizeof cell);
            if (cell < 0 || cell >= llama_n_ctx(l->ctx)) {
                return refuse(&f->error, CANDID_ERROR_UNSUPPORTED, "%s: row %d was stored in cell %lld of %u",
                              l->host_name, segment->first_row + i, (long long)cell, llama_n_ctx(l->ctx));
            }
            track->cells[segment->first_index + i] = (int32_t)cell;
        }
        segment->key_columns = track->cells;
        for (int32_t k = 0; k < segment->n_keys; k++) {
            f->n_cells = track->cells[k] >= f->n_cells ? track->cells[k] + 1 : f->n_cells;
        }
    }
    f->begun = true;
    if (f->n_segments == 0) {
        return CANDID_OK; /* learning */
    }
    TRY(candid_pass_begin(l->pass, f->segments, (size_t)f->n_segments, &f->error));
    if (!wants(l, CANDID_SITE_BLOCK_INPUT, 0)) {
        return CANDID_OK;
    }
    return f->input ? show(l, CANDID_SITE_BLOCK_INPUT, 0, f->input)
                    : refuse(&f->error, CANDID_ERROR_UNSUPPORTED, "%s: no norm before the first keys are stored",
                             l->host_name);
}

static bool host_sees(const struct track *track, int32_t row, int32_t key) {
    return track->positions[key] <= track->positions[row];
}

static bool reach_has(const candid_reach *reach, int32_t key) {
    return key < reach->n_keys || (key >= reach->also_begin && key < reach->also_end);
}

/* The entries of one row of the mask, as floats; values: room for two rows, the second for halves. */
static void read_mask(const struct ggml_tensor *mask, int32_t row, float *values) {
    const size_t n = (size_t)mask->ne[0], offset = (size_t)row * mask->nb[1];
    if (mask->type == GGML_TYPE_F32) {
        ggml_backend_tensor_get(mask, values, offset, n * sizeof *values);
        return;
    }
    ggml_fp16_t *half = (ggml_fp16_t *)(values + n);
    ggml_backend_tensor_get(mask, half, offset, n * sizeof *half);
    for (size_t i = 0; i < n; i++) {
        values[i] = ggml_fp16_to_fp32(half[i]);
    }
}

static void write_mask(struct ggml_tensor *mask, int32_t row, float *values) {
    const size_t n = (size_t)mask->ne[0], offset = (size_t)row * mask->nb[1];
    if (mask->type == GGML_TYPE_F32) {
        ggml_backend_tensor_set(mask, values, offset, n * sizeof *values);
        return;
    }
    ggml_fp16_t *half = (ggml_fp16_t *)(values + n);
    for (size_t i = 0; i < n; i++) {
        half[i] = ggml_fp32_to_fp16(values[i]);
    }
    ggml_backend_tensor_set(mask, half, offset, n * sizeof *half);
}

/* Whether the cells the last row of a segment may see are those where candid believes its keys to be. Restored states
 * and sequences copied behind candid's back end here. */
static candid_status check_cells(candid_llama *l, const struct ggml_tensor *mask, int s, float *values) {
    struct flight *f = &l->flight;
    const candid_segment *segment = &f->segments[s];
    const struct track *track = f->tracks[s];
    const int32_t row = segment->first_row + segment->n_rows - 1, last = segment->first_index + segment->n_rows - 1;
    int64_t seen = 0, expected = 0;
    bool same = true;
    read_mask(mask, row, values);
    for (int64_t c = 0; c < mask->ne[0]; c++) {
        seen += isfinite(values[c]);
    }
    for (int32_t k = 0; k < segment->n_keys; k++) {
        const bool visible = host_sees(track, last, k);
        expected += visible;
        same = same && isfinite(values[track->cells[k]]) == visible;
    }
    if (!same || seen != expected) {
        return refuse(&f->error, CANDID_ERROR_ARGUMENT,
                      "sequence %d: the host's memory is not what candid saw being decoded: its last row sees %lld "
                      "cells, expected %lld; was a state restored, or a sequence copied or shifted?",
                      (int)track->id, (long long)seen, (long long)expected);
    }
    return CANDID_OK;
}

/* Rows that see other keys than those of positions up to their own. */
static candid_status edit_mask(candid_llama *l, struct ggml_tensor *mask, int s, float *values) {
    struct flight *f = &l->flight;
    const candid_segment *segment = &f->segments[s];
    const struct track *track = f->tracks[s];
    for (int32_t i = 0; segment->role != CANDID_ROLE_TEXT_ONLY && i < segment->n_rows; i++) {
        const int32_t index = segment->first_index + i;
        candid_reach reach = {.struct_size = sizeof reach};
        TRY(candid_sequence_reach(segment->sequence, segment->role, index, &reach, &f->error));
        const int32_t end = reach.also_end > reach.n_keys ? reach.also_end : reach.n_keys;
        if (end > segment->n_keys) {
            return refuse(&f->error, CANDID_ERROR_ARGUMENT,
                          "token %d of the prompt has to see token %d, which comes in a later ubatch: raise n_ubatch",
                          index, end - 1);
        }
        bool same = true;
        for (int32_t k = 0; same && k < segment->n_keys; k++) {
            same = host_sees(track, index, k) == reach_has(&reach, k);
        }
        if (same) {
            continue;
        }
        for (int64_t c = 0; c < mask->ne[0]; c++) {
            values[c] = -INFINITY;
        }
        for (int32_t k = 0; k < segment->n_keys; k++) {
            if (reach_has(&reach, k)) {
                values[track->cells[k]] = 0.0f;
            }
        }
        write_mask(mask, segment->first_row + i, values);
    }
    return CANDID_OK;
}

/* Before the first attention on a backend is computed: its mask is there already. */
static candid_status see_mask(candid_llama *l, struct ggml_tensor *mask) {
    struct flight *f = &l->flight;
    for (int i = 0; i < f->n_masks; i++) {
        if (f->masks[i] == mask) {
            return CANDID_OK;
        }
    }
    const bool fits = (mask->type == GGML_TYPE_F32 || mask->type == GGML_TYPE_F16) && mask->ne[0] >= f->n_cells &&
                      mask->ne[1] >= f->n_rows && mask->ne[2] == 1 && mask->ne[3] == 1;
    if (!fits || f->n_masks == MAX_MASKS) {
        return unexpected(l, mask, "one mask (cells, rows) for all layers");
    }
    f->masks[f->n_masks++] = mask;
    TRY(stage_room(l, 2 * (size_t)mask->ne[0]));
    for (int s = 0; s < f->n_segments; s++) {
        TRY(check_cells(l, mask, s, f->staged));
        TRY(edit_mask(l, mask, s, f->staged));
    }
    return CANDID_OK;
}

/* ---- the callback ------------------------------------------------------------------------------ */

/* Whether the tensor has to be computed and shown. */
static bool looks(candid_llama *l, struct ggml_tensor *t) {
    struct flight *f = &l->flight;
    if (t->op == GGML_OP_GET_ROWS && l->learning && !f->begun && t->src[0]->ne[1] == l->host.n_vocab) {
        l->token_embd = t->src[0];
        return true;
    }
    if (!f->begun) {
        if (!f->input && (t->op == GGML_OP_RMS_NORM || t->op == GGML_OP_NORM)) {
            f->input = t->src[0];
        }
        return t->op == GGML_OP_SET_ROWS;
    }
    struct ggml_tensor *mask = t->op == GGML_OP_SOFT_MAX         ? t->src[1]
                               : t->op == GGML_OP_FLASH_ATTN_EXT ? t->src[3]
                                                                 : NULL;
    if (l->learning && t->op == GGML_OP_SOFT_MAX) {
        memcpy(&l->score_scale, t->op_params, sizeof l->score_scale);
    }
    if (mask) {
        const candid_status status = see_mask(l, mask);
        if (status != CANDID_OK) {
            give_up(l, status);
            return false;
        }
    }
    candid_site site;
    int layer;
    if (!find_site(l, t->name, &site, &layer)) {
        return false;
    }
    if (site == CANDID_SITE_MLP_OUTPUT) { /* llama.cpp uses the name for the sum that follows, too */
        if (layer <= f->mlp_layer) {
            return false;
        }
        f->mlp_layer = layer;
    }
    return l->learning || wants(l, site, layer) ||
           (site == CANDID_SITE_BLOCK_OUTPUT && layer + 1 < l->host.n_layer &&
            wants(l, CANDID_SITE_BLOCK_INPUT, layer + 1));
}

static void learn(candid_llama *l, candid_site site, int layer, struct ggml_tensor *t) {
    OR_GIVE_UP(l, check_tensor(l, site, layer, t));
    l->saw[site] = true;
}

static void see(candid_llama *l, struct ggml_tensor *t) {
    struct flight *f = &l->flight;
    candid_site site;
    int layer;
    if (t->op == GGML_OP_GET_ROWS && l->learning && !f->begun) {
        if (t->type == GGML_TYPE_F32 && t->ne[0] == l->host.n_embd && t->ne[1] == 1) {
            ggml_backend_tensor_get(t, l->learned, 0, (size_t)l->host.n_embd * sizeof(float));
            l->has_learned = true;
        }
    } else if (!f->begun) {
        OR_GIVE_UP(l, begin(l, t));
    } else if (find_site(l, t->name, &site, &layer)) {
        if (l->learning) {
            learn(l, site, layer, t);
            return;
        }
        if (wants(l, site, layer)) {
            OR_GIVE_UP(l, show(l, site, layer, t));
        }
        if (site == CANDID_SITE_BLOCK_OUTPUT && layer + 1 < l->host.n_layer &&
            wants(l, CANDID_SITE_BLOCK_INPUT, layer + 1)) {
            OR_GIVE_UP(l, show(l, CANDID_SITE_BLOCK_INPUT, layer + 1, t));
        }
    }
}

bool candid_llama_eval(struct ggml_tensor *t, bool ask, void *user) {
    candid_llama *l = user;
    if (ask) {
        l->ours = l->flight.on && !l->flight.failed && looks(l, t);
        l->theirs = l->user_eval && l->user_eval(t, true, l->user_data);
        return l->ours || l->theirs;
    }
    if (l->ours && !l->flight.failed) {
        see(l, t);
    }
    return l->theirs ? l->user_eval(t, false, l->user_data) : true;
}

/* ---- a pass ------------------------------------------------------------------------------------ */

static candid_status decode_failed(candid_llama *l, int code, int32_t n_rows, candid_error *error) {
    if (code == 1) {
        return refuse(
            error, CANDID_ERROR_CONTEXT,
            "llama_decode found no room for %d rows: all sequences share n_ctx = %u cells, those of branches and "
            "companions included",
            n_rows, llama_n_ctx(l->ctx));
    }
    return refuse(error, code == 2 ? CANDID_ERROR_CANCELLED : CANDID_ERROR_INTERNAL, "llama_decode returned %d", code);
}

static candid_status show_logits(candid_llama *l) {
    struct flight *f = &l->flight;
    const bool all = f->n_out == f->n_rows;
    if (f->n_out == 0 || f->segments[0].role != CANDID_ROLE_MAIN) {
        return CANDID_OK;
    }
    float *logits = llama_get_logits_ith(l->ctx, f->out_rows[0]);
    if (!logits) {
        return refuse(&f->error, CANDID_ERROR_INTERNAL, "%s has no logits of row %d", l->host_name, f->out_rows[0]);
    }
    const int64_t n_vocab = l->host.n_vocab, rows = all ? f->n_rows : 1;
    const candid_view view =
        make_view(logits, 3, (int64_t[]){1, rows, n_vocab}, (int64_t[]){rows * n_vocab, n_vocab, 1});
    return candid_pass_logits(l->pass, &view, NULL, &f->error);
}

candid_status fly(candid_llama *l, struct llama_batch batch, candid_error *error) {
    struct flight *f = &l->flight;
    f->begun = f->failed = f->decoded = false;
    f->input = NULL;
    f->mlp_layer = -1;
    f->n_masks = 0;
    f->n_cells = 0;
    f->on = f->n_segments > 0 || l->learning;
    const bool watched = f->on;
    const int code = llama_decode(l->ctx, batch);
    f->on = false;
    if (code != 0) {
        return decode_failed(l, code, batch.n_tokens, error);
    }
    f->decoded = true;
    if (!watched) {
        return CANDID_OK;
    }
    llama_synchronize(l->ctx);
    if (!f->failed && !f->begun) {
        give_up(l,
                refuse(&f->error, CANDID_ERROR_UNSUPPORTED,
                       "%s did not show its graph: the context was not made with the params of candid_llama_attach(), "
                       "or stores its keys otherwise",
                       l->host_name));
    }
    candid_status status = f->failed ? f->status : CANDID_OK;
    if (status == CANDID_OK && f->n_segments > 0) {
        status = show_logits(l);
        status = status == CANDID_OK ? candid_pass_end(l->pass, &f->error) : status;
    }
    if (status != CANDID_OK && error) {
        *error = f->error;
    }
    return status;
}
