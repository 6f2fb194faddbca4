/* candid convert and candid quantize: write GGUF files. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "core/clock.h"
#include "core/file.h"
#include "core/status.h"
#include "model/convert.h"
#include "model/hf.h"
#include "model/weights.h"

static const char convert_help[] =
    "Usage: candid convert DIR OUT.gguf [--type f16] [--mmproj CLIPDIR] [--mmproj-out FILE] [--single]\n\n"
    "Writes a Hugging Face model directory as GGUF: the language model to OUT.gguf, image encoder and projector to\n"
    "OUT-mmproj.gguf. llama.cpp reads the language model too.\n\n"
    "  --type T           f32, f16 (default), bf16, or a type of candid quantize\n"
    "  --mmproj CLIPDIR   for the original LLaVA: the directory of its CLIP encoder\n"
    "  --mmproj-out FILE  where to write the image encoder\n"
    "  --single           write both into OUT.gguf (candid reads it, llama.cpp does not)\n";

static const char quantize_help[] = "Usage: candid quantize IN.gguf OUT.gguf --type q8_0|q4_0|q4_k_m|q5_k_m|q6_k\n\n"
                                    "Rounds the matrices of a GGUF language model (best from f32, f16 or bf16) to a "
                                    "smaller type. An image encoder in the\n"
                                    "same file is copied as it is.\n";

struct convert_options {
    enum convert_type type;
    bool has_type, single, help;
    const char *mmproj, *mmproj_out;
    const char *in, *out;
};

static int parse(int argc, char **argv, bool quantize, struct convert_options *o) {
    static const struct option long_options[] = {
        {"type", required_argument, NULL, 't'},
        {"mmproj", required_argument, NULL, 'm'},
        {"mmproj-out", required_argument, NULL, 'o'},
        {"single", no_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    *o = (struct convert_options){.type = CONVERT_F16};
    opterr = 0;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "h", long_options, NULL)) != -1;) {
        if (c == 't') {
            o->has_type = convert_type_named(optarg, &o->type);
            if (!o->has_type) {
                complain("--type: expected f32, f16, bf16, q8_0, q4_0, q4_k_m, q5_k_m or q6_k, found \"%s\"", optarg);
                return EXIT_USAGE;
            }
        } else if (c == 'h') {
            o->help = true;
            return EXIT_OK;
        } else if (!quantize && c == 'm') {
            o->mmproj = optarg;
        } else if (!quantize && c == 'o') {
            o->mmproj_out = optarg;
        } else if (!quantize && c == 's') {
            o->single = true;
        } else {
            complain("unknown or incomplete option \"%s\"; see candid %s --help", argv[optind - 1], argv[0]);
            return EXIT_USAGE;
        }
    }
    if (argc - optind != 2 || (quantize && !o->has_type)) {
        complain("%s; see candid %s --help",
                 quantize ? "expected IN.gguf, OUT.gguf and --type" : "expected DIR and OUT.gguf", argv[0]);
        return EXIT_USAGE;
    }
    o->in = argv[optind];
    o->out = argv[optind + 1];
    return EXIT_OK;
}

/* ---- writing ---- */

struct bar {
    bool shown;
    double last_ms;
};

static bool report(void *user_data, uint64_t done, uint64_t total) {
    struct bar *bar = user_data;
    const double now = clock_ms();
    if (bar->shown && (now - bar->last_ms > 100 || done == total)) {
        fprintf(stderr, "\r\033[K%3.0f %%", 100.0 * (double)done / (double)total);
        fflush(stderr);
        bar->last_ms = now;
    }
    return !interrupt_requested(NULL);
}

static bool same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int write_part(const struct gguf *model, enum convert_part part, const struct convert_options *o,
                      const char *path) {
    if (same_file(o->in, path)) {
        complain("%s: expected another file than the input", path);
        return EXIT_USAGE;
    }
    struct bar bar = {.shown = isatty(STDERR_FILENO)};
    const struct convert_progress progress = {report, &bar};
    candid_error error;
    const candid_status status = convert_write(model, part, o->type, path, &progress, &error);
    if (bar.shown) {
        fputs("\r\033[K", stderr);
    }
    if (status != CANDID_OK) {
        complain("%s", error.message);
        return status == CANDID_ERROR_CANCELLED ? EXIT_INTERRUPTED : EXIT_OUTPUT;
    }
    struct stat written;
    printf("%s: %.1f MB\n", path, stat(path, &written) == 0 ? (double)written.st_size / 1e6 : 0.0);
    return EXIT_OK;
}

/* What cannot be run is not written either. */
static candid_status check_model(const struct gguf *model, bool vision, candid_error *error) {
    struct llama_weights llama;
    struct clip_weights clip;
    TRY(llama_weights_load(model, &llama, error));
    const int n_embd = llama.n_embd;
    llama_weights_free(&llama);
    if (vision) {
        const struct logger silent = {0};
        TRY(clip_weights_load(model, n_embd, &clip, &silent, error));
        clip_weights_free(&clip);
    }
    return CANDID_OK;
}

static void print_warning(void *user_data, candid_log_level level, const char *message) {
    (void)user_data;
    if (level == CANDID_LOG_WARN) {
        fprintf(stderr, "candid: warning: %s\n", message);
    }
}

/* "x.gguf" -> "x-mmproj.gguf", malloc'd. */
static char *mmproj_name(const char *out) {
    const size_t n = strlen(out), stem = n > 5 && strcmp(out + n - 5, ".gguf") == 0 ? n - 5 : n;
    char *name = malloc(stem + sizeof "-mmproj.gguf");
    if (name) {
        memcpy(name, out, stem);
        strcpy(name + stem, "-mmproj.gguf");
    }
    return name;
}

int command_convert(int argc, char **argv) {
    struct convert_options o;
    int code = parse(argc, argv, false, &o);
    if (code != EXIT_OK || o.help) {
        fputs(o.help ? convert_help : "", stdout);
        return code;
    }
    interrupt_install();
    const struct logger log = {print_warning, NULL};
    struct gguf *model = NULL;
    candid_error error;
    if (!file_is_directory(o.in)) {
        complain("%s: expected a Hugging Face model directory; for a GGUF file use candid quantize", o.in);
        return EXIT_MODEL;
    }
    if (hf_open(o.in, o.mmproj, &model, &log, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_MODEL;
    }
    const bool vision = convert_has(model, CONVERT_VISION);
    if (check_model(model, vision, &error) != CANDID_OK) {
        complain("%s", error.message);
        gguf_close(model);
        return EXIT_MODEL;
    }
    code = write_part(model, o.single ? CONVERT_BOTH : CONVERT_LANGUAGE, &o, o.out);
    if (code == EXIT_OK && vision && !o.single) {
        char *name = o.mmproj_out ? strdup(o.mmproj_out) : mmproj_name(o.out);
        code = name ? write_part(model, CONVERT_VISION, &o, name) : EXIT_OUTPUT;
        free(name);
    }
    gguf_close(model);
    return code;
}

int command_quantize(int argc, char **argv) {
    struct convert_options o;
    int code = parse(argc, argv, true, &o);
    if (code != EXIT_OK || o.help) {
        fputs(o.help ? quantize_help : "", stdout);
        return code;
    }
    interrupt_install();
    struct gguf *model = NULL;
    candid_error error;
    if (gguf_open(o.in, &model, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_MODEL;
    }
    if (!convert_has(model, CONVERT_LANGUAGE)) {
        complain("%s: expected a language model, found an image encoder: those are kept in f16", o.in);
        code = EXIT_MODEL;
    } else {
        code = write_part(model, convert_has(model, CONVERT_VISION) ? CONVERT_BOTH : CONVERT_LANGUAGE, &o, o.out);
    }
    gguf_close(model);
    return code;
}
