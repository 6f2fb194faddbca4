/*
 * Builds the metadata of a GGUF file: key/value pairs in the format's encoding. Used to write files and to present
 * models of other formats in GGUF's terms.
 *
 * Start from {0}. Running out of memory is remembered and reported by gguf_keys_finish. Setting a key again replaces
 * it.
 */
#ifndef CANDID_MODEL_GGUF_KEYS_H
#define CANDID_MODEL_GGUF_KEYS_H

#include "core/file.h"
#include "model/gguf.h"

struct gguf_keys {
    uint8_t *data; /* encoded pairs */
    size_t size, capacity;
    uint64_t count;
    bool out_of_memory;
};

void gguf_keys_free(struct gguf_keys *k);

void gguf_set_u32(struct gguf_keys *k, const char *key, uint32_t value);
void gguf_set_i32(struct gguf_keys *k, const char *key, int32_t value);
void gguf_set_f32(struct gguf_keys *k, const char *key, float value);
void gguf_set_bool(struct gguf_keys *k, const char *key, bool value);
void gguf_set_string(struct gguf_keys *k, const char *key, const char *value);
void gguf_set_f32_array(struct gguf_keys *k, const char *key, const float *values, size_t n);
void gguf_set_i32_array(struct gguf_keys *k, const char *key, const int32_t *values, size_t n);

/* An array of n strings: begin, then add n times. */
void gguf_begin_strings(struct gguf_keys *k, const char *key, uint64_t n);
void gguf_add_string(struct gguf_keys *k, const char *bytes, size_t size);

/* Copies key i of an open file. */
void gguf_set_copy(struct gguf_keys *k, const struct gguf *from, size_t i);

/* Removes a key, if it is there. */
void gguf_unset(struct gguf_keys *k, const char *key);

/*
 * Header (magic, version 3, counts) and pairs as one malloc'd block, 32-byte aligned; k is left empty. Tensor infos for
 * n_tensors have to follow. Owned by the caller: free.
 */
candid_status gguf_keys_finish(struct gguf_keys *k, uint64_t n_tensors, struct mapped_file *out, candid_error *error);

#endif
