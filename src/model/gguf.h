/*
 * GGUF v2/v3 reader over mapped memory. Models of other formats are presented in its terms, see gguf_assemble.
 *
 * Files are hostile: every length is checked before multiplication, every offset before use. What the reader
 * accepts, the rest of the program may trust: keys and tensor names are unique, tensors are of a supported type, lie
 * inside the file without overlap, are aligned to 8 bytes or more, and have a row length divisible by their block size.
 */
#ifndef CANDID_MODEL_GGUF_H
#define CANDID_MODEL_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "candid/candid.h"
#include "model/quant.h"

/* A tensor in the file; the data is mapped memory owned by the gguf. */
struct tensor {
    const char *name; /* NUL-terminated, owned by the gguf */
    uint32_t type;    /* enum quant_type: files with tensors of other types are refused */
    int n_dims;       /* 1..4 */
    int64_t ne[4];    /* ne[0] = row length = fastest dimension; 1 beyond n_dims */
    const void *data;
    size_t size;        /* bytes */
    const char *origin; /* the name in the file it comes from, if that is another (Hugging Face); else NULL */
};

struct gguf;

/* Maps and parses a file. *out is released by gguf_close. */
candid_status gguf_open(const char *path, struct gguf **out, candid_error *error);

/* Parses `size` bytes at `data` (borrowed, 32-byte aligned). `name` stands for the file name in errors. */
candid_status gguf_open_memory(const void *data, size_t size, const char *name, struct gguf **out, candid_error *error);
void gguf_close(struct gguf *gguf);

/* Whatever holds the data of an assembled model. */
struct gguf_owner {
    void *what;
    void (*release)(void *what);
};

/*
 * A model that is not a GGUF file, in its terms: `keys` are used up, names and table of the tensors are copied, their
 * data stay where they are and belong to `owner`, which is released by gguf_close, or here on failure. `path` stands
 * for the model in messages; file_size: bytes of all files behind it.
 */
struct gguf_keys;
candid_status gguf_assemble(const char *path, struct gguf_keys *keys, const struct tensor *tensors, size_t n_tensors,
                            size_t file_size, struct gguf_owner owner, struct gguf **out, candid_error *error);
bool gguf_is_assembled(const struct gguf *gguf);

/* For messages: the path as given, cut at the left when very long, control characters replaced. */
const char *gguf_path(const struct gguf *gguf);
size_t gguf_file_size(const struct gguf *gguf); /* bytes, all files of an assembled model */
uint32_t gguf_version(const struct gguf *gguf);

/* ---- tensors, in file order ---- */
size_t gguf_tensor_count(const struct gguf *gguf);
const struct tensor *gguf_tensor_at(const struct gguf *gguf, size_t i);
const struct tensor *gguf_find_tensor(const struct gguf *gguf, const char *name); /* NULL if absent */

/* ---- keys ---- */
enum gguf_value_type {
    GGUF_U8 = 0,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
};

size_t gguf_key_count(const struct gguf *gguf);
const char *gguf_key_at(const struct gguf *gguf, size_t i);
bool gguf_has_key(const struct gguf *gguf, const char *key);

/* Writes a one-line description of value i such as `u32 4096`, `string "llama"` or `array of 32000 string` into
 * buffer (NUL-terminated, cut with "…" when longer). */
void gguf_describe_value(const struct gguf *gguf, size_t i, char *buffer, size_t size);

/* Typed access. Absent key: *out is left alone and CANDID_OK returned, so the caller sets the default first.
 * A present key of another kind or out of range is a CANDID_ERROR_FORMAT naming file, key, expected, found.
 * Any integer type is accepted for integers, any float type (or integer) for floats. */
candid_status gguf_get_i64(const struct gguf *gguf, const char *key, int64_t min, int64_t max, int64_t *out,
                           candid_error *error);
candid_status gguf_get_f32(const struct gguf *gguf, const char *key, float *out, candid_error *error);
candid_status gguf_get_bool(const struct gguf *gguf, const char *key, bool *out, candid_error *error);
/* *out is NUL-terminated and owned by the gguf. Strings with an embedded NUL are a format error. */
candid_status gguf_get_string(const struct gguf *gguf, const char *key, const char **out, candid_error *error);

/* The same, but an absent key is a CANDID_ERROR_FORMAT. */
candid_status gguf_require_i64(const struct gguf *gguf, const char *key, int64_t min, int64_t max, int64_t *out,
                               candid_error *error);

/* Arrays. count 0 and CANDID_OK when the key is absent. Elements are read one by one. */
candid_status gguf_get_array(const struct gguf *gguf, const char *key, enum gguf_value_type *element_type,
                             size_t *count, candid_error *error);
/* Element i of an array key of any integer/bool or float type; the key and index must be valid. */
int64_t gguf_array_i64(const struct gguf *gguf, const char *key, size_t i);
float gguf_array_f32(const struct gguf *gguf, const char *key, size_t i);
/* Element i of a string array: pointer into the mapped file, NOT NUL-terminated; length in *size. O(1). */
const char *gguf_array_string(const struct gguf *gguf, const char *key, size_t i, size_t *size);

#endif
