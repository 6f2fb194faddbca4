/* Shared parts of the command line program. Unlike the library it prints and may hold process-wide state. */
#ifndef CANDID_CLI_CLI_H
#define CANDID_CLI_CLI_H

#include <stdbool.h>
#include <stdio.h>

#include "candid/candid.h"

/* Documented in --help and README. */
enum exit_code {
    EXIT_OK = 0,
    EXIT_ITEM = 1,          /* at least one image failed; the others were done */
    EXIT_USAGE = 2,         /* wrong command line */
    EXIT_MODEL = 3,         /* the model cannot be opened */
    EXIT_OUTPUT = 4,        /* the output cannot be written */
    EXIT_INTERRUPTED = 130, /* Ctrl-C */
};

/* ---- commands: argv[0] is the command's name ---- */
int command_caption(int argc, char **argv);
int command_ask(int argc, char **argv);
int command_model(int argc, char **argv);
int command_convert(int argc, char **argv);
int command_quantize(int argc, char **argv);
int command_verify(int argc, char **argv);
int command_bench(int argc, char **argv);
int command_config(int argc, char **argv);
int command_methods(int argc, char **argv);
int command_calibrate(int argc, char **argv);
int command_inspect(int argc, char **argv);
int command_eval(int argc, char **argv);
int command_score(int argc, char **argv);
int command_pope(int argc, char **argv);
int command_chair(int argc, char **argv);
int command_report(int argc, char **argv);
int command_hosts(int argc, char **argv);

/* What `candid caption` and `candid inspect` ask without -q. */
#define CAPTION_PROMPT "Please help me describe the image in detail."

/* ---- options of the commands that run a model ---- */
struct run_options {
    const char *model, *mmproj; /* model NULL: the embedded demo model */
    const char *prompt;
    const char *conversation; /* template name or text, NULL: the model's */
    const char *json, *jsonl; /* output paths, "-" for stdout, or NULL */
    bool resume, verbose, together;
    int n_ctx, n_threads;
    candid_precision precision;
    candid_kv_type kv_type;
    candid_generate_params generate; /* .config is owned by `config` */
    candid_config *config;           /* NULL: no method; options_free releases it */
    const char *stop[16];
    char **inputs; /* remaining arguments */
    int n_inputs;
};

/* Parses argv; on a problem prints it with the usage hint and returns EXIT_USAGE, on --help prints help and returns
 * EXIT_OK with *done = true. */
int options_parse(int argc, char **argv, const char *help, struct run_options *out, bool *done);

void options_free(struct run_options *o);

/* Of a long option without its dashes: 1 it takes a value, 0 it takes none, -1 there is none of that name. */
int options_kind(const char *name);

/* Text of the option list for --help. */
extern const char options_help[];

/* ---- helpers ---- */

/* "candid: error: …" on stderr. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Opens the named or the embedded model; prints errors. *out is owned by the caller. */
int open_model(const struct run_options *o, candid_model **out);

/* Expands directories (sorted, images by extension, not recursive). *paths: malloc'd strings, free with paths_free. */
int paths_collect(char **inputs, int n_inputs, char ***paths, size_t *n_paths);
void paths_free(char **paths, size_t n_paths);

/* Makes a folder and those above it; one that is there is as good. False: prints why not. */
bool make_folder(const char *path);

/* Whether a file's name is that of an image. */
bool has_image_extension(const char *name);

/* Ctrl-C: the first one asks the running work to end, the second kills. */
void interrupt_install(void);
bool interrupt_requested(void *unused);

/* One line per method: what it did, or why it did nothing. `interventions`: as in candid_result. */
void print_interventions(FILE *to, const char *interventions);

/* The speed line: image encode ms, prefill tok/s, decode tok/s, achieved GB/s, fingerprint. */
void print_speed(FILE *to, const candid_stats *stats);

#endif
