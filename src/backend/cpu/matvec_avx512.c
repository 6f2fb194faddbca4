/*
 * Matvec kernels for AVX-512 with VNNI: 256-bit vectors, twice as many registers, and dot products in one
 * instruction. 512-bit vectors would gain nothing where the memory sets the pace.
 */
#include <immintrin.h>

#define dot_u8s8(u, s)          _mm256_dpbusd_epi32(_mm256_setzero_si256(), u, s)
#define add_dot_u8s8(sum, u, s) _mm256_dpbusd_epi32(sum, u, s)
#define add_dot_i16(sum, a, b)  _mm256_dpwssd_epi32(sum, a, b)
#define NARROW_Q4               false

#include "backend/cpu/matvec_x86.h"

const struct matvec_kernels matvec_avx512 = {matvec_prepared_bytes, prepare, multiply};
