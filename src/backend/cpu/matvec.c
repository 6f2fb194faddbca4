/* Choice of the matvec kernels by family and by number of rows, and the size of prepared rows, which all families
 * share.
 */
#include "backend/cpu/matvec_kernels.h"

const struct matvec_kernels *matvec_kernels_get(enum cpu_isa isa) {
    switch (isa) {
#if defined(__x86_64__)
    case ISA_AVX2: return &matvec_avx2;
    case ISA_AVX512: return &matvec_avx512;
#elif defined(__aarch64__)
    case ISA_NEON: return &matvec_neon;
#endif
    case ISA_SCALAR: return &matvec_scalar;
    default: return NULL;
    }
}

int matvec_most_rows(uint32_t type, bool step) {
    return type == TYPE_Q8_0 && step ? MATVEC_MAX_ROWS : 8;
}

size_t matvec_prepared_bytes(uint32_t type, int n_in) {
    size_t n = (size_t)n_in, bytes;
    switch (type) {
    case TYPE_Q8_0: bytes = n + matvec_padded_blocks(n_in) * sizeof(float); break;
    case TYPE_Q4_0: bytes = n + matvec_padded_blocks(n_in) * 2 * sizeof(float); break;
    case TYPE_Q4_K:
    case TYPE_Q5_K: bytes = n + n / 32 * sizeof(int16_t) + n / QKK * sizeof(float); break;
    case TYPE_Q6_K: bytes = n + n / 16 * sizeof(int16_t) + n / QKK * sizeof(float); break;
    default: bytes = ((n + 15) & ~(size_t)15) * sizeof(float); break;
    }
    return (bytes + 63) & ~(size_t)63;
}
