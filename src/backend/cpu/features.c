/* Processor features, from the compiler's CPUID support (which also asks the operating system for register state). */
#include "backend/cpu/features.h"

bool cpu_isa_available(enum cpu_isa isa) {
    switch (isa) {
    case ISA_SCALAR: return true;
#if defined(__x86_64__)
    case ISA_AVX2:
        /* Every processor with AVX2 has F16C, which not every compiler can ask for. */
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case ISA_AVX512:
        return cpu_isa_available(ISA_AVX2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vnni");
#elif defined(__aarch64__)
    case ISA_NEON: return true;
#endif
    default: return false;
    }
}

struct cpu_features cpu_detect(void) {
    struct cpu_features f = {.isa = ISA_SCALAR};
    for (int isa = ISA_NEON; isa <= ISA_AVX512; isa++) {
        if (cpu_isa_available((enum cpu_isa)isa)) {
            f.isa = (enum cpu_isa)isa;
        }
    }
#if defined(__x86_64__)
    f.bf16_matmul = f.isa == ISA_AVX512 && __builtin_cpu_supports("avx512bf16");
#endif
    return f;
}

const char *cpu_isa_name(enum cpu_isa isa) {
    static const char *const names[] = {"scalar", "neon", "avx2", "avx512"};
    return names[isa];
}
