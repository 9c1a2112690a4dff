/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pack: values one after the other in a row of bytes, and descriptors beside them, for another process of
 * this host: they are as this machine has them in memory. What went wrong is remembered, so that a writer or
 * a reader looks once, at the end.
 */
#ifndef SD_BASE_PACK_H
#define SD_BASE_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Grows as it is written; zeroed: empty. */
struct sd_pack {
	uint8_t *data;
	size_t len, capacity;
	int *fds; /* borrowed */
	size_t n_fds, fds_capacity;
	bool failed; /* out of memory */
};

void sd_pack_bytes(struct sd_pack *p, const void *bytes, size_t len);
/* The descriptor has to stay open until it has been sent. -1: none, which is told, too. */
void sd_pack_fd(struct sd_pack *p, int fd);
void sd_pack_free(struct sd_pack *p);

#define sd_pack_value(p, v) sd_pack_bytes(p, &(v), sizeof(v))

static inline void sd_pack_u32(struct sd_pack *p, uint32_t v)
{
	sd_pack_value(p, v);
}

static inline void sd_pack_u64(struct sd_pack *p, uint64_t v)
{
	sd_pack_value(p, v);
}

/* Reads bytes that somebody else has; the descriptors are the reader's until they are taken. */
struct sd_unpack {
	const uint8_t *at, *end;
	int *fds;
	unsigned n_fds;
	bool failed; /* what was wanted was not there, or made no sense */
};

/* len bytes as they lie there; NULL, and failed: there are not as many. */
const void *sd_unpack_view(struct sd_unpack *u, size_t len);
/* Copies them; zeros if they are not there. */
void sd_unpack_bytes(struct sd_unpack *u, void *out, size_t len);
/* The next descriptor, which is the caller's then; -1: none was packed, or failed. */
int sd_unpack_fd(struct sd_unpack *u);
/* Fails unless ok: for values that make no sense. Returns whether all has been well. */
static inline bool sd_unpack_check(struct sd_unpack *u, bool ok)
{
	u->failed |= !ok;
	return !u->failed;
}

/* Copies a byte that is false or true. */
void sd_unpack_bool(struct sd_unpack *u, void *out);

/* Any variable: of a bool it is checked that it is one. */
#define sd_unpack_value(u, v)                                                                                \
	_Generic((v), bool : sd_unpack_bool((u), &(v)), default : sd_unpack_bytes((u), &(v), sizeof(v)))

static inline uint32_t sd_unpack_u32(struct sd_unpack *u)
{
	uint32_t v;

	sd_unpack_bytes(u, &v, sizeof v);
	return v;
}

static inline uint64_t sd_unpack_u64(struct sd_unpack *u)
{
	uint64_t v;

	sd_unpack_bytes(u, &v, sizeof v);
	return v;
}

#endif
