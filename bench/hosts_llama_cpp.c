/*
 * What candid's methods cost inside llama.cpp: contexts of one model with nothing, with the adapter attached and idle,
 * and with methods, stepping in turn in one process.
 *
 *   hosts_llama_cpp LM.gguf N_IMAGE STEPS THREADS idle|flash|CONFIG...
 *
 * idle: attached without methods; flash: the bare host with flash attention, which the others have not. The prompt is
 * random text, an image of N_IMAGE random vectors, and text. Prints a JSON object: by way of
 * running the median milliseconds of a step and its ratio to the bare host's, medians over the steps of ratios to the
 * bare step just before; and of the prompt.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "candid_llama_cpp.h"

#define MOST_WAYS 16

struct way {
    const char *name;
    candid_config *config;
    candid_llama *candid; /* NULL: the bare host */
    struct llama_context *ctx;
    llama_pos pos;
    double prompt_ms, *ms, *ratio;
};

/* The processor's time with one thread, so that a busy machine disturbs less; else the clock on the wall. */
static clockid_t which_clock = CLOCK_MONOTONIC;

static double now_ms(void) {
    struct timespec t;
    clock_gettime(which_clock, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n) {
    qsort(x, (size_t)n, sizeof *x, by_value);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static void die(const char *what, const candid_error *error) {
    fprintf(stderr, "hosts_llama_cpp: %s: %s\n", what, error ? error->message : "failed");
    exit(1);
}

static void quiet(enum ggml_log_level level, const char *text, void *user_data) {
    (void)user_data;
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

static unsigned random_state = 1;

static unsigned next_random(void) {
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

static void open_way(struct way *w, struct llama_model *model, int n_prompt, int steps, int threads,
                     const char *config) {
    candid_error error;
    struct llama_context_params p = llama_context_default_params();
    p.n_ctx = (uint32_t)(2 * n_prompt + 2 * steps + 256); /* a companion or branch, too */
    p.n_batch = p.n_ubatch = (uint32_t)n_prompt + 16;
    p.n_threads = p.n_threads_batch = threads;
    p.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED; /* as candid needs it: what that costs is told apart */
    w->name = config;
    w->ms = calloc((size_t)steps, sizeof *w->ms);
    w->ratio = calloc((size_t)steps, sizeof *w->ratio);
    if (strcmp(config, "flash") == 0) {
        p.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    } else if (strcmp(config, "bare") != 0) {
        const bool idle = strcmp(config, "idle") == 0;
        const candid_status status = idle ? candid_config_parse("{}", 2, NULL, &w->config, &error)
                                          : candid_config_load(config, &w->config, &error);
        const candid_llama_options options = {.struct_size = sizeof options};
        if (status != CANDID_OK ||
            candid_llama_attach(model, &p, w->config, &options, &w->candid, &error) != CANDID_OK) {
            die(config, &error);
        }
    }
    w->ctx = llama_init_from_model(model, p);
    if (!w->ctx || (w->candid && candid_llama_start(w->candid, w->ctx, &error) != CANDID_OK)) {
        die(config, w->ctx ? &error : NULL);
    }
}

/* Random rows as the bare host's prompt, the same as parts for candid. */
static void run_prompt(struct way *w, const candid_llama_part *parts, int n_embd) {
    candid_error error;
    const double start = now_ms();
    if (w->candid) {
        if (candid_llama_ask(w->candid, "What is in the image?", 1, &error) != CANDID_OK ||
            candid_llama_prompt(w->candid, -1, parts, 3, NULL, 0, &error) != CANDID_OK) {
            die(w->name, &error);
        }
    } else {
        for (int i = 0; i < 3; i++) {
            const int n = parts[i].n_tokens;
            struct llama_batch b = llama_batch_init(n, parts[i].embd ? n_embd : 0, 1);
            b.n_tokens = n;
            for (int k = 0; k < n; k++) {
                b.pos[k] = w->pos + k;
                b.n_seq_id[k] = 1;
                b.seq_id[k][0] = 0;
                b.logits[k] = i == 2 && k == n - 1;
                if (b.token) {
                    b.token[k] = parts[i].tokens[k];
                }
            }
            if (b.embd) {
                memcpy(b.embd, parts[i].embd, (size_t)n * (size_t)n_embd * sizeof(float));
            }
            if (llama_decode(w->ctx, b) != 0) {
                die(w->name, NULL);
            }
            w->pos += n;
            llama_batch_free(b);
        }
    }
    llama_synchronize(w->ctx);
    w->prompt_ms = now_ms() - start;
}

static double run_step(struct way *w, llama_token token) {
    candid_error error;
    const double start = now_ms();
    if (w->candid) {
        if (candid_llama_step(w->candid, token, &error) != CANDID_OK) {
            die(w->name, &error);
        }
    } else {
        llama_seq_id id = 0, *ids = &id;
        int32_t one = 1;
        int8_t yes = 1;
        struct llama_batch b = {
            .n_tokens = 1, .token = &token, .pos = &w->pos, .n_seq_id = &one, .seq_id = &ids, .logits = &yes};
        if (llama_decode(w->ctx, b) != 0) {
            die(w->name, NULL);
        }
        w->pos++;
    }
    llama_get_logits_ith(w->ctx, -1);
    return now_ms() - start;
}

int main(int argc, char **argv) {
    if (argc < 6 || argc - 5 + 2 > MOST_WAYS) {
        fprintf(stderr, "usage: %s LM.gguf N_IMAGE STEPS THREADS idle|flash|CONFIG...\n", argv[0]);
        return 2;
    }
    const int n_image = atoi(argv[2]), steps = atoi(argv[3]), threads = atoi(argv[4]),
              side = (int)lround(sqrt(n_image));
    which_clock = threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
    llama_log_set(quiet, NULL);
    llama_backend_init();
    struct llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) {
        die(argv[1], NULL);
    }
    const int n_embd = llama_model_n_embd(model), n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    llama_token text[32];
    float *image = malloc((size_t)n_image * (size_t)n_embd * sizeof *image);
    for (int i = 0; i < 32; i++) {
        text[i] = 300 + (int)(next_random() % (unsigned)(n_vocab - 310));
    }
    for (int i = 0; i < n_image * n_embd; i++) {
        image[i] = ((float)(next_random() % 2001) - 1000.0f) / 50000.0f;
    }
    const bool square = side * side == n_image;
    const candid_llama_part parts[] = {
        {.struct_size = sizeof *parts, .tokens = text, .n_tokens = 16},
        {.struct_size = sizeof *parts,
         .embd = image,
         .n_tokens = n_image,
         .grid_h = square ? side : 0,
         .grid_w = square ? side : 0},
        {.struct_size = sizeof *parts, .tokens = text + 16, .n_tokens = 16},
    };
    struct way ways[MOST_WAYS] = {{0}};
    const int n_ways = argc - 5 + 1;
    for (int i = 0; i < n_ways; i++) {
        open_way(&ways[i], model, n_image + 32, steps, threads, i == 0 ? "bare" : argv[4 + i]);
        run_prompt(&ways[i], parts, n_embd);
    }
    for (int s = 0; s < steps; s++) {
        const llama_token token = 300 + (int)(next_random() % (unsigned)(n_vocab - 310));
        for (int i = 1; i < n_ways; i++) { /* a bare step before each other one, of the same token */
            if (i > 1) {
                llama_memory_seq_rm(llama_get_memory(ways[0].ctx), 0, --ways[0].pos, -1);
            }
            ways[0].ms[s] = run_step(&ways[0], token);
            ways[i].ms[s] = run_step(&ways[i], token);
            ways[i].ratio[s] = ways[i].ms[s] / ways[0].ms[s];
        }
        ways[0].ratio[s] = 1.0;
    }
    printf("{\"host\": \"llama.cpp %s\", \"image_tokens\": %d, \"steps\": %d, \"threads\": %d", llama_version(),
           n_image, steps, threads);
    for (int i = 0; i < n_ways; i++) {
        printf(",\n \"%s\": {\"prompt_ms\": %.2f, \"step_ms\": %.4f, \"ratio\": %.4f}", ways[i].name, ways[i].prompt_ms,
               median(ways[i].ms, steps), median(ways[i].ratio, steps));
    }
    printf("}\n");
    for (int i = 0; i < n_ways; i++) {
        llama_free(ways[i].ctx);
        candid_llama_free(ways[i].candid);
        candid_config_free(ways[i].config);
        free(ways[i].ms);
        free(ways[i].ratio);
    }
    free(image);
    llama_model_free(model);
    llama_backend_free();
    return 0;
}
