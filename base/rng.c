/* SPDX-License-Identifier: BSD-3-Clause */
/* xoshiro256** seeded through splitmix64, as its authors advise. */
#include "base/rng.h"

static uint64_t rotl(uint64_t x, int k)
{
	return x << k | x >> (64 - k);
}

static uint64_t splitmix64(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

void sd_rng_seed(struct sd_rng *r, uint64_t seed)
{
	for (int i = 0; i < 4; i++)
		r->s[i] = splitmix64(&seed);
}

uint64_t sd_rng_next(struct sd_rng *r)
{
	uint64_t *s = r->s, result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotl(s[3], 45);
	return result;
}

/* Lemire's multiplication; the few values that would make some results likelier are drawn again. */
uint64_t sd_rng_below(struct sd_rng *r, uint64_t n)
{
	unsigned __int128 m = (unsigned __int128)sd_rng_next(r) * n;

	if ((uint64_t)m < n) {
		uint64_t least = -n % n;

		while ((uint64_t)m < least)
			m = (unsigned __int128)sd_rng_next(r) * n;
	}
	return (uint64_t)(m >> 64);
}

double sd_rng_unit(struct sd_rng *r)
{
	return (double)(sd_rng_next(r) >> 11) * 0x1p-53;
}
