/* MME's scores, in the order of operations of the official calculation.py and of lmms-eval. */
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "core/text.h"
#include "eval/common/python_text.h"
#include "eval/mme/mme.h"

const char *const mme_subtasks[] = {"existence",
                                    "count",
                                    "position",
                                    "color",
                                    "posters",
                                    "celebrity",
                                    "scene",
                                    "landmark",
                                    "artwork",
                                    "OCR",
                                    "commonsense_reasoning",
                                    "numerical_calculation",
                                    "text_translation",
                                    "code_reasoning",
                                    NULL};

/* The first characters of an answer, ASCII letters in lower case; "." left out for lmms-eval. Four characters of UTF-8
 * have at most 16 bytes. */
static size_t take_prefix(const char *text, size_t size, const char *left_out, char prefix[17]) {
    size_t n = 0, n_characters = 0;
    for (size_t i = 0; i < size; i++) {
        const bool begins = ((unsigned char)text[i] & 0xC0) != 0x80;
        if (strchr(left_out, text[i])) {
            continue;
        }
        if ((begins && n_characters == 4) || n == 16) {
            break;
        }
        n_characters += begins;
        n_characters += begins && strncmp(text + i, "\u0130", 2) == 0; /* "İ" in lower case is two in Python */
        prefix[n++] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 'a' - 'A') : text[i];
    }
    prefix[n] = '\0';
    return n;
}

const char *mme_read_answer(const char *rule, const char *answer) {
    const bool official = !rule || strcmp(rule, "official") == 0;
    if (!official && strcmp(rule, "lmms-eval") != 0) {
        return NULL;
    }
    char prefix[17];
    size_t size = strlen(answer);
    if (!official) {
        answer = python_strip(answer, &size);
    }
    take_prefix(answer, size, official ? "" : ".", prefix);
    const bool single = !official && prefix[0] != '\0' && prefix[1] == '\0';
    if (strstr(prefix, "yes") || (single && prefix[0] == 'y')) {
        return "yes";
    }
    return strstr(prefix, "no") || (single && prefix[0] == 'n') ? "no" : "other";
}

struct subtask {
    int questions, correct, images, both;
    double sum; /* lmms-eval: of the images' scores */
};

/* "score" of one sub-task. */
static double subtask_score(const struct subtask *s, bool official) {
    if (!official) {
        return s->sum / s->images;
    }
    double score = 0;
    score += (double)s->correct / s->questions * 100;
    score += (double)s->both / s->images * 100;
    return score;
}

static int subtask_index(const char *name) {
    int s = 0;
    while (s < MME_SUBTASKS && strcmp(mme_subtasks[s], name) != 0) {
        s++;
    }
    return s;
}

static bool add_verdict(cJSON **out, const char *verdict, bool correct) {
    *out = cJSON_CreateObject();
    return *out && cJSON_AddStringToObject(*out, "verdict", verdict) && cJSON_AddBoolToObject(*out, "correct", correct);
}

/* Counts the two questions about an image. */
static candid_status count_image(const struct eval_item pair[2], const char *rule, struct subtask *s,
                                 cJSON *verdicts[2], candid_error *error) {
    if (!pair[0].answer || !pair[1].answer) {
        return CANDID_OK;
    }
    int n_correct = 0;
    for (int k = 0; k < 2; k++) {
        const char *verdict = mme_read_answer(rule, pair[k].answer);
        const bool correct = strcmp(verdict, pair[k].label) == 0;
        n_correct += correct;
        if (!add_verdict(&verdicts[k], verdict, correct)) {
            return fail_memory(error, "MME's verdicts", sizeof(cJSON));
        }
    }
    s->questions += 2;
    s->correct += n_correct;
    s->images++;
    s->both += n_correct == 2;
    s->sum += n_correct / 2.0 * 100 + (n_correct == 2 ? 100 : 0);
    return CANDID_OK;
}

static bool is_label(const char *label) {
    return label && (strcmp(label, "yes") == 0 || strcmp(label, "no") == 0);
}

static candid_status count_all(const struct eval_items *items, const char *rule, struct subtask subtasks[],
                               struct eval_scores *out, candid_error *error) {
    for (size_t i = 0; i < items->n; i += 2) {
        const struct eval_item *a = &items->items[i], *b = a + 1;
        struct printable p;
        const int s = a->split ? subtask_index(a->split) : MME_SUBTASKS;
        if (s == MME_SUBTASKS) {
            return fail(error, CANDID_ERROR_FORMAT, "question %zu: expected a sub-task of MME, found \"%s\"", i + 1,
                        printable_string(&p, a->split ? a->split : ""));
        }
        if (i + 1 == items->n || !b->split || strcmp(a->split, b->split) != 0 || !a->image || !b->image ||
            strcmp(a->image, b->image) != 0) {
            return fail(error, CANDID_ERROR_FORMAT,
                        "questions %zu and %zu of MME: expected two about one image, found another after %s", i + 1,
                        i + 2, printable_string(&p, a->image ? a->image : "one without image"));
        }
        if (!is_label(a->label) || !is_label(b->label)) {
            return fail(error, CANDID_ERROR_FORMAT, "question %zu of MME: expected the label \"yes\" or \"no\"",
                        is_label(a->label) ? i + 2 : i + 1);
        }
        TRY(count_image(a, rule, &subtasks[s], &out->verdicts[i], error));
    }
    return CANDID_OK;
}

static bool add_total(cJSON *summary, const char *name, const struct subtask *subtasks, int begin, int end,
                      bool official) {
    double total = 0;
    for (int s = begin; s < end; s++) {
        if (subtasks[s].images == 0) {
            return true;
        }
        total += subtask_score(&subtasks[s], official);
    }
    return cJSON_AddNumberToObject(summary, name, total);
}

static bool add_summary(cJSON *summary, const char *rule, const struct subtask subtasks[]) {
    const bool official = strcmp(rule, "official") == 0;
    cJSON *all = cJSON_AddStringToObject(summary, "rule", rule) ? cJSON_AddObjectToObject(summary, "subtasks") : NULL;
    for (int s = 0; all && s < MME_SUBTASKS; s++) {
        const struct subtask *of = &subtasks[s];
        cJSON *object = of->images > 0 ? cJSON_AddObjectToObject(all, mme_subtasks[s]) : NULL;
        if (of->images > 0 && !(object && cJSON_AddNumberToObject(object, "questions", of->questions) &&
                                cJSON_AddNumberToObject(object, "images", of->images) &&
                                cJSON_AddNumberToObject(object, "acc", (double)of->correct / of->questions) &&
                                cJSON_AddNumberToObject(object, "acc_plus", (double)of->both / of->images) &&
                                cJSON_AddNumberToObject(object, "score", subtask_score(of, official)))) {
            return false;
        }
    }
    return all && add_total(summary, "hallucination", subtasks, 0, MME_HALLUCINATION, official) &&
           add_total(summary, "perception", subtasks, 0, MME_PERCEPTION, official) &&
           add_total(summary, "cognition", subtasks, MME_PERCEPTION, MME_SUBTASKS, official);
}

candid_status mme_score(const struct eval_items *items, const struct mme_options *options, struct eval_scores *out,
                        candid_error *error) {
    const char *rule = options && options->rule ? options->rule : "official";
    *out = (struct eval_scores){0};
    if (!mme_read_answer(rule, "")) {
        struct printable p;
        return fail(error, CANDID_ERROR_ARGUMENT, "MME: expected the rule official or lmms-eval, found \"%s\"",
                    printable_string(&p, rule));
    }
    struct subtask subtasks[MME_SUBTASKS] = {{0}};
    out->n = items->n;
    out->summary = cJSON_CreateObject();
    out->verdicts = calloc(items->n + 1, sizeof(cJSON *));
    candid_status status = out->summary && out->verdicts
                               ? count_all(items, rule, subtasks, out, error)
                               : fail_memory(error, "MME's scores", items->n * sizeof(cJSON *));
    if (status == CANDID_OK && !add_summary(out->summary, rule, subtasks)) {
        status = fail_memory(error, "MME's scores", sizeof(cJSON));
    }
    if (status != CANDID_OK) {
        scores_free(out);
    }
    return status;
}
