#include "eval/amber/data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/status.h"
#include "core/text.h"
#include "eval/common/json_objects.h"

/* ---- vocabulary ---- */

/* Position of the text among the sorted words, or where it would stand. */
static size_t word_position(const struct amber_data *data, const char *text) {
    size_t low = 0, high = data->n_words;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (strcmp(data->words[data->by_text[middle]].text, text) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

int amber_word_find(const struct amber_data *data, const char *text) {
    const size_t at = word_position(data, text);
    return at < data->n_words && strcmp(data->words[data->by_text[at]].text, text) == 0 ? data->by_text[at] : -1;
}

/* The number of a word, which is added where it is new; -1 without memory. */
static int add_word(struct amber_data *data, const char *text) {
    const size_t at = word_position(data, text), n = data->n_words;
    if (at < n && strcmp(data->words[data->by_text[at]].text, text) == 0) {
        return data->by_text[at];
    }
    struct amber_word *words = realloc(data->words, (n + 1) * sizeof *words);
    data->words = words ? words : data->words;
    int *by_text = words ? realloc(data->by_text, (n + 1) * sizeof *by_text) : NULL;
    data->by_text = by_text ? by_text : data->by_text;
    char *copy = by_text ? strdup(text) : NULL;
    if (!copy) {
        return -1;
    }
    words[n] = (struct amber_word){.text = copy};
    memmove(by_text + at + 1, by_text + at, (n - at) * sizeof *by_text);
    by_text[at] = (int)n;
    data->n_words++;
    return (int)n;
}

/* One row of relation.json: a word and those that stand for it. */
static candid_status add_relation(struct amber_data *data, const struct json *j, const cJSON *row,
                                  candid_error *error) {
    struct printable p;
    const int key = add_word(data, row->string);
    const size_t n = cJSON_IsArray(row) ? (size_t)cJSON_GetArraySize(row) : 0;
    int *associated = key < 0 ? NULL : calloc(n + 1, sizeof *associated);
    if (!associated) {
        return fail_memory(error, "AMBER's association table", n * sizeof *associated);
    }
    if (!cJSON_IsArray(row) || data->words[key].key) {
        free(associated);
        return fail(error, CANDID_ERROR_FORMAT, "%s: key %s: expected one list of words", j->label,
                    printable_string(&p, row->string));
    }
    data->words[key].associated = associated;
    data->words[key].key = true;
    const cJSON *word;
    cJSON_ArrayForEach(word, row) {
        if (!cJSON_IsString(word)) {
            return fail(error, CANDID_ERROR_FORMAT, "%s: key %s: expected words", j->label,
                        printable_string(&p, row->string));
        }
        const int number = add_word(data, word->valuestring);
        if (number < 0) {
            return fail_memory(error, "AMBER's association table", sizeof *data->words);
        }
        associated[data->words[key].n_associated++] = number;
    }
    return CANDID_OK;
}

static candid_status read_relations(const char *path, struct amber_data *data, candid_error *error) {
    struct json j;
    TRY(json_read(path, 16 << 20, &j, error));
    candid_status status = CANDID_OK;
    for (const cJSON *row = j.root->child; row && status == CANDID_OK; row = row->next) {
        status = data->n_words > 20000 ? fail(error, CANDID_ERROR_FORMAT, "%s: expected at most 20000 words", j.label)
                                       : add_relation(data, &j, row, error);
    }
    json_free(&j);
    return status;
}

/* Words that no association has are never counted, so that they need no mark. */
static candid_status read_safe_words(const char *path, struct amber_data *data, candid_error *error) {
    struct mapped_file file;
    TRY(file_map(path, "AMBER's safe words", &file, error));
    const char *text = file.size > 0 ? (const char *)file.data : "", *end = text + file.size;
    while (text < end) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        const size_t size = (size_t)((stop ? stop : end) - text);
        for (size_t w = 0; w < data->n_words; w++) {
            data->words[w].safe |= strlen(data->words[w].text) == size && memcmp(data->words[w].text, text, size) == 0;
        }
        text = stop ? stop + 1 : end;
    }
    file_unmap(&file);
    return CANDID_OK;
}

/* ---- annotations ---- */

/* The words of annotation i under `key`. */
static candid_status read_words(const struct json_objects *file, size_t i, const char *key,
                                const struct amber_data *data, int **out, size_t *n, candid_error *error) {
    const cJSON *array = json_find(file->items[i], key), *word;
    if (!cJSON_IsArray(array)) {
        return json_objects_fail(file, i, error, "expected a list of words as \"%s\"", key);
    }
    *out = calloc((size_t)cJSON_GetArraySize(array) + 1, sizeof **out);
    if (!*out) {
        return fail_memory(error, "AMBER's annotations", (size_t)cJSON_GetArraySize(array) * sizeof **out);
    }
    cJSON_ArrayForEach(word, array) {
        const int number = cJSON_IsString(word) ? amber_word_find(data, word->valuestring) : -1;
        if (number < 0 || !data->words[number].key) {
            char found[JSON_FOUND];
            return json_objects_fail(file, i, error, "expected keys of relation.json in \"%s\", found %s", key,
                                     json_found(word, found));
        }
        (*out)[(*n)++] = number;
    }
    return CANDID_OK;
}

static candid_status read_annotation(const struct json_objects *file, size_t i, const struct amber_data *data,
                                     struct amber_annotation *to, candid_error *error) {
    const cJSON *object = file->items[i], *type = json_find(object, "type"), *truth = json_find(object, "truth");
    if (!json_is_int(json_find(object, "id"), 0, INT64_MAX, &to->id) || !cJSON_IsString(type)) {
        return json_objects_fail(file, i, error, "expected an integer \"id\" and a string \"type\"");
    }
    to->type = strdup(type->valuestring);
    to->generative = strcmp(type->valuestring, "generative") == 0;
    if (!to->type) {
        return fail_memory(error, "AMBER's annotations", 16);
    }
    if (to->generative) {
        TRY(read_words(file, i, "truth", data, &to->truth, &to->n_truth, error));
        return read_words(file, i, "hallu", data, &to->hallu, &to->n_hallu, error);
    }
    to->yes = cJSON_IsString(truth) && strcmp(truth->valuestring, "yes") == 0;
    return to->yes || (cJSON_IsString(truth) && strcmp(truth->valuestring, "no") == 0)
               ? CANDID_OK
               : json_objects_fail(file, i, error, "expected \"yes\" or \"no\" as \"truth\"");
}

static int compare_annotations(const void *a, const void *b) {
    const int64_t x = ((const struct amber_annotation *)a)->id, y = ((const struct amber_annotation *)b)->id;
    return (x > y) - (x < y);
}

static candid_status read_annotations(const char *path, struct amber_data *data, candid_error *error) {
    struct json_objects file;
    TRY(json_objects_read(path, &file, error));
    candid_status status = CANDID_OK;
    data->annotations = calloc(file.n, sizeof *data->annotations);
    if (!data->annotations) {
        status = fail_memory(error, "AMBER's annotations", file.n * sizeof *data->annotations);
    }
    for (size_t i = 0; i < file.n && status == CANDID_OK; i++) {
        data->n_annotations++;
        status = read_annotation(&file, i, data, &data->annotations[i], error);
    }
    if (status == CANDID_OK) {
        qsort(data->annotations, data->n_annotations, sizeof *data->annotations, compare_annotations);
    }
    for (size_t i = 1; i < data->n_annotations && status == CANDID_OK; i++) {
        if (data->annotations[i].id == data->annotations[i - 1].id) {
            status = fail(error, CANDID_ERROR_FORMAT, "%s: expected every id once, found %lld twice", file.label,
                          (long long)data->annotations[i].id);
        }
    }
    json_objects_free(&file);
    return status;
}

const struct amber_annotation *amber_annotation_find(const struct amber_data *data, const char *id) {
    char *end;
    const struct amber_annotation wanted = {.id = id ? strtoll(id, &end, 10) : -1};
    if (!id || *id == '\0' || *end != '\0' || data->n_annotations == 0) {
        return NULL;
    }
    return bsearch(&wanted, data->annotations, data->n_annotations, sizeof wanted, compare_annotations);
}

/* ---- similarity ---- */

/* {"amber_similarity": 1, "vectors": "…", "threshold": 0.8, "words": […], "similar": {"word": ["word", …], …}} */
static candid_status fill_similarity(const struct json *j, struct amber_data *data, candid_error *error) {
    const cJSON *vectors = json_find(j->root, "vectors"), *threshold = json_find(j->root, "threshold"), *row, *word;
    const cJSON *words = json_find(j->root, "words"), *similar = json_find(j->root, "similar");
    struct printable p;
    if (!cJSON_IsString(vectors) || !cJSON_IsNumber(threshold) || !cJSON_IsArray(words) || !cJSON_IsObject(similar)) {
        return fail(error, CANDID_ERROR_FORMAT,
                    "%s: expected a table of similarity.py with \"vectors\", \"threshold\", \"words\" and \"similar\"",
                    j->label);
    }
    size_t n_known = 0;
    cJSON_ArrayForEach(word, words) {
        n_known += cJSON_IsString(word) && amber_word_find(data, word->valuestring) >= 0;
    }
    if (n_known != data->n_words) {
        return fail(error, CANDID_ERROR_FORMAT,
                    "%s: expected the %zu words of relation.json, found %zu of them: make it anew with similarity.py",
                    j->label, data->n_words, n_known);
    }
    data->alike = calloc(data->n_words * data->n_words, sizeof *data->alike);
    if (!data->alike) {
        return fail_memory(error, "AMBER's similarities", data->n_words * data->n_words);
    }
    cJSON_ArrayForEach(row, similar) {
        const int noun = amber_word_find(data, row->string);
        cJSON_ArrayForEach(word, row) {
            const int other = cJSON_IsString(word) ? amber_word_find(data, word->valuestring) : -1;
            if (noun < 0 || other < 0) {
                return fail(error, CANDID_ERROR_FORMAT, "%s: \"%s\": expected words of relation.json", j->label,
                            printable_string(&p, row->string));
            }
            data->alike[(size_t)noun * data->n_words + (size_t)other] = true;
        }
    }
    snprintf(data->similarity, sizeof data->similarity, "%s, above %g", printable_string(&p, vectors->valuestring),
             threshold->valuedouble);
    return CANDID_OK;
}

static candid_status read_similarity(const char *path, struct amber_data *data, candid_error *error) {
    struct json j;
    TRY(json_read(path, 64 << 20, &j, error));
    const candid_status status = fill_similarity(&j, data, error);
    json_free(&j);
    return status;
}

const char *amber_similarity_name(const struct amber_data *data) {
    return data->similarity;
}

/* ---- all ---- */

void amber_data_free(struct amber_data *data) {
    if (!data) {
        return;
    }
    for (size_t w = 0; w < data->n_words; w++) {
        free(data->words[w].text);
        free(data->words[w].associated);
    }
    for (size_t i = 0; i < data->n_annotations; i++) {
        free(data->annotations[i].type);
        free(data->annotations[i].truth);
        free(data->annotations[i].hallu);
    }
    free(data->words);
    free(data->by_text);
    free(data->annotations);
    free(data->alike);
    free(data);
}

/* One file of the folder, or of data/ in it. */
static candid_status read_part(const char *folder, const char *name,
                               candid_status (*read)(const char *path, struct amber_data *data, candid_error *error),
                               struct amber_data *data, candid_error *error) {
    char inner[64], *path;
    snprintf(inner, sizeof inner, "data/%s", name);
    TRY(file_join(folder, inner, &path, error));
    if (!file_exists(path)) {
        free(path);
        TRY(file_join(folder, name, &path, error));
    }
    const candid_status status = read(path, data, error);
    free(path);
    return status;
}

candid_status amber_data_read(const char *folder, const char *similarity, struct amber_data **out,
                              candid_error *error) {
    struct amber_data *data = calloc(1, sizeof *data);
    if (!data) {
        return fail_memory(error, "AMBER's data", sizeof *data);
    }
    snprintf(data->similarity, sizeof data->similarity, "equality only");
    candid_status status;
    TRY_GOTO(read_part(folder, "relation.json", read_relations, data, error), status, failed);
    TRY_GOTO(read_part(folder, "safe_words.txt", read_safe_words, data, error), status, failed);
    TRY_GOTO(read_part(folder, "annotations.json", read_annotations, data, error), status, failed);
    if (similarity) {
        TRY_GOTO(read_similarity(similarity, data, error), status, failed);
    }
    *out = data;
    return CANDID_OK;
failed:
    amber_data_free(data);
    return status;
}
