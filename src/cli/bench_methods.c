/* candid bench --methods. */
#include "cli/bench_methods.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench_median.h"
#include "core/clock.h"
#include "core/status.h"
#include "decode/prefill.h"
#include "interventions/interventions.h"

#define N_BEFORE 35 /* LLaVA-1.5's system text */
#define N_AFTER  29
#define MOST     32

/* The prompt all configurations run. */
struct subject {
    candid_context *c;
    struct prompt prompt;
    struct image_span span;
    float *visual_tokens;
    float *logits;
    int decode;
};

/* Times of one configuration, a value per round. */
struct timing {
    char name[128];
    candid_config *config; /* NULL: none */
    double prefill_ms[MOST];
    double *decode_ms, *plain_ms; /* (rounds, decode): with it, and without in the same moment */
    int prompt_rows;              /* all rows of the prompt's pass */
    char *report;
};

static double uniform(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (double)(*state >> 8) / (1 << 24);
}

static candid_status make_subject(struct subject *s, candid_error *error) {
    const struct candid_model *m = s->c->model;
    const int grid = m->has_vision ? m->clip.grid : 24;
    uint32_t random = 7;
    s->span = (struct image_span){.n_tokens = grid * grid, .grid_h = grid, .grid_w = grid};
    for (int i = 0; i < N_BEFORE + N_AFTER; i++) {
        TRY(token_list_push(&s->prompt.tokens, (int32_t)(uniform(&random) * m->llama.n_vocab), error));
    }
    s->prompt.chunks = calloc(3, sizeof *s->prompt.chunks);
    const size_t n = (size_t)s->span.n_tokens * (size_t)m->llama.n_embd;
    s->logits = malloc(ROLE_COUNT * (size_t)m->llama.n_vocab * sizeof *s->logits);
    void *device = NULL;
    float *host = malloc(n * sizeof *host);
    if (!s->prompt.chunks || !s->logits || !host) {
        free(host);
        return fail_memory(error, "a benchmark's prompt", n * sizeof *host);
    }
    s->prompt.n_chunks = 3;
    s->prompt.chunks[0] = (struct prompt_chunk){.image = -1, .begin = 0, .count = N_BEFORE};
    s->prompt.chunks[1] = (struct prompt_chunk){.image = 0};
    s->prompt.chunks[2] = (struct prompt_chunk){.image = -1, .begin = N_BEFORE, .count = N_AFTER};
    for (size_t i = 0; i < n; i++) {
        host[i] = (float)(uniform(&random) - 0.5) * 0.05f;
    }
    candid_status status = s->c->backend->ops->alloc(s->c->backend, n * sizeof *host, &device, error);
    if (status == CANDID_OK) {
        s->visual_tokens = device;
        s->c->backend->ops->upload(s->c->backend, s->visual_tokens, host, n * sizeof *host);
    }
    free(host);
    return status;
}

static void free_subject(struct subject *s) {
    prompt_free(&s->prompt);
    s->c->backend->ops->release(s->c->backend, s->visual_tokens);
    free(s->logits);
}

/* A prompt that has run, ready to go on. */
struct running {
    struct plan *plan;
    struct kv_seq *seq;
    int position, n_prompt;
};

static void stop(struct running *r) {
    kv_seq_free(r->seq);
    plan_free(r->plan);
    *r = (struct running){0};
}

/* Runs the prompt with one configuration; *ms: how long that took. */
static candid_status start(const struct subject *s, const candid_config *config, struct running *r, double *ms,
                           candid_error *error) {
    const struct candid_model *m = s->c->model;
    struct method_needs needs;
    struct image_span span = s->span;
    struct layout layout = {0};
    *r = (struct running){.n_prompt = N_BEFORE + N_AFTER + span.n_tokens};
    candid_status status = interventions_needs(config, &m->facts, &needs, error);
    span.order = status == CANDID_OK ? needs.order : IMAGE_RASTER;
    if (status == CANDID_OK) {
        status = layout_from_prompt(&s->prompt, &span, &layout, error);
    }
    if (status == CANDID_OK) {
        status = interventions_compile(config, &m->facts, &layout, NULL, 1, 0, NULL, &r->plan, error);
    }
    if (status == CANDID_OK) {
        status = kv_seq_create(s->c->kv, &r->seq, error);
    }
    const struct generation g = {.llama = s->c->llama,
                                 .weights = &m->llama,
                                 .backend = s->c->backend,
                                 .seq = r->seq,
                                 .prompt = &s->prompt,
                                 .images = &span,
                                 .visual_tokens = s->visual_tokens,
                                 .plan = r->plan};
    const double begin = clock_ms();
    if (status == CANDID_OK) {
        status = prefill(&g, s->logits, &r->position, error);
    }
    *ms = clock_ms() - begin;
    layout_free(&layout);
    return status;
}

static candid_status step(const struct subject *s, const struct running *r, int number, double *ms,
                          candid_error *error) {
    const struct forward_row row = {.seq = r->seq,
                                    .token = number % s->c->model->llama.n_vocab,
                                    .position = r->position + number,
                                    .want_logits = true,
                                    .plan = r->plan};
    const double begin = clock_ms();
    TRY(llama_forward(s->c->llama, &row, 1, NULL, s->logits, error));
    *ms = clock_ms() - begin;
    return CANDID_OK;
}

/* Steps of a plain and of a configured sequence by turns, so that both meet the same state of the machine. */
static candid_status decode(const struct subject *s, struct running *plain, const struct running *with,
                            struct timing *t, int round, candid_error *error) {
    for (int i = 0; i < s->decode; i++) {
        const size_t at = (size_t)round * (size_t)s->decode + (size_t)i;
        if (i % 2 == 0) {
            TRY(step(s, plain, i, &t->plain_ms[at], error));
        }
        TRY(step(s, with, i, &t->decode_ms[at], error));
        if (i % 2 == 1) {
            TRY(step(s, plain, i, &t->plain_ms[at], error));
        }
    }
    kv_truncate(plain->seq, plain->n_prompt);
    return CANDID_OK;
}

/* One prompt and its steps with one configuration. */
static candid_status run(const struct subject *s, struct running *plain, struct timing *t, int round,
                         candid_error *error) {
    struct running with = {0};
    candid_status status = start(s, t->config, &with, &t->prefill_ms[round], error);
    if (status == CANDID_OK) {
        status = decode(s, plain, &with, t, round, error);
    }
    const int n_text = N_BEFORE + N_AFTER, n_prompt = with.n_prompt;
    t->prompt_rows = n_prompt + (with.plan && with.plan->companions[ROLE_TEXT_ONLY] ? n_text : 0) +
                     (with.plan && with.plan->companions[ROLE_PLAIN] ? n_prompt : 0);
    if (status == CANDID_OK && with.plan && !t->report) {
        cJSON *report = interventions_report(with.plan);
        t->report = cJSON_PrintUnformatted(report);
        cJSON_Delete(report);
    }
    stop(&with);
    return status;
}

static candid_status add_config(struct timing *t, char *text, candid_error *error) {
    struct settings s;
    snprintf(t->name, sizeof t->name, "%s", text);
    TRY(candid_config_parse("{}", 2, "--methods", &t->config, error));
    for (char *rest = text, *one; (one = strsep(&rest, "+"));) {
        char assignment[512];
        const int n = snprintf(assignment, sizeof assignment, strchr(one, '=') ? "%s" : "%s=true", one);
        if (n < 0 || (size_t)n >= sizeof assignment) {
            return fail(error, CANDID_ERROR_ARGUMENT, "--methods: an assignment is longer than %zu characters",
                        sizeof assignment - 1);
        }
        TRY(candid_config_set(t->config, assignment, error));
    }
    for (const struct method *const *m = methods; *m; m++) {
        if (config_method(t->config, *m, &s) && (*m)->kind != METHOD_EDITS) {
            return fail(error, CANDID_ERROR_UNSUPPORTED,
                        "--methods times one row with the edits of methods; %s adds rows or passes of its own: compare "
                        "decode_ms of candid caption --jsonl instead",
                        (*m)->name);
        }
    }
    if (config_method(t->config, method_find("pai"), &s) && setting_float(&s, "gamma") != 1.0f) {
        return fail(error, CANDID_ERROR_UNSUPPORTED,
                    "--methods times one row with the edits of methods, not pai's contrast: write pai.gamma=1");
    }
    if (config_method(t->config, method_find("paint"), &s)) {
        return fail(error, CANDID_ERROR_UNSUPPORTED,
                    "--methods: paint chooses its tokens by a real image, and the benchmark's prompt is random");
    }
    return CANDID_OK;
}

/* Cuts at commas outside of brackets. */
static char *next_config(char **rest) {
    char *begin = *rest;
    int depth = 0;
    for (char *c = begin; c && *c; c++) {
        depth += (*c == '[') - (*c == ']');
        if (*c == ',' && depth == 0) {
            *c = '\0';
            *rest = c + 1;
            return begin;
        }
    }
    *rest = NULL;
    return begin && *begin ? begin : NULL;
}

static void report(struct timing *t, double plain_prefill_ms, int plain_rows, int rounds, int decode, cJSON *out) {
    cJSON *one = cJSON_CreateObject();
    cJSON_AddItemToArray(out, one);
    const double prefill_ms = bench_median(t->prefill_ms, rounds),
                 decode_ms = bench_median(t->decode_ms, rounds * decode);
    cJSON_AddStringToObject(one, "config", t->name);
    cJSON_AddNumberToObject(one, "prefill_ms", prefill_ms);
    cJSON_AddNumberToObject(one, "decode_ms_per_token", decode_ms);
    cJSON_AddNumberToObject(one, "prefill_ratio", prefill_ms / plain_prefill_ms);
    cJSON_AddNumberToObject(one, "prompt_rows_ratio", (double)t->prompt_rows / plain_rows);
    cJSON_AddNumberToObject(one, "decode_ratio", decode_ms / bench_median(t->plain_ms, rounds * decode));
    if (t->report) {
        cJSON_AddRawToObject(one, "did", t->report);
    }
}

static candid_status make_room(struct timing *t, int rounds, int decode, candid_error *error) {
    const size_t n = (size_t)rounds * (size_t)decode;
    t->decode_ms = calloc(n, sizeof *t->decode_ms);
    t->plain_ms = calloc(n, sizeof *t->plain_ms);
    return t->decode_ms && t->plain_ms ? CANDID_OK : fail_memory(error, "a benchmark's times", 2 * n * sizeof(double));
}

candid_status bench_methods(candid_context *c, const char *configs, int rounds, int decode_steps, cJSON *out,
                            candid_error *error) {
    struct subject s = {.c = c, .decode = decode_steps};
    struct running plain = {0};
    struct timing *all = calloc(MOST, sizeof *all);
    char *text = strdup(configs);
    double unused;
    candid_status status =
        all && text ? make_subject(&s, error) : fail_memory(error, "a benchmark", MOST * sizeof *all);
    int n = 1; /* all[0]: nothing on */
    for (char *rest = text, *one; status == CANDID_OK && (one = next_config(&rest)); n++) {
        status = n < MOST
                     ? add_config(&all[n], one, error)
                     : fail(error, CANDID_ERROR_ARGUMENT, "--methods: expected at most %d configurations", MOST - 1);
    }
    for (int i = 0; status == CANDID_OK && i < n; i++) {
        status = make_room(&all[i], rounds, decode_steps, error);
    }
    if (status == CANDID_OK) {
        snprintf(all[0].name, sizeof all[0].name, "nothing");
        status = start(&s, NULL, &plain, &unused, error); /* maps the file, too */
    }
    for (int round = 0; status == CANDID_OK && round < rounds; round++) {
        for (int i = 0; status == CANDID_OK && i < n; i++) {
            status = run(&s, &plain, &all[i], round, error);
        }
    }
    const double plain_prefill_ms = status == CANDID_OK ? bench_median(all[0].prefill_ms, rounds) : 0.0;
    for (int i = 0; status == CANDID_OK && i < n; i++) {
        report(&all[i], plain_prefill_ms, all[0].prompt_rows, rounds, decode_steps, out);
    }
    stop(&plain);
    for (int i = 0; all && i < n && i < MOST; i++) {
        candid_config_free(all[i].config);
        free(all[i].report);
        free(all[i].decode_ms);
        free(all[i].plain_ms);
    }
    free(all);
    free(text);
    free_subject(&s);
    return status;
}
