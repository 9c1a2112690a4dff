/* SPDX-License-Identifier: BSD-3-Clause */
/* SipHash-2-4 with 64 and 128 bits of output, after the authors' reference. */
#include "base/siphash.h"

#include <string.h>

#include "base/bytes.h"

struct state {
	uint64_t v0, v1, v2, v3;
};

static uint64_t rotl(uint64_t x, int k)
{
	return x << k | x >> (64 - k);
}

static uint64_t le64_get(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof v); /* base/bytes.h asserts a little-endian host */
	return v;
}

static inline void rounds(struct state *s, int n)
{
	while (n--) {
		s->v0 += s->v1;
		s->v1 = rotl(s->v1, 13) ^ s->v0;
		s->v0 = rotl(s->v0, 32);
		s->v2 += s->v3;
		s->v3 = rotl(s->v3, 16) ^ s->v2;
		s->v0 += s->v3;
		s->v3 = rotl(s->v3, 21) ^ s->v0;
		s->v2 += s->v1;
		s->v1 = rotl(s->v1, 17) ^ s->v2;
		s->v2 = rotl(s->v2, 32);
	}
}

static void absorb(struct state *s, const struct sd_sipkey *key, const void *data, size_t len, uint64_t tweak)
{
	const uint8_t *p = data;
	uint64_t last = (uint64_t)len << 56;

	s->v0 = key->k[0] ^ 0x736f6d6570736575;
	s->v1 = key->k[1] ^ 0x646f72616e646f6d ^ tweak;
	s->v2 = key->k[0] ^ 0x6c7967656e657261;
	s->v3 = key->k[1] ^ 0x7465646279746573;
	for (; len >= 8; p += 8, len -= 8) {
		uint64_t m = le64_get(p);

		s->v3 ^= m;
		rounds(s, 2);
		s->v0 ^= m;
	}
	for (size_t i = 0; i < len; i++)
		last |= (uint64_t)p[i] << 8 * i;
	s->v3 ^= last;
	rounds(s, 2);
	s->v0 ^= last;
}

uint64_t sd_siphash64(const struct sd_sipkey *key, const void *data, size_t len)
{
	struct state s;

	absorb(&s, key, data, len, 0);
	s.v2 ^= 0xff;
	rounds(&s, 4);
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

void sd_siphash128(const struct sd_sipkey *key, const void *data, size_t len, uint8_t out[16])
{
	struct state s;
	uint64_t h;

	absorb(&s, key, data, len, 0xee);
	s.v2 ^= 0xee;
	rounds(&s, 4);
	h = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
	memcpy(out, &h, 8);
	s.v1 ^= 0xdd;
	rounds(&s, 4);
	h = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
	memcpy(out + 8, &h, 8);
}
