/* SPDX-License-Identifier: BSD-3-Clause */
/* Seeded pseudo-random numbers (xoshiro256**, Blackman and Vigna 2018): fast and reproducible, not secret. */
#ifndef SD_BASE_RNG_H
#define SD_BASE_RNG_H

#include <stdint.h>

struct sd_rng {
	uint64_t s[4];
};

void sd_rng_seed(struct sd_rng *r, uint64_t seed);
uint64_t sd_rng_next(struct sd_rng *r);
/* Uniform in [0, n), n > 0. */
uint64_t sd_rng_below(struct sd_rng *r, uint64_t n);
/* Uniform in [0, 1). */
double sd_rng_unit(struct sd_rng *r);

#endif
