/* SPDX-License-Identifier: BSD-3-Clause */
/* Members of epoll sets: where they live, when they are ready. Waiting is in epwait.c. */
#include "switch/epset.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/log.h"
#include "switch/kick.h"
#include "switch/libc.h"

#define MAX_DEPTH 5 /* of sets in sets, as in the kernel */

/*
 * Sets that were closed, for the next ones: their memory is never given back, because a thread on its way
 * into the kernel's epoll_wait, or out of it, touches its set without the domain. At worst it counts itself
 * in another set.
 */
static struct list closed = LIST_INIT(closed);

static struct sw_epset *recycled_or_new(void)
{
	struct list *at = list_pop_front(&closed);
	struct sw_epset *es;

	if (!at)
		return calloc(1, sizeof *es);
	es = container_of(at, struct sw_epset, items);
	memset(es, 0, offsetof(struct sw_epset, kernel_waiters));
	return es;
}

struct sw_epset *sw_epset_new(int fd)
{
	struct sw_epset *es = recycled_or_new();

	if (!es)
		return NULL;
	es->obj.is_epset = true;
	es->fd = fd;
	list_init(&es->items);
	list_init(&es->ready);
	list_init(&es->cookies);
	list_init(&es->waiters);
	list_init(&es->watchers);
	sw_fd_share(fd, &es->obj);
	if (es->obj.fds)
		return es;
	sw_epset_free(es);
	return NULL;
}

/* --- the kernel's side --- */

static bool is_two_sided(const struct sw_epitem *it)
{
	return it->cookie != 0;
}

static int kernel_ctl(struct sw_epitem *it, int op)
{
	struct epoll_event ev = {
		.events = it->disarmed ? it->events & EPOLLONESHOT : it->events, .data = it->data};

	if (is_two_sided(it))
		ev.data.u64 = it->cookie;
	return sw_libc.epoll_ctl(it->set->fd, op, it->fd, &ev) ? -errno : 0;
}

/* Who sleeps without the kernel's set, as there was nothing in it, has to do so anew. */
void sw_epset_join_kernel(struct sw_epset *es)
{
	if (!es->n_kernel++)
		sw_epset_ring(es);
}

static void leave_kernel(struct sw_epitem *it)
{
	if (!it->in_kernel)
		return;
	it->in_kernel = false;
	it->set->n_kernel--;
	/* Fails when the descriptor is closed already; then the kernel has forgotten it by itself. */
	kernel_ctl(it, EPOLL_CTL_DEL);
}

static int join_kernel(struct sw_epitem *it)
{
	int r = kernel_ctl(it, EPOLL_CTL_ADD);

	if (!r) {
		it->in_kernel = true;
		sw_epset_join_kernel(it->set);
	}
	return r;
}

/* --- the SAN side --- */

static unsigned target_level(const struct sw_epitem *it)
{
	return it->target->is_epset ? sw_epset_level(sw_epset_of(it->target))
				    : sw_sock_level(sw_sock_of(it->target));
}

unsigned sw_epitem_level(const struct sw_epitem *it)
{
	if (it->disarmed)
		return 0;
	return target_level(it) & (it->events | EPOLLERR | EPOLLHUP);
}

unsigned sw_epset_level(struct sw_epset *es)
{
	static __thread unsigned depth;
	unsigned level = 0;

	if (depth >= MAX_DEPTH)
		return 0;
	depth++;
	list_for_each (at, &es->ready) {
		if (sw_epitem_level(container_of(at, struct sw_epitem, by_ready))) {
			level = POLLIN | POLLRDNORM;
			break;
		}
	}
	depth--;
	return level;
}

void sw_epset_ring(struct sw_epset *es)
{
	list_for_each (at, &es->waiters)
		pv_waiter_ring(container_of(at, struct sw_link, node)->waiter);
}

static void may_be_ready(struct sw_epitem *it)
{
	if (!it->in_san || it->disarmed)
		return;
	if (list_empty(&it->by_ready))
		list_push_back(&it->set->ready, &it->by_ready);
	sw_epset_ring(it->set);
	sw_epset_target_ready(&it->set->watchers, POLLIN);
}

void sw_epset_target_ready(struct list *watchers, unsigned events)
{
	static __thread unsigned depth;

	if (depth >= MAX_DEPTH)
		return;
	depth++;
	list_for_each (at, watchers) {
		struct sw_epitem *it = container_of(at, struct sw_epitem, by_target);

		if (events & (it->events | EPOLLERR | EPOLLHUP))
			may_be_ready(it);
	}
	depth--;
}

static void join_san(struct sw_epitem *it)
{
	struct sw_epset *es = it->set;

	if (!it->in_san) {
		it->in_san = true;
		if (!atomic_fetch_add(&es->n_san, 1) && atomic_load(&es->kernel_waiters) && !es->kicked)
			es->kicked = sw_kick_add(es->fd);
	}
	may_be_ready(it);
}

static void leave_san(struct sw_epitem *it)
{
	if (!it->in_san)
		return;
	it->in_san = false;
	list_remove(&it->by_ready);
	/* Who waits for the set may now have to do so in the kernel. */
	if (atomic_fetch_sub(&it->set->n_san, 1) == 1)
		sw_epset_ring(it->set);
}

/* --- where an item lives --- */

enum side { KERNEL_ONLY, SAN_ONLY, BOTH };

static enum side side_of(struct sw_obj *target)
{
	if (target->is_epset)
		return BOTH;
	if (!sw_sock_is_san(sw_sock_of(target)))
		return KERNEL_ONLY;
	return sw_sock_of(target)->state == SW_LISTENING ? BOTH : SAN_ONLY;
}

static uint64_t new_cookie(void)
{
	static uint64_t last;

	if (!last && getrandom(&last, sizeof last, GRND_NONBLOCK) != sizeof last)
		last = (uint64_t)(uintptr_t)&last << 16 ^ 0x9e3779b97f4a7c15ull;
	last = last * 6364136223846793005ull + 1442695040888963407ull; /* Knuth's MMIX */
	return last | 1;
}

static int place(struct sw_epitem *it)
{
	enum side side = side_of(it->target);
	bool cookie = side == BOTH;
	int r = 0;

	if (it->in_kernel && (side == SAN_ONLY || cookie != is_two_sided(it)))
		leave_kernel(it);
	if (cookie != is_two_sided(it)) {
		it->cookie = cookie ? new_cookie() : 0;
		list_remove(&it->by_cookie);
		if (cookie)
			list_push_back(&it->set->cookies, &it->by_cookie);
	}
	if (side != SAN_ONLY && !it->in_kernel)
		r = join_kernel(it);
	if (side == KERNEL_ONLY)
		leave_san(it);
	else if (!r)
		join_san(it);
	return r;
}

static void item_free(struct sw_epitem *it)
{
	leave_san(it);
	list_remove(&it->by_set);
	list_remove(&it->by_target);
	list_remove(&it->by_cookie);
	free(it);
}

void sw_epset_target_moves(struct sw_sock *s)
{
	int r;

	list_for_each (at, &s->watchers) {
		struct sw_epitem *it = container_of(at, struct sw_epitem, by_target);

		r = place(it);
		if (r)
			sd_error("descriptor %d cannot go back to the kernel's epoll set: errno %d", it->fd,
				-r);
		/* Over kernel TCP for good: the kernel's set has it all. */
		if (s->state == SW_KERNEL)
			item_free(it);
	}
}

void sw_epset_target_gone(struct list *watchers)
{
	list_for_each (at, watchers) {
		struct sw_epitem *it = container_of(at, struct sw_epitem, by_target);

		if (it->in_kernel)
			it->set->n_kernel--;
		item_free(it);
	}
}

void sw_epset_orphan(struct sw_epset *es)
{
	es->fd = -1;
	sw_epset_target_gone(&es->watchers);
	list_for_each (at, &es->items)
		item_free(container_of(at, struct sw_epitem, by_set));
	sw_epset_ring(es);
}

void sw_epset_free(struct sw_epset *es)
{
	list_push_back(&closed, &es->items);
}

/* --- epoll_ctl --- */

static struct list *watchers_of(struct sw_obj *o)
{
	return o->is_epset ? &sw_epset_of(o)->watchers : &sw_sock_of(o)->watchers;
}

static struct sw_epitem *find(struct sw_epset *es, struct sw_obj *target, int fd)
{
	list_for_each (at, watchers_of(target)) {
		struct sw_epitem *it = container_of(at, struct sw_epitem, by_target);

		if (it->set == es && it->fd == fd)
			return it;
	}
	return NULL;
}

static int add(struct sw_epset *es, struct sw_obj *target, int fd, const struct epoll_event *ev)
{
	struct sw_epitem *it = calloc(1, sizeof *it);
	int r;

	if (!it)
		return -ENOMEM;
	it->set = es;
	it->target = target;
	it->fd = fd;
	it->events = ev->events;
	it->data = ev->data;
	list_init(&it->by_set);
	list_init(&it->by_target);
	list_init(&it->by_ready);
	list_init(&it->by_cookie);
	list_push_back(&es->items, &it->by_set);
	list_push_back(watchers_of(target), &it->by_target);
	r = place(it);
	if (r)
		item_free(it);
	return r;
}

static int modify(struct sw_epitem *it, const struct epoll_event *ev)
{
	it->events = ev->events;
	it->data = ev->data;
	it->disarmed = false;
	may_be_ready(it);
	return it->in_kernel ? kernel_ctl(it, EPOLL_CTL_MOD) : 0;
}

static int delete (struct sw_epitem *it)
{
	leave_kernel(it);
	item_free(it);
	return 0;
}

/* Is the member of interest to the switch? A socket over kernel TCP is not, for good. */
static struct sw_obj *interesting(int fd, int op)
{
	struct sw_obj *o = sw_fd_obj(fd);

	if (!o && op == EPOLL_CTL_ADD && sw_sock_is_tcp(fd) && sw_sock_adopt(fd))
		o = sw_fd_obj(fd);
	if (o && !o->is_epset && sw_sock_of(o)->state == SW_KERNEL)
		return NULL;
	return o;
}

int sw_epset_ctl(struct sw_epset *es, int op, int fd, struct epoll_event *ev)
{
	struct sw_obj *target = interesting(fd, op);
	struct sw_epitem *it = target ? find(es, target, fd) : NULL;

	if (!target || target == &es->obj)
		return SW_EPSET_PASS;
	switch (op) {
	case EPOLL_CTL_ADD:
		return it ? -EEXIST : add(es, target, fd, ev);
	case EPOLL_CTL_MOD:
		return it ? modify(it, ev) : SW_EPSET_PASS;
	case EPOLL_CTL_DEL:
		return it ? delete (it) : SW_EPSET_PASS;
	}
	return SW_EPSET_PASS;
}
