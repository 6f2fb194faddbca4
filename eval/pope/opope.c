/* HALC's offline POPE (OPOPE, github.com/BillChan226/HALC): descriptions answer the questions. */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/status.h"
#include "core/text.h"
#include "eval/common/json_objects.h"
#include "eval/pope/pope.h"

bool pope_caption_names(const char *caption, const char *object, size_t size) {
    const char *end = object + size;
    for (const char *word = object;; word++) {
        const char *blank = memchr(word, ' ', (size_t)(end - word)), *stop = blank ? blank : end;
        if (memmem(caption, strlen(caption), word, (size_t)(stop - word))) {
            return true;
        }
        if (stop == end) {
            return false;
        }
        word = stop;
    }
}

/* The object of "Is there a X in the image?", "an" and "imange" included; of any other text all of it. */
static const char *object_of(const char *question, size_t *size) {
    static const char begin[] = "Is there a", end[] = " in the ima";
    const char *object = question + sizeof begin - 1, *stop = strstr(question, end);
    *size = strlen(question);
    if (strncmp(question, begin, sizeof begin - 1) != 0 || !stop) {
        return question;
    }
    object += *object == 'n';
    if (*object != ' ' || object >= stop) {
        return question;
    }
    *size = (size_t)(stop - object - 1);
    return object + 1;
}

/* The number an image's name ends in: 42 of COCO_val2014_000000000042.jpg, and of 42; -1: none. */
static long long image_number(const char *name) {
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
    const char *end = base + strcspn(base, "."), *digits = end;
    while (digits > base && digits[-1] >= '0' && digits[-1] <= '9') {
        digits--;
    }
    return digits < end && end - digits < 18 ? strtoll(digits, NULL, 10) : -1;
}

struct caption {
    long long image;
    const char *text;
    size_t row;
};

static int compare_captions(const void *a, const void *b) {
    const struct caption *x = a, *y = b;
    return (x->image > y->image) - (x->image < y->image);
}

/* captions: [file->n], sorted by image. */
static candid_status index_captions(const struct json_objects *file, struct caption *captions, candid_error *error) {
    for (size_t i = 0; i < file->n; i++) {
        char number[JSON_ID];
        const cJSON *image = json_find(file->items[i], "image_id"), *text = json_find(file->items[i], "caption");
        image = image ? image : json_find(file->items[i], "image");
        text = text ? text : json_find(file->items[i], "answer");
        const char *name = json_id(image, number);
        captions[i] =
            (struct caption){name ? image_number(name) : -1, cJSON_IsString(text) ? text->valuestring : NULL, i};
        if (captions[i].image < 0 || !captions[i].text) {
            return json_objects_fail(file, i, error,
                                     "expected an image with a number (\"image_id\" or \"image\") and its \"caption\"");
        }
    }
    qsort(captions, file->n, sizeof *captions, compare_captions);
    for (size_t i = 1; i < file->n; i++) {
        if (captions[i - 1].image == captions[i].image) {
            return json_objects_fail(file, captions[i].row, error, "expected one caption of image %lld, found two",
                                     captions[i].image);
        }
    }
    return CANDID_OK;
}

static candid_status answer_all(const struct json_objects *file, const struct caption *captions,
                                struct eval_items *items, candid_error *error) {
    for (size_t i = 0; i < items->n; i++) {
        struct eval_item *item = &items->items[i];
        const struct caption wanted = {.image = item->image ? image_number(item->image) : -1};
        const struct caption *found = bsearch(&wanted, captions, file->n, sizeof wanted, compare_captions);
        if (!found || !item->question) {
            struct printable p;
            return fail(error, CANDID_ERROR_FORMAT, "%s: expected a caption of image %s, which question %zu is about",
                        file->label, printable_string(&p, item->image ? item->image : "without name"), i + 1);
        }
        size_t size;
        const char *object = object_of(item->question, &size);
        item->answer = items_text(items, pope_caption_names(found->text, object, size) ? "Yes" : "No");
        if (!item->answer) {
            return fail_memory(error, "an answer", 4);
        }
    }
    return CANDID_OK;
}

candid_status pope_read_captions(const char *path, struct eval_items *items, candid_error *error) {
    struct json_objects file;
    TRY(json_objects_read(path, &file, error));
    struct caption *captions = calloc(file.n + 1, sizeof *captions);
    candid_status status =
        captions ? index_captions(&file, captions, error) : fail_memory(error, "captions", file.n * sizeof *captions);
    if (status == CANDID_OK) {
        status = answer_all(&file, captions, items, error);
    }
    free(captions);
    json_objects_free(&file);
    return status;
}
