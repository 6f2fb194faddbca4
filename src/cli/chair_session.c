#include <stdlib.h>
#include <string.h>

#include "cli/chair.h"
#include "cli/cli.h"
#include "core/file.h"

static bool needs_tagger(enum chair_mode mode) {
    return mode == CHAIR_NLTK38 || mode == CHAIR_NLTK39;
}

static int find_mode(const char *option, const char *name, enum chair_mode *out) {
    if (!name || chair_mode_find(name, out)) {
        return EXIT_OK;
    }
    complain("%s \"%s\": expected nltk38, nltk39, pattern or approximate", option, name);
    return EXIT_USAGE;
}

/* Opens the tagger that the modes need. */
static int open_tagger(const struct chair_request *request, const char *path, bool exists,
                       struct chair_session *session) {
    candid_error error;
    if (!exists) {
        complain("mode %s needs NLTK's part-of-speech tagger, which candid does not contain. Import it from your NLTK "
                 "data (python -m nltk.downloader averaged_perceptron_tagger_eng punkt_tab):\n"
                 "  candid chair import-tagger ~/nltk_data\n"
                 "or use --mode pattern, or --mode approximate",
                 request->mode ? request->mode : request->truth_mode);
        return EXIT_USAGE;
    }
    if (tagger_open(path, &session->tagger, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_USAGE;
    }
    session->classify = (struct word_tagger){tagger_classify, session->tagger};
    return EXIT_OK;
}

static struct chair_language language_of(const struct chair_session *session, enum chair_mode mode) {
    return (struct chair_language){
        .mode = mode,
        .vocabulary = session->vocabulary,
        .tagger = session->tagger ? &session->classify : NULL,
        .tokenizer.punkt = session->tagger ? &session->tagger->punkt : NULL,
    };
}

/* The two languages, with the tagger where one of them needs it. */
static int open_languages(const struct chair_request *request, struct chair_session *session) {
    char *standard = tagger_default_path();
    const char *path = request->tagger ? request->tagger : standard;
    const bool exists = path && (request->tagger || file_exists(path));
    enum chair_mode mode = exists ? CHAIR_NLTK38 : CHAIR_APPROXIMATE;
    int code = find_mode("--mode", request->mode, &mode);
    enum chair_mode truth_mode = mode;
    code = code != EXIT_OK ? code : find_mode("--truth-mode", request->truth_mode, &truth_mode);
    if (code == EXIT_OK && (needs_tagger(mode) || needs_tagger(truth_mode))) {
        code = open_tagger(request, path, exists, session);
    }
    free(standard);
    if (code != EXIT_OK) {
        return code;
    }
    if (!request->mode && mode == CHAIR_APPROXIMATE) {
        fputs("candid: note: no tagger was imported: mode approximate takes every word for a noun; see candid chair "
              "import-tagger --help\n",
              stderr);
    }
    session->language = language_of(session, mode);
    session->truth_language = language_of(session, truth_mode);
    return EXIT_OK;
}

/* From the cache, which must be the right one, or from the annotations. */
static candid_status open_truth(const struct chair_request *request, struct chair_session *session,
                                candid_error *error) {
    const char *tagger = session->tagger ? session->tagger->sha256 : "";
    if (!request->truth_cache) {
        return chair_truth_build(&session->truth_language, tagger, &request->files, &session->truth, error);
    }
    const candid_status status = chair_truth_read(request->truth_cache, &session->truth, error);
    return status != CANDID_OK ? status
                               : chair_truth_check(session->truth, request->truth_cache, session->truth_language.mode,
                                                   session->vocabulary, tagger, &request->files, error);
}

int chair_session_open(const struct chair_request *request, struct chair_session *session) {
    candid_error error;
    if (vocabulary_open(request->synonyms, &session->vocabulary, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_USAGE;
    }
    const int code = open_languages(request, session);
    if (code != EXIT_OK) {
        return code;
    }
    if (open_truth(request, session, &error) != CANDID_OK) {
        complain("%s", error.message);
        return EXIT_ITEM;
    }
    return EXIT_OK;
}

void chair_session_close(struct chair_session *session) {
    chair_language_free(&session->language);
    chair_language_free(&session->truth_language);
    chair_truth_free(session->truth);
    tagger_free(session->tagger);
    vocabulary_free(session->vocabulary);
    *session = (struct chair_session){0};
}
