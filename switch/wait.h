/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * wait: how a blocking call waits. It looks, spins for a while and looks again, then sleeps with links on the
 * objects it waits for and with the kernel's descriptors beside them. A signal ends the call's attempt: the
 * caller lets go of all it holds, leaves the domain (which runs the handlers) and asks whether to start over
 * or to return EINTR.
 */
#ifndef SD_SWITCH_WAIT_H
#define SD_SWITCH_WAIT_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/pace.h"
#include "provider/domain.h"

#define SW_FOREVER UINT64_MAX

/* A thread's interest in an object while it sleeps. */
struct sw_link {
	struct list node;
	struct pv_waiter *waiter;
};

struct sw_wait {
	uint64_t deadline; /* sd_clock_ns(); SW_FOREVER: none */
	uint64_t spin_end;
	uint64_t yield_at;
	const sigset_t *mask;			 /* of ppoll and its like, or NULL */
	unsigned delivered, delivered_norestart; /* when it began */
	bool restartable;			 /* SA_RESTART applies */
	bool by_descriptors;			 /* it has lasted too long for pv_sleep_on */
	uint8_t timed_out;			 /* the deadline has passed: a last look is due */
};

/* timeout_ns from now. */
void sw_wait_begin(struct sw_wait *w, uint64_t timeout_ns, bool restartable);

/* Domain entered throughout. One turn of spinning. 0: look again; 1: it is time to sleep; -EINTR; -ETIMEDOUT.
 */
int sw_wait_spin(struct sw_wait *w);
/* This thread's waiter for links; NULL: there is none, and sleeping is polling. */
struct pv_waiter *sw_wait_self(void);
/* Sleeps until a link's object rings, one of fds is ready or the deadline. If the n_eps endpoints are all
 * that matters, and they can be slept on by themselves, that is done; n_eps 0: they are not. 0: look again
 * (fds' revents say what the kernel has); -EINTR: a signal. */
int sw_wait_sleep(struct sw_wait *w, struct pv_ep **eps, unsigned n_eps, struct pollfd *fds, nfds_t n);
/* The domain left after -EINTR: does the call start over (SA_RESTART)? */
bool sw_wait_restarts(const struct sw_wait *w);

static inline void sw_link_to(struct sw_link *l, struct pv_waiter *waiter, struct list *waiters)
{
	l->waiter = waiter;
	list_push_back(waiters, &l->node);
}

/* Waits until fd-bound object's readiness changes, for calls on a single socket: spins, or sleeps on waiters.
 * ep: that it is enough to wait for, if there are no fds; or NULL. As sw_wait_sleep, and -ETIMEDOUT. */
int sw_wait_on(struct sw_wait *w, struct list *waiters, struct pv_ep *ep, struct pollfd *fds, nfds_t n);

/*
 * How often the kernel's descriptors are looked at while the SAN keeps a thread busy: the longer they have
 * been quiet, the more rarely, at least every 8 ms. Before a thread sleeps they are always looked at.
 */
struct sw_pace {
	struct sd_pace looks;
	unsigned quiet_zero; /* calls with timeout 0 in a row that found nothing */
};

#define SW_PACE_MAX_NS	8000000ull
#define SW_PACE_POLLERS 16 /* that many fruitless calls with timeout 0 make a polling loop */

static inline void sw_pace_looked(struct sw_pace *p, uint64_t now, bool found)
{
	sd_pace_looked(&p->looks, now, found, 0, SW_PACE_MAX_NS);
}

#endif
