/* candid pope: makes POPE's questions, lists the ways in which answers are read. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "cli/chair.h"
#include "cli/cli.h"
#include "core/file.h"
#include "eval/pope/build.h"

static const char help_text[] =
    "Usage: candid pope build --instances FILE|--objects FILE -o FILE|DIR [options]\n"
    "       candid pope rules\n"
    "\n"
    "build makes the questions of POPE (arXiv 2305.10355) as the official program does, whose random numbers are "
    "those\n"
    "of CPython: same objects in the same order, same seed, same questions. A split is the same whether it is made "
    "alone\n"
    "or with the others. rules lists how public programs read \"yes\" or \"no\" from an answer.\n"
    "\n"
    "  --instances FILE   a COCO instances file. Objects of an image come in the order of their first annotation\n"
    "                     there; which of them are asked about depends on it. The official question files also "
    "counted\n"
    "                     objects that only the reference captions name\n"
    "  --objects FILE     JSON lines {\"image\": \"a.jpg\", \"objects\": [\"dog\", \"cat\", \"car\"]}\n"
    "  --split NAME       random, popular, adversarial or all (default all)\n"
    "  --seed N           random.seed(N) (default 0)\n"
    "  --images N|all     images to draw (default 500); all: every image with enough objects, in the file's order\n"
    "  --per-image N      questions with \"yes\" per image, and as many with \"no\" (default 3)\n"
    "  --template TEXT    default \"" POPE_TEMPLATE "\"\n"
    "  --typo             misspell \"image\" as \"imange\" after \"an\", as the official program does\n"
    "  -o FILE|DIR        where the questions go; with all splits a folder, which gets pope_random.jsonl and so on\n";

static const char *const split_names[] = {"random", "popular", "adversarial"};
enum { N_SPLITS = 3, ALL_SPLITS = 3 };

static int list_rules(void) {
    for (size_t i = 0; i < n_pope_rules; i++) {
        const struct pope_rule *rule = &pope_rules[i];
        printf("%-11s %s%s\n", rule->name, rule->same_as ? "as " : "", rule->same_as ? rule->same_as : rule->about);
    }
    return EXIT_OK;
}

struct build_arguments {
    const char *instances, *objects, *out;
    const char *captions[8];
    size_t n_captions;
    int split; /* of split_names, or ALL_SPLITS */
    unsigned long long seed;
    size_t n_images; /* 0: all */
    struct pope_build build;
};

/* A decimal number from min to max. */
static bool parse_number(const char *text, unsigned long long min, unsigned long long max, unsigned long long *out) {
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *out >= min && *out <= max;
}

/* False: the option's value is wrong. */
static bool set_option(struct build_arguments *a, int option, const char *value) {
    unsigned long long number = 0;
    switch (option) {
    case 'i': a->instances = value; return true;
    case 'j': a->objects = value; return true;
    case 'o': a->out = value; return true;
    case 'c':
        if (a->n_captions == sizeof a->captions / sizeof *a->captions) {
            return false;
        }
        a->captions[a->n_captions++] = value;
        return true;
    case 't': a->build.template = value; return strstr(value, "{}") != NULL;
    case 'y': a->build.typo = true; return true;
    case 's': return parse_number(value, 0, ~0ull, &a->seed);
    case 'p':
        if (!parse_number(value, 1, 1000, &number)) {
            return false;
        }
        a->build.per_image = (size_t)number;
        return true;
    case 'n':
        if (strcmp(value, "all") != 0 && !parse_number(value, 1, 100000000, &number)) {
            return false;
        }
        a->n_images = (size_t)number;
        return true;
    default:
        for (a->split = 0; a->split < ALL_SPLITS && strcmp(value, split_names[a->split]) != 0; a->split++) {
        }
        return a->split < ALL_SPLITS || strcmp(value, "all") == 0;
    }
}

static int parse_build(int argc, char **argv, struct build_arguments *a, bool *done) {
    static const struct option long_options[] = {
        {"instances", required_argument, NULL, 'i'},
        {"objects", required_argument, NULL, 'j'},
        {"captions", required_argument, NULL, 'c'},
        {"split", required_argument, NULL, 'x'},
        {"seed", required_argument, NULL, 's'},
        {"images", required_argument, NULL, 'n'},
        {"per-image", required_argument, NULL, 'p'},
        {"template", required_argument, NULL, 't'},
        {"typo", no_argument, NULL, 'y'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    *a = (struct build_arguments){.split = ALL_SPLITS, .n_images = 500, .build = {.per_image = 3}};
    opterr = 0;
    optind = 1;
    for (int c, index = 0; (c = getopt_long(argc, argv, "ho:", long_options, &index)) != -1;) {
        if (c == 'h') {
            fputs(help_text, stdout);
            *done = true;
            return EXIT_OK;
        }
        if (c == '?') {
            complain("unknown or incomplete option \"%s\"; see candid pope --help", argv[optind - 1]);
            return EXIT_USAGE;
        }
        if (!set_option(a, c, optarg)) {
            complain("--%s: cannot use \"%s\"; see candid pope --help", long_options[index].name, optarg);
            return EXIT_USAGE;
        }
    }
    if (optind < argc || !a->out || !a->instances == !a->objects || (a->n_captions > 0 && !a->instances)) {
        complain(
            "expected --instances FILE (with --captions or not) or --objects FILE, and -o; see candid pope --help");
        return EXIT_USAGE;
    }
    if (a->split == ALL_SPLITS && !make_folder(a->out)) {
        return EXIT_OUTPUT;
    }
    return EXIT_OK;
}

/* Adds "key": "text" in Python's form. */
static bool print_string(FILE *to, const char *key, const char *text) {
    cJSON *item = cJSON_CreateString(text);
    char *quoted = item ? cJSON_PrintUnformatted(item) : NULL;
    const bool ok = quoted && fprintf(to, ", \"%s\": %s", key, quoted) > 0;
    cJSON_free(quoted);
    cJSON_Delete(item);
    return ok;
}

static bool print_questions(FILE *to, const struct eval_items *items) {
    bool ok = true;
    for (size_t i = 0; ok && i < items->n; i++) {
        const struct eval_item *q = &items->items[i];
        ok = fprintf(to, "{\"question_id\": %s", q->id) > 0 && print_string(to, "image", q->image) &&
             print_string(to, "text", q->question) && print_string(to, "label", q->label) && fputs("}\n", to) >= 0;
    }
    return ok;
}

static int write_questions(const char *out, const char *split, const struct eval_items *items) {
    char name[40], *joined = NULL;
    snprintf(name, sizeof name, "pope_%s.jsonl", split);
    candid_error error;
    if (file_is_directory(out) && file_join(out, name, &joined, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_OUTPUT;
    }
    const char *path = joined ? joined : out;
    const bool to_stdout = strcmp(path, "-") == 0;
    FILE *file = to_stdout ? stdout : fopen(path, "w");
    bool ok = file && print_questions(file, items);
    ok = (!file || (to_stdout ? fflush(file) : fclose(file)) == 0) && ok;
    if (!ok) {
        complain("cannot write %s", path);
    } else if (!to_stdout) {
        printf("%s: %zu questions\n", path, items->n);
    }
    free(joined);
    return ok ? EXIT_OK : EXIT_OUTPUT;
}

/* All splits are made, in the official order, because they share one stream of random numbers. */
static int build_splits(const struct build_arguments *a, const struct pope_truth *truth) {
    struct mt19937 r;
    candid_error error;
    size_t *images = NULL, n = 0;
    mt19937_seed(&r, a->seed);
    if (pope_sample_images(truth, a->n_images, a->build.per_image, &r, &images, &n, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_ITEM;
    }
    int code = EXIT_OK;
    for (int split = 0; split < N_SPLITS && code == EXIT_OK; split++) {
        struct eval_items items = {0};
        struct pope_build build = a->build;
        build.split = (enum pope_split)split;
        if (pope_build_questions(truth, images, n, &build, &r, &items, &error) != CANDID_OK) {
            complain("%s", error.message);
            code = EXIT_ITEM;
        } else if (a->split == split || a->split == ALL_SPLITS) {
            code = write_questions(a->out, split_names[split], &items);
        }
        items_free(&items);
    }
    free(images);
    return code;
}

/* Adds what the reference captions name beyond the annotations. */
static candid_status add_named(const struct chair_session *session, struct pope_truth *truth, candid_error *error) {
    for (size_t i = 0; i < truth->n; i++) {
        const size_t image = chair_truth_image_named(session->truth, truth->images[i].name);
        for (size_t c = 0; c < session->vocabulary->n_classes; c++) {
            const char *name = session->vocabulary->class_names[c];
            if (chair_truth_has(session->truth, image, (int)c) && !pope_truth_has_object(truth, i, name)) {
                const candid_status status = pope_truth_add_object(truth, i, name, error);
                if (status != CANDID_OK) {
                    return status;
                }
            }
        }
    }
    return CANDID_OK;
}

static int add_captions(const struct build_arguments *a, struct pope_truth *truth) {
    const struct chair_request request = {.mode = "pattern", .files = {&a->instances, 1, a->captions, a->n_captions}};
    struct chair_session session = {0};
    candid_error error;
    int code = chair_session_open(&request, &session);
    if (code == EXIT_OK && add_named(&session, truth, &error) != CANDID_OK) {
        complain("%s", error.message);
        code = EXIT_ITEM;
    }
    chair_session_close(&session);
    return code;
}

static int build(int argc, char **argv) {
    struct build_arguments a;
    bool done = false;
    int code = parse_build(argc, argv, &a, &done);
    if (code != EXIT_OK || done) {
        return code;
    }
    struct pope_truth truth = {0};
    candid_error error;
    const candid_status status = a.instances ? pope_truth_read_instances(a.instances, &truth, &error)
                                             : pope_truth_read_objects(a.objects, &truth, &error);
    if (status != CANDID_OK) {
        complain("%s", error.message);
        code = EXIT_ITEM;
    } else {
        code = a.n_captions > 0 ? add_captions(&a, &truth) : EXIT_OK;
        code = code == EXIT_OK ? build_splits(&a, &truth) : code;
    }
    pope_truth_free(&truth);
    return code;
}

int command_pope(int argc, char **argv) {
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(help_text, stdout);
        return EXIT_OK;
    }
    if (argc == 2 && strcmp(argv[1], "rules") == 0) {
        return list_rules();
    }
    if (argc > 1 && strcmp(argv[1], "build") == 0) {
        return build(argc - 1, argv + 1);
    }
    complain("expected candid pope build or candid pope rules; see candid pope --help");
    return EXIT_USAGE;
}
