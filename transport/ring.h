/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * ring: a byte stream's window in memory. A byte lives at its stream offset, from some base on, modulo the
 * size, a power of two; who may touch which range is the owner's business. While nothing is in it the base
 * may be moved: short messages always use the same few cache lines then, instead of all of the ring by turns.
 */
#ifndef SD_TRANSPORT_RING_H
#define SD_TRANSPORT_RING_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct tp_ring {
	uint8_t *data;
	uint32_t size;
	uint32_t base; /* low half of the offset that is at the beginning */
};

static inline uint32_t tp_ring_index(const struct tp_ring *r, uint64_t off)
{
	return ((uint32_t)off - r->base) & (r->size - 1);
}

/* Nothing is in it; off is what comes next. */
static inline void tp_ring_rewind(struct tp_ring *r, uint64_t off)
{
	r->base = (uint32_t)off;
}

static inline void tp_ring_put(const struct tp_ring *r, uint64_t off, const void *src, size_t len)
{
	size_t at = tp_ring_index(r, off), first = r->size - at;

	if (__builtin_expect(len <= first, 1)) {
		memcpy(r->data + at, src, len);
		return;
	}
	memcpy(r->data + at, src, first);
	memcpy(r->data, (const uint8_t *)src + first, len - first);
}

static inline void tp_ring_get(const struct tp_ring *r, uint64_t off, void *dst, size_t len)
{
	size_t at = tp_ring_index(r, off), first = r->size - at;

	if (__builtin_expect(len <= first, 1)) {
		memcpy(dst, r->data + at, len);
		return;
	}
	memcpy(dst, r->data + at, first);
	memcpy((uint8_t *)dst + first, r->data, len - first);
}

/* Where [off, off + len) is: bytes from *at, and what is left from the ring's beginning. */
static inline size_t tp_ring_at(const struct tp_ring *r, uint64_t off, size_t len, const uint8_t **at)
{
	size_t i = tp_ring_index(r, off);

	*at = r->data + i;
	return len <= r->size - i ? len : r->size - i;
}

/* Copies [off, off + len) of one ring to the same offsets of another, larger one. */
static inline void tp_ring_move(
	const struct tp_ring *to, const struct tp_ring *from, uint64_t off, size_t len)
{
	size_t at = tp_ring_index(from, off), first = from->size - at;

	if (first > len)
		first = len;
	tp_ring_put(to, off, from->data + at, first);
	tp_ring_put(to, off + first, from->data, len - first);
}

#endif
