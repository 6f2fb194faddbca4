/*
 * Stand-in for the device side of CUDA C++: kernels compiled as C++ and run on the CPU, one block after the other,
 * every thread of a block a fiber. A fiber runs until it waits for its warp (shuffles) or its block (__syncthreads).
 * Which one goes on then is drawn at random or, in half of the blocks, is the one that could go on last, which lets one
 * warp run far ahead of the others: a missing barrier shows as a wrong result. A barrier that some threads never reach
 * ends the program with a message.
 */
#ifndef CANDID_TESTS_EMULATE_CUDA_RUNTIME_H
#define CANDID_TESTS_EMULATE_CUDA_RUNTIME_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n)
#define __shared__ static /* blocks run one at a time */

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {
    }
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
static inline float2 make_float2(float x, float y) {
    return float2{x, y};
}

/* ---- threads ---- */

struct emulated_place {
    dim3 thread, block, block_size, grid_size;
    void *shared; /* dynamic */
};
extern struct emulated_place emulated_place; /* of the running thread */
#define threadIdx (emulated_place.thread)
#define blockIdx  (emulated_place.block)
#define blockDim  (emulated_place.block_size)
#define gridDim   (emulated_place.grid_size)

void emulated_launch(dim3 grid, dim3 block, size_t shared, void (*run)(void *), void *kernel);
void emulated_block_wait(void);
/* Gives `value` to the warp, waits for all 32 lanes, returns what lane `from` gave. */
uint64_t emulated_exchange(uint64_t value, unsigned from);

template <class F> static inline void emulated_start(dim3 grid, dim3 block, size_t shared, F kernel) {
    emulated_launch(
        grid, block, shared, [](void *k) { (*(F *)k)(); }, &kernel);
}

#define CUDA_LAUNCH(kernel, grid, block, shared, stream, ...)                                                          \
    do {                                                                                                               \
        (void)(stream);                                                                                                \
        emulated_start(grid, block, shared, [=] { kernel(__VA_ARGS__); });                                             \
    } while (0)
#define DYNAMIC_SHARED(type, name) type *const name = (type *)emulated_place.shared

static inline void __syncthreads(void) {
    emulated_block_wait();
}

template <class T> static inline T __shfl_xor_sync(unsigned mask, T value, int lanes) {
    (void)mask;
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = emulated_exchange(bits, (threadIdx.x % 32) ^ (unsigned)lanes);
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* ---- instructions ---- */

static inline float __uint_as_float(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
static inline uint32_t __float_as_uint(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}
static inline int __float2int_rn(float f) {
    return (int)lrintf(f);
}
template <class T> static inline T __ldcs(const T *p) {
    return *p;
}
static inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; i++) {
        c += (int)(int8_t)(a >> 8 * i) * (int)(int8_t)(b >> 8 * i);
    }
    return c;
}

#endif
