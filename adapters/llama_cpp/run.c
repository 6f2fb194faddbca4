/* Questions: the sequences that are followed, their prompts and tokens, and what is contrasted. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* ---- tracks ------------------------------------------------------------------------------------ */

candid_status track_room(struct track *t, int32_t n, candid_error *error) {
    if (n <= t->capacity) {
        return CANDID_OK;
    }
    const size_t capacity = (size_t)n + 256;
    llama_pos *positions = realloc(t->positions, capacity * sizeof *positions);
    t->positions = positions ? positions : t->positions;
    int32_t *cells = realloc(t->cells, capacity * sizeof *cells);
    t->cells = cells ? cells : t->cells;
    if (!positions || !cells) {
        return refuse(error, CANDID_ERROR_MEMORY, "out of memory: the cells of %d tokens", n);
    }
    t->capacity = (int32_t)capacity;
    return CANDID_OK;
}

static void track_free(struct track *t) {
    candid_sequence_free(t->sequence);
    free(t->positions);
    free(t->cells);
    free(t->logits);
    *t = (struct track){0};
}

void drop_tracks(candid_llama *l) {
    for (int i = 0; l->tracks && i <= l->n_branches; i++) {
        track_free(&l->tracks[i]);
    }
    free(l->tracks);
    l->tracks = NULL;
    candid_encoding_free(l->encoding);
    l->encoding = NULL;
    candid_task_free(l->task);
    l->task = NULL;
    l->n_branches = 0;
}

/* The track of a sequence of the host, or NULL. */
static struct track *find_track(candid_llama *l, llama_seq_id id) {
    for (int i = 0; l->tracks && i <= l->n_branches; i++) {
        if (l->tracks[i].sequence && l->tracks[i].id == id) {
            return &l->tracks[i];
        }
    }
    return NULL;
}

static candid_status need_question(const candid_llama *l, candid_error *error) {
    return l->task ? CANDID_OK
                   : refuse(error, CANDID_ERROR_ARGUMENT,
                            "no question: candid_llama_ask() comes first, after candid_llama_start()");
}

/* ---- passes ------------------------------------------------------------------------------------ */

/* Marks the sites that rows [first, first + n) of a track want. */
static void add_wants(candid_llama *l, const struct track *t, int32_t first, int32_t n, uint8_t *one) {
    const size_t stride = (size_t)l->host.n_layer + 1;
    const uint32_t rows =
        (first < t->n_prompt ? CANDID_ROWS_PROMPT : 0) | (first + n > t->n_prompt ? CANDID_ROWS_GENERATED : 0);
    for (int site = 0; site < CANDID_SITE_COUNT; site++) {
        if (candid_sequence_wants(t->sequence, t->role, (candid_site)site, rows, one) > 0) {
            for (size_t i = 0; i < stride; i++) {
                l->flight.wants[(size_t)site * stride + i] |= one[i];
            }
        }
    }
}

/* Rows [first_row, first_row + n) of the ubatch are the next of the track. */
static candid_status add_part(candid_llama *l, struct track *t, int32_t first_row, int32_t n,
                              const llama_pos *positions, candid_error *error) {
    struct flight *f = &l->flight;
    const llama_pos there = llama_memory_seq_pos_max(llama_get_memory(l->ctx), t->id);
    while (t->n > 0 && t->positions[t->n - 1] >= positions[0]) {
        t->n--; /* taken back by the host */
    }
    const llama_pos last = t->n > 0 ? t->positions[t->n - 1] : -1;
    if (there != last || positions[0] > last + 1) {
        return refuse(
            error, CANDID_ERROR_ARGUMENT,
            "sequence %d has positions up to %d in the host's memory, candid saw them up to %d, and %d is next: "
            "rows of a followed sequence go through candid_llama_decode()",
            (int)t->id, (int)there, (int)last, (int)positions[0]);
    }
    TRY(track_room(t, t->n + n, error));
    memcpy(t->positions + t->n, positions, (size_t)n * sizeof *positions);
    f->parts[f->n_parts++] = (struct part){t, first_row, n};
    if (!t->run.acts) {
        return CANDID_OK;
    }
    uint8_t *one = f->wants + (size_t)CANDID_SITE_COUNT * ((size_t)l->host.n_layer + 1); /* room behind the table */
    add_wants(l, t, t->n, n, one);
    f->tracks[f->n_segments] = t;
    f->segments[f->n_segments++] = (candid_segment){
        .struct_size = sizeof(candid_segment),
        .sequence = t->sequence,
        .role = t->role,
        .first_row = first_row,
        .n_rows = n,
        .first_index = t->n,
        .n_keys = t->n + n,
    };
    return CANDID_OK;
}

/* Logits that will be contrasted, of the last row of each track. */
static void keep_logits(candid_llama *l, const struct llama_batch *batch) {
    const struct flight *f = &l->flight;
    for (int i = 0; l->n_branches > 0 && i < f->n_parts; i++) {
        struct track *t = f->parts[i].track;
        const int32_t row = f->parts[i].first_row + f->parts[i].n - 1;
        const float *logits = t->logits && batch->logits[row] ? llama_get_logits_ith(l->ctx, row) : NULL;
        t->has_logits = logits != NULL;
        if (logits) {
            memcpy(t->logits, logits, (size_t)l->host.n_vocab * sizeof *logits);
        }
    }
}

static candid_status fly_rows(candid_llama *l, struct llama_batch batch, struct track *only, candid_error *error) {
    struct flight *f = &l->flight;
    f->n_segments = f->n_parts = 0;
    f->n_rows = batch.n_tokens;
    f->n_out = 0;
    memset(f->wants, 0, (size_t)CANDID_SITE_COUNT * ((size_t)l->host.n_layer + 1));
    for (int32_t i = 0; i < batch.n_tokens; i++) {
        if (batch.logits[i]) {
            f->out_rows[f->n_out++] = i;
        }
    }
    if (only) {
        TRY(add_part(l, only, 0, batch.n_tokens, batch.pos, error));
    }
    for (int32_t i = 0; !only && i < batch.n_tokens; i++) {
        struct track *t = find_track(l, batch.seq_id[i][0]);
        if (t) {
            TRY(add_part(l, t, i, 1, batch.pos + i, error));
        }
    }
    const candid_status status = fly(l, batch, error);
    for (int i = 0; i < f->n_parts && f->decoded; i++) {
        f->parts[i].track->n += f->parts[i].n;
    }
    if (status == CANDID_OK) {
        keep_logits(l, &batch);
    }
    return status;
}

/* Whether every row's keys are there when a prompt is cut into pieces of n_ubatch rows. */
static candid_status check_cuts(const struct track *t, int32_t n, int32_t n_ubatch, candid_error *error) {
    for (int32_t i = 0; i < n && t->role != CANDID_ROLE_TEXT_ONLY; i++) {
        const int32_t piece = i / n_ubatch * n_ubatch + n_ubatch, end = t->n + (piece < n ? piece : n);
        candid_reach reach = {.struct_size = sizeof reach};
        TRY(candid_sequence_reach(t->sequence, t->role, t->n + i, &reach, error));
        if (reach.n_keys > end || reach.also_end > end || (t->run.whole_prompt && end < t->n_prompt)) {
            return refuse(
                error, CANDID_ERROR_ARGUMENT,
                "a method looks at rows of the prompt together that n_ubatch = %d tears apart: set n_ubatch (and "
                "n_batch) to at least %d",
                n_ubatch, t->n_prompt);
        }
    }
    return CANDID_OK;
}

static struct llama_batch part_of_batch(struct llama_batch b, int32_t first, int32_t n, int32_t n_embd) {
    b.n_tokens = n;
    b.token = b.token ? b.token + first : NULL;
    b.embd = b.embd ? b.embd + (size_t)first * (size_t)n_embd : NULL;
    b.pos += first;
    b.n_seq_id += first;
    b.seq_id += first;
    b.logits += first;
    return b;
}

candid_status decode_rows(candid_llama *l, struct llama_batch batch, struct track *only, candid_error *error) {
    const int32_t n_ubatch = (int32_t)llama_n_ubatch(l->ctx), n = batch.n_tokens;
    if (n > n_ubatch && !only) {
        return refuse(error, CANDID_ERROR_ARGUMENT, "a batch of %d sequences does not fit in n_ubatch = %d", n,
                      n_ubatch);
    }
    if (n > n_ubatch) {
        TRY(check_cuts(only, n, n_ubatch, error));
    }
    for (int32_t first = 0; first < n; first += n_ubatch) {
        const int32_t count = n - first < n_ubatch ? n - first : n_ubatch;
        TRY(fly_rows(l, part_of_batch(batch, first, count, l->host.n_embd), only, error));
    }
    return CANDID_OK;
}

/* What the sampler could not say. */
static candid_status sampler_failed(candid_llama *l, candid_error *error) {
    const candid_status status = l->sampler_status;
    l->sampler_status = CANDID_OK;
    if (status != CANDID_OK && error) {
        *error = l->sampler_error;
    }
    return status;
}

/* Rows that candid follows, the logits asked for, and the only sequence if there is but one. */
struct batch_look {
    int32_t n_followed, n_logits;
    bool acts, one_sequence, shared, twice;
    struct track *track;
};

static struct batch_look look_at(candid_llama *l, const struct llama_batch *b) {
    struct batch_look look = {.one_sequence = true};
    for (int32_t i = 0; i < b->n_tokens; i++) {
        for (int32_t k = 0; k < b->n_seq_id[i]; k++) {
            struct track *t = find_track(l, b->seq_id[i][k]);
            look.n_followed += t != NULL;
            look.acts = look.acts || (t && t->run.acts);
            look.shared = look.shared || (t && b->n_seq_id[i] > 1);
            look.track = t ? t : look.track;
            for (int32_t j = 0; t && j < i; j++) {
                look.twice = look.twice || (b->n_seq_id[j] == 1 && b->seq_id[j][0] == b->seq_id[i][k]);
            }
        }
        look.one_sequence = look.one_sequence && b->seq_id[i][0] == b->seq_id[0][0];
        look.n_logits += b->logits[i] != 0;
    }
    return look;
}

static candid_status decode_full(candid_llama *l, struct llama_batch b, candid_error *error) {
    const struct batch_look look = look_at(l, &b);
    if (look.n_followed == 0) {
        const int code = llama_decode(l->ctx, b);
        return code == 0 ? CANDID_OK
                         : refuse(error, CANDID_ERROR_INTERNAL,
                                  "llama_decode of a batch that candid does not follow "
                                  "returned %d",
                                  code);
    }
    if (look.shared) {
        return refuse(error, CANDID_ERROR_UNSUPPORTED,
                      "a row of the batch belongs to several sequences, one of them followed: give each its own rows");
    }
    if (look.one_sequence && (look.n_logits == 0 || (look.n_logits == 1 && b.logits[b.n_tokens - 1]))) {
        return decode_rows(l, b, look.track, error);
    }
    if (look.n_logits == b.n_tokens && !look.twice) {
        return decode_rows(l, b, NULL, error);
    }
    return refuse(
        error, CANDID_ERROR_UNSUPPORTED,
        "a batch with rows of a followed sequence has rows of that one only, and logits of the last at most; or "
        "one row of each followed sequence, and logits of all rows (found %d rows, %d of them followed, logits "
        "of %d)",
        b.n_tokens, look.n_followed, look.n_logits);
}

/* The batch as it is with what llama_decode() fills in where it is NULL. */
candid_status candid_llama_decode(candid_llama *l, struct llama_batch b, candid_error *error) {
    if (!l || !l->ctx || b.n_tokens < 1 || (!b.token && !b.embd)) {
        return refuse(error, CANDID_ERROR_ARGUMENT, "candid_llama_decode: %s",
                      !l        ? "the handle is NULL"
                      : !l->ctx ? "candid_llama_start() comes first"
                                : "the batch is empty");
    }
    TRY(sampler_failed(l, error));
    struct llama_batch full = llama_batch_init(b.n_tokens, 0, 1);
    llama_seq_id zero = 0, *zero_at = &zero;
    const llama_pos next = llama_memory_seq_pos_max(llama_get_memory(l->ctx), 0) + 1;
    llama_token *own_tokens = full.token;
    llama_seq_id **own_ids = full.seq_id, **ids = calloc((size_t)b.n_tokens + 1, sizeof *ids);
    candid_status status = CANDID_ERROR_MEMORY;
    if (ids && full.pos && full.logits) {
        for (int32_t i = 0; i < b.n_tokens; i++) {
            full.pos[i] = b.pos ? b.pos[i] : next + i;
            full.n_seq_id[i] = b.seq_id && b.n_seq_id ? b.n_seq_id[i] : 1;
            ids[i] = b.seq_id && b.n_seq_id ? b.seq_id[i] : zero_at;
            full.logits[i] = b.logits ? b.logits[i] : (int8_t)(i == b.n_tokens - 1);
        }
        full.n_tokens = b.n_tokens;
        full.token = b.token;
        full.embd = b.embd;
        full.seq_id = ids;
        status = decode_full(l, full, error);
    } else {
        refuse(error, status, "out of memory: a batch of %d rows", b.n_tokens);
    }
    full.token = own_tokens;
    full.embd = NULL;
    full.seq_id = own_ids;
    llama_batch_free(full);
    free(ids);
    return status;
}

/* ---- questions --------------------------------------------------------------------------------- */

static void forget(candid_llama *l, llama_seq_id id) {
    llama_memory_seq_rm(llama_get_memory(l->ctx), id, -1, -1);
}

candid_status candid_llama_ask(candid_llama *l, const char *request, size_t n_images, candid_error *error) {
    if (!l || !l->ctx) {
        return refuse(error, CANDID_ERROR_ARGUMENT, "candid_llama_ask: candid_llama_start() comes first");
    }
    for (int i = 0; l->tracks && i <= l->n_branches; i++) {
        if (l->tracks[i].sequence) {
            forget(l, l->tracks[i].id);
        }
    }
    drop_tracks(l);
    l->sampler_status = CANDID_OK;
    TRY(candid_task_create(l->plugin, request, n_images, &l->task, error));
    candid_needs needs = {.struct_size = sizeof needs};
    candid_status status = candid_task_needs(l->task, &needs, error);
    if (status == CANDID_OK && needs.n_branches > l->n_ids) {
        status = refuse(error, CANDID_ERROR_INTERNAL, "the question has %d branches, expected %d at most",
                        needs.n_branches, l->n_ids);
    }
    if (status == CANDID_OK) {
        l->tracks = calloc((size_t)needs.n_branches + 1, sizeof *l->tracks);
        l->n_branches = l->tracks ? needs.n_branches : 0;
        status = l->tracks ? CANDID_OK : refuse(error, CANDID_ERROR_MEMORY, "out of memory: a question");
    }
    if (status != CANDID_OK) {
        drop_tracks(l);
    }
    return status;
}

candid_task *candid_llama_task(candid_llama *l) {
    return l ? l->task : NULL;
}

void candid_llama_detach(candid_llama *l) {
    if (l) {
        drop_tracks(l);
    }
}

candid_status candid_llama_follow(candid_llama *l, int32_t branch, llama_seq_id id, const candid_span *spans,
                                  size_t n_spans, const candid_tap *taps, size_t n_taps, candid_error *error) {
    TRY(need_question(l, error));
    if (branch < -1 || branch >= l->n_branches) {
        return refuse(error, CANDID_ERROR_ARGUMENT, "branch: expected -1 to %d, found %d", l->n_branches - 1, branch);
    }
    struct track *t = &l->tracks[branch + 1];
    const llama_pos there = llama_memory_seq_pos_max(llama_get_memory(l->ctx), id);
    if (t->sequence || there >= 0) {
        return refuse(error, CANDID_ERROR_ARGUMENT,
                      t->sequence ? "branch %d of this question has a prompt already; candid_llama_ask() starts another"
                                  : "sequence %d must be empty before its prompt, found positions up to %d",
                      t->sequence ? branch : (int)id, (int)there);
    }
    t->run.struct_size = sizeof t->run;
    TRY(candid_sequence_create(l->task, branch, spans, n_spans, taps, n_taps, &t->sequence, error));
    candid_status status = candid_sequence_run(t->sequence, &t->run, error);
    if (status == CANDID_OK && l->n_branches > 0) {
        t->logits = malloc((size_t)l->host.n_vocab * sizeof *t->logits);
        status = t->logits ? CANDID_OK : refuse(error, CANDID_ERROR_MEMORY, "out of memory: logits of a branch");
    }
    if (status != CANDID_OK) {
        track_free(t);
        return status;
    }
    t->id = id;
    for (size_t i = 0; i < n_spans; i++) {
        t->n_prompt += spans[i].n_tokens;
    }
    return CANDID_OK;
}

candid_status candid_llama_report(const candid_llama *l, char **out, candid_error *error) {
    if (!l || !l->task || !l->tracks[0].sequence) {
        return refuse(error, CANDID_ERROR_ARGUMENT, "candid_llama_report: there is no prompt");
    }
    return candid_sequence_report(l->tracks[0].sequence, out, error);
}

/* ---- tokens ------------------------------------------------------------------------------------ */

static void put_row(struct llama_batch *b, llama_token token, llama_pos position, llama_seq_id id) {
    const int32_t i = b->n_tokens++;
    b->token[i] = token;
    b->pos[i] = position;
    b->n_seq_id[i] = 1;
    b->seq_id[i][0] = id;
    b->logits[i] = 1;
}

candid_status candid_llama_step(candid_llama *l, llama_token token, candid_error *error) {
    if (!l || !l->task || l->tracks[0].n == 0) {
        return refuse(error, CANDID_ERROR_ARGUMENT, "candid_llama_step: candid_llama_prompt() comes first");
    }
    TRY(sampler_failed(l, error));
    struct llama_batch batch = llama_batch_init(l->n_branches + 1, 0, 1);
    const int32_t n_generated = l->tracks[0].n - l->tracks[0].n_prompt + 1;
    for (int i = l->n_branches; i >= 0; i--) { /* the main sequence last: its logits are number -1 */
        struct track *t = &l->tracks[i];
        t->has_logits = false;
        if (t->n > 0 && (i == 0 || candid_task_needs_branch(l->task, i - 1, n_generated))) {
            put_row(&batch, token, t->positions[t->n - 1] + 1, t->id);
        }
    }
    const candid_status status = decode_rows(l, batch, NULL, error);
    llama_batch_free(batch);
    return status;
}

candid_status candid_llama_rollback(candid_llama *l, int32_t n_generated, candid_error *error) {
    TRY(need_question(l, error));
    if (n_generated < 0) {
        return refuse(error, CANDID_ERROR_ARGUMENT, "n_generated: expected 0 or more, found %d", n_generated);
    }
    for (int i = 0; i <= l->n_branches; i++) {
        struct track *t = &l->tracks[i];
        const int32_t left = t->n_prompt + n_generated;
        if (t->n <= left) {
            continue;
        }
        if (!llama_memory_seq_rm(llama_get_memory(l->ctx), t->id, t->positions[left], -1)) {
            return refuse(error, CANDID_ERROR_UNSUPPORTED, "this model's memory cannot forget a part of a sequence");
        }
        t->n = left;
        t->has_logits = false;
    }
    return CANDID_OK;
}

/* ---- contrast ---------------------------------------------------------------------------------- */

candid_status candid_llama_contrast(candid_llama *l, float *logits, candid_error *error) {
    TRY(need_question(l, error));
    if (l->n_branches == 0) {
        return CANDID_OK;
    }
    const struct track *main = &l->tracks[0];
    const int32_t n_generated = main->n - main->n_prompt;
    candid_view view = {
        .struct_size = sizeof view, .data = logits, .n_dims = 1, .shape = {l->host.n_vocab}, .strides = {1}};
    candid_view *branches = calloc((size_t)l->n_branches, sizeof *branches);
    if (!branches) {
        return refuse(error, CANDID_ERROR_MEMORY, "out of memory: a contrast");
    }
    candid_status status = CANDID_OK;
    for (int i = 0; i < l->n_branches && status == CANDID_OK; i++) {
        const struct track *t = &l->tracks[i + 1];
        const bool needed = candid_task_needs_branch(l->task, i, n_generated);
        branches[i] = view;
        branches[i].data = needed ? t->logits : NULL;
        if (needed && !t->has_logits) {
            status = refuse(error, CANDID_ERROR_ARGUMENT,
                            "branch %d has no logits for token %d: was its prompt run, and "
                            "the last token with candid_llama_step()?",
                            i, n_generated);
        }
    }
    if (status == CANDID_OK) {
        status = candid_task_contrast(l->task, n_generated, &view, branches, (size_t)l->n_branches, error);
    }
    free(branches);
    return status;
}

static const char *sampler_name(const struct llama_sampler *sampler) {
    (void)sampler;
    return "candid";
}

static candid_status contrast_candidates(candid_llama *l, llama_token_data_array *candidates, candid_error *error) {
    const size_t n = (size_t)l->host.n_vocab;
    bool whole = candidates->size == n && !candidates->sorted;
    for (size_t i = 0; whole && i < n; i++) {
        whole = candidates->data[i].id == (llama_token)i;
    }
    if (!whole) {
        return refuse(
            error, CANDID_ERROR_ARGUMENT,
            "candid's sampler has to stand first in the chain: expected all %zu tokens in their order, found %zu%s", n,
            candidates->size, candidates->sorted ? ", sorted" : "");
    }
    float *logits = malloc(n * sizeof *logits);
    if (!logits) {
        return refuse(error, CANDID_ERROR_MEMORY, "out of memory: a contrast");
    }
    for (size_t i = 0; i < n; i++) {
        logits[i] = candidates->data[i].logit;
    }
    const candid_status status = candid_llama_contrast(l, logits, error);
    for (size_t i = 0; status == CANDID_OK && i < n; i++) {
        candidates->data[i].logit = logits[i];
    }
    free(logits);
    return status;
}

static void sampler_apply(struct llama_sampler *sampler, llama_token_data_array *candidates) {
    candid_llama *l = sampler->ctx;
    if (l->n_branches > 0) {
        const candid_status status = contrast_candidates(l, candidates, &l->sampler_error);
        l->sampler_status = status != CANDID_OK ? status : l->sampler_status;
    }
}

static struct llama_sampler *sampler_clone(const struct llama_sampler *sampler) {
    return candid_llama_sampler(sampler->ctx);
}

struct llama_sampler *candid_llama_sampler(candid_llama *l) {
    static struct llama_sampler_i interface = {.name = sampler_name, .apply = sampler_apply, .clone = sampler_clone};
    return l ? llama_sampler_init(&interface, l) : NULL;
}
