/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/pack.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_BYTES 65536u
#define FIRST_FDS   64u

/* Where n more elements go; NULL: there is no memory. */
static void *room(struct sd_pack *p, void **array, size_t used, size_t *capacity, size_t n, size_t element)
{
	size_t wanted = *capacity;
	void *larger;

	if (p->failed)
		return NULL;
	while (wanted - used < n) {
		if (wanted > SIZE_MAX / 2 / element) {
			p->failed = true;
			return NULL;
		}
		wanted = wanted ? wanted * 2 : element == 1 ? FIRST_BYTES : FIRST_FDS;
	}
	if (wanted != *capacity) {
		larger = realloc(*array, wanted * element);
		if (!larger) {
			p->failed = true;
			return NULL;
		}
		*array = larger;
		*capacity = wanted;
	}
	return (char *)*array + used * element;
}

void sd_pack_bytes(struct sd_pack *p, const void *bytes, size_t len)
{
	void *at = room(p, (void **)&p->data, p->len, &p->capacity, len, 1);

	if (!at || !len)
		return;
	memcpy(at, bytes, len);
	p->len += len;
}

void sd_pack_fd(struct sd_pack *p, int fd)
{
	uint8_t there = fd >= 0;
	int *at;

	sd_pack_value(p, there);
	if (!there)
		return;
	at = room(p, (void **)&p->fds, p->n_fds, &p->fds_capacity, 1, sizeof fd);
	if (!at)
		return;
	*at = fd;
	p->n_fds++;
}

void sd_pack_free(struct sd_pack *p)
{
	free(p->data);
	free(p->fds);
	*p = (struct sd_pack){0};
}

const void *sd_unpack_view(struct sd_unpack *u, size_t len)
{
	const void *at = u->at;

	if (!sd_unpack_check(u, len <= (size_t)(u->end - u->at)))
		return NULL;
	u->at += len;
	return at;
}

void sd_unpack_bytes(struct sd_unpack *u, void *out, size_t len)
{
	const void *from = sd_unpack_view(u, len);

	if (from)
		memcpy(out, from, len);
	else
		memset(out, 0, len);
}

void sd_unpack_bool(struct sd_unpack *u, void *out)
{
	uint8_t byte;

	sd_unpack_bytes(u, &byte, 1);
	byte = sd_unpack_check(u, byte <= 1) ? byte : 0;
	memcpy(out, &byte, 1);
}

int sd_unpack_fd(struct sd_unpack *u)
{
	uint8_t there;

	sd_unpack_value(u, there);
	if (!there || !sd_unpack_check(u, there == 1 && u->n_fds))
		return -1;
	u->n_fds--;
	return *u->fds++;
}
