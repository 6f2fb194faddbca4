/* The middle of repeated measurements. */
#ifndef CANDID_CLI_BENCH_MEDIAN_H
#define CANDID_CLI_BENCH_MEDIAN_H

/* The mean of the middle two for an even n. Sorts the values; n > 0. */
double bench_median(double *values, int n);

#endif
