/* SPDX-License-Identifier: BSD-3-Clause */
/* A byte ring of a fixed power-of-two size with absolute cursors. One thread at a time. */
#ifndef SD_PROVIDER_BYTERING_H
#define SD_PROVIDER_BYTERING_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bytering {
	uint8_t *data;
	uint32_t size;
	uint64_t head, tail; /* bytes ever read and written */
};

static inline size_t bytering_used(const struct bytering *r)
{
	return r->tail - r->head;
}

static inline size_t bytering_room(const struct bytering *r)
{
	return r->size - bytering_used(r);
}

static inline size_t bytering_write(struct bytering *r, const void *src, size_t len)
{
	size_t n = len < bytering_room(r) ? len : bytering_room(r), at = r->tail & (r->size - 1);
	size_t first = n < r->size - at ? n : r->size - at;

	if (!n)
		return 0; /* src may be NULL, which memcpy must not be given */
	memcpy(r->data + at, src, first);
	memcpy(r->data, (const uint8_t *)src + first, n - first);
	r->tail += n;
	return n;
}

/* Copies without consuming, from skip bytes past the head. */
static inline size_t bytering_peek(const struct bytering *r, void *dst, size_t len, size_t skip)
{
	size_t have = bytering_used(r) > skip ? bytering_used(r) - skip : 0, n = len < have ? len : have;
	size_t at = (r->head + skip) & (r->size - 1), first = n < r->size - at ? n : r->size - at;

	if (!n)
		return 0;
	memcpy(dst, r->data + at, first);
	memcpy((uint8_t *)dst + first, r->data, n - first);
	return n;
}

static inline size_t bytering_read(struct bytering *r, void *dst, size_t len)
{
	size_t n = bytering_peek(r, dst, len, 0);

	r->head += n;
	return n;
}

#endif
