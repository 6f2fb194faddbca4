/* From a prompt to rows, and through the decoder. */
#include "decode/prefill.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"

/* Rows under construction. */
struct row_list {
    struct forward_row *rows;
    int n, capacity;
};

/* A sequence beside the prompt. */
struct companion {
    enum plan_role role;
    struct kv_seq *seq;
};

static void add_row(struct row_list *list, struct forward_row row) {
    if (list->n < list->capacity) {
        list->rows[list->n] = row;
    }
    list->n++;
}

/* The tokens of one image. begin: index of the first in the sequence; returns the position after the image. */
static int add_image(const struct generation *g, struct row_list *list, struct forward_row row, int image, int begin,
                     int position, const int *cells) {
    const struct image_span *span = &g->images[image];
    const float *tokens = g->visual_tokens;
    for (int k = 0; k < image; k++) {
        tokens += (size_t)g->images[k].n_tokens * (size_t)g->weights->n_embd;
    }
    const bool rings = span->order == IMAGE_RINGS && span->grid_h > 0, ordered = span->grid_h > 0;
    for (int t = 0; t < span->n_tokens; t++) {
        const int cell = ordered ? cells[t] : t;
        row.embedding = tokens + (size_t)cell * (size_t)g->weights->n_embd;
        row.position = position + t;
        if (rings) {
            const int ring = grid_ring(cell / span->grid_w, cell % span->grid_w, span->grid_h, span->grid_w);
            row.position = position + ring;
            row.sees = span_row_keys(
                &(struct span){.begin = begin, .grid_h = span->grid_h, .grid_w = span->grid_w, .order = span->order},
                begin + t);
        }
        if (g->plan && row.role == ROLE_MAIN && g->plan->unlock_end > 0) {
            row.also_begin = g->plan->unlock_begin;
            row.also_end = g->plan->unlock_end;
        }
        add_row(list, row);
    }
    return position + (rings ? grid_rings(span->grid_h, span->grid_w) : span->n_tokens);
}

/* Appends one sequence's rows; returns the position after them. */
static candid_status add_sequence(const struct generation *g, struct row_list *list, struct kv_seq *seq,
                                  enum plan_role role, int *next_position, candid_error *error) {
    const int first = list->n;
    int position = 0, index = 0;
    for (size_t i = 0; i < g->prompt->n_chunks; i++) {
        const struct prompt_chunk *chunk = &g->prompt->chunks[i];
        const struct forward_row row = {.seq = seq, .plan = g->plan, .role = role};
        if (chunk->image < 0) {
            for (size_t t = 0; t < chunk->count; t++, index++) {
                struct forward_row text = row;
                text.token = g->prompt->tokens.ids[chunk->begin + t];
                text.position = position++;
                add_row(list, text);
            }
        } else if (role != ROLE_TEXT_ONLY) {
            const struct image_span *span = &g->images[chunk->image];
            int *cells = malloc(((size_t)span->grid_h * (size_t)span->grid_w + 1) * sizeof *cells);
            if (!cells) {
                return fail_memory(error, "the order of image tokens", (size_t)span->n_tokens * sizeof *cells);
            }
            grid_cells(span->order, span->grid_h, span->grid_w, cells);
            position = add_image(g, list, row, chunk->image, index, position, cells);
            index += span->n_tokens;
            free(cells);
        }
    }
    if (list->n > first && list->n <= list->capacity) {
        list->rows[list->n - 1].want_logits = true;
    }
    *next_position = position;
    return CANDID_OK;
}

/* Rows that can go in one pass from row `first` on: no row may see keys of a later pass. 0: none. */
static int passable(const struct row_list *list, int first, int begin_index, int most) {
    int n = list->n - first < most ? list->n - first : most;
    for (bool cut = true; cut && n > 0;) {
        cut = false;
        for (int i = first; i < first + n; i++) {
            if (list->rows[i].sees > begin_index + n) {
                n = i - first; /* the row and what follows waits */
                cut = true;
                break;
            }
        }
    }
    return n;
}

/* Everything at once: layer by layer beside each other. */
static candid_status run_whole(const struct generation *g, const struct row_list *list, float *logits,
                               candid_error *error) {
    TRY(llama_reserve(g->llama, list->n, error));
    return llama_forward(g->llama, list->rows, list->n, g->observer, logits, error);
}

/* Passes of few rows are computed by other kernels, which round differently: the last part must not be one of them. */
static candid_status run_parts(const struct generation *g, const struct row_list *list, float *logits,
                               candid_error *error) {
    for (int done = g->seq->length, n; done < list->n; done += n) { /* what a prompt shares with another is there */
        const int left = list->n - done, most = llama_pass_rows(g->llama), rest = left - most;
        n = passable(list, done, done,
                     rest > 0 && rest <= LLAMA_FEW_ROWS && most > 2 * LLAMA_FEW_ROWS ? most - LLAMA_FEW_ROWS : most);
        if (n == 0) { /* one ring is larger than a pass */
            n = passable(list, done, done, list->n);
            TRY(llama_reserve(g->llama, n, error));
        }
        TRY(llama_forward(g->llama, list->rows + done, n, g->observer, logits, error));
    }
    return CANDID_OK;
}

static candid_status run(const struct generation *g, struct row_list *list, struct companion *companions,
                         int n_companions, float *logits, int *next_position, candid_error *error) {
    TRY(add_sequence(g, list, g->seq, ROLE_MAIN, next_position, error));
    for (int i = 0; i < n_companions; i++) {
        int unused;
        TRY(add_sequence(g, list, companions[i].seq, companions[i].role, &unused, error));
    }
    return g->plan && g->plan->whole_prompt ? run_whole(g, list, logits, error) : run_parts(g, list, logits, error);
}

candid_status prefill(const struct generation *g, float *logits, int *next_position, candid_error *error) {
    const int n_prompt = (int)prompt_length(g->prompt, g->images);
    struct companion companions[ROLE_COUNT];
    int n_companions = 0;
    for (int role = ROLE_MAIN + 1; g->plan && role < ROLE_COUNT; role++) {
        if (g->plan->companions[role]) {
            companions[n_companions++] = (struct companion){.role = (enum plan_role)role};
        }
    }
    struct row_list list = {.capacity = n_prompt * (1 + n_companions)};
    struct kv_cache *beside = NULL; /* not the context's: the prompt may fill that */
    candid_status status;
    list.rows = calloc((size_t)list.capacity, sizeof *list.rows);
    if (!list.rows) {
        return fail_memory(error, "the prompt's rows", (size_t)list.capacity * sizeof *list.rows);
    }
    if (n_companions > 0) {
        TRY_GOTO(kv_cache_create(g->backend, kv_cache_shape(g->seq->cache), (n_prompt + KV_BLOCK) * n_companions,
                                 &beside, error),
                 status, done);
    }
    for (int i = 0; i < n_companions; i++) {
        TRY_GOTO(kv_seq_create(beside, &companions[i].seq, error), status, done);
    }
    TRY_GOTO(layout_from_prompt(g->prompt, g->images, &g->seq->layout, error), status, done);
    status = run(g, &list, companions, n_companions, logits, next_position, error);
done:
    for (int i = 0; i < n_companions; i++) {
        kv_seq_free(companions[i].seq);
    }
    kv_cache_free(beside);
    free(list.rows);
    return status;
}

candid_status prefill_begin(const struct generation *g, int n_rows, candid_error *error) {
    struct row_list list = {.capacity = (int)prompt_length(g->prompt, g->images)};
    int unused;
    list.rows = calloc((size_t)list.capacity, sizeof *list.rows);
    if (!list.rows) {
        return fail_memory(error, "the prompt's rows", (size_t)list.capacity * sizeof *list.rows);
    }
    candid_status status = layout_from_prompt(g->prompt, g->images, &g->seq->layout, error);
    if (status == CANDID_OK) {
        status = add_sequence(g, &list, g->seq, ROLE_MAIN, &unused, error);
    }
    if (status == CANDID_OK) {
        list.rows[list.n - 1].want_logits = false; /* not among them */
        list.n = n_rows;
        status = run_parts(g, &list, NULL, error);
    }
    layout_truncate(&g->seq->layout, g->seq->length);
    free(list.rows);
    return status;
}

/* ---- several prompts side by side ---------------------------------------------------------------- */

/* Whether what is left of a prompt can stand among rows of others. */
static bool is_text_rest(const struct generation *g) {
    int end = 0, index = 0; /* of the last image */
    for (size_t i = 0; i < g->prompt->n_chunks; i++) {
        const struct prompt_chunk *chunk = &g->prompt->chunks[i];
        index += chunk->image < 0 ? (int)chunk->count : g->images[chunk->image].n_tokens;
        end = chunk->image < 0 ? end : index;
    }
    return g->seq->length > 0 && g->seq->length >= end && !(g->plan && g->plan->whole_prompt);
}

/* Appends the rows of a prompt that are not in its sequence yet. */
static candid_status add_rest(const struct generation *g, struct row_list *list, int *next_position,
                              candid_error *error) {
    const int first = list->n, held = g->seq->length;
    TRY(layout_from_prompt(g->prompt, g->images, &g->seq->layout, error));
    TRY(add_sequence(g, list, g->seq, ROLE_MAIN, next_position, error));
    list->n -= held;
    memmove(list->rows + first, list->rows + first + held, (size_t)(list->n - first) * sizeof *list->rows);
    return CANDID_OK;
}

/* Whole prompts per pass, as many as fit. */
static candid_status run_packed(const struct generation *g, const struct row_list *list, float *logits,
                                candid_error *error) {
    const int most = llama_pass_rows(g->llama);
    const size_t n_vocab = (size_t)g->weights->n_vocab;
    for (int done = 0, n, wanted; done < list->n; done += n, logits += (size_t)wanted * n_vocab) {
        n = wanted = 0;
        for (int i = done; i < list->n && (i - done < most || wanted == 0); i++) {
            if (list->rows[i].want_logits) {
                wanted++;
                n = i - done + 1;
            }
        }
        TRY(llama_reserve(g->llama, n, error));
        TRY(llama_forward(g->llama, list->rows + done, n, g->observer, logits, error));
    }
    return CANDID_OK;
}

static candid_status prefill_packed(const struct generation *gs, int n, float *logits, int *next_positions,
                                    candid_error *error) {
    struct row_list list = {0};
    for (int i = 0; i < n; i++) { /* add_rest() takes the room of a whole prompt for a moment */
        list.capacity += (int)prompt_length(gs[i].prompt, gs[i].images);
    }
    list.rows = calloc((size_t)list.capacity, sizeof *list.rows);
    if (!list.rows) {
        return fail_memory(error, "the prompts' rows", (size_t)list.capacity * sizeof *list.rows);
    }
    candid_status status = CANDID_OK;
    for (int i = 0; status == CANDID_OK && i < n; i++) {
        status = add_rest(&gs[i], &list, &next_positions[i], error);
    }
    if (status == CANDID_OK) {
        status = run_packed(gs, &list, logits, error);
    }
    free(list.rows);
    return status;
}

candid_status prefill_many(const struct generation *gs, int n, float *logits, int *next_positions,
                           candid_error *error) {
    const size_t n_vocab = (size_t)gs->weights->n_vocab;
    for (int done = 0, now; done < n; done += now) {
        now = 0;
        while (done + now < n && is_text_rest(&gs[done + now])) {
            now++;
        }
        if (now > 1) {
            TRY(prefill_packed(gs + done, now, logits + (size_t)done * n_vocab, next_positions + done, error));
        } else {
            now = 1;
            TRY(prefill(&gs[done], logits + (size_t)done * n_vocab, &next_positions[done], error));
        }
    }
    return CANDID_OK;
}
