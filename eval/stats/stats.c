#include "eval/stats/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "core/status.h"

double stats_ratio(const double *sums, const void *context) {
    const size_t *index = context;
    return sums[index[1]] != 0 ? sums[index[0]] / sums[index[1]] : NAN;
}

double stats_f1(const double *sums, const void *context) {
    const size_t *index = context;
    const double tp = sums[index[0]], wrong = sums[index[1]] + sums[index[2]];
    return 2 * tp + wrong != 0 ? 2 * tp / (2 * tp + wrong) : NAN;
}

/* ---- bootstrap ---- */

/* Sums per cluster of one or two runs side by side, so that a draw reads one row. */
struct clusters {
    double *sums; /* [n][width] */
    size_t n, width;
};

static candid_status make_clusters(const struct stats_data *data, const double *const *runs, size_t n_runs,
                                   struct clusters *out, candid_error *error) {
    const size_t width = n_runs * data->n_counts;
    size_t n = data->cluster ? 0 : data->n;
    for (size_t i = 0; data->cluster && i < data->n; i++) {
        if (data->cluster[i] >= data->n) {
            return fail(error, CANDID_ERROR_ARGUMENT, "item %zu: expected a cluster below %zu, found %zu", i, data->n,
                        data->cluster[i]);
        }
        n = data->cluster[i] >= n ? data->cluster[i] + 1 : n;
    }
    double *sums = calloc(n * width, sizeof *sums);
    unsigned char *used = calloc(n, 1);
    if (!sums || !used) {
        free(sums);
        free(used);
        return fail_memory(error, "bootstrap clusters", n * width * sizeof *sums);
    }
    for (size_t i = 0; i < data->n; i++) {
        const size_t c = data->cluster ? data->cluster[i] : i;
        used[c] = 1;
        for (size_t k = 0; k < width; k++) {
            sums[c * width + k] += runs[k / data->n_counts][i * data->n_counts + k % data->n_counts];
        }
    }
    size_t n_used = 0; /* numbers that no item has are no clusters */
    for (size_t c = 0; c < n; c++) {
        if (used[c]) {
            memmove(sums + n_used++ * width, sums + c * width, width * sizeof *sums);
        }
    }
    free(used);
    *out = (struct clusters){sums, n_used, width};
    return CANDID_OK;
}

/* Uniform below n < 2^32 without division (Lemire 2019). */
static size_t draw_below(struct rng *r, uint32_t n) {
    uint64_t product = (rng_next(r) >> 32) * n;
    if ((uint32_t)product < n) {
        const uint32_t limit = -n % n;
        while ((uint32_t)product < limit) {
            product = (rng_next(r) >> 32) * n;
        }
    }
    return (size_t)(product >> 32);
}

/* Sums of as many clusters as there are, drawn with replacement. */
static void draw(const struct clusters *c, struct rng *r, double *sums) {
    memset(sums, 0, c->width * sizeof *sums);
    for (size_t i = 0; i < c->n; i++) {
        const double *row = c->sums + draw_below(r, (uint32_t)c->n) * c->width;
        for (size_t k = 0; k < c->width; k++) {
            sums[k] += row[k];
        }
    }
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Linear interpolation between order statistics. */
static double quantile(const double *sorted, size_t n, double q) {
    const double at = q * (double)(n - 1);
    const size_t below = (size_t)at;
    const size_t above = below + 1 < n ? below + 1 : below;
    return sorted[below] + (at - (double)below) * (sorted[above] - sorted[below]);
}

/* values: [n] of the resamples, in any order, NAN where undefined; sorted in place. */
static struct stats_interval make_interval(double value, double *values, int n, double level) {
    size_t n_defined = 0;
    for (int i = 0; i < n; i++) {
        if (!isnan(values[i])) {
            values[n_defined++] = values[i];
        }
    }
    struct stats_interval out = {value, NAN, NAN, n - (int)n_defined};
    if (n_defined > 0 && !isnan(value)) {
        qsort(values, n_defined, sizeof *values, compare_doubles);
        out.low = quantile(values, n_defined, (1 - level) / 2);
        out.high = quantile(values, n_defined, (1 + level) / 2);
    }
    return out;
}

/* Values of the metrics for one or two runs in every resample: [n_runs][n_metrics][n_resamples], and for all items
 * [n_runs][n_metrics]. */
struct resamples {
    double *values, *all;
    int n;
    double level;
};

static void evaluate(const double *sums, size_t n_counts, size_t n_runs, const struct stats_metric *metrics,
                     size_t n_metrics, double *out, size_t step) {
    for (size_t m = 0; m < n_runs * n_metrics; m++) {
        const struct stats_metric *metric = &metrics[m % n_metrics];
        out[m * step] = metric->value(sums + m / n_metrics * n_counts, metric->context);
    }
}

static candid_status resample(const struct stats_data *data, const double *const *runs, size_t n_runs,
                              const struct stats_metric *metrics, size_t n_metrics, const struct stats_options *options,
                              struct resamples *out, candid_error *error) {
    *out = (struct resamples){.n = options && options->n_resamples > 0 ? options->n_resamples : 10000,
                              .level = options && options->level > 0 ? options->level : 0.95};
    if (data->n == 0 || data->n > UINT32_MAX || data->n_counts == 0 || out->level >= 1) {
        return fail(error, CANDID_ERROR_ARGUMENT, "a bootstrap needs items, counts and a level below 1");
    }
    struct clusters clusters = {0};
    TRY(make_clusters(data, runs, n_runs, &clusters, error));
    const size_t n_values = n_runs * n_metrics;
    double *sums = calloc(clusters.width, sizeof *sums);
    out->values = malloc((n_values * (size_t)out->n + 1) * sizeof *out->values);
    out->all = malloc((n_values + 1) * sizeof *out->all);
    if (!sums || !out->values || !out->all) {
        free(sums);
        free(out->values);
        free(out->all);
        free(clusters.sums);
        return fail_memory(error, "bootstrap samples", n_values * (size_t)out->n * sizeof *out->values);
    }
    for (size_t c = 0; c < clusters.n; c++) {
        for (size_t k = 0; k < clusters.width; k++) {
            sums[k] += clusters.sums[c * clusters.width + k];
        }
    }
    evaluate(sums, data->n_counts, n_runs, metrics, n_metrics, out->all, 1);
    struct rng r;
    rng_seed(&r, options ? options->seed : 0);
    for (int s = 0; s < out->n; s++) {
        draw(&clusters, &r, sums);
        evaluate(sums, data->n_counts, n_runs, metrics, n_metrics, out->values + s, (size_t)out->n);
    }
    free(sums);
    free(clusters.sums);
    return CANDID_OK;
}

candid_status stats_bootstrap(const struct stats_data *data, const struct stats_metric *metrics, size_t n_metrics,
                              const struct stats_options *options, struct stats_interval *out, candid_error *error) {
    struct resamples r = {0};
    TRY(resample(data, (const double *const[]){data->counts}, 1, metrics, n_metrics, options, &r, error));
    for (size_t m = 0; m < n_metrics; m++) {
        out[m] = make_interval(r.all[m], r.values + m * (size_t)r.n, r.n, r.level);
    }
    free(r.values);
    free(r.all);
    return CANDID_OK;
}

/* Twice the smaller of the shares of draws with b <= a and with b >= a, the observed one counted in. */
static double two_sided_p(const double *differences, int n) {
    int below = 0, above = 0, defined = 0;
    for (int i = 0; i < n; i++) {
        below += differences[i] <= 0;
        above += differences[i] >= 0;
        defined += !isnan(differences[i]);
    }
    const double p = 2.0 * (1 + (below < above ? below : above)) / (1 + defined);
    return defined == 0 ? NAN : p < 1 ? p : 1;
}

candid_status stats_compare(const struct stats_data *data, const double *counts_a, const double *counts_b,
                            const struct stats_metric *metrics, size_t n_metrics, const struct stats_options *options,
                            struct stats_difference *out, candid_error *error) {
    struct resamples r = {0};
    TRY(resample(data, (const double *const[]){counts_a, counts_b}, 2, metrics, n_metrics, options, &r, error));
    const size_t n = (size_t)r.n;
    double *differences = malloc(n * sizeof *differences);
    for (size_t m = 0; differences && m < n_metrics; m++) {
        double *a = r.values + m * n, *b = r.values + (n_metrics + m) * n;
        for (size_t s = 0; s < n; s++) {
            differences[s] = b[s] - a[s];
        }
        out[m].p = two_sided_p(differences, r.n);
        out[m].difference = make_interval(r.all[n_metrics + m] - r.all[m], differences, r.n, r.level);
        out[m].a = make_interval(r.all[m], a, r.n, r.level);
        out[m].b = make_interval(r.all[n_metrics + m], b, r.n, r.level);
    }
    free(r.values);
    free(r.all);
    const bool ok = differences != NULL;
    free(differences);
    return ok ? CANDID_OK : fail_memory(error, "bootstrap samples", n * sizeof *differences);
}

/* ---- McNemar ---- */

/* Probability of k heads in n throws of a fair coin. */
static double coin(double k, double n) {
    return exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) - n * log(2));
}

struct stats_mcnemar stats_mcnemar(const double *correct_a, const double *correct_b, size_t n) {
    struct stats_mcnemar out = {.p = 1, .mid_p = 1};
    for (size_t i = 0; i < n; i++) {
        const bool a = correct_a[i] != 0, b = correct_b[i] != 0;
        out.both += a && b;
        out.only_a += a && !b;
        out.only_b += b && !a;
        out.neither += !a && !b;
    }
    const size_t fewer = out.only_a < out.only_b ? out.only_a : out.only_b, discordant = out.only_a + out.only_b;
    const double observed = coin((double)fewer, (double)discordant);
    if (out.only_a == out.only_b) {
        out.mid_p = discordant > 0 ? 1 - observed / 2 : 1;
        return out;
    }
    double tail = 0;
    for (size_t k = 0; k <= fewer; k++) {
        tail += coin((double)k, (double)discordant);
    }
    out.p = 2 * tail < 1 ? 2 * tail : 1;
    out.mid_p = out.p - observed;
    return out;
}

/* ---- clusters ---- */

struct text_at {
    const char *text;
    size_t index;
};

static int compare_texts(const void *a, const void *b) {
    const struct text_at *x = a, *y = b;
    const int order = strcmp(x->text, y->text);
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

candid_status stats_clusters(const char *const *texts, size_t n, size_t *out, candid_error *error) {
    struct text_at *sorted = malloc((n + 1) * sizeof *sorted);
    if (!sorted) {
        return fail_memory(error, "clusters", (n + 1) * sizeof *sorted);
    }
    size_t n_texts = 0;
    for (size_t i = 0; i < n; i++) {
        out[i] = i;
        if (texts[i]) {
            sorted[n_texts++] = (struct text_at){texts[i], i};
        }
    }
    qsort(sorted, n_texts, sizeof *sorted, compare_texts);
    for (size_t i = 1; i < n_texts; i++) {
        if (strcmp(sorted[i - 1].text, sorted[i].text) == 0) {
            out[sorted[i].index] = out[sorted[i - 1].index];
        }
    }
    free(sorted);
    return CANDID_OK;
}
