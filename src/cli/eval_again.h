/* What `candid eval merge` and `--reproduce` have in common: a run set up again from its summary. */
#ifndef CANDID_CLI_EVAL_AGAIN_H
#define CANDID_CLI_EVAL_AGAIN_H

#include "cli/eval.h"
#include "core/json.h"

/* An evaluation set up again. Start from {0}; release with again_free. */
struct again {
    struct json summary;
    char **argv; /* owned, its texts by the summary */
    struct eval_options options;
    struct evaluation e;
    bool prepared;
};

/* Reads a summary; prints what is wrong with it. */
int again_read_summary(const char *path, struct json *out);
/* Sets up the evaluation of a summary that has been read, with the run's configuration. extra: further arguments. */
int again_prepare(struct again *a, int n_extra, char **extra);
void again_free(struct again *a);

/* The text of a member, NULL: there is none. */
const char *again_text(const cJSON *object, const char *key);
/* NULL equals NULL. */
bool again_same_text(const char *a, const char *b);
/* A file of that name in the folder of `summary`; malloc'd. */
char *again_beside(const char *summary, const char *name);

#endif
