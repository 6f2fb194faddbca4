/* Matvec kernels for AVX2 + FMA + F16C. */
#include <immintrin.h>

/* Pairs are summed in 16 bits: at most 2 * 128 * 127 = 32512. */
#define dot_u8s8(u, s)          _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1))
#define add_dot_u8s8(sum, u, s) _mm256_add_epi32(sum, dot_u8s8(u, s))
#define add_dot_i16(sum, a, b)  _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
#define NARROW_Q4               true

#include "backend/cpu/matvec_x86.h"

const struct matvec_kernels matvec_avx2 = {matvec_prepared_bytes, prepare, multiply};
