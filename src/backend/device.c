/* Choice of the machine. The only file that knows whether this build has a CUDA backend. */
#include "backend/device.h"

#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#ifdef CANDID_CUDA
#include "backend/cuda/cuda.h"
#endif

struct device {
    int cuda; /* number of the GPU, or -1: the CPU */
    candid_precision precision;
    int n_threads;
    const struct logger *log;
#ifdef CANDID_CUDA
    struct cuda_weights *weights;
#endif
};

/* Number of usable GPUs; *why says why there is none. */
static int gpu_count(candid_error *why) {
#ifdef CANDID_CUDA
    return cuda_device_count(why);
#else
    fail(why, CANDID_ERROR_UNSUPPORTED,
         "this build has no CUDA backend: build with -DCANDID_CUDA=on, or use --device cpu");
    return 0;
#endif
}

/* "cuda" or "cuda:N" */
static bool parse_cuda(const char *name, int *index) {
    *index = 0;
    if (strncmp(name, "cuda", 4) != 0 || (name[4] && name[4] != ':')) {
        return false;
    }
    if (!name[4]) {
        return true;
    }
    char *end;
    const long n = strtol(name + 5, &end, 10);
    *index = (int)n;
    return name[5] >= '0' && name[5] <= '9' && !*end && n >= 0 && n < 1024;
}

static candid_status choose(struct device *d, const char *name, candid_error *error) {
    candid_error why = {.message = ""};
    int index = 0;
    d->cuda = -1;
    if (!name || strcmp(name, "auto") == 0) { /* until the CUDA backend has passed its tests on a GPU */
        if (gpu_count(&why) > 0) {
            log_write(d->log, CANDID_LOG_INFO,
                      "device: the CPU; the CUDA backend was never tested on a GPU, device \"cuda\" tries it");
        }
        return CANDID_OK;
    }
    if (strcmp(name, "cpu") == 0) {
        return CANDID_OK;
    }
    if (!parse_cuda(name, &index)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "device: expected auto, cpu, cuda or cuda:N, found \"%s\"", name);
    }
    const int n = gpu_count(&why);
    if (n == 0) {
        return fail(error, CANDID_ERROR_UNSUPPORTED, "device %s: %s", name, why.message);
    }
    if (index >= n) {
        return fail(error, CANDID_ERROR_UNSUPPORTED, "device %s: expected a GPU from 0 to %d", name, n - 1);
    }
    d->cuda = index;
    return CANDID_OK;
}

candid_status device_open(const char *name, candid_precision precision, int n_threads, const struct logger *log,
                          struct device **out, candid_error *error) {
    struct device *d = calloc(1, sizeof *d);
    if (!d) {
        return fail_memory(error, "the device", sizeof *d);
    }
    d->precision = precision;
    d->n_threads = n_threads;
    d->log = log;
    const candid_status status = choose(d, name, error);
    if (status != CANDID_OK) {
        free(d);
        return status;
    }
    *out = d;
    return CANDID_OK;
}

void device_free(struct device *d) {
#ifdef CANDID_CUDA
    if (d) {
        cuda_weights_free(d->weights);
    }
#endif
    free(d);
}

candid_status device_load(struct device *d, const struct weight_span *spans, size_t n_spans, candid_error *error) {
#ifdef CANDID_CUDA
    if (d->cuda >= 0) {
        return cuda_weights_create(d->cuda, spans, n_spans, d->log, &d->weights, error);
    }
#endif
    return CANDID_OK;
}

candid_status device_backend(const struct device *d, struct backend **out, candid_error *error) {
#ifdef CANDID_CUDA
    if (d->cuda >= 0) {
        return backend_cuda_create(d->precision, d->cuda, d->weights, d->log, out, error);
    }
#endif
    return backend_cpu_create(d->precision, d->n_threads, d->log, out, error);
}
