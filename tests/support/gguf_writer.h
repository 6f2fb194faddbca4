/*
 * Writes small GGUF files for tests: keys and tensors are collected in memory, the file is made at the end.
 *
 *     struct gguf_writer *w = gw_open("x.gguf");
 *     gw_str(w, "general.architecture", "llama");
 *     gw_tensor(w, "output_norm.weight", TYPE_F32, 1, (const int64_t[]){64}, data, 64 * 4);
 *     assert_int_equal(gw_close(w), 0);
 *
 * gw_skip leaves a key or tensor out that a later call would write. gw_take gives the file as bytes instead. Nothing is
 * checked, and some fields can be set to nonsense: tests of the reader need broken files. Independent of the library on
 * purpose. Little-endian hosts only.
 */
#ifndef CANDID_TESTS_GGUF_WRITER_H
#define CANDID_TESTS_GGUF_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct gw_bytes {
    uint8_t *data;
    size_t size, capacity;
};

struct gguf_writer {
    char *path;               /* NULL: memory only */
    uint32_t version;         /* 3; may be changed before gw_close */
    uint64_t alignment;       /* 32; what the writer pads to (write the key general.alignment yourself) */
    uint64_t n_kv, n_tensors; /* counted; may be changed to lie */
    bool pad_last;            /* pad after the last tensor too (true) */
    const char *skip[8];      /* names of keys and tensors that are not written */
    struct gw_bytes kv, info, data;
};

static inline void gw_put(struct gw_bytes *b, const void *bytes, size_t size) {
    if (b->size + size > b->capacity) {
        b->capacity = (b->size + size) * 2 + 256;
        b->data = realloc(b->data, b->capacity);
        if (!b->data) {
            abort();
        }
    }
    if (size) {
        memcpy(b->data + b->size, bytes, size);
    }
    b->size += size;
}

static inline void gw_put_zeros(struct gw_bytes *b, size_t size) {
    const uint8_t zero = 0;
    while (size--) {
        gw_put(b, &zero, 1);
    }
}

static inline void gw_put_u32(struct gw_bytes *b, uint32_t v) {
    gw_put(b, &v, sizeof v);
}

static inline void gw_put_u64(struct gw_bytes *b, uint64_t v) {
    gw_put(b, &v, sizeof v);
}

static inline void gw_put_string(struct gw_bytes *b, const char *s) {
    gw_put_u64(b, strlen(s));
    gw_put(b, s, strlen(s));
}

/* path may be NULL when the bytes are wanted (gw_take). */
static inline struct gguf_writer *gw_open(const char *path) {
    struct gguf_writer *w = calloc(1, sizeof *w);
    if (!w) {
        abort();
    }
    w->path = path ? strdup(path) : NULL;
    w->version = 3;
    w->alignment = 32;
    w->pad_last = true;
    return w;
}

/* ---- keys ---- */

static inline bool gw_skipped(const struct gguf_writer *w, const char *name) {
    for (size_t i = 0; i < sizeof w->skip / sizeof *w->skip; i++) {
        if (w->skip[i] && strcmp(w->skip[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* From now on nothing of this name is written; gw_skip(w, NULL) ends that for all names. At most 8. */
static inline void gw_skip(struct gguf_writer *w, const char *name) {
    for (size_t i = 0; i < sizeof w->skip / sizeof *w->skip; i++) {
        if (!name) {
            w->skip[i] = NULL;
        } else if (!w->skip[i]) {
            w->skip[i] = name;
            return;
        }
    }
}

/* A value as raw bytes; type as in the format: u8 0, i8 1, u16 2, i16 3, u32 4, i32 5, f32 6, bool 7, string 8,
 * array 9, u64 10, i64 11, f64 12. */
static inline void gw_raw(struct gguf_writer *w, const char *key, uint32_t type, const void *value, size_t size) {
    if (gw_skipped(w, key)) {
        return;
    }
    gw_put_string(&w->kv, key);
    gw_put_u32(&w->kv, type);
    gw_put(&w->kv, value, size);
    w->n_kv++;
}

static inline void gw_u32(struct gguf_writer *w, const char *key, uint32_t v) {
    gw_raw(w, key, 4, &v, sizeof v);
}

static inline void gw_i32(struct gguf_writer *w, const char *key, int32_t v) {
    gw_raw(w, key, 5, &v, sizeof v);
}

static inline void gw_f32(struct gguf_writer *w, const char *key, float v) {
    gw_raw(w, key, 6, &v, sizeof v);
}

static inline void gw_u64(struct gguf_writer *w, const char *key, uint64_t v) {
    gw_raw(w, key, 10, &v, sizeof v);
}

static inline void gw_bool(struct gguf_writer *w, const char *key, bool v) {
    const uint8_t byte = v;
    gw_raw(w, key, 7, &byte, 1);
}

static inline void gw_str(struct gguf_writer *w, const char *key, const char *v) {
    struct gw_bytes value = {0};
    gw_put_string(&value, v);
    gw_raw(w, key, 8, value.data, value.size);
    free(value.data);
}

/* An array header for which the caller appends `count` elements to w->kv. Never skipped. */
static inline void gw_arr(struct gguf_writer *w, const char *key, uint32_t element_type, uint64_t count) {
    gw_put_string(&w->kv, key);
    gw_put_u32(&w->kv, 9);
    gw_put_u32(&w->kv, element_type);
    gw_put_u64(&w->kv, count);
    w->n_kv++;
}

/* An array of n elements that take `size` bytes in all. */
static inline void gw_arr_raw(struct gguf_writer *w, const char *key, uint32_t element_type, size_t n,
                              const void *elements, size_t size) {
    if (!gw_skipped(w, key)) {
        gw_arr(w, key, element_type, n);
        gw_put(&w->kv, elements, size);
    }
}

static inline void gw_arr_str(struct gguf_writer *w, const char *key, const char *const *v, size_t n) {
    struct gw_bytes elements = {0};
    for (size_t i = 0; i < n; i++) {
        gw_put_string(&elements, v[i]);
    }
    gw_arr_raw(w, key, 8, n, elements.data, elements.size);
    free(elements.data);
}

static inline void gw_arr_f32(struct gguf_writer *w, const char *key, const float *v, size_t n) {
    gw_arr_raw(w, key, 6, n, v, n * sizeof *v);
}

static inline void gw_arr_i32(struct gguf_writer *w, const char *key, const int32_t *v, size_t n) {
    gw_arr_raw(w, key, 5, n, v, n * sizeof *v);
}

/* ---- tensors ---- */

static inline void gw_pad(struct gw_bytes *b, uint64_t alignment) {
    gw_put_zeros(b, (size_t)((alignment - b->size % alignment) % alignment));
}

/* A tensor info with any offset and no data. */
static inline void gw_tensor_info(struct gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims,
                                  const int64_t *ne, uint64_t offset) {
    gw_put_string(&w->info, name);
    gw_put_u32(&w->info, n_dims);
    for (uint32_t d = 0; d < n_dims; d++) {
        gw_put_u64(&w->info, (uint64_t)ne[d]);
    }
    gw_put_u32(&w->info, type);
    gw_put_u64(&w->info, offset);
    w->n_tensors++;
}

/* ne[0] is the row length (fastest dimension); data of `size` bytes is copied. */
static inline void gw_tensor(struct gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims, const int64_t *ne,
                             const void *data, size_t size) {
    if (gw_skipped(w, name)) {
        return;
    }
    gw_pad(&w->data, w->alignment);
    gw_tensor_info(w, name, type, n_dims, ne, w->data.size);
    gw_put(&w->data, data, size);
}

/* ---- the end ---- */

static inline void gw_free(struct gguf_writer *w) {
    free(w->path);
    free(w->kv.data);
    free(w->info.data);
    free(w->data.data);
    free(w);
}

/* The whole file as 64-byte aligned memory, released with free(); frees the writer. */
static inline uint8_t *gw_take(struct gguf_writer *w, size_t *size) {
    struct gw_bytes all = {0};
    gw_put(&all, "GGUF", 4);
    gw_put_u32(&all, w->version);
    gw_put_u64(&all, w->n_tensors);
    gw_put_u64(&all, w->n_kv);
    gw_put(&all, w->kv.data, w->kv.size);
    gw_put(&all, w->info.data, w->info.size);
    gw_pad(&all, w->alignment);
    if (w->pad_last) {
        gw_pad(&w->data, w->alignment);
    }
    gw_put(&all, w->data.data, w->data.size);
    uint8_t *out = aligned_alloc(64, (all.size + 64) / 64 * 64);
    if (!out) {
        abort();
    }
    memcpy(out, all.data, all.size);
    *size = all.size;
    free(all.data);
    gw_free(w);
    return out;
}

/* Writes the file and frees the writer; 0, or -1 when the file cannot be written. */
static inline int gw_close(struct gguf_writer *w) {
    char *path = w->path;
    w->path = NULL;
    size_t size;
    uint8_t *bytes = gw_take(w, &size);
    FILE *f = path ? fopen(path, "wb") : NULL;
    bool good = f && fwrite(bytes, 1, size, f) == size;
    if (f && fclose(f) != 0) {
        good = false;
    }
    free(bytes);
    free(path);
    return good ? 0 : -1;
}

#endif
