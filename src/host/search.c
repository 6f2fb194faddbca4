/* candid_search: OPERA's decisions (decode/opera.h) for a host that runs the passes. */
#include "host/search.h"

#include <stdlib.h>
#include <string.h>

#include "api/params.h"
#include "core/status.h"
#include "decode/opera.h"
#include "host/view.h"

/* ---- attention ----------------------------------------------------------------------------------- */

/* PLAN_PROBE_ROWS: one row of the last layer, its maximum over the heads. */
static void measure(struct plan_step *step, const struct probe_result *result) {
    candid_sequence *s = step->state;
    struct measured_rows *m = &s->measured;
    const int t = result->index - s->n_prompt; /* generated tokens before the row's own */
    candid_error unused;
    if (plan_room(&m->rows, &m->capacity, m->n + 1, sizeof *m->rows, &unused) != CANDID_OK ||
        plan_room(&m->local, &m->local_capacity, m->n_local + (size_t)t + 1, sizeof *m->local, &unused) != CANDID_OK) {
        m->incomplete = true;
        return;
    }
    struct measured_row *row = &m->rows[m->n++];
    *row = (struct measured_row){.n_before = t, .local = m->n_local};
    for (int i = 0; i < result->n_keys; i++) {
        row->sum += result->values[i];
    }
    for (int i = m->image_begin; i < m->image_end; i++) {
        row->image_mass += result->values[i];
    }
    memcpy(m->local + m->n_local, result->values + s->n_prompt, ((size_t)t + 1) * sizeof *m->local);
    m->n_local += (size_t)t + 1;
}

candid_status search_measure(candid_sequence *s, candid_error *error) {
    const struct model_facts *f = &s->task->plugin->facts;
    struct measured_rows *m = &s->measured;
    if (!s->plan) {
        TRY(plan_create(f->n_layer, f->n_head, f->n_embd, &s->layout, &s->plan, error));
    }
    for (int i = 0; i < s->layout.n_spans; i++) {
        const struct span *span = &s->layout.spans[i];
        if (span->kind == SPAN_IMAGE) {
            m->image_begin = m->image_end == 0 ? span->begin : m->image_begin;
            m->image_end = span->end;
        }
    }
    struct plan_step *step;
    TRY(plan_add(s->plan, PLAN_PROBE_ROWS, NULL, &step, error));
    step->layers[f->n_layer - 1] = true;
    step->rows = ROW_GENERATED;
    step->reduce = HEADS_MAX;
    step->before_edits = s->task->plugin->decoding.opera.before_edits;
    step->decide = measure;
    step->state = s;
    return CANDID_OK;
}

void search_forget(candid_sequence *s) {
    s->measured.n = s->measured.n_local = 0;
    s->measured.incomplete = false;
}

/* ---- life ---------------------------------------------------------------------------------------- */

enum phase { PHASE_LOGITS, PHASE_MEASURED, PHASE_AGAIN, PHASE_STOPPED, PHASE_FAILED };

struct candid_search {
    candid_sequence *sequence;
    struct opera *o;
    int n_beams, n_vocab, max_new_tokens;
    enum phase phase;
    bool unmeasured[MAX_HYPOTHESES]; /* beams whose last token was no candidate, until it was measured */
    float *logits;                   /* (n_beams, n_vocab) */
    int32_t *candidates;
    size_t candidate_capacity;
    struct opera_row *rows;
    size_t row_capacity;
};

candid_status candid_search_create(candid_task *task, candid_sequence *sequence, const candid_search_params *given,
                                   candid_search **out, candid_error *error) {
    candid_search_params params = {0};
    if (!task || !sequence || !given || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_search_create: an argument is NULL");
    }
    TRY(params_read(&params, sizeof params, given, "candid_search_params", error));
    const candid_plugin *p = task->plugin;
    if (p->decoding.strategy != STRATEGY_OPERA || sequence->task != task || sequence->branch) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_search_create: expected %s",
                    p->decoding.strategy != STRATEGY_OPERA ? "a configuration that switches opera on"
                                                           : "the task's main sequence");
    }
    if (params.n_end_tokens > 0 && !params.end_tokens) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_search_params.end_tokens: expected %zu tokens, found NULL",
                    params.n_end_tokens);
    }
    if (params.n_end_tokens > 4096 || params.max_new_tokens < 1 || params.max_new_tokens > 1 << 20) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "candid_search_params: expected up to 4096 end tokens and 1 to %d new tokens, found %zu and %d",
                    1 << 20, params.n_end_tokens, params.max_new_tokens);
    }
    candid_search *s = calloc(1, sizeof *s);
    if (!s) {
        return fail_memory(error, "a search", sizeof *s);
    }
    s->sequence = sequence;
    s->n_beams = p->decoding.beams;
    s->n_vocab = p->facts.n_vocab;
    s->max_new_tokens = params.max_new_tokens;
    const struct opera_params opera = {.options = p->decoding.opera,
                                       .n_beams = s->n_beams,
                                       .n_vocab = s->n_vocab,
                                       .n_prompt_ids = params.n_prompt_ids,
                                       .max_new_tokens = params.max_new_tokens,
                                       .end_tokens = params.end_tokens,
                                       .n_end_tokens = (int)params.n_end_tokens};
    const size_t bytes = (size_t)s->n_beams * (size_t)s->n_vocab * sizeof *s->logits;
    s->logits = malloc(bytes);
    candid_status status = s->logits ? opera_create(&opera, &s->o, error) : fail_memory(error, "a search", bytes);
    if (status != CANDID_OK) {
        candid_search_free(s);
        return status;
    }
    *out = s;
    return CANDID_OK;
}

void candid_search_free(candid_search *s) {
    if (s) {
        opera_free(s->o);
        free(s->logits);
        free(s->candidates);
        free(s->rows);
        free(s);
    }
}

/* ---- one step ------------------------------------------------------------------------------------ */

static candid_status check_turn(const candid_search *s, enum phase expected, const char *call, const void *out,
                                candid_error *error) {
    static const char *const turns[] = {"candid_search_logits", "candid_search_measured", "candid_search_again",
                                        "nothing: the search has stopped", "nothing: the search has failed"};
    if (!s || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: %s is NULL", call, s ? "out" : "search");
    }
    if (s->phase != expected) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: it is the turn of %s", call, turns[s->phase]);
    }
    return CANDID_OK;
}

/* The same for calls that give an order: one that cannot be written must not be lost after the step. */
static candid_status begin_step(const candid_search *s, enum phase expected, const char *call, const candid_order *out,
                                candid_error *error) {
    size_t size;
    TRY(check_turn(s, expected, call, out, error));
    return params_size(out, &size, "candid_order", error);
}

static candid_status take_logits(candid_search *s, const candid_view *given, candid_error *error) {
    candid_view v;
    const int n = opera_n_running(s->o);
    TRY(view_read(given, 2, "logits", &v, error));
    if (v.shape[0] != n || v.shape[1] != s->n_vocab) {
        return fail(error, CANDID_ERROR_ARGUMENT, "logits: expected (%d, %d), found (%lld, %lld)", n, s->n_vocab,
                    (long long)v.shape[0], (long long)v.shape[1]);
    }
    for (int b = 0; b < n; b++) {
        view_get(&v, b * v.strides[0], v.strides[1], s->n_vocab, s->logits + (size_t)b * (size_t)s->n_vocab);
    }
    return CANDID_OK;
}

/* The rows of the last pass, which must be n. */
static candid_status take_rows(candid_search *s, size_t n, candid_error *error) {
    const struct measured_rows *m = &s->sequence->measured;
    if (m->incomplete) {
        return fail_memory(error, "attention rows", m->n * sizeof *m->rows);
    }
    if (m->n != n) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "candid_search: expected the attention of %zu rows of the last layer in the last pass, found %zu",
                    n, m->n);
    }
    TRY(plan_room(&s->rows, &s->row_capacity, n, sizeof *s->rows, error));
    for (size_t i = 0; i < n; i++) {
        const struct measured_row *row = &m->rows[i];
        if (row->n_before != opera_step(s->o) - (s->phase == PHASE_LOGITS)) {
            return fail(error, CANDID_ERROR_ARGUMENT,
                        "candid_search: row %zu of the last pass stands behind %d generated tokens, not %d", i,
                        row->n_before, opera_step(s->o) - (s->phase == PHASE_LOGITS));
        }
        s->rows[i] = (struct opera_row){row->sum, row->image_mass, m->local + row->local};
    }
    return CANDID_OK;
}

/* What a choice asks the host to do, and what comes next. */
static candid_status give_order(candid_search *s, const struct opera_choice *choice, candid_order *out,
                                candid_error *error) {
    candid_order order = {.struct_size = sizeof order, .n_tokens = opera_step(s->o), .n_beams = opera_n_running(s->o)};
    memset(s->unmeasured, 0, sizeof s->unmeasured);
    switch (choice->verdict) {
    case OPERA_CHOSEN:
        order.verb = CANDID_VERB_CONTINUE;
        order.tokens = choice->tokens;
        order.parents = choice->parents;
        order.candidates = choice->candidates;
        for (int i = 0; i < s->n_beams; i++) {
            s->unmeasured[i] = choice->candidates[i] < 0;
        }
        s->phase = PHASE_LOGITS;
        break;
    case OPERA_ROLLBACK:
        order.verb = CANDID_VERB_ROLLBACK;
        s->phase = PHASE_AGAIN;
        break;
    case OPERA_DONE:
        order.verb = CANDID_VERB_STOP;
        s->phase = PHASE_STOPPED;
        break;
    }
    return params_write(out, &order, sizeof order, "candid_order", error);
}

static candid_status next_candidates(candid_search *s, const candid_view *logits, candid_order *out,
                                     candid_error *error) {
    for (int i = 0; i < s->n_beams; i++) {
        if (s->unmeasured[i]) {
            return fail(error, CANDID_ERROR_ARGUMENT,
                        "candid_search_logits: beam %d took a token that was no candidate: run it and call "
                        "candid_search_measured_beams first",
                        i);
        }
    }
    TRY(take_logits(s, logits, error));
    s->phase = PHASE_FAILED;
    const int n = opera_n_running(s->o), each = opera_n_candidates(s->o);
    TRY(plan_room(&s->candidates, &s->candidate_capacity, (size_t)n * (size_t)each, sizeof *s->candidates, error));
    TRY(opera_candidates(s->o, s->logits, s->candidates, error));
    const candid_order order = {.struct_size = sizeof order,
                                .verb = CANDID_VERB_MEASURE,
                                .n_tokens = opera_step(s->o),
                                .n_beams = n,
                                .n_candidates = each,
                                .tokens = s->candidates};
    s->phase = PHASE_MEASURED;
    return params_write(out, &order, sizeof order, "candid_order", error);
}

candid_status candid_search_logits(candid_search *s, const candid_view *logits, candid_order *out,
                                   candid_error *error) {
    TRY(begin_step(s, PHASE_LOGITS, "candid_search_logits", out, error));
    return next_candidates(s, logits, out, error);
}

candid_status candid_search_measured(candid_search *s, candid_order *out, candid_error *error) {
    TRY(begin_step(s, PHASE_MEASURED, "candid_search_measured", out, error));
    TRY(take_rows(s, (size_t)opera_n_running(s->o) * (size_t)opera_n_candidates(s->o), error));
    struct opera_choice choice;
    s->phase = PHASE_FAILED;
    TRY(opera_choose(s->o, s->rows, &choice, error));
    return give_order(s, &choice, out, error);
}

candid_status candid_search_again(candid_search *s, const candid_view *logits, candid_order *out, candid_error *error) {
    TRY(begin_step(s, PHASE_AGAIN, "candid_search_again", out, error));
    TRY(take_logits(s, logits, error));
    struct opera_choice choice;
    s->phase = PHASE_FAILED;
    TRY(opera_rechoose(s->o, s->logits, &choice, error));
    return give_order(s, &choice, out, error);
}

candid_status candid_search_measured_beams(candid_search *s, const int32_t *beams, size_t n, candid_error *error) {
    bool waits[MAX_HYPOTHESES];
    TRY(check_turn(s, PHASE_LOGITS, "candid_search_measured_beams", beams, error));
    memcpy(waits, s->unmeasured, sizeof waits);
    for (size_t i = 0; i < n; i++) {
        if (beams[i] < 0 || beams[i] >= s->n_beams || !waits[beams[i]]) {
            return fail(error, CANDID_ERROR_ARGUMENT,
                        "candid_search_measured_beams: beam %d does not wait to be measured", beams[i]);
        }
        waits[beams[i]] = false; /* not twice */
    }
    TRY(take_rows(s, n, error));
    for (size_t i = 0; i < n; i++) {
        s->phase = PHASE_FAILED;
        TRY(opera_measured(s->o, beams[i], &s->rows[i], error));
        s->phase = PHASE_LOGITS;
        s->unmeasured[beams[i]] = false;
    }
    return CANDID_OK;
}

/* ---- results ------------------------------------------------------------------------------------- */

candid_status candid_search_beam(const candid_search *s, int32_t beam, int32_t *ids, candid_error *error) {
    if (!s || !ids || beam < 0 || beam >= opera_n_running(s->o) || s->phase == PHASE_FAILED) {
        return fail(error, CANDID_ERROR_ARGUMENT,
                    "candid_search_beam: expected a running beam and room for its tokens");
    }
    opera_beam_ids(s->o, beam, ids);
    return CANDID_OK;
}

candid_status candid_search_answer(const candid_search *s, int32_t rank, int32_t *ids, size_t *n_ids, float *score,
                                   candid_error *error) {
    if (!s || !ids || !n_ids) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_search_answer: an argument is NULL");
    }
    if (rank < 0 || rank >= opera_n_answers(s->o)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_search_answer: expected a rank from 0 to %d, found %d",
                    opera_n_answers(s->o) - 1, rank);
    }
    struct opera_answer found;
    TRY(opera_best(s->o, rank, &found, error));
    *n_ids = (size_t)(found.n < s->max_new_tokens ? found.n : s->max_new_tokens);
    memcpy(ids, found.ids, *n_ids * sizeof *ids);
    if (score) {
        *score = (float)found.score;
    }
    free(found.ids);
    return CANDID_OK;
}

candid_status candid_search_report(const candid_search *s, char **out, candid_error *error) {
    if (!s || !out) {
        return fail(error, CANDID_ERROR_ARGUMENT, "candid_search_report: %s is NULL", s ? "out" : "search");
    }
    const struct opera_counters c = opera_counters(s->o);
    int(*rollbacks)[2] = malloc(((size_t)c.n_rollbacks + 1) * sizeof *rollbacks);
    cJSON *all = rollbacks ? cJSON_CreateObject() : NULL;
    for (int i = 0; all && i < c.n_rollbacks; i++) {
        rollbacks[i][0] = c.rollbacks[i].step;
        rollbacks[i][1] = c.rollbacks[i].to;
    }
    if (all) {
        report_opera(c.n_rewarded, c.n_penalised, c.n_plain + c.n_filled, (const int(*)[2])rollbacks, c.n_rollbacks,
                     all);
    }
    free(rollbacks);
    *out = all ? cJSON_PrintUnformatted(all) : NULL;
    cJSON_Delete(all);
    return *out ? CANDID_OK : fail_memory(error, "a report", 0);
}
