/* The combiner of contrastive methods. */
#include "decode/contrast.h"

#include <math.h>

/* The logit below which a token is not plausible. */
static float threshold(const float *main, const struct contrast_term *terms, int n_terms, int n_vocab) {
    float beta = 0;
    for (int k = 0; k < n_terms; k++) {
        beta = terms[k].cutoff > beta ? terms[k].cutoff : beta;
    }
    if (beta <= 0) {
        return -INFINITY;
    }
    float greatest = -INFINITY;
    for (int i = 0; i < n_vocab; i++) {
        greatest = main[i] > greatest ? main[i] : greatest;
    }
    return logf(beta) + greatest;
}

int contrast_combine(const float *main, const struct contrast_term *terms, int n_terms, int n_vocab, float *out) {
    const float least = threshold(main, terms, n_terms, n_vocab);
    int removed = 0;
    for (int i = 0; i < n_vocab; i++) {
        const float z = main[i];
        if (z < least || z == -INFINITY) { /* what is impossible stays so: -inf - -inf would be NaN */
            removed += z != -INFINITY;
            out[i] = -INFINITY;
            continue;
        }
        float sum = z;
        for (int k = 0; k < n_terms; k++) {
            const float n = terms[k].logits[i];
            sum += terms[k].weight * (terms[k].added ? n : z - n);
        }
        out[i] = sum;
    }
    return removed;
}
