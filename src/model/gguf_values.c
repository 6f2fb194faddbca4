/* GGUF reader: typed access to keys, and words for values in messages. */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/status.h"
#include "core/text.h"
#include "model/gguf_internal.h"

static const char *const type_names[] = {
    [GGUF_U8] = "u8",   [GGUF_I8] = "i8",   [GGUF_U16] = "u16",   [GGUF_I16] = "i16",       [GGUF_U32] = "u32",
    [GGUF_I32] = "i32", [GGUF_F32] = "f32", [GGUF_BOOL] = "bool", [GGUF_STRING] = "string", [GGUF_ARRAY] = "array",
    [GGUF_U64] = "u64", [GGUF_I64] = "i64", [GGUF_F64] = "f64",
};

size_t gguf_value_size(enum gguf_value_type type) {
    switch (type) {
    case GGUF_U8:
    case GGUF_I8:
    case GGUF_BOOL: return 1;
    case GGUF_U16:
    case GGUF_I16: return 2;
    case GGUF_U32:
    case GGUF_I32:
    case GGUF_F32: return 4;
    case GGUF_U64:
    case GGUF_I64:
    case GGUF_F64: return 8;
    case GGUF_STRING:
    case GGUF_ARRAY: break;
    }
    return 0;
}

static bool is_integer(enum gguf_value_type type) {
    return gguf_value_size(type) != 0 && type != GGUF_F32 && type != GGUF_F64 && type != GGUF_BOOL;
}

static bool is_float(enum gguf_value_type type) {
    return type == GGUF_F32 || type == GGUF_F64;
}

/* An integer or bool of any width; u64 beyond the range of i64 gives INT64_MAX. */
static int64_t load_i64(enum gguf_value_type type, const uint8_t *p) {
#define LOAD(ctype)                                                                                                    \
    {                                                                                                                  \
        ctype value;                                                                                                   \
        memcpy(&value, p, sizeof value);                                                                               \
        return (int64_t)value;                                                                                         \
    }
    switch (type) {
    case GGUF_U8:
    case GGUF_BOOL: LOAD(uint8_t)
    case GGUF_I8: LOAD(int8_t)
    case GGUF_U16: LOAD(uint16_t)
    case GGUF_I16: LOAD(int16_t)
    case GGUF_U32: LOAD(uint32_t)
    case GGUF_I32: LOAD(int32_t)
    case GGUF_I64: LOAD(int64_t)
    case GGUF_U64: {
        uint64_t value;
        memcpy(&value, p, sizeof value);
        return value > INT64_MAX ? INT64_MAX : (int64_t)value;
    }
    default: return 0;
    }
#undef LOAD
}

static double load_f64(enum gguf_value_type type, const uint8_t *p) {
    if (type == GGUF_F32) {
        float value;
        memcpy(&value, p, sizeof value);
        return (double)value;
    }
    if (type == GGUF_F64) {
        double value;
        memcpy(&value, p, sizeof value);
        return value;
    }
    return (double)load_i64(type, p);
}

/* Converting a double beyond the range of float is undefined in C. */
static float narrow(double value) {
    return value > (double)FLT_MAX ? INFINITY : value < -(double)FLT_MAX ? -INFINITY : (float)value;
}

/* ---- words ---- */

static void describe(const struct gguf_value *v, char *buffer, size_t size) {
    const size_t limit = 160; /* of the quoted text, before it is cut to `size` */
    char words[256];
    if (v->type == GGUF_STRING) {
        char text[200];
        text_print(text, limit, (const char *)v->data, (size_t)v->count);
        snprintf(words, sizeof words, "string \"%s\"", text);
    } else if (v->type == GGUF_ARRAY) {
        snprintf(words, sizeof words, "array of %" PRIu64 " %s", v->count, type_names[v->element]);
    } else if (v->type == GGUF_BOOL) {
        snprintf(words, sizeof words, "bool %s", v->data[0] ? "true" : "false");
    } else if (is_float(v->type)) {
        snprintf(words, sizeof words, "%s %g", type_names[v->type], load_f64(v->type, v->data));
    } else if (v->type == GGUF_U64) {
        uint64_t value;
        memcpy(&value, v->data, sizeof value);
        snprintf(words, sizeof words, "u64 %" PRIu64, value);
    } else {
        snprintf(words, sizeof words, "%s %" PRId64, type_names[v->type], load_i64(v->type, v->data));
    }
    if (size >= 4) {
        text_print(buffer, size, words, strlen(words));
    } else if (size > 0) {
        buffer[0] = '\0';
    }
}

void gguf_describe_value(const struct gguf *g, size_t i, char *buffer, size_t size) {
    if (i < g->n_values) {
        describe(&g->values[i], buffer, size);
    } else if (size > 0) {
        buffer[0] = '\0';
    }
}

/* ---- access ---- */

static const struct gguf_value *find(const struct gguf *g, const char *key) {
    const size_t i = gguf_find_name(g->value_names, g->n_values, key);
    return i == SIZE_MAX ? NULL : &g->values[i];
}

static candid_status wrong_value(const struct gguf *g, const struct gguf_value *v, const char *expected,
                                 candid_error *error) {
    struct printable key;
    char found[128];
    describe(v, found, sizeof found);
    return fail(error, CANDID_ERROR_FORMAT, "%s: key %s: expected %s, found %s", g->path,
                printable_string(&key, v->key), expected, found);
}

size_t gguf_key_count(const struct gguf *g) {
    return g->n_values;
}

const char *gguf_key_at(const struct gguf *g, size_t i) {
    return i < g->n_values ? g->values[i].key : NULL;
}

bool gguf_has_key(const struct gguf *g, const char *key) {
    return find(g, key) != NULL;
}

candid_status gguf_get_i64(const struct gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                           candid_error *error) {
    const struct gguf_value *v = find(g, key);
    if (!v) {
        return CANDID_OK;
    }
    const int64_t value = is_integer(v->type) ? load_i64(v->type, v->data) : 0;
    const bool wrapped = v->type == GGUF_U64 && v->data[7] >= 0x80;
    if (!is_integer(v->type) || wrapped || value < min || value > max) {
        char expected[96];
        snprintf(expected, sizeof expected, "an integer from %" PRId64 " to %" PRId64, min, max);
        return wrong_value(g, v, expected, error);
    }
    *out = value;
    return CANDID_OK;
}

candid_status gguf_require_i64(const struct gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                               candid_error *error) {
    if (!find(g, key)) {
        return fail(error, CANDID_ERROR_FORMAT,
                    "%s: key %s: expected an integer from %" PRId64 " to %" PRId64 ", found no such key", g->path, key,
                    min, max);
    }
    return gguf_get_i64(g, key, min, max, out, error);
}

candid_status gguf_get_f32(const struct gguf *g, const char *key, float *out, candid_error *error) {
    const struct gguf_value *v = find(g, key);
    if (!v) {
        return CANDID_OK;
    }
    if (!is_float(v->type) && !is_integer(v->type)) {
        return wrong_value(g, v, "a number", error);
    }
    *out = narrow(load_f64(v->type, v->data));
    return CANDID_OK;
}

candid_status gguf_get_bool(const struct gguf *g, const char *key, bool *out, candid_error *error) {
    const struct gguf_value *v = find(g, key);
    if (!v) {
        return CANDID_OK;
    }
    if (v->type != GGUF_BOOL) {
        return wrong_value(g, v, "a bool", error);
    }
    *out = v->data[0] != 0;
    return CANDID_OK;
}

candid_status gguf_get_string(const struct gguf *g, const char *key, const char **out, candid_error *error) {
    const struct gguf_value *v = find(g, key);
    if (!v) {
        return CANDID_OK;
    }
    if (v->type != GGUF_STRING || !v->string) {
        return wrong_value(g, v, v->type == GGUF_STRING ? "a string without NUL bytes" : "a string", error);
    }
    *out = v->string;
    return CANDID_OK;
}

candid_status gguf_get_array(const struct gguf *g, const char *key, enum gguf_value_type *element_type, size_t *count,
                             candid_error *error) {
    const struct gguf_value *v = find(g, key);
    *count = 0;
    if (!v) {
        return CANDID_OK;
    }
    if (v->type != GGUF_ARRAY) {
        return wrong_value(g, v, "an array", error);
    }
    *element_type = v->element;
    *count = (size_t)v->count;
    return CANDID_OK;
}

int64_t gguf_array_i64(const struct gguf *g, const char *key, size_t i) {
    const struct gguf_value *v = find(g, key);
    const uint8_t *p = v->data + i * gguf_value_size(v->element);
    if (is_float(v->element)) { /* out of range or NaN: the nearest end, 0 */
        const double value = load_f64(v->element, p);
        return value >= 0x1p63 ? INT64_MAX : value < -0x1p63 ? INT64_MIN : value == value ? (int64_t)value : 0;
    }
    return load_i64(v->element, p);
}

float gguf_array_f32(const struct gguf *g, const char *key, size_t i) {
    const struct gguf_value *v = find(g, key);
    return narrow(load_f64(v->element, v->data + i * gguf_value_size(v->element)));
}

const char *gguf_array_string(const struct gguf *g, const char *key, size_t i, size_t *size) {
    const struct gguf_value *v = find(g, key);
    const uint8_t *p = g->data + v->offsets[i];
    uint64_t length;
    memcpy(&length, p, sizeof length);
    *size = (size_t)length;
    return (const char *)p + sizeof length;
}
