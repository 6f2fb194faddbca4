/* What the two loaders share: looking up tensors and hyperparameters with checks, and an account of what was used. */
#ifndef CANDID_MODEL_WEIGHTS_INTERNAL_H
#define CANDID_MODEL_WEIGHTS_INTERNAL_H

#include "model/weights.h"

/* One loading in progress. */
struct loader {
    const struct gguf *gguf;
    bool *used; /* [tensor count] */
    struct owned_vectors *owned;
    candid_error *error;
};

candid_status loader_init(struct loader *l, const struct gguf *gguf, struct owned_vectors *owned, candid_error *error);
void loader_finish(struct loader *l);
void owned_vectors_free(struct owned_vectors *owned);

/* Formats a tensor name into buffer[64] and returns it; GGUF names have at most 63 bytes. */
#define TENSOR_NAME 64
const char *tensor_name(char buffer[TENSOR_NAME], const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The tensor, marked as used; a missing one is a CANDID_ERROR_FORMAT. */
candid_status loader_tensor(struct loader *l, const char *name, const struct tensor **out);

/* What messages call it: the name in the file it comes from. */
const char *loader_tensor_label(const struct tensor *t);

/* Checks that t has exactly the n_dims dimensions ne. */
candid_status loader_check_shape(const struct loader *l, const struct tensor *t, int n_dims, const int64_t *ne);

/* A 2-D tensor with ne = [n_in, n_out]. n_out 0: any number of rows. */
candid_status loader_matrix(struct loader *l, const char *name, int n_in, int n_out, struct matrix *out);

/* Values of an F32, F16 or BF16 tensor of the given shape as f32: in place, or widened into l->owned. */
candid_status loader_floats(struct loader *l, const char *name, int n_dims, const int64_t *ne, const float **out);
candid_status loader_vector(struct loader *l, const char *name, int n, const float **out);

/* CANDID_ERROR_UNSUPPORTED naming the first tensor that begins with one of the n prefixes and was neither used nor is
 * `harmless`. `network` says in the message what the file should be. */
candid_status loader_refuse_unused(const struct loader *l, const char *const *prefixes, size_t n,
                                   bool (*harmless)(const char *name), const char *network);

/* Hyperparameters. Integers are required; *out is left alone for an absent optional float. */
candid_status loader_int(const struct loader *l, const char *key, int max, int *out);
/* Finite and within min..max. */
candid_status loader_float(const struct loader *l, const char *key, float min, float max, bool required, float *out);
/* The value of a present key in words, for messages: `string "x"`. Returns buffer. */
#define FOUND_TEXT 100
const char *loader_found(const struct loader *l, const char *key, char buffer[FOUND_TEXT]);
/* general.architecture must be `wanted` or `other` (may be NULL). */
candid_status loader_architecture(const struct loader *l, const char *wanted, const char *other);

#endif
