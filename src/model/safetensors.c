/* safetensors reader: JSON header to a checked table over the mapping. */
#include "model/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/status.h"
#include "core/text.h"

/* Real headers take about 120 bytes a tensor; cJSON needs some 64 bytes for the shortest element. */
#define MAX_HEADER ((uint64_t)32 << 20)

struct safetensors {
    char label[208];
    struct mapped_file file;
    bool mapped;
    struct json header; /* owns names and dtypes */
    const uint8_t *data;
    size_t data_size;
    struct safetensors_tensor *tensors;
    size_t n_tensors;
};

static const struct {
    const char *name;
    uint32_t type;
    size_t bytes;
} dtypes[] = {
    {"F32", TYPE_F32, 4},
    {"F16", TYPE_F16, 2},
    {"BF16", TYPE_BF16, 2},
    {"F64", SAFETENSORS_OTHER, 8},
    {"I64", SAFETENSORS_OTHER, 8},
    {"I32", SAFETENSORS_OTHER, 4},
    {"I16", SAFETENSORS_OTHER, 2},
    {"I8", SAFETENSORS_OTHER, 1},
    {"U64", SAFETENSORS_OTHER, 8},
    {"U32", SAFETENSORS_OTHER, 4},
    {"U16", SAFETENSORS_OTHER, 2},
    {"U8", SAFETENSORS_OTHER, 1},
    {"BOOL", SAFETENSORS_OTHER, 1},
    {"F8_E4M3", SAFETENSORS_OTHER, 1},
    {"F8_E5M2", SAFETENSORS_OTHER, 1},
};

static candid_status broken(const struct safetensors *s, const char *tensor, const char *what, candid_error *error) {
    struct printable name;
    return fail(error, CANDID_ERROR_FORMAT, "%s: tensor %s: expected %s", s->label, printable_string(&name, tensor),
                what);
}

static candid_status read_shape(const struct safetensors *s, const cJSON *item, struct safetensors_tensor *t,
                                uint64_t *n_values, candid_error *error) {
    const cJSON *shape = json_find(item, "shape");
    if (!cJSON_IsArray(shape)) {
        return broken(s, t->name, "a \"shape\" that is an array, found none", error);
    }
    *n_values = 1;
    const cJSON *dim;
    cJSON_ArrayForEach(dim, shape) {
        if (t->n_dims == SAFETENSORS_MAX_DIMS) {
            return broken(s, t->name, "at most 8 dimensions, found more", error);
        }
        int64_t n = 0;
        if (!json_is_int(dim, 0, INT64_MAX, &n) || (n > 0 && *n_values > (uint64_t)INT64_MAX / 8 / (uint64_t)n)) {
            return broken(s, t->name, "dimensions whose product is below 2^60, found others", error);
        }
        t->shape[t->n_dims++] = n;
        *n_values *= (uint64_t)n;
    }
    return CANDID_OK;
}

static candid_status read_tensor(const struct safetensors *s, const cJSON *item, struct safetensors_tensor *t,
                                 candid_error *error) {
    *t = (struct safetensors_tensor){.name = item->string, .type = SAFETENSORS_OTHER};
    uint64_t n_values = 0;
    if (!cJSON_IsObject(item)) {
        return broken(s, t->name, "an object with dtype, shape and data_offsets, found something else", error);
    }
    TRY(read_shape(s, item, t, &n_values, error));
    const cJSON *dtype = json_find(item, "dtype");
    size_t bytes = 0;
    for (size_t i = 0; cJSON_IsString(dtype) && i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(dtype->valuestring, dtypes[i].name) == 0) {
            t->dtype = dtypes[i].name;
            t->type = dtypes[i].type;
            bytes = dtypes[i].bytes;
        }
    }
    struct printable name;
    if (!bytes) {
        char found[JSON_FOUND];
        return fail(error, CANDID_ERROR_UNSUPPORTED,
                    "%s: tensor %s: expected a dtype such as F32, F16 or BF16, found %s", s->label,
                    printable_string(&name, t->name), json_found(dtype, found));
    }
    const cJSON *offsets = json_find(item, "data_offsets");
    int64_t begin = 0, end = 0;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        !json_is_int(cJSON_GetArrayItem(offsets, 0), 0, INT64_MAX, &begin) ||
        !json_is_int(cJSON_GetArrayItem(offsets, 1), 0, INT64_MAX, &end) || begin > end) {
        return broken(s, t->name, "\"data_offsets\" [begin, end] with begin <= end, found others", error);
    }
    if ((uint64_t)end > s->data_size) {
        return fail(error, CANDID_ERROR_FORMAT,
                    "%s: truncated: tensor %s: expected data up to byte %" PRId64 ", found a data section of %zu bytes",
                    s->label, printable_string(&name, t->name), end, s->data_size);
    }
    t->data = s->data + begin;
    t->size = (size_t)(end - begin);
    if (t->size != n_values * bytes) {
        return fail(error, CANDID_ERROR_FORMAT,
                    "%s: tensor %s: expected %" PRIu64 " bytes for its shape and dtype %s, found %zu", s->label,
                    printable_string(&name, t->name), n_values * bytes, t->dtype, t->size);
    }
    return CANDID_OK;
}

static int by_data(const void *a, const void *b) {
    const struct safetensors_tensor *x = a, *y = b;
    return x->data != y->data ? (x->data < y->data ? -1 : 1) : (x->size > y->size) - (x->size < y->size);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct safetensors_tensor *)a)->name, ((const struct safetensors_tensor *)b)->name);
}

/* Each byte of the data section belongs to one tensor. */
static candid_status check_cover(struct safetensors *s, candid_error *error) {
    struct printable name;
    if (s->n_tensors > 1) {
        qsort(s->tensors, s->n_tensors, sizeof *s->tensors, by_data);
    }
    size_t at = 0;
    for (size_t i = 0; i < s->n_tensors; i++) {
        const struct safetensors_tensor *t = &s->tensors[i];
        if (t->data != s->data + at) {
            return fail(error, CANDID_ERROR_FORMAT,
                        "%s: tensor %s: expected its data at offset %zu (no gaps, no overlap), found offset %zu",
                        s->label, printable_string(&name, t->name), at, (size_t)(t->data - s->data));
        }
        at += t->size;
    }
    if (at != s->data_size) {
        return fail(error, CANDID_ERROR_FORMAT,
                    "%s: expected a data section of %zu bytes for its tensors, found %zu bytes", s->label, at,
                    s->data_size);
    }
    if (s->n_tensors > 1) {
        qsort(s->tensors, s->n_tensors, sizeof *s->tensors, by_name);
    }
    for (size_t i = 1; i < s->n_tensors; i++) {
        if (strcmp(s->tensors[i - 1].name, s->tensors[i].name) == 0) {
            return broken(s, s->tensors[i].name, "unique names, found this one twice", error);
        }
    }
    return CANDID_OK;
}

static candid_status parse(struct safetensors *s, candid_error *error) {
    if (s->file.size < 8) {
        return fail(error, CANDID_ERROR_FORMAT, "%s: expected a safetensors file, found only %zu bytes", s->label,
                    s->file.size);
    }
    uint64_t header = 0;
    memcpy(&header, s->file.data, 8);
    if (header > MAX_HEADER || header < 2 || s->file.data[8 < s->file.size ? 8 : 0] != '{') {
        return fail(error, CANDID_ERROR_FORMAT,
                    "%s: expected a safetensors file (a header length up to %" PRIu64
                    " and a JSON object), found length "
                    "%" PRIu64,
                    s->label, MAX_HEADER, header);
    }
    if (header > s->file.size - 8) {
        return fail(error, CANDID_ERROR_FORMAT,
                    "%s: truncated: the header needs %" PRIu64 " bytes, found %zu before the end of the file", s->label,
                    header, s->file.size - 8);
    }
    s->data = s->file.data + 8 + header;
    s->data_size = s->file.size - 8 - (size_t)header;
    TRY(json_parse((const char *)s->file.data + 8, (size_t)header, s->label, &s->header, error));
    const size_t n = (size_t)cJSON_GetArraySize(s->header.root);
    s->tensors = calloc(n + 1, sizeof *s->tensors);
    if (!s->tensors) {
        return fail_memory(error, "the tensor table of a safetensors file", n * sizeof *s->tensors);
    }
    const cJSON *item;
    cJSON_ArrayForEach(item, s->header.root) {
        if (strcmp(item->string, "__metadata__") != 0) {
            TRY(read_tensor(s, item, &s->tensors[s->n_tensors], error));
            s->n_tensors++;
        }
    }
    return check_cover(s, error);
}

static candid_status open_bytes(struct mapped_file file, bool mapped, const char *name, struct safetensors **out,
                                candid_error *error) {
    struct safetensors *s = calloc(1, sizeof *s);
    if (!s) {
        if (mapped) {
            file_unmap(&file);
        }
        return fail_memory(error, "a safetensors file", sizeof *s);
    }
    s->file = file;
    s->mapped = mapped;
    file_label(name, s->label, sizeof s->label);
    const candid_status status = parse(s, error);
    if (status != CANDID_OK) {
        safetensors_close(s);
        return status;
    }
    *out = s;
    return CANDID_OK;
}

candid_status safetensors_open(const char *path, struct safetensors **out, candid_error *error) {
    struct mapped_file file;
    TRY(file_map(path, "a safetensors file", &file, error));
    return open_bytes(file, true, path, out, error);
}

candid_status safetensors_open_memory(const void *data, size_t size, const char *name, struct safetensors **out,
                                      candid_error *error) {
    return open_bytes((struct mapped_file){data, size}, false, name ? name : "(memory)", out, error);
}

void safetensors_close(struct safetensors *s) {
    if (s) {
        free(s->tensors);
        json_free(&s->header);
        if (s->mapped) {
            file_unmap(&s->file);
        }
        free(s);
    }
}

const char *safetensors_path(const struct safetensors *s) {
    return s->label;
}

size_t safetensors_file_size(const struct safetensors *s) {
    return s->file.size;
}

size_t safetensors_count(const struct safetensors *s) {
    return s->n_tensors;
}

const struct safetensors_tensor *safetensors_at(const struct safetensors *s, size_t i) {
    return i < s->n_tensors ? &s->tensors[i] : NULL;
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *s, const char *name) {
    const struct safetensors_tensor wanted = {.name = name};
    return s->n_tensors ? bsearch(&wanted, s->tensors, s->n_tensors, sizeof *s->tensors, by_name) : NULL;
}
