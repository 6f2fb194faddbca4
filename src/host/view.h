/* Tensors of a host: checked, and read and written as f32. */
#ifndef CANDID_HOST_VIEW_H
#define CANDID_HOST_VIEW_H

#include "candid/plugin.h"

/* Whether a view can be read at all and has n_dims dimensions. *out: what the library knows of it, the fields that the
 * host's struct has. what: for messages, such as "attention.probs of layer 3". */
candid_status view_read(const candid_view *given, int n_dims, const char *what, candid_view *out, candid_error *error);

/* Element number `offset` behind data, n elements `stride` apart, as f32. */
void view_get(const candid_view *view, int64_t offset, int64_t stride, int n, float *out);
void view_put(const candid_view *view, int64_t offset, int64_t stride, int n, const float *values);

/* The same place as f32 memory where n elements lie there as they are, else NULL. */
float *view_direct(const candid_view *view, int64_t offset, int64_t stride);

/* Whether one of n values is no number. */
bool any_nan(const float *x, size_t n);

#endif
