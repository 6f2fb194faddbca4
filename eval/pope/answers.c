/* Answer files of POPE joined with their questions. */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/status.h"
#include "core/text.h"
#include "eval/common/lmms_eval.h"
#include "eval/pope/pope.h"

/* An id and where it stands. */
struct key {
    const char *id;
    size_t index;
};

static int compare_keys(const void *a, const void *b) {
    const struct key *x = a, *y = b;
    const int order = strcmp(x->id, y->id);
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

/* Sorts; false when an id is missing or there twice. */
static bool sort_distinct(struct key *keys, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (!keys[i].id) {
            return false;
        }
    }
    qsort(keys, n, sizeof *keys, compare_keys);
    for (size_t i = 1; i < n; i++) {
        if (strcmp(keys[i - 1].id, keys[i].id) == 0) {
            return false;
        }
    }
    return true;
}

static const cJSON *answer_of(const cJSON *row) {
    static const char *const keys[] = {"answer", "ans", "output", "text"};
    const cJSON *answer = NULL;
    for (size_t k = 0; k < sizeof keys / sizeof *keys && !answer; k++) {
        answer = json_find(row, keys[k]);
    }
    return answer;
}

/* The answers of a file and the questions they are for. */
struct join {
    struct json_objects file;
    struct eval_items *items;
    size_t begin, end;
    char questions[208]; /* the file of the questions, for messages */
    struct key *answers; /* [file.n] by id; not sorted where the ids are not distinct */
    struct key *asked;   /* [end - begin] */
};

static candid_status set_answer(struct join *j, size_t row, size_t item, candid_error *error) {
    const cJSON *answer = answer_of(j->file.items[row]);
    if (!cJSON_IsString(answer)) {
        char found[JSON_FOUND];
        return json_objects_fail(&j->file, row, error,
                                 "expected an answer (\"answer\", \"ans\", \"output\" or \"text\") to question %zu of "
                                 "%s, found %s",
                                 item - j->begin + 1, j->questions, answer ? json_found(answer, found) : "none");
    }
    j->items->items[item].answer = items_text(j->items, answer->valuestring);
    return j->items->items[item].answer ? CANDID_OK : fail_memory(error, "an answer", strlen(answer->valuestring));
}

/* Id of every answer, as text; false in *out: one has none. */
static candid_status collect_ids(struct join *j, bool *out, candid_error *error) {
    for (size_t i = 0; i < j->file.n; i++) {
        const cJSON *id = json_find(j->file.items[i], "question_id");
        id = id ? id : json_find(j->file.items[i], "id");
        char number[JSON_ID];
        const char *text = id ? json_id(id, number) : NULL;
        j->answers[i] = (struct key){items_text(j->items, text), i};
        if (text && !j->answers[i].id) {
            return fail_memory(error, "an id", strlen(text));
        }
    }
    for (size_t i = j->begin; i < j->end; i++) {
        j->asked[i - j->begin] = (struct key){j->items->items[i].id, i};
    }
    *out = sort_distinct(j->asked, j->end - j->begin) && j->file.n > 0 && j->answers[0].id;
    return CANDID_OK;
}

/* Ids are distinct among the questions: each answer must name one of its own. */
static candid_status join_by_id(struct join *j, candid_error *error) {
    const size_t n = j->end - j->begin;
    for (size_t row = 0; row < j->file.n; row++) {
        struct printable p;
        const struct key *answer = &j->answers[row];
        if (!answer->id) {
            return json_objects_fail(&j->file, row, error,
                                     "expected the \"question_id\" of a question of %s, found none", j->questions);
        }
        const struct key wanted = {answer->id, 0};
        const struct key *low = j->asked, *hit = NULL;
        for (size_t left = n; left > 0;) { /* binary search */
            const size_t half = left / 2;
            const int order = strcmp(low[half].id, wanted.id);
            if (order == 0) {
                hit = &low[half];
                break;
            }
            low = order < 0 ? low + half + 1 : low;
            left = order < 0 ? left - half - 1 : half;
        }
        if (!hit) {
            return json_objects_fail(&j->file, row, error, "expected the id of a question of %s, found \"%s\"",
                                     j->questions, printable_string(&p, answer->id));
        }
        if (j->items->items[hit->index].answer) {
            return json_objects_fail(&j->file, row, error, "expected one answer to question \"%s\" of %s, found two",
                                     printable_string(&p, answer->id), j->questions);
        }
        TRY(set_answer(j, row, hit->index, error));
    }
    return CANDID_OK;
}

static candid_status join_all(struct join *j, bool by_order, candid_error *error) {
    const size_t n = j->end - j->begin;
    if (j->file.n != n) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: expected an answer to each of the %zu questions of %s, found %zu",
                    j->file.label, n, j->questions, j->file.n);
    }
    bool by_id = false;
    TRY(collect_ids(j, &by_id, error));
    if (by_id && !by_order) {
        return join_by_id(j, error);
    }
    for (size_t row = 0; row < n; row++) {
        const char *asked = j->items->items[j->begin + row].id, *answered = j->answers[row].id;
        if (!by_order && asked && answered && strcmp(asked, answered) != 0) {
            struct printable p, q;
            return json_objects_fail(&j->file, row, error, "expected the answer to question \"%s\" of %s, found \"%s\"",
                                     printable_string(&p, asked), j->questions, printable_string(&q, answered));
        }
        TRY(set_answer(j, row, j->begin + row, error));
    }
    return CANDID_OK;
}

candid_status pope_read_answers(const char *path, bool by_order, struct eval_items *items, size_t begin, size_t end,
                                candid_error *error) {
    struct join j = {.items = items, .begin = begin, .end = end, .questions = "the question file"};
    for (size_t s = 0, first = 0; s < items->n_sources; first += items->sources[s++].n_lines) {
        if (first == begin) {
            file_label(items->sources[s].path, j.questions, sizeof j.questions);
        }
    }
    TRY(answer_objects_read(path, &j.file, error));
    for (size_t i = begin; i < end; i++) {
        items->items[i].answer = NULL;
    }
    j.answers = calloc(j.file.n + 1, sizeof *j.answers);
    j.asked = calloc(end - begin + 1, sizeof *j.asked);
    const candid_status status = j.answers && j.asked
                                     ? join_all(&j, by_order, error)
                                     : fail_memory(error, "a list of ids", (j.file.n + 1) * sizeof *j.answers);
    free(j.answers);
    free(j.asked);
    json_objects_free(&j.file);
    return status;
}
