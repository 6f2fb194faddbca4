/* One step of OPERA: its candidates, the choice of the next beams. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "decode/log_softmax.h"
#include "decode/opera_internal.h"

/* ---- the order of calls ---- */

/* Until leave() the search counts as broken, so that a failure between ends it. */
static candid_status enter(struct opera *o, enum opera_phase phase, const char *call, candid_error *error) {
    static const char *const expected[] = {"opera_candidates", "opera_choose", "opera_rechoose",
                                           "no further call: the search is done",
                                           "no further call: an earlier one failed"};
    if (o->phase != phase) {
        return fail(error, CANDID_ERROR_INTERNAL, "%s: expected %s", call, expected[o->phase]);
    }
    o->phase = PHASE_BROKEN;
    return CANDID_OK;
}

static candid_status leave(struct opera *o, enum opera_phase phase) {
    o->phase = phase;
    return CANDID_OK;
}

/* ---- logits and candidates ---- */

static candid_status take_logits(struct opera *o, const float *logits, candid_error *error) {
    const struct opera_state *now = opera_now(o);
    const size_t n = (size_t)now->n_running * (size_t)o->params.n_vocab;
    for (size_t i = 0; i < n; i++) {
        o->logits[i] = o->params.options.logits_fp16 ? round_f16(logits[i]) : logits[i];
        if (isnan(o->logits[i]) || o->logits[i] == INFINITY) {
            return fail(error, CANDID_ERROR_FORMAT,
                        "opera: logits of step %d, beam %zu are no numbers: token %zu has %g%s", now->step,
                        i / (size_t)o->params.n_vocab, i % (size_t)o->params.n_vocab, (double)logits[i],
                        o->params.options.logits_fp16 ? ", in half precision" : "");
        }
    }
    return CANDID_OK;
}

candid_status opera_candidates(struct opera *o, const float *logits, int32_t *candidates, candid_error *error) {
    struct opera_state *now = opera_now(o);
    for (int b = 0; o->phase == PHASE_LOGITS && b < now->n_running; b++) {
        if (now->nodes[b] != TREE_ROOT && !o->tree.nodes[now->nodes[b]].products) {
            return fail(error, CANDID_ERROR_INTERNAL, "opera_candidates: expected opera_measured for beam %d", b);
        }
    }
    TRY(enter(o, PHASE_LOGITS, "opera_candidates", error));
    TRY(take_logits(o, logits, error));
    const int n = now->n_candidates;
    struct beam_option *items = malloc((size_t)n * sizeof *items);
    if (!items) {
        return fail_memory(error, "candidates", (size_t)n * sizeof *items);
    }
    for (int b = 0; b < now->n_running; b++) {
        struct beam_list list = {.items = items, .capacity = n};
        const float *row = opera_row_of(o->logits, o, b);
        for (int32_t v = 0; v < o->params.n_vocab; v++) {
            beam_list_offer(&list, (struct beam_option){.score = row[v], .parent = b, .token = v});
        }
        for (int c = 0; c < n; c++) {
            candidates[b * n + c] = now->candidates[b * n + c] = items[c].token;
        }
    }
    free(items);
    return leave(o, PHASE_ROWS);
}

candid_status opera_measured(struct opera *o, int beam, const struct opera_row *row, candid_error *error) {
    const struct opera_state *now = opera_now(o);
    TRY(enter(o, PHASE_LOGITS, "opera_measured", error));
    struct tree_node *node =
        beam >= 0 && beam < now->n_running && now->nodes[beam] != TREE_ROOT ? &o->tree.nodes[now->nodes[beam]] : NULL;
    if (!node || node->products) {
        return fail(error, CANDID_ERROR_INTERNAL, "opera_measured: beam %d has no token to be measured", beam);
    }
    const size_t bytes = (size_t)now->step * sizeof *node->products;
    node->products = malloc(bytes);
    if (!node->products) {
        return fail_memory(error, "column products", bytes);
    }
    TRY(opera_extend_node(o, node->parent, row, node->products, error));
    return leave(o, PHASE_LOGITS);
}

/* ---- what may follow each beam: its row of `work`, as logits ---- */

/* The logit of what must not follow. */
static float excluded(const struct opera *o) {
    return o->params.options.plain_fallback ? -INFINITY : OPERA_FLOOR;
}

static void offer_candidates(struct opera *o, int beam) {
    const struct opera_state *now = opera_now(o);
    float *row = opera_row_of(o->work, o, beam);
    for (int v = 0; v < o->params.n_vocab; v++) {
        row[v] = excluded(o);
    }
    for (int c = beam * now->n_candidates; c < (beam + 1) * now->n_candidates; c++) {
        row[now->candidates[c]] = now->candidate_scores[c];
    }
}

/* A logit that is excluded stays so. */
static void strike(float *logit, float to) {
    *logit = *logit > -INFINITY ? to : *logit;
}

/* Sets what has been rejected at the current step, one that was gone back to. */
static void strike_rejected(struct opera *o, int beam, float to) {
    const struct opera_slot *slot = &o->slots[opera_now(o)->step];
    for (int i = 0; i < slot->n_rejects; i++) {
        if (slot->rejects[i].parent == beam) {
            strike(&opera_row_of(o->work, o, beam)[slot->rejects[i].token], to);
        }
    }
}

static void offer_all_again(struct opera *o, int beam) {
    float *row = opera_row_of(o->work, o, beam);
    memcpy(row, opera_row_of(o->logits, o, beam), (size_t)o->params.n_vocab * sizeof *row);
    opera_shift(row, o->params.n_vocab, o->params.options.logits_fp16);
    strike_rejected(o, beam, OPERA_FLOOR);
}

static bool is_excluded(const float *row, int n) {
    for (int v = 0; v < n; v++) {
        if (row[v] > -INFINITY) {
            return false;
        }
    }
    return true;
}

static void offer_again(struct opera *o, int beam) {
    if (!o->params.options.retry_full_vocab) {
        offer_candidates(o, beam);
        strike_rejected(o, beam, excluded(o));
        if (!o->params.options.plain_fallback || !is_excluded(opera_row_of(o->work, o, beam), o->params.n_vocab)) {
            return;
        }
        o->counters.n_plain++; /* all its candidates have been rejected */
    }
    offer_all_again(o, beam);
}

/* ---- the choice ---- */

static bool is_end(const struct opera *o, int32_t token) {
    for (int i = 0; i < o->params.n_end_tokens; i++) {
        if (o->end_tokens[i] == token) {
            return true;
        }
    }
    return false;
}

/* Turns a beam's logits in `work` into sums of log-probabilities. */
static void to_sums(struct opera *o, int beam) {
    float *row = opera_row_of(o->work, o, beam);
    log_softmax(row, o->params.n_vocab);
    if (o->params.process) {
        o->params.process(o->params.user_data, o, beam, row);
    }
    for (int v = 0; v < o->params.n_vocab; v++) {
        row[v] += opera_now(o)->scores[beam];
    }
}

static void offer_row(struct opera *o, int beam, struct beam_list *list) {
    const float *row = opera_row_of(o->work, o, beam);
    for (int32_t v = 0; v < o->params.n_vocab; v++) {
        if (row[v] > -INFINITY) {
            beam_list_offer(list, (struct beam_option){.score = row[v], .parent = beam, .token = v});
        }
    }
}

/* The best continuations of all beams; as many as leave enough when every end token of every beam is among them. */
static struct beam_list best_options(struct opera *o) {
    const int n_beams = o->params.n_beams, n_ends = o->params.n_end_tokens;
    struct beam_list list = {.items = o->best, .capacity = n_beams * (n_ends > 1 ? 1 + n_ends : 2)};
    for (int b = 0; b < opera_now(o)->n_running; b++) {
        to_sums(o, b);
        offer_row(o, b, &list);
    }
    return list;
}

/* What the options taken so far leave to fill the next step's beams, by plain logits. What candidates and rejected
 * tokens have against them makes them the least probable here; end tokens fill no beam. */
static struct beam_list other_options(struct opera *o, const struct opera_state *next, bool retry) {
    const struct opera_state *now = opera_now(o);
    const int n_vocab = o->params.n_vocab;
    struct beam_list list = {.items = o->filled, .capacity = o->params.n_beams - next->n_running};
    for (int b = 0; b < now->n_running; b++) {
        float *row = opera_row_of(o->work, o, b);
        memcpy(row, opera_row_of(o->logits, o, b), (size_t)n_vocab * sizeof *row);
        to_sums(o, b);
        const float lowest = opera_lowest(row, n_vocab);
        for (int c = b * now->n_candidates; c < (b + 1) * now->n_candidates; c++) {
            strike(&row[now->candidates[c]], lowest);
        }
        if (retry) {
            strike_rejected(o, b, lowest);
        }
        for (int i = 0; i < o->params.n_end_tokens; i++) {
            if (o->end_tokens[i] >= 0 && o->end_tokens[i] < n_vocab) {
                row[o->end_tokens[i]] = -INFINITY;
            }
        }
        for (int i = 0; i < next->n_running; i++) {
            if (now->parents[i] == b) {
                row[now->tokens[i]] = -INFINITY;
            }
        }
        offer_row(o, b, &list);
    }
    return list;
}

static candid_status finish(struct opera *o, struct beam_scorer *scorer, int node, float sum, int32_t end,
                            candid_error *error) {
    const int n = tree_length(&o->tree, node);
    struct hypothesis *h;
    TRY(hypothesis_create(sum, o->params.n_prompt_ids + n, n, end, &h, error));
    tree_path(&o->tree, node, h->ids);
    beam_scorer_add(scorer, h);
    return CANDID_OK;
}

/* Makes the option the next step's next beam. */
static candid_status take(struct opera *o, struct opera_state *next, const struct beam_option *option, bool retry,
                          candid_error *error) {
    struct opera_state *now = opera_now(o);
    const int beam = next->n_running, first = option->parent * now->n_candidates;
    int candidate = -1;
    for (int c = 0; !retry && c < now->n_candidates; c++) { /* after going back the candidates' passes are gone */
        candidate = now->candidates[first + c] == option->token ? c : candidate;
    }
    now->parents[beam] = option->parent;
    now->tokens[beam] = option->token;
    o->chosen_candidates[beam] = candidate;
    next->scores[beam] = option->score;
    TRY(tree_add(&o->tree, now->nodes[option->parent], option->token, &next->nodes[beam], error));
    next->n_running++;
    if (candidate >= 0) {
        const size_t bytes = (size_t)next->step * sizeof(float);
        float *products = malloc(bytes);
        if (!products) {
            return fail_memory(error, "column products", bytes);
        }
        memcpy(products, opera_products_of(o, first + candidate), bytes);
        o->tree.nodes[next->nodes[beam]].products = products;
    }
    return CANDID_OK;
}

/* The next step's beams, from the options in order. An end token among the best n_beams closes a hypothesis. */
static candid_status take_best(struct opera *o, struct opera_state *next, const struct beam_list *list, bool retry,
                               candid_error *error) {
    const struct opera_state *now = opera_now(o);
    for (int i = 0; i < list->n && next->n_running < o->params.n_beams; i++) {
        const struct beam_option *option = &list->items[i];
        if (!is_end(o, option->token)) {
            TRY(take(o, next, option, retry, error));
        } else if (i < o->params.n_beams) {
            TRY(finish(o, &next->scorer, now->nodes[option->parent], option->score, option->token, error));
        }
    }
    return CANDID_OK;
}

/* From the rows of `work` to the next step. *done: no running beam can get better than what is finished. */
static candid_status choose_beams(struct opera *o, struct opera_state *next, bool retry, bool *done,
                                  candid_error *error) {
    const struct opera_state *now = opera_now(o);
    struct beam_list list = best_options(o);
    float best = list.n > 0 ? list.items[0].score : -INFINITY;
    beam_scorer_copy(&next->scorer, &now->scorer);
    TRY(take_best(o, next, &list, retry, error));
    if (next->n_running < o->params.n_beams && o->params.options.plain_fallback) {
        list = other_options(o, next, retry);
        for (int i = 0; i < list.n; i++) {
            TRY(take(o, next, &list.items[i], retry, error));
            best = list.items[i].score > best ? list.items[i].score : best;
        }
        o->counters.n_filled += list.n;
    }
    if (next->n_running < o->params.n_beams) {
        return fail(error, CANDID_ERROR_FORMAT,
                    "opera: logits of step %d allow %d continuations: expected at least one for each of the %d beams",
                    now->step, next->n_running, o->params.n_beams);
    }
    *done = beam_scorer_is_done(&next->scorer, best, o->params.n_prompt_ids + next->step);
    return CANDID_OK;
}

/* Beams that are still open at the end compete with what is finished. */
static candid_status close_beams(struct opera *o, candid_error *error) {
    struct opera_state *now = opera_now(o);
    for (int b = 0; b < now->n_running; b++) {
        TRY(finish(o, &now->scorer, now->nodes[b], now->scores[b], -1, error));
    }
    return CANDID_OK;
}

static candid_status go_on(struct opera *o, bool retry, struct opera_choice *out, candid_error *error) {
    const struct opera_state *now = opera_now(o);
    struct opera_state *next;
    bool done = false;
    TRY(opera_state_create(o, now->step + 1, &next, error));
    const candid_status status = choose_beams(o, next, retry, &done, error);
    if (status != CANDID_OK) {
        opera_state_free(o, next);
        return status;
    }
    if (o->shared) {
        beam_scorer_copy(&o->shared->scorer, &next->scorer);
    }
    opera_push(o, next); /* two steps at least are kept: `now` stays */
    if (!done && next->step == o->params.max_new_tokens) {
        TRY(close_beams(o, error));
        done = true;
    }
    *out = (struct opera_choice){.verdict = done ? OPERA_DONE : OPERA_CHOSEN,
                                 .step = now->step,
                                 .parents = now->parents,
                                 .tokens = now->tokens,
                                 .candidates = o->chosen_candidates,
                                 .scores = next->scores};
    return leave(o, done ? PHASE_DONE : PHASE_LOGITS);
}

candid_status opera_choose(struct opera *o, const struct opera_row *rows, struct opera_choice *out,
                           candid_error *error) {
    TRY(enter(o, PHASE_ROWS, "opera_choose", error));
    o->counters.n_steps++;
    TRY(opera_score_candidates(o, rows, error));
    TRY(opera_note_locs(o, error));
    const int position = opera_rollback_position(o);
    if (position >= 0) {
        TRY(opera_go_back(o, position, error));
        *out = (struct opera_choice){.verdict = OPERA_ROLLBACK, .step = position};
        return leave(o, PHASE_RETRY);
    }
    for (int b = 0; b < opera_n_running(o); b++) {
        offer_candidates(o, b);
    }
    return go_on(o, false, out, error);
}

candid_status opera_rechoose(struct opera *o, const float *logits, struct opera_choice *out, candid_error *error) {
    TRY(enter(o, PHASE_RETRY, "opera_rechoose", error));
    TRY(take_logits(o, logits, error));
    for (int b = 0; b < opera_n_running(o); b++) {
        offer_again(o, b);
    }
    return go_on(o, true, out, error);
}
