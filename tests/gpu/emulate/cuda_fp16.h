/* Stand-in for half precision: the library's own conversions, which round to nearest even as the GPU's do. */
#ifndef CANDID_TESTS_EMULATE_CUDA_FP16_H
#define CANDID_TESTS_EMULATE_CUDA_FP16_H

#include <stdint.h>

struct __half {
    uint16_t bits;
};

extern "C" float f16_to_f32(uint16_t h);
extern "C" uint16_t f32_to_f16(float f);

static inline __half __ushort_as_half(uint16_t bits) {
    return __half{bits};
}
static inline uint16_t __half_as_ushort(__half h) {
    return h.bits;
}
static inline float __half2float(__half h) {
    return f16_to_f32(h.bits);
}
static inline __half __float2half_rn(float f) {
    return __half{f32_to_f16(f)};
}

#endif
