/* candid chair: what scoring captions needs beforehand. */
#include "cli/chair.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"
#include "eval/chair/tagger_import.h"

static const char help_text[] =
    "Usage: candid chair import-tagger NLTK_DATA_DIR|FILE [-o FILE]\n"
    "       candid chair cache --truth INSTANCES.json... --reference CAPTIONS.json... --mode MODE -o FILE\n"
    "\n"
    "import-tagger reads NLTK's part-of-speech tagger, which the published CHAIR needs and candid may not contain, out "
    "of\n"
    "your NLTK data (python -m nltk.downloader averaged_perceptron_tagger_eng punkt_tab): the JSON files of NLTK >= "
    "3.9 or\n"
    "the pickle before, and Punkt's sentence data where they are. Without -o it is kept where candid score chair looks "
    "for it:\n"
    "$XDG_DATA_HOME/candid/nltk-tagger or ~/.local/share/candid/nltk-tagger.\n"
    "\n"
    "cache writes which objects are in each image, so that the annotations need not be read again: for candid score "
    "chair\n"
    "--truth-cache. Options as there: --truth, --reference, --mode, --tagger, --synonyms.\n";

/* Writes a file and the directories above it. */
static int write_file(const char *path, const char *text, size_t size) {
    char *copy = strdup(path);
    for (char *slash = copy ? strchr(copy + 1, '/') : NULL; slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(copy, 0777); /* what is wrong with it shows below */
        *slash = '/';
    }
    free(copy);
    FILE *file = fopen(path, "wb");
    const bool ok = file && fwrite(text, 1, size, file) == size;
    if ((file && fclose(file) != 0) || !ok) {
        complain("cannot write %s: %s", path, strerror(errno));
        return EXIT_OUTPUT;
    }
    return EXIT_OK;
}

static int import_tagger(int argc, char **argv) {
    const char *input = NULL, *output = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-o") == 0 && i + 1 < argc) {
            output = argv[++i];
        } else if (argv[i][0] != '-' && !input) {
            input = argv[i];
        } else {
            complain("unexpected \"%s\"; see candid chair --help", argv[i]);
            return EXIT_USAGE;
        }
    }
    if (!input) {
        complain("expected NLTK's data directory; see candid chair --help");
        return EXIT_USAGE;
    }
    char *standard = tagger_default_path();
    const char *path = output ? output : standard;
    candid_error error;
    char *text = NULL;
    size_t size = 0;
    struct tagger *tagger = NULL;
    int code = EXIT_OK;
    if (!path) {
        complain("neither XDG_DATA_HOME nor HOME is set; give -o FILE");
        code = EXIT_USAGE;
    } else if (tagger_import(input, &text, &size, &error) != CANDID_OK ||
               tagger_parse(text, size, path, &tagger, &error) != CANDID_OK) {
        complain("%s", error.message);
        code = EXIT_ITEM;
    } else {
        code = write_file(path, text, size);
    }
    if (code == EXIT_OK) {
        printf("%s: %zu tags, %zu words with a fixed tag, %zu features, %zu weights; from %s\n", path, tagger->n_tags,
               tagger->words.n, tagger->n_features, tagger->n_weights, tagger->from);
    }
    tagger_free(tagger);
    free(text);
    free(standard);
    return code;
}

static void print_truth(const struct chair_truth *truth, const char *path) {
    size_t n_objects = 0;
    for (size_t i = 0; i < truth->n; i++) {
        for (size_t k = 0; k < truth->n_classes; k++) {
            n_objects += chair_truth_has(truth, i, (int)k);
        }
    }
    printf("%s: %zu images, %zu objects, mode %s\n", path, truth->n, n_objects, chair_mode_name(truth->mode));
    for (size_t i = 0; i < truth->n_sources; i++) {
        const struct truth_source *s = &truth->sources[i];
        printf("  %s: %zu %s, sha256 %.12s…\n", s->path, s->n, s->captions ? "captions" : "instances", s->sha256);
    }
}

/* Arguments up to the next option. */
static size_t take_files(int argc, char **argv, int *i, const char *const **files) {
    const int first = ++*i;
    while (*i < argc && argv[*i][0] != '-') {
        ++*i;
    }
    *files = (const char *const *)argv + first;
    return (size_t)((*i)-- - first);
}

static int cache(int argc, char **argv) {
    struct chair_request request = {0};
    const char *output = NULL;
    const struct {
        const char *name, **value;
    } options[] = {
        {"--mode", &request.mode}, {"--tagger", &request.tagger}, {"--synonyms", &request.synonyms}, {"-o", &output}};
    for (int i = 1; i < argc; i++) {
        size_t k = 0;
        if (strcmp(argv[i], "--truth") == 0) {
            request.files.n_instances = take_files(argc, argv, &i, &request.files.instances);
            continue;
        }
        if (strcmp(argv[i], "--reference") == 0) {
            request.files.n_captions = take_files(argc, argv, &i, &request.files.captions);
            continue;
        }
        while (k < sizeof options / sizeof *options && strcmp(argv[i], options[k].name) != 0) {
            k++;
        }
        if (k == sizeof options / sizeof *options || i + 1 == argc) {
            complain("unexpected \"%s\"; see candid chair --help", argv[i]);
            return EXIT_USAGE;
        }
        *options[k].value = argv[++i];
    }
    if (request.files.n_instances + request.files.n_captions == 0 || !output) {
        complain("expected --truth FILE..., --reference FILE... and -o FILE; see candid chair --help");
        return EXIT_USAGE;
    }
    struct chair_session session = {0};
    candid_error error;
    int code = chair_session_open(&request, &session);
    if (code == EXIT_OK && chair_truth_write(session.truth, output, &error) != CANDID_OK) {
        complain("%s", error.message);
        code = EXIT_OUTPUT;
    }
    if (code == EXIT_OK) {
        print_truth(session.truth, output);
    }
    chair_session_close(&session);
    return code;
}

int command_chair(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(help_text, stdout);
            return EXIT_OK;
        }
    }
    if (argc > 1 && strcmp(argv[1], "import-tagger") == 0) {
        return import_tagger(argc - 1, argv + 1);
    }
    if (argc > 1 && strcmp(argv[1], "cache") == 0) {
        return cache(argc - 1, argv + 1);
    }
    complain("expected import-tagger or cache; see candid chair --help");
    return EXIT_USAGE;
}
