/* AMBER's counters and the arithmetic of its inference.py. */
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "core/text.h"
#include "eval/amber/data.h"
#include "eval/common/python_float.h"

candid_status amber_words_add(struct amber_words *list, const char *word, size_t size, candid_error *error) {
    if (list->n == list->capacity) {
        const size_t capacity = list->capacity ? 2 * list->capacity : 32;
        char **grown = realloc(list->words, capacity * sizeof *grown);
        if (!grown) {
            return fail_memory(error, "a list of words", capacity * sizeof *grown);
        }
        list->words = grown;
        list->capacity = capacity;
    }
    list->words[list->n] = strndup(word, size);
    return list->words[list->n] ? (list->n++, CANDID_OK) : fail_memory(error, "a word", size + 1);
}

void amber_words_free(struct amber_words *list) {
    for (size_t i = 0; i < list->n; i++) {
        free(list->words[i]);
    }
    free(list->words);
    *list = (struct amber_words){0};
}

/* A share whose denominator begins at 0.001 and grows one by one, as in the official program: sums of floating-point
 * numbers depend on their order. */
struct share {
    double score, number;
};

#define EMPTY_SHARE                                                                                                    \
    { 0, 0.001 }

static double percent(struct share s) {
    return python_round1(s.score / s.number * 100);
}

static struct share add_shares(struct share a, struct share b) {
    return (struct share){a.score + b.score, a.number + b.number};
}

/* ---- discriminative ---- */

enum { STATE, NUMBER, ACTION, EXISTENCE, RELATION, TOTAL, N_DIMENSIONS };

struct dimension {
    struct share correct, no, answered_no; /* of all questions; of those that no is right for; of those answered No */
    int n;
};

static int dimension_of(const char *type) {
    static const char *const types[] = {"discriminative-attribute-state", "discriminative-attribute-number",
                                        "discriminative-attribute-action", "discriminative-hallucination"};
    int d = 0;
    while (d < RELATION && strcmp(types[d], type) != 0) {
        d++;
    }
    return d;
}

static void count_answer(struct dimension *d, bool gold_yes, const char *verdict) {
    const bool said_no = strcmp(verdict, "no") == 0;
    const bool correct = gold_yes ? strcmp(verdict, "yes") == 0 : said_no;
    d->n++;
    d->correct.number += 1;
    d->correct.score += correct;
    if (!gold_yes) {
        d->no.number += 1;
        d->no.score += said_no;
    }
    if (said_no) {
        d->answered_no.number += 1;
        d->answered_no.score += !gold_yes;
    }
}

static bool add_dimension(cJSON *to, const char *name, const struct dimension *d, double offset) {
    if (d->n == 0) {
        return true;
    }
    const double precision = percent(d->answered_no), recall = percent(d->no);
    const double p = precision / 100, r = recall / 100;
    cJSON *object = cJSON_AddObjectToObject(to, name);
    return object && cJSON_AddNumberToObject(object, "accuracy", percent(d->correct)) &&
           cJSON_AddNumberToObject(object, "precision", precision) &&
           cJSON_AddNumberToObject(object, "recall", recall) &&
           cJSON_AddNumberToObject(object, "f1", python_round1(2 * p * r / (p + r + offset) * 100)) &&
           cJSON_AddNumberToObject(object, "questions", d->n);
}

static struct dimension attribute(const struct dimension d[N_DIMENSIONS]) {
    struct dimension sum = d[STATE];
    for (int k = NUMBER; k <= ACTION; k++) {
        sum.correct = add_shares(sum.correct, d[k].correct);
        sum.no = add_shares(sum.no, d[k].no);
        sum.answered_no = add_shares(sum.answered_no, d[k].answered_no);
        sum.n += d[k].n;
    }
    return sum;
}

/* ---- generative ---- */

struct generative {
    struct share invented, covered, listed, clean; /* clean: images without an invented noun */
    int n;
};

/* Words that stand for the objects of an image, with the object each stands for: first those associated with any of
 * them, then the objects. */
struct names {
    int *words, *objects; /* [n] */
    size_t n;
    bool *marked; /* [objects] named in the description */
};

static void names_free(struct names *names) {
    free(names->words);
    free(names->objects);
    free(names->marked);
}

/* Release with names_free, whatever the status. */
static candid_status make_names(const struct amber_data *data, const int *objects, size_t n_objects, struct names *out,
                                candid_error *error) {
    size_t n = n_objects;
    for (size_t o = 0; o < n_objects; o++) {
        n += data->words[objects[o]].n_associated;
    }
    *out =
        (struct names){calloc(n + 1, sizeof(int)), calloc(n + 1, sizeof(int)), 0, calloc(n_objects + 1, sizeof(bool))};
    if (!out->words || !out->objects || !out->marked) {
        return fail_memory(error, "AMBER's objects", n * sizeof(int));
    }
    for (size_t o = 0; o < n_objects; o++) {
        const struct amber_word *word = &data->words[objects[o]];
        for (size_t a = 0; a < word->n_associated; a++) {
            out->words[out->n] = word->associated[a];
            out->objects[out->n++] = (int)o;
        }
    }
    for (size_t o = 0; o < n_objects; o++) {
        out->words[out->n] = objects[o];
        out->objects[out->n++] = (int)o;
    }
    return CANDID_OK;
}

/* Marks the object of the first name that equals the noun, or is alike; false: none. */
static bool mark_first(const struct amber_data *data, struct names *names, int noun, bool alike) {
    for (size_t i = 0; i < names->n; i++) {
        const bool hit = alike && data->alike ? data->alike[(size_t)noun * data->n_words + (size_t)names->words[i]]
                                              : names->words[i] == noun;
        if (hit) {
            names->marked[names->objects[i]] = true;
            return true;
        }
    }
    return false;
}

/* Whether a noun of the vocabulary is invented; marks what it names. */
static bool check_noun(const struct amber_data *data, struct names *safe, struct names *hallu, int noun) {
    if (data->words[noun].safe || mark_first(data, safe, noun, false)) {
        return false;
    }
    mark_first(data, hallu, noun, false);
    mark_first(data, hallu, noun, true);
    return !mark_first(data, safe, noun, true);
}

static bool add_word_to(cJSON *array, const char *text) {
    return cJSON_AddItemToArray(array, cJSON_CreateString(text));
}

/* Adds the marked objects' names under `key`; the number of them, -1 without memory. */
static int add_marked(cJSON *to, const char *key, const struct amber_data *data, const int *objects, size_t n,
                      const bool *marked) {
    cJSON *array = cJSON_AddArrayToObject(to, key);
    int n_marked = 0;
    for (size_t o = 0; array && o < n; o++) {
        if (marked[o]) {
            n_marked++;
            array = add_word_to(array, data->words[objects[o]].text) ? array : NULL;
        }
    }
    return array ? n_marked : -1;
}

static candid_status check_nouns(const struct amber_data *data, const struct amber_annotation *a,
                                 const struct amber_words *nouns, struct names *safe, struct names *hallu,
                                 struct generative *g, cJSON *verdict, candid_error *error) {
    cJSON *kept = cJSON_AddArrayToObject(verdict, "nouns"), *invented = cJSON_AddArrayToObject(verdict, "hallucinated");
    int n_kept = 0, n_invented = 0;
    bool ok = kept && invented;
    for (size_t i = 0; ok && i < nouns->n; i++) {
        const int noun = amber_word_find(data, nouns->words[i]);
        if (noun < 0) {
            continue;
        }
        n_kept++;
        ok = add_word_to(kept, nouns->words[i]);
        if (check_noun(data, safe, hallu, noun)) {
            n_invented++;
            ok = ok && add_word_to(invented, nouns->words[i]);
        }
    }
    const int n_covered = ok ? add_marked(verdict, "covered", data, a->truth, a->n_truth, safe->marked) : -1;
    const int n_listed = ok ? add_marked(verdict, "listed", data, a->hallu, a->n_hallu, hallu->marked) : -1;
    if (n_covered < 0 || n_listed < 0 || !cJSON_AddNumberToObject(verdict, "truth", (double)a->n_truth) ||
        !cJSON_AddNumberToObject(verdict, "hallu", (double)a->n_hallu)) {
        return fail_memory(error, "AMBER's verdicts", sizeof(cJSON));
    }
    g->n++;
    g->invented.score += n_invented;
    g->invented.number += n_kept;
    g->covered.score += n_covered;
    g->covered.number += (double)a->n_truth;
    g->listed.score += n_listed;
    g->listed.number += (double)a->n_hallu;
    g->clean.score += n_invented == 0;
    g->clean.number += 1;
    return CANDID_OK;
}

static candid_status score_description(const struct amber_options *o, const struct amber_annotation *a,
                                       const char *answer, struct generative *g, cJSON *verdict, candid_error *error) {
    if (!o->nouns.find) {
        return fail(error, CANDID_ERROR_UNSUPPORTED, "AMBER's descriptions need a tagger for their nouns");
    }
    struct names safe = {0}, hallu = {0};
    struct amber_words nouns = {0};
    candid_status status = make_names(o->data, a->truth, a->n_truth, &safe, error);
    if (status == CANDID_OK) {
        status = make_names(o->data, a->hallu, a->n_hallu, &hallu, error);
    }
    if (status == CANDID_OK) {
        status = o->nouns.find(o->nouns.context, answer, &nouns, error);
    }
    if (status == CANDID_OK) {
        status = check_nouns(o->data, a, &nouns, &safe, &hallu, g, verdict, error);
    }
    amber_words_free(&nouns);
    names_free(&safe);
    names_free(&hallu);
    return status;
}

/* ---- all ---- */

struct tally {
    struct dimension dimensions[N_DIMENSIONS];
    struct generative generative;
};

static candid_status score_item(const struct amber_options *o, const struct eval_item *item, struct tally *t,
                                cJSON *verdict, candid_error *error) {
    struct printable p;
    const struct amber_annotation *a = amber_annotation_find(o->data, item->id);
    if (!a) {
        return fail(error, CANDID_ERROR_FORMAT, "id \"%s\": AMBER has no annotation for it",
                    printable_string(&p, item->id ? item->id : ""));
    }
    if (a->generative) {
        return score_description(o, a, item->answer, &t->generative, verdict, error);
    }
    const char *said = strcmp(item->answer, "Yes") == 0 ? "yes" : strcmp(item->answer, "No") == 0 ? "no" : "other";
    count_answer(&t->dimensions[TOTAL], a->yes, said);
    count_answer(&t->dimensions[dimension_of(a->type)], a->yes, said);
    return cJSON_AddStringToObject(verdict, "verdict", said) &&
                   cJSON_AddBoolToObject(verdict, "correct", strcmp(said, a->yes ? "yes" : "no") == 0)
               ? CANDID_OK
               : fail_memory(error, "AMBER's verdicts", sizeof(cJSON));
}

static bool add_generative(cJSON *summary, const struct amber_options *o, const struct generative *g) {
    cJSON *object = cJSON_AddObjectToObject(summary, "generative");
    const double clean = g->clean.score / g->clean.number * 100;
    return object && cJSON_AddNumberToObject(object, "chair", percent(g->invented)) &&
           cJSON_AddNumberToObject(object, "cover", percent(g->covered)) &&
           cJSON_AddNumberToObject(object, "hal", python_round1(100 - clean)) &&
           cJSON_AddNumberToObject(object, "cog", percent(g->listed)) &&
           cJSON_AddNumberToObject(object, "images", g->n) &&
           cJSON_AddNumberToObject(object, "nouns", (int)g->invented.number) &&
           cJSON_AddNumberToObject(object, "hallucinated", g->invented.score) &&
           cJSON_AddStringToObject(summary, "tagger", o->nouns.name ? o->nouns.name : "unnamed") &&
           cJSON_AddStringToObject(summary, "similarity", o->data->similarity);
}

static bool add_summary(cJSON *summary, const struct amber_options *o, const struct tally *t) {
    const struct dimension *d = t->dimensions, all = attribute(d);
    bool ok = t->generative.n == 0 || add_generative(summary, o, &t->generative);
    cJSON *object = ok && d[TOTAL].n > 0 ? cJSON_AddObjectToObject(summary, "discriminative") : NULL;
    if (d[TOTAL].n > 0) {
        ok = object && add_dimension(object, "total", &d[TOTAL], 0.0001) &&
             add_dimension(object, "existence", &d[EXISTENCE], 0.001) &&
             add_dimension(object, "attribute", &all, 0.0001) && add_dimension(object, "state", &d[STATE], 0.0001) &&
             add_dimension(object, "number", &d[NUMBER], 0.0001) &&
             add_dimension(object, "action", &d[ACTION], 0.0001) &&
             add_dimension(object, "relation", &d[RELATION], 0.0001);
    }
    if (ok && d[TOTAL].n > 0 && t->generative.n > 0) {
        const double f1 = cJSON_GetObjectItem(cJSON_GetObjectItem(object, "total"), "f1")->valuedouble;
        ok = cJSON_AddNumberToObject(summary, "amber_score", (100 - percent(t->generative.invented) + f1) / 2);
    }
    return ok;
}

candid_status amber_score(const struct eval_items *items, const struct amber_options *options, struct eval_scores *out,
                          candid_error *error) {
    struct tally t = {.generative = {EMPTY_SHARE, EMPTY_SHARE, EMPTY_SHARE, EMPTY_SHARE, 0}};
    for (int d = 0; d < N_DIMENSIONS; d++) {
        t.dimensions[d] = (struct dimension){EMPTY_SHARE, EMPTY_SHARE, EMPTY_SHARE, 0};
    }
    *out = (struct eval_scores){.summary = cJSON_CreateObject(), .verdicts = calloc(items->n + 1, sizeof(cJSON *))};
    out->n = items->n;
    candid_status status =
        out->summary && out->verdicts ? CANDID_OK : fail_memory(error, "AMBER's scores", items->n * sizeof(cJSON *));
    for (size_t i = 0; i < items->n && status == CANDID_OK; i++) {
        if (!items->items[i].answer) {
            continue;
        }
        out->verdicts[i] = cJSON_CreateObject();
        status = out->verdicts[i] ? score_item(options, &items->items[i], &t, out->verdicts[i], error)
                                  : fail_memory(error, "AMBER's verdicts", sizeof(cJSON));
    }
    if (status == CANDID_OK && !add_summary(out->summary, options, &t)) {
        status = fail_memory(error, "AMBER's scores", sizeof(cJSON));
    }
    if (status != CANDID_OK) {
        scores_free(out);
    }
    return status;
}
