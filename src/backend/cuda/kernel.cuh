/*
 * What the kernel files share: how they are launched, reductions over warps and blocks, 16-bit floats.
 *
 * Kernels are written so that they also run on a CPU, one fiber per thread (tests/gpu/emulate): launches go through
 * CUDA_LAUNCH and dynamic shared memory through DYNAMIC_SHARED, and warps use only what cuda_runtime.h of that
 * directory has.
 */
#ifndef CANDID_BACKEND_CUDA_KERNEL_CUH
#define CANDID_BACKEND_CUDA_KERNEL_CUH

#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include "backend/cuda/kernels.h"

#ifndef CUDA_LAUNCH
#define CUDA_LAUNCH(kernel, grid, block, shared, stream, ...) kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)
/* The dynamic shared memory of a kernel as an array of `type`. */
#define DYNAMIC_SHARED(type, name)                                                                                     \
    extern __shared__ __align__(16) unsigned char dynamic_shared_[];                                                   \
    type *const name = (type *)dynamic_shared_
#endif

#define WARP       32
#define BLOCK      256 /* threads of a block where nothing speaks for another number */
#define FULL_WARP  0xffffffffu
#define MOST_WARPS 32

static inline unsigned blocks_for(size_t n, size_t per_block) {
    return (unsigned)((n + per_block - 1) / per_block);
}

/* ---- 16-bit floats, stored as bits ---- */

static __device__ __forceinline__ float half_float(uint16_t h) {
    return __half2float(__ushort_as_half(h));
}

static __device__ __forceinline__ uint16_t float_half(float f) {
    return __half_as_ushort(__float2half_rn(f));
}

static __device__ __forceinline__ float bfloat_float(uint16_t h) {
    return __uint_as_float((uint32_t)h << 16);
}

static __device__ __forceinline__ uint16_t float_bfloat(float f) {
    const uint32_t bits = __float_as_uint(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) { /* NaN must not become an infinity */
        return (uint16_t)(bits >> 16 | 0x40);
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* The two halves of a word, low first. */
static __device__ __forceinline__ float2 half2_float2(uint32_t word) {
    return make_float2(half_float((uint16_t)word), half_float((uint16_t)(word >> 16)));
}

static __device__ __forceinline__ float2 bfloat2_float2(uint32_t word) {
    return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u));
}

/* ---- reductions: every thread of the warp or block calls them and gets the result; the order is fixed ---- */

struct sum_of {
    template <class T> static __device__ __forceinline__ T join(T a, T b) {
        return a + b;
    }
};
struct max_of {
    template <class T> static __device__ __forceinline__ T join(T a, T b) {
        return a > b ? a : b;
    }
};

template <class OP, class T> static __device__ __forceinline__ T warp_reduce(T x) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) {
        x = OP::join(x, __shfl_xor_sync(FULL_WARP, x, offset));
    }
    return x;
}

/* `partial`: shared memory of at least MOST_WARPS values, which may be used again at once. The block is whole warps. */
template <class OP, class T> static __device__ __forceinline__ T block_reduce(T x, T *partial) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, n_warps = blockDim.x / WARP;
    x = warp_reduce<OP>(x);
    __syncthreads(); /* an earlier use of `partial` has been read */
    if (lane == 0) {
        partial[warp] = x;
    }
    __syncthreads();
    T all = partial[0];
    for (int i = 1; i < n_warps; i++) {
        all = OP::join(all, partial[i]);
    }
    return all;
}

#endif
