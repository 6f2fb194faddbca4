/* Counting tokens of prompts. */
#include "eval/run/plan.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc32.h"
#include "core/status.h"
#include "lm/prompt.h"

#define IMAGE             (-1)
#define ESTIMATED_LETTERS 6

/* Texts that would be one token each get an id that tells them apart. */
static candid_status estimate(const char *text, size_t size, struct token_list *ids, candid_error *error) {
    for (size_t i = 0; i < size;) {
        size_t n = 1;
        if (isalnum((unsigned char)text[i])) {
            while (n < ESTIMATED_LETTERS && i + n < size && isalnum((unsigned char)text[i + n])) {
                n++;
            }
        }
        if (text[i] != ' ') {
            TRY(token_list_push(ids, (int32_t)(crc32_update(0, text + i, n) >> 1), error));
        }
        i += n;
    }
    return CANDID_OK;
}

static candid_status estimate_prompt(const char *text, int image_tokens, struct token_list *ids, candid_error *error) {
    TRY(token_list_push(ids, 0, error)); /* the begin token */
    for (const char *place; (place = strstr(text, "<image>")); text = place + 7) {
        TRY(estimate(text, (size_t)(place - text), ids, error));
        for (int i = 0; i < image_tokens; i++) {
            TRY(token_list_push(ids, IMAGE, error));
        }
    }
    return estimate(text, strlen(text), ids, error);
}

static candid_status tokenize_prompt(const struct eval_tokens *t, const char *text, struct token_list *ids,
                                     candid_error *error) {
    struct prompt prompt;
    TRY(prompt_tokenize(t->tokenizer, text, &prompt, error));
    candid_status status = CANDID_OK;
    for (size_t i = 0; status == CANDID_OK && i < prompt.n_chunks; i++) {
        const struct prompt_chunk *chunk = &prompt.chunks[i];
        const size_t n = chunk->image < 0 ? chunk->count : (size_t)t->image_tokens;
        for (size_t k = 0; status == CANDID_OK && k < n; k++) {
            status = token_list_push(ids, chunk->image < 0 ? prompt.tokens.ids[chunk->begin + k] : IMAGE, error);
        }
    }
    prompt_free(&prompt);
    return status;
}

static candid_status tokens_of(const struct eval_tokens *t, const struct eval_prompt *p, const struct eval_item *item,
                               struct token_list *ids, candid_error *error) {
    char *request = NULL, *text = NULL;
    ids->count = 0;
    TRY(eval_prompt_of(p, item, &request, error));
    candid_status status = prompt_render(t->conversation, request, 1, &text, error);
    if (status == CANDID_OK) {
        status =
            t->tokenizer ? tokenize_prompt(t, text, ids, error) : estimate_prompt(text, t->image_tokens, ids, error);
    }
    free(request);
    free(text);
    return status;
}

static int64_t common(const struct token_list *a, const struct token_list *b) {
    size_t n = 0;
    while (n < a->count && n < b->count && a->ids[n] == b->ids[n]) {
        n++;
    }
    n = n == b->count ? n - 1 : n; /* a token of its own is left to each */
    return (int64_t)n;
}

/* Adds one image's questions. */
static candid_status add_unit(const struct eval_items *items, const struct eval_unit *u, const struct eval_prompt *p,
                              const struct eval_tokens *t, bool per_question, struct token_list lists[2],
                              struct eval_plan *plan, candid_error *error) {
    int64_t shared = INT64_MAX, all = 0;
    size_t seen = 0;
    for (size_t i = 0; i < u->n_items; i++) {
        struct token_list *ids = &lists[seen > 0];
        const bool is_new = u->asked[i] == seen;
        TRY(tokens_of(t, p, &items->items[u->items[i]], i == 0 ? &lists[0] : ids, error));
        const int64_t n = (int64_t)(i == 0 ? &lists[0] : ids)->count;
        plan->prefill_alone += n;
        plan->longest_prompt = n > plan->longest_prompt ? n : plan->longest_prompt;
        if (is_new) {
            all += n;
            const int64_t both = seen > 0 ? common(&lists[0], ids) : n - 1;
            shared = both < shared ? both : shared;
            seen++;
        }
    }
    const bool shares = !per_question && seen > 1;
    plan->prefill += shares ? all - (int64_t)(seen - 1) * shared : all;
    plan->questions += u->n_items;
    plan->distinct += u->n_asked;
    plan->images++;
    return CANDID_OK;
}

candid_status eval_plan_make(const struct eval_items *items, const struct eval_units *units,
                             const struct eval_prompt *prompt, const struct eval_tokens *tokens, bool per_question,
                             struct eval_plan *out, candid_error *error) {
    struct token_list lists[2] = {{0}};
    candid_status status = CANDID_OK;
    *out = (struct eval_plan){0};
    for (size_t i = 0; status == CANDID_OK && i < units->n; i++) {
        status = add_unit(items, &units->units[i], prompt, tokens, per_question, lists, out, error);
    }
    token_list_free(&lists[0]);
    token_list_free(&lists[1]);
    return status;
}
