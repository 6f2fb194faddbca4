/* CHAIR: counts of a caption's verdict, and the curve of cut captions. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "eval/report/curve.h"
#include "eval/report/rules.h"

enum { CAPTIONS, WITH, MENTIONS, WRONG, HIT, TRUTH, SAID, LENGTH, CHAIR_COUNTS };

static candid_status chair_prepare(struct report_group *g, candid_error *error) {
    static const struct report_metric metrics[] = {
        {.split = "", .key = "chair_s", .name = "CHAIR_s", .better = -1, .main = true},
        {.split = "", .key = "chair_i", .name = "CHAIR_i", .better = -1, .main = true},
        {.split = "", .key = "recall", .name = "Recall", .better = 1, .main = true},
        {.split = "", .key = "precision", .name = "Precision", .better = 1, .main = true},
        {.split = "", .key = "f1", .name = "F1", .better = 1, .main = true},
        {.split = "", .key = "length", .name = "Length", .unit = UNIT_NUMBER, .main = true},
    };
    for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++) {
        TRY(report_add_metric(g, &metrics[i], error));
    }
    return CANDID_OK;
}

static size_t chair_n_counts(const struct report_group *g) {
    return CHAIR_COUNTS;
}

/* The class was mentioned before `object`. */
static bool mentioned_before(const cJSON *objects, const cJSON *object) {
    const char *class = json_find(object, "class")->valuestring;
    for (const cJSON *o = objects->child; o != object; o = o->next) {
        if (strcmp(json_find(o, "class")->valuestring, class) == 0) {
            return true;
        }
    }
    return false;
}

/* Adds a caption, cut after words[k], to counts[k]; false when the verdict is none of CHAIR. */
static bool add_caption(const cJSON *verdict, const double *words, size_t n, double (*counts)[CHAIR_COUNTS]) {
    const cJSON *objects = json_find(verdict, "objects"), *truth = json_find(verdict, "truth"),
                *length = json_find(verdict, "length");
    if (!cJSON_IsArray(objects) || !cJSON_IsArray(truth) || !cJSON_IsNumber(length)) {
        return false;
    }
    double first_wrong = INFINITY;
    for (const cJSON *o = objects->child; o; o = o->next) {
        const cJSON *hallucinated = json_find(o, "hallucinated"), *index = json_find(o, "index");
        if (!cJSON_IsString(json_find(o, "class")) || !cJSON_IsBool(hallucinated) || !cJSON_IsNumber(index)) {
            return false;
        }
        const bool wrong = cJSON_IsTrue(hallucinated), first = !mentioned_before(objects, o);
        first_wrong = wrong ? fmin(first_wrong, index->valuedouble) : first_wrong;
        for (size_t k = n; k-- > 0 && index->valuedouble < words[k];) {
            counts[k][MENTIONS] += 1;
            counts[k][WRONG] += wrong;
            counts[k][SAID] += first;
            counts[k][HIT] += first && !wrong;
        }
    }
    const int n_truth = cJSON_GetArraySize(truth);
    for (size_t k = 0; k < n; k++) {
        counts[k][CAPTIONS] += 1;
        counts[k][WITH] += first_wrong < words[k];
        counts[k][TRUTH] += n_truth;
        counts[k][LENGTH] += fmin(length->valuedouble, words[k]);
    }
    return true;
}

static bool chair_count(const struct report_group *g, size_t run, size_t i, double *counts) {
    return add_caption(report_verdict(g, run, i), &(const double){INFINITY}, 1, (double(*)[CHAIR_COUNTS])counts);
}

enum { CHAIR_S, CHAIR_I, RECALL, PRECISION, F1, MEAN_LENGTH }; /* in the order of chair_prepare */

static double chair_value(const struct report_group *g, size_t m, const double *sums) {
    const double recall = report_ratio(sums[HIT], sums[TRUTH]), precision = report_ratio(sums[HIT], sums[SAID]);
    switch (m) {
    case CHAIR_S: return report_ratio(sums[WITH], sums[CAPTIONS]);
    case CHAIR_I: return report_ratio(sums[WRONG], sums[MENTIONS]);
    case RECALL: return recall;
    case PRECISION: return precision;
    case F1: return report_ratio(2 * (recall * precision), recall + precision);
    default: return report_ratio(sums[LENGTH], sums[CAPTIONS]);
    }
}

static double chair_path(const struct report_group *g, size_t metric, char path[128]) {
    snprintf(path, 128, "%s", g->metrics[metric].key);
    return 1.0;
}

const struct report_benchmark report_chair = {
    .name = "chair",
    .title = "CHAIR",
    .prepare = chair_prepare,
    .n_counts = chair_n_counts,
    .count = chair_count,
    .value = chair_value,
    .path = chair_path,
};

/* ---- cut captions -------------------------------------------------------------------------------- */

candid_status curve_make(const struct report_group *g, size_t run, struct report_curve *out, candid_error *error) {
    *out = (struct report_curve){.at_recall = NAN, .at_length = NAN};
    double longest = 1.0;
    for (size_t i = 0; i < g->n_items; i++) {
        const cJSON *length = json_find(report_verdict(g, run, i), "length");
        longest = fmax(longest, length ? length->valuedouble : 0.0);
    }
    const size_t n = longest < CURVE_MOST_CUTS ? (size_t)longest : CURVE_MOST_CUTS;
    double words[CURVE_MOST_CUTS], sums[CURVE_MOST_CUTS][CHAIR_COUNTS] = {{0}};
    for (size_t k = 0; k < n; k++) {
        words[k] = k + 1 == n ? INFINITY : floor(longest * (double)(k + 1) / (double)n);
    }
    for (size_t i = 0; i < g->n_items; i++) {
        add_caption(report_verdict(g, run, i), words, n, sums);
    }
    out->cuts = malloc(n * sizeof *out->cuts);
    if (!out->cuts) {
        return fail_memory(error, "a curve", n * sizeof *out->cuts);
    }
    for (size_t k = 0; k < n; k++) {
        const struct report_cut cut = {
            .words = chair_value(g, MEAN_LENGTH, sums[k]),
            .recall = chair_value(g, RECALL, sums[k]),
            .chair_i = chair_value(g, CHAIR_I, sums[k]),
        };
        if (!isnan(cut.chair_i) && !isnan(cut.recall)) { /* else nothing was mentioned so early */
            out->cuts[out->n++] = cut;
        }
    }
    return CANDID_OK;
}

/* CHAIR_i where `coordinate` of the curve passes x, linear between two cuts. */
static double cross(const struct report_curve *c, double x, double (*coordinate)(const struct report_cut *)) {
    for (size_t k = 0; k < c->n; k++) {
        const double here = coordinate(&c->cuts[k]);
        if (here < x) {
            continue;
        }
        if (k == 0) {
            return here > x ? NAN : c->cuts[0].chair_i;
        }
        const double before = coordinate(&c->cuts[k - 1]), t = (x - before) / (here - before);
        return c->cuts[k - 1].chair_i + t * (c->cuts[k].chair_i - c->cuts[k - 1].chair_i);
    }
    return NAN;
}

static double recall_of(const struct report_cut *c) {
    return c->recall;
}

static double words_of(const struct report_cut *c) {
    return c->words;
}

double curve_at_recall(const struct report_curve *curve, double recall) {
    return cross(curve, recall, recall_of);
}

double curve_at_length(const struct report_curve *curve, double words) {
    return cross(curve, words, words_of);
}
