/* The published test vectors of methods (tests/data/method_vectors.json). Include after cmocka.h. */
#ifndef CANDID_TESTS_VECTORS_H
#define CANDID_TESTS_VECTORS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cJSON.h>

static cJSON *all_vectors;

static inline int vectors_open(void **state) {
    (void)state;
    FILE *f = fopen(TEST_DATA "/method_vectors.json", "rb");
    char *text = malloc(1 << 20);
    if (!f || !text) {
        return 1;
    }
    const size_t size = fread(text, 1, 1 << 20, f);
    fclose(f);
    all_vectors = cJSON_ParseWithLength(text, size);
    free(text);
    return all_vectors ? 0 : 1;
}

static inline int vectors_close(void **state) {
    (void)state;
    cJSON_Delete(all_vectors);
    return 0;
}

static inline const cJSON *member(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!item) {
        fail_msg("the vector has no \"%s\"", key);
    }
    return item;
}

static inline const cJSON *vector_named(const char *group, const char *id) {
    for (const cJSON *v = member(all_vectors, group)->child; v; v = v->next) {
        if (strcmp(cJSON_GetStringValue(member(v, "id")), id) == 0) {
            return v;
        }
    }
    fail_msg("no vector %s", id);
    return NULL;
}

static inline double number(const cJSON *object, const char *key) {
    assert_true(cJSON_IsNumber(member(object, key)));
    return member(object, key)->valuedouble;
}

static inline int integer(const cJSON *object, const char *key) {
    return (int)number(object, key);
}

static inline int flatten_into(const cJSON *array, double *out, int n) {
    for (const cJSON *item = array->child; item; item = item->next) {
        if (cJSON_IsArray(item)) {
            n = flatten_into(item, out, n);
        } else {
            if (out) {
                out[n] = cJSON_IsBool(item) ? (double)cJSON_IsTrue(item) : item->valuedouble;
            }
            n++;
        }
    }
    return n;
}

/* Numbers (or flags) of a nested array in order; the caller frees them. */
static inline double *flatten(const cJSON *array, int *n) {
    *n = flatten_into(array, NULL, 0);
    double *out = malloc((size_t)(*n + 1) * sizeof *out);
    assert_non_null(out);
    flatten_into(array, out, 0);
    return out;
}

/* At most `room` of them, as f32. */
static inline void flatten_floats(const cJSON *array, float *out, int room, int *n) {
    double *values = flatten(array, n);
    assert_true(*n <= room);
    for (int i = 0; i < *n; i++) {
        out[i] = (float)values[i];
    }
    free(values);
}

static inline void assert_close(double found, double expected, double tolerance, const char *what, int index) {
    if (!(fabs(found - expected) <= tolerance)) {
        fail_msg("%s: value %d is %.9g, expected %.9g", what, index, found, expected);
    }
}

#endif
