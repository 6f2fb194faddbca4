/*
 * Quantised weights in registers. Every format is read in chunks of 32 codes, two runs of 16 consecutive values, of
 * which each has one scale and one minimum: value = scale * code - minimum. Codes of a run are packed four to a word,
 * lowest byte first, as __dp4a wants them. One lane reads a chunk by one or two aligned 16-byte loads.
 */
#ifndef CANDID_BACKEND_CUDA_BLOCKS_CUH
#define CANDID_BACKEND_CUDA_BLOCKS_CUH

#include "backend/cuda/kernel.cuh"
#include "model/quant.h"

struct chunk {
    uint32_t codes[2][4];
    int first[2]; /* position of each run in the row, a multiple of 16 */
    float scale[2], minimum[2];
};

/* Weights are read once: they must not push activations out of the caches. */
static __device__ __forceinline__ uint4 load_stream(const void *p) {
    return __ldcs((const uint4 *)p);
}

static __device__ __forceinline__ void unpack(const uint4 v, uint32_t words[4]) {
    words[0] = v.x;
    words[1] = v.y;
    words[2] = v.z;
    words[3] = v.w;
}

/* As quant_scale_min. */
static __device__ __forceinline__ void scale_min(const uint8_t *s, int j, float *scale, float *minimum) {
    if (j < 4) {
        *scale = (float)(s[j] & 63);
        *minimum = (float)(s[j + 4] & 63);
    } else {
        *scale = (float)((s[j + 4] & 15) | ((s[j - 4] >> 6) << 4));
        *minimum = (float)((s[j + 4] >> 4) | ((s[j] >> 6) << 4));
    }
}

template <int TYPE> struct blocks;

/* Codes 32 bytes a block. */
template <> struct blocks<TYPE_Q8_0> {
    static __device__ __forceinline__ void load(const void *main, const uint16_t *scales, size_t row_chunks, int c,
                                                struct chunk *out) {
        const size_t block = row_chunks + (size_t)c;
        const char *p = (const char *)main + block * QK;
        unpack(load_stream(p), out->codes[0]);
        unpack(load_stream(p + 16), out->codes[1]);
        out->first[0] = c * QK;
        out->first[1] = c * QK + 16;
        out->scale[0] = out->scale[1] = half_float(scales[block]);
        out->minimum[0] = out->minimum[1] = 0.0f;
    }
};

/* Codes 16 bytes a block: low nibbles are values 0..15, high ones 16..31. */
template <> struct blocks<TYPE_Q4_0> {
    static __device__ __forceinline__ void load(const void *main, const uint16_t *scales, size_t row_chunks, int c,
                                                struct chunk *out) {
        const size_t block = row_chunks + (size_t)c;
        uint32_t q[4];
        unpack(load_stream((const char *)main + block * (QK / 2)), q);
        for (int i = 0; i < 4; i++) {
            out->codes[0][i] = q[i] & 0x0f0f0f0fu;
            out->codes[1][i] = q[i] >> 4 & 0x0f0f0f0fu;
        }
        out->first[0] = c * QK;
        out->first[1] = c * QK + 16;
        out->scale[0] = out->scale[1] = half_float(scales[block]);
        out->minimum[0] = out->minimum[1] = 8.0f * out->scale[0];
    }
};

/* What Q4_K and Q5_K share: bytes 16·(c % 2) .. +15 of group g hold 16 values of scale 2g and, in the high nibbles, 16
 * of scale 2g + 1. Blocks of 144 and 176 bytes are whole 16-byte words as they stand in the file. */
template <class BLOCK_TYPE>
static __device__ __forceinline__ void load_k(const BLOCK_TYPE *block, int c, struct chunk *out) {
    const int g = c % 8 / 2, offset = 16 * (c % 2);
    const float d = half_float(block->d), dmin = half_float(block->dmin);
    uint32_t q[4];
    unpack(load_stream(block->qs + 32 * g + offset), q);
    for (int run = 0; run < 2; run++) {
        float scale, minimum;
        scale_min(block->scales, 2 * g + run, &scale, &minimum);
        out->scale[run] = d * scale;
        out->minimum[run] = dmin * minimum;
        out->first[run] = c / 8 * QKK + 64 * g + 32 * run + offset;
        for (int i = 0; i < 4; i++) {
            out->codes[run][i] = q[i] >> 4 * run & 0x0f0f0f0fu;
        }
    }
}

template <> struct blocks<TYPE_Q4_K> {
    static __device__ __forceinline__ void load(const void *main, const uint16_t *, size_t row_chunks, int c,
                                                struct chunk *out) {
        load_k((const struct block_q4_k *)main + row_chunks / 8 + (size_t)c / 8, c, out);
    }
};

template <> struct blocks<TYPE_Q5_K> {
    static __device__ __forceinline__ void load(const void *main, const uint16_t *, size_t row_chunks, int c,
                                                struct chunk *out) {
        const struct block_q5_k *block = (const struct block_q5_k *)main + row_chunks / 8 + (size_t)c / 8;
        load_k(block, c, out);
        uint32_t high[4];
        unpack(*(const uint4 *)(block->qh + 16 * (c % 2)), high); /* four groups share it: cached, not streamed */
        for (int run = 0; run < 2; run++) {
            const int bit = 2 * (c % 8 / 2) + run;
            for (int i = 0; i < 4; i++) {
                out->codes[run][i] |= (high[i] >> bit & 0x01010101u) << 4;
            }
        }
    }
};

/* ql 128, qh 64 and scales 16 bytes a block. Chunk c of 8: half c / 4; its low nibbles belong to run (c % 4) / 2 of
 * that half, its high ones to the run two further. */
template <> struct blocks<TYPE_Q6_K> {
    static __device__ __forceinline__ void load(const void *main, const uint16_t *scales, size_t row_chunks, int c,
                                                struct chunk *out) {
        const size_t block = row_chunks / 8 + (size_t)c / 8;
        const uint8_t *p = (const uint8_t *)main + block * 208;
        const int half = c % 8 / 4, offset = 16 * (c % 2), run0 = c % 4 / 2;
        const float d = half_float(scales[block]);
        uint32_t low[4], high[4];
        unpack(load_stream(p + 64 * half + 32 * run0 + offset), low);
        unpack(*(const uint4 *)(p + 128 + 32 * half + offset), high);
        for (int i = 0; i < 2; i++) {
            const int run = run0 + 2 * i;
            out->scale[i] = d * (float)((const int8_t *)p)[192 + 8 * half + 2 * run + offset / 16];
            out->minimum[i] = 32.0f * out->scale[i];
            out->first[i] = c / 8 * QKK + 128 * half + 32 * run + offset;
            for (int w = 0; w < 4; w++) {
                out->codes[i][w] = (low[w] >> 4 * i & 0x0f0f0f0fu) | (high[w] >> 2 * run & 0x03030303u) << 4;
            }
        }
    }
};

/* Code i of a run. Only Q8_0 has negative ones; those of the others are below 64. */
static __device__ __forceinline__ float code_at(const uint32_t words[4], int i) {
    return (float)(int8_t)(uint8_t)(words[i / 4] >> 8 * (i % 4));
}

#endif
