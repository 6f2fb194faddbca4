/* What a rule makes of all answers: counts per split, and the metrics of the program it is named after. */
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "core/text.h"
#include "eval/pope/pope.h"

struct counts {
    int tp, fp, tn, fn;       /* yes is positive */
    int unknown, unknown_yes; /* answers without verdict, those of them to questions that yes is right for */
};

/* A split of the items and its counts under one rule. */
struct split {
    const char *name;
    struct counts counts;
};

enum { ACCURACY, PRECISION, RECALL, F1, YES_RATIO, N_METRICS };
static const char *const metric_names[N_METRICS] = {"accuracy", "precision", "recall", "f1", "yes_ratio"};

/* A fraction that may be undefined. */
struct metric {
    double value;
    bool defined;
};

static struct metric ratio(double numerator, double denominator, bool zero_for_undefined) {
    if (denominator == 0) {
        return (struct metric){0, zero_for_undefined};
    }
    return (struct metric){numerator / denominator, true};
}

static int n_answers(const struct counts *c) {
    return c->tp + c->fp + c->tn + c->fn + c->unknown;
}

/* In the order of operations of each program, which decides the last digit. */
static void compute_metrics(const struct pope_rule *rule, const struct counts *c, struct metric out[N_METRICS]) {
    const bool plain = rule->counts == POPE_COUNTS_PLAIN, lmms = rule->counts == POPE_COUNTS_LMMS_EVAL;
    const int fn = c->fn + (rule->counts == POPE_COUNTS_VLMEVALKIT ? c->unknown_yes : 0); /* unknown is no yes there */
    out[ACCURACY] = ratio(c->tp + c->tn, n_answers(c), false);
    out[PRECISION] = ratio(c->tp, c->tp + c->fp, !plain);
    out[RECALL] = ratio(c->tp, c->tp + fn, !plain);
    const double p = out[PRECISION].value, r = out[RECALL].value;
    out[F1] = ratio(plain ? 2 * p * r : 2 * (p * r), p + r, !plain);
    out[F1].defined = out[F1].defined && out[PRECISION].defined && out[RECALL].defined;
    const int labels_yes = c->tp + c->fn + c->unknown_yes;
    out[YES_RATIO] = ratio(lmms ? labels_yes : c->tp + c->fp, n_answers(c), lmms);
}

static bool add_metrics(cJSON *to, const struct metric metrics[N_METRICS]) {
    bool ok = true;
    for (int m = 0; m < N_METRICS; m++) {
        ok = ok && (metrics[m].defined ? cJSON_AddNumberToObject(to, metric_names[m], metrics[m].value)
                                       : cJSON_AddNullToObject(to, metric_names[m]));
    }
    return ok;
}

static bool add_split(cJSON *splits, const struct pope_rule *rule, const struct split *split,
                      struct metric sums[N_METRICS]) {
    const struct counts *c = &split->counts;
    struct metric metrics[N_METRICS];
    compute_metrics(rule, c, metrics);
    for (int m = 0; m < N_METRICS; m++) {
        sums[m].value += metrics[m].value;
        sums[m].defined = sums[m].defined && metrics[m].defined;
    }
    cJSON *object = cJSON_AddObjectToObject(splits, split->name);
    return object && cJSON_AddNumberToObject(object, "tp", c->tp) && cJSON_AddNumberToObject(object, "fp", c->fp) &&
           cJSON_AddNumberToObject(object, "tn", c->tn) && cJSON_AddNumberToObject(object, "fn", c->fn) &&
           cJSON_AddNumberToObject(object, "unknown", c->unknown) &&
           cJSON_AddNumberToObject(object, "answers", n_answers(c)) && add_metrics(object, metrics) &&
           (rule->counts != POPE_COUNTS_VLMEVALKIT ||
            cJSON_AddNumberToObject(object, "overall", metrics[F1].value * 100));
}

/* "splits" and "mean" of one rule. */
static bool add_rule(cJSON *to, const struct pope_rule *rule, const struct split *splits, size_t n_splits) {
    struct metric sums[N_METRICS];
    for (int m = 0; m < N_METRICS; m++) {
        sums[m] = (struct metric){0, true};
    }
    cJSON *object = cJSON_AddObjectToObject(to, "splits");
    for (size_t s = 0; s < n_splits; s++) {
        if (!object || !add_split(object, rule, &splits[s], sums)) {
            return false;
        }
    }
    for (int m = 0; m < N_METRICS; m++) {
        sums[m] = ratio(sums[m].value, sums[m].defined ? (double)n_splits : 0, false);
    }
    cJSON *mean = cJSON_AddObjectToObject(to, "mean");
    return object && mean && add_metrics(mean, sums);
}

static const char *split_name(const struct eval_item *item) {
    return item->split ? item->split : "all";
}

/* The splits of the items that have answers, in the order in which they appear. */
static candid_status find_splits(const struct eval_items *items, struct split **out, size_t *n_out,
                                 candid_error *error) {
    struct split *splits = NULL;
    size_t n = 0;
    for (size_t i = 0; i < items->n; i++) {
        size_t s = n;
        while (s-- > 0 && strcmp(splits[s].name, split_name(&items->items[i])) != 0) {
        }
        if (s < n || !items->items[i].answer) {
            continue;
        }
        struct split *grown = realloc(splits, (n + 1) * sizeof *grown);
        if (!grown) {
            free(splits);
            return fail_memory(error, "POPE's splits", (n + 1) * sizeof *grown);
        }
        splits = grown;
        splits[n++] = (struct split){.name = split_name(&items->items[i])};
    }
    *out = splits;
    *n_out = n;
    return CANDID_OK;
}

static void count(struct counts *c, enum pope_verdict verdict, bool gold_yes) {
    switch (verdict) {
    case POPE_YES: gold_yes ? c->tp++ : c->fp++; break;
    case POPE_NO: gold_yes ? c->fn++ : c->tn++; break;
    case POPE_UNKNOWN:
        c->unknown++;
        c->unknown_yes += gold_yes;
        break;
    }
}

static void count_all(const struct pope_rule *rule, const struct eval_items *items, struct split *splits, size_t n) {
    for (size_t s = 0; s < n; s++) {
        splits[s].counts = (struct counts){0};
    }
    size_t s = 0;
    for (size_t i = 0; i < items->n; i++) {
        const struct eval_item *item = &items->items[i];
        if (!item->answer) {
            continue;
        }
        while (strcmp(splits[s].name, split_name(item)) != 0) { /* mostly the split of the item before */
            s = (s + 1) % n;
        }
        const bool gold_yes = strcmp(item->label, "yes") == 0;
        count(&splits[s].counts, rule->read(item->answer, gold_yes), gold_yes);
    }
}

static bool add_verdict(cJSON **out, const struct pope_rule *rule, bool all_rules, const struct eval_item *item) {
    const bool gold_yes = strcmp(item->label, "yes") == 0;
    const enum pope_verdict verdict = rule->read(item->answer, gold_yes);
    *out = cJSON_CreateObject();
    bool ok = *out && cJSON_AddStringToObject(*out, "verdict", pope_verdict_name(verdict)) &&
              cJSON_AddBoolToObject(*out, "correct", verdict == (gold_yes ? POPE_YES : POPE_NO));
    cJSON *rules = ok && all_rules ? cJSON_AddObjectToObject(*out, "rules") : NULL;
    for (size_t r = 0; ok && all_rules && r < n_pope_rules; r++) {
        ok = pope_rules[r].same_as ||
             (rules && cJSON_AddStringToObject(rules, pope_rules[r].name,
                                               pope_verdict_name(pope_rules[r].read(item->answer, gold_yes))));
    }
    return ok;
}

static bool make_scores(const struct eval_items *items, const struct pope_rule *rule, bool all_rules,
                        struct split *splits, size_t n_splits, struct eval_scores *out) {
    out->n = items->n;
    out->summary = cJSON_CreateObject();
    out->verdicts = calloc(items->n + 1, sizeof(cJSON *));
    count_all(rule, items, splits, n_splits);
    bool ok = out->summary && out->verdicts && cJSON_AddStringToObject(out->summary, "rule", rule->name) &&
              add_rule(out->summary, rule, splits, n_splits);
    cJSON *rules = ok && all_rules ? cJSON_AddObjectToObject(out->summary, "rules") : NULL;
    for (size_t r = 0; ok && all_rules && r < n_pope_rules; r++) {
        if (!pope_rules[r].same_as) {
            cJSON *object = rules ? cJSON_AddObjectToObject(rules, pope_rules[r].name) : NULL;
            count_all(&pope_rules[r], items, splits, n_splits);
            ok = object && add_rule(object, &pope_rules[r], splits, n_splits);
        }
    }
    for (size_t i = 0; ok && i < items->n; i++) {
        ok = !items->items[i].answer || add_verdict(&out->verdicts[i], rule, all_rules, &items->items[i]);
    }
    return ok;
}

candid_status pope_score(const struct eval_items *items, const struct pope_options *options, struct eval_scores *out,
                         candid_error *error) {
    *out = (struct eval_scores){0};
    const char *name = options && options->rule ? options->rule : "official";
    const struct pope_rule *rule = pope_rule_find(name);
    if (!rule) {
        struct printable p;
        return fail(error, CANDID_ERROR_ARGUMENT, "no answer rule \"%s\" for POPE; candid pope rules lists them",
                    printable_string(&p, name));
    }
    for (size_t i = 0; i < items->n; i++) {
        const char *label = items->items[i].label;
        if (!label || (strcmp(label, "yes") != 0 && strcmp(label, "no") != 0)) {
            struct printable p;
            return fail(error, CANDID_ERROR_FORMAT,
                        "question %zu of %zu: POPE needs the label \"yes\" or \"no\", found %s", i + 1, items->n,
                        label ? printable_string(&p, label) : "none");
        }
    }
    struct split *splits = NULL;
    size_t n_splits = 0;
    TRY(find_splits(items, &splits, &n_splits, error));
    const bool ok = make_scores(items, rule, options && options->all_rules, splits, n_splits, out);
    free(splits);
    if (!ok) {
        scores_free(out);
        return fail_memory(error, "POPE's scores", items->n * sizeof(cJSON *));
    }
    return CANDID_OK;
}
