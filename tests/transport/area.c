/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory that is watched. */
#include "area.h"

#include <string.h>

bool area_open(struct area *a, struct tp_pd *pd, uint32_t len, unsigned skew, unsigned access, uint64_t seed)
{
	size_t size = AREA_GUARD + skew + len + AREA_GUARD;

	*a = (struct area){.pd = pd, .len = len, .access = access};
	a->block = malloc(size);
	a->ought = malloc(size);
	require(a->block && a->ought);
	for (size_t i = 0; i < size; i++) {
		seed = seed * 6364136223846793005 + 1442695040888963407;
		a->block[i] = a->ought[i] = (uint8_t)(seed >> 56);
	}
	a->at = a->block + AREA_GUARD + skew;
	if (tp_mr_register(pd, a->at, len, access, &a->mr)) {
		free(a->block);
		free(a->ought);
		a->mr = NULL;
		return false;
	}
	a->key = tp_mr_rkey(a->mr);
	return true;
}

void area_close(struct area *a)
{
	tp_mr_deregister(a->mr);
	a->mr = NULL;
	free(a->block);
	free(a->ought);
}

struct area *area_find(struct area *all, unsigned n, const struct tp_pd *pd, uint64_t key, unsigned access,
	uint64_t offset, uint64_t len)
{
	for (struct area *a = all; a < all + n; a++) {
		if (a->mr && a->key == key)
			return a->pd == pd && (a->access & access) == access && offset <= a->len &&
					       len <= a->len - offset
				       ? a
				       : NULL;
	}
	return NULL;
}

bool area_is_right(const struct area *a)
{
	return !memcmp(a->block, a->ought, (size_t)(a->at - a->block) + a->len + AREA_GUARD);
}

void area_expect(struct area *a, uint64_t offset, const void *data, size_t len)
{
	if (len)
		memcpy(a->ought + (a->at - a->block) + offset, data, len);
}

static const struct piece *piece_of(const struct piece *p, uint32_t *pos)
{
	while (*pos >= p->len)
		*pos -= (p++)->len;
	return p;
}

uint8_t *piece_at(const struct piece *p, uint32_t pos)
{
	p = piece_of(p, &pos);
	return p->area->at + p->offset + pos;
}

uint8_t *piece_ought(const struct piece *p, uint32_t pos)
{
	p = piece_of(p, &pos);
	return p->area->ought + (p->area->at - p->area->block) + p->offset + pos;
}
