#include "eval/chair/truth.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "core/text.h"
#include "eval/chair/tables.h"
#include "eval/common/json_stream.h"
#include "eval/common/sha256.h"

/* ---- images ---- */

static size_t slot_of(const struct chair_truth *truth, int64_t id) {
    size_t at = (size_t)((uint64_t)id * 0x9e3779b97f4a7c15u >> 20) & (truth->n_slots - 1);
    while (truth->slots[at] > 0 && truth->ids[truth->slots[at] - 1] != id) {
        at = (at + 1) & (truth->n_slots - 1);
    }
    return at;
}

size_t chair_truth_image(const struct chair_truth *truth, int64_t id) {
    const uint32_t found = truth->n_slots > 0 ? truth->slots[slot_of(truth, id)] : 0;
    return found > 0 ? found - 1 : TRUTH_NO_IMAGE;
}

static candid_status grow(struct chair_truth *truth, candid_error *error) {
    const size_t capacity = truth->capacity > 0 ? 2 * truth->capacity : 1024, n_slots = 2 * capacity;
    const size_t mask_bytes = capacity * truth->n_words * sizeof *truth->masks;
    int64_t *ids = realloc(truth->ids, capacity * sizeof *ids);
    truth->ids = ids ? ids : truth->ids;
    uint64_t *masks = realloc(truth->masks, mask_bytes);
    truth->masks = masks ? masks : truth->masks;
    uint32_t *slots = calloc(n_slots, sizeof *slots);
    if (!ids || !masks || !slots || capacity > UINT32_MAX / 2) {
        free(slots);
        return fail_memory(error, "the objects of the images", mask_bytes);
    }
    free(truth->slots);
    truth->slots = slots;
    truth->n_slots = n_slots;
    truth->capacity = capacity;
    for (size_t i = 0; i < truth->n; i++) {
        slots[slot_of(truth, ids[i])] = (uint32_t)(i + 1);
    }
    return CANDID_OK;
}

candid_status chair_truth_add(struct chair_truth *truth, int64_t id, size_t *index, candid_error *error) {
    *index = chair_truth_image(truth, id);
    if (*index != TRUTH_NO_IMAGE) {
        return CANDID_OK;
    }
    if (truth->n == truth->capacity) {
        TRY(grow(truth, error));
    }
    *index = truth->n++;
    truth->ids[*index] = id;
    memset(truth->masks + *index * truth->n_words, 0, truth->n_words * sizeof *truth->masks);
    truth->slots[slot_of(truth, id)] = (uint32_t)(*index + 1);
    return CANDID_OK;
}

static void add_object(struct chair_truth *truth, size_t image, int object) {
    truth->masks[image * truth->n_words + (size_t)object / 64] |= UINT64_C(1) << (object % 64);
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The number that a file name ends in, before its extension; -1 for none. */
static int64_t trailing_number(const char *name) {
    const char *dot = strrchr(name, '.');
    const char *end = dot ? dot : name + strlen(name), *start = end;
    while (start > name && isdigit((unsigned char)start[-1]) && end - start < 15) {
        start--;
    }
    return start < end ? strtoll(start, NULL, 10) : -1;
}

size_t chair_truth_image_named(const struct chair_truth *truth, const char *file_name) {
    const char *name = base_name(file_name);
    const uint32_t listed = string_table_find(&truth->names, name, strlen(name));
    if (listed != STRING_TABLE_NONE) {
        return listed;
    }
    const size_t image = chair_truth_image(truth, trailing_number(name));
    /* An image that is listed under another name is not this one. */
    for (size_t i = 0; image != TRUTH_NO_IMAGE && i < truth->n_names; i++) {
        if (truth->name_images[i] == image) {
            return TRUTH_NO_IMAGE;
        }
    }
    return image;
}

candid_status chair_truth_add_name(struct chair_truth *truth, size_t index, const char *file_name,
                                   candid_error *error) {
    const char *name = base_name(file_name);
    if (trailing_number(name) == truth->ids[index]) {
        return CANDID_OK;
    }
    const uint32_t listed = string_table_find(&truth->names, name, strlen(name));
    if (listed == index) {
        return CANDID_OK;
    }
    if (listed != STRING_TABLE_NONE) {
        struct printable p;
        return fail(error, CANDID_ERROR_FORMAT, "the images %lld and %lld are both called \"%s\"",
                    (long long)truth->ids[listed], (long long)truth->ids[index], printable_string(&p, name));
    }
    if (truth->n_names == truth->names_capacity) {
        const size_t capacity = truth->names_capacity > 0 ? 2 * truth->names_capacity : 256;
        char **texts = realloc(truth->name_texts, capacity * sizeof *texts);
        truth->name_texts = texts ? texts : truth->name_texts;
        uint32_t *images = realloc(truth->name_images, capacity * sizeof *images);
        truth->name_images = images ? images : truth->name_images;
        if (!texts || !images) {
            return fail_memory(error, "the names of the images", capacity * sizeof *texts);
        }
        truth->names_capacity = capacity;
    }
    char *copy = strdup(name);
    if (!copy) {
        return fail_memory(error, "the name of an image", strlen(name));
    }
    truth->name_texts[truth->n_names] = copy;
    truth->name_images[truth->n_names++] = (uint32_t)index;
    return string_table_put(&truth->names, copy, strlen(copy), (uint32_t)index, error);
}

candid_status chair_truth_add_source(struct chair_truth *truth, const struct truth_source *source,
                                     candid_error *error) {
    struct truth_source *grown = realloc(truth->sources, (truth->n_sources + 1) * sizeof *grown);
    char *path = grown ? strdup(source->path) : NULL;
    truth->sources = grown ? grown : truth->sources;
    if (!path) {
        return fail_memory(error, "the name of a file", strlen(source->path));
    }
    grown[truth->n_sources] = *source;
    grown[truth->n_sources++].path = path;
    return CANDID_OK;
}

void chair_truth_free(struct chair_truth *truth) {
    if (!truth) {
        return;
    }
    for (size_t i = 0; i < truth->n_names; i++) {
        free(truth->name_texts[i]);
    }
    for (size_t i = 0; i < truth->n_sources; i++) {
        free(truth->sources[i].path);
    }
    free(truth->ids);
    free(truth->masks);
    free(truth->slots);
    free(truth->name_texts);
    free(truth->name_images);
    free(truth->sources);
    string_table_free(&truth->names);
    free(truth);
}

void chair_vocabulary_hash(const struct vocabulary *vocabulary, char hex[65]) {
    const char *const texts[] = {vocabulary->own ? vocabulary->text : chair_table_synonyms, chair_table_two_words,
                                 chair_table_lemmas, chair_table_pattern};
    struct sha256 hash;
    sha256_begin(&hash);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        sha256_add(&hash, texts[i], strlen(texts[i]) + 1);
    }
    sha256_end(&hash, hex);
}

/* ---- COCO's files ---- */

/* The classes of a file's categories. */
struct categories {
    struct category {
        int64_t id;
        int object;            /* class, or -1 */
        struct printable name; /* for messages */
    } * list;
    size_t n;
};

struct builder {
    struct chair_truth *truth;
    struct chair_language *language;
    struct categories categories;
    struct chair_objects objects; /* of a caption */
};

/* {"id": 18, "name": "dog", …} */
static candid_status read_category(struct json_stream *s, struct builder *b, candid_error *error) {
    struct category category = {.object = -1};
    bool has_id = false, has_name = false;
    candid_status status;
    TRY(json_enter(s, '{', error));
    for (const char *key; json_key(s, &key, &status, error);) {
        if (strcmp(key, "id") == 0) {
            TRY(json_integer(s, &category.id, error));
            has_id = true;
        } else if (strcmp(key, "name") == 0) {
            const char *name;
            TRY(json_text(s, &name, error));
            const struct vocabulary *v = b->language->vocabulary;
            category.object = vocabulary_class(v, vocabulary_word(v, name));
            printable_string(&category.name, name);
            has_name = true;
        } else {
            TRY(json_skip(s, error));
        }
    }
    TRY(status);
    if (!has_id || !has_name) {
        return json_stream_fail(s, error, "a category without \"%s\"", has_id ? "name" : "id");
    }
    struct categories *c = &b->categories;
    struct category *grown = realloc(c->list, (c->n + 1) * sizeof *grown);
    if (!grown) {
        return fail_memory(error, "the categories", (c->n + 1) * sizeof *grown);
    }
    c->list = grown;
    grown[c->n++] = category;
    return CANDID_OK;
}

/* {"id": 42, "file_name": "COCO_val2014_000000000042.jpg", …} */
static candid_status read_image(struct json_stream *s, struct builder *b, candid_error *error) {
    int64_t id = -1;
    bool has_id = false;
    char *name = NULL;
    candid_status status;
    TRY(json_enter(s, '{', error));
    for (const char *key; json_key(s, &key, &status, error);) {
        if (strcmp(key, "id") == 0) {
            status = json_integer(s, &id, error);
            has_id = true;
        } else if (strcmp(key, "file_name") == 0 && json_peek(s) == '"') {
            const char *text;
            status = json_text(s, &text, error);
            free(name);
            name = status == CANDID_OK ? strdup(text) : NULL;
        } else {
            status = json_skip(s, error);
        }
        if (status != CANDID_OK) {
            break;
        }
    }
    if (status == CANDID_OK && !has_id) {
        status = json_stream_fail(s, error, "an image without \"id\"");
    }
    size_t index;
    if (status == CANDID_OK) {
        status = chair_truth_add(b->truth, id, &index, error);
    }
    candid_error reason;
    if (status == CANDID_OK && name && chair_truth_add_name(b->truth, index, name, &reason) != CANDID_OK) {
        status = json_stream_fail(s, error, "%s", reason.message);
    }
    free(name);
    return status;
}

static candid_status add_instance(struct json_stream *s, struct builder *b, size_t image, int64_t category,
                                  candid_error *error) {
    const struct categories *c = &b->categories;
    for (size_t i = 0; i < c->n; i++) {
        if (c->list[i].id != category) {
            continue;
        }
        if (c->list[i].object < 0) {
            return json_stream_fail(s, error, "the category \"%s\" is none of the %zu classes of the vocabulary",
                                    c->list[i].name.s, b->truth->n_classes);
        }
        add_object(b->truth, image, c->list[i].object);
        return CANDID_OK;
    }
    return json_stream_fail(s, error, "an annotation of category %lld, which \"categories\" does not list",
                            (long long)category);
}

/* {"image_id": 42, "category_id": 18, …} or {"image_id": 42, "caption": "…"} */
static candid_status read_annotation(struct json_stream *s, struct builder *b, bool captions, candid_error *error) {
    int64_t image_id = 0, category = 0;
    bool has_image = false, has_value = false;
    candid_status status;
    TRY(json_enter(s, '{', error));
    for (const char *key; json_key(s, &key, &status, error);) {
        if (strcmp(key, "image_id") == 0) {
            TRY(json_integer(s, &image_id, error));
            has_image = true;
        } else if (!captions && strcmp(key, "category_id") == 0) {
            TRY(json_integer(s, &category, error));
            has_value = true;
        } else if (captions && strcmp(key, "caption") == 0) {
            const char *text;
            TRY(json_text(s, &text, error));
            TRY(chair_find_objects(b->language, text, &b->objects, error));
            has_value = true;
        } else {
            TRY(json_skip(s, error));
        }
    }
    TRY(status);
    if (!has_image || !has_value) {
        return json_stream_fail(s, error, "an annotation without \"%s\": %s",
                                !has_image ? "image_id"
                                : captions ? "caption"
                                           : "category_id",
                                captions ? "is this a file of captions?" : "is this a file of instances?");
    }
    size_t image;
    TRY(chair_truth_add(b->truth, image_id, &image, error));
    for (size_t i = 0; captions && i < b->objects.n; i++) {
        add_object(b->truth, image, b->objects.mentions[i].object);
    }
    return captions ? CANDID_OK : add_instance(s, b, image, category, error);
}

enum part { PART_IMAGES, PART_CATEGORIES, PART_ANNOTATIONS, N_PARTS };
static const char *const part_names[N_PARTS] = {"images", "categories", "annotations"};

/* One pass over a file for the parts asked for; counts the objects of each. */
static candid_status read_parts(struct json_stream *s, struct builder *b, bool captions, const bool want[N_PARTS],
                                size_t count[N_PARTS], candid_error *error) {
    candid_status status;
    json_stream_rewind(s);
    TRY(json_enter(s, '{', error));
    for (const char *key; json_key(s, &key, &status, error);) {
        int part = 0;
        while (part < N_PARTS && (!want[part] || strcmp(key, part_names[part]) != 0)) {
            part++;
        }
        if (part == N_PARTS) {
            TRY(json_skip(s, error));
            continue;
        }
        TRY(json_enter(s, '[', error));
        while (json_item(s, &status, error)) {
            TRY(part == PART_IMAGES       ? read_image(s, b, error)
                : part == PART_CATEGORIES ? read_category(s, b, error)
                                          : read_annotation(s, b, captions, error));
            count[part]++;
        }
        TRY(status);
    }
    TRY(status);
    return json_end(s, error);
}

static candid_status read_file(struct builder *b, const char *path, bool captions, candid_error *error) {
    struct json_stream s;
    candid_status status;
    TRY(json_stream_open(path, &s, error));
    size_t count[N_PARTS] = {0};
    b->categories.n = 0;
    /* COCO lists the categories behind the annotations: two passes. */
    const bool first[N_PARTS] = {[PART_IMAGES] = true, [PART_CATEGORIES] = !captions, [PART_ANNOTATIONS] = captions};
    TRY_GOTO(read_parts(&s, b, captions, first, count, error), status, end);
    if (!captions) {
        const bool second[N_PARTS] = {[PART_ANNOTATIONS] = true};
        TRY_GOTO(read_parts(&s, b, captions, second, count, error), status, end);
    }
    if (count[PART_ANNOTATIONS] == 0) {
        status = fail(error, CANDID_ERROR_FORMAT, "%s: no \"annotations\"", s.label);
        goto end;
    }
    struct truth_source source = {
        .path = (char *)path, .captions = captions, .size = s.file.size, .n = count[PART_ANNOTATIONS]};
    sha256_hex(s.file.data, s.file.size, source.sha256);
    status = chair_truth_add_source(b->truth, &source, error);
end:
    json_stream_close(&s);
    return status;
}

candid_status chair_truth_build(struct chair_language *language, const char *tagger, const struct truth_files *files,
                                struct chair_truth **out, candid_error *error) {
    *out = NULL;
    if (files->n_instances + files->n_captions == 0) {
        return fail(error, CANDID_ERROR_ARGUMENT, "no annotation files to take the truth from");
    }
    struct chair_truth *truth = calloc(1, sizeof *truth);
    if (!truth) {
        return fail_memory(error, "the objects of the images", sizeof *truth);
    }
    truth->mode = language->mode;
    truth->n_classes = language->vocabulary->n_classes;
    truth->n_words = (truth->n_classes + 63) / 64;
    chair_vocabulary_hash(language->vocabulary, truth->vocabulary);
    const bool tagged = language->mode == CHAIR_NLTK38 || language->mode == CHAIR_NLTK39;
    memcpy(truth->tagger, tagged ? tagger : "", tagged ? strlen(tagger) + 1 : 1);
    struct builder b = {.truth = truth, .language = language};
    candid_status status = CANDID_OK;
    for (size_t i = 0; i < files->n_instances && status == CANDID_OK; i++) {
        status = read_file(&b, files->instances[i], false, error);
    }
    for (size_t i = 0; i < files->n_captions && status == CANDID_OK; i++) {
        status = read_file(&b, files->captions[i], true, error);
    }
    free(b.categories.list);
    chair_objects_free(&b.objects);
    if (status != CANDID_OK) {
        chair_truth_free(truth);
        return status;
    }
    *out = truth;
    return CANDID_OK;
}
