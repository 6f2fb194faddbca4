/* Prompts as rows of embeddings: llama.cpp takes tokens or embeddings in one batch, not both, and methods may have to
 * see all rows of a prompt in one pass. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

candid_status token_rows(const candid_llama *l, const llama_token *tokens, int32_t n, float *out, candid_error *error) {
    const struct ggml_tensor *w = l->token_embd;
    const struct ggml_type_traits *traits = ggml_get_type_traits(w->type);
    const size_t bytes = ggml_row_size(w->type, w->ne[0]);
    if (!traits->to_float && w->type != GGML_TYPE_F32) {
        return refuse(error, CANDID_ERROR_UNSUPPORTED, "token embeddings of type %s", ggml_type_name(w->type));
    }
    void *row = malloc(bytes);
    if (!row) {
        return refuse(error, CANDID_ERROR_MEMORY, "out of memory: %zu bytes", bytes);
    }
    candid_status status = CANDID_OK;
    for (int32_t i = 0; i < n && status == CANDID_OK; i++) {
        float *to = out + (size_t)i * (size_t)l->host.n_embd;
        if (tokens[i] < 0 || tokens[i] >= l->host.n_vocab) {
            status = refuse(error, CANDID_ERROR_ARGUMENT, "token %d of a prompt's text: expected 0 to %d, found %d", i,
                            l->host.n_vocab - 1, tokens[i]);
            break;
        }
        ggml_backend_tensor_get(w, row, (size_t)tokens[i] * w->nb[1], bytes);
        if (w->type == GGML_TYPE_F32) {
            memcpy(to, row, bytes);
        } else {
            traits->to_float(row, to, l->host.n_embd);
        }
    }
    free(row);
    return status;
}

/* ---- images ------------------------------------------------------------------------------------ */

candid_status candid_llama_encode(candid_llama *l, candid_context *encoder, const candid_image *const *images,
                                  size_t n_images, const candid_generate_params *params, candid_error *error) {
    if (!l || !l->task) {
        return refuse(error, CANDID_ERROR_ARGUMENT, "candid_llama_encode: candid_llama_ask() comes first");
    }
    candid_encoding *encoding;
    TRY(candid_task_encode(l->task, encoder, images, n_images, params, &encoding, error));
    candid_encoding_free(l->encoding);
    l->encoding = encoding;
    return CANDID_OK;
}

/* A part as a branch sees it: an image of candid's encoder with its embd. */
static candid_status resolve(const candid_llama *l, int32_t branch, const candid_llama_part *part, size_t i,
                             candid_llama_part *out, candid_error *error) {
    *out = *part;
    if (!part->tokens && !part->embd) {
        candid_span span = {.struct_size = sizeof span};
        if (!l->encoding) {
            return refuse(error, CANDID_ERROR_ARGUMENT,
                          "part %zu of the prompt: tokens and embd are NULL, and candid_llama_encode() was not called",
                          i);
        }
        TRY(candid_encoding_tokens(l->encoding, branch, part->image, &span, &out->embd, error));
        out->n_tokens = span.n_tokens;
        out->grid_h = span.grid_h;
        out->grid_w = span.grid_w;
    }
    if (out->n_tokens < 0 || (out->embd && out->tokens) || out->grid_h < 0 || out->grid_w < 0 ||
        (out->grid_h > 0) != (out->grid_w > 0) ||
        (out->grid_h > 0 && (int64_t)out->grid_h * out->grid_w != out->n_tokens)) {
        return refuse(
            error, CANDID_ERROR_ARGUMENT,
            "part %zu of the prompt: expected tokens or embd, and of an image a grid of %d cells or none; found "
            "%s a grid of %d x %d",
            i, out->n_tokens, out->embd && out->tokens ? "both and" : "", out->grid_h, out->grid_w);
    }
    return CANDID_OK;
}

/* ---- rows -------------------------------------------------------------------------------------- */

/* A prompt as it is fed. */
struct feed {
    int32_t n, n_spans;
    float *embd;          /* (n, n_embd) */
    llama_pos *positions; /* [n] */
    candid_span *spans;   /* [n_spans] */
};

static void feed_free(struct feed *f) {
    free(f->embd);
    free(f->positions);
    free(f->spans);
    *f = (struct feed){0};
}

/* An image in the order that the methods want; next: position of its first token, and then of what follows. */
static candid_status feed_image(const candid_llama *l, const candid_llama_part *part, float *embd, llama_pos *positions,
                                llama_pos *next, candid_error *error) {
    const size_t n = (size_t)part->n_tokens, n_embd = (size_t)l->host.n_embd;
    int32_t *order = part->grid_h > 0 ? malloc(2 * n * sizeof *order) : NULL, n_positions = part->n_tokens;
    if (part->grid_h > 0) {
        candid_status status =
            order ? CANDID_OK : refuse(error, CANDID_ERROR_MEMORY, "out of memory: an image's order");
        if (status == CANDID_OK) {
            status = candid_task_place(l->task, part->grid_h, part->grid_w, order, order + n, &n_positions, error);
        }
        if (status != CANDID_OK) {
            free(order);
            return status;
        }
    }
    for (size_t i = 0; i < n; i++) {
        const size_t cell = order ? (size_t)order[i] : i;
        memcpy(embd + i * n_embd, part->embd + cell * n_embd, n_embd * sizeof *embd);
        positions[i] = *next + (order ? order[n + i] : (llama_pos)i);
    }
    *next += n_positions;
    free(order);
    return CANDID_OK;
}

/* parts: resolved. */
static candid_status feed_fill(const candid_llama *l, const candid_llama_part *parts, size_t n_parts, struct feed *out,
                               candid_error *error) {
    llama_pos next = 0;
    for (size_t i = 0; i < n_parts; i++) {
        const candid_llama_part *part = &parts[i];
        if (part->n_tokens == 0) {
            continue;
        }
        float *embd = out->embd + (size_t)out->n * (size_t)l->host.n_embd;
        llama_pos *positions = out->positions + out->n;
        if (part->embd) {
            TRY(feed_image(l, part, embd, positions, &next, error));
        } else {
            TRY(token_rows(l, part->tokens, part->n_tokens, embd, error));
            for (int32_t k = 0; k < part->n_tokens; k++) {
                positions[k] = next++;
            }
        }
        out->spans[out->n_spans++] = (candid_span){.struct_size = sizeof(candid_span),
                                                   .kind = part->embd ? CANDID_SPAN_IMAGE : CANDID_SPAN_TEXT,
                                                   .n_tokens = part->n_tokens,
                                                   .grid_h = part->grid_h,
                                                   .grid_w = part->grid_w};
        out->n += part->n_tokens;
    }
    return out->n > 0 ? CANDID_OK : refuse(error, CANDID_ERROR_ARGUMENT, "a prompt without tokens");
}

/* images: with those of the parts. */
static candid_status feed_make(const candid_llama *l, int32_t branch, const candid_llama_part *parts, size_t n_parts,
                               bool images, struct feed *out, candid_error *error) {
    candid_llama_part *resolved = malloc((n_parts + 1) * sizeof *resolved);
    size_t n = 0, kept = 0;
    candid_status status =
        resolved ? CANDID_OK : refuse(error, CANDID_ERROR_MEMORY, "out of memory: a prompt of %zu parts", n_parts);
    *out = (struct feed){0};
    for (size_t i = 0; i < n_parts && status == CANDID_OK; i++) {
        if (parts[i].tokens || images) {
            status = resolve(l, branch, &parts[i], i, &resolved[kept], error);
            n += status == CANDID_OK ? (size_t)resolved[kept++].n_tokens : 0;
        }
    }
    if (status == CANDID_OK && n > llama_n_ctx(l->ctx)) {
        status = refuse(error, CANDID_ERROR_CONTEXT, "a prompt of %zu tokens, n_ctx is %u", n, llama_n_ctx(l->ctx));
    }
    if (status == CANDID_OK) {
        *out = (struct feed){.embd = malloc((n + 1) * (size_t)l->host.n_embd * sizeof *out->embd),
                             .positions = malloc((n + 1) * sizeof *out->positions),
                             .spans = malloc((kept + 1) * sizeof *out->spans)};
        status = out->embd && out->positions && out->spans
                     ? feed_fill(l, resolved, kept, out, error)
                     : refuse(error, CANDID_ERROR_MEMORY, "out of memory: a prompt of %zu tokens", n);
    }
    free(resolved);
    if (status != CANDID_OK) {
        feed_free(out);
    }
    return status;
}

/* Decodes a prompt's rows, the last with logits. */
static candid_status feed_run(candid_llama *l, const struct feed *feed, struct track *track, candid_error *error) {
    const size_t n = (size_t)feed->n;
    struct llama_batch batch = {.n_tokens = feed->n, .embd = feed->embd, .pos = feed->positions};
    llama_seq_id id = track->id;
    batch.n_seq_id = malloc(n * sizeof *batch.n_seq_id);
    batch.seq_id = malloc(n * sizeof *batch.seq_id);
    batch.logits = calloc(n, sizeof *batch.logits);
    candid_status status = CANDID_ERROR_MEMORY;
    if (batch.n_seq_id && batch.seq_id && batch.logits) {
        for (size_t i = 0; i < n; i++) {
            batch.n_seq_id[i] = 1;
            batch.seq_id[i] = &id;
        }
        batch.logits[n - 1] = 1;
        status = decode_rows(l, batch, track, error);
    } else {
        refuse(error, status, "out of memory: a batch of %d rows", feed->n);
    }
    free(batch.n_seq_id);
    free(batch.seq_id);
    free(batch.logits);
    return status;
}

/* ---- prompts ----------------------------------------------------------------------------------- */

/* Runs the prompt of a role beside the main one and forgets its keys. */
static candid_status run_companion(candid_llama *l, const struct track *of, int32_t branch, candid_role role,
                                   const candid_llama_part *parts, size_t n_parts, candid_error *error) {
    struct feed feed;
    TRY(feed_make(l, branch, parts, n_parts, role != CANDID_ROLE_TEXT_ONLY, &feed, error));
    struct track companion = {
        .id = l->first_id, .sequence = of->sequence, .role = role, .run = of->run, .n_prompt = feed.n};
    const candid_status status = feed_run(l, &feed, &companion, error);
    llama_memory_seq_rm(llama_get_memory(l->ctx), companion.id, -1, -1);
    free(companion.positions);
    free(companion.cells);
    feed_free(&feed);
    return status;
}

static candid_status run_prompt(candid_llama *l, int32_t branch, const candid_llama_part *parts, size_t n_parts,
                                bool images, const candid_tap *taps, size_t n_taps, candid_error *error) {
    struct feed feed;
    TRY(feed_make(l, branch, parts, n_parts, images, &feed, error));
    const llama_seq_id id = branch < 0 ? 0 : l->first_id + 1 + branch;
    if (!taps && l->encoding) {
        taps = candid_encoding_taps(l->encoding, &n_taps);
    }
    candid_status status = candid_llama_follow(l, branch, id, feed.spans, (size_t)feed.n_spans, taps, n_taps, error);
    struct track *track = &l->tracks[branch + 1];
    for (int role = CANDID_ROLE_MAIN + 1; role < CANDID_ROLE_COUNT && status == CANDID_OK; role++) {
        if (track->run.companions >> role & 1u) {
            status = run_companion(l, track, branch, (candid_role)role, parts, n_parts, error);
        }
    }
    if (status == CANDID_OK) {
        status = feed_run(l, &feed, track, error);
    }
    feed_free(&feed);
    return status;
}

/* Branches with the main sequence's text. */
static candid_status run_simple_branches(candid_llama *l, const candid_llama_part *parts, size_t n_parts,
                                         const candid_tap *taps, size_t n_taps, candid_error *error) {
    bool own_images = false; /* the host's, of which candid has no other sight */
    for (size_t i = 0; i < n_parts; i++) {
        own_images = own_images || parts[i].embd;
    }
    for (int32_t b = 0; b < l->n_branches; b++) {
        candid_branch branch = {.struct_size = sizeof branch};
        TRY(candid_task_branch(l->task, b, &branch, error));
        if (l->tracks[b + 1].n > 0) {
            continue;
        }
        const bool sees = branch.sight != CANDID_SIGHT_NONE, other = sees && branch.sight != CANDID_SIGHT_SAME;
        if (branch.request || branch.prefix || branch.system || (other && own_images)) {
            return refuse(
                error, CANDID_ERROR_ARGUMENT,
                "%s's branch \"%s\" has a prompt of its own: candid_llama_prompt(…, %d, …) comes before that of "
                "the main sequence",
                branch.method, branch.name, b);
        }
        TRY(run_prompt(l, b, parts, n_parts, sees, taps, n_taps, error));
    }
    return CANDID_OK;
}

candid_status candid_llama_prompt(candid_llama *l, int32_t branch, const candid_llama_part *parts, size_t n_parts,
                                  const candid_tap *taps, size_t n_taps, candid_error *error) {
    if (!l || !l->task || !parts || branch < -1 || branch >= l->n_branches) {
        return refuse(error, CANDID_ERROR_ARGUMENT, "candid_llama_prompt: %s",
                      !l || !l->task ? "candid_llama_ask() comes first"
                      : !parts       ? "parts are NULL"
                                     : "there is no such branch");
    }
    if (branch >= 0 && l->tracks[0].n > 0) {
        return refuse(error, CANDID_ERROR_ARGUMENT, "branches are prompted before the main sequence");
    }
    if (branch < 0) {
        TRY(run_simple_branches(l, parts, n_parts, taps, n_taps, error));
    }
    return run_prompt(l, branch, parts, n_parts, true, taps, n_taps, error);
}
