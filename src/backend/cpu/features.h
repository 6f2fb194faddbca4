/* What this processor can do, asked once when a backend is created. */
#ifndef CANDID_BACKEND_CPU_FEATURES_H
#define CANDID_BACKEND_CPU_FEATURES_H

#include <stdbool.h>

/* Kernel families, each a superset of the one before on its architecture. */
enum cpu_isa {
    ISA_SCALAR = 0, /* portable C */
    ISA_NEON = 1,   /* AArch64 baseline */
    ISA_AVX2 = 2,   /* AVX2 + FMA + F16C */
    ISA_AVX512 = 3, /* AVX-512 F, BW, DQ, VL and VNNI, on top of AVX2 */
};

struct cpu_features {
    enum cpu_isa isa; /* best family both this build and this processor have */
    bool bf16_matmul; /* AVX-512-BF16 or AMX-BF16: oneDNN multiplies bf16 in hardware */
};

struct cpu_features cpu_detect(void);
const char *cpu_isa_name(enum cpu_isa isa); /* "avx2" */

/* Whether kernels of this family can run here (used by tests to try every family). */
bool cpu_isa_available(enum cpu_isa isa);

#endif
