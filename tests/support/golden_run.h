/* Cases recorded by the scripts in tests/golden, and the models they run on. Include after cmocka.h. */
#ifndef CANDID_TESTS_GOLDEN_RUN_H
#define CANDID_TESTS_GOLDEN_RUN_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cJSON.h>

#include "ok.h"

static inline const char *text_of(const cJSON *item, const char *name) {
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(item, name));
    assert_non_null(text);
    return text;
}

static inline cJSON *read_cases(const char *path) {
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    char *text = malloc(1 << 22);
    assert_non_null(text);
    const size_t size = fread(text, 1, 1 << 22, f);
    fclose(f);
    cJSON *cases = cJSON_ParseWithLength(text, size);
    free(text);
    assert_true(cJSON_IsArray(cases));
    return cases;
}

/* Keeps the model of the last case open. */
struct runner {
    candid_precision precision;
    candid_context *context; /* of the model `path` */
    candid_model *model;
    char path[512];
};

static inline void runner_close(struct runner *r) {
    candid_context_free(r->context);
    candid_model_free(r->model);
    r->context = NULL;
    r->model = NULL;
}

static inline void runner_open(struct runner *r, const char *model) {
    char path[512];
    snprintf(path, sizeof path, PROJECT_ROOT "/%s", model);
    if (r->model && strcmp(path, r->path) == 0) {
        return;
    }
    runner_close(r);
    strcpy(r->path, path);
    candid_model_params params = candid_model_params_default();
    params.precision = r->precision;
    params.n_threads = 2;
    OK(candid_model_open(path, &params, &r->model, error));
    OK(candid_context_create(r->model, NULL, &r->context, error));
}

static inline candid_config *case_config(const cJSON *item) {
    char *json = cJSON_PrintUnformatted(cJSON_GetObjectItem(item, "config"));
    candid_config *config = NULL;
    OK(candid_config_parse(json, strlen(json), "case", &config, error));
    cJSON_free(json);
    return config;
}

static inline candid_image *case_image(const cJSON *item) {
    char path[512];
    candid_image *image = NULL;
    snprintf(path, sizeof path, PROJECT_ROOT "/%s", text_of(item, "image"));
    OK(candid_image_load(path, &image, error));
    return image;
}

#endif
