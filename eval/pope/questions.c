/* Question files of POPE in all forms that circulate. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/file.h"
#include "core/json.h"
#include "core/status.h"
#include "core/text.h"
#include "eval/common/lmms_eval.h"
#include "eval/pope/pope.h"

/* The first of the keys that the object has, NULL when it has none. keys: ends with NULL. */
static const cJSON *first_of(const cJSON *object, const char *const keys[]) {
    for (; *keys; keys++) {
        const cJSON *item = json_find(object, *keys);
        if (item) {
            return item;
        }
    }
    return NULL;
}

/* PAI's answers have the whole prompt as "question" and what was asked as "query". */
static const char *const question_keys[] = {"query", "text", "question", NULL};
static const char *const answer_keys[] = {"answer", "ans", "output", NULL};
static const char *const id_keys[] = {"question_id", "id", "chat_id", "index", NULL};
static const char *const split_keys[] = {"split", "category", NULL};

/* The split that the file's name holds, or NULL. */
static const char *split_of_name(const char *path) {
    static const char *const splits[] = {"random", "popular", "adversarial"};
    const char *slash = strrchr(path, '/');
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++) {
        if (strstr(slash ? slash + 1 : path, splits[i])) {
            return splits[i];
        }
    }
    return NULL;
}

/* A label as "yes" or "no"; the programs write strings, 0 and 1, true and false. NULL: it is none. */
static const char *label_text(const cJSON *label) {
    int64_t number;
    if (cJSON_IsString(label)) {
        return strcasecmp(label->valuestring, "yes") == 0  ? "yes"
               : strcasecmp(label->valuestring, "no") == 0 ? "no"
                                                           : NULL;
    }
    if (cJSON_IsBool(label)) {
        return cJSON_IsTrue(label) ? "yes" : "no";
    }
    return json_is_int(label, 0, 1, &number) ? (number == 1 ? "yes" : "no") : NULL;
}

/* A question file while it is read. */
struct reader {
    const struct json_objects *file;
    size_t row;
    const char *split; /* for objects that name none */
    struct eval_items *items;
};

static candid_status wrong(const struct reader *r, const char *what, const cJSON *found, candid_error *error) {
    char text[JSON_FOUND];
    return json_objects_fail(r->file, r->row, error, "expected %s, found %s", what,
                             found ? json_found(found, text) : "none");
}

/* A member that must be a string where it is there. */
static candid_status string_of(const struct reader *r, const cJSON *item, const char *what, const char **out,
                               candid_error *error) {
    *out = NULL;
    if (item && !cJSON_IsString(item)) {
        return wrong(r, what, item, error);
    }
    *out = item ? item->valuestring : NULL;
    return CANDID_OK;
}

/* Sets what the object's questions share. `id`: room for a number. */
static candid_status read_common(const struct reader *r, struct eval_item *item, char id[JSON_ID],
                                 candid_error *error) {
    const cJSON *object = r->file->items[r->row];
    const cJSON *found = first_of(object, id_keys);
    *item = (struct eval_item){.id = found ? json_id(found, id) : NULL};
    if (found && !item->id) {
        return wrong(r, "a string or a number as the question's id", found, error);
    }
    TRY(string_of(r, json_find(object, "image"), "a string as \"image\"", &item->image, error));
    TRY(string_of(r, first_of(object, split_keys), "a string as \"category\" or \"split\"", &item->split, error));
    item->split = item->split ? item->split : r->split;
    return CANDID_OK;
}

/* PAI's chat form: lists of questions and labels about one image. */
static candid_status read_chat(const struct reader *r, struct eval_item item, const cJSON *texts, const cJSON *labels,
                               candid_error *error) {
    if (!cJSON_IsArray(labels) || cJSON_GetArraySize(labels) != cJSON_GetArraySize(texts)) {
        return wrong(r, "as many labels in \"label\" as there are questions in \"text\"", labels, error);
    }
    const cJSON *text = texts->child;
    int k = 0;
    for (const cJSON *label = labels->child; label; label = label->next, text = text->next, k++) {
        char id[JSON_ID + 128];
        struct eval_item one = item;
        if (item.id) {
            snprintf(id, sizeof id, "%.100s.%d", item.id, k);
            one.id = id;
        }
        one.label = label_text(label);
        if (!cJSON_IsString(text) || !one.label) {
            return wrong(r, one.label ? "a string in \"text\"" : "\"yes\" or \"no\" in \"label\"",
                         one.label ? text : label, error);
        }
        one.question = text->valuestring;
        TRY(items_add(r->items, &one, error));
    }
    return CANDID_OK;
}

static candid_status read_row(const struct reader *r, candid_error *error) {
    const cJSON *object = r->file->items[r->row];
    const cJSON *text = first_of(object, question_keys), *label = json_find(object, "label");
    char id[JSON_ID];
    struct eval_item item;
    TRY(read_common(r, &item, id, error));
    if (cJSON_IsArray(text)) {
        return read_chat(r, item, text, label, error);
    }
    TRY(string_of(r, first_of(object, answer_keys), "a string as the answer", &item.answer, error));
    TRY(string_of(r, text, "a string as the question", &item.question, error));
    if (!item.question && !item.answer) {
        return wrong(r, "a question under \"text\", \"question\" or \"query\"", NULL, error);
    }
    item.label = label ? label_text(label) : NULL;
    if (label && !item.label) {
        return wrong(r, "\"yes\" or \"no\" as \"label\"", label, error);
    }
    return items_add(r->items, &item, error);
}

candid_status pope_check_splits(const struct eval_items *items, size_t begin, const char *path, candid_error *error) {
    const char *checked = NULL;
    for (size_t i = begin; i < items->n; i++) {
        const char *split = items->items[i].split ? items->items[i].split : "";
        if (checked && strcmp(split, checked) == 0) {
            continue;
        }
        checked = split;
        for (size_t k = 0; k < begin; k++) {
            if (strcmp(items->items[k].split ? items->items[k].split : "", split) == 0) {
                struct printable p;
                char label[208];
                return fail(error, CANDID_ERROR_FORMAT,
                            "%s: expected questions of a split of their own, found \"%s\", which an earlier file has "
                            "too; score them apart",
                            file_label(path, label, sizeof label),
                            *split ? printable_string(&p, split) : "no split's name");
            }
        }
    }
    return CANDID_OK;
}

candid_status pope_read_questions(const char *path, const char *split, struct eval_items *items, candid_error *error) {
    struct json_objects file;
    TRY(answer_objects_read(path, &file, error));
    struct reader r = {&file, 0, split ? split : split_of_name(path), items};
    const size_t begin = items->n;
    candid_status status = CANDID_OK;
    for (; r.row < file.n && status == CANDID_OK; r.row++) {
        status = read_row(&r, error);
    }
    if (status == CANDID_OK) {
        status = pope_check_splits(items, begin, path, error);
    }
    if (status == CANDID_OK) {
        struct eval_source source = {
            .path = path, .n_lines = items->n - begin, .known_as = pope_known_version(items, begin, items->n)};
        memcpy(source.sha256, file.sha256, sizeof source.sha256);
        status = items_add_source(items, &source, error);
    }
    json_objects_free(&file);
    return status;
}

/* The next item from `at` on that is of the split, or items->n. */
static size_t next_of_split(const struct eval_items *items, size_t at, const char *split) {
    while (at < items->n && !(items->items[at].split && split && strcmp(items->items[at].split, split) == 0)) {
        at++;
    }
    return at;
}

static candid_status set_label(struct eval_items *items, struct eval_item *to, const struct eval_item *from,
                               const char *path, size_t number, candid_error *error) {
    const bool same_image = to->image && from->image && strcmp(to->image, from->image) == 0;
    if (!from->label || !from->question || !same_image ||
        strncmp(to->question, from->question, strlen(from->question)) != 0) {
        struct printable file, p, q;
        return fail(error, CANDID_ERROR_FORMAT,
                    "%s: question %zu: expected a label for \"%s\" about the same image, found \"%s\"",
                    printable_string(&file, path), number, printable_string(&p, to->question),
                    printable_string(&q, from->question ? from->question : "no question"));
    }
    to->label = items_text(items, from->label);
    return to->label ? CANDID_OK : fail_memory(error, "a label", 4);
}

candid_status pope_read_labels(const char *path, const char *split, struct eval_items *items, candid_error *error) {
    struct eval_items labels = {0};
    candid_status status = pope_read_questions(path, split, &labels, error);
    size_t at = 0, k = 0;
    for (; status == CANDID_OK && k < labels.n; k++, at++) {
        at = next_of_split(items, at, labels.items[k].split);
        if (at == items->n) {
            break;
        }
        status = set_label(items, &items->items[at], &labels.items[k], path, k + 1, error);
    }
    if (status == CANDID_OK && (k < labels.n || next_of_split(items, at, labels.items[0].split) < items->n)) {
        struct printable p;
        status = fail(error, CANDID_ERROR_FORMAT, "%s: expected as many labels as there are questions, found %s",
                      printable_string(&p, path), k < labels.n ? "more" : "fewer");
    }
    if (status == CANDID_OK) {
        status = items_add_source(items, &labels.sources[0], error);
    }
    items_free(&labels);
    return status;
}
