/*
 * The sampler. Probabilities are handled as unnormalised double weights exp((logit - max) / temperature); whatever
 * removes a token sets its weight to 0.
 */
#include "decode/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "core/status.h"

struct sampler {
    struct sampler_params params;
    int n_vocab;
    struct rng random;
    bool *is_seen; /* [n_vocab] */
    int32_t *seen; /* [n_seen] distinct tokens */
    int n_seen;
    double *weights; /* [n_vocab] */
    float *sorted;   /* [n_vocab] scratch of top-k */
    int32_t *heap;   /* [n_vocab] scratch of top-p */
};

/* ---- life ---- */

candid_status sampler_check(const struct sampler_params *p, int n_vocab, candid_error *error) {
    if (!(p->temperature >= 0) || !isfinite(p->temperature)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "temperature must be a finite number, 0 or more, not %g",
                    (double)p->temperature);
    }
    if (p->top_k < 0) {
        return fail(error, CANDID_ERROR_ARGUMENT, "top_k must be 0 (off) or more, not %d", p->top_k);
    }
    if (!(p->top_p > 0 && p->top_p <= 1)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "top_p must be above 0 and at most 1 (off), not %g",
                    (double)p->top_p);
    }
    if (!(p->repetition_penalty > 0) || !isfinite(p->repetition_penalty)) {
        return fail(error, CANDID_ERROR_ARGUMENT, "repetition_penalty must be a finite number above 0 (1: off), not %g",
                    (double)p->repetition_penalty);
    }
    if (n_vocab <= 0 || (size_t)n_vocab > SIZE_MAX / 32) {
        return fail(error, CANDID_ERROR_ARGUMENT, "a sampler needs a vocabulary of at least one token, not %d",
                    n_vocab);
    }
    return CANDID_OK;
}

candid_status sampler_create(const struct sampler_params *params, int n_vocab, struct sampler **out,
                             candid_error *error) {
    TRY(sampler_check(params, n_vocab, error));
    struct sampler *s = calloc(1, sizeof *s);
    if (!s) {
        return fail_memory(error, "the sampler", sizeof *s);
    }
    const size_t n = (size_t)n_vocab;
    s->params = *params;
    s->n_vocab = n_vocab;
    s->is_seen = calloc(n, sizeof *s->is_seen);
    s->seen = calloc(n, sizeof *s->seen);
    s->weights = calloc(n, sizeof *s->weights);
    s->sorted = calloc(n, sizeof *s->sorted);
    s->heap = calloc(n, sizeof *s->heap);
    if (!s->is_seen || !s->seen || !s->weights || !s->sorted || !s->heap) {
        sampler_free(s);
        return fail_memory(
            error, "the sampler",
            n * (sizeof *s->is_seen + sizeof *s->seen + sizeof *s->weights + sizeof *s->sorted + sizeof *s->heap));
    }
    rng_seed(&s->random, params->seed);
    *out = s;
    return CANDID_OK;
}

void sampler_free(struct sampler *s) {
    if (s) {
        free(s->is_seen);
        free(s->seen);
        free(s->weights);
        free(s->sorted);
        free(s->heap);
        free(s);
    }
}

void sampler_accept(struct sampler *s, int32_t token) {
    if (token >= 0 && token < s->n_vocab && !s->is_seen[token]) {
        s->is_seen[token] = true;
        s->seen[s->n_seen++] = token;
    }
}

/* ---- processors ---- */

static void penalize_repetition(const struct sampler *s, float *logits) {
    const float penalty = s->params.repetition_penalty;
    if (penalty == 1) {
        return;
    }
    for (int i = 0; i < s->n_seen; i++) {
        float *logit = &logits[s->seen[i]];
        *logit = *logit < 0 ? *logit * penalty : *logit / penalty;
    }
}

/* The greatest logit's smallest id, or -1 if the logits allow no choice. */
static int32_t find_greatest(const float *logits, int n) {
    int32_t best = -1;
    float greatest = -INFINITY;
    for (int i = 0; i < n; i++) {
        if (isnan(logits[i]) || logits[i] == INFINITY) {
            return -1;
        }
        if (logits[i] > greatest) {
            greatest = logits[i];
            best = i;
        }
    }
    return best;
}

/* The k-th greatest (k from 1) of values[n], which are reordered. Quickselect. */
static float select_greatest(float *values, int n, int k) {
    int low = 0, high = n - 1;
    while (low < high) {
        const float pivot = values[low + (high - low) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (values[i] > pivot) {
                i++;
            }
            while (values[j] < pivot) {
                j--;
            }
            if (i <= j) {
                const float swap = values[i];
                values[i++] = values[j];
                values[j--] = swap;
            }
        }
        if (k - 1 <= j) {
            high = j;
        } else if (k - 1 >= i) {
            low = i;
        } else {
            break; /* between the two parts: all equal to the pivot */
        }
    }
    return values[k - 1];
}

/* Greater weight first, then the smaller id. */
static bool before(const double *weights, int32_t a, int32_t b) {
    return weights[a] > weights[b] || (weights[a] == weights[b] && a < b);
}

static void sift_down(const double *weights, int32_t *heap, int n, int i) {
    const int32_t id = heap[i];
    for (int child = 2 * i + 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && before(weights, heap[child + 1], heap[child])) {
            child++;
        }
        if (!before(weights, heap[child], id)) {
            break;
        }
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = id;
}

/*
 * transformers sorts ascending and removes while the cumulative probability is <= 1 - top_p; the same rule from the
 * other end is: keep a token while the sum of all greater ones is < top_p. A heap needs to order only what is kept.
 */
static void keep_top_p(struct sampler *s) {
    int n = 0;
    double total = 0;
    for (int32_t id = 0; id < s->n_vocab; id++) {
        if (s->weights[id] > 0) {
            s->heap[n++] = id;
            total += s->weights[id];
        }
    }
    for (int i = n / 2 - 1; i >= 0; i--) {
        sift_down(s->weights, s->heap, n, i);
    }
    double above = 0;
    while (n > 0 && above < (double)s->params.top_p * total) {
        above += s->weights[s->heap[0]];
        s->heap[0] = s->heap[--n];
        if (n > 0) {
            sift_down(s->weights, s->heap, n, 0);
        }
    }
    for (int i = 0; i < n; i++) { /* what is left in the heap is not kept */
        s->weights[s->heap[i]] = 0;
    }
}

/* Fills s->weights from logits without NaN whose greatest is logits[best]. */
static void fill_weights(struct sampler *s, const float *logits, int32_t best) {
    float threshold = -INFINITY;
    if (s->params.top_k > 0 && s->params.top_k < s->n_vocab) {
        memcpy(s->sorted, logits, (size_t)s->n_vocab * sizeof *logits);
        threshold = select_greatest(s->sorted, s->n_vocab, s->params.top_k);
    }
    const double greatest = logits[best], temperature = s->params.temperature;
    for (int i = 0; i < s->n_vocab; i++) {
        s->weights[i] = logits[i] >= threshold ? exp((logits[i] - greatest) / temperature) : 0;
    }
    if (s->params.top_p < 1) {
        keep_top_p(s);
    }
}

static double sum_weights(const struct sampler *s) {
    double total = 0;
    for (int i = 0; i < s->n_vocab; i++) {
        total += s->weights[i];
    }
    return total;
}

int32_t sampler_pick(struct sampler *s, float *logits) {
    penalize_repetition(s, logits);
    const int32_t best = find_greatest(logits, s->n_vocab);
    if (best < 0 || s->params.temperature == 0) {
        return best;
    }
    fill_weights(s, logits, best);
    const double target = rng_unit(&s->random) * sum_weights(s);
    double sum = 0;
    for (int32_t id = 0; id < s->n_vocab; id++) {
        sum += s->weights[id];
        if (sum > target) {
            return id;
        }
    }
    return best; /* only if target was rounded up to the sum */
}

bool sampler_probabilities(struct sampler *s, float *logits, float *probs) {
    penalize_repetition(s, logits);
    const int32_t best = find_greatest(logits, s->n_vocab);
    if (best < 0) {
        return false;
    }
    if (s->params.temperature == 0) {
        memset(probs, 0, (size_t)s->n_vocab * sizeof *probs);
        probs[best] = 1;
        return true;
    }
    fill_weights(s, logits, best);
    const double total = sum_weights(s);
    for (int i = 0; i < s->n_vocab; i++) {
        probs[i] = (float)(s->weights[i] / total);
    }
    return true;
}
