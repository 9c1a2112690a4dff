/* SPDX-License-Identifier: BSD-3-Clause */
/* bits: one bit per packet number, for a window of TP_BITS consecutive ones; numbers are taken modulo that.
 */
#ifndef SD_TRANSPORT_BITS_H
#define SD_TRANSPORT_BITS_H

#include <stdbool.h>
#include <stdint.h>

#define TP_BITS 1024

struct tp_bits {
	uint64_t w[TP_BITS / 64];
};

static inline void tp_bits_set(struct tp_bits *b, uint64_t n)
{
	b->w[n / 64 % (TP_BITS / 64)] |= 1ull << n % 64;
}

static inline void tp_bits_clear(struct tp_bits *b, uint64_t n)
{
	b->w[n / 64 % (TP_BITS / 64)] &= ~(1ull << n % 64);
}

static inline bool tp_bits_test(const struct tp_bits *b, uint64_t n)
{
	return b->w[n / 64 % (TP_BITS / 64)] >> n % 64 & 1;
}

/* The 64 bits from n on, n in the least significant place. */
static inline uint64_t tp_bits_get64(const struct tp_bits *b, uint64_t n)
{
	uint64_t low = b->w[n / 64 % (TP_BITS / 64)] >> n % 64;

	return n % 64 ? low | b->w[(n / 64 + 1) % (TP_BITS / 64)] << (64 - n % 64) : low;
}

/* The lowest n bits; n at most 64. */
static inline uint64_t tp_bits_mask(uint64_t n)
{
	return n >= 64 ? ~0ull : (1ull << n) - 1;
}

/* The first number in [from, to) whose bit is set; to: none. to - from is at most TP_BITS. */
static inline uint64_t tp_bits_next(const struct tp_bits *b, uint64_t from, uint64_t to)
{
	while (from < to) {
		uint64_t word = tp_bits_get64(b, from) & tp_bits_mask(to - from);

		if (word)
			return from + (uint64_t)__builtin_ctzll(word);
		from += 64;
	}
	return to;
}

#endif
