/*
 * Reader of safetensors files (github.com/huggingface/safetensors): u64 header length, a JSON header
 * {"name": {"dtype", "shape", "data_offsets": [begin, end]}, …, "__metadata__": {…}}, data.
 *
 * Files are hostile. As the reference implementation demands, the tensors must cover the data section exactly: no
 * gaps, no overlap, nothing behind.
 */
#ifndef CANDID_MODEL_SAFETENSORS_H
#define CANDID_MODEL_SAFETENSORS_H

#include "core/file.h"
#include "model/gguf.h"

#define SAFETENSORS_MAX_DIMS 8

struct safetensors_tensor {
    const char *name;                    /* owned by the file */
    const char *dtype;                   /* as written, such as "BF16" */
    uint32_t type;                       /* enum quant_type for F32, F16 and BF16, otherwise SAFETENSORS_OTHER */
    int n_dims;                          /* 0..SAFETENSORS_MAX_DIMS */
    int64_t shape[SAFETENSORS_MAX_DIMS]; /* slowest dimension first; may hold zeros */
    const uint8_t *data;                 /* mapped; of any alignment */
    size_t size;                         /* bytes */
};
#define SAFETENSORS_OTHER UINT32_MAX

struct safetensors;

/* Maps and checks a file. *out is released by safetensors_close. */
candid_status safetensors_open(const char *path, struct safetensors **out, candid_error *error);
/* The same for `size` bytes at `data` (borrowed). */
candid_status safetensors_open_memory(const void *data, size_t size, const char *name, struct safetensors **out,
                                      candid_error *error);
void safetensors_close(struct safetensors *file);

const char *safetensors_path(const struct safetensors *file); /* for messages */
size_t safetensors_file_size(const struct safetensors *file);

/* Tensors sorted by name. */
size_t safetensors_count(const struct safetensors *file);
const struct safetensors_tensor *safetensors_at(const struct safetensors *file, size_t i);
const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name); /* or NULL */

#endif
