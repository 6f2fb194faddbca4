/*
 * candid verify: the self-check of a model on the user's machine. Opens it (which checks every shape), runs a built-in
 * image and a short text through the exact and the fast path, and compares what passes the sites.
 */
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/handles.h"
#include "cli/cli.h"
#include "cli/demo_model.h"
#include "core/status.h"
#include "lm/prompt.h"
#include "vision/decode.h"

#define IMAGE_WIDTH  220
#define IMAGE_HEIGHT 150
#define LEAST_COSINE 0.99

static const char help[] = "Usage: candid verify [MODEL] [--mmproj FILE|DIR] [--threads N]\n\n"
                           "Checks a model (GGUF file or Hugging Face directory; none: the embedded one) on this "
                           "machine: opens it, which checks\n"
                           "tensors, shapes and, for sharded weights, the total size; then runs a built-in image and a "
                           "short text through the\n"
                           "exact f32 path and the fast path and prints how near they are, layer by layer. The exact "
                           "path is slow: minutes for a\n"
                           "7B model. Exit code 0 when every cosine is at least 0.99.\n";

/* One activation as it passed a site. */
struct record {
    enum site site;
    int layer;
    size_t n;
    float *values;
};

/* What one path gave. */
struct trace {
    struct record *records;
    size_t count, capacity;
    bool out_of_memory;
};

static void trace_free(struct trace *t) {
    for (size_t i = 0; i < t->count; i++) {
        free(t->records[i].values);
    }
    free(t->records);
}

static void see(void *user_data, enum site site, int layer, const float *data, int n_rows, int n_cols) {
    struct trace *t = user_data;
    const size_t n = (size_t)n_rows * (size_t)n_cols;
    if (t->count == t->capacity) {
        const size_t capacity = 2 * t->capacity + 64;
        struct record *grown = realloc(t->records, capacity * sizeof *grown);
        t->out_of_memory |= !grown;
        t->records = grown ? grown : t->records;
        t->capacity = grown ? capacity : t->capacity;
    }
    float *values = t->out_of_memory ? NULL : malloc(n * sizeof *values);
    t->out_of_memory |= !values;
    if (values) {
        memcpy(values, data, n * sizeof *values);
        t->records[t->count++] = (struct record){site, layer, n, values};
    }
}

/* A picture with edges, gradients and colours. */
static candid_status built_in_image(candid_image **out, candid_error *error) {
    static uint8_t rgb[IMAGE_HEIGHT][IMAGE_WIDTH][3]; /* made anew each time, the same each time */
    for (int y = 0; y < IMAGE_HEIGHT; y++) {
        for (int x = 0; x < IMAGE_WIDTH; x++) {
            const int dx = x - 70, dy = y - 60;
            const bool disc = dx * dx + dy * dy<45 * 45, bar = x> 130 && x < 190 && y > 80;
            rgb[y][x][0] = (uint8_t)(disc ? 240 : bar ? 20 : x);
            rgb[y][x][1] = (uint8_t)(disc ? 60 : bar ? 90 : y + 60);
            rgb[y][x][2] = (uint8_t)(disc ? 30 : bar ? 210 : (x + y) / 2);
        }
    }
    return candid_image_from_rgb(&rgb[0][0][0], IMAGE_WIDTH, IMAGE_HEIGHT, (size_t)IMAGE_WIDTH * 3, out, error);
}

static candid_status run_image(const candid_model *m, struct backend *b, const struct observer *o,
                               candid_error *error) {
    struct visual *visual = NULL;
    candid_image *image = NULL;
    void *tokens = NULL;
    struct visual_plan plan;
    double load_ms = 0, encode_ms = 0;
    candid_status status;
    TRY_GOTO(built_in_image(&image, error), status, done);
    TRY_GOTO(visual_create(&m->clip, m->llama.n_embd, b, &visual, error), status, done);
    TRY_GOTO(visual_plan_make(&m->clip, CANDID_PREPROCESS_PAD, IMAGE_WIDTH, IMAGE_HEIGHT, &plan, error), status, done);
    TRY_GOTO(b->ops->alloc(b, (size_t)plan.span.n_tokens * (size_t)m->llama.n_embd * sizeof(float), &tokens, error),
             status, done);
    status = visual_encode(visual, image, &plan, tokens, o, &load_ms, &encode_ms, error);
done:
    b->ops->release(b, tokens);
    visual_free(visual);
    candid_image_free(image);
    return status;
}

static candid_status run_text(const candid_model *m, struct backend *b, const struct observer *o, candid_error *error) {
    struct token_list ids = {0};
    struct kv_cache *kv = NULL;
    struct kv_seq *seq = NULL;
    struct llama *llama = NULL;
    float *logits = malloc((size_t)m->llama.n_vocab * sizeof *logits);
    struct forward_row rows[32] = {0};
    static const char text[] = "USER: Please help me describe the image in detail. ASSISTANT:";
    const struct kv_shape shape = {m->llama.n_layer, m->llama.n_head_kv, m->llama.head_dim,
                                   m->precision == CANDID_PRECISION_EXACT};
    candid_status status = logits ? CANDID_OK : fail_memory(error, "logits", (size_t)m->llama.n_vocab * sizeof *logits);
    if (status == CANDID_OK) {
        status = tokenizer_encode(m->tokenizer, text, sizeof text - 1, true, true, &ids, error);
    }
    const int n = ids.count < 32 ? (int)ids.count : 32;
    if (status == CANDID_OK) {
        status = kv_cache_create(b, &shape, 64, &kv, error);
    }
    if (status == CANDID_OK) {
        status = kv_seq_create(kv, &seq, error);
    }
    if (status == CANDID_OK) {
        status = llama_create(&m->llama, b, 32, &llama, error);
    }
    for (int i = 0; i < n; i++) {
        rows[i] = (struct forward_row){.seq = seq, .token = ids.ids[i], .position = i, .want_logits = i == n - 1};
    }
    if (status == CANDID_OK) {
        status = llama_forward(llama, rows, n, o, logits, error);
    }
    llama_free(llama);
    kv_seq_free(seq);
    kv_cache_free(kv);
    token_list_free(&ids);
    free(logits);
    return status;
}

static int run_path(const struct run_options *o, candid_precision precision, struct trace *trace) {
    struct run_options options = *o;
    options.precision = precision;
    candid_model *m = NULL;
    int code = open_model(&options, &m);
    if (code != EXIT_OK) {
        return code;
    }
    const struct observer observer = {.mask = 1u << SITE_VISION_HIDDEN | 1u << SITE_VISUAL_TOKENS | 1u << SITE_HIDDEN |
                                              1u << SITE_LOGITS,
                                      .see = see,
                                      .cancelled = interrupt_requested,
                                      .user_data = trace};
    struct backend *b = NULL;
    candid_error error = {CANDID_OK, ""};
    candid_status status = device_backend(m->device, &b, &error);
    if (status == CANDID_OK && m->has_vision) {
        status = run_image(m, b, &observer, &error);
    }
    if (status == CANDID_OK) {
        status = run_text(m, b, &observer, &error);
    }
    if (status == CANDID_OK && trace->out_of_memory) {
        status = fail_memory(&error, "a trace of the model", 0);
    }
    if (status != CANDID_OK) {
        complain("%s", error.message);
        code = status == CANDID_ERROR_CANCELLED ? EXIT_INTERRUPTED : EXIT_MODEL;
    }
    backend_destroy(b);
    candid_model_free(m);
    return code;
}

/* Prints a line per record; true when all are near. */
static bool compare(const struct trace *exact, const struct trace *fast) {
    bool good = exact->count == fast->count && exact->count > 0;
    puts("site            layer   cosine       relative error");
    for (size_t r = 0; r < exact->count && r < fast->count; r++) {
        const struct record *a = &exact->records[r], *b = &fast->records[r];
        double ab = 0, aa = 0, bb = 0, dd = 0;
        for (size_t i = 0; i < a->n && a->n == b->n; i++) {
            const double x = a->values[i], y = b->values[i];
            ab += x * y;
            aa += x * x;
            bb += y * y;
            dd += (x - y) * (x - y);
        }
        const double cosine = ab / sqrt(aa * bb);
        good = good && cosine >= LEAST_COSINE; /* false for NaN too */
        char layer[16] = "";
        if (a->site == SITE_VISION_HIDDEN || a->site == SITE_HIDDEN) {
            snprintf(layer, sizeof layer, "%d", a->layer);
        }
        printf("%-14s %6s   %.8f   %.2e\n", site_name(a->site), layer, cosine, sqrt(dd / aa));
    }
    return good;
}

int command_verify(int argc, char **argv) {
    static const struct option long_options[] = {{"mmproj", required_argument, NULL, 'm'},
                                                 {"threads", required_argument, NULL, 't'},
                                                 {"help", no_argument, NULL, 'h'},
                                                 {NULL, 0, NULL, 0}};
    struct run_options o = {0};
    opterr = 0;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "h", long_options, NULL)) != -1;) {
        char *end = NULL;
        if (c == 'm') {
            o.mmproj = optarg;
        } else if (c == 't' && (o.n_threads = (int)strtol(optarg, &end, 10)) > 0 && *end == '\0') {
            continue;
        } else if (c == 'h') {
            fputs(help, stdout);
            return EXIT_OK;
        } else {
            complain("unknown or incomplete option \"%s\"; see candid verify --help", argv[optind - 1]);
            return EXIT_USAGE;
        }
    }
    if (argc - optind > 1) {
        complain("expected one model, found %d; see candid verify --help", argc - optind);
        return EXIT_USAGE;
    }
    o.model = argc > optind ? argv[optind] : NULL;
    interrupt_install();
    struct trace exact = {0}, fast = {0};
    int code = run_path(&o, CANDID_PRECISION_EXACT, &exact);
    code = code == EXIT_OK ? run_path(&o, CANDID_PRECISION_FAST, &fast) : code;
    if (code == EXIT_OK) {
        const bool good = compare(&exact, &fast);
        printf("JPEG images are decoded by %s\n%s\n", jpeg_decoder_name(),
               good ? "the fast path agrees with the exact one" : "the fast path is NOT near the exact one");
        code = good ? EXIT_OK : EXIT_ITEM;
    }
    trace_free(&exact);
    trace_free(&fast);
    return code;
}
