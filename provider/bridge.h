/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bridge: the programs of a daemon and other hosts. What a program connects to that is not of this host, and
 * what comes for its listeners from others, goes through a couple of endpoints: one of the shm provider, one
 * of the provider that has the ports.
 *
 * Each engine of a daemon has a bridge. It is told what to do, and tells what has come, by letters (post.h):
 * the desk at the other end has the broker. One thread, the domain entered; letters from any.
 */
#ifndef SD_PROVIDER_BRIDGE_H
#define SD_PROVIDER_BRIDGE_H

#include "provider/broker.h"
#include "provider/post.h"
#include "provider/provider.h"

struct bridge;

struct bridge_config {
	size_t size;	 /* sizeof(struct bridge_config) */
	struct pv *san;	 /* has been started */
	struct pv *shm;	 /* for its own ends (pv_shm_open with ""). Both belong to one domain and have
			    pv_upcall as their upcall */
	unsigned engine; /* its number */
	bool bell;	 /* letters come from another thread than the bridge's */
	struct post *desk;
};

struct bridge_stats {
	uint64_t connections; /* now */
	uint64_t made;
};

/* -EINVAL, -ENOMEM, -EMFILE. */
int bridge_open(const struct bridge_config *cfg, struct bridge **out);
/* Where its letters go; its bell ends the sleep of its thread. */
struct post *bridge_post(struct bridge *b);
/* Resets its connections. */
void bridge_close(struct bridge *b);
/* Does what there is to do; returns how much. */
unsigned bridge_progress(struct bridge *b);
/* Is there something to do that nobody rings for? Before sleep. */
bool bridge_is_busy(const struct bridge *b);
/* Reads its letters, and nothing else. */
unsigned bridge_read(struct bridge *b);
/* Any thread. */
void bridge_stats(const struct bridge *b, struct bridge_stats *out);

/* --- another process goes on --- */

/* Closes the ports and writes the connections, for another process's bridge. All letters have been read.
 * -EAGAIN: the ports are not open. */
int bridge_suspend(struct bridge *b, struct sd_pack *p);
/* Nobody else goes on. False: the ports cannot be opened, which may pass; until then the bridge may make no
 * progress. */
bool bridge_resume(struct bridge *b);
/* Opens the ports and takes all of it, but sends nothing. Its letters tell who listens; the broker has been
 * restored, and no other thread uses it. 0; -EIO: the ports cannot be opened, or are others; -EPROTO: it
 * makes no sense; -ENOMEM. On an error the process is to end without closing anything, as the other one goes
 * on. */
int bridge_restore(struct bridge *b, struct broker *broker, struct sd_unpack *u);
/* It is certain that this bridge goes on. */
void bridge_restored(struct bridge *b);
/* Tells versions apart whose records differ. */
uint64_t bridge_save_format(void);

#endif
