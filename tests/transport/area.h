/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * area: a region and the memory under it, with guards around, and a copy that says what ought to be there.
 * The memory is freed with the region, so that whoever reaches it later is seen.
 */
#ifndef SD_TESTS_TRANSPORT_AREA_H
#define SD_TESTS_TRANSPORT_AREA_H

#include "script.h"
#include "transport/verbs.h"

#define AREA_GUARD 32u
#define AREA_MAX   1024u

struct area {
	struct tp_mr *mr; /* NULL: it is closed */
	struct tp_pd *pd;
	uint64_t key;
	unsigned access;
	uint32_t len;
	uint8_t *block, *at; /* the region begins at at, in the block */
	uint8_t *ought;	     /* of the block */
};

/* A piece of one. */
struct piece {
	struct area *area;
	uint32_t offset, len;
};

/* skew: how far its beginning is from an aligned address. False: it was refused. */
bool area_open(struct area *a, struct tp_pd *pd, uint32_t len, unsigned skew, unsigned access, uint64_t seed);
void area_close(struct area *a);
/* The area of this key that gives these rights to these bytes; NULL: none of the n. */
struct area *area_find(struct area *all, unsigned n, const struct tp_pd *pd, uint64_t key, unsigned access,
	uint64_t offset, uint64_t len);
/* Is all there that ought to be, and nothing else? */
bool area_is_right(const struct area *a);
/* From now on these bytes ought to be there. */
void area_expect(struct area *a, uint64_t offset, const void *data, size_t len);
/* The byte of these pieces; what is there, or what ought to be. */
uint8_t *piece_at(const struct piece *p, uint32_t pos);
uint8_t *piece_ought(const struct piece *p, uint32_t pos);

#endif
