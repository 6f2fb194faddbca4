/* Helpers of the methods: layers, key classes, head tables. */
#include "interventions/common.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/log.h"
#include "core/status.h"

candid_status idle(struct compile_job *job, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(job->note->idle, PLAN_NOTE, format, args);
    va_end(args);
    return CANDID_OK;
}

int image_tokens(const struct layout *layout) {
    int n = 0;
    for (int i = 0; i < layout->n_spans; i++) {
        n += layout->spans[i].kind == SPAN_IMAGE ? layout->spans[i].end - layout->spans[i].begin : 0;
    }
    return n;
}

bool has_image(struct compile_job *job) {
    if (image_tokens(job->layout) > 0) {
        return true;
    }
    idle(job, "the request has no image");
    return false;
}

void classify_images(const struct layout *layout, uint8_t *classes) {
    for (int i = 0; i < layout->n_spans; i++) {
        const struct span *span = &layout->spans[i];
        if (span->kind == SPAN_IMAGE) {
            memset(classes + span->begin, 1, (size_t)(span->end - span->begin));
        }
    }
}

candid_status select_layers(const struct settings *s, const char *option, struct compile_job *job, bool *layers, int *n,
                            candid_error *error) {
    const char *text = setting_string(s, option);
    const int count = layers_select(text, job->facts->n_layer, layers, job->method->name, error);
    if (count < 0) {
        return CANDID_ERROR_ARGUMENT;
    }
    if (count == 0) {
        idle(job, "%s \"%s\": the model has layers 0 to %d", option, text, job->facts->n_layer - 1);
    }
    if (n) {
        *n = count;
    }
    return CANDID_OK;
}

bool has_text(struct compile_job *job) {
    if (job->plan->n_prompt > image_tokens(job->layout)) {
        return true;
    }
    idle(job, "the prompt has no text beside the image to compare with");
    return false;
}

candid_status add_attention(const struct settings *s, struct compile_job *job, enum attention_edit_kind kind,
                            unsigned rows, struct plan_step **out, candid_error *error) {
    TRY(plan_add(job->plan, PLAN_ATTENTION, job->method, out, error));
    (*out)->rows = rows;
    (*out)->edit.kind = kind;
    (*out)->edit.n_classes = job->plan->n_prompt;
    return select_layers(s, "layers", job, (*out)->layers, NULL, error);
}

candid_status raise_image_scores(const struct settings *s, struct compile_job *job, enum attention_edit_kind kind,
                                 unsigned rows, candid_error *error) {
    const float alpha = setting_float(s, "alpha");
    if (alpha == 0.0f) {
        return idle(job, "alpha = 0 adds nothing");
    }
    if (!has_image(job)) {
        return CANDID_OK;
    }
    uint8_t *classes;
    TRY(plan_alloc(job->plan, (size_t)job->plan->n_prompt, 1, &classes, error));
    classify_images(job->layout, classes);
    struct plan_step *step;
    TRY(add_attention(s, job, kind, rows, &step, error));
    step->edit.classes = classes;
    step->edit.gain[1] = alpha;
    return CANDID_OK;
}

void mark_highest(const float *values, int n, int count, uint8_t mark, uint8_t *marks) {
    for (int k = 0; k < count && k < n; k++) {
        int best = -1;
        for (int i = 0; i < n; i++) {
            if (marks[i] != mark && (best < 0 || values[i] > values[best])) {
                best = i;
            }
        }
        marks[best] = mark;
    }
}

int ascending(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

void report_layers(cJSON *out, const char *name, const bool *layers, int n_layer) {
    cJSON *list = cJSON_AddArrayToObject(out, name);
    for (int l = 0; l < n_layer; l++) {
        if (layers[l]) {
            cJSON_AddItemToArray(list, cJSON_CreateNumber(l));
        }
    }
}

/* ---- head tables --------------------------------------------------------------------------------- */

static candid_status table_column(const struct json *table, const struct model_facts *facts, const char *column,
                                  float *values, candid_error *error) {
    const cJSON *rows = json_find(table->root, column);
    if (!cJSON_IsArray(rows) || cJSON_GetArraySize(rows) != facts->n_layer) {
        return fail(
            error, CANDID_ERROR_FORMAT,
            "%s: expected \"%s\" to be a list of %d layers (the model's), found %d: was it made for another model?",
            table->label, column, facts->n_layer, cJSON_IsArray(rows) ? cJSON_GetArraySize(rows) : 0);
    }
    int layer = 0;
    for (const cJSON *row = rows->child; row; row = row->next, layer++) {
        if (!cJSON_IsArray(row) || cJSON_GetArraySize(row) != facts->n_head) {
            return fail(error, CANDID_ERROR_FORMAT, "%s: expected %d numbers in layer %d of \"%s\", found %d",
                        table->label, facts->n_head, layer, column, cJSON_IsArray(row) ? cJSON_GetArraySize(row) : 0);
        }
        for (const cJSON *value = row->child; value; value = value->next) {
            if (!cJSON_IsNumber(value) || !isfinite((float)value->valuedouble)) {
                return fail(error, CANDID_ERROR_FORMAT, "%s: expected finite numbers in layer %d of \"%s\"",
                            table->label, layer, column);
            }
            *values++ = (float)value->valuedouble;
        }
    }
    return CANDID_OK;
}

static candid_status check_size(const struct json *table, const char *key, int expected, candid_error *error) {
    const cJSON *item = json_find(table->root, key);
    char found[JSON_FOUND];
    if (item && !(cJSON_IsNumber(item) && item->valuedouble == expected)) {
        return fail(error, CANDID_ERROR_FORMAT,
                    "%s: expected %s %d (the model's), found %s: was it made for another model?", table->label, key,
                    expected, json_found(item, found));
    }
    return CANDID_OK;
}

static candid_status check_table(const struct json *table, const struct compile_job *job, candid_error *error) {
    const struct model_facts *f = job->facts;
    TRY(check_size(table, "n_layer", f->n_layer, error));
    TRY(check_size(table, "n_head", f->n_head, error));
    TRY(check_size(table, "n_embd", f->n_embd, error));
    const char *model = cJSON_GetStringValue(json_find(table->root, "model"));
    if (model && strcmp(model, f->name) != 0) {
        log_write(job->log, CANDID_LOG_WARN, "%s.table: %s was made for model \"%s\", this one is \"%s\"",
                  job->method->name, table->label, model, f->name);
    }
    return CANDID_OK;
}

candid_status open_table(const struct settings *s, const struct compile_job *job, const char *path, struct json *out,
                         candid_error *error) {
    char full[4096];
    if (!setting_path(s, path, full, sizeof full)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s.table: the file name is too long", job->method->name);
    }
    TRY(json_read(full, (size_t)64 << 20, out, error));
    const candid_status status = check_table(out, job, error);
    if (status != CANDID_OK) {
        json_free(out);
    }
    return status;
}

candid_status read_head_table(const struct settings *s, const struct compile_job *job, const char *path,
                              const char *column, float *values, candid_error *error) {
    struct json table;
    TRY(open_table(s, job, path, &table, error));
    const candid_status status = table_column(&table, job->facts, column, values, error);
    json_free(&table);
    return status;
}

candid_status select_heads(const struct settings *s, struct compile_job *job, uint8_t *heads, bool *given,
                           candid_error *error) {
    const int n_layer = job->facts->n_layer, n_head = job->facts->n_head;
    const cJSON *list = setting_list(s, "heads");
    const char *table = setting_string(s, "table");
    *given = list || table;
    if (list && table) {
        return fail(error, CANDID_ERROR_ARGUMENT, "%s: expected \"heads\" or \"table\", found both", job->method->name);
    }
    for (const cJSON *pair = list ? list->child : NULL; pair; pair = pair->next) {
        const int layer = cJSON_GetArrayItem(pair, 0)->valueint, head = cJSON_GetArrayItem(pair, 1)->valueint;
        if (layer >= n_layer || head >= n_head) {
            return fail(error, CANDID_ERROR_ARGUMENT, "%s.heads: [%d, %d] is outside the model's %d layers of %d heads",
                        job->method->name, layer, head, n_layer, n_head);
        }
        heads[layer * n_head + head] = 1;
    }
    if (table) {
        float *values = calloc((size_t)n_layer * (size_t)n_head, sizeof *values);
        if (!values) {
            return fail_memory(error, "a head table", (size_t)n_layer * (size_t)n_head * sizeof *values);
        }
        const candid_status status = read_head_table(s, job, table, setting_string(s, "rank_by"), values, error);
        if (status == CANDID_OK) {
            mark_highest(values, n_layer * n_head, setting_int(s, "top"), 1, heads);
        }
        free(values);
        return status;
    }
    return CANDID_OK;
}
