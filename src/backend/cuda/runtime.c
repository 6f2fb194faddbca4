/* Errors, growing memory and the ring of small copies. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/internal.h"
#include "core/status.h"

#define MIB 1048576.0

/* ---- errors ------------------------------------------------------------------------------------ */

candid_status cuda_check(cudaError_t result, const char *what, candid_error *error) {
    if (result == cudaSuccess) {
        return CANDID_OK;
    }
    cudaGetLastError(); /* told once */
    const candid_status status = result == cudaErrorMemoryAllocation ? CANDID_ERROR_MEMORY : CANDID_ERROR_INTERNAL;
    const char *hint = result == cudaErrorECCUncorrectable
                           ? ": the GPU's memory is damaged, use another (--device cuda:N)"
                       : result == cudaErrorDevicesUnavailable ? ": another program has the GPU for itself"
                                                               : "";
    return fail(error, status, "CUDA: %s: %s%s", what, cudaGetErrorString(result), hint);
}

candid_status cuda_fail_memory(size_t bytes, const char *what, candid_error *error) {
    size_t available = 0, total = 0;
    cudaGetLastError(); /* told once */
    cudaMemGetInfo(&available, &total);
    return fail(error, CANDID_ERROR_MEMORY,
                "GPU memory: %.1f MiB needed for %s, %.1f MiB of %.1f free; less is needed with a smaller --ctx, with "
                "--kv f16, or with a model quantised further (candid quantize)",
                (double)bytes / MIB, what, (double)available / MIB, (double)total / MIB);
}

int cuda_device_count(candid_error *error) {
    int n = 0, driver = 0, runtime = 0;
    const cudaError_t result = cudaGetDeviceCount(&n);
    if (result == cudaSuccess && n > 0) {
        return n;
    }
    cudaGetLastError();
    if (result == cudaErrorInsufficientDriver) {
        cudaDriverGetVersion(&driver);
        cudaRuntimeGetVersion(&runtime);
        if (driver == 0) {
            fail(error, CANDID_ERROR_UNSUPPORTED, "no NVIDIA driver found");
        } else {
            fail(error, CANDID_ERROR_UNSUPPORTED,
                 "the NVIDIA driver is too old: expected one for CUDA %d.%d, found one for CUDA %d.%d", runtime / 1000,
                 runtime % 1000 / 10, driver / 1000, driver % 1000 / 10);
        }
    } else if (result == cudaSuccess || result == cudaErrorNoDevice) {
        fail(error, CANDID_ERROR_UNSUPPORTED, "no NVIDIA GPU found");
    } else {
        fail(error, CANDID_ERROR_UNSUPPORTED, "no usable NVIDIA GPU: %s", cudaGetErrorString(result));
    }
    return 0;
}

candid_status cuda_device_memory(int device, size_t *available, size_t *total, candid_error *error) {
    TRY(cuda_check(cudaSetDevice(device), "choosing the GPU", error));
    return cuda_check(cudaMemGetInfo(available, total), "asking for free memory", error);
}

void cuda_enter(struct cuda_backend *c) {
    cuda_note(c, cudaSetDevice(c->device), "choosing the GPU"); /* per thread, and a backend may change threads */
}

bool cuda_note(struct cuda_backend *c, cudaError_t result, const char *what) {
    if (result != cudaSuccess && c->failed == CANDID_OK) {
        c->failed = cuda_check(result, what, &c->failure);
    }
    return result == cudaSuccess;
}

candid_status cuda_settle(struct cuda_backend *c, candid_error *error) {
    cuda_note(c, cudaGetLastError(), "running a kernel");
    const candid_status status = c->failed;
    c->failed = CANDID_OK;
    return status == CANDID_OK ? CANDID_OK : fail(error, status, "%s", c->failure.message);
}

candid_status cuda_wait(struct cuda_backend *c, const char *what, candid_error *error) {
    cuda_note(c, cudaStreamSynchronize(c->stream), what);
    return cuda_settle(c, error);
}

/* ---- memory ------------------------------------------------------------------------------------ */

candid_status cuda_room(struct cuda_backend *c, struct cuda_room *room, size_t bytes, const char *what,
                        candid_error *error) {
    if (bytes <= room->bytes) {
        return CANDID_OK;
    }
    TRY(cuda_wait(c, "waiting for work memory", error));
    cuda_room_free(room);
    const size_t with_reserve = bytes + bytes / 2;
    if (cudaMalloc(&room->memory, with_reserve) == cudaSuccess) {
        room->bytes = with_reserve;
        return CANDID_OK;
    }
    cudaGetLastError();
    if (cudaMalloc(&room->memory, bytes) == cudaSuccess) {
        room->bytes = bytes;
        return CANDID_OK;
    }
    room->memory = NULL;
    return cuda_fail_memory(bytes, what, error);
}

void cuda_room_free(struct cuda_room *room) {
    cudaFree(room->memory);
    *room = (struct cuda_room){0};
}

#define RING_BYTES ((size_t)4 << 20)

void cuda_ring_free(struct cuda_ring *ring) {
    cudaFreeHost(ring->host);
    cudaFree(ring->device);
    ring->host = ring->device = NULL;
    ring->bytes = ring->used = 0;
}

/* From the start again, once nothing reads the ring any more. */
static bool next_turn(struct cuda_backend *c, size_t bytes) {
    struct cuda_ring *ring = &c->ring;
    if (!cuda_note(c, cudaStreamSynchronize(c->stream), "waiting for small copies")) {
        return false;
    }
    ring->turn++;
    ring->used = 0;
    if (bytes > ring->bytes) {
        cuda_ring_free(ring);
        const size_t size = bytes > RING_BYTES / 4 ? bytes * 4 : RING_BYTES;
        if (!cuda_note(c, cudaMallocHost((void **)&ring->host, size), "allocating pinned memory") ||
            !cuda_note(c, cudaMalloc((void **)&ring->device, size), "allocating memory for small copies")) {
            cuda_ring_free(ring);
            return false;
        }
        ring->bytes = size;
    }
    return true;
}

void *cuda_stage(struct cuda_backend *c, const void *host, size_t bytes) {
    struct cuda_ring *ring = &c->ring;
    const size_t padded = (bytes + 255) / 256 * 256;
    if (padded > ring->bytes - ring->used && !next_turn(c, padded)) {
        return NULL;
    }
    char *from = ring->host + ring->used, *to = ring->device + ring->used;
    ring->used += padded;
    memcpy(from, host, bytes);
    return cuda_note(c, cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, c->stream), "copying small data")
               ? to
               : NULL;
}
