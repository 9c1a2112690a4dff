/* SPDX-License-Identifier: BSD-3-Clause */
#include "drivers/share.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/fd.h"
#include "drivers/lane.h"

/* Of a queue's receive buffers, which are as many at least as a lane has room for, those that do not receive
 * may have these together: one that is slow keeps nobody else's frames out. */
#define MOST	  384u
#define MOST_EACH 32u /* at least */
#define BURST	  32u
/* In a frame's flags, for rx_done: 1 + the user who has received it; 0: it is its own. */
#define FROM_SHIFT 24

/* A pair of queues of the port behind. Locked for each call, as looking after the link, which may take long,
 * locks all of them. */
struct queue {
	_Alignas(64) struct port *port;
	pthread_mutex_t lock;
};

struct user {
	_Alignas(64) struct port base;
	struct share *share;
	unsigned index;
	_Atomic(struct queue *) queue;	    /* for sending; to receive from, unless it is another one's */
	struct lane *lanes[PORT_SHARE_MAX]; /* to it, from those who receive */
	unsigned seen;			    /* of share.changes */
	int bell;			    /* eventfd; -1: it is handed nothing */
	int both;	    /* epoll: its bell and its queue's interrupt; -1: it needs one only */
	_Atomic bool armed; /* sleeps, and is to be rung for */
	unsigned waited;    /* share.changes, when it asked for what to sleep on */
	unsigned turn;	    /* whose lane is looked at first */
	_Atomic uint64_t handed;
	struct port_stats stats; /* without a queue of its own */
};

struct share {
	unsigned n;
	_Atomic unsigned n_queues; /* either one queue, or one each */
	_Atomic unsigned n_open;
	port_share_steer *steer;
	void *ctx;
	_Atomic unsigned changes; /* of what the port tells of itself */
	_Atomic unsigned closed;  /* users that have closed their port, but for user 0: a bit each */
	struct queue queues[PORT_SHARE_MAX];
	struct user users[PORT_SHARE_MAX];
};

static struct user *user_of(struct port *p)
{
	return (struct user *)p;
}

static struct port *lock(struct queue *q)
{
	pthread_mutex_lock(&q->lock);
	return q->port;
}

static void unlock(struct queue *q)
{
	pthread_mutex_unlock(&q->lock);
}

/* Its queue, which becomes another one when the port has one for each. */
static struct queue *lock_own(struct user *u)
{
	for (;;) {
		struct queue *q = u->queue;

		lock(q);
		if (__builtin_expect(q == u->queue, 1))
			return q;
		unlock(q);
	}
}

/* From its queue, not just by others. */
static bool receives(const struct user *u)
{
	return !u->index || u->queue != u->share->queues;
}

/* To the port, which they have come from. */
static void give_back(struct user *u, struct port_frame *frames, unsigned n)
{
	struct queue *q;

	if (!n)
		return;
	q = lock_own(u);
	q->port->ops->rx_done(q->port, frames, n);
	unlock(q);
}

/* --- receiving for others --- */

/* Locked. Gives back what other users are through with. */
static void reclaim_all(struct user *u, struct port *port)
{
	struct share *s = u->share;
	struct port_frame frames[BURST];
	unsigned n;

	for (unsigned i = 0; i < s->n; i++) {
		struct lane *l = s->users[i].lanes[u->index];

		do {
			n = l ? lane_reclaim(l, frames, BURST) : 0;
			if (n)
				port->ops->rx_done(port, frames, n);
		} while (n == BURST);
	}
}

/* True: the frame itself has gone to another user. */
static bool distribute(struct user *u, const struct port_frame *f, uint32_t mask)
{
	struct share *s = u->share;
	bool gone = false;

	for (unsigned i = 0; i < s->n; i++) {
		struct port_frame tagged = *f;

		if (i == u->index || !(mask & 1u << i))
			continue;
		tagged.flags |= (u->index + 1) << FROM_SHIFT;
		if (s->n_queues > 1)
			tagged.flags |= PORT_RX_HANDED;
		atomic_fetch_add_explicit(&u->handed, 1, memory_order_relaxed);
		if (mask == 1u << i)
			gone = lane_hand(s->users[i].lanes[u->index], &tagged);
		else
			lane_hand_copy(s->users[i].lanes[u->index], &tagged);
	}
	return gone;
}

static void ring_bells(struct user *u)
{
	struct share *s = u->share;

	/* What was put is seen by who looks after arming, or its arming is seen here. */
	atomic_thread_fence(memory_order_seq_cst);
	for (unsigned i = 0; i < s->n; i++) {
		struct lane *l = s->users[i].lanes[u->index];

		if (l && l->fresh && atomic_exchange(&s->users[i].armed, false))
			eventfd_write(s->users[i].bell, 1);
		if (l)
			l->fresh = false;
	}
}

/* What has arrived at its queue for itself. */
static unsigned receive(struct user *u, struct port_frame *frames, unsigned max)
{
	struct port_frame lost[BURST];
	unsigned n, kept = 0, n_lost = 0;
	bool others = false;
	struct queue *q = lock_own(u);

	reclaim_all(u, q->port);
	n = q->port->ops->rx(q->port, frames, max < BURST ? max : BURST);
	unlock(q);
	for (unsigned i = 0; i < n; i++) {
		uint32_t mask = u->share->steer(u->share->ctx, &frames[i]), me = 1u << u->index;

		if (mask != me) {
			others = true;
			if (distribute(u, &frames[i], mask))
				continue;
		}
		if (mask & me)
			frames[kept++] = frames[i];
		else
			lost[n_lost++] = frames[i];
	}
	if (others)
		ring_bells(u);
	give_back(u, lost, n_lost);
	return kept;
}

/* What others have for it, each of them first in its turn. */
static unsigned take_handed(struct user *u, struct port_frame *frames, unsigned max)
{
	unsigned n = 0, first = u->turn++;

	for (unsigned i = 0; i < u->share->n && n < max; i++) {
		struct lane *l = u->lanes[(first + i) % u->share->n];

		if (l)
			n += lane_take(l, frames + n, max - n);
	}
	for (unsigned i = 0; i < n; i++)
		u->stats.rx_bytes += frames[i].len;
	u->stats.rx_frames += n;
	return n;
}

/* By user 0: what comes to the queues of those who have closed theirs may be for those who have not. */
static void receive_for_closed(struct share *s)
{
	unsigned closed = atomic_load(&s->closed);

	for (unsigned i = 1; closed >> i && s->n_queues > 1; i++) {
		struct user *u = &s->users[i];
		struct port_frame frames[BURST];
		unsigned n = closed & 1u << i ? receive(u, frames, BURST) : 0;

		give_back(u, frames, n);
	}
}

/* Half of what is asked for is left for its own queue, which may always have more. */
static unsigned share_rx(struct port *p, struct port_frame *frames, unsigned max)
{
	struct user *u = user_of(p);
	unsigned n;

	if (__builtin_expect(!u->index && atomic_load_explicit(&u->share->closed, memory_order_relaxed), 0))
		receive_for_closed(u->share);
	if (!receives(u))
		return take_handed(u, frames, max);
	n = take_handed(u, frames, max / 2);
	return n + receive(u, frames + n, max - n);
}

static void share_rx_done(struct port *p, struct port_frame *frames, unsigned n)
{
	struct user *u = user_of(p);
	unsigned own = 0;

	for (unsigned i = 0; i < n; i++) {
		unsigned from = frames[i].flags >> FROM_SHIFT;

		if (from)
			lane_give_back(u->lanes[from - 1], &frames[i]);
		else
			frames[own++] = frames[i];
	}
	give_back(u, frames, own);
}

/* --- all send --- */

static unsigned share_tx_get(struct port *p, struct port_frame *frames, unsigned n)
{
	struct queue *q = lock_own(user_of(p));

	n = q->port->ops->tx_get(q->port, frames, n);
	unlock(q);
	return n;
}

static void share_tx_put(struct port *p, struct port_frame *frames, unsigned n)
{
	struct queue *q = lock_own(user_of(p));

	q->port->ops->tx_put(q->port, frames, n);
	unlock(q);
}

static unsigned share_tx(struct port *p, struct port_frame *frames, unsigned n)
{
	struct user *u = user_of(p);
	uint64_t bytes = 0;
	struct queue *q;
	unsigned sent;

	for (unsigned i = 0; i < n; i++)
		bytes += frames[i].len;
	q = lock_own(u);
	sent = q->port->ops->tx(q->port, frames, n);
	unlock(q);
	for (unsigned i = sent; i < n; i++)
		bytes -= frames[i].len;
	u->stats.tx_bytes += bytes;
	u->stats.tx_frames += sent;
	u->stats.tx_full += sent < n;
	return sent;
}

/* --- sleeping --- */

static int share_wait_fd(struct port *p)
{
	struct epoll_event ev = {.events = EPOLLIN};
	struct user *u = user_of(p);
	struct queue *q;
	int fd;

	u->waited = atomic_load(&u->share->changes);
	if (!receives(u))
		return u->bell;
	q = lock_own(u);
	fd = q->port->ops->wait_fd(q->port);
	unlock(q);
	if (u->both >= 0 && fd == -EAGAIN)
		return u->both;
	if (u->both < 0 || fd < 0)
		return fd;
	/* It may be another one than last time, under the same number: if it is there already, that says so.
	 */
	return epoll_ctl(u->both, EPOLL_CTL_ADD, fd, &ev) && errno != EEXIST ? -ENOTSUP : u->both;
}

static int share_arm(struct port *p)
{
	struct user *u = user_of(p);
	struct queue *q;
	int r;

	if (u->bell >= 0) {
		atomic_store(&u->armed, true);
		/* It may have a queue since, whose interrupt it was not given to sleep on. */
		if (u->waited != atomic_load(&u->share->changes))
			eventfd_write(u->bell, 1);
	}
	if (!receives(u))
		return 0;
	q = lock_own(u);
	r = q->port->ops->arm(q->port);
	unlock(q);
	return r;
}

static void share_disarm(struct port *p)
{
	struct user *u = user_of(p);
	struct queue *q;
	eventfd_t count;

	if (u->bell >= 0) {
		atomic_store(&u->armed, false);
		eventfd_read(u->bell, &count); /* also of a ring that came too late for the last one */
	}
	if (!receives(u))
		return;
	q = lock_own(u);
	q->port->ops->disarm(q->port);
	unlock(q);
}

/* --- the rest --- */

/* Locked, all of them. A port whose device came late may have a queue for each now: nobody has a frame of it
 * yet. */
static bool spread(struct share *s)
{
	struct port *first = s->queues[0].port;
	struct port_info info;

	if (s->n_queues > 1 || s->n < 2 || !first->ops->queue)
		return false;
	first->ops->info(first, &info);
	if (info.queues < s->n)
		return false;
	for (unsigned i = 1; i < s->n; i++) {
		s->queues[i].port = first->ops->queue(first, i);
		s->users[i].queue = &s->queues[i];
	}
	s->n_queues = s->n;
	return true;
}

static bool share_link_poll(struct port *p)
{
	struct user *u = user_of(p);
	struct share *s = u->share;
	unsigned changes = atomic_load(&s->changes);
	struct port *first = s->queues[0].port;
	bool changed;

	if (u->index) {
		changed = u->seen != changes;
		u->seen = changes;
		return changed;
	}
	for (unsigned i = 0; i < s->n; i++)
		lock(&s->queues[i]);
	changed = first->ops->link_poll(first);
	changed = spread(s) || changed;
	for (unsigned i = 0; i < s->n; i++)
		unlock(&s->queues[i]);
	if (!changed)
		return false;
	/* Their queues' interrupts may be other ones now, and switched off. */
	atomic_fetch_add(&s->changes, 1);
	for (unsigned i = 1; i < s->n; i++) {
		if (atomic_exchange(&s->users[i].armed, false))
			eventfd_write(s->users[i].bell, 1);
	}
	return true;
}

static void share_info(struct port *p, struct port_info *out)
{
	struct user *u = user_of(p);
	struct queue *q = lock_own(u);

	q->port->ops->info(q->port, out);
	unlock(q);
	if (!receives(u))
		out->caps |= PORT_CAP_RX_INTR;
}

static uint64_t missed(const struct user *u)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < u->share->n; i++) {
		if (u->lanes[i])
			n += atomic_load_explicit(&u->lanes[i]->missed, memory_order_relaxed);
	}
	return n;
}

/* Those of a queue are of all that it has carried, whosever it was. */
static void share_stats(struct port *p, struct port_stats *out)
{
	struct user *u = user_of(p);
	struct queue *q;

	*out = u->stats;
	if (receives(u)) {
		q = lock_own(u);
		q->port->ops->stats(q->port, out);
		unlock(q);
	}
	out->rx_missed += missed(u);
	out->rx_handed = port_share_handed(p);
}

static void share_free(struct share *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		struct user *u = &s->users[i];

		sd_fd_close(&u->both);
		sd_fd_close(&u->bell);
		for (unsigned k = 0; k < s->n; k++)
			lane_free(u->lanes[k]);
	}
	for (unsigned i = 0; i < s->n; i++)
		pthread_mutex_destroy(&s->queues[i].lock);
	free(s);
}

static void share_close(struct port *p)
{
	struct user *u = user_of(p);
	struct share *s = u->share;
	struct port_frame frames[BURST];
	unsigned n;

	if (u->index)
		atomic_fetch_or(&s->closed, 1u << u->index);
	if (atomic_fetch_sub(&s->n_open, 1) > 1)
		return;
	for (unsigned i = 0; i < s->n; i++) {
		for (unsigned k = 0; k < s->n; k++) {
			struct lane *l = s->users[i].lanes[k];

			while (l && (n = lane_take(l, frames, BURST)))
				for (unsigned m = 0; m < n; m++)
					lane_give_back(l, &frames[m]);
		}
	}
	for (unsigned i = 0; i < s->n; i++) {
		if (receives(&s->users[i]))
			reclaim_all(&s->users[i], s->users[i].queue->port);
	}
	port_close(s->queues[0].port);
	share_free(s);
}

static const struct port_ops ops = {
	.size = sizeof ops,
	.name = "share",
	.rx = share_rx,
	.rx_done = share_rx_done,
	.tx_get = share_tx_get,
	.tx_put = share_tx_put,
	.tx = share_tx,
	.wait_fd = share_wait_fd,
	.arm = share_arm,
	.disarm = share_disarm,
	.link_poll = share_link_poll,
	.info = share_info,
	.stats = share_stats,
	.close = share_close,
};

/* --- opening --- */

static int open_bell(struct user *u)
{
	struct epoll_event ev = {.events = EPOLLIN};

	u->bell = sd_fd_raise(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	if (u->bell < 0)
		return -errno;
	u->both = sd_fd_raise(epoll_create1(EPOLL_CLOEXEC));
	return u->both < 0 || epoll_ctl(u->both, EPOLL_CTL_ADD, u->bell, &ev) ? -errno : 0;
}

static int user_open(struct share *s, unsigned i)
{
	uint32_t most = MOST / (s->n > 1 ? s->n - 1 : 1);
	bool alone = !s->queues[0].port->ops->queue; /* there will never be more */
	struct user *u = &s->users[i];
	bool handed = false;

	u->base.ops = &ops;
	u->share = s;
	u->index = i;
	u->queue = &s->queues[s->n_queues > 1 ? i : 0];
	for (unsigned k = 0; k < s->n; k++) {
		if (k == i || (alone && k))
			continue;
		u->lanes[k] = lane_new(most < MOST_EACH ? MOST_EACH : most);
		if (!u->lanes[k])
			return -ENOMEM;
		handed = true;
	}
	return handed ? open_bell(u) : 0;
}

static void open_queues(struct share *s, struct port *inner)
{
	struct port_info info;
	pthread_mutexattr_t attributes;

	inner->ops->info(inner, &info);
	s->n_queues = inner->ops->queue && info.queues >= s->n ? s->n : 1;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
	for (unsigned i = 0; i < s->n; i++) {
		if (i < s->n_queues)
			s->queues[i].port = i ? inner->ops->queue(inner, i) : inner;
		pthread_mutex_init(&s->queues[i].lock, &attributes);
	}
	pthread_mutexattr_destroy(&attributes);
}

int port_share_open(struct port *inner, unsigned n, port_share_steer *steer, void *ctx, struct port *out[])
{
	struct share *s;
	int r = 0;

	if (!n || n > PORT_SHARE_MAX)
		return -EINVAL;
	s = aligned_alloc(64, sizeof *s);
	if (!s)
		return -ENOMEM;
	memset(s, 0, sizeof *s);
	s->n = n;
	s->steer = steer;
	s->ctx = ctx;
	atomic_init(&s->n_open, n);
	for (unsigned i = 0; i < n; i++)
		s->users[i].bell = s->users[i].both = -1;
	open_queues(s, inner);
	for (unsigned i = 0; !r && i < n; i++) {
		r = user_open(s, i);
		out[i] = &s->users[i].base;
	}
	if (r)
		share_free(s);
	return r;
}

uint64_t port_share_handed(const struct port *user)
{
	const struct user *u = (const struct user *)user;

	return atomic_load_explicit(&u->handed, memory_order_relaxed);
}
