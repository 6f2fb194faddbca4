/* Runs of `candid eval`: summary, answers and verdicts, all of foreign origin. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/status.h"
#include "eval/report/report.h"

#define SUMMARY_LIMIT ((size_t)64 << 20)
#define MOST_INDEX    ((int64_t)1 << 40)

/* ---- JSON lines ---------------------------------------------------------------------------------- */

/* A line that is an object. */
struct line {
    int64_t index; /* of the question */
    size_t number; /* in the file, from 1 */
    struct json json;
};

struct lines {
    struct line *line; /* [n] */
    size_t n, capacity;
};

static void lines_free(struct lines *lines) {
    for (size_t i = 0; i < lines->n; i++) {
        json_free(&lines->line[i].json);
    }
    free(lines->line);
    *lines = (struct lines){0};
}

static candid_status parse_line(const char *path, size_t number, const char *text, size_t size, struct line *out,
                                candid_error *error) {
    *out = (struct line){.index = -1, .number = number};
    char label[160];
    file_label(path, label, sizeof label);
    snprintf(out->json.label, sizeof out->json.label, "%s:%zu", label, number);
    const char *end = text;
    cJSON *root = cJSON_ParseWithLengthOpts(text, size, &end, false);
    const size_t used = end >= text && end <= text + size ? (size_t)(end - text) : 0;
    if (!cJSON_IsObject(root) || text[used + strspn(text + used, " \t\r")] != '\n') {
        cJSON_Delete(root);
        return fail(error, CANDID_ERROR_FORMAT,
                    "%s: expected one JSON object on the line, found an error near byte %zu", out->json.label, used);
    }
    out->json.root = root;
    const cJSON *index = json_find(root, "index");
    if (!json_is_int(index, 0, MOST_INDEX, &out->index)) {
        char found[JSON_FOUND];
        fail(error, CANDID_ERROR_FORMAT, "%s: key index: expected the number of a question, found %s", out->json.label,
             index ? json_found(index, found) : "none");
        json_free(&out->json);
        return CANDID_ERROR_FORMAT;
    }
    return CANDID_OK;
}

static int by_index(const void *a, const void *b) {
    const struct line *x = a, *y = b;
    return x->index != y->index ? (x->index < y->index ? -1 : 1) : x->number < y->number ? -1 : x->number > y->number;
}

/* All lines, sorted by index, in the order of the file where indices are equal. Empty lines are passed over. */
static candid_status lines_read(const char *path, struct lines *out, candid_error *error) {
    struct mapped_file file;
    TRY(file_map(path, "a file of JSON lines", &file, error));
    candid_status status = CANDID_OK;
    char label[208];
    size_t number = 0;
    const char *text = (const char *)file.data, *end = file.size > 0 ? text + file.size : text;
    while (text < end && status == CANDID_OK) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        number++;
        if (!stop) {
            status = fail(error, CANDID_ERROR_FORMAT, "%s:%zu: expected a line end, found a line that is cut off",
                          file_label(path, label, sizeof label), number);
            break;
        }
        if (text + strspn(text, " \t\r") == stop) {
            text = stop + 1;
            continue;
        }
        if (out->n == out->capacity) {
            const size_t capacity = out->capacity ? 2 * out->capacity : 256;
            struct line *grown = realloc(out->line, capacity * sizeof *grown);
            if (!grown) {
                status = fail_memory(error, "lines", capacity * sizeof *grown);
                break;
            }
            out->line = grown;
            out->capacity = capacity;
        }
        status = parse_line(path, number, text, (size_t)(stop - text) + 1, &out->line[out->n], error);
        out->n += status == CANDID_OK;
        text = stop + 1;
    }
    file_unmap(&file);
    if (out->n > 0) {
        qsort(out->line, out->n, sizeof *out->line, by_index);
    }
    return status;
}

/* ---- answers ------------------------------------------------------------------------------------- */

/* A string; numbers as they print (ids of images), absent: NULL. `buffer` holds a number. */
static candid_status get_text(const struct line *line, const char *key, char buffer[32], const char **out,
                              candid_error *error) {
    const cJSON *item = json_find(line->json.root, key);
    *out = NULL;
    if (cJSON_IsNumber(item)) {
        snprintf(buffer, 32, "%.17g", item->valuedouble);
        *out = buffer;
        return CANDID_OK;
    }
    return json_get_string(&line->json, line->json.root, "", key, out, error);
}

static candid_status add_question(struct report_run *run, const struct line *line, candid_error *error) {
    struct eval_item item = {0};
    char id[32], image[32], other[32];
    const char *why = NULL;
    TRY(get_text(line, "id", id, &item.id, error));
    TRY(get_text(line, "image", image, &item.image, error));
    TRY(get_text(line, "split", other, &item.split, error));
    TRY(json_get_string(&line->json, line->json.root, "", "question", &item.question, error));
    TRY(json_get_string(&line->json, line->json.root, "", "label", &item.label, error));
    TRY(json_get_string(&line->json, line->json.root, "", "answer", &item.answer, error));
    TRY(json_get_string(&line->json, line->json.root, "", "error", &why, error));
    if (!item.answer && !why) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: expected a key answer or error, found neither", line->json.label);
    }
    if (!item.image) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: expected a key image, found none", line->json.label);
    }
    const size_t at = run->questions.n;
    TRY(items_add(&run->questions, &item, error));
    run->errors[at] = item.answer ? NULL : items_text(&run->questions, why);
    if (!item.answer && !run->errors[at]) {
        return fail_memory(error, "a question", strlen(why));
    }
    return CANDID_OK;
}

/* A failed question may have been asked again: its last line counts. Answers must not contradict each other. */
static candid_status add_questions(struct report_run *run, const struct lines *lines, candid_error *error) {
    for (size_t i = 0; i < lines->n; i++) {
        const struct line *line = &lines->line[i];
        if (i + 1 < lines->n && lines->line[i + 1].index == line->index) {
            if (json_find(line->json.root, "answer")) {
                return fail(error, CANDID_ERROR_FORMAT,
                            "%s: expected one answer to question %" PRId64 ", found another on line %zu",
                            line->json.label, line->index, lines->line[i + 1].number);
            }
            continue;
        }
        TRY(add_question(run, line, error));
    }
    return CANDID_OK;
}

/* ---- verdicts ------------------------------------------------------------------------------------ */

/* Indices of the questions in order, to find them by. */
static candid_status add_verdicts(struct report_run *run, const struct lines *answers, struct lines *scored,
                                  candid_error *error) {
    size_t at = 0, q = 0; /* the line in `answers`, the question it became */
    for (size_t i = 0; i < scored->n; i++) {
        struct line *line = &scored->line[i];
        if (i > 0 && line->index == scored->line[i - 1].index) {
            return fail(error, CANDID_ERROR_FORMAT,
                        "%s: expected one verdict on question %" PRId64 ", found another on line %zu", line->json.label,
                        line->index, scored->line[i - 1].number);
        }
        while (at < answers->n && answers->line[at].index < line->index) {
            q += at + 1 == answers->n || answers->line[at + 1].index != answers->line[at].index;
            at++;
        }
        if (at == answers->n || answers->line[at].index != line->index || !run->questions.items[q].answer) {
            /* several lines of one question: the last one counts, and q is already its number */
            if (at == answers->n || answers->line[at].index != line->index) {
                return fail(error, CANDID_ERROR_FORMAT,
                            "%s: expected a verdict on a question of the run, found one on question %" PRId64,
                            line->json.label, line->index);
            }
            return fail(error, CANDID_ERROR_FORMAT,
                        "%s: expected a verdict on an answer, but question %" PRId64 " has none", line->json.label,
                        line->index);
        }
        run->verdicts[q] = line->json.root;
        line->json.root = NULL;
    }
    return CANDID_OK;
}

/* ---- run ----------------------------------------------------------------------------------------- */

/* A file that the summary names lies beside it: `name` without folders. */
static candid_status beside(const struct report_run *run, const char *key, char **out, candid_error *error) {
    const char *name = report_summary_string(run, key);
    const char *slash = strrchr(run->path, '/');
    if (!name || !name[0] || strchr(name, '/')) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: key %s: expected the name of a file beside it, found %s",
                    run->summary.label, key, name ? "a path" : "none");
    }
    char *folder = slash ? strndup(run->path, (size_t)(slash - run->path) + (slash == run->path)) : strdup(".");
    if (!folder) {
        return fail_memory(error, "a path", strlen(run->path));
    }
    const candid_status status = file_join(folder, name, out, error);
    free(folder);
    return status;
}

static candid_status read_answers(struct report_run *run, struct lines *answers, struct lines *scored,
                                  candid_error *error) {
    char *path = NULL;
    TRY(beside(run, "items", &path, error));
    candid_status status = lines_read(path, answers, error);
    free(path);
    TRY(status);
    run->errors = calloc(answers->n + 1, sizeof *run->errors);
    run->verdicts = calloc(answers->n + 1, sizeof *run->verdicts);
    if (!run->errors || !run->verdicts) {
        return fail_memory(error, "the verdicts", answers->n * sizeof *run->verdicts);
    }
    TRY(add_questions(run, answers, error));
    if (report_summary(run, "scored")) {
        TRY(beside(run, "scored", &path, error));
        status = lines_read(path, scored, error);
        free(path);
        TRY(status);
        TRY(add_verdicts(run, answers, scored, error));
    }
    return CANDID_OK;
}

/* Scores of candid score have no name: that of their file. */
static candid_status default_name(struct report_run *run, candid_error *error) {
    if (run->name && run->name[0]) {
        return CANDID_OK;
    }
    const char *slash = strrchr(run->path, '/'), *base = slash ? slash + 1 : run->path, *dot = strrchr(base, '.');
    char *name = strndup(base, dot && dot > base ? (size_t)(dot - base) : strlen(base));
    run->name = name ? items_text(&run->questions, name) : NULL;
    free(name);
    return run->name ? CANDID_OK : fail_memory(error, "a name", strlen(base));
}

static candid_status read_run(const char *path, struct report_run *run, candid_error *error) {
    TRY(json_read(path, SUMMARY_LIMIT, &run->summary, error));
    run->path = strdup(path);
    if (!run->path) {
        return fail_memory(error, "a path", strlen(path));
    }
    const struct json *j = &run->summary;
    const cJSON *scores = NULL;
    TRY(json_get_string(j, j->root, "", "name", &run->name, error));
    TRY(json_get_string(j, j->root, "", "benchmark", &run->benchmark, error));
    TRY(json_get_object(j, j->root, "", "scores", &scores, error));
    if (!run->benchmark || !run->benchmark[0]) {
        return fail(error, CANDID_ERROR_FORMAT,
                    "%s: expected the summary of a run with a key benchmark, as candid eval and candid score write it, "
                    "found none",
                    j->label);
    }
    TRY(default_name(run, error));
    run->complete = true;
    TRY(json_get_bool(j, j->root, "", "complete", &run->complete, error));
    run->has_answers = report_summary(run, "items") != NULL;
    if (!run->has_answers) {
        return scores ? CANDID_OK
                      : fail(error, CANDID_ERROR_FORMAT, "%s: expected a key items or scores, found neither", j->label);
    }
    struct lines answers = {0}, scored = {0};
    const candid_status status = read_answers(run, &answers, &scored, error);
    lines_free(&answers);
    lines_free(&scored);
    return status;
}

candid_status report_run_read(const char *path, struct report_run *out, candid_error *error) {
    *out = (struct report_run){0};
    const candid_status status = read_run(path, out, error);
    if (status != CANDID_OK) {
        report_run_free(out);
    }
    return status;
}

void report_run_free(struct report_run *run) {
    for (size_t i = 0; run->verdicts && i < run->questions.n; i++) {
        cJSON_Delete(run->verdicts[i]);
    }
    free(run->verdicts);
    free(run->errors);
    items_free(&run->questions);
    json_free(&run->summary);
    free(run->path);
    *run = (struct report_run){0};
}

const cJSON *report_summary(const struct report_run *run, const char *path) {
    const cJSON *at = run->summary.root;
    while (at) {
        char key[64];
        const size_t n = strcspn(path, ".");
        if (n >= sizeof key) {
            return NULL;
        }
        memcpy(key, path, n);
        key[n] = '\0';
        at = cJSON_IsObject(at) ? json_find(at, key) : NULL;
        if (!path[n]) {
            return at;
        }
        path += n + 1;
    }
    return NULL;
}

const char *report_summary_string(const struct report_run *run, const char *path) {
    const cJSON *item = report_summary(run, path);
    return cJSON_IsString(item) ? item->valuestring : NULL;
}

double report_summary_number(const struct report_run *run, const char *path) {
    const cJSON *item = report_summary(run, path);
    return cJSON_IsNumber(item) && isfinite(item->valuedouble) ? item->valuedouble : NAN;
}
