/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * worker: one engine of the daemon, with its connections to other hosts. Worker 0 is driven by the thread
 * that has opened it, which has other things to do, too; each other one has a thread of its own, which
 * begins parked.
 */
#ifndef SD_APPS_WORKER_H
#define SD_APPS_WORKER_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "provider/bridge.h"
#include "provider/domain.h"
#include "provider/post.h"

struct worker {
	unsigned number;
	const struct cfg *cfg;
	struct pv_ether_crew *crew; /* NULL: it is alone */
	struct post *desk;
	struct pv_domain *domain;
	struct pv_waiter *waiter;
	struct pv *ether, *shm;
	struct bridge *bridge; /* NULL: there are no ports */
	struct worker_thread *thread;
};

/* Sets up all that needs no port, and the thread. The other fields are given: number, cfg, crew, desk.
 * Pins the thread to its core if cfg says which. 0, or -errno after a message. */
int worker_open(struct worker *w);
/* Has f called in the worker's thread, which is parked, and returns what it has returned. */
int worker_do(struct worker *w, int (*f)(struct worker *w, void *arg), void *arg);
/* Not for worker 0. */
void worker_go(struct worker *w);
/* Returns when it does nothing any more. */
void worker_park(struct worker *w);
/* It goes for the last time: ends its connections, and itself. */
void worker_quit(struct worker *w);
bool worker_has_quit(const struct worker *w);
/* Worker 0 is closed last. The others have quit. */
void worker_close(struct worker *w);

/* Polls while something happens, and for a while after, unless others need the core: they may be the ones
 * that would make it happen. False: nothing happens; true: it does, and it is time to look at other things.
 * Its thread. */
bool worker_poll(struct worker *w, unsigned (*round)(void *ctx), void *ctx);
/* Sleeps until there is something to do. p: other things to wake for. Its thread. */
void worker_sleep(struct worker *w, struct pollfd *p, nfds_t n, uint64_t deadline);
/* One round of providers and bridge; how much there was. Its thread. */
unsigned worker_round(struct worker *w);

#endif
