/*
 * The truth as lines of text, so that the reference captions need not be read again:
 *
 *     candid-chair-truth 1
 *     mode nltk38
 *     vocabulary 80 SHA256
 *     tagger SHA256|-
 *     source instances|captions BYTES ANNOTATIONS SHA256 PATH
 *     images N
 *     ID MASK[ NAME]       the mask as hexadecimal numbers of 64 bits, class 0 in the lowest bit of the first
 *     crc32 XXXXXXXX       of everything before
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc32.h"
#include "core/file.h"
#include "core/status.h"
#include "core/text.h"
#include "eval/chair/truth.h"
#include "eval/common/sha256.h"

#define MAGIC "candid-chair-truth 1"

/* ---- writing ---- */

static void write_line(FILE *file, uint32_t *crc, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void write_line(FILE *file, uint32_t *crc, const char *format, ...) {
    char line[8192];
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    const size_t size = n < 0 ? 0 : (size_t)n < sizeof line ? (size_t)n : sizeof line - 1;
    fwrite(line, 1, size, file);
    *crc = crc32_update(*crc, line, size);
}

static void write_images(const struct chair_truth *truth, FILE *file, uint32_t *crc) {
    const char **names = calloc(truth->n > 0 ? truth->n : 1, sizeof *names);
    for (size_t i = 0; names && i < truth->n_names; i++) {
        names[truth->name_images[i]] = truth->name_texts[i];
    }
    write_line(file, crc, "images %zu\n", truth->n);
    for (size_t i = 0; i < truth->n; i++) {
        write_line(file, crc, "%" PRId64, truth->ids[i]);
        for (size_t w = 0; w < truth->n_words; w++) {
            write_line(file, crc, " %" PRIx64, truth->masks[i * truth->n_words + w]);
        }
        write_line(file, crc, names && names[i] ? " %s\n" : "%s\n", names && names[i] ? names[i] : "");
    }
    free(names);
}

/* Names are parts of lines. */
static candid_status check_names(const struct chair_truth *truth, candid_error *error) {
    for (size_t i = 0; i < truth->n_names + truth->n_sources; i++) {
        const char *name = i < truth->n_names ? truth->name_texts[i] : truth->sources[i - truth->n_names].path;
        if (strpbrk(name, "\r\n") || strlen(name) > 4000) {
            struct printable p;
            return fail(error, CANDID_ERROR_UNSUPPORTED, "the name \"%s\" cannot be written to a cache",
                        printable_string(&p, name));
        }
    }
    return CANDID_OK;
}

candid_status chair_truth_write(const struct chair_truth *truth, const char *path, candid_error *error) {
    TRY(check_names(truth, error));
    char label[208];
    file_label(path, label, sizeof label);
    FILE *file = fopen(path, "wb");
    if (!file) {
        return fail(error, CANDID_ERROR_IO, "cannot write %s: %s", label, strerror(errno));
    }
    uint32_t crc = 0;
    write_line(file, &crc, MAGIC "\nmode %s\n", chair_mode_name(truth->mode));
    write_line(file, &crc, "vocabulary %zu %s\ntagger %s\n", truth->n_classes, truth->vocabulary,
               truth->tagger[0] ? truth->tagger : "-");
    for (size_t i = 0; i < truth->n_sources; i++) {
        const struct truth_source *s = &truth->sources[i];
        write_line(file, &crc, "source %s %" PRIu64 " %zu %s %s\n", s->captions ? "captions" : "instances", s->size,
                   s->n, s->sha256, s->path);
    }
    write_images(truth, file, &crc);
    fprintf(file, "crc32 %08x\n", crc);
    const bool failed = ferror(file) != 0;
    if (fclose(file) != 0 || failed) {
        return fail(error, CANDID_ERROR_IO, "cannot write %s", label);
    }
    return CANDID_OK;
}

/* ---- reading ---- */

struct reader {
    const char *label;
    char *at; /* the rest of the text, NUL-terminated lines are cut off it */
    char *line;
    int n_lines;
};

static candid_status broken(const struct reader *r, candid_error *error, const char *expected) {
    struct printable p;
    return fail(error, CANDID_ERROR_FORMAT, "%s:%d: expected %s, found \"%s\"", r->label, r->n_lines, expected,
                printable_string(&p, r->line));
}

static bool next_line(struct reader *r) {
    if (*r->at == '\0') {
        r->line = r->at;
        return false;
    }
    r->line = r->at;
    r->n_lines++;
    char *end = strchr(r->at, '\n');
    r->at = end ? end + 1 : r->at + strlen(r->at);
    if (end) {
        *end = '\0';
    }
    return true;
}

static bool is_sha256(const char *text) {
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

/* The next blank-separated field of the line, "" at its end. */
static char *field(char **rest) {
    char *start = *rest, *blank = strchr(start, ' ');
    *rest = blank ? blank + 1 : start + strlen(start);
    if (blank) {
        *blank = '\0';
    }
    return start;
}

static bool read_number(const char *text, uint64_t *out) {
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0;
}

static candid_status read_head(struct reader *r, struct chair_truth *truth, candid_error *error) {
    if (!next_line(r) || strcmp(r->line, MAGIC) != 0) {
        return broken(r, error, "\"" MAGIC "\"");
    }
    if (!next_line(r) || strncmp(r->line, "mode ", 5) != 0 || !chair_mode_find(r->line + 5, &truth->mode)) {
        return broken(r, error, "\"mode NAME\"");
    }
    uint64_t n = 0;
    char none[1] = "";
    char *rest = next_line(r) && strncmp(r->line, "vocabulary ", 11) == 0 ? r->line + 11 : none;
    if (!read_number(field(&rest), &n) || n == 0 || n > 32767 || !is_sha256(rest)) {
        return broken(r, error, "\"vocabulary N SHA256\"");
    }
    strcpy(truth->vocabulary, rest);
    truth->n_classes = (size_t)n;
    truth->n_words = (truth->n_classes + 63) / 64;
    if (!next_line(r) || strncmp(r->line, "tagger ", 7) != 0 ||
        (strcmp(r->line + 7, "-") != 0 && !is_sha256(r->line + 7))) {
        return broken(r, error, "\"tagger SHA256\"");
    }
    strcpy(truth->tagger, r->line[7] == '-' ? "" : r->line + 7);
    return CANDID_OK;
}

static candid_status read_source(struct reader *r, struct chair_truth *truth, candid_error *error) {
    char *rest = r->line + strlen("source ");
    const char *kind = field(&rest);
    struct truth_source source = {.captions = strcmp(kind, "captions") == 0};
    uint64_t n;
    if ((!source.captions && strcmp(kind, "instances") != 0) || !read_number(field(&rest), &source.size) ||
        !read_number(field(&rest), &n)) {
        return broken(r, error, "\"source KIND BYTES ANNOTATIONS SHA256 PATH\"");
    }
    source.n = (size_t)n;
    const char *hash = field(&rest);
    if (!is_sha256(hash) || !*rest) {
        return broken(r, error, "\"source KIND BYTES ANNOTATIONS SHA256 PATH\"");
    }
    strcpy(source.sha256, hash);
    source.path = rest;
    return chair_truth_add_source(truth, &source, error);
}

static candid_status read_image(struct reader *r, struct chair_truth *truth, candid_error *error) {
    char *rest = r->line, *end;
    const char *id_text = field(&rest);
    errno = 0;
    const long long id = strtoll(id_text, &end, 10);
    if (end == id_text || *end || errno != 0 || chair_truth_image(truth, id) != TRUTH_NO_IMAGE) {
        return broken(r, error, "the id of another image");
    }
    size_t index;
    TRY(chair_truth_add(truth, id, &index, error));
    for (size_t w = 0; w < truth->n_words; w++) {
        const char *text = field(&rest);
        const uint64_t mask = strtoull(text, &end, 16);
        const size_t bits = truth->n_classes - 64 * w;
        if (!*text || strspn(text, "0123456789abcdef") != strlen(text) || strlen(text) > 16 ||
            (bits < 64 && mask >> bits != 0)) {
            return broken(r, error, "a mask of the image's classes");
        }
        truth->masks[index * truth->n_words + w] = mask;
    }
    return *rest ? chair_truth_add_name(truth, index, rest, error) : CANDID_OK;
}

static candid_status parse(struct reader *r, struct chair_truth *truth, candid_error *error) {
    TRY(read_head(r, truth, error));
    bool more = next_line(r);
    for (; more && strncmp(r->line, "source ", 7) == 0; more = next_line(r)) {
        TRY(read_source(r, truth, error));
    }
    uint64_t n = 0;
    if (!more || strncmp(r->line, "images ", 7) != 0 || !read_number(r->line + 7, &n)) {
        return broken(r, error, "\"images N\"");
    }
    for (uint64_t i = 0; i < n; i++) {
        if (!next_line(r)) {
            return broken(r, error, "another image");
        }
        TRY(read_image(r, truth, error));
    }
    return next_line(r) ? broken(r, error, "the end of the file") : CANDID_OK;
}

/* The text without its last line, which is the checksum of the rest. */
static candid_status check_sum(const char *text, size_t size, const char *label, size_t *rest, candid_error *error) {
    static const size_t line = sizeof "crc32 00000000\n" - 1;
    if (size < sizeof MAGIC || memcmp(text, MAGIC, sizeof MAGIC - 1) != 0) {
        return fail(error, CANDID_ERROR_FORMAT, "%s is no cache of CHAIR's truth, or of another version of candid",
                    label);
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

candid_status chair_truth_parse(const char *text, size_t size, const char *label, struct chair_truth **out,
                                candid_error *error) {
    *out = NULL;
    size_t rest = 0;
    TRY(check_sum(text, size, label, &rest, error));
    struct chair_truth *truth = calloc(1, sizeof *truth);
    char *copy = strndup(text, rest);
    candid_status status = truth && copy ? CANDID_OK : fail_memory(error, "a cache of CHAIR's truth", rest);
    if (status == CANDID_OK) {
        status = parse(&(struct reader){.label = label, .at = copy}, truth, error);
    }
    free(copy);
    if (status != CANDID_OK) {
        chair_truth_free(truth);
        return status;
    }
    *out = truth;
    return CANDID_OK;
}

candid_status chair_truth_read(const char *path, struct chair_truth **out, candid_error *error) {
    *out = NULL;
    struct mapped_file file;
    TRY(file_map(path, "a cache of CHAIR's truth", &file, error));
    char label[208];
    const candid_status status = chair_truth_parse(file.data ? (const char *)file.data : "", file.size,
                                                   file_label(path, label, sizeof label), out, error);
    file_unmap(&file);
    return status;
}

/* ---- is it the right one? ---- */

static candid_status check_files(const struct chair_truth *truth, const char *label, bool captions,
                                 const char *const *paths, size_t n_paths, candid_error *error) {
    size_t n = 0;
    for (size_t i = 0; i < truth->n_sources; i++) {
        const struct truth_source *s = &truth->sources[i];
        if (s->captions != captions) {
            continue;
        }
        if (n == n_paths) {
            return fail(error, CANDID_ERROR_ARGUMENT, "%s was also made from %s, which is not named", label, s->path);
        }
        struct mapped_file file;
        TRY(file_map(paths[n], "a JSON file", &file, error));
        char hash[65] = "";
        if (file.size == s->size) {
            sha256_hex(file.data, file.size, hash);
        }
        file_unmap(&file);
        if (strcmp(hash, s->sha256) != 0) {
            return fail(error, CANDID_ERROR_ARGUMENT, "%s was made from another file than %s (%s of %llu bytes)", label,
                        paths[n], s->path, (unsigned long long)s->size);
        }
        n++;
    }
    return n < n_paths ? fail(error, CANDID_ERROR_ARGUMENT, "%s was made without %s", label, paths[n]) : CANDID_OK;
}

candid_status chair_truth_check(const struct chair_truth *truth, const char *label, enum chair_mode mode,
                                const struct vocabulary *vocabulary, const char *tagger,
                                const struct truth_files *files, candid_error *error) {
    if (truth->mode != mode) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s was made in mode %s, asked for is truth of mode %s", label,
                    chair_mode_name(truth->mode), chair_mode_name(mode));
    }
    char hash[65];
    chair_vocabulary_hash(vocabulary, hash);
    if (strcmp(hash, truth->vocabulary) != 0) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s was made with another table of synonyms", label);
    }
    if (tagger[0] && truth->tagger[0] && strcmp(tagger, truth->tagger) != 0) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s was made with another tagger", label);
    }
    if (files->n_instances + files->n_captions == 0) {
        return CANDID_OK;
    }
    TRY(check_files(truth, label, false, files->instances, files->n_instances, error));
    return check_files(truth, label, true, files->captions, files->n_captions, error);
}
