/* candid model: what is in a model file. */
#include <string.h>

#include "cli/cli.h"
#include "cli/demo_model.h"
#include "core/file.h"
#include "model/hf.h"

static void print_tensor(const struct tensor *t) {
    printf("  %-40s %-5s [", t->name, quant_type_name(t->type));
    for (int d = 0; d < t->n_dims; d++) {
        printf(d ? ", %lld" : "%lld", (long long)t->ne[d]);
    }
    printf(t->origin ? "] = %s\n" : "]\n", t->origin);
}

/* Bytes and count per tensor type. */
static void print_types(const struct gguf *gguf) {
    for (uint32_t type = 0; type < 64; type++) {
        size_t count = 0, bytes = 0;
        for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
            const struct tensor *t = gguf_tensor_at(gguf, i);
            count += t->type == type;
            bytes += t->type == type ? t->size : 0;
        }
        if (count > 0) {
            printf("  %-5s %5zu tensors %10.1f MB\n", quant_type_name(type), count, (double)bytes / 1e6);
        }
    }
}

static int describe(const char *path, bool verbose) {
    struct gguf *gguf;
    candid_error error;
    const struct logger silent = {0};
    candid_status status =
        path && file_is_directory(path) ? hf_open(path, NULL, &gguf, &silent, &error)
        : path                          ? gguf_open(path, &gguf, &error)
               : gguf_open_memory(demo_model_begin, demo_model_size(), "(embedded demo model)", &gguf, &error);
    if (status != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_MODEL;
    }
    char kind[40] = "Hugging Face directory in GGUF's terms";
    if (!gguf_is_assembled(gguf)) {
        snprintf(kind, sizeof kind, "GGUF v%u", gguf_version(gguf));
    }
    printf("%s: %s, %.1f MB, %zu keys, %zu tensors\n", gguf_path(gguf), kind, (double)gguf_file_size(gguf) / 1e6,
           gguf_key_count(gguf), gguf_tensor_count(gguf));
    char value[160];
    for (size_t i = 0; i < gguf_key_count(gguf); i++) {
        gguf_describe_value(gguf, i, value, sizeof value);
        printf("  %s = %s\n", gguf_key_at(gguf, i), value);
    }
    print_types(gguf);
    for (size_t i = 0; verbose && i < gguf_tensor_count(gguf); i++) {
        print_tensor(gguf_tensor_at(gguf, i));
    }
    gguf_close(gguf);
    return EXIT_OK;
}

int command_model(int argc, char **argv) {
    bool verbose = false;
    int code = EXIT_OK, n_files = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            puts("Usage: candid model [-v] [FILE|DIR...]\n\n"
                 "Shows keys and tensor types of GGUF files and Hugging Face directories, of the embedded demo model "
                 "when\n"
                 "none is given.\n\n"
                 "  -v, --verbose  list every tensor");
            return EXIT_OK;
        }
        if (strcmp(argv[i], "-v") == 0 || strcmp(argv[i], "--verbose") == 0) {
            verbose = true;
        } else if (argv[i][0] == '-') {
            complain("unknown option \"%s\"; see candid model --help", argv[i]);
            return EXIT_USAGE;
        } else {
            n_files++;
        }
    }
    if (n_files == 0) {
        return describe(NULL, verbose);
    }
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-') {
            int one = describe(argv[i], verbose);
            code = one != EXIT_OK ? one : code;
        }
    }
    return code;
}
