/*
 * Somebody else's runtime with candid's methods in it: how a program that has its own transformer uses
 * candid/plugin.h. It loads libcandid.so while it runs, so it needs candid's headers only.
 *
 *     cc -std=c11 dlopen_host.c $(pkg-config --cflags candid) -lm -ldl -o dlopen_host
 *     ./dlopen_host                    without candid
 *     ./dlopen_host libcandid.so       first without a method: the same numbers; then with VAR and with VHR
 *
 * The transformer is a toy of two layers with random weights, its "image" a grid of random tokens. What counts are the
 * places where candid is called: look for `show` and `candid_`.
 */
#include <candid/plugin.h>

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the functions of libcandid.so that are used here -------------------------------------------- */

/* clang-format off */
#define FUNCTIONS(F) \
    F(candid_abi_version) F(candid_status_name) F(candid_string_free) F(candid_config_parse) F(candid_config_free) \
    F(candid_plugin_create) F(candid_plugin_free) F(candid_task_create) F(candid_task_free) \
    F(candid_sequence_create) F(candid_sequence_free) F(candid_sequence_run) F(candid_sequence_wants) \
    F(candid_sequence_report) F(candid_pass_create) F(candid_pass_free) F(candid_pass_begin) F(candid_pass_at) \
    F(candid_pass_logits) F(candid_pass_end)
/* clang-format on */

#define POINTER(name) static __typeof__(name) *p_##name;
FUNCTIONS(POINTER)

static void *find(void *library, const char *name) {
    void *function = dlsym(library, name);
    if (!function) {
        fprintf(stderr, "libcandid.so has no %s\n", name);
        exit(1);
    }
    return function;
}

static void load_candid(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    /* ISO C has no conversion from void * to a function; POSIX says to copy the pointer. */
#define FIND(name) memcpy(&p_##name, &(void *){find(library, #name)}, sizeof p_##name);
    FUNCTIONS(FIND)
    if (p_candid_abi_version() < CANDID_ABI_VERSION) { /* a newer library still has all that this header declares */
        fprintf(stderr, "expected a candid of ABI version %d or later, found %u\n", CANDID_ABI_VERSION,
                (unsigned)p_candid_abi_version());
        exit(1);
    }
}

/* Every call that can fail gives a status and a sentence. */
static candid_error error;
static void check(candid_status status) {
    if (status != CANDID_OK) {
        fprintf(stderr, "%s: %s\n", p_candid_status_name(status), error.message);
        exit(1);
    }
}

/* ---- the host's model ---------------------------------------------------------------------------- */

enum { LAYERS = 2, HEADS = 4, DIM = 8, WIDTH = HEADS * DIM, WORDS = 48 };
enum { BEFORE = 3, GRID = 4, IMAGE = GRID * GRID, AFTER = 5, PROMPT = BEFORE + IMAGE + AFTER, NEW = 6 };
enum { MAX = PROMPT + NEW, SINK = 7, SINK_DIM = 5 };

static struct {
    float word[WORDS][WIDTH], place[MAX][WIDTH], image[IMAGE][WIDTH];
    float q[LAYERS][WIDTH][WIDTH], k[LAYERS][WIDTH][WIDTH], v[LAYERS][WIDTH][WIDTH], o[LAYERS][WIDTH][WIDTH];
    float mlp[LAYERS][WIDTH][WIDTH];
} w;

static void make_weights(void) {
    unsigned s = 1;
    float *all = &w.word[0][0];
    for (size_t i = 0; i < sizeof w / sizeof *all; i++) {
        s = s * 1664525u + 1013904223u;
        all[i] = ((float)(s >> 8) / 8388608.0f - 1.0f) * 0.6f;
    }
    w.image[SINK][SINK_DIM] = 9.0f; /* an attention sink: a token with a massive activation */
}

struct cache { /* keys and values of one sequence */
    float k[LAYERS][MAX][WIDTH], v[LAYERS][MAX][WIDTH];
    int n;
};

/* ---- what candid needs to know while the model runs ---------------------------------------------- */

static struct {
    candid_pass *pass;                             /* NULL: this pass runs without candid */
    uint8_t wanted[CANDID_SITE_COUNT][LAYERS + 1]; /* what must be shown */
    double moved[LAYERS];                          /* attention that changed hands, for the report below */
} c;

/* Shows a contiguous tensor of f32; candid measures and edits it in place. */
static void show(candid_site site, int layer, float *data, int n_dims, const int64_t shape[4]) {
    if (!c.pass || !c.wanted[site][layer]) {
        return;
    }
    candid_view view = {
        .struct_size = sizeof view, .data = data, .dtype = CANDID_F32, .space = CANDID_SPACE_HOST, .n_dims = n_dims};
    for (int64_t i = n_dims - 1, stride = 1; i >= 0; stride *= shape[i--]) {
        view.shape[i] = shape[i];
        view.strides[i] = stride;
    }
    check(site == CANDID_SITE_LOGITS ? p_candid_pass_logits(c.pass, &view, NULL, &error)
                                     : p_candid_pass_at(c.pass, site, layer, &view, &error));
}

/* ---- the host's forward pass --------------------------------------------------------------------- */

static void multiply(float *out, float (*matrix)[WIDTH], int n_out, const float *x) {
    for (int i = 0; i < n_out; i++) {
        out[i] = 0.0f;
        for (int j = 0; j < WIDTH; j++) {
            out[i] += matrix[i][j] * x[j];
        }
    }
}

static void normalise(float *out, const float *x) {
    float sum = 0.0f;
    for (int i = 0; i < WIDTH; i++) {
        sum += x[i] * x[i];
    }
    for (int i = 0; i < WIDTH; i++) {
        out[i] = x[i] / sqrtf(sum / WIDTH + 1e-6f);
    }
}

static void softmax(float *row, int n, int n_seen) {
    float sum = 0.0f;
    for (int i = 0; i < n; i++) {
        row[i] = i < n_seen ? expf(row[i]) : 0.0f;
        sum += row[i];
    }
    for (int i = 0; i < n; i++) {
        row[i] /= sum;
    }
}

/* Attention of one layer for n rows of x behind what is in the cache: heads (n, WIDTH). */
static void attend(struct cache *cache, int l, float (*x)[WIDTH], int n, float (*heads)[WIDTH]) {
    static float a[HEADS * MAX * MAX], before[HEADS * MAX * MAX]; /* (HEADS, n, n_keys) */
    float q[MAX][WIDTH], normed[WIDTH];
    const int n_keys = cache->n + n;
    for (int r = 0; r < n; r++) {
        normalise(normed, x[r]);
        multiply(q[r], w.q[l], WIDTH, normed);
        multiply(cache->k[l][cache->n + r], w.k[l], WIDTH, normed);
        multiply(cache->v[l][cache->n + r], w.v[l], WIDTH, normed);
    }
    for (int i = 0; i < HEADS * n * n_keys; i++) {
        const int h = i / (n * n_keys), r = i / n_keys % n, key = i % n_keys;
        a[i] = 0.0f;
        for (int d = h * DIM; d < (h + 1) * DIM; d++) {
            a[i] += q[r][d] * cache->k[l][key][d] / sqrtf(DIM);
        }
    }
    const int64_t shape[4] = {1, HEADS, n, n_keys};
    show(CANDID_SITE_ATTENTION_SCORES, l, a, 4, shape);
    for (int i = 0; i < HEADS * n; i++) {
        softmax(a + i * n_keys, n_keys, cache->n + i % n + 1);
    }
    memcpy(before, a, sizeof a);
    show(CANDID_SITE_ATTENTION_PROBS, l, a, 4, shape);
    for (int i = 0; i < HEADS * n * n_keys; i++) {
        c.moved[l] += fabs((double)a[i] - (double)before[i]) / 2;
    }
    memset(heads, 0, (size_t)n * sizeof *heads);
    for (int i = 0; i < HEADS * n * n_keys; i++) {
        const int h = i / (n * n_keys), r = i / n_keys % n, key = i % n_keys;
        for (int d = h * DIM; d < (h + 1) * DIM; d++) {
            heads[r][d] += a[i] * cache->v[l][key][d];
        }
    }
}

/* Runs n rows of embeddings and gives the logits of the last. */
static void forward(struct cache *cache, float (*x)[WIDTH], int n, float *logits) {
    float heads[MAX][WIDTH], mlp[MAX][WIDTH], projected[WIDTH], normed[WIDTH];
    const int64_t shape[4] = {1, n, WIDTH}; /* batch, rows, width */
    for (int l = 0; l < LAYERS; l++) {
        show(CANDID_SITE_BLOCK_INPUT, l, &x[0][0], 3, shape);
        attend(cache, l, x, n, heads);
        show(CANDID_SITE_HEAD_OUTPUT, l, &heads[0][0], 3, shape);
        for (int r = 0; r < n; r++) {
            multiply(projected, w.o[l], WIDTH, heads[r]);
            for (int i = 0; i < WIDTH; i++) {
                x[r][i] += projected[i];
            }
            normalise(normed, x[r]);
            multiply(mlp[r], w.mlp[l], WIDTH, normed);
        }
        show(CANDID_SITE_MLP_OUTPUT, l, &mlp[0][0], 3, shape);
        for (int i = 0; i < n * WIDTH; i++) {
            x[i / WIDTH][i % WIDTH] += tanhf(mlp[i / WIDTH][i % WIDTH]);
        }
        show(CANDID_SITE_BLOCK_OUTPUT, l, &x[0][0], 3, shape);
    }
    normalise(normed, x[n - 1]);
    show(CANDID_SITE_FINAL_NORM, LAYERS, normed, 3, (const int64_t[4]){1, 1, WIDTH}); /* the last row is enough */
    multiply(logits, w.word, WORDS, normed);
    show(CANDID_SITE_LOGITS, LAYERS, logits, 3, (const int64_t[4]){1, 1, WORDS});
    cache->n += n;
}

/* The same between candid_pass_begin and candid_pass_end: rows of one sequence, a batch of one. */
static void forward_with(candid_pass *pass, candid_sequence *sequence, candid_role role, uint32_t rows,
                         struct cache *cache, float (*x)[WIDTH], int n, float *logits) {
    if (!sequence) {
        forward(cache, x, n, logits);
        return;
    }
    for (int site = 0; site < CANDID_SITE_COUNT; site++) {
        p_candid_sequence_wants(sequence, role, (candid_site)site, rows, c.wanted[site]);
    }
    const candid_segment segment = {.struct_size = sizeof segment,
                                    .sequence = sequence,
                                    .role = role,
                                    .n_rows = n,
                                    .first_index = cache->n,
                                    .n_keys = cache->n + n}; /* key i is column i of attention */
    c.pass = pass;
    check(p_candid_pass_begin(pass, &segment, 1, &error));
    forward(cache, x, n, logits);
    check(p_candid_pass_end(pass, &error));
    c.pass = NULL;
}

/* ---- a prompt and its answer --------------------------------------------------------------------- */

/* The rows of the prompt, with or without the image; returns their number. */
static int embed_prompt(float (*x)[WIDTH], bool with_image) {
    int n = 0;
    for (int i = 0; i < PROMPT; i++) {
        const bool is_image = i >= BEFORE && i < BEFORE + IMAGE;
        for (int d = 0; d < WIDTH && (with_image || !is_image); d++) {
            x[n][d] = w.place[n][d] + (is_image ? w.image[i - BEFORE][d] : w.word[i % WORDS][d]);
        }
        n += with_image || !is_image;
    }
    return n;
}

/* Greedy decoding. sequence: NULL without candid. first: logits of the first token, [WORDS]. */
static void answer(candid_pass *pass, candid_sequence *sequence, float *first) {
    static struct cache cache, beside;
    float x[MAX][WIDTH], logits[WORDS];
    cache.n = beside.n = 0;
    memset(c.moved, 0, sizeof c.moved);
    candid_run run = {.struct_size = sizeof run};
    if (sequence) {
        check(p_candid_sequence_run(sequence, &run, &error));
    }
    if (run.companions & 1u << CANDID_ROLE_TEXT_ONLY) { /* VHR compares with the prompt's text alone */
        const int n = embed_prompt(x, false);
        forward_with(pass, sequence, CANDID_ROLE_TEXT_ONLY, CANDID_ROWS_PROMPT, &beside, x, n, logits);
    }
    const int n = embed_prompt(x, true); /* whole, as run.whole_prompt asks for */
    forward_with(pass, sequence, CANDID_ROLE_MAIN, CANDID_ROWS_PROMPT, &cache, x, n, logits);
    memcpy(first, logits, sizeof logits);
    for (int t = 0; t < NEW; t++) {
        int best = 0;
        for (int i = 1; i < WORDS; i++) {
            best = logits[i] > logits[best] ? i : best;
        }
        printf("  token %2d, logit %.6f\n", best, (double)logits[best]);
        for (int d = 0; d < WIDTH; d++) {
            x[0][d] = w.place[cache.n][d] + w.word[best][d];
        }
        if (t + 1 < NEW) {
            forward_with(pass, sequence, CANDID_ROLE_MAIN, CANDID_ROWS_GENERATED, &cache, x, 1, logits);
        }
    }
}

/* The same with the methods of a configuration. plain: the first logits without candid. */
static void answer_with(const char *json, const float *plain) {
    printf("with %s\n", json);
    candid_config *config = NULL;
    check(p_candid_config_parse(json, strlen(json), "a configuration", &config, &error));

    candid_host host = candid_host_default();
    host.host = "dlopen_host";
    host.abilities = CANDID_CAN_BLOCK_INPUT | CANDID_CAN_ATTENTION_SCORES | CANDID_CAN_ATTENTION_PROBS |
                     CANDID_CAN_HEAD_OUTPUT | CANDID_CAN_MLP_OUTPUT | CANDID_CAN_BLOCK_OUTPUT | CANDID_CAN_FINAL_NORM |
                     CANDID_CAN_LOGITS | CANDID_CAN_COMPANIONS;
    host.n_layer = LAYERS;
    host.n_head = host.n_head_kv = HEADS;
    host.head_dim = DIM;
    host.n_embd = WIDTH;
    host.n_vocab = WORDS;
    candid_plugin *plugin = NULL; /* one for the process */
    check(p_candid_plugin_create(&host, config, &plugin, &error));
    candid_pass *pass = NULL; /* one for each thread */
    check(p_candid_pass_create(plugin, &pass, &error));

    candid_task *task = NULL; /* one for each question */
    check(p_candid_task_create(plugin, "What is in the image?", 1, &task, &error));
    const candid_span spans[] = {
        {.struct_size = sizeof *spans, .kind = CANDID_SPAN_TEXT, .n_tokens = BEFORE},
        {.struct_size = sizeof *spans, .kind = CANDID_SPAN_IMAGE, .n_tokens = IMAGE, .grid_h = GRID, .grid_w = GRID},
        {.struct_size = sizeof *spans, .kind = CANDID_SPAN_TEXT, .n_tokens = AFTER},
    };
    candid_sequence *sequence = NULL;
    check(p_candid_sequence_create(task, -1, spans, 3, NULL, 0, &sequence, &error));

    float first[WORDS];
    answer(pass, sequence, first);

    double change = 0.0;
    for (int i = 0; i < WORDS; i++) {
        change = fmax(change, fabs((double)first[i] - (double)plain[i]));
    }
    printf("  largest difference of the first token's logits: %.6f\n", change);
    for (int l = 0; l < LAYERS; l++) {
        printf("  attention moved in layer %d: %.6f\n", l, c.moved[l]);
    }
    char *report = NULL; /* candid's own account: heads scaled, sinks found, … */
    check(p_candid_sequence_report(sequence, &report, &error));
    printf("  %s\n", report);

    p_candid_string_free(report);
    p_candid_sequence_free(sequence);
    p_candid_task_free(task);
    p_candid_pass_free(pass);
    p_candid_plugin_free(plugin);
    p_candid_config_free(config);
}

int main(int argc, char **argv) {
    float plain[WORDS];
    make_weights();
    printf("without candid\n");
    answer(NULL, NULL, plain);
    if (argc > 1) {
        load_candid(argv[1]);
        answer_with("{}", plain);
        /* The toy's sinks are known by its maker; for a real model: `candid calibrate sinks`. */
        answer_with("{\"var\": {\"sink_dims\": [5], \"tau\": 3, \"layers\": \"all\", \"exclude_last_layer\": false, "
                    "\"summ\": 0, \"rho\": 1}}",
                    plain);
        answer_with("{\"vhr\": {\"layers\": \"all\"}}", plain);
    }
    return 0;
}
