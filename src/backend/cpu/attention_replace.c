/* EDIT_PROBS_REPLACE: a row of probabilities becomes another one over the same keys; see backend.h for the formulas. */
#include <math.h>

#include "backend/cpu/attention_edit.h"

#define GOLDEN 0x9E3779B97F4A7C15u

/* splitmix64 */
static uint64_t mix(uint64_t x) {
    x += GOLDEN;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static uint64_t draw(uint64_t stream, int k) {
    return mix(stream + (uint64_t)k * GOLDEN);
}

/* Divides by the sum; false: that is 0. */
static bool normalise(float *x, int n) {
    double sum = 0.0;
    for (int k = 0; k < n; k++) {
        sum += (double)x[k];
    }
    for (int k = 0; k < n && sum > 0.0; k++) {
        x[k] = (float)((double)x[k] / sum);
    }
    return sum > 0.0;
}

static void reverse(float *x, int n) {
    float highest = -INFINITY;
    for (int k = 0; k < n; k++) {
        highest = x[k] > highest ? x[k] : highest;
    }
    for (int k = 0; k < n; k++) {
        x[k] = highest - x[k];
    }
}

static void randomise(float *x, int n, uint64_t stream) {
    for (int k = 0; k < n; k++) {
        x[k] = ((float)(draw(stream, k) >> 40) + 0.5f) * 0x1p-24f;
    }
    normalise(x, n);
}

static void shuffle(float *x, int n, uint64_t stream) {
    for (int i = n - 1; i > 0; i--) {
        const int other = (int)((draw(stream, i) >> 32) * (uint64_t)(i + 1) >> 32);
        const float kept = x[i];
        x[i] = x[other];
        x[other] = kept;
    }
}

float attention_replace(const struct attention_edit *e, const struct attention_row *row, int layer, int head, float *p,
                        float *scratch) {
    const uint64_t stream = mix(mix(mix(mix(e->seed) + (uint64_t)layer) + (uint64_t)head) + (uint64_t)row->number);
    const int n = attention_row_count(row);
    float *x = scratch;
    for (int k = 0; k < n; k++) {
        x[k] = p[attention_row_key(row, k)];
    }
    switch (e->replace) {
    case REPLACE_REVERSE: reverse(x, n); break;
    case REPLACE_REVERSE_NORMALISED:
        reverse(x, n);
        if (!normalise(x, n)) {
            return -1.0f;
        }
        break;
    case REPLACE_UNIFORM:
        for (int k = 0; k < n; k++) {
            x[k] = 1.0f / (float)n;
        }
        break;
    case REPLACE_RANDOM: randomise(x, n, stream); break;
    case REPLACE_SHUFFLE: shuffle(x, n, stream); break;
    }
    double differences = 0.0;
    for (int k = 0; k < n; k++) {
        float *to = &p[attention_row_key(row, k)];
        differences += fabs((double)x[k] - (double)*to);
        *to = x[k];
    }
    return (float)(0.5 * differences);
}
