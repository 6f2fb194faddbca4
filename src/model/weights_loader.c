/* Tensors and hyperparameters by name, checked: what both networks' loaders are made of. */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "core/text.h"
#include "model/gguf_internal.h"
#include "model/weights_internal.h"

candid_status loader_init(struct loader *l, const struct gguf *gguf, struct owned_vectors *owned, candid_error *error) {
    const size_t n = gguf_tensor_count(gguf);
    *l = (struct loader){.gguf = gguf, .owned = owned, .error = error, .used = calloc(n + 1, sizeof(bool))};
    return l->used ? CANDID_OK : fail_memory(error, "the account of used tensors", n + 1);
}

void loader_finish(struct loader *l) {
    free(l->used);
    l->used = NULL;
}

void owned_vectors_free(struct owned_vectors *owned) {
    for (size_t i = 0; i < owned->count; i++) {
        free(owned->blocks[i]);
    }
    free(owned->blocks);
    *owned = (struct owned_vectors){0};
}

static candid_status own(struct owned_vectors *owned, size_t n, float **out, candid_error *error) {
    float **blocks = realloc(owned->blocks, (owned->count + 1) * sizeof *blocks);
    if (!blocks) {
        return fail_memory(error, "the list of widened vectors", (owned->count + 1) * sizeof *blocks);
    }
    owned->blocks = blocks;
    float *block = malloc(n * sizeof *block);
    if (!block) {
        return fail_memory(error, "a widened vector", n * sizeof *block);
    }
    owned->blocks[owned->count++] = block;
    *out = block;
    return CANDID_OK;
}

const char *tensor_name(char buffer[TENSOR_NAME], const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(buffer, TENSOR_NAME, format, args);
    va_end(args);
    return buffer;
}

/* ---- tensors ---- */

candid_status loader_tensor(struct loader *l, const char *name, const struct tensor **out) {
    const struct tensor *t = gguf_find_tensor(l->gguf, name);
    if (!t) {
        return fail(l->error, CANDID_ERROR_FORMAT, "%s: tensor %s: expected it to be present, found none of this name",
                    gguf_path(l->gguf), name);
    }
    l->used[t - gguf_tensor_at(l->gguf, 0)] = true;
    *out = t;
    return CANDID_OK;
}

/* "[64, 512]"; n_out 0 is written "any". */
static const char *shape_text(char buffer[96], int n_dims, const int64_t *ne) {
    size_t n = 0;
    for (int d = 0; d < n_dims; d++) {
        const char *before = d ? ", " : "[";
        const int wrote = ne[d] ? snprintf(buffer + n, 96 - n, "%s%" PRId64, before, ne[d])
                                : snprintf(buffer + n, 96 - n, "%sany", before);
        n += (size_t)wrote;
    }
    snprintf(buffer + n, 96 - n, "]");
    return buffer;
}

const char *loader_tensor_label(const struct tensor *t) {
    return t->origin ? t->origin : t->name;
}

candid_status loader_check_shape(const struct loader *l, const struct tensor *t, int n_dims, const int64_t *ne) {
    bool good = t->n_dims == n_dims;
    for (int d = 0; d < n_dims && good; d++) {
        good = ne[d] == 0 || t->ne[d] == ne[d];
    }
    if (good) {
        return CANDID_OK;
    }
    char expected[96], found[96];
    return fail(l->error, CANDID_ERROR_FORMAT, "%s: tensor %s: expected shape %s, found %s", gguf_path(l->gguf),
                loader_tensor_label(t), shape_text(expected, n_dims, ne), shape_text(found, t->n_dims, t->ne));
}

candid_status loader_matrix(struct loader *l, const char *name, int n_in, int n_out, struct matrix *out) {
    const struct tensor *t = NULL;
    TRY(loader_tensor(l, name, &t));
    TRY(loader_check_shape(l, t, 2, (const int64_t[]){n_in, n_out}));
    if (t->ne[1] > INT32_MAX) {
        return fail(l->error, CANDID_ERROR_UNSUPPORTED,
                    "%s: tensor %s: expected at most 2147483647 rows, found %" PRId64, gguf_path(l->gguf), name,
                    t->ne[1]);
    }
    *out = (struct matrix){.type = t->type, .n_out = (int)t->ne[1], .n_in = n_in, .data = t->data};
    return CANDID_OK;
}

candid_status loader_floats(struct loader *l, const char *name, int n_dims, const int64_t *ne, const float **out) {
    const struct tensor *t = NULL;
    TRY(loader_tensor(l, name, &t));
    TRY(loader_check_shape(l, t, n_dims, ne));
    if (t->type == TYPE_F32) {
        *out = t->data;
        return CANDID_OK;
    }
    if (t->type != TYPE_F16 && t->type != TYPE_BF16) {
        return fail(l->error, CANDID_ERROR_UNSUPPORTED, "%s: tensor %s: expected type F32, F16 or BF16, found %s",
                    gguf_path(l->gguf), loader_tensor_label(t), quant_type_name(t->type));
    }
    const size_t n = t->size / quant_block_bytes(t->type);
    float *wide = NULL;
    TRY(own(l->owned, n, &wide, l->error));
    quant_dequantize(t->type, t->data, wide, (int64_t)n);
    *out = wide;
    return CANDID_OK;
}

candid_status loader_vector(struct loader *l, const char *name, int n, const float **out) {
    return loader_floats(l, name, 1, (const int64_t[]){n}, out);
}

candid_status loader_refuse_unused(const struct loader *l, const char *const *prefixes, size_t n,
                                   bool (*harmless)(const char *name), const char *network) {
    for (size_t i = 0; i < gguf_tensor_count(l->gguf); i++) {
        const char *name = gguf_tensor_at(l->gguf, i)->name;
        bool ours = false;
        for (size_t p = 0; p < n; p++) {
            ours |= strncmp(name, prefixes[p], strlen(prefixes[p])) == 0;
        }
        if (ours && !l->used[i] && !harmless(name)) {
            struct printable text;
            return fail(l->error, CANDID_ERROR_UNSUPPORTED,
                        "%s: tensor %s: expected only the tensors of %s, found this "
                        "one besides",
                        gguf_path(l->gguf), printable_string(&text, name), network);
        }
    }
    return CANDID_OK;
}

/* ---- hyperparameters ---- */

candid_status loader_int(const struct loader *l, const char *key, int max, int *out) {
    int64_t value = 0;
    TRY(gguf_require_i64(l->gguf, key, 1, max, &value, l->error));
    *out = (int)value;
    return CANDID_OK;
}

candid_status loader_float(const struct loader *l, const char *key, float min, float max, bool required, float *out) {
    if (!gguf_has_key(l->gguf, key)) {
        return required ? fail(l->error, CANDID_ERROR_FORMAT,
                               "%s: key %s: expected a number from %g to %g, found no such key", gguf_path(l->gguf),
                               key, (double)min, (double)max)
                        : CANDID_OK;
    }
    float value = 0;
    TRY(gguf_get_f32(l->gguf, key, &value, l->error));
    if (!(value >= min && value <= max)) { /* NaN too */
        return fail(l->error, CANDID_ERROR_FORMAT, "%s: key %s: expected a number from %g to %g, found %g",
                    gguf_path(l->gguf), key, (double)min, (double)max, (double)value);
    }
    *out = value;
    return CANDID_OK;
}

const char *loader_found(const struct loader *l, const char *key, char buffer[FOUND_TEXT]) {
    buffer[0] = '\0';
    for (size_t i = 0; i < gguf_key_count(l->gguf); i++) {
        if (strcmp(gguf_key_at(l->gguf, i), key) == 0) {
            gguf_describe_value(l->gguf, i, buffer, FOUND_TEXT);
        }
    }
    return buffer;
}

candid_status loader_architecture(const struct loader *l, const char *wanted, const char *other) {
    const char *architecture = NULL;
    TRY(gguf_get_string(l->gguf, "general.architecture", &architecture, l->error));
    if (!architecture) {
        return fail(l->error, CANDID_ERROR_FORMAT, "%s: key general.architecture: expected \"%s\", found no such key",
                    gguf_path(l->gguf), wanted);
    }
    if (strcmp(architecture, wanted) != 0 && (!other || strcmp(architecture, other) != 0)) {
        char found[FOUND_TEXT];
        return fail(l->error, CANDID_ERROR_UNSUPPORTED, "%s: key general.architecture: expected \"%s\", found %s",
                    gguf_path(l->gguf), wanted, loader_found(l, "general.architecture", found));
    }
    return CANDID_OK;
}
