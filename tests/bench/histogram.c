/* SPDX-License-Identifier: BSD-3-Clause */
#include "histogram.h"

#include <stddef.h>

#define STEP_BITS 7
#define N_COUNTS  (sizeof((struct histogram *)0)->count / sizeof(uint32_t))

/* Values below 256 have a step each; above, the top 8 bits name the step. */
static size_t index_of(uint64_t ns)
{
	unsigned shift = ns < 2 * HISTOGRAM_STEPS ? 0 : 63 - STEP_BITS - (unsigned)__builtin_clzll(ns);
	size_t i = shift * HISTOGRAM_STEPS + (size_t)(ns >> shift);

	return i < N_COUNTS ? i : N_COUNTS - 1;
}

static uint64_t value_of(size_t i)
{
	size_t shift = i < 2 * HISTOGRAM_STEPS ? 0 : i / HISTOGRAM_STEPS - 1;

	return (uint64_t)(i - shift * HISTOGRAM_STEPS) << shift;
}

void histogram_add(struct histogram *h, uint64_t ns)
{
	h->count[index_of(ns)]++;
	h->n++;
	h->sum += ns;
	if (ns > h->max)
		h->max = ns;
}

uint64_t histogram_quantile(const struct histogram *h, double share)
{
	uint64_t below = 0, wanted = (uint64_t)((double)h->n * share);

	for (size_t i = 0; i < N_COUNTS; i++) {
		below += h->count[i];
		if (h->count[i] && below >= wanted)
			return value_of(i);
	}
	return 0;
}

double histogram_mean(const struct histogram *h)
{
	return h->n ? (double)h->sum / (double)h->n : 0;
}
