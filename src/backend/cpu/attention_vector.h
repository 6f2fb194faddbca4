/*
 * Vector types of the attention kernels, on the compiler's vector extension. The including file defines LANES before.
 * Arithmetic, comparison and shifts are the plain C operators; what C has no operator for is defined per family.
 */
#ifndef CANDID_BACKEND_CPU_ATTENTION_VECTOR_H
#define CANDID_BACKEND_CPU_ATTENTION_VECTOR_H

#include <stdint.h>

typedef float vf __attribute__((vector_size(LANES * 4)));
typedef int32_t vi __attribute__((vector_size(LANES * 4)));
typedef float vf_unaligned __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE vf v_load(const float *p) {
    return *(const vf_unaligned *)p;
}

INLINE void v_store(float *p, vf x) {
    *(vf_unaligned *)p = x;
}

/* Lane by lane: mask (all ones or all zeros) ? a : b. */
INLINE vf v_select(vi mask, vf a, vf b) {
    return (vf)(((vi)a & mask) | ((vi)b & ~mask));
}

#endif
