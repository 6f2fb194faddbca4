/*
 * Do llama.cpp with candid's methods and candid's own runtime compute the same?
 *
 *   llama_cpp_agree LM.gguf MMPROJ.gguf RECORDED [options] IMAGE...
 *     --config FILE   --question TEXT   --tolerance T   --kv f16   --flash-attn   --ubatch N   --hole   --report
 *
 * RECORDED: what record_logits wrote with the same question, configuration and images. llama.cpp gets candid's prompt,
 * the visual tokens of candid's exact path and candid's answer, and its logits of every step are compared with those
 * that candid chose from, contrasts included. Prints steps, the largest absolute and relative (L2) difference and how
 * many answers are token for token what llama.cpp would have chosen. Fails where a relative difference exceeds
 * --tolerance.
 * --hole: the cache's cells are not in order.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "candid_llama_cpp.h"

struct options {
    const char *lm, *mmproj, *recorded, *question;
    candid_config *config;
    int n_ubatch;
    double tolerance;
    bool f16, flash, hole, report;
};

struct run {
    struct options o;
    candid_error error;
    candid_model *model;
    candid_context *context;
    FILE *file;
    struct llama_model *host_model;
    struct llama_context *host;
    candid_llama *candid;
    int n_vocab;
    int64_t steps, same_steps;
    int images, same_captions;
    double max_abs, max_rel;
};

#define CHECK(call)                                                                                                    \
    do {                                                                                                               \
        const candid_status check_status = (call);                                                                     \
        if (check_status != CANDID_OK) {                                                                               \
            return check_status;                                                                                       \
        }                                                                                                              \
    } while (0)

/* ---- the host ---------------------------------------------------------------------------------- */

static void quiet(enum ggml_log_level level, const char *text, void *user_data) {
    (void)user_data;
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

/* Leaves cells of another sequence amid those that come, so that keys are not in the order of cells. */
static void make_hole(struct llama_context *ctx) {
    struct llama_batch batch = llama_batch_init(40, 0, 1);
    for (int i = 0; i < 40; i++) {
        batch.token[i] = 5;
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 0;
    }
    batch.n_tokens = 40;
    llama_decode(ctx, batch);
    llama_memory_seq_rm(llama_get_memory(ctx), 0, 10, 25); /* 15 free cells between used ones … */
    llama_memory_seq_cp(llama_get_memory(ctx), 0, 1, -1, -1);
    llama_memory_seq_rm(llama_get_memory(ctx), 0, -1, -1); /* … which are another sequence's */
    llama_batch_free(batch);
}

static candid_status open_all(struct run *r) {
    candid_model_params params = candid_model_params_default();
    params.mmproj_path = r->o.mmproj;
    params.precision = CANDID_PRECISION_EXACT;
    CHECK(candid_model_open(r->o.lm, &params, &r->model, &r->error));
    candid_context_params context = candid_context_params_default();
    context.kv_type = r->o.f16 ? CANDID_KV_F16 : CANDID_KV_F32;
    CHECK(candid_context_create(r->model, &context, &r->context, &r->error));

    struct llama_context_params p = llama_context_default_params();
    r->host_model = llama_model_load_from_file(r->o.lm, llama_model_default_params());
    if (!r->host_model) {
        return CANDID_ERROR_IO;
    }
    p.n_ctx = 2048;
    p.n_batch = p.n_ubatch = (uint32_t)r->o.n_ubatch;
    p.n_seq_max = 2;
    p.n_threads = p.n_threads_batch = 1; /* threads that wait for each other are slow on a busy machine */
    p.type_k = p.type_v = r->o.f16 ? GGML_TYPE_F16 : GGML_TYPE_F32;
    p.kv_unified = true;
    p.flash_attn_type = r->o.flash ? LLAMA_FLASH_ATTN_TYPE_AUTO : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    candid_model_info info = {.struct_size = sizeof info};
    CHECK(candid_model_get_info(r->model, &info, &r->error));
    const candid_llama_options options = {.struct_size = sizeof options, .n_vision_blocks = info.n_vision_blocks};
    CHECK(candid_llama_attach(r->host_model, &p, r->o.config, &options, &r->candid, &r->error));
    r->host = llama_init_from_model(r->host_model, p);
    CHECK(candid_llama_start(r->candid, r->host, &r->error));
    if (r->o.hole) {
        make_hole(r->host);
    }
    r->n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(r->host_model));
    return CANDID_OK;
}

static candid_status get(struct run *r, void *out, size_t size, size_t n) {
    if (fread(out, size, n, r->file) != n) {
        snprintf(r->error.message, sizeof r->error.message, "%s ends too early", r->o.recorded);
        return CANDID_ERROR_FORMAT;
    }
    return CANDID_OK;
}

#define MOST_CHUNKS 16
#define MOST_TOKENS 4096

/* One recorded prompt as parts. */
static candid_status run_prompt(struct run *r, int branch) {
    candid_llama_part parts[MOST_CHUNKS];
    static llama_token tokens[MOST_CHUNKS][MOST_TOKENS];
    int32_t n, head[2];
    CHECK(get(r, &n, sizeof n, 1));
    for (int32_t i = 0; i < n && i < MOST_CHUNKS; i++) {
        CHECK(get(r, head, sizeof *head, 2));
        CHECK(get(r, tokens[i], sizeof *tokens[i], (size_t)(head[1] < MOST_TOKENS ? head[1] : MOST_TOKENS)));
        parts[i] = (candid_llama_part){.struct_size = sizeof *parts};
        if (head[0] >= 0) {
            parts[i].image = head[0];
        } else {
            parts[i].tokens = tokens[i];
            parts[i].n_tokens = head[1];
        }
    }
    return candid_llama_prompt(r->candid, branch, parts, (size_t)n, NULL, 0, &r->error);
}

/* The prompts: recorded with the main one first, run with it last. */
static candid_status ask_host(struct run *r, const candid_image *image, int32_t head[3]) {
    CHECK(get(r, head, sizeof *head, 3));
    CHECK(candid_llama_ask(r->candid, r->o.question, 1, &r->error));
    CHECK(candid_llama_encode(r->candid, r->context, &image, 1, NULL, &r->error));
    const long main = ftell(r->file);
    int32_t n, chunk[2];
    CHECK(get(r, &n, sizeof n, 1));
    for (int32_t i = 0; i < n; i++) {
        CHECK(get(r, chunk, sizeof *chunk, 2));
        fseek(r->file, chunk[1] * (long)sizeof(int32_t), SEEK_CUR);
    }
    for (int b = 0; b < head[0]; b++) {
        CHECK(run_prompt(r, b));
    }
    const long end = ftell(r->file);
    fseek(r->file, main, SEEK_SET);
    CHECK(run_prompt(r, -1));
    if (head[0] > 0) {
        fseek(r->file, end, SEEK_SET);
    }
    return CANDID_OK;
}

static int argmax(const float *x, int n) {
    int best = 0;
    for (int i = 1; i < n; i++) {
        best = x[i] > x[best] ? i : best;
    }
    return best;
}

/* Compares one step's logits; returns whether the same token is likeliest. */
static bool compare(struct run *r, const float *own, const float *host) {
    double difference = 0, norm = 0;
    for (int i = 0; i < r->n_vocab; i++) {
        if (isinf(own[i]) || isinf(host[i])) { /* cut off by a contrast */
            difference += own[i] == host[i] ? 0.0 : INFINITY;
            continue;
        }
        const double d = fabs((double)own[i] - (double)host[i]);
        r->max_abs = d > r->max_abs ? d : r->max_abs;
        difference += d * d;
        norm += (double)own[i] * (double)own[i];
    }
    const double rel = sqrt(difference / (norm > 0 ? norm : 1));
    r->max_rel = rel > r->max_rel || isnan(rel) ? rel : r->max_rel;
    const bool same = argmax(own, r->n_vocab) == argmax(host, r->n_vocab);
    r->steps++;
    r->same_steps += same;
    return same;
}

static candid_status follow(struct run *r, const int32_t *tokens, size_t n, float *own, float *host) {
    const size_t bytes = (size_t)r->n_vocab * sizeof *own;
    bool same = true;
    for (size_t i = 0; i < n; i++) {
        CHECK(get(r, own, sizeof *own, (size_t)r->n_vocab));
        memcpy(host, llama_get_logits_ith(r->host, -1), bytes);
        CHECK(candid_llama_contrast(r->candid, host, &r->error));
        same = compare(r, own, host) && same;
        if (i + 1 < n) {
            CHECK(candid_llama_step(r->candid, tokens[i], &r->error));
        }
    }
    r->same_captions += same;
    return CANDID_OK;
}

static candid_status one_image(struct run *r, const candid_image *image) {
    int32_t head[3], *tokens = NULL; /* branches, n_vocab, steps */
    float *logits = NULL;
    candid_status status = ask_host(r, image, head);
    if (status == CANDID_OK && head[1] != r->n_vocab) {
        status = CANDID_ERROR_FORMAT;
    }
    if (status == CANDID_OK) {
        tokens = malloc((size_t)head[2] * sizeof *tokens);
        logits = malloc(2 * (size_t)r->n_vocab * sizeof *logits);
        status = get(r, tokens, sizeof *tokens, (size_t)head[2]);
    }
    if (status == CANDID_OK) {
        status = follow(r, tokens, (size_t)head[2], logits, logits + r->n_vocab);
    }
    char *report = NULL;
    if (status == CANDID_OK && r->o.report && candid_llama_report(r->candid, &report, &r->error) == CANDID_OK) {
        printf("%s\n", report);
        candid_string_free(report);
    }
    free(tokens);
    free(logits);
    r->images++;
    return status;
}

/* ---- command line ------------------------------------------------------------------------------ */

static bool parse(struct run *r, int argc, char **argv, int *first) {
    struct options *o = &r->o;
    *o = (struct options){
        .question = "Please help me describe the image in detail.", .n_ubatch = 512, .tolerance = INFINITY};
    int i = 4;
    for (; i < argc && argv[i][0] == '-'; i++) {
        const char *key = argv[i];
        if (strcmp(key, "--flash-attn") == 0) {
            o->flash = true;
        } else if (strcmp(key, "--hole") == 0) {
            o->hole = true;
        } else if (strcmp(key, "--report") == 0) {
            o->report = true;
        } else if (i + 1 == argc) {
            return false;
        } else if (strcmp(key, "--kv") == 0) {
            o->f16 = strcmp(argv[++i], "f16") == 0;
        } else if (strcmp(key, "--question") == 0) {
            o->question = argv[++i];
        } else if (strcmp(key, "--ubatch") == 0) {
            o->n_ubatch = atoi(argv[++i]);
        } else if (strcmp(key, "--tolerance") == 0) {
            o->tolerance = atof(argv[++i]);
        } else if (strcmp(key, "--config") == 0) {
            if (candid_config_load(argv[++i], &o->config, &r->error) != CANDID_OK) {
                return false;
            }
        } else {
            return false;
        }
    }
    *first = i;
    if (i >= argc) {
        return false;
    }
    o->lm = argv[1];
    o->mmproj = argv[2];
    o->recorded = argv[3];
    r->file = fopen(o->recorded, "rb");
    return r->file != NULL;
}

int main(int argc, char **argv) {
    struct run r = {0};
    int first;
    if (!parse(&r, argc, argv, &first)) {
        fprintf(stderr, "usage: %s LM.gguf MMPROJ.gguf RECORDED [options] IMAGE... %s\n", argv[0], r.error.message);
        return 2;
    }
    llama_log_set(quiet, NULL);
    llama_backend_init();
    candid_status status = open_all(&r);
    for (int i = first; i < argc && status == CANDID_OK; i++) {
        candid_image *image = NULL;
        status = candid_image_load(argv[i], &image, &r.error);
        status = status == CANDID_OK ? one_image(&r, image) : status;
        candid_image_free(image);
    }
    if (status != CANDID_OK) {
        fprintf(stderr, "%s: %s\n", candid_status_name(status), r.error.message);
    } else {
        printf("images %d, steps %lld, max abs %.3g, max rel %.3g, same token %lld/%lld, same answer %d/%d\n", r.images,
               (long long)r.steps, r.max_abs, r.max_rel, (long long)r.same_steps, (long long)r.steps, r.same_captions,
               r.images);
    }
    const bool agrees = r.max_rel <= r.o.tolerance; /* false for NaN */
    llama_free(r.host);
    candid_llama_free(r.candid);
    llama_model_free(r.host_model);
    candid_context_free(r.context);
    candid_model_free(r.model);
    candid_config_free(r.o.config);
    fclose(r.file);
    return status != CANDID_OK ? 1 : agrees ? 0 : 3;
}
