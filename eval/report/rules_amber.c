/* AMBER. The scorer's numbers are rounded percentages; intervals here are of the fractions they were rounded from. */
#include <math.h>
#include <string.h>
#include <strings.h>

#include "core/status.h"
#include "eval/report/rules.h"

/* Of descriptions, then of each dimension of the questions; "no" is the positive class. */
enum { DESCRIBED, WITH_WRONG, NOUNS, WRONG, TRUE_OBJECTS, COVERED, LISTED_OBJECTS, LISTED, GENERATIVE_COUNTS };
enum { ASKED, RIGHT, GOLD_NO, SAID_NO, TRUE_NO, DIMENSION_COUNTS };

/* "total" counts every question, "attribute" those of three types. */
enum { TOTAL, EXISTENCE, ATTRIBUTE, STATE, NUMBER, ACTION, RELATION, N_DIMENSIONS };
static const char *const dimensions[N_DIMENSIONS] = {"total",  "existence", "attribute", "state",
                                                     "number", "action",    "relation"};

static bool is_description(const char *type) {
    return strcasecmp(type, "generative") == 0;
}

/* The dimension of a type of questions; the types of relations have two names. */
static int dimension_of(const char *type) {
    static const struct {
        const char *type;
        int dimension;
    } types[] = {
        {"discriminative-hallucination", EXISTENCE},
        {"discriminative-attribute-state", STATE},
        {"discriminative-attribute-number", NUMBER},
        {"discriminative-attribute-action", ACTION},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].type, type) == 0) {
            return types[i].dimension;
        }
    }
    return RELATION;
}

/* Questions of dimension d count for `dimension`. */
static bool belongs(int d, int dimension) {
    return dimension == TOTAL || d == dimension ||
           (dimension == ATTRIBUTE && (d == STATE || d == NUMBER || d == ACTION));
}

static bool has_dimension(const struct report_group *g, int dimension) {
    for (size_t s = 0; s < g->n_splits; s++) {
        if (!is_description(g->splits[s]) && belongs(dimension_of(g->splits[s]), dimension)) {
            return true;
        }
    }
    return false;
}

static candid_status add_dimension(struct report_group *g, int dimension, candid_error *error) {
    const bool main = dimension == TOTAL;
    const char *split = dimensions[dimension];
    const struct report_metric metrics[] = {
        {.split = split, .key = "accuracy", .name = "Accuracy", .better = 1, .main = main},
        {.split = split, .key = "precision", .name = "Precision", .better = 1, .main = main},
        {.split = split, .key = "recall", .name = "Recall", .better = 1, .main = main},
        {.split = split, .key = "f1", .name = "F1", .better = 1, .main = main},
    };
    for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++) {
        struct report_metric m = metrics[i];
        m.part = 1 + (size_t)dimension;
        TRY(report_add_metric(g, &m, error));
    }
    return CANDID_OK;
}

static candid_status amber_prepare(struct report_group *g, candid_error *error) {
    static const struct report_metric generative[] = {
        {.split = "generative", .key = "chair", .name = "CHAIR", .better = -1, .main = true},
        {.split = "generative", .key = "cover", .name = "Cover", .better = 1, .main = true},
        {.split = "generative", .key = "hal", .name = "Hal", .better = -1, .main = true},
        {.split = "generative", .key = "cog", .name = "Cog", .better = -1, .main = true},
    };
    bool described = false; /* then these come first: amber_value() relies on it */
    for (size_t s = 0; s < g->n_splits; s++) {
        described = described || is_description(g->splits[s]);
    }
    for (size_t i = 0; described && i < sizeof generative / sizeof *generative; i++) {
        TRY(report_add_metric(g, &generative[i], error));
    }
    for (int d = 0; d < N_DIMENSIONS; d++) {
        if (has_dimension(g, d)) {
            TRY(add_dimension(g, d, error));
        }
    }
    return CANDID_OK;
}

static size_t amber_n_counts(const struct report_group *g) {
    return GENERATIVE_COUNTS + N_DIMENSIONS * DIMENSION_COUNTS;
}

static bool count_description(const cJSON *v, double *counts) {
    const cJSON *nouns = json_find(v, "nouns"), *wrong = json_find(v, "hallucinated"),
                *covered = json_find(v, "covered"), *listed = json_find(v, "listed"), *truth = json_find(v, "truth"),
                *hallu = json_find(v, "hallu");
    if (!cJSON_IsArray(nouns) || !cJSON_IsArray(wrong) || !cJSON_IsArray(covered) || !cJSON_IsArray(listed) ||
        !cJSON_IsNumber(truth) || !cJSON_IsNumber(hallu)) {
        return false;
    }
    counts[DESCRIBED] += 1;
    counts[WITH_WRONG] += wrong->child != NULL;
    counts[NOUNS] += cJSON_GetArraySize(nouns);
    counts[WRONG] += cJSON_GetArraySize(wrong);
    counts[TRUE_OBJECTS] += truth->valuedouble;
    counts[COVERED] += cJSON_GetArraySize(covered);
    counts[LISTED_OBJECTS] += hallu->valuedouble;
    counts[LISTED] += cJSON_GetArraySize(listed);
    return true;
}

static bool amber_count(const struct report_group *g, size_t run, size_t i, double *counts) {
    const cJSON *v = report_verdict(g, run, i), *verdict = json_find(v, "verdict"), *correct = json_find(v, "correct");
    const char *type = g->splits[g->split[i]], *label = report_item(g, run, i)->label;
    if (is_description(type)) {
        return count_description(v, counts);
    }
    if (!cJSON_IsString(verdict) || !cJSON_IsBool(correct) || !label) {
        return false;
    }
    const int d = dimension_of(type);
    const bool no = strcmp(label, "no") == 0, said = strcmp(verdict->valuestring, "no") == 0;
    for (int k = 0; k < N_DIMENSIONS; k++) {
        double *c = counts + GENERATIVE_COUNTS + k * DIMENSION_COUNTS;
        if (belongs(d, k)) {
            c[ASKED] += 1;
            c[RIGHT] += cJSON_IsTrue(correct);
            c[GOLD_NO] += no;
            c[SAID_NO] += said;
            c[TRUE_NO] += no && said;
        }
    }
    return true;
}

static double amber_value(const struct report_group *g, size_t m, const double *sums) {
    const struct report_metric *metric = &g->metrics[m];
    if (metric->part == 0) {
        return m == 0   ? report_ratio(sums[WRONG], sums[NOUNS])
               : m == 1 ? report_ratio(sums[COVERED], sums[TRUE_OBJECTS])
               : m == 2 ? report_ratio(sums[WITH_WRONG], sums[DESCRIBED])
                        : report_ratio(sums[LISTED], sums[LISTED_OBJECTS]);
    }
    const double *c = sums + GENERATIVE_COUNTS + (metric->part - 1) * DIMENSION_COUNTS;
    const double precision = report_ratio(c[TRUE_NO], c[SAID_NO]), recall = report_ratio(c[TRUE_NO], c[GOLD_NO]);
    switch (metric->key[0]) {
    case 'a': return report_ratio(c[RIGHT], c[ASKED]);
    case 'p': return precision;
    case 'r': return recall;
    default: return report_ratio(2 * precision * recall, precision + recall);
    }
}

static bool amber_covers(const struct report_group *g, size_t m, size_t i) {
    const char *type = g->splits[g->split[i]];
    return g->metrics[m].part > 0 && !is_description(type) && belongs(dimension_of(type), (int)g->metrics[m].part - 1);
}

static double amber_path(const struct report_group *g, size_t metric, char path[128]) {
    const struct report_metric *m = &g->metrics[metric];
    snprintf(path, 128, "%s%s.%s", m->part == 0 ? "" : "discriminative.", m->split, m->key);
    return 100.0;
}

const struct report_benchmark report_amber = {
    .name = "amber",
    .title = "AMBER",
    .yes_no = true,
    .prepare = amber_prepare,
    .n_counts = amber_n_counts,
    .count = amber_count,
    .value = amber_value,
    .covers = amber_covers,
    .path = amber_path,
};
