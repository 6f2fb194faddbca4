/* candid bench: speed of prefill, decode and image encoding, one measurement per process; and what methods cost. */
#include <cJSON.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "api/handles.h"
#include "cli/bench_methods.h"
#include "cli/bench_searches.h"
#include "cli/cli.h"
#include "core/clock.h"

struct bench {
    struct run_options options; /* model, mmproj, threads, precision, kv */
    int prefill, decode, rows;
    bool encode, json;
    const char *methods;  /* configurations to compare with nothing, or NULL */
    const char *searches; /* searches to compare with greedy, or NULL */
    int rounds;
    double prefill_ms, decode_ms, encode_ms, decode_bytes;
};

static const char help[] =
    "Usage: candid bench [--model FILE] [--mmproj FILE] [--device NAME] [--threads N] [--precision exact|fast]\n"
    "                    [--prefill N] [--decode N] [--rows N] [--encode] [--json]\n\n"
    "Times a prefill of N random tokens (default 640), N decode steps after it (default 32) of --rows\n"
    "sequences at once (default 1), and with --encode one image. Prints GB/s of weights and KV cache read\n"
    "per decode step and the peak memory of the process.\n\n"
    "       candid bench --methods LIST [--rounds N] [--decode N] [--model FILE] …\n\n"
    "Times a LLaVA-1.5 prompt and N decode steps without and with each configuration, in turns: LIST is\n"
    "like \"pai,vhr,var.sink_dims=[0,1]+var.tau=3\". Prints the ratios of the medians.\n\n"
    "       candid bench --searches LIST [--prefill N] [--rounds N] [--decode N] [--model FILE] …\n\n"
    "Times N tokens of each search after a prompt of N tokens, against greedy search before and after it:\n"
    "LIST is like \"contrast,decode.beams=5,opera=true\"; contrast-N has N branches.\n";

static candid_status time_decoder(struct bench *b, candid_context *c, candid_error *error) {
    const struct llama_weights *w = &c->model->llama;
    const int n = b->prefill, max_rows = llama_max_rows(c->llama);
    struct forward_row *rows = calloc((size_t)(n > b->rows ? n : b->rows), sizeof *rows);
    float *logits = malloc((size_t)b->rows * (size_t)w->n_vocab * sizeof *logits);
    struct kv_seq **seqs = calloc((size_t)b->rows, sizeof *seqs);
    candid_status status = CANDID_ERROR_MEMORY;
    if (!rows || !logits || !seqs) {
        goto done;
    }
    status = kv_seq_create(c->kv, &seqs[0], error);
    uint32_t random = 12345;
    for (int i = 0; status == CANDID_OK && i < n; i++) {
        random = random * 1664525u + 1013904223u;
        rows[i] = (struct forward_row){.seq = seqs[0],
                                       .token = (int32_t)((random >> 8) % (uint32_t)w->n_vocab),
                                       .position = i,
                                       .want_logits = i == n - 1};
    }
    double start = clock_ms();
    for (int at = 0, count; status == CANDID_OK && at < n; at += count) {
        count = n - at < max_rows ? n - at : max_rows;
        status = llama_forward(c->llama, rows + at, count, NULL, logits, error);
    }
    b->prefill_ms = clock_ms() - start;
    for (int r = 1; status == CANDID_OK && r < b->rows; r++) {
        status = kv_fork(seqs[0], &seqs[r], error);
    }
    start = clock_ms();
    for (int step = 0; status == CANDID_OK && step < b->decode; step++) {
        for (int r = 0; r < b->rows; r++) {
            rows[r] = (struct forward_row){
                .seq = seqs[r], .token = (step + r) % w->n_vocab, .position = n + step, .want_logits = true};
        }
        status = llama_forward(c->llama, rows, b->rows, NULL, logits, error);
        b->decode_bytes +=
            (double)llama_weight_bytes(w) + (double)kv_block_bytes(c->kv) / KV_BLOCK * (n + step + 1) * b->rows;
    }
    b->decode_ms = clock_ms() - start;
done:
    for (int r = 0; seqs && r < b->rows; r++) {
        kv_seq_free(seqs[r]);
    }
    free(seqs);
    free(logits);
    free(rows);
    return status;
}

static candid_status time_encoder(struct bench *b, candid_context *c, candid_error *error) {
    const struct candid_model *m = c->model;
    const size_t side = (size_t)m->clip.image_size;
    struct clip *clip = NULL;
    void *tokens = NULL;
    float *pixels = calloc(3 * side * side, sizeof *pixels);
    candid_status status =
        pixels ? clip_create(&m->clip, m->llama.n_embd, c->backend, &clip, error) : CANDID_ERROR_MEMORY;
    if (status == CANDID_OK) {
        size_t bytes = (size_t)model_image_tokens(m) * (size_t)m->llama.n_embd * sizeof(float);
        status = c->backend->ops->alloc(c->backend, bytes, &tokens, error);
    }
    for (size_t i = 0; pixels && i < 3 * side * side; i++) {
        pixels[i] = (float)(i * 2654435761u % 1000) / 500.0f - 1.0f;
    }
    /* The first pass maps the file; the second is what every further image costs. */
    for (int pass = 0; status == CANDID_OK && pass < 2; pass++) {
        double start = clock_ms();
        status = clip_encode(clip, pixels, tokens, NULL, error);
        b->encode_ms = clock_ms() - start;
    }
    c->backend->ops->release(c->backend, tokens);
    clip_free(clip);
    free(pixels);
    return status;
}

static void report(const struct bench *b, const candid_model *model) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    candid_model_info info = {.struct_size = sizeof info};
    candid_model_get_info(model, &info, NULL);
    const double kv_mb =
        2.0 * info.n_layer * info.n_head_kv * model->llama.head_dim *
        (b->options.precision == CANDID_PRECISION_EXACT || b->options.kv_type == CANDID_KV_F32 ? 4 : 2) *
        (b->prefill + b->decode * b->rows) / 1e6;
    cJSON *out = cJSON_CreateObject();
    cJSON_AddStringToObject(out, "backend", info.backend);
    cJSON_AddNumberToObject(out, "prefill_tok_s", b->prefill_ms > 0 ? b->prefill / b->prefill_ms * 1e3 : 0);
    cJSON_AddNumberToObject(out, "decode_tok_s", b->decode_ms > 0 ? b->decode * b->rows / b->decode_ms * 1e3 : 0);
    cJSON_AddNumberToObject(out, "decode_gb_s", b->decode_ms > 0 ? b->decode_bytes / b->decode_ms * 1e-6 : 0);
    cJSON_AddNumberToObject(out, "encode_ms", b->encode_ms);
    cJSON_AddNumberToObject(out, "peak_rss_mb", (double)usage.ru_maxrss * 1024 / 1e6);
    cJSON_AddNumberToObject(out, "kv_mb", kv_mb);
    cJSON_AddNumberToObject(out, "file_mb", (double)info.file_bytes / 1e6);
    if (b->json) {
        char *text = cJSON_PrintUnformatted(out);
        puts(text ? text : "{}");
        cJSON_free(text);
    } else {
        for (const cJSON *item = out->child; item; item = item->next) {
            if (cJSON_IsString(item)) {
                printf("%-14s %s\n", item->string, item->valuestring);
            } else {
                printf("%-14s %.2f\n", item->string, item->valuedouble);
            }
        }
    }
    cJSON_Delete(out);
}

/* Prints one line per configuration, or the JSON array. */
static candid_status compare_methods(const struct bench *b, candid_context *c, candid_error *error) {
    cJSON *out = cJSON_CreateArray();
    const candid_status status = bench_methods(c, b->methods, b->rounds, b->decode, out, error);
    if (status == CANDID_OK && b->json) {
        char *text = cJSON_PrintUnformatted(out);
        puts(text ? text : "[]");
        cJSON_free(text);
    } else if (status == CANDID_OK) {
        puts("configuration                     prefill ms  ratio  (rows)  decode ms/token  ratio");
        for (const cJSON *one = out->child; one; one = one->next) {
            printf("%-32.32s %11.1f %6.3f %7.3f %16.3f %6.3f\n", cJSON_GetObjectItem(one, "config")->valuestring,
                   cJSON_GetObjectItem(one, "prefill_ms")->valuedouble,
                   cJSON_GetObjectItem(one, "prefill_ratio")->valuedouble,
                   cJSON_GetObjectItem(one, "prompt_rows_ratio")->valuedouble,
                   cJSON_GetObjectItem(one, "decode_ms_per_token")->valuedouble,
                   cJSON_GetObjectItem(one, "decode_ratio")->valuedouble);
        }
    }
    cJSON_Delete(out);
    return status;
}

static candid_status compare_searches(const struct bench *b, candid_context *c, candid_error *error) {
    cJSON *out = cJSON_CreateArray();
    const candid_status status = bench_searches(c, b->searches, b->prefill, b->rounds, b->decode, out, error);
    if (status == CANDID_OK && b->json) {
        char *text = cJSON_PrintUnformatted(out);
        puts(text ? text : "[]");
        cJSON_free(text);
    } else if (status == CANDID_OK) {
        puts("search                                    ms/token   greedy  ratio  rows/step  tokens  KV tokens");
        for (const cJSON *one = out->child; one; one = one->next) {
            printf("%-40.40s %9.2f %8.2f %6.3f %10.2f %7d %10.0f\n", cJSON_GetObjectItem(one, "search")->valuestring,
                   cJSON_GetObjectItem(one, "ms_per_token")->valuedouble,
                   cJSON_GetObjectItem(one, "greedy_ms_per_token")->valuedouble,
                   cJSON_GetObjectItem(one, "ratio")->valuedouble,
                   cJSON_GetObjectItem(one, "rows_per_step")->valuedouble, cJSON_GetObjectItem(one, "tokens")->valueint,
                   cJSON_GetObjectItem(one, "kv_tokens")->valuedouble);
        }
    }
    cJSON_Delete(out);
    return status;
}

static int run(struct bench *b) {
    candid_model *model = NULL;
    int code = open_model(&b->options, &model);
    if (code != EXIT_OK) {
        return code;
    }
    candid_context_params params = candid_context_params_default();
    params.kv_type = b->options.kv_type;
    candid_context *context = NULL;
    candid_error error = {.message = "out of memory"};
    candid_status status = candid_context_create(model, &params, &context, &error);
    if (status == CANDID_OK && b->encode && !model->has_vision) {
        complain("--encode: the model has no image encoder; give --mmproj");
        code = EXIT_USAGE;
    } else if (status == CANDID_OK && b->prefill + b->decode > context->n_ctx) {
        complain("expected --prefill plus --decode up to the context window of %d, found %d", context->n_ctx,
                 b->prefill + b->decode);
        code = EXIT_USAGE;
    } else {
        if (status == CANDID_OK && b->methods) {
            status = compare_methods(b, context, &error);
        } else if (status == CANDID_OK && b->searches) {
            status = compare_searches(b, context, &error);
        }
        if (b->methods || b->searches) {
            b->encode = false;
            b->prefill = 0;
        }
        if (status == CANDID_OK && b->encode) {
            status = time_encoder(b, context, &error);
        }
        if (status == CANDID_OK && b->prefill > 0) {
            status = time_decoder(b, context, &error);
        }
        if (status == CANDID_OK && !b->methods && !b->searches) {
            report(b, model);
        } else if (status != CANDID_OK) {
            complain("%s", error.message);
            code = EXIT_ITEM;
        }
    }
    candid_context_free(context);
    candid_model_free(model);
    return code;
}

int command_bench(int argc, char **argv) {
    enum {
        MODEL = 256,
        MMPROJ,
        DEVICE,
        THREADS,
        PRECISION,
        PREFILL,
        DECODE,
        ROWS,
        ENCODE,
        JSON,
        METHODS,
        SEARCHES,
        ROUNDS
    };
    static const struct option options[] = {
        {"model", required_argument, NULL, MODEL},
        {"mmproj", required_argument, NULL, MMPROJ},
        {"device", required_argument, NULL, DEVICE},
        {"threads", required_argument, NULL, THREADS},
        {"precision", required_argument, NULL, PRECISION},
        {"prefill", required_argument, NULL, PREFILL},
        {"decode", required_argument, NULL, DECODE},
        {"rows", required_argument, NULL, ROWS},
        {"encode", no_argument, NULL, ENCODE},
        {"json", no_argument, NULL, JSON},
        {"methods", required_argument, NULL, METHODS},
        {"searches", required_argument, NULL, SEARCHES},
        {"rounds", required_argument, NULL, ROUNDS},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    struct bench b = {.rounds = 3, .prefill = 640, .decode = 32, .rows = 1};
    int option;
    optind = 1;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (option) {
        case MODEL: b.options.model = optarg; break;
        case MMPROJ: b.options.mmproj = optarg; break;
        case DEVICE: b.options.device = optarg; break;
        case THREADS: b.options.n_threads = atoi(optarg); break;
        case PRECISION:
            b.options.precision = strcmp(optarg, "exact") == 0 ? CANDID_PRECISION_EXACT : CANDID_PRECISION_FAST;
            break;
        case PREFILL: b.prefill = atoi(optarg); break;
        case DECODE: b.decode = atoi(optarg); break;
        case ROWS: b.rows = atoi(optarg); break;
        case ENCODE: b.encode = true; break;
        case JSON: b.json = true; break;
        case METHODS: b.methods = optarg; break;
        case SEARCHES: b.searches = optarg; break;
        case ROUNDS: b.rounds = atoi(optarg); break;
        case 'h': fputs(help, stdout); return EXIT_OK;
        default: return EXIT_USAGE;
        }
    }
    b.prefill = b.methods ? 0 : b.prefill;
    if (b.prefill < 0 || b.decode < 0 || b.rows < 1 || b.rows > 64 || b.options.n_threads < 0 || b.rounds < 1 ||
        b.rounds > 32 || ((b.methods || b.searches) && b.decode < 1) || (b.searches && b.prefill < 16)) {
        complain("expected --prefill and --decode of 0 or more (--decode at least 1 with --methods and --searches, "
                 "--prefill at least 16 with --searches), --rows from 1 to 64, --rounds from "
                 "1 to 32");
        return EXIT_USAGE;
    }
    return run(&b);
}
