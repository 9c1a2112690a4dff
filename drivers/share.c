/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A frame that user 0 has received for another one goes through two rings: `in` to that user, and `done` back
 * to user 0, who alone gives frames back to the port behind. Each has one writer and one reader. There are
 * never more frames under way than `done` has room for.
 */
#include "drivers/share.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/fd.h"

#define RING 512u /* a power of two */
/* Of the port's receive buffers, which are as many at least as a ring has, those that do not receive may have
 * these together: one that is slow keeps nobody else's frames out. */
#define MOST	  384u
#define MOST_EACH 32u /* at least */
#define BURST	  32u
#define COPIES	  32u  /* of each user */
#define COPY_SIZE 512u /* what is for several is short */

struct ring {
	_Alignas(64) _Atomic uint32_t tail; /* the writer's */
	_Alignas(64) _Atomic uint32_t head; /* the reader's */
	struct port_frame frames[RING];
};

struct user {
	struct port base;
	struct share *share;
	unsigned index;
	unsigned seen;	    /* of share.changes */
	int bell;	    /* eventfd; -1: user 0 has none */
	_Atomic bool armed; /* sleeps, and is to be rung for */
	bool to_ring;	    /* user 0: something was handed over in this burst */
	struct ring in, done;
	uint32_t under_way; /* user 0: handed over and not back */
	uint8_t *copies, *free_copies[COPIES];
	unsigned n_free;	 /* user 0's */
	_Atomic uint64_t missed; /* user 0: lost, as there was no room */
	struct port_stats stats;
};

struct share {
	struct port *inner;
	pthread_mutex_t lock; /* of inner; a sleeper's, as looking after the link may take long */
	unsigned n;
	uint32_t most; /* frames that are under way to one user */
	_Atomic unsigned n_open;
	port_share_steer *steer;
	void *ctx;
	_Atomic unsigned changes; /* of what inner tells of itself */
	_Atomic uint64_t handed;
	struct user *users;
};

static struct user *user_of(struct port *p)
{
	return (struct user *)p;
}

static struct port *lock(struct user *u)
{
	pthread_mutex_lock(&u->share->lock);
	return u->share->inner;
}

static void unlock(struct user *u)
{
	pthread_mutex_unlock(&u->share->lock);
}

/* --- rings --- */

static bool put(struct ring *r, const struct port_frame *f)
{
	uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);

	if (tail - atomic_load_explicit(&r->head, memory_order_acquire) == RING)
		return false;
	r->frames[tail & (RING - 1)] = *f;
	atomic_store_explicit(&r->tail, tail + 1, memory_order_release);
	return true;
}

static unsigned take(struct ring *r, struct port_frame *frames, unsigned max)
{
	uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
	uint32_t n = atomic_load_explicit(&r->tail, memory_order_acquire) - head;

	if (n > max)
		n = max;
	for (uint32_t i = 0; i < n; i++)
		frames[i] = r->frames[(head + i) & (RING - 1)];
	if (n)
		atomic_store_explicit(&r->head, head + n, memory_order_release);
	return n;
}

static bool is_empty(const struct ring *r)
{
	return atomic_load_explicit(&r->tail, memory_order_acquire) ==
	       atomic_load_explicit(&r->head, memory_order_relaxed);
}

/* --- user 0 receives --- */

static bool is_copy(const struct user *u, const struct port_frame *f)
{
	const uint8_t *at = f->handle;

	return at >= u->copies && at < u->copies + COPIES * COPY_SIZE;
}

/* Locked. Gives back what a user is through with. */
static void reclaim(struct user *u)
{
	struct port *inner = u->share->inner;
	struct port_frame frames[BURST];
	unsigned n, own;

	while ((n = take(&u->done, frames, BURST))) {
		u->under_way -= n;
		own = 0;
		for (unsigned i = 0; i < n; i++) {
			if (is_copy(u, &frames[i]))
				u->free_copies[u->n_free++] = frames[i].handle;
			else
				frames[own++] = frames[i];
		}
		if (own)
			inner->ops->rx_done(inner, frames, own);
	}
}

static void reclaim_all(struct share *s)
{
	for (unsigned i = 1; i < s->n; i++) {
		if (!is_empty(&s->users[i].done))
			reclaim(&s->users[i]);
	}
}

static bool hand_over(struct user *u, const struct port_frame *f)
{
	/* All of them may be on their way back at once. */
	if (u->under_way >= u->share->most || !put(&u->in, f)) {
		atomic_fetch_add_explicit(&u->missed, 1, memory_order_relaxed);
		return false;
	}
	u->under_way++;
	u->to_ring = true;
	return true;
}

static void hand_copy(struct user *u, const struct port_frame *f)
{
	struct port_frame copy = *f;

	if (!u->n_free || f->len > COPY_SIZE) {
		atomic_fetch_add_explicit(&u->missed, 1, memory_order_relaxed);
		return;
	}
	copy.data = copy.handle = u->free_copies[--u->n_free];
	memcpy(copy.data, f->data, f->len);
	if (!hand_over(u, &copy))
		u->n_free++;
}

/* True: the frame itself has gone to another user. */
static bool distribute(struct share *s, const struct port_frame *f, uint32_t mask)
{
	bool gone = false;

	for (unsigned i = 1; i < s->n; i++) {
		if (!(mask & 1u << i))
			continue;
		atomic_fetch_add_explicit(&s->handed, 1, memory_order_relaxed);
		if (mask == 1u << i)
			gone = hand_over(&s->users[i], f);
		else
			hand_copy(&s->users[i], f);
	}
	return gone;
}

static void ring_bells(struct share *s)
{
	/* What was put is seen by who looks after arming, or its arming is seen here. */
	atomic_thread_fence(memory_order_seq_cst);
	for (unsigned i = 1; i < s->n; i++) {
		struct user *u = &s->users[i];

		if (u->to_ring && atomic_exchange(&u->armed, false))
			eventfd_write(u->bell, 1);
		u->to_ring = false;
	}
}

static unsigned share_receive(struct user *u, struct port_frame *frames, unsigned max)
{
	struct share *s = u->share;
	struct port_frame lost[BURST];
	unsigned n, kept = 0, n_lost = 0;
	bool others = false;
	struct port *inner = lock(u);

	reclaim_all(s);
	n = inner->ops->rx(inner, frames, max < BURST ? max : BURST);
	unlock(u);
	for (unsigned i = 0; i < n; i++) {
		uint32_t mask = s->steer(s->ctx, &frames[i]);

		if (mask != 1) {
			others = true;
			if (distribute(s, &frames[i], mask))
				continue;
		}
		if (mask & 1)
			frames[kept++] = frames[i];
		else
			lost[n_lost++] = frames[i];
	}
	if (others)
		ring_bells(s);
	if (n_lost) {
		lock(u);
		inner->ops->rx_done(inner, lost, n_lost);
		unlock(u);
	}
	return kept;
}

static unsigned share_rx(struct port *p, struct port_frame *frames, unsigned max)
{
	struct user *u = user_of(p);
	unsigned n;

	if (!u->index)
		return share_receive(u, frames, max);
	n = take(&u->in, frames, max);
	for (unsigned i = 0; i < n; i++)
		u->stats.rx_bytes += frames[i].len;
	u->stats.rx_frames += n;
	return n;
}

static void share_rx_done(struct port *p, struct port_frame *frames, unsigned n)
{
	struct user *u = user_of(p);
	struct port *inner;

	if (u->index) {
		for (unsigned i = 0; i < n; i++)
			put(&u->done, &frames[i]);
		return;
	}
	inner = lock(u);
	inner->ops->rx_done(inner, frames, n);
	unlock(u);
}

/* --- all send --- */

static unsigned share_tx_get(struct port *p, struct port_frame *frames, unsigned n)
{
	struct user *u = user_of(p);
	struct port *inner = lock(u);

	n = inner->ops->tx_get(inner, frames, n);
	unlock(u);
	return n;
}

static void share_tx_put(struct port *p, struct port_frame *frames, unsigned n)
{
	struct user *u = user_of(p);
	struct port *inner = lock(u);

	inner->ops->tx_put(inner, frames, n);
	unlock(u);
}

static unsigned share_tx(struct port *p, struct port_frame *frames, unsigned n)
{
	struct user *u = user_of(p);
	uint64_t bytes = 0;
	struct port *inner;
	unsigned sent;

	for (unsigned i = 0; i < n; i++)
		bytes += frames[i].len;
	inner = lock(u);
	sent = inner->ops->tx(inner, frames, n);
	unlock(u);
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
	struct user *u = user_of(p);
	struct port *inner;
	int fd;

	if (u->index)
		return u->bell;
	inner = lock(u);
	fd = inner->ops->wait_fd(inner);
	unlock(u);
	return fd;
}

static int share_arm(struct port *p)
{
	struct user *u = user_of(p);
	struct port *inner;
	int r;

	if (u->index) {
		atomic_store(&u->armed, true);
		return 0;
	}
	inner = lock(u);
	r = inner->ops->arm(inner);
	unlock(u);
	return r;
}

static void share_disarm(struct port *p)
{
	struct user *u = user_of(p);
	struct port *inner;
	eventfd_t count;

	if (u->index) {
		atomic_store(&u->armed, false);
		eventfd_read(u->bell, &count); /* also of a ring that came too late for the last one */
		return;
	}
	inner = lock(u);
	inner->ops->disarm(inner);
	unlock(u);
}

/* --- the rest --- */

static bool share_link_poll(struct port *p)
{
	struct user *u = user_of(p);
	unsigned changes = atomic_load(&u->share->changes);
	struct port *inner;
	bool changed;

	if (u->index) {
		changed = u->seen != changes;
		u->seen = changes;
		return changed;
	}
	inner = lock(u);
	changed = inner->ops->link_poll(inner);
	unlock(u);
	if (changed)
		atomic_fetch_add(&u->share->changes, 1);
	return changed;
}

static void share_info(struct port *p, struct port_info *out)
{
	struct user *u = user_of(p);
	struct port *inner = lock(u);

	inner->ops->info(inner, out);
	unlock(u);
	if (u->index)
		out->caps |= PORT_CAP_RX_INTR;
}

static void share_stats(struct port *p, struct port_stats *out)
{
	struct user *u = user_of(p);
	struct port *inner;

	*out = u->stats;
	out->rx_missed = atomic_load(&u->missed);
	if (u->index)
		return;
	inner = lock(u);
	inner->ops->stats(inner, out);
	unlock(u);
}

static void share_free(struct share *s)
{
	for (unsigned i = 0; i < s->n; i++) {
		struct user *u = &s->users[i];

		sd_fd_close(&u->bell);
		free(u->copies);
	}
	pthread_mutex_destroy(&s->lock);
	free(s->users);
	free(s);
}

static void share_close(struct port *p)
{
	struct share *s = user_of(p)->share;
	struct port_frame f;

	if (atomic_fetch_sub(&s->n_open, 1) > 1)
		return;
	for (unsigned i = 1; i < s->n; i++) {
		reclaim(&s->users[i]);
		while (take(&s->users[i].in, &f, 1)) {
			put(&s->users[i].done, &f);
			reclaim(&s->users[i]);
		}
	}
	port_close(s->inner);
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

static int user_open(struct share *s, unsigned i)
{
	struct user *u = &s->users[i];

	u->base.ops = &ops;
	u->share = s;
	u->index = i;
	if (!i)
		return 0;
	u->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (u->bell < 0)
		return -errno;
	u->bell = sd_fd_raise(u->bell);
	u->copies = malloc(COPIES * COPY_SIZE);
	for (; u->copies && u->n_free < COPIES; u->n_free++)
		u->free_copies[u->n_free] = u->copies + u->n_free * COPY_SIZE;
	return u->copies ? 0 : -ENOMEM;
}

int port_share_open(struct port *inner, unsigned n, port_share_steer *steer, void *ctx, struct port *out[])
{
	pthread_mutexattr_t attributes;
	struct share *s;
	int r = 0;

	if (!n || n > PORT_SHARE_MAX)
		return -EINVAL;
	s = calloc(1, sizeof *s);
	if (s)
		s->users = aligned_alloc(64, n * sizeof *s->users);
	if (!s || !s->users) {
		free(s);
		return -ENOMEM;
	}
	memset(s->users, 0, n * sizeof *s->users);
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
	pthread_mutex_init(&s->lock, &attributes);
	pthread_mutexattr_destroy(&attributes);
	s->inner = inner;
	s->n = n;
	s->most = MOST / (n > 1 ? n - 1 : 1);
	if (s->most < MOST_EACH)
		s->most = MOST_EACH;
	atomic_init(&s->n_open, n);
	s->steer = steer;
	s->ctx = ctx;
	for (unsigned i = 0; i < n; i++)
		s->users[i].bell = -1;
	for (unsigned i = 0; !r && i < n; i++) {
		r = user_open(s, i);
		out[i] = &s->users[i].base;
	}
	if (r)
		share_free(s);
	return r;
}

uint64_t port_share_handed(const struct port *user0)
{
	const struct user *u = (const struct user *)user0;

	return atomic_load_explicit(&u->share->handed, memory_order_relaxed);
}
