#include "eval/chair/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/status.h"
#include "core/text.h"
#include "eval/chair/tables.h"

struct word_pair {
    uint16_t first, second, value;
};

#define MAX_IDS 32767

/* A piece of a table's text. */
struct span {
    const char *s;
    size_t n;
};

/* Cuts the text at the next separator, which is skipped; false at the end. */
static bool next_span(struct span *rest, const char *separator, struct span *out) {
    if (!rest->s) {
        return false;
    }
    const size_t length = strlen(separator);
    for (size_t i = 0; i + length <= rest->n; i++) {
        if (memcmp(rest->s + i, separator, length) == 0) {
            *out = (struct span){rest->s, i};
            *rest = (struct span){rest->s + i + length, rest->n - i - length};
            return true;
        }
    }
    *out = *rest;
    rest->s = NULL;
    return true;
}

static bool next_line(struct span *rest, struct span *out) {
    return next_span(rest, "\n", out) && (rest->s || out->n > 0);
}

static uint16_t find_id(const struct vocabulary *v, struct span word) {
    const uint32_t id = string_table_find(&v->ids, word.s, word.n);
    return id == STRING_TABLE_NONE ? 0 : (uint16_t)id;
}

/* The id of a word, a new one for a new word. */
static candid_status add_id(struct vocabulary *v, struct span word, uint16_t *out, candid_error *error) {
    *out = find_id(v, word);
    if (*out > 0) {
        return CANDID_OK;
    }
    if (v->n_ids == MAX_IDS) {
        return fail(error, CANDID_ERROR_FORMAT, "more than %d words in the table of synonyms", MAX_IDS);
    }
    if ((v->n_ids & (v->n_ids - 1)) == 0) {
        int16_t *grown = realloc(v->class_of, 2 * v->n_ids * sizeof *grown);
        if (!grown) {
            return fail_memory(error, "the words of CHAIR", 2 * v->n_ids * sizeof *grown);
        }
        v->class_of = grown;
    }
    *out = (uint16_t)v->n_ids++;
    v->class_of[*out] = -1;
    return string_table_put(&v->ids, word.s, word.n, *out, error);
}

static candid_status add_pair(struct vocabulary *v, struct span key, struct span value, candid_error *error) {
    struct span first, rest = key;
    next_span(&rest, " ", &first);
    struct word_pair *grown = realloc(v->pairs, (v->n_pairs + 1) * sizeof *grown);
    if (!grown) {
        return fail_memory(error, "pairs of words", (v->n_pairs + 1) * sizeof *grown);
    }
    v->pairs = grown;
    struct word_pair pair;
    TRY(add_id(v, first, &pair.first, error));
    TRY(add_id(v, rest, &pair.second, error));
    TRY(add_id(v, value, &pair.value, error));
    v->pairs[v->n_pairs++] = pair;
    return CANDID_OK;
}

/* Whether a text is two words with one blank between them. */
static bool is_pair(struct span word) {
    const char *blank = memchr(word.s, ' ', word.n);
    return blank && blank > word.s && blank + 1 < word.s + word.n &&
           !memchr(blank + 1, ' ', word.n - (size_t)(blank + 1 - word.s));
}

static candid_status add_class(struct vocabulary *v, struct span name, candid_error *error) {
    char **grown = realloc(v->class_names, (v->n_classes + 1) * sizeof *grown);
    if (!grown) {
        return fail_memory(error, "the classes of CHAIR", (v->n_classes + 1) * sizeof *grown);
    }
    v->class_names = grown;
    grown[v->n_classes] = strndup(name.s, name.n);
    if (!grown[v->n_classes]) {
        return fail_memory(error, "the name of a class", name.n);
    }
    v->n_classes++;
    return CANDID_OK;
}

/* One row: the class' name and its synonyms. */
static candid_status read_class(struct vocabulary *v, struct span row, const char *label, int line,
                                candid_error *error) {
    struct span word, rest = row;
    for (bool first = true; next_span(&rest, ", ", &word); first = false) {
        if (first) {
            TRY(add_class(v, word, error));
        }
        uint16_t id;
        TRY(add_id(v, word, &id, error));
        if (v->class_of[id] >= 0 && v->class_of[id] != (int)v->n_classes - 1) {
            struct printable p;
            return fail(error, CANDID_ERROR_FORMAT, "%s:%d: \"%s\" already belongs to the class \"%s\"", label, line,
                        printable(&p, word.s, word.n), v->class_names[v->class_of[id]]);
        }
        v->class_of[id] = (int16_t)(v->n_classes - 1);
        if (v->own && is_pair(word)) {
            TRY(add_pair(v, word, word, error));
        }
    }
    return CANDID_OK;
}

static candid_status read_classes(struct vocabulary *v, struct span text, const char *label, candid_error *error) {
    struct span row;
    for (int line = 1; next_line(&text, &row); line++) {
        while (row.n > 0 && (row.s[row.n - 1] == '\r' || row.s[row.n - 1] == ' ')) {
            row.n--;
        }
        if (row.n > 0) {
            TRY(read_class(v, row, label, line, error));
        }
    }
    if (v->n_classes == 0) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: no rows \"name, synonym, synonym\"", label);
    }
    return CANDID_OK;
}

static candid_status read_pairs(struct vocabulary *v, candid_error *error) {
    struct span rest = {chair_table_two_words, strlen(chair_table_two_words)}, row, key;
    while (next_line(&rest, &row)) {
        next_span(&row, "\t", &key);
        if (is_pair(key)) { /* "stove top oven" never matches */
            TRY(add_pair(v, key, row, error));
        }
    }
    return CANDID_OK;
}

/* Forms whose reductions are all without meaning in an own vocabulary stay in the table: they are no words of it. */
static candid_status read_lemmas(struct vocabulary *v, candid_error *error) {
    struct span rest = {chair_table_lemmas, strlen(chair_table_lemmas)}, row, form, lemma;
    size_t n_rows = 0;
    for (const char *c = chair_table_lemmas; *c; c++) {
        n_rows += *c == '\n';
    }
    v->lemma_rows = calloc(n_rows, sizeof *v->lemma_rows);
    if (!v->lemma_rows) {
        return fail_memory(error, "the lemmas of CHAIR", n_rows * sizeof *v->lemma_rows);
    }
    TRY(string_table_reserve(&v->lemmas, n_rows, error));
    for (uint32_t i = 0; next_line(&rest, &row); i++) {
        next_span(&row, "\t", &form);
        for (int c = 0; c < N_WORD_CLASSES && next_span(&row, "\t", &lemma); c++) {
            v->lemma_rows[i][c] = find_id(v, lemma); /* "-" is no word */
        }
        TRY(string_table_put(&v->lemmas, form.s, form.n, i, error));
    }
    return CANDID_OK;
}

static candid_status read_singulars(struct vocabulary *v, candid_error *error) {
    struct span rest = {chair_table_pattern, strlen(chair_table_pattern)}, row, form;
    while (next_line(&rest, &row)) {
        next_span(&row, "\t", &form);
        TRY(string_table_put(&v->singulars, form.s, form.n, find_id(v, row), error));
    }
    return CANDID_OK;
}

static candid_status read_own(struct vocabulary *v, const char *path, candid_error *error) {
    char label[208];
    file_label(path, label, sizeof label);
    struct mapped_file file;
    TRY(file_map(path, "a table of synonyms", &file, error));
    v->own = true;
    const size_t size = file.size;
    v->text = strndup(file.data ? (const char *)file.data : "", size);
    file_unmap(&file);
    if (!v->text) {
        return fail_memory(error, "a table of synonyms", size);
    }
    if (strlen(v->text) != size) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: a zero byte in a table of synonyms", label);
    }
    return read_classes(v, (struct span){v->text, size}, label, error);
}

candid_status vocabulary_open(const char *synonyms, struct vocabulary **out, candid_error *error) {
    struct vocabulary *v = calloc(1, sizeof *v);
    *out = NULL;
    if (!v) {
        return fail_memory(error, "the words of CHAIR", sizeof *v);
    }
    v->n_ids = 1;
    candid_status status;
    v->class_of = malloc(sizeof *v->class_of);
    if (!v->class_of) {
        status = fail_memory(error, "the words of CHAIR", sizeof *v->class_of);
        goto end;
    }
    v->class_of[0] = -1;
    const struct span coco = {chair_table_synonyms, strlen(chair_table_synonyms)};
    TRY_GOTO(synonyms ? read_own(v, synonyms, error) : read_classes(v, coco, "the table of synonyms", error), status,
             end);
    TRY_GOTO(read_pairs(v, error), status, end);
    TRY_GOTO(read_lemmas(v, error), status, end);
    TRY_GOTO(read_singulars(v, error), status, end);
    *out = v;
    return CANDID_OK;
end:
    vocabulary_free(v);
    return status;
}

void vocabulary_free(struct vocabulary *v) {
    if (!v) {
        return;
    }
    for (size_t i = 0; i < v->n_classes; i++) {
        free(v->class_names[i]);
    }
    free(v->class_names);
    free(v->class_of);
    free(v->lemma_rows);
    free(v->pairs);
    free(v->text);
    string_table_free(&v->ids);
    string_table_free(&v->lemmas);
    string_table_free(&v->singulars);
    free(v);
}

uint16_t vocabulary_word(const struct vocabulary *v, const char *word) {
    return find_id(v, (struct span){word, strlen(word)});
}

int vocabulary_class(const struct vocabulary *v, uint16_t id) {
    return v->class_of[id];
}

/* The form itself or what WordNet's suffix rules for nouns make of it, the shortest that is a word. */
static uint16_t by_suffix(const struct vocabulary *v, const char *form) {
    static const struct {
        const char *ending, *instead;
    } rules[] = {{"s", ""},      {"ses", "s"},   {"ves", "f"},   {"xes", "x"}, {"zes", "z"},
                 {"ches", "ch"}, {"shes", "sh"}, {"men", "man"}, {"ies", "y"}};
    const size_t n = strlen(form);
    uint16_t best = find_id(v, (struct span){form, n});
    size_t best_length = best > 0 ? n : SIZE_MAX;
    char candidate[64];
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        const size_t ending = strlen(rules[i].ending), instead = strlen(rules[i].instead);
        if (n < ending || n - ending + instead > sizeof candidate || strcmp(form + n - ending, rules[i].ending) != 0) {
            continue;
        }
        memcpy(candidate, form, n - ending);
        memcpy(candidate + n - ending, rules[i].instead, instead);
        const size_t length = n - ending + instead;
        const uint16_t id = find_id(v, (struct span){candidate, length});
        if (id > 0 && length < best_length) {
            best = id;
            best_length = length;
        }
    }
    return best;
}

uint16_t vocabulary_lemma(const struct vocabulary *v, const char *form, enum word_class word_class) {
    const uint32_t row = string_table_find(&v->lemmas, form, strlen(form));
    const uint16_t id = row == STRING_TABLE_NONE ? 0 : v->lemma_rows[row][word_class];
    return id == 0 && v->own ? by_suffix(v, form) : id;
}

uint16_t vocabulary_singular(const struct vocabulary *v, const char *form) {
    const uint32_t id = string_table_find(&v->singulars, form, strlen(form));
    return id == STRING_TABLE_NONE || id == 0 ? (v->own ? by_suffix(v, form) : 0) : (uint16_t)id;
}

uint16_t vocabulary_pair(const struct vocabulary *v, uint16_t first, uint16_t second) {
    for (size_t i = 0; i < v->n_pairs && first > 0 && second > 0; i++) {
        if (v->pairs[i].first == first && v->pairs[i].second == second) {
            return v->pairs[i].value;
        }
    }
    return 0;
}
