/* The command line of candid eval: its own options, then those of every command that runs a model. */
#include <stdlib.h>
#include <string.h>

#include "cli/eval.h"

static const char help_text[] =
    "Usage: candid eval BENCHMARK --images DIR --out DIR [options]     run a benchmark\n"
    "       candid eval merge OUT                                      join the shards in a folder\n"
    "       candid eval export RUN.jsonl --format NAME -o FILE         answers in the form of another program\n"
    "       candid eval --reproduce RUN.json                           run again, compare every answer\n"
    "\n"
    "Benchmarks: pope, chair, mme, amber, caption, vqa. Each image is encoded and the beginning of its prompts read\n"
    "once. Writes OUT/NAME.jsonl (a line per question, as it is answered), OUT/NAME.scored.jsonl and the summary\n"
    "OUT/NAME.json for every configuration, and before them for plain greedy decoding, the baseline.\n"
    "\n"
    "Questions:\n"
    "  --images DIR            folder of the images\n"
    "  --questions FILE        POPE's, AMBER's or LLaVA's question file (may be repeated); mme reads them in --images\n"
    "  --labels FILE           pope: question file with the labels for LLaVA's (may be repeated)\n"
    "  --list NAME|FILE        chair, caption: pai-927 or opera, the published lists of 500 images, or a file of "
    "names\n"
    "                          mme: sub-tasks such as existence,count, or hallucination: the first four\n"
    "  --sample N              chair, caption: N images drawn from the sorted folder, as Python's random.sample does\n"
    "  --sample-seed N         its seed, default 0\n"
    "  --limit N               the first N images only\n"
    "  --suffix TEXT           put after every question; \\n is a line break\n"
    "  --cut TEXT              leave TEXT out of every question, before the suffix is put after it\n"
    "  --protocol FILE         options from a file such as eval/protocols/pope-llava.json; those given here win\n"
    "Scores:\n"
    "  --rule NAME|all         pope: how answers are read (candid pope rules), default official; mme: official,\n"
    "                          lmms-eval\n"
    "  --truth FILE            chair: COCO instances file (may be repeated); --reference FILE: captions file\n"
    "  --truth-cache FILE      chair: made by candid chair cache, instead\n"
    "  --mode M, --truth-mode M\n"
    "                          chair: pattern, nltk38, nltk39 or approximate, of captions and of reference captions\n"
    "  --tagger FILE           chair, amber: made by candid chair import-tagger; --synonyms FILE: classes of your own\n"
    "  --amber-data DIR        amber: the folder of its annotations; --similarity FILE: table of similar words\n"
    "Configurations:\n"
    "  --config FILE           (may be repeated) one run each, named after the file\n"
    "  --set METHOD.OPTION=X   changes every configuration given; without one, a run of its own\n"
    "  --name NAME             of the run, where there is one configuration\n"
    "  --also LIST             more baselines: beam-5, sample-t1\n"
    "  --no-baseline           leave greedy decoding out\n"
    "Running:\n"
    "  --out DIR               folder of the results\n"
    "  --resume                go on where an earlier call ended; questions that failed are not asked again\n"
    "  --shard I/N             only every N-th image, from the I-th on; candid eval merge joins the parts\n"
    "  --batch N               requests answered side by side (default: an image's questions; 8 captions)\n"
    "  --one-by-one            share nothing, as public scripts do: for comparison\n"
    "  --strict                end at the first image that cannot be read\n"
    "  --plan                  count images and tokens, show the first prompt, run nothing; without --model for\n"
    "                          LLaVA-1.5, estimated\n"
    "  --image-tokens N        of --plan: visual tokens per image\n"
    "\n";

enum value_kind { TEXT, TEXTS, FLAG, NUMBER, SHARD };

struct own_option {
    const char *name;
    enum value_kind kind;
    void *to;
    bool forgotten; /* does not decide answers or scores: not kept in `arguments` */
    int min;
};

static bool add_text(struct texts *list, const char *text) {
    const char **grown = realloc(list->values, (list->n + 1) * sizeof *grown);
    if (!grown) {
        complain("out of memory");
        return false;
    }
    list->values = grown;
    list->values[list->n++] = text;
    return true;
}

static bool take_number(const char *name, const char *text, int min, int *out) {
    char *end;
    const long value = strtol(text, &end, 10);
    if (end == text || *end || value < min || value > 1 << 30) {
        complain("%s: expected a whole number of at least %d, found \"%s\"", name, min, text);
        return false;
    }
    *out = (int)value;
    return true;
}

static bool take_shard(const char *text, struct eval_options *o) {
    char *end, *last = NULL;
    const long i = strtol(text, &end, 10), n = *end == '/' ? strtol(end + 1, &last, 10) : 0;
    if (!last || *last || end == text || i < 1 || n < 1 || i > n || n > 100000) {
        complain("--shard: expected I/N such as 2/8, found \"%s\"", text);
        return false;
    }
    o->shard = (int)i;
    o->n_shards = (int)n;
    return true;
}

static bool take(const struct own_option *option, const char *value, struct eval_options *o) {
    switch (option->kind) {
    case TEXT: *(const char **)option->to = value; return true;
    case TEXTS: return add_text(option->to, value);
    case FLAG: *(bool *)option->to = true; return true;
    case NUMBER: return take_number(option->name, value, option->min, option->to);
    case SHARD: return take_shard(value, o);
    }
    return false;
}

#define N_OWN 32

static void own_options(struct eval_options *o, struct own_option out[N_OWN + 1]) {
    const struct own_option all[N_OWN + 1] = {
        {"--questions", TEXTS, &o->questions, false, 0},
        {"--labels", TEXTS, &o->labels, false, 0},
        {"--truth", TEXTS, &o->truth, false, 0},
        {"--reference", TEXTS, &o->references, false, 0},
        {"--truth-cache", TEXT, &o->truth_cache, false, 0},
        {"--mode", TEXT, &o->mode, false, 0},
        {"--truth-mode", TEXT, &o->truth_mode, false, 0},
        {"--tagger", TEXT, &o->tagger, false, 0},
        {"--synonyms", TEXT, &o->synonyms, false, 0},
        {"--amber-data", TEXT, &o->amber_data, false, 0},
        {"--similarity", TEXT, &o->similarity, false, 0},
        {"--images", TEXT, &o->images, false, 0},
        {"--list", TEXT, &o->list, false, 0},
        {"--sample", NUMBER, &o->sample, false, 1},
        {"--sample-seed", NUMBER, &o->sample_seed, false, 0},
        {"--limit", NUMBER, &o->limit, false, 1},
        {"--suffix", TEXT, &o->suffix, false, 0},
        {"--cut", TEXT, &o->cut, false, 0},
        {"--rule", TEXT, &o->rule, false, 0},
        {"--batch", NUMBER, &o->batch, false, 1},
        {"--config", TEXTS, &o->configs, true, 0},
        {"--set", TEXTS, &o->assignments, true, 0},
        {"--also", TEXT, &o->also, true, 0},
        {"--name", TEXT, &o->name, true, 0},
        {"--out", TEXT, &o->out, true, 0},
        {"--shard", SHARD, NULL, true, 0},
        {"--image-tokens", NUMBER, &o->image_tokens, true, 1},
        {"--resume", FLAG, &o->resume, true, 0},
        {"--one-by-one", FLAG, &o->one_by_one, false, 0},
        {"--strict", FLAG, &o->strict, true, 0},
        {"--plan", FLAG, &o->plan, true, 0},
        {"--no-baseline", FLAG, &o->no_baseline, true, 0},
        {0},
    };
    memcpy(out, all, sizeof all);
}

/* Takes an own option at argv[*i], which moves to its last argument. 1: it was one, 0: it was not, -1: wrong. */
static int take_own(struct eval_options *o, int argc, char **argv, int *i) {
    struct own_option options[N_OWN + 1];
    own_options(o, options);
    for (const struct own_option *option = options; option->name; option++) {
        const size_t n = strlen(option->name);
        if (strncmp(argv[*i], option->name, n) != 0 || (argv[*i][n] && argv[*i][n] != '=')) {
            continue;
        }
        const int first = *i;
        const char *value = argv[*i][n] ? argv[*i] + n + 1 : NULL;
        if (option->kind == FLAG ? value != NULL : !value && *i + 1 >= argc) {
            complain("%s %s", option->name, option->kind == FLAG ? "takes no value" : "needs a value");
            return -1;
        }
        value = value || option->kind == FLAG ? value : argv[++*i];
        for (int k = first; k <= *i && !option->forgotten; k++) {
            cJSON_AddItemToArray(o->arguments, cJSON_CreateString(argv[k]));
        }
        return take(option, value, o) ? 1 : -1;
    }
    return 0;
}

int eval_option_kind(const char *name) {
    struct eval_options none;
    struct own_option options[N_OWN + 1];
    own_options(&none, options);
    for (const struct own_option *option = options; option->name; option++) {
        if (strcmp(name, option->name + 2) == 0) {
            return option->kind != FLAG;
        }
    }
    return options_kind(name);
}

/* ---- all ----------------------------------------------------------------------------------------- */

/* "\n" in a command line is a line break; a protocol's JSON has real ones. */
static bool unescape_suffix(struct eval_options *o) {
    if (!o->suffix) {
        o->suffix = "";
        return true;
    }
    o->suffix_memory = strdup(o->suffix);
    if (!o->suffix_memory) {
        complain("out of memory");
        return false;
    }
    char *to = o->suffix_memory;
    for (const char *from = o->suffix; *from; from++) {
        const bool line = from[0] == '\\' && from[1] == 'n';
        *to++ = line ? '\n' : *from;
        from += line;
    }
    *to = '\0';
    o->suffix = o->suffix_memory;
    return true;
}

static bool check(struct eval_options *o) {
    if (!o->images) {
        complain("expected --images DIR; see candid eval --help");
        return false;
    }
    if (!o->out && !o->plan) {
        complain("expected --out DIR; see candid eval --help");
        return false;
    }
    if (o->run.n_inputs > 0) {
        complain("\"%s\": expected options only; see candid eval --help", o->run.inputs[0]);
        return false;
    }
    if (o->run.json || o->run.jsonl || o->run.together) {
        complain("--json, --jsonl and --together do not go with candid eval");
        return false;
    }
    if (o->run.config) {
        complain("--beams and --answers: give candid eval a configuration (--config, --set decode.beams=5)");
        return false;
    }
    if (o->sample > 0 && o->list) {
        complain("--sample and --list exclude each other");
        return false;
    }
    return unescape_suffix(o);
}

/* Splits argv: own options are taken, the others become o->argv. */
static bool split_arguments(struct eval_options *o, int argc, char **argv) {
    for (int i = 0; i < argc; i++) {
        const int own = take_own(o, argc, argv, &i);
        if (own < 0) {
            return false;
        }
        if (own == 0) {
            o->argv[o->argc++] = argv[i];
            cJSON_AddItemToArray(o->arguments, cJSON_CreateString(argv[i]));
        }
    }
    return true;
}

/* Takes --protocol FILE out of argv: its options stand before all others. */
static bool take_protocol(int *argc, char **argv, const char **path) {
    for (int i = 2; i < *argc;) {
        const char *const name = "--protocol";
        const bool joined = strncmp(argv[i], "--protocol=", 11) == 0;
        if (!joined && strcmp(argv[i], name) != 0) {
            i++;
            continue;
        }
        const int n = joined ? 1 : 2;
        if (*path || i + n > *argc) {
            complain("%s %s", name,
                     *path ? "can be given once; put the options of both into one file" : "needs a value");
            return false;
        }
        *path = joined ? argv[i] + 11 : argv[i + 1];
        memmove(argv + i, argv + i + n, (size_t)(*argc - i - n) * sizeof *argv);
        *argc -= n;
    }
    return true;
}

int eval_options_parse(int argc, char **argv, struct eval_options *o, bool *done) {
    *o = (struct eval_options){.shard = 1, .n_shards = 1, .arguments = cJSON_CreateArray()};
    *done = true;
    if (argc < 2) {
        fputs(help_text, stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        printf("%s%s", help_text, options_help);
        return EXIT_OK;
    }
    o->benchmark = argv[1];
    const char *protocol = NULL;
    if (!take_protocol(&argc, argv, &protocol) || (protocol && !eval_protocol_read(protocol, o))) {
        return EXIT_USAGE;
    }
    o->argv = calloc((size_t)(argc + o->n_extra) + 1, sizeof *o->argv);
    if (!o->argv) {
        complain("out of memory");
        return EXIT_USAGE;
    }
    o->argv[o->argc++] = argv[0];
    if (!split_arguments(o, o->n_extra, o->extra) || !split_arguments(o, argc - 2, argv + 2)) {
        return EXIT_USAGE;
    }
    const int code = options_parse(o->argc, o->argv, help_text, &o->run, done);
    if (code != EXIT_OK || *done) {
        return code;
    }
    return check(o) ? EXIT_OK : EXIT_USAGE;
}

void eval_options_free(struct eval_options *o) {
    options_free(&o->run);
    struct texts *lists[] = {&o->questions, &o->labels, &o->truth, &o->references, &o->configs, &o->assignments};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        free(lists[i]->values);
    }
    for (int i = 0; i < o->n_extra; i++) {
        free(o->extra[i]);
    }
    free(o->extra);
    free(o->argv);
    free(o->suffix_memory);
    cJSON_Delete(o->arguments);
}
