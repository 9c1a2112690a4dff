/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * domain: who drives the providers of this process, and how threads wait.
 *
 * One token guards everything SAN in a process. A thread inside the library holds it (pv_enter), drives the
 * providers itself (pv_progress) and gives it back (pv_leave). The token is biased to the thread that used it
 * last, so that entering again costs two plain stores and no atomic instruction; another thread revokes the
 * bias with membarrier(2).
 *
 * When no thread is inside, a helper thread keeps ACKs and timers going. It starts with the first provider
 * that needs it (pv_domain_need_helper), blocks all signals, ticks while application threads are busy, and
 * otherwise sleeps on the ports' interrupts.
 *
 * Forked children: the domain's memory is wiped in them; pv_domain_alive() is false and nothing else may be
 * called.
 */
#ifndef SD_PROVIDER_DOMAIN_H
#define SD_PROVIDER_DOMAIN_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "provider/provider.h"

enum pv_guard {
	PV_GUARD_NONE, /* ours no more */
	PV_GUARD_OWN,  /* this process's: forked children close it */
	PV_GUARD_KEPT, /* forked children need it, too */
};

struct pv_domain_config {
	size_t size;	  /* sizeof(struct pv_domain_config) */
	uint64_t spin_ns; /* how long a waiter polls before it sleeps */
	uint64_t tick_ns; /* the helper's period while application threads are busy; 0: 10 ms */
	/* Called with the domain entered: by the helper when it takes over and about every 100 ms after;
	 * where there is no helper, by threads that sleep. resting: until something happens it is not called
	 * again. */
	void (*tick)(void *ctx, bool resting);
	/* Called once by the new thread before anything else (marks it as internal, so that hooks let it
	 * pass). */
	void (*thread_start)(void *ctx);
	/* A descriptor the domain or a provider owns came to be or goes: the application must not close it.
	 */
	void (*fd_guard)(void *ctx, int fd, enum pv_guard how);
	void *ctx;
	/* The kernel's ppoll(2), where the name is interposed; NULL: ppoll. If it is a cancellation point, it
	 * is the only one of pv_sleep. */
	int (*ppoll)(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask);
};

int pv_domain_open(const struct pv_domain_config *cfg, struct pv_domain **out);
/* Adds a provider (its domain and ready fields are set before). Order is the order of preference. */
int pv_domain_add(struct pv_domain *d, struct pv *p);
/* False in a forked child and after pv_domain_drain. */
bool pv_domain_alive(const struct pv_domain *d);

/* Takes the token. Returns false when this thread already holds it (a signal handler interrupted it, or a
 * callback) or the domain has ended: the caller must then not touch providers. */
bool pv_enter(struct pv_domain *d);
void pv_leave(struct pv_domain *d);
/* Lets others in who want the token, and takes it again. For a holder that polls. */
void pv_yield(struct pv_domain *d);
bool pv_is_inside(const struct pv_domain *d); /* does this thread hold the token? */
/* Drives every provider once. Token held. Returns how much was done. */
unsigned pv_progress(struct pv_domain *d);
/* The time of the last pv_progress or pv_enter that needed one. */
uint64_t pv_now(struct pv_domain *d);
/* A provider has work that must go on without application threads. */
int pv_domain_need_helper(struct pv_domain *d);

/* --- waiting --- */

struct pv_waiter; /* one per thread, made on first use, freed with the thread */
struct pv_waiter *pv_waiter_self(struct pv_domain *d);
/* Something w waits for is ready: its pv_sleep returns. Token held, any thread. Cheap when w is not asleep.
 */
void pv_waiter_ring(struct pv_waiter *w);
/* Rings every thread that sleeps. Token held. */
void pv_ring_all(struct pv_domain *d);
uint64_t pv_spin_ns(const struct pv_domain *d);
/* Sleeps until w is rung, one of fds is ready, a signal comes, or deadline (absolute, sd_clock_ns;
 * UINT64_MAX: none). Called and returns with the token held; the token is free meanwhile. Before it sleeps it
 * arms the ports and polls once more, so nothing is lost between a caller's last look (under the same hold of
 * the token) and sleep. mask: as ppoll's, or NULL. Returns the number of ready fds (revents set), 0, or
 * -EINTR; spurious returns happen. A port's progress may have been made during it. */
int pv_sleep(struct pv_domain *d, struct pv_waiter *w, struct pollfd *fds, nfds_t n, uint64_t deadline,
	const sigset_t *mask);
/* The same for a thread that waits for n endpoints (at most PV_MAX_WORDS) and none of the kernel's
 * descriptors, where their providers can wake it without anybody's help: each wakes just the threads that
 * wait for it. For a short time only, as not everything that can happen to an endpoint is noticed: -ETIMEDOUT
 * says that this is over and pv_sleep is called for. -ENOTSUP: not these endpoints, or not this kernel. 0 or
 * -EINTR. */
#define PV_MAX_WORDS 32u
int pv_sleep_on(struct pv_domain *d, struct pv_waiter *w, struct pv_ep **eps, unsigned n, uint64_t deadline);
/* For a signal handler: the pv_sleep that this thread is in, or its next one, returns early. No token needed.
 */
void pv_sleep_interrupt(void);

/* Delivers what gracefully closed connections still hold, for at most timeout_ns, then closes the providers.
 * At exit. */
void pv_domain_drain(struct pv_domain *d, uint64_t timeout_ns);

#endif
