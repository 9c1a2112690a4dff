/* SPDX-License-Identifier: BSD-3-Clause */
/* Spinning, sleeping, and the way out for signals and cancellation. */
#include "switch/wait.h"

#include <errno.h>
#include <sched.h>

#include "base/clock.h"
#include "base/core.h"
#include "switch/cancel.h"
#include "switch/libc.h"
#include "switch/runtime.h"
#include "switch/signals.h"

/*
 * A thread that polls in vain for this long offers its core to others: its peer may need it. Whether anybody
 * took it the kernel counts: time does not tell, as under strace(1). If so there are more threads to run than
 * cores, and polling takes time away from who would do the work that is waited for: the thread sleeps at
 * once, and for a while it does not poll at all.
 */
#define YIELD_AFTER_NS	  (20 * SD_US)
#define YIELD_AGAIN_NS	  (50 * SD_US)
#define YIELD_PAUSE_NS	  (10 * SD_MS)
#define EMBEDDED_PAUSE_NS (4 * SD_MS)
#define CROWDED_NS	  (10 * SD_MS)

static __thread uint64_t crowded_until;
static __thread uint64_t next_offer, offer_pause; /* offers that nobody takes are made ever more seldom */

void sw_wait_begin(struct sw_wait *w, uint64_t timeout_ns, bool restartable)
{
	uint64_t now = sd_clock_ns();

	*w = (struct sw_wait){
		.deadline = timeout_ns >= SW_FOREVER - now ? SW_FOREVER : now + timeout_ns,
		.delivered = sw_sigstate.delivered,
		.delivered_norestart = sw_sigstate.delivered_norestart,
		.restartable = restartable,
	};
}

static bool interrupted(void)
{
	return sw_sigstate.pending || sw_cancel_pending();
}

/* With a port of its own the process drives its connections itself: asleep it would be late for them. Also, a
 * thread of idle priority that took the core says nothing. */
static void offer_core_embedded(uint64_t now)
{
	pv_leave(sw_rt.domain);
	sched_yield();
	pv_enter(sw_rt.domain);
	if (!sw_progress())
		next_offer = now + EMBEDDED_PAUSE_NS;
}

static void offer_core(struct sw_wait *w)
{
	bool taken;
	uint64_t now;

	pv_leave(sw_rt.domain);
	taken = sd_core_offer();
	pv_enter(sw_rt.domain);
	now = sd_clock_ns();
	if (!taken) {
		offer_pause = offer_pause ? offer_pause * 2 : YIELD_AGAIN_NS;
		if (offer_pause > YIELD_PAUSE_NS)
			offer_pause = YIELD_PAUSE_NS;
		next_offer = now + offer_pause;
		return;
	}
	offer_pause = 0;
	crowded_until = now + CROWDED_NS;
	w->spin_end = now;
}

int sw_wait_spin(struct sw_wait *w)
{
	unsigned work = sw_progress();
	uint64_t now = pv_now(sw_rt.domain);

	if (__builtin_expect(interrupted(), 0))
		return -EINTR;
	if (!w->spin_end) {
		w->spin_end = now;
		if (now >= crowded_until && (sw_rt.n_san || sw_rt.started))
			w->spin_end += pv_spin_ns(sw_rt.domain);
		w->yield_at = now + YIELD_AFTER_NS;
	}
	if (now >= w->deadline)
		return w->timed_out++ ? -ETIMEDOUT : 0;
	if (work)
		return 0;
	if (now >= w->spin_end)
		return 1;
	pv_yield(sw_rt.domain);
	if (now < w->yield_at || now < next_offer || sw_rt.confined)
		return 0;
	if (sw_rt.shm)
		offer_core(w);
	else
		offer_core_embedded(now);
	return 0;
}

struct pv_waiter *sw_wait_self(void)
{
	return pv_waiter_self(sw_rt.domain);
}

/* No descriptor left for a bell: polling, with pauses. */
static int doze(struct pollfd *fds, nfds_t n)
{
	pv_leave(sw_rt.domain);
	sched_yield();
	pv_enter(sw_rt.domain);
	return n && sw_libc.poll(fds, n, 0) < 0 && interrupted() ? -EINTR : 0;
}

/* 1: it cannot be done this way, or not any longer. */
static int sleep_on_endpoints(struct sw_wait *w, struct pv_waiter *self, struct pv_ep **eps, unsigned n)
{
	int r;

	if (w->by_descriptors || w->mask)
		return 1;
	sw_cancel_hold();
	r = pv_sleep_on(sw_rt.domain, self, eps, n, w->deadline);
	w->by_descriptors = r == -ENOTSUP || r == -ETIMEDOUT;
	if (interrupted())
		return -EINTR;
	if (r == -ENOTSUP)
		return 1;
	w->timed_out = 0;
	return 0;
}

static int sleep_on_descriptors(struct sw_wait *w, struct pv_waiter *self, struct pollfd *fds, nfds_t n)
{
	int r;

	sw_cancel_hold();
	r = pv_sleep(sw_rt.domain, self, fds, n, w->deadline, w->mask);
	w->timed_out = 0;
	if (interrupted())
		return -EINTR;
	return r == -ENOMEM ? r : 0;
}

int sw_wait_sleep(struct sw_wait *w, struct pv_ep **eps, unsigned n_eps, struct pollfd *fds, nfds_t n)
{
	struct pv_waiter *self = sw_wait_self();
	int r;

	if (!self)
		return doze(fds, n);
	r = n_eps ? sleep_on_endpoints(w, self, eps, n_eps) : 1;
	return r > 0 ? sleep_on_descriptors(w, self, fds, n) : r;
}

bool sw_wait_restarts(const struct sw_wait *w)
{
	if (sw_cancel_pending())
		sw_cancel_check();
	if (w->restartable)
		return sw_sigstate.delivered_norestart == w->delivered_norestart;
	return sw_sigstate.delivered == w->delivered;
}

int sw_wait_on(struct sw_wait *w, struct list *waiters, struct pv_ep *ep, struct pollfd *fds, nfds_t n)
{
	struct sw_link link;
	struct pv_waiter *self;
	int r = sw_wait_spin(w);

	if (r <= 0)
		return r;
	self = sw_wait_self();
	if (self)
		sw_link_to(&link, self, waiters);
	r = sw_wait_sleep(w, &ep, ep && !n, fds, n);
	if (self)
		list_remove(&link.node);
	return r;
}
