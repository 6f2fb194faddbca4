/* The cases of tests/data/chair/fixture.json: annotations as COCO writes them, and the tags of their captions. */
#ifndef CANDID_TESTS_CHAIR_FIXTURE_H
#define CANDID_TESTS_CHAIR_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/chair/chair.h"

static inline cJSON *fixture_read(const char *name) {
    char path[512];
    snprintf(path, sizeof path, TEST_DATA "/chair/%s", name);
    FILE *file = fopen(path, "rb");
    if (!file) {
        return NULL;
    }
    static char text[1 << 20];
    const size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[size] = '\0';
    return cJSON_Parse(text);
}

static inline cJSON *fixture_get(const cJSON *object, const char *key) {
    return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* Whether the words are those of a list. */
static inline bool fixture_same_words(const struct words *words, const cJSON *tokens) {
    size_t i = 0;
    const cJSON *token;
    cJSON_ArrayForEach(token, tokens) {
        if (i >= words->n || strcmp(word_at(words, i++), token->valuestring) != 0) {
            return false;
        }
    }
    return i == words->n;
}

static inline bool fixture_take_tags(const struct words *words, const cJSON *tokens, const cJSON *tags,
                                     uint8_t *classes) {
    if (!fixture_same_words(words, tokens)) {
        return false;
    }
    const cJSON *tag;
    cJSON_ArrayForEach(tag, tags) {
        *classes++ = (uint8_t)tag_class(tag->valuestring);
    }
    return true;
}

/* A tagger that knows the sentences of the fixture: for struct word_tagger, the context is the list of cases. */
static inline candid_status fixture_classify(void *cases, const struct words *words, uint8_t *classes,
                                             candid_error *error) {
    (void)error;
    const cJSON *c;
    cJSON_ArrayForEach(c, (const cJSON *)cases) {
        if (fixture_take_tags(words, fixture_get(c, "tokens"), fixture_get(c, "tags"), classes)) {
            return CANDID_OK;
        }
        const cJSON *tokens, *tags = fixture_get(c, "reference_tags")->child;
        cJSON_ArrayForEach(tokens, fixture_get(c, "reference_tokens")) {
            if (fixture_take_tags(words, tokens, tags, classes)) {
                return CANDID_OK;
            }
            tags = tags->next;
        }
    }
    /* Tokens of another NLTK than the tags are for; the word that differs is a noun, as all its neighbours that
     * matter. */
    memset(classes, WORD_NOUN, words->n);
    return words->n > 0 ? CANDID_OK : CANDID_ERROR_INTERNAL;
}

static inline bool fixture_print(const char *path, const cJSON *json) {
    FILE *file = fopen(path, "wb");
    char *text = cJSON_Print(json);
    const bool ok = file && text && fputs(text, file) >= 0;
    cJSON_free(text);
    return file && fclose(file) == 0 && ok;
}

/* Writes the annotations as COCO's files: categories behind the annotations. */
static inline bool fixture_write_coco(const cJSON *cases, const struct vocabulary *v, const char *instances,
                                      const char *captions) {
    cJSON *a = cJSON_Parse("{\"info\":{\"x\":[1,{\"y\":null}]},\"images\":[],\"annotations\":[],\"categories\":[]}");
    cJSON *b = cJSON_Parse("{\"annotations\":[]}");
    const cJSON *c, *item;
    cJSON_ArrayForEach(c, cases) {
        const double id = fixture_get(c, "image_id")->valuedouble;
        cJSON *image = cJSON_CreateObject();
        char name[64];
        snprintf(name, sizeof name, "COCO_val2014_%012.0f.jpg", id);
        cJSON_AddStringToObject(image, "file_name", name);
        cJSON_AddNumberToObject(image, "id", id);
        cJSON_AddItemToArray(fixture_get(a, "images"), image);
        cJSON_ArrayForEach(item, fixture_get(c, "instances")) {
            cJSON *annotation = cJSON_CreateObject();
            cJSON_AddNumberToObject(annotation, "category_id",
                                    100 + vocabulary_class(v, vocabulary_word(v, item->valuestring)));
            cJSON_AddItemToObject(annotation, "segmentation", cJSON_Parse("[[1.5,-2e1,3]]"));
            cJSON_AddNumberToObject(annotation, "image_id", id);
            cJSON_AddItemToArray(fixture_get(a, "annotations"), annotation);
        }
        cJSON_ArrayForEach(item, fixture_get(c, "references")) {
            cJSON *annotation = cJSON_CreateObject();
            cJSON_AddStringToObject(annotation, "caption", item->valuestring);
            cJSON_AddNumberToObject(annotation, "image_id", id);
            cJSON_AddItemToArray(fixture_get(b, "annotations"), annotation);
        }
    }
    for (size_t i = 0; i < v->n_classes; i++) {
        cJSON *category = cJSON_CreateObject();
        cJSON_AddStringToObject(category, "name", v->class_names[i]);
        cJSON_AddNumberToObject(category, "id", 100 + (double)i);
        cJSON_AddItemToArray(fixture_get(a, "categories"), category);
    }
    const bool ok = fixture_print(instances, a) && fixture_print(captions, b);
    cJSON_Delete(a);
    cJSON_Delete(b);
    return ok;
}

#endif
