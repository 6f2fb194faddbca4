/* The CUDA runtime on host memory; see cuda_runtime_api.h. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_runtime_api.h"

struct emulated_gpu emulated_gpu = {.n_devices = 1, .memory = (size_t)16 << 30, .seed = 1};

static cudaError_t last = cudaSuccess;

static cudaError_t failed(cudaError_t error) {
    last = error;
    return error;
}

cudaError_t cudaGetDeviceCount(int *n) {
    *n = emulated_gpu.n_devices;
    return *n > 0 ? cudaSuccess : failed(cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device) {
    return device >= 0 && device < emulated_gpu.n_devices ? cudaSuccess : failed(cudaErrorNoDevice);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device) {
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "emulated GPU");
    out->major = 9;
    return cudaSetDevice(device);
}

cudaError_t cudaDriverGetVersion(int *version) {
    *version = 0;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = 12000;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void) {
    const cudaError_t error = last;
    last = cudaSuccess;
    return error;
}

const char *cudaGetErrorString(cudaError_t error) {
    switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    default: return "an emulated error";
    }
}

/* ---- memory ------------------------------------------------------------------------------------ */

struct header {
    size_t bytes;
    char padding[248]; /* memory begins at a 256-byte place, as on a GPU */
};

cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
    *total = emulated_gpu.memory;
    *available = emulated_gpu.memory > emulated_gpu.used ? emulated_gpu.memory - emulated_gpu.used : 0;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **out, size_t bytes) {
    *out = NULL;
    if (emulated_gpu.used + bytes > emulated_gpu.memory) {
        return failed(cudaErrorMemoryAllocation);
    }
    /* exactly so long that the first byte behind it is out of bounds */
    struct header *h = NULL;
    if (posix_memalign((void **)&h, 256, sizeof *h + bytes) != 0) {
        return failed(cudaErrorMemoryAllocation);
    }
    h->bytes = bytes;
    memset(h + 1, 0xff, bytes); /* NaN in f32 and in f16 */
    emulated_gpu.used += bytes;
    emulated_gpu.n_blocks++;
    emulated_gpu.n_allocations++;
    *out = h + 1;
    return cudaSuccess;
}

static void deliver(void);

cudaError_t cudaFree(void *device) {
    if (device) {
        deliver();
        struct header *h = (struct header *)device - 1;
        emulated_gpu.used -= h->bytes;
        emulated_gpu.n_blocks--;
        free(h);
    }
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **out, size_t bytes) {
    return cudaMalloc(out, bytes);
}

cudaError_t cudaFreeHost(void *host) {
    return cudaFree(host);
}

/* ---- copies ------------------------------------------------------------------------------------ */

/* What has been copied to the host and has not arrived yet. */
struct arrival {
    struct arrival *next;
    char *to;
    size_t bytes;
    char data[];
};
static struct arrival *arrivals;

static void deliver(void) {
    while (arrivals) {
        struct arrival *first = arrivals;
        memcpy(first->to, first->data, first->bytes);
        arrivals = first->next;
        free(first);
    }
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    (void)stream;
    emulated_gpu.n_waits++;
    deliver();
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    (void)kind;
    deliver();
    memcpy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    (void)stream;
    if (bytes == 0) {
        return cudaSuccess;
    }
    if (kind != cudaMemcpyDeviceToHost) {
        memcpy(to, from, bytes); /* memmove would hide overlaps */
        return cudaSuccess;
    }
    struct arrival *a = malloc(sizeof *a + bytes), **end = &arrivals;
    if (!a) {
        return failed(cudaErrorMemoryAllocation);
    }
    *a = (struct arrival){.to = to, .bytes = bytes};
    memcpy(a->data, from, bytes);
    while (*end) {
        end = &(*end)->next;
    }
    *end = a;
    return cudaSuccess;
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream) {
    if (width > to_pitch || width > from_pitch) {
        return failed(cudaErrorLaunchFailure); /* the runtime's "invalid pitch" */
    }
    cudaError_t result = cudaSuccess;
    for (size_t i = 0; i < height && result == cudaSuccess; i++) {
        result = cudaMemcpyAsync((char *)to + i * to_pitch, (const char *)from + i * from_pitch, width, kind, stream);
    }
    return result;
}

cudaError_t cudaMemsetAsync(void *device, int value, size_t bytes, cudaStream_t stream) {
    (void)stream;
    memset(device, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags) {
    (void)flags;
    *out = (cudaStream_t)&last; /* any address */
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    return cudaStreamSynchronize(stream);
}
