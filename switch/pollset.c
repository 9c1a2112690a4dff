/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * poll and select over a mix of SAN and kernel descriptors. A listener has both sides. The kernel's side is
 * looked at when its pace says so, and always before a thread sleeps; it carries the caller's signal mask, so
 * that signals that only it lets through are seen.
 */
#include "switch/pollset.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "switch/epset.h"
#include "switch/libc.h"
#include "switch/wait.h"

#define FIXED 64

struct set {
	struct pollfd *fds; /* the caller's */
	nfds_t n;
	struct pollfd *kernel; /* the kernel's part */
	nfds_t *kernel_at;     /* kernel[i] is fds[kernel_at[i]] */
	nfds_t n_kernel;
	struct sw_link *links; /* one for each SAN side */
	struct sw_obj **objs;  /* what they are on */
	nfds_t *obj_at;
	nfds_t n_objs;
	struct pollfd kernel_room[FIXED];
	nfds_t kernel_at_room[FIXED], obj_at_room[FIXED];
	struct sw_link links_room[FIXED];
	struct sw_obj *objs_room[FIXED];
	void *big;
};

static __thread struct sw_pace pace;

bool sw_poll_has_san(const struct pollfd *fds, nfds_t n)
{
	for (nfds_t i = 0; i < n; i++) {
		uintptr_t slot = fds[i].fd < 0 ? 0 : sw_fd_slot(fds[i].fd);

		if (slot && (!(slot & SW_SLOT_TAGS) || sw_slot_is_guard(slot) || (slot & SW_SLOT_EPSET)))
			return true;
	}
	return false;
}

/* --- the set --- */

static bool set_rooms(struct set *p)
{
	char *big;

	p->kernel = p->kernel_room;
	p->kernel_at = p->kernel_at_room;
	p->links = p->links_room;
	p->objs = p->objs_room;
	p->obj_at = p->obj_at_room;
	if (p->n <= FIXED)
		return true;
	big = p->big = malloc(p->n * (sizeof *p->kernel + sizeof *p->kernel_at + sizeof *p->links +
					     sizeof *p->objs + sizeof *p->obj_at));
	if (!big)
		return false;
	p->links = (void *)big;
	p->objs = (void *)(p->links + p->n);
	p->kernel_at = (void *)(p->objs + p->n);
	p->obj_at = (void *)(p->kernel_at + p->n);
	p->kernel = (void *)(p->obj_at + p->n);
	return true;
}

/* Has the object a side that only the kernel sees? */
static bool has_kernel_side(const struct sw_obj *o)
{
	return o->is_epset || ((const struct sw_sock *)o)->state == SW_LISTENING;
}

/* Sorts the descriptors; again after states may have changed. */
static void set_sort(struct set *p)
{
	p->n_kernel = p->n_objs = 0;
	for (nfds_t i = 0; i < p->n; i++) {
		int fd = p->fds[i].fd;
		struct sw_obj *o = NULL;
		bool kernel = true;

		if (fd < 0)
			continue;
		if (sw_fd_is_guarded(fd))
			fd = INT_MAX; /* POLLNVAL */
		else
			o = sw_fd_obj(fd);
		if (o && (o->is_epset || sw_sock_is_san(sw_sock_of(o)))) {
			kernel = has_kernel_side(o);
			p->objs[p->n_objs] = o;
			p->obj_at[p->n_objs++] = i;
		}
		if (kernel) {
			p->kernel[p->n_kernel] = (struct pollfd){.fd = fd, .events = p->fds[i].events};
			p->kernel_at[p->n_kernel++] = i;
		}
	}
}

static void set_pin(struct set *p, bool pin)
{
	for (nfds_t i = 0; i < p->n_objs; i++)
		(pin ? sw_obj_pin : sw_obj_unpin)(p->objs[i]);
}

static unsigned level_of(struct sw_obj *o)
{
	return o->is_epset ? sw_epset_level(sw_epset_of(o)) : sw_sock_level(sw_sock_of(o));
}

static void clear(struct set *p)
{
	for (nfds_t i = 0; i < p->n; i++)
		p->fds[i].revents = 0;
}

/* The SAN sides, into revents. */
static void look_at_san(struct set *p)
{
	for (nfds_t i = 0; i < p->n_objs; i++) {
		struct pollfd *f = &p->fds[p->obj_at[i]];

		f->revents |= (short)(level_of(p->objs[i]) & ((unsigned short)f->events | POLLERR | POLLHUP));
	}
}

/* What a look at, or a sleep on, the kernel's side has found. */
static void take_kernel(struct set *p)
{
	for (nfds_t i = 0; i < p->n_kernel; i++) {
		struct sw_epset *es = p->kernel[i].revents ? sw_epset_at(p->kernel[i].fd) : NULL;

		p->fds[p->kernel_at[i]].revents |= p->kernel[i].revents;
		if (es)
			sw_epset_hurry(es);
	}
}

static int count(const struct set *p)
{
	int n = 0;

	for (nfds_t i = 0; i < p->n; i++)
		n += p->fds[i].revents != 0;
	return n;
}

/* --- waiting --- */

static int look_at_kernel(struct set *p, const sigset_t *mask)
{
	struct timespec zero = {0};
	int r;

	if (!p->n_kernel && !mask)
		return 0;
	r = sw_libc.ppoll(p->kernel, p->n_kernel, &zero, mask);
	if (r > 0)
		take_kernel(p);
	sw_pace_looked(&pace, pv_now(sw_rt.domain), r > 0);
	return r < 0 && errno != EINTR ? -errno : 0;
}

/* A call with timeout 0 is a glance, and has to be right, unless the program does nothing else. */
static bool kernel_is_due(uint64_t timeout_ns)
{
	if (pv_now(sw_rt.domain) >= pace.looks.next)
		return true;
	return !timeout_ns && pace.quiet_zero < SW_PACE_POLLERS;
}

/* The endpoints of all that is waited for; 0: there is something else, too, or too much. */
static unsigned endpoints(const struct set *p, struct pv_ep *out[PV_MAX_WORDS])
{
	if (p->n_kernel || p->n_objs > PV_MAX_WORDS)
		return 0;
	for (nfds_t i = 0; i < p->n_objs; i++) {
		if (p->objs[i]->is_epset || !sw_sock_of(p->objs[i])->ep)
			return 0;
		out[i] = sw_sock_of(p->objs[i])->ep;
	}
	return (unsigned)p->n_objs;
}

static int sleep_on(struct set *p, struct sw_wait *w)
{
	struct pv_ep *eps[PV_MAX_WORDS];
	unsigned n_eps = endpoints(p, eps);
	struct pv_waiter *self = sw_wait_self();
	int r;

	for (nfds_t i = 0; self && i < p->n_objs; i++) {
		struct sw_obj *o = p->objs[i];

		sw_link_to(
			&p->links[i], self, o->is_epset ? &sw_epset_of(o)->waiters : &sw_sock_of(o)->waiters);
	}
	for (nfds_t i = 0; i < p->n_kernel; i++)
		p->kernel[i].revents = 0;
	r = sw_wait_sleep(w, eps, n_eps, p->kernel, p->n_kernel);
	for (nfds_t i = 0; self && i < p->n_objs; i++)
		list_remove(&p->links[i].node);
	if (!r)
		take_kernel(p);
	sw_pace_looked(&pace, pv_now(sw_rt.domain), false);
	return r;
}

/* Until something is ready: the count; 0: the time is over; -EINTR; -EAGAIN: sort again; -errno. Objects are
 * pinned. */
static int wait_for_set(struct set *p, uint64_t timeout_ns, struct sw_wait *w)
{
	unsigned moves = sw_rt.moves;
	int r, n;

	/* Also where something is ready always: nobody else might drive the engine for long. */
	sw_progress();
	for (;;) {
		if (sw_rt.moves != moves)
			return -EAGAIN;
		look_at_san(p);
		n = count(p);
		if (n ? pv_now(sw_rt.domain) >= pace.looks.next : kernel_is_due(timeout_ns)) {
			r = look_at_kernel(p, w->mask);
			if (r)
				return r;
			n = count(p);
		}
		pace.quiet_zero = n || timeout_ns ? 0 : pace.quiet_zero + 1;
		if (n || !timeout_ns)
			return n;
		r = sw_wait_spin(w);
		if (r == 1)
			r = sleep_on(p, w);
		if (r)
			return r == -ETIMEDOUT ? 0 : r;
	}
}

int sw_poll(struct pollfd *fds, nfds_t n, uint64_t timeout_ns, const sigset_t *mask)
{
	struct set p;
	struct sw_wait w;
	int r;

	p.fds = fds;
	p.n = n;
	p.big = NULL;
	if (!set_rooms(&p))
		return -ENOMEM;
	sw_wait_begin(&w, timeout_ns, false);
	w.mask = mask;
	do {
		if (!sw_enter()) {
			r = -EINTR;
			break;
		}
		sw_runtime_start_listeners();
		clear(&p);
		set_sort(&p);
		set_pin(&p, true);
		r = wait_for_set(&p, timeout_ns, &w);
		set_pin(&p, false);
		sw_leave();
	} while (r == -EAGAIN || (r == -EINTR && sw_wait_restarts(&w)));
	free(p.big);
	return r;
}
