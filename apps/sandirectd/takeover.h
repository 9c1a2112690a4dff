/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * takeover: a new daemon goes on with what a running one has. It calls at a socket of its own, an abstract
 * one: a container that has the door mounted does not reach it. It gets a memfd and all descriptors. The
 * first one stands still from then on: it ends when the new one says that it has everything, and goes on
 * itself if that hangs up or is silent for too long.
 */
#ifndef SD_APPS_TAKEOVER_H
#define SD_APPS_TAKEOVER_H

#include <stdint.h>
#include <sys/types.h>

#include "base/pack.h"

/* What the new one has got. */
struct takeover {
	struct sd_unpack unpack;
	uint64_t since; /* when the other stopped, sd_clock_ns() */
	int channel;
	void *map;
	size_t len;
	int *fds;
	unsigned n_fds;
};

/* Where a new one calls that is to go on with who serves at door; -1 after a warning: it cannot. With the
 * rights of who has started this one. */
int takeover_listen(const char *door);

/* The new one: asks, and waits. format: of what it can read. 0, or -errno after a message. */
int takeover_ask(const char *door, uint64_t format, struct takeover *t);
/* It has everything: the other one ends. -EPIPE: that had given it up, and goes on itself. */
int takeover_confirm(struct takeover *t);
/* Frees it, with the descriptors that were not wanted. Before takeover_confirm(): the other one goes on. */
void takeover_end(struct takeover *t);

/* The one that has all this. A process of root's or owner's that has called and reads this format; -1: none.
 */
int takeover_accept(int listening, uid_t owner, uint64_t format);
/* Hands it over, and waits until the other has it. 0: it has; -errno: nobody has, nor will. */
int takeover_give(int channel, const struct sd_pack *p, uint64_t since);

#endif
