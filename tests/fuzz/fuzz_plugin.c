/*
 * libFuzzer target: the host ABI. The input is a program of calls on small tensors, most of them as a host makes them,
 * some with any values at all. Whatever is called, nothing may be read or written beyond what a host has shown, every
 * error has a sentence, and what is asked is answered by the same rules afterwards.
 */
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/plan_ops.h"
#include "candid/plugin.h"
#include "core/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MOST_ELEMENTS 65536
enum { MOST_SEGMENTS = 4, MOST_SEQUENCES = 3, MOST_CALLS = 200 };

static const char *const configs[] = {
    "{}",
    "{\"var\":{\"sink_dims\":[0,1],\"tau\":1,\"layers\":\"all\",\"exclude_last_layer\":false,\"summ\":0,\"rho\":1}}",
    "{\"vhr\":{\"layers\":\"all\",\"filter_guard\":0}}",
    "{\"pai\":{\"layers\":\"all\"},\"act\":{\"layers\":\"all\",\"threshold\":0.1}}",
    "{\"hgai\":{\"layers\":\"all\"},\"cca\":true,\"head_scale\":{\"heads\":[[0,0]]}}",
    "{\"vista\":{\"sla_layers\":\"0\"},\"mma\":true}",
    "{\"dola\":true,\"vista\":{\"site\":\"residual\",\"sla_layers\":\"0\"}}",
    "{\"vcd\":true,\"damro\":{\"tokens\":3},\"icd\":{\"first_token_only\":true}}",
    "{\"opera\":{\"candidates\":2,\"threshold\":1,\"rollback_min\":0},\"decode\":{\"beams\":2}}",
    "{\"paint\":{\"layers\":\"all\"},\"dola\":true,\"decode\":{\"branch_edits\":\"same\"}}",
    "{\"causalmm\":{\"vision\":\"off\",\"language\":\"shuffle\"},\"pai\":{\"layers\":\"all\",\"gamma\":1}}",
};

/* ---- backend ----------------------------------------------------------------------------------- */

/* The CPU's, as far as a host's tensors are edited with it. */
static void destroy(struct backend *b) {
    free(b);
}

static void download(struct backend *b, void *host, const void *device, size_t bytes) {
    memcpy(host, device, bytes);
}

static void copy(struct backend *b, void *to, const void *from, size_t bytes) {
    memcpy(to, from, bytes);
}

static void peaks(struct backend *b, float *out, const float *x, int n_rows, int n, const int *dims, int n_dims,
                  float eps) {
    cpu_peaks(out, x, n_rows, n, dims, n_dims, eps, 1);
}

static void scale_heads(struct backend *b, float *x, int n_rows, int n_head, int head_dim, const float *scale) {
    cpu_scale_heads(x, n_rows, n_head, head_dim, scale, 1);
}

static void steer(struct backend *b, float *x, int n_rows, int n, const float *v, float strength,
                  enum steer_mode mode) {
    cpu_steer(x, n_rows, n, v, strength, mode, 1);
}

static void mix(struct backend *b, float *out, float keep, const float *x, float add, size_t n) {
    cpu_mix(out, keep, x, add, n);
}

candid_status backend_cpu_create(candid_precision precision, int n_threads, const struct logger *log,
                                 struct backend **out, candid_error *error) {
    static const struct backend_ops ops = {.destroy = destroy,
                                           .download = download,
                                           .copy = copy,
                                           .peaks = peaks,
                                           .scale_heads = scale_heads,
                                           .steer = steer,
                                           .mix = mix};
    *out = calloc(1, sizeof **out);
    if (!*out) {
        return fail_memory(error, "a backend", sizeof **out);
    }
    (*out)->ops = &ops;
    return CANDID_OK;
}

/* ---- input ------------------------------------------------------------------------------------- */

struct input {
    const uint8_t *data;
    size_t size;
};

static int byte(struct input *in) {
    if (in->size == 0) {
        return 0;
    }
    in->size--;
    return *in->data++;
}

/* From 0 to n - 1. */
static int below(struct input *in, int n) {
    return n > 0 ? byte(in) % n : 0;
}

static bool rarely(struct input *in) {
    return byte(in) > 243;
}

static int32_t any32(struct input *in) {
    static const int32_t edges[] = {-1, 0, 1, INT32_MAX, INT32_MIN, 1 << 20, 1 << 24, 65536};
    return byte(in) & 1 ? edges[below(in, 8)] : (int32_t)(int8_t)byte(in);
}

/* The value a host would give, rarely another. */
static int32_t likely(struct input *in, int32_t value) {
    return rarely(in) ? any32(in) : value;
}

/* A tensor's values are drawn from one byte, or each comes from a byte of the input. */
struct numbers {
    struct input *in;
    uint32_t drawn;
    bool given;
};

static struct numbers numbers_of(struct input *in) {
    const int first = byte(in);
    return (struct numbers){in, (uint32_t)first * 2654435761u, first > 220};
}

static float number(struct numbers *n) {
    static const float edges[] = {0.0f, -0.0f, 1.0f, -1.0f, 3e38f, -3e38f, 1e-40f, 0.5f};
    static const uint32_t bits[] = {0x7fc00000u, 0x7f800000u, 0xff800000u, 0x7fc00000u}; /* NaN and infinities */
    n->drawn = n->drawn * 1664525u + 1013904223u;
    const int b = n->given ? byte(n->in) : (int)(n->drawn >> 24) % 220;
    if (b > 251) {
        float x;
        memcpy(&x, &bits[b & 3], sizeof x);
        return x;
    }
    return b > 240 ? edges[b & 7] : (float)(b - 100) / 64.0f;
}

/* ---- a host ------------------------------------------------------------------------------------ */

struct host {
    struct input *in;
    candid_host host;
    candid_config *config;
    candid_plugin *plugin;
    candid_task *task;
    candid_pass *pass;
    candid_sequence *sequences[MOST_SEQUENCES];
    int n_prompt[MOST_SEQUENCES], n_text[MOST_SEQUENCES];
    candid_search *search;
    int searched;       /* its sequence */
    int n_rows, n_keys; /* of the tensors of the pass */
    void *memory[8];    /* of this call */
    int n_memory;
    candid_error error;
};

static void check(struct host *h, candid_status status) {
    if (status != CANDID_OK && (h->error.status != status || strlen(h->error.message) < 8)) {
        abort(); /* an error without a sentence */
    }
}

static void *memory(struct host *h, size_t size) {
    void *p = malloc(size ? size : 1);
    if (!p || h->n_memory == 8) {
        abort();
    }
    memset(p, 0, size ? size : 1);
    return h->memory[h->n_memory++] = p;
}

static void forget(struct host *h) {
    while (h->n_memory > 0) {
        free(h->memory[--h->n_memory]);
    }
}

/* Elements behind the first, at most MOST_ELEMENTS, or -1 where the view is none. */
static int64_t extent(const candid_view *v) {
    int64_t last = 0;
    for (int i = 0; i < v->n_dims && i < 4; i++) {
        if (v->shape[i] < 1 || v->strides[i] < 0) {
            return -1;
        }
        last += (v->shape[i] - 1) * v->strides[i]; /* both below 2^31 */
        last = last < MOST_ELEMENTS ? last : MOST_ELEMENTS;
    }
    return v->n_dims < 0 || v->n_dims > 4 ? -1 : last;
}

/* A tensor of about this shape, with memory for exactly what it says it is. */
static candid_view tensor(struct host *h, int n_dims, const int64_t *shape) {
    struct input *in = h->in;
    candid_view v = {.struct_size = sizeof v, .n_dims = likely(in, n_dims)};
    int64_t stride = rarely(in) ? 2 : 1;
    for (int i = n_dims - 1; i >= 0; i--) {
        v.shape[i] = likely(in, (int32_t)shape[i]);
        v.strides[i] = rarely(in) ? any32(in) : stride;
        stride *= v.shape[i] > 0 && v.shape[i] < 4096 ? v.shape[i] : 1;
    }
    v.dtype = rarely(in) ? (candid_dtype)below(in, 5) : CANDID_F32;
    v.space = rarely(in) ? (candid_space)below(in, 3) : CANDID_SPACE_HOST;
    const int64_t n = extent(&v);
    if (n >= MOST_ELEMENTS || rarely(in)) {
        return v; /* data is NULL */
    }
    const bool wide = v.dtype == CANDID_F32 || v.dtype > CANDID_BF16;
    v.data = memory(h, (size_t)(n + 1) * (wide ? 4 : 2));
    struct numbers values = numbers_of(in);
    for (int64_t i = 0; i <= n && wide; i++) {
        ((float *)v.data)[i] = number(&values);
    }
    return v;
}

/* ---- calls ------------------------------------------------------------------------------------- */

static void make_sequence(struct host *h) {
    struct input *in = h->in;
    const int slot = below(in, MOST_SEQUENCES), n = 1 + below(in, 3);
    const size_t stride = rarely(in) ? 8 + 8 * (size_t)below(in, 6) : sizeof(candid_span);
    candid_branch branch = {.struct_size = sizeof branch};
    candid_needs needs = {.struct_size = sizeof needs};
    if (!h->task || h->search) {
        return; /* a search needs its sequence */
    }
    check(h, candid_task_needs(h->task, &needs, &h->error));
    const int32_t number_ = likely(in, below(in, needs.n_branches + 1) - 1);
    char *spans = memory(h, (size_t)n * (stride > sizeof(candid_span) ? stride : sizeof(candid_span)));
    int n_prompt = 0, n_text = 0;
    for (int i = 0; i < n; i++) {
        const bool image = i == n / 2 && byte(in) < 230;
        const int side = 1 + below(in, 3);
        candid_span span = {.struct_size = stride,
                            .kind = (candid_span_kind)likely(in, image),
                            .n_tokens = likely(in, image ? side * side : 1 + below(in, 5)),
                            .grid_h = likely(in, image ? side : 0),
                            .grid_w = likely(in, image ? side : 0)};
        memcpy(spans + (size_t)i * stride, &span, stride < sizeof span ? stride : sizeof span);
        const int n_tokens = span.n_tokens > 0 && span.n_tokens < 1000 ? span.n_tokens : 0;
        n_prompt += n_tokens;
        n_text += image ? 0 : n_tokens;
    }
    candid_view of_cls = tensor(h, 2, (int64_t[]){h->host.n_head, below(in, 10)});
    candid_tap taps[CANDID_MAX_TAPS];
    for (int i = 0; i < CANDID_MAX_TAPS; i++) {
        taps[i] = (candid_tap){.struct_size = sizeof *taps, .block = likely(in, needs.taps[i]), .of_cls = &of_cls};
    }
    candid_sequence *made = NULL;
    const candid_status status =
        candid_sequence_create(h->task, number_, (const candid_span *)(void *)spans, (size_t)n, taps,
                               (size_t)likely(in, needs.n_taps) % (CANDID_MAX_TAPS + 1), &made, &h->error);
    check(h, status);
    if (status == CANDID_OK) {
        candid_sequence_free(h->sequences[slot]);
        h->sequences[slot] = made;
        h->n_prompt[slot] = n_prompt;
        h->n_text[slot] = n_text;
        candid_pass_free(h->pass); /* no pass may be under way with what was freed */
        h->pass = NULL;
        check(h, candid_pass_create(h->plugin, &h->pass, &h->error));
    }
}

static void begin_pass(struct host *h) {
    struct input *in = h->in;
    const int n = 1 + below(in, MOST_SEGMENTS), packed = byte(in) & 1;
    candid_segment *segments = memory(h, (size_t)n * sizeof *segments);
    int32_t *columns = memory(h, 256 * sizeof *columns);
    h->n_rows = h->n_keys = 1;
    for (int i = 0, row = 0; i < n; i++) {
        const int slot = below(in, MOST_SEQUENCES), prompt = h->n_prompt[slot];
        const bool generated = byte(in) & 1;
        const int n_rows = generated ? 1 : prompt, first = generated ? prompt + below(in, 3) : 0;
        for (int k = 0; k < 256; k++) {
            columns[k] = rarely(in) ? any32(in) : k ^ 1;
        }
        segments[i] = (candid_segment){.struct_size = sizeof *segments,
                                       .sequence = h->sequences[slot],
                                       .role = (candid_role)(byte(in) > 200 ? below(in, 4) : 0),
                                       .batch = likely(in, packed ? 0 : i),
                                       .first_row = likely(in, packed ? row : 0),
                                       .n_rows = likely(in, n_rows) % 256,
                                       .first_index = likely(in, first),
                                       .n_keys = likely(in, first + n_rows) % 256,
                                       .key_offset = likely(in, 0),
                                       .key_columns = rarely(in) ? columns : NULL};
        row += n_rows;
        h->n_rows = packed ? row : n_rows > h->n_rows ? n_rows : h->n_rows;
        h->n_keys = first + n_rows + 1 > h->n_keys ? first + n_rows + 1 : h->n_keys;
    }
    check(h, candid_pass_begin(h->pass, segments, (size_t)n, &h->error));
}

static void show(struct host *h, candid_site site, int layer) {
    const bool attention = site == CANDID_SITE_ATTENTION_SCORES || site == CANDID_SITE_ATTENTION_PROBS;
    const int width = site == CANDID_SITE_HEAD_OUTPUT ? h->host.n_head * h->host.head_dim : h->host.n_embd;
    const candid_view v = attention ? tensor(h, 4, (int64_t[]){MOST_SEGMENTS, h->host.n_head, h->n_rows, h->n_keys})
                                    : tensor(h, 3, (int64_t[]){MOST_SEGMENTS, h->n_rows, width});
    check(h, candid_pass_at(h->pass, site, layer, &v, &h->error));
}

static void show_logits(struct host *h) {
    const int n_early = 1 + below(h->in, h->host.n_layer + 1);
    const candid_view v = tensor(h, 3, (int64_t[]){MOST_SEGMENTS, h->n_rows, h->host.n_vocab});
    const candid_view early = tensor(h, 4, (int64_t[]){MOST_SEGMENTS, h->n_rows, n_early, h->host.n_vocab});
    check(h, candid_pass_logits(h->pass, &v, rarely(h->in) ? NULL : &early, &h->error));
}

/* Everything of a pass that has begun, as it should be. */
static void finish_pass(struct host *h) {
    for (int l = 0; l < h->host.n_layer; l++) {
        for (int site = 0; site < CANDID_SITE_FINAL_NORM; site++) {
            forget(h);
            show(h, (candid_site)site, l);
        }
    }
    forget(h);
    show(h, CANDID_SITE_FINAL_NORM, h->host.n_layer);
    forget(h);
    show_logits(h);
    check(h, candid_pass_end(h->pass, &h->error));
}

/* n segments of a sequence beside each other, each n_rows from `first` on. */
static void run_rows(struct host *h, int slot, candid_role role, int n, int n_rows, int first) {
    candid_segment segments[8];
    n = n < 8 ? n : 8;
    for (int i = 0; i < n; i++) {
        segments[i] = (candid_segment){.struct_size = sizeof *segments,
                                       .sequence = h->sequences[slot],
                                       .role = role,
                                       .first_row = i * n_rows,
                                       .n_rows = n_rows,
                                       .first_index = first,
                                       .n_keys = first + n_rows};
    }
    h->n_rows = n * n_rows;
    h->n_keys = first + n_rows;
    check(h, candid_pass_begin(h->pass, segments, (size_t)n, &h->error));
    finish_pass(h);
}

/* A prompt with its companions. */
static void run_prompt(struct host *h) {
    const int slot = below(h->in, MOST_SEQUENCES);
    candid_run run = {.struct_size = sizeof run};
    if (!h->sequences[slot] || h->n_prompt[slot] == 0) {
        return;
    }
    check(h, candid_sequence_run(h->sequences[slot], &run, &h->error));
    for (int role = CANDID_ROLE_COUNT - 1; role >= 0; role--) {
        if (role == CANDID_ROLE_MAIN || (run.companions >> role & 1u)) {
            run_rows(h, slot, (candid_role)role, 1, role == CANDID_ROLE_TEXT_ONLY ? h->n_text[slot] : h->n_prompt[slot],
                     0);
        }
    }
}

/* One step of a search, as it should be. */
static void run_search(struct host *h) {
    candid_order order = {.struct_size = sizeof order, .n_beams = 1};
    int32_t beams[8];
    int n_left = 0;
    if (!h->search) {
        return;
    }
    for (int n = 1; n <= 2; n++) { /* one beam at first, then two */
        const candid_view logits = tensor(h, 2, (int64_t[]){n, h->host.n_vocab});
        check(h, candid_search_logits(h->search, &logits, &order, &h->error));
        forget(h);
    }
    if (order.n_candidates == 0) {
        return;
    }
    run_rows(h, h->searched, CANDID_ROLE_MAIN, order.n_beams * order.n_candidates, 1,
             h->n_prompt[h->searched] + order.n_tokens);
    check(h, candid_search_measured(h->search, &order, &h->error));
    forget(h);
    if (order.verb == CANDID_VERB_ROLLBACK) {
        const candid_view logits = tensor(h, 2, (int64_t[]){order.n_beams, h->host.n_vocab});
        check(h, candid_search_again(h->search, &logits, &order, &h->error));
        forget(h);
    }
    for (int i = 0; order.verb == CANDID_VERB_CONTINUE && order.candidates && i < order.n_beams && i < 8; i++) {
        if (order.candidates[i] < 0) {
            beams[n_left++] = i;
        }
    }
    if (n_left > 0) {
        run_rows(h, h->searched, CANDID_ROLE_MAIN, n_left, 1, h->n_prompt[h->searched] + order.n_tokens);
        check(h, candid_search_measured_beams(h->search, beams, (size_t)n_left, &h->error));
    }
}

static void ask_sequence(struct host *h) {
    struct input *in = h->in;
    const candid_sequence *s = h->sequences[below(in, MOST_SEQUENCES)];
    candid_run run = {.struct_size = rarely(in) ? (size_t)byte(in) % sizeof run : sizeof run};
    candid_reach reach = {.struct_size = sizeof reach};
    uint8_t *layers = memory(h, (size_t)h->host.n_layer + 1);
    char *text = NULL;
    if (!s) {
        return;
    }
    check(h, candid_sequence_run(s, &run, &h->error));
    candid_sequence_wants(s, (candid_role)likely(in, below(in, 3)), (candid_site)likely(in, below(in, 8)),
                          (uint32_t)byte(in), layers);
    check(h, candid_sequence_reach(s, (candid_role)likely(in, below(in, 3)), likely(in, byte(in)), &reach, &h->error));
    check(h, candid_sequence_report(s, &text, &h->error));
    candid_string_free(text);
}

static void ask_task(struct host *h) {
    struct input *in = h->in;
    candid_branch branch = {.struct_size = sizeof branch};
    candid_view views[3];
    const int32_t number_ = likely(in, below(in, 3));
    if (!h->task) {
        return;
    }
    const candid_status status = candid_task_branch(h->task, number_, &branch, &h->error);
    check(h, status);
    switch (below(in, 5)) {
    case 0:
        views[0] = tensor(h, 3, (int64_t[]){3, 2, 3});
        check(h, candid_task_noise(h->task, number_, likely(in, 0), likely(in, 0), &views[0], &h->error));
        break;
    case 1: {
        int32_t *index = memory(h, (size_t)(branch.n_chosen > 0 ? branch.n_chosen : 1) * sizeof *index), n = 0;
        views[0] = tensor(h, 1, (int64_t[]){4});
        views[1] = tensor(h, 2, (int64_t[]){5, 4});
        check(h, candid_task_choose(h->task, number_, &views[0], &views[1], index, &n, &h->error));
        break;
    }
    case 2: {
        const int grid_h = below(in, 5), grid_w = below(in, 5);
        int32_t *cells = memory(h, 16 * sizeof *cells), *positions = memory(h, 16 * sizeof *positions), n = 0;
        check(h, candid_task_place(h->task, grid_h, grid_w, cells, positions, &n, &h->error));
        break;
    }
    case 3: {
        char *text = NULL;
        check(h, candid_task_report(h->task, &text, &h->error));
        candid_string_free(text);
        break;
    }
    default: {
        const int64_t n_rows = 1 + below(in, 2);
        candid_view main = tensor(h, 2, (int64_t[]){n_rows, h->host.n_vocab});
        for (int i = 0; i < 3; i++) {
            views[i] = tensor(h, 2, (int64_t[]){n_rows, h->host.n_vocab});
        }
        check(h,
              candid_task_contrast(h->task, likely(in, below(in, 3)), &main, views, (size_t)below(in, 4), &h->error));
    }
    }
}

static void step_search(struct host *h) {
    struct input *in = h->in;
    const int32_t ends[] = {0, any32(in)};
    const candid_search_params params = {.struct_size = sizeof params,
                                         .n_prompt_ids = likely(in, 3),
                                         .max_new_tokens = likely(in, 3) % 64,
                                         .end_tokens = ends,
                                         .n_end_tokens = (size_t)below(in, 3)};
    candid_order order = {.struct_size = sizeof order};
    const int32_t beams[2] = {likely(in, 0), likely(in, 1)};
    int32_t ids[64];
    size_t n_ids = 0;
    float score;
    char *text = NULL;
    const candid_view logits = tensor(h, 2, (int64_t[]){1 + below(in, 2), h->host.n_vocab});
    const int slot = below(in, MOST_SEQUENCES);
    if (!h->search && h->task && h->sequences[slot]) {
        h->searched = slot;
        check(h, candid_search_create(h->task, h->sequences[slot], &params, &h->search, &h->error));
        return;
    }
    if (!h->search) {
        return;
    }
    switch (below(in, 6)) {
    case 0: check(h, candid_search_logits(h->search, &logits, &order, &h->error)); break;
    case 1: check(h, candid_search_measured(h->search, &order, &h->error)); break;
    case 2: check(h, candid_search_again(h->search, &logits, &order, &h->error)); break;
    case 3: check(h, candid_search_measured_beams(h->search, beams, (size_t)below(in, 3), &h->error)); break;
    case 4:
        check(h, candid_search_beam(h->search, likely(in, 0), ids, &h->error));
        check(h, candid_search_answer(h->search, likely(in, 0), ids, &n_ids, &score, &h->error));
        break;
    default: check(h, candid_search_report(h->search, &text, &h->error)); candid_string_free(text);
    }
}

static void make_task(struct host *h) {
    static const char *const requests[] = {"What is it?", "Isn't it a dog?", ""};
    if (!h->task) {
        check(h,
              candid_task_create(h->plugin, requests[below(h->in, 3)], (size_t)below(h->in, 3), &h->task, &h->error));
    }
}

static bool open_host(struct host *h) {
    struct input *in = h->in;
    const char *json = configs[below(in, sizeof configs / sizeof *configs)];
    h->host = candid_host_default();
    h->host.abilities = rarely(in) ? (uint32_t)any32(in) : 0x1ffff;
    h->host.n_layer = likely(in, 1 + below(in, 3));
    h->host.n_head = likely(in, 1 + below(in, 2));
    h->host.n_head_kv = likely(in, 1);
    h->host.head_dim = likely(in, 1 + below(in, 3));
    h->host.n_embd = likely(in, 2 + below(in, 4));
    h->host.n_vocab = likely(in, 2 + below(in, 8));
    h->host.n_vision_blocks = likely(in, 2);
    h->host.n_threads = 1;
    if (candid_config_parse(json, strlen(json), NULL, &h->config, &h->error) != CANDID_OK) {
        abort();
    }
    const candid_status status = candid_plugin_create(&h->host, h->config, &h->plugin, &h->error);
    check(h, status);
    char *text = NULL;
    check(h, candid_host_capabilities(&h->host, rarely(in) ? NULL : h->config, &text, &h->error));
    candid_string_free(text);
    if (status == CANDID_OK && (h->host.n_layer > 8 || h->host.n_head > 8 || h->host.head_dim > 64 ||
                                h->host.n_embd > 64 || h->host.n_vocab > 64)) {
        return false; /* tensors would be large */
    }
    return status == CANDID_OK && candid_pass_create(h->plugin, &h->pass, &h->error) == CANDID_OK;
}

static void call(struct host *h) {
    switch (below(h->in, 12)) {
    case 0: make_task(h); break;
    case 1: make_sequence(h); break;
    case 2: begin_pass(h); break;
    case 3: show(h, (candid_site)likely(h->in, below(h->in, 8)), likely(h->in, below(h->in, 4))); break;
    case 4: show_logits(h); break;
    case 5: check(h, candid_pass_end(h->pass, &h->error)); break;
    case 6: ask_sequence(h); break;
    case 7: ask_task(h); break;
    case 8: step_search(h); break;
    case 9: run_prompt(h); break;
    case 10: run_search(h); break;
    default:
        begin_pass(h);
        finish_pass(h);
        break;
    }
    forget(h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input in = {data, size};
    struct host h = {.in = &in};
    if (open_host(&h)) {
        make_task(&h);
        make_sequence(&h);
        forget(&h);
        for (int i = 0; i < MOST_CALLS && in.size > 0; i++) {
            call(&h);
        }
    }
    candid_search_free(h.search);
    for (int i = 0; i < MOST_SEQUENCES; i++) {
        candid_sequence_free(h.sequences[i]);
    }
    candid_pass_free(h.pass);
    candid_task_free(h.task);
    candid_plugin_free(h.plugin);
    candid_config_free(h.config);
    return 0;
}
