/*
 * What the host ABI costs: nanoseconds per layer of a decoding step at the shape of LLaVA-1.5-7B (32 heads over about
 * 700 keys), for a plugin without methods, and with VAR, PAI, VHR and all three. The host computes nothing: what is
 * timed is candid alone, on tensors that lie in the cache. Beside it stands one pass over the same attention row as it
 * would be copied, as a measure.
 *
 *   bench_plugin      prints one line per configuration, the median of several runs
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "candid/plugin.h"

enum { LAYERS = 32, HEADS = 32, DIM = 128, WIDTH = HEADS * DIM, WORDS = 32000 };
enum { BEFORE = 35, GRID = 24, IMAGE = GRID * GRID, AFTER = 29, PROMPT = BEFORE + IMAGE + AFTER, STEPS = 60, RUNS = 3 };
enum { KEYS = PROMPT + STEPS };

static candid_error error;

static void check(candid_status status) {
    if (status != CANDID_OK) {
        fprintf(stderr, "%s\n", error.message);
        exit(1);
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static float *random_floats(size_t n, float low) {
    float *x = malloc(n * sizeof *x);
    unsigned s = 1;
    if (!x) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    for (size_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = low + (1.0f - low) * (float)(s >> 8) / 16777216.0f;
    }
    return x;
}

static candid_view view(float *data, int n_dims, const int64_t *shape) {
    candid_view v = {.struct_size = sizeof v, .data = data, .n_dims = n_dims};
    for (int64_t i = n_dims - 1, stride = 1; i >= 0; stride *= shape[i--]) {
        v.shape[i] = shape[i];
        v.strides[i] = stride;
    }
    return v;
}

struct tensors {
    float *hidden, *attention; /* (KEYS, WIDTH), (HEADS, KEYS, KEYS) as they are shown; edits do not add up */
    const float *new_hidden, *new_attention;
};

/* One pass; only what is wanted is shown. Returns the time in candid, in ns. */
static double run_pass(candid_pass *pass, candid_sequence *sequence, candid_role role, int n_rows, int first,
                       const struct tensors *t) {
    uint8_t wanted[CANDID_SITE_COUNT][LAYERS + 1];
    const int n_keys = first + n_rows;
    const candid_segment segment = {.struct_size = sizeof segment,
                                    .sequence = sequence,
                                    .role = role,
                                    .n_rows = n_rows,
                                    .first_index = first,
                                    .n_keys = n_keys};
    const size_t n_hidden = (size_t)n_rows * WIDTH, n_attention = (size_t)HEADS * (size_t)n_rows * (size_t)n_keys;
    const candid_view rows = view(t->hidden, 3, (int64_t[]){1, n_rows, WIDTH});
    const candid_view attention = view(t->attention, 4, (int64_t[]){1, HEADS, n_rows, n_keys});
    double start = now(), taken;
    for (int site = 0; site < CANDID_SITE_COUNT; site++) {
        candid_sequence_wants(sequence, role, (candid_site)site,
                              first < PROMPT ? CANDID_ROWS_PROMPT : CANDID_ROWS_GENERATED, wanted[site]);
    }
    check(candid_pass_begin(pass, &segment, 1, &error));
    taken = now() - start;
    for (int l = 0; l < LAYERS; l++) {
        for (int site = 0; site < CANDID_SITE_FINAL_NORM; site++) {
            if (wanted[site][l]) {
                const bool attends = site == CANDID_SITE_ATTENTION_SCORES || site == CANDID_SITE_ATTENTION_PROBS;
                if (attends) {
                    memcpy(t->attention, t->new_attention, n_attention * sizeof(float));
                } else {
                    memcpy(t->hidden, t->new_hidden, n_hidden * sizeof(float));
                }
                start = now();
                check(candid_pass_at(pass, (candid_site)site, l, attends ? &attention : &rows, &error));
                taken += now() - start;
            }
        }
    }
    start = now();
    check(candid_pass_end(pass, &error));
    return taken + now() - start;
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n) {
    qsort(x, (size_t)n, sizeof *x, ascending);
    return x[n / 2];
}

/* A row of every head read and written once: what any edit of attention costs at least. */
static double copy_rows(const struct tensors *t) {
    static float copy[HEADS * KEYS];
    double times[RUNS * STEPS];
    for (int i = 0; i < RUNS * STEPS; i++) {
        const double start = now();
        memcpy(copy, t->attention, sizeof copy);
        __asm__ volatile("" : : "r"(copy) : "memory");
        memcpy(t->attention, copy, sizeof copy);
        __asm__ volatile("" : : "r"(t->attention) : "memory");
        times[i] = now() - start;
    }
    return median(times, RUNS * STEPS);
}

static void bench(const char *name, const char *json, const struct tensors *t) {
    candid_config *config = NULL;
    candid_plugin *plugin = NULL;
    candid_task *task = NULL;
    candid_pass *pass = NULL;
    candid_host host = candid_host_default();
    host.abilities = 0x1ffff;
    host.n_layer = LAYERS;
    host.n_head = host.n_head_kv = HEADS;
    host.head_dim = DIM;
    host.n_embd = WIDTH;
    host.n_vocab = WORDS;
    check(candid_config_parse(json, strlen(json), name, &config, &error));
    check(candid_plugin_create(&host, config, &plugin, &error));
    check(candid_task_create(plugin, "What is in the image?", 1, &task, &error));
    check(candid_pass_create(plugin, &pass, &error));
    const candid_span spans[] = {
        {.struct_size = sizeof *spans, .kind = CANDID_SPAN_TEXT, .n_tokens = BEFORE},
        {.struct_size = sizeof *spans, .kind = CANDID_SPAN_IMAGE, .n_tokens = IMAGE, .grid_h = GRID, .grid_w = GRID},
        {.struct_size = sizeof *spans, .kind = CANDID_SPAN_TEXT, .n_tokens = AFTER},
    };
    double prompts[RUNS], steps[RUNS * STEPS];
    for (int r = 0; r < RUNS; r++) {
        candid_sequence *sequence = NULL;
        candid_run run = {.struct_size = sizeof run};
        check(candid_sequence_create(task, -1, spans, 3, NULL, 0, &sequence, &error));
        check(candid_sequence_run(sequence, &run, &error));
        if (run.companions & 1u << CANDID_ROLE_TEXT_ONLY) {
            run_pass(pass, sequence, CANDID_ROLE_TEXT_ONLY, BEFORE + AFTER, 0, t);
        }
        prompts[r] = run_pass(pass, sequence, CANDID_ROLE_MAIN, PROMPT, 0, t);
        for (int i = 0; i < STEPS; i++) {
            steps[r * STEPS + i] = run_pass(pass, sequence, CANDID_ROLE_MAIN, 1, PROMPT + i, t);
        }
        candid_sequence_free(sequence);
    }
    printf("%-16s %10.0f ns per layer of a step %10.1f us per layer of the prompt\n", name,
           median(steps, RUNS * STEPS) / LAYERS, median(prompts, RUNS) / LAYERS / 1e3);
    candid_pass_free(pass);
    candid_task_free(task);
    candid_plugin_free(plugin);
    candid_config_free(config);
}

#define VAR                                                                                                            \
    "\"var\":{\"sink_dims\":[1415,2533],\"tau\":1.5,\"layers\":\"all\",\"exclude_last_layer\":false,\"summ\":0,"       \
    "\"rho\":1}"

int main(void) {
    const size_t n = (size_t)HEADS * KEYS * KEYS;
    float *hidden = random_floats((size_t)KEYS * WIDTH, -1.0f), *attention = random_floats(n, 0.0f);
    const struct tensors t = {random_floats((size_t)KEYS * WIDTH, -1.0f), random_floats(n, 0.0f), hidden, attention};
    printf("%-16s %10.0f ns per layer of a step\n", "copy and back", copy_rows(&t));
    bench("idle", "{}", &t);
    bench("pai", "{\"pai\":{\"layers\":\"all\",\"gamma\":1}}", &t);
    bench("var", "{" VAR "}", &t);
    bench("vhr", "{\"vhr\":{\"layers\":\"all\"}}", &t);
    bench("var, vhr, pai", "{" VAR ",\"vhr\":{\"layers\":\"all\"},\"pai\":{\"layers\":\"all\",\"gamma\":1}}", &t);
    free(t.hidden);
    free(t.attention);
    free(hidden);
    free(attention);
    return 0;
}
