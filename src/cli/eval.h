/* candid eval: benchmarks end to end. */
#ifndef CANDID_CLI_EVAL_H
#define CANDID_CLI_EVAL_H

#include "cli/chair.h"
#include "cli/cli.h"
#include "eval/amber/amber.h"
#include "eval/common/items.h"
#include "eval/run/results.h"
#include "eval/run/runner.h"

/* Values of an option that may be repeated. */
struct texts {
    const char **values; /* [n], borrowed */
    size_t n;
};

/* A configuration to run the benchmark with. */
struct eval_config {
    char name[96];
    const char *path;      /* its file, or NULL */
    candid_config *config; /* NULL: no method */
};

/* The command line. Texts are borrowed from it, or from a protocol. */
struct eval_options {
    const char *benchmark;
    struct run_options run; /* model, prompt, generation */
    struct texts questions, labels, truth, references, configs, assignments;
    const char *images, *truth_cache, *mode, *truth_mode, *tagger, *synonyms, *list, *rule, *suffix, *cut, *out, *name,
        *also;
    const char *amber_data, *similarity;
    bool plan, strict, no_baseline, resume, one_by_one;
    int limit, sample, batch, image_tokens;
    int sample_seed;
    int shard, n_shards; /* 1-based; 1 of 1: everything */
    char *suffix_memory;
    char **argv; /* what `run` was parsed from, owned */
    int argc;
    char **extra; /* [n_extra] a protocol's options, owned */
    int n_extra;
    cJSON *arguments; /* array: the command line again, without what does not decide answers or scores */
};

/* Parses argv[1..] (argv[0] is "eval"), a protocol's options first. Prints problems; *done: help was printed. */
int eval_options_parse(int argc, char **argv, struct eval_options *out, bool *done);
void eval_options_free(struct eval_options *o);

/* Reads a protocol's options into o->extra, each as "--name=value" or "--name". Prints problems. */
bool eval_protocol_read(const char *path, struct eval_options *o);
/* Of an option without its dashes: 1 it takes a value, 0 it takes none, -1 there is none of that name. */
int eval_option_kind(const char *name);

struct evaluation;

/* One benchmark. */
struct benchmark {
    const char *name;
    const char *prompt; /* of items without a question, NULL: they all have one */
    int batch;          /* requests answered at a time, if not given */
    /* Reads the questions. */
    candid_status (*read)(struct evaluation *e, struct eval_items *items, candid_error *error);
    /* Scores the answers; NULL: there is nothing to score. */
    candid_status (*score)(struct evaluation *e, struct eval_scores *out, candid_error *error);
    /* Before hours of work: opens what scoring needs and tries it. May be NULL. */
    candid_status (*check)(struct evaluation *e, candid_error *error);
    void (*print)(const cJSON *scores); /* the scores on standard output; NULL: nothing */
};

const struct benchmark *benchmark_find(const char *name);

/* Everything between the command line and a run. */
struct evaluation {
    struct eval_options *o;
    const struct benchmark *bench;
    struct eval_items items;
    struct eval_units units;
    struct eval_config *configs; /* [n_configs] */
    size_t n_configs;
    struct chair_session chair; /* open for chair */
    struct amber_data *amber;   /* of amber */
    struct amber_nouns nouns;
    cJSON *model; /* of the summary */
    candid_model *opened;
    candid_context *context;
};

/* Reads questions and configurations. Prints problems. */
int evaluation_prepare(struct eval_options *o, struct evaluation *out);
/* The questions of the benchmark, without answers. */
candid_status evaluation_items(struct evaluation *e, struct eval_items *items, candid_error *error);
/* Opens model and context. */
int evaluation_open(struct evaluation *e);
void evaluation_free(struct evaluation *e);
/* How its questions are asked. */
struct eval_prompt eval_prompt(const struct evaluation *e);

/* What decides the answers, for summary and run id: "settings", "data", "config". The caller deletes it. */
cJSON *eval_about(const struct evaluation *e, const struct eval_config *config);
void eval_run_id(const struct evaluation *e, const cJSON *about, char id[9]);

/* A run's files: OUT/NAME.jsonl, OUT/NAME.scored.jsonl, OUT/NAME.json; of a shard OUT/NAME.shard-I-of-N.…. malloc'd. */
char *eval_file(const char *folder, const char *name, int shard, int n_shards, const char *ending);

/* Scores what is complete, writes verdicts and summary. about: from eval_about(). */
int eval_finish(struct evaluation *e, const struct eval_config *config, const cJSON *about, const char *run,
                const char *started, const char *why_not, const struct eval_held *held);

/* The run's numbers on standard output. */
void eval_print(const cJSON *summary);

int eval_plan(struct evaluation *e);
int eval_runs(struct evaluation *e);
int eval_merge(int argc, char **argv);
int eval_reproduce(int argc, char **argv);
int eval_export(int argc, char **argv);

#endif
