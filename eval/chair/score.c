#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "core/text.h"
#include "eval/chair/chair.h"

/* ---- which image ---- */

static bool is_number(const char *text, int64_t *out) {
    if (!text || !*text || strspn(text, "0123456789") != strlen(text) || strlen(text) > 15) {
        return false;
    }
    *out = strtoll(text, NULL, 10);
    return true;
}

static candid_status find_image(const struct eval_item *item, size_t number, const struct chair_options *options,
                                size_t *out, candid_error *error) {
    const struct chair_truth *truth = options->truth;
    struct printable p, q;
    int64_t id = 0;
    const bool has_id = is_number(item->id, &id);
    const size_t by_id = has_id ? chair_truth_image(truth, id) : TRUTH_NO_IMAGE;
    const size_t by_name = item->image ? chair_truth_image_named(truth, item->image) : TRUTH_NO_IMAGE;
    if (by_id != TRUTH_NO_IMAGE && by_name != TRUTH_NO_IMAGE && by_id != by_name) {
        return fail(error, CANDID_ERROR_FORMAT,
                    "caption %zu: the id is that of image %lld, but \"%s\" is image %lld of the annotations", number,
                    (long long)id, printable_string(&p, item->image), (long long)truth->ids[by_name]);
    }
    *out = by_id != TRUTH_NO_IMAGE ? by_id : by_name;
    if (*out == TRUTH_NO_IMAGE && !options->unknown_images_empty) {
        return fail(error, CANDID_ERROR_FORMAT,
                    "caption %zu: no annotation file lists its image (id \"%s\", file \"%s\")", number,
                    printable_string(&p, item->id ? item->id : ""),
                    printable_string(&q, item->image ? item->image : ""));
    }
    return CANDID_OK;
}

/* ---- counts of a caption and of all ---- */

struct counts {
    size_t captions, with_hallucination;
    size_t mentions, hallucinated;
    size_t classes, classes_right; /* different ones mentioned, those of them that are in the image */
    size_t truth;                  /* classes in the image */
    size_t words;
};

static void add_counts(struct counts *to, const struct counts *c) {
    to->captions += c->captions;
    to->with_hallucination += c->with_hallucination;
    to->mentions += c->mentions;
    to->hallucinated += c->hallucinated;
    to->classes += c->classes;
    to->classes_right += c->classes_right;
    to->truth += c->truth;
    to->words += c->words;
}

static struct counts count(const struct chair_truth *truth, size_t image, const struct chair_objects *objects) {
    struct counts c = {.captions = 1, .mentions = objects->n, .words = objects->length};
    for (size_t i = 0; i < objects->n; i++) {
        const int object = objects->mentions[i].object;
        const bool right = chair_truth_has(truth, image, object);
        bool first = true;
        for (size_t j = 0; j < i && first; j++) {
            first = objects->mentions[j].object != object;
        }
        c.hallucinated += !right;
        c.classes += first;
        c.classes_right += first && right;
    }
    for (size_t object = 0; object < truth->n_classes; object++) {
        c.truth += chair_truth_has(truth, image, (int)object);
    }
    c.with_hallucination = c.hallucinated > 0;
    return c;
}

/* A fraction; 0/0 is `zero`, or undefined. */
struct metric {
    double value;
    bool defined;
};

static struct metric ratio(double numerator, double denominator, bool zero) {
    return denominator == 0 ? (struct metric){0, zero} : (struct metric){numerator / denominator, true};
}

static bool add_metric(cJSON *to, const char *name, struct metric m) {
    return m.defined ? cJSON_AddNumberToObject(to, name, m.value) != NULL : cJSON_AddNullToObject(to, name) != NULL;
}

static bool add_metrics(cJSON *to, const struct counts *c, bool zero) {
    const struct metric recall = ratio((double)c->classes_right, (double)c->truth, zero);
    const struct metric precision = ratio((double)c->classes_right, (double)c->classes, zero);
    struct metric f1 = ratio(2 * (recall.value * precision.value), precision.value + recall.value, zero);
    f1.defined = f1.defined && recall.defined && precision.defined;
    return add_metric(to, "chair_i", ratio((double)c->hallucinated, (double)c->mentions, zero)) &&
           add_metric(to, "recall", recall) && add_metric(to, "precision", precision) && add_metric(to, "f1", f1);
}

/* ---- JSON ---- */

static bool add_mention(cJSON *list, const struct chair_options *options, size_t image,
                        const struct chair_mention *mention) {
    const struct chair_language *l = options->language;
    char word[512];
    snprintf(word, sizeof word, mention->n_tokens == 2 ? "%s %s" : "%s", word_at(&l->words, mention->first_token),
             mention->n_tokens == 2 ? word_at(&l->words, mention->first_token + 1) : "");
    cJSON *object = cJSON_CreateObject();
    if (!object || !cJSON_AddItemToArray(list, object)) {
        cJSON_Delete(object);
        return false;
    }
    const bool hallucinated = !chair_truth_has(options->truth, image, mention->object);
    return cJSON_AddStringToObject(object, "word", word) &&
           cJSON_AddStringToObject(object, "class", l->vocabulary->class_names[mention->object]) &&
           cJSON_AddBoolToObject(object, "hallucinated", hallucinated) &&
           cJSON_AddNumberToObject(object, "index", mention->index);
}

static bool fill_verdict(cJSON *verdict, const struct chair_options *options, size_t image,
                         const struct chair_objects *objects, const struct counts *c) {
    cJSON *list = cJSON_AddArrayToObject(verdict, "objects");
    bool ok = list != NULL;
    for (size_t i = 0; ok && i < objects->n; i++) {
        ok = add_mention(list, options, image, &objects->mentions[i]);
    }
    cJSON *truth = cJSON_AddArrayToObject(verdict, "truth");
    ok = ok && truth;
    for (size_t object = 0; ok && object < options->truth->n_classes; object++) {
        if (chair_truth_has(options->truth, image, (int)object)) {
            cJSON *name = cJSON_CreateString(options->language->vocabulary->class_names[object]);
            ok = name && cJSON_AddItemToArray(truth, name);
        }
    }
    return ok && cJSON_AddNumberToObject(verdict, "length", (double)c->words) &&
           cJSON_AddNumberToObject(verdict, "chair_s", (double)c->with_hallucination) && add_metrics(verdict, c, true);
}

static const char *truth_label(const struct chair_truth *truth) {
    for (size_t i = 0; i < truth->n_sources; i++) {
        if (truth->sources[i].captions) {
            return chair_mode_name(truth->mode);
        }
    }
    return "instances only";
}

static const char *tagger_label(const struct chair_options *options) {
    switch (options->language->mode) {
    case CHAIR_PATTERN: return "none needed";
    case CHAIR_APPROXIMATE: return "none: every word a noun (approximate)";
    default: return options->tagger ? options->tagger : "imported";
    }
}

static bool add_sources(cJSON *summary, const struct chair_truth *truth) {
    cJSON *list = cJSON_AddArrayToObject(summary, "truth_sources");
    for (size_t i = 0; i < truth->n_sources; i++) {
        const struct truth_source *s = &truth->sources[i];
        cJSON *source = cJSON_CreateObject();
        if (!list || !source || !cJSON_AddItemToArray(list, source)) {
            cJSON_Delete(source);
            return false;
        }
        if (!cJSON_AddStringToObject(source, "path", s->path) ||
            !cJSON_AddStringToObject(source, "kind", s->captions ? "captions" : "instances") ||
            !cJSON_AddNumberToObject(source, "bytes", (double)s->size) ||
            !cJSON_AddNumberToObject(source, "annotations", (double)s->n) ||
            !cJSON_AddStringToObject(source, "sha256", s->sha256)) {
            return false;
        }
    }
    return list != NULL;
}

static bool fill_summary(cJSON *summary, const struct chair_options *options, const struct counts *c,
                         size_t n_unknown) {
    const struct vocabulary *v = options->language->vocabulary;
    return cJSON_AddStringToObject(summary, "mode", chair_mode_name(options->language->mode)) &&
           cJSON_AddStringToObject(summary, "tagger", tagger_label(options)) &&
           cJSON_AddStringToObject(summary, "truth", truth_label(options->truth)) &&
           cJSON_AddStringToObject(summary, "vocabulary", v->own ? "own" : "COCO") &&
           add_sources(summary, options->truth) && cJSON_AddNumberToObject(summary, "captions", (double)c->captions) &&
           cJSON_AddNumberToObject(summary, "unknown_images", (double)n_unknown) &&
           cJSON_AddNumberToObject(summary, "mentions", (double)c->mentions) &&
           cJSON_AddNumberToObject(summary, "hallucinated", (double)c->hallucinated) &&
           add_metric(summary, "chair_s", ratio((double)c->with_hallucination, (double)c->captions, false)) &&
           add_metrics(summary, c, false) &&
           add_metric(summary, "length", ratio((double)c->words, (double)c->captions, false));
}

/* ---- all ---- */

static candid_status score_item(const struct eval_item *item, size_t index, const struct chair_options *options,
                                struct chair_objects *objects, struct counts *total, size_t *n_unknown, cJSON **verdict,
                                candid_error *error) {
    size_t image;
    TRY(find_image(item, index + 1, options, &image, error));
    TRY(chair_find_objects(options->language, item->answer, objects, error));
    const struct counts c = count(options->truth, image, objects);
    add_counts(total, &c);
    *n_unknown += image == TRUTH_NO_IMAGE;
    *verdict = cJSON_CreateObject();
    return *verdict && fill_verdict(*verdict, options, image, objects, &c)
               ? CANDID_OK
               : fail_memory(error, "the verdict on a caption", 256);
}

candid_status chair_score(const struct eval_items *items, const struct chair_options *options, struct eval_scores *out,
                          candid_error *error) {
    *out = (struct eval_scores){.n = items->n};
    if (options->truth->n_classes != options->language->vocabulary->n_classes) {
        return fail(error, CANDID_ERROR_ARGUMENT, "the truth was made with another table of synonyms");
    }
    out->verdicts = calloc(items->n > 0 ? items->n : 1, sizeof(cJSON *));
    out->summary = cJSON_CreateObject();
    struct chair_objects objects = {0};
    struct counts total = {0};
    size_t n_unknown = 0;
    candid_status status =
        out->verdicts && out->summary ? CANDID_OK : fail_memory(error, "the scores", items->n * sizeof(cJSON *));
    for (size_t i = 0; i < items->n && status == CANDID_OK; i++) {
        if (items->items[i].answer) {
            status = score_item(&items->items[i], i, options, &objects, &total, &n_unknown, &out->verdicts[i], error);
        }
    }
    if (status == CANDID_OK && !fill_summary(out->summary, options, &total, n_unknown)) {
        status = fail_memory(error, "the scores", 1024);
    }
    chair_objects_free(&objects);
    if (status != CANDID_OK) {
        scores_free(out);
    }
    return status;
}
