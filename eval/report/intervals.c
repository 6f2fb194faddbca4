/* Bootstrap and McNemar's test. */
#include "eval/report/intervals.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "core/status.h"

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, *y = b;
    return x < *y ? -1 : x > *y;
}

/* The q quantile of sorted values [n], n > 0, linear between neighbours. */
static double quantile(const double *sorted, size_t n, double q) {
    const double at = q * (double)(n - 1);
    const size_t i = (size_t)at;
    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]) : sorted[i];
}

/* Sorts what is defined of values [n] to the front; returns how many. */
static size_t sort_defined(double *values, size_t n) {
    size_t defined = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isnan(values[i])) {
            values[defined++] = values[i];
        }
    }
    qsort(values, defined, sizeof *values, by_value);
    return defined;
}

/* draws [resamples]: differences in, sorted out. */
static void summarise_difference(double *draws, size_t resamples, struct interval *out) {
    const size_t n = sort_defined(draws, resamples);
    size_t below = 0, above = 0;
    for (size_t i = 0; i < n; i++) {
        below += draws[i] <= 0.0;
        above += draws[i] >= 0.0;
    }
    if (n > 0) {
        out->difference_low = quantile(draws, n, 0.025);
        out->difference_high = quantile(draws, n, 0.975);
        const double p = 2.0 * (double)(1 + (below < above ? below : above)) / (double)(n + 1);
        out->p = p < 1.0 ? p : 1.0;
    }
}

/* values [n_runs][n_metrics][resamples] */
static void resample_all(const struct intervals_problem *p, size_t *draw, double *sums, double *of, double *values) {
    struct rng rng;
    rng_seed(&rng, p->seed);
    for (size_t b = 0; b < p->resamples; b++) {
        for (size_t u = 0; u < p->n_units; u++) {
            draw[u] = (size_t)rng_below(&rng, p->n_units);
        }
        for (size_t run = 0; run < p->n_runs; run++) {
            const double *counts = p->counts + run * p->n_units * p->n_counts;
            memset(sums, 0, p->n_counts * sizeof *sums);
            for (size_t u = 0; u < p->n_units; u++) {
                const double *c = counts + draw[u] * p->n_counts;
                for (size_t k = 0; k < p->n_counts; k++) {
                    sums[k] += c[k];
                }
            }
            p->measure(p->context, sums, of);
            for (size_t m = 0; m < p->n_metrics; m++) {
                values[(run * p->n_metrics + m) * p->resamples + b] = of[m];
            }
        }
    }
}

candid_status intervals_bootstrap(const struct intervals_problem *p, struct interval *out, candid_error *error) {
    const size_t n_series = p->n_runs * p->n_metrics, n = p->resamples;
    for (size_t i = 0; i < n_series; i++) {
        out[i] = (struct interval){NAN, NAN, NAN, NAN, NAN};
    }
    if (n_series == 0 || n == 0 || p->n_units == 0) {
        return CANDID_OK;
    }
    double *values =
        n_series > SIZE_MAX / sizeof(double) / (n + 1) ? NULL : malloc((n_series + 1) * n * sizeof *values);
    double *sums = malloc((p->n_counts + p->n_metrics + 1) * sizeof *sums);
    size_t *draw = malloc(p->n_units * sizeof *draw);
    candid_status status = CANDID_OK;
    if (values && sums && draw) {
        resample_all(p, draw, sums, sums + p->n_counts, values);
        double *scratch = values + n_series * n;
        const double *base = p->baseline < p->n_runs ? values + p->baseline * p->n_metrics * n : NULL;
        for (size_t i = 0; base && i < n_series; i++) { /* before the baseline is sorted */
            for (size_t b = 0; b < n; b++) {
                scratch[b] = values[i * n + b] - base[i % p->n_metrics * n + b];
            }
            if (i / p->n_metrics != p->baseline) {
                summarise_difference(scratch, n, &out[i]);
            }
        }
        for (size_t i = 0; i < n_series; i++) {
            const size_t defined = sort_defined(values + i * n, n);
            if (defined > 0) {
                out[i].low = quantile(values + i * n, defined, 0.025);
                out[i].high = quantile(values + i * n, defined, 0.975);
            }
        }
    } else {
        status = fail_memory(error, "the resampled values", (n_series + 1) * n * sizeof *values);
    }
    free(values);
    free(sums);
    free(draw);
    return status;
}

double intervals_mcnemar(size_t only_a, size_t only_b) {
    const size_t n = only_a + only_b, few = only_a < only_b ? only_a : only_b;
    double p = 0.0;
    for (size_t k = 0; k <= few; k++) { /* binomial(n, 1/2) in logarithms: n may be thousands */
        p += exp(lgamma((double)n + 1) - lgamma((double)k + 1) - lgamma((double)(n - k) + 1) - (double)n * log(2.0));
    }
    return fmin(1.0, 2.0 * p);
}
