/* The benchmarks: where their questions come from and how answers are scored. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "cli/eval.h"
#include "cli/score.h"
#include "core/file.h"
#include "core/status.h"
#include "eval/common/json_objects.h"
#include "eval/common/mt19937.h"
#include "eval/common/sha256.h"
#include "eval/mme/mme.h"
#include "eval/pope/pope.h"

/* ---- yes or no ----------------------------------------------------------------------------------- */

static candid_status need_questions(const struct eval_options *o, candid_error *error) {
    return o->questions.n > 0 ? CANDID_OK
                              : fail(error, CANDID_ERROR_ARGUMENT, "%s: expected --questions FILE", o->benchmark);
}

static candid_status pope_read(struct evaluation *e, struct eval_items *items, candid_error *error) {
    const struct eval_options *o = e->o;
    TRY(need_questions(o, error));
    for (size_t i = 0; i < o->questions.n; i++) {
        TRY(pope_read_questions(o->questions.values[i], NULL, items, error));
    }
    for (size_t i = 0; i < o->labels.n; i++) {
        TRY(pope_read_labels(o->labels.values[i], NULL, items, error));
    }
    return CANDID_OK;
}

static candid_status pope_scores(struct evaluation *e, struct eval_scores *out, candid_error *error) {
    const char *rule = e->o->rule;
    const bool all = rule && strcmp(rule, "all") == 0;
    return pope_score(&e->items, &(struct pope_options){all ? NULL : rule, all}, out, error);
}

static candid_status pope_check(struct evaluation *e, candid_error *error) {
    const char *rule = e->o->rule;
    if (rule && strcmp(rule, "all") != 0 && !pope_rule_find(rule)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "--rule: no answer rule \"%s\"; candid pope rules lists them", rule);
    }
    for (size_t i = 0; i < e->items.n; i++) {
        if (!e->items.items[i].label) {
            return fail(error, CANDID_ERROR_ARGUMENT,
                        "question %s has no label: give the official question files as --labels", e->items.items[i].id);
        }
    }
    return CANDID_OK;
}

/* Sub-tasks "existence,count", the ones of the hallucination subset by that name, or NULL: all. */
static candid_status mme_subset(const char *list, const char *only[MME_SUBTASKS + 1], candid_error *error) {
    size_t n = 0;
    for (const char *at = list; *at;) {
        const size_t size = strcspn(at, ",");
        size_t k = 0;
        while (mme_subtasks[k] && (strlen(mme_subtasks[k]) != size || strncmp(mme_subtasks[k], at, size) != 0)) {
            k++;
        }
        if (!mme_subtasks[k] || n == MME_SUBTASKS) {
            return fail(error, CANDID_ERROR_ARGUMENT, "--list: MME has no sub-task \"%.*s\"", (int)size, at);
        }
        only[n++] = mme_subtasks[k];
        at += size + (at[size] == ',');
    }
    only[n] = NULL;
    return CANDID_OK;
}

static candid_status mme_read(struct evaluation *e, struct eval_items *items, candid_error *error) {
    const char *only[MME_SUBTASKS + 1] = {0};
    const char *list = e->o->list;
    if (list && strcmp(list, "hallucination") == 0) {
        memcpy(only, mme_subtasks, MME_HALLUCINATION * sizeof *only);
    } else if (list) {
        TRY(mme_subset(list, only, error));
    }
    return mme_read_folder(e->o->images, list ? only : NULL, items, error);
}

static candid_status mme_scores(struct evaluation *e, struct eval_scores *out, candid_error *error) {
    return mme_score(&e->items, &(struct mme_options){e->o->rule}, out, error);
}

static candid_status mme_check(struct evaluation *e, candid_error *error) {
    return e->o->rule && !mme_read_answer(e->o->rule, "")
               ? fail(error, CANDID_ERROR_ARGUMENT, "--rule: expected official or lmms-eval, found \"%s\"", e->o->rule)
               : CANDID_OK;
}

/* ---- amber --------------------------------------------------------------------------------------- */

static candid_status amber_read(struct evaluation *e, struct eval_items *items, candid_error *error) {
    TRY(need_questions(e->o, error));
    if (!e->o->amber_data) {
        return fail(error, CANDID_ERROR_ARGUMENT, "amber: expected --amber-data DIR, AMBER's repository or its data/");
    }
    if (!e->amber) {
        TRY(amber_data_read(e->o->amber_data, e->o->similarity, &e->amber, error));
    }
    for (size_t i = 0; i < e->o->questions.n; i++) {
        TRY(amber_read_questions(e->o->questions.values[i], e->amber, items, error));
    }
    return CANDID_OK;
}

/* Descriptions need a tagger; without one every word counts that AMBER knows, and the scores say so. */
static candid_status amber_check(struct evaluation *e, candid_error *error) {
    char *standard = tagger_default_path();
    const char *path = e->o->tagger ? e->o->tagger : standard && file_exists(standard) ? standard : NULL;
    const candid_status status = amber_nouns_open(e->amber, path, &e->nouns, error);
    free(standard);
    return status;
}

static candid_status amber_scores(struct evaluation *e, struct eval_scores *out, candid_error *error) {
    return amber_score(&e->items, &(struct amber_options){e->amber, e->nouns}, out, error);
}

/* ---- images to caption --------------------------------------------------------------------------- */

struct names {
    char **names;
    size_t n, capacity;
};

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_free(struct names *list) {
    for (size_t i = 0; i < list->n; i++) {
        free(list->names[i]);
    }
    free(list->names);
}

static candid_status names_add(struct names *list, const char *name, candid_error *error) {
    if (list->n == list->capacity) {
        const size_t capacity = list->capacity > 0 ? 2 * list->capacity : 256;
        char **grown = realloc(list->names, capacity * sizeof *grown);
        if (!grown) {
            return fail_memory(error, "the images", capacity * sizeof *grown);
        }
        list->names = grown;
        list->capacity = capacity;
    }
    list->names[list->n] = strdup(name);
    return list->names[list->n++] ? CANDID_OK : fail_memory(error, "the images", strlen(name));
}

/* The images of a folder, sorted by name. */
static candid_status names_of_folder(const char *folder, struct names *out, candid_error *error) {
    DIR *dir = opendir(folder);
    if (!dir) {
        return fail(error, CANDID_ERROR_IO, "%s: cannot read the folder", folder);
    }
    candid_status status = CANDID_OK;
    for (struct dirent *entry; status == CANDID_OK && (entry = readdir(dir));) {
        if (entry->d_name[0] != '.' && has_image_extension(entry->d_name)) {
            status = names_add(out, entry->d_name, error);
        }
    }
    closedir(dir);
    if (status == CANDID_OK && out->n == 0) {
        status = fail(error, CANDID_ERROR_IO, "%s: expected a folder with images, found none", folder);
    }
    if (status == CANDID_OK) {
        qsort(out->names, out->n, sizeof *out->names, by_text);
    }
    return status;
}

/* The number in a COCO file name, "COCO_val2014_000000000042.jpg"; -1: it has none. */
static int64_t image_number(const char *name) {
    const char *dot = strrchr(name, '.'), *begin = dot ? dot : name + strlen(name);
    while (begin > name && begin[-1] >= '0' && begin[-1] <= '9') {
        begin--;
    }
    return *begin >= '0' && *begin <= '9' ? strtoll(begin, NULL, 10) : -1;
}

static candid_status add_image(const char *name, struct eval_items *items, candid_error *error) {
    char id[24];
    const int64_t number = image_number(name);
    snprintf(id, sizeof id, "%lld", (long long)number);
    return items_add(items, &(struct eval_item){.id = number >= 0 ? id : name, .image = name}, error);
}

/* The images of a published list, in its order. */
static candid_status add_numbers(const char *list, const int64_t *ids, size_t n, const struct names *all,
                                 struct eval_items *items, candid_error *error) {
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        while (k < all->n && image_number(all->names[k]) != ids[i]) {
            k++;
        }
        if (k == all->n) {
            return fail(error, CANDID_ERROR_FORMAT, "list %s: image %lld is not in the folder", list,
                        (long long)ids[i]);
        }
        TRY(add_image(all->names[k], items, error));
    }
    return CANDID_OK;
}

/* Names, one per line. */
static candid_status add_listed(const char *path, struct eval_items *items, candid_error *error) {
    struct mapped_file file;
    TRY(file_map(path, "a list of images", &file, error));
    struct eval_source source = {.path = path};
    sha256_hex(file.data, file.size, source.sha256);
    candid_status status = CANDID_OK;
    for (size_t at = 0; status == CANDID_OK && at < file.size;) {
        const char *line = (const char *)file.data + at, *end = memchr(line, '\n', file.size - at);
        const size_t size = end ? (size_t)(end - line) : file.size - at;
        at += size + 1;
        char *name = strndup(line, size > 0 && line[size - 1] == '\r' ? size - 1 : size);
        if (!name) {
            status = fail_memory(error, "a list of images", size);
        } else if (name[0]) {
            status = add_image(name, items, error);
            source.n_lines++;
        }
        free(name);
    }
    file_unmap(&file);
    return status == CANDID_OK ? items_add_source(items, &source, error) : status;
}

static candid_status add_sample(const struct eval_options *o, const struct names *all, struct eval_items *items,
                                candid_error *error) {
    const size_t n = (size_t)o->sample;
    if (n > all->n) {
        return fail(error, CANDID_ERROR_ARGUMENT, "--sample %zu: %s holds %zu images", n, o->images, all->n);
    }
    size_t *drawn = malloc(n * sizeof *drawn);
    if (!drawn) {
        return fail_memory(error, "the images", n * sizeof *drawn);
    }
    struct mt19937 random;
    mt19937_seed(&random, (uint64_t)o->sample_seed);
    candid_status status = mt19937_sample(&random, all->n, n, drawn, error);
    for (size_t i = 0; status == CANDID_OK && i < n; i++) {
        status = add_image(all->names[drawn[i]], items, error);
    }
    free(drawn);
    return status;
}

static candid_status add_from_folder(const struct eval_options *o, const struct names *all, struct eval_items *items,
                                     candid_error *error) {
    if (o->sample > 0) {
        return add_sample(o, all, items, error);
    }
    if (o->list) {
        int64_t *ids;
        size_t n;
        TRY(chair_image_list(o->list, &ids, &n, error));
        const candid_status status = add_numbers(o->list, ids, n, all, items, error);
        free(ids);
        return status;
    }
    for (size_t i = 0; i < all->n; i++) {
        TRY(add_image(all->names[i], items, error));
    }
    return CANDID_OK;
}

static candid_status images_read(struct evaluation *e, struct eval_items *items, candid_error *error) {
    const struct eval_options *o = e->o;
    if (o->questions.n > 0) { /* LLaVA's form, answers scored by nobody */
        return fail(error, CANDID_ERROR_ARGUMENT, "%s asks every image the same; questions are for vqa", o->benchmark);
    }
    if (o->list && file_exists(o->list)) {
        return add_listed(o->list, items, error);
    }
    struct names all = {0};
    candid_status status = names_of_folder(o->images, &all, error);
    if (status == CANDID_OK) {
        status = add_from_folder(o, &all, items, error);
    }
    names_free(&all);
    return status;
}

/* ---- chair --------------------------------------------------------------------------------------- */

static candid_status chair_scores(struct evaluation *e, struct eval_scores *out, candid_error *error) {
    return chair_score(&e->items, &(struct chair_options){.language = &e->chair.language, .truth = e->chair.truth}, out,
                       error);
}

static candid_status chair_check(struct evaluation *e, candid_error *error) {
    const struct eval_options *o = e->o;
    const struct chair_request request = {
        .mode = o->mode,
        .truth_mode = o->truth_mode,
        .tagger = o->tagger,
        .synonyms = o->synonyms,
        .truth_cache = o->truth_cache,
        .files = {o->truth.values, o->truth.n, o->references.values, o->references.n},
    };
    if (o->truth.n + o->references.n == 0 && !o->truth_cache) {
        return fail(error, CANDID_ERROR_ARGUMENT, "chair: expected --truth FILE or --truth-cache FILE");
    }
    if (chair_session_open(&request, &e->chair) != EXIT_OK) { /* it has said why */
        return fail(error, CANDID_ERROR_FORMAT, "without the truth there is nothing to score");
    }
    /* An image that the truth does not know is found out with empty captions. */
    struct eval_scores scores = {0};
    for (size_t i = 0; i < e->items.n; i++) {
        e->items.items[i].answer = "";
    }
    const candid_status status = chair_scores(e, &scores, error);
    for (size_t i = 0; i < e->items.n; i++) {
        e->items.items[i].answer = NULL;
    }
    scores_free(&scores);
    return status;
}

/* ---- open questions ------------------------------------------------------------------------------ */

static const char *text_member(const cJSON *object, const char *key) {
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static candid_status vqa_file(const char *path, struct eval_items *items, candid_error *error) {
    struct json_objects objects = {0};
    struct eval_source source = {.path = path};
    candid_status status = json_objects_read(path, &objects, error);
    for (size_t i = 0; status == CANDID_OK && i < objects.n; i++) {
        char buffer[JSON_ID], number[24];
        const cJSON *o = objects.items[i];
        const char *id = json_id(cJSON_GetObjectItemCaseSensitive(o, "question_id"), buffer);
        const char *text = text_member(o, "text"), *image = text_member(o, "image");
        if (!text || !image) {
            status = json_objects_fail(&objects, i, error, "expected \"image\" and \"text\" to be strings");
            break;
        }
        snprintf(number, sizeof number, "%zu", items->n);
        status = items_add(items,
                           &(struct eval_item){.id = id ? id : number,
                                               .image = image,
                                               .question = text,
                                               .split = text_member(o, "category"),
                                               .label = text_member(o, "label")},
                           error);
    }
    source.n_lines = objects.n;
    memcpy(source.sha256, objects.sha256, sizeof source.sha256);
    json_objects_free(&objects);
    return status == CANDID_OK ? items_add_source(items, &source, error) : status;
}

static candid_status vqa_read(struct evaluation *e, struct eval_items *items, candid_error *error) {
    const struct eval_options *o = e->o;
    TRY(need_questions(o, error));
    for (size_t i = 0; i < o->questions.n; i++) {
        TRY(vqa_file(o->questions.values[i], items, error));
    }
    return CANDID_OK;
}

/* ---- table --------------------------------------------------------------------------------------- */

static const struct benchmark benchmarks[] = {
    {.name = "pope",
     .batch = 1,
     .read = pope_read,
     .score = pope_scores,
     .check = pope_check,
     .print = score_pope_print},
    {.name = "chair",
     .prompt = CAPTION_PROMPT,
     .batch = 8,
     .read = images_read,
     .score = chair_scores,
     .check = chair_check,
     .print = score_chair_print},
    {.name = "mme", .batch = 1, .read = mme_read, .score = mme_scores, .check = mme_check, .print = score_mme_print},
    {.name = "amber",
     .batch = 1,
     .read = amber_read,
     .score = amber_scores,
     .check = amber_check,
     .print = score_amber_print},
    {.name = "caption", .prompt = CAPTION_PROMPT, .batch = 8, .read = images_read},
    {.name = "vqa", .batch = 1, .read = vqa_read},
};

const struct benchmark *benchmark_find(const char *name) {
    for (size_t i = 0; i < sizeof benchmarks / sizeof *benchmarks; i++) {
        if (strcmp(benchmarks[i].name, name) == 0) {
            return &benchmarks[i];
        }
    }
    return NULL;
}
