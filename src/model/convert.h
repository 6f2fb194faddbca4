/*
 * Writes models as GGUF files: conversion of Hugging Face directories, quantisation of GGUF files.
 *
 * The output gets its name only when it is complete: it is written as "NAME.partial", flushed to disk and renamed.
 */
#ifndef CANDID_MODEL_CONVERT_H
#define CANDID_MODEL_CONVERT_H

#include "core/log.h"
#include "model/gguf.h"

/* What to store matrices in. The mixed ones are llama.cpp's: attn_v and ffn_down of some layers and the output matrix
 * get Q6_K. */
enum convert_type {
    CONVERT_F32,
    CONVERT_F16,
    CONVERT_BF16,
    CONVERT_Q8_0,
    CONVERT_Q4_0,
    CONVERT_Q4_K_M,
    CONVERT_Q5_K_M,
    CONVERT_Q6_K,
};
/* "q4_k_m", any case. False: no such type. */
bool convert_type_named(const char *name, enum convert_type *out);

/* Which networks to write. */
enum convert_part { CONVERT_LANGUAGE, CONVERT_VISION, CONVERT_BOTH };

/* Called between chunks; `done` of `total` values are written. Return false to stop (CANDID_ERROR_CANCELLED). */
struct convert_progress {
    bool (*report)(void *user_data, uint64_t done, uint64_t total); /* may be NULL */
    void *user_data;
};

/*
 * Writes the part of `model` (a GGUF file, or a directory opened by hf_open) to `path`. Vectors and the image encoder's
 * small tensors are stored as F32; a matrix whose rows do not fit the blocks of the type as F16. Rows of attn_q and
 * attn_k from Hugging Face are permuted to GGUF's pairs. `path` must not be one of the model's files.
 */
candid_status convert_write(const struct gguf *model, enum convert_part part, enum convert_type type, const char *path,
                            const struct convert_progress *progress, candid_error *error);

/* Whether the model has such tensors. */
bool convert_has(const struct gguf *model, enum convert_part part);

#endif
