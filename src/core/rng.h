/*
 * Seeded random numbers, the same bits on every machine: xoshiro256** by Blackman and Vigna, its state filled by
 * splitmix64. Only integer arithmetic; the draws below it use nothing but exactly rounded operations.
 */
#ifndef CANDID_CORE_RNG_H
#define CANDID_CORE_RNG_H

#include <stdint.h>

struct rng {
    uint64_t state[4];
};

static inline uint64_t rng_splitmix(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline void rng_seed(struct rng *r, uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        r->state[i] = rng_splitmix(&seed);
    }
}

/* `stream`: sequences of one seed that have nothing to do with each other. */
static inline void rng_seed_stream(struct rng *r, uint64_t seed, uint64_t stream) {
    rng_seed(r, rng_splitmix(&seed) ^ stream);
}

static inline uint64_t rng_next(struct rng *r) {
    uint64_t *s = r->state;
    const uint64_t times5 = s[1] * 5, result = (times5 << 7 | times5 >> 57) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = s[3] << 45 | s[3] >> 19;
    return result;
}

/* Uniform in [0, 1), 53 bits. */
static inline double rng_unit(struct rng *r) {
    return (double)(rng_next(r) >> 11) * 0x1p-53;
}

/* Uniform in [0, n), n > 0: numbers that would favour the low remainders are drawn again. */
static inline uint64_t rng_below(struct rng *r, uint64_t n) {
    const uint64_t limit = UINT64_MAX - UINT64_MAX % n;
    uint64_t x;
    do {
        x = rng_next(r);
    } while (x >= limit);
    return x % n;
}

#endif
