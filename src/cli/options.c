/* Options of the commands that run a model. */
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

const char options_help[] =
    "Model:\n"
    "  --model FILE|DIR        GGUF language model, with or without its image encoder; or a Hugging Face directory\n"
    "  --mmproj FILE|DIR       GGUF image encoder and projector; with a directory of the original LLaVA: its CLIP\n"
    "  --device NAME           auto (default: the CPU, see docs/gpu.md), cpu, cuda, cuda:1\n"
    "  --precision exact|fast  f32 reference arithmetic, or the fast kernels (default)\n"
    "  --threads N             default: every core this process may use\n"
    "  --ctx N                 context window in tokens (default: the model's)\n"
    "  --kv f16|f32            element type of the KV cache (default f16; f32 with exact)\n"
    "Prompt:\n"
    "  --template NAME|TEXT    vicuna_v1, llava_v1, llava_hf, mistral_instruct, plain, or text with {prompt}\n"
    "                          (default: the model's own, else vicuna_v1)\n"
    "  --preprocess MODE       auto: the model's own (default); pad: original LLaVA-1.5; crop: Hugging Face;\n"
    "                          anyres: LLaVA-NeXT\n"
    "  --together              put all images into one prompt\n"
    "Generation:\n"
    "  --max-new-tokens N      default 512, or what is left of the context\n"
    "  --temperature X         0 (default): greedy\n"
    "  --top-k N, --top-p X    keep the N likeliest, or a share X of the probability\n"
    "  --repetition-penalty X  default 1: off\n"
    "  --seed N                of the sampler, default 0\n"
    "  --beams N               beam search; short for --set decode.beams=N\n"
    "  --answers N             the N best of a beam search, or N samples; short for --set decode.answers=N\n"
    "  --stop TEXT             end the answer at TEXT (may be repeated)\n"
    "Mitigation (see candid methods):\n"
    "  --config FILE           switch methods on by a JSON file, such as configs/vhr.json\n"
    "  --set METHOD.OPTION=X   change one option, after the file (may be repeated); METHOD=true switches one on\n"
    "Output:\n"
    "  --jsonl FILE            append one JSON object per image, as each is done (- for stdout)\n"
    "  --resume                with --jsonl: skip the images FILE already holds\n"
    "  --json FILE             write one JSON array at the end\n"
    "  -v, --verbose           say which kernels run, print a speed line per image\n"
    "  -h, --help\n";

enum {
    OPT_MODEL = 256,
    OPT_MMPROJ,
    OPT_DEVICE,
    OPT_PRECISION,
    OPT_THREADS,
    OPT_CTX,
    OPT_KV,
    OPT_TEMPLATE,
    OPT_PREPROCESS,
    OPT_TOGETHER,
    OPT_MAX_NEW_TOKENS,
    OPT_TEMPERATURE,
    OPT_TOP_K,
    OPT_TOP_P,
    OPT_REPETITION_PENALTY,
    OPT_SEED,
    OPT_STOP,
    OPT_BEAMS,
    OPT_ANSWERS,
    OPT_JSON,
    OPT_JSONL,
    OPT_RESUME,
    OPT_CONFIG,
    OPT_SET,
};

static const struct option long_options[] = {
    {"model", required_argument, NULL, OPT_MODEL},
    {"mmproj", required_argument, NULL, OPT_MMPROJ},
    {"device", required_argument, NULL, OPT_DEVICE},
    {"precision", required_argument, NULL, OPT_PRECISION},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"ctx", required_argument, NULL, OPT_CTX},
    {"kv", required_argument, NULL, OPT_KV},
    {"template", required_argument, NULL, OPT_TEMPLATE},
    {"preprocess", required_argument, NULL, OPT_PREPROCESS},
    {"together", no_argument, NULL, OPT_TOGETHER},
    {"max-new-tokens", required_argument, NULL, OPT_MAX_NEW_TOKENS},
    {"temperature", required_argument, NULL, OPT_TEMPERATURE},
    {"top-k", required_argument, NULL, OPT_TOP_K},
    {"top-p", required_argument, NULL, OPT_TOP_P},
    {"repetition-penalty", required_argument, NULL, OPT_REPETITION_PENALTY},
    {"seed", required_argument, NULL, OPT_SEED},
    {"stop", required_argument, NULL, OPT_STOP},
    {"beams", required_argument, NULL, OPT_BEAMS},
    {"answers", required_argument, NULL, OPT_ANSWERS},
    {"json", required_argument, NULL, OPT_JSON},
    {"jsonl", required_argument, NULL, OPT_JSONL},
    {"resume", no_argument, NULL, OPT_RESUME},
    {"config", required_argument, NULL, OPT_CONFIG},
    {"set", required_argument, NULL, OPT_SET},
    {"prompt", required_argument, NULL, 'q'},
    {"question", required_argument, NULL, 'q'},
    {"verbose", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

int options_kind(const char *name) {
    for (const struct option *option = long_options; option->name; option++) {
        if (strcmp(name, option->name) == 0) {
            return option->has_arg != no_argument;
        }
    }
    return -1;
}

static bool parse_int(const char *option, const char *text, long min, long max, int *out) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < min || value > max) {
        complain("%s: expected a whole number from %ld to %ld, found \"%s\"", option, min, max, text);
        return false;
    }
    *out = (int)value;
    return true;
}

static bool parse_float(const char *option, const char *text, float min, float max, float *out) {
    char *end;
    float value = strtof(text, &end);
    if (end == text || *end || !isfinite(value) || value < min || value > max) {
        complain("%s: expected a number from %g to %g, found \"%s\"", option, (double)min, (double)max, text);
        return false;
    }
    *out = value;
    return true;
}

static bool parse_seed(const char *text, uint64_t *out) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || end == text || *end || *text == '-') {
        complain("--seed: expected a whole number from 0 to 2^64-1, found \"%s\"", text);
        return false;
    }
    *out = value;
    return true;
}

static bool parse_choice(const char *option, const char *text, const char *first, const char *second, int *out) {
    if (strcmp(text, first) != 0 && strcmp(text, second) != 0) {
        complain("%s: expected %s or %s, found \"%s\"", option, first, second, text);
        return false;
    }
    *out = strcmp(text, second) == 0;
    return true;
}

static bool parse_preprocess(const char *text, candid_preprocess *out) {
    static const char *const names[] = {"auto", "pad", "crop", "anyres"}; /* by value of the enum */
    for (int i = 0; i < 4; i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (candid_preprocess)i;
            return true;
        }
    }
    complain("--preprocess: expected auto, pad, crop or anyres, found \"%s\"", text);
    return false;
}

/* --config and --set, in the order given. option: for complaints. */
static bool configure(const char *option, const char *file, const char *assignment, struct run_options *o) {
    candid_error error;
    candid_status status = CANDID_OK;
    if (file && o->config) {
        complain("--config: expected one file, before any --set, --beams or --answers; methods of several files can be "
                 "combined in one");
        return false;
    }
    if (file) {
        status = candid_config_load(file, &o->config, &error);
    } else if (!o->config) {
        status = candid_config_parse("{}", 2, "--set", &o->config, &error);
    }
    if (status == CANDID_OK && assignment) {
        status = candid_config_set(o->config, assignment, &error);
    }
    if (status != CANDID_OK) {
        complain("%s%s%s", option, *option ? ": " : "", error.message);
    }
    return status == CANDID_OK;
}

/* "decode.NAME=VALUE"; option: "--NAME" */
static bool configure_decode(const char *option, const char *value, struct run_options *o) {
    char assignment[64];
    const int n = snprintf(assignment, sizeof assignment, "decode.%s=%s", option + 2, value);
    if (n < 0 || (size_t)n >= sizeof assignment) {
        complain("%s: expected a whole number, found \"%.20s…\"", option, value);
        return false;
    }
    return configure(option, NULL, assignment, o);
}

void options_free(struct run_options *o) {
    candid_config_free(o->config);
    o->config = NULL;
}

/* One option; false after a complaint. */
static bool apply(int option, const char *value, struct run_options *o) {
    candid_generate_params *g = &o->generate;
    int choice;
    switch (option) {
    case OPT_MODEL: o->model = value; return true;
    case OPT_MMPROJ: o->mmproj = value; return true;
    case OPT_DEVICE: o->device = value; return true;
    case OPT_PRECISION:
        if (!parse_choice("--precision", value, "fast", "exact", &choice)) {
            return false;
        }
        o->precision = choice ? CANDID_PRECISION_EXACT : CANDID_PRECISION_FAST;
        return true;
    case OPT_THREADS: return parse_int("--threads", value, 1, 4096, &o->n_threads);
    case OPT_CTX: return parse_int("--ctx", value, 1, 1 << 24, &o->n_ctx);
    case OPT_KV:
        if (!parse_choice("--kv", value, "f16", "f32", &choice)) {
            return false;
        }
        o->kv_type = choice ? CANDID_KV_F32 : CANDID_KV_F16;
        return true;
    case OPT_TEMPLATE: o->conversation = value; return true;
    case OPT_PREPROCESS: return parse_preprocess(value, &g->preprocess);
    case OPT_TOGETHER: o->together = true; return true;
    case OPT_MAX_NEW_TOKENS: return parse_int("--max-new-tokens", value, 1, 1 << 24, &g->max_new_tokens);
    case OPT_TEMPERATURE: return parse_float("--temperature", value, 0, 1000, &g->temperature);
    case OPT_TOP_K: return parse_int("--top-k", value, 0, 1 << 24, &g->top_k);
    case OPT_TOP_P: return parse_float("--top-p", value, 1e-6f, 1, &g->top_p);
    case OPT_REPETITION_PENALTY: return parse_float("--repetition-penalty", value, 0.01f, 100, &g->repetition_penalty);
    case OPT_SEED: return parse_seed(value, &g->seed);
    case OPT_STOP:
        if (!*value || g->n_stop == sizeof o->stop / sizeof *o->stop) {
            complain("--stop: expected up to 16 non-empty texts");
            return false;
        }
        o->stop[g->n_stop++] = value;
        return true;
    case OPT_JSON: o->json = value; return true;
    case OPT_JSONL: o->jsonl = value; return true;
    case OPT_RESUME: o->resume = true; return true;
    case OPT_CONFIG: return configure("", value, NULL, o);
    case OPT_SET: return configure("--set", NULL, value, o);
    case OPT_BEAMS: return configure_decode("--beams", value, o);
    case OPT_ANSWERS: return configure_decode("--answers", value, o);
    case 'q': o->prompt = value; return true;
    case 'v': o->verbose = true; return true;
    default: return false; /* getopt has complained */
    }
}

int options_parse(int argc, char **argv, const char *help, struct run_options *o, bool *done) {
    memset(o, 0, sizeof *o);
    o->generate = candid_generate_params_default();
    *done = true;
    int option;
    optind = 1;
    while ((option = getopt_long(argc, argv, "q:vh", long_options, NULL)) != -1) {
        if (option == 'h') {
            printf("%s\n%s", help, options_help);
            return EXIT_OK;
        }
        if (!apply(option, optarg, o)) {
            fprintf(stderr, "See candid %s --help.\n", argv[0]);
            return EXIT_USAGE;
        }
    }
    if (o->json && o->jsonl) {
        complain("--json and --jsonl exclude each other");
        return EXIT_USAGE;
    }
    if (o->resume && (!o->jsonl || strcmp(o->jsonl, "-") == 0)) {
        complain("--resume needs --jsonl FILE");
        return EXIT_USAGE;
    }
    if (o->mmproj && !o->model) {
        complain("--mmproj needs --model");
        return EXIT_USAGE;
    }
    o->generate.stop = o->stop;
    o->generate.conversation = o->conversation;
    o->generate.config = o->config;
    o->inputs = argv + optind;
    o->n_inputs = argc - optind;
    *done = false;
    return EXIT_OK;
}
