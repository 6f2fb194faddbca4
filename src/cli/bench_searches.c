/* candid bench --searches. */
#include "cli/bench_searches.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench_median.h"
#include "core/status.h"
#include "decode/generate.h"

#define MOST        16
#define MOST_BLOCKS 8

/* The prompt that all searches go on from. */
struct ground {
    candid_context *c;
    struct prompt prompt;
    struct prompt_chunk chunk;
    struct kv_cache *kv;
    struct kv_seq *seq; /* the prompt but for its last rows */
    int decode;
};

/* One search. */
struct contest {
    char name[96];
    struct decoding decoding;
    int n_branches;
    double ms[32], greedy_ms[32]; /* per token, by round */
    double rows_per_step, kv_tokens;
    int n_tokens;
};

/* A prompt must leave so many rows to read that they go through the kernels of prompts. */
#define LAST_ROWS (LLAMA_FEW_ROWS + 1)

static candid_status make_ground(struct ground *g, int n_prompt, int most_rows, candid_error *error) {
    const struct candid_model *m = g->c->model;
    uint32_t random = 12345;
    for (int i = 0; i < n_prompt; i++) {
        random = random * 1664525u + 1013904223u;
        TRY(token_list_push(&g->prompt.tokens, (int32_t)((random >> 8) % (uint32_t)m->llama.n_vocab), error));
    }
    g->chunk = (struct prompt_chunk){.image = -1, .begin = 0, .count = (size_t)n_prompt};
    g->prompt.chunks = &g->chunk;
    g->prompt.n_chunks = 1;
    TRY(kv_cache_create(g->c->backend, kv_cache_shape(g->c->kv), n_prompt + most_rows * 2 * (g->decode + 4 * KV_BLOCK),
                        &g->kv, error));
    TRY(kv_seq_create(g->kv, &g->seq, error));
    struct forward_row *rows = calloc((size_t)n_prompt, sizeof *rows);
    if (!rows) {
        return fail_memory(error, "a benchmark's prompt", (size_t)n_prompt * sizeof *rows);
    }
    for (int i = 0; i < n_prompt; i++) {
        rows[i] = (struct forward_row){.seq = g->seq, .token = g->prompt.tokens.ids[i], .position = i};
    }
    candid_status status = llama_reserve(g->c->llama, n_prompt, error);
    if (status == CANDID_OK) {
        status = llama_forward(g->c->llama, rows, n_prompt - LAST_ROWS, NULL, NULL, error);
    }
    free(rows);
    return status;
}

/* Generates once; *ms: of a token. */
static candid_status generate_once(const struct ground *ground, const struct decoding *decoding, int n_branches,
                                   double *ms, struct contest *note, candid_error *error) {
    const struct candid_model *m = ground->c->model;
    struct branch_input branches[MOST_BLOCKS];
    struct kv_seq *seq = NULL;
    struct generated out = {0};
    for (int i = 0; i < n_branches; i++) {
        branches[i] = (struct branch_input){.prompt = &ground->prompt, .weight = 1};
    }
    TRY(kv_fork(ground->seq, &seq, error));
    const struct generation g = {.llama = ground->c->llama,
                                 .weights = &m->llama,
                                 .tokenizer = m->tokenizer,
                                 .backend = ground->c->backend,
                                 .seq = seq,
                                 .prompt = &ground->prompt,
                                 .branches = branches,
                                 .n_branches = n_branches,
                                 .decoding = *decoding,
                                 .max_new_tokens = ground->decode};
    const candid_status status = generate(&g, &out, error);
    if (status == CANDID_OK) {
        size_t longest = 1;
        for (int i = 0; i < out.n_answers; i++) {
            longest = out.answers[i].tokens.count > longest ? out.answers[i].tokens.count : longest;
        }
        *ms = out.stats.decode_ms / (double)longest;
        if (note) {
            note->rows_per_step = out.n_steps > 0 ? (double)out.n_rows / out.n_steps : 0;
            note->n_tokens = (int)longest;
            note->kv_tokens = (double)out.kv_bytes / (double)kv_slot_bytes(ground->kv);
        }
    }
    generated_free(&out);
    kv_seq_free(seq);
    return status;
}

static candid_status add_contest(struct contest *k, char *text, candid_error *error) {
    const struct decoding given = {.top_p = 1, .repetition_penalty = 1};
    candid_config *config = NULL;
    snprintf(k->name, sizeof k->name, "%s", text);
    if (strcmp(text, "contrast") == 0 || strncmp(text, "contrast-", 9) == 0) {
        char *end = text + 8;
        k->n_branches = *end ? (int)strtol(text + 9, &end, 10) : 1;
        if (*end || k->n_branches < 1 || k->n_branches > MOST_BLOCKS) {
            return fail(error, CANDID_ERROR_ARGUMENT, "--searches: expected contrast-1 to contrast-%d, found \"%s\"",
                        MOST_BLOCKS, k->name);
        }
        return decoding_resolve(NULL, &given, &k->decoding, error);
    }
    TRY(candid_config_parse("{}", 2, "--searches", &config, error));
    candid_status status = CANDID_OK;
    for (char *rest = text, *one; status == CANDID_OK && (one = strsep(&rest, "+"));) {
        if (strncmp(one, "decode.", 7) != 0 && strncmp(one, "opera", 5) != 0) {
            status =
                fail(error, CANDID_ERROR_ARGUMENT,
                     "--searches: expected contrast, decode.…, opera or opera.…, found \"%s\"; methods that edit the "
                     "forward pass are timed with --methods",
                     one);
            break;
        }
        status = candid_config_set(config, one, error);
    }
    if (status == CANDID_OK) {
        status = decoding_resolve(config, &given, &k->decoding, error);
    }
    candid_config_free(config);
    return status;
}

/* Before and after each search greedy runs: what the machine gives at that moment. */
static candid_status run(const struct ground *g, struct contest *k, int round, double *greedy, candid_error *error) {
    struct decoding plain;
    const struct decoding given = {.top_p = 1, .repetition_penalty = 1};
    double after;
    TRY(decoding_resolve(NULL, &given, &plain, error));
    TRY(generate_once(g, &k->decoding, k->n_branches, &k->ms[round], k, error));
    TRY(generate_once(g, &plain, 0, &after, NULL, error));
    k->greedy_ms[round] = (*greedy + after) / 2;
    *greedy = after;
    return CANDID_OK;
}

static void report(struct contest *k, int rounds, cJSON *out) {
    cJSON *one = cJSON_CreateObject();
    const double ms = bench_median(k->ms, rounds), greedy = bench_median(k->greedy_ms, rounds);
    cJSON_AddItemToArray(out, one);
    cJSON_AddStringToObject(one, "search", k->name);
    cJSON_AddNumberToObject(one, "ms_per_token", ms);
    cJSON_AddNumberToObject(one, "greedy_ms_per_token", greedy);
    cJSON_AddNumberToObject(one, "ratio", ms / greedy);
    cJSON_AddNumberToObject(one, "rows_per_step", k->rows_per_step);
    cJSON_AddNumberToObject(one, "tokens", k->n_tokens);
    cJSON_AddNumberToObject(one, "kv_tokens", k->kv_tokens);
}

candid_status bench_searches(candid_context *c, const char *searches, int n_prompt, int rounds, int decode, cJSON *out,
                             candid_error *error) {
    struct ground g = {.c = c, .decode = decode};
    struct contest *all = calloc(MOST, sizeof *all);
    char *text = strdup(searches);
    const struct decoding given = {.top_p = 1, .repetition_penalty = 1};
    struct decoding plain;
    double greedy = 0;
    int n = 0;
    candid_status status = all && text ? decoding_resolve(NULL, &given, &plain, error)
                                       : fail_memory(error, "a benchmark", MOST * sizeof *all);
    for (char *rest = text, *one; status == CANDID_OK && (one = strsep(&rest, ",")); n++) {
        status = n < MOST ? add_contest(&all[n], one, error)
                          : fail(error, CANDID_ERROR_ARGUMENT, "--searches: expected at most %d", MOST);
    }
    if (status == CANDID_OK) {
        status = make_ground(&g, n_prompt, 64, error);
    }
    if (status == CANDID_OK) {
        status = generate_once(&g, &plain, 0, &greedy, NULL, error);
    }
    for (int round = 0; status == CANDID_OK && round < rounds; round++) {
        for (int i = 0; status == CANDID_OK && i < n; i++) {
            status = run(&g, &all[i], round, &greedy, error);
        }
    }
    for (int i = 0; status == CANDID_OK && i < n; i++) {
        report(&all[i], rounds, out);
    }
    kv_seq_free(g.seq);
    kv_cache_free(g.kv);
    g.prompt.chunks = NULL; /* not the heap's */
    prompt_free(&g.prompt);
    free(all);
    free(text);
    return status;
}
