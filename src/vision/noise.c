/* Diffusion noise: the schedule, and normal numbers without the C library's log, sin and cos. */
#include "vision/noise.h"

#include <math.h>

#include "core/rng.h"
#include "core/status.h"

/* e^x for |x| <= 8, relative error below 1e-14: a series at x/16, where it has converged, then four squarings. */
static double exponential(double x) {
    const double y = x / 16;
    double sum = 1;
    for (int i = 18; i > 0; i--) {
        sum = 1 + sum * y / i;
    }
    for (int i = 0; i < 4; i++) {
        sum *= sum;
    }
    return sum;
}

/* ln x for x > 0, error of a few units in the last place: 2 artanh((m - 1) / (m + 1)) of the mantissa m, which is in
 * [sqrt(1/2), sqrt(2)). */
static double logarithm(double x) {
    const double ln2 = 0x1.62e42fefa39efp-1, half_root = 0x1.6a09e667f3bcdp-1;
    int exponent;
    double m = frexp(x, &exponent); /* exact */
    if (m < half_root) {
        m *= 2;
        exponent--;
    }
    const double z = (m - 1) / (m + 1), square = z * z;
    double sum = 0;
    for (int i = 23; i > 0; i -= 2) {
        sum = sum * square + 1.0 / i;
    }
    return exponent * ln2 + 2 * z * sum;
}

double noise_signal(int step) {
    double kept = 1;
    for (int i = 0; i <= step; i++) {
        const double y = -6 + 12.0 * i / (NOISE_STEPS - 1);
        kept *= 1 - ((0.005 - 1e-5) / (1 + exponential(-y)) + 1e-5);
    }
    return kept;
}

/* Two independent numbers from N(0, 1): Marsaglia's polar method, which needs no angle. */
static void normal_pair(struct rng *r, double pair[2]) {
    double u, v, s;
    do {
        u = 2 * rng_unit(r) - 1;
        v = 2 * rng_unit(r) - 1;
        s = u * u + v * v;
    } while (s >= 1 || s == 0);
    const double scale = sqrt(-2 * logarithm(s) / s);
    pair[0] = u * scale;
    pair[1] = v * scale;
}

candid_status noise_diffuse(const struct noise *noise, int view, float *pixels, size_t n, candid_error *error) {
    if (noise->step < 0 || noise->step >= NOISE_STEPS) {
        return fail(error, CANDID_ERROR_ARGUMENT, "noise step %d, expected 0 to %d", noise->step, NOISE_STEPS - 1);
    }
    const double kept = noise_signal(noise->step), a = sqrt(kept), b = sqrt(1 - kept);
    struct rng r;
    rng_seed_stream(&r, noise->seed, (uint64_t)view);
    double pair[2];
    for (size_t i = 0; i < n; i++) {
        if (i % 2 == 0) {
            normal_pair(&r, pair);
        }
        pixels[i] = (float)(a * (double)pixels[i] + b * pair[i % 2]);
    }
    return CANDID_OK;
}
