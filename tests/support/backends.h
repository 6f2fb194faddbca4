/* The backends that tests of methods run on. A backend that this build or machine lacks is left out of the list. */
#ifndef CANDID_TESTS_BACKENDS_H
#define CANDID_TESTS_BACKENDS_H

#include "backend/backend.h"

struct tested_backend {
    const char *name;
    candid_status (*create)(struct backend **out, candid_error *error);
    bool observes;   /* shows attention probabilities to an observer */
    double rounding; /* of attention probabilities, relative: products of many rows take queries and probabilities as
                        f16 */
};

static inline candid_status create_cpu_exact(struct backend **out, candid_error *error) {
    return backend_cpu_create(CANDID_PRECISION_EXACT, 2, NULL, out, error);
}

static inline candid_status create_cpu_fast(struct backend **out, candid_error *error) {
    return backend_cpu_create(CANDID_PRECISION_FAST, 2, NULL, out, error);
}

#ifdef CANDID_CUDA
#include "backend/cuda/cuda.h"

static inline candid_status create_cuda_exact(struct backend **out, candid_error *error) {
    return backend_cuda_create(CANDID_PRECISION_EXACT, 0, NULL, NULL, out, error);
}

static inline candid_status create_cuda_fast(struct backend **out, candid_error *error) {
    return backend_cuda_create(CANDID_PRECISION_FAST, 0, NULL, NULL, out, error);
}
#endif

static const struct tested_backend tested_backends[] = {
#ifdef CANDID_CUDA /* a test of its own: the other backends have had theirs */
    {"cuda exact", create_cuda_exact, true, 0},
    {"cuda fast", create_cuda_fast, true, 2e-3},
#else
    {"cpu exact", create_cpu_exact, true, 0},
    {"cpu fast", create_cpu_fast, true, 0},
#endif
};
#define N_TESTED_BACKENDS (sizeof tested_backends / sizeof *tested_backends)

static inline struct backend *tested_backend_open(const struct tested_backend *t) {
    struct backend *b = NULL;
    candid_error error = {CANDID_OK, ""};
    if (t->create(&b, &error) != CANDID_OK) {
        fail_msg("%s: %s", t->name, error.message);
    }
    return b;
}

/* A backend of the kind that is tested, for tests of networks. */
static inline candid_status tested_backend_create(candid_precision precision, struct backend **out,
                                                  candid_error *error) {
    return tested_backends[precision == CANDID_PRECISION_EXACT ? 0 : 1].create(out, error);
}

/* n floats in the backend's memory: those of `host`, or NaN when it is NULL. */
static inline float *device_copy(struct backend *b, const float *host, size_t n) {
    void *memory = NULL;
    assert_int_equal(b->ops->alloc(b, n * sizeof(float), &memory, NULL), CANDID_OK);
    float *poison = host ? NULL : malloc(n * sizeof *poison);
    for (size_t i = 0; poison && i < n; i++) {
        poison[i] = NAN;
    }
    b->ops->upload(b, memory, host ? host : poison, n * sizeof(float));
    free(poison);
    return memory;
}

#endif
