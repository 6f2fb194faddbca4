/*
 * Which machine a model runs on. A device makes the backends of the model's contexts and owns the copy of the weights
 * that they share, where the machine has memory of its own.
 */
#ifndef CANDID_BACKEND_DEVICE_H
#define CANDID_BACKEND_DEVICE_H

#include "backend/backend.h"

/* A tensor in host memory. */
struct weight_span {
    const void *data;
    uint32_t type; /* enum quant_type */
    size_t bytes;
};

struct device;

/* name: "auto" or NULL (a GPU when this build and machine have one, else the CPU), "cpu", "cuda", "cuda:1".
 * CANDID_ERROR_ARGUMENT: no such name; CANDID_ERROR_UNSUPPORTED: what it names is not there. log may be NULL and must
 * outlive the device. */
candid_status device_open(const char *name, candid_precision precision, int n_threads, const struct logger *log,
                          struct device **out, candid_error *error);
void device_free(struct device *d); /* after all of its backends */

/* Copies a model's weights to the device, once, before any backend is made. Nothing to do on the CPU. */
candid_status device_load(struct device *d, const struct weight_span *spans, size_t n_spans, candid_error *error);

candid_status device_backend(const struct device *d, struct backend **out, candid_error *error);

#endif
