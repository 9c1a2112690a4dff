/* SPDX-License-Identifier: BSD-3-Clause */
/* Waiting for an epoll set whose members are on both sides, and what the kernel's events mean. */
#include <errno.h>
#include <poll.h>

#include "base/clock.h"
#include "switch/epset.h"
#include "switch/kick.h"
#include "switch/libc.h"

/* --- threads in the kernel's epoll_wait --- */

bool sw_epset_kernel_enter(struct sw_epset *es)
{
	/* join_san() counts the member first and then looks for waiters: one of the two sees the other. */
	atomic_fetch_add(&es->kernel_waiters, 1);
	if (!atomic_load(&es->n_san))
		return true;
	sw_epset_kernel_leave(es);
	return false;
}

void sw_epset_kernel_leave(struct sw_epset *es)
{
	if (atomic_fetch_sub(&es->kernel_waiters, 1) != 1 || !es->kicked || !sw_enter())
		return;
	if (es->kicked && !atomic_load(&es->kernel_waiters)) {
		es->kicked = false;
		sw_kick_remove(es->fd);
	}
	sw_leave();
}

/* --- the kernel's events --- */

/* EPOLLONESHOT of a member with two sides: one has fired, so the other must not. */
static void disarm(struct sw_epitem *it)
{
	struct epoll_event off = {.events = EPOLLONESHOT};

	it->disarmed = true;
	list_remove(&it->by_ready);
	if (it->in_kernel) {
		off.data.u64 = it->cookie;
		sw_libc.epoll_ctl(it->set->fd, EPOLL_CTL_MOD, it->fd, &off);
	}
}

static void reported(struct sw_epitem *it)
{
	if (it->events & EPOLLONESHOT)
		disarm(it);
	else if (it->events & EPOLLET)
		list_remove(&it->by_ready);
}

static struct sw_epitem *item_of_cookie(struct sw_epset *es, uint64_t cookie)
{
	list_for_each (at, &es->cookies) {
		struct sw_epitem *it = container_of(at, struct sw_epitem, by_cookie);

		if (it->cookie == cookie)
			return it;
	}
	return NULL;
}

int sw_epset_translate(struct sw_epset *es, struct epoll_event *evs, int n)
{
	struct sw_epitem *it;
	int kept = 0;

	if (!es->kicked && list_empty(&es->cookies))
		return n;
	for (int i = 0; i < n; i++) {
		if (sw_kick_is(evs[i].data.u64))
			continue;
		it = item_of_cookie(es, evs[i].data.u64);
		if (it) {
			evs[i].events |= sw_epitem_level(it);
			evs[i].data = it->data;
			it->merged = true;
			if (it->target->is_epset)
				sw_epset_hurry(sw_epset_of(it->target));
			reported(it);
		}
		evs[kept++] = evs[i];
	}
	return kept;
}

static void forget_merged(struct sw_epset *es)
{
	list_for_each (at, &es->cookies)
		container_of(at, struct sw_epitem, by_cookie)->merged = false;
}

/* --- collecting --- */

/* The SAN side, into evs[n..max). Returns the new n. */
static int collect_san(struct sw_epset *es, struct epoll_event *evs, int n, int max)
{
	struct list again = LIST_INIT(again), *at;
	struct sw_epitem *it;
	unsigned bits;

	while (n < max && (at = list_pop_front(&es->ready))) {
		it = container_of(at, struct sw_epitem, by_ready);
		bits = sw_epitem_level(it);
		if (!bits)
			continue;
		if (!it->merged)
			evs[n++] = (struct epoll_event){.events = bits, .data = it->data};
		list_push_back(&again, &it->by_ready);
		if (!it->merged)
			reported(it);
	}
	/* Level triggered ones stay; the others come first next time. */
	while ((at = list_pop_front(&again)))
		list_push_back(&es->ready, at);
	return n;
}

static bool kernel_is_due(const struct sw_epset *es, uint64_t timeout_ns, bool found)
{
	if (pv_now(sw_rt.domain) >= es->pace.looks.next)
		return true;
	return !found && !timeout_ns && es->pace.quiet_zero < SW_PACE_POLLERS;
}

/* How many of max events the kernel may fill: not all, if the SAN has some. */
static int kernel_share(struct sw_epset *es, int max)
{
	if (list_empty(&es->ready))
		return max;
	if (max > 1)
		return max - max / 2;
	es->kernel_turn = !es->kernel_turn;
	return es->kernel_turn;
}

struct epwait {
	struct sw_epset *es;
	struct epoll_event *evs;
	int max;
	uint64_t timeout_ns;
	struct sw_wait wait;
};

/* The count, 0 or -errno. */
static int look_at_kernel(struct epwait *e)
{
	int share = kernel_share(e->es, e->max), r;

	if (!share || (!e->es->n_kernel && !e->wait.mask))
		return 0;
	r = sw_libc.epoll_pwait(e->es->fd, e->evs, share, 0, e->wait.mask);
	sw_pace_looked(&e->es->pace, pv_now(sw_rt.domain), r > 0);
	if (r < 0)
		return errno == EINTR ? 0 : -errno;
	return sw_epset_translate(e->es, e->evs, r);
}

static int look(struct epwait *e)
{
	int n = 0;

	if (kernel_is_due(e->es, e->timeout_ns, !list_empty(&e->es->ready))) {
		n = look_at_kernel(e);
		if (n < 0)
			return n;
	}
	n = collect_san(e->es, e->evs, n, e->max);
	forget_merged(e->es);
	e->es->pace.quiet_zero = n || e->timeout_ns ? 0 : e->es->pace.quiet_zero + 1;
	return n;
}

/* The endpoints of all members; 0: there is something else, too, or too much. */
static unsigned endpoints(const struct sw_epset *es, struct pv_ep *out[PV_MAX_WORDS])
{
	unsigned n = 0;

	if (es->n_kernel)
		return 0;
	list_for_each (at, &es->items) {
		const struct sw_epitem *it = container_of(at, struct sw_epitem, by_set);

		if (n == PV_MAX_WORDS || it->target->is_epset || !sw_sock_of(it->target)->ep)
			return 0;
		out[n++] = sw_sock_of(it->target)->ep;
	}
	return n;
}

static int sleep_on(struct epwait *e)
{
	struct pv_ep *eps[PV_MAX_WORDS];
	unsigned n_eps = endpoints(e->es, eps);
	struct pollfd kernel = {.fd = e->es->fd, .events = POLLIN};
	struct pv_waiter *self = sw_wait_self();
	struct sw_link link;
	int r;

	if (self)
		sw_link_to(&link, self, &e->es->waiters);
	r = sw_wait_sleep(&e->wait, eps, n_eps, &kernel, e->es->n_kernel ? 1 : 0);
	if (self)
		list_remove(&link.node);
	/* Something is there: look now. Nothing: it has just been looked at. */
	sw_pace_looked(&e->es->pace, pv_now(sw_rt.domain), kernel.revents != 0);
	return r;
}

/* Domain entered, set pinned. */
static int wait_for_set(struct epwait *e)
{
	int r, n;

	/* Also where something is ready always: nobody else might drive the engine for long. */
	sw_progress();
	for (;;) {
		if (e->es->fd < 0)
			return -EBADF;
		if (!atomic_load(&e->es->n_san))
			return -EAGAIN;
		n = look(e);
		if (n || !e->timeout_ns)
			return n;
		r = sw_wait_spin(&e->wait);
		if (r == 1)
			r = sleep_on(e);
		if (r)
			return r == -ETIMEDOUT ? 0 : r;
	}
}

int sw_epset_wait(int epfd, struct epoll_event *evs, int max, uint64_t timeout_ns, const sigset_t *mask)
{
	struct epwait e = {.evs = evs, .max = max, .timeout_ns = timeout_ns};
	int r;

	sw_wait_begin(&e.wait, timeout_ns, false);
	e.wait.mask = mask;
	do {
		if (!sw_enter())
			return -EINTR;
		e.es = sw_epset_at(epfd);
		if (!e.es) {
			sw_leave();
			return -EAGAIN;
		}
		sw_obj_pin(&e.es->obj);
		sw_runtime_start_listeners();
		r = wait_for_set(&e);
		sw_obj_unpin(&e.es->obj);
		sw_leave();
	} while (r == -EINTR && sw_wait_restarts(&e.wait));
	return r;
}
