/* SPDX-License-Identifier: BSD-3-Clause */
/* A log-linear histogram of nanoseconds: 128 steps for each power of two, so percentiles are within 0.8 %.
 * Small enough to stay in the cache while it measures. */
#ifndef SD_BENCH_HISTOGRAM_H
#define SD_BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEPS 128

struct histogram {
	uint64_t n, sum, max;
	uint32_t count[34 * HISTOGRAM_STEPS]; /* up to 1000 s */
};

void histogram_add(struct histogram *h, uint64_t ns);
/* The value that share (0 to 1) of all values do not exceed; 0: empty. */
uint64_t histogram_quantile(const struct histogram *h, double share);
double histogram_mean(const struct histogram *h);

#endif
