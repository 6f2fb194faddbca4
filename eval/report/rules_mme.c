/* MME and AMBER. */
#include <math.h>
#include <string.h>
#include <strings.h>

#include "core/status.h"
#include "eval/report/rules.h"

/* ---- MME ----------------------------------------------------------------------------------------- */

enum { QUESTIONS, CORRECT, IMAGES, ALL_CORRECT, MME_COUNTS };
enum { MME_METRICS = 3 }; /* of a sub-task */

/* The sums that are published: their names and the beginnings of their sub-tasks' names. */
static const struct {
    const char *name;
    const char *parts[12];
} totals[] = {
    {"hallucination", {"existence", "count", "position", "color"}},
    {"perception",
     {"existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "ocr"}},
    {"cognition", {"commonsense", "numerical", "text", "code"}},
};
enum { TOTALS = sizeof totals / sizeof *totals };

static size_t find_part(const struct report_group *g, const char *part) {
    for (size_t s = 0; s < g->n_splits; s++) {
        if (strncasecmp(g->splits[s], part, strlen(part)) == 0) {
            return s;
        }
    }
    return SIZE_MAX;
}

/* All its sub-tasks were asked. */
static bool has_total(const struct report_group *g, size_t total) {
    for (size_t i = 0; totals[total].parts[i]; i++) {
        if (find_part(g, totals[total].parts[i]) == SIZE_MAX) {
            return false;
        }
    }
    return true;
}

static candid_status mme_prepare(struct report_group *g, candid_error *error) {
    for (size_t t = 0; t < TOTALS; t++) {
        if (has_total(g, t)) {
            struct report_metric m = {.key = "score", .name = "Score", .unit = UNIT_NUMBER, .better = 1, .main = true};
            snprintf(m.split, sizeof m.split, "%s", totals[t].name);
            TRY(report_add_metric(g, &m, error));
        }
    }
    const bool few = g->n_metrics == 0; /* no total: the sub-tasks are the result */
    for (size_t s = 0; s < g->n_splits; s++) {
        struct report_metric m[MME_METRICS] = {
            {.key = "acc", .name = "Accuracy", .better = 1},
            {.key = "acc_plus", .name = "Accuracy+", .better = 1},
            {.key = "score", .name = "Score", .unit = UNIT_NUMBER, .better = 1, .main = few},
        };
        for (size_t k = 0; k < MME_METRICS; k++) {
            snprintf(m[k].split, sizeof m[k].split, "%s", g->splits[s]);
            TRY(report_add_metric(g, &m[k], error));
        }
    }
    return CANDID_OK;
}

static size_t mme_n_counts(const struct report_group *g) {
    return g->n_splits * MME_COUNTS;
}

static bool mme_count(const struct report_group *g, size_t run, size_t i, double *counts) {
    const cJSON *correct = json_find(report_verdict(g, run, i), "correct");
    if (!cJSON_IsBool(correct)) {
        return false;
    }
    counts[g->split[i] * MME_COUNTS + QUESTIONS] += 1;
    counts[g->split[i] * MME_COUNTS + CORRECT] += cJSON_IsTrue(correct);
    return true;
}

static void mme_finish(const struct report_group *g, double *counts) {
    for (size_t s = 0; s < g->n_splits; s++, counts += MME_COUNTS) {
        counts[IMAGES] = counts[QUESTIONS] > 0;
        counts[ALL_CORRECT] = counts[QUESTIONS] > 0 && counts[CORRECT] == counts[QUESTIONS];
    }
}

static double mme_score(const double *c) {
    return report_ratio(c[CORRECT], c[QUESTIONS]) * 100 + report_ratio(c[ALL_CORRECT], c[IMAGES]) * 100;
}

/* Which total metric m is, TOTALS when it is of a sub-task; *first: the metric where those begin. */
static size_t total_of(const struct report_group *g, size_t m, size_t *first) {
    size_t found = TOTALS;
    *first = 0;
    for (size_t t = 0; t < TOTALS; t++) {
        if (has_total(g, t)) {
            found = *first == m ? t : found;
            ++*first;
        }
    }
    return found;
}

static double mme_value(const struct report_group *g, size_t m, const double *sums) {
    size_t first;
    const size_t total = total_of(g, m, &first);
    if (total < TOTALS) {
        double sum = 0.0;
        for (size_t i = 0; totals[total].parts[i]; i++) {
            sum += mme_score(sums + find_part(g, totals[total].parts[i]) * MME_COUNTS);
        }
        return sum;
    }
    const double *c = sums + (m - first) / MME_METRICS * MME_COUNTS;
    switch ((m - first) % MME_METRICS) {
    case 0: return report_ratio(c[CORRECT], c[QUESTIONS]);
    case 1: return report_ratio(c[ALL_CORRECT], c[IMAGES]);
    default: return mme_score(c);
    }
}

static void mme_path(const struct report_group *g, size_t metric, char path[128]) {
    size_t first;
    const size_t total = total_of(g, metric, &first);
    if (total < TOTALS) {
        snprintf(path, 128, "%s", totals[total].name);
    } else {
        snprintf(path, 128, "subtasks.%s.%s", g->metrics[metric].split, g->metrics[metric].key);
    }
}

const struct report_benchmark report_mme = {
    .name = "mme",
    .title = "MME",
    .yes_no = true,
    .unit_is_pair = true,
    .prepare = mme_prepare,
    .n_counts = mme_n_counts,
    .count = mme_count,
    .finish = mme_finish,
    .value = mme_value,
    .path = mme_path,
};

/* ---- AMBER --------------------------------------------------------------------------------------- */

/* Of descriptions, then of each type of questions; "no" is the positive class. */
enum { DESCRIBED, WITH_WRONG, NOUNS, WRONG, GENERATIVE_COUNTS };
enum { ASKED, RIGHT, GOLD_NO, SAID_NO, TRUE_NO, TYPE_COUNTS };
enum { GENERATIVE_METRICS = 4, TYPE_METRICS = 4 };

static bool is_description(const char *split) {
    return strncasecmp(split, "generative", 10) == 0;
}

/* Descriptions and questions may both be there, or one of them. Slots of types: the total, then the others in order. */
static bool has_descriptions(const struct report_group *g) {
    return g->n_splits > 0 && find_part(g, "generative") != SIZE_MAX;
}

static size_t n_types(const struct report_group *g) {
    return g->n_splits - has_descriptions(g);
}

/* Slot of a split among the types, after the total. */
static size_t type_slot(const struct report_group *g, size_t split) {
    size_t slot = 1;
    for (size_t s = 0; s < split; s++) {
        slot += !is_description(g->splits[s]);
    }
    return slot;
}

static candid_status add_type(struct report_group *g, const char *split, bool main, candid_error *error) {
    struct report_metric m[TYPE_METRICS] = {
        {.key = "accuracy", .name = "Accuracy", .better = 1, .main = main},
        {.key = "precision", .name = "Precision", .better = 1, .main = main},
        {.key = "recall", .name = "Recall", .better = 1, .main = main},
        {.key = "f1", .name = "F1", .better = 1, .main = main},
    };
    for (size_t k = 0; k < TYPE_METRICS; k++) {
        snprintf(m[k].split, sizeof m[k].split, "%s", split);
        TRY(report_add_metric(g, &m[k], error));
    }
    return CANDID_OK;
}

static candid_status amber_prepare(struct report_group *g, candid_error *error) {
    static const struct report_metric generative[GENERATIVE_METRICS] = {
        {.split = "generative", .key = "chair", .name = "CHAIR", .better = -1, .main = true},
        {.split = "generative", .key = "hal", .name = "Hal", .better = -1, .main = true},
        {.split = "generative", .key = "cover", .name = "Cover", .better = 1, .main = true},
        {.split = "generative", .key = "cog", .name = "Cog", .better = -1, .main = true},
    };
    for (size_t i = 0; has_descriptions(g) && i < GENERATIVE_METRICS; i++) {
        TRY(report_add_metric(g, &generative[i], error));
    }
    if (n_types(g) > 0) {
        TRY(add_type(g, "total", true, error));
    }
    for (size_t s = 0; s < g->n_splits; s++) {
        if (!is_description(g->splits[s])) {
            TRY(add_type(g, g->splits[s], false, error));
        }
    }
    return CANDID_OK;
}

static size_t amber_n_counts(const struct report_group *g) {
    return GENERATIVE_COUNTS + (1 + n_types(g)) * TYPE_COUNTS;
}

static bool amber_count(const struct report_group *g, size_t run, size_t i, double *counts) {
    const cJSON *v = report_verdict(g, run, i), *nouns = json_find(v, "nouns"), *wrong = json_find(v, "hallucinated");
    const cJSON *verdict = json_find(v, "verdict"), *correct = json_find(v, "correct");
    if (is_description(g->splits[g->split[i]])) {
        if (!cJSON_IsArray(nouns) || !cJSON_IsArray(wrong)) {
            return false;
        }
        counts[DESCRIBED] += 1;
        counts[WITH_WRONG] += wrong->child != NULL;
        counts[NOUNS] += cJSON_GetArraySize(nouns);
        counts[WRONG] += cJSON_GetArraySize(wrong);
        return true;
    }
    const char *label = report_item(g, run, i)->label;
    if (!cJSON_IsString(verdict) || !cJSON_IsBool(correct) || !label) {
        return false;
    }
    const bool no = strcasecmp(label, "no") == 0, said = strcasecmp(verdict->valuestring, "no") == 0;
    const size_t slots[2] = {0, type_slot(g, g->split[i])};
    for (size_t k = 0; k < 2; k++) {
        double *c = counts + GENERATIVE_COUNTS + slots[k] * TYPE_COUNTS;
        c[ASKED] += 1;
        c[RIGHT] += cJSON_IsTrue(correct);
        c[GOLD_NO] += no;
        c[SAID_NO] += said;
        c[TRUE_NO] += no && said;
    }
    return true;
}

static double amber_value(const struct report_group *g, size_t m, const double *sums) {
    if (has_descriptions(g) && m < GENERATIVE_METRICS) {
        return m == 0   ? report_ratio(sums[WRONG], sums[NOUNS])
               : m == 1 ? report_ratio(sums[WITH_WRONG], sums[DESCRIBED])
                        : NAN; /* what could be covered is not in the verdicts */
    }
    m -= has_descriptions(g) ? GENERATIVE_METRICS : 0;
    const double *c = sums + GENERATIVE_COUNTS + m / TYPE_METRICS * TYPE_COUNTS;
    const double precision = report_ratio(c[TRUE_NO], c[SAID_NO]), recall = report_ratio(c[TRUE_NO], c[GOLD_NO]);
    switch (m % TYPE_METRICS) {
    case 0: return report_ratio(c[RIGHT], c[ASKED]);
    case 1: return precision;
    case 2: return recall;
    default: return report_ratio(2 * precision * recall, precision + recall);
    }
}

static void amber_path(const struct report_group *g, size_t metric, char path[128]) {
    const struct report_metric *m = &g->metrics[metric];
    const char *type = strncmp(m->split, "discriminative-", 15) == 0 ? m->split + 15 : m->split;
    snprintf(path, 128, "%s%s.%s", is_description(m->split) ? "" : "discriminative.", type, m->key);
}

const struct report_benchmark report_amber = {
    .name = "amber",
    .title = "AMBER",
    .yes_no = true,
    .prepare = amber_prepare,
    .n_counts = amber_n_counts,
    .count = amber_count,
    .value = amber_value,
    .path = amber_path,
};
