/* SPDX-License-Identifier: BSD-3-Clause */
/* FNV-1a (Fowler, Noll, Vo), 64 bits: a name or a digest for bytes that nobody chooses to do harm. */
#ifndef SD_BASE_FNV_H
#define SD_BASE_FNV_H

#include <stddef.h>
#include <stdint.h>

/* What to begin with. */
#define SD_FNV_BASIS 14695981039346656037ull

/* The digest of what h is that of, and these bytes behind it. */
static inline uint64_t sd_fnv(uint64_t h, const void *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		h = (h ^ ((const uint8_t *)bytes)[i]) * 1099511628211ull;
	return h;
}

#endif
