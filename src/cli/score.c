/* candid score: answers that exist already, whoever gave them. */
#include "cli/score.h"

#include <stdlib.h>
#include <string.h>

#include "core/text.h"
#include "eval/common/json_exact.h"

static const char help_text[] = "Usage: candid score BENCHMARK FILE... [options]\n"
                                "\n"
                                "Scores answers that exist already, those of candid eval and those of other programs.\n"
                                "\n"
                                "  pope        yes or no to \"Is there a X in the image?\"\n"
                                "  mme         two questions per image, one to be answered yes and one no\n"
                                "  amber       descriptions against lists of objects; yes or no\n"
                                "  sycophancy  the same questions asked neutrally and with a misleading hint\n"
                                "\n"
                                "candid score BENCHMARK --help lists the options.\n";

const char score_output_help[] = "  --json FILE    write the scores as JSON (- for stdout)\n"
                                 "  --scored FILE  write what was made of every answer as JSON lines\n";

int command_score(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(int argc, char **argv);
    } benchmarks[] = {
        {"pope", score_pope},   {"chair", score_chair},           {"mme", score_mme},
        {"amber", score_amber}, {"sycophancy", score_sycophancy},
    };
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        fputs(help_text, argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_USAGE : EXIT_OK;
    }
    for (size_t i = 0; i < sizeof benchmarks / sizeof *benchmarks; i++) {
        if (strcmp(argv[1], benchmarks[i].name) == 0) {
            return benchmarks[i].run(argc - 1, argv + 1);
        }
    }
    complain("unknown benchmark \"%s\"; see candid score --help", argv[1]);
    return EXIT_USAGE;
}

/* ---- arguments ---- */

static bool is_option(const char *argument) {
    return argument[0] == '-' && argument[1] != '\0';
}

/* The run of arguments from argv[i] on that are no options. */
static struct score_files take_files(int argc, char **argv, int i) {
    struct score_files files = {argv + i, 0};
    while (i + files.n < argc && !is_option(argv[i + files.n])) {
        files.n++;
    }
    return files;
}

/* Sets what argv[*i] asks for and moves *i to its last argument. */
static int take_option(int argc, char **argv, int *i, const char *benchmark, const struct score_option *option) {
    const int given = argc - *i - 1;
    if (option->flag) {
        *option->flag = true;
    } else if (option->value && given > 0) {
        *option->value = argv[++*i];
    } else if (option->files && option->files->n == 0) {
        *option->files = take_files(argc, argv, *i + 1);
        *i += option->files->n;
    }
    if ((option->value && given == 0) || (option->files && option->files->n == 0)) {
        complain("%s needs a value; see candid score %s --help", option->name, benchmark);
        return EXIT_USAGE;
    }
    return EXIT_OK;
}

int score_parse(int argc, char **argv, const char *help, const struct score_option *options, struct score_files *files,
                struct score_output *output, bool *done) {
    const struct score_option common[] = {
        {.name = "--json", .value = &output->json}, {.name = "--scored", .value = &output->scored}, {0}};
    *done = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(help, stdout);
            fputs(score_output_help, stdout);
            *done = true;
            return EXIT_OK;
        }
        const bool dashes = strcmp(argv[i], "--") == 0;
        if (dashes || !is_option(argv[i])) {
            const struct score_files found = take_files(argc, argv, i + dashes);
            if (files->n > 0 && found.n > 0) {
                complain("\"%s\" stands apart from the files before; see candid score %s --help", found.paths[0],
                         argv[0]);
                return EXIT_USAGE;
            }
            *files = found;
            i += found.n - !dashes;
            continue;
        }
        const struct score_option *option = options;
        while (option->name && strcmp(option->name, argv[i]) != 0) {
            option++;
        }
        for (const struct score_option *c = common; !option->name && c->name; c++) {
            option = strcmp(c->name, argv[i]) == 0 ? c : option;
        }
        if (!option->name) {
            complain("unknown option \"%s\"; see candid score %s --help", argv[i], argv[0]);
            return EXIT_USAGE;
        }
        const int code = take_option(argc, argv, &i, argv[0], option);
        if (code != EXIT_OK) {
            return code;
        }
    }
    if (files->n == 0) {
        complain("expected files to score; see candid score %s --help", argv[0]);
        return EXIT_USAGE;
    }
    return EXIT_OK;
}

/* ---- output ---- */

static cJSON *source_object(const struct eval_source *source) {
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "path", source->path);
    cJSON_AddStringToObject(object, "sha256", source->sha256);
    cJSON_AddNumberToObject(object, "lines", (double)source->n_lines);
    if (source->known_as) {
        cJSON_AddStringToObject(object, "known_as", source->known_as);
    } else {
        cJSON_AddNullToObject(object, "known_as");
    }
    return object;
}

static char *summary_text(const char *benchmark, const struct eval_items *items, const struct eval_scores *scores) {
    size_t n_answered = 0;
    for (size_t i = 0; i < items->n; i++) {
        n_answered += items->items[i].answer != NULL;
    }
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "candid_score", 1);
    cJSON_AddStringToObject(object, "version", candid_version());
    cJSON_AddStringToObject(object, "benchmark", benchmark);
    cJSON *sources = cJSON_AddArrayToObject(object, "sources");
    for (size_t i = 0; i < items->n_sources; i++) {
        cJSON_AddItemToArray(sources, source_object(&items->sources[i]));
    }
    cJSON_AddNumberToObject(object, "questions", (double)items->n);
    cJSON_AddNumberToObject(object, "answered", (double)n_answered);
    cJSON_AddItemReferenceToObject(object, "scores", scores->summary);
    char *text = json_print_exact(object, true);
    cJSON_Delete(object);
    return text;
}

bool score_print_verdicts(FILE *to, const struct eval_scores *scores) {
    bool ok = true;
    for (size_t i = 0; ok && i < scores->n; i++) {
        if (!scores->verdicts[i]) {
            continue;
        }
        char *text = json_print_exact(scores->verdicts[i], false);
        ok = text && fprintf(to, "{\"index\":%zu%s%s\n", i, text[1] == '}' ? "" : ",", text + 1) > 0;
        cJSON_free(text);
    }
    return ok;
}

static FILE *open_output(const char *path) {
    return strcmp(path, "-") == 0 ? stdout : fopen(path, "w");
}

static bool close_output(FILE *file) {
    return (file == stdout ? fflush(file) : fclose(file)) == 0;
}

int score_write(const struct score_output *output, const char *benchmark, const struct eval_items *items,
                const struct eval_scores *scores) {
    for (int which = 0; which < 2; which++) {
        const char *path = which ? output->scored : output->json;
        if (!path) {
            continue;
        }
        FILE *file = open_output(path);
        char *text = file && !which ? summary_text(benchmark, items, scores) : NULL;
        bool ok = file && (which ? score_print_verdicts(file, scores) : text && fprintf(file, "%s\n", text) > 0);
        cJSON_free(text);
        ok = (!file || close_output(file)) && ok;
        if (!ok) {
            complain("cannot write %s", path);
            return EXIT_OUTPUT;
        }
    }
    return EXIT_OK;
}

size_t score_count_failed(const struct eval_items *items) {
    size_t n_failed = 0;
    for (size_t i = 0; i < items->n; i++) {
        n_failed += !items->items[i].answer;
    }
    if (n_failed > 0) {
        complain("%zu of %zu questions have no answer and do not count", n_failed, items->n);
    }
    return n_failed;
}

void score_print_sources(const struct eval_items *items) {
    for (size_t i = 0; i < items->n_sources; i++) {
        const struct eval_source *s = &items->sources[i];
        struct printable path;
        printf("%s: %zu questions, sha256 %.12s…, %s\n", printable_string(&path, s->path), s->n_lines, s->sha256,
               s->known_as ? s->known_as : "no published version that is known");
    }
}

void score_print_percent(const cJSON *object, const char *key, int width) {
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    if (cJSON_IsNumber(value)) {
        printf("%*.2f", width, 100 * value->valuedouble);
    } else {
        printf("%*s", width, "-");
    }
}
