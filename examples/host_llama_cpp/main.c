/*
 * A llama.cpp application that captions images with candid's methods: llama.cpp runs the language model, candid encodes
 * the images and looks after the answer.
 *
 *     host_llama_cpp --model LM.gguf --mmproj MM.gguf [--config FILE] [--set METHOD.OPTION=X] [--question TEXT]
 *                    [--threads N] [--tokens N] [--flash-attn] [--report] [--capabilities] IMAGE...
 *
 * One line per image: its name, a tab, the answer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <candid_llama_cpp.h>

struct app {
    const char *model_path, *mmproj_path, *question;
    int n_threads, n_tokens;
    bool flash, report, capabilities;
    candid_config *config;
    candid_error error;

    candid_model *vision; /* candid's view of the same files: image encoder, conversation template */
    candid_model_info info;
    candid_context *encoder;
    struct llama_model *model;
    struct llama_context *ctx;
    struct llama_sampler *chain;
    candid_llama *candid;
};

static void print_log(void *user_data, candid_log_level level, const char *message) {
    (void)user_data;
    if (level >= CANDID_LOG_WARN) {
        fprintf(stderr, "candid: %s\n", message);
    }
}

static void quiet(enum ggml_log_level level, const char *text, void *user_data) {
    (void)user_data;
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

/* ---- opening ----------------------------------------------------------------------------------- */

static candid_status failed(struct app *a, const char *what, const char *path) {
    snprintf(a->error.message, sizeof a->error.message, "%s %s", what, path);
    return a->error.status = CANDID_ERROR_IO;
}

static candid_status open_encoder(struct app *a) {
    candid_model_params params = candid_model_params_default();
    params.mmproj_path = a->mmproj_path;
    params.n_threads = a->n_threads;
    const candid_status status = candid_model_open(a->model_path, &params, &a->vision, &a->error);
    a->info.struct_size = sizeof a->info;
    if (status != CANDID_OK || candid_model_get_info(a->vision, &a->info, &a->error) != CANDID_OK) {
        return a->error.status;
    }
    return candid_context_create(a->vision, NULL, &a->encoder, &a->error);
}

static candid_status open_host(struct app *a) {
    struct llama_model_params model_params = llama_model_default_params();
    a->model = llama_model_load_from_file(a->model_path, model_params);
    if (!a->model) {
        return failed(a, "llama.cpp cannot load", a->model_path);
    }
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = 4096;
    params.n_batch = params.n_ubatch = 1024; /* a prompt with an image in one piece */
    params.n_threads = params.n_threads_batch = a->n_threads;
    params.flash_attn_type = a->flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_AUTO;
    const candid_llama_options options = {
        .struct_size = sizeof options, .n_vision_blocks = a->info.n_vision_blocks, .log = print_log};
    if (a->capabilities) {
        char *text;
        const candid_status status =
            candid_llama_capabilities(a->model, &params, a->config, &options, &text, &a->error);
        if (status == CANDID_OK) {
            puts(text);
            candid_string_free(text);
        }
        return status;
    }

    candid_status status = candid_llama_attach(a->model, &params, a->config, &options, &a->candid, &a->error);
    if (status != CANDID_OK) {
        return status;
    }
    a->ctx = llama_init_from_model(a->model, params);
    status = candid_llama_start(a->candid, a->ctx, &a->error);
    if (status == CANDID_OK) {
        a->chain = llama_sampler_chain_init(llama_sampler_chain_default_params());
        llama_sampler_chain_add(a->chain, candid_llama_sampler(a->candid));
        llama_sampler_chain_add(a->chain, llama_sampler_init_greedy());
    }
    return status;
}

/* ---- prompts ----------------------------------------------------------------------------------- */

/* The text of a template with the request in it. */
static char *render(const char *conversation, const char *request) {
    const char *place = strstr(conversation, "{prompt}");
    const size_t before = place ? (size_t)(place - conversation) : 0;
    const size_t size = strlen(conversation) + strlen(request) + 16;
    const bool has_image = strstr(conversation, "<image>") != NULL;
    char *text = malloc(size);
    if (text) {
        snprintf(text, size, "%.*s%s%s%s", (int)before, conversation, has_image ? "" : "<image>\n", request,
                 place ? place + strlen("{prompt}") : "");
    }
    return text;
}

static candid_llama_part tokenize(const struct app *a, const char *text, size_t size, bool first, llama_token *room,
                                  int capacity) {
    const int n = llama_tokenize(llama_model_get_vocab(a->model), text, (int)size, room, capacity, first, true);
    return (candid_llama_part){.struct_size = sizeof(candid_llama_part), .tokens = room, .n_tokens = n < 0 ? 0 : n};
}

#define MOST_TOKENS 2048

/* The prompt of one sequence: text before the image, the image, text behind it. */
static candid_status run_prompt(struct app *a, int branch, const char *conversation, const char *request) {
    char *text = render(conversation, request);
    llama_token *tokens = malloc(2 * MOST_TOKENS * sizeof *tokens);
    candid_status status = CANDID_ERROR_MEMORY;
    if (text && tokens) {
        const char *place = strstr(text, "<image>"), *rest = place + strlen("<image>");
        const candid_llama_part parts[] = {
            tokenize(a, text, (size_t)(place - text), true, tokens, MOST_TOKENS),
            {.struct_size = sizeof *parts, .image = 0},
            tokenize(a, rest, strlen(rest), false, tokens + MOST_TOKENS, MOST_TOKENS),
        };
        status = candid_llama_prompt(a->candid, branch, parts, 3, NULL, 0, &a->error);
    }
    free(text);
    free(tokens);
    return status;
}

/* "before after", or NULL; the caller frees it. */
static char *join(const char *before, const char *after) {
    const size_t size = strlen(before) + strlen(after) + 2;
    char *text = malloc(size);
    if (text) {
        snprintf(text, size, "%s %s", before, after);
    }
    return text;
}

/* Branches whose text differs from the question's. */
static candid_status run_branches(struct app *a, const char *conversation, const char *asked) {
    candid_task *task = candid_llama_task(a->candid);
    candid_needs needs = {.struct_size = sizeof needs};
    candid_status status = candid_task_needs(task, &needs, &a->error);
    for (int b = 0; b < needs.n_branches && status == CANDID_OK; b++) {
        candid_branch branch = {.struct_size = sizeof branch};
        status = candid_task_branch(task, b, &branch, &a->error);
        if (status != CANDID_OK || !(branch.request || branch.prefix || branch.system)) {
            continue;
        }
        const char *request = branch.request ? branch.request : asked, *roles = strstr(conversation, "USER:");
        char *longer = branch.prefix ? join(branch.prefix, request) : NULL;
        char *other = branch.system ? join(branch.system, roles ? roles : conversation) : NULL;
        status = run_prompt(a, b, other ? other : conversation, longer ? longer : request);
        free(longer);
        free(other);
    }
    return status;
}

/* ---- answers ----------------------------------------------------------------------------------- */

static candid_status answer(struct app *a) {
    const struct llama_vocab *vocab = llama_model_get_vocab(a->model);
    bool first = true;
    for (int i = 0; i < a->n_tokens; i++) {
        const llama_token token = llama_sampler_sample(a->chain, a->ctx, -1);
        if (llama_vocab_is_eog(vocab, token)) {
            break;
        }
        char piece[256];
        const int n = llama_token_to_piece(vocab, token, piece, sizeof piece, first ? 1 : 0, false);
        fwrite(piece, 1, n > 0 ? (size_t)n : 0, stdout);
        first = false;
        const candid_status status = candid_llama_step(a->candid, token, &a->error);
        if (status != CANDID_OK) {
            return status;
        }
    }
    putchar('\n');
    return CANDID_OK;
}

static candid_status caption(struct app *a, const char *path) {
    candid_image *image = NULL;
    const char *conversation =
        strstr(a->info.conversation, "{prompt}") ? a->info.conversation : "USER: <image>\n{prompt} ASSISTANT:";
    candid_status status = candid_image_load(path, &image, &a->error);
    if (status == CANDID_OK) {
        status = candid_llama_ask(a->candid, a->question, 1, &a->error);
    }
    if (status == CANDID_OK) {
        const candid_image *const images[] = {image};
        status = candid_llama_encode(a->candid, a->encoder, images, 1, NULL, &a->error);
    }
    if (status == CANDID_OK) {
        const char *asked = candid_task_request(candid_llama_task(a->candid));
        status = run_branches(a, conversation, asked);
        if (status == CANDID_OK) {
            status = run_prompt(a, -1, conversation, asked);
        }
    }
    if (status == CANDID_OK) {
        printf("%s\t", path);
        status = answer(a);
    }
    char *report = NULL;
    if (status == CANDID_OK && a->report && candid_llama_report(a->candid, &report, &a->error) == CANDID_OK) {
        fprintf(stderr, "%s\n", report);
        candid_string_free(report);
    }
    candid_image_free(image);
    return status;
}

/* ---- command line ------------------------------------------------------------------------------ */

static candid_status configure(struct app *a, const char *file, const char *assignment) {
    if (file) {
        candid_config_free(a->config);
        a->config = NULL;
        return candid_config_load(file, &a->config, &a->error);
    }
    candid_status status = a->config ? CANDID_OK : candid_config_parse("{}", 2, NULL, &a->config, &a->error);
    return status == CANDID_OK ? candid_config_set(a->config, assignment, &a->error) : status;
}

/* Returns the number of the first image, or 0. */
static int parse(struct app *a, int argc, char **argv) {
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        const char *key = argv[i];
        if (strcmp(key, "--flash-attn") == 0) {
            a->flash = true;
        } else if (strcmp(key, "--report") == 0) {
            a->report = true;
        } else if (strcmp(key, "--capabilities") == 0) {
            a->capabilities = true;
        } else if (i + 1 == argc) {
            return 0;
        } else if (strcmp(key, "--model") == 0) {
            a->model_path = argv[++i];
        } else if (strcmp(key, "--mmproj") == 0) {
            a->mmproj_path = argv[++i];
        } else if (strcmp(key, "--question") == 0) {
            a->question = argv[++i];
        } else if (strcmp(key, "--threads") == 0) {
            a->n_threads = atoi(argv[++i]);
        } else if (strcmp(key, "--tokens") == 0) {
            a->n_tokens = atoi(argv[++i]);
        } else if (strcmp(key, "--config") == 0 || strcmp(key, "--set") == 0) {
            const bool file = key[2] == 'c';
            i++;
            if (configure(a, file ? argv[i] : NULL, argv[i]) != CANDID_OK) {
                fprintf(stderr, "%s\n", a->error.message);
                return 0;
            }
        } else {
            return 0;
        }
    }
    return a->model_path && (i < argc || a->capabilities) ? i : 0;
}

int main(int argc, char **argv) {
    struct app a = {.question = "Please help me describe the image in detail.", .n_threads = 2, .n_tokens = 128};
    const int first = parse(&a, argc, argv);
    if (first == 0) {
        fprintf(stderr, "usage: %s --model LM.gguf --mmproj MM.gguf [options] IMAGE...\n", argv[0]);
        return 2;
    }
    llama_log_set(quiet, NULL);
    llama_backend_init();
    candid_status status = open_encoder(&a);
    if (status == CANDID_OK) {
        status = open_host(&a);
    }
    if (!a.capabilities) {
        for (int i = first; i < argc && status == CANDID_OK; i++) {
            status = caption(&a, argv[i]);
        }
    }
    if (status != CANDID_OK) {
        fprintf(stderr, "%s: %s\n", candid_status_name(status), a.error.message);
    }
    llama_sampler_free(a.chain);
    llama_free(a.ctx);
    candid_llama_free(a.candid);
    llama_model_free(a.model);
    candid_context_free(a.encoder);
    candid_model_free(a.vision);
    candid_config_free(a.config);
    llama_backend_free();
    return status == CANDID_OK ? 0 : 1;
}
