#include "eval/common/mt19937.h"

#include <stdbool.h>
#include <stdlib.h>

#include "core/status.h"

enum { N = 624, M = 397 };

void mt19937_seed(struct mt19937 *r, uint64_t seed) {
    /* init_by_array with the 32-bit words of the seed, lowest first */
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const int n_key = key[1] ? 2 : 1;
    uint32_t *s = r->state;
    s[0] = 19650218;
    for (uint32_t i = 1; i < N; i++) {
        s[i] = 1812433253u * (s[i - 1] ^ s[i - 1] >> 30) + i;
    }
    int i = 1, j = 0;
    for (int k = N; k > 0; k--) {
        s[i] = (s[i] ^ (s[i - 1] ^ s[i - 1] >> 30) * 1664525u) + key[j] + (uint32_t)j;
        j = (j + 1) % n_key;
        if (++i == N) {
            s[0] = s[N - 1];
            i = 1;
        }
    }
    for (int k = N - 1; k > 0; k--) {
        s[i] = (s[i] ^ (s[i - 1] ^ s[i - 1] >> 30) * 1566083941u) - (uint32_t)i;
        if (++i == N) {
            s[0] = s[N - 1];
            i = 1;
        }
    }
    s[0] = 0x80000000u;
    r->next = N;
}

static uint32_t next_word(struct mt19937 *r) {
    uint32_t *s = r->state;
    if (r->next == N) {
        for (int i = 0; i < N; i++) {
            const uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % N] & 0x7fffffffu);
            s[i] = s[(i + M) % N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
        }
        r->next = 0;
    }
    uint32_t y = s[r->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

uint64_t mt19937_bits(struct mt19937 *r, int n_bits) {
    if (n_bits <= 32) {
        return next_word(r) >> (32 - n_bits);
    }
    const uint64_t low = next_word(r);
    return low | (uint64_t)(next_word(r) >> (64 - n_bits)) << 32;
}

double mt19937_random(struct mt19937 *r) {
    const uint32_t a = next_word(r) >> 5, b = next_word(r) >> 6;
    return (a * 67108864.0 + b) * (1.0 / 9007199254740992.0);
}

double mt19937_uniform(struct mt19937 *r, double low, double high) {
    return low + (high - low) * mt19937_random(r);
}

size_t mt19937_below(struct mt19937 *r, size_t n) {
    int n_bits = 0;
    for (size_t rest = n; rest > 0; rest >>= 1) {
        n_bits++;
    }
    uint64_t drawn;
    do {
        drawn = mt19937_bits(r, n_bits);
    } while (drawn >= n);
    return (size_t)drawn;
}

void mt19937_shuffle(struct mt19937 *r, size_t *items, size_t n) {
    for (size_t i = n; i-- > 1;) {
        const size_t j = mt19937_below(r, i + 1);
        const size_t swapped = items[i];
        items[i] = items[j];
        items[j] = swapped;
    }
}

/* The size up to which random.sample copies what it draws from: 21, and with k > 5 also 4^ceil(log4(3 k)). */
static bool sample_uses_pool(size_t n, size_t k) {
    size_t limit = 21, power = 1;
    while (k > 5 && power < 3 * k) {
        power *= 4;
    }
    limit += k > 5 ? power : 0;
    return n <= limit;
}

candid_status mt19937_sample(struct mt19937 *r, size_t n, size_t k, size_t *out, candid_error *error) {
    if (sample_uses_pool(n, k)) {
        size_t *pool = malloc((n + 1) * sizeof *pool);
        if (!pool) {
            return fail_memory(error, "a sample", (n + 1) * sizeof *pool);
        }
        for (size_t i = 0; i < n; i++) {
            pool[i] = i;
        }
        for (size_t i = 0; i < k; i++) {
            const size_t j = mt19937_below(r, n - i);
            out[i] = pool[j];
            pool[j] = pool[n - i - 1]; /* what is not drawn yet moves up */
        }
        free(pool);
        return CANDID_OK;
    }
    bool *taken = calloc(n, sizeof *taken);
    if (!taken) {
        return fail_memory(error, "a sample", n * sizeof *taken);
    }
    for (size_t i = 0; i < k; i++) {
        do {
            out[i] = mt19937_below(r, n);
        } while (taken[out[i]]);
        taken[out[i]] = true;
    }
    free(taken);
    return CANDID_OK;
}
