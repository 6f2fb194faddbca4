/* Shared parts of `candid score BENCHMARK`. */
#ifndef CANDID_CLI_SCORE_H
#define CANDID_CLI_SCORE_H

#include "cli/cli.h"
#include "eval/common/items.h"

/* ---- benchmarks: argv[0] is the benchmark's name ---- */
int score_pope(int argc, char **argv);
int score_chair(int argc, char **argv);
int score_mme(int argc, char **argv);
int score_amber(int argc, char **argv);
int score_sycophancy(int argc, char **argv);

/* ---- arguments ---- */

/* Files that stand side by side in argv. */
struct score_files {
    char **paths;
    int n;
};

/* An option of a benchmark; exactly one of the pointers is set. */
struct score_option {
    const char *name;          /* "--rule" */
    const char **value;        /* takes one value */
    struct score_files *files; /* takes every argument up to the next option */
    bool *flag;
};

/* What every benchmark has. */
struct score_output {
    const char *json;   /* --json FILE: the scores as one object, NULL: none */
    const char *scored; /* --scored FILE: one verdict per line */
};

/*
 * Parses argv: `files` are the arguments before the first option or after "--"; options: the list ends with {0}.
 * --json, --scored and --help need no entry. On a problem complains and returns EXIT_USAGE; on --help prints help and
 * returns EXIT_OK with *done = true.
 */
int score_parse(int argc, char **argv, const char *help, const struct score_option *options, struct score_files *files,
                struct score_output *output, bool *done);

/* The lines about --json and --scored for --help. */
extern const char score_output_help[];

/* ---- output ---- */

/* Writes what `output` asks for. "-" is standard output. */
int score_write(const struct score_output *output, const char *benchmark, const struct eval_items *items,
                const struct eval_scores *scores);

/* A line per verdict; false when it cannot be written. */
bool score_print_verdicts(FILE *to, const struct eval_scores *scores);

/* The tables of a summary's "scores". */
void score_pope_print(const cJSON *scores);
void score_chair_print(const cJSON *scores);
void score_mme_print(const cJSON *scores);
void score_amber_print(const cJSON *scores);

/* How many items have no answer; says so on standard error. */
size_t score_count_failed(const struct eval_items *items);

/* One line per file that was read: questions, checksum, which published version it is. */
void score_print_sources(const struct eval_items *items);

/* A fraction in percent with two decimals and the width given, "-" for null. */
void score_print_percent(const cJSON *object, const char *key, int width);

#endif
