/* GGUF metadata under construction. */
#include "model/gguf_keys.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "model/gguf_internal.h"

void gguf_keys_free(struct gguf_keys *k) {
    free(k->data);
    *k = (struct gguf_keys){0};
}

static void put(struct gguf_keys *k, const void *bytes, size_t size) {
    if (size > k->capacity - k->size && !k->out_of_memory) {
        const size_t capacity = 2 * (k->size + size) + 4096;
        uint8_t *grown = realloc(k->data, capacity);
        k->out_of_memory = !grown;
        k->data = grown ? grown : k->data;
        k->capacity = grown ? capacity : k->capacity;
    }
    if (!k->out_of_memory && size > 0) {
        memcpy(k->data + k->size, bytes, size);
        k->size += size;
    }
}

static void put_u32(struct gguf_keys *k, uint32_t value) {
    put(k, &value, sizeof value);
}

static void put_u64(struct gguf_keys *k, uint64_t value) {
    put(k, &value, sizeof value);
}

static void begin(struct gguf_keys *k, const char *key, enum gguf_value_type type) {
    gguf_unset(k, key);
    gguf_add_string(k, key, strlen(key));
    put_u32(k, type);
    k->count++;
}

void gguf_set_u32(struct gguf_keys *k, const char *key, uint32_t value) {
    begin(k, key, GGUF_U32);
    put_u32(k, value);
}

void gguf_set_i32(struct gguf_keys *k, const char *key, int32_t value) {
    begin(k, key, GGUF_I32);
    put(k, &value, sizeof value);
}

void gguf_set_f32(struct gguf_keys *k, const char *key, float value) {
    begin(k, key, GGUF_F32);
    put(k, &value, sizeof value);
}

void gguf_set_bool(struct gguf_keys *k, const char *key, bool value) {
    begin(k, key, GGUF_BOOL);
    put(k, &(uint8_t){value}, 1);
}

void gguf_set_string(struct gguf_keys *k, const char *key, const char *value) {
    begin(k, key, GGUF_STRING);
    gguf_add_string(k, value, strlen(value));
}

static void set_array(struct gguf_keys *k, const char *key, enum gguf_value_type element, const void *values, size_t n,
                      size_t size) {
    begin(k, key, GGUF_ARRAY);
    put_u32(k, element);
    put_u64(k, n);
    put(k, values, n * size);
}

void gguf_set_f32_array(struct gguf_keys *k, const char *key, const float *values, size_t n) {
    set_array(k, key, GGUF_F32, values, n, sizeof *values);
}

void gguf_set_i32_array(struct gguf_keys *k, const char *key, const int32_t *values, size_t n) {
    set_array(k, key, GGUF_I32, values, n, sizeof *values);
}

void gguf_begin_strings(struct gguf_keys *k, const char *key, uint64_t n) {
    begin(k, key, GGUF_ARRAY);
    put_u32(k, GGUF_STRING);
    put_u64(k, n);
}

void gguf_add_string(struct gguf_keys *k, const char *bytes, size_t size) {
    put_u64(k, size);
    put(k, bytes, size);
}

void gguf_set_copy(struct gguf_keys *k, const struct gguf *from, size_t i) {
    const struct gguf_value *v = &from->values[i];
    begin(k, v->key, v->type);
    if (v->type == GGUF_STRING) {
        gguf_add_string(k, (const char *)v->data, (size_t)v->count);
        return;
    }
    if (v->type != GGUF_ARRAY) {
        put(k, v->data, gguf_value_size(v->type));
        return;
    }
    put_u32(k, v->element);
    put_u64(k, v->count);
    if (v->element != GGUF_STRING) {
        put(k, v->data, (size_t)v->count * gguf_value_size(v->element));
        return;
    }
    for (size_t s = 0; s < v->count; s++) {
        size_t size = 0;
        const char *bytes = gguf_array_string(from, v->key, s, &size);
        gguf_add_string(k, bytes, size);
    }
}

/* ---- walking what was written (trusted, our own) ---- */

static uint32_t get_u32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint64_t get_u64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Bytes of the pair at p. */
static size_t pair_size(const uint8_t *p) {
    size_t at = 8 + (size_t)get_u64(p);
    const enum gguf_value_type type = (enum gguf_value_type)get_u32(p + at);
    at += 4;
    if (type == GGUF_STRING) {
        return at + 8 + (size_t)get_u64(p + at);
    }
    if (type != GGUF_ARRAY) {
        return at + gguf_value_size(type);
    }
    const enum gguf_value_type element = (enum gguf_value_type)get_u32(p + at);
    const uint64_t n = get_u64(p + at + 4);
    at += 12;
    if (element != GGUF_STRING) {
        return at + (size_t)n * gguf_value_size(element);
    }
    for (uint64_t i = 0; i < n; i++) {
        at += 8 + (size_t)get_u64(p + at);
    }
    return at;
}

void gguf_unset(struct gguf_keys *k, const char *key) {
    const size_t length = strlen(key);
    for (size_t at = 0; at < k->size && !k->out_of_memory;) {
        const size_t size = pair_size(k->data + at);
        if (get_u64(k->data + at) == length && memcmp(k->data + at + 8, key, length) == 0) {
            memmove(k->data + at, k->data + at + size, k->size - at - size);
            k->size -= size;
            k->count--;
            return;
        }
        at += size;
    }
}

candid_status gguf_keys_finish(struct gguf_keys *k, uint64_t n_tensors, struct mapped_file *out, candid_error *error) {
    struct {
        char magic[4];
        uint32_t version;
        uint64_t n_tensors, n_keys;
    } header = {{'G', 'G', 'U', 'F'}, 3, n_tensors, k->count};
    _Static_assert(sizeof header == 24, "GGUF header");
    const size_t size = sizeof header + k->size;
    uint8_t *data = k->out_of_memory ? NULL : aligned_alloc(32, (size + 31) / 32 * 32);
    if (!data) {
        gguf_keys_free(k);
        return fail_memory(error, "the metadata of a model", size);
    }
    memcpy(data, &header, sizeof header);
    memcpy(data + sizeof header, k->data, k->size);
    gguf_keys_free(k);
    *out = (struct mapped_file){data, size};
    return CANDID_OK;
}
