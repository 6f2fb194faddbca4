/* candid bench --methods. */
#include "cli/bench_methods.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    double prefill_ms[MOST], decode_ms[MOST];
    int prompt_rows; /* all rows of the prompt's pass */
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

static candid_status decode(const struct subject *s, struct plan *plan, struct kv_seq *seq, int position,
                            candid_error *error) {
    for (int step = 0; step < s->decode; step++) {
        const struct forward_row row = {.seq = seq,
                                        .token = step % s->c->model->llama.n_vocab,
                                        .position = position + step,
                                        .want_logits = true,
                                        .plan = plan};
        TRY(llama_forward(s->c->llama, &row, 1, NULL, s->logits, error));
    }
    return CANDID_OK;
}

/* One prompt and its steps with one configuration. */
static candid_status run(const struct subject *s, struct timing *t, int round, candid_error *error) {
    const struct candid_model *m = s->c->model;
    struct method_needs needs;
    struct image_span span = s->span;
    struct layout layout = {0};
    struct plan *plan = NULL;
    struct kv_seq *seq = NULL;
    candid_status status = interventions_needs(t->config, &m->facts, &needs, error);
    span.order = status == CANDID_OK ? needs.order : IMAGE_RASTER;
    if (status == CANDID_OK) {
        status = layout_from_prompt(&s->prompt, &span, &layout, error);
    }
    if (status == CANDID_OK) {
        status = interventions_compile(t->config, &m->facts, &layout, NULL, 1, 0, NULL, &plan, error);
    }
    if (status == CANDID_OK) {
        status = kv_seq_create(s->c->kv, &seq, error);
    }
    const struct generation g = {.llama = s->c->llama,
                                 .weights = &m->llama,
                                 .backend = s->c->backend,
                                 .seq = seq,
                                 .prompt = &s->prompt,
                                 .images = &span,
                                 .visual_tokens = s->visual_tokens,
                                 .plan = plan};
    int position = 0;
    const double start = clock_ms();
    if (status == CANDID_OK) {
        status = prefill(&g, s->logits, &position, error);
    }
    const double middle = clock_ms();
    if (status == CANDID_OK) {
        status = decode(s, plan, seq, position, error);
    }
    t->prefill_ms[round] = middle - start;
    t->decode_ms[round] = clock_ms() - middle;
    const int n_text = N_BEFORE + N_AFTER, n_prompt = n_text + span.n_tokens;
    t->prompt_rows = n_prompt + (plan && plan->companions[ROLE_TEXT_ONLY] ? n_text : 0) +
                     (plan && plan->companions[ROLE_PLAIN] ? n_prompt : 0);
    if (status == CANDID_OK && plan && !t->report) {
        cJSON *report = interventions_report(plan);
        t->report = cJSON_PrintUnformatted(report);
        cJSON_Delete(report);
    }
    kv_seq_free(seq);
    plan_free(plan);
    layout_free(&layout);
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

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, int n) {
    double sorted[MOST];
    memcpy(sorted, values, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    return (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
}

static void report(const struct timing *t, const struct timing *plain, int rounds, int decode, cJSON *out) {
    cJSON *one = cJSON_CreateObject();
    cJSON_AddItemToArray(out, one);
    const double prefill_ms = median(t->prefill_ms, rounds), decode_ms = median(t->decode_ms, rounds) / decode;
    cJSON_AddStringToObject(one, "config", t->name);
    cJSON_AddNumberToObject(one, "prefill_ms", prefill_ms);
    cJSON_AddNumberToObject(one, "decode_ms_per_token", decode_ms);
    cJSON_AddNumberToObject(one, "prefill_ratio", prefill_ms / median(plain->prefill_ms, rounds));
    cJSON_AddNumberToObject(one, "prompt_rows_ratio", (double)t->prompt_rows / plain->prompt_rows);
    cJSON_AddNumberToObject(one, "decode_ratio", decode_ms * decode / median(plain->decode_ms, rounds));
    if (t->report) {
        cJSON_AddRawToObject(one, "did", t->report);
    }
}

candid_status bench_methods(candid_context *c, const char *configs, int rounds, int decode_steps, cJSON *out,
                            candid_error *error) {
    struct subject s = {.c = c, .decode = decode_steps};
    struct timing *all = calloc(MOST, sizeof *all);
    char *text = strdup(configs);
    candid_status status =
        all && text ? make_subject(&s, error) : fail_memory(error, "a benchmark", MOST * sizeof *all);
    int n = 1; /* all[0]: nothing on */
    for (char *rest = text, *one; status == CANDID_OK && (one = next_config(&rest)); n++) {
        status = n < MOST
                     ? add_config(&all[n], one, error)
                     : fail(error, CANDID_ERROR_ARGUMENT, "--methods: expected at most %d configurations", MOST - 1);
    }
    if (status == CANDID_OK) {
        snprintf(all[0].name, sizeof all[0].name, "nothing");
        status = run(&s, &all[0], 0, error); /* maps the file */
    }
    for (int round = 0; status == CANDID_OK && round < rounds; round++) {
        for (int i = 0; status == CANDID_OK && i < n; i++) {
            status = run(&s, &all[i], round, error);
        }
    }
    for (int i = 0; status == CANDID_OK && i < n; i++) {
        report(&all[i], &all[0], rounds, decode_steps, out);
    }
    for (int i = 0; all && i < n && i < MOST; i++) {
        candid_config_free(all[i].config);
        free(all[i].report);
    }
    free(all);
    free(text);
    free_subject(&s);
    return status;
}
