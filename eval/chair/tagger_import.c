/* Where NLTK's data lie. */
#include "eval/chair/tagger_import.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/status.h"
#include "eval/common/json_stream.h"

/* directory + "/" + name, malloc'd; NULL without memory. */
static char *path_of(const char *directory, const char *name) {
    char *path;
    return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

static bool has_file(const char *directory, const char *name) {
    char *path = path_of(directory, name);
    const bool found = path && file_exists(path);
    free(path);
    return found;
}

typedef candid_status (*add_bytes)(struct tagger_parts *parts, const uint8_t *bytes, size_t size, const char *label,
                                   candid_error *error);

static candid_status add_pickle_file(struct tagger_parts *parts, const char *path, add_bytes add, candid_error *error) {
    struct mapped_file file;
    char label[208];
    TRY(file_map(path, "a pickle", &file, error));
    const candid_status status = add(parts, file.data ? file.data : (const uint8_t *)"", file.size,
                                     file_label(path, label, sizeof label), error);
    file_unmap(&file);
    return status;
}

/* The three JSON files, of which `weights` is one: their names differ in one word. */
static candid_status add_json_files(struct tagger_parts *parts, const char *weights, candid_error *error) {
    static const char ending[] = "weights.json";
    static const char *const kinds[] = {"weights", "tagdict", "classes"};
    const int stem = (int)(strlen(weights) - (sizeof ending - 1));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char *path;
        if (asprintf(&path, "%.*s%s.json", stem, weights, kinds[i]) < 0) {
            return fail_memory(error, "the name of a file", strlen(weights));
        }
        struct json_stream s;
        candid_status status = json_stream_open(path, &s, error);
        if (status == CANDID_OK) {
            status = tagger_add_json(parts, kinds[i], &s, error);
            json_stream_close(&s);
        }
        free(path);
        TRY(status);
    }
    return CANDID_OK;
}

static bool ends_with(const char *text, const char *ending) {
    const size_t n = strlen(text), m = strlen(ending);
    return n >= m && strcmp(text + n - m, ending) == 0;
}

static candid_status add_tagger_file(struct tagger_parts *parts, const char *path, candid_error *error) {
    return ends_with(path, "weights.json") ? add_json_files(parts, path, error)
                                           : add_pickle_file(parts, path, tagger_add_pickle, error);
}

/* The first of the places where the tagger's weights can be, NULL when there is none. Malloc'd. */
static char *find_tagger(const char *directory) {
    static const char *const places[] = {
        "taggers/averaged_perceptron_tagger_eng/averaged_perceptron_tagger_eng.weights.json",
        "averaged_perceptron_tagger_eng/averaged_perceptron_tagger_eng.weights.json",
        "averaged_perceptron_tagger_eng.weights.json",
        "taggers/averaged_perceptron_tagger/averaged_perceptron_tagger.pickle",
        "averaged_perceptron_tagger/averaged_perceptron_tagger.pickle",
        "averaged_perceptron_tagger.pickle",
    };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (has_file(directory, places[i])) {
            return path_of(directory, places[i]);
        }
    }
    return NULL;
}

static candid_status add_punkt_texts(struct tagger_parts *parts, const char *directory, candid_error *error) {
    static const char *const names[] = {"abbrev_types.txt", "collocations.tab", "ortho_context.tab"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = path_of(directory, names[i]);
        struct mapped_file file;
        char label[208];
        candid_status status =
            path ? file_map(path, "a text file", &file, error) : fail_memory(error, "the name of a file", 4096);
        if (status == CANDID_OK) {
            status = tagger_add_punkt_text(parts, names[i], file.data ? (const char *)file.data : "", file.size,
                                           file_label(path, label, sizeof label), error);
            file_unmap(&file);
        }
        free(path);
        TRY(status);
    }
    return CANDID_OK;
}

/* Punkt's data, where they are; *found says whether. */
static candid_status add_punkt(struct tagger_parts *parts, const char *directory, bool *found, candid_error *error) {
    static const char *const pickles[] = {"tokenizers/punkt/PY3/english.pickle", "tokenizers/punkt/english.pickle"};
    *found = true;
    if (has_file(directory, "tokenizers/punkt_tab/english/abbrev_types.txt")) {
        char *english = path_of(directory, "tokenizers/punkt_tab/english");
        const candid_status status =
            english ? add_punkt_texts(parts, english, error) : fail_memory(error, "the name of a file", 4096);
        free(english);
        return status;
    }
    for (size_t i = 0; i < sizeof pickles / sizeof *pickles; i++) {
        if (has_file(directory, pickles[i])) {
            char *path = path_of(directory, pickles[i]);
            const candid_status status = path ? add_pickle_file(parts, path, tagger_add_punkt_pickle, error)
                                              : fail_memory(error, "the name of a file", 4096);
            free(path);
            return status;
        }
    }
    *found = false;
    return CANDID_OK;
}

static candid_status add_all(struct tagger_parts *parts, const char *path, char **from, candid_error *error) {
    char label[208];
    bool punkt = false;
    char *weights = file_is_directory(path) ? find_tagger(path) : strdup(path);
    if (!weights) {
        return fail(error, CANDID_ERROR_IO,
                    "%s: no taggers/averaged_perceptron_tagger_eng/averaged_perceptron_tagger_eng.weights.json and no "
                    "taggers/averaged_perceptron_tagger/averaged_perceptron_tagger.pickle; unpack the .zip files there",
                    file_label(path, label, sizeof label));
    }
    candid_status status = add_tagger_file(parts, weights, error);
    if (status == CANDID_OK && file_is_directory(path)) {
        status = add_punkt(parts, path, &punkt, error);
    }
    const char *name = strrchr(weights, '/');
    if (status == CANDID_OK &&
        asprintf(from, "%s%s", name ? name + 1 : weights, punkt ? " with Punkt data" : " without Punkt data") < 0) {
        *from = NULL;
        status = fail_memory(error, "the name of a file", strlen(weights));
    }
    free(weights);
    return status;
}

candid_status tagger_import(const char *path, char **text, size_t *size, candid_error *error) {
    struct tagger_parts parts = {0};
    char *from = NULL;
    *text = NULL;
    candid_status status = add_all(&parts, path, &from, error);
    if (status == CANDID_OK) {
        status = tagger_write(&parts, from, text, size, error);
    }
    tagger_parts_free(&parts);
    free(from);
    /* The reader of the file is the judge of it: a tag without a name, say. */
    struct tagger *check = NULL;
    if (status == CANDID_OK) {
        status = tagger_parse(*text, *size, "what was imported", &check, error);
    }
    tagger_free(check);
    if (status != CANDID_OK) {
        free(*text);
        *text = NULL;
    }
    return status;
}
