/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * couple: two endpoints of different providers, each of which gets what the other has received. What the
 * daemon does for a program's connection to another host: one end in shared memory, the other on the wire.
 *
 * Bytes, the end of each direction, and resets go through; a receiver that does not read holds the sender up.
 * All of it with the domain entered; upcalls only note that there is something to do.
 */
#ifndef SD_PROVIDER_COUPLE_H
#define SD_PROVIDER_COUPLE_H

#include "base/list.h"
#include "base/pack.h"
#include "provider/provider.h"

/* All couples of one domain. */
struct couples {
	struct list all, due;
	uint64_t n;	 /* of all */
	uint64_t parted; /* so many in all */
	uint8_t *scratch;
};

/* One endpoint of a couple: what its upcalls carry as user, as a struct pv_upcall. */
struct couple_side;

int couples_open(struct couples *c);
/* Resets what is left. */
void couples_close(struct couples *c);
/* Two sides for endpoints that are made or have been; out[i] is the user of the i-th. -ENOMEM. */
int couple_new(struct couples *c, struct couple_side *out[2]);
/* From now on they are a couple, which closes them. Both are connected. */
void couple_join(struct couple_side *a, struct pv_ep *ea, struct couple_side *b, struct pv_ep *eb);
/* Nothing came of it: the endpoints are the caller's. */
void couple_free(struct couple_side *either);
/* Calls f with the sides of each, in the order of couple_new(). */
void couples_each(
	struct couples *c, void (*f)(void *ctx, struct couple_side *a, struct couple_side *b), void *ctx);
struct pv_ep *couple_ep(const struct couple_side *side);
/* Whatever has happened to their endpoints, each is looked at with the next progress. */
void couples_look_again(struct couples *c);
/* What is between the endpoints of a couple, for another process, which gives it to a fresh one before it
 * joins it. restore: 0, -EPROTO, -ENOMEM. */
void couple_save(const struct couple_side *either, struct sd_pack *p);
int couple_restore(struct couple_side *either, struct sd_unpack *u);
/* Moves what there is to move; returns how many couples had something. */
unsigned couples_progress(struct couples *c);

#endif
