/*
 * Prints the checksums of test_quant.c's k_types_round_as_ggml_does: ggml's reference quantisers on its input.
 *
 * Not built with the project. With a built llama.cpp (llama-cpp-python 0.3.36 was used) in $L, from the project's root:
 *   cc -std=c11 -O2 -ffp-contract=off -D_GNU_SOURCE -Isrc -Iinclude tests/golden/quant_k_reference.c src/core/crc32.c \
 *      src/model/quant.c src/model/quant_k.c $L/ggml/src/libggml-base.a -lstdc++ -lm -lpthread -ldl -fopenmp
 */
#include <math.h>
#include <stdio.h>

#include "core/crc32.h"
#include "model/quant.h"

void quantize_row_q4_K_ref(const float *x, void *y, int64_t n);
void quantize_row_q5_K_ref(const float *x, void *y, int64_t n);
void quantize_row_q6_K_ref(const float *x, void *y, int64_t n);

static void k_block_input(uint64_t *seed, int block, float x[QKK]) {
    const float scale = ldexpf(1.0f, block % 17 - 12);
    for (int i = 0; i < QKK; i++) {
        float sum = 0;
        for (int k = 0; k < 4; k++) {
            *seed = *seed * 6364136223846793005u + 1442695040888963407u;
            sum += (float)(*seed >> 40) / 16777216.0f - 0.5f;
        }
        x[i] = scale * (block % 7 == 0 ? fabsf(sum) : sum);
        x[i] *= block % 11 == 0 && i % 32 < 3 ? 10.0f : 1.0f;
        x[i] *= block % 13 == 0 && i < 64 ? 0.0f : 1.0f;
    }
}

int main(void) {
    static const uint32_t types[] = {TYPE_Q4_K, TYPE_Q5_K, TYPE_Q6_K};
    static void (*const reference[])(const float *, void *, int64_t) = {quantize_row_q4_K_ref, quantize_row_q5_K_ref,
                                                                        quantize_row_q6_K_ref};
    for (int t = 0; t < 3; t++) {
        uint64_t seed = 1;
        uint32_t crc = 0;
        for (int b = 0; b < 500; b++) {
            float x[QKK];
            uint8_t block[sizeof(struct block_q6_k)];
            k_block_input(&seed, b, x);
            reference[t](x, block, QKK);
            crc = crc32_update(crc, block, quant_block_bytes(types[t]));
        }
        printf("%s 0x%08x\n", quant_type_name(types[t]), crc);
    }
    return 0;
}
