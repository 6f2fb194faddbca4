/* Reading candid's tagger file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc32.h"
#include "core/file.h"
#include "core/status.h"
#include "core/text.h"
#include "eval/chair/tagger.h"
#include "eval/common/sha256.h"

struct reader {
    const char *label;
    char *at; /* the rest of the text; lines are cut off it */
    char *line;
    int n_lines;
    struct tagger *tagger;
    size_t weights_capacity;
};

static candid_status broken(const struct reader *r, candid_error *error, const char *expected) {
    struct printable p;
    return fail(error, CANDID_ERROR_FORMAT, "%s:%d: expected %s, found \"%s\"", r->label, r->n_lines, expected,
                printable_string(&p, r->line));
}

static bool next_line(struct reader *r) {
    r->line = r->at;
    if (*r->at == '\0') {
        return false;
    }
    r->n_lines++;
    char *end = strchr(r->at, '\n');
    r->at = end ? end + 1 : r->at + strlen(r->at);
    if (end) {
        *end = '\0';
    }
    return true;
}

/* "NAME N": the number of lines that follow, no more than the text has bytes. */
static candid_status section(struct reader *r, const char *name, size_t *n, candid_error *error) {
    const size_t length = strlen(name);
    char expected[40], *end = NULL;
    snprintf(expected, sizeof expected, "\"%s N\"", name);
    const bool found = next_line(r) && strncmp(r->line, name, length) == 0 && r->line[length] == ' ';
    const unsigned long long value =
        found && strspn(r->line + length + 1, "0123456789") > 0 ? strtoull(r->line + length + 1, &end, 10) : 0;
    if (!end || *end || value > strlen(r->at)) {
        return broken(r, error, expected);
    }
    *n = (size_t)value;
    return CANDID_OK;
}

static candid_status entry(struct reader *r, const char *what, candid_error *error) {
    return next_line(r) && *r->line ? CANDID_OK : broken(r, error, what);
}

static candid_status read_tags(struct reader *r, candid_error *error) {
    struct tagger *t = r->tagger;
    size_t n;
    TRY(section(r, "tags", &n, error));
    if (n == 0 || n > MAX_TAGS) {
        return broken(r, error, "1 to 255 tags");
    }
    for (; t->n_tags < n; t->n_tags++) {
        TRY(entry(r, "a tag", error));
        if (strlen(r->line) > 32 || (t->n_tags > 0 && strcmp(t->tags[t->n_tags - 1], r->line) >= 0)) {
            return broken(r, error, "a tag of at most 32 bytes, in alphabetical order");
        }
        t->tags[t->n_tags] = r->line;
        t->classes[t->n_tags] = (uint8_t)tag_class(r->line);
    }
    return CANDID_OK;
}

static bool find_tag(const struct tagger *t, const char *name, uint32_t *out) {
    for (uint32_t i = 0; i < t->n_tags; i++) {
        if (strcmp(t->tags[i], name) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

static candid_status read_words(struct reader *r, candid_error *error) {
    struct tagger *t = r->tagger;
    size_t n;
    TRY(section(r, "words", &n, error));
    TRY(string_table_reserve(&t->words, n, error));
    for (size_t i = 0; i < n; i++) {
        TRY(entry(r, "a word", error));
        char *tab = strchr(r->line, '\t');
        uint32_t tag;
        if (!tab || tab == r->line || !find_tag(t, tab + 1, &tag)) {
            return broken(r, error, "\"WORD<tab>TAG\"");
        }
        TRY(string_table_put(&t->words, r->line, (size_t)(tab - r->line), tag, error));
    }
    return CANDID_OK;
}

static candid_status add_weight(struct reader *r, uint32_t tag, double weight, candid_error *error) {
    struct tagger *t = r->tagger;
    if (t->n_weights == r->weights_capacity) {
        const size_t capacity = r->weights_capacity > 0 ? 2 * r->weights_capacity : 4096;
        struct tag_weight *grown = capacity < UINT32_MAX ? realloc(t->weights, capacity * sizeof *grown) : NULL;
        if (!grown) {
            return fail_memory(error, "the weights of a tagger", capacity * sizeof *grown);
        }
        t->weights = grown;
        r->weights_capacity = capacity;
    }
    t->weights[t->n_weights++] = (struct tag_weight){weight, tag};
    return CANDID_OK;
}

/* "TAG WEIGHT TAG WEIGHT…" */
static candid_status read_weights(struct reader *r, char *at, candid_error *error) {
    static const char expected[] = "\"FEATURE<tab>TAG WEIGHT TAG WEIGHT…\"";
    while (*at) {
        char *blank = strchr(at, ' '), *end = NULL;
        uint32_t tag;
        if (!blank) {
            return broken(r, error, expected);
        }
        *blank = '\0';
        const bool known = find_tag(r->tagger, at, &tag);
        *blank = ' ';
        const double weight = strtod(blank + 1, &end);
        if (!known || end == blank + 1 || (*end && *end != ' ') || !(weight > -1e9 && weight < 1e9)) {
            return broken(r, error, expected);
        }
        TRY(add_weight(r, tag, weight, error));
        at = end + (*end == ' ');
    }
    return CANDID_OK;
}

static candid_status read_features(struct reader *r, candid_error *error) {
    struct tagger *t = r->tagger;
    TRY(section(r, "features", &t->n_features, error));
    TRY(string_table_reserve(&t->features, t->n_features, error));
    t->first = malloc((t->n_features + 1) * sizeof *t->first);
    if (!t->first) {
        return fail_memory(error, "the features of a tagger", (t->n_features + 1) * sizeof *t->first);
    }
    for (size_t i = 0; i < t->n_features; i++) {
        TRY(entry(r, "a feature", error));
        char *tab = strchr(r->line, '\t');
        if (!tab || tab == r->line) {
            return broken(r, error, "\"FEATURE<tab>TAG WEIGHT TAG WEIGHT…\"");
        }
        t->first[i] = (uint32_t)t->n_weights;
        TRY(read_weights(r, tab + 1, error));
        TRY(string_table_put(&t->features, r->line, (size_t)(tab - r->line), (uint32_t)i, error));
    }
    t->first[t->n_features] = (uint32_t)t->n_weights;
    return CANDID_OK;
}

static candid_status read_list(struct reader *r, const char *name, struct string_table *out, candid_error *error) {
    size_t n;
    TRY(section(r, name, &n, error));
    TRY(string_table_reserve(out, n, error));
    for (size_t i = 0; i < n; i++) {
        TRY(entry(r, "a word", error));
        TRY(string_table_put(out, r->line, strlen(r->line), 0, error));
        r->tagger->has_punkt = true;
    }
    return CANDID_OK;
}

static candid_status read_all(struct reader *r, candid_error *error) {
    struct tagger *t = r->tagger;
    next_line(r); /* the magic line, checked */
    if (!next_line(r) || strncmp(r->line, "from ", 5) != 0) {
        return broken(r, error, "\"from TEXT\"");
    }
    t->from = r->line + 5;
    TRY(read_tags(r, error));
    TRY(read_words(r, error));
    TRY(read_features(r, error));
    TRY(read_list(r, "abbreviations", &t->punkt.abbreviations, error));
    TRY(read_list(r, "collocations", &t->punkt.collocations, error));
    TRY(read_list(r, "starters", &t->punkt.starters, error));
    return next_line(r) ? broken(r, error, "the end of the file") : CANDID_OK;
}

/* The text without its last line, which is the checksum of the rest. */
static candid_status check_sum(const char *text, size_t size, const char *label, size_t *rest, candid_error *error) {
    static const size_t line = sizeof "crc32 00000000\n" - 1, magic = sizeof TAGGER_MAGIC - 1;
    if (size <= magic || memcmp(text, TAGGER_MAGIC, magic) != 0 || text[magic] != '\n') {
        return fail(error, CANDID_ERROR_FORMAT,
                    "%s is no tagger file of this version of candid; make one with candid chair import-tagger", label);
    }
    char expected[32] = "";
    if (size > line && !memchr(text, '\0', size)) {
        snprintf(expected, sizeof expected, "crc32 %08x\n", crc32_update(0, text, size - line));
    }
    if (size <= line || memcmp(text + size - line, expected, line) != 0) {
        return fail(error, CANDID_ERROR_FORMAT, "%s is cut or damaged: its checksum does not fit", label);
    }
    *rest = size - line;
    return CANDID_OK;
}

candid_status tagger_parse(const char *text, size_t size, const char *label, struct tagger **out, candid_error *error) {
    *out = NULL;
    size_t rest = 0;
    TRY(check_sum(text, size, label, &rest, error));
    struct tagger *t = calloc(1, sizeof *t);
    char *copy = strndup(text, rest);
    if (!t || !copy) {
        free(t);
        free(copy);
        return fail_memory(error, "a tagger", rest);
    }
    t->text = copy;
    sha256_hex(text, size, t->sha256);
    const candid_status status = read_all(&(struct reader){.label = label, .at = copy, .tagger = t}, error);
    if (status != CANDID_OK) {
        tagger_free(t);
        return status;
    }
    *out = t;
    return CANDID_OK;
}

candid_status tagger_open(const char *path, struct tagger **out, candid_error *error) {
    *out = NULL;
    struct mapped_file file;
    TRY(file_map(path, "a tagger file", &file, error));
    char label[208];
    const candid_status status = tagger_parse(file.data ? (const char *)file.data : "", file.size,
                                              file_label(path, label, sizeof label), out, error);
    file_unmap(&file);
    return status;
}
