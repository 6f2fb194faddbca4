/*
 * CUDA backend: the op table on one NVIDIA GPU. Each backend has a stream of its own; ops are queued on it and return
 * before they are done, except those that hand results to the host. Ops that cannot return a status keep the first
 * failure for the next one that can; ops->finish tells of it at the end of a pass.
 *
 * Host memory that ops are given (weights, rows, scales) is copied before they return or, for weights, once: see
 * cuda_weights_create.
 */
#ifndef CANDID_BACKEND_CUDA_CUDA_H
#define CANDID_BACKEND_CUDA_CUDA_H

#include "backend/backend.h"
#include "backend/device.h"

/* Number of usable GPUs. 0 and a sentence in *error when there is no driver, too old a driver or no GPU. */
int cuda_device_count(candid_error *error);

/* Bytes of device memory that are free and that there are. */
candid_status cuda_device_memory(int device, size_t *free, size_t *total, candid_error *error);

/*
 * A model's weights in device memory, found by the address they have on the host, which must not change as long as the
 * copy lives. Constant once made; shared by backends of any threads. Quantised formats whose blocks are not whole
 * 16-byte words are stored in planes (kernels.h). spans are borrowed for the call.
 */
struct cuda_weights;
candid_status cuda_weights_create(int device, const struct weight_span *spans, size_t n_spans, const struct logger *log,
                                  struct cuda_weights **out, candid_error *error);
void cuda_weights_free(struct cuda_weights *w);
size_t cuda_weights_bytes(const struct cuda_weights *w); /* device memory they take */

/* weights may be NULL. Weights that an op meets and that are not in `weights` are copied by the backend at first use
 * and kept: their host memory must stay as it is as long as the backend lives. */
candid_status backend_cuda_create(candid_precision precision, int device, const struct cuda_weights *weights,
                                  const struct logger *log, struct backend **out, candid_error *error);

#endif
