/*
 * The random numbers of Python's `random` module (CPython 3): MT19937 (Matsumoto and Nishimura 1998) and the calls that
 * benchmark code makes of it. The same seed and calls give the same numbers as there.
 */
#ifndef CANDID_EVAL_COMMON_MT19937_H
#define CANDID_EVAL_COMMON_MT19937_H

#include <stddef.h>
#include <stdint.h>

#include "candid/candid.h"

struct mt19937 {
    uint32_t state[624];
    int next; /* of the 624, 624: all used */
};

/* random.seed(seed) */
void mt19937_seed(struct mt19937 *r, uint64_t seed);

/* random.getrandbits(n_bits), n_bits from 1 to 64 */
uint64_t mt19937_bits(struct mt19937 *r, int n_bits);

/* random.random(): 53 bits, in [0, 1) */
double mt19937_random(struct mt19937 *r);

/* random.uniform(low, high) */
double mt19937_uniform(struct mt19937 *r, double low, double high);

/* random.randrange(n), and the index that random.choice takes of n; n > 0 */
size_t mt19937_below(struct mt19937 *r, size_t n);

/* random.shuffle of items[n] */
void mt19937_shuffle(struct mt19937 *r, size_t *items, size_t n);

/* random.sample(range(n), k) into out[k]; k <= n */
candid_status mt19937_sample(struct mt19937 *r, size_t n, size_t k, size_t *out, candid_error *error);

#endif
