/*
 * OPERA (decode/opera.h) on a model: the rows of candidates, their attention, and keys and values by node.
 *
 * A running beam is a sequence: prompt, then its tokens. Its candidates stand behind it as alternatives, each in a slot
 * of its own that only it sees, so that one forward pass measures all and the slot of the one chosen is kept. The slots
 * of tokens that no running beam holds any more, but an earlier step does, are saved one by one: going back builds its
 * beams of what running beams share with them and of saved slots.
 */
#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/status.h"
#include "decode/opera.h"
#include "decode/penalty.h"
#include "decode/prefill.h"
#include "decode/strategies.h"

struct run {
    const struct generation *g;
    struct generated *out;
    struct opera *o;
    struct opera_options options;
    int n_beams, n_prompt; /* positions of the prompt */
    int position;          /* RoPE position of the first generated token */
    int image_begin, image_end;

    struct kv_seq **seqs; /* [n_beams], n_running used; one may be g->seq */
    int **paths;          /* (n_beams, max_new_tokens) node of each token of a running beam */
    int n_running, n_tokens;
    void **saved; /* [n_saved] by node: device memory of its slot, or NULL */
    int n_saved;
    int n_kept; /* of them not NULL */

    float *prompt_logits; /* [n_vocab], with room for those of the prompt's companions */
    float *logits;        /* (n_beams, n_vocab) of the running beams */
    float *row_logits;    /* (most rows of a pass, n_vocab) */
    struct forward_row *rows;
    struct opera_row *measured; /* [most rows] what the last pass saw */
    float *locals;              /* (most rows, max_new_tokens + 1) */
    int32_t *candidates;        /* [most rows] */
    bool *seen;                 /* [n_vocab] */
    bool measuring;
};

static size_t vocabulary(const struct run *r) {
    return (size_t)r->g->weights->n_vocab;
}

/* ---- attention ----------------------------------------------------------------------------------- */

/* PLAN_PROBE_ROWS: one row of the last layer, its maximum over the heads. */
static void measure(struct plan_step *step, const struct probe_result *result) {
    struct run *r = step->state;
    if (!r->measuring) {
        return;
    }
    const int t = r->n_tokens;
    float *local = r->locals + (size_t)result->row * (size_t)(r->g->max_new_tokens + 1);
    struct opera_row *row = &r->measured[result->row];
    *row = (struct opera_row){.local = local};
    for (int i = 0; i < result->n_keys; i++) {
        row->sum += result->values[i];
    }
    for (int i = r->image_begin; i < r->image_end; i++) {
        row->image_mass += result->values[i];
    }
    memcpy(local, result->values + r->n_prompt, (size_t)t * sizeof *local);
    local[t] = result->values[result->index];
}

/* A plan that also measures; of the request's own or, without one, *made. */
static candid_status add_probe(struct run *r, struct generation *g, struct plan **made, candid_error *error) {
    const struct llama_weights *w = g->weights;
    if (!g->plan) {
        struct layout layout = {0};
        candid_status status = layout_from_prompt(g->prompt, g->images, &layout, error);
        if (status == CANDID_OK) {
            status = plan_create(w->n_layer, w->n_head, w->n_embd, &layout, made, error);
        }
        layout_free(&layout);
        TRY(status);
        g->plan = *made;
    }
    struct plan_step *step;
    TRY(plan_add(g->plan, PLAN_PROBE_ROWS, NULL, &step, error));
    step->layers[w->n_layer - 1] = true;
    step->rows = ROW_GENERATED;
    step->reduce = HEADS_MAX;
    step->before_edits = r->options.before_edits;
    step->decide = measure;
    step->state = r;
    return CANDID_OK;
}

static void find_images(struct run *r, const struct layout *layout) {
    r->image_begin = r->image_end = 0;
    for (int i = 0; i < layout->n_spans; i++) {
        if (layout->spans[i].kind == SPAN_IMAGE) {
            r->image_begin = r->image_end == 0 ? layout->spans[i].begin : r->image_begin;
            r->image_end = layout->spans[i].end;
        }
    }
}

/* ---- passes -------------------------------------------------------------------------------------- */

/* Runs r->rows; their logits go to r->row_logits, their attention to r->measured. */
static candid_status pass(struct run *r, int n_rows, candid_error *error) {
    const struct generation *g = r->g;
    TRY(llama_reserve(g->llama, n_rows, error));
    TRY(llama_forward(g->llama, r->rows, n_rows, g->observer, r->row_logits, error));
    double tokens = 0;
    for (int b = 0; b < r->n_running; b++) {
        tokens += r->seqs[b]->length;
    }
    r->out->stats.decode_bytes +=
        (double)llama_weight_bytes(g->weights) + (double)kv_block_bytes(g->seq->cache) / KV_BLOCK * tokens;
    r->out->n_steps++;
    r->out->n_rows += n_rows;
    note_kv_bytes(g, (size_t)r->n_kept * kv_slot_bytes(g->seq->cache), r->out);
    return CANDID_OK;
}

static struct forward_row row_of(const struct run *r, struct kv_seq *seq, int32_t token) {
    return (struct forward_row){
        .seq = seq, .token = token, .position = r->position + r->n_tokens, .want_logits = true, .plan = r->g->plan};
}

/* All candidates of all running beams, each behind its beam. */
static candid_status run_candidates(struct run *r, int n, candid_error *error) {
    int n_rows = 0;
    for (int b = 0; b < r->n_running; b++) {
        struct kv_seq *seq = r->seqs[b];
        TRY(layout_append(&seq->layout, SPAN_GENERATED, n, -1, 0, 0, error));
        for (int i = 0; i < n; i++) {
            struct forward_row row = row_of(r, seq, r->candidates[n_rows]);
            row.sees = seq->length;
            row.also_begin = seq->length + i;
            row.also_end = seq->length + i + 1;
            r->rows[n_rows++] = row;
        }
    }
    return pass(r, n_rows, error);
}

/* The last tokens of the beams that `needed` names (NULL: all) in a pass of their own; logits to r->logits. */
static candid_status run_tokens(struct run *r, const bool *needed, const int32_t *tokens, candid_error *error) {
    int n_rows = 0, beams[MAX_HYPOTHESES];
    for (int b = 0; b < r->n_running; b++) {
        if (!needed || needed[b]) {
            TRY(layout_append(&r->seqs[b]->layout, SPAN_GENERATED, 1, -1, 0, 0, error));
            beams[n_rows] = b;
            r->rows[n_rows++] = row_of(r, r->seqs[b], tokens[b]);
        }
    }
    if (n_rows == 0) {
        return CANDID_OK;
    }
    TRY(pass(r, n_rows, error));
    for (int i = 0; i < n_rows; i++) {
        memcpy(r->logits + (size_t)beams[i] * vocabulary(r), r->row_logits + (size_t)i * vocabulary(r),
               vocabulary(r) * sizeof *r->logits);
    }
    return CANDID_OK;
}

/* ---- keys and values ----------------------------------------------------------------------------- */

static void release_saved(struct run *r, int node) {
    if (node < r->n_saved && r->saved[node]) {
        r->g->backend->ops->release(r->g->backend, r->saved[node]);
        r->saved[node] = NULL;
        r->n_kept--;
    }
}

static void node_released(void *user_data, int node) {
    release_saved(user_data, node);
}

static candid_status saved_room(struct run *r, int node, candid_error *error) {
    if (node < r->n_saved) {
        return CANDID_OK;
    }
    const int n = 2 * node + 64;
    void **grown = realloc(r->saved, (size_t)n * sizeof *grown);
    if (!grown) {
        return fail_memory(error, "OPERA's tokens", (size_t)n * sizeof *grown);
    }
    memset(grown + r->n_saved, 0, (size_t)(n - r->n_saved) * sizeof *grown);
    r->saved = grown;
    r->n_saved = n;
    return CANDID_OK;
}

/* Saves the slots of a beam that ends here, down to the first token that another beam goes on with. */
static candid_status save_tail(struct run *r, int beam, const int *parents, int n_next, candid_error *error) {
    for (int t = r->n_tokens - 1; t >= 0; t--) {
        const int node = r->paths[beam][t];
        for (int i = 0; i < n_next; i++) {
            if (r->paths[parents[i]][t] == node) {
                return CANDID_OK;
            }
        }
        TRY(saved_room(r, node, error));
        if (!r->saved[node]) {
            TRY(r->g->backend->ops->alloc(r->g->backend, kv_slot_bytes(r->g->seq->cache), &r->saved[node], error));
            kv_save_slot(r->seqs[beam], r->n_prompt + t, r->saved[node]);
            r->n_kept++;
        }
    }
    return CANDID_OK;
}

static bool is_parent(const int *parents, int n, int beam) {
    for (int i = 0; i < n; i++) {
        if (parents[i] == beam) {
            return true;
        }
    }
    return false;
}

/* One new beam of `choice`: its sequence up to the chosen token, with it where it was a candidate. last: no later one
 * has the same parent, so that its sequence can be taken over. */
static candid_status follow(struct run *r, const struct opera_choice *choice, int i, bool last, struct kv_seq **out,
                            candid_error *error) {
    const int before = r->n_prompt + r->n_tokens, candidate = choice->candidates[i];
    struct kv_seq *parent = r->seqs[choice->parents[i]];
    if (last) {
        *out = parent;
        if (candidate >= 0) {
            return kv_keep_slot(parent, before, before + candidate, error);
        }
        kv_truncate(parent, before);
        return CANDID_OK;
    }
    TRY(kv_fork_at(parent, before, out, error));
    return candidate >= 0 ? kv_copy_slot(*out, parent, before + candidate, error) : CANDID_OK;
}

/* The sequences of the chosen beams. */
static candid_status move_beams(struct run *r, const struct opera_choice *choice, candid_error *error) {
    const int n = r->n_beams;
    struct kv_seq *next[MAX_HYPOTHESES] = {NULL};
    candid_status status = CANDID_OK;
    for (int b = 0; status == CANDID_OK && b < r->n_running; b++) {
        if (!is_parent(choice->parents, n, b)) {
            status = save_tail(r, b, choice->parents, n, error);
        }
    }
    for (int i = 0; status == CANDID_OK && i < n; i++) {
        const bool last = !is_parent(choice->parents + i + 1, n - i - 1, choice->parents[i]);
        status = follow(r, choice, i, last, &next[i], error);
    }
    if (status != CANDID_OK) { /* forks go; what was taken over is still among the running */
        for (int i = 0; i < n; i++) {
            bool running = false;
            for (int b = 0; b < r->n_running; b++) {
                running = running || next[i] == r->seqs[b];
            }
            if (!running) {
                kv_seq_free(next[i]);
            }
        }
        return status;
    }
    for (int b = 0; b < r->n_running; b++) {
        if (!is_parent(choice->parents, n, b)) {
            kv_seq_drop(r->seqs[b], r->g->seq);
        }
    }
    memcpy(r->seqs, next, (size_t)n * sizeof *next);
    return CANDID_OK;
}

/* Paths of the running beams, from the tree. */
static void trace_paths(struct run *r) {
    for (int b = 0; b < r->n_running; b++) {
        int node = opera_beam_node(r->o, b);
        for (int t = r->n_tokens - 1; t >= 0; t--) {
            r->paths[b][t] = node;
            node = opera_node_parent(r->o, node);
        }
    }
}

/* Nodes that a path shares with the former beam that shares most of it; *from is that one. */
static int shared_tokens(const struct run *r, const int *path, int n, int *from) {
    int best = -1;
    for (int b = 0; b < r->n_running; b++) {
        int t = 0;
        while (t < n && t < r->n_tokens && r->paths[b][t] == path[t]) {
            t++;
        }
        if (t > best) {
            best = t;
            *from = b;
        }
    }
    return best;
}

/* The sequence of a restored beam: what a running one shares with it, then saved slots. All but its last token, which
 * is run again. */
static candid_status restore(struct run *r, const int *path, int n_tokens, struct kv_seq **out, candid_error *error) {
    int from = 0;
    const int shared = shared_tokens(r, path, n_tokens, &from);
    TRY(kv_fork_at(r->seqs[from], r->n_prompt + shared, out, error));
    for (int t = shared; t < n_tokens; t++) {
        if (path[t] >= r->n_saved || !r->saved[path[t]]) {
            return fail(error, CANDID_ERROR_INTERNAL, "OPERA: the keys of token %d of an earlier step are gone", t);
        }
        TRY(kv_append_saved(*out, r->saved[path[t]], error));
    }
    return CANDID_OK;
}

/* The running beams become those of an earlier step; their last tokens are run again for their logits. */
static candid_status go_back(struct run *r, candid_error *error) {
    const int n_tokens = opera_step(r->o), n = opera_n_running(r->o);
    struct kv_seq *next[MAX_HYPOTHESES] = {NULL};
    int32_t tokens[MAX_HYPOTHESES];
    int *path = malloc((size_t)(n_tokens + 1) * sizeof *path);
    candid_status status = path ? CANDID_OK : fail_memory(error, "OPERA's beams", (size_t)n_tokens * sizeof *path);
    for (int b = 0; status == CANDID_OK && b < n; b++) {
        int node = opera_beam_node(r->o, b);
        tokens[b] = n_tokens > 0 ? opera_node_token(r->o, node) : -1;
        for (int t = n_tokens - 1; t >= 0; t--) {
            path[t] = node;
            node = opera_node_parent(r->o, node);
        }
        status = restore(r, path, n_tokens > 0 ? n_tokens - 1 : 0, &next[b], error);
    }
    free(path);
    if (status != CANDID_OK) {
        for (int b = 0; b < n; b++) {
            kv_seq_free(next[b]);
        }
        return status;
    }
    for (int b = 0; b < r->n_running; b++) {
        kv_seq_drop(r->seqs[b], r->g->seq);
    }
    memcpy(r->seqs, next, (size_t)n * sizeof *next);
    r->n_running = n;
    if (n_tokens == 0) {
        r->n_tokens = 0;
        memcpy(r->logits, r->prompt_logits, vocabulary(r) * sizeof *r->logits);
        return CANDID_OK;
    }
    r->n_tokens = n_tokens - 1;
    r->measuring = false;
    status = run_tokens(r, NULL, tokens, error);
    r->measuring = true;
    r->n_tokens = n_tokens;
    trace_paths(r);
    for (int t = 0; status == CANDID_OK && t < n_tokens; t++) { /* what runs again need not be kept apart */
        for (int b = 0; b < n; b++) {
            release_saved(r, r->paths[b][t]);
        }
    }
    return status;
}

/* ---- the search ---------------------------------------------------------------------------------- */

static void process(void *user_data, const struct opera *o, int beam, float *log_probs) {
    struct run *r = user_data;
    const int n = opera_step(o);
    int32_t *ids = r->candidates + (size_t)r->n_beams * (size_t)r->options.candidates; /* room for the answer */
    opera_beam_ids(o, beam, ids);
    const struct token_list *prompt = &r->g->prompt->tokens;
    penalise_repetition(log_probs, r->seen, prompt->ids, prompt->count, ids, (size_t)n,
                        r->g->decoding.repetition_penalty);
}

/* Every beam has one more token: its keys, its logits, its attention. */
static candid_status advance(struct run *r, const struct opera_choice *choice, int n_candidates, candid_error *error) {
    bool needed[MAX_HYPOTHESES];
    const int n = r->n_beams;
    TRY(move_beams(r, choice, error));
    for (int i = 0; i < n; i++) {
        const int c = choice->candidates[i];
        needed[i] = c < 0;
        if (c >= 0) {
            const size_t row = (size_t)choice->parents[i] * (size_t)n_candidates + (size_t)c;
            memcpy(r->logits + (size_t)i * vocabulary(r), r->row_logits + row * vocabulary(r),
                   vocabulary(r) * sizeof *r->logits);
        }
    }
    r->n_running = n;
    TRY(run_tokens(r, needed, choice->tokens, error));
    for (int i = 0, row = 0; i < n; i++) {
        if (needed[i]) {
            TRY(opera_measured(r->o, i, &r->measured[row++], error));
        }
    }
    r->n_tokens++;
    trace_paths(r);
    return CANDID_OK;
}

static candid_status step(struct run *r, bool *more, candid_error *error) {
    struct opera_choice choice;
    count_logits(r->g, r->logits, r->n_running, r->out);
    TRY(opera_candidates(r->o, r->logits, r->candidates, error));
    const int n = opera_n_candidates(r->o);
    TRY(run_candidates(r, n, error));
    TRY(opera_choose(r->o, r->measured, &choice, error));
    if (choice.verdict == OPERA_ROLLBACK) {
        TRY(go_back(r, error));
        TRY(opera_rechoose(r->o, r->logits, &choice, error));
    }
    *more = choice.verdict == OPERA_CHOSEN;
    return *more ? advance(r, &choice, n, error) : CANDID_OK;
}

/* Whether the i-th best answer is finished already. */
static bool is_finished(const struct run *r, int i) {
    struct opera_answer found;
    candid_error unused;
    if (!r->o || opera_best(r->o, i, &found, &unused) != CANDID_OK) {
        return false;
    }
    free(found.ids);
    return found.end_token >= 0;
}

/* cancelled: answers that are finished alone. */
static candid_status collect(const struct run *r, bool cancelled, candid_error *error) {
    const int there = opera_n_answers(r->o), wanted = r->g->decoding.answers;
    int n = 0;
    while (n < there && n < wanted && (!cancelled || is_finished(r, n))) {
        n++;
    }
    TRY(make_answers(r->out, n, error));
    for (int i = 0; i < n; i++) {
        struct opera_answer found;
        struct answer *a = &r->out->answers[i];
        TRY(opera_best(r->o, i, &found, error));
        candid_status status = CANDID_OK;
        for (int t = 0; status == CANDID_OK && t < found.n; t++) {
            status = token_list_push(&a->tokens, found.ids[t], error);
        }
        if (status == CANDID_OK && found.end_token >= 0) {
            status = token_list_push(&a->tokens, found.end_token, error);
        }
        free(found.ids);
        TRY(status);
        a->score = (float)found.score;
        a->finish = found.end_token >= 0 ? CANDID_FINISH_EOS : CANDID_FINISH_LENGTH;
        TRY(answer_text(r->g, a, error));
        a->finish = cancelled ? CANDID_FINISH_CANCELLED : a->finish;
    }
    return CANDID_OK;
}

static candid_status note(const struct run *r, candid_error *error) {
    const struct opera_counters c = opera_counters(r->o);
    struct search_note *to = &r->out->search;
    *to = (struct search_note){.n_rewarded = c.n_rewarded,
                               .n_penalised = c.n_penalised,
                               .n_plain = c.n_plain,
                               .n_filled = c.n_filled,
                               .n_rollbacks = c.n_rollbacks};
    to->rollbacks = calloc((size_t)c.n_rollbacks + 1, sizeof *to->rollbacks);
    if (!to->rollbacks) {
        return fail_memory(error, "a report", (size_t)c.n_rollbacks * sizeof *to->rollbacks);
    }
    for (int i = 0; i < c.n_rollbacks; i++) {
        to->rollbacks[i][0] = c.rollbacks[i].step;
        to->rollbacks[i][1] = c.rollbacks[i].to;
    }
    return CANDID_OK;
}

/* ---- memory -------------------------------------------------------------------------------------- */

static int most_rows(const struct run *r) {
    const int all = r->n_beams * r->options.candidates, first = r->options.first_candidates;
    const int begin = first == OPERA_FIRST_AUTO ? r->n_beams + 1 : first;
    return all > begin ? all : begin;
}

static candid_status make_room(struct run *r, candid_error *error) {
    const size_t rows = (size_t)most_rows(r), length = (size_t)r->g->max_new_tokens + 1, n = (size_t)r->n_beams;
    r->seqs = calloc(n, sizeof *r->seqs);
    r->paths = calloc(n, sizeof *r->paths);
    r->prompt_logits = malloc(ROLE_COUNT * vocabulary(r) * sizeof *r->prompt_logits);
    r->logits = malloc(n * vocabulary(r) * sizeof *r->logits);
    r->row_logits = malloc(rows * vocabulary(r) * sizeof *r->row_logits);
    r->rows = calloc(rows, sizeof *r->rows);
    r->measured = calloc(rows, sizeof *r->measured);
    r->locals = calloc(rows * length, sizeof *r->locals);
    r->candidates = calloc(rows + length, sizeof *r->candidates);
    r->seen = calloc(vocabulary(r), sizeof *r->seen);
    bool enough = r->seqs && r->paths && r->prompt_logits && r->logits && r->row_logits && r->rows && r->measured &&
                  r->locals && r->candidates && r->seen;
    for (size_t b = 0; enough && b < n; b++) {
        r->paths[b] = calloc(length, sizeof **r->paths);
        enough = r->paths[b];
    }
    return enough ? CANDID_OK : fail_memory(error, "OPERA", rows * vocabulary(r) * sizeof *r->row_logits);
}

static void run_free(struct run *r) {
    opera_free(r->o); /* releases what is saved */
    for (int b = 0; r->seqs && b < r->n_running; b++) {
        if (r->seqs[b] != r->g->seq) {
            kv_seq_free(r->seqs[b]);
        }
    }
    for (int b = 0; r->paths && b < r->n_beams; b++) {
        free(r->paths[b]);
    }
    free(r->seqs);
    free(r->paths);
    free(r->saved);
    free(r->prompt_logits);
    free(r->logits);
    free(r->row_logits);
    free(r->rows);
    free(r->measured);
    free(r->locals);
    free(r->candidates);
    free(r->seen);
}

static int count_images(const struct prompt *prompt) {
    int n = 0;
    for (size_t i = 0; i < prompt->n_chunks; i++) {
        n += prompt->chunks[i].image >= 0;
    }
    return n;
}

static candid_status begin(struct run *r, struct generation *g, struct plan **made, candid_error *error) {
    int32_t ends[TOKENIZER_MAX_ENDS];
    const struct opera_params params = {.options = r->options,
                                        .n_beams = r->n_beams,
                                        .n_vocab = g->weights->n_vocab,
                                        .n_prompt_ids = (int)g->prompt->tokens.count + count_images(g->prompt),
                                        .max_new_tokens = g->max_new_tokens,
                                        .end_tokens = ends,
                                        .n_end_tokens = tokenizer_ends(g->tokenizer, ends),
                                        .process = g->decoding.repetition_penalty != 1 ? process : NULL,
                                        .node_released = node_released,
                                        .user_data = r};
    TRY(opera_create(&params, &r->o, error));
    TRY(make_room(r, error));
    return add_probe(r, g, made, error);
}

static candid_status search(struct run *r, candid_error *error) {
    const double start = clock_ms();
    r->measuring = false;
    TRY(prefill(r->g, r->prompt_logits, &r->position, error));
    r->out->stats.prefill_ms = clock_ms() - start;
    r->n_prompt = r->g->seq->length;
    find_images(r, &r->g->seq->layout);
    memcpy(r->logits, r->prompt_logits, vocabulary(r) * sizeof *r->logits);
    r->seqs[0] = r->g->seq;
    r->n_running = 1;
    r->measuring = true;
    candid_status status = CANDID_OK;
    for (bool more = true; status == CANDID_OK && more;) {
        status = step(r, &more, error);
    }
    const bool cancelled = status == CANDID_ERROR_CANCELLED && is_finished(r, 0);
    if (status == CANDID_OK || cancelled) {
        TRY(collect(r, cancelled, error));
        return note(r, error);
    }
    return status;
}

candid_status opera_run(const struct generation *given, struct generated *out, candid_error *error) {
    struct generation g = *given;
    struct plan *made = NULL;
    struct run r = {.g = &g, .out = out, .options = g.decoding.opera, .n_beams = g.decoding.beams};
    candid_status status = begin(&r, &g, &made, error);
    if (status == CANDID_OK) {
        status = search(&r, error);
    }
    run_free(&r);
    plan_free(made);
    return status;
}
