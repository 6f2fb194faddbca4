/* What the commands about CHAIR share: words, tagger and truth as the command line asks for them. */
#ifndef CANDID_CLI_CHAIR_H
#define CANDID_CLI_CHAIR_H

#include "eval/chair/chair.h"

/* What was asked for; NULL: not given. */
struct chair_request {
    const char *mode, *truth_mode;
    const char *tagger;   /* file; NULL: the default one if it exists */
    const char *synonyms; /* file; NULL: COCO's */
    const char *truth_cache;
    struct truth_files files;
};

/* Start from {0}; release with chair_session_close. */
struct chair_session {
    struct vocabulary *vocabulary;
    struct tagger *tagger; /* NULL when no mode needs one */
    struct word_tagger classify;
    struct chair_language language, truth_language;
    struct chair_truth *truth;
};

/*
 * Opens everything. Without a mode it is nltk38 where there is a tagger, else approximate, which a line on stderr says.
 * The mode of the truth is that of the captions unless another is asked for. Prints errors; an exit code.
 */
int chair_session_open(const struct chair_request *request, struct chair_session *session);
void chair_session_close(struct chair_session *session);

#endif
