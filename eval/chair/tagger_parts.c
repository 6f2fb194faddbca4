/* The parts of a tagger file out of the formats that NLTK's data has had. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/crc32.h"
#include "core/status.h"
#include "core/text.h"
#include "eval/chair/pickle.h"
#include "eval/chair/tagger_import.h"
#include "eval/common/json_stream.h"

void tagger_parts_free(struct tagger_parts *parts) {
    for (int k = 0; k < N_TAGGER_SECTIONS; k++) {
        struct string_list *list = &parts->sections[k];
        for (size_t i = 0; i < list->n; i++) {
            free(list->s[i]);
        }
        free(list->s);
    }
    *parts = (struct tagger_parts){0};
}

/* Takes over `line`, which may be NULL for want of memory. */
static candid_status add_line(struct tagger_parts *parts, enum tagger_section section, char *line,
                              candid_error *error) {
    struct string_list *list = &parts->sections[section];
    if (line && list->n == list->capacity) {
        const size_t capacity = list->capacity > 0 ? 2 * list->capacity : 256;
        char **grown = realloc(list->s, capacity * sizeof *grown);
        if (!grown) {
            free(line);
            return fail_memory(error, "a tagger", capacity * sizeof *grown);
        }
        list->s = grown;
        list->capacity = capacity;
    }
    if (!line) {
        return fail_memory(error, "a tagger", 64);
    }
    list->s[list->n++] = line;
    return CANDID_OK;
}

/* Whether text can stand in a line of the file. */
static bool fits(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if ((uint8_t)text[i] < 0x20) {
            return false;
        }
    }
    return size > 0;
}

static candid_status bad_text(const char *label, const char *what, const char *text, size_t size, candid_error *error) {
    struct printable p;
    return fail(error, CANDID_ERROR_FORMAT, "%s: a %s that is empty or has control characters: \"%s\"", label, what,
                printable(&p, text, size));
}

static char *joined(const char *a, size_t n_a, char separator, const char *b, size_t n_b) {
    char *line = malloc(n_a + n_b + 2);
    if (line) {
        memcpy(line, a, n_a);
        line[n_a] = separator;
        memcpy(line + n_a + 1, b, n_b);
        line[n_a + 1 + n_b] = '\0';
    }
    return line;
}

/* "FEATURE<tab>TAG WEIGHT TAG WEIGHT…" while it grows. */
struct feature_line {
    char *text;
    size_t n, capacity;
};

static candid_status append(struct feature_line *line, const char *text, size_t size, candid_error *error) {
    if (line->capacity - line->n <= size) {
        const size_t capacity = 2 * (line->n + size) + 128;
        char *grown = realloc(line->text, capacity);
        if (!grown) {
            return fail_memory(error, "a tagger", capacity);
        }
        line->text = grown;
        line->capacity = capacity;
    }
    memcpy(line->text + line->n, text, size);
    line->n += size;
    line->text[line->n] = '\0';
    return CANDID_OK;
}

/* The shortest decimal that reads back equal. */
static candid_status append_weight(struct feature_line *line, const char *label, const char *tag, size_t n_tag,
                                   double weight, candid_error *error) {
    if (!fits(tag, n_tag) || memchr(tag, ' ', n_tag)) {
        return bad_text(label, "tag", tag, n_tag, error);
    }
    if (!(weight > -1e9 && weight < 1e9)) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: a weight that is no finite number", label);
    }
    char number[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(number, sizeof number, " %.*g", digits, weight);
        if (strtod(number, NULL) == weight) {
            break;
        }
    }
    TRY(append(line, line->text[line->n - 1] == '\t' ? "" : " ", line->text[line->n - 1] != '\t', error));
    TRY(append(line, tag, n_tag, error));
    return append(line, number, strlen(number), error);
}

static candid_status begin_feature(struct feature_line *line, const char *label, const char *name, size_t size,
                                   candid_error *error) {
    if (!fits(name, size)) {
        return bad_text(label, "feature", name, size, error);
    }
    line->n = 0;
    TRY(append(line, name, size, error));
    return append(line, "\t", 1, error);
}

/* ---- pickles ---- */

static candid_status unexpected(const char *label, const char *expected, candid_error *error) {
    return fail(error, CANDID_ERROR_FORMAT, "%s: expected %s", label, expected);
}

static candid_status pickle_features(struct tagger_parts *parts, const struct pickle *p,
                                     const struct pickle_value *weights, struct feature_line *line,
                                     candid_error *error) {
    for (size_t i = 0; i + 1 < weights->n; i += 2) {
        const struct pickle_value *name = pickle_child(p, weights, i), *row = pickle_child(p, weights, i + 1);
        if (name->kind != PICKLE_TEXT || row->kind != PICKLE_DICT) {
            return unexpected(p->label, "weights by tag of every feature", error);
        }
        TRY(begin_feature(line, p->label, name->text, name->size, error));
        for (size_t k = 0; k + 1 < row->n; k += 2) {
            const struct pickle_value *tag = pickle_child(p, row, k), *weight = pickle_child(p, row, k + 1);
            const bool whole = weight->kind == PICKLE_INTEGER;
            if (tag->kind != PICKLE_TEXT || (weight->kind != PICKLE_FLOAT && !whole)) {
                return unexpected(p->label, "weights by tag of every feature", error);
            }
            TRY(append_weight(line, p->label, tag->text, tag->size, whole ? (double)weight->integer : weight->number,
                              error));
        }
        TRY(add_line(parts, TAGGER_FEATURES, strdup(line->text), error));
    }
    return CANDID_OK;
}

static candid_status add_word(struct tagger_parts *parts, const char *label, const char *word, size_t n_word,
                              const char *tag, size_t n_tag, candid_error *error) {
    if (!fits(word, n_word) || !fits(tag, n_tag)) {
        return bad_text(label, "word or tag", fits(word, n_word) ? tag : word, fits(word, n_word) ? n_tag : n_word,
                        error);
    }
    return add_line(parts, TAGGER_WORDS, joined(word, n_word, '\t', tag, n_tag), error);
}

static candid_status add_tag(struct tagger_parts *parts, const char *label, const char *tag, size_t size,
                             candid_error *error) {
    return fits(tag, size) ? add_line(parts, TAGGER_TAGS, strndup(tag, size), error)
                           : bad_text(label, "tag", tag, size, error);
}

/* (weights, words with one tag, set of tags) */
static candid_status take_pickle(struct tagger_parts *parts, const struct pickle *p, candid_error *error) {
    const struct pickle_value *root = &p->values[p->root];
    const struct pickle_value *part[3];
    for (size_t i = 0; i < 3; i++) {
        part[i] = root->kind == PICKLE_SEQUENCE && root->n == 3 ? pickle_child(p, root, i) : root;
    }
    if (part[0]->kind != PICKLE_DICT || part[1]->kind != PICKLE_DICT || part[2]->kind != PICKLE_SEQUENCE) {
        return unexpected(p->label, "the weights, words and tags of NLTK's averaged perceptron tagger", error);
    }
    struct feature_line line = {0};
    const candid_status status = pickle_features(parts, p, part[0], &line, error);
    free(line.text);
    TRY(status);
    for (size_t i = 0; i + 1 < part[1]->n; i += 2) {
        const struct pickle_value *word = pickle_child(p, part[1], i), *tag = pickle_child(p, part[1], i + 1);
        if (word->kind != PICKLE_TEXT || tag->kind != PICKLE_TEXT) {
            return unexpected(p->label, "words with their tags", error);
        }
        TRY(add_word(parts, p->label, word->text, word->size, tag->text, tag->size, error));
    }
    for (size_t i = 0; i < part[2]->n; i++) {
        const struct pickle_value *tag = pickle_child(p, part[2], i);
        if (tag->kind != PICKLE_TEXT) {
            return unexpected(p->label, "tags", error);
        }
        TRY(add_tag(parts, p->label, tag->text, tag->size, error));
    }
    return CANDID_OK;
}

candid_status tagger_add_pickle(struct tagger_parts *parts, const uint8_t *bytes, size_t size, const char *label,
                                candid_error *error) {
    static const char *const allowed[] = {"__builtin__ set", "builtins set", NULL};
    struct pickle p;
    TRY(pickle_read(bytes, size, label, allowed, &p, error));
    const candid_status status = take_pickle(parts, &p, error);
    pickle_free(&p);
    return status;
}

/* ---- JSON ---- */

static candid_status json_weights(struct tagger_parts *parts, struct json_stream *s, struct feature_line *line,
                                  candid_error *error) {
    candid_status status;
    TRY(json_enter(s, '{', error));
    for (const char *name; json_key(s, &name, &status, error);) {
        TRY(begin_feature(line, s->label, name, strlen(name), error));
        TRY(json_enter(s, '{', error));
        for (const char *tag; json_key(s, &tag, &status, error);) {
            double weight;
            TRY(json_number(s, &weight, error));
            TRY(append_weight(line, s->label, tag, strlen(tag), weight, error));
        }
        TRY(status);
        TRY(add_line(parts, TAGGER_FEATURES, strdup(line->text), error));
    }
    return status;
}

static candid_status json_words(struct tagger_parts *parts, struct json_stream *s, candid_error *error) {
    candid_status status;
    TRY(json_enter(s, '{', error));
    for (const char *key; json_key(s, &key, &status, error);) {
        char *word = strdup(key);
        const char *tag = "";
        status = word ? json_text(s, &tag, error) : fail_memory(error, "a tagger", strlen(key));
        if (status == CANDID_OK) {
            status = add_word(parts, s->label, word, strlen(word), tag, strlen(tag), error);
        }
        free(word);
        TRY(status);
    }
    return status;
}

static candid_status json_tags(struct tagger_parts *parts, struct json_stream *s, candid_error *error) {
    candid_status status;
    TRY(json_enter(s, '[', error));
    while (json_item(s, &status, error)) {
        const char *tag;
        TRY(json_text(s, &tag, error));
        TRY(add_tag(parts, s->label, tag, strlen(tag), error));
    }
    return status;
}

candid_status tagger_add_json(struct tagger_parts *parts, const char *kind, struct json_stream *s,
                              candid_error *error) {
    struct feature_line line = {0};
    candid_status status = strcmp(kind, "weights") == 0   ? json_weights(parts, s, &line, error)
                           : strcmp(kind, "tagdict") == 0 ? json_words(parts, s, error)
                                                          : json_tags(parts, s, error);
    free(line.text);
    return status == CANDID_OK ? json_end(s, error) : status;
}

/* ---- Punkt ---- */

/* Bits of Punkt's orthographic context: seen at the beginning of a sentence in lower case; seen capitalised. */
#define BEGINS_IN_LOWER_CASE 16
#define CAPITALISED          14

static candid_status add_starter(struct tagger_parts *parts, const char *word, size_t n, int64_t context,
                                 candid_error *error) {
    const bool starter = (context & BEGINS_IN_LOWER_CASE) && !(context & CAPITALISED) && fits(word, n);
    return starter ? add_line(parts, TAGGER_STARTERS, strndup(word, n), error) : CANDID_OK;
}

candid_status tagger_add_punkt_text(struct tagger_parts *parts, const char *name, const char *text, size_t size,
                                    const char *label, candid_error *error) {
    const bool abbreviations = strcmp(name, "abbrev_types.txt") == 0;
    const bool collocations = strcmp(name, "collocations.tab") == 0;
    int n_line = 0;
    for (const char *at = text, *end = text + size; at < end; n_line++) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        line_end = line_end ? line_end : end;
        const size_t n = (size_t)(line_end - at);
        const char *tab = memchr(at, '\t', n);
        const size_t first = tab ? (size_t)(tab - at) : n, second = tab ? n - first - 1 : 0;
        if (n > 0 && (!fits(at, first) || (abbreviations ? tab != NULL : second == 0) ||
                      (collocations && !fits(tab + 1, second)))) {
            return fail(error, CANDID_ERROR_FORMAT, "%s:%d: expected %s", label, n_line + 1,
                        abbreviations  ? "an abbreviation"
                        : collocations ? "\"WORD<tab>WORD\""
                                       : "\"WORD<tab>NUMBER\"");
        }
        if (n > 0 && abbreviations) {
            TRY(add_line(parts, TAGGER_ABBREVIATIONS, strndup(at, n), error));
        } else if (n > 0 && collocations) {
            TRY(add_line(parts, TAGGER_COLLOCATIONS, joined(at, first, ' ', tab + 1, second), error));
        } else if (n > 0) {
            char number[16] = "";
            memcpy(number, tab + 1, second < 15 ? second : 15);
            TRY(add_starter(parts, at, first, atoi(number), error));
        }
        at = line_end + 1;
    }
    return CANDID_OK;
}

static candid_status punkt_texts(struct tagger_parts *parts, const struct pickle *p, const struct pickle_value *list,
                                 enum tagger_section section, candid_error *error) {
    for (size_t i = 0; i < list->n; i++) {
        const struct pickle_value *v = pickle_child(p, list, i);
        if (section == TAGGER_ABBREVIATIONS && v->kind == PICKLE_TEXT && fits(v->text, v->size)) {
            TRY(add_line(parts, section, strndup(v->text, v->size), error));
            continue;
        }
        const bool pair = section == TAGGER_COLLOCATIONS && v->kind == PICKLE_SEQUENCE && v->n == 2;
        const struct pickle_value *a = pair ? pickle_child(p, v, 0) : v, *b = pair ? pickle_child(p, v, 1) : v;
        if (!pair || a->kind != PICKLE_TEXT || b->kind != PICKLE_TEXT || !fits(a->text, a->size) ||
            !fits(b->text, b->size)) {
            return unexpected(p->label, "words", error);
        }
        TRY(add_line(parts, section, joined(a->text, a->size, ' ', b->text, b->size), error));
    }
    return CANDID_OK;
}

static candid_status take_punkt(struct tagger_parts *parts, const struct pickle *p, candid_error *error) {
    const struct pickle_value *root = &p->values[p->root], *params = pickle_find(p, root, "_params");
    params = params ? params : root;
    const struct pickle_value *abbreviations = pickle_find(p, params, "abbrev_types");
    const struct pickle_value *collocations = pickle_find(p, params, "collocations");
    const struct pickle_value *context = pickle_find(p, params, "ortho_context");
    if (!abbreviations || abbreviations->kind != PICKLE_SEQUENCE || !collocations ||
        collocations->kind != PICKLE_SEQUENCE || !context) {
        return unexpected(p->label, "the parameters of a Punkt tokenizer", error);
    }
    TRY(punkt_texts(parts, p, abbreviations, TAGGER_ABBREVIATIONS, error));
    TRY(punkt_texts(parts, p, collocations, TAGGER_COLLOCATIONS, error));
    for (size_t i = context->kind == PICKLE_OBJECT ? 2 : 0; i + 1 < context->n; i += 2) {
        const struct pickle_value *word = pickle_child(p, context, i), *bits = pickle_child(p, context, i + 1);
        if (word->kind != PICKLE_TEXT || bits->kind != PICKLE_INTEGER) {
            return unexpected(p->label, "the contexts of words", error);
        }
        TRY(add_starter(parts, word->text, word->size, bits->integer, error));
    }
    return CANDID_OK;
}

candid_status tagger_add_punkt_pickle(struct tagger_parts *parts, const uint8_t *bytes, size_t size, const char *label,
                                      candid_error *error) {
    static const char *const allowed[] = {"__builtin__ set",
                                          "builtins set",
                                          "__builtin__ int",
                                          "__builtin__ long",
                                          "builtins int",
                                          "__builtin__ object",
                                          "builtins object",
                                          "copy_reg _reconstructor",
                                          "copyreg _reconstructor",
                                          "collections defaultdict",
                                          "nltk.tokenize.punkt PunktSentenceTokenizer",
                                          "nltk.tokenize.punkt PunktParameters",
                                          "nltk.tokenize.punkt PunktLanguageVars",
                                          "nltk.tokenize.punkt PunktToken",
                                          "nltk.tokenize.punkt PunktTrainer",
                                          NULL};
    struct pickle p;
    TRY(pickle_read(bytes, size, label, allowed, &p, error));
    const candid_status status = take_punkt(parts, &p, error);
    pickle_free(&p);
    return status;
}

/* ---- the file ---- */

static int by_bytes(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted, because sets have no order, so that the same data gives the same file. Tags must be. */
candid_status tagger_write(const struct tagger_parts *parts, const char *from, char **text, size_t *size,
                           candid_error *error) {
    static const char *const names[N_TAGGER_SECTIONS] = {"tags",          "words",        "features",
                                                         "abbreviations", "collocations", "starters"};
    *text = NULL;
    FILE *file = open_memstream(text, size);
    if (!file) {
        return fail_memory(error, "a tagger file", 4096);
    }
    char clean[512];
    text_print(clean, sizeof clean, from, strlen(from));
    fprintf(file, TAGGER_MAGIC "\nfrom %s\n", clean);
    for (int k = 0; k < N_TAGGER_SECTIONS; k++) {
        const struct string_list *list = &parts->sections[k];
        if (list->n > 0) {
            qsort(list->s, list->n, sizeof *list->s, by_bytes);
        }
        fprintf(file, "%s %zu\n", names[k], list->n);
        for (size_t i = 0; i < list->n; i++) {
            fprintf(file, "%s\n", list->s[i]);
        }
    }
    fflush(file);
    fprintf(file, "crc32 %08x\n", crc32_update(0, *text, *size));
    const bool failed = ferror(file) != 0;
    if (fclose(file) != 0 || failed) {
        free(*text);
        *text = NULL;
        return fail_memory(error, "a tagger file", *size);
    }
    return CANDID_OK;
}
